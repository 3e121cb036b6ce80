//! Texts for encoder-decoders. In: `[data]` and `[tokenizer]` of a recipe. Out: splits, tokenized and, of pairs, batched.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::TensorData;
use data::source::TextSource;
use data::{CutTexts, ItemKind, ItemSet, ItemSplits, SplitShares, TextTokenizer, TokenizerSource};
use model::beam::Search;
use model::families::{Seq2SeqPlan, Seq2SeqTokens};
use model::{HeadKind, Seq2SeqConfig, bundle};

use crate::failure::Failure;
use crate::job::items::Items;
use crate::job::text::{
    TextData, Texts, TokenBatch, TokenizerKind, TrainedTokenizer, bundle_tokenizer, introduce,
    limited_rows,
};
use crate::job::{Product, Recipe, Shared, Splits, Start};
use crate::recipe::Impossible;
use crate::run::{Held, check_memory};
use crate::source::{BatchSource, Counts, Epochs, Unit};

/// A text and the one that is to be written of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairRow {
    /// What is read, with the token that ends it.
    pub source: Vec<u32>,
    /// What is written, with the token that ends it.
    pub target: Vec<u32>,
}

/// A split, tokenized.
#[derive(Clone, Debug, Default)]
pub struct PairRows {
    /// The rows.
    pub rows: Arc<Vec<PairRow>>,
    /// What is to be written of the first of them, as the data has it: of these a model's own texts are judged.
    pub judged: Arc<Vec<String>>,
}

/// Tokenized splits, and the model for them.
pub struct PairData {
    /// Of both texts.
    pub tokenizer: Arc<TextTokenizer>,
    /// The model's.
    pub config: Seq2SeqConfig,
    /// Tokens of the longest text.
    pub max_length: usize,
    /// To train on.
    pub train: PairRows,
    /// To choose a checkpoint by.
    pub valid: PairRows,
    /// To report.
    pub test: PairRows,
}

/// Ends a text with the token that an encoder-decoder ends texts with, unless it does already.
///
/// - max_length: of the text with that token
pub fn end_with(row: &mut Vec<u32>, end: Option<u32>, max_length: usize) {
    if let Some(end) = end.filter(|end| row.last() != Some(end)) {
        row.truncate(max_length - 1);
        row.push(end);
    }
}

/// Reads and splits pairs, and tokenizes them.
///
/// - judged: rows of validation and test of which the model's own texts are judged
///
/// # Errors
///
/// Too few pairs, a tokenizer that cannot be read or trained, a model of another kind.
pub fn read(
    data: &Items,
    tokenizer: &TrainedTokenizer,
    set: &ItemSet,
    start: &Start,
    judged: usize,
) -> Result<PairData, Failure> {
    let shares = SplitShares {
        valid: data.splits.valid,
        test: data.splits.test,
        seed: data.splits.split_seed,
        labels: data.label_limit,
    };
    let ItemSplits {
        splits, summary, ..
    } = set.split(shares, "pairs")?;
    let max_length = tokenizer.given.max_length;
    let tokenizer = match given(tokenizer, start)? {
        Some(tokenizer) => tokenizer,
        None => {
            let texts = splits.train.iter().flat_map(|&row| &set.items[row].texts);
            let texts: Vec<&String> = texts.collect();
            match tokenizer.kind {
                TokenizerKind::Bpe => {
                    TextTokenizer::train_bpe(&texts, tokenizer.vocab_size)?.for_two_texts()?
                }
                TokenizerKind::WordPiece => {
                    TextTokenizer::train_wordpiece(&texts, tokenizer.vocab_size)?
                }
            }
        }
    };
    let config = start.seq2seq_config(&tokenizer)?;
    let plan = config.describe();
    check_positions(max_length, &plan)?;
    let limited = |rows: &[usize], limit| limited_rows(rows, limit, data.splits.split_seed);
    let mut cut = CutTexts::default();
    let end = plan.eos.first().copied();
    let mut encode = |rows: &[usize], judged: usize| -> Result<PairRows, Failure> {
        let mut side = |at: usize| -> Result<Vec<Vec<u32>>, Failure> {
            let texts: Vec<&str> = rows
                .iter()
                .map(|&row| set.items[row].texts[at].as_str())
                .collect();
            let mut tokens = tokenizer.encode(&texts, max_length)?;
            cut.add(CutTexts::count(&tokenizer, &texts, &tokens, max_length)?);
            tokens
                .iter_mut()
                .for_each(|row| end_with(row, end, max_length));
            Ok(tokens)
        };
        let (sources, targets) = (side(0)?, side(1)?);
        let pairs = sources.into_iter().zip(targets);
        let rows_of = pairs
            .map(|(source, target)| PairRow { source, target })
            .collect();
        let references = rows
            .iter()
            .take(judged)
            .map(|&row| set.items[row].texts[1].clone());
        Ok(PairRows {
            rows: Arc::new(rows_of),
            judged: Arc::new(references.collect()),
        })
    };
    let train = encode(&splits.train, 0)?;
    let valid = encode(&limited(&splits.valid, data.splits.valid_limit), judged)?;
    let test = encode(&limited(&splits.test, data.test_limit), judged)?;
    let summary = data::DataSummary {
        cut: Some((cut, max_length)),
        limits: [data.splits.valid_limit, data.test_limit],
        ..summary
    };
    introduce(&start.console, &summary);
    Ok(PairData {
        tokenizer: Arc::new(tokenizer),
        config,
        max_length,
        train,
        valid,
        test,
    })
}

