//! ONNX files: what is in them. That they compute the same is shown by `tests/interop/compare_onnx.py`, which runs them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use apps::convert::onnx::proto::{Graph, Model, Node, ValueInfo, data_type};
use burn::backend::Flex;
use model::{HeadKind, ImageClassifier, ImageConfig, TextClassifier, TextConfig, TokenModel};
use prost::Message;
use serde_json::{Value, json};

use crate::bundles::{Bundles, CLASSES, apps, draw, open, printed, refused, wordpiece};

/// Converts a bundle and reads the file.
fn converted(bundles: &Bundles, bundle: &str) -> Model {
    let output = bundles.at("out.onnx");
    assert_eq!(
        printed(&["convert", "--force", bundle, &output]),
        format!("wrote {output}\n")
    );
    Model::decode(&fs::read(&output).unwrap()[..]).unwrap()
}

/// Names and shapes: `input_ids [batch_size, sequence_length]`.
fn described(values: &[ValueInfo]) -> Vec<String> {
    let axes = |value: &ValueInfo| {
        let tensor = value.r#type.clone().unwrap().tensor_type.unwrap();
        let axes = tensor.shape.unwrap().dim.into_iter().map(|axis| {
            let size = axis.dim_value.map(|size| size.to_string());
            axis.dim_param.or(size).unwrap()
        });
        axes.collect::<Vec<_>>().join(", ")
    };
    let described = values.iter();
    described
        .map(|value| format!("{} [{}]", value.name, axes(value)))
        .collect()
}

/// Every node reads what is there before it, nothing is computed twice or in vain, and weights are the bundle's.
fn assert_sound(model: &Model, bundle: &str) -> Graph {
    assert_eq!(
        (model.producer_name.as_str(), model.opset_import[0].version),
        ("hearth", 17)
    );
    assert_eq!(model.producer_version, env!("CARGO_PKG_VERSION"));
    let graph = model.graph.clone().unwrap();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    known.extend(graph.input.iter().map(|value| value.name.as_str()));
    known.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
    assert_eq!(
        known.len(),
        graph.input.len() + graph.initializer.len(),
        "{bundle}"
    );
    let mut read = BTreeSet::new();
    for node in &graph.node {
        for input in &node.input {
            assert!(known.contains(input.as_str()), "{bundle}: {input}");
            read.insert(input.as_str());
        }
        for output in &node.output {
            assert!(known.insert(output), "{bundle}: {output} twice");
        }
    }
    let outputs = graph.output.iter().map(|value| value.name.as_str());
    assert!(outputs.clone().all(|name| known.contains(name)), "{bundle}");
    read.extend(outputs);
    let idle = |node: &&Node| !node.output.iter().any(|name| read.contains(name.as_str()));
    assert_eq!(graph.node.iter().find(idle), None, "{bundle}");
    let bundle = open(bundle);
    let weights = bundle.weights().unwrap();
    let mut taken = 0;
    for tensor in &graph.initializer {
        assert!(read.contains(tensor.name.as_str()), "{}", tensor.name);
        if tensor.name.starts_with("constant_") {
            continue;
        }
        let data = weights.data(&tensor.name).unwrap();
        let dims: Vec<i64> = data
            .shape
            .to_vec()
            .iter()
            .map(|&size| size as i64)
            .collect();
        assert_eq!((&tensor.dims, tensor.data_type), (&dims, data_type::FLOAT));
        assert_eq!(tensor.raw_data, data.as_bytes(), "{}", tensor.name);
        taken += 1;
    }
    if bundle.is_text() {
        assert_eq!(taken, weights.iter().count());
    }
    graph
}

