//! `POST /v1/embeddings`: vectors, as OpenAI's; of a model of images, of `{"image": ...}`.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::predict::rows;
use crate::serve::Served;
use crate::serve::body::Read;
use crate::serve::failure::Refusal;
use crate::serve::input;
use crate::serve::job::Job;
use crate::serve::models::Ability;
use crate::task::{Reads, Row};

/// How numbers are written.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    /// A list.
    #[default]
    Float,
    /// 32-bit floats, the lowest byte first, in base64.
    Base64,
}

/// What is asked. Keys that OpenAI's clients send besides are of no account here.
#[derive(Deserialize)]
pub(super) struct Request {
    model: Option<String>,
    input: Value,
    encoding_format: Option<Encoding>,
    dimensions: Option<Value>,
}

/// Answers.
pub(super) async fn embeddings(
    State(served): State<Served>,
    Read(request): Read<Request>,
) -> Result<Json<Value>, Refusal> {
    let model = served.models().find(request.model.as_deref())?;
    model.require(Ability::Embed)?;
    if request.dimensions.is_some_and(|asked| !asked.is_null()) {
        let message = "dimensions cannot be chosen: a vector has the width of its model";
        return Err(Refusal::value("dimensions", message));
    }
    let inputs = input::list(request.input, served.limits().inputs)?;
    let rows = if model.reads == Some(Reads::Image) {
        rows(&served, Some(&model.name), inputs).await?
    } else {
        inputs.into_iter().map(text).collect::<Result<_, _>>()?
    };
    let vectors = model.ask(rows, Job::Embed).await?;
    let encoding = request.encoding_format.unwrap_or_default();
    let all = vectors.values.chunks(vectors.width.max(1)).enumerate();
    let data = all.map(|(index, vector)| {
        let embedding = match encoding {
            Encoding::Float => json!(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                Value::String(STANDARD.encode(bytes))
            }
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let tokens: usize = vectors.tokens.iter().sum();
    Ok(Json(json!({
        "object": "list", "model": model.name, "data": data.collect::<Vec<_>>(),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })))
}

fn text(input: Value) -> Result<Row, Refusal> {
    match input {
        Value::String(text) if !text.trim().is_empty() => Ok(Row::Texts(vec![text])),
        Value::String(_) => Err(Refusal::value("input", "a text of the input is empty")),
        _ => Err(Refusal::value(
            "input",
            "the input must be a text or a list of texts; token ids are not read",
        )),
    }
}
