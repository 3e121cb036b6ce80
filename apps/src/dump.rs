//! What a model computes, for other programs to compare with. In: a bundle, and texts or images. Out: safetensors.
//!
//! Of texts: `input_ids` and `attention_mask` (1 = real token), `[n, seq]`, 64-bit integers; of an encoder-decoder
//! `decoder_input_ids` too: the same texts, as if it were to write what it reads. Of images: `pixel_values` as the model sees
//! them, `[n, channels, height, width]`. And 32-bit floats, of a model without a head `hidden`: `[n, seq, d_model]`, or the last
//! maps of images; of another `logits`:
//!
//! | model | `logits` | and |
//! |---|---|---|
//! | language model, encoder-decoder | `[n, seq, vocab_size]` | |
//! | of pairs of segments | `[n, seq, vocab_size]` | `pair_logits` `[n, 2]` |
//! | that finds replaced tokens | `[n, seq]` | |
//! | classifier of texts, images | `[n, n_classes]` | |
//! | classifier of tokens | `[n, seq, n_classes]` | |
//! | that finds answers | `[n, seq, 2]` | |
//! | that chooses | `[n, 1]` | |
//! | autoencoder | `[n, channels, height, width]` | of a variational one `mean` and `log_variance`, `[n, latent_size]` |
//! | masked autoencoder | `[n, patches, values]`, with no patch hidden | |
//! | that segments | `[n, n_classes, height, width]` | |
//! | that finds boxes | `[n, cells, n_classes]` | `distances` `[n, cells, 4]`, `centerness` `[n, cells]` |
//!
//! `tests/interop` holds the programs that compare them with Python's `transformers`.

use std::path::PathBuf;

use anyhow::Context;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use data::{ImageSet, TextColumns, source};
use model::families::{Place, Pyramid};
use model::heads::masked::Order;
use model::heads::seq2seq::shift_right;
use model::{Bundle, HeadKind, Names};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use train::backend::with_backend;
use train::job::image::{ImageModel, PixelBatch};
use train::job::seq2seq::end_with;
use train::job::text::{TokenBatch, indices};
use train::run::memory_bytes;
use train::{Failure, WithBackend};

use crate::any_model::{AnyImageModel, AnyTextModel};
use crate::images;
use crate::open::{self, ModelFlags, Seq2SeqParts};

/// Texts in a forward pass.
const BATCH: usize = 16;

/// Write what a model computes, to compare it with another program's
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  apps dump --model wordnet-bert-nano --input texts.txt --output dump.safetensors")]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// Texts (.txt .csv .tsv .json .jsonl, each also .gz or .zst, .parquet) or images (a file, a folder, IDX)
    #[arg(long, value_name = "FILE")]
    pub input: String,
    /// The safetensors file; grows with texts, tokens and vocabulary
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Hidden states instead of logits
    #[arg(long)]
    pub hidden: bool,
}

/// What a model sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// Token ids, padded to the longest text.
    Tokens(TokenBatch),
    /// The same, and what an encoder-decoder has written before each of them, `[n, seq]`.
    TwoTexts(TokenBatch, Vec<i32>),
    /// Images.
    Pixels(PixelBatch),
}

/// Texts or images, and what a model makes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// What it sees.
    pub inputs: Inputs,
    /// What it computes; the first is `logits` or `hidden`.
    pub outputs: Vec<Values>,
}

/// A tensor that a model computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// In the file.
    pub name: &'static str,
    /// Row-major.
    pub values: Vec<f32>,
    /// The first axis is that of texts or images.
    pub shape: Vec<usize>,
}

impl Values {
    fn new<B: Backend, const D: usize>(name: &'static str, tensor: Tensor<B, D>) -> Self {
        Self {
            name,
            shape: tensor.dims().to_vec(),
            values: tensor.into_data().iter::<f32>().collect(),
        }
    }

    /// Of each token of a batch.
    ///
    /// - tensor: `[rows * seq, width]`
    fn of_tokens<B: Backend>(
        name: &'static str,
        tensor: Tensor<B, 2>,
        [rows, seq]: [usize; 2],
    ) -> Self {
        let [_, width] = tensor.dims();
        Self::new(name, tensor.reshape([rows, seq, width]))
    }
}

/// Values of all batches as one.
///
/// - n: rows of all of them
fn joined(n: usize, batches: impl Iterator<Item = Vec<Values>>) -> Result<Vec<Values>, Failure> {
    let mut all: Vec<Values> = Vec::new();
    for batch in batches {
        if !all.is_empty() {
            for (all, one) in all.iter_mut().zip(batch) {
                all.values.extend(one.values);
            }
            continue;
        }
        all = batch;
        for one in &mut all {
            one.shape[0] = n;
            check_size(&one.shape)?;
        }
    }
    Ok(all)
}

