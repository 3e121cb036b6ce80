//! Knows UTF-16 by the start of a file. In: bytes. Out: the order of its bytes, none where it is UTF-8, or why it is no text.
//!
//! A byte order mark decides. Without one a file that has no NUL byte is UTF-8; one that has some is UTF-16 where that is
//! sure, and else refused: read on, it would be rows of nonsense.

use std::cmp::Ordering;
use std::path::Path;

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE};

use crate::DataError;

/// Bytes from the start of a file that are looked at.
pub(super) const START: usize = 1 << 13;

/// Which byte of a unit comes first.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Little,
    Big,
}

/// The kind of UTF-16 that a file is; `None` where it is UTF-8, or another encoding without NUL bytes.
///
/// - path: for messages
/// - start: its first [`START`] bytes
///
/// # Errors
/// UTF-32, and NUL bytes of what is not surely UTF-16.
pub(super) fn utf16(path: &Path, start: &[u8]) -> Result<Option<&'static Encoding>, DataError> {
    let utf32 = |name| {
        let path = path.into();
        Err(DataError::Utf32 { path, name })
    };
    match start {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return utf32("UTF-32"),
        [0xff, 0xfe, ..] => return Ok(Some(UTF_16LE)),
        [0xfe, 0xff, ..] => return Ok(Some(UTF_16BE)),
        _ => {}
    }
    let Some(first) = start.iter().position(|&byte| byte == 0) else {
        return Ok(None);
    };
    if is_utf32(start, u32::from_le_bytes) {
        return utf32("UTF-32LE");
    }
    if is_utf32(start, u32::from_be_bytes) {
        return utf32("UTF-32BE");
    }
    if Order::Little.is_sure(start) {
        return Ok(Some(UTF_16LE));
    }
    if Order::Big.is_sure(start) {
        return Ok(Some(UTF_16BE));
    }
    Err(DataError::Nul {
        path: path.into(),
        line: 1 + start[..first].iter().filter(|&&byte| byte == b'\n').count(),
        likely: likely(start),
    })
}

/// Whether each four bytes are a letter, which those of no other text are.
fn is_utf32(start: &[u8], number: fn([u8; 4]) -> u32) -> bool {
    let (units, _) = start.as_chunks::<4>();
    let is_letter =
        |unit: &[u8; 4]| char::from_u32(number(*unit)).is_some_and(|letter| is_text(&letter));
    !units.is_empty() && units.iter().all(is_letter)
}

/// The encoding that NUL bytes speak for, if they do.
fn likely(start: &[u8]) -> Option<&'static str> {
    if is_ascii(start) {
        return None;
    }
    let gaps = |order: Order| {
        let gaps = order
            .units(start)
            .filter(|unit| matches!(unit, 0x20 | 0x0a));
        let gaps = gaps.count();
        // A single one may be an accident.
        if gaps > 1 && order.is_text(start) {
            gaps
        } else {
            0
        }
    };
    match gaps(Order::Little).cmp(&gaps(Order::Big)) {
        Ordering::Greater => Some("UTF-16LE"),
        Ordering::Less => Some("UTF-16BE"),
        Ordering::Equal => None,
    }
}

/// Whether all bytes but NUL are those of a text in ASCII.
fn is_ascii(start: &[u8]) -> bool {
    let is_letter = |&byte: &u8| byte == 0 || (byte.is_ascii() && is_text(&byte.into()));
    start.iter().all(is_letter)
}

impl Order {
    fn units(self, start: &[u8]) -> impl Iterator<Item = u16> {
        let (units, _) = start.as_chunks::<2>();
        units.iter().map(move |&unit| {
            if self == Self::Little {
                u16::from_le_bytes(unit)
            } else {
                u16::from_be_bytes(unit)
            }
        })
    }

    /// Whether the bytes in this order are letters and nothing else.
    fn is_text(self, start: &[u8]) -> bool {
        let letters = char::decode_utf16(self.units(start));
        let mut letters: Vec<_> = letters.collect();
        // The start may end inside of a letter.
        if let Some(Err(_)) = letters.last() {
            letters.pop();
        }
        let is_letter = |letter: &Result<char, _>| letter.as_ref().is_ok_and(is_text);
        !letters.is_empty() && letters.iter().all(is_letter)
    }

