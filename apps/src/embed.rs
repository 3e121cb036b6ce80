//! Vectors of texts. In: an encoder, texts. Out: a vector each, or how alike the texts are.

use std::path::{Path, PathBuf};

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use clap::{ArgGroup, Args};
use data::source::TextSource;
use data::{CutTexts, TextColumns, TextTokenizer};
use model::heads::sequence::{mean_states, normalized};
use model::registry::TextBackbone;
use model::{Bundle, HeadKind};
use safetensors::tensor::{Dtype, TensorView};
use train::backend::with_backend;
use train::job::text::TokenBatch;
use train::{Failure, FailureKind, WithBackend};

use crate::open::{self, ModelFlags, TextParts};

/// Texts in a forward pass.
const BATCH: usize = 64;

/// Make vectors of texts, or say how alike they are
#[derive(Args, Clone, Debug)]
#[command(
    group(ArgGroup::new("what").args(["text", "input"]).required(true)),
    after_help = "Examples:
  apps embed --model runs/sentence-embeddings --text \"a small bird\" --text \"a wren\" --text \"an anvil\"
  apps embed --model runs/sentence-embeddings --input texts.txt --output vectors.safetensors"
)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// A text; of several the cosine of each pair is printed
    #[arg(long)]
    pub text: Vec<String>,
    /// Texts (.txt .csv .tsv .json .jsonl, each also .gz or .zst, .parquet)
    #[arg(long, value_name = "FILE", requires = "output")]
    pub input: Option<String>,
    /// Column or key that holds the texts
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub column: String,
    /// A safetensors file for `embeddings` [texts, width], f32, vectors of length one
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an output file that exists
    #[arg(long)]
    pub force: bool,
}

/// Makes vectors of texts: the mean of their tokens' states, of length one.
pub struct Embedder<B: Backend> {
    encoder: TextBackbone<B>,
    tokenizer: TextTokenizer,
    max_length: usize,
    device: B::Device,
}

impl<B: Backend> Embedder<B> {
    /// Loads the encoder of a bundle, whatever head it has.
    ///
    /// # Errors
    ///
    /// A bundle of images, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let TextParts {
            config,
            tokenizer,
            max_length,
        } = open::text_parts(bundle)?;
        let names = config.names(HeadKind::Bare);
        let encoder = config.init(HeadKind::Bare, &bundle.draw(device, names));
        Ok(Self {
            encoder: open::filled(bundle, encoder, names)?,
            tokenizer,
            max_length,
            device: device.clone(),
        })
    }

    /// Vectors of texts, `[texts, width]` row-major; what is longer than the texts of training is cut.
    ///
    /// # Errors
    ///
    /// The tokenizer fails.
    pub fn embed(&self, texts: &[&str]) -> Result<(Vec<Vec<f32>>, CutTexts), Failure> {
        let rows: Vec<_> = texts.iter().map(|text| (*text, None)).collect();
        let encoded = self.tokenizer.encode_parts(&rows, self.max_length)?;
        let mut order: Vec<usize> = (0..encoded.len()).collect();
        // Of like length together: less padding to compute.
        order.sort_by_key(|&row| encoded[row].ids.len());
        let mut vectors = vec![Vec::new(); texts.len()];
        for picked in order.chunks(BATCH) {
            let rows = picked.iter().map(|&row| encoded[row].ids.as_slice());
            let batch = TokenBatch::pad(rows, self.tokenizer.pad());
            let found = normalized(mean_states(&self.encoder, &batch.input(&self.device)));
            let [_, width] = found.dims();
            let values: Vec<f32> = found.into_data().iter::<f32>().collect();
            for (&row, vector) in picked.iter().zip(values.chunks(width)) {
                vectors[row] = vector.to_vec();
            }
        }
        Ok((vectors, CutTexts::of(&encoded)))
    }
}

/// Texts of which all cosines are printed, at most.
const MOST_PRINTED: usize = 100;

/// Embeds what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model or an input that cannot be used, an output that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend.choose()?;
    let bundle = flags.model.bundle()?;
    if !bundle.is_text() {
        let (place, command) = (
            bundle.path().display(),
            open::command(&bundle, bundle.head()),
        );
        return Err(Failure::input(format!(
            "{place}: is a model of images, and texts are embedded; {command}"
        )));
    }
    if let Some(output) = &flags.output {
        let mut inputs = vec![bundle.path()];
        inputs.extend(flags.input.as_deref().map(Path::new));
        open::check_output(output, &inputs)?;
        if output.exists() && !flags.force {
            let output = output.display();
            return Err(Failure::input(format!(
                "{output}: exists; --force replaces it"
            )));
        }
    }
    let texts = match &flags.input {
        Some(input) => {
            let columns = TextColumns {
                text: flags.column.clone(),
                ..TextColumns::default()
            };
            let set = TextSource::named(std::slice::from_ref(input))?.collect(&columns)?;
            set.examples
                .into_iter()
                .map(|example| example.text)
                .collect()
        }
        None => flags.text.clone(),
    };
    if texts.iter().any(|text: &String| text.trim().is_empty()) {
        return Err(Failure::input("--text is empty"));
    }
    let n = texts.len();
    if n > MOST_PRINTED && flags.output.is_none() {
        let reason = format!(
            "{n} texts are too many to print how near all are to each other; --output FILE keeps their vectors"
        );
        return Err(Failure::input(reason));
    }
    let vectors = with_backend(backend, Work { bundle, texts })??;
    let width = vectors.first().map_or(0, Vec::len);
    if let Some(output) = &flags.output {
        write(output, &vectors, [n, width])?;
        return Ok(format!("{}: embeddings [{n}, {width}]\n", output.display()));
    }
    if n == 1 {
        let numbers: Vec<String> = vectors[0].iter().map(f32::to_string).collect();
        return Ok(numbers.join(" ") + "\n");
    }
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let row = |one: &Vec<f32>| {
        let cells = vectors
            .iter()
            .map(|other| format!("{:7.4}", cosine(one, other)));
        cells.collect::<Vec<_>>().join(" ") + "\n"
    };
    Ok(vectors.iter().map(row).collect())
}

fn write(output: &Path, vectors: &[Vec<f32>], shape: [usize; 2]) -> Result<(), Failure> {
    let bytes: Vec<u8> = vectors
        .iter()
        .flatten()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).running()?;
    let file = safetensors::serialize([("embeddings", view)], None).running()?;
    open::write_output(output, &file)
}

/// Prepared work, waiting for its backend.
struct Work {
    bundle: Bundle,
    texts: Vec<String>,
}

impl WithBackend for Work {
    type Output = Result<Vec<Vec<f32>>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let embedder = Embedder::<B::InnerBackend>::open(&self.bundle, &device)?;
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let (vectors, cut) = embedder.embed(&texts)?;
        if cut.texts > 0 {
            eprintln!("note: {}", cut.line(embedder.max_length));
        }
        Ok(vectors)
    }
}
