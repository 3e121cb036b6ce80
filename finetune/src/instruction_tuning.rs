//! Instruction tuning: a decoder learns to answer. In: dialogues, or prompts with their completions. Out: the decoder.
//!
//! Dialogues are written as the tokenizer's chat template says, and the loss is that of what the assistant writes alone. With
//! `training.packing` dialogues share sequences, in which they do not see each other.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::ItemKind;
use model::bundle::Load;
use model::{HeadKind, TokenModel};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::items::{ItemBatch, ItemData, ItemTargets, Items};
use train::job::text::indices;
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::class_loss::{ClassLoss, SmoothingRecipe};
use train::recipe::Impossible;

use crate::on_texts::{ItemLoss, OnTexts, TextObjective, TextTally, TextTask};

/// The task; `assets/recipes/instruction-tuning.toml` and the files that it names explain every key.
pub type InstructionTuning = OnTexts<InstructionsTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstructionsTask {
    /// Cross-entropy over the vocabulary.
    pub loss: SmoothingRecipe,
}

impl TextTask for InstructionsTask {
    const NAME: &'static str = "instruction-tuning";
    const ABOUT: &'static str =
        "a decoder learns to answer: dialogues, or prompts with completions";
    const RECIPE: &'static str = include_str!("../../assets/recipes/instruction-tuning.toml");
    const HEAD: HeadKind = HeadKind::Tokens;
    const KIND: ItemKind = ItemKind::Dialogue;
    const UNIT: &'static str = "dialogues";
    const NEEDS: &'static str =
        "a table with a list of messages in each row, or with a prompt and a completion";
    const PACKS: bool = true;

    fn check(&self, _: &Items) -> Result<(), Impossible> {
        self.loss.check()
    }

    fn check_start(start: &Start) -> Result<(), Failure> {
        start.check_causal(true, "finetune text-classification")
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure> {
        let (config, names) = (&data.config, data.config.names(Self::HEAD));
        let model = TokenModel::draw(config, &start.draw(device, names));
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        let loss = ClassLoss::smoothed(self.loss.label_smoothing);
        Ok(Instructions { model, loss }.into())
    }
}

/// A decoder with the loss of the answers.
#[derive(Module, Debug)]
pub struct Instructions<B: Backend> {
    /// The model.
    pub model: TokenModel<B>,
    loss: ClassLoss,
}

const METRICS: &[Metric] = &[
    Metric::LOSS,
    Metric::lower("perplexity"),
    Metric::higher("accuracy"),
];

impl<B: Backend> Instructions<B> {
    fn sums(&self, batch: &ItemBatch, loss: &ClassLoss, device: &B::Device) -> LossSums<B> {
        let (at, targets): (&[i32], &[u32]) = match &batch.targets {
            ItemTargets::Next { at, targets } => (at, targets),
            _ => (&[], &[]),
        };
        let input = batch.inputs.input(device);
        let logits = self.model.logits(&input, Some(indices(at, device)), None);
        loss.sums(logits, targets)
    }
}

impl<B: Backend> ItemLoss<B> for Instructions<B> {
    type Model = TokenModel<B>;

    fn model(&self) -> Self::Model {
        self.model.clone()
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B> {
        self.sums(batch, &self.loss, device)
    }

    fn tally(&self, batch: &ItemBatch, device: &B::Device) -> TextTally {
        // Without smoothing: perplexity follows from it.
        let mut tally = TextTally::read(
            self.sums(batch, &ClassLoss::default(), device),
            &["accuracy"],
        );
        tally.is_of_tokens = true;
        tally
    }
}
