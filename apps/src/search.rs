//! Finds texts or images by what they mean. In: a model and rows, then questions. Out: an index on disk, the nearest rows.
//!
//! Reading order: [`index`] (what is kept, and how it is read and written), [`build`] (`apps search index`), [`nearest`] (the
//! search itself), [`query`] (`apps search query`).

pub mod build;
pub mod index;
pub mod nearest;
pub mod query;

use clap::{Args, Subcommand};
use train::Failure;

const EXAMPLES: &str = "\
Examples:
  apps search index runs/sentence-embeddings notes/ --output notes.index
  apps search index runs/sentence-embeddings more.txt --output notes.index --append
  apps search query notes.index --text \"a bird that sings\" --top 5
  apps search index runs/image-classification photos/ --output photos.index
  apps search query photos.index --image wren.jpg --json";

const BUILD_EXAMPLES: &str = "\
Examples:
  apps search index runs/sentence-embeddings notes/ --output notes.index
  apps search index runs/image-classification photos/ --output photos.index";

const QUERY_EXAMPLES: &str = "\
Examples:
  apps search query notes.index --text \"a bird that sings\" --top 5
  apps search query photos.index --image wren.jpg --json";

/// Find texts or images by what they mean: build an index, then ask for what is nearest
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    #[command(after_help = BUILD_EXAMPLES)]
    Index(build::Flags),
    #[command(after_help = QUERY_EXAMPLES)]
    Query(query::Flags),
}

/// Does what the flags name, and gives what is printed.
///
/// # Errors
///
/// A model, an input or an index that cannot be used, or an index that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    match &flags.command {
        Command::Index(flags) => build::run(flags),
        Command::Query(flags) => query::run(flags),
    }
}
