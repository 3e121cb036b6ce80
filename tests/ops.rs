//! Operations that have a faster version on Flex: values and gradients against plain tensor operations in double
//! precision, at sizes that no vector and no thread divides.
//!
//! A separate test program: a backend has one float type in a process, and these need double precision.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::sync::{Mutex, PoisonError};
use std::thread;

use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::backend::{Autodiff, Flex, NdArray};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::ops::recurrent::{Cell, Span};
use model::ops::{self, Activation, AdamW, AttentionMask, AttentionShape, Geometry};

type Fast = Autodiff<Flex>;
type Plain = Autodiff<NdArray<f64>>;

/// An operation on matrices.
trait Operation {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2>;
}

/// Numbers around 0, some of them large, the same ones every time.
fn numbers(n: usize, salt: usize) -> Vec<f64> {
    let number = |i: usize| {
        let x = ((i * 7919 + salt * 104_729) % 10_007) as f64 / 10_007.0 - 0.5;
        f64::from((x * if i.is_multiple_of(13) { 12.0 } else { 3.0 }) as f32)
    };
    (0..n).map(number).collect()
}

/// The result, and the gradients of its sum weighted unevenly.
fn results<B: AutodiffBackend>(operation: &impl Operation, shapes: &[[usize; 2]]) -> Vec<Vec<f64>> {
    let device = Default::default();
    let input = |(salt, &[rows, columns]): (usize, &[usize; 2])| {
        let data = TensorData::new(numbers(rows * columns, salt), [rows, columns]);
        Tensor::<B, 2>::from_data(data.convert::<B::FloatElem>(), &device).require_grad()
    };
    let inputs: Vec<_> = shapes.iter().enumerate().map(input).collect();
    let output = operation.run(inputs.clone());
    let [rows, columns] = output.dims();
    let data = TensorData::new(numbers(rows * columns, 9), [rows, columns]);
    let weights = Tensor::from_data(data.convert::<B::FloatElem>(), &device);
    let grads = (output.clone() * weights).sum().backward();
    let floats = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
    let gradients = inputs
        .iter()
        .map(|input| floats(input.grad(&grads).unwrap().into_data()));
    let mut all = vec![floats(output.into_data())];
    all.extend(gradients);
    all
}

fn assert_near(what: &str, fast: &[f64], plain: &[f64]) {
    assert_eq!(fast.len(), plain.len());
    let size = plain.iter().map(|x| x.abs()).fold(1e-3, f64::max);
    for (at, (fast, plain)) in fast.iter().zip(plain).enumerate() {
        let off = (fast - plain).abs();
        assert!(off < 3e-6 * size, "{what}, {at}: {fast}, not {plain}");
    }
}

fn check(what: &str, operation: impl Operation, shapes: &[[usize; 2]]) {
    let plain = results::<Plain>(&operation, shapes);
    let fast = results::<Fast>(&operation, shapes);
    for (part, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
        assert_near(&format!("{what} {shapes:?}, part {part}"), fast, plain);
    }
    assert_eq!(
        fast,
        results::<Fast>(&operation, shapes),
        "the same every time"
    );
    assert_eq!(
        fast,
        results::<Autodiff<Flex, BalancedCheckpointing>>(&operation, shapes),
        "the same where some of it is computed twice"
    );
}

impl Operation for Activation {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        self.apply(inputs[0].clone())
    }
}

#[derive(Clone, Copy)]
struct Linear {
    transposed: bool,
}
impl Operation for Linear {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [x, weight] = [0, 1].map(|at| inputs[at].clone());
        let bias = inputs[2].clone().flatten(0, 1);
        if self.transposed {
            ops::linear_transposed(x, weight, bias)
        } else {
            ops::linear(x, weight, bias)
        }
    }
}

#[derive(Clone, Copy)]
struct Norm {
    of_sum: bool,
}
impl Operation for Norm {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [gamma, beta] = [0, 1].map(|at| inputs[at].clone().flatten(0, 1));
        let x = inputs[2].clone();
        if self.of_sum {
            ops::layer_norm_of_sum([x, inputs[3].clone()], gamma, beta, 1e-5, 0.0)
        } else {
            ops::layer_norm(x, gamma, beta, 1e-5)
        }
    }
}

#[derive(Clone, Copy)]
struct Attention {
    shape: AttentionShape,
    causal: bool,
    bias: Option<BiasOf>,
}

/// A bias along some axes, `[batch, heads, queries, keys]`, one of all values that comes in place of the others.
#[derive(Clone, Copy)]
struct BiasOf {
    along: [bool; 4],
    layout: Layout,
}

/// How the values of a tensor lie in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    /// Row after row.
    Whole,
    /// The first axis innermost.
    Turned,
    /// Rows inside the longer rows of a larger tensor.
    Part,
    /// Row after row, behind the rows of a larger tensor.
    Behind,
    /// The first place of the first axis, everywhere along it, without more memory.
    Expanded,
}

const LAYOUTS: [Layout; 5] = [
    Layout::Whole,
    Layout::Turned,
    Layout::Part,
    Layout::Behind,
    Layout::Expanded,
];

/// The same values in another layout; expanded, those of the first place alone.
fn laid<B: Backend, const D: usize>(x: Tensor<B, D>, layout: Layout) -> Tensor<B, D> {
    let last = D - 1;
    match layout {
        Layout::Whole => x,
        Layout::Turned => {
            let turned = x.swap_dims(0, last);
            let dims = turned.dims();
            let n: usize = dims.iter().product();
            // Flattened, the values are copied.
            turned.reshape([n]).reshape(dims).swap_dims(0, last)
        }
        Layout::Part => {
            let n = x.dims()[last];
            Tensor::cat(vec![x.clone(), x + 1.0], last).narrow(last, 0, n)
        }
        Layout::Behind => {
            let n = x.dims()[0];
            Tensor::cat(vec![x.clone() + 1.0, x], 0).narrow(0, n, n)
        }
        Layout::Expanded => {
            let dims = x.dims();
            x.narrow(0, 0, 1).expand(dims)
        }
    }
}

/// An operation whose inputs lie in memory in one of these ways, or the same values row after row.
struct InLayout<O> {
    of: O,
    layout: Layout,
    copied: bool,
}

impl<O: Operation> Operation for InLayout<O> {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let input = |x: Tensor<B, 2>| {
            let x = laid(x, self.layout);
            let [rows, columns] = x.dims();
            if self.copied {
                x.reshape([rows * columns]).reshape([rows, columns])
            } else {
                x
            }
        };
        self.of.run(inputs.into_iter().map(input).collect())
    }
}

/// Every layout of the inputs gives the same bits as their values row after row.
fn check_layouts<O: Operation + Copy>(what: &str, of: O, shapes: &[[usize; 2]]) {
    for layout in LAYOUTS {
        let [laid, copied] = [false, true].map(|copied| {
            let operation = InLayout { of, layout, copied };
            results::<Fast>(&operation, shapes)
        });
        assert_eq!(laid, copied, "{what}, {layout:?}");
    }
}

impl BiasOf {
    fn tensor<B: Backend>(self, shape: AttentionShape) -> Tensor<B, 4> {
        let full = [shape.batch, shape.heads, shape.queries, shape.keys];
        let dims = [0, 1, 2, 3].map(|axis| if self.along[axis] { full[axis] } else { 1 });
        let mut values = numbers(dims.iter().product(), 5);
        // Some keys are not seen.
        let hidden = values.iter_mut().skip(1).step_by(3);
        hidden.for_each(|value| *value = -1e30);
        let data = TensorData::new(values, dims).convert::<B::FloatElem>();
        let bias = Tensor::<B, 4>::from_data(data, &Default::default());
        if self.layout == Layout::Expanded {
            bias.expand(full)
        } else {
            laid(bias, self.layout)
        }
    }
}

impl Operation for Attention {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [q, k, v] = [0, 1, 2].map(|at| inputs[at].clone());
        let mask = AttentionMask {
            causal: self.causal,
            bias: self.bias.map(|bias| bias.tensor(self.shape)),
            scale: None,
        };
        ops::attention([q, k, v], &mask, self.shape, 0.0)
    }
}

impl Attention {
    fn check(self, what: &str, d_head: usize) {
        let AttentionShape {
            batch,
            queries,
            keys,
            heads,
            kv_heads,
        } = self.shape;
        let of_keys = [batch * keys, kv_heads * d_head];
        let shapes = [[batch * queries, heads * d_head], of_keys, of_keys];
        check(&format!("{what} {:?}", self.shape), self, &shapes);
    }
}

/// Sizes as `[batch, queries, keys, heads, kv_heads]`.
fn sizes([batch, queries, keys, heads, kv_heads]: [usize; 5]) -> AttentionShape {
    AttentionShape {
        batch,
        queries,
        keys,
        heads,
        kv_heads,
    }
}

