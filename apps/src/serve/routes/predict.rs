//! `POST /v1/predict`: what `apps predict --json` says, for programs.

use std::io::Cursor;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{GrayImage, ImageFormat};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::serve::Served;
use crate::serve::body::Read;
use crate::serve::failure::Refusal;
use crate::serve::input;
use crate::serve::job::{Job, Predict};
use crate::serve::models::Ability;
use crate::serve::room::Room;
use crate::task::{Asked, Output, Prediction, Reads, Row};

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    model: Option<String>,
    inputs: Value,
    top: Option<usize>,
    threshold: Option<f32>,
}

/// What is said.
#[derive(Serialize)]
pub(super) struct Answer {
    model: String,
    task: Option<&'static str>,
    predictions: Vec<Line>,
}

/// A line of `apps predict --json`.
#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Said(Prediction),
    /// With its picture.
    Mask(Value),
}

/// Rows of inputs, and what their images take; these are decoded on another thread than those that serve connections.
pub(super) async fn rows(
    served: &Served,
    model: Option<&str>,
    inputs: Vec<Value>,
) -> Result<(Vec<Row>, Option<Room>), Refusal> {
    let found = served.models().find(model)?;
    if found.reads != Some(Reads::Image) {
        return Ok((input::rows(inputs, found)?, None));
    }
    let (served, name) = (served.clone(), found.name.clone());
    let decode = move || -> Result<(Vec<Row>, Option<Room>), Refusal> {
        let models = served.models();
        let room = models.rooms().take(input::kib(&inputs))?;
        Ok((input::rows(inputs, models.find(Some(&name))?)?, Some(room)))
    };
    let decoded = tokio::task::spawn_blocking(decode).await;
    decoded.unwrap_or_else(|error| Err(Refusal::broken(error.to_string())))
}

/// The number of things that are said of a row.
pub(super) fn checked_top(top: Option<usize>) -> Result<usize, Refusal> {
    match top.unwrap_or(Asked::default().top) {
        0 => Err(Refusal::value("top", "top is 0; it must be at least 1")),
        top => Ok(top),
    }
}

/// Answers.
pub(super) async fn predict(
    State(served): State<Served>,
    Read(request): Read<Request>,
) -> Result<Json<Answer>, Refusal> {
    let limits = served.limits();
    let model = served.models().find(request.model.as_deref())?;
    model.require(Ability::Predict)?;
    let asked = Asked {
        top: checked_top(request.top)?,
        threshold: request.threshold,
        batch_size: limits.batch_size,
    };
    if let Some(threshold) = asked.threshold {
        if !model.has_threshold {
            let name = &model.name;
            let message = format!("the model \"{name}\" has no use for a threshold");
            return Err(Refusal::value("threshold", message));
        }
        if !(0.0..=1.0).contains(&threshold) {
            return Err(Refusal::value(
                "threshold",
                "threshold must be at least 0 and at most 1",
            ));
        }
    }
    let inputs = input::list(request.inputs, limits.inputs)?;
    let (rows, room) = rows(&served, Some(&model.name), inputs).await?;
    let question = Predict { rows, asked };
    let outputs = model.ask(question, room, Job::Predict).await?;
    let lines = outputs.into_iter().map(line);
    Ok(Json(Answer {
        model: model.name.clone(),
        task: model.task,
        predictions: lines.collect::<Result<_, _>>()?,
    }))
}

/// A line of an output; a mask comes with its PNG, whose grey values are the numbers of the classes.
fn line(output: Output) -> Result<Line, Refusal> {
    let broken = |error: String| Refusal::broken(error);
    let png = match &output {
        Output::Mask(mask) => {
            let (width, height) = (mask.width as u32, mask.height as u32);
            let image = GrayImage::from_raw(width, height, mask.pixels.clone());
            let image = image.ok_or_else(|| broken("a mask has another size".into()))?;
            let mut bytes = Cursor::new(Vec::new());
            let written = image.write_to(&mut bytes, ImageFormat::Png);
            written.map_err(|error| broken(error.to_string()))?;
            Some(data_url(bytes.get_ref()))
        }
        _ => None,
    };
    let prediction = Prediction {
        output: Some(output),
        ..Prediction::default()
    };
    let Some(png) = png else {
        return Ok(Line::Said(prediction));
    };
    let value = serde_json::to_value(prediction);
    let mut value = value.map_err(|error| broken(error.to_string()))?;
    value["mask"]["png"] = Value::String(png);
    Ok(Line::Mask(value))
}

/// A PNG as an address that holds it.
pub(super) fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}
