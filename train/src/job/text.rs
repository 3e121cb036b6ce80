//! From texts to batches of token ids. In: `[data]` and `[tokenizer]` of a recipe. Out: splits, tokenized and batched.

use std::cell::RefCell;
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::TensorData;
use data::order;
use data::packing::Sequence;
use data::source::TextSource;
use data::{
    BadRows, Cache, Corpus, CorpusPlan, CutTexts, DataSummary, Frame, LabelledSplits, Made, Packed,
    SplitShares, TextColumns, TextSet, TextTokenizer, TokenRows, TokenizerSource,
};
use model::bundle::Load;
use model::families::Place;
use model::{Bundle, HeadKind, TextConfig, TokenInput, TokenModel, bundle};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::job::labels::{Labelled, check_several};
use crate::job::{Product, Recipe, Shared, Splits, Start};
use crate::recipe::{self, Impossible};
use crate::run::{Held, check_memory};
use crate::source::{BatchSource, Counts, Epochs, Rows, Unit, whole_steps};

/// `[data]` that texts with and without labels share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // assets/recipes/ explains every key.
pub struct TextSplits {
    pub source: Vec<String>,
    pub valid_source: Vec<String>,
    pub test_source: Vec<String>,
    pub text: String,
    pub valid: f64,
    pub test: f64,
    pub split_seed: u64,
    pub valid_limit: usize,
    pub bad_rows: BadRows,
}

/// `[data]` of texts without labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Texts {
    #[serde(flatten)]
    pub splits: TextSplits,
    pub cache: bool,
}

/// `[data]` of texts with a label each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LabelledTexts {
    #[serde(flatten)]
    pub splits: TextSplits,
    pub label_column: String,
    pub label_limit: usize,
    pub test_limit: usize,
}

/// `[tokenizer]` of a job that is given one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TokenizerRecipe {
    pub path: String,
    pub max_length: usize,
}

impl TokenizerRecipe {
    /// The tokenizer of the bundle that training starts from, else the named one, else that of the bundled model.
    ///
    /// # Errors
    ///
    /// A bundle or a path without a tokenizer.
    pub(super) fn open(&self, start: &Start) -> Result<TextTokenizer, Failure> {
        match start.tokenizer()? {
            Some(tokenizer) => Ok(tokenizer),
            None if self.path.is_empty() => bundle_tokenizer(&model::bundled::wordnet_bert_nano()?),
            None => Ok(TextTokenizer::load(self.path.as_ref())?),
        }
    }
}

/// `[tokenizer]` of a job that may train one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TrainedTokenizer {
    #[serde(flatten)]
    pub given: TokenizerRecipe,
    pub kind: TokenizerKind,
    pub vocab_size: usize,
}

/// Which tokenizer is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// BERT's, of lower-cased words.
    #[default]
    WordPiece,
    /// GPT-2's, of any bytes.
    Bpe,
}

/// Token ids, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// `[batch, seq]`, row-major.
    pub tokens: Vec<i32>,
    /// Real tokens of each row.
    pub lengths: Vec<usize>,
    /// Longest row.
    pub seq: usize,
    /// Which text of its row a token belongs to, `[batch, seq]`; absent where a row is a text.
    pub texts: Option<Vec<i32>>,
    /// Which text of a pair a token belongs to, `[batch, seq]`; absent where a model is not told.
    pub types: Option<Vec<i32>>,
}

impl TokenBatch {
    /// Pads rows with `pad` to the longest of them.
    pub fn pad<'a>(rows: impl Iterator<Item = &'a [u32]> + Clone, pad: u32) -> Self {
        let lengths: Vec<_> = rows.clone().map(<[u32]>::len).collect();
        let seq = lengths.iter().copied().max().unwrap_or(0);
        let mut tokens = Vec::with_capacity(lengths.len() * seq);
        for row in rows {
            tokens.extend(row.iter().map(|&id| id as i32));
            tokens.resize(tokens.len() + seq - row.len(), pad as i32);
        }
        Self {
            tokens,
            lengths,
            seq,
            texts: None,
            types: None,
        }
    }

    /// Pads rows of ids and types; the types are kept where a model is told them.
    pub fn of_pairs<'a>(
        rows: impl Iterator<Item = (&'a [u32], &'a [u32])> + Clone,
        pad: u32,
        is_told: bool,
    ) -> Self {
        let mut batch = Self::pad(rows.clone().map(|(ids, _)| ids), pad);
        if is_told {
            let seq = batch.seq;
            let types = rows.flat_map(|(_, types)| {
                let padding = std::iter::repeat_n(0, seq - types.len());
                types.iter().map(|&kind| kind as i32).chain(padding)
            });
            batch.types = Some(types.collect());
        }
        batch
    }

    /// Real tokens.
    pub fn real(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The place of each row's first token, or of its last, in the flattened `[batch * seq]`.
    pub fn places(&self, place: Place) -> Vec<i32> {
        let at = |(row, &length): (usize, &usize)| {
            let first = row * self.seq;
            match place {
                Place::First => first as i32,
                Place::Last => (first + length.max(1) - 1) as i32,
            }
        };
        self.lengths.iter().enumerate().map(at).collect()
    }

    /// The places of all real tokens in the flattened `[batch * seq]`.
    pub fn real_places(&self) -> Vec<i32> {
        let row = |(row, &length): (usize, &usize)| {
            let first = (row * self.seq) as i32;
            first..first + length as i32
        };
        self.lengths.iter().enumerate().flat_map(row).collect()
    }

    /// A model's input; no mask when nothing is padded.
    pub fn input<B: Backend>(&self, device: &B::Device) -> TokenInput<B> {
        let shape = [self.lengths.len(), self.seq];
        let ints = |values: Vec<i32>| Tensor::from_data(TensorData::new(values, shape), device);
        let padded = self.real() < self.tokens.len();
        let mask_pad = padded.then(|| {
            let row = |&length: &usize| (0..self.seq).map(move |at| at >= length);
            let mask: Vec<bool> = self.lengths.iter().flat_map(row).collect();
            Tensor::from_data(TensorData::new(mask, shape), device)
        });
        TokenInput {
            mask_pad,
            token_types: self.types.clone().map(ints),
            texts: self.texts.clone().map(ints),
            positions: self.texts.as_ref().map(|texts| ints(self.positions(texts))),
            ..TokenInput::new(ints(self.tokens.clone()))
        }
    }

    /// Each token's place in its text.
    fn positions(&self, texts: &[i32]) -> Vec<i32> {
        let mut positions = Vec::with_capacity(texts.len());
        for row in texts.chunks(self.seq.max(1)) {
            let mut place = 0;
            for (at, text) in row.iter().enumerate() {
                let begins = at > 0 && row[at - 1] != *text;
                place = if at == 0 || begins { 0 } else { place + 1 };
                positions.push(place);
            }
        }
        positions
    }
}

