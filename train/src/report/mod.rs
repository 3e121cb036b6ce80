//! What runs show of themselves: a table before ([`model_summary`]), curves after ([`plot`]), runs side by side
//! ([`compare`]), TensorBoard's event files ([`tensorboard`]), and where time went ([`timing`], [`trace`]).

pub mod compare;
pub mod grid;
pub mod model_summary;
pub mod plot;
pub mod tensorboard;
pub mod timing;
pub mod trace;
