//! The optimizer: clips by global norm, skips what is not finite, and changes each parameter by its rule.
//!
//! In: gradients of a loss sum and the weight of the targets it runs over. Out: a module one step on.
//!
//! Whether a step is finite is read at once, or, on a device that works behind the program's back, decided there: then
//! nothing waits for it, and loss and norm of the step can be read later.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsParams, MultiGradientsParams, Optimizer as BurnOptimizer};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use model::Names;
use model::walk::ModulePath;

use crate::optim::groups::{Group, GroupRules};
pub use crate::optim::groups::{GroupRecipe, Groups};
pub use crate::optim::update::OptimizerKind;
use crate::optim::update::{Rule, SLOTS, Slots, is_hidden_matrix};
use crate::recipe::Impossible;

/// The `[optimizer]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// Which rule.
    pub kind: OptimizerKind,
    /// Learning rate at the top of the schedule.
    pub lr: f64,
    /// Decay of weights; biases, norms and embeddings have none.
    pub weight_decay: f64,
    /// Of SGD and Muon.
    pub momentum: f64,
    /// Of SGD and Muon.
    pub nesterov: bool,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Largest global norm of the gradient; 0 never clips.
    pub clip: f64,
    /// Times the rate for every layer further from the head; 1 is the same rate everywhere.
    pub layer_decay: f64,
    /// Steps after which one more layer trains, from the head down; 0 trains all from the start.
    pub unfreeze_every: u64,
    /// Parameters whose rates and decays differ.
    pub groups: Vec<GroupRecipe>,
}

impl OptimizerRecipe {
    /// AdamW at this rate, without decay of weights and without clipping.
    pub fn adamw(lr: f64) -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            lr,
            weight_decay: 0.0,
            momentum: 0.9,
            nesterov: false,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            clip: 0.0,
            layer_decay: 1.0,
            unfreeze_every: 0,
            groups: Vec::new(),
        }
    }

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
        let below_one = [
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("momentum", self.momentum),
        ];
        for (name, value) in below_one {
            if !(0.0..1.0).contains(&value) {
                return wrong(name, format!("is {value}; it must be in 0..1"));
            }
        }
        let nesterov = self.nesterov && self.momentum == 0.0;
        if nesterov && self.kind == OptimizerKind::Sgd {
            return wrong(
                "nesterov",
                "looks ahead by optimizer.momentum, which is 0".into(),
            );
        }
        if self.layer_decay > 0.0 && self.layer_decay <= 1.0 {
            Ok(())
        } else {
            wrong(
                "layer_decay",
                format!("is {}; it must be above 0 and at most 1", self.layer_decay),
            )
        }
    }

    /// The settings of a model's parameters, with those of a fine-tuning strategy.
    ///
    /// # Errors
    ///
    /// As [`Groups::new`].
    pub fn groups<B: Backend, M: Module<B>>(
        &self,
        strategy: &[Group],
        module: &M,
        names: Names,
    ) -> Result<Groups, Impossible> {
        let rules = GroupRules {
            recipe: &self.groups,
            strategy,
            weight_decay: self.weight_decay,
            layer_decay: self.layer_decay,
            unfreeze_every: self.unfreeze_every,
        };
        Groups::new(&rules, module, names)
    }
}

/// An optimizer; clones share one state, which is how the training loop reads and restores it.
#[derive(Clone)]
pub struct Optimizer<B: AutodiffBackend> {
    recipe: OptimizerRecipe,
    groups: Arc<Groups>,
    state: Arc<Mutex<State<B::InnerBackend>>>,
    backend: PhantomData<B>,
}

struct State<B: Backend> {
    /// Of the schedule: skipped steps count.
    step: u64,
    weight: f64,
    norm: f64,
    /// The mean loss of a step that the device is to judge, `[1]`.
    loss: Option<Tensor<B, 1>>,
    /// Loss and norm of the step, `[2]`.
    outcome: Option<Tensor<B, 1>>,
    parameters: HashMap<String, ParameterState<B>>,
}

