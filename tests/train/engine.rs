//! The training loop on a problem small enough to know everything about: a line through the origin.
//!
//! Guards, accumulation and breakdowns, through a whole session.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::module::{Param, ParamId};
use burn::prelude::*;
use burn::tensor::{Distribution, FloatDType, TensorData};
use model::layers::batch_norm::{BatchNorm, follow};
use model::registry::TEXT_FAMILIES;
use model::{HeadKind, Names};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;
use train::objective::{Trainable, check_precision};
use train::optim::schedule::ScheduleKind;
use train::optim::update::OptimizerKind;
use train::recipe::{
    ComputePrecision, GuardRecipe, OptimizerRecipe, ScheduleRecipe, TrainingRecipe,
};
use train::run::Existing;
use train::session::{Options, Session, Status};
use train::source::{BatchSource, Counts};
use train::{
    BackendName, Failure, Interrupt, LossSums, Metric, Metrics, Objective, SumTally, Unit,
};

type B = Autodiff<Flex>;

/// Two weights; the loss is the squared distance of `x · w` from `y`.
#[derive(Module, Debug)]
struct Line<B: Backend> {
    weight: Param<Tensor<B, 1>>,
}

/// The same with noise on the error: its path follows from the backend's generator.
#[derive(Module, Debug)]
struct NoisyLine<B: Backend> {
    line: Line<B>,
}

impl<B: Backend> Objective<B> for NoisyLine<B> {
    type Batch = Points;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &[];
    const METRICS: &'static [Metric] = &[Metric::LOSS];

    fn loss(&self, batch: &Points, device: &B::Device) -> LossSums<B> {
        let mut noisy = batch.clone();
        for _ in 0..4 {
            let noise = Distribution::Normal(0.0, 0.1);
            let noise = Tensor::<B, 1>::random([batch.y.len()], noise, device).into_data();
            let noise = noise.iter::<f32>();
            noisy
                .y
                .iter_mut()
                .zip(noise)
                .for_each(|(y, noise)| *y += noise);
        }
        self.line.loss(&noisy, device)
    }

    fn evaluate(&self, batch: &Points, device: &B::Device) -> SumTally {
        self.line.evaluate(batch, device)
    }
}

#[derive(Clone, Debug)]
struct Points {
    /// `[n, 2]`, row-major.
    x: Vec<f32>,
    y: Vec<f32>,
    denominators: Vec<f64>,
}

impl Counts for Points {
    fn real(&self) -> usize {
        self.y.len()
    }

    fn padded(&self) -> usize {
        self.y.len()
    }

    fn denominators(&self) -> Vec<f64> {
        self.denominators.clone()
    }
}

impl Points {
    fn x<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        Tensor::from_data(TensorData::new(self.x.clone(), [self.y.len(), 2]), device)
    }

    fn y<B: Backend>(&self, device: &B::Device) -> Tensor<B, 1> {
        Tensor::from_data(TensorData::new(self.y.clone(), [self.y.len()]), device)
    }

    /// Rows that a second loss is about.
    fn chosen(&self) -> Vec<f32> {
        let chosen = |x: &[f32]| if x[0] > 0.1 { 1.0 } else { 0.0 };
        self.x.chunks(2).map(chosen).collect()
    }
}

impl<B: Backend> Line<B> {
    /// `x · w - y`, `[n]`.
    fn error(&self, x: Tensor<B, 2>, y: Tensor<B, 1>) -> Tensor<B, 1> {
        let n = x.dims()[0];
        let weight = self.weight.val().cast(FloatDType::F32);
        (x * weight.unsqueeze()).sum_dim(1).reshape([n]) - y
    }
}

impl<B: Backend> Objective<B> for Line<B> {
    type Batch = Points;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &[];
    const METRICS: &'static [Metric] = &[Metric::LOSS, Metric::lower("distance")];

    fn loss(&self, batch: &Points, device: &B::Device) -> LossSums<B> {
        assert!(
            batch.y[0] != 1e7,
            "out of memory (as a driver would say it)"
        );
        let error = self.error(batch.x(device), batch.y(device));
        LossSums::new((error.clone() * error).sum(), vec![], batch.y.len())
    }

    fn evaluate(&self, batch: &Points, device: &B::Device) -> SumTally {
        SumTally::read(self.loss(batch, device), &[])
    }

    fn derive(metrics: &mut Metrics) {
        if let Some(loss) = metrics.get("loss").copied() {
            metrics.insert("distance".into(), loss.sqrt());
        }
    }
}

/// A second loss over some of the rows: the squared distance of `x · w` from 1.
#[derive(Module, Debug)]
struct TwoLosses<B: Backend> {
    line: Line<B>,
}

impl<B: Backend> Objective<B> for TwoLosses<B> {
    type Batch = Points;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &[];
    const METRICS: &'static [Metric] = &[Metric::LOSS];

    fn loss(&self, batch: &Points, device: &B::Device) -> LossSums<B> {
        let chosen = batch.chosen();
        let n = chosen.iter().sum::<f32>();
        let chosen: Tensor<B, 1> = Tensor::from_floats(&chosen[..], device);
        let error = self.line.error(batch.x(device), chosen.ones_like());
        let second = (error.clone() * error * chosen).sum() * 0.5;
        self.line
            .loss(batch, device)
            .with_term(second, f64::from(n))
    }

