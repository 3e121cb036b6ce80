//! Reads two columns of a Parquet file, a few rows at a time. In: a file. Out: text and label of each row.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use ::parquet::basic::{ConvertedType, LogicalType, Type};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::DataType;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use crate::caught::caught;
use crate::{DataError, TextColumns, file, labels};

/// Rows decoded at a time.
const ROWS: usize = 256;
/// Under this key `datasets` writes what it knows of the columns.
const HUGGINGFACE: &str = "huggingface";

/// What is in a row of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Bytes(Vec<u8>),
    Bool(bool),
    Integer(i128),
    Float(f64),
    /// A decimal number that is not whole, in digits.
    Fraction(String),
    List(Vec<Cell>),
}

/// How the values of a column are read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    Bool,
    Signed,
    Unsigned,
    Float,
    /// Floats of two bytes.
    Half,
    Decimal {
        scale: u32,
    },
    /// Of none of these types; what it is instead.
    Other(&'static str),
}

/// A column that is read.
struct Column {
    index: usize,
    kind: Kind,
    /// Definition level of a value that is there.
    present: i16,
    list: bool,
}

/// Rows of one file.
pub(crate) struct ParquetRows {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    /// Of the text, then of the label.
    wanted: Vec<Column>,
    next_group: usize,
    open: Vec<ColumnReader>,
    rows: VecDeque<Vec<Cell>>,
    number: usize,
    /// Names of the classes that the labels number, as `datasets` keeps them in the file.
    pub(crate) class_names: Option<Vec<String>>,
}

/// The names of the columns, nested ones as `image.bytes`.
///
/// # Errors
/// No such file, or bytes that are no Parquet.
pub(crate) fn column_names(path: &Path) -> Result<Vec<String>, DataError> {
    let reader = reader(path)?;
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    Ok(columns
        .iter()
        .map(|column| column.path().string())
        .collect())
}

fn reader(path: &Path) -> Result<SerializedFileReader<File>, DataError> {
    let failed = |source| file::io_error(path, source);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() == 0 {
        return Err(DataError::Empty { path: path.into() });
    }
    guarded(path, || SerializedFileReader::new(file))
}

impl ParquetRows {
    /// # Errors
    /// No such file or column, a column that holds no text, or bytes that are no Parquet.
    pub(crate) fn open(path: &Path, columns: &TextColumns) -> Result<Self, DataError> {
        let reader = reader(path)?;
        let text = Column::find(path, &reader, &columns.text)?;
        let is_text = |column: &Column| column.kind == Kind::Text && !column.list;
        let needed = "a text is one value of type string";
        let text = text.checked(path, &columns.text, needed, is_text)?;
        let (mut wanted, mut class_names) = (vec![text], None);
        if let Some(name) = &columns.label {
            let label = Column::find(path, &reader, name)?;
            let is_label = |column: &Column| !matches!(column.kind, Kind::Other(_));
            let needed = "a label is text, an integer, a whole number, true or false";
            wanted.push(label.checked(path, name, needed, is_label)?);
            class_names = self::class_names(&reader, name);
        }
        Ok(Self {
            path: path.into(),
            reader,
            wanted,
            next_group: 0,
            open: Vec::new(),
            rows: VecDeque::new(),
            number: 0,
            class_names,
        })
    }

    /// Opens columns of any kind; of a list its items.
    ///
    /// # Errors
    /// No such file or column, or bytes that are no Parquet.
    pub(crate) fn open_columns(path: &Path, names: &[String]) -> Result<Self, DataError> {
        let reader = reader(path)?;
        let wanted = names.iter().map(|name| Column::find(path, &reader, name));
        Ok(Self {
            path: path.into(),
            wanted: wanted.collect::<Result<_, _>>()?,
            reader,
            next_group: 0,
            open: Vec::new(),
            rows: VecDeque::new(),
            number: 0,
            class_names: None,
        })
    }

