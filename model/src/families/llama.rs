//! The Llama decoder, pre-norm, with rotary positions, gated feed-forward blocks and heads that share keys; with the names
//! and layout of Hugging Face's `LlamaModel`. Qwen2 is made of it too.
//!
//! Touvron et al. 2023, <https://arxiv.org/abs/2302.13971>. In: token ids. Out: hidden states.

use burn::nn::Embedding;
use burn::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};

use crate::cache::Cache;
use crate::families::{Place, Plan, TokenInput, check_dropout, check_heads, check_sizes};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::virtual_tokens::{self, VirtualTokens};
use crate::layers::{Draw, Linear, RmsNorm, Rope, Rotary};
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::half::look_up;
use crate::ops::{Activation, AttentionMask, AttentionShape, Turns, attention, rotate};

/// Names of Llama in a bundle.
pub const NAMES: Family = Family {
    model_type: "llama",
    prefix: "model.",
    prefix_of_spans: "transformer.",
    renames: &[],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "LlamaModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "LlamaForCausalLM",
            renames: &[("output.", "lm_head.")],
            aliases: &[("model.embed_tokens.weight", "lm_head.weight")],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "LlamaForSequenceClassification",
            renames: &[("output.", "score.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::TokenClasses,
            class: "LlamaForTokenClassification",
            renames: &[("output.", "score.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Spans,
            class: "LlamaForQuestionAnswering",
            renames: &[("output.", "qa_outputs.")],
            aliases: &[],
        },
    ],
    layer: "layers.",
    tables: &["embed_tokens."],
    token_table: "embed_tokens.weight",
    ignored: &["rotary_emb.inv_freq"],
    optional: &[],
    fixed: &[
        ("token_classification_bias", "true"),
        ("quantization_config", "null"),
    ],
    defaults: &[("tie_word_embeddings", "false")],
    adapter_targets: &["q_proj", "v_proj"],
    bottleneck_targets: &["down_proj"],
    virtual_tokens: true,
    fan_in_fan_out: false,
    first: "",
    positions: "",
    torchvision: None,
};

/// The most positions: beyond, f32 has no number for each, and the angle of a position is that of another one.
const MOST_POSITIONS: usize = 1 << 24;

/// `config.json` of a Llama model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Keys that Qwen2 has too.
    #[serde(flatten)]
    pub decoder: DecoderConfig,
    /// Whether the four projections of the attention have a bias.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether the three projections of the feed-forward block have a bias.
    #[serde(default)]
    pub mlp_bias: bool,
}

/// What Llama and Qwen2 have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Width of the hidden states, d_model.
    pub hidden_size: usize,
    /// Width between the feed-forward projections.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of the queries of a layer.
    pub num_attention_heads: usize,
    /// Heads of keys and values; divides `num_attention_heads`, and is as large where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Activation of the gate of the feed-forward block.
    #[serde(default = "silu")]
    pub hidden_act: String,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Standard deviation of the initial weights.
    #[serde(default = "standard_deviation")]
    pub initializer_range: f64,
    /// Epsilon of every norm.
    #[serde(default = "epsilon")]
    pub rms_norm_eps: f64,
    /// Dropout on the attention probabilities.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Dropout before the layer that classifies tokens; 0.1 where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
    /// Rotary positions.
    #[serde(flatten)]
    pub rope: Rope,
    /// Whether the token table is the decoder too.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Id of the padding token; some files say -1 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<i64>,
    /// The token that begins a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "said")]
    pub bos_token_id: Option<TokenIds>,
    /// Tokens that end a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "said")]
    pub eos_token_id: Option<TokenIds>,
}

/// What `config.json` says of a special token. Leaving the key out is something else than `null`: then the published
/// model's tokens are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// `null`.
    None,
    /// One token.
    One(u32),
    /// Any of several tokens.
    Several(Vec<u32>),
}

impl TokenIds {
    /// All of them.
    pub fn ids(&self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One(id) => vec![*id],
            Self::Several(ids) => ids.clone(),
        }
    }
}

/// Tells a key that is `null` from one that is left out.
pub(crate) fn said<'de, D: Deserializer<'de>>(json: D) -> Result<Option<TokenIds>, D::Error> {
    TokenIds::deserialize(json).map(Some)
}
fn silu() -> String {
    "silu".into()
}
fn standard_deviation() -> f64 {
    0.02
}
fn epsilon() -> f64 {
    1e-6
}

