//! Trains a WordPiece vocabulary, the same one on every run. In: texts. Out: a `WordPiece` model.
//!
//! The algorithm is that of the tokenizers crate's trainer: merge the most frequent pair, again and
//! again. That one (0.22.2, `BpeTrainer::tokenize_words`) numbers the continuing characters in the
//! order of a randomly seeded hash map and breaks ties between pairs by these numbers. Trained twice
//! on the WordNet definitions, 8,192 tokens, it gave 178 of them another id; on a twentieth of the
//! text it chose other tokens too. Here every order is fixed: characters by code point, ties by the
//! lower ids. On all the definitions both choose the same tokens.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::hash::Hash;
use std::ops::Range;

use foldhash::HashMap;
use rayon::prelude::*;
use serde_json::json;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{AddedToken, ModelWrapper, Trainer};

use crate::DataError;
use crate::tokenizer::SPECIALS;
use crate::words::{plain_parts, words};

/// Begins a token that continues a word.
const PREFIX: &str = "##";
/// Characters kept, most frequent first; words with others become `[UNK]`, as in BERT's trainer.
const ALPHABET: usize = 1000;
/// Longer words become `[UNK]`, so nothing is learnt from them. BERT's limit.
const LONGEST_WORD: usize = 100;

/// Texts, and bytes of them, that one thread counts at a time.
const GROUP: usize = 256;
const GROUP_BYTES: usize = 1 << 18;
/// Groups whose words are counted before they join the others: few at first, for meanwhile no other core has work.
const GROUPS: Range<usize> = 8..64;
/// Distinct words that are counted, which bounds the memory: some 100 bytes each while counting, some 500 while
/// merging. With more of them the rarest are forgotten, and then the result depends on the order of the texts too.
const MOST_WORDS: usize = 2_000_000;
/// Distinct words between blanks, their punctuation still on them, that are counted before they are split.
const MOST_RAW: usize = 500_000;

/// How often each word occurs.
type WordCounts = HashMap<String, u64>;

/// The tokenizers crate's `Trainer`, with a result that depends on the words alone. For BERT's
/// lower-casing normalizer and its pre-tokenizer.
pub(crate) struct WordPieceTrainer {
    vocab_size: usize,
    words: WordCounts,
}

impl WordPieceTrainer {
    /// - vocab_size: at most as many tokens; fewer where the words run out of pairs to merge
    pub(crate) fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            words: HashMap::default(),
        }
    }
}

impl Trainer for WordPieceTrainer {
    type Model = ModelWrapper;

    fn should_show_progress(&self) -> bool {
        false
    }

    fn train(&self, model: &mut ModelWrapper) -> tokenizers::Result<Vec<AddedToken>> {
        let vocab: serde_json::Map<_, _> = vocabulary(&self.words, self.vocab_size)?
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
        *model = serde_json::from_str::<WordPiece>(&json.to_string())?.into();
        let specials = SPECIALS.iter().map(|&token| AddedToken::from(token, true));
        Ok(specials.collect())
    }

    fn feed<I, S, F>(&mut self, texts: I, process: F) -> tokenizers::Result<()>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
        F: Fn(&str) -> tokenizers::Result<Vec<String>> + Sync,
    {
        let mut texts = texts;
        let mut rarest = 1;
        // As they stand in the texts, between blanks: normalized once each, not once an occurrence.
        let mut raw = WordCounts::default();
        // Chunks end at the same texts on every run, so the same words are pruned.
        let mut size = GROUPS.start;
        let mut groups = chunk(&mut texts, size);
        loop {
            size = GROUPS.end.min(2 * size);
            let count = move || {
                let counts = groups
                    .par_iter_mut()
                    .fold(HashMap::default, |counts, group| {
                        let all = group.iter().flat_map(|text| words(text.as_ref()));
                        all.fold(counts, |mut counts: HashMap<&str, u64>, word| {
                            *counts.entry(word).or_default() += 1;
                            counts
                        })
                    });
                let counts = counts.reduce(HashMap::default, sum).into_iter();
                counts.fold(raw, |raw, (word, times)| counted(raw, word, times))
            };
            // One core reads ahead.
            let (counts, next) = rayon::join(count, || chunk(&mut texts, size));
            (raw, groups) = (counts, next);
            if groups.is_empty() || raw.len() > MOST_RAW {
                let raw: Vec<(String, u64)> = std::mem::take(&mut raw).into_iter().collect();
                let split = raw
                    .par_iter()
                    .try_fold(WordCounts::default, |counts, (raw, times)| {
                        let count = |counts, word: &str| counted(counts, word, *times);
                        let mut folded = String::new();
                        if let Some(parts) = plain_parts(raw, true, &mut folded) {
                            return Ok(parts.fold(counts, count));
                        }
                        let parts = process(raw)?;
                        Ok(parts.iter().map(String::as_str).fold(counts, count))
                    });
                let split: tokenizers::Result<WordCounts> =
                    split.try_reduce(WordCounts::default, |all, more| Ok(sum(all, more)));
                self.words = sum(std::mem::take(&mut self.words), split?);
                prune(&mut self.words, MOST_WORDS, &mut rarest);
            }
            if groups.is_empty() {
                return Ok(());
            }
        }
    }
}

