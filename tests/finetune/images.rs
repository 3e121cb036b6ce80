//! Classifiers of images of every family, through the real binary.

use std::path::{Path, PathBuf};

use crate::families::FAMILIES;
use crate::support::{Bench, Run, idx_images, idx_labels};
use safetensors::SafeTensors;
use serde_json::Value;

const STEPS: &str =
    r#"augment.steps=[{kind = "flip"}, {kind = "random_crop", size = 8, padding = 1}]"#;

fn bench(sizes: &[&str]) -> Bench {
    let settings = [
        "data.source=[\"images\"]",
        "data.valid=0.2",
        "data.test=0.2",
        "optimizer.lr=0.01",
        "training.steps=20",
        "training.batch_size=16",
        "training.log_every=2",
        "training.validate_every=5",
    ];
    let settings = [sizes, &settings].concat();
    let bench = Bench::new(env!("CARGO_BIN_EXE_finetune"), &settings);
    bench.write("images/images-idx3-ubyte", idx_images(150, 8));
    bench.write("images/labels-idx1-ubyte", idx_labels(150, 3));
    bench
}

fn json(run: &Run, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(run.path().join("model").join(name)).unwrap()).unwrap()
}

/// A file of the golden models.
fn golden(name: &str) -> PathBuf {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/vision");
    Path::new(tests).join(name)
}

#[test]
fn every_family_trains_and_is_a_start_itself() {
    for (class, sizes) in FAMILIES {
        let bench = bench(sizes);
        let first = bench.train("first", &["image-classification"]);
        let config = json(&first, "config.json");
        assert_eq!(config["architectures"][0], class);
        let seen = json(&first, "preprocessor_config.json");
        assert_eq!(seen["do_normalize"], true, "{class}");
        // Its backbone as it is, another head; normalised as the bundle says.
        let args = [
            "image-classification",
            "--from",
            "first",
            "--steps",
            "4",
            "--set",
            "strategy.kind=head",
        ];
        let second = bench.train("second", &args);
        let kept = json(&second, "preprocessor_config.json");
        assert_eq!(kept, seen, "{class}");
        let parameters = &second.summary()["parameters"];
        let [all, trained] = ["total", "trainable"].map(|key| parameters[key].as_u64().unwrap());
        assert!(trained < all / 2, "{class}: {parameters}");
        let [before, after] = [first.weights(), second.weights()];
        let [before, after] =
            [&before, &after].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        for (name, tensor) in before.iter() {
            let head = [
                "classifier.weight",
                "classifier.bias",
                "classifier.1.",
                "classifier.6.",
            ];
            let is_head = head.iter().any(|part| name.starts_with(part));
            let same = after.tensor(name).unwrap().data() == tensor.data();
            assert_eq!(same, !is_head, "{class}: {name}");
        }
    }
}

#[test]
fn a_killed_network_with_batch_norm_and_augmentation_goes_on_to_the_same_end() {
    let bench = bench(FAMILIES[3].1);
    let args = [
        "image-classification",
        "--steps",
        "60",
        "--set",
        STEPS,
        "--set",
        "training.ema=0.9",
        "--set",
        "training.checkpoint_every=7",
    ];
    let whole = bench.train("whole", &args);
    for lines in [2, 15, 30] {
        let out = format!("killed-{lines}");
        let mut child = bench.start(&out, lines, &args);
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&out).assert_equals(&whole);
    }
}

#[test]
fn a_file_of_torchvisions_weights_is_a_start() {
    let sizes = [
        "model.family=resnet18",
        "model.embedding_size=4",
        "model.hidden_sizes=[4, 6, 8, 10]",
        "model.depths=[1, 2, 1, 1]",
    ];
    let resnet = bench(&sizes);
    let file = golden("torchvision-resnet-1/pytorch_model.bin");
    let file = file.display().to_string();
    let args = [
        "image-classification",
        "--from",
        &file,
        "--steps",
        "2",
        "--set",
        "data.size=40",
    ];
    let run = resnet.train("run", &args);
    let config = json(&run, "config.json");
    assert_eq!(config["num_channels"], 1);
    let seen = json(&run, "preprocessor_config.json");
    assert_eq!(seen["size"]["height"], 40);
    assert_eq!(seen["image_std"].as_array().unwrap().len(), 1);
    // Of another family, and of texts.
    let vgg = bench(&[
        "model.family=vgg11",
        "model.hidden_sizes=[4]",
        "model.depths=[1]",
        "model.classifier_size=8",
    ]);
    vgg.refuses(&args, &["its names are those of ResNet of torchvision"]);
    let texts = bench(&["model.family=bert"]);
    texts.refuses(&args, &["is a file; a model of texts is a directory"]);
}

#[test]
fn impossible_models_and_steps_are_named() {
    let bench = bench(&["model.family=vit"]);
    bench.refuses(
        &[
            "image-classification",
            "--set",
            "model.num_attention_heads=5",
        ],
        &["5 attention heads do not divide a width of 192"],
    );
    bench.refuses(
        &["image-classification"],
        &["patches of 16x16 pixels do not fit into images of 8x8; patch_size is their size"],
    );
    let crop = r#"augment.steps=[{kind = "random_crop", size = 6}]"#;
    bench.refuses(
        &[
            "image-classification",
            "--set",
            "model.patch_size=4",
            "--set",
            crop,
        ],
        &["augment.steps make images of 8x8 ones of 6x6"],
    );
    let unknown = r#"augment.steps=[{kind = "mirror"}]"#;
    bench.refuses(
        &["image-classification", "--set", unknown],
        &["augment", "mirror"],
    );
}

#[test]
fn test_images_are_judged_over_several_views() {
    let bench = bench(FAMILIES[1].1);
    let train = |out: &str, views: &str| {
        let args = ["image-classification", "--set", STEPS, "--set", views];
        bench.train(out, &args)
    };
    let once = train("once", "augment.test_views=1");
    let [first, again] = ["first", "again"].map(|out| train(out, "augment.test_views=5"));
    // Nothing but the test split sees them, and chance is that of the seed.
    assert_eq!(first.weights(), once.weights());
    assert_eq!(first.metric("valid", "loss"), once.metric("valid", "loss"));
    assert_ne!(first.metric("test", "loss"), once.metric("test", "loss"));
    assert_eq!(first.metric("test", "loss"), again.metric("test", "loss"));
    for run in [&once, &first] {
        let error = run.metric("test", "calibration_error")[0];
        assert!((0.0..=1.0).contains(&error), "{error}");
        let details = run.summary()["test"]["details"].clone();
        let bins = details["calibration"]["bins"].as_array().unwrap().iter();
        let rows: u64 = bins.map(|bin| bin["rows"].as_u64().unwrap()).sum();
        let confusion = details["confusion"].as_array().unwrap().iter();
        let counts = confusion.flat_map(|row| row.as_array().unwrap());
        let judged: u64 = counts.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(rows, judged);
    }
    for (setting, words) in [
        ("augment.test_views=0", "augment.test_views is 0"),
        ("augment.test_views=2", "all views of an image are the same"),
        (
            "training.metric=top_5_accuracy",
            "validation gives loss, accuracy, macro_f1, calibration_error",
        ),
    ] {
        bench.refuses(&["image-classification", "--set", setting], &[words]);
    }
}
