//! Vectors of texts and images: where they come from, and the files that hold them.

use std::fs::{self, File};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{ListAccessor, RowAccessor};
use serde_json::Value;

use crate::bundles::{Bundles, apps, apps_with, printed, refused};

const MODEL: &str = "wordnet-bert-nano";
/// Of the bundled model.
const WIDTH: usize = 160;

/// A line of JSONL.
struct Line {
    place: String,
    text: Option<String>,
    embedding: Vec<f32>,
}

fn lines(text: &str) -> Vec<Line> {
    let line = |line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let numbers = line["embedding"].as_array().unwrap().iter();
        Line {
            place: line["place"].as_str().unwrap().into(),
            text: line["text"].as_str().map(String::from),
            embedding: numbers
                .map(|number| number.as_f64().unwrap() as f32)
                .collect(),
        }
    };
    text.lines().map(line).collect()
}

fn assert_near(one: &[f32], other: &[f32]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        // Padding may change the order of sums: a few units in the last place.
        assert!((one - other).abs() < 1e-5, "{one} and {other}");
    }
}

/// The shape and the values of a `.npy` file of 32-bit floats, read by what the format says alone.
fn npy(bytes: &[u8]) -> (String, Vec<f32>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let begin = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(begin % 64, 0);
    let header = std::str::from_utf8(&bytes[10..begin]).unwrap();
    assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': ("));
    assert!(header.ends_with('\n'));
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let values = bytes[begin..].as_chunks::<4>();
    assert!(values.1.is_empty());
    let values = values.0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    (shape.into(), values.collect())
}

