//! A masked autoencoder: a vision transformer sees a few patches of an image, and a small one gives the others back.
//!
//! He et al. 2022, <https://arxiv.org/abs/2111.06377>, with the names of Hugging Face's `ViTMAEForPreTraining`. In: images, and
//! which patches are seen. Out: the pixels of each patch.

use burn::module::{Initializer, Param};
use burn::prelude::*;
use burn::tensor::{FloatDType, TensorData};
use serde::{Deserialize, Serialize};

use crate::families::vit::{self, ViT, ViTConfig};
use crate::heads::{Headed, check_head_sizes};
use crate::layers::{Draw, LayerNorm, Linear};
use crate::registry::{ImageBackbone, ImageConfig};

/// Added to the variance of a patch.
const EPSILON: f64 = 1e-6;

/// What `config.json` says of the head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskedConfig {
    /// Width of the decoder's states.
    pub decoder_hidden_size: usize,
    /// Layers of the decoder.
    pub decoder_num_hidden_layers: usize,
    /// Attention heads a layer; divides `decoder_hidden_size`.
    pub decoder_num_attention_heads: usize,
    /// Width between the two feed-forward projections.
    pub decoder_intermediate_size: usize,
    /// Share of the patches that is hidden.
    pub mask_ratio: f64,
    /// Whether the pixels of each patch are given back with mean 0 and deviation 1.
    pub norm_pix_loss: bool,
}

impl MaskedConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let Self {
            decoder_hidden_size: width,
            decoder_num_attention_heads: heads,
            mask_ratio,
            ..
        } = *self;
        check_head_sizes(&[
            ("decoder_hidden_size", width),
            ("decoder_num_attention_heads", heads),
            ("decoder_intermediate_size", self.decoder_intermediate_size),
            ("decoder_num_hidden_layers", self.decoder_num_hidden_layers),
        ])?;
        if !width.is_multiple_of(heads) {
            return Err(format!(
                "{heads} attention heads do not divide a width of {width}"
            ));
        }
        if !(mask_ratio > 0.0 && mask_ratio < 1.0) {
            return Err(format!(
                "mask_ratio is {mask_ratio}; it must be between 0 and 1"
            ));
        }
        Ok(())
    }

    /// How many of so many patches are seen: at least one, and not all.
    pub fn visible(&self, patches: usize) -> usize {
        let seen = (patches as f64 * (1.0 - self.mask_ratio)) as usize;
        seen.clamp(1, patches.saturating_sub(1).max(1))
    }
}

/// A small transformer that gives patches back.
#[derive(Module, Debug)]
pub struct PatchDecoder<B: Backend> {
    /// From the encoder's width.
    pub decoder_embed: Linear<B>,
    /// The decoder's input for a hidden patch, `[1, 1, d_decoder]`.
    pub mask_token: Param<Tensor<B, 3>>,
    /// `[1, patches + 1, d_decoder]`, the class token's first.
    pub decoder_pos_embed: Param<Tensor<B, 3>>,
    /// As the encoder's.
    pub decoder_layers: Vec<vit::Layer<B>>,
    /// Of the last states.
    pub decoder_norm: LayerNorm<B>,
    /// To the pixels of a patch: rows, then columns, then channels.
    pub decoder_pred: Linear<B>,
}

/// A vision transformer and the decoder of its patches.
pub type MaskedAutoencoder<B> = Headed<B, ImageBackbone<B>, PatchDecoder<B>>;

/// Which patches of each image of a batch are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The patches of each image, the seen ones first; `[batch, patches]`.
    pub patches: Vec<u32>,
    /// Images.
    pub batch: usize,
    /// How many are seen, of each.
    pub visible: usize,
}

impl Order {
    /// Patches of an image.
    pub fn n(&self) -> usize {
        self.patches.len() / self.batch.max(1)
    }

    /// 1 where a patch is hidden, `[batch, patches]`.
    pub fn hidden(&self) -> Vec<f32> {
        let n = self.n();
        let mut hidden = vec![0.0; self.patches.len()];
        for (image, order) in self.patches.chunks(n).enumerate() {
            for &patch in &order[self.visible..] {
                hidden[image * n + patch as usize] = 1.0;
            }
        }
        hidden
    }

    /// The same as a tensor, `[batch, patches, 1]`.
    pub fn hidden_patches<B: Backend>(&self, device: &B::Device) -> Tensor<B, 3> {
        let data = TensorData::new(self.hidden(), [self.batch, self.n(), 1]);
        Tensor::from_data(data, device)
    }

