//! States that go on from batch to batch, through the real binary.

use std::fs;

use safetensors::SafeTensors;

use crate::support::{Bench, Run, arguments};

/// Small models on sequences of four tokens.
const SETTINGS: [&str; 14] = [
    "data.source=[\"texts.txt\"]",
    "data.valid=0.2",
    "tokenizer.vocab_size=300",
    "tokenizer.max_length=4",
    "model.embedding_size=16",
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "states.carry=true",
    "training.batch_size=8",
    "training.log_every=5",
    "training.validate_every=20",
    "schedule.kind=constant",
    "schedule.warmup=0.0",
    "optimizer.lr=0.01",
];

const FAMILIES: [&str; 2] = ["model.family=hearth_lstm", "model.family=hearth_gru"];

/// Texts of one of five words, again and again, with two others between: half of the sequences do not tell which comes next.
fn bench(family: &str) -> Bench {
    let bench = Bench::new(
        env!("CARGO_BIN_EXE_pretrain"),
        &[&[family], &SETTINGS[..]].concat(),
    );
    let kinds = ["bird", "tool", "plant", "river", "metal"];
    let text = |n: usize| format!("{} in the ", kinds[n % 5]).repeat(5 + n / 5);
    let line = |n| format!("{}\n", text(n).trim_end());
    bench.write("texts.txt", (0..200).map(line).collect::<String>());
    bench
}

/// Names and shapes in a safetensors file of a run.
fn tensors(run: &Run, file: &str) -> Vec<(String, Vec<usize>)> {
    let bytes = fs::read(run.path().join(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter();
    tensors
        .map(|(name, view)| (name.to_string(), view.shape().to_vec()))
        .collect()
}

#[test]
fn a_model_that_does_not_forget_learns() {
    for family in FAMILIES {
        let bench = bench(family);
        let train = |out, settings: &[&str]| {
            let steps = ["training.steps=500"];
            bench.train(out, &arguments("clm", &[&steps, settings].concat()))
        };
        let carried = train("carried", &[]);
        let begun = train("begun", &["states.carry=false"]);
        assert!(carried.weights() != begun.weights(), "{family}");
        // Validation goes on too: what a text is of is read once, and not in every sequence.
        let best = carried.summary()["best"]["metrics"]["loss"].clone();
        let first = carried.metric("valid", "loss")[0];
        assert!(best.as_f64().unwrap() < 0.7 * first, "{family}: {best}");
        let summary = carried.summary();
        assert_eq!(
            summary["parameters"],
            begun.summary()["parameters"],
            "{family}"
        );
        assert_eq!(summary["padding_fraction"], 0.0, "{family}");
    }
}

#[test]
fn a_killed_run_on_streams_goes_on_to_the_same_end() {
    for family in FAMILIES {
        let bench = bench(family);
        let own = [
            "training.steps=200",
            "training.checkpoint_every=7",
            "training.ema=0.9",
            "model.dropout=0.1",
        ];
        let args = arguments("clm", &own);
        let whole = bench.train("whole", &args);
        for lines in [3, 30] {
            let out = format!("killed-{lines}");
            let mut child = bench.start(&out, lines, &args);
            child.kill().unwrap();
            child.wait().unwrap();
            bench.resume(&out).assert_equals(&whole);
        }
        // States are part of a checkpoint, and of no bundle and no average.
        let width = if family.ends_with("lstm") { 32 } else { 16 };
        let states = ("objective.carried.states".to_string(), vec![1, 8, width]);
        let kept = |name| tensors(&whole, &format!("checkpoints/step-00000200/{name}"));
        assert!(kept("model.safetensors").contains(&states));
        let bundle = tensors(&whole, "model/model.safetensors");
        for named in [kept("ema.safetensors"), bundle] {
            assert!(named.iter().all(|(name, _)| !name.contains("states")));
        }
    }
}

#[test]
fn a_bundle_of_either_kind_is_a_start_for_the_other() {
    let bench = bench(FAMILIES[0]);
    for (out, carry, from) in [
        ("first", "true", "scratch"),
        ("second", "false", "first"),
        ("third", "true", "second"),
    ] {
        let carry = format!("states.carry={carry}");
        let settings = ["training.steps=20", "optimizer.lr=0.0", &carry];
        let mut args = arguments("clm", &settings);
        args.extend(["--from", from]);
        bench.train(out, &args);
    }
    let [first, third] = ["first", "third"].map(|out| bench.run(out).weights());
    assert!(first == third);
}

#[test]
fn states_that_cannot_be_carried_are_refused() {
    let recurrent = bench(FAMILIES[1]);
    for (setting, words) in [
        (
            "training.packing=false",
            "states.carry is true and training.packing is false",
        ),
        (
            "training.accumulation=2",
            "training.accumulation is 2 and states.carry is true",
        ),
        (
            "training.tokens=64",
            "training.tokens is 64 and training.packing is true",
        ),
        (
            "training.batch_size=100000",
            "training.batch_size is 100000; the texts fill",
        ),
    ] {
        recurrent.refuses(&arguments("clm", &[setting]), &[words]);
    }
    let sizes = [
        "data.source=[\"texts.txt\"]",
        "states.carry=true",
        "model.n_embd=16",
        "model.n_layer=1",
        "model.n_head=2",
    ];
    let other = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &sizes);
    other.write("texts.txt", "a bird\na tool\na plant\n");
    let words = "states.carry is true, and a model of type \"gpt2\" has no states; hearth_lstm and hearth_gru have";
    other.refuses(&["clm"], &[words]);
    let output = other.bare(&["mlm", "--set", "states.carry=true"]).output();
    let message = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(
        message.contains("no recipe key \"states.carry\""),
        "{message}"
    );
}
