//! Reads text examples. In: files, folders or patterns. Out: [`TextStream`], or [`TextSet`] for what fits in memory.
//!
//! The format follows from the extension, each but Parquet also with `.gz` or `.zst`:
//!
//! - `.txt`, `.text`: a line an example, blank lines skipped, no labels
//! - `.csv`, `.tsv`: a header line names the columns; `.tsv` has no quoting; another separator is recognised
//! - `.jsonl`, `.ndjson`: a JSON object a line
//! - `.json`: an array of objects, `{"data": [...]}`, or objects one after another
//! - `.parquet`: a column of strings, nested ones as `meta.text`; a row's number is given as its line
//!
//! All are UTF-8 or UTF-16. A label is text, an integer, a whole number, true or false. A row without a text or a label, or
//! one that can't be read, is refused or left out ([`TextColumns::bad_rows`]), and counted either way.
//!
//! A stream holds one line, one record or a few rows at a time, so files may be far larger than memory.

mod find;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use burn_dataset::Dataset;
use serde_json::{Map, Value};

use crate::file::{Bytes, Lines, utf8};
use crate::json::JsonElements;
use crate::parquet::{Cell, ParquetRows};
use crate::split::Split;
use crate::table::{Columns, Record, Table};
use crate::{BadRows, DataError, LeftOut, file, labels};

pub(crate) use find::line as unread_line;
pub use find::{TextFiles, Unread, all_text_files, text_files};

const KNOWN: &str =
    ".txt, .text, .csv, .tsv, .jsonl, .ndjson, .json, each also with .gz or .zst, and .parquet";
/// A file with fewer broken rows than these, or than one in a hundred, is taken for UTF-8 all the same.
const OTHER_ENCODING: u64 = 10;

/// One example of text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextExample {
    /// As the file has it.
    pub text: String,
    /// Without white space around it; `None` where no label column was asked for.
    pub label: Option<String>,
    /// Where it stood, 1-based, for error messages.
    pub line: usize,
    /// Index into [`TextSet::files`].
    pub file: u32,
}

/// Which columns or keys to read, and what happens to rows that can't be used.
#[derive(Clone, Debug)]
pub struct TextColumns {
    /// Of the text.
    pub text: String,
    /// Of the label; `None` reads no labels.
    pub label: Option<String>,
    /// Rows without a text or a label, and those that can't be read.
    pub bad_rows: BadRows,
}

impl Default for TextColumns {
    fn default() -> Self {
        Self {
            text: "text".into(),
            label: None,
            bad_rows: BadRows::Refuse,
        }
    }
}

/// Examples in the order of their files and lines.
#[derive(Clone, Debug, Default)]
pub struct TextSet {
    /// The examples.
    pub examples: Vec<TextExample>,
    /// Where they come from.
    pub files: Vec<PathBuf>,
    /// The split of each of `files`, where they are given as splits; else empty.
    pub given: Vec<Split>,
    /// Rows that are not among the examples.
    pub left_out: LeftOut,
    /// Names of all classes in the order that a file gives them; else empty.
    pub class_names: Vec<String>,
    /// What is to be said of files that are not read, a sentence each.
    pub unread: Vec<String>,
}

impl TextSet {
    /// Texts from memory, without labels.
    pub fn from_texts(texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::from_memory(texts.into_iter().map(|text| (text.into(), None)))
    }

    /// Texts from memory, each with its label.
    pub fn from_labelled<T: Into<String>, L: Into<String>>(
        rows: impl IntoIterator<Item = (T, L)>,
    ) -> Self {
        let rows = rows.into_iter();
        Self::from_memory(rows.map(|(text, label)| (text.into(), Some(label.into()))))
    }

