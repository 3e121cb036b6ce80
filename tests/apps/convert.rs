//! Rewritten models: what they compute stays, in one file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use apps::dump::Dump;
use burn::backend::Flex;
use burn::prelude::*;
use model::bundle::weights::Weights;
use model::bundle::{self, ImageInput, Load};
use model::families::TokenInput;
use model::{Draw, HeadKind, TextClassifier, TextConfig, TokenModel};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::bundles::{
    Bundles, TEXTS, apps, bert, draw, edit_config, heads, open, printed, refused, wordpiece,
};

#[test]
fn torchvisions_names_go_in_and_come_out() {
    let bundles = Bundles::new();
    let file = golden("vision/torchvision-resnet-1/pytorch_model.bin");
    let output = bundles.at("out.safetensors");
    let sizes = [
        "--set",
        "model.family=resnet18",
        "--set",
        "model.embedding_size=4",
        "--set",
        "model.hidden_sizes=[4, 6, 8, 10]",
        "--set",
        "model.depths=[1, 2, 1, 1]",
    ];
    printed(&[&["convert", "--torchvision", &file, &output], &sizes[..]].concat());
    let written = Weights::open_file(Path::new(&output)).unwrap();
    let read = Weights::open_file(Path::new(&file)).unwrap();
    for name in ["conv1.weight", "layer2.1.bn2.running_var", "fc.bias"] {
        assert_eq!(
            written.data(name).unwrap(),
            read.data(name).unwrap(),
            "{name}"
        );
    }
    let text = bundles.masked_lm("masked");
    let other = bundles.at("other.safetensors");
    let message = refused(&["convert", "--torchvision", &text, &other]);
    assert!(message.contains("torchvision has no"), "{message}");
    let nowhere = bundles.at("nowhere/x.safetensors");
    let message = refused(&[&["convert", "--torchvision", &file, &nowhere], &sizes[..]].concat());
    assert!(
        message.ends_with("its directory does not exist"),
        "{message}"
    );
    let message = refused(&["convert", "--torchvision", &file, &output]);
    assert!(message.contains("--set model.family=resnet50"), "{message}");
}

pub fn golden(name: &str) -> String {
    format!("{}/../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub fn dumped(path: &str) -> Vec<f32> {
    let dump = Dump::of::<Flex>(&open(path), &TEXTS, false, &Default::default());
    dump.unwrap().outputs.remove(0).values
}

pub fn assert_near(ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len());
    for (one, other) in ours.iter().zip(theirs) {
        assert!((one - other).abs() < tolerance, "{one} {other}");
    }
}

/// Logits of a bundle without a tokenizer for the rows of a file of known values, real tokens alone.
pub fn logits(path: &str, expected: &SafeTensors) -> Vec<f32> {
    let (bundle, device) = (open(path), Default::default());
    let config = bundle.text_config().unwrap();
    let integers = |name: &str| {
        let tensor = expected.tensor(name).ok()?;
        let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap()) as i32;
        Some(
            tensor
                .data()
                .chunks_exact(8)
                .map(number)
                .collect::<Vec<i32>>(),
        )
    };
    let ids = integers("input_ids").unwrap();
    let shape = expected.tensor("input_ids").unwrap().shape().to_vec();
    let (rows, seq) = (shape[0], shape[1]);
    let tensor = |values: Vec<i32>| {
        Tensor::<Flex, 2, Int>::from_data(TensorData::new(values, [rows, seq]), &device)
    };
    let mask = integers("attention_mask").unwrap();
    let input = TokenInput {
        tokens: tensor(ids),
        token_types: integers("token_type_ids").map(tensor),
        mask_pad: Some(tensor(mask.clone()).equal_elem(0)),
        ..TokenInput::new(tensor(vec![0; rows * seq]))
    };
    let draw = Draw::new(&device, 0.02);
    if let Ok(names) = bundle.require(HeadKind::Classes) {
        let classes = bundle.classes().unwrap().len();
        let model = TextClassifier::<Flex>::draw(&config, classes, &draw);
        let (model, _) = bundle.load(model, names, Load::Whole).unwrap();
        let last = |row: usize| {
            let real = mask[row * seq..(row + 1) * seq].iter().sum::<i32>();
            (row * seq) as i32
                + if config.describe().causal {
                    real - 1
                } else {
                    0
                }
        };
        let at: Vec<i32> = (0..rows).map(last).collect();
        let at = Tensor::from_data(TensorData::new(at, [rows]), &device);
        return model.logits(&input, at).into_data().iter().collect();
    }
    let names = bundle.require(HeadKind::Tokens).unwrap();
    let model = TokenModel::<Flex>::draw(&config, &draw);
    let (model, _) = bundle.load(model, names, Load::Whole).unwrap();
    let all = (0i32..).zip(&mask).filter(|(_, real)| **real == 1);
    let at: Vec<i32> = all.map(|(at, _)| at).collect();
    let n = at.len();
    let at = Tensor::from_data(TensorData::new(at, [n]), &device);
    model
        .logits(&input, Some(at), None)
        .into_data()
        .iter()
        .collect()
}

