//! A number a row, or several: regression, the likeness of a pair. In: scores. Out: values; errors and correlations.

use data::ItemKind;
use train::Failure;
use train::scores::values::ValuesTally;

use super::image_scores::Seen;
use super::scores::{Scored, Scorer};
use super::{Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally};
use super::{other_kind, tally::merge};
use crate::guess::{self, Figure};

/// Values.
pub struct Values {
    scorer: Box<dyn Scorer>,
    names: Vec<String>,
}

impl Values {
    /// - scorer: gives the values
    /// - names: of the values
    pub fn new(scorer: Box<dyn Scorer>, names: Vec<String>) -> Self {
        Self { scorer, names }
    }

    fn said(&self, scored: &Scored, top: usize) -> Said {
        let output = |values: &Vec<f32>| {
            let figures: Vec<Figure> = values.iter().copied().map(Figure::Value).collect();
            Output::Classes(guess::best(&figures, top, |value| {
                self.names[value].clone()
            }))
        };
        Said {
            outputs: scored.rows.iter().map(output).collect(),
            cut: scored.cut,
        }
    }
}

impl Task for Values {
    fn name(&self) -> &'static str {
        "regression"
    }

    fn reads(&self) -> Reads {
        self.scorer.reads()
    }

    fn labelled(&self) -> Labelled {
        let is_image = self.reads() == Reads::Image;
        Labelled {
            kind: Some(ItemKind::Value),
            text: "text",
            second: "",
            target: if is_image { "" } else { "score" },
        }
    }

    fn classes(&self) -> &[String] {
        &self.names
    }

    fn view(&self) -> Option<Seen> {
        self.scorer.view()
    }

    fn max_length(&self) -> Option<usize> {
        self.scorer.max_length()
    }

    fn note(&self) -> Option<&'static str> {
        Some("the figures are values, not probabilities")
    }

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        let scored = self.scorer.scores(rows, asked.batch_size)?;
        Ok(self.said(&scored, asked.top))
    }

    fn tally(&self, _: &Settings) -> Result<TaskTally, Failure> {
        if self.names.len() != 1 {
            let n = self.names.len();
            return Err(Failure::input(format!(
                "the model gives {n} values a row, and files have one; apps evaluate judges models of one value"
            )));
        }
        Ok(TaskTally {
            values: Some(ValuesTally::new(1)),
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
        let value = |target: &Target| match target {
            Target::Value(value) => Ok(f64::from(*value)),
            _ => Err(other_kind(self.name(), "target")),
        };
        let truths: Vec<f64> = targets.iter().map(value).collect::<Result<_, _>>()?;
        let scored = self.scorer.scores(rows, asked.batch_size)?;
        let values = scored.rows.iter().flatten();
        let values: Vec<f64> = values.map(|&value| f64::from(value)).collect();
        let mut judged = ValuesTally::new(1);
        judged.add(&values, &truths);
        merge(&mut tally.values, judged);
        Ok(self.said(&scored, asked.top))
    }
}
