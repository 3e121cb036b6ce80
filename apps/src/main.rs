//! `apps COMMAND --model BUNDLE_OR_RUN`: uses what `pretrain` and `finetune` leave.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use apps::command_line::{Args, Command};
use apps::{
    card, chat, convert, datasets, dump, embed, evaluate, explain, fill_mask, generate, predict,
    reconstruct, report, sample, search, serve,
};
use clap::{CommandFactory, Parser};
use signal_hook::consts::SIGINT;
use signal_hook::flag;
use train::cli::completions::completions;
use train::cli::exit;
use train::cli::man::man;
use train::memory::Work;
use train::ui::print;
use train::{Failure, Status, process};

/// Keeps freed pages: giving them back and taking them again costs a third of the time of a CPU step.
#[global_allocator]
static ALLOCATOR: train::memory::Allocator = train::memory::Allocator;

fn main() -> ExitCode {
    process::start(Work::Inference);
    let text = match Args::parse().command {
        Command::Predict(flags) => predict::run(&flags),
        Command::Evaluate(flags) => evaluate::run(&flags),
        Command::Explain(flags) => explain::run(&flags),
        Command::FillMask(flags) => fill_mask::run(&flags),
        Command::Generate(flags) => generate::run(&flags),
        Command::Chat(flags) => stop_by_interrupt().and_then(|stop| chat::run(&flags, &stop)),
        Command::Embed(flags) => embed::run(&flags),
        Command::Search(flags) => search::run(&flags),
        Command::Reconstruct(flags) => reconstruct::run(&flags),
        Command::Sample(flags) => sample::run(&flags),
        Command::Dump(flags) => dump::run(&flags),
        Command::Convert(flags) => convert::run(&flags),
        Command::Report(flags) => report::run(&flags),
        Command::Card(flags) => card::run(&flags),
        Command::Serve(flags) => serve::run(&flags),
        Command::Completions(flags) => Ok(completions(&flags, Args::command())),
        Command::Man(flags) => man(&flags, Args::command()),
        Command::Datasets(flags) => return look_at_data(&flags),
    };
    exit(text.and_then(|text| print(&text)).map(|()| Status::Done))
}

/// What Ctrl-C sets; where it is set already, Ctrl-C ends the process as usual.
fn stop_by_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(true));
    // In this order: what the second sets must not be seen by the first.
    flag::register_conditional_default(SIGINT, stop.clone()).map_err(Failure::running)?;
    flag::register(SIGINT, stop.clone()).map_err(Failure::running)?;
    Ok(stop)
}

/// A validation that finds something ends with 1, though nothing went wrong.
fn look_at_data(flags: &datasets::Flags) -> ExitCode {
    let outcome = datasets::run(flags);
    match outcome.and_then(|outcome| print(&outcome.text).map(|()| outcome.is_fine)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => exit(Err(failure)),
    }
}
