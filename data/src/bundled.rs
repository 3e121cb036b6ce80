//! The data sets inside the program, so that everything runs with nothing to download.
//! `assets/data/` holds the files, their licences and the script that rebuilds them.

use std::collections::BTreeSet;
use std::io::{Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::file::Bytes;
use crate::text::Format;
use crate::{ImageSet, TextColumns, TextExample, TextSet, TextStream, idx};

pub(crate) const DEFINITIONS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../assets/data/wordnet/definitions.tsv.zst"
));
const DIGIT_IMAGES: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../assets/data/mnist/images-idx3-ubyte.gz"
));
const DIGIT_LABELS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../assets/data/mnist/labels-idx1-ubyte.gz"
));

/// 17,000 sentences, a token and its part of speech a line, an empty line after each sentence.
pub(crate) const BROWN: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../assets/data/brown/tagged.tsv.zst"
));
/// 10,500 verses: `reference`, `kjv`, `web`, `spanish`.
pub(crate) const VERSES: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../assets/data/verses/verses.tsv.zst"
));
/// 5,400 questions as the `datasets` package gives SQuAD 2.0, a JSON object a line.
pub(crate) const QUESTIONS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../assets/data/questions/questions.jsonl.zst"
));
/// 6,300 poems: `title`, `author`, `text`.
pub(crate) const POEMS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../assets/data/poems/poems.tsv.zst"
));

/// What is known of a bundled set.
#[derive(Clone, Copy, Debug)]
pub struct BundledSet {
    /// As `--data` names it.
    pub name: &'static str,
    /// Rows or images.
    pub rows: usize,
    /// All columns; none of images.
    pub columns: &'static [&'static str],
    /// The columns of what splits compare; none of images.
    pub texts: &'static [&'static str],
    /// The column of the label, if there is one.
    pub label: Option<&'static str>,
    /// In a few words; the whole is in `assets/data`.
    pub licence: &'static str,
    /// What it is, and what it serves.
    pub about: &'static str,
}

const WORDNET: &str = "WordNet 3.0";

/// All of them.
pub const SETS: [BundledSet; 13] = [
    BundledSet {
        name: "wordnet",
        rows: 117_659,
        columns: &["label", "text"],
        texts: &["text"],
        label: Some("label"),
        licence: WORDNET,
        about: "definitions in 45 semantic fields: pretraining, text-classification",
    },
    BundledSet {
        name: "wordnet-nouns",
        rows: 82_115,
        columns: &["label", "text"],
        texts: &["text"],
        label: Some("label"),
        licence: WORDNET,
        about: "those of nouns, 26 fields: text-classification",
    },
    BundledSet {
        name: "wordnet-labels",
        rows: 117_659,
        columns: &["text", "labels"],
        texts: &["text"],
        label: Some("labels"),
        licence: WORDNET,
        about: "definitions with both parts of their field: text-labels",
    },
    BundledSet {
        name: "definition-choices",
        rows: 82_115,
        columns: &["question", "choices", "answer"],
        texts: &["question"],
        label: Some("answer"),
        licence: WORDNET,
        about: "definitions with four kinds of things: multiple-choice",
    },
    BundledSet {
        name: "questions",
        rows: 5_400,
        columns: &["id", "context", "question", "answers"],
        texts: &["context"],
        label: None,
        licence: WORDNET,
        about: "questions on passages of definitions: question-answering",
    },
    BundledSet {
        name: "definition-answers",
        rows: 4_320,
        columns: &["prompt", "completion"],
        texts: &["prompt", "completion"],
        label: None,
        licence: WORDNET,
        about: "prompts and their answers: instruction-tuning",
    },
    BundledSet {
        name: "glossaries",
        rows: 5_400,
        columns: &["text", "summary"],
        texts: &["text", "summary"],
        label: None,
        licence: WORDNET,
        about: "passages with the words that they define: summarization",
    },
    BundledSet {
        name: "verses",
        rows: 10_500,
        columns: &["reference", "kjv", "web", "spanish"],
        texts: &["web", "spanish"],
        label: None,
        licence: "public domain",
        about: "Bible verses, twice in English and in Spanish: translation, sentence-embeddings",
    },
    BundledSet {
        name: "verse-pairs",
        rows: 10_500,
        columns: &["first", "second", "label"],
        texts: &["first", "second"],
        label: Some("label"),
        licence: "public domain",
        about: "the same verse in other words, or another verse: pair-classification",
    },
    BundledSet {
        name: "verse-places",
        rows: 10_500,
        columns: &["text", "score"],
        texts: &["text"],
        label: Some("score"),
        licence: "public domain",
        about: "verses with the number of their book: text-regression",
    },
    BundledSet {
        name: "brown",
        rows: 17_000,
        columns: &["tokens", "tags"],
        texts: &["tokens"],
        label: Some("tags"),
        licence: "redistribution permitted",
        about: "sentences with twelve parts of speech: token-classification",
    },
    BundledSet {
        name: "poems",
        rows: 6_300,
        columns: &["title", "author", "text"],
        texts: &["text"],
        label: None,
        licence: "MIT",
        about: "Chinese poems of the Tang: pretraining",
    },
    BundledSet {
        name: "mnist",
        rows: 10_000,
        columns: &[],
        texts: &[],
        label: None,
        licence: "MIT",
        about: "handwritten digits of 28x28, grey: autoencoder, image-classification",
    },
];

