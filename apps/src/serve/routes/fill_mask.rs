//! `POST /v1/fill-mask`: words for the masks of a text.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

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

/// What is said: of each mask its tokens, the likeliest first.
#[derive(Serialize)]
pub(super) struct Answer {
    model: String,
    masks: Vec<Mask>,
}

#[derive(Serialize)]
struct Mask {
    guesses: Vec<Fill>,
}

#[derive(Serialize)]
struct Fill {
    token: String,
    probability: f32,
}

/// Answers.
pub(super) async fn fill_mask(
    State(served): State<Served>,
    Read(request): Read<Request>,
) -> Result<Json<Answer>, Refusal> {
    let model = served.models().find(request.model.as_deref())?;
    model.require(Ability::FillMask)?;
    let question = FillMask {
        text: request.text,
        top: checked_top(request.top)?,
    };
    let masks = model.ask(question, None, Job::FillMask).await?;
    let fill = |guess: Guess| Fill {
        token: guess.name,
        probability: guess.figure.number(),
    };
    let mask = |guesses: Vec<Guess>| Mask {
        guesses: guesses.into_iter().map(fill).collect(),
    };
    Ok(Json(Answer {
        model: model.name.clone(),
        masks: masks.into_iter().map(mask).collect(),
    }))
}
