//! Every image family against transformers, torchvision and plain PyTorch: logits, loss, all gradients, and the statistics of
//! batch normalisation after a pass, of random models.
//!
//! `tests/golden/README.md` says what the models are, and why each tolerance is what it is.

use std::collections::BTreeSet;
use std::fs;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::weights::Weights;
use model::bundle::{self, Load, Precision};
use model::layers::batch_norm;
use model::{Bundle, Draw, HeadKind, ImageClassifier, ImageConfig, Names};

use crate::families::mean_loss;
use crate::golden::{self, Tensors, Values, assert_near, largest};

/// Of the largest logit or statistic, or absolute where that is less than 1.
const FORWARD: f32 = 1e-4;
const LOSS: f32 = 1e-4;
/// Of the largest value of a gradient, or of the largest of all gradients where that is more: that of what a batch
/// normalisation takes away is zero but for rounding.
const BACKWARD: [f32; 2] = [1e-3, 3e-6];
/// The same on ndarray, whose reciprocals have 12 or 14 bits, as the processor's maker chose.
const BACKWARD_OF_NDARRAY: [f32; 2] = [1e-2, 5e-4];

/// Every folder, by name.
fn folders() -> Vec<String> {
    let all = fs::read_dir(golden::path("vision")).unwrap();
    let mut names: Vec<_> = all
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn bundle(folder: &str) -> Bundle {
    Bundle::open(&golden::path(&format!("vision/{folder}"))).unwrap()
}

fn expected(folder: &str) -> Tensors {
    golden::golden(&format!("vision/{folder}/expected.safetensors"))
}

fn load<B: Backend>(bundle: &Bundle, config: &ImageConfig) -> ImageClassifier<B> {
    let classes = bundle.classes().unwrap().len();
    assert_eq!(classes, 3);
    let device = Default::default();
    let drawn = ImageClassifier::draw(config, classes, &Draw::new(&device, 0.02));
    let names = config.names(HeadKind::Classes);
    let (model, loaded) = bundle.load(drawn, names, Load::Whole).unwrap();
    assert_eq!(loaded.drawn, Vec::<String>::new());
    assert_eq!(loaded.lost(names), None);
    model
}

fn images<B: Backend>(golden: &Tensors) -> Tensor<B, 4> {
    let (shape, values) = golden["pixel_values"].clone();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

fn near(what: &str, ours: &Values, theirs: &Values) {
    assert_near(what, ours, theirs, FORWARD * largest(theirs).max(1.0));
}

/// Gradients of those parameters that have one, by the bundle's names.
fn gradients<B: AutodiffBackend>(
    model: ImageClassifier<B>,
    names: Names,
    grads: &B::Gradients,
) -> Tensors {
    struct Replace<'a, B: AutodiffBackend>(&'a B::Gradients);
    impl<B: AutodiffBackend> ModuleMapper<B> for Replace<'_, B> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let (id, tensor, mapper) = param.consume();
            let grad = tensor.grad(self.0).map(Tensor::from_inner);
            Param::from_mapped_value(id, grad.unwrap_or(tensor), mapper)
        }
    }
    golden::parameters(&model.map(&mut Replace::<B>(grads)), names)
}

/// The part of a golden tensor that belongs to one of our parameters, if that is among them: under its name, or torchvision's.
fn theirs(golden: &Tensors, kind: &str, name: &str, names: Names) -> Option<Values> {
    if let Some(values) = golden.get(&format!("{kind}.{name}")) {
        return Some(values.clone());
    }
    let foreign = names.family.torchvision?(name)?;
    let (mut shape, values) = golden.get(&format!("{kind}.{}", foreign.name))?.clone();
    let Some([part, parts]) = foreign.part else {
        return Some((shape, values));
    };
    shape[0] /= parts;
    let len = values.len() / parts;
    Some((shape, values[part * len..(part + 1) * len].to_vec()))
}

