//! The training loop, as a learning strategy inside burn-train's learner.
//!
//! Burn's own strategies validate, checkpoint and stop per epoch, and decide on a metric store that another
//! thread still fills. Here a step is the unit, and every decision reads figures that are complete.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use burn::data::dataloader::Progress;
use burn::module::AutodiffModule;
use burn::optim::GradientsAccumulator;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
    LearningComponentsMarker, SupervisedLearningStrategy, SupervisedTrainingEventProcessor,
    TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};

use crate::checkpoint::{self, Best, Position, Snapshot, Unreported, Whole};
use crate::failure;
use crate::generator::seeded;
use crate::guard::{GuardRecipe, Verdict};
use crate::metrics::{self, Metrics};
use crate::objective::{LossSums, Objective, SplitOutput, StepOutput, Tally, Trainable, Trainee};
use crate::optim::ema::Ema;
use crate::optim::optimizer::Optimizer;
use crate::optim::schedule::Schedule;
use crate::recipe::TrainingRecipe;
use crate::report::timing::{Stopwatch, Timing};
use crate::report::trace::Trace;
use crate::run::{self, Event, EventLog, RunDir};
use crate::source::Counts;
use crate::ui::Console;

/// The components that burn-train is instantiated with.
pub type Components<B, O> = LearningComponentsMarker<B, Schedule, Trainee<B, O>, Optimizer<B>>;

type Processor<B, O> = SupervisedTrainingEventProcessor<Components<B, O>>;

/// What is done with a model on the way: written, drawn.
pub type ModelHook<M> = Box<dyn Fn(&M, &Path) -> Result<()>>;

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Completed,
    /// Patience ran out.
    StoppedEarly,
    /// A person or a signal asked for it.
    Interrupted,
}

/// The unit in which texts are counted; padding is counted with it.
const TOKENS: &str = "tokens";
const PADDING: &str = "padding_fraction";
const SKIPPED: &str = "skipped_steps";
/// Steps that a device may be ahead of what is known of it.
const MOST_UNREAD: usize = 100;

/// Names of the figures that the dashboard shows of training steps.
pub fn reported<B: Backend, O: Objective<B>>(unit: &str) -> Vec<String> {
    let mut names: Vec<String> = ["loss"]
        .iter()
        .chain(O::SUMS)
        .map(|name| name.to_string())
        .collect();
    let mut metrics: Metrics = names.iter().map(|name| (name.clone(), 0.0)).collect();
    O::derive(&mut metrics);
    let derived = metrics.into_keys().filter(|name| !names.contains(name));
    let derived: Vec<_> = derived.collect();
    names.extend(derived);
    names.push("grad_norm".into());
    if unit == TOKENS {
        names.push(PADDING.into());
    }
    names.extend([SKIPPED.into(), "lr".into(), rate_name(unit)]);
    names
}

/// What throughput is called.
fn rate_name(unit: &str) -> String {
    format!("{unit}_per_second")
}

/// What the loop goes by.
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
    /// `tokens` or `samples`.
    pub unit: &'static str,
    /// Whether the device judges steps, and their figures are read when a line of the log, a validation or a checkpoint
    /// is due: else every step would wait for the one before. Of a step that is skipped so, the average of the weights
    /// takes the unchanged ones in, and rules that count steps count it until it is read.
    pub unread: bool,
}

/// The loop. One value trains once.
pub struct StepStrategy<B: AutodiffBackend, O: Trainable<B>> {
    /// What it goes by.
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
    pub progress: Mutex<Journey<B, O>>,
}

/// What changes while training.
pub struct Journey<B: AutodiffBackend, O: Trainable<B>> {
    /// Where the run stands.
    pub position: Position,
    /// The model of the best step.
    pub best: Option<O::InnerModule>,
    /// The average of the weights, if the recipe asks for one.
    pub ema: Option<Ema<B::InnerBackend>>,
    /// `metrics.jsonl`.
    pub log: EventLog,
    /// What the person sees.
    pub console: Console,
    /// Of every part of every step, if asked for.
    pub trace: Option<Trace>,
    /// How it ended.
    pub ending: Option<Result<Ending>>,
}

