//! Self-distillation without labels (DINO). In: images. Out: a backbone whose features of a small part of an image are those of the
//! whole.
//!
//! Caron et al. 2021, <https://arxiv.org/abs/2104.14294>. The teacher's momentum and temperature stay the same all the way.

use burn::module::{Initializer, Param};
use burn::prelude::*;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::backend::AutodiffBackend;
use data::augment::Augmentation;
use model::HeadKind;
use model::layers::batch_norm::follow;
use model::layers::{Draw, Linear};
use model::ops::gelu;
use model::registry::ImageBackbone;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::{Augment, ImageModel, PixelBatch};
use train::job::{BundleWriter, Start};
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::probe;
use train::recipe::Impossible;
use train::source::Rows;

use crate::byol::TeacherRecipe;
use crate::images::{ImageBatch, ImageLoss, ImageObjective, ImagePretraining, OfImages, Reader};
use crate::projector::{Embedder, averaged, student, teacher_of, unit};
use crate::simclr::check_temperature;

/// Views that are crops of most of an image, and that the teacher sees.
const GLOBALS: usize = 2;

/// The objective; `assets/recipes/dino.toml` and the files that it names explain every key.
pub type Dino = OfImages<SelfDistillation>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SelfDistillation {
    /// Small parts of an image, which the student alone sees.
    pub crops: CropsRecipe,
    /// What is put behind the backbone.
    pub projector: PrototypesRecipe,
    /// How the teacher follows.
    pub teacher: TeacherRecipe,
    /// How it is judged.
    pub loss: DistillationRecipe,
}

/// `[crops]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CropsRecipe {
    /// Small parts of each image; 0 is none.
    pub local: usize,
    /// How each is cut out and changed, in place of `augment.steps`.
    pub local_steps: Augmentation,
}

/// `[projector]`: layers that the bundle does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrototypesRecipe {
    /// Values between the layers.
    pub hidden: usize,
    /// Values before the last layer.
    pub size: usize,
    /// Values of its output, over which there is a softmax.
    pub prototypes: usize,
}

/// `[loss]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistillationRecipe {
    /// What the student's outputs are divided by.
    pub student_temperature: f64,
    /// What the teacher's are divided by: less, so that it is the surer of the two.
    pub teacher_temperature: f64,
    /// Share of the mean of the teacher's outputs, which is taken from them, that stays at each step.
    pub center_momentum: f64,
}

impl ImagePretraining for SelfDistillation {
    const NAME: &'static str = "dino";
    const ABOUT: &'static str = "a student learns from crops what its teacher sees in whole images";
    const RECIPE: &'static str = include_str!("../../assets/recipes/dino.toml");
    const HEAD: HeadKind = HeadKind::Bare;
    const PLAIN: bool = false;
    const AUGMENTS_VALIDATION: bool = true;

    fn check(&self) -> Result<(), Impossible> {
        let PrototypesRecipe {
            hidden,
            size,
            prototypes,
        } = self.projector;
        let sizes = [
            ("hidden", hidden),
            ("size", size),
            ("prototypes", prototypes),
        ];
        for (key, value) in sizes {
            if value == 0 {
                let key = format!("projector.{key}");
                return Err(Impossible::new(key, "is 0; it must be at least 1"));
            }
        }
        self.teacher.check()?;
        let loss = self.loss;
        check_temperature("loss.student_temperature", loss.student_temperature)?;
        check_temperature("loss.teacher_temperature", loss.teacher_temperature)?;
        let momentum = loss.center_momentum;
        if !(0.0..=1.0).contains(&momentum) {
            let reason = format!("is {momentum}; it must be at least 0 and at most 1");
            return Err(Impossible::new("loss.center_momentum", reason));
        }
        Ok(())
    }

