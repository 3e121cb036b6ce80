//! What a classifier of several labels a row is judged by. In: a score for each row and class. Out: figures of a split.
//!
//! Definitions are scikit-learn's, with 0 where nothing is divided by nothing; but means over classes leave out those that
//! say nothing about the model, as each figure of [`ManyLabelsTally::metrics`] says.

use serde_json::{Value, json};

use super::{Counts, descending, mean};
use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;

/// Names of what a [`ManyLabelsTally`] reports.
pub const METRICS: &[Metric] = &[
    Metric::higher("micro_f1"),
    Metric::higher("macro_f1"),
    Metric::higher("micro_precision"),
    Metric::higher("macro_precision"),
    Metric::higher("micro_recall"),
    Metric::higher("macro_recall"),
    Metric::higher("subset_accuracy"),
    Metric::lower("hamming_loss"),
    Metric::higher("mean_average_precision"),
    Metric::higher("roc_auc"),
];

/// The scores of a split.
///
/// Memory: 4 bytes for each row and class, as average precision and the area under the ROC curve need every score.
#[derive(Clone, Debug)]
pub struct ManyLabelsTally {
    threshold: f32,
    classes: Vec<Scores>,
    rows: u64,
    /// All of whose labels are right.
    right_rows: u64,
}

/// The scores of a class.
#[derive(Clone, Debug, Default)]
struct Scores {
    /// In rows that have the label.
    present: Vec<f32>,
    /// In the others.
    absent: Vec<f32>,
}

impl ManyLabelsTally {
    /// Of a split without rows.
    ///
    /// - threshold: the lowest score of a label that is predicted
    pub fn new(n_classes: usize, threshold: f32) -> Self {
        Self {
            threshold,
            classes: vec![Scores::default(); n_classes],
            rows: 0,
            right_rows: 0,
        }
    }

    /// Takes in a batch. A score that is NaN predicts nothing and ranks with negative infinity.
    ///
    /// - scores: `[batch, n_classes]`, row-major
    /// - truths: the same, whether a row has a label
    ///
    /// # Panics
    ///
    /// If the slices differ in length or are not whole rows, or there are no classes.
    pub fn add(&mut self, scores: &[f32], truths: &[bool]) {
        let n_classes = self.classes.len();
        assert_eq!(scores.len(), truths.len(), "a truth for each score");
        assert!(
            scores.len().is_multiple_of(n_classes),
            "{n_classes} classes"
        );
        let rows = scores
            .chunks_exact(n_classes)
            .zip(truths.chunks_exact(n_classes));
        for (scores, truths) in rows {
            let mut right = true;
            for ((class, &score), &truth) in self.classes.iter_mut().zip(scores).zip(truths) {
                right &= (score >= self.threshold) == truth;
                let score = if score.is_nan() {
                    f32::NEG_INFINITY
                } else {
                    score
                };
                let side = if truth {
                    &mut class.present
                } else {
                    &mut class.absent
                };
                side.push(score);
            }
            self.rows += 1;
            self.right_rows += u64::from(right);
        }
    }

    fn counts(&self, class: &Scores) -> Counts {
        let above = |scores: &[f32]| {
            let above = scores.iter().filter(|&&score| score >= self.threshold);
            above.count() as u64
        };
        let hits = above(&class.present);
        Counts {
            hits,
            predicted: hits + above(&class.absent),
            present: class.present.len() as u64,
        }
    }
}

impl Default for ManyLabelsTally {
    /// Takes on classes and threshold of what is merged into it.
    fn default() -> Self {
        Self::new(0, 0.5)
    }
}

impl Tally for ManyLabelsTally {
    fn merge(&mut self, other: Self) {
        if self.classes.is_empty() {
            *self = other;
            return;
        }
        for (class, other) in self.classes.iter_mut().zip(other.classes) {
            class.present.extend(other.present);
            class.absent.extend(other.absent);
        }
        self.rows += other.rows;
        self.right_rows += other.right_rows;
    }

