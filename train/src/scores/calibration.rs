//! How far the probabilities of a classifier can be trusted, and where the right class ranks. In: logits. Out: figures of a
//! split.

use serde_json::{Value, json};

use super::descending;
use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;

/// The share of rows whose true class is among the five with the highest logits.
pub const TOP_5: Metric = Metric::higher("top_5_accuracy");

/// Expected calibration error.
pub const ERROR: Metric = Metric::lower("calibration_error");

/// Of equal width.
const BINS: usize = 15;

/// Confidences and ranks of a split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrationTally {
    n_classes: usize,
    /// Rows by how many classes come before the true one.
    ranks: Vec<u64>,
    /// One more than there are bins: a confidence of exactly 1 has its own, as in the reference implementation.
    bins: [Bin; BINS + 1],
    /// Sum over rows and classes of the squared difference of probability and truth.
    squares: f64,
}

/// Rows whose highest probability is in a range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    rows: u64,
    right: u64,
    confidence: f64,
}

impl CalibrationTally {
    /// Of a split without rows.
    pub fn new(n_classes: usize) -> Self {
        Self {
            n_classes,
            ranks: vec![0; n_classes],
            ..Self::default()
        }
    }

    /// Takes in a batch.
    ///
    /// A logit that is NaN ranks behind all others; its row has no probabilities, which makes `calibration_error` and
    /// `brier` NaN.
    ///
    /// - logits: `[batch, n_classes]`, row-major
    /// - truths: `[batch]`, the class of each row
    ///
    /// # Panics
    ///
    /// If there is not a row of logits for each truth, a truth is not below the number of classes, or there are no classes.
    pub fn add(&mut self, logits: &[f32], truths: &[u32]) {
        let n_classes = self.n_classes;
        assert_eq!(
            logits.len(),
            truths.len() * n_classes,
            "a row for each truth"
        );
        for (logits, &truth) in logits.chunks_exact(n_classes).zip(truths) {
            self.add_row(logits, truth as usize);
        }
    }

    fn add_row(&mut self, logits: &[f32], truth: usize) {
        let before = |(class, &logit): (usize, &f32)| {
            descending(logit, logits[truth])
                .then(class.cmp(&truth))
                .is_lt()
        };
        let rank = logits
            .iter()
            .enumerate()
            .filter(|&pair| before(pair))
            .count();
        self.ranks[rank] += 1;
        let probabilities = softmax(logits);
        let confidence = probabilities.iter().fold(0.0, |most: f64, &probability| {
            // Unlike `max`, lets NaN through.
            if probability <= most {
                most
            } else {
                probability
            }
        });
        let bin = &mut self.bins[bin(confidence)];
        bin.rows += 1;
        bin.right += u64::from(rank == 0);
        bin.confidence += confidence;
        let square = |(class, probability): (usize, &f64)| {
            (probability - f64::from(u8::from(class == truth))).powi(2)
        };
        self.squares += probabilities.iter().enumerate().map(square).sum::<f64>();
    }

    /// The share of rows whose true class is among the `k` with the highest logits, of equal logits those of lower classes.
    ///
    /// `torch.topk` leaves open which of equal logits it takes, and takes others for other sizes; where the `k`-th and the
    /// next one differ, both count the same. 1 where there are no more than `k` classes; NaN where there are no rows.
    pub fn top_k_accuracy(&self, k: usize) -> f64 {
        let among: u64 = self.ranks.iter().take(k).sum();
        among as f64 / self.rows() as f64
    }

    /// Expected calibration error: the gap between accuracy and mean confidence in 15 bins of equal width, each with its lower
    /// edge, weighted by their rows.
    ///
    /// Guo et al. 2017, <https://arxiv.org/abs/1706.04599>; as `multiclass_calibration_error` of torchmetrics with the norm
    /// `l1`.
    pub fn calibration_error(&self) -> f64 {
        let gap = |bin: &Bin| (bin.right as f64 - bin.confidence).abs();
        self.bins.iter().map(gap).sum::<f64>() / self.rows() as f64
    }

    /// Brier score, 0 to 2: the squared difference of probability and truth, summed over classes, the mean over rows.
    ///
    /// Brier 1950; as scikit-learn's `brier_score_loss` with `scale_by_half=False`.
    pub fn brier(&self) -> f64 {
        self.squares / self.rows() as f64
    }

    fn rows(&self) -> u64 {
        self.ranks.iter().sum()
    }
}

impl Tally for CalibrationTally {
    fn merge(&mut self, other: Self) {
        if self.n_classes == 0 {
            *self = other;
            return;
        }
        for (sum, count) in self.ranks.iter_mut().zip(other.ranks) {
            *sum += count;
        }
        for (bin, other) in self.bins.iter_mut().zip(other.bins) {
            bin.rows += other.rows;
            bin.right += other.right;
            bin.confidence += other.confidence;
        }
        self.squares += other.squares;
    }

    /// [`TOP_5`] and [`ERROR`]; NaN where there are no rows.
    fn metrics(&self) -> Metrics {
        Metrics::from([
            (TOP_5.name.into(), self.top_k_accuracy(5)),
            (ERROR.name.into(), self.calibration_error()),
        ])
    }

    /// `brier`, and `bins` for a reliability diagram: rows, accuracy and mean confidence of each, `null` where it has none.
    fn details(&self) -> Option<Value> {
        let of_bin = |bin: &Bin| {
            let rows = bin.rows as f64;
            json!({
                "rows": bin.rows, "accuracy": bin.right as f64 / rows, "confidence": bin.confidence / rows,
            })
        };
        let by_bin: Vec<Value> = self.bins.iter().map(of_bin).collect();
        Some(json!({"brier": self.brier(), "bins": by_bin}))
    }

