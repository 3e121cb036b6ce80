//! The thread of a model. In: jobs. Out: their answers; rows that ask the same share a forward pass, texts are written by turns.
//!
//! - A batch holds what waits, up to its size; where it is not full, it waits a moment for more.
//! - Texts that are being written share forward passes too, a token of each at a time. They join and leave between two passes, and
//!   there one other job is done: a long text keeps nobody waiting.
//! - What nobody waits for any more is left out. A panic is the answer of those who asked, and of nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use model::Bundle;
use tokio::sync::mpsc::UnboundedSender;
use train::BackendName;
use train::failure::caught;

use super::Limits;
use super::failure::Refusal;
use super::job::{Asking, Explain, FillMask, Job, Piece, Predict, Prompt, Write};
use super::metrics::ModelMetrics;
use super::queue::Queue;
use crate::embed::embedder::{self, Embedder, Vectors};
use crate::explain::{self, Explainer, Explanation};
use crate::fill_mask::Filler;
use crate::generate::Rules;
use crate::generate::stepwise::{Texts, Told, Writer};
use crate::guess::Guess;
use crate::task::{Output, Row, Task};

/// Bytes of texts that a place in a batch stands for.
const PLACE_BYTES: usize = 32 << 10;

/// What a model was opened for.
#[derive(Default)]
pub(super) struct Abilities {
    pub(super) task: Option<Box<dyn Task>>,
    pub(super) filler: Option<Box<dyn Filler>>,
    pub(super) writer: Option<Box<dyn Writer>>,
    /// Opened when it is first asked for.
    pub(super) embedder: Option<Box<dyn Embedder>>,
    /// Opened when it is first asked for.
    pub(super) explainer: Option<Explainer>,
}

/// A model and what it needs.
pub(super) struct Worker {
    pub(super) bundle: Bundle,
    pub(super) backend: BackendName,
    pub(super) abilities: Abilities,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) limits: Limits,
    pub(super) metrics: ModelMetrics,
}

/// Texts that are being written, and who reads them.
#[derive(Default)]
struct Desk<'a> {
    /// Made with the first text, and anew after a breakdown.
    texts: Option<Box<dyn Texts + 'a>>,
    readers: HashMap<u64, Pieces>,
    /// Of the next text.
    name: u64,
}

type Pieces = UnboundedSender<Result<Piece, Refusal>>;

/// Work that may break down: a panic is an answer too.
fn guarded<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    match caught(work) {
        Ok(done) => done,
        Err(error) => Err(Refusal::broken(error.to_string())),
    }
}

/// A model that has no such ability.
fn unable(what: &str) -> Refusal {
    Refusal::bad(format!("this model does not {what}"))
}