impl Counts for TokenBatch {
    fn real(&self) -> usize {
        TokenBatch::real(self)
    }

    fn padded(&self) -> usize {
        self.tokens.len()
    }
}

/// Indices as a tensor.
pub fn indices<B: Backend>(at: &[i32], device: &B::Device) -> Tensor<B, 1, Int> {
    Tensor::from_data(TensorData::new(at.to_vec(), [at.len()]), device)
}

/// The tokenizer of a bundle: its `tokenizer.json`, or the files that older ones have instead.
///
/// # Errors
///
/// A bundle without a tokenizer, or one that is none.
pub fn bundle_tokenizer(bundle: &Bundle) -> Result<TextTokenizer, Failure> {
    let place = bundle.path().display().to_string();
    let failure = RefCell::new(None);
    let read = |name: &str| match bundle.read_optional(name) {
        Ok(bytes) => bytes,
        Err(error) => {
            failure.borrow_mut().get_or_insert(error);
            None
        }
    };
    let family = bundle.family().model_type;
    let tokenizer = TextTokenizer::from_files(&read, &place, Some(family));
    // A file that cannot be read is not missing.
    match failure.into_inner() {
        Some(error) => Err(error.into()),
        None => Ok(tokenizer?),
    }
}

/// Refuses sequences longer than the model has positions for.
///
/// # Errors
///
/// Fewer than 3 tokens, or more than positions.
pub fn check_lengths(max_length: usize, positions: usize) -> Result<(), Impossible> {
    let wrong = |reason| Err(Impossible::new("tokenizer.max_length", reason));
    if max_length < 3 {
        return wrong(format!(
            "is {max_length}; a token between two special ones needs 3"
        ));
    }
    if max_length > positions {
        return wrong(format!(
            "is {max_length}, longer than the model's {positions} positions"
        ));
    }
    Ok(())
}

impl TextSplits {
    pub(super) fn check(&self) -> Result<(), Impossible> {
        recipe::check_shares(self.valid, self.test)
    }

    /// Opens what is named, in the splits that are given.
    ///
    /// # Errors
    ///
    /// Nothing is named, or a path that is missing.
    pub(super) fn open(&self) -> Result<TextSource, Failure> {
        let Self {
            source,
            valid_source,
            test_source,
            ..
        } = self;
        Ok(TextSource::in_splits(source, valid_source, test_source)?)
    }

    fn columns(&self, label: Option<&str>) -> TextColumns {
        TextColumns {
            text: self.text.clone(),
            label: label.map(str::to_string),
            bad_rows: self.bad_rows,
        }
    }
}

/// Says what people should know of the data before a model trains on it.
pub(super) fn introduce(console: &crate::ui::Console, summary: &DataSummary) {
    summary.lines().iter().for_each(|line| console.note(line));
    let warnings = summary.warnings();
    warnings.iter().for_each(|line| console.warn_outside(line));
}

/// Says what is impossible about texts of this length in batches of this recipe, if anything is.
pub(super) fn check_text(
    splits: &TextSplits,
    tokenizer: &TokenizerRecipe,
    recipe: &Recipe,
) -> Result<(), Impossible> {
    splits.check()?;
    recipe.training.check_texts(tokenizer.max_length)?;
    if recipe.from != "scratch" {
        return Ok(());
    }
    let mut config = recipe.text_sizes()?;
    let wrong = |reason| Impossible::new("model", format!("is impossible: {reason}"));
    // The texts bound the vocabulary, whatever the recipe allows.
    config.set_vocabulary(1, 0);
    config.check().map_err(wrong)?;
    recipe.check_length(tokenizer.max_length, &config)?;
    check_memory(config.describe().parameters, Held::Training).map_err(wrong)
}

/// Texts are cut to so many tokens before they are packed, which bounds what the model's length does not.
const LONGEST_PACKED: usize = 65_535;

