//! What a classifier is to the tasks that read its scores: texts and images alike.

use data::CutTexts;
use train::Failure;

use super::{Reads, Row, image_scores::Seen};

/// Scores of rows.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    /// Logits of the classes of each row, in the order of the rows.
    pub rows: Vec<Vec<f32>>,
    /// What is cut of texts.
    pub cut: CutTexts,
}

/// A loaded classifier, whatever its backend.
pub trait Scorer: Send {
    /// Texts or images.
    fn reads(&self) -> Reads;

    /// How it sees images, if it does.
    fn view(&self) -> Option<Seen> {
        None
    }

    /// Tokens of the longest text, if it reads texts.
    fn max_length(&self) -> Option<usize> {
        None
    }

    /// The logits of each row.
    ///
    /// # Errors
    ///
    /// A row of another kind, or the tokenizer fails.
    fn scores(&self, rows: &[Row], batch_size: usize) -> Result<Scored, Failure>;
}

/// Probability of a logit by itself.
pub(crate) fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Probabilities of logits among each other.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f32 = shares.iter().sum();
    shares.into_iter().map(|share| share / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_become_probabilities() {
        let ln3 = 3f32.ln();
        let shares = softmax(&[ln3, 0.0]);
        assert!((shares[0] - 0.75).abs() < 1e-6 && (shares[1] - 0.25).abs() < 1e-6);
        assert!((sigmoid(ln3) - 0.75).abs() < 1e-6);
        assert_eq!(softmax(&[1e9, 1e9]), [0.5, 0.5]);
    }
}
