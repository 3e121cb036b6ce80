//! The families that there are, a line each. In: `config.json`. Out: a backbone of the family that it names.

#![allow(
    clippy::large_enum_variant,
    reason = "one model exists at a time, and derive(Module) makes further enums of each"
)]

use burn::module::{Module, Param};
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Seq2SeqCache};
use crate::families::conv_autoencoder::AutoencoderConfig;
use crate::families::{Encoded, Seq2SeqPlan, Seq2SeqTokens};
use crate::families::{ImagePlan, Plan, Pyramid, TokenInput};
use crate::families::{bart, marian, t5};
use crate::families::{bert, distilbert, electra, gpt2, gru, llama, lstm, qwen2, roberta};
use crate::families::{
    cnn, conv_autoencoder, convnext, mlp, mobilenet_v2, resnet, small_resnet, unet, vgg, vit,
};
use crate::heads::{ClassPlan, TokenPlan};
use crate::layers::Draw;
use crate::names::{Family, HeadKind, Names};
use crate::ops::global_avg_pool;
use crate::ops::recurrent::Cell;

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
        #[allow(missing_docs)]
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

            /// Sets the number of layers.
            pub fn set_layers(&mut self, layers: usize) {
                match self { $(Self::$Variant(config) => config.set_layers(layers),)+ }
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

            /// What a classifier reads of each text, `[batch, d_model]`.
            ///
            /// - at: `[batch]`, the place of each row's first token or its last one in the flattened `[batch * seq]`
            ///
            /// # Panics
            ///
            /// If a sequence is longer than the model has positions.
            pub fn class_states(&self, input: &TokenInput<B>, at: Tensor<B, 1, Int>) -> Tensor<B, 2> {
                match self { $(Self::$Variant(model) => model.class_states(input, at),)+ }
            }

            /// The same of states that are known, of the token that a classifier reads of each text: `[n, d_model]` in and out.
            pub fn pool(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
                match self { $(Self::$Variant(model) => model.pool(states),)+ }
            }

            /// `[vocab_size, width]`
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
    Electra(electra::ElectraConfig, electra::Electra) = "electra",
    Gpt2(gpt2::Gpt2Config, gpt2::Gpt2) = "gpt2",
    Llama(llama::LlamaConfig, llama::Llama) = "llama",
    Qwen2(qwen2::Qwen2Config, qwen2::Qwen2) = "qwen2",
    Lstm(lstm::LstmConfig, lstm::Lstm) = "hearth_lstm",
    Gru(gru::GruConfig, gru::Gru) = "hearth_gru",
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

    /// Of a recurrent family: layers, and the values that each leaves of a row for the tokens to come.
    pub fn states(&self) -> Option<[usize; 2]> {
        match self {
            Self::Lstm(config) => Some(config.states(Cell::Lstm)),
            Self::Gru(config) => Some(config.layers.states(Cell::Gru)),
            _ => None,
        }
    }
}

impl<B: Backend> TextBackbone<B> {
    /// How much each token looks at each other one, `[batch, heads, seq, seq]` a layer, the first layer first; rows sum to 1.
    ///
    /// Nothing of a family whose tokens see only those before them, or that has no attention, and of a model with virtual
    /// tokens.
    ///
    /// # Panics
    ///
    /// If a sequence is longer than the model has positions.
    pub fn attentions(&self, input: &TokenInput<B>) -> Option<Vec<Tensor<B, 4>>> {
        match self {
            Self::Bert(model)
            | Self::Roberta(model)
            | Self::DistilBert(model)
            | Self::Electra(model) => model.attentions(input),
            Self::Gpt2(_) | Self::Llama(_) | Self::Qwen2(_) | Self::Lstm(_) | Self::Gru(_) => None,
        }
    }

