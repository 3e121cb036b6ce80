//! Objectives on unlabelled data, one file each: batcher, loss, and what a run of it needs.
//!
//! A new objective is a file like [`mlm`], a line in [`TRAINER`] and a recipe in `assets/recipes/`.

pub mod autoencoder;
pub mod mlm;

use train::cli::Trainer;

/// Everything `pretrain` can train; the first is what it does without being told.
pub const TRAINER: Trainer = Trainer {
    key: "objective",
    entries: &[mlm::ENTRY, autoencoder::ENTRY],
};
