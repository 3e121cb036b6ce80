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

    #[cfg(feature = "flex")]
    fn is_dense(&self) -> bool {
        self.groups == 1 && self.dilation == [1, 1]
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
    if fused::takes::<B>(&[x.dtype(), weight.dtype(), dtype_of(bias.as_ref())])
        && geometry.is_dense()
    {
        let bias = bias.unwrap_or_else(|| Tensor::zeros([d_out], &x.device()));
        let patches = fast::Patches::new(channels, [height, width], kernel, geometry);
        let operation = fast::Convolution {
            batch: x.dims()[0],
            narrow: d_out,
            patches,
            transposed: false,
        };
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
        && geometry.is_dense()
        && padding_out
            .iter()
            .zip(stride)
            .all(|(&out, stride)| out < stride)
    {
        let bias = bias.unwrap_or_else(|| Tensor::zeros([d_out], &x.device()));
        let size = [0, 1].map(|axis| full[axis] - 2 * padding[axis]);
        let patches = fast::Patches::new(d_out, size, kernel, geometry);
        let operation = fast::Convolution {
            batch: x.dims()[0],
            narrow: d_in,
            patches,
            transposed: true,
        };
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
    use std::ops::Range;

    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;
    use rayon::prelude::*;

    use super::Geometry;
    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::matrix::{Onto, View, multiply};
    use crate::ops::simd::sum;

    /// Images whose part of the weights' gradient is summed by one thread.
    const IMAGES: usize = 8;

    /// The patches of an image that a kernel sees, one at every place.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Patches {
        channels: usize,
        size: [usize; 2],
        kernel: [usize; 2],
        geometry: Geometry,
        /// Rows and columns of places.
        places: [usize; 2],
    }

    impl Patches {
        pub(super) fn new(
            channels: usize,
            size: [usize; 2],
            kernel: [usize; 2],
            geometry: Geometry,
        ) -> Self {
            let Geometry {
                stride, padding, ..
            } = geometry;
            let places = |axis: usize| {
                let room = size[axis] + 2 * padding[axis];
                (room - kernel[axis]) / stride[axis] + 1
            };
            Self {
                channels,
                size,
                kernel,
                geometry,
                places: [places(0), places(1)],
            }
        }

        fn image(&self) -> usize {
            self.channels * self.size[0] * self.size[1]
        }

        fn values(&self) -> usize {
            self.channels * self.kernel[0] * self.kernel[1]
        }

        fn count(&self) -> usize {
            self.places[0] * self.places[1]
        }

        /// The matrix of the patches: `[channels * kernel, places]`.
        fn view(&self) -> View {
            View::whole(self.values(), self.count())
        }

        /// Whether the image is the matrix: a kernel of one pixel at every pixel.
        fn is_the_image(&self) -> bool {
            self.kernel == [1, 1] && self.geometry == Geometry::new([1, 1], [0, 0])
        }

        /// The places along an axis at which this part of the kernel lies on the image, not beside it.
        fn inside(&self, axis: usize, part: usize) -> Range<usize> {
            let (stride, padding) = (self.geometry.stride[axis], self.geometry.padding[axis]);
            let first = padding.saturating_sub(part).div_ceil(stride);
            let end = (self.size[axis] + padding)
                .saturating_sub(part)
                .div_ceil(stride);
            first.min(self.places[axis])..end.min(self.places[axis])
        }

        /// Calls with each run of values: where it begins in the matrix and in the image, and its length; the image's
        /// values are a stride apart.
        fn runs(&self, mut run: impl FnMut(usize, usize, usize)) {
            let Geometry {
                stride, padding, ..
            } = self.geometry;
            let [height, width] = self.size;
            let mut row = 0;
            for channel in 0..self.channels {
                for down in 0..self.kernel[0] {
                    for right in 0..self.kernel[1] {
                        let columns = self.inside(1, right);
                        for place in self.inside(0, down) {
                            let y = place * stride[0] + down - padding[0];
                            if columns.is_empty() {
                                continue;
                            }
                            let x = columns.start * stride[1] + right - padding[1];
                            run(
                                row * self.count() + place * self.places[1] + columns.start,
                                (channel * height + y) * width + x,
                                columns.len(),
                            );
                        }
                        row += 1;
                    }
                }
            }
        }

        /// The matrix; what lies beside the image stays as it is.
        fn gather(&self, image: &[f32], matrix: &mut [f32]) {
            let stride = self.geometry.stride[1];
            self.runs(|to, from, n| {
                let to = &mut matrix[to..to + n];
                if stride == 1 {
                    return to.copy_from_slice(&image[from..from + n]);
                }
                let values = image[from..].iter().step_by(stride);
                to.iter_mut()
                    .zip(values)
                    .for_each(|(to, value)| *to = *value);
            });
        }

        /// Adds every value of the matrix to the pixel that it was taken from.
        fn scatter(&self, matrix: &[f32], image: &mut [f32]) {
            let stride = self.geometry.stride[1];
            self.runs(|from, to, n| {
                let values = &matrix[from..from + n];
                if stride == 1 {
                    let pixels = image[to..to + n].iter_mut();
                    return pixels
                        .zip(values)
                        .for_each(|(pixel, value)| *pixel += value);
                }
                let pixels = image[to..].iter_mut().step_by(stride);
                pixels
                    .zip(values)
                    .for_each(|(pixel, value)| *pixel += value);
            });
        }
    }

    /// A convolution, which makes narrow images of wide ones; transposed, it goes the other way.
    #[derive(Debug)]
    pub(super) struct Convolution {
        pub(super) batch: usize,
        /// Channels of a narrow image, of as many pixels as there are places.
        pub(super) narrow: usize,
        /// Of a wide image.
        pub(super) patches: Patches,
        pub(super) transposed: bool,
    }

    impl Convolution {
        fn wide_shape(&self) -> [usize; 4] {
            let Patches { channels, size, .. } = self.patches;
            [self.batch, channels, size[0], size[1]]
        }

        fn narrow_shape(&self) -> [usize; 4] {
            let [rows, columns] = self.patches.places;
            [self.batch, self.narrow, rows, columns]
        }

        fn narrow_image(&self) -> usize {
            self.narrow * self.patches.count()
        }

        fn narrow_view(&self) -> View {
            View::whole(self.narrow, self.patches.count())
        }

        fn weight_view(&self) -> View {
            View::whole(self.narrow, self.patches.values())
        }

        fn matrix(&self) -> Vec<f32> {
            if self.patches.is_the_image() {
                return Vec::new();
            }
            vec![0.0; self.patches.values() * self.patches.count()]
        }

        /// The patches of an image, in a matrix that is used again.
        fn laid_out<'a>(&self, image: &'a [f32], matrix: &'a mut Vec<f32>) -> &'a [f32] {
            if self.patches.is_the_image() {
                return image;
            }
            self.patches.gather(image, matrix);
            matrix
        }

        /// Narrow images of wide ones.
        fn narrowed(&self, wide: &[f32], weight: &[f32], bias: Option<&[f32]>) -> FlexTensor {
            let mut out = vec![0.0; self.batch * self.narrow_image()];
            let images = out.par_chunks_mut(self.narrow_image());
            let images = images.zip(wide.par_chunks(self.patches.image()));
            images.for_each_init(
                || self.matrix(),
                |matrix, (out, image)| {
                    let matrix = self.laid_out(image, matrix);
                    fill(out, self.patches.count(), bias);
                    multiply(
                        (out, self.narrow_view()),
                        (weight, self.weight_view()),
                        (matrix, self.patches.view()),
                        1.0,
                        Onto::Values,
                    );
                },
            );
            tensor(out, self.narrow_shape())
        }

        /// Wide images of narrow ones.
        fn widened(&self, narrow: &[f32], weight: &[f32], bias: Option<&[f32]>) -> FlexTensor {
            let mut out = vec![0.0; self.batch * self.patches.image()];
            let [height, width] = self.patches.size;
            let images = out.par_chunks_mut(self.patches.image());
            let images = images.zip(narrow.par_chunks(self.narrow_image()));
            images.for_each_init(
                || self.matrix(),
                |matrix, (out, image)| {
                    let weight = (weight, self.weight_view().transposed());
                    let image = (image, self.narrow_view());
                    fill(out, height * width, bias);
                    if self.patches.is_the_image() {
                        let out = (out, self.patches.view());
                        return multiply(out, weight, image, 1.0, Onto::Values);
                    }
                    let patches = (&mut matrix[..], self.patches.view());
                    multiply(patches, weight, image, 1.0, Onto::Nothing);
                    self.patches.scatter(matrix, out);
                },
            );
            tensor(out, self.wide_shape())
        }

        /// The gradient of the weights: of each image the product of narrow channels and patches, summed in the order of the
        /// images.
        fn weight_gradient(&self, narrow: &[f32], wide: &[f32]) -> Vec<f32> {
            let groups = narrow.par_chunks(IMAGES * self.narrow_image());
            let groups = groups.zip(wide.par_chunks(IMAGES * self.patches.image()));
            let of_group = |(narrow, wide): (&[f32], &[f32])| {
                let mut matrix = self.matrix();
                let mut sum = vec![0.0; self.narrow * self.patches.values()];
                let images = narrow.chunks(self.narrow_image());
                for (narrow, wide) in images.zip(wide.chunks(self.patches.image())) {
                    let matrix = self.laid_out(wide, &mut matrix);
                    multiply(
                        (&mut sum, self.weight_view()),
                        (narrow, self.narrow_view()),
                        (matrix, self.patches.view().transposed()),
                        1.0,
                        Onto::Values,
                    );
                }
                sum
            };
            let parts: Vec<_> = groups.map(of_group).collect();
            let mut all = vec![0.0; self.narrow * self.patches.values()];
            for part in parts {
                all.iter_mut()
                    .zip(part)
                    .for_each(|(all, part)| *all += part);
            }
            all
        }
    }

    /// Every channel its bias, or zero.
    fn fill(image: &mut [f32], pixels: usize, bias: Option<&[f32]>) {
        let Some(bias) = bias else {
            return image.fill(0.0);
        };
        for (channel, bias) in image.chunks_mut(pixels).zip(bias) {
            channel.fill(*bias);
        }
    }

    /// The gradient of the bias: the sum over all images, channel by channel.
    fn to_bias(grad: &[f32], [_, channels, height, width]: [usize; 4]) -> FlexTensor {
        let mut out = vec![0.0; channels];
        for (at, pixels) in grad.chunks(height * width).enumerate() {
            out[at % channels] += sum(pixels);
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
                tensor(self.weight_gradient(narrow, wide), weight.shape())
            };
            [
                wanted[0].then(to_x),
                wanted[1].then(to_weight),
                wanted[2].then(|| to_bias(grads, grad.shape().dims())),
            ]
        }
    }
}
