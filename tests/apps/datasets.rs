//! Data sets before training: what they hold, their splits, their duplicates, what is wrong with them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use data::source::TextSource;
use data::{LabelledSplits, SplitShares, TextColumns, TextSet};
use serde_json::{Value, json};

use crate::bundles::{Bundles, apps, printed, refused, wordpiece};

const NIGHT: &str = "a small bird that sings at night in the woods of the north";
const NIGHT_SOUTH: &str = "a small bird that sings at night in the woods of the south";

/// 60 texts of three classes in a table with another column.
fn table() -> String {
    let label = |i: usize| ["animal", "tool", "plant"][i % 3];
    let row = |i: usize| format!("{i},\"text, number {i}\",{}\n", label(i));
    format!("id,text,label\n{}", (0..60).map(row).collect::<String>())
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn objects(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(object).collect()
}

/// Names in a folder, hidden ones too.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    entries.map(name).collect()
}

#[test]
fn bundled_sets_are_listed() {
    let text = printed(&["datasets", "list"]);
    assert!(
        text.contains("wordnet-nouns") && text.contains("82115"),
        "{text}"
    );
    assert!(
        text.contains("images, classes") && text.contains("public domain"),
        "{text}"
    );
    let sets = object(&printed(&["datasets", "list", "--json"]));
    let sets = sets.as_array().unwrap();
    assert_eq!(sets.len(), 13);
    assert!(
        sets.iter()
            .all(|set| set["packed_bytes"].as_u64().unwrap() > 10_000)
    );
}

#[test]
fn texts_are_described() {
    let bundles = Bundles::new();
    let rows = "text,label\na small bird,animal\nA small  bird,tool\na tool made of iron,tool\n,tool\na tool,tool\n";
    let source = bundles.file("a.csv", rows);
    let tokenizer = bundles.file("tokenizer.json", wordpiece().to_json().unwrap());
    let describe = ["datasets", "describe", &source, "--label-column", "label"];
    let with_tokens = ["--tokenizer", &tokenizer, "--max-length", "5"];
    let args = [&describe[..], &with_tokens, &["--json"]].concat();
    let found = object(&printed(&args));
    assert_eq!(found["rows"], 4);
    assert_eq!(found["left_out"][0]["name"], "\"text\" is empty");
    assert_eq!(
        found["left_out"][0]["places"],
        json!([format!("{source}:5")])
    );
    assert_eq!(found["labels"], json!([["tool", 3], ["animal", 1]]));
    let duplicates = json!({"texts": 1, "rows": 1, "conflicting": 1});
    assert_eq!(found["duplicates"], duplicates);
    // 6, 12, 13 and 19 letters.
    assert_eq!(found["characters"]["min"], 6);
    assert_eq!(found["characters"]["p50"], 12);
    assert_eq!(found["characters"]["max"], 19);
    let texts = [
        "a small bird",
        "A small  bird",
        "a tool made of iron",
        "a tool",
    ];
    let tokens = wordpiece().encode(&texts, 99).unwrap();
    assert_eq!(
        found["tokens"]["max"],
        tokens.iter().map(Vec::len).max().unwrap()
    );
    assert_eq!(found["cut"]["max_length"], 5);
    let text = printed(&describe);
    assert!(
        text.contains("rows        4") && text.contains("left out    1"),
        "{text}"
    );
    assert!(
        text.contains(&format!("  tool    3  {}", "#".repeat(40))),
        "{text}"
    );
    let svg = bundles.at("a.svg");
    printed(&[&describe[..], &["--plot", &svg]].concat());
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("animal"));
}

#[test]
fn pairs_tags_and_splits_are_described() {
    let bundles = Bundles::new();
    let pairs = "{\"a\": \"one\", \"b\": \"two\"}\n{\"a\": \"one\", \"b\": \"six\"}\n";
    let pairs = bundles.file("pairs.jsonl", pairs);
    let args = ["datasets", "describe", &pairs, "--column", "a,b", "--json"];
    let found = object(&printed(&args));
    assert_eq!(found["duplicates"]["rows"], 0, "{found}");
    assert_eq!(found["columns"][1]["name"], "b");
    let tagged = bundles.file("a.conll", "a\tDET\nbird\tNOUN\n\nit\tPRON\n");
    let columns = ["--column", "tokens", "--label-column", "tags", "--json"];
    let found = object(&printed(
        &[&["datasets", "describe", &tagged][..], &columns].concat(),
    ));
    assert_eq!(
        found["labels"],
        json!([["DET", 1], ["NOUN", 1], ["PRON", 1]])
    );
    fs::create_dir(bundles.path("given")).unwrap();
    bundles.file("given/train.txt", "one\ntwo\n");
    bundles.file("given/test.txt", "three\n");
    let found = printed(&["datasets", "describe", &bundles.at("given"), "--json"]);
    assert_eq!(object(&found)["splits"], json!([2, 0, 1]));
}

