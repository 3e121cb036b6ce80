//! How weights change: a rate over time ([`schedule`]), for each group of parameters ([`groups`]), a rule ([`update`]),
//! all three applied ([`optimizer`]); and the average of the weights on the way ([`ema`]).

pub mod ema;
pub mod groups;
pub mod optimizer;
pub mod schedule;
pub mod update;
