//! Qwen2: Llama's decoder, in which queries, keys and values always have a bias.
//!
//! Yang et al. 2024, <https://arxiv.org/abs/2407.10671>. In: token ids. Out: hidden states.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::Plan;
use crate::families::llama::{self, Biases, DecoderConfig};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::Draw;
use crate::names::{Family, HeadKind, HeadNames};

/// The decoder is Llama's.
pub type Qwen2<B> = llama::Llama<B>;

/// Names of Qwen2 in a bundle.
pub const NAMES: Family = Family {
    model_type: "qwen2",
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "Qwen2Model",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "Qwen2ForCausalLM",
            renames: &[("output.", "lm_head.")],
            aliases: &[("model.embed_tokens.weight", "lm_head.weight")],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "Qwen2ForSequenceClassification",
            renames: &[("output.", "score.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::TokenClasses,
            class: "Qwen2ForTokenClassification",
            renames: &[("output.", "score.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Spans,
            class: "Qwen2ForQuestionAnswering",
            renames: &[("output.", "qa_outputs.")],
            aliases: &[],
        },
    ],
    fixed: &[
        ("token_classification_bias", "true"),
        ("use_sliding_window", "false"),
        ("quantization_config", "null"),
    ],
    ..llama::NAMES
};

/// `config.json` of a Qwen2 model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Qwen2Config {
    /// Llama's keys, without those for biases.
    #[serde(flatten)]
    pub decoder: DecoderConfig,
}

impl Qwen2Config {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        self.decoder.check()
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Plan {
        self.decoder.describe()
    }

    /// Sets the dropout, which is on the attention probabilities alone.
    pub fn set_dropout(&mut self, rate: f64) {
        self.decoder.set_dropout(rate);
    }

    /// Sets the number of layers.
    pub fn set_layers(&mut self, layers: usize) {
        self.decoder.num_hidden_layers = layers;
    }

    /// Fits the model to a tokenizer.
    pub fn set_vocabulary(&mut self, vocab_size: usize, pad: u32) {
        self.decoder.set_vocabulary(vocab_size, pad);
    }

    /// How tokens are scored: by the token table where both are tied, else by weights of the head.
    pub fn token_plan(&self) -> TokenPlan {
        self.decoder.token_plan()
    }

    /// How the whole input is classified: from the last token.
    pub fn class_plan(&self) -> ClassPlan {
        self.decoder.class_plan()
    }

    /// Draws a decoder; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, _: HeadKind, draw: &Draw<'_, B>) -> Qwen2<B> {
        let biases = Biases {
            inputs: true,
            output: false,
            feed_forward: false,
        };
        self.decoder.init(biases, draw)
    }
}
