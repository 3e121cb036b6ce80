//! Cuts a `.json` file into its elements, one at a time. In: bytes. Out: the bytes of each element, and its first line.
//!
//! Read are an array of objects, `{"data": [...]}` with other keys beside it, objects one after another, and objects a
//! line. Nothing is held but the element that is being cut, so the file may be far larger than memory.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::file::{self, Bytes, LONGEST_LINE, ends_line, too_long};

/// The key of the rows, where an object is around them.
const ROWS: &[u8] = b"\"data\"";

/// Elements of one file.
pub(crate) struct JsonElements {
    pub(crate) path: PathBuf,
    from: BufReader<Bytes>,
    layout: Layout,
    element: Vec<u8>,
    /// Where the element begins, and where reading is; 1-based.
    begun: usize,
    line: usize,
    /// Whether the last byte was a carriage return.
    after_return: bool,
}

/// How the elements follow one another.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    /// Nothing has been read.
    Unknown,
    /// An array.
    Array,
    /// An array in an object.
    Wrapped,
    /// An object a line.
    Lines,
    /// Objects of several lines each.
    Objects,
    /// After the end of the array.
    Ended,
}

/// Where a scan through one element is.
#[derive(Default)]
struct Scan {
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// Start of the last string at depth 1, for the key [`ROWS`].
    string: usize,
}

impl JsonElements {
    /// - path: for messages
    ///
    /// # Errors
    /// There is no byte at all.
    pub(crate) fn new(path: &Path, from: Bytes) -> Result<Self, DataError> {
        Ok(Self {
            path: path.into(),
            from: file::decoded(path, from)?,
            layout: Layout::Unknown,
            element: Vec::new(),
            begun: 1,
            line: 1,
            after_return: false,
        })
    }

    /// The next element and the line where it begins.
    ///
    /// # Errors
    /// An array or an element that does not end.
    pub(crate) fn next(&mut self) -> Result<Option<(&[u8], usize)>, DataError> {
        self.element.clear();
        let found = match self.layout {
            Layout::Unknown => self.first()?,
            Layout::Array | Layout::Wrapped => self.in_array()?,
            Layout::Lines => self.in_line()?,
            Layout::Objects => self.object()?,
            Layout::Ended => false,
        };
        Ok(found.then_some((self.element.as_slice(), self.begun)))
    }

    /// Finds out the layout, and cuts the first element.
    fn first(&mut self) -> Result<bool, DataError> {
        if self.peek()? == Some(0xef) {
            // What is left of a byte order mark is no JSON, and said to be so.
            for _ in 0..3 {
                self.skip()?;
            }
        }
        match self.blank()? {
            Some(b'[') => {
                self.skip()?;
                self.layout = Layout::Array;
                self.in_array()
            }
            Some(b'{') => self.first_object(),
            _ => {
                self.layout = Layout::Lines;
                self.in_line()
            }
        }
    }

    /// The first of several objects, or the one around an array.
    fn first_object(&mut self) -> Result<bool, DataError> {
        self.begun = self.line;
        let mut scan = Scan::default();
        loop {
            let Some(byte) = self.peek()? else {
                return Err(self.breaks_off("an object is not closed"));
            };
            if byte == b'[' && scan.depth == 1 && !scan.quoted && self.is_rows(&scan) {
                self.skip()?;
                if self.blank()? == Some(b'{') {
                    self.layout = Layout::Wrapped;
                    self.element.clear();
                    return self.in_array();
                }
                self.element.push(byte);
                scan.step(byte, self.element.len());
                continue;
            }
            if ends_line(byte) && scan.quoted {
                // No JSON has a line end in a string, so this line is broken, and each line is an object.
                self.skip()?;
                self.layout = Layout::Lines;
                return Ok(true);
            }
            self.take(byte)?;
            if scan.step(byte, self.element.len()) {
                break;
            }
        }
        let one_line = self.begun == self.line;
        self.layout = if one_line {
            Layout::Lines
        } else {
            Layout::Objects
        };
        if one_line {
            // What else stands on the line belongs to it.
            self.rest_of_line()?;
        }
        Ok(true)
    }

    /// Whether the key before this place is [`ROWS`].
    fn is_rows(&self, scan: &Scan) -> bool {
        let before = self.element.get(scan.string..).unwrap_or_default();
        let colon = before.strip_prefix(ROWS).map(<[u8]>::trim_ascii);
        colon == Some(b":")
    }

