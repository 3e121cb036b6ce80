//! One optimizer step: forward and backward passes of its micro-batches, then one update, if all of it is finite.

use std::collections::{HashMap, VecDeque};

use anyhow::{Context, Result, ensure};
use burn::lr_scheduler::LrScheduler;
use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsAccumulator, GradientsParams, Optimizer as _};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use model::layers::batch_norm::{self, Proposal};

use crate::engine::training_loop::{LoopDriver, Plan};
use crate::engine::window::{Pending, Window};
use crate::generator::seeded;
use crate::guard::Verdict;
use crate::objective::{LossSums, Pass, Trainable};
use crate::report::timing::{Stopwatch, Timing};
use crate::source::Counts;

/// The micro-batches of a step: drawn one after the other, or, where the loss has several terms, all of them first, as
/// each term is divided by its targets in the whole step.
struct Parts<'a, T> {
    drawn: VecDeque<T>,
    source: &'a mut dyn Iterator<Item = T>,
    left: u64,
    /// What each term of the loss is divided by; empty where it has one.
    whole: Vec<f64>,
}

impl<'a, T: Counts> Parts<'a, T> {
    fn new(source: &'a mut dyn Iterator<Item = T>, n: u64) -> Result<Self> {
        let mut parts = Self {
            drawn: VecDeque::new(),
            source,
            left: n,
            whole: Vec::new(),
        };
        let first = parts.draw()?;
        let mut whole = first.denominators();
        parts.drawn.push_back(first);
        if whole.len() > 1 {
            while parts.left > 0 {
                let next = parts.draw()?;
                let more = next.denominators();
                ensure!(
                    more.len() == whole.len(),
                    "two batches of one step have {} and {} denominators",
                    whole.len(),
                    more.len()
                );
                whole
                    .iter_mut()
                    .zip(more)
                    .for_each(|(sum, part)| *sum += part);
                parts.drawn.push_back(next);
            }
            parts.whole = whole;
        }
        Ok(parts)
    }

    fn draw(&mut self) -> Result<T> {
        self.left -= 1;
        self.source
            .next()
            .context("the data ended before the training")
    }

    fn next(&mut self) -> Result<Option<T>> {
        if self.drawn.is_empty() && self.left > 0 {
            let next = self.draw()?;
            self.drawn.push_back(next);
        }
        Ok(self.drawn.pop_front())
    }
}

/// What the passes over all micro-batches of a step gave.
struct Passes<B: AutodiffBackend> {
    sums: LossSums<B::InnerBackend>,
    grads: GradientsParams,
    /// What parameters without a gradient take on if the step counts.
    proposals: Vec<Proposal<B>>,
}

