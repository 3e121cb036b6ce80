//! Denoising autoencoder. In: images. Out: an encoder and a decoder that give clean images back from noisy ones.
//!
//! Vincent et al. 2008, <https://doi.org/10.1145/1390156.1390294>. Noise is drawn anew every epoch, and is a pure
//! function of (seed, epoch, image), however images are batched; the target is always the clean image.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use data::{ImageSet, source};
use image::{ExtendedColorType, ImageFormat};
use model::bundle::{self, Architecture};
use model::{Autoencoder, AutoencoderConfig};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use train::backend::train_on;
use train::cli::Entry;
use train::image::{Augment, ImageSplits, PixelBatch, check_model, preprocessor_json, square};
use train::recipe::{
    self, BundleRecipe, Draft, GuardRecipe, Impossible, OptimizerRecipe, ScheduleRecipe,
    TrainingRecipe,
};
use train::run::write_atomically;
use train::session::{Options, Session, Status};
use train::source::{BatchSource, Counts, Epochs, Rows, Unit};
use train::{Failure, LossSums, Metric, Metrics, Objective, SumTally, WithBackend};

/// Images side by side in `reconstructions.png`.
const COLUMNS: usize = 10;
/// Pixels of the grid a pixel of an image.
const SCALE: usize = 2;
/// Pixels between two images of the grid.
const GAP: usize = 2;

/// Denoising autoencoder, as the command line knows it.
pub const ENTRY: Entry = Entry {
    name: "autoencoder",
    about: "denoising of images with a convolutional autoencoder",
    recipe: include_str!("../../assets/recipes/autoencoder.toml"),
    run,
};

/// An autoencoder recipe; `assets/recipes/autoencoder.toml` explains every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The recipe file is their one home.
pub struct AutoencoderRecipe {
    pub objective: String,
    pub seed: u64,
    pub data: ImageData,
    pub augment: Augment,
    pub model: SizesRecipe,
    pub noise: Noise,
    pub loss: LossRecipe,
    pub optimizer: OptimizerRecipe,
    pub schedule: ScheduleRecipe,
    pub training: TrainingRecipe,
    pub guard: GuardRecipe,
    pub bundle: BundleRecipe,
}

/// `[data]`: which images, and how they are split.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ImageData {
    pub source: Vec<String>,
    pub size: usize,
    pub valid: f64,
    pub test: f64,
    pub split_seed: u64,
    pub valid_limit: usize,
}

/// `[model]`: sizes of encoder and decoder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SizesRecipe {
    pub channels: Vec<usize>,
    pub latent_size: usize,
}

/// `[noise]`: what the model sees instead of the image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Standard deviation of what is added to each value; values run from 0 to 1 and are cut there.
    pub gaussian: f64,
    /// Share of the pixels set to 0, in all their channels.
    pub masking: f64,
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LossRecipe {
    pub kind: LossKind,
}

/// What a reconstructed pixel costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossKind {
    /// Binary cross-entropy: a pixel is the probability of ink.
    Bce,
    /// Squared error.
    Mse,
}

impl AutoencoderRecipe {
    /// The recipe in `assets/recipes/autoencoder.toml`.
    pub fn built_in() -> Result<Self, Failure> {
        let built_in = [(ENTRY.name, ENTRY.recipe)];
        Ok(Draft::open(ENTRY.name, "objective", &built_in)?.finish()?)
    }

    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        let Noise { gaussian, masking } = self.noise;
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

    /// `config.json` of the model that this recipe trains on these images.
    pub fn config(&self, images: &ImageSet) -> Result<AutoencoderConfig, Impossible> {
        let config = AutoencoderConfig {
            image_channels: images.channels,
            image_height: images.height,
            image_width: images.width,
            channels: self.model.channels.clone(),
            latent_size: self.model.latent_size,
        };
        let wrong = |reason| Impossible::new("model", format!("is impossible: {reason}"));
        config.check().map_err(wrong)?;
        check_model(&config).map_err(wrong)?;
        Ok(config)
    }
}

/// An autoencoder with the denoising loss.
#[derive(Module, Debug)]
pub struct DenoisingAutoencoder<B: Backend> {
    /// The model.
    pub model: Autoencoder<B>,
    loss: LossKind,
}

impl<B: Backend> DenoisingAutoencoder<B> {
    /// A model that learns by this loss.
    pub fn new(model: Autoencoder<B>, loss: LossKind) -> Self {
        Self { model, loss }
    }
}

