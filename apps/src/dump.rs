//! What an encoder computes, for other programs to compare with. In: a bundle and texts. Out: safetensors.
//!
//! `input_ids` and `attention_mask` (1 = real token), `[n, seq]`, 64-bit integers; `logits`,
//! `[n, seq, vocab_size]`, of a masked LM, or `hidden`, `[n, seq, d_model]`, of a bare encoder, 32-bit floats.
//! `tests/interop` holds the programs that compare them with Python's `transformers`.

use std::path::PathBuf;

use anyhow::Context;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use data::text::TextColumns;
use data::{TextTokenizer, source};
use model::bundle::{Architecture, Load};
use model::{BertConfig, BertInput, BertMaskedLm, Bundle};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use train::backend::with_backend;
use train::text::TokenBatch;
use train::{Failure, WithBackend};

use crate::open::{self, ModelFlags};

/// Texts in a forward pass.
const BATCH: usize = 16;

/// Write what an encoder computes for texts, to compare it with another program's
#[derive(Args, Clone, Debug)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// Texts (.txt .csv .tsv .jsonl, each also .gz)
    #[arg(long, value_name = "FILE")]
    pub input: String,
    /// The safetensors file; grows with texts, tokens and vocabulary
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Tokens of some texts, and what an encoder makes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// Token ids, padded to the longest text.
    pub inputs: TokenBatch,
    /// `logits` or `hidden`.
    pub name: &'static str,
    /// `[n, seq, width]`, row-major.
    pub values: Vec<f32>,
}

impl Dump {
    /// Runs the model of a `BertForMaskedLM` or `BertModel` bundle over texts.
    pub fn of<B: Backend>(
        bundle: &Bundle,
        texts: &[impl AsRef<str> + Sync],
        device: &B::Device,
    ) -> Result<Self, Failure> {
        bundle.require(&[Architecture::BertForMaskedLm, Architecture::BertModel])?;
        let (config, tokenizer) = open::text_model(bundle)?;
        let inputs = encode(&config, &tokenizer, texts)?;
        if bundle.architecture() == Architecture::BertForMaskedLm {
            let model: BertMaskedLm<B> = BertMaskedLm::new(&config, device);
            let model = bundle.load(model, Load::Whole)?;
            return Ok(Self::in_batches(
                inputs,
                "logits",
                |input| model.forward(input),
                device,
            ));
        }
        let bare = Load::Backbone {
            prefix: "",
            optional: "",
        };
        let model = bundle.load(config.init::<B>(device), bare)?;
        Ok(Self::in_batches(
            inputs,
            "hidden",
            |input| model.forward(input),
            device,
        ))
    }

    fn in_batches<B: Backend>(
        inputs: TokenBatch,
        name: &'static str,
        forward: impl Fn(BertInput<B>) -> Tensor<B, 3>,
        device: &B::Device,
    ) -> Self {
        let tokens = inputs.tokens.chunks(BATCH * inputs.seq);
        let mut values = Vec::new();
        for (tokens, lengths) in tokens.zip(inputs.lengths.chunks(BATCH)) {
            let batch = TokenBatch {
                tokens: tokens.to_vec(),
                lengths: lengths.to_vec(),
                seq: inputs.seq,
            };
            values.extend(forward(batch.input(device)).into_data().iter::<f32>());
        }
        Self {
            inputs,
            name,
            values,
        }
    }

    /// Number of texts, their longest length in tokens, and values a token.
    pub fn shape(&self) -> [usize; 3] {
        let (n, seq) = (self.inputs.lengths.len(), self.inputs.seq);
        [n, seq, self.values.len() / (n * seq).max(1)]
    }

    /// As a safetensors file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let seq = self.inputs.seq;
        let real = |&length: &usize| (0..seq).map(move |at| i64::from(at < length));
        let mask = self.inputs.lengths.iter().flat_map(real);
        let ids = self.inputs.tokens.iter().map(|&id| i64::from(id));
        let ids: Vec<u8> = ids.flat_map(i64::to_le_bytes).collect();
        let mask: Vec<u8> = mask.flat_map(i64::to_le_bytes).collect();
        let values: Vec<u8> = self
            .values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let [n, seq, width] = self.shape();
        let views = [
            (
                "input_ids",
                TensorView::new(Dtype::I64, vec![n, seq], &ids)?,
            ),
            (
                "attention_mask",
                TensorView::new(Dtype::I64, vec![n, seq], &mask)?,
            ),
            (
                self.name,
                TensorView::new(Dtype::F32, vec![n, seq, width], &values)?,
            ),
        ];
        safetensors::serialize(views, None)
    }
}

/// All texts in one block, cut at the model's positions.
fn encode(
    config: &BertConfig,
    tokenizer: &TextTokenizer,
    texts: &[impl AsRef<str> + Sync],
) -> Result<TokenBatch, Failure> {
    let rows = tokenizer.encode(texts, config.max_position_embeddings)?;
    Ok(TokenBatch::pad(
        rows.iter().map(Vec::as_slice),
        tokenizer.pad(),
    ))
}

/// Dumps what the flags name, and gives what is printed.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend()?;
    open::check_output(&flags.output, &flags.input)?;
    let bundle = flags.model.bundle()?;
    bundle.require(&[Architecture::BertForMaskedLm, Architecture::BertModel])?;
    let set = source::texts(std::slice::from_ref(&flags.input), &TextColumns::default())?;
    let texts = set
        .examples
        .into_iter()
        .map(|example| example.text)
        .collect();
    let dump = with_backend(backend, Work { bundle, texts })??;
    let bytes = dump
        .to_bytes()
        .context("serialising")
        .map_err(Failure::Running)?;
    open::write_output(&flags.output, &bytes)?;
    let [n, seq, width] = dump.shape();
    let (name, output) = (dump.name, flags.output.display());
    Ok(format!(
        "wrote {output}: {name} of {n} texts, {seq} tokens, {width} values a token\n"
    ))
}

/// Prepared work, waiting for its backend.
struct Work {
    bundle: Bundle,
    texts: Vec<String>,
}

impl WithBackend for Work {
    type Output = Result<Dump, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        Dump::of::<B::InnerBackend>(&self.bundle, &self.texts, &device)
    }
}
