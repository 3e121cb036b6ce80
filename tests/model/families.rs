//! Every family and head against transformers: hidden states, logits, loss and all gradients of random models.
//!
//! `tests/golden/README.md` says what the models are, and why each tolerance is what it is.

use std::fs;
use std::path::Path;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::module::AutodiffModule;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::{self, Load, Loaded, Precision};
use model::families::Place;
use model::{
    Bundle, Cache, HeadKind, Names, ReplacedTokenModel, TextClassifier, TextConfig, TokenInput,
    TokenModel,
};

use crate::golden::{self, Tensors, Values, assert_near, at_real, largest};

/// For hidden states and logits.
const FORWARD: f32 = 1e-4;
const LOSS: f32 = 1e-5;
/// Of the largest value of a gradient, or absolute where that is more.
pub const BACKWARD: [f32; 2] = [1e-3, 1e-6];
/// Absolute, of the bias of keys: the softmax takes away what all keys share, so that its gradient is zero but for rounding.
const BACKWARD_OF_KEYS: f32 = 1e-4;
/// The same on ndarray, whose reciprocals have 12 or 14 bits, as the processor's maker chose.
pub const BACKWARD_OF_NDARRAY: [f32; 2] = [1e-2, 5e-4];

/// Families whose language models see what is before a token alone.
const DECODERS: [&str; 5] = ["gpt2", "llama", "qwen2", "hearth_lstm", "hearth_gru"];

/// One of the models of `families/`.
#[derive(Clone, Copy, Debug)]
struct Case {
    family: &'static str,
    head: HeadKind,
    number: usize,
}

impl Case {
    /// All of them.
    fn all() -> Vec<Self> {
        let heads = [HeadKind::Tokens, HeadKind::Classes];
        let families = ["bert", "roberta", "distilbert", "electra"].into_iter();
        let kinds = families
            .chain(DECODERS)
            .flat_map(|family| heads.map(|head| (family, head)))
            .chain([("electra", HeadKind::Replaced)]);
        let case = |(family, head)| {
            (1..=3).map(move |number| Self {
                family,
                head,
                number,
            })
        };
        kinds.flat_map(case).collect()
    }

    fn folder(self) -> String {
        let head = match self.head {
            HeadKind::Classes => "classifier",
            HeadKind::Replaced => "discriminator",
            _ if DECODERS.contains(&self.family) => "causal-lm",
            _ => "masked-lm",
        };
        format!("families/{}-{head}-{}", self.family, self.number)
    }

    fn bundle(self) -> Bundle {
        Bundle::open(&golden::path(&self.folder())).unwrap()
    }

    fn expected(self) -> Tensors {
        golden::golden(&format!("{}/expected.safetensors", self.folder()))
    }
}

#[test]
fn there_is_a_model_of_each_family_and_head() {
    let folders = fs::read_dir(golden::path("families")).unwrap();
    let mut there: Vec<_> = folders
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| format!("families/{name}"))
        .collect();
    let mut here: Vec<_> = Case::all().into_iter().map(Case::folder).collect();
    here.extend(crate::heads::folders());
    there.sort();
    here.sort();
    assert_eq!(there, here);
}

/// What a model makes of a batch.
struct Pass<B: Backend> {
    hidden: Tensor<B, 2>,
    logits: Tensor<B, 2>,
    /// Mean over the labels that count.
    loss: Tensor<B, 1>,
}

/// The place of each row's first or last real token in the flattened batch.
pub fn places<B: Backend>(golden: &Tensors, place: Place, device: &B::Device) -> Tensor<B, 1, Int> {
    let (shape, mask) = &golden["attention_mask"];
    let row = |(number, row): (usize, &[f32])| {
        let real = row.iter().filter(|real| **real == 1.0).count();
        let inside = if place == Place::Last { real - 1 } else { 0 };
        (number * shape[1] + inside) as i32
    };
    let places: Vec<i32> = mask.chunks(shape[1]).enumerate().map(row).collect();
    Tensor::from_data(TensorData::new(places, [shape[0]]), device)
}

/// Mean cross-entropy; the rows of `logits` whose target is below 0 do not count.
pub fn mean_loss<B: Backend>(logits: Tensor<B, 2>, targets: &[i32]) -> Tensor<B, 1> {
    let counted = targets.iter().enumerate().filter(|(_, id)| **id >= 0);
    let (at, ids): (Vec<i32>, Vec<u32>) = counted.map(|(at, id)| (at as i32, *id as u32)).unzip();
    let at = Tensor::from_data(TensorData::new(at, [ids.len()]), &logits.device());
    let losses = model::ops::cross_entropy(logits.select(0, at), &ids);
    losses.sum() / ids.len() as f64
}

