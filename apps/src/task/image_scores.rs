//! Scores of images. In: a classifier of images, pictures of any size. Out: a logit a class and row.

use burn::prelude::*;
use data::augment::{Placement, View};
use data::{ImageSet, Picture};
use model::bundle::ImageInput;
use model::{Bundle, HeadKind, ImageClassifier};
use rayon::prelude::*;
use train::Failure;
use train::job::image::{ImageModel, PixelBatch};

use super::scores::{Scored, Scorer};
use super::{Reads, Row, other_kind};
use crate::open;

/// How a model sees an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// 1 grey, 3 RGB.
    pub channels: usize,
    /// How an image becomes one of the model's size.
    pub view: View,
}

/// Pictures as a model sees them.
#[derive(Clone, Debug)]
pub(crate) struct Eye {
    pub(crate) seen: Seen,
    levels: Vec<[f32; 256]>,
}

impl Eye {
    pub(crate) fn new(input: &ImageInput) -> Self {
        let [channels, height, width] = input.shape;
        let view = View {
            size: [height, width],
            shorter: input.shorter,
        };
        Self {
            seen: Seen { channels, view },
            levels: input.levels(),
        }
    }

    /// Where the pixels come from that the model sees of a picture of this height and width.
    pub(crate) fn placement(&self, size: [usize; 2]) -> Placement {
        self.seen.view.placement(size)
    }

    /// Some rows as a batch.
    pub(crate) fn batch(&self, pictures: &[&Picture]) -> PixelBatch {
        let [height, width] = self.seen.view.size;
        let channels = self.seen.channels;
        let len = channels * height * width;
        let mut pixels = vec![0.0; pictures.len() * len];
        let pairs = pixels.par_chunks_exact_mut(len).zip(pictures);
        pairs.for_each(|(pixels, picture)| {
            let picture = with_channels((*picture).clone(), channels);
            let picture = self.seen.view.apply(picture);
            let level = |channel: usize, value: u8| self.levels[channel][usize::from(value)];
            picture.write_planes(pixels, level);
        });
        PixelBatch {
            pixels,
            n: pictures.len(),
            channels,
            height,
            width,
        }
    }
}

/// A picture with so many channels: grey is repeated for a model of colours.
///
/// # Panics
///
/// If a picture of colours is to become grey, which decoding does.
fn with_channels(picture: Picture, channels: usize) -> Picture {
    if picture.channels == channels {
        return picture;
    }
    assert_eq!(picture.channels, 1, "only grey pictures gain channels");
    let pixels = picture.pixels.iter();
    let pixels = pixels.flat_map(|&value| std::iter::repeat_n(value, channels));
    Picture::new(channels, picture.size(), pixels.collect())
}

/// An image of a set.
pub(crate) fn of_set(set: &ImageSet, row: usize) -> Picture {
    Picture::from_planes(set.channels, [set.height, set.width], set.image(row))
}

/// The pictures of rows.
pub(crate) fn pictures<'a>(rows: &'a [Row], task: &str) -> Result<Vec<&'a Picture>, Failure> {
    let picture = |row: &'a Row| match row {
        Row::Image(picture) => Ok(picture),
        Row::Texts(_) | Row::Words(_) => Err(other_kind(task, "row")),
    };
    rows.iter().map(picture).collect()
}

/// Scores images.
pub struct ImageScorer<B: Backend> {
    model: ImageClassifier<B>,
    eye: Eye,
    device: B::Device,
}

impl<B: Backend> ImageScorer<B> {
    /// Loads a classifier of images; it, and its classes.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<(Self, Vec<String>), Failure> {
        let ImageModel { config, input } = open::image_model(bundle)?;
        let names = open::require(bundle, HeadKind::Classes)?;
        let classes = bundle.classes()?;
        let model = ImageClassifier::draw(&config, classes.len(), &bundle.draw(device, names));
        let scorer = Self {
            model: open::filled(bundle, model, names)?,
            eye: Eye::new(&input),
            device: device.clone(),
        };
        Ok((scorer, classes))
    }
}

impl<B: Backend> Scorer for ImageScorer<B> {
    fn reads(&self) -> Reads {
        Reads::Image
    }

    fn view(&self) -> Option<Seen> {
        Some(self.eye.seen.clone())
    }

    fn scores(&self, rows: &[Row], batch_size: usize) -> Result<Scored, Failure> {
        let pictures = pictures(rows, "images")?;
        let mut scored = Vec::with_capacity(rows.len());
        for pictures in pictures.chunks(batch_size.max(1)) {
            let images = self.eye.batch(pictures).tensor(&self.device);
            let logits = self.model.logits(images);
            let [_, n_classes] = logits.dims();
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            scored.extend(logits.chunks(n_classes.max(1)).map(<[f32]>::to_vec));
        }
        Ok(Scored {
            rows: scored,
            ..Scored::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_the_size_and_the_channels_of_the_model() {
        let eye = Eye::new(&ImageInput::plain([3, 2, 2]));
        let grey = Picture::new(1, [4, 4], vec![255; 16]);
        let batch = eye.batch(&[&grey, &grey]);
        assert_eq!((batch.n, batch.channels, batch.pixels.len()), (2, 3, 24));
        assert!(batch.pixels.iter().all(|pixel| *pixel == 1.0));
    }
}
