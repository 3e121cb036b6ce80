//! `--find-batch`: the largest batch that fits, and the fastest. In: a recipe. Out: a table, and the two.
//!
//! Batches are doubled, each tried in a run of a few steps, until one does not fit, holds the whole training split, or
//! takes too long. Where a recipe counts tokens, `training.tokens` is doubled instead of `training.batch_size`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::failure::{Failure, FailureKind};
use crate::report::compare::table;
use crate::report::plot;
use crate::run::memory_bytes;
use crate::session::Status;
use crate::tune::child::{self, Ended};
use crate::ui::say;

/// Steps before those that are timed: kernels are chosen in them, and buffers made.
const WARM_UP: usize = 3;
/// Least and most steps that are timed.
const TIMED: (u64, u64) = (2, 20);
/// Seconds that the timed steps should take.
const SECONDS: f64 = 3.0;
/// Seconds a step beyond which no larger batch is tried.
const LONGEST_STEP: f64 = 10.0;

/// What is doubled.
struct Sizes {
    /// `batch_size` or `tokens`, of `[training]`.
    key: &'static str,
    first: usize,
    /// The examples of the training split; not known where tokens are counted.
    all: Option<usize>,
}

/// Figures of a batch that fits.
struct Trial {
    size: usize,
    /// `tokens` or `samples`.
    unit: String,
    /// Units a second.
    rate: f64,
    /// Seconds a step.
    seconds: f64,
    /// Units of the largest step.
    largest: f64,
    /// Peak memory.
    bytes: f64,
}

/// Tries one batch after the other, and prints the results.
///
/// - args: of this program, without `--find-batch`
/// - scratch: a folder for the trials
///
/// # Errors
///
/// A recipe that is refused, or whose smallest batch fails.
pub fn find_batch(args: &[String], scratch: &Path) -> Result<Status, Failure> {
    let _listening = child::listen();
    let Some(sizes) = Sizes::of(args, scratch)? else {
        return Ok(Status::Interrupted);
    };
    let mut trials = Vec::new();
    let why = sizes.search(args, scratch, &mut trials)?;
    if child::interrupted() {
        sizes.print(&trials, "interrupted");
        return Ok(Status::Interrupted);
    }
    if trials.is_empty() {
        return Err(Failure::running(anyhow!("{why}")));
    }
    sizes.print(&trials, &why);
    Ok(Status::Done)
}

impl Sizes {
    /// What the recipe counts, and how much there is; nothing if a person requested a stop.
    fn of(args: &[String], scratch: &Path) -> Result<Option<Self>, Failure> {
        // The first log line of a run with one example a step gives their number; then it is stopped.
        const ENDLESS: u64 = 1_000_000;
        let run = scratch.join("one");
        let one = ["training.batch_size=1", "training.accumulation=1"];
        let command = arguments(args, &run, ENDLESS, &one);
        let ended = child::run(&command, || Self::read(&run).is_some());
        let ended = ended.running()?;
        match (Self::read(&run), ended.code) {
            _ if child::interrupted() => Ok(None),
            (Some(sizes), _) => Ok(Some(sizes)),
            (None, Some(2)) => Err(Failure::input(ended.reason())),
            (None, _) => Err(Failure::running(anyhow!("{}", ended.reason()))),
        }
    }

    /// The same, from the recipe and the first log line of a run with one example a step; nothing before they are written.
    fn read(run: &Path) -> Option<Self> {
        let recipe = child::recipe(run)?;
        let setting = |table: &str, key: &str| {
            let value = recipe.get(table).and_then(|table| table.get(key));
            value.and_then(toml::Value::as_integer).unwrap_or(0) as usize
        };
        if setting("training", "tokens") > 0 {
            // Fewer tokens than the longest text has are refused.
            return Some(Self {
                key: "tokens",
                first: setting("tokenizer", "max_length").max(8),
                all: None,
            });
        }
        // Without a log there is no step yet.
        let events = plot::events(run).unwrap_or_default();
        let event = events.first()?;
        let all = event["step"].as_f64()? / event["epoch"].as_f64()?;
        let all = all.round() as usize;
        Some(Self {
            key: "batch_size",
            first: all.min(8),
            all: Some(all),
        })
    }

