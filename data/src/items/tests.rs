use std::fs;

use tempfile::TempDir;

use super::*;

const SHARES: SplitShares = SplitShares {
    valid: 0.3,
    test: 0.2,
    seed: 1,
    labels: 0,
};

fn columns(kind: ItemKind, text: &str, second: &str, target: &str) -> ItemColumns {
    ItemColumns {
        kind,
        text: text.into(),
        second: second.into(),
        target: target.into(),
        bad_rows: BadRows::Refuse,
    }
}

/// What a file of this name and content gives.
fn read(name: &str, content: &str, columns: &ItemColumns) -> Result<ItemSet, String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    let source = TextSource::named(&[path.display().to_string()]).unwrap();
    let place = format!("{}/", folder.path().display());
    read_items(&source, columns).map_err(|error| error.to_string().replace(&place, ""))
}

fn items(name: &str, content: &str, columns: &ItemColumns) -> Vec<(Vec<String>, ItemTarget)> {
    let set = read(name, content, columns).unwrap();
    set.items
        .into_iter()
        .map(|item| (item.texts, item.target))
        .collect()
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| one.to_string()).collect()
}

#[test]
fn labels_are_a_list_or_parts_of_a_field() {
    let of_labels = columns(ItemKind::Labels, "text", "", "labels");
    let labels = |names: &[&str]| ItemTarget::Labels(strings(names));
    let rows = "{\"text\": \"x\", \"labels\": [\"b\", \"a\", \"b\"]}\n\n{\"text\": \"y\", \"labels\": []}\n";
    let expected = [
        (strings(&["x"]), labels(&["a", "b"])),
        (strings(&["y"]), labels(&[])),
    ];
    assert_eq!(items("a.jsonl", rows, &of_labels), expected);
    let table = "text,labels\nx,b; a\ny,\nz,\"[\"\"q r\"\"]\"\n";
    let found = items("a.csv", table, &of_labels);
    assert_eq!(found[..2], expected);
    assert_eq!(found[2].1, labels(&["q r"]));
}

#[test]
fn pairs_have_two_texts() {
    let pairs = columns(ItemKind::Class, "a", "b", "same");
    let found = items("a.tsv", "same\tb\ta\nyes\tq\tp\n", &pairs);
    assert_eq!(
        found,
        [(strings(&["p", "q"]), ItemTarget::Labels(strings(&["yes"])))]
    );
    let missing = read("a.tsv", "same\ta\nyes\tp\n", &pairs).unwrap_err();
    assert!(
        missing.contains("a.tsv:1") && missing.contains("\"b\""),
        "{missing}"
    );
}

#[test]
fn values_are_numbers() {
    let values = columns(ItemKind::Value, "text", "", "score");
    let found = items(
        "a.json",
        "[{\"text\": \"x\", \"score\": \" 1.5\"}, {\"text\": \"y\", \"score\": -2}]",
        &values,
    );
    assert_eq!(found[0].1, ItemTarget::Value(1.5));
    assert_eq!(found[1].1, ItemTarget::Value(-2.0));
    let wrong = read("a.csv", "text,score\nx,1\ny,high\nz,NaN\n", &values).unwrap_err();
    assert!(
        wrong.contains("\"score\" is no number in 2 (a.csv:3, a.csv:4)"),
        "{wrong}"
    );
}

#[test]
fn tags_stand_beside_their_words() {
    let tags = columns(ItemKind::Tags, "tokens", "", "tags");
    let expected = (
        strings(&["EU", "acts"]),
        ItemTarget::Tags(strings(&["B-ORG", "O"])),
    );
    for (name, content) in [
        (
            "a.jsonl",
            "{\"tokens\": [\"EU\", \"acts\"], \"tags\": [\"B-ORG\", \"O\"]}\n",
        ),
        ("a.csv", "tokens,tags\nEU acts,B-ORG O\n"),
        ("a.conll", "EU X B-ORG\nacts X O\n"),
        ("a.txt", "EU B-ORG\nacts O\n"),
        ("a.tsv", "EU\tB-ORG\nacts\tO\n"),
        ("a.tsv", "tokens\ttags\nEU acts\tB-ORG O\n"),
    ] {
        let found = items(name, content, &tags);
        assert_eq!(found, std::slice::from_ref(&expected), "{name}");
    }
    let uneven = read("a.jsonl", "{\"tokens\": [\"a\"], \"tags\": []}", &tags).unwrap_err();
    assert!(
        uneven.contains("other numbers of \"tokens\" and \"tags\" in 1 (a.jsonl:1)"),
        "{uneven}"
    );
    // A word with a blank in it stays one.
    let spaced = items(
        "a.jsonl",
        "{\"tokens\": [\"New York\"], \"tags\": [\"X\"]}",
        &tags,
    );
    assert_eq!(spaced[0].0, ["New York"]);
}

