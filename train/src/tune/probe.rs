//! Short experiments before a run: which learning rate, and whether the model can learn at all.
//!
//! In: a model, an optimizer and batches. Out: what was found, printed; nothing is trained for good.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::{GradientsParams, Optimizer as _};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::InferenceStep;
use model::layers::batch_norm;
use serde_json::{Value, json};

use crate::failure::{self, Failure, FailureKind};
use crate::generator::seeded;
use crate::memory::{self, Work};
use crate::metrics::{Metrics, short};
use crate::objective::{Objective, Pass, SplitOutput, Tally, Trainable, Trainee};
use model::walk::ModulePath;

use crate::optim::groups::{self, Groups, Setting};
use crate::optim::optimizer::Optimizer;
use crate::report::plot::Plot;
use crate::session::Status;
use crate::source::{BatchSource, Counts};
use crate::ui::{self, Ui, say};

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

/// Runs an experiment and prints what was found.
///
/// - lr: at which one batch is learnt
/// - out: the run that it is for; the plot of a range test goes beside it
///
/// # Errors
///
/// A batch that is not learnt, no rate at which the loss falls, a backend that breaks down.
pub fn run<B, O, S>(
    probe: Probe,
    subject: Subject<B, O, S>,
    lr: f64,
    out: &Path,
    ui: Ui,
) -> Result<Status, Failure>
where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    memory::now(Work::Training);
    match probe {
        Probe::FindLr => {
            if let Some(folder) = out.parent() {
                // Before the steps: nobody waits for a plot that has no place.
                std::fs::create_dir_all(folder).running()?;
            }
            let curve = failure::caught(|| find_lr(subject)).running()?;
            print_curve(curve, out, ui)
        }
        Probe::OverfitBatch => {
            let outcome = failure::caught(|| overfit_batch(subject, lr));
            print_overfit(&outcome.running()?, lr, ui)
        }
    }
}

impl<B, O, S> Subject<'_, B, O, S>
where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    /// Loss and gradients of a batch, at the step of this number; nothing if it has no target.
    fn pass(&self, number: u64, batch: u64) -> Option<Pass<B>> {
        let device = self.model.devices().into_iter().next().unwrap_or_default();
        let batch = self.source.batch(batch);
        if batch.is_without_targets() {
            return None;
        }
        let seed = self.seed.wrapping_add(number);
        Some(seeded::<B, _>(&device, seed, || {
            self.model.pass(&batch, &[])
        }))
    }

    /// The first batch with a target.
    fn first_batch(&self) -> u64 {
        let mut numbers = 0..self.source.batches_per_epoch();
        let first = numbers.find(|number| !self.source.batch(*number).is_without_targets());
        first.unwrap_or(0)
    }

    /// Changes the model by a pass, at a rate.
    fn update(&mut self, number: u64, lr: f64, pass: Pass<B>) {
        self.optimizer.prepare(number, pass.sums.gradient_weight());
        let model = self.optimizer.step(lr, self.model.clone(), pass.grads);
        self.model = batch_norm::commit(model, &pass.proposals, None);
        if let Some(after) = self.model.objective.after_step() {
            self.model.objective = after;
        }
    }

    /// Figures of a batch as validation gives them: without dropout, by plain losses.
    fn figures(&self, batch: u64) -> Metrics {
        let model: Trainee<B::InnerBackend, O::InnerModule> = self.model.valid();
        let output = InferenceStep::step(&model, self.source.batch(batch));
        let SplitOutput::Tally(tally) = output else {
            unreachable!("a batch gives a tally");
        };
        tally.metrics()
    }

    /// Names of the parameters with such a setting.
    fn named(&self, fits: impl Fn(&Setting) -> bool) -> Vec<String> {
        let settings = self.optimizer.groups();
        let mut names =
            groups::parameter_names::<B, _>(&self.model, self.optimizer.groups().names());
        names.retain(|name| settings.setting(name).is_some_and(&fits));
        names
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
        let Some(pass) = subject.pass(number, number) else {
            continue;
        };
        let loss = pass.sums.mean_loss();
        subject.update(number, lr, pass);
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

fn print_curve(curve: LrCurve, out: &Path, ui: Ui) -> Result<Status, Failure> {
    let plot = draw(&curve, out).running()?;
    let plot = plot.map(|path| path.display().to_string());
    match ui {
        Ui::Json => say(&curve.json(plot.as_deref()).to_string()),
        Ui::Tui | Ui::Plain | Ui::None => {
            for (lr, loss) in &curve.points {
                say(&format!("lr {lr:.2e}  loss {}", short(*loss)));
            }
            if let Some(path) = plot {
                say(&format!("plot: {path}"));
            }
            if let Some(lr) = curve.suggestion {
                say(&format!(
                    "the loss falls fastest at: --set optimizer.lr={lr:.1e}"
                ));
            }
        }
    }
    match curve.suggestion {
        Some(_) => Ok(Status::Done),
        None => Err(Failure::running(anyhow!(
            "no learning rate from 1e-6 to 10 makes the loss fall"
        ))),
    }
}

/// Draws a range test beside a run; nothing if there is no point to draw.
fn draw(curve: &LrCurve, out: &Path) -> anyhow::Result<Option<PathBuf>> {
    // Appended, as a name may hold a dot: runs/v1.2.
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".find-lr.svg");
    let path = out.with_file_name(name);
    let mut curves = vec![("loss, smoothed".to_string(), curve.points.clone())];
    let mut points = curve.points.iter();
    let fastest = points.find(|(lr, _)| Some(*lr) == curve.suggestion);
    // A curve of one point is a dot.
    curves.extend(fastest.map(|point| ("where it falls fastest".to_string(), vec![*point])));
    let plot = Plot {
        title: "range test".into(),
        x_label: "learning rate".into(),
        log_x: true,
        curves,
    };
    Ok(plot.write(&path)?.then_some(path))
}

