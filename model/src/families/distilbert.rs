//! DistilBERT: BERT's encoder without segments and pooler, under other names.
//!
//! Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>. In: token ids. Out: hidden states.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::bert::{self, EncoderPlan, encoder_parameters};
use crate::families::{Place, Plan, check_sizes};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::Draw;
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::Activation;

/// The encoder is BERT's.
pub type DistilBert<B> = bert::Bert<B>;

/// Names of DistilBERT in a bundle.
pub const NAMES: Family = Family {
    model_type: "distilbert",
    prefix: "distilbert.",
    prefix_of_spans: "",
    renames: &[
        (".encoder.layer.", ".transformer.layer."),
        (".attention.self_attention.query.", ".attention.q_lin."),
        (".attention.self_attention.key.", ".attention.k_lin."),
        (".attention.self_attention.value.", ".attention.v_lin."),
        (".attention.output.dense.", ".attention.out_lin."),
        (".attention.output.layer_norm.", ".sa_layer_norm."),
        (".intermediate.dense.", ".ffn.lin1."),
        (".output.dense.", ".ffn.lin2."),
        (".output.layer_norm.", ".output_layer_norm."),
        (".embeddings.layer_norm.", ".embeddings.LayerNorm."),
    ],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "DistilBertModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "DistilBertForMaskedLM",
            renames: &[
                ("dense.", "vocab_transform."),
                ("norm.", "vocab_layer_norm."),
                ("bias", "vocab_projector.bias"),
                ("output.", "vocab_projector."),
            ],
            aliases: &[(
                "distilbert.embeddings.word_embeddings.weight",
                "vocab_projector.weight",
            )],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "DistilBertForSequenceClassification",
            renames: &[("dense.", "pre_classifier."), ("output.", "classifier.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::TokenClasses,
            class: "DistilBertForTokenClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Spans,
            class: "DistilBertForQuestionAnswering",
            renames: &[("output.", "qa_outputs.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Choices,
            class: "DistilBertForMultipleChoice",
            renames: &[
                ("score.dense.", "pre_classifier."),
                ("score.output.", "classifier."),
            ],
            aliases: &[],
        },
    ],
    layer: "transformer.layer.",
    tables: &["embeddings"],
    token_table: "embeddings.word_embeddings.weight",
    ignored: &["embeddings.position_ids"],
    optional: &[],
    fixed: &[("pruned_heads", "{}"), ("quantization_config", "null")],
    defaults: &[],
    adapter_targets: &["q_lin", "v_lin"],
    bottleneck_targets: &["ffn.lin2"],
    virtual_tokens: true,
    fan_in_fan_out: false,
    first: "",
    positions: "",
    torchvision: None,
};

/// `config.json` of a DistilBERT model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistilBertConfig {
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Width of the hidden states, d_model.
    pub dim: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Attention heads a layer; divides `dim`.
    pub n_heads: usize,
    /// Width between the two feed-forward projections.
    pub hidden_dim: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward block.
    #[serde(default = "gelu")]
    pub activation: String,
    /// Dropout after the embeddings and after each block.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// Dropout on the attention probabilities.
    #[serde(default = "tenth")]
    pub attention_dropout: f64,
    /// Dropout before the classifier.
    #[serde(default = "fifth")]
    pub seq_classif_dropout: f64,
    /// Dropout before the layer that finds answers.
    #[serde(default = "tenth", skip_serializing_if = "is_tenth")]
    pub qa_dropout: f64,
    /// Standard deviation of the initial weights.
    #[serde(default = "standard_deviation")]
    pub initializer_range: f64,
    /// Id of the padding token.
    #[serde(default)]
    pub pad_token_id: usize,
    /// Whether the token table is the decoder of masked LM too.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
}

fn gelu() -> String {
    "gelu".into()
}
fn tenth() -> f64 {
    0.1
}
fn is_tenth(rate: &f64) -> bool {
    *rate == tenth()
}
fn fifth() -> f64 {
    0.2
}
fn standard_deviation() -> f64 {
    0.02
}
fn yes() -> bool {
    true
}

/// Of every layer norm.
const EPSILON: f64 = 1e-12;

impl DistilBertConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("dim", self.dim),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("hidden_dim", self.hidden_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        crate::families::check_dropout(&[self.seq_classif_dropout, self.qa_dropout])?;
        self.plan()?.check()
    }

    fn plan(&self) -> Result<EncoderPlan, String> {
        Ok(EncoderPlan {
            vocab_size: self.vocab_size,
            d_model: self.dim,
            d_embedding: self.dim,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            d_ff: self.hidden_dim,
            positions: self.max_position_embeddings,
            first_position: 0,
            segments: 0,
            activation: Activation::named(&self.activation)
                .map_err(|reason| format!("activation: {reason}"))?,
            dropout: self.dropout,
            attention_dropout: self.attention_dropout,
            std: self.initializer_range,
            epsilon: EPSILON,
        })
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Plan {
        Plan {
            vocab_size: self.vocab_size,
            d_model: self.dim,
            layers: self.n_layers,
            positions: self.max_position_embeddings,
            causal: false,
            segments: 0,
            std: self.initializer_range,
            parameters: encoder_parameters(
                self.vocab_size + self.max_position_embeddings,
                self.dim,
                self.n_layers,
                self.hidden_dim,
            ),
        }
    }

    /// Sets every dropout to one rate.
    pub fn set_dropout(&mut self, rate: f64) {
        self.dropout = rate;
        self.attention_dropout = rate;
        self.seq_classif_dropout = rate;
        self.qa_dropout = rate;
    }

    /// Sets the number of layers.
    pub fn set_layers(&mut self, layers: usize) {
        self.n_layers = layers;
    }

    /// Fits the model to a tokenizer.
    pub fn set_vocabulary(&mut self, vocab_size: usize, pad: u32) {
        self.vocab_size = vocab_size;
        self.pad_token_id = pad as usize;
    }

    /// How tokens are scored: a transform, then the token table.
    pub fn token_plan(&self) -> TokenPlan {
        TokenPlan {
            width: self.dim,
            transform: Activation::named(&self.activation).ok(),
            epsilon: EPSILON,
            bias: true,
            tied: self.tie_word_embeddings,
        }
    }

    /// How the whole input is classified: from the first token, through a layer that belongs to the head.
    pub fn class_plan(&self) -> ClassPlan {
        ClassPlan {
            dense: Some(Activation::Relu),
            place: Place::First,
            bias: true,
            dropout: [0.0, self.seq_classif_dropout],
            token_dropout: self.dropout,
            span_dropout: self.qa_dropout,
            choice_dropout: self.seq_classif_dropout,
        }
    }

    /// Draws an encoder; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, _: HeadKind, draw: &Draw<'_, B>) -> DistilBert<B> {
        let plan = self.plan().unwrap_or_else(|reason| panic!("{reason}"));
        plan.init(false, draw)
    }
}
