//! Reads tables that name images or hold them. In: CSV, TSV, JSON, JSONL or Parquet. Out: an image and a target a row.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::content;
use crate::fields::{cell_value, object};
use crate::file::{Lines, utf8};
use crate::json::JsonElements;
use crate::parquet::{self, Cell, ParquetRows};
use crate::table::Table;
use crate::{DataError, TextColumns, file, labels};

/// Columns that hold an image or its path, by their usual names.
const IMAGE_COLUMNS: [&str; 5] = ["image", "img", "file_name", "file", "path"];

/// Columns of targets by their usual names.
const TARGET_COLUMNS: [(&str, TargetKind); 5] = [
    ("label", TargetKind::Class),
    ("labels", TargetKind::Several),
    ("score", TargetKind::Value),
    ("value", TargetKind::Value),
    ("target", TargetKind::Value),
];

/// What a column of targets holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A class.
    Class,
    /// A list of classes; in a table of text they are separated by `;` or white space, or written as in JSON.
    Several,
    /// A number.
    Value,
}

/// A column of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetColumn {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: TargetKind,
}

/// Which columns are read; where none is named, those of usual names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageColumns {
    /// Of images or their paths: `image`, `img`, `file_name`, `file` or `path`.
    pub image: Option<String>,
    /// Of targets: `label`, `labels`, `score`, `value` or `target`, if there is one.
    pub target: Option<TargetColumn>,
}

/// What is known of one image.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    Class(String),
    Several(Vec<String>),
    Value(f32),
    Mask(PathBuf),
    Boxes(Vec<NamedBox>),
}

/// A box with the name of its class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NamedBox {
    pub(super) class: String,
    /// Left, top, width, height.
    pub(super) edges: [f32; 4],
}

/// An image in a row.
#[derive(Debug, PartialEq)]
pub(super) enum RowImage {
    /// As the table has it.
    Path(String),
    Bytes(Vec<u8>),
}

/// One row of a table.
#[derive(Debug, PartialEq)]
pub(super) struct TableRow {
    pub(super) image: RowImage,
    pub(super) target: Option<Target>,
    /// Where it begins, 1-based; its number in Parquet.
    pub(super) line: usize,
}

/// Whether a file is a table by its name.
pub(super) fn is_table(path: &Path) -> bool {
    Format::of(path).is_some()
}

/// Whether a file is a table of text whose columns name images.
pub(super) fn names_images(path: &Path, columns: &ImageColumns) -> bool {
    let is_table = match Format::of(path) {
        Some(Format::Csv | Format::Tsv) => true,
        // `.json` is often something else: annotations, settings.
        Some(Format::Json) => file::extension(&file::name(path)) != ".json",
        Some(Format::Parquet) | None => false,
    };
    is_table && TableRows::open(path, columns).is_ok()
}

/// Rows of one file.
pub(super) struct TableRows {
    path: PathBuf,
    image: String,
    target: Option<TargetColumn>,
    records: Records,
}

enum Records {
    Table(Box<Table>),
    Json(Box<JsonElements>),
    Parquet(Box<ParquetRows>),
}

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Csv,
    Tsv,
    Json,
    Parquet,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        let name = file::name(path).to_lowercase();
        let packing = file::packing(&name).unwrap_or_default();
        let plain = name.strip_suffix(packing)?;
        match plain.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "jsonl" | "ndjson" | "json" => Some(Self::Json),
            "parquet" if packing.is_empty() => Some(Self::Parquet),
            _ => None,
        }
    }
}

impl TableRows {
    /// # Errors
    /// No such file, not a table by its name, or a column that is missing.
    pub(super) fn open(path: &Path, columns: &ImageColumns) -> Result<Self, DataError> {
        let format = Format::of(path).ok_or_else(|| DataError::UnknownExtension {
            path: path.into(),
            known: "those of tables: .csv, .tsv, .jsonl, .ndjson, .json, .parquet",
        })?;
        let names = column_names(path, format)?;
        let (image, target) = columns.find(path, names)?;
        let wanted = TextColumns {
            text: image.clone(),
            label: target.as_ref().map(|target| target.name.clone()),
            ..TextColumns::default()
        };
        let records = match format {
            Format::Parquet => Records::Parquet(Box::new(ParquetRows::open(path, &wanted)?)),
            Format::Json => Records::Json(Box::new(elements(path)?)),
            Format::Csv | Format::Tsv => {
                let mut table = table(path, format)?;
                table.header(&wanted)?;
                Records::Table(Box::new(table))
            }
        };
        Ok(Self {
            path: path.into(),
            image,
            target,
            records,
        })
    }

