//! Language models of recurrent layers: LSTM, and GRU is made of it too. PyTorch's layers, names and layout, under a type of
//! our own.
//!
//! Zaremba et al. 2014, <https://arxiv.org/abs/1409.2329>, from whom the places of dropout are; tied tables as Press and Wolf 2016
//! have them, <https://arxiv.org/abs/1608.05859>. In: token ids. Out: states of the last layer.
//!
//! In PyTorch: `embed_tokens = nn.Embedding(..)`, `rnn = nn.LSTM(.., batch_first=True)`, `lm_head = nn.Linear(..)`. Every row of a
//! batch begins with a state of zero, and so does every text of a row that holds several. States go on from tokens to later
//! tokens in a [`Cache`] alone: from one token to the next where a text is continued, and from one batch to the next where
//! training carries them.

use burn::module::{Initializer, Module, Param};
use burn::nn::Embedding;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::families::{Place, Plan, TokenInput, check_dropout, check_sizes};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::Draw;
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::dropout;
use crate::ops::half::look_up;
use crate::ops::recurrent::{Cell, Span, recurrent};

/// Names of an LSTM in a bundle.
pub const NAMES: Family = Family {
    model_type: "hearth_lstm",
    prefix: "",
    prefix_of_spans: "",
    renames: &[
        (".weight_ih.", ".weight_ih_l"),
        (".weight_hh.", ".weight_hh_l"),
        (".bias_ih.", ".bias_ih_l"),
        (".bias_hh.", ".bias_hh_l"),
    ],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "HearthLstm",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "HearthLstmForCausalLM",
            renames: TOKENS,
            aliases: TIED,
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "HearthLstmForSequenceClassification",
            renames: CLASSES,
            aliases: &[],
        },
    ],
    layer: "_l",
    tables: &["embed_tokens."],
    token_table: "embed_tokens.weight",
    ignored: &[],
    optional: &[],
    fixed: &[("quantization_config", "null")],
    defaults: &[],
    adapter_targets: &[],
    bottleneck_targets: &[],
    virtual_tokens: false,
    fan_in_fan_out: false,
    first: "",
    positions: "",
    torchvision: None,
};

/// Names of the head of a language model.
pub(crate) const TOKENS: &[(&str, &str)] = &[("bias", "lm_head.bias"), ("output.", "lm_head.")];
/// The token table's other name, where it is the decoder.
pub(crate) const TIED: &[(&str, &str)] = &[("embed_tokens.weight", "lm_head.weight")];
/// Names of the head of a classifier.
pub(crate) const CLASSES: &[(&str, &str)] = &[("output.", "score.")];

/// `config.json` of an LSTM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LstmConfig {
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Width of the token table.
    pub embedding_size: usize,
    /// Units of a layer, d_model.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Dropout after the embeddings and after each layer.
    #[serde(default)]
    pub dropout: f64,
    /// Standard deviation of the initial weights of token table and head; those of the layers are drawn as PyTorch does it.
    #[serde(default = "standard_deviation")]
    pub initializer_range: f64,
    /// Whether the token table is the decoder too; both widths must be equal then.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Id of the padding token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<usize>,
    /// Id of the token that begins a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<usize>,
    /// Id of the token that ends a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<usize>,
}

fn standard_deviation() -> f64 {
    0.05
}

