//! Shows what an autoencoder keeps of images. In: its bundle and images. Out: a PNG, and the PSNR of each image.

use std::path::PathBuf;

use anyhow::Context;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use model::bundle::{Architecture, Load};
use model::{Autoencoder, Bundle};
use pretrain::autoencoder::{grid_png, psnr};
use train::backend::with_backend;
use train::image::PixelBatch;
use train::{Failure, WithBackend};

use crate::images;
use crate::open::{self, ModelFlags};

/// As many images as stand side by side.
const COLUMNS: usize = 10;

/// Draw images and what an autoencoder makes of them
#[derive(Args, Clone, Debug)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// An image (PNG, JPEG), or a folder or IDX file, of which the first ten are taken
    #[arg(long, value_name = "FILE")]
    pub input: String,
    /// The drawing: images above, reconstructions below
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
    bundle.require(&[Architecture::ConvAutoencoder])?;
    let model: Autoencoder<B> = open::image_model(bundle)?.init(device);
    let model = bundle.load(model, Load::Whole)?;
    Ok(PixelBatch::read(model.reconstruct(images.tensor(device))))
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

/// Reconstructs what the flags name, writes the drawing, and gives what is printed.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend()?;
    open::check_output(&flags.output, &flags.input)?;
    let bundle = flags.model.bundle()?;
    bundle.require(&[Architecture::ConvAutoencoder])?;
    let images = images::read(&flags.input, &open::image_model(&bundle)?, COLUMNS)?;
    let rows: Vec<u32> = (0..images.places.len() as u32).collect();
    let batch = PixelBatch::of(&images.set, &rows);
    let work = Work {
        bundle,
        images: &batch,
    };
    let reconstructions = with_backend(backend, work)??;
    let png = grid_png(&[&batch, &reconstructions]);
    let png = png
        .context("the drawing failed")
        .map_err(Failure::Running)?;
    open::write_output(&flags.output, &png)?;
    let figures = psnr_by_image(&batch, &reconstructions);
    let line = |(place, psnr): (&String, f64)| format!("{place}  {psnr:.1} dB\n");
    let lines: String = images.places.iter().zip(figures).map(line).collect();
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
