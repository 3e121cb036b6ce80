//! Why a classifier said what it said of one row. In: attributions. Out: records, and the sums that they must have.

use data::Picture;
use serde_json::{Value, json};

use super::Method;

/// How far attributions sum to what they explain: Sundararajan et al. 2017, proposition 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Completeness {
    /// Of all attributions.
    pub sum: f64,
    /// The class's score at the input.
    pub at_input: f64,
    /// The same at the baseline.
    pub at_baseline: f64,
}

impl Completeness {
    /// What attributions should sum to.
    pub fn wanted(&self) -> f64 {
        self.at_input - self.at_baseline
    }

    /// How far their sum is from it, as a share of it; as it is where that is 0.
    pub fn relative_error(&self) -> f64 {
        let off = (self.sum - self.wanted()).abs();
        if self.wanted() == 0.0 {
            off
        } else {
            off / self.wanted().abs()
        }
    }
}

/// A token, and its share in the score.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// As the vocabulary spells it: `##ing`.
    pub token: String,
    /// What it is of its text; empty of a special token.
    pub text: String,
    /// Which text of the row, from 0; nothing of a special token.
    pub part: Option<u8>,
    /// Which word of its text, from 0.
    pub word: Option<u32>,
    /// Bytes of its text, from and to.
    pub span: [u32; 2],
    /// Above 0 where it speaks for the class, below 0 where it speaks against it.
    pub attribution: f32,
}

/// What is explained.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// Tokens of a text or a pair.
    Texts(Vec<Token>),
    /// The image that the model sees, and an attribution a pixel, row after row.
    Image(Picture, Vec<f32>),
}

/// Why a classifier said what it said of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Where the row comes from; nothing of a single text or image.
    pub place: Option<String>,
    /// The class that is explained.
    pub class: String,
    /// Its probability.
    pub probability: f32,
    /// Its logit.
    pub score: f32,
    /// How it is explained.
    pub method: Method,
    /// Points between baseline and input, where the method has any.
    pub steps: Option<usize>,
    /// Where the method promises it.
    pub completeness: Option<Completeness>,
    /// The attributions.
    pub subject: Subject,
}

impl Explanation {
    /// As an object of JSON.
    pub fn json(&self) -> Value {
        let mut object = json!({
            "place": self.place, "class": self.class, "probability": self.probability, "score": self.score,
            "method": self.method.name(), "steps": self.steps,
        });
        if let Some(completeness) = &self.completeness {
            object["score_at_baseline"] = json!(completeness.at_baseline);
            object["sum"] = json!(completeness.sum);
            object["relative_error"] = json!(completeness.relative_error());
        }
        match &self.subject {
            Subject::Texts(tokens) => {
                object["tokens"] = tokens.iter().map(token_json).collect();
            }
            Subject::Image(picture, values) => {
                object["height"] = json!(picture.height);
                object["width"] = json!(picture.width);
                let rows = values.chunks(picture.width.max(1));
                object["attributions"] = rows.map(|row| json!(row)).collect();
            }
        }
        object
    }

    /// What was done, in words: `integrated gradients, 50 steps`.
    pub fn how(&self) -> String {
        let name = self.method.in_words();
        match self.steps {
            Some(steps) => format!("{name}, {steps} steps"),
            None => name.into(),
        }
    }

    /// The sum of the attributions, and what it should be.
    pub fn check(&self) -> Option<String> {
        let completeness = self.completeness.as_ref()?;
        let Completeness {
            sum,
            at_input,
            at_baseline,
        } = completeness;
        Some(format!(
            "completeness: the attributions sum to {sum:.4}; the score is {at_input:.4} here and {at_baseline:.4} at the baseline, \
             {:.4} less; relative error {:.1e}",
            completeness.wanted(),
            completeness.relative_error()
        ))
    }
}

fn token_json(token: &Token) -> Value {
    json!({
        "token": token.token, "text": token.text, "part": token.part, "start": token.span[0], "end": token.span[1],
        "attribution": token.attribution,
    })
}

/// The sum, in f64; of nothing but zeros it has no sign.
pub(super) fn total(values: &[f32]) -> f64 {
    values
        .iter()
        .fold(0.0, |sum, &value| sum + f64::from(value))
}

/// The largest distance from 0; at least the smallest number that can be divided by.
pub(super) fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.map(f32::abs).fold(f32::MIN_POSITIVE, f32::max)
}

/// With its sign, but for 0.
pub(super) fn signed(value: f32) -> String {
    if value == 0.0 {
        "0.0000".into()
    } else {
        format!("{value:+.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_a_share_of_what_the_sum_should_be() {
        let completeness = Completeness {
            sum: 1.5,
            at_input: 3.0,
            at_baseline: 1.0,
        };
        assert_eq!(completeness.wanted(), 2.0);
        assert_eq!(completeness.relative_error(), 0.25);
        let constant = Completeness {
            sum: 0.0,
            at_input: 1.0,
            at_baseline: 1.0,
        };
        assert_eq!(constant.relative_error(), 0.0);
    }

    #[test]
    fn numbers_have_their_sign() {
        assert_eq!(
            [0.5, -0.25, 0.0].map(signed),
            ["+0.5000", "-0.2500", "0.0000"]
        );
    }
}