    /// Rows of all seen patches in a flattened `[batch * patches]`.
    fn seen_rows(&self) -> Vec<i32> {
        let n = self.n();
        let rows = self.patches.chunks(n).enumerate();
        let of_image = |(image, order): (usize, &[u32])| {
            let rows = order[..self.visible].iter();
            rows.map(move |&patch| (image * n) as i32 + patch as i32)
                .collect::<Vec<_>>()
        };
        rows.flat_map(of_image).collect()
    }

    /// For each patch of each image its row among the class tokens and seen patches, `[batch * (visible + 1)]`, or the row
    /// behind them all, which is the mask's; class tokens are in front of the patches of their image.
    fn restored_rows(&self) -> Vec<i32> {
        let (n, seen) = (self.n(), self.visible + 1);
        let mask = (self.batch * seen) as i32;
        let mut rows = vec![mask; self.batch * (n + 1)];
        for (image, order) in self.patches.chunks(n).enumerate() {
            let (from, to) = (image * seen, image * (n + 1));
            rows[to] = from as i32;
            for (place, &patch) in order[..self.visible].iter().enumerate() {
                rows[to + 1 + patch as usize] = (from + 1 + place) as i32;
            }
        }
        rows
    }
}

fn indices<B: Backend>(rows: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let n = rows.len();
    Tensor::from_data(TensorData::new(rows, [n]), device)
}

impl<B: Backend> MaskedAutoencoder<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    ///
    /// # Panics
    ///
    /// If the family is not a vision transformer; [`crate::names::Family::head`] says so.
    pub fn draw(config: &ImageConfig, head: MaskedConfig, draw: &Draw<'_, B>) -> Self {
        let ImageConfig::ViT(config) = config else {
            panic!("masked patches are of a vision transformer");
        };
        let mut vit = config.init(&draw.inside("backbone"));
        if config.hidden_size.is_multiple_of(4) {
            let positions = vit::sine_positions(config.grid(), config.hidden_size, draw.device);
            vit.embeddings.position_embeddings = Param::from_tensor(positions);
        }
        let backbone = ImageBackbone::ViT(vit);
        Self::new(
            backbone,
            PatchDecoder::draw(config, head, &draw.inside("head")),
        )
    }

    fn vit(&self) -> &ViT<B> {
        match &self.backbone {
            ImageBackbone::ViT(vit) => vit,
            _ => panic!("masked patches are of a vision transformer"),
        }
    }

    /// What is given back of each patch, `[batch, patches, values]`: rows, then columns, then channels.
    ///
    /// - images: `[batch, channels, height, width]`
    pub fn forward(&self, images: Tensor<B, 4>, order: &Order) -> Tensor<B, 3> {
        let device = images.device();
        let vit = self.vit();
        let (patches, grid) = vit.patches(images);
        let [batch, n, width] = patches.dims();
        let patches = (patches + vit.positions(grid)).reshape([batch * n, width]);
        let seen = patches.select(0, indices(order.seen_rows(), &device));
        let tokens = vit.with_class_token(seen.reshape([batch, order.visible, width]));
        let states = vit.encode(tokens);
        let head = &self.head;
        let embedded = head
            .decoder_embed
            .forward(states.reshape([batch * (order.visible + 1), width]));
        let [_, width] = embedded.dims();
        let mask = head.mask_token.val().reshape([1, width]);
        let all = Tensor::cat(vec![embedded, mask], 0);
        let all = all.select(0, indices(order.restored_rows(), &device));
        let all = all.reshape([batch, n + 1, width]) + head.decoder_pos_embed.val();
        let all = all.reshape([batch * (n + 1), width]);
        let layers = head.decoder_layers.iter();
        let states = layers.fold(all, |states, layer| layer.forward(states, [batch, n + 1]));
        let predicted = head.decoder_pred.forward(head.decoder_norm.forward(states));
        let [_, values] = predicted.dims();
        let predicted = predicted.reshape([batch, n + 1, values]);
        predicted.slice([0..batch, 1..n + 1])
    }
}

/// What a masked autoencoder makes of images, in the values that it sees; all `[batch, channels, height, width]`, of whole
/// patches alone.
#[derive(Clone, Debug)]
pub struct FilledIn<B: Backend> {
    /// As they are.
    pub images: Tensor<B, 4>,
    /// 1 where patches are seen, 0 where they are hidden.
    pub seen: Tensor<B, 4>,
    /// With what the model made of hidden patches.
    pub whole: Tensor<B, 4>,
}

