//! Layers initialised as published models are: weights from N(0, std), biases zero, norms one and zero.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Embedding, Initializer, LayerNorm, LayerNormConfig, Linear};
use burn::prelude::*;

/// A linear layer, `[.., d_input]` to `[.., d_output]`, weights from N(0, `std`), bias zero.
pub fn linear<B: Backend>(
    d_input: usize,
    d_output: usize,
    std: f64,
    device: &B::Device,
) -> Linear<B> {
    Linear {
        weight: normal(std).init([d_input, d_output], device),
        bias: Some(Initializer::Zeros.init([d_output], device)),
    }
}

/// A table of `n` vectors `d_model` wide, from N(0, `std`).
pub fn embedding<B: Backend>(
    n: usize,
    d_model: usize,
    std: f64,
    device: &B::Device,
) -> Embedding<B> {
    Embedding {
        weight: normal(std).init([n, d_model], device),
    }
}

/// A layer norm over the last `d_model` values.
pub fn layer_norm<B: Backend>(d_model: usize, epsilon: f64, device: &B::Device) -> LayerNorm<B> {
    LayerNormConfig::new(d_model)
        .with_epsilon(epsilon)
        .init(device)
}

/// Draws every parameter now, in the order of the module's fields.
///
/// Burn draws a parameter when it is first read: without this the values depend on who reads first.
pub fn materialise<B: Backend, M: Module<B>>(module: M) -> M {
    struct Reader;
    impl<B: Backend> ModuleVisitor<B> for Reader {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let _ = param.val();
        }
    }
    module.visit(&mut Reader);
    module
}

fn normal(std: f64) -> Initializer {
    Initializer::Normal { mean: 0.0, std }
}
