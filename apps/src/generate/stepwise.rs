//! Texts that are written a token at a time, so that one thread can write several by turns. In: a decoder, tokens, rules. Out: a
//! piece of text a step.

use burn::prelude::Backend;
use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use data::{ChatTemplate, Message, TextDecoder};
use model::Bundle;
use model::generate::{Continuation, Sampling};
use rand::RngExt;
use train::backend::with_backend;
use train::{BackendName, Failure, WithBackend};

use super::output::Output;
use super::{End, Generator, Rules};

/// What is done with the pieces of a text; a failure ends it.
pub type Show<'a> = &'a mut dyn FnMut(&str) -> Result<(), Failure>;

/// A text that is being written, whatever the backend.
pub trait Writing {
    /// Adds a token, or says how the text has ended; `show` gets what it says, once it is certain.
    ///
    /// # Errors
    ///
    /// A tokenizer that fails; `show` fails.
    fn step(&mut self, show: Show) -> Result<Option<End>, Failure>;

    /// Tokens that were added so far.
    fn added(&self) -> usize;
}

/// A loaded decoder, whatever its backend.
pub trait Writer: Send {
    /// Tokens that a text begins with.
    ///
    /// # Errors
    ///
    /// A prompt without a token, or with more than the model has positions.
    fn prompt(&self, prompt: &str) -> Result<Vec<u32>, Failure>;

    /// Tokens of a dialogue and of the beginning of its next answer.
    ///
    /// # Errors
    ///
    /// A dialogue that the chat template refuses, or that is longer than the model has positions.
    fn dialogue(&self, messages: &[Message]) -> Result<Vec<u32>, Failure>;

    /// Whether its tokenizer says how dialogues are written.
    fn is_for_dialogues(&self) -> bool;

    /// The most tokens that the model reads.
    fn positions(&self) -> usize;

    /// Begins a text.
    ///
    /// - tokens: at least one
    ///
    /// # Errors
    ///
    /// A tokenizer that fails.
    fn begin<'a>(
        &'a self,
        tokens: Vec<u32>,
        rules: &Rules,
    ) -> Result<Box<dyn Writing + 'a>, Failure>;
}

/// Opens the decoder of a bundle.
///
/// # Errors
///
/// A bundle of another kind, weights that do not fit, or a backend without a device.
pub fn open_on(backend: BackendName, bundle: &Bundle) -> Result<Box<dyn Writer>, Failure> {
    with_backend(backend, Work { bundle })?
}

struct Work<'a> {
    bundle: &'a Bundle,
}

impl WithBackend for Work<'_> {
    type Output = Result<Box<dyn Writer>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let generator = Generator::<B::InnerBackend>::open(self.bundle, &device)?;
        Ok(Box::new(generator))
    }
}

impl<B: Backend> Writer for Generator<B> {
    fn prompt(&self, prompt: &str) -> Result<Vec<u32>, Failure> {
        Generator::prompt(self, prompt)
    }

    fn dialogue(&self, messages: &[Message]) -> Result<Vec<u32>, Failure> {
        let template = ChatTemplate::of(&self.tokenizer)?;
        let tokens = self.written(&template, messages)?;
        if tokens.is_empty() {
            return Err(Failure::input("the chat template writes nothing"));
        }
        self.within_positions(tokens)
    }

    fn is_for_dialogues(&self) -> bool {
        self.tokenizer.chat_template().is_some()
    }

    fn positions(&self) -> usize {
        self.positions
    }

    fn begin<'a>(
        &'a self,
        tokens: Vec<u32>,
        rules: &Rules,
    ) -> Result<Box<dyn Writing + 'a>, Failure> {
        let steps = Steps::new(self, &tokens, rules)?;
        let text = Generator::begin(self, tokens);
        Ok(Box::new(Written { text, steps }))
    }
}

/// A text, and how it goes on.
struct Written<'a, B: Backend> {
    text: Continuation<'a, B>,
    steps: Steps<'a>,
}

impl<B: Backend> Writing for Written<'_, B> {
    fn step(&mut self, show: Show) -> Result<Option<End>, Failure> {
        self.steps.step(&mut self.text, show)
    }

    fn added(&self) -> usize {
        self.steps.added()
    }
}

/// How a text goes on, step by step.
pub(super) struct Steps<'a> {
    decoder: TextDecoder<'a>,
    output: Output,
    /// Tokens that end a text.
    ends: &'a [u32],
    positions: usize,
    max_tokens: usize,
    sampling: Sampling,
    seed: u64,
    chosen: u64,
    added: usize,
}

impl<'a> Steps<'a> {
    /// - tokens: those of the text so far
    pub(super) fn new<B: Backend>(
        generator: &'a Generator<B>,
        tokens: &[u32],
        rules: &Rules,
    ) -> Result<Self, Failure> {
        let mut decoder = generator.tokenizer.decoder();
        // Whether a blank goes in front of the first new word depends on the prompt.
        for &token in tokens {
            decoder.push(token)?;
        }
        Ok(Self {
            decoder,
            output: Output::new(rules.stop),
            ends: if rules.ignore_end {
                &[]
            } else {
                generator.ends.as_slice()
            },
            positions: generator.positions,
            max_tokens: rules.max_tokens,
            sampling: rules.sampling,
            seed: rules.seed,
            chosen: rules.chosen,
            added: 0,
        })
    }

    /// Tokens that were added so far.
    pub(super) fn added(&self) -> usize {
        self.added
    }

    /// Adds a token, or says how the text has ended.
    pub(super) fn step<B: Backend>(
        &mut self,
        text: &mut Continuation<'_, B>,
        show: Show,
    ) -> Result<Option<End>, Failure> {
        if self.added == self.max_tokens {
            return self.finish(End::Length, show).map(Some);
        }
        if text.tokens().len() > self.positions {
            return self.finish(End::Positions, show).map(Some);
        }
        let logits = text.logits();
        let number = self.chosen + self.added as u64;
        let draw = order::rng(self.seed, Stream::Sample, number).random::<f64>();
        let token = self.sampling.choose(&logits, text.tokens(), draw);
        self.added += 1;
        if self.ends.contains(&token) {
            return self.finish(End::EndToken, show).map(Some);
        }
        text.push(token);
        let is_over = self.output.push(&self.decoder.push(token)?, show)?;
        Ok(is_over.then_some(End::StopText))
    }

    /// Ends the text where it is.
    pub(super) fn stop(&mut self, show: Show) -> Result<End, Failure> {
        self.finish(End::Stopped, show)
    }

    /// Shows what was held back.
    fn finish(&mut self, end: End, show: Show) -> Result<End, Failure> {
        if !self.output.push(&self.decoder.finish()?, show)? {
            self.output.finish(show)?;
        }
        Ok(end)
    }
}
