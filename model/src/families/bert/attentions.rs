//! Attention weights of the encoder, for looking at. In: token ids. Out: the probabilities of each layer and head.
//!
//! Attention itself keeps no probabilities: here the same layers run, and queries and keys are multiplied once more.

use burn::prelude::*;

use super::{Bert, BertSelfAttention};
use crate::families::TokenInput;
use crate::ops::{AttentionMask, AttentionShape, attention_weights};

impl<B: Backend> Bert<B> {
    /// How much each token looks at each other one, `[batch, heads, seq, seq]` a layer, the first layer first; rows sum to 1.
    ///
    /// Nothing of a model with virtual tokens: they are no tokens of the text, and take a share of its attention.
    ///
    /// # Panics
    ///
    /// If a sequence is longer than the table of positions.
    pub fn attentions(&self, input: &TokenInput<B>) -> Option<Vec<Tensor<B, 4>>> {
        if self.virtual_tokens.is_some() {
            return None;
        }
        let shape = input.tokens.dims();
        let mut hidden = self.embeddings.forward(input, None, 0);
        if let Some(project) = &self.embeddings_project {
            hidden = project.forward(hidden);
        }
        let mask = AttentionMask {
            bias: input.attention_bias(0, hidden.dtype()),
            ..AttentionMask::default()
        };
        let layers = self.encoder.layer.iter();
        let weights = layers.map(|layer| {
            let attention = &layer.attention.self_attention;
            let weights = attention.weights(hidden.clone(), shape, &mask);
            hidden = layer.forward(hidden.clone(), shape, &mask, None, None);
            weights
        });
        Some(weights.collect())
    }
}

impl<B: Backend> BertSelfAttention<B> {
    /// - hidden: `[batch * seq, d_model]`
    /// - out: `[batch, heads, seq, seq]`
    fn weights(
        &self,
        hidden: Tensor<B, 2>,
        [batch, seq]: [usize; 2],
        mask: &AttentionMask<B>,
    ) -> Tensor<B, 4> {
        let pair = [self.query.forward(hidden.clone()), self.key.forward(hidden)];
        let shape = AttentionShape::square(batch, seq, self.n_heads);
        attention_weights(pair, mask, shape)
    }
}
