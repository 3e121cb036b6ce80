//! The two ways to fail: the input was wrong (exit code 2), or the work broke down (exit code 1).

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

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

impl std::error::Error for Failure {}

/// Says which of the two an error is, where its type does not: `read(path).input()?`, `write(path).running()?`.
pub trait FailureKind<T> {
    /// The input was wrong.
    fn input(self) -> Result<T, Failure>;

    /// The work broke down.
    fn running(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> FailureKind<T> for Result<T, E> {
    fn input(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Input(error.into()))
    }

    fn running(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Running(error.into()))
    }
}

/// Errors that are about the input wherever they occur: of these alone `?` makes a failure.
macro_rules! input_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Input(error.into())
            }
        }
    )*};
}

input_errors!(
    data::DataError,
    model::BundleError,
    crate::backend::UnknownBackend,
    crate::recipe::Impossible,
    crate::recipe::RecipeError,
    crate::run::RunError
);

/// Pieces of work that are being [`caught`], in all threads.
static CATCHING: AtomicUsize = AtomicUsize::new(0);

/// Whether a panic is about to become an error somewhere, so that a program's panic hook need not print it.
pub fn is_catching() -> bool {
    CATCHING.load(Ordering::Relaxed) > 0
}

/// Runs; a panic becomes an error with a sentence.
///
/// # Errors
///
/// What was run panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> anyhow::Result<T> {
    CATCHING.fetch_add(1, Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHING.fetch_sub(1, Ordering::Relaxed);
    result.map_err(|panic| anyhow::anyhow!(breakdown(&*panic)))
}

/// Data that could be read when the run began and can't be read any more. A thread that makes batches panics with it: it has
/// no other way to end a run.
#[derive(Clone, Debug)]
pub struct Unreadable(String);

impl Unreadable {
    /// - error: with its causes
    pub fn new(error: impl Into<anyhow::Error>) -> Self {
        Self(format!("{:#}", error.into()))
    }
}

/// What a caught panic means, in one sentence.
pub fn breakdown(panic: &(dyn Any + Send)) -> String {
    if let Some(Unreadable(reason)) = panic.downcast_ref() {
        return format!("the data can't be read any more: {reason}");
    }
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without a message");
    let lower = text.to_lowercase();
    let holds = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let what = if holds(&[
        "out of memory",
        "outofmemory",
        "not enough memory",
        "to allocate",
        // There was no room for its stack.
        "failed to spawn thread",
    ]) {
        "the device is out of memory; a smaller training.batch_size needs less"
    } else if holds(&["device lost", "devicelost", "device is lost", "lost device"]) {
        "the device was lost"
    } else {
        "the backend broke down"
    };
    format!("{what} ({text})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_panic_is_named_by_what_it_means() {
        let caught = |text: &'static str| caught(|| panic!("{text}")).unwrap_err().to_string();
        assert!(
            caught("CUDA_ERROR_OUT_OF_MEMORY: out of memory")
                .starts_with("the device is out of memory")
        );
        assert!(caught("wgpu error: Device lost").starts_with("the device was lost"));
        let other = caught("index out of bounds");
        assert!(
            other.starts_with("the backend broke down (index out of bounds)"),
            "{other}"
        );
    }

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
