//! Words with tags, entities, answers, choices, pairs, vectors: what is found, and where.

use std::fs;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::bundles::{Bundles, apps, edit_config, printed, refused};

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn words_have_their_tags_and_places() {
    let bundles = Bundles::new();
    let model = bundles.tagger("words", ["DET", "NOUN", "VERB"]);
    let text = printed(&["predict", "--model", &model, "--text", "A small  bird"]);
    assert_eq!(
        text,
        "A      NOUN  0.700  0-1\nsmall  NOUN  0.700  2-7\nbird   NOUN  0.700  9-13\n"
    );
}

#[test]
fn entities_are_what_their_tags_mark() {
    let bundles = Bundles::new();
    // Every word begins an entity.
    let begins = bundles.tagger("begins", ["O", "B-BIRD", "I-BIRD"]);
    let args = ["predict", "--model", &begins, "--text", "a bird", "--json"];
    let found = &lines(&printed(&args))[0]["entities"];
    let names: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["BIRD", "BIRD"]);
    assert_eq!(
        (&found[1]["text"], &found[1]["start"], &found[1]["end"]),
        (&json!("bird"), &json!(2), &json!(6))
    );
    // Every word goes on with the one before: one entity.
    let goes_on = bundles.tagger("goes-on", ["O", "I-BIRD", "B-BIRD"]);
    let text = printed(&["predict", "--model", &goes_on, "--text", "été: a bird"]);
    assert_eq!(text, "été: a bird  BIRD  0.700  0-11\n");
    // None at all.
    let none = bundles.tagger("none", ["B-BIRD", "O", "I-BIRD"]);
    let args = ["predict", "--model", &none, "--text", "a bird", "--json"];
    assert_eq!(lines(&printed(&args))[0]["entities"], json!([]));
    // A file keeps its rows.
    let rows = bundles.file("a.jsonl", "{\"text\": \"a bird\"}\n{\"text\": \"\"}\n");
    let args = ["predict", "--model", &begins, "--input", &rows, "--json"];
    let found = lines(&printed(&args));
    assert_eq!(found[0]["entities"].as_array().unwrap().len(), 2);
    assert!(found[1]["error"].is_string() && found[1].get("entities").is_none());
}

#[test]
fn answers_are_parts_of_the_context_however_long_it_is() {
    let bundles = Bundles::new();
    let model = bundles.finder("finder");
    let context = "a small bird that sings; ".repeat(9);
    let args = [
        "predict",
        "--model",
        &model,
        "--text",
        &context,
        "--question",
        "a bird",
        "--json",
        "--top",
        "4",
    ];
    let answers = lines(&printed(&args))[0]["answers"].clone();
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 4);
    let mut before = 1.0;
    for answer in answers {
        let (from, to) = (
            answer["start"].as_u64().unwrap(),
            answer["end"].as_u64().unwrap(),
        );
        let part = &context[from as usize..to as usize];
        assert_eq!(answer["text"], part);
        let probability = answer["probability"].as_f64().unwrap();
        assert!(probability <= before && probability > 0.0);
        before = probability;
    }
    let rows = bundles.file("a.csv", "context,question\na small bird,a bird\na tool,\n");
    let args = [
        "predict",
        "--model",
        &model,
        "--input",
        &rows,
        "--column",
        "context",
        "--pair-column",
        "question",
        "--json",
    ];
    let found = lines(&printed(&args));
    assert!(found[0]["answers"].is_array());
    assert_eq!(found[1]["error"], "\"question\" is empty");
}

#[test]
fn no_answer_is_given_only_where_training_had_questions_without() {
    let bundles = Bundles::new();
    let model = bundles.finder("finder");
    let texts = || -> Vec<String> {
        let args = [
            "predict",
            "--model",
            &model,
            "--text",
            "a small bird",
            "--question",
            "a bird",
            "--json",
            "--top",
            "99",
        ];
        let found = lines(&printed(&args));
        let answers = found[0]["answers"].as_array().unwrap();
        let text = |answer: &Value| answer["text"].as_str().unwrap().to_string();
        answers.iter().map(text).collect()
    };
    let all = texts();
    assert!(all.iter().any(String::is_empty), "{all:?}");
    edit_config(&model, |config| {
        config["answers"] = json!({"stride": 4, "longest": 1, "no_answer_threshold": null});
    });
    let mut words = texts();
    words.sort();
    assert_eq!(words, ["a", "bird", "small"]);
    edit_config(&model, |config| config["answers"] = json!({"stride": -1}));
    let args = [
        "predict",
        "--model",
        &model,
        "--text",
        "a bird",
        "--question",
        "a bird",
    ];
    assert!(refused(&args).contains("config.json"));
}

