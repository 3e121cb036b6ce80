//! Asking a training to stop from outside. In: a request, of a signal handler or another thread. Out: the step is
//! finished, the state saved, and the session ends as [`Interrupted`](crate::Status::Interrupted).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use burn::train::Interrupter;

/// A handle by which sessions are asked to stop; clones are one handle.
#[derive(Clone, Default)]
pub struct Interrupt {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: usize,
    listeners: Vec<Weak<Listening>>,
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing listens: no state would be saved.
    Unheard,
    /// What listens will stop.
    Stopping,
    /// What listens is stopping already.
    Again,
}

/// Listens to a handle until it is dropped.
pub(crate) struct Listening {
    interrupter: Interrupter,
    /// Acts on further requests by itself.
    takes_all: bool,
}

impl Interrupt {
    /// A handle without a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything that listens to stop, and everything that will.
    pub fn request(&self) -> Response {
        let mut state = self.lock();
        state.requests += 1;
        let listeners: Vec<_> = state.listeners.iter().filter_map(Weak::upgrade).collect();
        let mut response = Response::Unheard;
        for Listening {
            interrupter,
            takes_all,
        } in listeners.iter().map(|listener| &**listener)
        {
            let again = interrupter.should_stop() && !takes_all;
            if response != Response::Stopping {
                response = if again {
                    Response::Again
                } else {
                    Response::Stopping
                };
            }
            interrupter.stop(Some("interrupted"));
        }
        response
    }

    /// Number of requests so far.
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    /// Stops `interrupter` at the first request, also at an earlier one.
    ///
    /// - takes_all: whether the listener acts on further requests too
    pub(crate) fn listen(&self, interrupter: Interrupter, takes_all: bool) -> Arc<Listening> {
        let mut state = self.lock();
        if state.requests > 0 {
            interrupter.stop(Some("interrupted"));
        }
        let listening = Arc::new(Listening {
            interrupter,
            takes_all,
        });
        state.listeners.retain(|other| other.strong_count() > 0);
        state.listeners.push(Arc::downgrade(&listening));
        listening
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interrupt({} requests)", self.requests())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_stops_and_the_second_is_known_as_such() {
        let interrupt = Interrupt::new();
        assert_eq!(interrupt.request(), Response::Unheard);

        let interrupt = Interrupt::new();
        let session = Interrupter::new();
        let listening = interrupt.listen(session.clone(), false);
        assert!(!session.should_stop());
        assert_eq!(interrupt.clone().request(), Response::Stopping);
        assert!(session.should_stop());
        assert_eq!(interrupt.request(), Response::Again);
        drop(listening);
        assert_eq!(interrupt.request(), Response::Unheard);
    }

    #[test]
    fn a_stop_by_the_dashboard_counts_as_the_first_request() {
        let interrupt = Interrupt::new();
        let session = Interrupter::new();
        let _listening = interrupt.listen(session.clone(), false);
        session.stop(None);
        assert_eq!(interrupt.request(), Response::Again);
    }

    #[test]
    fn a_session_that_begins_after_the_request_stops_too() {
        let interrupt = Interrupt::new();
        interrupt.request();
        let late = Interrupter::new();
        let _listening = interrupt.listen(late.clone(), false);
        assert!(late.should_stop());
    }

    #[test]
    fn a_search_takes_every_request() {
        let interrupt = Interrupt::new();
        let _listening = interrupt.listen(Interrupter::new(), true);
        let twice = [interrupt.request(), interrupt.request()];
        assert_eq!(twice, [Response::Stopping; 2]);
        assert_eq!(interrupt.requests(), 2);
    }
}
