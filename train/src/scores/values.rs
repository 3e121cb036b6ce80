//! What regression is judged by. In: one or several values a row. Out: figures of a split, each the mean over the columns.
//!
//! Errors and R2 are scikit-learn's with its default average over columns, correlations scipy's.

use serde_json::{Value, json};

use super::mean;
use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;

/// Names of what a [`ValuesTally`] reports.
pub const METRICS: &[Metric] = &[
    Metric::lower("mae"),
    Metric::lower("mse"),
    Metric::lower("rmse"),
    Metric::higher("r2"),
    Metric::higher("pearson"),
    Metric::higher("spearman"),
];

/// The values of a split.
///
/// Memory: 16 bytes for each value, as ranks need all of them.
#[derive(Clone, Debug, Default)]
pub struct ValuesTally {
    /// Prediction and truth of each row.
    columns: Vec<Vec<[f64; 2]>>,
}

/// Figures of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Mean absolute error.
    pub mae: f64,
    /// Mean squared error.
    pub mse: f64,
    /// Its root.
    pub rmse: f64,
    /// Share of the variance of the truth that is explained. Where all truths are equal, 1 if every prediction is right and
    /// else 0; NaN of fewer than two rows.
    pub r2: f64,
    /// Pearson's correlation. 0 where all predictions are equal; nothing where all truths are.
    pub pearson: Option<f64>,
    /// Spearman's: Pearson's of the ranks, where equal values share the mean of theirs. Nothing where Pearson's is.
    pub spearman: Option<f64>,
}

impl ValuesTally {
    /// Of a split without rows.
    pub fn new(n_columns: usize) -> Self {
        Self {
            columns: vec![Vec::new(); n_columns],
        }
    }

    /// Takes in a batch.
    ///
    /// - predictions, truths: `[batch, n_columns]`, row-major
    ///
    /// # Panics
    ///
    /// If the slices differ in length or are not whole rows, or there are no columns.
    pub fn add(&mut self, predictions: &[f64], truths: &[f64]) {
        let n_columns = self.columns.len();
        assert_eq!(predictions.len(), truths.len(), "a truth for each value");
        assert!(
            truths.len().is_multiple_of(n_columns),
            "{n_columns} columns"
        );
        for (place, (&prediction, &truth)) in predictions.iter().zip(truths).enumerate() {
            self.columns[place % n_columns].push([prediction, truth]);
        }
    }

    /// Figures of a column: all NaN where a value is, or where there are none.
    pub fn column(&self, column: usize) -> Figures {
        let mut pairs = self.columns[column].clone();
        // So that sums are the same in whatever order parts were merged.
        let order = |a: f64, b: f64| a.total_cmp(&b);
        pairs.sort_unstable_by(|a, b| order(a[0], b[0]).then(order(a[1], b[1])));
        Figures::new(&pairs)
    }

    fn columns(&self) -> impl Iterator<Item = Figures> {
        (0..self.columns.len()).map(|column| self.column(column))
    }
}

impl Tally for ValuesTally {
    fn merge(&mut self, other: Self) {
        if self.columns.is_empty() {
            *self = other;
            return;
        }
        for (column, other) in self.columns.iter_mut().zip(other.columns) {
            column.extend(other);
        }
    }

    /// Means over the columns, of `pearson` and `spearman` over those whose truths are not all equal. NaN where a value is.
    fn metrics(&self) -> Metrics {
        let columns: Vec<Figures> = self.columns().collect();
        let columns = || columns.iter();
        Metrics::from([
            ("mae".into(), mean(columns().map(|column| column.mae))),
            ("mse".into(), mean(columns().map(|column| column.mse))),
            ("rmse".into(), mean(columns().map(|column| column.rmse))),
            ("r2".into(), mean(columns().map(|column| column.r2))),
            (
                "pearson".into(),
                mean(columns().filter_map(|column| column.pearson)),
            ),
            (
                "spearman".into(),
                mean(columns().filter_map(|column| column.spearman)),
            ),
        ])
    }

    /// Figures by column, `null` where they are not defined.
    fn details(&self) -> Option<Value> {
        let of_column = |column: Figures| {
            json!({
                "mae": column.mae, "mse": column.mse, "rmse": column.rmse, "r2": column.r2,
                "pearson": column.pearson, "spearman": column.spearman,
            })
        };
        let by_column: Vec<Value> = self.columns().map(of_column).collect();
        Some(json!({"by_column": by_column}))
    }

    fn is_empty(&self) -> bool {
        self.columns.iter().all(Vec::is_empty)
    }
}

