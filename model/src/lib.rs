//! Architectures and heads, one file each, generic over the backend, and the bundle that holds them.
//!
//! Reading order: [`ops`] (operations, plain and fast), [`linear`] and [`norm`] (layers made of them), [`init`] (when and
//! from what parameters are drawn), [`bert`] (the encoder),
//! [`bert_masked_lm`] and [`bert_classifier`] (its heads), [`autoencoder`] and [`image_classifier`]
//! (convolutions), then [`bundle`] (a Hugging Face directory in, a model out, and back).

pub mod autoencoder;
pub mod batch_norm;
pub mod bert;
pub mod bert_classifier;
pub mod bert_masked_lm;
pub mod bundle;
pub mod bundled;
pub mod image_classifier;
pub mod init;
pub mod linear;
pub mod norm;
pub mod ops;

pub use autoencoder::{Autoencoder, AutoencoderConfig};
pub use bert::{Bert, BertConfig, BertInput};
pub use bert_classifier::BertClassifier;
pub use bert_masked_lm::BertMaskedLm;
pub use bundle::{Architecture, Bundle, BundleError, Precision};
pub use image_classifier::ImageClassifier;
