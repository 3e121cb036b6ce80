//! The T5 encoder-decoder, pre-norm, with biases of relative positions in place of positions and the names and layout of
//! Hugging Face's `T5Model`: versions 1.0 and 1.1, whose feed-forward blocks have a gate.
//!
//! Raffel et al. 2019, <https://arxiv.org/abs/1910.10683>; gates: Shazeer 2020, <https://arxiv.org/abs/2002.05202>. In: token
//! ids of two texts. Out: hidden states of the second.

use burn::nn::Embedding;
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use serde::{Deserialize, Serialize};

use crate::cache::Seq2SeqCache;
use crate::families::bart::yes;
use crate::families::llama::TokenIds;
use crate::families::{
    Encoded, Seq2SeqPlan, Seq2SeqTokens, TokenInput, check_dropout, check_sizes, check_tokens,
};
use crate::layers::{Attention, Draw, Linear, RmsNorm};
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::half::look_up;
use crate::ops::{Activation, AttentionMask, dropout};

/// Names of T5 in a bundle.
pub const NAMES: Family = Family {
    model_type: "t5",
    prefix: "",
    prefix_of_spans: "",
    renames: &[
        (".self_attention.layer_norm.", ".layer.0.layer_norm."),
        (".self_attention.attention.", ".layer.0.SelfAttention."),
        (
            ".self_attention.relative_attention_bias.",
            ".layer.0.SelfAttention.relative_attention_bias.",
        ),
        (".cross_attention.layer_norm.", ".layer.1.layer_norm."),
        (".cross_attention.attention.", ".layer.1.EncDecAttention."),
        (".decoder_feed_forward.layer_norm.", ".layer.2.layer_norm."),
        (".decoder_feed_forward.", ".layer.2.DenseReluDense."),
        (".feed_forward.layer_norm.", ".layer.1.layer_norm."),
        (".feed_forward.", ".layer.1.DenseReluDense."),
        (".k_proj.", ".k."),
        (".v_proj.", ".v."),
        (".q_proj.", ".q."),
        (".out_proj.", ".o."),
    ],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "T5Model",
            renames: &[],
            aliases: TIES,
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "T5ForConditionalGeneration",
            renames: &[("output.", HEAD)],
            aliases: TIES,
        },
    ],
    layer: "block.",
    tables: &["shared.", "relative_attention_bias."],
    token_table: "shared.weight",
    // Published files hold it, and nothing reads it.
    ignored: &["EncDecAttention.relative_attention_bias.weight"],
    optional: &[],
    fixed: &[
        ("is_encoder_decoder", "true"),
        ("is_decoder", "false"),
        ("quantization_config", "null"),
    ],
    defaults: &[("pad_token_id", "0"), ("eos_token_id", "1")],
    adapter_targets: &["q", "v"],
    bottleneck_targets: &["wo"],
    virtual_tokens: false,
    fan_in_fan_out: false,
    first: "",
    positions: "",
    torchvision: None,
};

const HEAD: &str = "lm_head.";

/// Names of the shared table where a file has it more than once.
const TIES: &[(&str, &str)] = &[
    ("shared.weight", "encoder.embed_tokens.weight"),
    ("shared.weight", "decoder.embed_tokens.weight"),
    ("shared.weight", "lm_head.weight"),
];

