//! Rows that are embedded, a window at a time. In: files, folders, standard input. Out: rows with their places.

use std::num::NonZeroUsize;

use clap::Args;
use data::CutTexts;
use model::Bundle;
use train::Failure;

use super::embedder::{self, Embedder};
use crate::input::{Columns, Input, Wanted, is_stdin};
use crate::predict::{BATCHES, Watch};
use crate::task::Row;

/// How rows are read.
#[derive(Args, Clone, Debug)]
pub struct ReadFlags {
    /// Column or key that holds the texts
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub column: String,
    /// Rows in a forward pass
    #[arg(long, value_name = "N", default_value = "64")]
    pub batch_size: NonZeroUsize,
    /// Leave out rows that are empty or cannot be read, and say how many
    #[arg(long)]
    pub skip_unreadable: bool,
}

/// A row that can be read.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedRow {
    /// `path:line`, the file of an image, or the number of a text of the command line.
    pub place: String,
    /// What is embedded.
    pub row: Row,
}

impl PlacedRow {
    /// The text; nothing of an image.
    pub fn text(&self) -> Option<String> {
        match &self.row {
            Row::Texts(texts) => texts.first().cloned(),
            Row::Words(words) => Some(words.join(" ")),
            Row::Image(_) => None,
        }
    }
}

/// Reads what is named, or standard input where nothing is.
///
/// # Errors
///
/// A model that embeds nothing, or what is missing or malformed, but for single rows.
pub fn read(bundle: &Bundle, named: &[String], flags: &ReadFlags) -> Result<Input, Failure> {
    let wanted = Wanted::one_each(embedder::view(bundle)?);
    let columns = Columns {
        text: &flags.column,
        second: None,
    };
    let input = if is_stdin(named) {
        Input::of_stdin(named, columns, wanted)?
    } else {
        Input::of_files(named, columns, wanted)?
    };
    check(&input, flags)?;
    Ok(input)
}

/// Refuses rows that cannot be read before the model is loaded, where they are in memory.
fn check(input: &Input, flags: &ReadFlags) -> Result<(), Failure> {
    let Input::Rows(rows) = input else {
        return Ok(());
    };
    let mut wrong = rows.iter().filter_map(|row| {
        let place = row.place.as_deref().unwrap_or_default();
        row.row.as_ref().err().map(|reason| (place, reason))
    });
    match wrong.next() {
        Some((place, reason)) if !flags.skip_unreadable => Err(unreadable(place, reason)),
        Some(_) | None => Ok(()),
    }
}

fn unreadable(place: &str, reason: &str) -> Failure {
    // What is wrong with a file names it already.
    let reason = reason.strip_prefix(&format!("{place}: ")).unwrap_or(reason);
    Failure::input(format!(
        "{place}: {reason}; --skip-unreadable leaves such rows out"
    ))
}

/// Hands over all rows that can be read, some batches at a time, and says how far it is and what is left out.
///
/// # Errors
///
/// A row that cannot be read and is not to be left out, no row that can be read, or what `take` fails with.
pub fn for_each_window(
    input: &Input,
    flags: &ReadFlags,
    mut take: impl FnMut(Vec<PlacedRow>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let window = flags.batch_size.get().saturating_mul(BATCHES);
    let mut progress = Watch::new("embedding", input.len());
    let (mut taken, mut left_out) = (0, 0);
    for first in (0..input.len()).step_by(window) {
        let last = first.saturating_add(window).min(input.len());
        let mut rows = Vec::with_capacity(last - first);
        for (at, row) in (first..).zip(input.window(first..last)) {
            let place = row.place.unwrap_or_else(|| match input {
                Input::Pictures(pictures) => pictures.place(at),
                Input::Rows(_) => format!("text {}", at + 1),
            });
            match row.row {
                Ok(row) => rows.push(PlacedRow { place, row }),
                Err(_) if flags.skip_unreadable => left_out += 1,
                Err(reason) => return Err(unreadable(&place, &reason)),
            }
        }
        taken += rows.len();
        if !rows.is_empty() {
            take(rows)?;
        }
        progress.at(last);
    }
    if taken == 0 {
        return Err(Failure::input("no row can be read"));
    }
    if left_out > 0 {
        let (rows, are) = match left_out {
            1 => ("row", "is"),
            _ => ("rows", "are"),
        };
        eprintln!("warning: {left_out} {rows} {are} empty or cannot be read, and left out");
    }
    Ok(())
}

/// Says how many texts the model does not see whole.
pub fn note_cut(embedder: &dyn Embedder, cut: CutTexts) {
    if let Some(max_length) = embedder.max_length().filter(|_| cut.texts > 0) {
        eprintln!("note: {}", cut.line(max_length));
    }
}
