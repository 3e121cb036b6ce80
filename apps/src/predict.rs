//! What a task's model says of texts and images. In: its bundle, a text or a file. Out: the likeliest classes, words with their
//! tags, entities, answers or choices.

mod answers;
mod choices;
mod texts;
mod words;

use std::num::NonZeroUsize;

use burn::prelude::*;
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::backend::AutodiffBackend;
use clap::{ArgGroup, Args};
use data::source::TextSource;
use data::{CutTexts, ImageSet, ItemKind, TextColumns, TextTokenizer, read_inputs};
use model::bundle::Scores;
use model::families::Place;
use model::{Bundle, HeadKind, ImageClassifier, TextClassifier};
use serde::Serialize;
use train::backend::with_backend;
use train::job::image::{ImageModel, PixelBatch};
use train::job::text::{TokenBatch, indices};
use train::{Failure, FailureKind, WithBackend};

pub use self::answers::{AnswerGuess, AnswerPredictor};
pub use self::choices::ChoicePredictor;
pub use self::texts::{TextWriter, WrittenText};
pub use self::words::{Marked, WordPredictor};
use crate::guess::{self, Figure, Guess};
use crate::images;
use crate::open::{self, ModelFlags, TextParts};

/// Texts or images in a forward pass.
const BATCH: usize = 64;

const EXAMPLES: &str = "\
Examples:
  apps predict --model runs/text-classification --text \"a small bird that sings\"
  apps predict --model runs/pair-classification --text \"he went up\" --pair \"and he ascended\"
  apps predict --model runs/token-classification --text \"the old man saw a boat\"
  apps predict --model runs/question-answering --text \"wren: a small bird.\" --question \"what is a wren?\"
  apps predict --model runs/multiple-choice --text \"a small bird\" --choice wren --choice anvil
  apps predict --model runs/translation --text \"in the beginning\" --beams 6 --top 3
  apps predict --model runs/question-answering --input dev.json --column context --pair-column question --json";

/// Say what a model of a task says of texts or images: classes, entities, answers, the right choice
#[derive(Args, Clone, Debug)]
#[command(
    group(ArgGroup::new("what").args(["text", "input"]).required(true)),
    after_help = EXAMPLES
)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// A text
    #[arg(long)]
    pub text: Option<String>,
    /// Texts (.txt .csv .tsv .json .jsonl, each also .gz or .zst, .parquet) or images (a file, a folder, IDX)
    #[arg(long, value_name = "FILE")]
    pub input: Option<String>,
    /// Column or key that holds the texts
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub column: String,
    /// The second text of a pair, or a question about the text
    #[arg(
        long,
        visible_alias = "question",
        value_name = "TEXT",
        requires = "text"
    )]
    pub pair: Option<String>,
    /// A choice; give all of them, at least two
    #[arg(long, value_name = "TEXT", requires = "text")]
    pub choice: Vec<String>,
    /// Column or key that holds second texts, questions or lists of choices
    #[arg(long, value_name = "NAME", requires = "input")]
    pub pair_column: Option<String>,
    /// Texts that an encoder-decoder follows at a time [default: what the bundle says]
    #[arg(long, value_name = "N")]
    pub beams: Option<NonZeroUsize>,
    /// Classes, answers, choices or texts shown
    #[arg(long, value_name = "K", default_value = "5")]
    pub top: NonZeroUsize,
    /// Print a JSON object a text or image
    #[arg(long)]
    pub json: bool,
}

/// What one text or image was taken for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// `path:line`, or the file of an image; nothing for a single text or image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Best first; none where there is nothing to classify.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Guess>,
    /// Of a model that chooses, the likeliest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Guess>,
    /// All entities, of a model that finds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entities: Option<Vec<Marked>>,
    /// All words with their tags, of a model that tags words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<Marked>>,
    /// Of a model that answers questions, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<AnswerGuess>,
    /// Of an encoder-decoder, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<WrittenText>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Classifies texts.
