//! A bundle: a Hugging Face directory of `config.json`, `model.safetensors` and what prepares the input.
//!
//! In: a directory that `transformers` or Hearth wrote. Out: a model with its weights; and back. Names and
//! orientation of the tensors are PyTorch's, so that Python's `transformers` opens what is written here.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use burn_store::{BurnToPyTorchAdapter, ModuleSnapshot, PyTorchToBurnAdapter, TensorSnapshot};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bert::{BertConfig, HUGGING_FACE_NAMES};

mod error;
pub mod weights;

pub use error::BundleError;

/// Weights, in a bundle.
pub const WEIGHTS: &str = "model.safetensors";
/// Sizes and kind of the model, in a bundle.
pub const CONFIG: &str = "config.json";
/// Tokenizer of a text model, in a bundle.
pub const TOKENIZER: &str = "tokenizer.json";
/// Size and colours of an image model's input, in a bundle.
pub const PREPROCESSOR: &str = "preprocessor_config.json";

/// Kinds of models that a bundle can hold, as `architectures` in `config.json` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// A BERT encoder without a head.
    BertModel,
    /// [`crate::BertMaskedLm`].
    BertForMaskedLm,
    /// [`crate::BertClassifier`].
    BertForSequenceClassification,
    /// [`crate::Autoencoder`].
    ConvAutoencoder,
    /// [`crate::ImageClassifier`].
    ConvImageClassifier,
}

impl Architecture {
    const ALL: [Self; 5] = [
        Self::BertModel,
        Self::BertForMaskedLm,
        Self::BertForSequenceClassification,
        Self::ConvAutoencoder,
        Self::ConvImageClassifier,
    ];

    /// Its name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BertModel => "BertModel",
            Self::BertForMaskedLm => "BertForMaskedLM",
            Self::BertForSequenceClassification => "BertForSequenceClassification",
            Self::ConvAutoencoder => "HearthConvAutoencoder",
            Self::ConvImageClassifier => "HearthConvImageClassifier",
        }
    }

    /// `model_type` in `config.json`.
    fn model_type(self) -> &'static str {
        match self {
            Self::BertModel | Self::BertForMaskedLm | Self::BertForSequenceClassification => "bert",
            Self::ConvAutoencoder | Self::ConvImageClassifier => "hearth_conv",
        }
    }

    /// Whether its backbone is a BERT encoder.
    pub fn is_bert(self) -> bool {
        self.model_type() == "bert"
    }
}

/// Element type of written weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bit.
    #[default]
    F32,
    /// 16 bit, half the size.
    F16,
}

/// How much of a model must be in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load<'a> {
    /// Every tensor.
    Whole,
    /// The tensors under this prefix; a bundle of the bare backbone may name them without it.
    ///
    /// `optional` names the parts of the backbone that the file may lack (a pooler, say).
    Backbone {
        /// Such as `bert.`.
        prefix: &'a str,
        /// Such as `pooler.`.
        optional: &'a str,
    },
}

/// Where the files of a bundle are.
#[derive(Clone, Debug)]
enum Files {
    Directory,
    /// Compiled into the program: names and contents.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// An opened bundle: its configuration is read, its weights are not.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
    files: Files,
    architecture: Architecture,
    config: Value,
}

