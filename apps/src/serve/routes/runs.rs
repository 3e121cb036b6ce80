//! `GET /v1/runs` and what is under it: what runs have recorded, while they record it.
//!
//! A run is found by its name in the list of the folder, and no name becomes a part of a path.

use std::fs::{self, File};
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path as Name, Query, State};
use image::{ImageFormat, ImageReader};
use serde::Deserialize;
use serde_json::{Value, json};
use train::report::compare::Run;

use super::predict::data_url;
use crate::record::Record;
use crate::report::classes::confusion_of;
use crate::serve::Served;
use crate::serve::failure::Refusal;

/// Bytes of `metrics.jsonl` that one answer holds; the next one goes on.
const MOST_BYTES: u64 = 4 << 20;
/// Bytes of an image that is shown.
const MOST_PICTURE: u64 = 16 << 20;
/// A run that has recorded something in this time is still going.
const RUNNING: Duration = Duration::from_secs(120);

/// Where the records begin.
#[derive(Deserialize)]
pub(super) struct Since {
    from: Option<u64>,
}

type NameResult = Result<Name<String>, PathRejection>;

/// `GET /v1/runs`.
pub(super) async fn list(State(served): State<Served>) -> Result<Json<Value>, Refusal> {
    blocking(move || {
        let Some(folder) = served.runs() else {
            return Ok(json!({"data": []}));
        };
        let all = runs(folder).into_iter();
        let data: Vec<Value> = all.filter_map(|(name, path)| about(&name, &path)).collect();
        Ok(json!({"data": data}))
    })
    .await
}

/// `GET /v1/runs/{name}/metrics`.
pub(super) async fn metrics(
    State(served): State<Served>,
    name: NameResult,
    from: Result<Query<Since>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(Since { from }) =
        from.map_err(|_| Refusal::value("from", "from must be the number of a byte, 0 or more"))?;
    blocking(move || {
        let path = find(&served, name)?;
        records(&path.join("metrics.jsonl"), from.unwrap_or(0))
    })
    .await
}

/// `GET /v1/runs/{name}/confusion`.
pub(super) async fn confusion(
    State(served): State<Served>,
    name: NameResult,
) -> Result<Json<Value>, Refusal> {
    blocking(move || {
        let path = find(&served, name)?;
        let found = confusion_of(&Record::open(&path)?);
        let (classes, matrix) =
            found.ok_or_else(|| Refusal::not_found("this run has no confusion matrix"))?;
        Ok(json!({"classes": classes, "matrix": matrix}))
    })
    .await
}

/// `GET /v1/runs/{name}/samples`.
pub(super) async fn samples(
    State(served): State<Served>,
    name: NameResult,
) -> Result<Json<Value>, Refusal> {
    blocking(move || {
        let path = find(&served, name)?;
        let picture = |file: &PathBuf| {
            let name = file.file_stem()?.to_string_lossy().into_owned();
            Some(json!({"name": name, "data": data_url(&png(file)?)}))
        };
        let pictures: Vec<Value> = files(&path, "png").iter().filter_map(picture).collect();
        // No objective writes texts while it trains.
        Ok(json!({"pictures": pictures, "texts": []}))
    })
    .await
}

/// Reads files on a thread that may wait for them.
async fn blocking(
    work: impl FnOnce() -> Result<Value, Refusal> + Send + 'static,
) -> Result<Json<Value>, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(Refusal::broken(error.to_string())));
    done.map(Json)
}

/// Runs of a folder by the names of their folders, in alphabetical order; the folder itself, if it is one.
fn runs(folder: &Path) -> Vec<(String, PathBuf)> {
    let is_run = |path: &Path| path.join("recipe.toml").is_file();
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let below = entries.map(|entry| entry.path());
    for path in below.chain([folder.to_path_buf()]) {
        if let (Some(name), true) = (path.file_name(), is_run(&path)) {
            found.push((name.to_string_lossy().into_owned(), path));
        }
    }
    found.sort();
    found
}

