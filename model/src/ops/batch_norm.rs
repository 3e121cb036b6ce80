//! Batch normalisation, over all axes but the second. Ioffe and Szegedy 2015, <https://arxiv.org/abs/1502.03167>.
//!
//! On Flex two passes give mean and variance and one the result; one sums what the gradients need and one gives that of the
//! input.

use burn::prelude::*;

#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// Normalises by the mean and the variance of the batch.
///
/// - x, out: `[batch, channels, ...]`
/// - gamma, beta: `[channels]`
/// - epsilon: added to the variance
///
/// Mean and variance come with the result, `[channels]` each, without a gradient; the variance is the biased one.
///
/// # Panics
///
/// If gamma or beta has not as many values as there are channels.
pub fn batch_norm<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f64,
) -> (Tensor<B, D>, Tensor<B, 1>, Tensor<B, 1>) {
    let channels = check(&x, &gamma, &beta);
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype(), gamma.dtype(), beta.dtype()]) {
        let planes = fast::Planes::of(&x.dims());
        let values = fused::contiguous(fused::values::<B>(primitive(x.clone())));
        let (mean, variance) = planes.moments(fused::slice(&values));
        let statistic = |values: &[f32]| Tensor::from_floats(values, &x.device());
        let statistics = (statistic(&mean), statistic(&variance));
        let operation = fast::Norm::new(planes, mean, &variance, epsilon as f32, true);
        let inputs = [primitive(x), primitive(gamma), primitive(beta)];
        let out = wrap(fused::apply::<B, _, 3>(operation, inputs));
        return (out, statistics.0, statistics.1);
    }
    let n = x.shape().num_elements() / channels.max(1);
    let by_channel = x.clone().swap_dims(0, 1).reshape([channels, n]);
    let mean = by_channel.clone().mean_dim(1);
    let off = by_channel - mean.clone();
    let variance = off.clone().mul(off).mean_dim(1).reshape([channels]);
    let mean = mean.reshape([channels]);
    let out = normalised(x, mean.clone(), variance.clone(), gamma, beta, epsilon);
    (out, mean.detach(), variance.detach())
}

/// Normalises by a mean and a variance that are given, `[channels]` each, and get no gradient.
///
/// - x, out: `[batch, channels, ...]`
/// - gamma, beta: `[channels]`
/// - epsilon: added to the variance
///
/// # Panics
///
/// If one of them has not as many values as there are channels.
pub fn batch_norm_frozen<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    [mean, variance]: [Tensor<B, 1>; 2],
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, D> {
    let channels = check(&x, &gamma, &beta);
    for statistic in [&mean, &variance] {
        assert_eq!(
            statistic.dims(),
            [channels],
            "batch norm: the length of a statistic"
        );
    }
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype(), gamma.dtype(), beta.dtype(), mean.dtype()]) {
        let values = |tensor: Tensor<B, 1>| {
            let values = fused::contiguous(fused::values::<B>(primitive(tensor)));
            fused::slice(&values).to_vec()
        };
        let (mean, variance) = (values(mean), values(variance));
        let planes = fast::Planes::of(&x.dims());
        let operation = fast::Norm::new(planes, mean, &variance, epsilon as f32, false);
        let inputs = [primitive(x), primitive(gamma), primitive(beta)];
        return wrap(fused::apply::<B, _, 3>(operation, inputs));
    }
    normalised(x, mean.detach(), variance.detach(), gamma, beta, epsilon)
}

/// The number of channels; panics unless gamma and beta have as many values.
fn check<B: Backend, const D: usize>(
    x: &Tensor<B, D>,
    gamma: &Tensor<B, 1>,
    beta: &Tensor<B, 1>,
) -> usize {
    let channels = x.dims()[1];
    assert_eq!(gamma.dims(), [channels], "batch norm: the length of gamma");
    assert_eq!(beta.dims(), [channels], "batch norm: the length of beta");
    channels
}

/// Of tensor operations alone.
fn normalised<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    mean: Tensor<B, 1>,
    variance: Tensor<B, 1>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, D> {
    let mut shape = [1; D];
    shape[1] = x.dims()[1];
    let wide = |tensor: Tensor<B, 1>| tensor.reshape(shape);
    let std = (variance + epsilon).sqrt();
    (x - wide(mean)) / wide(std) * wide(gamma) + wide(beta)
}

