//! The way forward: gates, cells and states, time by time.

use rayon::prelude::*;

use super::{
    BLOCK, Inputs, KEPT, Products, Rows, Sizes, Trace, Units, exchanged, pieces, sigmoid, tanh,
};
use crate::ops::matrix::{View, product_onto};
use crate::ops::panels::{self, Wide};
use crate::ops::recurrent::Cell;
use crate::ops::simd::{repeated, vectorized};

/// A block on the way forward.
struct Block<'a> {
    number: usize,
    products: Products<'a>,
    /// Of the products with the states, of this block.
    bias: &'a [f32],
    /// `[seq, batch, KEPT, BLOCK]`
    gates: &'a mut [f32],
    /// Before the first time and at each, `[seq + 1, batch, BLOCK]`.
    cells: &'a mut [f32],
}

/// States of all times, `[batch, seq, d_hidden]`, cells of the last time, `[batch, d_hidden]`, where there are some, and what
/// the gradient needs.
///
/// - x: `[batch, seq, d_input]`
pub(crate) fn forward(
    sizes: Sizes,
    x: &[f32],
    inputs: Inputs<'_>,
) -> (Vec<f32>, Vec<f32>, Trace<Vec<f32>>) {
    let Sizes {
        cell,
        batch,
        seq,
        d_input,
        d_hidden,
    } = sizes;
    let (units, blocks) = (sizes.units(), sizes.blocks());
    let x = exchanged(x, [batch, seq], d_input);
    let of_inputs = products_with_inputs(sizes, &x, inputs);
    let weights = tiles(sizes, &sizes.by_block(inputs.weights[1], d_hidden));
    let bias = sizes.by_block(inputs.biases[1], 1);
    let mut hidden = vec![0.0; (seq + 1) * batch * units];
    let mut gates = vec![0.0; blocks * seq * batch * KEPT * BLOCK];
    let of_cells = (cell.states() - 1) * (seq + 1) * batch * BLOCK;
    let mut cells = vec![0.0; blocks * of_cells];
    let mut parts: Vec<Block<'_>> = Vec::with_capacity(blocks);
    let mut rest = &mut cells[..];
    for (number, gates) in gates
        .chunks_exact_mut(seq * batch * KEPT * BLOCK)
        .enumerate()
    {
        let (cells, behind) = std::mem::take(&mut rest).split_at_mut(of_cells);
        rest = behind;
        parts.push(Block::new(sizes, number, &weights, &bias, gates, cells));
    }
    for part in &mut parts {
        part.begin(sizes, inputs.state, &mut hidden);
    }
    for time in 0..seq {
        let (before, now) = hidden.split_at_mut((time + 1) * batch * units);
        let before = &before[time * batch * units..];
        let now = pieces(&mut now[..batch * units], units, BLOCK);
        let n = batch * sizes.columns();
        let of_inputs = &of_inputs[time * n..(time + 1) * n];
        let work = |(part, mut now): (&mut Block<'_>, Vec<&mut [f32]>)| {
            part.step(sizes, inputs, time, of_inputs, before, &mut now);
        };
        let parts = parts.par_iter_mut().with_min_len(sizes.blocks_at_a_time());
        parts.zip(now).for_each(work);
    }
    let mut last = vec![0.0; (cell.states() - 1) * batch * d_hidden];
    for part in &parts {
        let rows = last
            .chunks_exact_mut(d_hidden)
            .zip(part.cells_of(sizes, seq));
        rows.for_each(|(row, cells)| sizes.put(row, part.number, cells));
    }
    drop(parts);
    let out = states(sizes, &hidden);
    (
        out,
        last,
        Trace {
            x,
            hidden,
            gates,
            cells,
        },
    )
}

/// Products with the inputs of all times and their bias, `[seq, batch, columns]`.
fn products_with_inputs(sizes: Sizes, x: &[f32], inputs: Inputs<'_>) -> Vec<f32> {
    let (rows, columns, d_input) = (sizes.rows(), sizes.columns(), sizes.d_input);
    let weights = sizes.by_block(inputs.weights[0], d_input);
    let bias = sizes.by_block(inputs.biases[0], 1);
    product_onto(
        repeated(&bias, rows),
        (x, View::whole(rows, d_input)),
        (&weights, View::whole(columns, d_input).transposed()),
    )
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

/// Values of the weights of a block, as [`tiles`] lays them.
fn of_tiles(sizes: Sizes) -> usize {
    let tile = panels::tile();
    sizes.width().div_ceil(tile) * sizes.d_hidden * tile
}

/// Weights of each block as columns, tile after tile.
///
/// - weights: `[columns, d_hidden]`
fn tiles(sizes: Sizes, weights: &[f32]) -> Vec<f32> {
    let (depth, tile) = (sizes.d_hidden, panels::tile());
    let mut out = vec![0.0; sizes.blocks() * of_tiles(sizes)];
    let blocks = out
        .par_chunks_mut(of_tiles(sizes))
        .zip(weights.par_chunks(sizes.width() * depth));
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
    out
}

impl<'a> Block<'a> {
    fn new(
        sizes: Sizes,
        number: usize,
        weights: &'a [f32],
        bias: &'a [f32],
        gates: &'a mut [f32],
        cells: &'a mut [f32],
    ) -> Self {
        let (n, width, tile) = (of_tiles(sizes), sizes.width(), panels::tile());
        let wide = Wide {
            values: &weights[number * n..(number + 1) * n],
            row: tile,
            tile: sizes.d_hidden * tile,
        };
        Self {
            number,
            products: Products::new(wide, sizes.batch, width),
            bias: &bias[number * width..(number + 1) * width],
            gates,
            cells,
        }
    }

    /// Cells before a time, row by row; none where units have none.
    fn cells_of(&self, sizes: Sizes, time: usize) -> &[Units] {
        let n = sizes.batch * BLOCK;
        self.cells
            .chunks_exact(n)
            .nth(time)
            .unwrap_or_default()
            .as_chunks()
            .0
    }

    /// Takes the states and cells before the first time.
    ///
    /// - state: `[batch, states * d_hidden]`
    /// - hidden: `[batch, units]` and more
    fn begin(&mut self, sizes: Sizes, state: &[f32], hidden: &mut [f32]) {
        for row in 0..sizes.batch {
            let first = row * sizes.units() + self.number * BLOCK;
            let states = sizes.part(state, 0, row, self.number);
            hidden[first..first + BLOCK].copy_from_slice(&states);
            if sizes.cell == Cell::Lstm {
                let cells = sizes.part(state, 1, row, self.number);
                self.cells[row * BLOCK..(row + 1) * BLOCK].copy_from_slice(&cells);
            }
        }
    }

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
        self.products.take(Rows {
            values: before,
            row: sizes.units(),
            depth: sizes.d_hidden,
        });
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
