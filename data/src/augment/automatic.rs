//! Policies that draw from many operations. In: a picture. Out: one of the same size.

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::geometry::{check_interpolation, rotated, sheared, translated};
use super::{Fill, Interpolation, Transform, blur, colour, happens};
use crate::image::Picture;

/// RandAugment, Cubuk et al. 2019, <https://arxiv.org/abs/1909.13719>: several operations of one magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// Operations one after the other.
    pub num_ops: usize,
    /// Their strength, less than `num_magnitude_bins`.
    pub magnitude: usize,
    /// Steps from no change to the strongest one.
    pub num_magnitude_bins: usize,
    /// `nearest` or `bilinear`.
    pub interpolation: Interpolation,
    /// What shows beyond the edge; black without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self {
            num_ops: 2,
            magnitude: 9,
            num_magnitude_bins: BINS,
            interpolation: Interpolation::Nearest,
            fill: None,
        }
    }
}

/// TrivialAugment Wide, Müller and Hutter 2021, <https://arxiv.org/abs/2103.10158>: one operation of any magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrivialAugment {
    /// Steps from no change to the strongest one.
    pub num_magnitude_bins: usize,
    /// `nearest` or `bilinear`.
    pub interpolation: Interpolation,
    /// What shows beyond the edge; black without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
}

impl Default for TrivialAugment {
    fn default() -> Self {
        Self {
            num_magnitude_bins: BINS,
            interpolation: Interpolation::Nearest,
            fill: None,
        }
    }
}

/// torchvision's number of magnitudes.
const BINS: usize = 31;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Saturation,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    StretchContrast,
    Equalize,
}

const OPERATIONS: [Operation; 14] = [
    Operation::Identity,
    Operation::ShearX,
    Operation::ShearY,
    Operation::TranslateX,
    Operation::TranslateY,
    Operation::Rotate,
    Operation::Brightness,
    Operation::Saturation,
    Operation::Contrast,
    Operation::Sharpness,
    Operation::Posterize,
    Operation::Solarize,
    Operation::StretchContrast,
    Operation::Equalize,
];

/// How strong the strongest operations are.
struct Strongest {
    /// Pixels per pixel.
    shear: f64,
    /// Pixels right and down.
    translate: [f64; 2],
    degrees: f64,
    /// Above or below 1.
    colour: f64,
    /// That posterizing takes away.
    bits: f64,
}

impl Strongest {
    fn of_rand_augment([height, width]: [usize; 2]) -> Self {
        let share = |side: usize| 150.0 / 331.0 * side as f64;
        Self {
            shear: 0.3,
            translate: [share(width), share(height)],
            degrees: 30.0,
            colour: 0.9,
            bits: 4.0,
        }
    }

    const TRIVIAL_AUGMENT: Self = Self {
        shear: 0.99,
        translate: [32.0; 2],
        degrees: 135.0,
        colour: 0.99,
        bits: 6.0,
    };

    /// Applies one operation to a picture.
    ///
    /// - share: 0 to 1 of the strongest
    /// - sign: 1 or -1, for operations that have two directions
    fn apply(
        &self,
        mut picture: Picture,
        operation: Operation,
        share: f64,
        sign: f64,
        beyond: (Interpolation, Option<Fill>),
    ) -> Picture {
        use Operation as O;
        let (interpolation, fill) = beyond;
        let signed = sign * share;
        let shear = signed * self.shear;
        let [right, down] = self.translate.map(|most| (signed * most).trunc());
        let factor = 1.0 + signed * self.colour;
        match operation {
            O::Identity => {}
            O::ShearX => return sheared(&picture, [shear, 0.0], interpolation, fill),
            O::ShearY => return sheared(&picture, [0.0, shear], interpolation, fill),
            O::TranslateX => return translated(&picture, [right, 0.0], interpolation, fill),
            O::TranslateY => return translated(&picture, [0.0, down], interpolation, fill),
            O::Rotate => {
                return rotated(&picture, signed * self.degrees, interpolation, fill);
            }
            O::Brightness => colour::brighten(&mut picture, factor),
            O::Saturation => colour::saturate(&mut picture, factor),
            O::Contrast => colour::contrast(&mut picture, factor),
            O::Sharpness => blur::sharpen(&mut picture, factor),
            O::Posterize => {
                let bits = (8.0 - share * self.bits).round_ties_even();
                colour::posterize(&mut picture, bits as u32);
            }
            O::Solarize => colour::solarize(&mut picture, 255.0 * (1.0 - share)),
            O::StretchContrast => colour::stretch_contrast(&mut picture),
            O::Equalize => colour::equalize(&mut picture),
        }
        picture
    }
}