    /// Whether it can be nothing else: letters, most of them of Latin, or lines. In a text of single bytes few of those that
    /// end a line have a NUL byte beside them.
    fn is_sure(self, start: &[u8]) -> bool {
        let (mut units, mut latin, mut lines, mut ends) = (0, 0, 0, 0);
        for unit in self.units(start) {
            units += 1;
            latin += usize::from(unit < 0x100);
            lines += usize::from(unit == 0x0a);
            ends += usize::from(unit.to_be_bytes().contains(&0x0a));
        }
        let is_latin = latin * 2 >= units;
        let has_lines = lines * 2 > ends && !is_ascii(start);
        (is_latin || has_lines) && self.is_text(start)
    }
}

/// Whether texts have this letter: any but control characters, white space apart.
fn is_text(letter: &char) -> bool {
    !letter.is_control() || matches!(letter, '\t'..='\r' | '\u{85}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const CYRILLIC: &str =
        "\u{416}\u{438}\u{432}\u{43e}\u{442}\u{43d}\u{43e}\u{435} \u{2014} \u{44d}\u{442}\u{43e}\n";
    /// With letters whose second byte is NUL, U+4E00 and U+3000.
    const CHINESE: &str = "\u{4e00}\u{4e8c}\u{3000}\u{4e09}\u{ff0c}\u{4e00}\u{5929}\u{3002}\n";

    fn of(bytes: &[u8]) -> Result<Option<&'static Encoding>, String> {
        let start = &bytes[..bytes.len().min(START)];
        utf16(Path::new("a.txt"), start).map_err(|error| error.to_string())
    }

    fn le(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn be(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_be_bytes).collect()
    }

    #[test]
    fn utf16_without_a_mark_is_known_whatever_its_letters() {
        for text in [CYRILLIC, CHINESE, "caf\u{e9}", "\u{1f426} is a bird\n", "a"] {
            for text in [text.to_string(), text.repeat(2000)] {
                assert_eq!(of(&le(&text)), Ok(Some(UTF_16LE)), "{text}");
                assert_eq!(of(&be(&text)), Ok(Some(UTF_16BE)), "{text}");
                assert_eq!(of(text.as_bytes()), Ok(None), "{text}");
            }
        }
    }

    #[test]
    fn utf32_is_named() {
        let all = [CYRILLIC, CHINESE].concat();
        let le: Vec<u8> = all.chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
        let be: Vec<u8> = all.chars().flat_map(|c| (c as u32).to_be_bytes()).collect();
        for (bytes, name) in [
            (&b"\xff\xfe\0\0a\0\0\0"[..], "UTF-32"),
            (b"\0\0\xfe\xff", "UTF-32"),
            (&le, "UTF-32LE"),
            (&be, "UTF-32BE"),
        ] {
            let expected = format!(
                "a.txt: is {name}, which is not read; convert it, for example with iconv -f {name} -t UTF-8"
            );
            assert_eq!(of(bytes), Err(expected));
        }
    }

    #[test]
    fn nul_bytes_of_another_text_are_refused() {
        let none = "a NUL byte, as in no text; if the file is one all the same, tr -d '\\000' takes such bytes out";
        for bytes in [
            &b"one\ntw\0o and three\n"[..],
            b"one\ntwo\0",
            b"one.\n\0\n",
            b"caf\xe9 one\n\0two\n",
            b"\x89PN\n\0\x01\x02\x03",
        ] {
            assert_eq!(of(bytes), Err(format!("a.txt:2: {none}")), "{bytes:?}");
        }
        // One long line, which is not enough to be sure.
        let long = CYRILLIC.replace('\n', " ").repeat(9);
        assert_eq!(
            of(&le(&long)),
            Err("a.txt:1: a NUL byte, as in UTF-16LE; if the file is that, convert it with iconv -f UTF-16LE -t UTF-8".into())
        );
    }
}
