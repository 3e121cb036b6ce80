//! Losses over classes: cross-entropy, smoothed, weighted or focal. In: logits and targets. Out: sums.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use burn::tensor::{FloatDType, TensorData};
use serde::{Deserialize, Serialize};

use crate::objective::LossSums;
use crate::recipe::Impossible;

/// Cross-entropy and hits, summed over the batch.
///
/// - logits: `[batch, n_classes]`
/// - targets: `[batch]`
pub fn cross_entropy<B: Backend>(logits: Tensor<B, 2>, targets: &[u32]) -> LossSums<B> {
    ClassLoss::default().sums(logits, targets)
}

/// The `[loss]` of a recipe with classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassLossRecipe {
    /// Share of each target that is spread over all classes. Szegedy et al. 2016, <https://arxiv.org/abs/1512.00567>.
    pub label_smoothing: f64,
    /// What each class counts.
    pub class_weights: ClassWeights,
    /// How much less a target counts that is already right; 0 is cross-entropy. Lin et al. 2017,
    /// <https://arxiv.org/abs/1708.02002>.
    pub focal_gamma: f64,
}

/// What each class counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// All the same.
    None,
    /// The rarer the more, `n / (n_classes * n_class)`, as scikit-learn's `balanced`.
    Balanced,
}

impl ClassLossRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        let wrong = |name: &str, reason| Err(Impossible::new(format!("loss.{name}"), reason));
        check_smoothing(self.label_smoothing)?;
        let gamma = self.focal_gamma;
        if !(gamma.is_finite() && gamma >= 0.0) {
            return wrong("focal_gamma", format!("is {gamma}; it must be 0 or more"));
        }
        if gamma > 0.0 && self.label_smoothing > 0.0 {
            wrong(
                "focal_gamma",
                "goes without loss.label_smoothing; one must be 0".into(),
            )
        } else {
            Ok(())
        }
    }

    /// Says what is impossible beside images that are mixed, if anything is.
    pub fn check_mixed(&self) -> Result<(), Impossible> {
        if self.focal_gamma == 0.0 {
            return Ok(());
        }
        let reason = format!(
            "is {}; it goes without augment.mix, as there is no focal loss of several classes",
            self.focal_gamma
        );
        Err(Impossible::new("loss.focal_gamma", reason))
    }

    /// The loss over classes that occur this often in training.
    pub fn over(&self, n_classes: usize, targets: impl Iterator<Item = u32>) -> ClassLoss {
        let weights = match self.class_weights {
            ClassWeights::None => None,
            ClassWeights::Balanced => Some(balanced(n_classes, targets)),
        };
        ClassLoss {
            label_smoothing: self.label_smoothing,
            focal_gamma: self.focal_gamma,
            weights,
        }
    }
}

/// The `[loss]` of a recipe with a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmoothingRecipe {
    /// Share of each target that is spread over all tokens.
    pub label_smoothing: f64,
}

impl SmoothingRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(self) -> Result<(), Impossible> {
        check_smoothing(self.label_smoothing)
    }
}

/// Refuses a share that is none.
pub fn check_smoothing(share: f64) -> Result<(), Impossible> {
    if (0.0..1.0).contains(&share) {
        Ok(())
    } else {
        Err(Impossible::new(
            "loss.label_smoothing",
            format!("is {share}; it must be at least 0 and below 1"),
        ))
    }
}

fn balanced(n_classes: usize, targets: impl Iterator<Item = u32>) -> Vec<f32> {
    let mut counts = vec![0usize; n_classes];
    targets.for_each(|class| counts[class as usize] += 1);
    let n = counts.iter().sum::<usize>() as f64;
    let weight = |&count: &usize| (n / (n_classes as f64 * count.max(1) as f64)) as f32;
    counts.iter().map(weight).collect()
}

/// The class with the largest share in each row; the first of several.
///
/// - shares: `[batch, n_classes]`, row-major
pub fn largest_shares(shares: &[f32], n_classes: usize) -> impl Iterator<Item = u32> {
    shares.chunks_exact(n_classes).map(|row| {
        let mut largest = 0;
        for (class, share) in row.iter().enumerate() {
            if *share > row[largest] {
                largest = class;
            }
        }
        largest as u32
    })
}

/// A loss over classes; without anything set, cross-entropy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassLoss {
    label_smoothing: f64,
    focal_gamma: f64,
    weights: Option<Vec<f32>>,
}

impl ClassLoss {
    /// Cross-entropy with smoothed targets.
    pub fn smoothed(label_smoothing: f64) -> Self {
        Self {
            label_smoothing,
            ..Self::default()
        }
    }

