//! What a task's model says of texts and images. In: its bundle, texts, files, folders or standard input. Out: predictions in the
//! order of the rows.

pub mod format;

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use data::CutTexts;
use model::Bundle;
use train::Failure;

use self::format::Format;
use crate::datasets::progress::Progress;
use crate::input::{Columns, Input, is_stdin};
use crate::open::{self, NamedModel};
use crate::task::{self, Asked, Opening, Output, Prediction, Reads, Row, Settings, Task};

mod png_masks;

/// Batches that are read and asked at a time: rows of like length share a batch within them.
pub(crate) const BATCHES: usize = 16;

const EXAMPLES: &str = "\
Examples:
  apps predict --model runs/text-classification --text \"a small bird that sings\"
  apps predict runs/text-classification reviews.csv --column review --top 1 --format csv --output predictions.csv
  apps predict --model runs/pair-classification --text \"he went up\" --pair \"and he ascended\"
  apps predict --model runs/token-classification --text \"the old man saw a boat\"
  apps predict --model runs/question-answering --text \"wren: a small bird.\" --question \"what is a wren?\"
  apps predict --model runs/multiple-choice --text \"a small bird\" --choice wren --choice anvil
  apps predict --model runs/translation --text \"in the beginning\" --beams 6 --top 3
  apps predict --model runs/question-answering --input dev.json --column context --pair-column question --json
  apps predict runs/image-segmentation photos/ --masks masks/
  grep bird notes.txt | apps predict runs/text-classification --format jsonl";

/// Say what a model of a task says of texts or images: classes, values, entities, answers, choices, texts, masks, boxes
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: NamedModel,
    /// A text; may be repeated
    #[arg(long, visible_alias = "context", value_name = "TEXT")]
    pub text: Vec<String>,
    /// Texts (.txt .csv .tsv .json .jsonl, each also .gz or .zst, .parquet, .conll), images (files, IDX) or folders of either; may be
    /// repeated; - is standard input, a text, a JSON object or the path of an image a line
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub input: Vec<String>,
    /// Column or key that holds the texts
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub column: String,
    /// The second text of a pair, or a question about the text; as many as texts
    #[arg(
        long,
        visible_aliases = ["question", "text-pair"],
        value_name = "TEXT",
        requires = "text"
    )]
    pub pair: Vec<String>,
    /// A choice; give all of them, at least two
    #[arg(long, value_name = "TEXT", requires = "text")]
    pub choice: Vec<String>,
    /// Column or key that holds second texts, questions or lists of choices
    #[arg(long, value_name = "NAME", conflicts_with = "text")]
    pub pair_column: Option<String>,
    /// Texts that an encoder-decoder follows at a time [default: what the bundle says]
    #[arg(long, value_name = "N")]
    pub beams: Option<NonZeroUsize>,
    /// Classes, answers, choices or texts shown
    #[arg(long, visible_alias = "top-k", value_name = "K", default_value = "5")]
    pub top: NonZeroUsize,
    /// Leave out labels and boxes that are less likely
    #[arg(long, value_name = "P")]
    pub threshold: Option<f32>,
    /// Rows in a forward pass
    #[arg(long, value_name = "N", default_value = "64")]
    pub batch_size: NonZeroUsize,
    /// table, jsonl or csv
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: Format,
    /// Print a JSON object a text or image: --format jsonl
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Write predictions here instead of printing them
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write each image's mask into this folder, a PNG of class numbers
    #[arg(long, value_name = "DIR")]
    pub masks: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

/// Predicts what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model or an input that cannot be used.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend.choose()?;
    let (bundle, named) = flags.model.open()?;
    let inputs: Vec<String> = named.iter().chain(&flags.input).cloned().collect();
    check(flags, &inputs)?;
    let opening = Opening {
        beams: flags.beams.map(NonZeroUsize::get),
    };
    let task = task::open_on(backend, &bundle, opening)?;
    check_flags(flags, task.as_ref(), &bundle)?;
    let input = read(flags, &inputs, task.as_ref(), &bundle)?;
    let masks = flags.masks.as_deref();
    let masks = masks.map(|folder| png_masks::Masks::new(folder, &input, flags.force));
    let masks = masks.transpose()?;
    if let Some(note) = task.note() {
        eprintln!("note: {note}");
    }
    let mut predictions = predict(task.as_ref(), &input, &flags.asked())?;
    note_missing(&predictions);
    if let Some(masks) = masks {
        masks.write(&mut predictions)?;
    }
    let format = if flags.json {
        Format::Jsonl
    } else {
        flags.format
    };
    let text = format.text(&predictions)?;
    let Some(output) = &flags.output else {
        return Ok(text);
    };
    open::write_output(output, text.as_bytes())?;
    let (n, place) = (predictions.len(), output.display());
    Ok(format!("{place}: predictions of {n} rows\n"))
}

