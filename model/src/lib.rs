//! Model families and heads, generic over the backend, and the bundle that holds them.
//!
//! Reading order: [`ops`] (operations, plain and fast), [`layers`] (made of them), [`families`] (a file each) and
//! [`registry`] (a line each), [`heads`] (what is asked of a backbone), [`names`] and [`walk`] (parameters by their Hugging
//! Face names), [`cache`] (what a decoder keeps) and [`generate`] (how it continues a text), then [`bundle`] (a Hugging Face
//! directory in, a model out, and back).

pub mod bundle;
pub mod bundled;
pub mod cache;
pub mod families;
pub mod generate;
pub mod heads;
pub mod layers;
pub mod names;
pub mod ops;
pub mod registry;
pub mod walk;

pub use bundle::{Bundle, BundleError, Precision};
pub use cache::Cache;
pub use families::TokenInput;
pub use heads::{
    Autoencoder, ClassHead, Detector, Headed, ImageClassifier, MaskedAutoencoder,
    QuantisedAutoencoder, ReplacedTokenModel, Segmenter, TextClassifier, TokenHead, TokenModel,
    VariationalAutoencoder,
};
pub use layers::Draw;
pub use names::{HeadKind, Names};
pub use registry::{ImageConfig, TextConfig};
