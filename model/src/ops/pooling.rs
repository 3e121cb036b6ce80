//! Pooling of maps: the largest value of a window, its mean, or the mean of the whole.

use burn::prelude::*;
use burn::tensor::module;

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
    module::avg_pool2d(x, kernel, stride, padding, count_include_pad, false)
}

/// Means over all pixels; `[batch, channels, height, width]` to `[batch, channels]`.
pub fn global_avg_pool<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 2> {
    let [batch, channels, height, width] = x.dims();
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
