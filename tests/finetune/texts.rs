//! Tasks on texts other than one class, as their users meet them: pairs, several labels, values, tags, answers, choices.

use std::fmt::Write as _;
use std::fs;

use model::Bundle;
use serde_json::{Value, json};

use crate::support::{Bench, arguments};

const SETTINGS: &[&str] = &[
    "from=scratch",
    "data.valid=0.2",
    "data.test=0.2",
    "data.label_limit=0",
    "tokenizer.max_length=32",
    "model.hidden_size=32",
    "model.num_hidden_layers=1",
    "model.intermediate_size=32",
    "model.max_position_embeddings=32",
    "optimizer.lr=0.003",
    "training.steps=240",
    "training.batch_size=16",
    "training.log_every=20",
    "training.validate_every=80",
    "training.checkpoint_every=60",
];

/// Each task with its data, and the least that a small model learns of it.
const TASKS: &[(&str, &[&str], &str, f64)] = &[
    (
        "pair-classification",
        &["data.source=['pairs.csv']"],
        "accuracy",
        0.9,
    ),
    (
        "text-labels",
        &["data.source=['labels.csv']"],
        // Two of three classes at a time are two thirds by chance.
        "mean_average_precision",
        0.9,
    ),
    (
        "text-regression",
        &["data.source=['values.csv']"],
        "r2",
        0.9,
    ),
    (
        "token-classification",
        &["data.source=['tags.conll']"],
        "entity_f1",
        0.95,
    ),
    (
        "question-answering",
        &["data.source=['questions.jsonl']"],
        "exact_match",
        0.7,
    ),
    (
        "multiple-choice",
        &["data.source=['choices.jsonl']"],
        "accuracy",
        0.9,
    ),
];

const ANIMALS: [&str; 4] = ["bird", "cat", "horse", "fish"];
const TOOLS: [&str; 4] = ["knife", "hammer", "needle", "spoon"];

fn bench() -> Bench {
    let bench = Bench::new(env!("CARGO_BIN_EXE_finetune"), SETTINGS);
    let [mut pairs, mut labels, mut values] =
        ["first,second,label\n", "text,labels\n", "text,score\n"].map(String::from);
    let [mut tags, mut questions, mut choices] = ["", "", ""].map(String::from);
    for number in 0..240 {
        let (animal, tool) = (ANIMALS[number % 4], TOOLS[number / 4 % 4]);
        let odd = number % 2 == 1;
        let second = if odd { animal } else { tool };
        let kind = if odd { "alive" } else { "made" };
        writeln!(pairs, "a thing of {number},the {second} here,{kind}").unwrap();
        let words = match number % 3 {
            0 => (format!("{number} {animal}"), "animal"),
            1 => (format!("{number} {tool}"), "tool"),
            _ => (format!("{number} {animal} {tool}"), "animal;tool"),
        };
        writeln!(labels, "{},{}", words.0, words.1).unwrap();
        let score = f64::from(u8::from(odd)) * 30.0 + 100.0;
        writeln!(values, "{number} of the {second},{score}").unwrap();
        writeln!(
            tags,
            "the O\nold B-THING\n{tool} I-THING\nsaw O\n{number} O\n{animal} B-BEAST\n"
        )
        .unwrap();
        let context = format!("{number}: the {animal} took the {tool}");
        let answers = if number % 5 == 0 {
            json!({"text": [], "answer_start": []})
        } else {
            json!({"text": [tool], "answer_start": [context.find(tool).unwrap()]})
        };
        let question = if number % 5 == 0 {
            "who was the king"
        } else {
            "what did it take"
        };
        let row = json!({"context": context, "question": question, "answers": answers});
        writeln!(questions, "{row}").unwrap();
        let mut both = vec![animal, tool];
        if number % 7 == 0 {
            both.push(TOOLS[(number + 1) % 4]);
        }
        let right = if odd { 1 } else { 0 };
        if odd {
            both.swap(0, 1);
        }
        let row = json!({"question": format!("{number} which is alive"), "choices": both, "answer": right});
        writeln!(choices, "{row}").unwrap();
    }
    for (name, content) in [
        ("pairs.csv", pairs),
        ("labels.csv", labels),
        ("values.csv", values),
        ("tags.conll", tags),
        ("questions.jsonl", questions),
        ("choices.jsonl", choices),
    ] {
        bench.write(name, content);
    }
    bench
}

