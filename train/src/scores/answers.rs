//! What answers to questions are judged by. In: predicted text, and the texts that count as right. Out: figures of a split.
//!
//! Definitions are those of the evaluation of SQuAD 2.0, Rajpurkar et al. 2018, <https://arxiv.org/abs/1806.03822>. For SQuAD
//! 1.1 they give the same figures, but where nothing is left of a text once articles and punctuation are gone. Figures are
//! shares of 1; that evaluation prints percentages.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Value, json};

use super::ordered_mean;
use super::words::{runs, shared, split};
use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;

/// Names of what an [`AnswerTally`] reports. Where every question has an answer, the first two say all.
pub const METRICS: &[Metric] = &[
    Metric::higher("exact_match"),
    Metric::higher("f1"),
    Metric::higher("has_answer_exact_match"),
    Metric::higher("has_answer_f1"),
    Metric::higher("no_answer_exact_match"),
    Metric::higher("no_answer_f1"),
    Metric::higher("best_exact_match"),
    Metric::higher("best_f1"),
];

/// A text without what does not matter: in lower case, without ASCII punctuation, then without the words a, an and the, with
/// one space between words.
pub fn normalised(text: &str) -> String {
    // A word of Python's regular expressions: unlike Rust's, it does not hold combining marks, but numbers of any kind.
    static WORD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]+").expect("a constant that compiles"));
    let lower: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    let without_articles = WORD.replace_all(&lower, |word: &Captures| match &word[0] {
        "a" | "an" | "the" => " ".to_string(),
        word => word.to_string(),
    });
    split(&without_articles).collect::<Vec<_>>().join(" ")
}

/// Whether two texts are the same once normalised.
pub fn exact_match(prediction: &str, truth: &str) -> bool {
    normalised(prediction) == normalised(truth)
}

/// F1 of the words of two normalised texts, as bags. Of two texts without words 1, if only one has some 0.
pub fn f1(prediction: &str, truth: &str) -> f64 {
    let [prediction, truth] = [prediction, truth].map(normalised);
    let [prediction, truth] = [&prediction, &truth].map(|text| split(text).collect::<Vec<_>>());
    if prediction.is_empty() || truth.is_empty() {
        return f64::from(prediction.len() == truth.len());
    }
    let hits = shared(&runs(&prediction, 1), &runs(&truth, 1));
    if hits == 0 {
        return 0.0;
    }
    let precision = hits as f64 / prediction.len() as f64;
    let recall = hits as f64 / truth.len() as f64;
    2.0 * precision * recall / (precision + recall)
}

/// The answers of a split.
///
/// Memory: 32 bytes for each question, as the best threshold needs all of them.
#[derive(Clone, Debug)]
pub struct AnswerTally {
    threshold: f64,
    questions: Vec<Judged>,
}

/// What an answer is worth, by exact match and by F1.
type Worth = [f64; 2];

/// A question with its prediction.
#[derive(Clone, Copy, Debug)]
struct Judged {
    /// Of the predicted text.
    worth: Worth,
    /// Whether some text counts as right.
    has_answer: bool,
    /// Whether the predicted text is not the empty one.
    is_answered: bool,
    no_answer_score: f64,
}

/// A threshold, and what a split is worth with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// The mean over the questions.
    pub value: f64,
    /// Of the no-answer score: questions with a higher one are left without an answer. `None` where it is best to answer
    /// none at all.
    pub threshold: Option<f64>,
}

impl AnswerTally {
    /// Of a split without questions.
    ///
    /// - threshold: of the no-answer score; with a higher one a question is left without an answer
    pub fn new(threshold: f64) -> Self {
        Self {
            threshold,
            questions: Vec::new(),
        }
    }

