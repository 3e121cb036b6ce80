//! Mixes each image of a batch with another one of it. In: a batch, `[n, channels, height, width]`, and its targets.
//! Out: both mixed.
//!
//! As in torchvision the partner of an image is the one before it, and that of the first is the last: batches are in
//! random order already.

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution};
use serde::{Deserialize, Serialize};

use super::Region;
use crate::order::{self, Stream};

/// A way to mix the images of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[allow(missing_docs, reason = "each kind is documented as a type")]
pub enum BatchMix {
    MixUp(MixUp),
    CutMix(CutMix),
}

/// Adds two images up, Zhang et al. 2017, <https://arxiv.org/abs/1710.09412>.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixUp {
    /// The share of an image is drawn from Beta(alpha, alpha).
    pub alpha: f64,
}

impl Default for MixUp {
    fn default() -> Self {
        Self { alpha: 1.0 }
    }
}

/// Puts a part of one image into another, Yun et al. 2019, <https://arxiv.org/abs/1905.04899>.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CutMix {
    /// The share of the area that an image keeps is drawn from Beta(alpha, alpha).
    pub alpha: f64,
}

impl Default for CutMix {
    fn default() -> Self {
        Self { alpha: 1.0 }
    }
}

/// How one batch is mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixture {
    /// The weight of an image's own target; that of its partner's is the rest to 1.
    pub own: f32,
    /// What an image takes from its partner; all of it is mixed where there is no such region.
    pub region: Option<Region>,
}

impl BatchMix {
    fn alpha(&self) -> f64 {
        match self {
            Self::MixUp(mix) => mix.alpha,
            Self::CutMix(mix) => mix.alpha,
        }
    }

    /// Says what is impossible about it, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let kind = match self {
            Self::MixUp(_) => "mixup",
            Self::CutMix(_) => "cutmix",
        };
        let alpha = self.alpha();
        if Beta::new(alpha, alpha).is_ok() {
            return Ok(());
        }
        Err(format!("{kind}: alpha is {alpha}; it has to be above 0"))
    }

    /// Draws how a batch of images of this height and width is mixed.
    ///
    /// # Panics
    /// If alpha is not above 0.
    fn draw(&self, size: [usize; 2], rng: &mut ChaCha8Rng) -> Mixture {
        let alpha = self.alpha();
        let beta = Beta::new(alpha, alpha).expect("alpha is above 0");
        let own = beta.sample(rng);
        match self {
            Self::MixUp(_) => Mixture {
                own: own as f32,
                region: None,
            },
            Self::CutMix(_) => {
                let centre = size.map(|side| rng.random_range(0..side));
                Mixture::of_region(size, region(size, centre, own))
            }
        }
    }
}

/// One of several ways to mix a batch, as torchvision's `RandomChoice` takes one; `None` where there is none. A function
/// of the seed and the number of the batch's first sample alone.
///
/// - size: height and width of the images
///
/// # Panics
/// If an alpha is not above 0, or there is no pixel.
pub fn draw(mixes: &[BatchMix], size: [usize; 2], seed: u64, sample: u64) -> Option<Mixture> {
    let mut rng = order::rng(seed, Stream::Mix, sample);
    let mix = mixes.choose(&mut rng)?;
    Some(mix.draw(size, &mut rng))
}

/// The part around a centre that leaves about `own` of the area; less is cut where it reaches the edge.
fn region([height, width]: [usize; 2], [y, x]: [usize; 2], own: f64) -> Region {
    let half = |side: usize| (0.5 * (1.0 - own).sqrt() * side as f64) as usize;
    let [half_height, half_width] = [height, width].map(half);
    let (top, left) = (y.saturating_sub(half_height), x.saturating_sub(half_width));
    Region {
        top,
        left,
        height: (y + half_height).min(height) - top,
        width: (x + half_width).min(width) - left,
    }
}

impl Mixture {
    fn of_region([height, width]: [usize; 2], region: Region) -> Self {
        let taken = (region.height * region.width) as f64;
        Self {
            own: (1.0 - taken / (height * width) as f64) as f32,
            region: Some(region),
        }
    }

    /// The partner of each of `n` images.
    pub fn partners(n: usize) -> impl Iterator<Item = usize> {
        (0..n).map(move |i| (i + n - 1) % n)
    }

