//! The `apps` binary, driven as a person drives it, and the library under it; a file a command.

#![allow(clippy::unwrap_used)] // A test that can't go on should stop.

mod adapters;
mod bundles;
mod card;
mod chat;
mod command_line;
mod convert;
mod datasets;
mod dump;
mod eight_bits;
mod embed;
mod evaluate;
mod explain;
mod extract;
mod fill_mask;
mod generate;
mod onnx;
mod predict;
#[path = "../support/command_line.rs"]
mod programs;
mod reconstruct;
mod report;
mod sample;
mod search;
mod serve;
#[path = "../support/shapes.rs"]
mod shapes;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod trained;
mod wrong_input;