/// Noisy images and the clean ones they were.
#[derive(Clone, Debug, PartialEq)]
pub struct NoisyBatch {
    /// What the model sees.
    pub inputs: PixelBatch,
    /// What it has to give back.
    pub targets: PixelBatch,
}

impl Counts for NoisyBatch {
    fn real(&self) -> usize {
        self.targets.n
    }

    fn padded(&self) -> usize {
        self.targets.n
    }
}

impl<B: Backend> Objective<B> for DenoisingAutoencoder<B> {
    type Batch = NoisyBatch;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &["mse"];
    const METRICS: &'static [Metric] =
        &[Metric::LOSS, Metric::lower("mse"), Metric::higher("psnr")];

    fn loss(&self, batch: &NoisyBatch, device: &B::Device) -> LossSums<B> {
        let logits = self.model.forward(batch.inputs.tensor(device));
        reconstruction_loss(logits, batch.targets.tensor(device), self.loss)
    }

    fn evaluate(&self, batch: &NoisyBatch, device: &B::Device) -> SumTally {
        SumTally::read(self.loss(batch, device), <Self as Objective<B>>::MEANS)
    }

    fn derive(metrics: &mut Metrics) {
        if let Some(mse) = metrics.get("mse").copied() {
            metrics.insert("psnr".into(), psnr(mse));
        }
    }
}

/// Loss and squared error, summed over the values of all pixels.
///
/// - logits: `[batch, channels, height, width]`
/// - targets: the same, 0 to 1
pub fn reconstruction_loss<B: Backend>(
    logits: Tensor<B, 4>,
    targets: Tensor<B, 4>,
    kind: LossKind,
) -> LossSums<B> {
    let logits = logits.cast(FloatDType::F32);
    let n = targets.shape().num_elements();
    let squares = |logits| {
        let error = sigmoid(logits) - targets.clone();
        (error.clone() * error).sum()
    };
    let (loss, mse) = match kind {
        LossKind::Bce => {
            let mse = squares(logits.clone().detach());
            // -t ln s(x) - (1-t) ln(1-s(x)), without the exp(x) that overflows for large logits.
            let softplus = (-logits.clone().abs()).exp().log1p();
            let loss = relu(logits.clone()) - logits * targets + softplus;
            (loss.sum(), mse)
        }
        LossKind::Mse => {
            let mse = squares(logits);
            (mse.clone(), mse.detach())
        }
    };
    LossSums::new(loss, vec![mse], n)
}

/// Peak signal-to-noise ratio in decibels, of pixels from 0 to 1.
pub fn psnr(mse: f64) -> f64 {
    // A perfect reconstruction has no finite ratio; 100 dB is beyond what f32 sums can tell from it.
    -10.0 * mse.max(1e-10).log10()
}

impl Noise {
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
    fn noisy(&self, batch: &Rows) -> NoisyBatch {
        let mut targets = PixelBatch::of(&self.images, &batch.rows);
        self.augment.apply(&mut targets, self.seed, &batch.samples);
        let mut inputs = targets.clone();
        let len = inputs.channels * inputs.height * inputs.width;
        let images = inputs.pixels.chunks_exact_mut(len);
        for (image, &sample) in images.zip(&batch.samples) {
            let mut rng = order::rng(self.seed, Stream::Noise, sample);
            self.noise.spoil(image, inputs.channels, &mut rng);
        }
        NoisyBatch { inputs, targets }
    }

    /// The first few images.
    fn first(&self, n: usize) -> NoisyBatch {
        let rows: Vec<u32> = (0..n.min(self.images.len()) as u32).collect();
        let samples = rows.iter().copied().map(u64::from).collect();
        self.noisy(&Rows { rows, samples })
    }
}

impl BatchSource for NoisyImages {
    type Batch = NoisyBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> NoisyBatch {
        self.noisy(&self.epochs.batch(number))
    }
}

