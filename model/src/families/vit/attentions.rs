//! Attention weights of the encoder, for looking at. In: images. Out: the probabilities of each layer and head.
//!
//! Attention itself keeps no probabilities: here the same layers run, and queries and keys are multiplied once more.

use burn::prelude::*;

use super::{Layer, ViT};
use crate::ops::{AttentionMask, AttentionShape, attention_weights};

/// How the tokens of images look at each other: the class token, then the patches row by row.
#[derive(Clone, Debug)]
pub struct PatchAttentions<B: Backend> {
    /// `[batch, heads, seq, seq]` a layer, the first layer first; rows sum to 1.
    pub layers: Vec<Tensor<B, 4>>,
    /// Rows and columns of patches.
    pub grid: [usize; 2],
    /// Height and width of a patch, in pixels.
    pub patch: [usize; 2],
}

impl<B: Backend> ViT<B> {
    /// How much each patch looks at each other one.
    ///
    /// - images: `[batch, num_channels, height, width]`, of any size that holds a patch
    pub fn attentions(&self, images: Tensor<B, 4>) -> PatchAttentions<B> {
        let [.., height, width] = self.embeddings.patch_embeddings.projection.weight.dims();
        let (patches, grid) = self.patches(images);
        let tokens = self.with_class_token(patches + self.positions(grid));
        let [batch, n, d_model] = tokens.dims();
        let mut states = tokens.reshape([batch * n, d_model]);
        let layers = self.encoder.layer.iter();
        let weights = layers.map(|layer| {
            let weights = layer.weights(states.clone(), [batch, n]);
            states = layer.forward(states.clone(), [batch, n]);
            weights
        });
        PatchAttentions {
            layers: weights.collect(),
            grid,
            patch: [height, width],
        }
    }
}

impl<B: Backend> Layer<B> {
    /// - states: `[batch * seq, d_model]`
    /// - out: `[batch, heads, seq, seq]`
    fn weights(&self, states: Tensor<B, 2>, [batch, seq]: [usize; 2]) -> Tensor<B, 4> {
        let normal = self.layernorm_before.forward(states);
        let projections = &self.attention.attention;
        let pair = [
            projections.query.forward(normal.clone()),
            projections.key.forward(normal),
        ];
        let shape = AttentionShape::square(batch, seq, self.heads);
        attention_weights(pair, &AttentionMask::default(), shape)
    }
}
