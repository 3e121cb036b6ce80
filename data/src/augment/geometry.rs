//! Flips and turns. In: a picture. Out: one of the same size.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::colour::Amount;
use super::{
    Fill, Interpolation, Placement, Transform, check_probability, check_range, happens, uniform,
};
use crate::image::Picture;

/// Left becomes right: torchvision's `RandomHorizontalFlip`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flip {
    /// Probability.
    pub p: f64,
}

impl Default for Flip {
    fn default() -> Self {
        Self { p: 0.5 }
    }
}

impl Transform for Flip {
    fn kind(&self) -> &'static str {
        "flip"
    }

    fn check(&self) -> Result<(), String> {
        check_probability(self.p)
    }

    fn apply(&self, picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        if happens(self.p, rng) {
            flipped(picture)
        } else {
            picture
        }
    }

    fn placement(&self, [_, width]: [usize; 2], rng: &mut ChaCha8Rng) -> Placement {
        if happens(self.p, rng) {
            Placement::mirrored(1, width)
        } else {
            Placement::STILL
        }
    }
}

/// Top becomes bottom: torchvision's `RandomVerticalFlip`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlipVertical {
    /// Probability.
    pub p: f64,
}

impl Default for FlipVertical {
    fn default() -> Self {
        Self { p: 0.5 }
    }
}

impl Transform for FlipVertical {
    fn kind(&self) -> &'static str {
        "flip_vertical"
    }

    fn check(&self) -> Result<(), String> {
        check_probability(self.p)
    }

    fn apply(&self, picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        if happens(self.p, rng) {
            flipped_vertically(picture)
        } else {
            picture
        }
    }

    fn placement(&self, [height, _]: [usize; 2], rng: &mut ChaCha8Rng) -> Placement {
        if happens(self.p, rng) {
            Placement::mirrored(0, height)
        } else {
            Placement::STILL
        }
    }
}

/// Turns around the middle, keeping the size: torchvision's `RandomRotation`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// One number is that to either side; else the least and the largest, counter-clockwise.
    pub degrees: Amount,
    /// `nearest` or `bilinear`.
    #[serde(default = "nearest")]
    pub interpolation: Interpolation,
    /// The colour of the corners.
    #[serde(default)]
    pub fill: Fill,
}

fn nearest() -> Interpolation {
    Interpolation::Nearest
}

impl Transform for Rotate {
    fn kind(&self) -> &'static str {
        "rotate"
    }

    fn check(&self) -> Result<(), String> {
        check_range("degrees", self.degrees.around(0.0), [-360.0, 360.0])?;
        check_interpolation(self.interpolation)
    }

    fn apply(&self, picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        let degrees = uniform(self.degrees.around(0.0), rng);
        rotated(&picture, degrees, self.interpolation, Some(self.fill))
    }
}

/// Refuses what torchvision doesn't have either.
pub(super) fn check_interpolation(interpolation: Interpolation) -> Result<(), String> {
    if interpolation == Interpolation::Bicubic {
        return Err("interpolation is bicubic; possible are nearest and bilinear".into());
    }
    Ok(())
}

pub(super) fn flipped(mut picture: Picture) -> Picture {
    let row_len = picture.row_len();
    for row in picture.pixels.chunks_exact_mut(row_len) {
        if picture.channels == 1 {
            row.reverse();
        } else {
            row.as_chunks_mut::<3>().0.reverse();
        }
    }
    picture
}

pub(super) fn flipped_vertically(mut picture: Picture) -> Picture {
    let (row_len, height) = (picture.row_len(), picture.height);
    let (upper, lower) = picture.pixels.split_at_mut(height / 2 * row_len);
    let lower = lower.chunks_exact_mut(row_len).rev();
    for (upper, lower) in upper.chunks_exact_mut(row_len).zip(lower) {
        upper.swap_with_slice(lower);
    }
    picture
}

/// - degrees: counter-clockwise
/// - fill: as in [`transformed`]
pub(super) fn rotated(
    picture: &Picture,
    degrees: f64,
    interpolation: Interpolation,
    fill: Option<Fill>,
) -> Picture {
    let (sin, cos) = degrees.to_radians().sin_cos();
    transformed(
        picture,
        [cos, -sin, 0.0, sin, cos, 0.0],
        interpolation,
        fill,
    )
}

/// Shifts each row to the left by `x` of its distance from the top, and each column up by `y` of that from the left:
/// torchvision's `affine` with the shears atan(x) and atan(y) around the top left corner. One of both is 0.
pub(super) fn sheared(
    picture: &Picture,
    [x, y]: [f64; 2],
    interpolation: Interpolation,
    fill: Option<Fill>,
) -> Picture {
    // Coordinates are counted from the middle.
    let [to_top, to_left] = picture.size().map(|side| side as f64 / 2.0);
    let matrix = [1.0, x, x * to_top, y, 1.0, y * to_left];
    transformed(picture, matrix, interpolation, fill)
}

