//! Named figures of a split, and their way into burn-train's dashboard.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use burn::train::metric::{
    Adaptor, Metric as BurnMetric, MetricAttributes, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Figures by name, lower_snake: `loss`, `accuracy`, `macro_f1`.
pub type Metrics = BTreeMap<String, f64>;

/// Reads figures that JSON has no numbers for: what is not finite is written as `null`, and comes back as NaN.
pub mod nullable {
    use serde::{Deserialize, Deserializer};

    use super::Metrics;

    type Nullable = std::collections::BTreeMap<String, Option<f64>>;

    /// A number.
    pub fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
    }

    /// Numbers in a row.
    pub fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let numbers = Vec::<Option<f64>>::deserialize(from)?.into_iter();
        Ok(numbers.map(|number| number.unwrap_or(f64::NAN)).collect())
    }

    /// Figures by name.
    pub fn metrics<'de, D: Deserializer<'de>>(from: D) -> Result<Metrics, D::Error> {
        Ok(filled(Nullable::deserialize(from)?))
    }

    /// Figures by name, if there are any.
    pub fn some_metrics<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Metrics>, D::Error> {
        Ok(Option::<Nullable>::deserialize(from)?.map(filled))
    }

    fn filled(metrics: Nullable) -> Metrics {
        let number = |number: Option<f64>| number.unwrap_or(f64::NAN);
        let filled = metrics.into_iter();
        filled.map(|(name, value)| (name, number(value))).collect()
    }
}

/// A part of a whole; 0 where there is nothing.
pub fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The perplexity of tokens of this mean cross-entropy, in nats.
pub fn perplexity(loss: f64) -> f64 {
    loss.exp()
}

/// Adds the perplexity that follows from the loss, of a loss over tokens.
pub fn add_perplexity(metrics: &mut Metrics) {
    if let Some(loss) = metrics.get("loss").copied() {
        metrics.insert("perplexity".into(), perplexity(loss));
    }
}

/// Which values of a metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Of an accuracy.
    Higher,
    /// Of a loss.
    Lower,
}

impl Better {
    /// Whether a value is better than an old one; one that is not a number never is.
    pub fn than(self, value: f64, old: f64) -> bool {
        match self {
            Self::Higher => value > old,
            Self::Lower => value < old,
        }
    }

    /// What a value is multiplied by so that less is better.
    pub fn sign(self) -> f64 {
        match self {
            Self::Higher => -1.0,
            Self::Lower => 1.0,
        }
    }

    /// The direction of a metric of a run, as its summary says; nothing if it does not say.
    pub fn of_run(summary: &Value, name: &str) -> Option<Self> {
        if let Some(better) = summary.get("better") {
            return serde_json::from_value(better.get(name)?.clone()).ok();
        }
        // Runs from before summaries said it had these.
        match name {
            "loss" | "perplexity" | "mse" => Some(Self::Lower),
            "accuracy" | "macro_f1" | "psnr" => Some(Self::Higher),
            _ => None,
        }
    }
}

impl fmt::Display for Better {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Higher => "higher is better",
            Self::Lower => "lower is better",
        })
    }
}

/// A figure of a validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// lower_snake: `macro_f1`.
    pub name: &'static str,
    /// Which of its values are better.
    pub better: Better,
}

impl Metric {
    /// The mean loss.
    pub const LOSS: Self = Self::lower("loss");

    /// One whose higher values are better.
    pub const fn higher(name: &'static str) -> Self {
        let better = Better::Higher;
        Self { name, better }
    }

    /// One whose lower values are better.
    pub const fn lower(name: &'static str) -> Self {
        let better = Better::Lower;
        Self { name, better }
    }

    /// The direction of the metric of this name, if it is among these.
    pub fn direction(all: &[Self], name: &str) -> Option<Better> {
        let metric = all.iter().find(|metric| metric.name == name);
        metric.map(|metric| metric.better)
    }
}

/// What the dashboard is sent after some steps or a validation.
#[derive(Clone, Debug, Default)]
pub struct Report(pub Metrics);

impl Adaptor<Report> for Report {
    fn adapt(&self) -> Report {
        self.clone()
    }
}

/// One figure of a [`Report`], as burn-train wants it.
#[derive(Clone)]
pub struct Figure {
    name: String,
    better: Option<Better>,
    value: f64,
}

impl Figure {
    /// The figure of this name, with its direction if it has one.
    pub fn new(name: &str, better: Option<Better>) -> Self {
        Self {
            name: name.into(),
            better,
            value: f64::NAN,
        }
    }
}

impl BurnMetric for Figure {
    type Input = Report;

    fn name(&self) -> MetricName {
        Arc::new(self.name.clone())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            // Burn knows no third way; of a rate or a norm nothing is made of it.
            higher_is_better: self.better != Some(Better::Lower),
        }
        .into()
    }

    fn update(&mut self, report: &Report, _: &MetricMetadata) -> SerializedEntry {
        self.value = report.0.get(&self.name).copied().unwrap_or(f64::NAN);
        SerializedEntry::new(short(self.value), self.value.to_string())
    }

    fn clear(&mut self) {}
}

impl Numeric for Figure {
    fn value(&self) -> NumericEntry {
        NumericEntry::Value(self.value)
    }

    fn running_value(&self) -> NumericEntry {
        NumericEntry::Value(self.value)
    }
}

/// A figure for people: four significant digits, thousands whole.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.3}"),
        size if size >= 1e-3 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_says_which_values_are_better_and_an_old_one_had_few() {
        let new = json!({"better": {"bits_per_byte": "lower", "loss": "higher"}});
        assert_eq!(Better::of_run(&new, "bits_per_byte"), Some(Better::Lower));
        assert_eq!(Better::of_run(&new, "loss"), Some(Better::Higher));
        assert_eq!(
            Better::of_run(&new, "accuracy"),
            None,
            "it does not have it"
        );
        let old = json!({"best": null});
        assert_eq!(Better::of_run(&old, "macro_f1"), Some(Better::Higher));
        assert_eq!(Better::of_run(&old, "perplexity"), Some(Better::Lower));
        assert_eq!(Better::of_run(&old, "wer"), None);
    }

    #[test]
    fn perplexity_follows_from_the_loss() {
        let mut metrics = Metrics::from([("loss".into(), 8f64.ln())]);
        add_perplexity(&mut metrics);
        assert!((metrics["perplexity"] - 8.0).abs() < 1e-12);
        let mut without = Metrics::new();
        add_perplexity(&mut without);
        assert!(without.is_empty());
    }

    #[test]
    fn what_is_not_a_number_is_never_better() {
        for better in [Better::Higher, Better::Lower] {
            assert!(!better.than(f64::NAN, 1.0));
            assert!(!better.than(1.0, 1.0));
        }
        assert!(Better::Higher.than(2.0, 1.0) && Better::Lower.than(1.0, 2.0));
    }
}
