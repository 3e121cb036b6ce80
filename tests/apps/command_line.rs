//! The command line itself: examples in the help, colours, completions, manual pages.

use std::collections::BTreeSet;
use std::fs;

use apps::command_line::Args;
use clap::{Command, CommandFactory};

use crate::bundles::printed;
use crate::programs;
use crate::support::{Bench, message};

const APPS: &str = env!("CARGO_BIN_EXE_apps");

/// Every command and the commands of commands, each with the words that call it; that of the whole program first.
fn commands() -> Vec<Vec<String>> {
    fn add(command: &Command, words: &[String], all: &mut Vec<Vec<String>>) {
        all.push(words.to_vec());
        for sub in command.get_subcommands() {
            let words = [words, &[sub.get_name().to_string()]].concat();
            add(sub, &words, all);
        }
    }
    let mut all = Vec::new();
    add(&Args::command(), &[], &mut all);
    all
}

/// Lines of a command's help that are commands.
fn examples(words: &[String]) -> Vec<String> {
    let words = words.iter().map(String::as_str);
    let args: Vec<&str> = words.chain(["--help"]).collect();
    let help = printed(&args);
    let examples = help.lines().filter(|line| line.starts_with("  apps "));
    examples.map(|line| line.trim().to_string()).collect()
}

/// The words of a command as a shell has them, up to where another one or a file takes what it prints.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '|' | '<' | '>' | '#') => break,
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "{line}");
    words.extend(word);
    words
}

#[test]
fn words_are_those_of_a_shell() {
    assert_eq!(
        words("apps x --a \"b c\" 'd*' e=\"\" ''> f"),
        ["apps", "x", "--a", "b c", "d*", "e=", ""]
    );
    assert_eq!(words("apps man | man -l -"), ["apps", "man"]);
}

#[test]
fn every_command_has_examples_and_each_is_one_that_it_takes() {
    let commands = commands();
    assert!(commands.len() > 18, "{commands:?}");
    for command in &commands {
        let examples = examples(command);
        assert!(!examples.is_empty(), "{command:?} has no example");
        for example in &examples {
            let words = words(example);
            assert!(words[1..].starts_with(command), "{command:?}: {example}");
            let parsed = Args::command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{example}\n{}", parsed.unwrap_err());
        }
    }
}

#[test]
fn examples_that_need_no_run_do_what_they_say() {
    /// What stands for a person's own: runs, pictures, many files, indices.
    const OWN: [&str; 7] = [
        "runs/",
        "photos/",
        "crawl/",
        "pairs.jsonl",
        "train.csv",
        "notes.jsonl",
        ".index",
    ];
    let bench = Bench::new(APPS, &[]);
    bench.write(
        "texts.txt",
        "a small bird that sings\na tool made of iron\n",
    );
    let row = |i: usize| format!("\"text, number {i}\",{}\n", i % 5 + 1);
    let rows: String = (0..60).map(row).collect();
    bench.write("reviews.csv", format!("text,stars\n{rows}"));
    let mut done = BTreeSet::new();
    let all = commands();
    for example in all.iter().flat_map(|command| examples(command)) {
        if OWN.iter().any(|own| example.contains(own)) || !done.insert(example.clone()) {
            continue;
        }
        let words = words(&example);
        let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let output = bench.bare(&args).output().unwrap();
        // A validation may find something.
        let expected: &[Option<i32>] = if args.contains(&"validate") {
            &[Some(0), Some(1)]
        } else {
            &[Some(0)]
        };
        let code = output.status.code();
        assert!(expected.contains(&code), "{example}: {}", message(&output));
    }
    let ran = |start: &str| done.iter().any(|example| example.starts_with(start));
    for command in ["fill-mask", "dump", "datasets", "completions", "man"] {
        assert!(ran(&format!("apps {command}")), "{command}: {done:?}");
    }
    for file in ["dump.safetensors", "nouns.svg", "digits.png", "man1/apps.1"] {
        assert!(fs::metadata(bench.path(file)).unwrap().len() > 0, "{file}");
    }
}

#[test]
fn the_help_says_where_more_is() {
    let help = printed(&["--help"]);
    assert!(
        help.contains("  chat ") && help.contains("  completions "),
        "{help}"
    );
    programs::assert_more(APPS);
}

#[test]
fn colours_can_be_had_off() {
    let fill = [
        "fill-mask",
        "--model",
        "wordnet-bert-nano",
        "a small [MASK]",
    ];
    let wrong = ["fill-mask", "--model", "no-such-model", "[MASK]"];
    let plain: [&[&str]; 3] = [&["datasets", "list"], &fill, &wrong];
    programs::assert_colours(APPS, &plain);
}

#[test]
fn shells_complete_commands() {
    let words = ["fill-mask", "describe", "repetition-penalty"];
    programs::assert_completions(APPS, &words, ["fi", "fill-mask"]);
}

#[test]
fn every_command_has_a_manual_page() {
    let names = commands().into_iter().map(|words| {
        let words = words.iter().map(String::as_str);
        let words: Vec<&str> = ["apps"].into_iter().chain(words).collect();
        words.join("-")
    });
    programs::assert_manual(APPS, &names.collect());
}
