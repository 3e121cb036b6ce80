//! The GPT-2 decoder, pre-norm, with learned positions and the names and layout of Hugging Face's `GPT2Model`.
//!
//! Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". In: token ids. Out: hidden states.

use burn::nn::Embedding;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::families::bert::encoder_parameters;
use crate::families::{Place, Plan, TokenInput, check_dropout, check_heads, check_sizes};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::virtual_tokens::{self, VirtualTokens};
use crate::layers::{Conv1d, Draw, LayerNorm};
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::half::look_up;
use crate::ops::{Activation, AttentionMask, AttentionShape, attention, dropout};

/// Names of GPT-2 in a bundle.
pub const NAMES: Family = Family {
    model_type: "gpt2",
    prefix: "transformer.",
    prefix_of_spans: "",
    renames: &[],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "GPT2Model",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "GPT2LMHeadModel",
            renames: &[("output.", "lm_head.")],
            aliases: &[("transformer.wte.weight", "lm_head.weight")],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "GPT2ForSequenceClassification",
            renames: &[("output.", "score.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::TokenClasses,
            class: "GPT2ForTokenClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Spans,
            class: "GPT2ForQuestionAnswering",
            renames: &[("output.", "qa_outputs.")],
            aliases: &[],
        },
    ],
    layer: "h.",
    tables: &["wte.", "wpe."],
    token_table: "wte.weight",
    ignored: &[".attn.bias", ".attn.masked_bias"],
    optional: &[],
    fixed: &[
        ("scale_attn_weights", "true"),
        ("scale_attn_by_inverse_layer_idx", "false"),
        ("add_cross_attention", "false"),
        ("pruned_heads", "{}"),
        ("quantization_config", "null"),
    ],
    defaults: &[],
    adapter_targets: &["c_attn"],
    bottleneck_targets: &["mlp.c_proj"],
    virtual_tokens: true,
    fan_in_fan_out: true,
    first: "",
    positions: "",
    torchvision: None,
};

/// `config.json` of a GPT-2 model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpt2Config {
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    pub n_positions: usize,
    /// Width of the hidden states, d_model.
    pub n_embd: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// Attention heads a layer; divides `n_embd`.
    pub n_head: usize,
    /// Width between the two feed-forward projections; four times `n_embd` where there is none.
    #[serde(default)]
    pub n_inner: Option<usize>,
    /// Activation of the feed-forward block.
    #[serde(default = "gelu_new")]
    pub activation_function: String,
    /// Dropout after each block.
    #[serde(default = "tenth")]
    pub resid_pdrop: f64,
    /// Dropout after the embeddings.
    #[serde(default = "tenth")]
    pub embd_pdrop: f64,
    /// Dropout on the attention probabilities.
    #[serde(default = "tenth")]
    pub attn_pdrop: f64,
    /// Dropout before the layer that classifies tokens; 0.1 where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
    /// Epsilon of every layer norm.
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f64,
    /// Standard deviation of the initial weights.
    #[serde(default = "standard_deviation")]
    pub initializer_range: f64,
    /// Id of the padding token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<usize>,
    /// Id of the token that begins a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<usize>,
    /// Id of the token that ends a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<usize>,
    /// Whether the token table is the decoder too.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub tie_word_embeddings: bool,
}

fn gelu_new() -> String {
    "gelu_new".into()
}
fn tenth() -> f64 {
    0.1
}
fn epsilon() -> f64 {
    1e-5
}
fn standard_deviation() -> f64 {
    0.02
}
fn yes() -> bool {
    true
}
fn is_yes(value: &bool) -> bool {
    *value
}

