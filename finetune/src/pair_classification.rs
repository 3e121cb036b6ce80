//! One class of a pair of texts. In: pairs with a class each. Out: a classifier.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::ItemKind;
use model::families::Place;
use model::{HeadKind, TextClassifier};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::items::{ItemBatch, ItemData, ItemTargets, Items, RowTarget};
use train::job::text::indices;
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::class_loss::{ClassLoss, ClassLossRecipe};
use train::objectives::class_tally::{ClassTally, metrics_of};
use train::recipe::Impossible;

use crate::on_texts::{ItemLoss, OnTexts, TextObjective, TextTally, TextTask};

/// The task; `assets/recipes/pair-classification.toml` and the files that it names explain every key.
pub type PairClassification = OnTexts<PairsTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairsTask {
    /// Cross-entropy over the classes.
    pub loss: ClassLossRecipe,
}

/// Refuses a recipe that names no second text.
pub(crate) fn check_second(data: &Items, what: &str) -> Result<(), Impossible> {
    if data.text_pair.trim().is_empty() {
        let reason = format!("is empty; name the column of {what}");
        return Err(Impossible::new("data.text_pair", reason));
    }
    Ok(())
}

impl TextTask for PairsTask {
    const NAME: &'static str = "pair-classification";
    const ABOUT: &'static str = "one class of a pair of texts";
    const RECIPE: &'static str = include_str!("../../assets/recipes/pair-classification.toml");
    const HEAD: HeadKind = HeadKind::Classes;
    const KIND: ItemKind = ItemKind::Class;
    const UNIT: &'static str = "pairs";
    const NEEDS: &'static str = "a table with two columns of texts and one of classes";

    fn check(&self, data: &Items) -> Result<(), Impossible> {
        check_second(data, "the second text")?;
        self.loss.check()
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure> {
        let (model, place) = classifier(data, data.classes.len(), &data.classes, start, device)?;
        let classes = data.train.rows.iter().flat_map(|row| match &row.target {
            RowTarget::Labels(classes) => classes.clone(),
            _ => vec![],
        });
        let loss = self.loss.over(data.classes.len(), classes);
        Ok(Pairs { model, loss, place }.into())
    }
}

/// A classifier of texts or pairs, drawn and filled, and whose state it reads.
pub(crate) fn classifier<B: AutodiffBackend>(
    data: &ItemData,
    n_classes: usize,
    names: &[String],
    start: &Start,
    device: &B::Device,
) -> Result<(TextClassifier<B>, Place), Failure> {
    let config = &data.config;
    let of_head = config.names(HeadKind::Classes);
    let model = TextClassifier::draw(config, n_classes, &start.draw(device, of_head));
    let load = start.load_for(HeadKind::Classes, names)?;
    let model = start.fill(model, of_head, load)?;
    Ok((model, config.class_plan().place))
}

/// Scores of a classifier, `[batch, n_classes]`.
pub(crate) fn logits<B: Backend>(
    model: &TextClassifier<B>,
    place: Place,
    batch: &ItemBatch,
    device: &B::Device,
) -> Tensor<B, 2> {
    let at = indices(&batch.inputs.places(place), device);
    model.logits(&batch.inputs.input(device), at)
}

/// A classifier with its loss.
#[derive(Module, Debug)]
pub struct Pairs<B: Backend> {
    /// The model.
    pub model: TextClassifier<B>,
    loss: ClassLoss,
    place: Place,
}

fn classes(batch: &ItemBatch) -> Vec<u32> {
    match &batch.targets {
        ItemTargets::Labels(all) => all.iter().flatten().copied().collect(),
        _ => vec![],
    }
}

impl<B: Backend> ItemLoss<B> for Pairs<B> {
    type Model = TextClassifier<B>;

    fn model(&self) -> Self::Model {
        self.model.clone()
    }

    fn metrics(&self) -> &'static [Metric] {
        metrics_of(self.model.head.n_classes())
    }

    fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B> {
        let logits = logits(&self.model, self.place, batch, device);
        self.loss.sums(logits, &classes(batch))
    }

    fn tally(&self, batch: &ItemBatch, device: &B::Device) -> TextTally {
        let logits = logits(&self.model, self.place, batch, device);
        TextTally {
            judged: ClassTally::read(logits, &classes(batch)).into(),
            ..TextTally::default()
        }
    }
}