/// What can be refused before a model is loaded.
fn check(flags: &Flags, inputs: &[String]) -> Result<(), Failure> {
    if !flags.text.is_empty() && !inputs.is_empty() {
        let first = &inputs[0];
        return Err(Failure::input(format!(
            "--text and {first} are both to be read; name one of them"
        )));
    }
    let mut set = flags.model.set.iter();
    if let Some(set) = set.find(|set| Settings::is_own(set)) {
        return Err(Failure::input(format!(
            "--set {set}: says nothing of a model; --column and --pair-column name what is read here"
        )));
    }
    if flags.text.iter().any(|text| text.trim().is_empty()) {
        return Err(Failure::input("--text is empty"));
    }
    let mut seconds = flags.pair.iter().chain(&flags.choice);
    if seconds.any(|second| second.trim().is_empty()) {
        return Err(Failure::input("--pair or --choice is empty"));
    }
    let (texts, pairs) = (flags.text.len(), flags.pair.len());
    if pairs > 0 && pairs != texts {
        return Err(Failure::input(format!(
            "--pair is given {pairs} times and --text {texts} times; each text needs its own"
        )));
    }
    flags.threshold.map_or(Ok(()), check_threshold)?;
    if let Some(output) = &flags.output {
        let inputs: Vec<&Path> = inputs.iter().map(Path::new).collect();
        open::check_output(output, &inputs)?;
        if output.exists() && !flags.force {
            let output = output.display();
            return Err(Failure::input(format!(
                "{output}: exists; --force replaces it"
            )));
        }
    }
    Ok(())
}

/// Refuses what is no probability.
pub(crate) fn check_threshold(threshold: f32) -> Result<(), Failure> {
    if (0.0..=1.0).contains(&threshold) {
        return Ok(());
    }
    Err(Failure::input(format!(
        "--threshold is {threshold}; it must be at least 0 and at most 1"
    )))
}

/// Refuses flags that the model has no use for, and asks for those that it needs.
fn check_flags(flags: &Flags, task: &dyn Task, bundle: &Bundle) -> Result<(), Failure> {
    let place = bundle.path().display();
    let is = bundle.head().describe();
    let wrong = |reason: String| Err(Failure::input(format!("{place}: {reason}")));
    let reads = task.reads();
    let has_second = matches!(reads, Reads::Texts | Reads::Question);
    let given = [
        ("--pair", !flags.pair.is_empty(), has_second),
        (
            "--pair-column",
            flags.pair_column.is_some(),
            has_second || reads == Reads::Choices,
        ),
        (
            "--choice",
            !flags.choice.is_empty(),
            reads == Reads::Choices,
        ),
        ("--beams", flags.beams.is_some(), reads == Reads::Source),
        (
            "--threshold",
            flags.threshold.is_some(),
            task.has_threshold(),
        ),
        (
            "--masks",
            flags.masks.is_some(),
            task.name() == "segmentation",
        ),
    ];
    if let Some((flag, ..)) = given.iter().find(|(_, given, used)| *given && !used) {
        return wrong(format!("holds {is}, which has no use for {flag}"));
    }
    let lines = flags.text.is_empty();
    if reads == Reads::Image && !lines {
        return wrong("reads images; name them by --input instead of --text".into());
    }
    if reads == Reads::Question && !lines && flags.pair.is_empty() {
        return wrong(format!(
            "holds {is}; ask with --question beside --text, or name the column of questions by --pair-column"
        ));
    }
    if reads == Reads::Choices && !lines && flags.choice.len() < 2 {
        return wrong(format!(
            "holds {is}; give at least two --choice beside --text, or name the column of choices by --pair-column"
        ));
    }
    Ok(())
}

fn read(
    flags: &Flags,
    inputs: &[String],
    task: &dyn Task,
    bundle: &Bundle,
) -> Result<Input, Failure> {
    if !flags.text.is_empty() {
        let rows = flags.text.iter().enumerate().map(|(at, text)| {
            let second = flags.pair.get(at).into_iter().chain(&flags.choice);
            std::iter::once(text).chain(second).cloned().collect()
        });
        return Ok(Input::of_texts(rows.collect()));
    }
    let columns = Columns {
        text: &flags.column,
        second: flags.pair_column.as_deref(),
    };
    if is_stdin(inputs) {
        return Input::of_stdin(inputs, columns, task);
    }
    let needs_second = matches!(task.reads(), Reads::Question | Reads::Choices);
    if needs_second && columns.second.is_none() {
        let (place, is) = (bundle.path().display(), bundle.head().describe());
        let what = task.labelled().second;
        return Err(Failure::input(format!(
            "{place}: holds {is}; name the column of {what}s by --pair-column"
        )));
    }
    Input::of_files(inputs, columns, task)
}

impl Flags {
    fn asked(&self) -> Asked {
        Asked {
            top: self.top.get(),
            threshold: self.threshold,
            batch_size: self.batch_size.get(),
        }
    }
}