impl Gpt2Config {
    fn d_ff(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.d_ff()),
        ])?;
        check_heads(self.n_head, self.n_embd)?;
        let of_tokens = self.classifier_dropout.unwrap_or_default();
        check_dropout(&[
            self.resid_pdrop,
            self.embd_pdrop,
            self.attn_pdrop,
            of_tokens,
        ])?;
        let (epsilon, deviation) = (self.layer_norm_epsilon, self.initializer_range);
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(format!(
                "layer_norm_epsilon is {epsilon}; it must be above 0"
            ));
        }
        if !(deviation.is_finite() && deviation >= 0.0) {
            return Err(format!(
                "initializer_range is {deviation}; it must be 0 or more"
            ));
        }
        self.activation().map(drop)
    }

    fn activation(&self) -> Result<Activation, String> {
        let named = Activation::named(&self.activation_function);
        named.map_err(|reason| format!("activation_function: {reason}"))
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Plan {
        Plan {
            vocab_size: self.vocab_size,
            d_model: self.n_embd,
            layers: self.n_layer,
            positions: self.n_positions,
            causal: true,
            segments: 0,
            std: self.initializer_range,
            parameters: encoder_parameters(
                self.vocab_size + self.n_positions,
                self.n_embd,
                self.n_layer,
                self.d_ff(),
            ),
        }
    }

    /// Sets every dropout to one rate.
    pub fn set_dropout(&mut self, rate: f64) {
        self.resid_pdrop = rate;
        self.embd_pdrop = rate;
        self.attn_pdrop = rate;
        self.classifier_dropout = Some(rate);
    }

    /// Sets the number of layers.
    pub fn set_layers(&mut self, layers: usize) {
        self.n_layer = layers;
    }

    /// Fits the model to a tokenizer.
    pub fn set_vocabulary(&mut self, vocab_size: usize, pad: u32) {
        self.vocab_size = vocab_size;
        self.pad_token_id = Some(pad as usize);
    }

    /// How tokens are scored: by the token table.
    pub fn token_plan(&self) -> TokenPlan {
        TokenPlan {
            width: self.n_embd,
            transform: None,
            epsilon: self.layer_norm_epsilon,
            bias: false,
            tied: self.tie_word_embeddings,
        }
    }

    /// How the whole input is classified: from the last token.
    pub fn class_plan(&self) -> ClassPlan {
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

    /// Draws a decoder; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, _: HeadKind, draw: &Draw<'_, B>) -> Gpt2<B> {
        let draw = &draw.with_std(self.initializer_range);
        let layer = |number: usize| self.layer(&draw.inside(&format!("h.{number}")));
        Gpt2 {
            wte: draw.embedding(self.vocab_size, self.n_embd),
            wpe: draw.embedding(self.n_positions, self.n_embd),
            h: (0..self.n_layer).map(layer).collect(),
            ln_f: draw.norm(self.n_embd, self.layer_norm_epsilon),
            virtual_tokens: draw.virtual_tokens(self.n_embd, self.n_layer, self.n_embd),
            dropout: self.embd_pdrop,
        }
    }

    fn layer<B: Backend>(&self, draw: &Draw<'_, B>) -> Gpt2Layer<B> {
        let (d_model, d_ff) = (self.n_embd, self.d_ff());
        let norm = || draw.norm(d_model, self.layer_norm_epsilon);
        // What is added to the residual stream is drawn smaller the more layers add to it.
        let thin = draw.with_std(self.initializer_range / (2.0 * self.n_layer as f64).sqrt());
        Gpt2Layer {
            ln_1: norm(),
            attn: Gpt2Attention {
                c_attn: draw.conv1d("attn.c_attn", d_model, 3 * d_model),
                c_proj: thin.conv1d("attn.c_proj", d_model, d_model),
                n_heads: self.n_head,
                dropout: self.attn_pdrop,
            },
            ln_2: norm(),
            mlp: Gpt2FeedForward {
                c_fc: draw.conv1d("mlp.c_fc", d_model, d_ff),
                c_proj: thin.conv1d("mlp.c_proj", d_ff, d_model),
                activation: self.activation().unwrap_or(Activation::GeluTanh),
            },
            dropout: self.resid_pdrop,
        }
    }
}

/// The decoder.
#[derive(Module, Debug)]
pub struct Gpt2<B: Backend> {
    /// Tokens, `[vocab_size, d_model]`.
    pub wte: Embedding<B>,
    /// Positions, `[n_positions, d_model]`.
    pub wpe: Embedding<B>,
    /// The layers, first to last.
    pub h: Vec<Gpt2Layer<B>>,
    /// After the last layer.
    pub ln_f: LayerNorm<B>,
    /// In front of every text, where an adapter has them.
    pub virtual_tokens: Option<VirtualTokens<B>>,
    dropout: f64,
}

