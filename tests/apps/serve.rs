//! The server as its clients see it: answers, batches, limits, its end; `hostile` has who must not ask. Unix alone, for its
//! signals.
#![cfg(unix)]

mod client;
mod hostile;

use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use self::client::{NANO, Server, events, figure};
use crate::bundles::{Bundles, CLASSES, SHARES, bpe, printed, refused};
use crate::trained::Runs;

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
    assert!(figure(&server, "hearth_generated_tokens_total{model=\"talker\"}") >= 20.0);
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
fn an_adapter_is_chosen_by_its_name() {
    let bundles = Bundles::new();
    let base = bundles.text_classifier("base");
    let other = bundles.text_classifier_with("other", &[0.0, 0.0, 9.0]);
    let adapter = format!("food={other}");
    let server = Server::start(&[&base, "--adapter", &adapter]);
    for (model, class) in [("base", "animal"), ("food", "food")] {
        let said = server.said("/v1/predict", &json!({"model": model, "inputs": "a tool"}));
        assert_eq!(
            said["predictions"][0]["classes"][0]["name"], class,
            "{said}"
        );
    }
    let message = server.post("/v1/predict", &json!({"inputs": "a tool"}));
    assert!(message.refusal(422).contains("there are base, food"));
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
