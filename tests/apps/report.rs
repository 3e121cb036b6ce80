//! A run as one page: well-formed, whole by itself, and true to what the run has recorded.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

use crate::trained::{CLASSES, MARKUP, Runs};

/// A page that must be well-formed and need nothing but itself.
fn checked<R>(page: &str, look: impl FnOnce(&Document) -> R) -> R {
    let options = ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    let page = Document::parse_with_options(page, options).unwrap();
    let mut ids = Vec::new();
    for node in page.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        assert!(
            !["script", "link", "iframe", "object", "embed"].contains(&name),
            "{name}"
        );
        for attribute in node.attributes() {
            let value = attribute.value();
            match attribute.name() {
                "src" => assert!(value.starts_with("data:image/png;base64,"), "{value}"),
                "href" => assert!(value.starts_with('#'), "{value}"),
                "id" => ids.push(value.to_string()),
                name => assert!(!name.starts_with("on"), "{name}"),
            }
        }
        match name {
            "img" => assert!(node.attribute("alt").is_some_and(|alt| !alt.is_empty())),
            "svg" => assert!(
                node.attribute("aria-label")
                    .is_some_and(|what| !what.is_empty())
            ),
            "table" => assert_eq!(
                node.first_element_child().unwrap().tag_name().name(),
                "caption"
            ),
            "style" => assert!(!node.text().unwrap().contains("url(")),
            _ => {}
        }
    }
    let links = page.descendants().filter_map(|node| node.attribute("href"));
    for link in links {
        assert!(ids.iter().any(|id| link[1..] == *id), "{link}");
    }
    look(&page)
}

/// All text below a node.
fn text(node: Node) -> String {
    let parts = node.descendants().filter(Node::is_text);
    parts.map(|part| part.text().unwrap()).collect()
}

/// Cells of the table whose caption begins so, a row each, its header first.
fn table(page: &Document, caption: &str) -> Vec<Vec<String>> {
    let found = page
        .descendants()
        .find(|node| node.has_tag_name("caption") && text(*node).starts_with(caption));
    let table = found
        .unwrap_or_else(|| panic!("no table {caption:?}"))
        .parent()
        .unwrap();
    let cells = |row: Node| row.children().filter(Node::is_element).map(text).collect();
    let rows = table.descendants().filter(|node| node.has_tag_name("tr"));
    rows.map(cells).collect()
}

/// The row of a table that has this name.
fn row(table: &[Vec<String>], name: &str) -> Vec<String> {
    let row = table.iter().find(|row| row[0] == name);
    row.unwrap_or_else(|| panic!("no row {name:?} in {table:?}"))
        .clone()
}

fn headings(page: &Document) -> Vec<String> {
    page.descendants()
        .filter(|node| node.has_tag_name("h2"))
        .map(text)
        .collect()
}

