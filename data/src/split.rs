//! Splits by content. In: a key an example. Out: row indices of train, valid and test.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use sha2::{Digest, Sha256};

use crate::order::shuffled;

/// Row indices, each split in input order. Disjoint by content: equal keys always fall into the
/// same split, so a text that occurs twice is never both trained on and tested.
#[derive(Clone, Debug, PartialEq)]
pub struct Splits {
    /// Rows to train on.
    pub train: Vec<usize>,
    /// Rows to choose a checkpoint by.
    pub valid: Vec<usize>,
    /// Rows to report.
    pub test: Vec<usize>,
}

/// Splits rows by their keys (see [`text_key`]; an image's pixels are a key too). A key's split is
/// a pure function of (key, seed) by SHA-256, so adding rows moves no other row.
///
/// - valid, test: fractions 0..1 of the keys; what they leave is for training
pub fn split_by_content<'a>(
    keys: impl Iterator<Item = &'a [u8]>,
    valid: f64,
    test: f64,
    seed: u64,
) -> Splits {
    let mut splits = Splits {
        train: vec![],
        valid: vec![],
        test: vec![],
    };
    for (row, key) in keys.enumerate() {
        splits.rows(split_of(key, valid, test, seed)).push(row);
    }
    splits
}

/// Classes with fewer different contents than these are trained on as a whole, if none of them fell to training.
const RARE: usize = 3;

/// [`split_by_content`] for rows with classes: a class that would have no row to train on keeps one content there, the one
/// whose hash is nearest to training, or all of them where it has fewer than three. So each class can be learned, and
/// contents still never are in two splits. Where every class has a row to train on, the splits are those of
/// [`split_by_content`].
///
/// - keys: of each row
/// - labels: the class of each row
///
/// # Panics
/// If there are fewer labels than keys.
pub fn split_labelled<K: AsRef<[u8]>, L: Eq + Hash>(
    keys: &[K],
    labels: &[L],
    valid: f64,
    test: f64,
    seed: u64,
) -> Splits {
    let hashes: Vec<ContentHash> = keys
        .iter()
        .map(|key| content_hash(key.as_ref(), seed))
        .collect();
    split_by_hash(&hashes, Some(labels), valid, test)
}

/// What a content's split follows from: the SHA-256 of the seed and the content. Equal contents have equal ones.
pub type ContentHash = [u8; 32];

/// The hash of a key under this seed.
pub fn content_hash(key: &[u8], seed: u64) -> ContentHash {
    Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update(key)
        .finalize()
        .into()
}

/// The hash of an image under this seed: that of a grey image is the same in grey and in RGB.
///
/// - planes: `[channels, height, width]`
pub fn image_hash(planes: &[u8], channels: usize, seed: u64) -> ContentHash {
    let plane = planes.len() / channels.max(1);
    let (first, others) = planes.split_at(plane);
    let is_grey = !first.is_empty() && others.chunks(plane).all(|other| other == first);
    content_hash(if is_grey { first } else { planes }, seed)
}

/// [`split_labelled`], or [`split_by_content`] where there are no labels, for keys that are hashed already.
///
/// - hashes: of each row, all under one seed
/// - labels: the class of each row
///
/// # Panics
/// If there are fewer labels than hashes.
pub fn split_by_hash<L: Eq + Hash>(
    hashes: &[ContentHash],
    labels: Option<&[L]>,
    valid: f64,
    test: f64,
) -> Splits {
    let mut splits = Splits {
        train: vec![],
        valid: vec![],
        test: vec![],
    };
    for (row, hash) in hashes.iter().enumerate() {
        splits.rows(split_at(place(hash), valid, test)).push(row);
    }
    let Some(labels) = labels else {
        return splits;
    };
    let trained: HashSet<&L> = splits.train.iter().map(|&row| &labels[row]).collect();
    let mut untrained: HashMap<&L, HashSet<&ContentHash>> = HashMap::new();
    for &row in splits.valid.iter().chain(&splits.test) {
        if !trained.contains(&labels[row]) {
            let contents = untrained.entry(&labels[row]).or_default();
            contents.insert(&hashes[row]);
        }
    }
    if untrained.is_empty() {
        return splits;
    }
    let moved = untrained.into_values().flat_map(|contents| {
        let mut contents: Vec<&ContentHash> = contents.into_iter().collect();
        contents.sort_by(|a, b| place(b).total_cmp(&place(a)).then(a.cmp(b)));
        if contents.len() >= RARE {
            contents.truncate(1);
        }
        contents
    });
    let moved: HashSet<&ContentHash> = moved.collect();
    let stays = |row: &usize| !moved.contains(&hashes[*row]);
    let mut train = splits.train;
    let [valid, test] = [splits.valid, splits.test].map(|rows| {
        let (stay, go): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(stays);
        train.extend(go);
        stay
    });
    train.sort_unstable();
    Splits { train, valid, test }
}

