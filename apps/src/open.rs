//! What `--model`, `--backend` and `--output` name: opened and checked before any work is done.

use std::path::Path;

use anyhow::Context;
use burn::module::Module;
use burn::prelude::Backend;
use clap::Args;
use data::TextTokenizer;
use model::bundle::Load;
use model::{Bundle, HeadKind, Names, TextClassifier, TextConfig, TokenModel};
use train::job::image::ImageModel;
use train::job::start;
use train::job::text::bundle_tokenizer;
use train::run::{Held, check_memory, check_writable, write_atomically};
use train::{BackendName, Failure};

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
    let mut config = bundle.text_config()?;
    fits(bundle, config.describe().parameters)?;
    config.set_dropout(0.0);
    Ok(config)
}

/// The allocator would end the process without a word.
pub(crate) fn fits(bundle: &Bundle, parameters: f64) -> Result<(), Failure> {
    let wrong = |reason| Failure::input(format!("{}: {reason}", bundle.path().display()));
    check_memory(parameters, Held::Value).map_err(wrong)
}

/// The head that a bundle has: what its class says, else what its weights hold.
pub fn head(bundle: &Bundle) -> HeadKind {
    let named = bundle.class().and_then(|class| {
        let mut heads = bundle.family().heads.iter();
        heads.find(|head| head.class == class)
    });
    // An adapter brings a head that its base's class does not name.
    if let Some(head) = named
        && !bundle.has_adapter()
    {
        return head.kind;
    }
    let kinds = [
        HeadKind::Classes,
        HeadKind::Spans,
        HeadKind::Tokens,
        HeadKind::Pixels,
    ];
    let held = kinds.into_iter().find(|kind| bundle.require(*kind).is_ok());
    held.unwrap_or(HeadKind::Bare)
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
    if parts.config.describe().causal != causal {
        let reason = if causal {
            "sees the tokens to come, so it continues no text; apps fill-mask is for it"
        } else {
            "sees no token to the right of a mask; apps generate is for it"
        };
        let place = bundle.path().display();
        return Err(Failure::input(format!("{place}: {reason}")));
    }
    Ok((language_model(bundle, &parts, device)?, parts))
}

/// A language model of either kind, whose parts are read already.
pub(crate) fn language_model<B: Backend>(
    bundle: &Bundle,
    parts: &TextParts,
    device: &B::Device,
) -> Result<TokenModel<B>, Failure> {
    let names = bundle.require(HeadKind::Tokens)?;
    let model = TokenModel::draw(&parts.config, &bundle.draw(device, names));
    filled(bundle, model, names)
}

/// A model with the bundle's weights; says which of them it has no place for.
pub(crate) fn filled<B: Backend, M: Module<B>>(
    bundle: &Bundle,
    model: M,
    names: Names,
) -> Result<M, Failure> {
    let (model, loaded) = bundle.load(model, names, Load::Whole)?;
    if let Some(lost) = loaded.lost(names) {
        eprintln!("warning: {}: {lost}", bundle.path().display());
    }
    Ok(model)
}

/// A classifier of texts with its weights, and its classes.
pub(crate) fn text_classifier<B: Backend>(
    bundle: &Bundle,
    parts: &TextParts,
    device: &B::Device,
) -> Result<(TextClassifier<B>, Vec<String>), Failure> {
    let names = bundle.require(HeadKind::Classes)?;
    let classes = bundle.classes()?;
    let model = TextClassifier::draw(&parts.config, classes.len(), &bundle.draw(device, names));
    Ok((filled(bundle, model, names)?, classes))
}

/// Sizes of an image model, checked, and what it sees of an image.
///
/// # Errors
///
/// A bundle of another kind, or a model that this machine cannot hold.
pub fn image_model(bundle: &Bundle) -> Result<ImageModel, Failure> {
    let config = bundle.image_config()?;
    fits(bundle, config.describe().parameters)?;
    let input = bundle.image_input(&config)?;
    Ok(ImageModel { config, input })
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
