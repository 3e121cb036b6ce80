//! The allocator of every program that trains: keeps pages, and says so when there is no more memory.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

use mimalloc::MiMalloc;

/// mimalloc, with a sentence and exit code 1 where Rust would abort in the middle of a training.
pub struct Allocator;

/// Set while a run trains: before, a failed allocation may be someone's way to try a size.
static TRAINING: AtomicBool = AtomicBool::new(false);
/// Whether what trains has checkpoints.
static RESUMABLE: AtomicBool = AtomicBool::new(false);

/// From here on, running out of memory ends the process with a sentence.
///
/// - resumable: whether what trains has checkpoints to go on from
pub fn guard(resumable: bool) {
    RESUMABLE.store(resumable, Ordering::Relaxed);
    TRAINING.store(true, Ordering::Relaxed);
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
    if pointer.is_null() && TRAINING.load(Ordering::Relaxed) {
        give_up();
    }
    pointer
}

/// Ends the process; from the heap nothing is to be had.
#[cold]
fn give_up() {
    const ADVICE: &[u8] = b"error: out of memory; a smaller training.batch_size needs less";
    const RESUME: &[u8] = b"; the last checkpoint is whole, --resume goes on from there";
    TRAINING.store(false, Ordering::Relaxed);
    crate::terminal::hand_back();
    let resume = match RESUMABLE.load(Ordering::Relaxed) {
        true => RESUME,
        false => b"",
    };
    #[cfg(unix)]
    for part in [ADVICE, resume, b"\n"] {
        // SAFETY: write takes a valid buffer and its length.
        unsafe {
            libc::write(2, part.as_ptr().cast(), part.len());
        }
    }
    #[cfg(unix)]
    // SAFETY: _exit does not return.
    unsafe {
        libc::_exit(1);
    }
    #[cfg(not(unix))]
    {
        let _ = (ADVICE, resume);
    }
}
