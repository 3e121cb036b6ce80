//! Replaced tokens and pairs of segments, through the real binary.

use std::fs;

use crate::support::{Bench, Run, arguments, message};

/// Few steps on tiny models.
const SETTINGS: [&str; 12] = [
    "data.source=[\"texts.txt\"]",
    "data.valid=0.2",
    "tokenizer.vocab_size=300",
    "tokenizer.max_length=20",
    "model.hidden_size=16",
    "model.num_hidden_layers=2",
    "model.intermediate_size=32",
    "model.max_position_embeddings=20",
    "training.batch_size=8",
    "training.validate_every=50",
    "schedule.kind=constant",
    "optimizer.lr=0.01",
];

/// Texts that differ in a word or two and in their numbers.
fn bench(settings: &[&str]) -> Bench {
    let settings = [&SETTINGS, settings].concat();
    let bench = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &settings);
    let kinds = ["bird", "tool", "plant", "river", "metal"];
    let places = ["water", "town", "wall"];
    let text = |n: usize| {
        let (kind, place) = (kinds[n % 5], places[n / 5 % 3]);
        let (hundreds, tens, ones) = (n / 100, n / 10 % 10, n % 10);
        format!("an old {kind} in the {place} of {hundreds} {tens} {ones}\n")
    };
    bench.write("texts.txt", (0..300).map(text).collect::<String>());
    bench
}

fn electra() -> Bench {
    bench(&["model.embedding_size=8", "masking.rate=0.3"])
}

fn sets<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings
        .iter()
        .flat_map(|setting| ["--set", setting])
        .collect()
}

/// Names in the bundle's weights.
fn names(run: &Run) -> Vec<String> {
    let file = run.weights();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    file.names().into_iter().map(str::to_string).collect()
}

/// A run that is killed after so many lines of its log, and resumed, is the run that was not; whatever its micro-batches.
fn assert_resumable(bench: &Bench, objective: &str) {
    let own = [
        "training.log_every=5",
        "training.validate_every=14",
        "training.checkpoint_every=7",
        "training.accumulation=2",
        "model.dropout=0.1",
    ];
    let args = [&[objective, "--steps", "200"], &sets(&own)[..]].concat();
    let whole = bench.train("whole", &args);
    for lines in [2, 9] {
        let out = format!("killed-{lines}");
        let mut child = bench.start(&out, lines, &args);
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&out).assert_equals(&whole);
    }
}

// Replaced tokens.

#[test]
fn an_encoder_learns_to_find_replaced_tokens() {
    let bench = electra();
    let run = bench.train("run", &["electra", "--steps", "300"]);
    let losses = run.metric("valid", "loss");
    let best = losses.iter().copied().fold(f64::MAX, f64::min);
    assert!(best < 0.9 * losses[0], "{losses:?}");
    let metrics = &run.summary()["best"]["metrics"];
    let figure = |name: &str| metrics[name].as_f64().unwrap();
    for name in [
        "accuracy",
        "precision",
        "recall",
        "f1",
        "generator_accuracy",
    ] {
        assert!((0.0..=1.0).contains(&figure(name)), "{metrics}");
    }
    // Of some sixty words few can stand in each place.
    assert!(figure("generator_perplexity") < 20.0, "{metrics}");
    assert!(figure("f1") > 0.4, "{metrics}");
    assert_eq!(run.config()["architectures"][0], "ElectraForPreTraining");
    assert_eq!(run.config()["embedding_size"], 8);
    let kept = ["electra.", "discriminator_predictions."];
    let is_kept = |name: &String| kept.iter().any(|part| name.starts_with(part));
    assert!(names(&run).iter().all(is_kept), "no generator");
}

#[test]
fn a_killed_run_on_replaced_tokens_goes_on_to_the_same_end() {
    assert_resumable(&electra(), "electra");
}

#[test]
fn electra_goes_on_from_any_of_its_heads_and_is_a_start() {
    let bench = electra();
    bench.train(
        "masked",
        &["mlm", "--steps", "10", "--set", "model.family=electra"],
    );
    let still = |objective, from, out| {
        let settings = [
            "model.family=electra",
            "optimizer.lr=0.0",
            "training.validate_every=5",
        ];
        let args = [
            &[objective, "--from", from, "--steps", "5"],
            &sets(&settings)[..],
        ]
        .concat();
        bench.train(out, &args)
    };
    let backbone = |run: &Run| {
        let file = run.weights();
        let file = safetensors::SafeTensors::deserialize(&file).unwrap();
        let inside = file
            .names()
            .into_iter()
            .filter(|name| name.starts_with("electra."));
        let tensors =
            inside.map(|name| (name.to_string(), file.tensor(name).unwrap().data().to_vec()));
        tensors.collect::<std::collections::BTreeMap<_, _>>()
    };
    // At a rate of 0 the backbone is the one that it started from.
    let first = still("electra", "masked", "first");
    assert!(backbone(&first) == backbone(&bench.run("masked")));
    let second = still("electra", "first", "second");
    assert!(second.weights() == first.weights());
    let back = still("mlm", "second", "back");
    assert!(backbone(&back) == backbone(&first));
    assert_eq!(back.config()["architectures"][0], "ElectraForMaskedLM");
}

