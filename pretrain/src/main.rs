//! `pretrain [RECIPE]`: learns from unlabelled data and leaves a bundle.

use std::process::ExitCode;

use clap::Parser;
use train::cli::{self, Instead, TrainArgs};

/// Pretrain a model on unlabelled data. Without a recipe: masked language modelling on bundled definitions.
#[derive(Parser)]
#[command(name = "pretrain", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    train: TrainArgs,
    #[command(subcommand)]
    instead: Option<Instead>,
}

fn main() -> ExitCode {
    let Args { train, instead } = Args::parse();
    cli::main(&pretrain::TRAINER, train, instead, Vec::new())
}
