//! What a run has recorded, for people. In: a run directory. Out: its facts by name.

use std::path::{Path, PathBuf};

use model::bundle::Scores;
use model::{Bundle, HeadKind};
use serde_json::Value;
use train::report::compare::Run;
use train::ui::duration;
use train::{Failure, FailureKind};

/// Stands where a run says nothing.
pub const NOT_RECORDED: &str = "not recorded";

/// Classes that are named one by one.
const CLASSES: usize = 50;

/// A run, and the bundle that it left.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its directory.
    pub path: PathBuf,
    /// Recipe, summary and events.
    pub run: Run,
    /// The bundle of the best step, if there is one that can be read.
    pub bundle: Option<Bundle>,
    /// Why not, if there is one that cannot be read.
    unreadable: Option<String>,
}

impl Record {
    /// Reads a run, whether or not it has come to its end.
    ///
    /// # Errors
    ///
    /// No run, or one that has recorded nothing, or files that are not what they should be.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        check(path)?;
        if !path.join("metrics.jsonl").is_file() {
            return Err(wrong(
                path,
                "has recorded nothing (metrics.jsonl is missing)",
            ));
        }
        Ok(Self::of(path, Run::open(path).input()?))
    }

    /// Reads the run that left a model, whether or not its log is still there.
    ///
    /// # Errors
    ///
    /// No run, or files that are not what they should be.
    pub fn of_model(path: &Path) -> Result<Self, Failure> {
        if path.join("metrics.jsonl").is_file() {
            return Self::open(path);
        }
        check(path)?;
        Ok(Self::of(path, Run::without_events(path).input()?))
    }

    fn of(path: &Path, run: Run) -> Self {
        let (bundle, unreadable) = match Bundle::find(path) {
            Ok(bundle) => (Some(bundle), None),
            // A run that was killed before its first validation has none.
            Err(_) if !path.join("model").exists() => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            path: path.into(),
            run,
            bundle,
            unreadable,
        }
    }

    /// A value of the recipe by its dotted key.
    pub fn setting(&self, key: &str) -> Option<&toml::Value> {
        let mut parts = key.split('.');
        let first = self.run.recipe.get(parts.next()?);
        parts.fold(first, |value, part| value?.get(part))
    }

    /// The same, if it is a text that is not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        let text = self.setting(key).and_then(toml::Value::as_str);
        text.filter(|text| !text.is_empty())
    }

    /// The same, if it is a list of texts.
    pub fn texts(&self, key: &str) -> Vec<&str> {
        let list = self.setting(key).and_then(toml::Value::as_array);
        let list = list.into_iter().flatten();
        list.filter_map(toml::Value::as_str).collect()
    }

    /// The objective or the task.
    pub fn task(&self) -> Option<&str> {
        self.text("objective").or(self.text("task"))
    }

    /// What training started from; nothing where the weights were drawn.
    pub fn base(&self) -> Option<&str> {
        self.text("from").filter(|from| *from != "scratch")
    }

    /// A value of the summary by its JSON pointer, if it is there.
    pub fn summary(&self, pointer: &str) -> Option<&Value> {
        let value = self.run.summary.pointer(pointer);
        value.filter(|value| !value.is_null())
    }

    /// The same, if it is a number.
    pub fn number(&self, pointer: &str) -> Option<f64> {
        self.summary(pointer).and_then(Value::as_f64)
    }

    /// How it ended: `completed`, `stopped_early`, `interrupted`, `failed` or `unfinished`.
    pub fn status(&self) -> &str {
        let status = self.summary("/status").and_then(Value::as_str);
        status.unwrap_or("unfinished")
    }

    /// Whether it has come to its end.
    pub fn is_done(&self) -> bool {
        matches!(self.status(), "completed" | "stopped_early")
    }

    /// How it ended, in a sentence without a full stop.
    pub fn ending(&self) -> String {
        let steps = match self.steps() {
            Some(steps) => format!("{} steps", grouped(steps)),
            None => "no recorded step".into(),
        };
        let time = match self.seconds() {
            Some(seconds) => format!(" and {} of training", duration(seconds)),
            None => String::new(),
        };
        match self.status() {
            "completed" => format!("completed after {steps}{time}"),
            "stopped_early" => format!("stopped early after {steps}{time}"),
            "interrupted" => format!("interrupted after {steps}{time}; it can be resumed"),
            "failed" => format!("failed after {steps}{time}"),
            "unfinished" => {
                format!(
                    "unfinished: still training, or killed; the last that it recorded is {steps}{time}"
                )
            }
            other => format!("{} after {steps}{time}", other.replace('_', " ")),
        }
    }

    /// Optimizer steps.
    fn steps(&self) -> Option<f64> {
        let last = || {
            self.run
                .events
                .iter()
                .rev()
                .find_map(|event| event["step"].as_f64())
        };
        self.number("/steps").or_else(last)
    }

    /// Seconds of training.
    fn seconds(&self) -> Option<f64> {
        let last = || {
            self.run
                .events
                .iter()
                .rev()
                .find_map(|event| event["seconds"].as_f64())
        };
        self.number("/train_seconds").or_else(last)
    }

    /// What was trained, a name and a value each.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let quantity = |pointer: &str| self.number(pointer).map(grouped);
        let written = |pointer: &str| {
            let text = self.summary(pointer).map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            text.unwrap_or_else(|| NOT_RECORDED.into())
        };
        let parameters = match (
            quantity("/parameters/total"),
            quantity("/parameters/trainable"),
        ) {
            (Some(total), Some(trainable)) => format!("{total}, of which {trainable} train"),
            _ => NOT_RECORDED.into(),
        };
        let memory = self
            .number("/peak_memory_bytes")
            .filter(|bytes| *bytes > 0.0);
        let memory = memory.map(|bytes| format!("{:.0} MiB", bytes / f64::from(1 << 20)));
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOT_RECORDED.into());
        let mut facts = vec![
            ("task or objective", or_nothing(self.task().map(Into::into))),
            ("model", self.model()),
            ("parameters", parameters),
            (
                "started from",
                self.base().unwrap_or("scratch: weights were drawn").into(),
            ),
            ("data", self.data()),
            (
                "seed",
                or_nothing(self.setting("seed").map(ToString::to_string)),
            ),
            ("backend", written("/backend")),
            ("Hearth", written("/version")),
            ("steps", or_nothing(self.steps().map(grouped))),
            (
                "epochs",
                or_nothing(self.number("/epochs").map(|epochs| format!("{epochs:.2}"))),
            ),
            ("training time", or_nothing(self.seconds().map(duration))),
            ("throughput", self.throughput()),
            ("peak memory", or_nothing(memory)),
        ];
        if let Some(share) = self
            .number("/padding_fraction")
            .filter(|share| *share > 0.0)
        {
            facts.push(("padding", format!("{:.1} % of the tokens", 100.0 * share)));
        }
        for (name, pointer) in [
            ("skipped steps", "/skipped_steps"),
            ("rollbacks", "/rollbacks"),
        ] {
            if let Some(count) = self.number(pointer).filter(|count| *count > 0.0) {
                facts.push((name, grouped(count)));
            }
        }
        if let Some(classes) = self.classes() {
            facts.push(("classes", named(&classes)));
        }
        facts
    }

    fn model(&self) -> String {
        let family = self.text("model.family").filter(|_| self.base().is_none());
        let family = family.map(|family| format!("{family}, as the recipe names it"));
        let family = family.unwrap_or_else(|| NOT_RECORDED.into());
        match (&self.bundle, &self.unreadable) {
            (Some(bundle), _) => describe(bundle),
            (None, Some(reason)) => format!("{family}; the bundle cannot be read: {reason}"),
            (None, None) => format!("{family}; there is no bundle"),
        }
    }

    /// Classes of the bundle, in the order of the logits, where its model tells classes.
    pub fn classes(&self) -> Option<Vec<String>> {
        classes(self.bundle.as_ref()?)
    }

    /// Where the data is, and what of it validates and tests.
    pub fn data(&self) -> String {
        let sources = self.texts("data.source");
        if sources.is_empty() {
            return NOT_RECORDED.into();
        }
        let mut all = sources.join(", ");
        for (split, verb) in [("valid", "validates"), ("test", "tests")] {
            let given = self.texts(&format!("data.{split}_source"));
            let share = self.setting(&format!("data.{split}"));
            let share = share
                .and_then(toml::Value::as_float)
                .filter(|share| *share > 0.0);
            if !given.is_empty() {
                all += &format!("; {} {verb}", given.join(", "));
            } else if let Some(share) = share {
                all += &format!(
                    "; {} of the rows {verb}, where the data has no split for it",
                    percent(share)
                );
            }
        }
        all
    }

    fn throughput(&self) -> String {
        let rates = self.summary("/throughput").and_then(Value::as_object);
        let rate = rates.and_then(|rates| rates.iter().next());
        match rate.and_then(|(name, rate)| Some((name, rate.as_f64()?))) {
            Some((name, rate)) => {
                let unit = name.replace("_per_second", " a second").replace('_', " ");
                format!("{} {unit}", grouped(rate.round()))
            }
            None => NOT_RECORDED.into(),
        }
    }
}