/// Names of the bundle's model with its head, or without.
fn names(bundle: &Bundle, hidden: bool) -> Names {
    if hidden {
        return Names::new(bundle.family(), HeadKind::Bare);
    }
    open::names(bundle)
}

impl Dump {
    /// Runs a text model over texts.
    ///
    /// - hidden: whether hidden states are wanted where there is a head too
    ///
    /// # Errors
    ///
    /// A bundle of images, or one whose weights do not fit.
    pub fn of<B: Backend>(
        bundle: &Bundle,
        texts: &[impl AsRef<str> + Sync],
        hidden: bool,
        device: &B::Device,
    ) -> Result<Self, Failure> {
        let names = names(bundle, hidden);
        let (read, written, place) = if bundle.family().is_of_two_texts() {
            let (read, written) = two_texts(bundle, texts)?;
            (read, Some(written), Place::First)
        } else {
            let parts = open::text_parts(bundle)?;
            // As far as the model reads, whatever training did.
            let rows = parts
                .tokenizer
                .encode(texts, bundle.positions(&parts.config))?;
            let read = TokenBatch::pad(rows.iter().map(Vec::as_slice), parts.tokenizer.pad());
            (read, None, parts.config.class_plan().place)
        };
        let model = AnyTextModel::<B>::draw(bundle, names, device)?;
        let model = open::filled(bundle, model, names)?;
        let at_a_time = (BATCH * read.seq).max(1);
        let batches = read
            .lengths
            .chunks(BATCH)
            .zip(read.tokens.chunks(at_a_time));
        let batches = batches.enumerate().map(|(number, (lengths, tokens))| {
            let batch = TokenBatch {
                tokens: tokens.to_vec(),
                lengths: lengths.to_vec(),
                seq: read.seq,
                texts: None,
                types: None,
            };
            let written = written.as_deref().unwrap_or_default();
            let written = written.chunks(at_a_time).nth(number).unwrap_or_default();
            of_texts(&model, &batch, written, place, device)
        });
        let outputs = joined(read.lengths.len(), batches)?;
        let inputs = match written {
            None => Inputs::Tokens(read),
            Some(written) => Inputs::TwoTexts(read, written),
        };
        Ok(Self { inputs, outputs })
    }

    /// Runs an image model over images of the shape that it sees.
    ///
    /// - hidden: whether the last maps are wanted where there is a head too
    ///
    /// # Errors
    ///
    /// A bundle of texts, or one whose weights do not fit.
    pub fn of_images<B: Backend>(
        bundle: &Bundle,
        images: &ImageSet,
        hidden: bool,
        device: &B::Device,
    ) -> Result<Self, Failure> {
        let ImageModel { input, .. } = open::image_model(bundle)?;
        let rows: Vec<u32> = (0..images.len() as u32).collect();
        check_size(&[&[images.len()], &input.shape[..]].concat())?;
        let levels = input.levels();
        let names = names(bundle, hidden);
        let model = AnyImageModel::<B>::draw(bundle, names, device)?;
        let model = open::filled(bundle, model, names)?;
        let batches = rows.chunks(BATCH).map(|rows| {
            let batch = PixelBatch::of(images, rows, &levels);
            of_images(&model, batch.tensor(device))
        });
        Ok(Self {
            outputs: joined(images.len(), batches)?,
            inputs: Inputs::Pixels(PixelBatch::of(images, &rows, &levels)),
        })
    }

    /// As a safetensors file.
    ///
    /// # Errors
    ///
    /// None that the shapes above allow.
    pub fn to_bytes(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let mut tensors = match &self.inputs {
            Inputs::Tokens(read) => of_tokens(read),
            Inputs::TwoTexts(read, written) => {
                let shape = vec![read.lengths.len(), read.seq];
                let written = integers(written.iter().map(|&id| i64::from(id)));
                let written = ("decoder_input_ids", Dtype::I64, shape, written);
                of_tokens(read).into_iter().chain([written]).collect()
            }
            Inputs::Pixels(images) => {
                let shape = vec![images.n, images.channels, images.height, images.width];
                vec![("pixel_values", Dtype::F32, shape, floats(&images.pixels))]
            }
        };
        let outputs = self.outputs.iter();
        tensors.extend(outputs.map(|one| {
            let shape = one.shape.clone();
            (one.name, Dtype::F32, shape, floats(&one.values))
        }));
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?))
        });
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        safetensors::serialize(views, None)
    }
}

