//! Operations of `model::ops` on Flex beside what Burn composes, forward and backward, at the sizes of the
//! mini encoder: 2,048 tokens, 256 wide.
//!
//!     cargo bench -p pretrain --bench kernels

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::{Distribution, TensorData, activation, module};
use divan::Bencher;
use model::ops::{self, AdamW, AttentionMask, AttentionShape, Geometry};

type B = Autodiff<Flex>;

const BATCH: usize = 16;
const SEQ: usize = 128;
const TOKENS: usize = BATCH * SEQ;
const D_MODEL: usize = 256;
const HEADS: usize = 4;
const VOCAB: usize = 8192;

fn main() {
    divan::main();
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    let uniform = Distribution::Uniform(-1.0, 1.0);
    Tensor::random(shape, uniform, &Default::default()).require_grad()
}

/// Forward, and backward from the sum of what comes out.
fn both_ways<const D: usize>(bencher: Bencher, run: impl Fn() -> Tensor<B, D>) {
    bencher.bench_local(|| run().sum().backward());
}

#[divan::bench_group]
mod gelu {
    use super::*;

    #[divan::bench]
    fn hearth(bencher: Bencher) {
        let x = random([TOKENS, 4 * D_MODEL]);
        both_ways(bencher, || ops::gelu(x.clone()));
    }

    #[divan::bench]
    fn burn(bencher: Bencher) {
        let x = random([TOKENS, 4 * D_MODEL]);
        both_ways(bencher, || activation::gelu(x.clone()));
    }
}

#[divan::bench_group]
mod layer_norm_of_sum {
    use super::*;

    #[divan::bench(args = [0.0, 0.1])]
    fn hearth(bencher: Bencher, rate: f64) {
        let [a, b] = [0, 1].map(|_| random([TOKENS, D_MODEL]));
        let [gamma, beta] = [0, 1].map(|_| random([D_MODEL]));
        both_ways(bencher, || {
            let (gamma, beta) = (gamma.clone(), beta.clone());
            ops::layer_norm_of_sum([a.clone(), b.clone()], gamma, beta, 1e-12, rate)
        });
    }

    #[divan::bench(args = [0.0, 0.1])]
    fn burn(bencher: Bencher, rate: f64) {
        let [a, b] = [0, 1].map(|_| random([TOKENS, D_MODEL]));
        let norm = burn::nn::LayerNormConfig::new(D_MODEL).init::<B>(&Default::default());
        let dropout = burn::nn::DropoutConfig::new(rate).init();
        both_ways(bencher, || {
            norm.forward(dropout.forward(a.clone()) + b.clone())
        });
    }
}

#[divan::bench_group]
mod attention {
    use super::*;

    #[divan::bench(args = [0.0, 0.1])]
    fn hearth(bencher: Bencher, rate: f64) {
        let inputs = [0, 1, 2].map(|_| random([TOKENS, D_MODEL]));
        both_ways(bencher, || {
            let shape = AttentionShape::square(BATCH, SEQ, HEADS);
            ops::attention(inputs.clone(), &AttentionMask::default(), shape, rate)
        });
    }

    #[divan::bench(args = [128, 512])]
    fn causal(bencher: Bencher, seq: usize) {
        decoder(bencher, seq, true);
    }

    #[divan::bench(args = [128, 512])]
    fn not_causal(bencher: Bencher, seq: usize) {
        decoder(bencher, seq, false);
    }

    fn decoder(bencher: Bencher, seq: usize, causal: bool) {
        let inputs = [0, 1, 2].map(|_| random([TOKENS, D_MODEL]));
        let shape = AttentionShape::square(TOKENS / seq, seq, HEADS);
        both_ways(bencher, || {
            ops::attention(inputs.clone(), &mask(causal), shape, 0.0)
        });
    }

    fn mask<B: Backend>(causal: bool) -> AttentionMask<B> {
        AttentionMask {
            causal,
            ..AttentionMask::default()
        }
    }

    /// One new token, whose keys and those before it are in a cache.
    #[divan::bench(args = [16, 128, 1024])]
    fn one_query_hearth(bencher: Bencher, keys: usize) {
        let q = random([1, D_MODEL]).inner();
        let [k, v] = [0, 1].map(|_| random([keys, D_MODEL]).inner());
        let shape = AttentionShape {
            queries: 1,
            ..AttentionShape::square(1, keys, HEADS)
        };
        bencher.bench_local(|| {
            let inputs = [q.clone(), k.clone(), v.clone()];
            ops::attention(inputs, &mask(true), shape, 0.0)
        });
    }

