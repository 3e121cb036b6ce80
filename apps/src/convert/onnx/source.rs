//! What a bundle says of its model. In: a bundle, and its model with all weights. Out: an ONNX file.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::DType;
use model::bundle::Scores;
use model::{Bundle, HeadKind, Names, Precision, walk};
use prost::Message;
use serde_json::{Value, json};
use train::Failure;

use super::weights::{Element, Tensor, Weights};
use super::{Facts, ImageFacts, TextFacts, refusal};
use crate::open;

/// Refuses a model that no graph is known of, before its weights are read.
///
/// # Errors
///
/// Such a model.
pub fn check(bundle: &Bundle) -> Result<(), Failure> {
    let family = bundle.family();
    match refusal(family.model_type, bundle.head()) {
        Some(reason) => Err(wrong(bundle, &reason)),
        None => Ok(()),
    }
}

fn wrong(bundle: &Bundle, reason: &str) -> Failure {
    Failure::input(format!("{}: {reason}", bundle.path().display()))
}

/// The ONNX file of a model.
///
/// - module: with the bundle's weights
///
/// # Errors
///
/// A model that no graph is known of, or that is too large for a file.
pub fn export<B: Backend, M: Module<B>>(
    bundle: &Bundle,
    module: &M,
    names: Names,
    precision: Precision,
) -> Result<Vec<u8>, Failure> {
    let (element, dtype) = match precision {
        Precision::F32 => (Element::F32, DType::F32),
        Precision::F16 => (Element::F16, DType::F16),
        Precision::Bf16 => (Element::Bf16, DType::BF16),
    };
    let mut tensors = Vec::new();
    walk::values(module, names, &mut |path, data| {
        let data = data.convert_dtype(dtype);
        let (shape, bytes) = (data.shape.to_vec(), data.as_bytes().to_vec());
        tensors.push((path.name(), Tensor { shape, bytes }));
    });
    let weights = Weights::new(names, element, tensors.into_iter().collect());
    let graph = super::model(weights, facts(bundle)?, metadata(bundle)?);
    let graph = graph.map_err(|reason| wrong(bundle, &reason))?;
    Ok(graph.encode_to_vec())
}

/// What is known of a model beside its weights.
///
/// # Errors
///
/// A configuration that cannot be used.
fn facts(bundle: &Bundle) -> Result<Facts, Failure> {
    if bundle.is_text() {
        let config = open::text_model(bundle)?;
        let plan = config.describe();
        return Ok(Facts::Text(TextFacts {
            d_model: plan.d_model,
            segments: plan.segments,
            tokens: config.token_plan(),
            classes: config.class_plan(),
            config: complete(&config)?,
        }));
    }
    let image = open::image_model(bundle)?;
    Ok(Facts::Image(ImageFacts {
        shape: image.input.shape,
        config: complete(&image.config)?,
    }))
}

/// A configuration with its defaults written out.
fn complete(config: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(config).map_err(Failure::running)
}

/// Keys and values that go with the graph: what its logits mean, and how an image becomes pixel values.
///
/// # Errors
///
/// Classes or a preprocessor that cannot be read.
fn metadata(bundle: &Bundle) -> Result<Vec<(String, String)>, Failure> {
    let mut entries = vec![("model_type", bundle.family().model_type.to_string())];
    let head = bundle.head();
    if head.class_layer().is_some() {
        entries.push(("classes", json!(bundle.classes()?).to_string()));
    }
    if head == HeadKind::Classes {
        let kind = match bundle.scores()? {
            Scores::OneLabel => "single_label_classification",
            Scores::SeveralLabels => "multi_label_classification",
            Scores::Values => "regression",
        };
        entries.push(("problem_type", kind.into()));
    }
    if !bundle.is_text() {
        let input = open::image_model(bundle)?.input;
        let preprocessor: Value =
            serde_json::from_str(&input.to_json()).map_err(Failure::running)?;
        entries.push(("preprocessor", preprocessor.to_string()));
    }
    let named = entries.into_iter();
    Ok(named.map(|(key, value)| (key.into(), value)).collect())
}
