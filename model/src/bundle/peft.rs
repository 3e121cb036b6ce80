//! Adapters in the format of the `peft` package: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! In: a directory that `peft` or Hearth wrote. Out: its base model with the adapter merged into the weights, or beside them
//! where it can't be merged; and back.

mod beside;
mod extracted;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::TensorData;
use regex::Regex;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Value, json};

use super::weights::Weights;
use super::{BundleError, Precision, safetensors_of, stored, write_directory};
use crate::layers::Adapter;
use crate::layers::adapter::Target;
use crate::layers::low_rank::{LowRankPlan, scale};
use crate::names::{Family, HeadKind, HeadNames, Names, VIRTUAL_TOKENS, is_of_adapter};
use crate::walk;
pub use extracted::{Extracted, ExtractedLayer};

/// The adapter's settings, in its directory.
pub const CONFIG: &str = "adapter_config.json";
/// The adapter's weights, in its directory.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// In `config.json` of a model whose adapter is beside its weights, in the [folder](FOLDER) of the model.
pub(super) const KEY: &str = "hearth_adapter";

/// What of `adapter_config.json` changes what a low-rank adapter computes.
#[derive(Clone, Debug, Deserialize)]
struct Settings {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    rank_pattern: Patterns<usize>,
    #[serde(default)]
    alpha_pattern: Patterns<f64>,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    init_lora_weights: Value,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Values by pattern, in the order of the file: the first that a layer's name ends in counts, as in `peft`.
#[derive(Clone, Debug)]
struct Patterns<T>(Vec<(Regex, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> Patterns<T> {
    fn of(&self, layer: &str) -> Option<T> {
        let found = self.0.iter().find(|(pattern, _)| pattern.is_match(layer));
        found.map(|(_, value)| *value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ordered<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Ordered<T> {
            type Value = Patterns<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table of patterns")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Patterns<T>, M::Error> {
                let mut all = Vec::new();
                while let Some((pattern, value)) = map.next_entry::<String, T>()? {
                    let whole = Regex::new(&format!("^(.*\\.)?({pattern})$"));
                    let wrong =
                        |_| M::Error::custom(format!("\"{pattern}\" is no regular expression"));
                    all.push((whole.map_err(wrong)?, value));
                }
                Ok(Patterns(all))
            }

            fn visit_unit<E>(self) -> Result<Patterns<T>, E> {
                Ok(Patterns::default())
            }
        }
        deserializer.deserialize_any(Ordered(std::marker::PhantomData))
    }
}

/// Keys that change what an adapter computes where they say anything.
const NOT_IMPLEMENTED: [&str; 9] = [
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
];

/// First values of the matrices that are taken away from the base's weights, which are others then.
const CHANGE_THE_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

impl Settings {
    /// Says what is not implemented, if anything is.
    fn check(&self) -> Result<(), String> {
        if self.r == 0 {
            return Err("r is 0; a rank is 1 or more".into());
        }
        if self.lora_bias || self.bias.as_deref().is_some_and(|bias| bias != "none") {
            return Err("trains biases, which is not implemented".into());
        }
        let says = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(values) => !values.is_empty(),
            Value::Object(values) => !values.is_empty(),
            _ => true,
        };
        for key in NOT_IMPLEMENTED {
            if let Some(value) = self.others.get(key).filter(|value| says(value)) {
                return Err(format!("{key} is {value}, which is not implemented"));
            }
        }
        let first = self.init_lora_weights.as_str().unwrap_or_default();
        if CHANGE_THE_BASE.iter().any(|name| first.starts_with(name)) {
            return Err(format!(
                "init_lora_weights is \"{first}\", which changes the base model's weights; save the adapter converted to plain LoRA"
            ));
        }
        Ok(())
    }
}

/// A saved adapter: LoRA is merged into its base model, the other kinds are applied beside it.
#[derive(Debug)]
pub struct SavedAdapter {
    path: PathBuf,
    base: Option<String>,
    task: Option<String>,
    kind: Kind,
    weights: Weights,
}

#[derive(Debug)]
enum Kind {
    /// Two matrices, to be merged.
    LowRank(Settings),
    /// What is no part of a weight.
    Beside(Adapter),
}

impl SavedAdapter {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// A file that is missing or malformed, or an adapter of a kind that is not implemented.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let at = path.join(CONFIG);
        let wrong = |reason: String| BundleError::Config {
            path: at.clone(),
            reason,
        };
        let bytes = std::fs::read(&at).map_err(|source| BundleError::Io {
            path: at.clone(),
            source,
        })?;
        // The keys of each kind are others.
        let json: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        let kind = if json["peft_type"] == "LORA" {
            let settings: Settings =
                serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
            settings.check().map_err(wrong)?;
            Kind::LowRank(settings)
        } else if let Some(adapter) = beside::adapter(&json).map_err(wrong)? {
            Kind::Beside(adapter)
        } else {
            let reason = format!(
                "peft_type is {}; LoRA, prompt tuning and prefix tuning are implemented",
                json["peft_type"]
            );
            return Err(wrong(reason));
        };
        let (safetensors, pickled) = (path.join(WEIGHTS), path.join("adapter_model.bin"));
        // Where neither is there, the one that is usual is missed.
        let is_pickled = pickled.is_file() && !safetensors.is_file();
        let weights = Weights::open_file(if is_pickled { &pickled } else { &safetensors })?;
        let said = |key: &str| json[key].as_str().map(str::to_string);
        Ok(Self {
            path: path.into(),
            base: said("base_model_name_or_path"),
            task: said("task_type"),
            kind,
            weights,
        })
    }

    /// The adapter that is applied beside the base model's weights; none for LoRA, which is merged into them.
    pub fn beside(&self) -> Option<&Adapter> {
        match &self.kind {
            Kind::LowRank(_) => None,
            Kind::Beside(adapter) => Some(adapter),
        }
    }

    /// Where its base model is: a directory as it is named, or seen from the adapter or a folder above it; or the name of a
    /// bundled model.
    ///
    /// # Errors
    ///
    /// No such directory with a model in it.
    pub fn base(&self) -> Result<PathBuf, BundleError> {
        let wrong = |reason: String| BundleError::Config {
            path: self.path.join(CONFIG),
            reason,
        };
        let name = self.base.as_deref();
        let Some(name) = name.filter(|name| !name.trim().is_empty()) else {
            return Err(wrong("base_model_name_or_path is missing".into()));
        };
        let here = PathBuf::from(name);
        let absolute = self.path.canonicalize().unwrap_or(self.path.clone());
        let above = absolute.ancestors().map(|folder| folder.join(name));
        let mut places = std::iter::once(here.clone()).chain(above);
        // An adapter upon an adapter, or upon itself, is no model.
        let is_model =
            |place: &PathBuf| place.join(super::CONFIG).is_file() && Weights::are_in(place);
        if let Some(found) = places.find(is_model) {
            return Ok(found);
        }
        if crate::bundled::open(name).is_some() {
            return Ok(here);
        }
        Err(wrong(format!(
            "base_model_name_or_path is \"{name}\", and there is no directory of that name with config.json and weights, neither here nor above the adapter"
        )))
    }

    /// The head that it was trained with, where `peft` has a word for it.
    pub fn head(&self, family: &'static Family) -> Option<&'static HeadNames> {
        let named = self.task.as_deref()?;
        let mut heads = family.all_heads();
        heads.find(|head| task(Names { family, head }) == Some(named))
    }

    /// The bytes of its files of weights.
    pub fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.weights.bytes()
    }

    /// The values of a base model's tensor with the adapter in them.
    ///
    /// - names: what the tensor may be called, the likeliest first
    /// - base: as a bundle holds it, f32
    /// - turned: whether a bundle holds it as `[d_input, d_output]`
    ///
    /// # Errors
    ///
    /// Matrices that do not fit the base.
    pub fn merge(
        &self,
        names: &[String],
        base: TensorData,
        turned: bool,
    ) -> Result<TensorData, BundleError> {
        if let Some(whole) = self.whole(names) {
            self.check_whole(names, &base.shape)?;
            return self.weights.data(&whole);
        }
        let Kind::LowRank(settings) = &self.kind else {
            return Ok(base);
        };
        let mut layers = names.iter().filter_map(|name| name.strip_suffix(".weight"));
        let first = |layer: &&str| self.weights.get(&matrix(layer, "A")).is_some();
        let Some(layer) = layers.find(first) else {
            return Ok(base);
        };
        let [a, b] = ["A", "B"].map(|part| self.weights.data(&matrix(layer, part)));
        let magnitude = beside::in_file(None, &format!("{layer}.lora_magnitude_vector"));
        let magnitude = [magnitude.clone(), format!("{magnitude}.weight")]
            .into_iter()
            .find(|name| self.weights.get(name).is_some())
            .map(|name| self.weights.data(&name))
            .transpose()?;
        let wrong = |reason| self.wrong_weights(format!("{layer}: {reason}"));
        let (a, b) = (a?, b?);
        let scale = settings.scale(layer, a.shape[0]).map_err(wrong)?;
        merged(base, a, b, magnitude, scale, turned).map_err(wrong)
    }

    /// The name and shape of a parameter that it holds whole, not as two matrices.
    ///
    /// - names: what the parameter may be called
    pub fn whole_shape(&self, names: &[String]) -> Option<&[usize]> {
        let name = self.whole(names)?;
        self.weights.get(&name).map(|tensor| tensor.shape)
    }

    /// The values of a parameter that it holds whole.
    ///
    /// # Errors
    ///
    /// Values that are not finite.
    pub fn whole_values(&self, names: &[String]) -> Option<Result<TensorData, BundleError>> {
        self.whole(names).map(|name| self.weights.data(&name))
    }

    /// Whether it holds a parameter whole whose name begins like this.
    pub fn holds_part(&self, start: &str) -> bool {
        self.weights.iter().any(|tensor| {
            let name = self.inside(tensor.name).unwrap_or(tensor.name);
            name.starts_with(start) && !is_of_adapter(name)
        })
    }

    fn whole(&self, names: &[String]) -> Option<String> {
        let mut inside = names.iter().map(|name| self.in_file(name));
        inside.find(|name| self.weights.get(name).is_some())
    }

    /// What its file calls a parameter.
    fn in_file(&self, name: &str) -> String {
        beside::in_file(self.beside(), name)
    }

    /// A parameter by its name in the file.
    fn inside<'a>(&self, name: &'a str) -> Option<&'a str> {
        if self.in_file(name) == name {
            return Some(name);
        }
        name.strip_prefix(beside::prefix(self.beside()))
    }

    /// Refuses a file without a parameter of the adapter that the model has.
    ///
    /// - all: what each of the model's parameters may be called
    ///
    /// # Errors
    ///
    /// The first such parameter.
    pub fn check_own(&self, mut all: impl Iterator<Item = Vec<String>>) -> Result<(), BundleError> {
        let lacks = |names: &Vec<String>| {
            let own = names.first().is_some_and(|name| is_of_adapter(name));
            own && self.whole(names).is_none()
        };
        match all.find(|names| self.beside().is_some() && lacks(names)) {
            Some(names) => Err(self.wrong_weights(format!("lacks {}", names[0]))),
            None => Ok(()),
        }
    }

    /// Refuses tensors that would be lost: for layers that the model does not have, without their other half, or of a kind
    /// that is not known.
    ///
    /// - takes: whether a tensor of the base is among these
    ///
    /// # Errors
    ///
    /// The first such tensor.
    pub fn check_layers(&self, takes: &dyn Fn(&str) -> bool) -> Result<(), BundleError> {
        for tensor in self.weights.iter() {
            self.check_tensor(tensor.name, takes)
                .map_err(|reason| self.wrong_weights(reason))?;
        }
        Ok(())
    }

    fn check_tensor(&self, name: &str, takes: &dyn Fn(&str) -> bool) -> Result<(), String> {
        let Some(inside) = self.inside(name) else {
            let prefix = beside::prefix(self.beside());
            return Err(format!(
                "holds {name}, which does not begin with {prefix} as peft's names do"
            ));
        };
        let matrix_of = inside.split_once(".lora_");
        let Some((layer, part)) = matrix_of.filter(|_| self.beside().is_none()) else {
            if takes(inside) {
                return Ok(());
            }
            return Err(format!(
                "holds {inside}, which the base model does not have"
            ));
        };
        if part.starts_with("embedding_") {
            return Err(format!(
                "adapts {layer}, a table of embeddings, which is not implemented"
            ));
        }
        if ![
            "A.weight",
            "B.weight",
            "magnitude_vector",
            "magnitude_vector.weight",
        ]
        .contains(&part)
        {
            return Err(format!("holds {inside}, which is not implemented"));
        }
        if !takes(&format!("{layer}.weight")) {
            return Err(format!(
                "adapts {layer}, which the base model does not have"
            ));
        }
        let lacking = ["A", "B"].map(|part| matrix(layer, part));
        let mut lacking = lacking
            .iter()
            .filter(|name| self.weights.get(name).is_none());
        match lacking.next() {
            Some(other) => Err(format!("holds {name} and lacks {other}")),
            None => Ok(()),
        }
    }

    /// Refuses a parameter that it holds whole in another shape than the model has.
    ///
    /// - names: what the parameter may be called
    ///
    /// # Errors
    ///
    /// Two shapes.
    pub fn check_whole(&self, names: &[String], wanted: &[usize]) -> Result<(), BundleError> {
        let name = self.whole(names);
        let tensor = name.as_ref().and_then(|name| self.weights.get(name));
        match tensor.filter(|tensor| tensor.shape != wanted) {
            Some(tensor) => Err(self.wrong_weights(format!(
                "holds {} of shape {:?} where the model has {wanted:?}",
                self.inside(tensor.name).unwrap_or(tensor.name),
                tensor.shape
            ))),
            None => Ok(()),
        }
    }

    /// Refuses to train one end of a tie alone.
    ///
    /// # Errors
    ///
    /// The tensor that it holds.
    pub fn check_ties(&self, ends: [&str; 2]) -> Result<(), BundleError> {
        let [one, other] = ends;
        let pairs = [(one, other), (other, one)];
        let whole = |name: &str| self.whole(&[name.to_string()]).is_some();
        let held = pairs.iter().find(|(end, _)| whole(end));
        match held {
            Some((end, other)) => Err(self.wrong_weights(format!(
                "holds {end} whole, which the base model ties to {other}; that is not implemented"
            ))),
            None => Ok(()),
        }
    }

    fn wrong_weights(&self, reason: String) -> BundleError {
        BundleError::Weights {
            path: self.path.join(WEIGHTS),
            reason,
        }
    }
}

