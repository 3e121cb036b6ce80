//! Segmentation: a class for each pixel. In: images with a mask each. Out: a model that draws masks.
//!
//! Cross-entropy of each pixel and the Dice loss of Milletari et al. 2016, <https://arxiv.org/abs/1606.04797>, in the form without
//! squares. Pixels of class 255 are no one's: nothing is learned of them.

use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{FloatDType, TensorData};
use data::image::{IGNORED, ImageTargets, TargetKind};
use model::{HeadKind, Segmenter};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::image::{ImageModel, ImageRows};
use train::metrics::Metric;
use train::objective::LossSums;
use train::recipe::Impossible;
use train::scores::masks::MaskTally;

use crate::targets::{
    OnImages, TargetBatch, TargetLoss, Targets, VisionObjective, VisionTally, VisionTask,
};

/// Added above and below the line of the Dice coefficient: a class that is nowhere is not wrong.
const SMOOTH: f64 = 1.0;

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
        let logits = self.model.logits(batch.images.tensor(device));
        let [batch, classes, height, width] = logits.dims();
        let logits = logits.cast(FloatDType::F32).permute([0, 2, 3, 1]);
        (
            logits.reshape([batch * height * width, classes]),
            height * width,
        )
    }

    fn sums(&self, logits: Tensor<B, 2>, area: usize, truths: &[u8]) -> LossSums<B> {
        mask_loss(logits, area, truths, self.dice)
    }
}

/// The loss of images, summed over them: the mean cross-entropy of an image's pixels, and its Dice loss, a mean over classes.
///
/// - logits: `[batch * area, n_classes]`
/// - area: pixels of an image
/// - truths: `[batch * area]`; 255 is no class
/// - dice: times the Dice loss
pub fn mask_loss<B: Backend>(
    logits: Tensor<B, 2>,
    area: usize,
    truths: &[u8],
    dice: f64,
) -> LossSums<B> {
    let ([rows, classes], device) = (logits.dims(), logits.device());
    let batch = rows / area;
    let mut weights = Vec::with_capacity(rows);
    for image in truths.chunks_exact(area) {
        let known = image.iter().filter(|class| **class != IGNORED).count();
        let weight = 1.0 / known.max(1) as f32;
        let of_pixel = |class: &u8| if *class == IGNORED { 0.0 } else { weight };
        weights.extend(image.iter().map(of_pixel));
    }
    // What is ignored counts as the first class, with a weight of nothing.
    let targets = truths.iter().map(|&class| {
        if class == IGNORED {
            0
        } else {
            u32::from(class)
        }
    });
    let targets: Vec<u32> = targets.collect();
    let known: Vec<f32> = truths
        .iter()
        .map(|&class| f32::from(class != IGNORED))
        .collect();
    let vector =
        |values: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::new(values, [rows]), &device);
    let losses = model::ops::cross_entropy(logits.clone(), &targets);
    let mut loss = (losses * vector(weights)).sum();
    if dice > 0.0 {
        let ids: Vec<i32> = targets.iter().map(|&class| class as i32).collect();
        let ids = Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [rows]), &device);
        let all = Tensor::<B, 1, Int>::arange(0..classes as i64, &device);
        let truth = ids.unsqueeze_dim::<2>(1).expand([rows, classes]);
        let truth = truth
            .equal(all.unsqueeze_dim::<2>(0).expand([rows, classes]))
            .float();
        let known = vector(known).unsqueeze_dim::<2>(1);
        let by_image = |x: Tensor<B, 2>| -> Tensor<B, 2> {
            let x: Tensor<B, 3> = x.reshape([batch, area, classes]);
            x.sum_dim(1).squeeze_dim(1)
        };
        let shares = softmax(logits, 1) * known.clone();
        let truth = truth * known;
        let shared = by_image(shares.clone() * truth.clone());
        let sizes = by_image(shares + truth);
        let coefficient = (shared * 2.0 + SMOOTH) / (sizes + SMOOTH);
        let lost = (coefficient * -1.0 + 1.0).sum() / classes as f64;
        loss = loss + lost * dice;
    }
    LossSums::new(loss, vec![], batch)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Diff, Golden};

    #[test]
    fn the_dice_loss_and_its_gradient_are_those_of_torch() {
        let golden = Golden::open("dice");
        let logits = golden.leaf::<4>("logits");
        let [batch, classes, height, width] = logits.dims();
        let truths: Vec<u8> = golden.values("labels").iter().map(|&x| x as u8).collect();
        let flat = logits.clone().permute([0, 2, 3, 1]);
        let flat = flat.reshape([batch * height * width, classes]);
        let with = mask_loss(flat.clone(), height * width, &truths, 1.0);
        let without = mask_loss(flat, height * width, &truths, 0.0);
        let loss = (with.loss - without.loss) / batch as f64;
        golden.near("loss.plain", loss.clone());
        let gradient = logits.grad(&loss.backward()).unwrap();
        golden.near("grad.plain.logits", gradient);
    }

    #[test]
    fn nothing_is_learned_of_what_belongs_to_no_class() {
        let device = Default::default();
        let logits = |last: f32| {
            let values = TensorData::new(vec![1.0, -1.0, 0.5, 2.0, last, -last], [3, 2]);
            Tensor::<Diff, 2>::from_data(values, &device)
        };
        let loss = |last| {
            mask_loss(logits(last), 3, &[0, 1, IGNORED], 1.0)
                .loss
                .into_scalar()
        };
        assert_eq!(loss(3.0), loss(-8.0));
        let none = mask_loss(logits(1.0), 3, &[IGNORED; 3], 1.0)
            .loss
            .into_scalar();
        assert!(none.is_finite());
    }
}
