//! Indexes of texts and images: what is found, what is added, and which indexes and models are refused.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bundles::{Bundles, edit_config, printed, refused};

const MODEL: &str = "wordnet-bert-nano";
const TEXTS: [&str; 6] = [
    "a small bird that sings",
    "a heavy block of iron on which hot metals are shaped",
    "the branch of mathematics that deals with numbers",
    "a large body of salt water",
    "a person who bakes bread",
    "to move fast by using one's feet",
];

fn index(bundles: &Bundles, name: &str, model: &str, rest: &[&str]) -> (String, String) {
    let output = bundles.at(name);
    let args = ["search", "index", model, "--output", &output];
    let said = printed(&[&args[..], rest].concat());
    (output, said)
}

/// Cosines and places of what is nearest.
fn nearest(index: &str, rest: &[&str]) -> Vec<(f64, String)> {
    let args = ["search", "query", index, "--json"];
    let text = printed(&[&args[..], rest].concat());
    assert_eq!(text.lines().count(), 1);
    let answer: Value = serde_json::from_str(&text).unwrap();
    let found = |found: &Value| {
        let place = found["place"].as_str().unwrap().to_string();
        (found["cosine"].as_f64().unwrap(), place)
    };
    answer["nearest"]
        .as_array()
        .unwrap()
        .iter()
        .map(found)
        .collect()
}

#[test]
fn a_row_is_nearest_to_itself() {
    let bundles = Bundles::new();
    let notes = bundles.file("notes.txt", TEXTS.join("\n"));
    let (index, said) = index(&bundles, "notes.index", MODEL, &[&notes]);
    assert_eq!(
        said,
        format!("{index}: index of texts; rows 6, added 6, embedded 6\n")
    );
    for (line, text) in (1..).zip(TEXTS) {
        let found = nearest(&index, &["--text", text]);
        assert_eq!(found.len(), 6, "fewer than --top are all");
        assert_eq!(found[0].1, format!("{notes}:{line}"));
        assert!((found[0].0 - 1.0).abs() < 1e-4, "{found:?}");
        assert!(found.is_sorted_by(|one, next| one.0 >= next.0), "{found:?}");
        assert!(found[1].0 < 0.9999, "{found:?}");
    }
    let args = ["search", "query", &index, "--top", "2", "--text", TEXTS[1]];
    let table = printed(&args);
    assert_eq!(table.lines().count(), 2);
    let first: Vec<&str> = table.lines().next().unwrap().split("  ").collect();
    assert_eq!(first, ["1.0000", &format!("{notes}:2"), TEXTS[1]]);
    let both = printed(&[&args[..], &["--text", TEXTS[3]]].concat());
    let blocks: Vec<&str> = both.split("\n\n").collect();
    assert_eq!(blocks[0].lines().count(), 3);
    assert!(blocks[0].starts_with(&format!("{}\n1.0000  {notes}:2", TEXTS[1])));
    assert!(blocks[1].starts_with(&format!("{}\n1.0000  {notes}:4", TEXTS[3])));
}