#[test]
fn replaced_tokens_refuse_what_makes_no_sense() {
    let bench = electra();
    for (args, words) in [
        (
            &["--set", "generator.size=0.0"][..],
            "generator.size is 0; it must be above 0",
        ),
        (
            &["--set", "generator.size=0.7"],
            "generator.size is 0.7, which is impossible: 3 attention heads do not divide a width of 11",
        ),
        (
            &["--from", "wordnet-bert-nano"],
            "wordnet-bert-nano: its family is \"bert\", of which a model that finds replaced tokens cannot be made; electra can",
        ),
        (&["--set", "adapter.kind=lora"], "adapter.kind is lora"),
    ] {
        bench.refuses(&[&["electra"], args].concat(), &[words]);
    }
    let bert = self::bench(&["model.family=bert"]);
    let words = "model.family is \"bert\", of which a model that finds replaced tokens cannot be made; electra can";
    bert.refuses(&["electra"], &[words]);
}

// Pairs of segments.

#[test]
fn an_encoder_learns_the_order_of_segments() {
    let bench = bench(&["model.type_vocab_size=2"]);
    for kind in ["order", "next"] {
        let setting = format!("pairs.kind={kind}");
        let args = ["sentence-pairs", "--steps", "300", "--set", &setting];
        let run = bench.train(kind, &args);
        let losses = run.metric("valid", "loss");
        let best = losses.iter().copied().fold(f64::MAX, f64::min);
        assert!(best < 0.8 * losses[0], "{kind}: {losses:?}");
        let figures = run.metric("valid", "pair_accuracy");
        // A text that does not begin as all do is plain to see.
        let least = if kind == "order" { 0.8 } else { 0.4 };
        let most = figures.iter().copied().fold(0.0, f64::max);
        assert!(most > least, "{kind}: {figures:?}");
        assert!(
            run.metric("valid", "perplexity")
                .iter()
                .all(|figure| *figure > 1.0)
        );
        assert_eq!(run.config()["architectures"][0], "BertForPreTraining");
        let names = names(&run);
        for name in [
            "bert.pooler.dense.weight",
            "cls.seq_relationship.weight",
            "cls.predictions.bias",
        ] {
            assert!(names.iter().any(|found| found == name), "{name}");
        }
    }
}

#[test]
fn a_killed_run_on_pairs_goes_on_to_the_same_end() {
    for kind in ["order", "next"] {
        let setting = format!("pairs.kind={kind}");
        assert_resumable(&bench(&[&setting]), "sentence-pairs");
    }
}

#[test]
fn pairs_go_on_from_masks_and_masks_from_pairs() {
    let bench = bench(&[]);
    bench.train("masked", &["mlm", "--steps", "10"]);
    let more = |objective, from, out| {
        let args = [
            objective,
            "--from",
            from,
            "--steps",
            "5",
            "--set",
            "training.validate_every=5",
        ];
        bench.train(out, &args)
    };
    let pairs = more("sentence-pairs", "masked", "pairs");
    assert!(names(&pairs).contains(&"cls.seq_relationship.bias".to_string()));
    let back = more("mlm", "pairs", "back");
    assert_eq!(back.config()["architectures"][0], "BertForMaskedLM");
}

#[test]
fn texts_of_a_word_are_no_pairs() {
    let bench = bench(&[]);
    let some: String = (0..300)
        .map(|n| {
            if n % 3 == 0 {
                format!("word{n}\n")
            } else {
                format!("the word {n}\n")
            }
        })
        .collect();
    bench.write("texts.txt", some);
    let args = [
        "sentence-pairs",
        "--steps",
        "5",
        "--set",
        "training.validate_every=5",
        "--ui",
        "plain",
    ];
    let (_, output) = bench.finish(bench.command(&args).args(["--out", "run"]), "run");
    let printed = message(&output) + &String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("have less than two words, and are no pairs"),
        "{printed}"
    );
    fs::remove_dir_all(bench.path("run")).unwrap();
    let single: String = (0..300).map(|n| format!("{n}\n")).collect();
    bench.write("texts.txt", single);
    bench.refuses(&["sentence-pairs"], &["no text has two words"]);
}

#[test]
fn pairs_refuse_what_makes_no_sense() {
    let bench = bench(&[]);
    for (setting, words) in [
        (
            "tokenizer.max_length=4",
            "two words with three special tokens need 5",
        ),
        ("training.packing=true", "training.packing is true"),
        ("adapter.kind=lora", "adapter.kind is lora"),
    ] {
        bench.refuses(&["sentence-pairs", "--set", setting], &[words]);
    }
    let roberta = ["model.family=roberta", "model.max_position_embeddings=24"];
    bench.refuses(
        &arguments("sentence-pairs", &roberta),
        &["model.family is \"roberta\", of which a model of pairs of segments cannot be made; bert can"],
    );
}

#[test]
fn the_recipes_explain_every_key() {
    let bench = bench(&[]);
    for objective in ["electra", "sentence-pairs"] {
        let output = bench.bare(&[objective, "--explain"]).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && printed.contains("share of the tokens that"),
            "{printed}"
        );
    }
    let output = bench.bare(&["--list"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.lines().any(|line| line.starts_with("electra")),
        "{printed}"
    );
}