impl<B: Backend> MaskedAutoencoder<B> {
    /// Gives hidden patches back.
    ///
    /// - images: `[batch, channels, height, width]`
    /// - patch: height and width of a patch
    /// - normalised: whether the model gives each patch with mean 0 and deviation 1; both are those of the image then
    pub fn fill_in(
        &self,
        images: Tensor<B, 4>,
        order: &Order,
        patch: [usize; 2],
        normalised: bool,
    ) -> FilledIn<B> {
        let ([.., height, width], device) = (images.dims(), images.device());
        let predicted = self.forward(images.clone(), order).cast(FloatDType::F32);
        let patches = patchify(images, patch);
        let predicted = if normalised {
            let (mean, deviation) = patch_statistics(patches.clone());
            predicted * deviation + mean
        } else {
            predicted
        };
        let hidden = order.hidden_patches::<B>(&device);
        let seen = hidden.clone() * -1.0 + 1.0;
        let whole = patches.clone() * seen.clone() + predicted * hidden;
        let grid = [height / patch[0], width / patch[1]];
        let picture = |patches| unpatchify(patches, grid, patch);
        FilledIn {
            seen: picture(seen.expand(patches.dims())),
            images: picture(patches),
            whole: picture(whole),
        }
    }
}

/// Mean and deviation of each patch's values, `[batch, patches, 1]` each; the variance is the unbiased one.
pub fn patch_statistics<B: Backend>(patches: Tensor<B, 3>) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let [.., values] = patches.dims();
    let mean = patches.clone().mean_dim(2);
    let off = patches - mean.clone();
    let variance = (off.clone() * off).sum_dim(2) / (values.max(2) - 1) as f64;
    (mean, (variance + EPSILON).sqrt())
}

impl<B: Backend> PatchDecoder<B> {
    fn draw(config: &ViTConfig, head: MaskedConfig, draw: &Draw<'_, B>) -> Self {
        let [rows, columns] = config.grid();
        let [patch_height, patch_width] = config.patch_size.both();
        let width = head.decoder_hidden_size;
        let draw = &draw.with_std(config.initializer_range);
        let table = |n: usize| {
            let std = config.initializer_range;
            Initializer::Normal { mean: 0.0, std }.init([1, n, width], draw.device)
        };
        let layers = ViTConfig {
            hidden_size: width,
            num_attention_heads: head.decoder_num_attention_heads,
            intermediate_size: head.decoder_intermediate_size,
            ..config.clone()
        };
        let layer = |number: usize| layers.layer(&draw.inside(&format!("decoder_layers.{number}")));
        let values = config.num_channels * patch_height * patch_width;
        Self {
            decoder_embed: draw.linear("decoder_embed", config.hidden_size, width),
            mask_token: table(1),
            decoder_pos_embed: if width.is_multiple_of(4) {
                let positions = vit::sine_positions(config.grid(), width, draw.device);
                Param::from_tensor(positions)
            } else {
                table(rows * columns + 1)
            },
            decoder_layers: (0..head.decoder_num_hidden_layers).map(layer).collect(),
            decoder_norm: draw.norm(width, config.layer_norm_eps),
            decoder_pred: draw.linear("decoder_pred", width, values),
        }
    }
}

/// Patches of images, `[batch, rows * columns, values]`: in each rows, then columns, then channels.
///
/// - images: `[batch, channels, height, width]`; what is left of it to the right and below the last whole patch is left out
pub fn patchify<B: Backend>(images: Tensor<B, 4>, [high, wide]: [usize; 2]) -> Tensor<B, 3> {
    let [batch, channels, height, width] = images.dims();
    let (rows, columns) = (height / high, width / wide);
    let images = images.slice([0..batch, 0..channels, 0..rows * high, 0..columns * wide]);
    let patches: Tensor<B, 6> = images.reshape([batch, channels, rows, high, columns, wide]);
    let patches = patches.permute([0, 2, 4, 3, 5, 1]);
    patches.reshape([batch, rows * columns, high * wide * channels])
}

/// Images of such patches, `[batch, channels, rows * height, columns * width]`.
///
/// - patches: `[batch, rows * columns, values]`
pub fn unpatchify<B: Backend>(
    patches: Tensor<B, 3>,
    [rows, columns]: [usize; 2],
    [high, wide]: [usize; 2],
) -> Tensor<B, 4> {
    let [batch, _, values] = patches.dims();
    let channels = values / (high * wide);
    let images: Tensor<B, 6> = patches.reshape([batch, rows, columns, high, wide, channels]);
    let images = images.permute([0, 5, 1, 3, 2, 4]);
    images.reshape([batch, channels, rows * high, columns * wide])
}
