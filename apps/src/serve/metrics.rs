//! Figures of the server. In: what happens. Out: the text that Prometheus reads.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Of the text: `application/openmetrics-text`, which Prometheus asks for.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values.
type Labels = Vec<(&'static str, String)>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// All figures.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Histograms,
    queued: Family<Labels, Gauge>,
    batches: Histograms,
    tokens: Family<Labels, Counter>,
}

/// Figures of one model.
#[derive(Clone)]
pub(super) struct ModelMetrics {
    /// Rows of a batch.
    pub(super) batches: Histogram,
    /// Tokens that were written.
    pub(super) tokens: Counter,
}

/// 1 ms to 33 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

/// 1 to 1024 rows.
fn rows() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 11))
}

impl Metrics {
    /// All at zero.
    pub(super) fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("hearth");
        let requests = Family::<Labels, Counter>::default();
        let latency = Histograms::new_with_constructor(seconds);
        let queued = Family::<Labels, Gauge>::default();
        let batches = Histograms::new_with_constructor(rows);
        let tokens = Family::<Labels, Counter>::default();
        registry.register("requests", "Answered requests", requests.clone());
        registry.register(
            "request_seconds",
            "Time from a request's head to the head of its answer",
            latency.clone(),
        );
        registry.register("queued", "Requests that wait for a model", queued.clone());
        registry.register("batch_rows", "Rows of a forward pass", batches.clone());
        registry.register(
            "generated_tokens",
            "Tokens that were written",
            tokens.clone(),
        );
        Arc::new(Self {
            registry,
            requests,
            seconds: latency,
            queued,
            batches,
            tokens,
        })
    }

    /// Those of a model, which are there from now on.
    pub(super) fn of_model(&self, name: &str) -> ModelMetrics {
        let labels = vec![("model", name.to_string())];
        ModelMetrics {
            batches: self.batches.get_or_create_owned(&labels),
            tokens: self.tokens.get_or_create_owned(&labels),
        }
    }

    /// Counts an answer.
    ///
    /// - route: the path as it is declared, `/v1/runs/{name}/metrics`
    pub(super) fn answered(&self, route: &str, status: u16, took: Duration) {
        let route = ("route", route.to_string());
        let seconds = self.seconds.get_or_create_owned(&vec![route.clone()]);
        seconds.observe(took.as_secs_f64());
        let labels = vec![route, ("status", status.to_string())];
        self.requests.get_or_create_owned(&labels).inc();
    }

    /// Notes how many requests wait for a model.
    pub(super) fn set_queued(&self, model: &str, waiting: usize) {
        let labels = vec![("model", model.to_string())];
        let gauge = self.queued.get_or_create_owned(&labels);
        gauge.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// All of them.
    ///
    /// # Errors
    ///
    /// None but a lack of memory.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_lines_of_text() {
        let metrics = Metrics::new();
        metrics.answered("/v1/predict", 200, Duration::from_millis(3));
        metrics.set_queued("bert", 2);
        let model = metrics.of_model("bert");
        model.batches.observe(5.0);
        model.tokens.inc_by(7);
        let text = metrics.text().unwrap();
        for line in [
            "hearth_requests_total{route=\"/v1/predict\",status=\"200\"} 1",
            "hearth_request_seconds_bucket{le=\"0.004\",route=\"/v1/predict\"} 1",
            "hearth_queued{model=\"bert\"} 2",
            "hearth_batch_rows_sum{model=\"bert\"} 5.0",
            "hearth_generated_tokens_total{model=\"bert\"} 7",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
