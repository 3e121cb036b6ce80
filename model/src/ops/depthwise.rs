//! Depthwise convolutions, in which each channel has its own kernels (Howard et al. 2017, <https://arxiv.org/abs/1704.04861>), on
//! Flex. In: images. Out: images, or the gradients of images and kernels.
//!
//! A channel of an image is laid out with its padding, row after row, so that a value of the kernel meets all places of
//! the result at one distance: the convolution is a sum of whole slices. With a stride, pixels that the same values of
//! the kernel meet are laid out together. Channels of images are spread over the cores, and each one's sums have one
//! order.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::TensorMetadata;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::convolution::Geometry;
use crate::ops::fused::{Fused, contiguous, slice, tensor};
use crate::ops::patches::take_every;
use crate::ops::simd::{sum, vectorized};

/// Values that are worked on at a time, some vectors of any machine.
const BLOCK: usize = 64;

/// A convolution with as many groups as channels.
#[derive(Debug)]
pub(super) struct Depthwise {
    batch: usize,
    channels: usize,
    /// Kernels of each channel.
    kernels: usize,
    plane: Plane,
}

impl Depthwise {
    pub(super) fn new(
        [batch, channels, height, width]: [usize; 4],
        kernels: usize,
        kernel: [usize; 2],
        geometry: Geometry,
    ) -> Self {
        Self {
            batch,
            channels,
            kernels,
            plane: Plane::new([height, width], kernel, geometry),
        }
    }

    fn out_shape(&self) -> [usize; 4] {
        let [rows, columns] = self.plane.places;
        [self.batch, self.channels * self.kernels, rows, columns]
    }

    /// The kernels of a channel in a slice of all of them.
    fn of_channel<'a>(&self, weight: &'a [f32], channel: usize) -> &'a [f32] {
        let n = self.kernels * self.plane.taps();
        &weight[channel * n..(channel + 1) * n]
    }

    fn to_images(&self, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        let plane = &self.plane;
        let (area, places) = (plane.area(), plane.count());
        let mut out = vec![0.0; self.batch * self.channels * area];
        let planes = out.par_chunks_mut(area).enumerate();
        planes
            .zip(grad.par_chunks(self.kernels * places))
            .for_each_init(
                || (plane.room_of_places(self.kernels), plane.room(), Vec::new()),
                |(grads, values, taps), ((at, out), grad)| {
                    let weight = self.of_channel(weight, at % self.channels);
                    plane.lay_out_places(grad, grads);
                    for phase in 0..plane.phases() {
                        plane.taps_back(phase, weight, taps);
                        let values = &mut values[phase * plane.length()..];
                        let n = plane.length().next_multiple_of(BLOCK);
                        correlate(&mut values[..n], grads, taps, 0.0);
                    }
                    plane.take_back(values, out);
                },
            );
        out
    }

    /// The gradients of kernels and biases: of each kernel its values' and then its bias's.
    fn to_kernels(&self, images: &[f32], grad: &[f32]) -> Vec<f32> {
        let plane = &self.plane;
        let width = self.kernels * (plane.taps() + 1);
        let all = self.channels * width;
        let mut parts = vec![0.0; self.batch * all];
        let chunks = parts
            .par_chunks_mut(width)
            .zip(images.par_chunks(plane.area()));
        chunks
            .zip(grad.par_chunks(self.kernels * plane.count()))
            .for_each_init(
                || (plane.room_of_places(self.kernels), plane.room()),
                |(grads, values), ((sums, image), grad)| {
                    plane.lay_out(image, values);
                    plane.lay_out_places(grad, grads);
                    let sums = sums.chunks_mut(plane.taps() + 1).enumerate();
                    for (kernel, sums) in sums {
                        let from = plane.room_of_grad() * kernel + plane.reach();
                        let n = plane.flat().next_multiple_of(BLOCK);
                        let grads = &grads[from..from + n];
                        let (of_values, of_bias) = sums.split_at_mut(plane.taps());
                        products(of_values, grads, values, &plane.offsets);
                        of_bias[0] = vectorized(
                            #[inline(always)]
                            || sum(grads),
                        );
                    }
                },
            );
        let mut sums = vec![0.0; all];
        for part in parts.chunks(all.max(1)) {
            sums.iter_mut()
                .zip(part)
                .for_each(|(sum, part)| *sum += part);
        }
        sums
    }
}