/// Tokenized splits without labels, and the model that reads them.
///
/// - `C`: the model's configuration
pub struct TextData<C = TextConfig> {
    /// Of the bundle that training starts from, of the recipe, or trained on the texts.
    pub tokenizer: TextTokenizer,
    /// The model's.
    pub config: C,
    /// Tokens of the longest sequence.
    pub max_length: usize,
    /// To train on.
    pub train: TokenRows,
    /// To choose a checkpoint by.
    pub valid: TokenRows,
    split_seed: u64,
}

impl Texts {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self, tokenizer: &TrainedTokenizer, recipe: &Recipe) -> Result<(), Impossible> {
        check_text(&self.splits, &tokenizer.given, recipe)?;
        tokenizer.check()?;
        if recipe.from != "scratch" {
            return Ok(());
        }
        let mut config = recipe.text_sizes()?;
        config.set_vocabulary(tokenizer.vocab_size, 0);
        let wrong = |reason| Impossible::new("model", format!("is impossible: {reason}"));
        config.check().map_err(wrong)
    }

    /// Opens what `source` names.
    ///
    /// # Errors
    ///
    /// Nothing is named, or a path that is missing.
    pub fn source(&self) -> Result<TextSource, Failure> {
        self.splits.open()
    }

    /// Splits and tokenizes, or opens what an earlier run kept of that; the tokenizer sees the training split only.
    ///
    /// # Errors
    ///
    /// Texts or a tokenizer that cannot be read, or too few texts.
    pub fn read(
        &self,
        source: TextSource,
        tokenizer: &TrainedTokenizer,
        recipe: &Recipe,
        start: &Start,
    ) -> Result<TextData, Failure> {
        let (max_length, packing) = (tokenizer.given.max_length, recipe.training.packing);
        let tokenizer = match start.tokenizer()? {
            Some(tokenizer) => TokenizerSource::Given(Box::new(tokenizer)),
            None => tokenizer.source(),
        };
        let longest = if packing { LONGEST_PACKED } else { max_length };
        let corpus = self.open(self.plan(source, tokenizer, longest), start)?;
        let config = start.text_config(&corpus.tokenizer)?;
        start.check_length(max_length, &config)?;
        Ok(self.data(corpus, config, max_length))
    }

    /// How the texts are split and tokenized.
    ///
    /// - longest: tokens of the longest text
    pub(super) fn plan(
        &self,
        source: TextSource,
        tokenizer: TokenizerSource,
        longest: usize,
    ) -> CorpusPlan {
        CorpusPlan {
            source,
            columns: self.splits.columns(None),
            valid: self.splits.valid,
            test: self.splits.test,
            split_seed: self.splits.split_seed,
            tokenizer,
            max_length: longest,
        }
    }

    /// Where tokens are kept, if anywhere.
    pub(super) fn cache(&self) -> Option<Cache> {
        self.cache.then(Cache::from_environment).flatten()
    }

    /// Splits and tokenizes, or opens what an earlier run kept; tells the console what people should know of it.
    pub(super) fn open(&self, plan: CorpusPlan, start: &Start) -> Result<Corpus, Failure> {
        let unread = plan.source.unread();
        let console = &start.console;
        let corpus = plan.open_watched(self.cache().as_ref(), &console.now_and_then())?;
        match &corpus.made {
            Made::Kept { .. } => console.note(&corpus.made.to_string()),
            Made::InMemory { instead: Some(_) } => console.warn_outside(&corpus.made.to_string()),
            Made::InMemory { instead: None } | Made::Opened(_) => {}
        }
        let cut = corpus.cut.map(|cut| (cut, plan.max_length));
        let summary = DataSummary {
            cut,
            unread,
            limits: [self.splits.valid_limit, 0],
            ..summary(&corpus)
        };
        introduce(console, &summary);
        Ok(corpus)
    }

    /// A corpus for a model of this configuration.
    pub(super) fn data<C>(&self, corpus: Corpus, config: C, max_length: usize) -> TextData<C> {
        let splits = &self.splits;
        TextData {
            config,
            max_length,
            valid: limited(corpus.valid, splits.valid_limit, splits.split_seed),
            train: corpus.train,
            tokenizer: corpus.tokenizer,
            split_seed: splits.split_seed,
        }
    }
}

impl TextData {
    /// What the bundle holds beside its weights.
    ///
    /// # Errors
    ///
    /// A tokenizer that cannot be written.
    pub fn product(&self, head: HeadKind) -> Result<Product, Failure> {
        let Self {
            tokenizer,
            config,
            max_length,
            ..
        } = self;
        product(tokenizer, config, head, None, *max_length)
    }

    /// The language model: drawn, or the one that training starts from, which may lack the head.
    ///
    /// # Errors
    ///
    /// Weights that do not fit, or an adapter that no layer takes.
    pub fn token_model<B: Backend>(
        &self,
        start: &Start,
        device: &B::Device,
    ) -> Result<TokenModel<B>, Failure> {
        let names = self.config.names(HeadKind::Tokens);
        let model = TokenModel::draw(&self.config, &start.draw(device, names));
        start.fill(model, names, Load::BackboneAndPerhapsHead)
    }
}

