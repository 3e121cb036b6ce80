//! RoBERTa: BERT's encoder with another table of positions and another head.
//!
//! Liu et al. 2019, <https://arxiv.org/abs/1907.11692>. In: token ids. Out: hidden states.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::bert::{self, BertConfig, EncoderPlan};
use crate::families::{Place, Plan};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::Draw;
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::Activation;

/// The encoder is BERT's.
pub type Roberta<B> = bert::Bert<B>;

/// Names of RoBERTa in a bundle.
pub const NAMES: Family = Family {
    model_type: "roberta",
    prefix: "roberta.",
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "RobertaModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "RobertaForMaskedLM",
            renames: &[
                ("dense.", "lm_head.dense."),
                ("norm.", "lm_head.layer_norm."),
                ("bias", "lm_head.bias"),
                ("output.", "lm_head.decoder."),
            ],
            aliases: &[
                ("lm_head.bias", "lm_head.decoder.bias"),
                ("lm_head.decoder.bias", "lm_head.bias"),
                (
                    "roberta.embeddings.word_embeddings.weight",
                    "lm_head.decoder.weight",
                ),
            ],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "RobertaForSequenceClassification",
            renames: &[
                ("dense.", "classifier.dense."),
                ("output.", "classifier.out_proj."),
            ],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::TokenClasses,
            class: "RobertaForTokenClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Spans,
            class: "RobertaForQuestionAnswering",
            renames: &[("output.", "qa_outputs.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Choices,
            class: "RobertaForMultipleChoice",
            renames: &[("score.output.", "classifier.")],
            aliases: &[],
        },
    ],
    defaults: &[("pad_token_id", "1")],
    ..bert::NAMES
};

/// `config.json` of a RoBERTa model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RobertaConfig {
    /// BERT's keys, with other defaults where `config.json` leaves them out.
    #[serde(flatten)]
    pub encoder: BertConfig,
}

impl RobertaConfig {
    /// Positions are counted from behind the padding token's.
    fn first_position(&self) -> usize {
        self.encoder.pad_token_id + 1
    }

    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        self.encoder.check()?;
        let (positions, first) = (self.encoder.max_position_embeddings, self.first_position());
        if positions <= first {
            return Err(format!(
                "max_position_embeddings is {positions}, and the first token has position {first}"
            ));
        }
        Ok(())
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Plan {
        let plan = self.encoder.describe();
        Plan {
            positions: plan.positions.saturating_sub(self.first_position()),
            ..plan
        }
    }

    /// Sets every dropout to one rate.
    pub fn set_dropout(&mut self, rate: f64) {
        self.encoder.set_dropout(rate);
    }

    /// Sets the number of layers.
    pub fn set_layers(&mut self, layers: usize) {
        self.encoder.set_layers(layers);
    }

    /// Fits the model to a tokenizer.
    pub fn set_vocabulary(&mut self, vocab_size: usize, pad: u32) {
        self.encoder.set_vocabulary(vocab_size, pad);
    }

    /// How tokens are scored: a transform, then the token table. The activation is always GELU.
    pub fn token_plan(&self) -> TokenPlan {
        TokenPlan {
            transform: Some(Activation::Gelu),
            ..self.encoder.token_plan()
        }
    }

    /// How the whole input is classified: from the first token, through a layer that belongs to the head.
    pub fn class_plan(&self) -> ClassPlan {
        let rate = self.encoder.class_plan().dropout[1];
        ClassPlan {
            dense: Some(Activation::Tanh),
            place: Place::First,
            bias: true,
            dropout: [rate, rate],
            token_dropout: rate,
            span_dropout: 0.0,
            // Unlike BERT, it looks at no other key.
            choice_dropout: self.encoder.hidden_dropout_prob,
        }
    }

    /// Draws an encoder; the weights are a function of the backend's seed.
    ///
    /// - head: a model that chooses wants a pooler, the others have none
    pub fn init<B: Backend>(&self, head: HeadKind, draw: &Draw<'_, B>) -> Roberta<B> {
        let plan = self
            .encoder
            .plan()
            .unwrap_or_else(|reason| panic!("{reason}"));
        let plan = EncoderPlan {
            first_position: self.first_position(),
            ..plan
        };
        let pooler = match head {
            HeadKind::Choices => true,
            HeadKind::Bare
            | HeadKind::Tokens
            | HeadKind::SentencePairs
            | HeadKind::Replaced
            | HeadKind::Classes
            | HeadKind::TokenClasses
            | HeadKind::Spans
            | HeadKind::Pixels
            | HeadKind::Variational
            | HeadKind::Codes
            | HeadKind::Patches
            | HeadKind::Masks
            | HeadKind::Boxes => false,
        };
        plan.init(pooler, draw)
    }
}