/// Class, family and kind of a bundle's model.
pub fn describe(bundle: &Bundle) -> String {
    let (kind, family) = (bundle.head().describe(), bundle.family().model_type);
    match bundle.class() {
        Some(class) => format!("{class}: {kind} of the family {family}"),
        None => format!("{kind} of the family {family}"),
    }
}

/// Classes of a bundle, in the order of the logits, where its model tells classes whose names it holds.
pub fn classes(bundle: &Bundle) -> Option<Vec<String>> {
    bundle.head().class_layer()?;
    // The logits of a regression are values.
    if bundle.head() == HeadKind::Classes && matches!(bundle.scores(), Ok(Scores::Values)) {
        return None;
    }
    bundle.classes().ok()
}

/// How many classes there are, and which.
pub fn named(classes: &[String]) -> String {
    let shown = classes.len().min(CLASSES);
    let more = match classes.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}: {}{more}", classes.len(), classes[..shown].join(", "))
}

/// A share for people: 4 %, 12.5 %.
fn percent(share: f64) -> String {
    let text = format!("{:.2}", 100.0 * share);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

/// A whole number with commas between thousands.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits.as_str()),
    };
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && number.is_finite() {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

fn check(path: &Path) -> Result<(), Failure> {
    if !path.is_dir() {
        return Err(wrong(path, "no such run directory"));
    }
    if !path.join("recipe.toml").is_file() {
        return Err(wrong(path, "holds no run (recipe.toml is missing)"));
    }
    Ok(())
}

fn wrong(path: &Path, reason: &str) -> Failure {
    Failure::input(format!("{}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (2_289_626.0, "2,289,626"),
            (-12_345.0, "-12,345"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn shares_have_no_digits_that_say_nothing() {
        assert_eq!([0.04, 0.125, 1.0].map(percent), ["4 %", "12.5 %", "100 %"]);
    }
}
