//! Reads IDX, MNIST's format: a big-endian header, then raw bytes. In: an image file, its label
//! file beside it. Out: [`ImageSet`].
//!
//! A header is never trusted: what it promises has to fit into memory, and is touched only by bytes that follow.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{DataError, ImageSet, file, image, split};

const IMAGES_MAGIC: u32 = 0x803;
const LABELS_MAGIC: u32 = 0x801;

/// The IDX file that a path names: itself, or the one to read in a folder; none where the folder holds none.
///
/// # Errors
/// No such path, a file of one image, or several IDX files of which none is the obvious one.
pub(crate) fn named(path: &Path) -> Result<Option<PathBuf>, DataError> {
    let about = std::fs::metadata(path).map_err(|source| file::io_error(path, source))?;
    if about.is_dir() {
        return find(path);
    }
    if image::is_image(path) {
        return Err(DataError::OneImage { path: path.into() });
    }
    Ok(Some(path.into()))
}

/// The IDX image file to read in a folder, if it holds any.
pub(crate) fn find(folder: &Path) -> Result<Option<PathBuf>, DataError> {
    let mut found = file::list(folder)?;
    found.retain(|path| {
        path.is_file() && file::name(path).contains("idx3") && !image::is_image(path)
    });
    let known = [
        "train-images-idx3-ubyte",
        "train-images-idx3-ubyte.gz",
        "images-idx3-ubyte",
        "images-idx3-ubyte.gz",
    ];
    let mut known = known.iter().map(|name| folder.join(name));
    if let Some(path) = known.find(|path| found.contains(path)) {
        return Ok(Some(path));
    }
    match found.as_slice() {
        [] => Ok(None),
        [path] => Ok(Some(path.clone())),
        [a, b] if test_beside(a).as_ref() == Some(b) => Ok(Some(a.clone())),
        [a, b] if test_beside(b).as_ref() == Some(a) => Ok(Some(b.clone())),
        _ => Err(DataError::ManyIdx {
            path: folder.into(),
            names: found.iter().map(|path| file::name(path)).collect(),
        }),
    }
}

/// The images to test on beside those to train on, packed or not: `t10k` or `test` where their name has `train`.
pub(crate) fn test_beside(path: &Path) -> Option<PathBuf> {
    let name = file::name(path);
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if !name.contains("train") {
        return None;
    }
    let names = ["t10k", "test"].map(|test| name.replacen("train", test, 1));
    let names = names
        .iter()
        .flat_map(|name| [name.clone(), format!("{name}.gz")]);
    let mut paths = names.map(|name| path.with_file_name(name));
    paths.find(|path| path.is_file())
}

/// Images of one file, with the labels of the file beside it where there is one.
///
/// - size: (height, width) to resize to
/// - seed: of the splits that will be cut from the set
pub(crate) fn read(
    path: &Path,
    size: Option<(usize, usize)>,
    seed: u64,
) -> Result<ImageSet, DataError> {
    let set = resized_images(path, file::open(path)?, size, seed)?;
    let Some(labels_path) = labels_beside(path) else {
        return Ok(set);
    };
    let labels = labels(&labels_path, file::open(&labels_path)?)?;
    if labels.len() != set.len() {
        return Err(DataError::LabelCount {
            path: labels_path,
            labels: labels.len(),
            images: set.len(),
            image_path: path.into(),
        });
    }
    Ok(labelled(set, labels))
}

/// Unlabelled images of an unpacked stream.
///
/// - path: for error messages
pub(crate) fn images(path: &Path, from: impl Read) -> Result<ImageSet, DataError> {
    resized_images(path, from, None, 0)
}

/// The same, each resized as soon as it is read: as they are, they may not fit into memory.
fn resized_images(
    path: &Path,
    mut from: impl Read,
    size: Option<(usize, usize)>,
    seed: u64,
) -> Result<ImageSet, DataError> {
    let not_images = |magic| DataError::NotIdxImages {
        path: path.into(),
        magic,
    };
    let [count, height, width] = header(path, &mut from, IMAGES_MAGIC, not_images)?;
    if count == 0 {
        return Err(DataError::NoExample { path: path.into() });
    }
    if height == 0 || width == 0 {
        return Err(DataError::IdxShape {
            path: path.into(),
            count,
            height,
            width,
        });
    }
    image::check_pixels(path, height, width)?;
    let whole = (height as usize, width as usize);
    let (height, width) = size.unwrap_or(whole);
    let mut pixels = image::room(path, count.into(), [1, height, width])?;
    let body = Body {
        path,
        what: "pixels",
        pieces: count.into(),
        size: whole.0 as u64 * whole.1 as u64,
    };
    let mut contents = Vec::new();
    body.read(from, |piece| {
        if whole != (height, width) {
            contents.push(split::image_hash(piece, 1, seed));
        }
        pixels.extend(image::resize(piece.to_vec(), whole, (height, width)));
    })?;
    Ok(ImageSet {
        origin: path.display().to_string(),
        channels: 1,
        height,
        width,
        pixels,
        labels: None,
        classes: vec![],
        contents,
    })
}