#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;
    use rayon::prelude::*;

    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::simd::{fold, for_rows, rows_at_a_time, sum, vectorized};

    /// A tensor as planes, one a channel of each image, one after another.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Planes {
        channels: usize,
        /// Values of a plane.
        area: usize,
        /// Values of a channel in the whole batch.
        of_channel: usize,
    }

    impl Planes {
        pub(super) fn of(dims: &[usize]) -> Self {
            let area = dims[2..].iter().product();
            Self {
                channels: dims[1],
                area,
                of_channel: dims[0] * area,
            }
        }

        /// Sums over each channel: of `N` figures that `of_plane` gives for a plane. The order of the sums depends on the shape
        /// alone.
        fn sums<const N: usize>(
            &self,
            xs: &[f32],
            gs: &[f32],
            of_plane: impl Fn(usize, &[f32], &[f32]) -> [f32; N] + Sync,
        ) -> Vec<[f64; N]> {
            let chunk = rows_at_a_time(self.area) * self.area.max(1);
            let planes = chunk / self.area.max(1);
            let chunks = xs.par_chunks(chunk).zip(gs.par_chunks(chunk)).enumerate();
            let parts: Vec<Vec<[f32; N]>> = chunks
                .map(|(number, (xs, gs))| {
                    let pairs = xs.chunks_exact(self.area).zip(gs.chunks_exact(self.area));
                    let figures = pairs.enumerate().map(|(plane, (xs, gs))| {
                        of_plane((number * planes + plane) % self.channels, xs, gs)
                    });
                    figures.collect()
                })
                .collect();
            let mut sums = vec![[0.0; N]; self.channels];
            for (plane, figures) in parts.iter().flatten().enumerate() {
                let channel = &mut sums[plane % self.channels];
                for (sum, figure) in channel.iter_mut().zip(figures) {
                    *sum += f64::from(*figure);
                }
            }
            sums
        }

        /// Mean and biased variance of each channel.
        pub(super) fn moments(&self, xs: &[f32]) -> (Vec<f32>, Vec<f32>) {
            let n = self.of_channel.max(1) as f64;
            let of_plane = |_, xs: &[f32], _: &[f32]| {
                [vectorized(
                    #[inline(always)]
                    || sum(xs),
                )]
            };
            let sums = self.sums(xs, xs, of_plane);
            let mean: Vec<f32> = sums.iter().map(|[sum]| (sum / n) as f32).collect();
            let of_plane = |channel: usize, xs: &[f32], _: &[f32]| {
                let mean = mean[channel];
                [vectorized(
                    #[inline(always)]
                    || {
                        fold(
                            xs,
                            0.0,
                            |sum, x| sum + (x - mean) * (x - mean),
                            |a, b| a + b,
                        )
                    },
                )]
            };
            let squares = self.sums(xs, xs, of_plane);
            let variance = squares.iter().map(|[sum]| (sum / n) as f32).collect();
            (mean, variance)
        }
    }

    /// The operation, with what each channel is shifted and scaled by.
    #[derive(Debug)]
    pub(super) struct Norm {
        planes: Planes,
        mean: Vec<f32>,
        /// One over the deviation.
        scale: Vec<f32>,
        /// Whether mean and variance are those of the input, which changes them.
        of_batch: bool,
    }

    impl Norm {
        pub(super) fn new(
            planes: Planes,
            mean: Vec<f32>,
            variance: &[f32],
            epsilon: f32,
            of_batch: bool,
        ) -> Self {
            let scale = |variance: &f32| 1.0 / (variance + epsilon).sqrt();
            Self {
                planes,
                mean,
                scale: variance.iter().map(scale).collect(),
                of_batch,
            }
        }
    }

    impl Fused<3> for Norm {
        /// Input and gamma.
        type Saved = [FlexTensor; 2];

        fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, [FlexTensor; 2]) {
            let [x, gamma, beta] = inputs.map(contiguous);
            let (xs, gammas, betas) = (slice(&x), slice(&gamma), slice(&beta));
            let Planes { channels, area, .. } = self.planes;
            let mut out = vec![0.0; xs.len()];
            for_rows(&mut out, area, |first, out| {
                let planes = out.chunks_exact_mut(area.max(1));
                let planes = planes.zip(xs[first * area..].chunks_exact(area.max(1)));
                for (plane, (out, xs)) in planes.enumerate() {
                    let channel = (first + plane) % channels;
                    let mean = self.mean[channel];
                    let (scale, shift) = (self.scale[channel] * gammas[channel], betas[channel]);
                    vectorized(
                        #[inline(always)]
                        || {
                            for (out, x) in out.iter_mut().zip(xs) {
                                *out = (x - mean) * scale + shift;
                            }
                        },
                    );
                }
            });
            (tensor(out, x.shape()), [x, gamma])
        }

        fn backward(
            &self,
            [x, gamma]: [FlexTensor; 2],
            grad: FlexTensor,
            wanted: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            let (xs, gs, gammas) = (slice(&x), slice(&grad), slice(&gamma));
            let Planes {
                channels,
                area,
                of_channel,
            } = self.planes;
            let needs_sums = wanted[1] || wanted[2] || self.of_batch;
            let of_plane = |channel: usize, xs: &[f32], gs: &[f32]| {
                let mean = self.mean[channel];
                vectorized(
                    #[inline(always)]
                    || both_sums(xs, gs, mean),
                )
            };
            let sums = if needs_sums {
                self.planes.sums(xs, gs, of_plane)
            } else {
                vec![[0.0; 2]; channels]
            };
            let scaled = |(channel, [_, along]): (usize, &[f64; 2])| {
                (along * f64::from(self.scale[channel])) as f32
            };
            let to_gamma: Vec<f32> = sums.iter().enumerate().map(scaled).collect();
            let to_beta: Vec<f32> = sums.iter().map(|[level, _]| *level as f32).collect();
            let to_x = || {
                let share = if self.of_batch {
                    1.0 / of_channel.max(1) as f32
                } else {
                    0.0
                };
                let mut out = vec![0.0; xs.len()];
                for_rows(&mut out, area, |first, out| {
                    let from = first * area;
                    let inputs = xs[from..].chunks_exact(area.max(1));
                    let inputs = inputs.zip(gs[from..].chunks_exact(area.max(1)));
                    let planes = out.chunks_exact_mut(area.max(1)).zip(inputs);
                    for (plane, (out, (xs, gs))) in planes.enumerate() {
                        let channel = (first + plane) % channels;
                        let (mean, scale) = (self.mean[channel], self.scale[channel]);
                        let level = to_beta[channel] * share;
                        let along = to_gamma[channel] * share * scale;
                        let factor = scale * gammas[channel];
                        vectorized(
                            #[inline(always)]
                            || {
                                for ((out, x), g) in out.iter_mut().zip(xs).zip(gs) {
                                    *out = factor * (g - level - (x - mean) * along);
                                }
                            },
                        );
                    }
                });
                tensor(out, x.shape())
            };
            [
                wanted[0].then(to_x),
                wanted[1].then(|| tensor(to_gamma.clone(), [channels])),
                wanted[2].then(|| tensor(to_beta.clone(), [channels])),
            ]
        }
    }

    /// The sum of the gradients, and of their products with what the mean leaves of the values.
    #[inline(always)]
    fn both_sums(xs: &[f32], gs: &[f32], mean: f32) -> [f32; 2] {
        const LANES: usize = 16;
        let (mut level, mut along) = ([0.0f32; LANES], [0.0f32; LANES]);
        let (xs, gs) = (xs.chunks_exact(LANES), gs.chunks_exact(LANES));
        let tail = xs.remainder().iter().zip(gs.remainder());
        let (mut level_of_tail, mut along_of_tail) = (0.0, 0.0);
        for (x, g) in tail {
            level_of_tail += g;
            along_of_tail += g * (x - mean);
        }
        for (xs, gs) in xs.zip(gs) {
            for lane in 0..LANES {
                level[lane] += gs[lane];
                along[lane] += gs[lane] * (xs[lane] - mean);
            }
        }
        [sum(&level) + level_of_tail, sum(&along) + along_of_tail]
    }
}
