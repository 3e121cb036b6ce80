//! What predictions of a split are judged by, beyond the classes of a row. In: predictions and truths of batches, in host
//! memory. Out: named figures.
//!
//! [`detection`] (boxes; [`cells`] and [`nms`] are what they come from), [`masks`] (segmentation), [`many_labels`] (several labels a
//! row), [`values`] (regression and the likeness of pairs), [`calibration`] (probabilities of classes); of text [`entities`]
//! (tags of words), [`answers`] (to questions), [`translation`] and [`summaries`]; [`judged`] holds those that a task
//! has. Each type is a [`Tally`](crate::objective::Tally): it takes in batches, parts merge in any order, and only its figures divide
//! anything.

use std::cmp::Ordering;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

pub mod answers;
pub mod best_spans;
pub mod calibration;
pub mod cells;
pub mod detection;
pub mod entities;
pub mod judged;
pub mod many_labels;
pub mod masks;
pub mod nms;
pub mod summaries;
pub mod translation;
pub mod values;
mod words;

/// The order of scores from the highest to the lowest, with NaN after all others.
fn descending(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a)
        .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// How often something was predicted, was true, and was both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    hits: u64,
    predicted: u64,
    present: u64,
}

impl Counts {
    fn occurs(&self) -> bool {
        self.predicted + self.present > 0
    }

    fn precision(&self) -> f64 {
        ratio(self.hits, self.predicted)
    }

    fn recall(&self) -> f64 {
        ratio(self.hits, self.present)
    }

    fn f1(&self) -> f64 {
        ratio(2 * self.hits, self.predicted + self.present)
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            predicted: self.predicted + other.predicted,
            present: self.present + other.present,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Self::add)
    }
}

/// 0 where nothing is divided by nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The mean, or NaN where there is nothing.
fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    sum / f64::from(count)
}

/// The mean, the same to the last bit in whatever order the values come.
fn ordered_mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    mean(values)
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    use super::*;

    /// What a golden file holds.
    pub fn golden(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    pub fn read<T: DeserializeOwned>(case: &Value, key: &str) -> T {
        serde_json::from_value(case[key].clone()).unwrap()
    }

    /// The tolerance is of 1, or of what is compared with where that is more. JSON has no NaN: it is null there.
    pub fn assert_near(ours: f64, theirs: &Value, tolerance: f64) {
        let Some(theirs) = theirs.as_f64() else {
            assert!(ours.is_nan() && theirs.is_null(), "{ours}, not {theirs}");
            return;
        };
        let error = (ours - theirs).abs() / theirs.abs().max(1.0);
        assert!(error < tolerance, "{ours}, not {theirs}");
    }

    #[test]
    fn scores_that_are_not_numbers_come_last() {
        let mut scores = [0.5, f32::NAN, f32::NEG_INFINITY, 1.0, f32::NAN, 0.5];
        scores.sort_by(|&a, &b| descending(a, b));
        assert_eq!(scores[..4], [1.0, 0.5, 0.5, f32::NEG_INFINITY]);
        assert!(scores[4].is_nan() && scores[5].is_nan());
    }

    #[test]
    fn a_mean_of_nothing_is_not_a_number() {
        assert!(mean([]).is_nan());
        assert_eq!(mean([1.0, 4.0]), 2.5);
    }
}
