//! Cross-entropy over the vocabulary at chosen places: masked, next or other tokens. In: batches of tokens. Out: sums.

use burn::module::ParamId;
use burn::prelude::*;
use model::ops::linear_cross_entropy;
use model::{Cache, Seq2SeqModel, TokenModel};

use crate::job::seq2seq::PairBatch;
use crate::job::text::{NextTokenBatch, TokenBatch, indices};
use crate::job::{BundleWriter, Exported};
use crate::metrics::{Metric, Metrics, add_perplexity};
use crate::objective::{LossSums, Objective, SumTally};
use crate::objectives::carried::Carried;
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
    fn real(&self) -> usize {
        self.inputs.real()
    }

    fn padded(&self) -> usize {
        self.inputs.padded()
    }

    fn denominators(&self) -> Vec<f64> {
        vec![self.targets.len() as f64]
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
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl<B: Backend> Objective<B> for TokenPrediction<B> {
    type Batch = Predicted;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &["accuracy"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::lower("perplexity"),
        Metric::higher("accuracy"),
    ];

    fn loss(&self, batch: &Predicted, device: &B::Device) -> LossSums<B> {
        self.loss.sums(self.logits(batch, device), &batch.targets)
    }

    fn evaluate(&self, batch: &Predicted, device: &B::Device) -> SumTally {
        // Without smoothing: perplexity follows from it.
        let sums = class_loss::cross_entropy(self.logits(batch, device), &batch.targets);
        SumTally::read(sums, <Self as Objective<B>>::MEANS)
    }

    fn derive(metrics: &mut Metrics) {
        add_perplexity(metrics);
    }
}

/// A decoder with its loss: each token from those before it.
#[derive(Module, Debug)]
pub struct NextTokenPrediction<B: Backend> {
    /// The model.
    pub model: TokenModel<B>,
    /// What a recurrent model begins the next batch of streams with; absent where every batch begins anew.
    pub carried: Option<Carried<B>>,
    loss: ClassLoss,
}

impl<B: Backend> NextTokenPrediction<B> {
    /// A model that learns by this loss.
    pub fn new(model: TokenModel<B>, loss: ClassLoss) -> Self {
        Self {
            model,
            carried: None,
            loss,
        }
    }

    /// The same on streams, where there is something to carry.
    pub fn carrying(self, carried: Option<Carried<B>>) -> Self {
        Self { carried, ..self }
    }

    /// - cache: what the batch before left
    fn sums(
        &self,
        batch: &NextTokenBatch,
        loss: &ClassLoss,
        cache: Option<&mut Cache<B>>,
        device: &B::Device,
    ) -> LossSums<B> {
        let at = (batch.at.len() < batch.inputs.tokens.len()).then(|| indices(&batch.at, device));
        let input = batch.inputs.input(device);
        let decoder = self.model.decoder().filter(|_| loss.is_plain());
        let mut sums = if let Some((table, bias)) = decoder {
            // Every place is predicted: the scores of a large vocabulary are never all there at once.
            let states = self.model.states(&input, at, cache);
            let (losses, hits) = linear_cross_entropy(states, table, bias, &batch.targets);
            LossSums::new(losses.sum(), vec![hits.sum()], batch.targets.len())
        } else {
            loss.sums(self.model.logits(&input, at, cache), &batch.targets)
        };
        let bytes = Tensor::from_floats([batch.bytes as f32], device);
        sums.sums.push(bytes);
        sums
    }
}

impl<B: Backend> Exported<B> for NextTokenPrediction<B> {
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl<B: Backend> Objective<B> for NextTokenPrediction<B> {
    type Batch = NextTokenBatch;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &["accuracy", "bytes_per_token"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::lower("perplexity"),
        Metric::lower("bits_per_byte"),
        Metric::higher("accuracy"),
    ];

    fn loss(&self, batch: &NextTokenBatch, device: &B::Device) -> LossSums<B> {
        let Some(carried) = &self.carried else {
            return self.sums(batch, &self.loss, None, device);
        };
        let mut cache = carried.cache(batch.goes_on);
        let sums = self.sums(batch, &self.loss, Some(&mut cache), device);
        carried.follow(&cache);
        sums
    }

    fn evaluate(&self, batch: &NextTokenBatch, device: &B::Device) -> SumTally {
        self.evaluate_next(batch, device, &mut None)
    }

    fn evaluate_next(
        &self,
        batch: &NextTokenBatch,
        device: &B::Device,
        left: &mut Option<Cache<B>>,
    ) -> SumTally {
        if let Some(carried) = &self.carried {
            let before = left.take().filter(|_| batch.goes_on);
            *left = Some(before.unwrap_or_else(|| carried.cache(false)));
        }
        // Without smoothing: perplexity follows from it.
        let sums = self.sums(batch, &ClassLoss::default(), left.as_mut(), device);
        SumTally::read(sums, <Self as Objective<B>>::MEANS)
    }

    fn carried(&self) -> Option<ParamId> {
        self.carried.as_ref().map(|carried| carried.states.id)
    }

    fn emptied(&self) -> Option<Self> {
        let emptied = self.carried.as_ref()?.emptied();
        Some(self.clone().carrying(Some(emptied)))
    }

    fn derive(metrics: &mut Metrics) {
        let Some(loss) = metrics.get("loss").copied() else {
            return;
        };
        add_perplexity(metrics);
        // A token's bytes are for the conversion alone: they say nothing of the model.
        if let Some(bytes) = metrics.remove("bytes_per_token") {
            let bits = loss / std::f64::consts::LN_2 / bytes;
            metrics.insert("bits_per_byte".into(), bits);
        }
    }
}

/// The loss and the hits of an encoder-decoder over the tokens that it is to write, summed.
pub fn written<B: Backend>(
    model: &Seq2SeqModel<B>,
    batch: &PairBatch,
    loss: &ClassLoss,
    device: &B::Device,
) -> LossSums<B> {
    let at = (batch.at.len() < batch.decoder.tokens.len()).then(|| indices(&batch.at, device));
    let (input, read) = (batch.inputs.input(device), batch.decoder(device));
    if let Some((table, bias)) = model.decoder().filter(|_| loss.is_plain()) {
        // The scores of a large vocabulary are never all there at once.
        let states = model.states(&input, read, at);
        let (losses, hits) = linear_cross_entropy(states, table, bias, &batch.targets);
        return LossSums::new(losses.sum(), vec![hits.sum()], batch.targets.len());
    }
    loss.sums(model.logits(&input, read, at), &batch.targets)
}