pub struct TextPredictor<B: Backend> {
    model: TextClassifier<B>,
    tokenizer: TextTokenizer,
    classes: Vec<String>,
    scores: Scores,
    max_length: usize,
    at: Place,
    types: bool,
    device: B::Device,
}

impl<B: Backend> TextPredictor<B> {
    /// Loads a classifier of texts.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let parts = open::text_parts(bundle)?;
        let (model, classes) = open::text_classifier(bundle, &parts, device)?;
        let TextParts {
            config,
            tokenizer,
            max_length,
        } = parts;
        Ok(Self {
            model,
            tokenizer,
            classes,
            scores: bundle.scores()?,
            max_length,
            at: config.class_plan().place,
            types: config.describe().segments > 1,
            device: device.clone(),
        })
    }

    /// What is cut of these texts, as they are longer than the texts of training.
    ///
    /// # Errors
    ///
    /// The tokenizer fails.
    pub fn cut(&self, texts: &[impl AsRef<str> + Sync]) -> Result<CutTexts, Failure> {
        let rows = self.tokenizer.encode(texts, self.max_length)?;
        let counts = CutTexts::count(&self.tokenizer, texts, &rows, self.max_length)?;
        Ok(counts)
    }

    /// The likeliest `top` classes of each text; what is longer than the texts of training is cut.
    ///
    /// # Errors
    ///
    /// The tokenizer fails.
    pub fn predict(
        &self,
        texts: &[impl AsRef<str> + Sync],
        top: usize,
    ) -> Result<Vec<Vec<Guess>>, Failure> {
        let rows = self.tokenizer.encode(texts, self.max_length)?;
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        Ok(self.of_batches(&lengths, top, |picked| {
            let rows = picked.iter().map(|&row| rows[row].as_slice());
            TokenBatch::pad(rows, self.tokenizer.pad())
        }))
    }

    /// - lengths: of all rows, in tokens
    /// - batch: of some of the rows
    fn of_batches(
        &self,
        lengths: &[usize],
        top: usize,
        batch: impl Fn(&[usize]) -> TokenBatch,
    ) -> Vec<Vec<Guess>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        // Of like length together: less padding to compute.
        order.sort_by_key(|&row| lengths[row]);
        let mut predictions = vec![Vec::new(); lengths.len()];
        for picked in order.chunks(BATCH) {
            let batch = batch(picked);
            let at = indices(&batch.places(self.at), &self.device);
            let logits = self.model.logits(&batch.input(&self.device), at);
            let guesses = best(logits, self.scores, &self.classes, top);
            for (&row, guesses) in picked.iter().zip(guesses) {
                predictions[row] = guesses;
            }
        }
        predictions
    }
}

impl<B: Backend> TextPredictor<B> {
    /// The likeliest `top` classes of each pair of texts, and what is cut of the pairs, as they are longer than those of training.
    ///
    /// # Errors
    ///
    /// The tokenizer fails.
    pub fn predict_pairs(
        &self,
        pairs: &[(&str, &str)],
        top: usize,
    ) -> Result<(Vec<Vec<Guess>>, CutTexts), Failure> {
        let rows: Vec<_> = pairs
            .iter()
            .map(|&(first, second)| (first, Some(second)))
            .collect();
        let encoded = self.tokenizer.encode_parts(&rows, self.max_length)?;
        let lengths: Vec<usize> = encoded.iter().map(|row| row.ids.len()).collect();
        let predictions = self.of_batches(&lengths, top, |picked| {
            let rows = picked.iter().map(|&row| encoded[row].pair());
            TokenBatch::of_pairs(rows, self.tokenizer.pad(), self.types)
        });
        Ok((predictions, CutTexts::of(&encoded)))
    }
}