impl<B: AutodiffBackend, O: Trainable<B>> LoopDriver<'_, B, O> {
    /// Takes one step.
    pub(super) fn step(
        &mut self,
        batches: &mut dyn Iterator<Item = O::Batch>,
        window: &mut Window<B::InnerBackend>,
    ) -> Result<Verdict> {
        let Plan { training, seed, .. } = &self.training.plan;
        let mut stopwatch = Stopwatch::start();
        let mut timing = Timing::default();
        let seed = mix(*seed, self.state.position.drawn());
        let mut parts = Parts::new(batches, training.accumulation)?;
        let passes = seeded::<B, _>(&self.device(), seed, || {
            self.passes(&mut parts, window, &mut timing, &mut stopwatch)
        })?;
        self.lr = self.schedule.step();
        let step = self.state.position.step;
        let verdict = match passes {
            Some(passes) => self.update(passes, window)?,
            None => {
                self.state.position.step += 1;
                let warning = format!("step {}: its batches have nothing to predict", step + 1);
                self.state.console.warn(&warning);
                Verdict::Good
            }
        };
        timing.optimizer += self.lap("optimizer", step + 1, &mut stopwatch)?;
        window.timing.add(&timing);
        self.state.position.timing.add(&timing);
        self.count_seconds();
        Ok(verdict)
    }

    /// Forward and backward of every micro-batch; nothing if none has a target.
    fn passes(
        &mut self,
        parts: &mut Parts<O::Batch>,
        window: &mut Window<B::InnerBackend>,
        timing: &mut Timing,
        stopwatch: &mut Stopwatch,
    ) -> Result<Option<Passes<B>>> {
        let step = self.state.position.step;
        let single = self.training.plan.training.accumulation == 1;
        let mut accumulator = GradientsAccumulator::new();
        let mut all: Option<Passes<B>> = None;
        while let Some(batch) = parts.next()? {
            let (real, padded) = (batch.real(), batch.padded());
            window.real += real;
            window.padded += padded;
            self.state.position.real += real as u64;
            self.state.position.padded += padded as u64;
            timing.data += self.lap("data", step + 1, stopwatch)?;
            if batch.is_without_targets() {
                continue;
            }
            let Pass {
                sums,
                grads,
                proposals,
            } = self.model.pass(&batch, &parts.whole);
            ensure!(
                single || sums.terms.is_empty() || !parts.whole.is_empty(),
                "the loss has {} terms, and the batch does not say what each is divided by",
                sums.terms.len() + 1
            );
            if !sums.is_without_targets() {
                let grads = if single {
                    grads
                } else {
                    accumulator.accumulate(&self.model, grads);
                    GradientsParams::new()
                };
                all = Some(match all {
                    None => Passes {
                        sums,
                        grads,
                        proposals,
                    },
                    Some(mut all) => {
                        all.sums = LossSums::merged(Some(all.sums), sums);
                        all.proposals.extend(proposals);
                        all
                    }
                });
            }
            timing.forward_backward += self.lap("forward and backward", step + 1, stopwatch)?;
        }
        if let (Some(all), false) = (&mut all, single) {
            all.grads = accumulator.grads();
        }
        Ok(all)
    }

    /// Changes the model, if the step is finite.
    fn update(
        &mut self,
        passes: Passes<B>,
        window: &mut Window<B::InnerBackend>,
    ) -> Result<Verdict> {
        let Passes {
            sums,
            grads,
            proposals,
        } = passes;
        let step = self.state.position.step;
        self.state.position.step += 1;
        if self.training.plan.unread {
            let (weight, loss) = (sums.gradient_weight(), sums.unread_mean_loss());
            self.optimizer.prepare_unread(step, weight, loss);
            self.model = self.optimizer.step(self.lr, self.model.clone(), grads);
            let outcome = self.optimizer.outcome();
            let outcome = outcome.context("a step without an outcome")?;
            self.commit(proposals, Some(outcome.clone()));
            window.pending.push(Pending {
                step: step + 1,
                outcome,
                sums,
            });
            return Ok(Verdict::Good);
        }
        let loss = sums.mean_loss();
        let mut norm = f64::NAN;
        if loss.is_finite() {
            self.optimizer.prepare(step, sums.gradient_weight());
            self.model = self.optimizer.step(self.lr, self.model.clone(), grads);
            norm = self.optimizer.norm();
        }
        let verdict = self.judge(step + 1, loss, norm);
        if norm.is_finite() {
            self.commit(proposals, None);
            window.add(sums);
        }
        Ok(verdict)
    }

    /// What follows an update: statistics of batch norms, states that are carried, the objective's own, the average of the
    /// weights.
    ///
    /// - outcome: of a step that the device judges, `[2]`: where it is not finite, nothing changes
    fn commit(&mut self, proposals: Vec<Proposal<B>>, outcome: Option<Tensor<B::InnerBackend, 1>>) {
        let finite = || outcome.clone().map(|outcome| outcome.sum().is_finite());
        if !proposals.is_empty() {
            self.model = batch_norm::commit(self.model.clone(), &proposals, finite());
        }
        if let Some(after) = self.model.objective.after_step() {
            self.model.objective = match finite() {
                Some(finite) => if_finite(finite, &self.model.objective, after),
                None => after,
            };
        }
        if let Some(ema) = &mut self.state.ema {
            ema.update(&self.model.valid());
        }
    }

    /// Reads the figures of the steps since the last time, and judges them in their order.
    pub(super) fn read_pending(&mut self, window: &mut Window<B::InnerBackend>) -> Result<Verdict> {
        let pending = std::mem::take(&mut window.pending);
        if pending.is_empty() {
            return Ok(Verdict::Good);
        }
        let mut stopwatch = Stopwatch::start();
        let outcomes = pending.iter().map(|step| step.outcome.clone()).collect();
        let outcomes = Tensor::cat(outcomes, 0).into_data().convert::<f32>();
        let outcomes: Vec<f64> = outcomes.iter::<f32>().map(f64::from).collect();
        let (mut skipped, mut last) = (Vec::new(), Verdict::Good);
        for (Pending { step, sums, .. }, outcome) in pending.into_iter().zip(outcomes.chunks(2)) {
            let (loss, norm) = (outcome[0], outcome[1]);
            last = self.judge(step, loss, norm);
            if loss.is_finite() && norm.is_finite() {
                window.add(sums);
            } else {
                skipped.push(step - 1);
            }
            if last == Verdict::Lost {
                self.state.position.step = step;
                break;
            }
        }
        let norm = outcomes.last().copied().unwrap_or(f64::NAN);
        self.optimizer.settle(norm, &skipped);
        // What the device had still to do was most of all this.
        let step = self.state.position.step;
        let waited = self.lap("wait for the device", step, &mut stopwatch)?;
        window.timing.forward_backward += waited;
        self.state.position.timing.forward_backward += waited;
        self.count_seconds();
        Ok(last)
    }
}

/// The new parameters where a step is finite, `[1]`, and the old ones where it is not.
fn if_finite<B: AutodiffBackend, M: Module<B>>(
    finite: Tensor<B::InnerBackend, 1, Bool>,
    old: &M,
    new: M,
) -> M {
    struct Old<B: AutodiffBackend>(HashMap<ParamId, Tensor<B::InnerBackend, 1>>);
    impl<B: AutodiffBackend> ModuleVisitor<B> for Old<B> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let values = param.val().inner();
            let n = values.shape().num_elements();
            self.0.insert(param.id, values.reshape([n]));
        }
    }
    struct Choose<B: AutodiffBackend> {
        finite: Tensor<B::InnerBackend, 1, Bool>,
        old: Old<B>,
    }
    impl<B: AutodiffBackend> ModuleMapper<B> for Choose<B> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let (id, tensor, mapper) = param.consume();
            let Some(old) = self.old.0.remove(&id) else {
                return Param::from_mapped_value(id, tensor, mapper);
            };
            let (requires_grad, shape) = (tensor.is_require_grad(), tensor.shape());
            let n = shape.num_elements();
            let finite = self.finite.clone().expand([n]);
            let chosen = old.mask_where(finite, tensor.inner().reshape([n]));
            let tensor = Tensor::from_inner(chosen.reshape(shape)).set_require_grad(requires_grad);
            Param::from_mapped_value(id, tensor, mapper)
        }
    }
    let mut values = Old::<B>(HashMap::new());
    old.visit(&mut values);
    new.map(&mut Choose {
        finite,
        old: values,
    })
}

/// Two numbers to one, every bit of each reaching every bit of the result (SplitMix64's finaliser).
fn mix(seed: u64, step: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step.wrapping_add(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
