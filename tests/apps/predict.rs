//! Classes of texts and images: which, in what order, at which place.

use std::fs;

use apps::guess::Figure;
use apps::predict::TextPredictor;
use burn::backend::Flex;
use model::families::bert::BertConfig;
use model::{HeadKind, TextClassifier, TextConfig};
use serde_json::{Value, json};

use crate::bundles::{
    Bundles, TEXTS, apps, bert, draw, edit_config, open, printed, refused, wordpiece,
};

#[test]
fn a_text_gets_its_classes_best_first() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let args = ["predict", "--model", &model, "--text", "a small bird"];
    assert_eq!(
        printed(&args),
        "animal  0.700\nplant   0.200\nfood    0.100\n"
    );
    let args = [&args[..], &["--top", "1"]].concat();
    assert_eq!(printed(&args), "animal  0.700\n");
}

#[test]
fn a_run_is_read_by_its_model() {
    let bundles = Bundles::new();
    fs::create_dir(bundles.path("run")).unwrap();
    bundles.text_classifier("run/model");
    let run = bundles.at("run");
    let text = printed(&["predict", "--model", &run, "--text", "iron", "--top", "1"]);
    assert_eq!(text, "animal  0.700\n");
}

#[test]
fn rows_of_a_file_get_a_line_each_and_empty_ones_keep_theirs() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let lines = bundles.file("a.txt", "a small bird\n\na tool\n");
    let predict = |input: &str, more: &[&str]| {
        let args = ["predict", "--model", &model, "--input", input, "--top", "1"];
        apps(&[&args[..], more].concat())
    };
    let text = String::from_utf8(predict(&lines, &[]).stdout).unwrap();
    assert_eq!(
        text,
        format!("{lines}:1\tanimal\t0.700\n{lines}:3\tanimal\t0.700\n")
    );
    let table = bundles.file("a.csv", "id,gloss\n1,\"iron, iron\"\n2,\n3,a tool\n");
    let output = predict(&table, &["--column", "gloss"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], format!("{table}:2\tanimal\t0.700"));
    assert!(lines[1].starts_with(&format!("{table}:3\t(")), "{text}");
    assert_eq!(lines[2], format!("{table}:4\tanimal\t0.700"));
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.starts_with("warning: 1 row is empty"), "{warning}");
}

#[test]
fn json_holds_an_object_a_row_and_the_reason_where_there_is_no_answer() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let rows = "{\"text\": \"a tool\"}\n{\"text\": \"  \"}\n{\"text\": \"été\"}\n";
    let rows = bundles.file("a.jsonl", rows);
    let text = printed(&[
        "predict", "--model", &model, "--input", &rows, "--json", "--top", "1",
    ]);
    let objects: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects.len(), 3);
    for (number, object) in objects.iter().enumerate() {
        assert_eq!(object["place"], format!("{rows}:{}", number + 1));
    }
    for answered in [&objects[0], &objects[2]] {
        assert_eq!(answered["classes"][0]["name"], "animal");
        let probability = answered["classes"][0]["probability"].as_f64().unwrap();
        assert!((probability - 0.7).abs() < 1e-6, "{probability}");
        assert!(answered.get("error").is_none());
    }
    assert!(objects[1]["error"].is_string() && objects[1].get("classes").is_none());
}

#[test]
fn a_prediction_does_not_depend_on_the_other_rows() {
    let bundles = Bundles::new();
    let device = Default::default();
    // Wide weights, so that texts differ.
    let wide = TextConfig::Bert(BertConfig {
        initializer_range: 0.5,
        ..bert()
    });
    let model = TextClassifier::<Flex>::draw(&wide, 3, &draw(&device));
    let path = bundles.write_text("a", &wide, HeadKind::Classes, &wordpiece(), &model);
    let predictor = TextPredictor::<Flex>::open(&open(&path), &device).unwrap();
    // More than a batch, of different lengths.
    let texts: Vec<&str> = TEXTS.iter().copied().cycle().take(150).collect();
    let all = predictor.predict(&texts, 3).unwrap();
    assert_ne!(all[0], all[1]);
    for (text, together) in texts.iter().zip(&all) {
        let alone = &predictor.predict(&[text], 3).unwrap()[0];
        for (alone, together) in alone.iter().zip(together) {
            assert_eq!(alone.name, together.name);
            // Padding may change the order of sums: a few units in the last place.
            let difference = (alone.figure.number() - together.figure.number()).abs();
            assert!(difference < 1e-5, "{text}: {difference}");
        }
    }
}

#[test]
fn scores_are_what_the_problem_type_says() {
    let bundles = Bundles::new();
    let logits = [0.0, 3f32.ln(), -(3f32.ln())];
    let model = bundles.text_classifier_with("bundle", &logits);
    let predict = |more: &[&str]| {
        let args = ["predict", "--model", &model, "--text", "iron"];
        printed(&[&args[..], more].concat())
    };
    // 3, 1 and 1/3 of 13/3.
    assert_eq!(
        predict(&[]),
        "animal  0.692\nplant   0.231\nfood    0.077\n"
    );
    let say = |problem: &str| edit_config(&model, |config| config["problem_type"] = problem.into());
    say("multi_label_classification");
    assert_eq!(
        predict(&[]),
        "animal  0.750\nplant   0.500\nfood    0.250\n"
    );
    say("regression");
    assert_eq!(
        predict(&[]),
        "animal  1.099\nplant   0.000\nfood    -1.099\n"
    );
    let object: Value = serde_json::from_str(&predict(&["--json"])).unwrap();
    let value = object["classes"][0]["value"].as_f64().unwrap();
    assert!((value - 3f64.ln()).abs() < 1e-6, "{object}");
    say("ranking");
    let message = refused(&["predict", "--model", &model, "--text", "iron"]);
    assert!(message.contains("problem_type is \"ranking\""), "{message}");
}

