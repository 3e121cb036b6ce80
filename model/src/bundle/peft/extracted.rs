//! A low-rank adapter that was not trained but found. In: two matrices a layer. Out: the directory of an adapter.

use std::path::Path;

use burn::tensor::TensorData;
use serde_json::{Value, json};

use super::super::{Bundle, BundleError, Precision, safetensors_of, stored, write_directory};
use super::{CONFIG, WEIGHTS, absolute, beside, matrix, of_low_rank, task};
use crate::layers::low_rank::LowRankPlan;
use crate::names::Names;

/// What is to be added to the weight of a linear layer: `b a`.
#[derive(Clone, Debug)]
pub struct ExtractedLayer {
    /// Hugging Face name, without `weight`.
    pub name: String,
    /// `[rank, d_input]`
    pub a: TensorData,
    /// `[d_output, rank]`
    pub b: TensorData,
}

/// A low-rank adapter of a base model.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// Of all layers.
    pub rank: usize,
    /// At least one.
    pub layers: Vec<ExtractedLayer>,
    /// Parameters of a head that take the place of the base's, under their Hugging Face names.
    pub whole: Vec<(String, TensorData)>,
}

impl Extracted {
    /// Writes a directory that appears whole or not at all.
    ///
    /// - names: of the model with the adapter
    ///
    /// # Errors
    ///
    /// A directory that cannot be written.
    pub fn write(&self, path: &Path, base: &Bundle, names: Names) -> Result<(), BundleError> {
        let layers = self.layers.iter().flat_map(|layer| {
            let ExtractedLayer { name, a, b } = layer;
            [
                (matrix(name, "A"), a.clone()),
                (matrix(name, "B"), b.clone()),
            ]
        });
        let whole = self.whole.iter();
        let whole = whole.map(|(name, data)| (beside::in_file(None, name), data.clone()));
        let tensors = layers.chain(whole);
        let tensors: Vec<_> = tensors
            .map(|(name, data)| stored(name, data, Precision::F32))
            .collect();
        let weights = safetensors_of(&tensors, Precision::F32);
        let weights = weights.map_err(|reason| BundleError::Weights {
            path: path.join(WEIGHTS),
            reason,
        })?;
        let settings = format!("{:#}\n", self.settings(base, names));
        write_directory(path, &[(CONFIG, settings.as_bytes()), (WEIGHTS, &weights)])
    }

    fn settings(&self, base: &Bundle, names: Names) -> Value {
        let plan = LowRankPlan {
            rank: self.rank,
            alpha: self.rank as f64,
            dropout: 0.0,
            rslora: false,
            dora: false,
            targets: Vec::new(),
        };
        let mut settings = of_low_rank(&plan, &[], names);
        let layers: Vec<&str> = self.layers.iter().map(|layer| &layer.name[..]).collect();
        let mut whole: Vec<&str> = self
            .whole
            .iter()
            .map(|(name, _)| inside(name, names))
            .collect();
        whole.sort_unstable();
        whole.dedup();
        settings["base_model_name_or_path"] = absolute(base).into();
        settings["task_type"] = task(names).into();
        settings["target_modules"] = json!(layers);
        settings["modules_to_save"] = if whole.is_empty() {
            Value::Null
        } else {
            json!(whole)
        };
        settings["inference_mode"] = true.into();
        settings
    }
}

/// The outermost module of a parameter inside the model.
fn inside(name: &str, names: Names) -> &str {
    let inside = name.strip_prefix(names.prefix()).unwrap_or(name);
    inside.split('.').next().unwrap_or(inside)
}
