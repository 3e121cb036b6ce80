//! Texts of any size, as users of `pretrain` meet them: formats, the cache, packing, batches by tokens.
//!
//! Every test drives the real binary on texts that it makes, with an empty cache.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Bench, Run, message};

fn bench() -> Bench {
    let bench = Bench::mlm(
        env!("CARGO_BIN_EXE_pretrain"),
        &[
            "training.steps=20",
            "training.log_every=2",
            "training.validate_every=10",
        ],
    );
    bench.write("texts.txt", texts(300));
    bench
}

fn texts(n: usize) -> String {
    let sizes = ["small", "large", "very old"];
    let places = ["in the water", "near a town", "on the wall", "of the north"];
    let line = |n: usize| {
        let more = "and so on ".repeat(n % 5);
        format!("{n} a {} thing {} {more}\n", sizes[n % 3], places[n % 4])
    };
    (0..n).map(line).collect()
}

/// What `--ui plain` prints of a run.
fn printed(bench: &Bench, out: &str, args: &[&str]) -> String {
    let args = [args, &["--ui", "plain", "--out", out]].concat();
    let (_, output) = bench.finish(&mut bench.command(&args), out);
    String::from_utf8(output.stdout).unwrap()
}

/// Folders of finished tokens.
fn token_folders(bench: &Bench) -> Vec<PathBuf> {
    let entries = fs::read_dir(bench.cache().join("tokens")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = paths
        .filter(|path| path.is_dir() && path.extension().is_none())
        .collect();
    folders.sort();
    folders
}

fn losses(run: &Run) -> Vec<f64> {
    run.metric("train", "loss")
}

// The cache.

#[test]
fn tokens_are_made_once_and_anew_when_a_file_changes() {
    let bench = bench();
    assert!(printed(&bench, "first", &[]).contains("tokens kept in"));
    assert!(!printed(&bench, "second", &[]).contains("tokens kept in"));
    bench.run("second").assert_equals(&bench.run("first"));
    let uncached = printed(&bench, "third", &["--set", "data.cache=false"]);
    assert!(!uncached.contains("tokens kept in"), "{uncached}");
    assert_eq!(losses(&bench.run("third")), losses(&bench.run("first")));
    assert_eq!(token_folders(&bench).len(), 1);

    bench.write("texts.txt", texts(301));
    assert!(printed(&bench, "fourth", &[]).contains("tokens kept in"));
    assert_eq!(token_folders(&bench).len(), 2);
}

#[test]
fn a_broken_cache_is_made_anew() {
    let bench = bench();
    let whole = bench.train("whole", &[]);
    let file = token_folders(&bench).remove(0).join("train.ids");
    let bytes = fs::read(&file).unwrap();
    for broken in [
        bytes[..bytes.len() / 2].to_vec(),
        [&bytes[1..], b"x"].concat(),
    ] {
        fs::write(&file, broken).unwrap();
        let out = format!("run-{}", fs::metadata(&file).unwrap().len());
        assert!(printed(&bench, &out, &[]).contains("tokens kept in"));
        bench.run(&out).assert_equals(&whole);
        assert!(fs::read(&file).unwrap() == bytes);
    }
}

#[test]
fn a_build_that_was_killed_goes_on() {
    let bench = bench();
    bench.train("tokenizer", &[]);
    bench.write("many.txt", texts(600_000));
    let args = [
        "--data",
        "many.txt",
        "--set",
        "tokenizer.path=tokenizer/model/tokenizer.json",
        "--set",
        "data.valid=0.01",
        "--set",
        "data.valid_limit=50",
    ];
    let mut child = bench
        .command(&args)
        .args(["--out", "killed"])
        .spawn()
        .unwrap();
    let began = Instant::now();
    let chunks = || {
        let entries = fs::read_dir(bench.cache().join("tokens"))
            .into_iter()
            .flatten();
        let journals = entries.map(|entry| entry.unwrap().path().join("journal.jsonl"));
        let lines = journals.filter_map(|path| fs::read_to_string(path).ok());
        lines.map(|text| text.lines().count()).max().unwrap_or(0)
    };
    while chunks() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "no chunk");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!bench.path("killed").exists());

    let resumed = printed(&bench, "resumed", &args);
    assert!(resumed.contains("texts of an earlier start"), "{resumed}");
    let whole = [&args[..], &["--set", "data.cache=false"]].concat();
    let whole = bench.train("whole", &whole);
    assert_eq!(losses(&bench.run("resumed")), losses(&whole));
}

