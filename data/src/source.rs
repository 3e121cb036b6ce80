//! What `--data` names: a bundled set, or paths.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::image::{
    ImageFileOptions, ImageFileSets, ImageOptions, ImageSets, is_image_table, open_image_files,
    read_image_folders,
};
use crate::split::Split;
use crate::text::{self, TextExample, TextFiles, TextRow, TextStream};
use crate::{
    DataError, GivenSplits, ImageSet, LeftOut, TextColumns, TextSet, bundled, file, idx, image,
    read_images,
};

const TEXTS: &[&str] = &[
    "wordnet",
    "wordnet-nouns",
    "verses",
    "poems",
    "brown",
    "questions",
    "verse-pairs",
    "verse-places",
    "definition-choices",
    "wordnet-labels",
    "definition-answers",
    "glossaries",
];
const IMAGES: &[&str] = &["mnist"];
/// Files of a folder that tell whether it is one of images.
const LOOKED_AT: usize = 10_000;

/// Texts of a bundled set (`wordnet`, `wordnet-nouns`; always labelled, whatever `columns` says),
/// or of paths as [`read_text`](crate::read_text) takes them. A path of a bundled set's name is written `./wordnet`.
pub fn texts(data: &[String], columns: &TextColumns) -> Result<TextSet, DataError> {
    TextSource::named(data)?.collect(columns)
}

/// Where texts come from, to be read more than once and never whole.
#[derive(Clone, Debug)]
pub enum TextSource {
    /// A bundled set, by its name.
    Bundled(&'static str),
    /// Files, folders and patterns already looked up.
    Files(TextFiles),
    /// Files that are given as splits.
    Given(GivenSplits),
    /// Texts in memory.
    Memory(TextSet),
}

/// Examples one at a time; it ends after an error.
pub enum TextExamples<'a> {
    /// Of files, or of a bundled set.
    Stream(Box<TextStream>),
    /// Of a set in memory.
    Memory(std::slice::Iter<'a, TextExample>, &'a LeftOut),
}

impl TextExamples<'_> {
    /// Rows left out up to now.
    pub fn left_out(&self) -> LeftOut {
        match self {
            Self::Stream(stream) => stream.left_out().clone(),
            Self::Memory(_, left_out) => (*left_out).clone(),
        }
    }
}

impl Iterator for TextExamples<'_> {
    type Item = Result<TextExample, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Stream(stream) => stream.next(),
            Self::Memory(examples, _) => examples.next().cloned().map(Ok),
        }
    }
}

impl TextSource {
    /// The bundled set, or the files, that `data` names, as [`texts`] takes it.
    ///
    /// # Errors
    /// Nothing is named, or a path that is missing.
    pub fn named(data: &[String]) -> Result<Self, DataError> {
        if let Some(name) = alone(data, TEXTS)? {
            return Ok(Self::Bundled(name));
        }
        Ok(Self::Files(text::all_text_files(data)?))
    }

    /// [`named`](Self::named) in splits: those that `valid` and `test` name, else those that the names of the files say.
    ///
    /// # Errors
    /// Those of [`named`](Self::named), or a bundled set beside given splits.
    pub fn in_splits(
        data: &[String],
        valid: &[String],
        test: &[String],
    ) -> Result<Self, DataError> {
        let source = Self::named(data)?;
        let named = !valid.is_empty() || !test.is_empty();
        match source {
            Self::Files(found) => {
                let given = if named {
                    Some(GivenSplits::named(&found.files, valid, test)?)
                } else {
                    crate::given_splits(&found.files)
                };
                let Some(mut given) = given else {
                    return Ok(Self::Files(found));
                };
                given.unread.extend(found.unread);
                Ok(Self::Given(given))
            }
            Self::Bundled(name) if named => Err(DataError::BundledNotAlone { name: name.into() }),
            other => Ok(other),
        }
    }

