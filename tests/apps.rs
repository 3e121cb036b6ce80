//! `apps` as its users meet it: the real binary on the bundled model, wrong input included.

use std::process::{Command, Output};

fn apps(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apps"));
    command.args(args).output().unwrap()
}

/// Exit code 2, one line on stderr with these words, nothing on stdout.
fn assert_refused(args: &[&str], words: &[&str]) {
    let output = apps(args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
    assert!(output.stdout.is_empty(), "{args:?}");
    for word in words {
        assert!(message.contains(word), "{args:?}: {message}");
    }
}

#[test]
fn every_mask_gets_its_words() {
    let text = "a small [MASK] that lives in [MASK]";
    let output = apps(&[
        "fill-mask",
        "--model",
        "wordnet-bert-nano",
        text,
        "--top",
        "3",
    ]);
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    let probabilities = printed
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    let words = probabilities.filter(|p| p.parse::<f64>().is_ok_and(|p| p < 1.0));
    assert_eq!(words.count(), 6, "{printed}");
}

#[test]
fn wrong_input_is_refused() {
    let nano = "wordnet-bert-nano";
    assert_refused(&["fill-mask", "--model", nano, "no mask"], &["[MASK]"]);
    assert_refused(
        &["predict", "--model", nano, "--text", "a bird"],
        &[nano, "BertForMaskedLM", "BertForSequenceClassification"],
    );
    assert_refused(
        &["fill-mask", "--model", "no/such", "a [MASK]"],
        &["no/such"],
    );
    let backend = [
        "fill-mask",
        "--model",
        nano,
        "a [MASK]",
        "--backend",
        "abacus",
    ];
    assert_refused(&backend, &["abacus", "flex"]);
}
