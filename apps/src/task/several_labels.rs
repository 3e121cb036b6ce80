//! Several classes a row or none, of texts or images. In: scores. Out: the probability of each class by itself; F1 over labels,
//! average precision.

use data::ItemKind;
use train::Failure;
use train::scores::many_labels::ManyLabelsTally;

use super::image_scores::Seen;
use super::one_label::best;
use super::scores::{Scored, Scorer, sigmoid};
use super::{
    Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally, other_kind,
};

/// Several classes a row.
pub struct SeveralLabels {
    scorer: Box<dyn Scorer>,
    classes: Vec<String>,
}

impl SeveralLabels {
    /// - scorer: gives a score a class
    pub fn new(scorer: Box<dyn Scorer>, classes: Vec<String>) -> Self {
        Self { scorer, classes }
    }

    fn said(&self, scored: &Scored, asked: &Asked) -> Said {
        let output = |logits: &Vec<f32>| {
            let shares: Vec<f32> = logits.iter().copied().map(sigmoid).collect();
            let mut found = best(&shares, &self.classes, asked.top);
            if let Some(threshold) = asked.threshold {
                found.retain(|one| one.figure.number() >= threshold);
            }
            Output::Classes(found)
        };
        Said {
            outputs: scored.rows.iter().map(output).collect(),
            cut: scored.cut,
        }
    }
}

/// Binary cross-entropy of one class.
fn loss(logit: f32, is_there: bool) -> f64 {
    let logit = f64::from(if is_there { -logit } else { logit });
    logit.max(0.0) + (-logit.abs()).exp().ln_1p()
}

impl Task for SeveralLabels {
    fn name(&self) -> &'static str {
        "labels"
    }

    fn reads(&self) -> Reads {
        self.scorer.reads()
    }

    fn labelled(&self) -> Labelled {
        Labelled {
            kind: Some(ItemKind::Labels),
            text: "text",
            second: "",
            target: if self.reads() == Reads::Image {
                ""
            } else {
                "labels"
            },
        }
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn view(&self) -> Option<Seen> {
        self.scorer.view()
    }

    fn max_length(&self) -> Option<usize> {
        self.scorer.max_length()
    }

    fn note(&self) -> Option<&'static str> {
        Some("each class has a probability by itself; they need not sum to 1")
    }

    fn has_threshold(&self) -> bool {
        true
    }

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        let scored = self.scorer.scores(rows, asked.batch_size)?;
        Ok(self.said(&scored, asked))
    }

    fn tally(&self, settings: &Settings) -> Result<TaskTally, Failure> {
        let threshold = settings.threshold()?.unwrap_or(0.5);
        Ok(TaskTally {
            labels: Some(ManyLabelsTally::new(self.classes.len(), threshold)),
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
        let n_classes = self.classes.len();
        let mut truths = vec![false; targets.len() * n_classes];
        for (row, target) in targets.iter().enumerate() {
            let Target::Classes(classes) = target else {
                return Err(other_kind(self.name(), "target"));
            };
            for &class in classes {
                truths[row * n_classes + class as usize] = true;
            }
        }
        let scored = self.scorer.scores(rows, asked.batch_size)?;
        let logits = scored.rows.concat();
        let losses = logits.iter().zip(&truths);
        let losses = losses.map(|(&logit, &is_there)| loss(logit, is_there));
        let sum = losses.sum::<f64>() / n_classes.max(1) as f64;
        tally.add_loss(sum, targets.len() as f64);
        let shares: Vec<f32> = logits.iter().copied().map(sigmoid).collect();
        let mut judged = tally.labels.take().unwrap_or_default();
        judged.add(&shares, &truths);
        tally.labels = Some(judged);
        Ok(self.said(&scored, asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_the_logarithm_of_the_probability() {
        // A logit of ln 3 is a probability of 3/4.
        let ln3 = 3f32.ln();
        assert!((loss(ln3, true) - (4.0f64 / 3.0).ln()).abs() < 1e-6);
        assert!((loss(ln3, false) - 4f64.ln()).abs() < 1e-6);
        assert!((loss(-80.0, true) - 80.0).abs() < 1e-6);
    }
}
