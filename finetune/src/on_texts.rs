//! Tasks on texts other than one class: what they share. In: pairs, several labels, values, tagged words, questions, choices. Out:
//! batches, and the one job that runs them all.
//!
//! A task is a file beside this one: its sections of the recipe ([`TextTask`]) and its model with the loss, with a line in
//! [`TextObjective`]. The engine is compiled once for all of them.

#![allow(
    clippy::large_enum_variant,
    reason = "one objective exists at a time, and derive(Module) makes further enums of each"
)]

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::{ItemKind, ItemSet};
use model::HeadKind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use train::Failure;
use train::job::items::{ItemBatch, ItemData, Items};
use train::job::text::{self, TokenizerRecipe};
use train::job::{BundleWriter, Exported, Job, Product, Recipe, Splits, Start};
use train::metrics::{Metric, Metrics, add_perplexity};
use train::objective::{LossSums, Objective, SumTally, Tally};
use train::recipe::Impossible;
use train::scores::judged::{Judged, merge};

use crate::instruction_tuning::Instructions;
use crate::multiple_choice::Choices;
use crate::pair_classification::Pairs;
use crate::question_answering::{SpanTally, Spans};
use crate::sentence_embeddings::{Embeddings, PairTally};
use crate::text_labels::TextSeveral;
use crate::text_regression::TextValues;
use crate::token_classification::Tags;

/// What a validation collects: of these those that the task has.
#[derive(Clone, Debug, Default)]
pub struct TextTally {
    /// The loss.
    pub sums: SumTally,
    /// Of classes, tags, labels and values.
    pub judged: Judged,
    /// Of questions.
    pub answers: Option<SpanTally>,
    /// Of pairs.
    pub pairs: Option<PairTally>,
    /// Whether targets are tokens, so that perplexity follows from the loss.
    pub is_of_tokens: bool,
}

impl TextTally {
    /// Nothing but the sums of a batch.
    pub fn read<B: Backend>(sums: LossSums<B>, means: &'static [&'static str]) -> Self {
        Self {
            sums: SumTally::read(sums, means),
            ..Self::default()
        }
    }
}

impl Tally for TextTally {
    fn merge(&mut self, other: Self) {
        self.sums.merge(other.sums);
        self.judged.merge(other.judged);
        merge(&mut self.answers, other.answers);
        merge(&mut self.pairs, other.pairs);
        self.is_of_tokens |= other.is_of_tokens;
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.judged.metrics();
        metrics.extend(self.answers.iter().flat_map(Tally::metrics));
        metrics.extend(self.pairs.iter().flat_map(Tally::metrics));
        if !self.sums.is_empty() {
            metrics.extend(self.sums.metrics());
        }
        if self.is_of_tokens {
            add_perplexity(&mut metrics);
        }
        metrics
    }

    fn details(&self) -> Option<Value> {
        let of_answers = || self.answers.as_ref().and_then(Tally::details);
        self.judged.details().or_else(of_answers)
    }

    fn is_empty(&self) -> bool {
        self.sums.is_empty() && self.judged.classes.is_none()
    }
}

/// A model of texts with its loss. What is not said here is as in [`Objective`], which [`TextObjective`] makes of it.
pub trait ItemLoss<B: Backend>: Module<B> {
    /// What the bundle holds.
    type Model: Module<B>;

    /// It.
    fn model(&self) -> Self::Model;

    /// What validation reports.
    fn metrics(&self) -> &'static [Metric];

    /// Whether the loss compares the rows of a batch with each other.
    fn whole_batch(&self) -> bool {
        false
    }

    /// Loss over the targets of a batch.
    fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B>;

    /// Collects a batch of a split that is only looked at.
    fn tally(&self, batch: &ItemBatch, device: &B::Device) -> TextTally;
}

macro_rules! text_tasks {
    ($($Variant:ident($Task:ident)),+ $(,)?) => {
        /// Any of these tasks.
        #[derive(Module, Debug)]
        #[allow(missing_docs)] // Each is described in its file.
        pub enum TextObjective<B: Backend> {
            $($Variant($Task<B>),)+
        }

        impl<B: Backend> Objective<B> for TextObjective<B> {
            type Batch = ItemBatch;
            type Tally = TextTally;
            const MEANS: &'static [&'static str] = &[];
            const METRICS: &'static [Metric] = &[Metric::LOSS];

            fn metrics(&self) -> &'static [Metric] {
                match self { $(Self::$Variant(one) => one.metrics(),)+ }
            }

            fn whole_batch(&self) -> bool {
                match self { $(Self::$Variant(one) => one.whole_batch(),)+ }
            }

            fn loss(&self, batch: &ItemBatch, device: &B::Device) -> LossSums<B> {
                match self { $(Self::$Variant(one) => one.loss(batch, device),)+ }
            }

            fn evaluate(&self, batch: &ItemBatch, device: &B::Device) -> TextTally {
                match self { $(Self::$Variant(one) => one.tally(batch, device),)+ }
            }
        }

        impl<B: Backend> Exported<B> for TextObjective<B> {
            fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
                match self { $(Self::$Variant(one) => writer.write(&one.model()),)+ }
            }
        }

        $(impl<B: Backend> From<$Task<B>> for TextObjective<B> {
            fn from(one: $Task<B>) -> Self {
                Self::$Variant(one)
            }
        })+
    };
}

