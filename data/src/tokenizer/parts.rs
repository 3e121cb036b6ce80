//! Tokens that know where they come from. In: pairs of texts, words, questions with their contexts. Out: ids, and for each the
//! text, the word and the bytes that it was made of.

use rayon::prelude::*;
use tokenizers::utils::truncation::{TruncationParams, TruncationStrategy};
use tokenizers::{
    Encoding, InputSequence, PostProcessor, PreTokenizerWrapper, Tokenizer, TruncationDirection,
};

use super::TextTokenizer;
use crate::DataError;
use crate::caught::caught;

/// A sequence of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token type ids, which tell the model to which text of a pair each token belongs.
    pub types: Vec<u32>,
    /// Which text each token is of, from 0; `None` for special tokens.
    pub parts: Vec<Option<u8>>,
    /// Which word of its text, from 0.
    pub words: Vec<Option<u32>>,
    /// Bytes of its text, from and to; of its word, where a text was given as words.
    pub offsets: Vec<(u32, u32)>,
    /// Tokens that are missing, as it would be too long; of a window those of its question.
    pub lost: usize,
}

impl Encoded {
    /// Ids and types.
    pub fn pair(&self) -> (&[u32], &[u32]) {
        (&self.ids, &self.types)
    }

    /// The bytes of one of its texts that each token is, from and to; `None` for tokens of another text and special ones.
    ///
    /// - part: which text, from 0
    pub fn bytes_of(&self, part: u8) -> Vec<Option<[u32; 2]>> {
        let tokens = self.parts.iter().zip(&self.offsets);
        tokens
            .map(|(of, &(from, to))| (*of == Some(part)).then_some([from, to]))
            .collect()
    }

    fn of(encoding: &Encoding, lost: usize) -> Self {
        let parts = encoding.get_sequence_ids().into_iter();
        let offsets = encoding.get_offsets().iter();
        Self {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
            parts: parts.map(|part| part.map(|part| part as u8)).collect(),
            words: encoding.get_word_ids().to_vec(),
            offsets: offsets
                .map(|&(from, to)| (from as u32, to as u32))
                .collect(),
            lost,
        }
    }
}

impl TextTokenizer {
    /// Texts or pairs of them with the special tokens that the tokenizer puts around and between them. Of a pair that is too
    /// long the longer text loses tokens.
    ///
    /// - max_len: in tokens, special ones counted
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode_parts(
        &self,
        rows: &[(&str, Option<&str>)],
        max_len: usize,
    ) -> Result<Vec<Encoded>, DataError> {
        let mut cutting = self.inner.clone();
        let truncation = TruncationParams {
            max_length: max_len,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
            direction: self.frame.side,
        };
        cutting
            .with_truncation(Some(truncation))
            .map_err(DataError::Tokenizer)?;
        each(rows, |(first, second)| {
            let Some(second) = second else {
                return self.joined(self.plain((*first).into())?, max_len);
            };
            let specials = true;
            let encoding = cutting.encode((*first, *second), specials);
            let encoding = encoding.map_err(DataError::Tokenizer)?;
            let mut lost = 0;
            if encoding.len() >= max_len {
                let both = self.plain((*first).into())?.len() + self.plain((*second).into())?.len();
                lost = (both + self.added_tokens(true)).saturating_sub(encoding.len());
            }
            Ok(Encoded::of(&encoding, lost))
        })
    }

    /// Texts that hold their special tokens already, cut on the right.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode_written(
        &self,
        texts: &[&str],
        max_len: usize,
    ) -> Result<Vec<Encoded>, DataError> {
        each(texts, |text| {
            let mut encoding = self.plain((*text).into())?;
            let lost = encoding.len().saturating_sub(max_len);
            encoding.truncate(max_len, 0, TruncationDirection::Right);
            Ok(Encoded::of(&encoding, lost))
        })
    }

    /// Sentences of words, each word tokenized by itself.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode_words(
        &self,
        sentences: &[&[String]],
        max_len: usize,
    ) -> Result<Vec<Encoded>, DataError> {
        let spaced = self.with_space_before_words();
        each(sentences, |words| {
            let encoding = spaced.encode(InputSequence::from(*words), false);
            self.joined(encoding.map_err(DataError::Tokenizer)?, max_len)
        })
    }

    /// Questions with windows of their contexts: of a context that is too long several, the last tokens of each being the first
    /// of the next one. A question that fills more than half of a window is cut.
    ///
    /// - stride: how many tokens windows share, at most half of what has room
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode_windows(
        &self,
        rows: &[(&str, &str)],
        max_len: usize,
        stride: usize,
    ) -> Result<Vec<Vec<Encoded>>, DataError> {
        let specials = self.added_tokens(true);
        each(rows, |(question, context)| {
            let mut question = self.plain((*question).into())?;
            let room = max_len.saturating_sub(specials).max(2);
            let lost = question.len().saturating_sub(room / 2);
            question.truncate(room / 2, 0, TruncationDirection::Right);
            question.take_overflowing();
            let room = room - question.len();
            let mut context = self.plain((*context).into())?;
            context.truncate(room, stride.min(room / 2), TruncationDirection::Right);
            let more = context.take_overflowing();
            let windows = std::iter::once(context).chain(more);
            let window = |window| {
                let joined = self
                    .inner
                    .post_process(question.clone(), Some(window), true);
                let joined = joined.map_err(DataError::Tokenizer)?;
                Ok(Encoded::of(&joined, lost))
            };
            windows.map(window).collect()
        })
    }

    /// Special tokens around a text, or around and between two.
    fn added_tokens(&self, pair: bool) -> usize {
        let processor = self.inner.get_post_processor();
        processor.map_or(0, |processor| processor.added_tokens(pair))
    }

    fn plain(&self, text: InputSequence<'_>) -> Result<Encoding, DataError> {
        let specials = false;
        self.inner
            .encode(text, specials)
            .map_err(DataError::Tokenizer)
    }

    /// A text, cut to a length, with special tokens.
    fn joined(&self, mut text: Encoding, max_len: usize) -> Result<Encoded, DataError> {
        let room = max_len.saturating_sub(self.added_tokens(false));
        let lost = text.len().saturating_sub(room);
        text.truncate(room, 0, self.frame.side);
        text.take_overflowing();
        let joined = self.inner.post_process(text, None, true);
        Ok(Encoded::of(&joined.map_err(DataError::Tokenizer)?, lost))
    }

    /// The tokenizer for words alone: GPT-2's puts the blank in front of a word that it would have in a text.
    fn with_space_before_words(&self) -> Tokenizer {
        let mut inner = self.inner.clone();
        if let Some(PreTokenizerWrapper::ByteLevel(mut bytes)) = inner.get_pre_tokenizer().cloned()
        {
            bytes.add_prefix_space = true;
            inner.with_pre_tokenizer(Some(bytes));
        }
        inner
    }
}

