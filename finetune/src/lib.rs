//! Tasks on labelled data, one file each, and the strategies by which a pretrained backbone adapts.
//!
//! A new task is a file like [`text_classification`], a line in [`TRAINER`] and a recipe in `assets/recipes/`.

pub mod few;
pub mod image_classification;
pub mod strategy;
pub mod text_classification;

use train::cli::Trainer;

/// Everything `finetune` can train; the first is what it does without being told.
pub const TRAINER: Trainer = Trainer {
    key: "task",
    entries: &[text_classification::ENTRY, image_classification::ENTRY],
};
