//! Which way up an image is, a small baseline. In: images. Out: a backbone that knows what things look like upright.
//!
//! Gidaris et al. 2018, <https://arxiv.org/abs/1803.07728>.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::order::{self, Stream};
use model::bundle::Load;
use model::registry::ImageBackbone;
use model::{HeadKind, ImageClassifier};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::{ImageModel, PixelBatch};
use train::job::{BundleWriter, Start};
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::class_loss::cross_entropy;
use train::objectives::probe;
use train::recipe::Impossible;
use train::source::Rows;

use crate::images::{
    Chance, ImageBatch, ImageLoss, ImageObjective, ImagePretraining, OfImages, Reader,
};

/// The objective; `assets/recipes/rotation.toml` and the files that it names explain every key.
pub type Rotation = OfImages<Turning>;

/// It has no sections of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turning {}

impl ImagePretraining for Turning {
    const NAME: &'static str = "rotation";
    const ABOUT: &'static str = "by how many quarters of a turn an image was rotated";
    const RECIPE: &'static str = include_str!("../../assets/recipes/rotation.toml");
    const HEAD: HeadKind = HeadKind::Bare;
    const PLAIN: bool = false;
    const AUGMENTS_VALIDATION: bool = false;

    fn check(&self) -> Result<(), Impossible> {
        Ok(())
    }

    fn check_model(&self, model: &ImageModel) -> Result<(), Impossible> {
        let [_, height, width] = model.input.shape;
        if height == width {
            return Ok(());
        }
        let reason = format!(
            "leaves images of {height}x{width} (height x width); a quarter of a turn needs squares"
        );
        Err(Impossible::new("data.size", reason))
    }

    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        start: &Start,
        device: &B::Device,
    ) -> Result<ImageObjective<B>, Failure> {
        let config = &model.config;
        let names = config.names(HeadKind::Classes);
        let model = ImageClassifier::draw(config, 4, &start.draw(device, names));
        let model = start.fill(model, names, Load::Backbone)?;
        Ok(Turns { model }.into())
    }

    fn batch(&self, images: &Reader, rows: &Rows, _: &ImageModel) -> ImageBatch {
        let mut view = images.view(rows, 0);
        let turn = |&sample: &u64| order::rng(images.seed, Stream::Mask, sample).random_range(0..4);
        let turns: Vec<u32> = rows.samples.iter().map(turn).collect();
        turn_images(&mut view, &turns);
        ImageBatch {
            views: vec![view],
            chance: Chance::Turns(turns),
            ..ImageBatch::default()
        }
    }
}

/// Turns square images by quarters, counterclockwise.
fn turn_images(images: &mut PixelBatch, turns: &[u32]) {
    let (side, len) = (images.width, images.height * images.width);
    let planes = images.pixels.chunks_exact_mut(len);
    for (number, plane) in planes.enumerate() {
        for _ in 0..turns[number / images.channels] {
            let old = plane.to_vec();
            for (at, pixel) in plane.iter_mut().enumerate() {
                *pixel = old[at % side * side + side - 1 - at / side];
            }
        }
    }
}

/// A classifier of turns with its loss.
#[derive(Module, Debug)]
pub struct Turns<B: Backend> {
    /// The bundle keeps its backbone.
    pub model: ImageClassifier<B>,
}

impl<B: Backend> ImageLoss<B> for Turns<B> {
    const MEANS: &'static [&'static str] = &["accuracy"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::higher("accuracy"),
        probe::LINEAR,
        probe::NEIGHBOURS,
    ];

    fn backbone(&self) -> &ImageBackbone<B> {
        &self.model.backbone
    }

    fn loss(&self, batch: &ImageBatch, device: &B::Device) -> LossSums<B> {
        let turns: &[u32] = match &batch.chance {
            Chance::Turns(turns) => turns,
            _ => &[],
        };
        cross_entropy(self.model.logits(batch.images(device)), turns)
    }

    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model.backbone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turns_counterclockwise_and_four_do_nothing() {
        let image = [0, 1, 2, 3, 4, 5, 6, 7, 8];
        let turned = |quarters: u32| {
            let mut images = PixelBatch::from_bytes(&image, [1, 3, 3]);
            turn_images(&mut images, &[quarters]);
            let values = images.pixels.iter();
            values
                .map(|x| (x * 255.0).round() as u8)
                .collect::<Vec<_>>()
        };
        assert_eq!(turned(1), [2, 5, 8, 1, 4, 7, 0, 3, 6]);
        assert_eq!(turned(2), [8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(turned(4), image);
    }
}
