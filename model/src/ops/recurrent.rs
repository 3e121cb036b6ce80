//! A recurrent layer over whole sequences, LSTM or GRU, in PyTorch's form and layout.
//!
//! Hochreiter and Schmidhuber 1997, <https://doi.org/10.1162/neco.1997.9.8.1735>, with the forget gate of Gers et al. 2000,
//! <https://doi.org/10.1162/089976600300015015>; Cho et al. 2014, <https://arxiv.org/abs/1406.1078>. On Flex the sequence is one
//! operation, forward and backward; elsewhere, and for a single token, it is one of tensor operations, time by time.

use burn::prelude::*;
use burn::tensor::activation::{sigmoid, tanh};

use crate::ops::linear_transposed;
#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// What a recurrent layer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Long short-term memory: input, forget, cell and output gates, in this order.
    Lstm,
    /// Gated recurrent units: reset, update and new gates. As in PyTorch, the reset gate multiplies the product with the states
    /// and its bias, where the paper has it before the product.
    Gru,
}

impl Cell {
    /// Rows of the weights, for each unit.
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }

    /// Values of each unit that go from one time to the next: its state, and of the LSTM its cell.
    pub fn states(self) -> usize {
        match self {
            Self::Lstm => 2,
            Self::Gru => 1,
        }
    }
}

/// What a layer reads in one go.
#[derive(Clone, Debug)]
pub struct Span<B: Backend> {
    /// Rows.
    pub batch: usize,
    /// Tokens of a row, at least 1.
    pub seq: usize,
    /// 0 where a text begins, which then sees nothing of what is before it in its row, and 1 elsewhere; `[batch, seq]`. Absent
    /// where no row holds several texts.
    pub keep: Option<Tensor<B, 2>>,
    /// What was left of the tokens before: states and, of the LSTM, behind them cells; `[batch, states * d_hidden]`. Zero where it
    /// is absent, and then nothing is left either.
    pub state: Option<Tensor<B, 2>>,
}

/// States of all tokens, and what is left for those to come, if [`Span::state`] is given.
///
/// - x: `[batch * seq, d_input]`
/// - weights: of the inputs, `[gates * d_hidden, d_input]`, and of the states, `[gates * d_hidden, d_hidden]`
/// - biases: of both products, `[gates * d_hidden]`
/// - states: `[batch * seq, d_hidden]`
/// - left: `[batch, states * d_hidden]`
///
/// # Panics
///
/// If these sizes do not fit each other, or the sequence is empty.
pub fn recurrent<B: Backend>(
    cell: Cell,
    x: Tensor<B, 2>,
    weights: [Tensor<B, 2>; 2],
    biases: [Tensor<B, 1>; 2],
    span: Span<B>,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    check(cell, &x, &weights, &biases, &span);
    #[cfg(feature = "flex")]
    {
        let [[_, d_input], [_, d_hidden]] = weights.each_ref().map(Tensor::dims);
        let mut dtypes = vec![x.dtype()];
        dtypes.extend(weights.iter().map(Tensor::dtype));
        dtypes.extend(biases.iter().map(Tensor::dtype));
        dtypes.extend(
            [&span.keep, &span.state]
                .into_iter()
                .flatten()
                .map(Tensor::dtype),
        );
        let sizes = span.batch * d_input * d_hidden;
        if span.seq > 1 && sizes > 0 && fused::takes::<B>(&dtypes) {
            return whole(cell, x, weights, biases, span);
        }
    }
    plain(cell, x, weights, biases, span)
}

fn check<B: Backend>(
    cell: Cell,
    x: &Tensor<B, 2>,
    [of_inputs, of_states]: &[Tensor<B, 2>; 2],
    biases: &[Tensor<B, 1>; 2],
    span: &Span<B>,
) {
    let ([n, d_input], [rows, d_hidden]) = (x.dims(), of_states.dims());
    let (batch, seq, gates) = (span.batch, span.seq, cell.gates() * d_hidden);
    assert!(seq > 0, "recurrent: an empty sequence");
    assert_eq!(n, batch * seq, "recurrent: the number of tokens");
    assert_eq!(rows, gates, "recurrent: the rows of the states' weights");
    assert_eq!(
        of_inputs.dims(),
        [gates, d_input],
        "recurrent: the inputs' weights"
    );
    for bias in biases {
        assert_eq!(bias.dims(), [gates], "recurrent: the length of a bias");
    }
    if let Some(keep) = &span.keep {
        assert_eq!(keep.dims(), [batch, seq], "recurrent: where texts begin");
    }
    if let Some(state) = &span.state {
        let shape = [batch, cell.states() * d_hidden];
        assert_eq!(state.dims(), shape, "recurrent: the state");
    }
}