impl Fused<3> for Depthwise {
    /// Images and kernels.
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, [FlexTensor; 2]) {
        let [x, weight, bias] = inputs.map(contiguous);
        let (weights, biases) = (slice(&weight), slice(&bias));
        let plane = &self.plane;
        let mut out = vec![0.0; self.out_shape().iter().product()];
        let chunks = out.par_chunks_mut(self.kernels * plane.count()).enumerate();
        chunks
            .zip(slice(&x).par_chunks(plane.area()))
            .for_each_init(
                || (plane.room(), plane.room_of_flat(), Vec::new()),
                |(values, flat, taps), ((at, out), image)| {
                    let channel = at % self.channels;
                    plane.lay_out(image, values);
                    let kernels = self.of_channel(weights, channel).chunks_exact(plane.taps());
                    let outs = out.chunks_exact_mut(plane.count());
                    for (kernel, (out, weight)) in outs.zip(kernels).enumerate() {
                        plane.taps_forward(weight, taps);
                        correlate(flat, values, taps, biases[channel * self.kernels + kernel]);
                        plane.pack(flat, out);
                    }
                },
            );
        (tensor(out, self.out_shape()), [x, weight])
    }

    fn backward(
        &self,
        [x, weight]: [FlexTensor; 2],
        grad: FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let grads = slice(&grad);
        let to_x = wanted[0].then(|| tensor(self.to_images(slice(&weight), grads), x.shape()));
        if !wanted[1] && !wanted[2] {
            return [to_x, None, None];
        }
        let taps = self.plane.taps();
        let sums = self.to_kernels(slice(&x), grads);
        let sums = sums.chunks_exact(taps + 1);
        let to_bias: Vec<f32> = sums.clone().map(|sums| sums[taps]).collect();
        let to_weight: Vec<f32> = sums.flat_map(|sums| &sums[..taps]).copied().collect();
        [
            to_x,
            wanted[1].then(|| tensor(to_weight, weight.shape())),
            wanted[2].then(|| {
                let n = to_bias.len();
                tensor(to_bias, [n])
            }),
        ]
    }
}

/// How a channel of an image is laid out.
///
/// Pixels whose row and column leave the same remainder by the stride, a phase, are one slice of `length` values; its
/// rows are `pitch` apart. The places of the result lie at the same pitch, the ends of their rows unused.
#[derive(Clone, Debug)]
struct Plane {
    size: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    /// Rows and columns of the result.
    places: [usize; 2],
    /// Rows of a phase.
    rows: usize,
    pitch: usize,
    /// Of each value of the kernel, the distance from a place to the pixel that it meets there.
    offsets: Vec<usize>,
}

impl Plane {
    fn new(size: [usize; 2], kernel: [usize; 2], geometry: Geometry) -> Self {
        let Geometry {
            stride,
            padding,
            dilation,
            ..
        } = geometry;
        let places = [0, 1].map(|axis| {
            let reach = (kernel[axis] - 1) * dilation[axis];
            (size[axis] + 2 * padding[axis] - reach - 1) / stride[axis] + 1
        });
        let [rows, pitch] =
            [0, 1].map(|axis| places[axis] + (kernel[axis] - 1) * dilation[axis] / stride[axis]);
        let offset = |down: usize, right: usize| {
            let (y, x) = (down * dilation[0], right * dilation[1]);
            let phase = y % stride[0] * stride[1] + x % stride[1];
            phase * rows * pitch + y / stride[0] * pitch + x / stride[1]
        };
        let offsets = (0..kernel[0])
            .flat_map(|down| (0..kernel[1]).map(move |right| (down, right)))
            .map(|(down, right)| offset(down, right))
            .collect();
        Self {
            size,
            stride,
            padding,
            places,
            rows,
            pitch,
            offsets,
        }
    }

    fn taps(&self) -> usize {
        self.offsets.len()
    }

