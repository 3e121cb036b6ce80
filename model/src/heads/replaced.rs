//! Tells replaced tokens of a text from its own: ELECTRA's discriminator, and the generator that replaces them.
//!
//! Clark et al. 2020, <https://arxiv.org/abs/2003.10555>, with the names of Hugging Face's `ElectraForPreTraining`. In: texts in
//! which a generator has replaced some tokens. Out: a score a token.

use burn::module::Module;
use burn::prelude::*;

use crate::HeadKind;
use crate::families::TokenInput;
use crate::families::bert::BertEncoder;
use crate::families::electra::{Electra, ElectraConfig};
use crate::heads::{Headed, TokenHead};
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
        self.logits_at(input, None)
    }

    /// The same at chosen places of the flattened `[batch * seq]`, `[n]`.
    ///
    /// - at: `[n]`
    pub fn logits_at(&self, input: &TokenInput<B>, at: Option<Tensor<B, 1, Int>>) -> Tensor<B, 1> {
        let states = self.backbone.states(input, at, None);
        let states = self.head.activation.apply(self.head.dense.forward(states));
        self.head.output.forward(states).flatten(0, 1)
    }

    fn electra(&self) -> &Electra<B> {
        match &self.backbone {
            TextBackbone::Electra(electra) => electra,
            _ => panic!("replaced tokens are found by ELECTRA"),
        }
    }
}

/// A masked language model on the tables of a discriminator, of which it has none of its own: they learn from both.
#[derive(Module, Debug)]
pub struct Generator<B: Backend> {
    /// From the width of the tables to that of the states, where they differ.
    pub embeddings_project: Option<Linear<B>>,
    /// The layers.
    pub encoder: BertEncoder<B>,
    /// Scores of tokens.
    pub head: TokenHead<B>,
}

impl<B: Backend> Generator<B> {
    /// Draws a generator; the weights are a function of the backend's seed.
    ///
    /// - config: its own, [`ElectraConfig::generator`]
    pub fn draw(config: &ElectraConfig, draw: &Draw<'_, B>) -> Self {
        let plan = config.plan();
        let draw = &draw.with_std(plan.std);
        Self {
            embeddings_project: plan.project(draw),
            encoder: plan.encoder(draw),
            head: TokenHead::new(&TextConfig::Electra(config.clone()), &draw.inside("head")),
        }
    }

    /// Scores of the vocabulary at chosen places of the flattened `[batch * seq]`, `[n, vocab_size]`.
    ///
    /// - discriminator: whose tables it reads
    /// - at: `[n]`
    pub fn logits(
        &self,
        discriminator: &ReplacedTokenModel<B>,
        input: &TokenInput<B>,
        at: Tensor<B, 1, Int>,
    ) -> Tensor<B, 2> {
        let tables = discriminator.electra();
        let mut hidden = tables.embeddings.forward(input, None, 0);
        if let Some(project) = &self.embeddings_project {
            hidden = project.forward(hidden);
        }
        let states = self.encoder.forward(hidden, input, 0, None, Some(at));
        self.head
            .decode(self.head.transform(states), || tables.token_table())
    }
}