    /// Takes in a question.
    ///
    /// - prediction: empty where the model gives no answer
    /// - no_answer_score: how sure the model is that there is none, on any scale; 0 of a model that always answers
    /// - truths: the texts that count as right, of which the best counts; none where the question has no answer
    pub fn add<T: AsRef<str>>(&mut self, prediction: &str, no_answer_score: f64, truths: &[T]) {
        let with_words = |truth: &&T| !normalised(truth.as_ref()).is_empty();
        let mut truths_with_words: Vec<&str> = truths
            .iter()
            .filter(with_words)
            .map(AsRef::as_ref)
            .collect();
        if truths_with_words.is_empty() {
            truths_with_words.push("");
        }
        let mut worth = [0.0; 2];
        for truth in truths_with_words {
            let exact_match = f64::from(exact_match(prediction, truth));
            for (best, worth) in worth.iter_mut().zip([exact_match, f1(prediction, truth)]) {
                *best = worth.max(*best);
            }
        }
        self.questions.push(Judged {
            worth,
            has_answer: !truths.is_empty(),
            is_answered: !prediction.is_empty(),
            no_answer_score,
        });
    }

    /// The threshold that would give the highest mean of exact match.
    pub fn best_exact_match(&self) -> Best {
        self.best(0)
    }

    /// The threshold that would give the highest mean of F1.
    pub fn best_f1(&self) -> Best {
        self.best(1)
    }

    /// Goes through thresholds from below all scores, where no question is answered and those without an answer are right, to
    /// the highest, where all are. The lowest of the best ones is taken.
    ///
    /// As in the reference, a text that is not empty is wrong for a question without an answer even if it has no words. Unlike
    /// there, questions with the same score are answered at once, as no threshold parts them: with the same scores, figures
    /// here do not depend on the order of the questions.
    fn best(&self, figure: usize) -> Best {
        let gain = |question: &Judged| match question {
            question if question.has_answer => question.worth[figure],
            question => -f64::from(question.is_answered),
        };
        let mut gains: Vec<[f64; 2]> = self
            .questions
            .iter()
            .map(|question| [question.no_answer_score, gain(question)])
            .collect();
        gains.sort_unstable_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
        let without_answer = self
            .questions
            .iter()
            .filter(|question| !question.has_answer);
        let mut sum = without_answer.count() as f64;
        let (mut highest, mut threshold) = (sum, None);
        for equal in gains.chunk_by(|a, b| a[0] == b[0]) {
            for [_, gain] in equal {
                sum += gain;
            }
            if sum > highest {
                (highest, threshold) = (sum, Some(equal[0][0]));
            }
        }
        let value = highest / self.questions.len() as f64;
        Best { value, threshold }
    }

    /// The mean over the questions of a kind, at the threshold.
    fn mean(&self, figure: usize, is_meant: impl Fn(&Judged) -> bool) -> f64 {
        let meant = self.questions.iter().filter(|question| is_meant(question));
        ordered_mean(meant.map(|question| question.worth_at(self.threshold)[figure]))
    }
}

impl Judged {
    fn worth_at(&self, threshold: f64) -> Worth {
        if self.no_answer_score > threshold {
            [f64::from(!self.has_answer); 2]
        } else {
            self.worth
        }
    }
}

impl Default for AnswerTally {
    /// With a threshold of 1, so that no probability leaves a question without an answer; merged into, it takes on the other
    /// one's.
    fn default() -> Self {
        Self::new(1.0)
    }
}