    fn evaluate(&self, batch: &Points, device: &B::Device) -> SumTally {
        SumTally::read(self.loss(batch, device), &[])
    }
}

/// With a teacher that follows the weight.
#[derive(Module, Debug)]
struct Followed<B: Backend> {
    line: Line<B>,
    teacher: Param<Tensor<B, 1>>,
}

impl<B: Backend> Objective<B> for Followed<B> {
    type Batch = Points;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &[];
    const METRICS: &'static [Metric] = &[Metric::LOSS];

    fn loss(&self, batch: &Points, device: &B::Device) -> LossSums<B> {
        self.line.loss(batch, device)
    }

    fn evaluate(&self, batch: &Points, device: &B::Device) -> SumTally {
        self.line.evaluate(batch, device)
    }

    fn after_step(&self) -> Option<Self> {
        let weight = self.line.weight.val().detach();
        let teacher = self.teacher.clone().map(|old| old * 0.75 + weight * 0.25);
        let line = self.line.clone();
        Some(Self { line, teacher })
    }
}

/// With the number of batches that went on where the one before ended.
#[derive(Module, Debug)]
struct Counting<B: Backend> {
    line: Line<B>,
    count: Param<Tensor<B, 1>>,
}

impl<B: Backend> Objective<B> for Counting<B> {
    type Batch = Points;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &[];
    const METRICS: &'static [Metric] = &[Metric::LOSS];

    fn loss(&self, batch: &Points, device: &B::Device) -> LossSums<B> {
        follow(&self.count, self.count.val() + 1.0, 1.0);
        self.line.loss(batch, device)
    }

    fn evaluate(&self, batch: &Points, device: &B::Device) -> SumTally {
        self.line.evaluate(batch, device)
    }

    fn carried(&self) -> Option<ParamId> {
        Some(self.count.id)
    }

    fn emptied(&self) -> Option<Self> {
        let count = self.count.clone().map(|count| count.zeros_like());
        let line = self.line.clone();
        Some(Self { line, count })
    }
}

/// With a batch norm before the line.
#[derive(Module, Debug)]
struct Normed<B: Backend> {
    norm: BatchNorm<B>,
    line: Line<B>,
}

impl<B: Backend> Objective<B> for Normed<B> {
    type Batch = Points;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &[];
    const METRICS: &'static [Metric] = &[Metric::LOSS];
    const WHOLE_BATCH: bool = true;

    fn loss(&self, batch: &Points, device: &B::Device) -> LossSums<B> {
        let error = self
            .line
            .error(self.norm.forward(batch.x(device)), batch.y(device));
        LossSums::new((error.clone() * error).sum(), vec![], batch.y.len())
    }

    fn evaluate(&self, batch: &Points, device: &B::Device) -> SumTally {
        SumTally::read(self.loss(batch, device), &[])
    }
}

/// Points on a line, 64 to every full batch; some batches are spoilt.
#[derive(Clone)]
struct Source {
    batch_size: u64,
    spoilt: fn(u64) -> Option<f32>,
    /// What the batches of these numbers say that their losses are divided by.
    denominators: fn(u64, &Points) -> Vec<f64>,
}

impl Source {
    /// All is sound, and the forward pass says what losses are divided by.
    fn new(batch_size: u64) -> Self {
        Self {
            batch_size,
            spoilt: |_| None,
            denominators: |_, _| Vec::new(),
        }
    }
}

impl BatchSource for Source {
    type Batch = Points;

    fn batches_per_epoch(&self) -> u64 {
        4
    }

    fn batch(&self, number: u64) -> Points {
        let rows = number * self.batch_size..(number + 1) * self.batch_size;
        let at = |row: u64, k: u64| ((row * (17 + 6 * k) + k) % 31) as f32 / 31.0 - 0.5;
        let x: Vec<f32> = rows.flat_map(|row| [at(row, 0), at(row, 1)]).collect();
        let y = x.chunks(2).map(|x| 3.0 * x[0] - 2.0 * x[1]);
        let spoil = |y| (self.spoilt)(number).unwrap_or(y);
        let mut points = Points {
            y: y.map(spoil).collect(),
            x,
            denominators: Vec::new(),
        };
        points.denominators = (self.denominators)(number, &points);
        points
    }
}

/// Where every training begins.
fn line() -> Line<B> {
    Line {
        weight: Param::from_tensor(Tensor::from_data([0.5, 0.5], &Default::default())),
    }
}

struct Bench {
    folder: TempDir,
    training: TrainingRecipe,
    guard: GuardRecipe,
    optimizer: OptimizerRecipe,
    source: Source,
    valid: Source,
    backend: BackendName,
}

/// The CPU's way, which judges each step at once, and a GPU's, which reads figures when they are needed; both on Flex.
const WAYS: [BackendName; 2] = [BackendName::Flex, BackendName::Wgpu];

impl Bench {
    fn new() -> Self {
        Self::on(BackendName::Flex)
    }

