//! U-Net: an encoder and a decoder of convolutions, each level of one joined to that of the other.
//!
//! Ronneberger et al. 2015, <https://arxiv.org/abs/1505.04597>, with padding and batch normalisation. In: images. Out: maps of
//! each level of the decoder, the finest first as large as the image.

use burn::module::{Initializer, Param};
use burn::prelude::*;
use burn::tensor::ops::PadMode;
use serde::{Deserialize, Serialize};

use crate::families::{ImagePlan, Pyramid, check_sizes, check_widths};
use crate::layers::{Draw, NormedConvolution};
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::{Activation, Geometry, conv_transpose2d, global_avg_pool, max_pool2d};

/// Names of the U-Net in a bundle.
pub const NAMES: Family = Family {
    renames: &[
        (".convolutions.", "."),
        (".first.", ".0."),
        (".second.", ".1."),
    ],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "HearthUNetModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "HearthUNetForImageClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
    ],
    layer: "down.",
    ignored: &["num_batches_tracked"],
    first: "down.0.0.convolution.weight",
    ..Family::of_images("hearth_unet")
};

/// `config.json` of a U-Net.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UNetConfig {
    /// Channels of an image.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Channels of each level; each but the first is half as large as the one before.
    pub hidden_sizes: Vec<usize>,
}

fn three() -> usize {
    3
}

impl UNetConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[("num_channels", self.num_channels)])?;
        check_widths(&self.hidden_sizes)
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        let widths = &self.hidden_sizes;
        let mut input = self.num_channels as f64;
        let mut parameters = 0.0;
        for (level, &width) in widths.iter().enumerate() {
            let width = width as f64;
            parameters += 9.0 * width * (input + width);
            if level + 1 < widths.len() {
                let below = widths[level + 1] as f64;
                parameters += 4.0 * below * width + 27.0 * width * width;
            }
            input = width;
        }
        ImagePlan {
            channels: self.num_channels,
            size: None,
            width: widths[widths.len() - 1],
            levels: widths.clone(),
            parameters,
        }
    }

    /// Fits the model to images of this shape.
    pub fn fit(&mut self, [channels, ..]: [usize; 3]) {
        self.num_channels = channels;
    }

    /// Draws a network; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> UNet<B> {
        let widths = &self.hidden_sizes;
        let inputs = std::iter::once(&self.num_channels).chain(widths);
        let down = inputs
            .zip(widths)
            .map(|(&input, &width)| Level::new(input, width, draw));
        let up = widths.windows(2).rev().map(|pair| Up {
            upsample: Upsample::new([pair[1], pair[0]], draw.device),
            convolutions: Level::new(2 * pair[0], pair[0], draw),
        });
        UNet {
            down: down.collect(),
            up: up.collect(),
        }
    }
}

/// A U-Net without its last layer.
#[derive(Module, Debug)]
pub struct UNet<B: Backend> {
    /// From the image to the coarsest level.
    pub down: Vec<Level<B>>,
    /// And back.
    pub up: Vec<Up<B>>,
}

/// Two convolutions of 3x3.
#[derive(Module, Debug)]
pub struct Level<B: Backend> {
    /// To the level's width.
    pub first: NormedConvolution<B>,
    /// In it.
    pub second: NormedConvolution<B>,
}

impl<B: Backend> Level<B> {
    fn new(input: usize, width: usize, draw: &Draw<'_, B>) -> Self {
        let relu = Some(Activation::Relu);
        Self {
            first: NormedConvolution::new([input, width], 3, 1, relu, draw),
            second: NormedConvolution::new([width; 2], 3, 1, relu, draw),
        }
    }

    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        self.second.forward(self.first.forward(images))
    }
}

/// A level of the decoder.
#[derive(Module, Debug)]
pub struct Up<B: Backend> {
    /// To the size of the level above.
    pub upsample: Upsample<B>,
    /// Of both, the encoder's maps first.
    pub convolutions: Level<B>,
}

/// A transposed convolution of 2x2, stride 2; a bundle holds the weight as PyTorch's `ConvTranspose2d`.
#[derive(Module, Debug)]
pub struct Upsample<B: Backend> {
    /// `[d_input, d_output, 2, 2]`
    pub weight: Param<Tensor<B, 4>>,
    /// `[d_output]`
    pub bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> Upsample<B> {
    fn new([d_input, d_output]: [usize; 2], device: &B::Device) -> Self {
        let k = 1.0 / ((4 * d_output) as f64).sqrt();
        let uniform = Initializer::Uniform { min: -k, max: k };
        Self {
            weight: uniform.init([d_input, d_output, 2, 2], device),
            bias: uniform.init([d_output], device),
        }
    }

    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let doubling = Geometry::new([2, 2], [0, 0]);
        let bias = Some(self.bias.val());
        conv_transpose2d(images, self.weight.val(), bias, doubling, [0, 0])
    }
}

impl<B: Backend> UNet<B> {
    /// Maps of the decoder's levels, and the mean of the coarsest one.
    ///
    /// - images: `[batch, num_channels, height, width]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
        let mut hidden = images;
        let mut skips = Vec::new();
        for (number, level) in self.down.iter().enumerate() {
            if number > 0 {
                hidden = max_pool2d(hidden, [2, 2], [2, 2], [0, 0]);
            }
            hidden = level.forward(hidden);
            skips.push(hidden.clone());
        }
        let mut levels: Vec<_> = skips.pop().into_iter().collect();
        let pooled = global_avg_pool(hidden.clone());
        for up in &self.up {
            let Some(skip) = skips.pop() else {
                break;
            };
            let coarse = like(up.upsample.forward(hidden), &skip);
            hidden = up.convolutions.forward(Tensor::cat(vec![skip, coarse], 1));
            levels.push(hidden.clone());
        }
        levels.reverse();
        Pyramid { levels, pooled }
    }
}

/// An odd size was rounded down by the pooling: zeros on the right and below.
fn like<B: Backend>(images: Tensor<B, 4>, other: &Tensor<B, 4>) -> Tensor<B, 4> {
    let [.., height, width] = images.dims();
    let [.., other_height, other_width] = other.dims();
    if [height, width] == [other_height, other_width] {
        return images;
    }
    let sides = (0, other_width - width, 0, other_height - height);
    images.pad(sides, PadMode::Constant(0.0))
}
