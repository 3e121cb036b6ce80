//! Shows what an autoencoder keeps of images. In: its bundle and images. Out: a PNG, and the PSNR of each image.

pub mod patches;

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use model::{Bundle, HeadKind, Names};
use train::backend::with_backend;
use train::job::image::PixelBatch;
use train::objectives::pixels::psnr;
use train::report::grid::grid_png;
use train::{Failure, WithBackend};

use crate::any_model::AnyImageModel;
use crate::images;
use crate::open::{self, ModelFlags};

/// As many images as stand side by side.
const COLUMNS: usize = 10;

/// Draw images and what an autoencoder makes of them
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  apps reconstruct --model runs/autoencoder --input mnist
  apps reconstruct --model runs/mae --input photos --seed 3

A masked autoencoder sees some patches of each image, and gives the others back: the PSNR is theirs.")]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// An image (PNG, JPEG, WebP, BMP, GIF, TIFF), or a folder or IDX file, of which the first ten are taken
    #[arg(long, value_name = "FILE")]
    pub input: String,
    /// Of the patches that are hidden from a masked autoencoder: the same seed hides the same ones
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    /// The drawing: images above, reconstructions below; of a masked autoencoder what it saw between them
    #[arg(long, value_name = "FILE", default_value = "reconstruction.png")]
    pub output: PathBuf,
}

/// What the autoencoder makes of images.
///
/// # Panics
///
/// If the images are not of the model's shape, which [`images::read`] gives them.
pub fn reconstruct<B: Backend>(
    bundle: &Bundle,
    images: &PixelBatch,
    device: &B::Device,
) -> Result<PixelBatch, Failure> {
    let names = autoencoder_names(bundle)?;
    let model = AnyImageModel::<B>::draw(bundle, names, device)?;
    let seen = images.tensor(device);
    let outputs = match open::filled(bundle, model, names)? {
        AnyImageModel::Pixels(model) => model.reconstruct(seen),
        AnyImageModel::Variational(model) => model.reconstruct(seen),
        AnyImageModel::Codes(model) => model.reconstruct(seen),
        AnyImageModel::Bare(_)
        | AnyImageModel::Classes(_)
        | AnyImageModel::Patches(_)
        | AnyImageModel::Masks(_)
        | AnyImageModel::Boxes(_) => unreachable!("the names are an autoencoder's"),
    };
    Ok(PixelBatch::read(outputs))
}

/// Names of the autoencoder that a bundle holds, of whichever kind.
fn autoencoder_names(bundle: &Bundle) -> Result<Names, Failure> {
    let kind = match bundle.head() {
        kind @ (HeadKind::Pixels | HeadKind::Variational | HeadKind::Codes) => kind,
        HeadKind::Bare
        | HeadKind::Tokens
        | HeadKind::SentencePairs
        | HeadKind::Replaced
        | HeadKind::Classes
        | HeadKind::TokenClasses
        | HeadKind::Spans
        | HeadKind::Choices
        | HeadKind::Patches
        | HeadKind::Masks
        | HeadKind::Boxes => HeadKind::Pixels,
    };
    open::require(bundle, kind)
}

/// Peak signal-to-noise ratio of each image, in decibels.
pub fn psnr_by_image(images: &PixelBatch, reconstructions: &PixelBatch) -> Vec<f64> {
    let of = |i| {
        let pairs = images.image(i).iter().zip(reconstructions.image(i));
        let squares: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
        psnr(squares / images.image(i).len() as f64)
    };
    (0..images.n).map(of).collect()
}

/// Refuses another name than that of a PNG.
pub(crate) fn check_png(output: &Path) -> Result<(), Failure> {
    let extension = output.extension();
    if extension.is_some_and(|extension| !extension.eq_ignore_ascii_case("png")) {
        let place = output.display();
        return Err(Failure::input(format!(
            "{place}: the drawing is a PNG; name it so"
        )));
    }
    Ok(())
}

/// Reconstructs what the flags name, writes the drawing, and gives what is printed.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend.choose()?;
    let bundle = flags.model.bundle()?;
    check_png(&flags.output)?;
    open::check_output(&flags.output, &[flags.input.as_ref(), bundle.path()])?;
    let is_masked = bundle.head() == HeadKind::Patches;
    if is_masked {
        open::require(&bundle, HeadKind::Patches)?;
    } else {
        autoencoder_names(&bundle)?;
    }
    let seen = open::image_model(&bundle)?.input;
    let images = images::read(&flags.input, &seen, COLUMNS)?;
    let rows: Vec<u32> = (0..images.set.len() as u32).collect();
    let batch = PixelBatch::of(&images.set, &rows, &seen.levels());
    let (png, figures) = if is_masked {
        let work = patches::Work {
            bundle: &bundle,
            images: &batch,
            seed: flags.seed,
        };
        let restored = with_backend(backend, work)??;
        let rows = [&restored.images, &restored.seen, &restored.whole];
        (grid_png(&rows), restored.psnr_by_image())
    } else {
        let work = Work {
            bundle,
            images: &batch,
        };
        let reconstructions = with_backend(backend, work)??;
        let figures = psnr_by_image(&batch, &reconstructions);
        (grid_png(&[&batch, &reconstructions]), figures)
    };
    let png = png
        .context("the drawing failed")
        .map_err(Failure::Running)?;
    open::write_output(&flags.output, &png)?;
    let mut figures = figures.into_iter();
    let line = |(place, reason): &(String, Option<String>)| match reason {
        Some(reason) => format!("{place}  {reason}\n"),
        None => format!("{place}  {:.1} dB\n", figures.next().unwrap_or(f64::NAN)),
    };
    let lines: String = images.places.iter().map(line).collect();
    Ok(format!("{lines}wrote {}\n", flags.output.display()))
}

/// Prepared work, waiting for its backend.
struct Work<'a> {
    bundle: Bundle,
    images: &'a PixelBatch,
}

impl WithBackend for Work<'_> {
    type Output = Result<PixelBatch, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        reconstruct::<B::InnerBackend>(&self.bundle, self.images, &device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psnr_is_of_each_image_alone() {
        let batch = |pixels: [f32; 4]| PixelBatch {
            pixels: pixels.to_vec(),
            n: 2,
            channels: 1,
            height: 1,
            width: 2,
        };
        let figures = psnr_by_image(&batch([0.0, 0.0, 1.0, 1.0]), &batch([0.1, 0.1, 0.0, 1.0]));
        // Squared errors of 0.01 and 0.5.
        assert!((figures[0] - 20.0).abs() < 1e-4, "{figures:?}");
        assert!((figures[1] - 3.0103).abs() < 1e-4, "{figures:?}");
    }
}
