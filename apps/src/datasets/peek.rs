//! A few rows as people read them, or a few images.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use data::{WholeRow, WholeRows};
use serde_json::Value;
use train::{Failure, FailureKind};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::set::{self, Set, SourceFlags};
use super::{counted, samples};
use crate::open;

/// Columns where there is no terminal.
const WIDTH: usize = 100;

/// Show a few rows, or draw a few images
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  apps datasets peek reviews.csv --rows 5 --seed 1
  apps datasets peek mnist --rows 25 --output digits.png")]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceFlags,
    /// Rows or images
    #[arg(long, value_name = "N", default_value = "10")]
    pub rows: usize,
    /// Take random rows; without it the first ones
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Show texts whole, however long they are
    #[arg(long)]
    pub full: bool,
    /// Print a JSON object a row
    #[arg(long)]
    pub json: bool,
    /// The drawing of images
    #[arg(long, value_name = "FILE.png", default_value = "samples.png")]
    pub output: PathBuf,
}

/// Shows what the flags name.
///
/// # Errors
///
/// A source that cannot be read, or a drawing that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    if flags.source.are_images() {
        check_png(&flags.output)?;
        let inputs: Vec<_> = flags.source.source.iter().map(AsRef::as_ref).collect();
        open::check_output(&flags.output, &inputs)?;
    }
    match flags.source.read(0)? {
        Set::Texts(rows) => {
            let chosen = set::chosen(rows.len(), flags.rows, flags.seed);
            if flags.json {
                let chosen = chosen.iter().map(|&row| &rows.rows[row]);
                return String::from_utf8(set::jsonl(chosen)?).running();
            }
            let width = if flags.full { usize::MAX } else { width() };
            let shown = chosen.iter().map(|&row| shown(&rows, row, width));
            Ok(shown.collect::<Vec<_>>().join("\n"))
        }
        Set::Images(sets) => {
            let chosen = set::chosen(sets.train.len(), flags.rows, flags.seed);
            let png = samples::png(&sets.train, &chosen)?;
            open::write_output(&flags.output, &png)?;
            let output = flags.output.display();
            let images = counted(chosen.len(), "image");
            Ok(format!(
                "wrote {output}: {images} of {}\n",
                sets.train.len()
            ))
        }
    }
}

/// Refuses a name for a drawing that ends in something else.
pub(super) fn check_png(path: &std::path::Path) -> Result<(), Failure> {
    let is_png = |extension: &std::ffi::OsStr| extension.eq_ignore_ascii_case("png");
    if path.extension().is_some_and(is_png) {
        return Ok(());
    }
    let place = path.display();
    Err(Failure::input(format!(
        "{place}: images are drawn as a PNG; name it so"
    )))
}

/// Columns of the terminal.
fn width() -> usize {
    if !std::io::stdout().is_terminal() {
        return WIDTH;
    }
    let size = terminal_size::terminal_size();
    size.map_or(WIDTH, |(width, _)| usize::from(width.0))
}

/// A row: its place, and a line a field.
fn shown(rows: &WholeRows, row: usize, width: usize) -> String {
    let WholeRow { fields, .. } = &rows.rows[row];
    let names = fields.keys().map(|name| name.width()).max().unwrap_or(0);
    let mut text = cut(&rows.place(row), width) + "\n";
    for (name, value) in fields {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let space = " ".repeat(names - name.width());
        text += &(cut(&format!("  {name}{space}  {}", on_one_line(&value)), width) + "\n");
    }
    text
}

/// Without what would break a line or move the cursor.
fn on_one_line(text: &str) -> String {
    let letter = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(letter).collect()
}

/// A line that is no wider than this many columns.
fn cut(line: &str, width: usize) -> String {
    if line.width() <= width {
        return line.into();
    }
    let (mut text, mut used) = (String::new(), 2);
    for letter in line.chars() {
        used += letter.width().unwrap_or(0);
        if used > width {
            break;
        }
        text.push(letter);
    }
    text + ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_to_the_columns_that_letters_take() {
        assert_eq!(cut("a small bird", 12), "a small bird");
        assert_eq!(cut("a small bird", 9), "a small..");
        // Chinese letters are two columns wide.
        assert_eq!(cut("白日依山盡", 10), "白日依山盡");
        assert_eq!(cut("白日依山盡", 9), "白日依..");
        assert_eq!(on_one_line("a\nb\x1b[1m"), "a b [1m");
    }
}
