//! Vectors as files. In: rows with their vectors. Out: JSONL, `.npy`, Parquet or safetensors.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use train::run::unfinished;
use train::{Failure, FailureKind};

use super::npy;
use crate::open;

/// Rows of a group of Parquet, which is held in memory until it is written.
const GROUP: usize = 8192;

/// Columns of Parquet; a list has the three levels that the format asks for.
const SCHEMA: &str = "message embeddings {
    required binary place (UTF8);
    optional binary text (UTF8);
    required group embedding (LIST) { repeated group list { required float element; } }
}";

/// Rows with their vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Where each row comes from, and its text; nothing of an image.
    pub rows: Vec<(String, Option<String>)>,
    /// Numbers of a vector.
    pub width: usize,
    /// `[rows, width]` row-major.
    pub values: Vec<f32>,
}

/// A line of JSONL.
#[derive(Serialize)]
struct Line<'a> {
    place: &'a str,
    text: Option<&'a str>,
    embedding: &'a [f32],
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `embeddings`, `[rows, width]`.
    Safetensors,
    /// An object a row.
    Jsonl,
    /// NumPy's, `[rows, width]`.
    Npy,
    /// A record a row.
    Parquet,
}

impl Format {
    /// The format that the extension of a file says; safetensors where it has none.
    ///
    /// # Errors
    ///
    /// Another extension.
    pub fn of(output: &Path) -> Result<Self, Failure> {
        let extension = output
            .extension()
            .map(|extension| extension.to_string_lossy());
        match extension.as_deref() {
            None | Some("safetensors") => Ok(Self::Safetensors),
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            Some("npy") => Ok(Self::Npy),
            Some("parquet") => Ok(Self::Parquet),
            Some(other) => Err(Failure::input(format!(
                "{}: vectors are not written as .{other}; .safetensors, .jsonl, .npy and .parquet are",
                output.display()
            ))),
        }
    }
}

impl Table {
    /// `[rows, width]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows.len(), self.width]
    }

    /// Writes a file, in place of one that was there.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write(&self, output: &Path, format: Format) -> Result<(), Failure> {
        match format {
            Format::Safetensors => open::write_output(output, &self.safetensors()?),
            Format::Jsonl => write_by(output, |file| self.write_jsonl(file)),
            Format::Npy => write_by(output, |file| {
                npy::write(file, self.shape(), &self.values)?;
                Ok(())
            }),
            Format::Parquet => write_by(output, |file| self.write_parquet(file)),
        }
    }

    /// An object a line.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write_jsonl(&self, writer: &mut impl Write) -> anyhow::Result<()> {
        for ((place, text), embedding) in self.rows.iter().zip(self.vectors()) {
            let text = text.as_deref();
            let line = Line {
                place,
                text,
                embedding,
            };
            serde_json::to_writer(&mut *writer, &line)?;
            writer.write_all(b"\n")?;
        }
        Ok(())
    }

    /// The vectors of the rows.
    pub fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks(self.width.max(1))
    }

    fn safetensors(&self) -> Result<Vec<u8>, Failure> {
        let bytes = self.values.iter();
        let bytes: Vec<u8> = bytes.flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, self.shape().to_vec(), &bytes).running()?;
        safetensors::serialize([("embeddings", view)], None).running()
    }

    fn write_parquet(&self, writer: &mut (impl Write + Send)) -> anyhow::Result<()> {
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let floats = ["embedding", "list", "element"].map(String::from).to_vec();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            // Hardly a number occurs twice.
            .set_column_dictionary_enabled(ColumnPath::from(floats), false)
            .build();
        let mut file = SerializedFileWriter::new(writer, schema, Arc::new(properties))?;
        let vectors = self.values.chunks((GROUP * self.width).max(1));
        for (rows, values) in self.rows.chunks(GROUP).zip(vectors) {
            let mut group = file.next_row_group()?;
            let places: Vec<ByteArray> = rows.iter().map(|row| row.0.as_str().into()).collect();
            if let Some(mut column) = group.next_column()? {
                let typed = column.typed::<ByteArrayType>();
                typed.write_batch(&places, None, None)?;
                column.close()?;
            }
            let texts: Vec<ByteArray> = rows
                .iter()
                .filter_map(|row| row.1.as_deref().map(ByteArray::from))
                .collect();
            let are_there: Vec<i16> = rows.iter().map(|row| i16::from(row.1.is_some())).collect();
            if let Some(mut column) = group.next_column()? {
                let typed = column.typed::<ByteArrayType>();
                typed.write_batch(&texts, Some(&are_there), None)?;
                column.close()?;
            }
            // A list begins where nothing is repeated, and each of its items is there.
            let begins = (0..values.len()).map(|at| i16::from(at % self.width != 0));
            let begins: Vec<i16> = begins.collect();
            if let Some(mut column) = group.next_column()? {
                let typed = column.typed::<FloatType>();
                typed.write_batch(values, Some(&vec![1; values.len()]), Some(&begins))?;
                column.close()?;
            }
            group.close()?;
        }
        file.close()?;
        Ok(())
    }
}

/// Writes an output file that is not held in memory as a whole, in place of one that was there.
///
/// # Errors
///
/// What `write` fails with, or a file that cannot be written; the file that was there stays then.
fn write_by(
    output: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    // Where a link leads.
    let path = fs::canonicalize(output).unwrap_or_else(|_| output.to_path_buf());
    // A pipe, say, which nothing takes the place of.
    let is_special = path.exists() && !path.is_file();
    let fresh = if is_special {
        path.clone()
    } else {
        unfinished(&path)
    };
    let written = || -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::create(&fresh)?);
        write(&mut file)?;
        let file = file.into_inner().map_err(|error| error.into_error())?;
        if !is_special {
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
        }
        Ok(())
    };
    written()
        .inspect_err(|_| {
            if !is_special {
                // The error worth a sentence is the first.
                let _ = fs::remove_file(&fresh);
            }
        })
        .with_context(|| output.display().to_string())
        .map_err(Failure::Running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_say_the_format() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!(of("a").unwrap(), Format::Safetensors);
        assert_eq!(of("a.b/c.npy").unwrap(), Format::Npy);
        let error = of("a.csv").unwrap_err().to_string();
        assert!(error.starts_with("a.csv: vectors are not written as .csv"));
    }

    #[test]
    fn lines_hold_the_shortest_digits_and_null_for_no_text() {
        let table = Table {
            rows: vec![("a.txt:1".into(), Some("wren".into())), ("b".into(), None)],
            width: 2,
            values: vec![0.6, 0.8, 1.0, 0.0],
        };
        let mut bytes = Vec::new();
        table.write_jsonl(&mut bytes).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\"place\":\"a.txt:1\",\"text\":\"wren\",\"embedding\":[0.6,0.8]}\n\
             {\"place\":\"b\",\"text\":null,\"embedding\":[1.0,0.0]}\n"
        );
    }
}