text_tasks! {
    Pairs(Pairs),
    Several(TextSeveral),
    Values(TextValues),
    Tags(Tags),
    Spans(Spans),
    Choices(Choices),
    Embeddings(Embeddings),
    Instructions(Instructions),
}

/// A task on texts as the command line knows it. Its fields are its own sections of the recipe.
pub trait TextTask: Clone + Serialize + DeserializeOwned + 'static {
    /// As `RECIPE` names it.
    const NAME: &'static str;
    /// One line for `--list`.
    const ABOUT: &'static str;
    /// Its file in `assets/recipes/`.
    const RECIPE: &'static str;
    /// What the bundle's model has on its backbone.
    const HEAD: HeadKind;
    /// What its rows hold.
    const KIND: ItemKind;
    /// What a row is called, in the plural.
    const UNIT: &'static str;
    /// What data it needs, for messages.
    const NEEDS: &'static str;

    /// Whether rows may share sequences.
    const PACKS: bool = false;

    /// Refuses a model that cannot do it, before any text is read.
    fn check_start(_: &Start) -> Result<(), Failure> {
        Ok(())
    }

    /// Says what is impossible about these values, if anything is.
    fn check(&self, data: &Items) -> Result<(), Impossible>;

    /// Names of the outputs, where they are known by names: those of the classes or tags in the data.
    fn classes(&self, data: &ItemData) -> Option<Vec<String>> {
        (!data.classes.is_empty()).then(|| data.classes.to_vec())
    }

    /// Tokens that the windows of a context share.
    fn stride(&self) -> usize {
        0
    }

    /// Further keys of the bundle's `config.json`.
    fn head_config(&self, _: &ItemData) -> Value {
        Value::Null
    }

    /// Draws the model, and loads what it starts from.
    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure>;
}

/// Any task of these, as a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OnTexts<T> {
    /// Which texts, and how they are split.
    pub data: Items,
    /// What turns them into tokens.
    pub tokenizer: TokenizerRecipe,
    /// The task's own sections.
    #[serde(flatten)]
    pub task: T,
}

impl<T: TextTask> Job for OnTexts<T> {
    const NAME: &'static str = T::NAME;
    const ABOUT: &'static str = T::ABOUT;
    const KEY: &'static str = "task";
    const RECIPE: &'static str = T::RECIPE;
    type Source = ItemSet;
    type Data = ItemData;
    type Batch = ItemBatch;
    type Objective<B: AutodiffBackend> = TextObjective<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.task.check(&self.data)?;
        self.data.check(&self.tokenizer, recipe, T::PACKS)
    }

    fn source(&self, start: &Start) -> Result<ItemSet, Failure> {
        T::check_start(start)?;
        if self.data.splits.source.is_empty() {
            let reason = format!("is empty; name {}", T::NEEDS);
            return Err(Impossible::new("data.source", reason).into());
        }
        self.data.source(T::KIND)
    }

    fn data(&self, _: &Recipe, start: &Start, set: ItemSet) -> Result<ItemData, Failure> {
        let about = (T::UNIT, self.task.stride(), T::HEAD);
        let data = self.data.read(&set, &self.tokenizer, start, about)?;
        let needs_classes = matches!(T::KIND, ItemKind::Class | ItemKind::Tags);
        let least = match T::KIND {
            ItemKind::Labels => 1,
            _ if needs_classes => 2,
            _ => 0,
        };
        if data.classes.len() < least {
            let found = data.classes.len();
            let reason = format!("holds {found} different values; there must be at least {least}");
            return Err(Impossible::new("data.label_column", reason).into());
        }
        Ok(data)
    }

    fn product(&self, data: &ItemData) -> Result<Product, Failure> {
        let classes = self.task.classes(data);
        let (tokenizer, config) = (&data.tokenizer, &data.config);
        let mut product = text::product(
            tokenizer,
            config,
            T::HEAD,
            classes.as_deref(),
            data.max_length,
        )?;
        let further = self.task.head_config(data);
        if let (Some(config), Some(further)) = (product.config.as_object_mut(), further.as_object())
        {
            config.extend(further.clone());
        }
        Ok(product)
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ItemData,
        start: &Start,
        device: &B::Device,
    ) -> Result<TextObjective<B>, Failure> {
        self.task.objective(data, start, device)
    }

    fn batches(&self, recipe: &Recipe, data: ItemData) -> Result<Splits<ItemBatch>, Failure> {
        Ok(data.batches(recipe))
    }
}
