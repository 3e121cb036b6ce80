//! The update rules of optimizers, one function each. In: weights, gradient and state of one parameter. Out: the
//! weights one step on.
//!
//! Formulas and defaults are those of `torch.optim` (LAMB: timm's, Lion: its authors'); `tests/golden` holds
//! trajectories of all of them.

use burn::prelude::*;
use model::ops::AdamW;
use serde::{Deserialize, Serialize};

/// Which rule changes the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Gradient descent with momentum, Nesterov's too; weight decay is added to the gradient.
    Sgd,
    /// Kingma and Ba 2015, <https://arxiv.org/abs/1412.6980>; weight decay is added to the gradient.
    Adam,
    /// Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>.
    AdamW,
    /// Shazeer and Stern 2018, <https://arxiv.org/abs/1804.04235>: a matrix keeps a row and a column of state.
    Adafactor,
    /// You et al. 2020, <https://arxiv.org/abs/1904.00962>; where weights decay, they change by a share of their norm.
    Lamb,
    /// Chen et al. 2023, <https://arxiv.org/abs/2302.06675>.
    Lion,
    /// Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>, for hidden matrices, at AdamW's rates
    /// (Liu et al. 2025, <https://arxiv.org/abs/2502.16982>); AdamW for everything else.
    Muon,
}

/// What a rule depends on, for one parameter at one step.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The rule.
    pub kind: OptimizerKind,
    /// Of this step and parameter.
    pub lr: f64,
    /// Of this parameter.
    pub weight_decay: f64,
    /// Of the velocity: SGD, Muon.
    pub momentum: f64,
    /// Look ahead by the momentum: SGD, Muon.
    pub nesterov: bool,
    /// Decay of the first moment: Adam, AdamW, LAMB, Lion.
    pub beta1: f64,
    /// Decay of the second moment: Adam, AdamW, LAMB; of the momentum: Lion.
    pub beta2: f64,
    /// Added to the root of the second moment: Adam, AdamW, LAMB.
    pub eps: f64,
    /// Steps taken with this parameter, this one included.
    pub taken: i32,
    /// What the gradient is multiplied by first: the mean over targets, clipped.
    pub scale: f64,
}

