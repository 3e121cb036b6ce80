//! What a model must offer to be trained: the loss of a batch, as sums, and a tally of a split.
//!
//! In: a batch. Out: sums over its targets, divided only when all batches of a step or a split are in, so
//! that neither accumulation nor batch size changes what is measured.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::{AutodiffModule, ModuleDisplay, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, FloatDType};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};

use model::Cache;
use model::layers::batch_norm::{self, Proposal};

use crate::metrics::{Metric, Metrics, Report};
use crate::recipe::{ComputePrecision, Impossible};
use crate::source::Counts;

/// A model with its loss.
pub trait Objective<B: Backend>: Module<B> + ModuleDisplay {
    /// What one forward pass takes; host memory, the same for every backend.
    type Batch: Counts + Send + Sync + 'static;
    /// What validation collects.
    type Tally: Tally;
    /// Names of [`LossSums::sums`], each a metric once divided by the targets: `accuracy`.
    const MEANS: &'static [&'static str];
    /// What validation reports and the dashboard shows.
    const METRICS: &'static [Metric];
    /// Whether the loss compares the samples of a batch with each other, or normalises by them, so that a step can't be cut
    /// in micro-batches.
    const WHOLE_BATCH: bool = false;

    /// [`MEANS`](Self::MEANS), or those of the one objective that this holds.
    fn means(&self) -> &'static [&'static str] {
        Self::MEANS
    }

    /// [`METRICS`](Self::METRICS), or those of the one objective that this holds.
    fn metrics(&self) -> &'static [Metric] {
        Self::METRICS
    }

    /// [`WHOLE_BATCH`](Self::WHOLE_BATCH), or that of the one objective that this holds.
    fn whole_batch(&self) -> bool {
        Self::WHOLE_BATCH
    }

    /// Loss and further sums over the targets of a batch.
    fn loss(&self, batch: &Self::Batch, device: &B::Device) -> LossSums<B>;

    /// Collects a batch of a split that is only looked at.
    fn evaluate(&self, batch: &Self::Batch, device: &B::Device) -> Self::Tally;

    /// [`evaluate`](Self::evaluate) of the next batch of a split, where batches go on where those before them ended.
    ///
    /// - left: by the batch before; nothing at the beginning of a split
    fn evaluate_next(
        &self,
        batch: &Self::Batch,
        device: &B::Device,
        _left: &mut Option<Cache<B>>,
    ) -> Self::Tally {
        self.evaluate(batch, device)
    }

    /// Adds what follows from the other figures: perplexity from loss.
    fn derive(_metrics: &mut Metrics) {}

    /// The objective after an optimizer step that counts, where something of it follows the weights without a gradient: a
    /// teacher that is their average. Parameters keep their ids.
    fn after_step(&self) -> Option<Self> {
        None
    }

    /// The parameter that holds what a batch leaves for the next, where there is one. It is no weight: it is kept with them,
    /// and not averaged.
    fn carried(&self) -> Option<ParamId> {
        None
    }

    /// The objective with nothing [carried](Self::carried), where something can be: for a batch that does not go on where the
    /// last one ended. Parameters keep their ids.
    fn emptied(&self) -> Option<Self> {
        None
    }
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
    /// Further sums in the order of [`Objective::MEANS`], `[1]` each.
    pub sums: Vec<Tensor<B, 1>>,
    /// Over how many targets.
    pub targets: usize,
    /// What the loss is divided by for its mean: the targets, or the sum of their class weights.
    pub weight: f64,
    /// Further terms of the loss: their means are added to it.
    pub terms: Vec<Term<B>>,
}

/// A term of the loss, whose targets are others than those of the first.
#[derive(Clone, Debug)]
pub struct Term<B: Backend> {
    /// Its sum, `[1]`; differentiable.
    pub loss: Tensor<B, 1>,
    /// What it is divided by for its mean.
    pub weight: f64,
}

impl<B: Backend> LossSums<B> {
    /// Sums over targets of equal weight.
    pub fn new(loss: Tensor<B, 1>, sums: Vec<Tensor<B, 1>>, targets: usize) -> Self {
        Self::weighted(loss, sums, targets, targets as f64)
    }

