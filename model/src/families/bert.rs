//! The BERT encoder, post-norm, with the names and layout of Hugging Face's `BertModel`; RoBERTa, DistilBERT and
//! ELECTRA are made of it too.
//!
//! Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>. In: token ids. Out: hidden states.

mod attentions;

use burn::nn::Embedding;
use burn::prelude::*;
use burn::tensor::activation::tanh;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::families::{Place, Plan, TokenInput, check_dropout, check_heads, check_sizes};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::virtual_tokens::{self, VirtualTokens};
use crate::layers::{Draw, LayerNorm, Linear};
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::half::look_up;
use crate::ops::{Activation, AttentionMask, AttentionShape, attention, dropout};

/// Of what scores tokens.
const TOKEN_ALIASES: &[(&str, &str)] = &[
    ("cls.predictions.bias", "cls.predictions.decoder.bias"),
    ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    (
        "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.weight",
    ),
];

/// Names of BERT in a bundle.
pub const NAMES: Family = Family {
    model_type: "bert",
    prefix: "bert.",
    prefix_of_spans: "",
    // `self` is a keyword in Rust.
    renames: &[
        (".self_attention.", ".self."),
        (".layer_norm.", ".LayerNorm."),
    ],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "BertModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "BertForMaskedLM",
            renames: &[
                ("dense.", "cls.predictions.transform.dense."),
                ("norm.", "cls.predictions.transform.LayerNorm."),
                ("bias", "cls.predictions.bias"),
                ("output.", "cls.predictions.decoder."),
            ],
            aliases: TOKEN_ALIASES,
        },
        HeadNames {
            kind: HeadKind::SentencePairs,
            class: "BertForPreTraining",
            // First what tells it from masked LM.
            renames: &[
                ("pairs.", "cls.seq_relationship."),
                ("tokens.dense.", "cls.predictions.transform.dense."),
                ("tokens.norm.", "cls.predictions.transform.LayerNorm."),
                ("tokens.bias", "cls.predictions.bias"),
                ("tokens.output.", "cls.predictions.decoder."),
            ],
            aliases: TOKEN_ALIASES,
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "BertForSequenceClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::TokenClasses,
            class: "BertForTokenClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Spans,
            class: "BertForQuestionAnswering",
            renames: &[("output.", "qa_outputs.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Choices,
            class: "BertForMultipleChoice",
            renames: &[("score.output.", "classifier.")],
            aliases: &[],
        },
    ],
    layer: "encoder.layer.",
    tables: &["embeddings"],
    token_table: "embeddings.word_embeddings.weight",
    ignored: &["embeddings.position_ids", "embeddings.token_type_ids"],
    optional: &["pooler."],
    fixed: &[
        ("position_embedding_type", "\"absolute\""),
        ("is_decoder", "false"),
        ("add_cross_attention", "false"),
        ("pruned_heads", "{}"),
        ("quantization_config", "null"),
    ],
    defaults: &[],
    adapter_targets: &["query", "value"],
    bottleneck_targets: &[r".*layer\.\d+\.output\.dense"],
    virtual_tokens: true,
    fan_in_fan_out: false,
    first: "",
    positions: "",
    torchvision: None,
};

/// `config.json` of a BERT model; keys that this encoder does not use are kept out of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BertConfig {
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Width of the hidden states, d_model.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads a layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width between the two feed-forward projections.
    pub intermediate_size: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Number of segments.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// Activation of the feed-forward block.
    #[serde(default = "gelu_name")]
    pub hidden_act: String,
    /// Dropout after the embeddings and after each block.
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout on the attention probabilities.
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Dropout before the classifier, where it is not that of the blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
    /// Standard deviation of the initial weights.
    #[serde(default = "standard_deviation")]
    pub initializer_range: f64,
    /// Epsilon of every layer norm.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// Id of the padding token.
    #[serde(default)]
    pub pad_token_id: usize,
    /// Whether the token table is the decoder of masked LM too.
    #[serde(default = "tied", skip_serializing_if = "is_tied")]
    pub tie_word_embeddings: bool,
}

