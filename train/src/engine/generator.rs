//! The random generator of a backend, which is one for all threads of a process: one piece of work at a time has it.

use std::sync::Mutex;

use burn::prelude::Backend;

/// Does work whose random numbers follow from `seed` alone, whatever trains in other threads.
///
/// It waits while another thread is inside, so `work` must not call it again. What draws numbers outside of it, on the same
/// backend and at the same time, changes what `work` draws.
pub fn seeded<B: Backend, T>(device: &B::Device, seed: u64, work: impl FnOnce() -> T) -> T {
    static IN_USE: Mutex<()> = Mutex::new(());
    // A panic inside leaves nothing half done: the next one seeds anew.
    let _alone = IN_USE.lock().unwrap_or_else(|e| e.into_inner());
    B::seed(device, seed);
    work()
}
