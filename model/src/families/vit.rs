//! The Vision Transformer, with the names of Hugging Face's `ViTModel`: patches of an image as a sentence, and a class token
//! before them.
//!
//! Dosovitskiy et al. 2021, <https://arxiv.org/abs/2010.11929>. In: images. Out: a state for each patch, and that of the class
//! token.

mod attentions;

use burn::module::{Initializer, Param};
use burn::prelude::*;
use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};

pub use self::attentions::PatchAttentions;
use crate::families::bert::encoder_parameters;
use crate::families::{ImagePlan, Pyramid, check_dropout, check_heads, check_sizes};
use crate::layers::{Convolution, Draw, LayerNorm, Linear};
use crate::names::{Family, Foreign, HeadKind, HeadNames};
use crate::ops::{
    Activation, AttentionMask, AttentionShape, Geometry, attention, dropout, resize_bicubic,
};

/// Names of ViT in a bundle.
pub const NAMES: Family = Family {
    prefix: "vit.",
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "ViTModel",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "ViTForImageClassification",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Patches,
            class: "ViTMAEForPreTraining",
            renames: &[("", "decoder.")],
            aliases: &[],
        },
    ],
    layer: "encoder.layer.",
    tables: &["embeddings."],
    ignored: &["embeddings.mask_token"],
    optional: &["pooler."],
    adapter_targets: &["query", "value"],
    bottleneck_targets: &[r".*layer\.\d+\.output\.dense"],
    first: "embeddings.patch_embeddings.projection.weight",
    positions: "embeddings.position_embeddings",
    torchvision: Some(torchvision),
    ..Family::of_images("vit")
};

/// What torchvision calls a parameter: queries, keys and values are one matrix there.
fn torchvision(name: &str) -> Option<Foreign> {
    let name = name.strip_prefix("vit.").unwrap_or(name);
    let whole = |name: &str| Some(Foreign::whole(name));
    match name {
        "embeddings.cls_token" => return whole("class_token"),
        "embeddings.position_embeddings" => return whole("encoder.pos_embedding"),
        _ => {}
    }
    if let Some(part) = name.strip_prefix("embeddings.patch_embeddings.projection.") {
        return whole(&format!("conv_proj.{part}"));
    }
    if let Some(part) = name.strip_prefix("layernorm.") {
        return whole(&format!("encoder.ln.{part}"));
    }
    if let Some(part) = name.strip_prefix("classifier.") {
        return whole(&format!("heads.head.{part}"));
    }
    let (number, inside) = name.strip_prefix("encoder.layer.")?.split_once('.')?;
    let (layer, kind) = inside.rsplit_once('.')?;
    let at = format!("encoder.layers.encoder_layer_{number}");
    let third = |part| Foreign {
        name: format!("{at}.self_attention.in_proj_{kind}"),
        part: Some([part, 3]),
        axes: 0,
    };
    Some(match layer {
        "attention.attention.query" => third(0),
        "attention.attention.key" => third(1),
        "attention.attention.value" => third(2),
        "attention.output.dense" => Foreign::whole(format!("{at}.self_attention.out_proj.{kind}")),
        "layernorm_before" => Foreign::whole(format!("{at}.ln_1.{kind}")),
        "layernorm_after" => Foreign::whole(format!("{at}.ln_2.{kind}")),
        "intermediate.dense" => Foreign::whole(format!("{at}.mlp.0.{kind}")),
        "output.dense" => Foreign::whole(format!("{at}.mlp.3.{kind}")),
        _ => return None,
    })
}

/// One number for both sides, or height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sides {
    /// Of a square.
    Square(usize),
    /// Height and width.
    Both([usize; 2]),
}

impl Sides {
    /// Height and width.
    pub fn both(self) -> [usize; 2] {
        match self {
            Self::Square(side) => [side; 2],
            Self::Both(sides) => sides,
        }
    }

    /// Of these sides, as one number where they are equal.
    pub fn of([height, width]: [usize; 2]) -> Self {
        if height == width {
            Self::Square(height)
        } else {
            Self::Both([height, width])
        }
    }
}