    /// Its examples from the first.
    ///
    /// # Errors
    /// A file that cannot be opened; what is malformed is the stream's last item.
    pub fn stream(&self, columns: &TextColumns) -> Result<TextExamples<'_>, DataError> {
        match self {
            Self::Memory(set) => Ok(TextExamples::Memory(set.examples.iter(), &set.left_out)),
            _ => Ok(TextExamples::Stream(Box::new(self.open(columns)?))),
        }
    }

    /// All rows with their places, those without a text too, for what answers each row.
    ///
    /// # Errors
    /// A file that cannot be opened; a file that can't be read on is the last item.
    pub fn rows<'a>(
        &'a self,
        columns: &TextColumns,
    ) -> Result<Box<dyn Iterator<Item = Result<TextRow, DataError>> + 'a>, DataError> {
        let Self::Memory(set) = self else {
            return Ok(Box::new(self.open(columns)?.rows()));
        };
        let row = |(at, example): (usize, &TextExample)| TextRow {
            place: set.place(at),
            text: Ok(example.text.clone()),
        };
        Ok(Box::new(set.examples.iter().enumerate().map(row).map(Ok)))
    }

    /// All its examples, in memory, with the splits that they are given for.
    ///
    /// # Errors
    /// Those of [`read_text`](crate::read_text).
    pub fn collect(&self, columns: &TextColumns) -> Result<TextSet, DataError> {
        if let Self::Memory(set) = self {
            return Ok(set.clone());
        }
        let mut set = self.open(columns)?.collect_set()?;
        if let Self::Given(given) = self {
            set.given = given.each().map(|(_, split)| split).collect();
        }
        set.unread = self.unread();
        Ok(set)
    }

    fn open(&self, columns: &TextColumns) -> Result<TextStream, DataError> {
        match self {
            Self::Bundled("wordnet") => Ok(bundled::wordnet_stream()),
            Self::Bundled("wordnet-nouns") => Ok(bundled::wordnet_nouns_stream()),
            Self::Bundled(name) => Ok(bundled::stream(name, columns.clone())),
            Self::Memory(set) => text::stream(&set.files, columns),
            Self::Files(_) | Self::Given(_) => text::stream(&self.files(), columns),
        }
    }

    /// What is to be said of files beside those that are read, a sentence each.
    pub fn unread(&self) -> Vec<String> {
        let (other, unread) = match self {
            Self::Files(found) => (&[][..], &found.unread),
            Self::Given(given) => (given.other.as_slice(), &given.unread),
            Self::Bundled(_) | Self::Memory(_) => return Vec::new(),
        };
        let names: Vec<_> = other
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let files = if names.len() == 1 { "file" } else { "files" };
        let other = format!(
            "{} {files} beside the given splits left out: {}",
            names.len(),
            names.join(", ")
        );
        // A file in a sub-folder may be named as a split, too.
        let mut known: HashSet<PathBuf> = self.files().into_iter().collect();
        let mut unread = unread.clone();
        unread.retain(|unread| known.insert(unread.path.clone()));
        let other = (!names.is_empty()).then_some(other);
        other
            .into_iter()
            .chain(text::unread_line(&unread))
            .collect()
    }

    /// The files that it reads, in their order; none of what is bundled or in memory.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Files(found) => found.files.clone(),
            Self::Given(given) => given.each().map(|(file, _)| file.clone()).collect(),
            Self::Bundled(_) | Self::Memory(_) => Vec::new(),
        }
    }

    /// The split of each of its files, where they are given as splits; else empty.
    pub(crate) fn given(&self) -> Vec<Split> {
        match self {
            Self::Given(given) => given.each().map(|(_, split)| split).collect(),
            Self::Memory(set) => set.given.clone(),
            Self::Bundled(_) | Self::Files(_) => Vec::new(),
        }
    }

    /// The file, or the first of the files, for messages.
    pub fn origin(&self) -> String {
        match self {
            Self::Bundled("wordnet-nouns") => "bundled:wordnet".into(),
            Self::Bundled(name) => format!("bundled:{name}"),
            Self::Files(_) | Self::Given(_) => text::origin(&self.files()),
            Self::Memory(set) => set.origin(),
        }
    }
}

