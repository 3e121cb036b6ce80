//! Vectors of texts and images. In: an encoder, texts, files, folders or standard input. Out: a vector each, or how alike texts are.
//!
//! Reading order: [`embedder`] (a loaded encoder), [`rows`] (what it reads, a window at a time), [`output`] (files of vectors).

pub mod embedder;
pub(crate) mod npy;
pub mod output;
pub mod rows;

use std::path::{Path, PathBuf};

use clap::Args;
use data::CutTexts;
use model::Bundle;
use train::{Failure, FailureKind};

use self::output::{Format, Table};
use self::rows::ReadFlags;
use crate::input::Input;
use crate::open::{self, NamedModel};
use crate::task::Settings;

/// Make vectors of texts or images, or say how alike texts are
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  apps embed --model runs/sentence-embeddings --text \"a small bird\" --text \"a wren\" --text \"an anvil\"
  apps embed --model runs/sentence-embeddings --input texts.txt --output vectors.safetensors
  apps embed runs/sentence-embeddings reviews.csv --column review --output vectors.parquet
  apps embed runs/image-classification photos/ --output vectors.npy
  grep bird notes.txt | apps embed runs/sentence-embeddings > vectors.jsonl")]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: NamedModel,
    /// A text; of several the cosine of each pair is printed
    #[arg(long)]
    pub text: Vec<String>,
    /// Texts (.txt .csv .tsv .json .jsonl, each also .gz or .zst, .parquet), images (files, IDX) or folders of either; may be
    /// repeated; - is standard input, a text, a JSON object or the path of an image a line
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub input: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub read: ReadFlags,
    /// Write vectors of length one, f32, here instead of printing JSON lines: .safetensors (`embeddings` [rows, width]), .npy
    /// ([rows, width]), .jsonl or .parquet (both with place, text and embedding)
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an output file that exists
    #[arg(long)]
    pub force: bool,
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
    let (bundle, named) = flags.model.open()?;
    let inputs: Vec<String> = named.iter().chain(&flags.input).cloned().collect();
    let output = check(flags, &bundle, &inputs)?;
    let input = if flags.text.is_empty() {
        rows::read(&bundle, &inputs, &flags.read)?
    } else {
        embedder::view(&bundle)?;
        Input::of_texts(flags.text.iter().map(|text| vec![text.clone()]).collect())
    };
    let embedder = embedder::open_on(backend, &bundle)?;
    let (mut table, mut cut) = (Table::default(), CutTexts::default());
    rows::for_each_window(&input, &flags.read, |rows| {
        table
            .rows
            .extend(rows.iter().map(|row| (row.place.clone(), row.text())));
        let rows: Vec<_> = rows.into_iter().map(|row| row.row).collect();
        let found = embedder.embed(&rows, flags.read.batch_size.get())?;
        cut.add(found.cut);
        table.width = found.width;
        table.values.extend(found.values);
        Ok(())
    })?;
    rows::note_cut(embedder.as_ref(), cut);
    if let Some((output, format)) = output {
        table.write(output, format)?;
        let ([n, width], output) = (table.shape(), output.display());
        return Ok(format!("{output}: embeddings [{n}, {width}]\n"));
    }
    if flags.text.is_empty() {
        let mut lines = Vec::new();
        table.write_jsonl(&mut lines).map_err(Failure::Running)?;
        return String::from_utf8(lines).running();
    }
    Ok(printed(&table))
}

/// What can be refused before anything is read; the file that is to be written.
fn check<'a>(
    flags: &'a Flags,
    bundle: &Bundle,
    inputs: &[String],
) -> Result<Option<(&'a Path, Format)>, Failure> {
    let n = flags.text.len();
    if let Some(first) = inputs.first().filter(|_| n > 0) {
        return Err(Failure::input(format!(
            "--text and {first} are both to be read; name one of them"
        )));
    }
    let mut set = flags.model.set.iter();
    if let Some(set) = set.find(|set| Settings::is_own(set)) {
        return Err(Failure::input(format!(
            "--set {set}: says nothing of a model; --column names what is read here"
        )));
    }
    if !bundle.is_text() && n > 0 {
        let place = bundle.path().display();
        return Err(Failure::input(format!(
            "{place}: is a model of images; name images by --input instead of --text"
        )));
    }
    if flags.text.iter().any(|text| text.trim().is_empty()) {
        return Err(Failure::input("--text is empty"));
    }
    let Some(output) = &flags.output else {
        if n > MOST_PRINTED {
            return Err(Failure::input(format!(
                "{n} texts are too many to print how near all are to each other; --output FILE keeps their vectors"
            )));
        }
        return Ok(None);
    };
    let format = Format::of(output)?;
    let read = inputs.iter().map(Path::new);
    let read: Vec<&Path> = std::iter::once(bundle.path()).chain(read).collect();
    open::check_output(output, &read)?;
    if output.exists() && !flags.force {
        let output = output.display();
        return Err(Failure::input(format!(
            "{output}: exists; --force replaces it"
        )));
    }
    Ok(Some((output, format)))
}

/// The vector of one text, or the cosine of each pair of several.
fn printed(table: &Table) -> String {
    if table.rows.len() == 1 {
        let numbers: Vec<String> = table.values.iter().map(f32::to_string).collect();
        return numbers.join(" ") + "\n";
    }
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let row = |one: &[f32]| {
        let cells = table
            .vectors()
            .map(|other| format!("{:7.4}", cosine(one, other)));
        cells.collect::<Vec<_>>().join(" ") + "\n"
    };
    table.vectors().map(row).collect()
}