    /// Sums over targets whose weights have this sum.
    pub fn weighted(
        loss: Tensor<B, 1>,
        sums: Vec<Tensor<B, 1>>,
        targets: usize,
        weight: f64,
    ) -> Self {
        Self {
            loss,
            sums,
            targets,
            weight,
            terms: Vec::new(),
        }
    }

    /// With a further term of the loss, which its batches name in [`Counts::denominators`].
    pub fn with_term(mut self, loss: Tensor<B, 1>, weight: f64) -> Self {
        self.terms.push(Term { loss, weight });
        self
    }

    /// Sums over the targets of both.
    pub fn merged(old: Option<Self>, new: Self) -> Self {
        let Some(old) = old else {
            return new;
        };
        let pairs = old.sums.into_iter().zip(new.sums);
        let terms = old.terms.into_iter().zip(new.terms);
        let add = |(old, new): (Term<B>, Term<B>)| Term {
            loss: old.loss + new.loss,
            weight: old.weight + new.weight,
        };
        Self {
            loss: old.loss + new.loss,
            sums: pairs.map(|(old, new)| old + new).collect(),
            targets: old.targets + new.targets,
            weight: old.weight + new.weight,
            terms: terms.map(add).collect(),
        }
    }

    /// Whether no term of the loss has a target.
    pub fn is_without_targets(&self) -> bool {
        self.weight == 0.0 && self.terms.iter().all(|term| term.weight == 0.0)
    }

    /// The mean of the loss, read from the device.
    pub fn mean_loss(&self) -> f64 {
        if self.terms.is_empty() {
            return scalar(self.loss.clone()) / self.weight;
        }
        let means = self.all_terms().into_iter();
        means.map(|(loss, weight)| scalar(loss) / weight).sum()
    }

    /// The mean of the loss, `[1]`, where it is.
    pub fn unread_mean_loss(&self) -> Tensor<B, 1> {
        let mean = |(loss, weight): (Tensor<B, 1>, f64)| loss.cast(FloatDType::F32) / weight;
        let means = self.all_terms().into_iter().map(mean);
        let sum = means.reduce(|sum, mean| sum + mean);
        sum.unwrap_or_else(|| self.loss.zeros_like())
    }

    /// What gradients are divided by: those of several terms are means already.
    pub fn gradient_weight(&self) -> f64 {
        if self.terms.is_empty() {
            self.weight
        } else {
            1.0
        }
    }

    /// Sum and weight of each term that has targets.
    fn all_terms(&self) -> Vec<(Tensor<B, 1>, f64)> {
        let first = (self.loss.clone(), self.weight);
        let others = self
            .terms
            .iter()
            .map(|term| (term.loss.clone(), term.weight));
        let all = std::iter::once(first).chain(others);
        all.filter(|(_, weight)| *weight > 0.0).collect()
    }
}

impl<B: AutodiffBackend> LossSums<B> {
    /// What a micro-batch's gradients are those of, `[1]`: the sum of the only term, or the part that the batch has in the
    /// mean of each of several.
    ///
    /// - whole: what each term is divided by in the whole step; empty where the batch is the whole step
    fn differentiated(&self, whole: &[f64]) -> Tensor<B, 1> {
        if self.terms.is_empty() {
            return self.loss.clone();
        }
        let losses = std::iter::once(&self.loss).chain(self.terms.iter().map(|term| &term.loss));
        let weights = std::iter::once(self.weight).chain(self.terms.iter().map(|term| term.weight));
        let weights = if whole.is_empty() {
            weights.collect()
        } else {
            whole.to_vec()
        };
        let means = losses.zip(weights).filter(|(_, weight)| *weight > 0.0);
        let sum = means
            .map(|(loss, weight)| loss.clone() / weight)
            .reduce(|a, b| a + b);
        sum.unwrap_or_else(|| self.loss.clone())
    }

    /// Without what is needed for gradients.
    fn inner(self) -> LossSums<B::InnerBackend> {
        let term = |term: Term<B>| Term {
            loss: term.loss.inner(),
            weight: term.weight,
        };
        LossSums {
            loss: self.loss.inner(),
            sums: self.sums.into_iter().map(Tensor::inner).collect(),
            targets: self.targets,
            weight: self.weight,
            terms: self.terms.into_iter().map(term).collect(),
        }
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
    /// Whether nothing taken in had a target.
    fn is_empty(&self) -> bool {
        false
    }
}

/// A tally of sums: each metric is a mean over the targets of the split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SumTally {
    targets: usize,
    /// Sum and weight of each term of the loss.
    terms: Vec<[f64; 2]>,
    sums: BTreeMap<&'static str, f64>,
}

