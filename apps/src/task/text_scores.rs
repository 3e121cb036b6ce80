//! Scores of texts and of pairs of them. In: a classifier of texts, rows. Out: a logit a class and row.

use burn::prelude::*;
use data::{CutTexts, Encoded};
use model::{Bundle, HeadKind, TextClassifier};
use train::Failure;
use train::job::items::Tokens;

use super::reader::Reader;
use super::scores::{Scored, Scorer};
use super::{Reads, Row, by_length, texts_of};
use crate::open;

/// Scores texts.
pub struct TextScorer<B: Backend> {
    model: TextClassifier<B>,
    reader: Reader<B>,
}

impl<B: Backend> TextScorer<B> {
    /// Loads a classifier of texts; it, and its classes.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<(Self, Vec<String>), Failure> {
        let (reader, config) = Reader::open(bundle, device)?;
        let names = open::require(bundle, HeadKind::Classes)?;
        let classes = bundle.classes()?;
        let model = TextClassifier::draw(&config, classes.len(), &bundle.draw(device, names));
        let model = open::filled(bundle, model, names)?;
        Ok((Self { model, reader }, classes))
    }

    /// Tokens of each row, and what is cut.
    fn encoded(&self, rows: &[Row]) -> Result<(Vec<Tokens>, CutTexts), Failure> {
        let texts = texts_of(rows, 1, "texts")?;
        let Reader {
            tokenizer,
            max_length,
            ..
        } = &self.reader;
        if texts.iter().all(|texts| texts.len() == 1) {
            let texts: Vec<&str> = texts.iter().map(|texts| texts[0].as_str()).collect();
            let ids = tokenizer.encode(&texts, *max_length)?;
            let cut = CutTexts::count(tokenizer, &texts, &ids, *max_length)?;
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
        let encoded = tokenizer.encode_parts(&parts, *max_length)?;
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
        Some(self.reader.max_length)
    }

    fn scores(&self, rows: &[Row], batch_size: usize) -> Result<Scored, Failure> {
        let (encoded, cut) = self.encoded(rows)?;
        let lengths: Vec<usize> = encoded.iter().map(|row| row.ids.len()).collect();
        let mut scored = vec![Vec::new(); rows.len()];
        for picked in by_length(&lengths, batch_size) {
            let pairs = picked
                .iter()
                .map(|&row| (encoded[row].ids.as_slice(), encoded[row].types.as_slice()));
            let batch = self.reader.batch(pairs);
            let at = self.reader.places(&batch);
            let logits = self.model.logits(&self.reader.input(&batch), at);
            let [_, n_classes] = logits.dims();
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            for (&row, logits) in picked.iter().zip(logits.chunks(n_classes.max(1))) {
                scored[row] = logits.to_vec();
            }
        }
        Ok(Scored { rows: scored, cut })
    }
}