/// A tensor of a file: its name, its element type, its shape and its bytes.
type Stored = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn of_tokens(inputs: &TokenBatch) -> Vec<Stored> {
    let (n, seq) = (inputs.lengths.len(), inputs.seq);
    let real = |&length: &usize| (0..seq).map(move |at| i64::from(at < length));
    let mask = integers(inputs.lengths.iter().flat_map(real));
    let ids = integers(inputs.tokens.iter().map(|&id| i64::from(id)));
    vec![
        ("input_ids", Dtype::I64, vec![n, seq], ids),
        ("attention_mask", Dtype::I64, vec![n, seq], mask),
    ]
}

fn integers(values: impl Iterator<Item = i64>) -> Vec<u8> {
    values.flat_map(i64::to_le_bytes).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    let values = values.iter();
    values.flat_map(|value| value.to_le_bytes()).collect()
}

/// Texts that an encoder-decoder reads, and the same as it is to write them.
fn two_texts(
    bundle: &Bundle,
    texts: &[impl AsRef<str> + Sync],
) -> Result<(TokenBatch, Vec<i32>), Failure> {
    let Seq2SeqParts {
        config,
        tokenizer,
        max_length,
    } = open::seq2seq_parts(bundle)?;
    let plan = config.describe();
    let longest = plan.positions.unwrap_or(max_length);
    let mut rows = tokenizer.encode(texts, longest)?;
    let end = plan.eos.first().copied();
    rows.iter_mut().for_each(|row| end_with(row, end, longest));
    let read = TokenBatch::pad(rows.iter().map(Vec::as_slice), plan.pad);
    // Behind its end a text has no targets.
    let targets = rows.iter().map(|row| {
        let mut targets: Vec<i32> = row.iter().map(|&id| id as i32).collect();
        targets.resize(read.seq, -1);
        targets
    });
    let written = shift_right(&targets.collect::<Vec<_>>(), &plan);
    Ok((read, written.concat()))
}

/// What a model makes of a batch of texts.
///
/// - written: what an encoder-decoder has written before each token, `[batch, seq]`
/// - place: whose state a classifier reads
fn of_texts<B: Backend>(
    model: &AnyTextModel<B>,
    batch: &TokenBatch,
    written: &[i32],
    place: Place,
    device: &B::Device,
) -> Vec<Values> {
    let shape = [batch.lengths.len(), batch.seq];
    let input = &batch.input(device);
    let at = || indices(&batch.places(place), device);
    let hidden = |states| vec![Values::of_tokens("hidden", states, shape)];
    let tokens = |logits| vec![Values::of_tokens("logits", logits, shape)];
    match model {
        AnyTextModel::Bare(model) => hidden(model.states(input, None, None)),
        AnyTextModel::BareSeq2Seq(model) => hidden(model.encode(input).states),
        AnyTextModel::Tokens(model) => tokens(model.logits(input, None, None)),
        AnyTextModel::Seq2Seq(model) => {
            let written = TensorData::new(written.to_vec(), shape);
            let written = Tensor::<B, 2, Int>::from_data(written, device);
            tokens(model.logits(input, written, None))
        }
        AnyTextModel::SentencePairs(model) => {
            let states = model.backbone.states(input, None, None);
            let first = states.clone().select(0, at());
            let mut outputs = tokens(model.token_logits(states));
            outputs.push(Values::new("pair_logits", model.pair_logits(first)));
            outputs
        }
        AnyTextModel::Replaced(model) => {
            let logits: Tensor<B, 2> = model.logits(input).reshape(shape);
            vec![Values::new("logits", logits)]
        }
        AnyTextModel::Classes(model) => vec![Values::new("logits", model.logits(input, at()))],
        AnyTextModel::TokenClasses(model) => tokens(model.logits(input)),
        AnyTextModel::Spans(model) => tokens(model.logits(input)),
        AnyTextModel::Choices(model) => vec![Values::new("logits", model.logits(input, at()))],
    }
}

