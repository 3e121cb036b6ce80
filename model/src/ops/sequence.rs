//! Passes of a recurrent layer over time, on slices. In: rows of inputs and gradients. Out: states, and gradients.
//!
//! Products with the inputs of all times are taken at once. At each time there is one product with the states before it,
//! whose weights were laid out for it when the sequence began. Units are worked on in blocks: a block has its gates, cells
//! and weights for itself, and shares the states of a time alone. Which thread has a block changes no sum.
//!
//! Inside, times come before rows of the batch, and the rows of the weights are ordered by block, gate and unit, with
//! zeros behind the last unit.

use rayon::prelude::*;

use crate::ops::matrix::{View, product, product_onto};
use crate::ops::panels::{self, Factors, Size, Start, Wide, add_product};
use crate::ops::recurrent::Cell;
use crate::ops::simd::{column_sums, exp, repeated, vectorized};

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

/// Gradients in the order of the inputs, and of the states before the first time.
pub(super) struct Gradients {
    pub(super) x: Option<Vec<f32>>,
    pub(super) weights: [Option<Vec<f32>>; 2],
    pub(super) biases: [Option<Vec<f32>>; 2],
    pub(super) state: Option<Vec<f32>>,
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

/// A block on the way forward.
struct Ahead<'a> {
    number: usize,
    products: Products<'a>,
    /// Of the products with the states, of this block.
    bias: &'a [f32],
    gates: &'a mut [f32],
    cells: &'a mut [f32],
}

/// States of all times, `[batch, seq, d_hidden]`, cells of the last time, `[batch, d_hidden]`, where there are some, and what
/// the gradient needs.
///
/// - x: `[batch, seq, d_input]`
pub(super) fn forward(
    sizes: Sizes,
    x: &[f32],
    inputs: Inputs<'_>,
) -> (Vec<f32>, Vec<f32>, Trace<Vec<f32>>) {
    let Sizes {
        batch,
        seq,
        d_input,
        d_hidden,
        ..
    } = sizes;
    let (units, width, columns, blocks) = (
        sizes.units(),
        sizes.width(),
        sizes.columns(),
        sizes.blocks(),
    );
    let x = exchanged(x, [batch, seq], d_input);
    let weights = sizes.by_block(inputs.weights[0], d_input);
    let bias = sizes.by_block(inputs.biases[0], 1);
    let of_inputs = product_onto(
        repeated(&bias, sizes.rows()),
        (&x, View::whole(sizes.rows(), d_input)),
        (&weights, View::whole(columns, d_input).transposed()),
    );
    drop(weights);
    let mut hidden = vec![0.0; (seq + 1) * batch * units];
    let mut gates = vec![0.0; blocks * seq * batch * KEPT * BLOCK];
    let has_cells = sizes.cell == Cell::Lstm;
    let of_cells = if has_cells {
        (seq + 1) * batch * BLOCK
    } else {
        0
    };
    let mut cells = vec![0.0; blocks * of_cells];
    let weights = sizes.by_block(inputs.weights[1], d_hidden);
    let (wide, of_wide) = tiles(&weights, width, d_hidden);
    let bias = sizes.by_block(inputs.biases[1], 1);
    let mut parts: Vec<Ahead<'_>> = Vec::with_capacity(blocks);
    let mut rest = &mut cells[..];
    for (number, gates) in gates
        .chunks_exact_mut(seq * batch * KEPT * BLOCK)
        .enumerate()
    {
        let (cells, behind) = std::mem::take(&mut rest).split_at_mut(of_cells);
        rest = behind;
        let tile = panels::tile();
        let wide = Wide {
            values: &wide[number * of_wide..(number + 1) * of_wide],
            row: tile,
            tile: d_hidden * tile,
        };
        parts.push(Ahead {
            number,
            products: Products::new(wide, batch, width),
            bias: &bias[number * width..(number + 1) * width],
            gates,
            cells,
        });
    }
    for part in &mut parts {
        for row in 0..batch {
            let of_row = row * units + part.number * BLOCK;
            let state = sizes.part(inputs.state, 0, row, part.number);
            hidden[of_row..of_row + BLOCK].copy_from_slice(&state);
            if has_cells {
                let cell = sizes.part(inputs.state, 1, row, part.number);
                part.cells[row * BLOCK..(row + 1) * BLOCK].copy_from_slice(&cell);
            }
        }
    }
    for time in 0..seq {
        let (before, now) = hidden.split_at_mut((time + 1) * batch * units);
        let before = &before[time * batch * units..];
        let now = pieces(&mut now[..batch * units], units, BLOCK);
        let of_inputs = &of_inputs[time * batch * columns..(time + 1) * batch * columns];
        let work = |(part, mut now): (&mut Ahead<'_>, Vec<&mut [f32]>)| {
            part.products.take(Rows {
                values: before,
                row: units,
                depth: d_hidden,
            });
            part.step(sizes, inputs, time, of_inputs, before, &mut now);
        };
        let parts = parts.par_iter_mut().with_min_len(sizes.blocks_at_a_time());
        parts.zip(now).for_each(work);
    }
    let mut last = vec![0.0; if has_cells { batch * d_hidden } else { 0 }];
    for part in parts.iter().filter(|_| has_cells) {
        let cells = part.cells[seq * batch * BLOCK..].as_chunks().0;
        let rows = last.chunks_exact_mut(d_hidden).zip(cells);
        rows.for_each(|(row, cells)| sizes.put(row, part.number, cells));
    }
    let out = states(sizes, &hidden);
    let trace = Trace {
        x,
        hidden,
        gates,
        cells,
    };
    (out, last, trace)
}

