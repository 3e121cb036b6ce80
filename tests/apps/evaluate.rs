//! Figures of labelled rows: those that a hand works out, those of `finetune`'s own test, and what is refused.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use image::{GrayImage, Luma};
use serde_json::{Value, json};
use train::BackendName;
use train::recipe::Draft;
use train::session::Options;

use crate::bundles::{Bundles, apps, edit_config, printed, refused};
use crate::shapes;

/// Each text is "animal" to the classifier, with a probability of 0.7.
const ROWS: &str = "text,label\na bird,animal\n\"birds, small\",animal\na tool,plant\niron,food\n";

fn report(args: &[&str]) -> Value {
    serde_json::from_str(&printed(&[&["evaluate"], args, &["--json"]].concat())).unwrap()
}

fn assert_near(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!((value - expected).abs() < 1e-6, "{value}, not {expected}");
}

#[test]
fn figures_of_one_class_are_what_a_hand_works_out() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let rows = bundles.file("a.csv", ROWS);
    let found = report(&[&model, &rows]);
    assert_eq!(
        (&found["task"], &found["rows"]),
        (&json!("classification"), &json!(4))
    );
    assert_near(&found["metrics"]["accuracy"], 0.5);
    let loss = -(2.0 * 0.7f64.ln() + 0.2f64.ln() + 0.1f64.ln()) / 4.0;
    assert_near(&found["metrics"]["loss"], loss);
    // Of "animal" 2 of 4 predictions are right and both texts are found: an F1 of two thirds, and 0 of the others.
    assert_near(&found["metrics"]["macro_f1"], 2.0 / 9.0);
    assert_eq!(
        found["details"]["confusion"],
        json!([[0, 1, 0], [0, 2, 0], [0, 1, 0]])
    );
    let text = printed(&["evaluate", "--model", &model, "--input", &rows]);
    let expected = "\
truth \\ prediction  plant  animal  food
plant               0      1       0
animal              0      2       0
food                0      1       0
";
    assert!(text.ends_with(expected), "{text}");
    let of_class = "animal  0.5000     1.0000  0.6667  2\n";
    assert!(
        text.contains("class   precision  recall  f1      support\n") && text.contains(of_class),
        "{text}"
    );
    assert!(
        text.starts_with(&format!("classification: 4 rows of {rows}\n\nloss ")),
        "{text}"
    );
}

#[test]
fn a_report_is_written_once() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let rows = bundles.file("a.csv", ROWS);
    let folder = bundles.at("report");
    let args = [model.as_str(), &rows, "--output", &folder];
    let found = report(&args);
    let read = |name: &str| fs::read_to_string(bundles.path("report").join(name)).unwrap();
    let written: Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(written, found);
    assert_eq!(
        read("confusion.csv"),
        "truth \\ prediction,plant,animal,food\nplant,0,1,0\nanimal,0,2,0\nfood,0,1,0\n"
    );
    let per_class = read("per_class.csv");
    assert!(
        per_class.starts_with("class,precision,recall,f1,support\nplant,0,0,0,1\nanimal,0.5,1,"),
        "{per_class}"
    );
    let rows_of = read("predictions.jsonl");
    let rows_of: Vec<Value> = rows_of
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows_of.len(), 4);
    assert_eq!(rows_of[1]["place"], format!("{rows}:3"));
    assert_eq!(rows_of[2]["target"], json!(["plant"]));
    assert_eq!(rows_of[2]["text"], "a tool");
    assert_eq!(rows_of[2]["classes"][0]["name"], "animal");
    let message = refused(&[&["evaluate"], &args[..]].concat());
    assert!(message.contains("exists; --force replaces it"), "{message}");
    printed(&[&["evaluate"], &args[..], &["--force"]].concat());
}

