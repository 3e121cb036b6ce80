//! The BERT encoder, post-norm, with the names and layout of Hugging Face's `BertModel`.
//!
//! Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>. In: token ids. Out: hidden states.

use burn::nn::Embedding;
use burn::prelude::*;
use burn::tensor::activation::tanh;
use serde::{Deserialize, Serialize};

use crate::init;
use crate::linear::Linear;
use crate::norm::LayerNorm;
use crate::ops::{AttentionMask, AttentionShape, attention, dropout, gelu};

/// How our field names become Hugging Face's, in this order (`self` is a keyword in Rust).
pub const HUGGING_FACE_NAMES: &[(&str, &str)] = &[
    (".self_attention.", ".self."),
    (".layer_norm.", ".LayerNorm."),
];

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
    /// Activation of the feed-forward block; only the exact `gelu` is known.
    #[serde(default = "gelu_name")]
    pub hidden_act: String,
    /// Dropout after the embeddings and after each block.
    #[serde(default)]
    pub hidden_dropout_prob: f64,
    /// Dropout on the attention probabilities.
    #[serde(default)]
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of the initial weights.
    #[serde(default = "standard_deviation")]
    pub initializer_range: f64,
    /// Epsilon of every layer norm.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// Id of the padding token.
    #[serde(default)]
    pub pad_token_id: usize,
}

fn two() -> usize {
    2
}
fn gelu_name() -> String {
    "gelu".into()
}
fn standard_deviation() -> f64 {
    0.02
}
fn epsilon() -> f64 {
    1e-12
}

impl BertConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("{name} is 0"));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(format!(
                "{} attention heads do not divide a width of {}",
                self.num_attention_heads, self.hidden_size
            ));
        }
        let (epsilon, deviation) = (self.layer_norm_eps, self.initializer_range);
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(format!("layer_norm_eps is {epsilon}; it must be above 0"));
        }
        if !(deviation.is_finite() && deviation >= 0.0) {
            return Err(format!(
                "initializer_range is {deviation}; it must be 0 or more"
            ));
        }
        if self.hidden_act != "gelu" {
            return Err(format!(
                "hidden_act is \"{}\"; only \"gelu\" is known",
                self.hidden_act
            ));
        }
        Ok(())
    }

    /// Draws an encoder without a pooler; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Bert<B> {
        let std = self.initializer_range;
        let d_model = self.hidden_size;
        let norm = || LayerNorm::new(d_model, self.layer_norm_eps, device);
        let square = || Linear::normal(d_model, d_model, std, device);
        let layer = |_| BertLayer {
            attention: BertAttention {
                self_attention: BertSelfAttention {
                    query: square(),
                    key: square(),
                    value: square(),
                    dropout: self.attention_probs_dropout_prob,
                    n_heads: self.num_attention_heads,
                },
                output: BertOutput {
                    dense: square(),
                    layer_norm: norm(),
                    dropout: self.hidden_dropout_prob,
                },
            },
            intermediate: BertIntermediate {
                dense: Linear::normal(d_model, self.intermediate_size, std, device),
            },
            output: BertOutput {
                dense: Linear::normal(self.intermediate_size, d_model, std, device),
                layer_norm: norm(),
                dropout: self.hidden_dropout_prob,
            },
        };
        Bert {
            embeddings: BertEmbeddings {
                word_embeddings: init::embedding(self.vocab_size, d_model, std, device),
                position_embeddings: init::embedding(
                    self.max_position_embeddings,
                    d_model,
                    std,
                    device,
                ),
                token_type_embeddings: init::embedding(self.type_vocab_size, d_model, std, device),
                layer_norm: norm(),
                dropout: self.hidden_dropout_prob,
            },
            encoder: BertEncoder {
                layer: (0..self.num_hidden_layers).map(layer).collect(),
            },
            pooler: None,
        }
    }

    /// Draws an encoder with a pooler, as sequence classification wants it.
    pub fn init_with_pooler<B: Backend>(&self, device: &B::Device) -> Bert<B> {
        let dense = Linear::normal(
            self.hidden_size,
            self.hidden_size,
            self.initializer_range,
            device,
        );
        Bert {
            pooler: Some(BertPooler { dense }),
            ..self.init(device)
        }
    }
}

/// A batch of token sequences, padded on the right.
#[derive(Clone, Debug)]
pub struct BertInput<B: Backend> {
    /// Token ids, `[batch, seq]`.
    pub tokens: Tensor<B, 2, Int>,
    /// Segment ids, `[batch, seq]`; segment 0 everywhere when absent.
    pub token_types: Option<Tensor<B, 2, Int>>,
    /// True where there is padding, `[batch, seq]`; absent when no row is padded.
    pub mask_pad: Option<Tensor<B, 2, Bool>>,
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Bert<B: Backend> {
    /// Tokens, positions and segments to vectors.
    pub embeddings: BertEmbeddings<B>,
    /// The layers.
    pub encoder: BertEncoder<B>,
    /// The first token's state, transformed; masked LM has none.
    pub pooler: Option<BertPooler<B>>,
}

impl<B: Backend> Bert<B> {
    /// Hidden states of the last layer, `[batch, seq, d_model]`.
    ///
    /// # Panics
    ///
    /// If a sequence is longer than `max_position_embeddings`.
    pub fn forward(&self, input: BertInput<B>) -> Tensor<B, 3> {
        let [batch, seq] = input.tokens.dims();
        let hidden = self.states(input, None);
        let [_, d_model] = hidden.dims();
        hidden.reshape([batch, seq, d_model])
    }

