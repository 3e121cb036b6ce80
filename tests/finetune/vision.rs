//! Tasks on images other than one class, as their users meet them: masks, boxes, several labels, values.

use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;

use image::{GrayImage, ImageFormat, Luma};

use crate::families::FAMILIES;
use crate::shapes;
use crate::support::{Bench, arguments};

const SETTINGS: &[&str] = &[
    "data.valid=0.2",
    "data.test=0.2",
    "training.steps=12",
    "training.batch_size=8",
    "training.log_every=2",
    "training.validate_every=4",
    "training.checkpoint_every=3",
];

/// Each task with its data, and what makes its model small enough to train in a second.
const TASKS: &[(&str, &[&str], &str)] = &[
    (
        "image-segmentation",
        &["data.source=['shapes']", "model.hidden_sizes=[4,8]"],
        "iou",
    ),
    (
        "object-detection",
        &[
            "data.source=['shapes/annotations.json']",
            "model.hidden_sizes=[4,8,8]",
        ],
        "map_50",
    ),
    (
        "image-labels",
        &["data.source=['labels.csv']", "model.hidden_sizes=[4]"],
        "macro_f1",
    ),
    (
        "image-regression",
        &["data.source=['values.csv']", "model.hidden_sizes=[4]"],
        "rmse",
    ),
];

fn png(image: &GrayImage) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).unwrap();
    png.into_inner()
}

/// Shapes, and images of one shade with labels and with the shade itself.
fn bench() -> Bench {
    let bench = Bench::new(env!("CARGO_BIN_EXE_finetune"), SETTINGS);
    shapes::write(&bench.path("shapes"), 40, 1);
    let (mut labels, mut values) = ("image,labels\n".to_string(), "image,value\n".to_string());
    for number in 0..60u32 {
        let shade = (number * 4) as u8;
        let name = format!("shades/{number}.png");
        let pixel =
            |x: u32, y: u32| Luma([shade.saturating_add(((x * 3 + y * 5 + number) % 7) as u8)]);
        bench.write(&name, png(&GrayImage::from_fn(8, 8, pixel)));
        let words = match shade {
            0..80 => "dark",
            80..160 => "dark;bright",
            _ => "bright",
        };
        writeln!(labels, "{name},{words}").unwrap();
        writeln!(values, "{name},{}", f64::from(shade) / 10.0).unwrap();
    }
    bench.write("labels.csv", labels);
    bench.write("values.csv", values);
    bench
}

#[test]
fn each_task_leaves_a_bundle_and_its_figures() {
    let bench = bench();
    for (name, settings, metric) in TASKS {
        let run = bench.train(name, &arguments(name, settings));
        for split in ["valid", "test"] {
            let values = run.metric(split, metric);
            let finite = values.iter().all(|value| value.is_finite());
            assert!(finite && !values.is_empty(), "{name}: {values:?}");
        }
        let losses = run.metric("valid", "loss");
        assert!(
            losses.iter().all(|loss| loss.is_finite()),
            "{name}: {losses:?}"
        );
        assert!(run.path().join("model/model.safetensors").is_file());
    }
    let config = |name: &str| bench.run(name).config();
    let labels = config("image-labels");
    assert_eq!(labels["problem_type"], "multi_label_classification");
    assert_eq!(labels["id2label"]["0"], "bright");
    assert_eq!(config("image-regression")["problem_type"], "regression");
    assert_eq!(config("object-detection")["id2label"]["2"], "triangle");
    assert_eq!(config("image-segmentation")["id2label"]["3"], "3");
}

#[test]
fn each_task_stopped_at_any_step_goes_on_to_the_same_end() {
    let bench = bench();
    let moved = "augment.steps=[{kind='flip'},{kind='random_resized_crop',scale=[0.5,1.0]}]";
    for (name, settings, _) in TASKS {
        let settings = [settings, &[moved][..]].concat();
        let whole = bench.train(&format!("{name}-whole"), &arguments(name, &settings));
        let out = format!("{name}-cut");
        let mut child = bench.start(&out, 4, &arguments(name, &settings));
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&out).assert_equals(&whole);
    }
}

#[test]
fn every_family_with_feature_maps_finds_masks_and_boxes() {
    let bench = bench();
    let few = ["training.steps=2", "training.validate_every=2"];
    for (class, sizes) in FAMILIES {
        if class == "HearthMlpForImageClassification" {
            continue;
        }
        for (name, source) in [
            ("image-segmentation", "data.source=['shapes']"),
            (
                "object-detection",
                "data.source=['shapes/annotations.json']",
            ),
        ] {
            let settings = [sizes, &few, &[source]].concat();
            let run = bench.train(&format!("{name}-{class}"), &arguments(name, &settings));
            let losses = run.metric("valid", "loss");
            assert!(losses[0].is_finite(), "{name} {class}: {losses:?}");
        }
    }
}

