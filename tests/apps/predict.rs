//! Classes of texts and images, masks and boxes: which, in what order, at which place, in which format.

use std::fs;

use apps::guess::{Figure, Guess};
use apps::task::{self, Asked, Opening, Output, Row, Task};
use burn::backend::Flex;
use data::image::read_mask;
use model::families::bert::BertConfig;
use model::{HeadKind, TextClassifier, TextConfig};
use serde_json::{Value, json};

use crate::bundles::{
    Bundles, TEXTS, apps, apps_with, bert, draw, edit_config, open, printed, refused, wordpiece,
};

fn open_task(bundle: &str) -> Box<dyn Task> {
    task::open::<Flex>(&open(bundle), Opening::default(), &Default::default()).unwrap()
}

/// The three likeliest classes of each text.
fn guesses(task: &dyn Task, texts: &[&str]) -> Vec<Vec<Guess>> {
    let row = |text: &&str| Row::Texts(vec![text.to_string()]);
    let rows: Vec<Row> = texts.iter().map(row).collect();
    let asked = Asked {
        top: 3,
        ..Asked::default()
    };
    let said = task.predict(&rows, &asked).unwrap();
    let classes = |output| match output {
        Output::Classes(classes) => classes,
        other => panic!("{other:?}"),
    };
    said.outputs.into_iter().map(classes).collect()
}

/// A classifier whose classes differ from text to text.
fn wide_classifier(bundles: &Bundles) -> String {
    let wide = TextConfig::Bert(BertConfig {
        initializer_range: 0.5,
        ..bert()
    });
    let model = TextClassifier::<Flex>::draw(&wide, 3, &draw(&Default::default()));
    bundles.write_text("wide", &wide, HeadKind::Classes, &wordpiece(), &model)
}