/// `config.json` of a ViT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViTConfig {
    /// Width of the hidden states, d_model.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads a layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width between the two feed-forward projections.
    pub intermediate_size: usize,
    /// Activation of the feed-forward block.
    #[serde(default = "gelu")]
    pub hidden_act: Activation,
    /// Dropout after the embeddings and after each block.
    #[serde(default)]
    pub hidden_dropout_prob: f64,
    /// Dropout on the attention probabilities.
    #[serde(default)]
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of the initial weights.
    #[serde(default = "standard_deviation")]
    pub initializer_range: f64,
    /// Epsilon of every layer norm.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// Of an image, in pixels.
    #[serde(default = "usual_size")]
    pub image_size: Sides,
    /// Of a patch, in pixels.
    #[serde(default = "usual_patch")]
    pub patch_size: Sides,
    /// Channels of an image.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Whether queries, keys and values have a bias.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
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
fn usual_size() -> Sides {
    Sides::Square(224)
}
fn usual_patch() -> Sides {
    Sides::Square(16)
}
fn three() -> usize {
    3
}
fn yes() -> bool {
    true
}

impl ViTConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let ([height, width], [patch_height, patch_width]) =
            (self.image_size.both(), self.patch_size.both());
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("num_channels", self.num_channels),
            ("patch_size", patch_height.min(patch_width)),
        ])?;
        check_heads(self.num_attention_heads, self.hidden_size)?;
        check_dropout(&[self.hidden_dropout_prob, self.attention_probs_dropout_prob])?;
        if height < patch_height || width < patch_width {
            return Err(format!(
                "patches of {patch_height}x{patch_width} pixels do not fit into images of {height}x{width}; \
                 patch_size is their size"
            ));
        }
        Ok(())
    }

    /// Rows and columns of patches.
    pub fn grid(&self) -> [usize; 2] {
        let ([height, width], [patch_height, patch_width]) =
            (self.image_size.both(), self.patch_size.both());
        [height / patch_height, width / patch_width]
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        let [rows, columns] = self.grid();
        ImagePlan {
            channels: self.num_channels,
            size: Some(self.image_size.both()),
            width: self.hidden_size,
            levels: vec![self.hidden_size],
            parameters: encoder_parameters(
                rows * columns + 1,
                self.hidden_size,
                self.num_hidden_layers,
                self.intermediate_size,
            ),
        }
    }

    /// Fits the model to images of this shape; the table of positions has another length then.
    pub fn fit(&mut self, [channels, height, width]: [usize; 3]) {
        self.num_channels = channels;
        if self.image_size.both() != [height, width] {
            self.image_size = Sides::of([height, width]);
        }
    }

    /// Draws an encoder; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> ViT<B> {
        let draw = &draw.with_std(self.initializer_range);
        let width = self.hidden_size;
        let [rows, columns] = self.grid();
        let table = |n: usize| {
            let std = self.initializer_range;
            Initializer::Normal { mean: 0.0, std }.init([1, n, width], draw.device)
        };
        let patch = self.patch_size.both();
        let projection = Convolution::normal(
            [self.num_channels, width],
            patch,
            Geometry::new(patch, [0, 0]),
            self.initializer_range,
            draw.device,
        );
        let layer = |number: usize| self.layer(&draw.inside(&format!("encoder.layer.{number}")));
        ViT {
            embeddings: Embeddings {
                cls_token: table(1),
                position_embeddings: table(rows * columns + 1),
                patch_embeddings: Patches {
                    projection: projection.with_bias(),
                },
            },
            encoder: Encoder {
                layer: (0..self.num_hidden_layers).map(layer).collect(),
            },
            layernorm: draw.norm(width, self.layer_norm_eps),
            grid: self.grid(),
            dropout: self.hidden_dropout_prob,
        }
    }

    /// Draws a layer.
    pub(crate) fn layer<B: Backend>(&self, draw: &Draw<'_, B>) -> Layer<B> {
        let width = self.hidden_size;
        let square = |name: &str| {
            let name = format!("attention.attention.{name}");
            if self.qkv_bias {
                draw.linear(&name, width, width)
            } else {
                draw.linear_without_bias(&name, width, width)
            }
        };
        let norm = || draw.norm(width, self.layer_norm_eps);
        Layer {
            attention: Attention {
                attention: Projections {
                    query: square("query"),
                    key: square("key"),
                    value: square("value"),
                },
                output: Dense {
                    dense: draw.linear("attention.output.dense", width, width),
                },
            },
            intermediate: Dense {
                dense: draw.linear("intermediate.dense", width, self.intermediate_size),
            },
            output: Dense {
                dense: draw.linear("output.dense", self.intermediate_size, width),
            },
            layernorm_before: norm(),
            layernorm_after: norm(),
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            dropout: self.hidden_dropout_prob,
            attention_dropout: self.attention_probs_dropout_prob,
        }
    }
}