impl Splits {
    fn rows(&mut self, split: Split) -> &mut Vec<usize> {
        match split {
            Split::Train => &mut self.train,
            Split::Valid => &mut self.valid,
            Split::Test => &mut self.test,
        }
    }
}

/// A split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// To train on.
    Train,
    /// To choose a checkpoint by.
    Valid,
    /// To report.
    Test,
}

/// The split of one key, as [`split_by_content`] has it.
pub fn split_of(key: &[u8], valid: f64, test: f64, seed: u64) -> Split {
    split_at(unit_hash(key, seed), valid, test)
}

/// - at: the place of a content in 0..1
fn split_at(at: f64, valid: f64, test: f64) -> Split {
    if at < test {
        Split::Test
    } else if at < test + valid {
        Split::Valid
    } else {
        Split::Train
    }
}

/// A text's key: lower-cased, white space folded.
pub fn text_key(text: &str) -> String {
    let lower = text.to_lowercase();
    if is_folded(&lower) {
        return lower;
    }
    let mut key = String::with_capacity(lower.len());
    for word in lower.split_whitespace() {
        if !key.is_empty() {
            key.push(' ');
        }
        key.push_str(word);
    }
    key
}

/// Whether there is nothing to fold; false where it takes a longer look to tell.
fn is_folded(text: &str) -> bool {
    let mut blank = true;
    for byte in text.bytes() {
        let odd = !byte.is_ascii() || matches!(byte, b'\t'..=b'\r');
        if odd || blank && byte == b' ' {
            return false;
        }
        blank = byte == b' ';
    }
    !blank
}

/// A random subset of `n` rows for few-label experiments, in random order. Nested: the subset of
/// 1,000 is a prefix of that of 5,000. Stratified: each subset holds every class in its share of
/// the whole, to within a row or so. With `n` above the number of rows, all of them.
///
/// A class whose share is less than a row may have none.
///
/// - labels: the class of each row
pub fn label_subset(labels: &[u32], n: usize, seed: u64) -> Vec<usize> {
    let mut sizes: HashMap<u32, f64> = HashMap::new();
    for &label in labels {
        *sizes.entry(label).or_default() += 1.0;
    }
    let mut taken: HashMap<u32, f64> = HashMap::new();
    let mut rows: Vec<(f64, usize)> = shuffled(labels.len(), seed, 0)
        .into_iter()
        .map(|row| {
            let label = labels[row as usize];
            let rank = taken.entry(label).or_default();
            // A class of k rows takes its turns at 0.5/k, 1.5/k, ... of the way.
            let turn = (*rank + 0.5) / sizes[&label];
            *rank += 1.0;
            (turn, row as usize)
        })
        .collect();
    // Stable: classes whose turns coincide stay in random order.
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    rows.into_iter().take(n).map(|(_, row)| row).collect()
}

/// The key's place in 0..1 under this seed.
fn unit_hash(key: &[u8], seed: u64) -> f64 {
    place(&content_hash(key, seed))
}

