//! Batch normalisation whose statistics a skipped step cannot move. Ioffe and Szegedy 2015,
//! <https://arxiv.org/abs/1502.03167>.
//!
//! In training a forward pass normalises by the batch and *proposes* its statistics; they are taken on with the step,
//! by [`commit`], or forgotten with it. Burn's own layer writes them while it computes, into memory that all clones of
//! it share: a step that is not finite would move them, and so would a copy in another precision.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;

use burn::module::{Initializer, Module, ModuleMapper, Param, ParamId};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, FloatDType};

use crate::ops;

/// Over all axes but the second; the names of Burn's own, which bundles know. Values are those of torch's `BatchNorm1d`
/// and `BatchNorm2d`.
#[derive(Module, Debug)]
pub struct BatchNorm<B: Backend> {
    /// Scale, `[channels]`.
    pub gamma: Param<Tensor<B, 1>>,
    /// Shift, `[channels]`.
    pub beta: Param<Tensor<B, 1>>,
    /// Mean of what was seen in training, `[channels]`; has no gradient.
    pub running_mean: Param<Tensor<B, 1>>,
    /// Its variance, unbiased, `[channels]`; has no gradient.
    pub running_var: Param<Tensor<B, 1>>,
    momentum: f64,
    epsilon: f64,
    /// Whether training normalises by the running statistics too, and leaves them as they are.
    frozen: bool,
}

impl<B: Backend> BatchNorm<B> {
    /// Share of the running statistics that a batch replaces.
    pub const MOMENTUM: f64 = 0.1;
    /// Added to the variance.
    pub const EPSILON: f64 = 1e-5;

    /// Scale one, shift zero, statistics of a standard normal distribution.
    pub fn new(channels: usize, device: &B::Device) -> Self {
        let statistic = |initializer: Initializer| {
            let values: Param<Tensor<B, 1>> = initializer.init([channels], device);
            values.set_require_grad(false)
        };
        Self {
            gamma: Initializer::Ones.init([channels], device),
            beta: Initializer::Zeros.init([channels], device),
            running_mean: statistic(Initializer::Zeros),
            running_var: statistic(Initializer::Ones),
            momentum: Self::MOMENTUM,
            epsilon: Self::EPSILON,
            frozen: false,
        }
    }

    /// The same with another momentum and epsilon.
    pub fn with_rates(self, momentum: f64, epsilon: f64) -> Self {
        Self {
            momentum,
            epsilon,
            ..self
        }
    }

    /// The same, which training normalises by the running statistics too, and leaves them as they are.
    pub fn frozen(self, frozen: bool) -> Self {
        Self { frozen, ..self }
    }

    /// - x, out: `[batch, channels, ...]`, of any precision; computed in f32
    ///
    /// # Panics
    ///
    /// In training, of a single value a channel: it has no variance.
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let precision = x.dtype();
        let x = x.cast(FloatDType::F32);
        let [gamma, beta] =
            [&self.gamma, &self.beta].map(|param| param.val().cast(FloatDType::F32));
        let out = if B::ad_enabled(&x.device()) && !self.frozen {
            self.by_batch(x, gamma, beta)
        } else {
            let statistics = [&self.running_mean, &self.running_var];
            let statistics = statistics.map(|param| param.val().cast(FloatDType::F32));
            ops::batch_norm_frozen(x, statistics, gamma, beta, self.epsilon)
        };
        if precision == DType::F32 {
            out
        } else {
            out.cast(precision)
        }
    }

    /// Normalised by the batch, whose statistics the running ones will follow.
    fn by_batch<const D: usize>(
        &self,
        x: Tensor<B, D>,
        gamma: Tensor<B, 1>,
        beta: Tensor<B, 1>,
    ) -> Tensor<B, D> {
        let n = x.shape().num_elements() / x.dims()[1].max(1);
        assert!(
            n > 1,
            "batch normalisation needs more than one value a channel to train"
        );
        let (out, mean, var) = ops::batch_norm(x, gamma, beta, self.epsilon);
        let unbiased = var * (n as f64 / (n - 1) as f64);
        follow(&self.running_mean, mean, self.momentum);
        follow(&self.running_var, unbiased, self.momentum);
        out
    }
}

/// A statistic of a batch that a parameter without a gradient would follow.
#[derive(Clone, Debug)]
pub struct Proposal<B: Backend> {
    id: ParamId,
    batch: Tensor<B, 1>,
    momentum: f64,
}

