//! Opens files for the readers: unpacks `.gz` and `.zst`, decodes UTF-16, cuts lines of bounded length, and names a
//! missing file as such.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};
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
    if bytes.is_empty() {
        return Err(DataError::Empty { path: path.into() });
    }
    Ok(bytes)
}

/// The bytes of a text, those of UTF-16 as UTF-8. A byte order mark decides, or every other byte being zero.
///
/// - path: for messages
///
/// # Errors
/// There is no byte at all, or they are UTF-32.
pub(crate) fn decoded(path: &Path, mut from: Bytes) -> Result<BufReader<Bytes>, DataError> {
    let mut start = Vec::with_capacity(4);
    let read = from.by_ref().take(4).read_to_end(&mut start);
    read.map_err(|source| io_error(path, source))?;
    let encoding = match *start.as_slice() {
        [] => return Err(DataError::Empty { path: path.into() }),
        [0xff, 0xfe, 0, 0] | [0, 0, 0xfe, 0xff] => {
            return Err(DataError::Utf32 { path: path.into() });
        }
        [0xff, 0xfe, ..] => Some(UTF_16LE),
        [0xfe, 0xff, ..] => Some(UTF_16BE),
        [a, 0, b, 0] if a > 0 && b > 0 => Some(UTF_16LE),
        [0, a, 0, b] if a > 0 && b > 0 => Some(UTF_16BE),
        _ => None,
    };
    let all: Bytes = Box::new(io::Cursor::new(start).chain(from));
    let all = match encoding {
        Some(encoding) => Box::new(Utf16::new(all, encoding)),
        None => all,
    };
    Ok(BufReader::with_capacity(BUFFER, all))
}

/// UTF-16 as UTF-8. What is no letter becomes a byte that is none in UTF-8 either, so that its row is found.
struct Utf16 {
    from: BufReader<Bytes>,
    decoder: Decoder,
    /// Decoded, and how much of it has been read.
    ready: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Utf16 {
    fn new(from: Bytes, encoding: &'static Encoding) -> Self {
        Self {
            from: BufReader::with_capacity(BUFFER, from),
            decoder: encoding.new_decoder_with_bom_removal(),
            ready: Vec::new(),
            at: 0,
            ended: false,
        }
    }

    /// Decodes the next bytes; false at the end.
    fn refill(&mut self) -> io::Result<bool> {
        self.at = 0;
        self.ready.clear();
        while !self.ended {
            let bytes = self.from.fill_buf()?;
            let last = bytes.is_empty();
            self.ready.resize(BUFFER, 0);
            let decoded =
                self.decoder
                    .decode_to_utf8_without_replacement(bytes, &mut self.ready, last);
            let (result, read, written) = decoded;
            self.from.consume(read);
            self.ready.truncate(written);
            if let DecoderResult::Malformed(..) = result {
                self.ready.push(0xff);
            }
            self.ended = last && result == DecoderResult::InputEmpty;
            if !self.ready.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Read for Utf16 {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() && !self.refill()? {
            return Ok(0);
        }
        let ready = &self.ready[self.at..];
        let length = ready.len().min(to.len());
        to[..length].copy_from_slice(&ready[..length]);
        self.at += length;
        Ok(length)
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
    /// Those of [`decoded`].
    pub(crate) fn new(path: &Path, from: Bytes) -> Result<Self, DataError> {
        Ok(Self {
            path: path.into(),
            from: decoded(path, from)?,
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

/// A line or a field as text.
///
/// # Errors
/// The first byte that is no UTF-8, with its place in these bytes.
pub(crate) fn utf8<'a>(path: &Path, bytes: &'a [u8], line: usize) -> Result<&'a str, DataError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        DataError::NotUtf8 {
            path: path.into(),
            line,
            byte: bytes[at],
            at: at + 1,
            latin: latin(bytes, at),
        }
    })
}

/// The letter that a byte is in Windows-1252, where it stands alone between ASCII as such letters mostly do.
fn latin(bytes: &[u8], at: usize) -> Option<char> {
    let after = bytes.get(at + 1);
    let (letters, broken) = WINDOWS_1252.decode_without_bom_handling(&bytes[at..=at]);
    let letter = letters.chars().next().filter(|letter| !letter.is_control());
    letter.filter(|_| !broken && after.is_none_or(u8::is_ascii))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn utf8(bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        let from = Box::new(io::Cursor::new(bytes.to_vec()));
        let mut from = decoded(Path::new("a.txt"), from).unwrap();
        from.read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn utf16_becomes_utf8_in_either_order_with_a_mark_or_without() {
        let text = "caf\u{e9} \u{1f426}\n".repeat(20_000);
        let mut expected = text.clone().into_bytes();
        for mark in ["\u{feff}", ""] {
            let units: Vec<u16> = format!("{mark}{text}").encode_utf16().collect();
            let le: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let be: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            assert!(utf8(&le) == expected && utf8(&be) == expected, "{mark:?}");
        }
        expected.truncate(3);
        assert_eq!(utf8(b"caf"), expected);
    }

    #[test]
    fn half_a_letter_of_utf16_is_no_utf8() {
        // A surrogate without its second half, then "b"; and a file that ends inside a unit.
        assert_eq!(utf8(b"\xff\xfea\0\x3d\xd8b\0"), b"a\xffb");
        assert_eq!(utf8(b"\xff\xfea\0b"), b"a\xff");
    }

    #[test]
    fn utf32_is_named() {
        for bytes in [&b"\xff\xfe\0\0a\0\0\0"[..], b"\0\0\xfe\xff"] {
            let from = Box::new(io::Cursor::new(bytes.to_vec()));
            let error = decoded(Path::new("a.txt"), from).err().unwrap();
            assert!(error.to_string().starts_with("a.txt: is UTF-32"), "{error}");
        }
    }
}
