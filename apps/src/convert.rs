//! Rewrites a model. In: any directory that opens, an adapter among them. Out: a bundle with `model.safetensors`.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::{Args, ValueEnum};
use model::bundle::{self, Bundle, Load};
use model::{
    Autoencoder, Draw, HeadKind, ImageClassifier, Names, Precision, TextClassifier, TokenModel,
    walk,
};
use serde_json::Value;
use train::backend::with_backend;
use train::{BackendName, Failure, WithBackend};

use crate::open::{self, ModelFlags};

/// Rewrite a model: shards and pickles to one file, an adapter merged into its base model
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example: apps convert --model runs/lora/model/adapter --merge merged")]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// The new bundle; it must not exist yet
    #[arg(value_name = "DIR")]
    pub output: PathBuf,
    /// The model is an adapter, which becomes part of the weights
    #[arg(long)]
    pub merge: bool,
    /// Element type of the weights
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Bits,
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

/// Rewrites what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model that cannot be used, a directory that exists or cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend: BackendName = flags.model.backend()?;
    check_output(&flags.output, flags.force)?;
    let bundle = flags.model.bundle()?;
    if flags.merge && !bundle.has_adapter() {
        return Err(Failure::input(format!(
            "{}: is no adapter, so there is nothing to merge",
            flags.model.model
        )));
    }
    with_backend(backend, Work { bundle, flags })??;
    Ok(format!("wrote {}\n", flags.output.display()))
}

/// Refuses a place that cannot become a bundle, or that holds what is no model.
fn check_output(output: &Path, force: bool) -> Result<(), Failure> {
    let wrong = |reason: &str| Err(Failure::input(format!("{}: {reason}", output.display())));
    let folder = output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if output.file_name().is_none() {
        return wrong("is no name for a directory");
    }
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return wrong("its directory does not exist");
    }
    if output.is_file() {
        return wrong("is a file; the new bundle is a directory");
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
    Ok(())
}

/// Prepared work, waiting for its backend.
struct Work<'a> {
    bundle: Bundle,
    flags: &'a Flags,
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

impl WithBackend for Work<'_> {
    type Output = Result<(), Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        rewrite::<B::InnerBackend>(&self.bundle, self.flags, &device)
    }
}

fn rewrite<B: Backend>(from: &Bundle, flags: &Flags, device: &B::Device) -> Result<(), Failure> {
    let precision = match flags.precision {
        Bits::F32 => Precision::F32,
        Bits::F16 => Precision::F16,
    };
    let beside = BESIDE
        .iter()
        .filter_map(|name| Some((*name, from.read_optional(name)?)));
    let beside: Vec<(&str, Vec<u8>)> = beside.collect();
    let files: Vec<(&str, &[u8])> = beside
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .collect();
    let draw = &Draw::<B>::new(device, 0.02);
    let mut config = from.raw_config().clone();
    name_precision(&mut config, flags.precision);
    let head = open::head(from);
    let classes = match head {
        HeadKind::Classes => from.classes()?.len(),
        _ => 0,
    };
    macro_rules! write {
        ($names:expr, $model:expr) => {{
            let names = $names;
            let (model, loaded) = from.load($model, names, Load::Whole)?;
            warn_of_unused(&loaded.unused);
            if precision == Precision::F16 {
                check_half(&model, names).map_err(|reason| {
                    Failure::input(format!("{}: {reason}", from.path().display()))
                })?;
            }
            if let Some(config) = config.as_object_mut() {
                config.insert("architectures".into(), Value::from(vec![names.head.class]));
            }
            bundle::write(&flags.output, &config, &model, names, precision, &files)?;
        }};
    }
    if from.is_text() {
        let sizes = open::text_model(from)?;
        let names = sizes.names(head);
        match head {
            HeadKind::Classes => write!(names, TextClassifier::draw(&sizes, classes, draw)),
            HeadKind::Tokens => write!(names, TokenModel::draw(&sizes, draw)),
            _ => write!(names, sizes.init::<B>(head, draw)),
        }
    } else {
        let sizes = open::image_model(from)?;
        let names = sizes.names(head);
        match head {
            HeadKind::Classes => write!(names, ImageClassifier::draw(&sizes, classes, draw)),
            HeadKind::Pixels => write!(names, Autoencoder::draw(&sizes, draw)),
            _ => write!(names, sizes.init::<B>(draw)),
        }
    }
    Ok(())
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
