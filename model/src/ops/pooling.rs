//! Pooling of maps: the largest value of a window, its mean, or the mean of the whole.
//!
//! On Flex each map is one pass forward and one backward, and maps are spread over the cores.

use burn::prelude::*;
use burn::tensor::module;

#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// The largest value of each window; what lies beside the map counts for nothing.
///
/// - x: `[batch, channels, height, width]`
/// - out: `[batch, channels, (height + 2 padding - kernel) / stride + 1, ...]`
pub fn max_pool2d<B: Backend>(
    x: Tensor<B, 4>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Tensor<B, 4> {
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype()])
        && let Some(windows) = fast::Windows::new(x.dims(), kernel, stride, padding)
    {
        return wrap(fused::apply::<B, _, 1>(fast::Max(windows), [primitive(x)]));
    }
    module::max_pool2d(x, kernel, stride, padding, [1, 1], false)
}

/// The mean of each window.
///
/// - x: `[batch, channels, height, width]`
/// - count_include_pad: whether what lies beside the map counts as zeros
/// - out: `[batch, channels, (height + 2 padding - kernel) / stride + 1, ...]`
pub fn avg_pool2d<B: Backend>(
    x: Tensor<B, 4>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    count_include_pad: bool,
) -> Tensor<B, 4> {
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype()])
        && let Some(windows) = fast::Windows::new(x.dims(), kernel, stride, padding)
    {
        let operation = fast::Mean {
            windows,
            count_include_pad,
        };
        return wrap(fused::apply::<B, _, 1>(operation, [primitive(x)]));
    }
    module::avg_pool2d(x, kernel, stride, padding, count_include_pad, false)
}

/// Means over all pixels; `[batch, channels, height, width]` to `[batch, channels]`.
pub fn global_avg_pool<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 2> {
    let [batch, channels, height, width] = x.dims();
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype()]) && height * width > 0 {
        let operation = fast::WholeMean {
            shape: [batch, channels, height, width],
        };
        return wrap(fused::apply::<B, _, 1>(operation, [primitive(x)]));
    }
    x.reshape([batch * channels, height * width])
        .mean_dim(1)
        .reshape([batch, channels])
}

/// Means over so many windows as evenly spread as can be; they overlap where they have to.
///
/// - x: `[batch, channels, height, width]`
/// - out: `[batch, channels, size[0], size[1]]`
pub fn adaptive_avg_pool2d<B: Backend>(x: Tensor<B, 4>, size: [usize; 2]) -> Tensor<B, 4> {
    module::adaptive_avg_pool2d(x, size)
}

#[cfg(feature = "flex")]
mod fast {
    use std::ops::Range;

    use burn::backend::flex::FlexTensor;
    use rayon::prelude::*;

    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::patches::take_every;
    use crate::ops::simd::{rows_at_a_time, sum, vectorized};

    /// No pixel has this number.
    const UNKNOWN: u32 = u32::MAX;

