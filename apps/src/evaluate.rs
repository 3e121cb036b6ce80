//! How good a model of a task is on labelled rows. In: its bundle, files. Out: figures with `finetune`'s names, figures by class, a
//! confusion matrix, and what the model said of each row.

mod labelled;
mod report;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use data::{CutTexts, ItemKind};
use model::Bundle;
use serde::Serialize;
use serde_json::Value;
use train::{Failure, FailureKind};

pub use self::labelled::{LabelledRow, LabelledRows};
pub use self::report::Report;
use crate::open::NamedModel;
use crate::predict::{Watch, check_threshold, format, note_cut};
use crate::task::{self, Asked, Opening, Prediction, Reads, Settings, Task};

/// Batches that are read and judged at a time.
const BATCHES: usize = 16;

const EXAMPLES: &str = "\
Examples:
  apps evaluate runs/text-classification test.csv
  apps evaluate runs/text-classification test.csv --set data.text=review --set data.label_column=stars --json
  apps evaluate runs/token-classification test.conll --output report
  apps evaluate runs/image-classification photos/test

Columns are those of the run that the model is of, else the usual ones of its task. Rows that cannot be used end it; --set
data.bad_rows=skip leaves them out.";

/// Judge a model of a task on labelled rows: figures, figures by class, a confusion matrix
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: NamedModel,
    /// Labelled rows, as finetune's data.source names them; may be repeated
    #[arg(long, value_name = "FILE")]
    pub input: Vec<String>,
    /// A label whose probability is at least this is said to be there [default: the run's, else 0.5]
    #[arg(long, value_name = "P")]
    pub threshold: Option<f32>,
    /// Texts that an encoder-decoder follows at a time [default: what the bundle says]
    #[arg(long, value_name = "N")]
    pub beams: Option<NonZeroUsize>,
    /// Rows in a forward pass
    #[arg(long, value_name = "N", default_value = "64")]
    pub batch_size: NonZeroUsize,
    /// Classes, answers, choices or texts of a row in predictions.jsonl
    #[arg(long, visible_alias = "top-k", value_name = "K", default_value = "5")]
    pub top: NonZeroUsize,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write report.json, per_class.csv, confusion.csv and predictions.jsonl into this folder
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

/// What a model said of a labelled row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgedRow {
    /// The text that was read, or a list of several; nothing of an image, which its place names.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub text: Value,
    /// What it said.
    #[serde(flatten)]
    pub prediction: Prediction,
    /// What is true.
    pub target: Value,
}

/// Judges what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model or rows that cannot be used.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend.choose()?;
    let (bundle, named) = flags.model.open()?;
    let inputs: Vec<String> = named.iter().chain(&flags.input).cloned().collect();
    if inputs.is_empty() {
        let place = bundle.path().display();
        return Err(Failure::input(format!(
            "{place}: no labelled rows are named; name a file behind the model"
        )));
    }
    if let Some(folder) = &flags.output {
        report::check_folder(folder, flags.force)?;
    }
    let mut settings = flags.model.settings(&bundle)?;
    if let Some(threshold) = flags.threshold {
        check_threshold(threshold)?;
        settings.set(&format!("labels.threshold={threshold}"))?;
    }
    let opening = Opening {
        beams: flags.beams.map(NonZeroUsize::get),
    };
    let task = task::open_on(backend, &bundle, opening)?;
    check_flags(flags, task.as_ref(), &bundle)?;
    let rows = LabelledRows::read(&inputs, task.as_ref(), &settings)?;
    let asked = Asked {
        top: flags.top.get(),
        threshold: None,
        batch_size: flags.batch_size.get(),
    };
    let (report, judged) = judge(task.as_ref(), &rows, &settings, &asked)?;
    let report = Report {
        model: bundle.path().display().to_string(),
        ..report
    };
    if let Some(folder) = &flags.output {
        report.write(folder, &format::jsonl(&judged)?)?;
    }
    if flags.json {
        return Ok(serde_json::to_string(&report).running()? + "\n");
    }
    Ok(report.text())
}

/// Refuses flags that the model has no use for.
fn check_flags(flags: &Flags, task: &dyn Task, bundle: &Bundle) -> Result<(), Failure> {
    let is_of_labels = task.labelled().kind == Some(ItemKind::Labels);
    let given = [
        ("--threshold", flags.threshold.is_some(), is_of_labels),
        (
            "--beams",
            flags.beams.is_some(),
            task.reads() == Reads::Source,
        ),
    ];
    match given.iter().find(|(_, given, used)| *given && !used) {
        None => Ok(()),
        Some((flag, ..)) => {
            let (place, is) = (bundle.path().display(), bundle.head().describe());
            Err(Failure::input(format!(
                "{place}: holds {is}, which has no use for {flag}"
            )))
        }
    }
}

/// Judges a task on all rows; figures, and what it said of each row.
///
/// # Errors
///
/// A row that cannot be read any more, or the tokenizer fails.
pub fn judge(
    task: &dyn Task,
    rows: &LabelledRows,
    settings: &Settings,
    asked: &Asked,
) -> Result<(Report, Vec<JudgedRow>), Failure> {
    let mut tally = task.tally(settings)?;
    let window = asked.batch_size.saturating_mul(BATCHES).max(1);
    let mut judged = Vec::with_capacity(rows.len());
    let mut watch = Watch::new("evaluating", rows.len());
    let mut cut = CutTexts::default();
    for first in (0..rows.len()).step_by(window) {
        let window = rows.window(first..(first + window).min(rows.len()), task)?;
        let (mut places, mut asked_of, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for LabelledRow { place, row, target } in window {
            places.push(place);
            asked_of.push(row);
            targets.push(target);
        }
        let said = task.evaluate(&asked_of, &targets, asked, &mut tally)?;
        cut.add(said.cut);
        let outputs = places.into_iter().zip(said.outputs).zip(&targets);
        let outputs = outputs.zip(&asked_of);
        judged.extend(outputs.map(|(((place, output), target), row)| JudgedRow {
            text: row.texts(),
            prediction: Prediction {
                place: Some(place),
                output: Some(output),
                error: None,
            },
            target: target.json(task.classes()),
        }));
        watch.at(judged.len());
    }
    note_cut(task, cut);
    let report = Report {
        task: task.name().into(),
        model: String::new(),
        data: rows.origin().into(),
        rows: judged.len(),
        metrics: tally.metrics(),
        classes: task.classes().to_vec(),
        details: tally.details(),
    };
    Ok((report, judged))
}
