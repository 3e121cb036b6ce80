//! Language models from larger ones, through the real binary.

use crate::support::{Bench, arguments};

const SETTINGS: [&str; 9] = [
    "data.source=[\"texts.txt\"]",
    "data.valid=0.2",
    "tokenizer.vocab_size=300",
    "tokenizer.max_length=16",
    "training.steps=24",
    "training.batch_size=8",
    "training.log_every=2",
    "training.validate_every=6",
    "optimizer.lr=0.01",
];

const BERT: [&str; 4] = [
    "model.hidden_size=16",
    "model.num_hidden_layers=3",
    "model.intermediate_size=32",
    "model.max_position_embeddings=16",
];

const GPT2: [&str; 6] = [
    "model.family=gpt2",
    "model.n_embd=16",
    "model.n_layer=3",
    "model.n_head=2",
    "model.n_inner=32",
    "model.n_positions=16",
];

/// Learns from the run in `teacher`.
const TAUGHT: &str = "distillation.teacher=teacher";

/// A bench with a teacher.
fn bench(sizes: &[&str], objective: &str) -> Bench {
    let bench = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &[sizes, &SETTINGS].concat());
    let kinds = ["bird", "tool", "plant", "river", "metal"];
    let text = |n: usize| format!("{n} a {} of the {}\n", kinds[n % 5], kinds[n / 5 % 5]);
    bench.write("texts.txt", (0..300).map(text).collect::<String>());
    bench.train("teacher", &[objective, "--steps", "100"]);
    bench
}

#[test]
fn some_layers_of_an_encoder_learn_from_the_whole() {
    let bench = bench(&BERT, "mlm");
    let settings = [TAUGHT, "distillation.layers=[0, 2]", "training.steps=60"];
    let run = bench.train("run", &arguments("distillation", &settings));
    let (teacher, config) = (bench.run("teacher"), run.config());
    assert_eq!(config["num_hidden_layers"], 2);
    assert_eq!(config["vocab_size"], teacher.config()["vocab_size"]);
    assert_eq!(config["architectures"][0], "BertForMaskedLM");
    // It begins near its teacher, and stays there.
    let divergences = run.metric("valid", "divergence");
    assert!(
        divergences.iter().all(|divergence| *divergence < 0.1),
        "{divergences:?}"
    );
    // Figures are those of masked language modelling.
    let (losses, perplexities) = (
        run.metric("valid", "loss"),
        run.metric("valid", "perplexity"),
    );
    for (loss, perplexity) in losses.iter().zip(perplexities) {
        assert!((loss.exp() - perplexity).abs() < 1e-9 * perplexity);
    }
    for (split, name) in [("train", "targets_loss"), ("train", "accuracy")] {
        assert!(
            run.metric(split, name)
                .iter()
                .all(|value| value.is_finite())
        );
    }
    // The teacher is in no checkpoint and is not counted.
    let parameters = |run: &crate::support::Run| run.summary()["parameters"]["total"].clone();
    assert!(parameters(&run).as_u64() < parameters(&teacher).as_u64());
    let newest = run.checkpoints().pop().unwrap();
    let weights = run.path().join("checkpoints").join(newest);
    let size = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().len();
    let held = size(weights.join("model.safetensors"));
    assert!(
        held < size(teacher.path().join("model/model.safetensors")),
        "{held}"
    );
}

#[test]
fn a_decoder_teaches_to_continue_texts() {
    let bench = bench(&GPT2, "clm");
    let settings = [TAUGHT, "distillation.layers=[0]", "training.packing=true"];
    let run = bench.train("layers", &arguments("distillation", &settings));
    assert_eq!(run.config()["n_layer"], 1);
    assert_eq!(run.config()["architectures"][0], "GPT2LMHeadModel");
    assert!(
        run.metric("valid", "divergence")
            .iter()
            .all(|value| value.is_finite())
    );
    // A new model of another family, which has states of another width.
    let new = [
        TAUGHT,
        "distillation.layers=[]",
        "distillation.hidden_weight=0.0",
        "model.n_embd=8",
    ];
    let run = bench.train("new", &arguments("distillation", &new));
    assert_eq!(
        run.config()["vocab_size"],
        bench.run("teacher").config()["vocab_size"]
    );
}

#[test]
fn a_student_stopped_at_any_step_goes_on_to_the_same_end() {
    let bench = bench(&BERT, "mlm");
    let few = [
        TAUGHT,
        "training.validate_every=4",
        "training.checkpoint_every=3",
        "training.accumulation=2",
        "training.ema=0.9",
    ];
    let of_layers = ["distillation.layers=[1]", "strategy.dropout=0.1"];
    let new = ["distillation.layers=[]", "model.dropout=0.1"];
    for (name, how) in [("layers", of_layers), ("new", new)] {
        let settings = [&few[..], &how].concat();
        let args = arguments("distillation", &settings);
        let whole = bench.train(&format!("{name}-whole"), &args);
        for lines in [1, 6] {
            let out = format!("{name}-{lines}");
            let mut child = bench.start(&out, lines, &args);
            child.kill().unwrap();
            child.wait().unwrap();
            bench.resume(&out).assert_equals(&whole);
        }
    }
    // Another teacher is not the one that it began with.
    bench.train("teacher", &["mlm", "--seed", "7", "--force"]);
    let args = [
        "--resume",
        "--out",
        "new-whole",
        "--steps",
        "40",
        "--ui",
        "none",
    ];
    bench.refuses_command(
        &mut bench.bare(&args),
        &["new-whole: the teacher's weights"],
    );
}

#[test]
fn a_step_is_the_same_however_it_is_cut() {
    let bench = bench(&BERT, "mlm");
    let losses = |out: &str, cut: [&str; 2]| {
        let settings = [
            TAUGHT,
            "distillation.layers=[0]",
            "training.steps=8",
            cut[0],
            cut[1],
        ];
        let run = bench.train(out, &arguments("distillation", &settings));
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
    let bench = bench(&BERT, "mlm");
    bench.write("image/config.json", r#"{"model_type": "vit"}"#);
    bench.train(
        "other",
        &["mlm", "--set", "tokenizer.vocab_size=120", "--steps", "2"],
    );
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
            &[TAUGHT, "distillation.layers=[1, 3]"],
            &["distillation.layers", "layers 0 to 2, and layer 3"],
        ),
        (
            &[TAUGHT, new, "from=other"],
            &["another tokenizer than other"],
        ),
        (
            &[TAUGHT, new, "model.hidden_size=8"],
            &[
                "distillation.hidden_weight is 1",
                "8 wide, those of the teacher 16",
            ],
        ),
        (
            &[
                "distillation.teacher=wordnet-bert-nano",
                new,
                "from=teacher",
            ],
            &["another tokenizer than teacher"],
        ),
        (
            &[TAUGHT, "tokenizer.max_length=17"],
            &["tokenizer.max_length is 17", "16 positions"],
        ),
    ] {
        bench.refuses(&arguments("distillation", settings), words);
    }
    let causal = Bench::new(
        env!("CARGO_BIN_EXE_pretrain"),
        &[&GPT2[..], &SETTINGS].concat(),
    );
    causal.write("texts.txt", "a bird\na tool\n");
    let settings = [
        "distillation.teacher=wordnet-bert-nano",
        new,
        "distillation.hidden_weight=0.0",
    ];
    let words = ["is a bert, and the student a gpt2"];
    causal.refuses(&arguments("distillation", &settings), &words);
}
