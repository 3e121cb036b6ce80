//! Leaves out what is there twice. In: texts. Out: the first row of each, and a report of what was dropped for what.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use data::WholeRows;
use serde_json::json;
use train::{Failure, FailureKind};

use super::near::{self, Likeness, Role};
use super::progress::Progress;
use super::set::{self, SourceFlags};
use crate::open;

/// Write rows without those that are equal, or nearly equal, to one before them
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Texts are equal where they differ in compatible forms of Unicode, capitals and white space alone. With --near they \
are nearly equal from this share of common pieces on (Jaccard index of pieces of five characters, or of words); pairs are found by \
MinHash and then compared exactly, so at the threshold one in fifty may be missed.

Examples:
  apps datasets dedup notes.jsonl --output clean.jsonl
  apps datasets dedup 'crawl/*.jsonl.gz' --near 0.8 --output clean.jsonl --report dropped.jsonl"
)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceFlags,
    /// The rows that stay, as JSONL with all columns
    #[arg(long, value_name = "FILE.jsonl")]
    pub output: PathBuf,
    /// Drop what has this share of its pieces in common with a row that stays, above 0 and at most 1
    #[arg(allow_negative_numbers = true, long, value_name = "SHARE")]
    pub near: Option<f64>,
    /// Compare pieces of so many words instead of five characters
    #[arg(long, value_name = "N", requires = "near")]
    pub words: Option<std::num::NonZeroUsize>,
    /// A line of JSON for each row that is dropped: its place, the place of the one that stays, and how alike they are
    #[arg(long, value_name = "FILE.jsonl")]
    pub report: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

/// A row that is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropped {
    /// The row.
    pub row: usize,
    /// The one that stays in its place.
    pub kept: usize,
    /// Of nearly equal texts, the share of pieces that they have in common.
    pub near: Option<f64>,
}

/// Finds what is to be dropped, in the order of the rows.
///
/// - texts: of all rows, as [`near::normal`] gives them
/// - likeness: of what is nearly equal; `None` drops equal texts alone
/// - progress: called with the number of rows up to there
pub fn dropped(
    texts: &[String],
    likeness: Option<Likeness>,
    progress: &mut dyn FnMut(usize),
) -> Vec<Dropped> {
    let first = first_of_each(texts);
    let mut kept = first.clone();
    let mut shares = vec![None; texts.len()];
    if let Some(likeness) = likeness {
        let role = |row: usize| {
            if first[row] == row {
                Role::Both
            } else {
                Role::Ignored
            }
        };
        for near in near::nearest(texts, likeness, role, progress) {
            kept[near.row] = near.like;
            shares[near.row] = Some(near.likeness);
        }
    }
    let row = |row: usize| {
        // A copy of a row that goes is dropped for what that one is dropped for.
        let original = first[row];
        (kept[original] != row).then(|| Dropped {
            row,
            kept: kept[original],
            near: shares[original],
        })
    };
    (0..texts.len()).filter_map(row).collect()
}

/// Of each text the first row that is equal to it.
pub fn first_of_each(texts: &[String]) -> Vec<usize> {
    let mut known: HashMap<&str, usize> = HashMap::new();
    let rows = texts.iter().enumerate();
    rows.map(|(row, text)| *known.entry(text).or_insert(row))
        .collect()
}

/// The share of `--near`.
///
/// # Errors
///
/// One that is no share.
pub(super) fn check_share(flag: &str, share: f64) -> Result<(), Failure> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{flag} is {share}; it must be above 0 and at most 1"
    )))
}

/// Normal texts of all rows.
pub(super) fn normal_texts(rows: &WholeRows) -> Vec<String> {
    let text = |row: &data::WholeRow| near::normal(&row.text());
    rows.rows.iter().map(text).collect()
}

/// Writes what stays.
///
/// # Errors
///
/// A source that cannot be read, images, or an output that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    if let Some(share) = flags.near {
        check_share("--near", share)?;
    }
    if Some(&flags.output) == flags.report.as_ref() {
        return Err(Failure::input("--output and --report name one file"));
    }
    for output in std::iter::once(&flags.output).chain(&flags.report) {
        let extension = output.extension().and_then(|extension| extension.to_str());
        if !matches!(extension, Some("jsonl" | "ndjson")) {
            let output = output.display();
            let reason = format!("{output}: is written as JSONL; name it so");
            return Err(Failure::input(reason));
        }
        set::check_output(output, &flags.source.source, flags.force)?;
    }
    let rows = flags.source.texts("dedup")?;
    let texts = normal_texts(&rows);
    let likeness = flags.near.map(|threshold| Likeness {
        threshold,
        words: flags.words.map(usize::from),
    });
    let mut progress = Progress::new("comparing");
    let dropped = dropped(&texts, likeness, &mut |row| {
        progress.at(row, Some(texts.len()));
    });
    let mut stays = vec![true; rows.len()];
    dropped
        .iter()
        .for_each(|dropped| stays[dropped.row] = false);
    let kept = rows.rows.iter().zip(&stays).filter(|(_, stays)| **stays);
    let bytes = set::jsonl(kept.map(|(row, _)| row))?;
    open::write_output(&flags.output, &bytes)?;
    if let Some(report) = &flags.report {
        open::write_output(report, &lines(&rows, &dropped)?)?;
    }
    for line in rows.left_out.lines() {
        eprintln!("warning: {line}");
    }
    let near = dropped.iter().filter(|dropped| dropped.near.is_some());
    let near = near.count();
    let equal = dropped.len() - near;
    let near = match flags.near {
        Some(_) => format!(" and {near} nearly equal"),
        None => String::new(),
    };
    Ok(format!(
        "{}: {} of {} rows, {equal} equal{near} ones dropped\n",
        flags.output.display(),
        rows.len() - dropped.len(),
        rows.len()
    ))
}

fn lines(rows: &WholeRows, dropped: &[Dropped]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    for Dropped { row, kept, near } in dropped {
        let line = json!({
            "dropped": rows.place(*row),
            "kept": rows.place(*kept),
            "likeness": near.unwrap_or(1.0),
            "equal": near.is_none(),
            "text": rows.rows[*row].text(),
            "kept_text": rows.rows[*kept].text(),
        });
        serde_json::to_writer(&mut bytes, &line).running()?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_or_nearly_so_is_dropped_for_a_row_that_stays() {
        let texts = [
            "a small bird that sings at night in the woods of the north",
            "another text",
            "A small  bird that sings at night in the woods of the NORTH",
            "a small bird that sings at night in the woods of the south",
            "a small bird that sings at night in the woods of the south",
        ];
        let texts: Vec<String> = texts.iter().map(|text| near::normal(text)).collect();
        let rows = |dropped: &[Dropped]| -> Vec<(usize, usize, bool)> {
            let row = |one: &Dropped| (one.row, one.kept, one.near.is_some());
            dropped.iter().map(row).collect()
        };
        let equal = dropped(&texts, None, &mut |_| {});
        assert_eq!(rows(&equal), [(2, 0, false), (4, 3, false)]);
        let likeness = Likeness {
            threshold: 0.8,
            words: None,
        };
        let mut told = 0;
        let near = dropped(&texts, Some(likeness), &mut |rows| told = rows);
        assert_eq!(rows(&near), [(2, 0, false), (3, 0, true), (4, 0, true)]);
        assert_eq!(told, 5);
    }
}
