//! A bundle: a Hugging Face directory of `config.json`, weights and what prepares the input.
//!
//! In: a directory that `transformers` or Hearth wrote. Out: a model with its weights; and back. Names and
//! orientation of the tensors are PyTorch's, so that Python's `transformers` opens what is written here.

mod config;
mod error;
mod fit;
pub mod peft;
mod preprocessor;
pub mod weights;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

pub use config::{Scores, config_json};
pub use error::BundleError;
use fit::Origin;
use peft::SavedAdapter;
pub use preprocessor::ImageInput;
use weights::{Mismatch, Weights};

use crate::eight_bits::{EightBits, SCALE};
use crate::families::t5;
use crate::layers::{Adapter, Draw};
use crate::names::{Family, HeadKind, Names, VIRTUAL_TOKENS, is_of_adapter};
use crate::registry::{ImageConfig, Seq2SeqConfig, TextConfig};
use crate::walk::{self, Parameter, Values};

/// Weights, in a bundle.
pub const WEIGHTS: &str = "model.safetensors";
/// Sizes and kind of the model, in a bundle.
pub const CONFIG: &str = "config.json";
/// Tokenizer of a text model, in a bundle.
pub const TOKENIZER: &str = "tokenizer.json";
/// How an encoder-decoder writes a text, in a bundle.
pub const GENERATION: &str = "generation_config.json";
/// How the tokenizer is used, in a bundle.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Size and colours of an image model's input, in a bundle.
pub const PREPROCESSOR: &str = "preprocessor_config.json";

/// Element type of written weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bit.
    #[default]
    F32,
    /// 16 bit, half the size.
    F16,
    /// The same size with the range of 32 bit and fewer digits.
    Bf16,
}

impl Precision {
    /// From this value on, values round to infinity.
    pub fn limit(self) -> f32 {
        match self {
            Self::F32 => f32::INFINITY,
            Self::F16 => 65520.0,
            // Half a step above the largest value.
            Self::Bf16 => f32::from_bits(0x7f7f_8000),
        }
    }
}

/// A buffer of encoder-decoders that files may lack: it is zero then.
const FINAL_BIAS: &str = "final_logits_bias";

/// How much of a model must be in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Every tensor.
    Whole,
    /// The backbone; parts that the family calls optional may be missing.
    Backbone,
    /// The backbone, and the head if it is there.
    BackboneAndPerhapsHead,
}

/// What was not taken from a bundle as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Parameters that keep the values that were drawn.
    pub drawn: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unused: Vec<String>,
    /// What was done to tensors: for images of another shape, or to those of 8 bits; a sentence each.
    pub fitted: Vec<String>,
}

impl Loaded {
    /// A warning, where unused tensors belong to the backbone and not to a head or to a part that may be missing: the model
    /// computes something else than the one that was saved.
    pub fn lost(&self, names: Names) -> Option<String> {
        let family = names.family;
        let is_lost = |name: &&String| {
            let bare = without_wrapper(name);
            // Llama's prefix is what wrappers put in front of others.
            let mut ways = [name.as_str(), bare].into_iter();
            let inside = ways.find_map(|name| name.strip_prefix(names.prefix()));
            let inside = inside.filter(|_| !names.prefix().is_empty());
            // Of two stacks neither has its layers at the root; recurrent layers have their numbers at the ends of names.
            let of_stack = family.is_of_two_texts() && bare.contains(family.layer);
            let recurrent = family.prefix.is_empty() && !family.is_of_images();
            let of_layer =
                bare.starts_with(family.layer) || (recurrent && names.layer(bare).is_some());
            let in_backbone = inside.is_some() || of_layer || of_stack;
            let inside = inside.unwrap_or(bare);
            let optional = family.optional.iter().any(|part| inside.starts_with(part));
            in_backbone && !optional
        };
        let lost: Vec<String> = self.unused.iter().filter(is_lost).cloned().collect();
        let names = weights::listed(&lost);
        (!lost.is_empty()).then(|| {
            format!("the model of config.json has no place for {names}: it computes without them")
        })
    }
}

/// Where the files of a bundle are.
#[derive(Clone, Debug)]
enum Files {
    Directory,
    /// One file of weights and nothing else.
    Weights,
    /// Compiled into the program: names and contents.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// An opened bundle: its configuration is read, its weights are not.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
    files: Files,
    family: &'static Family,
    config: Value,
    weights: Arc<OnceLock<Weights>>,
    adapter: Option<Arc<SavedAdapter>>,
    /// Whether the adapter is a part of this bundle, and not this bundle the adapter's base.
    own_adapter: bool,
    /// Where the tokenizer is, if not beside the weights.
    tokenizer: Option<PathBuf>,
    /// Where the merged model of an adapter is, if it is known.
    trained: Option<PathBuf>,
}

