//! Searching for a setting and comparing runs, through the real binary.

use std::fs;
#[cfg(unix)]
use std::process::Child;
use std::process::{Command, Output};

use crate::support::{Bench, idx_images, idx_labels, message};
use serde_json::Value;

fn bench() -> Bench {
    let settings = [
        "tokenizer.vocab_size=100",
        "training.steps=40",
        "training.validate_every=5",
    ];
    let bench = Bench::mlm(env!("CARGO_BIN_EXE_pretrain"), &settings);
    let texts = (0..200).map(|n| format!("text number {n} of many\n"));
    bench.write("texts.txt", texts.collect::<String>());
    bench
}

/// Exit code and what was printed.
fn outcome(output: &Output) -> (Option<i32>, String) {
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code(), printed + &message(output))
}

fn sweep(bench: &Bench, args: &[&str]) -> (Option<i32>, String) {
    outcome(&sweep_command(bench, args).output().unwrap())
}

fn sweep_command(bench: &Bench, args: &[&str]) -> Command {
    let mut command = bench.bare(&["sweep"]);
    for setting in bench.settings() {
        command.args(["--set", setting]);
    }
    command.args(["--out", "sweep"]).args(args);
    command
}

/// The trials of the sweep with their recipes, by name.
fn trials(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.path("sweep")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let runs = paths.filter(|path| path.join("recipe.toml").is_file());
    let mut names: Vec<_> = runs
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A bench for `autoencoder` on images of `side` x `side`; the recipe's name goes in front of a command's arguments.
fn image_bench(side: u32, settings: &[&str]) -> Bench {
    let own = [
        "data.source=[\"images\"]",
        "data.valid=0.1",
        "data.test=0.0",
    ];
    let bench = Bench::new(
        env!("CARGO_BIN_EXE_pretrain"),
        &[&own[..], settings].concat(),
    );
    bench.write("images/images-idx3-ubyte", idx_images(90, side));
    bench.write("images/labels-idx1-ubyte", idx_labels(90, 3));
    bench
}

/// The numbers that follow a name in what was printed.
fn figures(printed: &str, name: &str) -> Vec<f64> {
    let words: Vec<&str> = printed.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == name);
    pairs.map(|pair| pair[1].parse().unwrap()).collect()
}

#[test]
fn runs_stand_side_by_side() {
    let bench = bench();
    bench.train("a", &[]);
    bench.train("b", &["--seed", "7", "--set", "optimizer.lr=0.02"]);
    let (code, printed) = outcome(
        &bench
            .bare(&["compare", "a", "b", "--plot", "both.svg"])
            .output()
            .unwrap(),
    );
    assert_eq!(code, Some(0), "{printed}");
    for words in [
        "best loss",
        "peak MiB",
        "completed",
        "optimizer.lr  0.002",
        "0.02",
        "plot: both.svg",
    ] {
        assert!(printed.contains(words), "no {words:?} in {printed}");
    }
    let svg = fs::read_to_string(bench.path("both.svg")).unwrap();
    assert!(svg.contains("loss of the validation split"));
    let json = ["compare", "a", "b", "--json", "--plot", "both.svg"];
    let (_, printed) = outcome(&bench.bare(&json).output().unwrap());
    let runs: Vec<Value> = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (&runs[1]["run"], &runs[1]["seed"]),
        (&"b".into(), &7.into())
    );
    bench.refuses_command(
        &mut bench.bare(&["compare", "a", "nowhere"]),
        &["nowhere/recipe.toml"],
    );
}

#[test]
fn a_run_leaves_its_plots() {
    let bench = bench();
    let run = bench.train("run", &[]);
    for name in ["loss", "accuracy", "learning_rate", "grad_norm"] {
        assert!(
            run.path().join(format!("plots/{name}.svg")).is_file(),
            "{name}"
        );
    }
}

