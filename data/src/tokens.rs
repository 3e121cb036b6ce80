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

use crate::order::Lengths;

/// Rows between two that have their start kept.
const BLOCK: usize = 256;
/// Rows read before pages of a mapped file are given back. A page fault brings 16 pages, so that is about 8 MiB of each file.
const READS: usize = 128;

/// Bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Two,
    Four,
}

impl Width {
    /// The narrowest that holds numbers up to this one.
    pub(crate) fn of(largest: usize) -> Self {
        match largest <= usize::from(u16::MAX) {
            true => Self::Two,
            false => Self::Four,
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
#[derive(Clone, Copy)]
struct Cut {
    most: u32,
    /// What a cut row ends in; `None` for the token that stands there.
    end: Option<u32>,
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

    /// The same rows, longer ones cut to `most` tokens, of which the last is then `end` if there is one
    /// ([`TextTokenizer::closing`](crate::TextTokenizer::closing)).
    pub fn cut_to(&self, most: usize, end: impl Into<Option<u32>>) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let end = end.into();
        Self {
            store: self.store.clone(),
            cut: Some(Cut { most, end }),
        }
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
        let whole = self.whole(row);
        let length = self.length(row) as usize;
        let mut ids = Vec::with_capacity(length);
        let places = start..start + length;
        store
            .widths
            .ids
            .fold(&store.ids, places, (), |(), id| ids.push(id));
        if let (Some(cut), Some(last)) = (self.cut, ids.last_mut())
            && cut.most < whole
            && let Some(end) = cut.end
        {
            *last = end;
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
        self.cut.map_or(whole, |cut| whole.min(cut.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn cut_rows_end_as_they_should() {
        let tokens = TokenRows::from_rows(&[vec![2, 9, 9, 3], vec![2, 9, 3]]).cut_to(3, 3);
        assert_eq!(
            (tokens.row(0), tokens.row(1)),
            (vec![2, 9, 3], vec![2, 9, 3])
        );
        assert_eq!(tokens.length(0), 3);
        assert_eq!(tokens.select(&[1, 0]).row(1), [2, 9, 3]);
        assert!(TokenRows::from_rows(&[[0; 0]; 0]).is_empty());
    }
}
