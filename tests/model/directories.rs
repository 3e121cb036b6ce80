//! Directories as the Hub has them: other names for the same tensors, other types, heads that are there or not, and keys
//! of `config.json` that change what a model computes.
//!
//! Each is a copy of one of `tests/golden/families` with something changed; the logits must be those of the original.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use burn::backend::Flex;
use model::bundle::{self, Load, Loaded, Scores};
use model::{Bundle, Draw, HeadKind, TextClassifier, TokenModel};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::families;
use crate::golden::{self, Tensors, Values, assert_near};

/// A directory in the making.
struct Directory {
    temporary: TempDir,
    config: Value,
    tensors: Tensors,
    expected: Tensors,
}

/// Element types that files have.
const TYPES: [Dtype; 4] = [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::BF16];

impl Directory {
    /// A copy of one of `families/`.
    fn of(name: &str) -> Self {
        let folder = format!("families/{name}");
        let text = fs::read_to_string(golden::path(&folder).join(bundle::CONFIG)).unwrap();
        Self {
            temporary: tempfile::tempdir().unwrap(),
            config: serde_json::from_str(&text).unwrap(),
            tensors: golden::golden(&format!("{folder}/model.safetensors")),
            expected: golden::golden(&format!("{folder}/expected.safetensors")),
        }
    }

    fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config[key] = value.into();
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.config.as_object_mut().unwrap().remove(key);
        self
    }

    /// Gives tensors other names; nothing takes one away.
    fn renamed(mut self, name: impl Fn(&str) -> Option<String>) -> Self {
        let all = std::mem::take(&mut self.tensors).into_iter();
        let renamed = all.filter_map(|(old, values)| Some((name(&old)?, values)));
        self.tensors = renamed.collect();
        self
    }

    fn path(&self) -> PathBuf {
        self.temporary.path().join("model")
    }

    /// Writes it with floats of this type.
    fn write_as(&self, dtype: Dtype) {
        fs::create_dir_all(self.path()).unwrap();
        fs::write(self.path().join(bundle::CONFIG), self.config.to_string()).unwrap();
        fs::write(
            self.path().join(bundle::WEIGHTS),
            file(&self.tensors, dtype),
        )
        .unwrap();
    }

    fn open(&self) -> Bundle {
        self.write_as(Dtype::F32);
        Bundle::open(&self.path()).unwrap()
    }

    /// What is said of it when it is opened, or else when a model is made of it.
    fn refusal(&self) -> String {
        self.write_as(Dtype::F32);
        let opened = Bundle::open(&self.path());
        let error = opened.and_then(|bundle| bundle.text_config().map(drop));
        let text = error.unwrap_err().to_string();
        text.replace(&self.path().display().to_string(), "MODEL")
    }

    /// Logits of the golden batch.
    fn logits(&self, bundle: &Bundle) -> Values {
        let device = Default::default();
        let input = golden::input::<Flex>(&self.expected, &device);
        if bundle.require(HeadKind::Replaced).is_ok() {
            let (model, _) = families::discriminator::<Flex>(bundle, &device);
            return golden::values(model.logits(&input));
        }
        if bundle.require(HeadKind::Classes).is_ok() {
            let (model, _) = families::classifier::<Flex>(bundle, &device);
            let place = bundle.text_config().unwrap().class_plan().place;
            return golden::values(
                model.logits(&input, families::places(&self.expected, place, &device)),
            );
        }
        let (model, _) = families::language_model::<Flex>(bundle, &device);
        golden::values(model.logits(&input, None, None))
    }

    /// The logits of the directory that was copied, bit for bit.
    fn assert_computes(&self, original: &str, what: &str) {
        let (bundle, original) = (self.open(), Self::of(original));
        let theirs = original.logits(&original.open());
        assert_eq!(self.logits(&bundle), theirs, "{what}");
    }
}

/// A safetensors file.
pub fn file(tensors: &Tensors, dtype: Dtype) -> Vec<u8> {
    let bytes = |value: f32| match dtype {
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
        // The upper half of an f32, rounded towards zero.
        Dtype::BF16 => value.to_le_bytes()[2..].to_vec(),
        _ => burn::tensor::f16::from_f32(value).to_le_bytes().to_vec(),
    };
    let data = |values: &Values| values.1.iter().flat_map(|&value| bytes(value)).collect();
    let data: BTreeMap<&String, (&Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, values)| (name, (&values.0, data(values))))
        .collect();
    let view = |(name, (shape, bytes))| {
        let view = TensorView::new(dtype, Vec::clone(shape), bytes).unwrap();
        (String::clone(name), view)
    };
    let views = data
        .iter()
        .map(|(name, (shape, bytes))| view((*name, (*shape, bytes))));
    safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()
}

/// A model of each family and head.
const NAMES: [&str; 19] = [
    "bert-masked-lm-1",
    "bert-classifier-2",
    "roberta-masked-lm-1",
    "roberta-classifier-2",
    "distilbert-masked-lm-1",
    "distilbert-classifier-2",
    "gpt2-causal-lm-1",
    "gpt2-classifier-2",
    "llama-causal-lm-1",
    "llama-classifier-2",
    "qwen2-causal-lm-2",
    "qwen2-classifier-1",
    "electra-masked-lm-1",
    "electra-discriminator-2",
    "electra-classifier-3",
    "hearth_lstm-causal-lm-2",
    "hearth_lstm-classifier-1",
    "hearth_gru-causal-lm-1",
    "hearth_gru-classifier-2",
];