impl Settings {
    /// What the product of a layer's matrices, of which the first has so many rows, is multiplied by.
    fn scale(&self, layer: &str, rows: usize) -> Result<f64, String> {
        let rank = self.rank_pattern.of(layer).unwrap_or(self.r);
        if rank != rows {
            return Err(format!(
                "its matrices have rank {rows}, and {CONFIG} says {rank}"
            ));
        }
        let alpha = self.alpha_pattern.of(layer).unwrap_or(self.lora_alpha);
        Ok(scale(alpha, rank, self.use_rslora))
    }
}

/// A layer's first matrix or its second, in the adapter's file.
fn matrix(layer: &str, part: &str) -> String {
    beside::in_file(None, &format!("{layer}.lora_{part}.weight"))
}

/// `base + scale b a`, with DoRA's lengths of columns where there are any.
///
/// - base: `[d_output, d_input]`, or turned `[d_input, d_output]`
/// - a: `[rank, d_input]`, b: `[d_output, rank]`, magnitude: `[d_output]`
fn merged(
    base: TensorData,
    a: TensorData,
    b: TensorData,
    magnitude: Option<TensorData>,
    scale: f64,
    turned: bool,
) -> Result<TensorData, String> {
    let (&[rank, d_input], &[d_output, rank_b]) = (&a.shape[..], &b.shape[..]) else {
        return Err("the matrices of an adapter have two dimensions".into());
    };
    let expected = if turned {
        [d_input, d_output]
    } else {
        [d_output, d_input]
    };
    if rank != rank_b || base.shape[..] != expected {
        return Err(format!(
            "matrices of {:?} and {:?} do not fit a weight of {:?}",
            &a.shape[..],
            &b.shape[..],
            &base.shape[..]
        ));
    }
    if let Some(magnitude) = &magnitude
        && magnitude.shape[..] != [d_output]
    {
        return Err(format!(
            "lengths of shape {:?} do not fit {d_output} outputs",
            &magnitude.shape[..]
        ));
    }
    let values = |data: &TensorData| data.iter::<f32>().collect::<Vec<f32>>();
    let (mut weight, a, b) = (values(&base), values(&a), values(&b));
    let at = |output: usize, input: usize| {
        if turned {
            input * d_output + output
        } else {
            output * d_input + input
        }
    };
    for output in 0..d_output {
        for r in 0..rank {
            let times = (f64::from(b[output * rank + r]) * scale) as f32;
            for input in 0..d_input {
                weight[at(output, input)] += times * a[r * d_input + input];
            }
        }
    }
    if let Some(magnitude) = magnitude {
        for (output, length) in magnitude.iter::<f32>().enumerate() {
            let squares = (0..d_input).map(|input| f64::from(weight[at(output, input)]).powi(2));
            let share = (f64::from(length) / squares.sum::<f64>().sqrt()) as f32;
            (0..d_input).for_each(|input| weight[at(output, input)] *= share);
        }
    }
    Ok(TensorData::new(weight, base.shape))
}

