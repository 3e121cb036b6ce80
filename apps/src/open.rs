//! What `--model`, `--backend` and `--output` name: opened and checked before any work is done.

use std::path::Path;

use anyhow::Context;
use clap::Args;
use data::TextTokenizer;
use finetune::strategy;
use model::bundle::TOKENIZER;
use model::{AutoencoderConfig, BertConfig, Bundle};
use train::run::write_atomically;
use train::{BackendName, Failure};

/// Flags of every command.
#[derive(Args, Clone, Debug)]
pub struct ModelFlags {
    /// A bundle, a run directory, or the bundled wordnet-bert-nano
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// cuda, metal, vulkan, wgpu, flex or ndarray [default: the best one compiled in]
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
}

impl ModelFlags {
    /// The bundle, its weights not yet read.
    pub fn bundle(&self) -> Result<Bundle, Failure> {
        let bundle = strategy::open(&self.model)?;
        bundle.ok_or_else(|| {
            Failure::input("--model is \"scratch\"; it must name a bundle or a run directory")
        })
    }

    /// What the model runs on.
    pub fn backend(&self) -> Result<BackendName, Failure> {
        BackendName::choose(self.backend.as_deref())
    }
}

/// Sizes and tokenizer of a text model.
pub fn text_model(bundle: &Bundle) -> Result<(BertConfig, TextTokenizer), Failure> {
    let config = BertConfig {
        // Nothing is dropped here, so that no value of these can be wrong.
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        ..bundle.bert_config()?
    };
    let place = bundle.path().join(TOKENIZER).display().to_string();
    let tokenizer = TextTokenizer::from_bytes(&bundle.read(TOKENIZER)?);
    let tokenizer = tokenizer
        .with_context(|| place.clone())
        .map_err(Failure::Input)?;
    // The encoder panics on an id that its table does not have.
    if tokenizer.vocab_size() > config.vocab_size {
        return Err(Failure::input(format!(
            "{place}: has {} tokens, and the model's vocab_size is {}",
            tokenizer.vocab_size(),
            config.vocab_size
        )));
    }
    Ok((config, tokenizer))
}

/// Sizes of an image model, checked.
pub fn image_model(bundle: &Bundle) -> Result<AutoencoderConfig, Failure> {
    let config: AutoencoderConfig = bundle.config()?;
    let wrong = |reason| Failure::input(format!("{}: {reason}", bundle.path().display()));
    config.check().map_err(wrong)?;
    Ok(config)
}

/// Refuses an output file that can't be written, or that is the input.
pub fn check_output(output: &Path, input: &str) -> Result<(), Failure> {
    let wrong = |reason: &str| Err(Failure::input(format!("{}: {reason}", output.display())));
    let folder = output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if output.file_name().is_none() || output.is_dir() {
        return wrong("is a directory; --output names a file");
    }
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return wrong("its directory does not exist");
    }
    match (output.canonicalize(), Path::new(input).canonicalize()) {
        (Ok(output), Ok(input)) if output == input => wrong("is the input too"),
        _ => Ok(()),
    }
}

/// Writes an output file, in place of one that was there.
pub fn write_output(output: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = write_atomically(output, bytes);
    written
        .with_context(|| output.display().to_string())
        .map_err(Failure::Running)
}
