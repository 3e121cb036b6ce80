//! What was trained, what came of it, and by which recipe.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context;
use serde_json::Value;
use train::metrics::{Better, short};
use train::ui::duration;
use train::{Failure, FailureKind};

use super::html::{Cell, Table, escape, note, paragraph};
use crate::record::Record;

/// The first lines of a page.
pub(super) fn lead(record: &Record) -> String {
    let task = record.task().unwrap_or("a run");
    paragraph(&format!("{task}: {}.", record.ending()))
}

/// What was trained.
pub(super) fn trained(record: &Record) -> String {
    let mut body = Table::of_facts("The run", record.facts()).markup();
    let times = record.summary("/timing").and_then(Value::as_object);
    let times = times.into_iter().flatten();
    let times: Vec<_> = times
        .filter_map(|(part, seconds)| Some((part.replace('_', " "), duration(seconds.as_f64()?))))
        .collect();
    if !times.is_empty() {
        let times = times
            .iter()
            .map(|(part, time)| (part.as_str(), time.clone()));
        body += &Table::of_facts("Where the time went", times).markup();
    }
    body
}

/// The figures of the best step, of the last validation and of the test.
pub(super) fn figures(record: &Record) -> String {
    let Some(table) = table_of_figures(record) else {
        return note("No validation has been recorded.");
    };
    let chosen = format!(
        "The best step is chosen by {} of the validation.",
        record.run.metric()
    );
    let mut body = paragraph(&chosen) + &table.markup();
    if record.summary("/test/metrics").is_none() {
        body += &note("The run holds no figures of a test split.");
    }
    body
}

/// A row a figure, a column a split that was judged; nothing where none was.
pub(crate) fn table_of_figures(record: &Record) -> Option<Table> {
    let last_validation = || {
        let mut events = record.run.events.iter().rev();
        events
            .find(|event| event["split"] == "valid")
            .map(|event| &event["metrics"])
    };
    let best = record.number("/best/step").map_or_else(
        || "best validation".into(),
        |step| format!("best validation, step {step:.0}"),
    );
    let columns = [
        (best, record.summary("/best/metrics")),
        (
            "last validation".to_string(),
            record.summary("/final/metrics").or_else(last_validation),
        ),
        (
            "test, with the model of the best step".into(),
            record.summary("/test/metrics"),
        ),
    ];
    let columns: Vec<_> = columns
        .into_iter()
        .filter_map(|(name, metrics)| Some((name, metrics?.as_object()?)))
        .collect();
    if columns.is_empty() {
        return None;
    }
    let names: BTreeSet<&String> = columns
        .iter()
        .flat_map(|(_, metrics)| metrics.keys())
        .collect();
    let row = |name: &&String| {
        let better = Better::of_run(&record.run.summary, name);
        let better = better.map_or("-".into(), |better| better.to_string());
        let figure = |(_, metrics): &(String, &serde_json::Map<String, Value>)| {
            Cell::Number(metrics.get(*name).map_or("-".into(), number))
        };
        let mut row = vec![Cell::Text((*name).clone()), Cell::Text(better)];
        row.extend(columns.iter().map(figure));
        row
    };
    let mut head = vec!["figure".to_string(), "which is better".into()];
    head.extend(columns.iter().map(|(name, _)| name.clone()));
    Some(Table {
        caption: "Figures by split".into(),
        head,
        rows: names.iter().map(row).collect(),
    })
}

/// A figure for people; what is not finite is `null` in JSON.
pub(super) fn number(value: &Value) -> String {
    match value {
        Value::Null => "not a number".into(),
        other => match other.as_f64() {
            // Counts stay whole.
            Some(value) if other.is_u64() || other.is_i64() => crate::record::grouped(value),
            Some(value) => short(value),
            None => other.to_string(),
        },
    }
}

/// The recipe as it was resolved.
///
/// # Errors
///
/// A file that has gone in the meantime.
pub(super) fn recipe(record: &Record) -> Result<String, Failure> {
    let path = record.path.join("recipe.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string());
    let text = escape(text.input()?.trim_end());
    let what = paragraph("Every key, as the run was started with it (recipe.toml).");
    Ok(format!("{what}<pre><code>{text}</code></pre>\n"))
}
