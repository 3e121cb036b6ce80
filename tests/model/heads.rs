//! Classes of tokens, spans, choices and pairs of segments against transformers: states, logits, loss, all gradients, and the way there and back.
//!
//! Tolerances are those of `families`; `tests/golden/README.md` says what the models are.

use std::fs;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::module::{AutodiffModule, Module};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::{self, Load, Loaded, Precision};
use model::families::Place;
use model::registry::TextBackbone;
use model::{
    Bundle, ChoiceModel, Draw, HeadKind, Names, SentencePairModel, SpanFinder, TextClassifier,
    TextConfig, TokenClassifier,
};

use crate::families::{
    BACKWARD, BACKWARD_OF_NDARRAY, assert_gradients_within, assert_keys_are_those_of_transformers,
    mean_loss, places,
};
use crate::golden::{self, Tensors, assert_near, at_real};

const FORWARD: f32 = 1e-4;
const LOSS: f32 = 1e-5;

const FAMILIES: [&str; 7] = [
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "gpt2",
    "llama",
    "qwen2",
];
/// Those of which models that choose are made.
const CHOOSING: [&str; 3] = ["bert", "roberta", "distilbert"];

/// A head as this test sees it.
trait Head<B: Backend>: Module<B> {
    const KIND: HeadKind;
    /// Of its folders.
    const NAME: &'static str;

    fn draw(config: &TextConfig, classes: usize, device: &B::Device) -> Self;
    fn backbone(&self) -> &TextBackbone<B>;
    /// Logits of a golden batch, and their mean loss.
    fn pass(&self, config: &TextConfig, golden: &Tensors) -> (Tensor<B, 2>, Tensor<B, 1>);
}

fn labels(golden: &Tensors) -> Vec<i32> {
    ints(golden, "labels")
}

fn ints(golden: &Tensors, name: &str) -> Vec<i32> {
    let (_, values) = &golden[name];
    values.iter().map(|&value| value as i32).collect()
}

impl<B: Backend> Head<B> for TokenClassifier<B> {
    const KIND: HeadKind = HeadKind::TokenClasses;
    const NAME: &'static str = "token-classes";

    fn draw(config: &TextConfig, classes: usize, device: &B::Device) -> Self {
        TokenClassifier::draw(config, classes, &Draw::new(device, 0.02))
    }

    fn backbone(&self) -> &TextBackbone<B> {
        &self.backbone
    }

    fn pass(&self, _: &TextConfig, golden: &Tensors) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let device = self.devices()[0].clone();
        let logits = self.logits(&golden::input(golden, &device));
        (logits.clone(), mean_loss(logits, &labels(golden)))
    }
}

impl<B: Backend> Head<B> for SpanFinder<B> {
    const KIND: HeadKind = HeadKind::Spans;
    const NAME: &'static str = "spans";

    fn draw(config: &TextConfig, _: usize, device: &B::Device) -> Self {
        SpanFinder::draw(config, &Draw::new(device, 0.02))
    }

    fn backbone(&self) -> &TextBackbone<B> {
        &self.backbone
    }

    fn pass(&self, _: &TextConfig, golden: &Tensors) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let device = self.devices()[0].clone();
        let shape = &golden["input_ids"].0;
        let (rows, seq) = (shape[0], shape[1]);
        let logits = self.logits(&golden::input(golden, &device));
        let losses = [0, 1].map(|end| {
            let of_end = logits.clone().slice([0..rows * seq, end..end + 1]);
            let inside = |place: i32| if place < seq as i32 { place } else { -100 };
            let places = labels(golden).into_iter().skip(end).step_by(2).map(inside);
            mean_loss(of_end.reshape([rows, seq]), &places.collect::<Vec<_>>())
        });
        let [start, end] = losses;
        (logits, (start + end) / 2.0)
    }
}

impl<B: Backend> Head<B> for ChoiceModel<B> {
    const KIND: HeadKind = HeadKind::Choices;
    const NAME: &'static str = "choices";

    fn draw(config: &TextConfig, _: usize, device: &B::Device) -> Self {
        ChoiceModel::draw(config, &Draw::new(device, 0.02))
    }

    fn backbone(&self) -> &TextBackbone<B> {
        &self.backbone
    }

