//! Regression: a number for each image. In: images with a value each. Out: a model that estimates it.
//!
//! A new head begins at the mean and with the deviation of the training images' values, and errors are counted in deviations, so
//! that rates do not depend on the unit; a bundle's outputs are the values themselves.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{FloatDType, TensorData};
use data::image::{ImageTargets, TargetKind};
use model::bundle::Load;
use model::layers::Linear;
use model::{HeadKind, ImageClassifier};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::image::{ImageModel, ImageRows};
use train::metrics::Metric;
use train::objective::LossSums;
use train::recipe::Impossible;
use train::scores::values::ValuesTally;

use crate::targets::{
    Kind, OnImages, TargetBatch, TargetLoss, Targets, VisionObjective, VisionTally, VisionTask,
};

/// The task; `assets/recipes/image-regression.toml` and the files that it names explain every key.
pub type ImageRegression = OnImages<RegressionTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegressionTask {
    /// How it is judged.
    pub loss: ValueLossRecipe,
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueLossRecipe {
    /// What an error costs.
    pub kind: ValueLoss,
}

/// What validation of values reports.
pub(crate) const METRICS: &[Metric] = &[
    // In deviations; the others in units of the values.
    Metric::LOSS,
    Metric::lower("mae"),
    Metric::lower("rmse"),
    Metric::higher("r2"),
    Metric::higher("pearson"),
    Metric::higher("spearman"),
];

/// What an error costs, in deviations of the training values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueLoss {
    /// Its square.
    Mse,
    /// As much as it is.
    Mae,
}

impl VisionTask for RegressionTask {
    const NAME: &'static str = "image-regression";
    const ABOUT: &'static str = "a number for each image";
    const RECIPE: &'static str = include_str!("../../assets/recipes/image-regression.toml");
    const HEAD: HeadKind = HeadKind::Classes;
    const NEEDS: &'static str = "values: a table of images needs a column \"value\"";
    const COLUMN: TargetKind = TargetKind::Value;
    const PLACED: bool = false;

    fn check(&self) -> Result<(), Impossible> {
        Ok(())
    }

    fn takes(targets: &ImageTargets) -> bool {
        matches!(targets, ImageTargets::Values(_))
    }

    fn classes(&self, _: &ImageRows, _: Option<u8>) -> Vec<String> {
        vec!["value".into()]
    }

    fn head_config(&self) -> serde_json::Value {
        serde_json::json!({"problem_type": "regression"})
    }

    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        classes: &[String],
        train: &ImageRows,
        start: &Start,
        device: &B::Device,
    ) -> Result<VisionObjective<B>, Failure> {
        let config = &model.config;
        let names = config.names(Self::HEAD);
        let model = ImageClassifier::draw(config, 1, &start.draw(device, names));
        let load = start.load_for(Self::HEAD, classes)?;
        let mut model = start.fill(model, names, load)?;
        let values = match &train.targets {
            ImageTargets::Values(values) => values.as_slice(),
            _ => &[],
        };
        let (mean, deviation) = statistics(values);
        if load == Load::Backbone {
            move_to(&mut model.head.output, mean, deviation);
        }
        let absolute = self.loss.kind == ValueLoss::Mae;
        let scale = ErrorScale {
            absolute,
            deviation,
        };
        Ok(Values { model, scale }.into())
    }
}

/// Gives a new layer's outputs this mean and deviation, so that what it learns first is not where the values are.
pub(crate) fn move_to<B: Backend>(output: &mut Linear<B>, mean: f64, deviation: f64) {
    output.weight = output.weight.clone().map(|weight| weight * deviation);
    let moved = |bias: Param<Tensor<B, 1>>| bias.map(|bias| bias * deviation + mean);
    output.bias = output.bias.take().map(moved);
}

/// Mean and deviation of values; a deviation of 1 where they are all equal.
pub(crate) fn statistics(values: &[f32]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
    let squares = values
        .iter()
        .map(|&value| (f64::from(value) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / n).sqrt();
    (mean, if deviation > 0.0 { deviation } else { 1.0 })
}

/// A model of one output with its loss.
#[derive(Module, Debug)]
pub struct Values<B: Backend> {
    /// The model.
    pub model: ImageClassifier<B>,
    scale: ErrorScale,
}

/// What an error costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorScale {
    /// As much as it is, and not its square.
    pub(crate) absolute: bool,
    /// What it is measured in: a deviation of the training values.
    pub(crate) deviation: f64,
}

impl ErrorScale {
    /// - estimates: `[batch, 1]`
    pub(crate) fn sums<B: Backend>(self, estimates: Tensor<B, 2>, truths: &[f32]) -> LossSums<B> {
        let n = truths.len();
        let truths = TensorData::new(truths.to_vec(), [n, 1]);
        let truths = Tensor::<B, 2>::from_data(truths, &estimates.device());
        let off = (estimates - truths) / self.deviation;
        let cost = if self.absolute {
            off.abs()
        } else {
            off.clone() * off
        };
        LossSums::new(cost.sum(), vec![], n)
    }
}

impl<B: Backend> Values<B> {
    /// Estimates, `[batch, 1]`.
    fn estimates(&self, batch: &TargetBatch, device: &B::Device) -> Tensor<B, 2> {
        let estimates = self.model.logits(batch.images.tensor(device));
        estimates.cast(FloatDType::F32)
    }
}

fn truths(batch: &TargetBatch) -> &[f32] {
    match &batch.targets {
        Targets::Values(values) => values,
        _ => &[],
    }
}

impl<B: Backend> TargetLoss<B> for Values<B> {
    type Model = ImageClassifier<B>;
    const METRICS: &'static [Metric] = METRICS;

    fn model(&self) -> &Self::Model {
        &self.model
    }

    fn loss(&self, batch: &TargetBatch, device: &B::Device) -> LossSums<B> {
        self.scale.sums(self.estimates(batch, device), truths(batch))
    }

    fn tally(&self, batch: &TargetBatch, device: &B::Device) -> VisionTally {
        let estimates = self.estimates(batch, device);
        let truths = truths(batch);
        let sums = self.scale.sums(estimates.clone(), truths);
        let mut tally = VisionTally::read(sums, Kind::Values);
        let estimates: Vec<f64> = estimates.into_data().iter::<f64>().collect();
        let truths: Vec<f64> = truths.iter().map(|&value| f64::from(value)).collect();
        tally.values = ValuesTally::new(1);
        tally.values.add(&estimates, &truths);
        tally
    }
}
