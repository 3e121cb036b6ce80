//! Learning rate by step: linear warm-up, then constant, linear to zero, or half a cosine to zero.
//!
//! The formulas of `transformers.optimization`, with the warm-up counted from one, so that the first step moves.

use burn::lr_scheduler::LrScheduler;
use burn::prelude::Backend;
use serde::{Deserialize, Serialize};

use crate::recipe::Impossible;

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

impl ScheduleRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        match (0.0..=1.0).contains(&self.warmup) {
            true => Ok(()),
            false => Err(Impossible::new(
                "schedule.warmup",
                format!("is {}; it must be from 0 to 1", self.warmup),
            )),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn schedule(kind: ScheduleKind, warmup: f64, total: u64) -> Schedule {
        Schedule::new(&ScheduleRecipe { kind, warmup }, 1.0, total)
    }

    /// transformers counts its warm-up from zero: its step 0 does not move. Ours is one step ahead on
    /// the way up, stays at the top for one step more, and from there on agrees.
    #[test]
    fn rates_are_those_of_transformers() {
        let golden = include_str!("../../tests/golden/schedules.json");
        let golden: HashMap<String, Vec<f64>> = serde_json::from_str(golden).unwrap();
        for (kind, name) in [
            (ScheduleKind::Constant, "constant_with_warmup"),
            (ScheduleKind::Linear, "linear_with_warmup"),
            (ScheduleKind::Cosine, "cosine_with_warmup"),
        ] {
            let schedule = schedule(kind, 0.1, 100);
            for step in 0..100 {
                let theirs = golden[name][if step < 10 { step + 1 } else { step }];
                let ours = schedule.rate(step as u64);
                assert!(
                    (ours - theirs).abs() < 1e-12,
                    "{name}, step {step}: {ours}, not {theirs}"
                );
            }
        }
    }

    #[test]
    fn the_first_and_the_last_step_move() {
        for kind in [ScheduleKind::Linear, ScheduleKind::Cosine] {
            let schedule = schedule(kind, 0.25, 4);
            assert_eq!((schedule.rate(0), schedule.rate(1)), (1.0, 1.0));
            assert!(schedule.rate(3) > 0.0);
            assert!(schedule.rate(4).abs() < 1e-12);
        }
    }

    #[test]
    fn there_may_be_no_warmup_or_nothing_else() {
        let none = schedule(ScheduleKind::Linear, 0.0, 4);
        assert_eq!(
            [0, 1, 2, 3].map(|step| none.rate(step)),
            [1.0, 0.75, 0.5, 0.25]
        );
        let all = schedule(ScheduleKind::Linear, 1.0, 4);
        assert_eq!(
            [0, 1, 2, 3].map(|step| all.rate(step)),
            [0.25, 0.5, 0.75, 1.0]
        );
    }

    #[test]
    fn a_resumed_schedule_goes_on_where_it_stopped() {
        let mut whole = schedule(ScheduleKind::Cosine, 0.2, 10);
        let rates: Vec<f64> = (0..10).map(|_| whole.step()).collect();
        let mut rest = schedule(ScheduleKind::Cosine, 0.2, 10).resumed(6);
        assert_eq!((6..10).map(|_| rest.step()).collect::<Vec<_>>(), rates[6..]);
    }
}