    fn from_memory(rows: impl Iterator<Item = (String, Option<String>)>) -> Self {
        let example = |(row, (text, label))| TextExample {
            text,
            label,
            line: row + 1,
            file: 0,
        };
        Self {
            examples: rows.enumerate().map(example).collect(),
            files: vec!["memory".into()],
            ..Self::default()
        }
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The file, or the first of the files, for messages.
    pub fn origin(&self) -> String {
        origin(&self.files)
    }

    /// The split that example `i` is given for; `None` where splits are not given.
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn given_split(&self, i: usize) -> Option<Split> {
        self.given.get(self.examples[i].file as usize).copied()
    }

    /// `path:line` of example `i`.
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn place(&self, i: usize) -> String {
        let TextExample { file, line, .. } = self.examples[i];
        format!("{}:{line}", self.files[file as usize].display())
    }
}

/// One or several files, for messages.
pub(crate) fn origin(files: &[PathBuf]) -> String {
    match files {
        [] => "the texts".into(),
        [file] => file.display().to_string(),
        [first, rest @ ..] => format!("{} and {} more", first.display(), rest.len()),
    }
}

impl Dataset<TextExample> for TextSet {
    fn get(&self, index: usize) -> Option<TextExample> {
        self.examples.get(index).cloned()
    }

    fn len(&self) -> usize {
        self.examples.len()
    }
}

/// Reads files, folders and patterns as [`stream`] does, all into memory.
///
/// # Errors
/// Anything that is missing or malformed, rows that are to be refused, a file without an example.
pub fn read_text(paths: &[PathBuf], columns: &TextColumns) -> Result<TextSet, DataError> {
    stream(paths, columns)?.collect_set()
}

/// Reads files one example at a time; folders as the files of known extensions in them (sorted, not recursive), and
/// patterns (`texts/**/*.jsonl.gz`) as those that match, sorted. Of a folder or pattern `.json` files that are named like
/// settings (`config.json`, `dataset_info.json`) are left out.
///
/// # Errors
/// A path that is missing, or has no known extension. What is malformed is an item of the stream, the last one.
pub fn stream(paths: &[PathBuf], columns: &TextColumns) -> Result<TextStream, DataError> {
    let TextFiles { files, .. } = all_text_files(paths)?;
    Ok(TextStream::new(files, columns.clone()))
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Lines,
    Csv,
    Tsv,
    Jsonl,
    Json,
    Parquet,
    /// A tagged word a line.
    Conll,
}

impl Format {
    pub(crate) fn of(path: &Path) -> Result<Self, DataError> {
        let name = file::name(path).to_lowercase();
        let packing = file::packing(&name).unwrap_or_default();
        let plain = name.strip_suffix(packing).unwrap_or(&name);
        match plain.rsplit_once('.').map(|(_, extension)| extension) {
            Some("txt" | "text") => Ok(Self::Lines),
            Some("csv") => Ok(Self::Csv),
            Some("tsv") => Ok(Self::Tsv),
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            Some("json") => Ok(Self::Json),
            Some("conll" | "conllu" | "bio" | "iob" | "iob2") => Ok(Self::Conll),
            // Parquet is packed inside, and read from its end.
            Some("parquet") if packing.is_empty() => Ok(Self::Parquet),
            Some("arrow") => Err(DataError::Arrow { path: path.into() }),
            _ => Err(DataError::UnknownExtension {
                path: path.into(),
                known: KNOWN,
            }),
        }
    }
}

/// Examples in the order of their files and lines, one at a time. After an error it ends.
///
/// Rows that can't be used are left out and counted, or end it: those that are refused after the last row has been read,
/// so that the error counts them all.
pub struct TextStream {
    files: Vec<PathBuf>,
    columns: TextColumns,
    /// How many files have been opened.
    opened: usize,
    /// The first file, where it is none of the file system.
    embedded: Option<(Format, Bytes)>,
    keep: fn(&TextExample) -> bool,
    current: Option<FileStream>,
    class_names: Vec<String>,
    left_out: LeftOut,
    /// The first row that is refused.
    refused: Option<DataError>,
    usable: bool,
    ended: bool,
}

/// A row in its place, with a text or without.
#[derive(Clone, Debug, PartialEq)]
pub struct TextRow {
    /// `path:line`
    pub place: String,
    /// The text, or why there is none: `"text" is empty`.
    pub text: Result<String, String>,
}

impl TextStream {
    fn new(files: Vec<PathBuf>, columns: TextColumns) -> Self {
        Self {
            files,
            columns,
            opened: 0,
            embedded: None,
            keep: |_| true,
            current: None,
            class_names: Vec::new(),
            left_out: LeftOut::default(),
            refused: None,
            usable: false,
            ended: false,
        }
    }

