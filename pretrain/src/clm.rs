//! Causal language modelling. In: texts. Out: a decoder with its tokenizer.
//!
//! Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training". Texts that share a sequence do not
//! see each other, and each counts its positions from 0. Where a recurrent model carries its states, texts are streams instead, and
//! states flow on from text to text.

use burn::tensor::backend::AutodiffBackend;
use data::source::TextSource;
use model::HeadKind;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::streams::StatesRecipe;
use train::job::text::{NextTokenBatch, NextTokens, TextData, Texts, TrainedTokenizer};
use train::job::{Job, Product, Recipe, Splits, Start};
use train::objectives::class_loss::{ClassLoss, SmoothingRecipe};
use train::objectives::tokens::NextTokenPrediction;
use train::recipe::Impossible;

/// The objective; `assets/recipes/clm.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Clm {
    /// Which texts, and how they are split.
    pub data: Texts,
    /// What turns them into tokens.
    pub tokenizer: TrainedTokenizer,
    /// Cross-entropy over the vocabulary.
    pub loss: SmoothingRecipe,
    /// What a recurrent model keeps of the batches before.
    pub states: StatesRecipe,
}

impl Job for Clm {
    const NAME: &'static str = "clm";
    const ABOUT: &'static str = "causal language modelling of texts";
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = include_str!("../../assets/recipes/clm.toml");
    type Source = TextSource;
    type Data = TextData;
    type Batch = NextTokenBatch;
    type Objective<B: AutodiffBackend> = NextTokenPrediction<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.loss.check()?;
        self.data.check(&self.tokenizer, recipe)?;
        self.states.check(recipe)
    }

    fn source(&self, _: &Start) -> Result<TextSource, Failure> {
        self.data.source()
    }

    fn data(
        &self,
        recipe: &Recipe,
        start: &Start,
        source: TextSource,
    ) -> Result<TextData, Failure> {
        start.check_causal(true, "pretrain mlm")?;
        self.states.check_start(start)?;
        self.data.read(source, &self.tokenizer, recipe, start)
    }

    fn product(&self, data: &TextData) -> Result<Product, Failure> {
        data.product(HeadKind::Tokens)
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &TextData,
        start: &Start,
        device: &B::Device,
    ) -> Result<NextTokenPrediction<B>, Failure> {
        let model = data.token_model(start, device)?;
        let loss = ClassLoss::smoothed(self.loss.label_smoothing);
        let carried = self.states.first(&data.config, start, device);
        Ok(NextTokenPrediction::new(model, loss).carrying(carried))
    }

    fn batches(&self, recipe: &Recipe, data: TextData) -> Result<Splits<NextTokenBatch>, Failure> {
        if self.states.carry {
            return Ok(data.streams(recipe)?);
        }
        let max_length = data.max_length;
        data.batches(recipe, |tokenizer, _, _| {
            NextTokens::new(tokenizer, max_length)
        })
    }
}