#[test]
fn a_head_is_kept_where_its_classes_are_those_of_the_data() {
    let bench = bench();
    let (name, settings, metric) = TASKS[2];
    let first = bench.train("first", &arguments(name, settings));
    let best = &first.summary()["best"]["metrics"][metric];
    // A rate at which nothing changes.
    let still = [
        "from='first'",
        "optimizer.lr=1e-30",
        "strategy.batch_norm='frozen'",
    ];
    let data = "data.source=['labels.csv']";
    let kept = [&still[..], &[data, "strategy.head='keep'"]].concat();
    let kept = bench.train("kept", &arguments(name, &kept));
    assert_eq!(&kept.summary()["best"]["metrics"][metric], best);
    let new = [&still[..], &[data]].concat();
    let new = bench.train("new", &arguments(name, &new));
    let losses = [&kept, &new].map(|run| run.metric("valid", "loss")[0]);
    assert_ne!(losses[0], losses[1]);
    // Other classes, another kind of head, none.
    bench.write(
        "other.csv",
        "image,labels\nshades/0.png,a;b\nshades/9.png,b\nshades/20.png,a\n",
    );
    let keep = "strategy.head='keep'";
    for (name, settings, words) in [
        (
            name,
            &["from='first'", "data.source=['other.csv']", keep][..],
            "strategy.head is \"keep\", and the classes of first are 2 (bright, dark), those of the data 2 (a, b)",
        ),
        (
            "image-segmentation",
            &["from='first'", "data.source=['shapes']", keep],
            "a model that segments is needed here",
        ),
        (
            name,
            &["model.hidden_sizes=[4]", data, keep],
            "a new model has no head that was trained",
        ),
    ] {
        bench.refuses(&arguments(name, settings), &[words]);
    }
}

#[test]
fn a_task_starts_from_the_backbone_of_another() {
    let bench = bench();
    let (_, settings, _) = TASKS[1];
    bench.train("boxes", &arguments("object-detection", settings));
    let settings = ["data.source=['shapes']", "from='boxes'"];
    let run = bench.train("masks", &arguments("image-segmentation", &settings));
    assert_eq!(run.config()["hidden_sizes"], serde_json::json!([4, 8, 8]));
}

#[test]
fn what_is_impossible_is_said_with_its_key_or_file() {
    let bench = bench();
    bench.write("words.csv", "image,label\nshades/0.png,a\nshades/1.png,b\n");
    let other = png(&GrayImage::new(5, 5));
    bench.write("odd/images/1.png", png(&GrayImage::new(8, 8)));
    bench.write("odd/masks/1.png", &other);
    bench.write("sizes/images/1.png", png(&GrayImage::new(8, 8)));
    bench.write("sizes/masks/1.png", png(&GrayImage::new(8, 8)));
    bench.write("sizes/images/2.png", &other);
    bench.write("sizes/masks/2.png", &other);
    for (name, settings, words) in [
        (
            "image-segmentation",
            &[][..],
            "data.source is empty; name images with masks",
        ),
        (
            "object-detection",
            &["data.source=['shapes']"],
            "the images have no boxes",
        ),
        (
            "image-segmentation",
            &["data.source=['shapes/annotations.json']"],
            "the images have no masks",
        ),
        (
            "image-labels",
            &["data.source=['values.csv']"],
            "the images have no labels",
        ),
        (
            "image-regression",
            &["data.source=['labels.csv']"],
            "the images have no values",
        ),
        (
            "image-regression",
            &["data.source=['words.csv']"],
            "the images have no values",
        ),
        (
            "image-segmentation",
            &["data.source=['odd']"],
            "it is 5x5, and its image 8x8",
        ),
        (
            "image-segmentation",
            &["data.source=['sizes']"],
            "data.size resizes all to one size",
        ),
        (
            "image-segmentation",
            &["loss.dice=-1.0"],
            "loss.dice is -1; it must be 0 or more",
        ),
        (
            "object-detection",
            &["detection.score=2.0"],
            "detection.score is 2",
        ),
        (
            "image-labels",
            &["labels.threshold=0.0"],
            "labels.threshold is 0",
        ),
        (
            "object-detection",
            &["augment.steps=[{kind='rotate',degrees=5.0}]"],
            "step 1, rotate: turns and bends pictures",
        ),
        (
            "image-segmentation",
            &["augment.shift=1"],
            "a step of kind \"shift\" moves both",
        ),
        (
            "image-segmentation",
            &["data.source=['shapes']", "model.family=hearth_mlp"],
            "model.family is \"hearth_mlp\", which has no feature maps",
        ),
    ] {
        bench.refuses(&arguments(name, settings), &[words]);
    }
}

#[test]
fn images_that_cannot_be_read_are_left_out_and_counted_or_refused() {
    let bench = bench();
    let whole = fs::read(bench.path("shapes/images/00003.png")).unwrap();
    bench.write("shapes/images/00003.png", &whole[..whole.len() / 2]);
    bench.write("shapes/images/00004.png", "no image");
    let (name, settings, _) = TASKS[0];
    let mut command = bench.command(
        &[
            &arguments(name, settings)[..],
            &["--ui", "plain", "--out", "skipped"],
        ]
        .concat(),
    );
    let output = command.output().unwrap();
    let printed =
        String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    assert!(
        printed.contains("00003.png") && printed.contains("00004.png"),
        "{printed}"
    );
    let settings = [settings, &["data.bad_rows='refuse'"][..]].concat();
    bench.refuses(&arguments(name, &settings), &["00004.png"]);
}
