//! Blurs and sharpens. In: a picture. Out: one of the same size.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::colour::Amount;
use super::crop::reflected;
use super::{Size, Transform, check_above_zero, check_probability, happens, uniform};
use crate::image::Picture;

/// The longest side of a kernel.
const LONGEST_KERNEL: usize = 1023;

/// Blurs with a Gaussian kernel: torchvision's `GaussianBlur`. The picture is mirrored at its edge.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blur {
    /// Of the kernel, in pixels, odd: one number, or [width, height].
    pub kernel_size: Size,
    /// Standard deviation in pixels: one number, or the least and the largest.
    #[serde(default = "usual_sigma")]
    pub sigma: Amount,
    /// Probability, as of torchvision's `RandomApply`.
    #[serde(default = "always")]
    pub p: f64,
}

fn usual_sigma() -> Amount {
    Amount::Between([0.1, 2.0])
}

fn always() -> f64 {
    1.0
}

impl Blur {
    fn sigmas(&self) -> [f64; 2] {
        match self.sigma {
            Amount::Around(sigma) => [sigma; 2],
            Amount::Between(range) => range,
        }
    }
}

impl Transform for Blur {
    fn kind(&self) -> &'static str {
        "blur"
    }

    fn check(&self) -> Result<(), String> {
        check_probability(self.p)?;
        for side in self.kernel_size.square() {
            if side % 2 == 0 || side > LONGEST_KERNEL {
                return Err(format!(
                    "kernel_size is {side}; odd numbers up to {LONGEST_KERNEL} are possible"
                ));
            }
        }
        check_above_zero("sigma", self.sigmas())
    }

    fn apply(&self, picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        if !happens(self.p, rng) {
            return picture;
        }
        let sigma = uniform(self.sigmas(), rng);
        blurred(&picture, self.kernel_size.square(), sigma)
    }
}

/// - kernel_size: width, height
pub(super) fn blurred(picture: &Picture, kernel_size: [usize; 2], sigma: f64) -> Picture {
    let [across, down] = kernel_size.map(|size| kernel(size, sigma));
    let values: Vec<f32> = picture.pixels.iter().map(|&value| value.into()).collect();
    let values = along_rows(picture, &values, &across);
    let values = along_columns(picture, &values, &down);
    let pixels = values.iter().map(|value| value.round_ties_even() as u8);
    Picture::new(picture.channels, picture.size(), pixels.collect())
}

/// Weights of a Gaussian; their sum is 1.
fn kernel(size: usize, sigma: f64) -> Vec<f32> {
    let from_middle = |at: usize| at as f64 - (size / 2) as f64;
    let weights: Vec<f64> = (0..size)
        .map(|at| (-0.5 * (from_middle(at) / sigma).powi(2)).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| (weight / sum) as f32).collect()
}

/// - values: `[height, width, channels]`
fn along_rows(picture: &Picture, values: &[f32], kernel: &[f32]) -> Vec<f32> {
    let (channels, width) = (picture.channels, picture.width);
    let half = kernel.len() / 2;
    let columns = 0..width + 2 * half;
    let columns: Vec<usize> = columns
        .map(|at| reflected(at as isize - half as isize, width))
        .collect();
    let mut padded = vec![0.0; columns.len() * channels];
    let mut blurred = vec![0.0; values.len()];
    let rows = values.chunks_exact(picture.row_len());
    for (row, to) in rows.zip(blurred.chunks_exact_mut(picture.row_len())) {
        for (&from, to) in columns.iter().zip(padded.chunks_exact_mut(channels)) {
            to.copy_from_slice(&row[from * channels..(from + 1) * channels]);
        }
        for (at, &weight) in kernel.iter().enumerate() {
            add(to, &padded[at * channels..], weight);
        }
    }
    blurred
}

/// - values: `[height, width, channels]`
fn along_columns(picture: &Picture, values: &[f32], kernel: &[f32]) -> Vec<f32> {
    let (row_len, half) = (picture.row_len(), kernel.len() / 2);
    let mut blurred = vec![0.0; values.len()];
    for (y, to) in blurred.chunks_exact_mut(row_len).enumerate() {
        for (at, &weight) in kernel.iter().enumerate() {
            let from = reflected((y + at) as isize - half as isize, picture.height);
            add(to, &values[from * row_len..], weight);
        }
    }
    blurred
}

fn add(to: &mut [f32], from: &[f32], weight: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += weight * from;
    }
}

/// Moves each value away from those around it, or towards them: torchvision's `adjust_sharpness`. The edge stays.
///
/// - factor: 0 blurs, 1 changes nothing, 2 doubles the differences
pub(super) fn sharpen(picture: &mut Picture, factor: f64) {
    let (height, width, channels) = (picture.height, picture.width, picture.channels);
    if height <= 2 || width <= 2 {
        return;
    }
    let row_len = picture.row_len();
    let old = picture.pixels.clone();
    for y in 1..height - 1 {
        for at in y * row_len + channels..(y + 1) * row_len - channels {
            let mut sum = 0.0;
            for middle in [at - row_len, at, at + row_len] {
                for near in [middle - channels, middle, middle + channels] {
                    let weight = if near == at { 5.0 / 13.0 } else { 1.0 / 13.0 };
                    sum += f32::from(old[near]) * weight;
                }
            }
            let value = f32::from(old[at]);
            let moved = value + (sum.round_ties_even() - value) * (1.0 - factor) as f32;
            picture.pixels[at] = moved as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_picture_stays_as_it_is() {
        let picture = Picture::new(3, [3, 5], [90, 20, 200].repeat(15));
        assert_eq!(blurred(&picture, [9, 3], 1.3), picture);
        let mut sharper = picture.clone();
        sharpen(&mut sharper, 1.9);
        assert_eq!(sharper, picture);
    }

    #[test]
    fn weights_are_those_of_a_gaussian() {
        // exp(-1 / 2) = 0.60653, and 1 + 2 x 0.60653 = 2.21306.
        let weights = kernel(3, 1.0);
        let expected = [0.27407, 0.45186, 0.27407];
        for (weight, expected) in weights.iter().zip(expected) {
            assert!((weight - expected).abs() < 1e-5, "{weights:?}");
        }
    }
}
