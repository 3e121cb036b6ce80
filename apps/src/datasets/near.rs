//! Finds texts that are nearly equal. In: texts. Out: for each the one before it that is most like it.
//!
//! How alike two texts are is the Jaccard index of their shingles: of all pieces of five characters (or of so many words) in
//! either of them, the share that is in both. MinHash estimates it, Broder 1997, <https://doi.org/10.1109/SEQUEN.1997.666900>;
//! only texts that agree in a whole band of their minima are compared, and these exactly. So what is found is right, and of
//! what is at the threshold one pair in fifty may be missed.

use std::collections::{HashMap, HashSet};

use data::text_key;
use rayon::prelude::*;
use unicode_normalization::UnicodeNormalization;

/// Characters of a shingle.
const CHARACTERS: usize = 5;
/// Minima of a text.
const MINIMA: usize = 128;
/// Chance at least with which two texts at the threshold are compared.
const CERTAINTY: f64 = 0.98;

/// A text as duplicates are told: compatible forms of Unicode, capitals and white space make no difference.
pub fn normal(text: &str) -> String {
    if text.is_ascii() {
        return text_key(text);
    }
    text_key(&text.nfkc().collect::<String>())
}

/// What of two texts is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likeness {
    /// Texts are nearly equal from this share of common shingles on, above 0 and at most 1.
    pub threshold: f64,
    /// Words of a shingle; `None` is five characters.
    pub words: Option<usize>,
}

impl Likeness {
    /// The shingles of a normal text, each once and sorted.
    fn shingles(&self, text: &str) -> Vec<u64> {
        let mut found: Vec<u64> = match self.words {
            Some(n) => {
                let words: Vec<u64> = text.split(' ').map(hash).collect();
                windows(&words, n).map(combined).collect()
            }
            None => {
                let characters: Vec<u64> =
                    text.chars().map(|letter| mixed(letter.into())).collect();
                windows(&characters, CHARACTERS).map(combined).collect()
            }
        };
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Minima of a band: as many as still find what is at the threshold.
    fn band(&self) -> usize {
        let finds = |rows: usize| {
            let bands = (MINIMA / rows) as f64;
            1.0 - (1.0 - self.threshold.powf(rows as f64)).powf(bands) >= CERTAINTY
        };
        (1..=MINIMA / 4)
            .rev()
            .find(|&rows| finds(rows))
            .unwrap_or(1)
    }

    fn sketch(&self, text: &str) -> Sketch {
        let shingles = self.shingles(text);
        let minimum = |at: u64| {
            let (factor, summand) = (mixed(2 * at) | 1, mixed(2 * at + 1));
            let drawn = shingles
                .iter()
                .map(|shingle| factor.wrapping_mul(*shingle).wrapping_add(summand) >> 32);
            drawn.min().unwrap_or(u64::MAX)
        };
        let minima: Vec<u64> = (0..MINIMA as u64).map(minimum).collect();
        let bands = minima.chunks_exact(self.band()).map(combined).collect();
        Sketch { shingles, bands }
    }
}

/// Pieces of a length; of what is shorter the whole.
fn windows(parts: &[u64], n: usize) -> impl Iterator<Item = &[u64]> {
    parts.windows(n.min(parts.len()).max(1))
}

/// The end of splitmix64: every bit of the result depends on every bit of the number.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// One number of several, in their order; the same on every machine.
fn combined(parts: &[u64]) -> u64 {
    parts
        .iter()
        .fold(0, |all, part| mixed(all.rotate_left(5) ^ part))
}

fn hash(word: &str) -> u64 {
    word.bytes()
        .fold(0, |all, byte| mixed(all ^ u64::from(byte)))
}

/// What is kept of a text to find it.
struct Sketch {
    shingles: Vec<u64>,
    bands: Vec<u64>,
}

/// The share of shingles that two texts have in common, of those that either has.
fn jaccard(one: &[u64], other: &[u64]) -> f64 {
    let (mut at, mut common) = (0, 0);
    for shingle in one {
        while at < other.len() && other[at] < *shingle {
            at += 1;
        }
        if other.get(at) == Some(shingle) {
            common += 1;
        }
    }
    common as f64 / (one.len() + other.len() - common).max(1) as f64
}

/// A text that is nearly equal to one before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Its row.
    pub row: usize,
    /// The row that it is like.
    pub like: usize,
    /// The share of common shingles.
    pub likeness: f64,
}

/// Finds the rows that are nearly equal to one before them: the most alike, of several the first.
///
/// - texts: normal ones, in the order of the rows
/// - role: of a row
/// - progress: called with the number of rows up to there
pub fn nearest(
    texts: &[String],
    likeness: Likeness,
    role: impl Fn(usize) -> Role,
    progress: &mut dyn FnMut(usize),
) -> Vec<Near> {
    const CHUNK: usize = 1 << 12;
    let mut buckets: HashMap<(usize, u64), Vec<usize>> = HashMap::new();
    let mut found = Vec::new();
    for (chunk, part) in texts.chunks(CHUNK).enumerate() {
        let sketches: Vec<Sketch> = part.par_iter().map(|text| likeness.sketch(text)).collect();
        for (at, sketch) in sketches.iter().enumerate() {
            let row = chunk * CHUNK + at;
            let role = role(row);
            let like = match role {
                Role::Known => None,
                Role::Ignored => continue,
                Role::Asked | Role::Both => most_like(sketch, &buckets, texts, likeness),
            };
            if let Some((like, likeness)) = like {
                found.push(Near {
                    row,
                    like,
                    likeness,
                });
            }
            if role == Role::Known || role == Role::Both && like.is_none() {
                for (band, key) in sketch.bands.iter().enumerate() {
                    buckets.entry((band, *key)).or_default().push(row);
                }
            }
        }
        progress(chunk * CHUNK + part.len());
    }
    found
}

