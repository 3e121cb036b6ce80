//! The `apps` binary, driven as a person drives it, and the library under it; a file a command.

#![allow(clippy::unwrap_used)] // A test that can't go on should stop.

mod adapters;
mod bundles;
mod card;
mod convert;
mod datasets;
mod dump;
mod evaluate;
mod fill_mask;
mod generate;
mod predict;
mod reconstruct;
mod report;
#[path = "../support/shapes.rs"]
mod shapes;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod trained;
mod wrong_input;
