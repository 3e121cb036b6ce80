//! Splits that files are given as. In: paths. Out: those to train on, to validate on and to test on.
//!
//! The names are those that `datasets` knows: a word of the file's name, or of its folder's, is `train` or `training`,
//! `valid`, `validation`, `val` or `dev`, `test`, `testing`, `eval` or `evaluation`. So are `train.csv`,
//! `imdb_test.jsonl.gz`, `data/train-00000-of-00003.parquet` and `test/0001.txt` recognised.

use std::path::{Path, PathBuf};

use crate::split::Split;
use crate::text::{self, TextFiles, Unread};
use crate::{DataError, file};

/// Files of a data set that comes in splits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenSplits {
    /// To train on.
    pub train: Vec<PathBuf>,
    /// To choose a checkpoint by; empty where none is given.
    pub valid: Vec<PathBuf>,
    /// To report; empty where none is given.
    pub test: Vec<PathBuf>,
    /// Files beside them whose names say no split. They are not read, which should be said.
    pub other: Vec<PathBuf>,
    /// Other files beside those that are read.
    pub unread: Vec<Unread>,
}

/// The splits that these files are named as; `None` unless some are to train on, and some to validate or to test on.
///
/// - files: without folders and patterns, as [`text::text_files`] finds them
pub fn given_splits(files: &[PathBuf]) -> Option<GivenSplits> {
    let mut given = GivenSplits::default();
    // One folder for all is the data's, whatever its name.
    let several = files
        .windows(2)
        .any(|pair| pair[0].parent() != pair[1].parent());
    for path in files {
        let folder = || path.parent().filter(|_| several).and_then(split_of_name);
        let split = split_of_name(path).or_else(folder);
        given.files(split).push(path.clone());
    }
    let is_held_out = !given.valid.is_empty() || !given.test.is_empty();
    (is_held_out && !given.train.is_empty()).then_some(given)
}

impl GivenSplits {
    /// These files in splits: those named by `valid` and `test` (files, folders or patterns), else by the files' own names.
    /// A file that is named is not trained on.
    ///
    /// # Errors
    /// A path that is missing, or has no file of a known extension.
    pub fn named(
        files: &[PathBuf],
        valid: &[impl AsRef<Path>],
        test: &[impl AsRef<Path>],
    ) -> Result<Self, DataError> {
        let mut given = given_splits(files).unwrap_or_else(|| Self {
            train: files.to_vec(),
            ..Self::default()
        });
        let (valid, test) = (text::all_text_files(valid)?, text::all_text_files(test)?);
        for (found, is_valid) in [(valid, true), (test, false)] {
            let TextFiles {
                files: paths,
                unread,
            } = found;
            given.unread.extend(unread);
            if paths.is_empty() {
                continue;
            }
            for split in [
                &mut given.train,
                &mut given.valid,
                &mut given.test,
                &mut given.other,
            ] {
                split.retain(|file| !paths.contains(file));
            }
            let split = if is_valid {
                &mut given.valid
            } else {
                &mut given.test
            };
            *split = paths;
        }
        Ok(given)
    }

    /// Each file with its split: those to validate on, to test on, to train on. In this order it is known what is held out
    /// when what is trained on is read.
    pub fn each(&self) -> impl Iterator<Item = (&PathBuf, Split)> {
        let train = self.train.iter().map(|file| (file, Split::Train));
        let valid = self.valid.iter().map(|file| (file, Split::Valid));
        let test = self.test.iter().map(|file| (file, Split::Test));
        valid.chain(test).chain(train)
    }

    fn files(&mut self, split: Option<Split>) -> &mut Vec<PathBuf> {
        match split {
            Some(Split::Train) => &mut self.train,
            Some(Split::Valid) => &mut self.valid,
            Some(Split::Test) => &mut self.test,
            None => &mut self.other,
        }
    }
}

/// The split that a file's or a folder's name says; `None` where it says none, or more than one.
pub(crate) fn split_of_name(path: &Path) -> Option<Split> {
    let name = file::name(path).to_lowercase();
    let words = name.split(|letter: char| !letter.is_alphanumeric());
    let mut splits: Vec<Split> = words.filter_map(split_of_word).collect();
    splits.dedup();
    match splits.as_slice() {
        [split] => Some(*split),
        _ => None,
    }
}