#[test]
fn each_task_is_learned_and_leaves_a_bundle() {
    let bench = bench();
    for (name, settings, metric, least) in TASKS {
        let run = bench.train(name, &arguments(name, settings));
        let test = run.metric("test", metric);
        assert!(test[0] >= *least, "{name}: {metric} {test:?}");
        let losses = run.metric("valid", "loss");
        assert!(
            losses.iter().all(|loss| loss.is_finite()),
            "{name}: {losses:?}"
        );
    }
    let config = |name: &str| bench.run(name).config();
    let class = |name: &str| config(name)["architectures"][0].clone();
    assert_eq!(
        class("pair-classification"),
        "BertForSequenceClassification"
    );
    assert_eq!(class("token-classification"), "BertForTokenClassification");
    assert_eq!(class("question-answering"), "BertForQuestionAnswering");
    assert_eq!(class("multiple-choice"), "BertForMultipleChoice");
    assert_eq!(
        config("text-labels")["problem_type"],
        "multi_label_classification"
    );
    assert_eq!(config("text-regression")["problem_type"], "regression");
    // How answers are found is kept, for those who ask later.
    let answers = config("question-answering")["answers"].clone();
    let expected = json!({"stride": 32, "longest": 30, "no_answer_threshold": 0.0});
    assert_eq!(answers, expected);
    let tags = config("token-classification")["id2label"].clone();
    assert_eq!((&tags["0"], &tags["3"]), (&json!("B-BEAST"), &json!("O")));
}

#[test]
fn each_task_stopped_at_any_step_goes_on_to_the_same_end() {
    let bench = bench();
    for (name, settings, _, _) in TASKS {
        let few = [
            "training.steps=16",
            "training.validate_every=4",
            "training.checkpoint_every=3",
            "training.log_every=2",
        ];
        let dropped = ["model.dropout=0.1"];
        let settings = [settings, &few[..], &dropped].concat();
        let whole = bench.train(&format!("{name}-whole"), &arguments(name, &settings));
        let out = format!("{name}-cut");
        let mut child = bench.start(&out, 4, &arguments(name, &settings));
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&out).assert_equals(&whole);
    }
}

#[test]
fn families_have_the_heads_that_transformers_has() {
    let bench = bench();
    let few = ["training.steps=2", "training.validate_every=2"];
    let sizes = |family: &str| -> Vec<String> {
        let keys = match family {
            "gpt2" => ["n_embd", "n_layer", "n_inner", "n_positions"],
            "distilbert" => ["dim", "n_layers", "hidden_dim", "max_position_embeddings"],
            _ => [
                "hidden_size",
                "num_hidden_layers",
                "intermediate_size",
                "max_position_embeddings",
            ],
        };
        let sizes = keys.iter().zip([16, 1, 32, 64]);
        sizes
            .map(|(key, size)| format!("model.{key}={size}"))
            .collect()
    };
    for family in ["roberta", "distilbert", "gpt2", "llama", "qwen2"] {
        for (name, source, _, _) in &TASKS[3..] {
            let is_choice = *name == "multiple-choice";
            let of_family = format!("model.family={family}");
            let own = sizes(family);
            // The sizes that the bench sets are BERT's.
            let mut settings = vec![of_family.as_str()];
            settings.extend(own.iter().map(String::as_str));
            settings.extend(few);
            settings.extend(source.iter());
            let bench_of_family = Bench::new(
                env!("CARGO_BIN_EXE_finetune"),
                &[
                    "from=scratch",
                    "data.valid=0.2",
                    "data.test=0.2",
                    "tokenizer.max_length=32",
                    "training.batch_size=8",
                ],
            );
            for file in ["tags.conll", "questions.jsonl", "choices.jsonl"] {
                bench_of_family.write(file, fs::read(bench.path(file)).unwrap());
            }
            if is_choice && matches!(family, "gpt2" | "llama" | "qwen2") {
                let words = ["cannot be made; bert, roberta, distilbert"];
                bench_of_family.refuses(&arguments(name, &settings), &words);
                continue;
            }
            let run = bench_of_family.train("run", &arguments(name, &settings));
            let losses = run.metric("valid", "loss");
            assert!(losses[0].is_finite(), "{family} {name}: {losses:?}");
        }
    }
}

#[test]
fn a_head_is_kept_or_drawn_anew_and_a_task_starts_from_another() {
    let bench = bench();
    let tags = TASKS[3].1;
    bench.train("tags", &arguments("token-classification", tags));
    // Another seed, as the backbone has learned to suit the head that the first draws.
    let still = [
        "seed=9",
        "from='tags'",
        "optimizer.lr=1e-30",
        "training.steps=2",
        "training.validate_every=1",
    ];
    let kept = [tags, &still[..], &["strategy.head='keep'"]].concat();
    let kept = bench.train("kept", &arguments("token-classification", &kept));
    assert!(kept.metric("valid", "entity_f1")[0] > 0.9);
    let new = [tags, &still[..]].concat();
    let new = bench.train("new", &arguments("token-classification", &new));
    assert!(new.metric("valid", "entity_f1")[0] < 0.9);
    // Another head on the backbone of the first.
    let other = [
        TASKS[4].1,
        &[
            "from='tags'",
            "training.steps=2",
            "training.validate_every=1",
        ],
    ]
    .concat();
    bench.train("answers", &arguments("question-answering", &other));
    let keep = [TASKS[4].1, &["from='tags'", "strategy.head='keep'"]].concat();
    let words = ["a model that finds answers is needed here"];
    bench.refuses(&arguments("question-answering", &keep), &words);
}