/// Images of a bundled set (`mnist`), or of one path as [`read_images`] takes it.
///
/// - size: height and width to resize to
pub fn images(data: &[String], size: Option<(usize, usize)>) -> Result<ImageSet, DataError> {
    if alone(data, IMAGES)?.is_some() {
        return bundled::mnist().resized(size, 0);
    }
    match data {
        [path] => read_images(Path::new(path), size),
        _ => Err(DataError::ManyImagePaths { count: data.len() }),
    }
}

/// Images of a bundled set (`mnist`), of one path as [`crate::read_image_sets`] takes it, or of several folders as one.
///
/// # Errors
/// As [`read_image_folders`]; nothing is named, or a bundled set beside something else.
pub fn image_sets(data: &[String], options: &ImageOptions) -> Result<ImageSets, DataError> {
    if alone(data, IMAGES)?.is_some() {
        let set = bundled::mnist().resized(options.size, options.split_seed)?;
        return Ok(ImageSets::whole(set));
    }
    let paths: Vec<PathBuf> = data.iter().map(PathBuf::from).collect();
    read_image_folders(&paths, options)
}

/// Images, decoded or still encoded.
#[derive(Clone, Debug)]
pub enum Images {
    /// Of a bundled set or an IDX file: decoded, all of one size.
    Memory(ImageSets),
    /// Of files that hold encoded images.
    Files(ImageFileSets),
}

/// Images of a bundled set (`mnist`), of an IDX file or a folder with one, or of what [`open_image_files`] opens.
///
/// - size: height and width to which what is not encoded is stretched
///
/// # Errors
/// As [`image_sets`] and [`open_image_files`].
pub fn open_images(
    data: &[String],
    size: Option<(usize, usize)>,
    options: &ImageFileOptions,
) -> Result<Images, DataError> {
    let mut is_decoded = alone(data, IMAGES)?.is_some();
    let paths: Vec<PathBuf> = data.iter().map(PathBuf::from).collect();
    for path in &paths {
        is_decoded |= path.exists() && !is_image_table(path) && idx::named(path)?.is_some();
    }
    if !is_decoded {
        return open_image_files(&paths, options).map(Images::Files);
    }
    let options = ImageOptions {
        size,
        bad_rows: options.bad_rows,
        ground: options.ground,
        split_seed: options.decode.map_or(0, |plan| plan.seed),
    };
    image_sets(data, &options).map(Images::Memory)
}

/// Whether what `data` names is read as images: `mnist`, an IDX file, an image, shards, or a folder in which more files are
/// images than texts. A table is one of texts here, though it may name images.
pub fn are_images(data: &[String]) -> bool {
    data.iter().any(|name| {
        let path = Path::new(name);
        if IMAGES.contains(&name.as_str()) || image::is_image(path) {
            return true;
        }
        if file::extension(name) == ".tar"
            || matches!(idx::named(path), Ok(Some(found)) if file::name(&found).contains("idx"))
        {
            return true;
        }
        path.is_dir() && holds_images(path)
    })
}

fn holds_images(folder: &Path) -> bool {
    let (mut images, mut texts) = (0, 0);
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(path) = waiting.pop()
        && images + texts < LOOKED_AT
    {
        if path.is_dir() && !path.is_symlink() {
            // A folder that cannot be listed is reported when it is read.
            waiting.extend(file::list(&path).unwrap_or_default());
        } else if image::is_image(&path) || file::extension(&file::name(&path)) == ".tar" {
            images += 1;
        } else if text::Format::of(&path).is_ok() {
            texts += 1;
        }
    }
    images > texts
}

