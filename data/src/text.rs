//! Reads text examples. In: files or folders. Out: [`TextSet`].
//!
//! The format follows from the extension, each also with `.gz`:
//!
//! - `.txt`, `.text`: a line an example, blank lines skipped, no labels
//! - `.csv`, `.tsv`: a header line names the columns; `.tsv` knows no quoting
//! - `.jsonl`, `.ndjson`: a JSON object a line; a label may be a string or an integer

use std::path::{Path, PathBuf};
use std::str;

use burn_dataset::Dataset;
use csv::ByteRecord;
use serde_json::{Map, Value};

use crate::{DataError, file};

const KNOWN: &str = ".txt, .text, .csv, .tsv, .jsonl, .ndjson, each also with .gz";
const BOM: &[u8] = b"\xef\xbb\xbf";

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
        match self.files.as_slice() {
            [] => "the texts".into(),
            [file] => file.display().to_string(),
            [first, rest @ ..] => format!("{} and {} more", first.display(), rest.len()),
        }
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

impl Dataset<TextExample> for TextSet {
    fn get(&self, index: usize) -> Option<TextExample> {
        self.examples.get(index).cloned()
    }

    fn len(&self) -> usize {
        self.examples.len()
    }
}

/// Reads files, and folders as the files of known extensions in them (sorted, not recursive).
///
/// # Errors
/// Anything that is missing or malformed, an empty text or label, a file without an example.
pub fn read_text(paths: &[PathBuf], columns: &TextColumns) -> Result<TextSet, DataError> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(text_files(path)?);
    }
    let mut examples = Vec::new();
    for (index, path) in files.iter().enumerate() {
        let format = Format::of(path)?;
        let bytes = file::read(path)?;
        let parser = Parser {
            path,
            file: index as u32,
            columns,
        };
        examples.extend(parser.parse(format, &bytes)?);
    }
    Ok(TextSet { examples, files })
}

fn text_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let about = std::fs::metadata(path).map_err(|source| file::io_error(path, source))?;
    if !about.is_dir() {
        return Ok(vec![path.into()]);
    }
    let mut files = file::list(path)?;
    files.retain(|file| file.is_file() && Format::of(file).is_ok());
    match files.is_empty() {
        true => Err(DataError::NoKnownFile {
            path: path.into(),
            known: KNOWN,
        }),
        false => Ok(files),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Lines,
    Csv,
    Tsv,
    Jsonl,
}

impl Format {
    fn of(path: &Path) -> Result<Self, DataError> {
        let name = file::name(path).to_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("txt" | "text") => Ok(Self::Lines),
            Some("csv") => Ok(Self::Csv),
            Some("tsv") => Ok(Self::Tsv),
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            _ => Err(DataError::UnknownExtension {
                path: path.into(),
                known: KNOWN,
            }),
        }
    }
}

/// Turns the bytes of one file into examples.
pub(crate) struct Parser<'a> {
    pub(crate) path: &'a Path,
    pub(crate) file: u32,
    pub(crate) columns: &'a TextColumns,
}