/// Draws clean images, what the model saw and what it made of that, three rows in `reconstructions.png`; the
/// drawings of all validations stay in `reconstructions/`.
fn draw<B: Backend>(
    model: &Autoencoder<B>,
    batch: &NoisyBatch,
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

/// One row of images a batch, as PNG; all batches are of one shape.
pub fn grid_png(rows: &[&PixelBatch]) -> image::ImageResult<Vec<u8>> {
    let PixelBatch {
        n: columns,
        channels,
        height,
        width,
        ..
    } = *rows[0];
    let side = |images: usize, pixels: usize| images * (pixels * SCALE + GAP) - GAP;
    let (full_height, full_width) = (side(rows.len(), height), side(columns, width));
    let mut bytes = vec![255; full_height * full_width * channels];
    for (row, batch) in rows.iter().enumerate() {
        for column in 0..columns {
            let image = batch.image(column);
            let (top, left) = (row * (height * SCALE + GAP), column * (width * SCALE + GAP));
            for y in 0..height * SCALE {
                for x in 0..width * SCALE {
                    let to = ((top + y) * full_width + left + x) * channels;
                    for channel in 0..channels {
                        let from = (channel * height + y / SCALE) * width + x / SCALE;
                        bytes[to + channel] = (image[from] * 255.0).round() as u8;
                    }
                }
            }
        }
    }
    let colour = match channels {
        1 => ExtendedColorType::L8,
        _ => ExtendedColorType::Rgb8,
    };
    let mut png = Cursor::new(Vec::new());
    let (width, height) = (full_width as u32, full_height as u32);
    image::write_buffer_with_format(&mut png, &bytes, width, height, colour, ImageFormat::Png)?;
    Ok(png.into_inner())
}

fn run(draft: Draft, options: Options) -> Result<Status, Failure> {
    let recipe: AutoencoderRecipe = draft.finish()?;
    recipe.check()?;
    recipe.training.check_images()?;
    let ImageData {
        valid,
        test,
        split_seed,
        valid_limit,
        ..
    } = recipe.data;
    let images = source::images(&recipe.data.source, square(recipe.data.size))?;
    let config = recipe.config(&images)?;
    recipe.augment.check(&images)?;
    let mut splits = ImageSplits::new(&images, valid, test, split_seed)?;
    if valid_limit > 0 && splits.valid.len() > valid_limit {
        let order = order::shuffled(splits.valid.len(), split_seed, 0);
        let rows: Vec<_> = order[..valid_limit]
            .iter()
            .map(|&row| row as usize)
            .collect();
        splits.valid = splits.valid.select(&rows);
    }
    let work = Run {
        recipe,
        config,
        splits,
        options,
    };
    let checkpointing = work.recipe.training.gradient_checkpointing;
    train_on(work.options.backend, checkpointing, work)?
}

/// A prepared run, waiting for its backend.
struct Run {
    recipe: AutoencoderRecipe,
    config: AutoencoderConfig,
    splits: ImageSplits,
    options: Options,
}

impl WithBackend for Run {
    type Output = Result<Status, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let Self {
            recipe,
            config,
            splits: ImageSplits { train, valid, .. },
            options,
        } = self;
        B::seed(&device, recipe.seed);
        let model = model::init::materialise(config.init(&device));
        let batch_size = recipe.training.batch_size;
        let batches = |images, epochs, augment, seed| {
            Arc::new(NoisyImages::new(
                images,
                epochs,
                augment,
                recipe.noise,
                seed,
            ))
        };
        let (batching, accumulation) = (recipe.training.batching(), recipe.training.accumulation);
        let lengths = vec![1; train.len()];
        let digest = data::digest(train.len(), |at| train.image(at).to_vec());
        let shuffled = Epochs::shuffled(lengths, batching, accumulation, recipe.seed);
        let in_order = Epochs::in_order(valid.len(), batch_size);
        let valid = batches(valid, in_order, Augment::NONE, recipe.data.split_seed);
        let (drawn, draws_on) = (valid.first(COLUMNS), device.clone());
        let (precision, preprocessor) = (recipe.bundle.precision, preprocessor_json(&config));
        Session {
            name: ENTRY.name.into(),
            recipe: recipe::to_toml(&recipe)?,
            seed: recipe.seed,
            training: recipe.training.clone(),
            optimizer: recipe.optimizer.clone(),
            schedule: recipe.schedule.clone(),
            guard: recipe.guard,
            data: digest,
            groups: Vec::new(),
            objective: DenoisingAutoencoder::<B>::new(model, recipe.loss.kind),
            device,
            train: batches(train, shuffled, recipe.augment, recipe.seed),
            valid,
            test: None,
            unit: Unit::Samples,
            export: Box::new(
                move |objective: &DenoisingAutoencoder<B::InnerBackend>, path| {
                    let config = bundle::config_json(Architecture::ConvAutoencoder, &config, None);
                    let files = [(bundle::PREPROCESSOR, preprocessor.as_bytes())];
                    Ok(bundle::write(
                        path,
                        &config,
                        &objective.model,
                        precision,
                        &files,
                    )?)
                },
            ),
            after_validation: Some(Box::new(move |objective, run| {
                draw(&objective.model, &drawn, &draws_on, run)
            })),
            options,
        }
        .launch()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::optim::{GradientsParams, Optimizer as _};
    use data::order::Batching;
    use train::optim::optimizer::Optimizer;

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
        NoisyImages::new(images, epochs, Augment::NONE, noise, seed)
    }

    fn floats(values: &[f32]) -> Tensor<Flex, 4> {
        let values = burn::tensor::TensorData::new(values.to_vec(), [1, 1, 1, values.len()]);
        Tensor::from_data(values, &Default::default())
    }

    fn sums(logits: &[f32], targets: &[f32], kind: LossKind) -> [f32; 2] {
        let LossSums { loss, sums, .. } =
            reconstruction_loss(floats(logits), floats(targets), kind);
        [loss.into_scalar(), sums[0].clone().into_scalar()]
    }

    #[test]
    fn the_built_in_recipe_is_possible() {
        let recipe = AutoencoderRecipe::built_in().unwrap();
        recipe.check().unwrap();
        assert_eq!(recipe.objective, ENTRY.name);
        assert_eq!(
            recipe.config(&data::mnist()).unwrap().latent_size,
            recipe.model.latent_size
        );
    }

    #[test]
    fn impossible_noise_is_named() {
        let mut recipe = AutoencoderRecipe::built_in().unwrap();
        recipe.noise.masking = 1.0;
        let error = recipe.check().unwrap_err();
        assert_eq!(error.to_string(), "noise.masking is 1; it must be in 0..1");
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
    fn cross_entropy_is_what_a_hand_works_out() {
        // x = 0: ln 2 whatever the target. x = ln 3: s(x) = 3/4, so -ln(3/4) for ink, -ln(1/4) for none.
        let ln3 = 3f32.ln();
        let [loss, squares] = sums(&[0.0, ln3, ln3], &[0.5, 1.0, 0.0], LossKind::Bce);
        let expected = 2f32.ln() + (4f32 / 3.0).ln() + 4f32.ln();
        assert!((loss - expected).abs() < 1e-5, "{loss}, not {expected}");
        // (1/2 - 1/2)^2 + (3/4 - 1)^2 + (3/4)^2 = 0 + 1/16 + 9/16.
        assert!((squares - 0.625).abs() < 1e-6, "{squares}");
        let [loss, _] = sums(&[0.0, ln3, ln3], &[0.5, 1.0, 0.0], LossKind::Mse);
        assert!((loss - 0.625).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn cross_entropy_of_huge_logits_is_finite() {
        // A logit of 200 costs 200 where there is no ink and nothing where there is.
        assert_eq!(
            sums(&[200.0, 200.0, -200.0], &[0.0, 1.0, 0.0], LossKind::Bce)[0],
            200.0
        );
    }

    #[test]
    fn psnr_follows_from_mse() {
        let mut metrics = Metrics::from([("mse".into(), 0.01)]);
        <DenoisingAutoencoder<Flex> as Objective<Flex>>::derive(&mut metrics);
        assert!((metrics["psnr"] - 20.0).abs() < 1e-9);
        assert_eq!(psnr(0.0), 100.0);
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
        let recipe = AutoencoderRecipe::built_in().unwrap();
        let images = bars(5, 1);
        let config = recipe.config(&images).unwrap();
        let model = config.init::<B>(&device);
        let mut objective = DenoisingAutoencoder::new(model, LossKind::Mse);
        let batch = batches(images, NOISE, 1).batch(0);
        let groups = recipe.optimizer.groups(&[], &objective).unwrap();
        let mut optimizer = Optimizer::<B>::new(recipe.optimizer, groups);
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
    fn the_grid_shows_rows_of_doubled_images() {
        let set = bars(2, 3);
        let batch = PixelBatch::of(&set, &[0, 1]);
        let png = image::load_from_memory(&grid_png(&[&batch, &batch]).unwrap())
            .unwrap()
            .to_rgb8();
        // Two images of 5x6, doubled, with a gap of 2 between them.
        assert_eq!(png.dimensions(), (22, 26));
        assert_eq!(png.get_pixel(0, 0).0, [255; 3], "the first bar");
        assert_eq!(png.get_pixel(2, 1).0, [0; 3]);
        assert_eq!(png.get_pixel(10, 0).0, [255; 3], "the gap");
        assert_eq!(png.get_pixel(12, 25).0, [0; 3]);
        assert_eq!(png.get_pixel(14, 25).0, [255; 3], "the second bar");
    }

    #[test]
    fn drawings_of_all_validations_stay() {
        let folder = tempfile::tempdir().unwrap();
        let device = Default::default();
        let images = bars(3, 1);
        let recipe = AutoencoderRecipe::built_in().unwrap();
        let model = recipe.config(&images).unwrap().init::<Flex>(&device);
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
