//! In which order examples are read, and every random generator of a run. In: lengths and a seed.
//! Out: indices.
//!
//! All are pure functions of their arguments, so a run that resumes at any step goes on as if it had
//! never stopped.

use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// What a generator is for; different streams of one seed are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The order of examples and batches.
    Order,
    /// Which tokens or patches are masked.
    Mask,
    /// Noise added to inputs or latents.
    Noise,
    /// Initial weights.
    Init,
    /// Dropout.
    Dropout,
    /// Sampling from a model.
    Sample,
    /// Augmentation of inputs.
    Augment,
    /// Which way the images of a batch are mixed.
    Mix,
}

/// A generator that is a pure function of (seed, stream, index): ChaCha8 keyed with the seed and
/// the index, on the stream's own sequence, at its start.
pub fn rng(seed: u64, stream: Stream, index: u64) -> ChaCha8Rng {
    // Both in the key, rather than the index as a position: generators of neighbouring indices
    // never run into each other, however much is drawn.
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&index.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream as u64);
    rng
}

/// The indices 0..len of one epoch in random order.
///
/// # Panics
/// If `len` exceeds `u32::MAX`.
pub fn shuffled(len: usize, seed: u64, epoch: u64) -> Vec<u32> {
    shuffle(len, &mut rng(seed, Stream::Order, epoch))
}

/// How the rows of an epoch are put into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// So many rows in each.
    Rows {
        /// Rows of a batch, at least 1.
        size: usize,
        /// Batches whose rows are sorted by length together; 0 never sorts.
        pool: usize,
    },
    /// As many rows as fit: rows times the longest of them is at most this.
    Tokens(usize),
}

/// The length of a row, in tokens.
pub trait Lengths {
    /// The number of rows.
    fn rows(&self) -> usize;

    /// # Panics
    /// May panic if there is no such row.
    fn length(&self, row: u32) -> u32;
}

impl Lengths for Vec<u32> {
    fn rows(&self) -> usize {
        self.len()
    }

    fn length(&self, row: u32) -> u32 {
        self[row as usize]
    }
}

/// The batches of one epoch: four bytes a row, and any batch at once.
///
/// - [`Batching::Rows`]: sorted by length inside pools of `pool` batches, then the batches are shuffled, so that a
///   batch holds similar lengths (as transformers' `group_by_length`). With `pool` 0 the batches are [`shuffled`] cut
///   in pieces. A last short batch is dropped if there is at least one full batch; which examples it would have held
///   changes with the epoch and does not depend on their lengths.
/// - [`Batching::Tokens`]: all rows sorted by length, rows of one length in random order, cut where the next row would
///   not fit, and these batches shuffled. Every epoch has the same number of them, and no row is left out.
pub struct EpochOrder {
    rows: Vec<u32>,
    cuts: Cuts,
    /// Which batch comes when; empty where they come as they were cut.
    turns: Vec<u32>,
}

/// Where batches begin and end among the rows.
enum Cuts {
    Every(usize),
    /// Starts, and the end of the last.
    At(Vec<u32>),
}

impl EpochOrder {
    /// The order of this epoch, a pure function of its arguments.
    ///
    /// # Panics
    /// If a batch has no room for a row, or there are more than `u32::MAX` rows.
    pub fn new(lengths: &impl Lengths, batching: Batching, seed: u64, epoch: u64) -> Self {
        let mut rng = rng(seed, Stream::Order, epoch);
        let mut rows = shuffle(lengths.rows(), &mut rng);
        let by_length = |&row: &u32| lengths.length(row);
        let (cuts, sorted) = match batching {
            Batching::Rows { size, pool } => {
                assert!(size > 0, "a batch holds at least one example");
                if rows.len() >= size {
                    rows.truncate(rows.len() - rows.len() % size);
                }
                if pool > 0 {
                    let pools = rows.chunks_mut(size.saturating_mul(pool));
                    pools.for_each(|pool| pool.sort_by_key(by_length));
                }
                (Cuts::Every(size), pool > 0)
            }
            Batching::Tokens(budget) => {
                rows.sort_by_key(by_length);
                (Cuts::At(cut_by_tokens(&rows, by_length, budget)), true)
            }
        };
        let mut order = Self {
            rows,
            cuts,
            turns: Vec::new(),
        };
        if sorted {
            order.turns = (0..order.batches() as u32).collect();
            order.turns.shuffle(&mut rng);
        }
        order
    }