fn two() -> usize {
    2
}
fn gelu_name() -> String {
    "gelu".into()
}
fn tenth() -> f64 {
    0.1
}
fn standard_deviation() -> f64 {
    0.02
}
fn epsilon() -> f64 {
    1e-12
}
fn tied() -> bool {
    true
}
fn is_tied(tied: &bool) -> bool {
    *tied
}

impl BertConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        self.plan()?.check()?;
        check_dropout(&self.class_plan().dropout)
    }

    /// What families that share this encoder differ in.
    pub(crate) fn plan(&self) -> Result<EncoderPlan, String> {
        Ok(EncoderPlan {
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            d_embedding: self.hidden_size,
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            d_ff: self.intermediate_size,
            positions: self.max_position_embeddings,
            first_position: 0,
            segments: self.type_vocab_size,
            activation: Activation::named(&self.hidden_act)
                .map_err(|reason| format!("hidden_act: {reason}"))?,
            dropout: self.hidden_dropout_prob,
            attention_dropout: self.attention_probs_dropout_prob,
            std: self.initializer_range,
            epsilon: self.layer_norm_eps,
        })
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Plan {
        Plan {
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            layers: self.num_hidden_layers,
            positions: self.max_position_embeddings,
            causal: false,
            segments: self.type_vocab_size,
            std: self.initializer_range,
            parameters: encoder_parameters(
                self.vocab_size + self.max_position_embeddings + self.type_vocab_size,
                self.hidden_size,
                self.num_hidden_layers,
                self.intermediate_size,
            ),
        }
    }

    /// Sets every dropout to one rate.
    pub fn set_dropout(&mut self, rate: f64) {
        self.hidden_dropout_prob = rate;
        self.attention_probs_dropout_prob = rate;
        self.classifier_dropout = None;
    }

    /// Sets the number of layers.
    pub fn set_layers(&mut self, layers: usize) {
        self.num_hidden_layers = layers;
    }

    /// Fits the model to a tokenizer.
    pub fn set_vocabulary(&mut self, vocab_size: usize, pad: u32) {
        self.vocab_size = vocab_size;
        self.pad_token_id = pad as usize;
    }

    /// How tokens are scored: a transform, then the token table.
    pub fn token_plan(&self) -> TokenPlan {
        TokenPlan {
            width: self.hidden_size,
            transform: Activation::named(&self.hidden_act).ok(),
            epsilon: self.layer_norm_eps,
            bias: true,
            tied: self.tie_word_embeddings,
        }
    }

    /// How the whole input is classified: from the pooled first token.
    pub fn class_plan(&self) -> ClassPlan {
        ClassPlan {
            dense: None,
            place: Place::First,
            bias: true,
            dropout: [
                0.0,
                self.classifier_dropout.unwrap_or(self.hidden_dropout_prob),
            ],
            token_dropout: self.classifier_dropout.unwrap_or(self.hidden_dropout_prob),
            span_dropout: 0.0,
            choice_dropout: self.classifier_dropout.unwrap_or(self.hidden_dropout_prob),
        }
    }

    /// Draws an encoder; the weights are a function of the backend's seed.
    ///
    /// - head: what classifies wants a pooler, the others have none
    pub fn init<B: Backend>(&self, head: HeadKind, draw: &Draw<'_, B>) -> Bert<B> {
        let plan = self.plan().unwrap_or_else(|reason| panic!("{reason}"));
        let pooler = match head {
            HeadKind::Classes | HeadKind::Choices | HeadKind::SentencePairs => true,
            HeadKind::Bare
            | HeadKind::Tokens
            | HeadKind::Replaced
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

/// Parameters of an encoder or decoder with this many vectors in its tables.
pub fn encoder_parameters(vectors: usize, d_model: usize, n_layers: usize, d_ff: usize) -> f64 {
    // In floats: absurd sizes overflow every integer. 512 for biases, norms and the structures around them.
    let [vectors, d_model, n_layers, d_ff] = [vectors, d_model, n_layers, d_ff].map(|n| n as f64);
    vectors * d_model + n_layers * (4.0 * d_model * d_model + 2.0 * d_model * d_ff + 512.0)
}

/// Sizes of an encoder of this kind, whatever its family calls them.
#[derive(Clone, Debug)]
pub struct EncoderPlan {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of the tables; a projection follows them where it is not `d_model`.
    pub d_embedding: usize,
    /// Layers.
    pub n_layers: usize,
    /// Heads a layer.
    pub n_heads: usize,
    /// Width between the two feed-forward projections.
    pub d_ff: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// The row of the first token.
    pub first_position: usize,
    /// Rows of the segment table; 0 is none.
    pub segments: usize,
    /// Of the feed-forward block.
    pub activation: Activation,
    /// After the embeddings and each block.
    pub dropout: f64,
    /// On the attention probabilities.
    pub attention_dropout: f64,
    /// Standard deviation of the initial weights.
    pub std: f64,
    /// Of every layer norm.
    pub epsilon: f64,
}

impl EncoderPlan {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_heads(self.n_heads, self.d_model)?;
        let (epsilon, deviation) = (self.epsilon, self.std);
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(format!("layer_norm_eps is {epsilon}; it must be above 0"));
        }
        if !(deviation.is_finite() && deviation >= 0.0) {
            return Err(format!(
                "initializer_range is {deviation}; it must be 0 or more"
            ));
        }
        check_dropout(&[self.dropout, self.attention_dropout])
    }

    /// Draws an encoder.
    pub fn init<B: Backend>(&self, pooler: bool, draw: &Draw<'_, B>) -> Bert<B> {
        let draw = &draw.with_std(self.std);
        let (d_model, d_embedding) = (self.d_model, self.d_embedding);
        Bert {
            embeddings: BertEmbeddings {
                word_embeddings: draw.embedding(self.vocab_size, d_embedding),
                position_embeddings: draw.embedding(self.positions, d_embedding),
                token_type_embeddings: (self.segments > 0)
                    .then(|| draw.embedding(self.segments, d_embedding)),
                layer_norm: draw.norm(d_embedding, self.epsilon),
                dropout: self.dropout,
                first_position: self.first_position,
            },
            embeddings_project: self.project(draw),
            encoder: self.encoder(draw),
            pooler: pooler.then(|| BertPooler {
                dense: draw.linear("pooler.dense", d_model, d_model),
            }),
            virtual_tokens: draw.virtual_tokens(d_embedding, self.n_layers, d_model),
        }
    }

    /// From the width of the tables to that of the states, where they differ.
    pub(crate) fn project<B: Backend>(&self, draw: &Draw<'_, B>) -> Option<Linear<B>> {
        let (d_model, d_embedding) = (self.d_model, self.d_embedding);
        let project = || draw.linear("embeddings_project", d_embedding, d_model);
        (d_embedding != d_model).then(project)
    }

    /// The layers alone.
    pub(crate) fn encoder<B: Backend>(&self, draw: &Draw<'_, B>) -> BertEncoder<B> {
        let layer = |number: usize| self.layer(&draw.inside(&format!("encoder.layer.{number}")));
        BertEncoder {
            layer: (0..self.n_layers).map(layer).collect(),
        }
    }

    fn layer<B: Backend>(&self, draw: &Draw<'_, B>) -> BertLayer<B> {
        let (d_model, d_ff) = (self.d_model, self.d_ff);
        let norm = || draw.norm(d_model, self.epsilon);
        let square = |name| draw.linear(name, d_model, d_model);
        BertLayer {
            attention: BertAttention {
                self_attention: BertSelfAttention {
                    query: square("attention.self_attention.query"),
                    key: square("attention.self_attention.key"),
                    value: square("attention.self_attention.value"),
                    dropout: self.attention_dropout,
                    n_heads: self.n_heads,
                },
                output: BertOutput {
                    dense: square("attention.output.dense"),
                    layer_norm: norm(),
                    dropout: self.dropout,
                },
            },
            intermediate: BertIntermediate {
                dense: draw.linear("intermediate.dense", d_model, d_ff),
                activation: self.activation,
            },
            output: BertOutput {
                dense: draw.linear("output.dense", d_ff, d_model),
                layer_norm: norm(),
                dropout: self.dropout,
            },
        }
    }
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Bert<B: Backend> {
    /// Tokens, positions and segments to vectors.
    pub embeddings: BertEmbeddings<B>,
    /// From the width of the tables to d_model, where they differ.
    pub embeddings_project: Option<Linear<B>>,
    /// The layers.
    pub encoder: BertEncoder<B>,
    /// The first token's state, transformed; masked LM has none.
    pub pooler: Option<BertPooler<B>>,
    /// In front of every text, where an adapter has them.
    pub virtual_tokens: Option<VirtualTokens<B>>,
}

impl<B: Backend> Bert<B> {
    /// Hidden states of the last layer, `[n, d_model]`: at all places of the flattened `[batch * seq]`, or at chosen ones;
    /// then the last layer is computed nowhere else.
    ///
    /// - at: `[n]`, indices into the flattened `[batch * seq]`
    ///
    /// # Panics
    ///
    /// If a sequence is longer than the table of positions.
    pub fn states(
        &self,
        input: &TokenInput<B>,
        at: Option<Tensor<B, 1, Int>>,
        _: Option<&mut Cache<B>>,
    ) -> Tensor<B, 2> {
        let Some(prompt) = virtual_tokens::prompt(&self.virtual_tokens, 0) else {
            return self.encode(input, None, at);
        };
        let front = prompt.dims()[0];
        let hidden = self.encode(input, Some(prompt), None);
        virtual_tokens::behind(hidden, input.tokens.dims(), front, at)
    }

    /// The same, and those of a prompt in front of each text's.
    ///
    /// - at: indices into the flattened `[batch * (prompt + seq)]`
    fn encode(
        &self,
        input: &TokenInput<B>,
        prompt: Option<Tensor<B, 2>>,
        at: Option<Tensor<B, 1, Int>>,
    ) -> Tensor<B, 2> {
        let [batch, _] = input.tokens.dims();
        let mut own = None;
        let cache = virtual_tokens::prefixed(&self.virtual_tokens, None, &mut own, batch);
        let read = cache.as_deref().map_or(0, Cache::read);
        let front = virtual_tokens::length(&prompt);
        let mut hidden = self.embeddings.forward(input, prompt, read);
        if let Some(project) = &self.embeddings_project {
            hidden = project.forward(hidden);
        }
        self.encoder.forward(hidden, input, front, cache, at)
    }

    /// What a classifier reads of each text, `[batch, d_model]`: a token's state, through the pooler where there is one.
    ///
    /// - at: `[batch]`, of each text's first token
    pub fn class_states(&self, input: &TokenInput<B>, at: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        let state = match virtual_tokens::prompt(&self.virtual_tokens, 0) {
            // The first of a text is one of the prompt's then, as in `peft`.
            Some(prompt) => {
                let [front, _] = prompt.dims();
                let [batch, seq] = input.tokens.dims();
                let rows = Tensor::arange(0..batch as i64, &at.device());
                let firsts = rows.mul_scalar((front + seq) as i64);
                self.encode(input, Some(prompt), Some(firsts))
            }
            None => self.states(input, Some(at), None),
        };
        self.pool(state)
    }

    /// What a classifier reads of the states of one token a text, `[n, d_model]` in and out: the pooler's, where there is one.
    pub fn pool(&self, state: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.pooler {
            Some(pooler) => tanh(pooler.dense.forward(state)),
            None => state,
        }
    }

    /// `[vocab_size, d_embedding]`
    pub fn token_table(&self) -> Tensor<B, 2> {
        self.embeddings.word_embeddings.weight.val()
    }
}

/// Sum of token, position and segment vectors, normalised.
#[derive(Module, Debug)]
pub struct BertEmbeddings<B: Backend> {
    /// `[vocab_size, d_embedding]`
    pub word_embeddings: Embedding<B>,
    /// `[max_position_embeddings, d_embedding]`
    pub position_embeddings: Embedding<B>,
    /// `[type_vocab_size, d_embedding]`
    pub token_type_embeddings: Option<Embedding<B>>,
    /// Over d_embedding.
    pub layer_norm: LayerNorm<B>,
    dropout: f64,
    first_position: usize,
}

impl<B: Backend> BertEmbeddings<B> {
    /// - prompt: in front of each text's tokens, `[front, d_embedding]`
    /// - before: number of positions already taken in front of these tokens
    /// - out: `[batch * (front + seq), d_embedding]`
    pub(crate) fn forward(
        &self,
        input: &TokenInput<B>,
        prompt: Option<Tensor<B, 2>>,
        before: usize,
    ) -> Tensor<B, 2> {
        let front = virtual_tokens::length(&prompt);
        let (tokens, dtype) = (input.tokens.clone(), self.layer_norm.dtype());
        let words = look_up(&self.word_embeddings, tokens, dtype);
        let mut words = virtual_tokens::in_front(prompt, words);
        let [batch, seq, d_embedding] = words.dims();
        let table = self.position_embeddings.weight.val();
        let mut positions = table.narrow(0, self.first_position + before, seq);
        match (&self.token_type_embeddings, &input.token_types) {
            (Some(table), Some(types)) => {
                let mut types = types.clone();
                if front > 0 {
                    let first = Tensor::zeros([batch, front], &types.device());
                    types = Tensor::cat(vec![first, types], 1);
                }
                words = words + table.forward(types);
            }
            (Some(table), None) => positions = positions + table.weight.val().narrow(0, 0, 1),
            (None, _) => {}
        }
        // Each text as one row: backends add a row to rows faster than a matrix to matrices.
        let flat = [batch, seq * d_embedding];
        let sum = words.reshape(flat) + positions.reshape([1, seq * d_embedding]);
        let rows = sum.reshape([batch * seq, d_embedding]);
        let hidden = self.layer_norm.forward(rows);
        dropout(hidden, self.dropout)
    }
}

/// The layers, in order.
#[derive(Module, Debug)]
pub struct BertEncoder<B: Backend> {
    /// First to last.
    pub layer: Vec<BertLayer<B>>,
}

impl<B: Backend> BertEncoder<B> {
    /// - hidden: `[batch * (front + seq), d_model]`
    /// - front: vectors in front of each text's tokens
    /// - cache: keys and values of a prefix, which every token attends to
    /// - at: rows that come out of the last layer, where it is not all of them
    pub(crate) fn forward(
        &self,
        mut hidden: Tensor<B, 2>,
        input: &TokenInput<B>,
        front: usize,
        mut cache: Option<&mut Cache<B>>,
        at: Option<Tensor<B, 1, Int>>,
    ) -> Tensor<B, 2> {
        let [batch, seq] = input.tokens.dims();
        let read = cache.as_deref().map_or(0, Cache::read);
        let mask = AttentionMask {
            bias: input.attention_bias(read + front, hidden.dtype()),
            ..AttentionMask::default()
        };
        for (number, layer) in self.layer.iter().enumerate() {
            let last = number + 1 == self.layer.len();
            let chosen = at.clone().filter(|_| last);
            let kept = cache.as_deref_mut().map(|cache| (cache, number));
            hidden = layer.forward(hidden, [batch, front + seq], &mask, kept, chosen);
        }
        hidden
    }
}

/// Attention and feed-forward, each added to its input and normalised.
#[derive(Module, Debug)]
pub struct BertLayer<B: Backend> {
    /// Self-attention with its output projection.
    pub attention: BertAttention<B>,
    /// First feed-forward projection.
    pub intermediate: BertIntermediate<B>,
    /// Second feed-forward projection.
    pub output: BertOutput<B>,
}

impl<B: Backend> BertLayer<B> {
    /// - hidden, out: `[batch * seq, d_model]`; flat, so that each projection is one matrix product
    /// - prefix: in which keys and values of this layer stand in front of those of `hidden`
    /// - chosen: the rows that come out, where it is not all of them
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        shape: [usize; 2],
        mask: &AttentionMask<B>,
        prefix: Option<(&mut Cache<B>, usize)>,
        chosen: Option<Tensor<B, 1, Int>>,
    ) -> Tensor<B, 2> {
        let attention = &self.attention.self_attention;
        let context = attention.forward(hidden.clone(), shape, mask, prefix);
        let (context, hidden) = match chosen {
            Some(chosen) => (context.select(0, chosen.clone()), hidden.select(0, chosen)),
            None => (context, hidden),
        };
        let hidden = self.attention.output.forward(context, hidden);
        let wide = self.intermediate.forward(hidden.clone());
        self.output.forward(wide, hidden)
    }
}

/// Self-attention and the projection after it.
#[derive(Module, Debug)]
pub struct BertAttention<B: Backend> {
    /// Scaled dot-product attention over heads.
    pub self_attention: BertSelfAttention<B>,
    /// Output projection.
    pub output: BertOutput<B>,
}

/// Scaled dot-product attention over `n_heads` heads.
#[derive(Module, Debug)]
pub struct BertSelfAttention<B: Backend> {
    /// `[d_model, d_model]`
    pub query: Linear<B>,
    /// `[d_model, d_model]`
    pub key: Linear<B>,
    /// `[d_model, d_model]`
    pub value: Linear<B>,
    dropout: f64,
    n_heads: usize,
}

impl<B: Backend> BertSelfAttention<B> {
    /// - hidden, out: `[batch * seq, d_model]`
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        [batch, seq]: [usize; 2],
        mask: &AttentionMask<B>,
        prefix: Option<(&mut Cache<B>, usize)>,
    ) -> Tensor<B, 2> {
        let query = self.query.forward(hidden.clone());
        let mut key = self.key.forward(hidden.clone());
        let mut value = self.value.forward(hidden);
        let mut keys = seq;
        if let Some((prefix, layer)) = prefix {
            keys += prefix.read();
            [key, value] = prefix.extend(layer, [key, value], [batch, seq]);
        }
        let shape = AttentionShape {
            keys,
            ..AttentionShape::square(batch, seq, self.n_heads)
        };
        attention([query, key, value], mask, shape, self.dropout)
    }
}