/// `config.json` of a T5 model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of an attention head.
    pub d_kv: usize,
    /// Width between the feed-forward projections.
    pub d_ff: usize,
    /// Layers of the encoder.
    pub num_layers: usize,
    /// Layers of the decoder; as many as the encoder's where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_decoder_layers: Option<usize>,
    /// Attention heads a layer.
    pub num_heads: usize,
    /// Kinds of distance between two tokens.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all are of one kind.
    #[serde(default = "max_distance")]
    pub relative_attention_max_distance: usize,
    /// Dropout after the embeddings, each block and the last norm, on the attention probabilities and inside the feed-forward
    /// blocks.
    #[serde(default = "tenth")]
    pub dropout_rate: f64,
    /// Epsilon of every norm.
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f64,
    /// What the deviations of the initial weights are multiplied by.
    #[serde(default = "one")]
    pub initializer_factor: f64,
    /// Activation of the feed-forward blocks: `relu`, or `gated-gelu` for version 1.1.
    #[serde(default = "relu")]
    pub feed_forward_proj: String,
    /// Whether the token table scores the words too. A bundle's weights decide it, as in `transformers` 5.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Whether the decoder's states are divided by the root of `d_model` before words are scored; what `tie_word_embeddings`
    /// says where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_decoder_outputs: Option<bool>,
    /// Id of the padding token.
    pub pad_token_id: u32,
    /// Tokens that end a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<TokenIds>,
    /// Id of the token that the decoder reads first; the padding's where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder_start_token_id: Option<u32>,
}

fn buckets() -> usize {
    32
}
fn max_distance() -> usize {
    128
}
fn tenth() -> f64 {
    0.1
}
fn epsilon() -> f64 {
    1e-6
}
fn one() -> f64 {
    1.0
}
fn relu() -> String {
    "relu".into()
}

impl T5Config {
    fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    fn start(&self) -> u32 {
        self.decoder_start_token_id.unwrap_or(self.pad_token_id)
    }

