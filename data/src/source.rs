//! What `--data` names: a bundled set, or paths.

use std::path::{Path, PathBuf};

use crate::image::{ImageOptions, ImageSets, read_image_folders};
use crate::text::{self, TextExample};
use crate::{DataError, ImageSet, TextColumns, TextSet, bundled, read_images, read_text};

const TEXTS: &[&str] = &["wordnet", "wordnet-nouns"];
const IMAGES: &[&str] = &["mnist"];

/// Texts of a bundled set (`wordnet`, `wordnet-nouns`; always labelled, whatever `columns` says),
/// or of paths as [`read_text`] takes them. A path of a bundled set's name is written `./wordnet`.
pub fn texts(data: &[String], columns: &TextColumns) -> Result<TextSet, DataError> {
    match alone(data, TEXTS)? {
        Some("wordnet") => Ok(bundled::wordnet()),
        Some(_) => Ok(bundled::wordnet_nouns()),
        None => {
            let paths: Vec<PathBuf> = data.iter().map(PathBuf::from).collect();
            read_text(&paths, columns)
        }
    }
}

/// Where texts come from, to be read more than once and never whole.
#[derive(Clone, Debug)]
pub enum TextSource {
    /// A bundled set, by its name.
    Bundled(&'static str),
    /// Files, folders and patterns already looked up.
    Files(Vec<PathBuf>),
    /// Texts in memory.
    Memory(TextSet),
}

/// Examples one at a time; it ends after an error.
pub type TextExamples<'a> = Box<dyn Iterator<Item = Result<TextExample, DataError>> + Send + 'a>;

impl TextSource {
    /// The bundled set, or the files, that `data` names, as [`texts`] takes it.
    ///
    /// # Errors
    /// Nothing is named, or a path that is missing.
    pub fn named(data: &[String]) -> Result<Self, DataError> {
        if let Some(name) = alone(data, TEXTS)? {
            let known = TEXTS.iter().find(|known| **known == name);
            return Ok(Self::Bundled(known.copied().unwrap_or(TEXTS[0])));
        }
        let mut files = Vec::new();
        for path in data {
            files.extend(text::text_files(Path::new(path))?);
        }
        Ok(Self::Files(files))
    }

    /// Its examples from the first.
    ///
    /// # Errors
    /// A file that cannot be opened; what is malformed is the stream's last item.
    pub fn stream(&self, columns: &TextColumns) -> Result<TextExamples<'_>, DataError> {
        Ok(match self {
            Self::Bundled("wordnet") => Box::new(bundled::wordnet_stream()),
            Self::Bundled(_) => Box::new(bundled::wordnet_nouns_stream()),
            Self::Files(files) => Box::new(text::stream(files, columns)?),
            Self::Memory(set) => Box::new(set.examples.iter().cloned().map(Ok)),
        })
    }

    /// The file, or the first of the files, for messages.
    pub fn origin(&self) -> String {
        match self {
            Self::Bundled(_) => "bundled:wordnet".into(),
            Self::Files(files) => text::origin(files),
            Self::Memory(set) => set.origin(),
        }
    }
}

/// Images of a bundled set (`mnist`), or of one path as [`read_images`] takes it.
///
/// - size: height and width to resize to
pub fn images(data: &[String], size: Option<(usize, usize)>) -> Result<ImageSet, DataError> {
    if alone(data, IMAGES)?.is_some() {
        return bundled::mnist().resized(size);
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
        return Ok(ImageSets::whole(bundled::mnist().resized(options.size)?));
    }
    let paths: Vec<PathBuf> = data.iter().map(PathBuf::from).collect();
    read_image_folders(&paths, options)
}

/// The bundled set that `data` names, if it names one.
fn alone<'a>(
    data: &'a [String],
    bundled: &'static [&'static str],
) -> Result<Option<&'a str>, DataError> {
    let named = data.iter().find(|name| bundled.contains(&name.as_str()));
    match (named, data.len()) {
        (_, 0) => Err(DataError::NoData { bundled }),
        (None, _) => Ok(None),
        (Some(name), 1) => Ok(Some(name)),
        (Some(name), _) => Err(DataError::BundledNotAlone { name: name.clone() }),
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
            "no data is named; give paths, or one of the bundled sets: wordnet, wordnet-nouns"
        );
        let error = texts(&["wordnet".into(), path], &columns).unwrap_err();
        assert!(matches!(error, DataError::BundledNotAlone { .. }));
        let error = images(&names(&["a", "b"]), None).unwrap_err();
        assert!(matches!(error, DataError::ManyImagePaths { count: 2 }));
    }
}
