//! Several classes a row or none. In: scores. Out: the probability of each class by itself; F1 over labels, average precision.

use data::ItemKind;
use train::Failure;
use train::scores::many_labels::ManyLabelsTally;

use super::of_scores::Meaning;
use super::one_label::best;
use super::scores::sigmoid;
use super::{Asked, Output, Settings, Target, TaskTally, other_kind};

/// Several classes a row.
pub struct SeveralLabels;

/// Binary cross-entropy of one class.
fn loss(logit: f32, is_there: bool) -> f64 {
    let logit = f64::from(if is_there { -logit } else { logit });
    logit.max(0.0) + (-logit.abs()).exp().ln_1p()
}

impl Meaning for SeveralLabels {
    fn name(&self) -> &'static str {
        "labels"
    }

    fn target(&self) -> (ItemKind, &'static str) {
        (ItemKind::Labels, "labels")
    }

    fn note(&self) -> Option<&'static str> {
        Some("each class has a probability by itself; they need not sum to 1")
    }

    fn has_threshold(&self) -> bool {
        true
    }

    fn output(&self, scores: &[f32], classes: &[String], asked: &Asked) -> Output {
        let shares: Vec<f32> = scores.iter().copied().map(sigmoid).collect();
        let mut found = best(&shares, classes, asked.top);
        if let Some(threshold) = asked.threshold {
            found.retain(|one| one.figure.number() >= threshold);
        }
        Output::Classes(found)
    }

    fn tally(&self, classes: &[String], settings: &Settings) -> Result<TaskTally, Failure> {
        let threshold = settings.threshold()?.unwrap_or(0.5);
        let labels = ManyLabelsTally::new(classes.len(), threshold);
        Ok(TaskTally::of(labels))
    }

    fn judge(
        &self,
        rows: &[Vec<f32>],
        classes: &[String],
        targets: &[Target],
        tally: &mut TaskTally,
    ) -> Result<(), Failure> {
        let n_classes = classes.len();
        let mut truths = vec![false; targets.len() * n_classes];
        for (row, target) in targets.iter().enumerate() {
            let Target::Classes(classes) = target else {
                return Err(other_kind(self.name(), "target"));
            };
            for &class in classes {
                truths[row * n_classes + class as usize] = true;
            }
        }
        let logits = rows.concat();
        let losses = logits.iter().zip(&truths);
        let losses = losses.map(|(&logit, &is_there)| loss(logit, is_there));
        let sum = losses.sum::<f64>() / n_classes.max(1) as f64;
        tally.add_loss(sum, targets.len() as f64);
        let shares: Vec<f32> = logits.iter().copied().map(sigmoid).collect();
        if let Some(judged) = &mut tally.judged.labels {
            judged.add(&shares, &truths);
        }
        Ok(())
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