impl Worker {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let writer = self.abilities.writer.take();
        let mut desk = Desk::default();
        loop {
            let is_writing = !desk.readers.is_empty();
            let job = if is_writing {
                let has_room = desk.readers.len() < self.limits.batch_size;
                let fits = |job: &Job| has_room || !matches!(job, Job::Write(_));
                self.queue.take_until(Instant::now(), fits)
            } else {
                match self.queue.wait() {
                    Some(job) => Some(job),
                    None => return,
                }
            };
            match job {
                Some(Job::Write(job)) => desk.begin(writer.as_deref(), job),
                Some(job) => self.answer(job, is_writing),
                None => {}
            }
            let tokens = desk.step();
            self.metrics.tokens.inc_by(tokens as u64);
        }
    }

    /// - is_writing: whether texts wait for their next token
    fn answer(&mut self, job: Job, is_writing: bool) {
        let until = if is_writing {
            Instant::now()
        } else {
            Instant::now() + self.limits.batch_wait
        };
        match job {
            Job::Predict(first) => self.predict(first, until),
            Job::Embed(first) => self.embed(first, until),
            Job::FillMask(one) if !one.is_left() => {
                let answer = guarded(|| self.fill(&one.question));
                one.answer.send(answer).ok();
            }
            Job::Explain(one) if !one.is_left() => {
                let answer = guarded(|| self.explain(&one.question));
                one.answer.send(answer).ok();
            }
            Job::FillMask(_) | Job::Explain(_) | Job::Write(_) => {}
        }
    }

    /// Takes what fits to the first job.
    ///
    /// - rows: places that a job takes, of one that fits
    fn gather<T>(
        &self,
        first: T,
        until: Instant,
        rows: impl Fn(&T) -> usize,
        fits: impl Fn(&Job) -> Option<usize>,
        into: impl Fn(Job) -> Option<T>,
    ) -> Vec<T> {
        let mut count = rows(&first);
        let mut all = vec![first];
        while count < self.limits.batch_size {
            let room = self.limits.batch_size - count;
            let takes = |job: &Job| fits(job).is_some_and(|rows| rows <= room);
            let Some(next) = self.queue.take_until(until, takes).and_then(&into) else {
                break;
            };
            count += rows(&next);
            all.push(next);
        }
        all
    }

    fn predict(&self, first: Asking<Predict, Vec<Output>>, until: Instant) {
        let asked = first.question.asked;
        let all = self.gather(
            first,
            until,
            |one| places(&one.question.rows),
            |job| match job {
                Job::Predict(one) if one.question.asked == asked => {
                    Some(places(&one.question.rows))
                }
                _ => None,
            },
            |job| match job {
                Job::Predict(one) => Some(one),
                _ => None,
            },
        );
        let Some(task) = &self.abilities.task else {
            return refuse(all, &unable("predict"));
        };
        let work = |rows: &[Row]| {
            self.metrics.batches.observe(rows.len() as f64);
            Ok(task.predict(rows, &asked)?.outputs)
        };
        let split = |outputs: &mut Vec<Output>, rows: usize| {
            outputs.drain(..rows.min(outputs.len())).collect()
        };
        together(all, |one| std::mem::take(&mut one.rows), work, split);
    }

    fn embed(&mut self, first: Asking<Vec<Row>, Vectors>, until: Instant) {
        let all = self.gather(
            first,
            until,
            |one| places(&one.question),
            |job| match job {
                Job::Embed(one) => Some(places(&one.question)),
                _ => None,
            },
            |job| match job {
                Job::Embed(one) => Some(one),
                _ => None,
            },
        );
        if self.abilities.embedder.is_none() {
            let opened = guarded(|| Ok(embedder::open_on(self.backend, &self.bundle)?));
            match opened {
                Ok(embedder) => self.abilities.embedder = Some(embedder),
                Err(refusal) => return refuse(all, &refusal),
            }
        }
        let Some(embedder) = &self.abilities.embedder else {
            return refuse(all, &unable("embed"));
        };
        let work = |rows: &[Row]| {
            self.metrics.batches.observe(rows.len() as f64);
            Ok(embedder.embed(rows, self.limits.batch_size)?)
        };
        let split = |vectors: &mut Vectors, rows: usize| Vectors {
            values: vectors.values.drain(..rows * vectors.width).collect(),
            width: vectors.width,
            tokens: vectors
                .tokens
                .drain(..rows.min(vectors.tokens.len()))
                .collect(),
            ..Vectors::default()
        };
        together(all, std::mem::take, work, split);
    }

    fn fill(&self, asked: &FillMask) -> Result<Vec<Vec<Guess>>, Refusal> {
        let filler = self.abilities.filler.as_ref();
        let filler = filler.ok_or_else(|| unable("fill masks"))?;
        Ok(filler.fill(&asked.text, asked.top)?)
    }

    fn explain(&mut self, asked: &Explain) -> Result<Explanation, Refusal> {
        if self.abilities.explainer.is_none() {
            self.abilities.explainer = Some(Explainer::open_on(self.backend, &self.bundle)?);
        }
        let Some(explainer) = &self.abilities.explainer else {
            return Err(unable("explain"));
        };
        let number = |name: &String| {
            let found = explainer.classes().iter().position(|class| class == name);
            found.ok_or_else(|| Refusal::value("class", format!("there is no class \"{name}\"")))
        };
        let asked_of = explain::Asked {
            method: asked.method,
            class: asked.class.as_ref().map(number).transpose()?,
            steps: explain::STEPS,
        };
        Ok(explainer.explain(&asked.row, &asked_of)?)
    }
}