    fn is_empty(&self) -> bool {
        self.rows() == 0
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let exponentials: Vec<f64> = logits
        .iter()
        .map(|&logit| (f64::from(logit) - most).exp())
        .collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / sum).collect()
}

/// The bin of a confidence, which holds its lower edge; the first of one that is not a number.
fn bin(confidence: f64) -> usize {
    let edges = (1..=BINS).map(|edge| edge as f64 / BINS as f64);
    edges.filter(|edge| *edge <= confidence).count()
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::super::tests::{assert_near, golden, read};
    use super::*;

    fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
        let bytes = file.tensor(name).unwrap().data().chunks_exact(4);
        bytes
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }

    fn labels(file: &SafeTensors<'_>) -> Vec<u32> {
        let bytes = file.tensor("labels").unwrap().data().chunks_exact(8);
        bytes
            .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as u32)
            .collect()
    }

    fn tally(n_classes: usize, logits: &[f32], truths: &[u32]) -> CalibrationTally {
        let mut tally = CalibrationTally::new(n_classes);
        tally.add(logits, truths);
        tally
    }

    #[test]
    fn bins_are_those_of_the_paper() {
        let file = include_bytes!("../../../tests/golden/objectives/calibration.safetensors");
        let file = SafeTensors::deserialize(file).unwrap();
        let tally = tally(4, &floats(&file, "logits"), &labels(&file));
        let near = |ours: f64, theirs: f32| assert!((ours - f64::from(theirs)).abs() < 1e-6);
        let expected = floats(&file, "expected_calibration_error")[0];
        near(tally.calibration_error(), expected);
        let details = tally.details().unwrap();
        let (counts, confidences) = (floats(&file, "counts"), floats(&file, "confidence"));
        for (bin, &accuracy) in floats(&file, "accuracy").iter().enumerate() {
            let ours = &details["bins"][bin];
            assert_eq!(ours["rows"].as_f64().unwrap(), f64::from(counts[bin]));
            near(ours["accuracy"].as_f64().unwrap_or(0.0), accuracy);
            near(ours["confidence"].as_f64().unwrap_or(0.0), confidences[bin]);
        }
    }

    #[test]
    fn the_right_class_ranks_where_torch_ranks_it() {
        let file = include_bytes!("../../../tests/golden/objectives/top-k.safetensors");
        let file = SafeTensors::deserialize(file).unwrap();
        let tally = tally(7, &floats(&file, "logits"), &labels(&file));
        for k in [1, 2, 5] {
            let theirs = f64::from(floats(&file, &format!("top{k}"))[0]);
            assert!((tally.top_k_accuracy(k) - theirs).abs() < 1e-6);
        }
        assert_eq!(tally.top_k_accuracy(7), 1.0);
        assert_eq!(tally.top_k_accuracy(8), 1.0);
    }

    fn cases() -> Value {
        golden(include_str!(
            "../../../tests/golden/scores/calibration.json"
        ))
    }

    #[test]
    fn figures_are_those_of_torchmetrics_and_scikit_learn() {
        for case in cases().as_array().unwrap() {
            let logits: Vec<f32> = read(case, "logits");
            let metrics = tally(
                read(case, "classes"),
                &logits,
                &read::<Vec<u32>>(case, "truths"),
            );
            assert_near(metrics.brier(), &case["figures"]["brier"], 1e-12);
            for (name, ours) in metrics.metrics() {
                assert_near(ours, &case["figures"][name], 1e-12);
            }
        }
    }

    #[test]
    fn parts_merge_in_any_order() {
        for case in cases().as_array().unwrap() {
            let (logits, truths): (Vec<f32>, Vec<u32>) =
                (read(case, "logits"), read(case, "truths"));
            let n_classes: usize = read(case, "classes");
            let mut merged = CalibrationTally::default();
            let rows = logits.chunks(7 * n_classes).zip(truths.chunks(7));
            for (logits, truths) in rows.rev() {
                merged.merge(tally(n_classes, logits, truths));
                merged.merge(CalibrationTally::default());
            }
            let whole = tally(n_classes, &logits, &truths);
            // Sums in another order differ in their last bits.
            for (name, ours) in whole.metrics() {
                assert!((ours - merged.metrics()[&name]).abs() < 1e-12);
            }
            assert!((whole.brier() - merged.brier()).abs() < 1e-12);
        }
    }

    #[test]
    fn of_equal_logits_the_lower_class_ranks_first() {
        let tally = tally(3, &[1.0; 9], &[0, 1, 2]);
        assert_eq!(
            [1, 2, 3].map(|k| tally.top_k_accuracy(k)),
            [1.0 / 3.0, 2.0 / 3.0, 1.0]
        );
        // Each row has probabilities of a third: (2/3)^2 + 2 (1/3)^2.
        assert!((tally.brier() - 2.0 / 3.0).abs() < 1e-12);
        assert!(tally.calibration_error() < 1e-12);
    }

    #[test]
    fn a_logit_that_is_not_a_number_ranks_last_and_shows() {
        let row = [0.5, f32::NAN, -1.0];
        assert_eq!(tally(3, &row, &[1]).top_k_accuracy(2), 0.0);
        let tally = tally(3, &row, &[2]);
        assert_eq!(tally.top_k_accuracy(2), 1.0);
        assert!(tally.calibration_error().is_nan() && tally.brier().is_nan());
        let empty = CalibrationTally::new(3);
        assert!(empty.is_empty() && empty.metrics().values().all(|value| value.is_nan()));
    }
}
