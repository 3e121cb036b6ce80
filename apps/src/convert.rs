//! Rewrites a model. In: any directory that opens, an adapter among them. Out: a bundle with `model.safetensors`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::{Args, ValueEnum};
use model::bundle::{self, Bundle, Load, peft};
use model::{
    Autoencoder, Draw, HeadKind, ImageClassifier, Names, Precision, ReplacedTokenModel,
    SentencePairModel, TextClassifier, TokenModel, walk,
};
use serde_json::{Map, Value, json};
use train::backend::with_backend;
use train::job::image::ImageModel;
use train::run::check_writable;
use train::{Failure, WithBackend};

use crate::open::{self, BackendFlag};

/// Rewrite a model: shards and pickles to one file, an adapter merged into its base model
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "apps convert [OPTIONS] MODEL OUTPUT",
    after_help = "Example: apps convert --merge runs/lora/model/adapter merged"
)]
pub struct Flags {
    /// What is rewritten, and the new bundle, which must not exist yet; the latter alone where --model names the former
    #[arg(value_name = "DIR", num_args = 1..=2, required = true)]
    pub places: Vec<String>,
    /// A bundle, a Hugging Face directory, an adapter, a run, or the bundled wordnet-bert-nano
    #[arg(long, value_name = "DIR")]
    pub model: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub backend: BackendFlag,
    /// The model is an adapter, which becomes part of the weights
    #[arg(long)]
    pub merge: bool,
    /// Element type of the weights
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Bits,
    /// Write one file with the names and shapes of torchvision's weights in place of a bundle
    #[arg(long)]
    pub torchvision: bool,
    /// Says what a file of weights is of: model.family=resnet50
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Replace the directory if it exists
    #[arg(long)]
    pub force: bool,
}

/// Element type of written weights.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Bits {
    /// 32 bit.
    F32,
    /// 16 bit.
    F16,
}

impl Flags {
    /// The model, and the directory that is written.
    fn input_and_output(&self) -> Result<(&str, PathBuf), Failure> {
        let (model, output) = match (&self.model, self.places.as_slice()) {
            (Some(model), [output]) | (None, [model, output]) => (model, output),
            (Some(model), _) => {
                return Err(Failure::input(format!(
                    "--model names {model}, so one directory more is expected: the new bundle"
                )));
            }
            (None, _) => {
                return Err(Failure::input(
                    "two directories are expected: the model, and the new bundle",
                ));
            }
        };
        Ok((model, output.into()))
    }
}

/// Rewrites what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model that cannot be used, a directory that exists or cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let (model, output) = flags.input_and_output()?;
    let backend = flags.backend.choose()?;
    let from = open::bundle_or_file(model, &flags.set)?;
    if flags.torchvision {
        open::check_output(&output, &[from.path()])?;
    } else {
        check_output(&output, flags.force)?;
        check_apart(&output, from.path())?;
    }
    if flags.merge && !from.has_adapter() {
        let inside = from.path().join(peft::FOLDER);
        let hint = if inside.is_dir() {
            format!("; {} is one", inside.display())
        } else {
            String::new()
        };
        return Err(Failure::input(format!(
            "{model}: is no adapter, so there is nothing to merge{hint}"
        )));
    }
    if let Some(beside) = from.beside() {
        return Err(Failure::input(format!(
            "{model}: holds {}, which cannot be merged into a model's weights",
            beside.describe()
        )));
    }
    let written = format!("wrote {}\n", output.display());
    let precision = flags.precision;
    with_backend(
        backend,
        Work {
            from,
            output,
            precision,
            torchvision: flags.torchvision,
        },
    )??;
    Ok(written)
}

/// Refuses a place that cannot become a bundle, or where something that is no model would be lost.
fn check_output(output: &Path, force: bool) -> Result<(), Failure> {
    let wrong = |reason: &str| Err(Failure::input(format!("{}: {reason}", output.display())));
    if output.file_name().is_none() {
        return wrong("is no name for a directory");
    }
    open::folder_of(output)?;
    if output.is_file() {
        return wrong("is a file; the new bundle is a directory");
    }
    if let Err(error) = check_writable(output) {
        return wrong(&format!("cannot be written: {error}"));
    }
    if !output.exists() {
        return Ok(());
    }
    if !force {
        return wrong("exists; --force replaces it");
    }
    if !output.join(bundle::CONFIG).is_file() {
        return wrong("holds no model; --force replaces models only");
    }
    let entries = output.read_dir().map_err(Failure::running)?;
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    match names.find(|name| !is_part_of_a_model(&name.to_string_lossy())) {
        Some(name) => wrong(&format!(
            "holds {}, which is no part of a model; --force replaces models only",
            name.display()
        )),
        None => Ok(()),
    }
}

/// Whether a file with this name is one that a model consists of.
fn is_part_of_a_model(name: &str) -> bool {
    let weights = [".safetensors", ".safetensors.index.json"];
    name == bundle::CONFIG
        || name.starts_with("pytorch_model")
        || weights.iter().any(|end| name.ends_with(end))
        || BESIDE.contains(&name)
}

/// Refuses to replace a directory that holds what is read.
fn check_apart(output: &Path, input: &Path) -> Result<(), Failure> {
    match (output.canonicalize(), input.canonicalize()) {
        (Ok(output), Ok(input)) if input != output && input.starts_with(&output) => {
            let reason = format!("{}: holds {}", output.display(), input.display());
            Err(Failure::input(reason))
        }
        _ => Ok(()),
    }
}

