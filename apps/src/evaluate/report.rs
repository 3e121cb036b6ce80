//! A report of an evaluation. In: figures. Out: text, JSON, CSV.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use train::metrics::Metrics;
use train::{Failure, FailureKind};

use crate::open;
use crate::predict::format::{csv_line, table};

/// Files of a report.
const FILES: [&str; 4] = [
    "report.json",
    "per_class.csv",
    "confusion.csv",
    "predictions.jsonl",
];
/// Classes of a matrix that is printed.
const MOST_PRINTED: usize = 20;

/// How good a model is.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the model.
    pub task: String,
    /// Where it is.
    pub model: String,
    /// What was read.
    pub data: String,
    /// How many rows were judged.
    pub rows: usize,
    /// By the names that `finetune` has for them.
    pub metrics: Metrics,
    /// Names of the classes or tags, in the order of the matrix.
    pub classes: Vec<String>,
    /// Figures by class, a confusion matrix: as `metrics.jsonl` of a run has them.
    pub details: Option<Value>,
}

/// Refuses a folder that holds a report already.
///
/// # Errors
///
/// Such a file, or no folder.
pub(super) fn check_folder(folder: &Path, force: bool) -> Result<(), Failure> {
    let place = folder.display();
    if folder.exists() && !folder.is_dir() {
        return Err(Failure::input(format!("{place}: is no folder")));
    }
    let there = FILES.iter().map(|name| folder.join(name));
    match there.into_iter().find(|file| file.exists()) {
        Some(file) if !force => Err(Failure::input(format!(
            "{}: exists; --force replaces it",
            file.display()
        ))),
        _ => Ok(()),
    }
}

