//! Rewrites a model. In: any directory that opens, an adapter among them. Out: a bundle with `model.safetensors`.

use std::path::PathBuf;

use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::{Args, ValueEnum};
use model::bundle::{self, Bundle, Load};
use model::{Autoencoder, Draw, HeadKind, ImageClassifier, Precision, TextClassifier, TokenModel};
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
    let output = flags.output.display();
    if flags.output.exists() && !flags.force {
        return Err(Failure::input(format!(
            "{output}: exists; --force replaces it"
        )));
    }
    let bundle = flags.model.bundle()?;
    if flags.merge && !bundle.has_adapter() {
        return Err(Failure::input(format!(
            "{}: is no adapter, so there is nothing to merge",
            flags.model.model
        )));
    }
    with_backend(backend, Work { bundle, flags })??;
    Ok(format!("wrote {output}\n"))
}

/// Prepared work, waiting for its backend.
struct Work<'a> {
    bundle: Bundle,
    flags: &'a Flags,
}

/// Files beside configuration and weights that go with a model.
const BESIDE: [&str; 8] = [
    bundle::TOKENIZER,
    bundle::TOKENIZER_CONFIG,
    "special_tokens_map.json",
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
    let kinds = [HeadKind::Classes, HeadKind::Tokens, HeadKind::Pixels];
    let head = kinds.into_iter().find(|kind| from.require(*kind).is_ok());
    let head = head.unwrap_or(HeadKind::Bare);
    let classes = match head {
        HeadKind::Classes => from.classes()?.len(),
        _ => 0,
    };
    macro_rules! write {
        ($names:expr, $model:expr) => {{
            let names = $names;
            let (model, _) = from.load($model, names, Load::Whole)?;
            if let Some(config) = config.as_object_mut() {
                config.insert("architectures".into(), Value::from(vec![names.head.class]));
            }
            bundle::write(&flags.output, &config, &model, names, precision, &files)?;
        }};
    }
    if from.is_text() {
        let sizes = open::text_parts(from)
            .map(|parts| parts.config)
            .or_else(|_| from.text_config())?;
        let names = sizes.names(head);
        match head {
            HeadKind::Classes => write!(names, TextClassifier::draw(&sizes, classes, draw)),
            HeadKind::Tokens => write!(names, TokenModel::draw(&sizes, draw)),
            _ => write!(names, sizes.init::<B>(head, draw)),
        }
    } else {
        let sizes = from.image_config()?;
        let names = sizes.names(head);
        match head {
            HeadKind::Classes => write!(names, ImageClassifier::draw(&sizes, classes, draw)),
            HeadKind::Pixels => write!(names, Autoencoder::draw(&sizes, draw)),
            _ => write!(names, sizes.init::<B>(draw)),
        }
    }
    Ok(())
}