    /// Bytes that need no file.
    ///
    /// - path: what messages call them
    /// - keep: which examples
    pub(crate) fn embedded(
        path: &str,
        format: Format,
        bytes: Bytes,
        columns: TextColumns,
        keep: fn(&TextExample) -> bool,
    ) -> Self {
        Self {
            embedded: Some((format, bytes)),
            keep,
            ..Self::new(vec![path.into()], columns)
        }
    }

    /// The files it reads.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Rows left out up to now.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// All that is left of it.
    ///
    /// # Errors
    /// What can't be read, and rows that are refused.
    pub fn collect_set(mut self) -> Result<TextSet, DataError> {
        let mut examples: Vec<_> = self.by_ref().collect::<Result<_, _>>()?;
        labels::unify_numbers(&mut examples, &mut self.class_names);
        Ok(TextSet {
            examples,
            files: self.files,
            left_out: self.left_out,
            class_names: self.class_names,
            ..TextSet::default()
        })
    }

    /// All rows with their places, those without a text too, whatever `bad_rows` says.
    pub fn rows(mut self) -> impl Iterator<Item = Result<TextRow, DataError>> {
        std::iter::from_fn(move || {
            if self.ended {
                return None;
            }
            let row = self.advance();
            self.ended = !matches!(row, Ok(Some(_)));
            let row = row.transpose()?;
            Some(row.map(|row| self.placed(row)))
        })
    }

    fn placed(&self, row: Result<TextExample, DataError>) -> TextRow {
        let place = |path: &Path, line| format!("{}:{line}", path.display());
        match row {
            Ok(example) => TextRow {
                place: place(&self.files[example.file as usize], example.line),
                text: Ok(example.text),
            },
            Err(error) => match error.row_fault() {
                Some(fault) => TextRow {
                    place: place(fault.path, fault.line),
                    text: Err(fault.reason),
                },
                // Faults of rows alone are items: of this kind there is none.
                None => TextRow {
                    place: origin(&self.files),
                    text: Err(error.to_string()),
                },
            },
        }
    }

    /// The next row, usable or not.
    fn advance(&mut self) -> Result<Option<Result<TextExample, DataError>>, DataError> {
        loop {
            if let Some(current) = &mut self.current {
                match current.next()? {
                    Some(Ok(example)) if !(self.keep)(&example) => continue,
                    Some(row) => return Ok(Some(row)),
                    None => self.current = None,
                }
            }
            if self.opened == self.files.len() {
                return Ok(None);
            }
            let file = self.open_next()?;
            for name in file.class_names() {
                if !self.class_names.contains(name) {
                    self.class_names.push(name.clone());
                }
            }
            self.current = Some(file);
        }
    }

    fn open_next(&mut self) -> Result<FileStream, DataError> {
        let parser = Parser {
            path: self.files[self.opened].clone(),
            file: self.opened as u32,
            columns: self.columns.clone(),
        };
        self.opened += 1;
        match self.embedded.take() {
            Some((format, bytes)) => FileStream::read(parser, format, bytes),
            None => FileStream::open(parser),
        }
    }

