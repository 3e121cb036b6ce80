//! What summaries are judged by: ROUGE, Lin 2004, <https://aclanthology.org/W04-1013>. In: predicted text, and one or several
//! references. Out: figures of a split, means over its rows.
//!
//! Equal to the rouge-score package without its stemmer, which is its default. Words are runs of the letters a to z and of
//! digits, once in lower case: text in other scripts has none.

use serde_json::{Value, json};

use super::words::{runs, shared};
use super::{Counts, ordered_mean};
use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;

/// Names of what a [`SummaryTally`] reports: the package's own, though two have an upper-case letter.
pub const METRICS: &[Metric] = &[
    Metric::higher("rouge1"),
    Metric::higher("rouge2"),
    Metric::higher("rougeL"),
    Metric::higher("rougeLsum"),
];

/// How much of a reference is in a summary and the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overlap {
    /// The share of the summary.
    pub precision: f64,
    /// The share of the reference.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// The four kinds of ROUGE of a summary. All are 0 where either side has no words.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rouge {
    /// Of words.
    pub rouge1: Overlap,
    /// Of pairs of words.
    pub rouge2: Overlap,
    /// Of the longest common subsequence of both texts.
    pub rouge_l: Overlap,
    /// Of those of each sentence of the reference with all sentences of the summary. A sentence is a line.
    pub rouge_l_sum: Overlap,
}

/// The scores of a summary by one reference.
pub fn rouge(prediction: &str, reference: &str) -> Rouge {
    let texts = [prediction, reference].map(str::to_lowercase);
    let sentences = [&texts[0], &texts[1]]
        .map(|text| -> Vec<Vec<&str>> { text.split('\n').map(words).collect() });
    let [prediction, reference] = [&sentences[0], &sentences[1]].map(|lines| lines.concat());
    let of_runs = |n| {
        let [predicted, present] = [runs(&prediction, n), runs(&reference, n)];
        overlap(Counts {
            hits: shared(&predicted, &present),
            predicted: predicted.values().sum(),
            present: present.values().sum(),
        })
    };
    let of_words = |hits| {
        overlap(Counts {
            hits,
            predicted: prediction.len() as u64,
            present: reference.len() as u64,
        })
    };
    Rouge {
        rouge1: of_runs(1),
        rouge2: of_runs(2),
        rouge_l: of_words(common_places(&reference, &prediction).len() as u64),
        rouge_l_sum: of_words(union_hits(&sentences[0], &sentences[1])),
    }
}

/// The words of a text in lower case.
fn words(text: &str) -> Vec<&str> {
    let is_gap = |c: char| !matches!(c, 'a'..='z' | '0'..='9');
    text.split(is_gap).filter(|word| !word.is_empty()).collect()
}

fn overlap(counts: Counts) -> Overlap {
    let [precision, recall] = [counts.precision(), counts.recall()];
    // Not counts.f1(): as rouge-score rounds it, since the last bit may decide which of several references is the best.
    let f1 = if counts.hits == 0 {
        0.0
    } else {
        2.0 * precision * recall / (precision + recall)
    };
    Overlap {
        precision,
        recall,
        f1,
    }
}

/// Words of the reference that are in a longest common subsequence of their sentence with any sentence of the summary, each as
/// often at most as in the whole summary.
fn union_hits(prediction: &[Vec<&str>], reference: &[Vec<&str>]) -> u64 {
    let mut found = Vec::new();
    for truth in reference {
        let mut is_common = vec![false; truth.len()];
        for sentence in prediction {
            for place in common_places(truth, sentence) {
                is_common[place] = true;
            }
        }
        let common = truth.iter().zip(is_common).filter(|(_, common)| *common);
        found.extend(common.map(|(word, _)| *word));
    }
    shared(&runs(&found, 1), &runs(&prediction.concat(), 1))
}

/// Where the words of a longest common subsequence are in the first text, from the last to the first. Of several, the one that
/// rouge-score finds: ROUGE-Lsum depends on it.
fn common_places(reference: &[&str], prediction: &[&str]) -> Vec<usize> {
    let width = prediction.len() + 1;
    // [reference, prediction]: the length for so many first words of each.
    let mut lengths = vec![0u32; (reference.len() + 1) * width];
    for (row, truth) in reference.iter().enumerate() {
        for (column, word) in prediction.iter().enumerate() {
            let below = (row + 1) * width + column;
            lengths[below + 1] = if truth == word {
                lengths[below - width] + 1
            } else {
                lengths[below].max(lengths[below - width + 1])
            };
        }
    }
    let (mut row, mut column, mut places) = (reference.len(), prediction.len(), Vec::new());
    while row > 0 && column > 0 {
        let place = row * width + column;
        if reference[row - 1] == prediction[column - 1] {
            row -= 1;
            column -= 1;
            places.push(row);
        } else if lengths[place - 1] > lengths[place - width] {
            column -= 1;
        } else {
            row -= 1;
        }
    }
    places
}

/// The summaries of a split.
///
/// Memory: 96 bytes for each, so that means are the same in whatever order parts were merged.
#[derive(Clone, Debug, Default)]
pub struct SummaryTally {
    rows: Vec<Rouge>,
}

