//! Where tokenizers and tokens are kept between runs. In: what they are made of, as a key. Out: files that are whole.
//!
//! ```text
//! $HEARTH_CACHE (or $XDG_CACHE_HOME/hearth, or ~/.cache/hearth)
//!   hashes/       the SHA-256 of an input file, as long as its size and times stay
//!   tokenizers/   a trained tokenizer.json a file
//!   tokens/       a folder a corpus: ids and lengths of its splits, and index.json with their check sums
//! ```
//!
//! A folder of tokens is built beside its place, chunk by chunk with a journal, so that a killed process goes on where
//! it was, and renamed once it is whole. A lock lets a second process wait for the first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Crc;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::source::TextSource;
use crate::tokens::{CutTexts, TokenBuffer, TokenRows, Widths};
use crate::{DataError, LeftOut, bundled, file};

/// Raise it when files of the cache change their meaning.
const VERSION: u32 = 2;
/// Files of a folder of tokens: two a split.
const FILES: [&str; 4] = ["train.ids", "train.lengths", "valid.ids", "valid.lengths"];
const INDEX: &str = "index.json";
const JOURNAL: &str = "journal.jsonl";
/// A file written so short a time ago may change again without getting another time.
const SETTLED: Duration = Duration::from_secs(2);

/// The cache folder.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The folder that the environment names; nothing where it names none.
    pub fn from_environment() -> Option<Self> {
        let path = |name: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        let folder = path("HEARTH_CACHE")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("hearth")))
            .or_else(|| Some(path("HOME")?.join(".cache/hearth")))
            .or_else(|| Some(path("LOCALAPPDATA")?.join("hearth")))?;
        Some(Self::at(folder))
    }

    /// A folder, made when something is written.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// What the source's texts are, in few bytes: equal only where all its files are, and are read alike.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn contents(&self, source: &TextSource) -> Result<Vec<String>, DataError> {
        match source {
            TextSource::Bundled(name) => Ok(vec![format!(
                "{name}:{}",
                hex(Sha256::digest(bundled::packed(name)))
            )]),
            TextSource::Files(_) | TextSource::Given(_) => {
                let files = source.files();
                files.iter().map(|path| self.file_contents(path)).collect()
            }
            TextSource::Memory(set) => {
                let mut hash = Sha256::new();
                for example in &set.examples {
                    hash.update((example.text.len() as u64).to_le_bytes());
                    hash.update(&example.text);
                    hash.update(example.file.to_le_bytes());
                }
                Ok(vec![format!("memory:{}", hex(hash.finalize()))])
            }
        }
    }

    /// The state of the source's files: another where one of them was written to meanwhile.
    ///
    /// # Errors
    /// A file that cannot be looked at.
    pub(crate) fn stamps(source: &TextSource) -> Result<Vec<Stamp>, DataError> {
        let stamp = |path: &PathBuf| Stamp::of(path).map_err(|source| file::io_error(path, source));
        source.files().iter().map(stamp).collect()
    }

    fn file_contents(&self, path: &Path) -> Result<String, DataError> {
        let failed = |source| file::io_error(path, source);
        let name = file::name(path).to_lowercase();
        let extension = name.split_once('.').map_or("", |(_, extension)| extension);
        let stamp = Stamp::of(path).map_err(failed)?;
        let place = format!("{}.json", digest(&stamp.path));
        let place = self.folder.join("hashes").join(place);
        let known = read_json::<(Stamp, String)>(&place).filter(|(known, _)| *known == stamp);
        let hash = match known {
            Some((_, hash)) => hash,
            None => {
                let hash = hash_file(path).map_err(failed)?;
                if stamp.is_settled() {
                    self.write(&place, &json(&(stamp, &hash)))?;
                }
                hash
            }
        };
        Ok(format!("{extension}:{hash}"))
    }

    /// The key of what is made of these things.
    pub(crate) fn key(made_of: &Value) -> String {
        digest(&format!("{VERSION} {made_of}"))
    }

    /// A tokenizer of this key, as `tokenizer.json`, if there is one that is whole.
    pub(crate) fn tokenizer(&self, key: &str) -> Option<String> {
        let (sum, text) = read_json::<(String, String)>(&self.tokenizer_path(key))?;
        (digest(&text) == sum).then_some(text)
    }

    /// Keeps a tokenizer.
    ///
    /// # Errors
    /// [`DataError::Cache`].
    pub(crate) fn keep_tokenizer(&self, key: &str, text: &str) -> Result<(), DataError> {
        self.write(&self.tokenizer_path(key), &json(&(digest(text), text)))
    }

    fn tokenizer_path(&self, key: &str) -> PathBuf {
        self.folder.join("tokenizers").join(format!("{key}.json"))
    }

    /// The folder of tokens of a key.
    pub(crate) fn tokens(&self, key: &str) -> TokenFolder {
        TokenFolder {
            path: self.folder.join("tokens").join(key),
        }
    }

    /// Writes a file whole or not at all, whoever else writes it at the same time.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), DataError> {
        let fresh = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || {
            make_parent(path)?;
            fs::write(&fresh, bytes)?;
            fs::rename(&fresh, path)
        };
        write().map_err(|source| {
            // What could not be written whole is of no use; the error that matters is the first.
            drop(fs::remove_file(&fresh));
            cache_error(path, source)
        })
    }
}