fn summary(corpus: &Corpus) -> DataSummary {
    DataSummary {
        unit: "texts",
        train: corpus.train.len(),
        valid: corpus.valid.len(),
        test: (corpus.held_out > 0).then_some(corpus.held_out as usize),
        left_out: corpus.left_out.clone(),
        leaks: corpus.leaks as usize,
        ..DataSummary::default()
    }
}

impl TrainedTokenizer {
    /// Whether a job without a bundle trains WordPiece.
    pub fn trains_wordpiece(&self) -> bool {
        self.given.path.is_empty() && self.kind == TokenizerKind::WordPiece
    }

    /// Says what is impossible about these values, if anything is.
    pub(super) fn check(&self) -> Result<(), Impossible> {
        if self.vocab_size > 0 {
            return Ok(());
        }
        let reason = "is 0; it must be at least 1";
        Err(Impossible::new("tokenizer.vocab_size", reason))
    }

    /// Where a job without a bundle has its tokenizer from.
    pub(super) fn source(&self) -> TokenizerSource {
        let vocab_size = self.vocab_size;
        let path = self.given.path.as_str();
        if !path.is_empty() {
            return TokenizerSource::Load(path.into());
        }
        match self.kind {
            TokenizerKind::WordPiece => TokenizerSource::Train { vocab_size },
            TokenizerKind::Bpe => TokenizerSource::TrainBytes { vocab_size },
        }
    }
}

/// The validation rows that are looked at, the same ones in every run.
fn limited(valid: TokenRows, limit: usize, split_seed: u64) -> TokenRows {
    if limit == 0 || valid.len() <= limit {
        return valid;
    }
    let order = order::shuffled(valid.len(), split_seed, 0);
    valid.select(&order[..limit])
}

/// What a text model's bundle holds beside the weights.
///
/// # Errors
///
/// A tokenizer that cannot be written.
pub fn product(
    tokenizer: &TextTokenizer,
    config: &TextConfig,
    head: HeadKind,
    classes: Option<&[String]>,
    max_length: usize,
) -> Result<Product, Failure> {
    let names = config.names(head);
    let sizes = config.describe();
    let mut settings = tokenizer.config_json(max_length, sizes.segments > 1);
    let mut json = bundle::config_json(names, config, classes);
    if head == HeadKind::Tokens
        && sizes.causal
        && let Some(end) = tokenizer.separator()
    {
        // In training the end token was in front of each text; `apps generate` puts it there too.
        settings = settings.replacen('{', "{\n  \"add_bos_token\": true,", 1);
        // Where the ids are left out, `transformers` takes those of the published model.
        if let Some(json) = json.as_object_mut() {
            for key in ["bos_token_id", "eos_token_id"] {
                json.entry(key).or_insert(end.into());
            }
        }
    }
    Ok(Product {
        names,
        config: json,
        files: vec![
            (bundle::TOKENIZER, tokenizer.to_json()?),
            (bundle::TOKENIZER_CONFIG, settings),
        ],
    })
}

/// Token ids, and the number that chance is drawn by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// With the special tokens that the tokenizer puts around a text.
    pub tokens: Vec<u32>,
    /// Where texts begin among them: one, or several where texts share a sequence.
    pub starts: Vec<u32>,
    /// No sample of any epoch shares it.
    pub number: u64,
}

/// Makes a batch of rows: a function of the rows and of their numbers alone.
pub trait Collate: Send + Sync + 'static {
    /// What it makes.
    type Batch: Counts + Send + Sync + 'static;

    /// A batch.
    fn collate(&self, rows: Vec<Sample>) -> Self::Batch;
}

/// Token sequences in batches.
pub struct TextBatches<C> {
    sequences: Sequences,
    collate: C,
}

/// Token sequences in an order.
pub enum Sequences {
    /// A text each.
    Texts(TokenRows, Epochs),
    /// Texts one after another, cut into full sequences.
    Packed {
        /// The sequences.
        packed: Packed,
        /// Sequences of a batch.
        batch_size: usize,
        /// Batches of an epoch.
        batches: u64,
    },
}

impl Sequences {
    /// Texts in a new order every epoch, batched as the recipe says.
    ///
    /// # Errors
    ///
    /// Texts that, packed, fill no batch.
    pub fn shuffled(
        texts: TokenRows,
        recipe: &Recipe,
        tokenizer: &TextTokenizer,
        max_length: usize,
    ) -> Result<Self, Impossible> {
        let (training, seed) = (&recipe.training, recipe.seed);
        if training.packing {
            return Self::packed(texts, recipe, tokenizer, max_length);
        }
        let texts = texts.cut_to(max_length, tokenizer.frame());
        let lengths = texts.clone();
        let epochs = Epochs::shuffled(lengths, training.batching(), training.accumulation, seed);
        Ok(Self::Texts(texts, epochs))
    }

    fn packed(
        texts: TokenRows,
        recipe: &Recipe,
        tokenizer: &TextTokenizer,
        max_length: usize,
    ) -> Result<Self, Impossible> {
        let batch_size = recipe.training.batch_size;
        let packed = match tokenizer.opening() {
            Some(first) => Packed::new(texts, max_length, first, recipe.seed),
            None => Packed::causal(texts, max_length, tokenizer.separator(), recipe.seed),
        };
        let sequences = packed.sequences();
        match sequences / batch_size.max(1) {
            0 => Err(too_few(batch_size, sequences, max_length)),
            batches => Ok(Self::Packed {
                packed,
                batch_size,
                batches: whole_steps(batches as u64, recipe.training.accumulation),
            }),
        }
    }

