//! Variational autoencoder. In: images. Out: an encoder of distributions over latent vectors, and a decoder that makes images of
//! any of them.
//!
//! Kingma and Welling 2014, <https://arxiv.org/abs/1312.6114>; with a weight on the divergence other than 1, Higgins et al. 2017,
//! <https://openreview.net/forum?id=Sy2fzU9gl>.

use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{FloatDType, TensorData};
use data::order::{self, Stream};
use model::bundle::Load;
use model::heads::variational::VariationalConfig;
use model::registry::ImageBackbone;
use model::{HeadKind, VariationalAutoencoder};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::{ImageModel, PixelBatch};
use train::job::{BundleWriter, Start};
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::pixels::{PixelLoss, reconstruction_loss};
use train::objectives::probe;
use train::recipe::Impossible;
use train::source::Rows;

use crate::images::{
    COLUMNS, Chance, Drawings, ImageBatch, ImageLoss, ImageObjective, ImagePretraining, OfImages,
    Reader,
};

/// Rows of samples that a drawing has, and of ways from one image to another.
const ROWS: usize = 5;

/// The objective; `assets/recipes/vae.toml` and the files that it names explain every key.
pub type Vae = OfImages<Variational>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Variational {
    /// Sizes of the latent vectors.
    pub latent: LatentRecipe,
    /// How it is judged.
    pub loss: EvidenceRecipe,
}

/// `[latent]`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LatentRecipe {
    /// Values of a latent vector.
    pub size: usize,
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceRecipe {
    /// What a pixel costs.
    pub kind: PixelLoss,
    /// Times the divergence from the prior.
    pub beta: f64,
}

impl ImagePretraining for Variational {
    const NAME: &'static str = "vae";
    const ABOUT: &'static str = "variational autoencoder of images, which makes new ones";
    const RECIPE: &'static str = include_str!("../../assets/recipes/vae.toml");
    const HEAD: HeadKind = HeadKind::Variational;
    const PLAIN: bool = true;
    const AUGMENTS_VALIDATION: bool = false;

    fn check(&self) -> Result<(), Impossible> {
        let wrong = |reason| Impossible::new("latent.size", format!("is impossible: {reason}"));
        self.head().check().map_err(wrong)?;
        let beta = self.loss.beta;
        if !(beta.is_finite() && beta >= 0.0) {
            let reason = format!("is {beta}; it must be 0 or more");
            return Err(Impossible::new("loss.beta", reason));
        }
        Ok(())
    }

    fn head_config(&self) -> serde_json::Value {
        serde_json::to_value(self.head()).unwrap_or_default()
    }

    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        start: &Start,
        device: &B::Device,
    ) -> Result<ImageObjective<B>, Failure> {
        let ImageModel { config, input } = model;
        let names = config.names(Self::HEAD);
        let draw = start.draw(device, names);
        let model = VariationalAutoencoder::draw(config, self.head(), input.shape, &draw);
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        let loss = self.loss;
        Ok(Evidence {
            model,
            loss: loss.kind,
            beta: loss.beta,
        }
        .into())
    }

    fn batch(&self, images: &Reader, rows: &Rows, _: &ImageModel) -> ImageBatch {
        let noise = rows.samples.iter().flat_map(|&sample| {
            normal(
                self.latent.size,
                order::rng(images.seed, Stream::Noise, sample),
            )
        });
        ImageBatch {
            views: vec![images.view(rows, 0)],
            chance: Chance::Noise(noise.collect()),
            ..ImageBatch::default()
        }
    }

    /// Images and what is made of them; new images; and ways from one image to another through their latent vectors.
    fn draw<B: Backend>(
        &self,
        objective: &ImageObjective<B>,
        first: &ImageBatch,
        device: &B::Device,
        drawings: &Drawings<'_>,
    ) -> anyhow::Result<()> {
        let ImageObjective::Evidence(Evidence { model, .. }) = objective else {
            return Ok(());
        };
        let images = &first.views[0];
        let outputs = PixelBatch::read(model.reconstruct(first.images(device)));
        drawings.write("reconstructions", &[images, &outputs])?;
        let decode = |latent: Vec<f32>| {
            let n = latent.len() / self.latent.size;
            let latent = TensorData::new(latent, [n, self.latent.size]);
            PixelBatch::read(sigmoid(model.decode(Tensor::from_data(latent, device))))
        };
        let samples = (0..ROWS as u64).map(|row| {
            decode(normal(
                COLUMNS * self.latent.size,
                order::rng(0, Stream::Sample, row),
            ))
        });
        let samples: Vec<PixelBatch> = samples.collect();
        drawings.write("samples", &samples.iter().collect::<Vec<_>>())?;
        if images.n < 2 {
            return Ok(());
        }
        let [means, _] = model.posterior(first.images(device));
        let means: Vec<f32> = means.into_data().iter::<f32>().collect();
        let mean = |image: usize| &means[image * self.latent.size..(image + 1) * self.latent.size];
        let ways = (0..ROWS).map(|row| {
            let (from, to) = (mean(2 * row % images.n), mean((2 * row + 1) % images.n));
            let steps = (0..COLUMNS).flat_map(|step| {
                let share = step as f32 / (COLUMNS - 1) as f32;
                let pairs = from.iter().zip(to);
                pairs.map(move |(from, to)| from + share * (to - from))
            });
            decode(steps.collect())
        });
        let ways: Vec<PixelBatch> = ways.collect();
        drawings.write("interpolations", &ways.iter().collect::<Vec<_>>())
    }
}

