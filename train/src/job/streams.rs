//! Texts as streams, which a recurrent model reads without forgetting between batches. In: `[states]` of a recipe, tokenized
//! texts. Out: batches whose rows go on where those of the batch before ended, and the states to begin with.

use burn::prelude::*;
use data::Streams;
use model::TextConfig;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::job::text::{NextTokenBatch, NextTokens, TextData, too_few};
use crate::job::{Recipe, Shared, Splits, Start};
use crate::objectives::carried::Carried;
use crate::recipe::Impossible;
use crate::source::{BatchSource, Unit};

/// `[states]` of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatesRecipe {
    /// Whether they go on from batch to batch.
    pub carry: bool,
}

impl StatesRecipe {
    /// Says what is impossible about batches that go on, if anything is.
    pub fn check(self, recipe: &Recipe) -> Result<(), Impossible> {
        if !self.carry {
            return Ok(());
        }
        if !recipe.training.packing {
            let reason =
                "is true and training.packing is false; states go on in texts that are joined";
            return Err(Impossible::new("states.carry", reason));
        }
        let accumulation = recipe.training.accumulation;
        if accumulation > 1 {
            let reason = format!(
                "is {accumulation} and states.carry is true; a step reads each stream once: set it to 1, and \
                 training.batch_size to as many streams as there are to be"
            );
            return Err(Impossible::new("training.accumulation", reason));
        }
        Ok(())
    }

    /// Refuses a model that has no states, before any text is read.
    ///
    /// # Errors
    ///
    /// Such a model, or one of images.
    pub fn check_start(self, start: &Start) -> Result<(), Failure> {
        let config = start.text_sizes()?;
        if !self.carry || config.states().is_some() {
            return Ok(());
        }
        let family = config.family().model_type;
        let reason = format!(
            "is true, and a model of type \"{family}\" has no states; hearth_lstm and hearth_gru have"
        );
        Err(Impossible::new("states.carry", reason).into())
    }

    /// What the first batch begins with, where states are carried.
    pub fn first<B: Backend>(
        self,
        config: &TextConfig,
        start: &Start,
        device: &B::Device,
    ) -> Option<Carried<B>> {
        let [layers, width] = config.states().filter(|_| self.carry)?;
        let rows = start.settings().training.batch_size;
        Some(Carried::new([layers, rows, width], device))
    }
}

impl<M> TextData<M> {
    /// `training.batch_size` streams of the training texts, which are in a new order every epoch, and as many of the validation
    /// texts, which are always the same, none of them left out.
    ///
    /// # Errors
    ///
    /// Texts that do not fill a sequence of each stream.
    pub fn streams(self, recipe: &Recipe) -> Result<Splits<NextTokenBatch>, Impossible> {
        let digest = self.digest();
        let Self {
            tokenizer,
            max_length,
            train,
            valid,
            ..
        } = self;
        let (rows, end) = (recipe.training.batch_size, tokenizer.separator());
        let train = Streams::shuffled(train, max_length, end, rows, recipe.seed);
        if train.batches() == 0 {
            return Err(too_few(rows, train.sequences(), max_length));
        }
        let batches = |streams| {
            let next = NextTokens::new(&tokenizer, max_length);
            Shared::new(StreamBatches { streams, next })
        };
        Ok(Splits {
            train: batches(train),
            valid: batches(Streams::in_order(valid, max_length, end, rows)),
            test: None,
            digest,
            unit: Unit::Tokens,
        })
    }
}

/// Batches of streams.
struct StreamBatches {
    streams: Streams,
    next: NextTokens,
}

impl BatchSource for StreamBatches {
    type Batch = NextTokenBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.streams.batches()
    }

    fn batch(&self, number: u64) -> NextTokenBatch {
        let batches = self.streams.batches();
        let (epoch, at) = (number / batches, number % batches);
        self.next.batch(&self.streams.batch(epoch, at), at > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::{TextTokenizer, TokenRows};

    #[test]
    fn rows_go_on_but_for_the_first_batch_of_an_epoch() {
        let tokenizer = TextTokenizer::train_bpe(&["a small bird", "a bird"], 280).unwrap();
        let texts: Vec<Vec<u32>> = (0..20u32).map(|n| vec![n, n + 1, n + 2]).collect();
        let end = tokenizer.separator();
        let source = StreamBatches {
            streams: Streams::shuffled(TokenRows::from_rows(&texts), 8, end, 2, 3),
            next: NextTokens::new(&tokenizer, 8),
        };
        // 80 tokens: 9 sequences of 8, of which each stream has 4.
        assert_eq!(source.batches_per_epoch(), 4);
        let mut before: Option<NextTokenBatch> = None;
        for number in 0..8 {
            let batch = source.batch(number);
            assert_eq!(batch.goes_on, number % 4 > 0, "{number}");
            assert_eq!(
                (batch.inputs.seq, batch.targets.len(), batch.at.len()),
                (8, 16, 16)
            );
            assert_eq!(batch.inputs.texts, None, "states flow on between texts");
            if let Some(before) = before.filter(|_| batch.goes_on) {
                for row in [0, 8] {
                    let last = before.targets[row + 7] as i32;
                    assert_eq!(batch.inputs.tokens[row], last, "{number}");
                }
            }
            before = Some(batch);
        }
    }
}
