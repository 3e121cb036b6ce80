//! Named figures of a split, and their way into burn-train's dashboard.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes,
    NumericEntry, SerializedEntry,
};

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

/// Whether a larger value of this metric is better.
pub fn higher_is_better(name: &str) -> bool {
    !["loss", "perplexity", "error", "mse", "mae"].contains(&name)
}

/// What the dashboard is told after some steps or a validation.
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
    value: f64,
}

impl Figure {
    /// The figure of this name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            value: f64::NAN,
        }
    }
}

impl Metric for Figure {
    type Input = Report;

    fn name(&self) -> MetricName {
        Arc::new(self.name.clone())
    }

    fn attributes(&self) -> MetricAttributes {
        let higher_is_better = higher_is_better(&self.name);
        NumericAttributes {
            unit: None,
            higher_is_better,
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
