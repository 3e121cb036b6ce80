//! The BART encoder-decoder, post-norm, with learned positions and the names and layout of Hugging Face's `BartModel`;
//! Marian is made of it too.
//!
//! Lewis et al. 2019, <https://arxiv.org/abs/1910.13461>. In: token ids of two texts. Out: hidden states of the second.

use burn::nn::Embedding;
use burn::prelude::*;
use burn::tensor::DType;
use serde::{Deserialize, Serialize};

use crate::cache::Seq2SeqCache;
use crate::families::llama::{TokenIds, said};
use crate::families::marian::waves;
use crate::families::{
    Encoded, Seq2SeqPlan, Seq2SeqTokens, TokenInput, check_dropout, check_heads, check_sizes,
    check_tokens,
};
use crate::layers::{Attention, Draw, LayerNorm, Linear};
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::half::look_up;
use crate::ops::{Activation, AttentionMask, dropout};

/// Names of BART in a bundle.
pub const NAMES: Family = Family {
    model_type: "bart",
    prefix: "model.",
    prefix_of_spans: "",
    renames: &[(".embeddings.", ".")],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "BartModel",
            renames: &[],
            aliases: &[
                ("shared.weight", "encoder.embed_tokens.weight"),
                ("shared.weight", "decoder.embed_tokens.weight"),
            ],
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "BartForConditionalGeneration",
            renames: HEAD,
            aliases: TIES,
        },
    ],
    layer: "layers.",
    tables: &[
        "shared.",
        "embed_tokens.",
        "embed_positions.",
        "layernorm_embedding.",
    ],
    token_table: "shared.weight",
    ignored: &["encoder.version", "decoder.version"],
    optional: &[],
    fixed: &[
        ("normalize_before", "false"),
        ("add_final_layer_norm", "false"),
        ("normalize_embedding", "true"),
        ("static_position_embeddings", "false"),
        ("add_bias_logits", "false"),
        ("is_encoder_decoder", "true"),
        ("is_decoder", "false"),
        ("quantization_config", "null"),
    ],
    defaults: &[
        ("pad_token_id", "1"),
        ("decoder_start_token_id", "2"),
        ("eos_token_id", "2"),
    ],
    adapter_targets: &["q_proj", "v_proj"],
    bottleneck_targets: &["fc2"],
    virtual_tokens: false,
    fan_in_fan_out: false,
    first: "",
    positions: "",
    torchvision: None,
};

/// Names of the head of BART and Marian.
pub(crate) const HEAD: &[(&str, &str)] = &[("output.", "lm_head."), ("bias", "final_logits_bias")];

/// Names of the shared table where a file has it more than once, and of a decoder's own table as the head.
pub(crate) const TIES: &[(&str, &str)] = &[
    ("model.shared.weight", "encoder.embed_tokens.weight"),
    ("model.shared.weight", "decoder.embed_tokens.weight"),
    ("model.shared.weight", "lm_head.weight"),
    ("model.decoder.embed_tokens.weight", "lm_head.weight"),
];

/// Rows before that of the first position.
const FIRST_POSITION: usize = 2;
/// Of every layer norm; no configuration says otherwise.
const EPSILON: f64 = 1e-5;
/// What `transformers` ends a text with that is cut off, where `config.json` does not say.
const FORCED_EOS: u32 = 2;

/// `config.json` of a BART model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BartConfig {
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Width between the two feed-forward projections of an encoder's layer.
    pub encoder_ffn_dim: usize,
    /// Attention heads of an encoder's layer; divides `d_model`.
    pub encoder_attention_heads: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Width between the two feed-forward projections of a decoder's layer.
    pub decoder_ffn_dim: usize,
    /// Attention heads of a decoder's layer; divides `d_model`.
    pub decoder_attention_heads: usize,
    /// Activation of the feed-forward blocks.
    #[serde(default = "gelu")]
    pub activation_function: String,
    /// Dropout after the embeddings and each block.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// Dropout on the attention probabilities.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Dropout between the two feed-forward projections.
    #[serde(default)]
    pub activation_dropout: f64,
    /// Share of the encoder's layers that training leaves out; only 0 is implemented.
    #[serde(default)]
    pub encoder_layerdrop: f64,
    /// Share of the decoder's layers that training leaves out; only 0 is implemented.
    #[serde(default)]
    pub decoder_layerdrop: f64,
    /// Standard deviation of the initial weights.
    #[serde(default = "standard_deviation")]
    pub init_std: f64,
    /// Whether token embeddings are multiplied by the root of `d_model`.
    #[serde(default)]
    pub scale_embedding: bool,
    /// Whether the decoder's token table scores the words too.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Id of the padding token, whose vector does not train where it is read.
    pub pad_token_id: u32,
    /// Id of the token that begins a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<TokenIds>,
    /// Id of the token that the decoder reads first.
    pub decoder_start_token_id: u32,
    /// Tokens that a text is ended with that is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "said")]
    pub forced_eos_token_id: Option<TokenIds>,
}

