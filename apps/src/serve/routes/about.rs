//! The server itself: whether it is well, its figures, its description, its models.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::serve::failure::Refusal;
use crate::serve::{Served, metrics as figures, openapi as description};

/// `GET /healthz`.
pub(super) async fn health(State(served): State<Served>) -> Response {
    if served.is_stopping() {
        return Refusal::unavailable("the server is stopping").into_response();
    }
    (StatusCode::OK, Json(json!({"status": "ok"}))).into_response()
}

/// `GET /metrics`.
pub(super) async fn metrics(State(served): State<Served>) -> Result<Response, Refusal> {
    let models = served.models();
    for model in models.all() {
        model.note_queue();
    }
    let text = models.metrics().text();
    let text = text.map_err(|error| Refusal::broken(error.to_string()))?;
    Ok(([(CONTENT_TYPE, figures::CONTENT_TYPE)], text).into_response())
}

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Json<Value> {
    Json(description::document(&super::all()))
}

/// `GET /v1/models`.
pub(super) async fn models(State(served): State<Served>) -> Json<Value> {
    let all = served.models().all().iter();
    let data: Vec<Value> = all.map(|model| model.json()).collect();
    Json(json!({"object": "list", "data": data}))
}
