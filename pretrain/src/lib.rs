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
pub const TRAINER: Trainer = Trainer {
    key: "objective",
    entries: &[
        entry::<Mlm>(),
        entry::<Clm>(),
        entry::<DenoisingAutoencoder>(),
    ],
};
