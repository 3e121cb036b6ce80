//! A convolution of images, drawn as residual networks are.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;

use crate::layers::Draw;
use crate::layers::batch_norm::BatchNorm;
use crate::ops::{Activation, Geometry, conv2d};

/// A convolution; a bundle holds the weight as PyTorch's `Conv2d`.
#[derive(Module, Debug)]
pub struct Convolution<B: Backend> {
    /// `[d_output, d_input / groups, kernel_height, kernel_width]`
    pub weight: Param<Tensor<B, 4>>,
    /// `[d_output]`
    pub bias: Option<Param<Tensor<B, 1>>>,
    geometry: Geometry,
}

impl<B: Backend> Convolution<B> {
    /// Weights from N(0, `std`), without a bias.
    pub fn normal(
        [d_input, d_output]: [usize; 2],
        kernel: [usize; 2],
        geometry: Geometry,
        std: f64,
        device: &B::Device,
    ) -> Self {
        let shape = [d_output, d_input / geometry.groups, kernel[0], kernel[1]];
        Self {
            weight: Initializer::Normal { mean: 0.0, std }.init(shape, device),
            bias: None,
            geometry,
        }
    }

    /// Weights from N(0, 2 / (`d_output` kernel)), without a bias: He et al. 2015, <https://arxiv.org/abs/1502.01852>, by
    /// the outputs, as residual networks are initialised.
    pub fn he(
        widths: [usize; 2],
        kernel: [usize; 2],
        geometry: Geometry,
        device: &B::Device,
    ) -> Self {
        let fan_out = (widths[1] * kernel[0] * kernel[1]) as f64;
        Self::normal(widths, kernel, geometry, (2.0 / fan_out).sqrt(), device)
    }

    /// The same with a bias of zero.
    pub fn with_bias(self) -> Self {
        let d_output = self.weight.lazy_shape()[0];
        let device = self.weight.lazy_device();
        Self {
            bias: Some(Initializer::Zeros.init([d_output], &device)),
            ..self
        }
    }

    /// - images: `[batch, d_input, height, width]`
    /// - out: `[batch, d_output, (height + 2 padding - kernel) / stride + 1, ...]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        // The first layer's input is in 32 bits, whatever the weights are.
        conv2d(images.cast(weight.dtype()), weight, bias, self.geometry)
    }
}

/// A convolution without a bias, batch normalisation, and perhaps an activation.
#[derive(Module, Debug)]
pub struct NormedConvolution<B: Backend> {
    /// First.
    pub convolution: Convolution<B>,
    /// Of what it gives.
    pub normalization: BatchNorm<B>,
    activation: Option<Activation>,
}

impl<B: Backend> NormedConvolution<B> {
    /// A square kernel that leaves the size as it is but for its stride.
    pub fn new(
        widths: [usize; 2],
        kernel: usize,
        stride: usize,
        activation: Option<Activation>,
        draw: &Draw<'_, B>,
    ) -> Self {
        let geometry = Geometry::new([stride; 2], [kernel / 2; 2]);
        Self::with(
            Convolution::he(widths, [kernel; 2], geometry, draw.device),
            draw.batch_norm(widths[1]),
            activation,
        )
    }

    /// Of these layers.
    pub fn with(
        convolution: Convolution<B>,
        normalization: BatchNorm<B>,
        activation: Option<Activation>,
    ) -> Self {
        Self {
            convolution,
            normalization,
            activation,
        }
    }

    /// `[batch, d_input, height, width]` to `[batch, d_output, height / stride, width / stride]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let normal = self.normalization.forward(self.convolution.forward(images));
        match self.activation {
            Some(activation) => activation.apply(normal),
            None => normal,
        }
    }
}