fn prefix(name: &str) -> &'static str {
    match name.split('-').next().unwrap() {
        "bert" => "bert.",
        "roberta" => "roberta.",
        "distilbert" => "distilbert.",
        "electra" => "electra.",
        "hearth_lstm" | "hearth_gru" => "",
        "llama" | "qwen2" => "model.",
        _ => "transformer.",
    }
}

// Names.

#[test]
fn norms_have_their_old_names_too() {
    for name in NAMES {
        let old = |tensor: &str| {
            let norm = ["LayerNorm.", "layer_norm."]
                .iter()
                .any(|norm| tensor.contains(norm));
            if !norm {
                return Some(tensor.to_string());
            }
            Some(
                tensor
                    .replace(".weight", ".gamma")
                    .replace(".bias", ".beta"),
            )
        };
        Directory::of(name).renamed(old).assert_computes(name, name);
    }
}

#[test]
fn wrappers_of_other_libraries_are_taken_away() {
    for name in NAMES {
        for wrapper in ["module.", "_orig_mod.", "model.", "module._orig_mod."] {
            let wrapped = |tensor: &str| Some(format!("{wrapper}{tensor}"));
            let directory = Directory::of(name).renamed(wrapped);
            directory.assert_computes(name, &format!("{wrapper}{name}"));
        }
    }
}

#[test]
fn the_backbones_prefix_may_be_missing() {
    for name in NAMES {
        let bare = |tensor: &str| Some(tensor.strip_prefix(prefix(name)).unwrap_or(tensor).into());
        Directory::of(name)
            .renamed(bare)
            .assert_computes(name, name);
    }
}

