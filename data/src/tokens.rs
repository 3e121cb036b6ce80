//! Token ids of many texts, packed close together. In: token ids. Out: any row by its number.
//!
//! Ids take two bytes where the vocabulary allows it, and a row beside its ids two bytes for its length: starts are
//! kept for every 256th row only. The bytes are in memory, or mapped from a file that may be larger than memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::order::Lengths;
use crate::{DataError, Encoded, Frame, TextTokenizer};

/// Rows between two that have their start kept.
const BLOCK: usize = 256;
/// Rows read before pages of a mapped file are given back. A page fault brings 16 pages, so that is about 8 MiB of each file.
const READS: usize = 128;
/// Texts at a time that are tokenized whole, to count what cutting loses of them.
const COUNTED: usize = 256;

/// Bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Two,
    Four,
}

impl Width {
    /// The narrowest that holds numbers up to this one.
    pub(crate) fn of(largest: usize) -> Self {
        if largest <= usize::from(u16::MAX) {
            Self::Two
        } else {
            Self::Four
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    fn put(self, number: u32, to: &mut Vec<u8>) {
        to.extend_from_slice(&number.to_le_bytes()[..self.bytes()]);
    }

    fn get(self, from: &[u8], at: usize) -> u32 {
        self.fold(from, at..at + 1, 0, |_, number| number)
    }

    /// Goes through the numbers at these places.
    fn fold<T>(
        self,
        from: &[u8],
        places: Range<usize>,
        start: T,
        mut step: impl FnMut(T, u32) -> T,
    ) -> T {
        let width = self.bytes();
        let bytes = &from[places.start * width..places.end * width];
        match self {
            Self::Two => bytes.as_chunks().0.iter().fold(start, |all, number| {
                step(all, u16::from_le_bytes(*number).into())
            }),
            Self::Four => bytes
                .as_chunks()
                .0
                .iter()
                .fold(start, |all, number| step(all, u32::from_le_bytes(*number))),
        }
    }
}

/// Texts that are longer than a sequence, and what is lost by cutting them. Special tokens count as tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutTexts {
    /// Texts that are cut.
    pub texts: u64,
    /// Of so many.
    pub of_texts: u64,
    /// Tokens that are lost.
    pub tokens_lost: u64,
    /// Of so many before cutting.
    pub of_tokens: u64,
}

impl CutTexts {
    /// Counts what [`TextTokenizer::encode`] cut.
    ///
    /// Rows shorter than `max_len` tell their length themselves. Of the others up to 256 are tokenized once more without
    /// a limit, evenly spread, and all are taken to be like them: so it costs little where texts are many and long.
    ///
    /// - rows: what `encode` gave for `texts` and `max_len`
    ///
    /// # Errors
    /// The tokenizer fails.
    ///
    /// # Panics
    /// If there are fewer texts than rows.
    pub fn count(
        tokenizer: &TextTokenizer,
        texts: &[impl AsRef<str> + Sync],
        rows: &[Vec<u32>],
        max_len: usize,
    ) -> Result<Self, DataError> {
        let full: Vec<usize> = (0..rows.len())
            .filter(|&row| rows[row].len() >= max_len)
            .collect();
        let looked_at = full.len().min(COUNTED);
        let picked = (0..looked_at).map(|i| full[i * full.len() / looked_at]);
        let picked: Vec<&str> = picked.map(|row| texts[row].as_ref()).collect();
        let whole = tokenizer.encode(&picked, usize::MAX)?;
        let lost: Vec<u64> = whole
            .iter()
            .map(|row| row.len().saturating_sub(max_len) as u64)
            .filter(|&lost| lost > 0)
            .collect();
        let of_all = |counted: u64| counted * full.len() as u64 / looked_at.max(1) as u64;
        let tokens_lost = of_all(lost.iter().sum());
        let kept: usize = rows.iter().map(Vec::len).sum();
        Ok(Self {
            texts: of_all(lost.len() as u64),
            of_texts: rows.len() as u64,
            tokens_lost,
            of_tokens: kept as u64 + tokens_lost,
        })
    }

