//! Objectives on unlabelled data, one file each.
//!
//! A new objective is a file like [`clm`], named below and in [`TRAINER`], and a recipe in `assets/recipes/`; one on images is
//! a file like [`simclr`], with a line in [`images`] too.

pub mod autoencoder;
pub mod byol;
pub mod clm;
pub mod denoising;
pub mod dino;
pub mod distillation;
pub mod electra;
#[cfg(test)]
#[path = "../../tests/support/objectives.rs"]
mod golden;
pub mod images;
pub mod mae;
pub mod mlm;
pub mod projector;
pub mod rotation;
pub mod sentence_pairs;
pub mod simclr;
pub mod vae;
pub mod vqvae;

pub use autoencoder::DenoisingAutoencoder;
pub use byol::Byol;
pub use clm::Clm;
pub use denoising::Denoising;
pub use dino::Dino;
pub use distillation::Distillation;
pub use electra::Electra;
pub use mae::Mae;
pub use mlm::Mlm;
pub use rotation::Rotation;
pub use sentence_pairs::SentencePairs;
pub use simclr::SimClr;
pub use vae::Vae;
pub use vqvae::VqVae;

#[cfg(not(test))]
use train::{cli::Trainer, job::entry};

/// Everything `pretrain` can train; the first is the default.
///
/// A static, so that the engine is compiled here once and not in every program that names it. Unit tests have none, and need not
/// wait for the engine.
#[cfg(not(test))]
pub static TRAINER: Trainer = Trainer {
    key: "objective",
    entries: &[
        entry::<Mlm>(),
        entry::<Clm>(),
        entry::<Denoising>(),
        entry::<Distillation>(),
        entry::<Electra>(),
        entry::<SentencePairs>(),
        entry::<DenoisingAutoencoder>(),
        entry::<Vae>(),
        entry::<VqVae>(),
        entry::<Mae>(),
        entry::<SimClr>(),
        entry::<Byol>(),
        entry::<Dino>(),
        entry::<Rotation>(),
    ],
};
