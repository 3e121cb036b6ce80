//! Scaled dot-product attention. Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>.

use burn::prelude::*;
use burn::tensor::activation::softmax;

use crate::ops::dropout;
#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// `softmax(q k^T / sqrt(d_head) + bias) v` for every head.
///
/// - q, k, v, out: `[batch * seq, n_heads * d_head]`
/// - bias: `[batch, 1, 1, seq]`, added to the scores of every query; without a gradient
/// - rate: share of the probabilities that is dropped while training
pub fn attention<B: Backend>(
    [q, k, v]: [Tensor<B, 2>; 3],
    bias: Option<Tensor<B, 4>>,
    [batch, seq]: [usize; 2],
    n_heads: usize,
    rate: f64,
) -> Tensor<B, 2> {
    let rate = dropout::in_training::<B>(rate, &q.device());
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[q.dtype(), k.dtype(), v.dtype()]) {
        let operation = fast::Attention {
            batch,
            seq,
            n_heads,
            bias: bias.map(|bias| fused::values::<B>(primitive(bias))),
            mask: (rate > 0.0).then(|| dropout::Mask::draw(rate)),
        };
        let inputs = [q, k, v].map(primitive);
        return wrap(fused::apply::<B, _, 3>(operation, inputs));
    }
    plain([q, k, v], bias, [batch, seq], n_heads, rate)
}

/// The same, of tensor operations alone.
pub(crate) fn plain<B: Backend>(
    [q, k, v]: [Tensor<B, 2>; 3],
    bias: Option<Tensor<B, 4>>,
    [batch, seq]: [usize; 2],
    n_heads: usize,
    rate: f64,
) -> Tensor<B, 2> {
    let [_, d_model] = q.dims();
    let d_head = d_model / n_heads;
    let heads = |states: Tensor<B, 2>| {
        let states = states.reshape([batch, seq, n_heads, d_head]);
        states.swap_dims(1, 2)
    };
    let scale = 1.0 / (d_head as f64).sqrt();
    let mut scores = heads(q.mul_scalar(scale)).matmul(heads(k).transpose());
    if let Some(bias) = bias {
        scores = scores + bias;
    }
    let mut probabilities = softmax(scores, 3);
    if rate > 0.0 {
        probabilities = dropout::plain(probabilities, rate);
    }
    let context = probabilities.matmul(heads(v));
    context.swap_dims(1, 2).reshape([batch * seq, d_model])
}

/// One head at a time, its probabilities in a scratch buffer: forward they are not kept, backward they are made anew.
#[cfg(feature = "flex")]
mod fast {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;
    use rayon::prelude::*;

    use crate::ops::dropout::Mask;
    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::matrix::{Onto, View, multiply};
    use crate::ops::simd::{dot, exp, max, sum, vectorized};

    #[derive(Debug)]
    pub(super) struct Attention {
        pub(super) batch: usize,
        pub(super) seq: usize,
        pub(super) n_heads: usize,
        /// `[batch, seq]`, whatever its rank.
        pub(super) bias: Option<FlexTensor>,
        pub(super) mask: Option<Mask>,
    }

    impl Attention {
        fn scale(&self, d_model: usize) -> f32 {
            (1.0 / ((d_model / self.n_heads) as f64).sqrt()) as f32
        }

        /// One head of one text inside `[seq, d_model]`.
        fn head(&self, head: usize, d_model: usize) -> View {
            let d_head = d_model / self.n_heads;
            View {
                rows: self.seq,
                columns: d_head,
                start: head * d_head,
                row: d_model,
                column: 1,
            }
        }

        fn square(&self) -> View {
            View::whole(self.seq, self.seq)
        }

        fn bias_of(&self, text: usize) -> Option<&[f32]> {
            let bias = self.bias.as_ref()?;
            Some(&slice(bias)[text * self.seq..(text + 1) * self.seq])
        }

        /// The probabilities of one head, `[seq, seq]`.
        fn probabilities(&self, out: &mut [f32], q: &[f32], k: &[f32], at: (usize, usize)) {
            let (text, head) = at;
            let d_model = q.len() / self.seq;
            let view = self.head(head, d_model);
            let scale = self.scale(d_model);
            multiply(
                (out, self.square()),
                (q, view),
                (k, view.transposed()),
                scale,
                Onto::Nothing,
            );
            let bias = self.bias_of(text);
            vectorized(
                #[inline(always)]
                || {
                    for row in out.chunks_exact_mut(self.seq) {
                        if let Some(bias) = bias {
                            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
                        }
                        let top = max(row);
                        row.iter_mut().for_each(|x| *x = exp(*x - top));
                        let share = 1.0 / sum(row);
                        row.iter_mut().for_each(|x| *x *= share);
                    }
                },
            );
        }
    }

