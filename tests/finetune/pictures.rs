//! Images of any size in files of every kind, as users of `finetune` meet them.
//!
//! Every test drives the real binary on pictures that it makes: three classes, told apart by which channel is bright.

use std::fs::{self, File};
use std::io::Cursor;
use std::sync::Arc;

use crate::support::{Bench, Run, message};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

const PICTURES: u32 = 90;

/// Steps that change the size of a picture.
const STEPS: &str = r#"augment.steps=[{kind = "random_resized_crop", size = 10, scale = [0.3, 1.0]},
    {kind = "flip"}, {kind = "color_jitter", brightness = 0.2}]"#;

fn picture(i: u32) -> RgbImage {
    let (width, height) = (12 + i * 7 % 23, 11 + i * 5 % 19);
    RgbImage::from_fn(width, height, |x, y| {
        let noise = (x * 31 + y * 17 + i * 13) % 60;
        let mut pixel = [noise as u8; 3];
        pixel[(i % 3) as usize] += 150;
        Rgb(pixel)
    })
}

/// Even ones are PNG, odd ones JPEG.
fn encoded(i: u32) -> Vec<u8> {
    let format = if i.is_multiple_of(2) {
        ImageFormat::Png
    } else {
        ImageFormat::Jpeg
    };
    let mut bytes = Cursor::new(Vec::new());
    picture(i).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn name(i: u32) -> String {
    let ending = if i.is_multiple_of(2) { "png" } else { "jpg" };
    format!("{}/{i:03}.{ending}", i % 3)
}

/// Numbers of all pictures in the order of a folder: by class, then by name.
fn in_order() -> Vec<u32> {
    let of = |class| (0..PICTURES).filter(move |i| i % 3 == class);
    (0..3).flat_map(of).collect()
}

/// A bench with a folder of pictures, one folder a class.
fn bench() -> Bench {
    let settings = [
        "data.source=[\"photos\"]",
        "data.size=10",
        "data.valid=0.2",
        "data.test=0.2",
        "model.family=hearth_cnn",
        "model.hidden_sizes=[4, 8]",
        "optimizer.lr=0.01",
        "training.steps=20",
        "training.batch_size=8",
        "training.log_every=2",
        "training.validate_every=10",
    ];
    let bench = Bench::new(env!("CARGO_BIN_EXE_finetune"), &settings);
    for i in 0..PICTURES {
        bench.write(&format!("photos/{}", name(i)), encoded(i));
    }
    bench
}

fn train(bench: &Bench, out: &str, args: &[&str]) -> Run {
    bench.train(out, &[&["image-classification"], args].concat())
}

fn json(run: &Run, name: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(run.path().join("model").join(name)).unwrap()).unwrap()
}