/// Which state of a file a hash is of.
///
/// Size and time of writing alone do not say it: `rsync -t`, `cp -p` and archives set times back. So the file's number and
/// the time of its last change in any way, which no program can set, are compared too, where the system has them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    path: String,
    size: u64,
    nanoseconds: u64,
    #[serde(default)]
    identity: Option<Identity>,
}

/// What Unix knows of a file beside its size and time of writing.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    changed_nanoseconds: u64,
}

impl Identity {
    #[cfg(unix)]
    fn of(about: &fs::Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let changed = about.ctime() as i128 * 1_000_000_000 + about.ctime_nsec() as i128;
        Some(Self {
            device: about.dev(),
            inode: about.ino(),
            changed_nanoseconds: u64::try_from(changed).unwrap_or_default(),
        })
    }

    #[cfg(not(unix))]
    fn of(_: &fs::Metadata) -> Option<Self> {
        None
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let about = fs::metadata(path)?;
        let time = about.modified()?.duration_since(UNIX_EPOCH);
        Ok(Self {
            path: fs::canonicalize(path)?.display().to_string(),
            size: about.len(),
            nanoseconds: time.unwrap_or_default().as_nanos() as u64,
            identity: Identity::of(&about),
        })
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let changed = self
            .identity
            .as_ref()
            .map(|about| about.changed_nanoseconds);
        let written = Duration::from_nanos(self.nanoseconds.max(changed.unwrap_or(0)));
        now.unwrap_or_default() > written + SETTLED
    }
}

/// A finished corpus.
pub(crate) struct CachedTokens {
    /// Examples read, of all splits.
    pub(crate) texts: u64,
    pub(crate) train: TokenRows,
    pub(crate) valid: TokenRows,
    pub(crate) notes: Notes,
}

/// What is said of a corpus beside its tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// Training texts that were cut; not known of what early versions made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cut: Option<CutTexts>,
    /// Rows that are no examples.
    #[serde(default, skip_serializing_if = "LeftOut::is_empty")]
    pub(crate) left_out: LeftOut,
    /// Texts that are given to validate or test on, and are trained on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) leaks: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A folder of tokens, whole or not there.
pub(crate) struct TokenFolder {
    path: PathBuf,
}

/// How far the files of a folder of tokens go, and what they hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// Examples read, of all splits.
    texts: u64,
    /// Bytes and check sum of each of [`FILES`].
    files: [(u64, u32); 4],
    #[serde(flatten)]
    notes: Notes,
}

