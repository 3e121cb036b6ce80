//! Dropout. Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>.
//!
//! On Flex its random numbers are a function of a key and of a value's place: no mask is kept, backward draws it anew.

use burn::prelude::*;
use burn::tensor::Distribution;

#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// Zeroes a share `rate` of the values and multiplies the others by `1 / (1 - rate)`, while training.
///
/// The mask follows from the backend's seed and from what was drawn since.
///
/// # Panics
///
/// If the rate is not at least 0 and below 1.
pub fn dropout<B: Backend, const D: usize>(x: Tensor<B, D>, rate: f64) -> Tensor<B, D> {
    let rate = in_training::<B>(rate, &x.device());
    if rate == 0.0 {
        return x;
    }
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype()]) {
        let operation = fast::Dropout(Mask::draw(rate));
        return wrap(fused::apply::<B, _, 1>(operation, [primitive(x)]));
    }
    plain(x, rate)
}

/// The same, of tensor operations alone; while training or not.
pub(crate) fn plain<B: Backend, const D: usize>(x: Tensor<B, D>, rate: f64) -> Tensor<B, D> {
    let kept = x.random_like(Distribution::Bernoulli(1.0 - rate));
    x * kept * (1.0 / (1.0 - rate))
}

/// The rate where gradients are asked for, and 0 elsewhere.
pub(crate) fn in_training<B: Backend>(rate: f64, device: &B::Device) -> f64 {
    let range = 0.0..1.0;
    assert!(
        range.contains(&rate),
        "a dropout rate of {rate}, not at least 0 and below 1"
    );
    if B::ad_enabled(device) { rate } else { 0.0 }
}

#[cfg(feature = "flex")]
pub(crate) use fast::Mask;

#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;

    use crate::ops::fused::{Fused, contiguous, key, slice, tensor};
    use crate::ops::simd::mapped;

    /// Which values are dropped.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Mask {
        key: u64,
        /// Of 2^32 draws, so many drop.
        dropped: u32,
        scale: f32,
    }

    impl Mask {
        /// A new mask.
        pub(crate) fn draw(rate: f64) -> Self {
            Self {
                // Odd, as the generator wants it.
                key: key() | 1,
                dropped: (rate * 2f64.powi(32)) as u32,
                scale: (1.0 / (1.0 - rate)) as f32,
            }
        }

        /// What the value at this place is multiplied by: 0, or 1 / (1 - rate).
        #[inline(always)]
        pub(crate) fn factor(&self, place: u64) -> f32 {
            if random(place, self.key) < self.dropped {
                0.0
            } else {
                self.scale
            }
        }

        /// A contiguous tensor without what is dropped of it.
        pub(crate) fn applied(&self, x: &FlexTensor) -> FlexTensor {
            let out = mapped(
                slice(x),
                #[inline(always)]
                |place, x| x * self.factor(place),
            );
            tensor(out, x.shape())
        }
    }

    /// 32 random bits by counter: "Squares", Widynski 2020, <https://arxiv.org/abs/2004.06278>.
    #[inline(always)]
    fn random(counter: u64, key: u64) -> u32 {
        let y = counter.wrapping_mul(key);
        let z = y.wrapping_add(key);
        let round = |x: u64, plus: u64| x.wrapping_mul(x).wrapping_add(plus);
        let x = round(y, y).rotate_left(32);
        let x = round(x, z).rotate_left(32);
        let x = round(x, y).rotate_left(32);
        (round(x, z) >> 32) as u32
    }

    #[derive(Debug)]
    pub(super) struct Dropout(pub(super) Mask);

    impl Fused<1> for Dropout {
        type Saved = ();

        fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
            (self.0.applied(&contiguous(x)), ())
        }

        fn backward(&self, (): (), grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            [Some(self.0.applied(&grad))]
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn draws_are_those_of_the_paper() {
            // squares32(counter, key) of the paper's program, worked out with Python's integers.
            let key = 0x548c_9dec_bce6_5297;
            let drawn = [0, 1, 2, 1_000_000].map(|counter| random(counter, key));
            assert_eq!(
                drawn,
                [920_159_078, 2_487_686_880, 3_366_515_936, 2_993_762_124]
            );
        }

        #[test]
        fn a_mask_drops_its_share() {
            for rate in [0.1, 0.5, 0.9] {
                let mask = Mask {
                    key: 0x9e37_79b9_7f4a_7c15,
                    dropped: (rate * 2f64.powi(32)) as u32,
                    scale: 1.0,
                };
                let n = 100_000u64;
                let kept: f32 = (0..n).map(|place| mask.factor(place)).sum();
                let share = 1.0 - f64::from(kept) / n as f64;
                // Four standard deviations.
                let limit = 4.0 * (rate * (1.0 - rate) / n as f64).sqrt();
                assert!((share - rate).abs() < limit, "{share}, not {rate}");
            }
        }
    }
}
