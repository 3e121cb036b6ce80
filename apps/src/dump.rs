//! What a model computes, for other programs to compare with. In: a bundle, and texts or images. Out: safetensors.
//!
//! Of texts: `input_ids` and `attention_mask` (1 = real token), `[n, seq]`, 64-bit integers; `logits`, 32-bit floats: `[n, seq,
//! vocab_size]` of a language model, `[n, n_classes]` of a classifier; or `hidden`, `[n, seq, d_model]`, of a model without a
//! head. Of images: `pixel_values` as the model sees them, `[n, channels, height, width]`; `logits`, `[n, n_classes]` of a
//! classifier or those of pixels; or `hidden`, the last maps. `tests/interop` holds the programs that compare them with
//! Python's `transformers`.

use std::path::PathBuf;

use anyhow::Context;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use data::{ImageSet, TextColumns, source};
use model::families::Pyramid;
use model::{Autoencoder, Bundle, HeadKind, ImageClassifier, TokenInput};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use train::backend::with_backend;
use train::job::image::{ImageModel, PixelBatch};
use train::job::text::{TokenBatch, indices};
use train::run::memory_bytes;
use train::{Failure, WithBackend};

use crate::images;
use crate::open::{self, ModelFlags};

/// Texts in a forward pass.
const BATCH: usize = 16;

/// Write what a model computes, to compare it with another program's
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example: apps dump --model wordnet-bert-nano --input texts.txt --output dump.safetensors"
)]
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
    /// Images.
    Pixels(PixelBatch),
}

