//! What a program that trains does to its own process: memory, panics, signals, messages. Only a `main` calls
//! these functions; the library changes nothing in the process of its user.

use std::path::Path;
use std::sync::OnceLock;

use burn::train::{ApplicationLoggerInstaller, FileApplicationLoggerInstaller};

use crate::failure::{self, Failure, FailureKind};
use crate::interrupt::{Interrupt, Response};
use crate::memory::{self, Work};
use crate::terminal;

/// Prepares the process of a program whose allocator is [`memory::Allocator`]: freed memory is kept, memory that
/// runs out is one sentence, and so is a panic that is caught.
///
/// - work: what running out of memory means before a training begins
pub fn start(work: Work) {
    memory::keep_pages();
    memory::arm(work);
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if failure::is_catching() || data::is_catching() {
            // The place is for a bug report; the sentence is for the person.
            tracing::error!("{info}");
        } else {
            loud(info);
        }
    }));
}

/// The handle that Ctrl-C and termination request a stop by, once [`listen`] was called.
pub fn interrupt() -> Interrupt {
    static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();
    INTERRUPT.get_or_init(Interrupt::new).clone()
}

/// From here on the first Ctrl-C saves the state of what trains and stops it; the second, and one while nothing trains, ends
/// the process at once.
///
/// # Errors
///
/// The process has another handler already.
pub fn listen() -> Result<(), Failure> {
    let handler = || match interrupt().request() {
        Response::Stopping => {}
        Response::Unheard | Response::Again => {
            terminal::hand_back();
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).running()
}

/// Sends messages of this and other crates to a file, for the rest of the process.
pub(crate) fn log_to(path: &Path) {
    let ours = std::panic::take_hook();
    let installed = FileApplicationLoggerInstaller::new(path).install();
    // Burn's installer also makes panics loud.
    std::panic::set_hook(ours);
    if let Err(reason) = installed {
        tracing::warn!("{}: {reason}", path.display());
    }
}
