//! Reads rows of any columns. In: CSV, TSV, JSON, JSONL, Parquet or tagged words, and the names of fields. Out: their values, a
//! row at a time.
//!
//! A field of several Parquet columns (`answers.text`, `answers.answer_start`) is an object of them. An element of a JSON file
//! with `paragraphs`, as SQuAD's own files have it, is a row for each question.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::conll::Sentences;
use crate::file::{Bytes, Lines, utf8};
use crate::json::JsonElements;
use crate::parquet::{self, Cell, ParquetRows};
use crate::table::Table;
use crate::text::Format;
use crate::{DataError, file};

/// A field that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// Whether a row without it is faulty.
    pub(crate) required: bool,
}

impl Wanted {
    pub(crate) fn required(name: &str) -> Self {
        Self {
            name: name.into(),
            required: true,
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldRow {
    /// One a wanted field; `null` where it is missing and may be.
    pub(crate) values: Vec<Value>,
    /// Where it begins, 1-based; its number in Parquet.
    pub(crate) line: usize,
}

/// The rows of one file.
pub(crate) struct FieldRows {
    path: PathBuf,
    wanted: Vec<Wanted>,
    /// Whether the rows of JSON are whole objects.
    whole: bool,
    records: Records,
    waiting: VecDeque<Result<FieldRow, DataError>>,
}

enum Records {
    /// A text a line.
    Lines(Lines),
    Table {
        table: Box<Table>,
        /// Where each wanted field stands.
        at: Vec<Option<usize>>,
        count: usize,
    },
    Jsonl(Lines),
    Json(Box<JsonElements>),
    Parquet {
        rows: Box<ParquetRows>,
        parts: Vec<Vec<Part>>,
    },
    Sentences(Box<Sentences>),
}

/// A column of Parquet that a field is, or is made of.
struct Part {
    /// Place among the columns that are read.
    at: usize,
    /// Its key in an object; `None` where it is the whole field.
    key: Option<String>,
}

impl FieldRows {
    /// - tagged: whether `.txt` and a `.tsv` without these columns hold tagged words
    ///
    /// # Errors
    /// No such file, an extension that is not known, or a column that is missing.
    pub(crate) fn open(path: &Path, wanted: &[Wanted], tagged: bool) -> Result<Self, DataError> {
        let format = Format::of(path)?;
        if format == Format::Parquet {
            let records = open_parquet(path, wanted)?;
            return Ok(Self::new(path, wanted, records));
        }
        match Self::read(path, format, file::open(path)?, wanted, tagged) {
            Err(DataError::ColumnMissing { .. }) if tagged && format == Format::Tsv => {
                Self::read(path, Format::Conll, file::open(path)?, wanted, tagged)
            }
            rows => rows,
        }
    }

    /// - path: what messages call it
    ///
    /// # Errors
    /// Bytes that are no text, or a column that is missing.
    pub(crate) fn read(
        path: &Path,
        format: Format,
        bytes: Bytes,
        wanted: &[Wanted],
        tagged: bool,
    ) -> Result<Self, DataError> {
        if format == Format::Json {
            let records = Records::Json(Box::new(JsonElements::new(path, bytes)?));
            return Ok(Self::new(path, wanted, records));
        }
        let lines = Lines::new(path, bytes)?;
        let records = match format {
            Format::Jsonl => Records::Jsonl(lines),
            Format::Csv | Format::Tsv => open_table(path, lines, format, wanted)?,
            Format::Lines if !tagged => {
                return Err(DataError::NoLabelsInLines { path: path.into() });
            }
            Format::Lines | Format::Conll | Format::Json | Format::Parquet => {
                Records::Sentences(Box::new(Sentences::new(lines)))
            }
        };
        Ok(Self::new(path, wanted, records))
    }

    /// Opens a file for all the fields of its rows, which [`next_whole`](Self::next_whole) gives.
    ///
    /// - needed: fields that have to be there; the first names what has no name
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_whole(path: &Path, needed: &[&str]) -> Result<Self, DataError> {
        let format = Format::of(path)?;
        if format != Format::Parquet {
            return Self::read_whole(path, format, file::open(path)?, needed);
        }
        let mut names: Vec<String> = Vec::new();
        for column in parquet::column_names(path)? {
            let name = column.split('.').next().unwrap_or(&column);
            if !names.iter().any(|known| known == name) {
                names.push(name.into());
            }
        }
        check_needed(path, needed, &names)?;
        let wanted: Vec<Wanted> = names.iter().map(|name| Wanted::required(name)).collect();
        let records = open_parquet(path, &wanted)?;
        Ok(Self::new(path, &wanted, records))
    }

    /// The same of bytes.
    ///
    /// - path: what messages call it
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_whole(
        path: &Path,
        format: Format,
        bytes: Bytes,
        needed: &[&str],
    ) -> Result<Self, DataError> {
        let named = |names: &[&str]| -> Vec<Wanted> {
            names.iter().map(|name| Wanted::required(name)).collect()
        };
        let (wanted, records) = match format {
            Format::Json => {
                let elements = JsonElements::new(path, bytes)?;
                (named(needed), Records::Json(Box::new(elements)))
            }
            Format::Jsonl => (named(needed), Records::Jsonl(Lines::new(path, bytes)?)),
            Format::Csv | Format::Tsv => {
                let lines = Lines::new(path, bytes)?;
                let mut table = Box::new(Table::new(lines, format == Format::Csv));
                let names = table.header_of(needed)?;
                let names = names.ok_or_else(|| DataError::NoExample { path: path.into() })?;
                let wanted: Vec<Wanted> = names.iter().map(|name| Wanted::required(name)).collect();
                let (at, count) = ((0..names.len()).map(Some).collect(), names.len());
                (wanted, Records::Table { table, at, count })
            }
            Format::Lines | Format::Parquet => match needed {
                [text] => (named(&[text]), Records::Lines(Lines::new(path, bytes)?)),
                _ => return Err(DataError::NoLabelsInLines { path: path.into() }),
            },
            Format::Conll => {
                let names = ["tokens", "tags"];
                check_needed(path, needed, &names.map(String::from))?;
                let sentences = Sentences::new(Lines::new(path, bytes)?);
                (named(&names), Records::Sentences(Box::new(sentences)))
            }
        };
        Ok(Self {
            whole: true,
            ..Self::new(path, &wanted, records)
        })
    }

    /// The next row with all its fields and the line where it begins, or what is wrong with it.
    ///
    /// # Errors
    /// The file can't be read on.
    #[allow(clippy::type_complexity, reason = "a row, a bad row, or none")]
    pub(crate) fn next_whole(
        &mut self,
    ) -> Result<Option<Result<(Map<String, Value>, usize), DataError>>, DataError> {
        let is_object = matches!(self.records, Records::Json(_) | Records::Jsonl(_));
        let next = self.next()?;
        Ok(next.map(|row| {
            let FieldRow { mut values, line } = row?;
            let fields = match values.first_mut() {
                Some(Value::Object(object)) if is_object => std::mem::take(object),
                _ => {
                    let names = self.wanted.iter().map(|field| field.name.clone());
                    names.zip(values).collect()
                }
            };
            Ok((fields, line))
        }))
    }

    fn new(path: &Path, wanted: &[Wanted], records: Records) -> Self {
        Self {
            path: path.into(),
            wanted: wanted.to_vec(),
            whole: false,
            records,
            waiting: VecDeque::new(),
        }
    }

    /// Names of the classes that a field's whole numbers number; none where the file has none.
    pub(crate) fn class_names(&self, field: &str) -> Option<Vec<String>> {
        match &self.records {
            Records::Parquet { rows, .. } => rows.class_names_of(field),
            _ => None,
        }
    }

    /// The next row, or what is wrong with it.
    ///
    /// # Errors
    /// The file can't be read on.
    pub(crate) fn next(&mut self) -> Result<Option<Result<FieldRow, DataError>>, DataError> {
        if let Some(row) = self.waiting.pop_front() {
            return Ok(Some(row));
        }
        match self.row() {
            Ok(row) => Ok(row.map(Ok)),
            Err(error) if error.row_fault().is_some() => Ok(Some(Err(error))),
            Err(error) => Err(error),
        }
    }

    fn row(&mut self) -> Result<Option<FieldRow>, DataError> {
        let path = &self.path;
        let of_object = |object: Map<String, Value>, line| {
            let mut row = fields(path, &self.wanted, &object, line)?;
            if self.whole {
                row.values = vec![Value::Object(object)];
            }
            Ok(row)
        };
        match &mut self.records {
            Records::Lines(lines) => loop {
                let Some((bytes, line)) = lines.next()? else {
                    return Ok(None);
                };
                let text = utf8(path, bytes, line)?.trim_end_matches(['\n', '\r']);
                if !text.trim().is_empty() {
                    let values = vec![Value::from(text)];
                    return Ok(Some(FieldRow { values, line }));
                }
            },
            Records::Table { table, at, count } => {
                let Some(record) = table.next()? else {
                    return Ok(None);
                };
                let line = record.line;
                if record.len() != *count {
                    return Err(DataError::FieldCount {
                        path: path.clone(),
                        line,
                        found: record.len(),
                        expected: *count,
                    });
                }
                let value = |at: &Option<usize>| match at {
                    Some(at) => utf8(path, record.field(*at), line).map(Value::from),
                    None => Ok(Value::Null),
                };
                let values = at.iter().map(value).collect::<Result<_, _>>()?;
                Ok(Some(FieldRow { values, line }))
            }
            Records::Jsonl(lines) => loop {
                let Some((bytes, line)) = lines.next()? else {
                    return Ok(None);
                };
                let text = utf8(path, bytes, line)?;
                if !text.trim().is_empty() {
                    return of_object(object(path, text, line)?, line).map(Some);
                }
            },
            Records::Json(elements) => loop {
                let Some((bytes, line)) = elements.next()? else {
                    return Ok(None);
                };
                let object = object(path, utf8(path, bytes, line)?, line)?;
                let Some(Value::Array(paragraphs)) = object.get("paragraphs") else {
                    return of_object(object, line).map(Some);
                };
                for question in paragraphs.iter().flat_map(questions) {
                    // A question that is faulty costs none of the others.
                    let row = question.map_err(|reason| DataError::UnusableRow {
                        path: path.clone(),
                        line,
                        reason,
                    });
                    let row = row.and_then(|row| of_object(row, line));
                    self.waiting.push_back(row);
                }
                if let Some(row) = self.waiting.pop_front() {
                    return row.map(Some);
                }
            },
            Records::Parquet { rows, parts } => {
                let Some((cells, line)) = rows.next()? else {
                    return Ok(None);
                };
                let cells: Vec<Value> = cells.into_iter().map(cell_value).collect();
                let field = |parts: &Vec<Part>| match parts.as_slice() {
                    [] => Value::Null,
                    [Part { at, key: None }] => cells[*at].clone(),
                    parts => {
                        let pair = |part: &Part| Some((part.key.clone()?, cells[part.at].clone()));
                        Value::Object(parts.iter().filter_map(pair).collect())
                    }
                };
                let values = parts.iter().map(field).collect();
                Ok(Some(FieldRow { values, line }))
            }
            Records::Sentences(sentences) => {
                let Some(sentence) = sentences.next()? else {
                    return Ok(None);
                };
                let mut values = vec![Value::from(sentence.words), Value::from(sentence.tags)];
                values.resize(self.wanted.len(), Value::Null);
                let line = sentence.line;
                Ok(Some(FieldRow { values, line }))
            }
        }
    }
}

fn open_table(
    path: &Path,
    lines: Lines,
    format: Format,
    wanted: &[Wanted],
) -> Result<Records, DataError> {
    let mut table = Box::new(Table::new(lines, format == Format::Csv));
    let required = wanted.iter().filter(|field| field.required);
    let required: Vec<&str> = required.map(|field| field.name.as_str()).collect();
    let names = table.header_of(&required)?;
    let names = names.ok_or_else(|| DataError::NoExample { path: path.into() })?;
    let at = |field: &Wanted| names.iter().position(|name| *name == field.name);
    Ok(Records::Table {
        at: wanted.iter().map(at).collect(),
        count: names.len(),
        table,
    })
}

/// # Errors
/// A field that is none of the columns, nor inside of one.
fn check_needed(path: &Path, needed: &[&str], names: &[String]) -> Result<(), DataError> {
    let is_there = |name: &str| {
        let whole = name.split('.').next().unwrap_or(name);
        names.iter().any(|known| known == name || known == whole)
    };
    match needed.iter().find(|name| !is_there(name)) {
        None => Ok(()),
        Some(name) => Err(DataError::ColumnMissing {
            path: path.into(),
            line: 1,
            column: name.to_string(),
            columns: names.to_vec(),
        }),
    }
}

fn open_parquet(path: &Path, wanted: &[Wanted]) -> Result<Records, DataError> {
    let names = parquet::column_names(path)?;
    let mut read: Vec<String> = Vec::new();
    let mut parts = Vec::new();
    for field in wanted {
        let inside = format!("{}.", field.name);
        let under = names.iter().filter_map(|name| name.strip_prefix(&inside));
        let mut keys: Vec<&str> = under.filter_map(|rest| rest.split('.').next()).collect();
        keys.dedup();
        // Of a list the columns are called `list.element`, or `element` in older files.
        let is_list = keys
            .iter()
            .all(|key| matches!(*key, "list" | "element" | "item" | "array"));
        let mut of_field = Vec::new();
        if names.contains(&field.name) || (!keys.is_empty() && is_list) || keys.is_empty() {
            if field.required || names.contains(&field.name) || !keys.is_empty() {
                of_field.push(Part {
                    at: read.len(),
                    key: None,
                });
                read.push(field.name.clone());
            }
        } else {
            for key in keys {
                of_field.push(Part {
                    at: read.len(),
                    key: Some(key.into()),
                });
                read.push(format!("{inside}{key}"));
            }
        }
        parts.push(of_field);
    }
    let rows = Box::new(ParquetRows::open_columns(path, &read)?);
    Ok(Records::Parquet { rows, parts })
}

/// The wanted fields of an object, also by a path of keys such as `meta.label`.
fn fields(
    path: &Path,
    wanted: &[Wanted],
    object: &Map<String, Value>,
    line: usize,
) -> Result<FieldRow, DataError> {
    let value = |field: &Wanted| match field_of(object, &field.name) {
        Some(value) => Ok(value.clone()),
        None if !field.required => Ok(Value::Null),
        None => Err(DataError::KeyMissing {
            path: path.into(),
            line,
            key: field.name.clone(),
            keys: object.keys().cloned().collect(),
        }),
    };
    let values = wanted.iter().map(value).collect::<Result<_, _>>()?;
    Ok(FieldRow { values, line })
}

/// A field of an object by its key, or by a path of keys.
pub(crate) fn field_of<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let nested = || {
        let (first, rest) = name.split_once('.')?;
        let first = object.get(first)?;
        rest.split('.')
            .try_fold(first, |value, part| value.get(part))
    };
    object.get(name).or_else(nested)
}

/// The questions of a paragraph of SQuAD's files, each with its context, or what is wrong with one or with all of them.
fn questions(paragraph: &Value) -> Vec<Result<Map<String, Value>, String>> {
    let Some(asked) = paragraph["qas"].as_array() else {
        return vec![Err("a paragraph without \"qas\"".into())];
    };
    let row = |question: &Value| {
        let mut row = question
            .as_object()
            .cloned()
            .ok_or("a question that is no object")?;
        row.insert("context".into(), paragraph["context"].clone());
        Ok(row)
    };
    asked.iter().map(row).collect()
}

/// The JSON object that a text is.
pub(crate) fn object(
    path: &Path,
    text: &str,
    line: usize,
) -> Result<Map<String, Value>, DataError> {
    let path = path.to_path_buf();
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(DataError::NotAnObject {
            path,
            line,
            found: "something else",
            unit: "row",
        }),
        Err(source) => Err(DataError::Json { path, line, source }),
    }
}

/// A cell of Parquet as JSON.
pub(crate) fn cell_value(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Bytes(bytes) => String::from_utf8_lossy(&bytes).into(),
        Cell::Bool(value) => value.into(),
        // Larger ones are no class.
        Cell::Integer(value) => i64::try_from(value).unwrap_or(i64::MAX).into(),
        Cell::Float(value) => value.into(),
        Cell::Fraction(digits) => digits.parse::<f64>().unwrap_or(f64::NAN).into(),
        Cell::List(items) => items.into_iter().map(cell_value).collect(),
    }
}