impl Transform for RandAugment {
    fn kind(&self) -> &'static str {
        "rand_augment"
    }

    fn check(&self) -> Result<(), String> {
        check_bins(self.num_magnitude_bins)?;
        check_interpolation(self.interpolation)?;
        if self.magnitude < self.num_magnitude_bins {
            return Ok(());
        }
        Err(format!(
            "magnitude is {}; it has to be less than num_magnitude_bins, {}",
            self.magnitude, self.num_magnitude_bins
        ))
    }

    fn apply(&self, mut picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        let strongest = Strongest::of_rand_augment(picture.size());
        let share = self.magnitude as f64 / (self.num_magnitude_bins - 1) as f64;
        for _ in 0..self.num_ops {
            let (operation, sign) = (operation(rng), sign(rng));
            let beyond = (self.interpolation, self.fill);
            picture = strongest.apply(picture, operation, share, sign, beyond);
        }
        picture
    }
}

impl Transform for TrivialAugment {
    fn kind(&self) -> &'static str {
        "trivial_augment"
    }

    fn check(&self) -> Result<(), String> {
        check_bins(self.num_magnitude_bins)?;
        check_interpolation(self.interpolation)
    }

    fn apply(&self, picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        let bins = self.num_magnitude_bins;
        let (operation, sign) = (operation(rng), sign(rng));
        let share = rng.random_range(0..bins) as f64 / (bins - 1) as f64;
        let beyond = (self.interpolation, self.fill);
        Strongest::TRIVIAL_AUGMENT.apply(picture, operation, share, sign, beyond)
    }
}

fn operation(rng: &mut ChaCha8Rng) -> Operation {
    *OPERATIONS.choose(rng).unwrap_or(&Operation::Identity)
}

fn sign(rng: &mut ChaCha8Rng) -> f64 {
    if happens(0.5, rng) { -1.0 } else { 1.0 }
}

fn check_bins(bins: usize) -> Result<(), String> {
    if bins >= 2 {
        return Ok(());
    }
    Err(format!(
        "num_magnitude_bins is {bins}; two at least are possible"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns from 0 to 9, one row beneath the other.
    fn columns() -> Picture {
        Picture::new(1, [4, 10], (0..40).map(|at| at % 10).collect())
    }

    fn applied(operation: Operation, share: f64, sign: f64) -> Picture {
        let strongest = Strongest::of_rand_augment([4, 10]);
        let beyond = (Interpolation::Nearest, None);
        strongest.apply(columns(), operation, share, sign, beyond)
    }

    #[test]
    fn a_strength_of_nothing_changes_nothing() {
        for operation in OPERATIONS {
            let changes = matches!(operation, Operation::StretchContrast | Operation::Equalize);
            if !changes {
                assert_eq!(applied(operation, 0.0, 1.0), columns(), "{operation:?}");
            }
        }
    }

    #[test]
    fn the_strongest_translation_is_a_share_of_the_width() {
        // 150 / 331 x 10 = 4.53 pixels, of which whole ones count.
        let moved = applied(Operation::TranslateX, 1.0, 1.0);
        assert_eq!(moved.pixels[..10], [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]);
        let moved = applied(Operation::TranslateX, 1.0, -1.0);
        assert_eq!(moved.pixels[..10], [4, 5, 6, 7, 8, 9, 0, 0, 0, 0]);
    }
}
