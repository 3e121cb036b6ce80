//! The run directory: the resolved recipe, a line an event in `metrics.jsonl` and for TensorBoard, and `summary.json`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::checkpoint::Position;
use crate::metrics::Metrics;
use crate::report::tensorboard::EventFile;

/// What is wrong with a run directory.
#[derive(Debug, Error)]
pub enum RunError {
    /// It exists and holds something.
    #[error("{}: exists already; --resume goes on with it, --force starts anew", .0.display())]
    Exists(PathBuf),
    /// There is nothing to go on with.
    #[error("{}: {reason}", path.display())]
    NotResumable {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Another process trains in it.
    #[error("{}: another process is training in it", .0.display())]
    Busy(PathBuf),
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How a run deals with what stands in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Go on from the newest checkpoint.
    Resume,
    /// Delete it.
    Replace,
}

/// A run directory.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// Held while a process writes into a run; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunDir {
    /// Checks the directory; nothing is written yet.
    pub fn check(path: &Path, existing: Existing) -> Result<Self, RunError> {
        let run = Self { path: path.into() };
        // A run killed before its recipe got its name left nothing to lose.
        let unnamed = |entry: io::Result<fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name() == "recipe.tmp")
        };
        let occupied = path.is_file() || fs::read_dir(path).is_ok_and(|mut all| !all.all(unnamed));
        match existing {
            Existing::Refuse if occupied => Err(RunError::Exists(path.into())),
            Existing::Resume if !path.join("recipe.toml").is_file() => {
                Err(RunError::NotResumable {
                    path: path.into(),
                    reason: "holds no run to resume (recipe.toml is missing)".into(),
                })
            }
            // Deleting is for directories that are runs: a mistyped --out must not cost a home folder.
            Existing::Replace if occupied && !path.join("recipe.toml").is_file() => {
                Err(RunError::NotResumable {
                    path: path.into(),
                    reason: "is not empty and no run, so --force does not replace it".into(),
                })
            }
            _ => Ok(run),
        }
    }

    /// Creates the directory, empty, with its recipe.
    pub fn create(&self, recipe: &str) -> Result<(), RunError> {
        if self.path.exists() {
            fs::remove_dir_all(&self.path).map_err(|e| self.io(&self.path, e))?;
        }
        fs::create_dir_all(&self.path).map_err(|e| self.io(&self.path, e))?;
        let written = self.write("recipe.toml", recipe.as_bytes());
        if written.is_err() {
            // Without its recipe it is no run: nothing could resume or replace it.
            fs::remove_dir_all(&self.path).map_err(|e| self.io(&self.path, e))?;
        }
        written?;
        let checkpoints = self.checkpoints();
        fs::create_dir_all(&checkpoints).map_err(|e| self.io(&checkpoints, e))
    }

    /// Makes sure that no other process writes into the run.
    ///
    /// # Errors
    ///
    /// Another process has it.
    pub fn lock(&self) -> Result<RunLock, RunError> {
        let path = self.checkpoints().join(".lock");
        let open = || {
            fs::create_dir_all(self.checkpoints())?;
            File::options().create(true).append(true).open(&path)
        };
        let file = open().map_err(|e| self.io(&path, e))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(RunError::Busy(self.path.clone())),
            // Some network file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(RunLock { _file: file }),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `model/`, the bundle of the best step.
    pub fn bundle(&self) -> PathBuf {
        self.path.join("model")
    }

    /// The recipe of the run, as it was resolved.
    pub fn recipe(&self) -> Result<String, RunError> {
        let path = self.path.join("recipe.toml");
        fs::read_to_string(&path).map_err(|e| self.io(&path, e))
    }

    /// Writes a file whole or not at all.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        let path = self.path.join(name);
        write_atomically(&path, bytes).map_err(|e| self.io(&path, e))
    }

    fn io(&self, path: &Path, source: io::Error) -> RunError {
        RunError::Io {
            path: path.into(),
            source,
        }
    }
}

/// Writes beside, syncs, renames.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("tmp");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Optimizer steps done.
    pub step: u64,
    /// Passes over the training split done.
    pub epoch: f64,
    /// `train`, `valid` or `test`.
    pub split: &'static str,
    /// Figures of the steps since the last line, or of the split.
    pub metrics: Metrics,
    /// Learning rate of this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Learning rates by group, where they differ.
    #[serde(skip_serializing_if = "Metrics::is_empty")]
    pub group_lr: Metrics,
    /// Seconds of training so far, over all sittings.
    pub seconds: f64,
    /// What the time since the last line went into, in seconds; throughput; peak memory. No two runs share these.
    #[serde(skip_serializing_if = "Metrics::is_empty")]
    pub timing: Metrics,
    /// Further figures: by class, a confusion matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

impl Event {
    /// An event with nothing but its metrics.
    pub fn new(step: u64, epoch: f64, split: &'static str, metrics: Metrics) -> Self {
        Self {
            step,
            epoch,
            split,
            metrics,
            lr: None,
            group_lr: Metrics::new(),
            seconds: 0.0,
            timing: Metrics::new(),
            details: None,
        }
    }
}

