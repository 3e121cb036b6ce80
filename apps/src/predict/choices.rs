//! The right one of several choices. In: a model that chooses, a question with its choices. Out: the choices, the likeliest first.

use burn::prelude::*;
use data::{CutTexts, Encoded, TextTokenizer};
use model::families::Place;
use model::{Bundle, ChoiceModel, HeadKind};
use train::Failure;
use train::job::text::{TokenBatch, indices};

use crate::guess::{self, Figure, Guess};
use crate::open::{self, TextParts};

/// Chooses.
pub struct ChoicePredictor<B: Backend> {
    model: ChoiceModel<B>,
    tokenizer: TextTokenizer,
    max_length: usize,
    at: Place,
    types: bool,
    device: B::Device,
}

impl<B: Backend> ChoicePredictor<B> {
    /// Tokens of the longest question with a choice.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Loads a model that chooses.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let TextParts {
            config,
            tokenizer,
            max_length,
        } = open::text_parts(bundle)?;
        let names = open::require(bundle, HeadKind::Choices)?;
        let model = ChoiceModel::draw(&config, &bundle.draw(device, names));
        Ok(Self {
            model: open::filled(bundle, model, names)?,
            at: config.class_plan().place,
            types: config.describe().segments > 1,
            tokenizer,
            max_length,
            device: device.clone(),
        })
    }

    /// The `top` likeliest choices, and what is cut of them and of the question, as they are longer than those of training.
    ///
    /// # Errors
    ///
    /// The tokenizer fails.
    pub fn predict(
        &self,
        question: &str,
        choices: &[String],
        top: usize,
    ) -> Result<(Vec<Guess>, CutTexts), Failure> {
        let rows: Vec<_> = choices
            .iter()
            .map(|choice| (question, Some(choice.as_str())))
            .collect();
        let encoded = self.tokenizer.encode_parts(&rows, self.max_length)?;
        let batch = TokenBatch::of_pairs(
            encoded.iter().map(Encoded::pair),
            self.tokenizer.pad(),
            self.types,
        );
        let at = indices(&batch.places(self.at), &self.device);
        let scores = self.model.logits(&batch.input(&self.device), at);
        let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shares: Vec<f32> = scores.iter().map(|score| (score - highest).exp()).collect();
        let sum: f32 = shares.iter().sum();
        let shares: Vec<Figure> = shares
            .iter()
            .map(|share| Figure::Probability(share / sum))
            .collect();
        let guesses = guess::best(&shares, top, |choice| choices[choice].clone());
        Ok((guesses, CutTexts::of(&encoded)))
    }
}