/// What gradients are multiplied by: the mean over targets, clipped.
enum Scale<B: Backend> {
    Known(f64),
    /// On the device, `[1]`; and whether the step is finite, for where it is not, nothing changes.
    Unread(Tensor<B, 1>, Tensor<B, 1, Bool>),
}

struct ParameterState<B: Backend> {
    taken: i32,
    shape: Vec<usize>,
    slots: Slots<B>,
}

/// A tensor on the host, with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// In a checkpoint.
    pub name: String,
    /// Its values.
    pub data: TensorData,
}

impl<B: AutodiffBackend> Optimizer<B> {
    /// An optimizer with no step taken.
    pub fn new(recipe: OptimizerRecipe, groups: Groups) -> Self {
        let state = State {
            step: 0,
            weight: 1.0,
            norm: 0.0,
            loss: None,
            outcome: None,
            parameters: HashMap::new(),
        };
        Self {
            recipe,
            groups: Arc::new(groups),
            state: Arc::new(Mutex::new(state)),
            backend: PhantomData,
        }
    }

    /// What the next step is: its index, counted from 0, and the weight that its gradients are divided by.
    pub fn prepare(&self, step: u64, weight: f64) {
        let mut state = self.lock();
        state.step = step;
        state.weight = weight;
    }

    /// [`prepare`](Self::prepare) for a step that the device judges, by its mean loss, `[1]`, and its gradient; after it
    /// [`outcome`](Self::outcome) has both.
    pub fn prepare_unread(&self, step: u64, weight: f64, loss: Tensor<B::InnerBackend, 1>) {
        self.prepare(step, weight);
        self.lock().loss = Some(loss);
    }

    /// Mean loss and global norm of the last step, `[2]`, if it was one that the device judged.
    pub fn outcome(&self) -> Option<Tensor<B::InnerBackend, 1>> {
        self.lock().outcome.take()
    }

    /// Learns of steps that the device judged: their last norm, and the indices of those that changed nothing.
    pub fn settle(&self, norm: f64, skipped: &[u64]) {
        let mut state = self.lock();
        state.norm = norm;
        for (name, parameter) in &mut state.parameters {
            let setting = self.groups.setting(name);
            let trains_from = setting.map_or(0, |setting| setting.unfreeze_at);
            let steps = skipped.iter().filter(|step| **step >= trains_from);
            parameter.taken -= steps.count() as i32;
        }
    }

    /// Global norm of the last step's gradient that was read, before clipping; not finite if the step was skipped.
    pub fn norm(&self) -> f64 {
        self.lock().norm
    }

