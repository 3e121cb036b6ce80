//! The two ways to fail: the input was wrong (exit code 2), or the work broke down (exit code 1).

use std::fmt;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// A flag, a recipe or data was wrong; nothing was started or written.
    Input(anyhow::Error),
    /// Something broke while running.
    Running(anyhow::Error),
}

impl Failure {
    /// Wrong input, in one sentence.
    pub fn input(message: impl fmt::Display) -> Self {
        Self::Input(anyhow::anyhow!("{message}"))
    }

    /// A breakdown while running.
    pub fn running(error: impl Into<anyhow::Error>) -> Self {
        Self::Running(error.into())
    }

    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) => 2,
            Self::Running(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) | Self::Running(error) => write!(f, "{error:#}"),
        }
    }
}

/// Before training starts every error speaks of the input.
impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Input(error.into())
    }
}
