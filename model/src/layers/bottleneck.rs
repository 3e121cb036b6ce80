//! Bottleneck adapters: a small network behind a linear layer whose weights stay as they are.
//!
//! Houlsby et al. 2019, <https://arxiv.org/abs/1902.00751>; one a layer, behind the feed-forward block: Pfeiffer et al. 2021,
//! <https://arxiv.org/abs/2005.00247>.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use burn::tensor::activation::relu;

use crate::layers::adapter::Target;
use crate::ops::{dropout, linear};

/// Which linear layers get a bottleneck, and how wide it is.
#[derive(Clone, Debug)]
pub struct BottleneckPlan {
    /// Values between the two projections.
    pub rank: usize,
    /// Share of the adapter's input that is dropped while training.
    pub dropout: f64,
    /// Layers by Hugging Face name; one that matches gets an adapter.
    pub targets: Vec<Target>,
}

/// A projection to few values, ReLU, and a projection back.
#[derive(Module, Debug)]
pub struct Bottleneck<B: Backend> {
    /// `[d_output, rank]`
    pub down: Param<Tensor<B, 2>>,
    /// `[rank]`
    pub down_bias: Param<Tensor<B, 1>>,
    /// `[rank, d_output]`; zero at first, so that the layer starts as it was.
    pub up: Param<Tensor<B, 2>>,
    /// `[d_output]`; zero at first.
    pub up_bias: Param<Tensor<B, 1>>,
    dropout: f64,
}

impl<B: Backend> Bottleneck<B> {
    /// The first matrix as PyTorch draws a linear layer, all else zero.
    ///
    /// - d_output: of the linear layer
    pub fn new(plan: &BottleneckPlan, d_output: usize, device: &B::Device) -> Self {
        let k = 1.0 / (d_output as f64).sqrt();
        let uniform = Initializer::Uniform { min: -k, max: k };
        Self {
            down: uniform.init([d_output, plan.rank], device),
            down_bias: Initializer::Zeros.init([plan.rank], device),
            up: Initializer::Zeros.init([plan.rank, d_output], device),
            up_bias: Initializer::Zeros.init([d_output], device),
            dropout: plan.dropout,
        }
    }

    /// The same, which drops nothing in training either.
    pub fn without_dropout(self) -> Self {
        Self {
            dropout: 0.0,
            ..self
        }
    }

    /// - output: of the linear layer, `[n, d_output]`
    /// - out: `[n, d_output]`
    pub fn adapt(&self, output: Tensor<B, 2>) -> Tensor<B, 2> {
        let input = dropout(output.clone(), self.dropout);
        let few = relu(linear(input, self.down.val(), self.down_bias.val()));
        output + linear(few, self.up.val(), self.up_bias.val())
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn what_passes_the_bottleneck_is_added() {
        let device = Default::default();
        let plan = BottleneckPlan {
            rank: 1,
            dropout: 0.0,
            targets: Vec::new(),
        };
        let output = Tensor::<Flex, 2>::from_data([[1.0, 2.0], [-3.0, 1.0]], &device);
        let fresh = Bottleneck::new(&plan, 2, &device);
        fresh
            .adapt(output.clone())
            .into_data()
            .assert_eq(&output.clone().into_data(), true);
        let matrix = |values: [f32; 2], shape: [usize; 2]| {
            let data = TensorData::new(values.to_vec(), shape);
            Param::from_tensor(Tensor::from_data(data, &device))
        };
        let adapter = Bottleneck {
            down: matrix([1.0, 1.0], [2, 1]),
            down_bias: Param::from_tensor(Tensor::from_data([0.5], &device)),
            up: matrix([2.0, -1.0], [1, 2]),
            up_bias: Param::from_tensor(Tensor::from_data([0.0, 10.0], &device)),
            dropout: 0.0,
        };
        // 1 + 2 + 0.5 = 3.5 passes; -3 + 1 + 0.5 = -1.5 does not.
        let expected = TensorData::from([[8.0f32, 8.5], [-3.0, 11.0]]);
        adapter.adapt(output).into_data().assert_eq(&expected, true);
    }

    #[test]
    fn nothing_is_dropped_where_gradients_are_had_of_a_model_that_is_not_trained() {
        let device = Default::default();
        let plan = BottleneckPlan {
            rank: 1,
            dropout: 0.9,
            targets: Vec::new(),
        };
        let fresh = Bottleneck::<Autodiff<Flex>>::new(&plan, 2, &device);
        let adapter = Bottleneck {
            down: Param::from_tensor(fresh.down.val().ones_like()),
            up: Param::from_tensor(fresh.up.val().ones_like()),
            ..fresh
        };
        let adapted = |adapter: &Bottleneck<Autodiff<Flex>>| -> Vec<f32> {
            let output = adapter.adapt(Tensor::ones([50, 2], &device));
            output.into_data().iter::<f32>().collect()
        };
        // 1 + (1 + 1).
        assert!(adapted(&adapter).iter().any(|&value| value != 3.0));
        let adapter = adapter.without_dropout();
        assert!(adapted(&adapter).iter().all(|&value| value == 3.0));
    }
}