/// `[batch, seq, d_hidden]` of the states before the first time and at each.
fn states(sizes: Sizes, hidden: &[f32]) -> Vec<f32> {
    let (d_hidden, units) = (sizes.d_hidden, sizes.units());
    let mut out = vec![0.0; sizes.rows() * d_hidden];
    let rows = out.par_chunks_mut(sizes.seq * d_hidden).enumerate();
    rows.for_each(|(row, out)| {
        for (time, out) in out.chunks_exact_mut(d_hidden).enumerate() {
            let from = ((time + 1) * sizes.batch + row) * units;
            out.copy_from_slice(&hidden[from..from + d_hidden]);
        }
    });
    out
}

/// Weights of each block as columns, tile after tile, and how many values a block has.
///
/// - weights: `[blocks * width, depth]`
fn tiles(weights: &[f32], width: usize, depth: usize) -> (Vec<f32>, usize) {
    let tile = panels::tile();
    let of_block = width.div_ceil(tile) * depth * tile;
    let mut out = vec![0.0; weights.len() / (width * depth) * of_block];
    let blocks = out
        .par_chunks_mut(of_block)
        .zip(weights.par_chunks(width * depth));
    blocks.for_each(|(out, weights)| {
        let tiles = out
            .chunks_exact_mut(depth * tile)
            .zip(weights.chunks(tile * depth));
        tiles.for_each(|(out, weights)| {
            panels::transpose(
                (weights, depth),
                (out, tile),
                [weights.len() / depth, depth],
            );
        });
    });
    (out, of_block)
}