    impl Attention {
        /// Drops of the probabilities of one head what its mask drops.
        fn drop_some(&self, out: &mut [f32], (text, head): (usize, usize)) {
            let Some(mask) = self.mask else {
                return;
            };
            let mut place = ((text * self.n_heads + head) * out.len()) as u64;
            vectorized(
                #[inline(always)]
                || {
                    for x in out {
                        *x *= mask.factor(place);
                        place = place.wrapping_add(1);
                    }
                },
            );
        }
    }

    impl Fused<3> for Attention {
        type Saved = [FlexTensor; 3];

        fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, [FlexTensor; 3]) {
            let inputs = inputs.map(contiguous);
            let [q, k, v] = inputs.each_ref().map(slice);
            let text = q.len() / self.batch;
            let mut out = vec![0.0; q.len()];
            let texts = out.par_chunks_mut(text).enumerate();
            texts.for_each_init(
                || vec![0.0; self.seq * self.seq],
                |scores, (number, out)| {
                    let part = number * text..(number + 1) * text;
                    let [q, k, v] = [q, k, v].map(|all| &all[part.clone()]);
                    for head in 0..self.n_heads {
                        let view = self.head(head, text / self.seq);
                        self.probabilities(scores, q, k, (number, head));
                        self.drop_some(scores, (number, head));
                        multiply(
                            (out, view),
                            (scores, self.square()),
                            (v, view),
                            1.0,
                            Onto::Nothing,
                        );
                    }
                },
            );
            (tensor(out, inputs[0].shape()), inputs)
        }

        fn backward(
            &self,
            inputs: [FlexTensor; 3],
            grad: FlexTensor,
            _: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            let [q, k, v] = inputs.each_ref().map(slice);
            let grad = slice(&grad);
            let text = q.len() / self.batch;
            let mut to = [(); 3].map(|()| vec![0.0; q.len()]);
            let [to_q, to_k, to_v] = &mut to;
            let texts = to_q.par_chunks_mut(text).zip(to_k.par_chunks_mut(text));
            let texts = texts.zip(to_v.par_chunks_mut(text)).enumerate();
            let square = self.square();
            texts.for_each_init(
                || [(); 2].map(|()| vec![0.0; self.seq * self.seq]),
                |[scores, grads], (number, ((to_q, to_k), to_v))| {
                    let part = number * text..(number + 1) * text;
                    let [q, k, v, grad] = [q, k, v, grad].map(|all| &all[part.clone()]);
                    let d_model = text / self.seq;
                    let scale = self.scale(d_model);
                    for head in 0..self.n_heads {
                        let view = self.head(head, d_model);
                        self.probabilities(scores, q, k, (number, head));
                        let turned = square.transposed();
                        // The gradient of what is left of the probabilities, and of them all.
                        grads.copy_from_slice(scores);
                        self.drop_some(grads, (number, head));
                        multiply(
                            (to_v, view),
                            (grads, turned),
                            (grad, view),
                            1.0,
                            Onto::Nothing,
                        );
                        multiply(
                            (grads, square),
                            (grad, view),
                            (v, view.transposed()),
                            1.0,
                            Onto::Nothing,
                        );
                        self.drop_some(grads, (number, head));
                        vectorized(
                            #[inline(always)]
                            || {
                                let rows = grads.chunks_exact_mut(self.seq);
                                for (g, p) in rows.zip(scores.chunks_exact(self.seq)) {
                                    let mean = dot(g, p);
                                    g.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean));
                                }
                            },
                        );
                        multiply(
                            (to_q, view),
                            (grads, square),
                            (k, view),
                            scale,
                            Onto::Nothing,
                        );
                        multiply(
                            (to_k, view),
                            (grads, turned),
                            (q, view),
                            scale,
                            Onto::Nothing,
                        );
                    }
                },
            );
            let shape = inputs[0].shape();
            to.map(|to| Some(tensor(to, shape.clone())))
        }
    }
}