#[test]
fn adding_gives_what_building_at_once_gives() {
    let bundles = Bundles::new();
    let first = bundles.file("a.txt", TEXTS[..3].join("\n"));
    // The second text of the first file once more, at another place.
    let second = bundles.file("b.txt", [TEXTS[3], TEXTS[1], TEXTS[4], TEXTS[5]].join("\n"));
    let (whole, _) = index(&bundles, "whole", MODEL, &[&first, &second]);
    index(&bundles, "parts", MODEL, &[&first]);
    let add = || index(&bundles, "parts", MODEL, &[&first, &second, "--append"]);
    let (parts, said) = add();
    // Of seven rows three are there, and one of the others has a text that is there.
    assert_eq!(
        said,
        format!("{parts}: index of texts; rows 7, added 4, embedded 3\n")
    );
    let read = |index: &str, name: &str| fs::read(Path::new(index).join(name)).unwrap();
    assert_eq!(read(&whole, "rows.jsonl"), read(&parts, "rows.jsonl"));
    let values = |index: &str| -> Vec<f32> {
        let bytes = read(index, "vectors.npy");
        let values = bytes[128..].as_chunks::<4>().0.iter();
        values.map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let (one, other) = (values(&whole), values(&parts));
    assert_eq!((one.len(), other.len()), (7 * 160, 7 * 160));
    for (one, other) in one.iter().zip(&other) {
        // Padding may change the order of sums: a few units in the last place.
        assert!((one - other).abs() < 1e-5, "{one} and {other}");
    }
    assert_eq!(other[160..320], other[4 * 160..5 * 160]);
    let text = ["--text", "a bird"];
    let places = |index: &str| nearest(index, &text).into_iter().map(|found| found.1);
    assert!(places(&whole).eq(places(&parts)));
    let before = read(&parts, "index.json");
    let (_, said) = add();
    assert_eq!(
        said,
        format!("{parts}: index of texts; rows 7, added 0, embedded 0\n")
    );
    assert_eq!(read(&parts, "index.json"), before);
}

#[test]
fn images_are_found_by_images() {
    let bundles = Bundles::new();
    let model = bundles.image_encoder("images");
    let photos = [("a", 0), ("b", 90), ("c", 255)];
    let photos = photos.map(|(name, value)| bundles.png(&format!("photos/{name}.png"), value));
    let (index, said) = index(&bundles, "index", &model, &[&bundles.at("photos")]);
    assert_eq!(
        said,
        format!("{index}: index of images; rows 3, added 3, embedded 3\n")
    );
    for photo in &photos {
        let found = nearest(&index, &["--image", photo]);
        assert_eq!(found.len(), 3);
        let own = found.iter().find(|found| found.1 == *photo).unwrap();
        // Vectors of three numbers, of weights drawn by chance: another may be as near as digits tell.
        assert!((own.0 - 1.0).abs() < 1e-5, "{found:?}");
        assert!(found[0].0 - own.0 < 1e-5, "{found:?}");
    }
    let message = refused(&["search", "query", &index, "--text", "a"]);
    assert!(
        message.ends_with("is an index of images; ask by --image"),
        "{message}"
    );
    let message = refused(&["search", "query", &index, "--image", &bundles.at("no.png")]);
    assert!(message.contains("no.png: no such file"), "{message}");
}

#[test]
fn another_model_is_refused() {
    let bundles = Bundles::new();
    let model = bundles.encoder("model");
    let other = bundles.masked_lm("other");
    let notes = bundles.file("notes.txt", "a small bird\na tool\n");
    let (index, _) = index(&bundles, "index", &model, &[&notes]);
    let query = ["search", "query", &index, "--text", "a tool"];
    let of_other = [&query[..], &["--model", &other]].concat();
    assert!(refused(&of_other).contains("other is another model; its vectors cannot be compared"));
    let append = [
        "search", "index", &other, &notes, "--output", &index, "--append",
    ];
    assert!(refused(&append).contains("other is another model"));
    // The same model somewhere else.
    fs::rename(&model, bundles.path("moved")).unwrap();
    let message = refused(&query);
    assert!(
        message.contains("no such directory; --model names the model of"),
        "{message}"
    );
    let moved = bundles.at("moved");
    let found = nearest(&index, &["--text", "a tool", "--model", &moved]);
    assert_eq!(found[0].1, format!("{notes}:2"));
    fs::rename(&moved, &model).unwrap();
    edit_config(&model, |config| config["layer_norm_eps"] = 1e-3.into());
    let message = refused(&query);
    assert!(
        message.ends_with("which has changed since; build the index anew"),
        "{message}"
    );
}

#[test]
fn an_index_that_is_not_whole_is_refused() {
    let bundles = Bundles::new();
    let notes = bundles.file("notes.txt", TEXTS.join("\n"));
    let (index, _) = index(&bundles, "index", MODEL, &[&notes]);
    let query = |index: &str| refused(&["search", "query", index, "--text", "a"]);
    let at = |name: &str| Path::new(&index).join(name);
    let vectors = fs::read(at("vectors.npy")).unwrap();
    fs::write(at("vectors.npy"), &vectors[..vectors.len() / 2]).unwrap();
    let words = "vectors.npy: is not what was written with index.json; build the index anew";
    assert!(query(&index).ends_with(words));
    let append = [
        "search", "index", MODEL, &notes, "--output", &index, "--append",
    ];
    assert!(refused(&append).ends_with(words));
    fs::write(at("vectors.npy"), &vectors).unwrap();
    let rows = fs::read_to_string(at("rows.jsonl")).unwrap();
    fs::write(at("rows.jsonl"), rows.replace("bread", "cakes")).unwrap();
    assert!(query(&index).contains("rows.jsonl: is not what was written"));
    fs::remove_file(at("rows.jsonl")).unwrap();
    assert!(query(&index).contains("rows.jsonl: "));
    fs::write(at("rows.jsonl"), rows).unwrap();
    assert_eq!(
        nearest(&index, &["--text", TEXTS[4], "--top", "1"]).len(),
        1
    );
    fs::remove_file(at("index.json")).unwrap();
    assert!(query(&index).ends_with("is no whole index: index.json is missing"));
    // Ended between the renames that replace an index: it is there, under another name.
    fs::rename(&index, bundles.path(".index.old")).unwrap();
    assert!(query(&index).ends_with("is no index: no such directory"));
    fs::write(bundles.path(".index.old/index.json"), "{}").unwrap();
    assert!(query(&index).contains("writing it was broken off; rename "));
}

#[test]
fn wrong_input_is_refused_and_nothing_is_replaced() {
    let bundles = Bundles::new();
    let notes = bundles.file("notes.txt", "a small bird\na tool\n");
    let (at, said) = index(&bundles, "index", MODEL, &[&notes]);
    assert!(said.contains("added 2"));
    fs::create_dir(bundles.path("photos")).unwrap();
    let mine = bundles.file("photos/mine.txt", "mine");
    let table = bundles.file("a.csv", "id,text\n1,a tool\n2,\n");
    let build = |input: &str, output: &str, rest: &[&str]| {
        let args = ["search", "index", MODEL, input, "--output", output];
        refused(&[&args[..], rest].concat())
    };
    let query = |rest: &[&str]| refused(&[&["search", "query", &at][..], rest].concat());
    let rows = format!("{at}/rows.jsonl");
    for (message, expected) in [
        (
            build(&notes, &at, &[]),
            "exists; --append adds to it, --force replaces it",
        ),
        (
            build(&notes, &bundles.at("photos"), &["--force"]),
            "photos: is a directory that holds something else than an index",
        ),
        (build(&notes, &notes, &[]), "notes.txt: is a file"),
        (
            build(&notes, &bundles.at("no/index"), &[]),
            "its directory does not exist",
        ),
        (
            build(&rows, &at, &["--append"]),
            "is replaced as a whole, and ",
        ),
        (
            build(&notes, &bundles.at("new"), &["--append"]),
            "new: is no index",
        ),
        (
            build(&table, &bundles.at("new"), &[]),
            "a.csv:3: \"text\" is empty",
        ),
        (
            build(&bundles.at("no.txt"), &bundles.at("new"), &[]),
            "no.txt: no such file",
        ),
        (query(&["--text", " "]), "--text is empty"),
        (
            query(&["--image", &mine]),
            "is an index of texts; ask by --text",
        ),
        (
            refused(&["search", "query", &notes, "--text", "a"]),
            "notes.txt: is no index: it is a file",
        ),
    ] {
        assert!(
            message.contains(expected),
            "{message:?} does not say {expected:?}"
        );
    }
    assert!(!bundles.path("new").exists());
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
    assert_eq!(
        nearest(&at, &["--text", "a tool"])[0].1,
        format!("{notes}:2")
    );
    let other = bundles.file("other.txt", "made of iron\n");
    let (_, said) = index(&bundles, "index", MODEL, &[&other, "--force"]);
    assert!(said.contains("rows 1, added 1"), "{said}");
}
