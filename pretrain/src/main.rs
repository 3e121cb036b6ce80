//! `pretrain [RECIPE]`: learns from unlabelled data and leaves a bundle.

use std::process::ExitCode;

use clap::Parser;
use train::cli::{self, TrainArgs};

/// Pretrain a model on unlabelled data. Without a recipe: masked language modelling on bundled definitions.
#[derive(Parser)]
#[command(name = "pretrain", version)]
struct Args {
    #[command(flatten)]
    train: TrainArgs,
}

fn main() -> ExitCode {
    cli::main(&pretrain::TRAINER, Args::parse().train, Vec::new())
}
