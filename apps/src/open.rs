//! What `--model`, `--backend` and `--output` name: opened and checked before any work is done.

use std::path::Path;

use anyhow::Context;
use burn::module::Module;
use burn::prelude::Backend;
use clap::Args;
use data::TextTokenizer;
use model::bundle::{Load, Loaded};
use model::{
    Bundle, BundleError, HeadKind, ImageConfig, Names, Seq2SeqConfig, TextConfig, TokenModel,
};
use train::job::image::ImageModel;
use train::job::start;
use train::job::text::bundle_tokenizer;
use train::run::{Held, check_memory, check_writable, write_atomically};
use train::{BackendName, Failure};

use crate::task::Settings;

/// What a command runs on.
#[derive(Args, Clone, Debug)]
pub struct BackendFlag {
    /// cuda, metal, vulkan, wgpu, flex or ndarray [default: the best one compiled in]
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
}

impl BackendFlag {
    /// The backend.
    ///
    /// # Errors
    ///
    /// One that is unknown, or not compiled in.
    pub fn choose(&self) -> Result<BackendName, Failure> {
        BackendName::choose(self.backend.as_deref())
    }
}

/// Flags of most commands.
#[derive(Args, Clone, Debug)]
pub struct ModelFlags {
    /// A bundle, a Hugging Face directory, an adapter, a run, a file of torchvision's weights, or the bundled
    /// wordnet-bert-nano
    #[arg(long, visible_alias = "from", value_name = "DIR")]
    pub model: String,
    /// Says what a file of weights is of: model.family=resnet50
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub backend: BackendFlag,
}

impl ModelFlags {
    /// The bundle, its weights not yet read.
    pub fn bundle(&self) -> Result<Bundle, Failure> {
        bundle_or_file(&self.model, &self.set)
    }
}

/// The model and its inputs, of commands that take both without flags too: `apps predict MODEL INPUT`.
#[derive(Args, Clone, Debug)]
pub struct NamedModel {
    /// The model, where --model does not name it, and what it reads
    #[arg(value_name = "MODEL INPUT")]
    pub named: Vec<String>,
    /// A bundle, a Hugging Face directory, an adapter, a run, a file of torchvision's weights, or the bundled
    /// wordnet-bert-nano
    #[arg(long, visible_alias = "from", value_name = "DIR")]
    pub model: Option<String>,
    /// Says what a file of weights is of (model.family=resnet50), or how labelled rows are read (data.text=review)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub backend: BackendFlag,
}

impl NamedModel {
    /// The bundle, its weights not yet read, and the inputs that are named beside it.
    ///
    /// # Errors
    ///
    /// No model, or one that cannot be opened.
    pub fn open(&self) -> Result<(Bundle, &[String]), Failure> {
        let (model, inputs) = match (&self.model, self.named.as_slice()) {
            (Some(model), inputs) => (model, inputs),
            (None, [model, inputs @ ..]) => (model, inputs),
            (None, []) => {
                let reason =
                    "no model is named; --model, or the first argument, names a bundle or a run";
                return Err(Failure::input(reason));
            }
        };
        let settings = self.set.iter().filter(|set| !Settings::is_own(set));
        let settings: Vec<String> = settings.cloned().collect();
        Ok((bundle_or_file(model, &settings)?, inputs))
    }

    /// What the run of the bundle and `--set` say of labelled rows.
    ///
    /// # Errors
    ///
    /// A recipe that cannot be read, or a key that is not known.
    pub fn settings(&self, bundle: &Bundle) -> Result<Settings, Failure> {
        let mut settings = Settings::of_run(bundle)?;
        for set in self.set.iter().filter(|set| Settings::is_own(set)) {
            settings.set(set)?;
        }
        Ok(settings)
    }
}

/// The bundle that `--model` names, or a file of weights of the family that `--set` names.
///
/// # Errors
///
/// A path that is neither, a family that is not known, or one that is named where the bundle itself says it.
pub fn bundle_or_file(model: &str, settings: &[String]) -> Result<Bundle, Failure> {
    if Path::new(model).is_file() {
        return start::open_file(model, settings);
    }
    if let Some(set) = settings.first() {
        return Err(Failure::input(format!(
            "--set {set}: {model} is no file of weights, so it says itself what its model is"
        )));
    }
    bundle(model)
}

/// The bundle that `--model` names, its weights not yet read.
pub fn bundle(model: &str) -> Result<Bundle, Failure> {
    start::open(model)?.ok_or_else(|| {
        Failure::input("--model is \"scratch\"; it must name a bundle or a run directory")
    })
}

/// What a text model needs before its weights: sizes, tokenizer, and how long its texts may be.
#[derive(Clone, Debug)]
pub struct TextParts {
    /// Nothing is dropped in it.
    pub config: TextConfig,
    /// The bundle's.
    pub tokenizer: TextTokenizer,
    /// Tokens of the longest text: as in training, where the bundle says so.
    pub max_length: usize,
}

