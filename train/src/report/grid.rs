//! Images side by side. In: batches of pixels. Out: a PNG.

use std::io::Cursor;

use image::{ExtendedColorType, ImageFormat};

use crate::job::image::PixelBatch;

/// Pixels of the grid a pixel of an image.
const SCALE: usize = 2;
/// Pixels between two images of the grid.
const GAP: usize = 2;

/// One row of images a batch, as PNG; all batches are of one shape.
pub fn grid_png(rows: &[&PixelBatch]) -> image::ImageResult<Vec<u8>> {
    let PixelBatch {
        n: columns,
        channels,
        height,
        width,
        ..
    } = *rows[0];
    let side = |images: usize, pixels: usize| images * (pixels * SCALE + GAP) - GAP;
    let (full_height, full_width) = (side(rows.len(), height), side(columns, width));
    let mut bytes = vec![255; full_height * full_width * channels];
    for (row, batch) in rows.iter().enumerate() {
        for column in 0..columns {
            let image = batch.image(column);
            let (top, left) = (row * (height * SCALE + GAP), column * (width * SCALE + GAP));
            for y in 0..height * SCALE {
                for x in 0..width * SCALE {
                    let to = ((top + y) * full_width + left + x) * channels;
                    for channel in 0..channels {
                        let from = (channel * height + y / SCALE) * width + x / SCALE;
                        bytes[to + channel] = (image[from] * 255.0).round() as u8;
                    }
                }
            }
        }
    }
    let colour = if channels == 1 {
        ExtendedColorType::L8
    } else {
        ExtendedColorType::Rgb8
    };
    let mut png = Cursor::new(Vec::new());
    let (width, height) = (full_width as u32, full_height as u32);
    image::write_buffer_with_format(&mut png, &bytes, width, height, colour, ImageFormat::Png)?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_shows_rows_of_doubled_images() {
        // A bright bar, each image's at its own place.
        let bar = |i: usize| (0..90).map(move |at| if at % 5 == i { 255 } else { 0 });
        let bytes: Vec<u8> = (0..2).flat_map(bar).collect();
        let batch = PixelBatch::from_bytes(&bytes, [3, 6, 5]);
        let png = image::load_from_memory(&grid_png(&[&batch, &batch]).unwrap())
            .unwrap()
            .to_rgb8();
        // Two images of 5x6, doubled, with a gap of 2 between them.
        assert_eq!(png.dimensions(), (22, 26));
        assert_eq!(png.get_pixel(0, 0).0, [255; 3], "the first bar");
        assert_eq!(png.get_pixel(2, 1).0, [0; 3]);
        assert_eq!(png.get_pixel(10, 0).0, [255; 3], "the gap");
        assert_eq!(png.get_pixel(12, 25).0, [0; 3]);
        assert_eq!(png.get_pixel(14, 25).0, [255; 3], "the second bar");
    }
}