    fn scales(&self) -> bool {
        self.scale_decoder_outputs
            .unwrap_or(self.tie_word_embeddings)
    }

    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("num_decoder_layers", self.decoder_layers()),
            ("num_heads", self.num_heads),
        ])?;
        let buckets = self.relative_attention_num_buckets;
        if buckets < 4 {
            return Err(format!(
                "relative_attention_num_buckets is {buckets}; it must be at least 4"
            ));
        }
        let distance = self.relative_attention_max_distance;
        if distance <= buckets / 2 {
            return Err(format!(
                "relative_attention_max_distance is {distance}; it must be above half of the {buckets} buckets"
            ));
        }
        check_dropout(&[self.dropout_rate])?;
        let (epsilon, factor) = (self.layer_norm_epsilon, self.initializer_factor);
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(format!(
                "layer_norm_epsilon is {epsilon}; it must be above 0"
            ));
        }
        if !(factor.is_finite() && factor >= 0.0) {
            return Err(format!(
                "initializer_factor is {factor}; it must be 0 or more"
            ));
        }
        let special = [
            ("pad_token_id", self.pad_token_id),
            ("decoder_start_token_id", self.start()),
        ];
        check_tokens(&special, self.vocab_size)?;
        self.feed_forward_kind().map(drop)
    }

    /// The activation, and whether there is a gate.
    fn feed_forward_kind(&self) -> Result<(Activation, bool), String> {
        let said = self.feed_forward_proj.as_str();
        if said == "gated-gelu" {
            return Ok((Activation::GeluTanh, true));
        }
        let (name, gated) = match said.strip_prefix("gated-") {
            Some(name) => (name, true),
            None => (said, false),
        };
        let named = Activation::named(name);
        let activation = named.map_err(|reason| format!("feed_forward_proj: {reason}"))?;
        Ok((activation, gated))
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Seq2SeqPlan {
        let d_model = self.d_model as f64;
        Seq2SeqPlan {
            vocab_size: self.vocab_size,
            target_vocab_size: self.vocab_size,
            d_model: self.d_model,
            layers: [self.num_layers, self.decoder_layers()],
            positions: None,
            start: self.start(),
            pad: self.pad_token_id,
            eos: self.eos_token_id.as_ref().map_or(vec![], TokenIds::ids),
            forced_eos: Vec::new(),
            tied: self.tie_word_embeddings,
            bias: false,
            scale: if self.scales() {
                d_model.powf(-0.5)
            } else {
                1.0
            },
            std: self.initializer_factor,
            parameters: self.parameters(),
        }
    }

    /// Number of parameters, roughly; in floats, as absurd sizes overflow every integer.
    fn parameters(&self) -> f64 {
        let [vocab_size, d_model, d_kv, d_ff, heads] = [
            self.vocab_size,
            self.d_model,
            self.d_kv,
            self.d_ff,
            self.num_heads,
        ]
        .map(|n| n as f64);
        let gated = matches!(self.feed_forward_kind(), Ok((_, true)));
        let wide = if gated { 3.0 } else { 2.0 } * d_model * d_ff;
        let attention = 4.0 * d_model * d_kv * heads;
        let tables = if self.tie_word_embeddings { 1.0 } else { 2.0 };
        // 512 for norms and the structures around them.
        tables * vocab_size * d_model
            + self.num_layers as f64 * (attention + wide + 512.0)
            + self.decoder_layers() as f64 * (2.0 * attention + wide + 512.0)
    }

    /// Sets every dropout to one rate.
    pub fn set_dropout(&mut self, rate: f64) {
        self.dropout_rate = rate;
    }

    /// Fits the model to a tokenizer.
    pub fn set_vocabulary(&mut self, vocab_size: usize, tokens: Seq2SeqTokens) {
        self.vocab_size = vocab_size;
        self.pad_token_id = tokens.pad;
        self.decoder_start_token_id = Some(tokens.start);
        self.eos_token_id = Some(TokenIds::One(tokens.eos));
    }

    /// Has words scored by the token table, or by a matrix of their own, as the weights do. Whether states are scaled stays as
    /// it was said.
    pub(crate) fn tie(&mut self, tied: bool) {
        self.scale_decoder_outputs = Some(self.scales());
        self.tie_word_embeddings = tied;
    }

    /// Draws an encoder and a decoder; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> T5<B> {
        let (of_encoder, of_decoder) = (draw.inside("encoder"), draw.inside("decoder"));
        let norm = || draw.rms_norm(self.d_model, self.layer_norm_epsilon);
        let places = |both_ways: bool| Places {
            buckets: self.relative_attention_num_buckets,
            max_distance: self.relative_attention_max_distance,
            both_ways,
        };
        let encoder_block = |number: usize| {
            let draw = of_encoder.inside(&format!("block.{number}"));
            T5EncoderBlock {
                self_attention: self.attention(number == 0, &draw.inside("self_attention")),
                feed_forward: self.feed_forward(&draw.inside("feed_forward")),
            }
        };
        let decoder_block = |number: usize| {
            let draw = of_decoder.inside(&format!("block.{number}"));
            T5DecoderBlock {
                self_attention: self.attention(number == 0, &draw.inside("self_attention")),
                cross_attention: self.attention(false, &draw.inside("cross_attention")),
                decoder_feed_forward: self.feed_forward(&draw.inside("decoder_feed_forward")),
            }
        };
        let table = draw.with_std(self.initializer_factor);
        T5 {
            shared: table.embedding(self.vocab_size, self.d_model),
            encoder: T5Encoder {
                block: (0..self.num_layers).map(encoder_block).collect(),
                final_layer_norm: norm(),
                places: places(true),
            },
            decoder: T5Decoder {
                block: (0..self.decoder_layers()).map(decoder_block).collect(),
                final_layer_norm: norm(),
                places: places(false),
            },
            dropout: self.dropout_rate,
        }
    }

    /// Draws from a deviation that keeps the width of what a layer sums up.
    fn thin<'a, B: Backend>(&self, draw: &Draw<'a, B>, width: usize) -> Draw<'a, B> {
        draw.with_std(self.initializer_factor * (width as f64).powf(-0.5))
    }

    /// - first: whether it is the layer that has the biases of relative positions
    fn attention<B: Backend>(&self, first: bool, draw: &Draw<'_, B>) -> T5Attention<B> {
        let (d_model, inner) = (self.d_model, self.num_heads * self.d_kv);
        let projections = draw.inside("attention");
        let [input, query, output] =
            [d_model, d_model * self.d_kv, inner].map(|width| self.thin(&projections, width));
        let table = || {
            let draw = self.thin(draw, d_model);
            draw.embedding(self.relative_attention_num_buckets, self.num_heads)
        };
        T5Attention {
            attention: Attention {
                k_proj: input.linear_without_bias("k_proj", d_model, inner),
                v_proj: input.linear_without_bias("v_proj", d_model, inner),
                q_proj: query.linear_without_bias("q_proj", d_model, inner),
                out_proj: output.linear_without_bias("out_proj", inner, d_model),
                heads: self.num_heads,
                scale: 1.0,
                dropout: self.dropout_rate,
            },
            relative_attention_bias: first.then(table),
            layer_norm: draw.rms_norm(d_model, self.layer_norm_epsilon),
            dropout: self.dropout_rate,
        }
    }

    fn feed_forward<B: Backend>(&self, draw: &Draw<'_, B>) -> T5FeedForward<B> {
        let kind = self.feed_forward_kind();
        let (activation, gated) = kind.unwrap_or((Activation::Relu, false));
        let (d_model, d_ff) = (self.d_model, self.d_ff);
        let wide = |name| {
            self.thin(draw, d_model)
                .linear_without_bias(name, d_model, d_ff)
        };
        T5FeedForward {
            wi: (!gated).then(|| wide("wi")),
            wi_0: gated.then(|| wide("wi_0")),
            wi_1: gated.then(|| wide("wi_1")),
            wo: self
                .thin(draw, d_ff)
                .linear_without_bias("wo", d_ff, d_model),
            layer_norm: draw.rms_norm(d_model, self.layer_norm_epsilon),
            activation,
            dropout: self.dropout_rate,
        }
    }
}

