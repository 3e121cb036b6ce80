//! Cross-entropy of a projection onto a large vocabulary, without all of its logits at any time.
//!
//! On Flex the logits are made tile by tile, forward and once more backward, and each tile's gradients are taken while it
//! lies in the cache: the memory is that of the gradients and of some MiB a thread, whatever the vocabulary. The idea is
//! that of Wijmans et al. 2024, <https://arxiv.org/abs/2411.09009>.

use burn::prelude::*;
use burn::tensor::{DType, FloatDType, TensorData};

use crate::ops::cross_entropy;
#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// `cross_entropy(hidden table^T + bias, targets)`, and whether the largest logit of a row is that of its target.
///
/// - hidden: `[n, d_model]`
/// - table: `[vocab_size, d_model]`
/// - bias: `[vocab_size]`
/// - targets: `[n]`, each below `vocab_size`
/// - losses: `[n]`
/// - hits: `[n]`, 1 where the target has the largest logit, the first of several, and 0 elsewhere; without a gradient
///
/// On backends other than Flex the logits are made for some rows at a time; what a gradient needs of them is kept, as
/// tensor operations keep it.
///
/// # Panics
///
/// If widths differ, the bias is not as long as the table, there are not as many targets as rows, or one is no word.
pub fn linear_cross_entropy<B: Backend>(
    hidden: Tensor<B, 2>,
    table: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
    targets: &[u32],
) -> (Tensor<B, 1>, Tensor<B, 1>) {
    let ([n, d_model], [vocab_size, width]) = (hidden.dims(), table.dims());
    assert_eq!(
        width, d_model,
        "cross-entropy: the widths of table and rows"
    );
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [vocab_size], "cross-entropy: the bias's shape");
    }
    cross_entropy::check(n, vocab_size, targets);
    // It may be held in 16 bits.
    let table = table.cast(hidden.dtype());
    if n == 0 {
        let none = hidden.sum_dim(1).reshape([0]);
        return (none.clone(), none.detach());
    }
    #[cfg(feature = "flex")]
    {
        let of_bias = bias.as_ref().map_or(DType::F32, Tensor::dtype);
        if d_model > 0 && fused::takes::<B>(&[hidden.dtype(), table.dtype(), of_bias]) {
            let bias = bias.unwrap_or_else(|| Tensor::zeros([vocab_size], &hidden.device()));
            let operation = fast::LinearCrossEntropy(targets.to_vec());
            let inputs = [primitive(hidden), primitive(table), primitive(bias)];
            let both: Tensor<B, 2> = wrap(fused::apply::<B, _, 3>(operation, inputs));
            let hits = both.clone().detach().narrow(0, 1, 1).reshape([n]);
            return (both.narrow(0, 0, 1).reshape([n]), hits);
        }
    }
    plain(hidden, table, bias, targets)
}

/// The same, of tensor operations alone, some rows at a time.
pub(crate) fn plain<B: Backend>(
    hidden: Tensor<B, 2>,
    table: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
    targets: &[u32],
) -> (Tensor<B, 1>, Tensor<B, 1>) {
    /// Logits that are made at a time.
    const LOGITS: usize = 1 << 21;
    let [vocab_size, _] = table.dims();
    let table = table.transpose();
    let (mut losses, mut hits, mut first) = (vec![], vec![], 0);
    for targets in targets.chunks((LOGITS / vocab_size).max(1)) {
        let rows = targets.len();
        let mut logits = hidden.clone().narrow(0, first, rows).matmul(table.clone());
        if let Some(bias) = &bias {
            logits = logits + bias.clone().unsqueeze();
        }
        if matches!(logits.dtype(), DType::F16 | DType::BF16) {
            logits = logits.cast(FloatDType::F32);
        }
        let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
        let ids: Tensor<B, 1, Int> =
            Tensor::from_data(TensorData::new(ids, [rows]), &hidden.device());
        let best = logits.clone().detach().argmax(1).reshape([rows]);
        hits.push(best.equal(ids).float());
        losses.push(cross_entropy::plain(logits, targets));
        first += rows;
    }
    (Tensor::cat(losses, 0), Tensor::cat(hits, 0))
}