/// First half of the feed-forward block.
#[derive(Module, Debug)]
pub struct BertIntermediate<B: Backend> {
    /// `[d_model, d_ff]`
    pub dense: Linear<B>,
    activation: Activation,
}

impl<B: Backend> BertIntermediate<B> {
    /// - hidden: `[n, d_model]`
    /// - out: `[n, d_ff]`
    fn forward(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        self.activation.apply(self.dense.forward(hidden))
    }
}

/// A projection back to d_model, added to the residual and normalised.
#[derive(Module, Debug)]
pub struct BertOutput<B: Backend> {
    /// `[d_in, d_model]`
    pub dense: Linear<B>,
    /// Over d_model.
    pub layer_norm: LayerNorm<B>,
    dropout: f64,
}

impl<B: Backend> BertOutput<B> {
    /// - states: `[batch * seq, d_in]`
    /// - residual, out: `[batch * seq, d_model]`
    fn forward(&self, states: Tensor<B, 2>, residual: Tensor<B, 2>) -> Tensor<B, 2> {
        let projected = self.dense.forward(states);
        self.layer_norm
            .forward_sum(projected, residual, self.dropout)
    }
}

/// Linear and tanh on the first token's state.
#[derive(Module, Debug)]
pub struct BertPooler<B: Backend> {
    /// `[d_model, d_model]`
    pub dense: Linear<B>,
}