/// Classifies images.
pub struct ImagePredictor<B: Backend> {
    model: ImageClassifier<B>,
    levels: Vec<[f32; 256]>,
    classes: Vec<String>,
    scores: Scores,
    device: B::Device,
}

impl<B: Backend> ImagePredictor<B> {
    /// Loads a classifier of images.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let ImageModel { config, input } = open::image_model(bundle)?;
        let names = open::require(bundle, HeadKind::Classes)?;
        let classes = bundle.classes()?;
        let model = ImageClassifier::draw(&config, classes.len(), &bundle.draw(device, names));
        let model = open::filled(bundle, model, names)?;
        Ok(Self {
            model,
            levels: input.levels(),
            classes,
            scores: bundle.scores()?,
            device: device.clone(),
        })
    }

    /// The likeliest `top` classes of each image.
    ///
    /// # Panics
    ///
    /// If the images are not of the model's shape, which [`images::read`] gives them.
    pub fn predict(&self, images: &ImageSet, top: usize) -> Vec<Vec<Guess>> {
        let rows: Vec<u32> = (0..images.len() as u32).collect();
        let logits = rows.chunks(BATCH).map(|rows| {
            let batch = PixelBatch::of(images, rows, &self.levels);
            self.model.logits(batch.tensor(&self.device))
        });
        logits
            .flat_map(|logits| best(logits, self.scores, &self.classes, top))
            .collect()
    }
}

/// - logits: `[batch, n_classes]`
fn best<B: Backend>(
    logits: Tensor<B, 2>,
    scores: Scores,
    classes: &[String],
    top: usize,
) -> Vec<Vec<Guess>> {
    let (figures, figure): (_, fn(f32) -> Figure) = match scores {
        Scores::OneLabel => (softmax(logits, 1), Figure::Probability),
        Scores::SeveralLabels => (sigmoid(logits), Figure::Probability),
        Scores::Values => (logits, Figure::Value),
    };
    let figures: Vec<Figure> = figures.into_data().iter::<f32>().map(figure).collect();
    let rows = figures.chunks_exact(classes.len());
    rows.map(|row| guess::best(row, top, |class| classes[class].clone()))
        .collect()
}

/// Predicts what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model or an input that cannot be used.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend.choose()?;
    let bundle = flags.model.bundle()?;
    let task = Task::of(&bundle)?;
    check_flags(flags, task, &bundle)?;
    let work = Work {
        input: Input::read(flags, task, &bundle)?,
        task,
        bundle,
        top: flags.top.get(),
        beams: flags.beams.map(NonZeroUsize::get),
    };
    if task == Task::Classes {
        note_scores(work.bundle.scores()?);
    }
    let predictions = with_backend(backend, work)??;
    note_missing(&predictions);
    if flags.json {
        return json_lines(&predictions);
    }
    Ok(lines(&predictions))
}

/// What a model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Classes,
    Words,
    Answers,
    Choices,
    Texts,
}

impl Task {
    /// What the bundle's model was trained for.
    fn of(bundle: &Bundle) -> Result<Self, Failure> {
        let task = match bundle.head() {
            HeadKind::TokenClasses => Self::Words,
            HeadKind::Spans => Self::Answers,
            HeadKind::Choices => Self::Choices,
            HeadKind::Tokens if bundle.family().is_of_two_texts() => Self::Texts,
            // Whatever its class says, its weights may be a classifier's.
            HeadKind::Classes
            | HeadKind::Bare
            | HeadKind::Tokens
            | HeadKind::SentencePairs
            | HeadKind::Replaced
            | HeadKind::Pixels
            | HeadKind::Variational
            | HeadKind::Codes
            | HeadKind::Patches
            | HeadKind::Masks
            | HeadKind::Boxes => Self::Classes,
        };
        open::require(bundle, task.head())?;
        Ok(task)
    }