#[cfg(feature = "flex")]
mod fast {
    use std::ops::Range;

    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;
    use rayon::prelude::*;

    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::matrix::{Onto, View, multiply};
    use crate::ops::simd::{add_rows, exp, fold, max, vectorized};

    /// Rows whose logits are made at a time.
    const ROWS: usize = 512;
    /// Words whose logits are made at a time: with [`ROWS`] 2 MiB.
    const WORDS: usize = 1024;
    /// Parts of the vocabulary whose gradients are made side by side: as many whatever the number of threads, as the sum
    /// of what they add to a row depends on it.
    const PARTS: usize = 16;

    /// With its targets.
    #[derive(Debug)]
    pub(super) struct LinearCrossEntropy(pub(super) Vec<u32>);

    /// Rows, table and bias.
    #[derive(Clone, Copy)]
    struct Inputs<'a> {
        hidden: &'a [f32],
        table: &'a [f32],
        bias: &'a [f32],
    }

    /// What the logits of some words say about a row.
    struct Part {
        top: f32,
        /// Of exponentials, each divided by that of the largest logit.
        sum: f32,
        /// The word with the largest logit.
        best: usize,
        /// The target's logit, where it is one of the words.
        target: f32,
    }

    impl Inputs<'_> {
        fn d_model(&self) -> usize {
            self.table.len() / self.bias.len()
        }

        /// Some rows of a matrix as wide as the model.
        fn view(&self, rows: &Range<usize>) -> View {
            let d_model = self.d_model();
            View {
                start: rows.start * d_model,
                ..View::whole(rows.len(), d_model)
            }
        }

        /// The logits of some rows and words, row after row.
        fn logits(&self, out: &mut [f32], rows: &Range<usize>, words: &Range<usize>) {
            multiply(
                (out, View::whole(rows.len(), words.len())),
                (self.hidden, self.view(rows)),
                (self.table, self.view(words).transposed()),
                1.0,
                Onto::Nothing,
            );
            let bias = &self.bias[words.clone()];
            vectorized(
                #[inline(always)]
                || {
                    for row in out.chunks_exact_mut(bias.len()) {
                        row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
                    }
                },
            );
        }
    }

    /// One part of a row's softmax.
    #[inline(always)]
    fn part(logits: &[f32], words: &Range<usize>, target: usize) -> Part {
        let top = max(logits);
        // Of words that are ruled out by a bias of minus infinity nothing is added; NaN stays.
        let base = if top == f32::NEG_INFINITY { 0.0 } else { top };
        let sum = fold(logits, 0.0, |sum, x| sum + exp(x - base), |a, b| a + b);
        let best = logits.iter().position(|&x| x == top).unwrap_or(0);
        let here = words.contains(&target);
        Part {
            top,
            sum,
            best: words.start + best,
            target: if here {
                logits[target - words.start]
            } else {
                0.0
            },
        }
    }

    /// Ranges of `size`, the last one of what is left.
    fn pieces(all: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + Clone {
        let end = all.end;
        all.step_by(size)
            .map(move |first| first..(first + size).min(end))
    }

    impl LinearCrossEntropy {
        /// Of each tile of some rows and words, rows before words: the parts of its rows.
        fn parts(&self, inputs: Inputs) -> Vec<Vec<Part>> {
            let words = pieces(0..inputs.bias.len(), WORDS);
            let tiles = pieces(0..self.0.len(), ROWS)
                .flat_map(|rows| words.clone().map(move |words| (rows.clone(), words)));
            let tiles: Vec<_> = tiles.collect();
            let of_tile = |scratch: &mut Vec<f32>, (rows, words): (Range<usize>, Range<usize>)| {
                scratch.resize(rows.len() * words.len(), 0.0);
                inputs.logits(scratch, &rows, &words);
                let targets = &self.0[rows];
                vectorized(
                    #[inline(always)]
                    || {
                        let rows = scratch.chunks_exact(words.len()).zip(targets);
                        rows.map(|(row, &target)| part(row, &words, target as usize))
                            .collect()
                    },
                )
            };
            let tiles = tiles.into_par_iter();
            tiles.map_init(Vec::new, of_tile).collect()
        }

        /// The loss of a row, whether it is a hit, and the logarithm of its sum of exponentials in two parts.
        fn row<'a>(parts: impl Iterator<Item = &'a Part> + Clone, target: usize) -> [f32; 4] {
            let top = parts.clone().map(|part| part.top);
            let top = top.fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
            let sums = parts
                .clone()
                .map(|part| f64::from(part.sum) * f64::from(part.top - top).exp());
            let log = sums.sum::<f64>().ln() as f32;
            let logit: f32 = parts
                .clone()
                .nth(target / WORDS)
                .map_or(f32::NAN, |p| p.target);
            let best = parts.clone().find(|part| part.top == top);
            let hit = best.is_some_and(|part| part.best == target) && !log.is_nan();
            [top - logit + log, f32::from(u8::from(hit)), top, log]
        }
    }

    /// What the gradients are made of.
    struct Backward<'a> {
        inputs: Inputs<'a>,
        targets: &'a [u32],
        /// Of each row two numbers, to be taken off its logits one after the other.
        log_sums: &'a [f32],
        /// Of the losses.
        grad: &'a [f32],
        /// Whether rows, table and bias want theirs.
        wanted: [bool; 3],
    }

    impl Backward<'_> {
        /// The gradient of logits in their place.
        fn of_logits(&self, logits: &mut [f32], rows: &Range<usize>, words: &Range<usize>) {
            vectorized(
                #[inline(always)]
                || {
                    let of_rows = logits.chunks_exact_mut(words.len()).zip(rows.clone());
                    for (row, number) in of_rows {
                        let (first, second) =
                            (self.log_sums[2 * number], self.log_sums[2 * number + 1]);
                        let grad = self.grad[number];
                        row.iter_mut()
                            .for_each(|x| *x = grad * exp(*x - first - second));
                        let target = self.targets[number] as usize;
                        if words.contains(&target) {
                            row[target - words.start] -= grad;
                        }
                    }
                },
            );
        }

        /// Adds to the gradients of some words what some rows give them.
        ///
        /// - out: what these words give to the rows' gradients, if they want any
        fn of_words(
            &self,
            rows: &Range<usize>,
            words: Range<usize>,
            mut to_table: Option<&mut [f32]>,
            mut to_bias: Option<&mut [f32]>,
        ) -> Vec<f32> {
            let Inputs { hidden, table, .. } = self.inputs;
            let of_rows = View::whole(rows.len(), self.inputs.d_model());
            let mut to_rows = if self.wanted[0] {
                vec![0.0; of_rows.rows * of_rows.columns]
            } else {
                vec![]
            };
            // Tiles of one width, as nearly as can be.
            let width = words.len().div_ceil(words.len().div_ceil(WORDS));
            let mut scratch = vec![0.0; rows.len() * width];
            for tile in pieces(words.clone(), width) {
                let grads = &mut scratch[..rows.len() * tile.len()];
                self.inputs.logits(grads, rows, &tile);
                self.of_logits(grads, rows, &tile);
                let view = View::whole(rows.len(), tile.len());
                let own = tile.start - words.start..tile.end - words.start;
                if let Some(to_table) = &mut to_table {
                    multiply(
                        (to_table, self.inputs.view(&own)),
                        (grads, view.transposed()),
                        (hidden, self.inputs.view(rows)),
                        1.0,
                        Onto::Values,
                    );
                }
                if let Some(to_bias) = &mut to_bias {
                    let to_bias = &mut to_bias[own];
                    vectorized(
                        #[inline(always)]
                        || add_rows(to_bias, grads),
                    );
                }
                if self.wanted[0] {
                    multiply(
                        (&mut to_rows, of_rows),
                        (grads, view),
                        (table, self.inputs.view(&tile)),
                        1.0,
                        Onto::Values,
                    );
                }
            }
            to_rows
        }

        /// The gradients of rows, table and bias that are wanted, and nothing of the others.
        fn gradients(&self) -> [Vec<f32>; 3] {
            let Inputs {
                hidden,
                table,
                bias,
            } = self.inputs;
            let d_model = self.inputs.d_model();
            let sizes = [hidden.len(), table.len(), bias.len()];
            let mut out =
                [0, 1, 2].map(|at| vec![0.0; if self.wanted[at] { sizes[at] } else { 0 }]);
            let [to_rows, to_table, to_bias] = &mut out;
            let size = bias.len().div_ceil(PARTS).max(WORDS / 4);
            for rows in pieces(0..self.targets.len(), ROWS) {
                let tables = to_table.chunks_mut(size * d_model).map(Some);
                let biases = to_bias.chunks_mut(size).map(Some);
                // The chunks of a gradient that nobody wants run out at once.
                let mut tables = tables.chain(std::iter::repeat_with(|| None));
                let mut biases = biases.chain(std::iter::repeat_with(|| None));
                let parts: Vec<_> = pieces(0..bias.len(), size)
                    .map(|words| (words, tables.next().flatten(), biases.next().flatten()))
                    .collect();
                let of_part =
                    |(words, to_table, to_bias)| self.of_words(&rows, words, to_table, to_bias);
                let parts: Vec<Vec<f32>> = parts.into_par_iter().map(of_part).collect();
                // In the order of the words, whichever thread had them.
                if self.wanted[0] {
                    let to_rows = &mut to_rows[rows.start * d_model..rows.end * d_model];
                    for part in parts {
                        to_rows.iter_mut().zip(part).for_each(|(to, x)| *to += x);
                    }
                }
            }
            out
        }
    }

    impl Fused<3> for LinearCrossEntropy {
        /// Rows, table and bias, and the logarithm of each row's sum of exponentials in two parts, `[n, 2]`.
        type Saved = [FlexTensor; 4];

        /// Losses and hits, `[2, n]`.
        fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, [FlexTensor; 4]) {
            let [hidden, table, bias] = inputs.map(contiguous);
            let parts = self.parts(Inputs {
                hidden: slice(&hidden),
                table: slice(&table),
                bias: slice(&bias),
            });
            let tiles = slice(&bias).len().div_ceil(WORDS);
            let rows = self.0.iter().enumerate();
            let rows: Vec<[f32; 4]> = rows
                .map(|(number, &target)| {
                    let tiles = &parts[number / ROWS * tiles..][..tiles];
                    Self::row(
                        tiles.iter().map(|rows| &rows[number % ROWS]),
                        target as usize,
                    )
                })
                .collect();
            let losses = rows.iter().map(|row| row[0]);
            let out = losses.chain(rows.iter().map(|row| row[1])).collect();
            let log_sums = rows.iter().flat_map(|row| [row[2], row[3]]).collect();
            let n = rows.len();
            let saved = [hidden, table, bias, tensor(log_sums, [n, 2])];
            (tensor(out, [2, n]), saved)
        }

        fn backward(
            &self,
            saved: [FlexTensor; 4],
            grad: FlexTensor,
            wanted: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            let [hidden, table, bias, log_sums] = saved.each_ref().map(slice);
            let backward = Backward {
                inputs: Inputs {
                    hidden,
                    table,
                    bias,
                },
                targets: &self.0,
                log_sums,
                grad: &slice(&grad)[..self.0.len()],
                wanted,
            };
            let [to_hidden, to_table, to_bias] = backward.gradients();
            let shape = |at: usize| saved[at].shape();
            [
                wanted[0].then(|| tensor(to_hidden, shape(0))),
                wanted[1].then(|| tensor(to_table, shape(1))),
                wanted[2].then(|| tensor(to_bias, shape(2))),
            ]
        }
    }
}
