//! Cuts texts in streams that are read side by side, so that a model can go on where it was. In: rows of token ids. Out: for
//! each batch, the next tokens of every stream.
//!
//! As truncated back-propagation through time needs it (Mikolov et al. 2010,
//! <https://doi.org/10.21437/Interspeech.2010-343>): the texts of an epoch are joined, the end token behind each, and cut in
//! as many streams of one length as a batch has rows. Row `r` of a batch goes on where row `r` of the batch before ended.

use crate::packing::Packed;
use crate::tokens::TokenRows;

/// Batches into an epoch after which no thread works on the one before.
const SETTLED: u64 = 256;

/// Streams of all epochs.
pub struct Streams {
    packed: Packed,
    rows: usize,
    seq_len: usize,
    /// Tokens that a stream predicts.
    length: u64,
}

impl Streams {
    /// Texts in a new order every epoch. All batches are full: what is left at an epoch's end is left out.
    ///
    /// - texts: whole
    /// - seq_len: tokens that a row of a batch reads
    /// - end: what goes behind each text, as in [`Packed::causal`]
    /// - rows: streams, at least 1
    pub fn shuffled(
        texts: TokenRows,
        seq_len: usize,
        end: Option<u32>,
        rows: usize,
        seed: u64,
    ) -> Self {
        let packed = Packed::causal(texts, seq_len, end, seed);
        let sequences = packed.sequences() / rows;
        Self {
            packed,
            rows,
            seq_len,
            length: sequences as u64 * seq_len as u64,
        }
    }

    /// Texts in the order of their rows, and all of their tokens: the last rows of the last batches may be short, or empty.
    ///
    /// - as in [`shuffled`](Self::shuffled)
    pub fn in_order(texts: TokenRows, seq_len: usize, end: Option<u32>, rows: usize) -> Self {
        let packed = Packed::causal(texts, seq_len, end, 0).in_order();
        let length = predicted(&packed).div_ceil(rows as u64);
        Self {
            packed,
            rows,
            seq_len,
            length,
        }
    }

    /// Full sequences that the texts of an epoch make.
    pub fn sequences(&self) -> usize {
        self.packed.sequences()
    }

    /// Batches of an epoch; 0 where the texts do not fill one.
    pub fn batches(&self) -> u64 {
        self.length.div_ceil(self.seq_len as u64)
    }

    /// The rows of a batch: a pure function of (seed, epoch, number). Each holds one token more than it is to read, and begins
    /// with the last one of the same row of the batch before.
    ///
    /// # Panics
    /// If the epoch has no such batch.
    pub fn batch(&self, epoch: u64, number: u64) -> Vec<Vec<u32>> {
        assert!(number < self.batches(), "no batch {number}");
        let places = self.packed.places(epoch, number > SETTLED);
        let all = predicted(&self.packed);
        let row = |row: u64| {
            let begin = row * self.length;
            let end = (begin + self.length).min(all);
            let first = begin + number * self.seq_len as u64;
            if first >= end {
                return Vec::new();
            }
            let last = (first + self.seq_len as u64).min(end);
            self.packed
                .cut(&places, first, (last - first + 1) as usize)
                .tokens
        };
        (0..self.rows as u64).map(row).collect()
    }
}

/// Tokens that have one before them.
fn predicted(packed: &Packed) -> u64 {
    packed.tokens().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order;

    const END: u32 = 1;

    /// Texts of no token to five.
    fn texts() -> Vec<Vec<u32>> {
        let text = |i: u32| (0..i % 6).map(|at| 100 + 10 * i + at).collect();
        (0..100).map(text).collect()
    }

    fn joined(texts: &[Vec<u32>], order: &[u32]) -> Vec<u32> {
        let rows = order.iter().map(|&row| &texts[row as usize]);
        let closed = rows.filter(|row| !row.is_empty());
        closed
            .flat_map(|row| row.iter().copied().chain([END]))
            .collect()
    }

    #[test]
    fn rows_go_on_where_the_batch_before_ended() {
        let texts = texts();
        let streams = Streams::shuffled(TokenRows::from_rows(&texts), 8, Some(END), 3, 7);
        for epoch in [0, 2] {
            let all = joined(&texts, &order::shuffled(100, 7, epoch));
            let sequences = (all.len() - 1) / 8;
            assert_eq!(streams.sequences(), sequences);
            assert_eq!(streams.batches() as usize, sequences / 3);
            let length = sequences / 3 * 8;
            for number in 0..streams.batches() {
                let batch = streams.batch(epoch, number);
                let first = |row| row * length + number as usize * 8;
                let expected = [0, 1, 2].map(|row| all[first(row)..first(row) + 9].to_vec());
                assert_eq!(batch, expected, "{epoch}, {number}");
            }
        }
    }

    #[test]
    fn streams_in_order_leave_nothing_out() {
        // 14 tokens, of which 13 are predicted: 5 by each of two streams, and 3 by the third.
        let texts: [Vec<u32>; 4] = [vec![2, 3, 4], vec![], vec![5], (6..13).collect()];
        let streams = Streams::in_order(TokenRows::from_rows(&texts), 4, Some(END), 3);
        assert_eq!(streams.batches(), 2);
        assert_eq!(
            streams.batch(0, 0),
            [
                vec![2, 3, 4, END, 5],
                vec![END, 6, 7, 8, 9],
                vec![10, 11, 12, END]
            ]
        );
        assert_eq!(streams.batch(0, 1), [vec![5, END], vec![9, 10], vec![]]);
    }

    #[test]
    fn every_token_but_the_first_is_predicted_once() {
        let texts = texts();
        let order: Vec<u32> = (0..100).collect();
        let all = joined(&texts, &order);
        for rows in [1, 4, 7, 500] {
            let streams = Streams::in_order(TokenRows::from_rows(&texts), 6, Some(END), rows);
            let mut read = vec![Vec::new(); rows];
            for number in 0..streams.batches() {
                for (row, tokens) in read.iter_mut().zip(streams.batch(0, number)) {
                    row.extend(tokens.into_iter().skip(1));
                }
            }
            assert_eq!(read.concat(), all[1..], "{rows}");
        }
    }

    #[test]
    fn too_few_texts_fill_no_batch() {
        let few = || TokenRows::from_rows(&[[2u32, 3]]);
        assert_eq!(Streams::shuffled(few(), 2, Some(END), 2, 0).batches(), 0);
        assert_eq!(Streams::in_order(few(), 2, None, 2).batches(), 1);
        let none = TokenRows::from_rows(&[[0u32; 0]]);
        assert_eq!(Streams::in_order(none, 2, Some(END), 2).batches(), 0);
    }
}
