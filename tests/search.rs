//! Searching for a setting and comparing runs, through the real binary.

#![allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.

mod support;

use std::fs;
use std::process::Output;

use serde_json::Value;
use support::{Bench, message};

const SETTINGS: [&str; 11] = [
    "data.source=[\"texts.txt\"]",
    "data.valid=0.2",
    "tokenizer.vocab_size=100",
    "tokenizer.max_length=16",
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "model.intermediate_size=32",
    "model.max_position_embeddings=16",
    "training.steps=40",
    "training.batch_size=8",
    "training.validate_every=5",
];

fn bench() -> Bench {
    let bench = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &SETTINGS);
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
    let mut command = bench.bare(&["sweep"]);
    for setting in SETTINGS {
        command.args(["--set", setting]);
    }
    outcome(
        &command
            .args(["--out", "sweep"])
            .args(args)
            .output()
            .unwrap(),
    )
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
    let mut command = bench.bare(&["sweep"]);
    for setting in SETTINGS {
        command.args(["--set", setting]);
    }
    let child = command.args(["--out", "sweep"]).args(args).spawn().unwrap();
    let log = bench.path("sweep/optimizer.lr=0.01_seed=1/metrics.jsonl");
    let began = std::time::Instant::now();
    while fs::read_to_string(&log).map_or(0, |text| text.lines().count()) < 5 {
        assert!(began.elapsed() < std::time::Duration::from_secs(60));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
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
}

#[test]
fn batches_are_doubled_until_they_get_no_faster() {
    let bench = bench();
    let wrong = [
        "--find-batch",
        "--set",
        "optimizer.lr=-1",
        "--set",
        SETTINGS[0],
    ];
    bench.refuses_command(&mut bench.bare(&wrong), &["optimizer.lr is -1"]);
    let mut command = bench.bare(&["--find-batch"]);
    for setting in SETTINGS
        .iter()
        .filter(|setting| !setting.contains("batch_size"))
    {
        command.args(["--set", setting]);
    }
    let (code, printed) = outcome(&command.output().unwrap());
    assert_eq!(code, Some(0), "{printed}");
    for words in [
        "batch_size",
        "\n8 ",
        "stopped: ",
        "fastest: --set training.batch_size=",
    ] {
        assert!(printed.contains(words), "no {words:?} in {printed}");
    }
}
