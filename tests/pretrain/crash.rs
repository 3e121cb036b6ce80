//! Runs that are killed, and disks that are full: what comes out is what an uninterrupted run gives, byte for byte.
//!
//! On every CPU backend that is compiled in: `cargo test -p pretrain --features ndarray --test pretrain -- crash::` has both.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Bench, Run, idx_images, idx_labels, message, skipped};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use train::BackendName;

/// Times that a run is killed: once in each thirtieth of it.
const KILLS: u32 = 30;
/// Of these, how many may come too late, on a machine that is busy when the run is nearly done.
const LATE: u32 = 3;
/// A process still starts after so many microseconds.
const START: u64 = 30_000;

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
    let own = ["model.dropout=0.1"];
    let bench = Bench::mlm(env!("CARGO_BIN_EXE_pretrain"), &[SETTINGS, &own].concat());
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

/// What an uninterrupted run takes.
struct Pace {
    lines: usize,
    time: Duration,
}

impl Pace {
    /// A random moment in one part of the run: so many lines of its log, and some time more.
    fn moment(&self, part: u32, rng: &mut impl Rng) -> (usize, Duration) {
        let share = (f64::from(part) + rng.random::<f64>()) / f64::from(KILLS);
        let lines = share * self.lines as f64;
        let between = self.time / self.lines as u32;
        (lines as usize, between.mul_f64(lines.fract()))
    }
}

fn killed_again_and_again(bench: &Bench, recipe: &str, backend: BackendName) {
    let args = [recipe, "--backend", backend.name()];
    let began = Instant::now();
    let whole = bench.train(&format!("whole-{backend}"), &args);
    let pace = Pace {
        time: began.elapsed(),
        lines: whole.events().len(),
    };
    let out = format!("killed-{backend}");
    let path = bench.path(&out);
    let seed = std::process::id().into();
    println!("{recipe} on {backend}: moments drawn with seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let resume = ["--resume", "--out", &out, "--ui", "none"];
    let resume = || bench.bare(&[&resume[..], &args[1..]].concat());
    // Killed before it wrote its recipe, it is no run yet.
    let start = || {
        if path.join("recipe.toml").is_file() {
            resume()
        } else {
            bench.command(&[&args[..], &["--out", &out]].concat())
        }
    };
    let mut late = 0;
    for kill in 0..KILLS {
        let (lines, further) = pace.moment(kill, &mut rng);
        let ended = kill_at(&path, lines, &mut start().spawn().unwrap(), further);
        late += u32::from(ended);
        if kill % 3 == 0 {
            // One more, while the process reads its data or the checkpoint.
            let further = Duration::from_micros(rng.random_range(0..START));
            kill_at(&path, 0, &mut start().spawn().unwrap(), further);
        }
    }
    assert!(
        late <= LATE,
        "{recipe} on {backend}: {late} kills came late"
    );
    let (run, _) = bench.finish(&mut resume(), &out);
    run.assert_equals(&whole);
    assert_same_end(&run, &whole);
}

/// The last checkpoints are equal to the byte.
fn assert_same_end(run: &Run, whole: &Run) {
    for file in [
        "model.safetensors",
        "optimizer.safetensors",
        "ema.safetensors",
    ] {
        let last =
            |run: &Run| fs::read(run.path().join("checkpoints/step-00001500").join(file)).unwrap();
        assert!(last(run) == last(whole), "{file} differs");
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

/// Runs a shell script beside a new file system of so many KiB, `disk`, where the system allows that; its output.
fn on_a_small_disk(bench: &Bench, kib: u64, script: &str) -> Option<Output> {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script]);
        command.current_dir(bench.path("."));
        command.env("HEARTH_CACHE", bench.cache());
        command.output()
    };
    let mount = format!("mount -t tmpfs -o size={kib}k tmpfs disk");
    fs::create_dir_all(bench.path("disk")).unwrap();
    let why = match unshare(&mount) {
        Ok(probe) if probe.status.success() => {
            return Some(unshare(&format!("{mount} && {script}")).unwrap());
        }
        Ok(probe) => message(&probe),
        Err(error) => error.to_string(),
    };
    skipped(&format!("no tmpfs can be mounted here: {why}"));
    None
}