impl Variational {
    fn head(&self) -> VariationalConfig {
        VariationalConfig {
            decoder_latent_size: self.latent.size,
        }
    }
}

/// So many draws from N(0, 1).
fn normal(n: usize, mut rng: impl Rng) -> Vec<f32> {
    (0..n).map(|_| StandardNormal.sample(&mut rng)).collect()
}

/// A variational autoencoder with the bound on the evidence, negated, in nats an image.
#[derive(Module, Debug)]
pub struct Evidence<B: Backend> {
    /// The model.
    pub model: VariationalAutoencoder<B>,
    loss: PixelLoss,
    beta: f64,
}

impl<B: Backend> ImageLoss<B> for Evidence<B> {
    const MEANS: &'static [&'static str] = &["kl", "mse"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::lower("kl"),
        Metric::lower("mse"),
        Metric::higher("psnr"),
        probe::LINEAR,
        probe::NEIGHBOURS,
    ];

    fn backbone(&self) -> &ImageBackbone<B> {
        &self.model.backbone
    }

    fn loss(&self, batch: &ImageBatch, device: &B::Device) -> LossSums<B> {
        let images = batch.images::<B>(device);
        let n = batch.views[0].n;
        let [mean, log_variance] = self.model.posterior(images.clone());
        let [mean, log_variance] = [mean, log_variance].map(|x| x.cast(FloatDType::F32));
        let latent = match &batch.chance {
            Chance::Noise(noise) => {
                let noise = TensorData::new(noise.clone(), mean.dims());
                let noise = Tensor::from_data(noise, device);
                reparametrise(mean.clone(), log_variance.clone(), noise)
            }
            _ => mean.clone(),
        };
        let latent = latent.cast(self.model.head.mean.weight.val().dtype());
        let pixels = reconstruction_loss(self.model.decode(latent), images, self.loss);
        let values = (pixels.targets / n.max(1)) as f64;
        let divergence = divergence(mean, log_variance).sum();
        let squares = pixels.sums.into_iter().map(|squares| squares / values);
        let sums = std::iter::once(divergence.clone().detach()).chain(squares);
        let loss = pixels.loss + divergence * self.beta;
        LossSums::new(loss, sums.collect(), n)
    }

    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

/// A draw from each posterior; all `[batch, latent_size]`.
///
/// - noise: from N(0, 1)
pub fn reparametrise<B: Backend>(
    mean: Tensor<B, 2>,
    log_variance: Tensor<B, 2>,
    noise: Tensor<B, 2>,
) -> Tensor<B, 2> {
    mean + (log_variance * 0.5).exp() * noise
}

/// Kullback-Leibler divergence of each latent value's posterior from N(0, 1), in nats; all `[batch, latent_size]`.
pub fn divergence<B: Backend>(mean: Tensor<B, 2>, log_variance: Tensor<B, 2>) -> Tensor<B, 2> {
    let variance = log_variance.clone().exp();
    (variance + mean.clone() * mean - log_variance - 1.0) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn divergence_and_draws_are_those_of_torch() {
        let golden = Golden::open("vae");
        let [mean, log_variance] = ["mean", "log_variance"].map(|name| golden.leaf::<2>(name));
        let latent = reparametrise(mean.clone(), log_variance.clone(), golden.tensor("noise"));
        golden.near("latent", latent.clone());
        let kl = divergence(mean.clone(), log_variance.clone());
        golden.near("kl", kl.clone());
        let toward = golden.tensor::<2>("toward");
        // The part of the loss that flows through the decoder has no gradient here.
        let loss = kl.sum() / 4.0 + (latent * toward).sum();
        let gradients = loss.backward();
        for (name, leaf) in [("mean", mean), ("log_variance", log_variance)] {
            let gradient = leaf.grad(&gradients).unwrap();
            golden.near(&format!("grad.bernoulli.{name}"), gradient);
        }
    }
}