#[test]
fn a_bare_backbone_is_read_with_its_prefix_and_without() {
    let device = Default::default();
    for name in NAMES {
        let inside = |tensor: &str| tensor.starts_with(prefix(name));
        let with = Directory::of(name).renamed(|tensor| inside(tensor).then(|| tensor.into()));
        let without = Directory::of(name)
            .renamed(|tensor| inside(tensor).then(|| tensor[prefix(name).len()..].to_string()));
        let states = |directory: &Directory| {
            let bundle = directory.open();
            let names = bundle.require(HeadKind::Bare).unwrap();
            let config = bundle.text_config().unwrap();
            let draw = Draw::new(&device, 0.02);
            let fresh = config.init::<Flex>(HeadKind::Bare, &draw);
            let (model, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
            assert!(loaded.drawn.is_empty());
            let input = golden::input::<Flex>(&directory.expected, &device);
            golden::values(model.states(&input, None, None))
        };
        assert_eq!(states(&with), states(&without), "{name}");
        let (shape, values) = states(&with);
        let tokens = &with.expected["input_ids"].0;
        let hidden = (vec![tokens[0], tokens[1], shape[1]], values);
        let real = |values| golden::at_real(values, &with.expected);
        assert_near(name, &real(&hidden), &real(&with.expected["hidden"]), 1e-4);
    }
}

#[test]
fn tied_tables_are_read_under_either_name() {
    for (name, table, decoder) in [
        (
            "bert-masked-lm-1",
            "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.weight",
        ),
        (
            "roberta-masked-lm-1",
            "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.weight",
        ),
        (
            "distilbert-masked-lm-1",
            "distilbert.embeddings.word_embeddings.weight",
            "vocab_projector.weight",
        ),
        (
            "electra-masked-lm-1",
            "electra.embeddings.word_embeddings.weight",
            "generator_lm_head.weight",
        ),
        (
            "hearth_lstm-causal-lm-2",
            "embed_tokens.weight",
            "lm_head.weight",
        ),
        (
            "gpt2-causal-lm-1",
            "transformer.wte.weight",
            "lm_head.weight",
        ),
        (
            "llama-causal-lm-2",
            "model.embed_tokens.weight",
            "lm_head.weight",
        ),
        (
            "qwen2-causal-lm-1",
            "model.embed_tokens.weight",
            "lm_head.weight",
        ),
    ] {
        let other = |tensor: &str| {
            Some(if tensor == table {
                decoder.into()
            } else {
                tensor.to_string()
            })
        };
        Directory::of(name)
            .renamed(other)
            .assert_computes(name, "the decoder's name alone");
        let mut both = Directory::of(name);
        let values = both.tensors[table].clone();
        both.tensors.insert(decoder.into(), values);
        both.assert_computes(name, "both names");
    }
}

#[test]
fn buffers_of_older_versions_are_ignored() {
    for (name, buffer, shape) in [
        (
            "bert-masked-lm-1",
            "bert.embeddings.position_ids",
            vec![1, 19],
        ),
        (
            "roberta-classifier-2",
            "roberta.embeddings.position_ids",
            vec![1, 23],
        ),
        (
            "gpt2-causal-lm-1",
            "transformer.h.0.attn.bias",
            vec![1, 1, 41, 41],
        ),
        (
            "gpt2-causal-lm-1",
            "transformer.h.1.attn.masked_bias",
            vec![1],
        ),
        (
            "llama-causal-lm-1",
            "model.layers.2.self_attn.rotary_emb.inv_freq",
            vec![2],
        ),
        ("qwen2-classifier-2", "model.rotary_emb.inv_freq", vec![3]),
    ] {
        let mut directory = Directory::of(name);
        let values = vec![1.0; shape.iter().product()];
        directory.tensors.insert(buffer.into(), (shape, values));
        directory.assert_computes(name, buffer);
    }
}

#[test]
fn an_untied_decoder_is_computed() {
    let device = Default::default();
    for (name, table, decoder) in [
        (
            "bert-masked-lm-1",
            "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.weight",
        ),
        (
            "roberta-masked-lm-2",
            "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.weight",
        ),
        (
            "distilbert-masked-lm-1",
            "distilbert.embeddings.word_embeddings.weight",
            "vocab_projector.weight",
        ),
        (
            "gpt2-causal-lm-1",
            "transformer.wte.weight",
            "lm_head.weight",
        ),
        (
            "llama-causal-lm-2",
            "model.embed_tokens.weight",
            "lm_head.weight",
        ),
        (
            "electra-masked-lm-3",
            "electra.embeddings.word_embeddings.weight",
            "generator_lm_head.weight",
        ),
        (
            "hearth_gru-causal-lm-2",
            "embed_tokens.weight",
            "lm_head.weight",
        ),
    ] {
        let mut directory = Directory::of(name).set("tie_word_embeddings", false);
        let (shape, values) = directory.tensors[table].clone();
        let doubled = values.iter().map(|value| 2.0 * value).collect();
        directory.tensors.insert(decoder.into(), (shape, doubled));
        // `transformers` computes with the decoder's own bias then, where it has two.
        let own = decoder.replace("decoder.weight", "decoder.bias");
        let beside = decoder.replace("decoder.weight", "bias");
        let more = if own == decoder { 0.0 } else { 1.0 };
        if own != decoder {
            let (shape, values) = directory.tensors[&beside].clone();
            let values = values.iter().map(|value| value + more).collect();
            directory.tensors.insert(own, (shape, values));
        }
        let (model, _) = families::language_model::<Flex>(&directory.open(), &device);
        let original = Directory::of(name);
        let (tied, _) = families::language_model::<Flex>(&original.open(), &device);
        let input = golden::input::<Flex>(&directory.expected, &device);
        let ours = model.logits(&input, None, None);
        // Twice the decoder: twice what is before the bias.
        let bias = tied
            .head
            .bias
            .as_ref()
            .map(|bias| bias.val().unsqueeze::<2>());
        let plain = tied.logits(&input, None, None);
        let twice = match bias {
            Some(bias) => plain * 2.0 - bias + more,
            None => plain * 2.0,
        };
        assert_near(name, &golden::values(ours), &golden::values(twice), 1e-4);
    }
}

/// What loading a language model ends with, and what the warning is.
fn loaded(directory: &Directory) -> Result<Option<String>, String> {
    let (bundle, device) = (directory.open(), Default::default());
    let names = bundle.require(HeadKind::Tokens).unwrap();
    let config = bundle.text_config().unwrap();
    let fresh = TokenModel::<Flex>::draw(&config, &Draw::new(&device, 0.02));
    match bundle.load(fresh, names, Load::Whole) {
        Ok((_, loaded)) => Ok(loaded.lost(names)),
        Err(error) => Err(error.to_string()),
    }
}

/// `transformers` does not tie what differs, and this would compute something else without a word.
#[test]
fn two_ends_of_a_tie_that_differ_are_refused() {
    for (name, end) in [
        ("bert-masked-lm-1", "cls.predictions.decoder.weight"),
        ("bert-masked-lm-1", "cls.predictions.decoder.bias"),
        ("roberta-masked-lm-2", "lm_head.decoder.weight"),
        ("distilbert-masked-lm-1", "vocab_projector.weight"),
        ("gpt2-causal-lm-1", "lm_head.weight"),
        ("llama-causal-lm-2", "lm_head.weight"),
        ("qwen2-causal-lm-1", "lm_head.weight"),
        ("electra-masked-lm-1", "generator_lm_head.weight"),
        ("hearth_lstm-causal-lm-2", "lm_head.weight"),
    ] {
        let mut directory = Directory::of(name);
        let table = |name: &&String| {
            let parts: &[&str] = if end.ends_with("bias") {
                &["cls.predictions.bias"]
            } else {
                &[
                    "word_embeddings.weight",
                    "wte.weight",
                    "embed_tokens.weight",
                ]
            };
            parts.iter().any(|part| name.ends_with(part))
        };
        let table = directory.tensors.keys().find(table).unwrap().clone();
        let values = directory.tensors[&table].clone();
        directory.tensors.insert(end.into(), values.clone());
        assert_eq!(loaded(&directory), Ok(None), "{name}");
        let other = values.1.iter().map(|value| value + 1.0).collect();
        directory.tensors.insert(end.into(), (values.0, other));
        let error = loaded(&directory).unwrap_err();
        let words = format!("{end} differs from {table}");
        assert!(error.contains(&words), "{error}");
    }
}

#[test]
fn parts_of_a_backbone_without_a_place_are_named() {
    let mut directory = Directory::of("bert-masked-lm-1");
    let layer = "bert.encoder.layer.9.output.dense.bias";
    // Another head and a pooler are no parts of what is computed.
    for name in [layer, "bert.pooler.dense.bias", "cls.seq_relationship.bias"] {
        let values = (vec![2], vec![0.0; 2]);
        directory.tensors.insert(name.into(), values);
    }
    let warning = loaded(&directory).unwrap().unwrap();
    assert_eq!(
        warning,
        format!("the model of config.json has no place for {layer}: it computes without them")
    );
    let mut directory = Directory::of("hearth_lstm-causal-lm-1");
    for name in ["rnn.weight_hr_l2", "value_head.weight"] {
        let values = (vec![2], vec![0.0; 2]);
        directory.tensors.insert(name.into(), values);
    }
    let warning = loaded(&directory).unwrap().unwrap();
    let words = "has no place for rnn.weight_hr_l2: it";
    assert!(warning.contains(words), "{warning}");
    let mut directory = Directory::of("llama-causal-lm-1");
    let layer = "model.layers.1.self_attn.q_norm.weight";
    for name in [layer, "model.norm.bias", "value_head.weight"] {
        let values = (vec![2], vec![0.0; 2]);
        directory.tensors.insert(name.into(), values);
    }
    let warning = loaded(&directory).unwrap().unwrap();
    let words = format!("has no place for {layer}, model.norm.bias: it");
    assert!(warning.contains(&words), "{warning}");
}

// Types and values.

#[test]
fn floats_of_every_size_are_read() {
    for name in ["bert-classifier-2", "gpt2-causal-lm-1"] {
        let directory = Directory::of(name);
        let exact = directory.logits(&directory.open());
        for dtype in TYPES {
            directory.write_as(dtype);
            let ours = directory.logits(&Bundle::open(&directory.path()).unwrap());
            // 8 and 11 bits of mantissa: products over 20 values of up to 3, through two layers.
            let tolerance = match dtype {
                Dtype::BF16 => 0.5,
                Dtype::F16 => 0.05,
                _ => 0.0,
            };
            assert_near(&format!("{dtype:?}"), &ours, &exact, tolerance);
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    for value in [f32::NAN, f32::INFINITY] {
        let mut directory = Directory::of("bert-classifier-2");
        let name = "bert.encoder.layer.1.output.dense.weight";
        directory.tensors.get_mut(name).unwrap().1[7] = value;
        let bundle = directory.open();
        let config = bundle.text_config().unwrap();
        let fresh = TextClassifier::<Flex>::draw(&config, 3, &Draw::new(&Default::default(), 0.02));
        let names = bundle.require(HeadKind::Classes).unwrap();
        let error = bundle
            .load(fresh, names, Load::Whole)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(name) && error.contains("among its"),
            "{error}"
        );
    }
}

// Heads.

#[test]
fn whatever_architectures_says_the_weights_decide() {
    for (name, classes) in [
        (
            "bert-masked-lm-1",
            &["BertForPreTraining", "BertModel", "Whatever"][..],
        ),
        ("gpt2-causal-lm-1", &["GPT2Model", "GPT2DoubleHeadsModel"]),
        ("roberta-classifier-2", &["RobertaModel"]),
        ("llama-causal-lm-1", &["LlamaModel", "LlamaForMedusa"]),
        ("qwen2-classifier-2", &["Qwen2Model"]),
    ] {
        for class in classes {
            let directory = Directory::of(name).set("architectures", json!([class]));
            directory.assert_computes(name, class);
        }
        Directory::of(name)
            .without("architectures")
            .assert_computes(name, "none");
        Directory::of(name)
            .set("architectures", Value::Null)
            .assert_computes(name, "null");
    }
}

#[test]
fn a_pretraining_checkpoint_of_two_heads_gives_the_one_that_is_asked_for() {
    let mut directory =
        Directory::of("bert-masked-lm-1").set("architectures", json!(["BertForPreTraining"]));
    for (name, shape) in [
        ("cls.seq_relationship.weight", vec![2, 12]),
        ("cls.seq_relationship.bias", vec![2]),
        ("bert.pooler.dense.weight", vec![12, 12]),
        ("bert.pooler.dense.bias", vec![12]),
    ] {
        let values = vec![0.5; shape.iter().product()];
        directory.tensors.insert(name.into(), (shape, values));
    }
    let bundle = directory.open();
    let names = bundle.require(HeadKind::Tokens).unwrap();
    let config = bundle.text_config().unwrap();
    let fresh = || TokenModel::<Flex>::draw(&config, &Draw::new(&Default::default(), 0.02));
    let (_, loaded) = bundle.load(fresh(), names, Load::Whole).unwrap();
    assert!(loaded.drawn.is_empty());
    assert_eq!(loaded.unused.len(), 4, "{loaded:?}");
    let error = bundle.require(HeadKind::Classes).unwrap_err().to_string();
    assert!(
        error.contains("holds BertForPreTraining, and a classifier is needed"),
        "{error}"
    );
}

#[test]
fn a_head_that_is_missing_is_drawn_for_training_and_refused_for_use() {
    let device = Default::default();
    for name in [
        "bert-masked-lm-1",
        "roberta-masked-lm-1",
        "distilbert-masked-lm-1",
    ] {
        let directory = Directory::of(name)
            .renamed(|tensor| tensor.starts_with(prefix(name)).then(|| tensor.into()));
        let directory = directory.without("architectures");
        let bundle = directory.open();
        let error = bundle.require(HeadKind::Tokens).unwrap_err().to_string();
        assert!(
            error.contains("holds a backbone without a head, and a language model is needed"),
            "{error}"
        );
        let config = bundle.text_config().unwrap();
        let names = config.names(HeadKind::Tokens);
        let fresh = || TokenModel::<Flex>::draw(&config, &Draw::new(&device, 0.02));
        let (_, loaded) = bundle
            .load(fresh(), names, Load::BackboneAndPerhapsHead)
            .unwrap();
        let drawn = loaded.drawn;
        assert!(
            !drawn.is_empty() && drawn.iter().all(|name| !names.is_backbone(name)),
            "{drawn:?}"
        );
        let error = bundle
            .load(fresh(), names, Load::Whole)
            .unwrap_err()
            .to_string();
        assert!(error.contains("lacks "), "{error}");
    }
}

#[test]
fn a_classifier_of_tokens_is_no_classifier_of_texts() {
    for class in [
        "BertForTokenClassification",
        "BertForQuestionAnswering",
        "BertForMultipleChoice",
    ] {
        let directory = Directory::of("bert-classifier-2").set("architectures", json!([class]));
        let error = directory
            .open()
            .require(HeadKind::Classes)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(class) && error.contains("a classifier is needed"),
            "{error}"
        );
    }
}

#[test]
fn an_error_names_what_is_missing_what_is_there_and_what_it_is_likely_to_be() {
    let directory = Directory::of("bert-classifier-2");
    let gpt2 = Directory::of("gpt2-causal-lm-1");
    let mixed = Directory {
        tensors: gpt2.tensors,
        ..directory
    };
    let bundle = mixed.open();
    let config = bundle.text_config().unwrap();
    let fresh = TextClassifier::<Flex>::draw(&config, 3, &Draw::new(&Default::default(), 0.02));
    let names = config.names(HeadKind::Classes);
    let error = bundle
        .load(fresh, names, Load::Backbone)
        .unwrap_err()
        .to_string();
    for words in [
        "lacks bert.",
        "and ",
        " more",
        "for which the model has no place",
        "GPT-2",
    ] {
        assert!(error.contains(words), "no {words:?} in {error}");
    }
}

// Classes.

#[test]
fn names_of_classes() {
    let classes = |directory: Directory| {
        let classes = directory.open().classes();
        classes.map_err(|error| error.to_string())
    };
    let of = |json: Value| {
        Directory::of("bert-classifier-2")
            .without("label2id")
            .set("id2label", json)
    };
    let named = |names: [&str; 3]| Ok(names.map(String::from).to_vec());
    assert_eq!(
        classes(of(json!({"2": "c", "0": "a", "1": "b"}))),
        named(["a", "b", "c"])
    );
    assert_eq!(
        classes(of(json!({"0": 4, "1": 5, "2": 6}))),
        named(["4", "5", "6"])
    );
    let none = || {
        Directory::of("bert-classifier-2")
            .without("id2label")
            .without("label2id")
    };
    assert_eq!(classes(none()), named(["LABEL_0", "LABEL_1", "LABEL_2"]));
    assert_eq!(
        classes(none().set("num_labels", 3)),
        named(["LABEL_0", "LABEL_1", "LABEL_2"])
    );
    let reversed = none().set("label2id", json!({"x": 1, "y": 0, "z": 2}));
    assert_eq!(classes(reversed), named(["y", "x", "z"]));
    for (directory, words) in [
        (
            of(json!({"0": "a", "2": "c", "3": "d"})),
            "id2label lacks class 1",
        ),
        (
            of(json!({"0": "a", "1": "b"})),
            "id2label names 2 classes, and the classifier has 3 rows",
        ),
        (
            of(json!({"0": "a", "1": "b", "2": "c", "3": "d"})),
            "id2label names 4 classes",
        ),
        (
            of(json!({"a": "b"})),
            "id2label: \"a\" is no number of a class",
        ),
        (none().set("label2id", json!({"x": "y"})), "label2id: "),
        (
            none().set("num_labels", 2),
            "num_labels is 2, and the classifier has 3 rows",
        ),
    ] {
        let error = classes(directory).unwrap_err();
        assert!(
            error.contains(words) && error.contains("config.json"),
            "{error}"
        );
    }
    // Two classes without names are what transformers leaves out.
    let two = Directory::of("bert-classifier-1");
    assert!(two.config.get("id2label").is_none());
    assert_eq!(classes(two).unwrap(), ["LABEL_0", "LABEL_1"]);
}

#[test]
fn the_kind_of_problem_says_what_scores_mean() {
    let scores = |kind: Value| {
        Directory::of("bert-classifier-2")
            .set("problem_type", kind)
            .open()
            .scores()
    };
    assert_eq!(scores(Value::Null).unwrap(), Scores::OneLabel);
    assert_eq!(
        scores("single_label_classification".into()).unwrap(),
        Scores::OneLabel
    );
    assert_eq!(
        scores("multi_label_classification".into()).unwrap(),
        Scores::SeveralLabels
    );
    assert_eq!(scores("regression".into()).unwrap(), Scores::Values);
    let error = scores("ranking".into()).unwrap_err().to_string();
    assert!(error.contains("problem_type is \"ranking\""), "{error}");
}

// Keys of config.json.

#[test]
fn keys_that_change_the_answer_are_refused_by_name() {
    for (name, key, value) in [
        (
            "bert-masked-lm-1",
            "position_embedding_type",
            json!("relative_key"),
        ),
        (
            "roberta-masked-lm-1",
            "position_embedding_type",
            json!("relative_key_query"),
        ),
        ("bert-masked-lm-1", "is_decoder", json!(true)),
        ("roberta-classifier-1", "is_decoder", json!(true)),
        ("electra-discriminator-1", "is_decoder", json!(true)),
        ("electra-masked-lm-1", "hidden_act", json!("mish")),
        ("hearth_gru-causal-lm-1", "tie_word_embeddings", json!(true)),
        ("bert-masked-lm-1", "add_cross_attention", json!(true)),
        ("bert-masked-lm-1", "hidden_act", json!("gelu_nwe")),
        ("bert-masked-lm-1", "hidden_act", json!("mish")),
        ("distilbert-masked-lm-1", "activation", json!("nope")),
        ("gpt2-causal-lm-1", "activation_function", json!("nope")),
        ("gpt2-causal-lm-1", "scale_attn_weights", json!(false)),
        (
            "gpt2-causal-lm-1",
            "scale_attn_by_inverse_layer_idx",
            json!(true),
        ),
        ("gpt2-causal-lm-1", "add_cross_attention", json!(true)),
        ("bert-masked-lm-1", "pruned_heads", json!({"0": [1]})),
        ("roberta-masked-lm-1", "pruned_heads", json!({"0": [1]})),
        ("distilbert-masked-lm-1", "pruned_heads", json!({"1": [0]})),
        ("gpt2-causal-lm-1", "pruned_heads", json!({"1": [0]})),
        (
            "bert-masked-lm-1",
            "quantization_config",
            json!({"load_in_8bit": true}),
        ),
        (
            "gpt2-causal-lm-1",
            "quantization_config",
            json!({"load_in_8bit": true}),
        ),
        (
            "distilbert-masked-lm-1",
            "quantization_config",
            json!({"bits": 4}),
        ),
        ("llama-causal-lm-1", "hidden_act", json!("nope")),
        ("llama-classifier-1", "quantization_config", json!({})),
        (
            "llama-causal-lm-1",
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 4.0}),
        ),
        (
            "llama-causal-lm-1",
            "rope_scaling",
            json!({"type": "dynamic", "factor": 2.0}),
        ),
        (
            "qwen2-causal-lm-1",
            "rope_parameters",
            json!({"rope_type": "longrope", "rope_theta": 10000.0}),
        ),
        ("qwen2-causal-lm-1", "partial_rotary_factor", json!(0.5)),
        ("qwen2-causal-lm-1", "use_sliding_window", json!(true)),
        ("bert-masked-lm-1", "num_attention_heads", json!(5)),
        ("bert-masked-lm-1", "model_type", json!("deberta-v2")),
    ] {
        let error = Directory::of(name).set(key, value.clone()).refusal();
        let key = match key {
            "num_attention_heads" => "heads do not divide",
            "rope_scaling" | "rope_parameters" => "only default, linear and llama3 are implemented",
            key => key,
        };
        assert!(
            error.starts_with("MODEL/config.json: ") && error.contains(key),
            "{value}: {error}"
        );
    }
}

