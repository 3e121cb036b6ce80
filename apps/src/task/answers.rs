//! Answers to questions that are spans of a text. In: contexts and questions. Out: the best answers of each, with their places.

use std::collections::HashSet;

use burn::prelude::*;
use data::{CutTexts, Encoded, ItemKind};
use model::{Bundle, HeadKind, SpanFinder};
use train::Failure;
use train::objectives::class_tally::negative_log_likelihood;
use train::scores::answers::AnswerTally;
use train::scores::best_spans::{AnswersConfig, Candidate, Found, candidates, tokens_of};

use super::prediction::AnswerGuess;
use super::reader::Reader;
use super::{
    Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally, by_length,
    other_kind, texts_of,
};
use crate::open;

/// Answers questions.
pub struct Answers<B: Backend> {
    model: SpanFinder<B>,
    reader: Reader<B>,
    answers: AnswersConfig,
}

/// A window of a context, with how much each of its tokens looks like an answer's first and last.
struct Window {
    bytes: Vec<Option<[u32; 2]>>,
    starts: Vec<f32>,
    ends: Vec<f32>,
}

impl<B: Backend> Answers<B> {
    /// Loads a model that finds answers.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let (reader, config) = Reader::open(bundle, device)?;
        let names = open::require(bundle, HeadKind::Spans)?;
        let model = SpanFinder::draw(&config, &bundle.draw(device, names));
        Ok(Self {
            model: open::filled(bundle, model, names)?,
            answers: AnswersConfig::of(bundle, reader.max_length)?,
            reader,
        })
    }

    /// The windows of each context, and what is cut of the questions. Contexts of any length are read.
    fn read(&self, texts: &[&[String]], asked: &Asked) -> Result<Read, Failure> {
        let turned: Vec<(&str, &str)> = texts
            .iter()
            .map(|texts| (texts[1].as_str(), texts[0].as_str()))
            .collect();
        let Reader {
            tokenizer,
            max_length,
            ..
        } = &self.reader;
        let encoded = tokenizer.encode_windows(&turned, *max_length, self.answers.stride)?;
        let mut cut = CutTexts::default();
        let mut all: Vec<(usize, usize, &Encoded)> = Vec::new();
        for (row, windows) in encoded.iter().enumerate() {
            // A tokenizer without special tokens may find none in a text.
            let numbered = windows.iter().enumerate();
            let numbered = numbered.filter(|(_, window)| !window.ids.is_empty());
            all.extend(numbered.map(|(number, window)| (row, number, window)));
            cut.add(CutTexts::of(&windows[..windows.len().min(1)]));
        }
        let lengths: Vec<usize> = all.iter().map(|(.., window)| window.ids.len()).collect();
        let windows = |one: &Vec<Encoded>| one.iter().map(|_| None).collect();
        let mut found: Vec<Vec<Option<Window>>> = encoded.iter().map(windows).collect();
        for picked in by_length(&lengths, asked.batch_size) {
            let pairs = picked.iter().map(|&at| all[at].2.pair());
            let batch = self.reader.batch(pairs);
            let logits = self.model.logits(&self.reader.input(&batch));
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            for (&at, logits) in picked.iter().zip(logits.chunks(batch.seq * 2)) {
                let (row, number, window) = all[at];
                let end = |end: usize| logits.iter().skip(end).step_by(2).copied();
                let of_tokens = |which| end(which).take(window.ids.len()).collect();
                found[row][number] = Some(Window {
                    bytes: window.bytes_of(1),
                    starts: of_tokens(0),
                    ends: of_tokens(1),
                });
            }
        }
        let windows = found.into_iter();
        Ok(Read {
            rows: windows
                .map(|all| all.into_iter().flatten().collect())
                .collect(),
            cut,
        })
    }

    fn said(&self, texts: &[&[String]], read: &Read, top: usize) -> Said {
        let rows = texts.iter().zip(&read.rows);
        let outputs = rows.map(|(texts, windows)| {
            let mut all = Vec::new();
            let mut least = f32::INFINITY;
            for window in windows {
                all.extend(self.candidates(window));
                least = least.min(window.starts[0] + window.ends[0]);
            }
            let threshold = self.answers.no_answer_threshold;
            let none = threshold.filter(|_| !windows.is_empty());
            let none = none.map(|threshold| least - threshold as f32);
            Output::Answers(best(all, none, &texts[0], top))
        });
        Said {
            outputs: outputs.collect(),
            cut: read.cut,
        }
    }

    fn candidates(&self, window: &Window) -> Vec<Candidate> {
        candidates(
            &window.starts,
            &window.ends,
            &window.bytes,
            self.answers.longest,
        )
    }

    /// The best answer of all windows.
    fn best(&self, windows: &[Window]) -> Found {
        let found = windows.iter().map(|window| Found {
            best: self
                .candidates(window)
                .first()
                .map(|best| (best.score, best.bytes)),
            none: window.starts[0] + window.ends[0],
        });
        found.reduce(Found::or).unwrap_or_default()
    }
}

