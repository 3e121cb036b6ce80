//! By which name this server is asked. In: the header `Host`. Out: whether a page of another site may be behind the request.
//!
//! A browser lets a page ask the name that the page comes from, and a name can be made to mean this machine (DNS rebinding). So a
//! server that listens on this machine's own addresses, and asks for no token, answers to names of this machine alone.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Served;
use super::failure::Refusal;

/// Refuses requests whose `Host` is no name of this machine, if the server asks for that.
pub(super) async fn check(State(served): State<Served>, request: Request, next: Next) -> Response {
    match served.own_name() {
        Some(own) if !is_own(request.headers(), own) => {
            let message = "the header Host is no name of this machine; a token lets others ask";
            Refusal::of(StatusCode::FORBIDDEN, message).into_response()
        }
        Some(_) | None => next.run(request).await,
    }
}

/// - own: the name that the server listens on, beside `localhost` and every address
fn is_own(headers: &HeaderMap, own: &str) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    let host = authority.host().trim_end_matches('.');
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = address.parse::<IpAddr>().is_ok();
    is_address
        || [own, "localhost"]
            .iter()
            .any(|name| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_sites_are_not_this_machine() {
        let is_own = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_own(&headers, "studio")
        };
        for host in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "localhost",
            "LOCALHOST:1",
            "studio:80",
            "localhost.",
        ] {
            assert!(is_own(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:8080",
            "127.0.0.1.evil.example",
            "",
            "a b",
        ] {
            assert!(!is_own(host), "{host}");
        }
        assert!(!super::is_own(&HeaderMap::new(), "studio"));
    }
}