    /// Doubles the batch, and says why it went no further.
    fn search(
        &self,
        args: &[String],
        scratch: &Path,
        trials: &mut Vec<Trial>,
    ) -> Result<String, Failure> {
        let mut size = self.first;
        loop {
            let run = scratch.join(size.to_string());
            let setting = self.setting(size);
            let command = arguments(args, &run, steps(trials), &[setting.as_str()]);
            let ended = child::run(&command, || false).running()?;
            if child::interrupted() || ended.code != Some(0) {
                return Ok(self.failure(size, &ended));
            }
            let trial = Trial::of(size, &run).running()?;
            fs::remove_dir_all(&run)
                .with_context(|| run.display().to_string())
                .running()?;
            if self.holds_no_more(&trial, trials.last()) {
                return Ok("one batch holds the whole training split".into());
            }
            let end = self.end(&trial);
            trials.push(trial);
            if let Some(why) = end {
                return Ok(why);
            }
            size = self.all.map_or(size * 2, |all| all.min(size * 2));
        }
    }

    fn setting(&self, size: usize) -> String {
        format!("training.{}={size}", self.key)
    }

    /// Why a batch is not among those that fit.
    fn failure(&self, size: usize, ended: &Ended) -> String {
        let setting = self.setting(size);
        if ended.lacked_memory() {
            format!("{setting} does not fit in memory")
        } else {
            format!("{setting} fails: {}", ended.reason())
        }
    }

    /// Whether twice the tokens gave the same batch again.
    fn holds_no_more(&self, trial: &Trial, before: Option<&Trial>) -> bool {
        // Batches of twice the tokens hold more, if only by one text; a rate times seconds is not exact.
        const MORE: f64 = 1.0 + 1e-6;
        self.all.is_none() && before.is_some_and(|before| trial.largest < MORE * before.largest)
    }

    /// Why nothing larger is tried.
    fn end(&self, trial: &Trial) -> Option<String> {
        let limit = memory_bytes().map_or(f64::INFINITY, |bytes| 0.8 * bytes as f64);
        if self.all == Some(trial.size) {
            let all = trial.size;
            return Some(format!("{all} examples are the whole training split"));
        }
        if trial.bytes > limit {
            return Some("four fifths of the memory are taken".into());
        }
        (2.0 * trial.seconds > LONGEST_STEP)
            .then(|| format!("a step of twice as much would take longer than {LONGEST_STEP} s"))
    }

    fn print(&self, trials: &[Trial], why: &str) {
        let unit = trials.first().map_or("units", |trial| trial.unit.as_str());
        let header: [String; 3] = [self.key.into(), format!("{unit}/s"), "peak MiB".into()];
        let mut rows = vec![header.to_vec()];
        rows.extend(trials.iter().map(Trial::cells));
        say(table(&rows).trim_end());
        say(&format!("stopped: {why}"));
        let fastest = trials.iter().max_by(|a, b| a.rate.total_cmp(&b.rate));
        if let (Some(largest), Some(fastest)) = (trials.last(), fastest) {
            let [largest, fastest] = [largest, fastest].map(|trial| self.setting(trial.size));
            say(&format!("largest tried that fits: --set {largest}"));
            say(&format!("fastest: --set {fastest}"));
        }
    }
}

/// The command of a run with a line of the log a step, and no validation before its last one.
fn arguments(args: &[String], run: &Path, steps: u64, settings: &[&str]) -> Vec<String> {
    const LOG: [&str; 2] = ["training.log_every=1", "training.validate_every=1000000"];
    let (run, steps) = (run.display().to_string(), steps.to_string());
    let mut all = args.to_vec();
    all.extend(["--ui", "none", "--out", &run, "--steps", &steps].map(String::from));
    for setting in LOG.iter().chain(settings) {
        all.extend(["--set", *setting].map(String::from));
    }
    all
}

/// Steps of the next trial: as many as take some seconds, if one takes twice as long as in the last trial.
fn steps(trials: &[Trial]) -> u64 {
    let (least, most) = TIMED;
    let timed = trials.last().map_or(most, |last| {
        let affordable = SECONDS / (2.0 * last.seconds);
        (affordable as u64).clamp(least, most)
    });
    WARM_UP as u64 + timed
}

impl Trial {
    /// From a run that has ended; its first steps are left out of the rate.
    fn of(size: usize, run: &Path) -> Result<Self> {
        let summary = child::summary(run);
        let summary = summary.with_context(|| format!("{}: no summary", run.display()))?;
        let events = plot::events(run)?;
        let steps: Vec<Step> = events.iter().filter_map(Step::of).collect();
        let timed = steps.get(WARM_UP..).filter(|timed| !timed.is_empty());
        let timed = timed.with_context(|| format!("a batch of {size} gives no finite loss"))?;
        let sum = |of: fn(&Step) -> f64| timed.iter().map(of).sum::<f64>();
        let seconds = sum(|step| step.seconds);
        Ok(Self {
            size,
            unit: timed[0].unit.into(),
            rate: sum(|step| step.units) / seconds,
            seconds: seconds / timed.len() as f64,
            largest: steps.iter().map(|step| step.units).fold(0.0, f64::max),
            bytes: summary["peak_memory_bytes"].as_f64().unwrap_or(0.0),
        })
    }