    /// Whether this is cross-entropy and nothing else.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Loss and hits, summed over the batch; the loss is a mean once divided by the weight, as torch's
    /// `cross_entropy` divides.
    ///
    /// - logits: `[batch, n_classes]`, of any precision
    /// - targets: `[batch]`
    pub fn sums<B: Backend>(&self, logits: Tensor<B, 2>, targets: &[u32]) -> LossSums<B> {
        let n = targets.len();
        let device = logits.device();
        let logits = logits.cast(FloatDType::F32);
        let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
        let ids: Tensor<B, 1, Int> = Tensor::from_data(TensorData::new(ids, [n]), &device);
        let hits = logits.clone().detach().argmax(1).reshape([n]).equal(ids);
        let log_p = (self.label_smoothing > 0.0).then(|| log_softmax(logits.clone(), 1));
        let mut losses = model::ops::cross_entropy(logits, targets);
        if self.focal_gamma > 0.0 {
            // 1 - p is 0 where a target is certain, where the power's own gradient is not finite.
            let doubt = (-(-losses.clone()).exp() + 1.0).clamp_min(1e-12);
            losses = losses * doubt.powf_scalar(self.focal_gamma);
        }
        if let Some(of_targets) = self.weights_of(targets) {
            losses = losses * Tensor::from_data(TensorData::new(of_targets, [n]), &device);
        }
        let mut loss = losses.sum();
        if let Some(log_p) = log_p {
            loss = loss * (1.0 - self.label_smoothing) + self.spread(log_p);
        }
        LossSums::weighted(loss, vec![hits.float().sum()], n, self.weight(targets))
    }

    /// What the loss of these targets is divided by for its mean.
    pub fn weight(&self, targets: &[u32]) -> f64 {
        match self.weights_of(targets) {
            Some(weights) => weights.into_iter().map(f64::from).sum(),
            None => targets.len() as f64,
        }
    }

    /// What each target counts, where classes count differently.
    fn weights_of(&self, targets: &[u32]) -> Option<Vec<f32>> {
        let weights = self.weights.as_ref()?;
        Some(targets.iter().map(|&id| weights[id as usize]).collect())
    }

    /// Loss and hits of rows that have a share in each class, as mixing images gives them; summed over the batch.
    ///
    /// As torch's `cross_entropy` with probabilities: smoothing moves a part of each row to all classes alike, each class's
    /// part is multiplied by its weight, and the mean is one over the rows, whatever their weights are. A hit is the class
    /// with the largest share. There is no focal loss of shares, as [`check_mixed`](ClassLossRecipe::check_mixed) says.
    ///
    /// - logits: `[batch, n_classes]`, of any precision
    /// - shares: `[batch, n_classes]`, row-major, each row adding up to 1
    pub fn sums_of_shares<B: Backend>(&self, logits: Tensor<B, 2>, shares: &[f32]) -> LossSums<B> {
        let [n, n_classes] = logits.dims();
        let device = logits.device();
        let largest: Vec<i32> = largest_shares(shares, n_classes)
            .map(|class| class as i32)
            .collect();
        let largest: Tensor<B, 1, Int> = Tensor::from_data(TensorData::new(largest, [n]), &device);
        let logits = logits.cast(FloatDType::F32);
        let hits = logits
            .clone()
            .detach()
            .argmax(1)
            .reshape([n])
            .equal(largest);
        let smoothing = self.label_smoothing as f32;
        let part = |(at, &share): (usize, &f32)| {
            let weights = self.weights.as_ref();
            let weight = weights.map_or(1.0, |weights| weights[at % n_classes]);
            weight * (share * (1.0 - smoothing) + smoothing / n_classes as f32)
        };
        let parts: Vec<f32> = shares.iter().enumerate().map(part).collect();
        let parts = Tensor::from_data(TensorData::new(parts, [n, n_classes]), &device);
        let loss = -(log_softmax(logits, 1) * parts).sum();
        LossSums::new(loss, vec![hits.float().sum()], n)
    }

