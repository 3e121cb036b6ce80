//! Operations that models share: plain tensor operations on every backend, one separate pass on Burn's Flex.
//!
//! Reading order: [`mod@gelu`], [`activation`], [`mod@dropout`], [`mod@linear`], [`mod@layer_norm`], [`mod@rms_norm`], [`mod@batch_norm`],
//! [`rotary`], [`mod@attention`], [`mod@recurrent`], [`convolution`], [`pooling`], [`resize`], [`mod@cross_entropy`], [`mod@linear_cross_entropy`], [`mod@adamw`], most of them a plain version and a fast one side by side; then `half` (weights of 16 and of 8 bits) and `widening` (the same on Flex), `fused` (how the fast one is
//! found), `matrix` and `simd` (what it is made of).

pub mod activation;
pub mod adamw;
pub mod attention;
pub mod batch_norm;
pub mod convolution;
pub mod cross_entropy;
#[cfg(feature = "flex")]
mod depthwise;
pub mod dropout;
#[cfg(feature = "flex")]
mod fused;
pub mod gelu;
pub(crate) mod half;
pub mod layer_norm;
pub mod linear;
pub mod linear_cross_entropy;
#[cfg(feature = "flex")]
mod matrix;
#[cfg(feature = "flex")]
mod panels;
#[cfg(feature = "flex")]
mod patches;
pub mod pooling;
pub mod recurrent;
pub mod resize;
pub mod rms_norm;
pub mod rotary;
#[cfg(feature = "flex")]
mod sequence;
#[cfg(feature = "flex")]
mod simd;
#[cfg(feature = "flex")]
mod widening;

pub use activation::{Activation, gelu_tanh, quick_gelu, silu};
pub use adamw::{AdamW, adamw};
pub use attention::{AttentionMask, AttentionShape, attention, attention_weights};
pub use batch_norm::{batch_norm, batch_norm_frozen};
pub use convolution::{Geometry, conv_transpose2d, conv2d};
pub use cross_entropy::cross_entropy;
pub use dropout::dropout;
pub use gelu::gelu;
pub use layer_norm::{layer_norm, layer_norm_of_sum};
pub use linear::{linear, linear_transposed, matmul};
pub use linear_cross_entropy::linear_cross_entropy;
pub use pooling::{adaptive_avg_pool2d, avg_pool2d, global_avg_pool, max_pool2d};
pub use recurrent::recurrent;
pub use resize::{resize_bicubic, resize_bilinear, resize_nearest};
pub use rms_norm::rms_norm;
pub use rotary::{Turns, rotate};

#[cfg(feature = "flex")]
fn primitive<B: burn::prelude::Backend, const D: usize>(
    tensor: burn::Tensor<B, D>,
) -> burn::tensor::ops::FloatTensor<B> {
    tensor.into_primitive().tensor()
}

#[cfg(feature = "flex")]
fn wrap<B: burn::prelude::Backend, const D: usize>(
    tensor: burn::tensor::ops::FloatTensor<B>,
) -> burn::Tensor<B, D> {
    burn::Tensor::from_primitive(burn::tensor::TensorPrimitive::Float(tensor))
}
