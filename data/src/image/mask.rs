//! Reads masks: images whose pixels are classes. In: a PNG of one channel or with a palette. Out: a class a pixel.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Decoder, Transformations};
use rayon::prelude::*;

use super::memory::check_pixels;
use crate::{DataError, file};

/// A pixel of a mask that belongs to no class: nothing is to be learned of it.
pub const IGNORED: u8 = 255;

/// A class for each pixel of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
    /// `[height, width]`; the number in the palette, or the value of grey.
    pub classes: Vec<u8>,
}

/// Reads a PNG as a mask: each pixel is its number in the palette, or its value of grey.
///
/// # Errors
/// No PNG, one of several channels or of 16 bits, or more pixels than an image may have.
pub fn read_mask(path: &Path) -> Result<Mask, DataError> {
    let wrong = |reason: String| DataError::Mask {
        path: path.into(),
        reason,
    };
    let failed = |error: png::DecodingError| wrong(error.to_string());
    let file = File::open(path).map_err(|source| file::io_error(path, source))?;
    let mut decoder = Decoder::new(BufReader::new(file));
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(failed)?;
    let info = reader.info();
    let (height, width) = (info.height, info.width);
    check_pixels(path, height, width)?;
    let (color, depth) = (info.color_type, info.bit_depth);
    if !matches!(color, ColorType::Grayscale | ColorType::Indexed) || depth == BitDepth::Sixteen {
        let reason = "classes are the values of one channel of 8 bits, or of a palette";
        return Err(wrong(reason.into()));
    }
    let mut packed = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let frame = reader.next_frame(&mut packed).map_err(failed)?;
    let (height, width) = (height as usize, width as usize);
    let rows = packed.chunks_exact(frame.line_size).take(height);
    let classes = rows.flat_map(|row| unpacked(row, depth as usize, width));
    Ok(Mask {
        height,
        width,
        classes: classes.collect(),
    })
}

/// The largest class of all masks, read on all cores; nothing where no pixel has one.
///
/// - sizes: height and width of the image that each mask is of
///
/// # Errors
/// A mask that cannot be read, or that is not as large as its image.
pub fn largest_class(masks: &[PathBuf], sizes: &[[usize; 2]]) -> Result<Option<u8>, DataError> {
    let largest = |(path, &[height, width]): (&PathBuf, &[usize; 2])| {
        let mask = read_mask(path)?;
        if [mask.height, mask.width] != [height, width] {
            let (rows, columns) = (mask.height, mask.width);
            return Err(DataError::Mask {
                path: path.into(),
                reason: format!("it is {rows}x{columns}, and its image {height}x{width}"),
            });
        }
        Ok(mask
            .classes
            .into_iter()
            .filter(|class| *class != IGNORED)
            .max())
    };
    let all = masks.par_iter().zip(sizes).map(largest);
    all.try_reduce(|| None, |a, b| Ok(a.max(b)))
}

/// The values of a row, each of so many bits, the first one in the highest bits.
fn unpacked(row: &[u8], bits: usize, width: usize) -> impl Iterator<Item = u8> + '_ {
    let mask = (0xff_u16 >> (8 - bits)) as u8;
    (0..width).map(move |x| {
        let bit = x * bits;
        (row[bit / 8] >> (8 - bits - bit % 8)) & mask
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn read(color: ColorType, depth: BitDepth, width: u32, rows: &[u8]) -> Result<Mask, String> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("mask.png");
        let mut encoder = png::Encoder::new(File::create(&path).unwrap(), width, 2);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette([9, 9, 9].repeat(8));
        }
        encoder
            .write_header()
            .unwrap()
            .write_image_data(rows)
            .unwrap();
        read_mask(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_of_a_palette_and_values_of_grey_are_classes() {
        let expected = Mask {
            height: 2,
            width: 3,
            classes: vec![0, 1, 2, 3, 2, 1],
        };
        // Two bits a pixel: 00 01 10, 11 10 01.
        let packed = [0b0001_1000, 0b1110_0100];
        for color in [ColorType::Indexed, ColorType::Grayscale] {
            assert_eq!(read(color, BitDepth::Two, 3, &packed).unwrap(), expected);
            let whole = read(color, BitDepth::Eight, 3, &expected.classes);
            assert_eq!(whole.unwrap(), expected);
        }
    }

    #[test]
    fn what_has_no_classes_is_refused() {
        let error = read(ColorType::Rgb, BitDepth::Eight, 1, &[0; 6]).unwrap_err();
        assert!(error.contains("one channel of 8 bits"), "{error}");
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.png");
        std::fs::write(&path, b"\x89PNG\r\n\x1a\n").unwrap();
        let error = read_mask(&path).unwrap_err().to_string();
        assert!(error.contains("cannot be read as a mask"), "{error}");
    }
}