impl Bundle {
    /// Opens a directory.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        if !path.is_dir() {
            let reason = if path.exists() {
                "it is a file"
            } else {
                "no such directory"
            };
            return Err(BundleError::NotABundle {
                path: path.into(),
                reason: reason.into(),
            });
        }
        for name in [CONFIG, WEIGHTS] {
            if !path.join(name).is_file() {
                return Err(BundleError::NotABundle {
                    path: path.into(),
                    reason: format!("{name} is missing"),
                });
            }
        }
        Self::with_files(path.into(), Files::Directory)
    }

    /// Opens a bundle, or the one that a run left in its `model` directory.
    pub fn find(path: &Path) -> Result<Self, BundleError> {
        let of_run = path.join("model");
        match !path.join(CONFIG).is_file() && of_run.join(CONFIG).is_file() {
            true => Self::open(&of_run),
            false => Self::open(path),
        }
    }

    /// Opens files that were compiled into the program; `name` stands for their path in messages.
    pub fn embedded(
        name: &str,
        files: &'static [(&'static str, &'static [u8])],
    ) -> Result<Self, BundleError> {
        Self::with_files(name.into(), Files::Embedded(files))
    }

    fn with_files(path: PathBuf, files: Files) -> Result<Self, BundleError> {
        let bytes = read(&path, &files, CONFIG)?;
        let at = path.join(CONFIG);
        let wrong = |reason: String| BundleError::Config {
            path: at.clone(),
            reason,
        };
        let config: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        let architecture = architecture(&config).map_err(wrong)?;
        Ok(Self {
            path,
            files,
            architecture,
            config,
        })
    }

    /// Which kind of model it holds.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of one of its files.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, BundleError> {
        read(&self.path, &self.files, name)
    }

    /// Refuses a model of another kind.
    pub fn require(&self, wanted: &[Architecture]) -> Result<(), BundleError> {
        if wanted.contains(&self.architecture) {
            return Ok(());
        }
        let names: Vec<_> = wanted.iter().map(|kind| kind.name()).collect();
        Err(BundleError::WrongKind {
            path: self.path.clone(),
            found: self.architecture.name().into(),
            wanted: names.join(" or "),
        })
    }

    /// The whole configuration as a model's own type.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, BundleError> {
        T::deserialize(&self.config).map_err(|e| self.config_error(e.to_string()))
    }

    /// The configuration of a BERT model, checked.
    pub fn bert_config(&self) -> Result<BertConfig, BundleError> {
        let config: BertConfig = self.config()?;
        config.check().map_err(|reason| self.config_error(reason))?;
        Ok(config)
    }

    /// Class names in the order of the logits, where the model is a classifier.
    pub fn classes(&self) -> Result<Vec<String>, BundleError> {
        let table: HashMap<usize, String> = match self.config.get("id2label") {
            Some(table) => serde_json::from_value(table.clone())
                .map_err(|e| self.config_error(format!("id2label: {e}")))?,
            None => return Err(self.config_error("id2label is missing".into())),
        };
        (0..table.len())
            .map(|id| {
                let name = table.get(&id).cloned();
                name.ok_or_else(|| self.config_error(format!("id2label lacks class {id}")))
            })
            .collect()
    }

    fn config_error(&self, reason: String) -> BundleError {
        BundleError::Config {
            path: self.path.join(CONFIG),
            reason,
        }
    }

    /// Puts the bundle's weights into a model that was drawn from its configuration.
    pub fn load<B: Backend, M: Module<B>>(&self, module: M, load: Load) -> Result<M, BundleError> {
        let bytes = self.read(WEIGHTS)?;
        apply(module, &bytes, load).map_err(|reason| BundleError::Weights {
            path: self.path.join(WEIGHTS),
            reason,
        })
    }
}

fn read(path: &Path, files: &Files, name: &str) -> Result<Vec<u8>, BundleError> {
    match files {
        Files::Directory => {
            let at = path.join(name);
            fs::read(&at).map_err(|source| BundleError::Io { path: at, source })
        }
        Files::Embedded(files) => match files.iter().find(|(have, _)| *have == name) {
            Some((_, bytes)) => Ok(bytes.to_vec()),
            None => Err(BundleError::NotABundle {
                path: path.into(),
                reason: format!("{name} is missing"),
            }),
        },
    }
}

fn architecture(config: &Value) -> Result<Architecture, String> {
    let known = || {
        let names: Vec<_> = Architecture::ALL.iter().map(|kind| kind.name()).collect();
        names.join(", ")
    };
    let name = config
        .get("architectures")
        .and_then(|names| names.get(0))
        .and_then(Value::as_str);
    let Some(name) = name else {
        return Err(format!("architectures is missing; known are {}", known()));
    };
    Architecture::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| format!("architecture \"{name}\" is not one of {}", known()))
}

/// `config.json` of a model: its sizes, its kind and, for a classifier, its classes.
pub fn config_json(
    architecture: Architecture,
    sizes: &impl serde::Serialize,
    classes: Option<&[String]>,
) -> Value {
    let mut config = json!({
        "architectures": [architecture.name()],
        "model_type": architecture.model_type(),
    });
    let sizes = serde_json::to_value(sizes).unwrap_or_default();
    if let (Some(config), Some(sizes)) = (config.as_object_mut(), sizes.as_object()) {
        config.extend(sizes.clone());
        if let Some(classes) = classes {
            let id2label: BTreeMap<_, _> = classes.iter().enumerate().collect();
            let label2id: BTreeMap<_, _> = classes.iter().zip(0..).collect();
            config.insert("id2label".into(), json!(id2label));
            config.insert("label2id".into(), json!(label2id));
        }
    }
    config
}

/// Writes a bundle. The directory appears whole or not at all; one that stood there is replaced.
///
/// `files` are written beside `config.json` and the weights, such as [`TOKENIZER`].
pub fn write<B: Backend, M: Module<B>>(
    path: &Path,
    config: &Value,
    module: &M,
    precision: Precision,
    files: &[(&str, &[u8])],
) -> Result<(), BundleError> {
    let weights = serialise(module, precision).map_err(|reason| BundleError::Weights {
        path: path.join(WEIGHTS),
        reason,
    })?;
    let fresh = path.with_extension("new");
    let old = path.with_extension("old");
    let io = |at: &Path| {
        let path = at.to_path_buf();
        move |source| BundleError::Io { path, source }
    };
    for stale in [&fresh, &old] {
        if stale.exists() {
            fs::remove_dir_all(stale).map_err(io(stale))?;
        }
    }
    fs::create_dir_all(&fresh).map_err(io(&fresh))?;
    let config = format!("{config:#}\n");
    let all = [(CONFIG, config.as_bytes()), (WEIGHTS, &weights)];
    for (name, bytes) in all.iter().chain(files) {
        let at = fresh.join(name);
        let mut file = fs::File::create(&at).map_err(io(&at))?;
        file.write_all(bytes).map_err(io(&at))?;
        file.sync_all().map_err(io(&at))?;
    }
    if path.exists() {
        fs::rename(path, &old).map_err(io(path))?;
    }
    fs::rename(&fresh, path).map_err(io(path))?;
    if old.exists() {
        fs::remove_dir_all(&old).map_err(io(&old))?;
    }
    Ok(())
}

