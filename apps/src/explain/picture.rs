//! Attributions of an image as an image. In: what the model sees, an attribution a pixel. Out: a PNG with the image on the left
//! and the attributions over it on the right.

use std::io::Cursor;

use data::Picture;
use image::{ImageFormat, Rgb, RgbImage};
use train::{Failure, FailureKind};

/// Red, green and blue of what speaks for the class, and of what speaks against it; people who do not tell red from green tell
/// these apart.
pub(super) const FOR: [u8; 3] = [0, 114, 178];
pub(super) const AGAINST: [u8; 3] = [213, 94, 0];
/// The shorter side is at least so long: small images are enlarged by whole pixels.
const SIDE: usize = 224;
/// The share of attributions that have less than the full colour: single pixels must not fade the others.
const SHARE: f64 = 0.98;
/// Of the colour where it is strongest.
const OPACITY: f32 = 0.85;

/// The PNG, and its width and height.
///
/// # Errors
///
/// The encoder fails.
pub(super) fn png(picture: &Picture, values: &[f32]) -> Result<(Vec<u8>, [u32; 2]), Failure> {
    let [height, width] = picture.size();
    let times = SIDE.div_ceil(height.min(width).max(1));
    let gap = (width * times).div_ceil(16);
    let size = [2 * width * times + gap, height * times].map(|side| side as u32);
    let full = full(values);
    let image = RgbImage::from_fn(size[0], size[1], |x, y| {
        let (x, y) = (x as usize, y as usize / times);
        let right = x.checked_sub(width * times + gap);
        match right {
            Some(x) => {
                let at = y * width + x / times;
                Rgb(coloured(grey(rgb(picture, at)), values[at] / full))
            }
            None if x < width * times => Rgb(rgb(picture, y * width + x / times)),
            None => Rgb([255; 3]),
        }
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).running()?;
    Ok((bytes.into_inner(), size))
}

fn rgb(picture: &Picture, at: usize) -> [u8; 3] {
    let channels = picture.channels;
    let first = at * channels;
    std::array::from_fn(|channel| picture.pixels[first + channel.min(channels - 1)])
}

/// Luma of ITU-R BT.601.
fn grey([red, green, blue]: [u8; 3]) -> u8 {
    ((299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue)) / 1000) as u8
}

/// The attribution that has the full colour.
fn full(values: &[f32]) -> f32 {
    let mut sizes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let last = sizes.len().saturating_sub(1);
    let at = (last as f64 * SHARE).ceil() as usize;
    let found = sizes.get(at).copied().unwrap_or_default();
    // Nearly all may be 0.
    let largest = sizes.last().copied().unwrap_or_default();
    if found > 0.0 {
        found
    } else {
        largest.max(f32::MIN_POSITIVE)
    }
}

/// - share: of the full colour, below 0 where something speaks against the class
fn coloured(grey: u8, share: f32) -> [u8; 3] {
    let colour = if share < 0.0 { AGAINST } else { FOR };
    let opacity = OPACITY * share.abs().min(1.0);
    colour.map(|to| (f32::from(grey) + (f32::from(to) - f32::from(grey)) * opacity).round() as u8)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test fails by panicking.
mod tests {
    use super::*;

    #[test]
    fn the_image_is_on_the_left_and_the_colours_on_the_right() {
        let picture = Picture::new(1, [2, 1], vec![200, 100]);
        let (bytes, [width, height]) = png(&picture, &[0.0, -2.0]).unwrap();
        assert_eq!([width, height], [224 * 2 + 14, 448]);
        let image = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(image.get_pixel(0, 0).0, [200; 3]);
        assert_eq!(image.get_pixel(0, 447).0, [100; 3]);
        assert_eq!(image.get_pixel(width - 1, 0).0, [200; 3]);
        assert_eq!(image.get_pixel(width - 1, 447).0, coloured(100, -1.0));
    }

    #[test]
    fn a_few_bright_pixels_do_not_fade_the_others() {
        let mut values = vec![1.0; 99];
        values.push(50.0);
        assert_eq!(full(&values), 1.0);
        assert_eq!(full(&[0.0, 0.0, 0.0, 3.0]), 3.0);
        assert_eq!(full(&[0.0]), f32::MIN_POSITIVE);
    }
}
