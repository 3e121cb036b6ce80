//! What runs show of themselves: a table before ([`model_summary`]), curves after ([`plot`]), runs side by side
//! ([`compare`]), counts as bars ([`bars`]), a batch of images ([`sheet`], [`marks`]), TensorBoard's event files
//! ([`tensorboard`]), and where time went ([`timing`], [`trace`]).

pub mod bars;
pub mod compare;
pub mod grid;
mod letters;
pub mod marks;
pub mod model_summary;
pub mod plot;
pub mod sheet;
pub mod tensorboard;
pub mod timing;
pub mod trace;