pub(crate) fn split_of_word(word: &str) -> Option<Split> {
    match word {
        "train" | "training" => Some(Split::Train),
        "valid" | "validation" | "val" | "dev" => Some(Split::Valid),
        "test" | "testing" | "eval" | "evaluation" => Some(Split::Test),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(names: &[&str]) -> Option<GivenSplits> {
        given_splits(&names.iter().map(PathBuf::from).collect::<Vec<_>>())
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn names_say_the_split() {
        let split = |name: &str| split_of_name(Path::new(name));
        for name in [
            "train.csv",
            "Training.JSONL",
            "imdb_train.csv.gz",
            "train-00000-of-00003.parquet",
        ] {
            assert_eq!(split(name), Some(Split::Train), "{name}");
        }
        for name in [
            "valid.csv",
            "validation.csv",
            "val.tsv",
            "a/dev.jsonl",
            "my-dev-2.txt",
        ] {
            assert_eq!(split(name), Some(Split::Valid), "{name}");
        }
        for name in ["test.csv", "a.test.csv", "eval.txt", "test_data.json"] {
            assert_eq!(split(name), Some(Split::Test), "{name}");
        }
        for name in [
            "trains.csv",
            "contest.csv",
            "train_test.csv",
            "value.csv",
            "data.csv",
        ] {
            assert_eq!(split(name), None, "{name}");
        }
    }

    #[test]
    fn a_set_in_splits_has_files_to_train_on_and_others() {
        let found = given(&[
            "d/test.csv",
            "d/train-0.csv",
            "d/train-1.csv",
            "d/notes.csv",
        ])
        .unwrap();
        assert_eq!(found.train, paths(&["d/train-0.csv", "d/train-1.csv"]));
        assert_eq!((found.valid, found.test), (vec![], paths(&["d/test.csv"])));
        assert_eq!(found.other, paths(&["d/notes.csv"]));
        for names in [
            &["train.csv"][..],
            &["test.csv"],
            &["valid.csv", "test.csv"],
            &["a.csv"],
            &[],
        ] {
            assert_eq!(given(names), None, "{names:?}");
        }
    }

    #[test]
    fn a_folder_says_it_where_the_file_does_not() {
        let found = given(&["x/train/1.txt", "x/val/1.txt", "train/test.txt"]).unwrap();
        assert_eq!(found.train, paths(&["x/train/1.txt"]));
        assert_eq!(found.valid, paths(&["x/val/1.txt"]));
        assert_eq!(found.test, paths(&["train/test.txt"]));
    }

    #[test]
    fn folders_of_splits_are_looked_into() {
        let folder = tempfile::TempDir::new().unwrap();
        for name in ["train/a.txt", "test/a.txt", "other/a.txt", "data/dev-0.txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        let found = given_splits(&text::text_files(folder.path()).unwrap().files).unwrap();
        assert_eq!(found.train, [folder.path().join("train/a.txt")]);
        assert_eq!(found.valid, [folder.path().join("data/dev-0.txt")]);
        assert_eq!(found.test, [folder.path().join("test/a.txt")]);
    }

    #[test]
    fn the_folder_of_all_files_says_no_split() {
        assert_eq!(given(&["dev/train.csv", "dev/more.csv"]), None);
        let found = given(&["dev/train.csv", "dev/test.csv", "dev/more.csv"]).unwrap();
        assert_eq!(
            (found.valid, found.other),
            (vec![], paths(&["dev/more.csv"]))
        );
    }

    #[test]
    fn files_beside_folders_of_splits_are_no_texts() {
        let folder = tempfile::TempDir::new().unwrap();
        for name in ["train/a.csv", "test/a.csv", "labels.csv"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text\na\n").unwrap();
        }
        let found = given_splits(&text::text_files(folder.path()).unwrap().files).unwrap();
        assert_eq!(found.train, [folder.path().join("train/a.csv")]);
        assert_eq!(found.other, [folder.path().join("labels.csv")]);
    }

    #[test]
    fn named_files_are_taken_from_the_others() {
        let folder = tempfile::TempDir::new().unwrap();
        let place = |name: &str| folder.path().join(name);
        let names = ["train.txt", "test.txt", "a.txt", "b.txt"];
        for name in names {
            std::fs::write(place(name), "text").unwrap();
        }
        let none: [&Path; 0] = [];
        let all = names.map(place);
        let named = GivenSplits::named(&all, &[place("a.txt")], &none).unwrap();
        assert_eq!(
            (named.train, named.valid),
            (vec![place("train.txt")], vec![place("a.txt")])
        );
        assert_eq!(
            (named.test, named.other),
            (vec![place("test.txt")], vec![place("b.txt")])
        );
        let named = GivenSplits::named(&all[2..], &none, &[place("b.txt")]).unwrap();
        assert_eq!(
            (named.train, named.test),
            (vec![place("a.txt")], vec![place("b.txt")])
        );
        let error = GivenSplits::named(&all, &[place("c.txt")], &none).unwrap_err();
        assert!(
            error.to_string().ends_with("c.txt: no such file"),
            "{error}"
        );
    }
}
