//! Trains a WordPiece vocabulary, the same one on every run. In: texts. Out: a `WordPiece` model.
//!
//! The algorithm is that of the tokenizers crate's trainer: merge the most frequent pair, again and
//! again. That one (0.22.2, `BpeTrainer::tokenize_words`) numbers the continuing characters in the
//! order of a randomly seeded hash map and breaks ties between pairs by these numbers. Trained twice
//! on the WordNet definitions, 8,192 tokens, it gave 178 of them another id; on a twentieth of the
//! text it chose other tokens too. Here every order is fixed: characters by code point, ties by the
//! lower ids. On all the definitions both choose the same tokens.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use foldhash::HashMap;
use serde_json::json;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::SPECIALS;
use super::count::{Splitter, WordCounts, count};
use super::merge::Merger;
use super::words::{plain_parts, words};
use crate::DataError;

/// Begins a token that continues a word.
const PREFIX: &str = "##";
/// Characters kept, most frequent first; words with others become `[UNK]`, as in BERT's trainer.
const ALPHABET: usize = 1000;
/// Longer words become `[UNK]`, so nothing is learnt from them. BERT's limit.
const LONGEST_WORD: usize = 100;

/// Splits texts as BERT's lower-casing normalizer and its pre-tokenizer do.
struct Bert {
    normalizer: BertNormalizer,
}

impl Splitter for Bert {
    fn stretches<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> {
        words(text)
    }

    fn split(&self, stretch: &str, word: &mut dyn FnMut(&str)) -> Result<(), DataError> {
        let mut folded = String::new();
        if let Some(parts) = plain_parts(stretch, true, &mut folded) {
            parts.for_each(word);
            return Ok(());
        }
        let mut normalized = NormalizedString::from(stretch);
        let done = self.normalizer.normalize(&mut normalized);
        done.map_err(DataError::Tokenizer)?;
        let mut split = PreTokenizedString::from(normalized);
        let done = BertPreTokenizer.pre_tokenize(&mut split);
        done.map_err(DataError::Tokenizer)?;
        for (part, ..) in split.get_splits(OffsetReferential::Original, OffsetType::None) {
            word(part);
        }
        Ok(())
    }
}

/// Trains the model.
///
/// - normalizer: BERT's, lower-casing
/// - vocab_size: at most as many tokens; fewer where the words run out of pairs to merge
///
/// # Errors
/// The stream's first; no words, or more characters than `vocab_size` has room for.
pub(crate) fn train<S: AsRef<str> + Send>(
    texts: impl Iterator<Item = Result<S, DataError>> + Send,
    normalizer: BertNormalizer,
    vocab_size: usize,
) -> Result<WordPiece, DataError> {
    let words = count(texts, &Bert { normalizer })?;
    let vocab: serde_json::Map<_, _> = vocabulary(&words, vocab_size)?
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token, id.into()))
        .collect();
    // As JSON: the model's builder takes a map of a crate we would not need otherwise.
    let json = json!({
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": PREFIX,
        "max_input_chars_per_word": LONGEST_WORD,
        "vocab": vocab,
    });
    serde_json::from_str(&json.to_string()).map_err(|error| DataError::Tokenizer(error.into()))
}

/// Tokens by id: special ones, characters, continuing characters, merges in the order they were made.
fn vocabulary(words: &WordCounts, vocab_size: usize) -> Result<Vec<String>, DataError> {
    let words = words
        .iter()
        .filter(|(word, _)| word.chars().count() <= LONGEST_WORD);
    let mut words: Vec<(&str, u64)> = words.map(|(word, &count)| (word.as_str(), count)).collect();
    words.sort_unstable();
    let alphabet = alphabet(&words);
    words.retain(|(word, _)| word.chars().all(|letter| alphabet.contains(&letter)));
    if words.is_empty() {
        return Err(DataError::NoWords);
    }
    let continuing: BTreeSet<char> = words
        .iter()
        .flat_map(|(word, _)| word.chars().skip(1))
        .collect();
    let mut tokens: Vec<String> = SPECIALS.iter().map(|token| token.to_string()).collect();
    tokens.extend(alphabet.iter().map(char::to_string));
    tokens.extend(continuing.iter().map(|letter| format!("{PREFIX}{letter}")));
    if tokens.len() > vocab_size {
        let needed = tokens.len();
        return Err(DataError::VocabTooSmall { vocab_size, needed });
    }
    let letters = letters(&tokens);
    let letter = |letter, continues| letters[&(letter, continues)];
    let mut merger = Merger::new(tokens, PREFIX, &words, letter);
    while merger.tokens.len() < vocab_size && merger.merge_most_frequent() {}
    Ok(merger.tokens)
}