/// KiB that a file, or all in a folder, takes: whole pages, as a file system counts.
fn kib(path: &Path) -> u64 {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        return entries.map(|entry| kib(&entry.unwrap().path())).sum();
    }
    fs::metadata(path).unwrap().len().div_ceil(4096) * 4
}

/// Fills the disk of a run with room for no checkpoint, for one, and for two and a half; nothing where that can't be.
fn fill_the_disk(bench: &Bench, recipe: &str, backend: BackendName) -> Option<()> {
    let args = [recipe, "--backend", backend.name()];
    let whole = bench.train("whole", &args);
    let command = bench.command(&[&args[..], &["--out", "disk/run"]].concat());
    let quoted = |part: &OsStr| format!("'{}'", part.to_string_lossy());
    let program = quoted(command.get_program());
    let words: Vec<_> = command.get_args().map(quoted).collect();
    let start = format!("{program} {}", words.join(" "));
    let checkpoint = kib(&whole.path().join("checkpoints/step-00001500"));
    let model = kib(&whole.path().join("model"));
    // Beside what a run leaves: what is written before it takes the place of something, and drawings made twice.
    let disk = kib(whole.path()) + 4 * checkpoint + 2 * model + 64;
    for room in [checkpoint / 2, checkpoint * 3 / 2, checkpoint * 5 / 2] {
        let filler = disk - room - 16;
        let script = format!(
            "head -c {filler}k /dev/zero > disk/filler; \
             {start}; echo \"ended $?\"; ls disk/run/checkpoints; rm disk/filler; \
             {program} --resume --out disk/run --ui none --backend {backend}; echo \"resumed $?\"; \
             cp -r disk/run run-{room}"
        );
        let output = on_a_small_disk(bench, disk, &script)?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let message = message(&output);
        let place = format!("{recipe} on {backend}, {room} KiB: {printed}{message}");
        assert!(printed.contains("ended 1"), "{place}");
        assert!(message.contains("No space left"), "{place}");
        assert_eq!(message.lines().count(), 1, "{place}");
        assert!(printed.contains("resumed 0"), "{place}");
        bench.run(&format!("run-{room}")).assert_equals(&whole);
    }
    Some(())
}

#[test]
fn a_full_disk_loses_nothing_but_the_steps_since_the_last_checkpoint() {
    for backend in backends() {
        for (bench, recipe) in [(mlm(), "mlm"), (autoencoder(), "autoencoder")] {
            if fill_the_disk(&bench, recipe, backend).is_none() {
                return;
            }
        }
    }
}

#[test]
fn an_empty_mount_point_is_a_run_directory() {
    let (bench, backend) = (autoencoder(), BackendName::Flex);
    if !backend.is_compiled_in() {
        return;
    }
    let mut command = bench.command(&["autoencoder", "--out", "disk", "--steps", "3"]);
    command.args(["--backend", backend.name()]);
    let quoted = |part: &OsStr| format!("'{}'", part.to_string_lossy());
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(quoted).collect();
    let start = words.join(" ");
    let script = format!(
        "{start} && {start} --force && mountpoint -q disk && test -f disk/summary.json; echo \"ended $?\""
    );
    if let Some(output) = on_a_small_disk(&bench, 20_000, &script) {
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains("ended 0"), "{printed}{}", message(&output));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_is_one_sentence() {
    let bench = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &[]);
    let mut command = bench.command(&["autoencoder", "--out", "run"]);
    // All of the bundled digits at once take more than the 2 GB that the process may map.
    command.args(["--set", "training.batch_size=8000"]);
    crate::limit::limit_memory(&mut command, 2 << 30);
    let output = command.output().unwrap();
    let message = message(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.starts_with("error: out of memory"), "{message}");
}