#[test]
fn what_is_cut_is_said_of_each_kind() {
    let bundles = Bundles::new();
    let tags = bundles.tagger("words", ["DET", "NOUN", "VERB"]);
    let classes = bundles.text_classifier("pairs");
    let answers = bundles.finder("finder");
    let long = "a small bird that sings ".repeat(40);
    for args in [
        &["--model", &tags, "--text", &long][..],
        &["--model", &classes, "--text", &long],
        &["--model", &classes, "--text", "a bird", "--pair", &long],
        &["--model", &answers, "--text", "a bird", "--question", &long],
    ] {
        let output = apps(&[&["predict"], args].concat());
        let note = String::from_utf8(output.stderr).unwrap();
        assert!(note.contains("1 of 1 texts"), "{args:?}: {note}");
        assert!(output.status.success(), "{note}");
    }
}

#[test]
fn choices_come_with_their_probabilities() {
    let bundles = Bundles::new();
    let model = bundles.chooser("chooser");
    let args = [
        "predict",
        "--model",
        &model,
        "--text",
        "what sings",
        "--choice",
        "bird",
        "--choice",
        "a tool",
    ];
    assert_eq!(printed(&args), "bird    0.500\na tool  0.500\n");
    let rows = bundles.file(
        "a.jsonl",
        "{\"q\": \"what sings\", \"c\": [\"bird\", \"tool\", \"iron\", \"birds\"]}\n",
    );
    let args = [
        "predict",
        "--model",
        &model,
        "--input",
        &rows,
        "--column",
        "q",
        "--pair-column",
        "c",
        "--json",
    ];
    let found = lines(&printed(&args));
    let choices = found[0]["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    assert!((choices[0]["probability"].as_f64().unwrap() - 0.25).abs() < 1e-6);
}

#[test]
fn pairs_are_classified_together() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("pairs");
    let args = [
        "predict", "--model", &model, "--text", "a bird", "--pair", "a tool", "--top", "1",
    ];
    assert_eq!(printed(&args), "animal  0.700\n");
    let rows = bundles.file("a.tsv", "one\tother\na bird\ta tool\n");
    let args = [
        "predict",
        "--model",
        &model,
        "--input",
        &rows,
        "--column",
        "one",
        "--pair-column",
        "other",
        "--top",
        "1",
    ];
    assert_eq!(printed(&args), format!("{rows}:2\tanimal\t0.700\n"));
}

#[test]
fn texts_are_embedded_and_compared() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("encoder");
    let args = [
        "embed", "--model", &model, "--text", "a bird", "--text", "a bird", "--text", "iron",
    ];
    let text = printed(&args);
    let rows: Vec<Vec<f32>> = text
        .lines()
        .map(|line| {
            line.split_whitespace()
                .map(|cell| cell.parse().unwrap())
                .collect()
        })
        .collect();
    assert_eq!((rows.len(), rows[0][1], rows[2][2]), (3, 1.0, 1.0));
    assert!(rows[0][2] < 1.0 && rows[0][2] == rows[2][0]);
    let input = bundles.file("a.txt", "a bird\na small bird that sings\n");
    let output = bundles.at("vectors.safetensors");
    let args = [
        "embed", "--model", &model, "--input", &input, "--output", &output,
    ];
    assert!(printed(&args).ends_with("embeddings [2, 16]\n"));
    let bytes = fs::read(&output).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let vectors = file.tensor("embeddings").unwrap();
    let values: Vec<f32> = vectors
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    for row in values.chunks(16) {
        let length: f32 = row.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    assert!(refused(&args).contains("exists; --force replaces it"));
    let mut args = vec!["embed", "--model", &model];
    args.extend(["--text", "a bird"].repeat(101));
    assert!(refused(&args).contains("--output FILE keeps their vectors"));
    assert!(refused(&["embed", "--model", &model, "--text", " "]).contains("--text is empty"));
    let images = bundles.autoencoder("images");
    assert!(
        refused(&["embed", "--model", &images, "--text", "a"]).contains("is a model of images")
    );
}

#[test]
fn flags_that_a_model_has_no_use_for_are_refused() {
    let bundles = Bundles::new();
    let words = bundles.tagger("words", ["DET", "NOUN", "VERB"]);
    let answers = bundles.finder("finder");
    let classes = bundles.text_classifier("classes");
    for (args, reason) in [
        (
            vec!["--model", &words, "--text", "a", "--pair", "b"],
            "a classifier of tokens, which has no use for --pair",
        ),
        (
            vec!["--model", &answers, "--text", "a"],
            "ask with --question beside --text",
        ),
        (
            vec!["--model", &answers, "--text", "a", "--choice", "b"],
            "which has no use for --choice",
        ),
        (
            vec!["--model", &classes, "--text", "a", "--choice", "b"],
            "which has no use for --choice",
        ),
        (
            vec!["--model", &classes, "--text", "a", "--pair", " "],
            "--pair or --choice is empty",
        ),
    ] {
        let message = refused(&[&["predict"], &args[..]].concat());
        assert!(message.contains(reason), "{message}");
    }
    let output = apps(&["predict", "--model", &classes, "--pair", "b"]);
    assert_eq!(output.status.code(), Some(2));
}