fn objects(text: &str) -> Vec<Value> {
    let object = |line| serde_json::from_str(line).unwrap();
    text.lines().map(object).collect()
}

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
    let task = open_task(&wide_classifier(&bundles));
    // More than a batch, of different lengths.
    let texts: Vec<&str> = TEXTS.iter().copied().cycle().take(150).collect();
    let all = guesses(task.as_ref(), &texts);
    assert_ne!(all[0], all[1]);
    for (text, together) in texts.iter().zip(&all) {
        let alone = &guesses(task.as_ref(), &[text])[0];
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
    let path = wide_classifier(&bundles);
    let figures = |text: &str| {
        let guesses = guesses(open_task(&path).as_ref(), &[text]).remove(0);
        guesses
            .iter()
            .map(|one| one.figure)
            .collect::<Vec<Figure>>()
    };
    assert_ne!(figures("a tool"), figures("a bird"));
    // [CLS], one word, [SEP].
    fs::write(
        bundles.path("wide/tokenizer_config.json"),
        wordpiece().config_json(3, true),
    )
    .unwrap();
    assert_eq!(figures("a tool"), figures("a bird"));
    // No more than the model has positions, whatever the tokenizer says.
    fs::write(
        bundles.path("wide/tokenizer_config.json"),
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

#[test]
fn a_table_jsonl_and_csv_say_the_same() {
    let bundles = Bundles::new();
    let model = wide_classifier(&bundles);
    let input = bundles.file("a.csv", "id,text\n1,a tool\n2,\n3,\"iron, birds\"\n");
    let predict = |format: &str| {
        let args = ["predict", &model, &input, "--format", format, "--top", "2"];
        printed(&args)
    };
    let json = objects(&predict("jsonl"));
    assert_eq!(json.len(), 3);
    let (mut lines, mut csv) = (
        String::new(),
        String::from("row,place,rank,class,figure,error\n"),
    );
    for (row, object) in json.iter().enumerate() {
        let (place, row) = (object["place"].as_str().unwrap(), row + 1);
        if let Some(error) = object["error"].as_str() {
            lines += &format!("{place}\t({error})\n");
            csv += &format!("{row},{place},,,,\"{}\"\n", error.replace('"', "\"\""));
            continue;
        }
        lines += place;
        for (rank, one) in object["classes"].as_array().unwrap().iter().enumerate() {
            let name = one["name"].as_str().unwrap();
            let probability = one["probability"].as_f64().unwrap() as f32;
            lines += &format!("\t{name}\t{probability:.3}");
            csv += &format!("{row},{place},{},{name},{probability},\n", rank + 1);
        }
        lines += "\n";
    }
    assert_eq!(predict("table"), lines);
    assert_eq!(predict("csv"), csv);
    assert_eq!(
        printed(&["predict", &model, &input, "--json", "--top", "2"]),
        predict("jsonl")
    );
}

#[test]
fn rows_keep_their_order_whatever_their_lengths() {
    let bundles = Bundles::new();
    let model = wide_classifier(&bundles);
    let words = ["bird", "tool", "small birds", "iron that sings"];
    let text = |row: usize| vec![words[row % 4]; 1 + row * 7 % 5].join(" ");
    let rows: String = (0..90).map(|row| text(row) + "\n").collect();
    let input = bundles.file("a.txt", rows);
    // Of 4 rows a batch, 64 rows are read at a time: two windows.
    let predict = |batch: &str| {
        objects(&printed(&[
            "predict",
            &model,
            &input,
            "--json",
            "--batch-size",
            batch,
        ]))
    };
    let (one, four) = (predict("1"), predict("4"));
    assert_eq!((one.len(), four.len()), (90, 90));
    for (row, (one, four)) in one.iter().zip(&four).enumerate() {
        assert_eq!(four["place"], format!("{input}:{}", row + 1));
        for (one, four) in one["classes"]
            .as_array()
            .unwrap()
            .iter()
            .zip(four["classes"].as_array().unwrap())
        {
            assert_eq!(one["name"], four["name"]);
            let figure = |guess: &Value| guess["probability"].as_f64().unwrap();
            // Padding may change the order of sums.
            assert!(
                (figure(one) - figure(four)).abs() < 1e-5,
                "{row}: {one} {four}"
            );
        }
    }
    assert_ne!(one[0]["classes"], one[1]["classes"]);
}

#[test]
fn texts_come_from_arguments_files_folders_and_standard_input() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let texts = ["--text", "a tool", "--text", "a bird"];
    let args = [&["predict", &model, "--top", "1"], &texts[..]].concat();
    assert_eq!(
        printed(&args),
        "text 1\tanimal\t0.700\ntext 2\tanimal\t0.700\n"
    );
    fs::create_dir(bundles.path("folder")).unwrap();
    let first = bundles.file("folder/a.txt", "a tool\n");
    let second = bundles.file("folder/b.txt", "a bird\n");
    let both = format!("{first}:1\tanimal\t0.700\n{second}:1\tanimal\t0.700\n");
    let folder = bundles.at("folder");
    for inputs in [&[folder.as_str()][..], &[&first, &second]] {
        let args = [&["predict", &model, "--top", "1"], inputs].concat();
        assert_eq!(printed(&args), both);
    }
    let lines = "a tool\n\n{\"text\": \"a bird\"}\n{\"text\": 3}\n{\"other\": \"a\"}\n{\"text\n";
    for inputs in [&["-"][..], &[]] {
        let args = [&["predict", &model, "--top", "1"], inputs].concat();
        let output = apps_with(&args, lines);
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "-:1\tanimal\t0.700\n-:3\tanimal\t0.700\n-:4\t(\"text\" is no text)\n\
             -:5\t(\"text\" is missing)\n-:6\t(is no JSON object)\n"
        );
        let warning = String::from_utf8(output.stderr).unwrap();
        assert!(
            warning.starts_with("warning: 3 rows are empty"),
            "{warning}"
        );
    }
    assert!(refused(&["predict", &model]).contains("standard input is empty"));
    let message = refused(&["predict", "--model", &model, &first, "--text", "a"]);
    assert!(message.contains("are both to be read"), "{message}");
    assert!(refused(&["predict"]).contains("no model is named"));
    let message = refused(&["predict", &model, &first, "--set", "data.text=a"]);
    assert!(message.contains("--column and --pair-column"), "{message}");
}