/// Images as rows: a convolution there, or a transposed one.
#[derive(Clone, Copy)]
struct Convolution {
    transposed: bool,
    channels: [usize; 2],
    size: [usize; 2],
    kernel: [usize; 2],
    geometry: Geometry,
    /// Of a transposed one.
    padding_out: [usize; 2],
    /// Of images and weights.
    layout: Layout,
}
impl Operation for Convolution {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let &Self {
            channels: [d_in, d_out],
            size: [height, width],
            kernel: [down, right],
            geometry,
            padding_out,
            layout,
            ..
        } = self;
        let [x, weight] = [0, 1].map(|at| inputs[at].clone());
        let [batch, _] = x.dims();
        let x = laid(x.reshape([batch, d_in, height, width]), layout);
        let bias = Some(inputs[2].clone().flatten(0, 1));
        let out = if self.transposed {
            let weight = weight.reshape([d_in, d_out / geometry.groups, down, right]);
            let weight = laid(weight, layout);
            ops::conv_transpose2d(x, weight, bias, geometry, padding_out)
        } else {
            let weight = weight.reshape([d_out, d_in / geometry.groups, down, right]);
            let weight = laid(weight, layout);
            ops::conv2d(x, weight, bias, geometry)
        };
        let [_, channels, height, width] = out.dims();
        out.reshape([batch * channels, height * width])
    }
}

impl Convolution {
    /// Of images, weights and bias.
    fn shapes(&self, batch: usize) -> [[usize; 2]; 3] {
        let [d_in, d_out] = self.channels;
        let ([height, width], [down, right]) = (self.size, self.kernel);
        [
            [batch, d_in * height * width],
            [d_in / self.geometry.groups, d_out * down * right],
            [1, d_out],
        ]
    }
}

#[derive(Clone, Copy, Debug)]
enum Pooling {
    Max,
    Mean { count_include_pad: bool },
    Whole,
}

/// Maps as rows, pooled.
#[derive(Clone, Copy)]
struct Pooled {
    of: Pooling,
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    layout: Layout,
}
impl Operation for Pooled {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let &Self {
            of,
            size: [height, width],
            kernel,
            stride,
            padding,
            layout,
        } = self;
        let [maps, _] = inputs[0].dims();
        let x = inputs[0].clone().reshape([maps / 3, 3, height, width]);
        let x = laid(x, layout);
        let out = match of {
            Pooling::Max => ops::max_pool2d(x, kernel, stride, padding),
            Pooling::Mean { count_include_pad } => {
                ops::avg_pool2d(x, kernel, stride, padding, count_include_pad)
            }
            Pooling::Whole => return ops::global_avg_pool(x),
        };
        let [batch, channels, height, width] = out.dims();
        out.reshape([batch * channels, height * width])
    }
}

impl Pooled {
    fn shapes(&self, batch: usize) -> [[usize; 2]; 1] {
        [[batch * 3, self.size[0] * self.size[1]]]
    }
}

const POOLED: Pooled = Pooled {
    of: Pooling::Max,
    size: [7, 10],
    kernel: [3, 2],
    stride: [2, 1],
    padding: [1, 0],
    layout: Layout::Whole,
};

const POOLINGS: [Pooling; 4] = [
    Pooling::Max,
    Pooling::Mean {
        count_include_pad: true,
    },
    Pooling::Mean {
        count_include_pad: false,
    },
    Pooling::Whole,
];

#[derive(Clone, Copy)]
struct CrossEntropy;
impl Operation for CrossEntropy {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [n, n_classes] = inputs[0].dims();
        ops::cross_entropy(inputs[0].clone(), &classes(n, n_classes)).unsqueeze_dim(1)
    }
}

/// Losses of a projection, and in a second row its hits.
#[derive(Clone, Copy)]
struct LinearCrossEntropy {
    with_bias: bool,
}
impl Operation for LinearCrossEntropy {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [hidden, table] = [0, 1].map(|at| inputs[at].clone());
        let bias: Tensor<B, 1> = inputs[2].clone().flatten(0, 1);
        let ([n, _], [vocab, _]) = (hidden.dims(), table.dims());
        let targets = classes(n, vocab);
        // Without it the bias has a gradient all the same, for `check`.
        let idle = bias.clone().sum() * 0.0;
        let bias = self.with_bias.then_some(bias);
        let (losses, hits) = ops::linear_cross_entropy(hidden, table, bias, &targets);
        Tensor::stack(vec![losses + idle, hits], 0)
    }
}

/// The same of the logits.
struct Unchunked;
impl Operation for Unchunked {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [hidden, table] = [0, 1].map(|at| inputs[at].clone());
        let ([n, _], [vocab, _]) = (hidden.dims(), table.dims());
        let targets = classes(n, vocab);
        let logits = ops::linear_transposed(hidden, table, inputs[2].clone().flatten(0, 1));
        let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
        let ids = Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [n]), &logits.device());
        let hits = logits.clone().detach().argmax(1).reshape([n]).equal(ids);
        let losses = ops::cross_entropy(logits, &targets);
        Tensor::stack(vec![losses, hits.float()], 0)
    }
}

/// A class for each of `n` rows.
fn classes(n: usize, n_classes: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 31 % n_classes) as u32).collect()
}

#[test]
fn activations_are_those_of_double_precision() {
    for activation in [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Relu6,
        Activation::Silu,
    ] {
        for shape in [[1, 1], [3, 17], [211, 130]] {
            check(activation.name(), activation, &[shape]);
        }
    }
}

#[test]
fn clipping_changes_no_input_that_somebody_holds() {
    let device = Default::default();
    let values = [-1.0, 0.5, 7.0, f32::NAN];
    for (activation, most) in [(Activation::Relu, 7.0), (Activation::Relu6, 6.0)] {
        let x = Tensor::<Fast, 1>::from_data(values, &device);
        let [held, last] = [0, 1].map(|at| x.clone().narrow(0, 2 * at, 2));
        let out = activation.apply(x.clone()).into_data();
        let alone = activation.apply(Tensor::<Fast, 1>::from_data(values, &device));
        for out in [out, alone.into_data()] {
            let out: Vec<f32> = out.iter().collect();
            assert_eq!(out[..3], [0.0, 0.5, most]);
            assert!(out[3].is_nan());
        }
        activation.apply(last);
        assert_eq!(
            held.into_data().iter::<f32>().collect::<Vec<_>>(),
            values[..2]
        );
        assert_eq!(x.into_data().iter::<f32>().nth(2), Some(7.0));
    }
}

#[test]
fn linear_is_that_of_double_precision() {
    for [n, d_in, d_out] in [[1, 1, 1], [5, 3, 17], [70, 33, 65], [300, 130, 61]] {
        let (x, bias) = ([n, d_in], [1, d_out]);
        let transposed = false;
        check("linear", Linear { transposed }, &[x, [d_in, d_out], bias]);
        let transposed = true;
        check(
            "transposed",
            Linear { transposed },
            &[x, [d_out, d_in], bias],
        );
    }
}

#[test]
fn layer_norm_is_that_of_double_precision() {
    for [n, d] in [[1, 3], [5, 16], [37, 33], [700, 65]] {
        let of_sum = false;
        check("layer norm", Norm { of_sum }, &[[1, d], [1, d], [n, d]]);
        let of_sum = true;
        check(
            "layer norm of a sum",
            Norm { of_sum },
            &[[1, d], [1, d], [n, d], [n, d]],
        );
    }
}

/// Batch normalisation of images `[batch, channels, height, width]`, by their own statistics or by given ones.
#[derive(Clone, Copy)]
struct BatchNorm {
    shape: [usize; 4],
    frozen: bool,
}

impl BatchNorm {
    fn shapes(&self) -> [[usize; 2]; 3] {
        let [batch, channels, height, width] = self.shape;
        [
            [batch * channels, height * width],
            [1, channels],
            [1, channels],
        ]
    }
}

impl Operation for BatchNorm {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [batch, channels, height, width] = self.shape;
        let x = inputs[0].clone().reshape(self.shape);
        let [gamma, beta] = [1, 2].map(|at| inputs[at].clone().reshape([channels]));
        let out = if self.frozen {
            let statistic = |salt| {
                let values = numbers(channels, salt)
                    .iter()
                    .map(|x| x.abs() + 0.5)
                    .collect::<Vec<_>>();
                let data = TensorData::new(values, [channels]).convert::<B::FloatElem>();
                Tensor::from_data(data, &x.device())
            };
            ops::batch_norm_frozen(x.clone(), [statistic(5), statistic(6)], gamma, beta, 1e-3)
        } else {
            ops::batch_norm(x, gamma, beta, 1e-3).0
        };
        out.reshape([batch * channels, height * width])
    }
}

#[test]
fn batch_norm_is_that_of_double_precision() {
    for shape in [
        [4, 3, 5, 2],
        [5, 2, 1, 1],
        [1, 7, 3, 3],
        [3, 40, 17, 31],
        [64, 5, 1, 1],
    ] {
        for frozen in [false, true] {
            let norm = BatchNorm { shape, frozen };
            let what = format!("batch norm of {shape:?}, frozen: {frozen}");
            check(&what, norm, &norm.shapes());
        }
    }
}