/// Every parameter of a module under its PyTorch name and in PyTorch's orientation.
pub fn named_tensors<B: Backend, M: Module<B>>(module: &M) -> Vec<(String, TensorSnapshot)> {
    let snapshots = module.collect(None, Some(Box::new(BurnToPyTorchAdapter)), false);
    snapshots
        .into_iter()
        .map(|snapshot| (hugging_face_name(&snapshot.full_path()), snapshot))
        .collect()
}

/// A parameter's path in our modules, as Hugging Face names it.
pub fn hugging_face_name(path: &str) -> String {
    let renamed = HUGGING_FACE_NAMES
        .iter()
        .fold(path.to_string(), |name, (ours, theirs)| {
            name.replace(ours, theirs)
        });
    // Norms keep Burn's parameter names where the path did not come through the PyTorch adapter.
    match renamed.rsplit_once('.') {
        Some((stem, "gamma")) => format!("{stem}.weight"),
        Some((stem, "beta")) => format!("{stem}.bias"),
        _ => renamed,
    }
}

/// A module's weights in the safetensors format.
pub fn serialise<B: Backend, M: Module<B>>(
    module: &M,
    precision: Precision,
) -> Result<Vec<u8>, String> {
    let (dtype, stored) = match precision {
        Precision::F32 => (DType::F32, Dtype::F32),
        Precision::F16 => (DType::F16, Dtype::F16),
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, snapshot) in named_tensors(module) {
        let data = snapshot
            .to_data()
            .map_err(|e| format!("{name}: {e:?}"))?
            .convert_dtype(dtype);
        tensors.push((name, data.shape.to_vec(), data.as_bytes().to_vec()));
    }
    let mut views = Vec::with_capacity(tensors.len());
    for (name, shape, bytes) in &tensors {
        let view = TensorView::new(stored, shape.clone(), bytes);
        views.push((name, view.map_err(|e| format!("{name}: {e}"))?));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| e.to_string())
}

/// Puts tensors of the safetensors format into a module; every value becomes the backend's float type.
pub fn apply<B: Backend, M: Module<B>>(
    mut module: M,
    bytes: &[u8],
    load: Load,
) -> Result<M, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not safetensors: {e}"))?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (name, snapshot) in named_tensors(&module) {
        let Some(candidates) = candidates(&name, load) else {
            continue;
        };
        let view = candidates.iter().find_map(|name| file.tensor(name).ok());
        match view {
            Some(view) => found.push(as_snapshot(&name, &view, &snapshot)?),
            None if is_optional(&name, load) => {}
            None => missing.push(name),
        }
    }
    if !missing.is_empty() {
        return Err(format!("lacks {}", listed(&missing)));
    }
    if found.is_empty() {
        return Err("holds no tensor that this model has".into());
    }
    let result = module.apply(found, None, Some(Box::new(PyTorchToBurnAdapter)), false);
    match result.errors.first() {
        Some(error) => Err(error.to_string()),
        None => Ok(module),
    }
}

/// Under which names the file may hold a tensor; `None` if it is not to be loaded.
fn candidates(name: &str, load: Load) -> Option<Vec<String>> {
    match load {
        Load::Whole => Some(vec![name.to_string()]),
        Load::Backbone { prefix, .. } => name.strip_prefix(prefix).map(|bare| {
            let in_bert = format!("bert.{bare}");
            vec![name.to_string(), bare.to_string(), in_bert]
        }),
    }
}

fn is_optional(name: &str, load: Load) -> bool {
    match load {
        Load::Whole => false,
        Load::Backbone { prefix, optional } => {
            !optional.is_empty()
                && name
                    .strip_prefix(prefix)
                    .is_some_and(|bare| bare.starts_with(optional))
        }
    }
}

fn as_snapshot(
    name: &str,
    view: &TensorView,
    like: &TensorSnapshot,
) -> Result<TensorSnapshot, String> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        other => return Err(format!("{name} holds {other:?}, not floats")),
    };
    if view.shape() != like.shape.as_slice() {
        return Err(format!(
            "{name} has shape {:?}; the configuration says {:?}",
            view.shape(),
            like.shape.as_slice()
        ));
    }
    let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype);
    Ok(TensorSnapshot::from_data(
        data.convert_dtype(like.dtype),
        like.path_stack.clone().unwrap_or_default(),
        like.container_stack.clone().unwrap_or_default(),
        like.tensor_id.unwrap_or_default(),
    ))
}

/// The first few names, and how many more there are.
fn listed(names: &[String]) -> String {
    match names {
        few if few.len() <= 3 => few.join(", "),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
        _ => String::new(),
    }
}