impl BundledSet {
    /// The set of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETS.iter().find(|set| set.name == name)
    }

    /// What it takes in the program, packed; sets that are made of one file share it.
    pub fn bytes(&self) -> usize {
        match self.name {
            "mnist" => DIGIT_IMAGES.len() + DIGIT_LABELS.len(),
            name => packed(name).len(),
        }
    }
}

/// Kinds of things in a row of `definition-choices`.
const CHOICES: usize = 4;

/// What a training on the training split of [`wordnet`] gives, for [`TOKENIZER_OF`]: so nobody needs to train it again.
/// A test in [`crate::corpus`] does.
pub(crate) const TOKENIZER: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../assets/models/wordnet-bert-nano/tokenizer.json"
));
/// Shares that validate and test, the seed of the splits, and the size of the vocabulary: those of the built-in recipe.
pub(crate) const TOKENIZER_OF: (f64, f64, u64, usize) = (0.04, 0.05, 0, 8192);

/// The 117,659 definitions of WordNet 3.0, each labelled with one of 45 semantic fields such as
/// `noun.animal`. <https://wordnet.princeton.edu>
pub fn wordnet() -> TextSet {
    collected(wordnet_stream())
}

/// The 82,115 nouns of [`wordnet`], in 26 fields (`noun.act` to `noun.time`).
pub fn wordnet_nouns() -> TextSet {
    collected(wordnet_nouns_stream())
}

fn collected(stream: TextStream) -> TextSet {
    stream
        .collect_set()
        .expect("the embedded definitions are well-formed: a test reads them")
}

/// The bytes that a bundled set is made of.
pub(crate) fn packed(name: &str) -> &'static [u8] {
    match name {
        "verses" | "verse-pairs" | "verse-places" => VERSES,
        "poems" => POEMS,
        "brown" => BROWN,
        "questions" | "definition-answers" | "glossaries" => QUESTIONS,
        _ => DEFINITIONS,
    }
}

/// A bundled set as a file of this format would hold it.
pub(crate) fn rows(name: &str) -> (Format, Bytes) {
    let made = |text: String| -> Bytes { Box::new(Cursor::new(text.into_bytes())) };
    let plain: Bytes = Box::new(decoder(packed(name)));
    match name {
        "brown" => (Format::Conll, plain),
        "questions" => (Format::Jsonl, plain),
        "verse-pairs" => (Format::Jsonl, made(verse_pairs())),
        "verse-places" => (Format::Jsonl, made(verse_places())),
        "definition-choices" => (Format::Jsonl, made(definition_choices())),
        "wordnet-labels" => (Format::Jsonl, made(wordnet_labels())),
        "definition-answers" => (Format::Jsonl, made(definition_answers())),
        "glossaries" => (Format::Jsonl, made(glossaries())),
        _ => (Format::Tsv, plain),
    }
}

/// A bundled set as texts, of the columns that its file has.
pub(crate) fn stream(name: &str, columns: TextColumns) -> TextStream {
    let (format, bytes) = rows(name);
    TextStream::embedded(&format!("bundled:{name}"), format, bytes, columns, |_| true)
}

