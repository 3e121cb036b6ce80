//! Packs texts into sequences of one length without padding. In: rows of token ids. Out: sequences of exactly as many
//! tokens as asked for, and where in them each text begins.
//!
//! For masked models as RoBERTa's full sentences (Liu et al. 2019, <https://arxiv.org/abs/1907.11692>, section 4.2):
//! `[CLS] text [SEP] text [SEP] ...`. For causal models `text <end> text <end> ...`, as Megatron-LM cuts it: neighbouring
//! sequences share one token, the last of one being the first of the next, so that each token but the epoch's first is
//! predicted exactly once.
//!
//! Texts follow each other, and one that does not fit goes on in the next sequence. What is left at an epoch's end fills
//! no sequence and is left out; the texts it holds change with the epoch.

use std::sync::Arc;

use crate::order::{self, Lengths, PerEpoch};
use crate::tokens::TokenRows;

/// Texts between two whose place in the epoch is kept.
const BLOCK: usize = 256;

/// Sequences of all epochs, by number.
pub struct Packed {
    rows: TokenRows,
    join: Join,
    /// Of all texts joined.
    tokens: u64,
    sequences: usize,
    /// Of the order of texts; without one it is that of the rows.
    seed: Option<u64>,
    epochs: PerEpoch<EpochPlaces>,
}

/// How rows become one stream of tokens, and how it is cut.
#[derive(Clone, Copy)]
struct Join {
    /// In front of each sequence.
    first: Option<u32>,
    /// Tokens in front of each row that a sequence has once: 1 if rows begin with `[CLS]`.
    lead: usize,
    /// Behind each row.
    end: Option<u32>,
    /// Tokens of the stream in a sequence.
    len: usize,
    /// Tokens between the beginnings of two sequences.
    step: usize,
}

/// Tokens of several texts in a row. Whether attention and positions begin anew with each is the caller's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// All of one length.
    pub tokens: Vec<u32>,
    /// Where each text begins among the tokens, in growing order. The first is 0, even where a text only goes on there;
    /// what closes a text belongs to it.
    pub starts: Vec<u32>,
}

/// The order of an epoch's texts, and where every 256th of them begins.
pub(crate) struct EpochPlaces {
    order: Vec<u32>,
    blocks: Vec<u64>,
}

impl Packed {
    /// Sequences for a masked model, each with `cls` in front.
    ///
    /// - rows: `[CLS] ... [SEP]`, or without the `[CLS]`
    /// - seq_len: tokens of a sequence, `[CLS]` counted, at least 2
    pub fn new(rows: TokenRows, seq_len: usize, cls: u32, seed: u64) -> Self {
        let join = Join {
            first: Some(cls),
            lead: usize::from(!rows.is_empty() && rows.row(0).first() == Some(&cls)),
            end: None,
            len: seq_len - 1,
            step: seq_len - 1,
        };
        Self::joined(rows, join, seed)
    }

    /// Sequences for a causal model: `seq_len + 1` tokens, of which the first `seq_len` are read and the last `seq_len`
    /// predicted. The first token of a sequence is the last of the one before.
    ///
    /// - rows: whole texts
    /// - seq_len: tokens that the model reads, at least 1
    /// - end: what goes behind each row that is not empty; `None` if rows end in it already
    ///   ([`TextTokenizer::separator`](crate::TextTokenizer::separator))
    pub fn causal(rows: TokenRows, seq_len: usize, end: Option<u32>, seed: u64) -> Self {
        let join = Join {
            first: None,
            lead: 0,
            end,
            len: seq_len + 1,
            step: seq_len,
        };
        Self::joined(rows, join, seed)
    }

    /// With the texts in the order of the rows, in every epoch.
    pub(crate) fn in_order(self) -> Self {
        Self { seed: None, ..self }
    }

    fn joined(rows: TokenRows, join: Join, seed: u64) -> Self {
        let bodies = (0..rows.len() as u32).map(|row| join.body(&rows, row));
        let tokens: u64 = bodies.sum();
        rows.release();
        let shared = (join.len - join.step) as u64;
        Self {
            sequences: (tokens.saturating_sub(shared) / join.step as u64) as usize,
            tokens,
            rows,
            join,
            seed: Some(seed),
            epochs: PerEpoch::default(),
        }
    }

    /// Sequences of an epoch; 0 where all texts together do not fill one.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Tokens of all texts joined.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The tokens of a sequence of an epoch: a pure function of (seed, epoch, sequence).
    ///
    /// # Panics
    /// If the epoch has no such sequence.
    pub fn sequence(&self, epoch: u64, sequence: usize) -> Vec<u32> {
        self.sequence_of_texts(epoch, sequence).tokens
    }

    /// [`sequence`](Self::sequence), and where its texts begin: so that none attends to another.
    ///
    /// # Panics
    /// If the epoch has no such sequence.
    pub fn sequence_of_texts(&self, epoch: u64, sequence: usize) -> Sequence {
        assert!(sequence < self.sequences, "no sequence {sequence}");
        // Far enough in that no thread is in the last epoch any more.
        let places = self.places(epoch, sequence > 4096);
        let first = sequence as u64 * self.join.step as u64;
        self.cut(&places, first, self.join.len)
    }

