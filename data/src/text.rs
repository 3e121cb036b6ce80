//! Reads text examples. In: files, folders or patterns. Out: [`TextStream`], or [`TextSet`] for what fits in memory.
//!
//! The format follows from the extension, each but Parquet also with `.gz` or `.zst`:
//!
//! - `.txt`, `.text`: a line an example, blank lines skipped, no labels
//! - `.csv`, `.tsv`: a header line names the columns; `.tsv` knows no quoting
//! - `.jsonl`, `.ndjson`: a JSON object a line; a label may be a string or an integer
//! - `.parquet`: a column of strings; labels are strings or integers; a row's number stands for its line
//!
//! A stream holds one line, one record or a few rows at a time, so files may be far larger than memory.

use std::path::{Path, PathBuf};
use std::str;

use burn_dataset::Dataset;
use serde_json::{Map, Value};

use crate::file::{Bytes, Lines};
use crate::parquet::{Cell, ParquetRows};
use crate::table::{Columns, Record, Table};
use crate::{DataError, file};

const KNOWN: &str =
    ".txt, .text, .csv, .tsv, .jsonl, .ndjson, each also with .gz or .zst, and .parquet";

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

/// Which columns or keys to read.
#[derive(Clone, Debug)]
pub struct TextColumns {
    /// Of the text.
    pub text: String,
    /// Of the label; `None` reads no labels.
    pub label: Option<String>,
}

impl Default for TextColumns {
    fn default() -> Self {
        Self {
            text: "text".into(),
            label: None,
        }
    }
}

/// Examples in the order of their files and lines.
#[derive(Clone, Debug)]
pub struct TextSet {
    /// The examples.
    pub examples: Vec<TextExample>,
    /// Where they come from.
    pub files: Vec<PathBuf>,
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
/// Anything that is missing or malformed, an empty text or label, a file without an example.
pub fn read_text(paths: &[PathBuf], columns: &TextColumns) -> Result<TextSet, DataError> {
    stream(paths, columns)?.collect_set()
}

/// Reads files one example at a time; folders as the files of known extensions in them (sorted, not recursive), and
/// patterns (`texts/**/*.jsonl.gz`) as those that match, sorted.
///
/// # Errors
/// A path that is missing, or has no known extension. What is malformed is an item of the stream, the last one.
pub fn stream(paths: &[PathBuf], columns: &TextColumns) -> Result<TextStream, DataError> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(text_files(path)?);
    }
    Ok(TextStream::new(files, columns.clone()))
}

/// The files that [`stream`] reads for these paths.
///
/// # Errors
/// A path that is missing, or a folder or pattern without a file of a known extension.
pub fn text_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let about = match std::fs::metadata(path) {
        Err(_) if file::is_pattern(path) => return matches(path),
        about => about.map_err(|source| file::io_error(path, source))?,
    };
    if !about.is_dir() {
        return Ok(vec![path.into()]);
    }
    let mut files = file::list(path)?;
    files.retain(|file| is_text_file(file));
    match files.is_empty() {
        true => Err(DataError::NoKnownFile {
            path: path.into(),
            known: KNOWN,
        }),
        false => Ok(files),
    }
}

fn matches(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let path = || pattern.to_path_buf();
    let found = glob::glob(&pattern.to_string_lossy()).map_err(|error| DataError::BadPattern {
        path: path(),
        reason: error.to_string(),
    })?;
    let mut files = Vec::new();
    for file in found {
        let file = file.map_err(|error| {
            let path = error.path().to_path_buf();
            file::io_error(&path, error.into())
        })?;
        if is_text_file(&file) {
            files.push(file);
        }
    }
    match files.is_empty() {
        true => Err(DataError::NoMatch {
            path: path(),
            known: KNOWN,
        }),
        false => Ok(files),
    }
}

fn is_text_file(path: &Path) -> bool {
    path.is_file() && Format::of(path).is_ok()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Lines,
    Csv,
    Tsv,
    Jsonl,
    Parquet,
}

impl Format {
    fn of(path: &Path) -> Result<Self, DataError> {
        let name = file::name(path).to_lowercase();
        let packing = file::packing(&name).unwrap_or_default();
        let plain = name.strip_suffix(packing).unwrap_or(&name);
        match plain.rsplit_once('.').map(|(_, extension)| extension) {
            Some("txt" | "text") => Ok(Self::Lines),
            Some("csv") => Ok(Self::Csv),
            Some("tsv") => Ok(Self::Tsv),
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            // Parquet is packed inside, and read from its end.
            Some("parquet") if packing.is_empty() => Ok(Self::Parquet),
            _ => Err(DataError::UnknownExtension {
                path: path.into(),
                known: KNOWN,
            }),
        }
    }
}

