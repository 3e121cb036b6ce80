//! Classes of texts and images. In: a classifier's bundle, a text or a file. Out: the likeliest classes.

use std::num::NonZeroUsize;

use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn::tensor::backend::AutodiffBackend;
use clap::{ArgGroup, Args};
use data::text::TextColumns;
use data::{ImageSet, TextTokenizer, source};
use model::bundle::{Architecture, Load};
use model::{BertClassifier, Bundle, ImageClassifier};
use serde::Serialize;
use train::backend::with_backend;
use train::image::PixelBatch;
use train::text::TokenBatch;
use train::{Failure, FailureKind, WithBackend};

use crate::guess::{self, Guess};
use crate::images;
use crate::open::{self, ModelFlags};

/// Texts or images in a forward pass.
const BATCH: usize = 64;

/// Say which classes a text or an image belongs to
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("what").args(["text", "input"]).required(true)))]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// A text
    #[arg(long)]
    pub text: Option<String>,
    /// Texts (.txt .csv .tsv .jsonl, each also .gz) or images (PNG, JPEG, IDX, a folder of them)
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
    /// Best first.
    pub classes: Vec<Guess>,
}

/// Classifies texts.
pub struct TextPredictor<B: Backend> {
    model: BertClassifier<B>,
    tokenizer: TextTokenizer,
    classes: Vec<String>,
    max_length: usize,
    device: B::Device,
}

impl<B: Backend> TextPredictor<B> {
    /// Loads a `BertForSequenceClassification`.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        bundle.require(&[Architecture::BertForSequenceClassification])?;
        let (config, tokenizer) = open::text_model(bundle)?;
        let classes = bundle.classes()?;
        let model = BertClassifier::new(&config, classes.len(), device);
        Ok(Self {
            model: bundle.load(model, Load::Whole)?,
            tokenizer,
            classes,
            max_length: config.max_position_embeddings,
            device: device.clone(),
        })
    }

    /// The likeliest `top` classes of each text; what is longer than the model's positions is cut.
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
            let logits = self.model.forward(batch.input(&self.device));
            for (&row, guesses) in picked.iter().zip(best(logits, &self.classes, top)) {
                predictions[row] = guesses;
            }
        }
        Ok(predictions)
    }
}

/// Classifies images.
pub struct ImagePredictor<B: Backend> {
    model: ImageClassifier<B>,
    classes: Vec<String>,
    device: B::Device,
}

impl<B: Backend> ImagePredictor<B> {
    /// Loads a `HearthConvImageClassifier`.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        bundle.require(&[Architecture::ConvImageClassifier])?;
        let config = open::image_model(bundle)?;
        let classes = bundle.classes()?;
        let model = ImageClassifier::new(&config, classes.len(), device);
        Ok(Self {
            model: bundle.load(model, Load::Whole)?,
            classes,
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
            let batch = PixelBatch::of(images, rows);
            self.model.forward(batch.tensor(&self.device))
        });
        logits
            .flat_map(|logits| best(logits, &self.classes, top))
            .collect()
    }
}

/// - logits: `[batch, n_classes]`
fn best<B: Backend>(logits: Tensor<B, 2>, classes: &[String], top: usize) -> Vec<Vec<Guess>> {
    let probabilities: Vec<f32> = softmax(logits, 1).into_data().iter::<f32>().collect();
    let rows = probabilities.chunks_exact(classes.len());
    rows.map(|row| guess::best(row, top, |class| classes[class].clone()))
        .collect()
}

/// Predicts what the flags name, and gives what is printed.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend()?;
    let bundle = flags.model.bundle()?;
    let work = Work {
        input: Input::read(flags, &bundle)?,
        bundle,
        top: flags.top.get(),
    };
    let predictions = with_backend(backend, work)??;
    match flags.json {
        true => json_lines(&predictions),
        false => Ok(lines(&predictions)),
    }
}

/// What is classified, read.
enum Input {
    Texts {
        texts: Vec<String>,
        places: Vec<Option<String>>,
    },
    Images {
        images: ImageSet,
        places: Vec<Option<String>>,
    },
}

impl Input {
    fn read(flags: &Flags, bundle: &Bundle) -> Result<Self, Failure> {
        let texts = Architecture::BertForSequenceClassification;
        bundle.require(&[texts, Architecture::ConvImageClassifier])?;
        match (&flags.text, &flags.input) {
            (Some(text), _) if text.trim().is_empty() => Err(Failure::input("--text is empty")),
            (Some(text), _) if bundle.architecture() == texts => Ok(Self::Texts {
                texts: vec![text.clone()],
                places: vec![None],
            }),
            (None, Some(input)) if bundle.architecture() == texts => {
                Self::texts(input, &flags.column)
            }
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
            label: None,
            ..TextColumns::default()
        };
        let set = source::texts(&[input.into()], &columns)?;
        Ok(Self::Texts {
            places: (0..set.len()).map(|row| Some(set.place(row))).collect(),
            texts: set
                .examples
                .into_iter()
                .map(|example| example.text)
                .collect(),
        })
    }

    fn images(input: &str, bundle: &Bundle) -> Result<Self, Failure> {
        let images = images::read(input, &open::image_model(bundle)?, usize::MAX)?;
        let single = data::image::is_image(input.as_ref());
        let place = |place| (!single).then_some(place);
        Ok(Self::Images {
            images: images.set,
            places: images.places.into_iter().map(place).collect(),
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
        let (places, classes) = match self.input {
            Input::Texts { texts, places } => {
                let predictor = TextPredictor::<B::InnerBackend>::open(&self.bundle, &device)?;
                (places, predictor.predict(&texts, self.top)?)
            }
            Input::Images { images, places } => {
                let predictor = ImagePredictor::<B::InnerBackend>::open(&self.bundle, &device)?;
                (places, predictor.predict(&images, self.top))
            }
        };
        let predictions = places.into_iter().zip(classes);
        Ok(predictions
            .map(|(place, classes)| Prediction { place, classes })
            .collect())
    }
}

/// A table for a single text or image, else a line each: place, then class and probability by turns.
fn lines(predictions: &[Prediction]) -> String {
    let line = |prediction: &Prediction| {
        let Some(place) = &prediction.place else {
            return guess::table(&prediction.classes);
        };
        let class = |guess: &Guess| format!("\t{}\t{:.3}", guess.name, guess.probability);
        let classes: String = prediction.classes.iter().map(class).collect();
        format!("{place}{classes}\n")
    };
    predictions.iter().map(line).collect()
}

fn json_lines(predictions: &[Prediction]) -> Result<String, Failure> {
    let line = |prediction| Ok(serde_json::to_string(prediction).running()? + "\n");
    predictions.iter().map(line).collect()
}
