//! Mutated data files, read by the real program: it ends with 0 or 2, in time and within its memory, and an error is
//! one sentence.
//!
//! A case is a function of its number, which a failure names. `fuzz.rs` tries many more, in one process.

use std::process::Command;
use std::time::Duration;

use crate::files::{Content, Files, samples};
use crate::limit::limit_memory;
use crate::support::{Bench, message, output_within};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Mutations of each format.
const CASES: u64 = 30;
/// What one process may take; hundreds of times what it does.
const TIME: Duration = Duration::from_secs(20);
/// Bytes that one process may map; several times what it does.
const MEMORY: libc::rlim_t = 2 << 30;

fn bench(content: Content) -> Bench {
    let settings: &[&str] = match content {
        Content::Images => &[
            "data.valid=0.4",
            "model.channels=[4]",
            "model.latent_size=8",
            "training.batch_size=8",
        ],
        Content::Texts | Content::Other => &[
            "data.valid=0.4",
            "data.cache=false",
            "tokenizer.vocab_size=100",
            "tokenizer.max_length=16",
            "model.hidden_size=16",
            "model.num_hidden_layers=1",
            "model.intermediate_size=32",
            "model.max_position_embeddings=16",
            "training.batch_size=8",
        ],
    };
    Bench::new(env!("CARGO_BIN_EXE_pretrain"), settings)
}

/// Two steps and a validation on the files in `data`, with little memory.
fn dry_run(bench: &Bench, content: Content) -> Command {
    let recipe = match content {
        Content::Images => "autoencoder",
        Content::Texts | Content::Other => "mlm",
    };
    let mut command = bench.command(&[recipe, "--dry-run", "--data", "data"]);
    limit_memory(&mut command, MEMORY);
    command
}

fn write(bench: &Bench, files: &Files) {
    for (name, bytes) in files {
        bench.write(&format!("data/{name}"), bytes);
    }
}

/// Whether a command refuses its data, with exit code 2 and in one sentence; else it has to end with 0.
fn refuses(command: &mut Command, place: &str) -> bool {
    let Some(output) = output_within(command, TIME) else {
        panic!("{place}: not done after {TIME:?}");
    };
    let (code, told) = (output.status.code(), message(&output));
    let sentence = told.starts_with("error: ") && told.lines().count() == 1;
    match code {
        Some(0) if told.is_empty() => false,
        Some(2) if sentence => true,
        _ => panic!("{place}: {code:?} {told}"),
    }
}

#[test]
fn mutated_data_is_read_or_refused_with_exit_code_2() {
    for sample in samples() {
        let (name, bench) = (sample.name, bench(sample.content));
        write(&bench, &sample.files);
        let whole = refuses(&mut dry_run(&bench, sample.content), name);
        assert!(!whole, "{name}: the whole file is refused");
        let mut refused = 0;
        for case in 0..CASES {
            let mut rng = ChaCha8Rng::seed_from_u64(case);
            write(&bench, &sample.broken(&mut rng));
            let place = format!("{name}, seed {case}");
            let mut command = dry_run(&bench, sample.content);
            // Every second case leaves bad rows out, which few mutations keep from being read.
            let strict = case % 2 == 0;
            if strict {
                command.args(["--set", "data.bad_rows=refuse"]);
            }
            refused += u64::from(refuses(&mut command, &place) && strict);
        }
        // A quarter of the strict ones.
        assert!(refused > CASES / 8, "{name}: too mild, {refused} refused");
    }
}

#[test]
fn a_header_that_promises_more_than_fits_is_refused() {
    let bench = bench(Content::Images);
    let (file, much) = ("data/images-idx3-ubyte", "bytes; data may take a quarter");
    for ([images, height, width], reason) in [
        ([12, 16_000, 16_000], "16000x16000 are 256000000 pixels"),
        // Two terabytes are too much for the machine, more than two gigabytes for the process.
        ([2_000_000, 1000, 1000], "take 2000000000000"),
        ([3_000_000, 28, 28], "take 2352000000"),
    ] {
        let header = [2051, images, height, width].map(u32::to_be_bytes);
        bench.write(file, header.concat());
        let place = format!("{file}: cannot be read: ");
        let words = if reason.starts_with("take") {
            vec![place.as_str(), reason, much]
        } else {
            vec![place.as_str(), reason]
        };
        bench.refuses_command(&mut dry_run(&bench, Content::Images), &words);
    }
}

#[test]
fn what_the_parquet_reader_panics_at_is_one_sentence() {
    let bench = bench(Content::Texts);
    let sample = samples().into_iter().find(|s| s.name == "a.parquet");
    let whole = sample.unwrap().files.remove(0).1;
    // The signs of two offsets in the footer.
    for at in [578, 584] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bench.write("data/a.parquet", bytes);
        let words = ["data/a.parquet: cannot be read as Parquet: column start"];
        bench.refuses_command(&mut dry_run(&bench, Content::Texts), &words);
    }
}