/// The labels of an unpacked stream.
pub(crate) fn labels(path: &Path, mut from: impl Read) -> Result<Vec<u8>, DataError> {
    let not_labels = |magic| DataError::NotIdxLabels {
        path: path.into(),
        magic,
    };
    let [count] = header(path, &mut from, LABELS_MAGIC, not_labels)?;
    let mut labels = image::reserved(path, count.into(), format!("{count} labels"))?;
    let body = Body {
        path,
        what: "labels",
        pieces: 1,
        size: count.into(),
    };
    body.read(from, |piece| labels.extend_from_slice(piece))?;
    Ok(labels)
}

/// `set` with one label an image; the classes are "0" to the largest.
pub(crate) fn labelled(set: ImageSet, labels: Vec<u8>) -> ImageSet {
    let largest = labels.iter().copied().max().unwrap_or(0);
    ImageSet {
        labels: Some(labels.into_iter().map(u32::from).collect()),
        classes: (0..=largest).map(|class| class.to_string()).collect(),
        ..set
    }
}

/// The label file's usual name, packed or not, where such a file exists.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = file::name(path);
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let packed = format!("{labels}.gz");
    let paths = [path.with_file_name(&labels), path.with_file_name(packed)];
    // A name without "images" or "idx3" would lead back to the images.
    let mut paths = paths.into_iter().filter(|_| labels != name);
    paths.find(|path| path.is_file())
}

/// Checks the magic number and reads the `N` sizes after it.
fn header<const N: usize>(
    path: &Path,
    from: &mut impl Read,
    magic: u32,
    wrong_magic: impl Fn(u32) -> DataError,
) -> Result<[u32; N], DataError> {
    let promised = 4 * (N + 1);
    let mut bytes = Vec::new();
    from.take(promised as u64)
        .read_to_end(&mut bytes)
        .map_err(|source| file::io_error(path, source))?;
    let words: Vec<u32> = bytes
        .chunks_exact(4)
        .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    match words.first() {
        None if bytes.is_empty() => return Err(DataError::Empty { path: path.into() }),
        Some(&found) if found != magic => return Err(wrong_magic(found)),
        _ => {}
    }
    let sizes = words.get(1..).and_then(|sizes| sizes.try_into().ok());
    sizes.ok_or_else(|| DataError::IdxHeader {
        path: path.into(),
        promised,
        found: bytes.len(),
    })
}

/// What a header promises to follow it.
struct Body<'a> {
    path: &'a Path,
    /// For messages.
    what: &'static str,
    pieces: u64,
    /// Bytes of a piece.
    size: u64,
}

