//! Counts words, in memory that does not grow with the texts. In: texts. Out: how often each word occurs.

use std::hash::Hash;
use std::ops::Range;

use foldhash::HashMap;
use rayon::prelude::*;

use crate::DataError;

/// Texts, and bytes of them, that one thread counts at a time.
const GROUP: usize = 256;
const GROUP_BYTES: usize = 1 << 18;
/// Groups whose words are counted before they join the others: few at first, for meanwhile no other core has work.
const GROUPS: Range<usize> = 8..64;
/// Distinct words that are counted, which bounds the memory: some 100 bytes each while counting, some 500 while
/// merging. With more of them the rarest are forgotten, and then the result depends on the order of the texts too.
const MOST_WORDS: usize = 2_000_000;
/// Distinct stretches that are counted before they are split into words.
const MOST_STRETCHES: usize = 500_000;

/// How often each word occurs.
pub(crate) type WordCounts = HashMap<String, u64>;

/// How a text becomes words, in two steps: texts repeat most stretches, and each is split once only.
pub(crate) trait Splitter: Sync {
    /// Stretches of a text, each of which becomes the same words wherever it occurs.
    fn stretches<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str>;

    /// Hands over the words of a stretch.
    fn split(&self, stretch: &str, word: &mut dyn FnMut(&str)) -> Result<(), DataError>;
}

/// How often each word of the texts occurs; the same whatever their order, up to two million different words.
///
/// # Errors
/// The stream's first.
pub(crate) fn count<S: AsRef<str> + Send>(
    texts: impl Iterator<Item = Result<S, DataError>> + Send,
    splitter: &impl Splitter,
) -> Result<WordCounts, DataError> {
    let mut failure = None;
    let texts = texts.map_while(|text| text.map_err(|error| failure = Some(error)).ok());
    let counts = count_all(texts, splitter);
    match failure {
        Some(error) => Err(error),
        None => counts,
    }
}

fn count_all<S: AsRef<str> + Send>(
    mut texts: impl Iterator<Item = S> + Send,
    splitter: &impl Splitter,
) -> Result<WordCounts, DataError> {
    let mut rarest = 1;
    let mut words = WordCounts::default();
    let mut stretches = WordCounts::default();
    // Chunks end at the same texts on every run, so the same words are pruned.
    let mut size = GROUPS.start;
    let mut groups = chunk(&mut texts, size);
    loop {
        size = GROUPS.end.min(2 * size);
        // One core reads ahead.
        let (counts, next) = rayon::join(
            || count_stretches(groups, stretches, splitter),
            || chunk(&mut texts, size),
        );
        (stretches, groups) = (counts, next);
        if groups.is_empty() || stretches.len() > MOST_STRETCHES {
            words = sum(words, split(std::mem::take(&mut stretches), splitter)?);
            prune(&mut words, MOST_WORDS, &mut rarest);
        }
        if groups.is_empty() {
            return Ok(words);
        }
    }
}

fn count_stretches<S: AsRef<str> + Send>(
    mut groups: Vec<Vec<S>>,
    counts: WordCounts,
    splitter: &impl Splitter,
) -> WordCounts {
    // Mutable, for texts need not be shared between threads.
    let groups = groups.par_iter_mut();
    let more = groups.fold(HashMap::default, |counts, group| {
        let all = group
            .iter()
            .flat_map(|text| splitter.stretches(text.as_ref()));
        all.fold(counts, |mut counts: HashMap<&str, u64>, stretch| {
            *counts.entry(stretch).or_default() += 1;
            counts
        })
    });
    let more = more.reduce(HashMap::default, sum).into_iter();
    more.fold(counts, |counts, (stretch, times)| {
        counted(counts, stretch, times)
    })
}

fn split(stretches: WordCounts, splitter: &impl Splitter) -> Result<WordCounts, DataError> {
    let stretches: Vec<(String, u64)> = stretches.into_iter().collect();
    let counts =
        stretches
            .par_iter()
            .try_fold(WordCounts::default, |mut counts, (stretch, times)| {
                splitter.split(stretch, &mut |word| add(&mut counts, word, *times))?;
                Ok(counts)
            });
    counts.try_reduce(WordCounts::default, |all, more| Ok(sum(all, more)))
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
    add(&mut counts, word, times);
    counts
}

fn add(counts: &mut WordCounts, word: &str, times: u64) {
    match counts.get_mut(word) {
        Some(count) => *count += times,
        None => drop(counts.insert(word.to_string(), times)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let of = |words: &[(&str, u64)]| -> WordCounts {
            let words = words.iter();
            words
                .map(|&(word, count)| (word.to_string(), count))
                .collect()
        };
        let mut words = of(&[("a", 9), ("b", 1), ("c", 2), ("d", 2), ("e", 3)]);
        let mut rarest = 1;
        prune(&mut words, 5, &mut rarest);
        assert_eq!((words.len(), rarest), (5, 1));
        prune(&mut words, 3, &mut rarest);
        assert_eq!(words, of(&[("a", 9), ("e", 3)]));
        assert_eq!(rarest, 3);
    }
}