impl LlamaConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        self.decoder.check()?;
        // `transformers` wants it of every Llama, whatever `head_dim` is.
        check_heads(self.decoder.num_attention_heads, self.decoder.hidden_size)
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
    pub fn init<B: Backend>(&self, _: HeadKind, draw: &Draw<'_, B>) -> Llama<B> {
        let biases = Biases {
            inputs: self.attention_bias,
            output: self.attention_bias,
            feed_forward: self.mlp_bias,
        };
        self.decoder.init(biases, draw)
    }
}

/// Which projections have a bias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Biases {
    /// Those to queries, keys and values.
    pub inputs: bool,
    /// That of the attention's result.
    pub output: bool,
    /// Those of the feed-forward block.
    pub feed_forward: bool,
}

impl DecoderConfig {
    fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn d_head(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    fn activation(&self) -> Result<Activation, String> {
        let named = Activation::named(&self.hidden_act);
        named.map_err(|reason| format!("hidden_act: {reason}"))
    }

    /// Says what is impossible about these sizes, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (heads, kv_heads) = (self.num_attention_heads, self.kv_heads());
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("head_dim", self.head_dim.unwrap_or(1)),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        if self.head_dim.is_none() {
            check_heads(heads, self.hidden_size)?;
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!(
                "num_key_value_heads is {kv_heads}, which does not divide the {heads} attention heads"
            ));
        }
        let d_head = self.d_head();
        if !d_head.is_multiple_of(2) {
            return Err(format!(
                "an attention head is {d_head} wide; rotary positions need an even width"
            ));
        }
        if self.max_position_embeddings > MOST_POSITIONS {
            return Err(format!(
                "max_position_embeddings is {}; 32-bit floats tell {MOST_POSITIONS} positions apart",
                self.max_position_embeddings
            ));
        }
        self.rope.check()?;
        let of_tokens = self.classifier_dropout.unwrap_or_default();
        check_dropout(&[self.attention_dropout, of_tokens])?;
        let (epsilon, deviation) = (self.rms_norm_eps, self.initializer_range);
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(format!("rms_norm_eps is {epsilon}; it must be above 0"));
        }
        if !(deviation.is_finite() && deviation >= 0.0) {
            return Err(format!(
                "initializer_range is {deviation}; it must be 0 or more"
            ));
        }
        self.activation().map(drop)
    }

    pub(crate) fn describe(&self) -> Plan {
        Plan {
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            layers: self.num_hidden_layers,
            positions: self.max_position_embeddings,
            causal: true,
            segments: 0,
            std: self.initializer_range,
            parameters: self.parameters(),
        }
    }

    /// Number of parameters, roughly; in floats, as absurd sizes overflow every integer.
    fn parameters(&self) -> f64 {
        let [vocab_size, d_model, d_ff] =
            [self.vocab_size, self.hidden_size, self.intermediate_size].map(|n| n as f64);
        let [layers, heads, kv_heads, d_head] = [
            self.num_hidden_layers,
            self.num_attention_heads,
            self.kv_heads(),
            self.d_head(),
        ]
        .map(|n| n as f64);
        let tables = if self.tie_word_embeddings { 1.0 } else { 2.0 };
        let attention = 2.0 * d_model * d_head * (heads + kv_heads);
        // 512 for biases, norms and the structures around them.
        tables * vocab_size * d_model + layers * (attention + 3.0 * d_model * d_ff + 512.0)
    }

    pub(crate) fn set_dropout(&mut self, rate: f64) {
        self.attention_dropout = rate;
        self.classifier_dropout = Some(rate);
    }

    pub(crate) fn set_vocabulary(&mut self, vocab_size: usize, pad: u32) {
        self.vocab_size = vocab_size;
        self.pad_token_id = Some(pad.into());
    }

    pub(crate) fn token_plan(&self) -> TokenPlan {
        TokenPlan {
            width: self.hidden_size,
            transform: None,
            epsilon: self.rms_norm_eps,
            bias: false,
            tied: self.tie_word_embeddings,
        }
    }

    pub(crate) fn class_plan(&self) -> ClassPlan {
        ClassPlan {
            dense: None,
            place: Place::Last,
            bias: false,
            dropout: [0.0, 0.0],
            token_dropout: self.classifier_dropout.unwrap_or(0.1),
            span_dropout: 0.0,
            choice_dropout: 0.0,
        }
    }

    pub(crate) fn init<B: Backend>(&self, biases: Biases, draw: &Draw<'_, B>) -> Llama<B> {
        let draw = &draw.with_std(self.initializer_range);
        let layer = |number: usize| self.layer(biases, &draw.inside(&format!("layers.{number}")));
        let speeds = self
            .rope
            .speeds(self.d_head(), self.max_position_embeddings);
        Llama {
            embed_tokens: draw.embedding(self.vocab_size, self.hidden_size),
            layers: (0..self.num_hidden_layers).map(layer).collect(),
            norm: draw.rms_norm(self.hidden_size, self.rms_norm_eps),
            rotary: Rotary { speeds },
            virtual_tokens: draw.virtual_tokens(
                self.hidden_size,
                self.num_hidden_layers,
                self.kv_heads() * self.d_head(),
            ),
        }
    }

    fn layer<B: Backend>(&self, biases: Biases, draw: &Draw<'_, B>) -> LlamaLayer<B> {
        let (d_model, d_ff, d_head) = (self.hidden_size, self.intermediate_size, self.d_head());
        let (heads, kv_heads) = (self.num_attention_heads, self.kv_heads());
        let norm = || draw.rms_norm(d_model, self.rms_norm_eps);
        let linear = |name: &str, d_input, d_output, bias: bool| {
            if bias {
                draw.linear(name, d_input, d_output)
            } else {
                draw.linear_without_bias(name, d_input, d_output)
            }
        };
        let input = |name, heads| linear(name, d_model, heads * d_head, biases.inputs);
        LlamaLayer {
            input_layernorm: norm(),
            self_attn: LlamaAttention {
                q_proj: input("self_attn.q_proj", heads),
                k_proj: input("self_attn.k_proj", kv_heads),
                v_proj: input("self_attn.v_proj", kv_heads),
                o_proj: linear("self_attn.o_proj", heads * d_head, d_model, biases.output),
                heads,
                kv_heads,
                dropout: self.attention_dropout,
            },
            post_attention_layernorm: norm(),
            mlp: LlamaFeedForward {
                gate_proj: linear("mlp.gate_proj", d_model, d_ff, biases.feed_forward),
                up_proj: linear("mlp.up_proj", d_model, d_ff, biases.feed_forward),
                down_proj: linear("mlp.down_proj", d_ff, d_model, biases.feed_forward),
                activation: self.activation().unwrap_or(Activation::Silu),
            },
        }
    }
}

