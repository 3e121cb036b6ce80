//! A linear layer.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;

use crate::ops;

/// `x weight + bias`; the names of Burn's own, which bundles know.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[d_input, d_output]`
    pub weight: Param<Tensor<B, 2>>,
    /// `[d_output]`
    pub bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> Linear<B> {
    /// Weights from N(0, `std`), bias zero: as BERT is initialised.
    pub fn normal(d_input: usize, d_output: usize, std: f64, device: &B::Device) -> Self {
        Self {
            weight: Initializer::Normal { mean: 0.0, std }.init([d_input, d_output], device),
            bias: Initializer::Zeros.init([d_output], device),
        }
    }

    /// Weights and bias from U(-k, k), k = 1 / sqrt(`d_input`): as PyTorch does it.
    pub fn uniform(d_input: usize, d_output: usize, device: &B::Device) -> Self {
        let k = 1.0 / (d_input as f64).sqrt();
        let uniform = Initializer::Uniform { min: -k, max: k };
        Self {
            weight: uniform.init([d_input, d_output], device),
            bias: uniform.init([d_output], device),
        }
    }

    /// - x: `[n, d_input]`
    /// - out: `[n, d_output]`
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        ops::linear(x, self.weight.val(), self.bias.val())
    }
}