/// The encoder and the decoder.
#[derive(Module, Debug)]
pub struct T5<B: Backend> {
    /// Tokens of both, `[vocab_size, d_model]`.
    pub shared: Embedding<B>,
    /// Of the text that is read.
    pub encoder: T5Encoder<B>,
    /// Of the text that is written.
    pub decoder: T5Decoder<B>,
    dropout: f64,
}

impl<B: Backend> T5<B> {
    /// Hidden states of the encoder, normalised.
    ///
    /// # Panics
    ///
    /// If a row holds several texts.
    pub fn encode(&self, input: &TokenInput<B>) -> Encoded<B> {
        let shape = input.tokens.dims();
        let padding = input.padding_bias(self.dtype());
        let Self { encoder, .. } = self;
        let first = &encoder.block[0].self_attention;
        let places = first.bias(encoder.places, 0, shape[1]);
        let bias = match (places, padding.clone()) {
            (Some(places), Some(padding)) => Some(places + padding),
            (one, other) => one.or(other),
        };
        let mask = AttentionMask {
            bias,
            ..AttentionMask::default()
        };
        let mut hidden = self.embed(input.tokens.clone());
        for block in &encoder.block {
            hidden = block.self_attention.forward(hidden, shape, &mask, None);
            hidden = block.feed_forward.forward(hidden);
        }
        Encoded {
            states: dropout(encoder.final_layer_norm.forward(hidden), self.dropout),
            shape,
            bias: padding,
        }
    }

