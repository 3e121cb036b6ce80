//! A multilayer perceptron on the pixels of an image. In: images. Out: the values of its last hidden layer.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::{ImagePlan, Pyramid, check_widths};
use crate::layers::{Draw, Linear};
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::Activation;

/// Names of the perceptron in a bundle.
pub const NAMES: Family = Family {
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "HearthMlpModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Pixels,
            class: "HearthMlpAutoencoder",
            renames: &[("", "decoder.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "HearthMlpForImageClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
    ],
    layer: "layers.",
    ..Family::of_images("hearth_mlp")
};

/// `config.json` of a perceptron.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlpConfig {
    /// Channels of an image.
    #[serde(default = "one")]
    pub num_channels: usize,
    /// Height of an image, in pixels.
    #[serde(default = "one")]
    pub image_height: usize,
    /// Width of an image, in pixels.
    #[serde(default = "one")]
    pub image_width: usize,
    /// Width of each hidden layer.
    pub hidden_sizes: Vec<usize>,
    /// Activation after each.
    #[serde(default = "relu")]
    pub hidden_act: Activation,
}

fn one() -> usize {
    1
}
fn relu() -> Activation {
    Activation::Relu
}

impl MlpConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        if self.values() == 0 {
            return Err("an image without pixels".into());
        }
        check_widths(&self.hidden_sizes)
    }

    fn values(&self) -> usize {
        self.num_channels * self.image_height * self.image_width
    }

    /// Values of an image, and widths of the layers.
    fn widths(&self) -> Vec<usize> {
        let first = std::iter::once(self.values());
        first.chain(self.hidden_sizes.iter().copied()).collect()
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        let widths = self.widths();
        let pairs = widths.windows(2);
        ImagePlan {
            channels: self.num_channels,
            size: Some([self.image_height, self.image_width]),
            width: widths[widths.len() - 1],
            levels: Vec::new(),
            parameters: pairs.map(|pair| pair[0] as f64 * pair[1] as f64).sum(),
        }
    }

    /// Fits the model to images of this shape.
    pub fn fit(&mut self, shape: [usize; 3]) {
        [self.num_channels, self.image_height, self.image_width] = shape;
    }

    /// Draws a perceptron; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> Mlp<B> {
        let widths = self.widths();
        let layer = |(number, pair): (usize, &[usize])| {
            draw.uniform_linear(&format!("layers.{number}"), pair[0], pair[1])
        };
        Mlp {
            layers: widths.windows(2).enumerate().map(layer).collect(),
            activation: self.hidden_act,
        }
    }

    /// Draws the mirror image, from the last hidden layer to pixels.
    pub fn init_decoder<B: Backend>(&self, draw: &Draw<'_, B>) -> Decoder<B> {
        let mut widths = self.widths();
        widths.reverse();
        let layer = |(number, pair): (usize, &[usize])| {
            draw.uniform_linear(&format!("layers.{number}"), pair[0], pair[1])
        };
        Decoder {
            layers: widths.windows(2).enumerate().map(layer).collect(),
            shape: [self.num_channels, self.image_height, self.image_width],
            activation: self.hidden_act,
        }
    }
}

/// Linear layers.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// In their order.
    pub layers: Vec<Linear<B>>,
    activation: Activation,
}

impl<B: Backend> Mlp<B> {
    /// The values of the last hidden layer; there are no maps.
    ///
    /// - images: `[batch, num_channels, height, width]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
        let through = |x: Tensor<B, 2>, layer: &Linear<B>| self.activation.apply(layer.forward(x));
        Pyramid {
            levels: Vec::new(),
            pooled: self.layers.iter().fold(images.flatten(1, 3), through),
        }
    }
}

/// Linear layers from a latent vector to an image.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    /// In their order.
    pub layers: Vec<Linear<B>>,
    shape: [usize; 3],
    activation: Activation,
}

impl<B: Backend> Decoder<B> {
    /// Logits of the pixels.
    ///
    /// - states: `[batch, width]`
    /// - out: `[batch, num_channels, height, width]`
    pub fn forward(&self, states: Tensor<B, 2>) -> Tensor<B, 4> {
        let [channels, height, width] = self.shape;
        let batch = states.dims()[0];
        let mut hidden = states;
        for (number, layer) in self.layers.iter().enumerate() {
            if number > 0 {
                hidden = self.activation.apply(hidden);
            }
            hidden = layer.forward(hidden);
        }
        hidden.reshape([batch, channels, height, width])
    }
}