impl Tally for AnswerTally {
    fn merge(&mut self, other: Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other;
            return;
        }
        self.questions.extend(other.questions);
    }

    /// - `exact_match`, `f1`: means over all questions
    /// - `has_answer_exact_match`, `has_answer_f1`: over those with an answer
    /// - `no_answer_exact_match`, `no_answer_f1`: over those without one, where both are the share that got none
    /// - `best_exact_match`, `best_f1`: over all, with the threshold that is best for each
    ///
    /// NaN where there are no such questions.
    fn metrics(&self) -> Metrics {
        let figures = [
            ("exact_match", self.mean(0, |_| true)),
            ("f1", self.mean(1, |_| true)),
            (
                "has_answer_exact_match",
                self.mean(0, |question| question.has_answer),
            ),
            (
                "has_answer_f1",
                self.mean(1, |question| question.has_answer),
            ),
            (
                "no_answer_exact_match",
                self.mean(0, |question| !question.has_answer),
            ),
            (
                "no_answer_f1",
                self.mean(1, |question| !question.has_answer),
            ),
            ("best_exact_match", self.best_exact_match().value),
            ("best_f1", self.best_f1().value),
        ];
        figures
            .map(|(name, value)| (name.to_string(), value))
            .into()
    }

    /// How many questions there are, and the best thresholds, `null` where it is best to answer none.
    fn details(&self) -> Option<Value> {
        let with_answer = self.questions.iter().filter(|question| question.has_answer);
        let with_answer = with_answer.count();
        Some(json!({
            "has_answer": with_answer,
            "no_answer": self.questions.len() - with_answer,
            "best_exact_match_threshold": self.best_exact_match().threshold,
            "best_f1_threshold": self.best_f1().threshold,
        }))
    }

    fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, golden, read};
    use super::*;

    fn cases() -> Value {
        golden(include_str!("../../../tests/golden/scores/answers.json"))
    }

    /// Prediction, no-answer score, truths.
    type Question = (String, f64, Vec<String>);

    fn tally(threshold: f64, questions: &[Question]) -> AnswerTally {
        let mut tally = AnswerTally::new(threshold);
        for (prediction, score, truths) in questions {
            tally.add(prediction, *score, truths);
        }
        tally
    }

    #[test]
    fn texts_are_normalised_as_python_does() {
        for [text, theirs] in read::<Vec<[String; 2]>>(&cases(), "normalised") {
            assert_eq!(normalised(&text), theirs, "{text:?}");
        }
    }

    #[test]
    fn pairs_of_texts_have_the_scores_of_the_definition() {
        let pairs: Vec<(String, String, u8, f64)> = read(&cases(), "pairs");
        for (prediction, truth, exact, theirs) in pairs {
            assert_eq!(u8::from(exact_match(&prediction, &truth)), exact);
            assert_near(f1(&prediction, &truth), &json!(theirs), 1e-9);
        }
    }

    #[test]
    fn figures_are_those_of_the_definition() {
        for case in cases()["splits"].as_array().unwrap() {
            let questions: Vec<Question> = read(case, "questions");
            let tally = tally(read(case, "threshold"), &questions);
            let metrics = tally.metrics();
            assert_eq!(metrics.len(), METRICS.len());
            for (name, ours) in metrics {
                assert_near(ours, &case["figures"][name], 1e-9);
            }
            assert_eq!(
                tally.details().unwrap()["best_exact_match_threshold"],
                case["best_exact_match_threshold"]
            );
            assert_eq!(
                tally.details().unwrap()["best_f1_threshold"],
                case["best_f1_threshold"]
            );
        }
    }

    #[test]
    fn parts_merge_in_any_order_to_the_last_bit() {
        for case in cases()["splits"].as_array().unwrap() {
            let questions: Vec<Question> = read(case, "questions");
            let threshold = read(case, "threshold");
            let mut merged = AnswerTally::default();
            for part in questions.chunks(5).rev() {
                merged.merge(tally(threshold, part));
                merged.merge(AnswerTally::default());
            }
            let text = |tally: AnswerTally| format!("{:?}{:?}", tally.metrics(), tally.details());
            assert_eq!(text(merged), text(tally(threshold, &questions)));
        }
    }

    #[test]
    fn figures_are_what_a_hand_works_out() {
        let mut tally = AnswerTally::new(0.5);
        assert!(tally.is_empty() && tally.metrics().values().all(|value| value.is_nan()));
        // Two of three words of the better answer, and nothing else.
        tally.add("The big red dog", 0.1, &["a cat", "red dog"]);
        let metrics = tally.metrics();
        assert_eq!([metrics["exact_match"], metrics["f1"]], [0.0, 0.8]);
        assert!(metrics["no_answer_f1"].is_nan());
        // Rightly left without an answer, and wrongly.
        tally.add("Paris", 0.6, &[] as &[&str]);
        tally.add("Paris", 0.7, &["Paris!"]);
        let metrics = tally.metrics();
        assert_eq!(metrics["exact_match"], 1.0 / 3.0);
        assert_eq!(metrics["has_answer_f1"], 0.4);
        assert_eq!(metrics["no_answer_f1"], 1.0);
        // By exact match, answering the last one costs the second and gains nothing.
        assert_eq!(tally.best_exact_match().threshold, None);
        let best = tally.best_f1();
        assert_eq!(best.threshold, Some(0.1));
        assert!((best.value - 0.6).abs() < 1e-12);
    }
}
