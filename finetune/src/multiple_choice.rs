//! One of several choices. In: questions with their choices. Out: a model that scores a choice beside its question.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{FloatDType, TensorData};
use data::ItemKind;
use model::families::Place;
use model::{ChoiceModel, HeadKind};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::items::{ItemBatch, ItemData, ItemTargets, Items};
use train::job::text::indices;
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::class_loss::ClassLoss;
use train::recipe::Impossible;

use crate::on_texts::{ItemLoss, OnTexts, TextObjective, TextTally, TextTask};
use crate::pair_classification::check_second;

/// The task; `assets/recipes/multiple-choice.toml` and the files that it names explain every key.
pub type MultipleChoice = OnTexts<ChoicesTask>;

/// Nothing: its recipe has the sections that all tasks on texts share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChoicesTask {}

impl TextTask for ChoicesTask {
    const NAME: &'static str = "multiple-choice";
    const ABOUT: &'static str = "the right one of several choices";
    const RECIPE: &'static str = include_str!("../../assets/recipes/multiple-choice.toml");
    const HEAD: HeadKind = HeadKind::Choices;
    const KIND: ItemKind = ItemKind::Choice;
    const UNIT: &'static str = "questions";
    const NEEDS: &'static str =
        "a table with a question, a list of choices and the number of the right one in each row";

    fn check(&self, data: &Items) -> Result<(), Impossible> {
        check_second(data, "the choices")
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure> {
        let (config, names) = (&data.config, data.config.names(Self::HEAD));
        let model = ChoiceModel::draw(config, &start.draw(device, names));
        let model = start.fill(model, names, start.load_for(Self::HEAD, &[])?)?;
        let place = config.class_plan().place;
        Ok(Choices { model, place }.into())
    }
}

/// A model that scores choices, with the cross-entropy over those of each question.
#[derive(Module, Debug)]
pub struct Choices<B: Backend> {
    /// The model.
    pub model: ChoiceModel<B>,
    place: Place,
}

/// The score of a choice that is none, where another question has more.
const NONE: f32 = -1e9;

const METRICS: &[Metric] = &[Metric::LOSS, Metric::higher("accuracy")];

fn choices(batch: &ItemBatch) -> (&[usize], &[u32]) {
    match &batch.targets {
        ItemTargets::Choices { counts, right } => (counts, right),
        _ => (&[], &[]),
    }
}

impl<B: Backend> Choices<B> {
    /// Scores of the choices of each question, `[questions, most choices]`.
    fn logits(&self, batch: &ItemBatch, device: &B::Device) -> Tensor<B, 2> {
        let (counts, _) = choices(batch);
        let at = indices(&batch.inputs.places(self.place), device);
        let scores = self.model.logits(&batch.inputs.input(device), at);
        let scores = scores.cast(FloatDType::F32);
        let most = counts.iter().copied().max().unwrap_or(0);
        if counts.iter().all(|&count| count == most) {
            return scores.reshape([counts.len(), most]);
        }
        let (mut places, mut none, mut first) = (vec![], vec![], 0);
        for &count in counts {
            places.extend((0..most).map(|choice| (first + choice.min(count - 1)) as i32));
            none.extend((0..most).map(|choice| if choice < count { 0.0 } else { NONE }));
            first += count;
        }
        let shape = [counts.len(), most];
        let none = Tensor::<B, 2>::from_data(TensorData::new(none, shape), device);
        scores.select(0, indices(&places, device)).reshape(shape) + none
    }
}

impl<B: Backend> ItemLoss<B> for Choices<B> {
    type Model = ChoiceModel<B>;

    fn model(&self) -> Self::Model {
        self.model.clone()
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B> {
        let (_, right) = choices(batch);
        ClassLoss::default().sums(self.logits(batch, device), right)
    }

    fn tally(&self, batch: &ItemBatch, device: &B::Device) -> TextTally {
        TextTally::read(self.loss(batch, device), &["accuracy"])
    }
}
