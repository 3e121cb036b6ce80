//! An index on disk. In: rows with their vectors, and the model that made them. Out: a directory, whole or refused.
//!
//! - `index.json`: the model, what the rows are, and the SHA-256 of both other files
//! - `rows.jsonl`: place, text and content of each row
//! - `vectors.npy`: `[rows, width]`, 32-bit floats, each row of length one

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use model::{Bundle, bundle};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use train::job::image::ImageModel;
use train::{Failure, FailureKind};

use crate::embed::npy;
use crate::open;
use crate::predict::format::jsonl;
use crate::task::Row;

/// The file that makes a directory an index.
pub const MANIFEST: &str = "index.json";
const ROWS: &str = "rows.jsonl";
const VECTORS: &str = "vectors.npy";
/// Of the files as they are here.
const FORMAT: u32 = 1;

/// Which model made the vectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelIdentity {
    /// Where it was: an absolute path, or the name of a bundled one.
    pub path: String,
    /// What a file of weights is of, as `--set` says it.
    pub settings: Vec<String>,
    /// The SHA-256 of its weights and of all that decides how it reads.
    pub digest: String,
}

impl ModelIdentity {
    /// - path, settings: as they were named when the bundle was opened
    ///
    /// # Errors
    ///
    /// A bundle whose files cannot be read, or that embeds nothing.
    pub fn of(bundle: &Bundle, path: &str, settings: &[String]) -> Result<Self, Failure> {
        // The name of a bundled model is no path, whatever else has it.
        let is_bundled = model::bundled::open(path).is_some();
        let whole = fs::canonicalize(path).ok().filter(|_| !is_bundled);
        Ok(Self {
            path: whole.map_or(path.into(), |path| path.display().to_string()),
            settings: settings.to_vec(),
            digest: digest(bundle)?,
        })
    }
}

/// The SHA-256 of a model and of what decides how it reads texts or images.
fn digest(bundle: &Bundle) -> Result<String, Failure> {
    let mut parts = vec![bundle.raw_config().to_string().into_bytes()];
    if bundle.is_text() {
        let open::TextParts {
            tokenizer,
            max_length,
            ..
        } = open::text_parts(bundle)?;
        parts.push(tokenizer.to_json()?.into_bytes());
        parts.push(max_length.to_string().into_bytes());
    } else {
        let ImageModel { input, .. } = open::image_model(bundle)?;
        let seen = serde_json::json!([input.shape, input.shorter, input.mean, input.std]);
        parts.push(seen.to_string().into_bytes());
    }
    let weights = bundle.bytes_of_weights()?;
    Ok(sha256(parts.iter().map(Vec::as_slice).chain(weights)))
}

/// In hexadecimal digits; each part is told from its neighbours by its length.
fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    format!("{:x}", sha.finalize())
}

/// What the rows of an index are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// Found by texts.
    Texts,
    /// Found by images.
    Images,
}

impl Holds {
    /// What a model embeds.
    pub fn of(bundle: &Bundle) -> Self {
        if bundle.is_text() {
            Self::Texts
        } else {
            Self::Images
        }
    }

    /// `texts` or `images`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Texts => "texts",
            Self::Images => "images",
        }
    }
}

/// A row of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexRow {
    /// `path:line`, or the file of an image.
    pub place: String,
    /// Nothing of an image.
    pub text: Option<String>,
    /// The SHA-256 of the text, or of the pixels of the image in its own size.
    pub content: String,
}

/// What a row is embedded by.
pub fn content(row: &Row) -> String {
    match row {
        Row::Texts(texts) | Row::Words(texts) => sha256(texts.iter().map(String::as_bytes)),
        Row::Image(picture) => {
            let size = [picture.channels, picture.height, picture.width];
            let size = size.map(|side| (side as u64).to_le_bytes()).concat();
            sha256([size.as_slice(), &picture.pixels])
        }
    }
}

/// `index.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    model: ModelIdentity,
    holds: Holds,
    rows: usize,
    width: usize,
    rows_sha256: String,
    vectors_sha256: String,
}

/// Rows with their vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Which model made the vectors.
    pub model: ModelIdentity,
    /// What the rows are.
    pub holds: Holds,
    /// In the order in which they were added.
    pub rows: Vec<IndexRow>,
    /// Numbers of a vector.
    pub width: usize,
    /// `[rows, width]` row-major, each of length one.
    pub vectors: Vec<f32>,
}

impl Index {
    /// Without a row.
    pub fn new(model: ModelIdentity, holds: Holds) -> Self {
        Self {
            model,
            holds,
            rows: vec![],
            width: 0,
            vectors: vec![],
        }
    }