/// The decoder.
#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    /// Tokens, `[vocab_size, d_model]`.
    pub embed_tokens: Embedding<B>,
    /// The layers, first to last.
    pub layers: Vec<LlamaLayer<B>>,
    /// After the last layer.
    pub norm: RmsNorm<B>,
    rotary: Rotary,
    /// In front of every text, where an adapter has them.
    pub virtual_tokens: Option<VirtualTokens<B>>,
}

impl<B: Backend> Llama<B> {
    /// Hidden states of the last layer, `[n, d_model]`: at all places of the flattened `[batch * seq]`, or at chosen ones.
    ///
    /// - at: `[n]`
    /// - cache: what was read before these tokens
    pub fn states(
        &self,
        input: &TokenInput<B>,
        at: Option<Tensor<B, 1, Int>>,
        cache: Option<&mut Cache<B>>,
    ) -> Tensor<B, 2> {
        let [batch, seq] = input.tokens.dims();
        let mut own = None;
        let mut cache = virtual_tokens::prefixed(&self.virtual_tokens, cache, &mut own, batch);
        let read = cache.as_deref().map_or(0, Cache::read);
        let prompt = virtual_tokens::prompt(&self.virtual_tokens, read);
        let front = virtual_tokens::length(&prompt);
        let words = look_up(&self.embed_tokens, input.tokens.clone(), self.norm.dtype());
        let words = virtual_tokens::in_front(prompt, words);
        let [_, all, d_model] = words.dims();
        let mut hidden = words.reshape([batch * all, d_model]);
        let positions = input.positions.as_ref();
        let turns = self.rotary.turns(read..read + all, positions, &hidden);
        let mask = AttentionMask {
            causal: true,
            bias: input.attention_bias(read + front, hidden.dtype()),
            scale: None,
        };
        for (number, layer) in self.layers.iter().enumerate() {
            let kept = cache.as_deref_mut().map(|cache| (cache, number));
            hidden = layer.forward(hidden, [batch, all], &turns, &mask, kept);
        }
        if let Some(cache) = cache {
            cache.advance(all);
        }
        let hidden = virtual_tokens::behind(hidden, [batch, seq], front, at);
        self.norm.forward(hidden)
    }