impl LstmConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let (embedding, hidden) = (self.embedding_size, self.hidden_size);
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("embedding_size", embedding),
            ("hidden_size", hidden),
            ("num_hidden_layers", self.num_hidden_layers),
        ])?;
        check_dropout(&[self.dropout])?;
        if self.tie_word_embeddings && embedding != hidden {
            return Err(format!(
                "tie_word_embeddings needs embedding_size and hidden_size to be equal; they are {embedding} and {hidden}"
            ));
        }
        let deviation = self.initializer_range;
        if !(deviation.is_finite() && deviation >= 0.0) {
            return Err(format!(
                "initializer_range is {deviation}; it must be 0 or more"
            ));
        }
        Ok(())
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Plan {
        self.plan(Cell::Lstm)
    }

    /// Layers, and the values that each leaves of a row for the tokens to come.
    pub(crate) fn states(&self, cell: Cell) -> [usize; 2] {
        [self.num_hidden_layers, cell.states() * self.hidden_size]
    }

    pub(crate) fn plan(&self, cell: Cell) -> Plan {
        // In floats: absurd sizes overflow every integer.
        let [vocab_size, embedding, hidden, layers] = [
            self.vocab_size,
            self.embedding_size,
            self.hidden_size,
            self.num_hidden_layers,
        ]
        .map(|n| n as f64);
        let rows = cell.gates() as f64 * hidden;
        let decoder = if self.tie_word_embeddings {
            0.0
        } else {
            hidden
        };
        Plan {
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            layers: self.num_hidden_layers,
            // No text is too long; places in a batch are counted by 32 bits.
            positions: i32::MAX as usize,
            causal: true,
            segments: 0,
            std: self.initializer_range,
            parameters: vocab_size * (embedding + decoder + 1.0)
                + rows * (embedding + hidden + 2.0)
                + (layers - 1.0) * rows * (2.0 * hidden + 2.0),
        }
    }

    /// Sets every dropout to one rate.
    pub fn set_dropout(&mut self, rate: f64) {
        self.dropout = rate;
    }

    /// Sets the number of layers.
    pub fn set_layers(&mut self, layers: usize) {
        self.num_hidden_layers = layers;
    }

    /// Fits the model to a tokenizer.
    pub fn set_vocabulary(&mut self, vocab_size: usize, pad: u32) {
        self.vocab_size = vocab_size;
        self.pad_token_id = Some(pad as usize);
    }

    /// How tokens are scored: by the token table where both are tied, else by weights of the head; with a bias.
    pub fn token_plan(&self) -> TokenPlan {
        TokenPlan {
            width: self.hidden_size,
            transform: None,
            epsilon: 0.0,
            bias: true,
            tied: self.tie_word_embeddings,
        }
    }

    /// How the whole input is classified: from the last token.
    pub fn class_plan(&self) -> ClassPlan {
        ClassPlan {
            dense: None,
            place: Place::Last,
            bias: true,
            dropout: [0.0, 0.0],
            token_dropout: 0.0,
            span_dropout: 0.0,
            choice_dropout: 0.0,
        }
    }

    /// Draws the layers; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, _: HeadKind, draw: &Draw<'_, B>) -> Lstm<B> {
        self.drawn(Cell::Lstm, draw)
    }

    pub(crate) fn drawn<B: Backend>(&self, cell: Cell, draw: &Draw<'_, B>) -> Lstm<B> {
        let (hidden, rows) = (self.hidden_size, cell.gates() * self.hidden_size);
        let k = 1.0 / (hidden as f64).sqrt();
        let uniform = Initializer::Uniform { min: -k, max: k };
        let layers = || 0..self.num_hidden_layers;
        let width = |layer: usize| {
            if layer == 0 {
                self.embedding_size
            } else {
                hidden
            }
        };
        let weight = |width| uniform.init([rows, width], draw.device);
        let bias = |_| uniform.init([rows], draw.device);
        Lstm {
            embed_tokens: draw
                .with_std(self.initializer_range)
                .embedding(self.vocab_size, self.embedding_size),
            rnn: Layers {
                weight_ih: layers().map(|layer| weight(width(layer))).collect(),
                weight_hh: layers().map(|_| weight(hidden)).collect(),
                bias_ih: layers().map(bias).collect(),
                bias_hh: layers().map(bias).collect(),
                cell,
            },
            dropout: self.dropout,
        }
    }
}

/// A token table and recurrent layers.
#[derive(Module, Debug)]
pub struct Lstm<B: Backend> {
    /// `[vocab_size, embedding_size]`
    pub embed_tokens: Embedding<B>,
    /// The layers.
    pub rnn: Layers<B>,
    dropout: f64,
}