impl SumTally {
    /// Reads the sums of one batch; `names` are [`Objective::MEANS`].
    pub fn read<B: Backend>(sums: LossSums<B>, names: &'static [&'static str]) -> Self {
        let values = names.iter().copied().zip(sums.sums.into_iter().map(scalar));
        let first = [scalar(sums.loss), sums.weight];
        let others = sums.terms.into_iter();
        let others = others.map(|term| [scalar(term.loss), term.weight]);
        Self {
            targets: sums.targets,
            terms: std::iter::once(first).chain(others).collect(),
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
        self.terms
            .resize(self.terms.len().max(other.terms.len()), [0.0; 2]);
        for (sum, [loss, weight]) in self.terms.iter_mut().zip(other.terms) {
            sum[0] += loss;
            sum[1] += weight;
        }
        for (name, sum) in other.sums {
            *self.sums.entry(name).or_default() += sum;
        }
    }

    fn metrics(&self) -> Metrics {
        let targets = self.targets.max(1) as f64;
        let mean = |(name, sum): (&&str, &f64)| (name.to_string(), sum / targets);
        let mut metrics: Metrics = self.sums.iter().map(mean).collect();
        let with_targets = self.terms.iter().filter(|[_, weight]| *weight > 0.0);
        let means = with_targets.map(|[loss, weight]| loss / weight);
        let loss = means.reduce(|sum, mean| sum + mean).unwrap_or(f64::NAN);
        metrics.insert("loss".into(), loss);
        metrics
    }

    fn is_empty(&self) -> bool {
        self.terms.iter().all(|[_, weight]| *weight == 0.0)
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

/// Refuses to cut a step whose loss runs over the whole batch.
pub fn check_accumulation<B: Backend, O: Objective<B>>(
    objective: &O,
    accumulation: u64,
) -> Result<(), Impossible> {
    if objective.whole_batch() && accumulation > 1 {
        let reason = format!(
            "is {accumulation}; this loss runs over a whole batch, so a step cannot be cut in parts: set it to 1, and \
             training.batch_size to {accumulation} times as much"
        );
        return Err(Impossible::new("training.accumulation", reason));
    }
    Ok(())
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

/// What a forward and a backward pass give.
pub struct Pass<B: AutodiffBackend> {
    /// Of the batch, on the device.
    pub sums: LossSums<B::InnerBackend>,
    /// To be divided by [`LossSums::gradient_weight`] of the whole step.
    pub grads: GradientsParams,
    /// What parameters without a gradient take on if the step counts: statistics of batch norms, states that are carried.
    pub proposals: Vec<Proposal<B>>,
}

impl<B: AutodiffBackend, O: Trainable<B>> Trainee<B, O> {
    /// A forward and a backward pass of a micro-batch.
    ///
    /// - whole: what each term of the loss is divided by in the whole step; empty where it has one, or where the batch is the
    ///   whole step
    pub fn pass(&self, batch: &O::Batch, whole: &[f64]) -> Pass<B> {
        let device = self.devices().into_iter().next().unwrap_or_default();
        let (sums, proposals) = batch_norm::collect(|| {
            if self.low_precision {
                lowered::<B, O>(self.objective.clone()).loss(batch, &device)
            } else {
                self.objective.loss(batch, &device)
            }
        });
        let gradients = sums.differentiated(whole).backward();
        Pass {
            sums: sums.inner(),
            grads: GradientsParams::from_grads(gradients, self),
            proposals,
        }
    }
}

impl<B, O> TrainStep for Trainee<B, O>
where
    B: AutodiffBackend,
    O: Trainable<B>,
{
    type Input = O::Batch;
    type Output = StepOutput<B::InnerBackend>;

    /// A pass whose batch is the whole step.
    fn step(&self, batch: Self::Input) -> TrainOutput<Self::Output> {
        let Pass { sums, grads, .. } = self.pass(&batch, &[]);
        TrainOutput {
            grads,
            item: StepOutput::Sums(sums),
        }
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
