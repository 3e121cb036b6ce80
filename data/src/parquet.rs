//! Reads two columns of a Parquet file, a few rows at a time. In: a file. Out: text and label of each row.

use std::any::Any;
use std::collections::VecDeque;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use ::parquet::basic::Type;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::DataType;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescriptor;

use crate::{DataError, TextColumns, file};

/// Rows decoded at a time.
const ROWS: usize = 256;

/// What stands in a row of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Bytes(Vec<u8>),
    Integer(i64),
}

/// Rows of one file.
pub(crate) struct ParquetRows {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    /// Of the text, then of the label.
    wanted: Vec<usize>,
    next_group: usize,
    open: Vec<ColumnReader>,
    rows: VecDeque<Vec<Cell>>,
    number: usize,
}

impl ParquetRows {
    /// # Errors
    /// No such file or column, a column that holds no text, or bytes that are no Parquet.
    pub(crate) fn open(path: &Path, columns: &TextColumns) -> Result<Self, DataError> {
        let failed = |source| file::io_error(path, source);
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            return Err(DataError::Empty { path: path.into() });
        }
        let reader = guarded(path, || SerializedFileReader::new(file))?;
        let mut wanted = vec![find(path, &reader, &columns.text)?];
        if let Some(label) = &columns.label {
            wanted.push(find(path, &reader, label)?);
        }
        let rows = Self {
            path: path.into(),
            reader,
            wanted,
            next_group: 0,
            open: Vec::new(),
            rows: VecDeque::new(),
            number: 0,
        };
        rows.check_types(columns)?;
        Ok(rows)
    }

    fn check_types(&self, columns: &TextColumns) -> Result<(), DataError> {
        let names = [Some(&columns.text), columns.label.as_ref()];
        for (at, (&column, name)) in self
            .wanted
            .iter()
            .zip(names.into_iter().flatten())
            .enumerate()
        {
            let descriptor = self.descriptor(column);
            let integer = matches!(descriptor.physical_type(), Type::INT32 | Type::INT64);
            let serves = descriptor.physical_type() == Type::BYTE_ARRAY || (at == 1 && integer);
            let flat = descriptor.max_rep_level() == 0;
            if !serves || !flat {
                return Err(DataError::NotAString {
                    path: self.path.clone(),
                    line: 1,
                    key: name.clone(),
                    found: if flat { "of another type" } else { "a list" },
                });
            }
        }
        Ok(())
    }

    fn descriptor(&self, column: usize) -> &ColumnDescriptor {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        &schema.columns()[column]
    }

    /// The cells of the next row, and its 1-based number.
    pub(crate) fn next(&mut self) -> Result<Option<(Vec<Cell>, usize)>, DataError> {
        while self.rows.is_empty() {
            if !self.open.is_empty() && self.decode()? {
                break;
            }
            if !self.open_group()? {
                return Ok(None);
            }
        }
        self.number += 1;
        let row = self.rows.pop_front();
        Ok(row.map(|row| (row, self.number)))
    }

    fn open_group(&mut self) -> Result<bool, DataError> {
        if self.next_group == self.reader.num_row_groups() {
            return Ok(false);
        }
        let (reader, wanted, group) = (&self.reader, &self.wanted, self.next_group);
        self.open = guarded(&self.path, || {
            let group = reader.get_row_group(group)?;
            let columns = wanted.iter().map(|&column| group.get_column_reader(column));
            columns.collect::<Result<Vec<_>, _>>()
        })?;
        self.next_group += 1;
        Ok(true)
    }

    /// Decodes some rows of the open row group; false where it has no more.
    fn decode(&mut self) -> Result<bool, DataError> {
        let mut columns = Vec::new();
        for reader in &mut self.open {
            columns.push(guarded(&self.path, || cells(reader))?.into_iter());
        }
        let lengths: Vec<_> = columns.iter().map(ExactSizeIterator::len).collect();
        if lengths.iter().any(|&length| length != lengths[0]) {
            let reason = "its columns have different numbers of rows".into();
            return Err(wrong(&self.path, reason));
        }
        for _ in 0..lengths[0] {
            let row = columns.iter_mut().filter_map(Iterator::next);
            self.rows.push_back(row.collect());
        }
        Ok(lengths[0] > 0)
    }
}

fn find(
    path: &Path,
    reader: &SerializedFileReader<File>,
    column: &str,
) -> Result<usize, DataError> {
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    let mut names = columns.iter().map(|column| column.path().string());
    names
        .position(|name| name == column)
        .ok_or_else(|| DataError::ColumnMissing {
            path: path.into(),
            line: 1,
            column: column.into(),
            columns: columns
                .iter()
                .map(|column| column.path().string())
                .collect(),
        })
}

fn cells(reader: &mut ColumnReader) -> Result<Vec<Cell>, ParquetError> {
    match reader {
        ColumnReader::ByteArrayColumnReader(reader) => {
            typed(reader, |bytes| Cell::Bytes(bytes.data().to_vec()))
        }
        ColumnReader::Int32ColumnReader(reader) => typed(reader, |n| Cell::Integer(n.into())),
        ColumnReader::Int64ColumnReader(reader) => typed(reader, Cell::Integer),
        _ => Err(ParquetError::General("a column of another type".into())),
    }
}

fn typed<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    cell: impl Fn(T::T) -> Cell,
) -> Result<Vec<Cell>, ParquetError> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (rows, present, _) = reader.read_records(ROWS, Some(&mut levels), None, &mut values)?;
    let mut values = values.into_iter().map(cell);
    if levels.is_empty() {
        return Ok(values.collect());
    }
    // A value stands where its level is the highest; nulls have a lower one.
    let top = levels.iter().copied().max().unwrap_or(0);
    let all = present == rows;
    let none = present == 0;
    let row = |level: i16| match all || (!none && level == top) {
        true => values.next().unwrap_or(Cell::Null),
        false => Cell::Null,
    };
    Ok(levels.into_iter().map(row).collect())
}

thread_local! {
    /// Whether this thread runs the crate's code.
    static GUARDED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Keeps what becomes an error from being printed as a panic; other panics go to the hook that was there.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                hook(info);
            }
        }));
    });
}

/// Runs the crate's code; its errors name the file, and a panic of its is an error too: nothing else stands between
/// a hostile file and the process.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    silence();
    GUARDED.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    match done {
        Ok(done) => done.map_err(|error| wrong(path, error.to_string())),
        Err(panic) => Err(wrong(path, said(&*panic))),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it cannot be decoded").into()
}

fn wrong(path: &Path, reason: String) -> DataError {
    DataError::Parquet {
        path: path.into(),
        reason,
    }
}
