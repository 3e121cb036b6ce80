//! What a masked autoencoder makes of images of which it sees a part. In: its bundle and images. Out: these, what it saw, and
//! that with the patches that it gave back.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use model::bundle::ImageInput;
use model::heads::masked::{MaskedConfig, Order};
use model::{Bundle, HeadKind, ImageConfig};
use rand::seq::SliceRandom;
use train::job::image::{ImageModel, PixelBatch};
use train::objectives::pixels::psnr;
use train::{Failure, WithBackend};

use crate::any_model::AnyImageModel;
use crate::open;

/// What was hidden and given back; pixels from 0 to 1.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The images.
    pub images: PixelBatch,
    /// With hidden patches black.
    pub seen: PixelBatch,
    /// With what the model made of hidden patches.
    pub whole: PixelBatch,
    /// Share of the patches that was hidden.
    pub hidden: f64,
}

impl Restored {
    /// Peak signal-to-noise ratio of each image's hidden patches, in decibels.
    pub fn psnr_by_image(&self) -> Vec<f64> {
        let of = |i| {
            let pairs = self.images.image(i).iter().zip(self.whole.image(i));
            let squares: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
            // What was seen is not off.
            psnr(squares / (self.hidden * self.images.image(i).len() as f64))
        };
        (0..self.images.n).map(of).collect()
    }
}

/// Hides patches of images, and lets the model give them back.
///
/// - images: as the model sees them
/// - seed: which patches are hidden is a function of it and of the image's number
///
/// # Errors
///
/// A bundle of another kind, one whose weights do not fit, or a model of a single patch.
///
/// # Panics
///
/// If the images are not of the model's shape.
pub fn restore<B: Backend>(
    bundle: &Bundle,
    images: &PixelBatch,
    seed: u64,
    device: &B::Device,
) -> Result<Restored, Failure> {
    let names = open::require(bundle, HeadKind::Patches)?;
    let ImageModel { config, input } = open::image_model(bundle)?;
    let sizes: MaskedConfig = bundle.head_config()?;
    let wrong = |reason: String| {
        let place = bundle.path().display();
        Failure::input(format!("{place}: {reason}"))
    };
    sizes.check().map_err(wrong)?;
    let ImageConfig::ViT(vit) = &config else {
        return Err(wrong("is no vision transformer".into()));
    };
    let [rows, columns] = vit.grid();
    let n = rows * columns;
    if n < 2 {
        return Err(wrong("has a single patch, and nothing to hide".into()));
    }
    let patches = (0..images.n as u64).flat_map(|image| {
        let mut patches: Vec<u32> = (0..n as u32).collect();
        patches.shuffle(&mut order::rng(seed, Stream::Mask, image));
        patches
    });
    let order = Order {
        patches: patches.collect(),
        batch: images.n,
        visible: sizes.visible(n),
    };
    let model = AnyImageModel::<B>::draw(bundle, names, device)?;
    let AnyImageModel::Patches(model) = open::filled(bundle, model, names)? else {
        unreachable!("the names are a masked autoencoder's")
    };
    let (patch, normalised) = (vit.patch_size.both(), sizes.norm_pix_loss);
    let filled = model.fill_in(images.tensor(device), &order, patch, normalised);
    let images = pixels(PixelBatch::read(filled.images), &input);
    let mut seen = PixelBatch::read(filled.seen);
    let pairs = seen.pixels.iter_mut().zip(&images.pixels);
    pairs.for_each(|(seen, pixel)| *seen *= pixel);
    Ok(Restored {
        images,
        seen,
        whole: pixels(PixelBatch::read(filled.whole), &input),
        hidden: (n - order.visible) as f64 / n as f64,
    })
}

/// Pixels from 0 to 1 of the values that a model sees.
fn pixels(mut images: PixelBatch, input: &ImageInput) -> PixelBatch {
    let area = images.height * images.width;
    for (at, plane) in images.pixels.chunks_mut(area.max(1)).enumerate() {
        let channel = at % images.channels;
        let (mean, std) = (input.mean[channel] as f32, input.std[channel] as f32);
        plane
            .iter_mut()
            .for_each(|value| *value = (*value * std + mean).clamp(0.0, 1.0));
    }
    images
}

/// Prepared work, waiting for its backend.
pub(super) struct Work<'a> {
    pub bundle: &'a Bundle,
    pub images: &'a PixelBatch,
    pub seed: u64,
}

impl WithBackend for Work<'_> {
    type Output = Result<Restored, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        restore::<B::InnerBackend>(self.bundle, self.images, self.seed, &device)
    }
}