impl Ahead<'_> {
    /// - of_inputs: `[batch, columns]`
    /// - before: all units of the time before, `[batch, units]`
    /// - now: this block's of this time, row by row
    fn step(
        &mut self,
        sizes: Sizes,
        inputs: Inputs<'_>,
        time: usize,
        of_inputs: &[f32],
        before: &[f32],
        now: &mut [&mut [f32]],
    ) {
        let (batch, width, block) = (sizes.batch, sizes.width(), self.number * BLOCK);
        let gates = &mut self.gates[time * batch * KEPT * BLOCK..];
        let bias = self.bias.as_chunks().0;
        for (row, hidden) in now.iter_mut().enumerate() {
            let keep = inputs.keep(sizes, row, time);
            let x = &of_inputs[row * sizes.columns() + self.number * width..][..width];
            let x = x.as_chunks().0;
            let h = self.products.out[row * width..(row + 1) * width]
                .as_chunks()
                .0;
            let kept = gates[row * KEPT * BLOCK..].as_chunks_mut().0;
            let Some(hidden) = hidden.first_chunk_mut() else {
                continue;
            };
            match sizes.cell {
                Cell::Lstm => {
                    let (old, new) = self.cells.split_at_mut((time + 1) * batch * BLOCK);
                    let old = &old[time * batch * BLOCK..].as_chunks().0[row];
                    let new = &mut new.as_chunks_mut().0[row];
                    vectorized(
                        #[inline(always)]
                        || lstm(keep, [x, h, bias], old, kept, new, hidden),
                    );
                }
                Cell::Gru => {
                    let before = &before[row * sizes.units() + block..];
                    let Some(before) = before.first_chunk() else {
                        continue;
                    };
                    vectorized(
                        #[inline(always)]
                        || gru(keep, [x, h, bias], before, kept, hidden),
                    );
                }
            }
        }
    }
}

/// Hochreiter and Schmidhuber's unit with a forget gate.
///
/// - parts: of inputs, of the states before, and the bias of those
/// - kept: input, forget, cell and output gates
#[inline(always)]
fn lstm(
    keep: f32,
    parts: [&[Units]; 3],
    old: &Units,
    kept: &mut [Units],
    new: &mut Units,
    hidden: &mut Units,
) {
    let [[xi, xf, xg, xo], [hi, hf, hg, ho], [bi, bf, bg, bo]] = parts else {
        return;
    };
    let [i, f, g, o, ..] = kept else { return };
    for at in 0..BLOCK {
        i[at] = sigmoid(xi[at] + (keep * hi[at] + bi[at]));
        f[at] = sigmoid(xf[at] + (keep * hf[at] + bf[at]));
        g[at] = tanh(xg[at] + (keep * hg[at] + bg[at]));
        o[at] = sigmoid(xo[at] + (keep * ho[at] + bo[at]));
        new[at] = f[at] * (keep * old[at]) + i[at] * g[at];
        hidden[at] = o[at] * tanh(new[at]);
    }
}

/// Cho and others' unit, in the form that has the reset gate behind the product.
///
/// - kept: reset and update gates, the new state, and what the reset gate is multiplied with
#[inline(always)]
fn gru(keep: f32, parts: [&[Units]; 3], before: &Units, kept: &mut [Units], hidden: &mut Units) {
    let [[xr, xz, xn], [hr, hz, hn], [br, bz, bn]] = parts else {
        return;
    };
    let [r, z, n, q, ..] = kept else { return };
    for at in 0..BLOCK {
        r[at] = sigmoid(xr[at] + (keep * hr[at] + br[at]));
        z[at] = sigmoid(xz[at] + (keep * hz[at] + bz[at]));
        q[at] = keep * hn[at] + bn[at];
        n[at] = tanh(xn[at] + r[at] * q[at]);
        hidden[at] = n[at] + z[at] * (keep * before[at] - n[at]);
    }
}

/// A block on the way back.
struct Back<'a> {
    number: usize,
    products: Products<'a>,
    gates: &'a [f32],
    cells: &'a [f32],
    /// What the gradient of a state has beside the product, `[batch, BLOCK]`.
    direct: Vec<f32>,
    /// Gradients of the cells before, `[batch, BLOCK]`.
    of_cells: Vec<f32>,
}

/// What the gradient is taken of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) x: bool,
    pub(super) weights: [bool; 2],
    pub(super) biases: [bool; 2],
    pub(super) state: bool,
}

