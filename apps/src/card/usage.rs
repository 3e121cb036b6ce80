//! How a model is used: commands for its head, and Python's `transformers` where that opens it.

use model::{Bundle, HeadKind, bundle};

use super::front_matter::library;
use super::markdown::code;

/// Placeholder for the folder of the model in the commands of a card. It is not `.`: commands refuse to write into the folder of
/// the model that they read.
pub(super) const FOLDER: &str = "DIR";

/// Commands and code.
///
/// - model: what the commands name: [`FOLDER`], or a bundled model
/// - task: of the run
pub(super) fn usage(bundle: &Bundle, model: &str, task: Option<&str>) -> String {
    let mut text = String::from(if model == FOLDER {
        "With Hearth's `apps`, where `DIR` is the folder of this model:\n\n"
    } else {
        "With Hearth's `apps`, which holds the model:\n\n"
    });
    text += &code("sh", &command(bundle, model, task));
    if library(bundle) == "transformers"
        && model == FOLDER
        && let Some(class) = bundle.class()
    {
        text += "\nIn Python, with `transformers`:\n\n";
        text += &code("python", &python(bundle, class));
    }
    text
}

fn command(bundle: &Bundle, model: &str, task: Option<&str>) -> String {
    let is_text = bundle.is_text();
    let apps = |command: &str, rest: &str| format!("apps {command} --model {model} {rest}");
    let is_of_pairs = task == Some("pair-classification");
    match bundle.head() {
        HeadKind::Bare if is_text && !bundle.family().is_of_two_texts() => {
            apps("embed", "--text \"a text\" --text \"another\"")
        }
        HeadKind::Tokens if bundle.family().is_of_two_texts() => {
            apps("predict", "--text \"a text\"")
        }
        HeadKind::Tokens => match bundle.text_config() {
            Ok(config) if config.describe().causal => {
                apps("generate", "\"the beginning of a text\"")
            }
            Ok(_) | Err(_) => apps("fill-mask", "\"a text with one [MASK]\""),
        },
        HeadKind::SentencePairs => apps("fill-mask", "\"a text with one [MASK]\""),
        HeadKind::Classes if is_text && is_of_pairs => {
            apps("predict", "--text \"a text\" --pair \"another\"")
        }
        HeadKind::Classes if is_text => apps("predict", "--text \"a text\""),
        HeadKind::Classes => apps("predict", "--input photo.png"),
        HeadKind::TokenClasses => apps("predict", "--text \"a text\""),
        HeadKind::Spans => apps(
            "predict",
            "--text \"a text\" --question \"a question about it\"",
        ),
        HeadKind::Choices => apps(
            "predict",
            "--text \"a question\" --choice \"one\" --choice \"another\"",
        ),
        HeadKind::Pixels | HeadKind::Variational | HeadKind::Codes => {
            apps("reconstruct", "--input photos/ --output reconstruction.png")
        }
        HeadKind::Bare
        | HeadKind::Replaced
        | HeadKind::Patches
        | HeadKind::Masks
        | HeadKind::Boxes => {
            let input = if is_text { "texts.txt" } else { "photos/" };
            apps(
                "dump",
                &format!("--input {input} --output dump.safetensors"),
            )
        }
    }
}

fn python(opened: &Bundle, class: &str) -> String {
    let has = |name: &str| matches!(opened.read_optional(name), Ok(Some(_)));
    let prepares = if has(bundle::TOKENIZER) {
        Some(("AutoTokenizer", "tokenizer"))
    } else if has(bundle::PREPROCESSOR) {
        Some(("AutoImageProcessor", "processor"))
    } else {
        None
    };
    let (imported, line) = match prepares {
        Some((kind, name)) => (
            format!("{kind}, {class}"),
            format!("{name} = {kind}.from_pretrained(\"DIR\")\n"),
        ),
        None => (class.to_string(), String::new()),
    };
    format!(
        "from transformers import {imported}\n\n{line}model = {class}.from_pretrained(\"DIR\")\n"
    )
}
