//! Turns ids into text as they come. In: one id at a time. Out: the text each adds.

use super::TextTokenizer;
use crate::DataError;

/// What [`String::from_utf8_lossy`] puts where bytes are no character, or not yet.
const NO_CHARACTER: char = '\u{fffd}';

/// Text that grows with its ids; put together, what it gives is [`TextTokenizer::decode`] of all of them.
///
/// A character whose bytes are spread over several tokens is held back until its last byte is there.
#[derive(Clone, Debug)]
pub struct TextDecoder<'a> {
    tokenizer: &'a TextTokenizer,
    /// The last ids: far enough back that what they decode to no longer depends on those before.
    ids: Vec<u32>,
    /// What of their text was given already.
    given: String,
}

impl<'a> TextDecoder<'a> {
    pub(crate) fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self {
            tokenizer,
            ids: Vec::new(),
            given: String::new(),
        }
    }

    /// The text that this id adds; empty for special tokens, and while a character is incomplete.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String, DataError> {
        if self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        let whole = text.strip_suffix(NO_CHARACTER).unwrap_or(&text);
        let Some(new) = whole.strip_prefix(&self.given) else {
            return Ok(String::new());
        };
        let new = new.to_string();
        self.given = whole.to_string();
        // One token is context enough: decoders look at most at whether there is one before.
        let alone = self.tokenizer.decode(&[id])?;
        let settled = whole.len() == text.len() && !alone.contains(NO_CHARACTER);
        if settled && !alone.is_empty() {
            self.ids = vec![id];
            self.given = alone;
        }
        Ok(new)
    }

    /// What was held back: a last character that stayed incomplete.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn finish(self) -> Result<String, DataError> {
        let text = self.tokenizer.decode(&self.ids)?;
        let rest = text.strip_prefix(&self.given).unwrap_or_default();
        Ok(rest.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Stream, rng};
    use rand::RngExt;

    fn streamed(tokenizer: &TextTokenizer, ids: &[u32]) -> String {
        let mut decoder = tokenizer.decoder();
        let mut text: String = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
        text.push_str(&decoder.finish().unwrap());
        text
    }

    #[test]
    fn characters_come_whole() {
        let tokenizer = TextTokenizer::train_bpe(&["a"], 257).unwrap();
        let ids = tokenizer.encode_one("a é!", 99).unwrap();
        assert_eq!(ids.len(), 5, "one a byte");
        let mut decoder = tokenizer.decoder();
        let pushed: Vec<String> = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
        assert_eq!(pushed, ["a", " ", "", "é", "!"]);
        assert_eq!(decoder.finish().unwrap(), "");
        assert_eq!(streamed(&tokenizer, &ids[..3]), "a \u{fffd}");
    }

    #[test]
    fn streamed_text_is_decoded_text() {
        let texts = [
            "the cat doesn't sit, or does it? 日本 élan",
            "\u{1f600} the",
        ];
        let bytes = TextTokenizer::train_bpe(&texts, 300).unwrap();
        let pieces = TextTokenizer::train_wordpiece(&texts, 100).unwrap();
        let mut rng = rng(5, Stream::Sample, 0);
        for tokenizer in [&bytes, &pieces] {
            let most = tokenizer.vocab_size() as u32;
            for _ in 0..2000 {
                // Bytes in any order: mostly no UTF-8.
                let n = rng.random_range(0..20);
                let ids: Vec<u32> = (0..n).map(|_| rng.random_range(0..most)).collect();
                let whole = tokenizer.decode(&ids).unwrap();
                assert_eq!(streamed(tokenizer, &ids), whole, "{ids:?}");
            }
        }
    }
}