#[test]
fn a_run_becomes_one_page_that_says_what_it_recorded() {
    let runs = Runs::new();
    runs.classifier("run", &[]);
    let printed = runs.printed(&["report", "run"]);
    assert_eq!(printed, "wrote run/report.html\n");
    let (page, summary) = (runs.read("run/report.html"), runs.summary("run"));
    assert!(!page.contains("<script"), "a label became markup");
    checked(&page, |page| {
        let expected = [
            "What was trained",
            "Figures",
            "Curves",
            "Details of the last split that was judged",
            "Recipe",
        ];
        assert_eq!(headings(page), expected);
        let facts = table(page, "The run");
        assert_eq!(row(&facts, "task or objective")[1], "text-classification");
        assert_eq!(row(&facts, "seed")[1], "42");
        assert_eq!(row(&facts, "steps")[1], "20");
        assert!(row(&facts, "model")[1].contains("BertForSequenceClassification"));
        assert!(row(&facts, "classes")[1].contains(MARKUP));
        // Figures are those of the summary.
        let figures = table(page, "Figures by split");
        for (name, value) in summary["test"]["metrics"].as_object().unwrap() {
            let shown = row(&figures, name);
            let expected = train::metrics::short(value.as_f64().unwrap());
            assert_eq!(shown.last(), Some(&expected), "{name}");
        }
        // So is the confusion matrix, in the order of the classes.
        let confusion = table(page, "Confusion matrix of the test split");
        assert_eq!(confusion[0][1..], CLASSES);
        let recorded: Vec<Vec<u64>> =
            serde_json::from_value(summary["test"]["details"]["confusion"].clone()).unwrap();
        assert!(recorded.iter().flatten().sum::<u64>() > 20, "{recorded:?}");
        for ((shown, counts), class) in confusion[1..].iter().zip(&recorded).zip(CLASSES) {
            let counts = counts.iter().map(ToString::to_string);
            let expected: Vec<String> = std::iter::once(class.to_string()).chain(counts).collect();
            assert_eq!(*shown, expected);
        }
        let by_class = table(page, "Figures by class: the test split");
        let names: Vec<&String> = by_class[1..].iter().map(|row| &row[0]).collect();
        assert_eq!(names, CLASSES);
        // A drawing each of what was logged.
        let labels = page.descendants().filter(|node| node.has_tag_name("svg"));
        let labels: Vec<&str> = labels
            .map(|svg| svg.attribute("aria-label").unwrap())
            .collect();
        for what in [
            "loss",
            "accuracy",
            "learning rate",
            "tokens a second",
            "Reliability",
        ] {
            assert!(
                labels.iter().any(|label| label.starts_with(what)),
                "{what}: {labels:?}"
            );
        }
        let recipe = page
            .descendants()
            .find(|node| node.has_tag_name("pre"))
            .unwrap();
        assert_eq!(text(recipe), runs.read("run/recipe.toml").trim_end());
    });
    // The same run, the same page.
    let again = ["report", "run", "--output", "again.html"];
    assert_eq!(runs.printed(&again), "wrote again.html\n");
    assert_eq!(runs.read("again.html"), page);
}

#[test]
fn a_run_without_an_end_is_reported_from_its_log() {
    let runs = Runs::new();
    runs.classifier("run", &[]);
    // Two lines, a validation, three lines; the next is half there.
    let log = runs.read("run/metrics.jsonl");
    let validation = log
        .lines()
        .position(|line| line.contains("\"split\":\"valid\""))
        .unwrap();
    let event: Value = serde_json::from_str(log.lines().nth(validation).unwrap()).unwrap();
    runs.kill("run", validation + 2);
    runs.printed(&["report", "run"]);
    checked(&runs.read("run/report.html"), |page| {
        let lead = page
            .descendants()
            .find(|node| node.has_tag_name("header"))
            .unwrap();
        assert!(
            text(lead).contains("unfinished: still training, or killed"),
            "{}",
            text(lead)
        );
        let facts = table(page, "The run");
        assert_eq!(row(&facts, "parameters")[1], "not recorded");
        assert!(row(&facts, "model")[1].ends_with("there is no bundle"));
        let figures = table(page, "Figures by split");
        assert_eq!(figures[0].last().unwrap(), "last validation");
        let accuracy = event["metrics"]["accuracy"].as_f64().unwrap();
        assert_eq!(
            row(&figures, "accuracy")[2],
            train::metrics::short(accuracy)
        );
        // The names of the classes were in the bundle.
        let confusion = table(page, "Confusion matrix of the validation at step 5");
        assert_eq!(confusion[0], ["truth", "class 0", "class 1", "class 2"]);
        assert!(page.descendants().any(|node| node.has_tag_name("svg")));
    });
    // Killed before its first line.
    fs::write(runs.bench.path("run/metrics.jsonl"), "").unwrap();
    runs.printed(&["report", "run"]);
    checked(&runs.read("run/report.html"), |page| {
        assert!(!page.descendants().any(|node| node.has_tag_name("svg")));
        assert!(text(page.root()).contains("No validation has been recorded."));
    });
}