fn decoder(packed: &'static [u8]) -> impl Read + Send {
    ZstdDecoder::with_buffer(packed).expect("there is memory for a decoder")
}

fn unpacked(packed: &'static [u8]) -> String {
    let mut text = String::new();
    decoder(packed)
        .read_to_string(&mut text)
        .expect("the embedded texts are well-formed: a test reads them");
    text
}

fn lines(rows: impl Iterator<Item = Value>) -> String {
    rows.map(|row| format!("{row}\n")).collect()
}

/// Verses of the King James text, each with the same verse of the World English Bible or, every other one, with another.
fn verse_pairs() -> String {
    let text = unpacked(VERSES);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip(1)
        .map(|row| row.split('\t').collect())
        .collect();
    let pair = |(at, row): (usize, &Vec<&str>)| {
        // The next one of those that are no right pair.
        let (other, label) = if at % 2 == 0 {
            (at, "same")
        } else {
            ((at + 2) % rows.len(), "other")
        };
        json!({"first": row[1], "second": rows[other][2], "label": label})
    };
    lines(rows.iter().enumerate().map(pair))
}

/// The books that verses are of, in their order.
const BOOKS: [&str; 66] = [
    "Genesis",
    "Exodus",
    "Leviticus",
    "Numbers",
    "Deuteronomy",
    "Joshua",
    "Judges",
    "Ruth",
    "I Samuel",
    "II Samuel",
    "I Kings",
    "II Kings",
    "I Chronicles",
    "II Chronicles",
    "Ezra",
    "Nehemiah",
    "Esther",
    "Job",
    "Psalms",
    "Proverbs",
    "Ecclesiastes",
    "Song of Solomon",
    "Isaiah",
    "Jeremiah",
    "Lamentations",
    "Ezekiel",
    "Daniel",
    "Hosea",
    "Joel",
    "Amos",
    "Obadiah",
    "Jonah",
    "Micah",
    "Nahum",
    "Habakkuk",
    "Zephaniah",
    "Haggai",
    "Zechariah",
    "Malachi",
    "Matthew",
    "Mark",
    "Luke",
    "John",
    "Acts",
    "Romans",
    "I Corinthians",
    "II Corinthians",
    "Galatians",
    "Ephesians",
    "Philippians",
    "Colossians",
    "I Thessalonians",
    "II Thessalonians",
    "I Timothy",
    "II Timothy",
    "Titus",
    "Philemon",
    "Hebrews",
    "James",
    "I Peter",
    "II Peter",
    "I John",
    "II John",
    "III John",
    "Jude",
    "Revelation of John",
];

/// Verses of the World English Bible, each with the number of its book, from 1 to 66: the style and the subjects of books change
/// along their order.
fn verse_places() -> String {
    let text = unpacked(VERSES);
    let row = |line: &str| {
        let mut columns = line.split('\t');
        let (book, _) = columns.next()?.rsplit_once(' ')?;
        let place = BOOKS.iter().position(|name| *name == book)?;
        Some(json!({"text": columns.nth(1)?, "score": place + 1}))
    };
    lines(text.lines().skip(1).filter_map(row))
}

/// Definitions of nouns, each with four kinds of things, one of which is what it defines.
fn definition_choices() -> String {
    let text = unpacked(DEFINITIONS);
    let rows = text
        .lines()
        .skip(1)
        .filter_map(|line| line.strip_prefix("noun."));
    let rows: Vec<(&str, &str)> = rows.filter_map(|row| row.split_once('\t')).collect();
    let kinds: BTreeSet<&str> = rows.iter().map(|(kind, _)| *kind).collect();
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let row = |(kind, definition): &(&str, &str)| {
        let (choices, right) = choices(kind, definition, &kinds);
        json!({"question": definition, "choices": choices, "answer": right})
    };
    lines(rows.iter().map(row))
}

/// Four of all kinds, the right one among them, and its place: a function of the text.
fn choices<'a>(right: &'a str, text: &str, all: &[&'a str]) -> (Vec<&'a str>, usize) {
    let chance = Sha256::digest(text);
    let mut chosen = vec![right];
    for byte in chance
        .iter()
        .cycle()
        .zip(0..)
        .map(|(byte, step)| usize::from(*byte) + step)
    {
        if chosen.len() == CHOICES {
            break;
        }
        let other = all[byte % all.len()];
        if !chosen.contains(&other) {
            chosen.push(other);
        }
    }
    let place = usize::from(chance[31]) % CHOICES;
    chosen.swap(0, place);
    (chosen, place)
}

