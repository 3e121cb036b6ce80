//! What the command lines of all programs have in common: help, colours, completions, manual pages.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::skipped;

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// Begins every colour.
const ESCAPE: u8 = 0x1b;

/// A program without what this machine says about colours.
fn program(binary: &str) -> Command {
    let mut command = Command::new(binary);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm");
    command
}

/// What a program prints that must succeed.
fn printed(binary: &str, args: &[&str]) -> String {
    let output = program(binary).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The last line of the help names sections of the README that are there.
pub fn assert_more(binary: &str) {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let help = printed(binary, &["--help"]);
    let last = help.trim_end().lines().next_back().unwrap();
    assert!(last.starts_with("More: README.md, sections "), "{last}");
    let sections: Vec<_> = last.split('"').skip(1).step_by(2).collect();
    assert!(sections.len() >= 2, "{last}");
    for section in sections {
        let heading = format!("\n## {section}\n");
        assert!(readme.contains(&heading), "{section}");
    }
}

/// Help and refusals are coloured on a terminal alone, and not where NO_COLOR is set and not empty, <https://no-color.org>; what a
/// program does is not coloured at all.
///
/// - plain: arguments of commands that do something
pub fn assert_colours(binary: &str, plain: &[&[&str]]) {
    for args in [&["--help"][..], &["--no-such-flag"]] {
        let Output { stdout, stderr, .. } = program(binary).args(args).output().unwrap();
        assert!(!stdout.is_empty() || !stderr.is_empty(), "{args:?}");
        let is_coloured = stdout.contains(&ESCAPE) || stderr.contains(&ESCAPE);
        assert!(!is_coloured, "{args:?}");
    }
    if !cfg!(target_os = "linux") || on_a_terminal("true", &[], None).is_none() {
        skipped("no terminal can be had here: script, of util-linux, is missing");
        return;
    }
    let is_coloured = |args: &[&str], no_color| {
        let shown = on_a_terminal(binary, args, no_color).unwrap();
        assert!(!shown.is_empty(), "{args:?}");
        shown.contains(&ESCAPE)
    };
    for args in [&["--help"][..], &["--no-such-flag"]] {
        assert!(is_coloured(args, None), "{args:?}");
        assert!(is_coloured(args, Some("")), "{args:?}");
        assert!(!is_coloured(args, Some("1")), "{args:?}");
    }
    for args in plain {
        assert!(!is_coloured(args, None), "{args:?}");
    }
}

/// What a new terminal shows of a program; none where there is no terminal to be had.
fn on_a_terminal(binary: &str, args: &[&str], no_color: Option<&str>) -> Option<Vec<u8>> {
    let words = [&[binary], args].concat();
    let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let mut command = program("script");
    // A refusal is shown as well: how the program ends is not asked for.
    let line = format!("{} || true", words.join(" "));
    command.args(["-qfec", &line, "/dev/null"]);
    command.env("SHELL", "/bin/sh");
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    let output = command.output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// Each shell gets a script that names the words; bash can run its own.
///
/// - words: subcommands and flags
/// - begun, whole: the beginning of a subcommand, and what bash makes of it
pub fn assert_completions(binary: &str, words: &[&str], [begun, whole]: [&str; 2]) {
    let name = Path::new(binary).file_stem().unwrap().to_str().unwrap();
    for shell in SHELLS {
        let script = printed(binary, &["completions", shell]);
        for word in words {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let refused = program(binary)
        .args(["completions", "cmd"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));

    let line = format!(
        "{}\nCOMP_WORDS=({name} {begun}); COMP_CWORD=1; _{name} {name} {begun} {name}; echo \"${{COMPREPLY[@]}}\"",
        printed(binary, &["completions", "bash"])
    );
    match Command::new("bash").args(["--norc", "-c", &line]).output() {
        Ok(output) => {
            let completed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(completed.trim_end(), whole);
        }
        Err(_) => skipped("there is no bash here"),
    }
}

/// There is a page for the program and for each of its subcommands.
///
/// - names: of all pages
pub fn assert_manual(binary: &str, names: &BTreeSet<String>) {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("new/man1");
    let place = pages.display().to_string();
    let told = printed(binary, &["man", "--output", &place]);
    assert_eq!(told, format!("{} pages: {place}\n", names.len()));
    let entries = fs::read_dir(&pages).unwrap();
    let found = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let expected: BTreeSet<_> = names.iter().map(|name| format!("{name}.1")).collect();
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
    let all = printed(binary, &["man"]);
    for name in names {
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(all.contains(&page), "{name}");
        // troff has a backslash before each hyphen.
        let title = format!(".TH {name} 1");
        assert!(page.replace('\\', "").contains(&title), "{name}: {page}");
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }

    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let place = file.display().to_string();
    let output = program(binary).args(["man", "--output", &place]).output();
    let output = output.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.starts_with(&format!("error: {place}: ")), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}