fn gelu() -> String {
    "gelu".into()
}
fn tenth() -> f64 {
    0.1
}
fn standard_deviation() -> f64 {
    0.02
}
pub(crate) fn yes() -> bool {
    true
}

impl BartConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        self.check_for(self.vocab_size)?;
        if !self.tie_word_embeddings {
            return Err("tie_word_embeddings is false; only true is implemented".into());
        }
        Ok(())
    }

    /// The same for any family of this kind.
    ///
    /// - target_vocab_size: rows of the decoder's token table
    pub(crate) fn check_for(&self, target_vocab_size: usize) -> Result<(), String> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("decoder_vocab_size", target_vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("d_model", self.d_model),
            ("encoder_layers", self.encoder_layers),
            ("encoder_ffn_dim", self.encoder_ffn_dim),
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_layers", self.decoder_layers),
            ("decoder_ffn_dim", self.decoder_ffn_dim),
            ("decoder_attention_heads", self.decoder_attention_heads),
        ])?;
        check_heads(self.encoder_attention_heads, self.d_model)?;
        check_heads(self.decoder_attention_heads, self.d_model)?;
        check_dropout(&[
            self.dropout,
            self.attention_dropout,
            self.activation_dropout,
        ])?;
        let leaving_out = [
            ("encoder_layerdrop", self.encoder_layerdrop),
            ("decoder_layerdrop", self.decoder_layerdrop),
        ];
        if let Some((name, rate)) = leaving_out.iter().find(|(_, rate)| *rate != 0.0) {
            return Err(format!("{name} is {rate}; only 0 is implemented"));
        }
        let deviation = self.init_std;
        if !(deviation.is_finite() && deviation >= 0.0) {
            return Err(format!("init_std is {deviation}; it must be 0 or more"));
        }
        let special = [
            ("pad_token_id", self.pad_token_id),
            ("decoder_start_token_id", self.decoder_start_token_id),
        ];
        check_tokens(&special, self.vocab_size.min(target_vocab_size))?;
        self.activation().map(drop)
    }

    fn activation(&self) -> Result<Activation, String> {
        let named = Activation::named(&self.activation_function);
        named.map_err(|reason| format!("activation_function: {reason}"))
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Seq2SeqPlan {
        self.describe_for(self.vocab_size, FORCED_EOS)
    }

    /// The same for any family of this kind.
    ///
    /// - target_vocab_size: rows of the decoder's token table
    /// - forced_eos: what a text is ended with that is cut off, where `config.json` does not say
    pub(crate) fn describe_for(&self, target_vocab_size: usize, forced_eos: u32) -> Seq2SeqPlan {
        let forced = self.forced_eos_token_id.as_ref();
        Seq2SeqPlan {
            vocab_size: self.vocab_size,
            target_vocab_size,
            d_model: self.d_model,
            layers: [self.encoder_layers, self.decoder_layers],
            positions: Some(self.max_position_embeddings),
            start: self.decoder_start_token_id,
            pad: self.pad_token_id,
            eos: self.eos_token_id.as_ref().map_or(Vec::new(), TokenIds::ids),
            forced_eos: forced.map_or(vec![forced_eos], TokenIds::ids),
            tied: self.tie_word_embeddings,
            bias: true,
            scale: 1.0,
            std: self.init_std,
            parameters: self.parameters(),
        }
    }

    /// Number of parameters, roughly; in floats, as absurd sizes overflow every integer.
    fn parameters(&self) -> f64 {
        let of_layers = |layers: usize, d_ff: usize, attentions: f64| {
            let [layers, d_ff, d_model] = [layers, d_ff, self.d_model].map(|n| n as f64);
            // 512 for biases, norms and the structures around them.
            layers * (4.0 * attentions * d_model * d_model + 2.0 * d_ff * d_model + 512.0)
        };
        let vectors = self.vocab_size as f64 + 2.0 * self.max_position_embeddings as f64;
        vectors * self.d_model as f64
            + of_layers(self.encoder_layers, self.encoder_ffn_dim, 1.0)
            + of_layers(self.decoder_layers, self.decoder_ffn_dim, 2.0)
    }

    /// Sets every dropout to one rate.
    pub fn set_dropout(&mut self, rate: f64) {
        self.dropout = rate;
        self.attention_dropout = rate;
        self.activation_dropout = rate;
    }

    /// Fits the model to a tokenizer.
    pub fn set_vocabulary(&mut self, vocab_size: usize, tokens: Seq2SeqTokens) {
        self.vocab_size = vocab_size;
        self.pad_token_id = tokens.pad;
        self.decoder_start_token_id = tokens.start;
        self.eos_token_id = Some(TokenIds::One(tokens.eos));
        self.forced_eos_token_id = Some(TokenIds::One(tokens.eos));
        self.bos_token_id = None;
    }

    /// Draws an encoder and a decoder; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> Bart<B> {
        self.init_as(Kind::Bart, draw)
    }

    pub(crate) fn init_as<B: Backend>(&self, kind: Kind, draw: &Draw<'_, B>) -> Bart<B> {
        let draw = &draw.with_std(self.init_std);
        let [of_encoder, of_decoder] = match kind {
            Kind::Bart | Kind::Marian => [None, None],
            Kind::MarianOfTwo(target) => [Some(self.vocab_size), Some(target)],
        };
        let shared = of_encoder.is_none();
        let (encoder, decoder) = (draw.inside("encoder"), draw.inside("decoder"));
        Bart {
            shared: shared.then(|| draw.embedding(self.vocab_size, self.d_model)),
            encoder: BartStack {
                embeddings: self.embeddings(kind, of_encoder, &encoder),
                layers: self.layers(false, &encoder),
            },
            decoder: BartStack {
                embeddings: self.embeddings(kind, of_decoder, &decoder),
                layers: self.layers(true, &decoder),
            },
        }
    }

    /// - own: rows of a token table that is not shared
    fn embeddings<B: Backend>(
        &self,
        kind: Kind,
        own: Option<usize>,
        draw: &Draw<'_, B>,
    ) -> BartEmbeddings<B> {
        let (d_model, learned) = (self.d_model, kind == Kind::Bart);
        let positions = FIRST_POSITION + self.max_position_embeddings;
        let scale = if self.scale_embedding {
            (d_model as f64).sqrt()
        } else {
            1.0
        };
        BartEmbeddings {
            embed_tokens: own.map(|rows| draw.embedding(rows, d_model)),
            embed_positions: learned.then(|| draw.embedding(positions, d_model)),
            layernorm_embedding: learned.then(|| draw.norm(d_model, EPSILON)),
            scale,
            pad: self.pad_token_id as usize,
            dropout: self.dropout,
        }
    }

    fn layers<B: Backend>(&self, of_decoder: bool, draw: &Draw<'_, B>) -> Vec<BartLayer<B>> {
        let (layers, heads, d_ff) = if of_decoder {
            (
                self.decoder_layers,
                self.decoder_attention_heads,
                self.decoder_ffn_dim,
            )
        } else {
            (
                self.encoder_layers,
                self.encoder_attention_heads,
                self.encoder_ffn_dim,
            )
        };
        let d_model = self.d_model;
        let norm = || draw.norm(d_model, EPSILON);
        let layer = |number: usize| {
            let draw = draw.inside(&format!("layers.{number}"));
            let attention = |name: &str| self.attention(heads, &draw.inside(name));
            BartLayer {
                self_attn: attention("self_attn"),
                self_attn_layer_norm: norm(),
                encoder_attn: of_decoder.then(|| attention("encoder_attn")),
                encoder_attn_layer_norm: of_decoder.then(norm),
                fc1: draw.linear("fc1", d_model, d_ff),
                fc2: draw.linear("fc2", d_ff, d_model),
                final_layer_norm: norm(),
                activation: self.activation().unwrap_or(Activation::Gelu),
                dropout: self.dropout,
                activation_dropout: self.activation_dropout,
            }
        };
        (0..layers).map(layer).collect()
    }

    fn attention<B: Backend>(&self, heads: usize, draw: &Draw<'_, B>) -> Attention<B> {
        let d_model = self.d_model;
        Attention {
            k_proj: draw.linear("k_proj", d_model, d_model),
            v_proj: draw.linear("v_proj", d_model, d_model),
            q_proj: draw.linear("q_proj", d_model, d_model),
            out_proj: draw.linear("out_proj", d_model, d_model),
            heads,
            scale: 1.0 / (d_model as f64 / heads as f64).sqrt(),
            dropout: self.attention_dropout,
        }
    }
}