#[test]
fn columns_are_named_as_in_a_recipe() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let rows = bundles.file("a.csv", "gloss,kind\na bird,animal\na tool,food\n");
    let set = [
        "--set",
        "data.text=gloss",
        "--set",
        "data.label_column=kind",
    ];
    assert_near(
        &report(&[&[model.as_str(), &rows], &set[..]].concat())["metrics"]["accuracy"],
        0.5,
    );
    let message = refused(&["evaluate", &model, &rows]);
    assert!(message.contains("\"text\" is missing"), "{message}");
    let message = refused(&["evaluate", &model, &rows, "--set", "training.steps=3"]);
    assert!(
        message.contains("--set training.steps=3: is no key here"),
        "{message}"
    );
    // A run's recipe says how its rows are read.
    fs::create_dir(bundles.path("run")).unwrap();
    bundles.text_classifier("run/model");
    bundles.file(
        "run/recipe.toml",
        "task = \"text-classification\"\n[data]\ntext = \"gloss\"\nlabel_column = \"kind\"\n",
    );
    assert_near(
        &report(&[&bundles.at("run"), &rows])["metrics"]["accuracy"],
        0.5,
    );
}

#[test]
fn rows_that_cannot_be_judged_are_named() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let unknown = bundles.file("u.csv", "text,label\na bird,animal\na car,vehicle\n");
    let message = refused(&["evaluate", &model, &unknown]);
    assert_eq!(
        message,
        format!("{unknown}:3: \"vehicle\" is none of the model's 3 classes: plant, animal, food")
    );
    let empty = bundles.file("e.csv", "text,label\na bird,animal\n,food\n");
    let message = refused(&["evaluate", &model, &empty]);
    assert!(
        message.contains(&format!("{empty}:3")) && message.contains("is empty"),
        "{message}"
    );
    let skip = ["--set", "data.bad_rows=skip"];
    assert_eq!(
        report(&[&[model.as_str(), &empty], &skip[..]].concat())["rows"],
        1
    );
    let missing = bundles.at("no.csv");
    assert!(refused(&["evaluate", &model, &missing]).contains("no such file"));
    assert!(refused(&["evaluate", &model]).contains("no labelled rows are named"));
    let lines = bundles.file("a.txt", "a bird\n");
    refused(&["evaluate", &model, &lines]);
    let masked_lm = bundles.masked_lm("masked");
    let message = refused(&["evaluate", &masked_lm, &unknown]);
    assert!(message.ends_with("apps fill-mask is for it"), "{message}");
}

#[test]
fn several_labels_and_values_have_figures_of_their_own() {
    let bundles = Bundles::new();
    let ln3 = 3f32.ln();
    // Probabilities of 1/2, 3/4 and 1/4.
    let model = bundles.text_classifier_with("bundle", &[0.0, ln3, -ln3]);
    edit_config(&model, |config| {
        config["problem_type"] = "multi_label_classification".into()
    });
    let rows = bundles.file(
        "l.csv",
        "text,labels\na bird,animal\na tool,plant;animal\niron,\n",
    );
    let found = report(&[&model, &rows, "--threshold", "0.6"]);
    // "animal" is said of all three, and true of two; "plant" of none, and true of one.
    assert_near(&found["metrics"]["micro_precision"], 2.0 / 3.0);
    assert_near(&found["metrics"]["micro_recall"], 2.0 / 3.0);
    assert_near(&found["metrics"]["subset_accuracy"], 1.0 / 3.0);
    // Of the first row: ln 2 + ln(4/3) + ln(4/3); and so on.
    let (half, likely, unlikely) = (2f64.ln(), (4.0 / 3.0f64).ln(), 4f64.ln());
    let loss = (3.0 * half + 2.0 * likely + unlikely + 3.0 * likely) / 9.0;
    assert_near(&found["metrics"]["loss"], loss);
    assert_eq!(found["details"]["by_class"][1]["support"], 2);
    let value = bundles.text_classifier_with("value", &[2.0]);
    edit_config(&value, |config| {
        config["problem_type"] = "regression".into();
        config["id2label"] = json!({"0": "value"});
        config["label2id"] = json!({"value": 0});
    });
    let rows = bundles.file("v.csv", "text,score\na bird,1\na tool,5\n");
    let found = report(&[&value, &rows]);
    assert_near(&found["metrics"]["mae"], 2.0);
    assert_near(&found["metrics"]["rmse"], 5f64.sqrt());
}

