//! The run directory: the resolved recipe, a line an event in `metrics.jsonl` and for TensorBoard, and `summary.json`.

use std::ffi::OsString;
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
    /// It exists and is not empty.
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

/// What a run does with what its directory holds already.
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

/// Held while a process writes into a run; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
    /// Whether the directory is new.
    created: bool,
}

/// The recipe before it has its name, today and in older versions.
const UNFINISHED_RECIPE: [&str; 2] = [".recipe.toml.new", "recipe.tmp"];

const RECIPE: &str = "recipe.toml";
const CHECKPOINTS: &str = "checkpoints";
const LOCK: &str = ".lock";
/// What Linux puts into the root of a file system.
const LOST_AND_FOUND: &str = "lost+found";

impl RunDir {
    /// Checks the directory; nothing is written yet.
    ///
    /// # Errors
    ///
    /// There is something that must not be touched, or nothing to go on with.
    pub fn check(path: &Path, existing: Existing) -> Result<Self, RunError> {
        let run = Self { path: path.into() };
        let is_run = path.join(RECIPE).is_file();
        let wrong = |reason: &str| RunError::NotResumable {
            path: path.into(),
            reason: reason.into(),
        };
        match existing {
            Existing::Refuse if run.is_occupied() => Err(RunError::Exists(path.into())),
            Existing::Resume if !is_run => {
                Err(wrong("holds no run to resume (recipe.toml is missing)"))
            }
            // Deleting is for directories that are runs: a mistyped --out must not cost a home folder.
            Existing::Replace if run.is_occupied() && !is_run => Err(wrong(
                "is not empty and no run, so --force does not replace it",
            )),
            _ => Ok(run),
        }
    }

    /// Whether it holds something that is not left of a start that got no further than its lock.
    fn is_occupied(&self) -> bool {
        let Ok(mut entries) = fs::read_dir(&self.path) else {
            return self.path.is_file();
        };
        let only_lock = || {
            let inside = fs::read_dir(self.checkpoints());
            inside.is_ok_and(|mut all| all.all(|entry| entry.is_ok_and(|e| e.file_name() == LOCK)))
        };
        let harmless = |entry: io::Result<fs::DirEntry>| {
            let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
            // A run killed before its recipe got its name left nothing to lose.
            UNFINISHED_RECIPE
                .iter()
                .any(|unfinished| name == *unfinished)
                || name == LOST_AND_FOUND
                || name == CHECKPOINTS && only_lock()
        };
        !entries.all(harmless)
    }

    /// Takes the directory for this process, makes it if need be, and [checks](Self::check) it again: by now another
    /// process may have begun a run in it.
    ///
    /// # Errors
    ///
    /// Another process has it, or got there first.
    pub fn claim(&self, existing: Existing) -> Result<RunLock, RunError> {
        let created = !self.path.exists();
        let lock = self.lock(created)?;
        Self::check(&self.path, existing)?;
        Ok(lock)
    }

    fn lock(&self, created: bool) -> Result<RunLock, RunError> {
        fs::create_dir_all(&self.path).map_err(|e| self.io(&self.path, e))?;
        let path = self.checkpoints().join(LOCK);
        let open = || {
            fs::create_dir_all(self.checkpoints())?;
            File::options().create(true).append(true).open(&path)
        };
        let file = open().map_err(|e| self.io(&path, e))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(RunError::Busy(self.path.clone())),
            // Some network file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // A start that failed takes its lock away.
        if !is_same_file(&file, &path) {
            return Err(RunError::Busy(self.path.clone()));
        }
        Ok(RunLock {
            _file: file,
            created,
        })
    }

    /// Begins a run in a directory that was [claimed](Self::claim): deletes what it holds, never the directory itself, which
    /// may be a mount point or a link, and writes the recipe.
    pub fn begin(&self, lock: &RunLock, recipe: &str) -> Result<(), RunError> {
        // The recipe is last to go, by the new one in its place: until then it is a run that --force replaces.
        self.empty(&self.path, &[RECIPE, CHECKPOINTS, LOST_AND_FOUND])?;
        self.empty(&self.checkpoints(), &[LOCK])?;
        let written = self.write(RECIPE, recipe.as_bytes());
        if written.is_err() && lock.created {
            self.take_back();
        }
        written
    }

