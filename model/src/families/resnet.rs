//! Residual networks, with the names of Hugging Face's `ResNetModel`: 18, 34, 50, 101 and 152 layers in the form of
//! torchvision (v1.5: a bottleneck halves the image in its 3x3 convolution).
//!
//! He et al. 2016, <https://arxiv.org/abs/1512.03385>. In: images. Out: maps of each stage, and their mean.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::{ImagePlan, Pyramid, check_sizes};
use crate::layers::{Draw, NormedConvolution};
use crate::names::{Family, Foreign, HeadKind, HeadNames};
use crate::ops::{Activation, global_avg_pool, max_pool2d};

/// Heads of residual networks, for images of any size.
pub(crate) const HEADS: [HeadNames; 2] = [
    HeadNames {
        kind: HeadKind::Bare,
        class: "ResNetModel",
        renames: &[],
        aliases: &[],
    },
    HeadNames {
        kind: HeadKind::Classes,
        class: "ResNetForImageClassification",
        renames: &[("output.", "classifier.1.")],
        aliases: &[],
    },
];

/// Names of residual networks in a bundle.
pub const NAMES: Family = Family {
    prefix: "resnet.",
    heads: &HEADS,
    layer: "encoder.stages.",
    ignored: &["num_batches_tracked"],
    first: "embedder.embedder.convolution.weight",
    torchvision: Some(torchvision),
    ..Family::of_images("resnet")
};

/// What torchvision calls a parameter.
pub(crate) fn torchvision(name: &str) -> Option<Foreign> {
    let name = name.strip_prefix("resnet.").unwrap_or(name);
    if let Some(part) = name.strip_prefix("classifier.1.") {
        return Some(Foreign::whole(format!("fc.{part}")));
    }
    if let Some(part) = name.strip_prefix("embedder.embedder.convolution.") {
        return Some(Foreign::whole(format!("conv1.{part}")));
    }
    if let Some(part) = name.strip_prefix("embedder.embedder.normalization.") {
        return Some(Foreign::whole(format!("bn1.{part}")));
    }
    let parts: Vec<&str> = name.strip_prefix("encoder.stages.")?.split('.').collect();
    let stage: usize = parts.first()?.parse().ok()?;
    let theirs = match parts[1..] {
        ["layers", block, "shortcut", kind, part] => {
            let kind = if kind == "convolution" { 0 } else { 1 };
            format!("{block}.downsample.{kind}.{part}")
        }
        ["layers", block, "layer", number, kind, part] => {
            let kind = if kind == "convolution" { "conv" } else { "bn" };
            let number: usize = number.parse().ok()?;
            format!("{block}.{kind}{}.{part}", number + 1)
        }
        _ => return None,
    };
    Some(Foreign::whole(format!("layer{}.{theirs}", stage + 1)))
}

/// What a block consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockKind {
    /// Two convolutions of 3x3.
    Basic,
    /// 1x1 to a quarter of the channels, 3x3, 1x1 back.
    Bottleneck,
}

/// `config.json` of a residual network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResNetConfig {
    /// Channels of an image.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Channels after the first convolution.
    #[serde(default = "sixty_four")]
    pub embedding_size: usize,
    /// Channels of each stage.
    #[serde(default = "wide")]
    pub hidden_sizes: Vec<usize>,
    /// Blocks of each stage.
    #[serde(default = "fifty_layers")]
    pub depths: Vec<usize>,
    /// What a block consists of.
    #[serde(default = "bottleneck")]
    pub layer_type: BlockKind,
    /// Activation after each convolution and each sum.
    #[serde(default = "relu")]
    pub hidden_act: Activation,
    /// Whether the first stage halves the image too.
    #[serde(default)]
    pub downsample_in_first_stage: bool,
    /// Whether a bottleneck halves the image in its first convolution and not in that of 3x3.
    #[serde(default)]
    pub downsample_in_bottleneck: bool,
}

fn three() -> usize {
    3
}
fn sixty_four() -> usize {
    64
}
fn wide() -> Vec<usize> {
    vec![256, 512, 1024, 2048]
}
fn fifty_layers() -> Vec<usize> {
    vec![3, 4, 6, 3]
}
fn bottleneck() -> BlockKind {
    BlockKind::Bottleneck
}
fn relu() -> Activation {
    Activation::Relu
}

/// How a network begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stem {
    /// A convolution of 7x7 and a pooling of 3x3, which halve the image each.
    Large,
    /// A convolution of 3x3.
    Small,
}

