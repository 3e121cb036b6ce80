//! `POST /v1/explain`: which tokens, or which parts of an image, speak for a class.

use axum::Json;
use axum::extract::State;
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::{Value, json};

use super::predict::{data_url, rows};
use crate::explain::{self as explaining, Method, Subject, Token};
use crate::serve::Served;
use crate::serve::body::Read;
use crate::serve::failure::Refusal;
use crate::serve::job::{Explain, Job};
use crate::serve::models::Ability;
use crate::task::{Reads, Row};

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    model: Option<String>,
    input: Value,
    method: Option<String>,
    class: Option<String>,
}

/// Answers.
pub(super) async fn explain(
    State(served): State<Served>,
    Read(request): Read<Request>,
) -> Result<Json<Value>, Refusal> {
    let model = served.models().find(request.model.as_deref())?;
    model.require(Ability::Explain)?;
    let method = method(request.method.as_deref(), model.reads == Some(Reads::Image))?;
    let (mut rows, room) = rows(&served, Some(&model.name), vec![request.input]).await?;
    let row = rows.remove(0);
    let texts = match &row {
        Row::Texts(texts) | Row::Words(texts) => texts.clone(),
        Row::Image(_) => Vec::new(),
    };
    let question = Explain {
        row,
        method,
        class: request.class,
    };
    let explanation = model.ask(question, room, Job::Explain).await?;
    let completeness = explanation.completeness.as_ref();
    let mut answer = json!({
        "model": model.name, "class": explanation.class, "probability": explanation.probability,
        "method": method.name(),
        "completeness": completeness.map(explaining::Completeness::relative_error),
    });
    match &explanation.subject {
        Subject::Texts(tokens) => {
            let tokens = tokens.iter().map(|one| token(one, &texts));
            answer["tokens"] = tokens.collect();
        }
        Subject::Image(..) => {
            answer["picture"] = Value::String(data_url(&explaining::png(&explanation)?));
        }
    }
    Ok(Json(answer))
}

/// The method of a name.
fn method(name: Option<&str>, is_image: bool) -> Result<Method, Refusal> {
    let Some(name) = name else {
        return Ok(Method::IntegratedGradients);
    };
    let mut all = Method::value_variants().iter().copied();
    let found = all.find(|method| {
        // A shorter name, too.
        method.name() == name || *method == Method::AttentionRollout && name == "rollout"
    });
    match found {
        Some(method) if method.fits(!is_image) => Ok(method),
        Some(_) | None => {
            let fits = Method::value_variants().iter();
            let fits = fits.filter(|method| method.fits(!is_image));
            let fits: Vec<_> = fits.map(|method| method.name()).collect();
            let message = format!("the method must be one of {}", fits.join(", "));
            Err(Refusal::value("method", message))
        }
    }
}

/// A token; its place is counted in Unicode's code points, as predictions have it.
fn token(token: &Token, texts: &[String]) -> Value {
    let place = |at: u32| {
        let text = texts.get(usize::from(token.part?))?;
        Some(text.get(..at as usize)?.chars().count())
    };
    json!({
        "token": token.token, "text": token.text, "part": token.part,
        "start": place(token.span[0]), "end": place(token.span[1]), "score": token.attribution,
    })
}
