//! Text classification. In: labelled texts and a bundle. Out: a `BertForSequenceClassification` bundle.
//!
//! The backbone keeps its weights, the pooler and the head are drawn anew; Devlin et al. 2019, section 4.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::text::{TextColumns, TextSet};
use data::{Labels, TextTokenizer, order, source, split};
use model::bundle::{self, Architecture, Bundle, Load};
use model::{BertClassifier, BertConfig};
use serde::{Deserialize, Serialize};
use train::backend::train_on;
use train::classification::{self, ClassTally};
use train::cli::Entry;
use train::loss::{ClassLoss, ClassLossRecipe};
use train::recipe::{
    self, BundleRecipe, Draft, GuardRecipe, Impossible, OptimizerRecipe, ScheduleRecipe,
    TrainingRecipe,
};
use train::session::{Options, Session, Status};
use train::source::{BatchSource, Counts, Epochs, Unit};
use train::text::{self, TokenBatch};
use train::{Failure, LossSums, Metric, Objective, WithBackend};

use crate::few::few;
use crate::strategy::{self, StrategyRecipe};

/// Text classification, as the command line knows it.
pub const ENTRY: Entry = Entry {
    name: "text-classification",
    about: "classes of texts with a BERT encoder",
    recipe: include_str!("../../assets/recipes/text-classification.toml"),
    run,
};

/// A recipe; `assets/recipes/text-classification.toml` explains every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The recipe file is their one home.
pub struct TextClassificationRecipe {
    pub task: String,
    pub seed: u64,
    pub from: String,
    pub data: LabelledTextData,
    pub tokenizer: TokenizerRecipe,
    pub model: EncoderRecipe,
    pub strategy: StrategyRecipe,
    pub loss: ClassLossRecipe,
    pub optimizer: OptimizerRecipe,
    pub schedule: ScheduleRecipe,
    pub training: TrainingRecipe,
    pub guard: GuardRecipe,
    pub bundle: BundleRecipe,
}

impl TextClassificationRecipe {
    /// The recipe in `assets/recipes/text-classification.toml`.
    pub fn built_in() -> Result<Self, Failure> {
        let built_in = [(ENTRY.name, ENTRY.recipe)];
        Ok(Draft::open(ENTRY.name, "task", &built_in)?.finish()?)
    }
}

/// `[data]`: which texts, and how they are split.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LabelledTextData {
    pub source: Vec<String>,
    pub text: String,
    pub label: String,
    pub labels: usize,
    pub valid: f64,
    pub test: f64,
    pub split_seed: u64,
    pub valid_limit: usize,
    pub test_limit: usize,
}

/// `[tokenizer]`: a bundle brings its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TokenizerRecipe {
    pub path: String,
    pub max_length: usize,
}

/// `[model]`: sizes of a model without pretraining.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct EncoderRecipe {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
}

/// BERT with a classification loss.
#[derive(Module, Debug)]
pub struct TextClassification<B: Backend> {
    /// The model.
    pub model: BertClassifier<B>,
    loss: ClassLoss,
}

impl<B: Backend> TextClassification<B> {
    /// A model that learns by this loss.
    pub fn new(model: BertClassifier<B>, loss: ClassLoss) -> Self {
        Self { model, loss }
    }
}

/// Token sequences with their classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledBatch {
    /// What the model sees.
    pub inputs: TokenBatch,
    /// A class a row.
    pub targets: Vec<u32>,
}

impl Counts for LabelledBatch {
    fn real(&self) -> usize {
        self.inputs.real()
    }

    fn padded(&self) -> usize {
        self.inputs.tokens.len()
    }
}

impl<B: Backend> Objective<B> for TextClassification<B> {
    type Batch = LabelledBatch;
    type Tally = ClassTally;
    const MEANS: &'static [&'static str] = &["accuracy"];
    const METRICS: &'static [Metric] = classification::METRICS;

    fn loss(&self, batch: &LabelledBatch, device: &B::Device) -> LossSums<B> {
        let logits = self.model.forward(batch.inputs.input(device));
        self.loss.sums(logits, &batch.targets)
    }

    fn evaluate(&self, batch: &LabelledBatch, device: &B::Device) -> ClassTally {
        let logits = self.model.forward(batch.inputs.input(device));
        ClassTally::read(logits, &batch.targets)
    }
}

