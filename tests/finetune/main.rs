//! `finetune` as its users meet it. An index: each module says what it is about.

#![allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.

#[path = "../support/families.rs"]
mod families;
#[cfg(target_os = "linux")]
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/command_line.rs"]
mod programs;
#[path = "../support/shapes.rs"]
mod shapes;
#[path = "../support/mod.rs"]
mod support;

mod command_line;
mod distillation;
mod images;
mod models;
mod pictures;
mod runs;
mod texts;
mod vision;