    /// The same model with another token table: ids are rows of this one.
    ///
    /// With a table of a row a token, a model goes on from vectors that are no token's, and the gradient of the table is that
    /// of each of them.
    ///
    /// - table: `[rows, width]`, a leaf of the graph; it gets a gradient, where the backend has any
    pub fn with_token_table(mut self, table: Tensor<B, 2>) -> Self {
        let weight = match &mut self {
            Self::Bert(model)
            | Self::Roberta(model)
            | Self::DistilBert(model)
            | Self::Electra(model) => &mut model.embeddings.word_embeddings.weight,
            Self::Gpt2(model) => &mut model.wte.weight,
            Self::Llama(model) | Self::Qwen2(model) => &mut model.embed_tokens.weight,
            Self::Lstm(model) | Self::Gru(model) => &mut model.embed_tokens.weight,
        };
        *weight = Param::from_tensor(table);
        self
    }
}

/// The same for models that read a text and write another.
macro_rules! seq2seq_families {
    ($($Variant:ident($file:ident::$Config:ident, $file2:ident::$Model:ident) = $model_type:literal,)+) => {
        /// `config.json` of an encoder-decoder; its `model_type` chooses.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "model_type")]
        #[allow(missing_docs)] // Each is described in its family's file.
        pub enum Seq2SeqConfig {
            $(#[serde(rename = $model_type)] $Variant($file::$Config),)+
        }

        /// Any encoder-decoder.
        #[derive(Module, Debug)]
        #[allow(missing_docs)]
        pub enum Seq2SeqBackbone<B: Backend> {
            $($Variant($file2::$Model<B>),)+
        }

        /// Every family of encoder-decoders.
        pub const SEQ2SEQ_FAMILIES: &[&Family] = &[$(&$file::NAMES,)+];

        impl Seq2SeqConfig {
            /// Says what is impossible about these sizes, if anything is.
            pub fn check(&self) -> Result<(), String> {
                match self { $(Self::$Variant(config) => config.check(),)+ }
            }

            /// What heads and batches need to know of it.
            pub fn describe(&self) -> Seq2SeqPlan {
                match self { $(Self::$Variant(config) => config.describe(),)+ }
            }

            /// How its parameters are called.
            pub fn family(&self) -> &'static Family {
                match self { $(Self::$Variant(_) => &$file::NAMES,)+ }
            }

            /// Sets every dropout to one rate.
            pub fn set_dropout(&mut self, rate: f64) {
                match self { $(Self::$Variant(config) => config.set_dropout(rate),)+ }
            }

            /// Fits the model to a tokenizer of both texts.
            pub fn set_vocabulary(&mut self, vocab_size: usize, tokens: Seq2SeqTokens) {
                match self { $(Self::$Variant(config) => config.set_vocabulary(vocab_size, tokens),)+ }
            }

            /// Draws a backbone; the weights are a function of the backend's seed.
            ///
            /// # Panics
            ///
            /// If [`check`](Self::check) finds these sizes impossible.
            pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> Seq2SeqBackbone<B> {
                match self { $(Self::$Variant(config) => Seq2SeqBackbone::$Variant(config.init(draw)),)+ }
            }
        }

        impl<B: Backend> Seq2SeqBackbone<B> {
            /// Hidden states of the text that is read.
            ///
            /// # Panics
            ///
            /// If a text is longer than the model has positions, or a row holds several texts.
            pub fn encode(&self, input: &TokenInput<B>) -> Encoded<B> {
                match self { $(Self::$Variant(model) => model.encode(input),)+ }
            }

            /// Hidden states of the text that is written, `[n, d_model]`: at all places of the flattened `[rows * seq]`, or at
            /// chosen ones. A place sees those before it, and the whole text that is read.
            ///
            /// - tokens: `[rows, seq]`, the first of which starts every text; each text that is read has as many rows, one
            ///   after the other
            /// - at: `[n]`
            /// - cache: what the decoder read before these tokens
            ///
            /// # Panics
            ///
            /// If a text is longer than the model has positions.
            pub fn decode(
                &self,
                tokens: Tensor<B, 2, Int>,
                encoded: &Encoded<B>,
                at: Option<Tensor<B, 1, Int>>,
                cache: Option<&mut Seq2SeqCache<B>>,
            ) -> Tensor<B, 2> {
                match self { $(Self::$Variant(model) => model.decode(tokens, encoded, at, cache),)+ }
            }

            /// The decoder's, `[target_vocab_size, d_model]`.
            pub fn token_table(&self) -> Tensor<B, 2> {
                match self { $(Self::$Variant(model) => model.token_table(),)+ }
            }
        }
    };
}

