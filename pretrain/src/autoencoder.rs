//! Denoising autoencoder. In: images. Out: an encoder and a decoder that give clean images back from noisy ones.
//!
//! Vincent et al. 2008, <https://doi.org/10.1145/1390156.1390294>. Noise is drawn anew every epoch, and is a pure
//! function of (seed, epoch, image), however images are batched; the target is always the clean image.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use model::bundle::Load;
use model::registry::ImageBackbone;
use model::{Autoencoder, HeadKind};
use rand::{Rng, RngExt};
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
    Drawings, ImageBatch, ImageLoss, ImageObjective, ImagePretraining, OfImages, Reader,
};

/// The objective; `assets/recipes/autoencoder.toml` and the files that it names explain every key.
pub type DenoisingAutoencoder = OfImages<Denoising>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Denoising {
    /// What the model sees instead of the image.
    pub noise: Noise,
    /// How it is judged.
    pub loss: LossRecipe,
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LossRecipe {
    /// What a pixel costs.
    pub kind: PixelLoss,
}

/// `[noise]`: what the model sees instead of the image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Standard deviation of what is added to each value; values run from 0 to 1 and are cut there.
    pub gaussian: f64,
    /// Share of the pixels set to 0, in all their channels.
    pub masking: f64,
}

impl ImagePretraining for Denoising {
    const NAME: &'static str = "autoencoder";
    const ABOUT: &'static str = "denoising of images, of which an encoder keeps a few values";
    const RECIPE: &'static str = include_str!("../../assets/recipes/autoencoder.toml");
    const HEAD: HeadKind = HeadKind::Pixels;
    const PLAIN: bool = true;
    const AUGMENTS_VALIDATION: bool = false;

    fn check(&self) -> Result<(), Impossible> {
        self.noise.check()
    }

    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        start: &Start,
        device: &B::Device,
    ) -> Result<ImageObjective<B>, Failure> {
        let ImageModel { config, input } = model;
        let names = config.names(HeadKind::Pixels);
        let model = Autoencoder::draw(config, input.shape, &start.draw(device, names));
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        Ok(Reconstruction::new(model, self.loss.kind).into())
    }

    fn batch(&self, images: &Reader, rows: &Rows, _: &ImageModel) -> ImageBatch {
        let clean = images.view(rows, 0);
        let mut noisy = clean.clone();
        let len = noisy.channels * noisy.height * noisy.width;
        let each = noisy.pixels.chunks_exact_mut(len);
        for (image, &sample) in each.zip(&rows.samples) {
            let mut rng = order::rng(images.seed, Stream::Noise, sample);
            self.noise.spoil(image, noisy.channels, &mut rng);
        }
        ImageBatch {
            views: vec![noisy],
            clean: Some(clean),
            ..ImageBatch::default()
        }
    }

    /// Clean images, what the model saw, and what it made of that.
    fn draw<B: Backend>(
        &self,
        objective: &ImageObjective<B>,
        first: &ImageBatch,
        device: &B::Device,
        drawings: &Drawings<'_>,
    ) -> anyhow::Result<()> {
        let ImageObjective::Reconstruction(Reconstruction { model, .. }) = objective else {
            return Ok(());
        };
        let outputs = PixelBatch::read(model.reconstruct(first.images(device)));
        let clean = first.clean.as_ref().unwrap_or(&first.views[0]);
        drawings.write("reconstructions", &[clean, &first.views[0], &outputs])
    }
}

/// An autoencoder with its loss.
#[derive(Module, Debug)]
pub struct Reconstruction<B: Backend> {
    /// The model.
    pub model: Autoencoder<B>,
    loss: PixelLoss,
}

impl<B: Backend> Reconstruction<B> {
    /// A model that learns by this loss.
    pub fn new(model: Autoencoder<B>, loss: PixelLoss) -> Self {
        Self { model, loss }
    }
}

