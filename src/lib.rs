//! Hearth pretrains and fine-tunes foundation models on [Burn](https://burn.dev). This crate holds the others under one name:
//! one line in a `Cargo.toml` brings them all.
//!
//! Reading order: [`data`] (from files to tokens and pixels), [`model`] (families, heads, bundles), [`train`] (jobs, recipes,
//! the engine), [`pretrain`] (objectives) and [`finetune`] (tasks).
//!
//! Importing it changes nothing in a process: allocator, signal handlers and panic hook are those of the program.

pub use burn;
pub use data;
pub use finetune;
pub use model;
pub use pretrain;
pub use train;

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
