//! Vector-quantised autoencoder. In: images. Out: an encoder to maps of codes, and a decoder.
//!
//! Van den Oord et al. 2017, <https://arxiv.org/abs/1711.00937>. How the codebook learns is in
//! [`model::heads::quantised`].

use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::Load;
use model::heads::quantised::CodebookConfig;
use model::registry::ImageBackbone;
use model::{HeadKind, QuantisedAutoencoder};
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
    CODES_USED, Drawings, ImageBatch, ImageLoss, ImageObjective, ImagePretraining, ImageTally,
    OfImages, Reader,
};

/// The objective; `assets/recipes/vqvae.toml` and the files that it names explain every key.
pub type VqVae = OfImages<Quantising>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Quantising {
    /// Sizes of the codebook.
    pub codes: CodesRecipe,
    /// How it is judged.
    pub loss: CommitmentRecipe,
}

/// `[codes]`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CodesRecipe {
    /// Vectors that there are.
    pub count: usize,
    /// Values of each.
    pub size: usize,
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitmentRecipe {
    /// What a pixel costs.
    pub kind: PixelLoss,
    /// Times the squared distance of the encoder's vectors from their codes.
    pub commitment: f64,
}

impl ImagePretraining for Quantising {
    const NAME: &'static str = "vqvae";
    const ABOUT: &'static str = "autoencoder of images whose encoder gives codes";
    const RECIPE: &'static str = include_str!("../../assets/recipes/vqvae.toml");
    const HEAD: HeadKind = HeadKind::Codes;
    const PLAIN: bool = true;
    const AUGMENTS_VALIDATION: bool = false;

    fn check(&self) -> Result<(), Impossible> {
        let count = self.codes.count;
        if count < 2 {
            let reason = format!("is {count}; there must be at least 2");
            return Err(Impossible::new("codes.count", reason));
        }
        let commitment = self.loss.commitment;
        if !(commitment.is_finite() && commitment >= 0.0) {
            let reason = format!("is {commitment}; it must be 0 or more");
            return Err(Impossible::new("loss.commitment", reason));
        }
        Ok(())
    }

    fn check_model(&self, model: &ImageModel) -> Result<(), Impossible> {
        let wrong = |reason| Impossible::new("codes", format!("are impossible: {reason}"));
        self.head().check(&model.config).map_err(wrong)
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
        let model = QuantisedAutoencoder::draw(config, self.head(), input.shape, &draw);
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        let (loss, commitment) = (self.loss.kind, self.loss.commitment);
        Ok(CodedReconstruction {
            model,
            loss,
            commitment,
        }
        .into())
    }

    fn batch(&self, images: &Reader, rows: &Rows, _: &ImageModel) -> ImageBatch {
        ImageBatch {
            views: vec![images.view(rows, 0)],
            ..ImageBatch::default()
        }
    }

    /// Images and what is made of their codes.
    fn draw<B: Backend>(
        &self,
        objective: &ImageObjective<B>,
        first: &ImageBatch,
        device: &B::Device,
        drawings: &Drawings<'_>,
    ) -> anyhow::Result<()> {
        let ImageObjective::Codes(CodedReconstruction { model, .. }) = objective else {
            return Ok(());
        };
        let outputs = PixelBatch::read(model.reconstruct(first.images(device)));
        drawings.write("reconstructions", &[&first.views[0], &outputs])
    }
}

impl Quantising {
    fn head(&self) -> CodebookConfig {
        CodebookConfig {
            codebook_size: self.codes.count,
            code_size: self.codes.size,
        }
    }
}

/// A vector-quantised autoencoder with its loss.
#[derive(Module, Debug)]
pub struct CodedReconstruction<B: Backend> {
    /// The model.
    pub model: QuantisedAutoencoder<B>,
    loss: PixelLoss,
    commitment: f64,
}

impl<B: Backend> CodedReconstruction<B> {
    /// The loss, and the code of each place, `[n]`.
    fn sums(&self, batch: &ImageBatch, device: &B::Device) -> (LossSums<B>, Tensor<B, 1, Int>) {
        let images = batch.images::<B>(device);
        let (vectors, shape) = self.model.encode(images.clone());
        let precision = vectors.dtype();
        let vectors = vectors.cast(FloatDType::F32);
        let codebook = &self.model.head.codebook;
        let quantised = codebook.quantise(vectors.clone());
        if B::ad_enabled(device) {
            codebook.learn(vectors.clone(), quantised.codes.clone());
        }
        let distance = commitment(vectors.clone(), quantised.vectors.clone());
        let passed = straight_through(vectors, quantised.vectors).cast(precision);
        let pixels = reconstruction_loss(self.model.decode(passed, shape), images, self.loss);
        let n = pixels.targets;
        // A mean over vectors beside one over pixels.
        let loss = pixels.loss + distance * (self.commitment * n as f64);
        (LossSums::new(loss, pixels.sums, n), quantised.codes)
    }
}

