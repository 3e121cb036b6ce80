//! MobileNetV2, with the names of Hugging Face's `MobileNetV2Model`: inverted residuals of depthwise convolutions.
//!
//! Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>. In: images. Out: maps of some layers, and the mean of the last.

use burn::prelude::*;
use burn::tensor::ops::PadMode;
use serde::{Deserialize, Serialize};

use crate::families::{ImagePlan, Pyramid, check_dropout, check_sizes};
use crate::layers::{Convolution, Draw, NormedConvolution};
use crate::names::{Family, Foreign, HeadKind, HeadNames};
use crate::ops::{Activation, Geometry, global_avg_pool};

/// Names of MobileNetV2 in a bundle.
pub const NAMES: Family = Family {
    prefix: "mobilenet_v2.",
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "MobileNetV2Model",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "MobileNetV2ForImageClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
    ],
    renames: &[(".inner.", ".")],
    layer: "layer.",
    ignored: &["num_batches_tracked"],
    first: "conv_stem.first_conv.convolution.weight",
    torchvision: Some(torchvision),
    ..Family::of_images("mobilenet_v2")
};

/// Channels before each layer and after the last, for a multiplier of 1.
const CHANNELS: [usize; 17] = [
    16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320,
];
/// Strides of the layers.
const STRIDES: [usize; 16] = [2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1];
/// Channels of the first convolution and of the last, for a multiplier of 1.
const FIRST: usize = 32;
const LAST: usize = 1280;

/// What torchvision calls a parameter.
fn torchvision(name: &str) -> Option<Foreign> {
    let name = name.strip_prefix("mobilenet_v2.").unwrap_or(name);
    if let Some(part) = name.strip_prefix("classifier.") {
        return Some(Foreign::whole(format!("classifier.1.{part}")));
    }
    let kind = |kind: &str| usize::from(kind != "convolution");
    let parts: Vec<&str> = name.split('.').collect();
    // A depthwise convolution has its norm in one group with it, the last one has not.
    let theirs = match parts[..] {
        ["conv_stem", "first_conv", layer, part] => format!("0.{}.{part}", kind(layer)),
        ["conv_stem", "conv_3x3", layer, part] => format!("1.conv.0.{}.{part}", kind(layer)),
        ["conv_stem", "reduce_1x1", layer, part] => format!("1.conv.{}.{part}", 1 + kind(layer)),
        ["conv_1x1", layer, part] => format!("18.{}.{part}", kind(layer)),
        ["layer", number, step, layer, part] => {
            let number = number.parse::<usize>().ok()? + 2;
            match step {
                "expand_1x1" => format!("{number}.conv.0.{}.{part}", kind(layer)),
                "conv_3x3" => format!("{number}.conv.1.{}.{part}", kind(layer)),
                _ => format!("{number}.conv.{}.{part}", 2 + kind(layer)),
            }
        }
        _ => return None,
    };
    Some(Foreign::whole(format!("features.{theirs}")))
}

/// `config.json` of a MobileNetV2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MobileNetV2Config {
    /// Channels of an image.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Height and width that it was made for; others can be read too.
    #[serde(default = "usual_size")]
    pub image_size: usize,
    /// Times the channels of every layer.
    #[serde(default = "one")]
    pub depth_multiplier: f64,
    /// Channels are multiples of this.
    #[serde(default = "eight")]
    pub depth_divisible_by: usize,
    /// Fewest channels.
    #[serde(default = "eight")]
    pub min_depth: usize,
    /// Times the channels inside a layer.
    #[serde(default = "six")]
    pub expand_ratio: f64,
    /// Pixels of an image to one of the last map; where it is reached, layers look further instead of halving.
    #[serde(default = "thirty_two")]
    pub output_stride: usize,
    /// Whether the first convolution is the first layer's expansion.
    #[serde(default = "yes")]
    pub first_layer_is_expansion: bool,
    /// Whether the last convolution keeps its 1,280 channels where the multiplier is below 1.
    #[serde(default = "yes")]
    pub finegrained_output: bool,
    /// Activation after each convolution but the last of a layer.
    #[serde(default = "relu6")]
    pub hidden_act: Activation,
    /// Whether images are padded as TensorFlow does it: a pixel more below and on the right where it is needed.
    #[serde(default = "yes")]
    pub tf_padding: bool,
    /// Dropout before the classifier.
    #[serde(default = "most")]
    pub classifier_dropout_prob: f64,
    /// Added to the variance by every batch normalisation.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// Share of the running statistics that a batch replaces: nearly all of them in `transformers`, whose default this is; a
    /// tenth in torchvision.
    #[serde(default = "momentum")]
    pub batch_norm_momentum: f64,
}

fn three() -> usize {
    3
}
fn usual_size() -> usize {
    224
}
fn one() -> f64 {
    1.0
}
fn eight() -> usize {
    8
}
fn six() -> f64 {
    6.0
}
fn thirty_two() -> usize {
    32
}
fn yes() -> bool {
    true
}
fn relu6() -> Activation {
    Activation::Relu6
}
fn most() -> f64 {
    0.8
}
fn epsilon() -> f64 {
    1e-3
}
fn momentum() -> f64 {
    0.997
}

