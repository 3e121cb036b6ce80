//! Continues a text. In: a decoder's bundle and a prompt. Out: the text, as it comes.

use std::io::{self, ErrorKind, Write};
use std::time::Instant;

use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::Args;
use data::order::{self, Stream};
use data::{ChatTemplate, Message, TextTokenizer};
use model::bundle;
use model::generate::{Continuation, Sampling};
use model::{Bundle, BundleError, TokenModel};
use rand::RngExt;
use serde_json::Value;
use train::backend::with_backend;
use train::{Failure, WithBackend};

use crate::open::{self, ModelFlags};

/// Continue a text
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example: apps generate --model runs/clm --temperature 0.8 --top-p 0.95 \"a small bird\""
)]
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
    /// What scores are divided by; 0 always takes the likeliest token
    #[arg(
        allow_negative_numbers = true,
        long,
        value_name = "T",
        default_value = "0"
    )]
    pub temperature: f64,
    /// Choose among the K likeliest tokens; 0 is all
    #[arg(long, value_name = "K", default_value = "0")]
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value = "1")]
    pub top_p: f64,
    /// Choose among tokens that have this share of the likeliest one's probability
    #[arg(long, value_name = "P", default_value = "0")]
    pub min_p: f64,
    /// Make tokens that occurred less likely; 1 changes nothing
    #[arg(long, value_name = "R", default_value = "1")]
    pub repetition_penalty: f64,
    /// Stop before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Of the choices: the same seed gives the same text
    #[arg(
        allow_negative_numbers = true,
        long,
        value_name = "N",
        default_value = "0"
    )]
    pub seed: u64,
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
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        };
        let flag = |reason: String| {
            let (name, rest) = reason.split_once(' ').unwrap_or((&reason, ""));
            Failure::input(format!("--{} {rest}", name.replace('_', "-")))
        };
        sampling.check().map_err(flag)?;
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
        let mut decoder = self.tokenizer.decoder();
        // Whether a blank goes in front of the first new word depends on the prompt.
        for &token in text.tokens() {
            decoder.push(token)?;
        }
        let mut output = Output::new(request.stop);
        let mut added = 0;
        let end = loop {
            if added == request.max_tokens {
                break End::Length;
            }
            if text.tokens().len() > self.positions {
                break End::Positions;
            }
            let logits = text.logits();
            let draw = order::rng(request.seed, Stream::Sample, added as u64).random::<f64>();
            let token = request.sampling.choose(&logits, text.tokens(), draw);
            added += 1;
            if self.ends.contains(&token) && !request.ignore_end {
                break End::EndToken;
            }
            text.push(token);
            if output.push(&decoder.push(token)?, show)? {
                break End::StopText;
            }
        };
        if end != End::StopText && !output.push(&decoder.finish()?, show)? {
            output.finish(show)?;
        }
        Ok((added, end))
    }

    /// A user's message and the beginning of its answer, as the chat template has them.
    fn question(&self, message: &str) -> Result<Vec<u32>, Failure> {
        let message = Message {
            role: "user".into(),
            content: message.into(),
        };
        let text = ChatTemplate::of(&self.tokenizer)?.render(&[message], true)?;
        let encoded = self.tokenizer.encode_written(&[&text], usize::MAX)?;
        let tokens = encoded.into_iter().flat_map(|one| one.ids).collect();
        self.within_positions(tokens)
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

/// Text on its way out, held back as far as it may be the beginning of a text to stop before.
struct Output<'a> {
    stop: &'a [String],
    held: String,
}

impl<'a> Output<'a> {
    fn new(stop: &'a [String]) -> Self {
        Self {
            stop,
            held: String::new(),
        }
    }

    /// Takes more text; whether it has come to where it stops.
    fn push(
        &mut self,
        text: &str,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        self.held.push_str(text);
        let found = self
            .stop
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()));
        if let Some(at) = found.min() {
            show(&self.held[..at])?;
            self.held.clear();
            return Ok(true);
        }
        let begins = |at: &usize| {
            let rest = &self.held[*at..];
            self.stop.iter().any(|stop| stop.starts_with(rest))
        };
        let mut places = self.held.char_indices().map(|(at, _)| at);
        let keep = places.find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        show(&self.held)?;
        self.held = rest;
        Ok(false)
    }

    /// Shows what was held back.
    fn finish(&mut self, show: &mut dyn FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        show(&std::mem::take(&mut self.held))
    }
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
            seed: flags.seed,
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
        let why = match end {
            End::Length => "as many as asked for",
            End::EndToken => "the text has ended",
            End::StopText => "a text to stop before",
            End::Positions => "the model has no position for more",
        };
        let tokens = if added == 1 { "token" } else { "tokens" };
        eprintln!(
            "\n{added} {tokens}, {:.1} tokens/s ({why})",
            added as f64 / seconds.max(1e-9)
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stop: &[&str], pieces: &[&str]) -> (String, bool) {
        let stop: Vec<String> = stop.iter().map(|text| text.to_string()).collect();
        let (mut text, mut stopped) = (String::new(), false);
        let mut show = |piece: &str| {
            text.push_str(piece);
            Ok(())
        };
        let mut output = Output::new(&stop);
        for piece in pieces {
            stopped = output.push(piece, &mut show).unwrap();
            if stopped {
                break;
            }
        }
        if !stopped {
            output.finish(&mut show).unwrap();
        }
        (text, stopped)
    }

    #[test]
    fn a_stop_text_is_found_across_pieces_and_not_shown() {
        assert_eq!(
            shown(&["END"], &["one E", "N", "D two"]),
            ("one ".into(), true)
        );
        assert_eq!(
            shown(&["END"], &["one E", "N", "O"]),
            ("one ENO".into(), false)
        );
        assert_eq!(shown(&["END"], &["one EN"]), ("one EN".into(), false));
        assert_eq!(shown(&["b", "ab"], &["xa", "b"]), ("x".into(), true));
        assert_eq!(shown(&[], &["é", "ß"]), ("éß".into(), false));
    }
}
