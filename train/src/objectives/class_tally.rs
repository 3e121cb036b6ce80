//! What every classification is judged by: accuracy, F1, precision and recall over the whole split, and how far its
//! probabilities can be trusted.
//!
//! Definitions as scikit-learn's, with 0 where nothing is divided by nothing. The macro average runs over the
//! classes that occur in truth or prediction.

use burn::prelude::*;
use serde_json::{Value, json};

use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;
use crate::objectives::class_loss::cross_entropy;
use crate::scores::calibration::{self, CalibrationTally};

/// Of so many classes, and no more, the right one is always among the best five.
const FEW: usize = 5;

const METRICS: &[Metric] = &[
    Metric::LOSS,
    Metric::higher("accuracy"),
    Metric::higher("macro_f1"),
    calibration::ERROR,
    calibration::TOP_5,
];

/// Names of what a [`ClassTally`] reports of so many classes.
pub const fn metrics_of(n_classes: usize) -> &'static [Metric] {
    if n_classes > FEW {
        METRICS
    } else {
        METRICS.split_at(METRICS.len() - 1).0
    }
}

/// The confusion matrix of a split, its loss, and its probabilities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassTally {
    n_classes: usize,
    /// `[truth, prediction]`, row-major.
    confusion: Vec<u64>,
    loss: f64,
    calibration: CalibrationTally,
}

impl ClassTally {
    /// Counts pairs of truth and prediction, without probabilities.
    ///
    /// # Panics
    ///
    /// If a class is not below `n_classes`.
    pub fn new(n_classes: usize, truths: &[u32], predictions: &[u32], loss: f64) -> Self {
        let mut confusion = vec![0; n_classes * n_classes];
        for (&truth, &prediction) in truths.iter().zip(predictions) {
            confusion[truth as usize * n_classes + prediction as usize] += 1;
        }
        Self {
            n_classes,
            confusion,
            loss,
            calibration: CalibrationTally::default(),
        }
    }

    /// Reads logits of a batch.
    ///
    /// - logits: `[batch, n_classes]`
    pub fn read<B: Backend>(logits: Tensor<B, 2>, targets: &[u32]) -> Self {
        let [_, n_classes] = logits.dims();
        let predictions = logits.clone().argmax(1).into_data().convert::<i64>();
        let predictions: Vec<u32> = predictions.iter::<i64>().map(|id| id as u32).collect();
        let scores: Vec<f32> = logits.to_data().iter().collect();
        let loss = cross_entropy(logits, targets).loss.into_scalar().elem();
        let mut tally = Self::new(n_classes, targets, &predictions, loss);
        tally.calibration = CalibrationTally::new(n_classes);
        tally.calibration.add(&scores, targets);
        tally
    }

    /// Reads scores in host memory.
    ///
    /// - scores: logits, `[targets, n_classes]`, row-major
    ///
    /// # Panics
    ///
    /// If a target is not below `n_classes`, or scores are not as many rows as targets.
    pub fn of_scores(n_classes: usize, scores: &[f32], targets: &[u32]) -> Self {
        let rows = || scores.chunks_exact(n_classes.max(1));
        assert_eq!(rows().len(), targets.len(), "a row of scores a target");
        let predictions: Vec<u32> = rows().map(|row| largest(row) as u32).collect();
        let losses = rows().zip(targets);
        let loss = losses.map(|(row, &target)| negative_log_likelihood(row, target as usize));
        let mut tally = Self::new(n_classes, targets, &predictions, loss.sum());
        tally.calibration = CalibrationTally::new(n_classes);
        tally.calibration.add(scores, targets);
        tally
    }

    fn row(&self, truth: usize) -> &[u64] {
        &self.confusion[truth * self.n_classes..(truth + 1) * self.n_classes]
    }

