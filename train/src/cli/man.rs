//! `man [--output DIR]`: manual pages of a program. In: the definition of its command line. Out: a page for the program and for
//! each subcommand, as troff.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command};
use clap_mangen::Man;

use crate::failure::{Failure, FailureKind};
use crate::run::write_atomically;

/// Flags of `man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// A folder for the pages, a file each; those of the same name are replaced [default: all pages are printed]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Writes the pages, and gives what is to be printed.
///
/// - command: of the whole program
///
/// # Errors
///
/// A folder that cannot be written to.
pub fn man(args: &ManArgs, command: Command) -> Result<String, Failure> {
    let pages = pages(command)?;
    let Some(folder) = &args.output else {
        let pages = pages.into_iter().map(|(_, page)| page);
        return Ok(pages.collect());
    };
    let writable = fs::create_dir_all(folder).with_context(|| folder.display().to_string());
    writable.input()?;
    for (name, page) in &pages {
        write(&folder.join(name), page)?;
    }
    Ok(format!("{} pages: {}\n", pages.len(), folder.display()))
}

fn write(path: &Path, page: &str) -> Result<(), Failure> {
    let written = write_atomically(path, page.as_bytes());
    written
        .with_context(|| path.display().to_string())
        .running()
}

/// Name and text of each page, that of the program first.
fn pages(command: Command) -> Result<Vec<(String, String)>, Failure> {
    let mut command = command.disable_help_subcommand(true);
    // Gives each subcommand its whole name, `apps-datasets-list`.
    command.build();
    let version = command.get_version().unwrap_or_default();
    let source = format!("{} {version}", command.get_name());
    let mut pages = Vec::new();
    add(&command, source.trim_end(), &mut pages)?;
    Ok(pages)
}

/// - source: the program and its version, for the foot of the pages
fn add(command: &Command, source: &str, pages: &mut Vec<(String, String)>) -> Result<(), Failure> {
    let page = Man::new(command.clone()).source(source);
    let mut text = Vec::new();
    page.render(&mut text).running()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    pages.push((page.get_filename(), text));
    let mut shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    shown.try_for_each(|sub| add(sub, source, pages))
}
