//! Recipes: layers of TOML, then a file, `--set` and flags; unknown keys are refused.
//!
//! The defaults are in `assets/recipes/`, where every key is explained once. Reading order: [`layers`] (the built-in
//! files), [`draft`] (putting them over each other), [`sections`] (what every recipe has), [`explain`] (for people).

use std::path::PathBuf;

use thiserror::Error;

pub mod draft;
pub mod explain;
pub mod layers;
pub mod sections;

pub use draft::{BuiltIn, Draft};
pub use sections::{BundleRecipe, ComputePrecision, TrainingRecipe, check_shares};

pub use crate::guard::GuardRecipe;
pub use crate::optim::optimizer::OptimizerRecipe;
pub use crate::optim::schedule::ScheduleRecipe;

/// What is wrong with a recipe.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{place}: not valid TOML: {reason}")]
    Syntax {
        /// File and line, or the flag.
        place: String,
        /// What the parser says.
        reason: String,
    },
    /// A key that no recipe of this kind has.
    #[error("{place}: no recipe key \"{key}\"{hint}")]
    UnknownKey {
        /// The file, or `--set`.
        place: String,
        /// The dotted key.
        key: String,
        /// The nearest known key, as a sentence, or nothing.
        hint: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{place}: {reason}")]
    Value {
        /// The file, or `--set`.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither a built-in recipe nor a file.
    #[error("no recipe \"{name}\": there is no such file, and built in are {known}{hint}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The built-in names.
        known: String,
        /// The nearest of them, as a sentence, or nothing.
        hint: String,
    },
}

/// A value of the right type that nothing can train with.
///
/// The command line puts the file and the line in front of it, or the flag.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key} {reason}")]
pub struct Impossible {
    /// The dotted key, or the group of keys.
    pub key: String,
    /// What is wrong with it: `is 0; it must be at least 1`.
    pub reason: String,
}

impl Impossible {
    /// What is wrong with the value of a key.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            reason: reason.into(),
        }
    }
}