    /// Pixels of the image.
    fn area(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Places of the result.
    fn count(&self) -> usize {
        self.places[0] * self.places[1]
    }

    fn phases(&self) -> usize {
        self.stride[0] * self.stride[1]
    }

    /// Values of a phase.
    fn length(&self) -> usize {
        self.rows * self.pitch
    }

    /// Values of the result with the unused ends of its rows.
    fn flat(&self) -> usize {
        self.places[0] * self.pitch
    }

    /// The largest distance inside a phase.
    fn reach(&self) -> usize {
        (self.rows - self.places[0]) * self.pitch + self.pitch - self.places[1]
    }

    /// Memory for all phases, with room for the last block.
    fn room(&self) -> Vec<f32> {
        vec![0.0; self.phases() * self.length() + self.pitch + BLOCK]
    }

    fn room_of_flat(&self) -> Vec<f32> {
        vec![0.0; self.flat().next_multiple_of(BLOCK)]
    }

    /// Values of the gradient of one result: before it as many zeros as a kernel reaches back, behind it those of the last
    /// block.
    fn room_of_grad(&self) -> usize {
        self.reach() + self.length().next_multiple_of(BLOCK)
    }

    fn room_of_places(&self, kernels: usize) -> Vec<f32> {
        vec![0.0; kernels * self.room_of_grad()]
    }

    /// The values of a kernel, and how far from a place they meet the image.
    fn taps_forward(&self, weight: &[f32], taps: &mut Vec<(usize, f32)>) {
        taps.clear();
        taps.extend(self.offsets.iter().copied().zip(weight.iter().copied()));
    }

    /// The values of all kernels that meet a phase, and how far from a pixel they meet the gradients.
    fn taps_back(&self, phase: usize, weight: &[f32], taps: &mut Vec<(usize, f32)>) {
        taps.clear();
        let inside = phase * self.length()..(phase + 1) * self.length();
        for (kernel, weight) in weight.chunks_exact(self.taps()).enumerate() {
            let start = kernel * self.room_of_grad() + self.reach();
            let met = self.offsets.iter().zip(weight);
            let met = met.filter(|(offset, _)| inside.contains(*offset));
            taps.extend(met.map(|(offset, weight)| (start + inside.start - offset, *weight)));
        }
    }

    /// The part of a phase's row or column that lies on the image, and the first pixel there.
    fn inside(&self, axis: usize, phase: usize) -> (Range<usize>, usize) {
        let (stride, padding) = (self.stride[axis], self.padding[axis]);
        let n = [self.rows, self.pitch][axis];
        let first = padding.saturating_sub(phase).div_ceil(stride).min(n);
        let end = (self.size[axis] + padding)
            .saturating_sub(phase)
            .div_ceil(stride)
            .min(n);
        (
            first..end.max(first),
            (first * stride + phase).saturating_sub(padding),
        )
    }

    /// Calls with each run of pixels: where it begins in the layout and in the image, and its length; the image's pixels
    /// are a stride apart.
    fn runs(&self, mut run: impl FnMut(usize, usize, usize)) {
        for down in 0..self.stride[0] {
            let (rows, top) = self.inside(0, down);
            for right in 0..self.stride[1] {
                let (columns, left) = self.inside(1, right);
                if columns.is_empty() {
                    continue;
                }
                let start = (down * self.stride[1] + right) * self.length() + columns.start;
                for (at, row) in rows.clone().enumerate() {
                    let pixel = (top + at * self.stride[0]) * self.size[1] + left;
                    run(start + row * self.pitch, pixel, columns.len());
                }
            }
        }
    }

    /// The image in its layout; what lies beside it stays as it is.
    fn lay_out(&self, image: &[f32], values: &mut [f32]) {
        self.runs(|to, from, n| {
            take_every(self.stride[1], &image[from..], &mut values[to..to + n]);
        });
    }

    /// The image of its layout; pixels that no kernel meets stay as they are.
    fn take_back(&self, values: &[f32], image: &mut [f32]) {
        let stride = self.stride[1];
        self.runs(|from, to, n| {
            let values = &values[from..from + n];
            if stride == 1 {
                return image[to..to + n].copy_from_slice(values);
            }
            let pixels = image[to..].iter_mut().step_by(stride);
            pixels
                .zip(values)
                .for_each(|(pixel, value)| *pixel = *value);
        });
    }

    /// The places of the result without the unused ends of its rows.
    fn pack(&self, flat: &[f32], out: &mut [f32]) {
        let rows = out.chunks_exact_mut(self.places[1]);
        for (row, flat) in rows.zip(flat.chunks(self.pitch)) {
            row.copy_from_slice(&flat[..self.places[1]]);
        }
    }

    /// The other way, one result after another; what lies between stays as it is.
    fn lay_out_places(&self, grads: &[f32], flat: &mut [f32]) {
        let rooms = flat.chunks_exact_mut(self.room_of_grad());
        for (room, grad) in rooms.zip(grads.chunks_exact(self.count())) {
            let rows = room[self.reach()..].chunks_mut(self.pitch);
            for (row, grad) in rows.zip(grad.chunks_exact(self.places[1])) {
                row[..self.places[1]].copy_from_slice(grad);
            }
        }
    }
}

/// At each place the sum of the values at these distances, each weighted; the length is one of whole blocks.
fn correlate(out: &mut [f32], values: &[f32], taps: &[(usize, f32)], start: f32) {
    pulp::Arch::new().dispatch(Correlation {
        out,
        values,
        taps,
        start,
    });
}

/// What [`correlate`] is called with.
struct Correlation<'a> {
    out: &'a mut [f32],
    values: &'a [f32],
    taps: &'a [(usize, f32)],
    start: f32,
}

