//! GRU: the language model of [`lstm`], of other units.
//!
//! Cho et al. 2014, <https://arxiv.org/abs/1406.1078>, as PyTorch has them. In: token ids. Out: states of the last layer.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::Plan;
use crate::families::lstm::{self, LstmConfig};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::Draw;
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::recurrent::Cell;

/// The model is that of the LSTM.
pub type Gru<B> = lstm::Lstm<B>;

/// Names of a GRU in a bundle.
pub const NAMES: Family = Family {
    model_type: "hearth_gru",
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "HearthGru",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "HearthGruForCausalLM",
            renames: lstm::TOKENS,
            aliases: lstm::TIED,
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "HearthGruForSequenceClassification",
            renames: lstm::CLASSES,
            aliases: &[],
        },
    ],
    ..lstm::NAMES
};

/// `config.json` of a GRU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GruConfig {
    /// The LSTM's keys.
    #[serde(flatten)]
    pub layers: LstmConfig,
}

impl GruConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        self.layers.check()
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Plan {
        self.layers.plan(Cell::Gru)
    }

    /// Sets every dropout to one rate.
    pub fn set_dropout(&mut self, rate: f64) {
        self.layers.set_dropout(rate);
    }

    /// Sets the number of layers.
    pub fn set_layers(&mut self, layers: usize) {
        self.layers.set_layers(layers);
    }

    /// Fits the model to a tokenizer.
    pub fn set_vocabulary(&mut self, vocab_size: usize, pad: u32) {
        self.layers.set_vocabulary(vocab_size, pad);
    }

    /// How tokens are scored: by the token table where both are tied, else by weights of the head; with a bias.
    pub fn token_plan(&self) -> TokenPlan {
        self.layers.token_plan()
    }

    /// How the whole input is classified: from the last token.
    pub fn class_plan(&self) -> ClassPlan {
        self.layers.class_plan()
    }

    /// Draws the layers; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, _: HeadKind, draw: &Draw<'_, B>) -> Gru<B> {
        self.layers.drawn(Cell::Gru, draw)
    }
}
