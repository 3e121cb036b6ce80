//! Masked language modelling. In: texts. Out: an encoder with its tokenizer.
//!
//! Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>. Masks are drawn anew every epoch, and are a pure function of
//! (seed, epoch, text), however texts are batched.

use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use data::source::TextSource;
use data::{DataError, Role, TextTokenizer};
use model::bundle::Load;
use model::{HeadKind, TokenModel};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::text::{self, Collate, Sample, TextData, Texts, TokenBatch, TrainedTokenizer};
use train::job::{Job, Product, Recipe, Splits, Start};
use train::objectives::class_loss::{ClassLoss, SmoothingRecipe};
use train::objectives::tokens::{Predicted, TokenPrediction};
use train::recipe::Impossible;

/// The objective; `assets/recipes/mlm.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mlm {
    /// Which texts, and how they are split.
    pub data: Texts,
    /// What turns them into tokens.
    pub tokenizer: TrainedTokenizer,
    /// Which tokens are predicted.
    pub masking: Masking,
    /// Cross-entropy over the vocabulary.
    pub loss: SmoothingRecipe,
}

/// `[masking]`: which tokens are predicted, and what the model sees in their place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    /// Share of the tokens that are predicted.
    pub rate: f64,
    /// Of these, share replaced by the mask token.
    pub mask: f64,
    /// Of these, share replaced by a random token; the rest stays.
    pub random: f64,
}

impl Masking {
    fn check(self) -> Result<(), Impossible> {
        let Self { rate, mask, random } = self;
        if !(rate > 0.0 && rate <= 1.0) {
            let reason = format!("is {rate}; it must be above 0 and at most 1");
            return Err(Impossible::new("masking.rate", reason));
        }
        if !(mask >= 0.0 && random >= 0.0 && mask + random <= 1.0) {
            let reason = format!("{mask} and masking.random {random} are no shares of one whole");
            return Err(Impossible::new("masking.mask", reason));
        }
        Ok(())
    }
}

impl Job for Mlm {
    const NAME: &'static str = "mlm";
    const ABOUT: &'static str = "masked language modelling of texts";
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = include_str!("../../assets/recipes/mlm.toml");
    type Source = TextSource;
    type Data = TextData;
    type Batch = Predicted;
    type Objective<B: AutodiffBackend> = TokenPrediction<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.masking.check()?;
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
        if data.config.describe().causal {
            let family = data.config.family().model_type;
            let reason = format!(
                "is \"{family}\", which sees no token to its right; pretrain clm is for it"
            );
            return Err(Impossible::new("model.family", reason).into());
        }
        mask_token(&data.tokenizer)?;
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
    ) -> Result<TokenPrediction<B>, Failure> {
        let names = data.config.names(HeadKind::Tokens);
        let model = TokenModel::draw(&data.config, &start.draw(device, names));
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        let loss = ClassLoss::smoothed(self.loss.label_smoothing);
        Ok(TokenPrediction::new(model, loss))
    }

    fn batches(&self, recipe: &Recipe, data: TextData) -> Result<Splits<Predicted>, Failure> {
        let mask = mask_token(&data.tokenizer)?;
        data.batches(recipe, |tokenizer, seed| {
            Masks::new(self.masking, tokenizer, mask, seed)
        })
    }
}

fn mask_token(tokenizer: &TextTokenizer) -> Result<u32, DataError> {
    tokenizer.required(Role::Mask)
}

/// Masks rows, each by its number; special tokens are never predicted.
pub struct Masks {
    masking: Masking,
    mask: u32,
    pad: u32,
    special: Vec<u32>,
    vocab_size: usize,
    seed: u64,
}

impl Masks {
    /// Masks that are functions of the seed.
    ///
    /// - mask: id of the mask token
    pub fn new(masking: Masking, tokenizer: &TextTokenizer, mask: u32, seed: u64) -> Self {
        Self {
            masking,
            mask,
            pad: tokenizer.pad(),
            special: tokenizer.special_ids(),
            vocab_size: tokenizer.vocab_size(),
            seed,
        }
    }

    fn replacement(&self, token: u32, rng: &mut impl Rng) -> u32 {
        let fate: f64 = rng.random();
        if fate < self.masking.mask {
            return self.mask;
        }
        if fate >= self.masking.mask + self.masking.random {
            return token;
        }
        loop {
            let drawn = rng.random_range(0..self.vocab_size as u32);
            if !self.special.contains(&drawn) {
                return drawn;
            }
        }
    }
}

impl Collate for Masks {
    type Batch = Predicted;

    fn collate(&self, rows: Vec<Sample>) -> Predicted {
        let seq = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        let (mut at, mut targets) = (Vec::new(), Vec::new());
        let mut masked = Vec::with_capacity(rows.len());
        for (
            row,
            Sample {
                mut tokens, number, ..
            },
        ) in rows.into_iter().enumerate()
        {
            let mut rng = order::rng(self.seed, Stream::Mask, number);
            for (place, token) in tokens.iter_mut().enumerate() {
                if self.special.contains(token) || rng.random::<f64>() >= self.masking.rate {
                    continue;
                }
                at.push((row * seq + place) as i32);
                targets.push(*token);
                *token = self.replacement(*token, &mut rng);
            }
            masked.push(tokens);
        }
        let inputs = TokenBatch::pad(masked.iter().map(Vec::as_slice), self.pad);
        Predicted {
            inputs,
            at,
            targets,
        }
    }
}
