//! The end of a session: the test split, the summary, the plots, the last lines.

use std::sync::Arc;

use burn::tensor::backend::AutodiffBackend;
use serde_json::{Map, Value, json};

use crate::backend::BackendName;
use crate::checkpoint::Position;
use crate::engine::session::Status;
use crate::engine::training_loop::{Ending, Judged, TrainingLoop, judge};
use crate::failure::{self, Failure, FailureKind};
use crate::metrics::{Metric, short};
use crate::objective::{Objective, Trainable, Trainee};
use crate::recipe::ComputePrecision;
use crate::report::plot;
use crate::run::{self, Event, RunDir};
use crate::source::{BatchSource, Unit};
use crate::ui::{self, Console};

/// Judges and writes down a run that has stopped.
pub(super) struct Finish<'a> {
    pub(super) name: &'a str,
    pub(super) seed: u64,
    pub(super) backend: BackendName,
    /// All, and those that train.
    pub(super) parameters: [usize; 2],
    pub(super) unit: Unit,
    /// What validation reports.
    pub(super) metrics: &'static [Metric],
    pub(super) run: Option<&'a RunDir>,
}

impl Finish<'_> {
    pub(super) fn close<B, O, S>(
        &self,
        training: &TrainingLoop<B, O>,
        test: Option<Arc<S>>,
    ) -> Result<Status, Failure>
    where
        B: AutodiffBackend,
        O: Trainable<B>,
        S: BatchSource<Batch = <O as Objective<B>>::Batch>,
    {
        let mut state = training.state();
        if let Some(trace) = state.trace.take() {
            trace.finish().running()?;
        }
        let ending = state.ending.take();
        let ending = ending.unwrap_or_else(|| Err(anyhow::anyhow!("the training never began")));
        let status = match &ending {
            Ok(Ending::Completed) => "completed",
            Ok(Ending::StoppedEarly) => "stopped_early",
            Ok(Ending::Interrupted) => "interrupted",
            Err(_) => "failed",
        };
        let done = matches!(ending, Ok(Ending::Completed | Ending::StoppedEarly));
        let tested = match (test, state.best.take()) {
            (Some(test), Some(best)) if done => {
                let judged = failure::caught(|| judge_test::<B, O, S>(&test, best));
                Some(judged.running()?)
            }
            _ => None,
        };
        if let Some(Judged {
            metrics, details, ..
        }) = &tested
        {
            let step = state.position.step;
            let epoch = step as f64 / training.plan.steps_per_epoch as f64;
            let event = Event {
                seconds: state.position.seconds,
                details: details.clone(),
                ..Event::new(step, epoch, "test", metrics.clone())
            };
            state.log.append(&event).running()?;
            state.console.validated(&event, false);
        }
        let summary = self.summary(status, &state.position, training, &tested);
        self.write(&summary, done, &state.console)?;
        self.say(&state.console, status, &state.position);
        match ending {
            Ok(Ending::Interrupted) => Ok(Status::Interrupted),
            Ok(_) => Ok(Status::Done),
            Err(error) => Err(Failure::Running(error)),
        }
    }

    /// The summary and the plots of a run.
    fn write(&self, summary: &Value, done: bool, console: &Console) -> Result<(), Failure> {
        let Some(run) = self.run else {
            return Ok(());
        };
        let written = run.write("summary.json", format!("{summary:#}\n").as_bytes());
        // A full disk has one error worth printing: the one that stopped the training.
        if done {
            written.running()?;
        }
        // Plots are for looking at: a full disk has its error already.
        if let Err(error) = plot::run_plots(run.path()) {
            console.warn_outside(&format!("no plots: {error:#}"));
        }
        Ok(())
    }

    fn summary<B: AutodiffBackend, O: Trainable<B>>(
        &self,
        status: &str,
        position: &Position,
        training: &TrainingLoop<B, O>,
        tested: &Option<Judged>,
    ) -> Value {
        let [total, trainable] = self.parameters;
        let rate = position.real as f64 / position.timing.steps().max(1e-9);
        let throughput = match self.unit {
            Unit::Tokens => json!({"real_tokens_per_second": rate}),
            Unit::Samples => json!({self.unit.rate(): rate}),
        };
        let better = self.metrics.iter();
        let better = better.map(|metric| (metric.name.to_string(), json!(metric.better)));
        let mut summary = json!({
            "status": status,
            "recipe": self.name,
            "seed": self.seed,
            "backend": self.backend.name(),
            "version": env!("CARGO_PKG_VERSION"),
            "steps": position.step,
            "epochs": position.step as f64 / training.plan.steps_per_epoch as f64,
            "train_seconds": position.seconds,
            "parameters": {"total": total, "trainable": trainable},
            "throughput": throughput,
            "padding_fraction": 1.0 - position.real as f64 / position.padded.max(1) as f64,
            "timing": position.timing,
            "peak_memory_bytes": run::peak_memory_bytes(),
            "skipped_steps": position.watch.skipped,
            "rollbacks": position.watch.rollbacks,
            "better": better.collect::<Map<_, _>>(),
            "best": position.best,
            "final": {"metrics": position.last},
        });
        if let (Some(summary), Some(tested)) = (summary.as_object_mut(), tested) {
            let mut test = json!({"metrics": tested.metrics});
            if let (Some(test), Some(details)) = (test.as_object_mut(), &tested.details) {
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

fn judge_test<B, O, S>(test: &Arc<S>, best: O::InnerModule) -> Judged
where
    B: AutodiffBackend,
    O: Trainable<B>,
    S: BatchSource<Batch = <O as Objective<B>>::Batch>,
{
    let mut batches = (0..test.batches_per_epoch()).map(|number| test.batch(number));
    judge::<B, O>(&Trainee::new(best, ComputePrecision::F32), &mut batches)
}
