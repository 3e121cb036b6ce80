//! The right one of several choices. In: questions with their choices. Out: the choices, the likeliest first.

use burn::prelude::*;
use data::{CutTexts, Encoded, ItemKind};
use model::{Bundle, ChoiceModel, HeadKind};
use train::Failure;
use train::objectives::class_tally::{largest, negative_log_likelihood};

use super::one_label::best;
use super::reader::Reader;
use super::scores::softmax;
use super::{
    Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally, by_length,
    other_kind, texts_of,
};
use crate::open;

/// Chooses.
pub struct Choices<B: Backend> {
    model: ChoiceModel<B>,
    reader: Reader<B>,
}

impl<B: Backend> Choices<B> {
    /// Loads a model that chooses.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let (reader, config) = Reader::open(bundle, device)?;
        let names = open::require(bundle, HeadKind::Choices)?;
        let model = ChoiceModel::draw(&config, &bundle.draw(device, names));
        Ok(Self {
            model: open::filled(bundle, model, names)?,
            reader,
        })
    }

    /// Scores of the choices of each question, and what is cut of them and of the question.
    fn scores(
        &self,
        texts: &[&[String]],
        asked: &Asked,
    ) -> Result<(Vec<Vec<f32>>, CutTexts), Failure> {
        let pair = |texts: &&[String]| -> Vec<(String, String)> {
            let (question, choices) = (&texts[0], &texts[1..]);
            choices
                .iter()
                .map(|choice| (question.clone(), choice.clone()))
                .collect()
        };
        let pairs: Vec<(String, String)> = texts.iter().flat_map(pair).collect();
        let parts: Vec<(&str, Option<&str>)> = pairs
            .iter()
            .map(|(question, choice)| (question.as_str(), Some(choice.as_str())))
            .collect();
        let reader = &self.reader;
        let encoded = reader.tokenizer.encode_parts(&parts, reader.max_length)?;
        let lengths: Vec<usize> = encoded.iter().map(|row| row.ids.len()).collect();
        let mut scored = vec![0.0; encoded.len()];
        for picked in by_length(&lengths, asked.batch_size) {
            let rows = picked.iter().map(|&row| Encoded::pair(&encoded[row]));
            let batch = reader.batch(rows);
            let scores = self
                .model
                .logits(&reader.input(&batch), reader.places(&batch));
            let scores = scores.into_data();
            for (&row, score) in picked.iter().zip(scores.iter::<f32>()) {
                scored[row] = score;
            }
        }
        let mut scored = scored.into_iter();
        let of_question = |texts: &&[String]| scored.by_ref().take(texts.len() - 1).collect();
        Ok((
            texts.iter().map(of_question).collect(),
            CutTexts::of(&encoded),
        ))
    }
}

fn said(texts: &[&[String]], scores: &[Vec<f32>], cut: CutTexts, top: usize) -> Said {
    let rows = texts.iter().zip(scores);
    let outputs =
        rows.map(|(texts, scores)| Output::Choices(best(&softmax(scores), &texts[1..], top)));
    Said {
        outputs: outputs.collect(),
        cut,
    }
}

impl<B: Backend> Task for Choices<B> {
    fn name(&self) -> &'static str {
        "multiple-choice"
    }

    fn reads(&self) -> Reads {
        Reads::Choices
    }

    fn labelled(&self) -> Labelled {
        Labelled {
            kind: Some(ItemKind::Choice),
            text: "question",
            second: "choices",
            target: "answer",
        }
    }

    fn max_length(&self) -> Option<usize> {
        Some(self.reader.max_length)
    }

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        let texts = texts_of(rows, 3, self.name())?;
        let (scores, cut) = self.scores(&texts, asked)?;
        Ok(said(&texts, &scores, cut, asked.top))
    }

    fn tally(&self, _: &Settings) -> Result<TaskTally, Failure> {
        Ok(TaskTally::default())
    }

    fn evaluate(
        &self,
        rows: &[Row],
        targets: &[Target],
        asked: &Asked,
        tally: &mut TaskTally,
    ) -> Result<Said, Failure> {
        let texts = texts_of(rows, 3, self.name())?;
        let (scores, cut) = self.scores(&texts, asked)?;
        for (scores, target) in scores.iter().zip(targets) {
            let Target::Choice(right) = target else {
                return Err(other_kind(self.name(), "target"));
            };
            tally.add_loss(negative_log_likelihood(scores, *right), 1.0);
            tally.add_right(f64::from(u8::from(largest(scores) == *right)), 1.0);
        }
        Ok(said(&texts, &scores, cut, asked.top))
    }
}
