//! Low-rank adapters: a product of two thin matrices beside a weight that stays as it is.
//!
//! LoRA, Hu et al. 2021, <https://arxiv.org/abs/2106.09685>; rsLoRA, Kalajdzievski 2023,
//! <https://arxiv.org/abs/2312.03732>; DoRA, Liu et al. 2024, <https://arxiv.org/abs/2402.09353>. Names, scales and
//! formulas are those of the `peft` package.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;

use crate::layers::adapter::Target;
use crate::ops::dropout;

/// Which linear layers get two thin matrices, and how these count.
#[derive(Clone, Debug)]
pub struct LowRankPlan {
    /// Columns of the first matrix, rows of the second.
    pub rank: usize,
    /// The product is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Share of the adapter's input that is dropped while training.
    pub dropout: f64,
    /// The product is multiplied by `alpha / sqrt(rank)` instead.
    pub rslora: bool,
    /// The adapted weight keeps the length of its columns, which trains separately.
    pub dora: bool,
    /// Layers by Hugging Face name; one that matches gets an adapter.
    pub targets: Vec<Target>,
}

impl LowRankPlan {
    /// What the product of the two matrices is multiplied by.
    pub fn scale(&self) -> f64 {
        scale(self.alpha, self.rank, self.rslora)
    }
}

/// What the product of two matrices of this rank is multiplied by: `alpha / rank`, of rsLoRA `alpha / sqrt(rank)`.
pub fn scale(alpha: f64, rank: usize, rslora: bool) -> f64 {
    let rank = rank as f64;
    alpha / if rslora { rank.sqrt() } else { rank }
}

/// Two thin matrices, and for DoRA the lengths of the weight's columns.
#[derive(Module, Debug)]
pub struct LowRank<B: Backend> {
    /// `[d_input, rank]`
    pub lora_a: Param<Tensor<B, 2>>,
    /// `[rank, d_output]`; zero at first, so that the layer starts as it was.
    pub lora_b: Param<Tensor<B, 2>>,
    /// DoRA: lengths of the adapted weight's columns, `[d_output]`.
    pub magnitude: Option<Param<Tensor<B, 1>>>,
    scale: f64,
    dropout: f64,
}

impl<B: Backend> LowRank<B> {
    /// The first matrix as PyTorch draws a linear layer, the second zero.
    pub fn new(plan: &LowRankPlan, d_input: usize, d_output: usize, device: &B::Device) -> Self {
        let k = 1.0 / (d_input as f64).sqrt();
        let uniform = Initializer::Uniform { min: -k, max: k };
        let magnitude = || Initializer::Ones.init([d_output], device);
        Self {
            lora_a: uniform.init([d_input, plan.rank], device),
            lora_b: Initializer::Zeros.init([plan.rank, d_output], device),
            magnitude: plan.dora.then(magnitude),
            scale: plan.scale(),
            dropout: plan.dropout,
        }
    }

    /// The same, which drops nothing in training either.
    pub fn without_dropout(self) -> Self {
        Self {
            dropout: 0.0,
            ..self
        }
    }

    /// What the layer gives with the adapter, its bias not yet added.
    ///
    /// - x: `[n, d_input]`
    /// - base: `x weight`, `[n, d_output]`
    /// - weight: `[d_input, d_output]`
    /// - out: `[n, d_output]`
    pub fn adapt(&self, x: Tensor<B, 2>, base: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        let (a, b) = (self.lora_a.val(), self.lora_b.val());
        let Some(magnitude) = &self.magnitude else {
            let thin = dropout(x, self.dropout).matmul(a);
            return base + thin.matmul(b).mul_scalar(self.scale);
        };
        // It may be held in 16 bits.
        let weight = weight.cast(x.dtype());
        let lengths = column_lengths(weight.clone() + a.clone().matmul(b.clone()) * self.scale);
        // A constant in the backward pass, as section 4.3 of the paper has it.
        let share: Tensor<B, 2> = (magnitude.val() / lengths.detach()).unsqueeze();
        let dropped = dropout(x, self.dropout);
        let base = if self.dropout > 0.0 {
            dropped.clone().matmul(weight)
        } else {
            base
        };
        let thin = dropped.matmul(a).matmul(b).mul_scalar(self.scale);
        (base + thin) * share
    }
}

/// - weight: `[d_input, d_output]`
/// - out: `[d_output]`
fn column_lengths<B: Backend>(weight: Tensor<B, 2>) -> Tensor<B, 1> {
    let [_, d_output] = weight.dims();
    (weight.clone() * weight)
        .sum_dim(0)
        .sqrt()
        .reshape([d_output])
}
