//! Fills masks in a pair of segments, and says whether the second follows the first: what BERT was pretrained with.
//!
//! Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>, with the names of Hugging Face's `BertForPreTraining`. In: pairs of
//! segments. Out: scores of tokens and of two classes.

use burn::module::Module;
use burn::prelude::*;

use crate::HeadKind;
use crate::heads::{Headed, TokenHead};
use crate::layers::{Draw, Linear};
use crate::registry::{TextBackbone, TextConfig};

/// Classes of a pair: the second segment follows the first, or it does not.
pub const CLASSES: usize = 2;

/// Scores of tokens, and of pairs.
#[derive(Module, Debug)]
pub struct SentencePairHead<B: Backend> {
    /// Of the states.
    pub tokens: TokenHead<B>,
    /// Of the pooled first token, `[d_model, 2]`.
    pub pairs: Linear<B>,
}

/// A model of pairs of segments.
pub type SentencePairModel<B> = Headed<B, TextBackbone<B>, SentencePairHead<B>>;

impl<B: Backend> SentencePairModel<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn draw(config: &TextConfig, draw: &Draw<'_, B>) -> Self {
        let sizes = config.describe();
        let backbone = config.init(HeadKind::SentencePairs, &draw.inside("backbone"));
        let draw = draw.with_std(sizes.std).inside("head");
        let head = SentencePairHead {
            tokens: TokenHead::new(config, &draw.inside("tokens")),
            pairs: draw.linear("pairs", sizes.d_model, CLASSES),
        };
        Self::new(backbone, head)
    }

    /// Scores of the vocabulary, `[n, vocab_size]`.
    ///
    /// - states: of the backbone at the tokens to predict, `[n, d_model]`
    pub fn token_logits(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        let tokens = &self.head.tokens;
        tokens.decode(tokens.transform(states), || self.backbone.token_table())
    }

    /// Scores of the classes of pairs, `[n, 2]`.
    ///
    /// - states: of the backbone at the first token of each pair, `[n, d_model]`
    pub fn pair_logits(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.pairs.forward(self.backbone.pool(states))
    }
}
