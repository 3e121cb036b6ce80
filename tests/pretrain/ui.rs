//! Every `--ui` shows the same figures: those of `metrics.jsonl`.
//!
//! The dashboard needs a terminal, which `script` of util-linux makes; vt100 tells what stands on it. Without `script`
//! that test is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::num::NonZeroU16;
use std::process::{Command, Output, Stdio};

use crate::support::{Bench, Run, message, skipped};
use serde_json::Value;

/// Figures as they are printed, by name.
type Printed = BTreeMap<String, String>;

/// Of a training step, what lines show only where there are some.
const SKIPPED: &str = "skipped_steps";

/// A few seconds of `mlm`: the dashboard draws ten times a second.
fn bench() -> Bench {
    let settings = [
        "training.steps=1000",
        "training.log_every=8",
        "training.validate_every=60",
    ];
    let bench = Bench::mlm(env!("CARGO_BIN_EXE_pretrain"), &settings);
    let kinds = ["bird", "tool", "plant", "river", "metal"];
    let texts = (0..300).map(|n| format!("{n} a {} of number {}\n", kinds[n % 5], n % 7));
    bench.write("texts.txt", texts.collect::<String>());
    bench
}

/// The lines of JSON in a text.
fn events(lines: &str) -> Vec<Value> {
    let event = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    lines.lines().map(event).collect()
}

fn log(run: &Run) -> String {
    fs::read_to_string(run.path().join("metrics.jsonl")).unwrap()
}

/// Figures that an event has for people: its metrics, and of a training step its rates.
fn names(event: &Value) -> BTreeSet<&str> {
    let metrics = event["metrics"].as_object().unwrap();
    let rates: &[&str] = if event["split"] == "train" {
        &["lr", "tokens_per_second"]
    } else {
        &[]
    };
    let metrics = metrics.keys().map(String::as_str);
    metrics.chain(rates.iter().copied()).collect()
}

fn figure(event: &Value, name: &str) -> f64 {
    let places = [
        &event["metrics"][name],
        &event["timing"][name],
        &event[name],
    ];
    places.into_iter().find_map(Value::as_f64).unwrap()
}

fn step(event: &Value) -> u64 {
    event["step"].as_u64().unwrap()
}

/// Whether this is the figure, rounded to four digits or to four decimals, if not finer.
fn agrees(printed: &str, figure: f64) -> bool {
    if printed == "0" {
        return figure == 0.0;
    }
    let (digits, exponent) = printed.split_once('e').unwrap_or((printed, "0"));
    let decimals = digits.split_once('.').map_or(0, |(_, after)| after.len());
    let half = 0.5 * 10f64.powi(exponent.parse::<i32>().unwrap() - decimals as i32);
    let fine = half <= f64::max(5e-4 * figure.abs(), 5e-5) * (1.0 + 1e-9);
    let value: f64 = printed.parse().unwrap();
    fine && (value - figure).abs() <= half * (1.0 + 1e-9)
}

// Lines.

#[test]
fn lines_and_json_show_the_figures_of_the_log() {
    let bench = bench();
    let start = |ui| bench.command(&["--ui", ui, "--out", ui]);
    let (json, output) = bench.finish(&mut start("json"), "json");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(events(&printed), events(&log(&json)));

    let (plain, output) = bench.finish(&mut start("plain"), "plain");
    plain.assert_equals(&json);
    let printed = String::from_utf8(output.stdout).unwrap();
    let reports = |line: &&str| line.starts_with("step ") || line.starts_with("valid ");
    let lines: Vec<_> = printed.lines().filter(reports).collect();
    let events = events(&log(&plain));
    assert_eq!(lines.len(), events.len(), "{printed}");
    for (line, event) in lines.into_iter().zip(&events) {
        assert_line(line, event);
    }
}

/// A line shows an event: which it is, and all of its figures.
fn assert_line(line: &str, event: &Value) {
    let (split, rest) = line.split_once(' ').unwrap();
    let split = if split == "step" { "train" } else { split };
    assert_eq!(event["split"], split, "{line}");
    let at = rest.trim_start().split([' ', '/']).next().unwrap();
    assert_eq!(at.parse::<u64>().unwrap(), step(event), "{line}");
    let printed = printed(rest);
    let shown: BTreeSet<_> = printed.keys().map(String::as_str).collect();
    assert_eq!(shown, names(event), "{line}");
    for (name, value) in &printed {
        let figure = figure(event, name);
        assert!(agrees(value, figure), "{name} {figure}: {line}");
    }
}

/// `loss 6.703  accuracy 0.1130  18672 tokens/s`, whatever else stands around it.
fn printed(line: &str) -> Printed {
    let figure = |part: &str| {
        let (first, second) = part.trim().split_once(' ')?;
        let number = |text: &str| text.parse::<f64>().is_ok();
        match second.strip_suffix("/s") {
            Some(unit) if number(first) => Some((format!("{unit}_per_second"), first.to_string())),
            None if number(second) => Some((first.to_string(), second.to_string())),
            _ => None,
        }
    };
    line.split("  ").filter_map(figure).collect()
}

// The dashboard.

const ROWS: u16 = 60;
const COLUMNS: u16 = 200;