/// What each row of the logits should be: a class, or the token at a place of the flattened batch, for a decoder that of
/// the place after it; below 0 where it does not count.
pub fn targets(golden: &Tensors, causal: bool, head: HeadKind) -> Vec<i32> {
    let (shape, labels) = &golden["labels"];
    let labels: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
    if !causal || head == HeadKind::Classes {
        return labels;
    }
    let shifted = labels.chunks(shape[1]).flat_map(|row| {
        let after = row[1..].iter().copied();
        after.chain([-100])
    });
    shifted.collect()
}

fn token_pass<B: Backend>(
    model: &TokenModel<B>,
    config: &TextConfig,
    golden: &Tensors,
    device: &B::Device,
) -> Pass<B> {
    let input = golden::input(golden, device);
    let logits = model.logits(&input, None, None);
    let targets = targets(golden, config.describe().causal, HeadKind::Tokens);
    Pass {
        hidden: model.backbone.states(&input, None, None),
        loss: mean_loss(logits.clone(), &targets),
        logits,
    }
}

fn class_pass<B: Backend>(
    model: &TextClassifier<B>,
    config: &TextConfig,
    golden: &Tensors,
    device: &B::Device,
) -> Pass<B> {
    let input = golden::input(golden, device);
    let at = places(golden, config.class_plan().place, device);
    let logits = model.logits(&input, at);
    let targets = targets(golden, config.describe().causal, HeadKind::Classes);
    Pass {
        hidden: model.backbone.states(&input, None, None),
        loss: mean_loss(logits.clone(), &targets),
        logits,
    }
}

fn replaced_pass<B: Backend>(
    model: &ReplacedTokenModel<B>,
    golden: &Tensors,
    device: &B::Device,
) -> Pass<B> {
    let input = golden::input(golden, device);
    let logits = model.logits(&input);
    let (_, mask) = &golden["attention_mask"];
    let (_, labels) = &golden["labels"];
    let real = mask.iter().enumerate().filter(|(_, real)| **real == 1.0);
    let real: Vec<i32> = real.map(|(at, _)| at as i32).collect();
    let n = real.len();
    // Binary cross-entropy: ln(1 + e^x) of a token of the text, ln(1 + e^-x) of one that was replaced.
    let signs: Vec<f32> = real
        .iter()
        .map(|&at| 1.0 - 2.0 * labels[at as usize])
        .collect();
    let ints = Tensor::from_data(TensorData::new(real, [n]), device);
    let signs = Tensor::<B, 1>::from_data(TensorData::new(signs, [n]), device);
    let losses = (logits.clone().select(0, ints) * signs).exp().log1p();
    Pass {
        hidden: model.backbone.states(&input, None, None),
        loss: losses.mean(),
        logits: logits.unsqueeze_dim(1),
    }
}