/// Questions that have an answer, without the passage that holds it.
fn definition_answers() -> String {
    let text = unpacked(QUESTIONS);
    let row = |line: &str| -> Option<Value> {
        let question: Value = serde_json::from_str(line).ok()?;
        let answer = question["answers"]["text"][0].as_str()?;
        Some(json!({"prompt": question["question"], "completion": answer}))
    };
    lines(text.lines().filter_map(row))
}

/// Passages of several entries, and the words that they explain.
fn glossaries() -> String {
    let text = unpacked(QUESTIONS);
    let row = |line: &str| -> Option<Value> {
        let question: Value = serde_json::from_str(line).ok()?;
        let passage = question["context"].as_str()?;
        // An entry is `word: definition.`
        let words: Vec<&str> = passage
            .split_terminator(". ")
            .filter_map(|entry| entry.split_once(": "))
            .map(|(word, _)| word)
            .collect();
        Some(json!({"text": passage, "summary": words.join(", ")}))
    };
    lines(text.lines().filter_map(row))
}

/// Definitions with both parts of their field: `noun.animal` is `noun` and `animal`.
fn wordnet_labels() -> String {
    let text = unpacked(DEFINITIONS);
    let row = |line: &str| {
        let (field, definition) = line.split_once('\t')?;
        let labels: Vec<&str> = field.split('.').collect();
        Some(json!({"text": definition, "labels": labels}))
    };
    lines(text.lines().skip(1).filter_map(row))
}

/// [`wordnet`], one example at a time.
pub(crate) fn wordnet_stream() -> TextStream {
    definitions(|_| true)
}

/// [`wordnet_nouns`], one example at a time.
pub(crate) fn wordnet_nouns_stream() -> TextStream {
    definitions(|e| {
        e.label
            .as_deref()
            .is_some_and(|label| label.starts_with("noun."))
    })
}

fn definitions(keep: fn(&TextExample) -> bool) -> TextStream {
    let columns = TextColumns {
        text: "text".into(),
        label: Some("label".into()),
        ..TextColumns::default()
    };
    let bytes = Box::new(decoder(DEFINITIONS));
    TextStream::embedded("bundled:wordnet", Format::Tsv, bytes, columns, keep)
}

