//! `pretrain` as its users meet it: what a run leaves, how it stops and goes on, what it refuses.
//!
//! Every test drives the real binary on texts or images that it makes.

use std::fs;

use crate::support::{Bench, Run, idx_images, idx_labels, message};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use train::BackendName;
use train::recipe::Draft;

/// A bench for `mlm`: a thousand steps take about a second.
fn bench() -> Bench {
    let bench = Bench::mlm(
        env!("CARGO_BIN_EXE_pretrain"),
        &[
            "training.steps=20",
            "training.log_every=2",
            "training.validate_every=5",
        ],
    );
    bench.write("texts.txt", texts());
    bench
}

/// What `--ui plain` prints, on either stream.
fn plain(bench: &Bench, args: &[&str]) -> String {
    let output = bench.command(&[args, &["--ui", "plain"]].concat()).output();
    let output = output.unwrap();
    let printed = message(&output) + &String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    printed
}

fn texts() -> String {
    let sizes = ["small", "large", "very old"];
    let kinds = ["bird", "tool", "plant", "river", "metal"];
    let places = ["in the water", "near a town", "on the wall", "of the north"];
    let line = |n: usize| format!("a {} {} {}\n", sizes[n % 3], kinds[n % 5], places[n % 4]);
    let numbered = |n: usize| format!("{n} {}", line(n));
    (0..300).map(numbered).collect()
}

/// A bench for `autoencoder`; the recipe's name goes in front of a command's arguments.
fn image_bench() -> Bench {
    let bench = Bench::new(
        env!("CARGO_BIN_EXE_pretrain"),
        &[
            "data.source=[\"images\"]",
            "data.valid=0.2",
            "model.channels=[4]",
            "model.latent_size=8",
            "training.steps=20",
            "training.batch_size=8",
            "training.log_every=2",
            "training.validate_every=5",
        ],
    );
    bench.write("images/images-idx3-ubyte", idx_images(120, 8));
    bench.write("images/labels-idx1-ubyte", idx_labels(120, 3));
    bench
}

// What a run leaves.

#[test]
fn a_run_leaves_its_directory() {
    let bench = bench();
    let run = bench.train("run", &[]);
    for file in [
        "recipe.toml",
        "metrics.jsonl",
        "summary.json",
        "experiment.log",
        "checkpoints/step-00000020/model.safetensors",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
    ] {
        assert!(run.path().join(file).is_file(), "{file}");
    }
    assert_summary(&run, "mlm", "real_tokens_per_second", "perplexity");
}

#[test]
fn an_autoencoder_leaves_the_same() {
    let bench = image_bench();
    let run = bench.train("run", &["autoencoder"]);
    for file in [
        "recipe.toml",
        "model/config.json",
        "model/model.safetensors",
        "model/preprocessor_config.json",
    ] {
        assert!(run.path().join(file).is_file(), "{file}");
    }
    assert_summary(&run, "autoencoder", "samples_per_second", "psnr");
}

fn assert_summary(run: &Run, recipe: &str, throughput: &str, metric: &str) {
    let summary = run.summary();
    for (key, value) in [
        ("status", Value::from("completed")),
        ("recipe", recipe.into()),
        ("seed", 42.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("steps", 20.into()),
    ] {
        assert_eq!(summary[key], value, "{key}");
    }
    for figure in [
        &summary["epochs"],
        &summary["train_seconds"],
        &summary["parameters"]["total"],
        &summary["parameters"]["trainable"],
        &summary["throughput"][throughput],
        &summary["peak_memory_bytes"],
        &summary["best"]["step"],
        &summary["best"]["metrics"]["loss"],
        &summary["final"]["metrics"][metric],
    ] {
        assert!(
            figure.as_f64().is_some_and(|figure| figure > 0.0),
            "{summary:#}"
        );
    }
    assert!(summary["padding_fraction"].is_number() && summary["backend"].is_string());
}

#[test]
fn the_loss_goes_down_and_steps_ascend() {
    let bench = bench();
    let run = bench.train("run", &["--steps", "200", "--set", "optimizer.lr=0.02"]);
    let losses = run.metric("valid", "loss");
    assert!(losses[losses.len() - 1] < 0.8 * losses[0], "{losses:?}");
    let events = run.events();
    let steps: Vec<_> = events
        .iter()
        .map(|event| event["step"].as_u64().unwrap())
        .collect();
    assert!(
        steps.is_sorted() && steps[steps.len() - 1] == 200,
        "{steps:?}"
    );
    let best = run.summary()["best"]["metrics"]["loss"].as_f64().unwrap();
    assert_eq!(best, losses.iter().copied().fold(f64::MAX, f64::min));
}

#[test]
fn equal_seeds_give_equal_weights_and_others_do_not() {
    let bench = bench();
    let first = bench.train("first", &[]);
    bench.train("second", &[]).assert_equals(&first);
    let other = bench.train("other", &["--seed", "7"]);
    assert!(other.weights() != first.weights());
}

#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let bench = bench();
    let args = ["--set", "training.patience=1", "--set", "optimizer.lr=0.0"];
    let run = bench.train("run", &args);
    let summary = run.summary();
    // The validation at step 5 is the first and the best, that at step 10 no better.
    assert_eq!(summary["status"], "stopped_early");
    assert_eq!(
        (&summary["steps"], &summary["best"]["step"]),
        (&10.into(), &5.into())
    );
}

