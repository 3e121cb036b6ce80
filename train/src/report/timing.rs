//! Where the time of a run goes: waiting for data, forward and backward, optimizer, validation.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// Seconds by what they went into. On a GPU work is waited for where a figure is read: in `forward_backward`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Waiting for the next batch.
    pub data: f64,
    /// Forward and backward passes.
    pub forward_backward: f64,
    /// Clipping, update and averaging.
    pub optimizer: f64,
    /// Validation, with what is written after it.
    pub validation: f64,
}

impl Timing {
    /// Adds another stretch of time.
    pub fn add(&mut self, other: &Self) {
        self.data += other.data;
        self.forward_backward += other.forward_backward;
        self.optimizer += other.optimizer;
        self.validation += other.validation;
    }

    /// Seconds of optimizer steps, with the wait for their data.
    pub fn steps(&self) -> f64 {
        self.data + self.forward_backward + self.optimizer
    }

    /// By name, for logs.
    pub fn figures(&self) -> Metrics {
        Metrics::from([
            ("data".into(), self.data),
            ("forward_backward".into(), self.forward_backward),
            ("optimizer".into(), self.optimizer),
            ("validation".into(), self.validation),
        ])
    }
}

/// Measures one stretch after the other.
pub struct Stopwatch {
    since: Instant,
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            since: Instant::now(),
        }
    }

    /// Seconds since the start or the last lap.
    pub fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let since = std::mem::replace(&mut self.since, now);
        (now - since).as_secs_f64()
    }
}
