//! Segmentation: a class for each pixel. In: images with a mask each. Out: a model that draws masks.
//!
//! Pixels of class 255 are no one's: nothing is learned of them.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::image::{ImageTargets, TargetKind};
use model::{HeadKind, Segmenter};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::image::{ImageModel, ImageRows};
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::masks::{by_pixel, mask_loss};
use train::recipe::Impossible;
use train::scores::masks::MaskTally;

use crate::targets::{
    OnImages, TargetBatch, TargetLoss, Targets, VisionObjective, VisionTally, VisionTask,
};

/// The task; `assets/recipes/image-segmentation.toml` and the files that it names explain every key.
pub type ImageSegmentation = OnImages<Segmentation>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Segmentation {
    /// How it is judged.
    pub loss: MaskLossRecipe,
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskLossRecipe {
    /// Times the Dice loss, beside the cross-entropy.
    pub dice: f64,
}

impl VisionTask for Segmentation {
    const NAME: &'static str = "image-segmentation";
    const ABOUT: &'static str = "a class for each pixel of images";
    const RECIPE: &'static str = include_str!("../../assets/recipes/image-segmentation.toml");
    const HEAD: HeadKind = HeadKind::Masks;
    const NEEDS: &'static str =
        "masks: a folder needs the folders images and masks, whose files have the same names";
    const COLUMN: TargetKind = TargetKind::Class;
    const PLACED: bool = true;

    fn check(&self) -> Result<(), Impossible> {
        let dice = self.loss.dice;
        if dice.is_finite() && dice >= 0.0 {
            return Ok(());
        }
        let reason = format!("is {dice}; it must be 0 or more");
        Err(Impossible::new("loss.dice", reason))
    }

    fn takes(targets: &ImageTargets) -> bool {
        matches!(targets, ImageTargets::Masks(_))
    }

    /// Those that are named, or the numbers in the masks.
    fn classes(&self, train: &ImageRows, largest: Option<u8>) -> Vec<String> {
        let named = &train.classes;
        let name = |class: usize| named.get(class).cloned().unwrap_or(class.to_string());
        let seen = usize::from(largest.unwrap_or(0)) + 1;
        (0..seen.max(named.len()).max(2)).map(name).collect()
    }

    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        classes: &[String],
        _: &ImageRows,
        start: &Start,
        device: &B::Device,
    ) -> Result<VisionObjective<B>, Failure> {
        let config = &model.config;
        let names = config.names(Self::HEAD);
        let model = Segmenter::draw(config, classes.len(), &start.draw(device, names));
        let load = start.load_for(Self::HEAD, classes)?;
        let model = start.fill(model, names, load)?;
        let dice = self.loss.dice;
        Ok(Masks { model, dice }.into())
    }
}

/// A model that segments, with its loss.
#[derive(Module, Debug)]
pub struct Masks<B: Backend> {
    /// The model.
    pub model: Segmenter<B>,
    dice: f64,
}

impl<B: Backend> Masks<B> {
    /// Scores of the classes at all pixels, `[batch * height * width, n_classes]`, and the number of pixels of an image.
    fn logits(&self, batch: &TargetBatch, device: &B::Device) -> (Tensor<B, 2>, usize) {
        by_pixel(self.model.logits(batch.images.tensor(device)))
    }

    fn sums(&self, logits: Tensor<B, 2>, area: usize, truths: &[u8]) -> LossSums<B> {
        mask_loss(logits, area, truths, self.dice)
    }
}

/// All masks of a batch, `[batch * height * width]`.
fn truths(batch: &TargetBatch) -> Vec<u8> {
    match &batch.targets {
        Targets::Masks(masks) => masks.concat(),
        _ => vec![],
    }
}

impl<B: Backend> TargetLoss<B> for Masks<B> {
    type Model = Segmenter<B>;
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::higher("iou"),
        Metric::higher("dice"),
        Metric::higher("pixel_accuracy"),
    ];

    fn model(&self) -> Self::Model {
        self.model.clone()
    }

    fn loss(&self, batch: &TargetBatch, device: &B::Device) -> LossSums<B> {
        let (logits, area) = self.logits(batch, device);
        self.sums(logits, area, &truths(batch))
    }

    fn tally(&self, batch: &TargetBatch, device: &B::Device) -> VisionTally {
        let (logits, area) = self.logits(batch, device);
        let [rows, classes] = logits.dims();
        let truths = truths(batch);
        let sums = self.sums(logits.clone(), area, &truths);
        let predicted = logits.argmax(1).reshape([rows]).into_data();
        let predicted: Vec<u32> = predicted.iter::<i64>().map(|class| class as u32).collect();
        let truths: Vec<u32> = truths.iter().map(|&class| u32::from(class)).collect();
        let mut judged = MaskTally::new(classes);
        judged.add(&predicted, &truths);
        VisionTally::read(sums, judged)
    }
}
