//! Classifiers of every family and with adapters, through the real binary.

use std::fs;

use crate::support::{Bench, Run};
use serde_json::Value;

/// Families with sizes.
const FAMILIES: [(&str, &[&str]); 7] = [
    (
        "BertForSequenceClassification",
        &[
            "model.hidden_size=16",
            "model.num_hidden_layers=2",
            "model.intermediate_size=32",
            "model.max_position_embeddings=16",
        ],
    ),
    (
        "RobertaForSequenceClassification",
        &[
            "model.family=roberta",
            "model.hidden_size=16",
            "model.num_hidden_layers=2",
            "model.intermediate_size=32",
            "model.max_position_embeddings=18",
        ],
    ),
    (
        "DistilBertForSequenceClassification",
        &[
            "model.family=distilbert",
            "model.dim=16",
            "model.n_layers=2",
            "model.hidden_dim=32",
            "model.max_position_embeddings=16",
        ],
    ),
    (
        "ElectraForSequenceClassification",
        &[
            "model.family=electra",
            "model.embedding_size=24",
            "model.hidden_size=16",
            "model.num_hidden_layers=2",
            "model.intermediate_size=32",
            "model.max_position_embeddings=16",
        ],
    ),
    (
        "GPT2ForSequenceClassification",
        &[
            "model.family=gpt2",
            "model.n_embd=16",
            "model.n_layer=2",
            "model.n_head=2",
            "model.n_inner=32",
            "model.n_positions=16",
        ],
    ),
    (
        "LlamaForSequenceClassification",
        &[
            "model.family=llama",
            "model.hidden_size=16",
            "model.num_hidden_layers=2",
            "model.num_attention_heads=4",
            "model.num_key_value_heads=2",
            "model.intermediate_size=32",
            "model.max_position_embeddings=16",
        ],
    ),
    (
        "Qwen2ForSequenceClassification",
        &[
            "model.family=qwen2",
            "model.hidden_size=16",
            "model.num_hidden_layers=2",
            "model.num_attention_heads=4",
            "model.num_key_value_heads=2",
            "model.intermediate_size=32",
            "model.max_position_embeddings=16",
        ],
    ),
];

fn bench(sizes: &[&str]) -> Bench {
    let settings = [
        "data.source=[\"texts.csv\"]",
        "data.valid=0.2",
        "data.test=0.2",
        "tokenizer.max_length=16",
        "training.steps=20",
        "training.batch_size=8",
        "training.log_every=2",
        "training.validate_every=5",
        "optimizer.lr=0.01",
    ];
    let all = [sizes, &settings].concat();
    let bench = Bench::new(env!("CARGO_BIN_EXE_finetune"), &all);
    let classes = [("bird", "animal"), ("knife", "tool"), ("river", "water")];
    let row = |n: usize| {
        let (word, class) = classes[n % 3];
        format!("{n} of the old {word}s,{class}\n")
    };
    let rows = (0..300).map(row).collect::<String>();
    bench.write("texts.csv", format!("text,label\n{rows}"));
    bench
}

#[test]
fn every_family_learns_and_is_a_start_for_more() {
    for (class, sizes) in FAMILIES {
        let bench = bench(sizes);
        let run = bench.train("run", &["--set", "from=scratch", "--steps", "400"]);
        assert_eq!(run.config()["architectures"][0], class);
        let accuracy = run.summary()["test"]["metrics"]["accuracy"]
            .as_f64()
            .unwrap();
        // A third by chance.
        assert!(accuracy > 0.6, "{class}: {accuracy}");
        let again = bench.train("again", &["--from", "run", "--steps", "2"]);
        assert_eq!(again.config()["architectures"][0], class);
        assert_eq!(again.config()["vocab_size"], run.config()["vocab_size"]);
    }
}

#[test]
fn settings_that_would_change_nothing_are_refused() {
    let bench = bench(FAMILIES[0].1);
    let scratch = ["--set", "from=scratch"];
    for (settings, words) in [
        (
            &["--set", "adapter.kind=lora", "--set", "strategy.kind=head"][..],
            "adapter.kind",
        ),
        (
            &[
                "--set",
                "adapter.kind=lora",
                "--set",
                "strategy.backbone_lr=0.1",
            ],
            "adapter.kind",
        ),
        (&["--set", "strategy.dropout=0.5"], "strategy.dropout"),
    ] {
        bench.refuses(&[&scratch, settings].concat(), &[words]);
    }
}

#[test]
fn an_adapter_trains_with_a_new_head_of_every_family() {
    for (class, sizes) in FAMILIES {
        let bench = bench(sizes);
        bench.train("base", &["--set", "from=scratch"]);
        let args = [
            "--from",
            "base",
            "--set",
            "adapter.kind=lora",
            "--set",
            "adapter.rank=2",
        ];
        let run = bench.train("run", &args);
        let parameters = &run.summary()["parameters"];
        let [total, trainable] =
            ["total", "trainable"].map(|key| parameters[key].as_u64().unwrap());
        assert!(
            trainable > 0 && trainable * 10 < total,
            "{class}: {trainable} of {total}"
        );
        let settings = fs::read(run.path().join("model/adapter/adapter_config.json")).unwrap();
        let settings: Value = serde_json::from_slice(&settings).unwrap();
        assert_eq!(settings["task_type"], "SEQ_CLS");
        assert!(settings["modules_to_save"].is_array(), "{settings}");
    }
}

#[test]
fn a_killed_adapter_goes_on_to_the_same_end() {
    let bench = bench(FAMILIES[0].1);
    bench.train("base", &["--set", "from=scratch"]);
    let args = [
        "--from",
        "base",
        "--steps",
        "150",
        "--set",
        "adapter.kind=lora",
        "--set",
        "adapter.dropout=0.1",
        "--set",
        "optimizer.unfreeze_every=20",
        "--set",
        "training.ema=0.9",
        "--set",
        "training.checkpoint_every=7",
    ];
    let whole = bench.train("whole", &args);
    for lines in [2, 20, 50] {
        let out = format!("killed-{lines}");
        let mut child = bench.start(&out, lines, &args);
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&out).assert_equals(&whole);
    }
}

#[test]
fn dropout_of_a_bundle_is_what_it_says_or_what_the_recipe_says() {
    for (class, sizes) in FAMILIES {
        let bench = bench(sizes);
        bench.train(
            "base",
            &["--set", "from=scratch", "--set", "model.dropout=0.3"],
        );
        let rates = |run: &Run| -> Vec<f64> {
            let config = run.config();
            let keys = config.as_object().unwrap().iter();
            let rates = keys.filter(|(key, _)| key.contains("drop"));
            rates.filter_map(|(_, rate)| rate.as_f64()).collect()
        };
        let kept = bench.train("kept", &["--from", "base", "--steps", "2"]);
        assert!(rates(&kept).iter().all(|rate| *rate == 0.3), "{class}");
        let none = [
            "--from",
            "base",
            "--steps",
            "2",
            "--set",
            "strategy.dropout=0.0",
        ];
        let none = bench.train("none", &none);
        assert!(rates(&none).iter().all(|rate| *rate == 0.0), "{class}");
        assert!(none.weights() != kept.weights(), "{class}");
    }
}