/// Examples in the order of their files and lines, one at a time. After an error it ends.
pub struct TextStream {
    files: Vec<PathBuf>,
    columns: TextColumns,
    /// How many files have been opened.
    opened: usize,
    /// The first file, where it is none of the file system.
    embedded: Option<(Format, Bytes)>,
    keep: fn(&TextExample) -> bool,
    current: Option<FileStream>,
    failed: bool,
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
            failed: false,
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

    /// All that is left of it.
    ///
    /// # Errors
    /// The first malformed example.
    pub fn collect_set(mut self) -> Result<TextSet, DataError> {
        let examples = self.by_ref().collect::<Result<_, _>>()?;
        Ok(TextSet {
            examples,
            files: self.files,
        })
    }

    fn advance(&mut self) -> Result<Option<TextExample>, DataError> {
        loop {
            if let Some(current) = &mut self.current {
                match current.next()? {
                    Some(example) if (self.keep)(&example) => return Ok(Some(example)),
                    Some(_) => continue,
                    None => self.current = None,
                }
            }
            if self.opened == self.files.len() {
                return Ok(None);
            }
            let parser = Parser {
                path: self.files[self.opened].clone(),
                file: self.opened as u32,
                columns: self.columns.clone(),
            };
            self.current = Some(match self.embedded.take() {
                Some((format, bytes)) => FileStream::read(parser, format, bytes)?,
                None => FileStream::open(parser)?,
            });
            self.opened += 1;
        }
    }
}

impl Iterator for TextStream {
    type Item = Result<TextExample, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// The examples of one file.
struct FileStream {
    parser: Parser,
    records: Records,
    found: bool,
}

enum Records {
    Lines(Lines),
    Jsonl(Lines),
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
        let lines = Lines::new(&parser.path, bytes)?;
        let records = match format {
            Format::Lines if parser.columns.label.is_some() => {
                return Err(DataError::NoLabelsInLines { path: parser.path });
            }
            Format::Jsonl => Records::Jsonl(lines),
            Format::Csv | Format::Tsv => {
                Records::Table(Box::new(Table::new(lines, format == Format::Csv)))
            }
            Format::Lines | Format::Parquet => Records::Lines(lines),
        };
        Ok(Self::new(parser, records))
    }

    fn new(parser: Parser, records: Records) -> Self {
        Self {
            parser,
            records,
            found: false,
        }
    }

    fn next(&mut self) -> Result<Option<TextExample>, DataError> {
        let parser = &self.parser;
        let next = match &mut self.records {
            Records::Lines(lines) => parser.line(lines),
            Records::Jsonl(lines) => parser.jsonl(lines),
            Records::Table(table) => parser.record(table),
            Records::Parquet(rows) => parser.cells(rows),
        }?;
        if next.is_none() && !self.found {
            let path = parser.path();
            return Err(DataError::NoExample { path });
        }
        self.found = true;
        Ok(next)
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
        let Some((text, line)) = self.unblank(lines)? else {
            return Ok(None);
        };
        let object = self.object(text, line)?;
        let text = match self.value(&object, &self.columns.text, line)? {
            Value::String(text) => text,
            other => return Err(self.not_a_string(&self.columns.text, kind(other), line)),
        };
        let label = match &self.columns.label {
            Some(key) => Some(self.json_label(&object, key, line)?),
            None => None,
        };
        self.example(text, label.as_deref(), line).map(Some)
    }