/// Moves by whole pixels to the right and down.
pub(super) fn translated(
    picture: &Picture,
    [right, down]: [f64; 2],
    interpolation: Interpolation,
    fill: Option<Fill>,
) -> Picture {
    transformed(
        picture,
        [1.0, 0.0, -right, 0.0, 1.0, -down],
        interpolation,
        fill,
    )
}

/// Each pixel shows the place `matrix` x (its column, its row, 1), both counted from the middle.
///
/// - matrix: two rows of three
/// - fill: what shows beyond the edge; `None` is black, into which the last pixel fades where interpolation is bilinear
fn transformed(
    picture: &Picture,
    matrix: [f64; 6],
    interpolation: Interpolation,
    fill: Option<Fill>,
) -> Picture {
    let [height, width] = picture.size();
    let mut pixels = Vec::with_capacity(picture.pixels.len());
    let places = Places::new(picture.size(), matrix);
    for y in 0..height {
        for x in 0..width {
            let place = places.of(y, x);
            let pixel = match interpolation {
                Interpolation::Nearest => nearest_pixel(picture, place, fill),
                _ => between_pixels(picture, place, fill),
            };
            pixels.extend_from_slice(&pixel[..picture.channels]);
        }
    }
    Picture::new(picture.channels, [height, width], pixels)
}

/// Where each pixel of the result is in the picture. In f32 and through coordinates from -1 to 1, as torch computes
/// them, so that the same pixel is the nearest.
struct Places {
    size: [f32; 2],
    /// From columns and rows counted from the middle to columns and rows from -1 to 1.
    matrix: [f32; 6],
}

impl Places {
    fn new([height, width]: [usize; 2], matrix: [f64; 6]) -> Self {
        let size = [height as f32, width as f32];
        let half = [size[1], size[0]].map(|side| 0.5 * side);
        let scaled = |at: usize| matrix[at] as f32 / half[at / 3];
        Self {
            size,
            matrix: std::array::from_fn(scaled),
        }
    }

    /// Row and column.
    fn of(&self, y: usize, x: usize) -> [f32; 2] {
        let [height, width] = self.size;
        let (x, y) = (
            x as f32 + (1.0 - width) * 0.5,
            y as f32 + (1.0 - height) * 0.5,
        );
        let [a, b, c, d, e, f] = self.matrix;
        let place = |at: f32, side: f32| ((at + 1.0) * side - 1.0) * 0.5;
        [
            place(x * d + y * e + f, height),
            place(x * a + y * b + c, width),
        ]
    }
}

/// The values of the nearest pixel, three whatever the channels.
fn nearest_pixel(picture: &Picture, place: [f32; 2], fill: Option<Fill>) -> [u8; 3] {
    let [y, x] = place.map(|at| at.round_ties_even() as isize);
    match pixel_at(picture, y, x) {
        Some(pixel) => std::array::from_fn(|c| pixel[c % picture.channels]),
        None => fill.unwrap_or_default().pixel(picture.channels),
    }
}

/// The values between the four pixels around a place, three whatever the channels.
fn between_pixels(picture: &Picture, place: [f32; 2], fill: Option<Fill>) -> [u8; 3] {
    let [top, left] = place.map(f32::floor);
    let [down, right] = [place[0] - top, place[1] - left];
    let (top, left) = (top as isize, left as isize);
    let (mut sums, mut inside) = ([0.0; 3], 0.0);
    for (y, weight) in [(top, 1.0 - down), (top + 1, down)] {
        for (x, weight) in [(left, weight * (1.0 - right)), (left + 1, weight * right)] {
            if let Some(pixel) = pixel_at(picture, y, x) {
                inside += weight;
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum += weight * f32::from(pixel[c % picture.channels]);
                }
            }
        }
    }
    if let Some(fill) = fill {
        // torchvision's formula, which counts the share of the picture twice.
        let fill = fill.pixel(picture.channels).map(f32::from);
        for (sum, fill) in sums.iter_mut().zip(fill) {
            *sum = (*sum - fill) * inside + fill;
        }
    }
    sums.map(|sum| sum.round_ties_even() as u8)
}

fn pixel_at(picture: &Picture, y: isize, x: isize) -> Option<&[u8]> {
    let (y, x) = (usize::try_from(y).ok()?, usize::try_from(x).ok()?);
    (y < picture.height && x < picture.width).then(|| picture.pixel(y, x))
}
