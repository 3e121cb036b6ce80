//! What models compute, and what directories hold of them. An index: each module says what it is about.

#![allow(clippy::unwrap_used)] // A test that can't go on should stop.

#[path = "../support/golden.rs"]
mod golden;
#[path = "../support/tiny_bert.rs"]
mod tiny_bert;

mod adapters;
mod beside;
mod carried;
mod directories;
mod encoder;
mod families;
mod halves;
mod heads;
mod seq2seq;
mod vision;
