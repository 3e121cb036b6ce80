//! The engine that pretraining and fine-tuning share.
//!
//! Reading order: [`recipe`] (what to do), [`cli`] (how it is asked for), [`backend`] (on what),
//! [`objective`] (what a model must offer to be trained), [`loss`], [`source`] and [`loader`] (batches),
//! [`schedule`], [`groups`], [`update`] and [`optimizer`] (how weights change), [`guard`] and [`ema`] (what watches and
//! smooths them), [`strategy`] (the loop, inside burn-train's learner), [`checkpoint`] and [`run`] (what is written),
//! [`launch`] (all of it put together). Around runs: [`probe`], [`find_batch`], [`sweep`], [`compare`], [`plot`].

pub mod backend;
pub mod checkpoint;
pub mod child;
pub mod classification;
pub mod cli;
pub mod compare;
pub mod ema;
pub mod failure;
pub mod find_batch;
pub mod groups;
pub mod guard;
pub mod image;
pub mod launch;
pub mod loader;
pub mod loss;
pub mod memory;
pub mod metrics;
pub mod model_summary;
pub mod objective;
pub mod optimizer;
pub mod plot;
pub mod probe;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod source;
pub mod strategy;
pub mod sweep;
pub mod tensorboard;
pub mod terminal;
pub mod text;
pub mod timing;
pub mod trace;
pub mod ui;
pub mod update;

pub use backend::{BackendName, WithBackend};
pub use failure::Failure;
pub use launch::{Session, Status};
pub use metrics::Metrics;
pub use objective::{LossSums, Objective, SumTally, Tally, Trainee};
pub use source::{BatchSource, Counts};

/// Keeps freed pages: giving them back and taking them again costs a third of the time of a CPU step.
#[global_allocator]
static ALLOCATOR: memory::Allocator = memory::Allocator;
