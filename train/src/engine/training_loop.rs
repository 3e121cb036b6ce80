//! The training loop, as a learning strategy inside burn-train's learner.
//!
//! Burn's own strategies validate, checkpoint and stop per epoch, and decide on a metric store that another
//! thread still fills. Here a step is the unit, and every decision reads figures that are complete. A single step is in
//! `step`, going back after a run was lost in `rollback`.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use burn::data::dataloader::Progress;
use burn::module::AutodiffModule;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    EventProcessorTraining, Interrupter, Learner, LearnerEvent, LearningComponentsMarker,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents,
    TrainingItem, ValidLoader,
};

use crate::checkpoint::{self, Best, Position, Snapshot};
use crate::engine::window::Window;
use crate::failure;
use crate::guard::{GuardRecipe, Verdict};
use crate::metrics::{Metric, Metrics};
use crate::objective::{Objective, SplitOutput, StepOutput, SumTally, Tally, Trainable, Trainee};
use crate::optim::ema::Ema;
use crate::optim::optimizer::Optimizer;
use crate::optim::schedule::Schedule;
use crate::recipe::TrainingRecipe;
use crate::report::timing::Stopwatch;
use crate::report::trace::Trace;
use crate::run::{self, Event, EventLog, RunDir};
use crate::source::{Counts, Unit};
use crate::ui::Console;

/// The components that burn-train is instantiated with.
pub type Components<B, O> = LearningComponentsMarker<B, Schedule, Trainee<B, O>, Optimizer<B>>;

type Processor<B, O> = SupervisedTrainingEventProcessor<Components<B, O>>;

/// Writes or draws a model, into this path.
pub type ModelHook<M> = Box<dyn Fn(&M, &Path) -> Result<()>>;

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Completed,
    /// Patience ran out.
    StoppedEarly,
    /// A person or a signal requested it.
    Interrupted,
}

const PADDING: &str = "padding_fraction";
const SKIPPED: &str = "skipped_steps";
/// Steps that a device may be ahead of what is known of it.
const MOST_UNREAD: usize = 100;

/// Names of the figures that the dashboard shows of training steps.
pub fn reported<B: Backend, O: Objective<B>>(objective: &O, unit: Unit) -> Vec<String> {
    let mut names: Vec<String> = ["loss"]
        .iter()
        .chain(objective.means())
        .map(|name| name.to_string())
        .collect();
    let mut metrics: Metrics = names.iter().map(|name| (name.clone(), 0.0)).collect();
    O::derive(&mut metrics);
    // Some are for what is derived of them alone.
    names.retain(|name| metrics.contains_key(name));
    let derived = metrics.into_keys().filter(|name| !names.contains(name));
    let derived: Vec<_> = derived.collect();
    names.extend(derived);
    names.push("grad_norm".into());
    if unit == Unit::Tokens {
        names.push(PADDING.into());
    }
    names.extend([SKIPPED.into(), "lr".into(), unit.rate()]);
    names
}

/// The settings of the loop.
pub struct Plan {
    /// The recipe's `[training]`.
    pub training: TrainingRecipe,
    /// The recipe's `[guard]`.
    pub guard: GuardRecipe,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Optimizer steps an epoch.
    pub steps_per_epoch: u64,
    /// Of the run: dropout of step n is drawn from (seed, n).
    pub seed: u64,
    /// What throughput counts.
    pub unit: Unit,
    /// Whether the device judges steps, and their figures are read when a line of the log, a validation or a checkpoint
    /// is due: else every step would wait for the one before. While figures are unread, a skipped step still enters the
    /// average of the weights, and rules that count steps count it until it is read.
    pub unread: bool,
}

/// The loop. One value trains once.
pub struct TrainingLoop<B: AutodiffBackend, O: Trainable<B>> {
    /// Its settings.
    pub plan: Plan,
    /// Shares its state with the learner's.
    pub optimizer: Optimizer<B>,
    /// From its first step.
    pub schedule: Schedule,
    /// Where it writes; nowhere in a dry run.
    pub run: Option<RunDir>,
    /// Writes the bundle of the best step.
    pub export: ModelHook<O::InnerModule>,
    /// Called after each validation with the run directory.
    pub after_validation: Option<ModelHook<O::InnerModule>>,
    /// What changes while training.
    pub state: Mutex<RunState<B, O>>,
}