    /// Precision, recall, F1 and number of true examples of a class; nothing if it never occurs.
    pub fn class(&self, class: usize) -> Option<[f64; 4]> {
        let hits = self.row(class)[class] as f64;
        let support = self.row(class).iter().sum::<u64>() as f64;
        let predicted: u64 = (0..self.n_classes)
            .map(|truth| self.row(truth)[class])
            .sum();
        let predicted = predicted as f64;
        if support + predicted == 0.0 {
            return None;
        }
        let ratio = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
        let f1 = 2.0 * hits / (support + predicted);
        Some([ratio(hits, predicted), ratio(hits, support), f1, support])
    }
}

/// The place of the largest score, the first of equal ones; 0 where there is none.
pub fn largest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (at, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = at;
        }
    }
    best
}

/// The cross-entropy of one target.
///
/// - scores: logits of all classes
///
/// # Panics
///
/// If there is no such class.
pub fn negative_log_likelihood(scores: &[f32], target: usize) -> f64 {
    let highest = f64::from(scores[largest(scores)]);
    let shares = scores
        .iter()
        .map(|&score| (f64::from(score) - highest).exp());
    highest + shares.sum::<f64>().ln() - f64::from(scores[target])
}

impl Tally for ClassTally {
    fn merge(&mut self, other: Self) {
        if self.confusion.is_empty() {
            *self = other;
            return;
        }
        self.loss += other.loss;
        for (sum, count) in self.confusion.iter_mut().zip(other.confusion) {
            *sum += count;
        }
        self.calibration.merge(other.calibration);
    }

    fn metrics(&self) -> Metrics {
        let total = self.confusion.iter().sum::<u64>().max(1) as f64;
        let hits: u64 = (0..self.n_classes)
            .map(|class| self.row(class)[class])
            .sum();
        let f1: Vec<f64> = (0..self.n_classes)
            .filter_map(|class| self.class(class).map(|[_, _, f1, _]| f1))
            .collect();
        let mut metrics = Metrics::from([
            ("loss".into(), self.loss / total),
            ("accuracy".into(), hits as f64 / total),
            (
                "macro_f1".into(),
                f1.iter().sum::<f64>() / f1.len().max(1) as f64,
            ),
        ]);
        if !self.calibration.is_empty() {
            metrics.extend(self.calibration.metrics());
        }
        if self.n_classes <= FEW {
            metrics.remove(calibration::TOP_5.name);
        }
        metrics
    }