    /// Windows on the maps of a tensor.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Windows {
        shape: [usize; 4],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        /// Rows and columns of windows.
        places: [usize; 2],
    }

    impl Windows {
        /// `None` where there is nothing to pool, or a map has more pixels than are counted here.
        pub(super) fn new(
            shape: [usize; 4],
            kernel: [usize; 2],
            stride: [usize; 2],
            padding: [usize; 2],
        ) -> Option<Self> {
            let [_, _, height, width] = shape;
            let size = [height, width];
            let fits = (0..2).all(|axis| {
                let room = size[axis] + 2 * padding[axis];
                // A window wholly beside the map has no value.
                stride[axis] > 0 && kernel[axis] > padding[axis] && room >= kernel[axis]
            });
            if !fits || height * width == 0 || u32::try_from(height * width).is_err() {
                return None;
            }
            let places = [0, 1]
                .map(|axis| (size[axis] + 2 * padding[axis] - kernel[axis]) / stride[axis] + 1);
            Some(Self {
                shape,
                kernel,
                stride,
                padding,
                places,
            })
        }

        fn size(&self) -> [usize; 2] {
            [self.shape[2], self.shape[3]]
        }

        fn area(&self) -> usize {
            self.shape[2] * self.shape[3]
        }

        fn count(&self) -> usize {
            self.places[0] * self.places[1]
        }

        fn out_shape(&self) -> [usize; 4] {
            let [batch, channels, ..] = self.shape;
            [batch, channels, self.places[0], self.places[1]]
        }

        fn out_len(&self) -> usize {
            self.out_shape().iter().product()
        }

        /// The places along an axis whose windows have this part of theirs on the map.
        fn inside(&self, axis: usize, part: usize) -> Range<usize> {
            let (stride, padding) = (self.stride[axis], self.padding[axis]);
            let first = padding.saturating_sub(part).div_ceil(stride);
            let end = (self.size()[axis] + padding).saturating_sub(part);
            let end = end.div_ceil(stride).min(self.places[axis]);
            first.min(end)..end
        }

        /// Calls with each row of places, those columns of it at which one part of the windows is on the map, and the first
        /// pixel there; the next ones are a stride apart.
        fn parts(&self, mut part: impl FnMut(usize, Range<usize>, usize)) {
            for row in 0..self.places[0] {
                for down in 0..self.kernel[0] {
                    if !self.inside(0, down).contains(&row) {
                        continue;
                    }
                    let y = row * self.stride[0] + down - self.padding[0];
                    for right in 0..self.kernel[1] {
                        let columns = self.inside(1, right);
                        if columns.is_empty() {
                            continue;
                        }
                        let x = columns.start * self.stride[1] + right - self.padding[1];
                        part(row, columns, y * self.shape[3] + x);
                    }
                }
            }
        }
    }

    /// The largest value of each window, the first of equal ones.
    #[derive(Debug)]
    pub(super) struct Max(pub(super) Windows);

    impl Fused<1> for Max {
        /// The pixel in its map that each result comes from.
        type Saved = Vec<u32>;

        fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Vec<u32>) {
            let (windows, x) = (self.0, contiguous(x));
            let mut out = vec![f32::NEG_INFINITY; windows.out_len()];
            let mut from = vec![UNKNOWN; windows.out_len()];
            let outs = out.par_chunks_mut(windows.count());
            let outs = outs.zip(from.par_chunks_mut(windows.count()));
            outs.zip(slice(&x).par_chunks(windows.area()))
                .with_min_len(rows_at_a_time(windows.area()))
                .for_each_init(
                    || vec![0.0; windows.places[1]],
                    |values, ((out, from), map)| largest(&windows, map, values, out, from),
                );
            (tensor(out, windows.out_shape()), from)
        }

        fn backward(
            &self,
            from: Vec<u32>,
            grad: FlexTensor,
            _: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            let windows = self.0;
            let mut out = vec![0.0; windows.shape.iter().product()];
            let outs = out.par_chunks_mut(windows.area());
            let grads = slice(&grad).par_chunks(windows.count());
            outs.zip(grads.zip(from.par_chunks(windows.count())))
                .with_min_len(rows_at_a_time(windows.area()))
                .for_each(|(out, (grads, from))| {
                    for (grad, from) in grads.iter().zip(from) {
                        out[*from as usize] += grad;
                    }
                });
            [Some(tensor(out, windows.shape))]
        }
    }

    /// Of one map; as in PyTorch a NaN is larger than anything.
    fn largest(
        windows: &Windows,
        map: &[f32],
        values: &mut [f32],
        out: &mut [f32],
        from: &mut [u32],
    ) {
        let stride = windows.stride[1];
        windows.parts(|row, columns, first| {
            let values = &mut values[..columns.len()];
            take_every(stride, &map[first..], values);
            let start = row * windows.places[1];
            let out = &mut out[start + columns.start..start + columns.end];
            let from = &mut from[start + columns.start..start + columns.end];
            vectorized(
                #[inline(always)]
                || {
                    let (mut pixel, step) = (first as u32, stride as u32);
                    for ((out, from), value) in out.iter_mut().zip(from).zip(values) {
                        // All three are computed: a branch would keep the loop from vectors.
                        let larger = (*value > *out) | value.is_nan() | (*from == UNKNOWN);
                        *out = if larger { *value } else { *out };
                        *from = if larger { pixel } else { *from };
                        pixel = pixel.wrapping_add(step);
                    }
                },
            );
        });
    }

    /// The mean of each window.
    #[derive(Debug)]
    pub(super) struct Mean {
        pub(super) windows: Windows,
        pub(super) count_include_pad: bool,
    }

    impl Mean {
        /// One over the number of pixels in each window of a map.
        fn shares(&self) -> Vec<f32> {
            let Windows { kernel, places, .. } = self.windows;
            let along = |axis: usize| -> Vec<usize> {
                let count = |place: usize| {
                    let inside = |part: &usize| self.windows.inside(axis, *part).contains(&place);
                    (0..kernel[axis]).filter(inside).count()
                };
                (0..places[axis]).map(count).collect()
            };
            let (rows, columns) = (along(0), along(1));
            let share = |pixels: usize| 1.0 / pixels as f32;
            if self.count_include_pad {
                return vec![share(kernel[0] * kernel[1]); self.windows.count()];
            }
            let rows = rows
                .iter()
                .flat_map(|row| columns.iter().map(move |n| row * n));
            rows.map(share).collect()
        }
    }

    impl Fused<1> for Mean {
        type Saved = ();

        fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
            let (windows, shares, x) = (self.windows, self.shares(), contiguous(x));
            let mut out = vec![0.0; windows.out_len()];
            let outs = out.par_chunks_mut(windows.count());
            outs.zip(slice(&x).par_chunks(windows.area()))
                .with_min_len(rows_at_a_time(windows.area()))
                .for_each_init(
                    || vec![0.0; windows.places[1]],
                    |values, (out, map)| {
                        windows.parts(|row, columns, first| {
                            let values = &mut values[..columns.len()];
                            take_every(windows.stride[1], &map[first..], values);
                            let start = row * windows.places[1] + columns.start;
                            let out = out[start..start + columns.len()].iter_mut();
                            out.zip(values).for_each(|(out, value)| *out += *value);
                        });
                        out.iter_mut()
                            .zip(&shares)
                            .for_each(|(out, share)| *out *= share);
                    },
                );
            (tensor(out, windows.out_shape()), ())
        }

        fn backward(&self, (): (), grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            let (windows, shares) = (self.windows, self.shares());
            let mut out = vec![0.0; windows.shape.iter().product()];
            let outs = out.par_chunks_mut(windows.area());
            outs.zip(slice(&grad).par_chunks(windows.count()))
                .with_min_len(rows_at_a_time(windows.area()))
                .for_each(|(out, grads)| {
                    windows.parts(|row, columns, first| {
                        let start = row * windows.places[1];
                        let places = start + columns.start..start + columns.end;
                        let grads = grads[places.clone()].iter().zip(&shares[places]);
                        let pixels = out[first..].iter_mut().step_by(windows.stride[1]);
                        for (pixel, (grad, share)) in pixels.zip(grads) {
                            *pixel += grad * share;
                        }
                    });
                });
            [Some(tensor(out, windows.shape))]
        }
    }

    /// The mean of each map.
    #[derive(Debug)]
    pub(super) struct WholeMean {
        pub(super) shape: [usize; 4],
    }

    impl WholeMean {
        fn area(&self) -> usize {
            self.shape[2] * self.shape[3]
        }
    }

    impl Fused<1> for WholeMean {
        type Saved = ();

        fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
            let (x, area) = (contiguous(x), self.area());
            let maps = slice(&x).par_chunks(area);
            let mean = |map: &[f32]| {
                vectorized(
                    #[inline(always)]
                    || sum(map),
                ) / area as f32
            };
            let means = maps.with_min_len(rows_at_a_time(area)).map(mean);
            let [batch, channels, ..] = self.shape;
            (tensor(means.collect(), [batch, channels]), ())
        }

        fn backward(&self, (): (), grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            let area = self.area();
            let mut out = vec![0.0; self.shape.iter().product()];
            let maps = out.par_chunks_mut(area).zip(slice(&grad));
            maps.with_min_len(rows_at_a_time(area))
                .for_each(|(map, grad)| map.fill(grad / area as f32));
            [Some(tensor(out, self.shape))]
        }
    }
}
