//! Where batches come from: a pure function of their number, so that a resumed run seeks, never replays.

use std::sync::{Arc, Mutex};

use data::order;

/// What a batch is counted by.
pub trait Counts {
    /// Real tokens, or samples: what throughput counts.
    fn units(&self) -> usize;
    /// Units with padding.
    fn slots(&self) -> usize;
}

/// Numbered batches.
pub trait BatchSource: Send + Sync + 'static {
    /// What one forward pass takes.
    type Batch: Counts + Send + Sync + 'static;

    /// Batches in an epoch, at least 1.
    fn batches_per_epoch(&self) -> u64;

    /// The batch of this number, counted from 0 through all epochs; equal numbers give equal batches.
    fn batch(&self, number: u64) -> Self::Batch;
}

/// Which rows stand in which batch, through all epochs.
pub struct Epochs {
    batches_per_epoch: u64,
    order: Order,
}

enum Order {
    Fixed { rows: usize, batch_size: usize },
    Shuffled(Shuffle),
}

/// Rows of each batch of an epoch.
type Batches = Arc<Vec<Vec<u32>>>;

struct Shuffle {
    lengths: Vec<u32>,
    batch_size: usize,
    pool: usize,
    seed: u64,
    current: Mutex<Option<(u64, Batches)>>,
}

impl Epochs {
    /// Every row in order, the last batch short: for splits that are only looked at.
    pub fn in_order(rows: usize, batch_size: usize) -> Self {
        Self {
            batches_per_epoch: rows.div_ceil(batch_size.max(1)) as u64,
            order: Order::Fixed { rows, batch_size },
        }
    }

    /// A new order every epoch; rows of like length together when `pool` batches are sorted at a time.
    ///
    /// Rows that do not fill a last batch are left out of their epoch, other ones each time.
    pub fn shuffled(lengths: Vec<u32>, batch_size: usize, pool: usize, seed: u64) -> Self {
        let batches_per_epoch = (lengths.len() / batch_size.max(1)).max(1) as u64;
        Self {
            batches_per_epoch,
            order: Order::Shuffled(Shuffle {
                lengths,
                batch_size,
                pool,
                seed,
                current: Mutex::new(None),
            }),
        }
    }

    /// Batches in an epoch, at least 1.
    pub fn batches_per_epoch(&self) -> u64 {
        self.batches_per_epoch
    }

    /// The rows of the batch with this number, counted from 0 through all epochs.
    pub fn rows(&self, number: u64) -> Vec<u32> {
        let (epoch, at) = (
            number / self.batches_per_epoch,
            number % self.batches_per_epoch,
        );
        match &self.order {
            Order::Fixed { rows, batch_size } => {
                let first = at as usize * batch_size;
                (first as u32..(first + batch_size).min(*rows) as u32).collect()
            }
            Order::Shuffled(shuffle) => shuffle.epoch(epoch)[at as usize].clone(),
        }
    }
}

impl Shuffle {
    fn epoch(&self, epoch: u64) -> Batches {
        let mut current = self.current.lock().unwrap_or_else(|e| e.into_inner());
        match &*current {
            Some((have, batches)) if *have == epoch => batches.clone(),
            _ => {
                let (size, pool) = (self.batch_size, self.pool);
                let batches = order::batches(&self.lengths, size, pool, self.seed, epoch);
                let batches = Arc::new(batches);
                *current = Some((epoch, batches.clone()));
                batches
            }
        }
    }
}