#[test]
fn a_sweep_tries_every_setting_with_every_seed() {
    let bench = bench();
    let args = [
        "--try",
        "optimizer.lr=0.0,0.02",
        "--seeds",
        "1,2",
        "--no-stopping",
    ];
    let (code, printed) = sweep(&bench, &args);
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("best: --set 'optimizer.lr=0.02'"),
        "{printed}"
    );
    let results = fs::read_to_string(bench.path("sweep/results.csv")).unwrap();
    assert_eq!(results.lines().count(), 5, "{results}");
    assert_eq!(results.matches("completed").count(), 4, "{results}");
    assert!(bench.path("sweep/results.svg").is_file());
    // The value in the table is that of the runs.
    let losses = [1, 2].map(|seed| {
        let run = bench.run(&format!("sweep/optimizer.lr=0.02_seed={seed}"));
        run.assert_choice();
        run.summary()["best"]["metrics"]["loss"].as_f64().unwrap()
    });
    let mean = train::metrics::short((losses[0] + losses[1]) / 2.0);
    let row = printed
        .lines()
        .find(|line| line.starts_with("optimizer.lr=0.02 "))
        .unwrap();
    assert!(row.contains(&mean), "{row}: {mean}");
    // Again: nothing is run, the result is the same.
    let log = bench.path("sweep/optimizer.lr=0.02_seed=1/metrics.jsonl");
    let before = fs::metadata(&log).unwrap().modified().unwrap();
    assert_eq!(sweep(&bench, &args), (code, printed));
    assert_eq!(fs::metadata(&log).unwrap().modified().unwrap(), before);
}

/// Waits until a run has so many lines in its log.
#[cfg(unix)]
fn wait_for(bench: &Bench, run: &str, lines: usize) {
    let log = bench.path(run).join("metrics.jsonl");
    wait_until(|| fs::read_to_string(&log).map_or(0, |text| text.lines().count()) >= lines);
}

#[cfg(unix)]
fn wait_until(come: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !come() {
        assert!(began.elapsed() < std::time::Duration::from_secs(60));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_from_the_terminal_loses_no_state_however_slow_the_steps() {
    use std::os::unix::process::CommandExt;
    let bench = bench();
    // A step takes longer than the sweep looks away.
    let args = [
        "--try",
        "optimizer.lr=0.01,0.02",
        "--set",
        "training.steps=10",
        "--set",
        "training.accumulation=256",
        "--set",
        "training.log_every=1",
        "--no-stopping",
    ];
    let mut command = sweep_command(&bench, &args);
    let child = command.process_group(0).spawn().unwrap();
    wait_for(&bench, "sweep/optimizer.lr=0.02_seed=1", 1);
    // As a terminal does: to the sweep and to all that it shares its group with.
    // SAFETY: a signal to the group of a child that has not been waited for.
    unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGINT) };
    let (code, printed) = outcome(&child.wait_with_output().unwrap());
    assert!(
        code == Some(130) && printed.contains("goes on"),
        "{printed}"
    );
    let trial = bench.run("sweep/optimizer.lr=0.02_seed=1");
    assert_eq!(trial.summary()["status"], "interrupted");
    assert!(!trial.checkpoints().is_empty());
    // What ended before is written down already.
    let results = fs::read_to_string(bench.path("sweep/results.csv")).unwrap();
    let rows: Vec<_> = results.lines().collect();
    assert!(
        rows.len() == 2 && rows[1].starts_with("\"optimizer.lr=0.01\",1,\"completed\","),
        "{results}"
    );
    assert!(!bench.path("sweep/.results.csv.new").exists());
}