/// - grad: of the states, `[batch, seq, d_hidden]`
/// - of_cells: of the cells of the last time, `[batch, d_hidden]`
pub(super) fn backward(
    sizes: Sizes,
    inputs: Inputs<'_>,
    trace: Trace<&[f32]>,
    grad: &[f32],
    of_cells: Option<&[f32]>,
    wanted: Wanted,
) -> Gradients {
    let Sizes {
        batch,
        seq,
        d_hidden,
        ..
    } = sizes;
    let (width, columns) = (sizes.width(), sizes.columns());
    let weights = sizes.by_block(inputs.weights[1], d_hidden);
    let wide = strips(sizes, &weights);
    let mut parts: Vec<Back<'_>> = (0..sizes.blocks())
        .map(|number| Back::new(sizes, number, &wide, trace, of_cells))
        .collect();
    // Of what goes into the gates, by the products with states and by those with inputs, where they differ.
    let mut by_states = vec![0.0; seq * batch * columns];
    let differ = sizes.cell == Cell::Gru;
    let mut by_inputs = vec![0.0; if differ { seq * batch * columns } else { 0 }];
    for time in (0..seq).rev() {
        let of_time = time * batch * columns..(time + 1) * batch * columns;
        let (now, after) = by_states.split_at_mut(of_time.end);
        let after = Some(&after[..]).filter(|after| !after.is_empty());
        let now = pieces(&mut now[of_time.start..], columns, width);
        let beside = if differ {
            pieces(&mut by_inputs[of_time], columns, width)
        } else {
            (0..sizes.blocks()).map(|_| Vec::new()).collect()
        };
        let work = |(part, (mut now, mut beside)): (&mut Back<'_>, (Vec<_>, Vec<_>))| {
            part.take(sizes, after);
            part.step(sizes, inputs, trace, time, grad, &mut now, &mut beside);
        };
        let parts = parts.par_iter_mut().with_min_len(sizes.blocks_at_a_time());
        let pairs = now.into_par_iter().zip(beside);
        parts.zip(pairs).for_each(work);
    }
    let state = wanted.state.then(|| {
        let mut out = vec![0.0; inputs.state.len()];
        for part in &mut parts {
            part.take(sizes, Some(&by_states));
            part.first(sizes, inputs, &mut out);
        }
        out
    });
    drop(parts);
    let by_inputs = if differ { &by_inputs } else { &by_states };
    products(sizes, inputs, trace, [by_inputs, &by_states], wanted, state)
}

/// Products of all times at once.
fn products(
    sizes: Sizes,
    inputs: Inputs<'_>,
    trace: Trace<&[f32]>,
    [by_inputs, by_states]: [&[f32]; 2],
    wanted: Wanted,
    state: Option<Vec<f32>>,
) -> Gradients {
    let Sizes {
        batch,
        seq,
        d_input,
        d_hidden,
        ..
    } = sizes;
    let (rows, columns) = (sizes.rows(), sizes.columns());
    let view = View::whole(rows, columns);
    let to_x = || {
        let weights = sizes.by_block(inputs.weights[0], d_input);
        let weights = (&weights[..], View::whole(columns, d_input));
        let x = product(View::whole(rows, d_input), (by_inputs, view), weights);
        exchanged(&x, [seq, batch], d_input)
    };
    let to_weights = |grads: &[f32], width: usize, rows: (&[f32], View)| {
        let all = product(
            View::whole(columns, width),
            (grads, view.transposed()),
            rows,
        );
        sizes.by_gate(&all, width)
    };
    let of_inputs = || to_weights(by_inputs, d_input, (trace.x, View::whole(rows, d_input)));
    let of_states = || {
        let before = View {
            row: sizes.units(),
            ..View::whole(rows, d_hidden)
        };
        let kept = kept(sizes, inputs, trace.hidden);
        let hidden = kept.as_deref().unwrap_or(trace.hidden);
        to_weights(by_states, d_hidden, (hidden, before))
    };
    let bias = |grads: &[f32]| sizes.by_gate(&column_sums(grads, columns), 1);
    Gradients {
        x: wanted.x.then(to_x),
        weights: [
            wanted.weights[0].then(of_inputs),
            wanted.weights[1].then(of_states),
        ],
        biases: [
            wanted.biases[0].then(|| bias(by_inputs)),
            wanted.biases[1].then(|| bias(by_states)),
        ],
        state,
    }
}