    /// The settings of the parameters.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Everything a checkpoint needs, by name in alphabetical order, and the steps taken by parameter.
    pub fn save(&self) -> (Vec<HostTensor>, HashMap<String, i32>) {
        let state = self.lock();
        let mut tensors = Vec::new();
        for (name, ParameterState { shape, slots, .. }) in &state.parameters {
            for (slot, tensor) in slots {
                let data = tensor.clone().into_data();
                let shape = if data.num_elements() == shape.iter().product::<usize>() {
                    shape.clone()
                } else {
                    vec![data.num_elements()]
                };
                tensors.push(HostTensor {
                    name: format!("{slot}.{name}"),
                    data: TensorData::from_bytes(data.bytes, shape, data.dtype),
                });
            }
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let taken = |(name, state): (&String, &ParameterState<_>)| (name.clone(), state.taken);
        (tensors, state.parameters.iter().map(taken).collect())
    }

    /// Continues from what [`save`](Self::save) gave.
    pub fn restore(
        &self,
        tensors: Vec<HostTensor>,
        taken: &HashMap<String, i32>,
        device: &B::Device,
    ) {
        let mut parameters: HashMap<String, ParameterState<B::InnerBackend>> = HashMap::new();
        for HostTensor { name, data } in tensors {
            let Some((slot, name)) = name.split_once('.') else {
                continue;
            };
            let Some(slot) = SLOTS.iter().find(|have| **have == slot) else {
                continue;
            };
            let shape = data.shape.to_vec();
            let flat =
                TensorData::from_bytes(data.bytes, [shape.iter().product::<usize>()], data.dtype);
            let state = parameters
                .entry(name.into())
                .or_insert_with(|| ParameterState {
                    taken: taken.get(name).copied().unwrap_or_default(),
                    shape,
                    slots: Slots::new(),
                });
            state.slots.push((slot, Tensor::from_data(flat, device)));
        }
        // Plain SGD has steps but no slots.
        for (name, &taken) in taken {
            parameters
                .entry(name.clone())
                .or_insert_with(|| ParameterState {
                    taken,
                    shape: Vec::new(),
                    slots: Slots::new(),
                });
        }
        self.lock().parameters = parameters;
    }

    fn lock(&self) -> MutexGuard<'_, State<B::InnerBackend>> {
        // A panic while holding it has already ended the training.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What gradients of this norm are multiplied by; nothing if it is not finite.
    fn known(&self, norm: f64, weight: f64) -> Option<Scale<B::InnerBackend>> {
        let clipped = match self.recipe.clip {
            0.0 => 1.0,
            limit => (limit / (norm + 1e-6)).min(1.0),
        };
        norm.is_finite().then(|| Scale::Known(clipped / weight))
    }

    /// The same on the device.
    fn unread(
        &self,
        norm: Tensor<B::InnerBackend, 1>,
        loss: Tensor<B::InnerBackend, 1>,
        weight: f64,
    ) -> Scale<B::InnerBackend> {
        let finite = (norm.clone() + loss).is_finite();
        let clipped = match self.recipe.clip {
            0.0 => norm.ones_like(),
            // Not a reciprocal: ndarray has those to 12 bits alone.
            limit => (norm.full_like(limit) / (norm + 1e-6)).clamp_max(1.0),
        };
        Scale::Unread(clipped / weight, finite)
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> BurnOptimizer<M, B> for Optimizer<B> {
    // The state is in our own checkpoint, by name.
    type Record = ();

    fn step(&mut self, lr: f64, module: M, mut grads: GradientsParams) -> M {
        let mut state = self.lock();
        let norm = global_norm(&module, &grads, &self.groups, state.step);
        let scale = match (state.loss.take(), norm) {
            (Some(loss), Some(norm)) => {
                let norm = norm / state.weight;
                state.outcome = Some(Tensor::cat(vec![loss.clone(), norm.clone()], 0));
                Some(self.unread(norm, loss, state.weight))
            }
            (Some(loss), None) => {
                let norm = loss.zeros_like();
                state.outcome = Some(Tensor::cat(vec![loss, norm], 0));
                None
            }
            (None, norm) => {
                let norm = norm.map_or(0.0, |norm| norm.into_scalar().elem::<f64>());
                state.norm = norm / state.weight;
                self.known(state.norm, state.weight)
            }
        };
        let Some(scale) = scale else {
            return module;
        };
        module.map(&mut Stepper::<B> {
            path: self.groups.path(),
            recipe: &self.recipe,
            groups: &self.groups,
            state: &mut state,
            grads: &mut grads,
            scale,
            lr,
        })
    }

    fn step_multi(&mut self, _: f64, _: M, _: MultiGradientsParams) -> M {
        unreachable!("the training loop runs on one device")
    }

    fn to_record(&self) -> Self::Record {}

    fn load_record(self, _: Self::Record) -> Self {
        self
    }
}

/// Norm of all gradients that are used at this step together, `[1]`, if there are any.
fn global_norm<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    grads: &GradientsParams,
    groups: &Groups,
    step: u64,
) -> Option<Tensor<B::InnerBackend, 1>> {
    struct Squares<'a, B: AutodiffBackend> {
        path: ModulePath,
        grads: &'a GradientsParams,
        groups: &'a Groups,
        step: u64,
        sum: Option<Tensor<B::InnerBackend, 1>>,
    }
    impl<B: AutodiffBackend> ModuleVisitor<B> for Squares<'_, B> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) else {
                return;
            };
            let setting = self.groups.setting(&self.path.name());
            if setting.is_some_and(|setting| setting.unfreeze_at > self.step) {
                return;
            }
            let square = (grad.clone() * grad).sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
    let mut squares = Squares::<B> {
        path: groups.path(),
        grads,
        groups,
        step,
        sum: None,
    };
    module.visit(&mut squares);
    squares.sum.map(Tensor::sqrt)
}

