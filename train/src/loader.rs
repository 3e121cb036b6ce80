//! Burn's data loader over numbered batches: one thread works ahead, and order never depends on timing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::prelude::Backend;

use crate::source::BatchSource;

/// Batches made ahead of the step that needs them.
const AHEAD: usize = 4;

/// Batches `start..end` of a source.
pub struct Loader<S> {
    source: Arc<S>,
    start: u64,
    end: u64,
}

impl<S: BatchSource> Loader<S> {
    /// Batches `start..end`.
    pub fn new(source: Arc<S>, start: u64, end: u64) -> Self {
        Self { source, start, end }
    }
}

impl<B: Backend, S: BatchSource> DataLoader<B, S::Batch> for Loader<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<S::Batch> + 'a> {
        let (sender, batches) = sync_channel(AHEAD);
        let (source, numbers) = (self.source.clone(), self.start..self.end);
        std::thread::spawn(move || {
            for number in numbers {
                // The receiver is gone when training stops early.
                if sender.send(source.batch(number)).is_err() {
                    return;
                }
            }
        });
        Box::new(Batches {
            batches,
            taken: 0,
            total: (self.end - self.start) as usize,
        })
    }

    fn num_items(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Batches are host memory: they move when they are used.
    fn to_device(&self, _: &B::Device) -> Arc<dyn DataLoader<B, S::Batch>> {
        Arc::new(Self::new(self.source.clone(), self.start, self.end))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, S::Batch>> {
        let (start, end) = (self.start + start as u64, self.start + end as u64);
        Arc::new(Self::new(self.source.clone(), start, end.min(self.end)))
    }
}

struct Batches<T> {
    batches: Receiver<T>,
    taken: usize,
    total: usize,
}

impl<T> Iterator for Batches<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let batch = self.batches.recv().ok()?;
        self.taken += 1;
        Some(batch)
    }
}

impl<T> DataLoaderIterator<T> for Batches<T> {
    fn progress(&self) -> Progress {
        Progress::new(self.taken, self.total)
    }
}