/// The same, of tensor operations alone.
pub(crate) fn plain<B: Backend>(
    cell: Cell,
    x: Tensor<B, 2>,
    [of_inputs, of_states]: [Tensor<B, 2>; 2],
    [input_bias, state_bias]: [Tensor<B, 1>; 2],
    span: Span<B>,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    let ([gates, d_hidden], device) = (of_states.dims(), x.device());
    let Span {
        batch,
        seq,
        keep,
        state,
    } = span;
    let carries = state.is_some();
    let zeros = || Tensor::zeros([batch, cell.states() * d_hidden], (&device, x.dtype()));
    let mut state = state.unwrap_or_else(zeros);
    let all = linear_transposed(x, of_inputs, input_bias).reshape([batch, seq, gates]);
    let mut hidden = Vec::with_capacity(seq);
    for time in 0..seq {
        if let Some(keep) = &keep {
            state = state * keep.clone().narrow(1, time, 1);
        }
        let before = state.clone().narrow(1, 0, d_hidden);
        let of_inputs = all.clone().narrow(1, time, 1).reshape([batch, gates]);
        let products = linear_transposed(before, of_states.clone(), state_bias.clone());
        state = match cell {
            Cell::Lstm => lstm(of_inputs + products, state),
            Cell::Gru => gru(of_inputs, products, state),
        };
        hidden.push(state.clone().narrow(1, 0, d_hidden));
    }
    let hidden: Tensor<B, 3> = Tensor::stack(hidden, 1);
    (
        hidden.reshape([batch * seq, d_hidden]),
        carries.then_some(state),
    )
}

/// - gates: `[batch, 4 * d_hidden]`
/// - state, out: `[batch, 2 * d_hidden]`
fn lstm<B: Backend>(gates: Tensor<B, 2>, state: Tensor<B, 2>) -> Tensor<B, 2> {
    let [_, width] = gates.dims();
    let d_hidden = width / 4;
    let part = |number: usize| gates.clone().narrow(1, number * d_hidden, d_hidden);
    let cells = sigmoid(part(1)) * state.narrow(1, d_hidden, d_hidden);
    let cells = cells + sigmoid(part(0)) * tanh(part(2));
    let hidden = sigmoid(part(3)) * tanh(cells.clone());
    Tensor::cat(vec![hidden, cells], 1)
}

/// - x, h: products with inputs and states, `[batch, 3 * d_hidden]`
/// - state, out: `[batch, d_hidden]`
fn gru<B: Backend>(x: Tensor<B, 2>, h: Tensor<B, 2>, state: Tensor<B, 2>) -> Tensor<B, 2> {
    let [_, d_hidden] = state.dims();
    let part = |of: &Tensor<B, 2>, number: usize| of.clone().narrow(1, number * d_hidden, d_hidden);
    let reset = sigmoid(part(&x, 0) + part(&h, 0));
    let update = sigmoid(part(&x, 1) + part(&h, 1));
    let new = tanh(part(&x, 2) + reset * part(&h, 2));
    new.clone() + update * (state - new)
}

/// The same in one operation, where [`fused::takes`] says yes.
#[cfg(feature = "flex")]
fn whole<B: Backend>(
    cell: Cell,
    x: Tensor<B, 2>,
    [of_inputs, of_states]: [Tensor<B, 2>; 2],
    [input_bias, state_bias]: [Tensor<B, 1>; 2],
    span: Span<B>,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    let ([_, d_input], [_, d_hidden]) = (x.dims(), of_states.dims());
    let Span {
        batch,
        seq,
        keep,
        state,
    } = span;
    let (carries, rows) = (state.is_some(), batch * seq);
    let zeros = || Tensor::zeros([batch, cell.states() * d_hidden], &x.device());
    let state = state.unwrap_or_else(zeros);
    let operation = fast::Layer {
        sizes: crate::ops::sequence::Sizes {
            cell,
            batch,
            seq,
            d_input,
            d_hidden,
        },
        keep: keep.map(|keep| fused::contiguous(fused::values::<B>(primitive(keep)))),
        carries,
    };
    let inputs = [
        primitive(x),
        primitive(of_inputs),
        primitive(of_states),
        primitive(input_bias),
        primitive(state_bias),
        primitive(state),
    ];
    let out: Tensor<B, 2> = wrap(fused::apply::<B, _, 6>(operation, inputs));
    if !carries {
        return (out, None);
    }
    let hidden = out.clone().narrow(0, 0, rows);
    let last = hidden
        .clone()
        .reshape([batch, seq, d_hidden])
        .narrow(1, seq - 1, 1);
    let last = last.reshape([batch, d_hidden]);
    let left = match cell {
        Cell::Lstm => Tensor::cat(vec![last, out.narrow(0, rows, batch)], 1),
        Cell::Gru => last,
    };
    (hidden, Some(left))
}