#[test]
fn one_logit_is_a_probability_by_itself() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier_with("bundle", &[3f32.ln()]);
    edit_config(&model, |config| {
        config["id2label"] = json!({"0": "spam"});
        config["label2id"] = json!({"spam": 0});
    });
    let args = ["predict", "--model", &model, "--text", "iron"];
    assert_eq!(printed(&args), "spam  0.750\n");
}

#[test]
fn classes_are_named_by_whatever_the_configuration_has() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let args = ["predict", "--model", &model, "--text", "iron", "--top", "1"];
    edit_config(&model, |config| {
        config.as_object_mut().unwrap().remove("id2label");
    });
    assert_eq!(printed(&args), "animal  0.700\n");
    edit_config(&model, |config| {
        config.as_object_mut().unwrap().remove("label2id");
    });
    assert_eq!(printed(&args), "LABEL_1  0.700\n");
    edit_config(&model, |config| config["num_labels"] = 3.into());
    assert_eq!(printed(&args), "LABEL_1  0.700\n");
    edit_config(&model, |config| config["num_labels"] = 4.into());
    let message = refused(&args);
    assert!(
        message.contains("num_labels is 4, and the classifier has 3 rows"),
        "{message}"
    );
}

#[test]
fn texts_are_cut_where_the_bundle_says() {
    let bundles = Bundles::new();
    let device = Default::default();
    let wide = TextConfig::Bert(BertConfig {
        initializer_range: 0.5,
        ..bert()
    });
    let model = TextClassifier::<Flex>::draw(&wide, 3, &draw(&device));
    let path = bundles.write_text("a", &wide, HeadKind::Classes, &wordpiece(), &model);
    let figures = |text: &str| {
        let predictor = TextPredictor::<Flex>::open(&open(&path), &device).unwrap();
        let guesses = predictor.predict(&[text], 3).unwrap().remove(0);
        guesses
            .iter()
            .map(|one| one.figure)
            .collect::<Vec<Figure>>()
    };
    assert_ne!(figures("a tool"), figures("a bird"));
    // [CLS], one word, [SEP].
    fs::write(
        bundles.path("a/tokenizer_config.json"),
        wordpiece().config_json(3, true),
    )
    .unwrap();
    assert_eq!(figures("a tool"), figures("a bird"));
    // No more than the model has positions, whatever the tokenizer says.
    fs::write(
        bundles.path("a/tokenizer_config.json"),
        wordpiece().config_json(512, true),
    )
    .unwrap();
    let long = TEXTS.join(" ");
    assert_eq!(figures(&long), figures(&format!("{long} a tool")));
}

#[test]
fn what_is_cut_and_what_figures_are_is_said_beside_the_answers() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    // 12 positions. With [CLS] and [SEP], the first text has 17 tokens and the second 4.
    let long = vec!["tool"; 15].join(" ");
    let input = bundles.file("a.txt", format!("{long}\na tool\n"));
    let notes = || {
        let output = apps(&["predict", "--model", &model, "--input", &input]);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let cut = "note: 1 of 2 texts are cut to 12 tokens, 23.8 % of the tokens are lost\n";
    assert_eq!(notes(), cut); // 5 of 21
    let say = |problem: &str| edit_config(&model, |config| config["problem_type"] = problem.into());
    say("regression");
    let values = "note: the figures are values, not probabilities\n";
    assert_eq!(notes(), format!("{values}{cut}"));
    say("multi_label_classification");
    let several = "note: each class has a probability by itself; they need not sum to 1\n";
    assert_eq!(notes(), format!("{several}{cut}"));
}

#[test]
fn images_get_their_classes_from_every_kind_of_file() {
    let bundles = Bundles::new();
    let model = bundles.image_classifier("bundle");
    let one = bundles.png("folder/b.png", 9);
    let other = bundles.png("folder/a.png", 200);
    assert_eq!(
        printed(&["predict", "--model", &model, "--input", &one]),
        "animal  0.700\nplant   0.200\nfood    0.100\n"
    );
    let predict =
        |input: &str| printed(&["predict", "--model", &model, "--input", input, "--top", "1"]);
    assert_eq!(
        predict(&bundles.at("folder")),
        format!("{other}\tanimal\t0.700\n{one}\tanimal\t0.700\n")
    );
    // Two images of 2x2, which are resized.
    let idx = [
        0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8,
    ];
    let idx = bundles.file("images-idx3-ubyte", idx);
    assert_eq!(
        predict(&idx),
        format!("{idx}:0\tanimal\t0.700\n{idx}:1\tanimal\t0.700\n")
    );
}

#[test]
fn an_image_that_cannot_be_read_keeps_its_line() {
    let bundles = Bundles::new();
    let model = bundles.image_classifier("bundle");
    let first = bundles.png("folder/a.png", 9);
    let last = bundles.png("folder/c.png", 9);
    let broken = bundles.file("folder/b.png", "no image");
    let folder = bundles.at("folder");
    let output = apps(&[
        "predict", "--model", &model, "--input", &folder, "--top", "1",
    ]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], format!("{first}\tanimal\t0.700"));
    assert!(lines[1].starts_with(&format!("{broken}\t(")), "{text}");
    assert_eq!(lines[2], format!("{last}\tanimal\t0.700"));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("warning: 1 row "));
}