    /// Names of the classes that whole numbers number, in their order; empty where the file has none.
    pub(super) fn class_names(&self) -> &[String] {
        match &self.records {
            Records::Parquet(rows) => rows.class_names.as_deref().unwrap_or_default(),
            _ => &[],
        }
    }

    /// The next row, or what is wrong with it.
    ///
    /// # Errors
    /// The file can't be read on.
    pub(super) fn next(&mut self) -> Result<Option<Result<TableRow, DataError>>, DataError> {
        match self.row() {
            Ok(row) => Ok(row.map(Ok)),
            Err(error) if error.row_fault().is_some() => Ok(Some(Err(error))),
            Err(error) => Err(error),
        }
    }

    fn row(&mut self) -> Result<Option<TableRow>, DataError> {
        let path = self.path.clone();
        let (image, target, line) = match &mut self.records {
            Records::Table(table) => {
                let Some(columns) = table.columns else {
                    return Ok(None);
                };
                let Some(record) = table.next()? else {
                    return Ok(None);
                };
                let line = record.line;
                if record.len() != columns.count {
                    return Err(DataError::FieldCount {
                        path,
                        line,
                        found: record.len(),
                        expected: columns.count,
                    });
                }
                let field = |at: usize| utf8(&path, record.field(at), line).map(Value::from);
                let target = columns.label.map(field).transpose()?;
                (field(columns.text)?, target, line)
            }
            Records::Json(elements) => {
                let Some((bytes, line)) = elements.next()? else {
                    return Ok(None);
                };
                let object = object(&path, utf8(&path, bytes, line)?, line)?;
                let value = |key: &String| value(&path, &object, key, line);
                let target = self.target.as_ref().map(|target| value(&target.name));
                (value(&self.image)?, target.transpose()?, line)
            }
            Records::Parquet(rows) => {
                let Some((cells, line)) = rows.next()? else {
                    return Ok(None);
                };
                let mut cells = cells.into_iter();
                let image = match cells.next() {
                    Some(Cell::Bytes(bytes)) => bytes,
                    _ => return Err(DataError::NoImageBytes { path, line }),
                };
                let target = cells.next().map(cell_value);
                let target = target
                    .map(|target| self.target_of(target, line))
                    .transpose()?;
                let image = self.image_of(image, line)?;
                return Ok(Some(TableRow {
                    image,
                    target: target.flatten(),
                    line,
                }));
            }
        };
        let image = match image {
            Value::String(image) if !image.trim().is_empty() => RowImage::Path(image),
            _ => return Err(self.empty(&self.image, line)),
        };
        let target = target
            .map(|target| self.target_of(target, line))
            .transpose()?;
        Ok(Some(TableRow {
            image,
            target: target.flatten(),
            line,
        }))
    }

    /// A cell of Parquet holds an image or the path of one.
    fn image_of(&self, bytes: Vec<u8>, line: usize) -> Result<RowImage, DataError> {
        let is_path = !self.image.ends_with(BYTES) && !content::begins_image(&bytes);
        if is_path && let Ok(path) = std::str::from_utf8(&bytes) {
            return Ok(RowImage::Path(path.into()));
        }
        if bytes.is_empty() {
            let path = self.path.clone();
            return Err(DataError::NoImageBytes { path, line });
        }
        Ok(RowImage::Bytes(bytes))
    }

    fn target_of(&self, value: Value, line: usize) -> Result<Option<Target>, DataError> {
        let Some(column) = &self.target else {
            return Ok(None);
        };
        let target = match column.kind {
            TargetKind::Class => Target::Class(self.class(&value, &column.name, line)?),
            TargetKind::Several => Target::Several(self.several(value, &column.name, line)?),
            TargetKind::Value => Target::Value(self.number(&value, &column.name, line)?),
        };
        Ok(Some(target))
    }

    fn class(&self, value: &Value, key: &str, line: usize) -> Result<String, DataError> {
        let not_a_label = |found| DataError::NotALabel {
            path: self.path.clone(),
            line,
            key: key.into(),
            found,
        };
        match value {
            Value::String(label) => {
                let label = labels::canonical(label);
                if label.is_empty() {
                    return Err(self.empty(key, line));
                }
                Ok(label.into_owned())
            }
            Value::Bool(label) => Ok(label.to_string()),
            Value::Number(number) => {
                let name = number.to_string();
                let whole = match number.as_f64().filter(|_| number.is_f64()) {
                    Some(number) if number.fract() != 0.0 => {
                        return Err(DataError::FractionLabel {
                            path: self.path.clone(),
                            line,
                            key: key.into(),
                            value: name,
                        });
                    }
                    Some(number) => labels::whole(number).unwrap_or(name),
                    None => name,
                };
                self.class_name(whole, key, line)
            }
            Value::Array(items) if items.len() == 1 => self.class(&items[0], key, line),
            Value::Array(_) => Err(not_a_label("a list of several labels")),
            Value::Null => Err(not_a_label("null")),
            Value::Object(_) => Err(not_a_label("an object")),
        }
    }

