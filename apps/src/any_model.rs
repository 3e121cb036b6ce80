//! The model of a bundle, whatever head it has. In: a bundle. Out: a text or an image model of the kind that it holds.
//!
//! What there is a head for, there is a variant for, and no match has a wildcard: a new head is met here first.

#![allow(
    clippy::large_enum_variant,
    reason = "one model exists at a time, and derive(Module) makes further enums of each"
)]

use burn::module::Module;
use burn::prelude::*;
use model::heads::masked::MaskedConfig;
use model::heads::quantised::CodebookConfig;
use model::heads::variational::VariationalConfig;
use model::registry::{ImageBackbone, Seq2SeqBackbone, TextBackbone};
use model::{
    Autoencoder, Bundle, BundleError, ChoiceModel, Detector, HeadKind, ImageClassifier,
    MaskedAutoencoder, Names, QuantisedAutoencoder, ReplacedTokenModel, Segmenter,
    SentencePairModel, Seq2SeqModel, SpanFinder, TextClassifier, TokenClassifier, TokenModel,
    VariationalAutoencoder,
};
use train::Failure;
use train::job::image::ImageModel;

use crate::open;

/// A model that reads texts, by its head.
#[derive(Module, Debug)]
#[allow(missing_docs)] // Each head's file describes it.
pub enum AnyTextModel<B: Backend> {
    Bare(TextBackbone<B>),
    BareSeq2Seq(Seq2SeqBackbone<B>),
    Tokens(TokenModel<B>),
    Seq2Seq(Seq2SeqModel<B>),
    SentencePairs(SentencePairModel<B>),
    Replaced(ReplacedTokenModel<B>),
    Classes(TextClassifier<B>),
    TokenClasses(TokenClassifier<B>),
    Spans(SpanFinder<B>),
    Choices(ChoiceModel<B>),
}

impl<B: Backend> AnyTextModel<B> {
    /// Draws a model, to be filled with the bundle's weights.
    ///
    /// - names: of the bundle's family, with the head that is wanted
    ///
    /// # Errors
    ///
    /// A bundle of images, or a model that is impossible or that this machine cannot hold.
    pub fn draw(bundle: &Bundle, names: Names, device: &B::Device) -> Result<Self, Failure> {
        let draw = &bundle.draw(device, names);
        let (config, head) = (|| open::text_model(bundle), names.head.kind);
        if bundle.family().is_of_two_texts() {
            let config = open::seq2seq_model(bundle)?;
            return match head {
                HeadKind::Bare => Ok(Self::BareSeq2Seq(config.init(draw))),
                HeadKind::Tokens => Ok(Self::Seq2Seq(Seq2SeqModel::draw(&config, draw))),
                HeadKind::SentencePairs
                | HeadKind::Replaced
                | HeadKind::Classes
                | HeadKind::TokenClasses
                | HeadKind::Spans
                | HeadKind::Choices
                | HeadKind::Pixels
                | HeadKind::Variational
                | HeadKind::Codes
                | HeadKind::Patches
                | HeadKind::Masks
                | HeadKind::Boxes => Err(other_medium(bundle, head, "an encoder-decoder")),
            };
        }
        let classes = || bundle.classes().map(|classes| classes.len());
        Ok(match head {
            HeadKind::Bare => Self::Bare(config()?.init(head, draw)),
            HeadKind::Tokens => Self::Tokens(TokenModel::draw(&config()?, draw)),
            HeadKind::SentencePairs => {
                Self::SentencePairs(SentencePairModel::draw(&config()?, draw))
            }
            HeadKind::Replaced => Self::Replaced(ReplacedTokenModel::draw(&config()?, draw)),
            HeadKind::Classes => Self::Classes(TextClassifier::draw(&config()?, classes()?, draw)),
            HeadKind::TokenClasses => {
                Self::TokenClasses(TokenClassifier::draw(&config()?, classes()?, draw))
            }
            HeadKind::Spans => Self::Spans(SpanFinder::draw(&config()?, draw)),
            HeadKind::Choices => Self::Choices(ChoiceModel::draw(&config()?, draw)),
            HeadKind::Pixels
            | HeadKind::Variational
            | HeadKind::Codes
            | HeadKind::Patches
            | HeadKind::Masks
            | HeadKind::Boxes => return Err(other_medium(bundle, head, "a text model")),
        })
    }
}

/// A model that sees images, by its head.
#[derive(Module, Debug)]
#[allow(missing_docs)] // Each head's file describes it.
pub enum AnyImageModel<B: Backend> {
    Bare(ImageBackbone<B>),
    Classes(ImageClassifier<B>),
    Pixels(Autoencoder<B>),
    Variational(VariationalAutoencoder<B>),
    Codes(QuantisedAutoencoder<B>),
    Patches(MaskedAutoencoder<B>),
    Masks(Segmenter<B>),
    Boxes(Detector<B>),
}

impl<B: Backend> AnyImageModel<B> {
    /// Draws a model, to be filled with the bundle's weights.
    ///
    /// - names: of the bundle's family, with the head that is wanted
    ///
    /// # Errors
    ///
    /// A bundle of texts, or a model that is impossible or that this machine cannot hold.
    pub fn draw(bundle: &Bundle, names: Names, device: &B::Device) -> Result<Self, Failure> {
        let draw = &bundle.draw(device, names);
        let ImageModel { config, input } = open::image_model(bundle)?;
        let (head, shape) = (names.head.kind, input.shape);
        let wrong = |reason| Failure::input(format!("{}: {reason}", bundle.path().display()));
        let classes = || bundle.classes().map(|classes| classes.len());
        let check_maps = || open::check_maps(bundle, &config);
        Ok(match head {
            HeadKind::Bare => Self::Bare(config.init(draw)),
            HeadKind::Classes => Self::Classes(ImageClassifier::draw(&config, classes()?, draw)),
            HeadKind::Pixels => Self::Pixels(Autoencoder::draw(&config, shape, draw)),
            HeadKind::Variational => {
                let sizes: VariationalConfig = bundle.head_config()?;
                sizes.check().map_err(wrong)?;
                Self::Variational(VariationalAutoencoder::draw(&config, sizes, shape, draw))
            }
            HeadKind::Codes => {
                let sizes: CodebookConfig = bundle.head_config()?;
                sizes.check(&config).map_err(wrong)?;
                Self::Codes(QuantisedAutoencoder::draw(&config, sizes, shape, draw))
            }
            HeadKind::Patches => {
                let sizes: MaskedConfig = bundle.head_config()?;
                sizes.check().map_err(wrong)?;
                Self::Patches(MaskedAutoencoder::draw(&config, sizes, draw))
            }
            HeadKind::Masks => {
                check_maps()?;
                Self::Masks(Segmenter::draw(&config, classes()?, draw))
            }
            HeadKind::Boxes => {
                check_maps()?;
                Self::Boxes(Detector::draw(&config, classes()?, draw))
            }
            HeadKind::Tokens
            | HeadKind::SentencePairs
            | HeadKind::Replaced
            | HeadKind::TokenClasses
            | HeadKind::Spans
            | HeadKind::Choices => return Err(other_medium(bundle, head, "an image model")),
        })
    }
}

/// No family has a head of another medium; one that had would be refused.
fn other_medium(bundle: &Bundle, head: HeadKind, wanted: &str) -> Failure {
    let error = BundleError::WrongKind {
        path: bundle.path().into(),
        found: head.describe().into(),
        wanted: wanted.into(),
    };
    error.into()
}
