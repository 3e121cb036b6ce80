//! Images of any size in files, as users of `pretrain` meet them.

use std::fs;
use std::io::Cursor;

use crate::support::{Bench, Run, message};
use image::{ImageFormat, Rgb, RgbImage};

fn picture(i: u32) -> Vec<u8> {
    let (width, height) = (9 + i * 7 % 12, 8 + i * 5 % 15);
    let image = RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 9) as u8, (y * 11) as u8, (i * 37 % 200) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    let format = if i.is_multiple_of(2) {
        ImageFormat::Png
    } else {
        ImageFormat::Jpeg
    };
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A bench of an autoencoder on images without classes, in splits.
fn bench() -> Bench {
    let settings = [
        "data.source=[\"photos\"]",
        "data.size=8",
        "training.steps=20",
        "training.batch_size=8",
        "training.log_every=2",
        "training.validate_every=5",
    ];
    let bench = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &settings);
    for i in 0..50 {
        let split = if i % 5 == 4 { "val" } else { "train" };
        bench.write(&format!("photos/{split}/{i:02}.img"), picture(i));
    }
    bench
}

fn train(bench: &Bench, out: &str, args: &[&str]) -> Run {
    bench.train(out, &[&["autoencoder"], args].concat())
}

const STEPS: &str = r#"augment.steps=[{kind = "random_crop", size = 9}, {kind = "flip"}]"#;

#[test]
fn images_of_many_sizes_are_learnt_alike_held_or_not() {
    let bench = bench();
    let held = train(&bench, "held", &["--set", STEPS]);
    let settings = ["--set", STEPS, "--set", "data.memory=0"];
    train(&bench, "anew", &settings).assert_equals(&held);
    let seen = fs::read(held.path().join("model/preprocessor_config.json")).unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&seen).unwrap();
    // The middle is seen, and pixels stay from 0 to 1, as the model gives them back.
    assert_eq!(seen["size"]["shortest_edge"], 8);
    assert_eq!(seen["do_normalize"], false);
    assert!(held.path().join("reconstructions.png").is_file());
    bench.refuses(
        &["autoencoder", "--set", "data.size=0"],
        &["photos/train/01.img: is 13x16, the first image", "is 8x9"],
    );
}

#[test]
fn a_killed_run_on_files_goes_on_to_the_same_end() {
    let bench = bench();
    let args = [
        "autoencoder",
        "--steps",
        "60",
        "--set",
        STEPS,
        "--set",
        "data.memory=0",
        "--set",
        "training.checkpoint_every=7",
    ];
    let whole = bench.train("whole", &args);
    let mut child = bench.start("killed", 20, &args);
    child.kill().unwrap();
    child.wait().unwrap();
    bench.resume("killed").assert_equals(&whole);
}

#[test]
fn other_images_are_no_way_to_go_on() {
    let bench = bench();
    train(&bench, "run", &["--set", "data.memory=0"]);
    bench.write("photos/train/01.img", picture(98));
    let args = ["--out", "run", "--resume", "--steps", "30", "--ui", "none"];
    bench.refuses_command(&mut bench.bare(&args), &["data"]);
}

#[test]
fn the_first_batch_is_drawn_as_the_model_sees_it() {
    let bench = bench();
    let draw = |out: &str, more: &[&str]| {
        let args = [&["autoencoder", "--show-batch", out][..], more].concat();
        let output = bench.command(&args).output().unwrap();
        assert!(output.status.success(), "{}", message(&output));
        fs::read(bench.path(out)).unwrap()
    };
    let noisy = draw("noisy.png", &[]);
    let clean = ["--set", "noise.gaussian=0.0", "--set", "noise.masking=0.0"];
    assert!(draw("clean.png", &clean) != noisy);
    // Eight images in three columns, without captions.
    let drawn = image::load_from_memory(&noisy).unwrap();
    assert_eq!(drawn.width(), 8 + 3 * 152);
    assert!(!bench.path("runs").exists());
    let texts = ["mlm", "--show-batch", "--data", "none.txt"];
    bench.refuses_command(
        &mut bench.bare(&texts),
        &["--show-batch draws images, and the batches of mlm have none"],
    );
}
