//! The YAML at the head of a model card, as the Hugging Face Hub reads it.
//!
//! <https://huggingface.co/docs/hub/model-cards>. A key whose value nothing records is left out.

use data::bundled::BundledSet;
use model::{Bundle, HeadKind, eight_bits};
use serde_json::Value;

use super::Subject;
use crate::record::Record;

/// Licence and languages, as a card that is there already says them: no other file of a bundle does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    /// Identifiers, such as `apache-2.0`.
    pub(super) license: Vec<String>,
    /// Codes, such as `en`.
    pub(super) language: Vec<String>,
}

impl Declared {
    /// Reads the front matter of a card.
    pub(super) fn of(card: &str) -> Self {
        let mut lines = card.lines();
        if lines.next().is_none_or(|first| first.trim_end() != "---") {
            return Self::default();
        }
        let inside: Vec<&str> = lines.take_while(|line| line.trim_end() != "---").collect();
        Self {
            license: values(&inside, "license"),
            language: values(&inside, "language"),
        }
    }
}

/// Values of a top-level key: `key: value`, `key: [a, b]`, or a line `- value` each. Others are not taken.
fn values(lines: &[&str], key: &str) -> Vec<String> {
    let start = lines.iter().position(|line| {
        let rest = line.strip_prefix(key);
        rest.is_some_and(|rest| rest.starts_with(':'))
    });
    let Some(start) = start else {
        return Vec::new();
    };
    let inline = lines[start][key.len() + 1..].trim();
    let listed = lines[start + 1..].iter();
    let listed = listed.map_while(|line| line.trim_start().strip_prefix("- "));
    let inline = inline
        .trim_start_matches('[')
        .trim_end_matches(']')
        .split(',');
    let all = inline
        .chain(listed)
        .map(|value| value.trim().trim_matches(['"', '\'']));
    let is_plain = |value: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !value.is_empty() && value.chars().all(plain)
    };
    all.filter(is_plain).map(Into::into).collect()
}

/// The block with its two rules.
pub(super) fn front_matter(subject: &Subject) -> String {
    let bundle = &subject.bundle;
    let record = subject.record.as_ref();
    let task = record.and_then(Record::task);
    let mut yaml = String::from("---\n");
    list(&mut yaml, "license", &subject.declared.license);
    list(&mut yaml, "language", &subject.declared.language);
    yaml += &format!("library_name: {}\n", library(bundle));
    let pipeline = pipeline_tag(bundle, task);
    if let Some(tag) = pipeline {
        yaml += &format!("pipeline_tag: {tag}\n");
    }
    let mut tags = vec!["hearth".to_string(), bundle.family().model_type.into()];
    tags.extend(task.map(Into::into));
    let adapter = record.and_then(|record| record.text("adapter.kind"));
    tags.extend(adapter.filter(|kind| *kind != "none").map(Into::into));
    list(&mut yaml, "tags", &tags);
    if let Some(record) = record {
        yaml += &of_run(record, &subject.name, pipeline);
    }
    yaml + "---\n"
}

/// What the run says of itself.
fn of_run(record: &Record, name: &str, pipeline: Option<&str>) -> String {
    let mut yaml = String::new();
    // A directory has no name that the Hub knows.
    let base = record
        .base()
        .filter(|base| model::bundled::open(base).is_some());
    if let Some(base) = base {
        yaml += &format!("base_model: {}\n", scalar(base));
    }
    let sources = record.texts("data.source");
    let sets = sources
        .iter()
        .filter(|source| BundledSet::named(source).is_some());
    let sets: Vec<String> = sets.map(ToString::to_string).collect();
    list(&mut yaml, "datasets", &sets);
    let metrics = record.summary("/test/metrics").and_then(Value::as_object);
    let figures = metrics.into_iter().flatten();
    let figures: Vec<(&String, f64)> = figures
        .filter_map(|(name, value)| Some((name, value.as_f64()?)))
        .collect();
    if figures.is_empty() {
        return yaml;
    }
    let mut kinds: Vec<String> = Vec::new();
    for (name, _) in figures.iter().filter(|(name, _)| *name != "loss") {
        let kind = metric(name).to_string();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    list(&mut yaml, "metrics", &kinds);
    let task = pipeline.or(record.task()).unwrap_or("other");
    let data = match sources.as_slice() {
        [] => crate::record::NOT_RECORDED.to_string(),
        sources => sources.join(", "),
    };
    let (name, task, data) = (scalar(name), scalar(task), scalar(&data));
    yaml += &format!(
        "model-index:\n- name: {name}\n  results:\n  - task:\n      type: {task}\n    dataset:\n      name: {data}\n      \
         type: {data}\n      split: test\n    metrics:\n"
    );
    for (name, value) in figures {
        let (kind, name) = (scalar(metric(name)), scalar(name));
        yaml += &format!(
            "    - type: {kind}\n      name: {name}\n      value: {}\n",
            float(value)
        );
    }
    yaml
}

/// What opens the bundle in Python, or else Hearth alone.
pub(super) fn library(bundle: &Bundle) -> &'static str {
    let is_merged_or_plain = bundle.beside().is_none() && !bundle.has_adapter();
    let is_of_transformers = bundle
        .class()
        .is_some_and(|class| !class.starts_with("Hearth"));
    let of_8_bits = eight_bits::is_named(bundle.raw_config());
    if is_merged_or_plain && is_of_transformers && !of_8_bits {
        "transformers"
    } else {
        "hearth"
    }
}