    /// The name of a numbered class, where the file names its classes.
    fn class_name(&self, id: String, key: &str, line: usize) -> Result<String, DataError> {
        let names = self.class_names();
        if names.is_empty() {
            return Ok(id);
        }
        let path = self.path.clone();
        let id: i128 = id.parse().unwrap_or(i128::MAX);
        if id == -1 {
            // So `datasets` writes a label that is not known.
            return Err(DataError::NotALabel {
                path,
                line,
                key: key.into(),
                found: "-1, which is no class",
            });
        }
        let name = usize::try_from(id).ok().and_then(|id| names.get(id));
        name.cloned().ok_or_else(|| DataError::NoSuchClass {
            path,
            line,
            key: key.into(),
            id,
            count: names.len(),
        })
    }

    fn several(&self, value: Value, key: &str, line: usize) -> Result<Vec<String>, DataError> {
        match value {
            Value::Array(items) => {
                let classes = items.iter().map(|item| self.class(item, key, line));
                classes.collect()
            }
            Value::String(text) => match serde_json::from_str(&text) {
                Ok(list @ Value::Array(_)) => self.several(list, key, line),
                _ => Ok(labels::listed(&text)),
            },
            other => Ok(vec![self.class(&other, key, line)?]),
        }
    }

    fn number(&self, value: &Value, key: &str, line: usize) -> Result<f32, DataError> {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.map(|number| number as f32);
        let number = number.filter(|number| number.is_finite());
        number.ok_or_else(|| DataError::NotANumber {
            path: self.path.clone(),
            line,
            key: key.into(),
            value: value.to_string(),
        })
    }

    fn empty(&self, column: &str, line: usize) -> DataError {
        DataError::EmptyField {
            path: self.path.clone(),
            line,
            column: column.into(),
        }
    }
}

/// What the column of an image's bytes ends in, where it has a column for its path, too.
const BYTES: &str = ".bytes";

impl ImageColumns {
    /// The columns of images and targets among those of a file.
    fn find(
        &self,
        path: &Path,
        names: Vec<String>,
    ) -> Result<(String, Option<TargetColumn>), DataError> {
        // A list in Parquet is named for what it is made of: `labels.list.element`.
        let has = |name: &str| {
            names.iter().any(|known| {
                let rest = known.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let image = match &self.image {
            Some(name) => Some(name.clone()),
            None => IMAGE_COLUMNS
                .map(String::from)
                .into_iter()
                .find(|name| has(name)),
        };
        let Some(image) = image else {
            return Err(DataError::NoImageColumn {
                path: path.into(),
                known: IMAGE_COLUMNS.join(", "),
                columns: names,
            });
        };
        let usual = TARGET_COLUMNS.into_iter().find(|(name, _)| has(name));
        let usual = usual.map(|(name, kind)| TargetColumn {
            name: name.into(),
            kind,
        });
        let bytes = format!("{image}{BYTES}");
        let image = if names.contains(&bytes) { bytes } else { image };
        Ok((image, self.target.clone().or(usual)))
    }
}

fn column_names(path: &Path, format: Format) -> Result<Vec<String>, DataError> {
    match format {
        Format::Parquet => parquet::column_names(path),
        Format::Csv | Format::Tsv => table(path, format)?.names(),
        Format::Json => {
            let mut elements = elements(path)?;
            let Some((bytes, line)) = elements.next()? else {
                return Err(DataError::NoExample { path: path.into() });
            };
            let object = object(path, utf8(path, bytes, line)?, line)?;
            Ok(object.keys().cloned().collect())
        }
    }
}

fn table(path: &Path, format: Format) -> Result<Table, DataError> {
    let lines = Lines::new(path, file::open(path)?)?;
    Ok(Table::new(lines, format == Format::Csv))
}

fn elements(path: &Path) -> Result<JsonElements, DataError> {
    JsonElements::new(path, file::open(path)?)
}

fn value(
    path: &Path,
    object: &Map<String, Value>,
    key: &str,
    line: usize,
) -> Result<Value, DataError> {
    object
        .get(key)
        .cloned()
        .ok_or_else(|| DataError::KeyMissing {
            path: path.into(),
            line,
            key: key.into(),
            keys: object.keys().cloned().collect(),
        })
}