#[test]
fn lines_of_standard_input_hold_what_the_task_asks() {
    let bundles = Bundles::new();
    let ask = |model: &str, line: &str| {
        let output = apps_with(&["predict", model, "--json"], line);
        assert!(output.status.success());
        objects(&String::from_utf8(output.stdout).unwrap()).remove(0)
    };
    let finder = bundles.finder("finder");
    let found = ask(
        &finder,
        "{\"context\": \"a small bird\", \"question\": \"a bird\"}\n",
    );
    assert!(found["answers"].as_array().unwrap().len() > 1, "{found}");
    let found = ask(&finder, "{\"context\": \"a small bird\"}\n");
    assert_eq!(found["error"], "\"question\" is missing");
    let chooser = bundles.chooser("chooser");
    let found = ask(
        &chooser,
        "{\"question\": \"what sings\", \"choices\": [\"bird\", \"tool\"]}\n",
    );
    assert_eq!(found["choices"].as_array().unwrap().len(), 2, "{found}");
    let found = ask(
        &chooser,
        "{\"question\": \"what sings\", \"choices\": [\"bird\"]}\n",
    );
    assert!(
        found["error"]
            .as_str()
            .unwrap()
            .contains("at least two choices"),
        "{found}"
    );
    let tagger = bundles.tagger("tagger", ["DET", "NOUN", "VERB"]);
    let found = ask(&tagger, "{\"tokens\": [\"a\", \"bird\"]}\n");
    let words = found["words"].as_array().unwrap();
    assert_eq!(
        (&words[1]["text"], &words[1]["start"], &words[1]["end"]),
        (&json!("bird"), &json!(2), &json!(6))
    );
    let images = bundles.image_classifier("images");
    let png = bundles.png("a.png", 9);
    let found = ask(&images, &format!("{png}\n"));
    assert_eq!(
        (&found["place"], &found["classes"][0]["name"]),
        (&json!(png), &json!("animal"))
    );
}

#[test]
fn files_of_tagged_words_are_read_as_words() {
    let bundles = Bundles::new();
    let model = bundles.tagger("tagger", ["O", "B-BIRD", "I-BIRD"]);
    let input = bundles.file("a.conll", "a O\nbird O\n\nsings O\n");
    let found = objects(&printed(&["predict", &model, &input, "--json"]));
    assert_eq!(found.len(), 2);
    let texts = |row: &Value| -> Vec<String> {
        let marked = row["entities"].as_array().unwrap().iter();
        marked
            .map(|one| one["text"].as_str().unwrap().into())
            .collect()
    };
    assert_eq!(
        (texts(&found[0]), texts(&found[1])),
        (vec!["a".into(), "bird".into()], vec!["sings".to_string()])
    );
    assert!(
        found[1]["place"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{input}:"))
    );
}

#[test]
fn predictions_are_written_to_a_file_that_is_not_lost() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let input = bundles.file("a.txt", "a tool\na bird\n");
    let output = bundles.at("said.csv");
    let args = [
        "predict", &model, &input, "--format", "csv", "--output", &output,
    ];
    assert_eq!(printed(&args), format!("{output}: predictions of 2 rows\n"));
    let first = fs::read_to_string(&output).unwrap();
    assert_eq!(first, printed(&args[..5]));
    assert!(refused(&args).contains("exists; --force replaces it"));
    assert_eq!(fs::read_to_string(&output).unwrap(), first);
    printed(&[&args[..], &["--force", "--top", "1"]].concat());
    assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 3);
    let args = ["predict", &model, &input, "--output", &input];
    assert!(refused(&args).contains("which is read"));
}

