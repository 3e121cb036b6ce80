//! Batches of token sequences, padded on the right to the longest.

use burn::prelude::*;
use burn::tensor::TensorData;
use data::TextTokenizer;
use model::{BertConfig, BertInput};

use crate::failure::Failure;
use crate::recipe::Impossible;
use crate::run;

/// Token ids, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// `[batch, seq]`, row-major.
    pub tokens: Vec<i32>,
    /// Real tokens of each row.
    pub lengths: Vec<usize>,
    /// Longest row.
    pub seq: usize,
}

impl TokenBatch {
    /// Pads rows with `pad` to the longest of them.
    pub fn pad<'a>(rows: impl Iterator<Item = &'a [u32]> + Clone, pad: u32) -> Self {
        let lengths: Vec<_> = rows.clone().map(<[u32]>::len).collect();
        let seq = lengths.iter().copied().max().unwrap_or(0);
        let mut tokens = Vec::with_capacity(lengths.len() * seq);
        for row in rows {
            tokens.extend(row.iter().map(|&id| id as i32));
            tokens.resize(tokens.len() + seq - row.len(), pad as i32);
        }
        Self {
            tokens,
            lengths,
            seq,
        }
    }

    /// Real tokens.
    pub fn real(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The encoder's input; no mask when nothing is padded.
    pub fn input<B: Backend>(&self, device: &B::Device) -> BertInput<B> {
        let shape = [self.lengths.len(), self.seq];
        let tokens = TensorData::new(self.tokens.clone(), shape);
        let padded = self.real() < self.tokens.len();
        let mask_pad = padded.then(|| {
            let row = |&length: &usize| (0..self.seq).map(move |at| at >= length);
            let mask: Vec<bool> = self.lengths.iter().flat_map(row).collect();
            Tensor::from_data(TensorData::new(mask, shape), device)
        });
        BertInput {
            tokens: Tensor::from_data(tokens, device),
            token_types: None,
            mask_pad,
        }
    }
}

/// Refuses sequences longer than the model has positions for.
pub fn check_lengths(max_length: usize, positions: usize) -> Result<(), Impossible> {
    let wrong = |reason| Err(Impossible::new("tokenizer.max_length", reason));
    if max_length < 3 {
        return wrong(format!("is {max_length}; [CLS], a token and [SEP] need 3"));
    }
    if max_length > positions {
        return wrong(format!(
            "is {max_length}, longer than the model's {positions} positions (model.max_position_embeddings)"
        ));
    }
    Ok(())
}

/// Says why this encoder can't be built here, if it can't: Burn would panic, or the allocator abort.
pub fn check_model(config: &BertConfig) -> Result<(), String> {
    for dropout in [
        config.hidden_dropout_prob,
        config.attention_probs_dropout_prob,
    ] {
        if !(0.0..1.0).contains(&dropout) {
            return Err(format!(
                "dropout is {dropout}; it must be at least 0 and below 1"
            ));
        }
    }
    let vectors = [
        config.vocab_size,
        config.max_position_embeddings,
        config.type_vocab_size,
    ];
    // In floats: absurd sizes overflow every integer.
    let vectors: f64 = vectors.iter().map(|&n| n as f64).sum();
    let [d_model, wide] = [config.hidden_size, config.intermediate_size].map(|n| n as f64);
    // 512 stand for biases, norms and the structures around them.
    let layer = 4.0 * d_model * d_model + 2.0 * d_model * wide + 512.0;
    run::check_memory(vectors * d_model + config.num_hidden_layers as f64 * layer)
}

/// What a text model's bundle holds beside configuration and weights.
pub fn bundle_files(
    tokenizer: &TextTokenizer,
    positions: usize,
) -> Result<Vec<(&'static str, String)>, Failure> {
    // Named in full: without it transformers rebuilds the tokenizer from BERT's defaults.
    let config = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    });
    Ok(vec![
        (model::bundle::TOKENIZER, tokenizer.to_json()?),
        ("tokenizer_config.json", format!("{config:#}\n")),
    ])
}