#[test]
fn answers_are_where_they_say() {
    let answers = columns(ItemKind::Answers, "context", "question", "answers");
    let rows = r#"{"context": "Él vio un pez", "question": "qué", "answers": {"text": ["un pez"], "answer_start": [7]}}
{"context": "nada", "question": "qué", "answers": {"text": [], "answer_start": []}}"#;
    let found = items("a.jsonl", rows, &answers);
    let answer = Answer {
        text: "un pez".into(),
        start: 7,
    };
    assert_eq!(found[0].1, ItemTarget::Answers(vec![answer.clone()]));
    assert_eq!(found[0].0, ["Él vio un pez", "qué"]);
    assert_eq!(found[1].1, ItemTarget::Answers(vec![]));
    let squad = r#"{"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "Él vio un pez", "qas": [
        {"id": "1", "question": "qué", "answers": [{"text": "un pez", "answer_start": 7}], "is_impossible": false},
        {"id": "2", "question": "quién", "answers": [], "is_impossible": true}]}]}]}"#;
    let found = items("dev.json", squad, &answers);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].1, ItemTarget::Answers(vec![answer]));
    assert_eq!(
        (found[1].0[1].as_str(), &found[1].1),
        ("quién", &ItemTarget::Answers(vec![]))
    );
    // A faulty question costs none of the others, and what holds no question is no question.
    let faulty = squad.replace(
        "{\"id\": \"1\"",
        "7, {\"id\": \"0\", \"answers\": []}, {\"id\": \"1\"",
    );
    let faulty = faulty.replace(
        "[{\"context\"",
        "[{\"context\": \"without questions\"}, {\"context\"",
    );
    let skipping = ItemColumns {
        bad_rows: BadRows::Skip,
        ..answers.clone()
    };
    let set = read("dev.json", &faulty, &skipping).unwrap();
    assert_eq!((set.items.len(), set.left_out.total()), (2, 3));
    let empty = "{\"paragraphs\": []},".repeat(200_000);
    let empty = format!("[{empty}{{\"paragraphs\": []}}]");
    assert!(read("dev.json", &empty, &answers).is_err());
    let bytes = rows.replace("[7]", "[8]");
    let wrong = read("a.jsonl", &bytes, &answers).unwrap_err();
    assert!(
        wrong.contains("an answer of \"answers\" is not where it says"),
        "{wrong}"
    );
}

#[test]
fn choices_come_as_lists_columns_or_with_letters() {
    let lists = columns(ItemKind::Choice, "question", "choices", "answer");
    let expected = (strings(&["q", "x", "y"]), ItemTarget::Choice(1));
    for row in [
        r#"{"question": "q", "choices": ["x", "y"], "answer": 1}"#,
        r#"{"question": "q", "choices": ["x", "y"], "answer": "B"}"#,
        r#"{"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"}"#,
    ] {
        let found = items("a.jsonl", row, &lists);
        assert_eq!(found, std::slice::from_ref(&expected), "{row}");
    }
    let apart = columns(ItemKind::Choice, "question", "a, b", "answer");
    assert_eq!(
        items("a.csv", "question,a,b,answer\nq,x,y,1\n", &apart),
        [expected]
    );
    let one = read(
        "a.jsonl",
        r#"{"question": "q", "choices": ["x"], "answer": 0}"#,
        &lists,
    )
    .unwrap_err();
    assert!(
        one.contains("\"choices\" holds fewer than two choices"),
        "{one}"
    );
    let none = read(
        "a.jsonl",
        r#"{"question": "q", "choices": ["x", "y"], "answer": 2}"#,
        &lists,
    )
    .unwrap_err();
    assert!(none.contains("\"answer\" is none of the choices"), "{none}");
}

