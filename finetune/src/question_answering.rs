//! Extractive question answering. In: questions with contexts, and the spans of them that answer. Out: a model of both ends of an
//! answer.
//!
//! A context that is too long is read in windows that share tokens. A window without the answer points at its first token, and so
//! does a question that has none: Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>, section 4.3.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::backend::AutodiffBackend;
use data::ItemKind;
use model::{HeadKind, SpanFinder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use train::Failure;
use train::job::Start;
use train::job::items::{ItemBatch, ItemData, ItemTargets, Items, Questions, RowTarget};
use train::metrics::{Metric, Metrics};
use train::objective::{LossSums, Tally};
use train::objectives::class_loss::ClassLoss;
use train::recipe::Impossible;
use train::scores::answers::AnswerTally;
use train::scores::best_spans::{AnswersConfig, Found, best_span};

use crate::on_texts::{ItemLoss, OnTexts, TextObjective, TextTally, TextTask};
use crate::pair_classification::check_second;

/// The task; `assets/recipes/question-answering.toml` and the files that it names explain every key.
pub type QuestionAnswering = OnTexts<AnswersTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswersTask {
    /// How contexts are read, and answers chosen.
    pub answers: AnswersRecipe,
}

/// `[answers]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswersRecipe {
    /// Tokens that the windows of a long context share.
    pub stride: usize,
    /// Tokens of the longest answer.
    pub longest: usize,
    /// How much better no answer must be than the best one, as a difference of logits, so that none is given.
    pub no_answer_threshold: f64,
}

impl TextTask for AnswersTask {
    const NAME: &'static str = "question-answering";
    const ABOUT: &'static str = "the span of a text that answers a question, if one does";
    const RECIPE: &'static str = include_str!("../../assets/recipes/question-answering.toml");
    const HEAD: HeadKind = HeadKind::Spans;
    const KIND: ItemKind = ItemKind::Answers;
    const UNIT: &'static str = "questions";
    const NEEDS: &'static str =
        "SQuAD's files, or a table with a context, a question and its answers in each row";

    fn check(&self, data: &Items) -> Result<(), Impossible> {
        check_second(data, "the questions")?;
        let threshold = self.answers.no_answer_threshold;
        if self.answers.longest == 0 {
            let reason = "is 0; an answer has at least one token";
            return Err(Impossible::new("answers.longest", reason));
        }
        if !threshold.is_finite() {
            let reason = format!("is {threshold}; it must be a finite number");
            return Err(Impossible::new("answers.no_answer_threshold", reason));
        }
        Ok(())
    }

    fn stride(&self) -> usize {
        self.answers.stride
    }

    fn head_config(&self, data: &ItemData) -> Value {
        let AnswersRecipe {
            stride, longest, ..
        } = self.answers;
        let no_answer_threshold = self.threshold(data);
        let answers = AnswersConfig {
            stride,
            longest,
            no_answer_threshold,
        };
        json!({ "answers": answers })
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure> {
        let (config, names) = (&data.config, data.config.names(Self::HEAD));
        let model = SpanFinder::draw(config, &start.draw(device, names));
        let model = start.fill(model, names, start.load_for(Self::HEAD, &[])?)?;
        Ok(Spans {
            model,
            longest: self.answers.longest,
            threshold: self.threshold(data).unwrap_or(f64::INFINITY),
        }
        .into())
    }
}

impl AnswersTask {
    /// That of no answer; none where each question to train on has an answer, so that one is always given.
    fn threshold(&self, data: &ItemData) -> Option<f64> {
        let questions = &data.train.questions.windows;
        let count = questions
            .last()
            .map_or(0, |last| last.question as usize + 1);
        let mut answered = vec![false; count];
        for row in data.train.rows.iter() {
            if let RowTarget::Span(ends, window) = row.target {
                answered[questions[window as usize].question as usize] |= ends != [0; 2];
            }
        }
        let always = answered.iter().all(|answered| *answered);
        (!always).then_some(self.answers.no_answer_threshold)
    }
}

/// A model of both ends of an answer, with the mean cross-entropy of the two.
#[derive(Module, Debug)]
pub struct Spans<B: Backend> {
    /// The model.
    pub model: SpanFinder<B>,
    longest: usize,
    threshold: f64,
}

const METRICS: &[Metric] = &[
    Metric::LOSS,
    Metric::higher("exact_match"),
    Metric::higher("f1"),
    Metric::higher("has_answer_f1"),
    Metric::higher("no_answer_f1"),
];

/// The score of a place that is no answer's end: padding.
const NONE: f32 = -1e9;

impl<B: Backend> Spans<B> {
    /// How much each token looks like the first and the last of the answer, `[batch, seq]` each.
    fn logits(&self, batch: &ItemBatch, device: &B::Device) -> [Tensor<B, 2>; 2] {
        let input = batch.inputs.input(device);
        let [rows, seq] = input.tokens.dims();
        let logits = self.model.logits(&input).cast(FloatDType::F32);
        [0, 1].map(|end| {
            let logits = logits.clone().slice([0..rows * seq, end..end + 1]);
            let logits = logits.reshape([rows, seq]);
            match &input.mask_pad {
                Some(padding) => logits.mask_fill(padding.clone(), NONE),
                None => logits,
            }
        })
    }