impl<B: Backend> Lstm<B> {
    /// States of the last layer, `[n, d_model]`: at all places of the flattened `[batch * seq]`, or at chosen ones.
    ///
    /// - at: `[n]`
    /// - cache: what was read before these tokens
    pub fn states(
        &self,
        input: &TokenInput<B>,
        at: Option<Tensor<B, 1, Int>>,
        mut cache: Option<&mut Cache<B>>,
    ) -> Tensor<B, 2> {
        let [batch, seq] = input.tokens.dims();
        let [_, width] = self.embed_tokens.weight.dims();
        let (tokens, dtype) = (input.tokens.clone(), self.rnn.bias_ih[0].dtype());
        let words = look_up(&self.embed_tokens, tokens, dtype);
        let mut hidden = dropout(words.reshape([batch * seq, width]), self.dropout);
        let keep = input.texts.clone().map(|texts| continues(texts, &hidden));
        for layer in 0..self.rnn.weight_ih.len() {
            let left = cache.as_deref().map(|cache| cache.state(layer));
            let zeros = || self.rnn.zeros(batch, &hidden);
            let span = Span {
                batch,
                seq,
                keep: keep.clone(),
                state: left.map(|left| left.unwrap_or_else(zeros)),
            };
            let (states, left) = self.rnn.forward(layer, hidden, span);
            if let (Some(cache), Some(left)) = (cache.as_deref_mut(), left) {
                cache.set_state(layer, left);
            }
            hidden = dropout(states, self.dropout);
        }
        if let Some(cache) = cache {
            cache.advance(seq);
        }
        match at {
            Some(at) => hidden.select(0, at),
            None => hidden,
        }
    }

    /// What a classifier reads of each text, `[batch, d_model]`: there is no pooler.
    ///
    /// - at: `[batch]`, of each text's last token
    pub fn class_states(&self, input: &TokenInput<B>, at: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.states(input, Some(at), None)
    }

    /// What a classifier reads of the states of one token a text: the states.
    pub fn pool(&self, state: Tensor<B, 2>) -> Tensor<B, 2> {
        state
    }

    /// `[vocab_size, embedding_size]`
    pub fn token_table(&self) -> Tensor<B, 2> {
        self.embed_tokens.weight.val()
    }
}

/// 0 where a text begins and 1 elsewhere, of the type of `like`; `[batch, seq]` in and out.
fn continues<B: Backend>(texts: Tensor<B, 2, Int>, like: &Tensor<B, 2>) -> Tensor<B, 2> {
    let [batch, seq] = texts.dims();
    let first = Tensor::ones([batch, 1], &like.device());
    let before = texts.clone().narrow(1, 0, seq - 1);
    let others = texts.narrow(1, 1, seq - 1).equal(before).float();
    Tensor::cat(vec![first, others], 1).cast(like.dtype())
}

/// The layers with PyTorch's names and layout; of every list one a layer, the first layer first.
#[derive(Module, Debug)]
pub struct Layers<B: Backend> {
    /// `[gates * d_model, width of the layer's input]`
    pub weight_ih: Vec<Param<Tensor<B, 2>>>,
    /// `[gates * d_model, d_model]`
    pub weight_hh: Vec<Param<Tensor<B, 2>>>,
    /// `[gates * d_model]`
    pub bias_ih: Vec<Param<Tensor<B, 1>>>,
    /// `[gates * d_model]`
    pub bias_hh: Vec<Param<Tensor<B, 1>>>,
    cell: Cell,
}

impl<B: Backend> Layers<B> {
    fn forward(
        &self,
        layer: usize,
        x: Tensor<B, 2>,
        span: Span<B>,
    ) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
        let weights = [&self.weight_ih, &self.weight_hh].map(|all| all[layer].val());
        let biases = [&self.bias_ih, &self.bias_hh].map(|all| all[layer].val());
        recurrent(self.cell, x, weights, biases, span)
    }

    /// Before any token.
    fn zeros(&self, batch: usize, like: &Tensor<B, 2>) -> Tensor<B, 2> {
        let [_, d_model] = self.weight_hh[0].dims();
        let shape = [batch, self.cell.states() * d_model];
        Tensor::zeros(shape, (&like.device(), like.dtype()))
    }
}