/// What changes while training.
pub struct RunState<B: AutodiffBackend, O: Trainable<B>> {
    /// How far the run is.
    pub position: Position,
    /// The model of the best step.
    pub best: Option<O::InnerModule>,
    /// The average of the weights, if the recipe asks for one.
    pub ema: Option<Ema<B::InnerBackend>>,
    /// `metrics.jsonl`.
    pub log: EventLog,
    /// What the person sees.
    pub console: Console,
    /// How long each part of each step took, if the options ask for it.
    pub trace: Option<Trace>,
    /// How it ended.
    pub ending: Option<Result<Ending>>,
}

impl<B: AutodiffBackend, O: Trainable<B>> SupervisedLearningStrategy<Components<B, O>>
    for TrainingLoop<B, O>
{
    fn fit(
        &self,
        components: TrainingComponents<Components<B, O>>,
        learner: Learner<Components<B, O>>,
        train: TrainLoader<Components<B, O>>,
        valid: ValidLoader<Components<B, O>>,
        _: usize,
    ) -> (Trainee<B, O>, Processor<B, O>) {
        let mut processor = components.event_processor;
        let state = self.state();
        let mut driver = LoopDriver {
            training: self,
            schedule: self.schedule_from(&state.position),
            optimizer: self.optimizer.clone(),
            model: learner.model(),
            lr: 0.0,
            before: state.position.seconds,
            state,
            processor: &mut processor,
            interrupter: &components.interrupter,
            began: Instant::now(),
        };
        // The driver's model is the only one: the learner would keep the first weights.
        drop(learner);
        let ending = failure::caught(|| driver.train(&train, &valid));
        // Without a run there is nothing to go on from.
        let ending = ending.map_err(|error| match self.run {
            Some(_) => {
                anyhow!("{error}; --resume goes on from the last checkpoint, or from the beginning where there is none")
            }
            None => error,
        });
        driver.state.ending = Some(ending.and_then(|ending| ending));
        (driver.into_model(), processor)
    }
}

impl<B: AutodiffBackend, O: Trainable<B>> TrainingLoop<B, O> {
    /// What changes while training.
    pub fn state(&self) -> MutexGuard<'_, RunState<B, O>> {
        // A panic while holding it has already ended the training.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The schedule of the steps after a position.
    pub(super) fn schedule_from(&self, position: &Position) -> Schedule {
        let scale = self.plan.guard.scale(position.watch.rollbacks);
        self.schedule.clone().resumed(position.step, scale)
    }
}

/// Runs the loop in one process, from where the run is to where it ends or is interrupted.
pub(super) struct LoopDriver<'a, B: AutodiffBackend, O: Trainable<B>> {
    pub(super) training: &'a TrainingLoop<B, O>,
    pub(super) state: MutexGuard<'a, RunState<B, O>>,
    pub(super) model: Trainee<B, O>,
    /// Shares its state with the loop's.
    pub(super) optimizer: Optimizer<B>,
    pub(super) schedule: Schedule,
    /// Of the last step.
    pub(super) lr: f64,
    processor: &'a mut Processor<B, O>,
    interrupter: &'a Interrupter,
    began: Instant,
    /// Seconds of training before this process.
    before: f64,
}

/// Why the loop over batches was left.
enum Exit {
    Ended(Ending),
    /// Too many steps in a row were not finite.
    Lost,
}

