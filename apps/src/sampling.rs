//! The flags of every command that writes tokens: how each is chosen.

use clap::Args;
use model::generate::Sampling;
use train::Failure;

/// How tokens are chosen.
#[derive(Args, Clone, Debug)]
pub struct SamplingFlags {
    /// What scores are divided by; 0 always takes the likeliest token
    #[arg(
        allow_negative_numbers = true,
        long,
        value_name = "T",
        default_value = "0"
    )]
    pub temperature: f64,
    /// Choose among the K likeliest tokens; 0 is all
    #[arg(long, value_name = "K", default_value = "0")]
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value = "1")]
    pub top_p: f64,
    /// Choose among tokens that have this share of the likeliest one's probability
    #[arg(long, value_name = "P", default_value = "0")]
    pub min_p: f64,
    /// Make tokens that occurred less likely; 1 changes nothing
    #[arg(long, value_name = "R", default_value = "1")]
    pub repetition_penalty: f64,
    /// Of the choices: the same seed gives the same text
    #[arg(
        allow_negative_numbers = true,
        long,
        value_name = "N",
        default_value = "0"
    )]
    pub seed: u64,
}

impl SamplingFlags {
    /// The choice that the flags describe.
    ///
    /// # Errors
    ///
    /// A value that is impossible, by the name of its flag.
    pub fn sampling(&self) -> Result<Sampling, Failure> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        };
        let flag = |reason: String| {
            let (name, rest) = reason.split_once(' ').unwrap_or((&reason, ""));
            Failure::input(format!("--{} {rest}", name.replace('_', "-")))
        };
        sampling.check().map_err(flag)?;
        Ok(sampling)
    }
}
