//! A convolutional autoencoder: strided convolutions to a latent vector, and their mirror image back.
//!
//! In: images. Out: logits of the reconstructed pixels (a sigmoid makes pixels of them).

use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::{ImagePlan, Pyramid};
use crate::layers::{Draw, Linear};
use crate::names::{Family, HeadKind, HeadNames};
use crate::ops::{Geometry, conv_transpose2d, conv2d, gelu};

/// Names of the autoencoder in a bundle.
pub const NAMES: Family = Family {
    prefix: "encoder.",
    heads: &[
        HeadNames {
            kind: HeadKind::Bare,
            class: "HearthConvEncoder",
            renames: &[],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Pixels,
            class: "HearthConvAutoencoder",
            renames: &[("", "decoder.")],
            aliases: &[],
        },
        HeadNames {
            kind: HeadKind::Classes,
            class: "HearthConvImageClassifier",
            renames: &[("output.", "classifier.")],
            aliases: &[],
        },
    ],
    layer: "encoder.convolutions.",
    ..Family::of_images("hearth_conv")
};

/// Kernels are 3x3; they halve an image, or double it.
const KERNEL: [usize; 2] = [3, 3];
const HALVING: Geometry = Geometry::new([2, 2], [1, 1]);

/// Channels of the first convolution of a mirror, and the most of any.
const FEWEST: usize = 16;
const MOST: usize = 128;
/// Height and width of the last maps of a mirror, at most.
const DEEPEST: usize = 7;

/// `config.json` of an autoencoder, or of its encoder with another head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoencoderConfig {
    /// Channels of an image: 1 grey, 3 RGB.
    pub image_channels: usize,
    /// Height of an image, in pixels.
    pub image_height: usize,
    /// Width of an image, in pixels.
    pub image_width: usize,
    /// Channels after each convolution; each halves height and width (rounding up).
    pub channels: Vec<usize>,
    /// Size of the latent vector.
    pub latent_size: usize,
}