impl<'a> Desk<'a> {
    /// Begins a text, or says why not.
    fn begin(&mut self, writer: Option<&'a dyn Writer>, job: Write) {
        if job.pieces.is_closed() {
            return;
        }
        let name = self.name;
        self.name += 1;
        let begun = guarded(|| {
            let writer = writer.ok_or_else(|| unable("write texts"))?;
            let tokens = match &job.prompt {
                Prompt::Text(text) => writer.prompt(text)?,
                Prompt::Dialogue(messages) => writer.dialogue(messages)?,
            };
            let rules = Rules {
                max_tokens: job.max_tokens,
                sampling: job.sampling,
                stop: &job.stop,
                seed: job.seed,
                chosen: 0,
                ignore_end: false,
            };
            let prompt_tokens = tokens.len();
            let texts = self.texts.get_or_insert_with(|| writer.texts());
            texts.begin(name, tokens, &rules)?;
            Ok(prompt_tokens)
        });
        match begun {
            Ok(prompt_tokens) => {
                job.pieces.send(Ok(Piece::Begun { prompt_tokens })).ok();
                self.readers.insert(name, job.pieces);
            }
            Err(refusal) => {
                job.pieces.send(Err(refusal)).ok();
            }
        }
    }

    /// Adds a token to each text; how many were added.
    fn step(&mut self) -> usize {
        let Some(texts) = self.texts.as_mut().filter(|_| !self.readers.is_empty()) else {
            return 0;
        };
        let before = self.readers.len();
        self.readers.retain(|_, pieces| !pieces.is_closed());
        let readers = &mut self.readers;
        if readers.len() < before {
            texts.keep(&|name| readers.contains_key(&name));
        }
        let mut ended = Vec::new();
        let stepped = guarded(|| {
            let mut tell = |name: u64, told: Told| {
                let piece = match told {
                    Told::Text(text) => Piece::Text(text),
                    Told::End(end, tokens) => {
                        ended.push(name);
                        Piece::Done { tokens, end }
                    }
                };
                if let Some(pieces) = readers.get(&name) {
                    pieces.send(Ok(piece)).ok();
                }
            };
            Ok(texts.step(&mut tell)?)
        });
        for name in ended {
            readers.remove(&name);
        }
        stepped.unwrap_or_else(|refusal| {
            // Nobody knows what state they are in.
            for (_, pieces) in readers.drain() {
                pieces.send(Err(refusal.clone())).ok();
            }
            self.texts = None;
            0
        })
    }
}

/// Places that rows take in a batch: one each, and more where texts are very long, since all of a batch are cut into tokens at once.
fn places(rows: &[Row]) -> usize {
    let bytes = |row: &Row| -> usize {
        match row {
            Row::Texts(texts) | Row::Words(texts) => texts.iter().map(String::len).sum(),
            Row::Image(_) => 0,
        }
    };
    let bytes: usize = rows.iter().map(bytes).sum();
    rows.len().max(bytes / PLACE_BYTES)
}

fn refuse<Q, A>(all: Vec<Asking<Q, A>>, refusal: &Refusal) {
    for one in all {
        one.answer.send(Err(refusal.clone())).ok();
    }
}

/// Answers several with one piece of work; where it fails, each alone, so that one wrong row is the failure of one.
///
/// - rows: of a question, taken from it
/// - split: the answer to the first rows of what is left
fn together<Q, A>(
    all: Vec<Asking<Q, A>>,
    rows: impl Fn(&mut Q) -> Vec<Row>,
    work: impl Fn(&[Row]) -> Result<A, Refusal>,
    split: impl Fn(&mut A, usize) -> A,
) {
    let mut all: Vec<_> = all.into_iter().filter(|one| !one.is_left()).collect();
    let taken: Vec<Vec<Row>> = all.iter_mut().map(|one| rows(&mut one.question)).collect();
    if all.len() > 1 {
        let whole = taken.concat();
        if let Ok(mut answer) = guarded(|| work(&whole)) {
            for (one, rows) in all.into_iter().zip(&taken) {
                one.answer.send(Ok(split(&mut answer, rows.len()))).ok();
            }
            return;
        }
    }
    for (one, rows) in all.into_iter().zip(&taken) {
        one.answer.send(guarded(|| work(rows))).ok();
    }
}
