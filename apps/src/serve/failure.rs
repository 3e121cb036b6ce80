//! What goes wrong, as HTTP says it. In: a failure, or a reason to refuse. Out: a status, and a sentence in OpenAI's shape.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use train::Failure;

/// Characters of a message: it may quote the request, which may be long.
const MOST_CHARACTERS: usize = 500;

/// A request that gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400 and above.
    pub status: StatusCode,
    /// One sentence.
    pub message: String,
    /// The key of the request that is wrong.
    pub param: Option<&'static str>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

impl Refusal {
    /// A request that cannot be answered as it is.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, message)
    }

    /// Any status.
    pub fn of(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A value of the right kind that makes no sense.
    pub fn value(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param),
            ..Self::of(StatusCode::UNPROCESSABLE_ENTITY, message)
        }
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        let code = Some("not_found");
        Self {
            code,
            ..Self::of(StatusCode::NOT_FOUND, message)
        }
    }

    /// More requests than the queue holds.
    pub fn full() -> Self {
        Self {
            code: Some("queue_full"),
            ..Self::of(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests are waiting; try again in a moment",
            )
        }
    }

    /// A server that stops, or is too slow.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// A breakdown.
    pub fn broken(message: impl Into<String>) -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The object that is sent.
    pub fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let message = match self.message.char_indices().nth(MOST_CHARACTERS) {
            Some((end, _)) => format!("{}...", &self.message[..end]),
            None => self.message.clone(),
        };
        json!({"error": {
            "message": message, "type": kind, "param": self.param, "code": self.code,
        }})
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match &failure {
            Failure::Input(_) => Self::bad(failure.to_string()),
            Failure::Running(_) => Self::broken(failure.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // What is left of the body is not read.
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_shape_of_openai() {
        assert_eq!(
            Refusal::value("top", "top is 0").json(),
            json!({"error": {
                "message": "top is 0", "type": "invalid_request_error", "param": "top", "code": null,
            }})
        );
        let long = Refusal::bad("é".repeat(9000)).json();
        assert_eq!(
            long["error"]["message"].as_str().unwrap().chars().count(),
            503
        );
        let response = Refusal::full().into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
        let broken = Refusal::from(Failure::running(anyhow::anyhow!("broke")));
        assert_eq!(broken.json()["error"]["type"], "server_error");
    }
}
