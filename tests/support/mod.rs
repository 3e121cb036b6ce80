//! What tests of the trainers share: a folder of tiny data, the real binary in it, and what a run leaves.

#![allow(dead_code)] // Each test program uses a part of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tempfile::TempDir;

/// Keys of a summary that two runs of the same recipe do not share.
const VARYING: [&str; 5] = [
    "version",
    "train_seconds",
    "throughput",
    "timing",
    "peak_memory_bytes",
];

/// Settings of an `mlm` so small that a thousand steps take about a second.
const TINY_MLM: [&str; 9] = [
    "data.source=[\"texts.txt\"]",
    "data.valid=0.2",
    "tokenizer.vocab_size=150",
    "tokenizer.max_length=16",
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "model.intermediate_size=32",
    "model.max_position_embeddings=16",
    "training.batch_size=8",
];

/// Settings of a `text-classification` on the texts of [`labelled_texts`], from scratch with the bundled tokenizer, so small
/// that its 20 steps take a moment.
pub const TINY_CLASSIFIER: [&str; 13] = [
    "from=scratch",
    "data.valid=0.2",
    "data.test=0.2",
    "data.label_limit=0",
    "tokenizer.max_length=16",
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "model.intermediate_size=32",
    "model.max_position_embeddings=16",
    "training.steps=20",
    "training.batch_size=8",
    "training.log_every=2",
    "training.validate_every=5",
];

/// A table of 300 texts with a word that gives the class away.
pub fn labelled_texts(classes: &[&str]) -> String {
    let words = [["bird", "cat"], ["knife", "axe"], ["river", "sea"]];
    let row = |n: usize| {
        let word = words[n % 3][n / 3 % 2];
        format!("{n} of the old {word}s,{}\n", classes[n % classes.len()])
    };
    format!("text,label\n{}", (0..300).map(row).collect::<String>())
}

/// A trainer in a new folder, with settings that make every run of it small.
pub struct Bench {
    binary: &'static str,
    settings: Vec<String>,
    folder: TempDir,
    /// Apart from the folder: what is written there is no trace.
    cache: TempDir,
}

impl Bench {
    /// - settings: `KEY=VALUE` as for `--set`; those of a test come after them and win
    pub fn new(binary: &'static str, settings: &[&str]) -> Self {
        Self {
            binary,
            settings: settings.iter().map(|setting| setting.to_string()).collect(),
            folder: tempfile::tempdir().unwrap(),
            cache: tempfile::tempdir().unwrap(),
        }
    }

    /// A bench of a tiny `mlm` on `texts.txt`.
    ///
    /// - settings: those that differ
    pub fn mlm(binary: &'static str, settings: &[&str]) -> Self {
        Self::new(binary, &[&TINY_MLM[..], settings].concat())
    }

    /// Where the binary keeps tokens.
    pub fn cache(&self) -> &Path {
        self.cache.path()
    }

    /// `KEY=VALUE` of every run.
    pub fn settings(&self) -> &[String] {
        &self.settings
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, its folders first.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// The binary with nothing but these arguments.
    pub fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command.current_dir(self.folder.path()).args(args);
        command.env("HEARTH_CACHE", self.cache.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The binary with this bench's settings, silent unless `args` hold `--ui`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(&[]);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        if !args.contains(&"--ui") {
            command.args(["--ui", "none"]);
        }
        command.args(args);
        command
    }

    /// Trains to the end.
    pub fn train(&self, out: &str, args: &[&str]) -> Run {
        let (run, _) = self.finish(self.command(args).args(["--out", out]), out);
        run
    }

    /// Goes on with a run, to the end.
    pub fn resume(&self, out: &str) -> Run {
        let args = ["--out", out, "--resume", "--ui", "none"];
        let (run, _) = self.finish(&mut self.bare(&args), out);
        run
    }

    /// Lets a command train to the end of the run in `out`; the run, and what was printed.
    pub fn finish(&self, command: &mut Command, out: &str) -> (Run, Output) {
        let output = command.output().unwrap();
        let args: Vec<_> = command.get_args().collect();
        assert!(output.status.success(), "{args:?}: {}", message(&output));
        let run = self.run(out);
        run.assert_choice();
        (run, output)
    }

    /// Starts a run and leaves it to itself once `metrics.jsonl` has this many lines.
    pub fn start(&self, out: &str, lines: usize, args: &[&str]) -> Child {
        let child = self.command(args).args(["--out", out]).spawn().unwrap();
        let log = self.path(out).join("metrics.jsonl");
        let began = Instant::now();
        while fs::read_to_string(&log).map_or(0, |text| text.lines().count()) < lines {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "no {lines} lines"
            );
            sleep(Duration::from_millis(1));
        }
        child
    }

    pub fn run(&self, out: &str) -> Run {
        Run {
            path: self.path(out),
        }
    }

    /// Expects the exit code of wrong input, one line that holds all of `words`, and no trace in the folder.
    pub fn refuses(&self, args: &[&str], words: &[&str]) {
        self.refuses_command(self.command(args).args(["--out", "run"]), words);
    }

    /// The same for any command.
    pub fn refuses_command(&self, command: &mut Command, words: &[&str]) {
        let before = self.contents();
        let output = command.output().unwrap();
        let message = message(&output);
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.starts_with("error: "), "{args:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
        for word in words {
            assert!(message.contains(word), "{args:?}: no {word:?} in {message}");
        }
        assert!(output.stdout.is_empty(), "{args:?}: something was printed");
        assert!(self.contents() == before, "{args:?}: something was written");
    }

    /// Every file below the folder, with its bytes; folders with none.
    pub fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let bytes = if path.is_dir() {
                    Vec::new()
                } else {
                    fs::read(&path).unwrap()
                };
                if path.is_dir() {
                    folders.push(path.clone());
                }
                all.insert(path, bytes);
            }
        }
        all
    }
}

