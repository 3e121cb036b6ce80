//! The encoder and its heads against PyTorch, and what a bundle keeps of them.
//!
//! `tests/golden/README.md` says where the numbers come from and why each tolerance is what it is.

#![allow(clippy::unwrap_used)] // A test that can't go on should stop.

use std::collections::BTreeSet;
use std::path::Path;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::{self, Architecture, Load, Precision};
use model::{BertClassifier, BertConfig, BertInput, BertMaskedLm, Bundle};

mod tiny_bert;

use tiny_bert::{Values, assert_all_near, assert_near, at_real, golden};

/// For hidden states and logits.
const FORWARD: f32 = 2e-5;
/// For the loss and every gradient.
const BACKWARD: f32 = 1e-5;
/// Where Burn computes ndarray's reciprocals, and so the gradient of a division, to 12 or 14 bits by SIMD.
const BACKWARD_NDARRAY: f32 = 2e-4;

/// Hidden states and logits of the golden batch.
fn forward_matches<B: Backend>() {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let model = tiny_bert::masked_lm::<B>(&device);
    let input = || tiny_bert::input::<B>(&golden, &device);
    let hidden = tiny_bert::values(model.bert.forward(input()));
    let logits = tiny_bert::values(model.forward(input()));
    for (name, ours) in [("hidden", hidden), ("logits", logits)] {
        let theirs = at_real(&golden[name], &golden);
        assert_near(name, &at_real(&ours, &golden), &theirs, FORWARD);
    }
}

/// One layer of two: a mistake in the second can't make up for one in the first.
fn first_layer_matches<B: Backend>() {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let mut bert = tiny_bert::masked_lm::<B>(&device).bert;
    bert.encoder.layer.truncate(1);
    let ours = tiny_bert::values(bert.forward(tiny_bert::input(&golden, &device)));
    let theirs = at_real(&golden["hidden_layer1"], &golden);
    assert_near("hidden_layer1", &at_real(&ours, &golden), &theirs, FORWARD);
}

/// Loss over the labelled positions, and the gradient of each parameter.
fn backward_matches<B: AutodiffBackend>(tolerance: f32) {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let model = tiny_bert::masked_lm::<B>(&device);
    let targets = tiny_bert::targets(&golden);
    assert_eq!(targets.0.len(), 6);
    let input = tiny_bert::input(&golden, &device);
    let loss = tiny_bert::loss_sum(&model, input, &targets, &device) / 6.0;
    assert_near(
        "loss",
        &tiny_bert::values(loss.clone()),
        &golden["loss"],
        tolerance,
    );
    let gradients = tiny_bert::gradients(model, &loss.backward());
    assert_all_near(
        "gradient",
        &gradients,
        &tiny_bert::under(&golden, "grad."),
        tolerance,
    );
}

fn classifier<B: Backend>(device: &B::Device) -> (Bundle, BertClassifier<B>) {
    let bundle = Bundle::open(&tiny_bert::path("tiny_bert_classifier")).unwrap();
    let config = bundle.bert_config().unwrap();
    let model = BertClassifier::new(&config, bundle.classes().unwrap().len(), device);
    let model = bundle.load(model, Load::Whole).unwrap();
    (bundle, model)
}

/// Classes, and logits through pooler and head.
fn classifier_matches<B: Backend>() {
    let device = Default::default();
    let golden = golden("tiny_bert_classifier.safetensors");
    let (bundle, model) = classifier::<B>(&device);
    assert_eq!(
        bundle.architecture(),
        Architecture::BertForSequenceClassification
    );
    assert_eq!(bundle.classes().unwrap(), ["animal", "plant", "food"]);
    let logits = model.forward(tiny_bert::input(&golden, &device));
    assert_near(
        "logits",
        &tiny_bert::values(logits),
        &golden["logits"],
        FORWARD,
    );
}

#[test]
fn hidden_states_and_logits_are_those_of_transformers() {
    forward_matches::<Flex>();
    forward_matches::<NdArray>();
}

#[test]
fn hidden_states_after_one_layer_are_those_of_transformers() {
    first_layer_matches::<Flex>();
    first_layer_matches::<NdArray>();
}

#[test]
fn loss_and_gradients_are_those_of_torch() {
    backward_matches::<Autodiff<Flex>>(BACKWARD);
    backward_matches::<Autodiff<NdArray>>(BACKWARD_NDARRAY);
}

#[test]
fn classifier_logits_are_those_of_transformers() {
    classifier_matches::<Flex>();
    classifier_matches::<NdArray>();
}

/// Rows of the golden vocabulary, padded on the right with token 0 to `seq`.
fn padded(
    rows: &[&[i32]],
    seq: usize,
    device: &<Flex as burn::tensor::backend::BackendTypes>::Device,
) -> BertInput<Flex> {
    let shape = [rows.len(), seq];
    let at = |row: &[i32]| (0..seq).map(|at| row.get(at).copied()).collect::<Vec<_>>();
    let cells: Vec<Option<i32>> = rows.iter().flat_map(|row| at(row)).collect();
    let tokens: Vec<i32> = cells.iter().map(|cell| cell.unwrap_or(0)).collect();
    let mask: Vec<bool> = cells.iter().map(Option::is_none).collect();
    BertInput {
        tokens: Tensor::from_data(TensorData::new(tokens, shape), device),
        token_types: None,
        mask_pad: Some(Tensor::from_data(TensorData::new(mask, shape), device)),
    }
}

