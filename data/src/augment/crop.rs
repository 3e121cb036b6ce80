//! Cuts out and moves without resizing. In: a picture. Out: a part of it, what is missing filled.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Fill, Placement, Size, Transform};
use crate::image::Picture;

/// Cuts out the middle: torchvision's `CenterCrop`. A picture that is smaller gets a black border.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CenterCrop {
    /// Of the result; one number is that of both sides.
    pub size: Size,
}

impl Transform for CenterCrop {
    fn kind(&self) -> &'static str {
        "center_crop"
    }

    fn check(&self) -> Result<(), String> {
        self.size.check()
    }

    fn size_after(&self, _: Option<[usize; 2]>) -> Option<[usize; 2]> {
        Some(self.size.square())
    }

    fn apply(&self, picture: Picture, _: &mut ChaCha8Rng) -> Picture {
        central(picture, self.size.square())
    }

    fn placement(&self, from: [usize; 2], _: &mut ChaCha8Rng) -> Placement {
        let size = self.size.square();
        Placement::cut([0, 1].map(|axis| middle(from[axis], size[axis])))
    }
}

/// The middle of a picture, of this height and width.
pub(super) fn central(picture: Picture, size: [usize; 2]) -> Picture {
    let start = [0, 1].map(|axis| middle(picture.size()[axis], size[axis]));
    cut(picture, start, size, PaddingMode::Constant, Fill::Grey(0))
}

/// What is seen beyond the edge of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingMode {
    /// A colour.
    #[default]
    Constant,
    /// The last pixel again and again.
    Edge,
    /// A mirror image in which the last pixel does not occur twice.
    Reflect,
    /// A mirror image that begins with the last pixel.
    Symmetric,
}

/// Cuts out a random part: torchvision's `RandomCrop`, always with `pad_if_needed`, as images differ in size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomCrop {
    /// Of the result; one number is that of both sides, 0 that of the picture.
    #[serde(default = "Size::of_picture")]
    pub size: Size,
    /// Pixels that the picture is made larger on each side, before.
    #[serde(default)]
    pub padding: usize,
    /// Colour of the padding, if it has one.
    #[serde(default)]
    pub fill: Fill,
    /// What the padding shows.
    #[serde(default)]
    pub padding_mode: PaddingMode,
}

impl RandomCrop {
    /// Where the part begins on an axis; negative where it begins in the padding.
    ///
    /// - from, to: pixels of the picture and of the part
    fn start(&self, from: usize, to: usize, rng: &mut ChaCha8Rng) -> isize {
        let mut padding = self.padding;
        // As torchvision: on both sides as much as is missing.
        padding += to.saturating_sub(from + 2 * padding);
        let room = from + 2 * padding - to;
        rng.random_range(0..=room) as isize - padding as isize
    }
}

impl Transform for RandomCrop {
    fn kind(&self) -> &'static str {
        "random_crop"
    }

    fn check(&self) -> Result<(), String> {
        self.size.check_optional()?;
        if self.padding <= crate::image::LONGEST_SIDE {
            return Ok(());
        }
        Err(format!(
            "padding is {}; at most {} pixels are possible",
            self.padding,
            crate::image::LONGEST_SIDE
        ))
    }

    fn size_after(&self, size: Option<[usize; 2]>) -> Option<[usize; 2]> {
        match self.size {
            Size::Side(0) => size,
            other => Some(other.square()),
        }
    }

    fn apply(&self, picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        let size = self.size.square_of(picture.size());
        let start = [0, 1].map(|axis| self.start(picture.size()[axis], size[axis], rng));
        cut(picture, start, size, self.padding_mode, self.fill)
    }

    fn placement(&self, from: [usize; 2], rng: &mut ChaCha8Rng) -> Placement {
        let size = self.size.square_of(from);
        Placement::cut([0, 1].map(|axis| self.start(from[axis], size[axis], rng)))
    }
}

/// Moves a picture a few pixels; its edge fills what opens. torchvision has it as `RandomCrop` with the padding mode
/// `edge`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// Pixels at most, up or down and left or right.
    pub pixels: u16,
}

impl Transform for Shift {
    fn kind(&self) -> &'static str {
        "shift"
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        let start = self.start(rng);
        let size = picture.size();
        cut(picture, start, size, PaddingMode::Edge, Fill::Grey(0))
    }

    fn placement(&self, _: [usize; 2], rng: &mut ChaCha8Rng) -> Placement {
        Placement::cut(self.start(rng))
    }
}

impl Shift {
    /// The row and the column of the picture that come first.
    fn start(&self, rng: &mut ChaCha8Rng) -> [isize; 2] {
        let most = i32::from(self.pixels);
        [(); 2].map(|()| -(rng.random_range(-most..=most) as isize))
    }
}

/// Where a part of `to` pixels begins in the middle of `from`; negative where it is larger.
pub(super) fn middle(from: usize, to: usize) -> isize {
    if to > from {
        // The smaller half of the border comes first.
        return -(((to - from) / 2) as isize);
    }
    ((from - to) as f64 / 2.0).round_ties_even() as isize
}

/// The part that begins at `start` (row, column), which may be outside of the picture.
pub(super) fn cut(
    picture: Picture,
    start: [isize; 2],
    size: [usize; 2],
    mode: PaddingMode,
    fill: Fill,
) -> Picture {
    if start == [0, 0] && size == picture.size() {
        return picture;
    }
    let channels = picture.channels;
    let [rows, columns] = [0, 1].map(|axis| {
        let source = |at| source(start[axis] + at as isize, picture.size()[axis], mode);
        (0..size[axis]).map(source).collect::<Vec<_>>()
    });
    let fill = &fill.pixel(channels)[..channels];
    let left = usize::try_from(start[1]).ok();
    let left = left.filter(|left| left + size[1] <= picture.width);
    let mut pixels = Vec::with_capacity(size[0] * size[1] * channels);
    for row in rows {
        match (row, left) {
            (None, _) => pixels.extend(fill.iter().cycle().take(size[1] * channels)),
            (Some(y), Some(left)) => {
                let from = y * picture.row_len() + left * channels;
                pixels.extend_from_slice(&picture.pixels[from..from + size[1] * channels]);
            }
            (Some(y), None) => {
                for column in &columns {
                    pixels.extend_from_slice(column.map_or(fill, |x| picture.pixel(y, x)));
                }
            }
        }
    }
    Picture::new(channels, size, pixels)
}

/// The pixel that is seen at a place of an axis, if it is one of the picture.
fn source(at: isize, len: usize, mode: PaddingMode) -> Option<usize> {
    let last = len as isize - 1;
    let mirrored = |at: isize, period: isize, beyond: isize| {
        let at = at.rem_euclid(period.max(1));
        at.min(beyond - at)
    };
    let at = match mode {
        PaddingMode::Constant if !(0..=last).contains(&at) => return None,
        PaddingMode::Constant => at,
        PaddingMode::Edge => at.clamp(0, last),
        PaddingMode::Reflect => mirrored(at, 2 * last, 2 * last),
        PaddingMode::Symmetric => mirrored(at, 2 * len as isize, 2 * len as isize - 1),
    };
    Some(at as usize)
}

/// The row or column that a mirror image without a doubled edge shows at this place.
pub(super) fn reflected(at: isize, len: usize) -> usize {
    source(at, len, PaddingMode::Reflect).unwrap_or(0)
}
