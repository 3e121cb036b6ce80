//! Changes images at random, anew every epoch. In: a [`Picture`], a seed, the number of the sample. Out: a [`Picture`].
//!
//! A recipe lists the steps in their order:
//!
//! ```toml
//! steps = [
//!   {kind = "random_resized_crop", size = 224},
//!   {kind = "flip", p = 0.5},
//!   {kind = "color_jitter", brightness = 0.4, contrast = 0.4},
//! ]
//! ```
//!
//! Parameters are named, default and mean as in torchvision's `transforms.v2`, and values of pixels come out as its
//! operations on `uint8` tensors give them. Where a step differs, its documentation says so.
//!
//! - `resize`: to a size, cropping at random; `crop`: without resizing; `geometry`: flips, rotation, shear
//! - `colour`, `blur`, `erasing`
//! - `automatic`: policies that draw from many operations
//! - `view`: what a picture is without chance, for evaluation
//! - [`batch`]: mixes the images of a batch, and their targets

mod automatic;
pub mod batch;
mod blur;
mod colour;
mod crop;
mod erasing;
mod geometry;
mod placement;
mod resize;
mod view;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::image::Picture;
use crate::order::{self, Stream};

pub use automatic::{RandAugment, TrivialAugment};
pub use batch::{BatchMix, CutMix, MixUp, Mixture};
pub use blur::Blur;
pub use colour::{Amount, ColorJitter, Grayscale, Solarize};
pub use crop::{CenterCrop, PaddingMode, RandomCrop, Shift};
pub use erasing::Erasing;
pub use geometry::{Flip, FlipVertical, Rotate};
pub use placement::Placement;
pub use resize::{Interpolation, RandomResizedCrop, Resize};
pub use view::View;

/// Steps that are applied one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Augmentation {
    /// In the order of their application.
    pub steps: Vec<Step>,
}

/// One step of an [`Augmentation`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each kind is documented as a type")]
pub enum Step {
    Resize(Resize),
    CenterCrop(CenterCrop),
    RandomCrop(RandomCrop),
    RandomResizedCrop(RandomResizedCrop),
    Flip(Flip),
    FlipVertical(FlipVertical),
    Rotate(Rotate),
    Shift(Shift),
    ColorJitter(ColorJitter),
    Grayscale(Grayscale),
    Solarize(Solarize),
    Blur(Blur),
    Erasing(Erasing),
    RandAugment(RandAugment),
    TrivialAugment(TrivialAugment),
}

/// What every kind of step can do.
trait Transform {
    /// Its `kind` in a recipe.
    fn kind(&self) -> &'static str;

    /// Says what is impossible about its parameters, if anything is.
    fn check(&self) -> Result<(), String>;

    /// Height and width after it, where they are known.
    ///
    /// - size: height and width before it; `None` if images differ
    fn size_after(&self, size: Option<[usize; 2]>) -> Option<[usize; 2]> {
        size
    }

    fn apply(&self, picture: Picture, rng: &mut ChaCha8Rng) -> Picture;

    /// Where the pixels of what [`apply`](Self::apply) gives come from; draws what that draws.
    ///
    /// - size: height and width before it
    fn placement(&self, _size: [usize; 2], _rng: &mut ChaCha8Rng) -> Placement {
        Placement::STILL
    }
}

impl Step {
    fn transform(&self) -> &dyn Transform {
        match self {
            Self::Resize(step) => step,
            Self::CenterCrop(step) => step,
            Self::RandomCrop(step) => step,
            Self::RandomResizedCrop(step) => step,
            Self::Flip(step) => step,
            Self::FlipVertical(step) => step,
            Self::Rotate(step) => step,
            Self::Shift(step) => step,
            Self::ColorJitter(step) => step,
            Self::Grayscale(step) => step,
            Self::Solarize(step) => step,
            Self::Blur(step) => step,
            Self::Erasing(step) => step,
            Self::RandAugment(step) => step,
            Self::TrivialAugment(step) => step,
        }
    }
}

impl Augmentation {
    /// No step: pictures as they are.
    pub const NONE: Self = Self { steps: Vec::new() };

    /// How images are seen by a trained classifier: resized until the shorter side is `size / crop_pct`, then the
    /// square in the middle. With `crop_pct` 0.875 as torchvision's presets for 224 pixels (256, then 224).
    pub fn evaluation(size: usize, crop_pct: f64, interpolation: Interpolation) -> Self {
        let shorter = (size as f64 / crop_pct).floor() as usize;
        Self {
            steps: vec![
                Step::Resize(Resize {
                    size: Size::Side(shorter),
                    interpolation,
                }),
                Step::CenterCrop(CenterCrop {
                    size: Size::Side(size),
                }),
            ],
        }
    }

    /// Says what is impossible about a step, if anything is: `step 2, flip: p is 1.5; a probability is 0 to 1`.
    pub fn check(&self) -> Result<(), String> {
        for (at, step) in self.steps.iter().enumerate() {
            let step = step.transform();
            let named = |reason| format!("step {}, {}: {reason}", at + 1, step.kind());
            step.check().map_err(named)?;
        }
        Ok(())
    }

    /// Height and width of what comes out; `None` if they differ from image to image.
    ///
    /// - size: height and width of what goes in; `None` if they differ from image to image
    pub fn size_after(&self, size: Option<[usize; 2]>) -> Option<[usize; 2]> {
        let steps = self.steps.iter();
        steps.fold(size, |size, step| step.transform().size_after(size))
    }

