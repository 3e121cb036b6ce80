//! How much of the labels a frozen backbone's features hold. In: features and classes of images to learn from and to judge by.
//! Out: the accuracy of a linear classifier, and that of the nearest neighbours.
//!
//! Both are deterministic, and small enough to run at every validation.

use crate::metrics::{Metric, Metrics};

/// Accuracy of a linear classifier on the features.
pub const LINEAR: Metric = Metric::higher("probe_accuracy");
/// Accuracy of the nearest neighbours by the features.
pub const NEIGHBOURS: Metric = Metric::higher("knn_accuracy");

/// Neighbours that vote, and the temperature of their votes: Wu et al. 2018, <https://arxiv.org/abs/1805.01978>.
const VOTERS: usize = 20;
const TEMPERATURE: f32 = 0.07;
/// Steps of the linear classifier's optimisation, and the gradient at which it is done.
const STEPS: usize = 300;
const FLAT: f32 = 1e-4;

/// Features with a class each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// Values of one image.
    pub width: usize,
    /// `[n, width]`, row-major.
    pub values: Vec<f32>,
    /// `[n]`
    pub classes: Vec<u32>,
}

impl Features {
    /// Takes in others, of the same width.
    pub fn extend(&mut self, other: Self) {
        if !other.classes.is_empty() {
            self.width = other.width;
        }
        self.values.extend(other.values);
        self.classes.extend(other.classes);
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }

    fn is_finite(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }
}

/// What is collected of a validation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probe {
    /// To learn from.
    pub learned: Features,
    /// To judge by.
    pub judged: Features,
}

impl Probe {
    /// Takes in what another part of the validation collected.
    pub fn merge(&mut self, other: Self) {
        self.learned.extend(other.learned);
        self.judged.extend(other.judged);
    }

    /// Adds both accuracies, where there are images of both kinds; NaN where a feature is not finite.
    pub fn add_to(&self, metrics: &mut Metrics) {
        let Self { learned, judged } = self;
        if learned.classes.is_empty() || judged.classes.is_empty() {
            return;
        }
        let [linear, nearest] = if learned.is_finite() && judged.is_finite() {
            [
                accuracy(&linear_classifier(learned, judged), &judged.classes),
                accuracy(&nearest_neighbours(learned, judged), &judged.classes),
            ]
        } else {
            [f64::NAN; 2]
        };
        metrics.insert(LINEAR.name.into(), linear);
        metrics.insert(NEIGHBOURS.name.into(), nearest);
    }
}

fn accuracy(predicted: &[u32], classes: &[u32]) -> f64 {
    let pairs = predicted.iter().zip(classes);
    let right = pairs.filter(|(one, other)| one == other).count();
    right as f64 / classes.len() as f64
}

fn n_classes(features: &Features) -> usize {
    features
        .classes
        .iter()
        .max()
        .map_or(0, |&most| most as usize + 1)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums: one alone would wait for each product.
    let mut sums = [0.0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a
        .remainder()
        .iter()
        .zip(b.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a.zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn add_scaled(to: &mut [f32], by: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += by * from;
    }
}

/// The class with the highest score; of equal ones the first.
fn best(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = class;
        }
    }
    best as u32
}