/// The Hub's name of what the model does, where it has one.
fn pipeline_tag(bundle: &Bundle, task: Option<&str>) -> Option<&'static str> {
    let is_text = bundle.is_text();
    match bundle.head() {
        HeadKind::Bare if !is_text => Some("image-feature-extraction"),
        HeadKind::Bare if task == Some("sentence-embeddings") => Some("sentence-similarity"),
        HeadKind::Bare => Some("feature-extraction"),
        HeadKind::Tokens if bundle.family().is_of_two_texts() => match task {
            Some("translation") => Some("translation"),
            Some("summarization") => Some("summarization"),
            Some(_) | None => None,
        },
        HeadKind::Tokens => match bundle.text_config() {
            Ok(config) if config.describe().causal => Some("text-generation"),
            Ok(_) => Some("fill-mask"),
            Err(_) => None,
        },
        HeadKind::SentencePairs => Some("fill-mask"),
        HeadKind::Classes if is_text => Some("text-classification"),
        HeadKind::Classes if task == Some("image-regression") => None,
        HeadKind::Classes => Some("image-classification"),
        HeadKind::TokenClasses => Some("token-classification"),
        HeadKind::Spans => Some("question-answering"),
        HeadKind::Choices => Some("multiple-choice"),
        HeadKind::Masks => Some("image-segmentation"),
        HeadKind::Boxes => Some("object-detection"),
        HeadKind::Replaced
        | HeadKind::Pixels
        | HeadKind::Variational
        | HeadKind::Codes
        | HeadKind::Patches => None,
    }
}

/// The Hub's name of a figure.
fn metric(name: &str) -> &str {
    match name {
        "macro_f1" | "micro_f1" | "entity_f1" => "f1",
        name if name.starts_with("rouge") => "rouge",
        name => name,
    }
}

/// A key with a list; nothing where the list is empty.
fn list(yaml: &mut String, key: &str, values: &[String]) {
    match values {
        [] => {}
        [only] if key == "license" => *yaml += &format!("{key}: {}\n", scalar(only)),
        values => {
            *yaml += &format!("{key}:\n");
            for value in values {
                *yaml += &format!("- {}\n", scalar(value));
            }
        }
    }
}

/// A number that YAML 1.1 takes for one too: with a point, and a sign in front of the exponent.
fn float(value: f64) -> String {
    let text = format!("{value:?}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

/// A text as a YAML scalar: as it is where that can mean nothing else, else in double quotes, which are JSON's.
fn scalar(text: &str) -> String {
    let mut letters = text.chars();
    let starts_as_a_word = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let word = text.to_lowercase();
    let other_meanings = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    if starts_as_a_word && letters.all(plain) && !other_meanings.contains(&word.as_str()) {
        return text.into();
    }
    Value::from(crate::report::html::printable(text)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_and_language_are_taken_from_a_card_in_each_form() {
        let declared = Declared::of(
            "---\nlicense: apache-2.0\nlanguage:\n- en\n- de\ntags:\n- x\n---\n# A\nlicense: mit\n",
        );
        assert_eq!(declared.license, ["apache-2.0"]);
        assert_eq!(declared.language, ["en", "de"]);
        let inline = Declared::of("---\nlanguage: [en, \"fr\"]\nlicense_name: mine\n---\n");
        assert_eq!(inline.language, ["en", "fr"]);
        assert!(inline.license.is_empty());
        assert_eq!(Declared::of("# A\nlicense: mit\n"), Declared::default());
        let foreign = Declared::of("---\nlicense: <script>\n---\n");
        assert!(foreign.license.is_empty());
    }

    #[test]
    fn numbers_are_floats_in_yaml() {
        let written = [0.7113, 1.0, 1e-7, 2.5e-9, 1e20].map(float);
        assert_eq!(written, ["0.7113", "1.0", "1.0e-7", "2.5e-9", "1.0e+20"]);
    }

    #[test]
    fn scalars_with_another_meaning_are_quoted() {
        for (text, yaml) in [
            ("accuracy", "accuracy"),
            ("no", "\"no\""),
            ("1.0", "\"1.0\""),
            ("a: b", "\"a: b\""),
            ("say \"x\"\n", "\"say \\\"x\\\"\\n\""),
            ("", "\"\""),
            ("runs/a", "\"runs/a\""),
        ] {
            assert_eq!(scalar(text), yaml);
        }
    }
}