#[test]
fn labels_that_are_unlikely_are_left_out() {
    let bundles = Bundles::new();
    let ln3 = 3f32.ln();
    let model = bundles.text_classifier_with("bundle", &[0.0, ln3, -ln3]);
    let args = [
        "predict",
        "--model",
        &model,
        "--text",
        "iron",
        "--threshold",
        "0.6",
    ];
    let message = refused(&args);
    assert!(message.ends_with("has no use for --threshold"), "{message}");
    edit_config(&model, |config| {
        config["problem_type"] = "multi_label_classification".into();
    });
    assert_eq!(printed(&args), "animal  0.750\n");
    let none = [&args[..6], &["0.9", "--json"]].concat();
    assert_eq!(printed(&none), "{\"classes\":[]}\n");
    let wrong = [&args[..6], &["1.5"]].concat();
    assert!(refused(&wrong).contains("--threshold is 1.5"));
}

#[test]
fn masks_have_the_size_of_their_images() {
    let bundles = Bundles::new();
    let model = bundles.segmenter("masks");
    let folder = bundles.at("folder");
    for (name, size) in [("a.png", (6, 4)), ("b.png", (13, 9))] {
        let image =
            image::GrayImage::from_fn(size.0, size.1, |x, y| image::Luma([(x * 19 + y * 7) as u8]));
        fs::create_dir_all(&folder).unwrap();
        image.save(bundles.path("folder").join(name)).unwrap();
    }
    let masks = bundles.at("out");
    let args = ["predict", &model, &folder, "--masks", &masks, "--json"];
    let found = objects(&printed(&args));
    assert_eq!(found.len(), 2);
    for (object, size) in found.iter().zip([[4, 6], [9, 13]]) {
        let mask = &object["mask"];
        assert_eq!(
            (&mask["height"], &mask["width"]),
            (&json!(size[0]), &json!(size[1]))
        );
        let written = read_mask(mask["file"].as_str().unwrap().as_ref()).unwrap();
        assert_eq!([written.height, written.width], size);
        for one in mask["classes"].as_array().unwrap() {
            let class = crate::bundles::CLASSES
                .iter()
                .position(|name| one["name"] == *name)
                .unwrap();
            let pixels = written
                .classes
                .iter()
                .filter(|pixel| usize::from(**pixel) == class)
                .count();
            let share = pixels as f64 / (size[0] * size[1]) as f64;
            assert!((one["share"].as_f64().unwrap() - share).abs() < 1e-6);
        }
    }
    assert!(refused(&args).contains("exists; --force replaces it"));
    printed(&[&args[..], &["--force"]].concat());
    let texts = bundles.text_classifier("texts");
    let args = [
        "predict", "--model", &texts, "--text", "a", "--masks", &masks,
    ];
    assert!(refused(&args).contains("no use for --masks"));
}

#[test]
fn boxes_lie_in_their_images() {
    let bundles = Bundles::new();
    let model = bundles.detector("boxes");
    edit_config(&model, |config| config["detection_score"] = 0.0.into());
    let path = bundles.path("wide.png");
    image::GrayImage::from_fn(24, 8, |x, _| image::Luma([x as u8 * 10]))
        .save(&path)
        .unwrap();
    let png = path.display().to_string();
    let args = ["predict", "--model", &model, "--input", &png, "--json"];
    let found = objects(&printed(&args)).remove(0);
    let boxes = found["boxes"].as_array().unwrap();
    assert!(!boxes.is_empty());
    let mut widest = 0.0;
    for one in boxes {
        let [x, y, width, height] =
            ["x", "y", "width", "height"].map(|key| one[key].as_f64().unwrap());
        assert!(
            x >= 0.0 && y >= 0.0 && x + width <= 24.001 && y + height <= 8.001,
            "{one}"
        );
        widest = f64::max(widest, x + width);
    }
    // In pixels of the image, and not of the model's six.
    assert!(widest > 6.0, "{widest}");
    let sure = [&args[..], &["--threshold", "1"]].concat();
    assert_eq!(objects(&printed(&sure))[0]["boxes"], json!([]));
}
