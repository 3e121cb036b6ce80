//! Looks for the images of folders, before any is opened. In: folders. Out: files by split and class, in order, and a
//! count of what is no image.
//!
//! ```text
//! photos/{1.jpg, 2.jpg}                      one set without labels
//! photos/{cat/1.jpg, dog/1.jpg}              one set, a class a folder
//! photos/{train/cat/1.jpg, val/cat/2.jpg}    given splits, a class a folder in each
//! photos/{train/1.jpg, test/2.jpg}           given splits without labels
//! ```

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::content;
use crate::bad_rows::LeftOut;
use crate::given::split_of_word;
use crate::split::Split;
use crate::{DataError, file, labels};

/// A file that is an image by its name or its content.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) split: Split,
    pub(super) class: Option<String>,
}

/// The images of folders.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// By folder as given, split, class and name.
    pub(super) entries: Vec<Entry>,
    /// Names of all splits together, in order; empty without labels.
    pub(super) classes: Vec<String>,
    /// The place of each of them.
    pub(super) ids: HashMap<String, u32>,
    /// Files that are no images, by their extension.
    pub(super) not_images: LeftOut,
    /// What a user should know about how folders were understood.
    pub(super) notes: Vec<String>,
}

/// The images of several folders as one set; classes of one name are one class.
///
/// # Errors
/// A folder that can't be listed or understood, or that holds no image; folders with and without classes.
pub(super) fn find(folders: &[PathBuf]) -> Result<Found, DataError> {
    let mut found = Found::default();
    let mut no_images = Vec::new();
    for folder in folders {
        no_images.extend(found.add(folder)?);
    }
    // Stable: inside of a split the folders keep their order.
    found.entries.sort_by_key(|entry| entry.split);
    let names = found.entries.iter().filter_map(|e| e.class.as_deref());
    let classes: BTreeSet<&str> = names.collect();
    // A class may be too rare to be in each of the given splits.
    if let Some(empty) = no_images
        .iter()
        .find(|path| !classes.contains(class(path).as_str()))
    {
        return Err(no_image(empty)?);
    }
    let classes = labels::ordered(classes).into_iter().map(String::from);
    found.classes = classes.collect();
    found.ids = found.classes.iter().cloned().zip(0..).collect();
    let alike = labels::alike(&found.classes);
    let alike = alike.iter().map(|group| labels::alike_line(group));
    found.notes.extend(alike);
    found.check_labels()?;
    Ok(found)
}

impl Found {
    /// Adds a folder that holds images, classes or splits. Returns the class folders without an image.
    fn add(&mut self, folder: &Path) -> Result<Vec<PathBuf>, DataError> {
        let inside = self.list(folder)?;
        let splits = match given_splits(folder, &inside)? {
            Folders::Splits(splits) => splits,
            Folders::Classes => return self.add_split(Split::Train, folder, inside),
            Folders::ClassesWith(name) => {
                let note = format!("{name}/ is read as a class, as the folders beside it are");
                self.notes.push(note);
                return self.add_split(Split::Train, folder, inside);
            }
        };
        self.notes.extend(beside_splits(&inside.images));
        let mut no_images = Vec::new();
        for (split, path) in splits {
            let inside = self.list(path)?;
            no_images.extend(self.add_split(split, path, inside)?);
        }
        Ok(no_images)
    }

    /// Adds the images of a folder, or of its class folders. Returns the class folders without an image.
    fn add_split(
        &mut self,
        split: Split,
        folder: &Path,
        Inside { folders, images }: Inside,
    ) -> Result<Vec<PathBuf>, DataError> {
        if folders.is_empty() {
            if images.is_empty() {
                return Err(no_image(folder)?);
            }
            self.extend(images, split, None);
            return Ok(vec![]);
        }
        if let Some(path) = images.into_iter().next() {
            return Err(DataError::ImageBesideClasses { path });
        }
        let mut no_images = Vec::new();
        for class in folders {
            let inside = self.list(&class)?;
            if inside.images.is_empty() {
                no_images.push(class);
                continue;
            }
            for nested in inside.folders {
                let place = || nested.display().to_string();
                self.not_images.add("folders inside a class folder", place);
            }
            self.extend(inside.images, split, Some(self::class(&class)));
        }
        Ok(no_images)
    }

