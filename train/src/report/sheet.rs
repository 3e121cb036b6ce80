//! A batch of images as people look at it. In: images, and what is written under each. Out: a PNG.

use std::io::Cursor;

use image::{ExtendedColorType, ImageFormat};

use model::bundle::ImageInput;

use crate::job::image::PixelBatch;
use crate::report::letters;

/// Images are shown larger, in whole steps, until they are about so wide.
const WIDTH: usize = 144;
/// Pixels between two images, and around all.
const GAP: usize = 8;
/// Pixels of the sheet a pixel of a letter.
const LETTER: usize = 2;
/// Pixels from one line of text to the next.
const LINE: usize = (letters::HEIGHT + 2) * LETTER;
/// Lines under an image at most.
const LINES: usize = 4;
/// Images at most: beyond them nobody looks.
const MOST: usize = 256;

/// Images with captions.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Pixels from 0 to 1; what is outside is cut.
    pub images: PixelBatch,
    /// Lines under each image; they are broken where they are too long.
    pub captions: Vec<Vec<String>>,
}

impl Sheet {
    /// Views of images, each image's one after the other.
    ///
    /// - input: how the model sees images
    pub fn of_views(views: &[PixelBatch], input: &ImageInput) -> Self {
        let mut all = views[0].clone();
        all.n *= views.len();
        all.pixels.clear();
        for image in 0..views[0].n {
            for view in views {
                all.pixels.extend(view.image(image));
            }
        }
        let caption = |at: usize| match views.len() {
            1 => vec![],
            n => vec![format!("image {}, view {}", at / n + 1, at % n + 1)],
        };
        Self {
            captions: (0..all.n).map(caption).collect(),
            images: all.without_normalizing(input),
        }
    }

    /// The number of images that are shown.
    pub fn shown(&self) -> usize {
        self.images.n.min(MOST)
    }

    /// The images in a grid.
    ///
    /// # Errors
    ///
    /// The grid is too large for a PNG.
    pub fn to_png(&self) -> image::ImageResult<Vec<u8>> {
        let shown = self.shown();
        let (height, width) = (self.images.height, self.images.width);
        let scale = (WIDTH / width.max(height)).max(1);
        let cell_width = (width * scale).max(WIDTH);
        let captions: Vec<Vec<String>> = (0..shown).map(|i| self.lines(i, cell_width)).collect();
        let lines = captions.iter().map(Vec::len).max().unwrap_or(0);
        let cell_height = height * scale + lines * LINE + LETTER;
        let columns = (1..).find(|n| n * n >= shown).unwrap_or(1);
        let mut canvas = Canvas::white(
            GAP + shown.div_ceil(columns) * (cell_height + GAP),
            GAP + columns * (cell_width + GAP),
        );
        for (i, caption) in captions.iter().enumerate() {
            let top = GAP + i / columns * (cell_height + GAP);
            let left = GAP + i % columns * (cell_width + GAP);
            let middle = left + (cell_width - width * scale) / 2;
            canvas.draw(&self.images, i, [top, middle], scale);
            for (at, line) in caption.iter().enumerate() {
                let top = top + height * scale + 2 * LETTER + at * LINE;
                canvas.write(line, [top, left]);
            }
        }
        canvas.to_png()
    }

    /// What is written under an image, in lines that are not too long.
    fn lines(&self, i: usize, width: usize) -> Vec<String> {
        let letters = (width / (letters::ADVANCE * LETTER)).max(1);
        let captions = self.captions.get(i).map_or(&[][..], Vec::as_slice);
        let mut lines = Vec::new();
        for caption in captions {
            let caption: Vec<char> = caption.chars().collect();
            lines.extend(caption.chunks(letters).map(String::from_iter));
        }
        if lines.len() > LINES {
            lines.truncate(LINES);
            let last: String = lines[LINES - 1].chars().take(letters.max(2) - 2).collect();
            lines[LINES - 1] = last + "..";
        }
        lines
    }
}

