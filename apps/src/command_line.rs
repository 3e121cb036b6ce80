//! The definition of the command line: every command with its flags.

use clap::{Parser, Subcommand};
use train::cli::completions::CompletionsArgs;
use train::cli::man::ManArgs;

use crate::{
    card, chat, convert, datasets, dump, embed, evaluate, explain, fill_mask, generate, predict,
    reconstruct, report, sample, search, serve,
};

const EXAMPLES: &str = "\
Examples:
  apps predict --model runs/text-classification --text \"a small bird that sings\"
  apps evaluate runs/text-classification test.csv
  apps explain runs/text-classification --text \"a small bird that sings\"
  apps fill-mask --model wordnet-bert-nano \"a small [MASK] that sings\"
  apps generate --model runs/clm --temperature 0.8 --top-p 0.95 \"a small bird\"
  apps chat --model runs/instruction-tuning
  apps embed --model runs/sentence-embeddings --text \"a small bird\" --text \"a wren\"
  apps search index runs/sentence-embeddings notes/ --output notes.index
  apps reconstruct --model runs/autoencoder --input mnist
  apps sample --model runs/vae --count 40
  apps dump --model wordnet-bert-nano --input texts.txt --output dump.safetensors
  apps convert --merge runs/lora/model/adapter merged
  apps datasets describe reviews.csv --label-column stars
  apps report runs/text-classification --output report.html
  apps serve runs/text-classification --runs runs/
  apps card runs/text-classification --output runs/text-classification/model/README.md

More: README.md, sections \"Quick start\", \"Models\", \"Training\" and \"Your own data\"";

const COMPLETIONS: &str = "\
Examples:
  apps completions bash > ~/.local/share/bash-completion/completions/apps
  apps completions zsh > ~/.zfunc/_apps
  apps completions fish > ~/.config/fish/completions/apps.fish";

const MAN: &str = "\
Examples:
  apps man | man -l -
  apps man --output man1";

/// Use a trained model: predict, evaluate, explain, fill masks, continue texts, talk, embed and search texts and images, reconstruct and draw images, convert, serve, dump what the model computes; look at data sets and at runs.
#[derive(Parser)]
#[command(name = "apps", version, after_help = EXAMPLES)]
pub struct Args {
    /// The command; its flags say what it does.
    #[command(subcommand)]
    pub command: Command,
}

/// A command and its flags.
#[derive(Subcommand)]
#[allow(missing_docs)] // The help shows the words of a variant instead of those of its flags.
pub enum Command {
    Predict(predict::Flags),
    Evaluate(evaluate::Flags),
    Explain(explain::Flags),
    FillMask(fill_mask::Flags),
    Generate(generate::Flags),
    Chat(chat::Flags),
    Embed(embed::Flags),
    Search(search::Flags),
    Reconstruct(reconstruct::Flags),
    Sample(sample::Flags),
    Dump(dump::Flags),
    Convert(convert::Flags),
    Datasets(datasets::Flags),
    Report(report::Flags),
    Card(card::Flags),
    Serve(serve::Flags),
    /// Print a script that lets a shell complete this command line
    #[command(after_help = COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print manual pages, or write them into a folder
    #[command(after_help = MAN)]
    Man(ManArgs),
}
