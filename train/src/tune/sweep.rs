//! `sweep`: tries settings of a recipe, each with every seed. In: values by key. Out: a table, a plot, the best setting.
//!
//! Trials are runs of this program, one after the other. The same command again goes on where it was stopped: trials
//! that ended are kept, one that was interrupted is resumed. A trial that does worse than the median of the ended ones
//! is stopped early, as in Golovin et al. 2017, <https://dl.acm.org/doi/10.1145/3097983.3098043>.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use rand::seq::SliceRandom;
use serde_json::Value;

use crate::failure::Failure;
use crate::launch::Status;
use crate::metrics::{higher_is_better, short};
use crate::report::compare::table;
use crate::report::plot;
use crate::run::write_atomically;
use crate::tune::child;

/// Flags of `sweep`.
#[derive(Args, Clone, Debug)]
pub struct SweepArgs {
    /// A built-in recipe or a TOML file
    #[arg(value_name = "RECIPE")]
    pub recipe: Option<String>,
    /// Values of one key to try: optimizer.lr=1e-3,3e-3; may be repeated
    #[arg(long = "try", value_name = "KEY=VALUE,...", required = true)]
    pub tries: Vec<String>,
    /// Seeds that each setting is tried with
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1")]
    pub seeds: Vec<u64>,
    /// One key of the recipe, for all trials; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Data to read instead of the recipe's; may be repeated
    #[arg(long, value_name = "PATH")]
    pub data: Vec<String>,
    /// The directory of the trials
    #[arg(long, value_name = "DIR", default_value = "runs/sweep")]
    pub out: PathBuf,
    /// That many settings, drawn at random, instead of all
    #[arg(long, value_name = "N")]
    pub random: Option<usize>,
    /// Validations before a trial may be stopped by the median
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub grace: usize,
    /// Let every trial run to its end
    #[arg(long)]
    pub no_stopping: bool,
    /// cuda, metal, vulkan, wgpu, flex or ndarray
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
}

/// Assignments, one a key: `optimizer.lr=1e-3`.
type Setting = Vec<String>;

/// One setting with one seed.
struct Trial {
    setting: Setting,
    seed: u64,
    run: PathBuf,
}

/// What became of a trial.
struct Outcome {
    setting: Setting,
    seed: u64,
    status: String,
    /// The best value of the deciding metric.
    best: Option<f64>,
}

/// A file in a trial that the median stopped.
const STOPPED: &str = "stopped_by_median";

/// Runs every trial that has not ended yet, and tells what came of all.
///
/// # Errors
///
/// A value that is no list of a key, a recipe that is refused, or no trial that ends well.
pub fn sweep(args: &SweepArgs) -> Result<Status, Failure> {
    let settings = settings(&args.tries, args.random)?;
    fs::create_dir_all(&args.out).map_err(Failure::running)?;
    child::listen().map_err(Failure::Running)?;
    let mut outcomes = Vec::new();
    let mut curves: Vec<Vec<(f64, f64)>> = Vec::new();
    let n = settings.len() * args.seeds.len();
    for setting in &settings {
        for &seed in &args.seeds {
            let trial = Trial::new(args, setting, seed);
            let outcome = trial.end(args, &curves)?;
            if child::interrupted() {
                println!("interrupted; the same command goes on");
                return Ok(Status::Interrupted);
            }
            let best = outcome.best.map_or("-".into(), short);
            println!(
                "{:>3}/{n} {} {} {best}",
                outcomes.len() + 1,
                trial.name(),
                outcome.status
            );
            if outcome.status == "completed" || outcome.status == "stopped_early" {
                curves.push(trial.curve().unwrap_or_default());
            }
            outcomes.push(outcome);
        }
    }
    tell(args, &outcomes)
}

/// All combinations, or so many of them in random order.
fn settings(tries: &[String], random: Option<usize>) -> Result<Vec<Setting>, Failure> {
    let mut all: Vec<Setting> = vec![Vec::new()];
    for values in tries {
        let parts = values
            .split_once('=')
            .map(|(key, values)| (key.trim(), list(values)));
        let Some((key, values)) = parts.filter(|(_, values)| values.iter().all(|v| !v.is_empty()))
        else {
            return Err(Failure::input(format!(
                "--try {values}: it must be KEY=VALUE,VALUE,..."
            )));
        };
        let with = |setting: &Setting| -> Vec<Setting> {
            let more = |value: &String| [&setting[..], &[format!("{key}={value}")]].concat();
            values.iter().map(more).collect()
        };
        all = all.iter().flat_map(with).collect();
    }
    if let Some(n) = random {
        // Which are drawn is a function of what is tried, so that the same command finds its trials again.
        let mut rng = data::order::rng(0, data::order::Stream::Sample, all.len() as u64);
        all.shuffle(&mut rng);
        all.truncate(n);
    }
    Ok(all)
}