    fn cells(&self) -> Vec<String> {
        let mib = self.bytes / f64::from(1 << 20);
        vec![
            self.size.to_string(),
            format!("{:.0}", self.rate),
            format!("{mib:.0}"),
        ]
    }
}

/// One step of a trial.
struct Step<'a> {
    unit: &'a str,
    units: f64,
    seconds: f64,
}

impl<'a> Step<'a> {
    /// From its line of the log; nothing from that of a validation.
    fn of(event: &'a Value) -> Option<Self> {
        let timing = event["timing"].as_object()?;
        let seconds = ["data", "forward_backward", "optimizer"]
            .iter()
            .filter_map(|part| timing.get(*part)?.as_f64())
            .sum::<f64>();
        let mut figures = timing.iter();
        let (unit, rate) = figures.find_map(|(name, value)| {
            let unit = name.strip_suffix("_per_second")?;
            Some((unit, value.as_f64()?))
        })?;
        Some(Self {
            unit,
            units: rate * seconds,
            seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of steps that take so many seconds, each of them of 60 tokens.
    fn run(seconds: &[f64]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let line = |seconds: &f64| {
            let rate = 60.0 / seconds;
            format!(
                "{{\"split\":\"train\",\"timing\":{{\"data\":0.0,\"forward_backward\":{seconds},\"optimizer\":0.0,\
                 \"tokens_per_second\":{rate},\"validation\":9.0}}}}\n"
            )
        };
        let mut log: String = seconds.iter().map(line).collect();
        log.push_str("{\"split\":\"valid\",\"metrics\":{}}\n");
        fs::write(folder.path().join("metrics.jsonl"), log).unwrap();
        let summary = "{\"peak_memory_bytes\": 2097152}";
        fs::write(folder.path().join("summary.json"), summary).unwrap();
        folder
    }

    #[test]
    fn the_first_steps_are_left_out_of_the_rate() {
        let log = run(&[100.0, 50.0, 10.0, 1.0, 2.0]);
        let trial = Trial::of(8, log.path()).unwrap();
        // Two steps of 60 tokens in three seconds.
        assert!((trial.rate - 40.0).abs() < 1e-9, "{}", trial.rate);
        assert_eq!((trial.unit.as_str(), trial.seconds), ("tokens", 1.5));
        assert!((trial.largest - 60.0).abs() < 1e-9, "{}", trial.largest);
        assert_eq!(trial.cells(), ["8", "40", "2"]);
        assert!(Trial::of(8, run(&[1.0; WARM_UP]).path()).is_err());
    }

    #[test]
    fn trials_take_as_many_steps_as_some_seconds_allow() {
        let after = |seconds: f64| {
            let mut trial = Trial::of(8, run(&[1.0; 4]).path()).unwrap();
            trial.seconds = seconds;
            steps(&[trial])
        };
        let warm_up = WARM_UP as u64;
        assert_eq!(steps(&[]), warm_up + 20);
        assert_eq!(after(1e-3), warm_up + 20);
        // Of half a second each, six take three seconds.
        assert_eq!(after(0.25), warm_up + 6);
        assert_eq!(after(60.0), warm_up + 2);
    }

    #[test]
    fn the_search_ends_with_the_data_the_memory_or_patience() {
        let trial = |size, bytes, seconds| Trial {
            size,
            unit: "samples".into(),
            rate: 1.0,
            seconds,
            largest: size as f64,
            bytes,
        };
        let sizes = Sizes {
            key: "batch_size",
            first: 8,
            all: Some(100),
        };
        assert_eq!(sizes.end(&trial(64, 1.0, 1.0)), None);
        let why = |trial| sizes.end(&trial).unwrap();
        assert!(why(trial(100, 1.0, 1.0)).contains("100 examples are the whole"));
        assert!(why(trial(64, f64::INFINITY, 1.0)).contains("memory"));
        assert!(why(trial(64, 1.0, 6.0)).contains("longer than 10 s"));
        let tokens = Sizes {
            key: "tokens",
            first: 8,
            all: None,
        };
        let [small, large] = [64, 128].map(|size| trial(size, 1.0, 1.0));
        assert!(!tokens.holds_no_more(&small, None));
        assert!(!tokens.holds_no_more(&large, Some(&small)));
        assert!(tokens.holds_no_more(&small, Some(&small)));
    }
}