    /// Counts what is lost of sequences.
    pub fn of(encoded: &[Encoded]) -> Self {
        let mut all = Self::default();
        for Encoded { ids, lost, .. } in encoded {
            all.texts += u64::from(*lost > 0);
            all.of_texts += 1;
            all.tokens_lost += *lost as u64;
            all.of_tokens += (ids.len() + lost) as u64;
        }
        all
    }

    /// Counts other texts as well.
    pub fn add(&mut self, other: Self) {
        self.texts += other.texts;
        self.of_texts += other.of_texts;
        self.tokens_lost += other.tokens_lost;
        self.of_tokens += other.of_tokens;
    }

    /// `57 of 60 texts are cut to 64 tokens, 96.9 % of the tokens are lost`
    ///
    /// - length: of a sequence, in tokens
    pub fn line(&self, length: usize) -> String {
        let share = 100.0 * self.tokens_lost as f64 / self.of_tokens.max(1) as f64;
        let Self {
            texts, of_texts, ..
        } = self;
        format!(
            "{texts} of {of_texts} texts are cut to {length} tokens, {share:.1} % of the tokens are lost"
        )
    }
}

/// How numbers are stored: of ids, and of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Widths {
    pub(crate) ids: Width,
    pub(crate) lengths: Width,
}

/// Rows that are being collected.
#[derive(Debug)]
pub(crate) struct TokenBuffer {
    pub(crate) widths: Widths,
    pub(crate) ids: Vec<u8>,
    pub(crate) lengths: Vec<u8>,
}

impl TokenBuffer {
    pub(crate) fn new(widths: Widths) -> Self {
        Self {
            widths,
            ids: Vec::new(),
            lengths: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: &[u32]) {
        for &id in row {
            self.widths.ids.put(id, &mut self.ids);
        }
        self.widths.lengths.put(row.len() as u32, &mut self.lengths);
    }

    pub(crate) fn append(&mut self, mut more: Self) {
        self.ids.append(&mut more.ids);
        self.lengths.append(&mut more.lengths);
    }

    pub(crate) fn finish(self) -> TokenRows {
        TokenRows::new(
            self.widths,
            Held::Memory(self.ids),
            Held::Memory(self.lengths),
        )
    }
}

/// Bytes in memory or in a file.
enum Held {
    Memory(Vec<u8>),
    Mapped(Mmap),
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl Held {
    fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self::Memory(Vec::new()));
        }
        // SAFETY: a finished cache is never written to, only unlinked as a whole; whoever cuts it from outside while
        // it is mapped ends this process with a signal.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self::Mapped(map))
    }

    /// Gives mapped pages back: they stay in the system's own cache, but no longer count as this process's memory.
    fn release(&self) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the map is shared and read-only, so its pages come back with the same bytes.
            let released = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // Only advice: without it reading goes on just as well.
            drop(released);
        }
    }
}

/// Token ids of many texts. Clones share them.
#[derive(Clone)]
pub struct TokenRows {
    store: Arc<Store>,
    cut: Option<Cut>,
}

struct Store {
    widths: Widths,
    ids: Held,
    lengths: Held,
    /// Where each block's first row begins among the ids.
    blocks: Vec<u64>,
    reads: AtomicUsize,
}

/// How longer rows are cut.
#[derive(Clone)]
struct Cut {
    most: u32,
    frame: Frame,
}

impl TokenRows {
    /// Rows in memory.
    pub fn from_rows(rows: &[impl AsRef<[u32]>]) -> Self {
        let rows = || rows.iter().map(AsRef::as_ref);
        let largest = rows().flatten().copied().max().unwrap_or(0);
        let longest = rows().map(<[u32]>::len).max().unwrap_or(0);
        let mut buffer = TokenBuffer::new(Widths {
            ids: Width::of(largest as usize),
            lengths: Width::of(longest),
        });
        rows().for_each(|row| buffer.push(row));
        buffer.finish()
    }

    /// Rows of two files, as [`TokenBuffer`] lays them out.
    pub(crate) fn map(widths: Widths, ids: &Path, lengths: &Path) -> io::Result<Self> {
        let rows = Self::new(widths, Held::map(ids)?, Held::map(lengths)?);
        rows.store.lengths.release();
        Ok(rows)
    }

