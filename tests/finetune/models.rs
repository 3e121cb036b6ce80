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

/// Kinds of adapters that are not merged, each with its settings.
const BESIDE: [(&str, &[&str]); 3] = [
    ("bottleneck", &["adapter.rank=4"]),
    ("prompt", &["adapter.virtual_tokens=3"]),
    ("prefix", &["adapter.virtual_tokens=3"]),
];

/// Ten tokens a text, so that positions are left for virtual ones.
fn beside<'a>(kind: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let settings = ["tokenizer.max_length=10", kind];
    let all = settings.iter().chain(more);
    all.flat_map(|setting| ["--set", setting]).collect()
}

#[test]
fn adapters_beside_the_weights_learn_with_a_new_head_of_every_family() {
    for (class, sizes) in FAMILIES {
        let bench = bench(sizes);
        // Two of them in full; of the others that they train at all.
        let learns = class.starts_with("Bert") || class.starts_with("GPT2");
        let steps = if learns { "400" } else { "20" };
        let scratch = ["--set", "from=scratch", "--set", "tokenizer.max_length=10"];
        let base = bench.train("base", &[&scratch[..], &["--steps", steps]].concat());
        let accuracy = |run: &Run| {
            let accuracy = &run.summary()["test"]["metrics"]["accuracy"];
            accuracy.as_f64().unwrap()
        };
        for (kind, settings) in BESIDE {
            let own = format!("adapter.kind={kind}");
            let args = [
                &["--from", "base", "--steps", steps],
                &*beside(&own, settings),
            ]
            .concat();
            let run = bench.train(kind, &args);
            let parameters = &run.summary()["parameters"];
            let [total, trainable] =
                ["total", "trainable"].map(|key| parameters[key].as_u64().unwrap());
            assert!(
                trainable > 0 && trainable * 5 < total,
                "{class} {kind}: {trainable} of {total}"
            );
            // A third by chance; the base has learnt the same classes.
            let [ours, whole] = [&run, &base].map(accuracy);
            let enough = ours > 0.5 && ours > whole - 0.15;
            assert!(enough || !learns, "{class} {kind}: {ours}, not {whole}");
            assert_eq!(run.config()["hearth_adapter"], "adapter");
            let bundle = model::Bundle::find(run.path()).unwrap();
            assert!(bundle.beside().is_some() && !bundle.has_adapter());
            let folder = run.path().join("model/adapter");
            assert!(model::Bundle::find(&folder).unwrap().has_adapter());
            let words = [
                "cannot be merged into its model",
                "start from its base model",
            ];
            bench.refuses(&["--from", kind], &words);
        }
    }
}

#[test]
fn a_killed_adapter_beside_the_weights_goes_on_to_the_same_end() {
    let bench = bench(FAMILIES[0].1);
    bench.train(
        "base",
        &["--set", "from=scratch", "--set", "tokenizer.max_length=10"],
    );
    for (kind, settings) in BESIDE {
        let own = format!("adapter.kind={kind}");
        let more = [
            settings,
            &["training.ema=0.9", "training.checkpoint_every=7"],
        ]
        .concat();
        let args = [&["--from", "base", "--steps", "60"], &*beside(&own, &more)].concat();
        let whole = bench.train(&format!("{kind}-whole"), &args);
        let name = format!("{kind}-killed");
        let mut child = bench.start(&name, 4, &args);
        child.kill().unwrap();
        child.wait().unwrap();
        let run = bench.resume(&name);
        run.assert_equals(&whole);
        let own = |run: &Run| {
            let path = run.path().join("model/adapter/adapter_model.safetensors");
            fs::read(path).unwrap()
        };
        assert!(own(&run) == own(&whole), "{kind}");
    }
}

#[test]
fn adapters_beside_the_weights_are_refused_where_they_cannot_be() {
    let bench = self::bench(FAMILIES[0].1);
    let scratch = ["--set", "from=scratch"];
    for (settings, words) in [
        (
            &[
                "adapter.kind=prompt",
                "adapter.virtual_tokens=3",
                "tokenizer.max_length=10",
                "strategy.kind=head",
            ][..],
            "adapter.kind is prompt, which decides by itself what trains",
        ),
        (
            &["adapter.kind=prompt", "adapter.virtual_tokens=0"],
            "adapter.virtual_tokens is 0",
        ),
        (
            &["adapter.kind=prefix", "adapter.virtual_tokens=16"],
            "adapter.virtual_tokens is 16, which with the 16 tokens of a text",
        ),
        (
            &["adapter.kind=prompt", "adapter.virtual_tokens=3"],
            "more than the model's 16 positions",
        ),
        (
            &["adapter.kind=prompt", "training.packing=true"],
            "every text needs a row of its own",
        ),
        (
            &["adapter.kind=bottleneck", "adapter.targets=[\"c_proj\"]"],
            "c_proj, and no linear layer has such a name",
        ),
    ] {
        let sets: Vec<&str> = settings.iter().flat_map(|one| ["--set", one]).collect();
        bench.refuses(&[&scratch[..], &sets].concat(), &[words]);
    }
    let recurrent = self::bench(&["model.family=hearth_lstm"]);
    let words = ["\"prefix\", which is not implemented for hearth_lstm; it is for bert"];
    recurrent.refuses(
        &[&scratch[..], &["--set", "adapter.kind=prefix"]].concat(),
        &words,
    );
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