seq2seq_families! {
    Bart(bart::BartConfig, bart::Bart) = "bart",
    Marian(marian::MarianConfig, marian::Marian) = "marian",
    T5(t5::T5Config, t5::T5) = "t5",
}

impl Seq2SeqConfig {
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

            /// What heads and data need to know of it.
            pub fn describe(&self) -> ImagePlan {
                match self { $(Self::$Variant(config) => config.describe(),)+ }
            }

            /// Fits the model to images of this shape: channels, height and width.
            pub fn fit(&mut self, shape: [usize; 3]) {
                match self { $(Self::$Variant(config) => config.fit(shape),)+ }
            }

            /// How its parameters are called.
            pub fn family(&self) -> &'static Family {
                match self { $(Self::$Variant(_) => &$file::NAMES,)+ }
            }

            /// Draws a backbone; the weights are a function of the backend's seed.
            pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> ImageBackbone<B> {
                match self { $(Self::$Variant(config) => ImageBackbone::$Variant(config.init(draw)),)+ }
            }
        }

        impl<B: Backend> ImageBackbone<B> {
            /// Maps and features of images.
            ///
            /// - images: `[batch, channels, height, width]`, as the bundle's preprocessor prepares them
            pub fn forward(&self, images: Tensor<B, 4>) -> Pyramid<B> {
                match self { $(Self::$Variant(model) => model.forward(images),)+ }
            }
        }
    };
}

image_families! {
    ConvAutoencoder(conv_autoencoder::AutoencoderConfig, conv_autoencoder::Encoder) = "hearth_conv",
    Mlp(mlp::MlpConfig, mlp::Mlp) = "hearth_mlp",
    Cnn(cnn::CnnConfig, cnn::Cnn) = "hearth_cnn",
    ResNet(resnet::ResNetConfig, resnet::ResNet) = "resnet",
    SmallResNet(small_resnet::SmallResNetConfig, small_resnet::SmallResNet) = "hearth_resnet",
    Vgg(vgg::VggConfig, vgg::Vgg) = "hearth_vgg",
    MobileNetV2(mobilenet_v2::MobileNetV2Config, mobilenet_v2::MobileNetV2) = "mobilenet_v2",
    ViT(vit::ViTConfig, vit::ViT) = "vit",
    ConvNext(convnext::ConvNextConfig, convnext::ConvNext) = "convnext",
    UNet(unet::UNetConfig, unet::UNet) = "hearth_unet",
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

    /// Whether a new model sees pixels from 0 to 1, and not what normalising makes of them.
    pub fn is_for_plain_pixels(&self) -> bool {
        matches!(self, Self::ConvAutoencoder(_))
    }

    /// Whether its weights, once trained, can be fitted to images of another shape.
    pub fn can_be_fitted(&self) -> bool {
        !self.family().first.is_empty()
    }

    /// Dropout before a classifier's last layer.
    pub fn head_dropout(&self) -> f64 {
        match self {
            Self::MobileNetV2(config) => config.classifier_dropout_prob,
            Self::ConvAutoencoder(_)
            | Self::Mlp(_)
            | Self::Cnn(_)
            | Self::ResNet(_)
            | Self::SmallResNet(_)
            | Self::Vgg(_)
            | Self::ViT(_)
            | Self::ConvNext(_)
            | Self::UNet(_) => 0.0,
        }
    }

    /// Sets every dropout to one rate, and the share of blocks that are left out.
    pub fn set_dropout(&mut self, rate: f64) {
        match self {
            Self::MobileNetV2(config) => config.classifier_dropout_prob = rate,
            Self::Vgg(config) => config.classifier_dropout = rate,
            Self::ViT(config) => {
                config.hidden_dropout_prob = rate;
                config.attention_probs_dropout_prob = rate;
            }
            Self::ConvNext(config) => config.drop_path_rate = rate,
            Self::ConvAutoencoder(_)
            | Self::Mlp(_)
            | Self::Cnn(_)
            | Self::ResNet(_)
            | Self::SmallResNet(_)
            | Self::UNet(_) => {}
        }
    }

    /// Draws what makes images of this shape of the backbone's [latent vectors](ImageBackbone::latent).
    pub fn init_decoder<B: Backend>(
        &self,
        shape: [usize; 3],
        draw: &Draw<'_, B>,
    ) -> ImageDecoder<B> {
        match self {
            Self::ConvAutoencoder(config) => ImageDecoder::Conv(config.init_decoder(draw)),
            Self::Mlp(config) => ImageDecoder::Dense(config.init_decoder(draw)),
            other => {
                let mirror = AutoencoderConfig::mirror(shape, other.describe().width);
                ImageDecoder::Conv(mirror.init_decoder(draw))
            }
        }
    }
}