/// Compares a model with what the other library computed.
fn check<B: AutodiffBackend>(folder: &str, backward: [f32; 2]) {
    let (bundle, golden) = (bundle(folder), expected(folder));
    let config = bundle.image_config().unwrap();
    let names = config.names(HeadKind::Classes);
    let model = load::<B>(&bundle, &config);

    let valid = model.valid();
    let pyramid = valid.backbone.forward(images(&golden));
    if let Some(maps) = valid.backbone.last_maps(images(&golden)) {
        let ours = golden::values(valid.backbone.pool(maps));
        let whole = golden::values(pyramid.pooled.clone());
        near(&format!("{folder}: pooled"), &ours, &whole);
    }
    let logits = golden::values(valid.head.forward(pyramid.pooled));
    near(&format!("{folder}: logits"), &logits, &golden["logits"]);
    if let Some(finest) = golden.get("finest") {
        let ours = golden::values(pyramid.levels[0].clone());
        near(&format!("{folder}: finest"), &ours, finest);
    }
    let plan = config.describe();
    let widths: Vec<_> = pyramid.levels.iter().map(|level| level.dims()[1]).collect();
    assert_eq!(widths, plan.levels, "{folder}: widths of the levels");

    if !golden.contains_key("loss") {
        return;
    }
    let targets: Vec<i32> = golden["labels"]
        .1
        .iter()
        .map(|&label| label as i32)
        .collect();
    let pass = || {
        let pyramid = model.backbone.forward(images(&golden));
        let loss = mean_loss(model.head.forward(pyramid.pooled), &targets);
        match golden.get("finest") {
            Some(_) => loss + pyramid.levels[0].clone().powi_scalar(2).mean(),
            None => loss,
        }
    };
    let (loss, proposals) = batch_norm::collect(pass);
    let ours = golden::values(loss.clone());
    assert_near(
        &format!("{folder}: loss"),
        &ours,
        &golden["loss"],
        LOSS * ours.1[0].max(1.0),
    );
    let grads = gradients(model.clone(), names, &loss.backward());
    let of_all = golden::under(&golden, "grad.");
    let most = of_all.values().map(largest).fold(1.0, f32::max);
    let mut compared = 0;
    for (name, ours) in &grads {
        if name.contains("running_") {
            continue;
        }
        let Some((_, values)) = theirs(&golden, "grad", name, names) else {
            panic!("{folder}: no gradient of {name}");
        };
        // A library may have further axes of one.
        let theirs = (ours.0.clone(), values);
        let tolerance = (backward[0] * largest(&theirs)).max(backward[1] * most);
        assert_near(
            &format!("{folder}: gradient of {name}"),
            ours,
            &theirs,
            tolerance,
        );
        compared += ours.1.len();
    }
    let all: usize = of_all.values().map(|(_, values)| values.len()).sum();
    assert_eq!(compared, all, "{folder}: every gradient is compared");

    let moved = golden::parameters(&batch_norm::commit(model, &proposals, None), names);
    let mut statistics = 0;
    for (name, ours) in moved.iter().filter(|(name, _)| name.contains("running_")) {
        let theirs = theirs(&golden, "after", name, names).unwrap();
        near(&format!("{folder}: {name} after a pass"), ours, &theirs);
        statistics += 1;
    }
    assert_eq!(statistics, golden::under(&golden, "after.").len());
}

#[test]
fn every_model_computes_what_the_other_library_computes() {
    let folders = folders();
    assert!(folders.len() >= 33, "{folders:?}");
    for folder in &folders {
        check::<Autodiff<Flex>>(folder, BACKWARD);
    }
}

#[test]
fn the_plain_operations_compute_it_too() {
    for folder in folders().iter().filter(|folder| folder.ends_with('1')) {
        check::<Autodiff<NdArray>>(folder, BACKWARD_OF_NDARRAY);
    }
}

#[test]
fn every_family_of_images_is_among_them() {
    let found: BTreeSet<_> = folders()
        .iter()
        .map(|folder| bundle(folder).family().model_type)
        .collect();
    for family in model::registry::IMAGE_FAMILIES {
        let is_there = found.contains(family.model_type) || family.model_type == "hearth_conv";
        assert!(is_there, "{} has no golden model", family.model_type);
    }
}

