//! States of a recurrent model that go on from batch to batch: truncated back-propagation through time. In: what a batch leaves.
//! Out: what the next one begins with.
//!
//! A batch reads the states that the one before it ended with, and no gradient flows through them. They are taken on as
//! statistics of batch norms are: by the step that counts, so that a step that is skipped leaves them where they were, and they
//! are part of each checkpoint.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use burn::tensor::FloatDType;
use model::Cache;
use model::layers::batch_norm::follow;

/// The states of all rows of a batch.
#[derive(Module, Debug)]
pub struct Carried<B: Backend> {
    /// `[layers, batch, width]`; has no gradient.
    pub states: Param<Tensor<B, 3>>,
}

impl<B: Backend> Carried<B> {
    /// Zeros.
    ///
    /// - shape: layers, rows of a batch, and values that a layer leaves of a row
    pub fn new(shape: [usize; 3], device: &B::Device) -> Self {
        let states: Param<Tensor<B, 3>> = Initializer::Zeros.init(shape, device);
        Self {
            states: states.set_require_grad(false),
        }
    }

    /// Zeros in the same parameter.
    pub fn emptied(&self) -> Self {
        Self {
            states: self.states.clone().map(|states| states.zeros_like()),
        }
    }

    /// What a batch begins with.
    ///
    /// - goes_on: where the batch before ended
    pub fn cache(&self, goes_on: bool) -> Cache<B> {
        if goes_on {
            Cache::of_states(self.states.val())
        } else {
            Cache::new(self.layers())
        }
    }

    /// Takes on what a batch left, if its step counts.
    pub fn follow(&self, left: &Cache<B>) {
        if let Some(states) = left.states() {
            let states = states.detach().cast(FloatDType::F32);
            let n = states.shape().num_elements();
            follow(&self.states, states.reshape([n]), 1.0);
        }
    }

    /// Layers of the model.
    pub fn layers(&self) -> usize {
        let [layers, _, _] = self.states.dims();
        layers
    }
}