impl<B: Backend> ImageLoss<B> for Reconstruction<B> {
    const MEANS: &'static [&'static str] = &["mse"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::lower("mse"),
        Metric::higher("psnr"),
        probe::LINEAR,
        probe::NEIGHBOURS,
    ];

    fn backbone(&self) -> &ImageBackbone<B> {
        &self.model.backbone
    }

    fn loss(&self, batch: &ImageBatch, device: &B::Device) -> LossSums<B> {
        let logits = self.model.logits(batch.images(device));
        let clean = batch.clean.as_ref().unwrap_or(&batch.views[0]);
        reconstruction_loss(logits, clean.tensor(device), self.loss)
    }

    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl Noise {
    fn check(self) -> Result<(), Impossible> {
        let Self { gaussian, masking } = self;
        if !(gaussian.is_finite() && gaussian >= 0.0) {
            let reason = format!("is {gaussian}; it must be 0 or more");
            return Err(Impossible::new("noise.gaussian", reason));
        }
        if !(0.0..1.0).contains(&masking) {
            let reason = format!("is {masking}; it must be in 0..1");
            return Err(Impossible::new("noise.masking", reason));
        }
        Ok(())
    }

    /// Spoils one image, `[channels, height, width]`.
    fn spoil(&self, image: &mut [f32], channels: usize, rng: &mut impl Rng) {
        if self.gaussian > 0.0 {
            for value in image.iter_mut() {
                *value = (*value + self.gaussian as f32 * normal(rng)).clamp(0.0, 1.0);
            }
        }
        if self.masking > 0.0 {
            let area = image.len() / channels;
            for at in 0..area {
                if rng.random::<f64>() < self.masking {
                    image
                        .iter_mut()
                        .skip(at)
                        .step_by(area)
                        .for_each(|value| *value = 0.0);
                }
            }
        }
    }
}