#[test]
fn what_is_no_whole_run_is_refused_in_one_sentence() {
    let runs = Runs::new();
    let recipe = "task = \"text-classification\"\nseed = 1\n";
    let event = "{\"step\": 1, \"split\": \"train\", \"metrics\": {\"loss\": 1.0}}\n";
    runs.bench.write("whole/recipe.toml", recipe);
    runs.bench.write("whole/metrics.jsonl", event);
    runs.bench.write("empty/a.txt", "");
    runs.bench.write("half/recipe.toml", recipe);
    runs.bench.write("broken/recipe.toml", recipe);
    runs.bench.write(
        "broken/metrics.jsonl",
        format!("{event}{{\"step\":\n{event}"),
    );
    runs.bench.write("no-toml/recipe.toml", "seed = = 1\n");
    runs.bench.write("no-toml/metrics.jsonl", event);
    runs.bench.write("no-json/recipe.toml", recipe);
    runs.bench.write("no-json/metrics.jsonl", event);
    runs.bench.write("no-json/summary.json", "{");
    for (args, words) in [
        (&["missing"][..], &["missing: no such run directory"][..]),
        (
            &["empty"],
            &["empty: holds no run", "recipe.toml is missing"],
        ),
        (
            &["half"],
            &["half: has recorded nothing", "metrics.jsonl is missing"],
        ),
        (&["broken"], &["broken/metrics.jsonl:2"]),
        (&["no-toml"], &["no-toml/recipe.toml", "not valid TOML"]),
        (&["no-json"], &["no-json/summary.json"]),
        // One of several.
        (&["whole", "half"], &["half: has recorded nothing"]),
        // No page takes the place of a log.
        (
            &["whole", "--output", "whole/metrics.jsonl"],
            &["a page is HTML"],
        ),
        (
            &["whole", "--output", "none/a.html"],
            &["its directory does not exist"],
        ),
        (
            &["whole", "--evaluation", "none"],
            &["none: no such directory"],
        ),
        (
            &["whole", "--evaluation", "empty"],
            &["predictions.jsonl is missing"],
        ),
    ] {
        runs.refused(&[&["report"], args].concat(), words);
    }
    runs.printed(&["report", "whole", "--output", "a.html"]);
    checked(&runs.read("a.html"), |page| {
        assert_eq!(row(&table(page, "The run"), "seed")[1], "1");
    });
}

#[test]
fn other_runs_stand_beside_it_with_what_differs() {
    let runs = Runs::new();
    runs.classifier("one", &["optimizer.lr=0.01"]);
    runs.classifier("other", &["optimizer.lr=0.002", "seed=7"]);
    runs.printed(&["report", "one", "other", "--output", "both.html"]);
    checked(&runs.read("both.html"), |page| {
        let differing = table(page, "Keys in which the recipes differ");
        assert_eq!(differing[0], ["differs", "one", "other"]);
        assert_eq!(
            row(&differing, "optimizer.lr"),
            ["optimizer.lr", "0.01", "0.002"]
        );
        assert_eq!(row(&differing, "seed"), ["seed", "42", "7"]);
        let figures = table(page, "Figures of each run");
        assert_eq!(figures[0], ["run", "one", "other"]);
        let accuracy = |run: &str| {
            let value = runs.summary(run)["test"]["metrics"]["accuracy"].as_f64();
            train::metrics::short(value.unwrap())
        };
        let expected = [
            "test accuracy".to_string(),
            accuracy("one"),
            accuracy("other"),
        ];
        assert_eq!(row(&figures, "test accuracy"), expected);
        let mut drawings = page.descendants().filter(|node| node.has_tag_name("svg"));
        let overlay = drawings.find(|svg| {
            let label = svg.attribute("aria-label").unwrap();
            label.starts_with("accuracy of the validation (higher is better)")
        });
        let names = text(overlay.unwrap());
        assert!(names.contains("one") && names.contains("other"), "{names}");
    });
    // The same run twice has nothing to tell apart.
    runs.printed(&["report", "one", "one", "--output", "same.html"]);
    checked(&runs.read("same.html"), |page| {
        assert!(text(page.root()).contains("The recipes are the same."));
    });
}

