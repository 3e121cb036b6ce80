//! Text classification. In: labelled texts and a pretrained model. Out: a classifier with its tokenizer.
//!
//! The backbone keeps its weights, the head is drawn anew. Encoders are read at their first token, decoders at their last.

use burn::tensor::backend::AutodiffBackend;
use data::TextSet;
use model::{HeadKind, TextClassifier};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::text::{self, LabelledBatch, LabelledTextData, LabelledTexts, TokenizerRecipe};
use train::job::{Job, Product, Recipe, Splits, Start};
use train::objectives::class_loss::{ClassLoss, ClassLossRecipe};
use train::objectives::classes::TextClasses;
use train::recipe::Impossible;

/// The task; `assets/recipes/text-classification.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TextClassification {
    /// Which texts, and how they are split.
    pub data: LabelledTexts,
    /// What turns them into tokens.
    pub tokenizer: TokenizerRecipe,
    /// Cross-entropy over the classes.
    pub loss: ClassLossRecipe,
}

impl Job for TextClassification {
    const NAME: &'static str = "text-classification";
    const ABOUT: &'static str = "classes of texts with a pretrained encoder or decoder";
    const KEY: &'static str = "task";
    const RECIPE: &'static str = include_str!("../../assets/recipes/text-classification.toml");
    type Source = TextSet;
    type Data = LabelledTextData;
    type Batch = LabelledBatch;
    type Objective<B: AutodiffBackend> = TextClasses<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.loss.check()?;
        self.data.check(&self.tokenizer, recipe)
    }

    fn source(&self, _: &Start) -> Result<TextSet, Failure> {
        self.data.source()
    }

    fn data(&self, _: &Recipe, start: &Start, texts: TextSet) -> Result<LabelledTextData, Failure> {
        self.data.read(&texts, &self.tokenizer, start)
    }

    fn product(&self, data: &LabelledTextData) -> Result<Product, Failure> {
        let LabelledTextData {
            tokenizer,
            config,
            classes,
            max_length,
            ..
        } = data;
        text::product(
            tokenizer,
            config,
            HeadKind::Classes,
            Some(classes),
            *max_length,
        )
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &LabelledTextData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextClasses<B>, Failure> {
        let place = data.config.class_plan().place;
        Ok(TextClasses::new(
            classifier(data, start, device)?,
            self.loss_of(data),
            place,
        ))
    }

    fn batches(
        &self,
        recipe: &Recipe,
        data: LabelledTextData,
    ) -> Result<Splits<LabelledBatch>, Failure> {
        Ok(data.batches(recipe))
    }
}

impl TextClassification {
    /// The loss over the classes as they occur in training.
    pub(crate) fn loss_of(&self, data: &LabelledTextData) -> ClassLoss {
        let classes = data.train.iter().map(|row| row.class);
        self.loss.over(data.classes.len(), classes)
    }
}

/// The classifier: drawn, and filled with what training starts from.
pub(crate) fn classifier<B: AutodiffBackend>(
    data: &LabelledTextData,
    start: &Start,
    device: &B::Device,
) -> Result<TextClassifier<B>, Failure> {
    let names = data.config.names(HeadKind::Classes);
    let n_classes = data.classes.len();
    let model = TextClassifier::draw(&data.config, n_classes, &start.draw(device, names));
    let load = start.load_for(HeadKind::Classes, &data.classes)?;
    start.fill(model, names, load)
}
