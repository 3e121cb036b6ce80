//! Layer normalisation, of a tensor or of a sum. Ba et al. 2016, <https://arxiv.org/abs/1607.06450>.

use burn::prelude::*;

use crate::ops::dropout;
#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta` over the last axis.
///
/// - x, out: `[n, d]`
/// - gamma, beta: `[d]`
///
/// # Panics
///
/// If gamma and beta are not as long as a row.
pub fn layer_norm<B: Backend>(
    x: Tensor<B, 2>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, 2> {
    let [_, d] = x.dims();
    check(d, &gamma, &beta);
    #[cfg(feature = "flex")]
    if d > 0 && fused::takes::<B>(&[x.dtype(), gamma.dtype(), beta.dtype()]) {
        let inputs = [primitive(x), primitive(gamma), primitive(beta)];
        return wrap(fused::apply::<B, _, 3>(fast::Norm(epsilon as f32), inputs));
    }
    plain(x, gamma, beta, epsilon)
}

/// [`layer_norm`] of `dropout(a) + b`.
///
/// - a, b, out: `[n, d]`
/// - gamma, beta: `[d]`
/// - rate: share of `a` that is dropped while training
///
/// # Panics
///
/// If gamma and beta are not as long as a row, or `a` and `b` differ in shape.
pub fn layer_norm_of_sum<B: Backend>(
    [a, b]: [Tensor<B, 2>; 2],
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f64,
    rate: f64,
) -> Tensor<B, 2> {
    let [_, d] = a.dims();
    check(d, &gamma, &beta);
    assert_eq!(b.dims(), a.dims(), "layer norm: the shapes of both parts");
    let rate = dropout::in_training::<B>(rate, &a.device());
    #[cfg(feature = "flex")]
    if d > 0 && fused::takes::<B>(&[a.dtype(), b.dtype(), gamma.dtype(), beta.dtype()]) {
        let inputs = [
            primitive(a),
            primitive(b),
            primitive(gamma),
            primitive(beta),
        ];
        let operation = fast::NormOfSum {
            norm: fast::Norm(epsilon as f32),
            mask: (rate > 0.0).then(|| dropout::Mask::draw(rate)),
        };
        return wrap(fused::apply::<B, _, 4>(operation, inputs));
    }
    let a = if rate > 0.0 {
        dropout::plain(a, rate)
    } else {
        a
    };
    plain(a + b, gamma, beta, epsilon)
}

/// Panics unless gamma and beta are as long as a row.
fn check<B: Backend>(d: usize, gamma: &Tensor<B, 1>, beta: &Tensor<B, 1>) {
    assert_eq!(gamma.dims(), [d], "layer norm: the length of gamma");
    assert_eq!(beta.dims(), [d], "layer norm: the length of beta");
}

/// The same, of tensor operations alone.
pub(crate) fn plain<B: Backend>(
    x: Tensor<B, 2>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, 2> {
    let (variance, mean) = x.clone().var_mean_bias(1);
    let normal = (x - mean) / (variance + epsilon).sqrt();
    normal * gamma.unsqueeze() + beta.unsqueeze()
}

#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;
    use rayon::prelude::*;

    use crate::ops::dropout::Mask;
    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::simd::{dot, for_rows, joined, rows_at_a_time, sum, vectorized};

    /// With its epsilon.
    #[derive(Debug)]
    pub(super) struct Norm(pub(super) f32);

    #[derive(Clone, Debug)]
    pub(super) struct Saved {
        /// Before it was normalised, `[n, d]`.
        x: FlexTensor,
        gamma: FlexTensor,
    }

    impl Norm {
        fn normalise(&self, x: &FlexTensor, gamma: &[f32], beta: &[f32]) -> FlexTensor {
            let (d, xs) = (gamma.len(), slice(x));
            let mut out = vec![0.0; xs.len()];
            for_rows(&mut out, d, |first, out| {
                let xs = &xs[first * d..];
                vectorized(
                    #[inline(always)]
                    || {
                        for (out, x) in out.chunks_exact_mut(d).zip(xs.chunks_exact(d)) {
                            let (mean, scale) = moments(x, self.0);
                            for at in 0..d {
                                out[at] = (x[at] - mean) * scale * gamma[at] + beta[at];
                            }
                        }
                    },
                );
            });
            tensor(out, x.shape())
        }

        /// Gradients of x, gamma and beta.
        fn gradients(&self, Saved { x, gamma }: Saved, grad: FlexTensor) -> [FlexTensor; 3] {
            let (xs, gs, gamma) = (slice(&x), slice(&grad), slice(&gamma));
            let d = gamma.len();
            let mut out = vec![0.0; xs.len()];
            let chunk = rows_at_a_time(d) * d;
            let work = |((out, xs), gs): ((&mut [f32], &[f32]), &[f32])| {
                let (mut to_gamma, mut to_beta) = (vec![0.0; d], vec![0.0; d]);
                let mut scaled = vec![0.0; d];
                vectorized(
                    #[inline(always)]
                    || {
                        let rows = out.chunks_exact_mut(d).zip(xs.chunks_exact(d));
                        for ((out, x), g) in rows.zip(gs.chunks_exact(d)) {
                            let (mean, scale) = moments(x, self.0);
                            for at in 0..d {
                                let normal = (x[at] - mean) * scale;
                                out[at] = normal;
                                to_gamma[at] += g[at] * normal;
                                to_beta[at] += g[at];
                                scaled[at] = g[at] * gamma[at];
                            }
                            let along = dot(&scaled, out) / d as f32;
                            let level = sum(&scaled) / d as f32;
                            for at in 0..d {
                                out[at] = scale * (scaled[at] - level - out[at] * along);
                            }
                        }
                    },
                );
                [to_gamma, to_beta]
            };
            let chunks = out.par_chunks_mut(chunk).zip(xs.par_chunks(chunk));
            let parts: Vec<_> = chunks.zip(gs.par_chunks(chunk)).map(work).collect();
            // In the order of the rows, whichever thread had them.
            let mut sums = [vec![0.0; d], vec![0.0; d]];
            for part in parts {
                for (sum, part) in sums.iter_mut().zip(part) {
                    sum.iter_mut()
                        .zip(part)
                        .for_each(|(sum, part)| *sum += part);
                }
            }
            let [to_gamma, to_beta] = sums.map(|sum| tensor(sum, [d]));
            [tensor(out, x.shape()), to_gamma, to_beta]
        }
    }

    /// The mean of a row, and the reciprocal of its deviation.
    #[inline(always)]
    fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
        let n = x.len() as f32;
        let mean = sum(x) / n;
        let mut lanes = [0.0f32; 16];
        let chunks = x.chunks_exact(16);
        let tail = chunks.remainder().iter();
        let tail: f32 = tail.map(|x| (x - mean) * (x - mean)).sum();
        for chunk in chunks {
            for lane in 0..16 {
                lanes[lane] += (chunk[lane] - mean) * (chunk[lane] - mean);
            }
        }
        let variance = (sum(&lanes) + tail) / n;
        (mean, 1.0 / (variance + epsilon).sqrt())
    }

    impl Fused<3> for Norm {
        type Saved = Saved;

        fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, Saved) {
            let [x, gamma, beta] = inputs.map(contiguous);
            let y = self.normalise(&x, slice(&gamma), slice(&beta));
            (y, Saved { x, gamma })
        }

        fn backward(
            &self,
            saved: Saved,
            grad: FlexTensor,
            _: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            self.gradients(saved, grad).map(Some)
        }
    }

    /// Of a sum, and what is dropped of its first part.
    #[derive(Debug)]
    pub(super) struct NormOfSum {
        pub(super) norm: Norm,
        pub(super) mask: Option<Mask>,
    }

    impl Fused<4> for NormOfSum {
        type Saved = Saved;

        fn forward(&self, inputs: [FlexTensor; 4]) -> (FlexTensor, Saved) {
            let [a, b, gamma, beta] = inputs.map(contiguous);
            let (left, right) = (slice(&a), slice(&b));
            let sum = match self.mask {
                Some(mask) => joined(
                    left,
                    right,
                    #[inline(always)]
                    |place, a, b| a * mask.factor(place) + b,
                ),
                None => joined(
                    left,
                    right,
                    #[inline(always)]
                    |_, a, b| a + b,
                ),
            };
            let x = tensor(sum, a.shape());
            let y = self.norm.normalise(&x, slice(&gamma), slice(&beta));
            (y, Saved { x, gamma })
        }

        fn backward(
            &self,
            saved: Saved,
            grad: FlexTensor,
            _: [bool; 4],
        ) -> [Option<FlexTensor>; 4] {
            let [b, gamma, beta] = self.norm.gradients(saved, grad);
            let a = match self.mask {
                Some(mask) => mask.applied(&b),
                None => b.clone(),
            };
            [Some(a), Some(b), Some(gamma), Some(beta)]
        }
    }
}
