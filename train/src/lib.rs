//! The engine that pretraining and fine-tuning share.
//!
//! Reading order: [`recipe`] (what to do), [`cli`] (how it is asked for), [`backend`] (on what),
//! [`job`] (what an objective or a task is), [`objective`] and [`objectives`] (losses), [`source`] and [`loader`] (batches),
//! [`optim`] (how weights change), [`guard`] (what watches them), [`strategy`] (the loop, inside burn-train's learner),
//! [`checkpoint`] and [`run`] (what is written), [`launch`] (all of it put together), [`report`] (what a run shows of
//! itself). Around runs: [`tune`].

pub mod backend;
pub mod checkpoint;
pub mod cli;
pub mod failure;
pub mod generator;
pub mod guard;
pub mod interrupt;
pub mod job;
pub mod launch;
pub mod loader;
pub mod memory;
pub mod metrics;
pub mod objective;
pub mod objectives;
pub mod optim;
pub mod process;
pub mod recipe;
pub mod report;
pub mod run;
pub mod source;
pub mod strategy;
pub mod terminal;
pub mod tune;
pub mod ui;

pub use backend::{BackendName, WithBackend};
pub use failure::Failure;
pub use generator::seeded;
pub use interrupt::Interrupt;
pub use launch::{Session, Status};
pub use metrics::Metrics;
pub use objective::{LossSums, Objective, SumTally, Tally, Trainee};
pub use source::{BatchSource, Counts};
