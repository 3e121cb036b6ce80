//! What segmentation is judged by: how far the pixels of each class and those predicted for it are the same. In: a class a
//! pixel. Out: figures of a split, over all its pixels at once.
//!
//! Equal to scikit-learn's `jaccard_score` and `f1_score` over pixels, with means over the classes that occur in truth or
//! prediction.

use serde_json::{Value, json};

use super::mean;
use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;

/// Names of what a [`MaskTally`] reports.
pub const METRICS: &[Metric] = &[
    Metric::higher("iou"),
    Metric::higher("dice"),
    Metric::higher("pixel_accuracy"),
];

/// The class of pixels in the truth that are not judged.
pub const IGNORED: u32 = 255;

/// The confusion matrix of the pixels of a split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaskTally {
    n_classes: usize,
    /// `[truth, prediction]`, row-major.
    confusion: Vec<u64>,
}

/// How far the pixels of a class were found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overlap {
    /// Intersection over union of its pixels and those predicted for it.
    pub iou: f64,
    /// Twice the intersection over the sum of both, which is their F1.
    pub dice: f64,
    /// How many pixels are of this class.
    pub pixels: u64,
}

impl MaskTally {
    /// Of a split without pixels.
    ///
    /// # Panics
    ///
    /// If there are more than 255 classes: one of them would be the ignored one.
    pub fn new(n_classes: usize) -> Self {
        assert!(n_classes <= IGNORED as usize, "{n_classes} classes");
        Self {
            n_classes,
            confusion: vec![0; n_classes * n_classes],
        }
    }

    /// Takes in the pixels of some masks, in any order.
    ///
    /// - predictions, truths: `[pixels]`; what is predicted where the truth is [`IGNORED`] does not matter
    ///
    /// # Panics
    ///
    /// If the slices differ in length, or a class that counts is not below the number of classes.
    pub fn add(&mut self, predictions: &[u32], truths: &[u32]) {
        assert_eq!(predictions.len(), truths.len(), "a truth for each pixel");
        let pixels = predictions.iter().zip(truths);
        for (&prediction, &truth) in pixels.filter(|&(_, &truth)| truth != IGNORED) {
            let (prediction, truth) = (prediction as usize, truth as usize);
            assert!(prediction < self.n_classes, "class {prediction}");
            self.confusion[truth * self.n_classes + prediction] += 1;
        }
    }

    /// Figures of a class; nothing if it occurs in neither truth nor prediction.
    pub fn class(&self, class: usize) -> Option<Overlap> {
        let hits = self.row(class)[class];
        let pixels: u64 = self.row(class).iter().sum();
        let predicted: u64 = (0..self.n_classes)
            .map(|truth| self.row(truth)[class])
            .sum();
        (pixels + predicted > 0).then(|| Overlap {
            iou: hits as f64 / (pixels + predicted - hits) as f64,
            dice: 2.0 * hits as f64 / (pixels + predicted) as f64,
            pixels,
        })
    }

    fn row(&self, truth: usize) -> &[u64] {
        &self.confusion[truth * self.n_classes..(truth + 1) * self.n_classes]
    }
}

impl Tally for MaskTally {
    fn merge(&mut self, other: Self) {
        if self.n_classes == 0 {
            *self = other;
            return;
        }
        for (sum, count) in self.confusion.iter_mut().zip(other.confusion) {
            *sum += count;
        }
    }

    /// `iou` and `dice`, means over classes that occur; `pixel_accuracy`. NaN where no pixel counts.
    fn metrics(&self) -> Metrics {
        let classes = 0..self.n_classes;
        let occurring: Vec<Overlap> = classes.clone().filter_map(|c| self.class(c)).collect();
        let hits: u64 = classes.map(|class| self.row(class)[class]).sum();
        let pixels: u64 = self.confusion.iter().sum();
        Metrics::from([
            ("iou".into(), mean(occurring.iter().map(|class| class.iou))),
            (
                "dice".into(),
                mean(occurring.iter().map(|class| class.dice)),
            ),
            ("pixel_accuracy".into(), hits as f64 / pixels as f64),
        ])
    }