    /// Changes a picture; how is a function of the seed and the number of the sample alone.
    ///
    /// # Panics
    /// May panic if a step's parameters are some that [`check`](Self::check) finds impossible.
    pub fn apply(&self, picture: Picture, seed: u64, sample: u64) -> Picture {
        let mut rng = order::rng(seed, Stream::Augment, sample);
        let steps = self.steps.iter();
        steps.fold(picture, |picture, step| {
            step.transform().apply(picture, &mut rng)
        })
    }
}

/// A size in a recipe: `224`, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a size is one number or [height, width]")]
pub enum Size {
    /// The shorter side of a [`Resize`], both sides of everything else.
    Side(usize),
    /// Height and width.
    Exact([usize; 2]),
}

impl Size {
    /// Height and width, one number standing for both.
    fn square(self) -> [usize; 2] {
        match self {
            Self::Side(side) => [side; 2],
            Self::Exact(size) => size,
        }
    }

    /// Where a recipe leaves it out: that of the picture.
    fn of_picture() -> Self {
        Self::Side(0)
    }

    /// Height and width, of a picture of this size.
    fn square_of(self, picture: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Side(0) => picture,
            other => other.square(),
        }
    }

    /// As [`check`](Self::check), of one that may be left out.
    fn check_optional(self) -> Result<(), String> {
        match self {
            Self::Side(0) => Ok(()),
            other => other.check(),
        }
    }

    fn check(self) -> Result<(), String> {
        let [height, width] = self.square();
        let is_possible = |side| (1..=crate::image::LONGEST_SIDE).contains(&side);
        if is_possible(height) && is_possible(width) {
            return Ok(());
        }
        let longest = crate::image::LONGEST_SIDE;
        Err(format!(
            "size is {height}x{width}; sides from 1 to {longest} are possible"
        ))
    }
}

/// The colour of pixels that have none: `0`, or `[red, green, blue]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a colour is a number from 0 to 255 or [red, green, blue]"
)]
pub enum Fill {
    /// All channels alike.
    Grey(u8),
    /// Of a grey picture its brightness counts.
    Rgb([u8; 3]),
}

impl Default for Fill {
    fn default() -> Self {
        Self::Grey(0)
    }
}

impl Fill {
    /// The values of a pixel of this colour; as many as the picture has channels count.
    fn pixel(self, channels: usize) -> [u8; 3] {
        match self {
            Self::Grey(value) => [value; 3],
            Self::Rgb(colour) if channels == 1 => [colour::grey(colour) as u8; 3],
            Self::Rgb(colour) => colour,
        }
    }
}

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Rows above it.
    pub top: usize,
    /// Columns to its left.
    pub left: usize,
    /// Its rows.
    pub height: usize,
    /// Its columns.
    pub width: usize,
}

impl Region {
    /// All of a picture of this height and width.
    fn whole([height, width]: [usize; 2]) -> Self {
        Self {
            top: 0,
            left: 0,
            height,
            width,
        }
    }

    /// A region of random area and shape, as `RandomResizedCrop` and `RandomErasing` look for it: ten times.
    ///
    /// - scale: least and largest share of the picture's area
    /// - ratio: least and largest ratio of the sides
    /// - sides: height and width from the area and the ratio that were drawn
    /// - fits: whether a region of this height and width is taken
    fn draw(
        [height, width]: [usize; 2],
        scale: [f64; 2],
        ratio: [f64; 2],
        sides: impl Fn(f64, f64) -> [f64; 2],
        fits: impl Fn([usize; 2]) -> bool,
        rng: &mut ChaCha8Rng,
    ) -> Option<Self> {
        for _ in 0..10 {
            let area = (height * width) as f64 * uniform(scale, rng);
            let ratio = uniform(ratio.map(f64::ln), rng).exp();
            let size = sides(area, ratio).map(|side| side.sqrt().round_ties_even() as usize);
            if fits(size) {
                return Some(Self {
                    top: rng.random_range(0..=height - size[0]),
                    left: rng.random_range(0..=width - size[1]),
                    height: size[0],
                    width: size[1],
                });
            }
        }
        None
    }
}

fn uniform([least, most]: [f64; 2], rng: &mut ChaCha8Rng) -> f64 {
    rng.random_range(least..=most)
}

/// Whether something happens that has this probability.
fn happens(p: f64, rng: &mut ChaCha8Rng) -> bool {
    rng.random_bool(p)
}

fn check_probability(p: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(format!("p is {p}; a probability is 0 to 1"))
}

/// - bounds: least and largest value that either may have
fn check_range(name: &str, [least, most]: [f64; 2], bounds: [f64; 2]) -> Result<(), String> {
    if bounds[0] <= least && least <= most && most <= bounds[1] {
        return Ok(());
    }
    let [lowest, highest] = bounds;
    Err(format!(
        "{name} is {least} to {most}; possible is a range inside of {lowest} to {highest}"
    ))
}

fn check_above_zero(name: &str, [least, most]: [f64; 2]) -> Result<(), String> {
    if 0.0 < least && least <= most && most.is_finite() {
        return Ok(());
    }
    Err(format!(
        "{name} is {least} to {most}; possible is a range above 0"
    ))
}

#[cfg(test)]
mod tests;
