//! ConvNeXt, with the names of Hugging Face's `ConvNextModel`: depthwise convolutions of 7x7 and feed-forward blocks.
//!
//! Liu et al. 2022, <https://arxiv.org/abs/2201.03545>. In: images. Out: maps of each stage, and the normed mean of the last.

use burn::module::Param;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::resnet::check_stages;
use crate::families::{ImagePlan, Pyramid, check_sizes};
use crate::layers::{Convolution, Draw, LayerNorm, Linear};
use crate::names::{Family, Foreign, HeadKind, HeadNames};
use crate::ops::{Activation, Geometry, global_avg_pool};

/// Names of ConvNeXt in a bundle.
pub const NAMES: Family = Family {
    prefix: "convnext.",
    renames: &[
        (".downsampling_layer.norm.", ".downsampling_layer.0."),
        (".downsampling_layer.convolution.", ".downsampling_layer.1."),
    ],
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "ConvNextModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "ConvNextForImageClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
    ],
    layer: "encoder.stages.",
    adapter_targets: &["pwconv1", "pwconv2"],
    bottleneck_targets: &["pwconv2"],
    first: "embeddings.patch_embeddings.weight",
    torchvision: Some(torchvision),
    ..Family::of_images("convnext")
};

/// What torchvision calls a parameter: stages and what is between them take turns.
fn torchvision(name: &str) -> Option<Foreign> {
    let name = name.strip_prefix("convnext.").unwrap_or(name);
    let parts: Vec<&str> = name.split('.').collect();
    let stage = |number: &str| number.parse::<usize>().ok();
    Some(Foreign::whole(match parts[..] {
        ["embeddings", "patch_embeddings", part] => format!("features.0.0.{part}"),
        ["embeddings", "layernorm", part] => format!("features.0.1.{part}"),
        ["layernorm", part] => format!("classifier.0.{part}"),
        ["classifier", part] => format!("classifier.2.{part}"),
        [
            "encoder",
            "stages",
            number,
            "downsampling_layer",
            step,
            part,
        ] => {
            format!("features.{}.{step}.{part}", 2 * stage(number)?)
        }
        [
            "encoder",
            "stages",
            number,
            "layers",
            layer,
            "layer_scale_parameter",
        ] => {
            let name = format!("features.{}.{layer}.layer_scale", 2 * stage(number)? + 1);
            return Some(Foreign {
                axes: 2,
                ..Foreign::whole(name)
            });
        }
        ["encoder", "stages", number, "layers", layer, inside, part] => {
            let place = match inside {
                "dwconv" => 0,
                "layernorm" => 2,
                "pwconv1" => 3,
                "pwconv2" => 5,
                _ => return None,
            };
            let stage = 2 * stage(number)? + 1;
            format!("features.{stage}.{layer}.block.{place}.{part}")
        }
        _ => return None,
    }))
}

/// Epsilon of the norms in front of the last one.
const EPSILON: f64 = 1e-6;

/// `config.json` of a ConvNeXt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvNextConfig {
    /// Channels of an image.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Of a patch, in pixels: the first convolution's stride.
    #[serde(default = "four")]
    pub patch_size: usize,
    /// Channels of each stage.
    #[serde(default = "tiny_widths")]
    pub hidden_sizes: Vec<usize>,
    /// Layers of each stage.
    #[serde(default = "tiny_depths")]
    pub depths: Vec<usize>,
    /// Number of stages.
    #[serde(default = "four")]
    pub num_stages: usize,
    /// Activation between the two projections of a layer.
    #[serde(default = "gelu")]
    pub hidden_act: Activation,
    /// Standard deviation of the initial weights.
    #[serde(default = "standard_deviation")]
    pub initializer_range: f64,
    /// Epsilon of the last norm.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// What the result of a layer is multiplied by at first; 0 or less multiplies by nothing.
    #[serde(default = "little")]
    pub layer_scale_init_value: f64,
    /// Share of the images that skip the last layer in training; fewer skip those before it.
    #[serde(default)]
    pub drop_path_rate: f64,
    /// Height and width that it was made for; others can be read too.
    #[serde(default = "usual_size")]
    pub image_size: usize,
}

fn three() -> usize {
    3
}
fn four() -> usize {
    4
}
fn tiny_widths() -> Vec<usize> {
    vec![96, 192, 384, 768]
}
fn tiny_depths() -> Vec<usize> {
    vec![3, 3, 9, 3]
}
fn gelu() -> Activation {
    Activation::Gelu
}
fn standard_deviation() -> f64 {
    0.02
}
fn epsilon() -> f64 {
    1e-12
}
fn little() -> f64 {
    1e-6
}
fn usual_size() -> usize {
    224
}