impl Body<'_> {
    /// Hands on each piece once it is read; exactly so many bytes have to follow.
    fn read(&self, mut from: impl Read, mut take: impl FnMut(&[u8])) -> Result<(), DataError> {
        let mut piece = Vec::new();
        for number in 0..self.pieces {
            let found = self.fill(&mut from, self.size, &mut piece)?;
            if found < self.size {
                return Err(self.truncated(number * self.size + found));
            }
            take(&piece);
        }
        match self.fill(&mut from, 1, &mut piece)? {
            0 => Ok(()),
            _ => Err(DataError::IdxTrailing {
                path: self.path.into(),
                what: self.what,
                promised: self.pieces * self.size,
            }),
        }
    }

    /// Reads so many bytes, or those that are there; how many.
    fn fill(&self, from: &mut impl Read, size: u64, piece: &mut Vec<u8>) -> Result<u64, DataError> {
        piece.clear();
        let read = from.take(size).read_to_end(piece);
        let read = read.map_err(|source| file::io_error(self.path, source))?;
        Ok(read as u64)
    }

    fn truncated(&self, found: u64) -> DataError {
        DataError::IdxTruncated {
            path: self.path.into(),
            what: self.what,
            promised: self.pieces * self.size,
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;
    use tempfile::TempDir;

    fn idx(words: &[u32], body: &[u8]) -> Vec<u8> {
        let header = words.iter().flat_map(|word| word.to_be_bytes());
        header.chain(body.iter().copied()).collect()
    }

    fn two_images() -> Vec<u8> {
        idx(&[0x803, 2, 1, 3], &[1, 2, 3, 4, 5, 6])
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn message(bytes: &[u8]) -> String {
        images(Path::new("x"), bytes).unwrap_err().to_string()
    }

    #[test]
    fn images_find_their_labels_packed_or_not() {
        let labels = idx(&[0x801, 2], &[2, 0]);
        for (images_name, images, labels_name, labels) in [
            (
                "a-images-idx3-ubyte",
                two_images(),
                "a-labels-idx1-ubyte",
                labels.clone(),
            ),
            (
                "images-idx3-ubyte.gz",
                gz(&two_images()),
                "labels-idx1-ubyte.gz",
                gz(&labels),
            ),
            (
                "images.idx3-ubyte",
                two_images(),
                "labels.idx1-ubyte.gz",
                gz(&labels),
            ),
        ] {
            let folder = folder(&[(images_name, images), (labels_name, labels)]);
            let set = read(&folder.path().join(images_name), None, 0).unwrap();
            assert_eq!(
                (set.len(), set.channels, set.height, set.width),
                (2, 1, 1, 3)
            );
            assert_eq!(set.image(1), [4, 5, 6]);
            assert_eq!(set.labels, Some(vec![2, 0]));
            assert_eq!(set.classes, ["0", "1", "2"]);
        }
    }

    #[test]
    fn images_without_a_label_file_have_no_labels() {
        let folder = folder(&[("scans.bin", two_images())]);
        let set = read(&folder.path().join("scans.bin"), None, 0).unwrap();
        assert_eq!((set.labels, set.classes), (None, vec![]));
    }

    #[test]
    fn labels_must_count_as_many_as_images() {
        let labels = idx(&[0x801, 1], &[2]);
        let folder = folder(&[("images-idx3", two_images()), ("labels-idx1", labels)]);
        let message = read(&folder.path().join("images-idx3"), None, 0)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("labels-idx1: holds 1 labels for the 2 images of"),
            "{message}"
        );
    }

    #[test]
    fn broken_files_say_what_is_wrong() {
        assert_eq!(message(b""), "x: is empty");
        assert_eq!(
            message(b"\x89PNG\r\n\x1a\n"),
            "x: not an IDX image file (magic 0x89504e47, expected 0x00000803)"
        );
        assert_eq!(
            message(&idx(&[0x803, 2], &[])),
            "x: truncated IDX: 16 bytes of header are needed, 8 are there"
        );
        assert_eq!(
            message(&idx(&[0x803, 10_000, 28, 28], &[0; 1024])),
            "x: truncated IDX: the header promises 7840000 bytes of pixels, 1024 follow"
        );
        assert_eq!(
            message(&idx(&[0x803, 1, 1, 1], &[0; 2])),
            "x: more bytes follow than the 1 bytes of pixels the IDX header promises"
        );
        assert_eq!(
            message(&idx(&[0x803, 0, 28, 28], &[])),
            "x: holds no example"
        );
        let error = labels(Path::new("x"), two_images().as_slice()).unwrap_err();
        assert!(matches!(
            error,
            DataError::NotIdxLabels { magic: 0x803, .. }
        ));
    }

    #[test]
    fn an_absurd_header_is_refused_before_anything_is_read() {
        let most = u32::MAX;
        let refused = |bytes: &[u8], size| {
            let error = resized_images(Path::new("x"), bytes, size, 0).unwrap_err();
            assert_eq!(error.to_string(), "x: cannot be read");
            std::error::Error::source(&error).unwrap().to_string()
        };
        assert!(message(&idx(&[0x803, 1, 0, 28], &[])).contains("no size to work with"));
        let one = idx(&[0x803, 1, most, most], &[0]);
        assert_eq!(
            refused(&one, Some((8, 8))),
            "4294967295x4294967295 are 18446744065119617025 pixels; an image may have 178956970"
        );
        // So many images are too many at their size, and still once they are resized.
        let many = idx(&[0x803, most, 10_000, 10_000], &[0]);
        let reason = refused(&many, None);
        let start = "4294967295 grey images of 10000x10000 take 429496729500000000 bytes; ";
        assert!(reason.starts_with(start), "{reason}");
        let reason = refused(&many, Some((1000, 1000)));
        let start = "4294967295 grey images of 1000x1000 take 4294967295000000 bytes; ";
        assert!(reason.starts_with(start), "{reason}");
    }

    #[test]
    fn images_are_resized_as_they_are_read() {
        let pixels: Vec<u8> = (0..3).flat_map(|image| [image * 50; 16]).collect();
        let bytes = idx(&[0x803, 3, 4, 4], &pixels);
        let resized = |bytes: &[u8]| resized_images(Path::new("x"), bytes, Some((1, 2)), 7);
        let set = resized(&bytes).unwrap();
        assert_eq!((set.len(), set.height, set.width), (3, 1, 2));
        assert_eq!(set.pixels, [0, 0, 50, 50, 100, 100]);
        let whole = resized_images(Path::new("x"), bytes.as_slice(), None, 7).unwrap();
        let contents: Vec<_> = (0..3).map(|i| whole.content(i, 7)).collect();
        assert_eq!(set.contents, contents);
        assert!(contents[0] != contents[1] && whole.contents.is_empty());
        assert_eq!(
            whole.clone().resized(Some((1, 2)), 7).unwrap().pixels,
            set.pixels
        );
        assert_eq!(
            whole
                .resized(Some((1, 2)), 7)
                .unwrap()
                .select(&[2])
                .contents,
            [contents[2]]
        );
        assert_eq!(
            resized(&bytes[..16 + 40]).unwrap_err().to_string(),
            "x: truncated IDX: the header promises 48 bytes of pixels, 40 follow"
        );
        let more = [&bytes[..], &[0]].concat();
        assert_eq!(
            resized(&more).unwrap_err().to_string(),
            "x: more bytes follow than the 48 bytes of pixels the IDX header promises"
        );
    }

    #[test]
    fn a_folder_reads_its_training_images() {
        let of = |names: &[&str]| {
            let files: Vec<_> = names.iter().map(|&name| (name, two_images())).collect();
            let folder = folder(&files);
            find(folder.path()).map(|path| path.map(|path| file::name(&path)))
        };
        let train = ["t10k-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz"];
        assert_eq!(of(&train).unwrap().unwrap(), "train-images-idx3-ubyte.gz");
        assert_eq!(
            of(&["a-idx3", "images-idx3-ubyte"]).unwrap().unwrap(),
            "images-idx3-ubyte"
        );
        assert_eq!(of(&["only.idx3"]).unwrap().unwrap(), "only.idx3");
        assert_eq!(of(&["a.png"]).unwrap(), None);
        let message = of(&["b-idx3", "a-idx3"]).unwrap_err().to_string();
        assert!(
            message.ends_with("none is the obvious one: a-idx3, b-idx3"),
            "{message}"
        );
    }

    #[test]
    fn images_to_test_on_are_a_split_of_their_folder() {
        let options = image::ImageOptions::default();
        for [train, test] in [
            ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"],
            ["train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"],
            [
                "letters-train-images-idx3-ubyte",
                "letters-test-images-idx3-ubyte.gz",
            ],
        ] {
            let pack = |name: &str, bytes| {
                if name.ends_with(".gz") {
                    gz(bytes)
                } else {
                    bytes.to_vec()
                }
            };
            let one = idx(&[0x803, 1, 1, 3], &[7, 8, 9]);
            let labels = |name: &str| name.replace("images", "labels").replace("idx3", "idx1");
            let folder = folder(&[
                (train, pack(train, &two_images())),
                (&labels(train), pack(train, &idx(&[0x801, 2], &[1, 0]))),
                (test, pack(test, &one)),
                (&labels(test), pack(test, &idx(&[0x801, 1], &[2]))),
            ]);
            let sets = image::read_image_sets(folder.path(), &options).unwrap();
            let test_set = sets.test.unwrap();
            assert_eq!((sets.train.len(), test_set.pixels), (2, vec![7, 8, 9]));
            assert_eq!(test_set.labels, Some(vec![2]));
            assert_eq!([sets.train.classes, test_set.classes], [["0", "1", "2"]; 2]);
            // A file that is named is read alone.
            let alone = image::read_image_sets(&folder.path().join(train), &options).unwrap();
            assert!(alone.test.is_none());
            assert_eq!(alone.train.classes, ["0", "1"]);
        }
    }

    #[test]
    fn images_to_test_on_have_to_suit_those_to_train_on() {
        let names = ["train-images-idx3", "t10k-images-idx3", "train-labels-idx1"];
        let wide = idx(&[0x803, 1, 1, 4], &[0; 4]);
        let options = image::ImageOptions::default();
        let of = |files: &[(&str, Vec<u8>)]| {
            let folder = folder(files);
            image::read_image_sets(folder.path(), &options).unwrap_err()
        };
        let error = of(&[(names[0], two_images()), (names[1], wide)]);
        assert!(matches!(
            error,
            DataError::ImageSize {
                width: 4,
                first_width: 3,
                ..
            }
        ));
        let labels = idx(&[0x801, 2], &[1, 0]);
        let error = of(&[
            (names[0], two_images()),
            (names[1], two_images()),
            (names[2], labels),
        ]);
        let DataError::MixedLabels { path, labelled } = error else {
            panic!("{error}");
        };
        assert_eq!(
            [file::name(&path), file::name(&labelled)],
            [names[1], names[0]]
        );
    }
}
