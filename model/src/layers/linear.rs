//! A linear layer, in PyTorch's layout and in GPT-2's.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;

use crate::layers::bottleneck::Bottleneck;
use crate::layers::low_rank::LowRank;
use crate::ops;

/// `x weight + bias`; a bundle holds the weight as `[d_output, d_input]`, as PyTorch's `Linear`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[d_input, d_output]`
    pub weight: Param<Tensor<B, 2>>,
    /// `[d_output]`
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// What an adapter adds to the product with the weight.
    pub low_rank: Option<LowRank<B>>,
    /// What an adapter makes of the output.
    pub bottleneck: Option<Bottleneck<B>>,
}

impl<B: Backend> Linear<B> {
    /// Whether the weight and the bias are all that it computes with.
    pub fn is_plain(&self) -> bool {
        self.low_rank.is_none() && self.bottleneck.is_none()
    }

    /// Weights from N(0, `std`), bias zero: as BERT is initialised.
    pub fn normal(d_input: usize, d_output: usize, std: f64, device: &B::Device) -> Self {
        Self {
            weight: Initializer::Normal { mean: 0.0, std }.init([d_input, d_output], device),
            bias: Some(Initializer::Zeros.init([d_output], device)),
            low_rank: None,
            bottleneck: None,
        }
    }

    /// Weights and bias from U(-k, k), k = 1 / sqrt(`d_input`): as PyTorch does it.
    pub fn uniform(d_input: usize, d_output: usize, device: &B::Device) -> Self {
        let k = 1.0 / (d_input as f64).sqrt();
        let uniform = Initializer::Uniform { min: -k, max: k };
        Self {
            weight: uniform.init([d_input, d_output], device),
            bias: Some(uniform.init([d_output], device)),
            low_rank: None,
            bottleneck: None,
        }
    }

    /// - x: `[n, d_input]`
    /// - out: `[n, d_output]`
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let output = project(x, &self.weight, &self.bias, &self.low_rank);
        adapted(output, &self.bottleneck)
    }
}

/// `x weight + bias`; a bundle holds the weight as `[d_input, d_output]`, as GPT-2's `Conv1D`.
#[derive(Module, Debug)]
pub struct Conv1d<B: Backend> {
    /// `[d_input, d_output]`
    pub weight: Param<Tensor<B, 2>>,
    /// `[d_output]`
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// What an adapter adds to the product with the weight.
    pub low_rank: Option<LowRank<B>>,
    /// What an adapter makes of the output.
    pub bottleneck: Option<Bottleneck<B>>,
}

impl<B: Backend> Conv1d<B> {
    /// - x: `[n, d_input]`
    /// - out: `[n, d_output]`
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let output = project(x, &self.weight, &self.bias, &self.low_rank);
        adapted(output, &self.bottleneck)
    }
}

fn adapted<B: Backend>(output: Tensor<B, 2>, adapter: &Option<Bottleneck<B>>) -> Tensor<B, 2> {
    match adapter {
        Some(adapter) => adapter.adapt(output),
        None => output,
    }
}

fn project<B: Backend>(
    x: Tensor<B, 2>,
    weight: &Param<Tensor<B, 2>>,
    bias: &Option<Param<Tensor<B, 1>>>,
    low_rank: &Option<LowRank<B>>,
) -> Tensor<B, 2> {
    let Some(low_rank) = low_rank else {
        return affine(x, weight.val(), bias.as_ref().map(Param::val));
    };
    let base = affine(x.clone(), weight.val(), None);
    let adapted = low_rank.adapt(x, base, weight.val());
    match bias {
        Some(bias) => adapted + bias.val().unsqueeze(),
        None => adapted,
    }
}

fn affine<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    match bias {
        Some(bias) => ops::linear(x, weight, bias),
        None => ops::matmul(x, weight),
    }
}