/// Parameters of a model that are its adapter's.
pub fn count<B: Backend, M: Module<B>>(module: &M, names: Names) -> usize {
    let all = walk::parameters(module, names);
    all.iter().filter(|one| is_of_adapter(&one.name)).count()
}

/// Gives DoRA's lengths the values at which the layers compute what they did without an adapter.
pub fn set_magnitudes<B: Backend, M: Module<B>>(module: M, names: Names) -> M {
    let mut lengths = BTreeMap::new();
    walk::values(&module, names, &mut |path, data| {
        let name = path.name();
        let Some(layer) = name.strip_suffix(".weight") else {
            return;
        };
        let &[rows, columns] = &data.shape[..] else {
            return;
        };
        let turned = !path.is_transposed();
        let outputs = if turned { columns } else { rows };
        let mut squares = vec![0.0f64; outputs];
        for (at, value) in data.iter::<f32>().enumerate() {
            let output = if turned { at % columns } else { at / columns };
            squares[output] += f64::from(value).powi(2);
        }
        let roots = squares.into_iter().map(|sum| sum.sqrt() as f32);
        lengths.insert(layer.to_string(), roots.collect::<Vec<f32>>());
    });
    walk::replace(module, names, &mut |path, _| {
        let name = path.name();
        let layer = name.strip_suffix(".lora_magnitude_vector")?;
        let values = lengths.get(layer)?.clone();
        let n = values.len();
        Some(TensorData::new(values, [n]))
    })
}