    /// Hidden states of the decoder, normalised, `[n, d_model]`: at all places of the flattened `[rows * seq]`, or at chosen
    /// ones.
    ///
    /// - tokens: `[rows, seq]`; every text of the encoder has as many rows, one after the other
    /// - at: `[n]`
    /// - cache: what was read before these tokens
    pub fn decode(
        &self,
        tokens: Tensor<B, 2, Int>,
        encoded: &Encoded<B>,
        at: Option<Tensor<B, 1, Int>>,
        mut cache: Option<&mut Seq2SeqCache<B>>,
    ) -> Tensor<B, 2> {
        let shape = tokens.dims();
        let read = cache.as_deref().map_or(0, |cache| cache.own.read());
        let Self { decoder, .. } = self;
        let first = &decoder.block[0].self_attention;
        let mask = AttentionMask {
            causal: true,
            bias: first.bias(decoder.places, read, shape[1]),
            ..AttentionMask::default()
        };
        let mut hidden = self.embed(tokens);
        for (number, block) in decoder.block.iter().enumerate() {
            let own = cache.as_deref_mut().map(|cache| (&mut cache.own, number));
            hidden = block.self_attention.forward(hidden, shape, &mask, own);
            let kept = cache.as_deref_mut().map(|cache| (cache, number));
            hidden = block.cross_attention.across(hidden, encoded, kept);
            hidden = block.decoder_feed_forward.forward(hidden);
        }
        if let Some(cache) = cache {
            cache.own.advance(shape[1]);
        }
        if let Some(at) = at {
            hidden = hidden.select(0, at);
        }
        dropout(decoder.final_layer_norm.forward(hidden), self.dropout)
    }

    /// `[batch * seq, d_model]`
    fn embed(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, seq] = tokens.dims();
        let [_, d_model] = self.shared.weight.dims();
        let words = look_up(&self.shared, tokens, self.dtype());
        dropout(words.reshape([batch * seq, d_model]), self.dropout)
    }

    /// What it computes in.
    fn dtype(&self) -> DType {
        self.encoder.final_layer_norm.dtype()
    }

    /// `[vocab_size, d_model]`
    pub fn token_table(&self) -> Tensor<B, 2> {
        self.shared.weight.val()
    }
}

/// Layers of the text that is read.
#[derive(Module, Debug)]
pub struct T5Encoder<B: Backend> {
    /// First to last.
    pub block: Vec<T5EncoderBlock<B>>,
    /// After the last.
    pub final_layer_norm: RmsNorm<B>,
    #[module(skip)]
    places: Places,
}

/// Layers of the text that is written.
#[derive(Module, Debug)]
pub struct T5Decoder<B: Backend> {
    /// First to last.
    pub block: Vec<T5DecoderBlock<B>>,
    /// After the last.
    pub final_layer_norm: RmsNorm<B>,
    #[module(skip)]
    places: Places,
}

/// Self-attention and feed-forward.
#[derive(Module, Debug)]
pub struct T5EncoderBlock<B: Backend> {
    /// To the text itself.
    pub self_attention: T5Attention<B>,
    /// Two projections.
    pub feed_forward: T5FeedForward<B>,
}

/// Self-attention, attention to the encoder, and feed-forward.
#[derive(Module, Debug)]
pub struct T5DecoderBlock<B: Backend> {
    /// To the text itself.
    pub self_attention: T5Attention<B>,
    /// To the encoder's states.
    pub cross_attention: T5Attention<B>,
    /// Two projections. Called otherwise than the encoder's: files number it as the third part of its block, not the second.
    pub decoder_feed_forward: T5FeedForward<B>,
}

/// Attention of the normalised state, added to it.
#[derive(Module, Debug)]
pub struct T5Attention<B: Backend> {
    /// Whose scores are not scaled.
    pub attention: Attention<B>,
    /// Added to the scores of all layers, in the first one: `[buckets, heads]`.
    pub relative_attention_bias: Option<Embedding<B>>,
    /// Before the attention.
    pub layer_norm: RmsNorm<B>,
    dropout: f64,
}

