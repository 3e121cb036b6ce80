//! Attention in an encoder-decoder: of a text to itself, and of one text to what an encoder made of another.

use burn::module::Module;
use burn::prelude::*;

use crate::cache::{Cache, Seq2SeqCache};
use crate::families::Encoded;
use crate::layers::Linear;
use crate::ops::{AttentionMask, AttentionShape, attention};

/// Scaled dot-product attention over heads, with its four projections.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// `[d_model, heads * d_head]`
    pub k_proj: Linear<B>,
    /// `[d_model, heads * d_head]`
    pub v_proj: Linear<B>,
    /// `[d_model, heads * d_head]`
    pub q_proj: Linear<B>,
    /// `[heads * d_head, d_model]`
    pub out_proj: Linear<B>,
    /// How many there are.
    pub heads: usize,
    /// What the products of queries and keys are multiplied by.
    pub scale: f64,
    /// Share of the probabilities that is dropped while training.
    pub dropout: f64,
}

impl<B: Backend> Attention<B> {
    /// Of texts to themselves.
    ///
    /// - hidden, out: `[batch * seq, d_model]`
    /// - cache: of a decoder, and the number of the layer in it
    pub fn forward(
        &self,
        hidden: Tensor<B, 2>,
        [batch, seq]: [usize; 2],
        mask: &AttentionMask<B>,
        cache: Option<(&mut Cache<B>, usize)>,
    ) -> Tensor<B, 2> {
        let [mut key, mut value] = self.keys(hidden.clone());
        let mut keys = seq;
        if let Some((cache, layer)) = cache {
            keys += cache.read();
            [key, value] = cache.extend(layer, [key, value], [batch, seq]);
        }
        let shape = AttentionShape {
            keys,
            ..AttentionShape::square(batch, seq, self.heads)
        };
        self.attend(hidden, [key, value], mask.clone(), shape)
    }

    /// Of a decoder's texts to the encoder's.
    ///
    /// - hidden, out: `[rows, d_model]`; every text of the encoder has as many rows, one after the other
    /// - cache: keeps the keys and values, and the number of the layer in it
    pub fn across(
        &self,
        hidden: Tensor<B, 2>,
        encoded: &Encoded<B>,
        cache: Option<(&mut Seq2SeqCache<B>, usize)>,
    ) -> Tensor<B, 2> {
        let ([rows, _], [batch, seq]) = (hidden.dims(), encoded.shape);
        let make = || self.keys(encoded.states.clone());
        let pair = match cache {
            Some((cache, layer)) => cache.of_encoder(layer, make),
            None => make(),
        };
        let shape = AttentionShape {
            queries: rows / batch,
            ..AttentionShape::square(batch, seq, self.heads)
        };
        let mask = AttentionMask {
            bias: encoded.bias.clone(),
            ..AttentionMask::default()
        };
        self.attend(hidden, pair, mask, shape)
    }

    /// Keys and values of states, `[n, heads * d_head]` each.
    fn keys(&self, states: Tensor<B, 2>) -> [Tensor<B, 2>; 2] {
        [
            self.k_proj.forward(states.clone()),
            self.v_proj.forward(states),
        ]
    }

    fn attend(
        &self,
        hidden: Tensor<B, 2>,
        [key, value]: [Tensor<B, 2>; 2],
        mask: AttentionMask<B>,
        shape: AttentionShape,
    ) -> Tensor<B, 2> {
        let query = self.q_proj.forward(hidden);
        let mask = AttentionMask {
            scale: Some(self.scale),
            ..mask
        };
        let context = attention([query, key, value], &mask, shape, self.dropout);
        self.out_proj.forward(context)
    }
}