/// The place of a content in 0..1.
fn place(hash: &ContentHash) -> f64 {
    let mut head = [0; 8];
    head.copy_from_slice(&hash[..8]);
    // 53 bits fill a double exactly, so the result stays below 1.
    (u64::from_be_bytes(head) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn split(keys: &[&str], seed: u64) -> Splits {
        split_by_content(keys.iter().map(|key| key.as_bytes()), 0.25, 0.25, seed)
    }

    #[test]
    fn the_hash_is_what_sha256_says() {
        // printf '\0\0\0\0\0\0\0\0abc' | sha256sum | cut -c1-16, as hexadecimal over 2^64.
        assert!((unit_hash(b"abc", 0) - EXPECTED).abs() < 1e-12);
    }

    const EXPECTED: f64 = 0.9507626474162149;

    #[test]
    fn equal_keys_share_a_split_and_rows_keep_their_order() {
        let keys: Vec<String> = (0..400).map(|i| format!("key {}", i % 100)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let splits = split(&keys, 1);
        for rows in [&splits.train, &splits.valid, &splits.test] {
            assert!(rows.is_sorted());
            assert_eq!(rows.len() % 4, 0, "a key's four rows stay together");
        }
        let total = splits.train.len() + splits.valid.len() + splits.test.len();
        assert_eq!(total, 400);
    }

    #[test]
    fn a_keys_split_depends_on_the_key_and_the_seed_alone() {
        let keys: Vec<String> = (0..200).map(|i| i.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let all = split(&keys, 1);
        let half = split(&keys[..100], 1);
        let below_100 = |rows: &[usize]| {
            rows.iter()
                .copied()
                .filter(|&r| r < 100)
                .collect::<Vec<_>>()
        };
        assert_eq!(half.test, below_100(&all.test));
        assert_eq!(half.valid, below_100(&all.valid));
        assert_ne!(all, split(&keys, 2));
    }

    #[test]
    fn fractions_of_zero_and_one_are_exact() {
        let keys = || (0..50u8).map(|i| i.to_le_bytes()).collect::<Vec<_>>();
        let keys = keys();
        let of =
            |valid, test| split_by_content(keys.iter().map(|key| key.as_slice()), valid, test, 3);
        assert_eq!(of(0.0, 0.0).train.len(), 50);
        assert_eq!(of(1.0, 0.0).valid.len(), 50);
        assert_eq!(of(0.0, 1.0).test.len(), 50);
    }

    #[test]
    fn wordnet_splits_share_no_definition() {
        let set = crate::wordnet();
        let keys: Vec<String> = set.examples.iter().map(|e| text_key(&e.text)).collect();
        let splits = split_by_content(keys.iter().map(|key| key.as_bytes()), 0.05, 0.1, 42);
        let of = |rows: &[usize]| {
            rows.iter()
                .map(|&row| keys[row].as_str())
                .collect::<HashSet<_>>()
        };
        let (train, valid, test) = (of(&splits.train), of(&splits.valid), of(&splits.test));
        assert!(train.is_disjoint(&valid) && train.is_disjoint(&test) && valid.is_disjoint(&test));
        // Five standard deviations of a binomial share: 5 * sqrt(p (1 - p) / 117,659) < 0.005.
        let share = |rows: &[usize]| rows.len() as f64 / set.len() as f64;
        assert!((share(&splits.valid) - 0.05).abs() < 0.005);
        assert!((share(&splits.test) - 0.1).abs() < 0.005);
    }

    #[test]
    fn a_text_key_folds_case_and_white_space() {
        assert_eq!(text_key("  A\tWord \n here "), "a word here");
        let folded = "a word here";
        for text in [
            folded,
            "A Word here",
            " a word here",
            "a word here ",
            "a  word here",
            "a\x0bword\rhere",
            "a word\u{a0}here",
        ] {
            assert_eq!(text_key(text), folded, "{text:?}");
        }
        assert_eq!(text_key(""), "");
        assert_eq!(text_key(" "), "");
        assert_eq!(text_key("\u{1f}"), "\u{1f}");
    }

    #[test]
    fn subsets_are_nested_and_stratified() {
        // 80 rows of class 0, 20 of class 1.
        let labels: Vec<u32> = (0..100).map(|i| u32::from(i % 5 == 0)).collect();
        let ten = label_subset(&labels, 10, 4);
        let fifty = label_subset(&labels, 50, 4);
        assert_eq!(ten, fifty[..10]);
        let ones = |rows: &[usize]| rows.iter().filter(|&&row| labels[row] == 1).count();
        assert_eq!((ones(&ten), ones(&fifty)), (2, 10));
        assert_ne!(ten, label_subset(&labels, 10, 5));
        let all: HashSet<usize> = label_subset(&labels, 1000, 4).into_iter().collect();
        assert_eq!(all.len(), 100);
    }

    /// Contents and classes: 300 of a common class, then those of one rare class.
    fn with_rare(contents: usize) -> (Vec<String>, Vec<&'static str>) {
        let common = (0..300).map(|i| (format!("common {i}"), "common"));
        // Each content twice.
        let rare = (0..2 * contents).map(|i| (format!("rare {}", i / 2), "rare"));
        common.chain(rare).unzip()
    }

    #[test]
    fn a_class_without_a_training_row_gets_one() {
        let mut moved = 0;
        for contents in 1..=5 {
            for seed in 0..200 {
                let (keys, labels) = with_rare(contents);
                let plain = split_by_content(keys.iter().map(|key| key.as_bytes()), 0.4, 0.3, seed);
                let splits = split_labelled(&keys, &labels, 0.4, 0.3, seed);
                let rare = |rows: &[usize]| rows.iter().filter(|&&row| row >= 300).count();
                if rare(&plain.train) > 0 {
                    assert_eq!(splits, plain, "nothing to mend");
                    continue;
                }
                moved += 1;
                let expected = if contents < RARE { 2 * contents } else { 2 };
                assert_eq!(
                    rare(&splits.train),
                    expected,
                    "{contents} contents, seed {seed}"
                );
                assert!(splits.train.is_sorted());
                // The others stay where they were.
                assert!(splits.valid.iter().all(|row| plain.valid.contains(row)));
                assert!(splits.test.iter().all(|row| plain.test.contains(row)));
                let all = splits.train.len() + splits.valid.len() + splits.test.len();
                assert_eq!(all, keys.len());
            }
        }
        // 0.7 + 0.7^2 + ... + 0.7^5 of 200 seeds, about 388.
        assert!((300..480).contains(&moved), "{moved}");
    }
}
