//! Classifiers of texts from larger ones, through the real binary.

use crate::support::{Bench, arguments};

const SETTINGS: [&str; 14] = [
    "from=scratch",
    "data.source=[\"texts.csv\"]",
    "data.valid=0.2",
    "data.test=0.2",
    "tokenizer.max_length=16",
    "model.hidden_size=32",
    "model.num_hidden_layers=2",
    "model.intermediate_size=32",
    "model.max_position_embeddings=16",
    "optimizer.lr=0.003",
    "training.steps=24",
    "training.batch_size=8",
    "training.log_every=2",
    "training.validate_every=6",
];

/// Learns from the run in `teacher`.
const TAUGHT: &str = "distillation.teacher=teacher";

/// 300 texts with a word that gives the class away.
fn table(classes: [&str; 3]) -> String {
    let words = [["bird", "cat"], ["knife", "axe"], ["river", "sea"]];
    let row = |n: usize| {
        let word = words[n % 3][n / 3 % 2];
        format!("{n} of the old {word}s,{}\n", classes[n % 3])
    };
    format!("text,label\n{}", (0..300).map(row).collect::<String>())
}

/// A bench with a teacher.
fn bench() -> Bench {
    let bench = Bench::new(env!("CARGO_BIN_EXE_finetune"), &SETTINGS);
    bench.write("texts.csv", table(["animal", "tool", "water"]));
    bench.train("teacher", &["text-classification", "--steps", "150"]);
    bench
}

#[test]
fn half_the_layers_of_a_classifier_are_a_classifier() {
    let bench = bench();
    let settings = [TAUGHT, "distillation.layers=[1]", "training.steps=100"];
    let run = bench.train("run", &arguments("text-distillation", &settings));
    let (config, teacher) = (run.config(), bench.run("teacher").config());
    assert_eq!(config["num_hidden_layers"], 1);
    assert_eq!(config["id2label"], teacher["id2label"]);
    assert_eq!(config["architectures"], teacher["architectures"]);
    let metrics = &run.summary()["test"]["metrics"];
    let metric = |name: &str| metrics[name].as_f64().unwrap();
    // A third by chance.
    assert!(
        metric("accuracy") > 0.9 && metric("macro_f1") > 0.9,
        "{metrics}"
    );
    let divergences = run.metric("valid", "divergence");
    assert!(divergences.last() < divergences.first(), "{divergences:?}");
    let again = bench.train(
        "again",
        &["text-classification", "--from", "run", "--steps", "2"],
    );
    assert_eq!(again.config()["num_hidden_layers"], 1);
}

#[test]
fn a_new_model_learns_from_a_classifier() {
    let bench = bench();
    let settings = [
        TAUGHT,
        "distillation.layers=[]",
        "distillation.hidden_weight=0.0",
        "distillation.targets_weight=0.0",
        "model.family=distilbert",
        "model.dim=8",
        "model.n_layers=1",
        "model.hidden_dim=16",
        "training.steps=4",
    ];
    // The sizes of BERT that the bench sets are none of DistilBERT's.
    let mut command = bench.bare(&[]);
    for setting in bench
        .settings()
        .iter()
        .filter(|setting| !setting.starts_with("model."))
    {
        command.args(["--set", setting]);
    }
    command.args(arguments("text-distillation", &settings));
    let (run, _) = bench.finish(command.args(["--out", "run", "--ui", "none"]), "run");
    assert_eq!(run.config()["model_type"], "distilbert");
}

#[test]
fn a_student_stopped_at_any_step_goes_on_to_the_same_end() {
    let bench = bench();
    let settings = [
        TAUGHT,
        "distillation.layers=[0]",
        "strategy.dropout=0.1",
        "loss.class_weights=balanced",
        "training.accumulation=2",
        "training.validate_every=4",
        "training.checkpoint_every=3",
    ];
    let args = arguments("text-distillation", &settings);
    let whole = bench.train("whole", &args);
    for lines in [1, 6] {
        let out = format!("cut-{lines}");
        let mut child = bench.start(&out, lines, &args);
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&out).assert_equals(&whole);
    }
}

#[test]
fn a_step_is_the_same_however_it_is_cut() {
    let bench = bench();
    let losses = |out: &str, cut: [&str; 2]| {
        let settings = [
            TAUGHT,
            "distillation.layers=[0]",
            "loss.class_weights=balanced",
            "training.steps=8",
            cut[0],
            cut[1],
        ];
        let run = bench.train(out, &arguments("text-distillation", &settings));
        run.metric("train", "loss")
    };
    let whole = losses(
        "whole",
        ["training.batch_size=16", "training.accumulation=1"],
    );
    let parts = losses(
        "parts",
        ["training.batch_size=4", "training.accumulation=4"],
    );
    for (whole, part) in whole.iter().zip(&parts) {
        // Sums in another order.
        assert!((whole - part).abs() < 1e-3 * whole, "{whole}, {part}");
    }
}

#[test]
fn a_teacher_that_is_of_no_use_is_refused() {
    let bench = bench();
    bench.write("image/config.json", r#"{"model_type": "vit"}"#);
    bench.write("others.csv", table(["animal", "tool", "sea"]));
    let words = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "of", "the", "old",
    ];
    bench.write("vocab.txt", words.join("\n"));
    let other = ["--set", "tokenizer.path=vocab.txt", "--steps", "2"];
    bench.train("other", &[&["text-classification"], &other[..]].concat());
    let new = "distillation.layers=[]";
    for (settings, words) in [
        (
            &["distillation.teacher=nowhere"][..],
            &["distillation.teacher is of no use", "nowhere"][..],
        ),
        (
            &["distillation.teacher=image"],
            &["image: holds a model of type vit", "a text model is needed"],
        ),
        (
            &["distillation.teacher=wordnet-bert-nano"],
            &["distillation.teacher", "a classifier is needed"],
        ),
        (
            &[TAUGHT, "data.source=[\"others.csv\"]"],
            &[
                "distillation.teacher",
                "(animal, tool, water), those of the data 3 (animal, sea, tool)",
            ],
        ),
        (
            &[TAUGHT, "distillation.layers=[2]"],
            &["distillation.layers", "layers 0 to 1, and layer 2"],
        ),
        (
            &[TAUGHT, "from=other"],
            &["distillation.layers are [0]", "other"],
        ),
        (
            &[TAUGHT, new, "from=other"],
            &["another tokenizer than other"],
        ),
        (
            &[TAUGHT, new, "model.hidden_size=8"],
            &[
                "distillation.hidden_weight is 1",
                "8 wide, those of the teacher 32",
            ],
        ),
    ] {
        bench.refuses(&arguments("text-distillation", settings), words);
    }
}
