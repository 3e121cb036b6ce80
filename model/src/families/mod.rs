//! Model families, one file each: the configuration, the names in a bundle, the layers, the forward pass.
//!
//! A family is registered by one line in [`crate::registry`].

use burn::prelude::*;
use burn::tensor::DType;

pub mod bart;
pub mod bert;
pub mod cnn;
pub mod conv_autoencoder;
pub mod convnext;
pub mod distilbert;
pub mod electra;
pub mod gpt2;
pub mod gru;
pub mod llama;
pub mod lstm;
pub mod marian;
pub mod mlp;
pub mod mobilenet_v2;
pub mod qwen2;
pub mod resnet;
pub mod roberta;
pub mod small_resnet;
pub mod t5;
pub mod unet;
pub mod vgg;
pub mod vit;

/// Whose state a classifier reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first token's.
    First,
    /// The last token's that is not padding.
    Last,
}

/// What registry and heads need to know of a text family's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Layers.
    pub layers: usize,
    /// Tokens of the longest sequence.
    pub positions: usize,
    /// Whether a token sees those before it alone.
    pub causal: bool,
    /// Segments that it tells apart; 0 and 1 are none.
    pub segments: usize,
    /// Standard deviation of initial weights.
    pub std: f64,
    /// Number of parameters, roughly.
    pub parameters: f64,
}

/// What registry, heads and batches need to know of an encoder-decoder's configuration.
#[derive(Clone, Debug)]
pub struct Seq2SeqPlan {
    /// Rows of the encoder's token table.
    pub vocab_size: usize,
    /// Rows of the decoder's token table, and words that are scored.
    pub target_vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Layers of the encoder and of the decoder.
    pub layers: [usize; 2],
    /// Tokens of the longest sequence, where there is a longest.
    pub positions: Option<usize>,
    /// What the decoder reads first.
    pub start: u32,
    /// The padding token.
    pub pad: u32,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// What a text that is cut off ends with, where no other file says so.
    pub forced_eos: Vec<u32>,
    /// Whether the decoder's token table scores the words too.
    pub tied: bool,
    /// Whether each word has a bias, which no training changes.
    pub bias: bool,
    /// What states are multiplied by before words are scored.
    pub scale: f64,
    /// Standard deviation of a head's initial weights.
    pub std: f64,
    /// Number of parameters, roughly.
    pub parameters: f64,
}

/// Special tokens of a model of two texts, which both have one vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seq2SeqTokens {
    /// Fills a batch up.
    pub pad: u32,
    /// What the decoder reads first.
    pub start: u32,
    /// Ends a text.
    pub eos: u32,
}

/// What an encoder made of a batch of texts.
#[derive(Clone, Debug)]
pub struct Encoded<B: Backend> {
    /// Of the last layer, `[batch * seq, d_model]`.
    pub states: Tensor<B, 2>,
    /// Texts, and tokens of each.
    pub shape: [usize; 2],
    /// Added to the scores of a decoder's attention where there is padding, `[batch, 1, 1, seq]`.
    pub bias: Option<Tensor<B, 4>>,
}

/// What registry, heads and data need to know of an image family's configuration.
#[derive(Clone, Debug)]
pub struct ImagePlan {
    /// Channels of an image: 1 grey, 3 RGB.
    pub channels: usize,
    /// Height and width of an image, where the configuration has them.
    pub size: Option<[usize; 2]>,
    /// Values that a classifier reads of an image.
    pub width: usize,
    /// Channels of the maps of each level, the finest first.
    pub levels: Vec<usize>,
    /// Number of parameters, roughly.
    pub parameters: f64,
}

/// What a backbone sees in images.
#[derive(Clone, Debug)]
pub struct Pyramid<B: Backend> {
    /// Maps, `[batch, channels, rows, columns]` each, the finest first; none where a family has none.
    pub levels: Vec<Tensor<B, 4>>,
    /// What a classifier reads, `[batch, width]`.
    pub pooled: Tensor<B, 2>,
}

