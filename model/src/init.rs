//! Parameters as published models initialise them, and when they are drawn.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Embedding, Initializer};
use burn::prelude::*;

/// A table of `n` vectors `d_model` wide, from N(0, `std`).
pub fn embedding<B: Backend>(
    n: usize,
    d_model: usize,
    std: f64,
    device: &B::Device,
) -> Embedding<B> {
    Embedding {
        weight: Initializer::Normal { mean: 0.0, std }.init([n, d_model], device),
    }
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