/// Sizes of a text model, checked; nothing is dropped in it.
///
/// # Errors
///
/// A bundle of another kind, or a model that this machine cannot hold.
pub fn text_model(bundle: &Bundle) -> Result<TextConfig, Failure> {
    let config = bundle.text_config();
    let mut config = config.map_err(|error| with_command(bundle, error))?;
    fits(bundle, config.describe().parameters)?;
    config.set_dropout(0.0);
    Ok(config)
}

/// The same of an encoder-decoder.
///
/// # Errors
///
/// A bundle of another kind, or a model that this machine cannot hold.
pub fn seq2seq_model(bundle: &Bundle) -> Result<Seq2SeqConfig, Failure> {
    let config = bundle.seq2seq_config();
    let mut config = config.map_err(|error| with_command(bundle, error))?;
    fits(bundle, config.describe().parameters)?;
    config.set_dropout(0.0);
    Ok(config)
}

/// The allocator would end the process without a word.
pub(crate) fn fits(bundle: &Bundle, parameters: f64) -> Result<(), Failure> {
    let wrong = |reason| Failure::input(format!("{}: {reason}", bundle.path().display()));
    check_memory(parameters, Held::Value).map_err(wrong)
}

/// Names of the model that a bundle holds, with its head.
pub fn names(bundle: &Bundle) -> Names {
    Names::new(bundle.family(), bundle.head())
}

/// Names with a head; a bundle without it is refused, and the command for it is named.
///
/// # Errors
///
/// A family that has no such head, or weights without it.
pub fn require(bundle: &Bundle, head: HeadKind) -> Result<Names, Failure> {
    let names = bundle.require(head);
    names.map_err(|error| with_command(bundle, error))
}

/// Says which command a model of another kind is for.
fn with_command(bundle: &Bundle, error: BundleError) -> Failure {
    let head = bundle.head();
    match &error {
        // Of weights without the head that they are said to have, nothing more is known.
        BundleError::WrongKind { .. } if bundle.require(head).is_ok() => {
            Failure::input(format!("{error}; {}", command(bundle, head)))
        }
        BundleError::WrongKind { .. }
        | BundleError::NotABundle { .. }
        | BundleError::Config { .. }
        | BundleError::Weights { .. }
        | BundleError::Io { .. } => error.into(),
    }
}

/// What is done with a model of this kind, for messages.
pub fn command(bundle: &Bundle, head: HeadKind) -> String {
    let name = match head {
        HeadKind::Bare if bundle.text_config().is_ok() || !bundle.is_text() => "embed",
        HeadKind::Tokens if bundle.family().is_of_two_texts() => "predict",
        HeadKind::Tokens => match bundle.text_config() {
            Ok(config) if config.describe().causal => "generate",
            Ok(_) | Err(_) => "fill-mask",
        },
        HeadKind::SentencePairs => "fill-mask",
        HeadKind::Classes
        | HeadKind::TokenClasses
        | HeadKind::Spans
        | HeadKind::Choices
        | HeadKind::Masks
        | HeadKind::Boxes => "predict",
        HeadKind::Pixels | HeadKind::Variational | HeadKind::Codes | HeadKind::Patches => {
            "reconstruct"
        }
        HeadKind::Bare | HeadKind::Replaced => {
            return "apps dump writes what it computes".into();
        }
    };
    format!("apps {name} is for it")
}

/// Sizes and tokenizer of a text model.
///
/// # Errors
///
/// A bundle of another kind, or one whose tokenizer has more tokens than its model.
pub fn text_parts(bundle: &Bundle) -> Result<TextParts, Failure> {
    let config = text_model(bundle)?;
    let tokenizer = bundle_tokenizer(bundle)?;
    let sizes = config.describe();
    let tokens = tokenizer.largest_id() as usize + 1;
    // The model panics on an id that its table does not have.
    if tokens > sizes.vocab_size {
        return Err(Failure::input(format!(
            "{}: the tokenizer has {tokens} tokens, and the model's vocab_size is {}",
            bundle.path().display(),
            sizes.vocab_size
        )));
    }
    let positions = bundle.positions(&config);
    let max_length = tokenizer.max_length().unwrap_or(positions);
    Ok(TextParts {
        max_length: max_length.min(positions),
        config,
        tokenizer,
    })
}

/// Sizes, tokenizer and longest text of an encoder-decoder.
#[derive(Clone, Debug)]
pub struct Seq2SeqParts {
    /// Nothing is dropped in it.
    pub config: Seq2SeqConfig,
    /// Of both texts.
    pub tokenizer: TextTokenizer,
    /// Tokens of the longest text: as in training, where the bundle says so.
    pub max_length: usize,
}