impl WithSimd for Correlation<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            out,
            values,
            taps,
            start,
        } = self;
        let width = 4 * S::F32_LANES;
        let (outs, _) = S::as_mut_simd_f32s(out);
        for (at, out) in outs.chunks_exact_mut(4).enumerate() {
            let [mut a, mut b, mut c, mut d] = [simd.splat_f32s(start); 4];
            for &(offset, weight) in taps {
                let weight = simd.splat_f32s(weight);
                let (values, _) = S::as_simd_f32s(&values[offset + at * width..][..width]);
                if let [x, y, z, w] = *values {
                    a = simd.mul_add_e_f32s(x, weight, a);
                    b = simd.mul_add_e_f32s(y, weight, b);
                    c = simd.mul_add_e_f32s(z, weight, c);
                    d = simd.mul_add_e_f32s(w, weight, d);
                }
            }
            out.copy_from_slice(&[a, b, c, d]);
        }
    }
}

/// Of each distance the sum of the products of gradients and the values there; the length is one of whole blocks.
fn products(sums: &mut [f32], grads: &[f32], values: &[f32], offsets: &[usize]) {
    pulp::Arch::new().dispatch(Products {
        sums,
        grads,
        values,
        offsets,
    });
}

/// What [`products`] is called with.
struct Products<'a> {
    sums: &'a mut [f32],
    grads: &'a [f32],
    values: &'a [f32],
    offsets: &'a [usize],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            sums,
            grads,
            values,
            offsets,
        } = self;
        let n = grads.len();
        let (grads, _) = S::as_simd_f32s(grads);
        let groups = sums.chunks_mut(3).zip(offsets.chunks(3));
        for (sums, offsets) in groups {
            // Where fewer are left the last one is summed again.
            let last = offsets.len() - 1;
            let (first, _) = S::as_simd_f32s(&values[offsets[0]..][..n]);
            let (second, _) = S::as_simd_f32s(&values[offsets[last.min(1)]..][..n]);
            let (third, _) = S::as_simd_f32s(&values[offsets[last]..][..n]);
            let [mut a, mut b, mut c, mut d, mut e, mut f] = [simd.splat_f32s(0.0); 6];
            let pairs = first.chunks_exact(2).zip(second.chunks_exact(2));
            let pairs = pairs.zip(third.chunks_exact(2)).zip(grads.chunks_exact(2));
            for (((first, second), third), grads) in pairs {
                a = simd.mul_add_e_f32s(first[0], grads[0], a);
                b = simd.mul_add_e_f32s(first[1], grads[1], b);
                c = simd.mul_add_e_f32s(second[0], grads[0], c);
                d = simd.mul_add_e_f32s(second[1], grads[1], d);
                e = simd.mul_add_e_f32s(third[0], grads[0], e);
                f = simd.mul_add_e_f32s(third[1], grads[1], f);
            }
            let totals = [[a, b], [c, d], [e, f]];
            for (sum, [a, b]) in sums.iter_mut().zip(totals) {
                *sum = simd.reduce_sum_f32s(simd.add_f32s(a, b));
            }
        }
    }
}
