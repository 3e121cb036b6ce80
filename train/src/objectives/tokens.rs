//! Cross-entropy over the vocabulary at chosen places: masked, next or other tokens. In: batches of tokens. Out: sums.

use burn::prelude::*;
use model::TokenModel;

use crate::job::Exported;
use crate::job::text::{TokenBatch, indices};
use crate::metrics::Metrics;
use crate::objective::{LossSums, Objective, SumTally};
use crate::objectives::class_loss::{self, ClassLoss};
use crate::source::Counts;

/// Token sequences, and tokens to predict at places of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// What the model sees.
    pub inputs: TokenBatch,
    /// Places in the flattened `[batch * seq]`.
    pub at: Vec<i32>,
    /// The token that belongs to each.
    pub targets: Vec<u32>,
}

impl Counts for Predicted {
    fn units(&self) -> usize {
        self.inputs.units()
    }

    fn slots(&self) -> usize {
        self.inputs.slots()
    }
}

/// A language model with its loss.
#[derive(Module, Debug)]
pub struct TokenPrediction<B: Backend> {
    /// The model.
    pub model: TokenModel<B>,
    loss: ClassLoss,
}

impl<B: Backend> TokenPrediction<B> {
    /// A model that learns by this loss.
    pub fn new(model: TokenModel<B>, loss: ClassLoss) -> Self {
        Self { model, loss }
    }

    /// Scores of the vocabulary at the places to predict, `[n, vocab_size]`.
    fn logits(&self, batch: &Predicted, device: &B::Device) -> Tensor<B, 2> {
        let at = indices(&batch.at, device);
        self.model
            .logits(&batch.inputs.input(device), Some(at), None)
    }
}

impl<B: Backend> Exported<B> for TokenPrediction<B> {
    type Model = TokenModel<B>;

    fn model(&self) -> &TokenModel<B> {
        &self.model
    }
}

impl<B: Backend> Objective<B> for TokenPrediction<B> {
    type Batch = Predicted;
    type Tally = SumTally;
    const SUMS: &'static [&'static str] = &["accuracy"];
    const VALID_METRICS: &'static [&'static str] = &["loss", "perplexity", "accuracy"];

    fn loss(&self, batch: &Predicted, device: &B::Device) -> LossSums<B> {
        self.loss.sums(self.logits(batch, device), &batch.targets)
    }

    fn evaluate(&self, batch: &Predicted, device: &B::Device) -> SumTally {
        // Without smoothing: perplexity follows from it.
        let sums = class_loss::cross_entropy(self.logits(batch, device), &batch.targets);
        SumTally::read(sums, <Self as Objective<B>>::SUMS)
    }

    fn derive(metrics: &mut Metrics) {
        if let Some(loss) = metrics.get("loss").copied() {
            metrics.insert("perplexity".into(), loss.exp());
        }
    }
}