/// The tokenizer of the bundle that training starts from, or the one that is named; none where one is to be trained.
fn given(tokenizer: &TrainedTokenizer, start: &Start) -> Result<Option<TextTokenizer>, Failure> {
    if let Some(bundle) = start.bundle() {
        bundle.seq2seq_config()?;
        return Ok(Some(bundle_tokenizer(bundle)?));
    }
    let path = tokenizer.given.path.as_str();
    if path.is_empty() {
        return Ok(None);
    }
    Ok(Some(TextTokenizer::load(path.as_ref())?))
}

/// Refuses texts longer than the model has positions for.
fn check_positions(max_length: usize, plan: &Seq2SeqPlan) -> Result<(), Impossible> {
    match plan.positions.filter(|positions| *positions < max_length) {
        None => Ok(()),
        Some(positions) => {
            let reason = format!("is {max_length}, longer than the model's {positions} positions");
            Err(Impossible::new("tokenizer.max_length", reason))
        }
    }
}

/// Says what is impossible about texts of this length for an encoder-decoder, if anything is.
///
/// - max_length: tokens of the longest text
///
/// # Errors
///
/// The key and what is wrong with it.
pub fn check_seq2seq(max_length: usize, recipe: &Recipe) -> Result<(), Impossible> {
    recipe.training.check_unpacked()?;
    recipe.training.check_texts(max_length)?;
    if max_length < 3 {
        let reason = "is below 3, which leaves no room for a word";
        return Err(Impossible::new("tokenizer.max_length", reason));
    }
    if recipe.from != "scratch" {
        return Ok(());
    }
    let mut config = recipe.seq2seq_sizes()?;
    // The texts bound the vocabulary, whatever the recipe allows.
    let tokens = Seq2SeqTokens {
        pad: 0,
        start: 0,
        eos: 0,
    };
    config.set_vocabulary(1, tokens);
    let wrong = |reason| Impossible::new("model", format!("is impossible: {reason}"));
    config.check().map_err(wrong)
}

impl Texts {
    /// Says what is impossible about these values for an encoder-decoder, if anything is.
    ///
    /// # Errors
    ///
    /// The key and what is wrong with it.
    pub fn check_for_seq2seq(
        &self,
        tokenizer: &TrainedTokenizer,
        recipe: &Recipe,
    ) -> Result<(), Impossible> {
        self.splits.check()?;
        tokenizer.check()?;
        check_seq2seq(tokenizer.given.max_length, recipe)
    }

    /// Splits and tokenizes for an encoder-decoder, as [`read`](Self::read) does for other models.
    ///
    /// - special: tokens that the objective needs; a tokenizer that is trained here gets those that it lacks
    ///
    /// # Errors
    ///
    /// Texts or a tokenizer that cannot be read, too few texts, a model of another kind.
    pub fn read_for_seq2seq(
        &self,
        source: TextSource,
        tokenizer: &TrainedTokenizer,
        special: &[String],
        start: &Start,
    ) -> Result<TextData<Seq2SeqConfig>, Failure> {
        let max_length = tokenizer.given.max_length;
        let tokenizer = match given(tokenizer, start)? {
            Some(tokenizer) => tokenizer,
            None => {
                let plan = self.plan(source.clone(), tokenizer.source(), max_length);
                let watch = start.console.now_and_then();
                let trained = plan.tokenizer_watched(self.cache().as_ref(), &watch)?;
                let trained = match tokenizer.kind {
                    TokenizerKind::Bpe => trained.for_two_texts()?,
                    TokenizerKind::WordPiece => trained,
                };
                trained.with_special_tokens(special)?
            }
        };
        let config = start.seq2seq_config(&tokenizer)?;
        check_positions(max_length, &config.describe())?;
        let tokenizer = TokenizerSource::Given(Box::new(tokenizer));
        let corpus = self.open(self.plan(source, tokenizer, max_length), start)?;
        Ok(self.data(corpus, config, max_length))
    }
}