#[test]
fn positions_between_those_that_were_learned_are_interpolated() {
    let mut compared = 0;
    for folder in folders() {
        let golden = expected(&folder);
        let Some(theirs) = golden.get("logits_of_twice_the_size") else {
            continue;
        };
        let bundle = bundle(&folder);
        let config = bundle.image_config().unwrap();
        let model = load::<Flex>(&bundle, &config);
        let twice = images::<Flex>(&golden).repeat(&[1, 1, 2, 2]);
        let [_, channels, height, width] = twice.dims();
        let ours = golden::values(model.logits(twice.clone()));
        near(&format!("{folder}: twice the size"), &ours, theirs);
        // The same from a model whose own table has been fitted as it was loaded.
        let mut fitted = config.clone();
        fitted.fit([channels, height, width]);
        let model = ImageClassifier::draw(&fitted, 3, &Draw::new(&Default::default(), 0.02));
        let names = config.names(HeadKind::Classes);
        let (model, loaded) = bundle.load::<Flex, _>(model, names, Load::Whole).unwrap();
        assert_eq!(loaded.fitted.len(), 1, "{loaded:?}");
        near(
            &format!("{folder}: fitted"),
            &golden::values(model.logits(twice)),
            theirs,
        );
        compared += 1;
    }
    assert_eq!(compared, 2);
}

#[test]
fn images_of_other_channels_fit_the_first_convolution() {
    for folder in [
        "resnet-1",
        "vit-3",
        "convnext-1",
        "mobilenet_v2-1",
        "torchvision-vgg-1",
    ] {
        let (bundle, golden) = (bundle(folder), expected(folder));
        let mut config = bundle.image_config().unwrap();
        let coloured = load::<Flex>(&bundle, &config);
        let grey = images::<Flex>(&golden).mean_dim(1);
        let [_, _, height, width] = grey.dims();
        config.fit([1, height, width]);
        let drawn = ImageClassifier::draw(&config, 3, &Draw::new(&Default::default(), 0.02));
        let names = config.names(HeadKind::Classes);
        let (fitted, loaded) = bundle.load::<Flex, _>(drawn, names, Load::Whole).unwrap();
        let note = "the first convolution is fitted to images of 1 channels (from 3)";
        assert_eq!(loaded.fitted, [note], "{folder}");
        let ours = golden::values(fitted.logits(grey.clone()));
        let theirs = golden::values(coloured.logits(grey.repeat_dim(1, 3)));
        near(&format!("{folder}: grey images"), &ours, &theirs);
    }
}

#[test]
fn what_is_written_is_read_again() {
    for folder in folders() {
        let (first, golden) = (bundle(&folder), expected(&folder));
        let config = first.image_config().unwrap();
        let model = load::<Flex>(&first, &config);
        let names = config.names(HeadKind::Classes);
        let classes = first.classes().unwrap();
        let temporary = tempfile::tempdir().unwrap();
        let place = temporary.path().join("bundle");
        let json = bundle::config_json(names, &config, Some(&classes));
        bundle::write(&place, &json, &model, names, Precision::F32, &[]).unwrap();
        let second = Bundle::open(&place).unwrap();
        assert_eq!(second.image_config().unwrap(), config, "{folder}");
        let again = load::<Flex>(&second, &config);
        assert_eq!(
            again.logits(images(&golden)).into_data(),
            model.logits(images(&golden)).into_data(),
            "{folder}"
        );
    }
}

#[test]
fn torchvisions_names_and_shapes_are_written_back() {
    let mut compared = 0;
    for folder in folders() {
        let bundle = bundle(&folder);
        if !folder.starts_with("torchvision") {
            continue;
        }
        let config = bundle.image_config().unwrap();
        let names = config.names(HeadKind::Classes);
        let model = load::<Flex>(&bundle, &config);
        let bytes = bundle::serialise_for_torchvision(&model, names, Precision::F32).unwrap();
        let ours = Weights::from_safetensors(&folder, bytes).unwrap();
        let theirs = bundle.weights().unwrap();
        let floats = theirs.iter().filter(|tensor| tensor.dtype.is_float());
        for tensor in floats {
            let same = ours
                .get(tensor.name)
                .unwrap_or_else(|| panic!("{folder}: {}", tensor.name));
            assert_eq!(same.shape, tensor.shape, "{folder}: {}", tensor.name);
            let values = [&ours, theirs].map(|weights| weights.data(tensor.name).unwrap());
            assert_eq!(values[0], values[1], "{folder}: {}", tensor.name);
            compared += 1;
        }
        assert_eq!(
            ours.iter().count(),
            theirs
                .iter()
                .filter(|tensor| tensor.dtype.is_float())
                .count()
        );
    }
    assert!(compared > 300, "{compared}");
}
