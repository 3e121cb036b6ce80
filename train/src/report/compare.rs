//! `compare RUN RUN...`: the results of runs, side by side. In: run directories. Out: a table and one plot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, FailureKind};
use crate::metrics::{Better, short};
use crate::report::plot;
use crate::ui::{duration, print};

/// Flags of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Run directories
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Where the overlaid plot goes
    #[arg(long, value_name = "PATH", default_value = "runs/compare.svg")]
    pub plot: PathBuf,
    /// The metric of the plot [default: that which chose the best step of the first run]
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// A run that has been read.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its directory, as it was named.
    pub name: String,
    /// `summary.json`; of a run that has none, because it is still going or was killed, what its recipe says, with the status
    /// "unfinished".
    pub summary: Value,
    /// `recipe.toml`.
    pub recipe: toml::Table,
    /// The lines of `metrics.jsonl`.
    pub events: Vec<Value>,
}

impl Run {
    /// Reads a run.
    ///
    /// # Errors
    ///
    /// A file that is missing, but for the summary, or that is not what it should be.
    pub fn open(path: &Path) -> Result<Self> {
        let mut run = Self::without_events(path)?;
        run.events = plot::events(path)?;
        Ok(run)
    }

    /// Reads recipe and summary alone.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn without_events(path: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = path.join(name);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let place = |name: &str| path.join(name).display().to_string();
        let recipe: toml::Table = match read("recipe.toml")?.parse() {
            Ok(recipe) => recipe,
            Err(_) => bail!("{}: not valid TOML", place("recipe.toml")),
        };
        let summary = match read("summary.json") {
            Ok(text) => serde_json::from_str(&text).with_context(|| place("summary.json"))?,
            Err(_) => unfinished(&recipe),
        };
        Ok(Self {
            name: path.display().to_string(),
            summary,
            recipe,
            events: Vec::new(),
        })
    }

    /// What chose its best step.
    pub fn metric(&self) -> String {
        let training = self.recipe.get("training");
        let metric = training.and_then(|training| training.get("metric"));
        metric
            .and_then(toml::Value::as_str)
            .unwrap_or("loss")
            .into()
    }

    /// Cells of the table, by column.
    fn cells(&self) -> Vec<(String, String)> {
        let at = |pointer: &str| self.summary.pointer(pointer);
        let text = |pointer: &str| match at(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "-".into(),
            Some(other) => other.to_string(),
        };
        let mut cells = vec![("run".to_string(), self.name.clone())];
        for column in ["recipe", "seed", "status", "steps"] {
            cells.push((column.into(), text(&format!("/{column}"))));
        }
        cells.push(("best step".into(), text("/best/step")));
        for (title, pointer) in [("best", "/best/metrics"), ("test", "/test/metrics")] {
            for (name, value) in at(pointer).and_then(Value::as_object).into_iter().flatten() {
                let value = value.as_f64().map_or("-".into(), short);
                cells.push((format!("{title} {name}"), value));
            }
        }
        for (name, value) in at("/throughput")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let name = name.replace("real_", "").replace("_per_second", "/s");
            cells.push((name, format!("{:.0}", value.as_f64().unwrap_or(f64::NAN))));
        }
        let mib = |bytes: f64| format!("{:.0}", bytes / f64::from(1 << 20));
        let number = |pointer: &str, text: &dyn Fn(f64) -> String| {
            at(pointer).and_then(Value::as_f64).map_or("-".into(), text)
        };
        cells.push(("peak MiB".into(), number("/peak_memory_bytes", &mib)));
        cells.push(("time".into(), number("/train_seconds", &duration)));
        cells
    }
}

/// The summary of a run that is still going, or was killed: what its recipe says.
fn unfinished(recipe: &toml::Table) -> Value {
    let kind = recipe.get("objective").or(recipe.get("task"));
    json!({
        "status": "unfinished",
        "recipe": kind.and_then(toml::Value::as_str),
        "seed": recipe.get("seed").and_then(toml::Value::as_integer),
    })
}

/// Prints the comparison and draws the plot.
///
/// # Errors
///
/// A directory that is no run, or a metric that none of them has.
pub fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let runs: Result<Vec<Run>> = args.runs.iter().map(|path| Run::open(path)).collect();
    let runs = runs.input()?;
    let metric = args.metric.clone().unwrap_or_else(|| runs[0].metric());
    let curves: Vec<_> = runs
        .iter()
        .map(|run| (run.name.clone(), plot::valid(&run.events, &metric)))
        .collect();
    if args.metric.is_some() && curves.iter().all(|(_, curve)| curve.is_empty()) {
        let reason = format!("--metric {metric}: no run has a curve of it");
        return Err(Failure::input(reason));
    }
    if args.json {
        print(&format!("{:#}\n", as_json(&runs)))?;
    } else {
        let tables = [rows(&runs), differing(&runs)];
        let tables = tables.iter().filter(|rows| !rows.is_empty());
        let tables: Vec<_> = tables.map(|rows| table(rows)).collect();
        print(&format!("{}\n", tables.join("\n").trim_end()))?;
    }
    let better = runs
        .iter()
        .find_map(|run| Better::of_run(&run.summary, &metric));
    let drawn = plot::overlay(&metric, better, curves, &args.plot).running()?;
    if drawn && !args.json {
        print(&format!("\nplot: {}\n", args.plot.display()))?;
    }
    Ok(())
}

