//! A number for each text, or for each pair. In: texts with their values. Out: a model of one output.

use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::backend::AutodiffBackend;
use data::ItemKind;
use model::bundle::Load;
use model::families::Place;
use model::{HeadKind, TextClassifier};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use train::Failure;
use train::job::Start;
use train::job::items::{ItemBatch, ItemData, ItemTargets, Items, RowTarget};
use train::metrics::Metric;
use train::objective::LossSums;
use train::recipe::Impossible;

use crate::on_texts::{ItemLoss, OnTexts, TextObjective, TextTally, TextTask};
use crate::pair_classification::{classifier, logits};
use crate::values::{self, ValueLoss, ValueLossRecipe, ValueScale};

/// The task; `assets/recipes/text-regression.toml` and the files that it names explain every key.
pub type TextRegression = OnTexts<TextRegressionTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TextRegressionTask {
    /// How errors count.
    pub loss: ValueLossRecipe,
}

impl TextTask for TextRegressionTask {
    const NAME: &'static str = "text-regression";
    const ABOUT: &'static str = "a number for each text or pair of texts";
    const RECIPE: &'static str = include_str!("../../assets/recipes/text-regression.toml");
    const HEAD: HeadKind = HeadKind::Classes;
    const KIND: ItemKind = ItemKind::Value;
    const UNIT: &'static str = "texts";
    const NEEDS: &'static str = "a table with a column of texts and one of numbers";

    fn check(&self, _: &Items) -> Result<(), Impossible> {
        Ok(())
    }

    fn classes(&self, _: &ItemData) -> Option<Vec<String>> {
        Some(vec!["value".into()])
    }

    fn head_config(&self, data: &ItemData) -> Value {
        scale(data).head_config()
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure> {
        let names = ["value".to_string()];
        let (mut model, place) = classifier(data, 1, &names, start, device)?;
        let scale = scale(data);
        if start.load_for(HeadKind::Classes, &names)? == Load::Whole {
            scale.of_values(&mut model.head.output);
        }
        let absolute = self.loss.kind == ValueLoss::Mae;
        Ok(TextValues {
            model,
            place,
            scale,
            absolute,
        }
        .into())
    }
}

/// The scale of the training texts' values.
fn scale(data: &ItemData) -> ValueScale {
    let values = data.train.rows.iter().filter_map(|row| match row.target {
        RowTarget::Value(value) => Some(value),
        _ => None,
    });
    let values: Vec<f32> = values.collect();
    ValueScale::of(&values, data.config.class_plan().bias)
}

/// A model of one output with its loss.
#[derive(Module, Debug)]
pub struct TextValues<B: Backend> {
    /// The model.
    pub model: TextClassifier<B>,
    place: Place,
    scale: ValueScale,
    absolute: bool,
}

fn truths(batch: &ItemBatch) -> &[f32] {
    match &batch.targets {
        ItemTargets::Values(values) => values,
        _ => &[],
    }
}

impl<B: Backend> TextValues<B> {
    fn estimates(&self, batch: &ItemBatch, device: &B::Device) -> Tensor<B, 2> {
        logits(&self.model, self.place, batch, device).cast(FloatDType::F32)
    }
}

impl<B: Backend> ItemLoss<B> for TextValues<B> {
    type Model = TextClassifier<B>;

    fn model(&self) -> Self::Model {
        let mut model = self.model.clone();
        self.scale.to_values(&mut model.head.output);
        model
    }

    fn metrics(&self) -> &'static [Metric] {
        values::METRICS
    }

    fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B> {
        let estimates = self.estimates(batch, device);
        self.scale.sums(estimates, truths(batch), self.absolute)
    }

    fn tally(&self, batch: &ItemBatch, device: &B::Device) -> TextTally {
        let estimates = self.estimates(batch, device);
        let truths = truths(batch);
        let sums = self.scale.sums(estimates.clone(), truths, self.absolute);
        TextTally {
            judged: self.scale.tally(estimates, truths).into(),
            ..TextTally::read(sums, &[])
        }
    }
}
