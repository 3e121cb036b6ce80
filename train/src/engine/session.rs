//! A session: everything a run needs, put together inside burn-train's learner, and started.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use burn::tensor::backend::AutodiffBackend;
use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, NumericEntry};
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use model::Names;

use crate::backend::BackendName;
use crate::engine::finish::Finish;
use crate::engine::resume::Start;
use crate::engine::training_loop::{
    Components, ModelHook, Plan, RunState, SharedLoop, TrainingLoop, reported,
};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::loader::Loader;
use crate::memory::{self, Work};
use crate::metrics::{Figure, Metric};
use crate::objective::{self, Objective, Trainable, Trainee};
use crate::optim::groups::{self, Group};
use crate::optim::optimizer::Optimizer;
use crate::optim::schedule::Schedule;
use crate::process;
use crate::recipe::{GuardRecipe, Impossible, OptimizerRecipe, ScheduleRecipe, TrainingRecipe};
use crate::report::model_summary;
use crate::report::trace::Trace;
use crate::run::{EventLog, Existing, RunDir, RunError};
use crate::source::{BatchSource, Unit};
use crate::tune::probe::{self, Probe, Subject};
use crate::ui::{self, Console, Ui};

/// What the command line says about a run, beside its recipe.
#[derive(Clone, Debug)]
pub struct Options {
    /// The run directory.
    pub out: PathBuf,
    /// What to do if it exists.
    pub existing: Existing,
    /// What the person sees.
    pub ui: Ui,
    /// Which backend trains, for messages and the summary.
    pub backend: BackendName,
    /// Two steps and a validation, nothing written.
    pub dry_run: bool,
    /// An experiment instead of a run.
    pub probe: Option<Probe>,
    /// Draws the first training batch into this PNG instead of a run.
    pub show_batch: Option<PathBuf>,
    /// Writes `profile.json`: where the time of each step goes.
    pub profile: bool,
    /// Asks it to save its state and stop.
    pub interrupt: Interrupt,
    /// Sends the messages of all crates to `experiment.log` of the run, for the rest of the process: for programs that do
    /// nothing else.
    pub log_file: bool,
}

impl Options {
    /// A silent run into a directory that must not exist yet.
    pub fn new(out: impl Into<PathBuf>, backend: BackendName) -> Self {
        Self {
            out: out.into(),
            existing: Existing::Refuse,
            ui: Ui::None,
            backend,
            dry_run: false,
            probe: None,
            show_batch: None,
            profile: false,
            interrupt: Interrupt::new(),
            log_file: false,
        }
    }
}

/// How a run ended, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All of it is done, early stopping included.
    Done,
    /// Stopped by a person or a signal; the state is saved.
    Interrupted,
}

/// Everything a run needs.
pub struct Session<B: AutodiffBackend, O: Trainable<B>, S> {
    /// Of the recipe: `mlm`.
    pub name: String,
    /// The resolved recipe, as TOML.
    pub recipe: String,
    /// The one seed.
    pub seed: u64,
    /// How long and how often.
    pub training: TrainingRecipe,
    /// How weights change.
    pub optimizer: OptimizerRecipe,
    /// The rate over time.
    pub schedule: ScheduleRecipe,
    /// What keeps it from being lost.
    pub guard: GuardRecipe,
    /// A digest of the training rows, as [`data::digest`](fn@data::digest) makes it: a resumed run needs the same.
    pub data: String,
    /// Rates by name of a fine-tuning strategy.
    pub groups: Vec<Group>,
    /// How the model's parameters are called.
    pub names: Names,
    /// The model, with the weights it starts from.
    pub objective: O,
    /// Where it trains.
    pub device: B::Device,
    /// Training batches.
    pub train: Arc<S>,
    /// Validation batches, one epoch of them.
    pub valid: Arc<S>,
    /// Judged once at the end, with the best model.
    pub test: Option<Arc<S>>,
    /// What throughput counts.
    pub unit: Unit,
    /// Writes a bundle.
    pub export: ModelHook<O::InnerModule>,
    /// Called after each validation with the run directory.
    pub after_validation: Option<ModelHook<O::InnerModule>>,
    /// From the command line.
    pub options: Options,
}