impl<B: AutodiffBackend, O: Trainable<B>> LoopDriver<'_, B, O> {
    fn into_model(self) -> Trainee<B, O> {
        self.model
    }

    fn train(
        &mut self,
        train: &TrainLoader<Components<B, O>>,
        valid: &ValidLoader<Components<B, O>>,
    ) -> Result<Ending> {
        loop {
            match self.run(train, valid)? {
                Exit::Ended(ending) => return Ok(ending),
                Exit::Lost => self.go_back()?,
            }
        }
    }

    /// Steps from the run's position to its end, or until it is lost.
    fn run(
        &mut self,
        train: &TrainLoader<Components<B, O>>,
        valid: &ValidLoader<Components<B, O>>,
    ) -> Result<Exit> {
        let Plan {
            training,
            total_steps,
            ..
        } = &self.training.plan;
        // Stopped before it could say so.
        if training.is_stale(self.state.position.stale) {
            return Ok(Exit::Ended(Ending::StoppedEarly));
        }
        let position = &self.state.position;
        let first = position.drawn() * training.accumulation;
        let batches = total_steps.saturating_sub(position.step) * training.accumulation;
        let rest = train.slice(first as usize, (first + batches) as usize);
        let mut batches = rest.iter();
        let device = self.device();
        let unreported = self.state.position.unreported.take();
        let mut window =
            unreported.map_or_else(Window::default, |sums| Window::resumed(sums, &device));
        while self.state.position.step < *total_steps {
            if self.step(&mut *batches, &mut window)? == Verdict::Lost {
                return Ok(Exit::Lost);
            }
            if let Some(exit) = self.after_step(valid, &mut window)? {
                return Ok(exit);
            }
        }
        Ok(Exit::Ended(Ending::Completed))
    }

    /// What is due after a step: a line of the log, a validation, a checkpoint, the end.
    fn after_step(
        &mut self,
        valid: &ValidLoader<Components<B, O>>,
        window: &mut Window<B::InnerBackend>,
    ) -> Result<Option<Exit>> {
        let Plan {
            training,
            total_steps,
            steps_per_epoch,
            ..
        } = &self.training.plan;
        let every = |steps: u64, otherwise: u64| if steps == 0 { otherwise } else { steps };
        let step = self.state.position.step;
        let last = step == *total_steps;
        let reports = step.is_multiple_of(training.log_every) || last;
        let validate_every = every(training.validate_every, *steps_per_epoch);
        let validates = step.is_multiple_of(validate_every) || last;
        let interrupted = self.interrupter.should_stop() && !last;
        let due = match training.checkpoint_every {
            0 => validates,
            steps => step.is_multiple_of(steps),
        };
        let full = window.pending.len() == MOST_UNREAD;
        if (reports || validates || interrupted || due || full)
            && self.read_pending(window)? == Verdict::Lost
        {
            return Ok(Some(Exit::Lost));
        }
        if reports {
            self.report(std::mem::take(window))?;
        }
        // The best step keeps a checkpoint, skipped or not: a resumed run has its model from there.
        let best = validates && self.validate(valid, window)?;
        let early = training.is_stale(self.state.position.stale);
        // Requested while it validated: all figures are read by then.
        let interrupted = interrupted || validates && self.interrupter.should_stop() && !last;
        let due = due && self.state.position.watch.is_good();
        if due || best || last || early || interrupted {
            self.state.position.unreported = window.unreported();
            let scheduled = due || best || last || early;
            self.checkpoint(scheduled)?;
        }
        Ok(if early {
            Some(Exit::Ended(Ending::StoppedEarly))
        } else if interrupted {
            Some(Exit::Ended(Ending::Interrupted))
        } else {
            None
        })
    }

    /// Seconds since the last lap, kept in the trace as a part of a step.
    pub(super) fn lap(&mut self, name: &str, step: u64, stopwatch: &mut Stopwatch) -> Result<f64> {
        let seconds = stopwatch.lap();
        if let Some(trace) = &mut self.state.trace {
            trace
                .span(name, seconds, step)
                .context("cannot write the trace")?;
        }
        Ok(seconds)
    }

    /// Notes how long the run has trained.
    pub(super) fn count_seconds(&mut self) {
        self.state.position.seconds = self.before + self.began.elapsed().as_secs_f64();
    }

    /// Judges a step, and says what is wrong with it.
    pub(super) fn judge(&mut self, step: u64, loss: f64, norm: f64) -> Verdict {
        let guard = &self.training.plan.guard;
        let verdict = self.state.position.watch.judge(guard, loss, norm);
        let warning = match verdict {
            Verdict::Good => return verdict,
            Verdict::Spike { mean } => {
                format!("step {step}: the loss is {loss:.4}, after {mean:.4}")
            }
            Verdict::Skipped | Verdict::Lost if loss.is_finite() => {
                format!("step {step}: skipped, the gradient is not finite")
            }
            Verdict::Skipped | Verdict::Lost => {
                format!("step {step}: skipped, the loss is not finite")
            }
        };
        self.state.console.warn(&warning);
        verdict
    }

    /// Writes and shows the figures of the steps since the last report.
    fn report(&mut self, window: Window<B::InnerBackend>) -> Result<()> {
        let Some(sums) = window.sums else {
            return Ok(());
        };
        let unit = self.training.plan.unit;
        let step = self.state.position.step;
        let names = self.model.objective.means();
        let mut metrics = SumTally::read(sums, names).metrics();
        O::derive(&mut metrics);
        metrics.insert("grad_norm".into(), self.optimizer.norm());
        if unit == Unit::Tokens {
            let padding = 1.0 - window.real as f64 / window.padded.max(1) as f64;
            metrics.insert(PADDING.into(), padding);
        }
        let skipped = self.state.position.watch.skipped;
        if skipped > 0 {
            metrics.insert(SKIPPED.into(), skipped as f64);
        }
        let rate = window.real as f64 / window.timing.steps().max(1e-9);
        let mut timing = window.timing.figures();
        timing.insert(unit.rate(), rate);
        timing.insert("peak_memory_bytes".into(), run::peak_memory_bytes() as f64);
        let lr = self.lr;
        let rates = self.optimizer.groups().multipliers(step - 1).into_iter();
        let event = Event {
            lr: Some(lr),
            group_lr: rates.map(|(label, times)| (label, lr * times)).collect(),
            timing,
            ..self.event("train", metrics.clone())
        };
        metrics.insert(unit.rate(), rate);
        metrics.insert("lr".into(), lr);
        self.state.log.append(&event)?;
        let total = self.training.plan.total_steps;
        self.state.console.trained(&event, &metrics, total);
        // The dashboard has a place for every figure, always.
        metrics.entry(SKIPPED.into()).or_default();
        let item = self.item(StepOutput::Report(metrics), Some(lr));
        self.processor
            .process_train(LearnerEvent::ProcessedItem(item));
        Ok(())
    }

    /// Judges the whole validation split, keeps the model if it is the best so far, and says whether it is.
    fn validate(
        &mut self,
        valid: &ValidLoader<Components<B, O>>,
        window: &mut Window<B::InnerBackend>,
    ) -> Result<bool> {
        let mut stopwatch = Stopwatch::start();
        let mut model = self.model.valid();
        if let Some(ema) = &self.state.ema {
            model = ema.apply(model);
        }
        let judged = judge::<B, O>(&model, &mut *valid.iter());
        self.count_seconds();
        let better = self.is_better(&judged);
        let Judged {
            metrics, details, ..
        } = judged;
        let event = Event {
            details,
            ..self.event("valid", metrics.clone())
        };
        self.state.log.append(&event)?;
        self.state.console.validated(&event, better);
        if let (Some(hook), Some(run)) = (&self.training.after_validation, &self.training.run) {
            hook(&model.objective, run.path())?;
        }
        let item = self.item(SplitOutput::Report(metrics.clone()), None);
        self.processor
            .process_valid(LearnerEvent::ProcessedItem(item));
        self.state.position.last = Some(metrics.clone());
        let step = self.state.position.step;
        let seconds = self.lap("validation", step, &mut stopwatch)?;
        window.timing.validation += seconds;
        self.state.position.timing.validation += seconds;
        if !better {
            self.state.position.stale += 1;
            return Ok(false);
        }
        self.state.position.stale = 0;
        self.state.position.best = Some(Best { step, metrics });
        if let Some(run) = &self.training.run {
            (self.training.export)(&model.objective, &run.bundle())?;
            self.lap("bundle", step, &mut stopwatch)?;
        }
        self.state.best = Some(model.objective);
        Ok(true)
    }

    /// Whether a validation is better than the best before it. Of a split without a target, the newest is.
    fn is_better(&mut self, judged: &Judged) -> bool {
        if judged.is_empty {
            self.state.console.warn(
                "the validation split has nothing to predict, so no step is known to be the best; the newest is kept",
            );
            return true;
        }
        let name = &self.training.plan.training.metric;
        let value = judged.metrics.get(name).copied().unwrap_or(f64::NAN);
        let best = self.state.position.best.as_ref();
        let Some(old) = best.and_then(|best| best.metrics.get(name)) else {
            return value.is_finite();
        };
        let mut metrics = self.model.objective.metrics().iter();
        let metric = metrics.find(|metric| metric.name == name);
        metric.is_some_and(|metric: &Metric| metric.better.than(value, *old))
    }

    /// - scheduled: whether an uninterrupted run keeps its state at this step too
    fn checkpoint(&mut self, scheduled: bool) -> Result<()> {
        let Some(run) = &self.training.run else {
            return Ok(());
        };
        let mut stopwatch = Stopwatch::start();
        let state = &mut *self.state;
        state.position.unscheduled = !scheduled;
        if state.position.is_place_to_go_back_to() {
            state.position.went_back_to = None;
        }
        state.log.mark(&mut state.position)?;
        let snapshot = Snapshot {
            module: &self.model,
            optimizer: &self.optimizer,
            ema: state.ema.as_ref(),
            position: &state.position,
        };
        let keep = self.training.plan.training.keep;
        checkpoint::save(&run.checkpoints(), &snapshot, keep)
            .context("cannot write the checkpoint; earlier ones are whole")?;
        let step = self.state.position.step;
        self.lap("checkpoint", step, &mut stopwatch)?;
        Ok(())
    }

    fn event(&self, split: &'static str, metrics: Metrics) -> Event {
        let position = &self.state.position;
        let epoch = position.step as f64 / self.training.plan.steps_per_epoch as f64;
        Event {
            seconds: position.seconds,
            ..Event::new(position.step, epoch, split, metrics)
        }
    }

    fn item<T>(&self, item: T, lr: Option<f64>) -> TrainingItem<T> {
        let plan = &self.training.plan;
        let step = self.state.position.step;
        let of_epoch = (step - 1) % plan.steps_per_epoch + 1;
        let progress = Progress::new(of_epoch as usize, plan.steps_per_epoch as usize);
        // burn-train derives the time left from the global progress, so it counts steps, not epochs.
        let global = Progress::new(step as usize, plan.total_steps as usize);
        TrainingItem::new(item, progress, global, Some(step as usize), lr)
    }

    pub(super) fn device(&self) -> B::Device {
        self.model.devices().into_iter().next().unwrap_or_default()
    }
}

