//! A number a row, or several: regression, the likeness of a pair. In: scores. Out: values; errors and correlations.

use data::ItemKind;
use model::Bundle;
use serde::Deserialize;
use train::Failure;
use train::scores::judged::merge;
use train::scores::values::ValuesTally;

use super::of_scores::Meaning;
use super::tally::Cost;
use super::{Asked, Output, Settings, Target, TaskTally, other_kind};
use crate::guess::{self, Figure};

/// Values.
pub struct Values {
    /// Of those of training; nothing where the bundle does not say it.
    deviation: Option<f64>,
}

/// What `finetune` writes of values.
#[derive(Deserialize)]
struct SaidScale {
    value_deviation: Option<f64>,
}

impl Values {
    /// Those of a bundle.
    ///
    /// # Errors
    ///
    /// A bundle that says something else of them than a number.
    pub fn of(bundle: &Bundle) -> Result<Self, Failure> {
        let SaidScale { value_deviation } = bundle.head_config()?;
        Ok(Self {
            deviation: value_deviation.filter(|deviation| *deviation > 0.0),
        })
    }

    /// What the run counts as its loss, if it is known.
    fn cost(&self, settings: &Settings) -> Option<Cost> {
        match settings.text("loss", "kind")? {
            "mse" => self.deviation.map(Cost::Square),
            "mae" => self.deviation.map(Cost::Absolute),
            _ => None,
        }
    }
}

impl Meaning for Values {
    fn name(&self) -> &'static str {
        "regression"
    }

    fn target(&self) -> (ItemKind, &'static str) {
        (ItemKind::Value, "score")
    }

    fn note(&self) -> Option<&'static str> {
        Some("the figures are values, not probabilities")
    }

    fn output(&self, scores: &[f32], names: &[String], asked: &Asked) -> Output {
        let figures: Vec<Figure> = scores.iter().copied().map(Figure::Value).collect();
        Output::Classes(guess::best(&figures, asked.top, |value| {
            names[value].clone()
        }))
    }

    fn tally(&self, names: &[String], settings: &Settings) -> Result<TaskTally, Failure> {
        if names.len() != 1 {
            let n = names.len();
            return Err(Failure::input(format!(
                "the model gives {n} values a row, and files have one; apps evaluate judges models of one value"
            )));
        }
        Ok(TaskTally {
            cost: self.cost(settings),
            ..TaskTally::of(ValuesTally::new(1))
        })
    }

    fn judge(
        &self,
        rows: &[Vec<f32>],
        _: &[String],
        targets: &[Target],
        tally: &mut TaskTally,
    ) -> Result<(), Failure> {
        let value = |target: &Target| match target {
            Target::Value(value) => Ok(f64::from(*value)),
            _ => Err(other_kind(self.name(), "target")),
        };
        let truths: Vec<f64> = targets.iter().map(value).collect::<Result<_, _>>()?;
        let values = rows.iter().flatten();
        let values: Vec<f64> = values.map(|&value| f64::from(value)).collect();
        let off = values
            .iter()
            .zip(&truths)
            .map(|(value, truth)| value - truth);
        let loss: Option<f64> = match tally.cost {
            Some(Cost::Square(deviation)) => Some(off.map(|off| (off / deviation).powi(2)).sum()),
            Some(Cost::Absolute(deviation)) => Some(off.map(|off| (off / deviation).abs()).sum()),
            Some(Cost::Mask(_)) | None => None,
        };
        if let Some(loss) = loss {
            tally.add_loss(loss, truths.len() as f64);
        }
        let mut judged = ValuesTally::new(1);
        judged.add(&values, &truths);
        merge(&mut tally.judged.values, Some(judged));
        Ok(())
    }
}
