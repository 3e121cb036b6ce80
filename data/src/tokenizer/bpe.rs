//! Trains a byte-level BPE vocabulary as GPT-2's, the same one on every run. In: texts. Out: a whole tokenizer.
//!
//! Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>, on bytes: Radford et al. 2019 (GPT-2). Each byte is a token,
//! so any text can be spelled and comes back as it was.

use std::collections::BTreeSet;

use foldhash::HashMap;
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::count::{Splitter, WordCounts, count};
use super::merge::Merger;
use super::words::byte_words;
use crate::DataError;

/// GPT-2's only special token; it ends a text. Id 0 in a vocabulary trained here.
pub(crate) const END: &str = "<|endoftext|>";
/// Longer words, in bytes, teach nothing: they are encoded data.
const LONGEST_WORD: usize = 1024;

/// GPT-2's splitting; a word's first blank belongs to it, and bytes are spelled as printable characters.
pub(crate) fn splitting() -> ByteLevel {
    let (prefix_space, trim_offsets, use_regex) = (false, true, true);
    ByteLevel::new(prefix_space, trim_offsets, use_regex)
}

/// Splits texts as GPT-2 does.
struct Bytes {
    splitting: ByteLevel,
}

impl Splitter for Bytes {
    fn stretches<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> {
        byte_words(text)
    }

    fn split(&self, stretch: &str, word: &mut dyn FnMut(&str)) -> Result<(), DataError> {
        let mut split = PreTokenizedString::from(stretch);
        let done = self.splitting.pre_tokenize(&mut split);
        done.map_err(DataError::Tokenizer)?;
        for (part, ..) in split.get_splits(OffsetReferential::Original, OffsetType::None) {
            word(part);
        }
        Ok(())
    }
}

/// Trains a tokenizer; what its `tokenizer.json` holds.
///
/// - vocab_size: at most as many tokens, at least 257; fewer where the words run out of pairs to merge
///
/// # Errors
/// The stream's first; no words, or a `vocab_size` without room for the bytes.
pub(crate) fn train<S: AsRef<str> + Send>(
    texts: impl Iterator<Item = Result<S, DataError>> + Send,
    vocab_size: usize,
) -> Result<Value, DataError> {
    let splitting = splitting();
    let words = count(texts, &Bytes { splitting })?;
    let (tokens, merges) = vocabulary(&words, vocab_size)?;
    let vocab: serde_json::Map<_, _> = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token, id.into()))
        .collect();
    let mut json = tokenizer(vocab.into(), merges);
    json["added_tokens"] = json!([{
        "id": 0,
        "content": END,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": true,
    }]);
    Ok(json)
}

/// A `tokenizer.json` of GPT-2's kind.
///
/// - vocab: ids by token
/// - merges: pairs of tokens, the first merge first
pub(crate) fn tokenizer(vocab: Value, merges: Vec<[String; 2]>) -> Value {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": splitting(),
        "post_processor": ByteLevel::new(false, false, true),
        "decoder": ByteLevel::new(true, true, true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges,
        },
    })
}

/// Tokens by id, the special one, bytes and merged ones; and the merges.
fn vocabulary(
    words: &WordCounts,
    vocab_size: usize,
) -> Result<(Vec<String>, Vec<[String; 2]>), DataError> {
    let words = words
        .iter()
        .filter(|(word, _)| word.chars().count() <= LONGEST_WORD);
    let mut words: Vec<(&str, u64)> = words.map(|(word, &count)| (word.as_str(), count)).collect();
    if words.is_empty() {
        return Err(DataError::NoWords);
    }
    words.sort_unstable();
    let bytes: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
    let letters: HashMap<char, u32> = bytes.iter().copied().zip(1..).collect();
    let mut tokens = vec![END.to_string()];
    tokens.extend(bytes.iter().map(char::to_string));
    if tokens.len() > vocab_size {
        let needed = tokens.len();
        return Err(DataError::VocabTooSmall { vocab_size, needed });
    }
    let mut merger = Merger::new(tokens, "", &words, |letter, _| letters[&letter]);
    while merger.tokens.len() < vocab_size && merger.merge_most_frequent() {}
    let spelled = |id: u32| merger.tokens[id as usize].clone();
    let merges = merger.merges.iter();
    let merges = merges.map(|&(left, right)| [spelled(left), spelled(right)]);
    let merges = merges.collect();
    Ok((merger.tokens, merges))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::models::TrainerWrapper;
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    use tokenizers::{AddedToken, Tokenizer};

    fn counts(words: &[(&str, u64)]) -> WordCounts {
        let words = words.iter();
        words
            .map(|&(word, count)| (word.to_string(), count))
            .collect()
    }

    #[test]
    fn merges_worked_out_by_hand() {
        // Pairs: t+h 6, h+e 4, h+a 2. First "th"; then th+e 4, th+a 2.
        let (tokens, merges) = vocabulary(&counts(&[("the", 4), ("tha", 2)]), 300).unwrap();
        assert_eq!(tokens.len(), 260);
        assert_eq!((tokens[0].as_str(), tokens[1].as_str()), (END, "!"));
        assert_eq!(tokens[257..], ["th", "the", "tha"]);
        assert_eq!(merges, [["t", "h"], ["th", "e"], ["th", "a"]]);
        let (tokens, merges) = vocabulary(&counts(&[("the", 4), ("tha", 2)]), 258).unwrap();
        assert_eq!((&tokens[257..], merges.len()), (&["th".to_string()][..], 1));
    }

    #[test]
    fn hash_marks_are_characters_like_others() {
        let (tokens, _) = vocabulary(&counts(&[("a##b", 3)]), 300).unwrap();
        assert_eq!(tokens.last().map(String::as_str), Some("a##b"));
    }

    #[test]
    fn too_small_a_vocabulary_says_what_it_needs() {
        let error = vocabulary(&counts(&[("a", 1)]), 256).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a vocabulary of 256 is too small: special tokens and characters take 257"
        );
        let error = vocabulary(&counts(&[]), 300).unwrap_err();
        assert!(matches!(error, DataError::NoWords));
        let long = "x".repeat(LONGEST_WORD + 1);
        let (tokens, _) = vocabulary(&counts(&[(&long, 9), ("ab", 1)]), 300).unwrap();
        assert_eq!(tokens[257..], ["ab"]);
    }

    #[test]
    fn the_tokenizers_crate_learns_the_same_merges() {
        let set = crate::wordnet();
        let texts: Vec<&str> = set
            .examples
            .iter()
            .step_by(40)
            .map(|example| example.text.as_str())
            .collect();
        let ours = train(texts.iter().map(Ok::<_, DataError>), 1500).unwrap();
        let mut theirs = Tokenizer::new(BPE::default());
        theirs.with_pre_tokenizer(Some(splitting()));
        let trainer = BpeTrainer::builder()
            .vocab_size(1500)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END, true)])
            .build();
        let mut trainer = TrainerWrapper::BpeTrainer(trainer);
        theirs.train(&mut trainer, texts.iter()).unwrap();
        let theirs: Value = serde_json::from_str(&theirs.to_string(false).unwrap()).unwrap();
        assert_eq!(ours["model"]["vocab"], theirs["model"]["vocab"]);
        assert_eq!(ours["model"]["merges"], theirs["model"]["merges"]);
        assert_eq!(ours["added_tokens"], theirs["added_tokens"]);
    }
}