impl LrCurve {
    fn json(&self, plot: Option<&str>) -> Value {
        let point = |(lr, loss): &(f64, f64)| json!({"lr": lr, "loss": loss});
        json!({
            "probe": "find_lr",
            "points": self.points.iter().map(point).collect::<Vec<_>>(),
            "plot": plot,
            "suggestion": self.suggestion,
        })
    }
}

/// The result on one batch.
pub struct Overfit {
    /// Steps taken.
    pub steps: u64,
    /// Figures before the first step, as validation gives them.
    pub first: Metrics,
    /// Figures after the last step.
    pub last: Metrics,
    /// Whether the batch was learnt.
    pub learnt: bool,
    /// Parameters that stay as they are.
    pub frozen: Vec<String>,
    /// Parameters that were to train only after the last step.
    pub late: Vec<String>,
    /// Parameters that train and whose gradient was missing or 0 at the first step, and still at the last.
    pub silent: Vec<String>,
}

/// Steps on one batch before it counts as not learnt.
const PATIENCE: u64 = 500;
const LAST: u64 = PATIENCE - 1;

/// Trains on the first batch alone, at a constant rate.
pub fn overfit_batch<B, O, S>(mut subject: Subject<B, O, S>, lr: f64) -> Overfit
where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    let batch = subject.first_batch();
    let first = subject.figures(batch);
    let mut progress = Progress::new(first.clone());
    let (mut steps, mut learnt, mut last) = (0, false, first.clone());
    let mut silent = Vec::new();
    while steps < PATIENCE && !learnt {
        let Some(pass) = subject.pass(steps, batch) else {
            break;
        };
        let is_finite = pass.sums.mean_loss().is_finite();
        match steps {
            0 => {
                silent = without_gradient::<B, _>(
                    &subject.model,
                    &pass.grads,
                    subject.optimizer.groups(),
                )
            }
            LAST => {
                let still = without_gradient::<B, _>(
                    &subject.model,
                    &pass.grads,
                    subject.optimizer.groups(),
                );
                silent.retain(|name| still.contains(name));
            }
            _ => {}
        }
        subject.update(steps, lr, pass);
        steps += 1;
        last = subject.figures(batch);
        learnt = progress.is_learnt(&last);
        if !is_finite {
            break;
        }
    }
    let frozen = subject.named(|setting| setting.lr_multiplier == 0.0);
    let is_late = |s: &Setting| s.lr_multiplier != 0.0 && s.unfreeze_at >= steps;
    let late = subject.named(is_late);
    silent.retain(|name| !late.contains(name));
    Overfit {
        steps,
        first,
        last,
        learnt,
        frozen,
        late,
        silent,
    }
}

/// Share of the first loss below which a batch is learnt.
const GONE: f64 = 0.01;
/// Share of the targets that must be right.
const RIGHT: f64 = 0.99;
/// Steps without a fall of 1 % after which a loss has come to its floor.
const AT_FLOOR: u64 = 50;

/// What a batch is judged by.
///
/// Where images are given back, the squared error must fall to 1 % of the first: it is 0 for a perfect image, however
/// grey, where cross-entropy keeps the entropy of the pixels. Of classes and tokens, 99 % must be right, and the loss
/// must fall to 1 % of the first; smoothed targets keep it above that, so a loss that has come to its floor will do.
struct Progress {
    first: Metrics,
    lowest: f64,
    /// Steps since the loss last fell by 1 %.
    since: u64,
}

impl Progress {
    fn new(first: Metrics) -> Self {
        Self {
            first,
            lowest: f64::INFINITY,
            since: 0,
        }
    }

    /// Judges the figures after one more step.
    fn is_learnt(&mut self, now: &Metrics) -> bool {
        let loss_is_gone = self.is_gone("loss", now);
        let at_floor = self.is_at_floor(now);
        match (now.get("mse"), now.get("accuracy")) {
            (Some(_), _) => self.is_gone("mse", now),
            (None, Some(right)) => *right >= RIGHT && (loss_is_gone || at_floor),
            (None, None) => loss_is_gone,
        }
    }

    fn is_gone(&self, name: &str, now: &Metrics) -> bool {
        match (self.first.get(name), now.get(name)) {
            (Some(first), Some(now)) => *now <= GONE * first,
            _ => false,
        }
    }