    /// The number of batches; 0 where there is no row.
    pub fn batches(&self) -> usize {
        match &self.cuts {
            Cuts::Every(size) => self.rows.len().div_ceil(*size),
            Cuts::At(starts) => starts.len() - 1,
        }
    }

    /// The rows of the batch that comes at this place.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn batch(&self, at: usize) -> &[u32] {
        let cut = self.turns.get(at).map_or(at, |&turn| turn as usize);
        match &self.cuts {
            Cuts::Every(size) => {
                let start = cut * size;
                &self.rows[start..(start + size).min(self.rows.len())]
            }
            Cuts::At(starts) => &self.rows[starts[cut] as usize..starts[cut + 1] as usize],
        }
    }
}

/// Where batches begin in rows of growing length, and where the last one ends.
fn cut_by_tokens(rows: &[u32], length: impl Fn(&u32) -> u32, budget: usize) -> Vec<u32> {
    let (mut cuts, mut start) = (vec![0], 0);
    for (at, row) in rows.iter().enumerate() {
        let longest = length(row) as usize;
        assert!(longest <= budget, "a row of {longest} tokens in {budget}");
        if (at + 1 - start) * longest > budget {
            cuts.push(at as u32);
            start = at;
        }
    }
    if !rows.is_empty() {
        cuts.push(rows.len() as u32);
    }
    cuts
}

/// What is made once an epoch, kept as long as a batch of that epoch may be asked for.
pub struct PerEpoch<T> {
    kept: Mutex<Vec<(u64, Arc<T>)>>,
}

impl<T> Default for PerEpoch<T> {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
        }
    }
}

impl<T> PerEpoch<T> {
    /// That of this epoch, made where it is not there yet.
    ///
    /// Threads that work ahead reach the next epoch while others are in the last one, so the newest two stay; once
    /// `settled` says that the epoch is well under way, it alone.
    pub fn get(&self, epoch: u64, settled: bool, make: impl FnOnce() -> T) -> Arc<T> {
        // Whoever panicked while holding it has made nothing: what is kept is whole.
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        if settled {
            kept.retain(|(of, _)| *of == epoch);
        }
        if let Some((_, made)) = kept.iter().find(|(of, _)| *of == epoch) {
            return made.clone();
        }
        while kept.len() > 1 {
            kept.remove(0);
        }
        let made = Arc::new(make());
        kept.push((epoch, made.clone()));
        made
    }
}

