//! `pretrain [RECIPE]`: learns from unlabelled data and leaves a bundle.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use train::cli::{self, Subcommand, TrainArgs};
use train::memory::Work;
use train::process;

/// Keeps freed pages: giving them back and taking them again costs a third of the time of a CPU step.
#[global_allocator]
static ALLOCATOR: train::memory::Allocator = train::memory::Allocator;

/// Pretrain a model on unlabelled data. Without a recipe: masked language modelling on bundled definitions.
#[derive(Parser)]
#[command(name = "pretrain", version, args_conflicts_with_subcommands = true, after_help = cli::MORE)]
struct Args {
    #[command(flatten)]
    train: TrainArgs,
    #[command(subcommand)]
    subcommand: Option<Subcommand>,
}

fn main() -> ExitCode {
    process::start(Work::Preparing);
    if let Err(failure) = process::listen() {
        return cli::exit(Err(failure));
    }
    let Args { train, subcommand } = Args::parse();
    cli::main(&pretrain::TRAINER, Args::command(), train, subcommand)
}