impl ConvNextConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[
            ("num_channels", self.num_channels),
            ("patch_size", self.patch_size),
        ])?;
        check_stages(&self.hidden_sizes, &self.depths)?;
        if self.num_stages != self.depths.len() {
            return Err(format!(
                "num_stages is {}, and depths name {}",
                self.num_stages,
                self.depths.len()
            ));
        }
        if !(0.0..1.0).contains(&self.drop_path_rate) {
            let rate = self.drop_path_rate;
            return Err(format!(
                "drop_path_rate is {rate}; it must be at least 0 and below 1"
            ));
        }
        Ok(())
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        let stages = self.hidden_sizes.iter().zip(&self.depths);
        let layers = stages.map(|(&width, &depth)| {
            let width = width as f64;
            depth as f64 * (8.0 * width * width + 49.0 * width)
        });
        let between = self.hidden_sizes.windows(2);
        let between = between.map(|pair| 4.0 * pair[0] as f64 * pair[1] as f64);
        ImagePlan {
            channels: self.num_channels,
            size: None,
            width: self.hidden_sizes[self.hidden_sizes.len() - 1],
            levels: self.hidden_sizes.clone(),
            parameters: layers.sum::<f64>() + between.sum::<f64>(),
        }
    }

    /// Fits the model to images of this shape.
    pub fn fit(&mut self, [channels, height, width]: [usize; 3]) {
        self.num_channels = channels;
        self.image_size = height.max(width);
    }

    /// Draws a network; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> ConvNext<B> {
        let draw = &draw.with_std(self.initializer_range);
        let (std, device) = (self.initializer_range, draw.device);
        let first = self.hidden_sizes[0];
        let patch = [self.patch_size; 2];
        let patches = Geometry::new(patch, [0, 0]);
        let widths = [self.num_channels, first];
        let embedding = Convolution::normal(widths, patch, patches, std, device);
        let all: usize = self.depths.iter().sum();
        let mut before = 0;
        let mut stages = Vec::new();
        for (number, &width) in self.hidden_sizes.iter().enumerate() {
            let input = self.hidden_sizes[number.saturating_sub(1)];
            let halving = Geometry::new([2, 2], [0, 0]);
            let downsampling = || Downsampling {
                norm: draw.norm(input, EPSILON),
                convolution: Convolution::normal([input, width], [2, 2], halving, std, device)
                    .with_bias(),
            };
            let at = format!("encoder.stages.{number}.layers");
            let layers = (0..self.depths[number]).map(|layer| {
                let place = (before + layer) as f64 / all.saturating_sub(1).max(1) as f64;
                let draw = draw.inside(&format!("{at}.{layer}"));
                self.layer(width, place * self.drop_path_rate, &draw)
            });
            stages.push(Stage {
                downsampling_layer: (number > 0).then(downsampling),
                layers: layers.collect(),
            });
            before += self.depths[number];
        }
        ConvNext {
            embeddings: Embeddings {
                patch_embeddings: embedding.with_bias(),
                layernorm: draw.norm(first, EPSILON),
            },
            encoder: Stages { stages },
            layernorm: draw.norm(self.describe().width, self.layer_norm_eps),
        }
    }

    fn layer<B: Backend>(&self, width: usize, drop_path: f64, draw: &Draw<'_, B>) -> Layer<B> {
        let depthwise = Geometry::new([1, 1], [3, 3]).grouped(width);
        let std = self.initializer_range;
        let scale = || {
            let value = self.layer_scale_init_value;
            burn::module::Initializer::Constant { value }.init([width], draw.device)
        };
        Layer {
            dwconv: Convolution::normal([width; 2], [7, 7], depthwise, std, draw.device)
                .with_bias(),
            layernorm: draw.norm(width, EPSILON),
            pwconv1: draw.linear("pwconv1", width, 4 * width),
            pwconv2: draw.linear("pwconv2", 4 * width, width),
            layer_scale_parameter: (self.layer_scale_init_value > 0.0).then(scale),
            activation: self.hidden_act,
            drop_path,
        }
    }
}

/// A ConvNeXt without its head.
#[derive(Module, Debug)]
pub struct ConvNext<B: Backend> {
    /// Patches.
    pub embeddings: Embeddings<B>,
    /// The rest.
    pub encoder: Stages<B>,
    /// Of the mean of the last maps.
    pub layernorm: LayerNorm<B>,
}