impl<B: AutodiffBackend, O: Trainable<B>> SupervisedLearningStrategy<Components<B, O>>
    for StepStrategy<B, O>
{
    fn fit(
        &self,
        components: TrainingComponents<Components<B, O>>,
        mut learner: Learner<Components<B, O>>,
        train: TrainLoader<Components<B, O>>,
        valid: ValidLoader<Components<B, O>>,
        _: usize,
    ) -> (Trainee<B, O>, Processor<B, O>) {
        let mut processor = components.event_processor;
        let mut sitting = Sitting {
            strategy: self,
            journey: self.journey(),
            processor: &mut processor,
            interrupter: &components.interrupter,
            began: Instant::now(),
            before: 0.0,
        };
        sitting.before = sitting.journey.position.seconds;
        let ending = failure::caught(|| sitting.train(&mut learner, &train, &valid));
        // Without a run there is nothing to go on from.
        let ending = ending.map_err(|error| match self.run {
            Some(_) => {
                anyhow!("{error}; the last checkpoint is whole, --resume goes on from there")
            }
            None => error,
        });
        sitting.journey.ending = Some(ending.and_then(|ending| ending));
        drop(sitting);
        (learner.model(), processor)
    }
}

impl<B: AutodiffBackend, O: Trainable<B>> StepStrategy<B, O> {
    /// What changes while training.
    pub fn journey(&self) -> MutexGuard<'_, Journey<B, O>> {
        // A panic while holding it has already ended the training.
        self.progress.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// One uninterrupted stretch of a run.
struct Sitting<'a, B: AutodiffBackend, O: Trainable<B>> {
    strategy: &'a StepStrategy<B, O>,
    journey: MutexGuard<'a, Journey<B, O>>,
    processor: &'a mut Processor<B, O>,
    interrupter: &'a Interrupter,
    began: Instant,
    before: f64,
}

/// Sums since the last line of the log.
struct Window<B: Backend> {
    sums: Option<LossSums<B>>,
    /// Steps whose figures are still on the device.
    unread: Vec<Unread<B>>,
    units: usize,
    slots: usize,
    timing: Timing,
}

/// A step that was taken and not judged yet.
struct Unread<B: Backend> {
    step: u64,
    /// Mean loss and norm of the gradient, `[2]`.
    outcome: Tensor<B, 1>,
    sums: LossSums<B>,
}

impl<B: Backend> Default for Window<B> {
    fn default() -> Self {
        Self {
            sums: None,
            unread: Vec::new(),
            units: 0,
            slots: 0,
            timing: Timing::default(),
        }
    }
}

/// Why the loop over batches was left.
enum Leg {
    Ended(Ending),
    /// Too many steps in a row were not finite.
    Lost,
}

