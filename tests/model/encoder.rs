//! The encoder and its heads against PyTorch, and what a bundle keeps of them.
//!
//! `tests/golden/README.md` says where the numbers come from and why each tolerance is what it is.

use std::collections::BTreeSet;
use std::path::Path;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::{self, Load, Precision};
use model::registry::{TEXT_FAMILIES, TextBackbone};
use model::{Bundle, Draw, HeadKind, Names, TextClassifier, TextConfig, TokenInput, TokenModel};

use crate::golden::{self, Values, assert_all_near, assert_near, at_real, golden};
use crate::tiny_bert;

/// For hidden states and logits.
const FORWARD: f32 = 2e-5;
/// For the loss and every gradient.
const BACKWARD: f32 = 1e-5;
/// Where Burn computes ndarray's reciprocals, and so the gradient of a division, to 12 or 14 bits by SIMD.
const BACKWARD_NDARRAY: f32 = 5e-4;

/// What a model makes of a batch, in the batch's shape.
fn in_shape<B: Backend>(tensor: Tensor<B, 2>, input: &TokenInput<B>) -> Values {
    let [batch, seq] = input.tokens.dims();
    let [_, width] = tensor.dims();
    golden::values(tensor.reshape([batch, seq, width]))
}

/// Hidden states and logits of the golden batch.
fn forward_matches<B: Backend>() {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let model = tiny_bert::masked_lm::<B>(&device);
    let input = golden::input::<B>(&golden, &device);
    let hidden = in_shape(model.backbone.states(&input, None, None), &input);
    let logits = in_shape(model.logits(&input, None, None), &input);
    for (name, ours) in [("hidden", hidden), ("logits", logits)] {
        let theirs = at_real(&golden[name], &golden);
        assert_near(name, &at_real(&ours, &golden), &theirs, FORWARD);
    }
}

/// One layer of two: a mistake in the second can't make up for one in the first.
fn first_layer_matches<B: Backend>() {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let mut backbone = tiny_bert::masked_lm::<B>(&device).backbone;
    let TextBackbone::Bert(bert) = &mut backbone else {
        panic!("another family");
    };
    bert.encoder.layer.truncate(1);
    let input = golden::input(&golden, &device);
    let ours = in_shape(backbone.states(&input, None, None), &input);
    let theirs = at_real(&golden["hidden_layer1"], &golden);
    assert_near("hidden_layer1", &at_real(&ours, &golden), &theirs, FORWARD);
}

/// Loss over the labelled positions, and the gradient of each parameter.
fn backward_matches<B: AutodiffBackend>(tolerance: f32) {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let model = tiny_bert::masked_lm::<B>(&device);
    let targets = golden::targets(&golden);
    assert_eq!(targets.0.len(), 6);
    let input = golden::input(&golden, &device);
    let loss = tiny_bert::loss_sum(&model, input, &targets, &device) / 6.0;
    let value = golden::values(loss.clone());
    assert_near("loss", &value, &golden["loss"], tolerance);
    let gradients = golden::gradients(model, tiny_bert::names(), &loss.backward());
    let theirs = golden::under(&golden, "grad.");
    assert_all_near("gradient", &gradients, &theirs, tolerance);
}

fn names(head: HeadKind) -> Names {
    Names::new(TEXT_FAMILIES[0], head)
}

fn classifier<B: Backend>(device: &B::Device) -> (Bundle, TextClassifier<B>) {
    let bundle = Bundle::open(&golden::path("tiny_bert_classifier")).unwrap();
    let config = bundle.text_config().unwrap();
    let classes = bundle.classes().unwrap().len();
    let model = TextClassifier::draw(&config, classes, &Draw::new(device, 0.02));
    let names = bundle.require(HeadKind::Classes).unwrap();
    let (model, _) = bundle.load(model, names, Load::Whole).unwrap();
    (bundle, model)
}

/// Classes, and logits through pooler and head.
fn classifier_matches<B: Backend>() {
    let device = Default::default();
    let golden = golden("tiny_bert_classifier.safetensors");
    let (bundle, model) = classifier::<B>(&device);
    assert_eq!(bundle.class(), Some("BertForSequenceClassification"));
    assert_eq!(bundle.classes().unwrap(), ["animal", "plant", "food"]);
    let input = golden::input(&golden, &device);
    let [batch, seq] = input.tokens.dims();
    let first: Vec<i32> = (0..batch).map(|row| (row * seq) as i32).collect();
    let first = Tensor::from_data(TensorData::new(first, [batch]), &device);
    let logits = golden::values(model.logits(&input, first));
    assert_near("logits", &logits, &golden["logits"], FORWARD);
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
) -> TokenInput<Flex> {
    let shape = [rows.len(), seq];
    let at = |row: &[i32]| (0..seq).map(|at| row.get(at).copied()).collect::<Vec<_>>();
    let cells: Vec<Option<i32>> = rows.iter().flat_map(|row| at(row)).collect();
    let tokens: Vec<i32> = cells.iter().map(|cell| cell.unwrap_or(0)).collect();
    let mask: Vec<bool> = cells.iter().map(Option::is_none).collect();
    let tokens = Tensor::from_data(TensorData::new(tokens, shape), device);
    TokenInput {
        mask_pad: Some(Tensor::from_data(TensorData::new(mask, shape), device)),
        ..TokenInput::new(tokens)
    }
}

