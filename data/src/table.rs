//! Cuts CSV and TSV into records, a line at a time. In: lines. Out: fields, and the line where each record begins.
//!
//! A comma or a tab separates fields, as the file's extension says. Where the header lacks the wanted columns, it is
//! tried whether it has them with another separator: `;` as Excel writes it in many countries, `|`, tab or comma. A first
//! line `sep=;` decides, too.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::file::{LONGEST_LINE, Lines, ends_line, too_long, utf8};
use crate::{DataError, TextColumns};

/// What may separate fields.
const SEPARATORS: [u8; 4] = *b",;|\t";

/// Records of one file.
pub(crate) struct Table {
    lines: Lines,
    quoting: bool,
    separator: u8,
    reader: Reader,
    record: Record,
    /// The lines of a record of several.
    lines_of_record: Vec<u8>,
    /// The line being cut, and how much of it is.
    line: Vec<u8>,
    cut: usize,
    number: usize,
    pub(crate) columns: Option<Columns>,
}

/// The fields of one record.
#[derive(Default)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    filled: (usize, usize),
    /// Where it begins, 1-based.
    pub(crate) line: usize,
}

/// Where the wanted columns stand, and how many there are.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) text: usize,
    pub(crate) label: Option<usize>,
    pub(crate) count: usize,
}

impl Record {
    pub(crate) fn len(&self) -> usize {
        self.filled.1
    }

    pub(crate) fn field(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.field(i))
    }
}

impl Table {
    /// - quoting: CSV has quotes, TSV has none
    pub(crate) fn new(lines: Lines, quoting: bool) -> Self {
        let separator = if quoting { b',' } else { b'\t' };
        Self {
            lines,
            quoting,
            separator,
            reader: reader(separator, quoting),
            record: Record::default(),
            lines_of_record: Vec::new(),
            line: Vec::new(),
            cut: 0,
            number: 0,
            columns: None,
        }
    }

    /// The next record that is not blank.
    ///
    /// # Errors
    /// A quote that never closes: the csv crate takes it as a field that goes on to the end of the file, which would
    /// silently swallow every row after it. And one that closes lines later where text follows it.
    pub(crate) fn next(&mut self) -> Result<Option<&Record>, DataError> {
        self.record.filled = (0, 0);
        self.lines_of_record.clear();
        let mut begun = false;
        let mut length = 0;
        loop {
            if self.cut == self.line.len() && !self.refill()? {
                return self.finish(begun);
            }
            if !begun {
                self.skip_line_ends();
                self.record.line = self.number;
            }
            begun |= self.cut < self.line.len();
            let before = self.cut;
            let is_whole = self.feed();
            if !is_whole || !self.lines_of_record.is_empty() {
                let read = &self.line[before..self.cut];
                self.lines_of_record.extend_from_slice(read);
            }
            if is_whole {
                self.check_quotes()?;
                return Ok(Some(&self.record));
            }
            length += self.cut - before;
            if length > LONGEST_LINE {
                return Err(too_long(&self.lines.path, self.record.line));
            }
        }
    }

    fn refill(&mut self) -> Result<bool, DataError> {
        let Some((line, number)) = self.lines.next()? else {
            return Ok(false);
        };
        self.line.clear();
        self.line.extend_from_slice(line);
        (self.cut, self.number) = (0, number);
        Ok(true)
    }

    fn skip_line_ends(&mut self) {
        let rest = self.line[self.cut..].iter();
        let ends = rest.take_while(|&&byte| ends_line(byte));
        self.cut += ends.count();
    }

    /// Cuts on until the record or the line ends; says whether the record did.
    fn feed(&mut self) -> bool {
        while self.cut < self.line.len() {
            let Record {
                bytes,
                ends,
                filled,
                ..
            } = &mut self.record;
            let (result, read, written, ended) = self.reader.read_record(
                &self.line[self.cut..],
                &mut bytes[filled.0..],
                &mut ends[filled.1..],
            );
            self.cut += read;
            *filled = (filled.0 + written, filled.1 + ended);
            match result {
                ReadRecordResult::Record => return true,
                ReadRecordResult::OutputFull => bytes.resize((bytes.len() * 2).max(256), 0),
                ReadRecordResult::OutputEndsFull => ends.resize((ends.len() * 2).max(8), 0),
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            }
        }
        false
    }

    /// The last record, where no line end follows it.
    fn finish(&mut self, begun: bool) -> Result<Option<&Record>, DataError> {
        if !begun {
            return Ok(None);
        }
        // A line end ends every record but one with an open quote.
        self.line.clear();
        self.line.push(b'\n');
        self.cut = 0;
        if self.feed() {
            self.check_quotes()?;
            return Ok(Some(&self.record));
        }
        Err(DataError::OpenQuote {
            path: self.lines.path.clone(),
            line: self.record.line,
        })
    }

    /// Refuses a record of several lines whose quotes are no pair.
    fn check_quotes(&self) -> Result<(), DataError> {
        let line = self.record.line;
        let stray = stray_quote(&self.lines_of_record, self.separator);
        match stray.filter(|_| self.quoting) {
            Some(lines) => Err(DataError::StrayQuote {
                path: self.lines.path.clone(),
                line,
                closes: line + lines,
            }),
            None => Ok(()),
        }
    }

    fn set_separator(&mut self, separator: u8, quoting: bool) {
        (self.separator, self.quoting) = (separator, quoting);
        self.reader = reader(separator, quoting);
    }