#[test]
fn keys_that_change_nothing_are_taken() {
    for (name, key, value) in [
        ("bert-masked-lm-1", "use_cache", json!(false)),
        ("bert-masked-lm-1", "chunk_size_feed_forward", json!(4)),
        ("bert-masked-lm-1", "pruned_heads", json!({})),
        ("bert-masked-lm-1", "quantization_config", Value::Null),
        (
            "bert-masked-lm-1",
            "quantization_config",
            model::eight_bits::settings(),
        ),
        (
            "bert-masked-lm-1",
            "position_embedding_type",
            json!("absolute"),
        ),
        ("bert-masked-lm-1", "torch_dtype", json!("float16")),
        ("bert-masked-lm-1", "hidden_act", json!("gelu_python")),
        ("bert-masked-lm-1", "gradient_checkpointing", json!(true)),
        ("gpt2-causal-lm-1", "n_ctx", json!(7)),
        ("gpt2-causal-lm-1", "reorder_and_upcast_attn", json!(true)),
        (
            "gpt2-causal-lm-1",
            "task_specific_params",
            json!({"text-generation": {"max_length": 50}}),
        ),
        ("distilbert-masked-lm-1", "tie_weights_", json!(true)),
        (
            "distilbert-masked-lm-1",
            "sinusoidal_pos_embds",
            json!(true),
        ),
        ("llama-causal-lm-1", "pretraining_tp", json!(2)),
        ("llama-causal-lm-1", "rope_scaling", Value::Null),
        ("llama-causal-lm-1", "rope_scaling", json!({})),
        ("llama-causal-lm-1", "pad_token_id", json!(-1)),
        ("llama-classifier-1", "eos_token_id", Value::Null),
        // `rope_parameters` is believed, and not a key of the same name beside it.
        ("llama-causal-lm-2", "rope_theta", json!(1e4)),
        ("electra-masked-lm-1", "summary_type", json!("mean")),
        ("electra-classifier-1", "summary_activation", json!("tanh")),
        ("hearth_lstm-classifier-1", "dropout", json!(0.5)),
        ("qwen2-causal-lm-1", "sliding_window", json!(8)),
        ("qwen2-causal-lm-1", "max_window_layers", json!(1)),
        ("qwen2-classifier-2", "partial_rotary_factor", json!(1.0)),
    ] {
        Directory::of(name)
            .set(key, value)
            .assert_computes(name, key);
    }
}