/// The pictures in a table beside them, in a shard and in Parquet.
fn write_other_forms(bench: &Bench) {
    let (mut table, mut shard) = (String::from("file_name,label\n"), tar::Builder::new(vec![]));
    for i in in_order() {
        table += &format!("photos/{},{}\n", name(i), i % 3);
        let (stem, ending) = (format!("{i:03}"), &name(i)[6..]);
        let class = (i % 3).to_string().into_bytes();
        for (name, bytes) in [
            (format!("{stem}.{ending}"), encoded(i)),
            (format!("{stem}.cls"), class),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            shard.append_data(&mut header, name, &bytes[..]).unwrap();
        }
    }
    bench.write("photos.csv", table);
    bench.write("photos-0.tar", shard.into_inner().unwrap());

    let schema = "message schema { required binary image; required int64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(bench.path("photos.parquet")).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let images: Vec<ByteArray> = in_order().into_iter().map(|i| encoded(i).into()).collect();
    let mut column = group.next_column().unwrap().unwrap();
    let images = column
        .typed::<ByteArrayType>()
        .write_batch(&images, None, None);
    images.unwrap();
    column.close().unwrap();
    let labels: Vec<i64> = in_order().into_iter().map(|i| i64::from(i % 3)).collect();
    let mut column = group.next_column().unwrap().unwrap();
    let labels = column.typed::<Int64Type>().write_batch(&labels, None, None);
    labels.unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn a_folder_a_table_a_shard_and_parquet_train_the_same() {
    let bench = bench();
    write_other_forms(&bench);
    let args = ["--set", STEPS];
    let folder = train(&bench, "folder", &args);
    let classes = &json(&folder, "config.json")["id2label"];
    assert_eq!(classes["2"], "2");
    assert!(
        folder.summary()["test"]["metrics"]["accuracy"]
            .as_f64()
            .unwrap()
            > 0.9
    );
    for source in [
        "photos.csv",
        "photos-0.tar",
        "photos-*.tar",
        "photos.parquet",
    ] {
        let args = [&args[..], &["--data", source]].concat();
        let run = train(&bench, &source.replace('.', "-"), &args);
        assert!(run.weights() == folder.weights(), "{source}");
        assert_eq!(run.events(), folder.events(), "{source}");
    }
}

#[test]
fn neither_memory_nor_threads_change_what_is_learnt() {
    let bench = bench();
    let args = ["--set", STEPS];
    let held = train(&bench, "held", &args);
    let with = |out, settings: [&'static str; 2]| {
        let settings = settings.map(|setting| ["--set", setting]).concat();
        train(&bench, out, &[&args[..], &settings].concat())
    };
    let one = with("one", ["data.memory=0", "training.workers=1"]);
    one.assert_equals(&held);
    with("five", ["data.memory=0", "training.workers=5"]).assert_equals(&held);
}

/// Ways to mix a batch.
const MIX: &str = r#"augment.mix=[{kind = "mixup", alpha = 0.2}, {kind = "cutmix"}]"#;

#[test]
fn a_killed_run_that_mixes_images_of_files_goes_on_to_the_same_end() {
    let bench = bench();
    let args = [
        "image-classification",
        "--steps",
        "60",
        "--set",
        STEPS,
        "--set",
        MIX,
        "--set",
        "loss.label_smoothing=0.1",
        "--set",
        "loss.class_weights=balanced",
        "--set",
        "data.memory=0",
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
fn a_bundle_says_how_images_are_seen_and_its_successor_sees_them_so() {
    let bench = bench();
    let seen = |run: &Run| json(run, "preprocessor_config.json");
    let first = train(&bench, "first", &["--set", "data.crop_pct=0.8"]);
    // 10 / 0.8 pixels, rounded down.
    assert_eq!(seen(&first)["size"]["shortest_edge"], 12);
    assert_eq!(seen(&first)["crop_size"]["height"], 10);
    assert_eq!(seen(&first)["do_center_crop"], true);
    let second = train(&bench, "second", &["--from", "first"]);
    assert_eq!(seen(&second), seen(&first));
    let third = ["--from", "first", "--set", "data.crop_pct=1.0"];
    let third = train(&bench, "third", &third);
    assert_eq!(seen(&third)["size"]["shortest_edge"], 10);
    // Images that all have the size of the model are seen as they are.
    for i in 0..30 {
        let mut bytes = Cursor::new(Vec::new());
        let square = image::imageops::thumbnail(&picture(i), 10, 10);
        square.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bench.write(&format!("squares/{}/{i}.png", i % 3), bytes.into_inner());
    }
    let fourth = train(&bench, "fourth", &["--data", "squares"]);
    assert_eq!(seen(&fourth)["size"]["height"], 10);
    bench.refuses(
        &["image-classification", "--set", "data.crop_pct=1.5"],
        &["data.crop_pct is 1.5; a share is 0 to 1"],
    );
}

#[test]
fn images_of_many_sizes_need_one_for_the_model() {
    let bench = bench();
    bench.refuses(
        &["image-classification", "--set", "data.size=0"],
        &["photos/0/003.jpg: is 26x33, the first image", "data.size"],
    );
    bench.refuses(
        &["image-classification", "--set", "data.size=100000"],
        &["100000x100000"],
    );
    bench.refuses(
        &["image-classification", "--set", "augment.shift=10"],
        &["augment.shift is 10; that moves images of 10x10 out of sight"],
    );
}

/// A PNG whose header promises more pixels than fit.
fn bomb() -> Vec<u8> {
    let mut bytes = encoded(0);
    bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]); // 60,000 x 60,000
    let table = |sum: u32| {
        (0..8).fold(sum, |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (!(sum & 1)).wrapping_add(1))
        })
    };
    let sum = bytes[12..29].iter().fold(!0, |sum: u32, &byte| {
        (sum >> 8) ^ table((sum ^ u32::from(byte)) & 0xff)
    });
    bytes[29..33].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

