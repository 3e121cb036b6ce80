//! The server as its clients see it: answers, batches, limits, hostile requests, its end. Unix alone, for its signals.
#![cfg(unix)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::bundles::{Bundles, CLASSES, SHARES, bpe, printed, refused};
use crate::trained::Runs;

const NANO: &str = "wordnet-bert-nano";

/// A server that runs.
struct Server {
    child: Child,
    address: SocketAddr,
}

/// What a server answers.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Expects a refusal in OpenAI's shape; its sentence.
    fn refusal(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let error = &self.json()["error"];
        assert!(error["type"].is_string(), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains('\n'), "{message}");
        message.into()
    }
}

impl Server {
    fn start(args: &[&str]) -> Self {
        Self::start_with(args, None)
    }

    fn start_with(args: &[&str], token: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_apps"));
        command.args(["serve", "--port", "0"]).args(args);
        command.stdout(Stdio::piped()).env_remove("HEARTH_TOKEN");
        if let Some(token) = token {
            command.env("HEARTH_TOKEN", token);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.as_mut().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("{args:?}: {line:?}"));
        let address = address.parse().unwrap();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream
    }

    /// Sends bytes, and reads what comes until the connection is closed.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that has seen enough closes the connection while more is sent.
        stream.write_all(bytes).ok();
        read(stream)
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        self.raw(request.as_bytes())
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    fn post_text(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, "Content-Type: application/json\r\n", body)
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    /// What a request is answered that must succeed.
    fn said(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        answer.json()
    }

    fn assert_alive(&self) {
        let answer = self.get("/healthz");
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({"status": "ok"}))
        );
    }

    /// Asks the process to end, and expects that it does.
    fn end(mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.unwrap().success());
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0));
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(12), "it goes on");
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    if let Err(error) = ended {
        let is_reset = error.kind() == ErrorKind::ConnectionReset;
        assert!(is_reset && !bytes.is_empty(), "{error}");
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Answer {
        status: status.unwrap_or(0),
        head: head.to_lowercase(),
        body: if is_chunked {
            joined(body)
        } else {
            body.into()
        },
    }
}

/// Chunks without what is around them.
fn joined(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole += &rest[..size];
        body = rest[size..].strip_prefix("\r\n").unwrap();
        if size == 0 {
            break;
        }
    }
    whole
}

/// The data of server-sent events; the last must say that nothing more comes.
fn events(body: &str) -> Vec<Value> {
    let mut all: Vec<&str> = body.split("\n\n").filter(|one| !one.is_empty()).collect();
    assert_eq!(all.pop(), Some("data: [DONE]"));
    let data = |event: &str| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    all.into_iter().map(data).collect()
}

/// A figure of `/metrics`, by the beginning of its line.
fn figure(server: &Server, line: &str) -> f64 {
    let text = server.get("/metrics").body;
    let found = text.lines().find_map(|one| one.strip_prefix(line));
    found.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[test]
fn predictions_are_those_of_predict_alone_and_in_batches() {
    let runs = Runs::new();
    runs.classifier("run", &[]);
    let run = runs.at("run");
    let name = format!("classes={run}");
    let server = Server::start(&[&name, "--batch-wait-ms", "50"]);
    let texts: Vec<String> = (0..50).map(|n| format!("{n} of the old birds")).collect();
    let mut args = vec!["predict", "--model", &run, "--json"];
    args.extend(texts.iter().flat_map(|text| ["--text", text]));
    let lines = printed(&args);
    let expected: Vec<Value> = lines
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("place");
            line
        })
        .collect();
    let one = server.said("/v1/predict", &json!({"inputs": texts}));
    assert_near(&one["predictions"], &json!(expected));
    assert_eq!(
        (&one["model"], &one["task"]),
        (&json!("classes"), &json!("classification"))
    );

    let batches = || figure(&server, "hearth_batch_rows_count{model=\"classes\"}");
    let before = batches();
    thread::scope(|scope| {
        for (text, expected) in texts.iter().zip(&expected) {
            let server = &server;
            scope.spawn(move || {
                let request = json!({"model": "classes", "inputs": text});
                let said = server.said("/v1/predict", &request);
                assert_near(&said["predictions"][0], expected);
            });
        }
    });
    let used = batches() - before;
    assert!(
        (1.0..=25.0).contains(&used),
        "{used} batches for 50 requests"
    );
    server.end();
}

