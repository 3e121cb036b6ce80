//! A session: everything a run needs, put together inside burn-train's learner, started, and summed up.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, NumericEntry};
use burn::train::{Learner, SupervisedTraining, TrainingStrategy};
use model::Names;
use serde_json::{Value, json};

use crate::backend::BackendName;
use crate::checkpoint::{self, Position, Whole};
use crate::failure::{self, Failure};
use crate::interrupt::Interrupt;
use crate::loader::Loader;
use crate::memory::{self, Work};
use crate::metrics::{Figure, Metrics, short};
use crate::objective::{self, Objective, Trainable, Trainee};
use crate::optim::ema::Ema;
use crate::optim::groups::{self, Group};
use crate::optim::optimizer::Optimizer;
use crate::optim::schedule::Schedule;
use crate::process;
use crate::recipe::{
    ComputePrecision, GuardRecipe, OptimizerRecipe, ScheduleRecipe, TrainingRecipe,
};
use crate::report::model_summary;
use crate::report::plot;
use crate::report::trace::Trace;
use crate::run::{self, Event, EventLog, Existing, RunDir, RunError};
use crate::source::BatchSource;
use crate::strategy::{Ending, Journey, ModelHook, Plan, StepStrategy, judge, reported};
use crate::tune::probe::{self, Probe, Subject};
use crate::ui::{self, Console, Ui};

