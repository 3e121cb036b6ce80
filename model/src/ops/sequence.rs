//! Passes of a recurrent layer over time, on slices. In: rows of inputs and gradients. Out: states, and gradients.
//!
//! Products with the inputs of all times are taken at once. At each time there is one product with the states before it,
//! whose weights were laid out for it when the sequence began. Units are worked on in blocks: a block has its gates, cells
//! and weights for itself, and shares the states of a time alone. Which thread has a block changes no sum.
//!
//! Inside, times come before rows of the batch, and the rows of the weights are ordered by block, gate and unit, with
//! zeros behind the last unit.

mod backward;
mod forward;

use rayon::prelude::*;

use crate::ops::panels::{Factors, Size, Start, Wide, add_product};
use crate::ops::recurrent::Cell;
use crate::ops::simd::exp;

pub(super) use backward::{Wanted, backward};
pub(super) use forward::forward;

/// Units that one thread takes at a time, whatever the number of threads.
const BLOCK: usize = 32;
/// Values that are kept of each unit for the way back, beside its cell.
const KEPT: usize = 4;

/// A value of each unit of a block.
type Units = [f32; BLOCK];

/// Sizes of a layer and of what it reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) cell: Cell,
    pub(super) batch: usize,
    pub(super) seq: usize,
    pub(super) d_input: usize,
    pub(super) d_hidden: usize,
}

/// What a layer reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a> {
    /// `[gates * d_hidden, d_input]` and `[gates * d_hidden, d_hidden]`
    pub(super) weights: [&'a [f32]; 2],
    /// `[gates * d_hidden]` each
    pub(super) biases: [&'a [f32]; 2],
    /// Before the first time: states, and behind them cells; `[batch, states * d_hidden]`
    pub(super) state: &'a [f32],
    /// 0 where a text begins and 1 elsewhere, `[batch, seq]`.
    pub(super) keep: Option<&'a [f32]>,
}

/// What the gradient needs beside the inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace<T> {
    /// `[seq, batch, d_input]`
    pub(super) x: T,
    /// Before the first time and at each, `[seq + 1, batch, units]`.
    pub(super) hidden: T,
    /// `[blocks, seq, batch, KEPT, BLOCK]`
    pub(super) gates: T,
    /// Before the first time and at each, `[blocks, seq + 1, batch, BLOCK]`; empty where a unit has no cell.
    pub(super) cells: T,
}

impl Sizes {
    fn blocks(self) -> usize {
        self.d_hidden.div_ceil(BLOCK)
    }

    /// Units, with those that fill the last block.
    fn units(self) -> usize {
        self.blocks() * BLOCK
    }

    /// Gates of a block.
    fn width(self) -> usize {
        self.cell.gates() * BLOCK
    }

    /// Gates of all blocks.
    fn columns(self) -> usize {
        self.blocks() * self.width()
    }

    /// Rows of all times.
    fn rows(self) -> usize {
        self.seq * self.batch
    }

    /// For each block and gate: the first of its rows here, the first in PyTorch's order, and how many there are.
    fn runs(self) -> impl Iterator<Item = [usize; 3]> {
        let of_block = move |block: usize| {
            let (first, width) = (block * BLOCK, self.width());
            let n = BLOCK.min(self.d_hidden - first);
            let gates = 0..self.cell.gates();
            gates.map(move |gate| {
                [
                    block * width + gate * BLOCK,
                    gate * self.d_hidden + first,
                    n,
                ]
            })
        };
        (0..self.blocks()).flat_map(of_block)
    }