    fn new(widths: Widths, ids: Held, lengths: Held) -> Self {
        let rows = lengths.len() / widths.lengths.bytes();
        let (mut blocks, mut start) = (Vec::with_capacity(rows.div_ceil(BLOCK)), 0);
        for row in 0..rows {
            if row.is_multiple_of(BLOCK) {
                blocks.push(start);
            }
            start += u64::from(widths.lengths.get(&lengths, row));
        }
        Self {
            store: Arc::new(Store {
                widths,
                ids,
                lengths,
                blocks,
                reads: AtomicUsize::new(0),
            }),
            cut: None,
        }
    }

    /// The same rows, longer ones cut to `most` tokens.
    ///
    /// - frame: what is around each row ([`TextTokenizer::frame`](crate::TextTokenizer::frame))
    pub fn cut_to(&self, most: usize, frame: &Frame) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let frame = frame.clone();
        Self {
            store: self.store.clone(),
            cut: Some(Cut { most, frame }),
        }
    }

    /// What [`cut_to`](Self::cut_to) loses of these rows.
    pub fn cut_texts(&self) -> CutTexts {
        let mut counts = CutTexts::default();
        for row in 0..self.len() as u32 {
            let (whole, kept) = (self.whole(row), self.length(row));
            counts.add(CutTexts {
                texts: u64::from(kept < whole),
                of_texts: 1,
                tokens_lost: u64::from(whole - kept),
                of_tokens: whole.into(),
            });
        }
        counts
    }

    /// Some of the rows, in this order, in memory.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn select(&self, rows: &[u32]) -> Self {
        let mut buffer = TokenBuffer::new(self.store.widths);
        for &row in rows {
            buffer.push(&self.row(row));
        }
        buffer.finish()
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.store.lengths.len() / self.store.widths.lengths.bytes()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token ids of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: u32) -> Vec<u32> {
        let store = &*self.store;
        let start = self.start(row);
        let whole = self.whole(row) as usize;
        let mut ids = Vec::with_capacity(whole);
        let places = start..start + whole;
        store
            .widths
            .ids
            .fold(&store.ids, places, (), |(), id| ids.push(id));
        if let Some(cut) = &self.cut {
            cut.frame.cut(&mut ids, cut.most as usize);
        }
        self.count_read();
        ids
    }

    /// Gives mapped pages back.
    pub fn release(&self) {
        self.store.ids.release();
        self.store.lengths.release();
    }

    fn count_read(&self) {
        if self.store.reads.fetch_add(1, Ordering::Relaxed) % READS == READS - 1 {
            self.release();
        }
    }

    /// Length of the row before it is cut.
    fn whole(&self, row: u32) -> u32 {
        let store = &*self.store;
        store.widths.lengths.get(&store.lengths, row as usize)
    }

    fn start(&self, row: u32) -> usize {
        let block = row as usize / BLOCK;
        let store = &*self.store;
        let before = block * BLOCK..row as usize;
        let start = store.blocks[block];
        let add = |start, length| start + u64::from(length);
        store
            .widths
            .lengths
            .fold(&store.lengths, before, start, add) as usize
    }
}

impl Lengths for TokenRows {
    fn rows(&self) -> usize {
        self.len()
    }

