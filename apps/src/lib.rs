//! What people do with a trained bundle, a command a file; each a function or a type here.
//!
//! Reading order: [`open`] (the flags that all commands share, and what they name), [`any_model`] (the model of a bundle,
//! whatever head it has), [`guess`] (the best of a distribution), [`images`] (images as a model wants them), [`task`] (what a
//! fine-tuned model is asked and says, whatever its task), [`input`] (rows of files and of standard input), then the commands:
//! [`predict`], [`evaluate`], [`explain`], [`fill_mask`], [`generate`] and [`chat`] (both choose tokens as [`sampling`] says),
//! [`embed`], [`search`], [`reconstruct`], [`sample`] (new images), [`dump`], [`convert`] (to ONNX too), [`serve`] (most of these
//! over HTTP, with a page); [`datasets`], which needs no model; and [`report`] and [`card`], which read what a run has recorded
//! ([`record`]). [`command_line`] has them all.

pub mod any_model;
pub mod card;
pub mod chat;
pub mod command_line;
pub mod convert;
pub mod datasets;
pub mod dump;
pub mod embed;
pub mod evaluate;
pub mod explain;
pub mod fill_mask;
pub mod generate;
pub mod guess;
pub mod images;
pub mod input;
pub mod open;
pub mod predict;
pub mod reconstruct;
pub mod record;
pub mod report;
pub mod sample;
pub mod sampling;
pub mod search;
pub mod serve;
pub mod task;
