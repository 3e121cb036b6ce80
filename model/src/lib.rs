//! Model families and heads, generic over the backend, and the bundle that holds them.
//!
//! Reading order: [`ops`] (operations, plain and fast), [`layers`] (made of them), [`families`] (a file each) and
//! [`registry`] (a line each), [`heads`] (what is asked of a backbone), [`names`] and [`walk`] (parameters by their Hugging
//! Face names), [`eight_bits`] (matrices in a quarter of the bytes), [`cache`] (what a decoder keeps), [`generate`] (how it continues a text) and [`beam`] (how an encoder-decoder writes one), then [`bundle`] (a Hugging Face
//! directory in, a model out, and back).

pub mod beam;
pub mod bundle;
pub mod bundled;
pub mod cache;
pub mod eight_bits;
pub mod families;
pub mod generate;
pub mod heads;
pub mod layers;
pub mod names;
pub mod ops;
pub mod registry;
pub mod walk;

pub use bundle::{Bundle, BundleError, Precision};
pub use cache::{Cache, Seq2SeqCache};
pub use families::TokenInput;
pub use heads::{
    Autoencoder, ChoiceModel, ClassHead, Detector, Generator, Headed, ImageClassifier,
    MaskedAutoencoder, QuantisedAutoencoder, ReplacedTokenModel, Segmenter, SentencePairModel,
    Seq2SeqModel, SpanFinder, TextClassifier, TokenClassifier, TokenHead, TokenModel,
    VariationalAutoencoder,
};
pub use layers::Draw;
pub use names::{HeadKind, Names};
pub use registry::{ImageConfig, Seq2SeqConfig, TextConfig};
