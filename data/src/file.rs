//! Opens files for the readers: unpacks `.gz` and `.zst`, decodes UTF-16 (known by `encoding`), cuts lines of bounded
//! length, and names a missing file as such.

mod encoding;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use encoding_rs::{Decoder, DecoderResult, Encoding, WINDOWS_1252};
use flate2::read::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::DataError;

/// Longest line, and longest record of a table, in bytes: a file of one endless line must not fill the memory.
pub(crate) const LONGEST_LINE: usize = 16 << 20;
const BUFFER: usize = 1 << 16;
const BOM: &[u8] = b"\xef\xbb\xbf";
/// What archives and file managers leave behind.
const LEFTOVERS: [&str; 2] = ["__MACOSX", "@eaDir"];

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

/// The bytes of a text, those of UTF-16 as UTF-8.
///
/// - path: for messages
///
/// # Errors
/// There is no byte at all, or they are UTF-32 or no text.
pub(crate) fn decoded(path: &Path, mut from: Bytes) -> Result<BufReader<Bytes>, DataError> {
    let mut start = Vec::with_capacity(encoding::START);
    let most = encoding::START as u64;
    let read = from.by_ref().take(most).read_to_end(&mut start);
    read.map_err(|source| io_error(path, source))?;
    if start.is_empty() {
        return Err(DataError::Empty { path: path.into() });
    }
    let encoding = encoding::utf16(path, &start)?;
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

    /// The next line with its end where it has one (`\n`, `\r\n` or `\r`), and its 1-based number; the first without a byte
    /// order mark.
    pub(crate) fn next(&mut self) -> Result<Option<(&[u8], usize)>, DataError> {
        self.line.clear();
        let read = self.fill();
        read.map_err(|source| io_error(&self.path, source))?;
        if self.line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        if self.line.len() > LONGEST_LINE {
            return Err(too_long(&self.path, self.number));
        }
        Ok(Some(self.current()))
    }

    /// Reads to the end of the line, or to one byte more than a line may have.
    fn fill(&mut self) -> io::Result<()> {
        while self.line.len() <= LONGEST_LINE {
            let bytes = peek(&mut self.from)?;
            let room = LONGEST_LINE + 1 - self.line.len();
            let bytes = &bytes[..bytes.len().min(room)];
            let end = bytes.iter().position(|&byte| ends_line(byte));
            let taken = end.map_or(bytes.len(), |at| at + 1);
            let last = bytes[..taken].last().copied();
            self.line.extend_from_slice(&bytes[..taken]);
            self.from.consume(taken);
            if last == Some(b'\r') && peek(&mut self.from)?.first() == Some(&b'\n') {
                self.line.push(b'\n');
                self.from.consume(1);
            }
            if last.is_none_or(ends_line) {
                break;
            }
        }
        Ok(())
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

/// Whether a byte ends a line. Of `\r\n` either does, and both are one end.
pub(crate) fn ends_line(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The next bytes, which stay there; none at the end.
pub(crate) fn peek(from: &mut BufReader<Bytes>) -> io::Result<&[u8]> {
    while let Err(error) = from.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(from.buffer())
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

/// Whether an entry of a folder is hidden, or what archives and file managers leave behind.
pub(crate) fn is_hidden(path: &Path) -> bool {
    let name = name(path);
    name.starts_with('.') || LEFTOVERS.contains(&name.as_str())
}

/// `.txt`, or that there is none.
pub(crate) fn extension(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((_, extension)) => format!(".{}", extension.to_lowercase()),
        None => "no extension".into(),
    }
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

    fn lines(bytes: &[u8]) -> Vec<(String, usize)> {
        let from = Box::new(io::Cursor::new(bytes.to_vec()));
        let mut lines = Lines::new(Path::new("a.txt"), from).unwrap();
        let mut all = Vec::new();
        while let Some((line, number)) = lines.next().unwrap() {
            all.push((String::from_utf8(line.to_vec()).unwrap(), number));
        }
        all
    }

    #[test]
    fn each_of_the_three_line_ends_ends_a_line() {
        let found = lines(b"one\rtwo\r\nthree\n\r\rfour");
        let expected = ["one\r", "two\r\n", "three\n", "\r", "\r", "four"];
        let expected = expected.map(String::from).into_iter().zip(1..);
        assert_eq!(found, expected.collect::<Vec<_>>());
        assert_eq!(lines(b"one\r"), [("one\r".to_string(), 1)]);
        // An end that is cut by the buffer's.
        let long = [vec![b'a'; BUFFER - 1], b"\r\nb".to_vec()].concat();
        assert_eq!(lines(&long)[1], ("b".to_string(), 2));
    }
}
