//! `pretrain` as its users meet it. An index: each module says what it is about.

#![allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.

#[path = "../support/families.rs"]
mod families;
#[path = "../support/files.rs"]
mod files;
#[cfg(target_os = "linux")]
#[path = "../support/limit.rs"]
mod limit;
#[path = "../support/mutate.rs"]
mod mutate;
#[path = "../support/command_line.rs"]
mod programs;
#[path = "../support/mod.rs"]
mod support;

mod command_line;
#[cfg(unix)]
mod crash;
mod data;
mod distillation;
#[cfg(target_os = "linux")] // Elsewhere a process has no limit on its memory.
mod fuzz_files;
mod images;
mod models;
mod pictures;
mod runs;
mod search;
mod streams;
mod tensorboard;
mod texts;
mod ui;