fn alphabet(words: &[(&str, u64)]) -> BTreeSet<char> {
    let mut counts: HashMap<char, u64> = HashMap::default();
    for (word, count) in words {
        for letter in word.chars() {
            *counts.entry(letter).or_default() += count;
        }
    }
    let mut letters: Vec<(char, u64)> = counts.into_iter().collect();
    letters.sort_unstable_by_key(|&(letter, count)| (Reverse(count), letter));
    letters
        .into_iter()
        .take(ALPHABET)
        .map(|(letter, _)| letter)
        .collect()
}

/// Ids of single characters, and whether they continue a word.
type Letters = HashMap<(char, bool), u32>;

fn letters(tokens: &[String]) -> Letters {
    let letter = |token: &str| {
        let continued = token.strip_prefix(PREFIX).filter(|rest| !rest.is_empty());
        let mut letters = continued.unwrap_or(token).chars();
        let letter = letters.next()?;
        letters
            .next()
            .is_none()
            .then_some((letter, continued.is_some()))
    };
    let tokens = tokens.iter().zip(0..);
    tokens
        .filter_map(|(token, id)| Some((letter(token)?, id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(words: &[(&str, u64)]) -> WordCounts {
        words
            .iter()
            .map(|&(word, count)| (word.to_string(), count))
            .collect()
    }

    #[test]
    fn merges_worked_out_by_hand() {
        // Pairs: t+##h 4+2 = 6, ##h+##e 4, ##h+##a 2. First "th"; then th+##e 4, th+##a 2.
        let words = counts(&[("the", 4), ("tha", 2)]);
        let tokens = vocabulary(&words, 100).unwrap();
        let merges = ["th", "the", "tha"];
        let letters = ["a", "e", "h", "t", "##a", "##e", "##h"];
        let expected: Vec<&str> = SPECIALS.into_iter().chain(letters).chain(merges).collect();
        assert_eq!(tokens, expected);
        assert_eq!(vocabulary(&words, 13).unwrap(), expected[..13]);
    }

    #[test]
    fn ties_go_to_the_lower_ids() {
        // Both pairs occur once; ids: a 5, b 6, c 7, d 8, ##b 9, ##d 10. (5, 9) comes before (7, 10).
        let words = counts(&[("cd", 1), ("ab", 1)]);
        assert_eq!(vocabulary(&words, 100).unwrap()[11..], ["ab", "cd"]);
    }

    #[test]
    fn runs_of_one_letter_are_counted_right() {
        // Counts must stay right through it, or the subtraction overflows.
        let words = counts(&[("aaaaaaa", 3), ("aaa", 2), ("baaab", 1)]);
        assert!(
            vocabulary(&words, 100)
                .unwrap()
                .contains(&"aaaaaaa".to_string())
        );
    }

    #[test]
    fn too_small_a_vocabulary_says_what_it_needs() {
        let error = vocabulary(&counts(&[("ab", 1)]), 7).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a vocabulary of 7 is too small: special tokens and characters take 8"
        );
        let error = vocabulary(&counts(&[]), 100).unwrap_err();
        assert!(matches!(error, DataError::NoWords));
    }

    #[test]
    fn overlong_words_teach_nothing() {
        let long = "x".repeat(LONGEST_WORD + 1);
        let tokens = vocabulary(&counts(&[(&long, 9), ("a", 1)]), 100).unwrap();
        assert_eq!(tokens[SPECIALS.len()..], ["a"]);
    }
}