/// Batches of labelled, tokenized texts.
pub struct LabelledTexts {
    rows: Arc<Vec<Row>>,
    epochs: Epochs,
    pad: u32,
}

/// Token ids and the class of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// With special tokens.
    pub tokens: Vec<u32>,
    /// Index into the class names.
    pub class: u32,
}

impl LabelledTexts {
    /// Batches of `rows` in the order of `epochs`.
    pub fn new(rows: Arc<Vec<Row>>, epochs: Epochs, pad: u32) -> Self {
        Self { rows, epochs, pad }
    }
}

impl BatchSource for LabelledTexts {
    type Batch = LabelledBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> LabelledBatch {
        let picked = self.epochs.batch(number).rows;
        let rows = || picked.iter().map(|&row| &self.rows[row as usize]);
        LabelledBatch {
            inputs: TokenBatch::pad(rows().map(|row| row.tokens.as_slice()), self.pad),
            targets: rows().map(|row| row.class).collect(),
        }
    }
}

/// Tokenized splits with their classes.
pub struct LabelledCorpus {
    /// Class names, in the order of the logits.
    pub classes: Vec<String>,
    /// Training rows.
    pub train: Arc<Vec<Row>>,
    /// Validation rows.
    pub valid: Arc<Vec<Row>>,
    /// Test rows.
    pub test: Arc<Vec<Row>>,
}

impl LabelledCorpus {
    /// Splits texts, learns the classes from the training split, and tokenizes.
    pub fn new(
        texts: &TextSet,
        data: &LabelledTextData,
        tokenizer: &TextTokenizer,
        max_length: usize,
    ) -> Result<Self, Failure> {
        let keys: Vec<_> = texts
            .examples
            .iter()
            .map(|e| split::text_key(&e.text))
            .collect();
        let keys = keys.iter().map(String::as_bytes);
        let splits = split::split_by_content(keys, data.valid, data.test, data.split_seed);
        if splits.train.is_empty() || splits.valid.is_empty() {
            return Err(Failure::input(format!(
                "{}: {} texts leave {} to train and {} to validate on; raise data.valid or add texts",
                texts.origin(),
                texts.len(),
                splits.train.len(),
                splits.valid.len()
            )));
        }
        let label = |row: &usize| texts.examples[*row].label.as_deref();
        let wrong = |error| Failure::input(format!("{}: {error}", texts.origin()));
        let labels = Labels::from_training(splits.train.iter().filter_map(label)).map_err(wrong)?;
        let class = |rows: &[usize]| -> Result<Vec<u32>, Failure> {
            let classes = rows.iter().map(|&row| labels.require(texts, row));
            Ok(classes.collect::<Result<_, _>>()?)
        };
        let few = few(&class(&splits.train)?, data.labels, data.split_seed)?;
        let train: Vec<_> = few.iter().map(|&at| splits.train[at]).collect();
        let limited = |rows: &[usize], limit: usize| -> Vec<usize> {
            let order = order::shuffled(rows.len(), data.split_seed, 0);
            let limit = if limit == 0 { rows.len() } else { limit };
            order
                .iter()
                .take(limit)
                .map(|&at| rows[at as usize])
                .collect()
        };
        let encode = |rows: &[usize]| -> Result<Arc<Vec<Row>>, Failure> {
            let picked: Vec<_> = rows.iter().map(|&row| &texts.examples[row].text).collect();
            let tokens = tokenizer.encode(&picked, max_length)?;
            let rows = tokens.into_iter().zip(class(rows)?);
            Ok(Arc::new(
                rows.map(|(tokens, class)| Row { tokens, class }).collect(),
            ))
        };
        Ok(Self {
            train: encode(&train)?,
            valid: encode(&limited(&splits.valid, data.valid_limit))?,
            test: encode(&limited(&splits.test, data.test_limit))?,
            classes: labels.names().to_vec(),
        })
    }
}