/// What families of this kind differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Learned positions, and a norm after the embeddings.
    Bart,
    /// Computed positions.
    Marian,
    /// The same; encoder and decoder have vocabularies of their own, the decoder's as large as this.
    MarianOfTwo(usize),
}

/// The encoder and the decoder.
#[derive(Module, Debug)]
pub struct Bart<B: Backend> {
    /// Tokens of both, `[vocab_size, d_model]`; none where each has its own.
    pub shared: Option<Embedding<B>>,
    /// Of the text that is read.
    pub encoder: BartStack<B>,
    /// Of the text that is written.
    pub decoder: BartStack<B>,
}

impl<B: Backend> Bart<B> {
    /// Hidden states of the encoder's last layer.
    ///
    /// # Panics
    ///
    /// If a text is longer than the table of positions, or a row holds several texts.
    pub fn encode(&self, input: &TokenInput<B>) -> Encoded<B> {
        let bias = input.padding_bias(self.encoder.dtype());
        let mask = AttentionMask {
            bias: bias.clone(),
            ..AttentionMask::default()
        };
        let beside = Beside {
            shared: self.shared.as_ref(),
            encoded: None,
        };
        Encoded {
            states: self
                .encoder
                .forward(input.tokens.clone(), &mask, beside, None, None),
            shape: input.tokens.dims(),
            bias,
        }
    }

