//! Learning rate by step: linear warm-up, then one of eight shapes.
//!
//! The formulas of `transformers.optimization`, with the warm-up counted from one, so that the first step moves; the
//! one-cycle schedule is torch's.

use std::f64::consts::PI;

use burn::lr_scheduler::LrScheduler;
use burn::prelude::Backend;
use serde::{Deserialize, Serialize};

use crate::recipe::Impossible;

/// After the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// The base rate to the end.
    Constant,
    /// Straight to the floor.
    Linear,
    /// Half a cosine wave to the floor. Loshchilov and Hutter 2017, <https://arxiv.org/abs/1608.03983>.
    Cosine,
    /// The same, `cycles` times, from the top each time.
    CosineRestarts,
    /// To the floor along what is left, to the `power`.
    Polynomial,
    /// By the root of the step, as in Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>.
    InverseSqrt,
    /// Warm-up, stable, decay: the base rate, then straight to the floor over the last `decay` of all steps. Hu et
    /// al. 2024, <https://arxiv.org/abs/2404.06395>.
    Wsd,
    /// From a 25th of the base rate up and down to almost nothing, both along a cosine. Smith and Topin 2018,
    /// <https://arxiv.org/abs/1708.07120>.
    OneCycle,
}

/// The `[schedule]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRecipe {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Share of all steps that the rate rises for, 0 to 1.
    pub warmup: f64,
    /// Share of the base rate that it falls to, 0 to 1.
    pub floor: f64,
    /// Of `cosine_restarts`.
    pub cycles: u32,
    /// Of `polynomial`.
    pub power: f64,
    /// Of `wsd`: share of all steps that the rate falls for, 0 to 1.
    pub decay: f64,
}

impl ScheduleRecipe {
    /// A shape without warm-up that falls to 0.
    pub fn new(kind: ScheduleKind) -> Self {
        Self {
            kind,
            warmup: 0.0,
            floor: 0.0,
            cycles: 1,
            power: 1.0,
            decay: 0.2,
        }
    }

    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        let wrong = |name: &str, reason| Err(Impossible::new(format!("schedule.{name}"), reason));
        for (name, share) in [
            ("warmup", self.warmup),
            ("floor", self.floor),
            ("decay", self.decay),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(name, format!("is {share}; it must be from 0 to 1"));
            }
        }
        if self.cycles == 0 {
            return wrong("cycles", "is 0; it must be at least 1".into());
        }
        if !(self.power.is_finite() && self.power > 0.0) {
            return wrong("power", format!("is {}; it must be above 0", self.power));
        }
        if self.kind == ScheduleKind::Wsd && self.warmup + self.decay > 1.0 {
            let reason = format!(
                "{} and schedule.decay {} are more than all steps",
                self.warmup, self.decay
            );
            return wrong("warmup", reason);
        }
        Ok(())
    }
}

/// A schedule over a known number of steps.
#[derive(Clone, Debug)]
pub struct Schedule {
    recipe: ScheduleRecipe,
    base: f64,
    warmup: u64,
    total: u64,
    taken: u64,
}

impl Schedule {
    /// `base` is the rate at the top, `total` the number of optimizer steps of the whole run.
    pub fn new(recipe: &ScheduleRecipe, base: f64, total: u64) -> Self {
        Self {
            recipe: recipe.clone(),
            base,
            warmup: (recipe.warmup * total as f64).round() as u64,
            total,
            taken: 0,
        }
    }

    /// The same schedule with this many steps behind it, and all its rates times `scale`.
    pub fn resumed(mut self, taken: u64, scale: f64) -> Self {
        self.taken = taken;
        self.base *= scale;
        self
    }