/// Files that make a tokenizer; those that make one by themselves, or with `merges.txt`, come first.
pub const TOKENIZER_FILES: [&str; 8] = [
    TOKENIZER,
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

impl Bundle {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// No such directory, or one whose `config.json` is missing, no JSON, or of a family that is not known.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let wrong = |reason: &str| BundleError::NotABundle {
            path: path.into(),
            reason: reason.into(),
        };
        if path.is_file() {
            return Err(wrong("it is a file"));
        }
        if !path.is_dir() {
            return Err(wrong("no such directory"));
        }
        // Trainers of adapters write the base's config.json beside them, without its weights.
        let is_model = path.join(CONFIG).is_file() && Weights::are_in(path);
        if path.join(peft::CONFIG).is_file() && !is_model {
            return Self::with_adapter(path);
        }
        if !path.join(CONFIG).is_file() {
            return Err(wrong("config.json is missing"));
        }
        let mut bundle = Self::with_files(path.into(), Files::Directory)?;
        if bundle.config.get(peft::KEY).is_some() {
            bundle.own_adapter = true;
            bundle.take_adapter(SavedAdapter::open(&path.join(peft::FOLDER))?)?;
        }
        Ok(bundle)
    }

    /// Takes an adapter that its model can have.
    fn take_adapter(&mut self, adapter: SavedAdapter) -> Result<(), BundleError> {
        let family = self.family;
        match adapter.beside() {
            Some(beside) if beside.virtual_tokens() > 0 && !family.virtual_tokens => {
                let (kind, family) = (beside.describe(), family.model_type);
                let reason = format!(
                    "is a {family}, and its adapter {kind}, which is not implemented for this family"
                );
                return Err(self.config_error(reason));
            }
            _ => self.adapter = Some(Arc::new(adapter)),
        }
        Ok(())
    }

    /// Opens the base model of an adapter; its weights are loaded with the adapter merged into them.
    fn with_adapter(path: &Path) -> Result<Self, BundleError> {
        let adapter = SavedAdapter::open(path)?;
        let base = adapter.base()?;
        let bundled = crate::bundled::open(&base.to_string_lossy());
        let mut bundle = bundled.unwrap_or_else(|| Self::open(&base))?;
        // A run has the merged model, which says how it was trained, in the folder above.
        let above = path.join("..");
        let merged = match fs::read(above.join(CONFIG)) {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => {
                let path = above.join(CONFIG);
                return Err(BundleError::Io { path, source });
            }
        };
        // Another file of this name is none of ours.
        let merged = merged.filter(|merged| merged["model_type"] == bundle.family.model_type);
        let folders = [Some(path.into()), merged.is_some().then_some(above)];
        let holds = |folder: &PathBuf| {
            let mut vocabularies = TOKENIZER_FILES[..3].iter();
            vocabularies.any(|name| folder.join(name).is_file())
        };
        bundle.tokenizer = folders.into_iter().flatten().find(holds);
        if let Some(other) = bundle.beside() {
            let reason = format!(
                "holds {}, and an adapter beside another is not implemented",
                other.describe()
            );
            return Err(bundle.config_error(reason));
        }
        bundle.take_adapter(adapter)?;
        bundle.take_class(merged.as_ref());
        if bundle.take_settings(merged.as_ref())? {
            bundle.trained = Some(path.join(".."));
        }
        bundle.take_classes(merged.as_ref())?;
        Ok(bundle)
    }

    /// Opens a bundle, or the one that a run left in its `model` directory.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn find(path: &Path) -> Result<Self, BundleError> {
        let of_run = path.join("model");
        let holds = |path: &Path| path.join(CONFIG).is_file() || path.join(peft::CONFIG).is_file();
        if !holds(path) && holds(&of_run) {
            return Self::open(&of_run);
        }
        Self::open(path)
    }

    /// Opens files that were compiled into the program; messages show `name` for their path.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn embedded(
        name: &str,
        files: &'static [(&'static str, &'static [u8])],
    ) -> Result<Self, BundleError> {
        Self::with_files(name.into(), Files::Embedded(files))
    }

    /// A file of weights alone, as torchvision's are, of a model with this configuration.
    ///
    /// # Errors
    ///
    /// A configuration of a family that is not known; the weights are read later.
    pub fn of_weights(path: &Path, config: Value) -> Result<Self, BundleError> {
        Self::with_config(path.into(), Files::Weights, config)
    }

    fn with_files(path: PathBuf, files: Files) -> Result<Self, BundleError> {
        let bytes = read(&path, &files, CONFIG)?;
        let config = serde_json::from_slice(&bytes).map_err(|e| BundleError::Config {
            path: path.join(CONFIG),
            reason: e.to_string(),
        })?;
        Self::with_config(path, files, config)
    }

    fn with_config(path: PathBuf, files: Files, mut config: Value) -> Result<Self, BundleError> {
        let at = path.join(CONFIG);
        let wrong = |reason: String| BundleError::Config {
            path: at.clone(),
            reason,
        };
        let family = config::family(&config).map_err(wrong)?;
        config::complete(&mut config, family).map_err(wrong)?;
        Ok(Self {
            path,
            files,
            family,
            config,
            weights: Arc::default(),
            adapter: None,
            own_adapter: false,
            tokenizer: None,
            trained: None,
        })
    }

    /// Of which family its model is.
    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// The model's class, as `architectures` in `config.json` names it, if it does.
    pub fn class(&self) -> Option<&str> {
        self.config.get("architectures")?.get(0)?.as_str()
    }

    /// Whether it is an adapter beside its base model.
    pub fn has_adapter(&self) -> bool {
        self.adapter.is_some() && !self.own_adapter
    }

    /// The adapter that stays beside the weights, if there is one: models that are [drawn](Self::draw) for it have it.
    pub fn beside(&self) -> Option<&Adapter> {
        self.adapter.as_ref()?.beside()
    }

    /// What the layers of its model are drawn with.
    ///
    /// - names: of the model
    pub fn draw<'a, B: Backend>(&'a self, device: &'a B::Device, names: Names) -> Draw<'a, B> {
        Draw::new(device, 0.02).with_adapter(self.beside(), names)
    }

    /// The most tokens that a text may have: the model's positions without those that virtual tokens take.
    ///
    /// - config: of its model
    pub fn positions(&self, config: &TextConfig) -> usize {
        let taken = self.beside().map_or(0, Adapter::virtual_tokens);
        config.describe().positions.saturating_sub(taken)
    }

    /// `config.json`, with what the family means by keys that are left out.
    pub fn raw_config(&self) -> &Value {
        &self.config
    }

    /// The same text model with some of its layers, in this order; all else stays.
    ///
    /// - layers: counted from 0
    ///
    /// # Errors
    ///
    /// A model of another kind, an adapter that is not merged yet, or a layer that is not there.
    pub fn with_layers(&self, layers: &[usize]) -> Result<Self, BundleError> {
        let mut config = self.text_config()?;
        let all = config.describe().layers;
        if let Some(layer) = layers.iter().find(|layer| **layer >= all) {
            let last = all - 1;
            let reason =
                format!("the model has the layers 0 to {last}, and layer {layer} is asked for");
            return Err(self.config_error(reason));
        }
        if self.adapter.is_some() {
            let reason = "some layers of a model with an adapter are asked for; `apps convert --merge` makes one model of both";
            return Err(self.config_error(reason.into()));
        }
        config.set_layers(layers.len());
        let fewer = serde_json::to_value(&config).map_err(|e| self.config_error(e.to_string()))?;
        let mut raw = self.config.clone();
        if let (Some(raw), Some(fewer)) = (raw.as_object_mut(), fewer.as_object()) {
            raw.extend(fewer.clone());
        }
        let weights = self.weights()?.with_layers(self.family.layer, layers);
        Ok(Self {
            config: raw,
            weights: Arc::new(OnceLock::from(weights)),
            ..self.clone()
        })
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of one of its files.
    ///
    /// # Errors
    ///
    /// A file that is missing or cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, BundleError> {
        if let Some(folder) = &self.tokenizer
            && TOKENIZER_FILES.contains(&name)
        {
            return read(folder, &Files::Directory, name);
        }
        if let Some(folder) = &self.trained
            && [GENERATION, PREPROCESSOR].contains(&name)
            && folder.join(name).is_file()
        {
            return read(folder, &Files::Directory, name);
        }
        read(&self.path, &self.files, name)
    }

    /// The bytes of one of its files, if there is such a file.
    ///
    /// # Errors
    ///
    /// A file that is there and cannot be read.
    pub fn read_optional(&self, name: &str) -> Result<Option<Vec<u8>>, BundleError> {
        match self.read(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(BundleError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(BundleError::NotABundle { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether its model reads texts.
    pub fn is_text(&self) -> bool {
        !self.family.is_of_images()
    }

    /// The configuration of a text model, checked.
    ///
    /// # Errors
    ///
    /// A model of images, or a key that is missing, wrong, or not implemented.
    pub fn text_config(&self) -> Result<TextConfig, BundleError> {
        let families = crate::registry::TEXT_FAMILIES;
        self.expect_family(families, "a text model")?;
        let config: TextConfig = self.parsed()?;
        config.check().map_err(|reason| self.config_error(reason))?;
        if self.positions(&config) == 0 {
            let reason = "has no position left for a token behind those of its adapter";
            return Err(self.config_error(reason.into()));
        }
        Ok(config)
    }

    /// The configuration of an encoder-decoder, checked.
    ///
    /// # Errors
    ///
    /// A model of another kind, or a key that is missing, wrong, or not implemented.
    pub fn seq2seq_config(&self) -> Result<Seq2SeqConfig, BundleError> {
        let families = crate::registry::SEQ2SEQ_FAMILIES;
        self.expect_family(families, "an encoder-decoder")?;
        let mut config: Seq2SeqConfig = self.parsed()?;
        if let Seq2SeqConfig::T5(config) = &mut config {
            config.tie(self.is_tied());
        }
        config.check().map_err(|reason| self.config_error(reason))?;
        Ok(config)
    }

    /// The configuration of an image model, checked.
    ///
    /// # Errors
    ///
    /// A model of texts, or a key that is missing or wrong.
    pub fn image_config(&self) -> Result<ImageConfig, BundleError> {
        let families = crate::registry::IMAGE_FAMILIES;
        self.expect_family(families, "an image model")?;
        let config: ImageConfig = self.parsed()?;
        config.check().map_err(|reason| self.config_error(reason))?;
        Ok(config)
    }

    /// What `config.json` says of a head.
    ///
    /// # Errors
    ///
    /// A key that is missing or of another type.
    pub fn head_config<T: serde::de::DeserializeOwned>(&self) -> Result<T, BundleError> {
        self.parsed()
    }

    fn expect_family(&self, families: &[&'static Family], wanted: &str) -> Result<(), BundleError> {
        let ours = self.family.model_type;
        if families.iter().any(|family| family.model_type == ours) {
            return Ok(());
        }
        let kind = if self.family.is_of_two_texts() {
            "an encoder-decoder"
        } else {
            "a model"
        };
        Err(BundleError::WrongKind {
            path: self.path.clone(),
            found: format!("{kind} of type {ours}"),
            wanted: wanted.into(),
        })
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self) -> Result<T, BundleError> {
        T::deserialize(&self.config).map_err(|e| self.config_error(e.to_string()))
    }

    fn config_error(&self, reason: String) -> BundleError {
        BundleError::Config {
            path: self.path.join(CONFIG),
            reason,
        }
    }

    /// Refuses a model without this head: the weights decide what is there, whatever `architectures` says.
    ///
    /// # Errors
    ///
    /// A family that has no such head, or weights without it.
    pub fn require(&self, kind: HeadKind) -> Result<Names, BundleError> {
        let wrong = |found: String| BundleError::WrongKind {
            path: self.path.clone(),
            found,
            wanted: kind.describe().into(),
        };
        let Some(head) = self.family.head(kind) else {
            return Err(wrong(format!("a model of type {}", self.family.model_type)));
        };
        let names = Names {
            family: self.family,
            head,
        };
        if self.holds(&names)? {
            return Ok(names);
        }
        Err(wrong(match self.class() {
            Some(class) if class == head.class => {
                format!(
                    "{}, as its weights lack the head of {class}",
                    self.held_head().describe()
                )
            }
            Some(class) => class.to_string(),
            None => self.held_head().describe().into(),
        }))
    }

    /// The head that its model has: what its class says, else what its weights hold.
    pub fn head(&self) -> HeadKind {
        let class = self.class();
        let named = class.and_then(|class| self.family.head_of_class(class));
        named.map_or_else(|| self.held_head(), |head| head.kind)
    }

    fn held_head(&self) -> HeadKind {
        let family = self.family;
        let held = family.all_heads().filter(|head| {
            let names = Names { family, head };
            self.holds(&names).unwrap_or(false)
        });
        let first = held.map(|head| head.kind).min_by_key(|kind| kind.rank());
        first.unwrap_or(HeadKind::Bare)
    }

    /// Whether the weights hold this head.
    fn holds(&self, names: &Names) -> Result<bool, BundleError> {
        // Two heads may have one name and another meaning: a class a token, a class a text.
        let class = self.class().unwrap_or_default();
        let other = [
            "ForTokenClassification",
            "ForQuestionAnswering",
            "ForMultipleChoice",
            "ForNextSentencePrediction",
            "ForSequenceClassification",
        ];
        let is_other = class != names.head.class && other.iter().any(|end| class.ends_with(end));
        if names.head.kind.is_of_a_task() && is_other {
            return Ok(false);
        }
        // All that give images back have something that is called a decoder.
        if let Some(named) = self.family.head_of_class(class)
            && named.kind.gives_images()
            && names.head.kind.gives_images()
            && named.kind != names.head.kind
        {
            return Ok(false);
        }
        let weights = self.weights()?;
        let tied = names.head.kind == HeadKind::Tokens && self.is_tied();
        let mut own = names.head.renames.iter();
        let may_lack = |theirs: &str| theirs == FINAL_BIAS;
        let needed = own.find(|(ours, theirs)| !(may_lack(theirs) || tied && *ours == "output."));
        let foreign = |needed: &str| {
            let of_torchvision = self.family.torchvision?;
            of_torchvision(&format!("{needed}weight")).map(|foreign| foreign.name)
        };
        if let Some((_, needed)) = needed
            && let Some(theirs) = foreign(needed)
            && weights.get(&theirs).is_some()
        {
            return Ok(true);
        }
        let Some((_, needed)) = needed else {
            // Nothing but the tied token table, which a classifier has too.
            let named = self.family.head_of_class(class).map(|head| head.kind);
            let kinds = [names.head.kind, HeadKind::Bare];
            return Ok(names.head.kind == HeadKind::Bare
                || named.is_none_or(|named| kinds.contains(&named)));
        };
        let mut all = weights.iter();
        let in_base = all.any(|tensor| without_wrapper(tensor.name).starts_with(needed));
        let in_adapter = |adapter: &Arc<SavedAdapter>| adapter.holds_part(needed);
        Ok(in_base || self.adapter.as_ref().is_some_and(in_adapter))
    }

    /// Whether the token table scores the words too, as `tie_word_embeddings` says; the weights of a T5 do, as `transformers`
    /// says true of them all.
    fn is_tied(&self) -> bool {
        let said = self.config.get("tie_word_embeddings") != Some(&Value::Bool(false));
        if self.family.model_type != t5::NAMES.model_type {
            return said;
        }
        match self.weights() {
            Ok(weights) => !weights.differ("shared.weight", "lm_head.weight"),
            // Loading says what is wrong with them.
            Err(_) => said,
        }
    }

    /// The weights, opened when they are first asked for.
    ///
    /// # Errors
    ///
    /// No file of weights, or one that cannot be read.
    pub fn weights(&self) -> Result<&Weights, BundleError> {
        if let Some(weights) = self.weights.get() {
            return Ok(weights);
        }
        let weights = match &self.files {
            Files::Directory => Weights::open_directory(&self.path)?,
            Files::Weights => Weights::open_file(&self.path)?,
            Files::Embedded(files) => {
                let found = files.iter().find(|(name, _)| *name == WEIGHTS);
                let bytes = found.map_or(&[][..], |(_, bytes)| bytes);
                let name = self.path.join(WEIGHTS).display().to_string();
                Weights::from_safetensors(&name, Cow::Borrowed(bytes))?
            }
        };
        Ok(self.weights.get_or_init(|| weights))
    }

    /// The bytes of the files that hold its weights, an adapter's last.
    ///
    /// # Errors
    ///
    /// Those of [`weights`](Self::weights).
    pub fn bytes_of_weights(&self) -> Result<Vec<&[u8]>, BundleError> {
        let adapter = self.adapter.iter().flat_map(|adapter| adapter.bytes());
        Ok(self.weights()?.bytes().chain(adapter).collect())
    }

    /// Puts the bundle's weights into a model that was drawn from its configuration.
    ///
    /// # Errors
    ///
    /// Tensors that are missing or of another shape, or values that are not finite.
    pub fn load<B: Backend, M: Module<B>>(
        &self,
        module: M,
        names: Names,
        load: Load,
    ) -> Result<(M, Loaded), BundleError> {
        self.load_with(false, module, names, load)
    }

    /// The same for a model that is only computed with, never trained or saved: weights that 16 bits hold exactly may be held
    /// so, and those of 8 bits as they are, which gives the same results but for the order of sums, see
    /// [`walk::replace_for_inference`].
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_for_inference<B: Backend, M: Module<B>>(
        &self,
        module: M,
        names: Names,
        load: Load,
    ) -> Result<(M, Loaded), BundleError> {
        self.load_with(true, module, names, load)
    }

    fn load_with<B: Backend, M: Module<B>>(
        &self,
        for_inference: bool,
        module: M,
        names: Names,
        load: Load,
    ) -> Result<(M, Loaded), BundleError> {
        let weights = self.weights()?;
        let wrong = |reason: String| BundleError::Weights {
            path: match self.files {
                Files::Weights => self.path.clone(),
                _ => self.path.join(WEIGHTS),
            },
            reason,
        };
        let all = walk::parameters(&module, names);
        let called = Called::new(&all, names);
        let mut wanted = all.clone();
        if let Some(adapter) = &self.adapter {
            // What an adapter holds whole, as a new head, its base may lack.
            wanted.retain(|parameter| !self.of_adapter(parameter, &called, load));
            check_adapter(adapter, &all, &called, load)?;
        }
        let (chosen, mut loaded) =
            choose(&wanted, &called, load, weights).map_err(|m| wrong(m.to_string()))?;
        if weights.are_of_8_bits() && !for_inference {
            let note =
                "its matrices of 8 bits are widened to 32 and keep what rounding left of them";
            loaded.fitted.push(note.into());
        }
        if load != Load::Backbone {
            for [one, other] in called.ties() {
                let chosen = chosen.get(one).map_or(one, |origin| origin.name.as_str());
                let differs = |other: &str| weights.differ(chosen, other);
                if differs(other) || differs(&format!("model.{other}")) {
                    return Err(wrong(format!(
                        "{other} differs from {one}, and config.json ties them; \
                         \"tie_word_embeddings\": false in config.json keeps both"
                    )));
                }
            }
        }
        if let Some(adapter) = &self.adapter {
            // The base's own, which the adapter replaces.
            let replaced = |name: &str| adapter.whole_shape(&[name.to_string()]).is_some();
            loaded.unused.retain(|name| !replaced(name));
        }
        let mut failure = None;
        let mut value = |path: &walk::ModulePath, _: &[usize]| {
            let name = &path.name();
            let called = called.candidates(name);
            let turned = !path.is_transposed();
            let adapter = self.adapter.as_ref();
            let data = match (chosen.get(name), adapter) {
                (Some(origin), Some(adapter)) => origin
                    .data(weights)
                    .and_then(|base| adapter.merge(&called, base, turned))
                    .map(Values::Floats),
                (Some(origin), None) => origin.values(weights),
                (None, Some(adapter)) if !loaded.drawn.iter().any(|drawn| drawn == name) => {
                    adapter.whole_values(&called)?.map(Values::Floats)
                }
                (None, _) => return None,
            };
            match data {
                Ok(data) => Some(data),
                Err(error) => {
                    failure.get_or_insert(error);
                    None
                }
            }
        };
        let module = if for_inference {
            walk::replace_for_inference(module, names, &mut value)
        } else {
            walk::replace(module, names, &mut |path, shape| {
                value(path, shape).map(Values::into_floats)
            })
        };
        match failure {
            Some(error) => Err(error),
            None => Ok((module, loaded)),
        }
    }
}

impl Bundle {
    /// Whether the adapter holds this parameter whole, in the model's shape.
    fn of_adapter(&self, wanted: &Parameter, called: &Called, load: Load) -> bool {
        let Parameter { name, shape } = wanted;
        if load == Load::Backbone && !called.names.is_backbone(name) {
            return false;
        }
        let adapter = self.adapter.as_ref();
        let held = adapter.and_then(|adapter| adapter.whole_shape(&called.candidates(name)));
        held == Some(shape.as_slice())
    }
}

/// Refuses an adapter of which a part would be lost, or would compute something else than in `peft`.
fn check_adapter(
    adapter: &SavedAdapter,
    all: &[Parameter],
    called: &Called,
    load: Load,
) -> Result<(), BundleError> {
    let names = called.names;
    let candidates = |one: &Parameter| called.candidates(&one.name);
    let known: HashSet<String> = all.iter().flat_map(candidates).collect();
    let bare = names.head.kind == HeadKind::Bare || load == Load::Backbone;
    // A head that is not asked for, and parts of the backbone that this one does without.
    let elsewhere = |name: &str| {
        let optional = |inside: &str| {
            names
                .family
                .optional
                .iter()
                .any(|part| inside.starts_with(part))
        };
        let outside = match name.strip_prefix(names.family.prefix) {
            Some(inside) => optional(inside),
            None => !name.contains(names.family.layer),
        };
        bare && outside && name != VIRTUAL_TOKENS
    };
    adapter.check_own(all.iter().map(candidates))?;
    adapter.check_layers(&|name| known.contains(name) || elsewhere(name))?;
    for Parameter { name, shape } in all {
        let taken = load != Load::Backbone || names.is_backbone(name);
        if taken && !name.contains(".lora_") {
            adapter.check_whole(&called.candidates(name), shape)?;
        }
    }
    // `peft` trains a copy, and the other end of the tie keeps the base's values.
    called
        .ties()
        .into_iter()
        .try_for_each(|ends| adapter.check_ties(ends))
}

/// What files call the parameters of one model.
struct Called {
    names: Names,
    /// Aliases that are not themselves parameters of the model, as both tables of an untied decoder are.
    aliases: Vec<[&'static str; 2]>,
}

impl Called {
    fn new(all: &[Parameter], names: Names) -> Self {
        let is_ours = |name: &str| all.iter().any(|one| one.name == name);
        let aliases = names.head.aliases.iter();
        let aliases = aliases.filter(|(ours, theirs)| is_ours(ours) && !is_ours(theirs));
        Self {
            names,
            aliases: aliases.map(|(ours, theirs)| [*ours, *theirs]).collect(),
        }
    }

    /// Pairs of names that are one parameter in the model, which has the first.
    fn ties(&self) -> Vec<[&'static str; 2]> {
        let names = self.names;
        let table = format!("{}{}", names.prefix(), names.family.token_table);
        // An untied decoder has its bias with it, whatever else the file holds.
        if self.aliases.iter().any(|[ours, _]| *ours == table) {
            return self.aliases.clone();
        }
        Vec::new()
    }

    /// Names that a file may have for a parameter, the likeliest first.
    fn candidates(&self, name: &str) -> Vec<String> {
        let names = self.names;
        let mut all = vec![name.to_string()];
        let aliases = self.aliases.iter().filter(|[ours, _]| *ours == name);
        all.extend(aliases.map(|[_, theirs]| theirs.to_string()));
        let prefix = names.family.prefix;
        if names.head.kind == HeadKind::Bare {
            all.push(format!("{prefix}{name}"));
            if !names.family.prefix_of_spans.is_empty() {
                all.push(format!("{}{name}", names.family.prefix_of_spans));
            }
            // Tied tables have the head's name where a file holds a tensor once.
            for (ours, theirs) in names.family.heads.iter().flat_map(|head| head.aliases) {
                if *ours == format!("{prefix}{name}") {
                    all.push(theirs.to_string());
                }
            }
        } else if let Some(bare) = name.strip_prefix(names.prefix()) {
            all.push(bare.to_string());
            let others = [prefix, names.family.prefix_of_spans];
            let others = others.iter().filter(|other| **other != names.prefix());
            all.extend(
                others
                    .filter(|other| !other.is_empty())
                    .map(|other| format!("{other}{bare}")),
            );
        }
        let wrapped: Vec<String> = all.iter().map(|name| format!("model.{name}")).collect();
        all.extend(wrapped);
        all
    }
}

/// A name without what another library put around the whole model.
fn without_wrapper(name: &str) -> &str {
    name.strip_prefix("model.").unwrap_or(name)
}

/// Which tensor of the file each parameter takes.
fn choose(
    wanted: &[Parameter],
    called: &Called,
    load: Load,
    weights: &Weights,
) -> Result<(HashMap<String, Origin>, Loaded), Mismatch> {
    let names = called.names;
    let mut chosen = HashMap::new();
    let mut loaded = Loaded::default();
    let mut mismatch = Mismatch::default();
    // Tensors that a parameter answers to, whether it takes their values or not.
    let mut placed = HashSet::new();
    for Parameter { name, shape } in wanted {
        let found = called
            .candidates(name)
            .into_iter()
            .find_map(|candidate| weights.get(&candidate));
        let foreign = || names.family.torchvision.and_then(|called| called(name));
        let foreign = found.is_none().then(foreign).flatten();
        let there = foreign.as_ref().and_then(|named| weights.get(&named.name));
        let found = found.or(there);
        placed.extend(found.map(|tensor| tensor.name));
        let backbone = names.is_backbone(name);
        let adapter = is_of_adapter(name);
        if (load == Load::Backbone && !backbone) || adapter {
            loaded.drawn.push(name.clone());
            continue;
        }
        let origin = |tensor| match foreign {
            Some(foreign) => Origin::of_foreign(weights, foreign, name, shape, names),
            None => Origin::of(tensor, name, shape, names),
        };
        match found {
            Some(tensor) => match origin(tensor) {
                Some(origin) => {
                    loaded.fitted.extend(origin.note(tensor.shape));
                    chosen.insert(name.clone(), origin);
                }
                None => {
                    let (found, wanted) = (tensor.shape.to_vec(), shape.clone());
                    mismatch.shapes.push((name.clone(), found, wanted));
                }
            },
            None if is_optional(name, names, load) => loaded.drawn.push(name.clone()),
            None => mismatch.missing.push(name.clone()),
        }
    }
    let spare = |name: &str| {
        let tied = names
            .head
            .aliases
            .iter()
            .any(|(_, other)| *other == without_wrapper(name));
        let ignored = names.family.ignored.iter().any(|end| name.ends_with(end));
        !tied && !ignored && !placed.contains(name)
    };
    let unused = weights
        .iter()
        .map(|tensor| tensor.name)
        .filter(|name| spare(name));
    loaded.unused = unused.map(str::to_string).collect();
    // A head of which a part is there is broken, not missing.
    if mismatch.missing.is_empty() && mismatch.shapes.is_empty() && !chosen.is_empty() {
        return Ok((chosen, loaded));
    }
    mismatch.unexpected = std::mem::take(&mut loaded.unused);
    mismatch.kind = weights::likely_kind(weights);
    Err(mismatch)
}

fn is_optional(name: &str, names: Names, load: Load) -> bool {
    let bare = name.strip_prefix(names.prefix()).unwrap_or(name);
    let optional = names
        .family
        .optional
        .iter()
        .any(|part| bare.starts_with(part));
    match load {
        Load::Whole => name == FINAL_BIAS,
        Load::Backbone => optional,
        Load::BackboneAndPerhapsHead => optional || !names.is_backbone(name),
    }
}

fn read(path: &Path, files: &Files, name: &str) -> Result<Vec<u8>, BundleError> {
    match files {
        Files::Directory => {
            let at = path.join(name);
            fs::read(&at).map_err(|source| BundleError::Io { path: at, source })
        }
        Files::Weights => Err(BundleError::NotABundle {
            path: path.into(),
            reason: format!("it is a file of weights, without a {name}"),
        }),
        Files::Embedded(files) => match files.iter().find(|(have, _)| *have == name) {
            Some((_, bytes)) => Ok(bytes.to_vec()),
            None => Err(BundleError::NotABundle {
                path: path.into(),
                reason: format!("{name} is missing"),
            }),
        },
    }
}

/// Writes a bundle. The directory appears whole or not at all; an older one is replaced.
///
/// `files` are written beside `config.json` and the weights, such as [`TOKENIZER`].
///
/// # Errors
///
/// A directory that cannot be written.
pub fn write<B: Backend, M: Module<B>>(
    path: &Path,
    config: &Value,
    module: &M,
    names: Names,
    precision: Precision,
    files: &[(&str, &[u8])],
) -> Result<(), BundleError> {
    let weights = serialise(module, names, precision).map_err(|reason| BundleError::Weights {
        path: path.join(WEIGHTS),
        reason,
    })?;
    let config = format!("{config:#}\n");
    let own = [(CONFIG, config.as_bytes()), (WEIGHTS, &weights)];
    let all: Vec<(&str, &[u8])> = own.into_iter().chain(files.iter().copied()).collect();
    write_directory(path, &all)
}

/// Writes files into a directory that appears whole or not at all; an older one is replaced.
///
/// # Errors
///
/// A directory that cannot be written.
pub fn write_directory(path: &Path, files: &[(&str, &[u8])]) -> Result<(), BundleError> {
    // A link stays one.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    // Hidden, and named after the whole name: `gloss.new` may be another model of the user's.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.new"));
    let old = path.with_file_name(format!(".{name}.old"));
    let io = |at: &Path| {
        let path = at.to_path_buf();
        move |source| BundleError::Io { path, source }
    };
    let remove = |at: &Path| {
        if at.exists() {
            return fs::remove_dir_all(at).map_err(io(at));
        }
        Ok(())
    };
    // A process that ended between the two renames below left its model there.
    if !path.exists() && old.exists() {
        fs::rename(&old, path).map_err(io(path))?;
    }
    remove(&fresh)?;
    let write = || {
        fs::create_dir_all(&fresh).map_err(io(path))?;
        for (name, bytes) in files {
            let (at, named) = (fresh.join(name), path.join(name));
            if let Some(folder) = at.parent() {
                fs::create_dir_all(folder).map_err(io(&named))?;
            }
            let mut file = fs::File::create(&at).map_err(io(&named))?;
            file.write_all(bytes).map_err(io(&named))?;
            file.sync_all().map_err(io(&named))?;
        }
        Ok(())
    };
    write().inspect_err(|_| {
        // The error worth a sentence is the first.
        let _ = fs::remove_dir_all(&fresh);
    })?;
    remove(&old)?;
    if path.exists() {
        fs::rename(path, &old).map_err(io(path))?;
    }
    fs::rename(&fresh, path).map_err(|source| {
        // As it was; the error worth a sentence is the first.
        let _ = fs::rename(&old, path);
        io(path)(source)
    })?;
    remove(&old)
}

/// A module's weights in the safetensors format.
///
/// # Errors
///
/// Values that cannot be read from the device.
pub fn serialise<B: Backend, M: Module<B>>(
    module: &M,
    names: Names,
    precision: Precision,
) -> Result<Vec<u8>, String> {
    serialise_with(module, names, precision, Vec::new())
}

/// The same with further tensors, which the module has no place for.
///
/// # Errors
///
/// Values that cannot be read from the device, or two tensors of one name.
pub fn serialise_with<B: Backend, M: Module<B>>(
    module: &M,
    names: Names,
    precision: Precision,
    further: Vec<(String, TensorData)>,
) -> Result<Vec<u8>, String> {
    let further = further.into_iter();
    let further = further.map(|(name, data)| stored(name, data, precision));
    let mut tensors: Vec<_> = further.collect();
    walk::values(module, names, &mut |path, data| {
        tensors.push(stored(path.name(), data, precision));
    });
    safetensors_of(&tensors, precision)
}

/// A matrix that was rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// Hugging Face name.
    pub name: String,
    /// See [`EightBits::relative_error`].
    pub error: f64,
}

/// The same with the matrices of linear layers and the table of tokens in 8 bits and all else in 32; and what was rounded.
///
/// # Errors
///
/// As [`serialise_with`].
pub fn serialise_in_8_bits<B: Backend, M: Module<B>>(
    module: &M,
    names: Names,
    further: Vec<(String, TensorData)>,
) -> Result<(Vec<u8>, Vec<Rounded>), String> {
    let float = |name, data| (stored(name, data, Precision::F32), Dtype::F32);
    let further = further.into_iter();
    let mut tensors: Vec<_> = further.map(|(name, data)| float(name, data)).collect();
    let mut all = Vec::new();
    walk::values(module, names, &mut |path, data| {
        let name = path.name();
        let data = data.convert_dtype(DType::F32);
        let matrix = path
            .is_only_multiplied()
            .then(|| EightBits::round(&data, path.is_conv1d()))
            .flatten();
        let Some(matrix) = matrix else {
            tensors.push(float(name, data));
            return;
        };
        let (values, scales, of_scales) = matrix.parts();
        let values = values.iter().map(|value| value.cast_unsigned()).collect();
        let scales = TensorData::new(scales.to_vec(), of_scales);
        tensors.push(float(format!("{name}{SCALE}"), scales));
        tensors.push(((name.clone(), data.shape.to_vec(), values), Dtype::I8));
        let error = matrix.relative_error(&data);
        all.push(Rounded { name, error });
    });
    let tensors = tensors.iter().map(|(tensor, dtype)| (tensor, *dtype));
    Ok((safetensors_of_types(tensors)?, all))
}

/// A tensor as [`safetensors_of`] takes it.
fn stored(name: String, data: TensorData, precision: Precision) -> Stored {
    let data = data.convert_dtype(match precision {
        Precision::F32 => DType::F32,
        Precision::F16 => DType::F16,
        Precision::Bf16 => DType::BF16,
    });
    (name, data.shape.to_vec(), data.as_bytes().to_vec())
}

/// Name, shape and little-endian values of a tensor.
type Stored = (String, Vec<usize>, Vec<u8>);

/// Tensors of one element type in the safetensors format.
pub(crate) fn safetensors_of(tensors: &[Stored], precision: Precision) -> Result<Vec<u8>, String> {
    let stored = match precision {
        Precision::F32 => Dtype::F32,
        Precision::F16 => Dtype::F16,
        Precision::Bf16 => Dtype::BF16,
    };
    safetensors_of_types(tensors.iter().map(|tensor| (tensor, stored)))
}

fn safetensors_of_types<'a>(
    tensors: impl Iterator<Item = (&'a Stored, Dtype)>,
) -> Result<Vec<u8>, String> {
    let mut views = Vec::new();
    for ((name, shape, bytes), dtype) in tensors {
        let view = TensorView::new(dtype, shape.clone(), bytes);
        views.push((name, view.map_err(|e| format!("{name}: {e}"))?));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| e.to_string())
}

/// The parameters of a module as safetensors, by torchvision's names and in its shapes.
///
/// # Errors
///
/// A model that torchvision does not have.
pub fn serialise_for_torchvision<B: Backend, M: Module<B>>(
    module: &M,
    names: Names,
    precision: Precision,
) -> Result<Vec<u8>, String> {
    let of_family = names.family.torchvision;
    let mut whole: BTreeMap<String, Vec<(usize, TensorData)>> = BTreeMap::new();
    let mut unknown = None;
    walk::values(module, names, &mut |path, mut data| {
        let name = path.name();
        let Some(foreign) = of_family.and_then(|called| called(&name)) else {
            unknown.get_or_insert(name);
            return;
        };
        let ones = std::iter::repeat_n(1, foreign.axes);
        data.shape = data
            .shape
            .iter()
            .copied()
            .chain(ones)
            .collect::<Vec<_>>()
            .into();
        let part = foreign.part.map_or(0, |[part, _]| part);
        whole.entry(foreign.name).or_default().push((part, data));
    });
    if let Some(name) = unknown {
        let family = names.family.model_type;
        return Err(format!("torchvision has no {name} of a {family}"));
    }
    let join = |(name, mut parts): (String, Vec<(usize, TensorData)>)| {
        parts.sort_by_key(|(part, _)| *part);
        let mut shape = parts[0].1.shape.to_vec();
        if let Some(first) = shape.first_mut() {
            *first *= parts.len();
        }
        let values = parts.iter().flat_map(|(_, data)| data.iter::<f32>());
        let data = TensorData::new(values.collect::<Vec<_>>(), shape);
        stored(name, data, precision)
    };
    let tensors: Vec<_> = whole.into_iter().map(join).collect();
    safetensors_of(&tensors, precision)
}

/// Weights of a training's checkpoint in the safetensors format: names with the wrappers of the training, f32.
///
/// # Errors
///
/// Values that cannot be read from the device.
pub fn serialise_checkpoint<B: Backend, M: Module<B>>(
    module: &M,
    names: Names,
) -> Result<Vec<u8>, String> {
    let mut tensors = Vec::new();
    walk::values(module, names, &mut |path, data| {
        tensors.push(stored(path.name_with_wrappers(), data, Precision::F32));
    });
    safetensors_of(&tensors, Precision::F32)
}

/// Puts the weights of a checkpoint into a module of the kind that wrote them.
///
/// # Errors
///
/// A tensor that is missing or of another shape.
pub fn apply_checkpoint<B: Backend, M: Module<B>>(
    module: M,
    names: Names,
    bytes: &[u8],
) -> Result<M, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not safetensors: {e}"))?;
    let mut wrong = None;
    let take = |path: &walk::ModulePath, shape: &[usize]| -> Result<TensorData, String> {
        let name = path.name_with_wrappers();
        let view = file.tensor(&name).map_err(|_| format!("lacks {name}"))?;
        if view.dtype() != Dtype::F32 {
            return Err(format!("{name} holds {:?}, not F32", view.dtype()));
        }
        if view.shape() != shape {
            let found = view.shape();
            return Err(format!(
                "{name} has shape {found:?}; the model's is {shape:?}"
            ));
        }
        let (bytes, shape) = (view.data().to_vec(), view.shape().to_vec());
        Ok(TensorData::from_bytes_vec(bytes, shape, DType::F32))
    };
    let module = walk::replace(module, names, &mut |path, shape| {
        let taken = take(path, shape);
        taken
            .map_err(|reason| wrong.get_or_insert(reason).clone())
            .ok()
    });
    match wrong {
        Some(reason) => Err(reason),
        None => Ok(module),
    }
}
