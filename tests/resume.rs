//! A run that was stopped and goes on ends exactly where an uninterrupted one does.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const STEPS: u64 = 60;

/// A small masked LM on texts of its own, with accumulation and dropout.
fn pretrain(folder: &Path, out: &str) -> Command {
    let texts = folder.join("texts.txt");
    if !texts.exists() {
        let kinds = ["bird", "tool", "plant", "river"];
        let line = |n: usize| format!("the {} number {n} of the old list\n", kinds[n % 4]);
        fs::write(&texts, (0..400).map(line).collect::<String>()).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_pretrain"));
    command.current_dir(folder);
    command.args(["--out", out, "--ui", "none", "--data", "texts.txt"]);
    command.args(["--steps", &STEPS.to_string()]);
    for key in [
        "tokenizer.vocab_size=300",
        "model.hidden_size=32",
        "model.intermediate_size=64",
        "model.dropout=0.1",
        "training.batch_size=8",
        "training.accumulation=2",
        "training.log_every=5",
        "training.validate_every=10",
        "data.valid=0.1",
    ] {
        command.args(["--set", key]);
    }
    command
}

fn resume(folder: &Path, out: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pretrain"));
    command.current_dir(folder);
    command.args(["--out", out, "--ui", "none", "--resume"]);
    command.output().unwrap()
}

/// `metrics.jsonl` without the seconds, which no two runs share.
fn events(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let event = |line| {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        event.as_object_mut().unwrap().remove("seconds");
        event
    };
    text.lines().map(event).collect()
}

fn assert_equal_runs(folder: &Path, a: &str, b: &str) {
    let (a, b) = (folder.join(a), folder.join(b));
    assert_eq!(events(&a), events(&b));
    let step = format!("checkpoints/step-{STEPS:08}/model.safetensors");
    for file in [step.as_str(), "model/model.safetensors"] {
        let same = fs::read(a.join(file)).unwrap() == fs::read(b.join(file)).unwrap();
        assert!(same, "{file} differs");
    }
}

/// Waits until the run has a checkpoint of this step.
fn wait_for(run: &Path, step: u64) {
    let began = Instant::now();
    while !run.join(format!("checkpoints/step-{step:08}")).exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "no step {step}");
        sleep(Duration::from_millis(2));
    }
}

fn summary(run: &Path) -> serde_json::Value {
    let text = fs::read_to_string(run.join("summary.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_killed_run_goes_on_exactly() {
    let folder = tempfile::tempdir().unwrap();
    assert!(pretrain(folder.path(), "whole").status().unwrap().success());
    for (out, step) in [("early", 10), ("late", 40)] {
        let mut child = pretrain(folder.path(), out).spawn().unwrap();
        wait_for(&folder.path().join(out), step);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(resume(folder.path(), out).status.success());
        assert_equal_runs(folder.path(), "whole", out);
        assert_eq!(summary(&folder.path().join(out))["status"], "completed");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_first_and_exits_130() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    assert!(pretrain(folder.path(), "whole").status().unwrap().success());
    let mut child = pretrain(folder.path(), "run")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&run, 10);
    let mut kill = Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    assert!(kill.status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let stopped = summary(&run);
    assert_eq!(stopped["status"], "interrupted");
    let step = stopped["steps"].as_u64().unwrap();
    assert!(run.join(format!("checkpoints/step-{step:08}")).exists());
    assert!(resume(folder.path(), "run").status.success());
    assert_equal_runs(folder.path(), "whole", "run");
}

#[test]
fn a_run_is_never_overwritten_unasked() {
    let folder = tempfile::tempdir().unwrap();
    assert!(pretrain(folder.path(), "run").status().unwrap().success());
    let before = events(&folder.path().join("run"));
    let refused = pretrain(folder.path(), "run").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--resume"));
    assert_eq!(events(&folder.path().join("run")), before);
    assert!(
        pretrain(folder.path(), "run")
            .arg("--force")
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn wrong_input_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for (args, words) in [
        (vec!["--data", "missing.txt"], vec!["missing.txt"]),
        (
            vec!["--set", "optimizer.lrr=1"],
            vec!["lrr", "optimizer.lr"],
        ),
        (
            vec!["--set", "model.num_attention_heads=3"],
            vec!["3", "32"],
        ),
        (
            vec!["--set", "tokenizer.max_length=1000"],
            vec!["1000", "128"],
        ),
        (vec!["--backend", "abacus"], vec!["abacus"]),
        (
            vec!["--set", "training.metric=beauty"],
            vec!["beauty", "loss"],
        ),
    ] {
        let output = pretrain(folder.path(), "run").args(&args).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
        for word in words {
            assert!(message.contains(word), "{args:?}: {message}");
        }
        assert!(!folder.path().join("run").exists(), "{args:?}");
    }
}
