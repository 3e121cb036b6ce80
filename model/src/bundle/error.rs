//! What is wrong with a bundle. In: the file and what was found in it. Out: one sentence.

use std::path::PathBuf;

use thiserror::Error;

/// What is wrong with a bundle.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The directory is missing or lacks a file.
    #[error("{}: is no bundle: {reason}", path.display())]
    NotABundle {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A model of another kind is needed.
    #[error("{}: holds {found}, and {wanted} is needed here", path.display())]
    WrongKind {
        /// The directory.
        path: PathBuf,
        /// What its configuration names.
        found: String,
        /// What the caller can use.
        wanted: String,
    },
    /// `config.json` can't be used.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The weights do not fit the configuration.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Which tensor, and how.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