impl<B: AutodiffBackend, O: Trainable<B>> Sitting<'_, B, O> {
    fn train(
        &mut self,
        learner: &mut Learner<Components<B, O>>,
        train: &TrainLoader<Components<B, O>>,
        valid: &ValidLoader<Components<B, O>>,
    ) -> Result<Ending> {
        loop {
            match self.leg(learner, train, valid)? {
                Leg::Ended(ending) => return Ok(ending),
                Leg::Lost => self.go_back(learner)?,
            }
        }
    }

    /// From where the run stands to its end, or to where it has to go back.
    fn leg(
        &mut self,
        learner: &mut Learner<Components<B, O>>,
        train: &TrainLoader<Components<B, O>>,
        valid: &ValidLoader<Components<B, O>>,
    ) -> Result<Leg> {
        let Plan {
            training,
            total_steps,
            ..
        } = &self.strategy.plan;
        let validate_every = match training.validate_every {
            0 => self.strategy.plan.steps_per_epoch,
            steps => steps,
        };
        // Stopped before it could say so.
        if training.is_stale(self.journey.position.stale) {
            return Ok(Leg::Ended(Ending::StoppedEarly));
        }
        let Position { step, .. } = self.journey.position;
        let first = self.journey.position.drawn() * training.accumulation;
        let batches = total_steps.saturating_sub(step) * training.accumulation;
        let rest = train.slice(first as usize, (first + batches) as usize);
        let mut batches = rest.iter();
        let device = device(learner);
        let unreported = self.journey.position.unreported.take();
        let mut window =
            unreported.map_or_else(Window::default, |sums| Window::resumed(sums, &device));
        while self.journey.position.step < *total_steps {
            if self.step(learner, &mut *batches, &mut window)? == Verdict::Lost {
                return Ok(Leg::Lost);
            }
            let step = self.journey.position.step;
            let last = step == *total_steps;
            let reports = step.is_multiple_of(training.log_every) || last;
            let validates = step.is_multiple_of(validate_every) || last;
            let interrupted = self.interrupter.should_stop() && !last;
            let due = match training.checkpoint_every {
                0 => validates,
                steps => step.is_multiple_of(steps),
            };
            let full = window.unread.len() == MOST_UNREAD;
            if (reports || validates || interrupted || due || full)
                && self.settle(&mut window)? == Verdict::Lost
            {
                return Ok(Leg::Lost);
            }
            if reports {
                self.report(learner.lr_current(), std::mem::take(&mut window))?;
            }
            // The best step keeps a checkpoint, skipped or not: a resumed run has its model from there.
            let best = validates && self.validate(learner, valid, &mut window)?;
            let early = training.is_stale(self.journey.position.stale);
            // Asked for while it validated: all figures are read by then.
            let interrupted = interrupted || validates && self.interrupter.should_stop() && !last;
            let due = due && self.journey.position.watch.is_good();
            if due || best || last || early || interrupted {
                self.journey.position.unreported = window.unreported();
                let scheduled = due || best || last || early;
                self.checkpoint(learner, scheduled)?;
            }
            if early {
                return Ok(Leg::Ended(Ending::StoppedEarly));
            }
            if interrupted {
                return Ok(Leg::Ended(Ending::Interrupted));
            }
        }
        Ok(Leg::Ended(Ending::Completed))
    }

    /// One optimizer step: forward and backward of every micro-batch, then one update, if all of it is finite.
    fn step(
        &mut self,
        learner: &mut Learner<Components<B, O>>,
        batches: &mut dyn Iterator<Item = O::Batch>,
        window: &mut Window<B::InnerBackend>,
    ) -> Result<Verdict> {
        let Plan { training, seed, .. } = &self.strategy.plan;
        let step = self.journey.position.step;
        let mut stopwatch = Stopwatch::start();
        let mut timing = Timing::default();
        let mut parts = Vec::new();
        for _ in 0..training.accumulation {
            let batch = batches
                .next()
                .context("the data ended before the training")?;
            let (units, slots) = (batch.units(), batch.slots());
            window.units += units;
            window.slots += slots;
            self.journey.position.units += units as u64;
            self.journey.position.slots += slots as u64;
            parts.push(batch);
        }
        timing.data += self.lap("data", step + 1, &mut stopwatch)?;
        let mut accumulator = GradientsAccumulator::new();
        let mut single = None;
        let mut sums: Option<LossSums<B::InnerBackend>> = None;
        let seed = mix(*seed, self.journey.position.drawn());
        seeded::<B, _>(&device(learner), seed, || {
            for batch in parts {
                let output = learner.train_step(batch);
                if let StepOutput::Sums(part) = output.item {
                    sums = Some(LossSums::merged(sums.take(), part));
                }
                if training.accumulation == 1 {
                    single = Some(output.grads);
                } else {
                    accumulator.accumulate(&learner.model(), output.grads);
                }
            }
        });
        timing.forward_backward += self.lap("forward and backward", step + 1, &mut stopwatch)?;
        let sums = sums.context("a step without a batch")?;
        learner.lr_step();
        let mut grads = || single.take().unwrap_or_else(|| accumulator.grads());
        let optimizer = &self.strategy.optimizer;
        let mut verdict = Verdict::Good;
        let mut counts = true;
        if self.strategy.plan.unread {
            optimizer.prepare_unread(step, sums.weight, sums.unread_mean_loss());
            learner.optimizer_step(grads());
            let outcome = optimizer.outcome().context("a step without an outcome")?;
            self.journey.position.step += 1;
            window.unread.push(Unread {
                step: step + 1,
                outcome,
                sums,
            });
        } else {
            let loss = sums.mean_loss();
            let mut norm = f64::NAN;
            if loss.is_finite() {
                optimizer.prepare(step, sums.weight);
                learner.optimizer_step(grads());
                norm = optimizer.norm();
            }
            self.journey.position.step += 1;
            verdict = self.judge(step + 1, loss, norm);
            counts = norm.is_finite();
            if counts {
                window.add(sums);
            }
        }
        if counts && let Some(ema) = &mut self.journey.ema {
            ema.update(&learner.model().valid());
        }
        timing.optimizer += self.lap("optimizer", step + 1, &mut stopwatch)?;
        window.timing.add(&timing);
        self.journey.position.timing.add(&timing);
        self.journey.position.seconds = self.before + self.began.elapsed().as_secs_f64();
        Ok(verdict)
    }

    /// Reads what the steps since the last time came to, and judges them in their order.
    fn settle(&mut self, window: &mut Window<B::InnerBackend>) -> Result<Verdict> {
        let unread = std::mem::take(&mut window.unread);
        if unread.is_empty() {
            return Ok(Verdict::Good);
        }
        let mut stopwatch = Stopwatch::start();
        let outcomes = unread.iter().map(|step| step.outcome.clone()).collect();
        let outcomes = Tensor::cat(outcomes, 0).into_data().convert::<f32>();
        let outcomes: Vec<f64> = outcomes.iter::<f32>().map(f64::from).collect();
        let (mut skipped, mut last) = (Vec::new(), Verdict::Good);
        for (Unread { step, sums, .. }, outcome) in unread.into_iter().zip(outcomes.chunks(2)) {
            let (loss, norm) = (outcome[0], outcome[1]);
            last = self.judge(step, loss, norm);
            match loss.is_finite() && norm.is_finite() {
                true => window.add(sums),
                false => skipped.push(step - 1),
            }
            if last == Verdict::Lost {
                self.journey.position.step = step;
                break;
            }
        }
        let norm = outcomes.last().copied().unwrap_or(f64::NAN);
        self.strategy.optimizer.settle(norm, &skipped);
        // What the device had still to do was most of all this.
        let step = self.journey.position.step;
        let waited = self.lap("wait for the device", step, &mut stopwatch)?;
        window.timing.forward_backward += waited;
        self.journey.position.timing.forward_backward += waited;
        self.journey.position.seconds = self.before + self.began.elapsed().as_secs_f64();
        Ok(last)
    }

    /// Seconds since the last lap, kept in the trace as a part of a step.
    fn lap(&mut self, name: &str, step: u64, stopwatch: &mut Stopwatch) -> Result<f64> {
        let seconds = stopwatch.lap();
        if let Some(trace) = &mut self.journey.trace {
            trace
                .span(name, seconds, step)
                .context("cannot write the trace")?;
        }
        Ok(seconds)
    }

    /// Judges a step, and tells what is wrong with it.
    fn judge(&mut self, step: u64, loss: f64, norm: f64) -> Verdict {
        let guard = &self.strategy.plan.guard;
        let verdict = self.journey.position.watch.judge(guard, loss, norm);
        let told = match verdict {
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
        self.journey.console.warn(&told);
        verdict
    }

    /// Back to the newest checkpoint, with a lower rate from there on, and past the batches that lost the run: they may be
    /// to blame. Chowdhery et al. 2022, section 5.1, <https://arxiv.org/abs/2204.02311>.
    fn go_back(&mut self, learner: &mut Learner<Components<B, O>>) -> Result<()> {
        let guard = &self.strategy.plan.guard;
        let lost = self.journey.position.clone();
        let rollbacks = lost.watch.rollbacks + 1;
        let stop = |why: &str| {
            let (in_a_row, step) = (lost.watch.in_a_row, lost.step);
            anyhow!(
                "the loss or its gradient was not finite for {in_a_row} steps up to step {step}, {why}; a lower \
                 optimizer.lr may help"
            )
        };
        if rollbacks > guard.rollbacks {
            return Err(stop(&format!("after {} rollbacks", rollbacks - 1)));
        }
        let Some(whole) = self.place_to_go_back_to()? else {
            return Err(stop("and no checkpoint was written before"));
        };
        for reason in &whole.passed_over {
            self.journey.console.warn(&format!("passed over: {reason}"));
        }
        let device = device(learner);
        let model = checkpoint::load(
            &whole.path,
            learner.model(),
            &self.strategy.optimizer,
            self.journey.ema.as_mut(),
            &whole.position,
            &device,
        )?;
        self.restore_best(&model, whole.position.best.as_ref(), &device)?;
        let step = whole.position.step;
        self.journey.position = Position {
            seconds: lost.seconds,
            timing: lost.timing,
            left_out: lost.drawn() - step,
            went_back_to: Some(step),
            watch: whole.position.watch.back(&lost.watch),
            ..whole.position
        };
        self.journey.log.cut(&self.journey.position)?;
        let scale = guard.scale(rollbacks);
        let schedule = self.strategy.schedule.clone().resumed(step, scale);
        *learner = Learner::new(model, self.strategy.optimizer.clone(), schedule);
        self.journey.console.warn(&format!(
            "step {}: back to step {step}, with {scale} times the learning rate and past the batches since",
            lost.step
        ));
        Ok(())
    }

    /// The best model and its bundle as they were at a checkpoint: a later best step was undone with the others.
    ///
    /// - model: gives the best one its structure
    fn restore_best(
        &mut self,
        model: &Trainee<B, O>,
        best: Option<&Best>,
        device: &B::Device,
    ) -> Result<()> {
        let Some(run) = &self.strategy.run else {
            return Ok(());
        };
        let kept = |best: &Best| best.step;
        if best.map(kept) == self.journey.position.best.as_ref().map(kept) {
            return Ok(());
        }
        self.journey.best = None;
        let Some(best) = best else {
            return run.remove_bundle().map_err(Into::into);
        };
        let path = run.checkpoints().join(checkpoint::name(best.step));
        let model = checkpoint::validated(
            &path,
            model.valid(),
            self.strategy.optimizer.groups().names(),
            device,
        )?
        .objective;
        (self.strategy.export)(&model, &run.bundle())?;
        self.journey.best = Some(model);
        Ok(())
    }

    /// The newest checkpoint that the run was not about to be lost at; if nothing was kept since it last went back, the
    /// one before that.
    fn place_to_go_back_to(&self) -> Result<Option<Whole>> {
        let Some(run) = &self.strategy.run else {
            return Ok(None);
        };
        let folder = run.checkpoints();
        let before = |limit: u64| {
            let fits = |at: &Position| at.is_place_to_go_back_to() && at.step < limit;
            checkpoint::newest_that(&folder, fits)
        };
        if let Some(step) = self.journey.position.went_back_to
            && let Ok(Some(older)) = before(step)
        {
            return Ok(Some(older));
        }
        match before(u64::MAX)? {
            Some(good) => Ok(Some(good)),
            None => checkpoint::newest(&folder),
        }
    }

    /// Writes and shows the figures of the steps since the last report.
    fn report(&mut self, lr: f64, window: Window<B::InnerBackend>) -> Result<()> {
        let Some(sums) = window.sums else {
            return Ok(());
        };
        let step = self.journey.position.step;
        let mut metrics = means::<B::InnerBackend, O::InnerModule>(sums);
        O::derive(&mut metrics);
        metrics.insert("grad_norm".into(), self.strategy.optimizer.norm());
        if self.strategy.plan.unit == TOKENS {
            let padding = 1.0 - window.units as f64 / window.slots.max(1) as f64;
            metrics.insert(PADDING.into(), padding);
        }
        let skipped = self.journey.position.watch.skipped;
        if skipped > 0 {
            metrics.insert(SKIPPED.into(), skipped as f64);
        }
        let rate = window.units as f64 / window.timing.steps().max(1e-9);
        let rate_name = rate_name(self.strategy.plan.unit);
        let mut timing = window.timing.figures();
        timing.insert(rate_name.clone(), rate);
        timing.insert("peak_memory_bytes".into(), run::peak_memory_bytes() as f64);
        let groups = self.strategy.optimizer.groups();
        let rates = groups.multipliers(step - 1).into_iter();
        let event = Event {
            lr: Some(lr),
            group_lr: rates.map(|(label, times)| (label, lr * times)).collect(),
            timing,
            ..self.event("train", metrics.clone())
        };
        metrics.insert(rate_name, rate);
        metrics.insert("lr".into(), lr);
        self.journey.log.append(&event)?;
        let total = self.strategy.plan.total_steps;
        self.journey.console.trained(&event, &metrics, total);
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
        learner: &Learner<Components<B, O>>,
        valid: &ValidLoader<Components<B, O>>,
        window: &mut Window<B::InnerBackend>,
    ) -> Result<bool> {
        let mut stopwatch = Stopwatch::start();
        let mut model = learner.model().valid();
        if let Some(ema) = &self.journey.ema {
            model = ema.apply(model);
        }
        let (metrics, details) = judge::<B, O>(&model, &mut *valid.iter());
        self.journey.position.seconds = self.before + self.began.elapsed().as_secs_f64();
        let name = &self.strategy.plan.training.metric;
        let value = metrics.get(name).copied().unwrap_or(f64::NAN);
        let best = self.journey.position.best.as_ref();
        let better = match best.and_then(|best| best.metrics.get(name)) {
            Some(old) if metrics::higher_is_better(name) => value > *old,
            Some(old) => value < *old,
            None => value.is_finite(),
        };
        let event = Event {
            details,
            ..self.event("valid", metrics.clone())
        };
        self.journey.log.append(&event)?;
        self.journey.console.validated(&event, better);
        if let (Some(hook), Some(run)) = (&self.strategy.after_validation, &self.strategy.run) {
            hook(&model.objective, run.path())?;
        }
        let item = self.item(SplitOutput::Report(metrics.clone()), None);
        self.processor
            .process_valid(LearnerEvent::ProcessedItem(item));
        self.journey.position.last = Some(metrics.clone());
        let step = self.journey.position.step;
        let seconds = self.lap("validation", step, &mut stopwatch)?;
        window.timing.validation += seconds;
        self.journey.position.timing.validation += seconds;
        if !better {
            self.journey.position.stale += 1;
            return Ok(false);
        }
        self.journey.position.stale = 0;
        self.journey.position.best = Some(Best { step, metrics });
        if let Some(run) = &self.strategy.run {
            (self.strategy.export)(&model.objective, &run.bundle())?;
            self.lap("bundle", step, &mut stopwatch)?;
        }
        self.journey.best = Some(model.objective);
        Ok(true)
    }

    /// - scheduled: whether an uninterrupted run keeps its state at this step too
    fn checkpoint(&mut self, learner: &Learner<Components<B, O>>, scheduled: bool) -> Result<()> {
        let Some(run) = &self.strategy.run else {
            return Ok(());
        };
        let mut stopwatch = Stopwatch::start();
        let journey = &mut *self.journey;
        journey.position.unscheduled = !scheduled;
        if journey.position.is_place_to_go_back_to() {
            journey.position.went_back_to = None;
        }
        journey.log.mark(&mut journey.position)?;
        let snapshot = Snapshot {
            module: &learner.model(),
            optimizer: &self.strategy.optimizer,
            ema: journey.ema.as_ref(),
            position: &journey.position,
        };
        checkpoint::save(
            &run.checkpoints(),
            &snapshot,
            self.strategy.plan.training.keep,
        )
        .context("cannot write the checkpoint; earlier ones are whole")?;
        let step = self.journey.position.step;
        self.lap("checkpoint", step, &mut stopwatch)?;
        Ok(())
    }

    fn event(&self, split: &'static str, metrics: Metrics) -> Event {
        let position = &self.journey.position;
        let epoch = position.step as f64 / self.strategy.plan.steps_per_epoch as f64;
        Event {
            seconds: position.seconds,
            ..Event::new(position.step, epoch, split, metrics)
        }
    }

    fn item<T>(&self, item: T, lr: Option<f64>) -> TrainingItem<T> {
        let plan = &self.strategy.plan;
        let step = self.journey.position.step;
        let of_epoch = (step - 1) % plan.steps_per_epoch + 1;
        let progress = Progress::new(of_epoch as usize, plan.steps_per_epoch as usize);
        // burn-train derives the time left from the global progress, so it counts steps, not epochs.
        let global = Progress::new(step as usize, plan.total_steps as usize);
        TrainingItem::new(item, progress, global, Some(step as usize), lr)
    }
}