/// A draw from N(0, 1), by Box and Muller.
fn normal(rng: &mut impl Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::optim::{GradientsParams, Optimizer as _};
    use data::ImageSet;
    use model::Draw;
    use model::ImageConfig;
    use model::bundle::ImageInput;
    use train::job::Setup;
    use train::job::image::Augment;
    use train::optim::optimizer::Optimizer;
    use train::source::Counts;

    const NOISE: Noise = Noise {
        gaussian: 0.3,
        masking: 0.25,
    };

    /// Images of 6x5 with a bright bar, each at its own place.
    fn bars(n: usize, channels: usize) -> ImageSet {
        let image =
            |i: usize| (0..channels * 30).map(move |at| if at % 5 == i % 5 { 255 } else { 0 });
        ImageSet {
            origin: "test".into(),
            channels,
            height: 6,
            width: 5,
            pixels: (0..n).flat_map(image).collect(),
            labels: None,
            classes: vec![],
            contents: vec![],
        }
    }

    fn reader(images: ImageSet, seed: u64) -> Reader {
        let shape = [images.channels, images.height, images.width];
        Reader::new(
            images.into(),
            &ImageInput::plain(shape),
            Augment::NONE,
            seed,
        )
    }

    /// Rows 0, 1 and so on, seen for the so many-th time.
    fn rows(n: u32, times: u64) -> Rows {
        Rows {
            rows: (0..n).collect(),
            samples: (0..u64::from(n)).map(|row| times * 100 + row).collect(),
        }
    }

    fn noisy(images: &Reader, rows: &Rows) -> ImageBatch {
        let setup = Setup::<DenoisingAutoencoder>::built_in().unwrap();
        let (config, shape) = sizes(&images_of(1));
        let model = ImageModel {
            config,
            input: ImageInput::plain(shape),
        };
        let objective = Denoising {
            noise: NOISE,
            ..setup.job.objective
        };
        objective.batch(images, rows, &model)
    }

    fn images_of(n: usize) -> ImageSet {
        bars(n, 1)
    }

    /// Sizes of the built-in recipe's model, and the shape of the images.
    fn sizes(images: &ImageSet) -> (ImageConfig, [usize; 3]) {
        let recipe = Setup::<DenoisingAutoencoder>::built_in().unwrap().recipe;
        let shape = [images.channels, images.height, images.width];
        (recipe.image_sizes(shape).unwrap(), shape)
    }

    #[test]
    fn impossible_noise_is_named() {
        for (setting, words) in [
            (
                "noise.masking=1.0",
                "noise.masking is 1; it must be in 0..1",
            ),
            (
                "noise.gaussian=-1.0",
                "noise.gaussian is -1; it must be 0 or more",
            ),
        ] {
            let setup = Setup::<DenoisingAutoencoder>::with(&[setting]).unwrap();
            assert_eq!(setup.check().unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn noise_is_a_function_of_seed_and_sample() {
        let (one, other) = (reader(bars(8, 1), 1), reader(bars(8, 1), 2));
        let first = noisy(&one, &rows(4, 0));
        assert_eq!(first, noisy(&one, &rows(4, 0)));
        let of_other = noisy(&other, &rows(4, 0));
        assert_ne!(first.views, of_other.views);
        assert_eq!(first.clean, of_other.clean, "the targets stay clean");
        // The same rows, seen a second time.
        assert_ne!(first.views, noisy(&one, &rows(4, 1)).views);
    }

    #[test]
    fn batches_have_the_shape_of_their_images() {
        let batch = noisy(&reader(bars(9, 3), 1), &rows(4, 0));
        assert_eq!((batch.real(), batch.padded()), (4, 4));
        assert_eq!(
            batch.images::<Flex>(&Default::default()).dims(),
            [4, 3, 6, 5]
        );
        let mut pixels = batch.views[0].pixels.iter();
        assert!(pixels.all(|value| (0.0..=1.0).contains(value)));
    }

    #[test]
    fn gaussian_noise_has_its_mean_and_deviation() {
        let mut rng = order::rng(3, Stream::Noise, 0);
        let draws: Vec<f32> = (0..10_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f32>() / 1e4;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 1e4;
        // Four standard errors: 4 / sqrt(10,000) and 4 * sqrt(2 / 10,000).
        assert!(mean.abs() < 0.04, "{mean}");
        assert!((variance - 1.0).abs() < 0.057, "{variance}");
    }

    #[test]
    fn masking_hides_whole_pixels_in_its_share() {
        let noise = Noise {
            gaussian: 0.0,
            masking: 0.25,
        };
        let mut image = vec![1.0; 3 * 4000];
        noise.spoil(&mut image, 3, &mut order::rng(3, Stream::Noise, 0));
        let hidden = image[..4000].iter().filter(|&&value| value == 0.0).count();
        // Four standard errors of a share of 4,000: 4 * sqrt(4000 * 0.25 * 0.75) = 110.
        assert!(hidden.abs_diff(1000) < 110, "{hidden}");
        assert_eq!(image[..4000], image[4000..8000]);
        assert_eq!(image[..4000], image[8000..]);
    }

    #[test]
    fn one_batch_can_be_overfitted() {
        // The generator is shared with the tests of other threads: no two runs draw the same weights, and some are
        // unlucky.
        let errors: Vec<f32> = (0..3).map(|_| overfitted()).collect();
        assert!(errors.iter().any(|mse| *mse < 1e-3), "{errors:?}");
    }

    /// The squared error of one batch after 400 steps on it.
    fn overfitted() -> f32 {
        type B = Autodiff<Flex>;
        let device = Default::default();
        let images = bars(5, 1);
        let (config, shape) = sizes(&images);
        let model = Autoencoder::<B>::draw(&config, shape, &Draw::new(&device, 0.02));
        let mut objective = Reconstruction::new(model, PixelLoss::Mse);
        let rules = Setup::<DenoisingAutoencoder>::built_in()
            .unwrap()
            .recipe
            .optimizer;
        let names = config.names(HeadKind::Pixels);
        let batch = noisy(&reader(images, 1), &rows(4, 0));
        let groups = rules.groups(&[], &objective, names).unwrap();
        let mut optimizer = Optimizer::<B>::new(rules, groups);
        let mut mse = f32::NAN;
        for step in 0..400 {
            let sums = objective.loss(&batch, &device);
            mse = sums.loss.clone().into_scalar() / sums.targets as f32;
            optimizer.prepare(step, sums.weight);
            let gradients = GradientsParams::from_grads(sums.loss.backward(), &objective);
            objective = optimizer.step(5e-3, objective, gradients);
        }
        mse
    }
}