/// Writes the bundle of a model that trains with an adapter: the merged model, and the adapter in a folder beside it. Of an
/// adapter that can't be merged, the model is the base, which is opened with what is in the folder.
#[derive(Clone, Debug)]
pub struct AdapterFiles {
    adapter: Adapter,
    base: Option<String>,
}

/// The folder of the adapter, in the bundle of a run.
pub const FOLDER: &str = "adapter";

impl AdapterFiles {
    /// - base: where the base model is, if training started from one
    pub fn new(adapter: Adapter, base: Option<&super::Bundle>) -> Self {
        Self {
            adapter,
            base: base.map(absolute),
        }
    }

    /// Writes a directory that appears whole or not at all.
    ///
    /// # Errors
    ///
    /// A directory that cannot be written.
    pub fn write<B: Backend, M: Module<B>>(
        &self,
        path: &Path,
        config: &Value,
        module: &M,
        names: Names,
        precision: Precision,
        files: &[(&str, &[u8])],
    ) -> Result<(), BundleError> {
        let wrong = |reason| BundleError::Weights {
            path: path.join(super::WEIGHTS),
            reason,
        };
        let merged = merged_weights(module, names, &self.adapter, precision).map_err(wrong)?;
        let own = self.weights(module, names).map_err(wrong)?;
        let settings = format!("{:#}\n", self.settings(module, names, config));
        let mut config = config.clone();
        if self.adapter.low_rank().is_none() {
            config[KEY] = FOLDER.into();
        }
        let config = format!("{config:#}\n");
        let (settings_at, weights_at) =
            (format!("{FOLDER}/{CONFIG}"), format!("{FOLDER}/{WEIGHTS}"));
        let mut all: Vec<(&str, &[u8])> = vec![
            (super::CONFIG, config.as_bytes()),
            (super::WEIGHTS, &merged),
            (&settings_at, settings.as_bytes()),
            (&weights_at, &own),
        ];
        all.extend(files);
        write_directory(path, &all)
    }