fn run(draft: Draft, options: Options) -> Result<Status, Failure> {
    let recipe: TextClassificationRecipe = draft.finish()?;
    let start = Start::new(&recipe)?;
    let columns = TextColumns {
        text: recipe.data.text.clone(),
        label: Some(recipe.data.label.clone()),
    };
    let texts = source::texts(&recipe.data.source, &columns)?;
    let run = Run {
        recipe,
        start,
        texts,
        options,
    };
    let checkpointing = run.recipe.training.gradient_checkpointing;
    train_on(run.options.backend, checkpointing, run)?
}

/// What training starts from: a bundle or nothing, and the sizes and tokenizer that follow.
struct Start {
    bundle: Option<Bundle>,
    config: BertConfig,
    tokenizer: TextTokenizer,
}

impl Start {
    fn new(recipe: &TextClassificationRecipe) -> Result<Self, Failure> {
        recipe::check_shares(recipe.data.valid, recipe.data.test)?;
        recipe.loss.check()?;
        recipe.training.check_unpacked()?;
        recipe.training.check_texts(recipe.tokenizer.max_length)?;
        strategy::groups(&recipe.strategy, BACKBONE)?;
        let bundle = strategy::open(&recipe.from)?;
        let tokenizer = tokenizer(bundle.as_ref(), &recipe.tokenizer.path)?;
        let config = match &bundle {
            Some(bundle) => bundle.bert_config()?,
            None => scratch_config(&recipe.model, tokenizer.vocab_size())?,
        };
        text::check_lengths(recipe.tokenizer.max_length, config.max_position_embeddings)?;
        let wrong = |reason| Failure::input(format!("{}: {reason}", recipe.from));
        text::check_model(&config).map_err(wrong)?;
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(wrong(format!(
                "the tokenizer has {} tokens and the model {}",
                tokenizer.vocab_size(),
                config.vocab_size
            )));
        }
        Ok(Self {
            bundle,
            config,
            tokenizer,
        })
    }
}

/// Prefix of the backbone's parameters.
const BACKBONE: &str = "bert.";

fn scratch_config(sizes: &EncoderRecipe, vocab_size: usize) -> Result<BertConfig, Impossible> {
    let config = BertConfig {
        vocab_size,
        hidden_size: sizes.hidden_size,
        num_hidden_layers: sizes.num_hidden_layers,
        num_attention_heads: sizes.num_attention_heads,
        intermediate_size: sizes.intermediate_size,
        max_position_embeddings: sizes.max_position_embeddings,
        type_vocab_size: 2,
        hidden_act: "gelu".into(),
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        initializer_range: 0.02,
        layer_norm_eps: 1e-12,
        pad_token_id: 0,
    };
    let wrong = |reason| Impossible::new("model", format!("is impossible: {reason}"));
    config.check().map_err(wrong)?;
    Ok(config)
}

/// The bundle's tokenizer; without a bundle the recipe's, or the bundled model's.
fn tokenizer(bundle: Option<&Bundle>, path: &str) -> Result<TextTokenizer, Failure> {
    let bytes = match (bundle, path) {
        (Some(bundle), _) => {
            bundle.require(&[
                Architecture::BertModel,
                Architecture::BertForMaskedLm,
                Architecture::BertForSequenceClassification,
            ])?;
            bundle.read(bundle::TOKENIZER)?
        }
        (None, "") => model::bundled::wordnet_bert_nano()?.read(bundle::TOKENIZER)?,
        (None, path) => return Ok(TextTokenizer::load(path.as_ref())?),
    };
    let place = bundle.map_or("wordnet-bert-nano".into(), |bundle| {
        bundle.path().display().to_string()
    });
    let wrong = |error| Failure::Input(anyhow::Error::new(error).context(place));
    TextTokenizer::from_bytes(&bytes).map_err(wrong)
}