    /// Reads an index.
    ///
    /// # Errors
    ///
    /// No index, or one whose files are not those that were written together.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let manifest: Manifest = parse(&path.join(MANIFEST), &read_manifest(path)?)?;
        if manifest.format != FORMAT {
            return Err(Failure::input(format!(
                "{}: is of format {}, and {FORMAT} is read here; build the index anew",
                path.display(),
                manifest.format
            )));
        }
        let lines = whole(&path.join(ROWS), &manifest.rows_sha256)?;
        let vectors = whole(&path.join(VECTORS), &manifest.vectors_sha256)?;
        let rows: Vec<IndexRow> = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| parse(&path.join(ROWS), line))
            .collect::<Result<_, _>>()?;
        let (n, width) = (manifest.rows, manifest.width);
        let values = vectors.strip_prefix(npy::header([n, width]).as_slice());
        let values = values.map_or(&[][..], |values| values.as_chunks::<4>().0);
        let fits = n.checked_mul(width) == Some(values.len()) && width > 0;
        if rows.len() != n || !fits {
            return Err(Failure::input(format!(
                "{}: {MANIFEST} says {n} rows of {width} numbers, and its files hold others; build the index anew",
                path.display()
            )));
        }
        Ok(Self {
            model: manifest.model,
            holds: manifest.holds,
            rows,
            width,
            vectors: values
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
        })
    }

    /// Writes the index: it appears whole or not at all, and the one that was there stays until then.
    ///
    /// # Errors
    ///
    /// A directory that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let rows = jsonl(&self.rows)?.into_bytes();
        let mut vectors = Vec::with_capacity(self.vectors.len() * 4 + 128);
        npy::write(&mut vectors, [self.rows.len(), self.width], &self.vectors).running()?;
        let manifest = Manifest {
            format: FORMAT,
            model: self.model.clone(),
            holds: self.holds,
            rows: self.rows.len(),
            width: self.width,
            rows_sha256: sha256([rows.as_slice()]),
            vectors_sha256: sha256([vectors.as_slice()]),
        };
        let manifest = serde_json::to_string_pretty(&manifest).running()? + "\n";
        let files = [
            (ROWS, rows.as_slice()),
            (VECTORS, &vectors),
            (MANIFEST, manifest.as_bytes()),
        ];
        bundle::write_directory(path, &files).running()
    }

    /// Refuses a model that did not make the vectors.
    ///
    /// # Errors
    ///
    /// Another model, or one that has changed.
    pub fn check_model(&self, path: &Path, model: &ModelIdentity) -> Result<(), Failure> {
        if self.model.digest == model.digest {
            return Ok(());
        }
        let (path, given) = (path.display(), &model.path);
        let reason = if self.model.path == *given {
            format!("was made by {given}, which has changed since; build the index anew")
        } else {
            format!(
                "was made by {}, and {given} is another model; its vectors cannot be compared",
                self.model.path
            )
        };
        Err(Failure::input(format!("{path}: {reason}")))
    }
}

fn read_manifest(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |reason: String| Failure::input(format!("{}: {reason}", path.display()));
    if !path.exists() {
        // What replaces a directory was ended between its two renames.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let old = path.with_file_name(format!(".{name}.old"));
        return Err(wrong(if old.join(MANIFEST).is_file() {
            let old = old.display();
            format!("writing it was broken off; rename {old}, the index as it was before")
        } else {
            "is no index: no such directory".into()
        }));
    }
    fs::read(path.join(MANIFEST)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => wrong(format!("is no whole index: {MANIFEST} is missing")),
        ErrorKind::NotADirectory => wrong("is no index: it is a file".into()),
        _ => wrong(error.to_string()),
    })
}

/// The bytes of a file, if they are those that were written.
fn whole(path: &Path, sha: &str) -> Result<Vec<u8>, Failure> {
    let place = path.display();
    let bytes = fs::read(path)
        .map_err(|error| Failure::input(format!("{place}: {error}; build the index anew")))?;
    if sha256([bytes.as_slice()]) == *sha {
        return Ok(bytes);
    }
    Err(Failure::input(format!(
        "{place}: is not what was written with {MANIFEST}; build the index anew"
    )))
}

fn parse<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(json)
        .map_err(|error| Failure::input(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::Picture;

    fn index() -> Index {
        let row = |place: &str, text: &str| IndexRow {
            place: place.into(),
            text: Some(text.into()),
            content: content(&Row::Texts(vec![text.into()])),
        };
        Index {
            model: ModelIdentity {
                path: "wordnet-bert-nano".into(),
                settings: vec![],
                digest: "ab".into(),
            },
            holds: Holds::Texts,
            rows: vec![row("a.txt:1", "a wren"), row("a.txt:2", "an\nanvil")],
            width: 2,
            vectors: vec![0.6, 0.8, -1.0, 0.0],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        index().write(&path).unwrap();
        assert_eq!(Index::read(&path).unwrap(), index());
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "nothing is left beside it");
    }

    #[test]
    fn files_of_two_indexes_are_no_index() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        index().write(&at("one")).unwrap();
        let other = Index {
            vectors: vec![0.8, 0.6, 0.0, 1.0],
            ..index()
        };
        other.write(&at("two")).unwrap();
        fs::copy(at("two/vectors.npy"), at("one/vectors.npy")).unwrap();
        let error = Index::read(&at("one")).unwrap_err().to_string();
        assert!(error.contains("vectors.npy: is not what was written with index.json"));
    }

    #[test]
    fn content_tells_texts_and_pictures_apart() {
        let text = |text: &str| content(&Row::Texts(vec![text.into()]));
        assert_ne!(text("a"), text("a "));
        let picture = |size| content(&Row::Image(Picture::new(1, size, vec![7; 6])));
        assert_eq!(picture([2, 3]), picture([2, 3]));
        assert_ne!(picture([2, 3]), picture([3, 2]));
    }
}