/// States before each time, with zeros where a text begins, if one does.
fn kept(sizes: Sizes, inputs: Inputs<'_>, hidden: &[f32]) -> Option<Vec<f32>> {
    inputs.keep?;
    let units = sizes.units();
    let mut out = hidden[..sizes.rows() * units].to_vec();
    for (at, row) in out.chunks_exact_mut(units).enumerate() {
        if inputs.keep(sizes, at % sizes.batch, at / sizes.batch) == 0.0 {
            row.fill(0.0);
        }
    }
    Some(out)
}

/// Weights from all gates to each block of units, `[blocks, columns, BLOCK]`.
///
/// - weights: `[columns, d_hidden]`
fn strips(sizes: Sizes, weights: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; sizes.columns() * sizes.units()];
    let blocks = out.par_chunks_mut(sizes.columns() * BLOCK).enumerate();
    blocks.for_each(|(block, out)| {
        let rows = weights.chunks_exact(sizes.d_hidden);
        for (out, row) in out.as_chunks_mut().0.iter_mut().zip(rows) {
            *out = sizes.units_of(row, block);
        }
    });
    out
}

impl<'a> Back<'a> {
    fn new(
        sizes: Sizes,
        number: usize,
        wide: &'a [f32],
        trace: Trace<&'a [f32]>,
        of_cells: Option<&[f32]>,
    ) -> Self {
        let Sizes {
            batch, d_hidden, ..
        } = sizes;
        let n = sizes.columns() * BLOCK;
        let wide = Wide {
            values: &wide[number * n..(number + 1) * n],
            row: BLOCK,
            tile: panels::tile(),
        };
        let of_block = |values: &'a [f32]| {
            let n = values.len() / sizes.blocks();
            &values[number * n..(number + 1) * n]
        };
        let mut last = vec![0.0; batch * BLOCK];
        if let Some(of_cells) = of_cells {
            let rows = last
                .as_chunks_mut()
                .0
                .iter_mut()
                .zip(of_cells.chunks_exact(d_hidden));
            rows.for_each(|(to, row)| *to = sizes.units_of(row, number));
        }
        Self {
            number,
            products: Products::new(wide, batch, BLOCK),
            gates: of_block(trace.gates),
            cells: of_block(trace.cells),
            direct: vec![0.0; batch * BLOCK],
            of_cells: last,
        }
    }

    /// Takes the product with the gradients of the next time's gates, where there is a next time.
    fn take(&mut self, sizes: Sizes, after: Option<&[f32]>) {
        let columns = sizes.columns();
        if let Some(values) = after {
            let rows = Rows {
                values,
                row: columns,
                depth: columns,
            };
            self.products.take(rows);
        }
    }

    /// - grad: of the states, `[batch, seq, d_hidden]`
    /// - now: of this block's gates at this time, row by row, by the products with states
    /// - beside: the same by those with inputs, where they differ
    #[allow(clippy::too_many_arguments, reason = "a step reads everything")]
    fn step(
        &mut self,
        sizes: Sizes,
        inputs: Inputs<'_>,
        trace: Trace<&[f32]>,
        time: usize,
        grad: &[f32],
        now: &mut [&mut [f32]],
        beside: &mut [&mut [f32]],
    ) {
        let Sizes {
            batch,
            seq,
            d_hidden,
            ..
        } = sizes;
        let gates = &self.gates[time * batch * KEPT * BLOCK..];
        for row in 0..batch {
            let keep = inputs.keep(sizes, row, time);
            // Nothing flows back from a text to the one before it.
            let flows = if time + 1 < seq {
                inputs.keep(sizes, row, time + 1)
            } else {
                1.0
            };
            let grad = &grad[(row * seq + time) * d_hidden..][..d_hidden];
            let mut grad = sizes.units_of(grad, self.number);
            let after = &self.products.out.as_chunks::<BLOCK>().0[row];
            let direct = &mut self.direct.as_chunks_mut::<BLOCK>().0[row];
            for at in 0..BLOCK {
                grad[at] += flows * (after[at] + direct[at]);
            }
            let kept = gates[row * KEPT * BLOCK..].as_chunks().0;
            let out = now[row].as_chunks_mut().0;
            match sizes.cell {
                Cell::Lstm => {
                    let cells = &self.cells[time * batch * BLOCK..].as_chunks().0;
                    let (old, new) = (&cells[row], &cells[batch + row]);
                    let of_cell = &mut self.of_cells.as_chunks_mut().0[row];
                    vectorized(
                        #[inline(always)]
                        || lstm_back([keep, flows], kept, [old, new], &grad, of_cell, out),
                    );
                }
                Cell::Gru => {
                    let first = (time * batch + row) * sizes.units() + self.number * BLOCK;
                    let Some(before) = trace.hidden[first..].first_chunk() else {
                        continue;
                    };
                    let beside = beside[row].as_chunks_mut().0;
                    vectorized(
                        #[inline(always)]
                        || gru_back(keep, kept, before, &grad, direct, [out, beside]),
                    );
                }
            }
        }
    }

    /// Gradients of the states and cells before the first time, into `[batch, states * d_hidden]`.
    fn first(&self, sizes: Sizes, inputs: Inputs<'_>, out: &mut [f32]) {
        let n = sizes.cell.states();
        for (row, out) in out.chunks_exact_mut(n * sizes.d_hidden).enumerate() {
            let keep = inputs.keep(sizes, row, 0);
            let of = |values: &[f32]| values.as_chunks::<BLOCK>().0[row];
            let (after, direct, cell) =
                (of(&self.products.out), of(&self.direct), of(&self.of_cells));
            let (hidden, cells) = out.split_at_mut(sizes.d_hidden);
            let both = std::array::from_fn(|at| keep * (after[at] + direct[at]));
            sizes.put(hidden, self.number, &both);
            if sizes.cell == Cell::Lstm {
                sizes.put(cells, self.number, &cell.map(|grad| keep * grad));
            }
        }
    }
}