struct Stepper<'a, B: AutodiffBackend> {
    path: ModulePath,
    recipe: &'a OptimizerRecipe,
    groups: &'a Groups,
    state: &'a mut State<B::InnerBackend>,
    grads: &'a mut GradientsParams,
    scale: Scale<B::InnerBackend>,
    lr: f64,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Stepper<'_, B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(grad) = self.grads.remove::<B::InnerBackend, D>(id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let requires_grad = tensor.is_require_grad();
        let shape = tensor.dims();
        let n = tensor.shape().num_elements();
        let stepped = self.update(tensor.inner().reshape([n]), grad.reshape([n]), &shape);
        let tensor = Tensor::from_inner(stepped.reshape(shape)).set_require_grad(requires_grad);
        Param::from_mapped_value(id, tensor, mapper)
    }
}

impl<B: AutodiffBackend> Stepper<'_, B> {
    fn update(
        &mut self,
        weights: Tensor<B::InnerBackend, 1>,
        gradient: Tensor<B::InnerBackend, 1>,
        shape: &[usize],
    ) -> Tensor<B::InnerBackend, 1> {
        let name = self.path.name();
        let setting = self.groups.setting(&name);
        if setting.is_some_and(|setting| setting.unfreeze_at > self.state.step) {
            return weights;
        }
        let fresh = || ParameterState {
            taken: 0,
            shape: shape.to_vec(),
            slots: Slots::new(),
        };
        let mut rule = Rule {
            kind: self.recipe.kind,
            lr: self.lr * setting.map_or(1.0, |setting| setting.lr_multiplier),
            weight_decay: setting.map_or(0.0, |setting| setting.weight_decay),
            momentum: self.recipe.momentum,
            nesterov: self.recipe.nesterov,
            beta1: self.recipe.beta1,
            beta2: self.recipe.beta2,
            eps: self.recipe.eps,
            taken: 0,
            scale: 1.0,
        };
        let orthogonal = rule.kind == OptimizerKind::Muon && is_hidden_matrix(&name, shape);
        let state = self.state.parameters.entry(name).or_insert_with(fresh);
        state.taken += 1;
        rule.taken = state.taken;
        let step = |rule: Rule, weights, gradient, slots: &mut Slots<_>| match (orthogonal, shape) {
            (true, &[rows, columns]) => {
                rule.orthogonal_step(weights, gradient, [rows, columns], slots)
            }
            _ => rule.step(weights, gradient, shape, slots),
        };
        match &self.scale {
            Scale::Known(scale) => {
                rule.scale = *scale;
                step(rule, weights, gradient, &mut state.slots)
            }
            Scale::Unread(scale, finite) => {
                let (old, gradient) = (state.slots.clone(), gradient * scale.clone());
                let stepped = step(rule, weights.clone(), gradient, &mut state.slots);
                for (name, new) in &mut state.slots {
                    let old = old.iter().find(|(have, _)| have == name);
                    let old = old.map_or_else(|| new.zeros_like(), |(_, old)| old.clone());
                    *new = if_finite(finite, old, new.clone());
                }
                if_finite(finite, weights, stepped)
            }
        }
    }
}

/// The new values, `[n]`, if the step is finite; else the old ones.
fn if_finite<B: Backend>(
    finite: &Tensor<B, 1, Bool>,
    old: Tensor<B, 1>,
    new: Tensor<B, 1>,
) -> Tensor<B, 1> {
    let all = finite.clone().expand([new.shape().num_elements()]);
    old.mask_where(all, new)
}