#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;

    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::sequence::{Inputs, Sizes, Trace, Wanted, backward, forward};

    #[derive(Debug)]
    pub(super) struct Layer {
        pub(super) sizes: Sizes,
        pub(super) keep: Option<FlexTensor>,
        /// Whether cells come out too.
        pub(super) carries: bool,
    }

    impl Layer {
        fn inputs<'a>(&'a self, inputs: [&'a FlexTensor; 5]) -> Inputs<'a> {
            let [of_inputs, of_states, input_bias, state_bias, state] = inputs.map(slice);
            Inputs {
                weights: [of_inputs, of_states],
                biases: [input_bias, state_bias],
                state,
                keep: self.keep.as_ref().map(slice),
            }
        }
    }

    /// Inputs without the first one, and what was computed.
    #[derive(Clone, Debug)]
    pub(super) struct Saved {
        inputs: [FlexTensor; 5],
        trace: Trace<FlexTensor>,
    }

    impl Fused<6> for Layer {
        type Saved = Saved;

        /// States, `[batch * seq, d_hidden]`; where they go on, cells of the last time behind them, `[batch, d_hidden]`.
        fn forward(&self, inputs: [FlexTensor; 6]) -> (FlexTensor, Saved) {
            let [x, inputs @ ..] = inputs.map(contiguous);
            let (mut out, cells, trace) =
                forward(self.sizes, slice(&x), self.inputs(inputs.each_ref()));
            if self.carries {
                out.extend(cells);
            }
            let flat = |values: Vec<f32>| {
                let n = values.len();
                tensor(values, [n])
            };
            let trace = Trace {
                x: flat(trace.x),
                hidden: flat(trace.hidden),
                gates: flat(trace.gates),
                cells: flat(trace.cells),
            };
            let rows = out.len() / self.sizes.d_hidden;
            (
                tensor(out, [rows, self.sizes.d_hidden]),
                Saved { inputs, trace },
            )
        }

        fn backward(
            &self,
            Saved { inputs, trace }: Saved,
            grad: FlexTensor,
            wanted: [bool; 6],
        ) -> [Option<FlexTensor>; 6] {
            let Sizes {
                batch,
                seq,
                d_input,
                d_hidden,
                ..
            } = self.sizes;
            let (grad, of_cells) = slice(&grad).split_at(batch * seq * d_hidden);
            let trace = Trace {
                x: slice(&trace.x),
                hidden: slice(&trace.hidden),
                gates: slice(&trace.gates),
                cells: slice(&trace.cells),
            };
            let wanted = Wanted {
                x: wanted[0],
                weights: [wanted[1], wanted[2]],
                biases: [wanted[3], wanted[4]],
                state: wanted[5],
            };
            let of_cells = Some(of_cells).filter(|of_cells| !of_cells.is_empty());
            let read = self.inputs(inputs.each_ref());
            let gradients = backward(self.sizes, read, trace, grad, of_cells, wanted);
            let [of_inputs, of_states] = gradients.weights;
            let [input_bias, state_bias] = gradients.biases;
            let like = |at: usize| inputs[at].shape();
            [
                gradients.x.map(|grad| tensor(grad, [batch * seq, d_input])),
                of_inputs.map(|grad| tensor(grad, like(0))),
                of_states.map(|grad| tensor(grad, like(1))),
                input_bias.map(|grad| tensor(grad, like(2))),
                state_bias.map(|grad| tensor(grad, like(3))),
                gradients.state.map(|grad| tensor(grad, like(4))),
            ]
        }
    }
}
