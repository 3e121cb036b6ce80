//! Learning rate by step: linear warm-up, then constant, linear to zero, or half a cosine to zero.
//!
//! The formulas of `transformers.optimization`, with the warm-up counted from one, so that the first step moves.

use burn::lr_scheduler::LrScheduler;
use burn::prelude::Backend;
use serde::{Deserialize, Serialize};

/// After the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The base rate to the end.
    Constant,
    /// Straight to zero.
    Linear,
    /// Half a cosine wave to zero.
    Cosine,
}

/// The `[schedule]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRecipe {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Share of all steps that the rate rises for, 0 to 1.
    pub warmup: f64,
}

/// A schedule over a known number of steps.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: ScheduleKind,
    base: f64,
    warmup: u64,
    total: u64,
    taken: u64,
}

impl Schedule {
    /// `base` is the rate at the top, `total` the number of optimizer steps of the whole run.
    pub fn new(recipe: &ScheduleRecipe, base: f64, total: u64) -> Self {
        Self {
            kind: recipe.kind,
            base,
            warmup: (recipe.warmup * total as f64).round() as u64,
            total,
            taken: 0,
        }
    }

    /// The same schedule with this many steps behind it.
    pub fn resumed(mut self, taken: u64) -> Self {
        self.taken = taken;
        self
    }

    /// The rate of the step with this index, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let behind = (step + 1) as f64;
        let (warmup, total) = (self.warmup as f64, self.total as f64);
        if behind <= warmup {
            return self.base * behind / warmup;
        }
        // The last step still moves: zero is reached one step after it.
        let progress = (behind - 1.0 - warmup).max(0.0) / (total - warmup).max(1.0);
        let factor = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.base * factor.max(0.0)
    }
}

impl LrScheduler for Schedule {
    // The step is in our own checkpoint, with everything else.
    type Record<B: Backend> = ();

    fn step(&mut self) -> f64 {
        let rate = self.rate(self.taken);
        self.taken += 1;
        rate
    }

    fn to_record<B: Backend>(&self) -> Self::Record<B> {}

    fn load_record<B: Backend>(self, _: Self::Record<B>) -> Self {
        self
    }
}
