//! The engine and its optimizers. An index: each module says what it is about.

#![allow(clippy::unwrap_used)] // A test that can't go on should stop.

#[path = "../support/objectives.rs"]
mod objectives;
#[path = "../support/tiny_bert.rs"]
mod tiny_bert;

use objectives::tensors as golden;

mod distillation;
mod engine;
mod losses;
mod optimizer;
