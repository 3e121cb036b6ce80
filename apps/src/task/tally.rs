//! What a task is judged by. In: batches. Out: figures with `finetune`'s names, and what else there is to say.

use serde_json::Value;
use train::metrics::{Metrics, add_perplexity};
use train::objective::Tally;
use train::scores::answers::AnswerTally;
use train::scores::judged::Judged;
use train::scores::summaries::SummaryTally;
use train::scores::translation::TranslationTally;

/// What a target costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cost {
    /// The square of an error, in units of this deviation.
    Square(f64),
    /// An error, in units of this deviation.
    Absolute(f64),
    /// The cross-entropy of a mask, and so many times its Dice loss.
    Mask(f64),
}

/// Of these the ones that the task has.
#[derive(Clone, Debug, Default)]
pub struct TaskTally {
    /// Of classes and tags, with the loss over them; of labels, values, masks and boxes.
    pub judged: Judged,
    /// Of questions.
    pub answers: Option<AnswerTally>,
    /// Of translations.
    pub translations: Option<TranslationTally>,
    /// Of summaries.
    pub summaries: Option<SummaryTally>,
    /// Sum of the loss, and how many targets it is over.
    pub(super) loss: Option<[f64; 2]>,
    /// Right ones, and how many there are: of choices, and of the words of texts.
    pub(super) right: Option<[f64; 2]>,
    /// Whether targets are tokens, so that perplexity follows from the loss.
    pub(super) is_of_tokens: bool,
    /// What the run of the model counts as its loss, where that depends on its recipe.
    pub(super) cost: Option<Cost>,
    /// Images that were judged.
    pub(super) images: u32,
}

fn add(ours: &mut Option<[f64; 2]>, [sum, targets]: [f64; 2]) {
    let [all, of] = ours.unwrap_or_default();
    *ours = Some([all + sum, of + targets]);
}

impl TaskTally {
    /// One that begins with what `finetune` has too.
    pub fn of(judged: impl Into<Judged>) -> Self {
        Self {
            judged: judged.into(),
            ..Self::default()
        }
    }

    /// A loss, summed over targets.
    pub fn add_loss(&mut self, sum: f64, targets: f64) {
        add(&mut self.loss, [sum, targets]);
    }

    /// How many of some targets are right.
    pub fn add_right(&mut self, right: f64, targets: f64) {
        add(&mut self.right, [right, targets]);
    }

    /// A loss and how many are right, summed over tokens.
    pub fn add_tokens(&mut self, sum: f64, right: f64, targets: f64) {
        self.add_loss(sum, targets);
        self.add_right(right, targets);
        self.is_of_tokens = true;
    }

    /// The number of the next image.
    pub fn next_image(&mut self) -> u32 {
        self.images += 1;
        self.images - 1
    }

    /// Figures over everything taken in, with the names that `finetune` has for them.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = self.judged.metrics();
        let mut of_texts: Metrics = self.answers.iter().flat_map(Tally::metrics).collect();
        of_texts.extend(self.translations.iter().flat_map(Tally::metrics));
        of_texts.extend(self.summaries.iter().flat_map(Tally::metrics));
        // Where each question has an answer, there are none of those without.
        of_texts.retain(|_, figure| !figure.is_nan());
        metrics.extend(of_texts);
        if let Some([sum, targets]) = self.loss {
            metrics.insert("loss".into(), sum / targets);
            if self.is_of_tokens {
                add_perplexity(&mut metrics);
            }
        }
        if let Some([right, targets]) = self.right {
            metrics.insert("accuracy".into(), right / targets);
        }
        metrics
    }

    /// A confusion matrix, figures by class.
    pub fn details(&self) -> Option<Value> {
        let of_answers = || self.answers.as_ref().and_then(Tally::details);
        let of_translations = || self.translations.as_ref().and_then(Tally::details);
        let judged = self.judged.details();
        judged.or_else(of_answers).or_else(of_translations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_hits_are_means_over_their_targets() {
        let mut tally = TaskTally::default();
        assert!(tally.metrics().is_empty() && tally.details().is_none());
        tally.add_tokens(2.0, 1.0, 3.0);
        tally.add_tokens(1.0, 2.0, 3.0);
        let metrics = tally.metrics();
        assert_eq!([metrics["loss"], metrics["accuracy"]], [0.5, 0.5]);
        assert_eq!(metrics["perplexity"], 0.5f64.exp());
    }
}