#[test]
fn files_that_cannot_be_decoded_are_left_out_by_name_or_refused_before_training() {
    let bench = bench();
    let whole = encoded(3);
    bench.write("photos/0/bomb.png", bomb());
    bench.write("photos/0/cut.jpg", &whole[..whole.len() - 40]);
    bench.write("photos/1/empty.png", []);
    bench.write("photos/1/page.jpg", "<html>404</html>");
    bench.write("photos/2/notes.txt", "x");
    bench.write("photos/2/named.png", &whole);
    let words = [
        "1 too many pixels: 0/bomb.png",
        "1 truncated: 0/cut.jpg",
        "1 empty: 1/empty.png",
        "1 not an image: 1/page.jpg",
    ];
    let refuse = ["image-classification", "--set", "data.bad_rows=refuse"];
    let sum = ["4 of 95 image files can't be read"];
    bench.refuses(&refuse, &[&sum[..], &words].concat());
    let args = ["image-classification", "--ui", "plain", "--out", "run"];
    let (_, output) = bench.finish(&mut bench.command(&args), "run");
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines = [
        "images: 91 read, 4 left out",
        "left out 1 file that is no image: .txt 1",
        "1 file is named for another format: 2/named.png is JPEG",
    ];
    for word in words.iter().chain(&lines) {
        assert!(printed.contains(word), "no {word:?} in {printed}");
    }
}

#[test]
fn tables_that_name_no_images_or_no_labels() {
    let bench = bench();
    bench.write(
        "gone.csv",
        "image,label\nphotos/0/000.png,0\nphotos/0/999.png,1\n",
    );
    bench.write("empty.csv", "image,label\n");
    bench.write("text.csv", "text,label\na,0\n");
    for (file, column, value) in [
        ("unlabelled.csv", "other", ["x", "y"]),
        ("several.csv", "labels", ["a;b", "b"]),
        ("values.csv", "score", ["0.5", "1"]),
    ] {
        let row = |i: u32| format!("photos/{},{}\n", name(i), value[i as usize % 2]);
        let rows: String = (0..PICTURES).map(row).collect();
        bench.write(file, format!("image,{column}\n{rows}"));
    }
    let refuse = ["--set", "data.bad_rows=refuse"];
    let none = ["--set", "data.valid=0.2"];
    for (data, more, words) in [
        (
            "gone.csv",
            refuse,
            "1 missing: photos/0/999.png (gone.csv:3)",
        ),
        ("empty.csv", none, "empty.csv"),
        ("text.csv", none, "text.csv: "),
        ("unlabelled.csv", none, "the images have no labels"),
        ("several.csv", none, "the images have several labels each"),
        ("values.csv", none, "the images have a value each"),
    ] {
        let args = [&["image-classification", "--data", data][..], &more].concat();
        bench.refuses(&args, &[words]);
    }
    // A column of any name holds classes where it is named.
    let rows: String = (0..PICTURES)
        .map(|i| format!("photos/{},kind-{}\n", name(i), i % 3))
        .collect();
    bench.write("kinds.csv", format!("photo,kind\n{rows}"));
    let columns = [
        "--data",
        "kinds.csv",
        "--set",
        "data.image_column=photo",
        "--set",
        "data.label_column=kind",
    ];
    let run = train(&bench, "kinds", &columns);
    assert_eq!(json(&run, "config.json")["id2label"]["1"], "kind-1");
}

