//! How far a command is, on standard error, for what takes over two seconds.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

const SILENT: Duration = Duration::from_secs(2);

/// Says how far something is every two seconds.
pub(crate) struct Progress {
    what: &'static str,
    said: Instant,
}

impl Progress {
    /// - what: `reading`, say
    pub(crate) fn new(what: &'static str) -> Self {
        let said = Instant::now();
        Self { what, said }
    }

    /// - of: all rows, where they are known
    pub(crate) fn at(&mut self, rows: usize, of: Option<usize>) {
        if self.said.elapsed() < SILENT {
            return;
        }
        self.said = Instant::now();
        match of {
            Some(all) => eprintln!("{}: {rows} of {all} rows", self.what),
            None => eprintln!("{}: {rows} rows", self.what),
        }
    }
}

/// Does what says nothing of itself, and tells every two seconds that it goes on.
pub(super) fn while_working<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let (working, ended) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let began = Instant::now();
            while ended.recv_timeout(SILENT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}: {} s", began.elapsed().as_secs());
            }
        });
        let found = work();
        drop(working);
        found
    })
}
