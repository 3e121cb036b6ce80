//! Short experiments before a run: which learning rate, and whether the model can learn at all.
//!
//! In: a model, an optimizer and batches. Out: what was found, printed; nothing is trained for good.

use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::{GradientsParams, Optimizer as _};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::TrainStep;

use crate::metrics::Metrics;
use crate::objective::{Objective, StepOutput, SumTally, Tally, Trainable, Trainee};
use crate::optim::groups::ModulePath;
use crate::optim::optimizer::Optimizer;
use crate::source::BatchSource;

/// An experiment instead of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A range test of the learning rate. Smith 2017, <https://arxiv.org/abs/1506.01186>.
    FindLr,
    /// One batch again and again, until it is learnt or is not.
    OverfitBatch,
}

/// What is tried on.
pub struct Subject<'a, B: AutodiffBackend, O: Trainable<B>, S> {
    /// With the weights it starts from.
    pub model: Trainee<B, O>,
    /// With no step taken.
    pub optimizer: Optimizer<B>,
    /// Training batches.
    pub source: &'a S,
    /// Dropout of step n is drawn from (seed, n).
    pub seed: u64,
}

/// What a step gave.
struct Step {
    metrics: Metrics,
    loss: f64,
    /// Parameters without a gradient; looked for at the first step.
    silent: Vec<String>,
}

impl<B, O, S> Subject<'_, B, O, S>
where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    /// One step on a batch at a rate.
    fn step(&mut self, number: u64, batch: u64, lr: f64) -> Step {
        let device = self.model.devices().into_iter().next().unwrap_or_default();
        B::seed(&device, self.seed.wrapping_add(number));
        let output = TrainStep::step(&self.model, self.source.batch(batch));
        let silent = match number {
            0 => silent::<B, _>(&self.model, &output.grads),
            _ => Vec::new(),
        };
        let StepOutput::Sums(sums) = output.item else {
            unreachable!("a step gives sums");
        };
        let (loss, weight) = (sums.mean_loss(), sums.weight);
        let metrics = SumTally::read(sums, <O as Objective<B>>::SUMS).metrics();
        self.optimizer.prepare(number, weight);
        self.model = self.optimizer.step(lr, self.model.clone(), output.grads);
        Step {
            metrics,
            loss,
            silent,
        }
    }
}

/// Rates and smoothed losses of a range test.
pub struct LrCurve {
    /// `(rate, loss)`, rates ascending.
    pub points: Vec<(f64, f64)>,
    /// Where the loss falls fastest; nothing if it never falls.
    pub suggestion: Option<f64>,
}

/// Lowest and highest rate of a range test, and the steps between them.
const RANGE: (f64, f64, u64) = (1e-6, 10.0, 100);

/// Raises the rate from step to step until the loss explodes.
pub fn find_lr<B, O, S>(mut subject: Subject<B, O, S>) -> LrCurve
where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    const SMOOTHING: f64 = 0.9;
    let (lowest, highest, steps) = RANGE;
    let (mut average, mut best) = (0.0, f64::INFINITY);
    let mut points = Vec::new();
    for number in 0..steps {
        let lr = lowest * (highest / lowest).powf(number as f64 / (steps - 1) as f64);
        let loss = subject.step(number, number, lr).loss;
        average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
        let smooth = average / (1.0 - SMOOTHING.powi(number as i32 + 1));
        if !smooth.is_finite() || smooth > 4.0 * best {
            break;
        }
        best = best.min(smooth);
        points.push((lr, smooth));
    }
    let suggestion = steepest(&points);
    LrCurve { points, suggestion }
}

/// The rate at which the loss falls fastest over five steps, before its lowest point.
fn steepest(points: &[(f64, f64)]) -> Option<f64> {
    const SPAN: usize = 5;
    let lowest = (0..points.len()).min_by(|&a, &b| points[a].1.total_cmp(&points[b].1))?;
    let fall = |at: &usize| points[at - SPAN].1 - points[*at].1;
    let at = (SPAN..=lowest).max_by(|a, b| fall(a).total_cmp(&fall(b)))?;
    (fall(&at) > 0.0).then(|| points[at - SPAN / 2].0)
}