    /// The next example, once faulty rows are counted.
    fn next_example(&mut self) -> Result<Option<TextExample>, DataError> {
        while let Some(row) = self.advance()? {
            match row {
                Ok(example) => {
                    self.usable = true;
                    // What is refused is counted to the end, and not handed out any more.
                    if self.refused.is_none() {
                        return Ok(Some(example));
                    }
                }
                Err(error) => self.count(error),
            }
        }
        let left_out = || self.left_out.clone();
        match self.refused.take() {
            Some(fault) if self.left_out.total() == 1 => {
                let fault = Box::new(fault);
                Err(DataError::BadRow { fault })
            }
            Some(_) => Err(DataError::BadRows {
                left_out: left_out(),
            }),
            None if !self.usable && !self.left_out.is_empty() => Err(DataError::NoUsableRow {
                origin: origin(&self.files),
                left_out: left_out(),
            }),
            None => Ok(None),
        }
    }

    fn count(&mut self, error: DataError) {
        if let Some(fault) = error.row_fault() {
            let place = || format!("{}:{}", fault.path.display(), fault.line);
            self.left_out.add(&fault.reason, place);
        }
        if self.columns.bad_rows == BadRows::Refuse {
            self.refused.get_or_insert(error);
        }
    }
}

impl Iterator for TextStream {
    type Item = Result<TextExample, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_example();
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

/// The rows of one file.
struct FileStream {
    parser: Parser,
    records: Records,
    seen: Seen,
}

/// What has been met in a file.
#[derive(Default)]
struct Seen {
    rows: u64,
    usable: bool,
    /// The key that the first row lacks, and those that it has.
    keyless: Option<(usize, String, Vec<String>)>,
    /// Rows that are not UTF-8; line, byte, place and letter of the first.
    broken: u64,
    /// Those that would be Windows-1252.
    latin: u64,
    first_broken: Option<(usize, u8, usize, Option<char>)>,
    /// Whether a letter beyond ASCII was read.
    beyond_ascii: bool,
}

enum Records {
    Lines(Lines),
    Jsonl(Lines),
    Json(Box<JsonElements>),
    Table(Box<Table>),
    Parquet(Box<ParquetRows>),
}

impl FileStream {
    fn open(parser: Parser) -> Result<Self, DataError> {
        let format = Format::of(&parser.path)?;
        if format == Format::Parquet {
            let rows = ParquetRows::open(&parser.path, &parser.columns)?;
            return Ok(Self::new(parser, Records::Parquet(Box::new(rows))));
        }
        let bytes = file::open(&parser.path)?;
        Self::read(parser, format, bytes)
    }

    fn read(parser: Parser, format: Format, bytes: Bytes) -> Result<Self, DataError> {
        if format == Format::Json {
            let elements = JsonElements::new(&parser.path, bytes)?;
            return Ok(Self::new(parser, Records::Json(Box::new(elements))));
        }
        let lines = Lines::new(&parser.path, bytes)?;
        let records = match format {
            Format::Conll => return Err(DataError::TaggedWords { path: parser.path }),
            Format::Lines if parser.columns.label.is_some() => {
                return Err(DataError::NoLabelsInLines { path: parser.path });
            }
            Format::Jsonl => Records::Jsonl(lines),
            Format::Csv | Format::Tsv => {
                Records::Table(Box::new(Table::new(lines, format == Format::Csv)))
            }
            Format::Lines | Format::Json | Format::Parquet => Records::Lines(lines),
        };
        Ok(Self::new(parser, records))
    }

    fn new(parser: Parser, records: Records) -> Self {
        Self {
            parser,
            records,
            seen: Seen::default(),
        }
    }

    fn class_names(&self) -> &[String] {
        match &self.records {
            Records::Parquet(rows) => rows.class_names.as_deref().unwrap_or_default(),
            _ => &[],
        }
    }

