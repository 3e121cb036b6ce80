//! Continues a text. In: a decoder's bundle and a prompt. Out: the text, as it comes.

use std::io::{self, ErrorKind, Write};
use std::time::Instant;

use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::Args;
use data::{ChatTemplate, Message, TextTokenizer};
use model::bundle;
use model::generate::{Continuation, Sampling};
use model::{Bundle, BundleError, TokenModel};
use serde_json::Value;
use train::backend::with_backend;
use train::{Failure, WithBackend};

use crate::open::{self, ModelFlags};
use crate::sampling::SamplingFlags;

mod output;
pub mod stepwise;

use stepwise::Steps;

const EXAMPLES: &str = "\
Examples:
  apps generate --model runs/clm --temperature 0.8 --top-p 0.95 \"a small bird\"
  apps generate --model runs/instruction-tuning --chat \"what is a wren?\"";

/// Continue a text
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// What the text begins with; empty begins one
    #[arg(default_value = "")]
    pub prompt: String,
    /// The most tokens that are added
    #[arg(
        allow_negative_numbers = true,
        long,
        value_name = "N",
        default_value = "64"
    )]
    pub max_tokens: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampling: SamplingFlags,
    /// Stop before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Read all tokens again for each new one
    #[arg(long)]
    pub no_cache: bool,
    /// Go on after the token that ends a text
    #[arg(long)]
    pub ignore_end: bool,
    /// Answer the prompt, a message in the tokenizer's chat template, instead of continuing it
    #[arg(long)]
    pub chat: bool,
}

impl Flags {
    fn sampling(&self) -> Result<Sampling, Failure> {
        let sampling = self.sampling.sampling()?;
        if self.stop.iter().any(String::is_empty) {
            return Err(Failure::input("--stop is empty"));
        }
        Ok(sampling)
    }
}

/// Continues texts.
pub struct Generator<B: Backend> {
    model: TokenModel<B>,
    tokenizer: TextTokenizer,
    layers: usize,
    positions: usize,
    /// Whether each text began with the begin token in training.
    begins: bool,
    /// Tokens that end a text.
    ends: Vec<u32>,
    device: B::Device,
}

/// How a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As many tokens as were asked for.
    Length,
    /// The model ended the text.
    EndToken,
    /// A text to stop before.
    StopText,
    /// The model has no position for another token.
    Positions,
    /// Whoever reads has seen enough.
    Stopped,
}

impl End {
    /// Why a text ended there, for people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Length => "as many as asked for",
            Self::EndToken => "the text has ended",
            Self::StopText => "a text to stop before",
            Self::Positions => "the model has no position for more",
            Self::Stopped => "stopped",
        }
    }
}

/// What is asked of a continuation.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What the text begins with.
    pub prompt: &'a str,
    /// The most tokens that are added.
    pub max_tokens: usize,
    /// How each is chosen.
    pub sampling: Sampling,
    /// Texts to stop before.
    pub stop: &'a [String],
    /// Of the choices.
    pub seed: u64,
    /// Whether keys and values are kept.
    pub cache: bool,
    /// Whether the token that ends a text does not end it.
    pub ignore_end: bool,
    /// Whether the prompt is a message of a user, to be answered.
    pub chat: bool,
}

/// How tokens are added, whatever they are added to.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The most tokens that are added.
    pub max_tokens: usize,
    /// How each is chosen.
    pub sampling: Sampling,
    /// Texts to stop before.
    pub stop: &'a [String],
    /// Of the choices.
    pub seed: u64,
    /// Tokens that were chosen by this seed before.
    pub chosen: u64,
    /// Whether the token that ends a text does not end it.
    pub ignore_end: bool,
}

