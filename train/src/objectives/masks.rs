//! The loss of a class for each pixel. In: logits and true classes of images. Out: sums.
//!
//! Cross-entropy of each pixel and the Dice loss of Milletari et al. 2016, <https://arxiv.org/abs/1606.04797>, in the form without
//! squares. Pixels of class 255 are no one's: nothing is learned of them.

use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn::tensor::{FloatDType, TensorData};
use data::image::IGNORED;

use crate::objective::LossSums;

/// Added above and below the line of the Dice coefficient: a class that is nowhere is not wrong.
const SMOOTH: f64 = 1.0;

/// Scores of the classes pixel by pixel, in full precision, and the number of pixels of an image.
///
/// - logits: `[batch, n_classes, height, width]`
/// - out: `[batch * height * width, n_classes]`
pub fn by_pixel<B: Backend>(logits: Tensor<B, 4>) -> (Tensor<B, 2>, usize) {
    let [batch, classes, height, width] = logits.dims();
    let logits = logits.cast(FloatDType::F32).permute([0, 2, 3, 1]);
    (
        logits.reshape([batch * height * width, classes]),
        height * width,
    )
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