/// The first convolution with its norm.
#[derive(Module, Debug)]
pub struct Embeddings<B: Backend> {
    /// Its stride is a patch.
    pub patch_embeddings: Convolution<B>,
    /// Over the channels.
    pub layernorm: LayerNorm<B>,
}

/// Stages of layers.
#[derive(Module, Debug)]
pub struct Stages<B: Backend> {
    /// Each but the first halves the image.
    pub stages: Vec<Stage<B>>,
}

/// Layers of one width.
#[derive(Module, Debug)]
pub struct Stage<B: Backend> {
    /// Before the layers.
    pub downsampling_layer: Option<Downsampling<B>>,
    /// In their order.
    pub layers: Vec<Layer<B>>,
}

/// Halves an image.
#[derive(Module, Debug)]
pub struct Downsampling<B: Backend> {
    /// Over the channels.
    pub norm: LayerNorm<B>,
    /// 2x2, stride 2.
    pub convolution: Convolution<B>,
}

/// A depthwise convolution, then a feed-forward block at every place.
#[derive(Module, Debug)]
pub struct Layer<B: Backend> {
    /// 7x7, a kernel a channel.
    pub dwconv: Convolution<B>,
    /// Over the channels.
    pub layernorm: LayerNorm<B>,
    /// To four times the width.
    pub pwconv1: Linear<B>,
    /// And back.
    pub pwconv2: Linear<B>,
    /// `[width]`
    pub layer_scale_parameter: Option<Param<Tensor<B, 1>>>,
    activation: Activation,
    drop_path: f64,
}

/// Channels last, `[batch * height * width, channels]`.
fn rows<B: Backend>(images: Tensor<B, 4>) -> Tensor<B, 2> {
    let [batch, channels, height, width] = images.dims();
    images
        .permute([0, 2, 3, 1])
        .reshape([batch * height * width, channels])
}

/// Channels first again.
fn images<B: Backend>(rows: Tensor<B, 2>, [batch, height, width]: [usize; 3]) -> Tensor<B, 4> {
    let channels = rows.dims()[1];
    rows.reshape([batch, height, width, channels])
        .permute([0, 3, 1, 2])
}

/// A norm over the channels of images.
fn normed<B: Backend>(norm: &LayerNorm<B>, x: Tensor<B, 4>) -> Tensor<B, 4> {
    let [batch, _, height, width] = x.dims();
    images(norm.forward(rows(x)), [batch, height, width])
}

impl<B: Backend> Layer<B> {
    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, _, height, width] = x.dims();
        let hidden = self.layernorm.forward(rows(self.dwconv.forward(x.clone())));
        let wide = self.activation.apply(self.pwconv1.forward(hidden));
        let mut hidden = self.pwconv2.forward(wide);
        if let Some(scale) = &self.layer_scale_parameter {
            hidden = hidden * scale.val().unsqueeze();
        }
        x + drop_path(images(hidden, [batch, height, width]), self.drop_path)
    }
}

/// Whole images set to zero, the others scaled up: Huang et al. 2016, <https://arxiv.org/abs/1603.09382>.
fn drop_path<B: Backend>(x: Tensor<B, 4>, rate: f64) -> Tensor<B, 4> {
    if rate == 0.0 || !B::ad_enabled(&x.device()) {
        return x;
    }
    let keep = 1.0 - rate;
    let kept = burn::tensor::Distribution::Bernoulli(keep);
    let mask = Tensor::random([x.dims()[0], 1, 1, 1], kept, &x.device());
    x * mask.div_scalar(keep)
}

impl<B: Backend> ConvNext<B> {
    /// Maps after each stage, and the normed mean of the last.
    ///
    /// - images: `[batch, num_channels, height, width]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
        let Embeddings {
            patch_embeddings,
            layernorm,
        } = &self.embeddings;
        let mut hidden = normed(layernorm, patch_embeddings.forward(images));
        let mut levels = Vec::new();
        for stage in &self.encoder.stages {
            if let Some(Downsampling { norm, convolution }) = &stage.downsampling_layer {
                hidden = convolution.forward(normed(norm, hidden));
            }
            hidden = stage
                .layers
                .iter()
                .fold(hidden, |hidden, layer| layer.forward(hidden));
            levels.push(hidden.clone());
        }
        Pyramid {
            pooled: self.pool(hidden),
            levels,
        }
    }

    /// The normed mean, `[batch, channels]`, of the maps of the last stage.
    pub fn pool(&self, maps: Tensor<B, 4>) -> Tensor<B, 2> {
        self.layernorm.forward(global_avg_pool(maps))
    }
}
