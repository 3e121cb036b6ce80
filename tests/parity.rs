//! Forward pass, gradients and one optimizer step of the tiny BERT: the same on every backend.
//!
//! Flex is compared with ndarray, and with each GPU backend that is compiled in:
//! `cargo test -p tests --features vulkan --test parity`.

#![allow(clippy::unwrap_used)] // A test that can't go on should stop.

use burn::backend::{Autodiff, Flex, NdArray};
use burn::optim::{GradientsParams, Optimizer as _};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::{TokenInput, TokenModel};
use train::backend::{BackendName, WithBackend, with_backend};
use train::optim::optimizer::{Optimizer, OptimizerRecipe};

#[path = "support/golden.rs"]
mod golden;
#[path = "support/tiny_bert.rs"]
mod tiny_bert;

use golden::{Tensors, assert_all_near};

/// Sums of a few hundred f32 products in another order differ by about 1e-6 in gradients of up to 1, and AdamW
/// makes ten times that of it (rate 1e-3 over an epsilon of 1e-4). A wrong gradient is off by more: that of the
/// tanh GELU, which Burn's own `gelu` has on every backend but Flex, by 3e-4.
const TOLERANCE: f32 = 1e-4;
/// Burn computes ndarray's reciprocals, and so the gradient of a division, to 12 or 14 bits by SIMD.
const TOLERANCE_NDARRAY: f32 = 2e-4;

const BATCH: usize = 4;
const SEQ: usize = 16;

/// Everything that is compared, by name.
struct Pass;

impl WithBackend for Pass {
    type Output = Tensors;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Tensors {
        let model = tiny_bert::masked_lm::<B>(&device);
        let targets = targets();
        let hidden = golden::values(model.backbone.states(&input(&device), None, None));
        let mut all = Tensors::from([("hidden".to_string(), real(hidden))]);

        let loss = || tiny_bert::loss_sum(&model, input(&device), &targets, &device);
        let mean = loss() / targets.0.len() as f64;
        all.insert("loss".into(), golden::values(mean.clone()));
        let gradients = golden::gradients(model.clone(), tiny_bert::names(), &mean.backward());

        let weight = targets.0.len() as f64;
        let fresh = || {
            Optimizer::<B>::new(
                recipe(),
                recipe().groups(&[], &model, tiny_bert::names()).unwrap(),
            )
        };
        let grads = || GradientsParams::from_grads(loss().backward(), &model);
        let mut optimizer = fresh();
        optimizer.prepare(0, weight);
        let stepped = parameters(&optimizer.step(1e-3, model.clone(), grads()));
        // As a GPU steps, without waiting for the figures; and a step whose loss is not finite.
        let mut optimizer = fresh();
        optimizer.prepare_unread(0, weight, loss().inner() / weight);
        let stepped_unread = optimizer.step(1e-3, model.clone(), grads());
        all.insert(
            "outcome".into(),
            golden::values(optimizer.outcome().unwrap()),
        );
        optimizer.prepare_unread(1, weight, loss().inner() * f32::NAN);
        let skipped = optimizer.step(1e-3, stepped_unread.clone(), grads());
        let stepped_unread = parameters(&stepped_unread);
        assert_all_near("skipped", &parameters(&skipped), &stepped_unread, 0.0);

        let named = |kind: &str, tensors: Tensors| {
            let named = tensors
                .into_iter()
                .map(|(name, values)| (format!("{kind} of {name}"), values));
            named.collect::<Tensors>()
        };
        all.extend(named("gradient", gradients));
        all.extend(named("stepped", stepped));
        all.extend(named("stepped unread", stepped_unread));
        all
    }
}

fn recipe() -> OptimizerRecipe {
    OptimizerRecipe {
        weight_decay: 0.01,
        // Not 1e-8: dividing a tiny gradient by its own size would compare the signs of rounding errors.
        eps: 1e-4,
        clip: 1.0,
        ..OptimizerRecipe::adamw(1e-3)
    }
}

/// Parameters by name.
fn parameters<B: Backend>(model: &TokenModel<B>) -> Tensors {
    golden::parameters(model, tiny_bert::names())
}

/// Real tokens of each row.
fn length(row: usize) -> usize {
    SEQ - 3 * row
}

/// Tokens spread over the vocabulary of 48, the rows of different lengths.
fn input<B: Backend>(device: &B::Device) -> TokenInput<B> {
    let cells = || (0..BATCH).flat_map(|row| (0..SEQ).map(move |at| (row, at)));
    let tokens: Vec<i32> = cells()
        .map(|(row, at)| {
            if at < length(row) {
                (5 + (row * 31 + at * 17) % 43) as i32
            } else {
                0
            }
        })
        .collect();
    let mask: Vec<bool> = cells().map(|(row, at)| at >= length(row)).collect();
    let mask = TensorData::new(mask, [BATCH, SEQ]);
    TokenInput {
        mask_pad: Some(Tensor::from_data(mask, device)),
        ..TokenInput::new(Tensor::from_data(
            TensorData::new(tokens, [BATCH, SEQ]),
            device,
        ))
    }
}

/// Two positions of each row, with tokens to predict there.
fn targets() -> (Vec<i32>, Vec<u32>) {
    let positions = (0..BATCH).flat_map(|row| [row * SEQ + 1, row * SEQ + 5]);
    positions
        .map(|at| (at as i32, 5 + (at as u32 * 7) % 43))
        .unzip()
}

/// Hidden states at real tokens only.
fn real((shape, values): golden::Values) -> golden::Values {
    let width = shape[1];
    let rows = values.chunks_exact(width).enumerate();
    let real = rows.filter(|(at, _)| at % SEQ < length(at / SEQ));
    let values: Vec<f32> = real.flat_map(|(_, row)| row).copied().collect();
    (vec![values.len() / width, width], values)
}

#[test]
fn ndarray_computes_what_flex_computes() {
    let flex = Pass.run::<Autodiff<Flex>>(Default::default());
    let ndarray = Pass.run::<Autodiff<NdArray>>(Default::default());
    assert_all_near("ndarray", &ndarray, &flex, TOLERANCE_NDARRAY);
}

#[test]
fn each_gpu_backend_compiled_in_computes_what_flex_computes() {
    let flex = Pass.run::<Autodiff<Flex>>(Default::default());
    for name in [
        BackendName::Cuda,
        BackendName::Metal,
        BackendName::Vulkan,
        BackendName::Wgpu,
    ] {
        if name.is_compiled_in() {
            let gpu = with_backend(name, Pass).unwrap_or_else(|failure| panic!("{failure}"));
            assert_all_near(name.name(), &gpu, &flex, TOLERANCE);
        }
    }
}