    /// The rate of the step with this index, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if self.recipe.kind == ScheduleKind::OneCycle {
            return self.base * self.one_cycle(step);
        }
        if step < self.warmup {
            return self.base * (step + 1) as f64 / self.warmup as f64;
        }
        // The last step still moves: the floor is reached one step after it.
        let behind = (step - self.warmup) as f64;
        let progress = (behind / (self.total.saturating_sub(self.warmup)).max(1) as f64).min(1.0);
        let ScheduleRecipe { floor, .. } = self.recipe;
        let shape = match self.recipe.kind {
            ScheduleKind::Constant | ScheduleKind::OneCycle => return self.base,
            ScheduleKind::InverseSqrt => return self.base * self.inverse_sqrt(step).max(floor),
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            ScheduleKind::CosineRestarts if progress >= 1.0 => 0.0,
            ScheduleKind::CosineRestarts => {
                let of_cycle = (f64::from(self.recipe.cycles) * progress) % 1.0;
                0.5 * (1.0 + (PI * of_cycle).cos())
            }
            ScheduleKind::Polynomial => (1.0 - progress).powf(self.recipe.power),
            ScheduleKind::Wsd => self.wsd(step),
        };
        self.base * (floor + (1.0 - floor) * shape.max(0.0))
    }

    /// Without a warm-up the rate is stable for 10,000 steps' worth of scale, as in `transformers`.
    fn inverse_sqrt(&self, step: u64) -> f64 {
        let timescale = if self.warmup > 0 { self.warmup } else { 10_000 };
        let shifted = (step + timescale - self.warmup) as f64;
        (shifted / timescale as f64).sqrt().recip()
    }

    fn wsd(&self, step: u64) -> f64 {
        let decay = ((self.recipe.decay * self.total as f64).round()).max(1.0);
        let left = self.total.saturating_sub(step) as f64;
        (left / decay).min(1.0)
    }

    /// Share of the base rate, over the whole run: the warm-up is the way up.
    fn one_cycle(&self, step: u64) -> f64 {
        const START: f64 = 1.0 / 25.0;
        const END: f64 = START / 1e4;
        let anneal =
            |from: f64, to: f64, share: f64| to + (from - to) / 2.0 * (1.0 + (PI * share).cos());
        let (step, total) = (step as f64, self.total as f64);
        let top = (self.recipe.warmup * total - 1.0).max(0.0);
        if step < top {
            anneal(START, 1.0, step / top)
        } else {
            anneal(
                1.0,
                END,
                ((step - top) / (total - 1.0 - top).max(1.0)).min(1.0),
            )
        }
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
        let recipe = ScheduleRecipe {
            warmup,
            ..ScheduleRecipe::new(kind)
        };
        Schedule::new(&recipe, 1.0, total)
    }

    /// transformers counts its warm-up from zero: its step 0 does not move. Ours is one step ahead on
    /// the way up, stays at the top for one step more, and from there on agrees.
    #[test]
    fn rates_are_those_of_transformers_and_torch() {
        let golden = include_str!("../../../tests/golden/schedules.json");
        let golden: HashMap<String, HashMap<String, Vec<f64>>> =
            serde_json::from_str(golden).unwrap();
        for warmup in [0usize, 10, 40] {
            let curves = &golden[&warmup.to_string()];
            let recipes = recipes(warmup as f64 / 100.0);
            assert_eq!(curves.len(), recipes.len(), "warm-up {warmup}");
            for (name, recipe) in recipes {
                let schedule = Schedule::new(&recipe, 1.0, 100);
                for step in 0..100 {
                    // torch's one-cycle schedule has no such step 0.
                    let behind = name != "one_cycle" && step < warmup;
                    // Nor has the floor of transformers a place in its warm-up, which starts from it.
                    if name == "wsd_with_floor" && behind {
                        continue;
                    }
                    let theirs = curves[name][if behind { step + 1 } else { step }];
                    let ours = schedule.rate(step as u64);
                    assert!(
                        (ours - theirs).abs() < 1e-12,
                        "{name}, warm-up {warmup}, step {step}: {ours}, not {theirs}"
                    );
                }
            }
        }
    }

    /// What `tests/golden/schedules.json` holds of this warm-up.
    fn recipes(warmup: f64) -> Vec<(&'static str, ScheduleRecipe)> {
        let of = |kind| ScheduleRecipe {
            warmup,
            cycles: 3,
            power: 2.0,
            decay: 0.3,
            ..ScheduleRecipe::new(kind)
        };
        let with_floor = |kind| ScheduleRecipe {
            floor: 0.1,
            ..of(kind)
        };
        let mut recipes = vec![
            ("constant_with_warmup", of(ScheduleKind::Constant)),
            ("linear_with_warmup", of(ScheduleKind::Linear)),
            ("cosine_with_warmup", of(ScheduleKind::Cosine)),
            ("cosine_with_floor", with_floor(ScheduleKind::Cosine)),
            ("cosine_restarts", of(ScheduleKind::CosineRestarts)),
            ("polynomial", of(ScheduleKind::Polynomial)),
            (
                "polynomial_with_floor",
                with_floor(ScheduleKind::Polynomial),
            ),
            ("inverse_sqrt", of(ScheduleKind::InverseSqrt)),
            ("wsd", of(ScheduleKind::Wsd)),
            ("wsd_with_floor", with_floor(ScheduleKind::Wsd)),
        ];
        if warmup > 0.0 {
            recipes.push(("one_cycle", of(ScheduleKind::OneCycle)));
        }
        recipes
    }

    /// torch counts such a way down from step -1, and never is at the top.
    #[test]
    fn one_cycle_without_a_way_up_goes_down_from_the_top() {
        let schedule = schedule(ScheduleKind::OneCycle, 0.0, 101);
        for (step, rate) in [(0, 1.0), (50, 0.500002), (100, 4e-6)] {
            assert!((schedule.rate(step) - rate).abs() < 1e-12, "step {step}");
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
    fn impossible_values_are_refused() {
        let fine = ScheduleRecipe::new(ScheduleKind::Wsd);
        assert_eq!(fine.check(), Ok(()));
        for (recipe, words) in [
            (
                ScheduleRecipe {
                    warmup: 1.5,
                    ..fine.clone()
                },
                "schedule.warmup is 1.5",
            ),
            (
                ScheduleRecipe {
                    floor: -0.1,
                    ..fine.clone()
                },
                "schedule.floor is -0.1",
            ),
            (
                ScheduleRecipe {
                    cycles: 0,
                    ..fine.clone()
                },
                "schedule.cycles is 0",
            ),
            (
                ScheduleRecipe {
                    power: f64::NAN,
                    ..fine.clone()
                },
                "schedule.power is NaN",
            ),
            (
                ScheduleRecipe {
                    warmup: 0.9,
                    ..fine.clone()
                },
                "schedule.warmup 0.9 and schedule.decay 0.2 are more than all steps",
            ),
        ] {
            assert_eq!(
                recipe.check().unwrap_err().to_string().get(..words.len()),
                Some(words)
            );
        }
    }

    #[test]
    fn a_resumed_schedule_goes_on_where_it_stopped() {
        let mut whole = schedule(ScheduleKind::Cosine, 0.2, 10);
        let rates: Vec<f64> = (0..10).map(|_| whole.step()).collect();
        let mut rest = schedule(ScheduleKind::Cosine, 0.2, 10).resumed(6, 1.0);
        assert_eq!((6..10).map(|_| rest.step()).collect::<Vec<_>>(), rates[6..]);
    }
}
