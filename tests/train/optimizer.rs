//! Optimizers against PyTorch: AdamW with clipping on a tiny BERT, and twenty steps of every rule, with groups too.
//!
//! `tests/golden/README.md` says where the numbers come from and why each tolerance is what it is.

use burn::backend::{Autodiff, Flex, NdArray};
use burn::module::Param;
use burn::optim::{GradientsParams, Optimizer as _};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::TokenModel;
use regex::Regex;
use serde_json::Value;
use train::optim::ema::Ema;
use train::optim::groups::{Group, freeze};
use train::optim::optimizer::{GroupRecipe, Optimizer, OptimizerKind, OptimizerRecipe};
use train::optim::update::{Rule, Slots};

use crate::golden::{self, Tensors, assert_all_near, assert_near, golden};
use crate::tiny_bert;

type Trained = Autodiff<Flex>;

fn recipe() -> OptimizerRecipe {
    OptimizerRecipe {
        weight_decay: 0.01,
        clip: 1.0,
        ..OptimizerRecipe::adamw(1e-2)
    }
}

fn optimizer(recipe: OptimizerRecipe, groups: &[Group]) -> Optimizer<Trained> {
    let model = tiny_bert::masked_lm::<Trained>(&Default::default());
    Optimizer::new(
        recipe.clone(),
        recipe.groups(groups, &model, tiny_bert::names()).unwrap(),
    )
}

/// Steps on the golden batch: gradients of the loss sum, which the optimizer divides by the targets.
fn step<B: AutodiffBackend>(
    mut model: TokenModel<B>,
    optimizer: &mut Optimizer<B>,
    steps: usize,
) -> TokenModel<B> {
    let device = Default::default();
    let golden = golden("tiny_bert.safetensors");
    let targets = golden::targets(&golden);
    for step in 0..steps {
        let input = golden::input(&golden, &device);
        let loss = tiny_bert::loss_sum(&model, input, &targets, &device);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        optimizer.prepare(step as u64, targets.0.len() as f64);
        model = optimizer.step(recipe().lr, model, grads);
    }
    model
}

/// Parameters by name.
fn parameters<B: Backend>(model: &TokenModel<B>) -> Tensors {
    golden::parameters(model, tiny_bert::names())
}

/// Key biases have no gradient but rounding, which AdamW blows up to whole steps.
fn without_key_biases(mut tensors: Tensors) -> Tensors {
    tensors.retain(|name, _| !name.ends_with(".key.bias"));
    tensors
}

#[test]
fn one_step_and_three_are_those_of_torch() {
    for (steps, prefix) in [(1, "stepped."), (3, "stepped3.")] {
        let mut optimizer = optimizer(recipe(), &[]);
        let model = step(
            tiny_bert::masked_lm(&Default::default()),
            &mut optimizer,
            steps,
        );
        let golden = golden("tiny_bert.safetensors");
        let theirs = without_key_biases(golden::under(&golden, prefix));
        let ours = without_key_biases(parameters(&model));
        assert_all_near(&format!("{prefix}weight"), &ours, &theirs, 3e-5);
    }
}

#[test]
fn the_norm_is_that_of_the_mean_loss_before_clipping() {
    let mut optimizer = optimizer(recipe(), &[]);
    step(tiny_bert::masked_lm(&Default::default()), &mut optimizer, 1);
    let norm = optimizer.norm() as f32;
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
    let mut whole = optimizer(recipe(), &[]);
    let never_stopped = step(tiny_bert::masked_lm(&device), &mut whole, 3);

    let mut first = optimizer(recipe(), &[]);
    let model = step(tiny_bert::masked_lm(&device), &mut first, 2);
    let mut second = optimizer(recipe(), &[]);
    let (slots, taken) = first.save();
    second.restore(slots, &taken, &device);
    let stopped = step(model, &mut second, 1);
    assert_eq!(parameters(&stopped), parameters(&never_stopped));
}

