//! What joint-embedding objectives put behind a backbone while they train; a bundle does not keep it.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::activation::relu;
use model::HeadKind;
use model::bundle::Load;
use model::heads::Headed;
use model::layers::batch_norm::BatchNorm;
use model::layers::{Draw, Linear, materialise};
use model::registry::ImageBackbone;
use train::Failure;
use train::job::Start;
use train::job::image::ImageModel;

/// Two linear layers with batch normalisation and a rectifier between them.
#[derive(Module, Debug)]
pub struct Projector<B: Backend> {
    /// `[width, hidden]`
    pub first: Linear<B>,
    /// Of the hidden values.
    pub norm: BatchNorm<B>,
    /// `[hidden, output]`
    pub second: Linear<B>,
}

impl<B: Backend> Projector<B> {
    /// Draws one; `name` is its path in the model.
    pub fn new([width, hidden, output]: [usize; 3], name: &str, draw: &Draw<'_, B>) -> Self {
        let draw = draw.inside(name);
        Self {
            first: draw.uniform_linear("first", width, hidden),
            norm: draw.batch_norm(hidden),
            second: draw.uniform_linear("second", hidden, output),
        }
    }

    /// `[batch, width]` to `[batch, output]`
    pub fn forward(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        let hidden = self.norm.forward(self.first.forward(features));
        self.second.forward(relu(hidden))
    }
}

/// Rows of length 1, `[batch, width]` in and out, computed in f32.
pub fn unit<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let rows = rows.cast(FloatDType::F32);
    let squares = (rows.clone() * rows.clone()).sum_dim(1);
    // The root of zero has no finite gradient.
    rows / squares.clamp_min(1e-24).sqrt()
}

/// A backbone with what is put behind it: a student, or its teacher.
pub type Embedder<B, H> = Headed<B, ImageBackbone<B>, H>;

/// Draws a backbone, loads what it starts from, and draws what is put behind it, which no bundle has.
///
/// # Errors
///
/// A bundle whose weights do not fit.
pub fn student<B: Backend, H: Module<B>>(
    model: &ImageModel,
    start: &Start,
    device: &B::Device,
    head: impl FnOnce(&Draw<'_, B>) -> H,
) -> Result<Embedder<B, H>, Failure> {
    let names = model.config.names(HeadKind::Bare);
    let draw = start.draw(device, names);
    let backbone = start.fill(model.config.init(&draw), names, Load::Backbone)?;
    Ok(Headed::new(backbone, materialise(head(&draw))))
}

/// A copy of a module: new parameters with the same values, without gradients.
pub fn teacher_of<B: Backend, M: Module<B>>(student: &M) -> M {
    struct Anew;
    impl<B: Backend> ModuleMapper<B> for Anew {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            Param::from_tensor(param.val().detach()).set_require_grad(false)
        }
    }
    student.clone().map(&mut Anew)
}

/// A teacher whose weights are an average of its student's: `momentum * teacher + (1 - momentum) * student`.
///
/// Both are modules of the same make; the teacher's parameters keep their ids, and have no gradient.
pub fn averaged<B: Backend, M: Module<B>>(teacher: M, student: &M, momentum: f64) -> M {
    struct Values<B: Backend>(Vec<Tensor<B, 1>>);
    impl<B: Backend> ModuleVisitor<B> for Values<B> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let values = param.val().detach();
            let n = values.shape().num_elements();
            self.0.push(values.reshape([n]));
        }
    }
    struct Average<B: Backend> {
        student: std::vec::IntoIter<Tensor<B, 1>>,
        momentum: f64,
    }
    impl<B: Backend> ModuleMapper<B> for Average<B> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let Some(student) = self.student.next() else {
                return param;
            };
            let (id, tensor, mapper) = param.consume();
            let student = student.reshape(tensor.shape());
            let teacher = tensor.detach() * self.momentum + student * (1.0 - self.momentum);
            Param::from_mapped_value(id, teacher.set_require_grad(false), mapper)
        }
    }
    let mut values = Values(Vec::new());
    student.visit(&mut values);
    teacher.map(&mut Average {
        student: values.0.into_iter(),
        momentum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;

    use crate::golden::Diff;

    #[test]
    fn a_teacher_follows_and_keeps_its_ids() {
        let device = Default::default();
        let draw = Draw::<Diff>::new(&device, 0.02);
        let one = || Projector::new([3, 4, 2], "head", &draw);
        let (first, student) = (one(), one());
        let teacher = teacher_of(&first);
        let ids =
            |module: &Projector<Diff>| -> Vec<ParamId> { burn::module::list_param_ids(module) };
        let before = ids(&teacher);
        assert!(before.iter().all(|id| !ids(&first).contains(id)));
        let expected =
            teacher.first.weight.val().inner() * 0.75 + student.first.weight.val().inner() * 0.25;
        let after = averaged(teacher, &student, 0.75);
        assert_eq!(ids(&after), before);
        let weight = after.first.weight.val();
        assert!(!weight.is_require_grad());
        let off = (weight.inner() - expected).abs().max().into_scalar();
        assert!(off < 1e-7, "{off}");
    }
}
