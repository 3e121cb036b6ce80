//! Where batches come from: a pure function of their number, so that a resumed run seeks, never replays.
//!
//! ```text
//! rows of a split                     data::TokenRows, job::image::ImageRows
//!   | their lengths                   data::order::Lengths
//!   | in what portions                data::order::Batching: so many rows, or so many tokens
//!   v
//! order of one epoch                  data::order::EpochOrder, made anew for each epoch, kept by PerEpoch
//!   v
//! order of all epochs                 Epochs: which rows are in the batch of a number
//!   v
//! rows of a batch                     Rows: their indices, and for each a number that chance is drawn by
//!   | reads, masks, pads, augments    an objective's BatchSource: numbered batches, made of host memory
//!   v
//! batch                               any type with Counts
//!   | made ahead, in threads          Loader
//!   v
//! training loop
//! ```

use std::fmt;

use data::order::{Batching, EpochOrder, Lengths, PerEpoch};

/// What a batch is counted by.
pub trait Counts {
    /// Real tokens, or samples: what throughput counts.
    fn real(&self) -> usize;

    /// The same with padding.
    fn padded(&self) -> usize;

    /// What each term of the loss is divided by, summed over the batch: its targets, or their weights. Empty where
    /// the loss has one term, whose weight only the forward pass knows.
    ///
    /// A loss of several terms must give them, in the order of [`LossSums`](crate::LossSums): the first, then
    /// [`terms`](crate::LossSums::terms). So the mean of each is one over the whole step, however it is cut in micro-batches.
    /// A batch whose denominators are all 0 has nothing to predict: it is passed over.
    fn denominators(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Whether it says that it has nothing to predict.
    fn is_without_targets(&self) -> bool {
        let denominators = self.denominators();
        !denominators.is_empty() && denominators.iter().all(|&targets| targets == 0.0)
    }
}

/// What throughput counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of texts; padding is counted with them.
    Tokens,
    /// Images, pairs, rows.
    Samples,
}

impl Unit {
    /// What throughput is called.
    pub fn rate(self) -> String {
        format!("{self}_per_second")
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokens => "tokens",
            Self::Samples => "samples",
        })
    }
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

/// Which rows are in which batch, through all epochs.
pub struct Epochs {
    rows: usize,
    batches_per_epoch: u64,
    order: Order,
}

enum Order {
    Fixed { batch_size: usize },
    Shuffled(Shuffle),
}

struct Shuffle {
    /// Batches that are cut of one of the order's.
    parts: u64,
    make: Box<dyn Fn(u64) -> EpochOrder + Send + Sync>,
    epochs: PerEpoch<EpochOrder>,
}

/// Batches into an epoch after which no thread works on the one before.
const SETTLED: u64 = 256;

impl Epochs {
    /// Every row in order, the last batch short: for splits that are only looked at.
    pub fn in_order(rows: usize, batch_size: usize) -> Self {
        Self {
            rows,
            batches_per_epoch: rows.div_ceil(batch_size.max(1)) as u64,
            order: Order::Fixed { batch_size },
        }
    }

    /// A new order every epoch, [`EpochOrder`]'s.
    ///
    /// An epoch is whole steps of `accumulation` batches where it has one: batches beyond them are left out, other
    /// rows each time. Where a batch is a number of rows, the order is one of steps, which are then cut in batches: so
    /// batches of 64, two of 32 or eight of 8 a step are the same rows in the same steps, sorted by length or not.
    pub fn shuffled(
        lengths: impl Lengths + Send + Sync + 'static,
        batching: Batching,
        accumulation: u64,
        seed: u64,
    ) -> Self {
        let rows = lengths.rows();
        let (batching, parts) = match batching {
            Batching::Rows { size, pool } if accumulation > 1 => {
                match size.saturating_mul(accumulation as usize) {
                    step if step <= rows => (Batching::Rows { size: step, pool }, accumulation),
                    _ => (batching, 1),
                }
            }
            _ => (batching, 1),
        };
        let make = move |epoch| EpochOrder::new(&lengths, batching, seed, epoch);
        let epochs = PerEpoch::default();
        // Each epoch has as many batches as the first.
        let batches = epochs.get(0, false, || make(0)).batches() as u64 * parts;
        Self {
            rows,
            batches_per_epoch: whole_steps(batches, accumulation),
            order: Order::Shuffled(Shuffle {
                parts,
                make: Box::new(make),
                epochs,
            }),
        }
    }