    /// `adapter_model.safetensors`: what the adapter consists of, and a classifier's new head whole.
    ///
    /// Of a low-rank one, a layer that is saved whole has its matrices in its weight: `peft` puts none beside what it saves whole.
    fn weights<B: Backend, M: Module<B>>(
        &self,
        module: &M,
        names: Names,
    ) -> Result<Vec<u8>, String> {
        let mut tensors = Vec::new();
        let mut add = |name: &str, data: TensorData| {
            let name = beside::in_file(Some(&self.adapter), name);
            tensors.push(stored(name, data, Precision::F32));
        };
        walk::values(module, names, &mut |path, data| {
            let name = path.name();
            let whole = match name.split_once(".lora_") {
                Some((layer, _)) => is_saved_whole(layer, names),
                None => false,
            };
            if is_of_adapter(&name) && !whole {
                add(&name, data);
            }
        });
        for (name, data) in merged_values(module, names, &self.adapter)? {
            if saved_whole(&name, names) {
                add(&name, data);
            }
        }
        safetensors_of(&tensors, Precision::F32)
    }

    fn settings<B: Backend, M: Module<B>>(
        &self,
        module: &M,
        names: Names,
        config: &Value,
    ) -> Value {
        let all = walk::parameters(module, names);
        let own = match &self.adapter {
            Adapter::LowRank(plan) => of_low_rank(plan, &all, names),
            Adapter::Bottleneck(plan) => {
                let layers = all.iter().filter_map(|one| {
                    let layer = one.name.strip_suffix(".bottleneck_down.weight")?;
                    // As a backbone without a head calls it, so that this opens with the adapter too.
                    Some(layer.strip_prefix(names.prefix()).unwrap_or(layer).into())
                });
                beside::of_bottleneck(plan, &layers.collect::<Vec<_>>())
            }
            Adapter::Prompt(_) | Adapter::Prefix(_) => {
                let is_prefix = matches!(self.adapter, Adapter::Prefix(_));
                let vectors = all.iter().find(|one| one.name == VIRTUAL_TOKENS);
                let shape = vectors.map_or([0, 0], |one| [one.shape[0], one.shape[1]]);
                beside::of_virtual_tokens(is_prefix, &shape, config)
            }
        };
        let mut whole: Vec<String> = all
            .iter()
            .filter(|one| saved_whole(&one.name, names))
            .filter_map(|one| {
                let inside = one.name.strip_prefix(names.prefix()).unwrap_or(&one.name);
                Some(inside.split('.').next()?.to_string())
            })
            .collect();
        whole.sort();
        whole.dedup();
        let mut settings = json!({
            "peft_type": own["peft_type"],
            "base_model_name_or_path": self.base,
            "task_type": task(names),
        });
        if let (Some(settings), Value::Object(own)) = (settings.as_object_mut(), own) {
            settings.extend(own);
        }
        settings["modules_to_save"] = if whole.is_empty() {
            Value::Null
        } else {
            json!(whole)
        };
        settings["inference_mode"] = true.into();
        settings
    }
}

