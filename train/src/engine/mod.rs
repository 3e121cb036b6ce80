//! The engine: what a model must offer to be trained, where batches come from, the loop, and what a run writes.
//!
//! Reading order: [`objective`] and [`metrics`] (what a model must offer), [`source`] and [`loader`] (batches),
//! [`session`] (everything a run needs, put together; `resume` finds where it starts, `finish` sums it up),
//! [`training_loop`] (`step` takes one step, `rollback` undoes some), [`guard`] (what watches it), [`checkpoint`] and
//! [`run`](mod@run) (what is written), [`generator`] and [`interrupt`] (what sessions of one process share).

pub mod checkpoint;
mod finish;
pub mod generator;
pub mod guard;
pub mod interrupt;
pub mod loader;
pub mod metrics;
pub mod objective;
mod resume;
mod rollback;
pub mod run;
pub mod session;
pub mod source;
mod step;
pub mod training_loop;
mod window;
