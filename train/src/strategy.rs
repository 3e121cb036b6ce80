//! The training loop, as a learning strategy inside burn-train's learner.
//!
//! Burn's own strategies validate, checkpoint and stop per epoch, and decide on a metric store that another
//! thread still fills. Here a step is the unit, and every decision reads figures that are complete.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context, Result, bail};
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

use crate::checkpoint::{self, Best, Position, Unreported};
use crate::metrics::{self, Metrics};
use crate::objective::{LossSums, Objective, SplitOutput, StepOutput, Tally, Trainable, Trainee};
use crate::optimizer::AdamW;
use crate::recipe::TrainingRecipe;
use crate::run::{Event, EventLog, RunDir};
use crate::schedule::Schedule;
use crate::source::Counts;
use crate::ui::Console;

/// The components that burn-train is instantiated with.
pub type Components<B, O> = LearningComponentsMarker<B, Schedule, Trainee<B, O>, AdamW<B>>;

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

/// What the loop goes by.
pub struct Plan {
    /// The recipe's `[training]`.
    pub training: TrainingRecipe,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Optimizer steps an epoch.
    pub steps_per_epoch: u64,
    /// Of the run: dropout of step n is drawn from (seed, n).
    pub seed: u64,
    /// `tokens` or `samples`.
    pub unit: &'static str,
}

/// The loop. One value trains once.
pub struct StepStrategy<B: AutodiffBackend, O: Trainable<B>> {
    /// What it goes by.
    pub plan: Plan,
    /// Shares its state with the learner's.
    pub optimizer: AdamW<B>,
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
    /// `metrics.jsonl`.
    pub log: EventLog,
    /// What the person sees.
    pub console: Console,
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
        let ending = sitting.train(&mut learner, &train, &valid);
        sitting.journey.ending = Some(ending);
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
    units: usize,
    seconds: f64,
}

impl<B: Backend> Default for Window<B> {
    fn default() -> Self {
        Self {
            sums: None,
            units: 0,
            seconds: 0.0,
        }
    }
}

