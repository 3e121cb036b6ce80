//! What a model must offer to be trained: the loss of a batch, as sums, and a tally of a split.
//!
//! In: a batch. Out: sums over its targets, divided only when all batches of a step or a split are in, so
//! that neither accumulation nor batch size changes what is measured.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::{AutodiffModule, ModuleDisplay, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, FloatDType};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};

use crate::metrics::{Metrics, Report};
use crate::recipe::{ComputePrecision, Impossible};
use crate::source::Counts;

/// A model with its loss.
pub trait Objective<B: Backend>: Module<B> + ModuleDisplay {
    /// What one forward pass takes; host memory, the same for every backend.
    type Batch: Counts + Send + Sync + 'static;
    /// What validation collects.
    type Tally: Tally;
    /// Names of [`LossSums::sums`], each a metric once divided by the targets: `accuracy`.
    const SUMS: &'static [&'static str];
    /// What validation reports and the dashboard shows.
    const VALID_METRICS: &'static [&'static str];

    /// Loss and further sums over the targets of a batch.
    fn loss(&self, batch: &Self::Batch, device: &B::Device) -> LossSums<B>;

    /// Collects a batch of a split that is only looked at.
    fn evaluate(&self, batch: &Self::Batch, device: &B::Device) -> Self::Tally;

    /// Adds what follows from the other figures: perplexity from loss.
    fn derive(_metrics: &mut Metrics) {}
}

/// An objective that trains on `B` and validates on the backend below it, with one kind of batch.
pub trait Trainable<B: AutodiffBackend>:
    Objective<B>
    + AutodiffModule<
        B,
        InnerModule: Objective<
            B::InnerBackend,
            Batch = <Self as Objective<B>>::Batch,
            Tally = <Self as Objective<B>>::Tally,
        >,
    > + 'static
{
}

impl<B, O> Trainable<B> for O
where
    B: AutodiffBackend,
    O: Objective<B> + AutodiffModule<B> + 'static,
    O::InnerModule: Objective<
            B::InnerBackend,
            Batch = <O as Objective<B>>::Batch,
            Tally = <O as Objective<B>>::Tally,
        >,
{
}

/// Sums over the targets of a batch.
#[derive(Clone, Debug)]
pub struct LossSums<B: Backend> {
    /// Sum of the loss, `[1]`; differentiable.
    pub loss: Tensor<B, 1>,
    /// Further sums in the order of [`Objective::SUMS`], `[1]` each.
    pub sums: Vec<Tensor<B, 1>>,
    /// Over how many targets.
    pub targets: usize,
    /// What the loss is divided by for its mean: the targets, or the sum of their class weights.
    pub weight: f64,
}

impl<B: Backend> LossSums<B> {
    /// Sums over targets of equal weight.
    pub fn new(loss: Tensor<B, 1>, sums: Vec<Tensor<B, 1>>, targets: usize) -> Self {
        Self {
            loss,
            sums,
            targets,
            weight: targets as f64,
        }
    }

    /// Sums over the targets of both.
    pub fn merged(old: Option<Self>, new: Self) -> Self {
        let Some(old) = old else {
            return new;
        };
        let pairs = old.sums.into_iter().zip(new.sums);
        Self {
            loss: old.loss + new.loss,
            sums: pairs.map(|(old, new)| old + new).collect(),
            targets: old.targets + new.targets,
            weight: old.weight + new.weight,
        }
    }

    /// The mean of the loss, read from the device.
    pub fn mean_loss(&self) -> f64 {
        scalar(self.loss.clone()) / self.weight
    }

    /// The mean of the loss, `[1]`, where it is.
    pub fn unread_mean_loss(&self) -> Tensor<B, 1> {
        self.loss.clone().cast(FloatDType::F32) / self.weight
    }
}

/// Collects what a whole split is judged by.
pub trait Tally: Default + Send + 'static {
    /// Takes in another part of the split.
    fn merge(&mut self, other: Self);
    /// Figures over everything taken in.
    fn metrics(&self) -> Metrics;
    /// What else is worth writing down: a confusion matrix, figures by class.
    fn details(&self) -> Option<serde_json::Value> {
        None
    }
}

/// A tally of sums: each metric is a mean over the targets of the split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SumTally {
    targets: usize,
    weight: f64,
    loss: f64,
    sums: BTreeMap<&'static str, f64>,
}

impl SumTally {
    /// Reads the sums of one batch; `names` are [`Objective::SUMS`].
    pub fn read<B: Backend>(sums: LossSums<B>, names: &'static [&'static str]) -> Self {
        let values = names.iter().copied().zip(sums.sums.into_iter().map(scalar));
        Self {
            targets: sums.targets,
            weight: sums.weight,
            loss: scalar(sums.loss),
            sums: values.collect(),
        }
    }

    /// Over how many targets.
    pub fn targets(&self) -> usize {
        self.targets
    }
}

impl Tally for SumTally {
    fn merge(&mut self, other: Self) {
        self.targets += other.targets;
        self.weight += other.weight;
        self.loss += other.loss;
        for (name, sum) in other.sums {
            *self.sums.entry(name).or_default() += sum;
        }
    }

