//! Reads files of a tagged word a line. In: lines. Out: sentences with a tag a word.
//!
//! A blank line ends a sentence. Columns are separated by tabs, or by white space where a line has no tab; the first is the word
//! and the last its tag, as in CoNLL-2003. In `.conllu` files the second is the word and the fourth its part of speech; lines of
//! several words at once and of words that were left out are passed over there. Lines that begin with `-DOCSTART-` are no words.

use crate::DataError;
use crate::file::{self, Lines, utf8};

/// A sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sentence {
    pub(crate) words: Vec<String>,
    pub(crate) tags: Vec<String>,
    /// Of its first word, 1-based.
    pub(crate) line: usize,
}

/// The sentences of one file.
pub(crate) struct Sentences {
    lines: Lines,
    universal: bool,
}

impl Sentences {
    pub(crate) fn new(lines: Lines) -> Self {
        let name = file::name(&lines.path).to_lowercase();
        let packing = file::packing(&name).unwrap_or_default();
        let plain = name.strip_suffix(packing).unwrap_or(&name);
        let universal = plain.ends_with(".conllu");
        Self { lines, universal }
    }

    /// The next sentence.
    ///
    /// # Errors
    /// A line that is not UTF-8, or a word without a tag; the rest of its sentence is read and left out.
    pub(crate) fn next(&mut self) -> Result<Option<Sentence>, DataError> {
        let mut sentence = Sentence::default();
        let mut fault = None;
        loop {
            let path = self.lines.path.clone();
            let Some((bytes, line)) = self.lines.next()? else {
                break;
            };
            let text = match utf8(&path, bytes, line) {
                Ok(text) => text.trim_end_matches(['\n', '\r']),
                Err(error) => {
                    fault.get_or_insert(error);
                    continue;
                }
            };
            if text.trim().is_empty() {
                if sentence.words.is_empty() && fault.is_none() {
                    continue;
                }
                break;
            }
            let is_comment = self.universal && text.starts_with('#');
            if is_comment || text.starts_with("-DOCSTART-") {
                continue;
            }
            match word(text, self.universal) {
                Word::Tagged(word, tag) => {
                    if sentence.words.is_empty() {
                        sentence.line = line;
                    }
                    sentence.words.push(word.into());
                    sentence.tags.push(tag.into());
                }
                Word::PassedOver => {}
                Word::Untagged => {
                    let reason = "a word without a tag".into();
                    fault.get_or_insert(DataError::UnusableRow { path, line, reason });
                }
            }
        }
        match fault {
            Some(fault) => Err(fault),
            None => Ok((!sentence.words.is_empty()).then_some(sentence)),
        }
    }
}

fn word(line: &str, universal: bool) -> Word<'_> {
    let columns: Vec<&str> = if line.contains('\t') {
        line.split('\t').map(str::trim).collect()
    } else {
        line.split_whitespace().collect()
    };
    if universal {
        return match columns.as_slice() {
            [number, ..] if number.contains(['-', '.']) => Word::PassedOver,
            [_, word, _, tag, ..] if !word.is_empty() && !tag.is_empty() => Word::Tagged(word, tag),
            _ => Word::Untagged,
        };
    }
    match columns.as_slice() {
        [word, .., tag] if !word.is_empty() && !tag.is_empty() => Word::Tagged(word, tag),
        _ => Word::Untagged,
    }
}

enum Word<'a> {
    Tagged(&'a str, &'a str),
    PassedOver,
    Untagged,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn sentences(name: &str, text: &str) -> Vec<Result<Sentence, String>> {
        let bytes = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        let mut all = Sentences::new(Lines::new(Path::new(name), bytes).unwrap());
        let next = || all.next().map_err(|error| error.to_string()).transpose();
        std::iter::from_fn(next).collect()
    }

    fn tagged(words: &[&str], tags: &[&str], line: usize) -> Result<Sentence, String> {
        let strings = |all: &[&str]| all.iter().map(|one| one.to_string()).collect();
        Ok(Sentence {
            words: strings(words),
            tags: strings(tags),
            line,
        })
    }

    #[test]
    fn the_first_column_is_the_word_and_the_last_its_tag() {
        let text = "-DOCSTART- -X- O O\r\n\r\nEU NNP I-NP B-ORG\r\nrejects VBZ I-VP O\r\n\r\n\r\nPeter\tB-PER";
        assert_eq!(
            sentences("a.conll", text),
            [
                tagged(&["EU", "rejects"], &["B-ORG", "O"], 3),
                tagged(&["Peter"], &["B-PER"], 7)
            ]
        );
    }

    #[test]
    fn universal_dependencies_have_ten_columns() {
        let text = "# text = Vámonos\n1-2\tVámonos\t_\t_\n1\tVamos\tir\tVERB\tx\n2\tnos\tyo\tPRON\tx\n2.1\tx\tx\tX\tx\n";
        assert_eq!(
            sentences("a.conllu.gz", text),
            [tagged(&["Vamos", "nos"], &["VERB", "PRON"], 3)]
        );
    }

    #[test]
    fn a_word_without_a_tag_spoils_its_sentence_alone() {
        let found = sentences("a.txt", "a X\nb\nc Y\n\nd Z\n");
        assert_eq!(
            found[0].as_ref().unwrap_err(),
            "a.txt:2: a word without a tag"
        );
        assert_eq!(found[1], tagged(&["d"], &["Z"], 5));
    }
}