impl<B: Backend> ImageBackbone<B> {
    /// What a decoder makes images of, `[batch, width]`.
    ///
    /// - images: `[batch, channels, height, width]`
    pub fn latent(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        match self {
            Self::ConvAutoencoder(model) => model.latent(images),
            other => other.forward(images).pooled,
        }
    }

    /// The last maps, `[batch, channels, rows, columns]`, of which [`pool`](Self::pool) makes what a classifier reads; nothing of
    /// a family that makes it of no maps.
    ///
    /// - images: `[batch, channels, height, width]`
    pub fn last_maps(&self, images: Tensor<B, 4>) -> Option<Tensor<B, 4>> {
        match self {
            Self::MobileNetV2(model) => Some(model.last_maps(images)),
            Self::ConvAutoencoder(_)
            | Self::Cnn(_)
            | Self::ResNet(_)
            | Self::SmallResNet(_)
            | Self::Vgg(_)
            | Self::ConvNext(_)
            | Self::UNet(_) => self.forward(images).levels.pop(),
            Self::Mlp(_) | Self::ViT(_) => None,
        }
    }

    /// How the patches of images look at each other; nothing of a family that has no attention.
    ///
    /// - images: `[batch, channels, height, width]`
    pub fn attentions(&self, images: Tensor<B, 4>) -> Option<vit::PatchAttentions<B>> {
        match self {
            Self::ViT(model) => Some(model.attentions(images)),
            Self::ConvAutoencoder(_)
            | Self::Mlp(_)
            | Self::Cnn(_)
            | Self::ResNet(_)
            | Self::SmallResNet(_)
            | Self::Vgg(_)
            | Self::MobileNetV2(_)
            | Self::ConvNext(_)
            | Self::UNet(_) => None,
        }
    }

    /// What a classifier reads, `[batch, width]`.
    ///
    /// - maps: of [`last_maps`](Self::last_maps)
    ///
    /// # Panics
    ///
    /// If the family has no such maps.
    pub fn pool(&self, maps: Tensor<B, 4>) -> Tensor<B, 2> {
        match self {
            Self::ConvAutoencoder(model) => model.pool(maps),
            Self::Cnn(_)
            | Self::ResNet(_)
            | Self::SmallResNet(_)
            | Self::MobileNetV2(_)
            | Self::UNet(_) => global_avg_pool(maps),
            Self::Vgg(model) => model.pool(maps),
            Self::ConvNext(model) => model.pool(maps),
            Self::Mlp(_) | Self::ViT(_) => panic!("a family that pools no maps"),
        }
    }
}

/// What makes images of latent vectors.
#[derive(Module, Debug)]
pub enum ImageDecoder<B: Backend> {
    /// Transposed convolutions.
    Conv(conv_autoencoder::Decoder<B>),
    /// Linear layers.
    Dense(mlp::Decoder<B>),
}

impl<B: Backend> ImageDecoder<B> {
    /// Logits of the pixels.
    ///
    /// - latent: `[batch, width]`
    /// - out: `[batch, channels, height, width]`
    pub fn forward(&self, latent: Tensor<B, 2>) -> Tensor<B, 4> {
        match self {
            Self::Conv(decoder) => decoder.forward(latent),
            Self::Dense(decoder) => decoder.forward(latent),
        }
    }
}