    /// Hidden states of the decoder's last layer, `[n, d_model]`: at all places of the flattened `[rows * seq]`, or at chosen
    /// ones.
    ///
    /// - tokens: `[rows, seq]`; every text of the encoder has as many rows, one after the other
    /// - at: `[n]`
    /// - cache: what was read before these tokens
    ///
    /// # Panics
    ///
    /// If a text is longer than the table of positions.
    pub fn decode(
        &self,
        tokens: Tensor<B, 2, Int>,
        encoded: &Encoded<B>,
        at: Option<Tensor<B, 1, Int>>,
        cache: Option<&mut Seq2SeqCache<B>>,
    ) -> Tensor<B, 2> {
        let mask = AttentionMask {
            causal: true,
            ..AttentionMask::default()
        };
        let beside = Beside {
            shared: self.shared.as_ref(),
            encoded: Some(encoded),
        };
        self.decoder.forward(tokens, &mask, beside, at, cache)
    }

    /// The decoder's, `[target_vocab_size, d_model]`.
    ///
    /// # Panics
    ///
    /// Never: a decoder has a table or shares one.
    pub fn token_table(&self) -> Tensor<B, 2> {
        let own = self.decoder.embeddings.embed_tokens.as_ref();
        let table = own.or(self.shared.as_ref());
        table.expect("a table of the decoder's tokens").weight.val()
    }
}

/// What a stack does not hold itself.
#[derive(Clone, Copy)]
struct Beside<'a, B: Backend> {
    shared: Option<&'a Embedding<B>>,
    encoded: Option<&'a Encoded<B>>,
}

/// Embeddings and layers, of the encoder or of the decoder.
#[derive(Module, Debug)]
pub struct BartStack<B: Backend> {
    /// Tokens and positions to vectors.
    pub embeddings: BartEmbeddings<B>,
    /// First to last.
    pub layers: Vec<BartLayer<B>>,
}

impl<B: Backend> BartStack<B> {
    /// What it computes in.
    fn dtype(&self) -> DType {
        self.layers[0].final_layer_norm.dtype()
    }

    fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        mask: &AttentionMask<B>,
        beside: Beside<'_, B>,
        at: Option<Tensor<B, 1, Int>>,
        mut cache: Option<&mut Seq2SeqCache<B>>,
    ) -> Tensor<B, 2> {
        let [batch, seq] = tokens.dims();
        let read = cache.as_deref().map_or(0, |cache| cache.own.read());
        let Self { embeddings, .. } = self;
        let mut hidden = embeddings.forward(beside.shared, tokens, read, self.dtype());
        for (number, layer) in self.layers.iter().enumerate() {
            let last = number + 1 == self.layers.len();
            let chosen = at.clone().filter(|_| last);
            let kept = cache.as_deref_mut().map(|cache| (cache, number));
            hidden = layer.forward(hidden, [batch, seq], mask, beside.encoded, kept, chosen);
        }
        if let Some(cache) = cache {
            cache.own.advance(seq);
        }
        hidden
    }
}