    fn sums(&self, [starts, ends]: [Tensor<B, 2>; 2], batch: &ItemBatch) -> LossSums<B> {
        let places = |end: usize| -> Vec<u32> {
            match &batch.targets {
                ItemTargets::Spans { ends, .. } => ends.iter().map(|ends| ends[end]).collect(),
                _ => vec![],
            }
        };
        let loss = ClassLoss::default();
        let (starts, ends) = (loss.sums(starts, &places(0)), loss.sums(ends, &places(1)));
        let targets = starts.targets;
        LossSums::new((starts.loss + ends.loss) / 2.0, vec![], targets)
    }
}

impl<B: Backend> ItemLoss<B> for Spans<B> {
    type Model = SpanFinder<B>;

    fn model(&self) -> Self::Model {
        self.model.clone()
    }

    fn metrics(&self) -> &'static [Metric] {
        // Where each question has an answer, the last two say nothing.
        let shown = METRICS.len()
            - if self.threshold == f64::INFINITY {
                2
            } else {
                0
            };
        &METRICS[..shown]
    }

    fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B> {
        self.sums(self.logits(batch, device), batch)
    }

    fn tally(&self, batch: &ItemBatch, device: &B::Device) -> TextTally {
        let logits = self.logits(batch, device);
        let mut tally = TextTally::read(self.sums(logits.clone(), batch), &[]);
        let [starts, ends] =
            logits.map(|logits| logits.into_data().iter::<f32>().collect::<Vec<_>>());
        let mut answers = SpanTally {
            threshold: self.threshold,
            ..SpanTally::default()
        };
        if let ItemTargets::Spans {
            windows, questions, ..
        } = &batch.targets
        {
            answers.questions = Some(questions.clone());
            let rows = starts
                .chunks(batch.inputs.seq)
                .zip(ends.chunks(batch.inputs.seq));
            for (&window, (starts, ends)) in windows.iter().zip(rows) {
                let window = &questions.windows[window as usize];
                let found = best_span(starts, ends, &window.bytes, self.longest);
                answers.add(window.question, found);
            }
        }
        tally.answers = Some(answers);
        tally
    }
}

/// The best answers to the questions of a split.
#[derive(Clone, Debug, Default)]
pub struct SpanTally {
    questions: Option<Arc<Questions>>,
    found: BTreeMap<u32, Found>,
    threshold: f64,
}

impl SpanTally {
    fn add(&mut self, question: u32, found: Found) {
        self.found
            .entry(question)
            .and_modify(|best| *best = best.or(found))
            .or_insert(found);
    }

    fn judged(&self) -> AnswerTally {
        let mut tally = AnswerTally::new(self.threshold);
        let Some(questions) = &self.questions else {
            return tally;
        };
        for (&question, found) in &self.found {
            let question = question as usize;
            let answer = found.text(&questions.contexts[question]);
            let score = found.no_answer_score();
            tally.add(answer, score, &questions.answers[question]);
        }
        tally
    }
}

impl Tally for SpanTally {
    fn merge(&mut self, other: Self) {
        self.questions = self.questions.take().or(other.questions);
        self.threshold = other.threshold;
        for (question, found) in other.found {
            self.add(question, found);
        }
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.judged().metrics();
        metrics.retain(|_, figure| !figure.is_nan());
        metrics
    }

    fn details(&self) -> Option<Value> {
        self.judged().details()
    }
}