/// - flags: whether the state before reaches this time, and this one the next
/// - of_cell: the gradient of this cell by the next one; of the one before by this one
#[inline(always)]
fn lstm_back(
    [keep, flows]: [f32; 2],
    kept: &[Units],
    [old, new]: [&Units; 2],
    grad: &Units,
    of_cell: &mut Units,
    out: &mut [Units],
) {
    let [i, f, g, o, ..] = kept else { return };
    let [di, df, dg, d_o, ..] = out else { return };
    for at in 0..BLOCK {
        let cell = tanh(new[at]);
        let of_this = flows * of_cell[at] + grad[at] * o[at] * (1.0 - cell * cell);
        di[at] = of_this * g[at] * i[at] * (1.0 - i[at]);
        df[at] = of_this * (keep * old[at]) * f[at] * (1.0 - f[at]);
        dg[at] = of_this * i[at] * (1.0 - g[at] * g[at]);
        d_o[at] = grad[at] * cell * o[at] * (1.0 - o[at]);
        of_cell[at] = of_this * f[at];
    }
}

/// - direct: of the state before, but for the product
/// - out: by the products with states, and by those with inputs
#[inline(always)]
fn gru_back(
    keep: f32,
    kept: &[Units],
    before: &Units,
    grad: &Units,
    direct: &mut Units,
    [out, beside]: [&mut [Units]; 2],
) {
    let [r, z, n, q, ..] = kept else { return };
    let [dr, dz, dq, ..] = out else { return };
    let [xr, xz, xn, ..] = beside else { return };
    for at in 0..BLOCK {
        let of_new = grad[at] * (1.0 - z[at]) * (1.0 - n[at] * n[at]);
        dq[at] = of_new * r[at];
        dr[at] = of_new * q[at] * r[at] * (1.0 - r[at]);
        dz[at] = grad[at] * (keep * before[at] - n[at]) * z[at] * (1.0 - z[at]);
        direct[at] = grad[at] * z[at];
        (xr[at], xz[at], xn[at]) = (dr[at], dz[at], of_new);
    }
}
