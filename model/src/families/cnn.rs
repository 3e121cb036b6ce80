//! A small convolutional network: 3x3 convolutions with batch normalisation, each halved by a pooling.
//!
//! In: images. Out: maps of each layer, and the mean of the last.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::{ImagePlan, Pyramid, check_sizes, check_widths};
use crate::layers::{Draw, NormedConvolution};
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::{Activation, global_avg_pool, max_pool2d};

/// Names of the network in a bundle.
pub const NAMES: Family = Family {
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "HearthCnnModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "HearthCnnForImageClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
    ],
    layer: "convolutions.",
    ignored: &["num_batches_tracked"],
    first: "convolutions.0.convolution.weight",
    ..Family::of_images("hearth_cnn")
};

/// `config.json` of a small convolutional network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CnnConfig {
    /// Channels of an image.
    #[serde(default = "one")]
    pub num_channels: usize,
    /// Channels after each convolution; a pooling halves the image after it, where there is more than a pixel left.
    pub hidden_sizes: Vec<usize>,
}

fn one() -> usize {
    1
}

impl CnnConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[("num_channels", self.num_channels)])?;
        check_widths(&self.hidden_sizes)
    }

    fn widths(&self) -> Vec<usize> {
        let first = std::iter::once(self.num_channels);
        first.chain(self.hidden_sizes.iter().copied()).collect()
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        let widths = self.widths();
        let pairs = widths.windows(2);
        ImagePlan {
            channels: self.num_channels,
            size: None,
            width: widths[widths.len() - 1],
            levels: self.hidden_sizes.clone(),
            parameters: pairs.map(|pair| 9.0 * (pair[0] * pair[1]) as f64).sum(),
        }
    }

    /// Fits the model to images of this shape.
    pub fn fit(&mut self, [channels, ..]: [usize; 3]) {
        self.num_channels = channels;
    }

    /// Draws a network; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> Cnn<B> {
        let widths = self.widths();
        let relu = Some(Activation::Relu);
        let layer = |pair: &[usize]| NormedConvolution::new([pair[0], pair[1]], 3, 1, relu, draw);
        Cnn {
            convolutions: widths.windows(2).map(layer).collect(),
        }
    }
}

/// Convolutions.
#[derive(Module, Debug)]
pub struct Cnn<B: Backend> {
    /// 3x3 each.
    pub convolutions: Vec<NormedConvolution<B>>,
}

impl<B: Backend> Cnn<B> {
    /// Maps after each pooling, and the mean of the last.
    ///
    /// - images: `[batch, num_channels, height, width]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
        let mut hidden = images;
        let mut levels = Vec::new();
        for convolution in &self.convolutions {
            hidden = convolution.forward(hidden);
            let [.., height, width] = hidden.dims();
            if height > 1 && width > 1 {
                hidden = max_pool2d(hidden, [2, 2], [2, 2], [0, 0]);
            }
            levels.push(hidden.clone());
        }
        Pyramid {
            pooled: global_avg_pool(hidden),
            levels,
        }
    }
}
