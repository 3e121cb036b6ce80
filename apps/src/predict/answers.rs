//! Answers to questions that are spans of a text. In: a model that finds answers, contexts and questions. Out: the best answers of
//! each, with their places.

use burn::prelude::*;
use data::{CutTexts, Encoded, TextTokenizer};
use model::{Bundle, HeadKind, SpanFinder};
use serde::Serialize;
use train::Failure;
use train::job::text::TokenBatch;
use train::scores::best_spans::{AnswersConfig, Candidate, candidates};

use super::BATCH;
use crate::open::{self, TextParts};

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerGuess {
    /// As the context has it; empty where the best is to give none.
    pub text: String,
    /// Its first character in the context, counted in Unicode's code points.
    pub start: usize,
    /// The character behind its last.
    pub end: usize,
    /// Among all that were looked at; no answer is one of them, unless each question of training had one.
    pub probability: f32,
}

/// Answers questions.
pub struct AnswerPredictor<B: Backend> {
    model: SpanFinder<B>,
    tokenizer: TextTokenizer,
    max_length: usize,
    types: bool,
    answers: AnswersConfig,
    device: B::Device,
}

impl<B: Backend> AnswerPredictor<B> {
    /// Tokens of the longest window.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Loads a model that finds answers.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let TextParts {
            config,
            tokenizer,
            max_length,
        } = open::text_parts(bundle)?;
        let names = open::require(bundle, HeadKind::Spans)?;
        let model = SpanFinder::draw(&config, &bundle.draw(device, names));
        Ok(Self {
            model: open::filled(bundle, model, names)?,
            types: config.describe().segments > 1,
            answers: AnswersConfig::of(bundle, max_length)?,
            tokenizer,
            max_length,
            device: device.clone(),
        })
    }

    /// The `top` best answers to each question, the best first, and what is cut of the questions. Contexts of any length are
    /// read, in windows.
    ///
    /// - rows: contexts and their questions
    ///
    /// # Errors
    ///
    /// The tokenizer fails.
    pub fn predict(
        &self,
        rows: &[(&str, &str)],
        top: usize,
    ) -> Result<(Vec<Vec<AnswerGuess>>, CutTexts), Failure> {
        let turned: Vec<(&str, &str)> = rows
            .iter()
            .map(|&(context, question)| (question, context))
            .collect();
        let encoded =
            self.tokenizer
                .encode_windows(&turned, self.max_length, self.answers.stride)?;
        let mut cut = CutTexts::default();
        let mut windows: Vec<(usize, &Encoded)> = Vec::new();
        for (row, all) in encoded.iter().enumerate() {
            windows.extend(all.iter().map(|window| (row, window)));
            cut.add(CutTexts::of(&all[..all.len().min(1)]));
        }
        windows.sort_by_key(|(_, window)| window.ids.len());
        // Of each question: candidates of all windows, and the least score of no answer.
        let mut found: Vec<(Vec<Candidate>, f32)> = vec![(vec![], f32::INFINITY); rows.len()];
        for picked in windows.chunks(BATCH) {
            let pairs = picked.iter().map(|(_, window)| window.pair());
            let batch = TokenBatch::of_pairs(pairs, self.tokenizer.pad(), self.types);
            let logits = self.model.logits(&batch.input(&self.device));
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            for ((row, window), logits) in picked.iter().zip(logits.chunks(batch.seq * 2)) {
                let end = |end: usize| logits.iter().skip(end).step_by(2).copied();
                let (starts, ends): (Vec<f32>, Vec<f32>) = (end(0).collect(), end(1).collect());
                let bytes = window.bytes_of(1);
                let (all, none) = &mut found[*row];
                all.extend(candidates(&starts, &ends, &bytes, self.answers.longest));
                *none = none.min(starts[0] + ends[0]);
            }
        }
        let threshold = self.answers.no_answer_threshold;
        let answers = found.into_iter().zip(rows);
        let answers = answers.map(|((all, none), (context, _))| {
            let none = threshold.map(|threshold| none - threshold as f32);
            best(all, none, context, top)
        });
        Ok((answers.collect(), cut))
    }
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
    let mut seen = std::collections::HashSet::new();
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
