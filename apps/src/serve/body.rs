//! Bodies of requests. In: bytes from anybody. Out: a value of the type that a route reads, or why there is none.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Served;
use super::failure::Refusal;

/// What a body says.
pub(super) struct Read<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Served> for Read<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, served: &Served) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        check_type(&head.headers)?;
        let limits = served.limits();
        let bytes = bytes(body, &head.headers, limits.body_bytes, limits.timeout).await?;
        parse(&bytes).map(Self)
    }
}

/// A page of another origin can send any other type without asking first.
fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.and_then(|given| given.to_str().ok()).unwrap_or("");
    let kind = given.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body must be JSON, with the header Content-Type: application/json";
    Err(Refusal::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

async fn bytes(
    body: Body,
    headers: &HeaderMap,
    most: usize,
    longest: Duration,
) -> Result<axum::body::Bytes, Refusal> {
    let too_large = || {
        let message = format!("the body is larger than {most} bytes");
        Refusal::of(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let said = headers.get(header::CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    match timeout(longest, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::bad("the body broke off")),
        Err(_) => {
            let seconds = longest.as_secs_f64();
            let message = format!("the body did not come within {seconds} s");
            Err(Refusal::of(StatusCode::REQUEST_TIMEOUT, message))
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// 400 of what is no JSON, 422 of JSON that a route does not read.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        let status = if error.is_data() {
            StatusCode::UNPROCESSABLE_ENTITY
        } else {
            StatusCode::BAD_REQUEST
        };
        let reason = plain(&error.to_string());
        Refusal::of(status, format!("the body cannot be read: {reason}"))
    })
}

/// The names of Rust's types, for people who may not know Rust.
fn plain(reason: &str) -> String {
    let names = [
        ("struct Request", "an object"),
        ("struct StreamOptions", "an object"),
        ("struct ChatMessage", "an object"),
        ("usize", "a whole number, 0 or more"),
        ("u64", "a whole number, 0 or more"),
        ("i64", "a whole number of 64 bits"),
        ("f64", "a number"),
        ("f32", "a number"),
        ("a sequence", "a list"),
    ];
    let expected = |name: &str| format!("expected {name}");
    let plain = |reason: String, (rust, word): &(&str, &str)| {
        reason.replace(&expected(rust), &expected(word))
    };
    names.iter().fold(reason.to_string(), plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn json_that_is_none_is_400_and_another_type_422() {
        let status = |text: &str| parse::<Vec<u8>>(text.as_bytes()).map_err(|e| e.status.as_u16());
        assert_eq!(status("[1, 2]"), Ok(vec![1, 2]));
        assert_eq!(status("[1, "), Err(400));
        assert_eq!(status("[1, \"a\"]"), Err(422));
        assert_eq!(status("{}"), Err(422));
        let error = parse::<Vec<usize>>(b"[-1]").unwrap_err();
        assert!(
            error.message.contains("expected a whole number, 0 or more"),
            "{}",
            error.message
        );
        let deep = "[".repeat(100_000);
        let error = parse::<Value>(deep.as_bytes()).unwrap_err();
        assert_eq!(error.status, 400);
        assert!(!error.message.contains('\n'), "{}", error.message);
    }
}