#[test]
fn without_a_cache_folder_small_texts_are_held_in_memory() {
    let bench = bench();
    let whole = bench.train("whole", &[]);
    bench.write("file", "");
    let mut command = bench.command(&["--out", "run"]);
    command.env("HEARTH_CACHE", bench.path("file/cache"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    bench.run("run").assert_equals(&whole);
}

#[test]
fn two_starts_at_once_make_the_same_tokens() {
    let bench = bench();
    bench.write("texts.txt", texts(20_000));
    let children = ["one", "two"].map(|out| bench.command(&["--out", out]).spawn().unwrap());
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    bench.run("two").assert_equals(&bench.run("one"));
    assert_eq!(token_folders(&bench).len(), 1);
}

// Formats.

#[test]
fn the_same_texts_in_each_format_train_the_same() {
    let bench = bench();
    let whole = losses(&bench.train("txt", &[]));
    let lines: Vec<String> = texts(300).lines().map(String::from).collect();
    let jsonl = lines
        .iter()
        .map(|line| format!("{{\"text\": \"{line}\"}}\n"));
    bench.write("parts/a.jsonl", jsonl.clone().take(200).collect::<String>());
    bench.write("parts/b.jsonl", jsonl.skip(200).collect::<String>());
    bench.write("parts/c.txt", "not a part of it\n");
    let tsv: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(format!("text\n{tsv}").as_bytes()).unwrap();
    bench.write("texts.tsv.gz", gz.finish().unwrap());
    for (out, source) in [("glob", "parts/*.jsonl"), ("tsv", "texts.tsv.gz")] {
        let run = bench.train(out, &["--data", source]);
        assert_eq!(losses(&run), whole, "{out}");
    }
    bench.refuses(
        &["--data", "parts/*.csv"],
        &["parts/*.csv: the pattern matches no file"],
    );
}

// Batches.

#[test]
fn packed_batches_have_no_padding() {
    let bench = bench();
    let padding = |run: &Run| run.summary()["padding_fraction"].as_f64().unwrap();
    let plain = bench.train("plain", &["--set", "training.pool=0"]);
    let packed = bench.train("packed", &["--set", "training.packing=true"]);
    assert!(padding(&plain) > 0.05, "{}", padding(&plain));
    assert_eq!(padding(&packed), 0.0);
    let tokens = bench.train("tokens", &["--set", "training.tokens=64"]);
    assert!(padding(&tokens) < padding(&plain), "{}", padding(&tokens));
}

#[test]
fn packed_and_token_batches_are_resumed_to_the_same_end() {
    for setting in ["training.packing=true", "training.tokens=64"] {
        let bench = bench();
        let args = [
            "--set",
            setting,
            "--steps",
            "300",
            "--set",
            "training.checkpoint_every=7",
        ];
        let whole = bench.train("whole", &args);
        let mut child = bench.start("run", 25, &args);
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume("run").assert_equals(&whole);
    }
}

#[test]
fn results_do_not_depend_on_the_threads() {
    let bench = bench();
    let one = bench.train("one", &["--set", "training.workers=1"]);
    bench
        .train("five", &["--set", "training.workers=5"])
        .assert_equals(&one);
}

#[test]
fn micro_batches_of_any_size_train_alike() {
    let bench = bench();
    let run = |size: &str, accumulation: &str| {
        let size = format!("training.batch_size={size}");
        let accumulation = format!("training.accumulation={accumulation}");
        let out = format!("{size}-{accumulation}");
        let args = [
            "--set",
            &size,
            "--set",
            &accumulation,
            "--set",
            "training.pool=0",
        ];
        losses(&bench.train(&out, &args))
    };
    let whole = run("64", "1");
    for (size, accumulation) in [("32", "2"), ("8", "8")] {
        for (one, other) in whole.iter().zip(run(size, accumulation)) {
            // The same sums in another order: f32 rounding, grown over 20 steps.
            assert!((one - other).abs() < 1e-4, "{size}: {one} {other}");
        }
    }
}

#[test]
fn settings_that_do_not_go_together() {
    let bench = bench();
    let both = [
        "--set",
        "training.tokens=64",
        "--set",
        "training.packing=true",
    ];
    bench.refuses(&both, &["training.packing is true"]);
    bench.refuses(
        &["--set", "training.tokens=15"],
        &["training.tokens is 15", "16 tokens"],
    );
    bench.refuses(&["--set", "training.workers=0"], &["training.workers is 0"]);
    let packed = [
        "--set",
        "training.packing=true",
        "--set",
        "training.batch_size=10000",
    ];
    bench.refuses(&packed, &["training.batch_size is 10000; the texts fill"]);
    let images = ["autoencoder", "--set", "training.tokens=64"];
    let mut command = bench.bare(&[&images[..], &["--out", "run"]].concat());
    bench.refuses_command(
        &mut command,
        &["training.tokens is 64; images have no tokens"],
    );
}

// Size. `cargo test -p pretrain --test data -- --ignored` writes 2 GB into the temporary folder and takes minutes.

#[test]
#[ignore = "takes 4 GB of disk and some minutes"]
fn two_gigabytes_stream_in_less_than_half_a_gigabyte() {
    let bench = bench();
    let small = bench.train("small", &[]);
    let unit = texts(100_000);
    let mut file = fs::File::create(bench.path("big.txt")).unwrap();
    let mut written = 0;
    while written < 2_000_000_000 {
        file.write_all(unit.as_bytes()).unwrap();
        written += unit.len();
    }
    drop(file);
    let args = [
        "--data",
        "big.txt",
        "--set",
        "data.valid=0.01",
        "--set",
        "data.valid_limit=500",
    ];
    let began = Instant::now();
    let big = bench.train("big", &args);
    let first = began.elapsed();
    let began = Instant::now();
    let again = bench.train("again", &args);
    let memory = |run: &Run| run.summary()["peak_memory_bytes"].as_u64().unwrap() >> 20;
    println!(
        "MiB: small {}, building {}, from the cache {}; {first:?} and {:?}",
        memory(&small),
        memory(&big),
        memory(&again),
        began.elapsed()
    );
    assert!(memory(&big) < memory(&small) + 500);
    assert!(memory(&again) < memory(&small) + 500);
}