/// A discriminator with the weights of a bundle; every tensor of the file has a place in it.
pub fn discriminator<B: Backend>(
    bundle: &Bundle,
    device: &B::Device,
) -> (ReplacedTokenModel<B>, Names) {
    let names = bundle.require(HeadKind::Replaced).unwrap();
    let config = bundle.text_config().unwrap();
    let fresh = ReplacedTokenModel::draw(&config, &bundle.draw(device, names));
    let (model, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
    assert_eq!(loaded, Loaded::default(), "{}", bundle.path().display());
    (model, names)
}

/// A language model with the weights of a bundle; every tensor of the file has a place in it.
pub fn language_model<B: Backend>(bundle: &Bundle, device: &B::Device) -> (TokenModel<B>, Names) {
    let names = bundle.require(HeadKind::Tokens).unwrap();
    let config = bundle.text_config().unwrap();
    let fresh = TokenModel::draw(&config, &bundle.draw(device, names));
    let (model, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
    assert_eq!(loaded, Loaded::default(), "{}", bundle.path().display());
    (model, names)
}

/// A classifier with the weights of a bundle; every tensor of the file has a place in it.
pub fn classifier<B: Backend>(bundle: &Bundle, device: &B::Device) -> (TextClassifier<B>, Names) {
    let names = bundle.require(HeadKind::Classes).unwrap();
    let config = bundle.text_config().unwrap();
    let classes = bundle.classes().unwrap().len();
    let fresh = TextClassifier::draw(&config, classes, &bundle.draw(device, names));
    let (model, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
    assert_eq!(loaded, Loaded::default(), "{}", bundle.path().display());
    (model, names)
}

/// Compares what a model computes; hidden states and scores of tokens at real tokens alone.
fn assert_forward<B: Backend>(case: Case, pass: &Pass<B>, golden: &Tensors) {
    let folder = case.folder();
    let shaped = |tensor: &Tensor<B, 2>| {
        let (shape, values) = golden::values(tensor.clone());
        let tokens = &golden["input_ids"].0;
        (vec![tokens[0], tokens[1], shape[1]], values)
    };
    let near = |name: &str, ours: &Values, theirs: &Values| {
        assert_near(&format!("{name} of {folder}"), ours, theirs, FORWARD);
    };
    let hidden = at_real(&shaped(&pass.hidden), golden);
    near("hidden", &hidden, &at_real(&golden["hidden"], golden));
    if case.head == HeadKind::Classes {
        near(
            "logits",
            &golden::values(pass.logits.clone()),
            &golden["logits"],
        );
    } else {
        let logits = at_real(&shaped(&pass.logits), golden);
        let (mut shape, values) = golden["logits"].clone();
        if case.head == HeadKind::Replaced {
            shape.push(1);
        }
        near("logits", &logits, &at_real(&(shape, values), golden));
    }
    let loss = golden::values(pass.loss.clone());
    assert_near(&format!("loss of {folder}"), &loss, &golden["loss"], LOSS);
}

fn forward_matches<B: Backend>(case: Case) {
    let device = Default::default();
    let (bundle, golden) = (case.bundle(), case.expected());
    let config = bundle.text_config().unwrap();
    let pass = if case.head == HeadKind::Classes {
        let (model, _) = classifier::<B>(&bundle, &device);
        class_pass(&model, &config, &golden, &device)
    } else if case.head == HeadKind::Replaced {
        let (model, _) = discriminator::<B>(&bundle, &device);
        replaced_pass(&model, &golden, &device)
    } else {
        let (model, _) = language_model::<B>(&bundle, &device);
        token_pass(&model, &config, &golden, &device)
    };
    assert_forward(case, &pass, &golden);
}

/// Compares the gradient of every parameter, each with a tolerance that follows from its size.
pub fn assert_gradients(what: &str, ours: &Tensors, theirs: &Tensors) {
    assert_gradients_within(what, ours, theirs, BACKWARD);
}

/// The same with other tolerances, for backends whose own operations are less exact.
///
/// - within: of the largest value of a gradient, or absolute where that is more
pub fn assert_gradients_within(what: &str, ours: &Tensors, theirs: &Tensors, within: [f32; 2]) {
    let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(theirs), "parameters of {what}");
    for (name, values) in theirs {
        let keys = name.ends_with("key.bias") || name.ends_with("k_lin.bias");
        let least = within[1].max(if keys { BACKWARD_OF_KEYS } else { 0.0 });
        let tolerance = (within[0] * largest(values)).max(least);
        let what = format!("gradient of {name} of {what}");
        assert_near(&what, &ours[name], values, tolerance);
    }
}

fn gradients<B: AutodiffBackend, M: AutodiffModule<B>>(
    model: M,
    names: Names,
    loss: Tensor<B, 1>,
) -> Tensors {
    golden::gradients(model, names, &loss.backward())
}

fn backward_matches<B: AutodiffBackend>(case: Case, within: [f32; 2]) {
    let device = Default::default();
    let (bundle, golden) = (case.bundle(), case.expected());
    let config = bundle.text_config().unwrap();
    let ours = if case.head == HeadKind::Classes {
        let (model, names) = classifier::<B>(&bundle, &device);
        let loss = class_pass(&model, &config, &golden, &device).loss;
        gradients(model, names, loss)
    } else if case.head == HeadKind::Replaced {
        let (model, names) = discriminator::<B>(&bundle, &device);
        let loss = replaced_pass(&model, &golden, &device).loss;
        gradients(model, names, loss)
    } else {
        let (model, names) = language_model::<B>(&bundle, &device);
        let loss = token_pass(&model, &config, &golden, &device).loss;
        gradients(model, names, loss)
    };
    let theirs = golden::under(&golden, "grad.");
    assert_gradients_within(&case.folder(), &ours, &theirs, within);
}

#[test]
fn states_logits_and_losses_are_those_of_transformers() {
    Case::all().into_iter().for_each(forward_matches::<Flex>);
}

#[test]
fn they_are_on_a_backend_without_operations_of_our_own() {
    Case::all().into_iter().for_each(forward_matches::<NdArray>);
}

#[test]
fn gradients_are_those_of_transformers() {
    let cases = Case::all().into_iter();
    cases.for_each(|case| backward_matches::<Autodiff<Flex>>(case, BACKWARD));
}

#[test]
fn gradients_are_on_a_backend_without_operations_of_our_own() {
    let cases = Case::all().into_iter();
    cases.for_each(|case| backward_matches::<Autodiff<NdArray>>(case, BACKWARD_OF_NDARRAY));
}

#[test]
fn a_model_that_is_written_and_opened_again_is_the_same() {
    let device = Default::default();
    for case in Case::all() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("bundle");
        let bundle = case.bundle();
        let config = bundle.text_config().unwrap();
        let write =
            |names, classes: Option<&[String]>| bundle::config_json(names, &config, classes);
        let (ours, theirs) = if case.head == HeadKind::Classes {
            let classes = bundle.classes().unwrap();
            let (model, names) = classifier::<Flex>(&bundle, &device);
            let json = write(names, Some(&classes));
            bundle::write(&at, &json, &model, names, Precision::F32, &[]).unwrap();
            let again = Bundle::open(&at).unwrap();
            assert_eq!(again.classes().unwrap(), classes);
            let (reread, _) = classifier::<Flex>(&again, &device);
            (
                golden::parameters(&reread, names),
                golden::parameters(&model, names),
            )
        } else if case.head == HeadKind::Replaced {
            let (model, names) = discriminator::<Flex>(&bundle, &device);
            let json = write(names, None);
            bundle::write(&at, &json, &model, names, Precision::F32, &[]).unwrap();
            let (reread, _) = discriminator::<Flex>(&Bundle::open(&at).unwrap(), &device);
            (
                golden::parameters(&reread, names),
                golden::parameters(&model, names),
            )
        } else {
            let (model, names) = language_model::<Flex>(&bundle, &device);
            let json = write(names, None);
            bundle::write(&at, &json, &model, names, Precision::F32, &[]).unwrap();
            let again = Bundle::open(&at).unwrap();
            let (reread, _) = language_model::<Flex>(&again, &device);
            (
                golden::parameters(&reread, names),
                golden::parameters(&model, names),
            )
        };
        assert_eq!(Bundle::open(&at).unwrap().text_config().unwrap(), config);
        let folder = case.folder();
        assert_keys_are_those_of_transformers(&folder, &at);
        let file = golden::tensors(&fs::read(at.join(bundle::WEIGHTS)).unwrap());
        let original = golden::golden(&format!("{folder}/model.safetensors"));
        assert_eq!(ours, theirs, "{folder}");
        assert_eq!(file, original, "{folder}");
    }
}

/// Packed texts do not see each other, and each counts its positions from its own beginning.
#[test]
fn texts_of_one_row_have_the_states_of_texts_of_their_own() {
    let device = Default::default();
    for case in Case::all()
        .into_iter()
        .filter(|case| DECODERS.contains(&case.family) && case.head == HeadKind::Tokens)
    {
        let (model, _) = language_model::<Flex>(&case.bundle(), &device);
        let row =
            |ids: [i32; 3]| TokenInput::new(Tensor::<Flex, 2, Int>::from_data([ids], &device));
        let alone = [[3, 1, 4], [1, 5, 9]].map(|ids| model.states(&row(ids), None, None));
        let packed = TokenInput {
            texts: Some(Tensor::from_data([[0, 0, 0, 1, 1, 1]], &device)),
            positions: Some(Tensor::from_data([[0, 1, 2, 0, 1, 2]], &device)),
            ..TokenInput::new(Tensor::from_data([[3, 1, 4, 1, 5, 9]], &device))
        };
        let packed = golden::values(model.states(&packed, None, None));
        let alone = golden::values(Tensor::cat(alone.to_vec(), 0));
        // Products over other numbers of rows may be taken in another order.
        assert_near(&case.folder(), &packed, &alone, 1e-5);
    }
}

/// The tokens of two texts, read in three parts with what was kept of those before.
#[test]
fn a_cache_changes_no_state() {
    let device = Default::default();
    for case in Case::all()
        .into_iter()
        .filter(|case| DECODERS.contains(&case.family) && case.head == HeadKind::Tokens)
    {
        let bundle = case.bundle();
        let layers = bundle.text_config().unwrap().describe().layers;
        let (model, _) = language_model::<Flex>(&bundle, &device);
        let rows = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]];
        let tokens: Tensor<Flex, 2, Int> = Tensor::from_data(rows, &device);
        let mut cache = Cache::new(layers);
        let mut read = |first, n| {
            let part = TokenInput::new(tokens.clone().narrow(1, first, n));
            let states = model.states(&part, None, Some(&mut cache));
            let [_, width] = states.dims();
            states.reshape([2, n, width])
        };
        let parts = vec![read(0, 4), read(4, 3), read(7, 1)];
        let parts: Tensor<Flex, 2> = Tensor::cat(parts, 1).flatten(0, 1);
        let whole = model.states(&TokenInput::new(tokens), None, None);
        let (parts, whole) = (golden::values(parts), golden::values(whole));
        // Products over other numbers of rows may be taken in another order.
        assert_near(&case.folder(), &parts, &whole, 1e-5);
    }
}