#[test]
fn drawings_of_a_run_are_inside_of_the_page() {
    let runs = Runs::new();
    runs.autoencoder("run");
    runs.bench.write("run/broken.png", "no image");
    runs.printed(&["report", "run"]);
    let drawing = fs::read(runs.bench.path("run/reconstructions.png")).unwrap();
    checked(&runs.read("run/report.html"), |page| {
        let mut images = page.descendants().filter(|node| node.has_tag_name("img"));
        let image = images.next().unwrap();
        let data = image.attribute("src").unwrap().split_once(',').unwrap().1;
        assert!(STANDARD.decode(data).unwrap() == drawing);
        let size = image::load_from_memory(&drawing).unwrap();
        assert_eq!(
            image.attribute("width"),
            Some(size.width().to_string().as_str())
        );
        assert!(
            image
                .attribute("alt")
                .unwrap()
                .starts_with("reconstructions")
        );
        assert!(images.next().is_none());
        assert!(text(page.root()).contains("broken.png is no PNG and is left out."));
    });
}

/// Ten answers: seven right, three wrong with 0.9, 0.4 and 0.35.
const PREDICTIONS: &str = r#"{"text": "a wren", "classes": [{"name": "animal", "probability": 0.95}], "target": ["animal"]}
{"text": "a cat", "classes": [{"name": "animal", "probability": 0.95}], "target": ["animal"]}
{"text": "an <b>axe</b> & a saw", "classes": [{"name": "<script>", "probability": 0.9}], "target": ["tool"]}
{"text": "an axe", "classes": [{"name": "animal", "probability": 0.35}], "target": ["tool"]}
{"text": "a saw", "classes": [{"name": "animal", "probability": 0.4}], "target": ["tool"]}
{"text": "a file", "classes": [{"name": "tool", "probability": 0.4}], "target": ["tool"]}
{"text": "a plane", "classes": [{"name": "tool", "probability": 1.0}], "target": ["tool"]}
{"text": "a vice", "classes": [{"name": "tool", "probability": 1.0}], "target": ["tool"]}
{"text": "x", "classes": [{"name": "<script>", "probability": 0.95}], "target": ["<script>"]}
{"text": "y", "classes": [{"name": "<script>", "probability": 0.95}], "target": ["<script>"]}
"#;

/// A run with nothing but a line.
fn small_run(runs: &Runs) {
    runs.bench.write(
        "run/recipe.toml",
        "task = \"text-classification\"\nseed = 1\n",
    );
    runs.bench.write(
        "run/metrics.jsonl",
        "{\"step\": 1, \"split\": \"train\", \"metrics\": {\"loss\": 1.0}}\n",
    );
}

#[test]
fn an_evaluation_shows_its_worst_mistakes_and_how_sure_the_model_was() {
    let runs = Runs::new();
    small_run(&runs);
    runs.bench
        .write("evaluation/predictions.jsonl", PREDICTIONS);
    let args = ["report", "run", "--evaluation", "evaluation"];
    runs.printed(&args);
    let page = runs.read("run/report.html");
    assert!(
        !page.contains("<script") && !page.contains("<b>"),
        "a text became markup"
    );
    checked(&page, |page| {
        let figures = table(page, "Figures that follow from the predictions");
        assert_eq!(row(&figures, "accuracy")[1], "0.7000");
        let confusion = table(page, "Confusion matrix of the evaluation");
        assert_eq!(confusion[0][1..], ["<script>", "animal", "tool"]);
        assert_eq!(row(&confusion, "tool")[1..], ["1", "2", "3"]);
        let mistakes = table(page, "3 wrong answers, the most confident first");
        let expected = [
            ["an <b>axe</b> & a saw", "tool", "<script>", "0.900"],
            ["a saw", "tool", "animal", "0.400"],
            ["an axe", "tool", "animal", "0.350"],
        ];
        assert_eq!(mistakes[1..], expected);
        // 0.4 is in the bin from 6/15, 0.9 in that from 13/15, 0.95 in the last but one.
        let calibration = table(page, "Calibration of the evaluation");
        let expected = [
            ["0.333 to 0.400", "1", "0.350", "0.000"],
            ["0.400 to 0.467", "2", "0.400", "0.500"],
            ["0.867 to 0.933", "1", "0.900", "0.000"],
            ["0.933 to 1.000", "4", "0.950", "1.000"],
            ["exactly 1", "2", "1.000", "1.000"],
        ];
        assert_eq!(calibration[1..], expected);
    });
    // Figures of the report itself, where there is one.
    runs.bench.write(
        "evaluation/report.json",
        r#"{"metrics": {"accuracy": 0.25, "rows": 10, "of": "x"}}"#,
    );
    runs.printed(&args);
    checked(&runs.read("run/report.html"), |page| {
        let figures = table(page, "Figures of report.json");
        assert_eq!(figures[1..], [["accuracy", "0.2500"], ["rows", "10"]]);
    });
}

