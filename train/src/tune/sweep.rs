//! `sweep`: tries settings of a recipe, each with every seed. In: values by key. Out: a table, a plot, the best setting.
//!
//! Trials are runs of this program, one after the other. The same command again goes on where it was stopped: trials
//! that ended are kept, one that was interrupted is resumed; more values or seeds add trials. What all of them share is
//! kept beside them, and a sweep that shares something else is refused. A trial that fails is one row of the table. A
//! trial that does worse than the median of the ended ones is stopped early, as in Golovin et al. 2017,
//! <https://dl.acm.org/doi/10.1145/3097983.3098043>.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use crate::failure::{Failure, FailureKind};
use crate::metrics::{Better, short};
use crate::report::compare::table;
use crate::report::plot;
use crate::run::write_atomically;
use crate::session::Status;
use crate::tune::child::{self, Ended};
use crate::ui::say;

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
    /// What training starts from: a bundle, a run, a bundled model, or scratch
    #[arg(long, value_name = "BUNDLE_OR_RUN")]
    pub from: Option<String>,
    /// Optimizer steps of each trial, instead of the recipe's
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
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

/// The outcome of a trial.
struct Outcome {
    setting: Setting,
    seed: u64,
    status: String,
    /// The best value of the deciding metric.
    best: Option<f64>,
    /// Which of its values are better, if the run says so.
    better: Option<Better>,
    /// Why its input was wrong, if it was.
    refused: Option<String>,
}

/// The trials that ran to their end, whose median a running one is compared with.
#[derive(Default)]
struct Finished {
    /// Which values of the deciding metric are better.
    better: Option<Better>,
    /// The best value so far, by step, so that less is better.
    curves: Vec<Vec<(f64, f64)>>,
}

impl Finished {
    fn add(&mut self, trial: &Trial, outcome: &Outcome) {
        self.better = self.better.or(outcome.better);
        let curve = self.better.and_then(|better| trial.curve(better).ok());
        self.curves.extend(curve);
    }
}

/// A file in a trial that the median stopped.
const STOPPED: &str = "stopped_by_median";

/// Runs every trial that has not ended yet, and prints the results of all.
///
/// # Errors
///
/// A value that is no list of a key, a folder with trials of other arguments, or no trial that ends well; that is wrong
/// input if every single trial is refused.
pub fn sweep(args: &SweepArgs) -> Result<Status, Failure> {
    let trials = trials(args)?;
    claim(args)?;
    let _listening = child::listen();
    let mut outcomes = Vec::new();
    let mut finished = Finished::default();
    let n = trials.len();
    for trial in &trials {
        let outcome = trial.end(args, &finished)?;
        if child::interrupted() {
            say("interrupted; the same command goes on");
            return Ok(Status::Interrupted);
        }
        let best = outcome.best.map_or("-".into(), short);
        let (at, name) = (outcomes.len() + 1, trial.name());
        say(&format!("{at:>3}/{n} {name} {} {best}", outcome.status));
        if outcome.ran_to_its_end() {
            finished.add(trial, &outcome);
        }
        outcomes.push(outcome);
        write_results(args, &outcomes).running()?;
    }
    print(args, &outcomes)
}

/// Every setting with every seed, each once.
fn trials(args: &SweepArgs) -> Result<Vec<Trial>, Failure> {
    let mut trials: Vec<Trial> = Vec::new();
    for setting in settings(&args.tries, args.random)? {
        for &seed in &args.seeds {
            let trial = Trial::new(args, &setting, seed);
            if trials.iter().all(|other| other.run != trial.run) {
                trials.push(trial);
            }
        }
    }
    Ok(trials)
}

/// What all trials of a sweep share: values by flag.
type Shared = BTreeMap<String, Vec<String>>;

/// The file beside the trials that holds what they share.
const SHARED: &str = "sweep.toml";