    /// Reads the header and finds the wanted columns in it; false where the file has no record at all.
    ///
    /// # Errors
    /// A column that is missing, or a header that is not UTF-8.
    pub(crate) fn header(&mut self, wanted: &TextColumns) -> Result<bool, DataError> {
        let mut names = vec![wanted.text.as_str()];
        names.extend(wanted.label.as_deref());
        let Some(header) = self.header_of(&names)? else {
            return Ok(false);
        };
        let at = |name: &str| header.iter().position(|known| known == name);
        self.columns = at(&wanted.text).map(|text| Columns {
            text,
            label: wanted.label.as_deref().and_then(at),
            count: header.len(),
        });
        Ok(true)
    }

    /// The names of the columns, cut with the separator that gives those that are wanted; `None` where the file has no record
    /// at all.
    ///
    /// # Errors
    /// A column that is missing, or a header that is not UTF-8.
    pub(crate) fn header_of(&mut self, wanted: &[&str]) -> Result<Option<Vec<String>>, DataError> {
        if self.next()?.is_none() {
            return Ok(None);
        }
        if let Some(separator) = announced(&self.line) {
            self.set_separator(separator, self.quoting);
            if self.next()?.is_none() {
                return Ok(None);
            }
        }
        let (line, path) = (self.record.line, &self.lines.path);
        let fields = self.record.fields();
        let names: Vec<String> = fields
            .map(|field| utf8(path, field, line).map(String::from))
            .collect::<Result<_, _>>()?;
        let Some(column) = missing(&names, wanted) else {
            return Ok(Some(names));
        };
        let (separator, names) = self.other_separator(&names, wanted);
        if missing(&names, wanted).is_some() {
            return Err(DataError::ColumnMissing {
                path: path.clone(),
                line,
                column: column.into(),
                columns: names,
            });
        }
        self.set_separator(separator, self.quoting || separator != b'\t');
        Ok(Some(names))
    }

    /// The names of the columns, cut with the separator that gives the most of them.
    ///
    /// # Errors
    /// A header that is not UTF-8, or no record at all.
    pub(crate) fn names(mut self) -> Result<Vec<String>, DataError> {
        let mut first = self.next()?.is_some();
        if first && let Some(separator) = announced(&self.line) {
            self.set_separator(separator, self.quoting);
            first = self.next()?.is_some();
        }
        let path = &self.lines.path;
        if !first {
            return Err(DataError::NoExample { path: path.clone() });
        }
        let fields = self.record.fields();
        let mut best: Vec<String> = fields
            .map(|field| utf8(path, field, self.record.line).map(String::from))
            .collect::<Result<_, _>>()?;
        for separator in SEPARATORS {
            let names = header_fields(&self.line, separator);
            if names.len() > best.len() {
                best = names;
            }
        }
        Ok(best)
    }

    /// The separator with which the header has the wanted columns, else the one with which it has the most.
    fn other_separator(&self, names: &[String], wanted: &[&str]) -> (u8, Vec<String>) {
        let mut best = (b',', names.to_vec());
        for separator in SEPARATORS {
            let names = header_fields(&self.line, separator);
            let found = missing(&names, wanted).is_none();
            if found || names.len() > best.1.len() {
                best = (separator, names);
            }
            if found {
                break;
            }
        }
        best
    }
}

/// The first of the wanted columns that is not there.
fn missing<'a>(names: &[String], wanted: &[&'a str]) -> Option<&'a str> {
    let is_missing = |column: &&&str| !names.iter().any(|name| name == **column);
    wanted.iter().find(is_missing).copied()
}

fn reader(separator: u8, quoting: bool) -> Reader {
    let mut builder = ReaderBuilder::new();
    builder.delimiter(separator).quoting(quoting).build()
}

/// Lines from the start of a record to a quote that closes a field of several lines, and that text follows.
fn stray_quote(record: &[u8], separator: u8) -> Option<usize> {
    let ends_field = |byte: &u8| *byte == separator || ends_line(*byte);
    let (mut lines, mut opened, mut at_start) = (0, None, true);
    let mut bytes = record.iter().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        let next = bytes.peek().map(|(_, byte)| **byte);
        if ends_line(*byte) && !(*byte == b'\r' && next == Some(b'\n')) {
            lines += 1;
        }
        match (opened, byte) {
            (Some(_), b'"') if next == Some(b'"') => {
                bytes.next();
            }
            (Some(line), b'"') => {
                let mut after = record[at + 1..].iter();
                let after = after.find(|byte| **byte != b' ');
                if lines > line && !after.is_none_or(ends_field) {
                    return Some(lines);
                }
                (opened, at_start) = (None, false);
            }
            (None, b'"') if at_start => opened = Some(lines),
            _ => at_start = opened.is_none() && ends_field(byte),
        }
    }
    None
}

/// The separator that a first line `sep=;` names.
fn announced(line: &[u8]) -> Option<u8> {
    match line.trim_ascii() {
        [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', separator] => Some(*separator),
        // A tab is trimmed away.
        b"sep=" if line.contains(&b'\t') => Some(b'\t'),
        _ => None,
    }
}

/// Names of the columns in a header of one line.
fn header_fields(line: &[u8], separator: u8) -> Vec<String> {
    let quoting = true;
    let (mut bytes, mut ends) = (vec![0; line.len() + 1], vec![0; line.len() + 1]);
    let line = [line.trim_ascii_end(), b"\n"].concat();
    let (_, _, _, count) = reader(separator, quoting).read_record(&line, &mut bytes, &mut ends);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let fields = starts.zip(ends.iter()).take(count);
    fields
        .map(|(start, &end)| String::from_utf8_lossy(&bytes[start..end]).into_owned())
        .collect()
}
