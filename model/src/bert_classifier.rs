//! BERT with a classification head, the layout of Hugging Face's `BertForSequenceClassification`.
//!
//! In: token ids. Out: logits over the classes, from the first token's state.

use burn::prelude::*;

use crate::bert::{Bert, BertConfig, BertInput};
use crate::linear::Linear;
use crate::ops::dropout;

/// BERT that classifies texts.
#[derive(Module, Debug)]
pub struct BertClassifier<B: Backend> {
    /// The encoder, with its pooler.
    pub bert: Bert<B>,
    /// `[d_model, n_classes]`
    pub classifier: Linear<B>,
    dropout: f64,
}

impl<B: Backend> BertClassifier<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn new(config: &BertConfig, n_classes: usize, device: &B::Device) -> Self {
        let std = config.initializer_range;
        Self {
            bert: config.init_with_pooler(device),
            classifier: Linear::normal(config.hidden_size, n_classes, std, device),
            dropout: config.hidden_dropout_prob,
        }
    }

    /// Logits, `[batch, n_classes]`.
    pub fn forward(&self, input: BertInput<B>) -> Tensor<B, 2> {
        let pooled = self.bert.forward_pooled(input);
        self.classifier.forward(dropout(pooled, self.dropout))
    }
}