#[test]
fn an_image_that_was_mistaken_is_shown() {
    let runs = Runs::new();
    small_run(&runs);
    let image = image::GrayImage::from_pixel(200, 100, image::Luma([7]));
    image.save(runs.bench.path("a.png")).unwrap();
    let line = |place: &str| {
        let said = r#""classes": [{"name": "b", "probability": 0.5}], "target": ["a"]"#;
        format!("{{\"place\": \"{place}\", {said}}}\n")
    };
    let lines = line("a.png") + &line("missing.png");
    runs.bench.write("evaluation/predictions.jsonl", lines);
    runs.printed(&["report", "run", "--evaluation", "evaluation"]);
    checked(&runs.read("run/report.html"), |page| {
        let mut images = page.descendants().filter(|node| node.has_tag_name("img"));
        let image = images.next().unwrap();
        let size = (image.attribute("width"), image.attribute("height"));
        assert_eq!(
            (size, image.attribute("alt")),
            ((Some("96"), Some("48")), Some("a.png"))
        );
        assert!(images.next().is_none());
        let mistakes = table(page, "2 wrong answers");
        assert_eq!(mistakes[2], ["missing.png", "a", "b", "0.500"]);
    });
}

#[test]
fn predictions_that_are_none_of_a_class_are_refused_by_line() {
    let runs = Runs::new();
    small_run(&runs);
    let good = "{\"classes\": [{\"name\": \"a\", \"probability\": 0.5}], \"target\": [\"a\"]}\n";
    for (line, words) in [
        ("{\"target\": [\"a\"]}\n", "has no \"classes\""),
        (
            &good.replace("[\"a\"]", "[\"a\", \"b\"]"),
            "its \"target\" is not one class",
        ),
        (&good.replace("0.5", "1.5"), "not from 0 to 1"),
        (&good.replace("probability", "value"), "has no probability"),
        ("[]\n", "is no JSON object"),
        ("{\n", "EOF"),
    ] {
        runs.bench
            .write("evaluation/predictions.jsonl", format!("{good}{line}"));
        let args = ["report", "run", "--evaluation", "evaluation"];
        runs.refused(&args, &["evaluation/predictions.jsonl:2", words]);
    }
    runs.bench.write("evaluation/predictions.jsonl", "");
    let args = ["report", "run", "--evaluation", "evaluation"];
    runs.refused(&args, &["predictions.jsonl: holds no prediction"]);
}

/// The classes, one behind the other, as an evaluation of the tiny classifier finds them.
#[test]
fn an_evaluation_of_a_run_goes_into_its_report() {
    let runs = Runs::new();
    runs.classifier("run", &[]);
    let line = |n: usize| format!("{n} of the old axes,{}\n", CLASSES[n % 3]);
    let rows: String = (0..6).map(line).collect();
    runs.bench.write("test.csv", format!("text,label\n{rows}"));
    runs.printed(&["evaluate", "run", "test.csv", "--output", "judged"]);
    runs.printed(&["report", "run", "--evaluation", "judged"]);
    let found: Value = serde_json::from_str(&runs.read("judged/report.json")).unwrap();
    let accuracy = found["metrics"]["accuracy"].as_f64().unwrap();
    checked(&runs.read("run/report.html"), |page| {
        let figures = table(page, "Figures of report.json");
        assert_eq!(row(&figures, "accuracy")[1], format!("{accuracy:.4}"));
        let confusion = table(page, "Confusion matrix of the evaluation");
        assert_eq!(confusion[0][1..], CLASSES);
        let wrong = 6 - (accuracy * 6.0).round() as usize;
        let mistakes = table(page, &format!("{wrong} wrong answers"));
        assert_eq!(mistakes.len(), 1 + wrong);
        assert!(mistakes[1][0].contains("of the old axes"), "{mistakes:?}");
    });
}