impl<B, O, S> Session<B, O, S>
where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    /// Trains, judges and writes the summary.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`] before anything is written, [`Failure::Running`] once training has begun.
    pub fn launch(mut self) -> Result<Status, Failure> {
        self.check()?;
        if self.options.dry_run {
            self.training.steps = 2;
            self.training.log_every = 1;
            self.training.validate_every = 2;
        }
        let run = self.run_dir()?;
        let (total_steps, steps_per_epoch) = self.steps()?;
        let model = Trainee::new(self.objective, self.training.precision);
        let groups = self.optimizer.groups(&self.groups, &model, self.names)?;
        let parameters = groups::count_parameters(&model, &groups);
        let model = groups::freeze(model, &groups);
        if parameters[1] == 0 {
            let name = &self.name;
            let reason = format!("{name}: every parameter is frozen, so nothing would train");
            return Err(Failure::input(reason));
        }
        let optimizer = Optimizer::new(self.optimizer.clone(), groups);
        if let Some(probe) = self.options.probe {
            let subject = Subject {
                model,
                optimizer,
                source: &*self.train,
                seed: self.seed,
            };
            let Options { out, ui, .. } = &self.options;
            return probe::run(probe, subject, self.optimizer.lr, out, *ui);
        }
        let mut start = Start::<B, O>::fresh(model, self.training.ema, self.names, &self.data);
        let existing = self.options.existing;
        let mut lock = None;
        if let Some(run) = &run {
            let claimed = run.claim(existing).map_err(at_first_file)?;
            start = start.found(run, existing, &optimizer, &self.device)?;
            if existing == Existing::Resume {
                extend(run, &self.recipe, start.position.step, total_steps)?;
            } else {
                run.begin(&claimed, &self.recipe).map_err(at_first_file)?;
            }
            lock = Some(claimed);
        }
        let console = Console::new(self.options.ui);
        let taken = start.position.step;
        introduce(
            &console,
            &self.name,
            &self.options,
            parameters,
            total_steps,
            &start,
        );
        if self.options.dry_run {
            let table = model_summary::table(&start.model, optimizer.groups());
            console.note(table.trim_end());
        }
        let Start {
            model,
            position,
            best,
            ema,
            ..
        } = start;
        let log = match &run {
            Some(run) => EventLog::open(run, &position).map_err(at_first_file)?,
            None => EventLog::none(),
        };
        let trace = match &run {
            // A finished run already has one.
            Some(run) if self.options.profile && taken < total_steps => Some(trace(run)?),
            _ => None,
        };
        let workers = self.training.workers;
        let training = Arc::new(TrainingLoop {
            plan: Plan {
                training: self.training,
                guard: self.guard,
                total_steps,
                steps_per_epoch,
                seed: self.seed,
                unit: self.unit,
                unread: self.options.backend.runs_ahead(),
            },
            optimizer,
            schedule: Schedule::new(&self.schedule, self.optimizer.lr, total_steps),
            run: run.clone(),
            export: self.export,
            after_validation: self.after_validation,
            state: Mutex::new(RunState {
                position,
                best,
                ema,
                log,
                console,
                trace,
                ending: None,
            }),
        });
        // Without an end: a run that went back is past more batches than it has taken.
        let train = Loader::new(self.train, 0, u64::MAX).with_workers(workers);
        let of_epoch = self.valid.batches_per_epoch();
        let valid = Loader::new(self.valid, 0, of_epoch).with_workers(workers);
        let interrupter = Interrupter::new();
        let listening = self.options.interrupt.listen(interrupter.clone(), false);
        let metrics = model.objective.metrics();
        run_inside_burn(&training, model, [train, valid], &self.options, interrupter);
        let finish = Finish {
            name: &self.name,
            seed: self.seed,
            backend: self.options.backend,
            parameters,
            unit: self.unit,
            metrics,
            run: run.as_ref(),
        };
        let status = finish.close(&training, self.test);
        // Until here no other process may have the run, and an interrupt lets the summary be written.
        drop((lock, listening));
        status
    }

    /// Refuses values that nothing can train with.
    fn check(&self) -> Result<(), Failure> {
        let metrics = self.objective.metrics().iter();
        let metrics: Vec<&str> = metrics.map(|metric| metric.name).collect();
        self.training.check()?;
        self.training.check_metric(&metrics)?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.guard.check()?;
        objective::check_accumulation::<B, O>(&self.objective, self.training.accumulation)?;
        objective::check_precision::<B>(self.training.precision, &self.device)?;
        Ok(())
    }

    /// Where it writes; nowhere in a dry run or an experiment.
    fn run_dir(&self) -> Result<Option<RunDir>, Failure> {
        let Options {
            out,
            existing,
            dry_run,
            probe,
            ..
        } = &self.options;
        if *dry_run || probe.is_some() {
            return Ok(None);
        }
        Ok(Some(RunDir::check(out, *existing)?))
    }

    /// Optimizer steps of the whole run, and of an epoch.
    fn steps(&self) -> Result<(u64, u64), Impossible> {
        let per_epoch = self.train.batches_per_epoch();
        let accumulation = self.training.accumulation;
        let total = self.training.total_steps(per_epoch);
        if total.checked_mul(accumulation).is_none() {
            let reason = format!("is {accumulation}; {total} such steps are too many");
            return Err(Impossible::new("training.accumulation", reason));
        }
        Ok((total, self.training.steps_per_epoch(per_epoch)))
    }
}

