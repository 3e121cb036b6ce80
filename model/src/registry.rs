//! The families that there are, a line each. In: `config.json`. Out: a backbone of the family that it names.

use burn::module::Module;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::families::{Plan, TokenInput, bert, conv_autoencoder, distilbert, gpt2, roberta};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::Draw;
use crate::names::{Family, HeadKind, Names};

/// Two enums, a variant a family, and the matches that choose between them.
macro_rules! text_families {
    ($($Variant:ident($file:ident::$Config:ident, $file2:ident::$Model:ident) = $model_type:literal,)+) => {
        /// `config.json` of a text backbone; its `model_type` chooses.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "model_type")]
        #[allow(missing_docs)] // Each is described in its family's file.
        pub enum TextConfig {
            $(#[serde(rename = $model_type)] $Variant($file::$Config),)+
        }

        /// Any text backbone.
        #[derive(Module, Debug)]
        #[allow(missing_docs, clippy::large_enum_variant)] // One exists at a time.
        pub enum TextBackbone<B: Backend> {
            $($Variant($file2::$Model<B>),)+
        }

        /// Every text family.
        pub const TEXT_FAMILIES: &[&Family] = &[$(&$file::NAMES,)+];

        impl TextConfig {
            /// Says what is impossible about these sizes, if anything is.
            pub fn check(&self) -> Result<(), String> {
                match self { $(Self::$Variant(config) => config.check(),)+ }
            }

            /// What heads and batches need to know of it.
            pub fn describe(&self) -> Plan {
                match self { $(Self::$Variant(config) => config.describe(),)+ }
            }

            /// How its parameters are called.
            pub fn family(&self) -> &'static Family {
                match self { $(Self::$Variant(_) => &$file::NAMES,)+ }
            }

            /// How it scores tokens.
            pub fn token_plan(&self) -> TokenPlan {
                match self { $(Self::$Variant(config) => config.token_plan(),)+ }
            }

            /// How it classifies.
            pub fn class_plan(&self) -> ClassPlan {
                match self { $(Self::$Variant(config) => config.class_plan(),)+ }
            }

            /// Sets every dropout to one rate.
            pub fn set_dropout(&mut self, rate: f64) {
                match self { $(Self::$Variant(config) => config.set_dropout(rate),)+ }
            }

            /// Fits the model to a tokenizer.
            pub fn set_vocabulary(&mut self, vocab_size: usize, pad: u32) {
                match self { $(Self::$Variant(config) => config.set_vocabulary(vocab_size, pad),)+ }
            }

            /// Draws a backbone for a head; the weights are a function of the backend's seed.
            ///
            /// # Panics
            ///
            /// If [`check`](Self::check) finds these sizes impossible.
            pub fn init<B: Backend>(&self, head: HeadKind, draw: &Draw<'_, B>) -> TextBackbone<B> {
                match self { $(Self::$Variant(config) => TextBackbone::$Variant(config.init(head, draw)),)+ }
            }
        }

        impl<B: Backend> TextBackbone<B> {
            /// Hidden states of the last layer, `[n, d_model]`: at all places of the flattened `[batch * seq]`, or at chosen
            /// ones.
            ///
            /// - at: `[n]`
            /// - cache: of a decoder, what it read before these tokens
            ///
            /// # Panics
            ///
            /// If a sequence is longer than the model has positions.
            pub fn states(
                &self,
                input: &TokenInput<B>,
                at: Option<Tensor<B, 1, Int>>,
                cache: Option<&mut Cache<B>>,
            ) -> Tensor<B, 2> {
                match self { $(Self::$Variant(model) => model.states(input, at, cache),)+ }
            }

            /// What a classifier reads of the states of one token a row, `[batch, d_model]` in and out.
            pub fn pool(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
                match self { $(Self::$Variant(model) => model.pool(states),)+ }
            }

            /// `[vocab_size, d_model]`
            pub fn token_table(&self) -> Tensor<B, 2> {
                match self { $(Self::$Variant(model) => model.token_table(),)+ }
            }
        }
    };
}

text_families! {
    Bert(bert::BertConfig, bert::Bert) = "bert",
    Roberta(roberta::RobertaConfig, roberta::Roberta) = "roberta",
    DistilBert(distilbert::DistilBertConfig, distilbert::DistilBert) = "distilbert",
    Gpt2(gpt2::Gpt2Config, gpt2::Gpt2) = "gpt2",
}

impl TextConfig {
    /// Names with a head.
    ///
    /// # Panics
    ///
    /// If the family has no such head.
    pub fn names(&self, head: HeadKind) -> Names {
        Names::new(self.family(), head)
    }
}

/// The same for images.
macro_rules! image_families {
    ($($Variant:ident($file:ident::$Config:ident, $file2:ident::$Model:ident) = $model_type:literal,)+) => {
        /// `config.json` of an image backbone; its `model_type` chooses.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "model_type")]
        #[allow(missing_docs)] // Each is described in its family's file.
        pub enum ImageConfig {
            $(#[serde(rename = $model_type)] $Variant($file::$Config),)+
        }

        /// Any image backbone.
        #[derive(Module, Debug)]
        #[allow(missing_docs)]
        pub enum ImageBackbone<B: Backend> {
            $($Variant($file2::$Model<B>),)+
        }

        /// Every image family.
        pub const IMAGE_FAMILIES: &[&Family] = &[$(&$file::NAMES,)+];

        impl ImageConfig {
            /// Says what is impossible about these sizes, if anything is.
            pub fn check(&self) -> Result<(), String> {
                match self { $(Self::$Variant(config) => config.check(),)+ }
            }

            /// Channels, height and width of an image.
            pub fn shape(&self) -> [usize; 3] {
                match self { $(Self::$Variant(config) => config.shape(),)+ }
            }

            /// Values that a classifier reads of an image.
            pub fn width(&self) -> usize {
                match self { $(Self::$Variant(config) => config.latent_size,)+ }
            }

            /// Number of parameters, roughly.
            pub fn parameters(&self) -> f64 {
                match self { $(Self::$Variant(config) => config.parameters(),)+ }
            }

            /// How its parameters are called.
            pub fn family(&self) -> &'static Family {
                match self { $(Self::$Variant(_) => &$file::NAMES,)+ }
            }

            /// Draws a backbone; the weights are a function of the backend's seed.
            pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> ImageBackbone<B> {
                match self { $(Self::$Variant(config) => ImageBackbone::$Variant(config.init(draw)),)+ }
            }

            /// Draws what makes images of the backbone's states.
            pub fn init_decoder<B: Backend>(&self, draw: &Draw<'_, B>) -> conv_autoencoder::Decoder<B> {
                match self { $(Self::$Variant(config) => config.init_decoder(draw),)+ }
            }
        }

        impl<B: Backend> ImageBackbone<B> {
            /// States of images.
            ///
            /// - images: `[batch, channels, height, width]`, pixels 0 to 1
            /// - out: `[batch, width]`
            pub fn states(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
                match self { $(Self::$Variant(model) => model.forward(images),)+ }
            }

            /// What a classifier reads of images, `[batch, width]`.
            pub fn pooled(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
                match self { $(Self::$Variant(model) => model.pooled(images),)+ }
            }
        }
    };
}

image_families! {
    ConvAutoencoder(conv_autoencoder::AutoencoderConfig, conv_autoencoder::Encoder) = "hearth_conv",
}

impl ImageConfig {
    /// Names with a head.
    ///
    /// # Panics
    ///
    /// If the family has no such head.
    pub fn names(&self, head: HeadKind) -> Names {
        Names::new(self.family(), head)
    }
}