impl<B: Backend> T5Attention<B> {
    /// - hidden, out: `[batch * seq, d_model]`
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        shape: [usize; 2],
        mask: &AttentionMask<B>,
        cache: Option<(&mut crate::cache::Cache<B>, usize)>,
    ) -> Tensor<B, 2> {
        let normed = self.layer_norm.forward(hidden.clone());
        let context = self.attention.forward(normed, shape, mask, cache);
        hidden + dropout(context, self.dropout)
    }

    /// - hidden, out: `[rows, d_model]`
    fn across(
        &self,
        hidden: Tensor<B, 2>,
        encoded: &Encoded<B>,
        cache: Option<(&mut Seq2SeqCache<B>, usize)>,
    ) -> Tensor<B, 2> {
        let normed = self.layer_norm.forward(hidden.clone());
        let context = self.attention.across(normed, encoded, cache);
        hidden + dropout(context, self.dropout)
    }

    /// What is added to the scores of the queries from place `read` on, `[1, heads, seq, read + seq]`.
    fn bias(&self, places: Places, read: usize, seq: usize) -> Option<Tensor<B, 4>> {
        let table = self.relative_attention_bias.as_ref()?.weight.val();
        let ([_, heads], keys) = (table.dims(), read + seq);
        let distances =
            (read..keys).flat_map(|query| (0..keys).map(move |key| key as i64 - query as i64));
        let buckets: Vec<i32> = distances.map(|distance| places.bucket(distance)).collect();
        let buckets = TensorData::new(buckets, [seq * keys]);
        let rows = table
            .clone()
            .select(0, Tensor::from_data(buckets, &table.device()));
        let rows = rows.reshape([seq, keys, heads]);
        Some(rows.permute([2, 0, 1]).unsqueeze())
    }
}

/// How distances are told apart: each alone as long as they are short, then by their logarithm.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Kinds of distance.
    pub buckets: usize,
    /// Distance from which on all are of one kind.
    pub max_distance: usize,
    /// Whether what follows is told from what is before; else it counts as distance 0.
    pub both_ways: bool,
}

impl Places {
    /// The kind of a distance.
    ///
    /// - distance: from the query to the key, below 0 where the key is before it
    pub fn bucket(&self, distance: i64) -> i32 {
        let (number, first) = match (self.both_ways, distance > 0) {
            (true, true) => (self.buckets / 2, self.buckets / 2),
            (true, false) => (self.buckets / 2, 0),
            (false, _) => (self.buckets, 0),
        };
        let far = if self.both_ways {
            distance.unsigned_abs() as usize
        } else {
            distance.min(0).unsigned_abs() as usize
        };
        let exact = number / 2;
        if far < exact {
            return (first + far) as i32;
        }
        // In 32 bits, as the borders between kinds depend on rounding.
        let longest = (self.max_distance as f64 / exact as f64).ln() as f32;
        let share = (far as f32 / exact as f32).ln() / longest;
        let more = (share * (number - exact) as f32) as usize;
        (first + (exact + more).min(number - 1)) as i32
    }
}

/// Projections with an activation between them, one of which may be a gate for the other, of the normalised state and added
/// to it.
#[derive(Module, Debug)]
pub struct T5FeedForward<B: Backend> {
    /// `[d_model, d_ff]`, where there is no gate.
    pub wi: Option<Linear<B>>,
    /// The gate, `[d_model, d_ff]`.
    pub wi_0: Option<Linear<B>>,
    /// What it is for, `[d_model, d_ff]`.
    pub wi_1: Option<Linear<B>>,
    /// `[d_ff, d_model]`
    pub wo: Linear<B>,
    /// Before them.
    pub layer_norm: RmsNorm<B>,
    activation: Activation,
    dropout: f64,
}

impl<B: Backend> T5FeedForward<B> {
    /// - hidden, out: `[n, d_model]`
    fn forward(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let normed = self.layer_norm.forward(hidden.clone());
        let project =
            |layer: &Option<Linear<B>>| layer.as_ref().map(|layer| layer.forward(normed.clone()));
        let mut wide = self.activation.apply(match project(&self.wi_0) {
            Some(gate) => gate,
            None => project(&self.wi).unwrap_or_else(|| normed.clone()),
        });
        if let Some(gated) = project(&self.wi_1) {
            wide = wide * gated;
        }
        let narrow = self.wo.forward(dropout(wide, self.dropout));
        hidden + dropout(narrow, self.dropout)
    }
}