    fn pass(&self, config: &TextConfig, golden: &Tensors) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let device = self.devices()[0].clone();
        let at = places(golden, config.class_plan().place, &device);
        let logits = self.logits(&golden::input(golden, &device), at);
        let [choices, _] = logits.dims();
        let loss = mean_loss(logits.clone().reshape([1, choices]), &labels(golden));
        (logits, loss)
    }
}

impl<B: Backend> Head<B> for SentencePairModel<B> {
    const KIND: HeadKind = HeadKind::SentencePairs;
    const NAME: &'static str = "pretraining";

    fn draw(config: &TextConfig, _: usize, device: &B::Device) -> Self {
        SentencePairModel::draw(config, &Draw::new(device, 0.02))
    }

    fn backbone(&self) -> &TextBackbone<B> {
        &self.backbone
    }

    fn pass(&self, _: &TextConfig, golden: &Tensors) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let device = self.devices()[0].clone();
        let at = places(golden, Place::First, &device);
        let states = self
            .backbone
            .states(&golden::input(golden, &device), None, None);
        let pairs = self.pair_logits(states.clone().select(0, at));
        let ours = golden::values(pairs.clone());
        assert_near("logits of pairs", &ours, &golden["pair_logits"], FORWARD);
        let logits = self.token_logits(states);
        let loss = mean_loss(logits.clone(), &labels(golden));
        (
            logits,
            loss + mean_loss(pairs, &ints(golden, "pair_labels")),
        )
    }
}

fn families<B: Backend, H: Head<B>>() -> Vec<&'static str> {
    let has = |family: &&str| match H::KIND {
        HeadKind::Choices => CHOOSING.contains(family),
        HeadKind::SentencePairs => *family == "bert",
        _ => true,
    };
    FAMILIES.into_iter().filter(has).collect()
}

/// Folders of all models with these heads.
pub fn folders() -> Vec<String> {
    fn of<H: Head<Flex>>() -> impl Iterator<Item = String> {
        let families = families::<Flex, H>().into_iter();
        families.flat_map(|family| {
            (1..=3).map(move |number| format!("families/{family}-{}-{number}", H::NAME))
        })
    }
    let choices = of::<ChoiceModel<Flex>>().chain(of::<SentencePairModel<Flex>>());
    of::<TokenClassifier<Flex>>()
        .chain(of::<SpanFinder<Flex>>())
        .chain(choices)
        .collect()
}

/// Each model of a head, with its folder, configuration, names and golden batch.
fn each<B: Backend, H: Head<B>>(work: impl Fn(&str, &Bundle, H, Names, &Tensors)) {
    for family in families::<B, H>() {
        for number in 1..=3 {
            let folder = format!("families/{family}-{}-{number}", H::NAME);
            let bundle = Bundle::open(&golden::path(&folder)).unwrap();
            let (model, names) = open::<B, H>(&bundle);
            let golden = golden::golden(&format!("{folder}/expected.safetensors"));
            work(&folder, &bundle, model, names, &golden);
        }
    }
}

