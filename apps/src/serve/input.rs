//! Rows of requests. In: a JSON value, what a model reads. Out: a row as `apps predict` has it.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data::{Ground, Picture, decode_picture};
use serde_json::{Map, Value};

use super::failure::Refusal;
use super::models::Model;
use super::room;
use crate::task::{Reads, Row};

/// What images are called in messages.
const NAME: &str = "the image";

/// What the keys of an input may be.
const KEYS: [&str; 7] = [
    "text", "context", "pair", "question", "choices", "words", "image",
];

/// Inputs of one request: a list, or one.
///
/// - most: that a request may hold
pub(super) fn list(value: Value, most: usize) -> Result<Vec<Value>, Refusal> {
    let all = match value {
        Value::Array(all) => all,
        one => vec![one],
    };
    if all.is_empty() {
        return Err(Refusal::value("inputs", "there is no input"));
    }
    if all.len() > most {
        let n = all.len();
        return Err(Refusal::value(
            "inputs",
            format!("there are {n} inputs; a request may hold {most}"),
        ));
    }
    Ok(all)
}

/// KiB that the images of inputs take once they are decoded; what is wrong about them is said by [`rows`].
pub(super) fn kib(inputs: &[Value]) -> u64 {
    let one = |input: &Value| {
        let written = input.as_str().or(input["image"].as_str())?;
        Some(room::kib(&bytes(written).ok()?))
    };
    inputs.iter().filter_map(one).fold(0, u64::saturating_add)
}

/// Rows of inputs; images are decoded here, so this is no work for a thread that serves connections.
pub(super) fn rows(inputs: Vec<Value>, model: &Model) -> Result<Vec<Row>, Refusal> {
    let several = inputs.len() > 1;
    let one = |(at, input)| {
        row(input, model).map_err(|reason| {
            let place = if several {
                format!("input {}: ", at + 1)
            } else {
                String::new()
            };
            Refusal::value("inputs", format!("{place}{reason}"))
        })
    };
    inputs.into_iter().enumerate().map(one).collect()
}

/// A row of a task's model; without a task a text or an image.
fn row(input: Value, model: &Model) -> Result<Row, String> {
    let reads = model.reads.unwrap_or(Reads::Texts);
    let object = match input {
        Value::Object(object) => object,
        Value::String(text) => {
            let key = if reads == Reads::Image {
                "image"
            } else {
                "text"
            };
            Map::from_iter([(key.to_string(), Value::String(text))])
        }
        _ => return Err("an input is a text or an object".into()),
    };
    if let Some(unknown) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let keys = KEYS.join(", ");
        return Err(format!(
            "\"{unknown}\" is no key of an input; there are {keys}"
        ));
    }
    let allowed: &[&str] = match reads {
        Reads::Texts => &["text", "pair"],
        Reads::Sentence => &["text", "words"],
        Reads::Question => &["text", "context", "question"],
        Reads::Choices => &["text", "choices"],
        Reads::Source => &["text"],
        Reads::Image => &["image"],
    };
    if let Some(unused) = object.keys().find(|key| !allowed.contains(&key.as_str())) {
        let keys = allowed.join(", ");
        return Err(format!(
            "this model has no use for \"{unused}\"; it reads {keys}"
        ));
    }
    if reads == Reads::Image {
        let channels = model.view.map_or(3, |[channels, ..]| channels);
        return Ok(Row::Image(picture(&object, channels)?));
    }
    if let Some(words) = object.get("words") {
        return Ok(Row::Words(texts("words", words, 1)?));
    }
    let first = object.get("text").or(object.get("context"));
    let mut all = vec![text("text", first.ok_or("\"text\" is missing")?)?];
    match reads {
        Reads::Texts => {
            if let Some(pair) = object.get("pair") {
                all.push(text("pair", pair)?);
            }
        }
        Reads::Question => {
            let question = object.get("question").ok_or("\"question\" is missing")?;
            all.push(text("question", question)?);
        }
        Reads::Choices => {
            let choices = object.get("choices").ok_or("\"choices\" is missing")?;
            all.extend(texts("choices", choices, 2)?);
        }
        Reads::Sentence | Reads::Source | Reads::Image => {}
    }
    Ok(Row::Texts(all))
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::String(_) => Err(format!("\"{key}\" is empty")),
        _ => Err(format!("\"{key}\" is no text")),
    }
}

/// - least: how many there must be
fn texts(key: &str, value: &Value, least: usize) -> Result<Vec<String>, String> {
    match value.as_array() {
        Some(all) if all.len() >= least => all.iter().map(|one| text(key, one)).collect(),
        Some(_) | None => Err(format!("\"{key}\" is no list of {least} texts or more")),
    }
}

/// An image as the bytes of its file in base64, with or without the head of a data URL.
fn picture(object: &Map<String, Value>, channels: usize) -> Result<Picture, String> {
    let written = text("image", object.get("image").ok_or("\"image\" is missing")?)?;
    let bytes = bytes(&written)?;
    let picture = decode_picture(Path::new(NAME), &bytes, channels, Ground::WHITE);
    picture.map_err(|error| train::Failure::from(error).to_string())
}

fn bytes(written: &str) -> Result<Vec<u8>, String> {
    let data = match written.strip_prefix("data:") {
        Some(url) => {
            let (head, data) = url.split_once(',').unwrap_or((url, ""));
            if !head.ends_with(";base64") {
                return Err("\"image\" is a data URL that is not in base64".into());
            }
            data
        }
        None => written,
    };
    let bytes = STANDARD.decode(data.trim());
    bytes.map_err(|_| "\"image\" is not in base64".to_string())
}
