//! Denoising autoencoder. In: images. Out: an encoder and a decoder that give clean images back from noisy ones.
//!
//! Vincent et al. 2008, <https://doi.org/10.1145/1390156.1390294>. Noise is drawn anew every epoch, and is a pure
//! function of (seed, epoch, image), however images are batched; the target is always the clean image.

use std::fs;
use std::path::Path;

use anyhow::Context;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use data::{ImageSet, ImageSets};
use model::bundle::Load;
use model::{Autoencoder, HeadKind, ImageConfig};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::{self, Augment, ImageSplits, Images, PixelBatch};
use train::job::{Hook, Job, Product, Recipe, Shared, Splits, Start};
use train::objectives::pixels::{PixelLoss, PixelPairs, Reconstruction};
use train::recipe::Impossible;
use train::report::grid::grid_png;
use train::run::write_atomically;
use train::source::{BatchSource, Epochs, Rows, Unit};

/// Images side by side in `reconstructions.png`.
const COLUMNS: usize = 10;

/// The objective; `assets/recipes/autoencoder.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DenoisingAutoencoder {
    /// Which images, and how they are split.
    pub data: Images,
    /// How training images are changed.
    pub augment: Augment,
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

/// Split images, and the model for them.
pub struct NoisyData {
    splits: ImageSplits,
    config: ImageConfig,
}

impl Job for DenoisingAutoencoder {
    const NAME: &'static str = "autoencoder";
    const ABOUT: &'static str = "denoising of images with a convolutional autoencoder";
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = include_str!("../../assets/recipes/autoencoder.toml");
    type Source = ImageSets;
    type Data = NoisyData;
    type Batch = PixelPairs;
    type Objective<B: AutodiffBackend> = Reconstruction<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.noise.check()?;
        self.data.check(recipe)
    }

    fn source(&self) -> Result<ImageSets, Failure> {
        self.data.source()
    }

    fn data(&self, _: &Recipe, start: &Start, images: ImageSets) -> Result<NoisyData, Failure> {
        let (splits, config) = self.data.read(images, self.augment, start)?;
        Ok(NoisyData { splits, config })
    }

    fn product(&self, data: &NoisyData) -> Result<Product, Failure> {
        Ok(image::product(&data.config, HeadKind::Pixels, None))
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &NoisyData,
        start: &Start,
        device: &B::Device,
    ) -> Result<Reconstruction<B>, Failure> {
        let names = data.config.names(HeadKind::Pixels);
        let model = Autoencoder::draw(&data.config, &start.draw(device, names));
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        Ok(Reconstruction::new(model, self.loss.kind))
    }

    fn after_validation<B: AutodiffBackend>(
        &self,
        data: &NoisyData,
        device: &B::Device,
    ) -> Option<Hook<B, Reconstruction<B>>> {
        let first = self.validating(data.splits.valid.clone(), 1).first(COLUMNS);
        let device = device.clone();
        Some(Box::new(move |objective, run| {
            draw(&objective.model, &first, &device, run)
        }))
    }

    fn batches(&self, recipe: &Recipe, data: NoisyData) -> Result<Splits<PixelPairs>, Failure> {
        let ImageSplits { train, valid, .. } = data.splits;
        let (training, seed) = (&recipe.training, recipe.seed);
        let lengths = vec![1; train.len()];
        let digest = data::digest(train.len(), |at| train.image(at).to_vec());
        let epochs = Epochs::shuffled(lengths, training.batching(), training.accumulation, seed);
        let train = NoisyImages::new(train, epochs, self.augment, self.noise, seed);
        Ok(Splits {
            train: Shared::new(train),
            valid: Shared::new(self.validating(valid, training.batch_size)),
            test: None,
            digest,
            unit: Unit::Samples,
        })
    }
}

impl DenoisingAutoencoder {
    /// Validation images in order, with the same noise in every run.
    fn validating(&self, valid: ImageSet, batch_size: usize) -> NoisyImages {
        let in_order = Epochs::in_order(valid.len(), batch_size);
        NoisyImages::new(
            valid,
            in_order,
            Augment::NONE,
            self.noise,
            self.data.split_seed,
        )
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

/// Noisy batches of images.
pub struct NoisyImages {
    images: ImageSet,
    epochs: Epochs,
    augment: Augment,
    noise: Noise,
    seed: u64,
}

impl NoisyImages {
    /// Batches of `images`; their order, augmentation and noise are functions of the seed.
    pub fn new(
        images: ImageSet,
        epochs: Epochs,
        augment: Augment,
        noise: Noise,
        seed: u64,
    ) -> Self {
        Self {
            images,
            epochs,
            augment,
            noise,
            seed,
        }
    }

    /// Rows with their noise.
    fn noisy(&self, batch: &Rows) -> PixelPairs {
        let mut targets = PixelBatch::of(&self.images, &batch.rows);
        self.augment.apply(&mut targets, self.seed, &batch.samples);
        let mut inputs = targets.clone();
        let len = inputs.channels * inputs.height * inputs.width;
        let images = inputs.pixels.chunks_exact_mut(len);
        for (image, &sample) in images.zip(&batch.samples) {
            let mut rng = order::rng(self.seed, Stream::Noise, sample);
            self.noise.spoil(image, inputs.channels, &mut rng);
        }
        PixelPairs { inputs, targets }
    }

    /// The first few images.
    fn first(&self, n: usize) -> PixelPairs {
        let rows: Vec<u32> = (0..n.min(self.images.len()) as u32).collect();
        let samples = rows.iter().copied().map(u64::from).collect();
        self.noisy(&Rows { rows, samples })
    }
}

impl BatchSource for NoisyImages {
    type Batch = PixelPairs;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> PixelPairs {
        self.noisy(&self.epochs.batch(number))
    }
}

/// Draws clean images, what the model saw and what it made of that, three rows in `reconstructions.png`; the
/// drawings of all validations stay in `reconstructions/`.
fn draw<B: Backend>(
    model: &Autoencoder<B>,
    batch: &PixelPairs,
    device: &B::Device,
    run: &Path,
) -> anyhow::Result<()> {
    let outputs = PixelBatch::read(model.reconstruct(batch.inputs.tensor(device)));
    let png = grid_png(&[&batch.targets, &batch.inputs, &outputs])?;
    let folder = run.join("reconstructions");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut number = 1;
    let path = |number| folder.join(format!("{number:04}.png"));
    while path(number).exists() {
        number += 1;
    }
    for path in [path(number), run.join("reconstructions.png")] {
        write_atomically(&path, &png).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