    /// The next row: an example, or what is wrong with it.
    fn next(&mut self) -> Result<Option<Result<TextExample, DataError>>, DataError> {
        let parser = &self.parser;
        let next = match &mut self.records {
            Records::Lines(lines) => parser.line(lines),
            Records::Jsonl(lines) => parser.jsonl(lines),
            Records::Json(elements) => parser.json(elements),
            Records::Table(table) => {
                if table.columns.is_none() && !table.header(&parser.columns)? {
                    return self.finish();
                }
                parser.record(table)
            }
            Records::Parquet(rows) => parser.cells(rows),
        };
        let row = match next {
            Ok(None) => return self.finish(),
            Ok(Some(example)) => Ok(example),
            Err(error) if error.row_fault().is_some() => Err(error),
            Err(error) => return Err(error),
        };
        self.seen.row(&row);
        Ok(Some(row))
    }

    fn finish(&mut self) -> Result<Option<Result<TextExample, DataError>>, DataError> {
        let path = || self.parser.path.clone();
        if self.seen.rows == 0 {
            return Err(DataError::NoExample { path: path() });
        }
        self.seen.other_encoding(path)?;
        match self.seen.keyless.take() {
            // No row has it: the key is another one.
            Some((line, key, keys)) if !self.seen.usable => Err(DataError::KeyMissing {
                path: path(),
                line,
                key,
                keys,
            }),
            _ => Ok(None),
        }
    }
}

impl Seen {
    fn row(&mut self, row: &Result<TextExample, DataError>) {
        self.rows += 1;
        match row {
            Ok(example) => {
                self.usable = true;
                self.beyond_ascii = self.beyond_ascii || !example.text.is_ascii();
            }
            Err(DataError::KeyMissing {
                line, key, keys, ..
            }) if self.rows == 1 => self.keyless = Some((*line, key.clone(), keys.clone())),
            Err(DataError::NotUtf8 {
                line,
                byte,
                at,
                latin,
                ..
            }) => {
                self.broken += 1;
                self.latin += u64::from(latin.is_some());
                self.first_broken.get_or_insert((*line, *byte, *at, *latin));
            }
            Err(_) => {}
        }
    }

