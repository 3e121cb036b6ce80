//! Layer normalisation with its scale and shift, and the kind that has no shift.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use burn::tensor::DType;

use crate::ops;

/// Over the last axis; the names of Burn's own, which bundles know.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// Scale, `[d_model]`.
    pub gamma: Param<Tensor<B, 1>>,
    /// Shift, `[d_model]`.
    pub beta: Param<Tensor<B, 1>>,
    epsilon: f64,
}

impl<B: Backend> LayerNorm<B> {
    /// Scale one, shift zero.
    pub fn new(d_model: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([d_model], device),
            beta: Initializer::Zeros.init([d_model], device),
            epsilon,
        }
    }

    /// The type that the model computes in, whatever its tables and matrices are held in.
    pub(crate) fn dtype(&self) -> DType {
        self.gamma.dtype()
    }

    /// - x, out: `[n, d_model]`
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        ops::layer_norm(x, self.gamma.val(), self.beta.val(), self.epsilon)
    }

    /// Of `dropout(a) + b`.
    ///
    /// - a, b, out: `[n, d_model]`
    /// - rate: share of `a` that is dropped while training
    pub fn forward_sum(&self, a: Tensor<B, 2>, b: Tensor<B, 2>, rate: f64) -> Tensor<B, 2> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        ops::layer_norm_of_sum([a, b], gamma, beta, self.epsilon, rate)
    }
}

/// By the root of the mean square, over the last axis.
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// Scale, `[d_model]`.
    pub gamma: Param<Tensor<B, 1>>,
    epsilon: f64,
}

impl<B: Backend> RmsNorm<B> {
    /// Scale one.
    pub fn new(d_model: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([d_model], device),
            epsilon,
        }
    }

    /// As [`LayerNorm::dtype`].
    pub(crate) fn dtype(&self) -> DType {
        self.gamma.dtype()
    }

    /// - x, out: `[n, d_model]`
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        ops::rms_norm(x, self.gamma.val(), self.epsilon)
    }
}