/// Proposes that a parameter follows a statistic of the batch, if the step counts: `(1 - momentum) * parameter + momentum *
/// batch`. Without [`collect`] around the pass the proposal is forgotten.
///
/// - batch: the parameter's values, flattened
pub fn follow<B: Backend, const D: usize>(
    param: &Param<Tensor<B, D>>,
    batch: Tensor<B, 1>,
    momentum: f64,
) {
    propose(Proposal {
        id: param.id,
        batch,
        momentum,
    });
}

thread_local! {
    /// Those of the pass that runs; nothing while nobody collects them.
    static PROPOSALS: RefCell<Option<Vec<Box<dyn Any>>>> = const { RefCell::new(None) };
}

fn propose<B: Backend>(proposal: Proposal<B>) {
    PROPOSALS.with_borrow_mut(|all| {
        if let Some(all) = all {
            all.push(Box::new(proposal));
        }
    });
}

/// Runs a forward pass, and gives what its layers propose, in the order of their calls.
pub fn collect<B: Backend, T>(pass: impl FnOnce() -> T) -> (T, Vec<Proposal<B>>) {
    PROPOSALS.set(Some(Vec::new()));
    let result = pass();
    let all = PROPOSALS.take().unwrap_or_default();
    let own = all.into_iter().filter_map(|any| any.downcast().ok());
    (
        result,
        own.map(|proposal: Box<Proposal<B>>| *proposal).collect(),
    )
}

/// The module with running statistics one batch further.
///
/// - finite: `[1]`; where it is false nothing changes
pub fn commit<B: AutodiffBackend, M: Module<B>>(
    module: M,
    proposals: &[Proposal<B>],
    finite: Option<Tensor<B::InnerBackend, 1, Bool>>,
) -> M {
    let mut batches: HashMap<ParamId, Vec<_>> = HashMap::new();
    for proposal in proposals {
        let batch = (proposal.batch.clone().inner(), proposal.momentum);
        batches.entry(proposal.id).or_default().push(batch);
    }
    module.map(&mut Commit::<B> { batches, finite })
}

/// Statistics of batches by the parameter that follows them, each with its momentum.
type Batches<B> = HashMap<ParamId, Vec<(Tensor<B, 1>, f64)>>;

struct Commit<B: AutodiffBackend> {
    batches: Batches<B::InnerBackend>,
    finite: Option<Tensor<B::InnerBackend, 1, Bool>>,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Commit<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(batches) = self.batches.remove(&param.id) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.shape();
        let n = shape.num_elements();
        let old = tensor.inner().reshape([n]);
        let follow = |running: Tensor<_, 1>, (batch, momentum): (Tensor<_, 1>, f64)| {
            running * (1.0 - momentum) + batch * momentum
        };
        let mut new = batches.into_iter().fold(old.clone(), follow);
        if let Some(finite) = &self.finite {
            new = old.mask_where(finite.clone().expand([n]), new);
        }
        Param::from_mapped_value(id, Tensor::from_inner(new.reshape(shape)), mapper)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.
mod tests {
    use burn::backend::{Autodiff, Flex, NdArray};
    use burn::module::AutodiffModule;
    use burn::tensor::TensorData;
    use serde_json::Value;

    use super::*;

    /// f32 sums over 40 values, of which torch's own differ from f64's by 8e-6 where they are largest.
    const TOLERANCE: f64 = 2e-5;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../../tests/golden/batch_norm.json")).unwrap()
    }

    fn numbers(golden: &Value) -> Vec<f32> {
        serde_json::from_value(golden.clone()).unwrap()
    }

    fn vector<B: Backend>(golden: &Value) -> Tensor<B, 1> {
        Tensor::from_floats(&numbers(golden)[..], &Default::default())
    }

    fn images<B: Backend>(golden: &Value) -> Tensor<B, 4> {
        let data = TensorData::new(numbers(golden), [4, 3, 5, 2]);
        Tensor::from_data(data, &Default::default())
    }

    fn assert_near<B: Backend, const D: usize>(ours: Tensor<B, D>, theirs: &Value, what: &str) {
        let ours = ours.into_data().to_vec::<f32>().unwrap();
        let theirs = numbers(theirs);
        assert_eq!(ours.len(), theirs.len());
        for (a, b) in ours.iter().zip(theirs) {
            let off = f64::from((a - b).abs());
            assert!(
                off < TOLERANCE * f64::from(b.abs()).max(1.0),
                "{what}: {a}, not {b}"
            );
        }
    }

