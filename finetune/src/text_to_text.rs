//! Texts written of other texts: translations, summaries. In: pairs of texts. Out: an encoder-decoder with its tokenizer.
//!
//! Validation and test say, beside the loss, what the model's own texts are worth, which a beam search writes.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::ItemSet;
use model::beam::{EarlyStopping, Search, generate};
use model::bundle::Load;
use model::{HeadKind, Seq2SeqConfig, Seq2SeqModel};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::marker::PhantomData;
use train::Failure;
use train::job::items::Items;
use train::job::seq2seq::{self, PairBatch, PairData};
use train::job::text::TrainedTokenizer;
use train::job::{BundleWriter, Exported, Job, Product, Recipe, Splits, Start};
use train::metrics::{Metric, Metrics, add_perplexity};
use train::objective::{LossSums, Objective, SumTally, Tally};
use train::objectives::class_loss::{ClassLoss, SmoothingRecipe};
use train::objectives::tokens;
use train::recipe::Impossible;
use train::scores::judged::merge;
use train::scores::summaries::SummaryTally;
use train::scores::translation::{Bleu, Tokenizer, TranslationTally};

/// Translation; `assets/recipes/translation.toml` and the files that it names explain every key.
pub type Translation = TextToText<Translations>;

/// Summarisation; `assets/recipes/summarization.toml` and the files that it names explain every key.
pub type Summarization = TextToText<Summaries>;

/// What is written.
pub trait Writing: Clone + 'static {
    /// As `RECIPE` names it.
    const NAME: &'static str;
    /// One line for `--list`.
    const ABOUT: &'static str;
    /// Its file in `assets/recipes/`.
    const RECIPE: &'static str;
    /// Whether texts are judged as translations, and not as summaries.
    const TRANSLATES: bool;
}

/// Translations, judged by BLEU and chrF.
#[derive(Clone, Debug)]
pub struct Translations;

impl Writing for Translations {
    const NAME: &'static str = "translation";
    const ABOUT: &'static str = "translations of texts with an encoder-decoder";
    const RECIPE: &'static str = include_str!("../../assets/recipes/translation.toml");
    const TRANSLATES: bool = true;
}

/// Summaries, judged by ROUGE.
#[derive(Clone, Debug)]
pub struct Summaries;

impl Writing for Summaries {
    const NAME: &'static str = "summarization";
    const ABOUT: &'static str = "summaries of texts with an encoder-decoder";
    const RECIPE: &'static str = include_str!("../../assets/recipes/summarization.toml");
    const TRANSLATES: bool = false;
}

/// `[search]`: how texts are written, in validation and by the bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchRecipe {
    /// Texts that are followed at a time.
    pub beams: usize,
    /// What a text's score is divided by: its number of words to the power of this.
    pub length_penalty: f64,
    /// Words in a row of this number occur once; 0 forbids nothing.
    pub no_repeat_ngram_size: usize,
    /// Texts of validation and test that are written.
    pub rows: usize,
    /// How BLEU cuts texts into words.
    pub bleu_tokenizer: Tokenizer,
}

/// Any task of these, as a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct TextToText<W> {
    /// Which texts, and how they are split.
    pub data: Items,
    /// What turns them into tokens.
    pub tokenizer: TrainedTokenizer,
    /// Cross-entropy over the vocabulary.
    pub loss: SmoothingRecipe,
    /// How texts are written.
    pub search: SearchRecipe,
    #[serde(skip)]
    kind: PhantomData<W>,
}

impl<W: Writing> TextToText<W> {
    fn search(&self, config: &Seq2SeqConfig) -> Search {
        let recipe = &self.search;
        Search {
            num_beams: recipe.beams,
            max_length: self.tokenizer.given.max_length,
            length_penalty: recipe.length_penalty,
            no_repeat_ngram_size: recipe.no_repeat_ngram_size,
            early_stopping: EarlyStopping::No,
            ..Search::new(&config.describe())
        }
    }
}

