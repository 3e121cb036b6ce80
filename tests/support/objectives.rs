//! `tests/golden/objectives`, as the unit tests of several crates compare with it.

#![allow(dead_code, reason = "each crate takes what it needs")]

#[path = "golden.rs"]
pub(crate) mod tensors;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::prelude::*;
use burn::tensor::TensorData;
use model::{Names, walk};
use tensors::Tensors;

/// What tests compute on.
pub type Diff = Autodiff<Flex>;

/// How far a value may be from torch's in f64, of 1 or of a tensor's largest value where that is more.
const TOLERANCE: f32 = 2e-5;

/// The file of an objective.
pub struct Golden(Tensors);

impl Golden {
    pub fn open(name: &str) -> Self {
        Self(tensors::golden(&format!("objectives/{name}.safetensors")))
    }

    pub fn values(&self, name: &str) -> &[f32] {
        &self.0[name].1
    }

    /// A single number.
    pub fn number(&self, name: &str) -> f32 {
        self.values(name)[0]
    }

    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<Diff, D> {
        let (shape, values) = self.0[name].clone();
        Tensor::from_data(TensorData::new(values, shape), &Default::default())
    }

    /// One that gradients are taken by.
    pub fn leaf<const D: usize>(&self, name: &str) -> Tensor<Diff, D> {
        self.tensor(name).require_grad()
    }

    /// A module with the values of this file, by Hugging Face name.
    pub fn filled<M: Module<Diff>>(&self, module: M, names: Names) -> M {
        walk::replace(module, names, &mut |path, shape| {
            let (found, values) = self.0[&path.name()].clone();
            assert_eq!(found, shape, "{}", path.name());
            Some(TensorData::new(values, found))
        })
    }

    /// Fails where the gradients of a module's parameters are not the golden ones.
    #[track_caller]
    pub fn near_gradients<M: AutodiffModule<Diff>>(
        &self,
        module: M,
        names: Names,
        loss: Tensor<Diff, 1>,
    ) {
        let ours = tensors::gradients(module, names, &loss.backward());
        let theirs = tensors::under(&self.0, "grad.");
        assert!(ours.keys().eq(theirs.keys()), "names of gradients");
        for (name, theirs) in theirs {
            let tolerance = TOLERANCE * tensors::largest(&theirs).max(1.0);
            tensors::assert_near(&name, &ours[&name], &theirs, tolerance);
        }
    }

    /// Fails where the values are not the golden ones, whatever the shape.
    #[track_caller]
    pub fn near<B: Backend, const D: usize>(&self, name: &str, ours: Tensor<B, D>) {
        let (_, ours) = tensors::values(ours);
        let theirs = self.values(name).to_vec();
        let flat = |values: Vec<f32>| (vec![values.len()], values);
        let (ours, theirs) = (flat(ours), flat(theirs));
        let tolerance = TOLERANCE * tensors::largest(&theirs).max(1.0);
        tensors::assert_near(name, &ours, &theirs, tolerance);
    }
}