    /// So many tokens of an epoch's texts joined.
    ///
    /// - first: the place of the first of them
    pub(crate) fn cut(&self, places: &EpochPlaces, first: u64, len: usize) -> Sequence {
        let join = self.join;
        let (mut at, mut skip) = self.find(places, first);
        let mut tokens = Vec::with_capacity(len + 1);
        tokens.extend(join.first);
        let seq_len = tokens.len() + len;
        let mut starts = vec![0];
        while tokens.len() < seq_len {
            let row = self.rows.row(places.order[at]);
            // The sequence's own first token and what it begins with are one text.
            let begun = tokens.len() > usize::from(join.first.is_some());
            if begun && join.body(&self.rows, places.order[at]) > 0 {
                starts.push(tokens.len() as u32);
            }
            let end = join.end.filter(|_| !row.is_empty());
            let body = row.iter().copied().chain(end).skip(join.lead + skip);
            tokens.extend(body.take(seq_len - tokens.len()));
            (at, skip) = (at + 1, 0);
        }
        Sequence { tokens, starts }
    }

    /// - settled: whether no thread is in the epoch before any more
    pub(crate) fn places(&self, epoch: u64, settled: bool) -> Arc<EpochPlaces> {
        self.epochs.get(epoch, settled, || {
            let order = match self.seed {
                Some(seed) => order::shuffled(self.rows.len(), seed, epoch),
                None => (0..self.rows.len() as u32).collect(),
            };
            let (mut blocks, mut begin) = (Vec::new(), 0);
            for (at, &row) in order.iter().enumerate() {
                if at.is_multiple_of(BLOCK) {
                    blocks.push(begin);
                }
                begin += self.join.body(&self.rows, row);
            }
            self.rows.release();
            EpochPlaces { order, blocks }
        })
    }

    /// The text that holds this token of the epoch, and how many of its tokens come before.
    fn find(&self, places: &EpochPlaces, token: u64) -> (usize, usize) {
        let block = places.blocks.partition_point(|&begin| begin <= token) - 1;
        let mut at = block * BLOCK;
        let mut before = token - places.blocks[block];
        loop {
            let body = self.join.body(&self.rows, places.order[at]);
            if before < body {
                return (at, before as usize);
            }
            before -= body;
            at += 1;
        }
    }
}

impl Join {
    /// The tokens of the stream that a row makes.
    fn body(&self, rows: &TokenRows, row: u32) -> u64 {
        let own = u64::from(rows.length(row));
        let end = u64::from(self.end.is_some() && own > 0);
        (own + end).saturating_sub(self.lead as u64)
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

    #[test]
    fn texts_begin_where_their_first_token_is() {
        // Bodies of 3, 2 and 4 tokens: the sequences are CLS and 4 of them each.
        let rows = [
            vec![CLS, 10, 11, SEP],
            vec![CLS, 20, SEP],
            vec![CLS, 30, 31, 32, SEP],
        ];
        let packed = Packed::new(TokenRows::from_rows(&rows), 5, CLS, 3);
        assert_eq!(packed.sequences(), 2);
        let order = order::shuffled(3, 3, 0);
        let body = |at: usize| &rows[order[at] as usize][1..];
        let stream = [body(0), body(1), body(2)].concat();
        let begins = [0, body(0).len(), body(0).len() + body(1).len()];
        for (i, range) in [0..4, 4..8].into_iter().enumerate() {
            let inside = begins
                .iter()
                .filter(|&&at| range.contains(&at) && at > range.start);
            let starts = inside.map(|at| (at - range.start + 1) as u32);
            let starts: Vec<u32> = [0].into_iter().chain(starts).collect();
            let tokens = [&[CLS], &stream[range]].concat();
            let expected = Sequence { tokens, starts };
            assert_eq!(packed.sequence_of_texts(0, i), expected);
        }
    }

    #[test]
    fn causal_sequences_predict_every_token_once() {
        const END: u32 = 1;
        let texts: Vec<Vec<u32>> = (0..500u32)
            .map(|i| (0..i % 6).map(|at| 100 + 10 * i + at).collect())
            .collect();
        let packed = Packed::causal(TokenRows::from_rows(&texts), 8, Some(END), 7);
        for epoch in [0, 2] {
            let order = order::shuffled(500, 7, epoch);
            let (mut stream, mut begins) = (Vec::new(), Vec::new());
            for &row in order.iter().filter(|&&row| !texts[row as usize].is_empty()) {
                begins.push(stream.len());
                stream.extend(&texts[row as usize]);
                stream.push(END);
            }
            assert_eq!(packed.sequences(), (stream.len() - 1) / 8);
            let mut predicted = Vec::new();
            for i in 0..packed.sequences() {
                let Sequence { tokens, starts } = packed.sequence_of_texts(epoch, i);
                assert_eq!(tokens, stream[8 * i..8 * i + 9]);
                let inside = begins.iter().filter(|&&at| at > 8 * i && at < 8 * i + 9);
                let expected: Vec<u32> = inside.map(|at| (at - 8 * i) as u32).collect();
                assert_eq!((starts[0], &starts[1..]), (0, &expected[..]));
                predicted.extend_from_slice(&tokens[1..]);
            }
            assert_eq!(predicted, stream[1..predicted.len() + 1]);
            assert!(stream.len() - predicted.len() <= 8);
        }
    }

    #[test]
    fn rows_that_are_closed_get_no_other_end() {
        let rows = TokenRows::from_rows(&[vec![5, 6, SEP], vec![5, 6, SEP]]);
        let packed = Packed::causal(rows, 5, None, 0);
        let expected = Sequence {
            tokens: vec![5, 6, SEP, 5, 6, SEP],
            starts: vec![0, 3],
        };
        assert_eq!(packed.sequences(), 1);
        assert_eq!(packed.sequence_of_texts(0, 0), expected);
        let none = Packed::causal(TokenRows::from_rows(&[[5u32, 6]]), 2, None, 0);
        assert_eq!(
            none.sequences(),
            0,
            "nothing to predict the third token from"
        );
    }
}