/// Sines and cosines of a grid's columns and rows, `[1, rows * columns + 1, width]`, of a class token zeros: positions that tell
/// neighbours apart before anything is learned. As He et al. 2022, <https://arxiv.org/abs/2111.06377>, begin with.
///
/// - width: a multiple of 4
pub fn sine_positions<B: Backend>(
    [rows, columns]: [usize; 2],
    width: usize,
    device: &B::Device,
) -> Tensor<B, 3> {
    let waves = width / 4;
    let of_place = |place: usize| {
        let angle = move |wave: usize| place as f64 / 10_000f64.powf(wave as f64 / waves as f64);
        let sines = (0..waves).map(move |wave| angle(wave).sin() as f32);
        sines.chain((0..waves).map(move |wave| angle(wave).cos() as f32))
    };
    let mut values = vec![0.0; width];
    for row in 0..rows {
        for column in 0..columns {
            values.extend(of_place(column));
            values.extend(of_place(row));
        }
    }
    let n = values.len() / width;
    Tensor::from_data(TensorData::new(values, [1, n, width]), device)
}

/// A ViT without its head.
#[derive(Module, Debug)]
pub struct ViT<B: Backend> {
    /// Patches to states.
    pub embeddings: Embeddings<B>,
    /// The layers.
    pub encoder: Encoder<B>,
    /// Of the last states.
    pub layernorm: LayerNorm<B>,
    grid: [usize; 2],
    dropout: f64,
}

/// Class token, positions and patches.
#[derive(Module, Debug)]
pub struct Embeddings<B: Backend> {
    /// `[1, 1, d_model]`
    pub cls_token: Param<Tensor<B, 3>>,
    /// `[1, patches + 1, d_model]`, the class token's first.
    pub position_embeddings: Param<Tensor<B, 3>>,
    /// To states.
    pub patch_embeddings: Patches<B>,
}

/// What makes states of patches.
#[derive(Module, Debug)]
pub struct Patches<B: Backend> {
    /// Its stride is a patch.
    pub projection: Convolution<B>,
}

/// The layers.
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    /// In their order.
    pub layer: Vec<Layer<B>>,
}

/// Attention and a feed-forward block, each after a norm.
#[derive(Module, Debug)]
pub struct Layer<B: Backend> {
    /// Among all patches.
    pub attention: Attention<B>,
    /// To the inner width.
    pub intermediate: Dense<B>,
    /// And back.
    pub output: Dense<B>,
    /// Before attention.
    pub layernorm_before: LayerNorm<B>,
    /// Before the feed-forward block.
    pub layernorm_after: LayerNorm<B>,
    heads: usize,
    activation: Activation,
    dropout: f64,
    attention_dropout: f64,
}

/// Projections and what follows the attention.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// Of queries, keys and values.
    pub attention: Projections<B>,
    /// Of the result.
    pub output: Dense<B>,
}

/// Queries, keys and values.
#[derive(Module, Debug)]
pub struct Projections<B: Backend> {
    /// `[d_model, d_model]`
    pub query: Linear<B>,
    /// `[d_model, d_model]`
    pub key: Linear<B>,
    /// `[d_model, d_model]`
    pub value: Linear<B>,
}

