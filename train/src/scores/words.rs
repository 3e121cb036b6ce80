//! Text as Python sees it, because the reference implementations of the scores of text are in Python. In: text. Out: words,
//! and how often runs of them occur.
//!
//! Python's `str.lower` is [`str::to_lowercase`]: both follow Unicode's special casing, the Greek final sigma included.
//! Characters that are newer than the reference's version of Unicode may differ.

use std::collections::HashMap;
use std::hash::Hash;

/// Whether `str.isspace` is true: Unicode's white space, and the four separators of ASCII that Unicode leaves out.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// What stands between white space: `str.split`.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// How often each run of `n` items occurs.
///
/// # Panics
///
/// If `n` is 0.
pub fn runs<T: Eq + Hash>(items: &[T], n: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    for run in items.windows(n) {
        *counts.entry(run).or_default() += 1;
    }
    counts
}

/// How many runs occur on both sides; one that occurs several times counts as often as on the side with fewer.
pub fn shared<T: Eq + Hash>(a: &HashMap<T, u64>, b: &HashMap<T, u64>) -> u64 {
    let count = |(run, &count): (&T, &u64)| b.get(run).map_or(0, |&other| count.min(other));
    a.iter().map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_python_s() {
        let text = "\u{85}a\u{1c}b \u{a0}c\u{3000}d\u{2028}e\u{200b}f\n";
        let words: Vec<&str> = split(text).collect();
        assert_eq!(words, ["a", "b", "c", "d", "e\u{200b}f"]);
        assert_eq!(split(" \t").count() + split("").count(), 0);
    }

    #[test]
    fn lower_case_is_python_s() {
        // As CPython 3.11 has them.
        for (text, lower) in [
            ("ÉCOLE STRASSE ẞ", "école strasse ß"),
            ("ΟΔΥΣΣΕΥΣ Σ ΑΣ.", "οδυσσευς σ ας."),
            ("İ", "i\u{307}"),
            ("\u{212a}", "k"),
            (
                "E\u{301}A\u{3a3}\u{301} 中文 😀",
                "e\u{301}a\u{3c2}\u{301} 中文 😀",
            ),
        ] {
            assert_eq!(text.to_lowercase(), lower);
        }
    }

    #[test]
    fn runs_are_shared_as_often_as_they_occur_on_both_sides() {
        let [a, b] = [[1, 1, 1, 2], [1, 2, 1, 1]];
        assert_eq!(shared(&runs(&a, 1), &runs(&b, 1)), 4);
        // (1, 1) twice and once, (1, 2) once each.
        assert_eq!(shared(&runs(&a, 2), &runs(&b, 2)), 2);
        assert!(runs(&a, 5).is_empty());
    }
}