impl AutoencoderConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        if !matches!(self.image_channels, 1 | 3) {
            return Err(format!(
                "{} image channels; 1 or 3 are known",
                self.image_channels
            ));
        }
        if self.image_height == 0 || self.image_width == 0 {
            return Err("an image without pixels".into());
        }
        if self.channels.is_empty() || self.channels.contains(&0) {
            return Err(format!(
                "channels are {:?}; each must be at least 1",
                self.channels
            ));
        }
        if self.latent_size == 0 {
            return Err("latent_size is 0".into());
        }
        if self.channels.len() > 1 && self.sizes()[self.channels.len() - 1] == (1, 1) {
            return Err(format!(
                "{} convolutions are too many for {}x{} pixels",
                self.channels.len(),
                self.image_height,
                self.image_width
            ));
        }
        Ok(())
    }

    /// Height and width before each convolution and after the last one.
    fn sizes(&self) -> Vec<(usize, usize)> {
        let mut sizes = vec![(self.image_height, self.image_width)];
        for _ in &self.channels {
            let (height, width) = sizes[sizes.len() - 1];
            sizes.push((height.div_ceil(2), width.div_ceil(2)));
        }
        sizes
    }

    /// Channels, height and width of what the last convolution gives.
    fn deepest(&self) -> [usize; 3] {
        let (height, width) = self.sizes()[self.channels.len()];
        [self.channels[self.channels.len() - 1], height, width]
    }

    /// One that gives images of this shape back from states this wide: its last maps are at most 7 pixels high and wide.
    pub fn mirror([channels, height, width]: [usize; 3], latent_size: usize) -> Self {
        let mut config = Self {
            image_channels: channels,
            image_height: height,
            image_width: width,
            channels: vec![FEWEST],
            latent_size,
        };
        let largest = |config: &Self| {
            let [_, height, width] = config.deepest();
            height.max(width)
        };
        while largest(&config) > DEEPEST {
            let next = (2 * config.channels[config.channels.len() - 1]).min(MOST);
            config.channels.push(next);
        }
        config
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        ImagePlan {
            channels: self.image_channels,
            size: Some([self.image_height, self.image_width]),
            width: self.latent_size,
            levels: self.channels.clone(),
            parameters: self.parameters(),
        }
    }

    /// Fits the model to images of this shape.
    pub fn fit(&mut self, shape: [usize; 3]) {
        [self.image_channels, self.image_height, self.image_width] = shape;
    }

    /// Number of parameters, roughly.
    fn parameters(&self) -> f64 {
        let (mut width, mut parameters) = (self.image_channels as f64, 0.0);
        for &channels in &self.channels {
            let channels = channels as f64;
            // Kernels of 3x3, in the encoder and in the decoder.
            parameters += 2.0 * 9.0 * width * channels;
            width = channels;
        }
        let (height, width_left) = self.sizes()[self.channels.len()];
        let deepest = width * height as f64 * width_left as f64;
        parameters + 2.0 * deepest * self.latent_size as f64
    }

    /// Draws an encoder; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> Encoder<B> {
        let device = draw.device;
        let inputs = [self.image_channels]
            .into_iter()
            .chain(self.channels.clone());
        let [channels, height, width] = self.deepest();
        Encoder {
            convolutions: inputs
                .zip(&self.channels)
                .map(|(d_in, &d_out)| {
                    Conv2dConfig::new([d_in, d_out], KERNEL)
                        .with_stride(HALVING.stride)
                        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                        .init(device)
                })
                .collect(),
            latent: draw.uniform_linear("latent", channels * height * width, self.latent_size),
        }
    }

    /// Draws a decoder; the weights are a function of the backend's seed.
    pub fn init_decoder<B: Backend>(&self, draw: &Draw<'_, B>) -> Decoder<B> {
        let sizes = self.sizes();
        let outputs: Vec<usize> = [self.image_channels]
            .into_iter()
            .chain(self.channels.iter().copied())
            .take(self.channels.len())
            .collect();
        let [channels, height, width] = self.deepest();
        let transposed = |(level, d_out): (usize, usize)| {
            // A stride of 2 gives an even size back; an odd one takes one pixel less.
            let odd = |size: usize| size % 2;
            let (height, width) = sizes[level];
            ConvTranspose2dConfig::new([self.channels[level], d_out], KERNEL)
                .with_stride(HALVING.stride)
                .with_padding(HALVING.padding)
                .with_padding_out([1 - odd(height), 1 - odd(width)])
                .init(draw.device)
        };
        Decoder {
            latent: draw.uniform_linear("latent", self.latent_size, channels * height * width),
            convolutions: outputs
                .into_iter()
                .enumerate()
                .rev()
                .map(transposed)
                .collect(),
            shape: [channels, height, width],
        }
    }
}

/// Strided convolutions and a projection.
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    /// Each 3x3, stride 2, followed by GELU.
    pub convolutions: Vec<Conv2d<B>>,
    /// To the latent vector.
    pub latent: Linear<B>,
}

impl<B: Backend> Encoder<B> {
    /// Maps after each convolution, and what a classifier reads, `[batch, latent_size]`.
    ///
    /// - images: `[batch, channels, height, width]`, pixels 0 to 1
    pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
        let levels = self.levels(images);
        let deepest = levels[levels.len() - 1].clone();
        Pyramid {
            pooled: self.pool(deepest),
            levels,
        }
    }

    /// What a classifier reads, `[batch, latent_size]`, of the maps of the last convolution.
    pub fn pool(&self, maps: Tensor<B, 4>) -> Tensor<B, 2> {
        gelu(self.latent.forward(maps.flatten(1, 3)))
    }

    /// Latent vectors.
    ///
    /// - images: `[batch, channels, height, width]`, pixels 0 to 1
    /// - out: `[batch, latent_size]`
    pub fn latent(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let mut levels = self.levels(images);
        let deepest = levels.swap_remove(levels.len() - 1);
        drop(levels);
        self.latent.forward(deepest.flatten(1, 3))
    }

    fn levels(&self, images: Tensor<B, 4>) -> Vec<Tensor<B, 4>> {
        let mut hidden = images.cast(self.convolutions[0].weight.val().dtype());
        let mut levels = Vec::new();
        for convolution in &self.convolutions {
            let Conv2d { weight, bias, .. } = convolution;
            let bias = bias.as_ref().map(Param::val);
            hidden = gelu(conv2d(hidden, weight.val(), bias, HALVING));
            levels.push(hidden.clone());
        }
        levels
    }
}

