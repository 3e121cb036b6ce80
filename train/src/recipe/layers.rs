//! The built-in files that recipes are made of, and where each key is explained. In: names. Out: their text.

use toml::de::{DeTable, DeValue};

/// A built-in file: its name, as `layers` of a recipe has it, and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Without `.toml`: `shared`, `models/bert`.
    pub name: &'static str,
    /// TOML.
    pub text: &'static str,
}

macro_rules! layers {
    ($($name:literal),+ $(,)?) => {
        &[$(Layer {
            name: $name,
            text: include_str!(concat!("../../../assets/recipes/", $name, ".toml")),
        },)+]
    };
}

/// Every file that recipes share. A new model family adds its sizes here.
pub const LAYERS: &[Layer] = layers![
    "shared",
    "text",
    "corpus",
    "masking",
    "pairs",
    "labelled",
    "distilled",
    "image",
    "probe",
    "models/bert",
    "models/roberta",
    "models/distilbert",
    "models/electra",
    "models/gpt2",
    "models/llama",
    "models/qwen2",
    "models/marian",
    "models/bart",
    "models/t5",
    "models/hearth_lstm",
    "models/hearth_gru",
    "models/hearth_conv",
    "models/hearth_mlp",
    "models/hearth_cnn",
    "models/resnet18",
    "models/resnet34",
    "models/resnet50",
    "models/resnet101",
    "models/resnet152",
    "models/resnet20",
    "models/resnet32",
    "models/resnet44",
    "models/resnet56",
    "models/vgg11",
    "models/vgg11_bn",
    "models/vgg13",
    "models/vgg13_bn",
    "models/vgg16",
    "models/vgg16_bn",
    "models/vgg19",
    "models/vgg19_bn",
    "models/mobilenet_v2",
    "models/vit",
    "models/convnext",
    "models/hearth_unet",
];

/// The file of this name.
pub fn find(name: &str) -> Option<Layer> {
    LAYERS.iter().copied().find(|layer| layer.name == name)
}

/// The sizes of a model family.
pub fn model(family: &str) -> Option<Layer> {
    find(&format!("models/{family}"))
}

/// Families that have sizes.
pub fn families() -> impl Iterator<Item = &'static str> {
    LAYERS
        .iter()
        .filter_map(|layer| layer.name.strip_prefix("models/"))
}

/// What a file says about a dotted key: the comment on its line and on those below that go on with it.
pub fn comment(text: &str, key: &str) -> Option<String> {
    let first = line_of(text, key)?;
    let mut lines = text.lines().skip(first - 1);
    let mut words: Vec<&str> = vec![after_hash(lines.next()?)?];
    // A comment that goes on is indented, and has no key in front of it.
    let more = lines.take_while(|line| line.starts_with(' ') && line.trim_start().starts_with('#'));
    words.extend(more.filter_map(after_hash));
    Some(words.join(" "))
}

/// The comment of a line, if it has one.
fn after_hash(line: &str) -> Option<&str> {
    let mut quoted = None;
    for (at, c) in line.char_indices() {
        match (quoted, c) {
            (None, '#') => return Some(line[at + 1..].trim()),
            (None, '"' | '\'') => quoted = Some(c),
            (Some(quote), c) if c == quote => quoted = None,
            _ => {}
        }
    }
    None
}

/// The line of a dotted key, counted from 1.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let parsed = DeTable::parse(text).ok()?;
    let mut table = parsed.get_ref();
    let mut byte = 0;
    for part in key.split('.') {
        let (found, value) = table.get_key_value(part)?;
        byte = found.span().start;
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    Some(line_at(text, byte))
}

/// The line, counted from 1, that this byte is in.
pub(super) fn line_at(text: &str, byte: usize) -> usize {
    let before = text.bytes().take(byte);
    1 + before.filter(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_goes_on_below_its_key() {
        let text = "[a] # of a\nb = \"#\" # one\n      # two\nc = 1\n# d\nd = 2 # three\n";
        assert_eq!(comment(text, "a.b").as_deref(), Some("one two"));
        assert_eq!(comment(text, "a.c"), None);
        assert_eq!(comment(text, "a.d").as_deref(), Some("three"));
        assert_eq!(comment(text, "a").as_deref(), Some("of a"));
        assert_eq!(comment(text, "x"), None);
    }

    #[test]
    fn every_file_is_toml_and_each_model_names_its_family() {
        for layer in LAYERS {
            let table: toml::Table = layer.text.parse().unwrap();
            if let Some(family) = layer.name.strip_prefix("models/") {
                assert_eq!(table["model"]["family"].as_str(), Some(family));
            }
        }
        assert!(families().count() >= 5);
        assert_eq!(model("bert").unwrap().name, "models/bert");
    }
}