/// A batch of token sequences, padded on the right.
#[derive(Clone, Debug)]
pub struct TokenInput<B: Backend> {
    /// Token ids, `[batch, seq]`.
    pub tokens: Tensor<B, 2, Int>,
    /// Segment ids, `[batch, seq]`; segment 0 everywhere when absent.
    pub token_types: Option<Tensor<B, 2, Int>>,
    /// True where there is padding, `[batch, seq]`; absent when no row is padded. Where padding stands in what a cache has read,
    /// it is of that too: `[batch, read + seq]`.
    pub mask_pad: Option<Tensor<B, 2, Bool>>,
    /// Which text of its row a token belongs to, `[batch, seq]`: texts of one row do not see each other. Absent when a row
    /// is a text.
    pub texts: Option<Tensor<B, 2, Int>>,
    /// Each token's place in its text, `[batch, seq]`; counted from the row's beginning when absent.
    pub positions: Option<Tensor<B, 2, Int>>,
}

impl<B: Backend> TokenInput<B> {
    /// Token ids alone: no padding, a text a row.
    pub fn new(tokens: Tensor<B, 2, Int>) -> Self {
        Self {
            tokens,
            token_types: None,
            mask_pad: None,
            texts: None,
            positions: None,
        }
    }

    /// What is added to the attention scores: 0, or a value no softmax survives, where there is padding or another text.
    ///
    /// - before: keys of every text in front of those of its tokens
    /// - out: `[batch, 1, 1, before + seq]`, or `[batch, 1, seq, seq]` where a row holds several texts
    ///
    /// # Panics
    ///
    /// If a row holds several texts and something is in front of it.
    pub fn attention_bias(&self, before: usize, dtype: DType) -> Option<Tensor<B, 4>> {
        let [batch, seq] = self.tokens.dims();
        // Finite: a row of nothing but padding must not become NaN.
        let bias = |hidden: Tensor<B, 4, Bool>| hidden.float().mul_scalar(-1e30).cast(dtype);
        if let Some(texts) = &self.texts {
            assert_eq!(before, 0, "nothing is in front of each of several texts");
            let keys: Tensor<B, 4, Int> = texts.clone().reshape([batch, 1, 1, seq]);
            let queries: Tensor<B, 4, Int> = texts.clone().reshape([batch, 1, seq, 1]);
            let shape = [batch, 1, seq, seq];
            return Some(bias(queries.expand(shape).not_equal(keys.expand(shape))));
        }
        let mut mask = self.mask_pad.clone()?;
        let [_, masked] = mask.dims();
        if masked < before + seq {
            let seen = Tensor::<B, 2, Int>::zeros([batch, before], &mask.device()).bool();
            mask = Tensor::cat(vec![seen, mask], 1);
        }
        Some(bias(mask.reshape([batch, 1, 1, before + seq])))
    }

    /// The same of rows that hold a text each: `[batch, 1, 1, seq]`.
    ///
    /// # Panics
    ///
    /// If rows hold several texts.
    pub(crate) fn padding_bias(&self, dtype: DType) -> Option<Tensor<B, 4>> {
        assert!(
            self.texts.is_none() && self.positions.is_none(),
            "an encoder-decoder takes one text a row"
        );
        self.attention_bias(0, dtype)
    }
}

/// Refuses a size of 0.
pub(crate) fn check_sizes(sizes: &[(&str, usize)]) -> Result<(), String> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(format!("{name} is 0")),
        None => Ok(()),
    }
}

/// Refuses layers that are none, or of a width of 0.
pub(crate) fn check_widths(widths: &[usize]) -> Result<(), String> {
    if widths.is_empty() || widths.contains(&0) {
        return Err(format!(
            "hidden_sizes are {widths:?}; there must be one, and each at least 1"
        ));
    }
    Ok(())
}

/// Refuses heads that do not divide the width.
pub(crate) fn check_heads(n_heads: usize, d_model: usize) -> Result<(), String> {
    if d_model.is_multiple_of(n_heads) {
        return Ok(());
    }
    Err(format!(
        "{n_heads} attention heads do not divide a width of {d_model}"
    ))
}

/// Refuses special tokens that are not in the vocabulary.
pub(crate) fn check_tokens(tokens: &[(&str, u32)], vocab_size: usize) -> Result<(), String> {
    match tokens.iter().find(|(_, id)| *id as usize >= vocab_size) {
        Some((name, id)) => Err(format!(
            "{name} is {id}, which is outside the {vocab_size} tokens"
        )),
        None => Ok(()),
    }
}

/// Refuses what is no share.
pub(crate) fn check_dropout(rates: &[f64]) -> Result<(), String> {
    match rates.iter().find(|rate| !(0.0..1.0).contains(*rate)) {
        Some(rate) => Err(format!(
            "dropout is {rate}; it must be at least 0 and below 1"
        )),
        None => Ok(()),
    }
}