/// Commas part values, but not those in brackets or quotes.
fn list(values: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for c in values.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            _ => {}
        }
        match (c, depth, quoted, parts.last_mut()) {
            (',', 0, false, _) => parts.push(String::new()),
            (c, _, _, Some(part)) => part.push(c),
            _ => {}
        }
    }
    parts.iter().map(|part| part.trim().into()).collect()
}

impl Trial {
    fn new(args: &SweepArgs, setting: &Setting, seed: u64) -> Self {
        let mut trial = Self {
            setting: setting.clone(),
            seed,
            run: PathBuf::new(),
        };
        trial.run = args.out.join(trial.name());
        trial
    }

    /// A directory name that tells the setting.
    fn name(&self) -> String {
        let plain = |c: char| {
            if c.is_alphanumeric() || "=.-_+".contains(c) {
                c
            } else {
                '_'
            }
        };
        let setting: String = self.setting.join("_").chars().map(plain).collect();
        format!("{setting}_seed={}", self.seed)
    }

    /// Runs it, unless it has ended before.
    fn end(&self, args: &SweepArgs, others: &[Vec<(f64, f64)>]) -> Result<Outcome, Failure> {
        let status = child::summary(&self.run).map(|summary| summary["status"].clone());
        let stopped = self.run.join(STOPPED).exists();
        let ended = matches!(
            status.as_ref().and_then(Value::as_str),
            Some("completed" | "stopped_early")
        );
        if ended || stopped {
            return Ok(self.outcome(None));
        }
        let resumed = self.run.join("recipe.toml").is_file();
        let look = || !args.no_stopping && self.is_behind(others, args.grace);
        let mut behind = false;
        let ended = child::run(&self.arguments(args, resumed), || {
            behind = behind || look();
            behind
        });
        let ended = ended.map_err(Failure::Running)?;
        if ended.code == Some(2) {
            let message = ended.message.trim_start_matches("error: ").to_string();
            return Err(Failure::input(message));
        }
        if behind && ended.code == Some(130) {
            let mark = self.run.join(STOPPED);
            fs::write(&mark, "").map_err(Failure::running)?;
        }
        let failed = !matches!(ended.code, Some(0 | 130));
        Ok(self.outcome(failed.then_some(ended.message)))
    }

    fn arguments(&self, args: &SweepArgs, resumed: bool) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: String| all.extend([name.to_string(), value]);
        flag("--out", self.run.display().to_string());
        flag("--ui", "none".into());
        if let Some(backend) = &args.backend {
            flag("--backend", backend.clone());
        }
        if resumed {
            all.push("--resume".into());
        } else {
            for data in &args.data {
                flag("--data", data.clone());
            }
            for assignment in args.set.iter().chain(&self.setting) {
                flag("--set", assignment.clone());
            }
            flag("--seed", self.seed.to_string());
        }
        all.extend(args.recipe.clone());
        all
    }

    fn metric(&self) -> Result<String> {
        let path = self.run.join("recipe.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let recipe: toml::Table = text.parse()?;
        let metric = recipe
            .get("training")
            .and_then(|training| training.get("metric"));
        Ok(metric
            .and_then(toml::Value::as_str)
            .unwrap_or("loss")
            .into())
    }

    /// The best value of the deciding metric so far, by step, so that less is better.
    fn curve(&self) -> Result<Vec<(f64, f64)>> {
        let metric = self.metric()?;
        let sign = if higher_is_better(&metric) { -1.0 } else { 1.0 };
        let mut best = f64::INFINITY;
        let mut curve = plot::curve(&plot::events(&self.run)?, "valid", "metrics", &metric);
        for (_, value) in &mut curve {
            best = best.min(sign * *value);
            *value = best;
        }
        Ok(curve)
    }

    /// Whether its best is worse than the median of the others' best at the same step.
    fn is_behind(&self, others: &[Vec<(f64, f64)>], grace: usize) -> bool {
        // Half a line of a log that is being written is no reason to stop.
        let curve = self.curve().unwrap_or_default();
        let Some(&(step, best)) = curve.last() else {
            return false;
        };
        let at = |curve: &Vec<(f64, f64)>| {
            let before = curve.iter().rfind(|(at, _)| *at <= step);
            before.map(|(_, value)| *value)
        };
        let values: Vec<f64> = others.iter().filter_map(at).collect();
        curve.len() > grace && median(values).is_some_and(|median| best > median)
    }

    fn outcome(&self, failure: Option<String>) -> Outcome {
        let summary = child::summary(&self.run).unwrap_or_default();
        let status = match (failure, self.run.join(STOPPED).exists()) {
            (Some(message), _) => format!("failed ({message})"),
            (None, true) => STOPPED.into(),
            (None, false) => summary["status"].as_str().unwrap_or("failed").into(),
        };
        let metric = self.metric().unwrap_or_default();
        Outcome {
            setting: self.setting.clone(),
            seed: self.seed,
            status,
            best: summary["best"]["metrics"][metric].as_f64(),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[n / 2]),
        n => Some((values[n / 2 - 1] + values[n / 2]) / 2.0),
    }
}

/// The best values of a setting's trials that ran to their end.
struct Row<'a> {
    setting: &'a Setting,
    values: Vec<f64>,
    stopped: usize,
}

