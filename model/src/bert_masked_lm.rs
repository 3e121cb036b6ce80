//! BERT with the masked-LM head: transform, then the token table itself as decoder.
//!
//! The layout of Hugging Face's `BertForMaskedLM`. In: hidden states. Out: logits over the vocabulary.

use burn::module::Param;
use burn::nn::Initializer;
use burn::prelude::*;

use crate::bert::{Bert, BertConfig, BertInput};
use crate::linear::Linear;
use crate::norm::LayerNorm;
use crate::ops::{gelu, linear_transposed};

/// BERT that fills masks.
#[derive(Module, Debug)]
pub struct BertMaskedLm<B: Backend> {
    /// The encoder, which fine-tuning keeps.
    pub bert: Bert<B>,
    /// The head, which fine-tuning drops.
    pub cls: BertHead<B>,
}

impl<B: Backend> BertMaskedLm<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn new(config: &BertConfig, device: &B::Device) -> Self {
        let d_model = config.hidden_size;
        Self {
            bert: config.init(device),
            cls: BertHead {
                predictions: BertPredictions {
                    transform: BertTransform {
                        dense: Linear::normal(d_model, d_model, config.initializer_range, device),
                        layer_norm: LayerNorm::new(d_model, config.layer_norm_eps, device),
                    },
                    bias: Initializer::Zeros.init([config.vocab_size], device),
                },
            },
        }
    }

    /// Logits at every position, `[batch, seq, vocab_size]`.
    pub fn forward(&self, input: BertInput<B>) -> Tensor<B, 3> {
        let [batch, seq] = input.tokens.dims();
        let hidden = self.bert.forward(input);
        let [_, _, d_model] = hidden.dims();
        let logits = self.logits(hidden.reshape([batch * seq, d_model]));
        let [_, vocab_size] = logits.dims();
        logits.reshape([batch, seq, vocab_size])
    }

    /// Logits at chosen positions only: the vocabulary is the widest product of a small model, and the last layer a large
    /// part of what is left.
    ///
    /// - positions: `[n]`, indices into the flattened `[batch * seq]`
    /// - out: `[n, vocab_size]`
    pub fn forward_at(&self, input: BertInput<B>, positions: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.logits(self.bert.forward_at(input, positions))
    }

    /// - hidden: `[n, d_model]`
    /// - out: `[n, vocab_size]`
    fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let head = &self.cls.predictions;
        let states = gelu(head.transform.dense.forward(hidden));
        let states = head.transform.layer_norm.forward(states);
        let table = self.bert.embeddings.word_embeddings.weight.val();
        linear_transposed(states, table, head.bias.val())
    }
}

/// Hugging Face's `cls`.
#[derive(Module, Debug)]
pub struct BertHead<B: Backend> {
    /// Its only child.
    pub predictions: BertPredictions<B>,
}

/// Transform and the decoder's bias; the decoder's weight is the token table.
#[derive(Module, Debug)]
pub struct BertPredictions<B: Backend> {
    /// Before the decoder.
    pub transform: BertTransform<B>,
    /// `[vocab_size]`
    pub bias: Param<Tensor<B, 1>>,
}

/// Linear, GELU, layer norm.
#[derive(Module, Debug)]
pub struct BertTransform<B: Backend> {
    /// `[d_model, d_model]`
    pub dense: Linear<B>,
    /// Over d_model.
    pub layer_norm: LayerNorm<B>,
}
