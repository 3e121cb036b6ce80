//! Runs that are killed, and disks that are full: what comes out is what an uninterrupted run gives, byte for byte.
//!
//! On every CPU backend that is compiled in: `cargo test -p pretrain --features ndarray --test crash` has both.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A test fails by panicking, in its helpers too.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::{Bench, Run, idx_images, idx_labels, message};
use train::BackendName;

/// Times that a run is killed.
const KILLS: u32 = 30;

/// Checkpoints lie between lines of the log and validations, in the middle of epochs.
const SETTINGS: &[&str] = &[
    "data.valid=0.2",
    "training.steps=1500",
    "training.batch_size=8",
    "training.accumulation=2",
    "training.ema=0.9",
    "training.log_every=5",
    "training.validate_every=14",
    "training.checkpoint_every=11",
];

fn mlm() -> Bench {
    let own = [
        "data.source=[\"texts.txt\"]",
        "tokenizer.vocab_size=150",
        "tokenizer.max_length=16",
        "model.hidden_size=16",
        "model.num_hidden_layers=1",
        "model.intermediate_size=32",
        "model.max_position_embeddings=16",
        "model.dropout=0.1",
    ];
    let bench = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &[SETTINGS, &own].concat());
    let kinds = ["bird", "tool", "plant", "river", "metal"];
    let line = |n: usize| format!("{n} a {} near the {}\n", kinds[n % 5], kinds[n / 5 % 5]);
    bench.write("texts.txt", (0..300).map(line).collect::<String>());
    bench
}

fn autoencoder() -> Bench {
    let own = [
        "data.source=[\"images\"]",
        "model.channels=[4]",
        "model.latent_size=8",
    ];
    let bench = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &[SETTINGS, &own].concat());
    bench.write("images/images-idx3-ubyte", idx_images(120, 8));
    bench.write("images/labels-idx1-ubyte", idx_labels(120, 3));
    bench
}

fn backends() -> impl Iterator<Item = BackendName> {
    let all = [BackendName::Flex, BackendName::Ndarray];
    all.into_iter().filter(|backend| backend.is_compiled_in())
}

/// Kills a process some time after the run has so many lines in its log; true if it had ended by itself.
fn kill_at(run: &Path, lines: usize, child: &mut Child, further: Duration) -> bool {
    let log = run.join("metrics.jsonl");
    let written = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    while written() < lines && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
    sleep(further);
    let ended = child.try_wait().unwrap();
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    ended.is_some()
}

fn killed_again_and_again(bench: &Bench, recipe: &str, backend: BackendName) {
    let args = [recipe, "--backend", backend.name()];
    let whole = bench.train(&format!("whole-{backend}"), &args);
    let out = format!("killed-{backend}");
    let path = bench.path(&out);
    let seed = std::process::id().into();
    println!("{recipe} on {backend}: moments drawn with seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let resume = ["--resume", "--out", &out, "--ui", "none"];
    let resume = || bench.bare(&[&resume[..], &args[1..]].concat());
    let mut lines = 0;
    for kill in 0..KILLS {
        // Killed before it wrote its recipe, it is no run yet.
        let mut command = match path.join("recipe.toml").is_file() {
            true => resume(),
            false => bench.command(&[&args[..], &["--out", &out]].concat()),
        };
        // At most a thirtieth of the run's lines, and a little more; from the start of the process on.
        lines += rng.random_range(0..6);
        let further = Duration::from_micros(rng.random_range(0..20_000));
        let ended = kill_at(&path, lines, &mut command.spawn().unwrap(), further);
        assert!(!ended, "{recipe} on {backend}: ended before kill {kill}");
        lines =
            fs::read_to_string(path.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    }
    let output = resume().output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let run = bench.run(&out);
    run.assert_choice();
    run.assert_equals(&whole);
    for file in [
        "model.safetensors",
        "optimizer.safetensors",
        "ema.safetensors",
    ] {
        let last =
            |run: &Run| fs::read(run.path().join("checkpoints/step-00001500").join(file)).unwrap();
        assert!(last(&run) == last(&whole), "{file} differs");
    }
}

#[test]
fn a_masked_lm_killed_at_random_moments_ends_the_same() {
    for backend in backends() {
        killed_again_and_again(&mlm(), "mlm", backend);
    }
}

#[test]
fn an_autoencoder_killed_at_random_moments_ends_the_same() {
    for backend in backends() {
        killed_again_and_again(&autoencoder(), "autoencoder", backend);
    }
}

/// A shell script on a file system of its own with so many KiB, where the system allows that; its output.
fn on_a_small_disk(bench: &Bench, kib: u64, script: &str) -> Option<std::process::Output> {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script]);
        command.current_dir(bench.path("."));
        command.output()
    };
    let mount = format!("mount -t tmpfs -o size={kib}k tmpfs disk");
    fs::create_dir_all(bench.path("disk")).unwrap();
    let probe = unshare(&mount).ok()?;
    if !probe.status.success() {
        println!("skipped: no tmpfs can be mounted here: {}", message(&probe));
        return None;
    }
    Some(unshare(&format!("{mount} && {script}")).unwrap())
}

