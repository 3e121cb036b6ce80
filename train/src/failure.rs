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
    /// One line, with each cause once: many an error's own words end in those of its cause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Input(error) | Self::Running(error)) = self;
        let mut sentence = error.to_string();
        for cause in error.chain().skip(1).map(ToString::to_string) {
            if !sentence.ends_with(&cause) {
                sentence = format!("{sentence}: {cause}");
            }
        }
        f.write_str(&sentence.replace('\n', " "))
    }
}

/// Before training starts every error speaks of the input.
impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Input(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_failure_is_one_line_that_names_each_cause_once() {
        let cause = || std::io::Error::other("disk on\nfire");
        let failure = Failure::Running(Err::<(), _>(cause()).context("a.txt").unwrap_err());
        assert_eq!(failure.to_string(), "a.txt: disk on fire");
        let repeated = Err::<(), _>(cause())
            .context("a.txt: disk on\nfire")
            .unwrap_err();
        assert_eq!(
            Failure::Running(repeated).to_string(),
            "a.txt: disk on fire"
        );
    }
}