impl TextData<Seq2SeqConfig> {
    /// What the bundle of an encoder-decoder holds beside its weights.
    ///
    /// # Errors
    ///
    /// A tokenizer that cannot be written.
    pub fn product(&self, search: &Search) -> Result<Product, Failure> {
        product(&self.tokenizer, &self.config, self.max_length, search)
    }
}

impl Items {
    /// Pairs of texts, one of which is written of the other.
    ///
    /// # Errors
    ///
    /// A file that is missing or malformed, rows that can't be used.
    pub fn pairs(&self) -> Result<ItemSet, Failure> {
        self.source(ItemKind::Pair)
    }
}

/// What an encoder-decoder's bundle holds beside the weights.
fn product(
    tokenizer: &TextTokenizer,
    config: &Seq2SeqConfig,
    max_length: usize,
    search: &Search,
) -> Result<Product, Failure> {
    let names = config.names(HeadKind::Tokens);
    let generation = format!("{:#}\n", search.json(&config.describe()));
    Ok(Product {
        names,
        config: bundle::config_json(names, config, None),
        files: vec![
            (bundle::TOKENIZER, tokenizer.to_json()?),
            (
                bundle::TOKENIZER_CONFIG,
                tokenizer.config_json(max_length, false),
            ),
            (bundle::GENERATION, generation),
        ],
    })
}

impl PairData {
    /// What the bundle holds beside the weights.
    ///
    /// # Errors
    ///
    /// A tokenizer that cannot be written.
    pub fn product(&self, search: &Search) -> Result<Product, Failure> {
        product(&self.tokenizer, &self.config, self.max_length, search)
    }

    /// Training batches in a new order every epoch, the other splits always the same.
    pub fn batches(self, recipe: &Recipe) -> Splits<PairBatch> {
        let (batching, accumulation) = (recipe.training.batching(), recipe.training.accumulation);
        let length = |row: &PairRow| (row.source.len() + row.target.len()) as u32;
        let lengths: Vec<u32> = self.train.rows.iter().map(length).collect();
        let shuffled = Epochs::shuffled(lengths, batching, accumulation, recipe.seed);
        let digest = data::digest(self.train.rows.len(), |at| {
            let PairRow { source, target } = &self.train.rows[at];
            let ids = source.iter().chain([&u32::MAX]).chain(target);
            ids.flat_map(|id| id.to_le_bytes()).collect()
        });
        let plan = self.config.describe();
        let batches = |split: PairRows, epochs| {
            Shared::new(PairBatches {
                split,
                epochs,
                plan: plan.clone(),
                tokenizer: self.tokenizer.clone(),
            })
        };
        let in_order = |split: PairRows| {
            let epochs = Epochs::in_order(split.rows.len(), recipe.training.batch_size);
            batches(split, epochs)
        };
        let is_tested = !self.test.rows.is_empty();
        Splits {
            train: batches(self.train.clone(), shuffled),
            valid: in_order(self.valid.clone()),
            test: is_tested.then(|| in_order(self.test.clone())),
            digest,
            unit: Unit::Tokens,
        }
    }
}

/// Texts, and what is to be written of them.
#[derive(Clone, Debug)]
pub struct PairBatch {
    /// What is read.
    pub inputs: TokenBatch,
    /// What the decoder reads: each text behind its start token, without its last.
    pub decoder: TokenBatch,
    /// Places of the flattened `[batch * seq]` of the decoder that predict.
    pub at: Vec<i32>,
    /// The token that belongs to each.
    pub targets: Vec<u32>,
    /// Texts that the first rows are judged by.
    pub references: Vec<String>,
    /// What makes texts of tokens.
    pub tokenizer: Arc<TextTokenizer>,
}