    /// Of labels predicted at the threshold:
    ///
    /// - `micro_f1`, `micro_precision`, `micro_recall`: over all labels of all classes at once
    /// - `macro_f1`, `macro_precision`, `macro_recall`: means over the classes that occur in truth or prediction
    /// - `subset_accuracy`: the share of rows all of whose labels are right
    /// - `hamming_loss`: the share of labels that are wrong
    ///
    /// Of scores:
    ///
    /// - `mean_average_precision`: the mean over the classes that occur in the truth
    /// - `roc_auc`: the mean area under the ROC curve over the classes that some rows have and others do not
    ///
    /// NaN where there are no rows, or no class is left to take a mean over.
    fn metrics(&self) -> Metrics {
        if self.rows == 0 {
            let nothing = METRICS.iter().map(|metric| (metric.name.into(), f64::NAN));
            return nothing.collect();
        }
        let counts: Vec<Counts> = self
            .classes
            .iter()
            .map(|class| self.counts(class))
            .collect();
        let sum: Counts = counts.iter().copied().sum();
        let occurring = || counts.iter().filter(|counts| counts.occurs());
        let labels = self.rows as f64 * self.classes.len() as f64;
        let wrong = sum.predicted + sum.present - 2 * sum.hits;
        let precisions = self.classes.iter().filter_map(Scores::average_precision);
        let figures = [
            ("micro_f1", sum.f1()),
            ("macro_f1", mean(occurring().map(Counts::f1))),
            ("micro_precision", sum.precision()),
            ("macro_precision", mean(occurring().map(Counts::precision))),
            ("micro_recall", sum.recall()),
            ("macro_recall", mean(occurring().map(Counts::recall))),
            ("subset_accuracy", self.right_rows as f64 / self.rows as f64),
            ("hamming_loss", wrong as f64 / labels),
            ("mean_average_precision", mean(precisions)),
            (
                "roc_auc",
                mean(self.classes.iter().filter_map(Scores::roc_auc)),
            ),
        ];
        figures
            .map(|(name, value)| (name.to_string(), value))
            .into()
    }

    /// Figures by class, those of scores `null` where they are not defined.
    fn details(&self) -> Option<Value> {
        let of_class = |class: &Scores| {
            let counts = self.counts(class);
            json!({
                "precision": counts.precision(), "recall": counts.recall(), "f1": counts.f1(),
                "support": counts.present, "average_precision": class.average_precision(),
                "roc_auc": class.roc_auc(),
            })
        };
        let by_class: Vec<Value> = self.classes.iter().map(of_class).collect();
        Some(json!({"by_class": by_class}))
    }

    fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

impl Scores {
    /// How many rows with and without the label have each score, from the highest to the lowest.
    fn steps(&self) -> Vec<[u64; 2]> {
        let present = self.present.iter().map(|&score| (score, 0));
        let absent = self.absent.iter().map(|&score| (score, 1));
        let mut scores: Vec<(f32, usize)> = present.chain(absent).collect();
        scores.sort_unstable_by(|a, b| descending(a.0, b.0));
        let equal = scores.chunk_by(|a, b| a.0 == b.0);
        let count = |equal: &[(f32, usize)]| {
            let absent = equal.iter().filter(|(_, side)| *side == 1).count();
            [(equal.len() - absent) as u64, absent as u64]
        };
        equal.map(count).collect()
    }

    /// The precision at each score, weighted by the recall that it adds; nothing if no row has the label.
    fn average_precision(&self) -> Option<f64> {
        let (mut hits, mut predicted, mut sum) = (0, 0, 0.0);
        for [present, absent] in self.steps() {
            hits += present;
            predicted += present + absent;
            sum += present as f64 * hits as f64 / predicted as f64;
        }
        (hits > 0).then(|| sum / hits as f64)
    }