    fn check_model(&self, model: &ImageModel) -> Result<(), Impossible> {
        let [_, height, width] = model.input.shape;
        let steps = &self.crops.local_steps;
        let wrong = |reason| Err(Impossible::new("crops.local_steps", reason));
        if let Err(reason) = steps.check() {
            return wrong(format!("are impossible: {reason}"));
        }
        if steps.size_after(Some([height, width])) != Some([height, width]) {
            return wrong(format!(
                "do not leave images of {height}x{width} as large as they are; a crop without a size does"
            ));
        }
        Ok(())
    }

    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        start: &Start,
        device: &B::Device,
    ) -> Result<ImageObjective<B>, Failure> {
        let width = model.config.describe().width;
        let head = |draw: &Draw<'_, B>| Prototypes::new(width, self.projector, draw);
        let student = student(model, start, device, head)?;
        let center: Param<Tensor<B, 1>> =
            Initializer::Zeros.init([self.projector.prototypes], device);
        Ok(Distillation {
            teacher: teacher_of(&student),
            model: student,
            teacher_mean: center.set_require_grad(false),
            momentum: self.teacher.momentum,
            student_temperature: self.loss.student_temperature,
            teacher_temperature: self.loss.teacher_temperature,
            center_momentum: self.loss.center_momentum,
        }
        .into())
    }

    fn batch(&self, images: &Reader, rows: &Rows, _: &ImageModel) -> ImageBatch {
        let local = Augment {
            shift: 0,
            steps: self.crops.local_steps.clone(),
        };
        let globals = (0..GLOBALS as u64).map(|number| images.view(rows, number));
        let locals = (0..self.crops.local as u64)
            .map(|number| images.view_by(&local, rows, GLOBALS as u64 + number));
        ImageBatch {
            views: globals.chain(locals).collect(),
            ..ImageBatch::default()
        }
    }
}

/// Layers to a vector of length 1, and its cosines with learned directions.
#[derive(Module, Debug)]
pub struct Prototypes<B: Backend> {
    /// `[width, hidden]`
    pub first: Linear<B>,
    /// `[hidden, hidden]`
    pub second: Linear<B>,
    /// `[hidden, size]`
    pub third: Linear<B>,
    /// `[size, prototypes]`; of its columns the direction alone counts.
    pub directions: Param<Tensor<B, 2>>,
}

impl<B: Backend> Prototypes<B> {
    fn new(width: usize, recipe: PrototypesRecipe, draw: &Draw<'_, B>) -> Self {
        let draw = draw.inside("head");
        let PrototypesRecipe {
            hidden,
            size,
            prototypes,
        } = recipe;
        let initializer = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        Self {
            first: draw.uniform_linear("first", width, hidden),
            second: draw.uniform_linear("second", hidden, hidden),
            third: draw.uniform_linear("third", hidden, size),
            directions: initializer.init([size, prototypes], draw.device),
        }
    }

    /// `[batch, width]` to `[batch, prototypes]`
    pub fn forward(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        let hidden = gelu(self.first.forward(features));
        let hidden = gelu(self.second.forward(hidden));
        let rows = unit(self.third.forward(hidden));
        rows.matmul(unit(self.directions.val().transpose()).transpose())
    }
}

/// Student, teacher, and the cross-entropy between their outputs.
#[derive(Module, Debug)]
pub struct Distillation<B: Backend> {
    /// The student.
    pub model: Embedder<B, Prototypes<B>>,
    /// Follows the student; the bundle keeps its backbone.
    pub teacher: Embedder<B, Prototypes<B>>,
    /// Mean of the teacher's outputs, `[prototypes]`; has no gradient.
    pub teacher_mean: Param<Tensor<B, 1>>,
    momentum: f64,
    student_temperature: f64,
    teacher_temperature: f64,
    center_momentum: f64,
}

