//! Sentence embeddings: texts that mean the same come near each other. In: pairs of such texts. Out: an encoder whose mean state is
//! a text's vector.
//!
//! Each text has to find its pair among all second texts of the batch (Henderson et al. 2017, <https://arxiv.org/abs/1705.00652>).
//! With one column for both texts, a text has to find itself under other dropout: SimCSE, Gao et al. 2021,
//! <https://arxiv.org/abs/2104.08821>.

use std::cmp::Ordering;

use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::backend::AutodiffBackend;
use data::ItemKind;
use model::bundle::Load;
use model::heads::sequence::{mean_states, normalized};
use model::registry::TextBackbone;
use model::{Draw, HeadKind};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::items::{ItemBatch, ItemData, Items};
use train::metrics::{Metric, Metrics};
use train::objective::{LossSums, Tally};
use train::objectives::class_loss::ClassLoss;
use train::recipe::Impossible;

use crate::on_texts::{ItemLoss, OnTexts, TextObjective, TextTally, TextTask};
use crate::pair_classification::check_second;

/// The task; `assets/recipes/sentence-embeddings.toml` and the files that it names explain every key.
pub type SentenceEmbeddings = OnTexts<EmbeddingsTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EmbeddingsTask {
    /// How texts are compared.
    pub loss: ContrastRecipe,
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContrastRecipe {
    /// What cosines are divided by before the softmax.
    pub temperature: f64,
}

impl TextTask for EmbeddingsTask {
    const NAME: &'static str = "sentence-embeddings";
    const ABOUT: &'static str = "vectors of texts: pairs of like meaning come near each other";
    const RECIPE: &'static str = include_str!("../../assets/recipes/sentence-embeddings.toml");
    const HEAD: HeadKind = HeadKind::Bare;
    const KIND: ItemKind = ItemKind::Pair;
    const UNIT: &'static str = "pairs";
    const NEEDS: &'static str = "a table with two columns of texts that mean the same";

    fn check(&self, data: &Items) -> Result<(), Impossible> {
        check_second(data, "the second text")?;
        let temperature = self.loss.temperature;
        if temperature.is_finite() && temperature > 0.0 {
            return Ok(());
        }
        let reason = format!("is {temperature}; it must be above 0");
        Err(Impossible::new("loss.temperature", reason))
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure> {
        let (config, names) = (&data.config, data.config.names(Self::HEAD));
        let draw: Draw<'_, B> = start.draw(device, names);
        let encoder = config.init(Self::HEAD, &draw);
        let encoder = start.fill(encoder, names, Load::Whole)?;
        let temperature = self.loss.temperature;
        Ok(Embeddings {
            encoder,
            temperature,
        }
        .into())
    }
}

/// An encoder with the cross-entropy of each text's own pair among those of the batch.
#[derive(Module, Debug)]
pub struct Embeddings<B: Backend> {
    /// The model.
    pub encoder: TextBackbone<B>,
    temperature: f64,
}

impl<B: Backend> Embeddings<B> {
    /// Vectors of length one of the first texts, and of the second ones, `[pairs, d_model]` each.
    fn vectors(&self, batch: &ItemBatch, device: &B::Device) -> [Tensor<B, 2>; 2] {
        let input = batch.inputs.input(device);
        let vectors = normalized(mean_states(&self.encoder, &input).cast(FloatDType::F32));
        let [texts, width] = vectors.dims();
        let pairs = vectors.reshape([texts / 2, 2, width]);
        [0, 1].map(|side| {
            let side = pairs
                .clone()
                .slice([0..texts / 2, side..side + 1, 0..width]);
            side.reshape([texts / 2, width])
        })
    }

    fn sums(&self, [first, second]: [Tensor<B, 2>; 2]) -> LossSums<B> {
        let [pairs, _] = first.dims();
        let own: Vec<u32> = (0..pairs as u32).collect();
        let cosines = first.matmul(second.transpose()) / self.temperature;
        ClassLoss::default().sums(cosines, &own)
    }
}

const METRICS: &[Metric] = &[
    Metric::LOSS,
    Metric::higher("recall_1"),
    Metric::higher("recall_10"),
    Metric::higher("mrr"),
];

impl<B: Backend> ItemLoss<B> for Embeddings<B> {
    type Model = TextBackbone<B>;

    fn model(&self) -> Self::Model {
        self.encoder.clone()
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn whole_batch(&self) -> bool {
        true
    }

    fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B> {
        self.sums(self.vectors(batch, device))
    }

    fn tally(&self, batch: &ItemBatch, device: &B::Device) -> TextTally {
        let vectors = self.vectors(batch, device);
        let mut tally = TextTally::read(self.sums(vectors.clone()), &[]);
        let [_, width] = vectors[0].dims();
        let [first, second] =
            vectors.map(|side| side.into_data().iter::<f32>().collect::<Vec<_>>());
        tally.pairs = Some(PairTally {
            width,
            first,
            second,
        });
        tally
    }
}

/// How well texts find their pairs in a whole split.
///
/// - `recall_1`, `recall_10`: the share of first texts whose own second text is the nearest, or among the ten nearest, of all
/// - `mrr`: the mean of one over its rank
#[derive(Clone, Debug, Default)]
pub struct PairTally {
    width: usize,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Tally for PairTally {
    fn merge(&mut self, other: Self) {
        self.width = self.width.max(other.width);
        self.first.extend(other.first);
        self.second.extend(other.second);
    }

    fn metrics(&self) -> Metrics {
        let width = self.width.max(1);
        let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let rank = |(own, first): (usize, &[f32])| {
            let own = cosine(first, &self.second[own * width..][..width]);
            let nearer = |second: &[f32]| {
                // Of equal ones, as of equal texts, the own counts as the best; of what is no number, as the worst.
                let order = cosine(first, second).partial_cmp(&own);
                order.is_none_or(Ordering::is_gt)
            };
            1 + self
                .second
                .chunks(width)
                .filter(|other| nearer(other))
                .count()
        };
        let ranks: Vec<usize> = self.first.chunks(width).enumerate().map(rank).collect();
        let mean = |worth: &dyn Fn(usize) -> f64| {
            ranks.iter().map(|&rank| worth(rank)).sum::<f64>() / ranks.len().max(1) as f64
        };
        Metrics::from([
            ("recall_1".into(), mean(&|rank| f64::from(rank == 1))),
            ("recall_10".into(), mean(&|rank| f64::from(rank <= 10))),
            ("mrr".into(), mean(&|rank| 1.0 / rank as f64)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_ranked_among_all_of_the_split() {
        // The second one is nearer to the first text of the other.
        let half = |first: [f32; 2], second: [f32; 2]| PairTally {
            width: 2,
            first: first.to_vec(),
            second: second.to_vec(),
        };
        let mut tally = PairTally::default();
        tally.merge(half([1.0, 0.0], [0.6, 0.8]));
        tally.merge(half([0.8, 0.6], [0.8, 0.6]));
        let metrics = tally.metrics();
        assert_eq!(metrics["recall_1"], 0.5);
        assert_eq!((metrics["recall_10"], metrics["mrr"]), (1.0, 0.75));
        // A text without a vector finds nothing.
        tally.merge(half([f32::NAN; 2], [1.0, 0.0]));
        assert!(tally.metrics()["recall_1"] < 0.5);
    }
}