/// Equal but for the last digits of numbers: padding may change the order of sums.
fn assert_near(one: &Value, other: &Value) {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => {
            let off = (a.as_f64().unwrap() - b.as_f64().unwrap()).abs();
            assert!(off < 1e-5, "{a} and {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| assert_near(a, b));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter()
                .for_each(|(key, value)| assert_near(value, &b[key]));
        }
        _ => assert_eq!(one, other),
    }
}

#[test]
fn every_kind_of_model_answers() {
    let bundles = Bundles::new();
    let classes = bundles.text_classifier("classes");
    let images = bundles.image_classifier("images");
    let masks = bundles.segmenter("masks");
    let question = bundles.finder("finder");
    let choices = bundles.chooser("chooser");
    let png = std::fs::read(bundles.png("a.png", 10)).unwrap();
    let png = format!("data:image/png;base64,{}", STANDARD.encode(png));
    let server = Server::start(&[NANO, &classes, &images, &masks, &question, &choices]);
    let models = server.get("/v1/models").json();
    let models = models["data"].as_array().unwrap();
    let can: Vec<_> = models
        .iter()
        .map(|model| (&model["id"], &model["can"]))
        .collect();
    assert_eq!(can[0], (&json!(NANO), &json!(["fill-mask", "embed"])));
    assert_eq!(
        can[1],
        (&json!("classes"), &json!(["predict", "embed", "explain"]))
    );
    assert_eq!(models[1]["classes"], json!(CLASSES));
    assert_eq!(models[2]["view"], json!([1, 4, 6]));

    let said = server.said(
        "/v1/predict",
        &json!({"model": "classes", "inputs": "a tool", "top": 1}),
    );
    let best = &said["predictions"][0]["classes"];
    assert_eq!(
        (best.as_array().unwrap().len(), &best[0]["name"]),
        (1, &json!("animal"))
    );
    assert!((best[0]["probability"].as_f64().unwrap() - f64::from(SHARES[1])).abs() < 1e-5);
    for input in [json!({"image": png}), json!(png)] {
        let said = server.said(
            "/v1/predict",
            &json!({"model": "images", "inputs": [input]}),
        );
        assert_eq!(said["predictions"][0]["classes"][0]["name"], "animal");
    }
    let said = server.said(
        "/v1/predict",
        &json!({"model": "masks", "inputs": {"image": png}}),
    );
    let mask = &said["predictions"][0]["mask"];
    assert_eq!((&mask["height"], &mask["width"]), (&json!(4), &json!(6)));
    assert!(
        mask["png"]
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,")
    );
    let asked = json!({"model": "finder", "inputs": {"text": "a tool", "question": "made of"}});
    assert!(server.said("/v1/predict", &asked)["predictions"][0]["answers"].is_array());
    let asked =
        json!({"model": "chooser", "inputs": {"text": "a tool", "choices": ["iron", "birds"]}});
    assert!(server.said("/v1/predict", &asked)["predictions"][0]["choices"].is_array());

    let asked = json!({"model": NANO, "text": "a small [MASK] that sings", "top": 3});
    let said = server.said("/v1/fill-mask", &asked);
    let guesses = said["masks"][0]["guesses"].as_array().unwrap();
    let table = printed(&[
        "fill-mask",
        "--model",
        NANO,
        "--top",
        "3",
        "a small [MASK] that sings",
    ]);
    let tokens = table.lines().map(|line| line.split(' ').next().unwrap());
    assert!(
        guesses
            .iter()
            .map(|guess| guess["token"].as_str().unwrap())
            .eq(tokens)
    );

    let said = server.said(
        "/v1/explain",
        &json!({"model": "classes", "input": "a tool", "class": "food"}),
    );
    assert_eq!(said["class"], "food");
    assert!(said["completeness"].as_f64().unwrap() < 1e-3);
    let tool = said["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["start"] == 2);
    assert!(tool.unwrap()["score"].is_number(), "{said}");
    let asked = json!({"model": "images", "input": {"image": png}, "method": "occlusion"});
    assert!(server.said("/v1/explain", &asked)["picture"].is_string());
    let message = server.post(
        "/v1/fill-mask",
        &json!({"model": "classes", "text": "a [MASK]"}),
    );
    assert!(
        message
            .refusal(400)
            .contains("it can predict, embed, explain")
    );
}

#[test]
fn vectors_are_those_of_embed() {
    let server = Server::start(&[NANO]);
    let asked = |more: Value| {
        let mut request = json!({"model": NANO, "input": ["a wren", "a tool made of iron"]});
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server.said("/v1/embeddings", &request)
    };
    let said = asked(json!({}));
    let numbers = |index: usize| -> Vec<f32> {
        serde_json::from_value(said["data"][index]["embedding"].clone()).unwrap()
    };
    let alone = printed(&["embed", NANO, "--text", "a wren"]);
    let alone = alone
        .split_whitespace()
        .map(|number| number.parse::<f32>().unwrap());
    for (one, other) in numbers(0).into_iter().zip(alone) {
        assert!((one - other).abs() < 1e-5, "{one} and {other}");
    }
    let packed = asked(json!({"encoding_format": "base64"}));
    let bytes = STANDARD
        .decode(packed["data"][1]["embedding"].as_str().unwrap())
        .unwrap();
    let bytes: Vec<u8> = bytes;
    let packed: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|one| f32::from_le_bytes(*one))
        .collect();
    assert_eq!(packed, numbers(1));
    // [CLS], [SEP] and at least one token of each word.
    let tokens = said["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!((11..20).contains(&tokens), "{tokens}");
    assert!(
        server
            .post("/v1/embeddings", &json!({"input": [[1, 2]]}))
            .refusal(422)
            .contains("token ids")
    );
}

/// A decoder that answers dialogues, and writes something else to each prompt.
fn talker(bundles: &Bundles) -> String {
    let model = bundles.causal_lm("talker");
    let template = "{% for message in messages %}{{ message['content'] }};{% endfor %}";
    std::fs::write(format!("{model}/chat_template.jinja"), template).unwrap();
    model
}

#[test]
fn a_streamed_text_is_the_whole_one_and_texts_of_several_clients_do_not_mix() {
    let bundles = Bundles::new();
    let model = talker(&bundles);
    let server = Server::start(&[&model]);
    let write =
        |prompt: &str| json!({"prompt": prompt, "max_tokens": 20, "temperature": 1, "seed": 7});
    let prompts = ["a small", "iron", "birds that", "made"];
    let whole: Vec<Value> = prompts
        .iter()
        .map(|prompt| server.said("/v1/completions", &write(prompt)))
        .collect();
    let args = [
        "generate",
        "--model",
        &model,
        "--max-tokens",
        "20",
        "--temperature",
        "1",
        "--seed",
        "7",
    ];
    for (prompt, whole) in prompts.iter().zip(&whole) {
        let told = printed(&[&args[..], &[prompt]].concat());
        let text = whole["choices"][0]["text"].as_str().unwrap();
        assert_eq!(format!("{prompt}{text}\n"), told);
    }
    thread::scope(|scope| {
        for (prompt, whole) in prompts.iter().zip(&whole) {
            let (server, write) = (&server, &write);
            scope.spawn(move || {
                let mut request = write(prompt);
                request["stream"] = json!(true);
                request["stream_options"] = json!({"include_usage": true});
                let answer = server.post("/v1/completions", &request);
                assert!(
                    answer.head.contains("content-type: text/event-stream"),
                    "{answer:?}"
                );
                let mut events = events(&answer.body);
                assert_eq!(events.pop().unwrap()["usage"], whole["usage"]);
                let texts = events
                    .iter()
                    .map(|event| event["choices"][0]["text"].as_str().unwrap());
                assert_eq!(
                    texts.collect::<String>(),
                    whole["choices"][0]["text"].as_str().unwrap()
                );
                let last = events.last().unwrap();
                assert_eq!(
                    last["choices"][0]["finish_reason"],
                    whole["choices"][0]["finish_reason"]
                );
            });
        }
    });
    // Three more tokens than the model has positions: as many as there are, and no more.
    let mut request = write("a small");
    request["max_tokens"] = json!(u32::MAX);
    let said = server.said("/v1/completions", &request);
    let usage = &said["usage"];
    assert!(usage["total_tokens"].as_u64().unwrap() <= 41, "{usage}");

    let dialogue = json!({"messages": [{"role": "user", "content": "iron"}], "max_tokens": 4, "temperature": 0});
    let said = server.said("/v1/chat/completions", &dialogue);
    let mut streamed = dialogue.clone();
    streamed["stream"] = json!(true);
    let events = events(&server.post("/v1/chat/completions", &streamed).body);
    let texts = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    let message = &said["choices"][0]["message"];
    assert_eq!(
        texts.collect::<String>(),
        message["content"].as_str().unwrap()
    );
    assert_eq!(
        (&message["role"], &events[0]["choices"][0]["delta"]["role"]),
        (&json!("assistant"), &json!("assistant"))
    );
    assert!(figure(&server, "hearth_generated_tokens_total{model=\"talker\"}") >= 100.0);
}

#[test]
fn more_requests_than_may_wait_are_told_to_come_again() {
    let bundles = Bundles::new();
    let x = bpe().encode_one("x", 9).unwrap()[0];
    let model = bundles.one_token_lm("parrot", x);
    let server = Server::start(&[&model, "--queue", "1", "--batch-size", "1"]);
    let request = json!({"prompt": "iron", "max_tokens": 30});
    let statuses: Vec<(u16, String)> = thread::scope(|scope| {
        let ask = || scope.spawn(|| server.post("/v1/completions", &request));
        let all: Vec<_> = (0..40).map(|_| ask()).collect();
        all.into_iter()
            .map(|one| one.join().unwrap())
            .map(|answer| {
                if answer.status == 429 {
                    assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
                    answer.refusal(429);
                }
                (answer.status, answer.body)
            })
            .collect()
    });
    let count = |status: u16| {
        statuses
            .iter()
            .filter(|(found, _)| *found == status)
            .count()
    };
    assert!(count(200) >= 1 && count(429) >= 1, "{statuses:?}");
    assert_eq!(count(200) + count(429), 40, "{statuses:?}");
    server.assert_alive();
}

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
        "0.5",
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

    let post = format!("POST {fill} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
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
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ")
        .unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).ok();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "the connection stays open"
    );
    // Too many headers, a header that is too long, and what is no HTTP at all.
    let flood: String = (0..5000).map(|n| format!("X-{n}: a\r\n")).collect();
    let long = format!("X: {}\r\n", "a".repeat(100_000));
    for head in [&flood, &long] {
        let answer =
            server.raw(format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{head}\r\n").as_bytes());
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

#[test]
fn runs_are_watched_by_their_names_alone() {
    let runs = Runs::new();
    runs.classifier("runs/birds", &[]);
    runs.bench.write("runs/notes.txt", "no run");
    runs.bench.write("secret/recipe.toml", "");
    runs.bench.write("secret/metrics.jsonl", "{}\n");
    let server = Server::start(&[NANO, "--runs", &runs.at("runs")]);
    let all = server.get("/v1/runs").json();
    assert_eq!(all["data"].as_array().unwrap().len(), 1, "{all}");
    let run = &all["data"][0];
    assert_eq!(
        (&run["name"], &run["state"]),
        (&json!("birds"), &json!("done"))
    );
    assert!(
        run["epochs"].is_number() && run["best"].is_number(),
        "{run}"
    );

    let log = runs.read("runs/birds/metrics.jsonl");
    let said = server.get("/v1/runs/birds/metrics").json();
    assert_eq!(
        said["records"].as_array().unwrap().len(),
        log.lines().count()
    );
    assert_eq!(said["next"], log.len());
    let rest = server
        .get(&format!("/v1/runs/birds/metrics?from={}", log.len()))
        .json();
    assert_eq!(rest, json!({"records": [], "next": log.len()}));
    server.get("/v1/runs/birds/metrics?from=-1").refusal(422);
    let matrix = server.get("/v1/runs/birds/confusion").json();
    assert_eq!(matrix["classes"], json!(crate::trained::CLASSES));
    assert_eq!(matrix["matrix"].as_array().unwrap().len(), 3);
    assert_eq!(
        server.get("/v1/runs/birds/samples").json(),
        json!({"pictures": [], "texts": []})
    );
    for name in [
        "..%2Fsecret",
        "%2e%2e%2fsecret",
        "..%5Csecret",
        "notes.txt",
        "%00",
        "%ff",
        "birds%2F..%2F..%2Fsecret",
    ] {
        server.get(&format!("/v1/runs/{name}/metrics")).refusal(404);
    }
    assert_eq!(server.get("/v1/runs/../secret/metrics").status, 404);
}

#[test]
fn what_cannot_be_served_is_refused() {
    let bundles = Bundles::new();
    let translator = bundles.bare_translator("bare");
    assert!(refused(&["serve", NANO, NANO]).contains("both called"));
    assert!(refused(&["serve", "no-such-model"]).contains("no-such-model"));
    assert!(refused(&["serve", NANO, "--queue", "0"]).contains("--queue is 0"));
    assert!(refused(&["serve", NANO, "--timeout-s", "NaN"]).contains("--timeout-s is NaN"));
    assert!(refused(&["serve", NANO, "--runs", "nowhere"]).contains("nowhere: no such folder"));
    assert!(refused(&["serve", &translator]).contains("says nothing that is served"));
}
