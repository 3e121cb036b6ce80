//! A variational autoencoder: a normal distribution over latent vectors for each image, and a decoder.
//!
//! Kingma and Welling 2014, <https://arxiv.org/abs/1312.6114>. In: images. Out: mean and logarithm of the variance of each latent
//! value, and logits of the pixels.

use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use serde::{Deserialize, Serialize};

use crate::families::conv_autoencoder::{AutoencoderConfig, Decoder};
use crate::heads::{Headed, check_head_sizes};
use crate::layers::{Draw, Linear};
use crate::registry::{ImageBackbone, ImageConfig};

/// What `config.json` says of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariationalConfig {
    /// Values of a latent vector.
    pub decoder_latent_size: usize,
}

impl VariationalConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(self) -> Result<(), String> {
        check_head_sizes(&[("decoder_latent_size", self.decoder_latent_size)])
    }
}

/// A posterior and a decoder.
#[derive(Module, Debug)]
pub struct VariationalHead<B: Backend> {
    /// `[width, latent_size]`
    pub mean: Linear<B>,
    /// `[width, latent_size]`, of the variance.
    pub log_variance: Linear<B>,
    /// From latent vectors to pixels.
    pub decoder: Decoder<B>,
}

/// A backbone whose features are made distributions, and these images again.
pub type VariationalAutoencoder<B> = Headed<B, ImageBackbone<B>, VariationalHead<B>>;

impl<B: Backend> VariationalAutoencoder<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    ///
    /// - shape: channels, height and width of the images
    pub fn draw(
        config: &ImageConfig,
        head: VariationalConfig,
        shape: [usize; 3],
        draw: &Draw<'_, B>,
    ) -> Self {
        let (width, size) = (config.describe().width, head.decoder_latent_size);
        let inside = draw.inside("head");
        let mut log_variance = inside.uniform_linear("log_variance", width, size);
        // A variance of about one for every image: the decoder sees noise as large as the prior's before it has learned.
        log_variance.weight = log_variance.weight.map(|weight| weight * 0.1);
        let head = VariationalHead {
            mean: inside.uniform_linear("mean", width, size),
            log_variance,
            decoder: AutoencoderConfig::mirror(shape, size).init_decoder(&inside.inside("decoder")),
        };
        Self::new(config.init(&draw.inside("backbone")), head)
    }

    /// Mean and logarithm of the variance, `[batch, latent_size]` each.
    ///
    /// - images: `[batch, channels, height, width]`
    pub fn posterior(&self, images: Tensor<B, 4>) -> [Tensor<B, 2>; 2] {
        let features = self.backbone.latent(images);
        [&self.head.mean, &self.head.log_variance].map(|layer| layer.forward(features.clone()))
    }

    /// Logits of the pixels, `[batch, channels, height, width]`.
    ///
    /// - latent: `[batch, latent_size]`
    pub fn decode(&self, latent: Tensor<B, 2>) -> Tensor<B, 4> {
        self.head.decoder.forward(latent)
    }

    /// Pixels, 0 to 1, of the means; `[batch, channels, height, width]` in and out.
    pub fn reconstruct(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let [mean, _] = self.posterior(images);
        sigmoid(self.decode(mean))
    }
}