/// Sum of token and position vectors, normalised in BART.
#[derive(Module, Debug)]
pub struct BartEmbeddings<B: Backend> {
    /// Tokens, where they are not shared: `[vocab_size, d_model]`.
    pub embed_tokens: Option<Embedding<B>>,
    /// Positions, where they are learned: `[2 + max_position_embeddings, d_model]`, the first two unused.
    pub embed_positions: Option<Embedding<B>>,
    /// Over d_model.
    pub layernorm_embedding: Option<LayerNorm<B>>,
    scale: f64,
    pad: usize,
    dropout: f64,
}

impl<B: Backend> BartEmbeddings<B> {
    /// - read: tokens of each row that were read before
    /// - dtype: what the model computes in
    /// - out: `[batch * seq, d_model]`
    ///
    /// # Panics
    ///
    /// Where there is neither an own table nor a shared one.
    fn forward(
        &self,
        shared: Option<&Embedding<B>>,
        tokens: Tensor<B, 2, Int>,
        read: usize,
        dtype: DType,
    ) -> Tensor<B, 2> {
        let [batch, seq] = tokens.dims();
        let table = self.embed_tokens.as_ref().or(shared);
        let table = table.expect("a table of tokens");
        let [_, d_model] = table.weight.dims();
        let mut words = look_up(table, tokens.clone(), dtype);
        if B::ad_enabled(&words.device()) {
            // As PyTorch has it of a table with a `padding_idx`.
            let pads = tokens.equal_elem(self.pad as i64).unsqueeze_dim::<3>(2);
            let fixed = words.clone().detach();
            words = words.mask_where(pads.expand([batch, seq, d_model]), fixed);
        }
        if self.scale != 1.0 {
            words = words * self.scale;
        }
        let positions = match &self.embed_positions {
            Some(table) => table.weight.val().narrow(0, FIRST_POSITION + read, seq),
            None => waves(read..read + seq, d_model, &words.device()).cast(words.dtype()),
        };
        let flat = [batch, seq * d_model];
        let sum = words.reshape(flat) + positions.reshape([1, seq * d_model]);
        let mut hidden = sum.reshape([batch * seq, d_model]);
        if let Some(norm) = &self.layernorm_embedding {
            hidden = norm.forward(hidden);
        }
        dropout(hidden, self.dropout)
    }
}

/// Self-attention, in a decoder attention to the encoder, and feed-forward: each added to its input and normalised.
#[derive(Module, Debug)]
pub struct BartLayer<B: Backend> {
    /// To the text itself.
    pub self_attn: Attention<B>,
    /// After it.
    pub self_attn_layer_norm: LayerNorm<B>,
    /// To the encoder's states.
    pub encoder_attn: Option<Attention<B>>,
    /// After it.
    pub encoder_attn_layer_norm: Option<LayerNorm<B>>,
    /// `[d_model, d_ff]`
    pub fc1: Linear<B>,
    /// `[d_ff, d_model]`
    pub fc2: Linear<B>,
    /// After the feed-forward block.
    pub final_layer_norm: LayerNorm<B>,
    activation: Activation,
    dropout: f64,
    activation_dropout: f64,
}

impl<B: Backend> BartLayer<B> {
    /// - hidden, out: `[batch * seq, d_model]`
    /// - chosen: the rows that come out, where it is not all of them
    fn forward(
        &self,
        hidden: Tensor<B, 2>,
        shape: [usize; 2],
        mask: &AttentionMask<B>,
        encoded: Option<&Encoded<B>>,
        mut cache: Option<(&mut Seq2SeqCache<B>, usize)>,
        chosen: Option<Tensor<B, 1, Int>>,
    ) -> Tensor<B, 2> {
        let own = cache.as_mut();
        let own = own.map(|(cache, number)| (&mut cache.own, *number));
        let context = self.self_attn.forward(hidden.clone(), shape, mask, own);
        let norm = &self.self_attn_layer_norm;
        let mut hidden = norm.forward_sum(context, hidden, self.dropout);
        let across = (&self.encoder_attn, &self.encoder_attn_layer_norm, encoded);
        if let (Some(attention), Some(norm), Some(encoded)) = across {
            let context = attention.across(hidden.clone(), encoded, cache);
            hidden = norm.forward_sum(context, hidden, self.dropout);
        }
        if let Some(chosen) = chosen {
            hidden = hidden.select(0, chosen);
        }
        let wide = self.activation.apply(self.fc1.forward(hidden.clone()));
        let narrow = self.fc2.forward(dropout(wide, self.activation_dropout));
        self.final_layer_norm
            .forward_sum(narrow, hidden, self.dropout)
    }
}