#[test]
fn padding_never_changes_a_real_tokens_output() {
    let device = Default::default();
    let model = tiny_bert::masked_lm::<Flex>(&device);
    let row: &[i32] = &[2, 11, 4, 29, 3];
    let forward = |input| golden::values(model.logits(&input, None, None)).1;
    let alone = {
        let input = padded(&[row], row.len(), &device);
        forward(TokenInput {
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
    let logits = model.logits(&padded(&[&[], &[2, 3]], 4, &device), None, None);
    assert!(
        golden::values(logits)
            .1
            .iter()
            .all(|value| value.is_finite())
    );
}

fn write_masked_lm(at: &Path, model: &TokenModel<Flex>, precision: Precision) -> Bundle {
    let golden = Bundle::open(&golden::path("tiny_bert")).unwrap();
    let sizes = golden.text_config().unwrap();
    let names = names(HeadKind::Tokens);
    let config = bundle::config_json(names, &sizes, None);
    bundle::write(at, &config, model, names, precision, &[]).unwrap();
    let bundle = Bundle::open(at).unwrap();
    assert_eq!(bundle.text_config().unwrap(), sizes);
    bundle
}

fn drawn(config: &TextConfig) -> TokenModel<Flex> {
    TokenModel::draw(config, &Draw::new(&Default::default(), 0.02))
}

/// Logits of the golden batch after writing the model in `precision` and reading it into fresh weights.
fn reloaded(precision: Precision) -> Values {
    let device = Default::default();
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_bert::masked_lm::<Flex>(&device);
    let bundle = write_masked_lm(&folder.path().join("bundle"), &model, precision);
    let fresh = drawn(&bundle.text_config().unwrap());
    let names = bundle.require(HeadKind::Tokens).unwrap();
    let (model, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
    assert_eq!(loaded, bundle::Loaded::default());
    let golden = golden("tiny_bert.safetensors");
    golden::values(model.logits(&golden::input(&golden, &device), None, None))
}

#[test]
fn a_saved_bundle_reloads_to_equal_logits() {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let model = tiny_bert::masked_lm::<Flex>(&device);
    let logits = golden::values(model.logits(&golden::input(&golden, &device), None, None));
    assert_eq!(reloaded(Precision::F32), logits);
    // Eleven bits of mantissa: weights of up to 1 are off by 2e-4, which a few layers turn into 1e-2 at most.
    assert_near("logits in f16", &reloaded(Precision::F16), &logits, 1e-2);
}

#[test]
fn a_written_bundle_holds_the_names_and_values_of_transformers() {
    let device = Default::default();
    let theirs = golden("tiny_bert/model.safetensors");
    let model = tiny_bert::masked_lm::<Flex>(&device);
    let ours = golden::parameters(&model, names(HeadKind::Tokens));
    assert_all_near("weight", &ours, &theirs, 0.0);
    let theirs = golden("tiny_bert_classifier/model.safetensors");
    let model = classifier::<Flex>(&device).1;
    let ours = golden::parameters(&model, names(HeadKind::Classes));
    assert_all_near("weight", &ours, &theirs, 0.0);
}

#[test]
fn a_masked_lm_gives_its_backbone_to_a_classifier() {
    let device = Default::default();
    let bundle = Bundle::open(&golden::path("tiny_bert")).unwrap();
    let config = bundle.text_config().unwrap();
    let fresh = TextClassifier::<Flex>::draw(&config, 3, &Draw::new(&device, 0.02));
    let names = names(HeadKind::Classes);
    let (model, loaded) = bundle.load(fresh, names, Load::Backbone).unwrap();
    let mut drawn = loaded.drawn;
    drawn.sort();
    let [pooler, head] = ["bert.pooler.dense", "classifier"];
    let parts = [pooler, head].map(|part| ["bias", "weight"].map(|end| format!("{part}.{end}")));
    assert_eq!(drawn, parts.concat());
    let ours = golden::parameters(&model, names);
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
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_bert::masked_lm::<Flex>(&Default::default());
    let bundle = write_masked_lm(&folder.path().join("bundle"), &model, Precision::F32);
    let TextConfig::Bert(config) = bundle.text_config().unwrap() else {
        panic!("another family");
    };
    let message = |change: &dyn Fn(&mut model::families::bert::BertConfig)| {
        let mut config = config.clone();
        change(&mut config);
        let fresh = drawn(&TextConfig::Bert(config));
        let error = bundle.load(fresh, names(HeadKind::Tokens), Load::Whole);
        let error = error.unwrap_err().to_string();
        error.replace(&folder.path().display().to_string(), "FOLDER")
    };
    let wider = message(&|config| config.vocab_size = 49);
    for words in [
        "FOLDER/bundle/model.safetensors: ",
        "bert.embeddings.word_embeddings.weight of shape [48, 32] where the model has [49, 32]",
        "cls.predictions.bias of shape [48] where the model has [49]",
    ] {
        assert!(wider.contains(words), "{wider}");
    }
    // Of another shape, and still the model's.
    assert!(!wider.contains("no place"), "{wider}");
    let deeper = message(&|config| config.num_hidden_layers = 3);
    assert!(deeper.contains("lacks bert.encoder.layer.2."), "{deeper}");
}
