//! Runs side by side: figures, recipes, curves.

use train::Failure;
use train::report::compare::{Run, differing, rows};

use super::curves;
use super::html::{Cell, Table, heading, note};
use crate::record::Record;

/// Figures and recipes of all runs, and their curves in the same drawings.
///
/// # Errors
///
/// A drawing fails.
pub(super) fn of_runs(records: &[Record]) -> Result<String, Failure> {
    let runs: Vec<Run> = records.iter().map(|record| record.run.clone()).collect();
    let mut body = table("Figures of each run", turned(rows(&runs))).markup();
    let differing = differing(&runs);
    if differing.is_empty() {
        body += &note("The recipes are the same.");
    } else {
        body += &table("Keys in which the recipes differ", differing).markup();
    }
    body += &heading("Curves of all runs");
    body += &curves::of_runs(records)?;
    Ok(body)
}

/// - rows: the first is the header
fn table(caption: &str, rows: Vec<Vec<String>>) -> Table {
    let mut rows = rows.into_iter();
    let head = rows.next().unwrap_or_default();
    let row = |cells: Vec<String>| cells.into_iter().map(Cell::Text).collect();
    Table {
        caption: caption.into(),
        head,
        rows: rows.map(row).collect(),
    }
}

/// Columns as rows: there are more figures than runs.
fn turned(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let columns = rows.first().map_or(0, Vec::len);
    let column = |at: usize| rows.iter().map(|row| row[at].clone()).collect();
    (0..columns).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_a_run() {
        let rows =
            [["run", "loss"], ["a", "1"], ["b", "2"]].map(|row| row.map(String::from).to_vec());
        let turned = turned(rows.to_vec());
        assert_eq!(turned, [["run", "a", "b"], ["loss", "1", "2"]]);
    }
}
