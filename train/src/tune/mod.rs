//! Experiments around runs: [`probe`] tries a rate, or whether a model can learn at all; [`find_batch`] the largest batch
//! that fits; [`sweep`] runs every combination of settings, each in a new process ([`child`]).

pub mod child;
pub mod find_batch;
pub mod probe;
pub mod sweep;