/// What the command line says about a run, beside its recipe.
#[derive(Clone, Debug)]
pub struct Options {
    /// The run directory.
    pub out: std::path::PathBuf,
    /// What to do if it exists.
    pub existing: Existing,
    /// What the person sees.
    pub ui: Ui,
    /// On what.
    pub backend: BackendName,
    /// Two steps and a validation, nothing written.
    pub dry_run: bool,
    /// An experiment instead of a run.
    pub probe: Option<Probe>,
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
    pub fn new(out: impl Into<std::path::PathBuf>, backend: BackendName) -> Self {
        Self {
            out: out.into(),
            existing: Existing::Refuse,
            ui: Ui::None,
            backend,
            dry_run: false,
            probe: None,
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
    /// `tokens` or `samples`.
    pub unit: &'static str,
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
    pub fn launch(mut self) -> Result<Status, Failure> {
        let wrong = |reason| Failure::input(format!("{}: {reason}", self.name));
        self.training.check(O::VALID_METRICS)?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.guard.check()?;
        objective::check_precision::<B>(self.training.precision, &self.device)?;
        if self.options.dry_run {
            self.training.steps = 2;
            self.training.log_every = 1;
            self.training.validate_every = 2;
        }
        let run = match self.options.dry_run || self.options.probe.is_some() {
            true => None,
            false => Some(RunDir::check(&self.options.out, self.options.existing)?),
        };
        let model = Trainee::new(self.objective, self.training.precision);
        let groups = self.optimizer.groups(&self.groups, &model, self.names)?;
        let model = groups::freeze(model, &groups);
        let parameters = groups::count_parameters(&model, &groups);
        if parameters[1] == 0 {
            return Err(wrong(
                "every parameter is frozen, so nothing would train".into(),
            ));
        }
        let per_epoch = self.train.batches_per_epoch();
        let total_steps = self.training.total_steps(per_epoch);
        let steps_per_epoch = self.training.steps_per_epoch(per_epoch);
        let (accumulation, workers) = (self.training.accumulation, self.training.workers);
        if total_steps.checked_mul(accumulation).is_none() {
            return Err(wrong(format!(
                "{total_steps} steps of {accumulation} micro-batches are too many"
            )));
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
        let existing = self.options.existing;
        let lock = match &run {
            Some(run) => Some(run.claim(existing).map_err(begun)?),
            None => None,
        };
        let start = Start::<B, O>::find(
            run.as_ref(),
            self.options.existing,
            model,
            &optimizer,
            self.training.ema,
            &self.data,
            &self.device,
        )?;
        if let (Some(run), Some(lock), true) = (&run, &lock, existing != Existing::Resume) {
            run.begin(lock, &self.recipe).map_err(begun)?;
        }

        let taken = start.position.step;
        let console = Console::new(self.options.ui);
        introduce(
            &console,
            &self.name,
            &self.options,
            parameters,
            total_steps,
            taken,
        );
        if self.options.dry_run {
            let table = model_summary::table(&start.model, optimizer.groups());
            console.note(table.trim_end());
        }
        let trace = match &run {
            // A run that is done has its profile.
            Some(run) if self.options.profile && taken < total_steps => {
                let path = run.path().join("profile.json");
                Some(
                    Trace::new(&path)
                        .map_err(|source| RunError::Io { path, source })
                        .map_err(begun)?,
                )
            }
            _ => None,
        };
        for reason in &start.passed_over {
            console.warn_outside(&format!(
                "a checkpoint is not whole and is passed over: {reason}"
            ));
        }
        let schedule = Schedule::new(&self.schedule, self.optimizer.lr, total_steps);
        let scale = self.guard.scale(start.position.watch.rollbacks);
        let resumed = schedule.clone().resumed(taken, scale);
        let log = match &run {
            Some(run) => EventLog::open(run, &start.position).map_err(begun)?,
            None => EventLog::none(),
        };
        let strategy = Arc::new(StepStrategy {
            plan: Plan {
                training: self.training,
                guard: self.guard,
                total_steps,
                steps_per_epoch,
                seed: self.seed,
                unit: self.unit,
                unread: self.options.backend.runs_ahead(),
            },
            optimizer: optimizer.clone(),
            schedule,
            run: run.clone(),
            export: self.export,
            after_validation: self.after_validation,
            progress: Mutex::new(Journey {
                position: start.position,
                best: start.best,
                ema: start.ema,
                log,
                console,
                trace,
                ending: None,
            }),
        });

        // Without an end: a run that went back is past more batches than it has taken.
        let train = Loader::new(self.train, 0, u64::MAX).with_workers(workers);
        let valid = Loader::new(self.valid.clone(), 0, self.valid.batches_per_epoch())
            .with_workers(workers);
        let directory = run.as_ref().map_or(Path::new("."), RunDir::path);
        let mut training = SupervisedTraining::new(directory, Arc::new(train), Arc::new(valid))
            .with_metric_logger(Elsewhere)
            .with_training_strategy(TrainingStrategy::Custom(strategy.clone()));
        for name in reported::<B, O>(self.unit) {
            training = training.metric_train_numeric(Figure::new(&name));
        }
        for name in O::VALID_METRICS {
            training = training.metric_valid_numeric(Figure::new(name));
        }
        let interrupter = training.interrupter();
        let _listening = self.options.interrupt.listen(interrupter.clone(), false);
        training = match self.options.ui {
            Ui::Tui => training.renderer(ui::dashboard(interrupter, taken)),
            Ui::Plain | Ui::Json | Ui::None => training.renderer(ui::Silent),
        };
        if let (Some(run), true) = (&run, self.options.log_file) {
            process::log_to(&run.path().join("experiment.log"));
        }
        memory::now(match run {
            Some(_) => Work::ResumableTraining,
            None => Work::Training,
        });
        training = training.with_application_logger(None);
        // Dropping the renderer gives the terminal back.
        drop(training.launch(Learner::new(start.model, optimizer, resumed)));

        let finish = Finish {
            name: &self.name,
            seed: self.seed,
            backend: self.options.backend,
            parameters,
            unit: self.unit,
            run: run.as_ref(),
        };
        let status = finish.close(&strategy, self.test);
        drop(lock);
        status
    }
}

/// A full disk is no wrong input, not even at the first file.
fn begun(error: RunError) -> Failure {
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

/// What a run starts from.
struct Start<B: AutodiffBackend, O: Trainable<B>> {
    model: Trainee<B, O>,
    position: Position,
    best: Option<O::InnerModule>,
    ema: Option<Ema<B::InnerBackend>>,
    passed_over: Vec<String>,
}

impl<B: AutodiffBackend, O: Trainable<B>> Start<B, O> {
    /// The model as it is, or the newest checkpoint of a resumed run.
    fn find(
        run: Option<&RunDir>,
        existing: Existing,
        model: Trainee<B, O>,
        optimizer: &Optimizer<B>,
        decay: f64,
        data: &str,
        device: &B::Device,
    ) -> Result<Self, Failure> {
        let ema = (decay > 0.0).then(|| Ema::new(decay, optimizer.groups().names()));
        let fresh = Self {
            model,
            position: Position {
                data: data.into(),
                ..Position::default()
            },
            best: None,
            ema,
            passed_over: Vec::new(),
        };
        let (Some(run), Existing::Resume) = (run, existing) else {
            return Ok(fresh);
        };
        match checkpoint::newest(&run.checkpoints()).map_err(Failure::Input)? {
            // Stopped before the first checkpoint: from the beginning, with the same recipe.
            None => Ok(fresh),
            // A run from before there were digests has none.
            Some(whole) if !whole.position.data.is_empty() && whole.position.data != data => {
                Err(Failure::input(format!(
                    "{}: the training data or its tokenizer are not those that the run began with; bring them back, \
                     or start anew with --force",
                    run.path().display()
                )))
            }
            Some(whole) => {
                let found = fresh.go_on(whole, &run.checkpoints(), optimizer, device);
                found.map_err(Failure::Input)
            }
        }
    }

    fn go_on(
        mut self,
        whole: Whole,
        folder: &Path,
        optimizer: &Optimizer<B>,
        device: &B::Device,
    ) -> anyhow::Result<Self> {
        let Whole {
            path,
            position,
            passed_over,
        } = whole;
        let ema = self.ema.as_mut();
        self.model = checkpoint::load(&path, self.model, optimizer, ema, &position, device)?;
        if let Some(best) = &position.best {
            let path = folder.join(checkpoint::name(best.step));
            let model = checkpoint::validated(
                &path,
                self.model.valid(),
                optimizer.groups().names(),
                device,
            )?;
            self.best = Some(model.objective);
        }
        self.position = position;
        self.passed_over = passed_over;
        Ok(self)
    }
}

fn introduce(
    console: &Console,
    name: &str,
    options: &Options,
    [all, trainable]: [usize; 2],
    total_steps: u64,
    taken: u64,
) {
    let frozen = match all - trainable {
        0 => String::new(),
        frozen => format!(" ({frozen} frozen)"),
    };
    let from = match taken {
        0 => String::new(),
        taken => format!(", going on after step {taken}"),
    };
    console.note(&format!(
        "{name}: {all} parameters{frozen}, {total_steps} steps on {}{from}",
        options.backend
    ));
}

/// Judges and writes down a run that has stopped.
struct Finish<'a> {
    name: &'a str,
    seed: u64,
    backend: BackendName,
    parameters: [usize; 2],
    unit: &'static str,
    run: Option<&'a RunDir>,
}

impl Finish<'_> {
    fn close<B, O, S>(
        &self,
        strategy: &StepStrategy<B, O>,
        test: Option<Arc<S>>,
    ) -> Result<Status, Failure>
    where
        B: AutodiffBackend,
        O: Trainable<B>,
        S: BatchSource<Batch = <O as Objective<B>>::Batch>,
    {
        let mut journey = strategy.journey();
        if let Some(trace) = journey.trace.take() {
            trace.finish().map_err(Failure::running)?;
        }
        let ending = journey.ending.take();
        let ending = ending.unwrap_or_else(|| Err(anyhow::anyhow!("the training never began")));
        let status = match &ending {
            Ok(Ending::Completed) => "completed",
            Ok(Ending::StoppedEarly) => "stopped_early",
            Ok(Ending::Interrupted) => "interrupted",
            Err(_) => "failed",
        };
        let done = matches!(ending, Ok(Ending::Completed | Ending::StoppedEarly));
        let tested = match (test, journey.best.take()) {
            (Some(test), Some(best)) if done => {
                let judged = failure::caught(|| judge_test::<B, O, S>(&test, best));
                Some(judged.map_err(Failure::Running)?)
            }
            _ => None,
        };
        if let Some((metrics, details)) = &tested {
            let step = journey.position.step;
            let epoch = step as f64 / strategy.plan.steps_per_epoch as f64;
            let event = Event {
                seconds: journey.position.seconds,
                details: details.clone(),
                ..Event::new(step, epoch, "test", metrics.clone())
            };
            journey.log.append(&event).map_err(Failure::running)?;
            journey.console.validated(&event, false);
        }
        let summary = self.summary(status, &journey.position, strategy, &tested);
        if let Some(run) = self.run {
            let written = run.write("summary.json", format!("{summary:#}\n").as_bytes());
            // A full disk has one error worth printing: the one that stopped the training.
            if done {
                written.map_err(Failure::running)?;
            }
        }
        if let Some(run) = self.run {
            // Plots are for looking at: a full disk has its error already.
            if let Err(error) = plot::run_plots(run.path()) {
                journey
                    .console
                    .warn_outside(&format!("no plots: {error:#}"));
            }
        }
        self.say(&journey.console, status, &journey.position);
        match ending {
            Ok(Ending::Interrupted) => Ok(Status::Interrupted),
            Ok(_) => Ok(Status::Done),
            Err(error) => Err(Failure::Running(error)),
        }
    }

    fn summary<B: AutodiffBackend, O: Trainable<B>>(
        &self,
        status: &str,
        position: &Position,
        strategy: &StepStrategy<B, O>,
        tested: &Option<(Metrics, Option<Value>)>,
    ) -> Value {
        let [total, trainable] = self.parameters;
        let rate = position.units as f64 / position.timing.steps().max(1e-9);
        let throughput = match self.unit {
            "tokens" => json!({"real_tokens_per_second": rate}),
            unit => json!({format!("{unit}_per_second"): rate}),
        };
        let mut summary = json!({
            "status": status,
            "recipe": self.name,
            "seed": self.seed,
            "backend": self.backend.name(),
            "version": env!("CARGO_PKG_VERSION"),
            "steps": position.step,
            "epochs": position.step as f64 / strategy.plan.steps_per_epoch as f64,
            "train_seconds": position.seconds,
            "parameters": {"total": total, "trainable": trainable},
            "throughput": throughput,
            "padding_fraction": 1.0 - position.units as f64 / position.slots.max(1) as f64,
            "timing": position.timing,
            "peak_memory_bytes": run::peak_memory_bytes(),
            "skipped_steps": position.watch.skipped,
            "rollbacks": position.watch.rollbacks,
            "best": position.best,
            "final": {"metrics": position.last},
        });
        if let (Some(summary), Some((metrics, details))) = (summary.as_object_mut(), tested) {
            let mut test = json!({"metrics": metrics});
            if let (Some(test), Some(details)) = (test.as_object_mut(), details) {
                test.insert("details".into(), details.clone());
            }
            summary.insert("test".into(), test);
        }
        summary
    }

    fn say(&self, console: &Console, status: &str, position: &Position) {
        let best = position.best.as_ref().map_or(String::new(), |best| {
            let figures = best.metrics.iter();
            let figures: Vec<_> = figures
                .map(|(name, v)| format!("{name} {}", short(*v)))
                .collect();
            format!("; best at step {}: {}", best.step, figures.join(", "))
        });
        let watch = &position.watch;
        let skipped = match (watch.skipped, watch.rollbacks) {
            (0, 0) => String::new(),
            (skipped, 0) => format!(", {skipped} of them skipped"),
            (skipped, back) => format!(", {skipped} of them skipped, back {back} times"),
        };
        console.note(&format!(
            "{} after {} steps{skipped} and {}{best}",
            status.replace('_', " "),
            position.step,
            ui::duration(position.seconds),
        ));
        match self.run {
            Some(run) => console.note(&format!("run: {}", run.path().display())),
            None => console.note(&format!(
                "dry run: nothing written; peak memory {} MiB",
                run::peak_memory_bytes() >> 20
            )),
        }
    }
}

fn judge_test<B, O, S>(test: &Arc<S>, best: O::InnerModule) -> (Metrics, Option<Value>)
where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    let mut batches = (0..test.batches_per_epoch()).map(|number| test.batch(number));
    judge::<B, O>(&Trainee::new(best, ComputePrecision::F32), &mut batches)
}

/// Keeps burn-train from writing its own files: the training loop writes metrics.jsonl.
struct Elsewhere;

impl MetricLogger for Elsewhere {
    fn log(&mut self, _: MetricsUpdate, _: usize, _: &Split) {}

    fn read_numeric(&mut self, _: &str, _: usize, _: &Split) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _: EpochSummary) {}
}
