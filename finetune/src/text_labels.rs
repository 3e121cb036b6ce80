//! Several labels a text, or none. In: texts with their labels. Out: a classifier whose classes do not exclude each other.

use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::backend::AutodiffBackend;
use data::ItemKind;
use model::bundle::Load;
use model::families::Place;
use model::{HeadKind, TextClassifier};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::items::{ItemBatch, ItemData, ItemTargets, Items, RowTarget};
use train::metrics::Metric;
use train::objective::LossSums;
use train::recipe::Impossible;

use crate::on_texts::{ItemLoss, OnTexts, TextObjective, TextTally, TextTask};
use crate::pair_classification::{classifier, logits};
use crate::several_labels::{self, LabelsRecipe, binary_cross_entropy, judged};

/// The task; `assets/recipes/text-labels.toml` and the files that it names explain every key.
pub type TextLabels = OnTexts<TextLabelsTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TextLabelsTask {
    /// What counts as a label.
    pub labels: LabelsRecipe,
}

impl TextTask for TextLabelsTask {
    const NAME: &'static str = "text-labels";
    const ABOUT: &'static str = "several labels a text or pair of texts, or none";
    const RECIPE: &'static str = include_str!("../../assets/recipes/text-labels.toml");
    const HEAD: HeadKind = HeadKind::Classes;
    const KIND: ItemKind = ItemKind::Labels;
    const UNIT: &'static str = "texts";
    const NEEDS: &'static str =
        "a table with a column of texts and one of labels, several of these separated by ;";

    fn check(&self, _: &Items) -> Result<(), Impossible> {
        self.labels.check()
    }

    fn head_config(&self, _: &ItemData) -> serde_json::Value {
        serde_json::json!({"problem_type": "multi_label_classification"})
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure> {
        let (mut model, place) =
            classifier(data, data.classes.len(), &data.classes, start, device)?;
        if start.load_for(HeadKind::Classes, &data.classes)? == Load::Backbone {
            let labels = data.train.rows.iter().map(|row| match &row.target {
                RowTarget::Labels(labels) => labels.as_slice(),
                _ => &[],
            });
            several_labels::start_at_odds(&mut model.head.output, labels);
        }
        let threshold = self.labels.threshold;
        Ok(TextSeveral {
            model,
            place,
            threshold,
        }
        .into())
    }
}

/// A classifier with the binary cross-entropy of each class.
#[derive(Module, Debug)]
pub struct TextSeveral<B: Backend> {
    /// The model.
    pub model: TextClassifier<B>,
    place: Place,
    threshold: f64,
}

impl<B: Backend> TextSeveral<B> {
    fn logits(&self, batch: &ItemBatch, device: &B::Device) -> Tensor<B, 2> {
        logits(&self.model, self.place, batch, device).cast(FloatDType::F32)
    }

    fn truths(&self, batch: &ItemBatch) -> Vec<bool> {
        match &batch.targets {
            ItemTargets::Labels(all) => several_labels::truths(all, self.model.head.n_classes()),
            _ => vec![],
        }
    }
}

impl<B: Backend> ItemLoss<B> for TextSeveral<B> {
    type Model = TextClassifier<B>;

    fn model(&self) -> Self::Model {
        self.model.clone()
    }

    fn metrics(&self) -> &'static [Metric] {
        several_labels::METRICS
    }

    fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B> {
        binary_cross_entropy(self.logits(batch, device), &self.truths(batch))
    }

    fn tally(&self, batch: &ItemBatch, device: &B::Device) -> TextTally {
        let (logits, truths) = (self.logits(batch, device), self.truths(batch));
        let sums = binary_cross_entropy(logits.clone(), &truths);
        TextTally {
            judged: judged(logits, &truths, self.threshold).into(),
            ..TextTally::read(sums, &[])
        }
    }
}