    fn on(backend: BackendName) -> Self {
        Self {
            backend,
            folder: tempfile::tempdir().unwrap(),
            training: toml::from_str(TRAINING).unwrap(),
            guard: GuardRecipe::default(),
            optimizer: OptimizerRecipe {
                kind: OptimizerKind::Sgd,
                momentum: 0.0,
                ..OptimizerRecipe::adamw(0.1)
            },
            source: Source::new(64),
            valid: Source::new(64),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn train(self) -> (Result<Status, Failure>, Outcome) {
        let result = self.launch(|_| {});
        (result, self.outcome())
    }

    fn outcome(self) -> Outcome {
        let path = self.path();
        Outcome {
            _folder: self.folder,
            path,
        }
    }

    /// Trains a line, with options that differ from those of a new run.
    fn launch(&self, change: impl FnOnce(&mut Options)) -> Result<Status, Failure> {
        self.launch_objective(line(), |line: &Line<Flex>| line.weight.val(), change)
    }

    /// - bundle: what the bundle holds
    fn launch_objective<O>(
        &self,
        objective: O,
        bundle: fn(&O::InnerModule) -> Tensor<Flex, 1>,
        change: impl FnOnce(&mut Options),
    ) -> Result<Status, Failure>
    where
        O: Trainable<B> + Objective<B, Batch = Points>,
    {
        let valid = Arc::new(self.valid.clone());
        let mut options = Options::new(self.path(), self.backend);
        change(&mut options);
        Session {
            name: "line".into(),
            recipe: String::new(),
            seed: 1,
            training: self.training.clone(),
            optimizer: self.optimizer.clone(),
            schedule: ScheduleRecipe::new(ScheduleKind::Constant),
            guard: self.guard,
            data: String::new(),
            groups: Vec::new(),
            names: Names::new(TEXT_FAMILIES[0], HeadKind::Bare),
            objective,
            device: Default::default(),
            train: Arc::new(self.source.clone()),
            valid: valid.clone(),
            test: Some(valid),
            unit: Unit::Samples,
            export: Box::new(move |objective: &O::InnerModule, path: &Path| {
                fs::create_dir_all(path)?;
                let weight = bundle(objective).to_data();
                Ok(fs::write(path.join("weight"), weight.as_bytes())?)
            }),
            after_validation: None,
            options,
        }
        .launch()
    }
}

/// Like a recipe's `[training]`.
const TRAINING: &str = r#"
    steps = 20
    epochs = 0
    batch_size = 64
    accumulation = 1
    precision = "f32"
    gradient_checkpointing = false
    ema = 0.0
    log_every = 1
    validate_every = 5
    checkpoint_every = 0
    keep = 2
    metric = "loss"
    patience = 0
"#;

fn floats(bytes: &[u8]) -> Vec<f32> {
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks(4).map(float).collect()
}

fn assert_near(ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len());
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= tolerance, "{ours:?}, not {theirs:?}");
    }
}

struct Outcome {
    _folder: TempDir,
    path: PathBuf,
}

impl Outcome {
    fn summary(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path.join("summary.json")).unwrap()).unwrap()
    }

    fn losses(&self, split: &str) -> Vec<(u64, f64)> {
        let log = fs::read_to_string(self.path.join("metrics.jsonl")).unwrap();
        let events = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_split = events.filter(|event| event["split"] == split);
        let figure = |event: Value| {
            (
                event["step"].as_u64().unwrap(),
                event["metrics"]["loss"].as_f64().unwrap(),
            )
        };
        of_split.map(figure).collect()
    }

    fn weight(&self) -> Vec<f32> {
        floats(&fs::read(self.path.join("model/weight")).unwrap())
    }

    /// A tensor of the model of a checkpoint.
    fn kept(&self, step: u64, name: &str) -> Vec<f32> {
        let folder = self.path.join(format!("checkpoints/step-{step:08}"));
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor(&format!("objective.{name}")).unwrap();
        floats(tensor.data())
    }
}

