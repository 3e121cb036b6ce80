//! How a model of texts reads them. In: a bundle. Out: its tokenizer with what turns tokens into batches for the model.

use burn::prelude::*;
use data::TextTokenizer;
use model::families::Place;
use model::{Bundle, TextConfig, TokenInput};
use train::Failure;
use train::job::text::{TokenBatch, indices};

use crate::open::{self, TextParts};

/// What a task on texts has beside its model.
pub(crate) struct Reader<B: Backend> {
    pub(crate) tokenizer: TextTokenizer,
    /// Tokens of the longest text.
    pub(crate) max_length: usize,
    /// Whose state stands for a whole text.
    pub(crate) place: Place,
    /// Whether the model is told which text of a pair a token is of.
    types: bool,
    pub(crate) device: B::Device,
}

impl<B: Backend> Reader<B> {
    /// That of a bundle, and the sizes of the model.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose tokenizer has more tokens than its model.
    pub(crate) fn open(bundle: &Bundle, device: &B::Device) -> Result<(Self, TextConfig), Failure> {
        let TextParts {
            config,
            tokenizer,
            max_length,
        } = open::text_parts(bundle)?;
        let reader = Self {
            tokenizer,
            max_length,
            place: config.class_plan().place,
            types: config.describe().segments > 1,
            device: device.clone(),
        };
        Ok((reader, config))
    }

    /// A batch of rows of one or two texts, with a type a token.
    pub(crate) fn batch<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u32], &'a [u32])> + Clone,
    ) -> TokenBatch {
        TokenBatch::of_pairs(rows, self.tokenizer.pad(), self.types)
    }

    /// A batch as the model takes it.
    pub(crate) fn input(&self, batch: &TokenBatch) -> TokenInput<B> {
        batch.input(&self.device)
    }

    /// Places of the states that stand for whole texts, in the flattened `[batch * seq]`.
    pub(crate) fn places(&self, batch: &TokenBatch) -> Tensor<B, 1, Int> {
        indices(&batch.places(self.place), &self.device)
    }
}