/// Classes that the nearest of `learned` vote for, by the cosine of their features.
///
/// # Panics
///
/// If there is nothing to learn from.
pub fn nearest_neighbours(learned: &Features, judged: &Features) -> Vec<u32> {
    let unit = |features: &Features| -> Vec<f32> {
        let scaled = |row: &[f32]| {
            let length = dot(row, row).sqrt().max(1e-12);
            row.iter().map(|value| value / length).collect::<Vec<_>>()
        };
        features.rows().flat_map(scaled).collect()
    };
    let (width, classes) = (learned.width, n_classes(learned));
    let (known, asked) = (unit(learned), unit(judged));
    let voters = VOTERS.min(learned.classes.len());
    let vote = |row: &[f32]| {
        let similar = known.chunks_exact(width).map(|other| dot(row, other));
        let mut similar: Vec<(f32, u32)> = similar.zip(learned.classes.iter().copied()).collect();
        similar.select_nth_unstable_by(voters - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut nearest = similar[..voters].to_vec();
        // The order of the sum decides its last bits.
        nearest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut votes = vec![0.0; classes];
        for (similarity, class) in nearest {
            votes[class as usize] += (similarity / TEMPERATURE).exp();
        }
        best(&votes)
    };
    asked.chunks_exact(width).map(vote).collect()
}

/// Classes by logistic regression on features of mean 0 and deviation 1, with the penalty of scikit-learn's
/// `LogisticRegression`: half the squared length of the weights beside the sum of the losses.
///
/// # Panics
///
/// If there is nothing to learn from.
pub fn linear_classifier(learned: &Features, judged: &Features) -> Vec<u32> {
    let scale = Scale::of(learned);
    let (learned_rows, judged_rows) = (scale.apply(learned), scale.apply(judged));
    let classes = n_classes(learned);
    let weights = logistic_regression(&learned_rows, &learned.classes, scale.width(), classes);
    let scores = |row: &[f32]| -> Vec<f32> {
        let of_classes = weights.chunks_exact(scale.width());
        of_classes.map(|weights| dot(weights, row)).collect()
    };
    let rows = judged_rows.chunks_exact(scale.width());
    rows.map(|row| best(&scores(row))).collect()
}

/// What makes features of mean 0 and deviation 1, with a last one that is 1.
struct Scale {
    mean: Vec<f32>,
    factor: Vec<f32>,
}

impl Scale {
    fn of(features: &Features) -> Self {
        let n = features.classes.len() as f64;
        let mut sums = vec![[0.0f64; 2]; features.width];
        for row in features.rows() {
            for (sums, &value) in sums.iter_mut().zip(row) {
                sums[0] += f64::from(value);
            }
        }
        let mean: Vec<f64> = sums.iter().map(|sums| sums[0] / n).collect();
        for row in features.rows() {
            for ((sums, &value), mean) in sums.iter_mut().zip(row).zip(&mean) {
                sums[1] += (f64::from(value) - mean).powi(2);
            }
        }
        let factor = |sums: &[f64; 2]| {
            let deviation = (sums[1] / n).sqrt();
            // A feature that is the same for all images says nothing.
            if deviation > 1e-8 {
                1.0 / deviation
            } else {
                0.0
            }
        };
        Self {
            factor: sums.iter().map(|sums| factor(sums) as f32).collect(),
            mean: mean.iter().map(|&mean| mean as f32).collect(),
        }
    }

    /// Of a row, the last one counted.
    fn width(&self) -> usize {
        self.mean.len() + 1
    }

    /// `[n, width]`
    fn apply(&self, features: &Features) -> Vec<f32> {
        let mut all = Vec::with_capacity(features.classes.len() * self.width());
        for row in features.rows() {
            let of_scale = self.mean.iter().zip(&self.factor);
            let scaled = row.iter().zip(of_scale);
            all.extend(scaled.map(|(value, (mean, factor))| (value - mean) * factor));
            all.push(1.0);
        }
        all
    }
}

/// Weights of each class, `[classes, width]`, by Nesterov's accelerated gradient, which starts again where it overshoots:
/// O'Donoghue and Candès 2015, <https://arxiv.org/abs/1204.3982>.
///
/// - rows: `[n, width]`, whose last value is 1 and has no penalty
fn logistic_regression(rows: &[f32], targets: &[u32], width: usize, classes: usize) -> Vec<f32> {
    let n = targets.len() as f32;
    let step = 1.0 / (0.5 * largest_eigenvalue(rows, width, n) + 1.0 / n);
    let mut weights = vec![0.0f32; classes * width];
    let (mut ahead, mut momentum) = (weights.clone(), 1.0f32);
    let mut gradient = vec![0.0f32; weights.len()];
    for _ in 0..STEPS {
        gradient_at(&ahead, rows, targets, width, &mut gradient);
        if gradient.iter().all(|value| value.abs() < FLAT) {
            return ahead;
        }
        let mut next = ahead.clone();
        add_scaled(&mut next, -step, &gradient);
        let moved: Vec<f32> = next
            .iter()
            .zip(&weights)
            .map(|(new, old)| new - old)
            .collect();
        let uphill = dot(&gradient, &moved) > 0.0;
        let faster = if uphill {
            1.0
        } else {
            0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt())
        };
        let carry = if uphill {
            0.0
        } else {
            (momentum - 1.0) / faster
        };
        momentum = faster;
        ahead.clone_from(&next);
        add_scaled(&mut ahead, carry, &moved);
        weights = next;
    }
    weights
}