impl TokenFolder {
    /// The tokens, if they are there and whole.
    pub(crate) fn open(&self, widths: Widths) -> Option<CachedTokens> {
        let progress: Progress = read_json(&self.path.join(INDEX))?;
        let paths = FILES.map(|name| self.path.join(name));
        for (path, (bytes, sum)) in paths.iter().zip(progress.files) {
            let whole = fs::metadata(path).is_ok_and(|about| about.len() == bytes);
            if !whole || check_sum(path, bytes).ok()?.sum() != sum {
                return None;
            }
        }
        let [train_ids, train_lengths, valid_ids, valid_lengths] = paths;
        Some(CachedTokens {
            texts: progress.texts,
            notes: progress.notes,
            train: TokenRows::map(widths, &train_ids, &train_lengths).ok()?,
            valid: TokenRows::map(widths, &valid_ids, &valid_lengths).ok()?,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until no other process builds it, then goes on with what one left behind.
    ///
    /// # Errors
    /// [`DataError::Cache`].
    pub(crate) fn build(&self) -> Result<Builder, DataError> {
        let lock = self.path.with_extension("lock");
        let open = || {
            make_parent(&lock)?;
            File::options().create(true).append(true).open(&lock)
        };
        let file = open().map_err(|source| cache_error(&lock, source))?;
        // Some network file systems have no locks: there each process builds on its own, and the last one stays.
        let (lock, beside) = match file.lock() {
            Ok(()) => (Some(file), "building".into()),
            Err(_) => (None, format!("building-{}", std::process::id())),
        };
        Builder::open(self.path.clone(), self.path.with_extension(beside), lock)
    }
}

/// Tokens of the next examples of a corpus.
pub(crate) struct CorpusPart {
    /// Examples read so far, of all splits.
    pub(crate) texts: u64,
    /// Of training and of validation.
    pub(crate) splits: [TokenBuffer; 2],
    /// Training texts of this part.
    pub(crate) cut: CutTexts,
}

/// A folder of tokens that is being built.
pub(crate) struct Builder {
    place: PathBuf,
    folder: PathBuf,
    progress: Progress,
    sums: [Crc; 4],
    files: Vec<File>,
    journal: File,
    _lock: Option<File>,
}

impl Builder {
    fn open(place: PathBuf, folder: PathBuf, lock: Option<File>) -> Result<Self, DataError> {
        let progress = last_progress(&folder.join(JOURNAL)).unwrap_or_default();
        let (progress, sums) = match resumed_sums(&folder, &progress) {
            Some(sums) => (progress, sums),
            None => Default::default(),
        };
        let open = || {
            fs::create_dir_all(&folder)?;
            let mut files = Vec::new();
            for (name, (bytes, _)) in FILES.iter().zip(progress.files) {
                let file = appending(&folder.join(name))?;
                // What a killed process wrote after its last line in the journal.
                file.set_len(bytes)?;
                files.push(file);
            }
            let journal = appending(&folder.join(JOURNAL))?;
            if progress.texts == 0 {
                journal.set_len(0)?;
            }
            Ok((files, journal))
        };
        let (files, journal) = open().map_err(|source| cache_error(&folder, source))?;
        Ok(Self {
            place,
            folder,
            progress,
            sums,
            files,
            journal,
            _lock: lock,
        })
    }

    /// Examples that need not be tokenized again.
    pub(crate) fn done(&self) -> u64 {
        self.progress.texts
    }

    /// Adds the rows of the next examples.
    pub(crate) fn add(&mut self, part: CorpusPart) -> Result<(), DataError> {
        let CorpusPart {
            texts,
            splits: [train, valid],
            cut,
        } = part;
        let parts = [train.ids, train.lengths, valid.ids, valid.lengths];
        let write = || {
            for (i, bytes) in parts.iter().enumerate() {
                self.files[i].write_all(bytes)?;
                self.sums[i].update(bytes);
                self.progress.files[i].0 += bytes.len() as u64;
                self.progress.files[i].1 = self.sums[i].sum();
            }
            // An early version may have begun it without counting.
            if self.progress.texts == 0 || self.progress.notes.cut.is_some() {
                self.progress.notes.cut.get_or_insert_default().add(cut);
            }
            self.progress.texts = texts;
            let mut line = json(&self.progress);
            // A line that begins anew closes one that a kill cut.
            line.insert(0, b'\n');
            self.journal.write_all(&line)
        };
        let mut write = write;
        write().map_err(|source| self.given_up(source))
    }

    /// Removes what was begun, for it is of no use.
    pub(crate) fn give_up(self) {
        drop(fs::remove_dir_all(&self.folder));
    }

    /// What a full disk cut short must not keep it full.
    fn given_up(&self, source: io::Error) -> DataError {
        drop(fs::remove_dir_all(&self.folder));
        cache_error(&self.folder, source)
    }

    /// Gives the folder its place.
    ///
    /// - left_out, leaks: as [`Notes`] has them
    pub(crate) fn finish(mut self, left_out: LeftOut, leaks: u64) -> Result<(), DataError> {
        self.progress.notes.left_out = left_out;
        self.progress.notes.leaks = leaks;
        let finish = || {
            // Not synced to the disk: what a power cut tears is found by its check sum, and made again.
            fs::write(self.folder.join(INDEX), json(&self.progress))?;
            fs::remove_file(self.folder.join(JOURNAL))?;
            // Broken, or of a process without locks: nothing to keep.
            if self.place.exists() {
                fs::remove_dir_all(&self.place)?;
            }
            fs::rename(&self.folder, &self.place)
        };
        finish().map_err(|source| self.given_up(source))
    }
}

/// The newest whole line of a journal.
fn last_progress(journal: &Path) -> Option<Progress> {
    let text = fs::read_to_string(journal).ok()?;
    let mut lines = text.lines().rev();
    lines.find_map(|line| serde_json::from_str(line).ok())
}

/// Check sums to go on from, if the files hold what the journal says.
fn resumed_sums(folder: &Path, progress: &Progress) -> Option<[Crc; 4]> {
    let mut sums: [Crc; 4] = Default::default();
    for ((name, (bytes, sum)), resumed) in FILES.iter().zip(progress.files).zip(&mut sums) {
        if bytes > 0 {
            *resumed = check_sum(&folder.join(name), bytes).ok()?;
        }
        if resumed.sum() != sum || u64::from(resumed.amount()) != bytes & 0xffff_ffff {
            return None;
        }
    }
    Some(sums)
}

/// Of a file's first bytes; through a buffer, so that a large file takes no memory.
fn check_sum(path: &Path, bytes: u64) -> io::Result<Crc> {
    let mut sum = Crc::new();
    let from = File::open(path)?.take(bytes);
    each_buffer(from, |part| sum.update(part))?;
    Ok(sum)
}

fn hash_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    each_buffer(File::open(path)?, |part| hash.update(part))?;
    Ok(hex(hash.finalize()))
}

fn each_buffer(mut from: impl Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => take(&buffer[..read]),
        }
    }
}

fn appending(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// What a file of the cache holds; a broken one holds nothing.
fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and numbers always become JSON")
}

pub(crate) fn digest(text: &str) -> String {
    hex(Sha256::digest(text))
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

fn cache_error(path: &Path, source: io::Error) -> DataError {
    DataError::Cache {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_given_back_what_was_begun() {
        let home = tempfile::TempDir::new().unwrap();
        let folder = Cache::at(home.path().to_path_buf()).tokens("key");
        let mut builder = folder.build().unwrap();
        let begun = builder.folder.clone();
        assert!(begun.exists());
        builder.files[0] = File::options().write(true).open("/dev/full").unwrap();
        let widths = Widths {
            ids: crate::tokens::Width::of(9),
            lengths: crate::tokens::Width::of(9),
        };
        let mut rows = TokenBuffer::new(widths);
        rows.push(&[1, 2, 3]);
        let part = CorpusPart {
            texts: 1,
            splits: [rows, TokenBuffer::new(widths)],
            cut: CutTexts::default(),
        };
        let error = builder.add(part).unwrap_err();
        assert!(matches!(error, DataError::Cache { .. }), "{error}");
        assert!(!begun.exists());
    }
}