fn device<B: AutodiffBackend, O: Trainable<B>>(learner: &Learner<Components<B, O>>) -> B::Device {
    let devices = learner.model().devices();
    devices.into_iter().next().unwrap_or_default()
}

impl<B: Backend> Window<B> {
    /// As a checkpoint holds it; nothing right after a line of the log.
    fn unreported(&self) -> Option<Unreported> {
        let sums = self.sums.as_ref()?;
        let tensors = std::iter::once(&sums.loss).chain(&sums.sums);
        Some(Unreported {
            sums: tensors
                .map(|sum| sum.clone().into_scalar().elem())
                .collect(),
            targets: sums.targets,
            weight: sums.weight,
            units: self.units,
            slots: self.slots,
            timing: self.timing,
        })
    }

    fn resumed(unreported: Unreported, device: &B::Device) -> Self {
        let tensor = |sum: &f64| Tensor::from_floats([*sum as f32], device);
        let sums = unreported.sums.split_first().map(|(loss, sums)| LossSums {
            loss: tensor(loss),
            sums: sums.iter().map(tensor).collect(),
            targets: unreported.targets,
            weight: unreported.weight,
        });
        Self {
            sums,
            unread: Vec::new(),
            units: unreported.units,
            slots: unreported.slots,
            timing: unreported.timing,
        }
    }

    fn add(&mut self, sums: LossSums<B>) {
        self.sums = Some(LossSums::merged(self.sums.take(), sums));
    }
}

fn means<B: Backend, O: Objective<B>>(sums: LossSums<B>) -> Metrics {
    crate::objective::SumTally::read(sums, O::SUMS).metrics()
}

/// Figures of a whole split, and what else its tally says.
pub fn judge<B: AutodiffBackend, O: Trainable<B>>(
    model: &Trainee<B::InnerBackend, O::InnerModule>,
    batches: &mut dyn Iterator<Item = <O as Objective<B>>::Batch>,
) -> (Metrics, Option<serde_json::Value>) {
    let mut tally = <O as Objective<B>>::Tally::default();
    for batch in batches {
        if let SplitOutput::Tally(part) = model.step(batch) {
            tally.merge(part);
        }
    }
    let mut metrics = tally.metrics();
    <O as Objective<B>>::derive(&mut metrics);
    (metrics, tally.details())
}

/// A strategy that burn-train can hold.
pub type SharedStrategy<B, O> = Arc<StepStrategy<B, O>>;

/// Two numbers to one, every bit of each reaching every bit of the result (SplitMix64's finaliser).
fn mix(seed: u64, step: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step.wrapping_add(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