    /// # Errors
    /// Many rows are not UTF-8, and no row has a letter that would show that the others are.
    fn other_encoding(&self, path: impl Fn() -> PathBuf) -> Result<(), DataError> {
        let many = self.broken >= OTHER_ENCODING && self.broken * 100 > self.rows;
        match self.first_broken {
            Some((line, byte, at, latin)) if many && !self.beyond_ascii => {
                Err(DataError::OtherEncoding {
                    path: path(),
                    broken: self.broken,
                    rows: self.rows,
                    line,
                    byte,
                    at,
                    // A letter of another encoding stands alone in few rows.
                    latin: latin.filter(|_| self.latin * 4 >= self.broken * 3),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Turns the lines and records of one file into examples.
struct Parser {
    path: PathBuf,
    file: u32,
    columns: TextColumns,
}

impl Parser {
    fn line(&self, lines: &mut Lines) -> Result<Option<TextExample>, DataError> {
        match self.unblank(lines)? {
            Some((text, line)) => self.example(text, None, line).map(Some),
            None => Ok(None),
        }
    }

    fn jsonl(&self, lines: &mut Lines) -> Result<Option<TextExample>, DataError> {
        match self.unblank(lines)? {
            Some((text, line)) => self.element(text, "line", line).map(Some),
            None => Ok(None),
        }
    }

    fn json(&self, elements: &mut JsonElements) -> Result<Option<TextExample>, DataError> {
        match elements.next()? {
            Some((bytes, line)) => {
                let text = utf8(&self.path, bytes, line)?;
                self.element(text, "element", line).map(Some)
            }
            None => Ok(None),
        }
    }

    /// - unit: what each object is, for messages
    fn element(
        &self,
        text: &str,
        unit: &'static str,
        line: usize,
    ) -> Result<TextExample, DataError> {
        let object = self.object(text, unit, line)?;
        let text = match self.value(&object, &self.columns.text, line)? {
            Value::String(text) => text,
            other => return Err(self.not_a_string(&self.columns.text, kind(other), line)),
        };
        let label = match &self.columns.label {
            Some(key) => Some(self.json_label(self.value(&object, key, line)?, key, line)?),
            None => None,
        };
        self.example(text, label.as_deref(), line)
    }

    /// The next line that is not blank, without `\n` or `\r\n`, and its number.
    fn unblank<'b>(&self, lines: &'b mut Lines) -> Result<Option<(&'b str, usize)>, DataError> {
        loop {
            let Some((bytes, line)) = lines.next()? else {
                return Ok(None);
            };
            if !utf8(&self.path, bytes, line)?.trim().is_empty() {
                break;
            }
        }
        let (bytes, line) = lines.current();
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        Ok(Some((utf8(&self.path, bytes, line)?, line)))
    }

    fn object(
        &self,
        text: &str,
        unit: &'static str,
        line: usize,
    ) -> Result<Map<String, Value>, DataError> {
        let path = self.path();
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(other) => Err(DataError::NotAnObject {
                path,
                line,
                found: kind(&other),
                unit,
            }),
            Err(source) => Err(DataError::Json { path, line, source }),
        }
    }

    /// What is under a key, or under a path of keys such as `meta.label`.
    fn value<'b>(
        &self,
        object: &'b Map<String, Value>,
        key: &str,
        line: usize,
    ) -> Result<&'b Value, DataError> {
        let nested = || {
            let (first, rest) = key.split_once('.')?;
            let first = object.get(first)?;
            rest.split('.')
                .try_fold(first, |value, part| value.get(part))
        };
        let found = object.get(key).or_else(nested);
        found.ok_or_else(|| DataError::KeyMissing {
            path: self.path(),
            line,
            key: key.into(),
            keys: keys(object),
        })
    }

    fn json_label(&self, value: &Value, key: &str, line: usize) -> Result<String, DataError> {
        match value {
            Value::String(label) => Ok(label.clone()),
            Value::Bool(label) => Ok(label.to_string()),
            Value::Number(label) => match label.as_f64().filter(|_| label.is_f64()) {
                Some(label) => self.float_label(label, key, line),
                None => Ok(label.to_string()),
            },
            Value::Array(items) => match items.as_slice() {
                [] => Err(self.not_a_label(key, "an empty list", line)),
                [label] => self.json_label(label, key, line),
                items => Err(self.several_labels(key, items.len(), line)),
            },
            Value::Null | Value::Object(_) => Err(self.not_a_label(key, kind(value), line)),
        }
    }

    fn float_label(&self, label: f64, key: &str, line: usize) -> Result<String, DataError> {
        // What pandas writes where there is none, or what was divided by zero.
        if !label.is_finite() {
            return Err(self.not_a_label(key, "not a number", line));
        }
        if label.fract() != 0.0 {
            return Err(self.fraction(key, label.to_string(), line));
        }
        let found = "a number too large to be exact";
        labels::whole(label).ok_or_else(|| self.not_a_label(key, found, line))
    }

    fn fraction(&self, key: &str, value: String, line: usize) -> DataError {
        DataError::FractionLabel {
            path: self.path(),
            line,
            key: key.into(),
            value,
        }
    }

    fn several_labels(&self, key: &str, count: usize, line: usize) -> DataError {
        DataError::SeveralLabels {
            path: self.path(),
            line,
            key: key.into(),
            count,
        }
    }

    fn not_a_label(&self, key: &str, found: &'static str, line: usize) -> DataError {
        DataError::NotALabel {
            path: self.path(),
            line,
            key: key.into(),
            found,
        }
    }

    fn not_a_string(&self, key: &str, found: &'static str, line: usize) -> DataError {
        DataError::NotAString {
            path: self.path(),
            line,
            key: key.into(),
            found,
        }
    }

    fn record(&self, table: &mut Table) -> Result<Option<TextExample>, DataError> {
        let columns = table.columns;
        match (table.next()?, columns) {
            (Some(record), Some(columns)) => self.row(record, columns).map(Some),
            _ => Ok(None),
        }
    }

    fn row(&self, record: &Record, columns: Columns) -> Result<TextExample, DataError> {
        let line = record.line;
        if record.len() != columns.count {
            return Err(DataError::FieldCount {
                path: self.path(),
                line,
                found: record.len(),
                expected: columns.count,
            });
        }
        let field = |at: usize| utf8(&self.path, record.field(at), line);
        let text = field(columns.text)?;
        let label = columns.label.map(field).transpose()?;
        self.example(text, label, line)
    }

    fn cells(&self, rows: &mut ParquetRows) -> Result<Option<TextExample>, DataError> {
        let Some((cells, line)) = rows.next()? else {
            return Ok(None);
        };
        let mut cells = cells.into_iter();
        let text = match cells.next() {
            Some(Cell::Bytes(bytes)) => bytes,
            _ => return Err(self.not_a_string(&self.columns.text, "null", line)),
        };
        let text = utf8(&self.path, &text, line)?;
        let label = match (&self.columns.label, cells.next()) {
            (Some(key), Some(cell)) => {
                let names = rows.class_names.as_deref();
                Some(self.cell_label(cell, key, names, line)?)
            }
            _ => None,
        };
        self.example(text, label.as_deref(), line).map(Some)
    }

    /// - names: of the classes that whole numbers number
    fn cell_label(
        &self,
        cell: Cell,
        key: &str,
        names: Option<&[String]>,
        line: usize,
    ) -> Result<String, DataError> {
        match cell {
            Cell::Null => Err(self.not_a_label(key, "null", line)),
            Cell::Bytes(bytes) => Ok(utf8(&self.path, &bytes, line)?.to_string()),
            Cell::Bool(label) => Ok(label.to_string()),
            Cell::Integer(id) => match names {
                Some(names) => self.class_name(id, key, names, line),
                None => Ok(id.to_string()),
            },
            Cell::Float(label) => {
                let whole = self.float_label(label, key, line)?;
                match (names, whole.parse()) {
                    (Some(names), Ok(id)) => self.class_name(id, key, names, line),
                    _ => Ok(whole),
                }
            }
            Cell::Fraction(value) => Err(self.fraction(key, value, line)),
            Cell::List(mut items) => match (items.pop(), items.len()) {
                (None, _) => Err(self.not_a_label(key, "an empty list", line)),
                (Some(label), 0) => self.cell_label(label, key, names, line),
                (Some(_), others) => Err(self.several_labels(key, others + 1, line)),
            },
        }
    }

    fn class_name(
        &self,
        id: i128,
        key: &str,
        names: &[String],
        line: usize,
    ) -> Result<String, DataError> {
        // So `datasets` writes a label that is not known.
        if id == -1 {
            return Err(self.not_a_label(key, "-1, which is no class", line));
        }
        let name = usize::try_from(id).ok().and_then(|id| names.get(id));
        name.cloned().ok_or_else(|| DataError::NoSuchClass {
            path: self.path(),
            line,
            key: key.into(),
            id,
            count: names.len(),
        })
    }

    fn example(
        &self,
        text: &str,
        label: Option<&str>,
        line: usize,
    ) -> Result<TextExample, DataError> {
        let label = label.map(labels::canonical);
        let empty = |column: &str| DataError::EmptyField {
            path: self.path(),
            line,
            column: column.into(),
        };
        if text.trim().is_empty() {
            return Err(empty(&self.columns.text));
        }
        if let (Some(""), Some(column)) = (label.as_deref(), &self.columns.label) {
            return Err(empty(column));
        }
        Ok(TextExample {
            text: text.into(),
            label: label.map(Cow::into_owned),
            line,
            file: self.file,
        })
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// The keys of an object, and the paths of those in objects in it.
fn keys(object: &Map<String, Value>) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in object {
        match value.as_object() {
            Some(inner) if !inner.is_empty() => {
                keys.extend(
                    self::keys(inner)
                        .iter()
                        .map(|inner| format!("{key}.{inner}")),
                );
            }
            _ => keys.push(key.clone()),
        }
    }
    keys
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