impl<B: Backend> ImageLoss<B> for Distillation<B> {
    const MEANS: &'static [&'static str] = &["teacher_entropy"];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        // That of one class for all images is 0: the teacher has collapsed.
        Metric::higher("teacher_entropy"),
        probe::LINEAR,
        probe::NEIGHBOURS,
    ];
    // Centre and batch normalisation are of all images of a batch.
    const WHOLE_BATCH: bool = true;

    fn backbone(&self) -> &ImageBackbone<B> {
        &self.teacher.backbone
    }

    fn loss(&self, batch: &ImageBatch, device: &B::Device) -> LossSums<B> {
        let n = batch.views[0].n;
        let all = |views: &[PixelBatch]| {
            let views = views.iter().map(|view| view.tensor(device));
            Tensor::cat(views.collect(), 0)
        };
        let globals = &batch.views[..GLOBALS];
        let features = self.teacher.backbone.forward(all(globals)).pooled;
        let seen = self.teacher.head.forward(features).detach();
        let center = self.teacher_mean.val().detach();
        let [rows, prototypes] = seen.dims();
        let mean = seen.clone().mean_dim(0).reshape([prototypes]);
        follow(&self.teacher_mean, mean, 1.0 - self.center_momentum);
        let targets = teacher_targets(seen, center, self.teacher_temperature);
        let entropy = (targets.clone() * (targets.clone() + 1e-12).log()).sum() * -1.0;
        let features = self.model.backbone.forward(all(&batch.views)).pooled;
        let outputs = self.model.head.forward(features);
        let loss = distillation(outputs, targets, self.student_temperature, n);
        let entropy = entropy * (n as f64 / rows as f64);
        LossSums::new(loss * n as f64, vec![entropy], n)
    }

    fn after_step(&self) -> Option<Self> {
        let teacher = averaged(self.teacher.clone(), &self.model, self.momentum);
        Some(Self {
            teacher,
            ..self.clone()
        })
    }

    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.teacher.backbone)
    }
}

/// What the student is to say, `[views * batch, prototypes]` in and out.
///
/// - center: `[prototypes]`
pub fn teacher_targets<B: Backend>(
    outputs: Tensor<B, 2>,
    center: Tensor<B, 1>,
    temperature: f64,
) -> Tensor<B, 2> {
    softmax((outputs - center.unsqueeze_dim(0)) / temperature, 1)
}

/// Mean cross-entropy over all pairs of a view of the teacher's and another one of the student's, `[1]`.
///
/// - outputs: of the student, `[views * batch, prototypes]`, the teacher's views first
/// - targets: of the teacher, `[global views * batch, prototypes]`
/// - batch: images
pub fn distillation<B: Backend>(
    outputs: Tensor<B, 2>,
    targets: Tensor<B, 2>,
    temperature: f64,
    batch: usize,
) -> Tensor<B, 1> {
    let [rows, prototypes] = outputs.dims();
    let (views, globals) = (rows / batch, targets.dims()[0] / batch);
    let said = log_softmax(outputs / temperature, 1).reshape([views, batch, prototypes]);
    let targets: Tensor<B, 3> = targets.reshape([globals, batch, prototypes]);
    // Of all pairs, without those of the same view: a product with the sum of the other views.
    let all = said.clone().sum_dim(0);
    let others = all.expand([globals, batch, prototypes])
        - said.slice([0..globals, 0..batch, 0..prototypes]);
    let pairs = globals * (views - 1);
    (targets * others).sum() / (-((pairs * batch) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Diff, Golden};

    #[test]
    fn the_loss_and_its_gradient_are_those_of_torch() {
        let golden = Golden::open("dino");
        let student = golden.leaf::<3>("student");
        let [views, batch, prototypes] = student.dims();
        let teacher = golden.tensor::<3>("teacher");
        let [globals, ..] = teacher.dims();
        let teacher = teacher.reshape([globals * batch, prototypes]);
        let center = golden.tensor::<1>("center");
        let temperature = |name: &str| f64::from(golden.number(name));
        let targets = teacher_targets(
            teacher.clone(),
            center.clone(),
            temperature("teacher_temperature"),
        );
        let outputs = student.clone().reshape([views * batch, prototypes]);
        let loss = distillation(outputs, targets, temperature("student_temperature"), batch);
        golden.near("loss", loss.clone());
        golden.near("grad.student", student.grad(&loss.backward()).unwrap());
        let momentum = temperature("center_momentum");
        let mean: Tensor<Diff, 1> = teacher.mean_dim(0).reshape([prototypes]);
        golden.near("center_after", center * momentum + mean * (1.0 - momentum));
    }
}
