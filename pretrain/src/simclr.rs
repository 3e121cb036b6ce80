//! Contrast of views (SimCLR). In: images. Out: a backbone whose features tell images apart, however they are augmented.
//!
//! Chen et al. 2020, <https://arxiv.org/abs/2002.05709>.

use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::HeadKind;
use model::layers::Draw;
use model::registry::ImageBackbone;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::ImageModel;
use train::job::{BundleWriter, Start};
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::class_loss::cross_entropy;
use train::objectives::probe;
use train::recipe::Impossible;
use train::source::Rows;

use crate::images::{ImageBatch, ImageLoss, ImageObjective, ImagePretraining, OfImages, Reader};
use crate::projector::{Embedder, Projector, student, unit};

/// The objective; `assets/recipes/simclr.toml` and the files that it names explain every key.
pub type SimClr = OfImages<Contrasting>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contrasting {
    /// What is put behind the backbone.
    pub projector: ProjectorRecipe,
    /// How it is judged.
    pub loss: ContrastRecipe,
}

/// `[projector]`: two layers that the bundle does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectorRecipe {
    /// Values between the two layers.
    pub hidden: usize,
    /// Values of what is compared.
    pub size: usize,
}

impl ProjectorRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(self) -> Result<(), Impossible> {
        let zero = |key: &str| Err(Impossible::new(key, "is 0; it must be at least 1"));
        match self {
            Self { hidden: 0, .. } => zero("projector.hidden"),
            Self { size: 0, .. } => zero("projector.size"),
            _ => Ok(()),
        }
    }
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContrastRecipe {
    /// What similarities are divided by.
    pub temperature: f64,
}

/// Refuses a temperature that divides by nothing.
pub(crate) fn check_temperature(key: &str, temperature: f64) -> Result<(), Impossible> {
    if temperature.is_finite() && temperature > 0.0 {
        return Ok(());
    }
    let reason = format!("is {temperature}; it must be above 0");
    Err(Impossible::new(key, reason))
}

impl ImagePretraining for Contrasting {
    const NAME: &'static str = "simclr";
    const ABOUT: &'static str = "contrast of augmented views of images";
    const RECIPE: &'static str = include_str!("../../assets/recipes/simclr.toml");
    const HEAD: HeadKind = HeadKind::Bare;
    const PLAIN: bool = false;
    const AUGMENTS_VALIDATION: bool = true;

    fn check(&self) -> Result<(), Impossible> {
        self.projector.check()?;
        check_temperature("loss.temperature", self.loss.temperature)
    }

    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        start: &Start,
        device: &B::Device,
    ) -> Result<ImageObjective<B>, Failure> {
        let ProjectorRecipe { hidden, size } = self.projector;
        let sizes = [model.config.describe().width, hidden, size];
        let head = |draw: &Draw<'_, B>| Projector::new(sizes, "head", draw);
        Ok(Contrast {
            model: student(model, start, device, head)?,
            temperature: self.loss.temperature,
        }
        .into())
    }

    fn batch(&self, images: &Reader, rows: &Rows, _: &ImageModel) -> ImageBatch {
        ImageBatch {
            views: vec![images.view(rows, 0), images.view(rows, 1)],
            ..ImageBatch::default()
        }
    }
}

/// A backbone and a projector with the contrastive loss.
#[derive(Module, Debug)]
pub struct Contrast<B: Backend> {
    /// The bundle keeps its backbone.
    pub model: Embedder<B, Projector<B>>,
    temperature: f64,
}

impl<B: Backend> ImageLoss<B> for Contrast<B> {
    const MEANS: &'static [&'static str] = &["pair_accuracy"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::higher("pair_accuracy"),
        probe::LINEAR,
        probe::NEIGHBOURS,
    ];
    const WHOLE_BATCH: bool = true;

    fn backbone(&self) -> &ImageBackbone<B> {
        &self.model.backbone
    }

    fn loss(&self, batch: &ImageBatch, device: &B::Device) -> LossSums<B> {
        // Both views at once: batch normalisation sees them together.
        let views = batch.views.iter().map(|view| view.tensor(device)).collect();
        let features = self.model.backbone.forward(Tensor::cat(views, 0)).pooled;
        nt_xent(self.model.head.forward(features), self.temperature)
    }

    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model.backbone)
    }
}

/// Each view is to find the other view of its image among all others: cross-entropy of the cosines, and how often it does.
///
/// - projected: `[2 * batch, size]`, all first views before all second ones
pub fn nt_xent<B: Backend>(projected: Tensor<B, 2>, temperature: f64) -> LossSums<B> {
    let views = unit(projected);
    let ([n, _], device) = (views.dims(), views.device());
    let similar = views.clone().matmul(views.transpose()) / temperature;
    // A view is not to find itself. Finite: no softmax survives it either.
    let itself: Vec<f32> = (0..n * n)
        .map(|at| if at % (n + 1) == 0 { -1e9 } else { 0.0 })
        .collect();
    let itself = Tensor::<B, 2>::from_data(TensorData::new(itself, [n, n]), &device);
    let others: Vec<u32> = (0..n).map(|view| ((view + n / 2) % n) as u32).collect();
    cross_entropy(similar + itself, &others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn the_loss_and_its_gradients_are_those_of_torch() {
        for name in ["nt-xent-1", "nt-xent-2"] {
            let golden = Golden::open(name);
            let [first, second] = ["first", "second"].map(|name| golden.leaf::<2>(name));
            let views = Tensor::cat(vec![first.clone(), second.clone()], 0);
            let sums = nt_xent(views, golden.number("temperature").into());
            let loss = sums.loss / sums.targets as f64;
            golden.near("loss", loss.clone());
            let gradients = loss.backward();
            golden.near("grad.first", first.grad(&gradients).unwrap());
            golden.near("grad.second", second.grad(&gradients).unwrap());
        }
    }
}
