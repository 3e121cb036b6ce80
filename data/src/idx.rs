//! Reads IDX, MNIST's format: a big-endian header, then raw bytes. In: an image file, its label
//! file beside it. Out: [`ImageSet`].
//!
//! A header is never trusted: memory grows with the bytes that really follow.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{DataError, ImageSet, file};

const IMAGES_MAGIC: u32 = 0x803;
const LABELS_MAGIC: u32 = 0x801;

/// The IDX image file to read in a folder, if it holds any.
pub(crate) fn find(folder: &Path) -> Result<Option<PathBuf>, DataError> {
    let mut found = file::list(folder)?;
    found.retain(|path| path.is_file() && file::name(path).contains("idx3"));
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
        _ => Err(DataError::ManyIdx {
            path: folder.into(),
            names: found.iter().map(|path| file::name(path)).collect(),
        }),
    }
}

/// Images of one file, with the labels of the file beside it where there is one.
pub(crate) fn read(path: &Path) -> Result<ImageSet, DataError> {
    let set = images(path, file::open(path)?)?;
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
pub(crate) fn images(path: &Path, mut from: impl Read) -> Result<ImageSet, DataError> {
    let not_images = |magic| DataError::NotIdxImages {
        path: path.into(),
        magic,
    };
    let [count, height, width] = header(path, &mut from, IMAGES_MAGIC, not_images)?;
    if count == 0 {
        return Err(DataError::NoExample { path: path.into() });
    }
    let area = u64::from(height) * u64::from(width);
    let promised = area.checked_mul(count.into()).filter(|&bytes| bytes > 0);
    let promised = promised.ok_or_else(|| DataError::IdxShape {
        path: path.into(),
        count,
        height,
        width,
    })?;
    Ok(ImageSet {
        origin: path.display().to_string(),
        channels: 1,
        height: height as usize,
        width: width as usize,
        pixels: body(path, from, "pixels", promised)?,
        labels: None,
        classes: vec![],
    })
}

/// The labels of an unpacked stream.
pub(crate) fn labels(path: &Path, mut from: impl Read) -> Result<Vec<u8>, DataError> {
    let not_labels = |magic| DataError::NotIdxLabels {
        path: path.into(),
        magic,
    };
    let [count] = header(path, &mut from, LABELS_MAGIC, not_labels)?;
    body(path, from, "labels", count.into())
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

/// Exactly the promised bytes.
fn body(
    path: &Path,
    from: impl Read,
    what: &'static str,
    promised: u64,
) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    // One more than promised, to see whether the file goes on.
    from.take(promised.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| file::io_error(path, source))?;
    let found = bytes.len() as u64;
    let path = path.into();
    match found.cmp(&promised) {
        std::cmp::Ordering::Equal => Ok(bytes),
        std::cmp::Ordering::Less => Err(DataError::IdxTruncated {
            path,
            what,
            promised,
            found,
        }),
        std::cmp::Ordering::Greater => Err(DataError::IdxTrailing {
            path,
            what,
            promised,
        }),
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
            let set = read(&folder.path().join(images_name)).unwrap();
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
        let set = read(&folder.path().join("scans.bin")).unwrap();
        assert_eq!((set.labels, set.classes), (None, vec![]));
    }

    #[test]
    fn labels_must_count_as_many_as_images() {
        let labels = idx(&[0x801, 1], &[2]);
        let folder = folder(&[("images-idx3", two_images()), ("labels-idx1", labels)]);
        let message = read(&folder.path().join("images-idx3"))
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
    fn an_absurd_header_allocates_nothing() {
        let most = u32::MAX;
        assert!(message(&idx(&[0x803, most, most, most], &[0])).contains("no size to work with"));
        assert!(message(&idx(&[0x803, 1, 0, 28], &[])).contains("no size to work with"));
        // 2^64 - 2^33 + 1 bytes fit the arithmetic, and then only one follows.
        assert!(message(&idx(&[0x803, 1, most, most], &[0])).contains("1 follow"));
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
}
