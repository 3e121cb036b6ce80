//! The way back: gradients of gates, time by time, and of inputs and weights, of all times at once.

use rayon::prelude::*;

use super::{BLOCK, Inputs, KEPT, Products, Rows, Sizes, Trace, Units, exchanged, pieces, tanh};
use crate::ops::matrix::{View, product};
use crate::ops::panels::{self, Wide};
use crate::ops::recurrent::Cell;
use crate::ops::simd::{column_sums, vectorized};

/// Gradients in the order of the inputs, and of the states before the first time.
pub(crate) struct Gradients {
    pub(crate) x: Option<Vec<f32>>,
    pub(crate) weights: [Option<Vec<f32>>; 2],
    pub(crate) biases: [Option<Vec<f32>>; 2],
    pub(crate) state: Option<Vec<f32>>,
}

/// A block on the way back.
struct Block<'a> {
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
pub(crate) struct Wanted {
    pub(crate) x: bool,
    pub(crate) weights: [bool; 2],
    pub(crate) biases: [bool; 2],
    pub(crate) state: bool,
}

/// - grad: of the states, `[batch, seq, d_hidden]`
/// - of_cells: of the cells of the last time, `[batch, d_hidden]`
pub(crate) fn backward(
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
    let mut parts: Vec<Block<'_>> = (0..sizes.blocks())
        .map(|number| Block::new(sizes, number, &wide, trace, of_cells))
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
        let work = |(part, (mut now, mut beside)): (&mut Block<'_>, (Vec<_>, Vec<_>))| {
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

impl<'a> Block<'a> {
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