#[test]
fn files_that_vanish_while_training_end_it_with_a_sentence() {
    let bench = bench();
    let args = [
        "image-classification",
        "--steps",
        "100000",
        "--set",
        "data.memory=0",
    ];
    let child = bench.start("run", 2, &args);
    fs::rename(bench.path("photos"), bench.path("elsewhere")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", message(&output));
    let message = message(&output);
    assert!(
        message.contains("the data can't be read any more: photos/")
            && message.lines().count() == 1,
        "{message}"
    );
    // The run goes on once they are back.
    let args = ["--out", "run", "--resume", "--ui", "none", "--steps"];
    fs::rename(bench.path("elsewhere"), bench.path("photos")).unwrap();
    let steps = bench.run("run").summary()["steps"].as_u64().unwrap() + 10;
    let output = bench
        .bare(&[&args[..], &[&steps.to_string()]].concat())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        crate::support::message(&output)
    );
}

#[test]
fn mixed_images_are_learnt_and_change_what_is_learnt() {
    let bench = bench();
    let plain = train(&bench, "plain", &[]);
    let mixed = train(&bench, "mixed", &["--set", MIX, "--steps", "60"]);
    let losses = |run: &Run| run.metric("train", "loss");
    assert_ne!(losses(&plain)[..5], losses(&mixed)[..5]);
    let accuracy = mixed.summary()["test"]["metrics"]["accuracy"]
        .as_f64()
        .unwrap();
    assert!(accuracy > 0.9, "{accuracy}");
    let hits = mixed.metric("train", "accuracy");
    assert!(
        hits.iter().all(|hits| (0.0..=1.0).contains(hits)),
        "{hits:?}"
    );
    // The larger share of a mixed image can be told.
    assert!(
        hits[25..].iter().sum::<f64>() / hits[25..].len() as f64 > 0.7,
        "{hits:?}"
    );
}

#[test]
fn impossible_mixtures_are_named() {
    let bench = bench();
    for (more, words) in [
        (
            r#"augment.mix=[{kind = "mixup", alpha = 0.0}]"#,
            "augment.mix is impossible: mixup: alpha is 0; it has to be above 0",
        ),
        (r#"augment.mix=[{kind = "puzzle"}]"#, "puzzle"),
        (
            "loss.focal_gamma=2.0",
            "loss.focal_gamma is 2; it goes without augment.mix",
        ),
        (
            "training.batch_size=1",
            "augment.mix mixes the images of a batch, and training.batch_size is 1",
        ),
    ] {
        let args = ["image-classification", "--set", MIX, "--set", more];
        bench.refuses(&args, &[words]);
    }
}

#[test]
fn the_first_batch_is_drawn_and_nothing_else_is_done() {
    let bench = bench();
    let before = bench.contents();
    let show = |out: &str, more: &[&str]| {
        let args = ["image-classification", "--set", STEPS, "--set", MIX];
        let args = [&args[..], &["--show-batch", out], more].concat();
        bench.command(&args).output().unwrap()
    };
    let output = show("one.png", &[]);
    assert!(output.status.success(), "{}", message(&output));
    let sheet = fs::read(bench.path("one.png")).unwrap();
    // Eight images in three columns, fourteen times as large.
    let drawn = image::load_from_memory(&sheet).unwrap();
    assert_eq!(drawn.width(), 8 + 3 * (144 + 8));
    let mut after = bench.contents();
    after.remove(&bench.path("one.png"));
    assert!(after == before, "something else was written");
    // Whether pictures are held or not, and whatever was there.
    assert!(
        show("two.png", &["--set", "data.memory=0"])
            .status
            .success()
    );
    assert!(fs::read(bench.path("two.png")).unwrap() == sheet);
    bench.write("two.png", "mine");
    let refused = show("two.png", &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(message(&refused).contains("two.png: exists; --force replaces it"));
    assert!(show("two.png", &["--force"]).status.success());
    assert!(fs::read(bench.path("two.png")).unwrap() == sheet);
    for (args, words) in [
        (
            ["image-classification", "--show-batch", "no/such.png"],
            "no/such.png: its directory does not exist",
        ),
        (
            ["text-classification", "--show-batch", "texts.png"],
            "--show-batch draws images, and the batches of text-classification have none",
        ),
    ] {
        bench.refuses_command(&mut bench.bare(&args), &[words]);
    }
}