#[test]
fn a_large_mean_takes_no_digits_from_the_variance() {
    let device = Default::default();
    let values: Vec<f32> = (0..3000).map(|i| 1000.0 + (i % 7) as f32).collect();
    let x = Tensor::<Flex, 1>::from_floats(&values[..], &device).reshape([10, 1, 300]);
    let one = Tensor::ones([1], &device);
    let (_, mean, variance) = ops::batch_norm(x, one.clone(), one, 0.0);
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), &x| {
        (sum + f64::from(x), squares + f64::from(x) * f64::from(x))
    });
    let exact = squares / 3000.0 - (sum / 3000.0).powi(2);
    assert!((f64::from(mean.into_scalar()) - sum / 3000.0).abs() < 1e-4);
    assert!((f64::from(variance.into_scalar()) - exact).abs() < 1e-4);
}

#[test]
fn attention_is_that_of_double_precision() {
    for [batch, seq, heads, d_head] in [[1, 1, 1, 1], [3, 7, 2, 5], [4, 33, 3, 16]] {
        for padded in [false, batch > 1] {
            let operation = Attention {
                shape: AttentionShape::square(batch, seq, heads),
                causal: false,
                bias: padded.then_some(BiasOf {
                    along: [true, false, false, true],
                    layout: Layout::Whole,
                }),
            };
            operation.check("attention", d_head);
        }
    }
}

#[test]
fn attention_of_decoders_is_that_of_double_precision() {
    for causal in [false, true] {
        for shape in [
            // As many keys as queries: less than one block of a causal attention, one, and parts of one.
            [1, 1, 1, 1, 1],
            [3, 7, 7, 2, 2],
            [2, 64, 64, 2, 1],
            [2, 131, 131, 1, 1],
            // The queries that a cache lacks.
            [2, 1, 9, 3, 3],
            [3, 1, 70, 4, 2],
            [2, 5, 70, 6, 2],
            [1, 65, 200, 2, 1],
        ] {
            let shape = sizes(shape);
            let operation = Attention {
                shape,
                causal,
                bias: None,
            };
            operation.check(&format!("causal: {causal}"), 5);
        }
    }
    // More queries than keys.
    let operation = Attention {
        shape: sizes([2, 9, 4, 6, 3]),
        causal: false,
        bias: None,
    };
    operation.check("cross", 16);
}

#[test]
fn a_bias_of_any_shape_and_layout_is_added_to_the_scores() {
    for along in 0..16 {
        for layout in LAYOUTS {
            for (causal, shape) in [(false, [3, 5, 7, 4, 2]), (true, [2, 66, 67, 2, 2])] {
                let along = [0, 1, 2, 3].map(|axis| along >> axis & 1 == 1);
                let operation = Attention {
                    shape: sizes(shape),
                    causal,
                    bias: Some(BiasOf { along, layout }),
                };
                operation.check(&format!("bias along {along:?}"), 3);
            }
        }
    }
}

/// Attention whose bias is the fourth input.
struct Biased(AttentionShape);
impl Operation for Biased {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let AttentionShape {
            heads,
            queries,
            keys,
            ..
        } = self.0;
        let [q, k, v, bias] = [0, 1, 2, 3].map(|at| inputs[at].clone());
        let mask = AttentionMask {
            causal: true,
            bias: Some(bias.reshape([1, heads, queries, keys])),
            scale: Some(0.2),
        };
        ops::attention([q, k, v], &mask, self.0, 0.0)
    }
}

#[test]
fn a_bias_with_a_gradient_gets_it() {
    let shape = sizes([2, 5, 6, 4, 2]);
    let shapes = [[10, 12], [12, 6], [12, 6], [4, 30]];
    check("bias", Biased(shape), &shapes);
}

#[test]
fn a_causal_query_sees_the_keys_up_to_its_own_and_the_heads_of_its_group() {
    // Equal scores and the identity as values: out come the probabilities, 1 / n where n keys are seen.
    fn seen<B: Backend>() {
        let shape = sizes([1, 2, 4, 4, 2]);
        let device = Default::default();
        let q = Tensor::<B, 2>::zeros([2, 16], &device);
        let k = Tensor::<B, 2>::zeros([4, 8], &device);
        let v = Tensor::<B, 2>::eye(4, &device);
        let v = Tensor::cat(vec![v.clone(), v * 2.0], 1);
        let mask = AttentionMask {
            causal: true,
            ..AttentionMask::default()
        };
        let out = ops::attention([q, k, v], &mask, shape, 0.0);
        let out: Vec<f64> = out.into_data().iter::<f64>().collect();
        let third = 1.0 / 3.0;
        for (query, row) in [[third, third, third, 0.0], [0.25; 4]].iter().enumerate() {
            for head in 0..4 {
                let of_group = [1.0, 1.0, 2.0, 2.0][head];
                for key in 0..4 {
                    let expected = row[key] * of_group;
                    let computed = out[query * 16 + head * 4 + key];
                    assert!((computed - expected).abs() < 1e-6, "{query} {head} {key}");
                }
            }
        }
    }
    seen::<Flex>();
    seen::<NdArray<f64>>();
}

#[test]
fn a_query_that_sees_no_key_gets_the_mean_of_all_and_no_nan() {
    fn means<B: AutodiffBackend>(causal: bool, hidden: f64) {
        let shape = AttentionShape::square(1, 3, 1);
        let device = Default::default();
        let tensor = |values: [f64; 3]| {
            let data = TensorData::new(values.to_vec(), [3, 1]).convert::<B::FloatElem>();
            Tensor::<B, 2>::from_data(data, &device).require_grad()
        };
        let inputs = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [3.0, 6.0, 12.0]].map(tensor);
        // The first query sees nothing, the others the last key, where it is not ahead of them.
        let nothing = [hidden; 3];
        let last = [hidden, hidden, 0.0];
        let bias = [nothing, last, last].concat();
        let bias = TensorData::new(bias, [1, 1, 3, 3]).convert::<B::FloatElem>();
        let mask = AttentionMask {
            causal,
            bias: Some(Tensor::from_data(bias, &device)),
            scale: None,
        };
        let out = ops::attention(inputs.clone(), &mask, shape, 0.0);
        let expected = if causal {
            [3.0, 4.5, 12.0]
        } else {
            [7.0, 12.0, 12.0]
        };
        let grads = out.clone().sum().backward();
        for (out, expected) in out.into_data().iter::<f64>().zip(expected) {
            assert!(
                (out - expected).abs() < 1e-5,
                "{hidden}: {out}, not {expected}"
            );
        }
        for input in inputs {
            let gradient = input.grad(&grads).unwrap().into_data();
            assert!(gradient.iter::<f64>().all(f64::is_finite));
        }
    }
    for causal in [false, true] {
        for hidden in [-1e30, -2e30, f64::NEG_INFINITY] {
            means::<Fast>(causal, hidden);
            means::<Plain>(causal, hidden);
        }
    }
}

#[test]
fn batch_norm_has_the_same_bits_on_any_number_of_threads() {
    let norm = BatchNorm {
        shape: [6, 11, 23, 19],
        frozen: false,
    };
    let run = || results::<Fast>(&norm, &norm.shapes());
    assert_eq!(with_threads(1, run), with_threads(3, run));
}

/// A layer on `batch` rows of `seq` tokens, `d_input` wide, with `d_hidden` units.
#[derive(Clone, Copy)]
struct Recurrent {
    cell: Cell,
    sizes: [usize; 4],
    /// Whether rows hold several texts.
    several: bool,
    /// Whether it goes on from a state.
    carries: bool,
    layout: Layout,
}

impl Recurrent {
    /// Of inputs, both weights, both biases, and the state.
    fn shapes(&self) -> [[usize; 2]; 6] {
        let [batch, seq, d_input, d_hidden] = self.sizes;
        let gates = self.cell.gates() * d_hidden;
        [
            [batch * seq, d_input],
            [gates, d_input],
            [gates, d_hidden],
            [1, gates],
            [1, gates],
            [batch, self.cell.states() * d_hidden],
        ]
    }

    fn check(self, what: &str) {
        let inputs = if self.carries { 6 } else { 5 };
        check(what, self, &self.shapes()[..inputs]);
    }
}

