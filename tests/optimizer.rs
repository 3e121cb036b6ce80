//! AdamW with clipping against PyTorch, one step and three.
//!
//! `tests/golden/README.md` says where the numbers come from and why each tolerance is what it is.

#![allow(clippy::unwrap_used)] // A test that can't go on should stop.

use burn::backend::{Autodiff, Flex};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use model::BertMaskedLm;
use regex::Regex;
use train::optimizer::{AdamW, Group, OptimizerRecipe, freeze};

mod tiny_bert;

use tiny_bert::{Tensors, assert_all_near, assert_near, golden};

type Trained = Autodiff<Flex>;

fn recipe() -> OptimizerRecipe {
    OptimizerRecipe {
        lr: 1e-2,
        weight_decay: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        clip: 1.0,
    }
}

/// Steps on the golden batch: gradients of the loss sum, which the optimizer divides by the targets.
fn step<B: AutodiffBackend>(
    mut model: BertMaskedLm<B>,
    optimizer: &mut AdamW<B>,
    steps: usize,
) -> BertMaskedLm<B> {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let targets = tiny_bert::targets(&golden);
    for _ in 0..steps {
        let input = tiny_bert::input(&golden, &device);
        let loss = tiny_bert::loss_sum(&model, input, &targets, &device);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        optimizer.set_targets(targets.0.len());
        model = optimizer.step(recipe().lr, model, grads);
    }
    model
}

/// Key biases have no gradient but rounding, which AdamW blows up to whole steps.
fn without_key_biases(mut tensors: Tensors) -> Tensors {
    tensors.retain(|name, _| !name.ends_with(".key.bias"));
    tensors
}

#[test]
fn one_step_and_three_are_those_of_torch() {
    for (steps, prefix) in [(1, "stepped."), (3, "stepped3.")] {
        let mut optimizer = AdamW::<Trained>::new(recipe(), vec![]);
        let model = step(
            tiny_bert::masked_lm(&Default::default()),
            &mut optimizer,
            steps,
        );
        let golden = golden("tiny_bert.safetensors");
        let theirs = without_key_biases(tiny_bert::under(&golden, prefix));
        let ours = without_key_biases(tiny_bert::parameters(&model));
        assert_all_near(&format!("{prefix}weight"), &ours, &theirs, 3e-5);
    }
}

#[test]
fn the_norm_is_that_of_the_mean_loss_before_clipping() {
    let mut optimizer = AdamW::<Trained>::new(recipe(), vec![]);
    step(tiny_bert::masked_lm(&Default::default()), &mut optimizer, 1);
    let norm = optimizer.norm().unwrap() as f32;
    let golden = golden("tiny_bert.safetensors");
    assert_near(
        "grad_norm",
        &(vec![1], vec![norm]),
        &golden["grad_norm"],
        1e-4,
    );
}

#[test]
fn a_restored_optimizer_goes_on_as_if_never_stopped() {
    let device = Default::default();
    let mut whole = AdamW::<Trained>::new(recipe(), vec![]);
    let never_stopped = step(tiny_bert::masked_lm(&device), &mut whole, 3);

    let mut first = AdamW::<Trained>::new(recipe(), vec![]);
    let model = step(tiny_bert::masked_lm(&device), &mut first, 2);
    let mut second = AdamW::<Trained>::new(recipe(), vec![]);
    second.restore(2, first.moments(), &device);
    let stopped = step(model, &mut second, 1);
    assert_eq!(
        tiny_bert::parameters(&stopped),
        tiny_bert::parameters(&never_stopped)
    );
}

#[test]
fn groups_freeze_and_slow_down_what_they_name() {
    let device = Default::default();
    let group = |pattern: &str, lr_multiplier| Group {
        pattern: Regex::new(pattern).unwrap(),
        lr_multiplier,
    };
    let groups = vec![group("^bert\\.embeddings", 0.0), group("^bert\\.", 0.5)];
    // Without clipping, so that a frozen part does not change the scale of the others; without
    // decay, so that half the rate is half the way.
    let recipe = OptimizerRecipe {
        clip: 0.0,
        weight_decay: 0.0,
        ..recipe()
    };
    let before = tiny_bert::parameters(&tiny_bert::masked_lm::<Trained>(&device));
    let mut plain = AdamW::<Trained>::new(recipe.clone(), vec![]);
    let whole = tiny_bert::parameters(&step(tiny_bert::masked_lm(&device), &mut plain, 1));
    let mut grouped = AdamW::<Trained>::new(recipe, groups.clone());
    let model = freeze(tiny_bert::masked_lm(&device), &groups);
    let after = tiny_bert::parameters(&step(model, &mut grouped, 1));
    let way = |to: &Tensors, name: &str| -> Vec<f32> {
        let pairs = to[name].1.iter().zip(&before[name].1);
        pairs.map(|(to, from)| to - from).collect()
    };
    for name in before.keys().filter(|name| !name.ends_with(".key.bias")) {
        let times = match name.as_str() {
            name if name.starts_with("bert.embeddings.") => 0.0,
            name if name.starts_with("bert.") => 0.5,
            _ => 1.0,
        };
        let theirs: Vec<f32> = way(&whole, name).iter().map(|way| way * times).collect();
        let ours = way(&after, name);
        // Weights of up to 1 keep seven digits, and a way is the difference of two.
        assert_near(
            name,
            &(vec![ours.len()], ours),
            &(vec![theirs.len()], theirs),
            1e-6,
        );
    }
}