    fn details(&self) -> Option<Value> {
        let by_class: Vec<Value> = (0..self.n_classes)
            .map(|class| match self.class(class) {
                Some([precision, recall, f1, support]) => {
                    json!({"precision": precision, "recall": recall, "f1": f1, "support": support})
                }
                None => json!({"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0}),
            })
            .collect();
        let confusion: Vec<_> = (0..self.n_classes).map(|truth| self.row(truth)).collect();
        let mut details = json!({"by_class": by_class, "confusion": confusion});
        if !self.calibration.is_empty() {
            details["calibration"] = self.calibration.details()?;
        }
        Some(details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../../tests/golden/classification.json")).unwrap()
    }

    fn numbers(golden: &Value, key: &str) -> Vec<u32> {
        serde_json::from_value(golden[key].clone()).unwrap()
    }

    /// Class 3 is never predicted, class 4 never true.
    fn tally(n_classes: usize) -> ClassTally {
        let golden = golden();
        let (truths, predictions) = (numbers(&golden, "truth"), numbers(&golden, "prediction"));
        ClassTally::new(n_classes, &truths, &predictions, 30.0)
    }

    fn assert_near(ours: f64, theirs: &Value) {
        let theirs = theirs.as_f64().unwrap();
        assert!((ours - theirs).abs() < 1e-12, "{ours}, not {theirs}");
    }

    #[test]
    fn figures_of_a_split_are_those_of_scikit_learn() {
        let (golden, metrics) = (golden(), tally(5).metrics());
        assert_near(metrics["accuracy"], &golden["accuracy"]);
        assert_near(metrics["macro_f1"], &golden["macro_f1"]);
        assert_eq!(metrics["loss"], 0.5); // 30 over 60 examples
    }

    #[test]
    fn figures_of_a_class_are_those_of_scikit_learn() {
        let (golden, details) = (golden(), tally(5).details().unwrap());
        assert_eq!(details["confusion"], golden["confusion"]);
        for class in 0..5 {
            for key in ["precision", "recall", "f1", "support"] {
                let ours = details["by_class"][class][key].as_f64().unwrap();
                assert_near(ours, &golden[key][class]);
            }
        }
    }

    #[test]
    fn a_class_that_never_occurs_is_left_out_of_the_average() {
        let tally = tally(6);
        assert_eq!(tally.class(5), None);
        assert_near(tally.metrics()["macro_f1"], &golden()["macro_f1_present"]);
    }

    #[test]
    fn parts_of_a_split_add_up() {
        let golden = golden();
        let (truths, predictions) = (numbers(&golden, "truth"), numbers(&golden, "prediction"));
        let mut merged = ClassTally::default();
        for (truths, predictions) in truths.chunks(7).zip(predictions.chunks(7)) {
            let loss = truths.len() as f64 / 2.0;
            merged.merge(ClassTally::new(5, truths, predictions, loss));
        }
        assert_eq!(merged, tally(5));
    }

    #[test]
    fn logits_become_loss_and_hits() {
        // Softmax of (ln 3, 0) is (3/4, 1/4).
        let logits = || {
            let ln3 = 3f32.ln();
            Tensor::<Flex, 2>::from_data([[ln3, 0.0], [ln3, 0.0], [0.0, ln3]], &Default::default())
        };
        let sums = cross_entropy(logits(), &[0, 1, 1]);
        let loss: f64 = sums.loss.into_scalar().elem();
        let expected = 2.0 * (4.0f64 / 3.0).ln() + 4.0f64.ln();
        assert!((loss - expected).abs() < 1e-6, "{loss}, not {expected}");
        assert_eq!(sums.sums[0].clone().into_scalar(), 2.0);
        assert_eq!(sums.targets, 3);
        let tally = ClassTally::read(logits(), &[0, 1, 1]);
        assert_eq!(tally.confusion, [1, 0, 1, 1]);
        // Always 3/4 sure and twice of three times right.
        let metrics = tally.metrics();
        assert!((metrics["calibration_error"] - (0.75 - 2.0 / 3.0)).abs() < 1e-6);
        let names = metrics_of(2).iter().map(|metric| metric.name);
        assert!(names.eq(["loss", "accuracy", "macro_f1", "calibration_error"]));
        assert_eq!(metrics.len(), 4);
        // The same in host memory.
        let scores: Vec<f32> = logits().into_data().iter().collect();
        let host = ClassTally::of_scores(2, &scores, &[0, 1, 1]);
        assert_eq!(host.confusion, tally.confusion);
        assert!((host.metrics()["loss"] - metrics["loss"]).abs() < 1e-6);
        assert_eq!(
            host.metrics()["calibration_error"],
            metrics["calibration_error"]
        );
        let brier = tally.details().unwrap()["calibration"]["brier"].clone();
        assert!((brier.as_f64().unwrap() - (2.0 * 0.125 + 1.125) / 3.0).abs() < 1e-6);
    }

    #[test]
    fn of_many_classes_the_best_five_count_too() {
        let scores: Vec<f32> = (0..7).map(|class| -(class as f32)).collect();
        let logits = Tensor::<Flex, 1>::from_data(scores.as_slice(), &Default::default());
        let logits = logits.unsqueeze::<2>().repeat_dim(0, 3);
        let mut tally = ClassTally::default();
        tally.merge(ClassTally::read(logits, &[0, 4, 5]));
        let metrics = tally.metrics();
        assert_eq!(metrics["top_5_accuracy"], 2.0 / 3.0);
        assert_eq!(metrics.len(), metrics_of(7).len());
    }
}