impl Operation for Recurrent {
    /// States, and below them what is left, `d_hidden` values a row.
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [batch, seq, d_input, d_hidden] = self.sizes;
        // Weights about as large as PyTorch draws them, or most gates are shut.
        let scaled = |at: usize, by: f64| laid(inputs[at].clone() * by, self.layout);
        let weight = |at, n: usize| scaled(at, 0.5 / (n as f64).sqrt());
        let device = inputs[0].device();
        let keep = |at: usize| if at % 5 == 2 { 0.0 } else { 1.0 };
        let keep: Vec<f64> = (0..batch * seq).map(keep).collect();
        let keep = TensorData::new(keep, [batch, seq]).convert::<B::FloatElem>();
        let keep = self.several.then(|| Tensor::from_data(keep, &device));
        let span = Span {
            batch,
            seq,
            keep: keep.map(|keep| laid(keep, self.layout)),
            state: self.carries.then(|| scaled(5, 0.5)),
        };
        let weights = [weight(1, d_input), weight(2, d_hidden)];
        let biases = [3, 4].map(|at| scaled(at, 0.3).flatten(0, 1));
        let (states, left) = ops::recurrent(self.cell, scaled(0, 1.0), weights, biases, span);
        match left {
            Some(left) => {
                let rows = batch * self.cell.states();
                Tensor::cat(vec![states, left.reshape([rows, d_hidden])], 0)
            }
            None => states,
        }
    }
}

#[test]
fn recurrent_layers_are_those_of_double_precision() {
    for cell in [Cell::Lstm, Cell::Gru] {
        for sizes in [
            [1, 1, 1, 1],
            [1, 2, 3, 1],
            [3, 1, 5, 4],
            [2, 7, 9, 31],
            [5, 6, 33, 32],
            [13, 9, 20, 70],
            [33, 5, 16, 130],
        ] {
            for (several, carries) in [(false, false), (true, false), (false, true), (true, true)] {
                let layer = Recurrent {
                    cell,
                    sizes,
                    several,
                    carries,
                    layout: Layout::Whole,
                };
                layer.check(&format!("{cell:?} {sizes:?} {several} {carries}"));
            }
        }
    }
}

/// What is left after some tokens, and the rest of them, give what all tokens at once give.
#[test]
fn a_sequence_in_two_parts_has_the_states_of_the_whole() {
    let (batch, seq, d_input, d_hidden) = (3, 9, 5, 37);
    let device = Default::default();
    let random = |rows: usize, columns: usize, salt: usize| {
        let values: Vec<f32> = numbers(rows * columns, salt)
            .into_iter()
            .map(|x| 0.2 * x as f32)
            .collect();
        Tensor::<Flex, 2>::from_data(TensorData::new(values, [rows, columns]), &device)
    };
    for cell in [Cell::Lstm, Cell::Gru] {
        let gates = cell.gates() * d_hidden;
        let x = random(batch * seq, d_input, 0).reshape([batch, seq, d_input]);
        let zeros = || Tensor::zeros([batch, cell.states() * d_hidden], &device);
        let read = |first, n, state| {
            let x = x.clone().narrow(1, first, n).reshape([batch * n, d_input]);
            let weights = [random(gates, d_input, 1), random(gates, d_hidden, 2)];
            let biases = [3, 4].map(|salt| random(1, gates, salt).flatten(0, 1));
            let span = Span {
                batch,
                seq: n,
                keep: None,
                state: Some(state),
            };
            let (states, left) = ops::recurrent(cell, x, weights, biases, span);
            (states.reshape([batch, n, d_hidden]), left.unwrap())
        };
        let (whole, end) = read(0, seq, zeros());
        for first in [1, 4, 8] {
            let (one, left) = read(0, first, zeros());
            let (other, left) = read(first, seq - first, left);
            let parts: Tensor<Flex, 3> = Tensor::cat(vec![one, other], 1);
            let off = (parts - whole.clone()).abs().max().into_scalar();
            assert!(off < 1e-6, "{cell:?}, {first}: {off}");
            let off = (left - end.clone()).abs().max().into_scalar();
            assert!(off < 1e-6, "{cell:?}, {first}: {off}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let layer = |cell| Recurrent {
        cell,
        sizes: [35, 8, 50, 170],
        several: true,
        carries: true,
        layout: Layout::Whole,
    };
    let (lstm, gru) = (layer(Cell::Lstm), layer(Cell::Gru));
    let attention = Attention {
        shape: sizes([5, 67, 70, 6, 2]),
        causal: true,
        bias: None,
    };
    let projection = LinearCrossEntropy { with_bias: true };
    let run = || {
        [
            results::<Fast>(&attention, &[[335, 30], [350, 10], [350, 10]]),
            results::<Fast>(&projection, &[[700, 6], [9001, 6], [1, 9001]]),
            results::<Fast>(&lstm, &lstm.shapes()),
            results::<Fast>(&gru, &gru.shapes()),
        ]
    };
    let of_one = with_threads(1, run);
    for threads in [2, 3, 7] {
        assert!(with_threads(threads, run) == of_one, "{threads} threads");
    }
}

fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap().install(run)
}

#[test]
fn attention_of_other_sizes_than_its_shape_is_refused() {
    let refused = |shape: [usize; 5], [q, k, bias]: [&[usize]; 3], causal: bool| {
        let device = Default::default();
        let [q, k] = [q, k].map(|dims| Tensor::<Flex, 2>::zeros(dims, &device));
        let mask = AttentionMask {
            causal,
            bias: (!bias.is_empty()).then(|| Tensor::zeros(bias, &device)),
            scale: None,
        };
        panic_of(|| ops::attention([q, k.clone(), k], &mask, sizes(shape), 0.0))
    };
    for (shape, tensors, causal, message) in [
        (
            [1, 2, 2, 3, 2],
            [&[2, 6], &[2, 4], &[] as &[usize]],
            false,
            "2 heads of keys do not divide 3 heads",
        ),
        ([1, 2, 2, 3, 0], [&[2, 6], &[2, 4], &[]], false, "0 heads"),
        (
            [1, 2, 2, 2, 2],
            [&[3, 6], &[2, 6], &[]],
            false,
            "shape of q",
        ),
        (
            [1, 2, 2, 4, 4],
            [&[2, 6], &[2, 6], &[]],
            false,
            "shape of q",
        ),
        (
            [1, 2, 3, 2, 2],
            [&[2, 6], &[2, 6], &[]],
            false,
            "shape of k",
        ),
        (
            [1, 2, 2, 2, 1],
            [&[2, 6], &[2, 6], &[]],
            false,
            "shape of k",
        ),
        (
            [1, 3, 2, 2, 2],
            [&[3, 6], &[2, 6], &[]],
            true,
            "3 queries, the last of 2 keys",
        ),
        (
            [2, 3, 3, 2, 2],
            [&[6, 6], &[6, 6], &[1, 1, 2, 3]],
            false,
            "a bias of [1, 1, 2, 3] for scores of [2, 2, 3, 3]",
        ),
    ] {
        let said = refused(shape, tensors, causal);
        assert!(said.contains(message), "{said:?} lacks {message:?}");
    }
}

const SQUARE: Convolution = Convolution {
    transposed: false,
    channels: [2, 3],
    size: [5, 4],
    kernel: [3, 2],
    geometry: Geometry::new([2, 1], [1, 0]),
    padding_out: [1, 0],
    layout: Layout::Whole,
};

#[test]
fn every_layout_of_inputs_is_accepted() {
    let attention = Attention {
        shape: sizes([2, 3, 5, 4, 2]),
        causal: true,
        bias: None,
    };
    for activation in [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu6,
        Activation::Silu,
    ] {
        check_layouts(activation.name(), activation, &[[5, 7]]);
    }
    for (transposed, weight) in [(false, [4, 6]), (true, [6, 4])] {
        let shapes = [[5, 4], weight, [1, 6]];
        check_layouts("linear", Linear { transposed }, &shapes);
    }
    for of_sum in [false, true] {
        let shapes = [[1, 6], [1, 6], [5, 6], [5, 6]];
        check_layouts(
            "layer norm",
            Norm { of_sum },
            &shapes[..3 + usize::from(of_sum)],
        );
    }
    check_layouts("attention", attention, &[[6, 12], [10, 6], [10, 6]]);
    check_layouts("cross-entropy", CrossEntropy, &[[5, 7]]);
    let projection = LinearCrossEntropy { with_bias: true };
    check_layouts("projection", projection, &[[5, 3], [7, 3], [1, 7]]);
    for transposed in [false, true] {
        for layout in LAYOUTS {
            let operation = Convolution {
                transposed,
                layout,
                ..SQUARE
            };
            check("convolution", operation, &operation.shapes(3));
        }
    }
    for (cell, layout) in [Cell::Lstm, Cell::Gru]
        .into_iter()
        .flat_map(|cell| LAYOUTS.map(|layout| (cell, layout)))
    {
        let layer = Recurrent {
            cell,
            sizes: [3, 5, 4, 6],
            several: true,
            carries: true,
            layout,
        };
        layer.check(&format!("{cell:?}, {layout:?}"));
    }
}

/// Otherwise the test above says nothing.
#[test]
fn layouts_are_what_they_say() {
    let of = |layout| {
        let x = Tensor::<Flex, 2>::ones([4, 3], &Default::default());
        let x = laid(x, layout).into_primitive().tensor();
        let view = x.layout();
        (view.strides().to_vec(), view.start_offset())
    };
    assert_eq!(of(Layout::Whole), (vec![3, 1], 0));
    assert_eq!(of(Layout::Turned), (vec![1, 4], 0));
    assert_eq!(of(Layout::Part), (vec![6, 1], 0));
    assert_eq!(of(Layout::Behind), (vec![3, 1], 12));
    assert_eq!(of(Layout::Expanded), (vec![0, 1], 0));
}

#[test]
fn dropout_and_adamw_accept_every_layout() {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Default::default();
    let values = TensorData::new(numbers(12, 0), [4, 3]).convert::<f32>();
    for layout in LAYOUTS {
        let x = laid(
            Tensor::<Fast, 2>::from_data(values.clone(), &device),
            layout,
        );
        let copy = Tensor::<Fast, 2>::from_data(x.clone().into_data(), &device);
        let [laid, whole] = [x, copy].map(|x| {
            <Fast as Backend>::seed(&device, 7);
            ops::dropout(x, RATE).into_data()
        });
        assert_eq!(laid, whole, "{layout:?}");
    }
    let step = AdamW {
        lr: 1e-2,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-8,
        taken: 3,
        scale: 1.0,
    };
    for layout in LAYOUTS {
        // A column of a matrix: its values are not next to each other.
        let x = laid(
            Tensor::<Flex, 2>::from_data(values.clone(), &device),
            layout,
        )
        .abs();
        let column = || x.clone().narrow(1, 1, 1).squeeze_dim::<1>(1);
        let whole = || Tensor::<Flex, 1>::from_data(column().into_data(), &device);
        let of_columns = ops::adamw(step, [(); 3].map(|()| column()), column());
        let of_copies = ops::adamw(step, [(); 3].map(|()| whole()), whole());
        for (laid, copied) in of_columns.into_iter().zip(of_copies) {
            assert_eq!(laid.into_data(), copied.into_data(), "{layout:?}");
        }
    }
}

#[test]
fn nothing_at_all_is_accepted() {
    fn empty(what: &str, operation: impl Operation, shapes: &[[usize; 2]]) {
        let all = results::<Fast>(&operation, shapes);
        assert_eq!(all[0], [0.0; 0], "{what}");
        for (gradient, shape) in all[1..].iter().zip(shapes) {
            assert_eq!(*gradient, vec![0.0; shape[0] * shape[1]], "{what}");
        }
    }
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
        empty(activation.name(), activation, &[[0, 7]]);
    }
    for (transposed, weight) in [(false, [4, 6]), (true, [6, 4])] {
        let linear = Linear { transposed };
        empty("linear", linear, &[[0, 4], weight, [1, 6]]);
    }
    for of_sum in [false, true] {
        let shapes = [[1, 6], [1, 6], [0, 6], [0, 6]];
        let shapes = &shapes[..3 + usize::from(of_sum)];
        empty("layer norm", Norm { of_sum }, shapes);
    }
    for (shape, causal) in [([0, 3, 5, 4, 2], true), ([2, 0, 5, 4, 2], false)] {
        let attention = Attention {
            shape: sizes(shape),
            causal,
            bias: None,
        };
        let keys = [shape[0] * shape[2], 6];
        empty("attention", attention, &[[0, 12], keys, keys]);
    }
    empty("cross-entropy", CrossEntropy, &[[0, 7]]);
    for transposed in [false, true] {
        let operation = Convolution {
            transposed,
            ..SQUARE
        };
        empty("convolution", operation, &operation.shapes(0));
    }
    empty("depthwise", DEPTHWISE, &DEPTHWISE.shapes(0));
    empty("grouped", GROUPED, &GROUPED.shapes(0));
    let device = Default::default();
    let hidden = Tensor::<Fast, 2>::zeros([0, 3], &device).require_grad();
    let table = Tensor::<Fast, 2>::zeros([7, 3], &device);
    let (losses, hits) = ops::linear_cross_entropy(hidden, table, None, &[]);
    assert_eq!((losses.dims(), hits.dims()), ([0], [0]));
    // A sum over nothing can be trained on.
    losses.sum().backward();
    // Keys there are none of add nothing.
    let q = Tensor::<Flex, 2>::ones([2, 4], &device);
    let none = || Tensor::<Flex, 2>::ones([0, 4], &device);
    let shape = sizes([1, 2, 0, 2, 2]);
    let out = ops::attention([q, none(), none()], &AttentionMask::default(), shape, 0.0);
    assert_eq!(out.into_data(), TensorData::zeros::<f32, _>([2, 4]));
}