    fn metrics(&self) -> Metrics {
        let targets = self.targets.max(1) as f64;
        let mean = |(name, sum): (&&str, &f64)| (name.to_string(), sum / targets);
        let mut metrics: Metrics = self.sums.iter().map(mean).collect();
        let weight = if self.weight > 0.0 { self.weight } else { 1.0 };
        metrics.insert("loss".into(), self.loss / weight);
        metrics
    }
}

fn scalar<B: Backend>(tensor: Tensor<B, 1>) -> f64 {
    tensor.into_scalar().elem()
}

/// An objective as burn-train wants it: Burn's traits can't be implemented for other crates' models.
#[derive(Module, Debug)]
pub struct Trainee<B: Backend, O: Module<B>> {
    /// The model with its loss.
    pub objective: O,
    low_precision: bool,
    backend: std::marker::PhantomData<B>,
}

impl<B: Backend, O: Module<B>> Trainee<B, O> {
    /// Wraps an objective.
    pub fn new(objective: O, precision: ComputePrecision) -> Self {
        Self {
            objective,
            low_precision: precision == ComputePrecision::Bf16,
            backend: std::marker::PhantomData,
        }
    }
}

/// Refuses a precision that the backend does not compute in.
pub fn check_precision<B: Backend>(
    precision: ComputePrecision,
    device: &B::Device,
) -> Result<(), Impossible> {
    match precision {
        ComputePrecision::Bf16 if !B::supports_dtype(device, DType::BF16) => {
            let backend = B::name(device);
            let reason = format!("is \"bf16\", which the backend {backend} does not have");
            Err(Impossible::new("training.precision", reason))
        }
        _ => Ok(()),
    }
}

/// The same model with weights in bf16, whose gradients flow to the weights in f32.
fn lowered<B: Backend, O: Module<B>>(objective: O) -> O {
    struct Lower;
    impl<B: Backend> ModuleMapper<B> for Lower {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let (id, tensor, mapper) = param.consume();
            Param::from_mapped_value(id, tensor.cast(FloatDType::BF16), mapper)
        }
    }
    objective.map(&mut Lower)
}

/// A parameter's path inside the model: without [`Trainee`] and the objective around it.
pub fn model_path(path: &str) -> &str {
    let path = path.strip_prefix("objective.").unwrap_or(path);
    path.strip_prefix("model.").unwrap_or(path)
}

/// The step's gradient is that of the loss *sum*; the strategy divides by the targets of the whole step.
impl<B, O> TrainStep for Trainee<B, O>
where
    B: AutodiffBackend,
    O: Trainable<B>,
{
    type Input = O::Batch;
    type Output = StepOutput<B::InnerBackend>;

    fn step(&self, batch: Self::Input) -> TrainOutput<Self::Output> {
        let device = self.devices().into_iter().next().unwrap_or_default();
        let sums = match self.low_precision {
            true => lowered::<B, O>(self.objective.clone()).loss(&batch, &device),
            false => self.objective.loss(&batch, &device),
        };
        let gradients = sums.loss.backward();
        let sums = LossSums {
            loss: sums.loss.inner(),
            sums: sums.sums.into_iter().map(Tensor::inner).collect(),
            targets: sums.targets,
            weight: sums.weight,
        };
        TrainOutput::new(self, gradients, StepOutput::Sums(sums))
    }
}

impl<B: Backend, O: Objective<B>> InferenceStep for Trainee<B, O> {
    type Input = O::Batch;
    type Output = SplitOutput<O::Tally>;

    fn step(&self, batch: Self::Input) -> Self::Output {
        let device = self.devices().into_iter().next().unwrap_or_default();
        SplitOutput::Tally(self.objective.evaluate(&batch, &device))
    }
}

/// What a training step gives, and what the dashboard is sent after some of them.
pub enum StepOutput<B: Backend> {
    /// Sums of one micro-batch, still on the device.
    Sums(LossSums<B>),
    /// Figures since the last report.
    Report(Metrics),
}

impl<B: Backend> ItemLazy for StepOutput<B> {
    type ItemSync = Report;

    fn sync(self) -> Report {
        match self {
            Self::Sums(_) => Report::default(),
            Self::Report(metrics) => Report(metrics),
        }
    }
}

/// What a batch of a validation split gives, and what the dashboard is sent after all of them.
pub enum SplitOutput<T> {
    /// Of one batch.
    Tally(T),
    /// Of the split.
    Report(Metrics),
}

impl<T: Send> ItemLazy for SplitOutput<T> {
    type ItemSync = Report;

    fn sync(self) -> Report {
        match self {
            Self::Tally(_) => Report::default(),
            Self::Report(metrics) => Report(metrics),
        }
    }
}

impl<B: Backend> fmt::Debug for StepOutput<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sums(sums) => write!(f, "sums over {} targets", sums.targets),
            Self::Report(metrics) => write!(f, "{metrics:?}"),
        }
    }
}