/// A projection and transposed convolutions.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    /// From the latent vector.
    pub latent: Linear<B>,
    /// Each 3x3, stride 2; GELU between them.
    pub convolutions: Vec<ConvTranspose2d<B>>,
    shape: [usize; 3],
}

impl<B: Backend> Decoder<B> {
    /// - latent: `[batch, latent_size]`
    /// - out: `[batch, channels, height, width]`, logits of the pixels
    pub fn forward(&self, latent: Tensor<B, 2>) -> Tensor<B, 4> {
        let [batch, _] = latent.dims();
        let [channels, height, width] = self.shape;
        let mut hidden = self
            .latent
            .forward(latent)
            .reshape([batch, channels, height, width]);
        for convolution in &self.convolutions {
            let ConvTranspose2d {
                weight,
                bias,
                padding_out,
                ..
            } = convolution;
            let bias = bias.as_ref().map(Param::val);
            hidden = conv_transpose2d(gelu(hidden), weight.val(), bias, HALVING, *padding_out);
        }
        hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::tensor::activation::sigmoid;

    fn config(
        channels: usize,
        height: usize,
        width: usize,
        convolutions: &[usize],
    ) -> AutoencoderConfig {
        AutoencoderConfig {
            image_channels: channels,
            image_height: height,
            image_width: width,
            channels: convolutions.to_vec(),
            latent_size: 4,
        }
    }

    #[test]
    fn reconstructions_have_the_shape_of_the_images() {
        let device = Default::default();
        // 28 -> 14 -> 7 -> 4; 30x21 -> 15x11 -> 8x6 -> 4x3; and one pixel high all the way.
        for (channels, height, width) in [(1, 28, 28), (3, 30, 21), (1, 1, 9)] {
            let config = config(channels, height, width, &[2, 3, 4]);
            config.check().unwrap();
            let draw = Draw::<Flex>::new(&device, 0.02);
            let images = Tensor::zeros([2, channels, height, width], &device);
            let latent = config.init(&draw).latent(images);
            assert_eq!(latent.dims(), [2, 4]);
            let pixels = sigmoid(config.init_decoder(&draw).forward(latent));
            assert_eq!(pixels.dims(), [2, channels, height, width]);
            assert!(
                pixels
                    .into_data()
                    .iter::<f32>()
                    .all(|pixel| (0.0..=1.0).contains(&pixel))
            );
        }
    }

    #[test]
    fn sizes_halve_and_round_up() {
        let sizes = config(1, 30, 21, &[2, 3, 4]).sizes();
        assert_eq!(sizes, [(30, 21), (15, 11), (8, 6), (4, 3)]);
    }

    #[test]
    fn a_mirror_has_as_many_levels_as_its_images_need() {
        let mirror = AutoencoderConfig::mirror([3, 224, 96], 10);
        assert_eq!(mirror.channels, [16, 32, 64, 128, 128]);
        assert_eq!((mirror.deepest(), mirror.check()), ([128, 7, 3], Ok(())));
        assert_eq!(AutoencoderConfig::mirror([1, 5, 3], 1).channels, [16]);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(
            config(2, 8, 8, &[2]).check().unwrap_err(),
            "2 image channels; 1 or 3 are known"
        );
        assert_eq!(
            config(1, 0, 8, &[2]).check().unwrap_err(),
            "an image without pixels"
        );
        assert_eq!(
            config(1, 8, 8, &[2, 0]).check().unwrap_err(),
            "channels are [2, 0]; each must be at least 1"
        );
        assert_eq!(
            config(1, 4, 4, &[2, 2, 2, 2]).check().unwrap_err(),
            "4 convolutions are too many for 4x4 pixels"
        );
    }
}
