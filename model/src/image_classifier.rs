//! The autoencoder's encoder with a classification head. In: images. Out: logits over the classes.

use burn::prelude::*;

use crate::autoencoder::{AutoencoderConfig, Encoder};
use crate::linear::Linear;
use crate::ops::gelu;

/// Convolutions, latent vector, GELU, linear.
#[derive(Module, Debug)]
pub struct ImageClassifier<B: Backend> {
    /// The encoder, as pretrained.
    pub encoder: Encoder<B>,
    /// `[latent_size, n_classes]`
    pub classifier: Linear<B>,
}

impl<B: Backend> ImageClassifier<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn new(config: &AutoencoderConfig, n_classes: usize, device: &B::Device) -> Self {
        Self {
            encoder: config.init_encoder(device),
            classifier: Linear::uniform(config.latent_size, n_classes, device),
        }
    }

    /// - images: `[batch, channels, height, width]`, pixels 0 to 1
    /// - out: `[batch, n_classes]`
    pub fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        self.classifier.forward(gelu(self.encoder.forward(images)))
    }
}