    fn head(self) -> HeadKind {
        match self {
            Self::Classes => HeadKind::Classes,
            Self::Words => HeadKind::TokenClasses,
            Self::Answers => HeadKind::Spans,
            Self::Choices => HeadKind::Choices,
            Self::Texts => HeadKind::Tokens,
        }
    }
}

/// Refuses flags that the model has no use for, and asks for those that it needs.
fn check_flags(flags: &Flags, task: Task, bundle: &Bundle) -> Result<(), Failure> {
    let place = bundle.path().display();
    let is = task.head().describe();
    let wrong = |reason: String| Err(Failure::input(format!("{place}: {reason}")));
    let given = [
        ("--pair", flags.pair.is_some()),
        ("--pair-column", flags.pair_column.is_some()),
        ("--choice", !flags.choice.is_empty()),
        ("--beams", flags.beams.is_some()),
    ];
    let used: &[&str] = match task {
        Task::Classes if bundle.is_text() => &["--pair", "--pair-column"],
        Task::Classes | Task::Words => &[],
        Task::Answers => &["--pair", "--pair-column"],
        Task::Choices => &["--choice", "--pair-column"],
        Task::Texts => &["--beams"],
    };
    if let Some((flag, _)) = given
        .iter()
        .find(|(flag, given)| *given && !used.contains(flag))
    {
        return wrong(format!("holds {is}, which has no use for {flag}"));
    }
    let has_second = given.iter().any(|(_, given)| *given);
    if task == Task::Answers && !has_second {
        return wrong(format!(
            "holds {is}; ask with --question beside --text, or name the column of questions by --pair-column"
        ));
    }
    if task == Task::Choices && flags.choice.len() < 2 && flags.pair_column.is_none() {
        return wrong(format!(
            "holds {is}; give at least two --choice beside --text, or name the column of choices by --pair-column"
        ));
    }
    Ok(())
}

/// Says what the figures are, where they are not shares of one whole.
fn note_scores(scores: Scores) {
    match scores {
        Scores::OneLabel => {}
        Scores::SeveralLabels => {
            eprintln!("note: each class has a probability by itself; they need not sum to 1");
        }
        Scores::Values => eprintln!("note: the figures are values, not probabilities"),
    }
}

