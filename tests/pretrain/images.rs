//! Objectives on images as their users meet them: what each leaves, how it goes on, what it refuses, what a bundle is good for.

use std::fs;

use serde_json::Value;

use crate::families::FAMILIES;
use crate::support::{Bench, Run, arguments, idx_images, idx_labels};

/// Every objective on images, what makes its model small enough to train in a second, and the drawings that it leaves.
const OBJECTIVES: &[(&str, &[&str], &[&str])] = &[
    (
        "autoencoder",
        &["model.channels=[4]", "model.latent_size=8"],
        &["reconstructions"],
    ),
    (
        "vae",
        &["model.channels=[4]", "model.latent_size=8", "latent.size=3"],
        &["reconstructions", "samples", "interpolations"],
    ),
    (
        "vqvae",
        &["model.hidden_sizes=[4]", "codes.count=8", "codes.size=3"],
        &["reconstructions"],
    ),
    (
        "mae",
        &[
            "model.hidden_size=8",
            "model.num_hidden_layers=1",
            "model.num_attention_heads=2",
            "model.intermediate_size=16",
            "model.patch_size=2",
            "decoder.hidden_size=8",
            "decoder.num_hidden_layers=1",
            "decoder.num_attention_heads=2",
            "decoder.intermediate_size=16",
            "augment.shift=1",
        ],
        &["reconstructions"],
    ),
    (
        "simclr",
        &["model.hidden_sizes=[4]", "projector.hidden=8"],
        &[],
    ),
    (
        "byol",
        &["model.hidden_sizes=[4]", "projector.hidden=8"],
        &[],
    ),
    (
        "dino",
        &[
            "model.hidden_sizes=[4]",
            "projector.hidden=8",
            "projector.prototypes=16",
        ],
        &[],
    ),
    ("rotation", &["model.hidden_sizes=[4]"], &[]),
];

/// Images of three classes; settings of an objective go in front of a command's arguments.
fn bench() -> Bench {
    let bench = Bench::new(
        env!("CARGO_BIN_EXE_pretrain"),
        &[
            "data.source=[\"images\"]",
            "data.valid=0.2",
            "probe.rows=40",
            "training.steps=12",
            "training.batch_size=8",
            "training.log_every=2",
            "training.validate_every=4",
            "training.checkpoint_every=3",
        ],
    );
    bench.write("images/images-idx3-ubyte", idx_images(120, 8));
    bench.write("images/labels-idx1-ubyte", idx_labels(120, 3));
    bench
}

/// Whether every figure of every validation is finite.
fn assert_finite(run: &Run, name: &str) {
    for event in run.events() {
        for (metric, value) in event["metrics"].as_object().unwrap() {
            let finite = value.as_f64().is_some_and(f64::is_finite);
            assert!(finite, "{name}: {metric} is {value}");
        }
    }
}