    /// What a classifier reads of each text, `[batch, d_model]`: a decoder has no pooler.
    ///
    /// - at: `[batch]`, of each text's last token
    pub fn class_states(&self, input: &TokenInput<B>, at: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.states(input, Some(at), None)
    }

    /// What a classifier reads of the states of one token a text: the states.
    pub fn pool(&self, state: Tensor<B, 2>) -> Tensor<B, 2> {
        state
    }

    /// `[vocab_size, d_model]`
    pub fn token_table(&self) -> Tensor<B, 2> {
        self.embed_tokens.weight.val()
    }
}

/// Attention and feed-forward, each of the normalised state and added to it.
#[derive(Module, Debug)]
pub struct LlamaLayer<B: Backend> {
    /// Before the attention.
    pub input_layernorm: RmsNorm<B>,
    /// Self-attention.
    pub self_attn: LlamaAttention<B>,
    /// Before the feed-forward block.
    pub post_attention_layernorm: RmsNorm<B>,
    /// Feed-forward block.
    pub mlp: LlamaFeedForward<B>,
}

impl<B: Backend> LlamaLayer<B> {
    /// - hidden, out: `[batch * seq, d_model]`
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        shape: [usize; 2],
        turns: &Turns<B>,
        mask: &AttentionMask<B>,
        cache: Option<(&mut Cache<B>, usize)>,
    ) -> Tensor<B, 2> {
        let normed = self.input_layernorm.forward(hidden.clone());
        let hidden = hidden + self.self_attn.forward(normed, shape, turns, mask, cache);
        let normed = self.post_attention_layernorm.forward(hidden.clone());
        hidden + self.mlp.forward(normed)
    }
}

/// Causal attention, in which several heads of queries may share a head of keys and values.
#[derive(Module, Debug)]
pub struct LlamaAttention<B: Backend> {
    /// `[d_model, heads * d_head]`
    pub q_proj: Linear<B>,
    /// `[d_model, kv_heads * d_head]`
    pub k_proj: Linear<B>,
    /// `[d_model, kv_heads * d_head]`
    pub v_proj: Linear<B>,
    /// `[heads * d_head, d_model]`
    pub o_proj: Linear<B>,
    heads: usize,
    kv_heads: usize,
    dropout: f64,
}

impl<B: Backend> LlamaAttention<B> {
    /// - hidden, out: `[batch * seq, d_model]`
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        [batch, seq]: [usize; 2],
        turns: &Turns<B>,
        mask: &AttentionMask<B>,
        cache: Option<(&mut Cache<B>, usize)>,
    ) -> Tensor<B, 2> {
        let turned = |states, heads| rotate(states, turns, [batch, seq], heads);
        let query = turned(self.q_proj.forward(hidden.clone()), self.heads);
        let mut key = turned(self.k_proj.forward(hidden.clone()), self.kv_heads);
        let mut value = self.v_proj.forward(hidden);
        let mut keys = seq;
        if let Some((cache, layer)) = cache {
            keys += cache.read();
            [key, value] = cache.extend(layer, [key, value], [batch, seq]);
        }
        let shape = AttentionShape {
            batch,
            queries: seq,
            keys,
            heads: self.heads,
            kv_heads: self.kv_heads,
        };
        let context = attention([query, key, value], mask, shape, self.dropout);
        self.o_proj.forward(context)
    }
}

/// Two projections, one of which is a gate for the other, and one back. SwiGLU, Shazeer 2020,
/// <https://arxiv.org/abs/2002.05202>.
#[derive(Module, Debug)]
pub struct LlamaFeedForward<B: Backend> {
    /// `[d_model, d_ff]`
    pub gate_proj: Linear<B>,
    /// `[d_model, d_ff]`
    pub up_proj: Linear<B>,
    /// `[d_ff, d_model]`
    pub down_proj: Linear<B>,
    activation: Activation,
}

impl<B: Backend> LlamaFeedForward<B> {
    /// - hidden, out: `[n, d_model]`
    fn forward(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let gate = self.gate_proj.forward(hidden.clone());
        let wide = self.activation.apply(gate) * self.up_proj.forward(hidden);
        self.down_proj.forward(wide)
    }
}