#[test]
fn masks_and_boxes_are_judged() {
    let bundles = Bundles::new();
    let folder = bundles.path("data");
    for name in ["images", "masks"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    for number in 0..3_u8 {
        let name = format!("{number}.png");
        let image = GrayImage::from_fn(6, 4, |x, y| Luma([x as u8 * 30 + y as u8 * 9 + number]));
        image.save(folder.join("images").join(&name)).unwrap();
        let mask = GrayImage::from_fn(6, 4, |x, _| Luma([u8::from(x > 2) * number]));
        mask.save(folder.join("masks").join(&name)).unwrap();
    }
    let data = folder.display().to_string();
    let model = bundles.segmenter("masks");
    let output = bundles.at("report");
    let found = report(&[&model, &data, "--output", &output]);
    assert_eq!(found["rows"], 3);
    let confusion = found["details"]["confusion"].as_array().unwrap();
    let counts = confusion.iter().flat_map(|row| row.as_array().unwrap());
    let counts: Vec<u64> = counts.map(|count| count.as_u64().unwrap()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 3 * 24);
    let right = [0, 4, 8].map(|at| counts[at]).iter().sum::<u64>();
    assert_near(&found["metrics"]["pixel_accuracy"], right as f64 / 72.0);
    let rows = fs::read_to_string(bundles.path("report/predictions.jsonl")).unwrap();
    let last: Value = serde_json::from_str(rows.lines().last().unwrap()).unwrap();
    assert_eq!(
        last["target"],
        json!([{"name": "plant", "pixels": 12}, {"name": "food", "pixels": 12}])
    );
    GrayImage::from_pixel(6, 4, Luma([7]))
        .save(folder.join("masks/1.png"))
        .unwrap();
    let message = refused(&["evaluate", &model, &data]);
    assert!(
        message.contains("1.png: holds class 7, and the model has 3 classes"),
        "{message}"
    );
    let detector = bundles.detector("boxes");
    let coco = json!({
        "images": [{"id": 1, "file_name": "data/images/0.png", "width": 6, "height": 4}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "animal"}],
    });
    let coco = bundles.file("boxes.json", coco.to_string());
    let found = report(&[&detector, &coco]);
    let map = found["metrics"]["map"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&map) && found["rows"] == 1, "{found}");
    let message = refused(&["evaluate", &detector, &data]);
    assert!(
        message.contains("the images do not have boxes"),
        "{message}"
    );
    let classes = bundles.image_classifier("classes");
    let message = refused(&["evaluate", &classes, &coco]);
    assert!(
        message.contains("the images do not have a label each"),
        "{message}"
    );
}

#[test]
fn of_files_named_as_splits_the_test_is_judged() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    fs::create_dir(bundles.path("data")).unwrap();
    bundles.file("data/train.csv", ROWS);
    bundles.file("data/test.csv", "text,label\na bird,animal\n");
    let output = apps(&["evaluate", &model, &bundles.at("data"), "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["rows"], 1);
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.contains("test is judged"), "{note}");
    let rows = bundles.file("a.csv", ROWS);
    let message = refused(&["evaluate", &model, &rows, "--threshold", "0.5"]);
    assert!(message.ends_with("has no use for --threshold"), "{message}");
}