#[test]
fn each_objective_leaves_a_bundle_its_drawings_and_what_its_probe_found() {
    let bench = bench();
    for (name, settings, drawings) in OBJECTIVES {
        let run = bench.train(name, &arguments(name, settings));
        assert_finite(&run, name);
        for metric in ["probe_accuracy", "knn_accuracy"] {
            let values = run.metric("valid", metric);
            assert_eq!(values.len(), 3, "{name}: {metric}");
            let possible = values.iter().all(|value| (0.0..=1.0).contains(value));
            assert!(possible, "{name}: {values:?}");
        }
        for drawing in *drawings {
            let latest = fs::read(run.path().join(format!("{drawing}.png"))).unwrap();
            let third = fs::read(run.path().join(format!("{drawing}/0003.png"))).unwrap();
            assert_eq!(latest, third, "{name}: {drawing}");
        }
        let config = fs::read(run.path().join("model/config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert!(config["architectures"][0].is_string(), "{name}: {config}");
    }
}

#[test]
fn each_objective_stopped_at_any_step_goes_on_to_the_same_end() {
    let bench = bench();
    for (name, settings, _) in OBJECTIVES {
        let further = ["training.ema=0.9"];
        let settings = [settings, &further[..]].concat();
        let whole = bench.train(&format!("{name}-whole"), &arguments(name, &settings));
        let out = format!("{name}-cut");
        let mut child = bench.start(&out, 4, &arguments(name, &settings));
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&out).assert_equals(&whole);
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_with_any_number_of_loader_threads() {
    let bench = bench();
    for (name, settings, _) in OBJECTIVES {
        let weights = ["training.workers=1", "training.workers=3"].map(|workers| {
            let settings = [settings, &[workers][..]].concat();
            let out = format!("{name}-{workers}");
            bench.train(&out, &arguments(name, &settings)).weights()
        });
        assert!(weights[0] == weights[1], "{name}");
    }
}

#[test]
fn every_family_can_be_an_autoencoder_of_any_kind() {
    let bench = bench();
    let few = [
        "training.steps=2",
        "training.validate_every=2",
        "codes.count=8",
    ];
    for (class, sizes) in FAMILIES {
        for name in ["autoencoder", "vae", "vqvae"] {
            if (class, name) == ("HearthMlpForImageClassification", "vqvae") {
                continue;
            }
            let settings = [sizes, if name == "vqvae" { &few } else { &few[..2] }].concat();
            let run = bench.train(&format!("{name}-{class}"), &arguments(name, &settings));
            assert_finite(&run, &format!("{name} {class}"));
        }
    }
}

#[test]
fn one_objective_goes_on_from_the_bundle_of_another() {
    let bench = bench();
    let small = ["model.hidden_sizes=[4]", "projector.hidden=8"];
    bench.train("first", &arguments("simclr", &small));
    for name in ["byol", "rotation", "vqvae"] {
        let settings = match name {
            "byol" => &["from='first'", "projector.hidden=8"][..],
            "vqvae" => &["from='first'", "codes.count=8"],
            _ => &["from='first'"],
        };
        let run = bench.train(&format!("then-{name}"), &arguments(name, settings));
        assert_finite(&run, name);
    }
}

#[test]
fn images_without_labels_are_not_probed() {
    let bench = bench();
    fs::remove_file(bench.path("images/labels-idx1-ubyte")).unwrap();
    let (_, settings, _) = OBJECTIVES[4];
    let run = bench.train("unlabelled", &arguments("simclr", settings));
    for event in run.events() {
        assert!(event["metrics"]["probe_accuracy"].is_null(), "{event}");
    }
    let settings = [settings, &["training.metric='knn_accuracy'"]].concat();
    let words = ["training.metric", "no labels, or probe.rows = 0"];
    bench.refuses(&arguments("simclr", &settings), &words);
}

#[test]
fn what_is_impossible_is_said_with_its_key() {
    let bench = bench();
    for (name, settings, words) in [
        (
            "vae",
            &["latent.size=0"][..],
            "latent.size is impossible: decoder_latent_size is 0",
        ),
        (
            "vae",
            &["loss.beta=-1.0"],
            "loss.beta is -1; it must be 0 or more",
        ),
        (
            "vqvae",
            &["codes.count=1"],
            "codes.count is 1; there must be at least 2",
        ),
        ("vqvae", &["codes.size=0"], "code_size is 0"),
        (
            "vqvae",
            &["model.family=hearth_mlp"],
            "hearth_mlp has no feature maps",
        ),
        (
            "mae",
            &["masking.ratio=1.0"],
            "masking.ratio is 1; it must be between 0 and 1",
        ),
        (
            "mae",
            &["decoder.num_attention_heads=5"],
            "5 attention heads do not divide",
        ),
        (
            "mae",
            &["model.patch_size=8"],
            "model.patch_size leaves one patch",
        ),
        (
            "mae",
            &["model.family=resnet18"],
            "of which a masked autoencoder cannot be made; vit can",
        ),
        (
            "simclr",
            &["loss.temperature=0.0"],
            "loss.temperature is 0; it must be above 0",
        ),
        ("simclr", &["projector.size=0"], "projector.size is 0"),
        (
            "simclr",
            &["training.accumulation=2"],
            "this loss runs over a whole batch",
        ),
        ("byol", &["teacher.momentum=1.5"], "teacher.momentum is 1.5"),
        (
            "dino",
            &["projector.prototypes=0"],
            "projector.prototypes is 0",
        ),
        (
            "dino",
            &["crops.local_steps=[{kind='flip',p=2.0}]"],
            "crops.local_steps are impossible",
        ),
        (
            "dino",
            &["crops.local_steps=[{kind='random_resized_crop',size=5}]"],
            "do not leave images of 8x8 as large as they are",
        ),
    ] {
        bench.refuses(&arguments(name, settings), &[words]);
    }
}

#[test]
fn images_that_are_no_squares_cannot_be_turned() {
    let bench = bench();
    fs::remove_dir_all(bench.path("images")).unwrap();
    for shade in 0..20 {
        let image = image::GrayImage::from_pixel(8, 6, image::Luma([shade * 8]));
        let mut png = std::io::Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        bench.write(&format!("images/{shade}.png"), png.into_inner());
    }
    let words =
        ["data.size leaves images of 6x8 (height x width); a quarter of a turn needs squares"];
    bench.refuses(&arguments("rotation", &["model.hidden_sizes=[4]"]), &words);
}
