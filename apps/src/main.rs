//! `apps COMMAND --model BUNDLE_OR_RUN`: uses what `pretrain` and `finetune` leave.

use std::process::ExitCode;

use apps::{
    card, convert, datasets, dump, embed, evaluate, fill_mask, generate, predict, reconstruct,
    report,
};
use clap::{Parser, Subcommand};
use train::Status;
use train::cli::exit;
use train::memory::Work;
use train::process;
use train::ui::print;

/// Keeps freed pages: giving them back and taking them again costs a third of the time of a CPU step.
#[global_allocator]
static ALLOCATOR: train::memory::Allocator = train::memory::Allocator;

const EXAMPLES: &str = "\
Examples:
  apps predict --model runs/text-classification --text \"a small bird that sings\"
  apps evaluate runs/text-classification test.csv
  apps fill-mask --model wordnet-bert-nano \"a small [MASK] that sings\"
  apps generate --model runs/clm --temperature 0.8 --top-p 0.95 \"a small bird\"
  apps embed --model runs/sentence-embeddings --text \"a small bird\" --text \"a wren\"
  apps reconstruct --model runs/autoencoder --input mnist
  apps dump --model wordnet-bert-nano --input texts.txt --output dump.safetensors
  apps convert --merge runs/lora/model/adapter merged
  apps datasets describe reviews.csv --label-column stars
  apps report runs/text-classification --output report.html
  apps card runs/text-classification --output runs/text-classification/model/README.md";

/// Use a trained model: predict, evaluate, fill masks, continue texts, embed texts, reconstruct images, convert, dump what the model computes; look at data sets and at runs.
#[derive(Parser)]
#[command(name = "apps", version, after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Predict(predict::Flags),
    Evaluate(evaluate::Flags),
    FillMask(fill_mask::Flags),
    Generate(generate::Flags),
    Embed(embed::Flags),
    Reconstruct(reconstruct::Flags),
    Dump(dump::Flags),
    Convert(convert::Flags),
    Datasets(datasets::Flags),
    Report(report::Flags),
    Card(card::Flags),
}

fn main() -> ExitCode {
    process::start(Work::Inference);
    let text = match Args::parse().command {
        Command::Predict(flags) => predict::run(&flags),
        Command::Evaluate(flags) => evaluate::run(&flags),
        Command::FillMask(flags) => fill_mask::run(&flags),
        Command::Generate(flags) => generate::run(&flags),
        Command::Embed(flags) => embed::run(&flags),
        Command::Reconstruct(flags) => reconstruct::run(&flags),
        Command::Dump(flags) => dump::run(&flags),
        Command::Convert(flags) => convert::run(&flags),
        Command::Report(flags) => report::run(&flags),
        Command::Card(flags) => card::run(&flags),
        Command::Datasets(flags) => return look_at_data(&flags),
    };
    exit(text.and_then(|text| print(&text)).map(|()| Status::Done))
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