impl<B: AutodiffBackend, O: Trainable<B>> Sitting<'_, B, O> {
    fn train(
        &mut self,
        learner: &mut Learner<Components<B, O>>,
        train: &TrainLoader<Components<B, O>>,
        valid: &ValidLoader<Components<B, O>>,
    ) -> Result<Ending> {
        let Plan {
            training,
            total_steps,
            ..
        } = &self.strategy.plan;
        let validate_every = match training.validate_every {
            0 => self.strategy.plan.steps_per_epoch,
            steps => steps,
        };
        let mut batches = train.iter();
        let device = learner
            .model()
            .devices()
            .into_iter()
            .next()
            .unwrap_or_default();
        let unreported = self.journey.position.unreported.take();
        let mut window =
            unreported.map_or_else(Window::default, |sums| Window::resumed(sums, &device));
        while self.journey.position.step < *total_steps {
            self.step(learner, &mut *batches, &mut window)?;
            let step = self.journey.position.step;
            let last = step == *total_steps;
            if step.is_multiple_of(training.log_every) || last {
                self.report(learner.lr_current(), std::mem::take(&mut window))?;
            }
            let validates = step.is_multiple_of(validate_every) || last;
            // The best step keeps a checkpoint: a resumed run has its model from there.
            let best = validates && self.validate(learner, valid)?;
            let early = training.patience > 0 && self.journey.position.stale >= training.patience;
            let interrupted = self.interrupter.should_stop() && !last;
            let due = match training.checkpoint_every {
                0 => validates,
                steps => step.is_multiple_of(steps),
            };
            if due || best || last || early || interrupted {
                self.journey.position.unreported = window.unreported();
                self.checkpoint(learner)?;
            }
            if early {
                return Ok(Ending::StoppedEarly);
            }
            if interrupted {
                return Ok(Ending::Interrupted);
            }
        }
        Ok(Ending::Completed)
    }

    /// One optimizer step: forward and backward of every micro-batch, then one update.
    fn step(
        &mut self,
        learner: &mut Learner<Components<B, O>>,
        batches: &mut dyn Iterator<Item = O::Batch>,
        window: &mut Window<B::InnerBackend>,
    ) -> Result<()> {
        let began = Instant::now();
        let Plan { training, seed, .. } = &self.strategy.plan;
        let device = learner
            .model()
            .devices()
            .into_iter()
            .next()
            .unwrap_or_default();
        B::seed(&device, mix(*seed, self.journey.position.step));
        let mut accumulator = GradientsAccumulator::new();
        let mut single = None;
        let mut targets = 0;
        for _ in 0..training.accumulation {
            let batch = batches
                .next()
                .context("the data ended before the training")?;
            let (units, slots) = (batch.units(), batch.slots());
            window.units += units;
            self.journey.position.units += units as u64;
            self.journey.position.slots += slots as u64;
            let output = learner.train_step(batch);
            if let StepOutput::Sums(sums) = output.item {
                targets += sums.targets;
                window.add(sums);
            }
            match training.accumulation {
                1 => single = Some(output.grads),
                _ => accumulator.accumulate(&learner.model(), output.grads),
            }
        }
        self.strategy.optimizer.set_targets(targets);
        learner.lr_step();
        learner.optimizer_step(single.unwrap_or_else(|| accumulator.grads()));
        self.journey.position.step += 1;
        let seconds = began.elapsed().as_secs_f64();
        window.seconds += seconds;
        self.journey.position.step_seconds += seconds;
        self.journey.position.seconds = self.before + self.began.elapsed().as_secs_f64();
        Ok(())
    }

    /// Writes and shows the figures of the steps since the last report.
    fn report(&mut self, lr: f64, window: Window<B::InnerBackend>) -> Result<()> {
        let Some(sums) = window.sums else {
            return Ok(());
        };
        let step = self.journey.position.step;
        let mut metrics = means::<B::InnerBackend, O::InnerModule>(sums);
        O::derive(&mut metrics);
        if let Some(norm) = self.strategy.optimizer.norm() {
            metrics.insert("grad_norm".into(), norm);
        }
        let loss = metrics.get("loss").copied().unwrap_or(f64::NAN);
        if !loss.is_finite() {
            bail!("the loss is {loss} at step {step}; a lower optimizer.lr may help");
        }
        let rate = window.units as f64 / window.seconds.max(1e-9);
        let event = self.event("train", metrics.clone(), Some(lr));
        metrics.insert(format!("{}_per_second", self.strategy.plan.unit), rate);
        metrics.insert("lr".into(), lr);
        self.journey.log.append(&event)?;
        let total = self.strategy.plan.total_steps;
        self.journey.console.trained(&event, &metrics, total);
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
    ) -> Result<bool> {
        let model = learner.model().valid();
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
        let mut event = self.event("valid", metrics.clone(), None);
        event.details = details;
        self.journey.log.append(&event)?;
        self.journey.console.validated(&event, better);
        if let (Some(hook), Some(run)) = (&self.strategy.after_validation, &self.strategy.run) {
            hook(&model.objective, run.path())?;
        }
        let item = self.item(SplitOutput::Report(metrics.clone()), None);
        self.processor
            .process_valid(LearnerEvent::ProcessedItem(item));
        self.journey.position.last = Some(metrics.clone());
        if !better {
            self.journey.position.stale += 1;
            return Ok(false);
        }
        let step = self.journey.position.step;
        self.journey.position.stale = 0;
        self.journey.position.best = Some(Best { step, metrics });
        if let Some(run) = &self.strategy.run {
            (self.strategy.export)(&model.objective, &run.bundle())?;
        }
        self.journey.best = Some(model.objective);
        Ok(true)
    }

    fn checkpoint(&mut self, learner: &Learner<Components<B, O>>) -> Result<()> {
        let Some(run) = &self.strategy.run else {
            return Ok(());
        };
        self.journey.position.log_length = self.journey.log.length();
        let keep = self.strategy.plan.training.keep;
        let position = &self.journey.position;
        let optimizer = &self.strategy.optimizer;
        checkpoint::save(
            &run.checkpoints(),
            &learner.model(),
            optimizer,
            position,
            keep,
        )
        .context("cannot write the checkpoint; earlier ones are whole")
    }

    fn event(&self, split: &'static str, metrics: Metrics, lr: Option<f64>) -> Event {
        let position = &self.journey.position;
        Event {
            step: position.step,
            epoch: position.step as f64 / self.strategy.plan.steps_per_epoch as f64,
            split,
            metrics,
            lr,
            seconds: position.seconds,
            details: None,
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
            units: self.units,
            seconds: self.seconds,
        })
    }

    fn resumed(unreported: Unreported, device: &B::Device) -> Self {
        let tensor = |sum: &f64| Tensor::from_floats([*sum as f32], device);
        let sums = unreported.sums.split_first().map(|(loss, sums)| LossSums {
            loss: tensor(loss),
            sums: sums.iter().map(tensor).collect(),
            targets: unreported.targets,
        });
        Self {
            sums,
            units: unreported.units,
            seconds: unreported.seconds,
        }
    }

    fn add(&mut self, sums: LossSums<B>) {
        self.sums = Some(match self.sums.take() {
            None => sums,
            Some(old) => LossSums {
                loss: old.loss + sums.loss,
                sums: old
                    .sums
                    .into_iter()
                    .zip(sums.sums)
                    .map(|(a, b)| a + b)
                    .collect(),
                targets: old.targets + sums.targets,
            },
        });
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