/// RGB pixels, `[height, width, 3]`.
struct Canvas {
    pixels: Vec<u8>,
    height: usize,
    width: usize,
}

impl Canvas {
    fn white(height: usize, width: usize) -> Self {
        Self {
            pixels: vec![255; height * width * 3],
            height,
            width,
        }
    }

    /// - scale: pixels a pixel of the image
    fn draw(&mut self, images: &PixelBatch, i: usize, [top, left]: [usize; 2], scale: usize) {
        let image = images.image(i);
        let (height, width) = (images.height, images.width);
        for y in 0..height * scale {
            for x in 0..width * scale {
                let to = ((top + y) * self.width + left + x) * 3;
                for colour in 0..3 {
                    let channel = colour.min(images.channels - 1);
                    let from = (channel * height + y / scale) * width + x / scale;
                    self.pixels[to + colour] = (image[from] * 255.0).round() as u8;
                }
            }
        }
    }

    fn write(&mut self, line: &str, [top, left]: [usize; 2]) {
        for (x, y) in letters::pixels(line) {
            for row in 0..LETTER {
                let start = ((top + y * LETTER + row) * self.width + left + x * LETTER) * 3;
                let end = (start + LETTER * 3).min(self.pixels.len());
                self.pixels[start.min(end)..end].fill(0);
            }
        }
    }

    fn to_png(&self) -> image::ImageResult<Vec<u8>> {
        let mut png = Cursor::new(Vec::new());
        let (width, height) = (self.width as u32, self.height as u32);
        let rgb = ExtendedColorType::Rgb8;
        image::write_buffer_with_format(
            &mut png,
            &self.pixels,
            width,
            height,
            rgb,
            ImageFormat::Png,
        )?;
        Ok(png.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_enlarged_over_their_captions() {
        // Three grey images of 30x48, three times as large on the sheet.
        let bytes: Vec<u8> = [0, 100, 200]
            .iter()
            .flat_map(|&grey| [grey; 1440])
            .collect();
        let sheet = Sheet {
            images: PixelBatch::from_bytes(&bytes, [1, 30, 48]),
            captions: vec![
                vec!["a".into()],
                vec!["cat 0.70".into(), "dog 0.30".into()],
                vec![],
            ],
        };
        let png = image::load_from_memory(&sheet.to_png().unwrap())
            .unwrap()
            .to_rgb8();
        // Two columns and rows: 90 pixels of the image, two lines of 20 and 2 beneath it.
        assert_eq!(png.dimensions(), (8 + 2 * 152, 8 + 2 * 140));
        assert_eq!(png.get_pixel(8, 8).0, [0; 3]);
        assert_eq!(png.get_pixel(151, 97).0, [0; 3]);
        assert_eq!(png.get_pixel(160, 8).0, [100; 3]);
        assert_eq!(png.get_pixel(8, 148).0, [200; 3]);
        assert_eq!(png.get_pixel(160, 148).0, [255; 3], "no fourth image");
        let is_written = |left: u32, top: u32| {
            let of_line = (left..left + 144).flat_map(|x| (top..top + 20).map(move |y| (x, y)));
            of_line
                .filter(|&(x, y)| png.get_pixel(x, y).0 == [0; 3])
                .count()
                > 10
        };
        assert!(is_written(8, 100) && !is_written(8, 120));
        assert!(is_written(160, 100) && is_written(160, 120));
    }

    #[test]
    fn long_captions_are_broken_and_cut() {
        let lines = |caption: &str| {
            let sheet = Sheet {
                images: PixelBatch::from_bytes(&[0], [1, 1, 1]),
                captions: vec![vec![caption.into()]],
            };
            sheet.lines(0, 96)
        };
        // Eight letters of twelve pixels.
        assert_eq!(lines("golden retriever"), ["golden r", "etriever"]);
        let long = lines(&"0123456789".repeat(5));
        assert_eq!(long, ["01234567", "89012345", "67890123", "456789.."]);
    }
}