    /// Mixes the images of a batch.
    ///
    /// - pixels: `[n, channels, height, width]`
    /// - shape: channels, height, width
    ///
    /// # Panics
    /// If `pixels` are not whole images of this shape.
    pub fn mix_images(&self, pixels: &mut [f32], [channels, height, width]: [usize; 3]) {
        let len = channels * height * width;
        with_partners(pixels, len, |own, partner| match self.region {
            None => self.blend(own, partner),
            Some(region) => {
                for row in 0..channels * region.height {
                    let (channel, y) = (row / region.height, row % region.height);
                    let start = (channel * height + region.top + y) * width + region.left;
                    let row = start..start + region.width;
                    own[row.clone()].copy_from_slice(&partner[row]);
                }
            }
        });
    }

    /// Mixes targets in the same way: each row becomes `own` of itself and the rest of its partner's.
    ///
    /// - targets: `[n, classes]`, probabilities
    ///
    /// # Panics
    /// If `targets` are not whole rows.
    pub fn mix_targets(&self, targets: &mut [f32], classes: usize) {
        with_partners(targets, classes, |own, partner| self.blend(own, partner));
    }

    fn blend(&self, own: &mut [f32], partner: &[f32]) {
        for (own, partner) in own.iter_mut().zip(partner) {
            *own = *own * self.own + partner * (1.0 - self.own);
        }
    }
}

/// Changes each row with a look at the row before it, the first with a look at the last; rows as they were before.
fn with_partners(rows: &mut [f32], len: usize, change: impl Fn(&mut [f32], &[f32])) {
    assert_eq!(rows.len() % len.max(1), 0, "whole rows of {len}");
    if rows.is_empty() {
        return;
    }
    let last = rows[rows.len() - len..].to_vec();
    // From the last to the first, as a partner has to be unchanged.
    for at in (len..rows.len()).step_by(len).rev() {
        let (before, own) = rows.split_at_mut(at);
        change(&mut own[..len], &before[at - len..]);
    }
    change(&mut rows[..len], &last);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three grey images of 2x3; image i is all i.
    fn images() -> Vec<f32> {
        [[0.0; 6], [1.0; 6], [2.0; 6]].concat()
    }

    #[test]
    fn mixup_adds_the_image_before() {
        let mixture = Mixture {
            own: 0.75,
            region: None,
        };
        let mut pixels = images();
        mixture.mix_images(&mut pixels, [1, 2, 3]);
        // 0.25 x 2, 0.75 x 1, 0.75 x 2 + 0.25 x 1.
        assert_eq!(pixels, [[0.5; 6], [0.75; 6], [1.75; 6]].concat());
        let mut targets = vec![1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        mixture.mix_targets(&mut targets, 2);
        assert_eq!(targets, [0.75, 0.25, 0.25, 0.75, 0.0, 1.0]);
        assert_eq!(Mixture::partners(3).collect::<Vec<_>>(), [2, 0, 1]);
    }

    #[test]
    fn cutmix_takes_a_region_and_counts_its_area() {
        // Half of sqrt(1 - 0.75) is a quarter: 0.5 rows, 0.75 columns; nothing is left of them.
        assert_eq!(region([2, 3], [1, 1], 0.75).height, 0);
        let taken = region([8, 8], [1, 7], 0.75);
        let expected = Region {
            top: 0,
            left: 5,
            height: 3,
            width: 3,
        };
        assert_eq!(taken, expected);
        let mixture = Mixture::of_region([8, 8], taken);
        assert_eq!(mixture.own, 1.0 - 9.0 / 64.0);

        let part = Region {
            top: 0,
            left: 1,
            height: 1,
            width: 2,
        };
        let mut pixels = images();
        Mixture::of_region([2, 3], part).mix_images(&mut pixels, [1, 2, 3]);
        assert_eq!(pixels[..6], [0.0, 2.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(pixels[6..12], [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_mixture_is_a_function_of_seed_and_sample() {
        let mixes = [
            BatchMix::MixUp(MixUp { alpha: 0.2 }),
            BatchMix::CutMix(CutMix::default()),
        ];
        let drawn: Vec<_> = (0..40).map(|at| draw(&mixes, [9, 9], 1, at)).collect();
        assert_eq!(drawn[7], draw(&mixes, [9, 9], 1, 7));
        assert_ne!(drawn[7], draw(&mixes, [9, 9], 2, 7));
        let regions = drawn.iter().flatten().filter(|mix| mix.region.is_some());
        let regions = regions.count();
        assert!((5..35).contains(&regions), "{regions} of 40");
        assert_eq!(draw(&[], [9, 9], 1, 7), None);
        let none = BatchMix::MixUp(MixUp { alpha: 0.0 });
        assert!(none.check().unwrap_err().contains("alpha is 0"));
    }

    #[test]
    fn an_empty_batch_stays_empty() {
        let mixture = Mixture {
            own: 0.5,
            region: None,
        };
        mixture.mix_images(&mut [], [3, 4, 4]);
    }
}