impl<B: Backend> ImageLoss<B> for CodedReconstruction<B> {
    const MEANS: &'static [&'static str] = &["mse"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::lower("mse"),
        Metric::higher("psnr"),
        CODES_USED,
        probe::LINEAR,
        probe::NEIGHBOURS,
    ];

    fn backbone(&self) -> &ImageBackbone<B> {
        &self.model.backbone
    }

    fn loss(&self, batch: &ImageBatch, device: &B::Device) -> LossSums<B> {
        self.sums(batch, device).0
    }

    fn tally(&self, batch: &ImageBatch, device: &B::Device) -> ImageTally {
        let (sums, codes) = self.sums(batch, device);
        let mut counts = vec![0.0; self.model.head.codebook.len()];
        for code in codes.into_data().iter::<i64>() {
            counts[code as usize] += 1.0;
        }
        ImageTally::read(sums, Self::MEANS).with_codes(counts)
    }

    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

/// Mean squared distance of vectors from their codes, `[1]`; no gradient flows into the codes.
pub fn commitment<B: Backend>(vectors: Tensor<B, 2>, codes: Tensor<B, 2>) -> Tensor<B, 1> {
    let distance = vectors - codes.detach();
    (distance.clone() * distance).mean()
}

/// The codes, whose gradient is that of the vectors: Bengio et al. 2013, <https://arxiv.org/abs/1308.3432>.
pub fn straight_through<B: Backend>(vectors: Tensor<B, 2>, codes: Tensor<B, 2>) -> Tensor<B, 2> {
    let difference = (codes - vectors.clone()).detach();
    vectors + difference
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Param;
    use model::heads::quantised::Codebook;
    use model::layers::batch_norm;

    use crate::golden::{Diff, Golden};

    /// A codebook whose vectors are these.
    fn codebook(vectors: Tensor<Diff, 2>) -> Codebook<Diff> {
        let [n, _] = vectors.dims();
        // So many that what is added to them changes no vector.
        let sizes = Tensor::full([n], 1e4, &Default::default());
        Codebook {
            cluster_sums: Param::from_tensor(vectors * 1e4),
            cluster_sizes: Param::from_tensor(sizes),
        }
    }

    #[test]
    fn codes_and_gradients_are_those_of_torch() {
        let golden = Golden::open("vq");
        let encoded = golden.leaf::<2>("encoded");
        let quantised = codebook(golden.tensor("codebook")).quantise(encoded.clone());
        let codes: Vec<f32> = quantised.codes.into_data().iter::<f32>().collect();
        assert_eq!(codes, golden.values("index"));
        golden.near("quantized", quantised.vectors.clone());
        let distance = commitment(encoded.clone(), quantised.vectors.clone());
        golden.near("commitment_loss", distance.clone());
        let passed = straight_through(encoded.clone(), quantised.vectors);
        let loss = distance * golden.number("beta") + (passed * golden.tensor("toward")).sum();
        golden.near("grad.encoded", encoded.grad(&loss.backward()).unwrap());
    }

    #[test]
    fn the_codebook_follows_a_batch_and_revives_what_is_not_chosen() {
        let golden = Golden::open("vq");
        let vectors = golden.tensor::<2>("codebook");
        let [n, _] = vectors.dims();
        let book = codebook(vectors);
        let encoded = golden.tensor::<2>("encoded");
        let codes = book.quantise(encoded.clone()).codes;
        let ((), proposals) = batch_norm::collect::<Diff, _>(|| book.learn(encoded.clone(), codes));
        let followed = batch_norm::commit(book.clone(), &proposals, None);
        let chosen = golden.values("index");
        let sizes: Vec<f32> = followed
            .cluster_sizes
            .val()
            .into_data()
            .iter::<f32>()
            .collect();
        for (code, size) in sizes.iter().enumerate() {
            let count = chosen.iter().filter(|&&one| one as usize == code).count() as f32;
            assert!((size - (0.99 * 1e4 + 0.01 * count)).abs() < 2e-2, "{size}");
        }
        let dead = Codebook {
            cluster_sizes: Param::from_tensor(Tensor::full([n], 0.1, &Default::default())),
            ..book
        };
        let codes = dead.quantise(encoded.clone()).codes;
        let ((), proposals) = batch_norm::collect::<Diff, _>(|| dead.learn(encoded, codes));
        let alive = batch_norm::commit(dead, &proposals, None)
            .cluster_sizes
            .val();
        assert!(alive.into_data().iter::<f32>().all(|size| size > 0.9));
    }
}