    fn layer<B: Backend>(golden: &Value) -> BatchNorm<B> {
        let norm = BatchNorm::new(3, &Default::default());
        BatchNorm {
            gamma: Param::from_tensor(vector(&golden["weight"])),
            beta: Param::from_tensor(vector(&golden["bias"])),
            ..norm
        }
    }

    fn is_torchs<B: AutodiffBackend>() {
        let golden = golden();
        let mut norm = layer::<B>(&golden);
        for step in golden["training"].as_array().unwrap() {
            let x = images::<B>(&step["x"]).require_grad();
            let (out, proposals) = collect(|| norm.forward(x.clone()));
            assert_near(out.clone(), &step["out"], "out");
            let gradients = (out * images(&step["toward"])).sum().backward();
            assert_near(x.grad(&gradients).unwrap(), &step["grad_x"], "grad_x");
            let gamma = norm.gamma.val().grad(&gradients).unwrap();
            assert_near(gamma, &step["grad_weight"], "grad_weight");
            let beta = norm.beta.val().grad(&gradients).unwrap();
            assert_near(beta, &step["grad_bias"], "grad_bias");
            norm = commit(norm, &proposals, None);
            assert_near(
                norm.running_mean.val(),
                &step["running_mean"],
                "running_mean",
            );
            assert_near(norm.running_var.val(), &step["running_var"], "running_var");
        }
        assert!(!norm.running_mean.is_require_grad() && !norm.running_var.is_require_grad());
        let out = norm.valid().forward(images(&golden["training"][0]["x"]));
        assert_near(out, &golden["evaluation"], "evaluation");
    }

    #[test]
    fn values_gradients_and_statistics_are_torchs() {
        is_torchs::<Autodiff<Flex>>();
        is_torchs::<Autodiff<NdArray>>();
    }

    type B = Autodiff<Flex>;

    #[test]
    fn a_pass_that_is_not_committed_changes_nothing() {
        let golden = golden();
        let norm = layer::<B>(&golden);
        let x = || images::<B>(&golden["training"][0]["x"]);
        let clone = norm.clone();
        norm.forward(x());
        let (_, proposals) = collect::<B, _>(|| norm.forward(x()));
        let skipped = Tensor::from_bool(TensorData::from([false]), &Default::default());
        let skipped = commit(norm.clone(), &proposals, Some(skipped));
        // Nor does the copy that moves on.
        let moved = commit(clone.clone(), &proposals, None);
        for norm in [&norm, &clone, &skipped] {
            let mean = norm.running_mean.val().into_data();
            assert_eq!(mean, TensorData::from([0.0f32; 3]));
        }
        assert_ne!(
            moved.running_mean.val().into_data(),
            TensorData::from([0.0f32; 3])
        );
    }

    #[test]
    fn two_calls_of_one_layer_are_followed_in_their_order() {
        let golden = golden();
        let norm = layer::<B>(&golden);
        let steps = golden["training"].as_array().unwrap();
        let pass = || {
            for step in steps {
                norm.forward(images(&step["x"]));
            }
        };
        let ((), proposals) = collect(pass);
        // A mean and a variance each.
        assert_eq!(proposals.len(), 6);
        let norm = commit(norm.clone(), &proposals, None);
        assert_near(
            norm.running_var.val(),
            &steps[2]["running_var"],
            "running_var",
        );
    }

    #[test]
    fn frozen_statistics_are_those_that_training_normalises_by() {
        let golden = golden();
        let norm = layer::<B>(&golden).frozen(true);
        let x = images::<B>(&golden["training"][0]["x"]).require_grad();
        let (out, proposals) = collect::<B, _>(|| norm.forward(x.clone()));
        assert!(proposals.is_empty());
        let valid = norm.valid().forward(x.clone().inner());
        assert_eq!(out.clone().into_data(), valid.into_data());
        // Each value's gradient is its own alone.
        let gradients = out.sum().backward();
        let per_value = norm.gamma.val() / (norm.running_var.val() + 1e-5).sqrt();
        let expected = per_value.reshape([1, 3, 1, 1]).expand([4, 3, 5, 2]);
        let off = (x.grad(&gradients).unwrap() - expected.inner()).abs().max();
        assert!(off.into_scalar() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "more than one value a channel")]
    fn a_single_value_has_no_variance() {
        let norm = BatchNorm::<B>::new(2, &Default::default());
        norm.forward(Tensor::<B, 2>::ones([1, 2], &Default::default()));
    }
}
