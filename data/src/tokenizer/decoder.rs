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
        let whole = settled(&text);
        let Some(new) = whole.strip_prefix(&self.given) else {
            return Ok(String::new());
        };
        let new = new.to_string();
        self.given = whole.to_string();
        // One token is context enough: decoders look at most at whether there is one before.
        let alone = self.tokenizer.decode(&[id])?;
        let complete = whole.len() == text.len() && !alone.contains(NO_CHARACTER);
        if complete && !alone.is_empty() {
            self.ids = vec![id];
            self.given = alone;
        }
        Ok(new)
    }

    /// What was held back: a last character that stayed incomplete.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn finish(&self) -> Result<String, DataError> {
        let text = self.tokenizer.decode(&self.ids)?;
        let rest = text.strip_prefix(&self.given).unwrap_or_default();
        Ok(rest.to_string())
    }
}

/// The text without a last character that may be incomplete: up to three bytes, each of which some decoders show.
fn settled(text: &str) -> &str {
    (0..3).fold(text, |text, _| {
        text.strip_suffix(NO_CHARACTER).unwrap_or(text)
    })
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

    #[test]
    fn blanks_and_bytes_of_sentencepiece_come_whole() {
        // As in Llama's tokenizer: U+2581 is a blank, and a character without a token is spelt in bytes.
        let tokens: Vec<String> = ["<unk>", "\u{2581}", "a", "b", "\u{2581}a"]
            .into_iter()
            .map(str::to_string)
            .chain((0..=255).map(|byte| format!("<0x{byte:02X}>")))
            .collect();
        let vocab: serde_json::Map<_, _> = tokens.into_iter().zip((0..).map(Into::into)).collect();
        let json = serde_json::json!({
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u{2581}"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
            ]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ]},
            "model": {"type": "BPE", "vocab": vocab, "merges": [["\u{2581}", "a"]], "unk_token": "<unk>", "byte_fallback": true},
        });
        let tokenizer = TextTokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
        let pieces = ["a", "b", " ", "  ", "日", "本", "é", "\u{1f600}", " a"];
        let mut rng = rng(6, Stream::Sample, 0);
        for _ in 0..2000 {
            let n = rng.random_range(0..10);
            let text: String = (0..n)
                .map(|_| pieces[rng.random_range(0..pieces.len())])
                .collect();
            let ids = tokenizer.encode_one(&text, usize::MAX).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            assert_eq!(streamed(&tokenizer, &ids), text, "{ids:?}");
        }
    }
}