/// Trains. How it ended is in the loop's state.
///
/// - loaders: training and validation
fn run_inside_burn<B, O, S>(
    training: &SharedLoop<B, O>,
    model: Trainee<B, O>,
    [train, valid]: [Loader<S>; 2],
    options: &Options,
    interrupter: Interrupter,
) where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    let run = training.run.as_ref();
    let directory = run.map_or(Path::new("."), RunDir::path);
    let mut burn =
        SupervisedTraining::<Components<B, O>>::new(directory, Arc::new(train), Arc::new(valid))
            .with_metric_logger(NoMetricFiles)
            .with_application_logger(None)
            .with_training_strategy(TrainingStrategy::Custom(training.clone()));
    let metrics = model.objective.metrics();
    for name in reported::<B, O>(&model.objective, training.plan.unit) {
        let better = Metric::direction(metrics, &name);
        burn = burn.metric_train_numeric(Figure::new(&name, better));
    }
    for metric in metrics {
        burn = burn.metric_valid_numeric(Figure::new(metric.name, Some(metric.better)));
    }
    let taken = training.state().position.step;
    burn = burn.with_interrupter(interrupter.clone());
    burn = match options.ui {
        Ui::Tui => burn.renderer(ui::dashboard(interrupter, taken)),
        Ui::Plain | Ui::Json | Ui::None => burn.renderer(ui::Silent),
    };
    if let (Some(run), true) = (run, options.log_file) {
        process::log_to(&run.path().join("experiment.log"));
    }
    memory::now(match run {
        Some(_) => Work::ResumableTraining,
        None => Work::Training,
    });
    let schedule = training.schedule.clone();
    let learner = Learner::new(model, training.optimizer.clone(), schedule);
    // Dropping the renderer gives the terminal back.
    drop(burn.launch(learner));
}

fn trace(run: &RunDir) -> Result<Trace, Failure> {
    let path = run.path().join("profile.json");
    Trace::new(&path)
        .map_err(|source| RunError::Io { path, source })
        .map_err(at_first_file)
}

/// A full disk is no wrong input, not even at the first file.
fn at_first_file(error: RunError) -> Failure {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match &error {
        RunError::Io { source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) =>
        {
            Failure::running(error)
        }
        _ => error.into(),
    }
}

/// Says what is about to train.
///
/// - parameters: all, and those that train
fn introduce<B: AutodiffBackend, O: Trainable<B>>(
    console: &Console,
    name: &str,
    options: &Options,
    [all, trainable]: [usize; 2],
    total_steps: u64,
    start: &Start<B, O>,
) {
    let frozen = match all - trainable {
        0 => String::new(),
        frozen => format!(" ({frozen} frozen)"),
    };
    let from = match start.position.step {
        0 => String::new(),
        taken => format!(", going on after step {taken}"),
    };
    console.note(&format!(
        "{name}: {all} parameters{frozen}, {total_steps} steps on {}{from}",
        options.backend
    ));
    for reason in &start.passed_over {
        console.warn_outside(&format!(
            "a checkpoint is not whole and is passed over: {reason}"
        ));
    }
}

/// Keeps burn-train from writing its own files: the training loop writes metrics.jsonl.
struct NoMetricFiles;

impl MetricLogger for NoMetricFiles {
    fn log(&mut self, _: MetricsUpdate, _: usize, _: &Split) {}

    fn read_numeric(&mut self, _: &str, _: usize, _: &Split) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _: EpochSummary) {}
}

/// Writes down what is new in the recipe of a run that is resumed: more steps, another place of its data.
///
/// - taken: steps that it has done
fn extend(run: &RunDir, recipe: &str, taken: u64, total_steps: u64) -> Result<(), Failure> {
    if taken > total_steps {
        let reason = format!("is {total_steps}, and the run has done {taken} steps already");
        return Err(Impossible::new("training.steps", reason).into());
    }
    if run.recipe()? != recipe {
        run.write("recipe.toml", recipe.as_bytes())
            .map_err(at_first_file)?;
    }
    Ok(())
}