#[cfg(unix)]
#[test]
fn a_second_interrupt_ends_the_sweep_and_its_trial_at_once() {
    use std::io::{BufRead, BufReader};
    use train::run::{Existing, RunDir};
    let bench = bench();
    // A step takes minutes.
    let slow = [
        "training.accumulation=4096",
        "training.batch_size=128",
        "model.hidden_size=128",
        "model.intermediate_size=512",
    ];
    let slow = slow.iter().flat_map(|setting| ["--set", setting]);
    let args: Vec<&str> = ["--try", "optimizer.lr=0.01"]
        .into_iter()
        .chain(slow)
        .collect();
    let mut child = sweep_command(&bench, &args).spawn().unwrap();
    let interrupt = |child: &Child| {
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    };
    // Whoever runs has the run locked.
    let path = bench.path("sweep/optimizer.lr=0.01_seed=1");
    let run = || RunDir::check(&path, Existing::Resume).unwrap();
    let lock = || run().claim(Existing::Resume);
    // A trial that logs listens to interrupts.
    wait_until(|| path.join("experiment.log").is_file());
    interrupt(&child);
    let mut told = String::new();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    errors.read_line(&mut told).unwrap();
    assert!(told.contains("Ctrl-C again"), "{told}");
    assert!(lock().is_err(), "the first interrupt ended the trial");
    interrupt(&child);
    let (code, printed) = outcome(&child.wait_with_output().unwrap());
    assert!(
        code == Some(130) && printed.contains("goes on"),
        "{printed}"
    );
    lock().unwrap();
    assert!(!path.join("summary.json").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_sweep_goes_on() {
    let bench = bench();
    let args = [
        "--try",
        "optimizer.lr=0.01,0.02",
        "--set",
        "training.steps=2000",
        "--no-stopping",
    ];
    let child = sweep_command(&bench, &args).spawn().unwrap();
    wait_for(&bench, "sweep/optimizer.lr=0.01_seed=1", 5);
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let (code, printed) = outcome(&child.wait_with_output().unwrap());
    assert!(
        code == Some(130) && printed.contains("goes on"),
        "{printed}"
    );
    let (code, printed) = sweep(&bench, &args);
    assert_eq!(code, Some(0), "{printed}");
    let results = fs::read_to_string(bench.path("sweep/results.csv")).unwrap();
    assert_eq!(results.matches("completed").count(), 2, "{results}");
}

#[cfg(unix)]
#[test]
fn the_median_stops_a_trial_that_is_behind() {
    let bench = bench();
    let args = [
        "--try",
        "optimizer.lr=0.02,0.01,0.0",
        "--set",
        "training.steps=3000",
    ];
    let (code, printed) = sweep(&bench, &args);
    assert_eq!(code, Some(0), "{printed}");
    let results = fs::read_to_string(bench.path("sweep/results.csv")).unwrap();
    let row = results
        .lines()
        .find(|line| line.contains("optimizer.lr=0.0\""))
        .unwrap();
    assert!(row.contains("stopped_by_median"), "{results}");
    let stopped = bench.run("sweep/optimizer.lr=0.0_seed=1").summary();
    assert!(stopped["steps"].as_u64().unwrap() < 3000);
    // Once no trial is to be stopped, it goes on to its end.
    let (code, printed) = sweep(&bench, &[&args[..], &["--no-stopping"]].concat());
    assert_eq!(code, Some(0), "{printed}");
    let results = fs::read_to_string(bench.path("sweep/results.csv")).unwrap();
    assert_eq!(results.matches("completed").count(), 3, "{results}");
    let whole = bench.run("sweep/optimizer.lr=0.0_seed=1").summary();
    assert_eq!(whole["steps"], 3000);
}

#[test]
fn a_sweep_is_not_mixed_with_one_of_other_arguments() {
    let bench = bench();
    let tries = ["--try", "optimizer.lr=0.01"];
    let (code, first) = sweep(&bench, &tries);
    assert_eq!(code, Some(0), "{first}");
    let other = [
        "--set",
        "training.steps=20",
        "--set",
        "model.hidden_size=32",
    ];
    let other = [&tries[..], &other].concat();
    bench.refuses_command(
        &mut sweep_command(&bench, &other),
        &["--set was nothing and is training.steps=20 model.hidden_size=32"],
    );
    for (flag, value) in [("--data", "texts.txt"), ("--steps", "20")] {
        let other = [&tries[..], &[flag, value]].concat();
        let words = format!("{flag} was nothing and is {value}");
        bench.refuses_command(&mut sweep_command(&bench, &other), &[words.as_str()]);
    }
    // The same again is the same again, and more values are more trials.
    assert_eq!(sweep(&bench, &tries), (Some(0), first));
    let (code, printed) = sweep(&bench, &["--try", "optimizer.lr=0.01,0.02"]);
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(trials(&bench).len(), 2);
    fs::remove_file(bench.path("sweep/sweep.toml")).unwrap();
    bench.refuses_command(&mut sweep_command(&bench, &tries), &["sweep/sweep.toml"]);
}

#[test]
fn a_sweep_is_not_mixed_with_one_of_an_older_recipe() {
    let bench = bench();
    let args = ["mine.toml", "--try", "optimizer.lr=0.01"];
    bench.write("mine.toml", "objective = \"mlm\"\nseed = 1\n");
    let (code, printed) = sweep(&bench, &args);
    assert_eq!(code, Some(0), "{printed}");
    bench.write("mine.toml", "objective = \"mlm\"\nseed = 2\n");
    bench.refuses_command(
        &mut sweep_command(&bench, &args),
        &["recipe was of SHA-256 "],
    );
}

#[test]
fn settings_that_read_alike_are_trials_of_their_own() {
    let bench = bench();
    let (code, printed) = sweep(&bench, &["--try", "data.text=\"a b\",\"a_b\""]);
    assert_eq!(code, Some(0), "{printed}");
    let read = trials(&bench)
        .iter()
        .map(|name| bench.run(&format!("sweep/{name}")).setting("data.text"))
        .map(|text| text.as_str().unwrap().to_string())
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!(read.into_iter().collect::<Vec<_>>(), ["a b", "a_b"]);
}

#[test]
fn one_bad_setting_does_not_end_a_sweep() {
    let bench = bench();
    let (code, printed) = sweep(&bench, &["--try", "model.num_attention_heads=1,3,2"]);
    assert_eq!(code, Some(0), "{printed}");
    let results = fs::read_to_string(bench.path("sweep/results.csv")).unwrap();
    let rows: Vec<_> = results.lines().collect();
    assert_eq!(rows.len(), 4, "{results}");
    for (row, status) in [
        (rows[1], "completed"),
        (rows[2], "3 attention heads do not divide a width of 16"),
        (rows[3], "completed"),
    ] {
        assert!(row.contains(status), "{row}");
    }
    let row = |heads: u32| {
        let start = format!("model.num_attention_heads={heads} ");
        let found = printed.lines().find(|line| line.starts_with(&start));
        found.unwrap().split_whitespace().collect::<Vec<_>>()
    };
    // Seeds that ran to their end, and those that did not.
    assert!(row(3).ends_with(&["0", "1"]), "{printed}");
    assert!(row(2).ends_with(&["1", "0"]), "{printed}");
    assert!(
        printed.contains("best: --set 'model.num_attention_heads="),
        "{printed}"
    );
}

#[test]
fn sweeps_that_are_refused_or_fail() {
    let bench = bench();
    for (values, words) in [
        ("optimizer.lr", "--try optimizer.lr: it must be KEY=VALUE"),
        ("optimizer.lrr=1", "no recipe key \"optimizer.lrr\""),
        ("optimizer.lr=-1", "optimizer.lr is -1"),
    ] {
        let (code, printed) = sweep(&bench, &["--try", values]);
        assert!(
            code == Some(2) && printed.contains(words),
            "{values}: {printed}"
        );
    }
    // All of them together are wrong input too, and the first is told.
    let (code, printed) = sweep(&bench, &["--try", "optimizer.lr=-1,-2"]);
    let told =
        "error: every trial is refused, the first by: --set optimizer.lr=-1: optimizer.lr is -1";
    assert!(code == Some(2) && printed.contains(told), "{printed}");
    // What training starts from has to be there.
    let from = ["--try", "optimizer.lr=0.01", "--from", "runs/mlm"];
    let (code, printed) = sweep(&bench, &from);
    assert!(
        code == Some(2) && printed.contains("runs/mlm: is no bundle: no such directory"),
        "{printed}"
    );
    assert!(trials(&bench).is_empty());
}

/// What `--find-batch` printed.
struct Found {
    printed: String,
    /// Sizes and rates of the table.
    rows: Vec<(usize, f64)>,
}

impl Found {
    fn of(command: &mut Command) -> Self {
        let (code, printed) = outcome(&command.output().unwrap());
        assert_eq!(code, Some(0), "{printed}");
        let table = printed.lines().skip(1);
        let row = |line: &str| {
            let mut cells = line.split_whitespace();
            let size = cells.next().unwrap().parse::<usize>().unwrap();
            (size, cells.next().unwrap().parse::<f64>().unwrap())
        };
        let rows = table.take_while(|line| !line.starts_with("stopped: "));
        let rows = rows.map(row).collect();
        Self { printed, rows }
    }

    fn sizes(&self) -> Vec<usize> {
        self.rows.iter().map(|(size, _)| *size).collect()
    }

    /// The setting that is told after some words.
    fn told(&self, words: &str, key: &str) -> usize {
        let start = format!("{words}: --set training.{key}=");
        let line = self.printed.lines().find_map(|l| l.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {start:?} in {}", self.printed))
            .parse()
            .unwrap()
    }

    /// The largest is the last of the table, the fastest the one with the highest rate.
    fn assert_answers(&self, key: &str) {
        let (largest, _) = self.rows.last().unwrap();
        assert_eq!(self.told("largest tried that fits", key), *largest);
        let fastest = self.told("fastest", key);
        let rate = |size| self.rows.iter().find(|row| row.0 == size).unwrap().1;
        let highest = self.rows.iter().map(|row| row.1).fold(0.0, f64::max);
        assert_eq!(rate(fastest), highest, "{}", self.printed);
    }
}

#[test]
fn batches_of_texts_are_doubled_up_to_the_whole_training_split() {
    let bench = bench();
    let wrong = [
        "--find-batch",
        "--set",
        "optimizer.lr=-1",
        "--set",
        &bench.settings()[0],
    ];
    bench.refuses_command(&mut bench.bare(&wrong), &["optimizer.lr is -1"]);
    // With one text a step, an epoch has as many steps as there are texts.
    let one = bench.train("one", &["--set", "training.batch_size=1", "--steps", "1"]);
    let texts = (1.0 / one.summary()["epochs"].as_f64().unwrap()).round() as usize;
    assert!(128 < texts && texts < 200, "{texts}");
    let found = Found::of(&mut find_batch(
        &bench,
        &["--set", "training.accumulation=2"],
    ));
    assert!(
        found.printed.starts_with("batch_size  tokens/s  peak MiB"),
        "{}",
        found.printed
    );
    assert_eq!(found.sizes(), [8, 16, 32, 64, 128, texts]);
    let why = format!("\nstopped: {texts} examples are the whole training split\n");
    assert!(found.printed.contains(&why), "{}", found.printed);
    found.assert_answers("batch_size");
}

/// `--find-batch` with the bench's settings.
fn find_batch(bench: &Bench, args: &[&str]) -> Command {
    let mut command = bench.bare(args);
    for setting in bench.settings() {
        command.args(["--set", setting]);
    }
    command.arg("--find-batch");
    command
}

#[test]
fn where_tokens_are_counted_they_are_doubled() {
    let bench = bench();
    let found = Found::of(&mut find_batch(&bench, &["--set", "training.tokens=64"]));
    let printed = &found.printed;
    assert!(printed.starts_with("tokens  tokens/s"), "{printed}");
    assert!(!printed.contains("batch_size"), "{printed}");
    // From the longest text that the recipe allows. The training texts, between 129 and 199 of 7 to 10 tokens each,
    // are more than 512 tokens and at most 2048.
    let sizes = found.sizes();
    assert_eq!(sizes[..6], [16, 32, 64, 128, 256, 512]);
    assert!([1024, 2048].contains(sizes.last().unwrap()), "{printed}");
    let why = "stopped: one batch holds the whole training split";
    assert!(printed.contains(why), "{printed}");
    found.assert_answers("tokens");
}

/// With images of 128 x 128, 64 of them take more than [`MEMORY`], and 8 do not.
#[cfg(target_os = "linux")]
const LARGE: [&str; 2] = ["model.channels=[256]", "model.latent_size=4"];
/// What a process may map: half of it goes to the allocator's and the threads' reserves.
#[cfg(target_os = "linux")]
const MEMORY: libc::rlim_t = 7 << 28;

#[cfg(target_os = "linux")]
#[test]
fn batches_are_doubled_until_one_does_not_fit() {
    let bench = image_bench(128, &LARGE);
    let mut command = find_batch(&bench, &["autoencoder"]);
    crate::limit::limit_memory(&mut command, MEMORY);
    let found = Found::of(&mut command);
    let sizes = found.sizes();
    assert!([8usize, 16, 32].starts_with(&sizes), "{}", found.printed);
    let next = 2 * sizes.last().unwrap();
    let why = format!("stopped: training.batch_size={next} does not fit in memory\n");
    assert!(found.printed.contains(&why), "{}", found.printed);
    found.assert_answers("batch_size");
}

#[cfg(target_os = "linux")]
#[test]
fn an_experiment_that_runs_out_of_memory_says_so() {
    let bench = image_bench(128, &LARGE);
    let batch = ["--set", "training.batch_size=64", "--out", "runs/v1.2"];
    for probe in ["--overfit-batch", "--find-lr"] {
        let mut command = bench.command(&["autoencoder", probe]);
        command.args(batch);
        crate::limit::limit_memory(&mut command, MEMORY);
        let output = command.output().unwrap();
        let message = message(&output);
        assert_eq!(output.status.code(), Some(1), "{probe}: {message}");
        assert_eq!(message.lines().count(), 1, "{probe}: {message}");
        assert!(
            message.starts_with("error: out of memory") && !message.contains("--resume"),
            "{probe}: {message}"
        );
    }
}

#[test]
fn a_batch_is_learnt_when_its_loss_is_nearly_gone() {
    let bench = bench();
    let probe = |args: &[&str]| {
        let own = ["--overfit-batch", "--set", "optimizer.lr=0.01"];
        outcome(&bench.command(&[&own[..], args].concat()).output().unwrap())
    };
    let (code, printed) = probe(&[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.starts_with("one batch is learnt in"), "{printed}");
    let (loss, accuracy) = (figures(&printed, "loss"), figures(&printed, "accuracy"));
    // Four digits are printed.
    assert!(loss[1] < 0.0101 * loss[0], "{printed}");
    assert_eq!(accuracy[1], 1.0, "{printed}");
    // With a tenth of each target spread over all tokens, no loss comes near 0: -ln 0.9 is 0.105.
    let (code, printed) = probe(&["--set", "loss.label_smoothing=0.1"]);
    assert_eq!(code, Some(0), "{printed}");
    let (loss, accuracy) = (figures(&printed, "loss"), figures(&printed, "accuracy"));
    assert!(loss[1] < 0.2, "{printed}");
    assert_eq!(accuracy[1], 1.0, "{printed}");
}

#[test]
fn a_batch_of_grey_images_is_learnt_by_its_squared_error() {
    let settings = [
        "model.channels=[4]",
        "model.latent_size=8",
        "noise.gaussian=0.0",
        "noise.masking=0.0",
        "augment.shift=0",
        "training.batch_size=8",
    ];
    let bench = image_bench(8, &settings);
    let args = [
        "autoencoder",
        "--overfit-batch",
        "--set",
        "optimizer.lr=0.02",
    ];
    let (code, printed) = outcome(&bench.command(&args).output().unwrap());
    assert_eq!(code, Some(0), "{printed}");
    let (loss, mse) = (figures(&printed, "loss"), figures(&printed, "mse"));
    assert!(mse[1] < 0.0101 * mse[0], "{printed}");
    // The entropy of the pixels stays.
    assert!(loss[1] > 0.1 * loss[0], "{printed}");
}

#[test]
fn parameters_that_cannot_learn_are_named() {
    let bench = bench();
    let frozen = "optimizer.groups=[{pattern=\"embeddings\", frozen=true}]";
    let embeddings = "bert.embeddings.position_embeddings.weight";
    let layer = "bert.encoder.layer.0.attention.self.query.weight";
    for (setting, what, names, absent) in [
        // Everything that leaves a layer is dropped, so nothing comes back to it.
        (
            "model.dropout=0.999999",
            "have no gradient: ",
            &[embeddings, layer][..],
            "cls.predictions.transform.LayerNorm.bias",
        ),
        (frozen, "are frozen: ", &[embeddings][..], layer),
        (
            "optimizer.unfreeze_every=500",
            "train only after step 500: ",
            &[embeddings, layer][..],
            "cls.predictions.transform.dense.weight",
        ),
    ] {
        let args = ["--overfit-batch", "--set", "optimizer.lr=1e-6"];
        let args = [&args[..], &["--set", setting]].concat();
        let (code, printed) = outcome(&bench.command(&args).output().unwrap());
        assert_eq!(code, Some(1), "{printed}");
        assert!(
            printed.contains("error: one batch is not learnt in 500 steps"),
            "{printed}"
        );
        let start = format!("these parameters {what}");
        let line = printed.lines().find_map(|l| l.strip_prefix(&start));
        let told: Vec<_> = line.expect(&printed).split(", ").collect();
        for name in names {
            assert!(told.contains(name), "{name}: {printed}");
        }
        assert!(!told.contains(&absent), "{absent}: {printed}");
    }
}

#[test]
fn experiments_speak_json_if_asked_and_plots_keep_the_whole_name() {
    let bench = bench();
    let json = |args: &[&str]| -> Value {
        let args = [args, &["--ui", "json", "--out", "runs/v1.2"]].concat();
        let (code, printed) = outcome(&bench.command(&args).output().unwrap());
        assert_eq!(code, Some(0), "{printed}");
        serde_json::from_str(&printed).unwrap()
    };
    let found = json(&["--find-lr"]);
    assert_eq!(found["plot"], "runs/v1.2.find-lr.svg");
    let files = fs::read_dir(bench.path("runs")).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["v1.2.find-lr.svg"]);
    let first = &found["points"][0];
    assert_eq!(first["lr"], 1e-6);
    assert!(first["loss"].as_f64().unwrap() > 1.0, "{found}");
    let suggestion = found["suggestion"].as_f64().unwrap();
    assert!((1e-5..1.0).contains(&suggestion), "{found}");
    let learnt = json(&["--overfit-batch", "--set", "optimizer.lr=0.01"]);
    assert_eq!(learnt["learnt"], true);
    assert_eq!(learnt["last"]["accuracy"], 1.0);
    for kind in ["frozen", "late", "silent"] {
        assert_eq!(learnt[kind], Value::Array(Vec::new()), "{kind}");
    }
}
