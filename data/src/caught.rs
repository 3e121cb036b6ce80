//! Panics of other crates on hostile files, as errors: no file can end the process.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Whether this thread runs such a crate's code.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is about to become an error, so that a program's panic hook need not print it.
pub fn is_catching() -> bool {
    CATCHING.get()
}

/// Runs another crate's code.
///
/// # Errors
///
/// What it said in a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    CATCHING.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    done.map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    // One line: what it says may quote the file.
    let line = text.unwrap_or("it cannot be decoded").lines();
    line.collect::<Vec<_>>().join(" ")
}