fn as_json(runs: &[Run]) -> Value {
    let run = |run: &Run| {
        let mut all = Map::from_iter([("run".to_string(), Value::from(run.name.clone()))]);
        all.extend(run.summary.as_object().cloned().unwrap_or_default());
        Value::Object(all)
    };
    Value::Array(runs.iter().map(run).collect())
}

/// A header and a row a run; runs need not have the same columns.
pub fn rows(runs: &[Run]) -> Vec<Vec<String>> {
    let cells: Vec<_> = runs.iter().map(Run::cells).collect();
    let mut columns: Vec<String> = Vec::new();
    for (column, _) in cells.iter().flatten() {
        if !columns.contains(column) {
            columns.push(column.clone());
        }
    }
    // Columns that only some runs have are beside those of their kind.
    columns.sort_by_key(|column| match column.as_str() {
        "best step" => 0,
        column if column.starts_with("best ") => 1,
        column if column.starts_with("test ") => 2,
        column if column.ends_with("/s") => 3,
        "peak MiB" | "time" => 4,
        _ => 0,
    });
    let row = |cells: &Vec<(String, String)>| -> Vec<String> {
        let cell = |column: &String| {
            let found = cells.iter().find(|(name, _)| name == column);
            found.map_or("-".into(), |(_, value)| value.clone())
        };
        columns.iter().map(cell).collect()
    };
    let mut all = vec![columns.clone()];
    all.extend(cells.iter().map(row));
    all
}

/// The recipe's keys that are not the same in all runs: a header and a row a key, or nothing.
pub fn differing(runs: &[Run]) -> Vec<Vec<String>> {
    let flat: Vec<BTreeMap<String, String>> = runs.iter().map(|run| flat(&run.recipe)).collect();
    let keys: BTreeMap<&String, ()> = flat
        .iter()
        .flat_map(|keys| keys.keys())
        .map(|key| (key, ()))
        .collect();
    let mut all = Vec::new();
    for key in keys.into_keys() {
        let values: Vec<_> = flat
            .iter()
            .map(|keys| keys.get(key).cloned().unwrap_or("-".into()))
            .collect();
        if values.iter().any(|value| *value != values[0]) {
            all.push([vec![key.clone()], values].concat());
        }
    }
    if !all.is_empty() {
        let names = runs.iter().map(|run| run.name.clone()).collect();
        all.insert(0, [vec!["differs".to_string()], names].concat());
    }
    all
}

/// Dotted keys and their values.
fn flat(table: &toml::Table) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                let inner = flat(inner).into_iter();
                all.extend(inner.map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            other => {
                all.insert(key.clone(), other.to_string());
            }
        }
    }
    all
}

/// Columns as wide as their widest cell.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_told_by_run() {
        let run = |name: &str, recipe: &str| Run {
            name: name.into(),
            summary: Value::Null,
            recipe: recipe.parse().unwrap(),
            events: Vec::new(),
        };
        let runs = [
            run("a", "seed = 1\n[optimizer]\nlr = 0.1\nclip = 1.0"),
            run("b", "seed = 1\n[optimizer]\nlr = 0.2\nclip = 1.0"),
        ];
        let expected = [["differs", "a", "b"], ["optimizer.lr", "0.1", "0.2"]];
        assert_eq!(differing(&runs), expected);
        assert!(differing(&runs[..1]).is_empty());
    }

    #[test]
    fn columns_that_not_all_runs_have_stand_beside_their_like() {
        let run = |name: &str, summary: Value| Run {
            name: name.into(),
            summary,
            recipe: toml::Table::new(),
            events: Vec::new(),
        };
        let recipe = "task = \"x\"\nseed = 7".parse().unwrap();
        let rows = rows(&[
            run(
                "a",
                json!({"best": {"metrics": {"loss": 2.0}}, "throughput": {"samples_per_second": 9.4}}),
            ),
            run("b", json!({"best": {"step": 3, "metrics": {"mse": 0.5}}})),
            run("c", unfinished(&recipe)),
        ]);
        let head =
            "run recipe seed status steps best_step best_loss best_mse samples/s peak_MiB time";
        let head: Vec<_> = head.split(' ').map(|name| name.replace('_', " ")).collect();
        assert_eq!(rows[0], head);
        assert_eq!(rows[1][5..9], ["-", "2.000", "-", "9"]);
        assert_eq!(rows[2][5..9], ["3", "-", "0.5000", "-"]);
        assert_eq!(rows[3][..5], ["c", "x", "7", "unfinished", "-"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["run", "loss"], ["runs/long", "1"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "run        loss\nruns/long  1\n");
    }
}
