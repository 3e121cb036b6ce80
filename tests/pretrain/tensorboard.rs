//! TensorBoard's own reader finds the figures of a run; skipped where it can't be installed.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Bench, skipped};

/// A Python that has `tensorboard`: the one that is there, or one in a fresh environment.
fn python(bench: &Bench) -> Option<PathBuf> {
    let succeeds =
        |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let has_it =
        |python: &PathBuf| succeeds(Command::new(python).args(["-c", "import tensorboard"]));
    let there = PathBuf::from("python3");
    if has_it(&there) {
        return Some(there);
    }
    let environment = bench.path("environment");
    let fresh = environment.join("bin/python");
    let made = succeeds(Command::new(&there).args(["-m", "venv"]).arg(&environment));
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--retries",
        "1",
        "tensorboard==2.21.0",
    ];
    let installed = made && succeeds(Command::new(&fresh).args(install));
    (installed && has_it(&fresh)).then_some(fresh)
}

#[test]
fn tensorboard_reads_the_figures_of_a_run_that_was_resumed() {
    let settings = [
        "tokenizer.vocab_size=100",
        "training.steps=200",
        "training.log_every=2",
        "training.validate_every=5",
        "optimizer.layer_decay=0.5",
    ];
    let bench = Bench::mlm(env!("CARGO_BIN_EXE_pretrain"), &settings);
    let texts = (0..200).map(|n| format!("text number {n} of many\n"));
    bench.write("texts.txt", texts.collect::<String>());
    let Some(python) = python(&bench) else {
        skipped("python3 and its package tensorboard can't be had here");
        return;
    };
    let mut child = bench.start("run", 20, &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    bench.resume("run");
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/interop/read_tensorboard.py"
    );
    let output = Command::new(python)
        .arg(script)
        .arg(bench.path("run"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        crate::support::message(&output)
    );
    println!("{}", String::from_utf8_lossy(&output.stdout));
}
