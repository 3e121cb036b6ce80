//! Opens files for the readers: unpacks `.gz` and `.zst`, cuts lines of bounded length, tells a missing file from a
//! broken one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::DataError;

/// Longest line, and longest record of a table, in bytes: a file of one endless line must not fill the memory.
pub(crate) const LONGEST_LINE: usize = 16 << 20;
const BUFFER: usize = 1 << 16;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A stream of bytes that a thread may own.
pub(crate) type Bytes = Box<dyn Read + Send>;

/// The file's bytes, unpacked where its name ends in `.gz` or `.zst`.
pub(crate) fn open(path: &Path) -> Result<Bytes, DataError> {
    let failed = |source| io_error(path, source);
    let file = BufReader::with_capacity(BUFFER, File::open(path).map_err(failed)?);
    Ok(match packing(&name(path).to_lowercase()) {
        Some(".gz") => Box::new(MultiGzDecoder::new(file)),
        Some(_) => Box::new(ZstdDecoder::with_buffer(file).map_err(failed)?),
        None => Box::new(file),
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

/// Lines one at a time, whatever the size of the file.
pub(crate) struct Lines {
    pub(crate) path: PathBuf,
    from: BufReader<Bytes>,
    line: Vec<u8>,
    number: usize,
}

impl Lines {
    /// - path: for messages
    ///
    /// # Errors
    /// There is no byte at all.
    pub(crate) fn new(path: &Path, from: Bytes) -> Result<Self, DataError> {
        let mut from = BufReader::with_capacity(BUFFER, from);
        let start = from.fill_buf().map_err(|source| io_error(path, source))?;
        if start.is_empty() {
            return Err(DataError::Empty { path: path.into() });
        }
        Ok(Self {
            path: path.into(),
            from,
            line: Vec::new(),
            number: 0,
        })
    }

    /// The next line with its `\n` where it has one, and its 1-based number; the first without a byte order mark.
    pub(crate) fn next(&mut self) -> Result<Option<(&[u8], usize)>, DataError> {
        self.line.clear();
        let most = LONGEST_LINE as u64 + 1;
        let read = (&mut self.from)
            .take(most)
            .read_until(b'\n', &mut self.line);
        if read.map_err(|source| io_error(&self.path, source))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.len() > LONGEST_LINE {
            return Err(too_long(&self.path, self.number));
        }
        Ok(Some(self.current()))
    }

    /// The line that [`next`](Self::next) gave last.
    pub(crate) fn current(&self) -> (&[u8], usize) {
        let line = match self.number {
            1 => self.line.strip_prefix(BOM).unwrap_or(&self.line),
            _ => &self.line,
        };
        (line, self.number)
    }
}

pub(crate) fn too_long(path: &Path, line: usize) -> DataError {
    DataError::TooLong {
        path: path.into(),
        line,
        limit: LONGEST_LINE >> 20,
    }
}

/// What a folder holds, sorted by name, hidden entries left out.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = list_all(folder)?;
    paths.retain(|path| !name(path).starts_with('.'));
    Ok(paths)
}

/// What a folder holds, sorted by name, hidden entries too.
pub(crate) fn list_all(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| io_error(folder, source);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
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

/// Whether a path that does not exist may be meant as a pattern.
pub(crate) fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// The ending of a lower-case name that says how the file is packed.
pub(crate) fn packing(name: &str) -> Option<&'static str> {
    [".gz", ".zst"]
        .into_iter()
        .find(|ending| name.ends_with(ending))
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> DataError {
    let path = path.into();
    match source.kind() {
        io::ErrorKind::NotFound => DataError::NotFound { path },
        _ => DataError::Io { path, source },
    }
}
