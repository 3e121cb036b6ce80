//! AdamW over named groups of parameters, after clipping by global norm.
//!
//! Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>. Biases, norms and embeddings do not decay. In: gradients
//! of a loss sum and the number of targets it runs over. Out: a module one step on.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsParams, MultiGradientsParams, Optimizer};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{TensorData, TensorPrimitive};
use regex::Regex;
use serde::{Deserialize, Serialize};

use model::bundle::hugging_face_name;

use crate::recipe::Impossible;

/// The `[optimizer]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// Learning rate at the top of the schedule.
    pub lr: f64,
    /// Decay of weights a step, times the rate; biases and norms have none.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Largest global norm of the gradient; 0 never clips.
    pub clip: f64,
}

impl OptimizerRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        let wrong = |name: &str, reason| Err(Impossible::new(format!("optimizer.{name}"), reason));
        let at_least_zero = [
            ("lr", self.lr),
            ("weight_decay", self.weight_decay),
            ("clip", self.clip),
        ];
        for (name, value) in at_least_zero {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(name, format!("is {value}; it must be 0 or more"));
            }
        }
        // At 0, a parameter whose gradient is 0 becomes NaN.
        if !(self.eps.is_finite() && self.eps > 0.0) {
            return wrong("eps", format!("is {}; it must be above 0", self.eps));
        }
        for (name, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return wrong(name, format!("is {value}; it must be in 0..1"));
            }
        }
        Ok(())
    }
}

/// Parameters with a rate of their own, by name.
#[derive(Clone, Debug)]
pub struct Group {
    /// Matches anywhere in a Hugging Face name; the first group that matches counts.
    pub pattern: Regex,
    /// Times the scheduled rate; 0 freezes.
    pub lr_multiplier: f64,
}

/// Stops gradients of the parameters that a group with multiplier 0 matches.
pub fn freeze<B: AutodiffBackend, M: AutodiffModule<B>>(module: M, groups: &[Group]) -> M {
    let mut freezer = Freezer {
        path: Path::default(),
        groups,
    };
    module.map(&mut freezer)
}

/// Hugging Face names of the parameters.
pub fn parameter_names<B: Backend, M: Module<B>>(module: &M) -> Vec<String> {
    let mut namer = Namer {
        path: Path::default(),
        names: Vec::new(),
    };
    module.visit(&mut namer);
    namer.names
}

/// Number of parameters, all and those that train.
pub fn count_parameters<B: Backend, M: Module<B>>(module: &M, groups: &[Group]) -> [usize; 2] {
    let mut counter = Counter {
        path: Path::default(),
        groups,
        counts: [0, 0],
    };
    module.visit(&mut counter);
    counter.counts
}

/// AdamW; clones share one state, which is how the training loop reads and restores it.
#[derive(Clone)]
pub struct AdamW<B: AutodiffBackend> {
    recipe: OptimizerRecipe,
    groups: Arc<Vec<Group>>,
    state: Arc<Mutex<State<B::InnerBackend>>>,
    backend: PhantomData<B>,
}

struct State<B: Backend> {
    taken: i32,
    targets: f64,
    norm: Option<Tensor<B, 1>>,
    moments: HashMap<String, Moments<B>>,
}

struct Moments<B: Backend> {
    first: TensorPrimitive<B>,
    second: TensorPrimitive<B>,
    shape: Vec<usize>,
}

/// Moments of one parameter, on the host.
pub struct HostMoments {
    /// Hugging Face name of the parameter.
    pub name: String,
    /// First moment.
    pub first: TensorData,
    /// Second moment.
    pub second: TensorData,
}

impl<B: AutodiffBackend> AdamW<B> {
    /// An optimizer with no step taken.
    pub fn new(recipe: OptimizerRecipe, groups: Vec<Group>) -> Self {
        let state = State {
            taken: 0,
            targets: 1.0,
            norm: None,
            moments: HashMap::new(),
        };
        Self {
            recipe,
            groups: Arc::new(groups),
            state: Arc::new(Mutex::new(state)),
            backend: PhantomData,
        }
    }

