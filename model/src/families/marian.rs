//! Marian: BART's encoder and decoder with computed positions, as Hugging Face's `MarianModel` has it.
//!
//! Junczys-Dowmunt et al. 2018, <https://arxiv.org/abs/1804.00344>. In: token ids of two texts. Out: hidden states of the
//! second.

use std::ops::Range;

use burn::prelude::*;
use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};

use crate::families::bart::{self, BartConfig, HEAD, Kind, TIES, yes};
use crate::families::{Seq2SeqPlan, Seq2SeqTokens};
use crate::layers::Draw;
use crate::names::{Family, HeadKind, HeadNames};

/// Encoder and decoder are BART's.
pub type Marian<B> = bart::Bart<B>;

/// Names of Marian in a bundle.
pub const NAMES: Family = Family {
    model_type: "marian",
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "MarianModel",
            renames: &[],
            aliases: bart::NAMES.heads[0].aliases,
        },
        HeadNames {
            kind: HeadKind::Tokens,
            class: "MarianMTModel",
            renames: HEAD,
            aliases: TIES,
        },
    ],
    // Older files hold what is computed here.
    ignored: &["embed_positions.weight"],
    fixed: &[
        ("normalize_before", "false"),
        ("add_final_layer_norm", "false"),
        ("normalize_embedding", "false"),
        ("static_position_embeddings", "true"),
        ("add_bias_logits", "false"),
        ("is_encoder_decoder", "true"),
        ("is_decoder", "false"),
        ("quantization_config", "null"),
    ],
    defaults: &[
        ("pad_token_id", "58100"),
        ("decoder_start_token_id", "58100"),
        ("eos_token_id", "0"),
    ],
    ..bart::NAMES
};

/// What `transformers` ends a text with that is cut off, where `config.json` does not say.
const FORCED_EOS: u32 = 0;

/// `config.json` of a Marian model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarianConfig {
    /// BART's keys, with other defaults where `config.json` leaves them out.
    #[serde(flatten)]
    pub base: BartConfig,
    /// Rows of the decoder's token table; `vocab_size` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder_vocab_size: Option<usize>,
    /// Whether encoder and decoder share a token table.
    #[serde(default = "yes")]
    pub share_encoder_decoder_embeddings: bool,
}

impl MarianConfig {
    fn target_vocab_size(&self) -> usize {
        self.decoder_vocab_size.unwrap_or(self.base.vocab_size)
    }

    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let (source, target) = (self.base.vocab_size, self.target_vocab_size());
        let shared = self.share_encoder_decoder_embeddings;
        if shared && source != target {
            return Err(format!(
                "vocab_size is {source} and decoder_vocab_size {target}; a shared table needs one size"
            ));
        }
        if shared && !self.base.tie_word_embeddings {
            return Err(
                "tie_word_embeddings is false; with a shared token table only true is implemented"
                    .into(),
            );
        }
        self.base.check_for(target)
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> Seq2SeqPlan {
        let target = self.target_vocab_size();
        let plan = self.base.describe_for(target, FORCED_EOS);
        if self.share_encoder_decoder_embeddings {
            return plan;
        }
        Seq2SeqPlan {
            parameters: plan.parameters + target as f64 * plan.d_model as f64,
            ..plan
        }
    }

    /// Sets every dropout to one rate.
    pub fn set_dropout(&mut self, rate: f64) {
        self.base.set_dropout(rate);
    }

    /// Fits the model to a tokenizer of both texts.
    pub fn set_vocabulary(&mut self, vocab_size: usize, tokens: Seq2SeqTokens) {
        self.base.set_vocabulary(vocab_size, tokens);
        self.decoder_vocab_size = Some(vocab_size);
    }

    /// Draws an encoder and a decoder; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> Marian<B> {
        let kind = if self.share_encoder_decoder_embeddings {
            Kind::Marian
        } else {
            Kind::MarianOfTwo(self.target_vocab_size())
        };
        self.base.init_as(kind, draw)
    }
}

/// Vectors of positions: sines in the first half of the columns, cosines in the second, slower from column to column.
///
/// - places: in the text
/// - out: `[places, d_model]`
pub(crate) fn waves<B: Backend>(
    places: Range<usize>,
    d_model: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    let n = places.len();
    let sines = d_model.div_ceil(2);
    let value = |place: usize, column: usize| {
        let pair = column % sines;
        let angle = place as f64 / 10000f64.powf(2.0 * pair as f64 / d_model as f64);
        let wave = if column < sines {
            angle.sin()
        } else {
            angle.cos()
        };
        wave as f32
    };
    let row = |place: usize| (0..d_model).map(move |column| value(place, column));
    let values: Vec<f32> = places.flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, [n, d_model]), device)
}