impl MobileNetV2Config {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[
            ("num_channels", self.num_channels),
            ("image_size", self.image_size),
            ("depth_divisible_by", self.depth_divisible_by),
            ("min_depth", self.min_depth),
        ])?;
        check_dropout(&[self.classifier_dropout_prob])?;
        for (name, value) in [
            ("depth_multiplier", self.depth_multiplier),
            ("expand_ratio", self.expand_ratio),
            ("layer_norm_eps", self.layer_norm_eps),
        ] {
            if !(value.is_finite() && value > 0.0 && value < 1e4) {
                return Err(format!("{name} is {value}; it must be above 0"));
            }
        }
        if !(0.0..=1.0).contains(&self.batch_norm_momentum) {
            let momentum = self.batch_norm_momentum;
            return Err(format!("batch_norm_momentum is {momentum}; it is a share"));
        }
        if !matches!(self.output_stride, 2 | 4 | 8 | 16 | 32) {
            return Err(format!(
                "output_stride is {}; known are 2, 4, 8, 16 and 32",
                self.output_stride
            ));
        }
        Ok(())
    }

    fn channels(&self, of_one: usize) -> usize {
        let scaled = (of_one as f64 * self.depth_multiplier).round_ties_even();
        self.divisible(scaled)
    }

    /// The next multiple, at most a tenth below.
    fn divisible(&self, value: f64) -> usize {
        let by = self.depth_divisible_by;
        let half = (value + by as f64 / 2.0) as usize;
        let mut channels = (half / by * by).max(self.min_depth);
        if (channels as f64) < 0.9 * value {
            channels += by;
        }
        channels
    }

    fn expanded(&self, channels: usize) -> usize {
        self.divisible((channels as f64 * self.expand_ratio).round_ties_even())
    }

    fn last(&self) -> usize {
        if self.finegrained_output && self.depth_multiplier < 1.0 {
            LAST
        } else {
            self.channels(LAST)
        }
    }

    /// Stride and dilation of each layer.
    fn strides(&self) -> Vec<[usize; 2]> {
        let (mut stride, mut dilation) = (2, 1);
        let layer = |&own: &usize| {
            if stride == self.output_stride {
                let layer = [1, dilation];
                dilation *= own;
                layer
            } else {
                stride *= own;
                [own, 1]
            }
        };
        STRIDES.iter().map(layer).collect()
    }

    /// Layers whose maps are the last of their size.
    fn level_ends(&self) -> Vec<usize> {
        let strides = self.strides();
        let ends = |at: &usize| strides.get(at + 1).is_none_or(|[stride, _]| *stride > 1);
        (0..strides.len()).filter(ends).collect()
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        let widths = CHANNELS.map(|channels| self.channels(channels));
        let layer = |pair: &[usize]| {
            let inside = self.expanded(pair[0]) as f64;
            inside * (pair[0] + pair[1] + 9) as f64
        };
        let layers: f64 = widths.windows(2).map(layer).sum();
        let ends = self.level_ends();
        ImagePlan {
            channels: self.num_channels,
            size: None,
            width: self.last(),
            levels: ends.iter().map(|&end| widths[end + 1]).collect(),
            parameters: layers + widths[16] as f64 * self.last() as f64,
        }
    }

    /// Fits the model to images of this shape.
    pub fn fit(&mut self, [channels, height, width]: [usize; 3]) {
        self.num_channels = channels;
        self.image_size = height.max(width);
    }

    /// Draws a network; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> MobileNetV2<B> {
        let widths = CHANNELS.map(|channels| self.channels(channels));
        let first = self.channels(FIRST);
        let layer = |(pair, [stride, dilation]): (&[usize], [usize; 2])| {
            let inside = self.expanded(pair[0]);
            InvertedResidual {
                expand_1x1: self.layer([pair[0], inside], 1, [1, 1], 1, true, draw),
                conv_3x3: self.layer([inside; 2], 3, [stride, dilation], inside, true, draw),
                reduce_1x1: self.layer([inside, pair[1]], 1, [1, 1], 1, false, draw),
                adds: stride == 1 && pair[0] == pair[1],
            }
        };
        let expand = || self.layer([first; 2], 1, [1, 1], 1, true, draw);
        MobileNetV2 {
            conv_stem: Stem {
                first_conv: self.layer([self.num_channels, first], 3, [2, 1], 1, true, draw),
                expand_1x1: (!self.first_layer_is_expansion).then(expand),
                conv_3x3: self.layer([first; 2], 3, [1, 1], first, true, draw),
                reduce_1x1: self.layer([first, widths[0]], 1, [1, 1], 1, false, draw),
            },
            layer: widths.windows(2).zip(self.strides()).map(layer).collect(),
            conv_1x1: self.layer([widths[16], self.last()], 1, [1, 1], 1, true, draw),
            level_ends: self.level_ends(),
        }
    }

    fn layer<B: Backend>(
        &self,
        widths: [usize; 2],
        kernel: usize,
        [stride, dilation]: [usize; 2],
        groups: usize,
        activates: bool,
        draw: &Draw<'_, B>,
    ) -> PaddedConvolution<B> {
        let padding = if self.tf_padding {
            0
        } else {
            kernel / 2 * dilation
        };
        let geometry = Geometry::new([stride; 2], [padding; 2])
            .dilated(dilation)
            .grouped(groups);
        let inner = NormedConvolution::with(
            Convolution::he(widths, [kernel; 2], geometry, draw.device),
            draw.batch_norm(widths[1])
                .with_rates(self.batch_norm_momentum, self.layer_norm_eps),
            activates.then_some(self.hidden_act),
        );
        PaddedConvolution {
            inner,
            pads: self.tf_padding,
            kernel,
            stride,
            dilation,
        }
    }
}