    fn in_array(&mut self) -> Result<bool, DataError> {
        let next = self.blank()?;
        let next = match next {
            Some(b',') => {
                self.skip()?;
                self.blank()?
            }
            other => other,
        };
        self.begun = self.line;
        match next {
            None => return Err(self.breaks_off("an array is not closed")),
            Some(b']') => {
                self.end()?;
                return Ok(false);
            }
            Some(_) => {}
        }
        let mut scan = Scan::default();
        while let Some(byte) = self.peek()? {
            if scan.depth == 0 && !scan.quoted && matches!(byte, b',' | b']') {
                return Ok(true);
            }
            if ends_line(byte) && scan.quoted {
                return Err(self.breaks_off("a string goes on over the end of its line"));
            }
            self.take(byte)?;
            scan.step(byte, self.element.len());
        }
        Err(self.breaks_off("an array is not closed"))
    }

    /// Reads what is behind the array: the rest of the object around it, and nothing else.
    fn end(&mut self) -> Result<(), DataError> {
        self.skip()?;
        if self.layout == Layout::Wrapped {
            let mut scan = Scan {
                depth: 1,
                ..Scan::default()
            };
            loop {
                let Some(byte) = self.peek()? else {
                    return Err(self.breaks_off("the object around the array is not closed"));
                };
                self.skip()?;
                if scan.step(byte, 0) {
                    break;
                }
            }
        }
        self.layout = Layout::Ended;
        match self.blank()? {
            None => Ok(()),
            Some(_) => Err(self.breaks_off("something follows the array of rows")),
        }
    }

    fn object(&mut self) -> Result<bool, DataError> {
        if self.blank()?.is_none() {
            return Ok(false);
        }
        self.begun = self.line;
        let mut scan = Scan::default();
        while let Some(byte) = self.peek()? {
            if ends_line(byte) && scan.quoted {
                return Err(self.breaks_off("a string goes on over the end of its line"));
            }
            self.take(byte)?;
            if scan.step(byte, self.element.len()) {
                return Ok(true);
            }
        }
        Err(self.breaks_off("an object is not closed"))
    }

    fn in_line(&mut self) -> Result<bool, DataError> {
        if self.blank()?.is_none() {
            return Ok(false);
        }
        self.begun = self.line;
        self.rest_of_line()?;
        Ok(true)
    }

    fn rest_of_line(&mut self) -> Result<(), DataError> {
        while let Some(byte) = self.peek()?
            && !ends_line(byte)
        {
            self.take(byte)?;
        }
        Ok(())
    }

    /// The next byte that is not blank; it is not taken.
    fn blank(&mut self) -> Result<Option<u8>, DataError> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.skip()?;
        }
        Ok(None)
    }

    fn peek(&mut self) -> Result<Option<u8>, DataError> {
        let bytes = file::peek(&mut self.from);
        let bytes = bytes.map_err(|source| file::io_error(&self.path, source))?;
        Ok(bytes.first().copied())
    }

    fn skip(&mut self) -> Result<(), DataError> {
        let byte = self.peek()?;
        // Of "\r\n" the first byte counts.
        let is_second = self.after_return && byte == Some(b'\n');
        if byte.is_some_and(ends_line) && !is_second {
            self.line += 1;
        }
        self.after_return = byte == Some(b'\r');
        self.from.consume(1);
        Ok(())
    }

    fn take(&mut self, byte: u8) -> Result<(), DataError> {
        self.skip()?;
        self.element.push(byte);
        if self.element.len() > LONGEST_LINE {
            return Err(too_long(&self.path, self.begun));
        }
        Ok(())
    }

    fn breaks_off(&self, reason: &'static str) -> DataError {
        DataError::JsonBreaksOff {
            path: self.path.clone(),
            line: self.line,
            reason,
        }
    }
}

