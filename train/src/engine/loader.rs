//! Burn's data loader over numbered batches: threads work ahead, and order never depends on their timing.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::prelude::Backend;

use crate::source::BatchSource;

/// Batches that each thread makes ahead of the step that needs them, beside the one it is at.
const AHEAD: usize = 2;
/// Threads, unless a recipe says otherwise.
const WORKERS: usize = 2;

/// Batches `start..end` of a source.
pub struct Loader<S> {
    source: Arc<S>,
    start: u64,
    end: u64,
    workers: usize,
}

impl<S: BatchSource> Loader<S> {
    /// Batches `start..end`.
    pub fn new(source: Arc<S>, start: u64, end: u64) -> Self {
        Self {
            source,
            start,
            end,
            workers: WORKERS,
        }
    }

    /// Made by so many threads, at least 1.
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    fn part(&self, start: u64, end: u64) -> Self {
        Self::new(self.source.clone(), start, end).with_workers(self.workers)
    }

    /// The first thread makes the first batch and every `workers`th after it, the second the ones after these.
    fn batches(&self) -> Batches<S::Batch> {
        let total = self.end.saturating_sub(self.start);
        let workers = (self.workers as u64).min(total).max(1);
        let worker = |first| {
            let (sender, batches) = sync_channel(AHEAD);
            let (source, end) = (self.source.clone(), self.end);
            let numbers = (self.start + first..end).step_by(workers as usize);
            let thread = std::thread::spawn(move || make(&*source, numbers, &sender));
            Worker {
                batches,
                thread: Some(thread),
            }
        };
        Batches {
            workers: (0..workers).map(worker).collect(),
            taken: 0,
            total,
        }
    }
}

fn make<S: BatchSource>(source: &S, numbers: impl Iterator<Item = u64>, to: &SyncSender<S::Batch>) {
    for number in numbers {
        // The receiver is gone when training stops early.
        if to.send(source.batch(number)).is_err() {
            return;
        }
    }
}

impl<B: Backend, S: BatchSource> DataLoader<B, S::Batch> for Loader<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<S::Batch> + 'a> {
        Box::new(self.batches())
    }

    fn num_items(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Batches are host memory: they move when they are used.
    fn to_device(&self, _: &B::Device) -> Arc<dyn DataLoader<B, S::Batch>> {
        Arc::new(self.part(self.start, self.end))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, S::Batch>> {
        let (start, end) = (self.start + start as u64, self.start + end as u64);
        Arc::new(self.part(start, end.min(self.end)))
    }
}

struct Worker<T> {
    batches: Receiver<T>,
    thread: Option<JoinHandle<()>>,
}

struct Batches<T> {
    workers: Vec<Worker<T>>,
    taken: u64,
    total: u64,
}

impl<T> Iterator for Batches<T> {
    type Item = T;

    /// # Panics
    /// If the thread that had to make the batch panicked: with its own words.
    fn next(&mut self) -> Option<T> {
        if self.taken == self.total {
            return None;
        }
        let turn = (self.taken % self.workers.len() as u64) as usize;
        let worker = &mut self.workers[turn];
        let Ok(batch) = worker.batches.recv() else {
            let thread = worker.thread.take()?;
            return match thread.join() {
                Err(panic) => resume_unwind(panic),
                Ok(()) => None,
            };
        };
        self.taken += 1;
        Some(batch)
    }
}

impl<T> DataLoaderIterator<T> for Batches<T> {
    fn progress(&self) -> Progress {
        Progress::new(self.taken as usize, self.total as usize)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::source::Counts;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    #[derive(Debug, PartialEq)]
    struct Number(u64);

    impl Counts for Number {
        fn real(&self) -> usize {
            1
        }

        fn padded(&self) -> usize {
            1
        }
    }

    /// Makes batches of which some take longer, and one may fail.
    #[derive(Default)]
    struct Uneven {
        made: AtomicU64,
        broken: Option<u64>,
    }

    impl BatchSource for Uneven {
        type Batch = Number;

        fn batches_per_epoch(&self) -> u64 {
            1000
        }

        fn batch(&self, number: u64) -> Number {
            assert_ne!(Some(number), self.broken, "batch {number} is broken");
            std::thread::sleep(Duration::from_micros(number * 7919 % 5 * 200));
            self.made.fetch_add(1, Ordering::SeqCst);
            Number(number)
        }
    }

    fn batches(source: &Arc<Uneven>, workers: usize) -> Batches<Number> {
        let loader = Loader::new(source.clone(), 3, 203).with_workers(workers);
        loader.batches()
    }

    #[test]
    fn order_does_not_depend_on_the_threads() {
        for workers in [1, 2, 3, 7, 500] {
            let numbers = batches(&Arc::default(), workers).map(|batch| batch.0);
            let numbers: Vec<_> = numbers.collect();
            assert_eq!(numbers, (3..203).collect::<Vec<_>>(), "{workers} workers");
        }
        let nothing = Loader::new(Arc::new(Uneven::default()), 3, 3);
        assert_eq!(nothing.batches().next(), None);
    }

    #[test]
    fn threads_work_ahead_only_so_far() {
        let source = Arc::default();
        let mut batches = batches(&source, 3);
        assert_eq!(batches.next(), Some(Number(3)));
        std::thread::sleep(Duration::from_millis(100));
        // Each has its channel's batches and one that waits for room.
        let made = source.made.load(Ordering::SeqCst);
        assert!(made <= 1 + 3 * (AHEAD as u64 + 1), "{made}");
    }

    #[test]
    fn a_panic_while_making_a_batch_reaches_the_training() {
        let source = Arc::new(Uneven {
            broken: Some(9),
            ..Uneven::default()
        });
        let mut batches = batches(&source, 2);
        for number in 3..9 {
            assert_eq!(batches.next(), Some(Number(number)));
        }
        let panic = catch_unwind(AssertUnwindSafe(|| batches.next())).unwrap_err();
        let words = panic.downcast_ref::<String>().unwrap();
        assert!(words.contains("batch 9 is broken"), "{words}");
    }

    #[test]
    fn threads_end_when_nobody_listens() {
        let source = Arc::default();
        let mut batches = batches(&source, 4);
        batches.next();
        drop(batches);
        let began = Instant::now();
        // Each thread holds the source.
        while Arc::strong_count(&source) > 1 {
            assert!(began.elapsed() < Duration::from_secs(5), "threads go on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
