//! Which span of a text answers best. In: how much each token looks like an answer's first and last. Out: bytes, and scores.

use model::bundle::{Bundle, BundleError};
use serde::{Deserialize, Serialize};

/// How answers are found and chosen: what a bundle keeps of it, under `answers` in its `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswersConfig {
    /// Tokens that the windows of a long context share.
    pub stride: usize,
    /// Tokens of the longest answer.
    pub longest: usize,
    /// How much better no answer must be than the best one, as a difference of logits; none where one is always given.
    pub no_answer_threshold: Option<f64>,
}

impl AnswersConfig {
    /// What a bundle says, or what is usual where it says nothing: a quarter of a window, 30 tokens, no answer where it is better.
    ///
    /// - max_length: of a window, in tokens
    ///
    /// # Errors
    ///
    /// A key that is missing or of another type.
    pub fn of(bundle: &Bundle, max_length: usize) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Said {
            answers: Option<AnswersConfig>,
        }
        let said: Said = bundle.head_config()?;
        Ok(said.answers.unwrap_or(Self {
            stride: max_length / 4,
            longest: 30,
            no_answer_threshold: Some(0.0),
        }))
    }
}

/// Ends that are tried together, the likeliest of each.
const TRIED: usize = 20;

/// The best answer of a window, or of all windows of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// Sum of both logits, and bytes of the context, from and to; `None` where no token can be an answer.
    pub best: Option<(f32, [u32; 2])>,
    /// Sum of both logits of no answer: the least of all windows.
    pub none: f32,
}

impl Found {
    /// The better of two windows.
    pub fn or(self, other: Self) -> Self {
        let best = match (self.best, other.best) {
            (Some(ours), Some(other)) if other.0 > ours.0 => Some(other),
            (ours, other) => ours.or(other),
        };
        Self {
            best,
            none: self.none.min(other.none),
        }
    }

    /// How much better no answer is than the best one.
    pub fn no_answer_score(&self) -> f64 {
        self.best.map_or(f64::INFINITY, |(score, _)| {
            f64::from(self.none) - f64::from(score)
        })
    }

    /// The best answer's text; empty where there is none.
    pub fn text<'a>(&self, context: &'a str) -> &'a str {
        let bytes = self.best.map(|(_, [from, to])| from as usize..to as usize);
        bytes
            .and_then(|bytes| context.get(bytes))
            .unwrap_or_default()
    }
}

/// A span that may answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Sum of both logits.
    pub score: f32,
    /// Bytes of the context, from and to.
    pub bytes: [u32; 2],
}

/// The spans between the likeliest ends whose last token is not before the first, the best first.
///
/// - starts, ends: `[seq]`; the first is that of no answer
/// - bytes: of the context that each token is; `None` where a token can be no answer; tokens behind these are padding
/// - longest: in tokens
pub fn candidates(
    starts: &[f32],
    ends: &[f32],
    bytes: &[Option<[u32; 2]>],
    longest: usize,
) -> Vec<Candidate> {
    let likeliest = |logits: &[f32]| {
        let mut order: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at].is_some()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        order.truncate(TRIED);
        order
    };
    let lasts = likeliest(ends);
    let mut all = Vec::new();
    for first in likeliest(starts) {
        for &last in &lasts {
            let fits = first <= last && last - first < longest;
            if let (true, Some([from, _]), Some([_, to])) = (fits, bytes[first], bytes[last]) {
                all.push(Candidate {
                    score: starts[first] + ends[last],
                    bytes: [from, to],
                });
            }
        }
    }
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}

/// The best of the [`candidates`], and the score of no answer.
pub fn best_span(
    starts: &[f32],
    ends: &[f32],
    bytes: &[Option<[u32; 2]>],
    longest: usize,
) -> Found {
    let all = candidates(starts, ends, bytes, longest);
    let none = starts.first().unwrap_or(&0.0) + ends.first().unwrap_or(&0.0);
    Found {
        best: all.first().map(|best| (best.score, best.bytes)),
        none,
    }
}

/// The tokens that hold the first and the last byte of an answer, if the window has both.
///
/// - bytes: of the context that each token is
pub fn tokens_of(bytes: &[Option<[u32; 2]>], [from, to]: [u32; 2]) -> Option<[u32; 2]> {
    let holds = |at: u32| {
        bytes
            .iter()
            .position(|token| token.is_some_and(|[first, end]| first <= at && at < end))
    };
    // White space at its ends belongs to no token of most tokenizers.
    let first = (from..to).find_map(holds)?;
    let last = (from..to).rev().find_map(holds)?;
    let seen: Vec<[u32; 2]> = bytes.iter().flatten().copied().collect();
    let whole = seen.first()?[0] <= from && to <= seen.last()?[1];
    (whole && first <= last).then_some([first as u32, last as u32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_span_is_in_the_context_and_not_too_long() {
        // [CLS] question [SEP] the cat sat [SEP], padding.
        let bytes = [
            None,
            None,
            None,
            Some([0, 3]),
            Some([4, 7]),
            Some([8, 11]),
            None,
        ];
        let starts = [1.0, 9.0, 0.0, 3.0, 2.0, 0.0, 0.0, -1e9];
        let ends = [2.0, 9.0, 0.0, 0.0, 2.5, 3.0, 0.0, -1e9];
        let found = best_span(&starts, &ends, &bytes, 10);
        assert_eq!(found.best, Some((6.0, [0, 11])));
        assert_eq!((found.none, found.no_answer_score()), (3.0, -3.0));
        assert_eq!(found.text("the cat sat"), "the cat sat");
        let short = best_span(&starts, &ends, &bytes, 2);
        assert_eq!(short.best, Some((5.5, [0, 7])));
        // An end before its start is none.
        let turned = best_span(&ends, &starts, &bytes, 1);
        assert_eq!(turned.text("the cat sat"), "cat");
    }

    #[test]
    fn windows_compete_and_no_answer_is_the_least_of_them() {
        let window = |score, none| Found {
            best: Some((score, [0, 1])),
            none,
        };
        let both = window(1.0, 4.0).or(window(2.0, 3.0));
        assert_eq!(both, window(2.0, 3.0));
        assert_eq!(
            Found::default().or(window(-5.0, -1.0)).best,
            Some((-5.0, [0, 1]))
        );
        let nothing = best_span(&[1.0], &[2.0], &[None], 5);
        assert_eq!(
            (nothing.text("x"), nothing.no_answer_score()),
            ("", f64::INFINITY)
        );
    }
}