#[test]
fn padding_never_changes_a_real_tokens_output() {
    let device = Default::default();
    let model = tiny_bert::masked_lm::<Flex>(&device);
    let row: &[i32] = &[2, 11, 4, 29, 3];
    let forward = |input| tiny_bert::values(model.forward(input)).1;
    let alone = {
        let input = padded(&[row], row.len(), &device);
        forward(BertInput {
            mask_pad: None,
            ..input
        })
    };
    // Beside a longer row, and with as much padding as there are positions.
    for (rows, seq) in [(vec![row, &[2, 9, 8, 7, 6, 5, 3]], 7), (vec![row], 16)] {
        let logits = forward(padded(&rows, seq, &device));
        // Sums over more terms may be taken in another order: a few units in the last place.
        assert_near(
            "logits",
            &(vec![alone.len()], logits[..alone.len()].to_vec()),
            &(vec![alone.len()], alone.clone()),
            1e-5,
        );
    }
}

#[test]
fn a_row_of_nothing_but_padding_is_no_nan() {
    let device = Default::default();
    let model = tiny_bert::masked_lm::<Flex>(&device);
    let logits = model.forward(padded(&[&[], &[2, 3]], 4, &device));
    assert!(
        tiny_bert::values(logits)
            .1
            .iter()
            .all(|value| value.is_finite())
    );
}

fn write_masked_lm(at: &Path, model: &BertMaskedLm<Flex>, precision: Precision) -> Bundle {
    let sizes: BertConfig = Bundle::open(&tiny_bert::path("tiny_bert"))
        .unwrap()
        .bert_config()
        .unwrap();
    let config = bundle::config_json(Architecture::BertForMaskedLm, &sizes, None);
    bundle::write(at, &config, model, precision, &[]).unwrap();
    let bundle = Bundle::open(at).unwrap();
    assert_eq!(bundle.bert_config().unwrap(), sizes);
    bundle
}

/// Logits of the golden batch after writing the model in `precision` and reading it into fresh weights.
fn reloaded(precision: Precision) -> Values {
    let device = Default::default();
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_bert::masked_lm::<Flex>(&device);
    let bundle = write_masked_lm(&folder.path().join("bundle"), &model, precision);
    let fresh = BertMaskedLm::new(&bundle.bert_config().unwrap(), &device);
    let model = bundle.load::<Flex, _>(fresh, Load::Whole).unwrap();
    let golden = golden("tiny_bert.safetensors");
    tiny_bert::values(model.forward(tiny_bert::input(&golden, &device)))
}

#[test]
fn a_saved_bundle_reloads_to_equal_logits() {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let model = tiny_bert::masked_lm::<Flex>(&device);
    let logits = tiny_bert::values(model.forward(tiny_bert::input(&golden, &device)));
    assert_eq!(reloaded(Precision::F32), logits);
    // Eleven bits of mantissa: weights of up to 1 are off by 2e-4, which a few layers turn into 1e-2 at most.
    assert_near("logits in f16", &reloaded(Precision::F16), &logits, 1e-2);
}

#[test]
fn a_written_bundle_holds_the_names_and_values_of_transformers() {
    let device = Default::default();
    let theirs = golden("tiny_bert/model.safetensors");
    let ours = tiny_bert::parameters(&tiny_bert::masked_lm::<Flex>(&device));
    assert_all_near("weight", &ours, &theirs, 0.0);
    let theirs = golden("tiny_bert_classifier/model.safetensors");
    let ours = tiny_bert::parameters(&classifier::<Flex>(&device).1);
    assert_all_near("weight", &ours, &theirs, 0.0);
}

#[test]
fn a_masked_lm_gives_its_backbone_to_a_classifier() {
    let device = Default::default();
    let bundle = Bundle::open(&tiny_bert::path("tiny_bert")).unwrap();
    let fresh = BertClassifier::<Flex>::new(&bundle.bert_config().unwrap(), 3, &device);
    let backbone = Load::Backbone {
        prefix: "bert.",
        optional: "pooler.",
    };
    let ours = tiny_bert::parameters(&bundle.load::<Flex, _>(fresh, backbone).unwrap());
    let theirs = golden("tiny_bert/model.safetensors");
    let names: BTreeSet<_> = ours
        .keys()
        .filter(|name| theirs.contains_key(*name))
        .collect();
    assert_eq!(names.len(), 37, "5 of the embeddings, 16 of each layer");
    for name in names {
        assert_eq!(ours[name], theirs[name], "{name}");
    }
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let device = Default::default();
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_bert::masked_lm::<Flex>(&device);
    let bundle = write_masked_lm(&folder.path().join("bundle"), &model, Precision::F32);
    let config = bundle.bert_config().unwrap();
    let message = |config: &BertConfig| {
        let fresh = BertMaskedLm::<Flex>::new(config, &device);
        let error = bundle
            .load::<Flex, _>(fresh, Load::Whole)
            .unwrap_err()
            .to_string();
        error.replace(&folder.path().display().to_string(), "FOLDER")
    };
    assert_eq!(
        message(&BertConfig {
            vocab_size: 49,
            ..config.clone()
        }),
        "FOLDER/bundle/model.safetensors: bert.embeddings.word_embeddings.weight has shape [48, 32]; \
         the configuration says [49, 32]"
    );
    let deeper = message(&BertConfig {
        num_hidden_layers: 3,
        ..config
    });
    assert!(deeper.contains("lacks bert.encoder.layer.2."), "{deeper}");
}