/// Prepared work, waiting for its backend.
struct Work {
    from: Bundle,
    output: PathBuf,
    precision: Bits,
    torchvision: bool,
}

/// From here up, values round to infinity in 16 bits.
const HALF_OVERFLOWS: f32 = 65520.0;

/// Files beside configuration and weights that go with a model.
const BESIDE: [&str; 9] = [
    bundle::TOKENIZER,
    bundle::TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    bundle::PREPROCESSOR,
];

impl WithBackend for Work {
    type Output = Result<(), Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        self.rewrite::<B::InnerBackend>(&device)
    }
}

impl Work {
    /// Draws a model of the right kind, to be filled and written.
    fn rewrite<B: Backend>(&self, device: &B::Device) -> Result<(), Failure> {
        let (from, draw) = (&self.from, &Draw::<B>::new(device, 0.02));
        let head = open::head(from);
        if from.is_text() {
            let sizes = open::text_model(from)?;
            let names = sizes.names(head);
            return match head {
                HeadKind::Classes => {
                    let classes = from.classes()?.len();
                    self.write(TextClassifier::draw(&sizes, classes, draw), names)
                }
                HeadKind::Tokens => self.write(TokenModel::draw(&sizes, draw), names),
                HeadKind::SentencePairs => self.write(SentencePairModel::draw(&sizes, draw), names),
                HeadKind::Replaced => self.write(ReplacedTokenModel::draw(&sizes, draw), names),
                _ => self.write(sizes.init::<B>(head, draw), names),
            };
        }
        let ImageModel {
            config: sizes,
            input,
        } = open::image_model(from)?;
        let names = sizes.names(head);
        match head {
            HeadKind::Classes => {
                let classes = from.classes()?.len();
                self.write(ImageClassifier::draw(&sizes, classes, draw), names)
            }
            HeadKind::Pixels => self.write(Autoencoder::draw(&sizes, input.shape, draw), names),
            _ => self.write(sizes.init::<B>(draw), names),
        }
    }

    /// Fills a drawn model with the weights, and writes it.
    fn write<B: Backend, M: Module<B>>(&self, drawn: M, names: Names) -> Result<(), Failure> {
        let (model, loaded) = self.from.load(drawn, names, Load::Whole)?;
        warn_of_unused(&loaded.unused);
        let precision = match self.precision {
            Bits::F32 => Precision::F32,
            Bits::F16 => {
                let place = self.from.path().display();
                let wrong = |reason| Failure::input(format!("{place}: {reason}"));
                check_half(&model, names).map_err(wrong)?;
                Precision::F16
            }
        };
        if self.torchvision {
            let place = self.from.path().display();
            let wrong = |reason| Failure::input(format!("{place}: {reason}"));
            let bytes = bundle::serialise_for_torchvision(&model, names, precision);
            return open::write_output(&self.output, &bytes.map_err(wrong)?);
        }
        let mut config = self.from.raw_config().clone();
        name_precision(&mut config, self.precision);
        if let Some(config) = config.as_object_mut() {
            config.insert("architectures".into(), Value::from(vec![names.head.class]));
            if names.head.kind == HeadKind::Classes {
                name_classes(config, &self.from.classes()?);
            }
        }
        let mut beside = Vec::new();
        for name in BESIDE {
            beside.extend(self.from.read_optional(name)?.map(|bytes| (name, bytes)));
        }
        let files = beside.iter().map(|(name, bytes)| (*name, &bytes[..]));
        let files: Vec<(&str, &[u8])> = files.collect();
        bundle::write(&self.output, &config, &model, names, precision, &files)?;
        Ok(())
    }
}

/// `transformers` takes the number of classes from their names; without names there are two.
fn name_classes(config: &mut Map<String, Value>, classes: &[String]) {
    let ids: BTreeMap<_, _> = classes.iter().enumerate().collect();
    let names: BTreeMap<_, _> = classes.iter().zip(0..).collect();
    config.remove("num_labels");
    config.insert("id2label".into(), json!(ids));
    config.insert("label2id".into(), json!(names));
}

/// `transformers` loads weights as the type that the configuration names.
fn name_precision(config: &mut Value, precision: Bits) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    let name = match precision {
        Bits::F32 => "float32",
        Bits::F16 => "float16",
    };
    let key = if config.contains_key("torch_dtype") {
        "torch_dtype"
    } else {
        "dtype"
    };
    config.insert(key.into(), name.into());
}

/// Another head, or parts that no family here has: they are not in the new bundle.
fn warn_of_unused(unused: &[String]) {
    let Some(first) = unused.first() else {
        return;
    };
    let more = match unused.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    eprintln!("warning: left out {first}{more}, which this model has no place for");
}

/// Refuses values that would become infinite.
fn check_half<B: Backend, M: Module<B>>(model: &M, names: Names) -> Result<(), String> {
    let mut beyond = None;
    walk::values(model, names, &mut |path, data| {
        let mut values = data.iter::<f32>();
        if let Some(value) = values.find(|value| value.abs() >= HALF_OVERFLOWS) {
            beyond.get_or_insert_with(|| (path.name(), value));
        }
    });
    match beyond {
        Some((name, value)) => Err(format!(
            "{name} holds {value}, which is beyond what f16 can hold; --precision f32 keeps it"
        )),
        None => Ok(()),
    }
}