/// Figures of a whole split.
pub struct Judged {
    /// By name; not a number where nothing was to predict.
    pub metrics: Metrics,
    /// What else its tally has to say.
    pub details: Option<serde_json::Value>,
    /// Whether the split had no target.
    pub is_empty: bool,
}

/// Judges a model by the batches of a split, in their order.
pub fn judge<B: AutodiffBackend, O: Trainable<B>>(
    model: &Trainee<B::InnerBackend, O::InnerModule>,
    batches: &mut dyn Iterator<Item = <O as Objective<B>>::Batch>,
) -> Judged {
    let mut tally = <O as Objective<B>>::Tally::default();
    let device = model.devices().into_iter().next().unwrap_or_default();
    let (mut is_empty, mut left) = (true, None);
    for batch in batches.filter(|batch| !batch.is_without_targets()) {
        is_empty = false;
        tally.merge(model.objective.evaluate_next(&batch, &device, &mut left));
    }
    is_empty |= tally.is_empty();
    let mut metrics = tally.metrics();
    <O as Objective<B>>::derive(&mut metrics);
    if is_empty {
        metrics = model
            .objective
            .metrics()
            .iter()
            .map(|metric| (metric.name.into(), f64::NAN))
            .collect();
    }
    Judged {
        metrics,
        details: tally.details(),
        is_empty,
    }
}

/// A loop that burn-train can hold.
pub type SharedLoop<B, O> = Arc<TrainingLoop<B, O>>;
