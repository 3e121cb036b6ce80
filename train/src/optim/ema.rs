//! An exponential moving average of weights: smoother than the last step, and often better.
//!
//! In: the model after each step. Out: a model of averages, which is what validation and the bundle see. As torch's
//! `AveragedModel` with `get_ema_multi_avg_fn`: the first step copies. Polyak and Juditsky 1992,
//! <https://doi.org/10.1137/0330046>.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::prelude::*;
use burn::tensor::TensorData;

use model::Names;
use model::walk::ModulePath;

use crate::optim::optimizer::HostTensor;

/// Averages by Hugging Face name.
#[derive(Clone, Debug)]
pub struct Ema<B: Backend> {
    decay: f64,
    names: Names,
    left_out: Option<ParamId>,
    averages: HashMap<String, Average<B>>,
}

#[derive(Clone, Debug)]
struct Average<B: Backend> {
    /// Flattened.
    values: Tensor<B, 1>,
    shape: Vec<usize>,
}

impl<B: Backend> Ema<B> {
    /// Nothing averaged yet.
    ///
    /// - decay: share of the old average that stays, 0 to 1
    pub fn new(decay: f64, names: Names) -> Self {
        Self {
            decay,
            names,
            left_out: None,
            averages: HashMap::new(),
        }
    }

    /// The same that leaves a parameter out, which is no weight.
    pub fn without(self, param: Option<ParamId>) -> Self {
        Self {
            left_out: param,
            ..self
        }
    }

    /// Takes in the weights after a step.
    pub fn update<M: Module<B>>(&mut self, module: &M) {
        let path = ModulePath::new(self.names);
        module.visit(&mut Updater { path, ema: self });
    }

    /// The module with averages for weights.
    pub fn apply<M: Module<B>>(&self, module: M) -> M {
        let path = ModulePath::new(self.names);
        module.map(&mut Applier { path, ema: self })
    }

    /// Everything a checkpoint needs, by name in alphabetical order.
    pub fn save(&self) -> Vec<HostTensor> {
        let host = |(name, Average { values, shape }): (&String, &Average<B>)| {
            let data = values.clone().into_data();
            HostTensor {
                name: name.clone(),
                data: TensorData::from_bytes(data.bytes, shape.clone(), data.dtype),
            }
        };
        let mut all: Vec<_> = self.averages.iter().map(host).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Continues from what [`save`](Self::save) gave.
    pub fn restore(&mut self, tensors: Vec<HostTensor>, device: &B::Device) {
        let average = |HostTensor { name, data }: HostTensor| {
            let shape = data.shape.to_vec();
            let flat =
                TensorData::from_bytes(data.bytes, [shape.iter().product::<usize>()], data.dtype);
            let values = Tensor::from_data(flat, device);
            (name, Average { values, shape })
        };
        self.averages = tensors.into_iter().map(average).collect();
    }
}

struct Updater<'a, B: Backend> {
    path: ModulePath,
    ema: &'a mut Ema<B>,
}

impl<B: Backend> ModuleVisitor<B> for Updater<'_, B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.ema.left_out == Some(param.id) {
            return;
        }
        let weights = param.val();
        let shape = weights.dims().to_vec();
        let new = weights.reshape([shape.iter().product::<usize>()]);
        let name = self.path.name();
        let values = match self.ema.averages.remove(&name) {
            Some(old) => old.values * self.ema.decay + new * (1.0 - self.ema.decay),
            None => new,
        };
        self.ema.averages.insert(name, Average { values, shape });
    }
}

struct Applier<'a, B: Backend> {
    path: ModulePath,
    ema: &'a Ema<B>,
}

impl<B: Backend> ModuleMapper<B> for Applier<'_, B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let tensor = match self.ema.averages.get(&self.path.name()) {
            Some(average) => average.values.clone().reshape(tensor.dims()),
            None => tensor,
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}