/// What came of one batch.
pub struct Overfit {
    /// Steps taken.
    pub steps: u64,
    /// Figures before the first step.
    pub first: Metrics,
    /// Figures before the last step.
    pub last: Metrics,
    /// Whether the batch was learnt.
    pub learnt: bool,
    /// Parameters that train and whose first gradient was 0.
    pub silent: Vec<String>,
}

/// Steps on one batch before it counts as not learnt.
const PATIENCE: u64 = 500;

/// Trains on the first batch alone, at a constant rate.
pub fn overfit_batch<B, O, S>(mut subject: Subject<B, O, S>, lr: f64) -> Overfit
where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    let Step {
        metrics: first,
        silent,
        ..
    } = subject.step(0, 0, lr);
    let mut outcome = Overfit {
        steps: 1,
        last: first.clone(),
        learnt: false,
        first,
        silent,
    };
    while outcome.steps < PATIENCE && !outcome.learnt {
        let Step { metrics, loss, .. } = subject.step(outcome.steps, 0, lr);
        outcome.steps += 1;
        outcome.learnt = is_learnt(&outcome.first, &metrics);
        outcome.last = metrics;
        if !loss.is_finite() {
            break;
        }
    }
    outcome
}

/// Losses of classes go to 0; cross-entropy of grey pixels has a floor, their squared error has none.
fn is_learnt(first: &Metrics, now: &Metrics) -> bool {
    let fell = |name: &str| match (first.get(name), now.get(name)) {
        (Some(first), Some(now)) => *now < 0.05 * first,
        _ => false,
    };
    fell("loss") || fell("mse")
}

/// Names of the parameters that train and whose gradient is missing or 0.
fn silent<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    grads: &GradientsParams,
) -> Vec<String> {
    struct Silent<'a> {
        path: ModulePath,
        grads: &'a GradientsParams,
        names: Vec<String>,
    }
    impl<B: AutodiffBackend> ModuleVisitor<B> for Silent<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if !param.is_require_grad() {
                return;
            }
            let grad = self.grads.get::<B::InnerBackend, D>(param.id);
            let size = grad.map(|grad| grad.abs().sum().into_scalar().elem::<f64>());
            if size.unwrap_or_default() == 0.0 {
                self.names.push(self.path.name());
            }
        }
    }
    let mut silent = Silent {
        path: ModulePath::default(),
        grads,
        names: Vec::new(),
    };
    module.visit(&mut silent);
    silent.names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_lies_where_the_loss_falls_fastest() {
        // Flat, a fall between the tenth and the twentieth rate, flat, a rise.
        let loss = |i: usize| match i {
            0..10 => 5.0,
            10..20 => 5.0 - 0.3 * (i - 9) as f64,
            20..30 => 2.0,
            _ => 2.0 + (i - 29) as f64,
        };
        let points: Vec<_> = (0..35)
            .map(|i| (10f64.powf(-6.0 + 0.2 * i as f64), loss(i)))
            .collect();
        let suggestion = steepest(&points).unwrap();
        assert!(
            points[10].0 <= suggestion && suggestion <= points[20].0,
            "{suggestion}"
        );
        let flat: Vec<_> = (0..35).map(|i| (i as f64, 1.0)).collect();
        assert_eq!(steepest(&flat), None);
        assert_eq!(steepest(&points[..3]), None);
    }

    #[test]
    fn a_batch_is_learnt_when_its_loss_or_its_error_is_nearly_gone() {
        let of = |loss, mse| Metrics::from([("loss".into(), loss), ("mse".into(), mse)]);
        assert!(is_learnt(&of(8.0, 1.0), &of(0.3, 1.0)));
        assert!(is_learnt(&of(0.7, 0.2), &of(0.3, 0.009)));
        assert!(!is_learnt(&of(8.0, 1.0), &of(0.5, 0.1)));
        assert!(!is_learnt(&of(8.0, 1.0), &of(f64::NAN, f64::NAN)));
    }
}