/// Where a base model is, whatever the working directory; the name of a bundled one.
fn absolute(base: &super::Bundle) -> String {
    let path = base.path().canonicalize();
    path.unwrap_or(base.path().into()).display().to_string()
}

/// What `peft` calls the task of a model with this head; none where it has no word for it.
fn task(names: Names) -> Option<&'static str> {
    match names.head.kind {
        HeadKind::Classes => Some("SEQ_CLS"),
        HeadKind::TokenClasses => Some("TOKEN_CLS"),
        HeadKind::Spans => Some("QUESTION_ANS"),
        HeadKind::Tokens if is_causal(names.head.class) => Some("CAUSAL_LM"),
        HeadKind::Tokens => names.family.is_of_two_texts().then_some("SEQ_2_SEQ_LM"),
        HeadKind::Bare
        | HeadKind::SentencePairs
        | HeadKind::Replaced
        | HeadKind::Choices
        | HeadKind::Pixels
        | HeadKind::Variational
        | HeadKind::Codes
        | HeadKind::Patches
        | HeadKind::Masks
        | HeadKind::Boxes => None,
    }
}

/// What `adapter_config.json` says of a low-rank adapter alone.
///
/// - all: parameters of the model
fn of_low_rank(plan: &LowRankPlan, all: &[walk::Parameter], names: Names) -> Value {
    let LowRankPlan {
        rank,
        alpha,
        dropout,
        rslora,
        dora,
        targets,
    } = plan;
    let suffixes: Vec<_> = targets
        .iter()
        .filter_map(|target| match target {
            Target::Suffix(suffix) => Some(suffix.clone()),
            Target::Pattern(_) => None,
        })
        .collect();
    // A list of suffixes, or the names themselves where a pattern chose them.
    let modules = if suffixes.len() == targets.len() {
        suffixes
    } else {
        all.iter()
            .filter_map(|one| Some(one.name.strip_suffix(".lora_A.weight")?.to_string()))
            .filter(|layer| !is_saved_whole(layer, names))
            .collect()
    };
    json!({
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "use_rslora": rslora,
        "use_dora": dora,
        "target_modules": modules,
        "modules_to_save": null,
        "fan_in_fan_out": names.family.fan_in_fan_out,
        "bias": "none",
    })
}