#[test]
fn bundled_sets_are_described_by_their_own_columns() {
    let found = object(&printed(&["datasets", "describe", "poems", "--json"]));
    assert_eq!(
        (&found["rows"], &found["left_out"]),
        (&json!(6300), &json!([]))
    );
    let found = object(&printed(&["datasets", "describe", "brown", "--json"]));
    assert_eq!(found["labels"].as_array().unwrap().len(), 12);
}

#[test]
fn images_are_described_and_drawn() {
    let bundles = Bundles::new();
    for (name, value) in [
        ("a/1.png", 0),
        ("a/2.png", 0),
        ("b/1.png", 255),
        ("b/2.png", 0),
    ] {
        bundles.png(&format!("photos/{name}"), value);
    }
    bundles.file("photos/b/3.png", "no image");
    let photos = bundles.at("photos");
    let drawn = bundles.at("photos.png");
    let found = printed(&["datasets", "describe", &photos, "--json", "--plot", &drawn]);
    let found = object(&found);
    assert_eq!(
        (&found["images"], &found["channels"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(found["sizes"], json!([[[4, 6], 4]]));
    assert_eq!(found["labels"], json!([["a", 2], ["b", 2]]));
    // Black, black, white, black.
    assert_eq!(found["mean"], json!([0.25]));
    assert_eq!(found["left_out"][0]["count"], 1);
    let duplicates = json!({"texts": 1, "rows": 2, "conflicting": 1});
    assert_eq!(found["duplicates"], duplicates);
    assert!(image::open(drawn).unwrap().width() > 100);
    let text = printed(&["datasets", "describe", "mnist"]);
    assert!(
        text.contains("images      10000") && text.contains("28x28 (10000)"),
        "{text}"
    );
}

#[test]
fn boxes_and_masks_are_drawn_into_images() {
    let bundles = Bundles::new();
    let folder = bundles.path("shapes");
    crate::shapes::write(&folder, 1, 1);
    let read = |name: &str| image::open(folder.join(name)).unwrap().to_rgb8();
    let (plain, mask) = (read("images/00000.png"), read("masks/00000.png"));
    let drawn = |source: &str, name: &str| {
        let png = bundles.at(name);
        printed(&[
            "datasets",
            "describe",
            source,
            "--images",
            "--picture",
            &png,
        ]);
        image::open(png).unwrap().to_rgb8()
    };
    // 64 pixels twice as large, in the middle of 144, 8 from the edge.
    let place = |x: u32, y: u32| (8 + 8 + 2 * x, 8 + 2 * y);
    let annotations = fs::read_to_string(folder.join("annotations.json")).unwrap();
    let annotations = object(&annotations);
    let boxes = drawn(&bundles.at("shapes/annotations.json"), "boxes.png");
    for label in annotations["annotations"].as_array().unwrap() {
        let side = |at: usize| label["bbox"][at].as_u64().unwrap() as u32;
        for x in side(0)..side(0) + side(2) {
            let (x, y) = place(x, side(1));
            let pixel = boxes.get_pixel(x, y).0;
            assert!(pixel == [0; 3] || pixel == [255; 3], "{pixel:?}");
        }
    }
    let tinted = drawn(&bundles.at("shapes"), "masks.png");
    for (x, y, class) in mask.enumerate_pixels() {
        let (left, top) = place(x, y);
        let is_same = tinted.get_pixel(left, top) == plain.get_pixel(x, y);
        // A tint may be the colour that was there already.
        assert!(is_same || class.0[0] > 0, "{x}, {y}");
    }
    let changed = mask.enumerate_pixels().filter(|(x, y, _)| {
        let (left, top) = place(*x, *y);
        tinted.get_pixel(left, top) != plain.get_pixel(*x, *y)
    });
    assert!(changed.count() > 50);
}

#[test]
fn rows_are_shown_as_people_read_them() {
    let bundles = Bundles::new();
    let long = "word ".repeat(100);
    let rows = format!("{{\"text\": \"{long}\", \"label\": \"x\"}}\n{{\"text\": \"b\\nb\"}}\n");
    let source = bundles.file("a.jsonl", rows);
    let peek = ["datasets", "peek", &source];
    let text = printed(&peek);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("{source}:1"));
    assert!(lines[1].starts_with("  text   word word"), "{text}");
    assert!(
        lines[1].ends_with("..") && lines[1].chars().count() <= 100,
        "{text}"
    );
    assert_eq!(lines[2], "  label  x");
    assert_eq!(lines[5], "  text  b b");
    assert!(printed(&[&peek[..], &["--full"]].concat()).contains(long.trim()));
    let first = printed(&[&peek[..], &["--rows", "1", "--json"]].concat());
    assert_eq!(object(first.trim())["label"], "x");
    let source = bundles.file("b.csv", table());
    let seeded = |seed: &str| {
        let args = ["datasets", "peek", &source, "--rows", "3", "--seed", seed];
        printed(&args)
    };
    assert_eq!(seeded("1"), seeded("1"));
    assert_ne!(seeded("1"), seeded("2"));
}

#[test]
fn images_are_drawn_with_their_classes() {
    let bundles = Bundles::new();
    let png = bundles.at("digits.png");
    let args = ["datasets", "peek", "mnist", "--rows", "9", "--output", &png];
    assert_eq!(printed(&args), format!("wrote {png}: 9 images of 10000\n"));
    // Three by three digits of 28 pixels, five times as large, and a line of text under each.
    let sheet = image::open(png).unwrap();
    assert!(
        sheet.width() >= 3 * 140 && sheet.height() > sheet.width(),
        "{sheet:?}"
    );
}

fn texts(rows: &[Value]) -> Vec<String> {
    rows.iter()
        .map(|row| row["text"].as_str().unwrap().into())
        .collect()
}

#[test]
fn splits_are_those_of_training_and_read_as_such() {
    let bundles = Bundles::new();
    let source = bundles.file("a.csv", table());
    let output = bundles.at("splits");
    let shares = ["--valid", "0.2", "--test", "0.1", "--seed", "3"];
    let split = ["datasets", "split", &source, "--label-column", "label"];
    let args = [&split[..], &["--output", &output], &shares].concat();
    let told = printed(&args);
    let columns = TextColumns {
        label: Some("label".into()),
        ..TextColumns::default()
    };
    let read = |path: &str| -> TextSet {
        let source = TextSource::in_splits(&[path.into()], &[], &[]).unwrap();
        source.collect(&columns).unwrap()
    };
    let (all, shares) = (
        read(&source),
        SplitShares {
            valid: 0.2,
            test: 0.1,
            seed: 3,
            labels: 0,
        },
    );
    let expected = LabelledSplits::new(&all, shares).unwrap();
    let (train, valid, test) = (expected.train, expected.valid, expected.test);
    let counts = [train.len(), valid.len(), test.len()];
    let [of_train, of_valid, of_test] = counts;
    assert_eq!(
        told,
        format!("{output}: rows: {of_train} train, {of_valid} valid, {of_test} test\n")
    );
    for (name, rows) in [("train", &train), ("valid", &valid), ("test", &test)] {
        let written = objects(&bundles.path(&format!("splits/{name}.jsonl")));
        let rows = rows.iter().map(|&row| all.examples[row].text.clone());
        assert_eq!(texts(&written), rows.collect::<Vec<_>>());
        assert!(
            written.iter().all(|row| row["id"].is_string()),
            "all columns"
        );
    }
    let again = LabelledSplits::new(&read(&output), shares).unwrap();
    let read_back = [again.train.len(), again.valid.len(), again.test.len()];
    assert_eq!(read_back, counts);
    printed(&[
        "datasets",
        "validate",
        &output,
        "--label-column",
        "label",
        "--near",
        "0",
    ]);
    assert!(refused(&args).ends_with("exists and is not empty; --output names a new folder"));
    assert_eq!(
        names(bundles.folder()),
        ["a.csv", "splits"].map(String::from).into()
    );
}

#[test]
fn each_class_may_have_its_share() {
    let bundles = Bundles::new();
    let source = bundles.file("a.csv", table());
    let output = bundles.at("splits");
    let args = [
        "datasets",
        "split",
        &source,
        "--label-column",
        "label",
        "--stratify",
    ];
    let told = printed(&[&args[..], &["--output", &output]].concat());
    // Of 20 rows a class 2 and 2.
    assert_eq!(told, format!("{output}: rows: 48 train, 6 valid, 6 test\n"));
    let message = refused(&[&args[..3], &["--stratify", "--output", &bundles.at("x")]].concat());
    assert_eq!(message, "--stratify needs --label-column");
}

#[test]
fn images_are_split_into_folders() {
    let bundles = Bundles::new();
    for i in 0..40 {
        bundles.png(&format!("photos/{}/{i}.png", ["a", "b"][i % 2]), i as u8);
    }
    let (photos, output) = (bundles.at("photos"), bundles.at("splits"));
    let args = [
        "datasets",
        "split",
        &photos,
        "--stratify",
        "--output",
        &output,
    ];
    let told = printed(&args);
    assert_eq!(
        told,
        format!("{output}: images: 32 train, 4 valid, 4 test\n")
    );
    let mut all = BTreeSet::new();
    for split in ["train", "valid", "test"] {
        for class in ["a", "b"] {
            all.extend(names(&bundles.path(&format!("splits/{split}/{class}"))));
        }
    }
    assert_eq!(all.len(), 40);
    let found = object(&printed(&["datasets", "describe", &output, "--json"]));
    assert_eq!(found["splits"], json!([32, 4, 4]));
}

#[test]
fn what_is_there_twice_is_dropped_and_reported() {
    let bundles = Bundles::new();
    let rows = [NIGHT, "another text", "ANOTHER  ｔext", NIGHT_SOUTH];
    let rows: Vec<String> = rows
        .iter()
        .map(|text| json!({"text": text, "n": 1}).to_string())
        .collect();
    let source = bundles.file("a.jsonl", rows.join("\n"));
    let (output, report) = (bundles.at("clean.jsonl"), bundles.at("dropped.jsonl"));
    let dedup = ["datasets", "dedup", &source, "--output", &output];
    let told = printed(&dedup);
    assert_eq!(
        told,
        format!("{output}: 3 of 4 rows, 1 equal ones dropped\n")
    );
    let message = refused(&dedup);
    assert_eq!(message, format!("{output}: exists; --force replaces it"));
    let near = ["--near", "0.8", "--report", &report, "--force"];
    let told = printed(&[&dedup[..], &near].concat());
    assert_eq!(
        told,
        format!("{output}: 2 of 4 rows, 1 equal and 1 nearly equal ones dropped\n")
    );
    let kept = objects(Path::new(&output));
    assert_eq!(texts(&kept), [NIGHT, "another text"]);
    assert_eq!(kept[0]["n"], 1);
    let dropped = objects(Path::new(&report));
    assert_eq!(dropped[0]["dropped"], format!("{source}:3"));
    assert_eq!(
        (&dropped[0]["kept"], &dropped[0]["equal"]),
        (&json!(format!("{source}:2")), &json!(true))
    );
    assert_eq!(
        (&dropped[1]["kept_text"], &dropped[1]["text"]),
        (&json!(NIGHT), &json!(NIGHT_SOUTH))
    );
    let likeness = dropped[1]["likeness"].as_f64().unwrap();
    assert!((0.8..1.0).contains(&likeness), "{likeness}");
}

/// What a validation prints that finds something.
fn findings(args: &[&str]) -> String {
    let output = apps(&[&["datasets", "validate"], args].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_wrong_is_found_and_tells_by_the_exit_code() {
    let bundles = Bundles::new();
    let train = format!("text,label\n{NIGHT},x\nsecond,x\nsecond,y\nthird,y\n,y\nfourth,X\n");
    let train = bundles.file("a.csv", train);
    let test = format!("text,label\nSECOND,x\n{NIGHT_SOUTH},x\nfifth,z\n");
    let test = bundles.file("b.csv", test);
    let args = [
        train.as_str(),
        "--test-source",
        &test,
        "--label-column",
        "label",
    ];
    let found = object(&findings(&[&args[..], &["--json"]].concat()));
    let kinds: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "bad-rows",
            "rare-labels",
            "untrained-labels",
            "alike-labels",
            "conflicting-labels",
            "leaks",
            "near-leaks"
        ]
    );
    let places = |at: usize| found["findings"][at]["places"].clone();
    assert_eq!(places(0), json!([format!("{train}:6")]));
    assert_eq!(places(2), json!([format!("\"z\": {test}:4")]));
    assert_eq!(places(5), json!([format!("{test}:2 as {train}:3")]));
    assert_eq!(
        places(6),
        json!([format!("{test}:3 as {train}:2, 0.83 alike")])
    );
    let text = findings(&args);
    assert!(
        text.ends_with(&format!("{train}: 8 rows, 7 findings\n")),
        "{text}"
    );
    let fine = bundles.file("c.csv", table());
    let text = printed(&["datasets", "validate", &fine, "--label-column", "label"]);
    assert_eq!(text, format!("{fine}: 60 rows, nothing is wrong\n"));
    let message = refused(&["datasets", "validate", &bundles.at("none.csv")]);
    assert!(message.ends_with("no such file"), "{message}");
}

#[test]
fn bytes_that_are_no_utf8_and_cut_texts_are_found() {
    let bundles = Bundles::new();
    let source = bundles.file("a.txt", b"one\ntw\xffo\n");
    let text = findings(&[&source]);
    assert!(
        text.starts_with("1 row left out: not valid UTF-8"),
        "{text}"
    );
    assert!(text.contains(&format!("  {source}:2\n")), "{text}");
    let tokenizer = bundles.file("tokenizer.json", wordpiece().to_json().unwrap());
    let source = bundles.file("b.txt", format!("a tool\n{}\n", "a tool ".repeat(9)));
    let tokens = ["--tokenizer", tokenizer.as_str(), "--max-length", "8"];
    let text = findings(&[&[source.as_str()][..], &tokens].concat());
    assert!(
        text.starts_with("1 text of more than twice 8 tokens"),
        "{text}"
    );
}

#[test]
fn images_in_two_splits_and_of_two_classes_are_found() {
    let bundles = Bundles::new();
    for (name, value) in [
        ("train/a/1.png", 1),
        ("train/a/2.png", 2),
        ("train/b/1.png", 1),
        ("train/b/2.png", 3),
        ("test/a/1.png", 2),
        ("test/b/1.png", 9),
        ("test/b/2.png", 8),
    ] {
        bundles.png(&format!("photos/{name}"), value);
    }
    let photos = bundles.at("photos");
    let found = object(&findings(&[&photos, "--json"]));
    let kinds: Vec<&Value> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert_eq!(kinds, ["conflicting-labels", "leaks"]);
    let places = found["findings"][1]["places"][0].as_str().unwrap();
    assert!(
        places.contains("test/a/1.png as ") && places.ends_with("train/a/2.png"),
        "{places}"
    );
}

#[test]
fn wrong_input_is_refused_before_anything_is_written() {
    let bundles = Bundles::new();
    let table = bundles.file("a.csv", table());
    bundles.png("photos/a.png", 1);
    bundles.png("photos/b.png", 2);
    let photos = bundles.at("photos");
    let before = names(bundles.folder());
    let at = |name: &str| bundles.at(name);
    let (out, clean) = (at("out"), at("clean.jsonl"));
    let cases: &[(&[&str], &str)] = &[
        (&["describe", "no.csv"], "no.csv: no such file"),
        (
            &["describe", &table, "--column", "body"],
            "column \"body\" is missing",
        ),
        (
            &["describe", &table, "--plot", &at("a.png")],
            "charts of texts are drawn as an SVG; name it so, or say --images where the rows are images",
        ),
        (
            &["describe", &photos, "--plot", &at("a.svg")],
            "images are drawn as a PNG; name it so",
        ),
        (
            &["describe", &table, "--tokenizer", &at("none")],
            "no such directory",
        ),
        (
            &["peek", &photos, "--output", &at("a.jpg")],
            "images are drawn as a PNG; name it so",
        ),
        (
            &["split", &table, "--output", &out, "--valid", "1.5"],
            "--valid is 1.5; it must be from 0 to below 1",
        ),
        (
            &[
                "split", &table, "--output", &out, "--valid", "0.6", "--test", "0.5",
            ],
            "leave nothing to train on",
        ),
        (
            &["split", &table, "--output", &at("none/out")],
            "its directory does not exist",
        ),
        (
            &["split", &photos, "--output", &at("photos/out")],
            "which is read",
        ),
        (
            &["split", &table, "--output", &table],
            "is a file; --output names a folder",
        ),
        (
            &["split", &photos, "--output", &out, "--stratify"],
            "--stratify needs images with classes",
        ),
        (
            &["split", &table, "--output", &out, "--valid", "0.0001"],
            "other shares are needed",
        ),
        (
            &["dedup", &table, "--output", &at("clean.csv")],
            "is written as JSONL; name it so",
        ),
        (
            &["dedup", &table, "--output", &clean, "--near", "2"],
            "--near is 2; it must be above 0 and at most 1",
        ),
        (
            &["dedup", &photos, "--output", &clean],
            "holds images, and dedup takes texts",
        ),
        (
            &["dedup", &table, "--output", &clean, "--report", &clean],
            "--output and --report name one file",
        ),
        (
            &["validate", &table, "--near", "-1"],
            "--near is -1; it must be above 0 and at most 1",
        ),
        (
            &["validate", &table, "--label-column", "stars"],
            "column \"stars\" is missing",
        ),
        (
            &["validate", &table, "--test-source", "no.csv"],
            "no.csv: no such file",
        ),
    ];
    for (args, expected) in cases {
        let message = refused(&[&["datasets"], *args].concat());
        assert!(message.contains(expected), "{args:?}: {message}");
        assert_eq!(names(bundles.folder()), before, "{args:?}");
    }
}
