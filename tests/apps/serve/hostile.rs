//! Who must not ask, and what nobody should: tokens, the page's policy, hostile requests.

use std::io::{Cursor, Read, Write};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{GrayImage, ImageFormat};
use serde_json::json;

use super::client::{NANO, Server};
use crate::bundles::{Bundles, refused};

#[test]
fn a_token_is_asked_for_where_there_is_one() {
    let server = Server::start_with(&[NANO], Some("secret"));
    server.assert_alive();
    assert_eq!(server.get("/").status, 200);
    for path in ["/v1/models", "/metrics", "/openapi.json", "/v1/runs"] {
        let answer = server.get(path);
        answer.refusal(401);
        assert!(
            answer.head.contains("www-authenticate: bearer"),
            "{answer:?}"
        );
        for wrong in ["secre", "secret2", ""] {
            let header = format!("Authorization: Bearer {wrong}\r\n");
            server.ask("GET", path, &header, "").refusal(401);
        }
        let answer = server.ask("GET", path, "Authorization: Bearer secret\r\n", "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    server
        .post("/v1/fill-mask", &json!({"text": "a [MASK]"}))
        .refusal(401);
    let message = refused(&["serve", NANO, "--host", "0.0.0.0", "--port", "0"]);
    assert!(
        message.contains("--no-token lets everybody ask"),
        "{message}"
    );
}

#[test]
fn another_site_cannot_ask_through_a_browser() {
    let server = Server::start(&[NANO]);
    let with_host = |host: &str| {
        let request =
            format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        server.raw(request.as_bytes())
    };
    assert_eq!(with_host(&server.address.to_string()).status, 200);
    let message = with_host("evil.example:8080").refusal(403);
    assert!(message.contains("Host"), "{message}");
}

#[test]
fn the_page_runs_nothing_from_elsewhere() {
    let server = Server::start(&[NANO]);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page/page.js", "text/javascript"),
        ("/page/style.css", "text/css"),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        for header in [
            format!("content-type: {kind}; charset=utf-8"),
            "content-security-policy: default-src 'none'".into(),
            "x-content-type-options: nosniff".into(),
            "referrer-policy: no-referrer".into(),
        ] {
            assert!(answer.head.contains(&header), "{header}: {answer:?}");
        }
    }
    for path in ["/page/../Cargo.toml", "/page/%2e%2e/x", "/nothing"] {
        server.get(path).refusal(404);
    }
}

#[test]
fn hostile_requests_are_refused_and_the_server_lives() {
    let server = Server::start(&[
        NANO,
        "--max-body-bytes",
        "20000",
        "--timeout-s",
        "1.5",
        "--max-inputs",
        "3",
    ]);
    let fill = "/v1/fill-mask";
    for (body, status) in [
        (String::new(), 400),
        ("{".into(), 400),
        ("{\"text\": NaN}".into(), 400),
        ("[".repeat(10_000), 422),
        ("{\"text\": \"\\ud800\"}".into(), 400),
        ("[]".into(), 422),
        ("{\"text\": 7}".into(), 422),
        ("{\"text\": null}".into(), 422),
        ("{\"text\": \"a [MASK]\", \"top\": 0}".into(), 422),
        ("{\"text\": \"a [MASK]\", \"top\": -1}".into(), 422),
        ("{\"text\": \"a [MASK]\", \"top\": 1e99}".into(), 422),
        ("{\"text\": \"a [MASK]\", \"topp\": 1}".into(), 422),
        ("{\"text\": \"no mask\"}".into(), 400),
        (
            "{\"text\": \"a [MASK]\", \"model\": \"../../etc/passwd\"}".into(),
            404,
        ),
        (format!("{{\"text\": \"{}\"}}", "a ".repeat(5000)), 400),
        (format!("{{\"text\": \"{}\"}}", "a".repeat(30_000)), 413),
    ] {
        let start: String = body.chars().take(60).collect();
        let answer = server.post_text(fill, &body);
        assert_eq!(answer.status, status, "{start}: {answer:?}");
        answer.refusal(status);
    }
    // More than any number of answers that there are is not wrong.
    let all = server.said(fill, &json!({"text": "a [MASK]", "top": u32::MAX}));
    assert!(all["masks"][0]["guesses"].as_array().unwrap().len() > 1000);
    let texts = json!({"input": ["a", "b", "c", "d"]});
    assert!(
        server
            .post("/v1/embeddings", &texts)
            .refusal(422)
            .contains("may hold 3")
    );
    server
        .post("/v1/embeddings", &json!({"input": []}))
        .refusal(422);
    let deep = format!("{{\"inputs\": {}", "[".repeat(10_000));
    let message = server.post_text("/v1/predict", &deep).refusal(400);
    assert!(message.contains("recursion"), "{message}");
    server
        .post("/v1/predict", &json!({"inputs": "a"}))
        .refusal(400);
    server
        .ask("POST", fill, "Content-Type: text/plain\r\n", "{}")
        .refusal(415);
    server.get(fill).refusal(405);
    server.ask("DELETE", "/v1/models", "", "").refusal(405);

    let post =
        format!("POST {fill} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    // A body that is said to be huge, and one that is.
    server
        .raw(format!("{post}Content-Length: 99999999999\r\n\r\n{{").as_bytes())
        .refusal(413);
    let chunks = format!("{:x}\r\n{}\r\n", 8000, "a".repeat(8000)).repeat(5);
    server
        .raw(format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n").as_bytes())
        .refusal(413);
    // A body, and headers, that do not come.
    server
        .raw(format!("{post}Content-Length: 100\r\n\r\n{{").as_bytes())
        .refusal(408);
    let mut slow = server.connect();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
        .unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).ok();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the connection stays open"
    );
    // Too many headers, a header that is too long, and what is no HTTP at all.
    let flood: String = (0..5000).map(|n| format!("X-{n}: a\r\n")).collect();
    let long = format!("X: {}\r\n", "a".repeat(100_000));
    for head in [&flood, &long] {
        let answer = server
            .raw(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{head}\r\n").as_bytes());
        assert_eq!(answer.status, 431, "{answer:?}");
    }
    assert_eq!(
        server.raw(b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n").status,
        400
    );
    server.assert_alive();
    server.end();
}

#[test]
fn pictures_that_are_none_are_refused() {
    let bundles = Bundles::new();
    let model = bundles.image_classifier("images");
    let png = std::fs::read(bundles.png("a.png", 10)).unwrap();
    let server = Server::start(&[&model]);
    let half = STANDARD.encode(&png[..png.len() / 2]);
    for image in [
        json!("***"),
        json!("AAAA"),
        json!(half),
        json!("data:image/png,abc"),
        json!(7),
    ] {
        let answer = server.post("/v1/predict", &json!({"inputs": [{"image": image}]}));
        answer.refusal(422);
    }
    // Small files that are large once they are decoded: one of a few KiB, and many together.
    let bomb = |width, height| {
        let mut png = Cursor::new(Vec::new());
        let picture = GrayImage::new(width, height);
        picture.write_to(&mut png, ImageFormat::Png).unwrap();
        STANDARD.encode(png.get_ref())
    };
    for (inputs, reason) in [
        (json!(bomb(100_000, 1)), "65535"),
        (json!(vec![bomb(2000, 2000); 20]), "pixels together"),
    ] {
        let answer = server.post("/v1/predict", &json!({"inputs": inputs}));
        let message = answer.refusal(422);
        assert!(message.contains(reason), "{message}");
    }
    server
        .post("/v1/predict", &json!({"inputs": {"text": "a"}}))
        .refusal(422);
    server
        .post(
            "/v1/predict",
            &json!({"inputs": STANDARD.encode(&png), "threshold": 0.5}),
        )
        .refusal(422);
    server.assert_alive();
}
