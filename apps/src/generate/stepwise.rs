//! Texts that are written a token at a time, several together. In: a decoder, tokens, rules. Out: a piece of each text a step.

use std::collections::VecDeque;

use burn::prelude::Backend;
use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use data::{ChatTemplate, Message, TextDecoder};
use model::Bundle;
use model::generate::{Sampling, Together};
use rand::RngExt;
use train::backend::with_backend;
use train::{BackendName, Failure, WithBackend};

use super::output::Output;
use super::{End, Generator, Rules};

/// What is done with the pieces of a text; a failure ends it.
pub type Show<'a> = &'a mut dyn FnMut(&str) -> Result<(), Failure>;

/// What came of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// More of it.
    Text(String),
    /// Nothing more: how it ended, and the tokens that were added.
    End(End, usize),
}

/// Texts that are written together, whatever the backend: each step adds a token to each of them.
pub trait Texts {
    /// Begins a text; its prompt is read in a step to come.
    ///
    /// - name: identifies the text among those that are being written
    /// - tokens: at least one
    ///
    /// # Errors
    ///
    /// A tokenizer that fails.
    fn begin(&mut self, name: u64, tokens: Vec<u32>, rules: &Rules) -> Result<(), Failure>;

    /// Adds a token to each text, and says what came of it; a text that has ended is there no more. Of texts that were begun one
    /// reads its prompt. Gives the number of new tokens.
    ///
    /// # Errors
    ///
    /// A tokenizer that fails; all texts are lost.
    fn step(&mut self, tell: &mut dyn FnMut(u64, Told)) -> Result<usize, Failure>;

    /// Goes on without the texts that nobody reads any more.
    fn keep(&mut self, is_read: &dyn Fn(u64) -> bool);
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

    /// Texts to be written, none at first.
    fn texts<'a>(&'a self) -> Box<dyn Texts + 'a>;
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

    fn texts<'a>(&'a self) -> Box<dyn Texts + 'a> {
        Box::new(Desk {
            generator: self,
            begun: VecDeque::new(),
            written: Vec::new(),
            together: Together::new(&self.model, &self.device),
        })
    }
}

/// A text, and how it goes on.
struct Text<'a> {
    name: u64,
    tokens: Vec<u32>,
    steps: Steps<'a>,
}

/// Texts that are written together.
struct Desk<'a, B: Backend> {
    generator: &'a Generator<B>,
    /// Those whose prompts were not read.
    begun: VecDeque<Text<'a>>,
    /// The others, in the order of `together`; the last token of each was not read.
    written: Vec<Text<'a>>,
    together: Together<'a, B>,
}

impl<B: Backend> Texts for Desk<'_, B> {
    fn begin(&mut self, name: u64, tokens: Vec<u32>, rules: &Rules) -> Result<(), Failure> {
        let steps = Steps::new(self.generator, &tokens, rules)?;
        self.begun.push_back(Text {
            name,
            tokens,
            steps,
        });
        Ok(())
    }

    fn step(&mut self, tell: &mut dyn FnMut(u64, Told)) -> Result<usize, Failure> {
        let mut stays = Vec::with_capacity(self.written.len());
        for text in &mut self.written {
            stays.push(!text.ends(tell)?);
        }
        self.retain(&stays);
        let last = self.written.iter().filter_map(|text| text.tokens.last());
        let last: Vec<u32> = last.copied().collect();
        let logits = self.together.logits(&last);
        let mut stays = Vec::with_capacity(self.written.len());
        for (text, logits) in self.written.iter_mut().zip(&logits) {
            stays.push(text.goes_on(logits, tell)?);
        }
        self.retain(&stays);
        let Some(mut text) = self.begun.pop_front() else {
            return Ok(last.len());
        };
        if text.ends(tell)? {
            return Ok(last.len());
        }
        let mut read = self.generator.begin(std::mem::take(&mut text.tokens));
        let logits = read.logits();
        text.tokens = read.tokens().to_vec();
        if text.goes_on(&logits, tell)? {
            self.together.join(read);
            self.written.push(text);
        }
        Ok(last.len() + 1)
    }

    fn keep(&mut self, is_read: &dyn Fn(u64) -> bool) {
        self.begun.retain(|text| is_read(text.name));
        let stays: Vec<bool> = self.written.iter().map(|text| is_read(text.name)).collect();
        self.retain(&stays);
    }
}

impl<B: Backend> Desk<'_, B> {
    /// Goes on with some of the written texts.
    fn retain(&mut self, stays: &[bool]) {
        if stays.iter().all(|stays| *stays) {
            return;
        }
        let rows: Vec<usize> = (0..stays.len()).filter(|&row| stays[row]).collect();
        self.together.keep(&rows);
        let mut stays = stays.iter();
        self.written.retain(|_| stays.next() == Some(&true));
    }
}

impl Text<'_> {
    /// Whether the text has ended; if so, `tell` is given how.
    fn ends(&mut self, tell: &mut dyn FnMut(u64, Told)) -> Result<bool, Failure> {
        let Some(end) = self.steps.end(self.tokens.len()) else {
            return Ok(false);
        };
        let name = self.name;
        self.steps
            .finish(end, &mut |text| shown(name, text, tell))?;
        tell(name, Told::End(end, self.steps.added()));
        Ok(true)
    }

    /// Takes a token; whether the text goes on.
    fn goes_on(
        &mut self,
        logits: &[f32],
        tell: &mut dyn FnMut(u64, Told),
    ) -> Result<bool, Failure> {
        let name = self.name;
        let show: Show = &mut |text| shown(name, text, tell);
        let (token, end) = self.steps.take(logits, &self.tokens, show)?;
        self.tokens.extend(token);
        if let Some(end) = end {
            tell(name, Told::End(end, self.steps.added()));
        }
        Ok(end.is_none())
    }
}

fn shown(name: u64, text: &str, tell: &mut dyn FnMut(u64, Told)) -> Result<(), Failure> {
    if !text.is_empty() {
        tell(name, Told::Text(text.into()));
    }
    Ok(())
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

    /// How a text of so many tokens ends before another one is chosen.
    pub(super) fn end(&self, tokens: usize) -> Option<End> {
        if self.added == self.max_tokens {
            Some(End::Length)
        } else if tokens > self.positions {
            Some(End::Positions)
        } else {
            None
        }
    }

    /// Chooses a token: it, where it belongs to the text, and how the text has ended, if it has.
    ///
    /// - logits: of the vocabulary
    /// - tokens: of the text so far
    pub(super) fn take(
        &mut self,
        logits: &[f32],
        tokens: &[u32],
        show: Show,
    ) -> Result<(Option<u32>, Option<End>), Failure> {
        let number = self.chosen + self.added as u64;
        let draw = order::rng(self.seed, Stream::Sample, number).random::<f64>();
        let token = self.sampling.choose(logits, tokens, draw);
        self.added += 1;
        if self.ends.contains(&token) {
            return Ok((None, Some(self.finish(End::EndToken, show)?)));
        }
        let is_over = self.output.push(&self.decoder.push(token)?, show)?;
        Ok((Some(token), is_over.then_some(End::StopText)))
    }

    /// Ends the text where it is: shows what was held back.
    pub(super) fn finish(&mut self, end: End, show: Show) -> Result<End, Failure> {
        if !self.output.push(&self.decoder.finish()?, show)? {
            self.output.finish(show)?;
        }
        Ok(end)
    }
}
