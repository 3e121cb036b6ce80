//! Every endpoint, with what its description says: the router and the OpenAPI document are made of one list.
//!
//! A file a group: [`about`] (the server itself), [`predict`], [`fill_mask`], [`explain`], [`embeddings`], [`completions`],
//! [`runs`].

pub(super) mod about;
pub(super) mod completions;
pub(super) mod embeddings;
pub(super) mod explain;
pub(super) mod fill_mask;
pub(super) mod predict;
pub(super) mod runs;

use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};

use super::Served;

/// An endpoint and its description.
pub(super) struct Route {
    /// As axum and OpenAPI write it: `/v1/runs/{name}/metrics`.
    pub(super) path: &'static str,
    /// Whether it is asked with a body: POST, else GET.
    pub(super) is_post: bool,
    /// One line.
    pub(super) summary: &'static str,
    /// The schema of its body.
    pub(super) reads: Option<&'static str>,
    /// The schema of its answer; text without one.
    pub(super) gives: Option<&'static str>,
    /// Whether no token is needed.
    pub(super) is_open: bool,
    pub(super) handler: MethodRouter<Served>,
}

/// An endpoint that is asked with a body.
fn posted<H: Handler<T, Served>, T: 'static>(
    path: &'static str,
    [reads, gives]: [&'static str; 2],
    summary: &'static str,
    handler: H,
) -> Route {
    Route {
        path,
        is_post: true,
        summary,
        reads: Some(reads),
        gives: Some(gives),
        is_open: false,
        handler: post(handler),
    }
}

/// An endpoint that is asked without one.
fn got<H: Handler<T, Served>, T: 'static>(
    path: &'static str,
    gives: Option<&'static str>,
    summary: &'static str,
    handler: H,
) -> Route {
    Route {
        path,
        is_post: false,
        summary,
        reads: None,
        gives,
        is_open: false,
        handler: get(handler),
    }
}

/// All endpoints but the page.
pub(super) fn all() -> Vec<Route> {
    vec![
        Route {
            is_open: true,
            ..got(
                "/healthz",
                Some("Health"),
                "Whether the server takes requests",
                about::health,
            )
        },
        got(
            "/metrics",
            None,
            "Figures of the server, for Prometheus",
            about::metrics,
        ),
        got(
            "/openapi.json",
            Some("Object"),
            "This description",
            about::openapi,
        ),
        got(
            "/v1/models",
            Some("Models"),
            "The models, and what each can do",
            about::models,
        ),
        posted(
            "/v1/predict",
            ["PredictRequest", "Predictions"],
            "What a model of a task says of texts or images",
            predict::predict,
        ),
        posted(
            "/v1/fill-mask",
            ["FillMaskRequest", "FilledMasks"],
            "Words for the masks of a text",
            fill_mask::fill_mask,
        ),
        posted(
            "/v1/explain",
            ["ExplainRequest", "Explanation"],
            "What speaks for a class",
            explain::explain,
        ),
        posted(
            "/v1/embeddings",
            ["EmbeddingsRequest", "Embeddings"],
            "Vectors of texts, as OpenAI's",
            embeddings::embeddings,
        ),
        posted(
            "/v1/completions",
            ["CompletionRequest", "Completion"],
            "A text that goes on, as OpenAI's",
            completions::completions,
        ),
        posted(
            "/v1/chat/completions",
            ["ChatRequest", "ChatCompletion"],
            "An answer in a dialogue, as OpenAI's",
            completions::chat_completions,
        ),
        got("/v1/runs", Some("Runs"), "The runs of --runs", runs::list),
        got(
            "/v1/runs/{name}/metrics",
            Some("Records"),
            "Lines of a run's metrics.jsonl, from a byte on",
            runs::metrics,
        ),
        got(
            "/v1/runs/{name}/confusion",
            Some("Confusion"),
            "The confusion matrix of a run",
            runs::confusion,
        ),
        got(
            "/v1/runs/{name}/samples",
            Some("Samples"),
            "Images and texts that a run has made",
            runs::samples,
        ),
    ]
}
