//! An allocator for programs that train: keeps pages, and says so when there is no more memory.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use mimalloc::MiMalloc;

/// mimalloc, with a sentence and exit code 1 where Rust would abort, once the program has [armed](arm) it.
///
/// A program names it in its `main.rs`; [`process::start`](crate::process::start) does the rest:
///
/// ```ignore
/// #[global_allocator]
/// static ALLOCATOR: train::memory::Allocator = train::memory::Allocator;
/// ```
pub struct Allocator;

/// What a process is at, for the sentence that it ends with when memory runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Work {
    /// Reads data and makes a model, to train it.
    Preparing = 1,
    /// Uses a model that was trained before.
    Inference,
    /// Trains, without checkpoints.
    Training,
    /// Trains, with checkpoints.
    ResumableTraining,
}

/// Whether a failed allocation ends the process.
static ARMED: AtomicBool = AtomicBool::new(false);
/// A [`Work`].
static WORK: AtomicU8 = AtomicU8::new(Work::Preparing as u8);

/// From here on, running out of memory ends the process with a sentence: for programs alone.
pub fn arm(work: Work) {
    now(work);
    ARMED.store(true, Ordering::Relaxed);
}

/// Notes what the process is at.
pub(crate) fn now(work: Work) {
    WORK.store(work as u8, Ordering::Relaxed);
}

/// Freed pages stay with the process: a step takes and frees the same sizes again and again.
pub fn keep_pages() {
    /// `mi_option_purge_delay` of mimalloc.h, which the crate does not name; -1 never purges.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets an option of the allocator; no pointers.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
}

// SAFETY: every call goes to mimalloc as it is.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are mimalloc's.
        checked(unsafe { MiMalloc.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { MiMalloc.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { MiMalloc.realloc(pointer, layout, size) })
    }
}

fn checked(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() && ARMED.load(Ordering::Relaxed) && !data::room::is_asking() {
        give_up();
    }
    pointer
}

/// What can be done about it. No text is made here: from the heap there is nothing to be had.
fn advice(work: u8) -> &'static [u8] {
    const INFERENCE: u8 = Work::Inference as u8;
    const TRAINING: u8 = Work::Training as u8;
    const RESUMABLE: u8 = Work::ResumableTraining as u8;
    match work {
        INFERENCE => b"error: out of memory; less input at a time needs less\n",
        TRAINING => b"error: out of memory; a smaller training.batch_size needs less\n",
        RESUMABLE => {
            b"error: out of memory; a smaller training.batch_size needs less; --resume goes on from the last checkpoint, or \
              from the beginning where there is none\n"
        }
        _ => b"error: out of memory before the training; less data or a smaller model needs less\n",
    }
}

/// Ends the process.
#[cold]
fn give_up() {
    ARMED.store(false, Ordering::Relaxed);
    crate::terminal::hand_back();
    #[cfg(unix)]
    {
        let advice = advice(WORK.load(Ordering::Relaxed));
        // SAFETY: write takes a valid buffer and its length; _exit does not return.
        unsafe {
            libc::write(2, advice.as_ptr().cast(), advice.len());
            libc::_exit(1);
        }
    }
}
