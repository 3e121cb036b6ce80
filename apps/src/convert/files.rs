//! Files of a bundle, and which directory may become one. In: places. Out: a refusal, or nothing.

use std::fs;
use std::path::{Component, Path};

use model::bundle::{self, TOKENIZER_FILES};
use serde_json::Value;
use train::Failure;
use train::run::check_writable;

use crate::open;

/// What `sentence-transformers` makes of a model's states, a folder each.
pub(super) const MODULES: &str = "modules.json";

/// Files beside configuration, weights and tokenizer that go with a model.
pub(super) const BESIDE: [&str; 11] = [
    bundle::GENERATION,
    bundle::PREPROCESSOR,
    MODULES,
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    // Vocabularies of tokenizers that Python has.
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "source.spm",
    "target.spm",
];

/// Folders inside the model's that its modules are in.
///
/// - modules: [`MODULES`], or nothing
pub(super) fn folders_of_modules(modules: &[u8]) -> Vec<String> {
    let modules: Vec<Value> = serde_json::from_slice(modules).unwrap_or_default();
    let folders = modules.iter().filter_map(|module| module["path"].as_str());
    let is_inside = |folder: &&str| {
        let mut parts = Path::new(folder).components();
        !folder.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    folders.filter(is_inside).map(str::to_string).collect()
}

/// Whether a directory is there that is to be replaced.
///
/// - what: will be written
///
/// # Errors
///
/// A place that cannot become a directory, or one that exists without `force`.
pub(super) fn is_replaced(output: &Path, force: bool, what: &str) -> Result<bool, Failure> {
    let wrong = |reason: &str| Err(Failure::input(format!("{}: {reason}", output.display())));
    if output.file_name().is_none() {
        return wrong("is no name for a directory");
    }
    open::folder_of(output)?;
    if output.is_file() {
        return wrong(&format!("is a file; the {what} is a directory"));
    }
    if let Err(error) = check_writable(output) {
        return wrong(&format!("cannot be written: {error}"));
    }
    if output.exists() && !force {
        return wrong("exists; --force replaces it");
    }
    Ok(output.exists())
}

/// Refuses a place that cannot become a bundle, or where something that is no model would be lost.
pub(super) fn check_output(output: &Path, force: bool) -> Result<(), Failure> {
    let wrong = |reason: &str| Err(Failure::input(format!("{}: {reason}", output.display())));
    if !is_replaced(output, force, "new bundle")? {
        return Ok(());
    }
    if !output.join(bundle::CONFIG).is_file() {
        return wrong("holds no model; --force replaces models only");
    }
    let entries = output.read_dir().map_err(Failure::running)?;
    let modules = fs::read(output.join(MODULES)).unwrap_or_default();
    let modules = folders_of_modules(&modules);
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let is_part = |name: &str| {
        is_part_of_a_model(name)
            || modules
                .iter()
                .any(|folder| Path::new(folder).starts_with(name))
    };
    match names.find(|name| !is_part(&name.to_string_lossy())) {
        Some(name) => wrong(&format!(
            "holds {}, which is no part of a model; --force replaces models only",
            name.display()
        )),
        None => Ok(()),
    }
}

/// Whether a file with this name is one that a model consists of.
fn is_part_of_a_model(name: &str) -> bool {
    let weights = [".safetensors", ".safetensors.index.json"];
    name == bundle::CONFIG
        || name.starts_with("pytorch_model")
        || weights.iter().any(|end| name.ends_with(end))
        || TOKENIZER_FILES.contains(&name)
        || BESIDE.contains(&name)
}

/// Refuses to replace a directory that holds what is read.
pub(super) fn check_apart(output: &Path, input: &Path) -> Result<(), Failure> {
    match (output.canonicalize(), input.canonicalize()) {
        (Ok(output), Ok(input)) if input != output && input.starts_with(&output) => {
            let reason = format!("{}: holds {}", output.display(), input.display());
            Err(Failure::input(reason))
        }
        _ => Ok(()),
    }
}
