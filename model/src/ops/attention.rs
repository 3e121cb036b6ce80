//! Scaled dot-product attention of encoders, decoders and between both.
//!
//! Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>; heads that share keys: Ainslie et al. 2023,
//! <https://arxiv.org/abs/2305.13245>.

use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::activation::softmax;

use crate::ops::dropout;
#[cfg(feature = "flex")]
use crate::ops::{fused, primitive, wrap};

/// Sizes of an attention: queries may be fewer than keys, and several heads of queries may share a head of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Texts.
    pub batch: usize,
    /// Queries of a text.
    pub queries: usize,
    /// Keys, and values, of a text.
    pub keys: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`. Head `i` of the queries sees head `i / (heads / kv_heads)`.
    pub kv_heads: usize,
}

impl AttentionShape {
    /// Self-attention of whole texts, every head with its own keys.
    pub fn square(batch: usize, seq: usize, heads: usize) -> Self {
        Self {
            batch,
            queries: seq,
            keys: seq,
            heads,
            kv_heads: heads,
        }
    }

    /// Heads of queries that share a head of keys.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// How scores become probabilities: the keys that each query may look at, and the scale of the scores.
#[derive(Clone, Debug, Default)]
pub struct AttentionMask<B: Backend> {
    /// Whether a query sees only the keys up to its own place. The queries are the last ones: query `i` sees the keys
    /// up to `keys - queries + i`.
    pub causal: bool,
    /// Added to the scores: any shape that broadcasts to `[batch, heads, queries, keys]`, such as `[batch, 1, 1, keys]`
    /// for padding or `[1, heads, queries, keys]` for relative positions. Values below -1e30 count as -1e30 (-3e4 in
    /// 16-bit floats): a query that sees no key gets the mean of all values.
    pub bias: Option<Tensor<B, 4>>,
    /// What the products of queries and keys are multiplied by; `1 / sqrt(d_head)` without one. T5 has 1.
    pub scale: Option<f64>,
}

/// `softmax(scale * q k^T + bias) v` for every head.
///
/// - q, out: `[batch * queries, heads * d_head]`
/// - k, v: `[batch * keys, kv_heads * d_head]`
/// - rate: share of the probabilities that is dropped while training
///
/// A bias that takes part in a gradient gets one; the fast version for Flex has none, so this one is then made of
/// tensor operations.
///
/// # Panics
///
/// If the tensors have other sizes than `shape` says, `kv_heads` does not divide `heads`, or a causal attention has
/// more queries than keys.
pub fn attention<B: Backend>(
    [q, k, v]: [Tensor<B, 2>; 3],
    mask: &AttentionMask<B>,
    shape: AttentionShape,
    rate: f64,
) -> Tensor<B, 2> {
    let bias = mask.bias.clone().map(|bias| bias.cast(q.dtype()));
    let dims = [q.dims(), k.dims(), v.dims()];
    check(dims, bias.as_ref().map(Tensor::dims), mask.causal, shape);
    let d_head = dims[0][1] / shape.heads;
    let scale = mask.scale.unwrap_or(1.0 / (d_head as f64).sqrt());
    let rate = dropout::in_training::<B>(rate, &q.device());
    #[cfg(feature = "flex")]
    if fused::takes::<B>(&[q.dtype(), k.dtype(), v.dtype()]) {
        let bias = bias.clone().map(primitive);
        if !bias.as_ref().is_some_and(fused::has_gradient::<B>) {
            let operation = fast::Attention {
                shape,
                causal: mask.causal,
                scale: scale as f32,
                bias: bias.map(|bias| fast::Bias::new(fused::values::<B>(bias), shape.keys)),
                mask: (rate > 0.0).then(|| dropout::Mask::draw(rate)),
            };
            let inputs = [q, k, v].map(primitive);
            return wrap(fused::apply::<B, _, 3>(operation, inputs));
        }
    }
    let mask = AttentionMask {
        causal: mask.causal,
        bias,
        scale: Some(scale),
    };
    plain([q, k, v], mask, shape, rate)
}

/// Panics where [`attention`] says so.
fn check(
    [q, k, v]: [[usize; 2]; 3],
    bias: Option<[usize; 4]>,
    causal: bool,
    shape: AttentionShape,
) {
    let AttentionShape {
        batch,
        queries,
        keys,
        heads,
        kv_heads,
    } = shape;
    assert!(
        kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads),
        "attention: {kv_heads} heads of keys do not divide {heads} heads of queries"
    );
    let d_head = q[1] / heads;
    let of_queries = [batch * queries, heads * d_head];
    assert_eq!(q, of_queries, "attention: the shape of q for {shape:?}");
    let of_keys = [batch * keys, kv_heads * d_head];
    assert_eq!(k, of_keys, "attention: the shape of k for {shape:?}");
    assert_eq!(v, of_keys, "attention: the shape of v for {shape:?}");
    assert!(
        !causal || queries <= keys,
        "attention: {queries} queries, the last of {keys} keys"
    );
    if let Some(bias) = bias {
        let full = [batch, heads, queries, keys];
        let fits = bias.iter().zip(full).all(|(&n, all)| n == all || n == 1);
        assert!(fits, "attention: a bias of {bias:?} for scores of {full:?}");
    }
}

/// The bias of a key that a query must not see, and the score of one that lies ahead: finite, so that a query without
/// any key gets no NaN, and the second far below the first.
fn lowest(dtype: DType) -> [f64; 2] {
    if dtype == DType::F16 {
        [-3e4, -6e4]
    } else {
        [-1e30, -3e38]
    }
}

/// The probabilities of [`attention`] alone: `softmax(scale * q k^T + bias)`.
///
/// - q: `[batch * queries, heads * d_head]`
/// - k: `[batch * keys, kv_heads * d_head]`
/// - out: `[batch, heads, queries, keys]`
///
/// # Panics
///
/// As [`attention`].
pub fn attention_weights<B: Backend>(
    [q, k]: [Tensor<B, 2>; 2],
    mask: &AttentionMask<B>,
    shape: AttentionShape,
) -> Tensor<B, 4> {
    let bias = mask.bias.clone().map(|bias| bias.cast(q.dtype()));
    let dims = [q.dims(), k.dims(), k.dims()];
    check(dims, bias.as_ref().map(Tensor::dims), mask.causal, shape);
    let mask = AttentionMask {
        bias,
        ..mask.clone()
    };
    probabilities([q, k], mask, shape)
}

/// The same as [`attention`], of tensor operations alone.
pub(crate) fn plain<B: Backend>(
    [q, k, v]: [Tensor<B, 2>; 3],
    mask: AttentionMask<B>,
    shape: AttentionShape,
    rate: f64,
) -> Tensor<B, 2> {
    let [rows, d_model] = q.dims();
    let mut probabilities = probabilities([q, k], mask, shape);
    if rate > 0.0 {
        probabilities = dropout::plain(probabilities, rate);
    }
    let context = probabilities.matmul(seen(v, shape));
    context.swap_dims(1, 2).reshape([rows, d_model])
}

/// Keys or values by head, `[batch, heads, keys, d_head]`: the head that a head of queries sees, once for each of them.
fn seen<B: Backend>(states: Tensor<B, 2>, shape: AttentionShape) -> Tensor<B, 4> {
    let AttentionShape {
        batch,
        keys,
        heads,
        kv_heads,
        ..
    } = shape;
    let [_, width] = states.dims();
    let d_head = width / kv_heads;
    let states = states.reshape([batch, keys, kv_heads, d_head]);
    let states = states.swap_dims(1, 2);
    if shape.group() == 1 {
        return states;
    }
    let copies: Tensor<B, 5> = states.unsqueeze_dim(2);
    let copies = copies.repeat_dim(2, shape.group());
    copies.reshape([batch, heads, keys, d_head])
}

/// `[batch, heads, queries, keys]`
fn probabilities<B: Backend>(
    [q, k]: [Tensor<B, 2>; 2],
    mask: AttentionMask<B>,
    shape: AttentionShape,
) -> Tensor<B, 4> {
    let AttentionShape {
        batch,
        queries,
        keys,
        heads,
        ..
    } = shape;
    let [_, d_model] = q.dims();
    let d_head = d_model / heads;
    let (device, [masked, ahead]) = (q.device(), lowest(q.dtype()));
    let scale = mask.scale.unwrap_or(1.0 / (d_head as f64).sqrt());
    let q = q.mul_scalar(scale).reshape([batch, queries, heads, d_head]);
    let mut scores = q.swap_dims(1, 2).matmul(seen(k, shape).transpose());
    if let Some(bias) = mask.bias {
        scores = scores + bias.clamp_min(masked);
    }
    if mask.causal {
        let offset = (keys - queries) as i64;
        let future = Tensor::<B, 2, Bool>::tril_mask([queries, keys], offset, &device);
        scores = scores.mask_fill(future.unsqueeze(), ahead);
    }
    softmax(scores, 3)
}

/// One head at a time, its probabilities in a scratch buffer: forward they are not kept, backward they are made anew.
#[cfg(feature = "flex")]
mod fast {
    use std::ops::Range;

    use burn::backend::flex::FlexTensor;
    use burn::tensor::TensorMetadata;
    use rayon::prelude::*;

    use super::AttentionShape;
    use crate::ops::dropout::Mask;
    use crate::ops::fused::{Fused, contiguous, slice, tensor};
    use crate::ops::matrix::{Onto, View, multiply};
    use crate::ops::simd::{dot, exp, max, sum, vectorized};

    /// Queries of a causal attention that are worked on together: few, as all of them see the keys of the last.
    const ROWS: usize = 64;
    /// Multiplications of queries and keys under which one thread is faster.
    const ALONE: usize = 1 << 16;

    /// What is added to the scores.
    #[derive(Debug)]
    pub(super) struct Bias {
        values: FlexTensor,
        /// Values from one text, head and query to the next; 0 where all have the same.
        steps: [usize; 3],
        keys: usize,
    }

    impl Bias {
        /// - bias: broadcasts to `[batch, heads, queries, keys]`, in any layout
        pub(super) fn new(mut bias: FlexTensor, keys: usize) -> Self {
            // What was expanded is kept once.
            for axis in 0..3 {
                let layout = bias.layout();
                if layout.strides()[axis] == 0 && layout.shape()[axis] > 1 {
                    bias = bias.narrow(axis, 0, 1);
                }
            }
            let values = contiguous(bias);
            let [texts, heads, queries, columns] = values.shape().dims();
            let step = |n: usize, step: usize| if n > 1 { step } else { 0 };
            let steps = [
                step(texts, heads * queries * columns),
                step(heads, queries * columns),
                step(queries, columns),
            ];
            if columns == keys {
                return Self {
                    values,
                    steps,
                    keys,
                };
            }
            // One value for all keys of a query.
            let copies = slice(&values).iter().flat_map(|&x| vec![x; keys]).collect();
            Self {
                values: tensor(copies, [texts, heads, queries, keys]),
                steps: steps.map(|step| step * keys),
                keys,
            }
        }

        fn row(&self, text: usize, head: usize, query: usize) -> &[f32] {
            let [to_text, to_head, to_query] = self.steps;
            let start = text * to_text + head * to_head + query * to_query;
            &slice(&self.values)[start..start + self.keys]
        }
    }

    #[derive(Debug)]
    pub(super) struct Attention {
        pub(super) shape: AttentionShape,
        pub(super) causal: bool,
        pub(super) scale: f32,
        pub(super) bias: Option<Bias>,
        pub(super) mask: Option<Mask>,
    }

    /// Some queries of one head of one text, and the keys that the last of them sees.
    #[derive(Clone, Debug)]
    struct Block {
        text: usize,
        head: usize,
        queries: Range<usize>,
        keys: usize,
    }

    impl Block {
        /// Their scores, row after row.
        fn scores(&self) -> View {
            View::whole(self.queries.len(), self.keys)
        }

        fn len(&self) -> usize {
            self.queries.len() * self.keys
        }
    }

    impl Attention {
        /// Queries that are worked on together.
        fn rows(&self) -> usize {
            if self.causal {
                self.shape.queries.min(ROWS)
            } else {
                self.shape.queries
            }
        }

        /// Scores that are held at a time.
        fn scratch(&self) -> Vec<f32> {
            vec![0.0; self.rows() * self.shape.keys]
        }

        /// Of one text, head after head.
        fn blocks(&self, text: usize) -> impl Iterator<Item = Block> {
            let AttentionShape { queries, heads, .. } = self.shape;
            let firsts = move || (0..queries).step_by(self.rows().max(1));
            let places = (0..heads).flat_map(move |head| firsts().map(move |first| (head, first)));
            places.map(move |(head, first)| {
                let end = (first + self.rows()).min(queries);
                Block {
                    text,
                    head,
                    queries: first..end,
                    keys: self.seen(end - 1),
                }
            })
        }

        /// Keys that a query sees.
        fn seen(&self, query: usize) -> usize {
            let AttentionShape { queries, keys, .. } = self.shape;
            if self.causal {
                keys - queries + query + 1
            } else {
                keys
            }
        }

        fn d_head(&self, of_text: usize) -> usize {
            of_text / (self.shape.queries * self.shape.heads)
        }

        /// The queries of a block inside `[queries, heads * d_head]`.
        fn of_queries(&self, block: &Block, d_head: usize) -> View {
            let row = self.shape.heads * d_head;
            View {
                rows: block.queries.len(),
                columns: d_head,
                start: block.queries.start * row + block.head * d_head,
                row,
                column: 1,
            }
        }

        /// The keys of a block inside `[keys, kv_heads * d_head]`.
        fn of_keys(&self, block: &Block, d_head: usize) -> View {
            View {
                rows: block.keys,
                columns: d_head,
                start: block.head / self.shape.group() * d_head,
                row: self.shape.kv_heads * d_head,
                column: 1,
            }
        }

        /// The probabilities of a block, of the queries and keys of its text.
        fn probabilities(&self, out: &mut [f32], q: &[f32], k: &[f32], block: &Block) {
            let d_head = self.d_head(q.len());
            multiply(
                (out, block.scores()),
                (q, self.of_queries(block, d_head)),
                (k, self.of_keys(block, d_head).transposed()),
                self.scale,
                Onto::Nothing,
            );
            vectorized(
                #[inline(always)]
                || {
                    let rows = out.chunks_exact_mut(block.keys);
                    for (row, query) in rows.zip(block.queries.clone()) {
                        let (row, ahead) = row.split_at_mut(self.seen(query));
                        if let Some(bias) = &self.bias {
                            let bias = bias.row(block.text, block.head, query);
                            row.iter_mut()
                                .zip(bias)
                                .for_each(|(x, bias)| *x += at_least(-1e30, *bias));
                        }
                        let top = max(row);
                        row.iter_mut().for_each(|x| *x = exp(*x - top));
                        let share = 1.0 / sum(row);
                        row.iter_mut().for_each(|x| *x *= share);
                        ahead.fill(0.0);
                    }
                },
            );
        }

        /// Drops of the probabilities of a block what its mask drops.
        fn drop_some(&self, out: &mut [f32], block: &Block) {
            let Some(mask) = self.mask else {
                return;
            };
            let AttentionShape {
                queries,
                keys,
                heads,
                ..
            } = self.shape;
            let first = (block.text * heads + block.head) * queries;
            vectorized(
                #[inline(always)]
                || {
                    let rows = out.chunks_exact_mut(block.keys);
                    for (row, query) in rows.zip(block.queries.clone()) {
                        let mut place = ((first + query) * keys) as u64;
                        for x in row {
                            *x *= mask.factor(place);
                            place = place.wrapping_add(1);
                        }
                    }
                },
            );
        }

        /// Whether several blocks add to the gradient of the same keys.
        fn onto_keys(&self) -> Onto {
            if self.causal || self.shape.group() > 1 {
                Onto::Values
            } else {
                Onto::Nothing
            }
        }

        /// The result of a block, in a view of `out`.
        fn result(
            &self,
            block: &Block,
            scores: &mut [f32],
            [q, k, v]: [&[f32]; 3],
            (out, view): (&mut [f32], View),
        ) {
            let scores = &mut scores[..block.len()];
            self.probabilities(scores, q, k, block);
            self.drop_some(scores, block);
            multiply(
                (out, view),
                (scores, block.scores()),
                (v, self.of_keys(block, self.d_head(q.len()))),
                1.0,
                Onto::Nothing,
            );
        }

        /// The results of all texts, one text at a time.
        fn texts(&self, [q, k, v]: [&[f32]; 3], out: &mut [f32]) {
            let batch = self.shape.batch;
            let (of_q, of_k) = (q.len() / batch, k.len() / batch);
            let texts = out.par_chunks_mut(of_q).zip(q.par_chunks(of_q));
            let texts = texts.zip(k.par_chunks(of_k).zip(v.par_chunks(of_k)));
            texts.enumerate().for_each_init(
                || self.scratch(),
                |scores, (text, ((out, q), (k, v)))| {
                    for block in self.blocks(text) {
                        let view = self.of_queries(&block, self.d_head(q.len()));
                        self.result(&block, scores, [q, k, v], (out, view));
                    }
                },
            );
        }

        /// The results of one query a text, as a cache of keys leaves them: a head at a time, as there are few texts.
        fn heads(&self, [q, k, v]: [&[f32]; 3], out: &mut [f32]) {
            let AttentionShape {
                batch, heads, keys, ..
            } = self.shape;
            let (of_q, of_k) = (q.len() / batch, k.len() / batch);
            let d_head = of_q / heads;
            let places = out.par_chunks_mut(d_head).enumerate();
            let places = places.with_min_len(ALONE / (keys * d_head));
            places.for_each_init(
                || self.scratch(),
                |scores, (place, out)| {
                    let (text, head) = (place / heads, place % heads);
                    let block = Block {
                        text,
                        head,
                        queries: 0..1,
                        keys,
                    };
                    let q = &q[text * of_q..(text + 1) * of_q];
                    let [k, v] = [k, v].map(|all| &all[text * of_k..(text + 1) * of_k]);
                    self.result(&block, scores, [q, k, v], (out, View::whole(1, d_head)));
                },
            );
        }

        /// The gradients of one text.
        ///
        /// - to_q, to_k, to_v: zeros
        fn gradients(
            &self,
            text: usize,
            [scores, grads]: [&mut [f32]; 2],
            [q, k, v, grad]: [&[f32]; 4],
            [to_q, to_k, to_v]: [&mut [f32]; 3],
        ) {
            let (d_head, onto) = (self.d_head(q.len()), self.onto_keys());
            for block in self.blocks(text) {
                let n = block.len();
                let (scores, grads) = (&mut scores[..n], &mut grads[..n]);
                let (square, turned) = (block.scores(), block.scores().transposed());
                let of_queries = self.of_queries(&block, d_head);
                let of_keys = self.of_keys(&block, d_head);
                self.probabilities(scores, q, k, &block);
                // The gradient of what is left of the probabilities, and of them all.
                grads.copy_from_slice(scores);
                self.drop_some(grads, &block);
                multiply(
                    (to_v, of_keys),
                    (grads, turned),
                    (grad, of_queries),
                    1.0,
                    onto,
                );
                multiply(
                    (grads, square),
                    (grad, of_queries),
                    (v, of_keys.transposed()),
                    1.0,
                    Onto::Nothing,
                );
                self.drop_some(grads, &block);
                vectorized(
                    #[inline(always)]
                    || to_scores(grads, scores, block.keys),
                );
                multiply(
                    (to_q, of_queries),
                    (grads, square),
                    (k, of_keys),
                    self.scale,
                    Onto::Nothing,
                );
                multiply(
                    (to_k, of_keys),
                    (grads, turned),
                    (q, of_queries),
                    self.scale,
                    onto,
                );
            }
        }
    }

    /// The larger of both; NaN stays.
    #[inline(always)]
    fn at_least(low: f32, x: f32) -> f32 {
        if x < low { low } else { x }
    }

    /// The gradient of the scores in the place of that of the probabilities.
    #[inline(always)]
    fn to_scores(grads: &mut [f32], probabilities: &[f32], keys: usize) {
        let rows = grads.chunks_exact_mut(keys);
        for (g, p) in rows.zip(probabilities.chunks_exact(keys)) {
            let mean = dot(g, p);
            g.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean));
        }
    }

    impl Fused<3> for Attention {
        type Saved = [FlexTensor; 3];

        fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, [FlexTensor; 3]) {
            let inputs = inputs.map(contiguous);
            let [q, k, v] = inputs.each_ref().map(slice);
            let mut out = vec![0.0; q.len()];
            if !(q.is_empty() || k.is_empty()) {
                if self.shape.queries == 1 {
                    self.heads([q, k, v], &mut out);
                } else {
                    self.texts([q, k, v], &mut out);
                }
            }
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
            let mut to = [q, k, v].map(|x| vec![0.0; x.len()]);
            if !(q.is_empty() || k.is_empty()) {
                let batch = self.shape.batch;
                let (of_q, of_k) = (q.len() / batch, k.len() / batch);
                let [to_q, to_k, to_v] = &mut to;
                let texts = to_q.par_chunks_mut(of_q);
                let texts = texts.zip(to_k.par_chunks_mut(of_k).zip(to_v.par_chunks_mut(of_k)));
                texts.enumerate().for_each_init(
                    || [(); 2].map(|()| self.scratch()),
                    |scratch, (text, (to_q, (to_k, to_v)))| {
                        let queries = text * of_q..(text + 1) * of_q;
                        let keys = text * of_k..(text + 1) * of_k;
                        let [q, grad] = [q, grad].map(|all| &all[queries.clone()]);
                        let [k, v] = [k, v].map(|all| &all[keys.clone()]);
                        let scratch = scratch.each_mut().map(Vec::as_mut_slice);
                        self.gradients(text, scratch, [q, k, v, grad], [to_q, to_k, to_v]);
                    },
                );
            }
            let [to_q, to_k, to_v] = to;
            let [q, k, v] = inputs.map(|input| input.shape());
            [
                Some(tensor(to_q, q)),
                Some(tensor(to_k, k)),
                Some(tensor(to_v, v)),
            ]
        }
    }
}
