//! Masked autoencoder of images (MAE). In: images. Out: a vision transformer that saw a few patches of each, and had to give the
//! others back.
//!
//! He et al. 2022, <https://arxiv.org/abs/2111.06377>. Which patches are hidden is a function of (seed, epoch, image).

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{FloatDType, TensorData};
use data::order::{self, Stream};
use model::bundle::{ImageInput, Load};
use model::heads::masked::{MaskedConfig, Order, patch_statistics, patchify};
use model::registry::ImageBackbone;
use model::{HeadKind, ImageConfig, MaskedAutoencoder};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::{ImageModel, PixelBatch};
use train::job::{BundleWriter, Start};
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::probe;
use train::recipe::Impossible;
use train::source::Rows;

use crate::images::{
    Chance, Drawings, ImageBatch, ImageLoss, ImageObjective, ImagePretraining, OfImages, Reader,
};

/// The objective; `assets/recipes/mae.toml` and the files that it names explain every key.
pub type Mae = OfImages<Masking>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Masking {
    /// Which patches are hidden.
    pub masking: MaskingRecipe,
    /// What gives them back.
    pub decoder: DecoderRecipe,
    /// How it is judged.
    pub loss: PatchLossRecipe,
}

/// `[masking]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskingRecipe {
    /// Share of the patches that is hidden.
    pub ratio: f64,
}

/// `[decoder]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // assets/recipes/mae.toml explains every key.
pub struct DecoderRecipe {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchLossRecipe {
    /// Whether the pixels of each patch are given back with mean 0 and deviation 1.
    pub norm_pix: bool,
}

impl ImagePretraining for Masking {
    const NAME: &'static str = "mae";
    const ABOUT: &'static str = "a vision transformer gives hidden patches of images back";
    const RECIPE: &'static str = include_str!("../../assets/recipes/mae.toml");
    const HEAD: HeadKind = HeadKind::Patches;
    const PLAIN: bool = false;
    const AUGMENTS_VALIDATION: bool = false;

    fn check(&self) -> Result<(), Impossible> {
        let ratio = self.masking.ratio;
        if !(ratio > 0.0 && ratio < 1.0) {
            let reason = format!("is {ratio}; it must be between 0 and 1");
            return Err(Impossible::new("masking.ratio", reason));
        }
        let wrong = |reason| Impossible::new("decoder", format!("is impossible: {reason}"));
        self.head().check().map_err(wrong)
    }

    fn check_model(&self, model: &ImageModel) -> Result<(), Impossible> {
        if let ImageConfig::ViT(config) = &model.config {
            let [rows, columns] = config.grid();
            if rows * columns < 2 {
                let reason = "leaves one patch, and one that is hidden needs another one";
                return Err(Impossible::new("model.patch_size", reason));
            }
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
        let names = model.config.names(Self::HEAD);
        let draw = start.draw(device, names);
        let ImageModel { config, input } = model;
        let model = MaskedAutoencoder::draw(config, self.head(), &draw);
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        let [patch_height, patch_width] = patch_size(config);
        Ok(PatchReconstruction {
            model,
            patch_height,
            patch_width,
            normalised: self.loss.norm_pix,
            values: Values::new(input, device),
        }
        .into())
    }

    fn batch(&self, images: &Reader, rows: &Rows, model: &ImageModel) -> ImageBatch {
        let view = images.view(rows, 0);
        let [high, wide] = patch_size(&model.config);
        let n = (view.height / high) * (view.width / wide);
        let order = rows.samples.iter().flat_map(|&sample| {
            let mut patches: Vec<u32> = (0..n as u32).collect();
            patches.shuffle(&mut order::rng(images.seed, Stream::Mask, sample));
            patches
        });
        let order = Order {
            patches: order.collect(),
            batch: view.n,
            visible: self.head().visible(n),
        };
        ImageBatch {
            views: vec![view],
            chance: Chance::Order(order),
            ..ImageBatch::default()
        }
    }

    /// Images, what the model saw of them, and that with what it made of the rest.
    fn draw<B: Backend>(
        &self,
        objective: &ImageObjective<B>,
        first: &ImageBatch,
        device: &B::Device,
        drawings: &Drawings<'_>,
    ) -> anyhow::Result<()> {
        let ImageObjective::Patches(objective) = objective else {
            return Ok(());
        };
        let [images, seen, whole] = objective.pictures(first, device).map(PixelBatch::read);
        drawings.write("reconstructions", &[&images, &seen, &whole])
    }
}

impl Masking {
    fn head(&self) -> MaskedConfig {
        let decoder = self.decoder;
        MaskedConfig {
            decoder_hidden_size: decoder.hidden_size,
            decoder_num_hidden_layers: decoder.num_hidden_layers,
            decoder_num_attention_heads: decoder.num_attention_heads,
            decoder_intermediate_size: decoder.intermediate_size,
            mask_ratio: self.masking.ratio,
            norm_pix_loss: self.loss.norm_pix,
        }
    }
}

/// Height and width of a patch, in pixels.
fn patch_size(config: &ImageConfig) -> [usize; 2] {
    match config {
        ImageConfig::ViT(config) => config.patch_size.both(),
        _ => [1, 1],
    }
}

/// What makes pixels of what the model sees: its normalisation undone.
#[derive(Module, Debug)]
pub struct Values<B: Backend> {
    mean: Tensor<B, 4>,
    std: Tensor<B, 4>,
}

impl<B: Backend> Values<B> {
    fn new(input: &ImageInput, device: &B::Device) -> Self {
        let tensor = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            let channels = values.len();
            Tensor::from_data(TensorData::new(values, [1, channels, 1, 1]), device)
        };
        Self {
            mean: tensor(&input.mean),
            std: tensor(&input.std),
        }
    }

