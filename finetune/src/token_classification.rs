//! A tag for each word: parts of speech, entities. In: sentences of tagged words. Out: a classifier of tokens.
//!
//! A word has the tag of its first token, where a tokenizer cuts it in several; the others learn nothing. Tags that mark where
//! entities begin (`B-PER`, `I-PER`, `O`) are judged by whole entities too.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::ItemKind;
use model::{HeadKind, TokenClassifier};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::items::{ItemBatch, ItemData, ItemTargets, Items, RowTarget};
use train::job::text::indices;
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::class_loss::{ClassLoss, ClassLossRecipe};
use train::objectives::class_tally::ClassTally;
use train::recipe::Impossible;
use train::scores::entities::{EntityTally, Scheme, are_entities};
use train::scores::judged::Judged;

use crate::on_texts::{ItemLoss, OnTexts, TextObjective, TextTally, TextTask};

/// The task; `assets/recipes/token-classification.toml` and the files that it names explain every key.
pub type TokenClassification = OnTexts<TagsTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TagsTask {
    /// How tags mark entities.
    pub entities: EntitiesRecipe,
    /// Cross-entropy over the tags.
    pub loss: ClassLossRecipe,
}

/// `[entities]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntitiesRecipe {
    /// How tags mark where entities begin and end.
    pub scheme: Scheme,
}

impl TextTask for TagsTask {
    const NAME: &'static str = "token-classification";
    const ABOUT: &'static str = "a tag for each word: entities, parts of speech";
    const RECIPE: &'static str = include_str!("../../assets/recipes/token-classification.toml");
    const HEAD: HeadKind = HeadKind::TokenClasses;
    const KIND: ItemKind = ItemKind::Tags;
    const UNIT: &'static str = "sentences";
    const NEEDS: &'static str = "files of a tagged word a line (CoNLL), or a table with a list of words and one of tags in each row";

    fn check(&self, _: &Items) -> Result<(), Impossible> {
        self.loss.check()
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure> {
        let scheme = self.entities.scheme;
        let has_entities = are_entities(&data.classes, scheme);
        let (config, names) = (&data.config, data.config.names(Self::HEAD));
        let n_classes = data.classes.len();
        let model = TokenClassifier::draw(config, n_classes, &start.draw(device, names));
        let load = start.load_for(Self::HEAD, &data.classes)?;
        let model = start.fill(model, names, load)?;
        let tags = data.train.rows.iter().flat_map(|row| match &row.target {
            RowTarget::Tags(tags) => tags.iter().map(|(_, tag)| *tag).collect(),
            _ => vec![],
        });
        let loss = self.loss.over(n_classes, tags);
        Ok(Tags {
            model,
            loss,
            scheme: has_entities.then_some(scheme),
        }
        .into())
    }
}

/// A classifier of tokens with its loss.
#[derive(Module, Debug)]
pub struct Tags<B: Backend> {
    /// The model.
    pub model: TokenClassifier<B>,
    loss: ClassLoss,
    /// Where tags mark entities.
    scheme: Option<Scheme>,
}

const METRICS: &[Metric] = &[
    Metric::LOSS,
    Metric::higher("accuracy"),
    Metric::higher("macro_f1"),
];

const OF_ENTITIES: &[Metric] = &[
    Metric::LOSS,
    Metric::higher("entity_f1"),
    Metric::higher("entity_precision"),
    Metric::higher("entity_recall"),
    Metric::higher("macro_entity_f1"),
    Metric::higher("accuracy"),
    Metric::higher("macro_f1"),
];

impl<B: Backend> Tags<B> {
    /// Scores of the tags of all words, `[words, n_tags]`.
    fn logits(&self, batch: &ItemBatch, device: &B::Device) -> Tensor<B, 2> {
        let at = match &batch.targets {
            ItemTargets::Tags { at, .. } => at.as_slice(),
            _ => &[],
        };
        let input = batch.inputs.input(device);
        self.model.logits_at(&input, Some(indices(at, device)))
    }

    /// Entities of a batch.
    ///
    /// - predicted: a tag a word
    fn entities(&self, scheme: Scheme, predicted: &[usize], targets: &ItemTargets) -> EntityTally {
        let mut tally = EntityTally::new(scheme);
        let ItemTargets::Tags {
            tags, words, names, ..
        } = targets
        else {
            return tally;
        };
        let mut from = 0;
        for &words in words {
            let to = from + words;
            let predicted: Vec<&str> = predicted[from..to]
                .iter()
                .map(|&tag| names[tag].as_str())
                .collect();
            let truths: Vec<&str> = tags[from..to]
                .iter()
                .map(|&tag| names[tag as usize].as_str())
                .collect();
            // All tags are of the scheme: that was seen before training.
            tally.add(&predicted, &truths).unwrap_or_default();
            from = to;
        }
        tally
    }
}

fn tags(batch: &ItemBatch) -> &[u32] {
    match &batch.targets {
        ItemTargets::Tags { tags, .. } => tags,
        _ => &[],
    }
}

impl<B: Backend> ItemLoss<B> for Tags<B> {
    type Model = TokenClassifier<B>;

    fn model(&self) -> Self::Model {
        self.model.clone()
    }

    fn metrics(&self) -> &'static [Metric] {
        if self.scheme.is_some() {
            OF_ENTITIES
        } else {
            METRICS
        }
    }

    fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B> {
        self.loss.sums(self.logits(batch, device), tags(batch))
    }

    fn tally(&self, batch: &ItemBatch, device: &B::Device) -> TextTally {
        let tags = tags(batch);
        if tags.is_empty() {
            return TextTally::default();
        }
        let logits = self.logits(batch, device);
        let entities = self.scheme.map(|scheme| {
            let predicted = logits.clone().argmax(1).into_data().convert::<i64>();
            let predicted: Vec<usize> = predicted.iter::<i64>().map(|tag| tag as usize).collect();
            self.entities(scheme, &predicted, &batch.targets)
        });
        let judged = Judged {
            entities,
            ..ClassTally::read(logits, tags).into()
        };
        TextTally {
            judged,
            ..TextTally::default()
        }
    }
}
