//! Bootstrap of a teacher that follows its student (BYOL). In: images. Out: a backbone whose features of one view foretell those of
//! another.
//!
//! Grill et al. 2020, <https://arxiv.org/abs/2006.07733>. The teacher's momentum stays the same all the way.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use model::HeadKind;
use model::layers::{Draw, materialise};
use model::registry::ImageBackbone;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::ImageModel;
use train::job::{BundleWriter, Start};
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::probe;
use train::recipe::Impossible;
use train::source::Rows;

use crate::images::{ImageBatch, ImageLoss, ImageObjective, ImagePretraining, OfImages, Reader};
use crate::projector::{Embedder, Projector, averaged, student, teacher_of, unit};
use crate::simclr::ProjectorRecipe;

/// The objective; `assets/recipes/byol.toml` and the files that it names explain every key.
pub type Byol = OfImages<Bootstrapping>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bootstrapping {
    /// What is put behind the backbone, once as the projector and once as the predictor.
    pub projector: ProjectorRecipe,
    /// How the teacher follows.
    pub teacher: TeacherRecipe,
}

/// `[teacher]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherRecipe {
    /// Share of its weights that stays at each step.
    pub momentum: f64,
}

impl TeacherRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(self) -> Result<(), Impossible> {
        let momentum = self.momentum;
        if (0.0..=1.0).contains(&momentum) {
            return Ok(());
        }
        let reason = format!("is {momentum}; it must be at least 0 and at most 1");
        Err(Impossible::new("teacher.momentum", reason))
    }
}

impl ImagePretraining for Bootstrapping {
    const NAME: &'static str = "byol";
    const ABOUT: &'static str =
        "one view of an image foretells what a slower teacher sees in another";
    const RECIPE: &'static str = include_str!("../../assets/recipes/byol.toml");
    const HEAD: HeadKind = HeadKind::Bare;
    const PLAIN: bool = false;
    const AUGMENTS_VALIDATION: bool = true;

    fn check(&self) -> Result<(), Impossible> {
        self.projector.check()?;
        self.teacher.check()
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
        let student = student(model, start, device, head)?;
        let draw = Draw::new(device, 0.02);
        Ok(Bootstrap {
            teacher: teacher_of(&student),
            model: student,
            predictor: materialise(Projector::new([size, hidden, size], "predictor", &draw)),
            momentum: self.teacher.momentum,
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

/// Student, teacher, and the distance between what one foretells and the other sees.
#[derive(Module, Debug)]
pub struct Bootstrap<B: Backend> {
    /// The student; the bundle keeps its backbone.
    pub model: Embedder<B, Projector<B>>,
    /// From the student's projection to the teacher's.
    pub predictor: Projector<B>,
    /// Follows the student.
    pub teacher: Embedder<B, Projector<B>>,
    momentum: f64,
}

impl<B: Backend> ImageLoss<B> for Bootstrap<B> {
    const METRICS: &'static [Metric] = &[Metric::LOSS, probe::LINEAR, probe::NEIGHBOURS];
    // Its layers of batch normalisation compare the images of a batch.
    const WHOLE_BATCH: bool = true;

    fn backbone(&self) -> &ImageBackbone<B> {
        &self.model.backbone
    }

    fn loss(&self, batch: &ImageBatch, device: &B::Device) -> LossSums<B> {
        let views: Vec<Tensor<B, 4>> = batch.views.iter().map(|view| view.tensor(device)).collect();
        let projected = |model: &Embedder<B, Projector<B>>, view: &Tensor<B, 4>| {
            let features = model.backbone.forward(view.clone()).pooled;
            model.head.forward(features)
        };
        let foretold = |view| self.predictor.forward(projected(&self.model, view));
        let seen = |view| projected(&self.teacher, view).detach();
        let distances = distances(foretold(&views[0]), seen(&views[1]))
            + distances(foretold(&views[1]), seen(&views[0]));
        LossSums::new(distances.sum(), vec![], batch.views[0].n)
    }

    fn after_step(&self) -> Option<Self> {
        let teacher = averaged(self.teacher.clone(), &self.model, self.momentum);
        Some(Self {
            teacher,
            ..self.clone()
        })
    }

    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model.backbone)
    }
}

/// Squared distance of vectors of length 1, `[batch, 1]`.
///
/// - foretold, seen: `[batch, size]`, of any length
pub fn distances<B: Backend>(foretold: Tensor<B, 2>, seen: Tensor<B, 2>) -> Tensor<B, 2> {
    let cosine = (unit(foretold) * unit(seen)).sum_dim(1);
    cosine * -2.0 + 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    #[test]
    fn distances_and_gradients_are_those_of_torch() {
        let golden = Golden::open("byol");
        let prediction = golden.leaf::<2>("prediction");
        let rows = distances(prediction.clone(), golden.tensor("target"));
        golden.near("rows", rows.clone());
        let loss = rows.mean();
        golden.near("loss", loss.clone());
        let gradient = prediction.grad(&loss.backward()).unwrap();
        golden.near("grad.prediction", gradient);
    }
}
