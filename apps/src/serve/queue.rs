//! What waits for a model. In: jobs of many threads. Out: one after the other, or those that fit into a batch, for one thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A bounded queue.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    most: usize,
}

struct State<T> {
    jobs: VecDeque<T>,
    is_closed: bool,
}

/// Why a job was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// As many wait as may.
    Full,
    /// Nobody takes jobs any more.
    Closed,
}

impl<T> Queue<T> {
    /// - most: jobs that may wait
    pub(super) fn new(most: usize) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            is_closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            most,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job at the end.
    pub(super) fn push(&self, job: T) -> Result<(), Rejected> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Rejected::Closed);
        }
        if state.jobs.len() >= self.most {
            return Err(Rejected::Full);
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Lets what waits be done, and takes nothing more.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// The oldest job, waited for; nothing once the queue is closed and empty.
    pub(super) fn wait(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The oldest job that fits. Until a moment it is waited for, while nothing else waits.
    pub(super) fn take_until(&self, until: Instant, fits: impl Fn(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(at) = state.jobs.iter().position(&fits) {
                return state.jobs.remove(at);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.is_closed || !state.jobs.is_empty() {
                return None;
            }
            let woken = self.changed.wait_timeout(state, left);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_full_or_closed_queue_takes_nothing() {
        let queue = Queue::new(2);
        assert_eq!([queue.push(1), queue.push(2)], [Ok(()); 2]);
        assert_eq!(queue.push(3), Err(Rejected::Full));
        queue.close();
        assert_eq!(queue.push(3), Err(Rejected::Closed));
        assert_eq!(
            [queue.wait(), queue.wait(), queue.wait()],
            [Some(1), Some(2), None]
        );
    }

    #[test]
    fn what_fits_is_taken_from_anywhere_and_waited_for_only_while_nothing_else_waits() {
        let queue = Arc::new(Queue::new(9));
        for job in [1, 2, 3] {
            queue.push(job).unwrap();
        }
        let far = || Instant::now() + Duration::from_secs(60);
        assert_eq!(queue.take_until(far(), |job| *job == 2), Some(2));
        // 1 and 3 wait: they are not to wait any longer.
        assert_eq!(queue.take_until(far(), |job| *job == 2), None);
        assert_eq!(
            (queue.wait(), queue.wait(), queue.len()),
            (Some(1), Some(3), 0)
        );
        let other = queue.clone();
        let later = thread::spawn(move || other.take_until(far(), |job| *job == 2));
        thread::sleep(Duration::from_millis(5));
        queue.push(2).unwrap();
        assert_eq!(later.join().unwrap(), Some(2));
        assert_eq!(queue.take_until(Instant::now(), |_| true), None);
    }
}
