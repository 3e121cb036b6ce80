//! `POST /v1/fill-mask`: words for the masks of a text.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::predict::checked_top;
use crate::guess::Guess;
use crate::serve::Served;
use crate::serve::body::Read;
use crate::serve::failure::Refusal;
use crate::serve::job::{FillMask, Job};
use crate::serve::models::Ability;

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    model: Option<String>,
    text: String,
    top: Option<usize>,
}

/// Answers.
pub(super) async fn fill_mask(
    State(served): State<Served>,
    Read(request): Read<Request>,
) -> Result<Json<Value>, Refusal> {
    let model = served.models().find(request.model.as_deref())?;
    model.require(Ability::FillMask)?;
    let question = FillMask {
        text: request.text,
        top: checked_top(request.top)?,
    };
    let masks = model.ask(question, Job::FillMask).await?;
    let guess = |guess: &Guess| json!({"token": guess.name, "probability": guess.figure.number()});
    let mask = |guesses: &Vec<Guess>| {
        let guesses: Vec<Value> = guesses.iter().map(guess).collect();
        json!({"guesses": guesses})
    };
    let masks: Vec<Value> = masks.iter().map(mask).collect();
    Ok(Json(json!({"model": model.name, "masks": masks})))
}