    /// Names of the classes that a column's whole numbers number, where the file has them.
    pub(crate) fn class_names_of(&self, name: &str) -> Option<Vec<String>> {
        class_names(&self.reader, name)
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
            let columns = wanted
                .iter()
                .map(|column| group.get_column_reader(column.index));
            columns.collect::<Result<Vec<_>, _>>()
        })?;
        self.next_group += 1;
        Ok(true)
    }

    /// Decodes some rows of the open row group; false where it has no more.
    fn decode(&mut self) -> Result<bool, DataError> {
        let mut columns = Vec::new();
        for (reader, column) in self.open.iter_mut().zip(&self.wanted) {
            columns.push(guarded(&self.path, || column.cells(reader))?.into_iter());
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

impl Column {
    /// The column of this path (`meta.label`), or the items of the list of this name.
    fn find(
        path: &Path,
        reader: &SerializedFileReader<File>,
        name: &str,
    ) -> Result<Self, DataError> {
        let columns = reader.metadata().file_metadata().schema_descr().columns();
        let names: Vec<String> = columns
            .iter()
            .map(|column| column.path().string())
            .collect();
        let items = format!("{name}.");
        let inside: Vec<usize> = (0..names.len())
            .filter(|&at| names[at].starts_with(&items))
            .collect();
        let list = match inside.as_slice() {
            [only] if columns[*only].max_rep_level() > 0 => Some(*only),
            _ => None,
        };
        let found = names.iter().position(|known| known == name).or(list);
        let index = found.ok_or_else(|| DataError::ColumnMissing {
            path: path.into(),
            line: 1,
            column: name.into(),
            columns: names,
        })?;
        let column = &columns[index];
        Ok(Self {
            index,
            kind: Kind::of(column),
            present: column.max_def_level(),
            list: column.max_rep_level() > 0,
        })
    }

    /// The column, if it can be used for what it is wanted for.
    fn checked(
        self,
        path: &Path,
        name: &str,
        needed: &'static str,
        usable: impl Fn(&Self) -> bool,
    ) -> Result<Self, DataError> {
        if usable(&self) {
            return Ok(self);
        }
        Err(DataError::ColumnType {
            path: path.into(),
            column: name.into(),
            found: self.found(),
            needed,
        })
    }

    fn found(&self) -> String {
        let kind = match self.kind {
            Kind::Text => "text",
            Kind::Bool => "true or false",
            Kind::Signed | Kind::Unsigned => "integers",
            Kind::Float | Kind::Half => "numbers with a fraction",
            Kind::Decimal { .. } => "decimal numbers",
            Kind::Other(kind) => kind,
        };
        if self.list {
            format!("lists of {kind}")
        } else {
            kind.into()
        }
    }

    /// The next cells, a row each.
    fn cells(&self, reader: &mut ColumnReader) -> Result<Vec<Cell>, ParquetError> {
        let bytes = |bytes: &[u8]| match self.kind {
            Kind::Decimal { scale } => decimal(big_endian(bytes), scale),
            Kind::Half => half(bytes),
            _ => Cell::Bytes(bytes.to_vec()),
        };
        let integer = |n: i64, unsigned: u64| match self.kind {
            Kind::Decimal { scale } => decimal(n.into(), scale),
            Kind::Unsigned => Cell::Integer(unsigned.into()),
            _ => Cell::Integer(n.into()),
        };
        match reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.typed(reader, |value| bytes(value.data()))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                self.typed(reader, |value| bytes(value.data()))
            }
            ColumnReader::BoolColumnReader(reader) => self.typed(reader, Cell::Bool),
            ColumnReader::Int32ColumnReader(reader) => {
                self.typed(reader, |n| integer(n.into(), n.cast_unsigned().into()))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                self.typed(reader, |n| integer(n, n.cast_unsigned()))
            }
            // Through its own digits, so that 0.1 stays 0.1.
            ColumnReader::FloatColumnReader(reader) => self.typed(reader, |x| {
                Cell::Float(x.to_string().parse().unwrap_or(x.into()))
            }),
            ColumnReader::DoubleColumnReader(reader) => self.typed(reader, Cell::Float),
            ColumnReader::Int96ColumnReader(_) => {
                Err(ParquetError::General("a column of another type".into()))
            }
        }
    }

    fn typed<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        cell: impl Fn(T::T) -> Cell,
    ) -> Result<Vec<Cell>, ParquetError> {
        let (mut levels, mut repeats, mut values) = (Vec::new(), Vec::new(), Vec::new());
        reader.read_records(ROWS, Some(&mut levels), Some(&mut repeats), &mut values)?;
        let mut values = values.into_iter().map(cell);
        if levels.is_empty() {
            return Ok(values.collect());
        }
        let cells = levels.into_iter().map(|level| match level {
            level if level == self.present => values.next().unwrap_or(Cell::Null),
            _ => Cell::Null,
        });
        if !self.list {
            return Ok(cells.collect());
        }
        let mut rows: Vec<Cell> = Vec::new();
        for (cell, repeat) in cells.zip(repeats) {
            match rows.last_mut() {
                Some(Cell::List(items)) if repeat > 0 => items.push(cell),
                // An empty list and no list at all have a level, and no item.
                _ if cell == Cell::Null => rows.push(Cell::List(vec![])),
                _ => rows.push(Cell::List(vec![cell])),
            }
        }
        Ok(rows)
    }
}