    #[divan::bench(args = [16, 128, 1024])]
    fn one_query_burn(bencher: Bencher, keys: usize) {
        let q = random([1, D_MODEL]).inner();
        let [k, v] = [0, 1].map(|_| random([keys, D_MODEL]).inner());
        let d_head = D_MODEL / HEADS;
        bencher.bench_local(|| {
            let heads = |x: Tensor<Flex, 2>| {
                let [n, _] = x.dims();
                x.reshape([1, n, HEADS, d_head]).swap_dims(1, 2)
            };
            let [q, k, v] = [&q, &k, &v].map(|x| heads(x.clone()));
            let scores = q.matmul(k.transpose()) / (d_head as f64).sqrt();
            let context = activation::softmax(scores, 3).matmul(v);
            context.swap_dims(1, 2).reshape([1, D_MODEL])
        });
    }

    #[divan::bench(args = [0.0, 0.1])]
    fn burn(bencher: Bencher, rate: f64) {
        let inputs = [0, 1, 2].map(|_| random([TOKENS, D_MODEL]));
        let dropout = burn::nn::DropoutConfig::new(rate).init();
        let d_head = D_MODEL / HEADS;
        both_ways(bencher, || {
            let heads = |x: Tensor<B, 2>| x.reshape([BATCH, SEQ, HEADS, d_head]).swap_dims(1, 2);
            let [q, k, v] = inputs.clone().map(heads);
            let scores = q.matmul(k.transpose()) / (d_head as f64).sqrt();
            let context = dropout.forward(activation::softmax(scores, 3)).matmul(v);
            context.swap_dims(1, 2).reshape([TOKENS, D_MODEL])
        });
    }
}

#[divan::bench_group]
mod cross_entropy {
    use super::*;

    fn targets() -> Vec<u32> {
        (0..TOKENS).map(|i| (i * 7919 % VOCAB) as u32).collect()
    }

    #[divan::bench]
    fn hearth(bencher: Bencher) {
        let (logits, targets) = (random([TOKENS, VOCAB]), targets());
        both_ways(bencher, || ops::cross_entropy(logits.clone(), &targets));
    }

    #[divan::bench]
    fn burn(bencher: Bencher) {
        let logits = random([TOKENS, VOCAB]);
        let ids: Vec<i32> = targets().into_iter().map(|id| id as i32).collect();
        let ids = TensorData::new(ids, [TOKENS, 1]);
        let ids = Tensor::<B, 2, Int>::from_data(ids, &Default::default());
        both_ways(bencher, || {
            -activation::log_softmax(logits.clone(), 1).gather(1, ids.clone())
        });
    }
}

/// The loss of a decoder over a large vocabulary: 2,048 tokens, 384 wide, 50,257 words.
#[divan::bench_group(sample_count = 3, sample_size = 1)]
mod vocabulary {
    use super::*;

    const WORDS: usize = 50_257;
    const WIDE: usize = 384;

    fn inputs() -> (Tensor<B, 2>, Tensor<B, 2>, Vec<u32>) {
        let targets = (0..TOKENS).map(|i| (i * 7919 % WORDS) as u32);
        (
            random([TOKENS, WIDE]),
            random([WORDS, WIDE]),
            targets.collect(),
        )
    }

    #[divan::bench]
    fn tiles(bencher: Bencher) {
        let (hidden, table, targets) = inputs();
        both_ways(bencher, || {
            ops::linear_cross_entropy(hidden.clone(), table.clone(), None, &targets).0
        });
    }

    #[divan::bench]
    fn all_logits(bencher: Bencher) {
        let (hidden, table, targets) = inputs();
        let bias = Tensor::zeros([WORDS], &Default::default());
        both_ways(bencher, || {
            let logits = ops::linear_transposed(hidden.clone(), table.clone(), bias.clone());
            ops::cross_entropy(logits, &targets)
        });
    }
}

#[divan::bench_group]
mod convolution {
    use super::*;

    const HALVING: Geometry = Geometry::new([2, 2], [1, 1]);

    #[divan::bench]
    fn hearth(bencher: Bencher) {
        let (x, weight) = (random([64, 16, 14, 14]), random([32, 16, 3, 3]));
        let bias = random([32]);
        both_ways(bencher, || {
            ops::conv2d(x.clone(), weight.clone(), Some(bias.clone()), HALVING)
        });
    }

