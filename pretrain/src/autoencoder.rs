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
use model::bundle::{ImageInput, Load};
use model::{Autoencoder, HeadKind};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::{
    self, Augment, ImageModel, ImageRowSets, ImageRows, ImageSplits, Images, PixelBatch,
};
use train::job::{Hook, Job, Product, Recipe, Shared, Splits, Start, ToSheet};
use train::objectives::pixels::{PixelLoss, PixelPairs, Reconstruction};
use train::recipe::Impossible;
use train::report::grid::grid_png;
use train::report::sheet::Sheet;
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
    model: ImageModel,
}

impl Job for DenoisingAutoencoder {
    const NAME: &'static str = "autoencoder";
    const ABOUT: &'static str = "denoising of images with a convolutional autoencoder";
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = include_str!("../../assets/recipes/autoencoder.toml");
    const HAS_IMAGES: bool = true;
    type Source = ImageRowSets;
    type Data = NoisyData;
    type Batch = PixelPairs;
    type Objective<B: AutodiffBackend> = Reconstruction<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.noise.check()?;
        self.data.check(recipe)
    }

    fn source(&self, start: &Start) -> Result<ImageRowSets, Failure> {
        self.data.source(start)
    }

    fn data(&self, _: &Recipe, start: &Start, images: ImageRowSets) -> Result<NoisyData, Failure> {
        let (splits, mut model) = self
            .data
            .read(images, &self.augment, HeadKind::Pixels, start)?;
        // What it gives back is pixels.
        model.input = model.input.without_normalizing();
        Ok(NoisyData { splits, model })
    }

    fn product(&self, data: &NoisyData) -> Result<Product, Failure> {
        Ok(image::product(&data.model, HeadKind::Pixels, None))
    }

    fn sheet(&self, _: &NoisyData) -> Option<ToSheet<PixelPairs>> {
        Some(Box::new(|batch| Sheet {
            images: batch.inputs.clone(),
            captions: Vec::new(),
        }))
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &NoisyData,
        start: &Start,
        device: &B::Device,
    ) -> Result<Reconstruction<B>, Failure> {
        let ImageModel { config, input } = &data.model;
        let names = config.names(HeadKind::Pixels);
        let model = Autoencoder::draw(config, input.shape, &start.draw(device, names));
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
        let digest = train.digest();
        let epochs = Epochs::shuffled(lengths, training.batching(), training.accumulation, seed);
        let train = NoisyImages::new(train, epochs, self.augment.clone(), self.noise, seed);
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
    fn validating(&self, valid: ImageRows, batch_size: usize) -> NoisyImages {
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
    images: ImageRows,
    epochs: Epochs,
    levels: Vec<[f32; 256]>,
    augment: Augment,
    noise: Noise,
    seed: u64,
}

impl NoisyImages {
    /// Batches of `images`; their order, augmentation and noise are functions of the seed.
    pub fn new(
        images: ImageRows,
        epochs: Epochs,
        augment: Augment,
        noise: Noise,
        seed: u64,
    ) -> Self {
        let shape = images.shape();
        Self {
            images,
            epochs,
            levels: ImageInput::plain(shape).levels(),
            augment,
            noise,
            seed,
        }
    }

    /// Rows with their noise.
    fn noisy(&self, batch: &Rows) -> PixelPairs {
        let targets = self
            .augment
            .read(&self.images, batch, &self.levels, self.seed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::optim::{GradientsParams, Optimizer as _};
    use data::ImageSet;
    use data::order::Batching;
    use model::Draw;
    use model::ImageConfig;
    use train::Objective;
    use train::job::Setup;
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
        }
    }

    fn batches(images: ImageSet, noise: Noise, seed: u64) -> NoisyImages {
        let batching = Batching::Rows { size: 4, pool: 0 };
        let epochs = Epochs::shuffled(vec![1; images.len()], batching, 1, 7);
        NoisyImages::new(images.into(), epochs, Augment::NONE, noise, seed)
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
    fn noise_is_a_function_of_seed_and_number() {
        let (one, again) = (batches(bars(8, 1), NOISE, 1), batches(bars(8, 1), NOISE, 1));
        let other = batches(bars(8, 1), NOISE, 2);
        let far = one.batch(5);
        assert_eq!(one.batch(0), again.batch(0));
        assert_eq!(far, again.batch(5), "whatever was asked for before");
        assert_ne!(one.batch(0).inputs, other.batch(0).inputs);
        assert_eq!(
            one.batch(0).targets,
            other.batch(0).targets,
            "the targets stay clean"
        );
        // The same rows, seen a second time.
        let rows = |samples: [u64; 2]| Rows {
            rows: vec![0, 1],
            samples: samples.to_vec(),
        };
        assert_ne!(
            one.noisy(&rows([0, 1])).inputs,
            one.noisy(&rows([2, 3])).inputs
        );
    }

    #[test]
    fn batches_have_the_shape_of_their_images() {
        let source = batches(bars(9, 3), NOISE, 1);
        assert_eq!(source.batches_per_epoch(), 2);
        let batch = source.batch(0);
        assert_eq!((batch.real(), batch.padded()), (4, 4));
        let shape = batch.inputs.tensor::<Flex>(&Default::default()).dims();
        assert_eq!(shape, [4, 3, 6, 5]);
        assert!(
            batch
                .inputs
                .pixels
                .iter()
                .all(|value| (0.0..=1.0).contains(value))
        );
        assert_eq!(source.first(10).targets.n, 9);
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
        let batch = batches(images, NOISE, 1).batch(0);
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

    #[test]
    fn drawings_of_all_validations_stay() {
        let folder = tempfile::tempdir().unwrap();
        let device = Default::default();
        let images = bars(3, 1);
        let (config, shape) = sizes(&images);
        let model = Autoencoder::<Flex>::draw(&config, shape, &Draw::new(&device, 0.02));
        let batch = batches(images, NOISE, 1).first(COLUMNS);
        for _ in 0..2 {
            draw(&model, &batch, &device, folder.path()).unwrap();
        }
        let latest = fs::read(folder.path().join("reconstructions.png")).unwrap();
        let second = fs::read(folder.path().join("reconstructions/0002.png")).unwrap();
        assert!(folder.path().join("reconstructions/0001.png").is_file());
        assert_eq!(latest, second);
    }
}