#[test]
fn sizes_that_do_not_fit_are_refused_by_name() {
    let device = Default::default();
    let matrix = |dims: [usize; 2]| Tensor::<Flex, 2>::zeros(dims, &device);
    let vector = |n: usize| Tensor::<Flex, 1>::zeros([n], &device);
    let images = |dims: [usize; 4]| Tensor::<Flex, 4>::zeros(dims, &device);
    let geometry = |stride, padding| Geometry::new(stride, padding);
    // An LSTM of two units on two rows of three tokens, each three wide, unless a size says otherwise.
    let recurrent = |tokens, of_inputs, of_states, bias, rows| {
        panic_of(|| {
            let span = Span {
                batch: 2,
                seq: 3,
                keep: None,
                state: Some(matrix([rows, 4])),
            };
            let weights = [matrix(of_inputs), matrix(of_states)];
            let biases = [vector(bias), vector(bias)];
            ops::recurrent(Cell::Lstm, matrix([tokens, 3]), weights, biases, span)
        })
    };
    let conv = |x, weight, bias, geometry| {
        panic_of(|| ops::conv2d(images(x), images(weight), Some(vector(bias)), geometry))
    };
    let ones = geometry([1, 1], [0, 0]);
    let widths = "widths of rows and weight";
    for (message, said) in [
        (
            widths,
            panic_of(|| ops::linear(matrix([2, 3]), matrix([4, 5]), vector(5))),
        ),
        (
            widths,
            panic_of(|| ops::linear_transposed(matrix([2, 3]), matrix([3, 5]), vector(3))),
        ),
        (
            "length of the bias",
            panic_of(|| ops::linear(matrix([2, 3]), matrix([3, 5]), vector(1))),
        ),
        (
            "length of gamma",
            panic_of(|| ops::layer_norm(matrix([2, 6]), vector(3), vector(6), 1e-5)),
        ),
        (
            "length of beta",
            panic_of(|| ops::layer_norm(matrix([2, 6]), vector(6), vector(1), 1e-5)),
        ),
        (
            "shapes of both parts",
            panic_of(|| {
                let parts = [matrix([2, 6]), matrix([6, 2])];
                ops::layer_norm_of_sum(parts, vector(6), vector(6), 1e-5, 0.0)
            }),
        ),
        (
            "recurrent: the number of tokens",
            recurrent(5, [8, 3], [8, 2], 8, 2),
        ),
        (
            "recurrent: the rows of the states' weights",
            recurrent(6, [8, 3], [6, 2], 8, 2),
        ),
        (
            "recurrent: the inputs' weights",
            recurrent(6, [8, 4], [8, 2], 8, 2),
        ),
        (
            "recurrent: the length of a bias",
            recurrent(6, [8, 3], [8, 2], 6, 2),
        ),
        ("recurrent: the state", recurrent(6, [8, 3], [8, 2], 8, 4)),
        (
            "a dropout rate of 1",
            panic_of(|| ops::dropout(matrix([2, 3]), 1.0)),
        ),
        (
            "one target for each row",
            panic_of(|| ops::cross_entropy(matrix([2, 3]), &[0])),
        ),
        (
            "target 3 is outside 0..3",
            panic_of(|| ops::cross_entropy(matrix([2, 3]), &[0, 3])),
        ),
        (
            "target 4 is outside 0..4",
            panic_of(|| ops::linear_cross_entropy(matrix([1, 3]), matrix([4, 3]), None, &[4])),
        ),
        (
            "widths of table and rows",
            panic_of(|| ops::linear_cross_entropy(matrix([1, 3]), matrix([4, 2]), None, &[0])),
        ),
        (
            "the bias's shape",
            panic_of(|| {
                let bias = Some(vector(3));
                ops::linear_cross_entropy(matrix([1, 3]), matrix([4, 3]), bias, &[0])
            }),
        ),
        (
            "channels of image and weight",
            conv([1, 2, 4, 4], [3, 1, 2, 2], 3, ones),
        ),
        (
            "length of the bias",
            conv([1, 2, 4, 4], [3, 2, 2, 2], 2, ones),
        ),
        (
            "a stride of [0, 1]",
            conv([1, 2, 4, 4], [3, 2, 2, 2], 3, geometry([0, 1], [0, 0])),
        ),
        (
            "a kernel of 7 is larger than an image of 6",
            conv([1, 2, 4, 4], [3, 2, 2, 7], 3, geometry([1, 1], [0, 1])),
        ),
        (
            "nothing is left within a padding of 4",
            panic_of(|| {
                let (x, weight) = (images([1, 2, 2, 2]), images([2, 3, 2, 2]));
                ops::conv_transpose2d(x, weight, None, geometry([1, 1], [2, 0]), [0, 0])
            }),
        ),
    ] {
        assert!(said.contains(message), "{said:?} lacks {message:?}");
    }
    let step = AdamW {
        lr: 1e-2,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-8,
        taken: 1,
        scale: 1.0,
    };
    let said = panic_of(|| ops::adamw(step, [4, 4, 3].map(vector), vector(4)));
    assert!(said.contains("AdamW: the lengths"), "{said}");
}