    fn length(&self, row: u32) -> u32 {
        let whole = self.whole(row);
        self.cut.as_ref().map_or(whole, |cut| whole.min(cut.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::TruncationDirection;

    fn rows(n: u32) -> Vec<Vec<u32>> {
        (0..n)
            .map(|i| (0..i % 7).map(|at| i + at).collect())
            .collect()
    }

    #[test]
    fn rows_come_back_whatever_their_width() {
        for offset in [0, 70_000] {
            let mut rows = rows(1000);
            rows.iter_mut().flatten().for_each(|id| *id += offset);
            let tokens = TokenRows::from_rows(&rows);
            assert_eq!(tokens.len(), 1000);
            for (i, row) in rows.iter().enumerate() {
                assert_eq!(&tokens.row(i as u32), row);
                assert_eq!(tokens.length(i as u32) as usize, row.len());
            }
        }
    }

    #[test]
    fn mapped_rows_are_those_in_memory() {
        let folder = tempfile::TempDir::new().unwrap();
        let widths = Widths {
            ids: Width::Two,
            lengths: Width::Two,
        };
        let mut buffer = TokenBuffer::new(widths);
        rows(5000).iter().for_each(|row| buffer.push(row));
        let [ids, lengths] = ["ids", "lengths"].map(|name| folder.path().join(name));
        std::fs::write(&ids, &buffer.ids).unwrap();
        std::fs::write(&lengths, &buffer.lengths).unwrap();
        let mapped = TokenRows::map(widths, &ids, &lengths).unwrap();
        // More than are read before pages are given back.
        for (i, row) in rows(5000).iter().enumerate() {
            assert_eq!(&mapped.row(i as u32), row);
        }
    }

    /// `[CLS] ... [SEP]`
    fn frame(side: TruncationDirection) -> Frame {
        Frame {
            before: vec![2],
            after: vec![3],
            side,
        }
    }

    #[test]
    fn cut_rows_begin_and_end_as_they_should() {
        let whole = TokenRows::from_rows(&[vec![2, 8, 9, 3], vec![2, 9, 3]]);
        for (side, kept) in [
            (TruncationDirection::Right, 8),
            (TruncationDirection::Left, 9),
        ] {
            let tokens = whole.cut_to(3, &frame(side));
            assert_eq!(tokens.row(0), [2, kept, 3]);
            assert_eq!(tokens.row(1), [2, 9, 3]);
            assert_eq!(tokens.length(0), 3);
            assert_eq!(tokens.select(&[1, 0]).row(1), [2, kept, 3]);
        }
        assert!(TokenRows::from_rows(&[[0; 0]; 0]).is_empty());
    }

    #[test]
    fn what_cutting_loses_is_counted() {
        let tokens = TokenRows::from_rows(&[vec![2, 9, 9, 9, 3], vec![2, 9, 3], vec![2, 3]]);
        let counts = tokens
            .cut_to(3, &frame(TruncationDirection::Right))
            .cut_texts();
        let expected = CutTexts {
            texts: 1,
            of_texts: 3,
            tokens_lost: 2,
            of_tokens: 10,
        };
        assert_eq!(counts, expected);
        assert_eq!(
            counts.line(3),
            "1 of 3 texts are cut to 3 tokens, 20.0 % of the tokens are lost"
        );
        assert_eq!(tokens.cut_texts().texts, 0);
    }

    #[test]
    fn texts_that_were_cut_are_counted_by_their_whole_length() {
        let tokenizer = TextTokenizer::train_wordpiece(&["a b c d e f g h"], 40).unwrap();
        // 1 to 8 words, with [CLS] and [SEP] 3 to 10 tokens.
        let texts: Vec<&str> = (1..=8).map(|n| &"a b c d e f g h"[..2 * n - 1]).collect();
        let rows = tokenizer.encode(&texts, 6).unwrap();
        let counts = CutTexts::count(&tokenizer, &texts, &rows, 6).unwrap();
        // Lost: 1, 2, 3 and 4 of 7, 8, 9 and 10.
        let expected = CutTexts {
            texts: 4,
            of_texts: 8,
            tokens_lost: 10,
            of_tokens: 52,
        };
        assert_eq!(counts, expected);
        // Where there are many, some are counted for all.
        let many: Vec<&str> = texts.iter().copied().cycle().take(80_000).collect();
        let rows = tokenizer.encode(&many, 6).unwrap();
        let counts = CutTexts::count(&tokenizer, &many, &rows, 6).unwrap();
        assert_eq!(counts.of_texts, 80_000);
        // Of 50,000 full rows 256 are looked at, by which 1 in 5 and 5 in 5 have 5 standard deviations of 0.13.
        assert!((35_000..45_000).contains(&counts.texts), "{counts:?}");
        let share = counts.tokens_lost as f64 / counts.of_tokens as f64;
        assert!((share - 10.0 / 52.0).abs() < 0.03, "{share}");
        let none: [&str; 0] = [];
        let counts = CutTexts::count(&tokenizer, &none, &[], 6).unwrap();
        assert_eq!(counts, CutTexts::default());
    }
}