/// Keeps what the trials share, or refuses to mix them with trials of other arguments.
fn claim(args: &SweepArgs) -> Result<(), Failure> {
    let now = shared(args)?;
    let path = args.out.join(SHARED);
    let place = path.display();
    if !holds_runs(&args.out)? {
        // A command that was refused is no reason to refuse the corrected one.
        fs::create_dir_all(&args.out).running()?;
        let text = toml::to_string(&now).running()?;
        let written = write_atomically(&path, text.as_bytes());
        return written.with_context(|| place.to_string()).running();
    }
    let text = fs::read_to_string(&path).map_err(|error| {
        Failure::input(format!(
            "{place}: {error}, so it is not known what the runs beside it share; choose another --out"
        ))
    })?;
    let then: Shared = toml::from_str(&text)
        .map_err(|error| Failure::input(format!("{place}: not valid TOML: {}", error.message())))?;
    match differences(&then, &now) {
        none if none.is_empty() => Ok(()),
        some => Err(Failure::input(format!(
            "{}: its trials have other arguments: {}; choose another --out",
            args.out.display(),
            some.join(", ")
        ))),
    }
}

/// What all trials share.
fn shared(args: &SweepArgs) -> Result<Shared, Failure> {
    let program = std::env::current_exe().running()?;
    let program = program
        .file_stem()
        .unwrap_or_default()
        .display()
        .to_string();
    let mut recipe: Vec<String> = args.recipe.iter().cloned().collect();
    if let Some(path) = args
        .recipe
        .as_deref()
        .filter(|path| Path::new(path).is_file())
    {
        // A recipe that is edited between two sweeps is another recipe.
        let text = fs::read(path).with_context(|| path.to_string());
        let text = text.input()?;
        recipe.push(format!("of SHA-256 {:x}", Sha256::digest(text)));
    }
    Ok([
        ("program", vec![program]),
        ("recipe", recipe),
        ("--set", args.set.clone()),
        ("--data", args.data.clone()),
        ("--from", args.from.iter().cloned().collect()),
        ("--steps", args.steps.iter().map(u64::to_string).collect()),
        ("--backend", args.backend.iter().cloned().collect()),
    ]
    .map(|(flag, values)| (flag.to_string(), values))
    .into())
}