    /// The part of the loss that all classes share.
    ///
    /// - log_p: `[batch, n_classes]`
    fn spread<B: Backend>(&self, log_p: Tensor<B, 2>) -> Tensor<B, 1> {
        let [_, n_classes] = log_p.dims();
        let log_p = match &self.weights {
            Some(weights) => {
                let weights = TensorData::new(weights.clone(), [1, n_classes]);
                let weights = Tensor::from_data(weights, &log_p.device());
                log_p * weights
            }
            None => log_p,
        };
        log_p.sum() * (-self.label_smoothing / n_classes as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use serde_json::Value;

    type B = Autodiff<Flex>;

    fn floats(value: &Value) -> Vec<f32> {
        let flat = |value: &Value| match value {
            Value::Array(row) => row.iter().map(|x| x.as_f64().unwrap() as f32).collect(),
            number => vec![number.as_f64().unwrap() as f32],
        };
        value.as_array().unwrap().iter().flat_map(flat).collect()
    }

    fn near(what: &str, ours: f64, theirs: f64) {
        // Sums of five logarithms in f32.
        let tolerance = 1e-6 * theirs.abs().max(1.0);
        assert!(
            (ours - theirs).abs() < tolerance,
            "{what}: {ours}, not {theirs}"
        );
    }

    #[test]
    fn sums_means_and_gradients_are_those_of_torch() {
        let golden = include_str!("../../../tests/golden/losses.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let targets: Vec<u32> = floats(&golden["targets"])
            .iter()
            .map(|&x| x as u32)
            .collect();
        let weights = Some(floats(&golden["weights"]));
        let smoothed = ClassLoss::smoothed(0.1);
        for (kind, loss) in [
            ("plain", ClassLoss::default()),
            ("smoothed", smoothed.clone()),
            (
                "weighted",
                ClassLoss {
                    weights: weights.clone(),
                    ..ClassLoss::default()
                },
            ),
            (
                "weighted_smoothed",
                ClassLoss {
                    weights,
                    ..smoothed
                },
            ),
            (
                "focal",
                ClassLoss {
                    focal_gamma: 2.0,
                    ..ClassLoss::default()
                },
            ),
        ] {
            let expected = &golden["kinds"][kind];
            let logits = TensorData::new(floats(&golden["logits"]), [5, 4]);
            let logits = Tensor::<B, 2>::from_data(logits, &Default::default()).require_grad();
            let sums = loss.sums(logits.clone(), &targets);
            near(
                kind,
                sums.loss.clone().into_scalar().into(),
                expected["sum"].as_f64().unwrap(),
            );
            near(kind, sums.mean_loss(), expected["mean"].as_f64().unwrap());
            let gradient = logits.grad(&sums.loss.backward()).unwrap().into_data();
            for (ours, theirs) in gradient.iter::<f64>().zip(floats(&expected["grad"])) {
                near(kind, ours, theirs.into());
            }
        }
    }

    #[test]
    fn sums_means_and_gradients_of_shares_are_those_of_torch() {
        let golden = include_str!("../../../tests/golden/losses.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let shares = floats(&golden["shares"]);
        let weights = Some(floats(&golden["weights"]));
        for (kind, label_smoothing, weights) in [
            ("soft_plain", 0.0, None),
            ("soft_smoothed", 0.1, None),
            ("soft_weighted", 0.0, weights.clone()),
            ("soft_weighted_smoothed", 0.1, weights),
        ] {
            let loss = ClassLoss {
                label_smoothing,
                weights,
                ..ClassLoss::default()
            };
            let expected = &golden["kinds"][kind];
            let logits = TensorData::new(floats(&golden["logits"]), [5, 4]);
            let logits = Tensor::<B, 2>::from_data(logits, &Default::default()).require_grad();
            let sums = loss.sums_of_shares(logits.clone(), &shares);
            near(
                kind,
                sums.loss.clone().into_scalar().into(),
                expected["sum"].as_f64().unwrap(),
            );
            near(kind, sums.mean_loss(), expected["mean"].as_f64().unwrap());
            let gradient = logits.grad(&sums.loss.backward()).unwrap().into_data();
            for (ours, theirs) in gradient.iter::<f64>().zip(floats(&expected["grad"])) {
                near(kind, ours, theirs.into());
            }
        }
    }

    #[test]
    fn a_hit_is_the_class_with_the_larger_share() {
        let shares = [0.3, 0.7, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 1.0];
        let largest: Vec<u32> = largest_shares(&shares, 3).collect();
        assert_eq!(largest, [1, 0, 2]);
        let logits = [[0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.0]];
        let logits = Tensor::<B, 2>::from_data(logits, &Default::default());
        let sums = ClassLoss::default().sums_of_shares(logits, &shares);
        assert_eq!(sums.sums[0].clone().into_scalar(), 2.0);
    }

    #[test]
    fn a_certain_target_has_a_finite_focal_gradient() {
        let recipe = ClassLossRecipe {
            label_smoothing: 0.0,
            class_weights: ClassWeights::None,
            focal_gamma: 0.5,
        };
        let loss = recipe.over(2, [0, 1].into_iter());
        let logits = Tensor::<B, 2>::from_data([[200.0, 0.0]], &Default::default()).require_grad();
        let sums = loss.sums(logits.clone(), &[0]);
        let gradient = logits.grad(&sums.loss.backward()).unwrap().into_data();
        assert!(gradient.iter::<f32>().all(f32::is_finite), "{gradient}");
    }

    #[test]
    fn balanced_weights_are_those_of_scikit_learn() {
        // compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 1, 2, 2]): 6 / (3 * count)
        let weights = balanced(3, [0, 0, 0, 1, 2, 2].into_iter());
        assert_eq!(weights, [6.0 / 9.0, 2.0, 1.0]);
    }

    #[test]
    fn impossible_values_are_refused() {
        let fine = ClassLossRecipe {
            label_smoothing: 0.1,
            class_weights: ClassWeights::Balanced,
            focal_gamma: 0.0,
        };
        assert_eq!(fine.check(), Ok(()));
        for (recipe, words) in [
            (
                ClassLossRecipe {
                    label_smoothing: 1.0,
                    ..fine.clone()
                },
                "loss.label_smoothing is 1;",
            ),
            (
                ClassLossRecipe {
                    focal_gamma: -1.0,
                    ..fine.clone()
                },
                "loss.focal_gamma is -1;",
            ),
            (
                ClassLossRecipe {
                    focal_gamma: 2.0,
                    ..fine.clone()
                },
                "loss.focal_gamma goes without",
            ),
        ] {
            let error = recipe.check().unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }
}