    /// By how many targets the next step's gradients are divided.
    pub fn set_targets(&self, targets: usize) {
        self.lock().targets = targets.max(1) as f64;
    }

    /// Global norm of the last step's gradient, before clipping.
    pub fn norm(&self) -> Option<f64> {
        let norm = self.lock().norm.clone();
        norm.map(|norm| norm.into_scalar().elem())
    }

    /// Everything a checkpoint needs, by name in alphabetical order.
    pub fn moments(&self) -> Vec<HostMoments> {
        let state = self.lock();
        let mut all: Vec<_> = state
            .moments
            .iter()
            .map(|(name, moments)| HostMoments {
                name: name.clone(),
                first: host(&moments.first, &moments.shape),
                second: host(&moments.second, &moments.shape),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Continues from a checkpoint after this many steps.
    pub fn restore(&self, taken: u64, moments: Vec<HostMoments>, device: &B::Device) {
        let mut state = self.lock();
        state.taken = taken as i32;
        state.moments = moments
            .into_iter()
            .map(|host| {
                let shape = host.first.shape.to_vec();
                let tensor = |data: TensorData| {
                    let [n] = [data.num_elements()];
                    let data = TensorData::from_bytes(data.bytes, [n], data.dtype);
                    Tensor::<B::InnerBackend, 1>::from_data(data, device).into_primitive()
                };
                let moments = Moments {
                    first: tensor(host.first),
                    second: tensor(host.second),
                    shape,
                };
                (host.name, moments)
            })
            .collect();
    }

    fn lock(&self) -> MutexGuard<'_, State<B::InnerBackend>> {
        // A panic while holding it has already ended the training.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn host<B: Backend>(tensor: &TensorPrimitive<B>, shape: &[usize]) -> TensorData {
    let data = Tensor::<B, 1>::from_primitive(tensor.clone()).into_data();
    TensorData::from_bytes(data.bytes, shape.to_vec(), data.dtype)
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> Optimizer<M, B> for AdamW<B> {
    // The state is in our own checkpoint, by name.
    type Record = ();

    fn step(&mut self, lr: f64, module: M, mut grads: GradientsParams) -> M {
        let mut state = self.lock();
        state.taken += 1;
        let norm = global_norm(&module, &grads).map(|norm| norm / state.targets);
        let scale = norm.as_ref().map(|norm| {
            let clipped = match self.recipe.clip {
                0.0 => norm.ones_like(),
                limit => ((norm.clone() + 1e-6).recip() * limit).clamp_max(1.0),
            };
            clipped / state.targets
        });
        state.norm = norm;
        match scale {
            Some(scale) => module.map(&mut Stepper::<B> {
                path: Path::default(),
                recipe: &self.recipe,
                groups: &self.groups,
                state: &mut state,
                grads: &mut grads,
                scale,
                lr,
            }),
            None => module,
        }
    }

    fn step_multi(&mut self, _: f64, _: M, _: MultiGradientsParams) -> M {
        unreachable!("the training loop runs on one device")
    }

    fn to_record(&self) -> Self::Record {}

    fn load_record(self, _: Self::Record) -> Self {
        self
    }
}

/// Where a visitor stands in a module.
#[derive(Default)]
struct Path {
    fields: Vec<String>,
}

impl Path {
    /// Hugging Face name, without the wrappers that training puts around a model.
    fn name(&self) -> String {
        hugging_face_name(crate::objective::model_path(&self.fields.join(".")))
    }
}

fn multiplier(groups: &[Group], name: &str) -> f64 {
    let group = groups.iter().find(|group| group.pattern.is_match(name));
    group.map_or(1.0, |group| group.lr_multiplier)
}

/// Matrices decay; biases, norms and embedding tables do not.
fn decays<const D: usize>(name: &str) -> bool {
    D > 1 && !name.contains("embeddings")
}

struct Freezer<'a> {
    path: Path,
    groups: &'a [Group],
}

impl<B: AutodiffBackend> ModuleMapper<B> for Freezer<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.fields.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.fields.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match multiplier(self.groups, &self.path.name()) {
            0.0 => param.set_require_grad(false),
            _ => param,
        }
    }
}

struct Namer {
    path: Path,
    names: Vec<String>,
}

impl<B: Backend> ModuleVisitor<B> for Namer {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.fields.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.fields.pop();
    }

    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<B, D>>) {
        self.names.push(self.path.name());
    }
}