impl Parser<'_> {
    pub(crate) fn parse(
        &self,
        format: Format,
        bytes: &[u8],
    ) -> Result<Vec<TextExample>, DataError> {
        let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
        let examples = match format {
            Format::Lines => self.lines(bytes),
            Format::Csv | Format::Tsv => self.table(bytes, format),
            Format::Jsonl => self.jsonl(bytes),
        }?;
        match examples.is_empty() {
            true => Err(DataError::NoExample { path: self.path() }),
            false => Ok(examples),
        }
    }

    fn lines(&self, bytes: &[u8]) -> Result<Vec<TextExample>, DataError> {
        if self.columns.label.is_some() {
            return Err(DataError::NoLabelsInLines { path: self.path() });
        }
        let mut examples = Vec::new();
        for (line, text) in self.numbered_lines(bytes) {
            examples.push(self.example(text?, None, line)?);
        }
        Ok(examples)
    }

    fn jsonl(&self, bytes: &[u8]) -> Result<Vec<TextExample>, DataError> {
        let mut examples = Vec::new();
        for (line, text) in self.numbered_lines(bytes) {
            let object = self.object(text?, line)?;
            let text = match self.value(&object, &self.columns.text, line)? {
                Value::String(text) => text,
                other => return Err(self.not_a_string(&self.columns.text, other, line)),
            };
            let label = match &self.columns.label {
                Some(key) => Some(self.json_label(&object, key, line)?),
                None => None,
            };
            examples.push(self.example(text, label.as_deref(), line)?);
        }
        Ok(examples)
    }

    /// The lines that are not blank, with their 1-based numbers, without `\n` or `\r\n`.
    fn numbered_lines<'b>(
        &self,
        bytes: &'b [u8],
    ) -> impl Iterator<Item = (usize, Result<&'b str, DataError>)> {
        let lines = bytes.split(|&byte| byte == b'\n').enumerate();
        lines.filter_map(|(index, bytes)| {
            let line = index + 1;
            let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            let text = self.utf8(bytes, line);
            let blank = text.as_ref().is_ok_and(|text| text.trim().is_empty());
            (!blank).then_some((line, text))
        })
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
            other => Err(self.not_a_string(key, other, line)),
        }
    }

    fn not_a_string(&self, key: &str, found: &Value, line: usize) -> DataError {
        DataError::NotAString {
            path: self.path(),
            line,
            key: key.into(),
            found: kind(found),
        }
    }

    fn table(&self, bytes: &[u8], format: Format) -> Result<Vec<TextExample>, DataError> {
        let mut reader = table_reader(format).from_reader(bytes);
        let mut lines = LineCounter::new(bytes);
        let mut record = ByteRecord::new();
        let mut columns: Option<Columns> = None;
        let mut examples = Vec::new();
        loop {
            let start = reader.position().byte() as usize;
            let line = lines.line_at(start);
            let more = reader.read_byte_record(&mut record);
            if !more.map_err(|source| self.csv_error(line, source))? {
                return Ok(examples);
            }
            let is_last = reader.position().byte() as usize == bytes.len();
            if format == Format::Csv && is_last && !quotes_close(&bytes[start..]) {
                return Err(DataError::OpenQuote {
                    path: self.path(),
                    line,
                });
            }
            match &columns {
                None => columns = Some(self.header(&record, line)?),
                Some(columns) => examples.push(self.row(&record, columns, line)?),
            }
        }
    }

    fn csv_error(&self, line: usize, source: csv::Error) -> DataError {
        let path = self.path();
        DataError::Csv { path, line, source }
    }

    fn header(&self, record: &ByteRecord, line: usize) -> Result<Columns, DataError> {
        let names: Result<Vec<&str>, _> = record.iter().map(|f| self.utf8(f, line)).collect();
        let names = names?;
        let find = |column: &str| {
            let found = names.iter().position(|&name| name == column);
            found.ok_or_else(|| DataError::ColumnMissing {
                path: self.path(),
                line,
                column: column.into(),
                columns: names.iter().map(|&name| name.into()).collect(),
            })
        };
        Ok(Columns {
            text: find(&self.columns.text)?,
            label: self.columns.label.as_deref().map(find).transpose()?,
            count: names.len(),
        })
    }

    fn row(
        &self,
        record: &ByteRecord,
        columns: &Columns,
        line: usize,
    ) -> Result<TextExample, DataError> {
        if record.len() != columns.count {
            return Err(DataError::FieldCount {
                path: self.path(),
                line,
                found: record.len(),
                expected: columns.count,
            });
        }
        let text = self.utf8(&record[columns.text], line)?;
        let label = columns.label.map(|label| self.utf8(&record[label], line));
        self.example(text, label.transpose()?, line)
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
        self.path.into()
    }
}

/// Where the wanted columns stand, and how many there are.
struct Columns {
    text: usize,
    label: Option<usize>,
    count: usize,
}

fn table_reader(format: Format) -> csv::ReaderBuilder {
    let mut builder = csv::ReaderBuilder::new();
    // Flexible: `Parser::row` counts the fields itself, to name the right line.
    builder.has_headers(false).flexible(true);
    if format == Format::Tsv {
        builder.delimiter(b'\t').quoting(false);
    }
    builder
}

/// Whether the last record's quotes are closed. The csv crate takes an open quote as a field that
/// goes on to the end of the file, which would silently swallow every row after it.
fn quotes_close(last_record: &[u8]) -> bool {
    let with_another = [last_record, b"\nanother"].concat();
    let reader = table_reader(Format::Csv).from_reader(with_another.as_slice());
    reader.into_byte_records().count() > 1
}

/// Line numbers of growing byte offsets. The csv crate's own count is one short after blank lines
/// and after `\r\n`, because a record begins where the last one's first terminator byte ended.
struct LineCounter<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> LineCounter<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            line: 1,
        }
    }

    /// The 1-based line of the first byte at or after `offset` that is no line end.
    fn line_at(&mut self, offset: usize) -> usize {
        let rest = &self.bytes[offset..];
        let ends = rest
            .iter()
            .take_while(|&&byte| matches!(byte, b'\r' | b'\n'));
        let to = offset + ends.count();
        let passed = &self.bytes[self.at..to];
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count();
        self.at = to;
        self.line
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
            "a.docx: unknown extension; known are .txt, .text, .csv, .tsv, .jsonl, .ndjson, each also with .gz"
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