    /// Rows in PyTorch's order, by block.
    fn by_block(self, values: &[f32], width: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.columns() * width];
        for [here, there, n] in self.runs() {
            let rows = &values[there * width..(there + n) * width];
            out[here * width..(here + n) * width].copy_from_slice(rows);
        }
        out
    }

    /// Rows by block, in PyTorch's order.
    fn by_gate(self, values: &[f32], width: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.cell.gates() * self.d_hidden * width];
        for [here, there, n] in self.runs() {
            let rows = &values[here * width..(here + n) * width];
            out[there * width..(there + n) * width].copy_from_slice(rows);
        }
        out
    }

    /// One of the two parts of `[batch, states * d_hidden]`, for a block.
    fn part(self, state: &[f32], part: usize, row: usize, block: usize) -> Units {
        let first = (row * self.cell.states() + part) * self.d_hidden;
        self.units_of(&state[first..first + self.d_hidden], block)
    }

    /// A block's values of a row of `d_hidden`, zero behind the last.
    #[inline(always)]
    fn units_of(self, row: &[f32], block: usize) -> Units {
        let row = &row[block * BLOCK..];
        if let Some(whole) = row.first_chunk() {
            return *whole;
        }
        let mut units = [0.0; BLOCK];
        units[..row.len()].copy_from_slice(row);
        units
    }

    /// The other way round.
    fn put(self, row: &mut [f32], block: usize, units: &Units) {
        let row = &mut row[block * BLOCK..];
        let n = row.len().min(BLOCK);
        row[..n].copy_from_slice(&units[..n]);
    }

    /// Blocks under which one thread is faster: each at a time does as many multiplications as its product with the states.
    fn blocks_at_a_time(self) -> usize {
        const ALONE: usize = 1 << 19;
        ALONE
            .div_ceil(self.batch * self.d_hidden * self.width())
            .max(1)
    }
}

impl Inputs<'_> {
    #[inline(always)]
    fn keep(&self, sizes: Sizes, row: usize, time: usize) -> f32 {
        self.keep.map_or(1.0, |keep| keep[row * sizes.seq + time])
    }
}

/// Rows of a time by block: all rows of the first block, then all of the next.
fn pieces(values: &mut [f32], row: usize, width: usize) -> Vec<Vec<&mut [f32]>> {
    let n = values.len() / row;
    let mut pieces: Vec<Vec<&mut [f32]>> =
        (0..row / width).map(|_| Vec::with_capacity(n)).collect();
    for row in values.chunks_exact_mut(row) {
        let of_row = row.chunks_exact_mut(width);
        pieces
            .iter_mut()
            .zip(of_row)
            .for_each(|(to, piece)| to.push(piece));
    }
    pieces
}

/// `[first, second, width]` with the first two axes exchanged.
fn exchanged(values: &[f32], [first, second]: [usize; 2], width: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    if values.is_empty() {
        return out;
    }
    let planes = out.par_chunks_mut(first * width).enumerate();
    planes.for_each(|(at, plane)| {
        for (row, to) in plane.chunks_exact_mut(width).enumerate() {
            to.copy_from_slice(&values[(row * second + at) * width..][..width]);
        }
    });
    out
}

/// The logistic function.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Within 2e-7 of the hyperbolic tangent.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    2.0 / (1.0 + exp(-2.0 * x)) - 1.0
}

/// Rows of values that a block multiplies with its weights.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    row: usize,
    depth: usize,
}

/// Products of a block.
struct Products<'a> {
    wide: Wide<'a>,
    /// `[batch, width]`
    out: Vec<f32>,
    width: usize,
    zeros: Vec<f32>,
}

impl<'a> Products<'a> {
    fn new(wide: Wide<'a>, batch: usize, width: usize) -> Self {
        Self {
            wide,
            out: vec![0.0; batch * width],
            width,
            zeros: vec![0.0; batch],
        }
    }

    fn take(&mut self, rows: Rows<'_>) {
        let size = Size {
            depth: rows.depth,
            rows: self.zeros.len(),
            columns: self.width,
        };
        let factors = Factors::Columns(rows.values, rows.row);
        let start = Start::Values(&self.zeros);
        add_product((&mut self.out, self.width), factors, self.wide, size, start);
    }
}