#[test]
fn accumulation_changes_nothing() {
    let step = |batch_size: u64, accumulation| {
        let mut bench = Bench::new();
        bench.source.batch_size = batch_size;
        bench.training.accumulation = accumulation;
        bench.optimizer.clip = 0.5;
        let (result, outcome) = bench.train();
        result.unwrap();
        (outcome.weight(), outcome.losses("train"))
    };
    let (weight, losses) = step(64, 1);
    for (batch_size, accumulation) in [(32, 2), (8, 8)] {
        let (other, other_losses) = step(batch_size, accumulation);
        for (a, b) in weight.iter().zip(&other) {
            assert!((a - b).abs() < 1e-6 * a.abs(), "{weight:?}, {other:?}");
        }
        for ((_, a), (_, b)) in losses.iter().zip(&other_losses) {
            assert!((a - b).abs() < 1e-6 * a.abs().max(1e-3), "{a}, {b}");
        }
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing_and_is_counted() {
    for backend in WAYS {
        let mut bench = Bench::on(backend);
        // Batch 6 has no finite loss; that of batch 9 is finite and its gradient is not.
        bench.source.spoilt = |number| match number {
            6 => Some(f32::NAN),
            9 => Some(-1e30),
            _ => None,
        };
        let (result, outcome) = bench.train();
        assert_eq!(result.unwrap(), Status::Done);
        let summary = outcome.summary();
        assert_eq!(
            (&summary["skipped_steps"], &summary["rollbacks"]),
            (&2.into(), &0.into())
        );
        let steps: Vec<_> = outcome
            .losses("train")
            .iter()
            .map(|(step, _)| *step)
            .collect();
        let expected: Vec<_> = (1..=20).filter(|step| ![7, 10].contains(step)).collect();
        assert_eq!(steps, expected);
        let valid = outcome.losses("valid");
        assert!(valid.iter().all(|(_, loss)| loss.is_finite()), "{valid:?}");
    }
}

#[test]
fn figures_that_are_read_late_are_the_same() {
    let train = |backend, kind, clip, ema, spoilt| {
        let mut bench = Bench::on(backend);
        bench.training.log_every = 6;
        bench.training.accumulation = 2;
        bench.training.validate_every = 10;
        bench.training.ema = ema;
        bench.optimizer = OptimizerRecipe {
            kind,
            clip,
            weight_decay: 0.01,
            ..OptimizerRecipe::adamw(0.02)
        };
        bench.source.spoilt = spoilt;
        let (result, outcome) = bench.train();
        assert_eq!(result.unwrap(), Status::Done);
        outcome
    };
    let sound: fn(u64) -> Option<f32> = |_| None;
    let spoilt: fn(u64) -> Option<f32> = |number| match number {
        3 => Some(f32::NAN),
        7 => Some(-1e30),
        _ => None,
    };
    use OptimizerKind::*;
    let kinds = [Sgd, Adam, AdamW, Adafactor, Lamb, Lion, Muon];
    let sound = kinds.map(|kind| (kind, 0.5, 0.9, sound));
    // Not for an average or rules that count steps: those between a skipped one and its reading count one too many.
    let spoilt = [0.0, 0.5].map(|clip| (Sgd, clip, 0.0, spoilt));
    for (kind, clip, ema, spoilt) in sound.into_iter().chain(spoilt) {
        let [at_once, late] = WAYS.map(|backend| train(backend, kind, clip, ema, spoilt));
        for split in ["train", "valid"] {
            let (at_once, late) = (at_once.losses(split), late.losses(split));
            assert_eq!(at_once.len(), late.len());
            for ((step, a), (other, b)) in at_once.iter().zip(&late) {
                assert_eq!(step, other);
                assert!(
                    (a - b).abs() < 1e-5 * a.abs(),
                    "{kind:?}, {split}, step {step}: {a}, {b}"
                );
            }
        }
        let (at_once, late) = (at_once.summary(), late.summary());
        assert_eq!(at_once["skipped_steps"], late["skipped_steps"]);
    }
}

#[test]
fn a_run_that_diverges_goes_back_and_on_at_a_lower_rate() {
    for backend in WAYS {
        let mut bench = Bench::on(backend);
        bench.training.steps = 200;
        // The curvature is about 1/6: far beyond 2 over that, each step multiplies the error.
        bench.optimizer.lr = 1e4;
        bench.guard = GuardRecipe {
            skips: 2,
            rollbacks: 1,
            rollback_lr: 1e-4,
            spike: 0.0,
        };
        let (result, outcome) = bench.train();
        assert_eq!(result.unwrap(), Status::Done);
        let summary = outcome.summary();
        assert_eq!(
            (&summary["status"], &summary["rollbacks"]),
            (&"completed".into(), &1.into())
        );
        // Three that lost it, and none since.
        assert_eq!(summary["skipped_steps"], 3);
        let losses = outcome.losses("train");
        let steps: Vec<_> = losses.iter().map(|(step, _)| *step).collect();
        assert!(
            steps.is_sorted_by(|a, b| a < b),
            "a step occurs twice: {steps:?}"
        );
        let valid = outcome.losses("valid");
        let worst = valid.iter().map(|(_, loss)| *loss).fold(0.0, f64::max);
        assert!(
            worst > 1e12 && valid[valid.len() - 1].1 < 1e-6 * worst,
            "{valid:?}"
        );
    }
}

#[test]
fn a_run_that_stays_lost_stops_and_says_where() {
    for backend in WAYS {
        let mut bench = Bench::on(backend);
        bench.guard = GuardRecipe {
            skips: 1,
            rollbacks: 2,
            ..GuardRecipe::default()
        };
        bench.source.spoilt = |number| (number >= 12).then_some(f32::INFINITY);
        let (result, outcome) = bench.train();
        let failure = result.unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        let message = failure.to_string();
        // Batches 12 to 17: each time it goes back it is past those that it was lost by.
        for words in [
            "not finite for 2 steps up to step 7",
            "after 2 rollbacks",
            "optimizer.lr",
        ] {
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(outcome.summary()["status"], "failed");
        assert!(outcome.path.join("checkpoints/step-00000010").is_dir());

        let mut bench = Bench::on(backend);
        bench.guard = GuardRecipe {
            skips: 0,
            ..GuardRecipe::default()
        };
        bench.source.spoilt = |_| Some(f32::NAN);
        let (result, _) = bench.train();
        let message = result.unwrap_err().to_string();
        assert!(
            message.contains("no checkpoint was written before"),
            "{message}"
        );
    }
}

#[test]
fn a_breakdown_of_the_backend_is_one_sentence() {
    let mut bench = Bench::new();
    bench.source.spoilt = |number| (number == 12).then_some(1e7);
    let (result, outcome) = bench.train();
    let failure = result.unwrap_err();
    assert_eq!(failure.exit_code(), 1);
    let message = failure.to_string();
    assert!(
        message.starts_with("the device is out of memory"),
        "{message}"
    );
    assert!(
        message.contains("--resume") && message.lines().count() == 1,
        "{message}"
    );
    assert_eq!(outcome.summary()["status"], "failed");
    assert!(outcome.path.join("checkpoints/step-00000010").is_dir());
}

#[test]
fn a_backend_without_bf16_says_so() {
    let error = check_precision::<NdArray>(ComputePrecision::Bf16, &Default::default());
    let message = error.unwrap_err().to_string();
    assert!(
        message.starts_with("training.precision is \"bf16\", which the backend ndarray"),
        "{message}"
    );
    assert_eq!(
        check_precision::<Flex>(ComputePrecision::Bf16, &Default::default()),
        Ok(())
    );
}

fn resume(options: &mut Options) {
    options.existing = Existing::Resume;
}

#[test]
fn a_run_whose_best_step_was_skipped_can_be_resumed() {
    for backend in WAYS {
        let mut bench = Bench::on(backend);
        bench.training.steps = 14;
        // Step 10 is skipped and the best: its weights are those of step 9. Nothing is better after it.
        bench.source.spoilt = |number| (number >= 9).then_some(f32::NAN);
        assert_eq!(bench.launch(|_| {}).unwrap(), Status::Done);
        let summary = |bench: &Bench| {
            let text = fs::read_to_string(bench.path().join("summary.json")).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let before = summary(&bench);
        assert_eq!(before["best"]["step"], 10);
        assert_eq!(bench.launch(resume).unwrap(), Status::Done);
        let after = summary(&bench);
        assert_eq!(after["best"], before["best"]);
        assert_eq!(after["test"], before["test"]);
    }
}

#[test]
fn a_best_step_on_the_way_to_being_lost_is_no_place_to_go_back_to() {
    for backend in WAYS {
        let mut bench = Bench::on(backend);
        bench.training.keep = 1;
        bench.training.checkpoint_every = 3;
        bench.guard.skips = 3;
        // Step 10 is the best of those validated, and the first of four that lose the run.
        bench.source.spoilt = |number| (9..13).contains(&number).then_some(f32::NAN);
        let (result, outcome) = bench.train();
        assert_eq!(result.unwrap(), Status::Done);
        assert_eq!(outcome.summary()["rollbacks"], 1);
        let steps: Vec<_> = outcome.losses("train").iter().map(|(at, _)| *at).collect();
        assert_eq!(steps, (1..=20).collect::<Vec<_>>());
    }
}

#[test]
fn batches_that_lose_a_run_are_left_out_once_it_went_back() {
    for backend in WAYS {
        let mut bench = Bench::on(backend);
        bench.guard.skips = 1;
        bench.source.spoilt = |number| [12, 13].contains(&number).then_some(f32::NAN);
        let (result, outcome) = bench.train();
        assert_eq!(result.unwrap(), Status::Done);
        let summary = outcome.summary();
        assert_eq!(
            (&summary["rollbacks"], &summary["skipped_steps"]),
            (&1.into(), &2.into())
        );
    }
}

#[test]
fn the_bundle_and_the_test_score_are_those_of_the_best_step_that_still_counts() {
    for backend in WAYS {
        let mut bench = Bench::on(backend);
        bench.guard = GuardRecipe {
            skips: 1,
            // Too slow to be better again.
            rollback_lr: 1e-7,
            ..GuardRecipe::default()
        };
        // Back to step 10, then, as nothing was kept since, to step 5.
        bench.source.spoilt = |number| (10..14).contains(&number).then_some(f32::NAN);
        let (result, outcome) = bench.train();
        assert_eq!(result.unwrap(), Status::Done);
        let summary = outcome.summary();
        assert_eq!(summary["rollbacks"], 2);
        let best = &summary["best"];
        assert_eq!(best["step"], 5);
        assert_eq!(best["metrics"]["loss"], summary["test"]["metrics"]["loss"]);
        assert_eq!(outcome.kept(5, "weight"), outcome.weight());
    }
}

#[test]
fn two_starts_on_one_directory_are_one_run() {
    for _ in 0..20 {
        let bench = Bench::new();
        let results = std::thread::scope(|scope| {
            let start = || scope.spawn(|| bench.launch(|_| {}));
            [start(), start()].map(|thread| thread.join().unwrap())
        });
        let (done, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((done.len(), refused.len()), (1, 1), "{refused:?}");
        let message = refused[0].as_ref().unwrap_err().to_string();
        let proper = ["exists already", "another process"];
        assert!(
            proper.iter().any(|words| message.contains(words)),
            "{message}"
        );
        let outcome = bench.outcome();
        assert_eq!(outcome.summary()["status"], "completed");
        assert_eq!(outcome.losses("train").len(), 20);
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_is_there_is_filled_and_not_replaced() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let bench = Bench::new();
    let elsewhere = bench.folder.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("lost+found")).unwrap();
    let inode = fs::metadata(&elsewhere).unwrap().ino();
    symlink(&elsewhere, bench.path()).unwrap();
    let replace = |options: &mut Options| options.existing = Existing::Replace;
    for change in [(|_: &mut Options| {}) as fn(&mut Options), replace] {
        assert_eq!(bench.launch(change).unwrap(), Status::Done);
        assert!(bench.path().is_symlink());
        assert!(elsewhere.join("summary.json").is_file());
        assert_eq!(fs::metadata(&elsewhere).unwrap().ino(), inode);
        // What a link inside leads to is no part of the run.
        fs::create_dir_all(bench.folder.path().join("mine")).unwrap();
        fs::write(bench.folder.path().join("mine/letter"), "hello").unwrap();
        symlink(bench.folder.path().join("mine"), elsewhere.join("link")).unwrap();
    }
    bench.launch(replace).unwrap();
    assert!(!elsewhere.join("link").is_symlink());
    assert!(bench.folder.path().join("mine/letter").is_file());
    assert!(elsewhere.join("lost+found").is_dir());
}

#[test]
fn sessions_in_one_process_do_not_disturb_each_other() {
    let train = |seed: f32| {
        let mut bench = Bench::new();
        bench.training.steps = 300;
        let weight = Tensor::from_data([seed, seed], &Default::default());
        let noisy = NoisyLine::<B> {
            line: Line {
                weight: Param::from_tensor(weight),
            },
        };
        let bundle = |noisy: &NoisyLine<Flex>| noisy.line.weight.val();
        bench.launch_objective(noisy, bundle, |_| {}).unwrap();
        bench.outcome().losses("train")
    };
    let alone = [train(0.5), train(0.25)];
    let together = std::thread::scope(|scope| {
        let start = |seed| scope.spawn(move || train(seed));
        [start(0.5), start(0.25)].map(|thread| thread.join().unwrap())
    });
    assert!(together == alone);
}

#[test]
fn a_run_that_went_back_and_is_resumed_ends_as_one_that_was_not_interrupted() {
    let interrupt = Interrupt::new();
    let train = |bench: &Bench, change: &dyn Fn(&mut Options)| bench.launch(change).unwrap();
    let bench = || {
        let mut bench = Bench::new();
        bench.guard.skips = 1;
        bench.training.steps = 40;
        bench.source.spoilt = |number| [12, 13, 31, 32].contains(&number).then_some(f32::NAN);
        bench
    };
    let whole = bench();
    train(&whole, &|_| {});
    let whole = whole.outcome();
    assert_eq!(whole.summary()["rollbacks"], 2);
    // A stop that was requested before is heeded after the first step of each session.
    interrupt.request();
    let stopped = bench();
    let mut sessions = 0;
    let heeds = |options: &mut Options| options.interrupt = interrupt.clone();
    let mut status = train(&stopped, &heeds);
    while status == Status::Interrupted {
        sessions += 1;
        status = train(&stopped, &|options| {
            heeds(options);
            resume(options);
        });
    }
    assert!(sessions > 30, "{sessions}");
    let stopped = stopped.outcome();
    for split in ["train", "valid"] {
        assert_eq!(stopped.losses(split), whole.losses(split));
    }
    assert_eq!(stopped.weight(), whole.weight());
    assert_eq!(stopped.summary()["best"], whole.summary()["best"]);
}

#[test]
fn a_loss_of_two_terms_is_the_same_however_a_step_is_cut() {
    let train = |backend, batch_size: u64, accumulation| {
        let mut bench = Bench::on(backend);
        bench.source.batch_size = batch_size;
        // How many rows the second loss is about differs from one micro-batch to the next; some have none.
        bench.source.denominators = |_, points| {
            let second: f32 = points.chosen().iter().sum();
            vec![points.y.len() as f64, f64::from(second)]
        };
        bench.training.accumulation = accumulation;
        bench.training.log_every = 3;
        bench.optimizer.clip = 0.5;
        let two = TwoLosses::<B> { line: line() };
        let bundle = |two: &TwoLosses<Flex>| two.line.weight.val();
        bench.launch_objective(two, bundle, |_| {}).unwrap();
        bench.outcome()
    };
    for backend in WAYS {
        let whole = train(backend, 64, 1);
        for (batch_size, accumulation) in [(32, 2), (4, 16)] {
            let other = train(backend, batch_size, accumulation);
            assert_near(&other.weight(), &whole.weight(), 1e-6);
            for ((_, a), (_, b)) in whole.losses("train").iter().zip(&other.losses("train")) {
                assert!((a - b).abs() < 1e-6 * a, "{a}, {b}");
            }
        }
    }
    // The first line of the log, worked out: means over both kinds of rows, at the first weights and two steps on.
    let outcome = train(BackendName::Flex, 64, 1);
    let mut weight = [0.5f64, 0.5];
    let source = Source::new(64);
    let (mut sums, mut counts) = ([0.0; 2], [0.0; 2]);
    for number in 0..3 {
        let points = source.batch(number);
        let mut gradients = [[0.0; 2]; 2];
        let mut here = [0.0; 2];
        for ((x, y), chosen) in points.x.chunks(2).zip(&points.y).zip(points.chosen()) {
            let x = [f64::from(x[0]), f64::from(x[1])];
            let out = x[0] * weight[0] + x[1] * weight[1];
            let errors = [out - f64::from(*y), out - 1.0];
            for (term, share) in [1.0, 0.5 * f64::from(chosen)].into_iter().enumerate() {
                sums[term] += share * errors[term].powi(2);
                (0..2).for_each(|k| gradients[term][k] += 2.0 * share * errors[term] * x[k]);
            }
            here[0] += 1.0;
            here[1] += f64::from(chosen);
        }
        let gradient = [0, 1].map(|k| gradients[0][k] / here[0] + gradients[1][k] / here[1]);
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let scale = (0.5 / (norm + 1e-6)).min(1.0);
        (0..2).for_each(|k| weight[k] -= 0.1 * scale * gradient[k]);
        (0..2).for_each(|term| counts[term] += here[term]);
    }
    let expected = sums[0] / counts[0] + sums[1] / counts[1];
    let (step, loss) = outcome.losses("train")[0];
    assert_eq!(step, 3);
    assert!(
        (loss - expected).abs() < 1e-5 * expected,
        "{loss}, not {expected}"
    );
}

#[test]
fn a_loss_of_two_terms_says_what_they_are_divided_by_or_is_not_cut() {
    let mut bench = Bench::new();
    bench.training.accumulation = 2;
    let two = TwoLosses::<B> { line: line() };
    let bundle = |two: &TwoLosses<Flex>| two.line.weight.val();
    let failed = bench.launch_objective(two, bundle, |_| {}).unwrap_err();
    let message = failed.to_string();
    assert!(message.contains("the loss has 2 terms"), "{message}");
}

#[test]
fn batches_without_a_target_are_passed_over() {
    for backend in WAYS {
        let train = |accumulation, denominators| {
            let mut bench = Bench::on(backend);
            bench.source.denominators = denominators;
            bench.source.spoilt = |number| (number % 2 == 1).then_some(1e7);
            bench.training.accumulation = accumulation;
            bench.training.log_every = 2;
            bench.training.validate_every = 4;
            bench.training.ema = 0.5;
            bench.train()
        };
        // A forward pass of every second batch would end the training.
        let empty: fn(u64, &Points) -> Vec<f64> =
            |number, _| vec![64.0 * ((number + 1) % 2) as f64];
        let (result, parts) = train(2, empty);
        assert_eq!(result.unwrap(), Status::Done);
        // Every second step has nothing: it counts as a step, and changes nothing.
        let (result, steps) = train(1, empty);
        assert_eq!(result.unwrap(), Status::Done);
        let losses = |outcome: &Outcome| {
            let losses = outcome.losses("train").into_iter();
            losses.map(|(_, loss)| loss).collect::<Vec<_>>()
        };
        assert_eq!(losses(&steps).len(), 10);
        // Of two steps one has targets here, and both there.
        assert_ne!(losses(&steps), losses(&parts));
        assert_eq!(steps.summary()["skipped_steps"], 0);
        assert!(losses(&steps)[9] < losses(&steps)[0]);
        assert!(
            parts
                .weight()
                .iter()
                .chain(&steps.weight())
                .all(|w| w.is_finite())
        );
    }
}

#[test]
fn a_micro_batch_without_targets_leaves_the_step_as_it_is() {
    let train = |accumulation, batch: fn(u64) -> Option<f32>, denominators| {
        let mut bench = Bench::new();
        bench.training.accumulation = accumulation;
        bench.training.steps = 1;
        bench.source.spoilt = batch;
        bench.source.denominators = denominators;
        let (result, outcome) = bench.train();
        result.unwrap();
        outcome.weight()
    };
    let first_alone = train(1, |_| None, |_, _| vec![64.0]);
    let with_nothing = train(
        3,
        |number| (number > 0).then_some(1e7),
        |number, _| vec![if number == 0 { 64.0 } else { 0.0 }],
    );
    assert_eq!(first_alone, with_nothing);
}

#[test]
fn of_a_validation_without_targets_the_newest_step_is_kept() {
    let mut bench = Bench::new();
    bench.valid.denominators = |_, _| vec![0.0];
    let (result, outcome) = bench.train();
    assert_eq!(result.unwrap(), Status::Done);
    let summary = outcome.summary();
    assert_eq!(summary["best"]["step"], 20);
    assert!(summary["best"]["metrics"]["loss"].is_null());
    assert_eq!(outcome.weight(), outcome.kept(20, "weight"));
    assert_ne!(outcome.weight(), outcome.kept(15, "weight"));
}

#[test]
fn an_objective_says_which_values_of_its_metrics_are_better() {
    let mut bench = Bench::new();
    bench.training.metric = "distance".into();
    let (result, outcome) = bench.train();
    result.unwrap();
    let summary = outcome.summary();
    assert_eq!(summary["best"]["step"], 20, "the distance falls");
    assert_eq!(summary["better"]["distance"], "lower");
}

#[test]
fn a_teacher_follows_the_steps_that_count_and_is_resumed() {
    let followed = || {
        let teacher = Tensor::<B, 1>::from_data([1.0, -1.0], &Default::default());
        Followed {
            line: line(),
            teacher: Param::from_tensor(teacher).set_require_grad(false),
        }
    };
    let bundle = |followed: &Followed<Flex>| followed.teacher.val();
    for backend in WAYS {
        let bench = || {
            let mut bench = Bench::on(backend);
            bench.training.steps = 6;
            bench.training.checkpoint_every = 1;
            bench.training.keep = 9;
            bench.source.spoilt = |number| (number == 3).then_some(f32::NAN);
            bench
        };
        let whole = bench();
        whole.launch_objective(followed(), bundle, |_| {}).unwrap();
        let whole = whole.outcome();
        let mut teacher = vec![1.0, -1.0];
        for step in [1, 2, 3, 5, 6] {
            let weight = whole.kept(step, "line.weight");
            let follow = |(old, new): (&f32, &f32)| old * 0.75 + new * 0.25;
            teacher = teacher.iter().zip(&weight).map(follow).collect();
            assert_near(&whole.kept(step, "teacher"), &teacher, 1e-6);
        }
        let stopped = bench();
        let interrupt = Interrupt::new();
        interrupt.request();
        let mut existing = Existing::Refuse;
        while stopped
            .launch_objective(followed(), bundle, |options| {
                options.interrupt = interrupt.clone();
                options.existing = existing;
            })
            .unwrap()
            == Status::Interrupted
        {
            existing = Existing::Resume;
        }
        let stopped = stopped.outcome();
        assert_eq!(stopped.kept(6, "teacher"), whole.kept(6, "teacher"));
        assert_eq!(stopped.weight(), whole.weight());
    }
}

#[test]
fn what_is_carried_follows_the_steps_that_count_is_not_averaged_and_is_emptied_by_going_back() {
    let bundle = |counting: &Counting<Flex>| counting.line.weight.val();
    for backend in WAYS {
        let mut bench = Bench::on(backend);
        bench.guard.skips = 1;
        bench.training.checkpoint_every = 1;
        bench.training.keep = 99;
        bench.training.ema = 0.5;
        // One step is skipped; two in a row, and the run goes back.
        bench.source.spoilt = |number| [4, 12, 13].contains(&number).then_some(f32::NAN);
        let count = Tensor::<B, 1>::zeros([1], &Default::default());
        let counting = Counting {
            line: line(),
            count: Param::from_tensor(count).set_require_grad(false),
        };
        bench.launch_objective(counting, bundle, |_| {}).unwrap();
        let outcome = bench.outcome();
        assert_eq!(outcome.summary()["rollbacks"], 1);
        for (step, count) in [(4, 4.0), (6, 5.0), (12, 11.0), (13, 1.0), (20, 8.0)] {
            assert_eq!(outcome.kept(step, "count"), [count], "step {step}");
        }
        let averages = "checkpoints/step-00000020/ema.safetensors";
        let averages = fs::read(outcome.path.join(averages)).unwrap();
        let averages = SafeTensors::deserialize(&averages).unwrap();
        assert_eq!(averages.names(), ["line.weight"]);
    }
}

fn normed() -> Normed<B> {
    Normed {
        norm: BatchNorm::new(2, &Default::default()),
        line: line(),
    }
}

#[test]
fn a_loss_over_the_whole_batch_refuses_to_be_cut() {
    let mut bench = Bench::new();
    bench.training.accumulation = 2;
    let bundle = |normed: &Normed<Flex>| normed.line.weight.val();
    let failure = bench
        .launch_objective(normed(), bundle, |_| {})
        .unwrap_err();
    assert_eq!(failure.exit_code(), 2);
    let message = failure.to_string();
    assert!(
        message.starts_with("training.accumulation is 2; "),
        "{message}"
    );
    assert!(!bench.path().exists());
}

#[test]
fn a_skipped_step_and_a_lower_precision_leave_statistics_of_batch_norms_alone() {
    // Mean and unbiased variance of each column.
    let statistics = |points: &Points| {
        let column = |k: usize| {
            points
                .x
                .iter()
                .skip(k)
                .step_by(2)
                .copied()
                .collect::<Vec<f32>>()
        };
        let of = |values: Vec<f32>| {
            let n = values.len() as f32;
            let mean = values.iter().sum::<f32>() / n;
            let squares: f32 = values.iter().map(|value| (value - mean).powi(2)).sum();
            (mean, squares / (n - 1.0))
        };
        [0, 1].map(|k| of(column(k)))
    };
    let bundle = |normed: &Normed<Flex>| normed.line.weight.val();
    for (backend, precision) in [
        (WAYS[0], ComputePrecision::F32),
        (WAYS[1], ComputePrecision::F32),
        (WAYS[0], ComputePrecision::Bf16),
    ] {
        let mut bench = Bench::on(backend);
        bench.training.precision = precision;
        bench.training.steps = 4;
        bench.training.checkpoint_every = 1;
        bench.training.keep = 9;
        // The batch of step 3 has no finite loss; what its norm would follow is finite.
        bench.source.spoilt = |number| (number == 2).then_some(f32::NAN);
        bench.launch_objective(normed(), bundle, |_| {}).unwrap();
        let source = bench.source.clone();
        let outcome = bench.outcome();
        let (mut mean, mut var) = ([0.0f32; 2], [1.0f32; 2]);
        for step in [1, 2, 4] {
            for (k, (of_batch, unbiased)) in statistics(&source.batch(step - 1)).iter().enumerate()
            {
                mean[k] = mean[k] * 0.9 + of_batch * 0.1;
                var[k] = var[k] * 0.9 + unbiased * 0.1;
            }
            assert_near(&outcome.kept(step, "norm.running_mean"), &mean, 1e-6);
            assert_near(&outcome.kept(step, "norm.running_var"), &var, 1e-6);
        }
    }
}
