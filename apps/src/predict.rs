//! Classes of texts and images. In: a classifier's bundle, a text or a file. Out: the likeliest classes.

use std::num::NonZeroUsize;

use burn::prelude::*;
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::backend::AutodiffBackend;
use clap::{ArgGroup, Args};
use data::source::TextSource;
use data::{CutTexts, ImageSet, TextColumns, TextTokenizer};
use model::bundle::Scores;
use model::families::Place;
use model::{Bundle, Draw, HeadKind, ImageClassifier, TextClassifier};
use serde::Serialize;
use train::backend::with_backend;
use train::job::image::{ImageModel, PixelBatch};
use train::job::text::{TokenBatch, indices};
use train::{Failure, FailureKind, WithBackend};

use crate::guess::{self, Figure, Guess};
use crate::images;
use crate::open::{self, ModelFlags, TextParts};

/// Texts or images in a forward pass.
const BATCH: usize = 64;

/// Say which classes a text or an image belongs to
#[derive(Args, Clone, Debug)]
#[command(
    group(ArgGroup::new("what").args(["text", "input"]).required(true)),
    after_help = "Example: apps predict --model runs/text-classification --text \"a small bird that sings\""
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
    /// Classes shown
    #[arg(long, value_name = "K", default_value = "5")]
    pub top: NonZeroUsize,
    /// Print a JSON object a text or image
    #[arg(long)]
    pub json: bool,
}

/// What one text or image was taken for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// `path:line`, or the file of an image; nothing for a single text or image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Best first; none where there is nothing to classify.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Guess>,
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
        let mut order: Vec<usize> = (0..rows.len()).collect();
        // Of like length together: less padding to compute.
        order.sort_by_key(|&row| rows[row].len());
        let mut predictions = vec![Vec::new(); rows.len()];
        for picked in order.chunks(BATCH) {
            let picked_rows = picked.iter().map(|&row| rows[row].as_slice());
            let batch = TokenBatch::pad(picked_rows, self.tokenizer.pad());
            let at = indices(&batch.places(self.at), &self.device);
            let logits = self.model.logits(&batch.input(&self.device), at);
            let guesses = best(logits, self.scores, &self.classes, top);
            for (&row, guesses) in picked.iter().zip(guesses) {
                predictions[row] = guesses;
            }
        }
        Ok(predictions)
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
        let names = bundle.require(HeadKind::Classes)?;
        let classes = bundle.classes()?;
        let model = ImageClassifier::draw(&config, classes.len(), &Draw::new(device, 0.02));
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
    bundle.require(HeadKind::Classes)?;
    let work = Work {
        input: Input::read(flags, &bundle)?,
        bundle,
        top: flags.top.get(),
    };
    note_scores(work.bundle.scores()?);
    let predictions = with_backend(backend, work)??;
    note_missing(&predictions);
    if flags.json {
        return json_lines(&predictions);
    }
    Ok(lines(&predictions))
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
    Texts { texts: Vec<String>, rows: Vec<Row> },
    Images { images: ImageSet, rows: Vec<Row> },
}

impl Input {
    fn read(flags: &Flags, bundle: &Bundle) -> Result<Self, Failure> {
        match (&flags.text, &flags.input) {
            (Some(text), _) if text.trim().is_empty() => Err(Failure::input("--text is empty")),
            (Some(text), _) if bundle.is_text() => Ok(Self::Texts {
                texts: vec![text.clone()],
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
                    texts.push(text);
                    None
                }
                Err(reason) => Some(reason),
            };
            rows.push((Some(row.place), reason));
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
    bundle: Bundle,
    input: Input,
    top: usize,
}

impl WithBackend for Work {
    type Output = Result<Vec<Prediction>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let (rows, classes) = match self.input {
            Input::Texts { texts, rows } => {
                let predictor = TextPredictor::<B::InnerBackend>::open(&self.bundle, &device)?;
                note_cut(predictor.cut(&texts)?, predictor.max_length);
                (rows, predictor.predict(&texts, self.top)?)
            }
            Input::Images { images, rows } => {
                let predictor = ImagePredictor::<B::InnerBackend>::open(&self.bundle, &device)?;
                (rows, predictor.predict(&images, self.top))
            }
        };
        let mut classes = classes.into_iter();
        let prediction = |(place, error): Row| Prediction {
            place,
            classes: match error {
                None => classes.next().unwrap_or_default(),
                Some(_) => Vec::new(),
            },
            error,
        };
        Ok(rows.into_iter().map(prediction).collect())
    }
}

/// A table for a single text or image, else a line each: place, then class and figure by turns.
fn lines(predictions: &[Prediction]) -> String {
    let line = |prediction: &Prediction| {
        let Some(place) = &prediction.place else {
            return guess::table(&prediction.classes);
        };
        if let Some(error) = &prediction.error {
            return format!("{place}\t({error})\n");
        }
        let class = |guess: &Guess| format!("\t{}\t{:.3}", guess.name, guess.figure.number());
        let classes: String = prediction.classes.iter().map(class).collect();
        format!("{place}{classes}\n")
    };
    predictions.iter().map(line).collect()
}

fn json_lines(predictions: &[Prediction]) -> Result<String, Failure> {
    let line = |prediction| Ok(serde_json::to_string(prediction).running()? + "\n");
    predictions.iter().map(line).collect()
}