    /// Batches in an epoch, at least 1.
    pub fn batches_per_epoch(&self) -> u64 {
        self.batches_per_epoch
    }

    /// The rows of the batch with this number, counted from 0 through all epochs.
    pub fn batch(&self, number: u64) -> Rows {
        let epoch = number / self.batches_per_epoch;
        let at = number % self.batches_per_epoch;
        let rows: Vec<u32> = match &self.order {
            Order::Fixed { batch_size } => {
                let first = at as usize * batch_size;
                (first as u32..(first + batch_size).min(self.rows) as u32).collect()
            }
            Order::Shuffled(shuffle) => {
                let make = || (shuffle.make)(epoch);
                let order = shuffle.epochs.get(epoch, at > SETTLED, make);
                let (whole, part) = (at / shuffle.parts, (at % shuffle.parts) as usize);
                let rows = order.batch(whole as usize);
                let size = rows.len() / shuffle.parts as usize;
                rows[part * size..(part + 1) * size].to_vec()
            }
        };
        let sample = |&row: &u32| epoch * self.rows as u64 + u64::from(row);
        let samples = rows.iter().map(sample).collect();
        Rows { rows, samples }
    }
}

/// Batches of an epoch that fill steps of `accumulation`; all of them where they fill none, at least 1.
pub fn whole_steps(batches: u64, accumulation: u64) -> u64 {
    match batches / accumulation.max(1) * accumulation {
        0 => batches.max(1),
        whole => whole,
    }
}

/// The rows of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Which.
    pub rows: Vec<u32>,
    /// A number for each that no row of any epoch shares: what chance is drawn by, so that it does not depend on how
    /// rows are batched.
    pub samples: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows and samples of the first steps, whatever their micro-batches.
    fn steps(
        batch_size: usize,
        accumulation: u64,
        pool: usize,
        steps: u64,
    ) -> Vec<(Vec<u32>, Vec<u64>)> {
        let batching = Batching::Rows {
            size: batch_size,
            pool,
        };
        let lengths: Vec<u32> = (0..300).map(|row| row * 7 % 31).collect();
        let epochs = Epochs::shuffled(lengths, batching, accumulation, 5);
        let step = |step| {
            let numbers = step * accumulation..(step + 1) * accumulation;
            let batches: Vec<_> = numbers.map(|number| epochs.batch(number)).collect();
            let rows = batches.iter().flat_map(|batch| batch.rows.clone());
            let samples = batches.iter().flat_map(|batch| batch.samples.clone());
            (rows.collect(), samples.collect())
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn steps_are_the_same_rows_however_they_are_cut() {
        // 300 rows: 4 steps of 64 an epoch, so 10 steps pass two ends of an epoch.
        for pool in [0, 2, 50] {
            let whole = steps(64, 1, pool, 10);
            assert_eq!(whole, steps(32, 2, pool, 10));
            assert_eq!(whole, steps(8, 8, pool, 10));
        }
    }

    #[test]
    fn a_sample_is_a_row_of_an_epoch() {
        let epochs = Epochs::in_order(5, 2);
        assert_eq!(epochs.batches_per_epoch(), 3);
        let batch = epochs.batch(2);
        assert_eq!((batch.rows, batch.samples), (vec![4], vec![4]));
        let next = epochs.batch(3);
        assert_eq!((next.rows, next.samples), (vec![0, 1], vec![5, 6]));
    }

    #[test]
    fn an_epoch_shorter_than_a_step_keeps_its_batches() {
        assert_eq!(whole_steps(37, 8), 32);
        assert_eq!(whole_steps(5, 8), 5);
        assert_eq!(whole_steps(0, 8), 1);
    }
}
