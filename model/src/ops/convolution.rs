//! Convolutions of images and their transposes.
//!
//! On Flex both are products of the kernels and of patches laid out as a matrix (Chellapilla et al. 2006,
//! <https://inria.hal.science/inria-00112631>), an image at a time, with the gradients of the same kind.

use burn::prelude::*;
#[cfg(feature = "flex")]
use burn::tensor::DType;
use burn::tensor::module;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};

#[cfg(feature = "flex")]
use crate::ops::{depthwise::Depthwise, fused, primitive, wrap};

/// How kernels move over an image: from place to place, and how far beyond its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Pixels from one place to the next, down and to the right.
    pub stride: [usize; 2],
    /// Pixels of zeros around the image, above and below, left and right.
    pub padding: [usize; 2],
    /// Pixels from one value of a kernel to the next.
    pub dilation: [usize; 2],
    /// Parts of the channels that do not see each other.
    pub groups: usize,
}

impl Geometry {
    /// Of dense kernels.
    pub const fn new(stride: [usize; 2], padding: [usize; 2]) -> Self {
        Self {
            stride,
            padding,
            dilation: [1, 1],
            groups: 1,
        }
    }

    /// With channels in so many groups.
    pub const fn grouped(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// With kernels whose values are so many pixels apart.
    pub const fn dilated(self, dilation: usize) -> Self {
        Self {
            dilation: [dilation; 2],
            ..self
        }
    }
}

/// A convolution.
///
/// - x: `[batch, d_in, height, width]`
/// - weight: `[d_out, d_in / groups, kernel_height, kernel_width]`
/// - bias: `[d_out]`
/// - out: `[batch, d_out, (height + 2 padding - kernel) / stride + 1, ...]`, a kernel being as large as its dilation makes it
///
/// # Panics
///
/// If these sizes do not fit each other, a stride is 0, or the kernel is larger than the image with its padding.
pub fn conv2d<B: Backend>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Option<Tensor<B, 1>>,
    geometry: Geometry,
) -> Tensor<B, 4> {
    let [_, channels, height, width] = x.dims();
    let [d_out, d_in, kernel_height, kernel_width] = weight.dims();
    let kernel = [kernel_height, kernel_width];
    let groups = geometry.groups;
    check(
        [channels, d_in * groups, d_out],
        bias.as_ref(),
        kernel,
        geometry,
    );
    for (axis, size) in [height, width].into_iter().enumerate() {
        let kernel = (kernel[axis] - 1) * geometry.dilation[axis] + 1;
        let room = size + 2 * geometry.padding[axis];
        assert!(
            room >= kernel,
            "convolution: a kernel of {kernel} is larger than an image of {room}, its padding included"
        );
    }
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype(), weight.dtype(), dtype_of(bias.as_ref())])
        && groups == channels
        && groups > 1
    {
        let bias = bias.unwrap_or_else(|| Tensor::zeros([d_out], &x.device()));
        let operation = Depthwise::new(x.dims(), d_out / groups, kernel, geometry);
        let inputs = [primitive(x), primitive(weight), primitive(bias)];
        return wrap(fused::apply::<B, _, 3>(operation, inputs));
    }
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype(), weight.dtype(), dtype_of(bias.as_ref())]) {
        let bias = bias.unwrap_or_else(|| Tensor::zeros([d_out], &x.device()));
        let (channels, size) = ([channels, d_out], [height, width]);
        let operation =
            fast::Convolution::new(x.dims()[0], channels, size, kernel, geometry, false);
        let inputs = [primitive(x), primitive(weight), primitive(bias)];
        return wrap(fused::apply::<B, _, 3>(operation, inputs));
    }
    let Geometry {
        stride,
        padding,
        dilation,
        groups,
    } = geometry;
    let options = ConvOptions::new(stride, padding, dilation, groups);
    module::conv2d(x, weight, bias, options)
}

