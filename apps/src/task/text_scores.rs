//! Scores of texts and of pairs of them. In: a classifier of texts, rows. Out: a logit a class and row.

use burn::prelude::*;
use data::{CutTexts, Encoded, TextTokenizer};
use model::families::Place;
use model::{Bundle, TextClassifier};
use train::Failure;
use train::job::items::Tokens;
use train::job::text::{TokenBatch, indices};

use super::scores::{Scored, Scorer};
use super::{Reads, Row, by_length, texts_of};
use crate::open::{self, TextParts};

/// Scores texts.
pub struct TextScorer<B: Backend> {
    model: TextClassifier<B>,
    tokenizer: TextTokenizer,
    max_length: usize,
    at: Place,
    types: bool,
    device: B::Device,
}

impl<B: Backend> TextScorer<B> {
    /// Loads a classifier of texts; it, and its classes.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<(Self, Vec<String>), Failure> {
        let parts = open::text_parts(bundle)?;
        let (model, classes) = open::text_classifier(bundle, &parts, device)?;
        let TextParts {
            config,
            tokenizer,
            max_length,
        } = parts;
        let scorer = Self {
            model,
            tokenizer,
            max_length,
            at: config.class_plan().place,
            types: config.describe().segments > 1,
            device: device.clone(),
        };
        Ok((scorer, classes))
    }

    /// Tokens of each row, and what is cut.
    fn encoded(&self, rows: &[Row]) -> Result<(Vec<Tokens>, CutTexts), Failure> {
        let texts = texts_of(rows, 1, "texts")?;
        if texts.iter().all(|texts| texts.len() == 1) {
            let texts: Vec<&str> = texts.iter().map(|texts| texts[0].as_str()).collect();
            let ids = self.tokenizer.encode(&texts, self.max_length)?;
            let cut = CutTexts::count(&self.tokenizer, &texts, &ids, self.max_length)?;
            let tokens = ids.into_iter().map(|ids| Tokens {
                types: vec![0; ids.len()],
                ids,
            });
            return Ok((tokens.collect(), cut));
        }
        let parts: Vec<(&str, Option<&str>)> = texts
            .iter()
            .map(|texts| (texts[0].as_str(), texts.get(1).map(String::as_str)))
            .collect();
        let encoded = self.tokenizer.encode_parts(&parts, self.max_length)?;
        let cut = CutTexts::of(&encoded);
        let tokens = encoded.into_iter();
        let tokens = tokens.map(|Encoded { ids, types, .. }| Tokens { ids, types });
        Ok((tokens.collect(), cut))
    }
}

impl<B: Backend> Scorer for TextScorer<B> {
    fn reads(&self) -> Reads {
        Reads::Texts
    }

    fn max_length(&self) -> Option<usize> {
        Some(self.max_length)
    }

    fn scores(&self, rows: &[Row], batch_size: usize) -> Result<Scored, Failure> {
        let (encoded, cut) = self.encoded(rows)?;
        let lengths: Vec<usize> = encoded.iter().map(|row| row.ids.len()).collect();
        let mut scored = vec![Vec::new(); rows.len()];
        for picked in by_length(&lengths, batch_size) {
            let pairs = picked
                .iter()
                .map(|&row| (encoded[row].ids.as_slice(), encoded[row].types.as_slice()));
            let batch = TokenBatch::of_pairs(pairs, self.tokenizer.pad(), self.types);
            let at = indices(&batch.places(self.at), &self.device);
            let logits = self.model.logits(&batch.input(&self.device), at);
            let [_, n_classes] = logits.dims();
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            for (&row, logits) in picked.iter().zip(logits.chunks(n_classes.max(1))) {
                scored[row] = logits.to_vec();
            }
        }
        Ok(Scored { rows: scored, cut })
    }
}
