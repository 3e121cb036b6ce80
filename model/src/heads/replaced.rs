//! Tells replaced tokens of a text from its own: ELECTRA's discriminator.
//!
//! Clark et al. 2020, <https://arxiv.org/abs/2003.10555>, with the names of Hugging Face's `ElectraForPreTraining`. In: texts in
//! which a generator has replaced some tokens. Out: a score a token.

use burn::module::Module;
use burn::prelude::*;

use crate::HeadKind;
use crate::families::TokenInput;
use crate::heads::Headed;
use crate::layers::{Draw, Linear};
use crate::ops::Activation;
use crate::registry::{TextBackbone, TextConfig};

/// A score of each token.
#[derive(Module, Debug)]
pub struct ReplacedHead<B: Backend> {
    /// `[d_model, d_model]`
    pub dense: Linear<B>,
    /// `[d_model, 1]`
    pub output: Linear<B>,
    activation: Activation,
}

/// A model that finds replaced tokens.
pub type ReplacedTokenModel<B> = Headed<B, TextBackbone<B>, ReplacedHead<B>>;

impl<B: Backend> ReplacedTokenModel<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    ///
    /// # Panics
    ///
    /// If the family is not ELECTRA; [`crate::names::Family::head`] says so.
    pub fn draw(config: &TextConfig, draw: &Draw<'_, B>) -> Self {
        let TextConfig::Electra(electra) = config else {
            panic!("replaced tokens are found by ELECTRA");
        };
        let (d_model, activation) = (config.describe().d_model, electra.activation());
        let backbone = config.init(HeadKind::Replaced, &draw.inside("backbone"));
        let draw = draw.with_std(config.describe().std).inside("head");
        let head = ReplacedHead {
            dense: draw.linear("dense", d_model, d_model),
            output: draw.linear("output", d_model, 1),
            activation: activation.unwrap_or_else(|reason| panic!("{reason}")),
        };
        Self::new(backbone, head)
    }

    /// Logits of having been replaced, `[batch * seq]`; those at padding have no meaning.
    pub fn logits(&self, input: &TokenInput<B>) -> Tensor<B, 1> {
        let states = self.backbone.states(input, None, None);
        let states = self.head.activation.apply(self.head.dense.forward(states));
        self.head.output.forward(states).flatten(0, 1)
    }
}