#[test]
fn adapters_train_beside_every_head() {
    let bench = bench();
    for (name, settings, _, _) in TASKS {
        let few = [
            "training.steps=2",
            "training.validate_every=2",
            "adapter.kind=lora",
            "adapter.rank=2",
        ];
        let run = bench.train(
            &format!("{name}-lora"),
            &arguments(name, &[settings, &few[..]].concat()),
        );
        let adapter = run.path().join("model/adapter/adapter_config.json");
        let adapter: Value = serde_json::from_slice(&fs::read(adapter).unwrap()).unwrap();
        assert_ne!(adapter["modules_to_save"], Value::Null, "{name}");
    }
}

#[test]
fn an_adapter_says_what_it_was_trained_for() {
    let bench = bench();
    let few = ["training.steps=2", "training.validate_every=2"];
    let base = [TASKS[0].1, &few].concat();
    bench.train("base", &arguments(TASKS[0].0, &base));
    for (name, settings, _, _) in TASKS {
        let own = ["from='base'", "adapter.kind=lora", "adapter.rank=2"];
        let settings = [settings, &few[..], &own].concat();
        let run = bench.train(&format!("{name}-lora"), &arguments(name, &settings));
        let merged = Bundle::open(&run.path().join("model")).unwrap();
        let adapter = Bundle::open(&run.path().join("model/adapter")).unwrap();
        assert!(adapter.has_adapter());
        assert_eq!(adapter.head(), merged.head(), "{name}");
        assert!(adapter.require(merged.head()).is_ok(), "{name}");
        for key in ["id2label", "problem_type", "answers"] {
            let [ours, theirs] = [&adapter, &merged].map(|bundle| &bundle.raw_config()[key]);
            assert_eq!(ours, theirs, "{name}: {key}");
        }
    }
}

#[test]
fn what_is_impossible_is_said_with_its_key_or_place() {
    let bench = bench();
    bench.write(
        "short.jsonl",
        "{\"tokens\": [\"a\", \"b\"], \"tags\": [\"X\"]}\n",
    );
    bench.write("one.conll", "a X\nb X\n\nc X\n\nd X\n\ne X\n\nf X\n\ng X\n");
    bench.write("moved.jsonl", "{\"context\": \"abc\", \"question\": \"q\", \"answers\": {\"text\": [\"c\"], \"answer_start\": [1]}}\n");
    bench.write(
        "far.jsonl",
        "{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": 7}\n",
    );
    let refuse = "data.bad_rows='refuse'";
    for (name, settings, words) in [
        (
            "text-regression",
            &["data.source=[]"][..],
            "data.source is empty; name a table",
        ),
        (
            "pair-classification",
            &["data.text_pair=''"],
            "data.text_pair is empty; name the column of the second text",
        ),
        (
            "multiple-choice",
            &["data.text_pair=''"],
            "name the column of the choices",
        ),
        (
            "question-answering",
            &["data.text_pair=''"],
            "name the column of the questions",
        ),
        (
            "question-answering",
            &["answers.longest=0"],
            "answers.longest is 0",
        ),
        (
            "text-labels",
            &["labels.threshold=1.0"],
            "labels.threshold is 1",
        ),
        (
            "token-classification",
            &["data.source=['short.jsonl']", refuse],
            "other numbers of \"tokens\" and \"tags\" in 1 (short.jsonl:1)",
        ),
        (
            "token-classification",
            &["data.source=['one.conll']"],
            "data.label_column holds 1 different values; there must be at least 2",
        ),
        (
            "question-answering",
            &["data.source=['moved.jsonl']", refuse],
            "an answer of \"answers\" is not where it says in 1 (moved.jsonl:1)",
        ),
        (
            "multiple-choice",
            &["data.source=['far.jsonl']", refuse],
            "\"answer\" is none of the choices in 1 (far.jsonl:1)",
        ),
        (
            "text-regression",
            &["data.source=['labels.csv']"],
            "\"score\"",
        ),
        (
            "pair-classification",
            &["data.source=['pairs.csv']", "data.text='none'"],
            "\"none\"",
        ),
        (
            "token-classification",
            &["data.source=['tags.conll']", "training.packing=true"],
            "training.packing",
        ),
        (
            "text-classification",
            &["data.source=['tags.conll']"],
            "token-classification",
        ),
        (
            "token-classification",
            &["data.source=['tags.conll']", "entities.scheme='bio'"],
            "unknown variant `bio`",
        ),
        (
            "question-answering",
            &[
                "data.source=['questions.jsonl']",
                "answers.no_answer_threshold=inf",
            ],
            "answers.no_answer_threshold",
        ),
    ] {
        bench.refuses(&arguments(name, settings), &[words]);
    }
    // Sizes of another family would be refused first.
    let plain = Bench::new(env!("CARGO_BIN_EXE_finetune"), &["from=scratch"]);
    plain.refuses(
        &arguments("pair-classification", &["model.family='bart'"]),
        &["model.family is \"bart\", which is no family for this; these are: bert"],
    );
}