    /// Pixels from 0 to 1, `[batch, channels, height, width]` in and out.
    fn pixels(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        (images * self.std.clone() + self.mean.clone()).clamp(0.0, 1.0)
    }
}

/// A masked autoencoder with its loss, over hidden patches alone.
#[derive(Module, Debug)]
pub struct PatchReconstruction<B: Backend> {
    /// The model.
    pub model: MaskedAutoencoder<B>,
    patch_height: usize,
    patch_width: usize,
    normalised: bool,
    values: Values<B>,
}

/// What a patch is to be given back as, and what makes its values of that.
struct Targets<B: Backend> {
    patches: Tensor<B, 3>,
    mean: Tensor<B, 3>,
    deviation: Tensor<B, 3>,
}

impl<B: Backend> PatchReconstruction<B> {
    fn patch(&self) -> [usize; 2] {
        [self.patch_height, self.patch_width]
    }

    fn targets(&self, images: Tensor<B, 4>) -> Targets<B> {
        let patches = patchify(images, self.patch());
        if !self.normalised {
            let [batch, n, _] = patches.dims();
            let device = patches.device();
            return Targets {
                mean: Tensor::zeros([batch, n, 1], &device),
                deviation: Tensor::ones([batch, n, 1], &device),
                patches,
            };
        }
        let (mean, deviation) = patch_statistics(patches.clone());
        Targets {
            patches: (patches - mean.clone()) / deviation.clone(),
            mean,
            deviation,
        }
    }

    /// Images, the same with hidden patches black, and the same with what the model made of these; pixels from 0 to 1.
    fn pictures(&self, batch: &ImageBatch, device: &B::Device) -> [Tensor<B, 4>; 3] {
        let images = batch.images::<B>(device);
        let Chance::Order(order) = &batch.chance else {
            return [images.clone(), images.clone(), images];
        };
        let filled = self
            .model
            .fill_in(images, order, self.patch(), self.normalised);
        let images = self.values.pixels(filled.images);
        let seen = images.clone() * filled.seen;
        [images, seen, self.values.pixels(filled.whole)]
    }
}

/// Squared error of each patch, a mean over its values, `[batch, patches, 1]`.
///
/// - predicted, targets: `[batch, patches, values]`
pub fn patch_errors<B: Backend>(predicted: Tensor<B, 3>, targets: Tensor<B, 3>) -> Tensor<B, 3> {
    let off = predicted - targets;
    (off.clone() * off).mean_dim(2)
}

impl<B: Backend> ImageLoss<B> for PatchReconstruction<B> {
    const MEANS: &'static [&'static str] = &["mse"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        // Of the pixels of hidden patches, from 0 to 1.
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
        let Chance::Order(order) = &batch.chance else {
            let zero = Tensor::zeros([1], device);
            return LossSums::new(zero.clone(), vec![zero], 0);
        };
        let targets = self.targets(images.clone());
        let predicted = self.model.forward(images.clone(), order);
        let predicted = predicted.cast(FloatDType::F32);
        let hidden = order.hidden_patches::<B>(device);
        let count = order.batch * (order.n() - order.visible);
        let errors = patch_errors(predicted.clone(), targets.patches) * hidden.clone();
        let shown = predicted.detach() * targets.deviation + targets.mean;
        let std = patchify(self.values.std.clone().expand(images.dims()), self.patch());
        let off = (shown - patchify(images, self.patch())) * std;
        let squares = (off.clone() * off).mean_dim(2) * hidden;
        LossSums::new(errors.sum(), vec![squares.sum()], count)
    }

    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use model::heads::masked::unpatchify;

    #[test]
    fn patches_losses_and_gradients_are_those_of_torch() {
        let golden = Golden::open("mae");
        let size = golden.number("patch_size") as usize;
        let patches = patchify(golden.tensor::<4>("pixel_values"), [size; 2]);
        golden.near("patches", patches.clone());
        let [batch, n, _] = patches.dims();
        golden.near(
            "pixel_values",
            unpatchify(patches.clone(), [2, 3], [size; 2]),
        );
        let (mean, deviation) = patch_statistics(patches.clone());
        let normalised = (patches.clone() - mean) / deviation;
        golden.near("normalised", normalised.clone());
        let mask = golden.tensor::<2>("mask").reshape([batch, n, 1]);
        for (kind, targets) in [("loss", normalised), ("loss.plain", patches)] {
            let prediction = golden.leaf::<3>("prediction");
            let errors = patch_errors(prediction.clone(), targets) * mask.clone();
            let loss = errors.sum() / mask.clone().sum();
            golden.near(kind, loss.clone());
            let name = kind.replace("loss", "grad") + ".prediction";
            golden.near(&name, prediction.grad(&loss.backward()).unwrap());
        }
    }
}