    #[divan::bench]
    fn burn(bencher: Bencher) {
        let (x, weight) = (random([64, 16, 14, 14]), random([32, 16, 3, 3]));
        let bias = random([32]);
        let options = burn::tensor::ops::ConvOptions::new([2, 2], [1, 1], [1, 1], 1);
        both_ways(bencher, || {
            module::conv2d(
                x.clone(),
                weight.clone(),
                Some(bias.clone()),
                options.clone(),
            )
        });
    }
}

/// Of residual networks, of U-Net and of MobileNet, without a bias.
#[divan::bench_group]
mod convolutions_of_images {
    use super::*;

    fn run(bencher: Bencher, images: [usize; 4], weight: [usize; 4], geometry: Geometry) {
        let (x, weight) = (random(images), random(weight));
        both_ways(bencher, || {
            ops::conv2d(x.clone(), weight.clone(), None, geometry)
        });
    }

    #[divan::bench]
    fn small_maps(bencher: Bencher) {
        let geometry = Geometry::new([1, 1], [1, 1]);
        run(bencher, [64, 256, 8, 8], [256, 256, 3, 3], geometry);
    }

    #[divan::bench]
    fn large_maps(bencher: Bencher) {
        let geometry = Geometry::new([1, 1], [1, 1]);
        run(bencher, [8, 32, 128, 128], [32, 32, 3, 3], geometry);
    }

    #[divan::bench]
    fn one_pixel(bencher: Bencher) {
        let geometry = Geometry::new([1, 1], [0, 0]);
        run(bencher, [4, 256, 56, 56], [64, 256, 1, 1], geometry);
    }

    #[divan::bench]
    fn depthwise(bencher: Bencher) {
        let geometry = Geometry::new([1, 1], [1, 1]).grouped(144);
        run(bencher, [4, 144, 56, 56], [144, 1, 3, 3], geometry);
    }

    #[divan::bench]
    fn doubling(bencher: Bencher) {
        let (x, weight) = (random([8, 64, 64, 64]), random([64, 32, 2, 2]));
        both_ways(bencher, || {
            let geometry = Geometry::new([2, 2], [0, 0]);
            ops::conv_transpose2d(x.clone(), weight.clone(), None, geometry, [0, 0])
        });
    }
}

#[divan::bench_group]
mod pooling {
    use super::*;

    #[divan::bench]
    fn max_hearth(bencher: Bencher) {
        let x = random([4, 64, 112, 112]);
        both_ways(bencher, || {
            ops::max_pool2d(x.clone(), [3, 3], [2, 2], [1, 1])
        });
    }

    #[divan::bench]
    fn max_burn(bencher: Bencher) {
        let x = random([4, 64, 112, 112]);
        both_ways(bencher, || {
            module::max_pool2d(x.clone(), [3, 3], [2, 2], [1, 1], [1, 1], false)
        });
    }
}

#[divan::bench_group]
mod adamw {
    use super::*;

    const STEP: AdamW = AdamW {
        lr: 1e-3,
        weight_decay: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        taken: 10,
        scale: 1.0,
    };

    fn inputs() -> [Tensor<Flex, 1>; 4] {
        [0, 1, 2, 3].map(|_| random([VOCAB * D_MODEL]).inner().abs())
    }

    #[divan::bench]
    fn hearth(bencher: Bencher) {
        let [weights, first, second, gradient] = inputs();
        let mut state = [weights, first, second];
        bencher.bench_local(move || {
            let old = std::mem::replace(&mut state, [0, 1, 2].map(|_| gradient.clone()));
            state = ops::adamw(STEP, old, gradient.clone());
        });
    }

    #[divan::bench]
    fn burn(bencher: Bencher) {
        let [weights, first, second, gradient] = inputs();
        let mut state = [weights, first, second];
        bencher.bench_local(move || {
            let old = std::mem::replace(&mut state, [0, 1, 2].map(|_| gradient.clone()));
            state = composed(old, gradient.clone());
        });
    }

    fn composed(
        [weights, first, second]: [Tensor<Flex, 1>; 3],
        gradient: Tensor<Flex, 1>,
    ) -> [Tensor<Flex, 1>; 3] {
        let square = gradient.clone() * gradient.clone();
        let first = first * STEP.beta1 + gradient * (1.0 - STEP.beta1);
        let second = second * STEP.beta2 + square * (1.0 - STEP.beta2);
        let down = second.clone().sqrt() + STEP.eps;
        let change = first.clone() / down * STEP.lr;
        [
            weights * (1.0 - STEP.lr * STEP.weight_decay) - change,
            first,
            second,
        ]
    }
}