/// Command-line arguments of an objective or a task.
pub fn arguments<'a>(name: &'a str, settings: &[&'a str]) -> Vec<&'a str> {
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    std::iter::once(name).chain(settings).collect()
}

/// What a binary wrote to stderr.
pub fn message(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A run directory.
pub struct Run {
    path: PathBuf,
}

impl Run {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lines of `metrics.jsonl`, without the times, which no two runs share.
    pub fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path.join("metrics.jsonl")).unwrap();
        let event = |line| {
            let mut event: Value = serde_json::from_str(line).unwrap();
            let keys = event.as_object_mut().unwrap();
            keys.remove("timing");
            assert!(keys.remove("seconds").unwrap().as_f64().unwrap() > 0.0);
            event
        };
        text.lines().map(event).collect()
    }

    /// A metric over the events of a split.
    pub fn metric(&self, split: &str, name: &str) -> Vec<f64> {
        let events = self
            .events()
            .into_iter()
            .filter(|event| event["split"] == split);
        events
            .map(|event| event["metrics"][name].as_f64().unwrap())
            .collect()
    }

    pub fn summary(&self) -> Value {
        let text = fs::read_to_string(self.path.join("summary.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// `config.json` of the bundle.
    pub fn config(&self) -> Value {
        let config = fs::read(self.path.join("model/config.json")).unwrap();
        serde_json::from_slice(&config).unwrap()
    }

    /// The weights of the bundle, as bytes.
    pub fn weights(&self) -> Vec<u8> {
        fs::read(self.path.join("model/model.safetensors")).unwrap()
    }

    /// Names of the checkpoints, oldest first.
    pub fn checkpoints(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path.join("checkpoints")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    /// A value of the recipe that the run was started with.
    pub fn setting(&self, key: &str) -> toml::Value {
        let text = fs::read_to_string(self.path.join("recipe.toml")).unwrap();
        let recipe = toml::Value::Table(text.parse().unwrap());
        let inner = |value: toml::Value, part| value.get(part).unwrap().clone();
        key.split('.').fold(recipe, inner)
    }

    /// The events of the validation split.
    fn validations(&self) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["split"] == "valid");
        events
    }

    /// The best and the last step, and the end by patience, are what follows from `metrics.jsonl`.
    pub fn assert_choice(&self) {
        let (best, stopped) = self.choice();
        let summary = self.summary();
        assert_eq!(stopped, summary["status"] == "stopped_early");
        let last = self.validations().pop().unwrap();
        assert_eq!(summary["final"]["metrics"], last["metrics"]);
        assert_eq!(summary["best"]["step"], best["step"]);
        assert_eq!(summary["best"]["metrics"], best["metrics"]);
    }

    /// The best validation, worked out anew, and whether patience ran out; null where none has a finite value.
    fn choice(&self) -> (Value, bool) {
        let metric = self.setting("training.metric");
        let metric = metric.as_str().unwrap();
        let patience = self.setting("training.patience").as_integer().unwrap();
        let higher =
            !["loss", "perplexity", "rmse", "mae", "mse", "bits_per_byte"].contains(&metric);
        let mut best = (Value::Null, f64::NAN);
        let (mut stale, mut stopped) = (0, false);
        for event in self.validations() {
            assert!(!stopped, "a validation after patience ran out");
            let value = event["metrics"][metric].as_f64().unwrap_or(f64::NAN);
            let better = match best.0.is_null() {
                true => value.is_finite(),
                false if higher => value > best.1,
                false => value < best.1,
            };
            stale = if better { 0 } else { stale + 1 };
            if better {
                best = (event, value);
            }
            stopped = patience > 0 && stale >= patience;
        }
        (best.0, stopped)
    }

    /// Equal in everything but the time it took; both have come to their end.
    pub fn assert_equals(&self, other: &Self) {
        self.assert_choice();
        other.assert_choice();
        assert_eq!(self.events(), other.events());
        assert!(self.weights() == other.weights(), "the weights differ");
        assert_eq!(self.lasting_summary(), other.lasting_summary());
    }

    /// The summary without what varies.
    fn lasting_summary(&self) -> Map<String, Value> {
        let mut summary = self.summary();
        let summary = summary.as_object_mut().unwrap();
        for key in VARYING {
            assert!(summary.remove(key).is_some(), "the summary lacks {key}");
        }
        summary.clone()
    }
}

/// Says that a test was skipped, past libtest, which shows what a passing test prints to nobody.
pub fn skipped(why: &str) {
    let line = format!("skipped: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// What a command gives within so much time; nothing, and the process killed, where that is not enough.
pub fn output_within(command: &mut Command, limit: Duration) -> Option<Output> {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        sleep(Duration::from_millis(1));
    }
    Some(child.wait_with_output().unwrap())
}

/// `n` images of `side` x `side` as an IDX file: bright in a corner that follows from the class, `i % 3`.
pub fn idx_images(n: u32, side: u32) -> Vec<u8> {
    let mut bytes = [2051, n, side, side].map(u32::to_be_bytes).concat();
    for i in 0..n {
        for at in 0..side * side {
            let (row, column) = (at / side, at % side);
            let inside = row < side / 2 && column / (side / 3).max(1) == i % 3;
            let pixel = if inside { 250 - i % 50 } else { i * 7 % 40 };
            bytes.push(pixel as u8);
        }
    }
    bytes
}

/// The labels `i % classes` of `n` images as an IDX file.
pub fn idx_labels(n: u32, classes: u32) -> Vec<u8> {
    let mut bytes = [2049, n].map(u32::to_be_bytes).concat();
    bytes.extend((0..n).map(|i| (i % classes) as u8));
    bytes
}