fn shuffle(len: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let len = u32::try_from(len).expect("an epoch holds at most u32::MAX examples");
    let mut order: Vec<u32> = (0..len).collect();
    order.shuffle(rng);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    /// All batches of an epoch in their order.
    fn batches(lengths: &[u32], size: usize, pool: usize, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
        all(lengths, Batching::Rows { size, pool }, seed, epoch)
    }

    fn all(lengths: &[u32], batching: Batching, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
        let order = EpochOrder::new(&lengths.to_vec(), batching, seed, epoch);
        (0..order.batches())
            .map(|at| order.batch(at).to_vec())
            .collect()
    }

    fn flat_sorted(batches: &[Vec<u32>]) -> Vec<u32> {
        let mut all: Vec<u32> = batches.iter().flatten().copied().collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn generators_differ_by_seed_stream_and_index_alone() {
        let draw = |seed, stream, index| rng(seed, stream, index).next_u64();
        let first = draw(1, Stream::Order, 0);
        assert_eq!(first, draw(1, Stream::Order, 0));
        assert_ne!(first, draw(2, Stream::Order, 0));
        assert_ne!(first, draw(1, Stream::Mask, 0));
        assert_ne!(first, draw(1, Stream::Order, 1));
        // Swapped seed and index must not meet either.
        assert_ne!(draw(1, Stream::Order, 2), draw(2, Stream::Order, 1));
    }

    #[test]
    fn a_stored_order_stays_what_it_was() {
        // Pinned once from this code: a change here breaks the resuming of older runs.
        assert_eq!(shuffled(8, 42, 0), PINNED);
    }

    #[test]
    fn stored_batches_stay_what_they_were() {
        // Pinned from the code before batches became one list: sorted pools, shuffled batches.
        let lengths: Vec<u32> = (0..12).map(|i| i * 5 % 7).collect();
        assert_eq!(batches(&lengths, 3, 2, 42, 1), PINNED_BATCHES);
    }

    const PINNED_BATCHES: [[u32; 3]; 4] = [[10, 6, 2], [5, 1, 4], [0, 7, 3], [9, 8, 11]];

    const PINNED: [u32; 8] = [5, 7, 4, 2, 6, 1, 0, 3];

    #[test]
    fn an_epoch_is_a_permutation_of_its_own() {
        let first = shuffled(1000, 7, 0);
        assert_eq!(first, shuffled(1000, 7, 0));
        assert_ne!(first, shuffled(1000, 7, 1));
        assert_ne!(first, shuffled(1000, 8, 0));
        assert_eq!(flat_sorted(&[first]), (0..1000).collect::<Vec<_>>());
        assert!(shuffled(0, 7, 0).is_empty());
    }

    #[test]
    fn batches_cover_every_index_once_when_lengths_divide() {
        let lengths: Vec<u32> = (0..60).map(|i| i * 7 % 13).collect();
        for pool in [0, 1, 2, 50] {
            let batches = batches(&lengths, 5, pool, 3, 0);
            assert_eq!(batches.len(), 12);
            assert!(batches.iter().all(|batch| batch.len() == 5));
            assert_eq!(flat_sorted(&batches), (0..60).collect::<Vec<_>>());
        }
    }

    #[test]
    fn without_a_pool_batches_are_the_shuffled_order() {
        assert_eq!(batches(&[1; 12], 4, 0, 3, 5).concat(), shuffled(12, 3, 5));
    }

    #[test]
    fn one_pool_over_all_sorts_by_length() {
        // Lengths 0..12 in batches of 3: the batches must be {0,1,2}, {3,4,5}, {6,7,8}, {9,10,11}.
        let lengths: Vec<u32> = (0..12).collect();
        let mut batches = batches(&lengths, 3, 4, 1, 0);
        let shuffled = batches.clone();
        batches.sort();
        let expected = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]];
        assert_eq!(batches, expected);
        assert_ne!(shuffled, batches, "the batches themselves are shuffled");
    }

    #[test]
    fn only_a_short_batch_beside_full_ones_is_dropped() {
        let of = |len| batches(&vec![1; len], 4, 2, 0, 0);
        assert_eq!(of(11).iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
        assert_eq!(of(3).iter().map(Vec::len).collect::<Vec<_>>(), [3]);
        assert!(of(0).is_empty());
    }

    #[test]
    fn the_dropped_examples_are_not_the_shortest_or_longest() {
        // 10 examples in fours: two are dropped. Over 50 epochs each must be dropped some time.
        let lengths: Vec<u32> = (0..10).collect();
        let mut dropped = [0; 10];
        for epoch in 0..50 {
            let kept = flat_sorted(&batches(&lengths, 4, 10, 0, epoch));
            (0..10)
                .filter(|i| !kept.contains(i))
                .for_each(|i| dropped[i as usize] += 1);
        }
        assert!(dropped.iter().all(|&times| times > 0), "{dropped:?}");
    }

    #[test]
    fn a_token_budget_is_kept_and_no_row_is_left_out() {
        let lengths: Vec<u32> = (0..200).map(|i| 3 + i * 7 % 23).collect();
        for budget in [25, 64, 1000] {
            let batches = all(&lengths, Batching::Tokens(budget), 3, 1);
            assert_eq!(flat_sorted(&batches), (0..200).collect::<Vec<_>>());
            let longest = |batch: &[u32]| batch.iter().map(|&row| lengths[row as usize]).max();
            for batch in &batches {
                assert!(batch.len() * longest(batch).unwrap() as usize <= budget);
            }
            let next = all(&lengths, Batching::Tokens(budget), 3, 2);
            assert_eq!(next.len(), batches.len(), "the same number every epoch");
            assert_ne!(next, batches);
        }
    }

    #[test]
    fn token_batches_worked_out_by_hand() {
        // Sorted: 2 2 3 4 5. 3 rows of at most 3 fill 9 of 10; 4 and 5 fill 10.
        let mut batches = all(&[4, 2, 5, 2, 3], Batching::Tokens(10), 0, 0);
        batches.iter_mut().for_each(|batch| batch.sort());
        batches.sort();
        assert_eq!(batches, [vec![0, 2], vec![1, 3, 4]]);
        assert!(all(&[], Batching::Tokens(10), 0, 0).is_empty());
    }

    #[test]
    fn two_epochs_are_kept_until_one_is_settled() {
        let kept = PerEpoch::default();
        let mut made = 0;
        for (epoch, settled, expected) in [
            (0, false, 1),
            (1, false, 2),
            (0, false, 2),
            (1, true, 2),
            (0, false, 3),
            (2, false, 4),
        ] {
            kept.get(epoch, settled, || made += 1);
            assert_eq!(made, expected, "epoch {epoch}");
        }
    }
}