/// A linear layer.
#[derive(Module, Debug)]
pub struct Dense<B: Backend> {
    /// It.
    pub dense: Linear<B>,
}

impl<B: Backend> Layer<B> {
    /// `[batch * seq, d_model]` in and out.
    pub(crate) fn forward(&self, states: Tensor<B, 2>, [batch, seq]: [usize; 2]) -> Tensor<B, 2> {
        let normal = self.layernorm_before.forward(states.clone());
        let Projections { query, key, value } = &self.attention.attention;
        let projected = [query, key, value].map(|layer| layer.forward(normal.clone()));
        let shape = AttentionShape::square(batch, seq, self.heads);
        let mask = AttentionMask::default();
        let mixed = attention(projected, &mask, shape, self.attention_dropout);
        let mixed = self.attention.output.dense.forward(mixed);
        let states = states + dropout(mixed, self.dropout);
        let normal = self.layernorm_after.forward(states.clone());
        let wide = self
            .activation
            .apply(self.intermediate.dense.forward(normal));
        states + dropout(self.output.dense.forward(wide), self.dropout)
    }
}

impl<B: Backend> ViT<B> {
    /// States of the patches as a map, and that of the class token.
    ///
    /// - images: `[batch, num_channels, height, width]`, of any size that holds a patch
    pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
        let (patches, grid) = self.patches(images);
        let [batch, n, width] = patches.dims();
        let tokens = self.with_class_token(patches + self.positions(grid));
        let states = self.encode(tokens);
        let class = states.clone().slice([0..batch, 0..1]);
        let [rows, columns] = grid;
        let map = states.slice([0..batch, 1..n + 1]);
        let map = map.swap_dims(1, 2).reshape([batch, width, rows, columns]);
        Pyramid {
            levels: vec![map],
            pooled: class.reshape([batch, width]),
        }
    }

    /// States of patches without their positions, `[batch, rows * columns, d_model]`, and rows and columns.
    ///
    /// - images: `[batch, num_channels, height, width]`
    pub fn patches(&self, images: Tensor<B, 4>) -> (Tensor<B, 3>, [usize; 2]) {
        let map = self.embeddings.patch_embeddings.projection.forward(images);
        let [batch, width, rows, columns] = map.dims();
        let patches = map.reshape([batch, width, rows * columns]);
        (patches.swap_dims(1, 2), [rows, columns])
    }

    /// Positions of a grid of patches, `[1, rows * columns, d_model]`: those that were learned, or what lies between them.
    pub fn positions(&self, [rows, columns]: [usize; 2]) -> Tensor<B, 3> {
        let table = self.embeddings.position_embeddings.val();
        let [_, n, width] = table.dims();
        let learned = table.slice([0..1, 1..n]);
        if [rows, columns] == self.grid {
            return learned;
        }
        let map = learned.swap_dims(1, 2);
        let map = map.reshape([1, width, self.grid[0], self.grid[1]]);
        let map = resize_bicubic(map, [rows, columns]);
        map.reshape([1, width, rows * columns]).swap_dims(1, 2)
    }

    /// States with the class token before them; `[batch, n, d_model]` to `[batch, n + 1, d_model]`.
    pub fn with_class_token(&self, patches: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, _, width] = patches.dims();
        let table = self.embeddings.position_embeddings.val();
        let class = self.embeddings.cls_token.val() + table.slice([0..1, 0..1]);
        Tensor::cat(vec![class.expand([batch, 1, width]), patches], 1)
    }

    /// The layers and the last norm; `[batch, n, d_model]` in and out.
    pub fn encode(&self, tokens: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, n, width] = tokens.dims();
        let states = dropout(tokens.reshape([batch * n, width]), self.dropout);
        let states = self
            .encoder
            .layer
            .iter()
            .fold(states, |states, layer| layer.forward(states, [batch, n]));
        self.layernorm.forward(states).reshape([batch, n, width])
    }
}
