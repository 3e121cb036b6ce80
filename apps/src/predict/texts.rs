//! Texts that an encoder-decoder writes of others. In: its bundle, texts. Out: the best few texts of each, with their scores.

use burn::prelude::*;
use data::{CutTexts, TextTokenizer};
use model::beam::{Search, generate};
use model::{Bundle, HeadKind, Seq2SeqModel};
use serde::Serialize;
use train::Failure;
use train::job::seq2seq::end_with;
use train::job::text::TokenBatch;

use super::BATCH;
use crate::open::{self, Seq2SeqParts};

/// A text that was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WrittenText {
    /// Without special tokens.
    pub text: String,
    /// Logarithm of its probability, divided as `length_penalty` says; none of a greedy search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

/// Writes texts.
pub struct TextWriter<B: Backend> {
    model: Seq2SeqModel<B>,
    tokenizer: TextTokenizer,
    search: Search,
    max_length: usize,
    layers: usize,
    pad: u32,
    end: Option<u32>,
    device: B::Device,
}

impl<B: Backend> TextWriter<B> {
    /// Loads an encoder-decoder.
    ///
    /// - beams: in place of those that the bundle says
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit; a search that is impossible.
    pub fn open(
        bundle: &Bundle,
        beams: Option<usize>,
        device: &B::Device,
    ) -> Result<Self, Failure> {
        let Seq2SeqParts {
            config,
            tokenizer,
            max_length,
        } = open::seq2seq_parts(bundle)?;
        let plan = config.describe();
        let names = open::require(bundle, HeadKind::Tokens)?;
        let model = Seq2SeqModel::draw(&config, &bundle.draw(device, names));
        let mut search = Search::of(bundle, &plan)?;
        search.num_beams = beams.unwrap_or(search.num_beams);
        let wrong = |reason| Failure::input(format!("{}: {reason}", bundle.path().display()));
        search.check(&plan).map_err(wrong)?;
        Ok(Self {
            model: open::filled_for_inference(bundle, model, names)?,
            max_length,
            layers: plan.layers[1],
            pad: plan.pad,
            end: plan.eos.first().copied(),
            tokenizer,
            search,
            device: device.clone(),
        })
    }

    /// The best texts of each, as many as asked for and no more than beams, and what is cut of the texts that are read.
    ///
    /// # Errors
    ///
    /// The tokenizer fails.
    pub fn write(
        &self,
        texts: &[&str],
        top: usize,
    ) -> Result<(Vec<Vec<WrittenText>>, CutTexts), Failure> {
        let search = Search {
            num_return_sequences: top.min(self.search.num_beams),
            ..self.search.clone()
        };
        let mut rows = self.tokenizer.encode(texts, self.max_length)?;
        let cut = CutTexts::count(&self.tokenizer, texts, &rows, self.max_length)?;
        rows.iter_mut()
            .for_each(|row| end_with(row, self.end, self.max_length));
        let mut order: Vec<usize> = (0..rows.len()).collect();
        // Of like length together: less padding to compute.
        order.sort_by_key(|&row| rows[row].len());
        let mut written = vec![Vec::new(); texts.len()];
        for picked in order.chunks((BATCH / search.num_beams).max(1)) {
            let batch = TokenBatch::pad(picked.iter().map(|&row| rows[row].as_slice()), self.pad);
            let found = generate(
                &self.model,
                &batch.input(&self.device),
                &search,
                Some(self.layers),
            );
            for (&row, found) in picked.iter().zip(found) {
                for one in found {
                    let text = self.tokenizer.decode(&one.tokens)?.trim().to_string();
                    let score = one.score;
                    written[row].push(WrittenText { text, score });
                }
            }
        }
        Ok((written, cut))
    }

    /// Tokens of the longest text that it reads.
    pub fn max_length(&self) -> usize {
        self.max_length
    }
}
