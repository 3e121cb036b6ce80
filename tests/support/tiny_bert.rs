//! The tiny BERT of `tests/golden`: its model and its batch.
//!
//! Shared by the tests of encoder, optimizer and backends; generic, so that each backend runs the same code.

#![allow(dead_code, reason = "each test program takes what it needs")]

use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::log_softmax;
use model::bundle::Load;
use model::{Bundle, Draw, HeadKind, Names, TokenInput, TokenModel, registry};

use crate::golden::path;

/// How its parameters are called.
pub fn names() -> Names {
    Names::new(registry::TEXT_FAMILIES[0], HeadKind::Tokens)
}

/// The masked LM with the golden weights.
pub fn masked_lm<B: Backend>(device: &B::Device) -> TokenModel<B> {
    let bundle = Bundle::open(&path("tiny_bert")).expect("the golden bundle opens");
    let config = bundle.text_config().expect("its sizes are possible");
    let model = TokenModel::draw(&config, &Draw::new(device, 0.02));
    let loaded = bundle.load(model, names(), Load::Whole);
    loaded.expect("its weights fit").0
}

/// Cross-entropy summed over positions, `[1]`.
///
/// - positions: indices into the flattened `[batch * seq]`
pub fn loss_sum<B: Backend>(
    model: &TokenModel<B>,
    input: TokenInput<B>,
    (positions, targets): &(Vec<i32>, Vec<u32>),
    device: &B::Device,
) -> Tensor<B, 1> {
    let n = targets.len();
    let at = Tensor::from_data(TensorData::new(positions.clone(), [n]), device);
    let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
    let ids: Tensor<B, 1, Int> = Tensor::from_data(TensorData::new(ids, [n]), device);
    let logits = model.logits(&input, Some(at), None);
    let chosen = log_softmax(logits, 1).gather(1, ids.reshape([n, 1]));
    -chosen.sum()
}