#[test]
fn groups_freeze_and_slow_down_what_they_name() {
    let device = Default::default();
    let group = |pattern: &str, times| Group::rate(Regex::new(pattern).unwrap(), times);
    let groups = vec![group("^bert\\.embeddings", 0.0), group("^bert\\.", 0.5)];
    // Without clipping, so that a frozen part does not change the scale of the others; without
    // decay, so that half the rate is half the way.
    let recipe = OptimizerRecipe {
        clip: 0.0,
        weight_decay: 0.0,
        ..recipe()
    };
    let before = parameters(&tiny_bert::masked_lm::<Trained>(&device));
    let mut plain = optimizer(recipe.clone(), &[]);
    let whole = parameters(&step(tiny_bert::masked_lm(&device), &mut plain, 1));
    let mut grouped = optimizer(recipe, &groups);
    let model = freeze(tiny_bert::masked_lm(&device), grouped.groups());
    let after = parameters(&step(model, &mut grouped, 1));
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

// Twenty steps of every rule, on one matrix and one vector.

/// `[n]` of `golden[..][name]`, a matrix by rows.
fn values<B: Backend>(golden: &Value, name: &str) -> Tensor<B, 1> {
    let flat = |value: &Value| match value {
        Value::Array(row) => row.iter().map(|x| x.as_f64().unwrap()).collect(),
        number => vec![number.as_f64().unwrap()],
    };
    let values: Vec<f64> = golden[name]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(flat)
        .collect();
    Tensor::from_data(
        TensorData::new(values.clone(), [values.len()]),
        &Default::default(),
    )
}

/// Of what `theirs` is large.
fn relative_error<B: Backend>(ours: Tensor<B, 1>, theirs: Tensor<B, 1>) -> f64 {
    let norm = |x: Tensor<B, 1>| -> f64 { (x.clone() * x).sum().sqrt().into_scalar().elem() };
    norm(ours - theirs.clone()) / norm(theirs)
}

fn rule(kind: OptimizerKind, weight_decay: f64) -> Rule {
    Rule {
        kind,
        lr: 0.05,
        weight_decay,
        momentum: 0.9,
        nesterov: false,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        taken: 0,
        scale: 1.0,
    }
}

/// The rules of `golden/optimizers.json` by name.
fn rules() -> [(&'static str, Rule); 9] {
    use OptimizerKind::*;
    let sgd = Rule {
        momentum: 0.0,
        ..rule(Sgd, 0.0)
    };
    let nesterov = Rule {
        nesterov: true,
        ..rule(Sgd, 0.01)
    };
    let lion = Rule {
        beta2: 0.99,
        ..rule(Lion, 0.1)
    };
    let muon = Rule {
        momentum: 0.95,
        nesterov: true,
        ..rule(Muon, 0.1)
    };
    [
        ("sgd", sgd),
        ("sgd_momentum", rule(Sgd, 0.0)),
        ("sgd_nesterov", nesterov),
        ("adam", rule(Adam, 0.01)),
        ("adamw", rule(AdamW, 0.01)),
        ("adafactor", rule(Adafactor, 0.01)),
        ("lamb", rule(Lamb, 0.01)),
        ("lion", lion),
        ("muon", muon),
    ]
}

fn trajectories<B: Backend>(tolerance: f64) {
    let golden = include_str!("../golden/optimizers.json");
    let golden: Value = serde_json::from_str(golden).unwrap();
    for (name, rule) in rules() {
        for (parameter, shape) in [("w", &[4, 6][..]), ("b", &[6])] {
            if name == "muon" && parameter == "b" {
                continue;
            }
            let mut weights = values::<B>(&golden["start"], parameter);
            let mut slots = Slots::new();
            for step in 0..20 {
                let gradient = values::<B>(&golden["grads"][step], parameter);
                let rule = Rule {
                    taken: step as i32 + 1,
                    ..rule
                };
                weights = match name {
                    "muon" => rule.orthogonal_step(weights, gradient, [4, 6], &mut slots),
                    _ => rule.step(weights, gradient, shape, &mut slots),
                };
                let theirs = values(&golden["runs"][name]["steps"][step], parameter);
                let error = relative_error(weights.clone(), theirs);
                assert!(
                    error < tolerance,
                    "{name}, {parameter}, step {step}: off by {error:.1e}"
                );
            }
        }
    }
}

#[test]
fn every_rule_goes_the_way_of_its_reference() {
    trajectories::<Flex>(1e-6);
}

#[test]
fn in_double_precision_nothing_is_left_to_rounding() {
    trajectories::<NdArray<f64>>(1e-9);
}

// The same with two groups, through the optimizer of a run.

#[derive(Module, Debug)]
struct Pair<B: Backend> {
    w: Param<Tensor<B, 2>>,
    b: Param<Tensor<B, 1>>,
}

impl<B: Backend> Pair<B> {
    fn of(golden: &Value) -> Self {
        Self {
            w: Param::from_tensor(values::<B>(golden, "w").reshape([4, 6])),
            b: Param::from_tensor(values(golden, "b")),
        }
    }
}

#[derive(Module, Debug)]
struct Groups<B: Backend> {
    fast: Pair<B>,
    slow: Pair<B>,
}

fn grouped_recipe(golden: &Value, name: &str, rule: Rule) -> OptimizerRecipe {
    let group = |name: &str, weight_decay| GroupRecipe {
        pattern: format!("^{name}\\."),
        lr: golden["rates"][name].as_f64().unwrap(),
        weight_decay: Some(weight_decay),
        frozen: false,
        unfreeze_at: 0,
    };
    let weight_decay = golden["runs"][name]["weight_decay"].as_f64().unwrap();
    OptimizerRecipe {
        kind: rule.kind,
        momentum: rule.momentum,
        nesterov: rule.nesterov,
        beta1: rule.beta1,
        beta2: rule.beta2,
        eps: rule.eps,
        groups: vec![group("fast", weight_decay), group("slow", 0.0)],
        ..OptimizerRecipe::adamw(rule.lr)
    }
}

fn grouped_trajectories<B: AutodiffBackend>(tolerance: f64) {
    let golden = include_str!("../golden/optimizers.json");
    let golden: Value = serde_json::from_str(golden).unwrap();
    for (name, rule) in rules() {
        let recipe = grouped_recipe(&golden["grouped"], name, rule);
        let mut module = Groups::<B> {
            fast: Pair::of(&golden["start"]),
            slow: Pair::of(&golden["start"]),
        };
        let groups = recipe.groups(&[], &module, tiny_bert::names()).unwrap();
        let mut optimizer = Optimizer::<B>::new(recipe, groups);
        for step in 0..20 {
            let mut grads = GradientsParams::new();
            for (pair, at) in [(&module.fast, step), (&module.slow, 19 - step)] {
                let of = |name| values::<B::InnerBackend>(&golden["grads"][at], name);
                grads.register::<B::InnerBackend, 2>(pair.w.id, of("w").reshape([4, 6]));
                grads.register::<B::InnerBackend, 1>(pair.b.id, of("b"));
            }
            optimizer.prepare(step as u64, 1.0);
            module = optimizer.step(rule.lr, module, grads);
            let theirs = &golden["grouped"]["runs"][name]["steps"][step];
            for (group, pair) in [("fast", &module.fast), ("slow", &module.slow)] {
                let ours = [
                    ("w", pair.w.val().inner().reshape([24])),
                    ("b", pair.b.val().inner()),
                ];
                for (parameter, ours) in ours {
                    let error = relative_error(ours, values(&theirs[group], parameter));
                    assert!(
                        error < tolerance,
                        "{name}, {group}.{parameter}, step {step}: off by {error:.1e}"
                    );
                }
            }
        }
    }
}

#[test]
fn rates_and_decays_of_groups_are_those_of_torch() {
    grouped_trajectories::<Trained>(1e-6);
    grouped_trajectories::<Autodiff<NdArray<f64>>>(1e-9);
}

#[test]
fn averages_are_those_of_torch() {
    #[derive(Module, Debug)]
    struct Two<B: Backend> {
        w: Param<Tensor<B, 1>>,
        b: Param<Tensor<B, 1>>,
    }
    let golden = include_str!("../golden/optimizers.json");
    let golden: Value = serde_json::from_str(golden).unwrap();
    let two = |values_of: &Value| Two::<Flex> {
        w: Param::from_tensor(values(values_of, "w")),
        b: Param::from_tensor(values(values_of, "b")),
    };
    let mut ema = Ema::new(golden["ema"]["decay"].as_f64().unwrap(), tiny_bert::names());
    for step in 0..20 {
        let now = two(&golden["runs"]["adamw"]["steps"][step]);
        ema.update(&now);
        let averaged = ema.apply(now);
        let theirs = two(&golden["ema"]["steps"][step]);
        for (ours, theirs) in [(averaged.w, theirs.w), (averaged.b, theirs.b)] {
            assert!(
                relative_error(ours.val(), theirs.val()) < 1e-6,
                "step {step}"
            );
        }
    }
}
