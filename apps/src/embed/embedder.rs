//! Vectors of texts and of images. In: an encoder of a bundle, rows. Out: a vector of length one each.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::{CutTexts, TextTokenizer};
use model::heads::sequence::{mean_states, normalized};
use model::registry::{ImageBackbone, TextBackbone};
use model::{Bundle, HeadKind};
use train::backend::with_backend;
use train::job::image::ImageModel;
use train::job::text::TokenBatch;
use train::{BackendName, Failure, WithBackend};

use crate::open::{self, TextParts};
use crate::task::image_scores::{Eye, Seen, pictures};
use crate::task::{Row, by_length, texts_of};

/// Vectors of rows, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectors {
    /// `[rows, width]` row-major; each row is of length one.
    pub values: Vec<f32>,
    /// Numbers of a vector.
    pub width: usize,
    /// Of each text, as the model reads it; none of images.
    pub tokens: Vec<usize>,
    /// What is cut of texts, as they are longer than those of training.
    pub cut: CutTexts,
}

/// A loaded encoder, whatever its backend.
pub trait Embedder: Send {
    /// A vector a row.
    ///
    /// - batch_size: rows in a forward pass
    ///
    /// # Errors
    ///
    /// A row of another kind, the tokenizer fails, or the model gives what is no finite number.
    fn embed(&self, rows: &[Row], batch_size: usize) -> Result<Vectors, Failure>;

    /// Tokens of the longest text; nothing of a model of images.
    fn max_length(&self) -> Option<usize>;
}

/// How the bundle's model sees images; nothing of a model of texts.
///
/// # Errors
///
/// A model that embeds nothing, for which another command is named, or that this machine cannot hold.
pub fn view(bundle: &Bundle) -> Result<Option<Seen>, Failure> {
    if bundle.is_text() {
        open::text_model(bundle)?;
        return Ok(None);
    }
    let ImageModel { input, .. } = open::image_model(bundle)?;
    Ok(Some(Eye::new(&input).seen))
}

/// Opens the encoder of a bundle, whatever head it has.
///
/// # Errors
///
/// A model that embeds nothing, weights that do not fit, or a backend without a device.
pub fn open_on(backend: BackendName, bundle: &Bundle) -> Result<Box<dyn Embedder>, Failure> {
    with_backend(backend, Work { bundle })?
}

struct Work<'a> {
    bundle: &'a Bundle,
}

impl WithBackend for Work<'_> {
    type Output = Result<Box<dyn Embedder>, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        if self.bundle.is_text() {
            let embedder = TextEmbedder::<B::InnerBackend>::open(self.bundle, &device)?;
            return Ok(Box::new(embedder));
        }
        let embedder = ImageEmbedder::<B::InnerBackend>::open(self.bundle, &device)?;
        Ok(Box::new(embedder))
    }
}

/// Makes vectors of texts: the mean of their tokens' states, of length one.
pub struct TextEmbedder<B: Backend> {
    encoder: TextBackbone<B>,
    tokenizer: TextTokenizer,
    max_length: usize,
    device: B::Device,
}

impl<B: Backend> TextEmbedder<B> {
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
}

impl<B: Backend> Embedder for TextEmbedder<B> {
    /// What is longer than the texts of training is cut. Texts of like length share a batch.
    fn embed(&self, rows: &[Row], batch_size: usize) -> Result<Vectors, Failure> {
        let texts = texts_of(rows, 1, "embeddings")?.into_iter();
        let texts: Vec<_> = texts.map(|texts| (texts[0].as_str(), None)).collect();
        let encoded = self.tokenizer.encode_parts(&texts, self.max_length)?;
        let lengths: Vec<usize> = encoded.iter().map(|row| row.ids.len()).collect();
        let mut found = Vectors {
            cut: CutTexts::of(&encoded),
            tokens: lengths.clone(),
            ..Vectors::default()
        };
        for picked in by_length(&lengths, batch_size) {
            let ids = picked.iter().map(|&row| encoded[row].ids.as_slice());
            let batch = TokenBatch::pad(ids, self.tokenizer.pad());
            let states = mean_states(&self.encoder, &batch.input(&self.device));
            let (values, width) = of_length_one(states)?;
            found.width = width;
            found.values.resize(rows.len() * width, 0.0);
            for (&row, vector) in picked.iter().zip(values.chunks(width)) {
                found.values[row * width..][..width].copy_from_slice(vector);
            }
        }
        Ok(found)
    }

    fn max_length(&self) -> Option<usize> {
        Some(self.max_length)
    }
}

/// Makes vectors of images: what a classifier reads of the backbone, its pooled features, of length one.
pub struct ImageEmbedder<B: Backend> {
    backbone: ImageBackbone<B>,
    eye: Eye,
    device: B::Device,
}

impl<B: Backend> ImageEmbedder<B> {
    /// Loads the backbone of a bundle, whatever head it has.
    ///
    /// # Errors
    ///
    /// A bundle of texts, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let ImageModel { config, input } = open::image_model(bundle)?;
        let names = config.names(HeadKind::Bare);
        let backbone = config.init(&bundle.draw(device, names));
        Ok(Self {
            backbone: open::filled(bundle, backbone, names)?,
            eye: Eye::new(&input),
            device: device.clone(),
        })
    }
}

impl<B: Backend> Embedder for ImageEmbedder<B> {
    fn embed(&self, rows: &[Row], batch_size: usize) -> Result<Vectors, Failure> {
        let mut found = Vectors::default();
        for pictures in pictures(rows, "embeddings of images")?.chunks(batch_size.max(1)) {
            let images = self.eye.batch(pictures).tensor(&self.device);
            let (values, width) = of_length_one(self.backbone.forward(images).pooled)?;
            found.width = width;
            found.values.extend(values);
        }
        Ok(found)
    }

    fn max_length(&self) -> Option<usize> {
        None
    }
}

/// Rows brought to length one, row-major, and their width.
///
/// - states: `[batch, width]`
fn of_length_one<B: Backend>(states: Tensor<B, 2>) -> Result<(Vec<f32>, usize), Failure> {
    let [_, width] = states.dims();
    let values: Vec<f32> = normalized(states).into_data().iter::<f32>().collect();
    if values.iter().all(|value| value.is_finite()) {
        return Ok((values, width));
    }
    let reason = "the model gives vectors that hold what is no finite number";
    Err(Failure::running(anyhow::anyhow!(reason)))
}