#[test]
fn every_head_has_the_outputs_of_transformers_or_is_refused() {
    let bundles = Bundles::new();
    let mut refusals = Vec::new();
    for (head, bundle) in bundles.of_all_heads() {
        let is_of_two_texts = open(&bundle).family().is_of_two_texts();
        let without = [HeadKind::Codes, HeadKind::Patches, HeadKind::Boxes];
        if is_of_two_texts || without.contains(&head) {
            let output = bundles.at("refused.onnx");
            refusals.push(refused(&["convert", &bundle, &output]));
            assert!(!Path::new(&output).exists());
            continue;
        }
        let graph = assert_sound(&converted(&bundles, &bundle), &bundle);
        let inputs = described(&graph.input);
        let outputs = described(&graph.output);
        if !open(&bundle).is_text() {
            assert_eq!(inputs, ["pixel_values [batch_size, 1, 4, 6]"]);
            assert!(outputs[0].starts_with("l"), "{outputs:?}");
            continue;
        }
        let axes = match head {
            HeadKind::Choices => "[batch_size, num_choices, sequence_length]",
            _ => "[batch_size, sequence_length]",
        };
        let names = ["input_ids", "attention_mask", "token_type_ids"];
        let segments = if bundle.ends_with("causal") { 2 } else { 3 };
        let expected = names[..segments].iter();
        let expected: Vec<_> = expected.map(|name| format!("{name} {axes}")).collect();
        assert_eq!(inputs, expected, "{bundle}");
        let vocabulary = graph_words(&bundle);
        let token = |name, width| format!("{name} [batch_size, sequence_length, {width}]");
        let expected = match head {
            HeadKind::Bare => vec![token("last_hidden_state", 16)],
            HeadKind::Tokens => vec![token("logits", vocabulary)],
            HeadKind::SentencePairs => vec![
                token("prediction_logits", vocabulary),
                "seq_relationship_logits [batch_size, 2]".into(),
            ],
            HeadKind::Replaced => vec!["logits [batch_size, sequence_length]".into()],
            HeadKind::Classes => vec!["logits [batch_size, 3]".into()],
            HeadKind::TokenClasses => vec![token("logits", 3)],
            HeadKind::Spans => vec![
                "start_logits [batch_size, sequence_length]".into(),
                "end_logits [batch_size, sequence_length]".into(),
            ],
            _ => vec!["logits [batch_size, num_choices]".into()],
        };
        assert_eq!(outputs, expected, "{bundle}");
    }
    for end in [
        "no ONNX graph is known of a vector-quantised autoencoder",
        "no ONNX graph is known of a masked autoencoder",
        "no ONNX graph is known of a model that finds boxes",
        "no ONNX graph is known of the family bart",
    ] {
        assert!(
            refusals.iter().any(|message| message.ends_with(end)),
            "{end}"
        );
    }
}

/// Words that a bundle scores.
fn graph_words(bundle: &str) -> usize {
    open(bundle).text_config().unwrap().describe().vocab_size
}

#[test]
fn every_family_has_a_sound_graph() {
    let (bundles, device) = (Bundles::new(), Default::default());
    let words = wordpiece().vocab_size();
    let decoder = json!({
        "vocab_size": words, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 12,
    });
    let encoder = json!({
        "vocab_size": words, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 12, "max_position_embeddings": 12, "pad_token_id": 1,
    });
    let distilled = json!({
        "vocab_size": words, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12,
        "max_position_embeddings": 12,
    });
    let texts = [
        ("roberta", &encoder),
        ("electra", &encoder),
        ("distilbert", &distilled),
        ("llama", &decoder),
        ("qwen2", &decoder),
    ];
    for (family, sizes) in texts {
        let config: TextConfig = serde_json::from_value(of_family(family, sizes)).unwrap();
        let model = TextClassifier::<Flex>::draw(&config, 3, &draw(&device));
        let bundle = bundles.write_text(family, &config, HeadKind::Classes, &wordpiece(), &model);
        assert_sound(&converted(&bundles, &bundle), &bundle);
        let model = TokenModel::<Flex>::draw(&config, &draw(&device));
        let name = format!("{family}-tokens");
        let bundle = bundles.write_text(&name, &config, HeadKind::Tokens, &wordpiece(), &model);
        assert_sound(&converted(&bundles, &bundle), &bundle);
    }
    let stages = json!({"num_channels": 1, "hidden_sizes": [4, 6], "depths": [1, 1]});
    let images = [
        (
            "hearth_mlp",
            json!({"image_height": 8, "image_width": 8, "hidden_sizes": [4]}),
        ),
        ("hearth_cnn", stages.clone()),
        ("hearth_unet", stages.clone()),
        ("resnet", stages.clone()),
        ("hearth_resnet", stages.clone()),
        (
            "hearth_vgg",
            json!({
                "num_channels": 1, "hidden_sizes": [4, 6], "depths": [1, 1], "batch_norm": true,
                "classifier_size": 8, "pooled_size": 3,
            }),
        ),
        (
            "mobilenet_v2",
            json!({"num_channels": 1, "depth_multiplier": 0.05, "min_depth": 2}),
        ),
        (
            "vit",
            json!({
                "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 12, "image_size": 8, "patch_size": 4, "num_channels": 1,
            }),
        ),
        (
            "convnext",
            json!({
                "num_channels": 1, "patch_size": 2, "num_stages": 2, "hidden_sizes": [4, 6],
                "depths": [1, 1],
            }),
        ),
    ];
    for (family, sizes) in images {
        let config: ImageConfig = serde_json::from_value(of_family(family, &sizes)).unwrap();
        let model = ImageClassifier::<Flex>::draw(&config, 3, &draw(&device));
        let bundle = bundles.write_images(family, &config, HeadKind::Classes, &model);
        let model = converted(&bundles, &bundle);
        let graph = assert_sound(&model, &bundle);
        assert_eq!(described(&graph.output), ["logits [batch_size, 3]"]);
        let entry = |key: &str| {
            let mut entries = model.metadata_props.iter();
            let entry = entries.find(|entry| entry.key == key).unwrap();
            entry.value.clone()
        };
        assert_eq!(entry("model_type"), family);
        assert_eq!(entry("classes"), json!(CLASSES).to_string());
        let preprocessor: Value = serde_json::from_str(&entry("preprocessor")).unwrap();
        let sizes = ["crop_size", "size"].map(|key| preprocessor[key]["height"].as_u64());
        assert!(sizes.iter().any(Option::is_some), "{preprocessor}");
    }
}