/// Fine-tunes for a few steps in a folder; the figures of its own test.
fn tuned(folder: &Path, task: &str, settings: &[String]) -> Value {
    let entries = finetune::TRAINER.entries.iter();
    let entry = entries.clone().find(|entry| entry.name == task).unwrap();
    let built_in: Vec<_> = entries.map(|entry| (entry.name, entry.recipe)).collect();
    let mut draft = Draft::open(task, finetune::TRAINER.key, &built_in).unwrap();
    draft.set_all(settings.iter().map(String::as_str)).unwrap();
    draft.use_all_of_own_data();
    let run = folder.join(task);
    (entry.run)(draft, Options::new(&run, BackendName::Flex)).unwrap();
    let summary = fs::read(run.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    summary["test"]["metrics"].clone()
}

/// Evaluates the run of a task; its figures are those of its own test, but for these.
fn assert_same(folder: &Path, task: &str, settings: &[&str], test: &Path, without: &[&str]) {
    let source = |key: &str, path: &Path| format!("data.{key}=[{:?}]", path.display().to_string());
    let train = test.with_file_name(
        test.file_name()
            .unwrap()
            .to_string_lossy()
            .replace("test", "train"),
    );
    let mut all = vec![source("source", &train), source("test_source", test)];
    all.extend(settings.iter().map(|setting| setting.to_string()));
    let own = tuned(folder, task, &all);
    let run = folder.join(task).display().to_string();
    let found = report(&[&run, &test.display().to_string(), "--batch-size", "5"]);
    let (own, ours) = (
        own.as_object().unwrap(),
        found["metrics"].as_object().unwrap(),
    );
    assert!(own.len() > without.len(), "{task}: {own:?}");
    for (name, own) in own
        .iter()
        .filter(|(name, _)| !without.contains(&name.as_str()))
    {
        let Some(own) = own.as_f64() else {
            assert!(ours[name].is_null(), "{task}: {name} {}", ours[name]);
            continue;
        };
        let ours = ours
            .get(name)
            .unwrap_or_else(|| panic!("{task}: no {name} in {ours:?}"));
        let ours = ours.as_f64().unwrap();
        // Batches of other sizes: sums of other orders.
        assert!(
            (ours - own).abs() <= 1e-4 * own.abs().max(1.0),
            "{task}: {name} {ours}, not {own}"
        );
    }
}

const TEXTS: [&str; 12] = [
    "from=scratch",
    "data.valid=0.2",
    "tokenizer.max_length=24",
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "model.intermediate_size=16",
    "model.max_position_embeddings=24",
    "optimizer.lr=0.01",
    "training.steps=12",
    "training.batch_size=16",
    "training.log_every=6",
    "training.validate_every=6",
];

const ANIMALS: [&str; 4] = ["bird", "cat", "horse", "fish"];
const TOOLS: [&str; 4] = ["knife", "hammer", "needle", "spoon"];

/// Labelled rows of all tasks on texts; those of one number are of one split.
fn write_texts(folder: &Path, split: &str, numbers: std::ops::Range<usize>) {
    let mut classes = String::from("text,label\n");
    let mut pairs = String::from("first,second,label\n");
    let mut labels = String::from("text,labels\n");
    let mut values = String::from("text,score\n");
    let [mut tags, mut questions, mut choices] = [(); 3].map(|()| String::new());
    for number in numbers {
        let (animal, tool) = (ANIMALS[number % 4], TOOLS[number / 4 % 4]);
        let is_odd = number % 2 == 1;
        let kind = if is_odd { "alive" } else { "made" };
        let one = if is_odd { animal } else { tool };
        let more = "of the old ".repeat(1 + number % 3);
        writeln!(classes, "{number} {more}{one},{kind}").unwrap();
        writeln!(pairs, "a thing {more}{number},the {one} here,{kind}").unwrap();
        let names = ["animal", "tool", "animal;tool"][number % 3];
        writeln!(labels, "{number} {animal} {tool},{names}").unwrap();
        writeln!(values, "{number} {more}{one},{}", number * 3 % 17).unwrap();
        writeln!(
            tags,
            "the O\nold B-THING\n{tool} I-THING\nsaw O\n{number} O\n{animal} B-BEAST\n"
        )
        .unwrap();
        let context = format!(
            "{number}: {more}the {animal} took the {tool}, {}",
            "and so on ".repeat(number % 4 * 4)
        );
        let answers = if number % 5 == 0 {
            json!({"text": [], "answer_start": []})
        } else {
            json!({"text": [tool], "answer_start": [context.find(tool).unwrap()]})
        };
        let row = json!({"context": context, "question": "what did it take", "answers": answers});
        writeln!(questions, "{row}").unwrap();
        let mut of_both = vec![animal, tool];
        if number % 7 == 0 {
            of_both.push(TOOLS[(number + 1) % 4]);
        }
        let row = json!({"question": format!("{number} which is alive"), "choices": of_both, "answer": 0});
        writeln!(choices, "{row}").unwrap();
    }
    for (name, rows) in [
        ("classes.csv", classes),
        ("pairs.csv", pairs),
        ("labels.csv", labels),
        ("values.csv", values),
        ("tags.conll", tags),
        ("questions.jsonl", questions),
        ("choices.jsonl", choices),
    ] {
        fs::write(folder.join(format!("{split}-{name}")), rows).unwrap();
    }
}

#[test]
fn texts_have_the_figures_of_finetunes_own_test() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path(), "train", 0..80);
    write_texts(folder.path(), "test", 80..103);
    for (task, file, without) in [
        ("text-classification", "classes.csv", &[][..]),
        ("pair-classification", "pairs.csv", &[]),
        ("text-labels", "labels.csv", &[]),
        ("text-regression", "values.csv", &[]),
        ("token-classification", "tags.conll", &[]),
        ("question-answering", "questions.jsonl", &[]),
        ("multiple-choice", "choices.jsonl", &[]),
    ] {
        let test = folder.path().join(format!("test-{file}"));
        let more: &[&str] = match task {
            "question-answering" => &["answers.stride=4"],
            _ => &[],
        };
        assert_same(
            folder.path(),
            task,
            &[&TEXTS[..], more].concat(),
            &test,
            without,
        );
    }
}