impl Kind {
    fn of(column: &ColumnDescriptor) -> Self {
        let (logical, converted) = (column.logical_type_ref(), column.converted_type());
        let is_decimal =
            matches!(logical, Some(LogicalType::Decimal(_))) || converted == ConvertedType::DECIMAL;
        if is_decimal {
            return match u32::try_from(column.type_scale()) {
                Ok(scale) if scale <= 38 => Self::Decimal { scale },
                _ => Self::Other("decimal numbers of an impossible scale"),
            };
        }
        match column.physical_type() {
            Type::BYTE_ARRAY => Self::Text,
            Type::BOOLEAN => Self::Bool,
            Type::FLOAT | Type::DOUBLE => Self::Float,
            Type::INT32 | Type::INT64 => Self::of_integer(logical, converted),
            Type::INT96 => Self::Other("dates or times"),
            Type::FIXED_LEN_BYTE_ARRAY if logical == Some(&LogicalType::Float16) => Self::Half,
            Type::FIXED_LEN_BYTE_ARRAY => Self::Other("bytes of a fixed length"),
        }
    }

    fn of_integer(logical: Option<&LogicalType>, converted: ConvertedType) -> Self {
        use ConvertedType as C;
        match (logical, converted) {
            (Some(LogicalType::Integer(about)), _) if !about.is_signed => Self::Unsigned,
            (_, C::UINT_8 | C::UINT_16 | C::UINT_32 | C::UINT_64) => Self::Unsigned,
            (Some(LogicalType::Date | LogicalType::Time(_) | LogicalType::Timestamp(_)), _)
            | (
                _,
                C::DATE
                | C::TIME_MILLIS
                | C::TIME_MICROS
                | C::TIMESTAMP_MILLIS
                | C::TIMESTAMP_MICROS,
            ) => Self::Other("dates or times"),
            _ => Self::Signed,
        }
    }
}

/// The names that `datasets` gave the classes of a column.
fn class_names(reader: &SerializedFileReader<File>, column: &str) -> Option<Vec<String>> {
    let pairs = reader.metadata().file_metadata().key_value_metadata()?;
    let about = pairs.iter().find(|pair| pair.key == HUGGINGFACE)?;
    let about: Value = serde_json::from_str(about.value.as_deref()?).ok()?;
    let mut feature = &about["info"]["features"];
    for part in column.split('.') {
        feature = feature.get(part)?;
    }
    // A list is written as `[item]` by old versions, and as `{"feature": item}` by later ones.
    for item in [feature.get(0), feature.get("feature")] {
        feature = item.unwrap_or(feature);
    }
    let names = feature.get("names")?.as_array()?;
    let names: Option<Vec<String>> = names
        .iter()
        .map(|name| Some(labels::canonical(name.as_str()?).into_owned()))
        .collect();
    names.filter(|names| !names.is_empty())
}

/// A float of two bytes, the low one first: a sign, 5 bits of exponent, 10 of fraction.
fn half(bytes: &[u8]) -> Cell {
    let [low, high] = *bytes else {
        return Cell::Null;
    };
    let bits = u16::from_le_bytes([low, high]);
    let (exponent, fraction) = (
        i32::from(bits >> 10 & 0x1f),
        f64::from(bits & 0x3ff) / 1024.0,
    );
    let size = match exponent {
        0 => fraction * 2_f64.powi(-14),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1.0 + fraction) * 2_f64.powi(exponent - 15),
    };
    Cell::Float(if bits >> 15 == 1 { -size } else { size })
}

/// Two's complement of any length; what does not fit into 128 bits saturates.
fn big_endian(bytes: &[u8]) -> i128 {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let (high, low) = bytes.split_at(bytes.len().saturating_sub(16));
    if high.iter().any(|&byte| byte != fill) {
        return if negative { i128::MIN } else { i128::MAX };
    }
    let mut all = [fill; 16];
    all[16 - low.len()..].copy_from_slice(low);
    i128::from_be_bytes(all)
}

/// - scale: digits behind the point
fn decimal(unscaled: i128, scale: u32) -> Cell {
    let unit = 10_i128.pow(scale);
    let (whole, rest) = (unscaled / unit, unscaled % unit);
    if rest == 0 {
        return Cell::Integer(whole);
    }
    let sign = if unscaled < 0 { "-" } else { "" };
    let rest = format!("{:0width$}", rest.abs(), width = scale as usize);
    let digits = rest.trim_end_matches('0');
    Cell::Fraction(format!("{sign}{}.{digits}", whole.abs()))
}

/// Runs the crate's code; its errors name the file, and so does a panic in it.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    match caught(work) {
        Ok(done) => done.map_err(|error| wrong(path, error.to_string())),
        Err(panic) => Err(wrong(path, panic)),
    }
}

fn wrong(path: &Path, reason: String) -> DataError {
    DataError::Parquet {
        path: path.into(),
        reason,
    }
}