/// The bundled set that `data` names, if it names one.
fn alone(
    data: &[String],
    bundled: &'static [&'static str],
) -> Result<Option<&'static str>, DataError> {
    let known = |name: &String| bundled.iter().copied().find(|known| known == name);
    let named = data.iter().find_map(known);
    match (named, data.len()) {
        (_, 0) => Err(DataError::NoData { bundled }),
        (None, _) => Ok(None),
        (Some(name), 1) => Ok(Some(name)),
        (Some(name), _) => Err(DataError::BundledNotAlone { name: name.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn bundled_names_win_unless_written_as_paths() {
        let columns = TextColumns::default();
        assert_eq!(
            texts(&names(&["wordnet-nouns"]), &columns).unwrap().len(),
            82_115
        );
        let error = texts(&names(&["./wordnet"]), &columns).unwrap_err();
        assert_eq!(error.to_string(), "./wordnet: no such file");
        let error = images(&names(&["./mnist"]), None).unwrap_err();
        assert_eq!(error.to_string(), "./mnist: no such file");
    }

    #[test]
    fn folders_of_images_are_told_from_those_of_texts() {
        let folder = tempfile::TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in [
            "photos/a/1.png",
            "photos/a/2.jpg",
            "photos/labels.csv",
            "texts/a.csv",
            "texts/plot.png",
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        for (name, expected) in [
            ("photos", true),
            ("photos/a/1.png", true),
            ("shard.tar", true),
            ("texts", false),
            ("texts/a.csv", false),
            ("nothing", false),
        ] {
            assert_eq!(are_images(&[at(name)]), expected, "{name}");
        }
        assert!(are_images(&names(&["mnist"])) && !are_images(&names(&["wordnet"])));
    }

    #[test]
    fn bundled_images_are_resized_like_others() {
        let set = images(&names(&["mnist"]), Some((14, 7))).unwrap();
        assert_eq!((set.height, set.width, set.len()), (14, 7, 10_000));
        assert_eq!(set.image(0).len(), 14 * 7);
    }

    #[test]
    fn image_sets_are_bundled_or_paths() {
        let options = ImageOptions {
            size: Some((14, 7)),
            ..ImageOptions::default()
        };
        let sets = image_sets(&names(&["mnist"]), &options).unwrap();
        assert_eq!((sets.train.height, sets.train.width), (14, 7));
        assert_eq!(sets.lines(), ["images: 10000 read"]);
        let refused = |data: &[&str]| image_sets(&names(data), &options).unwrap_err();
        assert!(matches!(
            refused(&["mnist", "a"]),
            DataError::BundledNotAlone { .. }
        ));
        assert!(matches!(refused(&[]), DataError::NoData { .. }));
        assert_eq!(refused(&["./mnist"]).to_string(), "./mnist: no such file");
        assert_eq!(refused(&["./a", "./b"]).to_string(), "./a: no such file");
    }

    #[test]
    fn paths_and_everything_else() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "one\ntwo").unwrap();
        let path = path.display().to_string();
        let columns = TextColumns::default();
        assert_eq!(
            texts(&[path.clone(), path.clone()], &columns)
                .unwrap()
                .len(),
            4
        );
        assert_eq!(
            texts(&[], &columns).unwrap_err().to_string(),
            "no data is named; give paths, or one of the bundled sets: wordnet, wordnet-nouns, verses, poems, brown, questions, verse-pairs, verse-places, definition-choices, wordnet-labels, definition-answers, glossaries"
        );
        let error = texts(&["wordnet".into(), path], &columns).unwrap_err();
        assert!(matches!(error, DataError::BundledNotAlone { .. }));
        let error = images(&names(&["a", "b"]), None).unwrap_err();
        assert!(matches!(error, DataError::ManyImagePaths { count: 2 }));
    }

    #[test]
    fn splits_are_named_or_said_by_the_files() {
        let folder = tempfile::TempDir::new().unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        for (name, text) in [
            ("train.txt", "one\ntwo"),
            ("val.txt", "three"),
            ("extra.txt", "four"),
        ] {
            std::fs::write(place(name), text).unwrap();
        }
        let (columns, here) = (
            TextColumns::default(),
            [folder.path().display().to_string()],
        );
        let texts = |source: &TextSource| -> Vec<(String, Option<Split>)> {
            let set = source.collect(&columns).unwrap();
            let row = |at: usize| (set.examples[at].text.clone(), set.given_split(at));
            (0..set.len()).map(row).collect()
        };
        let of = |text: &str, split| (text.to_string(), Some(split));
        let (one, two) = (of("one", Split::Train), of("two", Split::Train));
        let source = TextSource::in_splits(&here, &[], &[]).unwrap();
        assert_eq!(
            texts(&source),
            [of("three", Split::Valid), one.clone(), two.clone()]
        );
        let TextSource::Given(given) = &source else {
            panic!("{source:?}");
        };
        assert_eq!(given.other, [folder.path().join("extra.txt")]);
        let source = TextSource::in_splits(&here, &[], &[place("extra.txt")]).unwrap();
        assert_eq!(
            texts(&source),
            [of("three", Split::Valid), of("four", Split::Test), one, two]
        );
        let source = TextSource::in_splits(&[place("train.txt")], &[], &[]).unwrap();
        assert_eq!(
            texts(&source),
            [("one".to_string(), None), ("two".to_string(), None)]
        );
        let error =
            TextSource::in_splits(&names(&["wordnet"]), &names(&["a.csv"]), &[]).unwrap_err();
        assert!(
            matches!(error, DataError::BundledNotAlone { .. }),
            "{error}"
        );
    }

    #[test]
    fn rows_of_a_set_in_memory_have_places_too() {
        let source = TextSource::Memory(TextSet::from_texts(["one", "two"]));
        let rows = source.rows(&TextColumns::default()).unwrap();
        let rows: Vec<TextRow> = rows.collect::<Result<_, _>>().unwrap();
        assert_eq!(
            (rows[1].place.as_str(), rows[1].text.as_deref()),
            ("memory:2", Ok("two"))
        );
    }

    /// The files of each split by their names, and what is said of the others.
    fn in_splits(folder: &tempfile::TempDir, valid: &[String]) -> ([Vec<String>; 3], Vec<String>) {
        let here = folder.path().display().to_string();
        let source = TextSource::in_splits(std::slice::from_ref(&here), valid, &[]).unwrap();
        let TextSource::Given(given) = &source else {
            panic!("{source:?}");
        };
        let names =
            |paths: &Vec<PathBuf>| paths.iter().map(|path| crate::file::name(path)).collect();
        let unread = source.unread();
        let unread = unread
            .iter()
            .map(|line| line.replace(&format!("{here}/"), ""));
        (
            [&given.train, &given.valid, &given.test].map(names),
            unread.collect(),
        )
    }

    fn with_files(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::TempDir::new().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_split_may_be_of_any_format() {
        let rows = "[{\"text\": \"a\"}]";
        let lines = "{\"text\": \"b\"}\n";
        let folder = with_files(&[
            ("train.csv", "text\na\n"),
            ("test.json", rows),
            ("valid.json.gz", lines),
            ("dataset_info.json", "{}"),
            ("extra.txt", "x"),
            (".DS_Store", ""),
        ]);
        let (splits, unread) = in_splits(&folder, &[]);
        assert_eq!(
            splits,
            [
                names(&["train.csv"]),
                names(&["valid.json.gz"]),
                names(&["test.json"])
            ]
        );
        assert_eq!(
            unread,
            [
                "1 file beside the given splits left out: extra.txt",
                "left out 2 files: hidden 1, dataset_info.json 1"
            ]
        );
        let folder = with_files(&[("train.txt", "a\n"), ("valid.json", rows)]);
        let here = [folder.path().display().to_string()];
        let source = TextSource::in_splits(&here, &[], &[]).unwrap();
        let set = source.collect(&TextColumns::default()).unwrap();
        assert_eq!(set.given, [Split::Valid, Split::Train]);
        assert!(set.unread.is_empty(), "{:?}", set.unread);
    }

    #[test]
    fn a_set_without_splits_says_too_what_is_not_read() {
        let folder = with_files(&[("a.txt", "a\n"), ("b.md", "b")]);
        let here = folder.path().display().to_string();
        let set = texts(&[here], &TextColumns::default()).unwrap();
        assert_eq!(set.unread, ["left out 1 file: .md 1"]);
    }

    #[test]
    fn what_is_named_as_a_split_is_not_left_out() {
        let folder = with_files(&[
            ("a.txt", "a\n"),
            ("held/b.txt", "b\n"),
            ("held/c.md", "c\n"),
        ]);
        let held = folder.path().join("held").display().to_string();
        let (splits, unread) = in_splits(&folder, &[held]);
        assert_eq!(splits, [names(&["a.txt"]), names(&["b.txt"]), vec![]]);
        assert_eq!(unread, ["left out 1 file: .md 1"]);
    }
}