impl Event {
    /// Every figure with its tag in TensorBoard.
    fn figures(&self) -> impl Iterator<Item = (String, f64)> {
        let split = self.split;
        let of = move |prefix: String, figures: &Metrics| {
            let tagged = |(name, value): (&String, &f64)| (format!("{prefix}/{name}"), *value);
            figures.iter().map(tagged).collect::<Vec<_>>()
        };
        let lr = self.lr.map(|lr| (format!("{split}/lr"), lr));
        of(split.to_string(), &self.metrics)
            .into_iter()
            .chain(lr)
            .chain(of("lr".into(), &self.group_lr))
            .chain(of("timing".into(), &self.timing))
    }
}

/// Where events go: `metrics.jsonl` and TensorBoard, both open for appending.
#[derive(Debug)]
pub struct EventLog {
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    run: PathBuf,
    lines: File,
    events: EventFile,
}

const METRICS: &str = "metrics.jsonl";
const TENSORBOARD: &str = "tensorboard";

impl EventLog {
    /// Opens the log; a resumed run forgets what was written after its checkpoint.
    pub fn open(run: &RunDir, position: &Position) -> Result<Self, RunError> {
        let path = run.path.join(METRICS);
        let lines = OpenOptions::new().create(true).append(true).open(&path);
        let events = EventFile::open(&run.path.join(TENSORBOARD), position.events_length);
        let files = Files {
            lines: lines.map_err(|e| run.io(&path, e))?,
            events: events.map_err(|e| run.io(&run.path.join(TENSORBOARD), e))?,
            run: run.path.clone(),
        };
        let log = Self { files: Some(files) };
        log.cut(position)?;
        Ok(log)
    }

    /// A log that forgets.
    pub fn none() -> Self {
        Self { files: None }
    }

    /// Appends one event.
    pub fn append(&mut self, event: &Event) -> Result<(), RunError> {
        let Some(Files { run, lines, events }) = &mut self.files else {
            return Ok(());
        };
        let mut write = || {
            let mut line = serde_json::to_string(event)?;
            line.push('\n');
            lines.write_all(line.as_bytes())
        };
        inside(run, METRICS, write())?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since_1970.unwrap_or_default().as_secs_f64();
        let written = events.append(seconds, event.step, event.figures());
        inside(run, TENSORBOARD, written)
    }

    /// Notes in a checkpoint's position how much was written.
    pub fn mark(&self, position: &mut Position) -> Result<(), RunError> {
        let Some(Files { run, lines, events }) = &self.files else {
            return Ok(());
        };
        // A checkpoint that outlives a power cut must not count on lines that don't.
        let length = lines.sync_data().and_then(|()| Ok(lines.metadata()?.len()));
        position.log_length = inside(run, METRICS, length)?;
        position.events_length = inside(run, TENSORBOARD, events.synced())?;
        Ok(())
    }

    /// Forgets what was written after a checkpoint.
    pub fn cut(&self, position: &Position) -> Result<(), RunError> {
        let Some(Files { run, lines, events }) = &self.files else {
            return Ok(());
        };
        inside(run, METRICS, cut(lines, position.log_length))?;
        // A run from its beginning keeps the line that names the format.
        match position.events_length {
            0 => Ok(()),
            length => inside(run, TENSORBOARD, events.cut(length)),
        }
    }
}

/// Cuts a file that has at least so many bytes.
pub(crate) fn cut(file: &File, length: u64) -> io::Result<()> {
    let has = file.metadata()?.len();
    match has < length {
        true => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("has {has} bytes, where the checkpoint counts on {length}"),
        )),
        false => file.set_len(length),
    }
}

fn inside<T>(run: &Path, name: &str, result: io::Result<T>) -> Result<T, RunError> {
    result.map_err(|source| RunError::Io {
        path: run.join(name),
        source,
    })
}

/// Refuses a model that this machine can't hold: the allocator would end the process without a word.
pub fn check_memory(parameters: f64) -> Result<(), String> {
    // Weight, gradient and two moments, 4 bytes each.
    let needed = parameters * 16.0;
    match memory_bytes() {
        Some(memory) if needed > memory as f64 => Err(format!(
            "{parameters:.1e} parameters need {:.0} GiB to train; this machine has {} GiB",
            needed / (1u64 << 30) as f64,
            memory >> 30
        )),
        _ => Ok(()),
    }
}

/// Bytes of memory this machine has; nothing where the system does not say.
pub fn memory_bytes() -> Option<u64> {
    #[cfg(unix)]
    {
        // SAFETY: sysconf takes no pointers.
        let [pages, size] = unsafe {
            [
                libc::sysconf(libc::_SC_PHYS_PAGES),
                libc::sysconf(libc::_SC_PAGESIZE),
            ]
        };
        let (pages, size) = (u64::try_from(pages).ok()?, u64::try_from(size).ok()?);
        pages.checked_mul(size)
    }
    #[cfg(not(unix))]
    None
}

/// Largest resident size of this process so far, in bytes; 0 where the system does not say.
pub fn peak_memory_bytes() -> u64 {
    #[cfg(unix)]
    {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: getrusage fills the structure it is given, and zeroes are a valid rusage.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        usage.ru_maxrss as u64 * unit
    }
    #[cfg(not(unix))]
    0
}