/// The state of one parameter: flat tensors with their names.
pub type Slots<B> = Vec<(&'static str, Tensor<B, 1>)>;

/// Every name a slot can have.
pub const SLOTS: &[&str] = &["first", "second", "momentum", "row", "column"];

impl Rule {
    /// One step.
    ///
    /// - weights, gradient: `[n]`, of a parameter of this `shape`
    /// - slots: empty before the first step
    pub fn step<B: Backend>(
        &self,
        weights: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        shape: &[usize],
        slots: &mut Slots<B>,
    ) -> Tensor<B, 1> {
        if matches!(self.kind, OptimizerKind::AdamW | OptimizerKind::Muon) {
            return self.adamw(weights, gradient, slots);
        }
        let gradient = gradient * self.scale;
        match self.kind {
            OptimizerKind::Sgd => self.sgd(weights, gradient, slots),
            OptimizerKind::Adam => {
                let gradient = self.with_decay(gradient, &weights);
                let change = self.adam_direction(gradient, slots);
                weights - change * self.lr
            }
            OptimizerKind::AdamW | OptimizerKind::Muon => unreachable!("taken above"),
            OptimizerKind::Adafactor => self.adafactor(weights, gradient, shape, slots),
            OptimizerKind::Lamb => self.lamb(weights, gradient, slots),
            OptimizerKind::Lion => self.lion(weights, gradient, slots),
        }
    }

    /// The rule for a parameter of this name and shape: Muon is for hidden matrices.
    ///
    /// - gradient: `[rows, columns]` flattened
    pub fn orthogonal_step<B: Backend>(
        &self,
        weights: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        [rows, columns]: [usize; 2],
        slots: &mut Slots<B>,
    ) -> Tensor<B, 1> {
        let gradient = gradient * self.scale;
        let old = take(slots, "momentum").unwrap_or_else(|| gradient.zeros_like());
        let velocity = old * self.momentum + gradient.clone() * (1.0 - self.momentum);
        let direction = if self.nesterov {
            gradient * (1.0 - self.momentum) + velocity.clone() * self.momentum
        } else {
            velocity.clone()
        };
        slots.push(("momentum", velocity));
        let change = orthogonalised(direction.reshape([rows, columns]));
        let lr = self.lr * 0.2 * (rows.max(columns) as f64).sqrt();
        self.decayed(weights) - change.reshape([rows * columns]) * lr
    }

    fn sgd<B: Backend>(
        &self,
        weights: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        slots: &mut Slots<B>,
    ) -> Tensor<B, 1> {
        let gradient = self.with_decay(gradient, &weights);
        if self.momentum == 0.0 {
            return weights - gradient * self.lr;
        }
        let velocity = match take(slots, "momentum") {
            Some(old) => old * self.momentum + gradient.clone(),
            None => gradient.clone(),
        };
        slots.push(("momentum", velocity.clone()));
        let change = if self.nesterov {
            gradient + velocity * self.momentum
        } else {
            velocity
        };
        weights - change * self.lr
    }

    fn adamw<B: Backend>(
        &self,
        weights: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        slots: &mut Slots<B>,
    ) -> Tensor<B, 1> {
        let mut moment = |name| take(slots, name).unwrap_or_else(|| gradient.zeros_like());
        let state = [weights, moment("first"), moment("second")];
        let step = AdamW {
            lr: self.lr,
            weight_decay: self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            taken: self.taken,
            scale: self.scale,
        };
        let [weights, first, second] = model::ops::adamw(step, state, gradient);
        slots.push(("first", first));
        slots.push(("second", second));
        weights
    }

    /// Bias-corrected first moment over the root of the bias-corrected second.
    fn adam_direction<B: Backend>(
        &self,
        gradient: Tensor<B, 1>,
        slots: &mut Slots<B>,
    ) -> Tensor<B, 1> {
        let Self { beta1, beta2, .. } = *self;
        let square = gradient.clone() * gradient.clone();
        let first = match take(slots, "first") {
            Some(old) => old * beta1 + gradient * (1.0 - beta1),
            None => gradient * (1.0 - beta1),
        };
        let second = match take(slots, "second") {
            Some(old) => old * beta2 + square * (1.0 - beta2),
            None => square * (1.0 - beta2),
        };
        let correction1 = 1.0 - beta1.powi(self.taken);
        let correction2 = (1.0 - beta2.powi(self.taken)).sqrt();
        let denominator = second.clone().sqrt() * (1.0 / correction2) + self.eps;
        let change = first.clone() / denominator * (1.0 / correction1);
        slots.push(("first", first));
        slots.push(("second", second));
        change
    }

    fn lamb<B: Backend>(
        &self,
        weights: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        slots: &mut Slots<B>,
    ) -> Tensor<B, 1> {
        let change = self.adam_direction(gradient, slots);
        if self.weight_decay == 0.0 {
            return weights - change * self.lr;
        }
        let change = change + weights.clone() * self.weight_decay;
        let (size, step) = (norm(weights.clone()), norm(change.clone()));
        let undefined = size
            .clone()
            .equal_elem(0.0)
            .bool_or(step.clone().equal_elem(0.0));
        let trust = (size / step).mask_fill(undefined, 1.0);
        weights - change * trust * self.lr
    }

    fn lion<B: Backend>(
        &self,
        weights: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        slots: &mut Slots<B>,
    ) -> Tensor<B, 1> {
        let Self { beta1, beta2, .. } = *self;
        let old = take(slots, "momentum").unwrap_or_else(|| gradient.zeros_like());
        let change = (old.clone() * beta1 + gradient.clone() * (1.0 - beta1)).sign();
        slots.push(("momentum", old * beta2 + gradient * (1.0 - beta2)));
        self.decayed(weights) - change * self.lr
    }

    /// Adafactor with torch's constants: `eps = (machine epsilon, 1e-3)`, `d = 1`, `beta2_decay = -0.8`.
    fn adafactor<B: Backend>(
        &self,
        weights: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        shape: &[usize],
        slots: &mut Slots<B>,
    ) -> Tensor<B, 1> {
        const EPS: f64 = f32::EPSILON as f64;
        let n = gradient.shape().num_elements() as f64;
        let step = f64::from(self.taken);
        let fresh = step.powf(-0.8);
        let relative = self.lr.min(step.powf(-0.5));
        let alpha = (norm(weights.clone()) * n.sqrt().recip()).clamp_min(1e-3) * relative;
        let average = |old: Option<Tensor<B, 1>>, new: Tensor<B, 1>| match old {
            Some(old) => old * (1.0 - fresh) + new * fresh,
            None => new * fresh,
        };
        let square = gradient.clone() * gradient.clone();
        let variance = match *shape {
            [.., rows, columns] => {
                let square = square.reshape([-1, rows as i32, columns as i32]);
                let [stack, ..] = square.dims();
                let row = average(take(slots, "row"), square.clone().mean_dim(2).flatten(0, 2));
                let column = average(take(slots, "column"), square.mean_dim(1).flatten(0, 2));
                slots.push(("row", row.clone()));
                slots.push(("column", column.clone()));
                let row = row.reshape([stack, rows, 1]);
                let mean = row.clone().mean_dim(1).clamp_min(EPS);
                (row * column.reshape([stack, 1, columns]) / mean).flatten(0, 2)
            }
            _ => {
                let variance = average(take(slots, "second"), square);
                slots.push(("second", variance.clone()));
                variance
            }
        };
        let change = gradient / variance.clamp_min(EPS * EPS).sqrt();
        let size = (norm(change.clone()) * n.sqrt().recip()).clamp_min(1.0);
        self.decayed(weights) - change * (alpha / size)
    }

    fn decayed<B: Backend>(&self, weights: Tensor<B, 1>) -> Tensor<B, 1> {
        if self.weight_decay > 0.0 {
            weights * (1.0 - self.lr * self.weight_decay)
        } else {
            weights
        }
    }

    fn with_decay<B: Backend>(
        &self,
        gradient: Tensor<B, 1>,
        weights: &Tensor<B, 1>,
    ) -> Tensor<B, 1> {
        if self.weight_decay > 0.0 {
            gradient + weights.clone() * self.weight_decay
        } else {
            gradient
        }
    }
}

/// Whether Muon changes it: a matrix between embeddings and output.
pub fn is_hidden_matrix(name: &str, shape: &[usize]) -> bool {
    let outside = ["embeddings", "classifier", "predictions.decoder"];
    shape.len() == 2 && !outside.iter().any(|part| name.contains(part))
}

/// The nearest semi-orthogonal matrix, roughly: five Newton-Schulz iterations with Jordan's coefficients.
///
/// - matrix: `[rows, columns]`
fn orthogonalised<B: Backend>(matrix: Tensor<B, 2>) -> Tensor<B, 2> {
    const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
    let [rows, columns] = matrix.dims();
    let tall = rows > columns;
    let mut x = if tall { matrix.transpose() } else { matrix };
    let size = norm(x.clone().flatten::<1>(0, 1)).clamp_min(1e-7);
    x = x / size.unsqueeze();
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..5 {
        let gram = x.clone().matmul(x.clone().transpose());
        let update = gram.clone() * b + gram.clone().matmul(gram) * c;
        x = x.clone() * a + update.matmul(x);
    }
    if tall { x.transpose() } else { x }
}

fn norm<B: Backend>(x: Tensor<B, 1>) -> Tensor<B, 1> {
    (x.clone() * x).sum().sqrt()
}

fn take<B: Backend>(slots: &mut Slots<B>, name: &str) -> Option<Tensor<B, 1>> {
    let at = slots.iter().position(|(have, _)| *have == name)?;
    Some(slots.swap_remove(at).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    #[test]
    fn a_matrix_becomes_nearly_orthogonal() {
        // Singular values of Jordan's iteration end between 0.7 and 1.2.
        let device = Default::default();
        for shape in [[2, 3], [3, 2]] {
            let matrix = Tensor::<Flex, 1>::from_data([3.0, 1.0, -2.0, 0.5, 4.0, 1.0], &device);
            let x = orthogonalised(matrix.reshape(shape));
            let gram = if shape[0] < shape[1] {
                x.clone().matmul(x.transpose())
            } else {
                x.clone().transpose().matmul(x)
            };
            let gram: Vec<f32> = gram.into_data().iter::<f32>().collect();
            assert!(gram[0] > 0.49 && gram[0] < 1.44, "{gram:?}");
            assert!(gram[3] > 0.49 && gram[3] < 1.44, "{gram:?}");
            assert!(gram[1].abs() < 0.3, "{gram:?}");
        }
    }

    #[test]
    fn muon_leaves_out_vectors_embeddings_and_heads() {
        let hidden = |name, shape: &[usize]| is_hidden_matrix(name, shape);
        assert!(hidden("bert.encoder.layer.0.output.dense.weight", &[4, 4]));
        assert!(!hidden("bert.encoder.layer.0.output.dense.bias", &[4]));
        assert!(!hidden("bert.embeddings.word_embeddings.weight", &[9, 4]));
        assert!(!hidden("classifier.weight", &[4, 2]));
        assert!(!hidden("encoder.convolutions.0.weight", &[4, 1, 3, 3]));
    }
}
