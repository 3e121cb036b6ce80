//! Data sets before anything is trained on them. In: what `--data` of a training would name. Out: what they hold, samples,
//! splits, the same without duplicates, and what is wrong with them; a command a file.
//!
//! [`set`] reads a source, [`near`] finds texts that are nearly equal, [`samples`] draws images.

pub mod dedup;
pub mod describe;
pub mod list;
pub mod near;
pub mod peek;
pub(crate) mod progress;
pub mod samples;
pub mod set;
pub mod split;
pub mod validate;

use clap::{Args, Subcommand};
use train::Failure;

const EXAMPLES: &str = "\
Examples:
  apps datasets list
  apps datasets describe reviews.csv --label-column stars --tokenizer wordnet-bert-nano --max-length 64
  apps datasets peek wordnet-nouns --rows 5 --seed 1
  apps datasets split reviews.csv --label-column stars --valid 0.1 --test 0.1 --output reviews
  apps datasets dedup notes.jsonl --near 0.8 --output clean.jsonl
  apps datasets validate train.csv --label-column stars --test-source test.csv";

/// Look at data sets before training: list, describe, peek, split, deduplicate, validate
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    List(list::Flags),
    Describe(describe::Flags),
    Peek(peek::Flags),
    Split(split::Flags),
    Dedup(dedup::Flags),
    Validate(validate::Flags),
}

/// What a command prints, and whether nothing is wrong with the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub text: String,
    /// False where a validation found something.
    pub is_fine: bool,
}

/// Runs a command.
///
/// # Errors
///
/// A source that cannot be read, or an output that cannot be written.
pub fn run(flags: &Flags) -> Result<Outcome, Failure> {
    let text = match &flags.command {
        Command::List(flags) => list::run(flags),
        Command::Describe(flags) => describe::run(flags),
        Command::Peek(flags) => peek::run(flags),
        Command::Split(flags) => split::run(flags),
        Command::Dedup(flags) => dedup::run(flags),
        Command::Validate(flags) => return validate::run(flags),
    };
    text.map(|text| Outcome {
        text,
        is_fine: true,
    })
}

/// `1 row`, `2 rows`
fn counted(count: usize, one: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {one}{plural}")
}

/// JSON as people read it.
fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(Failure::running)? + "\n")
}
