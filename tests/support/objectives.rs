//! `tests/golden/objectives`, as the unit tests of several crates compare with it.

#![allow(dead_code, reason = "each crate takes what it needs")]

#[path = "golden.rs"]
mod tensors;

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::TensorData;
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