impl Scan {
    /// - taken: bytes of the element so far, this one counted
    ///
    /// Returns whether it closes the outermost bracket.
    fn step(&mut self, byte: u8, taken: usize) -> bool {
        if self.quoted {
            self.quoted = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return false;
        }
        match byte {
            b'"' => {
                self.quoted = true;
                if self.depth == 1 {
                    // Behind the array nothing is taken.
                    self.string = taken.saturating_sub(1);
                }
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn elements(text: &str) -> Result<Vec<(String, usize)>, DataError> {
        let from = Box::new(Cursor::new(text.as_bytes().to_vec()));
        let mut elements = JsonElements::new(Path::new("a.json"), from)?;
        let mut all = Vec::new();
        while let Some((bytes, line)) = elements.next()? {
            all.push((String::from_utf8(bytes.to_vec()).unwrap(), line));
        }
        Ok(all)
    }

    fn cut(text: &str) -> Vec<(String, usize)> {
        elements(text).unwrap()
    }

    fn of(rows: &[(&str, usize)]) -> Vec<(String, usize)> {
        rows.iter()
            .map(|(row, line)| (row.to_string(), *line))
            .collect()
    }

    #[test]
    fn an_array_is_cut_at_its_own_commas() {
        let rows = [
            (r#"{"a": [1, {"b": "],[\"\\"}]}"#, 2),
            ("3", 3),
            (r#""x""#, 3),
        ];
        let text = format!("\u{feff}[\n{},\n{}, {}]\n", rows[0].0, rows[1].0, rows[2].0);
        assert_eq!(cut(&text), of(&rows));
        assert_eq!(cut("[]"), []);
    }

    #[test]
    fn nothing_behind_the_rows_is_dropped() {
        let row = r#"{"a": 1}"#;
        for text in [
            format!("[{row}]\n[{row}]"),
            format!("[{row}]}} {{"),
            format!("[{row}] x"),
            format!("{{\"data\": [{row}]}}\n{{\"data\": [{row}]}}\n"),
        ] {
            let error = elements(&text).unwrap_err().to_string();
            assert!(
                error.contains("something follows the array"),
                "{text}: {error}"
            );
        }
        let error = elements(&format!("{{\"data\": [{row}], \"n\": [2]")).unwrap_err();
        assert!(error.to_string().contains("is not closed"), "{error}");
        assert_eq!(
            cut(&format!(
                "{{\"data\": [{row}], \"n\": {{\"m\": \"}}\"}}}}\n "
            ))
            .len(),
            1
        );
    }

    #[test]
    fn the_rows_may_stand_in_an_object() {
        let expected = of(&[("{\"a\": 1}", 3), ("{\"a\": 2}", 4)]);
        let text =
            "{\"v\": [1], \"x\": \"data\",\n \"data\" : [\n{\"a\": 1},\n{\"a\": 2}], \"n\": 2}";
        assert_eq!(cut(text), expected);
        // Rows that have such a key themselves.
        let rows = of(&[(r#"{"data": [1, 2], "a": 1}"#, 1), (r#"{"data": []}"#, 2)]);
        assert_eq!(cut(&format!("{}\n{}", rows[0].0, rows[1].0)), rows);
    }

    #[test]
    fn objects_may_follow_one_another_on_one_line_or_on_several() {
        let rows = of(&[("{\"a\": 1}", 1), ("{\"a\": ", 2), ("{\"a\": 3}", 4)]);
        assert_eq!(cut("{\"a\": 1}\n{\"a\": \n\n{\"a\": 3}"), rows);
        let rows = of(&[("{\n\"a\": 1}", 1), ("{\"a\": 2}", 2), ("{\n}", 4)]);
        assert_eq!(cut("{\n\"a\": 1} {\"a\": 2}\n\n{\n}\n"), rows);
        // A first line that breaks off inside a string.
        let rows = of(&[("{\"a\": \"x", 1), ("{\"a\": 2}", 2)]);
        assert_eq!(cut("{\"a\": \"x\n{\"a\": 2}"), rows);
    }

    #[test]
    fn a_carriage_return_ends_a_line_too() {
        let rows = of(&[("{\"a\": 1}", 1), ("{\"a\": ", 2), ("{\"a\": 3}", 4)]);
        for end in ["\r", "\r\n"] {
            let text = "{\"a\": 1}\n{\"a\": \n\n{\"a\": 3}\n".replace('\n', end);
            assert_eq!(cut(&text), rows, "{end:?}");
        }
        let rows = of(&[("{\"a\": 1}", 2), ("{\"a\": 2}", 3)]);
        assert_eq!(cut("[\r{\"a\": 1},\r\n{\"a\": 2}]"), rows);
    }

    #[test]
    fn what_does_not_end_is_an_error_with_its_line() {
        for (text, line, words) in [
            ("[{\"a\": 1},\n{\"a\"", 2, "an array is not closed"),
            ("[{\"a\": 1}\n", 2, "an array is not closed"),
            ("{\"a\": {\n", 2, "an object is not closed"),
            ("{\n}\n{\n", 4, "an object is not closed"),
            ("[\n{\"a\": \"b\n\"}]", 2, "a string goes on"),
        ] {
            let error = elements(text).unwrap_err().to_string();
            let start = format!("a.json:{line}: the JSON breaks off here: {words}");
            assert!(error.starts_with(&start), "{error}");
        }
    }
}
