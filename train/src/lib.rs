//! What pretraining and fine-tuning share.
//!
//! Reading order: [`recipe`] (what to do), [`cli`] (how it is asked for), [`backend`] (which device computes), [`job`] (what
//! an objective or a task is), [`objectives`] (losses that they share), [`engine`] (a session, the training loop, what a run
//! writes), [`optim`] (how weights change), [`report`] (what a run shows), [`tune`] (experiments around runs). [`process`]
//! and [`memory`] are for `main` functions alone: importing this crate changes nothing in a process.

pub mod backend;
pub mod cli;
pub mod engine;
pub mod failure;
#[cfg(test)]
#[path = "../../tests/support/objectives.rs"]
mod golden;
pub mod job;
pub mod memory;
pub mod objectives;
pub mod optim;
pub mod process;
pub mod recipe;
pub mod report;
pub mod scores;
pub mod terminal;
pub mod tune;
pub mod ui;

pub use backend::{BackendName, WithBackend};
pub use engine::{
    checkpoint, generator, guard, interrupt, loader, metrics, objective, run, session, source,
    training_loop,
};
pub use failure::{Failure, FailureKind};
pub use generator::seeded;
pub use interrupt::Interrupt;
pub use metrics::{Better, Metric, Metrics};
pub use objective::{LossSums, Objective, SumTally, Tally, Trainee};
pub use session::{Options, Session, Status};
pub use source::{BatchSource, Counts, Unit};
