//! ELECTRA: BERT's encoder on tables that may be narrower than its states, as a generator, a discriminator or a classifier.
//!
//! Clark et al. 2020, <https://arxiv.org/abs/2003.10555>. In: token ids. Out: hidden states.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::bert::{self, BertConfig, EncoderPlan};
use crate::families::{Place, Plan, check_sizes};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::Draw;
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::Activation;

/// The encoder is BERT's.
pub type Electra<B> = bert::Bert<B>;

/// Names of ELECTRA in a bundle.
pub const NAMES: Family = Family {
    model_type: "electra",
    prefix: "electra.",
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "ElectraModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "ElectraForMaskedLM",
            renames: &[
                ("dense.", "generator_predictions.dense."),
                ("norm.", "generator_predictions.LayerNorm."),
                ("bias", "generator_lm_head.bias"),
                ("output.", "generator_lm_head."),
            ],
            aliases: &[(
                "electra.embeddings.word_embeddings.weight",
                "generator_lm_head.weight",
            )],
        },
        HeadNames {
            kind: HeadKind::Replaced,
            class: "ElectraForPreTraining",
            renames: &[
                ("dense.", "discriminator_predictions.dense."),
                ("output.", "discriminator_predictions.dense_prediction."),
            ],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "ElectraForSequenceClassification",
            renames: &[
                ("dense.", "classifier.dense."),
                ("output.", "classifier.out_proj."),
            ],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::TokenClasses,
            class: "ElectraForTokenClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Spans,
            class: "ElectraForQuestionAnswering",
            renames: &[("output.", "qa_outputs.")],
            aliases: &[],
        },
    ],
    optional: &[],
    ..bert::NAMES
};

/// `config.json` of an ELECTRA model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ElectraConfig {
    /// BERT's keys.
    #[serde(flatten)]
    pub encoder: BertConfig,
    /// Width of the tables; a projection follows them where it is not `hidden_size`.
    #[serde(default = "narrow")]
    pub embedding_size: usize,
}

fn narrow() -> usize {
    128
}

impl ElectraConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[("embedding_size", self.embedding_size)])?;
        self.encoder.check()
    }

    /// That of the feed-forward blocks and of the discriminator.
    ///
    /// # Errors
    ///
    /// The name of one that is not known.
    pub fn activation(&self) -> Result<Activation, String> {
        Ok(self.encoder.plan()?.activation)
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Plan {
        let BertConfig {
            vocab_size,
            max_position_embeddings,
            type_vocab_size,
            hidden_size,
            ..
        } = self.encoder;
        let plan = self.encoder.describe();
        // In floats: absurd sizes overflow every integer.
        let vectors = [vocab_size, max_position_embeddings, type_vocab_size].map(|n| n as f64);
        let (wide, narrow) = (hidden_size as f64, self.embedding_size as f64);
        let tables: f64 = vectors.iter().sum();
        Plan {
            parameters: plan.parameters + tables * (narrow - wide) + narrow * wide,
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

    /// How tokens are scored: a transform to the width of the token table, then that table. The activation is always GELU.
    pub fn token_plan(&self) -> TokenPlan {
        TokenPlan {
            width: self.embedding_size,
            transform: Some(Activation::Gelu),
            ..self.encoder.token_plan()
        }
    }

    /// How the whole input is classified: from the first token, through a layer that belongs to the head. The activation is
    /// always GELU.
    pub fn class_plan(&self) -> ClassPlan {
        let rate = self.encoder.class_plan().dropout[1];
        ClassPlan {
            dense: Some(Activation::Gelu),
            place: Place::First,
            bias: true,
            dropout: [rate, rate],
            token_dropout: rate,
            span_dropout: 0.0,
            choice_dropout: 0.0,
        }
    }

    /// That of a generator of as many layers, whose width, heads and feed-forward width are this share of a discriminator's,
    /// rounded; it reads the same tables.
    ///
    /// # Errors
    ///
    /// Sizes that are impossible.
    pub fn generator(&self, share: f64) -> Result<Self, String> {
        let part = |size: usize| ((size as f64 * share).round() as usize).max(1);
        let mut generator = self.clone();
        let sizes = &mut generator.encoder;
        sizes.hidden_size = part(sizes.hidden_size);
        sizes.num_attention_heads = part(sizes.num_attention_heads);
        sizes.intermediate_size = part(sizes.intermediate_size);
        generator.check()?;
        Ok(generator)
    }

    /// What it shares with BERT, of these sizes.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) finds them impossible.
    pub(crate) fn plan(&self) -> EncoderPlan {
        let plan = self.encoder.plan();
        EncoderPlan {
            d_embedding: self.embedding_size,
            ..plan.unwrap_or_else(|reason| panic!("{reason}"))
        }
    }

    /// Draws an encoder without a pooler; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, _: HeadKind, draw: &Draw<'_, B>) -> Electra<B> {
        self.plan().init(false, draw)
    }
}
