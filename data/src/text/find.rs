//! Looks for the text files that paths name. In: files, folders or patterns. Out: the files to read, in order, and those
//! beside them that are not read.

use std::path::{Path, PathBuf};

use super::{Format, KNOWN};
use crate::{DataError, file, given};

/// Names of `.json` files that describe data, a model or a program, and hold no rows.
const SETTINGS: &[&str] = &[
    "added_tokens",
    "config",
    "croissant",
    "datapackage",
    "dataset_dict",
    "dataset_info",
    "dataset_infos",
    "manifest",
    "metadata",
    "package",
    "package-lock",
    "schema",
    "settings",
    "special_tokens_map",
    "state",
    "tokenizer",
    "tsconfig",
    "vocab",
];
/// Ends of such names.
const SETTINGS_ENDS: &[&str] = &["_config", "-config", ".config", "_state"];
const IN_FOLDER: &str = "in a sub-folder";
const ARROW: &str = ".arrow";

/// The files of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextFiles {
    /// Those to read, in their order.
    pub files: Vec<PathBuf>,
    /// Those of a folder or pattern that are not read.
    pub unread: Vec<Unread>,
}

/// A file that is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Where it is.
    pub path: PathBuf,
    /// Why, as a phrase that it shares with others: `.md`, `hidden`, `in a sub-folder`.
    pub reason: String,
}

impl From<Vec<PathBuf>> for TextFiles {
    fn from(files: Vec<PathBuf>) -> Self {
        let unread = Vec::new();
        Self { files, unread }
    }
}

/// The files of several paths.
///
/// # Errors
/// Those of [`text_files`].
pub fn all_text_files(paths: &[impl AsRef<Path>]) -> Result<TextFiles, DataError> {
    let mut all = TextFiles::default();
    for path in paths {
        all.append(text_files(path.as_ref())?);
    }
    Ok(all)
}

/// The files that [`stream`](super::stream) reads for this path.
///
/// # Errors
/// A path that is missing, or a folder or pattern without a file of a known extension.
pub fn text_files(path: &Path) -> Result<TextFiles, DataError> {
    let about = match std::fs::metadata(path) {
        Err(_) if file::is_pattern(path) => return matches(path),
        about => about.map_err(|source| file::io_error(path, source))?,
    };
    if !about.is_dir() {
        return Ok(vec![path.into()].into());
    }
    let mut found = TextFiles::default();
    // Folders named like splits, or `data` as in repositories of the Hugging Face Hub.
    let is_meant =
        |path: &PathBuf| file::name(path) == "data" || given::split_of_name(path).is_some();
    let folders = found.add_folder(path)?;
    let (meant, others): (Vec<_>, Vec<_>) = folders.into_iter().partition(is_meant);
    let mut inside = TextFiles::default();
    for folder in &meant {
        let deeper = inside.add_folder(folder)?;
        deeper.iter().for_each(|folder| inside.leave_out(folder));
    }
    // Files beside folders of splits describe them, mostly.
    if found.files.is_empty() || given::given_splits(&inside.files).is_some() {
        found.append(inside);
    } else {
        meant.iter().for_each(|folder| found.leave_out(folder));
    }
    others.iter().for_each(|folder| found.leave_out(folder));
    found.or_else(|left_out| DataError::NoKnownFile {
        path: path.into(),
        known: KNOWN,
        left_out,
    })
}

fn matches(pattern: &Path) -> Result<TextFiles, DataError> {
    let path = || pattern.to_path_buf();
    let matched =
        glob::glob(&pattern.to_string_lossy()).map_err(|error| DataError::BadPattern {
            path: path(),
            reason: error.to_string(),
        })?;
    let mut found = TextFiles::default();
    for file in matched {
        let file = file.map_err(|error| {
            let path = error.path().to_path_buf();
            file::io_error(&path, error.into())
        })?;
        if !file.is_dir() {
            found.add(file);
        }
    }
    found.or_else(|left_out| DataError::NoMatch {
        path: path(),
        known: KNOWN,
        left_out,
    })
}

impl TextFiles {
    /// Adds the files of a folder. Returns the folders in it.
    fn add_folder(&mut self, folder: &Path) -> Result<Vec<PathBuf>, DataError> {
        let mut folders = Vec::new();
        for path in file::list_all(folder)? {
            if file::is_hidden(&path) {
                self.leave(path, "hidden");
            } else if path.is_dir() {
                folders.push(path);
            } else {
                self.add(path);
            }
        }
        Ok(folders)
    }

    fn add(&mut self, path: PathBuf) {
        let name = file::name(&path).to_lowercase();
        if !path.is_file() {
            return self.leave(path, "no plain file");
        }
        match Format::of(&path) {
            // By its name, as it may hold what is worth a look.
            Ok(Format::Json) if is_settings(&name) => self.leave(path, &name),
            Ok(_) => self.files.push(path),
            Err(_) => self.leave(path, &unknown_extension(&name)),
        }
    }

    /// Counts the files in a folder that is not read, and in those in it.
    fn leave_out(&mut self, folder: &Path) {
        let mut waiting = vec![folder.to_path_buf()];
        while let Some(path) = waiting.pop() {
            // A link may lead back to a folder around it.
            let is_folder = path.is_dir() && !path.is_symlink();
            if is_folder && let Ok(inside) = file::list(&path) {
                waiting.extend(inside.into_iter().rev());
            } else {
                self.leave(path, IN_FOLDER);
            }
        }
    }

    fn leave(&mut self, path: PathBuf, reason: &str) {
        let reason = reason.into();
        self.unread.push(Unread { path, reason });
    }

    fn append(&mut self, mut later: Self) {
        self.files.append(&mut later.files);
        self.unread.append(&mut later.unread);
    }

    /// Itself, if it has a file to read.
    fn or_else(self, nothing: impl FnOnce(String) -> DataError) -> Result<Self, DataError> {
        if !self.files.is_empty() {
            return Ok(self);
        }
        let mut unread = self.unread.iter();
        match unread.find(|unread| unread.reason == ARROW) {
            Some(Unread { path, .. }) => Err(DataError::Arrow { path: path.clone() }),
            None => Err(nothing(line(&self.unread).unwrap_or_default())),
        }
    }
}

/// Files that are not read, in a line: `left out 3 files: hidden 2, .md 1`.
pub(crate) fn line(unread: &[Unread]) -> Option<String> {
    let mut left_out = crate::LeftOut::default();
    for Unread { path, reason } in unread {
        left_out.add(reason, || path.display().to_string());
    }
    left_out.files_line("file", "files")
}

/// - name: in lower case
fn is_settings(name: &str) -> bool {
    let packing = file::packing(name).unwrap_or_default();
    let plain = name.strip_suffix(packing).unwrap_or(name);
    let stem = plain.strip_suffix(".json").unwrap_or(plain);
    SETTINGS.contains(&stem) || SETTINGS_ENDS.iter().any(|end| stem.ends_with(end))
}

/// `.md`, and `.csv.bz2` of what would be a text if it were not packed so.
fn unknown_extension(name: &str) -> String {
    let extension = file::extension(name);
    match name.strip_suffix(&extension) {
        Some(inner) if Format::of(Path::new(inner)).is_ok() => file::extension(inner) + &extension,
        _ => extension,
    }
}
