//! VGG, with the names of torchvision: plain 3x3 convolutions in stages, with batch normalisation or without.
//!
//! Simonyan and Zisserman 2015, <https://arxiv.org/abs/1409.1556>. In: images. Out: maps of each stage, and the second of three
//! linear layers.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::resnet::check_stages;
use crate::families::{ImagePlan, Pyramid, check_dropout, check_sizes};
use crate::layers::batch_norm::BatchNorm;
use crate::layers::{Convolution, Draw, Linear};
use crate::names::{Family, Foreign, HeadKind, HeadNames};
use crate::ops::{Activation, Geometry, adaptive_avg_pool2d, dropout, max_pool2d};

/// Names of VGG in a bundle.
pub const NAMES: Family = Family {
    renames: &[
        (".classifier.first.", ".classifier.0."),
        (".classifier.second.", ".classifier.3."),
    ],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "HearthVggModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "HearthVggForImageClassification",
            renames: &[("output.", "classifier.6.")],
            aliases: &[],
        },
    ],
    layer: "features.",
    ignored: &["num_batches_tracked"],
    first: "features.0.weight",
    torchvision: Some(|name| Some(Foreign::whole(name))),
    ..Family::of_images("hearth_vgg")
};

/// `config.json` of a VGG.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VggConfig {
    /// Channels of an image.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Channels of each stage; a pooling halves the image after it.
    pub hidden_sizes: Vec<usize>,
    /// Convolutions of each stage.
    pub depths: Vec<usize>,
    /// Whether each convolution has a batch normalisation.
    #[serde(default)]
    pub batch_norm: bool,
    /// Width of the first two linear layers.
    #[serde(default = "usual_width")]
    pub classifier_size: usize,
    /// Height and width to which the last map is averaged.
    #[serde(default = "seven")]
    pub pooled_size: usize,
    /// Dropout after each of the first two linear layers.
    #[serde(default = "half")]
    pub classifier_dropout: f64,
}

fn three() -> usize {
    3
}
fn usual_width() -> usize {
    4096
}
fn seven() -> usize {
    7
}
fn half() -> f64 {
    0.5
}

/// Standard deviation of the linear layers' weights.
const LINEAR: f64 = 0.01;

impl VggConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[
            ("num_channels", self.num_channels),
            ("classifier_size", self.classifier_size),
            ("pooled_size", self.pooled_size),
        ])?;
        check_dropout(&[self.classifier_dropout])?;
        check_stages(&self.hidden_sizes, &self.depths)
    }

    fn flat(&self) -> usize {
        self.hidden_sizes[self.hidden_sizes.len() - 1] * self.pooled_size * self.pooled_size
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        let mut input = self.num_channels as f64;
        let mut parameters = 0.0;
        for (&width, &depth) in self.hidden_sizes.iter().zip(&self.depths) {
            let (width, depth) = (width as f64, depth as f64);
            parameters += 9.0 * width * (input + (depth - 1.0) * width);
            input = width;
        }
        let size = self.classifier_size as f64;
        ImagePlan {
            channels: self.num_channels,
            size: None,
            width: self.classifier_size,
            levels: self.hidden_sizes.clone(),
            parameters: parameters + size * (self.flat() as f64 + size),
        }
    }

    /// Fits the model to images of this shape.
    pub fn fit(&mut self, [channels, ..]: [usize; 3]) {
        self.num_channels = channels;
    }

    /// Draws a network; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> Vgg<B> {
        let geometry = Geometry::new([1, 1], [1, 1]);
        let mut features = Vec::new();
        let mut input = self.num_channels;
        for (&width, &depth) in self.hidden_sizes.iter().zip(&self.depths) {
            for _ in 0..depth {
                let convolution = Convolution::he([input, width], [3, 3], geometry, draw.device);
                features.push(Feature::Convolution(convolution.with_bias()));
                if self.batch_norm {
                    let norm = draw.batch_norm(width);
                    features.push(Feature::Normalization(norm));
                }
                features.push(Feature::Rectifier(0.0));
                input = width;
            }
            features.push(Feature::Pooling(2));
        }
        let draw = &draw.with_std(LINEAR).inside("classifier");
        let size = self.classifier_size;
        Vgg {
            features,
            classifier: Hidden {
                first: draw.linear("first", self.flat(), size),
                second: draw.linear("second", size, size),
            },
            pooled_size: self.pooled_size,
            dropout: self.classifier_dropout,
        }
    }
}

/// One step of the convolutional part; all are numbered together, as in torchvision.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // As many as layers.
pub enum Feature<B: Backend> {
    /// 3x3.
    Convolution(Convolution<B>),
    /// Of the convolution before it.
    Normalization(BatchNorm<B>),
    /// Values below this become this.
    Rectifier(f64),
    /// The largest of squares so many pixels wide.
    Pooling(usize),
}

/// A VGG without its last layer.
#[derive(Module, Debug)]
pub struct Vgg<B: Backend> {
    /// The convolutional part.
    pub features: Vec<Feature<B>>,
    /// What follows it.
    pub classifier: Hidden<B>,
    pooled_size: usize,
    dropout: f64,
}

/// The first two linear layers.
#[derive(Module, Debug)]
pub struct Hidden<B: Backend> {
    /// From the pooled map.
    pub first: Linear<B>,
    /// From the first.
    pub second: Linear<B>,
}

impl<B: Backend> Vgg<B> {
    /// Maps after each stage, and what the last linear layer reads.
    ///
    /// - images: `[batch, num_channels, height, width]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
        let mut hidden = images;
        let mut levels = Vec::new();
        for feature in &self.features {
            hidden = match feature {
                Feature::Convolution(convolution) => convolution.forward(hidden),
                Feature::Normalization(norm) => norm.forward(hidden),
                Feature::Rectifier(_) => Activation::Relu.apply(hidden),
                Feature::Pooling(side) => max_pool2d(hidden, [*side; 2], [*side; 2], [0, 0]),
            };
            if matches!(feature, Feature::Pooling(_)) {
                levels.push(hidden.clone());
            }
        }
        Pyramid {
            levels,
            pooled: self.pool(hidden),
        }
    }

    /// What the last linear layer reads, `[batch, classifier_size]`, of the maps of the last stage.
    pub fn pool(&self, maps: Tensor<B, 4>) -> Tensor<B, 2> {
        let flat = adaptive_avg_pool2d(maps, [self.pooled_size; 2]).flatten(1, 3);
        let through = |layer: &Linear<B>, x: Tensor<B, 2>| {
            dropout(Activation::Relu.apply(layer.forward(x)), self.dropout)
        };
        let Hidden { first, second } = &self.classifier;
        through(second, through(first, flat))
    }
}
