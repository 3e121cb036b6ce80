//! Predictions as people and programs read them. In: predictions. Out: a table, JSONL or CSV.

use clap::ValueEnum;
use train::{Failure, FailureKind};

use crate::task::prediction::{Cell, Output, Prediction};

/// How predictions are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: a table for a single row, else a line a row.
    #[default]
    Table,
    /// A JSON object a row.
    Jsonl,
    /// A record for each thing that is said of a row.
    Csv,
}

impl Format {
    /// All predictions.
    ///
    /// # Errors
    ///
    /// JSON that cannot be written.
    pub fn text(self, predictions: &[Prediction]) -> Result<String, Failure> {
        match self {
            Self::Table => Ok(lines(predictions)),
            Self::Jsonl => jsonl(predictions),
            Self::Csv => Ok(csv(predictions)),
        }
    }
}

/// An object a line.
///
/// # Errors
///
/// None but a lack of memory.
pub fn jsonl(rows: &[impl serde::Serialize]) -> Result<String, Failure> {
    let line = |row| Ok(serde_json::to_string(row).running()? + "\n");
    rows.iter().map(line).collect()
}

/// A table for a single text or image, else a line each: place, then name and figure by turns.
fn lines(predictions: &[Prediction]) -> String {
    let line = |prediction: &Prediction| {
        let records = prediction.output.as_ref().map_or(vec![], shown);
        let Some(place) = &prediction.place else {
            return table(&records);
        };
        if let Some(error) = &prediction.error {
            return format!("{place}\t({error})\n");
        }
        let cells = |record: &Vec<String>| format!("\t{}", record.join("\t"));
        let records: String = records.iter().map(cells).collect();
        format!("{place}{records}\n")
    };
    predictions.iter().map(line).collect()
}

/// The records of an output as a table shows them.
fn shown(output: &Output) -> Vec<Vec<String>> {
    let cell = |cell: Cell| match cell {
        Cell::Text(text) if text.is_empty() && matches!(output, Output::Answers(_)) => {
            Some("(no answer)".into())
        }
        Cell::Text(text) => Some(text),
        Cell::Figure(figure) => Some(format!("{figure:.3}")),
        Cell::Span(from, to) => Some(format!("{from}-{to}")),
        Cell::None => None,
    };
    let record = |cells: Vec<Cell>| cells.into_iter().filter_map(cell).collect();
    output.records().into_iter().map(record).collect()
}

/// A line a row, columns of one width each.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..count)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A header, and a record for each thing that is said; one without any for a row of which nothing is.
fn csv(predictions: &[Prediction]) -> String {
    let outputs = predictions.iter().filter_map(|one| one.output.as_ref());
    let header = outputs.map(Output::header).next().unwrap_or_default();
    let names = ["row", "place", "rank"].iter().chain(header);
    let names = names.chain(&["error"]).map(|name| name.to_string());
    let mut text = csv_line(names);
    for (at, prediction) in predictions.iter().enumerate() {
        let row = (at + 1).to_string();
        let place = prediction.place.clone().unwrap_or_default();
        let error = prediction.error.clone().unwrap_or_default();
        let mut records = prediction.output.as_ref().map_or(vec![], full);
        let is_empty = records.is_empty();
        if is_empty {
            records.push(vec![String::new(); header.len()]);
        }
        for (rank, record) in records.into_iter().enumerate() {
            let rank = if is_empty {
                String::new()
            } else {
                (rank + 1).to_string()
            };
            let first = [row.clone(), place.clone(), rank].into_iter();
            text += &csv_line(first.chain(record).chain([error.clone()]));
        }
    }
    text
}

/// The records of an output with all digits of its figures.
fn full(output: &Output) -> Vec<Vec<String>> {
    let cells = |cell: Cell| match cell {
        Cell::Text(text) => vec![text],
        Cell::Figure(figure) => vec![figure.to_string()],
        Cell::Span(from, to) => vec![from.to_string(), to.to_string()],
        Cell::None => vec![String::new()],
    };
    let record = |record: Vec<Cell>| record.into_iter().flat_map(cells).collect();
    output.records().into_iter().map(record).collect()
}

/// A record of CSV; what holds commas, quotes or line breaks is quoted (RFC 4180).
pub(crate) fn csv_line(cells: impl Iterator<Item = String>) -> String {
    let quoted = |cell: String| {
        if cell.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell
        }
    };
    cells.map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::prediction::Marked;

    fn entity(text: &str) -> Prediction {
        let marked = Marked {
            name: "BIRD".into(),
            text: text.into(),
            start: 2,
            end: 6,
            probability: 0.1,
        };
        Prediction {
            place: Some("a,b.txt:1".into()),
            output: Some(Output::Entities(vec![marked])),
            error: None,
        }
    }

    #[test]
    fn csv_keeps_commas_and_quotes_and_all_digits() {
        let nothing = Prediction {
            place: Some("c:2".into()),
            error: Some("is empty".into()),
            ..Prediction::default()
        };
        assert_eq!(
            csv(&[entity("a \"b\""), nothing]),
            "row,place,rank,text,entity,probability,start,end,error\n\
             1,\"a,b.txt:1\",1,\"a \"\"b\"\"\",BIRD,0.1,2,6,\n\
             2,c:2,,,,,,,is empty\n"
        );
        assert_eq!(csv(&[]), "row,place,rank,error\n");
    }

    #[test]
    fn a_line_holds_what_is_said_of_a_row() {
        assert_eq!(
            lines(&[entity("bird")]),
            "a,b.txt:1\tbird\tBIRD\t0.100\t2-6\n"
        );
        let alone = Prediction {
            place: None,
            ..entity("bird")
        };
        assert_eq!(lines(&[alone]), "bird  BIRD  0.100  2-6\n");
    }
}