#[test]
fn another_activation_is_another_function() {
    let directory = Directory::of("bert-masked-lm-1").set("hidden_act", "gelu_new");
    let original = Directory::of("bert-masked-lm-1");
    let ours = directory.logits(&directory.open()).1;
    let theirs = original.logits(&original.open()).1;
    let far = ours
        .iter()
        .zip(&theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    // The tanh form is off by up to 5e-4 a unit: other logits, and not very far away.
    assert!(far > 1e-4 && far < 0.1, "{far}");
}

#[test]
fn keys_that_are_left_out_mean_what_transformers_takes_them_for() {
    for (name, keys) in [
        (
            "bert-masked-lm-1",
            &[
                "type_vocab_size",
                "hidden_act",
                "layer_norm_eps",
                "pad_token_id",
                "initializer_range",
            ][..],
        ),
        ("roberta-masked-lm-1", &["pad_token_id", "hidden_act"]),
        (
            "distilbert-masked-lm-1",
            &["activation", "pad_token_id", "tie_word_embeddings"],
        ),
        (
            "gpt2-causal-lm-1",
            &[
                "activation_function",
                "layer_norm_epsilon",
                "scale_attn_weights",
                "bos_token_id",
            ],
        ),
        (
            "llama-causal-lm-1",
            &[
                "rope_parameters",
                "head_dim",
                "hidden_act",
                "rms_norm_eps",
                "attention_bias",
                "mlp_bias",
                "tie_word_embeddings",
                "pad_token_id",
                "eos_token_id",
            ],
        ),
        ("llama-causal-lm-3", &["num_key_value_heads"]),
        (
            "electra-discriminator-1",
            &["type_vocab_size", "hidden_act", "pad_token_id"],
        ),
        (
            "hearth_lstm-causal-lm-1",
            &[
                "dropout",
                "initializer_range",
                "pad_token_id",
                "tie_word_embeddings",
            ],
        ),
        (
            "qwen2-causal-lm-2",
            &["tie_word_embeddings", "use_sliding_window", "layer_types"],
        ),
    ] {
        for key in keys {
            Directory::of(name).without(key).assert_computes(name, key);
        }
    }
    // Four times the width.
    let directory = Directory::of("gpt2-classifier-2").without("n_inner");
    directory.assert_computes("gpt2-classifier-2", "n_inner");
}

#[test]
fn rotary_positions_are_read_from_older_keys_too() {
    let llama3 = json!({
        "rope_type": "llama3",
        "factor": 8,
        "low_freq_factor": 1,
        "high_freq_factor": 4,
        "original_max_position_embeddings": 64,
    });
    for (name, theta, scaling) in [
        ("llama-causal-lm-1", 1e4, Value::Null),
        ("qwen2-causal-lm-1", 1e6, Value::Null),
        ("llama-causal-lm-2", 500.0, llama3.clone()),
        ("qwen2-classifier-2", 500.0, llama3),
        (
            "llama-classifier-3",
            50.0,
            json!({"type": "linear", "factor": 2.5}),
        ),
    ] {
        let directory = Directory::of(name).without("rope_parameters");
        let directory = directory.set("rope_theta", theta);
        directory
            .set("rope_scaling", scaling)
            .assert_computes(name, name);
    }
    // Without its own length the scaling takes the model's; a length beside `rope_parameters` is believed before both.
    let mut short = Directory::of("llama-causal-lm-2").set("max_position_embeddings", 64);
    let table = short.config["rope_parameters"].as_object_mut().unwrap();
    table.remove("original_max_position_embeddings");
    short.assert_computes("llama-causal-lm-2", "no length");
    let mut beside = Directory::of("llama-causal-lm-2");
    beside.config["rope_parameters"]["original_max_position_embeddings"] = json!(7);
    let beside = beside.set("original_max_position_embeddings", 64);
    beside.assert_computes("llama-causal-lm-2", "a length beside the table");
}

#[test]
fn impossible_decoders_are_refused_in_a_sentence() {
    let rope = |key: &str, value: Value| {
        let mut directory = Directory::of("llama-causal-lm-2");
        directory.config["rope_parameters"][key] = value;
        directory
    };
    let llama = |key: &str, value: Value| Directory::of("llama-causal-lm-1").set(key, value);
    let qwen2 = |key: &str, value: Value| Directory::of("qwen2-causal-lm-1").set(key, value);
    let lstm = |key: &str, value: Value| Directory::of("hearth_lstm-causal-lm-1").set(key, value);
    for (directory, reason) in [
        (
            llama("num_hidden_layers", json!(0)),
            "num_hidden_layers is 0",
        ),
        (
            llama("num_attention_heads", json!(0)),
            "num_attention_heads is 0",
        ),
        (
            llama("num_key_value_heads", json!(0)),
            "num_key_value_heads is 0",
        ),
        (llama("head_dim", json!(0)), "head_dim is 0"),
        (qwen2("vocab_size", json!(0)), "vocab_size is 0"),
        (qwen2("hidden_size", json!(0)), "hidden_size is 0"),
        (
            qwen2("intermediate_size", json!(0)),
            "intermediate_size is 0",
        ),
        (
            qwen2("max_position_embeddings", json!(0)),
            "max_position_embeddings is 0",
        ),
        (
            llama("num_attention_heads", json!(5)),
            "5 attention heads do not divide a width of 12",
        ),
        (
            qwen2("num_attention_heads", json!(5)),
            "5 attention heads do not divide a width of 12",
        ),
        (
            llama("num_key_value_heads", json!(2)),
            "num_key_value_heads is 2, which does not divide the 3 attention heads",
        ),
        (
            llama("num_key_value_heads", json!(6)),
            "num_key_value_heads is 6, which does not divide the 3 attention heads",
        ),
        (
            llama("head_dim", json!(5)),
            "an attention head is 5 wide; rotary positions need an even width",
        ),
        (
            qwen2("num_attention_heads", json!(12)),
            "an attention head is 1 wide; rotary positions need an even width",
        ),
        (
            llama("max_position_embeddings", json!(1u64 << 40)),
            "max_position_embeddings is 1099511627776; 32-bit floats tell 16777216 positions apart",
        ),
        (
            llama("rms_norm_eps", json!(0.0)),
            "rms_norm_eps is 0; it must be above 0",
        ),
        (
            llama("initializer_range", json!(-1.0)),
            "initializer_range is -1; it must be 0 or more",
        ),
        (
            llama("attention_dropout", json!(1.0)),
            "dropout is 1; it must be at least 0 and below 1",
        ),
        (
            rope("rope_theta", json!(0.0)),
            "rope_theta is 0; it must be at least 1",
        ),
        (
            rope("factor", json!(0.5)),
            "factor of rope_parameters is 0.5; it must be at least 1",
        ),
        (
            rope("high_freq_factor", json!(1.0)),
            "high_freq_factor is 1; it must be above low_freq_factor, which is 1",
        ),
        (
            rope("original_max_position_embeddings", json!(0)),
            "original_max_position_embeddings is 0",
        ),
        (
            rope("low_freq_factor", Value::Null),
            "rope_type \"llama3\" needs low_freq_factor",
        ),
        (
            rope("rope_type", json!("yarn")),
            "rope_type is \"yarn\"; only default, linear and llama3 are implemented",
        ),
        (
            qwen2("use_sliding_window", json!(true)),
            "use_sliding_window is true; only false is implemented",
        ),
        (lstm("hidden_size", json!(0)), "hidden_size is 0"),
        (lstm("embedding_size", json!(0)), "embedding_size is 0"),
        (
            lstm("dropout", json!(1.0)),
            "dropout is 1; it must be at least 0 and below 1",
        ),
        (
            lstm("tie_word_embeddings", json!(true)),
            "tie_word_embeddings needs embedding_size and hidden_size to be equal; they are 12 and 20",
        ),
    ] {
        assert_eq!(directory.refusal(), format!("MODEL/config.json: {reason}"));
    }
}

#[test]
fn without_a_type_the_class_says_which_family_it_is() {
    for name in NAMES {
        Directory::of(name)
            .without("model_type")
            .assert_computes(name, name);
    }
    let error = Directory::of(NAMES[0])
        .without("model_type")
        .without("architectures")
        .refusal();
    assert!(
        error.contains(
            "model_type is missing; known are bert, roberta, distilbert, electra, gpt2, llama, qwen2, hearth_lstm, hearth_gru"
        ),
        "{error}"
    );
}

#[test]
fn loading_says_what_it_did_not_take() {
    let mut directory = Directory::of("gpt2-classifier-2");
    directory
        .tensors
        .insert("value_head.weight".into(), (vec![1, 20], vec![0.0; 20]));
    let bundle = directory.open();
    let config = bundle.text_config().unwrap();
    let fresh = TextClassifier::<Flex>::draw(&config, 3, &Draw::new(&Default::default(), 0.02));
    let (_, loaded) = bundle
        .load(fresh, config.names(HeadKind::Classes), Load::Whole)
        .unwrap();
    let unused = vec!["value_head.weight".to_string()];
    assert_eq!(
        loaded,
        Loaded {
            drawn: vec![],
            unused,
            fitted: vec![],
        }
    );
}

#[test]
fn a_write_that_was_broken_off_loses_no_model() {
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path().join("model");
    let [old, fresh] = [".model.old", ".model.new"].map(|name| temporary.path().join(name));
    bundle::write_directory(&at, &[("config.json", b"first")]).unwrap();
    // Ended between the renames: the new one is whole or not, the old one is out of the way.
    fs::rename(&at, &old).unwrap();
    fs::create_dir(&fresh).unwrap();
    // What cannot be written now leaves the old one where it belongs.
    let file = temporary.path().join("model/config.json/below");
    let below = file.strip_prefix(&at).unwrap().to_str().unwrap();
    let written = bundle::write_directory(&at, &[("config.json", b"second"), (below, b"")]);
    assert!(written.is_err());
    assert_eq!(fs::read(at.join("config.json")).unwrap(), b"first");
    bundle::write_directory(&at, &[("config.json", b"third")]).unwrap();
    assert_eq!(fs::read(at.join("config.json")).unwrap(), b"third");
    assert!(!old.exists() && !fresh.exists());
}

#[cfg(unix)]
#[test]
fn a_link_to_a_model_stays_a_link() {
    let temporary = tempfile::tempdir().unwrap();
    let [place, link] = ["place", "link"].map(|name| temporary.path().join(name));
    bundle::write_directory(&place, &[("config.json", b"first")]).unwrap();
    std::os::unix::fs::symlink(&place, &link).unwrap();
    bundle::write_directory(&link, &[("config.json", b"second")]).unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(place.join("config.json")).unwrap(), b"second");
}
