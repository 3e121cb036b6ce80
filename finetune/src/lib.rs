//! Tasks on labelled data, one file each.
//!
//! A new task is a file like [`text_classification`], a line in [`TRAINER`] and a recipe in `assets/recipes/`.

pub mod image_classification;
pub mod text_classification;

pub use image_classification::ImageClassification;
pub use text_classification::TextClassification;

use train::cli::Trainer;
use train::job::entry;

/// Everything `finetune` can train; the first is the default.
pub const TRAINER: Trainer = Trainer {
    key: "task",
    entries: &[
        entry::<TextClassification>(),
        entry::<ImageClassification>(),
    ],
};