#[test]
fn texts_that_are_written_have_the_figures_of_finetunes_own_test() {
    let folder = tempfile::tempdir().unwrap();
    for (split, numbers) in [("train", 0..60), ("test", 60..75)] {
        let mut rows = String::from("text,target\n");
        for number in numbers {
            let (animal, tool) = (ANIMALS[number % 4], TOOLS[number / 4 % 4]);
            writeln!(
                rows,
                "the {animal} took the {tool} {number},the {tool} {number}"
            )
            .unwrap();
        }
        fs::write(folder.path().join(format!("{split}.csv")), rows).unwrap();
    }
    let settings = [
        "data.text=text",
        "data.text_pair=target",
        "data.valid=0.2",
        "tokenizer.max_length=16",
        "tokenizer.vocab_size=300",
        "model.d_model=16",
        "model.encoder_layers=1",
        "model.decoder_layers=1",
        "model.encoder_ffn_dim=16",
        "model.decoder_ffn_dim=16",
        "model.encoder_attention_heads=2",
        "model.decoder_attention_heads=2",
        "model.max_position_embeddings=16",
        "search.beams=2",
        "training.steps=12",
        "training.batch_size=16",
        "training.log_every=6",
        "training.validate_every=6",
    ];
    for task in ["translation", "summarization"] {
        assert_same(
            folder.path(),
            task,
            &settings,
            &folder.path().join("test.csv"),
            &[],
        );
    }
}

#[test]
fn images_have_the_figures_of_finetunes_own_test() {
    let folder = tempfile::tempdir().unwrap();
    for (split, n, seed) in [("train", 20, 1), ("test", 7, 2)] {
        let place = folder.path().join(split);
        shapes::write(&place, n, seed);
        // The same images with a class, with several and with a value each.
        let (mut classes, mut labels, mut values) = (
            String::from("file_name,label\n"),
            String::from("file_name,labels\n"),
            String::from("file_name,value\n"),
        );
        for number in 0..n {
            let name = format!("{split}/images/{number:05}.png");
            let class = shapes::CLASSES[number % 3];
            writeln!(classes, "{name},{class}").unwrap();
            let more = if number % 2 == 0 { ";round" } else { "" };
            writeln!(labels, "{name},{class}{more}").unwrap();
            writeln!(values, "{name},{}", number * 7 % 5).unwrap();
        }
        for (name, table) in [("classes", classes), ("labels", labels), ("values", values)] {
            fs::write(folder.path().join(format!("{split}-{name}.csv")), table).unwrap();
        }
    }
    let settings = [
        "data.size=32",
        "data.valid=0.2",
        "model.family=hearth_cnn",
        "model.hidden_sizes=[4, 8]",
        "optimizer.lr=0.01",
        "training.steps=8",
        "training.batch_size=8",
        "training.log_every=4",
        "training.validate_every=4",
    ];
    for (task, file, without) in [
        ("image-classification", "test-classes.csv", &[][..]),
        ("image-labels", "test-labels.csv", &[]),
        ("image-regression", "test-values.csv", &[]),
        ("image-segmentation", "test", &[]),
        ("object-detection", "test/annotations.json", &[]),
    ] {
        let test = folder.path().join(file);
        if task == "object-detection" {
            // Splits differ by their folders here, and not by their names.
            let train = folder.path().join("train/annotations.json");
            let target = folder.path().join("train-boxes.json");
            let text = fs::read_to_string(train)
                .unwrap()
                .replace("\"images/", "\"train/images/");
            fs::write(target, text).unwrap();
            let text = fs::read_to_string(&test)
                .unwrap()
                .replace("\"images/", "\"test/images/");
            let test = folder.path().join("test-boxes.json");
            fs::write(&test, text).unwrap();
            assert_same(folder.path(), task, &settings, &test, without);
            continue;
        }
        assert_same(folder.path(), task, &settings, &test, without);
    }
}