/// What is said when it panics.
fn panic_of<T>(run: impl FnOnce() -> T) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let Err(payload) = caught else {
        panic!("it is accepted");
    };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast::<&str>().unwrap().to_string(),
    }
}

#[test]
fn convolutions_are_those_of_double_precision() {
    let geometry = |stride, padding| Geometry::new(stride, padding);
    for (batch, channels, size, kernel, geometry) in [
        (1, [1, 1], [1, 1], [1, 1], geometry([1, 1], [0, 0])),
        (3, [2, 3], [7, 4], [3, 3], geometry([2, 2], [1, 1])),
        // Kernels larger than the stride, of another height than width, and places far beside the image.
        (9, [3, 2], [5, 6], [4, 1], geometry([1, 3], [3, 0])),
        (17, [4, 5], [6, 5], [2, 5], geometry([3, 2], [0, 2])),
    ] {
        for transposed in [false, true] {
            // Up to the last value that adds no place, and one further.
            for further in [0, 1] {
                let operation = Convolution {
                    transposed,
                    channels,
                    size,
                    kernel,
                    geometry,
                    padding_out: [geometry.stride[0] - 1 + further, 0],
                    layout: Layout::Whole,
                };
                check("convolution", operation, &operation.shapes(batch));
            }
        }
    }
}

#[test]
fn pooling_is_that_of_double_precision() {
    for of in POOLINGS {
        for (batch, size, kernel, stride, padding) in [
            (1, [1, 1], [1, 1], [1, 1], [0, 0]),
            (2, [9, 11], [3, 3], [2, 2], [1, 1]),
            (5, [8, 6], [2, 2], [2, 2], [0, 0]),
            // Windows that overlap, that leave pixels out, and that are larger than the map.
            (3, [13, 40], [4, 5], [1, 3], [2, 1]),
            (3, [10, 7], [2, 1], [3, 4], [1, 0]),
            (3, [2, 3], [5, 5], [1, 2], [2, 2]),
            (40, [31, 33], [3, 3], [2, 2], [1, 1]),
        ] {
            let operation = Pooled {
                of,
                size,
                kernel,
                stride,
                padding,
                ..POOLED
            };
            check(&format!("{of:?}"), operation, &operation.shapes(batch));
            let run = || results::<Fast>(&operation, &operation.shapes(batch));
            assert_eq!(with_threads(1, run), with_threads(2, run));
        }
        for layout in LAYOUTS {
            let operation = Pooled {
                of,
                layout,
                ..POOLED
            };
            check(&format!("{of:?}"), operation, &operation.shapes(4));
        }
        let operation = Pooled { of, ..POOLED };
        let empty = results::<Fast>(&operation, &operation.shapes(0));
        assert_eq!(empty, [[0.0; 0], [0.0; 0]]);
    }
}