/// A transposed convolution: what goes from a convolution's result to its image.
///
/// - x: `[batch, d_in, height, width]`
/// - weight: `[d_in, d_out / groups, kernel_height, kernel_width]`
/// - bias: `[d_out]`
/// - padding_out: rows and columns of the result beyond `(height - 1) stride - 2 padding + kernel`
///
/// # Panics
///
/// If these sizes do not fit each other, a stride is 0, or nothing is left of the result within its padding.
pub fn conv_transpose2d<B: Backend>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Option<Tensor<B, 1>>,
    geometry: Geometry,
    padding_out: [usize; 2],
) -> Tensor<B, 4> {
    let Geometry {
        stride,
        padding,
        dilation,
        groups,
    } = geometry;
    let [_, channels, height, width] = x.dims();
    let [d_in, d_out, kernel_height, kernel_width] = weight.dims();
    let d_out = d_out * groups;
    let kernel = [kernel_height, kernel_width];
    check([channels, d_in, d_out], bias.as_ref(), kernel, geometry);
    let full = [0, 1].map(|axis| {
        let steps = [height, width][axis].saturating_sub(1);
        steps * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1 + padding_out[axis]
    });
    for (axis, places) in [height, width].into_iter().enumerate() {
        let lost = 2 * padding[axis];
        assert!(
            places > 0 && full[axis] > lost,
            "transposed convolution: of {places} places nothing is left within a padding of {lost}"
        );
    }
    // A result that is longer by a stride has further places, which the patches would count.
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[x.dtype(), weight.dtype(), dtype_of(bias.as_ref())])
        && padding_out
            .iter()
            .zip(stride)
            .all(|(&out, stride)| out < stride)
    {
        let bias = bias.unwrap_or_else(|| Tensor::zeros([d_out], &x.device()));
        let size = [0, 1].map(|axis| full[axis] - 2 * padding[axis]);
        let channels = [d_out, d_in];
        let operation = fast::Convolution::new(x.dims()[0], channels, size, kernel, geometry, true);
        let inputs = [primitive(x), primitive(weight), primitive(bias)];
        return wrap(fused::apply::<B, _, 3>(operation, inputs));
    }
    let options = ConvTransposeOptions::new(stride, padding, padding_out, dilation, groups);
    module::conv_transpose2d(x, weight, bias, options)
}

/// Panics unless channels, weight and bias fit each other and the kernel can move.
fn check<B: Backend>(
    [channels, d_in, d_out]: [usize; 3],
    bias: Option<&Tensor<B, 1>>,
    kernel: [usize; 2],
    geometry: Geometry,
) {
    assert_eq!(
        channels, d_in,
        "convolution: the channels of image and weight"
    );
    assert!(
        d_in > 0 && d_out > 0 && kernel.iter().all(|&n| n > 0),
        "convolution: a weight of {d_in} channels to {d_out} with a kernel of {kernel:?} is empty"
    );
    if let Some(bias) = bias {
        assert_eq!(bias.dims(), [d_out], "convolution: the length of the bias");
    }
    let Geometry {
        stride,
        dilation,
        groups,
        ..
    } = geometry;
    assert!(
        stride.iter().chain(&dilation).all(|&n| n > 0),
        "convolution: a stride of {stride:?} and a dilation of {dilation:?}"
    );
    assert!(
        groups > 0 && d_in.is_multiple_of(groups) && d_out.is_multiple_of(groups),
        "convolution: {groups} groups of {d_in} channels to {d_out}"
    );
}

#[cfg(feature = "flex")]
fn dtype_of<B: Backend>(bias: Option<&Tensor<B, 1>>) -> DType {
    bias.map_or(DType::F32, Tensor::dtype)
}