fn of_family(family: &str, sizes: &Value) -> Value {
    let mut config = sizes.clone();
    config["model_type"] = family.into();
    config
}

#[test]
fn half_the_bits_are_half_the_file() {
    let bundles = Bundles::new();
    let bundle = bundles.causal_lm("bundle");
    let (whole, half) = (bundles.at("whole.onnx"), bundles.at("half"));
    printed(&["convert", &bundle, &whole]);
    printed(&["convert", &bundle, &half, "--onnx", "--precision", "f16"]);
    let [whole, half] = [whole, half].map(|file| fs::read(file).unwrap());
    let graph = |bytes: &[u8]| Model::decode(bytes).unwrap().graph.unwrap();
    let weights = |graph: Graph, element: i32| {
        let tensors = graph.initializer.into_iter();
        let tensors = tensors.filter(|tensor| !tensor.name.starts_with("constant_"));
        let sizes = tensors.map(|tensor| {
            assert_eq!(tensor.data_type, element, "{}", tensor.name);
            tensor.raw_data.len()
        });
        sizes.sum::<usize>()
    };
    let bytes = weights(graph(&half), data_type::FLOAT16);
    assert_eq!(weights(graph(&whole), data_type::FLOAT), 2 * bytes);
    // Computed in 32 bits all the same.
    let graph = graph(&half);
    let casts = graph.node.iter().filter(|node| node.op_type == "Cast");
    let weights = graph.initializer.iter();
    let weights = weights.filter(|tensor| !tensor.name.starts_with("constant_"));
    assert_eq!(casts.count(), weights.count());
}

#[test]
fn a_place_for_the_file_is_wanted() {
    let bundles = Bundles::new();
    let bundle = bundles.masked_lm("bundle");
    let message = refused(&["convert", "--onnx", &bundle, &bundles.at("")]);
    assert!(message.contains("is a directory"), "{message}");
    let inside = format!("{bundle}/model.onnx");
    fs::write(&inside, "").unwrap();
    let message = refused(&["convert", &bundle, &inside]);
    assert!(message.contains("is part of"), "{message}");
    let nowhere = bundles.at("nowhere/model.onnx");
    let message = refused(&["convert", &bundle, &nowhere]);
    assert!(
        message.ends_with("its directory does not exist"),
        "{message}"
    );
    let there = bundles.file("there.ONNX", "mine");
    let message = refused(&["convert", &bundle, &there]);
    assert!(
        message.ends_with("exists; --force replaces it"),
        "{message}"
    );
    printed(&["convert", "--force", &bundle, &there]);
    Model::decode(&fs::read(&there).unwrap()[..]).unwrap();
    let both = apps(&[
        "convert",
        "--onnx",
        "--torchvision",
        &bundle,
        &bundles.at("x"),
    ]);
    assert_eq!(both.status.code(), Some(2));
}