    fn is_at_floor(&mut self, now: &Metrics) -> bool {
        let loss = now.get("loss").copied().unwrap_or(f64::NAN);
        if loss < 0.99 * self.lowest {
            (self.lowest, self.since) = (loss, 0);
        } else {
            self.since += 1;
        }
        self.since >= AT_FLOOR
    }
}

fn print_overfit(outcome: &Overfit, lr: f64, ui: Ui) -> Result<Status, Failure> {
    let Overfit { steps, learnt, .. } = *outcome;
    let [first, last] = [&outcome.first, &outcome.last].map(ui::figures);
    let how = format!("in {steps} steps at lr {lr}: from {first} to {last}");
    match (ui, learnt) {
        (Ui::Json, _) => say(&outcome.json(lr).to_string()),
        (_, true) => say(&format!("one batch is learnt {how}")),
        (_, false) => outcome.reasons().iter().for_each(|line| say(line)),
    }
    if learnt {
        Ok(Status::Done)
    } else {
        Err(Failure::running(anyhow!("one batch is not learnt {how}")))
    }
}

impl Overfit {
    /// A sentence for each kind of parameter that had no part in it.
    fn reasons(&self) -> Vec<String> {
        let steps = self.steps;
        let kinds = [
            ("are frozen".to_string(), &self.frozen),
            (format!("train only after step {steps}"), &self.late),
            ("have no gradient".to_string(), &self.silent),
        ];
        let found = kinds.into_iter().filter(|(_, names)| !names.is_empty());
        found
            .map(|(what, names)| format!("these parameters {what}: {}", names.join(", ")))
            .collect()
    }

    fn json(&self, lr: f64) -> Value {
        json!({
            "probe": "overfit_batch",
            "learnt": self.learnt,
            "steps": self.steps,
            "lr": lr,
            "first": self.first,
            "last": self.last,
            "frozen": self.frozen,
            "late": self.late,
            "silent": self.silent,
        })
    }
}

/// Names of the parameters that train and whose gradient is missing or 0.
fn without_gradient<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    grads: &GradientsParams,
    groups: &Groups,
) -> Vec<String> {
    struct Silent<'a> {
        path: ModulePath,
        grads: &'a GradientsParams,
        names: Vec<String>,
    }
    impl<B: AutodiffBackend> ModuleVisitor<B> for Silent<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
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
        path: groups.path(),
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

    fn figures(all: &[(&str, f64)]) -> Metrics {
        let figure = |(name, value): &(&str, f64)| (name.to_string(), *value);
        all.iter().map(figure).collect()
    }

    #[test]
    fn classes_are_learnt_when_nearly_all_are_right_and_the_loss_is_gone() {
        let of = |loss, accuracy| figures(&[("loss", loss), ("accuracy", accuracy)]);
        let judge = |loss, accuracy| Progress::new(of(8.0, 0.0)).is_learnt(&of(loss, accuracy));
        assert!(judge(0.08, 1.0));
        assert!(judge(0.08, 0.99));
        assert!(!judge(0.09, 1.0), "5 % was enough once");
        assert!(!judge(0.08, 0.875), "one of eight is wrong");
        assert!(!judge(f64::NAN, f64::NAN));
    }

    #[test]
    fn smoothed_targets_have_a_floor() {
        let of = |loss, accuracy| figures(&[("loss", loss), ("accuracy", accuracy)]);
        let mut progress = Progress::new(of(4.0, 0.0));
        let mut judge = |loss, accuracy| progress.is_learnt(&of(loss, accuracy));
        assert!(!judge(0.5, 1.0));
        for _ in 0..AT_FLOOR {
            assert!(!judge(0.499, 0.5), "half of them are wrong");
        }
        assert!(judge(0.499, 1.0));
        assert!(!judge(0.4, 1.0), "it falls again");
    }

    #[test]
    fn images_are_learnt_by_their_squared_error() {
        let of = |loss, mse| figures(&[("loss", loss), ("mse", mse)]);
        let judge = |loss, mse| Progress::new(of(0.7, 0.2)).is_learnt(&of(loss, mse));
        assert!(judge(0.3, 0.0019));
        assert!(!judge(0.3, 0.009));
        assert!(!judge(0.001, 0.009));
    }

    #[test]
    fn each_kind_of_parameter_that_had_no_part_is_a_sentence() {
        let names = |all: &[&str]| all.iter().map(|name| name.to_string()).collect();
        let mut outcome = Overfit {
            steps: 500,
            first: Metrics::new(),
            last: Metrics::new(),
            learnt: false,
            frozen: names(&["a", "b"]),
            late: names(&[]),
            silent: names(&["c"]),
        };
        assert_eq!(
            outcome.reasons(),
            [
                "these parameters are frozen: a, b",
                "these parameters have no gradient: c"
            ]
        );
        outcome.late = names(&["d"]);
        assert_eq!(
            outcome.reasons()[1],
            "these parameters train only after step 500: d"
        );
    }
}
