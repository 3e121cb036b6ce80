//! What a model answered to a labelled set, as `apps evaluate --output DIR` leaves it. In: `predictions.jsonl` and, if it is
//! there, `report.json`. Out: figures, classes, the worst mistakes.
//!
//! Confusion, figures by class and calibration follow from the predictions, so that they belong to the mistakes beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde_json::{Map, Value, json};
use train::objective::Tally;
use train::objectives::class_tally::ClassTally;
use train::{Failure, FailureKind};

use super::classes::{BINS, bin_of, of_details};
use super::html::{Cell, Table, escape, heading, note, paragraph};
use super::overview::number;
use super::pictures::thumbnail;
use crate::record::grouped;

/// Mistakes that are shown.
const MISTAKES: usize = 30;
/// Letters of an input that are shown.
const LETTERS: usize = 400;

/// Answers to a labelled set.
pub(super) struct Evaluation {
    path: PathBuf,
    /// `report.json`.
    report: Option<Value>,
    predictions: Vec<Prediction>,
}

/// One answer.
struct Prediction {
    /// What was asked, whole.
    input: String,
    label: String,
    predicted: String,
    probability: f64,
}

impl Evaluation {
    /// Reads the folder.
    ///
    /// # Errors
    ///
    /// No folder, no predictions, or lines that are none of a class.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let place = path.display();
        if !path.is_dir() {
            return Err(Failure::input(format!("{place}: no such directory")));
        }
        let file = path.join("predictions.jsonl");
        if !file.is_file() {
            return Err(Failure::input(format!(
                "{place}: holds no evaluation (predictions.jsonl is missing)"
            )));
        }
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string());
        let mut predictions = Vec::new();
        for (at, line) in text.input()?.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let place = || format!("{}:{}", file.display(), at + 1);
            let row: Value = serde_json::from_str(line).with_context(place).input()?;
            predictions.push(Prediction::of(&row).with_context(place).input()?);
        }
        if predictions.is_empty() {
            return Err(Failure::input(format!(
                "{}: holds no prediction",
                file.display()
            )));
        }
        let report = path.join("report.json");
        let report = if report.is_file() {
            let place = || report.display().to_string();
            let bytes = fs::read(&report).with_context(place).input()?;
            Some(serde_json::from_slice(&bytes).with_context(place).input()?)
        } else {
            None
        };
        Ok(Self {
            path: path.into(),
            report,
            predictions,
        })
    }

    /// Everything that it says.
    ///
    /// - known: classes of the model, in their order
    ///
    /// # Errors
    ///
    /// A drawing fails.
    pub(super) fn markup(&self, known: &[String]) -> Result<String, Failure> {
        let classes = self.classes(known);
        let origin = "the evaluation";
        let mut body = paragraph(&format!(
            "{} predictions from {}.",
            grouped(self.predictions.len() as f64),
            self.path.display()
        ));
        let tally = self.tally(&classes);
        body += &self.figures(&tally);
        let mut details = tally.details().unwrap_or_default();
        details["calibration"] = json!({"bins": self.bins()});
        body += &of_details(&details, &classes, origin)?;
        body += &self.mistakes();
        Ok(body)
    }

    /// The model's, if all labels are among them, else those that occur.
    fn classes(&self, known: &[String]) -> Vec<String> {
        let found = self
            .predictions
            .iter()
            .flat_map(|one| [&one.label, &one.predicted]);
        let found: BTreeSet<&String> = found.collect();
        if found.iter().all(|name| known.contains(name)) {
            return known.to_vec();
        }
        found.into_iter().cloned().collect()
    }

    fn tally(&self, classes: &[String]) -> ClassTally {
        let numbers: BTreeMap<&String, u32> = classes.iter().zip(0..).collect();
        let number = |name: &String| numbers.get(name).copied().unwrap_or_default();
        let truths: Vec<u32> = self
            .predictions
            .iter()
            .map(|one| number(&one.label))
            .collect();
        let predicted = self.predictions.iter().map(|one| number(&one.predicted));
        let predicted: Vec<u32> = predicted.collect();
        ClassTally::new(classes.len(), &truths, &predicted, 0.0)
    }

    /// What the report says, or else what follows from the predictions.
    fn figures(&self, tally: &ClassTally) -> String {
        let report = self
            .report
            .as_ref()
            .map(|report| report.get("metrics").unwrap_or(report));
        let mut figures: BTreeMap<String, Value> = BTreeMap::new();
        let numbers = report.and_then(Value::as_object).into_iter().flatten();
        let numbers = numbers.filter(|(_, value)| value.is_number());
        figures.extend(numbers.map(|(name, value)| (name.clone(), value.clone())));
        let (caption, figures) = if figures.is_empty() {
            let own = tally.metrics().into_iter();
            // No probability of the true class is recorded, from which a loss would follow.
            let own = own.filter(|(name, _)| name != "loss");
            let own = own.map(|(name, value)| (name, value.into()));
            ("Figures that follow from the predictions", own.collect())
        } else {
            ("Figures of report.json", figures)
        };
        let row = |(name, value): (&String, &Value)| {
            vec![Cell::Text(name.clone()), Cell::Number(number(value))]
        };
        let table = Table {
            caption: caption.into(),
            head: vec!["figure".into(), "value".into()],
            rows: figures.iter().map(row).collect(),
        };
        table.markup()
    }

    /// As the details of a run have them.
    fn bins(&self) -> Vec<Value> {
        let mut bins = [(0u64, 0u64, 0.0); BINS + 1];
        for one in &self.predictions {
            let (rows, right, confidence) = &mut bins[bin_of(one.probability)];
            *rows += 1;
            *right += u64::from(one.is_right());
            *confidence += one.probability;
        }
        let bin = |&(rows, right, confidence): &(u64, u64, f64)| {
            let n = rows as f64;
            json!({"rows": rows, "accuracy": right as f64 / n, "confidence": confidence / n})
        };
        bins.iter().map(bin).collect()
    }

    /// Wrong answers, the most confident first.
    fn mistakes(&self) -> String {
        let mut wrong: Vec<&Prediction> = self
            .predictions
            .iter()
            .filter(|one| !one.is_right())
            .collect();
        let body = heading("Worst mistakes");
        if wrong.is_empty() {
            return body + &note("There is none.");
        }
        wrong.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        let row = |one: &&Prediction| {
            vec![
                Cell::Markup(one.shown()),
                Cell::Text(one.label.clone()),
                Cell::Text(one.predicted.clone()),
                Cell::Number(format!("{:.3}", one.probability)),
            ]
        };
        let caption = format!(
            "{} wrong answers, the most confident first: {} of them",
            grouped(wrong.len() as f64),
            wrong.len().min(MISTAKES)
        );
        let table = Table {
            caption,
            head: ["input", "truth", "predicted", "probability"]
                .map(String::from)
                .to_vec(),
            rows: wrong.iter().take(MISTAKES).map(row).collect(),
        };
        body + &table.markup()
    }
}