/// Sizes and tokenizer of an encoder-decoder.
///
/// # Errors
///
/// A bundle of another kind, or one whose tokenizer has more tokens than its model.
pub fn seq2seq_parts(bundle: &Bundle) -> Result<Seq2SeqParts, Failure> {
    let config = seq2seq_model(bundle)?;
    let plan = config.describe();
    let tokenizer = bundle_tokenizer(bundle)?;
    let (tokens, room) = (tokenizer.largest_id() as usize + 1, plan.vocab_size);
    if tokens > room {
        let place = bundle.path().display();
        return Err(Failure::input(format!(
            "{place}: the tokenizer has {tokens} tokens and the model {room}"
        )));
    }
    let most = tokenizer.max_length().or(plan.positions).unwrap_or(512);
    Ok(Seq2SeqParts {
        max_length: plan.positions.map_or(most, |positions| positions.min(most)),
        config,
        tokenizer,
    })
}

/// A language model with its weights, and its parts.
///
/// - causal: whether the tokens to come are to be hidden from it
///
/// # Errors
///
/// A bundle of another kind, or one whose weights do not fit.
pub fn token_model<B: Backend>(
    bundle: &Bundle,
    causal: bool,
    device: &B::Device,
) -> Result<(TokenModel<B>, TextParts), Failure> {
    let parts = text_parts(bundle)?;
    let names = require(bundle, HeadKind::Tokens)?;
    if parts.config.describe().causal != causal {
        let reason = if causal {
            "sees the tokens to come, so it continues no text; apps fill-mask is for it"
        } else {
            "sees no token to the right of a mask; apps generate is for it"
        };
        let place = bundle.path().display();
        return Err(Failure::input(format!("{place}: {reason}")));
    }
    let model = TokenModel::draw(&parts.config, &bundle.draw(device, names));
    Ok((filled_for_inference(bundle, model, names)?, parts))
}

/// A model with the bundle's weights, which stay of 8 bits where they are; says which of them it has no place for.
pub(crate) fn filled<B: Backend, M: Module<B>>(
    bundle: &Bundle,
    model: M,
    names: Names,
) -> Result<M, Failure> {
    if bundle.weights()?.are_of_8_bits() {
        return filled_for_inference(bundle, model, names);
    }
    let (model, loaded) = bundle.load(model, names, Load::Whole)?;
    warn_of_lost(bundle, names, &loaded);
    Ok(model)
}

/// The same with weights in 16 bits too, where these hold them exactly: for models that read all of them for each token.
pub(crate) fn filled_for_inference<B: Backend, M: Module<B>>(
    bundle: &Bundle,
    model: M,
    names: Names,
) -> Result<M, Failure> {
    let (model, loaded) = bundle.load_for_inference(model, names, Load::Whole)?;
    warn_of_lost(bundle, names, &loaded);
    Ok(model)
}

fn warn_of_lost(bundle: &Bundle, names: Names, loaded: &Loaded) {
    if let Some(lost) = loaded.lost(names) {
        eprintln!("warning: {}: {lost}", bundle.path().display());
    }
}

/// Sizes of an image model, checked, and what it sees of an image.
///
/// # Errors
///
/// A bundle of another kind, or a model that this machine cannot hold.
pub fn image_model(bundle: &Bundle) -> Result<ImageModel, Failure> {
    let config = bundle.image_config();
    let config = config.map_err(|error| with_command(bundle, error))?;
    fits(bundle, config.describe().parameters)?;
    let input = bundle.image_input(&config)?;
    Ok(ImageModel { config, input })
}

/// Refuses a model whose head needs feature maps that its family does not have.
pub(crate) fn check_maps(bundle: &Bundle, config: &ImageConfig) -> Result<(), Failure> {
    if !config.describe().levels.is_empty() {
        return Ok(());
    }
    let (place, is) = (bundle.path().display(), bundle.head().describe());
    let family = config.family().model_type;
    Err(Failure::input(format!(
        "{place}: holds {is}, and {family} has no feature maps for it"
    )))
}

/// The folder of an output, which has to be there.
pub(crate) fn folder_of(output: &Path) -> Result<&Path, Failure> {
    match output.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(folder) if folder.is_dir() => Ok(folder),
        _ => {
            let output = output.display();
            let reason = format!("{output}: its directory does not exist");
            Err(Failure::input(reason))
        }
    }
}

/// Refuses an output file that cannot be written, or that is part of what is read.
///
/// - inputs: files and directories
pub fn check_output(output: &Path, inputs: &[&Path]) -> Result<(), Failure> {
    let wrong = |reason: String| Err(Failure::input(format!("{}: {reason}", output.display())));
    if output.file_name().is_none() || output.is_dir() {
        return wrong("is a directory; --output names a file".into());
    }
    folder_of(output)?;
    for input in inputs {
        if let (Ok(output), Ok(whole)) = (output.canonicalize(), input.canonicalize())
            && output.starts_with(whole)
        {
            return wrong(format!("is part of {}, which is read", input.display()));
        }
    }
    if let Err(error) = check_writable(output) {
        return wrong(format!("cannot be written: {error}"));
    }
    Ok(())
}

/// Writes an output file, in place of one that was there.
pub fn write_output(output: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = write_atomically(output, bytes);
    written
        .with_context(|| output.display().to_string())
        .map_err(Failure::Running)
}