#[test]
fn a_full_disk_loses_nothing_but_the_steps_since_the_last_checkpoint() {
    let bench = mlm();
    let whole = bench.train("whole", &["mlm", "--backend", "flex"]);
    let command = bench.command(&["mlm", "--backend", "flex", "--out", "disk/run"]);
    let quoted = |part: &std::ffi::OsStr| format!("'{}'", part.to_string_lossy());
    let mut words = vec![quoted(command.get_program())];
    words.extend(command.get_args().map(quoted));
    let start = words.join(" ");
    let program = &words[0];
    let size = |path: &Path| -> u64 {
        let files = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        // Whole pages, as a file system counts.
        files
            .map(|file| fs::metadata(file).unwrap().len().div_ceil(4096) * 4)
            .sum()
    };
    let checkpoint = size(&whole.path().join("checkpoints/step-00001500"));
    let disk = 6 * checkpoint + 2 * size(&whole.path().join("model")) + size(whole.path());
    // Room for no checkpoint, for one, for two and a half.
    for room in [checkpoint / 2, checkpoint * 3 / 2, checkpoint * 5 / 2] {
        let filler = disk - room - 16;
        let script = format!(
            "head -c {filler}k /dev/zero > disk/filler; \
             {start}; echo \"ended $?\"; ls disk/run/checkpoints; rm disk/filler; \
             {program} --resume --out disk/run --ui none --backend flex; echo \"resumed $?\"; \
             cp -r disk/run run-{room}"
        );
        let Some(output) = on_a_small_disk(&bench, disk, &script) else {
            return;
        };
        let (printed, message) = (String::from_utf8_lossy(&output.stdout), message(&output));
        assert!(printed.contains("ended 1"), "{room}: {printed}{message}");
        assert!(message.contains("No space left"), "{room}: {message}");
        assert_eq!(message.lines().count(), 1, "{room}: {message}");
        assert!(printed.contains("resumed 0"), "{room}: {printed}");
        bench.run(&format!("run-{room}")).assert_equals(&whole);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_is_one_sentence() {
    let bench = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &[]);
    let mut command = bench.command(&["autoencoder", "--out", "run"]);
    // All of the bundled digits at once take several times the 3 GB that the process may map.
    command.args(["--set", "training.batch_size=8000"]);
    let output = limited(command, 3 << 30).output().unwrap();
    let message = message(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.starts_with("error: out of memory"), "{message}");
}

/// The command in a process that may map so many bytes.
#[cfg(target_os = "linux")]
fn limited(mut command: Command, bytes: libc::rlim_t) -> Command {
    use std::os::unix::process::CommandExt;
    let limit = move || {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: bytes,
        };
        // SAFETY: the limit outlives the call.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) };
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(limit) };
    command
}