/// A convolution whose image is padded as TensorFlow does it, where that is asked for.
#[derive(Module, Debug)]
pub struct PaddedConvolution<B: Backend> {
    /// It.
    pub inner: NormedConvolution<B>,
    pads: bool,
    kernel: usize,
    stride: usize,
    dilation: usize,
}

impl<B: Backend> PaddedConvolution<B> {
    fn forward(&self, mut images: Tensor<B, 4>) -> Tensor<B, 4> {
        if self.pads && self.kernel > 1 {
            let [.., height, width] = images.dims();
            let [top, bottom] = self.padding(height);
            let [left, right] = self.padding(width);
            images = images.pad((left, right, top, bottom), PadMode::Constant(0.0));
        }
        self.inner.forward(images)
    }

    /// Pixels before and behind a side.
    fn padding(&self, side: usize) -> [usize; 2] {
        let over = match side % self.stride {
            0 => self.stride,
            rest => rest,
        };
        let along = self.kernel.saturating_sub(over);
        let before = along / 2;
        [before * self.dilation, (along - before) * self.dilation]
    }
}

/// The first two layers.
#[derive(Module, Debug)]
pub struct Stem<B: Backend> {
    /// Halves the image.
    pub first_conv: PaddedConvolution<B>,
    /// Where the first convolution is no expansion.
    pub expand_1x1: Option<PaddedConvolution<B>>,
    /// Depthwise.
    pub conv_3x3: PaddedConvolution<B>,
    /// Without an activation.
    pub reduce_1x1: PaddedConvolution<B>,
}

/// A layer: wide inside, narrow outside.
#[derive(Module, Debug)]
pub struct InvertedResidual<B: Backend> {
    /// To more channels.
    pub expand_1x1: PaddedConvolution<B>,
    /// Depthwise.
    pub conv_3x3: PaddedConvolution<B>,
    /// To fewer, without an activation.
    pub reduce_1x1: PaddedConvolution<B>,
    adds: bool,
}

impl<B: Backend> InvertedResidual<B> {
    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let wide = self
            .conv_3x3
            .forward(self.expand_1x1.forward(images.clone()));
        let out = self.reduce_1x1.forward(wide);
        if self.adds { images + out } else { out }
    }
}

/// A MobileNetV2 without its head.
#[derive(Module, Debug)]
pub struct MobileNetV2<B: Backend> {
    /// The first two layers.
    pub conv_stem: Stem<B>,
    /// The inverted residuals.
    pub layer: Vec<InvertedResidual<B>>,
    /// To the features.
    pub conv_1x1: PaddedConvolution<B>,
    level_ends: Vec<usize>,
}

impl<B: Backend> MobileNetV2<B> {
    /// Maps of the layers that are the last of their size, and the mean of the last convolution's.
    ///
    /// - images: `[batch, num_channels, height, width]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
        let (levels, last) = self.levels_and_last(images);
        Pyramid {
            levels,
            pooled: global_avg_pool(last),
        }
    }

    /// Maps of the last convolution, `[batch, channels, rows, columns]`.
    ///
    /// - images: `[batch, num_channels, height, width]`
    pub fn last_maps(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let (_, last) = self.levels_and_last(images);
        last
    }

    fn levels_and_last(&self, images: Tensor<B, 4>) -> (Vec<Tensor<B, 4>>, Tensor<B, 4>) {
        let stem = &self.conv_stem;
        let mut hidden = stem.first_conv.forward(images);
        if let Some(expand) = &stem.expand_1x1 {
            hidden = expand.forward(hidden);
        }
        hidden = stem.reduce_1x1.forward(stem.conv_3x3.forward(hidden));
        let mut levels = Vec::new();
        for (number, layer) in self.layer.iter().enumerate() {
            hidden = layer.forward(hidden);
            if self.level_ends.contains(&number) {
                levels.push(hidden.clone());
            }
        }
        let last = self.conv_1x1.forward(hidden);
        (levels, last)
    }
}