/// A shell's command on a new terminal; what that shows is the output.
fn on_a_terminal(bench: &Bench, line: &str) -> Command {
    let line = format!("stty rows {ROWS} cols {COLUMNS} && {line}");
    let mut command = Command::new("script");
    command.args(["-qfec", &line, "/dev/null"]);
    command.current_dir(bench.path("."));
    command.env("SHELL", "/bin/sh");
    command.env("HEARTH_CACHE", bench.cache());
    command.stdin(Stdio::null());
    command
}

/// What a new terminal shows of a command; none, and a test that is skipped, where there is no terminal to be had.
fn shown(bench: &Bench, command: &Command) -> Option<Output> {
    let probe = on_a_terminal(bench, "true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        skipped("no terminal can be had here: script, of util-linux, is missing");
        return None;
    }
    let quoted = |part: &OsStr| format!("'{}'", part.to_string_lossy());
    let words: Vec<_> = command.get_args().map(quoted).collect();
    let line = format!("exec {} {}", quoted(command.get_program()), words.join(" "));
    Some(on_a_terminal(bench, &line).output().unwrap())
}

#[test]
fn lines_have_no_colours_on_a_terminal_either() {
    let bench = bench();
    let command = bench.command(&["--ui", "plain", "--dry-run"]);
    let Some(output) = shown(&bench, &command) else {
        return;
    };
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}{}", message(&output));
    assert!(text.contains("\nstep "), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn the_dashboard_shows_the_figures_of_the_log() {
    let bench = bench();
    let command = bench.command(&["--ui", "tui", "--out", "tui"]);
    let Some(output) = shown(&bench, &command) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", message(&output));

    let run = bench.run("tui");
    run.assert_equals(&bench.train("silent", &[]));
    let dashboard = Dashboard::last(&output.stdout);
    let events = events(&log(&run));
    for split in ["train", "valid"] {
        let of_split = |event: &&Value| event["split"] == split;
        let events: Vec<_> = events.iter().filter(of_split).collect();
        dashboard.assert_shows(split, &events);
    }
}

/// What the dashboard shows beside its plots.
#[derive(Debug)]
struct Dashboard {
    /// By split.
    figures: BTreeMap<String, Printed>,
    step: u64,
}

impl Dashboard {
    /// As it was when the terminal was given back.
    fn last(output: &[u8]) -> Self {
        const LEAVE: &[u8] = b"\x1b[?1049l";
        let end = output
            .windows(LEAVE.len())
            .rposition(|bytes| bytes == LEAVE);
        let size = |n| NonZeroU16::new(n).unwrap();
        let mut terminal = vt100::Parser::new(size(ROWS), size(COLUMNS), 0);
        terminal.process(&output[..end.unwrap()]);
        let screen = terminal.screen();
        assert!(screen.alternate_screen());
        let rows: Vec<_> = screen.rows(0, COLUMNS).collect();
        Self::read(&rows)
    }

    fn read(rows: &[String]) -> Self {
        let mut figures: BTreeMap<String, Printed> = BTreeMap::new();
        let mut name = String::new();
        for line in panel(rows, "Metrics") {
            match line.split_once(' ') {
                Some((split, value)) => {
                    let of_split = figures.entry(split.to_lowercase()).or_default();
                    of_split.insert(name.clone(), value.into());
                }
                None if line.is_empty() => {}
                None => name = line,
            }
        }
        let lines = panel(rows, "Status");
        let step = lines
            .iter()
            .find_map(|line| line.strip_prefix("Iteration :"));
        let step = step.unwrap_or_else(|| panic!("no step among {lines:?}"));
        Self {
            figures,
            step: step.trim().parse().unwrap(),
        }
    }

    /// Every figure of a split, each as the log has it.
    fn assert_shows(&self, split: &str, events: &[&Value]) {
        let printed = &self.figures[split];
        let shown: BTreeSet<_> = printed.keys().map(String::as_str).collect();
        let mut expected = names(events[0]);
        if split == "train" {
            expected.insert(SKIPPED);
        }
        assert_eq!(shown, expected, "{split}: {self:?}");
        for (name, value) in printed {
            if name == SKIPPED {
                assert_eq!(value, "0");
                continue;
            }
            let mut figures = self.newest(events).iter().map(|event| figure(event, name));
            assert!(
                figures.any(|figure| agrees(value, figure)),
                "{split}, {name}: {self:?}"
            );
        }
    }

    /// The events around its step. A draw may fall anywhere: figures arrive one by one, then their step; those of a
    /// validation after those of the training step before it.
    fn newest<'a>(&self, events: &'a [&'a Value]) -> &'a [&'a Value] {
        let done = events.partition_point(|event| step(event) <= self.step);
        &events[done.saturating_sub(2)..events.len().min(done + 1)]
    }
}

/// The lines in a box at the left edge.
fn panel(rows: &[String], title: &str) -> Vec<String> {
    let top = format!("┌{title}─");
    let inside = rows.iter().skip_while(|row| !row.starts_with(&top)).skip(1);
    let inside = inside.take_while(|row| row.starts_with('│'));
    let line = |row: &String| row.split('│').nth(1).unwrap_or_default().trim().to_string();
    inside.map(line).collect()
}
