//! New images from a variational autoencoder, or the way from one image to another. In: its bundle. Out: a PNG.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use data::order::{self, Stream};
use model::{Bundle, HeadKind, VariationalAutoencoder};
use rand_distr::{Distribution, StandardNormal};
use train::backend::with_backend;
use train::job::image::PixelBatch;
use train::report::grid::grid_png;
use train::{Failure, WithBackend};

use crate::any_model::AnyImageModel;
use crate::images;
use crate::open::{self, ModelFlags};
use crate::reconstruct::check_png;

/// As many images as stand side by side.
const COLUMNS: usize = 10;
/// The most images of a drawing.
const MOST: usize = 10_000;

const EXAMPLES: &str = "\
Examples:
  apps sample --model runs/vae --count 40 --seed 7
  apps sample --model runs/vae --between photos/3.png photos/8.png --output way.png";

/// Draw new images with a variational autoencoder, or the way from one image to another
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelFlags,
    /// Images that are drawn
    #[arg(long, value_name = "N", default_value = "10")]
    pub count: NonZeroUsize,
    /// Of the latent vectors: the same seed gives the same images
    #[arg(
        long,
        value_name = "N",
        default_value = "0",
        conflicts_with = "between"
    )]
    pub seed: u64,
    /// Go from one image to another through their latent vectors, in --count steps
    #[arg(long, value_name = "FILE", num_args = 2)]
    pub between: Vec<String>,
    /// The drawing, ten images side by side
    #[arg(long, value_name = "FILE", default_value = "samples.png")]
    pub output: PathBuf,
}

/// Where images come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The prior: so many latent vectors of this seed.
    Prior {
        /// Images.
        count: usize,
        /// The vector of an image depends on it and on the image's number alone.
        seed: u64,
    },
    /// The way from the first image to the second.
    Between {
        /// Two, as the model sees them.
        ends: PixelBatch,
        /// Images, both ends among them; at least 2.
        count: usize,
    },
}

/// Images of a variational autoencoder.
///
/// # Errors
///
/// A bundle of another kind, or one whose weights do not fit.
///
/// # Panics
///
/// If the ends are not of the model's shape, which [`images::read`] gives them.
pub fn sample<B: Backend>(
    bundle: &Bundle,
    origin: &Origin,
    device: &B::Device,
) -> Result<PixelBatch, Failure> {
    let names = open::require(bundle, HeadKind::Variational)?;
    let model = AnyImageModel::<B>::draw(bundle, names, device)?;
    let AnyImageModel::Variational(model) = open::filled(bundle, model, names)? else {
        unreachable!("the names are a variational autoencoder's")
    };
    let latent = latent(&model, origin, device);
    Ok(PixelBatch::read(sigmoid(model.decode(latent))))
}

/// A latent vector for each image, `[n, latent_size]`.
fn latent<B: Backend>(
    model: &VariationalAutoencoder<B>,
    origin: &Origin,
    device: &B::Device,
) -> Tensor<B, 2> {
    let (count, values) = match origin {
        Origin::Prior { count, seed } => {
            let [_, size] = model.head.mean.weight.dims();
            let vector = |number: usize| {
                let rng = order::rng(*seed, Stream::Sample, number as u64);
                StandardNormal.sample_iter(rng).take(size)
            };
            let values: Vec<f32> = (0..*count).flat_map(vector).collect();
            (*count, values)
        }
        Origin::Between { ends, count } => {
            let [means, _] = model.posterior(ends.tensor(device));
            let means: Vec<f32> = means.into_data().iter::<f32>().collect();
            let (from, to) = means.split_at(means.len() / 2);
            let vector = |step: usize| {
                let share = step as f32 / (*count - 1) as f32;
                let pairs = from.iter().zip(to);
                pairs.map(move |(from, to)| from + share * (to - from))
            };
            (*count, (0..*count).flat_map(vector).collect())
        }
    };
    let size = values.len() / count;
    Tensor::from_data(TensorData::new(values, [count, size]), device)
}

/// Draws what the flags name, writes the drawing, and gives what is printed.
///
/// # Errors
///
/// A model or images that cannot be used, or a file that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.model.backend.choose()?;
    let bundle = flags.model.bundle()?;
    let count = flags.count.get();
    check_png(&flags.output)?;
    let read = flags.between.iter().map(Path::new);
    let inputs: Vec<_> = read.chain([bundle.path()]).collect();
    open::check_output(&flags.output, &inputs)?;
    open::require(&bundle, HeadKind::Variational)?;
    if count > MOST {
        let reason = format!("--count {count}: a drawing has {MOST} images at most");
        return Err(Failure::input(reason));
    }
    let origin = match &flags.between[..] {
        [from, to] => {
            if count < 2 {
                let reason = "--count 1: the way between two images has at least both";
                return Err(Failure::input(reason));
            }
            Origin::Between {
                ends: ends(&bundle, [from, to])?,
                count,
            }
        }
        _ => Origin::Prior {
            count,
            seed: flags.seed,
        },
    };
    let work = Work {
        bundle: &bundle,
        origin,
    };
    let images = with_backend(backend, work)??;
    let rows = rows(&images);
    let png = grid_png(&rows.iter().collect::<Vec<_>>());
    let png = png
        .context("the drawing failed")
        .map_err(Failure::Running)?;
    open::write_output(&flags.output, &png)?;
    Ok(format!("wrote {}\n", flags.output.display()))
}

/// Two images as the model sees them.
fn ends(bundle: &Bundle, files: [&String; 2]) -> Result<PixelBatch, Failure> {
    let seen = open::image_model(bundle)?.input;
    let [mut from, to] = [
        images::read(files[0], &seen, 1)?.set,
        images::read(files[1], &seen, 1)?.set,
    ];
    from.pixels.extend(to.pixels);
    Ok(PixelBatch::of(&from, &[0, 1], &seen.levels()))
}

/// Ten images each; the last row of several is filled up with white.
fn rows(images: &PixelBatch) -> Vec<PixelBatch> {
    let columns = images.n.min(COLUMNS);
    let row = |pixels: &[f32]| {
        let mut pixels = pixels.to_vec();
        pixels.resize(columns * images.image(0).len(), 1.0);
        PixelBatch {
            pixels,
            n: columns,
            ..*images
        }
    };
    let chunks = images.pixels.chunks(columns * images.image(0).len());
    chunks.map(row).collect()
}

/// Prepared work, waiting for its backend.
struct Work<'a> {
    bundle: &'a Bundle,
    origin: Origin,
}

impl WithBackend for Work<'_> {
    type Output = Result<PixelBatch, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        sample::<B::InnerBackend>(self.bundle, &self.origin, &device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up() {
        let bytes: Vec<u8> = (0..24).collect();
        let images = PixelBatch::from_bytes(&bytes, [1, 1, 2]);
        let rows = rows(&images);
        assert_eq!(rows.iter().map(|row| row.n).collect::<Vec<_>>(), [10, 10]);
        assert_eq!(rows[1].image(1), [22.0 / 255.0, 23.0 / 255.0]);
        assert_eq!(rows[1].image(9), [1.0, 1.0]);
        let few = PixelBatch::from_bytes(&bytes[..6], [1, 1, 2]);
        assert_eq!(super::rows(&few), [few]);
    }
}