/// Whether a class of a language model predicts the next token.
fn is_causal(class: &str) -> bool {
    class.ends_with("LMHeadModel") || class.ends_with("ForCausalLM")
}

/// Whether a parameter trains beside the adapter, and is saved as it is: the head of a classifier, and parts of the backbone
/// that bundles may lack.
pub fn saved_whole(name: &str, names: Names) -> bool {
    if !names.head.kind.is_of_a_task() || is_of_adapter(name) {
        return false;
    }
    let inside = name.strip_prefix(names.prefix()).unwrap_or(name);
    let mut optional = names.family.optional.iter();
    !names.is_backbone(name) || optional.any(|part| inside.starts_with(part))
}

/// Whether a layer is one of these.
fn is_saved_whole(layer: &str, names: Names) -> bool {
    saved_whole(&format!("{layer}.weight"), names)
}

/// The model's values with a low-rank adapter in them, under the names of a model without one; of another kind the values
/// that are not the adapter's.
fn merged_values<B: Backend, M: Module<B>>(
    module: &M,
    names: Names,
    adapter: &Adapter,
) -> Result<BTreeMap<String, TensorData>, String> {
    let (mut all, mut turned) = (BTreeMap::new(), BTreeSet::new());
    walk::values(module, names, &mut |path, data| {
        if !path.is_transposed() {
            turned.insert(path.name());
        }
        all.insert(path.name(), data);
    });
    let Some(plan) = adapter.low_rank() else {
        all.retain(|name, _| !is_of_adapter(name));
        return Ok(all);
    };
    let layers: Vec<String> = all
        .keys()
        .filter_map(|name| Some(name.strip_suffix(".lora_A.weight")?.to_string()))
        .collect();
    for layer in layers {
        let mut take = |end: &str| all.remove(&format!("{layer}.{end}"));
        let parts = (take("lora_A.weight"), take("lora_B.weight"), take("weight"));
        let magnitude = take("lora_magnitude_vector");
        let (Some(a), Some(b), Some(base)) = parts else {
            return Err(format!("{layer} lacks a matrix of its adapter"));
        };
        let name = format!("{layer}.weight");
        let turned = turned.contains(&name);
        let weight = merged(base, a, b, magnitude, plan.scale(), turned);
        let weight = weight.map_err(|reason| format!("{layer}: {reason}"))?;
        all.insert(name, weight);
    }
    Ok(all)
}

/// The same in the safetensors format.
fn merged_weights<B: Backend, M: Module<B>>(
    module: &M,
    names: Names,
    adapter: &Adapter,
    precision: Precision,
) -> Result<Vec<u8>, String> {
    let values = merged_values(module, names, adapter)?.into_iter();
    let tensors: Vec<_> = values
        .map(|(name, data)| stored(name, data, precision))
        .collect();
    safetensors_of(&tensors, precision)
}