impl Row<'_> {
    fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    /// Of the sample; 0 of a single value.
    fn deviation(&self) -> f64 {
        let (mean, n) = (self.mean(), self.values.len());
        let squares: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / (n.max(2) - 1) as f64).sqrt()
    }
}

fn tell(args: &SweepArgs, outcomes: &[Outcome]) -> Result<Status, Failure> {
    write_results(args, outcomes).map_err(Failure::Running)?;
    let Some(first) = outcomes.iter().find(|outcome| outcome.best.is_some()) else {
        let why = outcomes
            .first()
            .map_or("nothing to try", |outcome| &outcome.status);
        return Err(Failure::running(anyhow::anyhow!(
            "no trial ended well: {why}"
        )));
    };
    let metric = Trial::new(args, &first.setting, first.seed).metric();
    let metric = metric.map_err(Failure::Running)?;
    let mut by_setting: BTreeMap<&Setting, Row> = BTreeMap::new();
    for outcome in outcomes {
        let fresh = Row {
            setting: &outcome.setting,
            values: Vec::new(),
            stopped: 0,
        };
        let row = by_setting.entry(&outcome.setting).or_insert(fresh);
        match (outcome.status.as_str(), outcome.best) {
            ("completed" | "stopped_early", Some(best)) => row.values.push(best),
            _ => row.stopped += 1,
        }
    }
    let mut rows: Vec<Row> = by_setting.into_values().collect();
    let sign = if higher_is_better(&metric) { -1.0 } else { 1.0 };
    // A mean of nothing comes last.
    let rank = |row: &Row| match row.mean() {
        mean if mean.is_nan() => f64::INFINITY,
        mean => sign * mean,
    };
    rows.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let header = ["setting", &metric, "deviation", "seeds", "not to the end"];
    let mut cells = vec![header.map(String::from).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let [mean, deviation] = [row.mean(), row.deviation()].map(short);
        let counts = [row.values.len(), row.stopped].map(|n| n.to_string());
        [
            vec![row.setting.join(" "), mean, deviation],
            counts.to_vec(),
        ]
        .concat()
    }));
    print!("\n{}", table(&cells));
    if let Some(best) = rows.first().filter(|row| !row.values.is_empty()) {
        let flags: Vec<_> = best
            .setting
            .iter()
            .map(|value| format!("--set '{value}'"))
            .collect();
        println!("\nbest: {}", flags.join(" "));
    }
    overlay(args, outcomes, &metric).map_err(Failure::Running)?;
    Ok(Status::Done)
}

/// `results.csv`: a row a trial.
fn write_results(args: &SweepArgs, outcomes: &[Outcome]) -> Result<()> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut csv = String::from("setting,seed,status,best\n");
    for Outcome {
        setting,
        seed,
        status,
        best,
    } in outcomes
    {
        let best = best.map_or(String::new(), |best| best.to_string());
        csv.push_str(&format!(
            "{},{seed},{},{best}\n",
            quoted(&setting.join(" ")),
            quoted(status)
        ));
    }
    let path = args.out.join("results.csv");
    write_atomically(&path, csv.as_bytes()).with_context(|| path.display().to_string())
}

fn overlay(args: &SweepArgs, outcomes: &[Outcome], metric: &str) -> Result<()> {
    let mut runs = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.best.is_some()) {
        let trial = Trial::new(args, &outcome.setting, outcome.seed);
        runs.push((trial.name(), plot::events(&trial.run)?));
    }
    let path: &Path = &args.out.join("results.svg");
    if plot::overlay(metric, &runs, path)? {
        println!("plot: {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(all: &[&str]) -> Vec<String> {
        all.iter().map(|values| values.to_string()).collect()
    }

    #[test]
    fn settings_are_all_combinations() {
        let all = settings(&tries(&["a.b=1,2", "c=[3,4],\"x,y\""]), None).unwrap();
        let expected = [
            ["a.b=1", "c=[3,4]"],
            ["a.b=1", "c=\"x,y\""],
            ["a.b=2", "c=[3,4]"],
            ["a.b=2", "c=\"x,y\""],
        ];
        assert_eq!(all, expected);
        let drawn = settings(&tries(&["a=1,2,3,4,5"]), Some(2)).unwrap();
        assert_eq!(drawn, settings(&tries(&["a=1,2,3,4,5"]), Some(2)).unwrap());
        assert_eq!(drawn.len(), 2);
        for wrong in ["a", "a=", "a=1,,2"] {
            assert!(settings(&tries(&[wrong]), None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn medians_and_deviations() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let setting = Vec::new();
        let row = |values: &[f64]| Row {
            setting: &setting,
            values: values.to_vec(),
            stopped: 0,
        };
        // Mean 3, squares 4 + 1 + 9 = 14 over 2.
        assert_eq!(row(&[1.0, 2.0, 6.0]).deviation(), 7f64.sqrt());
        assert_eq!(row(&[5.0]).deviation(), 0.0);
    }
}