    /// The next line that is not blank, without `\n` or `\r\n`, and its number.
    fn unblank<'b>(&self, lines: &'b mut Lines) -> Result<Option<(&'b str, usize)>, DataError> {
        loop {
            let Some((bytes, line)) = lines.next()? else {
                return Ok(None);
            };
            if !self.utf8(bytes, line)?.trim().is_empty() {
                break;
            }
        }
        let (bytes, line) = lines.current();
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        Ok(Some((self.utf8(bytes, line)?, line)))
    }

    fn object(&self, text: &str, line: usize) -> Result<Map<String, Value>, DataError> {
        let path = self.path();
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(other) => Err(DataError::NotAnObject {
                path,
                line,
                found: kind(&other),
            }),
            Err(source) => Err(DataError::Json { path, line, source }),
        }
    }

    fn value<'b>(
        &self,
        object: &'b Map<String, Value>,
        key: &str,
        line: usize,
    ) -> Result<&'b Value, DataError> {
        object.get(key).ok_or_else(|| DataError::KeyMissing {
            path: self.path(),
            line,
            key: key.into(),
            keys: object.keys().cloned().collect(),
        })
    }

    fn json_label(
        &self,
        object: &Map<String, Value>,
        key: &str,
        line: usize,
    ) -> Result<String, DataError> {
        match self.value(object, key, line)? {
            Value::String(label) => Ok(label.clone()),
            Value::Number(label) if !label.is_f64() => Ok(label.to_string()),
            other => Err(self.not_a_string(key, kind(other), line)),
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
        if table.columns.is_none() {
            let Some(header) = table.next()? else {
                return Ok(None);
            };
            let line = header.line;
            let names = header.fields().map(|field| self.utf8(field, line));
            let names = names
                .map(|name| name.map(String::from))
                .collect::<Result<Vec<_>, _>>()?;
            table.header(&names, &self.columns, line)?;
        }
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
        let text = self.utf8(record.field(columns.text), line)?;
        let label = columns
            .label
            .map(|label| self.utf8(record.field(label), line));
        self.example(text, label.transpose()?, line)
    }

    fn cells(&self, rows: &mut ParquetRows) -> Result<Option<TextExample>, DataError> {
        let Some((cells, line)) = rows.next()? else {
            return Ok(None);
        };
        let names = [Some(&self.columns.text), self.columns.label.as_ref()];
        let mut read = Vec::with_capacity(2);
        for (cell, name) in cells.into_iter().zip(names.into_iter().flatten()) {
            read.push(match cell {
                Cell::Bytes(bytes) => self.utf8(&bytes, line)?.to_string(),
                Cell::Integer(n) => n.to_string(),
                Cell::Null => return Err(self.not_a_string(name, "null", line)),
            });
        }
        let [text, label @ ..] = read.as_slice() else {
            return Ok(None);
        };
        let label = label.first().map(String::as_str);
        self.example(text, label, line).map(Some)
    }

    fn example(
        &self,
        text: &str,
        label: Option<&str>,
        line: usize,
    ) -> Result<TextExample, DataError> {
        let label = label.map(str::trim);
        let empty = |column: &str| DataError::EmptyField {
            path: self.path(),
            line,
            column: column.into(),
        };
        if text.trim().is_empty() {
            return Err(empty(&self.columns.text));
        }
        if let (Some(""), Some(column)) = (label, &self.columns.label) {
            return Err(empty(column));
        }
        Ok(TextExample {
            text: text.into(),
            label: label.map(String::from),
            line,
            file: self.file,
        })
    }

    fn utf8<'b>(&self, bytes: &'b [u8], line: usize) -> Result<&'b str, DataError> {
        str::from_utf8(bytes).map_err(|_| DataError::NotUtf8 {
            path: self.path(),
            line,
        })
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
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
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;
    use tempfile::TempDir;

    fn columns(label: Option<&str>) -> TextColumns {
        TextColumns {
            text: "text".into(),
            label: label.map(String::from),
        }
    }

    /// Writes one file and reads it back.
    fn read(
        name: &str,
        bytes: impl AsRef<[u8]>,
        label: Option<&str>,
    ) -> Result<TextSet, DataError> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_text(&[path], &columns(label))
    }

    /// (text, label, line) of each example.
    fn rows(set: &TextSet) -> Vec<(&str, Option<&str>, usize)> {
        set.examples
            .iter()
            .map(|e| (e.text.as_str(), e.label.as_deref(), e.line))
            .collect()
    }

    /// The error's message with the folder cut off.
    fn message(name: &str, bytes: impl AsRef<[u8]>, label: Option<&str>) -> String {
        let message = read(name, bytes, label).unwrap_err().to_string();
        let at = message.find(name).unwrap();
        message[at..].to_string()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn lines_are_examples_and_blank_ones_are_skipped() {
        let set = read("a.txt", "\u{feff}one\r\n\r\n  \n two\nthree", None).unwrap();
        let expected = [("one", None, 1), (" two", None, 4), ("three", None, 5)];
        assert_eq!(rows(&set), expected);
        assert!(set.place(1).ends_with("a.txt:4"));
        assert_eq!(Dataset::get(&set, 2).unwrap().text, "three");
        assert_eq!(Dataset::get(&set, 3), None);
    }

    #[test]
    fn csv_knows_quotes_line_breaks_and_columns_in_any_order() {
        let bytes = "label,id,text\npos,1,\"a, \"\"b\"\"\nc\"\n neg ,2,d\n";
        let set = read("a.csv", bytes, Some("label")).unwrap();
        let expected = [("a, \"b\"\nc", Some("pos"), 2), ("d", Some("neg"), 4)];
        assert_eq!(rows(&set), expected);
        let unlabelled = read("a.csv", bytes, None).unwrap();
        assert!(unlabelled.examples.iter().all(|e| e.label.is_none()));
    }

    #[test]
    fn csv_lines_are_right_after_crlf_and_blank_lines() {
        let bytes = "\u{feff}\r\ntext\r\na\r\n\r\n\r\nb\r\n\"c\r\nd\"\r\ne";
        let set = read("a.csv", bytes, None).unwrap();
        let expected = [
            ("a", None, 3),
            ("b", None, 6),
            ("c\r\nd", None, 7),
            ("e", None, 9),
        ];
        assert_eq!(rows(&set), expected);
    }

    #[test]
    fn tsv_takes_quotes_as_they_are() {
        let set = read("a.tsv", "text\tlabel\n\"a, b\tx\n5\" c\ty\n", Some("label")).unwrap();
        let expected = [("\"a, b", Some("x"), 2), ("5\" c", Some("y"), 3)];
        assert_eq!(rows(&set), expected);
    }

    #[test]
    fn jsonl_reads_its_keys() {
        let bytes = "{\"text\": \"a\\nb\", \"label\": \"x\", \"n\": [1]}\r\n\n{\"label\": 3, \"text\": \"c\"}";
        let set = read("a.jsonl", bytes, Some("label")).unwrap();
        assert_eq!(rows(&set), [("a\nb", Some("x"), 1), ("c", Some("3"), 3)]);
        assert!(read("a.ndjson", "{\"text\": \"a\"}", None).is_ok());
    }

    #[test]
    fn each_format_may_be_packed() {
        for (name, bytes) in [
            ("a.txt.gz", "one"),
            ("a.CSV.GZ", "text\none"),
            ("a.tsv.gz", "text\none"),
            ("a.jsonl.gz", "{\"text\": \"one\"}"),
        ] {
            let set = read(name, gz(bytes.as_bytes()), None).unwrap();
            assert_eq!(set.examples[0].text, "one", "{name}");
            let packed = zstd::encode_all(bytes.as_bytes(), 1).unwrap();
            let name = name.to_lowercase().replace(".gz", ".zst");
            let set = read(&name, packed, None).unwrap();
            assert_eq!(set.examples[0].text, "one", "{name}");
        }
        let cut = &zstd::encode_all("one\ntwo\n".as_bytes(), 1).unwrap()[..9];
        assert_eq!(message("a.txt.zst", cut, None), "a.txt.zst: cannot be read");
    }

    #[test]
    fn a_pattern_is_the_known_files_that_match() {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        for name in ["b.txt", "a.txt", "a.md", "deep/c.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let texts = |pattern: &str| {
            let set = read_text(&[folder.path().join(pattern)], &columns(None))?;
            Ok::<_, DataError>(set.examples.into_iter().map(|e| e.text).collect::<Vec<_>>())
        };
        assert_eq!(texts("*").unwrap(), ["a.txt", "b.txt"]);
        assert_eq!(texts("**/*.txt").unwrap(), ["a.txt", "b.txt", "deep/c.txt"]);
        let error = texts("*.csv").unwrap_err();
        assert!(matches!(error, DataError::NoMatch { .. }), "{error}");
        let error = texts("a***").unwrap_err();
        assert!(matches!(error, DataError::BadPattern { .. }), "{error}");
        // A name with such letters is a name first.
        std::fs::write(folder.path().join("[b].txt"), "brackets").unwrap();
        assert_eq!(texts("[b].txt").unwrap(), ["brackets"]);
    }

    #[test]
    fn a_stream_ends_at_its_first_error() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\": \"a\"}\n[]\n{\"text\": \"b\"}\n").unwrap();
        let items: Vec<_> = stream(&[path], &columns(None)).unwrap().collect();
        assert_eq!(items.len(), 2);
        assert!(items[0].is_ok() && items[1].is_err());
    }

    #[test]
    fn an_endless_line_is_refused_before_it_fills_the_memory() {
        let line = vec![b'a'; file::LONGEST_LINE + 1];
        let packed = gz(&line);
        let expected = "is longer than 16 MiB; a line end is missing, or a quote that closes";
        for (name, start) in [("a.txt.gz", ""), ("a.jsonl.gz", "")] {
            assert_eq!(
                message(name, &packed, None),
                format!("{name}:1: {expected}"),
                "{start}"
            );
        }
        let lines = "a line of an open quote\n".repeat(file::LONGEST_LINE / 23);
        let bytes = format!("text\n\"{lines}");
        assert_eq!(
            message("a.csv", bytes, None),
            format!("a.csv:2: {expected}")
        );
    }

    /// A Parquet file of a text and an optional label in row groups of two.
    fn parquet(rows: &[(&str, Option<i64>)]) -> Vec<u8> {
        use ::parquet::basic::{Compression, ZstdLevel};
        use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
        use ::parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
        use ::parquet::schema::parser::parse_message_type;
        let schema = "message m { optional int64 label; required binary text (UTF8); }";
        let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
        let level = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
        let properties = WriterProperties::builder().set_compression(level).build();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties.into()).unwrap();
        for rows in rows.chunks(2) {
            let mut group = writer.next_row_group().unwrap();
            let labels: Vec<i64> = rows.iter().filter_map(|row| row.1).collect();
            let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.1.is_some())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let typed = column.typed::<Int64Type>();
            typed.write_batch(&labels, Some(&levels), None).unwrap();
            column.close().unwrap();
            let texts: Vec<ByteArray> = rows.iter().map(|row| row.0.into()).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let typed = column.typed::<ByteArrayType>();
            typed.write_batch(&texts, None, None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.into_inner().unwrap()
    }

    #[test]
    fn parquet_reads_its_columns() {
        let bytes = parquet(&[("one", Some(1)), ("two", Some(-2)), ("three", Some(3))]);
        let set = read("a.parquet", &bytes, Some("label")).unwrap();
        let expected = [
            ("one", Some("1"), 1),
            ("two", Some("-2"), 2),
            ("three", Some("3"), 3),
        ];
        assert_eq!(rows(&set), expected);
        assert_eq!(
            read("a.parquet", &bytes, None).unwrap().examples[2].label,
            None
        );
    }

    #[test]
    fn parquet_that_does_not_fit() {
        let bytes = parquet(&[("one", Some(1)), ("two", None), (" ", Some(2))]);
        let of = |label| message("a.parquet", &bytes, label);
        assert_eq!(
            of(Some("label")),
            "a.parquet:2: \"label\" is null, not a string"
        );
        assert_eq!(of(None), "a.parquet:3: \"text\" is empty");
        assert_eq!(
            of(Some("stars")),
            "a.parquet:1: column \"stars\" is missing; the columns are \"label\", \"text\""
        );
        let wanted = TextColumns {
            text: "label".into(),
            label: None,
        };
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, &bytes).unwrap();
        let error = read_text(&[path], &wanted).unwrap_err().to_string();
        assert!(
            error.ends_with("\"label\" is of another type, not a string"),
            "{error}"
        );
        assert_eq!(message("a.parquet", "", None), "a.parquet: is empty");
        assert_eq!(
            message("a.parquet", parquet(&[]), None),
            "a.parquet: holds no example"
        );
        assert!(
            message("a.parquet", "PAR1 not really PAR1", None)
                .contains("cannot be read as Parquet")
        );
    }

    #[test]
    fn broken_parquet_is_an_error_and_no_panic() {
        let bytes = parquet(&[("one", Some(1)), ("two", Some(2)), ("three", None)]);
        for cut in 1..bytes.len() {
            assert!(
                read("a.parquet", &bytes[..cut], None).is_err(),
                "{cut} bytes"
            );
        }
        // Some bytes may differ without harm: it must only come back.
        for at in 0..bytes.len() {
            for value in [0, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                let _ = read("a.parquet", &broken, Some("label"));
            }
        }
    }

    #[test]
    fn a_folder_is_its_known_files_sorted() {
        let folder = TempDir::new().unwrap();
        for name in ["b.txt", "a.csv", "c.md", ".d.txt"] {
            std::fs::write(folder.path().join(name), format!("text\n{name}")).unwrap();
        }
        std::fs::create_dir(folder.path().join("deep.txt")).unwrap();
        let set = read_text(&[folder.path().into()], &columns(None)).unwrap();
        let names: Vec<_> = set.files.iter().map(|path| file::name(path)).collect();
        assert_eq!(names, ["a.csv", "b.txt"]);
        assert_eq!(
            rows(&set),
            [("a.csv", None, 2), ("text", None, 1), ("b.txt", None, 2)]
        );
        assert_eq!(set.examples[2].file, 1);
    }

    #[test]
    fn a_folder_without_known_files_is_an_error() {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("a.md"), "x").unwrap();
        let error = read_text(&[folder.path().into()], &columns(None)).unwrap_err();
        assert!(matches!(error, DataError::NoKnownFile { .. }), "{error}");
    }

    #[test]
    fn files_that_cannot_be_read_at_all() {
        let error = read_text(&["no/such.csv".into()], &columns(None)).unwrap_err();
        assert_eq!(error.to_string(), "no/such.csv: no such file");
        assert_eq!(message("a.txt", "", None), "a.txt: is empty");
        assert_eq!(
            message("a.docx", "x", None),
            "a.docx: unknown extension; known are .txt, .text, .csv, .tsv, .jsonl, .ndjson, each also with .gz or .zst, and .parquet"
        );
        let packed = gz(b"text\nsome words to pack\n");
        let cut = &packed[..packed.len() - 10];
        let error = read("a.csv.gz", cut, None).unwrap_err();
        assert!(std::error::Error::source(&error).is_some(), "{error:?}");
        assert!(error.to_string().ends_with("a.csv.gz: cannot be read"));
    }

    #[test]
    fn files_without_an_example() {
        for (name, bytes) in [
            ("a.txt", "\n \n"),
            ("a.txt", "\u{feff}"),
            ("a.csv", "text\n"),
            ("a.csv", "\n\n"),
            ("a.tsv", "text"),
            ("a.jsonl", "\n"),
        ] {
            assert_eq!(
                message(name, bytes, None),
                format!("{name}: holds no example")
            );
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named_by_line() {
        for (name, bytes) in [
            ("a.txt", b"one\n\xff\n".as_slice()),
            ("a.csv", b"text\n\xff\n"),
            ("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}"),
        ] {
            assert_eq!(
                message(name, bytes, None),
                format!("{name}:2: not valid UTF-8")
            );
        }
    }

    #[test]
    fn labels_are_not_in_plain_lines() {
        assert!(message("a.txt", "one", Some("label")).contains("has no labels"));
    }

    #[test]
    fn a_missing_column_lists_those_there() {
        assert_eq!(
            message("reviews.csv", "text,stars\na,1\n", Some("label")),
            "reviews.csv:1: column \"label\" is missing; the columns are \"text\", \"stars\""
        );
    }

    #[test]
    fn rows_that_do_not_fit_the_header() {
        assert_eq!(
            message("a.csv", "text,label\r\na,1\r\nb\r\n", None),
            "a.csv:3: has 1 fields, the header has 2"
        );
        assert_eq!(
            message("a.csv", "label,text\n1,a\n2,\"b\n3,c\n", None),
            "a.csv:3: a quote opens and never closes"
        );
        // Closed at the very end of the file.
        assert!(read("a.csv", "text\n\"a\"", None).is_ok());
    }

    #[test]
    fn empty_texts_and_labels() {
        let of = |bytes| message("a.csv", bytes, Some("label"));
        assert_eq!(of("text,label\na,1\n  ,2\n"), "a.csv:3: \"text\" is empty");
        assert_eq!(of("text,label\na,1\nb, \n"), "a.csv:3: \"label\" is empty");
    }

    #[test]
    fn lines_of_jsonl_that_do_not_fit() {
        let of = |line: &str| message("a.jsonl", format!("\n{line}"), Some("label"));
        assert_eq!(of("{\"text\": "), "a.jsonl:2: not valid JSON");
        assert_eq!(
            of("[1]"),
            "a.jsonl:2: is an array, each line must be a JSON object"
        );
        assert_eq!(
            of("{\"text\": \"a\", \"stars\": 1}"),
            "a.jsonl:2: key \"label\" is missing; the keys are \"text\", \"stars\""
        );
        assert_eq!(
            of("{\"text\": 1}"),
            "a.jsonl:2: \"text\" is a number, not a string"
        );
        assert_eq!(
            of("{\"text\": \"a\", \"label\": null}"),
            "a.jsonl:2: \"label\" is null, not a string"
        );
    }
}
