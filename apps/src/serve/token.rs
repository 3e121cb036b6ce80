//! Who may ask. In: the token of the server, a request's header. Out: whether they are the same, in a time that tells nothing of
//! either.

use std::fs;
use std::path::Path;

use anyhow::Context;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use train::{Failure, FailureKind};

use super::Served;
use super::failure::Refusal;

/// What requests must show, kept as its digest: digests have one length, whatever is compared.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// A token as it is written.
    ///
    /// # Errors
    ///
    /// Nothing but blanks, or what no header can hold.
    pub fn new(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Failure::input("the token is empty"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::input(
                "the token must be of letters, digits and signs of ASCII, without blanks",
            ));
        }
        Ok(Self(Sha256::digest(text).into()))
    }

    /// The token that a file holds.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or holds no token.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| path.display().to_string()).input()?;
        let place = path.display();
        Self::new(&text).map_err(|failure| Failure::input(format!("{place}: {failure}")))
    }

    fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION);
        let given = given.map_or(&b""[..], |given| given.as_bytes());
        let (scheme, rest) = given.split_at(given.len().min(7));
        let digest: [u8; 32] = Sha256::digest(rest.trim_ascii()).into();
        let is_same = bool::from(self.0.ct_eq(&digest));
        scheme.eq_ignore_ascii_case(b"bearer ") && is_same
    }
}

/// Lets those through who show the token.
pub(super) async fn check(State(served): State<Served>, request: Request, next: Next) -> Response {
    match served.token() {
        Some(token) if !token.is_in(request.headers()) => {
            let message = "the header Authorization: Bearer TOKEN is missing or wrong";
            let refusal = Refusal {
                code: Some("invalid_api_key"),
                ..Refusal::of(StatusCode::UNAUTHORIZED, message)
            };
            refusal.into_response()
        }
        Some(_) | None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_whole_of_it() {
        let token = Token::new("secret\n").unwrap();
        let is_in = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            token.is_in(&headers)
        };
        assert!(is_in("Bearer secret") && is_in("bearer  secret"));
        for wrong in [
            "",
            "secret",
            "Bearer",
            "Bearer secre",
            "Bearer secret2",
            "Basic secret",
        ] {
            assert!(!is_in(wrong), "{wrong}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        for wrong in ["", " \n", "a b", "ü"] {
            assert!(Token::new(wrong).is_err(), "{wrong}");
        }
    }
}