impl SummaryTally {
    /// Takes in a summary. Of several references, each kind of ROUGE has the one with the highest F1, the first of equal ones.
    ///
    /// # Panics
    ///
    /// If there is no reference.
    pub fn add<T: AsRef<str>>(&mut self, prediction: &str, references: &[T]) {
        let better = |best: Overlap, other: Overlap| if other.f1 > best.f1 { other } else { best };
        let scores = references
            .iter()
            .map(|reference| rouge(prediction, reference.as_ref()));
        let best = scores.reduce(|best, other| Rouge {
            rouge1: better(best.rouge1, other.rouge1),
            rouge2: better(best.rouge2, other.rouge2),
            rouge_l: better(best.rouge_l, other.rouge_l),
            rouge_l_sum: better(best.rouge_l_sum, other.rouge_l_sum),
        });
        self.rows.push(best.expect("a summary has a reference"));
    }

    /// The means over the rows; NaN where there are none.
    pub fn means(&self) -> Rouge {
        let mean = |kind: fn(&Rouge) -> Overlap| {
            let mean = |side: fn(Overlap) -> f64| {
                ordered_mean(self.rows.iter().map(|row| side(kind(row))))
            };
            Overlap {
                precision: mean(|overlap| overlap.precision),
                recall: mean(|overlap| overlap.recall),
                f1: mean(|overlap| overlap.f1),
            }
        };
        Rouge {
            rouge1: mean(|row| row.rouge1),
            rouge2: mean(|row| row.rouge2),
            rouge_l: mean(|row| row.rouge_l),
            rouge_l_sum: mean(|row| row.rouge_l_sum),
        }
    }
}

impl Rouge {
    fn by_name(&self) -> [(&'static str, Overlap); 4] {
        [
            ("rouge1", self.rouge1),
            ("rouge2", self.rouge2),
            ("rougeL", self.rouge_l),
            ("rougeLsum", self.rouge_l_sum),
        ]
    }
}

impl Tally for SummaryTally {
    fn merge(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    /// The mean of each kind's F1; NaN where there are no rows.
    fn metrics(&self) -> Metrics {
        let means = self.means().by_name();
        means
            .map(|(name, overlap)| (name.to_string(), overlap.f1))
            .into()
    }

    /// The means of precision, recall and F1 by kind.
    fn details(&self) -> Option<Value> {
        let figures = self.means().by_name().map(|(name, overlap)| {
            let Overlap {
                precision,
                recall,
                f1,
            } = overlap;
            let figures = json!({"precision": precision, "recall": recall, "f1": f1});
            (name.to_string(), figures)
        });
        Some(Value::Object(figures.into_iter().collect()))
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, golden, read};
    use super::*;

    /// Prediction and references.
    type Row = (String, Vec<String>);

    fn cases() -> Value {
        golden(include_str!("../../../tests/golden/scores/summaries.json"))
    }

    fn tally(rows: &[Row]) -> SummaryTally {
        let mut tally = SummaryTally::default();
        for (prediction, references) in rows {
            tally.add(prediction, references);
        }
        tally
    }

    /// Precision, recall and F1 of each kind.
    fn assert_same(ours: &Rouge, theirs: &Value) {
        for (name, overlap) in ours.by_name() {
            let ours = [overlap.precision, overlap.recall, overlap.f1];
            for (place, ours) in ours.into_iter().enumerate() {
                assert_near(ours, &theirs[name][place], 1e-9);
            }
        }
    }

    #[test]
    fn words_are_those_of_rouge_score() {
        for case in cases()["words"].as_array().unwrap() {
            let text: String = read(case, "text");
            let theirs: Vec<String> = read(case, "words");
            assert_eq!(words(&text.to_lowercase()), theirs, "{text:?}");
        }
    }

    #[test]
    fn figures_of_rows_are_those_of_rouge_score() {
        for case in cases()["splits"].as_array().unwrap() {
            let rows: Vec<Row> = read(case, "rows");
            for (place, row) in rows.iter().enumerate() {
                let ours = tally(std::slice::from_ref(row)).rows[0];
                assert_same(&ours, &case["by_row"][place]);
            }
        }
    }

    #[test]
    fn figures_of_splits_are_means() {
        for case in cases()["splits"].as_array().unwrap() {
            let tally = tally(&read::<Vec<Row>>(case, "rows"));
            assert_same(&tally.means(), &case["means"]);
            let (metrics, details) = (tally.metrics(), tally.details().unwrap());
            assert_eq!(metrics.len(), METRICS.len());
            for Metric { name, .. } in METRICS {
                assert_near(metrics[*name], &case["means"][name][2], 1e-9);
                assert_eq!(details[name]["f1"], metrics[*name]);
            }
        }
    }

    #[test]
    fn parts_merge_in_any_order_to_the_last_bit() {
        for case in cases()["splits"].as_array().unwrap() {
            let rows: Vec<Row> = read(case, "rows");
            let mut merged = SummaryTally::default();
            for part in rows.chunks(3).rev() {
                merged.merge(tally(part));
                merged.merge(SummaryTally::default());
            }
            assert_eq!(merged.means(), tally(&rows).means());
        }
    }

    #[test]
    fn figures_are_what_a_hand_works_out() {
        let empty = SummaryTally::default();
        assert!(empty.is_empty() && empty.metrics().values().all(|value| value.is_nan()));
        let scores = rouge("The cat sat.\nA dog!", "a dog\nthe CAT ran off");
        // Four of five words, which are four of six; two of four pairs, of five.
        assert_eq!(scores.rouge1.precision, 0.8);
        assert!((scores.rouge2.f1 - 2.0 * 2.0 / 9.0).abs() < 1e-12);
        // "the cat" or "a dog" over the whole text; both, line by line.
        assert_eq!(scores.rouge_l.recall, 2.0 / 6.0);
        assert_eq!(scores.rouge_l_sum.recall, 4.0 / 6.0);
        assert_eq!(rouge("", "a"), Rouge::default());
        assert_eq!(rouge("中文", "中文"), Rouge::default());
    }
}
