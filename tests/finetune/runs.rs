//! `finetune` as its users meet it: what a run leaves, how it goes on, what it refuses.
//!
//! Every test drives the real binary on texts or images that it makes, mostly without a pretrained bundle.

use std::fs;

use crate::support::{Bench, Run, TINY_CLASSIFIER, idx_images, idx_labels, labelled_texts};
use serde_json::{Value, json};

const CLASSES: [&str; 3] = ["animal", "tool", "water"];

/// A bench for `text-classification` from scratch, with the bundled tokenizer.
fn bench() -> Bench {
    let settings = [&["data.source=[\"texts.csv\"]"][..], &TINY_CLASSIFIER].concat();
    let bench = Bench::new(env!("CARGO_BIN_EXE_finetune"), &settings);
    bench.write("texts.csv", labelled_texts(&CLASSES));
    bench
}

/// A bench for `image-classification` from scratch; the recipe's name goes in front of a command's arguments.
fn image_bench() -> Bench {
    let bench = Bench::new(
        env!("CARGO_BIN_EXE_finetune"),
        &[
            "data.source=[\"images\"]",
            "data.valid=0.2",
            "data.test=0.2",
            "model.channels=[4]",
            "model.latent_size=8",
            "optimizer.lr=0.02",
            "training.steps=60",
            "training.batch_size=16",
            "training.log_every=10",
            "training.validate_every=20",
        ],
    );
    bench.write("images/images-idx3-ubyte", idx_images(150, 8));
    bench.write("images/labels-idx1-ubyte", idx_labels(150, 3));
    bench
}

// What a run leaves.

#[test]
fn a_run_leaves_its_directory() {
    let bench = bench();
    let run = bench.train("run", &[]);
    for file in [
        "recipe.toml",
        "metrics.jsonl",
        "summary.json",
        "experiment.log",
    ] {
        assert!(run.path().join(file).is_file(), "{file}");
    }
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert!(run.path().join("model").join(file).is_file(), "{file}");
    }
    let config = fs::read(run.path().join("model/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(
        config["architectures"],
        json!(["BertForSequenceClassification"])
    );
    assert_eq!(
        config["id2label"],
        json!({"0": "animal", "1": "tool", "2": "water"})
    );
    assert_eq!(run.summary()["recipe"], "text-classification");
}

#[test]
fn a_word_that_gives_the_class_away_is_learned() {
    let bench = bench();
    let args = ["--steps", "150", "--set", "optimizer.lr=0.01"];
    assert_learned(&bench.train("run", &args));
}

#[test]
fn an_image_that_gives_the_class_away_is_learned() {
    let bench = image_bench();
    let run = bench.train("run", &["image-classification"]);
    assert_learned(&run);
    assert!(run.path().join("model/preprocessor_config.json").is_file());
    // The encoder that has learned is a bundle to start from.
    bench.train("again", &["image-classification", "--from", "run"]);
}