/// 10,000 handwritten digits of MNIST, 28x28 and grey, classes "0" to "9".
/// <http://yann.lecun.com/exdb/mnist/>
pub fn mnist() -> ImageSet {
    let path = Path::new("bundled:mnist");
    let images = idx::images(path, MultiGzDecoder::new(DIGIT_IMAGES))
        .expect("the embedded images are well-formed: a test reads them");
    let labels = idx::labels(path, MultiGzDecoder::new(DIGIT_LABELS))
        .expect("the embedded labels are well-formed: a test reads them");
    idx::labelled(images, labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io::Read;

    fn labels(set: &TextSet) -> BTreeSet<&str> {
        let labels = set.examples.iter().filter_map(|e| e.label.as_deref());
        labels.collect()
    }

    #[test]
    fn wordnet_has_its_known_size() {
        let set = wordnet();
        assert_eq!((set.len(), labels(&set).len()), (117_659, 45));
        assert_eq!(set.place(0), "bundled:wordnet:2");
        let nouns = wordnet_nouns();
        assert_eq!((nouns.len(), labels(&nouns).len()), (82_115, 26));
    }

    #[test]
    fn mnist_has_its_known_size() {
        let set = mnist();
        assert_eq!(
            (set.len(), set.channels, set.height, set.width),
            (10_000, 1, 28, 28)
        );
        assert_eq!(set.classes.first().map(String::as_str), Some("0"));
        assert_eq!(set.classes.len(), 10);
        let labels = set.labels.as_ref().unwrap();
        assert!((0..10).all(|digit| labels.contains(&digit)));
        assert!(set.image(9_999).iter().any(|&pixel| pixel > 200));
    }

    #[test]
    fn brown_has_its_known_size() {
        let text = unpacked(BROWN);
        assert_eq!(text.lines().count(), 361_855);
        assert_eq!(text.lines().filter(|line| line.is_empty()).count(), 17_000);
        let tokens = text.lines().filter_map(|line| line.split_once('\t'));
        let tags: BTreeSet<&str> = tokens.clone().map(|(_, tag)| tag).collect();
        assert_eq!((tokens.count(), tags.len()), (344_855, 12));
    }

    #[test]
    fn verses_have_their_known_size() {
        let text = unpacked(VERSES);
        assert_eq!(text.lines().next(), Some("reference\tkjv\tweb\tspanish"));
        assert_eq!(text.lines().count(), 10_501);
        assert!(text.lines().all(|line| line.split('\t').count() == 4));
    }

    #[test]
    fn answers_stand_where_the_questions_say() {
        let rows: Vec<serde_json::Value> = unpacked(QUESTIONS)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(rows.len(), 5_400);
        let mut answered = 0;
        for row in &rows {
            // All is ASCII: a character is a byte.
            let context = row["context"].as_str().unwrap();
            if let Some(answer) = row["answers"]["text"][0].as_str() {
                let start = row["answers"]["answer_start"][0].as_u64().unwrap();
                assert!(context[start as usize..].starts_with(answer), "{row}");
                answered += 1;
            }
        }
        assert_eq!(answered, 4_320);
    }

    #[test]
    fn poems_have_their_known_size() {
        let text = unpacked(POEMS);
        assert_eq!(text.lines().next(), Some("title\tauthor\ttext"));
        assert_eq!(text.lines().count(), 6_301);
        assert!(text.lines().all(|line| line.split('\t').count() == 3));
    }

    /// The rows of a set that is made when it is asked for.
    fn made(name: &str) -> Vec<Value> {
        let mut text = String::new();
        rows(name).1.read_to_string(&mut text).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn pairs_are_the_same_verse_or_another() {
        let pairs = made("verse-pairs");
        assert_eq!(pairs.len(), 10_500);
        let same = pairs.iter().filter(|pair| pair["label"] == "same").count();
        assert_eq!(same, 5_250);
        let second: BTreeSet<&str> = pairs
            .iter()
            .map(|pair| pair["second"].as_str().unwrap())
            .collect();
        assert_eq!(second.len(), 10_500, "each verse is in one pair");
    }

    #[test]
    fn every_verse_has_the_number_of_its_book() {
        let places = made("verse-places");
        assert_eq!(places.len(), 10_500);
        let books: BTreeSet<u64> = places
            .iter()
            .map(|verse| verse["score"].as_u64().unwrap())
            .collect();
        assert_eq!(books, (1..=66).collect());
        // II Chronicles 35:2.
        let text = places[0]["text"].as_str().unwrap();
        assert!(text.starts_with("He set the priests in their offices"));
        assert_eq!(places[0]["score"], 14);
    }

    #[test]
    fn choices_hold_the_right_one_at_every_place() {
        let rows = made("definition-choices");
        assert_eq!(rows.len(), 82_115);
        let mut places = [0; CHOICES];
        for row in &rows {
            let choices: BTreeSet<&str> = row["choices"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one.as_str().unwrap())
                .collect();
            assert_eq!(choices.len(), CHOICES);
            places[row["answer"].as_u64().unwrap() as usize] += 1;
        }
        assert!(places.iter().all(|&count| count > 19_000), "{places:?}");
        assert_eq!(made("definition-choices")[7], rows[7]);
    }

    #[test]
    fn labels_are_parts_of_a_field_and_answers_have_no_passage() {
        let labels = made("wordnet-labels");
        assert_eq!(
            (labels.len(), &labels[0]["labels"]),
            (117_659, &json!(["noun", "Tops"]))
        );
        let glossaries = made("glossaries");
        assert_eq!(glossaries.len(), 5_400);
        let words = "closing time, small hours, midnight, closing, early-morning hour";
        assert_eq!(glossaries[0]["summary"], words);
        let answers = made("definition-answers");
        assert_eq!(answers.len(), 4_320);
        assert!(
            answers
                .iter()
                .all(|row| row["prompt"].is_string() && row["completion"].is_string())
        );
    }
}