#[test]
fn the_first_of_equal_values_gets_the_gradient_and_nan_is_kept() {
    let device = Default::default();
    let pooled = |values: [[f32; 4]; 2]| {
        let x = Tensor::<Fast, 2>::from_data(values, &device).require_grad();
        let maps = x.clone().reshape([1, 1, 2, 4]);
        let out = ops::max_pool2d(maps, [2, 2], [2, 2], [0, 0]);
        let gradient = x.grad(&out.clone().sum().backward()).unwrap();
        let floats = |data: TensorData| data.iter::<f32>().collect::<Vec<_>>();
        (floats(out.into_data()), floats(gradient.into_data()))
    };
    let (out, gradient) = pooled([[1.0, 3.0, f32::NEG_INFINITY, -2.0], [3.0, 3.0, -2.0, -5.0]]);
    assert_eq!(out, [3.0, -2.0]);
    assert_eq!(gradient, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    let (out, _) = pooled([[1.0, 2.0, f32::NAN, 1.0], [0.0, 0.0, 9.0, 0.0]]);
    assert_eq!(out[0], 2.0);
    assert!(out[1].is_nan());
}

/// A convolution with a group for every channel, its places uneven and its kernels not square.
const DEPTHWISE: Convolution = Convolution {
    channels: [3, 6],
    size: [7, 9],
    kernel: [3, 2],
    geometry: Geometry::new([2, 1], [1, 2]).grouped(3),
    padding_out: [0, 0],
    ..SQUARE
};

#[test]
fn convolutions_of_each_channel_are_those_of_double_precision() {
    for (batch, channels, size, kernel, geometry) in [
        (3, [4, 4], [7, 9], [3, 3], Geometry::new([1, 1], [1, 1])),
        (2, [3, 3], [14, 13], [3, 3], Geometry::new([2, 2], [1, 1])),
        // Wide kernels, a result of one place, a stride beyond the kernel, dilation, and two kernels a channel.
        (2, [3, 3], [11, 10], [7, 7], Geometry::new([1, 1], [3, 3])),
        (2, [5, 5], [3, 3], [3, 3], Geometry::new([1, 1], [0, 0])),
        (2, [2, 2], [11, 12], [1, 2], Geometry::new([3, 4], [0, 3])),
        (
            3,
            [2, 4],
            [12, 11],
            [3, 2],
            Geometry::new([2, 3], [3, 1]).dilated(3),
        ),
        (
            1,
            [2, 2],
            [31, 37],
            [3, 3],
            Geometry::new([1, 1], [2, 2]).dilated(2),
        ),
    ] {
        let operation = Convolution {
            channels,
            size,
            kernel,
            geometry: geometry.grouped(channels[0]),
            ..DEPTHWISE
        };
        check("depthwise", operation, &operation.shapes(batch));
    }
    for layout in LAYOUTS {
        let operation = Convolution {
            layout,
            ..DEPTHWISE
        };
        check("depthwise", operation, &operation.shapes(3));
    }
}

/// A convolution of two groups whose kernels have gaps.
const GROUPED: Convolution = Convolution {
    channels: [6, 4],
    size: [7, 8],
    kernel: [3, 2],
    geometry: Geometry::new([1, 2], [2, 0]).grouped(2).dilated(2),
    padding_out: [0, 1],
    ..SQUARE
};

#[test]
fn grouped_and_dilated_convolutions_are_those_of_double_precision() {
    for (batch, channels, size, kernel, geometry) in [
        // More outputs than any machine sums at a time, and rows longer than a panel.
        (
            3,
            [10, 44],
            [9, 11],
            [3, 3],
            Geometry::new([1, 1], [1, 1]).grouped(2),
        ),
        (2, [3, 19], [5, 211], [3, 3], Geometry::new([1, 1], [1, 1])),
        (2, [26, 5], [16, 17], [3, 3], Geometry::new([1, 1], [1, 1])),
        // Patches and images in many units, kernels of one pixel, and strides beyond the kernel.
        (1, [5, 3], [70, 190], [3, 3], Geometry::new([2, 2], [1, 1])),
        (2, [7, 9], [15, 14], [1, 1], Geometry::new([1, 1], [0, 0])),
        (2, [210, 3], [4, 5], [1, 1], Geometry::new([1, 1], [0, 0])),
        (3, [4, 4], [7, 6], [1, 2], Geometry::new([3, 4], [0, 1])),
        (2, [6, 9], [8, 7], [3, 3], GROUPED.geometry.grouped(3)),
        (
            2,
            [3, 3],
            [9, 9],
            [3, 3],
            Geometry::new([1, 1], [3, 3]).dilated(3),
        ),
        (2, [2, 3], [9, 9], [2, 2], Geometry::new([1, 1], [4, 4])),
        // Patches side by side, with pixels left over and without.
        (3, [5, 4], [6, 10], [3, 2], Geometry::new([3, 2], [0, 0])),
        (
            2,
            [4, 6],
            [20, 9],
            [2, 2],
            Geometry::new([2, 2], [0, 0]).grouped(2),
        ),
    ] {
        for transposed in [false, true] {
            let operation = Convolution {
                transposed,
                channels,
                size,
                kernel,
                geometry,
                padding_out: [0, 0],
                ..GROUPED
            };
            if !transposed || geometry.padding != [4, 4] {
                check("convolution", operation, &operation.shapes(batch));
            }
        }
    }
    for transposed in [false, true] {
        for layout in LAYOUTS {
            let operation = Convolution {
                transposed,
                layout,
                ..GROUPED
            };
            check("convolution", operation, &operation.shapes(3));
        }
    }
}

#[test]
fn convolutions_have_the_same_bits_on_any_number_of_threads() {
    let large = |operation| Convolution {
        size: [37, 41],
        ..operation
    };
    let transposed = Convolution {
        transposed: true,
        ..GROUPED
    };
    let wide = Convolution {
        channels: [40, 70],
        geometry: Geometry::new([1, 1], [1, 1]),
        ..SQUARE
    };
    let operations = [
        large(DEPTHWISE),
        large(GROUPED),
        large(SQUARE),
        transposed,
        wide,
    ];
    for operation in operations {
        let run = || results::<Fast>(&operation, &operation.shapes(19));
        let of_one = with_threads(1, run);
        for threads in [2, 3] {
            assert!(with_threads(threads, run) == of_one, "{threads} threads");
        }
    }
}

#[test]
fn cross_entropy_of_a_part_of_the_logits_leaves_the_rest_alone() {
    let values: Vec<f32> = (0..15).map(|i| ((i * 7) % 5) as f32 - 2.0).collect();
    let logits = Tensor::<Fast, 1>::from_data(values.as_slice(), &Default::default());
    let logits = logits.reshape([5, 3]).require_grad();
    let gradient = |part: Tensor<Fast, 2>, targets: &[u32]| {
        let loss = ops::cross_entropy(part, targets).sum();
        let gradient = logits.grad(&loss.backward()).unwrap();
        gradient.into_data().to_vec::<f32>().unwrap()
    };
    let targets = [0, 1, 2, 0, 1];
    let whole = gradient(logits.clone(), &targets);
    for rows in [0..2, 1..5, 2..4] {
        let part = gradient(logits.clone().slice([rows.clone()]), &targets[rows.clone()]);
        for (at, (part, whole)) in part.iter().zip(&whole).enumerate() {
            let expected = if rows.contains(&(at / 3)) {
                *whole
            } else {
                0.0
            };
            assert!(
                (part - expected).abs() < 1e-6,
                "{rows:?}, {at}: {part}, {expected}"
            );
        }
    }
}

/// Burn forgets the graph of a tensor that a backward pass went through, as accumulation does with weights; so what is
/// made of it next is in another graph, which nothing held while the operation on it was running.
#[test]
fn passes_on_another_thread_take_no_gradient_away() {
    let passes = || {
        let values = Tensor::<Fast, 1>::ones([4_096], &Default::default());
        let values = values.reshape([64, 64]).require_grad();
        let pass = |_| {
            let twice = values.clone() * 2.0;
            let loss = ops::cross_entropy(twice, &[0; 64]).sum();
            values.grad(&loss.backward()).is_some()
        };
        (0..2_000).filter(|&number| pass(number)).count()
    };
    let kept = thread::scope(|scope| [(); 2].map(|_| scope.spawn(passes)).map(|pass| pass.join()));
    assert_eq!(kept.map(Result::unwrap), [2_000; 2]);
}

#[test]
fn cross_entropy_is_that_of_double_precision() {
    for shape in [[1, 2], [7, 19], [30, 1001]] {
        check("cross-entropy", CrossEntropy, &[shape]);
    }
}

#[test]
fn cross_entropy_of_a_projection_is_that_of_double_precision() {
    // Less than a tile of rows and words, one, and parts of one; parts of the vocabulary that no tile divides.
    for [n, d_model, vocab] in [
        [1, 1, 2],
        [7, 5, 19],
        [512, 3, 1024],
        [515, 4, 1030],
        [3, 16, 20_011],
    ] {
        let shapes = [[n, d_model], [vocab, d_model], [1, vocab]];
        for with_bias in [false, true] {
            check("projection", LinearCrossEntropy { with_bias }, &shapes);
        }
        let of_logits = results::<Plain>(&Unchunked, &shapes);
        let with_bias = LinearCrossEntropy { with_bias: true };
        for (part, (tiled, whole)) in results::<Fast>(&with_bias, &shapes)
            .iter()
            .zip(&of_logits)
            .enumerate()
        {
            assert_near(&format!("{shapes:?}, part {part}"), tiled, whole);
        }
    }
}

#[test]
fn hits_are_the_first_of_the_largest_logits() {
    fn hits<B: Backend>(bias: Vec<f32>, targets: &[u32]) -> Vec<f32> {
        let device = Default::default();
        let vocab = bias.len();
        let bias = Tensor::<B, 1>::from_data(TensorData::new(bias, [vocab]), &device);
        let hidden = Tensor::zeros([targets.len(), 2], &device);
        let table = Tensor::zeros([vocab, 2], &device);
        let (_, hits) = ops::linear_cross_entropy(hidden, table, Some(bias), targets);
        hits.into_data().iter::<f32>().collect()
    }
    // The largest of all in three tiles of words.
    let mut bias = vec![0.0; 3000];
    for word in [1500, 1501, 2900] {
        bias[word] = 1.0;
    }
    let targets = [1500, 1501, 2900, 0];
    let expected = [1.0, 0.0, 0.0, 0.0];
    assert_eq!(hits::<Flex>(bias.clone(), &targets), expected);
    assert_eq!(hits::<NdArray>(bias, &targets), expected);
    // All alike.
    assert_eq!(
        hits::<Flex>(vec![0.0; 3000], &[0, 1, 2999]),
        [1.0, 0.0, 0.0]
    );
}

#[test]
fn words_ruled_out_by_their_bias_take_no_part() {
    // All but two words, which have the same logit: the loss is ln 2.
    let device = Default::default();
    let mut bias = vec![f32::NEG_INFINITY; 5000];
    bias[3] = 50.0;
    bias[4999] = 50.0;
    let bias = Tensor::<Fast, 1>::from_data(bias.as_slice(), &device);
    let hidden = Tensor::<Fast, 2>::ones([2, 3], &device).require_grad();
    let table = Tensor::<Fast, 2>::ones([5000, 3], &device);
    let (losses, _) = ops::linear_cross_entropy(hidden.clone(), table, Some(bias), &[3, 4999]);
    let gradient = hidden.grad(&losses.clone().sum().backward()).unwrap();
    for loss in losses.into_data().iter::<f32>() {
        assert!((loss - std::f32::consts::LN_2).abs() < 1e-6, "{loss}");
    }
    // Shares of 1/2 each, less 1 for the target, times rows of ones.
    assert!(gradient.into_data().iter::<f32>().all(|x| x.abs() < 1e-6));
}

#[test]
fn a_frozen_table_gets_no_gradient_and_the_rows_the_same() {
    let device = Default::default();
    let data = |rows: usize, salt: usize| {
        let data = TensorData::new(numbers(rows * 5, salt), [rows, 5]).convert::<f32>();
        Tensor::<Fast, 2>::from_data(data, &device)
    };
    let gradients = |frozen: bool| {
        let (hidden, table) = (data(7, 0).require_grad(), data(1500, 1));
        let table = if frozen { table } else { table.require_grad() };
        let targets = classes(7, 1500);
        let (losses, _) = ops::linear_cross_entropy(hidden.clone(), table.clone(), None, &targets);
        let grads = losses.sum().backward();
        (
            hidden.grad(&grads).unwrap().into_data(),
            table.grad(&grads).is_some(),
        )
    };
    let (frozen, trained) = (gradients(true), gradients(false));
    assert_eq!(frozen.0, trained.0);
    assert_eq!((frozen.1, trained.1), (false, true));
}

#[test]
fn large_logits_lose_no_digits() {
    // Exact in 32-bit floats at every level below.
    let spread = [0.0, 0.5, 1.25, 2.0, -3.5, 0.0625];
    let exact = {
        let sum: f64 = spread.iter().map(|x: &f64| x.exp()).sum();
        let share = |x: f64| x.exp() / sum;
        (sum.ln() - spread[3], spread.map(share))
    };
    for level in [
        -1e4, -1000.0, -100.0, -33.0, 0.0, 31.0, 32.0, 100.0, 1000.0, 1e4,
    ] {
        let logits = spread.map(|x| (x + level) as f32);
        let logits = Tensor::<Fast, 1>::from_data(logits, &Default::default());
        let logits = logits.reshape([1, 6]).require_grad();
        let loss = ops::cross_entropy(logits.clone(), &[3]);
        let gradient = logits.grad(&loss.backward()).unwrap().into_data();
        let loss: f64 = loss.into_data().iter::<f64>().sum();
        // Below 32 the rounding of the largest logit's sum with the logarithm is left as it is.
        let allowed = if level == 31.0 { 2e-6 } else { 3e-7 };
        let off = (loss - exact.0).abs();
        assert!(off < allowed, "{level}: the loss is off by {off}");
        for (at, (computed, exact)) in gradient.iter::<f64>().zip(exact.1).enumerate() {
            let exact = if at == 3 { exact - 1.0 } else { exact };
            let off = (computed - exact).abs();
            assert!(off < allowed, "{level}: gradient {at} is off by {off}");
        }
    }
}

#[test]
fn logits_that_are_not_finite_do_not_pass_for_a_loss() {
    for wrong in [f32::NAN, f32::INFINITY] {
        let device = Default::default();
        let logits = Tensor::<Fast, 2>::from_data([[0.0, wrong, 1.0]], &device);
        let loss: f32 = ops::cross_entropy(logits, &[0]).into_scalar();
        assert!(!loss.is_finite(), "{wrong}: {loss}");
        // One of them, and all of a row.
        for hidden in [1.0, wrong] {
            let hidden = Tensor::<Fast, 2>::from_data([[hidden]], &device);
            let table = Tensor::<Fast, 2>::from_data([[1.0], [wrong], [2.0]], &device);
            let (losses, hits) = ops::linear_cross_entropy(hidden, table, None, &[0]);
            let loss: f32 = losses.into_scalar();
            assert!(!loss.is_finite(), "{wrong}: {loss}");
            assert_eq!(hits.into_scalar(), 0.0);
        }
    }
}

/// Held by each test that draws random numbers: Flex has one generator for all threads.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Dropout, on its own or as a part of what is fused with it.
struct Dropped {
    of: Of,
    fused: bool,
}

enum Of {
    Values,
    Norm,
}

impl Operation for Dropped {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        // The same key, whoever draws it.
        B::seed(&inputs[0].device(), 7);
        let [gamma, beta] = [0, 1].map(|at| inputs[at].clone().flatten(0, 1));
        let [a, b] = [2, 3].map(|at| inputs[at].clone());
        match (&self.of, self.fused) {
            (Of::Values, _) => ops::dropout(a, RATE) + b * gamma.unsqueeze() * beta.unsqueeze(),
            (Of::Norm, true) => ops::layer_norm_of_sum([a, b], gamma, beta, 1e-5, RATE),
            (Of::Norm, false) => ops::layer_norm(ops::dropout(a, RATE) + b, gamma, beta, 1e-5),
        }
    }
}

