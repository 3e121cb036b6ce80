//! Cuts CSV and TSV into records, a line at a time. In: lines. Out: fields, and the line where each record begins.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::file::{LONGEST_LINE, Lines, too_long};
use crate::{DataError, TextColumns};

/// Records of one file.
pub(crate) struct Table {
    lines: Lines,
    reader: Reader,
    record: Record,
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
        let mut builder = ReaderBuilder::new();
        if !quoting {
            builder.delimiter(b'\t').quoting(false);
        }
        Self {
            lines,
            reader: builder.build(),
            record: Record::default(),
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
    /// silently swallow every row after it.
    pub(crate) fn next(&mut self) -> Result<Option<&Record>, DataError> {
        self.record.filled = (0, 0);
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
            if self.feed() {
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
        let ends = rest.take_while(|&&byte| matches!(byte, b'\r' | b'\n'));
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
        match self.feed() {
            true => Ok(Some(&self.record)),
            false => Err(DataError::OpenQuote {
                path: self.lines.path.clone(),
                line: self.record.line,
            }),
        }
    }

    /// Finds the wanted columns in a header.
    ///
    /// - names: of all columns
    pub(crate) fn header(
        &mut self,
        names: &[String],
        wanted: &TextColumns,
        line: usize,
    ) -> Result<(), DataError> {
        let find = |column: &str| {
            let found = names.iter().position(|name| name == column);
            found.ok_or_else(|| DataError::ColumnMissing {
                path: self.lines.path.clone(),
                line,
                column: column.into(),
                columns: names.to_vec(),
            })
        };
        self.columns = Some(Columns {
            text: find(&wanted.text)?,
            label: wanted.label.as_deref().map(find).transpose()?,
            count: names.len(),
        });
        Ok(())
    }
}