#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;
    use rayon::prelude::*;

    use super::Geometry;
    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::patches::{BLOCK, Kernels, Patches, Places, Shared, Tap, weight_gradient};
    use crate::ops::simd::{sum, vectorized};

    /// A convolution, which makes narrow images of wide ones; transposed, it goes the other way.
    #[derive(Debug)]
    pub(super) struct Convolution {
        batch: usize,
        /// Channels of a wide image and of a narrow one, which has as many pixels as there are places.
        channels: [usize; 2],
        /// Of wide images and of narrow ones.
        shapes: [[usize; 4]; 2],
        size: [usize; 2],
        places: [usize; 2],
        kernel: [usize; 2],
        geometry: Geometry,
        transposed: bool,
    }

    impl Convolution {
        /// - channels, size: of a wide image, and the channels of a narrow one
        pub(super) fn new(
            batch: usize,
            channels: [usize; 2],
            size: [usize; 2],
            kernel: [usize; 2],
            geometry: Geometry,
            transposed: bool,
        ) -> Self {
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
            let shapes = [
                [batch, channels[0], size[0], size[1]],
                [batch, channels[1], places[0], places[1]],
            ];
            // Where every pixel is by itself, a small image can be one row.
            let alone = kernel == [1, 1] && stride == [1, 1] && padding == [0, 0];
            let area = size[0] * size[1];
            let flattened = |size: [usize; 2]| {
                if alone && area <= BLOCK {
                    [1, area]
                } else {
                    size
                }
            };
            Self {
                batch,
                channels,
                shapes,
                size: flattened(size),
                places: flattened(places),
                kernel,
                geometry,
                transposed,
            }
        }

        fn taps(&self) -> impl Iterator<Item = (usize, [usize; 2])> {
            let [height, width] = self.kernel;
            let all = (0..height).flat_map(move |down| (0..width).map(move |right| [down, right]));
            all.enumerate()
        }

        /// Channels of each group.
        fn of_group(&self) -> [usize; 2] {
            self.channels
                .map(|channels| channels / self.geometry.groups)
        }

        /// Where the kernel meets a wide image.
        fn narrowing(&self) -> Patches {
            let Geometry {
                stride,
                padding,
                dilation,
                groups,
            } = self.geometry;
            let tap = |(weight, at): (usize, [usize; 2])| Tap {
                offset: [0, 1]
                    .map(|axis| (at[axis] * dilation[axis]) as isize - padding[axis] as isize),
                weight,
            };
            let taps = self.taps().map(tap).collect();
            let [channels, _] = self.of_group();
            Patches::new(
                self.batch,
                groups,
                channels,
                self.size,
                taps,
                stride,
                self.places,
            )
        }

        fn kernels<'a>(&self, weight: &'a [f32]) -> Kernels<'a> {
            let [wide, _] = self.of_group();
            Kernels {
                values: weight,
                taps: self.kernel[0] * self.kernel[1],
                channels: wide,
            }
        }

        /// Narrow images of wide ones.
        fn narrowed(&self, wide: &[f32], weight: &[f32], bias: Option<&[f32]>) -> FlexTensor {
            let patches = self.narrowing();
            let shape = self.shapes[1];
            let out = Shared::new(shape.iter().product());
            let [_, narrow] = self.of_group();
            let places = Places::all(self.places);
            patches.convolve(
                wide,
                self.kernels(weight).to_narrow(),
                narrow,
                bias,
                places,
                &out,
            );
            // SAFETY: every pixel of the result is a place.
            tensor(unsafe { out.into_values() }, shape)
        }

        /// Wide images of narrow ones where every pixel is in one patch: all pixels of a patch are one product.
        fn spread(&self, narrow: &[f32], weight: &[f32], bias: Option<&[f32]>) -> FlexTensor {
            let shape = self.shapes[0];
            let out = Shared::new(shape.iter().product());
            let [channels, from] = self.of_group();
            let taps = self.kernel[0] * self.kernel[1];
            let pixel = Tap {
                offset: [0, 0],
                weight: 0,
            };
            let (groups, size) = (self.geometry.groups, self.places);
            let patches = Patches::new(self.batch, groups, from, size, vec![pixel], [1, 1], size);
            let places = Places {
                step: self.kernel,
                each: self.kernel,
                ..Places::all(self.size)
            };
            let of_pixel = |bias: &f32| std::iter::repeat_n(*bias, taps);
            let bias: Option<Vec<f32>> = bias.map(|bias| bias.iter().flat_map(of_pixel).collect());
            let kernels = self.kernels(weight).to_patches();
            let to = channels * taps;
            patches.convolve(narrow, kernels, to, bias.as_deref(), places, &out);
            // SAFETY: every pixel is one of a place.
            tensor(unsafe { out.into_values() }, shape)
        }

        /// Wide images of narrow ones: pixels whose row and column leave the same remainder by the stride see the same part of the
        /// kernel, and are a convolution of their own.
        fn widened(&self, narrow: &[f32], weight: &[f32], bias: Option<&[f32]>) -> FlexTensor {
            let Geometry {
                stride,
                padding,
                dilation,
                groups,
            } = self.geometry;
            let side_by_side = stride == self.kernel && padding == [0, 0] && dilation == [1, 1];
            if side_by_side
                && (0..2).all(|axis| self.size[axis] == self.places[axis] * stride[axis])
            {
                return self.spread(narrow, weight, bias);
            }
            let shape = self.shapes[0];
            let out = Shared::new(shape.iter().product());
            let [channels, from] = self.of_group();
            for down in 0..stride[0].min(self.size[0]) {
                for right in 0..stride[1].min(self.size[1]) {
                    let first = [down, right];
                    let tap = |(weight, at): (usize, [usize; 2])| {
                        let offset = [0, 1].map(|axis| {
                            (first[axis] + padding[axis]) as isize
                                - (at[axis] * dilation[axis]) as isize
                        });
                        let met = (0..2).all(|axis| offset[axis] % stride[axis] as isize == 0);
                        met.then(|| Tap {
                            offset: [0, 1].map(|axis| offset[axis] / stride[axis] as isize),
                            weight,
                        })
                    };
                    let taps = self.taps().filter_map(tap).collect();
                    let count =
                        [0, 1].map(|axis| (self.size[axis] - first[axis]).div_ceil(stride[axis]));
                    let patches =
                        Patches::new(self.batch, groups, from, self.places, taps, [1, 1], count);
                    let places = Places {
                        first,
                        step: stride,
                        ..Places::all(self.size)
                    };
                    let kernels = self.kernels(weight).to_wide();
                    patches.convolve(narrow, kernels, channels, bias, places, &out);
                }
            }
            // SAFETY: every pixel has one remainder, and is one of its places.
            tensor(unsafe { out.into_values() }, shape)
        }
    }

    /// The gradient of the bias: the sum over all images, channel by channel.
    fn to_bias(grad: &[f32], [_, channels, height, width]: [usize; 4]) -> FlexTensor {
        let planes = grad.par_chunks(height * width);
        let of_plane = |plane: &[f32]| {
            vectorized(
                #[inline(always)]
                || sum(plane),
            )
        };
        let sums: Vec<f32> = planes.map(of_plane).collect();
        let mut out = vec![0.0; channels];
        for (at, sum) in sums.iter().enumerate() {
            out[at % channels] += sum;
        }
        tensor(out, [channels])
    }

    impl Fused<3> for Convolution {
        /// Images and weights.
        type Saved = [FlexTensor; 2];

        fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, [FlexTensor; 2]) {
            let [x, weight, bias] = inputs.map(contiguous);
            let (images, weights, biases) = (slice(&x), slice(&weight), Some(slice(&bias)));
            let out = if self.transposed {
                self.widened(images, weights, biases)
            } else {
                self.narrowed(images, weights, biases)
            };
            (out, [x, weight])
        }

        fn backward(
            &self,
            [x, weight]: [FlexTensor; 2],
            grad: FlexTensor,
            wanted: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            let (images, weights, grads) = (slice(&x), slice(&weight), slice(&grad));
            let to_x = || {
                if self.transposed {
                    self.narrowed(grads, weights, None)
                } else {
                    self.widened(grads, weights, None)
                }
            };
            let to_weight = || {
                let (narrow, wide) = if self.transposed {
                    (images, grads)
                } else {
                    (grads, images)
                };
                let [_, channels] = self.of_group();
                let out = weight_gradient(&self.narrowing(), narrow, channels, wide);
                tensor(out, weight.shape())
            };
            [
                wanted[0].then(to_x),
                wanted[1].then(to_weight),
                wanted[2].then(|| to_bias(grads, grad.shape().dims())),
            ]
        }
    }
}
