//! Reads the index of a WebDataset shard. In: a `.tar`. Out: an image and a target a sample, where the image's bytes are.
//!
//! Files of one sample follow one another and have one key, the path up to the first point of the name: `0/7.jpg` and
//! `0/7.cls`. The class is in `.cls`, else under `label`, `cls` or `class` in `.json`, else in `.txt`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tar::Archive;

use super::content;
use super::rows::Target;
use crate::{DataError, file, labels};

/// Bytes that a class may have.
const LONGEST_CLASS: u64 = 1 << 20;

/// Keys under which a class is looked for.
const CLASS_KEYS: [&str; 3] = ["label", "cls", "class"];

/// One image of a shard.
#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    /// The shard and the path in it.
    pub(super) path: PathBuf,
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) target: Option<Target>,
}

/// What is known of the sample whose files are being read.
#[derive(Default)]
struct Open {
    key: String,
    image: Option<(PathBuf, u64, u64)>,
    class: Option<String>,
    /// The class of `.txt`, which may be a caption.
    text: Option<String>,
    /// Why it can't be used.
    fault: Option<DataError>,
}

/// The samples of a shard, in their order; for each that can't be used, why.
///
/// # Errors
/// No tar, or one that can't be read on.
pub(super) fn samples(shard: &Path) -> Result<Vec<Result<Sample, DataError>>, DataError> {
    let unreadable = |source: std::io::Error| DataError::Tar {
        path: shard.into(),
        source,
    };
    let file = File::open(shard).map_err(|source| file::io_error(shard, source))?;
    let size = file
        .metadata()
        .map_err(|source| file::io_error(shard, source))?
        .len();
    if size == 0 {
        return Err(DataError::Empty { path: shard.into() });
    }
    let mut archive = Archive::new(file);
    let mut samples = Vec::new();
    let mut open = Open::default();
    for entry in archive.entries_with_seek().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(unreadable)?.into_owned();
        let Some((key, extension)) = key(&name) else {
            continue;
        };
        if key != open.key {
            samples.extend(std::mem::take(&mut open).finish(shard));
            open.key = key;
        }
        let (start, len) = (entry.raw_file_position(), entry.size());
        if start.saturating_add(len) > size {
            let path = shard.join(&name);
            open.fault = Some(DataError::TarCutOff { path });
            continue;
        }
        if content::has_image_name(Path::new(&format!("x.{extension}"))) {
            open.image.get_or_insert((name, start, len));
        } else if matches!(extension.as_str(), "cls" | "txt" | "json") && len <= LONGEST_CLASS {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(unreadable)?;
            let text = String::from_utf8_lossy(&bytes);
            match extension.as_str() {
                "cls" => open.class = non_empty(&text),
                "txt" => open.text = non_empty(&text),
                _ => open.class = open.class.or(json_class(&text)),
            }
        }
    }
    samples.extend(open.finish(shard));
    Ok(samples)
}

impl Open {
    /// The sample, if it has an image.
    fn finish(self, shard: &Path) -> Option<Result<Sample, DataError>> {
        if let Some(fault) = self.fault {
            return Some(Err(fault));
        }
        let (name, start, len) = self.image?;
        Some(Ok(Sample {
            path: shard.join(name),
            start,
            len,
            target: self.class.or(self.text).map(Target::Class),
        }))
    }
}

/// The key of a file and what follows the first point of its name, in lower case. Hidden files have none.
fn key(path: &Path) -> Option<(String, String)> {
    let name = file::name(path);
    let (stem, extension) = name.split_once('.')?;
    if stem.is_empty() {
        return None;
    }
    let key = path.with_file_name(stem).display().to_string();
    Some((key, extension.to_lowercase()))
}

fn json_class(text: &str) -> Option<String> {
    let object: Value = serde_json::from_str(text).ok()?;
    let found = CLASS_KEYS.iter().find_map(|key| object.get(key))?;
    match found {
        Value::String(class) => non_empty(class),
        Value::Number(class) if !class.is_f64() => Some(class.to_string()),
        _ => None,
    }
}

fn non_empty(text: &str) -> Option<String> {
    let class = labels::canonical(text);
    (!class.is_empty()).then(|| class.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_point_of_the_name() {
        let of = |path: &str| key(Path::new(path));
        let some = |key: &str, extension: &str| Some((key.to_string(), extension.to_string()));
        assert_eq!(of("a.b/7.seg.PNG"), some("a.b/7", "seg.png"));
        assert_eq!(of("7.jpg"), some("7", "jpg"));
        assert_eq!(of("a/.hidden"), None);
        assert_eq!(of("a/README"), None);
    }

    #[test]
    fn a_class_is_a_number_or_a_name() {
        assert_eq!(json_class(r#"{"label": 3, "x": 1}"#), Some("3".into()));
        assert_eq!(json_class(r#"{"class": " cat "}"#), Some("cat".into()));
        assert_eq!(json_class(r#"{"caption": "a cat"}"#), None);
        assert_eq!(json_class("no JSON"), None);
    }
}