/// The folder of a run, by its name in the list.
fn find(served: &Served, name: NameResult) -> Result<PathBuf, Refusal> {
    let missing = || Refusal::not_found("there is no run of this name");
    let Name(name) = name.map_err(|_| missing())?;
    let all = served.runs().map(runs).unwrap_or_default().into_iter();
    let mut found = all.filter(|(other, _)| *other == name);
    found.next().map(|(_, path)| path).ok_or_else(missing)
}

/// A run in a line; nothing of one that cannot be read.
fn about(name: &str, path: &Path) -> Option<Value> {
    let mut run = Run::without_events(path).ok()?;
    let log = path.join("metrics.jsonl");
    let status = run.summary["status"].as_str().unwrap_or("unfinished");
    let state = match status {
        "completed" | "stopped_early" => "done".to_string(),
        "unfinished" if is_recent(&log) => "running".to_string(),
        other => other.to_string(),
    };
    if run.summary["epochs"].is_null() {
        run.events = Run::open(path).map(|run| run.events).unwrap_or_default();
    }
    let last = run.events.iter().rev();
    let epochs = run.summary["epochs"].as_f64();
    let epochs = epochs.or_else(|| last.clone().find_map(|event| event["epoch"].as_f64()));
    let metric = run.metric();
    let best = run.summary["best"]["metrics"][&metric].as_f64();
    Some(json!({
        "name": name, "command": run.recipe.get("objective").or(run.recipe.get("task")), "state": state,
        "epochs": epochs, "metric": metric, "best": best,
    }))
}

fn is_recent(log: &Path) -> bool {
    let changed = fs::metadata(log).and_then(|about| about.modified());
    let age = changed.map(|changed| SystemTime::now().duration_since(changed));
    age.is_ok_and(|age| age.unwrap_or_default() < RUNNING)
}

/// Whole lines of a log from a byte on, and the byte behind them; from its beginning where it has become shorter.
fn records(log: &Path, from: u64) -> Result<Value, Refusal> {
    let broken = |error: std::io::Error| Refusal::broken(format!("metrics.jsonl: {error}"));
    let mut file = match File::open(log) {
        Ok(file) => file,
        // A run that has not recorded anything.
        Err(_) => return Ok(json!({"records": [], "next": 0})),
    };
    let length = file.metadata().map_err(broken)?.len();
    let from = if from > length { 0 } else { from };
    file.seek(SeekFrom::Start(from)).map_err(broken)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES)
        .read_to_end(&mut bytes)
        .map_err(broken)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    let whole = &bytes[..end.map_or(0, |end| end + 1)];
    let lines = whole.split(|byte| *byte == b'\n');
    let records: Vec<Value> = lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    Ok(json!({"records": records, "next": from + whole.len() as u64}))
}

/// Files of a folder with this end, in alphabetical order.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.is_file() && path.extension().is_some_and(|found| found == end))
        .collect();
    paths.sort();
    paths
}

/// The bytes of a PNG that is one and is not too large.
fn png(path: &Path) -> Option<Vec<u8>> {
    if fs::metadata(path).ok()?.len() > MOST_PICTURE {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let reader = ImageReader::with_format(Cursor::new(&bytes), ImageFormat::Png);
    reader.into_dimensions().ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_given_once_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("metrics.jsonl");
        assert_eq!(records(&log, 7).unwrap(), json!({"records": [], "next": 0}));
        fs::write(&log, "{\"a\":1}\n{\"a\":2}\n{\"a\"").unwrap();
        let all = json!({"records": [{"a": 1}, {"a": 2}], "next": 16});
        assert_eq!(records(&log, 0).unwrap(), all);
        assert_eq!(
            records(&log, 8).unwrap(),
            json!({"records": [{"a": 2}], "next": 16})
        );
        assert_eq!(
            records(&log, 16).unwrap(),
            json!({"records": [], "next": 16})
        );
        // The run began anew.
        assert_eq!(records(&log, 900).unwrap(), all);
    }
}