impl<B: Backend> Generator<B> {
    /// Loads a decoder.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let (model, parts) = open::token_model(bundle, true, device)?;
        let sizes = parts.config.describe();
        let mut ends = bundle.end_tokens()?;
        ends.extend(parts.tokenizer.end());
        Ok(Self {
            model,
            ends,
            tokenizer: parts.tokenizer,
            layers: sizes.layers,
            begins: begins(bundle)?,
            positions: bundle.positions(&parts.config),
            device: device.clone(),
        })
    }

    /// Continues a text; `show` gets it piece by piece. Gives the number of new tokens, and how it ended.
    ///
    /// # Errors
    ///
    /// A prompt without a token, or with more than the model has positions; `show` fails.
    pub fn generate(
        &self,
        request: &Request,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(usize, End), Failure> {
        let prompt = if request.chat {
            self.question(request.prompt)?
        } else {
            self.prompt(request.prompt)?
        };
        let layers = request.cache.then_some(self.layers);
        let mut text = Continuation::new(&self.model, prompt, layers, &self.device);
        let rules = Rules {
            max_tokens: request.max_tokens,
            sampling: request.sampling,
            stop: request.stop,
            seed: request.seed,
            chosen: 0,
            ignore_end: request.ignore_end,
        };
        self.add(&mut text, &rules, &|| false, show)
    }

    /// A text that begins with these tokens, at least one; keys and values are kept.
    pub(crate) fn begin(&self, tokens: Vec<u32>) -> Continuation<'_, B> {
        Continuation::new(&self.model, tokens, Some(self.layers), &self.device)
    }

    /// Adds tokens to a text; `show` gets what they say piece by piece. Gives their number, and how it ended.
    ///
    /// - is_stopped: asked before each token
    ///
    /// # Errors
    ///
    /// A tokenizer that fails; `show` fails.
    pub(crate) fn add(
        &self,
        text: &mut Continuation<'_, B>,
        rules: &Rules,
        is_stopped: &dyn Fn() -> bool,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(usize, End), Failure> {
        let mut steps = Steps::new(self, text.tokens(), rules)?;
        loop {
            let stopped = || is_stopped().then_some(End::Stopped);
            if let Some(end) = steps.end(text.tokens().len()).or_else(stopped) {
                return Ok((steps.added(), steps.finish(end, show)?));
            }
            let (token, end) = steps.take(&text.logits(), text.tokens(), show)?;
            if let Some(token) = token {
                text.push(token);
            }
            if let Some(end) = end {
                return Ok((steps.added(), end));
            }
        }
    }

    /// A user's message and the beginning of its answer, as the chat template has them.
    fn question(&self, message: &str) -> Result<Vec<u32>, Failure> {
        let message = Message {
            role: "user".into(),
            content: message.into(),
        };
        let template = ChatTemplate::of(&self.tokenizer)?;
        self.within_positions(self.written(&template, &[message])?)
    }

    /// Tokens of a dialogue and of the beginning of its next answer.
    ///
    /// # Errors
    ///
    /// A dialogue that the template refuses.
    pub(crate) fn written(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
    ) -> Result<Vec<u32>, Failure> {
        let text = template.render(messages, true)?;
        let encoded = self.tokenizer.encode_written(&[&text], usize::MAX)?;
        Ok(encoded.into_iter().flat_map(|one| one.ids).collect())
    }

    /// The model's own.
    pub(crate) fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The most tokens that the model reads.
    pub(crate) fn positions(&self) -> usize {
        self.positions
    }

    /// Tokens that the text begins with.
    fn prompt(&self, prompt: &str) -> Result<Vec<u32>, Failure> {
        let mut tokens = self.tokenizer.encode_one(prompt, usize::MAX)?;
        // What closes a text would end it before it goes on.
        if self.tokenizer.closing().is_some() && tokens.last() == self.tokenizer.closing().as_ref()
        {
            tokens.pop();
        }
        let begin = self.tokenizer.begin().or(self.tokenizer.end());
        if let Some(begin) = begin
            && (tokens.is_empty() || self.begins && tokens[0] != begin)
        {
            tokens.insert(0, begin);
        }
        if tokens.is_empty() {
            return Err(Failure::input(
                "the prompt is empty, and this model has no token to begin a text with",
            ));
        }
        self.within_positions(tokens)
    }

    fn within_positions(&self, tokens: Vec<u32>) -> Result<Vec<u32>, Failure> {
        if tokens.len() <= self.positions {
            return Ok(tokens);
        }
        Err(Failure::input(format!(
            "the prompt has {} tokens; this model takes {}",
            tokens.len(),
            self.positions
        )))
    }
}

/// Whether the tokenizer's settings ask for a token in front of each text.
fn begins(bundle: &Bundle) -> Result<bool, BundleError> {
    let settings = bundle.read_optional(bundle::TOKENIZER_CONFIG)?;
    // That it is JSON was seen when the tokenizer was read.
    let settings: Option<Value> = settings.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(settings.is_some_and(|settings| settings["add_bos_token"] == Value::Bool(true)))
}

/// Continues the prompt that the flags hold, and prints it as it comes; tokens a second go to standard error.
///
/// # Errors
///
/// A model or a prompt that cannot be used.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let sampling = flags.sampling()?;
    let backend = flags.model.backend.choose()?;
    let bundle = flags.model.bundle()?;
    with_backend(
        backend,
        Work {
            bundle,
            flags,
            sampling,
        },
    )??;
    Ok("\n".into())
}

/// Prepared work, waiting for its backend.
struct Work<'a> {
    bundle: Bundle,
    flags: &'a Flags,
    sampling: Sampling,
}

impl WithBackend for Work<'_> {
    type Output = Result<(), Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let flags = self.flags;
        let generator = Generator::<B::InnerBackend>::open(&self.bundle, &device)?;
        let request = Request {
            prompt: &flags.prompt,
            max_tokens: flags.max_tokens,
            sampling: self.sampling,
            stop: &flags.stop,
            seed: flags.sampling.seed,
            cache: !flags.no_cache,
            ignore_end: flags.ignore_end,
            chat: flags.chat,
        };
        // Refused before anything is printed.
        generator.prompt(request.prompt)?;
        let mut reader_left = false;
        let mut show = |text: &str| {
            let mut out = io::stdout().lock();
            let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            written.map_err(|error| {
                reader_left = error.kind() == ErrorKind::BrokenPipe;
                Failure::running(error)
            })
        };
        let began = Instant::now();
        let shown = show(&flags.prompt);
        let generated = shown.and_then(|()| generator.generate(&request, &mut show));
        if reader_left {
            // `| head` has seen enough.
            return Ok(());
        }
        let (added, end) = generated?;
        let seconds = began.elapsed().as_secs_f64();
        let why = end.reason();
        let tokens = if added == 1 { "token" } else { "tokens" };
        eprintln!(
            "\n{added} {tokens}, {:.1} tokens/s ({why})",
            added as f64 / seconds.max(1e-9)
        );
        Ok(())
    }
}
