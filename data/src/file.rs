//! Opens files for the readers: unpacks `.gz`, tells a missing file from a broken one.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::DataError;

/// The file's bytes, unpacked where its name ends in `.gz`.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let file = BufReader::new(File::open(path).map_err(|source| io_error(path, source))?);
    Ok(match is_gz(path) {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    })
}

/// All of [`open`]'s bytes; a file without any is an error.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    open(path)?
        .read_to_end(&mut bytes)
        .map_err(|source| io_error(path, source))?;
    match bytes.is_empty() {
        true => Err(DataError::Empty { path: path.into() }),
        false => Ok(bytes),
    }
}

/// What a folder holds, sorted by name, hidden entries left out.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| io_error(folder, source);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !name(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The last part of a path, for comparing and for messages.
pub(crate) fn name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

pub(crate) fn is_gz(path: &Path) -> bool {
    name(path).to_lowercase().ends_with(".gz")
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> DataError {
    let path = path.into();
    match source.kind() {
        io::ErrorKind::NotFound => DataError::NotFound { path },
        _ => DataError::Io { path, source },
    }
}