    /// Deletes what a folder holds, but for some names.
    fn empty(&self, folder: &Path, kept: &[&str]) -> Result<(), RunError> {
        for entry in fs::read_dir(folder).map_err(|e| self.io(folder, e))? {
            let entry = entry.map_err(|e| self.io(folder, e))?;
            if kept.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let path = entry.path();
            // Not of what a link leads to.
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let deleted = if is_folder {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            deleted.map_err(|e| self.io(&path, e))?;
        }
        Ok(())
    }

    /// Undoes [`claim`](Self::claim) where the recipe could not be written: without it nothing could resume or replace it.
    fn take_back(&self) {
        // The error worth a sentence is that of the recipe; what is left is no obstacle to a next start.
        let _ = fs::remove_file(unfinished(&self.path.join(RECIPE)));
        let _ = fs::remove_file(self.checkpoints().join(LOCK));
        let _ = fs::remove_dir(self.checkpoints());
        let _ = fs::remove_dir(&self.path);
    }

    /// Deletes the bundle, if there is one: its step was undone.
    pub fn remove_bundle(&self) -> Result<(), RunError> {
        let path = self.bundle();
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io(&path, error)),
            _ => Ok(()),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// `model/`, the bundle of the best step.
    pub fn bundle(&self) -> PathBuf {
        self.path.join("model")
    }

    /// The recipe of the run, as it was resolved.
    pub fn recipe(&self) -> Result<String, RunError> {
        let path = self.path.join(RECIPE);
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

/// Whether a path still leads to an open file.
fn is_same_file(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
        match (file.metadata(), fs::metadata(path)) {
            (Ok(open), Ok(named)) => place(open) == place(named),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        // An open file cannot be deleted.
        let _ = (file, path);
        true
    }
}

/// Writes beside, syncs, renames: the file is whole or as it was, and a link to it stays. A pipe or a device is written to.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Where a link leads.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if path.exists() && !path.is_file() {
        return fs::write(path, bytes);
    }
    let fresh = unfinished(&path);
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)
    };
    write().inspect_err(|_| {
        // The error worth a sentence is the first.
        let _ = fs::remove_file(&fresh);
    })
}

/// Whether a file, or the directory that is here, can be replaced: tries, and leaves nothing.
///
/// # Errors
///
/// What writing would end with.
pub fn check_writable(path: &Path) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if path.exists() && !path.is_file() && !path.is_dir() {
        return OpenOptions::new().write(true).open(&path).map(drop);
    }
    let fresh = unfinished(&path);
    if fresh.is_dir() {
        // A directory whose writing was broken off.
        return Ok(());
    }
    File::create(&fresh)?;
    fs::remove_file(&fresh)
}

/// Where a file is written before it gets its name. Hidden, and named after the whole name: `a.tmp` may be the user's.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
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
    /// Seconds of training so far, in all processes.
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
    /// Opens the log; in a resumed run, what was written after its checkpoint is deleted.
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

    /// A log that keeps nothing.
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

    /// Deletes what was written after a checkpoint.
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
    if has < length {
        let reason = format!("has {has} bytes, where the checkpoint counts on {length}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    file.set_len(length)
}

fn inside<T>(run: &Path, name: &str, result: io::Result<T>) -> Result<T, RunError> {
    result.map_err(|source| RunError::Io {
        path: run.join(name),
        source,
    })
}

/// What is held of each parameter of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its value: the model is used, or little of it trains.
    Value,
    /// Its gradient and two moments too.
    Training,
}

/// Refuses a model that this machine can't hold: the allocator would end the process without a word.
///
/// # Errors
///
/// More bytes than there are, in all.
pub fn check_memory(parameters: f64, held: Held) -> Result<(), String> {
    let (bytes, purpose) = match held {
        Held::Value => (4.0, ""),
        Held::Training => (16.0, " to train"),
    };
    let needed = parameters * bytes;
    match memory_bytes() {
        Some(memory) if needed > memory as f64 => Err(format!(
            "{parameters:.1e} parameters need {:.0} GiB{purpose}; this machine has {} GiB",
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