/// Texts or images, and what a model makes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// What it sees.
    pub inputs: Inputs,
    /// `logits` or `hidden`.
    pub name: &'static str,
    /// Row-major.
    pub values: Vec<f32>,
    /// Of `values`.
    pub shape: Vec<usize>,
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
        let parts = open::text_parts(bundle)?;
        let (sizes, tokenizer) = (parts.config.describe(), &parts.tokenizer);
        // As far as the model reads, whatever training did.
        let rows = tokenizer.encode(texts, bundle.positions(&parts.config))?;
        let inputs = TokenBatch::pad(rows.iter().map(Vec::as_slice), tokenizer.pad());
        let (n, seq) = (inputs.lengths.len(), inputs.seq);
        let head = if hidden {
            HeadKind::Bare
        } else {
            open::head(bundle)
        };
        match head {
            HeadKind::Tokens | HeadKind::SentencePairs => {
                let shape = vec![n, seq, sizes.vocab_size];
                check_size(&shape)?;
                let model = open::language_model::<B>(bundle, &parts, device)?;
                let logits =
                    |_: &TokenBatch, input: TokenInput<B>| model.logits(&input, None, None);
                let values = in_batches(&inputs, logits, device);
                Ok(Self::new(inputs, "logits", values, shape))
            }
            HeadKind::Classes => {
                let (model, classes) = open::text_classifier::<B>(bundle, &parts, device)?;
                let place = parts.config.class_plan().place;
                let logits = |batch: &TokenBatch, input: TokenInput<B>| {
                    model.logits(&input, indices(&batch.places(place), device))
                };
                let values = in_batches(&inputs, logits, device);
                Ok(Self::new(inputs, "logits", values, vec![n, classes.len()]))
            }
            _ => {
                let shape = vec![n, seq, sizes.d_model];
                check_size(&shape)?;
                let names = parts.config.names(HeadKind::Bare);
                let draw = bundle.draw(device, names);
                let model = parts.config.init::<B>(HeadKind::Bare, &draw);
                let model = open::filled(bundle, model, names)?;
                let states =
                    |_: &TokenBatch, input: TokenInput<B>| model.states(&input, None, None);
                let values = in_batches(&inputs, states, device);
                Ok(Self::new(inputs, "hidden", values, shape))
            }
        }
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
        let ImageModel { config, input } = open::image_model(bundle)?;
        let rows: Vec<u32> = (0..images.len() as u32).collect();
        check_size(&[&[images.len()], &input.shape[..]].concat())?;
        let levels = input.levels();
        let pixels = PixelBatch::of(images, &rows, &levels);
        let head = if hidden {
            HeadKind::Bare
        } else {
            open::head(bundle)
        };
        let names = config.names(head);
        let draw = bundle.draw::<B>(device, names);
        let mut values = Vec::new();
        let mut shape = Vec::new();
        let mut take = |tensor: Tensor<B, 4>, axes: usize| {
            shape = tensor.dims()[..axes].to_vec();
            values.extend(tensor.into_data().iter::<f32>());
        };
        let batches = rows.chunks(BATCH).map(|rows| {
            let batch = PixelBatch::of(images, rows, &levels);
            batch.tensor::<B>(device)
        });
        match head {
            HeadKind::Classes => {
                let classes = bundle.classes()?.len();
                let model = ImageClassifier::draw(&config, classes, &draw);
                let model = open::filled(bundle, model, names)?;
                batches.for_each(|batch| take(model.logits(batch).unsqueeze_dims(&[2, 3]), 2));
            }
            HeadKind::Pixels => {
                let model = Autoencoder::draw(&config, input.shape, &draw);
                let model = open::filled(bundle, model, names)?;
                batches.for_each(|batch| take(model.logits(batch), 4));
            }
            _ => {
                let model = open::filled(bundle, config.init::<B>(&draw), names)?;
                batches.for_each(|batch| {
                    let Pyramid { mut levels, pooled } = model.forward(batch);
                    match levels.pop() {
                        Some(last) => take(last, 4),
                        None => take(pooled.unsqueeze_dims(&[2, 3]), 2),
                    }
                });
            }
        }
        if let Some(first) = shape.first_mut() {
            *first = images.len();
        }
        let name = if head == HeadKind::Bare {
            "hidden"
        } else {
            "logits"
        };
        Ok(Self {
            inputs: Inputs::Pixels(pixels),
            name,
            values,
            shape,
        })
    }

    fn new(inputs: TokenBatch, name: &'static str, values: Vec<f32>, shape: Vec<usize>) -> Self {
        Self {
            inputs: Inputs::Tokens(inputs),
            name,
            values,
            shape,
        }
    }

    /// As a safetensors file.
    ///
    /// # Errors
    ///
    /// None that the shapes above allow.
    pub fn to_bytes(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let bytes = |values: &[f32]| -> Vec<u8> {
            let values = values.iter();
            values.flat_map(|value| value.to_le_bytes()).collect()
        };
        let values = bytes(&self.values);
        let floats = TensorView::new(Dtype::F32, self.shape.clone(), &values)?;
        let inputs = match &self.inputs {
            Inputs::Tokens(inputs) => inputs,
            Inputs::Pixels(images) => {
                let shape = vec![images.n, images.channels, images.height, images.width];
                let pixels = bytes(&images.pixels);
                let pixels = TensorView::new(Dtype::F32, shape, &pixels)?;
                return safetensors::serialize(
                    [("pixel_values", pixels), (self.name, floats)],
                    None,
                );
            }
        };
        let (n, seq) = (inputs.lengths.len(), inputs.seq);
        let real = |&length: &usize| (0..seq).map(move |at| i64::from(at < length));
        let mask = inputs.lengths.iter().flat_map(real);
        let ids = inputs.tokens.iter().map(|&id| i64::from(id));
        let ids: Vec<u8> = ids.flat_map(i64::to_le_bytes).collect();
        let mask: Vec<u8> = mask.flat_map(i64::to_le_bytes).collect();
        let integers = |bytes| TensorView::new(Dtype::I64, vec![n, seq], bytes);
        let views = [
            ("input_ids", integers(&ids)?),
            ("attention_mask", integers(&mask)?),
            (self.name, floats),
        ];
        safetensors::serialize(views, None)
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

fn in_batches<B: Backend>(
    inputs: &TokenBatch,
    forward: impl Fn(&TokenBatch, TokenInput<B>) -> Tensor<B, 2>,
    device: &B::Device,
) -> Vec<f32> {
    let tokens = inputs.tokens.chunks((BATCH * inputs.seq).max(1));
    let mut values = Vec::new();
    for (tokens, lengths) in tokens.zip(inputs.lengths.chunks(BATCH)) {
        let batch = TokenBatch {
            tokens: tokens.to_vec(),
            lengths: lengths.to_vec(),
            seq: inputs.seq,
            texts: None,
            types: None,
        };
        let out = forward(&batch, batch.input(device));
        values.extend(out.into_data().iter::<f32>());
    }
    values
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
    let (name, output) = (dump.name, flags.output.display());
    let inputs = match &dump.inputs {
        Inputs::Tokens(texts) => format!("{} texts", texts.lengths.len()),
        Inputs::Pixels(images) => format!("{} images", images.n),
    };
    Ok(format!(
        "wrote {output}: {name} of {inputs}, {:?}\n",
        dump.shape
    ))
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