/// The gradient of the mean loss and its penalty.
fn gradient_at(weights: &[f32], rows: &[f32], targets: &[u32], width: usize, gradient: &mut [f32]) {
    let n = targets.len() as f32;
    for (gradient, weights) in gradient
        .chunks_exact_mut(width)
        .zip(weights.chunks_exact(width))
    {
        for (gradient, weight) in gradient.iter_mut().zip(weights) {
            *gradient = weight / n;
        }
        gradient[width - 1] = 0.0;
    }
    for (row, &target) in rows.chunks_exact(width).zip(targets) {
        let scores = weights.chunks_exact(width).map(|weights| dot(weights, row));
        let mut scores: Vec<f32> = scores.collect();
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores
            .iter_mut()
            .for_each(|score| *score = (*score - most).exp());
        let sum: f32 = scores.iter().sum();
        for (class, gradient) in gradient.chunks_exact_mut(width).enumerate() {
            let right = if class == target as usize { 1.0 } else { 0.0 };
            add_scaled(gradient, (scores[class] / sum - right) / n, row);
        }
    }
}

/// Of `rowsᵀ rows / n`, by the power method, a little too large rather than too small.
fn largest_eigenvalue(rows: &[f32], width: usize, n: f32) -> f32 {
    let mut vector = vec![1.0 / (width as f32).sqrt(); width];
    let mut value = 0.0;
    for _ in 0..30 {
        let mut product = vec![0.0; width];
        for row in rows.chunks_exact(width) {
            add_scaled(&mut product, dot(row, &vector) / n, row);
        }
        value = dot(&product, &product).sqrt();
        vector = product.iter().map(|x| x / value.max(1e-12)).collect();
    }
    1.1 * value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn features(golden: &Value, name: &str) -> Features {
        let rows: Vec<Vec<f32>> = serde_json::from_value(golden[name].clone()).unwrap();
        let classes = golden[format!("{name}_classes")].clone();
        Features {
            width: rows[0].len(),
            values: rows.concat(),
            classes: serde_json::from_value(classes).unwrap(),
        }
    }

    #[test]
    fn predictions_are_those_of_scikit_learn() {
        let golden = include_str!("../../../tests/golden/probe.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let (learned, judged) = (features(&golden, "learned"), features(&golden, "judged"));
        let of = |name: &str| -> Vec<u32> { serde_json::from_value(golden[name].clone()).unwrap() };
        assert_eq!(linear_classifier(&learned, &judged), of("linear"));
        assert_eq!(nearest_neighbours(&learned, &judged), of("neighbours"));
        let scale = Scale::of(&learned);
        let weights = logistic_regression(
            &scale.apply(&learned),
            &learned.classes,
            scale.width(),
            n_classes(&learned),
        );
        let theirs: Vec<f32> = serde_json::from_value(golden["weights"].clone()).unwrap();
        // Scores are known up to what is the same for all classes of a feature; the penalty takes that from the weights, and
        // not from the biases.
        for class in weights
            .chunks_exact(scale.width())
            .zip(theirs.chunks_exact(scale.width()))
        {
            let pairs = class.0.iter().zip(class.1).take(scale.width() - 1);
            for (ours, theirs) in pairs {
                assert!((ours - theirs).abs() < 5e-3, "{ours}, not {theirs}");
            }
        }
    }

    #[test]
    fn features_that_are_not_finite_or_missing_have_no_accuracy() {
        let two = Features {
            width: 1,
            values: vec![0.0, 1.0],
            classes: vec![0, 1],
        };
        let mut metrics = Metrics::new();
        let mut probe = Probe {
            learned: two.clone(),
            judged: Features::default(),
        };
        probe.add_to(&mut metrics);
        assert!(metrics.is_empty());
        probe.judged = two.clone();
        probe.add_to(&mut metrics);
        assert_eq!(metrics["probe_accuracy"], 1.0);
        probe.judged.values[0] = f32::NAN;
        probe.add_to(&mut metrics);
        assert!(metrics["probe_accuracy"].is_nan() && metrics["knn_accuracy"].is_nan());
    }
}