impl Figures {
    /// - pairs: prediction and truth
    fn new(pairs: &[[f64; 2]]) -> Self {
        if pairs.is_empty() || pairs.iter().flatten().any(|value| value.is_nan()) {
            return Self {
                mae: f64::NAN,
                mse: f64::NAN,
                rmse: f64::NAN,
                r2: f64::NAN,
                pearson: Some(f64::NAN),
                spearman: Some(f64::NAN),
            };
        }
        let errors = || pairs.iter().map(|[prediction, truth]| prediction - truth);
        let mse = mean(errors().map(|error| error * error));
        let [predictions, truths] =
            [0, 1].map(|side: usize| -> Vec<f64> { pairs.iter().map(|pair| pair[side]).collect() });
        let is_known = !is_constant(&truths);
        Self {
            mae: mean(errors().map(f64::abs)),
            mse,
            rmse: mse.sqrt(),
            r2: r2(mse, &truths),
            pearson: is_known.then(|| correlation(&predictions, &truths)),
            spearman: is_known.then(|| correlation(&ranks(&predictions), &ranks(&truths))),
        }
    }
}

fn r2(mse: f64, truths: &[f64]) -> f64 {
    if truths.len() < 2 {
        f64::NAN
    } else if is_constant(truths) {
        f64::from(mse == 0.0)
    } else {
        1.0 - mse / mean(deviations(truths).iter().map(|value| value * value))
    }
}

/// Pearson's; 0 where one side is constant.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    if is_constant(a) || is_constant(b) {
        return 0.0;
    }
    let [a, b] = [a, b].map(|values| {
        let values = deviations(values);
        let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        values.into_iter().map(move |value| value / norm)
    });
    a.zip(b).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0)
}

fn deviations(values: &[f64]) -> Vec<f64> {
    let mean = mean(values.iter().copied());
    values.iter().map(|value| value - mean).collect()
}

fn is_constant(values: &[f64]) -> bool {
    values.iter().all(|value| *value == values[0])
}

/// From 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let (mut ranks, mut before) = (vec![0.0; values.len()], 0);
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &place in equal {
            ranks[place] = before as f64 + (equal.len() + 1) as f64 / 2.0;
        }
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, golden, read};
    use super::*;

    fn cases() -> Value {
        golden(include_str!("../../../tests/golden/scores/values.json"))
    }

    /// Predictions and truths.
    fn values(case: &Value) -> [Vec<f64>; 2] {
        [read(case, "predictions"), read(case, "truths")]
    }

    #[test]
    fn figures_are_those_of_scikit_learn_and_scipy() {
        for case in cases().as_array().unwrap() {
            let [predictions, truths] = values(case);
            let mut tally = ValuesTally::new(read(case, "columns"));
            tally.add(&predictions, &truths);
            let metrics = tally.metrics();
            assert_eq!(metrics.len(), METRICS.len());
            for (name, ours) in metrics {
                assert_near(ours, &case["figures"][name], 1e-12);
            }
        }
    }

    #[test]
    fn parts_merge_in_any_order_to_the_last_bit() {
        for case in cases().as_array().unwrap() {
            let [predictions, truths] = values(case);
            let n_columns: usize = read(case, "columns");
            let mut merged = ValuesTally::default();
            let rows = 7 * n_columns;
            for (predictions, truths) in predictions.chunks(rows).zip(truths.chunks(rows)).rev() {
                let mut part = ValuesTally::new(n_columns);
                part.add(predictions, truths);
                merged.merge(part);
                merged.merge(ValuesTally::default());
            }
            let mut whole = ValuesTally::new(n_columns);
            whole.add(&predictions, &truths);
            let text = |tally: &ValuesTally| format!("{:?}", tally.metrics());
            assert_eq!(text(&merged), text(&whole));
        }
    }

    #[test]
    fn constant_columns_have_the_figures_that_are_written_down() {
        let mut tally = ValuesTally::new(4);
        assert!(tally.is_empty() && tally.metrics().values().all(|value| value.is_nan()));
        // Found; missed; predictions all equal; both in the same order.
        tally.add(&[0.1, 1.0, 5.0, 1.0], &[0.1, 0.1, 1.0, 2.0]);
        assert!(tally.column(0).r2.is_nan());
        tally.add(&[0.1, 2.0, 5.0, 2.0], &[0.1, 0.1, 2.0, 4.0]);
        tally.add(&[0.1, 3.0, 5.0, 9.0], &[0.1, 0.1, 3.0, 5.0]);
        let figures = |column| tally.column(column);
        assert_eq!([figures(0).r2, figures(1).r2], [1.0, 0.0]);
        assert_eq!([figures(0).pearson, figures(1).spearman], [None, None]);
        assert_eq!(
            [figures(2).pearson, figures(2).spearman],
            [Some(0.0), Some(0.0)]
        );
        // Of the last two columns alone.
        assert!((tally.metrics()["spearman"] - 0.5).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_a_number_shows_in_the_figures() {
        let mut tally = ValuesTally::new(1);
        tally.add(&[1.0, f64::NAN, 2.0], &[1.0, 2.0, 3.0]);
        assert!(tally.metrics().values().all(|value| value.is_nan()));
        let mut tally = ValuesTally::new(1);
        tally.add(&[1.0, f64::INFINITY, 2.0], &[1.0, 2.0, 3.0]);
        assert_eq!(tally.metrics()["mae"], f64::INFINITY);
    }
}