impl<W: Writing> Job for TextToText<W> {
    const NAME: &'static str = W::NAME;
    const ABOUT: &'static str = W::ABOUT;
    const KEY: &'static str = "task";
    const RECIPE: &'static str = W::RECIPE;
    type Source = ItemSet;
    type Data = PairData;
    type Batch = PairBatch;
    type Objective<B: AutodiffBackend> = Writer<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.loss.check()?;
        crate::pair_classification::check_second(&self.data, "the texts that are to be written")?;
        seq2seq::check_seq2seq(self.tokenizer.given.max_length, recipe)?;
        if self.search.beams == 0 {
            return Err(Impossible::new(
                "search.beams",
                "is 0; there must be at least 1",
            ));
        }
        if !self.search.length_penalty.is_finite() {
            return Err(Impossible::new(
                "search.length_penalty",
                "is no finite number",
            ));
        }
        Ok(())
    }

    fn source(&self, _: &Start) -> Result<ItemSet, Failure> {
        if self.data.splits.source.is_empty() {
            let reason = "is empty; name a table with two columns of texts";
            return Err(Impossible::new("data.source", reason).into());
        }
        self.data.pairs()
    }

    fn data(&self, _: &Recipe, start: &Start, set: ItemSet) -> Result<PairData, Failure> {
        seq2seq::read(&self.data, &self.tokenizer, &set, start, self.search.rows)
    }

    fn product(&self, data: &PairData) -> Result<Product, Failure> {
        data.product(&self.search(&data.config))
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &PairData,
        start: &Start,
        device: &B::Device,
    ) -> Result<Writer<B>, Failure> {
        let names = data.config.names(HeadKind::Tokens);
        let model = Seq2SeqModel::draw(&data.config, &start.draw(device, names));
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        let bleu = Bleu {
            tokenizer: self.search.bleu_tokenizer,
            ..Bleu::default()
        };
        Ok(Writer {
            model,
            loss: ClassLoss::smoothed(self.loss.label_smoothing),
            search: self.search(&data.config),
            layers: data.config.describe().layers[1],
            bleu: W::TRANSLATES.then_some(bleu),
        })
    }

    fn batches(&self, recipe: &Recipe, data: PairData) -> Result<Splits<PairBatch>, Failure> {
        Ok(data.batches(recipe))
    }
}

/// An encoder-decoder with its loss, and how it writes.
#[derive(Module, Debug)]
pub struct Writer<B: Backend> {
    /// The model.
    pub model: Seq2SeqModel<B>,
    loss: ClassLoss,
    search: Search,
    layers: usize,
    /// Of translations.
    bleu: Option<Bleu>,
}

/// What is known of a split's texts.
#[derive(Clone, Debug, Default)]
pub struct WrittenTally {
    sums: SumTally,
    translations: Option<TranslationTally>,
    summaries: Option<SummaryTally>,
}

impl Tally for WrittenTally {
    fn merge(&mut self, other: Self) {
        self.sums.merge(other.sums);
        merge(&mut self.translations, other.translations);
        merge(&mut self.summaries, other.summaries);
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.sums.metrics();
        add_perplexity(&mut metrics);
        metrics.extend(self.translations.iter().flat_map(Tally::metrics));
        metrics.extend(self.summaries.iter().flat_map(Tally::metrics));
        metrics.retain(|name, figure| name == "loss" || !figure.is_nan());
        metrics
    }

    fn details(&self) -> Option<Value> {
        self.translations.as_ref().and_then(Tally::details)
    }

    fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }
}

const TRANSLATION_METRICS: &[Metric] = &[
    Metric::LOSS,
    Metric::lower("perplexity"),
    Metric::higher("accuracy"),
    Metric::higher("bleu"),
    Metric::higher("chrf"),
];

const SUMMARY_METRICS: &[Metric] = &[
    Metric::LOSS,
    Metric::lower("perplexity"),
    Metric::higher("accuracy"),
    Metric::higher("rouge1"),
    Metric::higher("rouge2"),
    Metric::higher("rougeL"),
];

impl<B: Backend> Exported<B> for Writer<B> {
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl<B: Backend> Objective<B> for Writer<B> {
    type Batch = PairBatch;
    type Tally = WrittenTally;
    const MEANS: &'static [&'static str] = &["accuracy"];
    const METRICS: &'static [Metric] = TRANSLATION_METRICS;

    fn metrics(&self) -> &'static [Metric] {
        if self.bleu.is_some() {
            TRANSLATION_METRICS
        } else {
            SUMMARY_METRICS
        }
    }

    fn loss(&self, batch: &PairBatch, device: &B::Device) -> LossSums<B> {
        tokens::written(&self.model, batch, &self.loss, device)
    }

    fn evaluate(&self, batch: &PairBatch, device: &B::Device) -> WrittenTally {
        // Without smoothing: perplexity follows from it.
        let sums = tokens::written(&self.model, batch, &ClassLoss::default(), device);
        let mut tally = WrittenTally {
            sums: SumTally::read(sums, <Self as Objective<B>>::MEANS),
            ..WrittenTally::default()
        };
        if batch.references.is_empty() {
            return tally;
        }
        let input = batch.judged().input::<B>(device);
        let written = generate(&self.model, &input, &self.search, Some(self.layers));
        for (written, reference) in written.iter().zip(&batch.references) {
            let tokens = written.first().map_or(&[][..], |best| &best.tokens[..]);
            // Tokens that the tokenizer does not know are no text.
            let text = batch.tokenizer.decode(tokens).unwrap_or_default();
            match self.bleu {
                Some(bleu) => {
                    let all = tally
                        .translations
                        .get_or_insert_with(|| TranslationTally::new(bleu));
                    all.add(text.trim(), &[reference]);
                }
                None => {
                    let all = tally.summaries.get_or_insert_with(SummaryTally::default);
                    all.add(text.trim(), &[reference]);
                }
            }
        }
        tally
    }
}