/// A run, waiting for its backend.
struct Run {
    recipe: TextClassificationRecipe,
    start: Start,
    texts: TextSet,
    options: Options,
}

impl WithBackend for Run {
    type Output = Result<Status, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        train_from::<B>(self.recipe, self.start, &self.texts, device, self.options)
    }
}

/// Fine-tunes on labelled texts and leaves a run directory with its bundle.
///
/// # Errors
///
/// [`Failure::Input`] before anything is written, [`Failure::Running`] once training has begun.
pub fn finetune<B: AutodiffBackend>(
    recipe: TextClassificationRecipe,
    texts: &TextSet,
    device: B::Device,
    options: Options,
) -> Result<Status, Failure> {
    let start = Start::new(&recipe)?;
    train_from::<B>(recipe, start, texts, device, options)
}

fn train_from<B: AutodiffBackend>(
    recipe: TextClassificationRecipe,
    start: Start,
    texts: &TextSet,
    device: B::Device,
    options: Options,
) -> Result<Status, Failure> {
    let Start {
        bundle,
        config,
        tokenizer,
    } = start;
    let max_length = recipe.tokenizer.max_length;
    let corpus = LabelledCorpus::new(texts, &recipe.data, &tokenizer, max_length)?;
    B::seed(&device, recipe.seed);
    let classes = corpus.classes;
    let mut model = BertClassifier::<B>::new(&config, classes.len(), &device);
    strategy::check_names(&recipe.strategy, &model)?;
    model = model::init::materialise(model);
    if let Some(bundle) = &bundle {
        let backbone = Load::Backbone {
            prefix: BACKBONE,
            optional: "pooler.",
        };
        model = bundle.load(model, backbone)?;
    }
    let (batching, accumulation) = (recipe.training.batching(), recipe.training.accumulation);
    let lengths = corpus.train.iter().map(|row| row.tokens.len() as u32);
    let lengths: Vec<u32> = lengths.collect();
    let shuffled = Epochs::shuffled(lengths, batching, accumulation, recipe.seed);
    let digest = data::digest(corpus.train.len(), |at| {
        let Row { tokens, class } = &corpus.train[at];
        let ids = tokens.iter().chain([class]);
        ids.flat_map(|id| id.to_le_bytes()).collect()
    });
    let batches = |rows: &Arc<Vec<Row>>, epochs| {
        Arc::new(LabelledTexts::new(rows.clone(), epochs, tokenizer.pad()))
    };
    let in_order = |rows: &Arc<Vec<Row>>| batches(rows, Epochs::in_order(rows.len(), 100));
    let files = text::bundle_files(&tokenizer, config.max_position_embeddings)?;
    let precision = recipe.bundle.precision;
    let targets = corpus.train.iter().map(|row| row.class);
    let loss = recipe.loss.over(classes.len(), targets);
    Session {
        name: ENTRY.name.into(),
        recipe: recipe::to_toml(&recipe)?,
        seed: recipe.seed,
        training: recipe.training.clone(),
        optimizer: recipe.optimizer.clone(),
        schedule: recipe.schedule.clone(),
        guard: recipe.guard,
        data: digest,
        groups: strategy::groups(&recipe.strategy, BACKBONE)?,
        objective: TextClassification::new(model, loss),
        device,
        train: batches(&corpus.train, shuffled),
        valid: in_order(&corpus.valid),
        test: (!corpus.test.is_empty()).then(|| in_order(&corpus.test)),
        unit: Unit::Tokens,
        export: Box::new(move |task: &TextClassification<B::InnerBackend>, path| {
            let kind = Architecture::BertForSequenceClassification;
            let config = bundle::config_json(kind, &config, Some(&classes));
            let files: Vec<_> = files
                .iter()
                .map(|(name, text)| (*name, text.as_bytes()))
                .collect();
            Ok(bundle::write(
                path,
                &config,
                &task.model,
                precision,
                &files,
            )?)
        }),
        after_validation: None,
        options,
    }
    .launch()
}