impl<B: Backend> Gpt2<B> {
    /// Hidden states of the last layer, `[n, d_model]`: at all places of the flattened `[batch * seq]`, or at chosen ones.
    ///
    /// - at: `[n]`
    /// - cache: what was read before these tokens
    ///
    /// # Panics
    ///
    /// If a sequence is longer than `n_positions`, what was read before counted.
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
        let mut hidden = dropout(self.embed(input, prompt, read), self.dropout);
        let mask = AttentionMask {
            causal: true,
            bias: input.attention_bias(read + front, hidden.dtype()),
            scale: None,
        };
        for (number, layer) in self.h.iter().enumerate() {
            let kept = cache.as_deref_mut().map(|cache| (cache, number));
            hidden = layer.forward(hidden, [batch, front + seq], &mask, kept);
        }
        if let Some(cache) = cache {
            cache.advance(front + seq);
        }
        let hidden = virtual_tokens::behind(hidden, [batch, seq], front, at);
        self.ln_f.forward(hidden)
    }

    /// Sum of token and position vectors, `[batch * seq, d_model]`; those of a prompt are in front of each text's.
    fn embed(
        &self,
        input: &TokenInput<B>,
        prompt: Option<Tensor<B, 2>>,
        read: usize,
    ) -> Tensor<B, 2> {
        let words = look_up(&self.wte, input.tokens.clone(), self.ln_f.dtype());
        let words = virtual_tokens::in_front(prompt, words);
        let [batch, seq, d_model] = words.dims();
        if let Some(positions) = &input.positions {
            let sum = words + self.wpe.forward(positions.clone());
            return sum.reshape([batch * seq, d_model]);
        }
        let positions = self.wpe.weight.val().narrow(0, read, seq);
        let flat = [batch, seq * d_model];
        let sum = words.reshape(flat) + positions.reshape([1, seq * d_model]);
        sum.reshape([batch * seq, d_model])
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
        self.wte.weight.val()
    }
}

/// Attention and feed-forward, each of the normalised state and added to it.
#[derive(Module, Debug)]
pub struct Gpt2Layer<B: Backend> {
    /// Before the attention.
    pub ln_1: LayerNorm<B>,
    /// Self-attention.
    pub attn: Gpt2Attention<B>,
    /// Before the feed-forward block.
    pub ln_2: LayerNorm<B>,
    /// Feed-forward block.
    pub mlp: Gpt2FeedForward<B>,
    dropout: f64,
}

impl<B: Backend> Gpt2Layer<B> {
    /// - hidden, out: `[batch * seq, d_model]`
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        shape: [usize; 2],
        mask: &AttentionMask<B>,
        cache: Option<(&mut Cache<B>, usize)>,
    ) -> Tensor<B, 2> {
        let normed = self.ln_1.forward(hidden.clone());
        let context = self.attn.forward(normed, shape, mask, cache);
        let hidden = hidden + dropout(context, self.dropout);
        let wide = self.mlp.forward(self.ln_2.forward(hidden.clone()));
        hidden + dropout(wide, self.dropout)
    }
}

/// Causal attention over `n_heads` heads, with one projection for queries, keys and values.
#[derive(Module, Debug)]
pub struct Gpt2Attention<B: Backend> {
    /// `[d_model, 3 * d_model]`
    pub c_attn: Conv1d<B>,
    /// `[d_model, d_model]`
    pub c_proj: Conv1d<B>,
    n_heads: usize,
    dropout: f64,
}

impl<B: Backend> Gpt2Attention<B> {
    /// - hidden, out: `[batch * seq, d_model]`
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        [batch, seq]: [usize; 2],
        mask: &AttentionMask<B>,
        cache: Option<(&mut Cache<B>, usize)>,
    ) -> Tensor<B, 2> {
        let [_, d_model] = hidden.dims();
        let all = self.c_attn.forward(hidden);
        let part = |number: usize| all.clone().narrow(1, number * d_model, d_model);
        let (query, mut key, mut value) = (part(0), part(1), part(2));
        let mut keys = seq;
        if let Some((cache, layer)) = cache {
            keys += cache.read();
            [key, value] = cache.extend(layer, [key, value], [batch, seq]);
        }
        let shape = AttentionShape {
            keys,
            ..AttentionShape::square(batch, seq, self.n_heads)
        };
        let context = attention([query, key, value], mask, shape, self.dropout);
        self.c_proj.forward(context)
    }
}

/// Two projections with an activation between them.
#[derive(Module, Debug)]
pub struct Gpt2FeedForward<B: Backend> {
    /// `[d_model, d_ff]`
    pub c_fc: Conv1d<B>,
    /// `[d_ff, d_model]`
    pub c_proj: Conv1d<B>,
    activation: Activation,
}

impl<B: Backend> Gpt2FeedForward<B> {
    /// - hidden, out: `[n, d_model]`
    fn forward(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        self.c_proj
            .forward(self.activation.apply(self.c_fc.forward(hidden)))
    }
}
