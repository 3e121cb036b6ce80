//! Objectives on unlabelled data, one file each.
//!
//! A new objective is a file like [`clm`], named below and in [`TRAINER`], and a recipe in `assets/recipes/`.

pub mod autoencoder;
pub mod clm;
pub mod mlm;

pub use autoencoder::DenoisingAutoencoder;
pub use clm::Clm;
pub use mlm::Mlm;

use train::cli::Trainer;
use train::job::entry;

/// Everything `pretrain` can train; the first is the default.
///
/// A static, so that the engine is compiled here once and not in every program that names it.
pub static TRAINER: Trainer = Trainer {
    key: "objective",
    entries: &[
        entry::<Mlm>(),
        entry::<Clm>(),
        entry::<DenoisingAutoencoder>(),
    ],
};