/// Whether there are runs in a folder.
fn holds_runs(folder: &Path) -> Result<bool, Failure> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        entries => entries.with_context(|| folder.display().to_string()),
    };
    for entry in entries.input()? {
        if entry.input()?.path().join("recipe.toml").is_file() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A clause for each flag whose values are not those of before.
fn differences(then: &Shared, now: &Shared) -> Vec<String> {
    let flags: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let values = |all: &Shared, flag: &String| all.get(flag).cloned().unwrap_or_default();
    let clause = |flag: &String| {
        let (was, is) = (values(then, flag), values(now, flag));
        let only = |these: &[String], those: &[String]| {
            let own = these.iter().filter(|value| !those.contains(value));
            match own.cloned().collect::<Vec<_>>() {
                none if none.is_empty() => "nothing".to_string(),
                own => own.join(" "),
            }
        };
        match (only(&was, &is), only(&is, &was)) {
            _ if was == is => None,
            (gone, new) if gone == new => Some(format!("{flag} was in another order")),
            (gone, new) => Some(format!("{flag} was {gone} and is {new}")),
        }
    };
    flags.into_iter().filter_map(clause).collect()
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

    /// A directory name by which a person knows the setting, and that no other setting has.
    fn name(&self) -> String {
        const LONGEST: usize = 120;
        let is_plain_char = |c: char| c.is_ascii_alphanumeric() || "=.-_+".contains(c);
        let plain = |c: char| if is_plain_char(c) { c } else { '_' };
        let whole = self.setting.join("_");
        let readable: String = whole.chars().map(plain).take(LONGEST).collect();
        let digest = if readable == whole && self.setting.iter().all(|a| is_plain(a)) {
            String::new()
        } else {
            // What the name leaves out of the setting.
            format!("_{:x}", Sha256::digest(self.setting.join("\n")))
        };
        let digest: String = digest.chars().take(9).collect();
        format!("{readable}{digest}_seed={}", self.seed)
    }

    /// Runs it, unless it has ended before.
    fn end(&self, args: &SweepArgs, others: &Finished) -> Result<Outcome, Failure> {
        let stopped = self.run.join(STOPPED);
        if self.is_done() || (stopped.exists() && !args.no_stopping) {
            return Ok(self.outcome(None));
        }
        if stopped.exists() {
            // Now that no trial is stopped it runs to its end too.
            fs::remove_file(&stopped).running()?;
        }
        let resumed = self.run.join("recipe.toml").is_file();
        let look = || !args.no_stopping && self.is_behind(others, args.grace);
        let mut behind = false;
        let ended = child::run(&self.arguments(args, resumed), || {
            behind = behind || look();
            behind
        });
        let ended = ended.running()?;
        if behind && ended.code == Some(130) {
            fs::write(&stopped, "").running()?;
        }
        Ok(self.outcome(Some(ended)))
    }

    /// Whether it ran to its end before.
    fn is_done(&self) -> bool {
        let summary = child::summary(&self.run).unwrap_or_default();
        summary["status"].as_str().is_some_and(is_end)
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
            // As a setting: the flags would win over what is tried.
            let from = args.from.iter().cloned().map(toml::Value::String);
            let from = from.map(|from| format!("from={from}"));
            let steps = args.steps.iter();
            let steps = steps.map(|steps| format!("training.steps={steps}"));
            let shared = args.set.iter().cloned().chain(from).chain(steps);
            for assignment in shared.chain(self.setting.iter().cloned()) {
                flag("--set", assignment);
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
    fn curve(&self, better: Better) -> Result<Vec<(f64, f64)>> {
        let metric = self.metric()?;
        let sign = better.sign();
        let mut best = f64::INFINITY;
        let mut curve = plot::valid(&plot::events(&self.run)?, &metric);
        for (_, value) in &mut curve {
            best = best.min(sign * *value);
            *value = best;
        }
        Ok(curve)
    }

    /// Whether its best is worse than the median of the others' best at the same step.
    fn is_behind(&self, others: &Finished, grace: usize) -> bool {
        let Some(better) = others.better else {
            return false;
        };
        // Half a line of a log that is being written is no reason to stop.
        let curve = self.curve(better).unwrap_or_default();
        let Some(&(step, best)) = curve.last() else {
            return false;
        };
        let at = |curve: &Vec<(f64, f64)>| {
            let before = curve.iter().rfind(|(at, _)| *at <= step);
            before.map(|(_, value)| *value)
        };
        let values: Vec<f64> = others.curves.iter().filter_map(at).collect();
        curve.len() > grace && median(values).is_some_and(|median| best > median)
    }

    /// Its outcome; with how the process ended, if it ran now.
    fn outcome(&self, ended: Option<Ended>) -> Outcome {
        let summary = child::summary(&self.run).unwrap_or_default();
        let failed = ended.filter(|ended| !matches!(ended.code, Some(0 | 130)));
        let status = match &failed {
            Some(ended) => format!("failed ({})", ended.reason()),
            None if self.run.join(STOPPED).exists() => STOPPED.into(),
            None => summary["status"].as_str().unwrap_or("failed").into(),
        };
        let refused = failed.filter(|ended| ended.code == Some(2));
        let metric = self.metric().unwrap_or_default();
        Outcome {
            setting: self.setting.clone(),
            seed: self.seed,
            status,
            best: summary["best"]["metrics"][&metric].as_f64(),
            better: Better::of_run(&summary, &metric),
            refused: refused.map(|ended| ended.reason()),
        }
    }
}

impl Outcome {
    /// Whether its best is to be compared.
    fn ran_to_its_end(&self) -> bool {
        is_end(&self.status) && self.best.is_some()
    }
}

/// Whether a run with this status needs no more steps.
fn is_end(status: &str) -> bool {
    matches!(status, "completed" | "stopped_early")
}

/// Whether nothing in a value could be taken for the end of it in a directory name.
fn is_plain(assignment: &str) -> bool {
    let value = assignment.split_once('=').map_or("", |(_, value)| value);
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
    value.chars().all(plain)
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
    /// Trials that did not.
    others: usize,
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

    fn cells(&self) -> Vec<String> {
        let [mean, deviation] = [self.mean(), self.deviation()].map(short);
        let [seeds, others] = [self.values.len(), self.others].map(|n| n.to_string());
        vec![self.setting.join(" "), mean, deviation, seeds, others]
    }
}

fn print(args: &SweepArgs, outcomes: &[Outcome]) -> Result<Status, Failure> {
    let Some(first) = outcomes.iter().find(|outcome| outcome.ran_to_its_end()) else {
        return Err(no_result(outcomes));
    };
    let metric = Trial::new(args, &first.setting, first.seed).metric();
    let metric = metric.running()?;
    let rows = rows(outcomes, first.better);
    let header = ["setting", &metric, "deviation", "seeds", "not to the end"];
    let mut cells = vec![header.map(String::from).to_vec()];
    cells.extend(rows.iter().map(Row::cells));
    say(&format!("\n{}", table(&cells).trim_end()));
    if let (Some(best), Some(_)) = (rows.first(), first.better) {
        let flags = best.setting.iter().map(|value| format!("--set '{value}'"));
        say(&format!("\nbest: {}", flags.collect::<Vec<_>>().join(" ")));
    }
    overlay(args, outcomes, &metric, first.better).running()?;
    Ok(Status::Done)
}

/// Why there is no best setting: wrong input, if that alone kept every trial from running.
fn no_result(outcomes: &[Outcome]) -> Failure {
    let refusals: Option<Vec<_>> = outcomes
        .iter()
        .map(|outcome| outcome.refused.as_ref())
        .collect();
    match (refusals.as_deref(), outcomes.first()) {
        (Some([only]), _) => Failure::input(only),
        (Some([first, ..]), _) => {
            Failure::input(format!("every trial is refused, the first by: {first}"))
        }
        (None, Some(first)) => Failure::running(anyhow!("no trial ended well: {}", first.status)),
        _ => Failure::input("there is nothing to try"),
    }
}

/// A row a setting, the best first if it is known which values are better.
fn rows(outcomes: &[Outcome], better: Option<Better>) -> Vec<Row<'_>> {
    let mut by_setting: BTreeMap<&Setting, Row> = BTreeMap::new();
    for outcome in outcomes {
        let fresh = Row {
            setting: &outcome.setting,
            values: Vec::new(),
            others: 0,
        };
        let row = by_setting.entry(&outcome.setting).or_insert(fresh);
        match outcome.best.filter(|_| outcome.ran_to_its_end()) {
            Some(best) => row.values.push(best),
            None => row.others += 1,
        }
    }
    let mut rows: Vec<Row> = by_setting.into_values().collect();
    let Some(better) = better else {
        return rows;
    };
    // A mean of nothing comes last.
    let rank = |row: &Row| match row.mean() {
        mean if mean.is_nan() => f64::INFINITY,
        mean => better.sign() * mean,
    };
    rows.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    rows
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
        ..
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

fn overlay(
    args: &SweepArgs,
    outcomes: &[Outcome],
    metric: &str,
    better: Option<Better>,
) -> Result<()> {
    let mut runs = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.best.is_some()) {
        let trial = Trial::new(args, &outcome.setting, outcome.seed);
        let curve = plot::valid(&plot::events(&trial.run)?, metric);
        runs.push((trial.name(), curve));
    }
    let path: &Path = &args.out.join("results.svg");
    if plot::overlay(metric, better, runs, path)? {
        say(&format!("plot: {}", path.display()));
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

    fn arguments(flags: &[&str]) -> SweepArgs {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            sweep: SweepArgs,
        }
        let flags = ["sweep", "--try", "a=1"].iter().chain(flags);
        <Program as clap::Parser>::parse_from(flags).sweep
    }

    #[test]
    fn no_two_settings_share_a_directory() {
        let args = arguments(&[]);
        let name = |setting: &[&str]| Trial::new(&args, &tries(setting), 7).name();
        assert_eq!(name(&["a.b=1e-3", "c_d=x"]), "a.b=1e-3_c_d=x_seed=7");
        let alike = [
            name(&["a=\"x y\""]),
            name(&["a=\"x_y\""]),
            name(&["a=_x_y_"]),
            name(&["a=1_b=3", "b=2"]),
            name(&["a=1", "b=3_b=2"]),
            name(&[format!("a={}", "x".repeat(200)).as_str()]),
            name(&[format!("a={}", "x".repeat(201)).as_str()]),
        ];
        let different: BTreeSet<_> = alike.iter().collect();
        assert_eq!(different.len(), alike.len(), "{alike:?}");
        assert!(alike.iter().all(|name| name.len() < 150), "{alike:?}");
    }

    #[test]
    fn the_same_trial_is_run_once() {
        let args = arguments(&["--try", "b=2,2,3", "--seeds", "1,1"]);
        let names: Vec<_> = trials(&args).unwrap().iter().map(Trial::name).collect();
        assert_eq!(names, ["a=1_b=2_seed=1", "a=1_b=3_seed=1"]);
    }

    #[test]
    fn what_trials_share_is_named_where_it_differs() {
        let of = |flags: &[&str]| shared(&arguments(flags)).unwrap();
        let then = of(&["--set", "a=1", "--set", "b=2"]);
        let found = |flags: &[&str]| differences(&then, &of(flags));
        assert!(found(&["--set", "a=1", "--set", "b=2", "--seeds", "1,2"]).is_empty());
        assert_eq!(
            found(&["--set", "a=1", "--set", "c=3", "--from", "x"]),
            ["--from was nothing and is x", "--set was b=2 and is c=3"]
        );
        let turned = found(&["--set", "b=2", "--set", "a=1"]);
        assert_eq!(turned, ["--set was in another order"]);
    }

    #[test]
    fn every_trial_gets_what_they_share_until_it_goes_on() {
        let args = arguments(&["mlm", "--from", "runs/a", "--steps", "9", "--set", "b=2"]);
        let trial = Trial::new(&args, &tries(&["a=1"]), 7);
        let command = |resumed| trial.arguments(&args, resumed).join(" ");
        let fresh = "--set b=2 --set from=\"runs/a\" --set training.steps=9 --set a=1 --seed 7 mlm";
        assert!(command(false).ends_with(fresh), "{}", command(false));
        assert!(command(true).ends_with("--ui none --resume mlm"));
    }

    #[test]
    fn wrong_input_is_what_all_trials_have_in_common_or_none() {
        let outcome = |code| {
            let trial = Trial::new(&arguments(&["--out", "nowhere"]), &tries(&["a=1"]), 7);
            let errors = "error: a is 1".to_string();
            trial.outcome(Some(Ended { code, errors }))
        };
        let code = |all: &[Outcome]| no_result(all).exit_code();
        assert_eq!(code(&[outcome(Some(2)), outcome(Some(2))]), 2);
        assert_eq!(code(&[outcome(Some(2)), outcome(Some(1))]), 1);
        assert_eq!(code(&[]), 2);
        let alone = no_result(&[outcome(Some(2))]);
        assert_eq!(alone.to_string(), "a is 1");
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
            others: 0,
        };
        // Mean 3, squares 4 + 1 + 9 = 14 over 2.
        assert_eq!(row(&[1.0, 2.0, 6.0]).deviation(), 7f64.sqrt());
        assert_eq!(row(&[5.0]).deviation(), 0.0);
    }
}