/// A model with the weights of a bundle; every tensor of the file has a place in it.
fn open<B: Backend, H: Head<B>>(bundle: &Bundle) -> (H, Names) {
    let names = bundle.require(H::KIND).unwrap();
    let classes = bundle.classes().map_or(0, |classes| classes.len());
    // The golden models dropped nothing, whatever their configuration says of training.
    let mut config = bundle.text_config().unwrap();
    config.set_dropout(0.0);
    let fresh = H::draw(&config, classes, &Default::default());
    let (model, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
    assert_eq!(loaded, Loaded::default(), "{}", bundle.path().display());
    (model, names)
}

fn forward_matches<B: Backend, H: Head<B>>() {
    each::<B, H>(|folder, bundle, model, _, golden| {
        let config = bundle.text_config().unwrap();
        let device = model.devices()[0].clone();
        let tokens = golden["input_ids"].0.clone();
        let shaped = |tensor: Tensor<B, 2>| {
            let (shape, values) = golden::values(tensor);
            (vec![tokens[0], tokens[1], shape[1]], values)
        };
        let hidden = model
            .backbone()
            .states(&golden::input(golden, &device), None, None);
        let hidden = at_real(&shaped(hidden), golden);
        let theirs = at_real(&golden["hidden"], golden);
        assert_near(&format!("hidden of {folder}"), &hidden, &theirs, FORWARD);
        let (logits, loss) = model.pass(&config, golden);
        let what = format!("logits of {folder}");
        if H::KIND == HeadKind::Choices {
            assert_near(&what, &golden::values(logits), &golden["logits"], FORWARD);
        } else {
            let logits = at_real(&shaped(logits), golden);
            assert_near(&what, &logits, &at_real(&golden["logits"], golden), FORWARD);
        }
        let loss = golden::values(loss);
        assert_near(&format!("loss of {folder}"), &loss, &golden["loss"], LOSS);
    });
}

fn backward_matches<B: AutodiffBackend, H: Head<B> + AutodiffModule<B>>(within: [f32; 2]) {
    each::<B, H>(|folder, bundle, model, names, golden| {
        let (_, loss) = model.pass(&bundle.text_config().unwrap(), golden);
        let ours = golden::gradients(model, names, &loss.backward());
        let theirs = golden::under(golden, "grad.");
        assert_gradients_within(folder, &ours, &theirs, within);
    });
}

fn round_trip<H: Head<Flex>>() {
    each::<Flex, H>(|folder, bundle, model, names, _| {
        let config = bundle.text_config().unwrap();
        let has_classes = H::KIND == HeadKind::TokenClasses;
        let classes = has_classes.then(|| bundle.classes().unwrap());
        let json = bundle::config_json(names, &config, classes.as_deref());
        let written = tempfile::tempdir().unwrap();
        let at = written.path().join("bundle");
        bundle::write(&at, &json, &model, names, Precision::F32, &[]).unwrap();
        let again = Bundle::open(&at).unwrap();
        assert_eq!(again.text_config().unwrap(), config, "{folder}");
        assert_keys_are_those_of_transformers(folder, &at);
        let (reread, _) = open::<Flex, H>(&again);
        let (ours, first) = (
            golden::parameters(&reread, names),
            golden::parameters(&model, names),
        );
        assert_eq!(ours, first, "{folder}");
        let file = golden::tensors(&fs::read(at.join(bundle::WEIGHTS)).unwrap());
        assert_eq!(
            file,
            golden::golden(&format!("{folder}/model.safetensors")),
            "{folder}"
        );
        if let Some(classes) = classes {
            assert_eq!(again.classes().unwrap(), classes, "{folder}");
        }
    });
}

#[test]
fn states_logits_and_losses_are_those_of_transformers() {
    forward_matches::<Flex, TokenClassifier<Flex>>();
    forward_matches::<Flex, SpanFinder<Flex>>();
    forward_matches::<Flex, ChoiceModel<Flex>>();
    forward_matches::<Flex, SentencePairModel<Flex>>();
}

#[test]
fn they_are_on_a_backend_without_operations_of_our_own() {
    forward_matches::<NdArray, TokenClassifier<NdArray>>();
    forward_matches::<NdArray, SpanFinder<NdArray>>();
    forward_matches::<NdArray, ChoiceModel<NdArray>>();
    forward_matches::<NdArray, SentencePairModel<NdArray>>();
}

#[test]
fn gradients_are_those_of_transformers() {
    backward_matches::<Autodiff<Flex>, TokenClassifier<Autodiff<Flex>>>(BACKWARD);
    backward_matches::<Autodiff<Flex>, SpanFinder<Autodiff<Flex>>>(BACKWARD);
    backward_matches::<Autodiff<Flex>, ChoiceModel<Autodiff<Flex>>>(BACKWARD);
    backward_matches::<Autodiff<Flex>, SentencePairModel<Autodiff<Flex>>>(BACKWARD);
}

#[test]
fn gradients_are_on_a_backend_without_operations_of_our_own() {
    backward_matches::<Autodiff<NdArray>, TokenClassifier<Autodiff<NdArray>>>(BACKWARD_OF_NDARRAY);
    backward_matches::<Autodiff<NdArray>, SpanFinder<Autodiff<NdArray>>>(BACKWARD_OF_NDARRAY);
    backward_matches::<Autodiff<NdArray>, ChoiceModel<Autodiff<NdArray>>>(BACKWARD_OF_NDARRAY);
    backward_matches::<Autodiff<NdArray>, SentencePairModel<Autodiff<NdArray>>>(
        BACKWARD_OF_NDARRAY,
    );
}

#[test]
fn a_model_that_is_written_and_opened_again_is_the_same() {
    round_trip::<TokenClassifier<Flex>>();
    round_trip::<SpanFinder<Flex>>();
    round_trip::<ChoiceModel<Flex>>();
    round_trip::<SentencePairModel<Flex>>();
}

/// Classes at chosen tokens are those of the whole, wherever the last layer computes them.
#[test]
fn chosen_tokens_have_the_classes_of_the_whole() {
    each::<Flex, TokenClassifier<Flex>>(|folder, _, model, _, golden| {
        let device = model.devices()[0];
        let input = golden::input::<Flex>(golden, &device);
        let at: Tensor<Flex, 1, Int> = Tensor::from_data([1, 0, 5], &device);
        let whole = model.logits(&input).select(0, at.clone());
        let some = model.logits_at(&input, Some(at));
        // Products over fewer rows may be taken in another order.
        assert_near(folder, &golden::values(some), &golden::values(whole), 1e-5);
    });
}

#[test]
fn a_head_is_not_taken_for_another() {
    let open = |name: &str| Bundle::open(&golden::path(name)).unwrap();
    for (folder, kind) in [
        ("families/bert-token-classes-1", HeadKind::Classes),
        ("families/bert-choices-1", HeadKind::Classes),
        ("families/bert-classifier-1", HeadKind::TokenClasses),
        ("families/bert-classifier-1", HeadKind::Spans),
        ("families/distilbert-choices-2", HeadKind::Classes),
        ("families/gpt2-spans-1", HeadKind::Tokens),
        ("families/bert-masked-lm-1", HeadKind::SentencePairs),
        ("families/bert-pretraining-1", HeadKind::Classes),
    ] {
        let error = open(folder).require(kind).unwrap_err().to_string();
        assert!(error.contains(kind.describe()), "{folder}: {error}");
    }
}

#[test]
fn a_classifier_starts_from_what_was_pretrained() {
    let device = Default::default();
    for folder in ["bert-pretraining-1", "electra-discriminator-1"] {
        let bundle = Bundle::open(&golden::path(&format!("families/{folder}"))).unwrap();
        let config = bundle.text_config().unwrap();
        let names = config.names(HeadKind::Classes);
        let fresh = TextClassifier::<Flex>::draw(&config, 3, &Draw::new(&device, 0.02));
        let (_, loaded) = bundle.load(fresh, names, Load::Backbone).unwrap();
        // The pooler is the backbone's.
        let drawn = |name: &String| name.starts_with("classifier.");
        assert!(loaded.drawn.iter().all(drawn), "{folder}: {loaded:?}");
        assert_eq!(loaded.lost(names), None, "{folder}");
    }
}

/// The backbone of one head under another, whose file has another prefix.
#[test]
fn a_backbone_is_found_under_every_prefix() {
    for (folder, other) in [
        ("families/llama-causal-lm-1", HeadKind::Spans),
        ("families/llama-spans-1", HeadKind::TokenClasses),
        ("families/qwen2-spans-2", HeadKind::TokenClasses),
    ] {
        let bundle = Bundle::open(&golden::path(folder)).unwrap();
        let config = bundle.text_config().unwrap();
        let (bare, names) = (config.names(HeadKind::Bare), config.names(other));
        let device = Default::default();
        let draw = Draw::new(&device, 0.02);
        let alone = config.init::<Flex>(HeadKind::Bare, &draw);
        let (alone, _) = bundle.load(alone, bare, Load::Whole).unwrap();
        let backbone = if other == HeadKind::Spans {
            let model = SpanFinder::<Flex>::draw(&config, &draw);
            bundle
                .load(model, names, Load::Backbone)
                .unwrap()
                .0
                .backbone
        } else {
            let model = TokenClassifier::<Flex>::draw(&config, 2, &draw);
            bundle
                .load(model, names, Load::Backbone)
                .unwrap()
                .0
                .backbone
        };
        let (ours, theirs) = (
            golden::parameters(&backbone, bare),
            golden::parameters(&alone, bare),
        );
        assert_eq!(ours, theirs, "{folder}");
    }
}
