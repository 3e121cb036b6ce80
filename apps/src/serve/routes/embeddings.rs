//! `POST /v1/embeddings`: vectors, as OpenAI's; of a model of images, of `{"image": ...}`.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// What is said.
#[derive(Serialize)]
pub(super) struct Answer {
    object: &'static str,
    model: String,
    data: Vec<Embedding>,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Numbers,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Answers.
pub(super) async fn embeddings(
    State(served): State<Served>,
    Read(request): Read<Request>,
) -> Result<Json<Answer>, Refusal> {
    let model = served.models().find(request.model.as_deref())?;
    model.require(Ability::Embed)?;
    if request.dimensions.is_some_and(|asked| !asked.is_null()) {
        let message = "dimensions cannot be chosen: a vector has the width of its model";
        return Err(Refusal::value("dimensions", message));
    }
    let inputs = input::list(request.input, served.limits().inputs)?;
    let (rows, room) = if model.reads == Some(Reads::Image) {
        rows(&served, Some(&model.name), inputs).await?
    } else {
        let texts = inputs.into_iter().map(text).collect::<Result<_, _>>()?;
        (texts, None)
    };
    let vectors = model.ask(rows, room, Job::Embed).await?;
    let encoding = request.encoding_format.unwrap_or_default();
    let all = vectors.values.chunks(vectors.width.max(1)).enumerate();
    let data = all.map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: match encoding {
            Encoding::Float => Numbers::Float(vector.to_vec()),
            Encoding::Base64 => {
                let bytes = vector.iter().flat_map(|value| value.to_le_bytes());
                Numbers::Base64(STANDARD.encode(bytes.collect::<Vec<u8>>()))
            }
        },
    });
    let tokens: usize = vectors.tokens.iter().sum();
    Ok(Json(Answer {
        object: "list",
        model: model.name.clone(),
        data: data.collect(),
        usage: Usage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        },
    }))
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