    /// Figures by class, `null` for one that does not occur, and the confusion matrix, whose rows are the truth.
    fn details(&self) -> Option<Value> {
        let of_class = |class| {
            let Overlap { iou, dice, pixels } = self.class(class)?;
            Some(json!({"iou": iou, "dice": dice, "pixels": pixels}))
        };
        let by_class: Vec<Option<Value>> = (0..self.n_classes).map(of_class).collect();
        let confusion: Vec<_> = (0..self.n_classes).map(|truth| self.row(truth)).collect();
        Some(json!({"by_class": by_class, "confusion": confusion}))
    }

    fn is_empty(&self) -> bool {
        self.confusion.iter().all(|&count| count == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, golden, read};
    use super::*;

    fn cases() -> Value {
        golden(include_str!("../../../tests/golden/scores/masks.json"))
    }

    /// Predictions and truths.
    fn pixels(case: &Value) -> [Vec<u32>; 2] {
        [read(case, "predictions"), read(case, "truths")]
    }

    #[test]
    fn figures_are_those_of_scikit_learn() {
        for case in cases().as_array().unwrap() {
            let [predictions, truths] = pixels(case);
            let n_classes: usize = read(case, "classes");
            let mut tally = MaskTally::new(n_classes);
            tally.add(&predictions, &truths);
            let metrics = tally.metrics();
            for key in ["iou", "dice", "pixel_accuracy"] {
                assert_near(metrics[key], &case[key], 1e-12);
            }
            for class in 0..n_classes {
                // Null of a class that does not occur.
                let class_tally = tally.class(class);
                let iou = class_tally.map_or(f64::NAN, |class| class.iou);
                assert_near(iou, &case["iou_by_class"][class], 1e-12);
                let dice = class_tally.map_or(f64::NAN, |class| class.dice);
                assert_near(dice, &case["dice_by_class"][class], 1e-12);
            }
        }
    }

    #[test]
    fn parts_merge_in_any_order() {
        let case = &cases()[0];
        let [predictions, truths] = pixels(case);
        let part = |predictions: &[u32], truths: &[u32]| {
            let mut tally = MaskTally::new(read(case, "classes"));
            tally.add(predictions, truths);
            tally
        };
        let mut merged = MaskTally::default();
        for (predictions, truths) in predictions.chunks(17).zip(truths.chunks(17)).rev() {
            merged.merge(part(predictions, truths));
        }
        merged.merge(MaskTally::default());
        assert_eq!(merged, part(&predictions, &truths));
    }

    #[test]
    fn figures_are_what_a_hand_works_out() {
        let mut tally = MaskTally::new(4);
        assert!(tally.is_empty() && tally.metrics()["iou"].is_nan());
        tally.add(&[7], &[IGNORED]);
        assert!(tally.is_empty());
        // Class 0: 1 of 3 pixels of either kind, class 1: 1 of 2, class 2: none of 1, class 3 does not occur.
        tally.add(&[0, 0, 1, 1], &[0, 2, 0, 1]);
        let third = 1.0 / 3.0;
        assert_eq!(tally.metrics()["iou"], (third + 0.5 + 0.0) / 3.0);
        assert_eq!(tally.metrics()["dice"], (0.5 + 2.0 / 3.0 + 0.0) / 3.0);
        assert_eq!(tally.metrics()["pixel_accuracy"], 0.5);
        let details = tally.details().unwrap();
        assert_eq!(details["by_class"][3], Value::Null);
        assert_eq!(
            details["by_class"][1],
            json!({"iou": 0.5, "dice": 2.0 / 3.0, "pixels": 1})
        );
        assert_eq!(details["confusion"][0], json!([1, 1, 0, 0]));
    }
}