/// The next texts, in at most so many groups for one thread each.
fn chunk<S: AsRef<str>>(texts: &mut impl Iterator<Item = S>, size: usize) -> Vec<Vec<S>> {
    let mut groups = Vec::new();
    while groups.len() < size {
        let mut bytes = 0;
        let mut group = Vec::new();
        while group.len() < GROUP && bytes < GROUP_BYTES {
            let Some(text) = texts.next() else { break };
            bytes += text.as_ref().len();
            group.push(text);
        }
        if group.is_empty() {
            break;
        }
        groups.push(group);
    }
    groups
}

/// Forgets the rarest words while there are more than `most`: those seen once, then those seen twice since, and so on.
fn prune(words: &mut WordCounts, most: usize, rarest: &mut u64) {
    while words.len() > most {
        words.retain(|_, count| *count > *rarest);
        *rarest += 1;
    }
}

fn counted(mut counts: WordCounts, word: &str, times: u64) -> WordCounts {
    match counts.get_mut(word) {
        Some(count) => *count += times,
        None => drop(counts.insert(word.to_string(), times)),
    }
    counts
}

fn sum<K: Eq + Hash>(mut all: HashMap<K, u64>, mut more: HashMap<K, u64>) -> HashMap<K, u64> {
    if all.len() < more.len() {
        std::mem::swap(&mut all, &mut more);
    }
    for (word, count) in more {
        *all.entry(word).or_default() += count;
    }
    all
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
    let mut merger = Merger::new(tokens, &words);
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

type Pair = (u32, u32);

/// Where a word's tokens are, how many, and how often it occurs.
struct Word {
    start: usize,
    pieces: usize,
    count: u64,
}

impl Word {
    fn place(&self) -> Range<usize> {
        self.start..self.start + self.pieces
    }
}

/// Of a pair.
#[derive(Default)]
struct Occurrences {
    count: u64,
    /// The words it occurs in, or did: words it has left since stay listed.
    words: Vec<u32>,
    /// Whether the merge at work has made it more frequent.
    grown: bool,
}

/// Words cut into tokens, and the pairs of neighbours in them.
struct Merger {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    /// Tokens of all words, one word after another; what a word no longer needs lies behind it.
    pieces: Vec<u32>,
    words: Vec<Word>,
    pairs: HashMap<Pair, Occurrences>,
    /// Most frequent first, then lower ids. A count may be too high by now, never too low.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Merger {
    fn new(tokens: Vec<String>, words: &[(&str, u64)]) -> Self {
        let ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
        let letters = letters(&tokens);
        let mut pieces = Vec::new();
        let cut = words.iter().map(|&(word, count)| {
            let start = pieces.len();
            pieces.extend(cut(word, &letters));
            Word {
                start,
                pieces: pieces.len() - start,
                count,
            }
        });
        let words: Vec<Word> = cut.collect();
        let mut merger = Self {
            tokens,
            pieces,
            words,
            ids,
            pairs: HashMap::default(),
            queue: BinaryHeap::new(),
        };
        for (word, place) in merger.words.iter().zip(0..) {
            for pair in pairs(&merger.pieces[word.place()]) {
                let occurrences = merger.pairs.entry(pair).or_default();
                occurrences.count += word.count;
                occurrences.words.push(place);
            }
        }
        let pairs = merger.pairs.iter();
        merger.queue = pairs
            .map(|(&pair, occurrences)| (occurrences.count, Reverse(pair)))
            .collect();
        merger
    }

    /// Makes the most frequent pair one token everywhere; false if no pair is left.
    fn merge_most_frequent(&mut self) -> bool {
        while let Some((queued, Reverse(pair))) = self.queue.pop() {
            let count = self.pairs.get(&pair).map_or(0, |pair| pair.count);
            if count == queued {
                self.merge(pair);
                return true;
            }
            if count > 0 {
                self.queue.push((count, Reverse(pair)));
            }
        }
        false
    }

    fn merge(&mut self, pair: Pair) {
        let merged = self.token_of(pair);
        let mut grown = Vec::new();
        let occurrences = self.pairs.remove(&pair).unwrap_or_default();
        for place in occurrences.words {
            let word = &mut self.words[place as usize];
            let pieces = &mut self.pieces[word.place()];
            let Some((start, rest)) = around(pieces, pair) else {
                continue;
            };
            for before in pairs(&pieces[start..pieces.len() - rest]) {
                if before != pair {
                    self.pairs.entry(before).or_default().count -= word.count;
                }
            }
            word.pieces = replace(pieces, pair, merged);
            for after in pairs(&pieces[start..word.pieces - rest]) {
                let occurrences = self.pairs.entry(after).or_default();
                occurrences.count += word.count;
                if after.0 == merged || after.1 == merged {
                    occurrences.words.push(place);
                    if !std::mem::replace(&mut occurrences.grown, true) {
                        grown.push(after);
                    }
                }
            }
        }
        for pair in grown {
            if let Some(occurrences) = self.pairs.get_mut(&pair) {
                occurrences.grown = false;
                self.queue.push((occurrences.count, Reverse(pair)));
            }
        }
    }

    /// The id of a pair as one token, which another pair may have made before: a+bc, ab+c.
    fn token_of(&mut self, (left, right): Pair) -> u32 {
        let [left, right] = [left, right].map(|id| self.tokens[id as usize].as_str());
        let token = format!("{left}{}", right.strip_prefix(PREFIX).unwrap_or(right));
        let next = self.tokens.len() as u32;
        *self.ids.entry(token).or_insert_with_key(|token| {
            self.tokens.push(token.clone());
            next
        })
    }
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

fn cut(word: &str, letters: &Letters) -> impl Iterator<Item = u32> {
    let word = word.chars().enumerate();
    word.map(|(at, letter)| letters[&(letter, at > 0)])
}

fn pairs(word: &[u32]) -> impl Iterator<Item = Pair> {
    word.windows(2).map(|pair| (pair[0], pair[1]))
}

/// How many tokens of a word lie before those that change their neighbours where a pair is merged, and how many after
/// them; `None` if the pair does not occur.
fn around(word: &[u32], pair: Pair) -> Option<(usize, usize)> {
    let first = pairs(word).position(|other| other == pair)?;
    let rest = word.windows(2).rev();
    let rest = rest
        .take_while(|other| (other[0], other[1]) != pair)
        .count();
    Some((first.saturating_sub(1), rest.saturating_sub(1)))
}

/// Replaces each `pair` in a word by `merged`, from the left, and says how many tokens are left.
fn replace(word: &mut [u32], pair: Pair, merged: u32) -> usize {
    let (mut from, mut to) = (0, 0);
    while from < word.len() {
        let here = from + 1 < word.len() && (word[from], word[from + 1]) == pair;
        word[to] = if here { merged } else { word[from] };
        from += 1 + usize::from(here);
        to += 1;
    }
    to
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
    fn only_what_lies_around_a_pair_changes() {
        assert_eq!(around(&[1, 2, 3, 4, 5], (2, 3)), Some((0, 1)));
        assert_eq!(around(&[1, 2, 3, 4, 5], (1, 2)), Some((0, 2)));
        assert_eq!(around(&[1, 2, 3, 4, 5], (3, 4)), Some((1, 0)));
        assert_eq!(around(&[1, 2, 3, 4, 5], (4, 5)), Some((2, 0)));
        assert_eq!(around(&[7, 8, 1, 1, 1, 8, 7, 9], (1, 1)), Some((1, 2)));
        assert_eq!(around(&[1, 2, 3], (3, 1)), None);
    }

    #[test]
    fn a_run_of_one_letter_merges_from_the_left() {
        let mut word = [1, 1, 1, 2, 1, 1];
        let left = replace(&mut word, (1, 1), 9);
        assert_eq!(word[..left], [9, 1, 2, 9]);
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
    fn chunks_are_bounded_and_leave_nothing_out() {
        let texts: Vec<String> = (0..20_000).map(|i| "x".repeat(i % 200)).collect();
        let mut left = texts.iter();
        let mut seen = Vec::new();
        loop {
            let groups = chunk(&mut left, GROUPS.end);
            if groups.is_empty() {
                break;
            }
            assert!(groups.len() <= GROUPS.end && groups.iter().all(|group| group.len() <= GROUP));
            seen.extend(groups.into_iter().flatten());
        }
        assert!(seen.into_iter().eq(&texts));
        let long = "x".repeat(GROUP_BYTES);
        let groups = chunk(&mut [&long, &long, &long].into_iter(), GROUPS.end);
        assert_eq!(groups.len(), 3);
    }

    #[test]
    fn the_rarest_words_are_forgotten_first() {
        let mut words = counts(&[("a", 9), ("b", 1), ("c", 2), ("d", 2), ("e", 3)]);
        let mut rarest = 1;
        prune(&mut words, 5, &mut rarest);
        assert_eq!((words.len(), rarest), (5, 1));
        prune(&mut words, 3, &mut rarest);
        assert_eq!(words, counts(&[("a", 9), ("e", 3)]));
        assert_eq!(rarest, 3);
    }

    #[test]
    fn overlong_words_teach_nothing() {
        let long = "x".repeat(LONGEST_WORD + 1);
        let tokens = vocabulary(&counts(&[(&long, 9), ("a", 1)]), 100).unwrap();
        assert_eq!(tokens[SPECIALS.len()..], ["a"]);
    }
}