// What a run prints.

#[test]
fn json_prints_the_lines_of_the_log() {
    let bench = bench();
    let output = bench
        .command(&["--out", "run", "--ui", "json"])
        .output()
        .unwrap();
    let log = fs::read(bench.path("run/metrics.jsonl")).unwrap();
    assert!(output.stdout == log && output.status.success());
    bench.run("run").assert_choice();
}

#[test]
fn silence_prints_nothing() {
    let bench = bench();
    let output = bench
        .command(&["--out", "run", "--ui", "none"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
    bench.run("run").assert_choice();
}

#[test]
fn a_dry_run_trains_a_little_and_writes_nothing() {
    let bench = bench();
    let before = bench.contents();
    let args = ["--out", "run", "--dry-run", "--ui", "plain"];
    let output = bench.command(&args).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for words in ["step      2/2", "parameters", "valid", "nothing written"] {
        assert!(printed.contains(words), "{printed}");
    }
    assert!(bench.contents() == before);
}

#[test]
fn the_list_names_the_recipes() {
    let output = bench().bare(&["--list"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for name in ["mlm", "autoencoder"] {
        assert!(
            printed.lines().any(|line| line.starts_with(name)),
            "{printed}"
        );
    }
}

// Stopped runs.

#[test]
fn a_killed_run_goes_on_to_the_same_end() {
    // Checkpoints at 7, 14, 21 lie between two lines of the log; every second one has no validation.
    let args = [
        "--steps",
        "300",
        "--set",
        "training.log_every=5",
        "--set",
        "training.validate_every=14",
        "--set",
        "training.checkpoint_every=7",
        "--set",
        "model.dropout=0.1",
    ];
    let accumulated = [&args[..], &["--set", "training.accumulation=2"]].concat();
    for (kind, args) in [("one", args.to_vec()), ("two", accumulated)] {
        let bench = bench();
        let whole = bench.train("whole", &args);
        for lines in [1, 12, 40] {
            let out = format!("{kind}-{lines}");
            let mut child = bench.start(&out, lines, &args);
            child.kill().unwrap();
            child.wait().unwrap();
            bench.resume(&out).assert_equals(&whole);
        }
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_the_step_and_exits_130() {
    let bench = bench();
    let args = [
        "--steps",
        "1500",
        "--set",
        "training.validate_every=200",
        "--set",
        "training.log_every=7",
    ];
    let whole = bench.train("whole", &args);
    let mut child = bench.start("run", 3, &args);
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let run = bench.run("run");
    let step = run.summary()["steps"].as_u64().unwrap();
    assert_eq!(run.summary()["status"], "interrupted");
    assert!(run.checkpoints().contains(&format!("step-{step:08}")));
    bench.resume("run").assert_equals(&whole);
}

#[test]
fn a_completed_run_stays_as_it_is_when_resumed() {
    let bench = bench();
    let run = bench.train("run", &[]);
    let (events, weights) = (run.events(), run.weights());
    let resumed = bench.resume("run");
    assert!(resumed.events() == events && resumed.weights() == weights);
    assert_eq!(resumed.summary()["status"], "completed");
}

/// The command in a process whose files can't grow beyond `bytes`: a full disk, for any user.
#[cfg(unix)]
fn limited(mut command: std::process::Command, bytes: libc::rlim_t) -> std::process::Output {
    use std::os::unix::process::CommandExt;
    let limit = move || {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: bytes,
        };
        // SAFETY: both calls are safe between fork and exec; the limit outlives the call.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(limit) };
    command.output().unwrap()
}

#[cfg(unix)]
#[test]
fn without_space_the_last_checkpoint_stays() {
    let bench = bench();
    let args = [
        "--steps",
        "300",
        "--set",
        "training.log_every=1",
        "--set",
        "training.validate_every=20",
    ];
    let whole = bench.train("whole", &args);
    let size = |name: &str| fs::metadata(whole.path().join(name)).unwrap().len();
    let optimizer = size("checkpoints/step-00000300/optimizer.safetensors");
    assert!(
        optimizer + 5_000 < size("metrics.jsonl"),
        "the log has to outgrow a checkpoint"
    );
    // Too small for the recipe, for any checkpoint, and for the log after some checkpoints.
    for (limit, file, checkpoints) in [
        (100, "recipe.toml", false),
        (optimizer - 1, "optimizer.safetensors", false),
        (optimizer + 1, "metrics.jsonl", true),
    ] {
        let out = format!("run-{limit}");
        let mut command = bench.command(&args);
        command.args(["--out", &out]);
        let output = limited(command, limit as libc::rlim_t);
        let message = message(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(
            message.contains(file) && message.contains("too large"),
            "{message}"
        );
        let run = bench.run(&out);
        if file == "recipe.toml" {
            assert!(!run.path().exists());
            continue;
        }
        assert_eq!(run.summary()["status"], "failed");
        assert_eq!(!run.checkpoints().is_empty(), checkpoints);
        bench.resume(&out).assert_equals(&whole);
    }
}

// Run directories.

#[test]
fn an_existing_run_is_not_touched() {
    let bench = bench();
    bench.train("run", &[]);
    bench.refuses(&[], &["run: exists already", "--resume", "--force"]);
    // A file, and a directory of someone else's.
    bench.write("file", "hello");
    bench.write("home/letter.txt", "hello");
    for out in ["file", "home"] {
        bench.refuses_command(
            &mut bench.command(&["--out", out]),
            &[out, "exists already"],
        );
        let mut force = bench.command(&["--out", out, "--force"]);
        bench.refuses_command(&mut force, &[out, "no run"]);
    }
}

#[test]
fn a_run_has_one_process() {
    let bench = bench();
    let mut child = bench.start("run", 1, &["--steps", "100000"]);
    for how in ["--resume", "--force"] {
        let output = bench
            .bare(&["--ui", "none", "--out", "run", how])
            .output()
            .unwrap();
        let message = message(&output);
        assert_eq!(output.status.code(), Some(2), "{how}: {message}");
        assert!(message.contains("run: another process"), "{message}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_killed_before_its_recipe_has_a_name_is_no_obstacle() {
    for unfinished in [".recipe.toml.new", "recipe.tmp"] {
        let bench = bench();
        bench.write(&format!("run/{unfinished}"), "objective = ");
        bench.train("run", &[]);
    }
}

#[test]
fn force_replaces_a_run() {
    let bench = bench();
    let first = bench.train("run", &[]).weights();
    fs::write(bench.path("run/checkpoints/note.txt"), "mine").unwrap();
    let second = bench.train("run", &["--force", "--seed", "7"]);
    assert!(second.weights() != first);
    assert!(!bench.path("run/checkpoints/note.txt").exists());
}

#[test]
fn resume_needs_a_run_and_keeps_its_recipe() {
    let bench = bench();
    let resume = |args: &[&str]| bench.bare(&[&["--resume", "--out", "run"], args].concat());
    bench.refuses_command(&mut resume(&[]), &["run: holds no run to resume"]);
    bench.train("run", &[]);
    for change in [["--set", "seed=1"], ["--seed", "1"], ["--from", "run"]] {
        let words = ["own recipe", change[0], "--steps extends", "--data names"];
        bench.refuses_command(&mut resume(&change), &words);
    }
}

#[test]
fn a_run_is_named_after_its_recipe() {
    let bench = bench();
    bench.write(
        "recipes/mine.toml",
        "objective = \"mlm\"\n[training]\nkeep = 1\n",
    );
    let output = bench.command(&["recipes/mine.toml"]).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(bench.run("runs/mine").checkpoints(), ["step-00000020"]);
    let mut resume = bench.bare(&["recipes/mine.toml", "--resume", "--ui", "none"]);
    assert!(resume.status().unwrap().success());
    bench.run("runs/mine").assert_choice();
}

#[test]
fn a_torn_checkpoint_is_passed_over() {
    let bench = bench();
    let whole = bench.train("whole", &["--set", "training.ema=0.9"]);
    for file in [
        "optimizer.safetensors",
        "model.safetensors",
        "ema.safetensors",
        "state.json",
        "SHA256SUMS",
    ] {
        bench.train("run", &["--force", "--set", "training.ema=0.9"]);
        let path = format!("run/checkpoints/step-00000020/{file}");
        let bytes = fs::read(bench.path(&path)).unwrap();
        // Half of it, and one bit of the other half: a length alone would not tell.
        let mut torn = bytes.clone();
        torn[bytes.len() / 2] ^= 1;
        for contents in [&torn[..], &bytes[..bytes.len() / 2]] {
            bench.write(&path, contents);
            let output = bench
                .bare(&["--resume", "--out", "run", "--ui", "plain"])
                .output()
                .unwrap();
            assert!(output.status.success());
            let message = message(&output);
            assert!(message.contains("passed over"), "{file}: {message}");
            bench.run("run").assert_equals(&whole);
        }
    }
}

#[test]
fn a_torn_best_step_does_not_take_the_run_with_it() {
    // The first validation stays the best, later steps only get worse.
    let bench = bench();
    let worse = [
        "--set",
        "optimizer.lr=5.0",
        "--set",
        "schedule.kind=constant",
    ];
    let more = ["--set", "training.keep=2", "--set", "optimizer.kind=sgd"];
    let whole = bench.train("whole", &[&worse[..], &more].concat());
    let newest = whole.checkpoints().pop().unwrap();
    bench.write(&format!("whole/checkpoints/{newest}/state.json"), b"torn");
    let (weights, summary) = (whole.weights(), whole.summary());
    let resumed = bench.resume("whole");
    assert!(resumed.weights() == weights);
    assert_eq!(resumed.summary()["best"], summary["best"]);
}

#[test]
fn a_run_that_patience_ended_stays_as_it_is_when_resumed() {
    let bench = bench();
    let args = ["--set", "training.patience=1", "--set", "optimizer.lr=0"];
    let run = bench.train("run", &args);
    assert_eq!(run.summary()["status"], "stopped_early");
    let (steps, events) = (run.summary()["steps"].clone(), run.events());
    for _ in 0..2 {
        let resumed = bench.resume("run");
        assert_eq!(resumed.summary()["status"], "stopped_early");
        assert_eq!(resumed.summary()["steps"], steps);
        assert_eq!(resumed.events(), events);
    }
}

#[test]
fn a_loss_whose_perplexity_is_infinite_is_no_end_of_its_checkpoints() {
    let bench = bench();
    let settings = [
        "optimizer.kind=sgd",
        "optimizer.lr=1000",
        "optimizer.clip=0",
        "training.checkpoint_every=1",
        "training.validate_every=1",
        "guard.skips=1",
        "guard.rollbacks=2",
        "guard.rollback_lr=0.9",
    ];
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let args: Vec<&str> = set.chain(["--out", "run", "--ui", "plain"]).collect();
    let output = bench.command(&args).output().unwrap();
    let told = message(&output);
    let events = bench.run("run").events();
    let perplexity = |event: &serde_json::Value| event["metrics"]["perplexity"].is_null();
    assert!(events.iter().any(perplexity), "no perplexity was infinite");
    assert!(!told.contains("invalid type"), "{told}");
    assert!(!told.contains("no checkpoint is whole"), "{told}");
    let mut resume = bench.bare(&["--resume", "--out", "run", "--ui", "none"]);
    let told = message(&resume.output().unwrap());
    assert!(!told.contains("checkpoint is whole:"), "{told}");
}

#[test]
fn a_resumed_run_needs_the_texts_that_it_began_with() {
    let bench = bench();
    bench.train("run", &[]);
    let other: String = texts()
        .lines()
        .map(|text| format!("{text} indeed\n"))
        .collect();
    bench.write("texts.txt", other);
    let mut resume = bench.bare(&["--resume", "--out", "run", "--ui", "none"]);
    bench.refuses_command(&mut resume, &["run: the training data", "--force"]);
    bench.write("texts.txt", texts());
    bench.resume("run");
}

#[test]
fn a_log_that_was_cut_is_not_made_up() {
    let bench = bench();
    bench.train("run", &[]);
    bench.write("run/metrics.jsonl", b"");
    let mut resume = bench.bare(&["--resume", "--out", "run", "--ui", "none"]);
    let words = ["run/metrics.jsonl: has 0 bytes, where the checkpoint counts on"];
    bench.refuses_command(&mut resume, &words);
}

#[test]
fn without_a_whole_checkpoint_the_first_reason_is_told() {
    let bench = bench();
    let run = bench.train("run", &[]);
    for checkpoint in run.checkpoints() {
        let path = format!("run/checkpoints/{checkpoint}/model.safetensors");
        bench.write(&path, b"torn");
    }
    let mut resume = bench.bare(&["--resume", "--out", "run", "--ui", "none"]);
    let words = ["no checkpoint is whole", "step-00000020/model.safetensors"];
    bench.refuses_command(&mut resume, &words);
}

#[test]
fn weights_are_averaged_and_the_average_is_judged() {
    let bench = bench();
    let args = ["--set", "training.ema=0.5", "--set", "optimizer.lr=0.02"];
    let plain = bench.train("plain", &args[2..]);
    let averaged = bench.train("averaged", &args);
    assert_eq!(
        averaged.metric("train", "loss"),
        plain.metric("train", "loss")
    );
    assert_ne!(
        averaged.metric("valid", "loss"),
        plain.metric("valid", "loss")
    );
    let average = averaged
        .path()
        .join("checkpoints/step-00000020/ema.safetensors");
    assert!(average.is_file() && averaged.weights() != plain.weights());
}

#[test]
fn every_optimizer_and_schedule_learns() {
    let bench = bench();
    for (optimizer, lr) in [
        ("sgd", 1.0),
        ("adam", 0.02),
        ("adafactor", 0.05),
        ("lamb", 0.05),
        ("lion", 0.003),
        ("muon", 0.02),
    ] {
        let kind = format!("optimizer.kind={optimizer}");
        let lr = format!("optimizer.lr={lr}");
        let args = ["--steps", "100", "--set", &kind, "--set", &lr];
        let losses = bench.train(optimizer, &args).metric("valid", "loss");
        assert!(
            losses[losses.len() - 1] < 0.9 * losses[0],
            "{optimizer}: {losses:?}"
        );
    }
    for schedule in [
        "constant",
        "cosine_restarts",
        "inverse_sqrt",
        "wsd",
        "one_cycle",
    ] {
        let kind = format!("schedule.kind={schedule}");
        let args = [
            "--steps",
            "100",
            "--set",
            &kind,
            "--set",
            "optimizer.lr=0.02",
        ];
        let losses = bench.train(schedule, &args).metric("valid", "loss");
        assert!(
            losses[losses.len() - 1] < 0.9 * losses[0],
            "{schedule}: {losses:?}"
        );
    }
}

#[test]
fn accumulation_changes_no_figure() {
    let bench = bench();
    // 243 training texts; whole epochs of 64 leave none of another size out.
    let run = |batch: &str, accumulation: &str| {
        let batch = format!("training.batch_size={batch}");
        let accumulation = format!("training.accumulation={accumulation}");
        let args = ["--set", &batch, "--set", &accumulation];
        bench.train(&batch, &args)
    };
    let whole = run("64", "1");
    for (batch, accumulation) in [("32", "2"), ("8", "8")] {
        let parts = run(batch, accumulation);
        for metric in ["loss", "grad_norm"] {
            let pairs = whole
                .metric("train", metric)
                .into_iter()
                .zip(parts.metric("train", metric));
            for (step, (a, b)) in pairs.enumerate() {
                // One step differs by 1e-6 at most; ten lines of the log are twenty steps.
                assert!(
                    (a - b).abs() < 2e-5 * a.abs(),
                    "{metric}, line {step}: {a}, {b}"
                );
            }
        }
        let first = |run: &Run| run.metric("train", "loss")[0];
        assert!((first(&whole) - first(&parts)).abs() < 1e-6 * first(&whole));
    }
}

#[test]
fn one_batch_is_overfitted_and_a_rate_is_found() {
    let bench = bench();
    let output = |args: &[&str]| {
        let output = bench.command(args).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout.clone()).unwrap() + &message(&output),
        )
    };
    let before = bench.contents();
    let (code, printed) = output(&["--overfit-batch", "--set", "optimizer.lr=0.01"]);
    assert!(
        code == Some(0) && printed.starts_with("one batch is learnt in"),
        "{printed}"
    );
    let frozen = "optimizer.groups=[{pattern=\"embeddings|encoder\", frozen=true}]";
    let (code, printed) = output(&[
        "--overfit-batch",
        "--set",
        "optimizer.lr=1e-6",
        "--set",
        frozen,
    ]);
    assert!(
        code == Some(1) && printed.contains("error: one batch is not learnt in 500 steps"),
        "{printed}"
    );
    assert!(bench.contents() == before, "something was written");
    let (code, printed) = output(&["--find-lr", "--out", "found"]);
    assert!(bench.path("found.find-lr.svg").is_file(), "{printed}");
    let found = printed.split("--set optimizer.lr=").nth(1).unwrap();
    let lr: f64 = found.trim().parse().unwrap();
    assert!(code == Some(0) && (1e-5..1.0).contains(&lr), "{printed}");
}

#[test]
fn a_profile_has_a_span_for_every_part_of_every_step() {
    let bench = bench();
    let run = bench.train("run", &["--profile"]);
    let text = fs::read_to_string(run.path().join("profile.json")).unwrap();
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    let count = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    for (name, spans) in [
        ("data", 20),
        ("forward and backward", 20),
        ("optimizer", 20),
        ("validation", 4),
    ] {
        assert_eq!(count(name), spans, "{name}");
    }
    assert!(count("bundle") >= 1 && count("checkpoint") >= 1, "{text}");
    let times = events.iter().filter(|event| event["ph"] == "X");
    let times = times.map(|event| ["ts", "dur"].map(|key| event[key].as_u64().unwrap()));
    let times: Vec<_> = times.collect();
    // Perfetto drops what overlaps.
    for pair in times.windows(2) {
        assert!(pair[0][0] + pair[0][1] <= pair[1][0], "{pair:?}");
    }
}

#[test]
fn a_dry_run_lists_the_parameters() {
    let output = bench()
        .command(&["--dry-run", "--ui", "plain"])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let line = printed
        .lines()
        .find(|line| line.starts_with("bert.embeddings.word_embeddings.weight"));
    assert!(line.unwrap().contains("16]"), "{printed}");
}

#[test]
fn groups_have_rates_of_their_own() {
    let bench = bench();
    let group = "optimizer.groups=[{pattern=\"embeddings\", frozen=true}, {pattern=\"predictions\", lr=0.5}]";
    let run = bench.train(
        "grouped",
        &["--set", group, "--set", "schedule.kind=constant"],
    );
    let last = run
        .events()
        .into_iter()
        .rfind(|event| event["split"] == "train")
        .unwrap();
    let lr = last["lr"].as_f64().unwrap();
    assert_eq!(last["group_lr"]["embeddings"], 0.0);
    assert_eq!(last["group_lr"]["predictions"], lr * 0.5);
    assert_eq!(last["group_lr"]["other"], lr);
    let parameters = &run.summary()["parameters"];
    assert!(parameters["trainable"].as_u64() < parameters["total"].as_u64());
    for (groups, words) in [
        ("[{pattern=\"(\"}]", "no regular expression"),
        (
            "[{pattern=\"layers\"}]",
            "matches no parameter; one of them is \"bert.embeddings",
        ),
        ("[{pattern=\"bert\", lr=-1.0}]", "lr = -1"),
        ("[{pattern=\"bert\", rate=1.0}]", "rate"),
    ] {
        bench.refuses(&["--set", &format!("optimizer.groups={groups}")], &[words]);
    }
}

#[test]
fn half_precision_learns_like_single_precision() {
    let bench = bench();
    let args = ["--steps", "100", "--set", "optimizer.lr=0.02"];
    let single = bench.train("single", &args).metric("valid", "loss");
    let bf16 = [&args[..], &["--set", "training.precision=bf16"]].concat();
    let half = bench.train("half", &bf16).metric("valid", "loss");
    let (single, half) = (single[single.len() - 1], half[half.len() - 1]);
    // Eight bits of mantissa: one part in 256 at each of some twenty operations.
    assert!(
        single != half && (single - half).abs() < 0.05 * single,
        "{single}, {half}"
    );
    let images = image_bench();
    let args = ["autoencoder", "--set", "training.precision=bf16"];
    let losses = images.train("run", &args).metric("valid", "loss");
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
}

#[test]
fn a_recipe_without_its_objective_is_told_what_to_name() {
    let bench = bench();
    bench.write("mine.toml", "[training]\nsteps = 10\n");
    bench.write("other.toml", "objective = \"mml\"\n");
    let known = "it must be one of mlm, clm, ";
    for (name, words) in [
        ("mine.toml", "objective is missing"),
        ("other.toml", "objective is \"mml\""),
    ] {
        bench.refuses_command(&mut bench.bare(&[name]), &[words, known]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let bench = bench();
    for args in [&["mlm", "--explain"][..], &["--list"]] {
        let mut command = bench.bare(args);
        command.stdout(
            fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        );
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let message = message(&output);
        assert!(
            message.contains("standard output: No space left"),
            "{message}"
        );
    }
}

#[test]
fn what_was_not_compiled_in_is_named() {
    if cfg!(feature = "checkpointing") {
        return;
    }
    let set = ["--set", "training.gradient_checkpointing=true"];
    bench().refuses(
        &set,
        &[
            "training.gradient_checkpointing was not compiled in",
            "--features checkpointing",
        ],
    );
}

// What is refused: exit code 2, one sentence, nothing written.

#[test]
fn texts_that_cannot_be_read() {
    let bench = bench();
    let latin1 = [texts().as_bytes(), b"caf\xe9\n"].concat();
    for (name, contents, words) in [
        ("empty.txt", &b""[..], "is empty"),
        ("blank.txt", b"\n \n", "holds no example"),
        ("latin1.txt", &latin1, ":301: not valid UTF-8"),
        (
            "other.csv",
            b"body,label\na bird,x\n",
            ":1: column \"text\" is missing",
        ),
        (
            "ragged.csv",
            b"text,label\na bird,x,y\n",
            ":2: has 3 fields",
        ),
        ("open.csv", b"text,label\n\"a bird,x\n", ":2: a quote opens"),
        (
            "number.jsonl",
            b"{\"text\": \"a\"}\n{\"text\": 3}\n",
            ":2: \"text\" is a number",
        ),
        (
            "cut.jsonl",
            b"{\"text\": \"a\"}\n{\"text\n",
            ":2: not valid JSON",
        ),
        (
            "cut.txt.gz",
            b"\x1f\x8b\x08\0\0\0\0\0\0\xff\xab",
            "cannot be read",
        ),
        ("texts.pdf", b"a bird\n", "unknown extension"),
        ("single.txt", b"a bird\n", "1 texts leave"),
    ] {
        bench.write(name, contents);
        let refuse = ["--set", "data.bad_rows=refuse"];
        bench.refuses(&[&["--data", name], &refuse[..]].concat(), &[name, words]);
    }
    bench.refuses(&["--data", "missing.txt"], &["missing.txt: no such file"]);
    fs::create_dir(bench.path("folder")).unwrap();
    bench.refuses(
        &["--data", "folder"],
        &["folder", "no file with a known extension"],
    );
    bench.refuses(&["--set", "data.source=[]"], &["no data is named"]);
}

#[test]
fn bad_rows_are_left_out_and_counted_or_refused() {
    let bench = bench();
    let latin1 = [texts().as_bytes(), b"caf\xe9\n"].concat();
    let rows: String = (0..60)
        .map(|n| format!("{{\"text\": \"row {n} of many\"}}\n"))
        .collect();
    let jsonl = format!("{rows}{{\"text\": 3}}\n{{\"text\": \"\"}}\n{{\"text\n{rows}");
    for (name, contents, left, first) in [
        ("latin1.txt", &latin1[..], 1, "latin1.txt:301"),
        ("mixed.jsonl", jsonl.as_bytes(), 3, "mixed.jsonl:61"),
    ] {
        bench.write(name, contents);
        let printed = plain(&bench, &["--data", name, "--dry-run"]);
        // A line a reason, each with a count and the first places; where there are several, then their sum.
        let (total, said): (Vec<&str>, Vec<&str>) = printed
            .lines()
            .filter(|line| line.contains("left out"))
            .partition(|line| line.ends_with("in all"));
        assert_eq!(total.is_empty(), said.len() < 2, "{printed}");
        let count = |line: &&str| line.split(' ').find_map(|word| word.parse::<usize>().ok());
        assert_eq!(
            said.iter().filter_map(count).sum::<usize>(),
            left,
            "{said:?}"
        );
        assert!(said.iter().any(|line| line.contains(first)), "{said:?}");
        let refuse = ["--data", name, "--set", "data.bad_rows=refuse"];
        bench.refuses(&refuse, &[first, "data.bad_rows = \"skip\""]);
    }
}

#[test]
fn images_that_cannot_be_read() {
    let bench = image_bench();
    let (images, labels) = (idx_images(120, 8), idx_labels(120, 3));
    bench.write("short/images-idx3-ubyte", &images[..3000]);
    bench.write("header/images-idx3-ubyte", &images[..10]);
    bench.write("other/images-idx3-ubyte", &labels);
    bench.write("empty/images-idx3-ubyte", []);
    bench.write("labels/images-idx3-ubyte", &images);
    bench.write("labels/labels-idx1-ubyte", &labels[..50]);
    fs::create_dir(bench.path("folder")).unwrap();
    for (data, words) in [
        (
            "short",
            "images-idx3-ubyte: truncated IDX: the header promises 7680 bytes",
        ),
        (
            "header",
            "images-idx3-ubyte: truncated IDX: 16 bytes of header",
        ),
        ("other", "images-idx3-ubyte: not an IDX image file"),
        ("empty", "images-idx3-ubyte: is empty"),
        ("labels", "labels-idx1-ubyte: truncated IDX"),
        ("folder", "holds no image"),
        ("missing", "no such file"),
    ] {
        bench.refuses(&["autoencoder", "--data", data], &[data, words]);
    }
}

#[test]
fn a_truncated_png() {
    let bench = image_bench();
    for shade in 0..30 {
        let path = bench.path(&format!("pngs/{shade}.png"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(8, 8, image::Luma([shade * 8]))
            .save(path)
            .unwrap();
    }
    let whole = fs::read(bench.path("pngs/7.png")).unwrap();
    bench.write("pngs/7.png", &whole[..whole.len() - 20]);
    let args = ["autoencoder", "--data", "pngs"];
    let printed = plain(&bench, &[&args[..], &["--dry-run"]].concat());
    assert!(
        printed.contains("images: 29 read, 1 left out (1 truncated: 7.png)"),
        "{printed}"
    );
    let refuse = ["--set", "data.bad_rows=refuse"];
    bench.refuses(
        &[&args[..], &refuse].concat(),
        &[
            "1 of 30 image files can't be read (1 truncated: 7.png)",
            "data.bad_rows = \"skip\" leaves them out",
        ],
    );
}

#[test]
fn recipes_that_are_no_recipes() {
    let bench = bench();
    for (name, text, words) in [
        (
            "key.toml",
            "objective = \"mlm\"\n\n[training]\nbach_size = 4\n",
            &[
                "key.toml:4: ",
                "\"training.bach_size\"",
                "\"training.batch_size\"",
            ][..],
        ),
        (
            "group.toml",
            "objective = \"mlm\"\n[trainig]\nsteps = 4\n",
            &["group.toml:3: ", "\"trainig.steps\"", "\"training.steps\""],
        ),
        (
            "syntax.toml",
            "objective = \"mlm\"\n[training\n",
            &["syntax.toml:2: ", "not valid TOML"],
        ),
        (
            "twice.toml",
            "objective = \"mlm\"\nseed = 1\nseed = 2\n",
            &["twice.toml:3: ", "duplicate"],
        ),
        (
            "type.toml",
            "objective = \"mlm\"\n[training]\nsteps = \"many\"\n",
            &["type.toml:3: ", "training.steps is \"many\"", "integer"],
        ),
        (
            "sign.toml",
            "objective = \"mlm\"\nseed = -1\n",
            &["sign.toml:2: ", "seed is -1"],
        ),
        (
            "flat.toml",
            "objective = \"mlm\"\ntraining = 3\n",
            &["flat.toml:2: ", "\"training\""],
        ),
        (
            "range.toml",
            "objective = \"mlm\"\n[optimizer]\nlr = 1e-3\nbeta1 = 1.5\n",
            &["range.toml:4: ", "optimizer.beta1 is 1.5"],
        ),
        (
            "sizes.toml",
            "objective = \"mlm\"\n[model]\nnum_attention_heads = 0\n",
            &["sizes.toml:3: ", "num_attention_heads is 0"],
        ),
        ("none.toml", "seed = 1\n", &["none.toml", "mlm, clm, "]),
        (
            "other.toml",
            "objective = \"gpt\"\n",
            &["other.toml:1: ", "\"gpt\"", "mlm, clm, "],
        ),
    ] {
        bench.write(name, text);
        bench.refuses(&[name], words);
    }
    bench.write("bytes.toml", b"\xff\xfe");
    bench.refuses(&["bytes.toml"], &["bytes.toml", "UTF-8"]);
    bench.refuses(
        &["missing.toml"],
        &["\"missing.toml\"", "no such file", "mlm"],
    );
    bench.refuses(&["autoencodr"], &["the nearest is \"autoencoder\""]);
}

#[test]
fn settings_that_are_impossible() {
    let bench = bench();
    for (setting, words) in [
        ("training.bach_size=4", "\"training.batch_size\""),
        ("training=4", "\"training\""),
        ("nonsense", "KEY=VALUE"),
        ("seed=-1", "seed is -1"),
        ("seed=1.5", "seed is 1.5"),
        ("optimizer.lr=fast", "optimizer.lr is \"fast\""),
        ("optimizer.lr=nan", "optimizer.lr is NaN"),
        ("optimizer.lr=-1", "optimizer.lr is -1"),
        ("optimizer.beta1=1", "optimizer.beta1 is 1"),
        ("optimizer.eps=0", "optimizer.eps is 0"),
        (
            "schedule.kind=step",
            "--set schedule.kind=step: unknown variant `step`",
        ),
        (
            "objective=autoencoder",
            "--set objective=autoencoder: objective is \"autoencoder\"",
        ),
        ("schedule.warmup=2", "schedule.warmup is 2"),
        ("training.batch_size=0", "training.batch_size is 0"),
        ("training.batch_size=-1", "training.batch_size is -1"),
        (
            "training.steps=0",
            "training.steps and training.epochs are both 0",
        ),
        (
            "training.accumulation=9223372036854775807",
            "must be at most 4096",
        ),
        (
            "training.metric=bleu",
            "\"bleu\"; validation gives loss, perplexity, accuracy",
        ),
        ("tokenizer.vocab_size=3", "a vocabulary of 3 is too small"),
        ("tokenizer.path=missing.json", "missing.json: no such file"),
        ("masking.rate=2", "masking.rate is 2"),
        ("masking.rate=nan", "masking.rate is NaN"),
        ("masking.mask=nan", "masking.mask NaN"),
        ("data.valid=-1", "data.valid is -1"),
        (
            "data.valid=0.96",
            "data.valid 0.96 and data.test 0.05 leave nothing",
        ),
        (
            "bundle.precision=f8",
            "--set bundle.precision=f8: unknown variant `f8`",
        ),
    ] {
        bench.refuses(&["--set", setting], &[words]);
    }
    let shares = ["--set", "data.valid=0.9", "--set", "data.test=0.9"];
    bench.refuses(&shares, &["data.valid 0.9 and data.test 0.9"]);
}

#[test]
fn sizes_that_are_impossible() {
    let bench = bench();
    for (setting, words) in [
        (
            "model.num_attention_heads=3",
            "3 attention heads do not divide a width of 16",
        ),
        ("model.num_attention_heads=0", "num_attention_heads is 0"),
        ("model.hidden_size=0", "hidden_size is 0"),
        ("model.dropout=1.5", "dropout is 1.5"),
        (
            "tokenizer.max_length=17",
            "--set tokenizer.max_length=17: tokenizer.max_length is 17, longer than the model's 16 positions",
        ),
        ("tokenizer.max_length=2", "tokenizer.max_length is 2"),
        // Allocating these would abort the process.
        ("model.hidden_size=10_000_000_000", "parameters need"),
        ("model.hidden_size=4611686018427387904", "parameters need"),
        (
            "model.intermediate_size=10_000_000_000_000",
            "parameters need",
        ),
        ("model.num_hidden_layers=10_000_000_000", "parameters need"),
        (
            "model.max_position_embeddings=10_000_000_000_000",
            "parameters need",
        ),
    ] {
        bench.refuses(&["--set", setting], &[words]);
    }
    let images = image_bench();
    for (setting, words) in [
        ("model.channels=[]", "channels are []"),
        (
            "model.channels=[4,4,4,4,4]",
            "5 convolutions are too many for 8x8 pixels",
        ),
        ("model.channels=[10_000_000_000_000]", "parameters need"),
        ("model.latent_size=10_000_000_000_000", "parameters need"),
        ("data.size=10_000_000_000", "10000000000x10000000000"),
        ("noise.masking=2", "noise.masking is 2"),
    ] {
        images.refuses(&["autoencoder", "--set", setting], &[words]);
    }
}

#[test]
fn mutated_recipes_run_or_are_refused_in_one_sentence() {
    for (bench, recipe) in [(bench(), "mlm"), (image_bench(), "autoencoder")] {
        let mut entries = pretrain::TRAINER.entries.iter();
        let entry = entries.find(|entry| entry.name == recipe).unwrap();
        // With the bench's small settings, which mutations change.
        let built_in = [(entry.name, entry.recipe)];
        let mut draft = Draft::open(recipe, "objective", &built_in).unwrap();
        draft
            .set_all(bench.settings().iter().map(String::as_str))
            .unwrap();
        let small = draft.table();
        let small = small.to_string().into_bytes();
        for case in 0..60 {
            let mut rng = ChaCha8Rng::seed_from_u64(case);
            let mut bytes = small.clone();
            crate::mutate::mutate(&mut bytes, &mut rng);
            bench.write("mutated.toml", &bytes);
            let began = std::time::Instant::now();
            let output = bench
                .bare(&["mutated.toml", "--dry-run", "--ui", "none"])
                .output()
                .unwrap();
            let (code, told) = (output.status.code(), message(&output));
            assert!(
                began.elapsed().as_secs() < 20,
                "{recipe}, case {case}: {:?}",
                began.elapsed()
            );
            let refused =
                code == Some(2) && told.starts_with("error: ") && told.lines().count() == 1;
            // A rate of 1e308 is legal, and does what it must.
            let lost = code == Some(1) && told.contains("not finite");
            assert!(
                code == Some(0) || refused || lost,
                "{recipe}, case {case}: {code:?} {told}"
            );
        }
    }
}

#[test]
fn backends_that_are_not_there() {
    let bench = bench();
    bench.refuses(&["--backend", "abacus"], &["\"abacus\"", "cuda", "flex"]);
    let all = [BackendName::Metal, BackendName::Cuda, BackendName::Ndarray];
    for backend in all.into_iter().filter(|backend| !backend.is_compiled_in()) {
        let feature = format!("--features {backend}");
        bench.refuses(
            &["--backend", backend.name()],
            &["not compiled in", &feature],
        );
    }
}

#[test]
fn a_directory_that_cannot_be_made() {
    let bench = bench();
    let mut command = bench.command(&["--out", "texts.txt/run"]);
    bench.refuses_command(&mut command, &["texts.txt/run", "Not a directory"]);
}
