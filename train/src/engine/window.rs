//! Sums over the steps since the last line of the log. In: sums of each step that counts. Out: means, or what a
//! checkpoint keeps of them.

use burn::prelude::*;

use crate::checkpoint::Unreported;
use crate::objective::{LossSums, Term};
use crate::report::timing::Timing;

/// Sums since the last line of the log.
pub(super) struct Window<B: Backend> {
    pub(super) sums: Option<LossSums<B>>,
    /// Steps whose figures are still on the device.
    pub(super) pending: Vec<Pending<B>>,
    /// Real tokens or samples.
    pub(super) real: usize,
    /// The same with padding.
    pub(super) padded: usize,
    pub(super) timing: Timing,
}

/// A step that was taken and not judged yet.
pub(super) struct Pending<B: Backend> {
    pub(super) step: u64,
    /// Mean loss and norm of the gradient, `[2]`.
    pub(super) outcome: Tensor<B, 1>,
    pub(super) sums: LossSums<B>,
}

impl<B: Backend> Default for Window<B> {
    fn default() -> Self {
        Self {
            sums: None,
            pending: Vec::new(),
            real: 0,
            padded: 0,
            timing: Timing::default(),
        }
    }
}

impl<B: Backend> Window<B> {
    pub(super) fn add(&mut self, sums: LossSums<B>) {
        self.sums = Some(LossSums::merged(self.sums.take(), sums));
    }

    /// As a checkpoint holds it; nothing right after a line of the log.
    pub(super) fn unreported(&self) -> Option<Unreported> {
        let sums = self.sums.as_ref()?;
        let number = |sum: &Tensor<B, 1>| sum.clone().into_scalar().elem();
        let tensors = std::iter::once(&sums.loss).chain(&sums.sums);
        Some(Unreported {
            sums: tensors.map(number).collect(),
            targets: sums.targets,
            weight: sums.weight,
            terms: sums.terms.iter().map(|term| number(&term.loss)).collect(),
            term_weights: sums.terms.iter().map(|term| term.weight).collect(),
            real: self.real,
            padded: self.padded,
            timing: self.timing,
        })
    }

    pub(super) fn resumed(unreported: Unreported, device: &B::Device) -> Self {
        let tensor = |sum: &f64| Tensor::from_floats([*sum as f32], device);
        let terms = unreported.terms.iter().zip(unreported.term_weights);
        let terms = terms.map(|(loss, weight)| Term {
            loss: tensor(loss),
            weight,
        });
        let terms: Vec<_> = terms.collect();
        let sums = unreported.sums.split_first().map(|(loss, sums)| LossSums {
            loss: tensor(loss),
            sums: sums.iter().map(tensor).collect(),
            targets: unreported.targets,
            weight: unreported.weight,
            terms,
        });
        Self {
            sums,
            pending: Vec::new(),
            real: unreported.real,
            padded: unreported.padded,
            timing: unreported.timing,
        }
    }
}