    /// Hidden states of the last layer at chosen positions, `[n, d_model]`: the last layer is computed nowhere else.
    ///
    /// - positions: `[n]`, indices into the flattened `[batch * seq]`
    pub fn forward_at(&self, input: BertInput<B>, positions: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.states(input, Some(positions))
    }

    /// Flat, all of them or those at chosen positions.
    fn states(&self, input: BertInput<B>, positions: Option<Tensor<B, 1, Int>>) -> Tensor<B, 2> {
        let [batch, seq] = input.tokens.dims();
        let mut hidden = self.embeddings.forward(input.tokens, input.token_types);
        let bias = input.mask_pad.map(attention_bias);
        let bias = bias.map(|bias| bias.cast(hidden.dtype()));
        let layers = self.encoder.layer.iter().enumerate();
        for (at, layer) in layers {
            let last = at + 1 == self.encoder.layer.len();
            let chosen = positions.clone().filter(|_| last);
            hidden = layer.forward(hidden, [batch, seq], bias.clone(), chosen);
        }
        hidden
    }

    /// The first token's state, `[batch, d_model]`, through the pooler where there is one.
    pub fn forward_pooled(&self, input: BertInput<B>) -> Tensor<B, 2> {
        let [batch, seq] = input.tokens.dims();
        let firsts = Tensor::arange_step(0..(batch * seq) as i64, seq, &input.tokens.device());
        let first = self.forward_at(input, firsts);
        match &self.pooler {
            Some(pooler) => tanh(pooler.dense.forward(first)),
            None => first,
        }
    }

    /// Width of the hidden states.
    pub fn d_model(&self) -> usize {
        let [_, d_model] = self.embeddings.word_embeddings.weight.dims();
        d_model
    }
}

/// What is added to the attention scores: 0, or a value no softmax survives where there is padding.
///
/// - mask_pad: `[batch, seq]`
/// - out: `[batch, 1, 1, seq]`
fn attention_bias<B: Backend>(mask_pad: Tensor<B, 2, Bool>) -> Tensor<B, 4> {
    let [batch, seq] = mask_pad.dims();
    // Finite: a row of nothing but padding must not become NaN.
    mask_pad
        .float()
        .mul_scalar(-1e30)
        .reshape([batch, 1, 1, seq])
}

/// Sum of token, position and segment vectors, normalised.
#[derive(Module, Debug)]
pub struct BertEmbeddings<B: Backend> {
    /// `[vocab_size, d_model]`
    pub word_embeddings: Embedding<B>,
    /// `[max_position_embeddings, d_model]`
    pub position_embeddings: Embedding<B>,
    /// `[type_vocab_size, d_model]`
    pub token_type_embeddings: Embedding<B>,
    /// Over d_model.
    pub layer_norm: LayerNorm<B>,
    dropout: f64,
}

impl<B: Backend> BertEmbeddings<B> {
    /// - tokens, token_types: `[batch, seq]`
    /// - out: `[batch * seq, d_model]`
    fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        token_types: Option<Tensor<B, 2, Int>>,
    ) -> Tensor<B, 2> {
        let [batch, seq] = tokens.dims();
        let [_, d_model] = self.word_embeddings.weight.dims();
        let mut words = self.word_embeddings.forward(tokens);
        let mut positions = self.position_embeddings.weight.val().narrow(0, 0, seq);
        match token_types {
            Some(types) => words = words + self.token_type_embeddings.forward(types),
            None => {
                let first = self.token_type_embeddings.weight.val().narrow(0, 0, 1);
                positions = positions + first;
            }
        }
        // Each text as one row: backends add a row to rows faster than a matrix to matrices.
        let flat = [batch, seq * d_model];
        let sum = words.reshape(flat) + positions.reshape([1, seq * d_model]);
        let hidden = self.layer_norm.forward(sum.reshape([batch * seq, d_model]));
        dropout(hidden, self.dropout)
    }
}

/// The layers, in order.
#[derive(Module, Debug)]
pub struct BertEncoder<B: Backend> {
    /// First to last.
    pub layer: Vec<BertLayer<B>>,
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
    /// - chosen: the rows that come out, where it is not all of them
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        shape: [usize; 2],
        bias: Option<Tensor<B, 4>>,
        chosen: Option<Tensor<B, 1, Int>>,
    ) -> Tensor<B, 2> {
        let attention = &self.attention.self_attention;
        let context = attention.forward(hidden.clone(), shape, bias);
        let (context, hidden) = match chosen {
            Some(chosen) => (context.select(0, chosen.clone()), hidden.select(0, chosen)),
            None => (context, hidden),
        };
        let hidden = self.attention.output.forward(context, hidden);
        let wide = gelu(self.intermediate.dense.forward(hidden.clone()));
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
    /// - bias: `[batch, 1, 1, seq]`, added to the scores
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        [batch, seq]: [usize; 2],
        bias: Option<Tensor<B, 4>>,
    ) -> Tensor<B, 2> {
        let query = self.query.forward(hidden.clone());
        let key = self.key.forward(hidden.clone());
        let value = self.value.forward(hidden);
        let mask = AttentionMask {
            bias,
            ..AttentionMask::default()
        };
        let shape = AttentionShape::square(batch, seq, self.n_heads);
        attention([query, key, value], &mask, shape, self.dropout)
    }
}

/// First half of the feed-forward block.
#[derive(Module, Debug)]
pub struct BertIntermediate<B: Backend> {
    /// `[d_model, d_ff]`
    pub dense: Linear<B>,
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
