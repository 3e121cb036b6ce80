//! What a person sees while training: burn-train's dashboard, plain lines, JSON lines, or nothing.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use burn::train::Interrupter;
use burn::train::metric::MetricDefinition;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};

use crate::failure::Failure;
use crate::metrics::{Metrics, short};
use crate::run::Event;
use crate::terminal;

/// `--ui`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Ui {
    /// burn-train's dashboard.
    Tui,
    /// A line a report.
    Plain,
    /// The lines of metrics.jsonl.
    Json,
    /// Nothing but the summary.
    None,
}

impl Ui {
    /// The choice of the command line; without one the dashboard on a terminal, plain lines elsewhere.
    pub fn choose(asked: Option<Ui>) -> Ui {
        use std::io::IsTerminal;
        asked.unwrap_or(if std::io::stdout().is_terminal() {
            Ui::Tui
        } else {
            Ui::Plain
        })
    }
}

/// Prints what the training loop reports.
pub struct Console {
    ui: Ui,
    began: Instant,
    first: Option<u64>,
}

impl Console {
    /// A console that has printed nothing.
    pub fn new(ui: Ui) -> Self {
        Self {
            ui,
            began: Instant::now(),
            first: None,
        }
    }

    /// After some steps.
    pub fn trained(&mut self, event: &Event, metrics: &Metrics, total: u64) {
        // By the speed of this process: a resumed run may have begun on another machine.
        let first = *self.first.get_or_insert(event.step);
        let done = event.step - first;
        let left = (total - event.step) as f64;
        let left = match done {
            0 => "--".to_string(),
            done => duration(self.began.elapsed().as_secs_f64() / done as f64 * left),
        };
        if done == 0 {
            self.began = Instant::now();
        }
        match self.ui {
            Ui::Plain => say(&format!(
                "step {:>6}/{total} {} epoch {:.2}  {}  {left} left",
                event.step,
                bar(event.step, total),
                event.epoch,
                figures(metrics),
            )),
            Ui::Json => json(event),
            Ui::Tui | Ui::None => {}
        }
    }

    /// After a validation.
    pub fn validated(&mut self, event: &Event, better: bool) {
        match self.ui {
            Ui::Plain => say(&format!(
                "{:<5}{:>6}  {}{}",
                event.split,
                event.step,
                figures(&event.metrics),
                if better { "  (best)" } else { "" },
            )),
            Ui::Json => json(event),
            Ui::Tui | Ui::None => {}
        }
    }

    /// A warning while training goes on; on standard error, so that standard output is JSON alone.
    pub fn warn(&self, text: &str) {
        tracing::warn!("{text}");
        // The dashboard has the screen.
        if self.ui != Ui::Tui {
            self.warn_outside(text);
        }
    }

    /// The same before or after the training, where no dashboard has the screen.
    pub fn warn_outside(&self, text: &str) {
        if self.ui != Ui::None {
            eprintln!("warning: {text}");
        }
    }

    /// A progress callback that prints at most every ten seconds.
    pub fn now_and_then<T: std::fmt::Display>(&self) -> impl Fn(T) + Sync + '_ {
        let last = Mutex::new(Instant::now());
        move |what| {
            let mut last = last.lock().unwrap_or_else(|e| e.into_inner());
            if last.elapsed() > Duration::from_secs(10) {
                self.note(&what.to_string());
                *last = Instant::now();
            }
        }
    }

    /// A sentence before or after training; kept out of JSON and of silence.
    pub fn note(&self, text: &str) {
        if matches!(self.ui, Ui::Plain | Ui::Tui) {
            say(text);
        }
    }
}

/// Prints what a command was asked for. A closed pipe, as that of `| head`, has seen enough.
///
/// # Errors
///
/// Whatever else keeps it from being written, as a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::running(
            anyhow::Error::new(error).context("standard output"),
        )),
        _ => Ok(()),
    }
}

/// Prints a line, or several. A closed pipe ends the printing, not the work.
pub fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn json(event: &Event) {
    if let Ok(line) = serde_json::to_string(event) {
        say(&line);
    }
}

/// `loss 6.703  accuracy 0.113`, the loss first and the rates last.
pub fn figures(metrics: &Metrics) -> String {
    let rank = |name: &str| match name {
        "loss" => 0,
        "lr" => 2,
        name if name.ends_with("_per_second") => 3,
        _ => 1,
    };
    let mut names: Vec<_> = metrics.iter().collect();
    names.sort_by_key(|(name, _)| rank(name));
    let figures = names
        .iter()
        .map(|(name, value)| match name.strip_suffix("_per_second") {
            Some(unit) => format!("{value:.0} {unit}/s"),
            None => format!("{name} {}", short(**value)),
        });
    figures.collect::<Vec<_>>().join("  ")
}

fn bar(done: u64, total: u64) -> String {
    const WIDTH: u64 = 20;
    let full = done * WIDTH / total.max(1);
    let percent = done * 100 / total.max(1);
    let (full, empty) = (full as usize, (WIDTH - full.min(WIDTH)) as usize);
    format!("[{}{}] {percent:>3} %", "=".repeat(full), " ".repeat(empty))
}

/// `2m 05s`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m {s:02}s"),
        (h, m, _) => format!("{h}h {m:02}m"),
    }
}

/// The dashboard's thread polls without sleeping; at the lowest priority it takes only time that is left over.
///
/// - from: steps of earlier processes, which are left out of its estimate of the time left
pub fn dashboard(interrupter: Interrupter, from: u64) -> TuiMetricsRendererWrapper {
    let start = move || {
        #[cfg(target_os = "linux")]
        // SAFETY: setpriority takes no pointers; on Linux, 0 names the calling thread, which its children follow.
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        }
        TuiMetricsRendererWrapper::new(interrupter, Some(from as usize))
    };
    let started = terminal::keep_interrupts(|| std::thread::spawn(start).join());
    match started {
        Ok(wrapper) => wrapper,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Renders nothing: the console prints from the training loop, where the figures are complete.
pub struct Silent;

impl MetricsRendererTraining for Silent {
    fn update_train(&mut self, _: MetricState) {}
    fn update_valid(&mut self, _: MetricState) {}
    fn render_train(&mut self, _: TrainingProgress, _: Vec<ProgressType>) {}
    fn render_valid(&mut self, _: TrainingProgress, _: Vec<ProgressType>) {}
}

impl MetricsRendererEvaluation for Silent {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
    fn render_test(&mut self, _: EvaluationProgress, _: Vec<ProgressType>) {}
}

impl MetricsRenderer for Silent {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _: MetricDefinition) {}
}