/// Figures by class: names of the figures, and a class with its own a row.
struct ByClass {
    figures: Vec<String>,
    rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Report {
    fn by_class(&self) -> Vec<ByClass> {
        let Some(details) = &self.details else {
            return vec![];
        };
        let tables = [&details["by_class"], &details["entities"]["by_class"]];
        let tables = tables.iter().filter_map(|table| self.table_of(table));
        let boxes = &details["map_50_by_class"];
        tables.chain(self.boxes_of(boxes)).collect()
    }

    fn class(&self, number: usize) -> String {
        match self.classes.get(number) {
            Some(name) => name.clone(),
            None => number.to_string(),
        }
    }

    /// Figures as tallies give them: a list in the order of the classes, or by name.
    fn table_of(&self, table: &Value) -> Option<ByClass> {
        let rows: Vec<(String, &Value)> = match table {
            Value::Array(rows) => rows
                .iter()
                .enumerate()
                .map(|(number, row)| (self.class(number), row))
                .collect(),
            Value::Object(rows) => rows.iter().map(|(name, row)| (name.clone(), row)).collect(),
            _ => return None,
        };
        let first = rows.iter().find_map(|(_, row)| row.as_object())?;
        let mut figures: Vec<String> = first.keys().cloned().collect();
        let rank = |name: &String| {
            let usual = ["precision", "recall", "f1", "support"];
            usual
                .iter()
                .position(|one| one == name)
                .unwrap_or(usual.len())
        };
        figures.sort_by_key(rank);
        let cells = |row: &Value| figures.iter().map(|name| row[name].as_f64()).collect();
        let rows = rows
            .into_iter()
            .map(|(name, row)| (name, cells(row)))
            .collect();
        Some(ByClass { figures, rows })
    }

    /// Average precision by the number of the class.
    fn boxes_of(&self, table: &Value) -> Option<ByClass> {
        let table = table.as_object()?;
        let mut rows: Vec<(usize, Option<f64>)> = table
            .iter()
            .filter_map(|(number, value)| Some((number.parse().ok()?, value.as_f64())))
            .collect();
        rows.sort_by_key(|(number, _)| *number);
        let row = |(number, value)| (self.class(number), vec![value]);
        Some(ByClass {
            figures: vec!["map_50".into()],
            rows: rows.into_iter().map(row).collect(),
        })
    }

    /// Counts by truth and prediction.
    fn confusion(&self) -> Vec<Vec<u64>> {
        let matrix = self.details.as_ref().map(|details| &details["confusion"]);
        let rows = matrix.and_then(Value::as_array);
        let row = |row: &Value| -> Vec<u64> {
            let counts = row.as_array().into_iter().flatten();
            counts.filter_map(Value::as_u64).collect()
        };
        rows.into_iter().flatten().map(row).collect()
    }

    /// For people.
    pub fn text(&self) -> String {
        let rows = if self.rows == 1 { "row" } else { "rows" };
        let mut text = format!("{}: {} {rows} of {}\n\n", self.task, self.rows, self.data);
        let mut figures: Vec<_> = self.metrics.iter().collect();
        figures.sort_by_key(|(name, _)| *name != "loss");
        let figures: Vec<Vec<String>> = figures
            .iter()
            .map(|(name, value)| vec![name.to_string(), shown(name, Some(**value))])
            .collect();
        text += &table(&figures);
        for ByClass { figures, rows } in self.by_class() {
            let row = |(name, cells): (String, Vec<Option<f64>>)| {
                let cells = figures.iter().zip(cells);
                let cells = cells.map(|(figure, cell)| shown(figure, cell));
                std::iter::once(name).chain(cells).collect()
            };
            let header = figures.iter().cloned();
            let header = std::iter::once("class".into()).chain(header).collect();
            let rows = std::iter::once(header).chain(rows.into_iter().map(row));
            text += &format!("\n{}", table(&rows.collect::<Vec<_>>()));
        }
        let confusion = self.confusion();
        if confusion.len() > MOST_PRINTED {
            let n = confusion.len();
            text += &format!(
                "\nThe matrix of {n} classes is too large to print; --output writes it.\n"
            );
        } else if !confusion.is_empty() {
            let rows: Vec<Vec<String>> = self.matrix(&confusion).collect();
            text += &format!("\n{}", table(&rows));
        }
        text
    }

    /// The matrix with names of its rows and columns.
    fn matrix<'a>(&'a self, confusion: &'a [Vec<u64>]) -> impl Iterator<Item = Vec<String>> + 'a {
        let names = (0..confusion.len()).map(|number| self.class(number));
        let header = std::iter::once("truth \\ prediction".to_string()).chain(names);
        let row = |(number, row): (usize, &Vec<u64>)| {
            let counts = row.iter().map(u64::to_string);
            std::iter::once(self.class(number)).chain(counts).collect()
        };
        std::iter::once(header.collect()).chain(confusion.iter().enumerate().map(row))
    }

    /// Writes all files of the report, those of classes where there are classes.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written.
    pub(super) fn write(&self, folder: &Path, predictions: &str) -> Result<(), Failure> {
        std::fs::create_dir_all(folder).running()?;
        let write =
            |name: &str, text: &str| open::write_output(&folder.join(name), text.as_bytes());
        write("predictions.jsonl", predictions)?;
        let mut per_class = String::new();
        for ByClass { figures, rows } in self.by_class() {
            let header = std::iter::once("class".into()).chain(figures);
            per_class += &csv_line(header);
            for (name, cells) in rows {
                let cell =
                    |cell: Option<f64>| cell.map(|cell| cell.to_string()).unwrap_or_default();
                per_class += &csv_line(std::iter::once(name).chain(cells.into_iter().map(cell)));
            }
        }
        if !per_class.is_empty() {
            write("per_class.csv", &per_class)?;
        }
        let confusion = self.confusion();
        if !confusion.is_empty() {
            let rows = self.matrix(&confusion).map(|row| csv_line(row.into_iter()));
            write("confusion.csv", &rows.collect::<String>())?;
        }
        // Last: where it is, the report is whole.
        let json = serde_json::to_string_pretty(self).running()?;
        write("report.json", &(json + "\n"))
    }
}

/// A figure for people; a count as it is.
fn shown(name: &str, value: Option<f64>) -> String {
    match value.filter(|value| !value.is_nan()) {
        None => "-".into(),
        Some(count) if ["support", "pixels"].contains(&name) => format!("{count:.0}"),
        Some(value) => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(details: Value) -> Report {
        Report {
            task: "classification".into(),
            model: "m".into(),
            data: "a.csv".into(),
            rows: 3,
            metrics: Metrics::from([("accuracy".into(), 0.5), ("loss".into(), 1.25)]),
            classes: vec!["a".into(), "b".into()],
            details: Some(details),
        }
    }

    #[test]
    fn figures_come_with_those_of_each_class_and_the_matrix() {
        let of_class = json!({"f1": 0.5, "precision": 1.0, "recall": 0.25, "support": 12.0});
        let details = json!({"by_class": [of_class, null], "confusion": [[3, 9], [0, 0]]});
        assert_eq!(
            report(details).text(),
            "classification: 3 rows of a.csv\n\n\
             loss      1.2500\n\
             accuracy  0.5000\n\n\
             class  precision  recall  f1      support\n\
             a      1.0000     0.2500  0.5000  12\n\
             b      -          -       -       -\n\n\
             truth \\ prediction  a  b\n\
             a                   3  9\n\
             b                   0  0\n"
        );
    }

    #[test]
    fn boxes_have_a_figure_a_class() {
        let text = report(json!({"map_50_by_class": {"1": 0.5}})).text();
        assert!(text.ends_with("class  map_50\nb      0.5000\n"), "{text}");
    }
}