/// What a row is compared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Later rows are compared with it.
    Known,
    /// It is compared with those before it.
    Asked,
    /// Both, unless it is like one before it: then later rows are compared with that one.
    Both,
    /// Nothing.
    Ignored,
}

/// The row that is most like a text, and how much.
fn most_like(
    sketch: &Sketch,
    buckets: &HashMap<(usize, u64), Vec<usize>>,
    texts: &[String],
    likeness: Likeness,
) -> Option<(usize, f64)> {
    let mut seen = HashSet::new();
    let mut best: Option<(usize, f64)> = None;
    for (band, key) in sketch.bands.iter().enumerate() {
        for &row in buckets.get(&(band, *key)).into_iter().flatten() {
            if !seen.insert(row) {
                continue;
            }
            let share = jaccard(&sketch.shingles, &likeness.shingles(&texts[row]));
            let better =
                best.is_none_or(|(first, most)| share > most || share == most && row < first);
            if share >= likeness.threshold && better {
                best = Some((row, share));
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIKENESS: Likeness = Likeness {
        threshold: 0.8,
        words: None,
    };

    fn found(texts: &[&str], likeness: Likeness) -> Vec<Near> {
        let texts: Vec<String> = texts.iter().map(|text| normal(text)).collect();
        nearest(&texts, likeness, |_| Role::Both, &mut |_| {})
    }

    #[test]
    fn a_normal_text_has_no_forms() {
        // The ligature of f and i, a full-width A, e with an accent in two ways, a space that breaks no line.
        assert_eq!(normal("ﬁne  Ａ\u{a0}e\u{301}\n"), "fine a \u{e9}");
        assert_eq!(normal(" One\tTwo "), "one two");
    }

    #[test]
    fn likeness_is_the_share_of_common_shingles() {
        let of = |one: &str, other: &str, likeness: Likeness| {
            jaccard(&likeness.shingles(one), &likeness.shingles(other))
        };
        // abcde bcdef | bcdef cdefg: one of three.
        assert!((of("abcdef", "bcdefg", LIKENESS) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(of("abc", "abc", LIKENESS), 1.0);
        assert_eq!(of("abc", "abd", LIKENESS), 0.0);
        let words = Likeness {
            words: Some(2),
            ..LIKENESS
        };
        // a b, b c, c d | a b, b c, c e: two of four.
        assert_eq!(of("a b c d", "a b c e", words), 0.5);
        assert_eq!(of("a", "a", words), 1.0);
    }

    #[test]
    fn what_is_nearly_equal_is_found_and_nothing_else() {
        let texts = [
            "a small bird that sings at night in the woods of the north",
            "a tool with which a carpenter makes holes into planks of wood",
            "a small bird that sings at night in the woods of the south",
            "a small bird that sings by day",
            "a small bird that sings at night in the woods of the northern",
        ];
        let near = found(&texts, LIKENESS);
        let rows: Vec<_> = near.iter().map(|near| (near.row, near.like)).collect();
        assert_eq!(rows, [(2, 0), (4, 0)]);
        assert!(near.iter().all(|near| (0.8..1.0).contains(&near.likeness)));
        let strict = Likeness {
            threshold: 1.0,
            ..LIKENESS
        };
        assert!(found(&texts, strict).is_empty());
    }

    #[test]
    fn nearly_all_pairs_above_the_threshold_are_found() {
        // Texts of forty words, and each with one word changed: nine of some 235 shingles.
        let word = |i: usize| format!("w{:04}", mixed(i as u64) % 10_000);
        let text = |i: usize| (0..40).map(|at| word(i * 40 + at)).collect::<Vec<_>>();
        let mut texts: Vec<String> = (0..300).map(|i| text(i).join(" ")).collect();
        for i in 0..300 {
            let mut changed = text(i);
            changed[i % 40] = "other".into();
            texts.push(changed.join(" "));
        }
        let near = nearest(&texts, LIKENESS, |_| Role::Both, &mut |_| {});
        assert!(near.len() >= 290, "{}", near.len());
        assert!(near.iter().all(|near| near.row == near.like + 300));
    }

    #[test]
    fn bands_find_what_is_at_the_threshold() {
        // 0.8^7 = 0.2097 and 18 bands: 1 - 0.7903^18 = 0.986; with 8 and 16 it would be 0.947.
        assert_eq!(LIKENESS.band(), 7);
        let loose = Likeness {
            threshold: 0.5,
            words: None,
        };
        // 1 - (1 - 0.125)^42 = 0.996; with 4 and 32 it would be 0.873.
        assert_eq!(loose.band(), 3);
    }

    #[test]
    fn roles_say_what_is_compared() {
        let text = "a small bird that sings at night".to_string();
        let texts = vec![text.clone(), text.clone(), text.clone(), text];
        let role = |row| [Role::Asked, Role::Known, Role::Ignored, Role::Asked][row];
        let near = nearest(&texts, LIKENESS, role, &mut |_| {});
        let expected = Near {
            row: 3,
            like: 1,
            likeness: 1.0,
        };
        assert_eq!(near, [expected]);
    }
}
