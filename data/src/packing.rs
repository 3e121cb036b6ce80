//! Packs texts into sequences of one length without padding. In: rows `[CLS] ... [SEP]`. Out: sequences
//! `[CLS] text [SEP] text [SEP] ...`, each exactly as long as asked for.
//!
//! As RoBERTa's full sentences (Liu et al. 2019, <https://arxiv.org/abs/1907.11692>, section 4.2): texts follow each
//! other, and one that does not fit goes on in the next sequence. What is left at an epoch's end fills no sequence and
//! is left out; the texts it holds change with the epoch.

use std::sync::Arc;

use crate::order::{self, Lengths, PerEpoch};
use crate::tokens::TokenRows;

/// Texts between two whose place in the epoch is kept.
const BLOCK: usize = 256;

/// Sequences of all epochs, by number.
pub struct Packed {
    rows: TokenRows,
    seq_len: usize,
    cls: u32,
    /// Tokens in front of each text that a sequence has once: 1 if texts begin with `[CLS]`.
    lead: usize,
    sequences: usize,
    seed: u64,
    epochs: PerEpoch<EpochPlaces>,
}

/// The order of an epoch's texts, and where every 256th of them begins.
struct EpochPlaces {
    order: Vec<u32>,
    blocks: Vec<u64>,
}

impl Packed {
    /// - seq_len: tokens of a sequence, `[CLS]` counted, at least 2
    pub fn new(rows: TokenRows, seq_len: usize, cls: u32, seed: u64) -> Self {
        let lead = usize::from(!rows.is_empty() && rows.row(0).first() == Some(&cls));
        let body = |row| u64::from(rows.length(row)).saturating_sub(lead as u64);
        let tokens: u64 = (0..rows.len() as u32).map(body).sum();
        rows.release();
        Self {
            sequences: (tokens / (seq_len as u64 - 1)) as usize,
            rows,
            seq_len,
            cls,
            lead,
            seed,
            epochs: PerEpoch::default(),
        }
    }

    /// Sequences of an epoch; 0 where all texts together do not fill one.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// A sequence of an epoch: a pure function of (seed, epoch, sequence).
    ///
    /// # Panics
    /// If the epoch has no such sequence.
    pub fn sequence(&self, epoch: u64, sequence: usize) -> Vec<u32> {
        assert!(sequence < self.sequences, "no sequence {sequence}");
        let places = self.places(epoch, sequence);
        let first = sequence as u64 * (self.seq_len as u64 - 1);
        let (mut at, mut skip) = self.find(&places, first);
        let mut tokens = Vec::with_capacity(self.seq_len);
        tokens.push(self.cls);
        while tokens.len() < self.seq_len {
            let row = self.rows.row(places.order[at]);
            let body = row.iter().skip(self.lead + skip);
            tokens.extend(body.take(self.seq_len - tokens.len()));
            (at, skip) = (at + 1, 0);
        }
        tokens
    }

    fn body(&self, row: u32) -> u64 {
        u64::from(self.rows.length(row)).saturating_sub(self.lead as u64)
    }

    fn places(&self, epoch: u64, sequence: usize) -> Arc<EpochPlaces> {
        // Far enough in that no thread is in the last epoch any more.
        let settled = sequence > 4096;
        self.epochs.get(epoch, settled, || {
            let order = order::shuffled(self.rows.len(), self.seed, epoch);
            let (mut blocks, mut begin) = (Vec::new(), 0);
            for (at, &row) in order.iter().enumerate() {
                if at.is_multiple_of(BLOCK) {
                    blocks.push(begin);
                }
                begin += self.body(row);
            }
            self.rows.release();
            EpochPlaces { order, blocks }
        })
    }

    /// The text that holds this token of the epoch, and how many of its own come before.
    fn find(&self, places: &EpochPlaces, token: u64) -> (usize, usize) {
        let block = places.blocks.partition_point(|&begin| begin <= token) - 1;
        let mut at = block * BLOCK;
        let mut before = token - places.blocks[block];
        loop {
            let body = self.body(places.order[at]);
            if before < body {
                return (at, before as usize);
            }
            before -= body;
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLS: u32 = 2;
    const SEP: u32 = 3;

    /// Texts of 1 to 7 own tokens, each token its own number.
    fn texts(n: u32) -> Vec<Vec<u32>> {
        let text = |i: u32| {
            let own = (0..1 + i % 7).map(|at| 100 + 10 * i + at);
            [CLS].into_iter().chain(own).chain([SEP]).collect()
        };
        (0..n).map(text).collect()
    }

    #[test]
    fn sequences_are_the_shuffled_texts_one_after_another() {
        let texts = texts(1000);
        let packed = Packed::new(TokenRows::from_rows(&texts), 16, CLS, 7);
        // Bodies are 2 to 8 tokens; 1000 texts hold 142 full rounds of 35 and 2+3+4+5+6+7 more.
        assert_eq!(packed.sequences(), (142 * 35 + 27) / 15);
        for epoch in [0, 3] {
            let order = order::shuffled(1000, 7, epoch);
            let bodies = order.iter().flat_map(|&row| &texts[row as usize][1..]);
            let stream: Vec<u32> = bodies.copied().collect();
            for (i, expected) in stream.chunks_exact(15).enumerate() {
                let sequence = packed.sequence(epoch, i);
                assert_eq!((sequence[0], &sequence[1..]), (CLS, expected));
            }
        }
    }

    #[test]
    fn any_sequence_can_be_asked_for_first() {
        let packed = || Packed::new(TokenRows::from_rows(&texts(600)), 9, CLS, 1);
        let (one, other) = (packed(), packed());
        let last = one.sequences() - 1;
        let expected = one.sequence(2, last);
        other.sequence(0, 0);
        assert_eq!(other.sequence(2, last), expected);
        assert_ne!(one.sequence(3, last), expected, "another order every epoch");
    }

    #[test]
    fn too_few_texts_fill_no_sequence() {
        assert_eq!(
            Packed::new(TokenRows::from_rows(&texts(1)), 16, CLS, 0).sequences(),
            0
        );
    }
}
