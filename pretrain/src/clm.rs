//! Causal language modelling. In: texts. Out: a decoder with its tokenizer.
//!
//! Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training". Texts that share a sequence do not
//! see each other, and each counts its positions from 0.

use burn::tensor::backend::AutodiffBackend;
use data::source::TextSource;
use model::bundle::Load;
use model::{HeadKind, TokenModel};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::text::{self, NextTokenBatch, NextTokens, TextData, Texts, TrainedTokenizer};
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
        self.data.check(&self.tokenizer, recipe)
    }

    fn source(&self) -> Result<TextSource, Failure> {
        self.data.source()
    }

    fn data(
        &self,
        recipe: &Recipe,
        start: &Start,
        source: TextSource,
    ) -> Result<TextData, Failure> {
        let data = self.data.read(source, &self.tokenizer, recipe, start)?;
        if !data.config.describe().causal {
            let family = data.config.family().model_type;
            let reason =
                format!("is \"{family}\", which sees the tokens to come; pretrain mlm is for it");
            return Err(Impossible::new("model.family", reason).into());
        }
        Ok(data)
    }

    fn product(&self, data: &TextData) -> Result<Product, Failure> {
        text::product(
            &data.tokenizer,
            &data.config,
            HeadKind::Tokens,
            None,
            data.max_length,
        )
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &TextData,
        start: &Start,
        device: &B::Device,
    ) -> Result<NextTokenPrediction<B>, Failure> {
        let names = data.config.names(HeadKind::Tokens);
        let model = TokenModel::draw(&data.config, &start.draw(device, names));
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        let loss = ClassLoss::smoothed(self.loss.label_smoothing);
        Ok(NextTokenPrediction::new(model, loss))
    }

    fn batches(&self, recipe: &Recipe, data: TextData) -> Result<Splits<NextTokenBatch>, Failure> {
        let max_length = data.max_length;
        data.batches(recipe, |tokenizer, _| {
            NextTokens::new(tokenizer, max_length)
        })
    }
}