struct Read {
    /// Windows of each context.
    rows: Vec<Vec<Window>>,
    cut: CutTexts,
}

/// The best answers, each text once.
///
/// - none: how good it is to give none, if that may be
fn best(mut all: Vec<Candidate>, none: Option<f32>, context: &str, top: usize) -> Vec<AnswerGuess> {
    all.extend(none.map(|score| Candidate {
        score,
        bytes: [0, 0],
    }));
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut seen = HashSet::new();
    // Windows overlap, so that a span may be found twice.
    all.retain(|one| seen.insert(one.bytes));
    let highest = all.first().map_or(0.0, |best| best.score);
    let shares: Vec<f32> = all.iter().map(|one| (one.score - highest).exp()).collect();
    let sum: f32 = shares.iter().sum();
    let characters = |to: u32| {
        context
            .get(..to as usize)
            .map_or(0, |before| before.chars().count())
    };
    let guess = |(one, share): (&Candidate, f32)| {
        let [from, to] = one.bytes;
        AnswerGuess {
            text: context
                .get(from as usize..to as usize)
                .unwrap_or_default()
                .into(),
            start: characters(from),
            end: characters(to),
            probability: share / sum,
        }
    };
    all.iter().zip(shares).take(top).map(guess).collect()
}

/// Bytes of the first answer in its context, which is the one that is learned.
fn bytes(answers: &[data::Answer], context: &str) -> Option<[u32; 2]> {
    let answer = answers.first()?;
    let mut places = context.char_indices().map(|(at, _)| at);
    let from = places.nth(answer.start).unwrap_or(context.len());
    Some([from as u32, (from + answer.text.len()) as u32])
}

impl<B: Backend> Task for Answers<B> {
    fn name(&self) -> &'static str {
        "question-answering"
    }

    fn reads(&self) -> Reads {
        Reads::Question
    }

    fn labelled(&self) -> Labelled {
        Labelled {
            kind: Some(ItemKind::Answers),
            text: "context",
            second: "question",
            target: "answers",
        }
    }

    fn max_length(&self) -> Option<usize> {
        Some(self.reader.max_length)
    }

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        let texts = texts_of(rows, 2, self.name())?;
        Ok(self.said(&texts, &self.read(&texts, asked)?, asked.top))
    }

    fn tally(&self, _: &Settings) -> Result<TaskTally, Failure> {
        let threshold = self.answers.no_answer_threshold.unwrap_or(f64::INFINITY);
        Ok(TaskTally {
            answers: Some(AnswerTally::new(threshold)),
            ..TaskTally::default()
        })
    }

    fn evaluate(
        &self,
        rows: &[Row],
        targets: &[Target],
        asked: &Asked,
        tally: &mut TaskTally,
    ) -> Result<Said, Failure> {
        let texts = texts_of(rows, 2, self.name())?;
        let read = self.read(&texts, asked)?;
        for ((texts, windows), target) in texts.iter().zip(&read.rows).zip(targets) {
            let Target::Answers(answers) = target else {
                return Err(other_kind(self.name(), "target"));
            };
            let context = &texts[0];
            let first = bytes(answers, context);
            for window in windows {
                let ends = first.and_then(|first| tokens_of(&window.bytes, first));
                let [start, end] = ends.unwrap_or_default().map(|at| at as usize);
                let loss = negative_log_likelihood(&window.starts, start)
                    + negative_log_likelihood(&window.ends, end);
                tally.add_loss(loss / 2.0, 1.0);
            }
            let found = self.best(windows);
            let truths: Vec<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
            if let Some(judged) = &mut tally.answers {
                judged.add(found.text(context), found.no_answer_score(), &truths);
            }
        }
        Ok(self.said(&texts, &read, asked.top))
    }
}
