//! Regression: a number for each image. In: images with a value each. Out: a model that estimates it.
//!
//! A new head begins at the mean and with the deviation of the training images' values, and errors are counted in deviations, so
//! that rates do not depend on the unit; a bundle's outputs are the values themselves.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{FloatDType, TensorData};
use data::image::{ImageTargets, TargetKind};
use model::bundle::Load;
use model::layers::Linear;
use model::{HeadKind, ImageClassifier};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use train::Failure;
use train::job::Start;
use train::job::image::{ImageModel, ImageRows};
use train::metrics::Metric;
use train::objective::LossSums;
use train::recipe::Impossible;
use train::scores::values::ValuesTally;

use crate::targets::{
    OnImages, TargetBatch, TargetLoss, Targets, VisionObjective, VisionTally, VisionTask,
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

    fn head_config(&self, train: &ImageRows) -> Value {
        ValueScale::of(values_of(train), true).head_config()
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
        let scale = ValueScale::of(values_of(train), true);
        if load == Load::Whole {
            scale.of_values(&mut model.head.output);
        }
        let absolute = self.loss.kind == ValueLoss::Mae;
        Ok(Values {
            model,
            scale,
            absolute,
        }
        .into())
    }
}

/// The value of each image.
fn values_of(rows: &ImageRows) -> &[f32] {
    match &rows.targets {
        ImageTargets::Values(values) => values,
        _ => &[],
    }
}

/// The scale of values: a model learns in deviations from their mean, whatever their unit, and its bundle gives values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ValueScale {
    mean: f64,
    deviation: f64,
}

impl ValueScale {
    /// That of these values; a deviation of 1 where they are all equal. A layer without a bias keeps their mean.
    pub(crate) fn of(values: &[f32], has_bias: bool) -> Self {
        let n = values.len().max(1) as f64;
        let sum = values.iter().map(|&value| f64::from(value)).sum::<f64>();
        let mean = if has_bias { sum / n } else { 0.0 };
        let squares = values
            .iter()
            .map(|&value| (f64::from(value) - mean).powi(2));
        let deviation = (squares.sum::<f64>() / n).sqrt();
        let deviation = if deviation > 0.0 { deviation } else { 1.0 };
        Self { mean, deviation }
    }

    /// Keys of the `config.json` of a model of one value; `apps evaluate` counts errors in the same deviations.
    pub(crate) fn head_config(self) -> Value {
        json!({"problem_type": "regression", "value_deviation": self.deviation})
    }

    /// A layer that gives values, as one that gives deviations.
    pub(crate) fn of_values<B: Backend>(self, output: &mut Linear<B>) {
        self.change(output, 1.0 / self.deviation, -self.mean / self.deviation);
    }

    /// A layer that gives deviations, as one that gives values.
    pub(crate) fn to_values<B: Backend>(self, output: &mut Linear<B>) {
        self.change(output, self.deviation, self.mean);
    }

    fn change<B: Backend>(self, output: &mut Linear<B>, times: f64, plus: f64) {
        output.weight = output.weight.clone().map(|weight| weight * times);
        let bias = output.bias.take();
        output.bias = bias.map(|bias| bias.map(|bias| bias * times + plus));
    }

    /// Estimates in deviations beside the true values.
    ///
    /// - estimates: `[batch, 1]`
    pub(crate) fn tally<B: Backend>(self, estimates: Tensor<B, 2>, truths: &[f32]) -> ValuesTally {
        let estimates = estimates.into_data();
        let value = |estimate: f64| estimate * self.deviation + self.mean;
        let estimates: Vec<f64> = estimates.iter::<f64>().map(value).collect();
        let truths: Vec<f64> = truths.iter().map(|&value| f64::from(value)).collect();
        let mut tally = ValuesTally::new(1);
        tally.add(&estimates, &truths);
        tally
    }

    /// The error of estimates in deviations.
    ///
    /// - estimates: `[batch, 1]`
    /// - absolute: as much as it is, and not its square
    pub(crate) fn sums<B: Backend>(
        self,
        estimates: Tensor<B, 2>,
        truths: &[f32],
        absolute: bool,
    ) -> LossSums<B> {
        let n = truths.len();
        let scaled = |&truth: &f32| ((f64::from(truth) - self.mean) / self.deviation) as f32;
        let truths: Vec<f32> = truths.iter().map(scaled).collect();
        let truths = TensorData::new(truths, [n, 1]);
        let off = estimates.clone() - Tensor::<B, 2>::from_data(truths, &estimates.device());
        let cost = if absolute {
            off.abs()
        } else {
            off.clone() * off
        };
        LossSums::new(cost.sum(), vec![], n)
    }
}

/// A model of one output with its loss.
#[derive(Module, Debug)]
pub struct Values<B: Backend> {
    /// The model.
    pub model: ImageClassifier<B>,
    scale: ValueScale,
    absolute: bool,
}

impl<B: Backend> Values<B> {
    /// Estimates in deviations, `[batch, 1]`.
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

    fn model(&self) -> Self::Model {
        let mut model = self.model.clone();
        self.scale.to_values(&mut model.head.output);
        model
    }

    fn loss(&self, batch: &TargetBatch, device: &B::Device) -> LossSums<B> {
        let estimates = self.estimates(batch, device);
        self.scale.sums(estimates, truths(batch), self.absolute)
    }

    fn tally(&self, batch: &TargetBatch, device: &B::Device) -> VisionTally {
        let estimates = self.estimates(batch, device);
        let truths = truths(batch);
        let sums = self.scale.sums(estimates.clone(), truths, self.absolute);
        VisionTally::read(sums, self.scale.tally(estimates, truths))
    }
}