    fn batches_per_epoch(&self) -> u64 {
        match self {
            Self::Texts(_, epochs) => epochs.batches_per_epoch(),
            Self::Packed { batches, .. } => *batches,
        }
    }

    /// The sequences of a batch.
    fn batch(&self, number: u64) -> Vec<Sample> {
        match self {
            Self::Texts(texts, epochs) => {
                let Rows { rows, samples } = epochs.batch(number);
                let rows = rows.into_iter().map(|row| texts.row(row));
                let starts = vec![0];
                let sample = |(tokens, number)| Sample {
                    tokens,
                    starts: starts.clone(),
                    number,
                };
                rows.zip(samples).map(sample).collect()
            }
            Self::Packed {
                packed,
                batch_size,
                batches,
            } => {
                let (epoch, at) = (number / batches, (number % batches) as usize);
                let first = at * batch_size;
                let sample = |i| {
                    let Sequence { tokens, starts } = packed.sequence_of_texts(epoch, i);
                    Sample {
                        tokens,
                        starts,
                        number: epoch * packed.sequences() as u64 + i as u64,
                    }
                };
                (first..first + batch_size).map(sample).collect()
            }
        }
    }
}

/// Refuses batches of more sequences than there are.
pub(super) fn too_few(batch_size: usize, sequences: usize, max_length: usize) -> Impossible {
    let reason = format!("is {batch_size}; the texts fill {sequences} sequences of {max_length}");
    Impossible::new("training.batch_size", reason)
}

impl<C: Collate> TextBatches<C> {
    /// Batches of sequences.
    pub fn new(sequences: Sequences, collate: C) -> Self {
        Self { sequences, collate }
    }
}

impl<C: Collate> BatchSource for TextBatches<C> {
    type Batch = C::Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.sequences.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> C::Batch {
        self.collate.collate(self.sequences.batch(number))
    }
}

impl<M> TextData<M> {
    /// Of the training texts and their tokenizer.
    pub(super) fn digest(&self) -> String {
        data::digest(self.train.len(), |at| {
            let row = self.train.row(at as u32).into_iter();
            row.flat_map(u32::to_le_bytes).collect()
        })
    }

    /// Training batches in a new order every epoch, validation always the same.
    ///
    /// - collate: gets the tokenizer, and rows and seed of the split
    ///
    /// # Errors
    ///
    /// Texts that, packed, fill no batch.
    pub fn batches<C: Collate>(
        self,
        recipe: &Recipe,
        collate: impl Fn(&TextTokenizer, &TokenRows, u64) -> C,
    ) -> Result<Splits<C::Batch>, Failure> {
        let cut = |rows: &TokenRows| rows.cut_to(self.max_length, self.tokenizer.frame());
        let (whole, valid) = (cut(&self.train), cut(&self.valid));
        let in_order = Epochs::in_order(valid.len(), recipe.training.batch_size);
        let digest = self.digest();
        let train = Sequences::shuffled(self.train, recipe, &self.tokenizer, self.max_length)?;
        let batches = |sequences, rows: &TokenRows, seed| {
            let collate = collate(&self.tokenizer, rows, seed);
            Shared::new(TextBatches { sequences, collate })
        };
        let in_turn = Sequences::Texts(valid.clone(), in_order);
        Ok(Splits {
            train: batches(train, &whole, recipe.seed),
            valid: batches(in_turn, &valid, self.split_seed),
            test: None,
            digest,
            unit: Unit::Tokens,
        })
    }
}

/// Predicts each token from those before it.
///
/// The end token is in front of each text, where the tokenizer has one, and the last thing to predict: a model that is given
/// nothing else begins a text.
pub struct NextTokens {
    pad: u32,
    end: Option<u32>,
    frame: Frame,
    max_length: usize,
    /// Bytes that each token is in a text.
    bytes: Vec<u32>,
}

impl NextTokens {
    /// - max_length: tokens of the longest sequence that the model reads
    pub fn new(tokenizer: &TextTokenizer, max_length: usize) -> Self {
        Self {
            pad: tokenizer.pad(),
            end: tokenizer.separator(),
            frame: tokenizer.frame().clone(),
            max_length,
            bytes: tokenizer.byte_lengths(),
        }
    }

    /// A sequence with what it predicts at its end, and the text of each of its tokens but the last.
    fn framed(&self, sample: Sample) -> (Vec<u32>, Vec<i32>) {
        let Sample { tokens, starts, .. } = sample;
        if starts.len() > 1 || tokens.len() > self.max_length {
            let mut texts = vec![0; tokens.len().saturating_sub(1)];
            for &start in &starts[1..] {
                // The end token before a text belongs to it.
                let first = (start as usize).saturating_sub(usize::from(self.end.is_some()));
                texts.iter_mut().skip(first).for_each(|text| *text += 1);
            }
            return (tokens, texts);
        }
        let ends = self.end.into_iter();
        let mut framed: Vec<u32> = ends.clone().chain(tokens).chain(ends).collect();
        self.frame.cut(&mut framed, self.max_length + 1);
        let texts = vec![0; framed.len().saturating_sub(1)];
        (framed, texts)
    }