/// Encodes rows on all cores, in their order.
fn each<R: Sync, T: Send>(
    rows: &[R],
    encode: impl Fn(&R) -> Result<T, DataError> + Sync + Send,
) -> Result<Vec<T>, DataError> {
    let guarded = |row: &R| match caught(|| encode(row)) {
        Ok(done) => done,
        Err(panic) => Err(DataError::Tokenizer(panic.into())),
    };
    rows.par_iter().map(guarded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 3] = ["the cat sat on the mat", "a dog ran", "what sat where"];

    fn wordpiece() -> TextTokenizer {
        TextTokenizer::train_wordpiece(&TEXTS, 100).unwrap()
    }

    #[test]
    fn a_pair_has_types_and_loses_tokens_of_the_longer_text() {
        let tokenizer = wordpiece();
        let rows = [("the cat sat on the mat", Some("a dog")), ("a dog", None)];
        let all = tokenizer.encode_parts(&rows, 8).unwrap();
        let Encoded {
            types,
            parts,
            lost,
            ids,
            ..
        } = &all[0];
        assert_eq!((ids.len(), *lost), (8, 3));
        assert_eq!(*types, [0, 0, 0, 0, 0, 1, 1, 1]);
        let (first, second) = (Some(0), Some(1));
        assert_eq!(
            *parts,
            [None, first, first, first, None, second, second, None]
        );
        assert_eq!(all[1].ids, tokenizer.encode_one("a dog", 8).unwrap());
        assert_eq!((all[1].lost, all[1].types.clone()), (0, vec![0; 4]));
    }

    #[test]
    fn tokens_of_words_know_their_word() {
        let words: Vec<String> = ["The", "xyz", "cat"].map(String::from).to_vec();
        for tokenizer in [wordpiece(), TextTokenizer::train_bpe(&TEXTS, 270).unwrap()] {
            let encoded = &tokenizer.encode_words(&[&words], 64).unwrap()[0];
            let mut found: Vec<u32> = encoded.words.iter().flatten().copied().collect();
            found.dedup();
            assert_eq!(found, [0, 1, 2]);
            let pieces: Vec<String> = encoded
                .ids
                .iter()
                .filter_map(|&id| tokenizer.token(id))
                .collect();
            assert!(pieces.len() >= 3, "{pieces:?}");
        }
        // A byte-level tokenizer reads each word with a blank before it, the first one too.
        let bytes = TextTokenizer::train_bpe(&TEXTS, 270).unwrap();
        let words: Vec<String> = ["the", "cat"].map(String::from).to_vec();
        let encoded = &bytes.encode_words(&[&words], 64).unwrap()[0];
        assert_eq!(encoded.ids, bytes.encode_one(" the cat", 64).unwrap());
    }

    #[test]
    fn windows_share_tokens_and_know_their_place() {
        let tokenizer = wordpiece();
        let context = "the cat sat on the mat a dog ran";
        let windows = &tokenizer
            .encode_windows(&[("what sat", context)], 9, 2)
            .unwrap()[0];
        assert!(windows.len() > 1);
        let mut covered = vec![false; context.len()];
        for window in windows {
            assert!(window.ids.len() <= 9);
            for (part, &(from, to)) in window.parts.iter().zip(&window.offsets) {
                if *part == Some(1) {
                    covered[from as usize..to as usize].fill(true);
                }
            }
        }
        let blanks = context.bytes().map(|byte| byte != b' ');
        assert_eq!(covered, blanks.collect::<Vec<_>>());
        let second = |window: &Encoded| {
            let inside = window
                .parts
                .iter()
                .position(|part| *part == Some(1))
                .unwrap();
            window.offsets[inside]
        };
        assert!(second(&windows[1]) > second(&windows[0]));
        // A question that is too long leaves room for the context.
        let long = "what ".repeat(50);
        let windows = &tokenizer
            .encode_windows(&[(&long, "a dog ran")], 12, 50)
            .unwrap()[0];
        assert!(
            windows
                .iter()
                .all(|window| window.ids.len() <= 12 && window.lost > 0)
        );
    }
}