/// What a task says of all rows, in their order.
///
/// # Errors
///
/// The tokenizer fails; of images, where none of them can be read, why not.
pub fn predict(task: &dyn Task, input: &Input, asked: &Asked) -> Result<Vec<Prediction>, Failure> {
    let window = asked.batch_size.saturating_mul(BATCHES).max(1);
    let mut predictions = Vec::with_capacity(input.len());
    let mut progress = Watch::new("predicting", input.len());
    let mut cut = CutTexts::default();
    for first in (0..input.len()).step_by(window) {
        let rows = input.window(first..(first + window).min(input.len()));
        let (mut asked_of, mut places) = (Vec::new(), Vec::new());
        for row in rows {
            let error = match row.row {
                Ok(row) => {
                    asked_of.push(row);
                    None
                }
                Err(reason) => Some(reason),
            };
            places.push((row.place, error));
        }
        let said = said(task, &asked_of, asked)?;
        cut.add(said.cut);
        let mut outputs = said.outputs.into_iter();
        predictions.extend(places.into_iter().map(|(place, error)| Prediction {
            place,
            output: error.is_none().then(|| outputs.next()).flatten(),
            error,
        }));
        progress.at(predictions.len());
    }
    note_cut(task, cut);
    let unread = predictions.iter().filter_map(|one| one.error.as_ref());
    if let (Input::Pictures(_), Some(reason)) = (input, unread.clone().next())
        && unread.count() == predictions.len()
    {
        return Err(Failure::input(reason));
    }
    Ok(predictions)
}

/// A window without a row that can be asked says nothing.
fn said(task: &dyn Task, rows: &[Row], asked: &Asked) -> Result<task::Said, Failure> {
    if rows.is_empty() {
        return Ok(task::Said::default());
    }
    task.predict(rows, asked)
}

/// Says how many texts the model does not see whole.
pub(crate) fn note_cut(task: &dyn Task, cut: CutTexts) {
    if let Some(max_length) = task.max_length().filter(|_| cut.texts > 0) {
        eprintln!("note: {}", cut.line(max_length));
    }
}

/// Says how many rows have no answer.
fn note_missing(predictions: &[Prediction]) {
    let missing = predictions.iter().filter(|one| one.error.is_some()).count();
    if missing > 0 {
        let (rows, are) = if missing == 1 {
            ("row", "is")
        } else {
            ("rows", "are")
        };
        eprintln!(
            "warning: {missing} {rows} {are} empty or cannot be read, and left without an answer"
        );
    }
}

/// Says how far something is, where a person looks at it.
pub(crate) struct Watch {
    progress: Option<Progress>,
    rows: usize,
}

impl Watch {
    pub(crate) fn new(what: &'static str, rows: usize) -> Self {
        let is_seen = std::io::stderr().is_terminal();
        Self {
            progress: is_seen.then(|| Progress::new(what)),
            rows,
        }
    }

    pub(crate) fn at(&mut self, row: usize) {
        if let Some(progress) = &mut self.progress {
            progress.at(row, Some(self.rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use data::ItemKind;

    use super::*;
    use crate::guess::{Figure, Guess};
    use crate::input::InputRow;
    use crate::task::{Labelled, Said, Target, TaskTally};

    /// Says how long a text is: a whole task.
    struct Lengths;

    impl Task for Lengths {
        fn name(&self) -> &'static str {
            "lengths"
        }

        fn reads(&self) -> Reads {
            Reads::Texts
        }

        fn labelled(&self) -> Labelled {
            Labelled {
                kind: Some(ItemKind::Value),
                text: "text",
                second: "",
                target: "length",
            }
        }

        fn predict(&self, rows: &[Row], _: &Asked) -> Result<Said, Failure> {
            let texts = task::texts_of(rows, 1, self.name())?;
            let output = |texts: &&[String]| {
                let figure = Figure::Value(texts[0].len() as f32);
                let name = "length".into();
                Output::Classes(vec![Guess { name, figure }])
            };
            Ok(Said {
                outputs: texts.iter().map(output).collect(),
                ..Said::default()
            })
        }

        fn tally(&self, _: &Settings) -> Result<TaskTally, Failure> {
            Ok(TaskTally::default())
        }

        fn evaluate(
            &self,
            rows: &[Row],
            _: &[Target],
            asked: &Asked,
            tally: &mut TaskTally,
        ) -> Result<Said, Failure> {
            tally.add_right(0.0, rows.len() as f64);
            self.predict(rows, asked)
        }
    }

    #[test]
    fn a_task_needs_nothing_but_its_trait_and_rows_keep_their_places() {
        let row = |number: usize| InputRow {
            place: Some(number.to_string()),
            row: match number % 7 {
                3 => Err("is empty".into()),
                _ => Ok(Row::Texts(vec!["a".repeat(number)])),
            },
        };
        let input = Input::Rows((0..70).map(row).collect());
        let asked = Asked {
            batch_size: 2,
            ..Asked::default()
        };
        let predictions = predict(&Lengths, &input, &asked).unwrap();
        assert_eq!(predictions.len(), 70);
        for (number, prediction) in predictions.iter().enumerate() {
            assert_eq!(prediction.place, Some(number.to_string()));
            let said = prediction.output.as_ref().map(Output::records);
            if number % 7 == 3 {
                assert_eq!(
                    (said, prediction.error.as_deref()),
                    (None, Some("is empty"))
                );
                continue;
            }
            let length = crate::task::prediction::Cell::Figure(number as f32);
            assert_eq!(said.unwrap()[0][1], length);
        }
    }
}