const RATE: f64 = 0.3;

/// What each value of a tensor of ones becomes.
fn dropped_ones(shape: [usize; 2], seed: u64) -> Vec<f32> {
    let device = Default::default();
    <Fast as Backend>::seed(&device, seed);
    let kept = ops::dropout(Tensor::<Fast, 2>::ones(shape, &device), RATE);
    kept.into_data().iter::<f32>().collect()
}

#[test]
fn dropout_follows_from_the_seed_and_scales_what_it_keeps() {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let mask = dropped_ones([211, 130], 7);
    let kept = 1.0 / (1.0 - RATE as f32);
    assert!(mask.iter().all(|&x| x == 0.0 || x == kept));
    let share = mask.iter().filter(|&&x| x == 0.0).count() as f64 / mask.len() as f64;
    assert!((share - RATE).abs() < 0.02, "{share}");
    assert_eq!(mask, dropped_ones([211, 130], 7));
    assert_ne!(mask, dropped_ones([211, 130], 8));
    // Two masks of one seed are not the same one.
    let device = Default::default();
    <Fast as Backend>::seed(&device, 7);
    let ones = Tensor::<Fast, 2>::ones([211, 130], &device);
    let [first, second] = [0, 1].map(|_| ops::dropout(ones.clone(), RATE));
    assert_ne!(first.into_data(), second.into_data());
    // Outside of training nothing is dropped.
    let ones = Tensor::<Flex, 2>::ones([3, 5], &device);
    let seen = ops::dropout(ones.clone(), RATE);
    assert_eq!(seen.into_data(), ones.into_data());
}

#[test]
fn dropout_has_the_gradient_of_its_mask() {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let shape = [211, 130];
    let mask = dropped_ones(shape, 7);
    let operation = Dropped {
        of: Of::Values,
        fused: true,
    };
    let [_, _, _, to_a, _] = <[_; 5]>::try_from(results::<Fast>(
        &operation,
        &[[1, 130], [1, 130], shape, shape],
    ))
    .unwrap();
    let weights = numbers(mask.len(), 9);
    let expected: Vec<f64> = weights
        .iter()
        .zip(mask)
        .map(|(w, kept)| w * f64::from(kept))
        .collect();
    assert_near("dropout", &to_a, &expected);
}

#[test]
fn dropout_inside_a_layer_norm_is_that_outside() {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    for [n, d] in [[1, 3], [37, 33], [700, 65]] {
        let shapes = [[1, d], [1, d], [n, d], [n, d]];
        let [inside, outside] = [true, false].map(|fused| {
            let operation = Dropped {
                of: Of::Norm,
                fused,
            };
            results::<Fast>(&operation, &shapes)
        });
        for (part, (inside, outside)) in inside.iter().zip(&outside).enumerate() {
            assert_near(&format!("part {part} of {n} x {d}"), inside, outside);
        }
    }
}

/// Attention whose dropped probabilities are drawn, or given.
struct DroppingAttention {
    seq: usize,
    n_heads: usize,
    /// Of `[batch, head, query, key]`.
    mask: Option<Vec<f32>>,
}

impl Operation for DroppingAttention {
    fn run<B: Backend>(&self, inputs: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [rows, d_model] = inputs[0].dims();
        let (seq, n_heads) = (self.seq, self.n_heads);
        let batch = rows / seq;
        let [q, k, v] = [0, 1, 2].map(|at| inputs[at].clone());
        let Some(mask) = &self.mask else {
            B::seed(&q.device(), 7);
            let shape = AttentionShape::square(batch, seq, n_heads);
            return ops::attention([q, k, v], &AttentionMask::default(), shape, RATE);
        };
        let d_head = d_model / n_heads;
        let heads = |x: Tensor<B, 2>| x.reshape([batch, seq, n_heads, d_head]).swap_dims(1, 2);
        let mask = TensorData::new(mask.clone(), [batch, n_heads, seq, seq]);
        let mask = Tensor::from_data(mask.convert::<B::FloatElem>(), &q.device());
        let scores = heads(q).matmul(heads(k).transpose()) / (d_head as f64).sqrt();
        let kept = burn::tensor::activation::softmax(scores, 3) * mask;
        kept.matmul(heads(v))
            .swap_dims(1, 2)
            .reshape([rows, d_model])
    }
}

#[test]
fn attention_drops_the_same_probabilities_forward_and_backward() {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let (batch, seq, n_heads) = (3, 19, 2);
    let drawn = DroppingAttention {
        seq,
        n_heads,
        mask: None,
    };
    // Equal scores and the identity as values: out come the probabilities, 1 / seq where none is dropped.
    let device = Default::default();
    let nothing = Tensor::<Fast, 2>::zeros([batch * seq, n_heads * seq], &device);
    let identity = Tensor::<Fast, 2>::eye(seq, &device).repeat(&[batch, n_heads]);
    let kept = drawn.run(vec![nothing.clone(), nothing, identity]);
    let kept = kept.reshape([batch, seq, n_heads, seq]).swap_dims(1, 2) * seq as f64;
    let mask: Vec<f32> = kept.into_data().iter::<f32>().collect();
    let share = mask.iter().filter(|&&x| x == 0.0).count() as f64 / mask.len() as f64;
    assert!((share - RATE).abs() < 0.05, "{share}");

    let shapes = [[batch * seq, n_heads * 8]; 3];
    let fast = results::<Fast>(&drawn, &shapes);
    let given = DroppingAttention {
        mask: Some(mask),
        ..drawn
    };
    let plain = results::<Plain>(&given, &shapes);
    for (part, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
        assert_near(&format!("part {part}"), fast, plain);
    }
}

#[test]
fn adamw_is_that_of_double_precision_and_shares_no_memory() {
    let steps = |n: usize| {
        let step = |taken| AdamW {
            lr: 1e-2,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            taken,
            scale: 0.5,
        };
        fn run<B: Backend>(n: usize, step: impl Fn(i32) -> AdamW) -> Vec<Vec<f64>> {
            let tensor = |values: Vec<f64>| {
                let data = TensorData::new(values, [n]).convert::<B::FloatElem>();
                Tensor::<B, 1>::from_data(data, &Default::default())
            };
            let first = tensor(numbers(n, 0));
            let mut state = [first.clone(), tensor(vec![0.0; n]), tensor(vec![0.0; n])];
            for taken in 1..=5 {
                state = ops::adamw(step(taken), state, tensor(numbers(n, taken as usize)));
            }
            let floats = |tensor: Tensor<B, 1>| tensor.into_data().iter::<f64>().collect();
            let mut all: Vec<Vec<f64>> = state.map(floats).into();
            all.push(floats(first));
            all
        }
        (run::<Flex>(n, step), run::<NdArray<f64>>(n, step))
    };
    for n in [1, 31, 40_000] {
        let (fast, plain) = steps(n);
        for (fast, plain) in fast.iter().zip(&plain) {
            assert_near(&format!("adamw of {n}"), fast, plain);
        }
        assert_eq!(
            fast[3],
            numbers(n, 0),
            "the weights that went in are as they were"
        );
    }
}