    /// A batch of rows that hold what they predict, each token from those before it.
    ///
    /// - goes_on: whether each row does where that of the batch before ended
    pub(super) fn batch(&self, rows: &[Vec<u32>], goes_on: bool) -> NextTokenBatch {
        // A row without a token to read is one place that predicts nothing.
        let pad = [self.pad];
        let known = rows.iter().map(|row| match row.as_slice() {
            [known @ .., _] if !known.is_empty() => known,
            _ => &pad[..],
        });
        let inputs = TokenBatch::pad(known, self.pad);
        let (mut at, mut targets) = (Vec::new(), Vec::new());
        for (number, row) in rows.iter().enumerate() {
            let first = (number * inputs.seq) as i32;
            let following = row.get(1..).unwrap_or_default();
            at.extend(first..first + following.len() as i32);
            targets.extend(following);
        }
        let bytes = |&id: &u32| u64::from(self.bytes[id as usize]);
        let bytes = targets.iter().map(bytes).sum();
        NextTokenBatch {
            inputs,
            at,
            targets,
            bytes,
            goes_on,
        }
    }
}

impl Collate for NextTokens {
    type Batch = NextTokenBatch;

    fn collate(&self, rows: Vec<Sample>) -> NextTokenBatch {
        let (rows, texts): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| self.framed(row)).unzip();
        let mut batch = self.batch(&rows, false);
        let seq = batch.inputs.seq;
        if texts.iter().any(|row| row.last() > Some(&0)) {
            let padded = texts.into_iter().flat_map(|mut row| {
                // Padding is a text that no token belongs to.
                row.resize(seq, -1);
                row
            });
            batch.inputs.texts = Some(padded.collect());
        }
        batch
    }
}

/// Token sequences, and the token that follows each place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextTokenBatch {
    /// What the model sees.
    pub inputs: TokenBatch,
    /// Places in the flattened `[batch * seq]`.
    pub at: Vec<i32>,
    /// The token that follows each.
    pub targets: Vec<u32>,
    /// Bytes of text that the targets are.
    pub bytes: u64,
    /// Whether each row goes on where that of the batch before ended: in streams, but for the first batch of an epoch.
    pub goes_on: bool,
}

impl Counts for NextTokenBatch {
    fn real(&self) -> usize {
        self.inputs.real()
    }

    fn padded(&self) -> usize {
        self.inputs.padded()
    }

    fn denominators(&self) -> Vec<f64> {
        vec![self.targets.len() as f64]
    }
}

/// Token ids and the class of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledRow {
    /// With special tokens.
    pub tokens: Vec<u32>,
    /// Index into the class names.
    pub class: u32,
}

/// Tokenized splits with their classes, and the model that reads them.
pub struct LabelledTextData {
    /// Of the bundle that training starts from, or of the recipe.
    pub tokenizer: TextTokenizer,
    /// The model's.
    pub config: TextConfig,
    /// Tokens of the longest text.
    pub max_length: usize,
    /// Class names, in the order of the logits.
    pub classes: Vec<String>,
    /// Training rows.
    pub train: Arc<Vec<LabelledRow>>,
    /// Validation rows.
    pub valid: Arc<Vec<LabelledRow>>,
    /// Test rows.
    pub test: Arc<Vec<LabelledRow>>,
}

impl LabelledTexts {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self, tokenizer: &TokenizerRecipe, recipe: &Recipe) -> Result<(), Impossible> {
        recipe.training.check_unpacked()?;
        check_text(&self.splits, tokenizer, recipe)
    }

    /// Reads what `source` names.
    ///
    /// # Errors
    ///
    /// A file that is missing or malformed.
    pub fn source(&self) -> Result<TextSet, Failure> {
        let columns = self.splits.columns(Some(&self.label_column));
        Ok(self.splits.open()?.collect(&columns)?)
    }

    /// Splits, learns the classes from the training split, and tokenizes.
    ///
    /// # Errors
    ///
    /// Too few texts or classes, a tokenizer that cannot be read.
    pub fn read(
        &self,
        texts: &TextSet,
        tokenizer: &TokenizerRecipe,
        start: &Start,
    ) -> Result<LabelledTextData, Failure> {
        let max_length = tokenizer.max_length;
        let tokenizer = tokenizer.open(start)?;
        let config = start.text_config(&tokenizer)?;
        start.check_length(max_length, &config)?;
        let data = &self.splits;
        let shares = SplitShares {
            valid: data.valid,
            test: data.test,
            seed: data.split_seed,
            labels: self.label_limit,
        };
        let splits = LabelledSplits::new(texts, shares)?;
        check_several(&splits.classes(texts, &splits.train)?, self.label_limit)?;
        let mut cut = CutTexts::default();
        let mut encode = |rows: &[usize]| -> Result<Arc<Vec<LabelledRow>>, Failure> {
            let picked: Vec<_> = rows.iter().map(|&row| &texts.examples[row].text).collect();
            let tokens = tokenizer.encode(&picked, max_length)?;
            cut.add(CutTexts::count(&tokenizer, &picked, &tokens, max_length)?);
            let rows = tokens.into_iter().zip(splits.classes(texts, rows)?);
            let row = |(tokens, class)| LabelledRow { tokens, class };
            Ok(Arc::new(rows.map(row).collect()))
        };
        let train = encode(&splits.train)?;
        let valid = encode(&limited_rows(
            &splits.valid,
            data.valid_limit,
            data.split_seed,
        ))?;
        let test = encode(&limited_rows(
            &splits.test,
            self.test_limit,
            data.split_seed,
        ))?;
        let summary = DataSummary {
            cut: Some((cut, max_length)),
            limits: [data.valid_limit, self.test_limit],
            ..DataSummary::of_labelled(texts, &splits)
        };
        introduce(&start.console, &summary);
        Ok(LabelledTextData {
            train,
            valid,
            test,
            classes: splits.labels.names().to_vec(),
            tokenizer,
            config,
            max_length,
        })
    }
}

