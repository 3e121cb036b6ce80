//! Guards against losing a training: steps that are not finite are skipped, then undone; spikes are reported.
//!
//! In: the loss and the gradient's norm of each step. Out: whether the step counts, and when to go back.

use serde::{Deserialize, Serialize};

use crate::metrics::nullable;
use crate::recipe::Impossible;

/// The `[guard]` of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardRecipe {
    /// Steps in a row without a finite loss and gradient that are skipped before the run goes back.
    pub skips: u64,
    /// Times that a run goes back to its newest checkpoint before it stops.
    pub rollbacks: u64,
    /// Times the learning rate, for each time it went back.
    pub rollback_lr: f64,
    /// Standard deviations above its running mean at which a loss is reported as a spike; 0 reports none.
    pub spike: f64,
}

impl Default for GuardRecipe {
    /// Ten skips, three rollbacks at half the rate each, spikes of six standard deviations.
    fn default() -> Self {
        Self {
            skips: 10,
            rollbacks: 3,
            rollback_lr: 0.5,
            spike: 6.0,
        }
    }
}

impl GuardRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        let wrong = |name: &str, reason| Err(Impossible::new(format!("guard.{name}"), reason));
        if !(self.rollback_lr > 0.0 && self.rollback_lr <= 1.0) {
            let lr = self.rollback_lr;
            return wrong(
                "rollback_lr",
                format!("is {lr}; it must be above 0 and at most 1"),
            );
        }
        if !(self.spike.is_finite() && self.spike >= 0.0) {
            return wrong("spike", format!("is {}; it must be 0 or more", self.spike));
        }
        Ok(())
    }

    /// What all rates are multiplied by after so many rollbacks.
    pub fn scale(&self, rollbacks: u64) -> f64 {
        self.rollback_lr.powi(rollbacks.min(1000) as i32)
    }
}

/// What the guards have seen; part of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// Steps skipped in the whole run.
    pub skipped: u64,
    /// Steps skipped since the last one that counted.
    pub in_a_row: u64,
    /// Times the run went back.
    pub rollbacks: u64,
    /// Steps behind the running mean.
    seen: u64,
    #[serde(deserialize_with = "nullable::number")]
    mean: f64,
    #[serde(deserialize_with = "nullable::number")]
    variance: f64,
}

/// The judgement of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It counts.
    Good,
    /// It counts, and its loss is far above the losses before it.
    Spike {
        /// Of the losses before it.
        mean: f64,
    },
    /// It was skipped.
    Skipped,
    /// It was skipped, as too many before it.
    Lost,
}

impl Watch {
    /// Whether the last step counted: weights with which the next step is lost are no place to go back to.
    pub fn is_good(&self) -> bool {
        self.in_a_row == 0
    }

    /// The watch of a run that went back: skips and rollbacks stay counted, the losses of the lost steps do not.
    pub fn back(&self, lost: &Self) -> Self {
        Self {
            skipped: lost.skipped,
            in_a_row: 0,
            rollbacks: lost.rollbacks + 1,
            ..*self
        }
    }

    /// Judges a step by its mean loss and the global norm of its gradient.
    pub fn judge(&mut self, recipe: &GuardRecipe, loss: f64, norm: f64) -> Verdict {
        if !(loss.is_finite() && norm.is_finite()) {
            self.skipped += 1;
            self.in_a_row += 1;
            return if self.in_a_row > recipe.skips {
                Verdict::Lost
            } else {
                Verdict::Skipped
            };
        }
        self.in_a_row = 0;
        self.follow(recipe, loss)
    }

    /// A running mean over about fifty steps; a spike moves it no further than its own limit.
    fn follow(&mut self, recipe: &GuardRecipe, loss: f64) -> Verdict {
        const STEPS: u64 = 50;
        let (mean, limit) = (self.mean, recipe.spike * self.variance.sqrt());
        let is_spike = recipe.spike > 0.0 && self.seen >= STEPS && loss > mean + limit;
        let taken = if is_spike { mean + limit } else { loss };
        self.seen += 1;
        let share = 1.0 / self.seen.min(STEPS) as f64;
        let off = taken - mean;
        self.mean += share * off;
        self.variance = (1.0 - share) * (self.variance + share * off * off);
        if is_spike {
            Verdict::Spike { mean }
        } else {
            Verdict::Good
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_not_finite_are_skipped_and_then_the_run_is_lost() {
        let recipe = GuardRecipe {
            skips: 2,
            ..GuardRecipe::default()
        };
        let mut watch = Watch::default();
        let mut judge = |loss, norm| watch.judge(&recipe, loss, norm);
        assert_eq!(judge(1.0, 1.0), Verdict::Good);
        assert_eq!(judge(f64::NAN, 1.0), Verdict::Skipped);
        assert_eq!(judge(1.0, f64::INFINITY), Verdict::Skipped);
        assert_eq!(judge(1.0, 1.0), Verdict::Good);
        assert_eq!(judge(1.0, f64::NAN), Verdict::Skipped);
        assert_eq!(judge(1.0, f64::NAN), Verdict::Skipped);
        assert_eq!(judge(1.0, f64::NAN), Verdict::Lost);
        assert_eq!((watch.skipped, watch.in_a_row), (5, 3));
    }

    #[test]
    fn a_loss_far_above_the_others_is_a_spike_once_there_are_others() {
        let recipe = GuardRecipe::default();
        let mut watch = Watch::default();
        let wave = |step: u32| 2.0 + 0.1 * f64::from(step % 3);
        assert_eq!(watch.judge(&recipe, 50.0, 1.0), Verdict::Good, "the first");
        for step in 0..500 {
            assert_eq!(watch.judge(&recipe, wave(step), 1.0), Verdict::Good);
        }
        let Verdict::Spike { mean } = watch.judge(&recipe, 4.0, 1.0) else {
            panic!("4 is far above 2 to 2.2");
        };
        assert!((2.0..2.3).contains(&mean), "{mean}");
        assert_eq!(watch.judge(&recipe, 2.1, 1.0), Verdict::Good);
        let never = GuardRecipe {
            spike: 0.0,
            ..recipe
        };
        assert_eq!(watch.judge(&never, 1e6, 1.0), Verdict::Good);
    }

    #[test]
    fn impossible_values_are_refused() {
        for (recipe, key) in [
            (
                GuardRecipe {
                    rollback_lr: 0.0,
                    ..GuardRecipe::default()
                },
                "guard.rollback_lr is 0",
            ),
            (
                GuardRecipe {
                    spike: -1.0,
                    ..GuardRecipe::default()
                },
                "guard.spike is -1",
            ),
        ] {
            let error = recipe.check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
        assert_eq!(GuardRecipe::default().scale(2), 0.25);
    }
}
