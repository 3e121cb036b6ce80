//! Rows of standard input. In: lines. Out: a row each, a text or what a JSON object holds.

use std::io::BufRead;

use serde_json::{Map, Value};
use train::Failure;

use super::{Columns, InputRow, Wanted};
use crate::task::{Reads, Row};

/// Lines that are not empty, with their numbers.
///
/// # Errors
///
/// Bytes that are no UTF-8, or an input that breaks off.
pub fn read_lines(lines: impl BufRead) -> Result<Vec<(usize, String)>, Failure> {
    let mut all = Vec::new();
    for (number, line) in (1..).zip(lines.lines()) {
        let line = line.map_err(|error| Failure::input(format!("-:{number}: {error}")))?;
        if !line.trim().is_empty() {
            all.push((number, line));
        }
    }
    Ok(all)
}

/// A row a line.
pub(super) fn rows(
    lines: Vec<(usize, String)>,
    columns: Columns<'_>,
    wanted: &Wanted,
) -> Vec<InputRow> {
    let row = |(number, line): (usize, String)| InputRow {
        place: Some(format!("-:{number}")),
        row: row(line, columns, wanted),
    };
    lines.into_iter().map(row).collect()
}

/// A line as a row, or why it is none.
fn row(line: String, columns: Columns<'_>, wanted: &Wanted) -> Result<Row, String> {
    // A text may begin with a brace, too.
    let object = match serde_json::from_str(&line) {
        Ok(Value::Object(object)) => object,
        _ if line.trim_start().starts_with("{\"") => return Err("is no JSON object".into()),
        _ => Map::from_iter([(columns.text.to_string(), Value::String(line))]),
    };
    let usual = wanted.usual;
    let second = columns.second.unwrap_or(usual.second);
    let first = find(&object, columns.text, usual.text)?;
    if let (Reads::Sentence, Value::Array(words)) = (wanted.reads, first) {
        let words: Result<Vec<String>, String> =
            words.iter().map(|word| text(usual.text, word)).collect();
        return Ok(Row::Words(words?));
    }
    let mut texts = vec![text(columns.text, first)?];
    match wanted.reads {
        Reads::Texts if columns.second.is_none() => {}
        Reads::Sentence | Reads::Source | Reads::Image => {}
        Reads::Texts | Reads::Question => {
            texts.push(text(second, find(&object, second, usual.second)?)?);
        }
        Reads::Choices => {
            let choices = find(&object, second, usual.second)?;
            let choices = choices.as_array().map_or(&[][..], Vec::as_slice);
            if choices.len() < 2 {
                return Err(format!("\"{second}\" is no list of at least two choices"));
            }
            for choice in choices {
                texts.push(text(second, choice)?);
            }
        }
    }
    Ok(Row::Texts(texts))
}

/// The value of a key, or of the task's usual one.
fn find<'a>(object: &'a Map<String, Value>, key: &str, usual: &str) -> Result<&'a Value, String> {
    let found = object.get(key).or_else(|| object.get(usual));
    found.ok_or_else(|| format!("\"{key}\" is missing"))
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::String(_) => Err(format!("\"{key}\" is empty")),
        _ => Err(format!("\"{key}\" is no text")),
    }
}