    fn extend(&mut self, images: Vec<PathBuf>, split: Split, class: Option<String>) {
        let entry = |path| Entry {
            path,
            split,
            class: class.clone(),
        };
        self.entries.extend(images.into_iter().map(entry));
    }

    /// What a folder holds; what is no image is counted.
    fn list(&mut self, folder: &Path) -> Result<Inside, DataError> {
        let mut inside = Inside::default();
        for path in file::list_all(folder)? {
            if file::is_hidden(&path) {
                self.not_images.add("hidden", || path.display().to_string());
            } else if path.is_dir() {
                inside.folders.push(path);
            } else if content::may_be_image(&path) {
                inside.images.push(path);
            } else {
                let place = || path.display().to_string();
                self.not_images
                    .add(&file::extension(&file::name(&path)), place);
            }
        }
        Ok(inside)
    }

    /// Refuses images without a class beside images with one.
    fn check_labels(&self) -> Result<(), DataError> {
        let of = |labelled| {
            let mut entries = self.entries.iter();
            entries.find(|entry| entry.class.is_some() == labelled)
        };
        let (Some(labelled), Some(unlabelled)) = (of(true), of(false)) else {
            return Ok(());
        };
        Err(DataError::MixedLabels {
            path: unlabelled.path.clone(),
            labelled: labelled.path.clone(),
        })
    }
}

/// What a folder holds, sorted by name.
#[derive(Debug, Default)]
struct Inside {
    folders: Vec<PathBuf>,
    images: Vec<PathBuf>,
}

/// What the folders inside a folder are.
enum Folders<'a> {
    Splits(Vec<(Split, &'a Path)>),
    Classes,
    /// Classes, though the name of one is that of a split.
    ClassesWith(String),
}

/// Whether the folders inside a folder are splits, in the order train, valid, test.
fn given_splits<'a>(folder: &Path, inside: &'a Inside) -> Result<Folders<'a>, DataError> {
    let mut splits = Vec::new();
    let mut others = Vec::new();
    for path in &inside.folders {
        match split_of_word(&file::name(path).to_lowercase()) {
            Some(split) => splits.push((split, path.as_path())),
            None => others.push(file::name(path)),
        }
    }
    // Stable, so that two of one split keep the order of their names.
    splits.sort_by_key(|&(split, _)| split);
    if splits.is_empty() {
        return Ok(Folders::Classes);
    }
    if others.is_empty() {
        return check_splits(folder, &splits).map(|()| Folders::Splits(splits));
    }
    let names = || splits.iter().map(|(_, path)| file::name(path)).collect();
    if let [(_, path)] = splits.as_slice()
        && others.len() > 1
        && file::list(path)?.iter().all(|path| !path.is_dir())
    {
        // Trains are things to see, too.
        return Ok(Folders::ClassesWith(file::name(path)));
    }
    Err(DataError::MixedSplits {
        path: folder.into(),
        splits: names(),
        others,
    })
}

/// That images beside folders of splits are in none of them.
fn beside_splits(images: &[PathBuf]) -> Option<String> {
    let mut left_out = LeftOut::default();
    for image in images {
        left_out.add("beside the splits", || file::name(image));
    }
    let [reason] = left_out.reasons() else {
        return None;
    };
    let files = if images.len() == 1 { "image" } else { "images" };
    let (count, listed) = (reason.count, reason.listed());
    Some(format!(
        "left out {count} {files} beside the folders of splits: {listed}"
    ))
}

/// Refuses two folders for one split.
fn check_splits(folder: &Path, splits: &[(Split, &Path)]) -> Result<(), DataError> {
    for pair in splits.windows(2) {
        if pair[0].0 == pair[1].0 {
            return Err(DataError::SplitTwice {
                path: folder.into(),
                first: file::name(pair[0].1),
                second: file::name(pair[1].1),
            });
        }
    }
    Ok(())
}

/// The class that a folder is named for, as labels of texts are compared.
fn class(folder: &Path) -> String {
    labels::canonical(&file::name(folder)).into_owned()
}

/// Why a folder gives no image: it holds none, or has them too deep.
fn no_image(folder: &Path) -> Result<DataError, DataError> {
    let path = folder.into();
    if file::list(folder)?.iter().any(|path| path.is_dir()) {
        return Ok(DataError::NestedFolders { path });
    }
    Ok(DataError::NoImage {
        path,
        known: content::FORMATS,
    })
}