#[test]
fn a_key_that_no_row_has_is_told_with_those_that_they_have() {
    let of_labels = columns(ItemKind::Labels, "text", "", "labels");
    let error = read(
        "a.jsonl",
        "{\"text\": \"x\", \"label\": \"a\"}\n",
        &of_labels,
    )
    .unwrap_err();
    assert!(
        error.contains("labels") && error.contains("label"),
        "{error}"
    );
    let empty = read("a.jsonl", "\n", &of_labels).unwrap_err();
    assert_eq!(empty, "a.jsonl: holds no example");
    let lines = read("a.txt", "x\n", &of_labels).unwrap_err();
    assert!(lines.starts_with("a.txt: "), "{lines}");
}

#[test]
fn rows_are_left_out_where_that_is_asked_for() {
    let skip = ItemColumns {
        bad_rows: BadRows::Skip,
        ..columns(ItemKind::Value, "text", "", "score")
    };
    let set = read("a.csv", "text,score\nx,1\n,2\ny\n", &skip).unwrap();
    assert_eq!((set.items.len(), set.left_out.total()), (1, 2));
    let error = read("a.csv", "text,score\n,2\n", &skip).unwrap_err();
    assert!(error.contains("none of its 1 rows can be used"), "{error}");
}

#[test]
fn questions_about_one_context_stay_in_one_split() {
    let question = |context: usize, number: usize| {
        let texts = vec![format!("Context  {context}"), format!("question {number}")];
        (texts, ItemTarget::Answers(vec![]))
    };
    let all = (0..60).flat_map(|context| (0..3).map(move |number| question(context, number)));
    let set = ItemSet::from_items(all);
    let ItemSplits { splits, .. } = set.split(SHARES, "questions").unwrap();
    for rows in [&splits.train, &splits.valid, &splits.test] {
        assert!(!rows.is_empty() && rows.len() % 3 == 0);
        let contexts: BTreeSet<usize> = rows.iter().map(|row| row / 3).collect();
        assert_eq!(contexts.len() * 3, rows.len());
    }
    let few = set
        .split(
            SplitShares {
                labels: 7,
                ..SHARES
            },
            "questions",
        )
        .unwrap();
    assert_eq!(few.splits.train.len(), 7);
    assert!(
        few.splits
            .train
            .iter()
            .all(|row| splits.train.contains(row))
    );
    assert!(
        few.summary.lines()[0].contains("labels used 7 of"),
        "{:?}",
        few.summary.lines()
    );
}

#[test]
fn classes_are_those_of_all_rows_in_order() {
    let row =
        |text: &str, labels: &[&str]| (vec![text.to_string()], ItemTarget::Labels(strings(labels)));
    let set = ItemSet::from_items((0..40).map(|i| {
        row(
            &format!("t{i}"),
            if i % 2 == 0 { &["b"] } else { &["a", "c"] },
        )
    }));
    let found = set.split(SHARES, "texts").unwrap();
    assert_eq!(found.classes, ["a", "b", "c"]);
    let one = ItemSet::from_items([row("x", &["a"])]);
    let error = one.split(SHARES, "texts").unwrap_err().to_string();
    assert!(error.starts_with("memory: 1 texts leave"), "{error}");
}

#[test]
fn inputs_keep_their_places_whatever_they_hold() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, "context,question\nx,p\n,q\n").unwrap();
    let source = TextSource::named(&[path.display().to_string()]).unwrap();
    let rows = read_inputs(&source, ItemKind::Answers, "context", "question").unwrap();
    assert_eq!(rows[0].texts, Ok(strings(&["x", "p"])));
    assert_eq!(rows[1].texts, Err("\"context\" is empty".into()));
    assert!(rows[1].place.ends_with("a.csv:3"));
    let bundled = TextSource::named(&["questions".into()]).unwrap();
    let rows = read_inputs(&bundled, ItemKind::Answers, "context", "question").unwrap();
    assert!(rows.len() > 1000 && rows[0].place.starts_with("bundled:questions:"));
    assert_eq!(rows[0].texts.as_ref().unwrap().len(), 2);
}