impl Prediction {
    fn of(row: &Value) -> anyhow::Result<Self> {
        let row = row
            .as_object()
            .ok_or_else(|| anyhow!("is no JSON object"))?;
        let label = match row.get("target") {
            Some(Value::Array(classes)) if classes.len() == 1 => classes[0].as_str(),
            Some(_) => None,
            None => return Err(anyhow!("has no \"target\"")),
        };
        let label = label.ok_or_else(|| anyhow!("its \"target\" is not one class"))?;
        let best = row.get("classes").and_then(|classes| classes.get(0));
        let best = best.ok_or_else(|| anyhow!("has no \"classes\""))?;
        let predicted = best["name"]
            .as_str()
            .ok_or_else(|| anyhow!("its best class has no name"))?;
        let probability = best["probability"]
            .as_f64()
            .ok_or_else(|| anyhow!("its best class has no probability"))?;
        if !(0.0..=1.0).contains(&probability) {
            return Err(anyhow!("its probability is {probability}, not from 0 to 1"));
        }
        Ok(Self {
            input: input(row),
            label: label.into(),
            predicted: predicted.into(),
            probability,
        })
    }

    fn is_right(&self) -> bool {
        self.label == self.predicted
    }

    /// The text, or the image that it names.
    fn shown(&self) -> String {
        let path = Path::new(&self.input);
        let is_image = !self.input.contains('\n') && data::image::is_image(path);
        if let Some(image) = is_image.then(|| thumbnail(path, &self.input)).flatten() {
            return format!("{image}<br />{}", escape(&self.input));
        }
        if self.input.chars().count() <= LETTERS {
            return escape(&self.input);
        }
        let cut: String = self.input.chars().take(LETTERS).collect();
        escape(&(cut + "..."))
    }
}

/// What was asked: the text, both of a pair, or the file of an image.
fn input(row: &Map<String, Value>) -> String {
    let texts = match row.get("text") {
        Some(Value::Array(texts)) => texts.as_slice(),
        Some(text) => std::slice::from_ref(text),
        None => &[],
    };
    let texts: Vec<&str> = texts.iter().filter_map(Value::as_str).collect();
    if !texts.is_empty() {
        return texts.join("\n");
    }
    let place = row.get("place").and_then(Value::as_str);
    place.unwrap_or("not recorded").into()
}