fn assert_learned(run: &Run) {
    let test = &run.summary()["test"];
    for metric in ["accuracy", "macro_f1"] {
        assert!(test["metrics"][metric].as_f64().unwrap() > 0.9, "{test:#}");
    }
    assert_eq!(test["details"]["confusion"].as_array().unwrap().len(), 3);
    assert_eq!(
        run.metric("test", "accuracy"),
        [test["metrics"]["accuracy"].as_f64().unwrap()]
    );
    let losses = run.metric("train", "loss");
    assert!(losses[losses.len() - 1] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn equal_seeds_give_equal_weights_and_others_do_not() {
    let bench = bench();
    let first = bench.train("first", &[]);
    bench.train("second", &[]).assert_equals(&first);
    let other = bench.train("other", &["--seed", "7"]);
    assert!(other.weights() != first.weights());
}

#[test]
fn the_bundled_model_is_the_default() {
    let bench = bench();
    let args = [
        "--from",
        "wordnet-bert-nano",
        "--set",
        "strategy.kind=head",
        "--steps",
        "4",
    ];
    let run = bench.train("run", &args);
    let parameters = &run.summary()["parameters"];
    let [total, trainable] = ["total", "trainable"].map(|key| parameters[key].as_u64().unwrap());
    // The head: 160 weights and a bias for each of three classes.
    assert_eq!(trainable, 3 * 161);
    assert!(total > 1_000_000);
}

#[test]
fn two_micro_batches_are_one_batch_of_twice_the_size() {
    let bench = bench();
    // Unsorted, both read the same rows in the same order; 7 steps stay inside the first epoch.
    let train = |out: &str, batch_size: &str, accumulation: &str| {
        let sizes = [
            format!("training.batch_size={batch_size}"),
            format!("training.accumulation={accumulation}"),
        ];
        let args = [
            "--set",
            &sizes[0],
            "--set",
            &sizes[1],
            "--set",
            "training.pool=0",
            "--set",
            "training.log_every=1",
            "--steps",
            "7",
        ];
        bench.train(out, &args).metric("train", "loss")
    };
    let (one, two) = (train("one", "16", "1"), train("two", "8", "2"));
    assert_eq!(one.len(), 7);
    for (one, two) in one.iter().zip(&two) {
        // f32 sums of 16 losses around 1.1 in another order, carried through 7 steps.
        assert!((one - two).abs() < 1e-4, "{one} {two}");
    }
}

// Stopped runs.

#[test]
fn every_layer_logs_a_rate_of_its_own() {
    let bench = bench();
    let settings = [
        "model.num_hidden_layers=2",
        "optimizer.layer_decay=0.5",
        "strategy.backbone_lr=0.5",
    ];
    let args: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).collect();
    let run = bench.train("run", &args);
    let event = run.events().into_iter().next().unwrap();
    let lr = event["lr"].as_f64().unwrap();
    let mut times: Vec<f64> = event["group_lr"]
        .as_object()
        .unwrap()
        .values()
        .map(|rate| rate.as_f64().unwrap() / lr)
        .collect();
    times.sort_by(f64::total_cmp);
    // Embeddings, first layer, second layer, pooler, head.
    let expected = [0.0625, 0.125, 0.25, 0.5, 1.0];
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
    assert!(
        times.len() == 5 && times.iter().zip(&expected).all(near),
        "{times:?}"
    );
}

#[test]
fn a_sweep_starts_from_what_it_is_told() {
    let bench = bench();
    let mut command = bench.bare(&["sweep", "--from", "nowhere", "--try", "optimizer.lr=0.01"]);
    for setting in bench.settings() {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    let message = crate::support::message(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("nowhere"), "{message}");
}

#[test]
fn a_killed_run_goes_on_with_its_best_model() {
    let bench = bench();
    // A rate that soon ruins the model: the best step is an early one, between two planned checkpoints.
    let args = [
        "--steps",
        "300",
        "--set",
        "optimizer.lr=0.2",
        "--set",
        "training.validate_every=7",
        "--set",
        "training.checkpoint_every=50",
        "--set",
        "training.log_every=5",
    ];
    let whole = bench.train("whole", &args);
    let best = whole.summary()["best"]["step"].as_u64().unwrap();
    assert!(best < 100, "{best}");
    assert!(whole.checkpoints().contains(&format!("step-{best:08}")));
    for lines in [10, 60] {
        let out = format!("run-{lines}");
        let mut child = bench.start(&out, lines, &args);
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&out).assert_equals(&whole);
    }
}

// What is refused: exit code 2, one sentence, nothing written.

#[test]
fn labelled_texts_that_cannot_be_used() {
    let bench = bench();
    let unlabelled = labelled_texts(&CLASSES) + "a bird,\n";
    for (name, contents, words) in [
        (
            "one.csv",
            &labelled_texts(&["animal"])[..],
            "one.csv: only one class (\"animal\")",
        ),
        (
            "column.csv",
            "text,kind\na bird,animal\n",
            "column.csv:1: column \"label\" is missing",
        ),
        (
            "body.csv",
            "body,label\na bird,animal\n",
            "body.csv:1: column \"text\" is missing",
        ),
        (
            "unlabelled.csv",
            &unlabelled,
            "unlabelled.csv:302: \"label\" is empty",
        ),
        (
            "float.jsonl",
            "{\"text\": \"a\", \"label\": 1.5}\n",
            "float.jsonl:1: \"label\" is a number",
        ),
        (
            "key.jsonl",
            "{\"text\": \"a\"}\n",
            "key.jsonl:1: key \"label\" is missing",
        ),
        ("lines.txt", "a bird\n", "lines.txt: a text file"),
        (
            "few.csv",
            "text,label\na bird,x\na cat,y\n",
            "few.csv: 2 texts leave",
        ),
        ("empty.csv", "", "empty.csv: is empty"),
    ] {
        bench.write(name, contents);
        let refuse = ["--set", "data.bad_rows=refuse"];
        bench.refuses(&[&["--data", name], &refuse[..]].concat(), &[words]);
    }
    bench.refuses(&["--data", "missing.csv"], &["missing.csv: no such file"]);
}

/// Classes that the bundle of a run names.
fn classes(run: &Run) -> usize {
    let config = fs::read(run.path().join("model/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    config["id2label"].as_object().unwrap().len()
}

#[test]
fn classes_too_rare_to_be_split_stay_in_training() {
    let bench = bench();
    let rare = |n: usize| format!("a rare thing number {n},rare{n}\n");
    let rows = labelled_texts(&CLASSES) + &(0..40).map(rare).collect::<String>();
    bench.write("texts.csv", rows);
    assert_eq!(classes(&bench.train("run", &["--steps", "2"])), 43);
    // A row without a label is left out.
    bench.write("texts.csv", labelled_texts(&CLASSES) + "a bird,\n");
    assert_eq!(classes(&bench.train("other", &["--steps", "2"])), 3);
}

#[test]
fn labelled_images_that_cannot_be_used() {
    let bench = image_bench();
    let images = idx_images(150, 8);
    for (folder, images, labels) in [
        ("short", &images[..500], idx_labels(150, 3)),
        ("labels", &images, idx_labels(150, 3)[..60].to_vec()),
        ("count", &images, idx_labels(149, 3)),
        ("one", &images, idx_labels(150, 1)),
    ] {
        bench.write(&format!("{folder}/images-idx3-ubyte"), images);
        bench.write(&format!("{folder}/labels-idx1-ubyte"), labels);
    }
    bench.write("unlabelled/images-idx3-ubyte", &images);
    for (data, words) in [
        ("short", "short/images-idx3-ubyte: truncated IDX"),
        ("labels", "labels/labels-idx1-ubyte: truncated IDX"),
        ("count", "holds 149 labels for the 150 images"),
        ("one", "only one class (\"0\")"),
        ("unlabelled", "no labels"),
        ("missing", "missing: no such file"),
    ] {
        bench.refuses(&["image-classification", "--data", data], &[words]);
    }
}

#[test]
fn classes_of_images_too_rare_to_be_split_stay_in_training() {
    let bench = image_bench();
    let image = |path: String, shade: u8| {
        let path = bench.path(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(8, 8, image::Luma([shade]))
            .save(path)
            .unwrap();
    };
    for shade in 0..80 {
        let class = if shade % 2 == 0 { "dark" } else { "light" };
        image(format!("pngs/{class}/{shade}.png"), shade);
    }
    for shade in 100..120 {
        image(format!("pngs/rare{shade}/0.png"), shade);
    }
    let args = ["image-classification", "--data", "pngs", "--steps", "2"];
    assert_eq!(classes(&bench.train("run", &args)), 22);
}

#[test]
fn bundles_that_are_no_bundles() {
    let bench = bench();
    let images = image_bench();
    bench.train("trained", &["--steps", "2"]);
    images.train("trained", &["image-classification", "--steps", "2"]);
    let image_run = images.path("trained").display().to_string();
    let text_run = bench.path("trained").display().to_string();
    fs::create_dir(bench.path("folder")).unwrap();
    for (from, words) in [
        ("missing", "missing: is no bundle: no such directory"),
        (
            "texts.csv",
            "texts.csv: is a file; a model of texts is a directory, with its tokenizer",
        ),
        ("folder", "folder: is no bundle: config.json is missing"),
        (
            &image_run,
            "holds a model of type hearth_conv, and a text model is needed",
        ),
    ] {
        bench.refuses(&["--from", from], &[words]);
    }
    images.refuses(
        &["image-classification", "--from", &text_run],
        &["holds a model of type bert, and an image model is needed"],
    );
    let squeezed = [
        "image-classification",
        "--from",
        "trained",
        "--set",
        "data.size=4",
    ];
    images.refuses(
        &squeezed,
        &["trained/model: takes grey images of 8x8", "4x4"],
    );
}

#[test]
fn bundles_with_broken_files() {
    let bench = bench();
    bench.train("trained", &["--steps", "2"]);
    let file = |name: &str| fs::read(bench.path("trained/model").join(name)).unwrap();
    let config: Value = serde_json::from_slice(&file("config.json")).unwrap();
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        config.to_string().into_bytes()
    };
    let half = |name: &str| file(name)[..file(name).len() / 2].to_vec();
    for (name, contents, words) in [
        (
            "model.safetensors",
            half("model.safetensors"),
            "broken/model.safetensors: it is cut off",
        ),
        ("config.json", half("config.json"), "broken/config.json: "),
        (
            "tokenizer.json",
            half("tokenizer.json"),
            "broken/tokenizer.json: not a tokenizer",
        ),
        (
            "config.json",
            with("model_type", json!("xlnet")),
            "model_type is \"xlnet\"; known are bert",
        ),
        (
            "config.json",
            with("hidden_size", json!(32)),
            "of shape [8192, 16] where the model has [8192, 32]",
        ),
        (
            "config.json",
            with("num_attention_heads", json!(3)),
            "3 attention heads do not divide a width of 16",
        ),
        (
            "config.json",
            with("num_hidden_layers", json!(2)),
            "lacks bert.encoder.layer.1.",
        ),
        (
            "config.json",
            with("hidden_size", json!(10_000_000_000_u64)),
            "parameters need",
        ),
        (
            "config.json",
            with("hidden_dropout_prob", json!(7.0)),
            "dropout is 7",
        ),
        (
            "config.json",
            with("layer_norm_eps", json!(-1.0)),
            "layer_norm_eps is -1",
        ),
        (
            "config.json",
            with("vocab_size", json!(10)),
            "the tokenizer has",
        ),
    ] {
        for copied in ["config.json", "model.safetensors", "tokenizer.json"] {
            bench.write(&format!("broken/{copied}"), file(copied));
        }
        bench.write(&format!("broken/{name}"), contents);
        bench.refuses(&["--from", "broken"], &[words]);
    }
    bench.write("broken/config.json", file("config.json"));
    fs::remove_file(bench.path("broken/model.safetensors")).unwrap();
    bench.refuses(&["--from", "broken"], &["broken: is no bundle: "]);
    fs::remove_file(bench.path("broken/tokenizer.json")).unwrap();
    bench.refuses(&["--from", "broken"], &["broken: no tokenizer"]);
}

#[test]
fn settings_that_are_impossible() {
    let bench = bench();
    for (setting, words) in [
        ("strategy.kid=full", "\"strategy.kind\""),
        (
            "strategy.kind=lora",
            "--set strategy.kind=lora: unknown variant `lora`",
        ),
        (
            "strategy.kind=freeze",
            "--set strategy.kind=freeze: strategy.freeze names nothing",
        ),
        (
            "strategy.freeze=[\"embeddings\"]",
            "takes strategy.kind = \"freeze\"",
        ),
        ("strategy.backbone_lr=-1", "strategy.backbone_lr is -1"),
        (
            "training.metric=perplexity",
            "validation gives loss, accuracy, macro_f1",
        ),
        (
            "tokenizer.max_length=17",
            "tokenizer.max_length is 17, longer than the model's 16 positions",
        ),
        (
            "model.num_attention_heads=3",
            "3 attention heads do not divide a width of 16",
        ),
        ("model.hidden_size=10_000_000_000", "parameters need"),
        ("data.label_limit=-1", "data.label_limit is -1"),
        (
            "data.valid=0.9",
            "data.valid 0.9 and data.test 0.2 leave nothing",
        ),
        ("data.valid=nan", "data.valid is NaN"),
        ("schedule.warmup=7", "schedule.warmup is 7"),
        ("task=mlm", "\"mlm\""),
    ] {
        bench.refuses(&["--set", setting], &[words]);
    }
    let frozen = [
        "--set",
        "strategy.kind=freeze",
        "--set",
        "strategy.freeze=[\".\"]",
    ];
    bench.refuses(&frozen, &["every parameter is frozen"]);
    let mistyped = [
        "--set",
        "strategy.kind=freeze",
        "--set",
        "strategy.freeze=[\"embedings\"]",
    ];
    bench.refuses(&mistyped, &["\"embedings\", which matches no parameter"]);
    let nothing = ["--steps", "0", "--set", "training.epochs=0"];
    bench.refuses(&nothing, &["training.steps and training.epochs are both 0"]);
}

#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_before_the_training_is_one_sentence() {
    let bench = bench();
    // Rows take far more room than their four bytes here.
    let rows = "a,b\n".repeat(12_000_000);
    bench.write("texts.csv", format!("text,label\n{rows}"));
    let mut command = bench.command(&["--out", "run"]);
    crate::limit::limit_memory(&mut command, 3 << 29);
    let output = command.output().unwrap();
    let message = crate::support::message(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(
        message.starts_with("error: out of memory before the training; less data"),
        "{message}"
    );
    assert!(!bench.path("run").exists());
}