/// Says how many texts the model does not see whole.
fn note_cut(cut: CutTexts, max_length: usize) {
    if cut.texts > 0 {
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

/// Where a row comes from, and why there is nothing to classify, if that is so.
type Row = (Option<String>, Option<String>);

/// What is classified, read.
enum Input {
    /// A text, and those that belong to it, for each row that can be answered.
    Texts {
        texts: Vec<Vec<String>>,
        rows: Vec<Row>,
    },
    Images {
        images: ImageSet,
        rows: Vec<Row>,
    },
}

impl Input {
    fn read(flags: &Flags, task: Task, bundle: &Bundle) -> Result<Self, Failure> {
        if let (Some(input), Some(second)) = (&flags.input, &flags.pair_column) {
            return Self::pairs(input, &flags.column, second, task);
        }
        let seconds = flags.pair.iter().chain(&flags.choice);
        if seconds.clone().any(|second| second.trim().is_empty()) {
            return Err(Failure::input("--pair or --choice is empty"));
        }
        match (&flags.text, &flags.input) {
            (Some(text), _) if text.trim().is_empty() => Err(Failure::input("--text is empty")),
            (Some(text), _) if bundle.is_text() => Ok(Self::Texts {
                texts: vec![std::iter::once(text).chain(seconds).cloned().collect()],
                rows: vec![(None, None)],
            }),
            (None, Some(input)) if bundle.is_text() => Self::texts(input, &flags.column),
            (None, Some(input)) => Self::images(input, bundle),
            _ => Err(Failure::input(format!(
                "{}: classifies images; name them by --input instead of --text",
                bundle.path().display()
            ))),
        }
    }

    fn texts(input: &str, column: &str) -> Result<Self, Failure> {
        let columns = TextColumns {
            text: column.into(),
            ..TextColumns::default()
        };
        let source = TextSource::named(&[input.into()])?;
        let (mut texts, mut rows) = (Vec::new(), Vec::new());
        for row in source.rows(&columns)? {
            let row = row?;
            let reason = match row.text {
                Ok(text) => {
                    texts.push(vec![text]);
                    None
                }
                Err(reason) => Some(reason),
            };
            rows.push((Some(row.place), reason));
        }
        Ok(Self::Texts { texts, rows })
    }

    fn pairs(input: &str, column: &str, second: &str, task: Task) -> Result<Self, Failure> {
        let kind = match task {
            Task::Choices => ItemKind::Choice,
            Task::Answers => ItemKind::Answers,
            Task::Classes | Task::Words | Task::Texts => ItemKind::Class,
        };
        let source = TextSource::named(&[input.into()])?;
        let (mut texts, mut rows) = (Vec::new(), Vec::new());
        for row in read_inputs(&source, kind, column, second)? {
            rows.push((Some(row.place), row.texts.as_ref().err().cloned()));
            texts.extend(row.texts.ok());
        }
        Ok(Self::Texts { texts, rows })
    }

    fn images(input: &str, bundle: &Bundle) -> Result<Self, Failure> {
        let images = images::read(input, &open::image_model(bundle)?.input, usize::MAX)?;
        let single = data::image::is_image(input.as_ref());
        let row = |(place, reason)| ((!single).then_some(place), reason);
        Ok(Self::Images {
            images: images.set,
            rows: images.places.into_iter().map(row).collect(),
        })
    }
}

/// Prepared work, waiting for its backend.
struct Work {
    task: Task,
    bundle: Bundle,
    input: Input,
    top: usize,
    beams: Option<usize>,
}

impl WithBackend for Work {
    type Output = Result<Vec<Prediction>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let (rows, answered) = match &self.input {
            Input::Texts { texts, rows } => (rows, self.texts::<B::InnerBackend>(texts, &device)?),
            Input::Images { images, rows } => {
                let predictor = ImagePredictor::<B::InnerBackend>::open(&self.bundle, &device)?;
                let classes = predictor.predict(images, self.top);
                (rows, classes.into_iter().map(of_classes).collect())
            }
        };
        let mut answered = answered.into_iter();
        let prediction = |(place, error): &Row| {
            let known = match error {
                None => answered.next().unwrap_or_default(),
                Some(_) => Prediction::default(),
            };
            Prediction {
                place: place.clone(),
                error: error.clone(),
                ..known
            }
        };
        Ok(rows.iter().map(prediction).collect())
    }
}

fn of_classes(classes: Vec<Guess>) -> Prediction {
    Prediction {
        classes,
        ..Prediction::default()
    }
}

impl Work {
    /// - texts: those of each row
    fn texts<B: Backend>(
        &self,
        texts: &[Vec<String>],
        device: &B::Device,
    ) -> Result<Vec<Prediction>, Failure> {
        let first: Vec<&str> = texts.iter().map(|texts| texts[0].as_str()).collect();
        let pairs: Vec<(&str, &str)> = texts
            .iter()
            .filter_map(|texts| Some((texts[0].as_str(), texts.get(1)?.as_str())))
            .collect();
        match self.task {
            Task::Texts => {
                let writer = TextWriter::<B>::open(&self.bundle, self.beams, device)?;
                let (written, cut) = writer.write(&first, self.top)?;
                note_cut(cut, writer.max_length());
                let written = written.into_iter();
                Ok(written
                    .map(|texts| Prediction {
                        texts,
                        ..Prediction::default()
                    })
                    .collect())
            }
            Task::Words => {
                let predictor = WordPredictor::<B>::open(&self.bundle, device)?;
                let (found, cut) = predictor.predict(&first)?;
                note_cut(cut, predictor.max_length());
                let entities = predictor.finds_entities();
                Ok(found
                    .into_iter()
                    .map(|found| Prediction {
                        entities: entities.then(|| found.clone()),
                        words: (!entities).then_some(found),
                        ..Prediction::default()
                    })
                    .collect())
            }
            Task::Answers => {
                let predictor = AnswerPredictor::<B>::open(&self.bundle, device)?;
                let (answers, cut) = predictor.predict(&pairs, self.top)?;
                note_cut(cut, predictor.max_length());
                Ok(answers
                    .into_iter()
                    .map(|answers| Prediction {
                        answers,
                        ..Prediction::default()
                    })
                    .collect())
            }
            Task::Choices => {
                let predictor = ChoicePredictor::<B>::open(&self.bundle, device)?;
                let mut all = CutTexts::default();
                let row = |texts: &Vec<String>| {
                    let (choices, cut) = predictor.predict(&texts[0], &texts[1..], self.top)?;
                    all.add(cut);
                    Ok(Prediction {
                        choices,
                        ..Prediction::default()
                    })
                };
                let rows: Result<_, Failure> = texts.iter().map(row).collect();
                note_cut(all, predictor.max_length());
                rows
            }
            Task::Classes => {
                let predictor = TextPredictor::<B>::open(&self.bundle, device)?;
                let classes = if pairs.is_empty() {
                    note_cut(predictor.cut(&first)?, predictor.max_length);
                    predictor.predict(&first, self.top)?
                } else {
                    let (classes, cut) = predictor.predict_pairs(&pairs, self.top)?;
                    note_cut(cut, predictor.max_length);
                    classes
                };
                Ok(classes.into_iter().map(of_classes).collect())
            }
        }
    }
}

/// A table for a single text or image, else a line each: place, then name and figure by turns.
fn lines(predictions: &[Prediction]) -> String {
    let line = |prediction: &Prediction| {
        let columns = prediction.columns();
        let Some(place) = &prediction.place else {
            return table(&columns);
        };
        if let Some(error) = &prediction.error {
            return format!("{place}\t({error})\n");
        }
        let column = |cells: &Vec<String>| format!("\t{}", cells.join("\t"));
        let columns: String = columns.iter().map(column).collect();
        format!("{place}{columns}\n")
    };
    predictions.iter().map(line).collect()
}

impl Prediction {
    /// A name, a figure and what else there is to say, for each guess.
    fn columns(&self) -> Vec<Vec<String>> {
        let guess =
            |guess: &Guess| vec![guess.name.clone(), format!("{:.3}", guess.figure.number())];
        let at = |start: usize, end: usize| format!("{start}-{end}");
        let marked = |one: &Marked| {
            let probability = format!("{:.3}", one.probability);
            vec![
                one.text.clone(),
                one.name.clone(),
                probability,
                at(one.start, one.end),
            ]
        };
        let answer = |one: &AnswerGuess| {
            let text = if one.text.is_empty() {
                "(no answer)"
            } else {
                &one.text
            };
            vec![
                text.into(),
                format!("{:.3}", one.probability),
                at(one.start, one.end),
            ]
        };
        let written = |one: &WrittenText| {
            let score = one.score.map(|score| format!("{score:.3}"));
            std::iter::once(one.text.clone()).chain(score).collect()
        };
        let texts = self.texts.iter().map(written);
        let classes = self.classes.iter().chain(&self.choices).map(guess);
        let words = self
            .entities
            .iter()
            .chain(&self.words)
            .flatten()
            .map(marked);
        classes
            .chain(words)
            .chain(self.answers.iter().map(answer))
            .chain(texts)
            .collect()
    }
}

/// A line a row, columns of one width each.
fn table(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..count)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

fn json_lines(predictions: &[Prediction]) -> Result<String, Failure> {
    let line = |prediction| Ok(serde_json::to_string(prediction).running()? + "\n");
    predictions.iter().map(line).collect()
}