/// The rows of a split that are looked at, the same ones in every run; a limit of 0 is all of them.
pub(super) fn limited_rows(rows: &[usize], limit: usize, split_seed: u64) -> Vec<usize> {
    let order = order::shuffled(rows.len(), split_seed, 0);
    let limit = if limit == 0 { rows.len() } else { limit };
    order
        .iter()
        .take(limit)
        .map(|&at| rows[at as usize])
        .collect()
}

/// Token sequences with their classes.
pub type LabelledBatch = Labelled<TokenBatch>;

/// Batches of labelled, tokenized texts.
pub struct LabelledTextBatches {
    rows: Arc<Vec<LabelledRow>>,
    epochs: Epochs,
    pad: u32,
}

impl LabelledTextBatches {
    /// Batches of `rows` in the order of `epochs`.
    pub fn new(rows: Arc<Vec<LabelledRow>>, epochs: Epochs, pad: u32) -> Self {
        Self { rows, epochs, pad }
    }
}

impl BatchSource for LabelledTextBatches {
    type Batch = LabelledBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> LabelledBatch {
        let picked = self.epochs.batch(number).rows;
        let rows = || picked.iter().map(|&row| &self.rows[row as usize]);
        Labelled {
            inputs: TokenBatch::pad(rows().map(|row| row.tokens.as_slice()), self.pad),
            targets: rows().map(|row| row.class).collect(),
        }
    }
}