impl PairBatch {
    /// Pairs, of which none is judged.
    pub fn new<'a>(
        rows: impl Iterator<Item = &'a PairRow> + Clone,
        plan: &Seq2SeqPlan,
        tokenizer: Arc<TextTokenizer>,
    ) -> Self {
        let read = rows.clone().map(|row| {
            let before = &row.target[..row.target.len().saturating_sub(1)];
            let start = std::iter::once(plan.start);
            start.chain(before.iter().copied()).collect()
        });
        let read: Vec<Vec<u32>> = read.collect();
        let decoder = TokenBatch::pad(read.iter().map(Vec::as_slice), plan.pad);
        let (mut at, mut targets) = (Vec::new(), Vec::new());
        for (number, row) in rows.clone().enumerate() {
            let first = (number * decoder.seq) as i32;
            at.extend(first..first + row.target.len() as i32);
            targets.extend(&row.target);
        }
        Self {
            inputs: TokenBatch::pad(rows.map(|row| row.source.as_slice()), plan.pad),
            decoder,
            at,
            targets,
            references: Vec::new(),
            tokenizer,
        }
    }

    /// The decoder's tokens, `[batch, seq]`.
    pub fn decoder<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        let shape = [self.decoder.lengths.len(), self.decoder.seq];
        Tensor::from_data(TensorData::new(self.decoder.tokens.clone(), shape), device)
    }

    /// The texts of the rows that are judged, as a model reads them.
    pub fn judged(&self) -> TokenBatch {
        let rows = self.references.len();
        TokenBatch {
            tokens: self.inputs.tokens[..rows * self.inputs.seq].to_vec(),
            lengths: self.inputs.lengths[..rows].to_vec(),
            ..self.inputs.clone()
        }
    }
}

impl Counts for PairBatch {
    fn real(&self) -> usize {
        self.inputs.real() + self.decoder.real()
    }

    fn padded(&self) -> usize {
        self.inputs.padded() + self.decoder.padded()
    }

    fn denominators(&self) -> Vec<f64> {
        vec![self.targets.len() as f64]
    }
}

/// Batches of one split.
struct PairBatches {
    split: PairRows,
    epochs: Epochs,
    plan: Seq2SeqPlan,
    tokenizer: Arc<TextTokenizer>,
}

impl BatchSource for PairBatches {
    type Batch = PairBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> PairBatch {
        let picked = self.epochs.batch(number).rows;
        let rows = picked.iter().map(|&row| &self.split.rows[row as usize]);
        // Rows are in their order where they are judged, so the first rows of the split are the first of its batches.
        let judged = |row: &u32| self.split.judged.get(*row as usize).cloned();
        let batch = PairBatch::new(rows, &self.plan, self.tokenizer.clone());
        PairBatch {
            references: picked.iter().map_while(judged).collect(),
            ..batch
        }
    }
}

impl Start {
    /// The configuration of the encoder-decoder: the bundle's, or that of `[model]` for this tokenizer.
    ///
    /// # Errors
    ///
    /// Sizes that are impossible or too large for this machine, a tokenizer that has no token to end a text, or that the
    /// bundle's model has no room for.
    pub fn seq2seq_config(&self, tokenizer: &TextTokenizer) -> Result<Seq2SeqConfig, Failure> {
        let Some(bundle) = self.bundle() else {
            let mut config: Seq2SeqConfig = self.settings().seq2seq_sizes()?;
            let tokens = Seq2SeqTokens {
                pad: tokenizer.pad(),
                start: tokenizer.pad(),
                eos: tokenizer.required(data::Role::End)?,
            };
            config.set_vocabulary(tokenizer.vocab_size(), tokens);
            let wrong = |reason| Impossible::new("model", format!("is impossible: {reason}"));
            config.check().map_err(wrong)?;
            check_memory(config.describe().parameters, Held::Training).map_err(wrong)?;
            return Ok(config);
        };
        let mut config = bundle.seq2seq_config()?;
        let place = bundle.path().display();
        let wrong = |reason| Failure::input(format!("{place}: {reason}"));
        if self.settings().strategy.dropout >= 0.0 {
            config.set_dropout(self.settings().strategy.dropout);
        }
        let plan = config.describe();
        check_memory(plan.parameters, Held::Training).map_err(wrong)?;
        let (tokens, room) = (tokenizer.largest_id() as usize + 1, plan.vocab_size);
        if tokens > room {
            return Err(wrong(format!(
                "the tokenizer has {tokens} tokens and the model {room}"
            )));
        }
        Ok(config)
    }
}
