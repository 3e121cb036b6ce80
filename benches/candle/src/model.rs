//! BERT with the masked-LM head, post-norm, from candle operations that have a backward. In: token ids. Out: logits.
//!
//! `candle_nn::LayerNorm`, `ops::layer_norm`, `ops::softmax_last_dim` and `ops::sdpa` cut the graph without a word in
//! 0.11.1, so none of them is used here.

use candle_core::{D, Result, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder, ops};

const NORMAL: Init = Init::Randn {
    mean: 0.0,
    stdev: 0.02,
};

/// Sizes of a model.
pub struct Config {
    pub vocab_size: usize,
    pub d_model: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub d_ff: usize,
    pub max_positions: usize,
}

/// BERT that fills masks.
pub struct BertMaskedLm {
    words: Tensor,
    positions: Tensor,
    types: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    transform: Linear,
    transform_norm: LayerNorm,
    decoder_bias: Tensor,
}

impl BertMaskedLm {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let d_model = config.d_model;
        let table = |n, name| vb.get_with_hints((n, d_model), name, NORMAL);
        Ok(Self {
            words: table(config.vocab_size, "words")?,
            positions: table(config.max_positions, "positions")?,
            types: table(2, "types")?,
            norm: LayerNorm::new(d_model, vb.pp("norm"))?,
            layers: (0..config.n_layers)
                .map(|n| Layer::new(config, vb.pp("layer").pp(n)))
                .collect::<Result<_>>()?,
            transform: linear(d_model, d_model, vb.pp("transform"))?,
            transform_norm: LayerNorm::new(d_model, vb.pp("transform_norm"))?,
            decoder_bias: vb.get_with_hints(config.vocab_size, "decoder_bias", Init::Const(0.0))?,
        })
    }

    /// Logits of every position.
    ///
    /// - tokens: `[batch, seq]`
    /// - bias: `[batch, 1, 1, seq]`, added to the attention scores
    /// - out: `[batch * seq, vocab_size]`
    pub fn forward(&self, tokens: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let mut hidden = self.embed(tokens)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, bias)?;
        }
        let hidden = self.transform.forward(&hidden)?.gelu_erf()?;
        let hidden = self.transform_norm.forward(&hidden)?;
        let logits = hidden.matmul(&self.words.t()?)?;
        logits.broadcast_add(&self.decoder_bias)
    }

    /// - tokens: `[batch, seq]`
    /// - out: `[batch * seq, d_model]`; flat, so that each projection is one matrix product
    fn embed(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, seq) = tokens.dims2()?;
        let words = self.words.index_select(&tokens.flatten_all()?, 0)?;
        let positions = self.positions.narrow(0, 0, seq)?;
        // All tokens are of the first segment.
        let places = positions.broadcast_add(&self.types.narrow(0, 0, 1)?)?;
        let sum = words
            .reshape((batch, seq, ()))?
            .broadcast_add(&places)?
            .flatten(0, 1)?;
        self.norm.forward(&sum)
    }
}

/// Attention and feed-forward, each added to its input and normalised.
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    projection: Linear,
    attention_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    output_norm: LayerNorm,
    n_heads: usize,
}

impl Layer {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (d_model, d_ff) = (config.d_model, config.d_ff);
        let square = |name| linear(d_model, d_model, vb.pp(name));
        Ok(Self {
            query: square("query")?,
            key: square("key")?,
            value: square("value")?,
            projection: square("projection")?,
            attention_norm: LayerNorm::new(d_model, vb.pp("attention_norm"))?,
            widen: linear(d_model, d_ff, vb.pp("widen"))?,
            narrow: linear(d_ff, d_model, vb.pp("narrow"))?,
            output_norm: LayerNorm::new(d_model, vb.pp("output_norm"))?,
            n_heads: config.n_heads,
        })
    }

    /// - hidden, out: `[batch * seq, d_model]`
    /// - bias: `[batch, 1, 1, seq]`
    fn forward(&self, hidden: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let context = self.projection.forward(&self.attention(hidden, bias)?)?;
        let hidden = self.attention_norm.forward(&(context + hidden)?)?;
        let wide = self.widen.forward(&hidden)?.gelu_erf()?;
        let narrow = self.narrow.forward(&wide)?;
        self.output_norm.forward(&(narrow + hidden)?)
    }

    /// - hidden, out: `[batch * seq, d_model]`
    /// - bias: `[batch, 1, 1, seq]`
    fn attention(&self, hidden: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (batch, _, _, seq) = bias.dims4()?;
        let (_, d_model) = hidden.dims2()?;
        let d_head = d_model / self.n_heads;
        let heads = |projection: &Linear| {
            projection
                .forward(hidden)?
                .reshape((batch, seq, self.n_heads, d_head))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (query, key, value) = (heads(&self.query)?, heads(&self.key)?, heads(&self.value)?);
        let query = (query / (d_head as f64).sqrt())?;
        let scores = query.matmul(&key.t()?)?.broadcast_add(bias)?;
        let context = ops::softmax(&scores, D::Minus1)?.matmul(&value)?;
        context.transpose(1, 2)?.reshape((batch * seq, d_model))
    }
}

/// Layer norm over the last dimension.
struct LayerNorm {
    scale: Tensor,
    shift: Tensor,
}

impl LayerNorm {
    fn new(d_model: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            scale: vb.get_with_hints(d_model, "scale", Init::Const(1.0))?,
            shift: vb.get_with_hints(d_model, "shift", Init::Const(0.0))?,
        })
    }

    fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        ops::layer_norm_slow(hidden, &self.scale, &self.shift, 1e-12)
    }
}

fn linear(d_input: usize, d_output: usize, vb: VarBuilder) -> Result<Linear> {
    let weight = vb.get_with_hints((d_output, d_input), "weight", NORMAL)?;
    let bias = vb.get_with_hints(d_output, "bias", Init::Const(0.0))?;
    Ok(Linear::new(weight, Some(bias)))
}
