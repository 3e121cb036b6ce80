//! Texts that an encoder-decoder writes of others. In: texts. Out: the best few texts of each, with their scores; BLEU and chrF of
//! translations, ROUGE of summaries.

use std::sync::Arc;

use burn::prelude::*;
use data::{CutTexts, ItemKind, TextTokenizer};
use model::beam::{Search, generate};
use model::families::Seq2SeqPlan;
use model::{Bundle, HeadKind, Seq2SeqModel};
use train::Failure;
use train::job::seq2seq::{PairBatch, PairRow, end_with};
use train::job::text::TokenBatch;
use train::objectives::class_loss::ClassLoss;
use train::objectives::tokens;
use train::scores::summaries::SummaryTally;
use train::scores::translation::{Bleu, TranslationTally};

use super::prediction::WrittenText;
use super::{
    Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally, by_length,
    other_kind, texts_of,
};
use crate::open::{self, Seq2SeqParts};

/// Writes texts.
pub struct Written<B: Backend> {
    model: Seq2SeqModel<B>,
    tokenizer: Arc<TextTokenizer>,
    plan: Seq2SeqPlan,
    search: Search,
    max_length: usize,
    device: B::Device,
}

impl<B: Backend> Written<B> {
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
            tokenizer: Arc::new(tokenizer),
            max_length,
            plan,
            search,
            device: device.clone(),
        })
    }

    /// Tokens of texts with the one that ends each, and what is cut.
    fn encoded(&self, texts: &[&str]) -> Result<(Vec<Vec<u32>>, CutTexts), Failure> {
        let mut rows = self.tokenizer.encode(texts, self.max_length)?;
        let cut = CutTexts::count(&self.tokenizer, texts, &rows, self.max_length)?;
        let end = self.plan.eos.first().copied();
        rows.iter_mut()
            .for_each(|row| end_with(row, end, self.max_length));
        Ok((rows, cut))
    }

    /// The best texts of each, as many as asked for and no more than beams.
    fn write(&self, rows: &[Vec<u32>], asked: &Asked) -> Result<Vec<Output>, Failure> {
        let search = Search {
            num_return_sequences: asked.top.min(self.search.num_beams),
            ..self.search.clone()
        };
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let mut written = vec![Vec::new(); rows.len()];
        for picked in by_length(&lengths, asked.batch_size / search.num_beams) {
            let ids = picked.iter().map(|&row| rows[row].as_slice());
            let input = TokenBatch::pad(ids, self.plan.pad).input(&self.device);
            let found = generate(&self.model, &input, &search, Some(self.plan.layers[1]));
            for (&row, found) in picked.iter().zip(found) {
                for one in found {
                    let text = self.tokenizer.decode(&one.tokens)?.trim().to_string();
                    let score = one.score;
                    written[row].push(WrittenText { text, score });
                }
            }
        }
        Ok(written.into_iter().map(Output::Texts).collect())
    }

    /// The loss over the tokens that are to be written.
    fn add_loss(&self, pairs: &[PairRow], asked: &Asked, tally: &mut TaskTally) {
        for pairs in pairs.chunks(asked.batch_size.max(1)) {
            let batch = PairBatch::new(pairs.iter(), &self.plan, self.tokenizer.clone());
            let sums = tokens::written(&self.model, &batch, &ClassLoss::default(), &self.device);
            let number = |tensor: Tensor<B, 1>| tensor.into_scalar().elem::<f64>();
            let right = sums.sums.into_iter().next().map_or(0.0, number);
            tally.add_tokens(number(sums.loss), right, sums.targets as f64);
        }
    }
}

fn sources<'a>(rows: &'a [Row], task: &str) -> Result<Vec<&'a str>, Failure> {
    let texts = texts_of(rows, 1, task)?;
    Ok(texts.iter().map(|texts| texts[0].as_str()).collect())
}

impl<B: Backend> Task for Written<B> {
    fn name(&self) -> &'static str {
        "text-to-text"
    }

    fn reads(&self) -> Reads {
        Reads::Source
    }

    fn labelled(&self) -> Labelled {
        Labelled {
            kind: Some(ItemKind::Pair),
            text: "text",
            second: "target",
            target: "target",
        }
    }

    fn max_length(&self) -> Option<usize> {
        Some(self.max_length)
    }

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        let (rows, cut) = self.encoded(&sources(rows, self.name())?)?;
        let outputs = self.write(&rows, asked)?;
        Ok(Said { outputs, cut })
    }

    /// Of a run's model what its task is judged by; else both.
    fn tally(&self, settings: &Settings) -> Result<TaskTally, Failure> {
        let is_for = |other: &str| settings.task() != Some(other);
        let bleu = Bleu {
            tokenizer: settings.bleu_tokenizer()?,
            ..Bleu::default()
        };
        Ok(TaskTally {
            translations: is_for("summarization").then(|| TranslationTally::new(bleu)),
            summaries: is_for("translation").then(SummaryTally::default),
            ..TaskTally::default()
        })
    }

    fn evaluate(
        &self,
        rows: &[Row],
        targets: &[Target],
        asked: &Asked,
        tally: &mut TaskTally,
    ) -> Result<Said, Failure> {
        fn reference<'a>(target: &'a Target, task: &str) -> Result<&'a str, Failure> {
            match target {
                Target::Text(text) => Ok(text),
                _ => Err(other_kind(task, "target")),
            }
        }
        let references = targets.iter().map(|target| reference(target, self.name()));
        let references: Vec<&str> = references.collect::<Result<_, _>>()?;
        let (sources, cut) = self.encoded(&sources(rows, self.name())?)?;
        let (written, _) = self.encoded(&references)?;
        let pairs = sources.iter().cloned().zip(written);
        let pairs: Vec<PairRow> = pairs
            .map(|(source, target)| PairRow { source, target })
            .collect();
        self.add_loss(&pairs, asked, tally);
        let outputs = self.write(&sources, asked)?;
        for (output, reference) in outputs.iter().zip(references) {
            let best = match output {
                Output::Texts(texts) => texts.first().map_or("", |best| best.text.as_str()),
                _ => "",
            };
            if let Some(judged) = &mut tally.translations {
                judged.add(best, &[reference]);
            }
            if let Some(judged) = &mut tally.summaries {
                judged.add(best, &[reference]);
            }
        }
        Ok(Said { outputs, cut })
    }
}