#[test]
fn npy_and_parquet_hold_what_jsonl_holds() {
    let bundles = Bundles::new();
    let input = bundles.file(
        "birds.csv",
        "id,gloss\n1,\"a small bird, that sings\"\n2,anvil\n3,a tool made of iron\n",
    );
    let written = |name: &str| {
        let output = bundles.at(name);
        let args = ["embed", MODEL, &input, "--column", "gloss"];
        let said = printed(&[&args[..], &["--output", &output]].concat());
        assert_eq!(said, format!("{output}: embeddings [3, {WIDTH}]\n"));
        output
    };
    let jsonl = fs::read_to_string(written("a.jsonl")).unwrap();
    let rows = lines(&jsonl);
    let places: Vec<&str> = rows.iter().map(|row| row.place.as_str()).collect();
    let expected = [2, 3, 4].map(|line| format!("{input}:{line}"));
    assert_eq!(places, expected);
    assert_eq!(rows[0].text.as_deref(), Some("a small bird, that sings"));
    for row in &rows {
        let length: f32 = row.embedding.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    let all: Vec<f32> = rows.iter().flat_map(|row| row.embedding.clone()).collect();

    let (shape, values) = npy(&fs::read(written("a.npy")).unwrap());
    assert_eq!((shape, &values), (format!("3, {WIDTH}"), &all));

    let parquet = written("a.parquet");
    let reader = SerializedFileReader::new(File::open(&parquet).unwrap()).unwrap();
    let records = reader.get_row_iter(None).unwrap();
    let records: Vec<_> = records.map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    for (record, row) in records.iter().zip(&rows) {
        assert_eq!(record.get_string(0).unwrap(), &row.place);
        assert_eq!(Some(record.get_string(1).unwrap()), row.text.as_ref());
        let list = record.get_list(2).unwrap();
        let vector = (0..list.len()).map(|at| list.get_float(at).unwrap());
        assert_eq!(vector.collect::<Vec<_>>(), row.embedding);
    }
    // What is written is read like any Parquet file; without an output, lines are printed.
    let again = lines(&printed(&["embed", "--model", MODEL, "--input", &parquet]));
    assert_eq!(again.len(), 3);
    for (again, row) in again.iter().zip(&rows) {
        assert_eq!((&again.text, &again.embedding), (&row.text, &row.embedding));
    }
}

#[test]
fn texts_come_from_flags_standard_input_and_folders() {
    let bundles = Bundles::new();
    let output = bundles.at("a.jsonl");
    let args = ["embed", MODEL, "--text", "a wren", "--text", "an anvil"];
    printed(&[&args[..], &["--output", &output]].concat());
    let named = lines(&fs::read_to_string(&output).unwrap());
    assert_eq!((named[0].place.as_str(), named.len()), ("text 1", 2));

    let said = apps_with(&["embed", MODEL], "a wren\n\n{\"text\": \"an anvil\"}\n");
    assert!(said.status.success());
    let piped = lines(&String::from_utf8(said.stdout).unwrap());
    assert_eq!([&piped[0].place, &piped[1].place], ["-:1", "-:3"]);

    fs::create_dir(bundles.path("notes")).unwrap();
    let first = bundles.file("notes/a.txt", "a wren\n");
    let second = bundles.file("notes/b.jsonl", "{\"text\": \"an anvil\"}\n");
    let of_folder = lines(&printed(&["embed", MODEL, &bundles.at("notes")]));
    let places = [&of_folder[0].place, &of_folder[1].place];
    assert_eq!(places, [&format!("{first}:1"), &format!("{second}:1")]);
    for other in [piped, of_folder] {
        assert_eq!(other.len(), 2);
        for (one, other) in named.iter().zip(other) {
            assert_eq!(one.text, other.text);
            assert_near(&one.embedding, &other.embedding);
        }
    }
    assert!(named[0].embedding != named[1].embedding);
}

#[test]
fn rows_keep_their_order_whatever_their_length() {
    let bundles = Bundles::new();
    let text = |at: usize| vec!["bird"; 1 + at * 7 % 10].join(" ") + &format!(" {at}\n");
    let texts: String = (0..70).map(text).collect();
    let input = bundles.file("a.txt", texts);
    let args = ["embed", MODEL, &input];
    let whole = lines(&printed(&args));
    // Windows of 32 rows.
    let small = lines(&printed(&[&args[..], &["--batch-size", "2"]].concat()));
    assert_eq!((whole.len(), small.len()), (70, 70));
    for (at, (one, other)) in whole.iter().zip(&small).enumerate() {
        assert_eq!(one.place, format!("{input}:{}", at + 1));
        assert_eq!(one.text.as_deref(), Some(text(at).trim_end()));
        assert_eq!((&one.place, &one.text), (&other.place, &other.text));
        assert_near(&one.embedding, &other.embedding);
    }
}

#[test]
fn images_have_the_vectors_of_their_backbone() {
    let bundles = Bundles::new();
    let model = bundles.image_classifier("images");
    let (a, b) = (
        bundles.png("photos/a.png", 10),
        bundles.png("photos/b.png", 200),
    );
    let photos = bundles.at("photos");
    let rows = lines(&printed(&["embed", &model, &photos]));
    assert_eq!([&rows[0].place, &rows[1].place], [&a, &b]);
    assert!(rows.iter().all(|row| row.text.is_none()));
    for row in &rows {
        // The latent vector of the test's encoder has three numbers.
        assert_eq!(row.embedding.len(), 3);
        let length: f32 = row.embedding.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    let alone = lines(&printed(&["embed", "--model", &model, "--input", &b]));
    assert_eq!((alone.len(), &alone[0].place), (1, &b));
    assert_near(&alone[0].embedding, &rows[1].embedding);

    let broken = bundles.file("photos/broken.png", "<html>");
    let message = refused(&["embed", &model, &photos]);
    assert!(message.contains(&broken), "{message}");
    assert!(
        message.ends_with("--skip-unreadable leaves such rows out"),
        "{message}"
    );
    let output = apps(&["embed", &model, &photos, "--skip-unreadable"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    let words = "warning: 1 row is empty or cannot be read, and left out\n";
    assert!(output.status.success() && errors == words, "{errors}");
    assert_eq!(lines(&String::from_utf8(output.stdout).unwrap()).len(), 2);
    let message = refused(&["embed", &model, &broken, "--skip-unreadable"]);
    assert_eq!(message, "no row can be read");
}

#[test]
fn what_cannot_be_embedded_is_refused_and_nothing_is_lost() {
    let bundles = Bundles::new();
    let images = bundles.image_encoder("images");
    let translator = bundles.translator("translator");
    let table = bundles.file("a.csv", "id,text\n1,a wren\n2,\n");
    let texts = bundles.file("a.txt", "a wren\n");
    let kept = bundles.file("kept.npy", "mine");
    let at = |name: &str| bundles.at(name);
    for (args, expected) in [
        (
            vec![&table],
            "a.csv:3: \"text\" is empty; --skip-unreadable leaves such rows out",
        ),
        (
            vec![&texts, &"--output".into(), &kept],
            "kept.npy: exists; --force replaces it",
        ),
        (
            vec![&texts, &"--output".into(), &at("a.pkl")],
            "a.pkl: vectors are not written as .pkl",
        ),
        (
            vec![&texts, &"--output".into(), &at("no/a.npy")],
            "no/a.npy: its directory does not exist",
        ),
        (vec![&at("nothing.txt")], "nothing.txt: no such file"),
        (
            vec![
                &texts,
                &"--column".into(),
                &"text".into(),
                &"--text".into(),
                &"a".into(),
            ],
            "are both to be read",
        ),
        (
            vec![&texts, &"--set".into(), &"data.text=gloss".into()],
            "--column names what is read here",
        ),
    ] {
        let args: Vec<&str> = args.iter().map(|arg| arg.as_str()).collect();
        let message = refused(&[&["embed", MODEL][..], &args].concat());
        assert!(
            message.contains(expected),
            "{message:?} does not say {expected:?}"
        );
    }
    assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");
    assert!(refused(&["embed", MODEL]).contains("standard input is empty"));
    assert!(refused(&["embed", &translator, &texts]).ends_with("apps predict is for it"));
    let message = refused(&["embed", &images, "--text", "a"]);
    assert!(
        message.ends_with("name images by --input instead of --text"),
        "{message}"
    );
    let rows = apps(&[
        "embed",
        MODEL,
        &table,
        "--skip-unreadable",
        "--output",
        &at("b.npy"),
    ]);
    assert!(rows.status.success());
    assert_eq!(
        npy(&fs::read(at("b.npy")).unwrap()).0,
        format!("1, {WIDTH}")
    );
}