struct Counter<'a> {
    path: Path,
    groups: &'a [Group],
    counts: [usize; 2],
}

impl<B: Backend> ModuleVisitor<B> for Counter<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.fields.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.fields.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let n = param.lazy_shape().num_elements();
        self.counts[0] += n;
        if multiplier(self.groups, &self.path.name()) != 0.0 {
            self.counts[1] += n;
        }
    }
}

/// Norm of all gradients together, `[1]`; nothing if there are none.
fn global_norm<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    grads: &GradientsParams,
) -> Option<Tensor<B::InnerBackend, 1>> {
    struct Squares<'a, B: AutodiffBackend> {
        grads: &'a GradientsParams,
        sum: Option<Tensor<B::InnerBackend, 1>>,
    }
    impl<B: AutodiffBackend> ModuleVisitor<B> for Squares<'_, B> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) {
                let square = (grad.clone() * grad).sum();
                self.sum = Some(match self.sum.take() {
                    Some(sum) => sum + square,
                    None => square,
                });
            }
        }
    }
    let mut squares = Squares::<B> { grads, sum: None };
    module.visit(&mut squares);
    squares.sum.map(Tensor::sqrt)
}

struct Stepper<'a, B: AutodiffBackend> {
    path: Path,
    recipe: &'a OptimizerRecipe,
    groups: &'a [Group],
    state: &'a mut State<B::InnerBackend>,
    grads: &'a mut GradientsParams,
    scale: Tensor<B::InnerBackend, 1>,
    lr: f64,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Stepper<'_, B> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.fields.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.fields.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(grad) = self.grads.remove::<B::InnerBackend, D>(id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let name = self.path.name();
        let lr = self.lr * multiplier(self.groups, &name);
        let requires_grad = tensor.is_require_grad();
        let stepped = self.update(name, tensor.inner(), grad, lr);
        let tensor = Tensor::from_inner(stepped).set_require_grad(requires_grad);
        Param::from_mapped_value(id, tensor, mapper)
    }
}

impl<B: AutodiffBackend> Stepper<'_, B> {
    fn update<const D: usize>(
        &mut self,
        name: String,
        weights: Tensor<B::InnerBackend, D>,
        grad: Tensor<B::InnerBackend, D>,
        lr: f64,
    ) -> Tensor<B::InnerBackend, D> {
        let (shape, n) = (weights.dims(), weights.shape().num_elements());
        let OptimizerRecipe {
            beta1, beta2, eps, ..
        } = *self.recipe;
        let grad = grad.reshape([n]) * self.scale.clone();
        let square = grad.clone() * grad.clone();
        let (first, second) = match self.state.moments.remove(&name) {
            Some(old) => (
                Tensor::<_, 1>::from_primitive(old.first) * beta1 + grad * (1.0 - beta1),
                Tensor::<_, 1>::from_primitive(old.second) * beta2 + square * (1.0 - beta2),
            ),
            None => (grad * (1.0 - beta1), square * (1.0 - beta2)),
        };
        let correction1 = 1.0 - beta1.powi(self.state.taken);
        let correction2 = (1.0 - beta2.powi(self.state.taken)).sqrt();
        let denominator = second.clone().sqrt() * (1.0 / correction2) + eps;
        let change = first.clone() / denominator * (lr / correction1);
        let decays = decays::<D>(&name);
        let moments = Moments {
            first: first.into_primitive(),
            second: second.into_primitive(),
            shape: shape.to_vec(),
        };
        self.state.moments.insert(name, moments);
        let weights = match decays && self.recipe.weight_decay > 0.0 {
            true => weights * (1.0 - lr * self.recipe.weight_decay),
            false => weights,
        };
        weights - change.reshape(shape)
    }
}