impl LabelledTextData {
    /// Training batches in a new order every epoch, the other splits always the same.
    pub fn batches(self, recipe: &Recipe) -> Splits<LabelledBatch> {
        let (batching, accumulation) = (recipe.training.batching(), recipe.training.accumulation);
        let lengths = self.train.iter().map(|row| row.tokens.len() as u32);
        let shuffled = Epochs::shuffled(
            lengths.collect::<Vec<u32>>(),
            batching,
            accumulation,
            recipe.seed,
        );
        let digest = data::digest(self.train.len(), |at| {
            let LabelledRow { tokens, class } = &self.train[at];
            let ids = tokens.iter().chain([class]);
            ids.flat_map(|id| id.to_le_bytes()).collect()
        });
        let pad = self.tokenizer.pad();
        let batches = |rows: Arc<Vec<LabelledRow>>, epochs| {
            Shared::new(LabelledTextBatches::new(rows, epochs, pad))
        };
        let in_order = |rows: Arc<Vec<LabelledRow>>| {
            let epochs = Epochs::in_order(rows.len(), 100);
            batches(rows, epochs)
        };
        Splits {
            train: batches(self.train, shuffled),
            valid: in_order(self.valid),
            test: (!self.test.is_empty()).then(|| in_order(self.test)),
            digest,
            unit: Unit::Tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    const TEXTS: [&str; 4] = ["a small bird", "a bird", "iron tools that cut", "a tool"];

    fn bpe() -> TextTokenizer {
        TextTokenizer::train_bpe(&TEXTS, 280).unwrap()
    }

    fn sample(tokens: &[u32], starts: &[u32]) -> Sample {
        Sample {
            tokens: tokens.to_vec(),
            starts: starts.to_vec(),
            number: 0,
        }
    }

    #[test]
    fn rows_are_padded_on_the_right_and_masked_there() {
        let rows: [&[u32]; 3] = [&[5, 6, 7], &[8], &[]];
        let batch = TokenBatch::pad(rows.into_iter(), 9);
        assert_eq!(batch.tokens, [5, 6, 7, 8, 9, 9, 9, 9, 9]);
        assert_eq!((batch.real(), batch.padded()), (4, 9));
        assert_eq!(batch.places(Place::First), [0, 3, 6]);
        assert_eq!(batch.places(Place::Last), [2, 3, 6]);
        let input = batch.input::<Flex>(&Default::default());
        let mask: Vec<bool> = input.mask_pad.unwrap().into_data().iter().collect();
        let (real, pad) = (false, true);
        assert_eq!(mask, [real, real, real, real, pad, pad, pad, pad, pad]);
        // No mask where there is nothing to hide.
        let full = TokenBatch::pad(rows[..1].iter().copied(), 9);
        assert!(full.input::<Flex>(&Default::default()).mask_pad.is_none());
    }

    #[test]
    fn a_text_is_predicted_from_the_end_token_to_the_end_token() {
        let tokenizer = bpe();
        let end = tokenizer.separator().unwrap();
        let batch = NextTokens::new(&tokenizer, 8)
            .collate(vec![sample(&[5, 6, 7], &[0]), sample(&[8], &[0])]);
        let (pad, e) = (tokenizer.pad() as i32, end as i32);
        assert_eq!(batch.inputs.tokens, [e, 5, 6, 7, e, 8, pad, pad]);
        assert_eq!(batch.inputs.lengths, [4, 2]);
        assert_eq!(batch.at, [0, 1, 2, 3, 4, 5]);
        assert_eq!(batch.targets, [5, 6, 7, end, 8, end]);
        assert_eq!(batch.inputs.texts, None);
        // Bytes that are text: an end token is none.
        let lengths = tokenizer.byte_lengths();
        let bytes: u32 = [5, 6, 7, 8].iter().map(|&id: &usize| lengths[id]).sum();
        assert_eq!(batch.bytes, u64::from(bytes));
        assert_eq!(lengths[end as usize], 0);
    }

    #[test]
    fn a_text_without_a_token_predicts_nothing() {
        let no_end = NextTokens {
            end: None,
            ..NextTokens::new(&bpe(), 8)
        };
        let batch = no_end.collate(vec![sample(&[], &[0]), sample(&[5], &[0])]);
        assert_eq!(batch.inputs.seq, 1);
        assert!(batch.at.is_empty() && batch.targets.is_empty());
        assert_eq!(batch.denominators(), [0.0]);
        let batch = no_end.collate(vec![sample(&[], &[0]), sample(&[5, 6], &[0])]);
        assert_eq!((&batch.at[..], &batch.targets[..]), (&[1][..], &[6][..]));
    }

    #[test]
    fn a_text_longer_than_the_model_is_cut_behind_its_last_target() {
        let tokenizer = bpe();
        let end = tokenizer.separator().unwrap() as i32;
        let batch = NextTokens::new(&tokenizer, 3).collate(vec![sample(&[5, 6, 7], &[0])]);
        assert_eq!(batch.inputs.tokens, [end, 5, 6]);
        assert_eq!(batch.targets, [5, 6, 7]);
    }

    #[test]
    fn a_text_cut_on_the_left_ends_in_the_end_token() {
        let json = bpe().to_json().unwrap();
        let truncation = r#""truncation": {"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0}"#;
        let json = json.replace(r#""truncation": null"#, truncation);
        let tokenizer = TextTokenizer::from_bytes(json.as_bytes()).unwrap();
        let end = tokenizer.separator().unwrap();
        let batch = NextTokens::new(&tokenizer, 3).collate(vec![sample(&[5, 6, 7], &[0])]);
        // Its beginning may be missing, so no end token is in front.
        assert_eq!(batch.inputs.tokens, [5, 6, 7]);
        assert_eq!(batch.targets, [6, 7, end]);
    }

    #[test]
    fn texts_of_one_sequence_have_numbers_and_positions_of_their_own() {
        let tokenizer = bpe();
        let end = tokenizer.separator().unwrap();
        // The end of a text that began before, a whole one, and the beginning of a third.
        let tokens = [5, 6, end, 7, 8, end, 9, 10];
        let batch = NextTokens::new(&tokenizer, 7).collate(vec![sample(&tokens, &[0, 3, 6])]);
        assert_eq!(batch.targets, tokens[1..]);
        // The end token in front of a text belongs to it: from there its first token is predicted.
        assert_eq!(batch.inputs.texts, Some(vec![0, 0, 1, 1, 1, 2, 2]));
        let input = batch.inputs.input::<Flex>(&Default::default());
        let ints = |tensor: Tensor<Flex, 2, Int>| tensor.into_data().iter().collect::<Vec<i32>>();
        assert_eq!(
            ints(input.positions.clone().unwrap()),
            [0, 1, 0, 1, 2, 0, 1]
        );
        let bias = input.attention_bias(0, burn::tensor::DType::F32).unwrap();
        assert_eq!(bias.dims(), [1, 1, 7, 7]);
        let bias: Vec<f32> = bias.into_data().iter().collect();
        let texts = [0, 0, 1, 1, 1, 2, 2];
        for (at, value) in bias.iter().enumerate() {
            let same = texts[at / 7] == texts[at % 7];
            assert_eq!(*value == 0.0, same, "{at}");
        }
    }

    #[test]
    fn next_tokens_are_a_function_of_the_rows() {
        let tokenizer = bpe();
        let collate = NextTokens::new(&tokenizer, 8);
        let rows = || vec![sample(&[5, 6], &[0]), sample(&[7, 8, 9], &[0])];
        assert_eq!(collate.collate(rows()), collate.collate(rows()));
        let mut turned = rows();
        turned.reverse();
        let (one, other) = (collate.collate(rows()), collate.collate(turned));
        assert_eq!(one.bytes, other.bytes);
        assert_ne!(one.inputs, other.inputs);
    }

    #[test]
    fn limits_pick_the_same_rows_in_every_run() {
        let rows: Vec<usize> = (10..30).collect();
        let few = limited_rows(&rows, 5, 3);
        assert_eq!(few, limited_rows(&rows, 5, 3));
        assert_eq!(few[..3], limited_rows(&rows, 3, 3));
        let mut all = limited_rows(&rows, 0, 3);
        all.sort_unstable();
        assert_eq!(all, rows);
    }

    #[test]
    fn lengths_that_no_model_can_read_are_refused() {
        assert_eq!(check_lengths(3, 3), Ok(()));
        let told = |max_length, positions| {
            check_lengths(max_length, positions)
                .unwrap_err()
                .to_string()
        };
        assert!(told(2, 8).contains("needs 3"));
        assert!(told(9, 8).contains("longer than the model's 8 positions"));
    }
}
