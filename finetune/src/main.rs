//! `finetune [RECIPE] --from BUNDLE`: adapts a pretrained model to labelled data.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use train::cli::{self, Subcommand, TrainArgs};
use train::memory::Work;
use train::process;

/// Keeps freed pages: giving them back and taking them again costs a third of the time of a CPU step.
#[global_allocator]
static ALLOCATOR: train::memory::Allocator = train::memory::Allocator;

/// Fine-tune a pretrained model on labelled data. Without a recipe: 26 classes of bundled definitions.
#[derive(Parser)]
#[command(name = "finetune", version, args_conflicts_with_subcommands = true, after_help = cli::MORE)]
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
    cli::main(&finetune::TRAINER, Args::command(), train, subcommand)
}
