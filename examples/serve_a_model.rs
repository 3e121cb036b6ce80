//! Serves a model inside another program, beside a route of its own, and asks it a question.
//!
//! `cargo run --example serve_a_model`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use apps::serve::{Limits, Models, router};
use axum::Router;
use axum::routing::get;
use hearth::model::bundled;
use hearth::train::{BackendName, Failure, FailureKind};

fn main() -> Result<(), Failure> {
    let limits = Limits::default();
    let named = vec![("nano".to_string(), bundled::wordnet_bert_nano()?)];
    let models = Models::open(BackendName::Flex, named, &limits)?;
    let runtime = tokio::runtime::Runtime::new().running()?;
    runtime.block_on(async {
        let app = Router::new().route("/", get(|| async { "a program of one's own" }));
        let app = app.merge(router(models, limits));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .running()?;
        let address = listener.local_addr().running()?;
        tokio::spawn(async { axum::serve(listener, app).await });

        let question = move || -> std::io::Result<(String, String)> {
            let text = r#"{"model": "nano", "text": "a small [MASK] that sings", "top": 3}"#;
            Ok((
                ask(address, "GET", "/", "")?,
                ask(address, "POST", "/v1/fill-mask", text)?,
            ))
        };
        let answers = tokio::task::spawn_blocking(question).await.running()?;
        let (own, filled) = answers.running()?;
        println!("{own}\n{filled}");
        Ok(())
    })
}

/// The body of an answer.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let (host, length) = (address, body.len());
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    Ok(body.unwrap_or_default().to_string())
}