impl ResNetConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[
            ("num_channels", self.num_channels),
            ("embedding_size", self.embedding_size),
        ])?;
        check_stages(&self.hidden_sizes, &self.depths)?;
        match self.hidden_sizes.iter().find(|size| **size < 4) {
            Some(size) if self.layer_type == BlockKind::Bottleneck => Err(format!(
                "hidden_sizes name {size} channels; a bottleneck has a quarter of them, at least 1"
            )),
            _ => Ok(()),
        }
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        let mut width = self.embedding_size;
        let mut parameters = (self.num_channels * 49 * width) as f64;
        for (&hidden, &depth) in self.hidden_sizes.iter().zip(&self.depths) {
            let block = |input: usize| match self.layer_type {
                BlockKind::Basic => 9 * hidden * (input + hidden),
                BlockKind::Bottleneck => hidden / 4 * (input + 9 * hidden / 4 + hidden),
            };
            parameters += (block(width) + width * hidden) as f64;
            parameters += (depth.saturating_sub(1) as f64) * block(hidden) as f64;
            width = hidden;
        }
        ImagePlan {
            channels: self.num_channels,
            size: None,
            width,
            levels: self.hidden_sizes.clone(),
            parameters,
        }
    }

    /// Fits the model to images of this shape.
    pub fn fit(&mut self, [channels, ..]: [usize; 3]) {
        self.num_channels = channels;
    }

    /// Draws a network; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> ResNet<B> {
        self.with_stem(Stem::Large, draw)
    }

    pub(crate) fn with_stem<B: Backend>(&self, stem: Stem, draw: &Draw<'_, B>) -> ResNet<B> {
        let (kernel, stride) = match stem {
            Stem::Large => (7, 2),
            Stem::Small => (3, 1),
        };
        let act = Some(self.hidden_act);
        let widths = [self.num_channels, self.embedding_size];
        let inputs = std::iter::once(&self.embedding_size).chain(&self.hidden_sizes);
        let stages = inputs.zip(&self.hidden_sizes).zip(&self.depths);
        let stage = |(number, ((&input, &output), &depth)): (usize, ((&usize, &usize), &usize))| {
            let halves = number > 0 || self.downsample_in_first_stage;
            let first = self.block([input, output], if halves { 2 } else { 1 }, draw);
            let rest = (1..depth).map(|_| self.block([output; 2], 1, draw));
            Stage {
                layers: std::iter::once(first).chain(rest).collect(),
            }
        };
        ResNet {
            embedder: Embedder {
                embedder: NormedConvolution::new(widths, kernel, stride, act, draw),
                pools: stem == Stem::Large,
            },
            encoder: Stages {
                stages: stages.enumerate().map(stage).collect(),
            },
        }
    }

    fn block<B: Backend>(
        &self,
        [input, output]: [usize; 2],
        stride: usize,
        draw: &Draw<'_, B>,
    ) -> Block<B> {
        let act = Some(self.hidden_act);
        let shortcut = (input != output || stride != 1)
            .then(|| NormedConvolution::new([input, output], 1, stride, None, draw));
        let layer = match self.layer_type {
            BlockKind::Basic => vec![
                NormedConvolution::new([input, output], 3, stride, act, draw),
                NormedConvolution::new([output, output], 3, 1, None, draw),
            ],
            BlockKind::Bottleneck => {
                let narrow = output / 4;
                let (first, second) = if self.downsample_in_bottleneck {
                    (stride, 1)
                } else {
                    (1, stride)
                };
                vec![
                    NormedConvolution::new([input, narrow], 1, first, act, draw),
                    NormedConvolution::new([narrow, narrow], 3, second, act, draw),
                    NormedConvolution::new([narrow, output], 1, 1, None, draw),
                ]
            }
        };
        Block {
            shortcut,
            layer,
            activation: self.hidden_act,
        }
    }
}

/// Refuses stages that are none, or that have no blocks.
pub(crate) fn check_stages(widths: &[usize], depths: &[usize]) -> Result<(), String> {
    if widths.is_empty() || widths.len() != depths.len() {
        return Err(format!(
            "hidden_sizes are {widths:?} and depths {depths:?}; there must be one of each for every stage"
        ));
    }
    let all = widths.iter().chain(depths);
    if all.clone().any(|&size| size == 0) {
        return Err(format!(
            "hidden_sizes are {widths:?} and depths {depths:?}; each must be at least 1"
        ));
    }
    Ok(())
}

/// A residual network without its head.
#[derive(Module, Debug)]
pub struct ResNet<B: Backend> {
    /// The first convolution.
    pub embedder: Embedder<B>,
    /// The rest.
    pub encoder: Stages<B>,
}

/// The first convolution, with a pooling of 3x3 after it where images are large.
#[derive(Module, Debug)]
pub struct Embedder<B: Backend> {
    /// 7x7, or 3x3.
    pub embedder: NormedConvolution<B>,
    pools: bool,
}

/// Stages of blocks.
#[derive(Module, Debug)]
pub struct Stages<B: Backend> {
    /// Each but the first halves the image.
    pub stages: Vec<Stage<B>>,
}

/// Blocks of one width.
#[derive(Module, Debug)]
pub struct Stage<B: Backend> {
    /// In their order.
    pub layers: Vec<Block<B>>,
}

/// Convolutions whose result is added to their input.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    /// Of the input, where its shape is another.
    pub shortcut: Option<NormedConvolution<B>>,
    /// The convolutions.
    pub layer: Vec<NormedConvolution<B>>,
    activation: Activation,
}

impl<B: Backend> Block<B> {
    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let hidden = self
            .layer
            .iter()
            .fold(images.clone(), |hidden, layer| layer.forward(hidden));
        let images = match &self.shortcut {
            Some(shortcut) => shortcut.forward(images),
            None => images,
        };
        self.activation.apply(hidden + images)
    }
}

impl<B: Backend> ResNet<B> {
    /// Maps after each stage, and the mean of the last.
    ///
    /// - images: `[batch, num_channels, height, width]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
        let mut hidden = self.embedder.embedder.forward(images);
        if self.embedder.pools {
            hidden = max_pool2d(hidden, [3, 3], [2, 2], [1, 1]);
        }
        let mut levels = Vec::new();
        for stage in &self.encoder.stages {
            hidden = stage
                .layers
                .iter()
                .fold(hidden, |hidden, block| block.forward(hidden));
            levels.push(hidden.clone());
        }
        Pyramid {
            pooled: global_avg_pool(hidden),
            levels,
        }
    }
}