    /// How likely a row with the label has a higher score than one without, half of equal scores counted; nothing if all rows
    /// have the label or none has.
    fn roc_auc(&self) -> Option<f64> {
        let (mut above, mut ordered) = (0, 0.0);
        for [present, absent] in self.steps() {
            ordered += absent as f64 * (above as f64 + present as f64 / 2.0);
            above += present;
        }
        let pairs = self.present.len() as f64 * self.absent.len() as f64;
        (pairs > 0.0).then(|| ordered / pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, golden, read};
    use super::*;

    fn cases() -> Value {
        golden(include_str!(
            "../../../tests/golden/scores/many_labels.json"
        ))
    }

    fn truths(case: &Value) -> Vec<bool> {
        let truths: Vec<u8> = read(case, "truths");
        truths.into_iter().map(|truth| truth == 1).collect()
    }

    fn empty(case: &Value) -> ManyLabelsTally {
        ManyLabelsTally::new(read(case, "classes"), read(case, "threshold"))
    }

    #[test]
    fn figures_are_those_of_scikit_learn() {
        for case in cases().as_array().unwrap() {
            let mut tally = empty(case);
            tally.add(&read::<Vec<f32>>(case, "scores"), &truths(case));
            let metrics = tally.metrics();
            assert_eq!(metrics.len(), METRICS.len());
            for (name, theirs) in case["figures"].as_object().unwrap() {
                assert_near(metrics[name], theirs, 1e-12);
            }
            let details = tally.details().unwrap();
            for (class, ours) in details["by_class"].as_array().unwrap().iter().enumerate() {
                for name in ["average_precision", "roc_auc"] {
                    let ours = ours[name].as_f64().unwrap_or(f64::NAN);
                    assert_near(ours, &case["by_class"][name][class], 1e-12);
                }
            }
        }
    }

    #[test]
    fn parts_merge_in_any_order() {
        for case in cases().as_array().unwrap() {
            let (scores, truths) = (read::<Vec<f32>>(case, "scores"), truths(case));
            let rows = 3 * read::<usize>(case, "classes");
            let mut merged = ManyLabelsTally::default();
            for (scores, truths) in scores.chunks(rows).zip(truths.chunks(rows)).rev() {
                let mut part = empty(case);
                part.add(scores, truths);
                merged.merge(part);
                merged.merge(ManyLabelsTally::default());
            }
            let mut whole = empty(case);
            whole.add(&scores, &truths);
            let text = |tally: &ManyLabelsTally| format!("{:?}", tally.metrics());
            assert_eq!(text(&merged), text(&whole));
        }
    }

    #[test]
    fn a_split_without_rows_has_no_figures_and_scores_need_not_be_numbers() {
        let mut tally = ManyLabelsTally::new(2, 0.5);
        assert!(tally.is_empty() && tally.metrics().values().all(|value| value.is_nan()));
        // The first label ranks behind the absent one, the second before it.
        tally.add(&[f32::NAN, 0.5, 0.1, f32::NAN], &[true, true, false, false]);
        let metrics = tally.metrics();
        assert!(metrics.values().all(|value| value.is_finite()));
        let details = tally.details().unwrap();
        assert_eq!(
            [0, 1].map(|class: usize| details["by_class"][class]["roc_auc"].clone()),
            [0.0, 1.0]
        );
        assert_eq!(metrics["mean_average_precision"], 0.75);
        assert_eq!(
            [metrics["subset_accuracy"], metrics["hamming_loss"]],
            [0.5, 0.25]
        );
    }

    #[test]
    fn classes_that_say_nothing_are_left_out_of_means() {
        let mut tally = ManyLabelsTally::new(3, 0.5);
        // The second class is neither true nor predicted, the third true of every row.
        tally.add(
            &[0.9, 0.1, 0.9, 0.8, 0.2, 0.1],
            &[true, false, true, false, false, true],
        );
        let metrics = tally.metrics();
        assert_eq!(metrics["macro_f1"], 2.0 / 3.0);
        assert_eq!(metrics["mean_average_precision"], 1.0);
        assert_eq!(metrics["roc_auc"], 1.0);
        let details = tally.details().unwrap();
        assert_eq!(details["by_class"][1]["average_precision"], Value::Null);
        assert_eq!(details["by_class"][2]["roc_auc"], Value::Null);
    }
}