/// What is written of `config.json` is what `transformers` wrote of it.
pub fn assert_keys_are_those_of_transformers(folder: &str, written: &Path) {
    let read = |folder: &Path| -> serde_json::Value {
        let bytes = fs::read(folder.join(bundle::CONFIG)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let theirs = read(&golden::path(folder));
    for (key, value) in read(written).as_object().unwrap() {
        // Two classes are left out there, and named here.
        if !matches!(key.as_str(), "id2label" | "label2id") {
            assert_eq!(Some(value), theirs.get(key), "{key} of {folder}");
        }
    }
}

/// Logits at chosen places are those of the whole, wherever the last layer computes them.
#[test]
fn chosen_places_have_the_states_of_the_whole() {
    let device = Default::default();
    for case in Case::all()
        .into_iter()
        .filter(|case| case.head == HeadKind::Tokens)
    {
        let (model, _) = language_model::<Flex>(&case.bundle(), &device);
        let input: TokenInput<Flex> = golden::input(&case.expected(), &device);
        let at: Tensor<Flex, 1, Int> = Tensor::from_data([1, 0, 5], &device);
        let whole = model.logits(&input, None, None).select(0, at.clone());
        let some = model.logits(&input, Some(at), None);
        let (some, whole) = (golden::values(some), golden::values(whole));
        // Products over fewer rows may be taken in another order.
        assert_near(&case.folder(), &some, &whole, 1e-5);
    }
}

/// A bundle with some of its layers has their weights, and all that is in no layer; with all of them it is the same model.
#[test]
fn some_layers_of_a_bundle_are_a_smaller_model() {
    let device = Default::default();
    // Those have three layers.
    for case in Case::all().into_iter().filter(|case| case.number == 1) {
        if case.head != HeadKind::Tokens {
            continue;
        }
        let (bundle, folder) = (case.bundle(), case.folder());
        let (whole, names) = language_model::<Flex>(&bundle, &device);
        let input: TokenInput<Flex> = golden::input(&case.expected(), &device);
        let logits = golden::values(whole.logits(&input, None, None));
        let same = bundle.with_layers(&[0, 1, 2]).unwrap();
        let (same, _) = language_model::<Flex>(&same, &device);
        let again = golden::values(same.logits(&input, None, None));
        assert!(again == logits, "{folder}");

        let fewer = bundle.with_layers(&[0, 2]).unwrap();
        assert_eq!(fewer.text_config().unwrap().describe().layers, 2);
        let (fewer, _) = language_model::<Flex>(&fewer, &device);
        let (whole, fewer) = (
            golden::parameters(&whole, names),
            golden::parameters(&fewer, names),
        );
        let before = names.family.layer;
        for (name, values) in &fewer {
            let theirs = name.replacen(&format!("{before}1"), &format!("{before}2"), 1);
            assert!(values == &whole[&theirs], "{name} of {folder}");
        }
        let of_layer = |name: &&String| names.layer(name).is_some();
        let count = |all: &Tensors| all.keys().filter(of_layer).count();
        assert_eq!(2 * count(&whole), 3 * count(&fewer), "{folder}");

        let reason = bundle.with_layers(&[1, 3]).unwrap_err().to_string();
        assert!(reason.contains("layers 0 to 2, and layer 3"), "{reason}");
    }
}
