//! Merges the most frequent pair of neighbouring tokens, again and again. In: words and their counts. Out: tokens, and
//! the merges that made them.
//!
//! Every order is fixed, so the result depends on the words alone: ties between pairs go to the lower ids.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use foldhash::HashMap;

/// Two ids.
pub(crate) type Pair = (u32, u32);

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
pub(crate) struct Merger {
    /// By id.
    pub(crate) tokens: Vec<String>,
    /// In the order they were made.
    pub(crate) merges: Vec<Pair>,
    /// Begins a token that continues a word; may be empty.
    prefix: &'static str,
    ids: HashMap<String, u32>,
    /// Tokens of all words, one word after another; what a word no longer needs lies behind it.
    pieces: Vec<u32>,
    words: Vec<Word>,
    pairs: HashMap<Pair, Occurrences>,
    /// Most frequent first, then lower ids. A count may be too high by now, never too low.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Merger {
    /// - tokens: those there are before the first merge, by id
    /// - prefix: begins a token that continues a word, in `tokens` and in merged ones
    /// - letter: the id of a character, and of one that continues a word
    pub(crate) fn new(
        tokens: Vec<String>,
        prefix: &'static str,
        words: &[(&str, u64)],
        letter: impl Fn(char, bool) -> u32,
    ) -> Self {
        let ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
        let mut pieces = Vec::new();
        let cut = words.iter().map(|&(word, count)| {
            let start = pieces.len();
            let letters = word.chars().enumerate();
            pieces.extend(letters.map(|(at, character)| letter(character, at > 0)));
            Word {
                start,
                pieces: pieces.len() - start,
                count,
            }
        });
        let words: Vec<Word> = cut.collect();
        let mut merger = Self {
            tokens,
            merges: Vec::new(),
            prefix,
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
    pub(crate) fn merge_most_frequent(&mut self) -> bool {
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
        self.merges.push(pair);
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
        let token = format!("{left}{}", right.strip_prefix(self.prefix).unwrap_or(right));
        let next = self.tokens.len() as u32;
        *self.ids.entry(token).or_insert_with_key(|token| {
            self.tokens.push(token.clone());
            next
        })
    }
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
    }
}