/// `merged_logits` of a file of known values, at real tokens.
pub fn merged(expected: &SafeTensors) -> Vec<f32> {
    let tensor = expected.tensor("merged_logits").unwrap();
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let all: Vec<f32> = tensor.data().chunks_exact(4).map(number).collect();
    let &[_, _, words] = tensor.shape() else {
        return all;
    };
    let mask = expected.tensor("attention_mask").unwrap();
    let real = mask.data().chunks_exact(8).map(|bytes| bytes[0] == 1);
    let rows = all.chunks_exact(words).zip(real);
    rows.filter(|(_, real)| *real)
        .flat_map(|(row, _)| row.to_vec())
        .collect()
}

#[test]
fn adapters_are_merged_as_peft_merges_them() {
    let bundles = Bundles::new();
    let mut converted = 0;
    for entry in fs::read_dir(golden("peft")).unwrap() {
        let adapter = entry.unwrap().path();
        let name = adapter.file_name().unwrap().to_str().unwrap();
        let (adapter, output) = (adapter.display().to_string(), bundles.at(name));
        if name.ends_with("-prompt") || name.ends_with("-prefix") {
            let message = refused(&["convert", "--merge", &adapter, &output]);
            let words = "which cannot be merged into a model's weights";
            assert!(message.ends_with(words), "{message}");
            continue;
        }
        let text = printed(&["convert", "--merge", &adapter, &output]);
        assert_eq!(text, format!("wrote {output}\n"));
        assert!(!open(&output).has_adapter());
        let bytes = fs::read(format!("{adapter}/expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        // As tests/golden/README.md has it for the families.
        assert_near(&logits(&output, &expected), &merged(&expected), 1e-4);
        converted += 1;
    }
    assert_eq!(converted, 9);
}

#[test]
fn half_the_bits_compute_almost_the_same() {
    let bundles = Bundles::new();
    let model = bundles.causal_lm("bundle");
    edit_config(&model, |config| config["torch_dtype"] = "float32".into());
    let output = bundles.at("half");
    printed(&["convert", "--model", &model, "--precision", "f16", &output]);
    let bytes = fs::read(format!("{output}/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.tensors().iter().all(|(_, t)| t.dtype() == Dtype::F16));
    assert_eq!(open(&output).raw_config()["torch_dtype"], "float16");
    assert_near(&dumped(&output), &dumped(&model), 0.1);
    // And back: no value changes any more.
    let back = bundles.at("back");
    printed(&["convert", "--model", &output, &back]);
    assert_eq!(open(&back).raw_config()["torch_dtype"], "float32");
    assert_eq!(dumped(&back), dumped(&output));
}

#[test]
fn sixteen_bits_with_the_range_of_thirty_two_hold_large_values() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier_with("bundle", &[1e5, 1.0, -0.5]);
    let output = bundles.at("half");
    printed(&["convert", "--model", &model, "--precision", "bf16", &output]);
    let bytes = fs::read(format!("{output}/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.tensors().iter().all(|(_, t)| t.dtype() == Dtype::BF16));
    assert_eq!(open(&output).raw_config()["dtype"], "bfloat16");
    // From 65536 on in steps of 512.
    let bias = open(&output)
        .weights()
        .unwrap()
        .data("classifier.bias")
        .unwrap();
    assert_eq!(bias.iter::<f32>().collect::<Vec<_>>(), [99840.0, 1.0, -0.5]);
    let beyond = bundles.text_classifier_with("beyond", &[f32::MAX, 0.0, 0.0]);
    let message = refused(&["convert", &beyond, "--precision", "bf16", &bundles.at("no")]);
    assert!(message.contains("classifier.bias"), "{message}");
}

#[test]
fn values_beyond_half_precision_are_refused() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier_with("bundle", &[1e5, 0.0, 0.0]);
    let output = bundles.at("half");
    let message = refused(&["convert", "--model", &model, "--precision", "f16", &output]);
    assert!(
        message.contains("classifier.bias") && message.contains("100000"),
        "{message}"
    );
    assert!(!Path::new(&output).exists());
}

/// The bytes of every file in a folder and its subfolders, by path.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if path.is_dir() {
            let inside = self::files(&path).into_iter();
            files.extend(inside.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn every_head_keeps_its_weights_its_configuration_and_its_files() {
    let bundles = Bundles::new();
    let modules = r#"[{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}, {"idx": 2, "path": "../of-another"}]"#;
    let beside = [
        ("tokenizer_config.json", r#"{"model_max_length": 12}"#),
        ("chat_template.jinja", "{{ messages }}"),
        ("generation_config.json", r#"{"max_length": 9}"#),
        ("modules.json", modules),
        (
            "1_Pooling/config.json",
            r#"{"pooling_mode_mean_tokens": true}"#,
        ),
    ];
    for (head, model) in bundles.of_all_heads() {
        let place = Path::new(&model);
        fs::create_dir(place.join("1_Pooling")).unwrap();
        for (name, text) in beside {
            fs::write(place.join(name), text).unwrap();
        }
        if !open(&model).is_text() {
            let input = ImageInput::plain([1, 4, 6]).to_json();
            fs::write(place.join(bundle::PREPROCESSOR), input).unwrap();
        }
        edit_config(&model, |config| {
            config["answers"] = json!({"stride": 4, "longest": 5, "no_answer_threshold": null});
            config["problem_type"] = "multi_label_classification".into();
        });
        fs::write(place.join("notes.txt"), "mine").unwrap();
        let output = format!("{model}-copy");
        // The second time in place of the first, which is a model and nothing else.
        for force in [&[][..], &["--force"]] {
            printed(&[&["convert", "--model", &model, &output], force].concat());
        }
        let mut written = files(Path::new(&output));
        let mut read = files(place);
        read.remove("notes.txt");
        let [ours, theirs] = [&mut written, &mut read].map(|files| {
            let config = files.remove(bundle::CONFIG).unwrap();
            serde_json::from_slice::<Value>(&config).unwrap()
        });
        for (key, value) in theirs.as_object().unwrap() {
            assert_eq!(&ours[key], value, "{model}: {key}");
        }
        assert!(
            written.keys().eq(read.keys()),
            "{model}: {:?}",
            written.keys()
        );
        assert!(written == read, "{model}");
        assert_eq!(open(&output).head(), head, "{model}");
    }
}

#[test]
fn weights_of_every_family_are_the_same_bit_by_bit() {
    let bundles = Bundles::new();
    let mut converted = 0;
    for kind in ["families", "seq2seq", "vision"] {
        for entry in fs::read_dir(golden(kind)).unwrap() {
            let folder = entry.unwrap().path();
            let name = folder.file_name().unwrap().to_str().unwrap();
            // The others are of other sizes; names of torchvision become those of transformers. T5 with and without ties.
            let named_otherwise = name.starts_with("torchvision") || name == "small_resnet-1";
            if named_otherwise || !(name.ends_with("-1") || name == "t5-2") {
                continue;
            }
            let output = bundles.at(name);
            let converting = apps(&["convert", &folder.display().to_string(), &output]);
            let told = String::from_utf8(converting.stderr).unwrap();
            assert!(
                converting.status.success() && told.is_empty(),
                "{name}: {told}"
            );
            let read = Weights::open_directory(&folder).unwrap();
            let written = Weights::open_directory(Path::new(&output)).unwrap();
            let counter = |name: &&str| name.ends_with("num_batches_tracked");
            let names = |weights: &Weights| -> Vec<String> {
                let names = weights.iter().map(|tensor| tensor.raw);
                names
                    .filter(|name| !counter(name))
                    .map(String::from)
                    .collect()
            };
            assert_eq!(names(&written), names(&read), "{name}");
            for tensor in written.iter() {
                let [ours, theirs] = [&written, &read].map(|all| all.data(tensor.name).unwrap());
                assert!(ours == theirs, "{name}: {}", tensor.name);
            }
            converted += 1;
        }
    }
    assert!(converted > 45, "{converted}");
}

/// A backbone alone may have a pooler, which transformers makes use of and no head here does.
#[test]
fn the_pooler_of_a_bare_encoder_stays() {
    let bundles = Bundles::new();
    let (config, device) = (TextConfig::Bert(bert()), Default::default());
    let model = config.init::<Flex>(HeadKind::Classes, &draw(&device));
    let path = bundles.write_text("pooled", &config, HeadKind::Bare, &wordpiece(), &model);
    let weights = |path: &str| fs::read(format!("{path}/model.safetensors")).unwrap();
    let held = weights(&path);
    let held = SafeTensors::deserialize(&held).unwrap();
    assert!(held.tensor("pooler.dense.weight").is_ok());
    let output = bundles.at("copy");
    printed(&["convert", &path, &output]);
    assert!(weights(&output) == weights(&path));
    printed(&["convert", "--force", "--precision", "f16", &path, &output]);
    let half = weights(&output);
    let half = SafeTensors::deserialize(&half).unwrap();
    assert_eq!(
        half.tensor("pooler.dense.weight").unwrap().dtype(),
        Dtype::F16
    );
}

#[test]
fn tags_and_masks_without_names_are_named_in_the_new_bundle() {
    let bundles = Bundles::new();
    for head in [HeadKind::TokenClasses, HeadKind::Masks, HeadKind::Boxes] {
        let model = bundles.of_head(head);
        edit_config(&model, |config| {
            let config = config.as_object_mut().unwrap();
            config.remove("id2label");
            config.remove("label2id");
        });
        let output = format!("{model}-copy");
        printed(&["convert", &model, &output]);
        assert_eq!(
            open(&output).raw_config()["id2label"]["2"],
            "LABEL_2",
            "{head:?}"
        );
    }
}

#[test]
fn the_head_is_what_the_weights_hold_where_no_class_is_named() {
    let bundles = Bundles::new();
    for head in heads() {
        // A token is classified by a layer of the same name as a text or a choice, and patches are decoded as pixels are.
        if matches!(head, HeadKind::TokenClasses | HeadKind::Choices) {
            continue;
        }
        let model = bundles.of_head(head);
        edit_config(&model, |config| {
            config.as_object_mut().unwrap().remove("architectures");
        });
        assert_eq!(open(&model).head(), head);
        let output = format!("{model}-copy");
        printed(&["convert", &model, &output]);
        let weights = |path: &str| fs::read(format!("{path}/model.safetensors")).unwrap();
        assert!(weights(&model) == weights(&output), "{head:?}");
    }
}

#[test]
fn shards_become_one_file() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("bundle");
    let whole = dumped(&model);
    let weights = bundles.path("bundle/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut map = serde_json::Map::new();
    let mut shards: [Vec<(String, TensorView)>; 2] = Default::default();
    for (number, (name, tensor)) in file.tensors().into_iter().enumerate() {
        let shard = format!("model-0000{}-of-00002.safetensors", number % 2 + 1);
        map.insert(name.clone(), shard.into());
        shards[number % 2].push((name, tensor));
    }
    for (number, shard) in shards.into_iter().enumerate() {
        let name = format!("bundle/model-0000{}-of-00002.safetensors", number + 1);
        bundles.file(&name, safetensors::serialize(shard, None).unwrap());
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    bundles.file("bundle/model.safetensors.index.json", index.to_string());
    fs::remove_file(&weights).unwrap();
    let output = bundles.at("one");
    printed(&["convert", "--model", &model, &output]);
    assert_eq!(dumped(&output), whole);
    assert!(!bundles.path("one/model.safetensors.index.json").exists());
}

#[test]
fn what_is_there_is_not_overwritten_unless_asked_and_a_model() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("bundle");
    let output = bundles.text_classifier("old");
    let convert = ["convert", "--model", &model];
    let forced = ["convert", "--force", "--model", &model];
    let message = refused(&[&convert[..], &[&output]].concat());
    assert!(
        message.ends_with("old: exists; --force replaces it"),
        "{message}"
    );
    assert_eq!(open(&output).class(), Some("BertForSequenceClassification"));
    printed(&[&forced[..], &[&output]].concat());
    assert_eq!(open(&output).class(), Some("BertForMaskedLM"));
    // In place of itself.
    printed(&[&forced[..], &[&model]].concat());
    assert_eq!(dumped(&model), dumped(&output));

    fs::create_dir(bundles.path("photos")).unwrap();
    bundles.png("photos/a.png", 1);
    let file = bundles.file("notes.txt", "mine");
    for (place, reason) in [
        (
            bundles.at("photos"),
            "holds no model; --force replaces models only",
        ),
        (file, "is a file; the new bundle is a directory"),
        (
            bundles.folder().join("photos/..").display().to_string(),
            "is no name for a directory",
        ),
        (bundles.at("no/such"), "its directory does not exist"),
    ] {
        let message = refused(&[&forced[..], &[&place]].concat());
        assert!(message.ends_with(reason), "{place}: {message}");
    }
    assert!(bundles.path("photos/a.png").exists() && bundles.path("notes.txt").exists());

    // Files beside a configuration are no part of a model, and may be all there is of them.
    bundles.file("old/main.py", "code");
    let message = refused(&[&forced[..], &[&output]].concat());
    assert!(
        message.contains("old: holds main.py, which is no part of a model"),
        "{message}"
    );
    assert_eq!(
        fs::read_to_string(bundles.path("old/main.py")).unwrap(),
        "code"
    );
}

#[test]
fn the_model_is_not_replaced_by_what_is_made_of_it() {
    let bundles = Bundles::new();
    let outer = bundles.masked_lm("outer");
    let inner = bundles.masked_lm("outer/inner.safetensors");
    let message = refused(&["convert", "--force", &inner, &outer]);
    assert!(
        message.contains("outer: holds ") && message.ends_with("inner.safetensors"),
        "{message}"
    );
    assert!(bundles.path("outer/inner.safetensors/config.json").exists());
}

#[test]
fn folders_with_a_like_name_are_left_alone() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("gloss.new");
    bundles.text_classifier("gloss.old");
    let output = bundles.at("gloss.v2");
    printed(&["convert", "--model", &model, &output]);
    assert_eq!(dumped(&output), dumped(&model));
    assert!(bundles.path("gloss.old/config.json").exists());
}

#[test]
fn what_is_no_adapter_cannot_be_merged() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("bundle");
    let output = bundles.at("out");
    let message = refused(&["convert", "--merge", "--model", &model, &output]);
    assert!(
        message.ends_with("is no adapter, so there is nothing to merge"),
        "{message}"
    );
    fs::create_dir(bundles.path("bundle/adapter")).unwrap();
    let message = refused(&["convert", "--merge", "--model", &model, &output]);
    assert!(message.ends_with("bundle/adapter is one"), "{message}");
    assert!(!Path::new(&output).exists());
}

#[test]
fn the_model_is_named_once() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("bundle");
    let whole = dumped(&model);
    for (number, args) in [
        ["--model", &model, "OUT", ""],
        ["OUT", "--model", &model, ""],
        [&model, "OUT", "--precision", "f32"],
    ]
    .into_iter()
    .enumerate()
    {
        let output = bundles.at(&number.to_string());
        let args = args.map(|arg| if arg == "OUT" { &output } else { arg });
        let args: Vec<&str> = args.into_iter().filter(|arg| !arg.is_empty()).collect();
        printed(&[&["convert"][..], &args].concat());
        assert_eq!(dumped(&output), whole);
    }
    let output = bundles.at("out");
    assert_eq!(
        refused(&["convert", &output]),
        "two directories are expected: the model, and the new bundle"
    );
    let message = refused(&["convert", "--model", &model, &model, &output]);
    assert!(
        message.ends_with("so one directory more is expected: the new bundle"),
        "{message}"
    );
}

#[test]
fn classes_without_names_are_named_in_the_new_bundle() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    edit_config(&model, |config| {
        let config = config.as_object_mut().unwrap();
        config.remove("id2label");
        config.remove("label2id");
        config.insert("num_labels".into(), 3.into());
    });
    let output = bundles.at("out");
    printed(&["convert", &model, &output]);
    let config = open(&output).raw_config().clone();
    // Without them transformers takes two classes for granted.
    assert_eq!(config["id2label"]["2"], "LABEL_2");
    assert_eq!(config["label2id"]["LABEL_2"], 2);
    assert!(config.get("num_labels").is_none());
}