/// What a model makes of a batch of images.
///
/// - images: `[batch, channels, height, width]`
fn of_images<B: Backend>(model: &AnyImageModel<B>, images: Tensor<B, 4>) -> Vec<Values> {
    match model {
        AnyImageModel::Bare(model) => {
            let Pyramid { mut levels, pooled } = model.forward(images);
            vec![match levels.pop() {
                Some(last) => Values::new("hidden", last),
                None => Values::new("hidden", pooled),
            }]
        }
        AnyImageModel::Classes(model) => vec![Values::new("logits", model.logits(images))],
        AnyImageModel::Pixels(model) => vec![Values::new("logits", model.logits(images))],
        AnyImageModel::Variational(model) => {
            let [mean, log_variance] = model.posterior(images);
            vec![
                Values::new("logits", model.decode(mean.clone())),
                Values::new("mean", mean),
                Values::new("log_variance", log_variance),
            ]
        }
        AnyImageModel::Codes(model) => {
            let (vectors, shape) = model.encode(images);
            let quantised = model.head.codebook.quantise(vectors);
            vec![Values::new(
                "logits",
                model.decode(quantised.vectors, shape),
            )]
        }
        AnyImageModel::Patches(model) => {
            let [batch, ..] = images.dims();
            let [_, tokens, _] = model.head.decoder_pos_embed.dims();
            let all = 0..tokens as u32 - 1;
            let order = Order {
                patches: (0..batch).flat_map(|_| all.clone()).collect(),
                batch,
                visible: all.len(),
            };
            vec![Values::new("logits", model.forward(images, &order))]
        }
        AnyImageModel::Masks(model) => vec![Values::new("logits", model.logits(images))],
        AnyImageModel::Boxes(model) => {
            let found = model.find(images);
            vec![
                Values::new("logits", found.classes),
                Values::new("distances", found.distances),
                Values::new("centerness", found.centerness),
            ]
        }
    }
}

/// Refuses values that this machine cannot hold: as numbers, as bytes, and in the file's.
///
/// # Errors
///
/// More values than fit.
pub fn check_size(shape: &[usize]) -> Result<(), Failure> {
    let needed = 12.0 * shape.iter().map(|&n| n as f64).product::<f64>();
    match memory_bytes() {
        Some(memory) if needed > memory as f64 => {
            let gib = (1u64 << 30) as f64;
            Err(Failure::input(format!(
                "{} rows give {:.0} GiB of values, {shape:?}, and this machine has {:.0}; give fewer, or --hidden",
                shape[0],
                needed / gib,
                memory as f64 / gib
            )))
        }
        _ => Ok(()),
    }
}

/// Dumps what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model or an input that cannot be used, an output that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend.choose()?;
    let bundle = flags.model.bundle()?;
    open::check_output(&flags.output, &[flags.input.as_ref(), bundle.path()])?;
    let given = if bundle.is_text() {
        let set = source::texts(std::slice::from_ref(&flags.input), &TextColumns::default())?;
        let texts = set.examples.into_iter().map(|example| example.text);
        Given::Texts(texts.collect())
    } else {
        let seen = open::image_model(&bundle)?.input;
        let images = images::read(&flags.input, &seen, usize::MAX)?;
        let left_out = images
            .places
            .iter()
            .filter_map(|(place, why)| why.as_ref().map(|_| place));
        if let Some(first) = left_out.clone().next() {
            let n = left_out.count();
            eprintln!(
                "warning: {n} images cannot be read and are left out, the first of them {first}"
            );
        }
        Given::Images(images.set)
    };
    let hidden = flags.hidden;
    let dump = with_backend(
        backend,
        Work {
            bundle,
            given,
            hidden,
        },
    )??;
    let bytes = dump
        .to_bytes()
        .context("serialising")
        .map_err(Failure::Running)?;
    open::write_output(&flags.output, &bytes)?;
    let inputs = match &dump.inputs {
        Inputs::Tokens(texts) | Inputs::TwoTexts(texts, _) => {
            format!("{} texts", texts.lengths.len())
        }
        Inputs::Pixels(images) => format!("{} images", images.n),
    };
    let outputs = dump.outputs.iter();
    let outputs = outputs.map(|one| format!("{} of {inputs}, {:?}", one.name, one.shape));
    let outputs = outputs.collect::<Vec<_>>().join("; ");
    Ok(format!("wrote {}: {outputs}\n", flags.output.display()))
}

/// Prepared work, waiting for its backend.
struct Work {
    bundle: Bundle,
    given: Given,
    hidden: bool,
}

/// What the model is run over.
enum Given {
    Texts(Vec<String>),
    Images(ImageSet),
}

impl WithBackend for Work {
    type Output = Result<Dump, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let Self {
            bundle,
            given,
            hidden,
        } = self;
        match given {
            Given::Texts(texts) => Dump::of::<B::InnerBackend>(&bundle, &texts, hidden, &device),
            Given::Images(images) => {
                Dump::of_images::<B::InnerBackend>(&bundle, &images, hidden, &device)
            }
        }
    }
}
