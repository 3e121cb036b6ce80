//! Memory that is asked for to learn whether there is any: an allocator that ends the process when memory runs out lets
//! such a request fail.

use std::cell::Cell;

thread_local! {
    static ASKS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is asking for memory that it can do without.
pub fn is_asking() -> bool {
    ASKS.get()
}

/// An empty vector with room for so many bytes; nothing if the process can't have them.
pub(crate) fn of(bytes: usize) -> Option<Vec<u8>> {
    let mut vector = Vec::new();
    ASKS.set(true);
    let reserved = vector.try_reserve_exact(bytes);
    ASKS.set(false);
    reserved.ok().map(|()| vector)
}
