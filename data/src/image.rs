//! Reads images. In: an IDX file or an image folder. Out: [`ImageSet`], 8 bit, channel-first.

use std::fmt::Display;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use burn_dataset::Dataset;
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageReader, Luma};

use crate::{DataError, file, idx};

const KNOWN: &str = ".png, .jpg, .jpeg";

/// The longest side an image may have, in pixels; what JPEG can hold.
const LONGEST_SIDE: usize = 65_535;

/// Pixels that an image may have before it is resized: RGB of so many is 512 MiB, which is all that the decoder gives
/// out. A file of some KiB can promise any number.
const MOST_PIXELS: u64 = (512 << 20) / 3;

/// One part in so many of the memory is for a set: its splits are a second copy, and a model has to train beside them.
const SHARE: u64 = 4;

/// Taken for the memory of a machine that does not say how much it has.
const USUAL_MEMORY: u64 = 16 << 30;

/// Grey or RGB images of one size, 8 bit, channel-first [n, channels, height, width].
#[derive(Clone, Debug)]
pub struct ImageSet {
    /// Where they come from, for messages.
    pub origin: String,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
    /// [n, channels, height, width].
    pub pixels: Vec<u8>,
    /// A class an image, if there are labels.
    pub labels: Option<Vec<u32>>,
    /// Class names by label; empty without labels.
    pub classes: Vec<String>,
}

/// One image of an [`ImageSet`].
#[derive(Clone, Debug, PartialEq)]
pub struct ImageExample {
    /// [channels, height, width].
    pub pixels: Vec<u8>,
    /// Its class.
    pub label: Option<u32>,
}

impl ImageSet {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.image_len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// The pixels of image `i`, [channels, height, width].
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn image(&self, i: usize) -> &[u8] {
        let len = self.image_len();
        &self.pixels[i * len..(i + 1) * len]
    }

    /// The images at `indices`, in that order, with all the classes.
    ///
    /// # Panics
    /// If an index is outside the set.
    pub fn select(&self, indices: &[usize]) -> ImageSet {
        let pixels = indices.iter().flat_map(|&i| self.image(i)).copied();
        let labels = self.labels.as_ref();
        ImageSet {
            origin: self.origin.clone(),
            pixels: pixels.collect(),
            labels: labels.map(|labels| indices.iter().map(|&i| labels[i]).collect()),
            classes: self.classes.clone(),
            ..*self
        }
    }

    /// Every image resized to (height, width), if one is given and it differs.
    pub(crate) fn resized(self, size: Option<(usize, usize)>) -> Result<ImageSet, DataError> {
        let from = (self.height, self.width);
        let (height, width) = size.unwrap_or(from);
        check_shape(self.channels, height, width)?;
        Ok(ImageSet {
            pixels: resize(self.pixels, from, (height, width)),
            height,
            width,
            ..self
        })
    }

    fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }
}

impl Dataset<ImageExample> for ImageSet {
    fn get(&self, index: usize) -> Option<ImageExample> {
        (index < ImageSet::len(self)).then(|| ImageExample {
            pixels: self.image(index).to_vec(),
            label: self.labels.as_ref().map(|labels| labels[index]),
        })
    }

    fn len(&self) -> usize {
        ImageSet::len(self)
    }
}

/// Reads one of
///
/// - an IDX image file, packed or not, with the label file beside it (`images` → `labels`,
///   `idx3` → `idx1`) if there is one; the classes are "0" to the largest label
/// - a folder with such a pair, of the names `train-images-idx3-ubyte` or `images-idx3-ubyte`
/// - a folder of PNG and JPEG images: a sub-folder a class, or no sub-folders and no labels;
///   RGB unless every image is grey
///
/// - size: (height, width) to resize to; without it all images must be of one size
///
/// # Errors
/// Anything that is missing or malformed, images of different sizes, a folder without an image, more pixels than fit.
pub fn read_images(path: &Path, size: Option<(usize, usize)>) -> Result<ImageSet, DataError> {
    let about = std::fs::metadata(path).map_err(|source| file::io_error(path, source))?;
    if !about.is_dir() {
        return idx::read(path, size);
    }
    match idx::find(path)? {
        Some(path) => idx::read(&path, size),
        None => read_folder(path, size),
    }
}

/// Decodes one file (PNG, JPEG) to the given shape (converted to grey or RGB; resized when the
/// size differs), channel-first. Transparency is dropped.
pub fn read_image(
    path: &Path,
    channels: usize,
    height: usize,
    width: usize,
) -> Result<Vec<u8>, DataError> {
    check_shape(channels, height, width)?;
    let bytes = file::read(path)?;
    header(path, &bytes)?;
    let image = reader(path, &bytes)?
        .decode()
        .map_err(|source| decode_error(path, source))?;
    let from = (image.height() as usize, image.width() as usize);
    Ok(resize(
        channel_first(image, channels),
        from,
        (height, width),
    ))
}

/// The files of an image folder, in the order in which [`read_images`] reads them; nothing where it
/// reads IDX.
///
/// # Errors
/// The folder can't be listed, or holds no image.
pub fn image_files(path: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    if !path.is_dir() || idx::find(path)?.is_some() {
        return Ok(None);
    }
    Ok(Some(find_images(path)?.files))
}

/// Whether a path is a file with the extension of an image.
pub fn is_image(path: &Path) -> bool {
    let name = file::name(path).to_lowercase();
    let known = [".png", ".jpg", ".jpeg"];
    path.is_file() && known.iter().any(|extension| name.ends_with(extension))
}

fn read_folder(path: &Path, size: Option<(usize, usize)>) -> Result<ImageSet, DataError> {
    let found = find_images(path)?;
    let (channels, first_height, first_width) = common_shape(&found.files, size.is_none())?;
    let (height, width) = size.unwrap_or((first_height, first_width));
    let mut pixels = room(path, found.files.len() as u64, [channels, height, width])?;
    // One at a time: before it is resized, each may be large.
    for file in &found.files {
        pixels.extend(read_image(file, channels, height, width)?);
    }
    Ok(ImageSet {
        origin: path.display().to_string(),
        channels,
        height,
        width,
        pixels,
        labels: found.labels,
        classes: found.classes,
    })
}

/// The files of an image folder, before any is opened.
struct Found {
    files: Vec<PathBuf>,
    labels: Option<Vec<u32>>,
    classes: Vec<String>,
}

fn find_images(folder: &Path) -> Result<Found, DataError> {
    let entries = file::list(folder)?;
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.is_dir());
    let files: Vec<PathBuf> = files.into_iter().filter(|path| is_image(path)).collect();
    match (folders.as_slice(), files.first()) {
        ([], None) => Err(no_image(folder)),
        ([], Some(_)) => Ok(Found {
            files,
            labels: None,
            classes: vec![],
        }),
        (_, Some(file)) => Err(DataError::ImageBesideClasses { path: file.clone() }),
        (folders, None) => find_classes(folders),
    }
}

fn find_classes(folders: &[PathBuf]) -> Result<Found, DataError> {
    let mut files = Vec::new();
    let mut labels = Vec::new();
    for (class, folder) in folders.iter().enumerate() {
        let before = files.len();
        files.extend(
            file::list(folder)?
                .into_iter()
                .filter(|path| is_image(path)),
        );
        if files.len() == before {
            return Err(no_image(folder));
        }
        labels.resize(files.len(), class as u32);
    }
    Ok(Found {
        files,
        labels: Some(labels),
        classes: folders.iter().map(|folder| file::name(folder)).collect(),
    })
}

/// (channels, height, width): grey if every image is grey, the first image's size. Reads headers
/// only.
///
/// - one_size: whether another size is an error
fn common_shape(files: &[PathBuf], one_size: bool) -> Result<(usize, usize, usize), DataError> {
    let mut channels = 1;
    let mut first: Option<(usize, usize)> = None;
    for path in files {
        let (is_grey, height, width) = header(path, &file::read(path)?)?;
        if !is_grey {
            channels = 3;
        }
        let (first_height, first_width) = *first.get_or_insert((height, width));
        if one_size && (height, width) != (first_height, first_width) {
            return Err(DataError::ImageSize {
                path: path.clone(),
                height,
                width,
                first: files[0].clone(),
                first_height,
                first_width,
            });
        }
    }
    let (height, width) = first.unwrap_or_default();
    Ok((channels, height, width))
}

/// Whether an image is grey, its height and its width, from the header; one with too many pixels is refused.
fn header(path: &Path, bytes: &[u8]) -> Result<(bool, usize, usize), DataError> {
    let decoder = reader(path, bytes)?
        .into_decoder()
        .map_err(|source| decode_error(path, source))?;
    let (width, height) = decoder.dimensions();
    check_pixels(path, height, width)?;
    let is_grey = !decoder.color_type().has_color();
    Ok((is_grey, height as usize, width as usize))
}

/// A reader that goes by the content: what is called .png may well be a JPEG.
fn reader<'a>(path: &Path, bytes: &'a [u8]) -> Result<ImageReader<Cursor<&'a [u8]>>, DataError> {
    ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|source| file::io_error(path, source))
}

fn channel_first(image: DynamicImage, channels: usize) -> Vec<u8> {
    if channels == 1 {
        return image.into_luma8().into_raw();
    }
    let rgb = image.into_rgb8().into_raw();
    let channel = |offset| rgb.iter().skip(offset).step_by(3).copied();
    channel(0).chain(channel(1)).chain(channel(2)).collect()
}

/// Pixels of one channel, borrowed.
type Plane<'a> = ImageBuffer<Luma<u8>, &'a [u8]>;

/// Resizes planes of one size (height, width) that lie one after the other.
pub(crate) fn resize(pixels: Vec<u8>, from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    if from == to {
        return pixels;
    }
    let planes = pixels.chunks_exact(from.0 * from.1);
    let resized = planes.flat_map(|plane| {
        let plane = Plane::from_raw(from.1 as u32, from.0 as u32, plane)
            .expect("a plane holds height x width pixels");
        // Triangle is bilinear, and averages over the pixels it leaves out when it shrinks.
        imageops::resize(&plane, to.1 as u32, to.0 as u32, FilterType::Triangle).into_raw()
    });
    resized.collect()
}

fn check_shape(channels: usize, height: usize, width: usize) -> Result<(), DataError> {
    let side = 1..=LONGEST_SIDE;
    match matches!(channels, 1 | 3) && side.contains(&height) && side.contains(&width) {
        true => Ok(()),
        false => Err(DataError::ImageShape {
            channels,
            height,
            width,
        }),
    }
}

/// Refuses an image that is too large to hold while it is resized.
pub(crate) fn check_pixels(path: &Path, height: u32, width: u32) -> Result<(), DataError> {
    let pixels = u64::from(height) * u64::from(width);
    match pixels <= MOST_PIXELS {
        true => Ok(()),
        false => Err(too_large(
            path,
            format!("{height}x{width} are {pixels} pixels; an image may have {MOST_PIXELS}"),
        )),
    }
}

/// An empty vector with room for so many images, if this machine can hold them.
///
/// - shape: channels, height, width
pub(crate) fn room(path: &Path, images: u64, shape: [usize; 3]) -> Result<Vec<u8>, DataError> {
    let [channels, height, width] = shape;
    check_shape(channels, height, width)?;
    let values = shape
        .iter()
        .fold(images, |values, &n| values.saturating_mul(n as u64));
    let colours = if channels == 1 { "grey" } else { "RGB" };
    let what = format!("{images} {colours} images of {height}x{width}");
    reserved(path, values, what)
}

/// An empty vector with room for so many bytes, if this machine can hold them.
///
/// - what: for the message, `70000 labels`
pub(crate) fn reserved(path: &Path, bytes: u64, what: impl Display) -> Result<Vec<u8>, DataError> {
    let memory = memory_bytes();
    // Room that is promised and never filled is never touched, so it costs nothing.
    let room = (bytes <= memory / SHARE).then(|| crate::room::of(bytes as usize));
    room.flatten().ok_or_else(|| {
        too_large(
            path,
            format!(
                "{what} take {bytes} bytes; data may take a quarter of the {memory} bytes of memory, where that is free"
            ),
        )
    })
}

/// Bytes of memory this machine has.
fn memory_bytes() -> u64 {
    // Only Linux has the file.
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total_memory(&told).unwrap_or(USUAL_MEMORY)
}

/// What `/proc/meminfo` says of the whole memory, in bytes.
fn total_memory(told: &str) -> Option<u64> {
    let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = total?.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The kind is what a failed allocation has.
fn too_large(path: &Path, reason: String) -> DataError {
    DataError::Io {
        path: path.into(),
        source: io::Error::new(io::ErrorKind::OutOfMemory, reason),
    }
}

fn no_image(folder: &Path) -> DataError {
    DataError::NoImage {
        path: folder.into(),
        known: KNOWN,
    }
}

fn decode_error(path: &Path, source: image::ImageError) -> DataError {
    DataError::Decode {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Crc;
    use image::Rgb;
    use std::error::Error;
    use tempfile::TempDir;

    fn grey(path: &Path, width: u32, height: u32, value: u8) {
        let image = ImageBuffer::from_pixel(width, height, Luma([value]));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image.save(path).unwrap();
    }

    fn rgb(path: &Path, width: u32, height: u32, value: [u8; 3]) {
        ImageBuffer::from_pixel(width, height, Rgb(value))
            .save(path)
            .unwrap();
    }

    /// The error's message with the temporary folder cut out.
    fn message(folder: &TempDir, size: Option<(usize, usize)>) -> String {
        let error = read_images(folder.path(), size).unwrap_err().to_string();
        let prefix = folder.path().display().to_string();
        error
            .replace(&format!("{prefix}/"), "")
            .replace(&prefix, "FOLDER")
    }

    #[test]
    fn sub_folders_are_classes_in_order() {
        let folder = TempDir::new().unwrap();
        grey(&folder.path().join("dog/2.png"), 3, 2, 20);
        grey(&folder.path().join("dog/1.PNG"), 3, 2, 10);
        grey(&folder.path().join("cat/1.png"), 3, 2, 30);
        grey(&folder.path().join(".hidden/1.png"), 9, 9, 0);
        std::fs::write(folder.path().join("dog/notes.md"), "x").unwrap();
        std::fs::write(folder.path().join("dog/.1.png"), "x").unwrap();
        let set = read_images(folder.path(), None).unwrap();
        assert_eq!(
            (set.len(), set.channels, set.height, set.width),
            (3, 1, 2, 3)
        );
        assert_eq!(set.classes, ["cat", "dog"]);
        assert_eq!(set.labels, Some(vec![0, 1, 1]));
        assert_eq!(
            [set.image(0)[0], set.image(1)[0], set.image(2)[0]],
            [30, 10, 20]
        );
        let example = Dataset::get(&set, 2).unwrap();
        assert_eq!(
            example,
            ImageExample {
                pixels: vec![20; 6],
                label: Some(1)
            }
        );
        assert_eq!(Dataset::get(&set, 3), None);
    }

    #[test]
    fn files_stand_in_the_order_of_their_images() {
        let folder = TempDir::new().unwrap();
        grey(&folder.path().join("dog/1.png"), 3, 2, 10);
        grey(&folder.path().join("cat/2.JPG"), 3, 2, 20);
        let files = image_files(folder.path()).unwrap().unwrap();
        let expected = ["cat/2.JPG", "dog/1.png"].map(|name| folder.path().join(name));
        assert_eq!(files, expected);
        std::fs::write(folder.path().join("images-idx3-ubyte"), "x").unwrap();
        assert_eq!(image_files(folder.path()).unwrap(), None);
        assert_eq!(image_files(&expected[0]).unwrap(), None);
    }

    #[test]
    fn one_coloured_image_makes_all_rgb_and_channel_first() {
        let folder = TempDir::new().unwrap();
        grey(&folder.path().join("a.png"), 2, 1, 7);
        rgb(&folder.path().join("b.png"), 2, 1, [1, 2, 3]);
        let set = read_images(folder.path(), None).unwrap();
        assert_eq!(
            (set.channels, set.labels.is_none(), set.classes.len()),
            (3, true, 0)
        );
        assert_eq!(set.image(0), [7; 6]);
        assert_eq!(set.image(1), [1, 1, 2, 2, 3, 3]);
        let chosen = set.select(&[1, 1, 0]);
        assert_eq!((chosen.len(), chosen.image(1)), (3, set.image(1)));
    }

    #[test]
    fn jpeg_decodes_by_content_whatever_its_name() {
        let folder = TempDir::new().unwrap();
        rgb(&folder.path().join("a.jpg"), 8, 8, [200, 200, 200]);
        std::fs::rename(folder.path().join("a.jpg"), folder.path().join("b.png")).unwrap();
        let pixels = read_image(&folder.path().join("b.png"), 1, 8, 8).unwrap();
        // JPEG is lossy; a flat block keeps its level to within rounding.
        assert!(
            pixels.iter().all(|&pixel| pixel.abs_diff(200) <= 2),
            "{pixels:?}"
        );
    }

    #[test]
    fn a_size_resizes_images_of_different_sizes() {
        let folder = TempDir::new().unwrap();
        grey(&folder.path().join("a.png"), 4, 4, 50);
        grey(&folder.path().join("b.png"), 6, 2, 90);
        let set = read_images(folder.path(), Some((2, 3))).unwrap();
        assert_eq!((set.height, set.width), (2, 3));
        assert_eq!(
            (set.image(0), set.image(1)),
            ([50; 6].as_slice(), [90; 6].as_slice())
        );
    }

    /// A PNG of one pixel whose header promises more.
    fn promising(path: &Path, width: u32, height: u32) {
        grey(path, 1, 1, 0);
        let mut bytes = std::fs::read(path).unwrap();
        // The signature, the length of the first chunk, its name, width, height, five bytes more, its sum.
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let mut sum = Crc::new();
        sum.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.sum().to_be_bytes());
        std::fs::write(path, bytes).unwrap();
    }

    /// Why a file cannot be read.
    fn reason<T>(read: Result<T, DataError>) -> String {
        let error = read.err().unwrap();
        error.source().unwrap().to_string()
    }

    #[test]
    fn an_image_of_too_many_pixels_is_refused_by_its_header() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.png");
        promising(&path, 16_000, 12_000);
        let expected = "12000x16000 are 192000000 pixels; an image may have 178956970";
        assert_eq!(reason(read_images(folder.path(), None)), expected);
        assert_eq!(reason(read_images(folder.path(), Some((8, 8)))), expected);
        assert_eq!(reason(read_image(&path, 1, 8, 8)), expected);
        assert_eq!(message(&folder, None), "a.png: cannot be read");
        // 178,956,970 pixels are within it.
        assert!(check_pixels(&path, 2, 89_478_485).is_ok());
        assert!(check_pixels(&path, 2, 89_478_486).is_err());
    }

    #[test]
    fn a_set_has_to_fit_into_a_quarter_of_the_memory() {
        let path = Path::new("x");
        let pixels = room(path, 3, [3, 2, 4]).unwrap();
        assert!(pixels.is_empty() && pixels.capacity() >= 72);
        // 2^48 bytes are more than any machine has.
        let message = reason(room(path, 1 << 20, [1, 1 << 14, 1 << 14]));
        let (start, rest) = message.split_once(" bytes; ").unwrap();
        assert_eq!(
            start,
            "1048576 grey images of 16384x16384 take 281474976710656"
        );
        assert!(rest.contains("a quarter of the"), "{message}");
        let message = reason(room(path, u64::MAX, [3, 2, 2]));
        assert!(
            message.contains("RGB images of 2x2 take 18446744073709551615 bytes"),
            "{message}"
        );
        assert!(matches!(
            room(path, 1, [1, 0, 2]),
            Err(DataError::ImageShape { .. })
        ));
    }

    #[test]
    fn the_system_says_how_much_memory_there_is() {
        let told = "MemTotal:        2048 kB\nMemFree:         1024 kB\n";
        assert_eq!(total_memory(told), Some(2 << 20));
        assert_eq!(total_memory("MemFree: 1024 kB\n"), None);
        assert_eq!(total_memory(""), None);
    }

    #[test]
    fn resizing_keeps_the_planes_apart() {
        // Two planes of 2x2, each of one value, to 1x4.
        let pixels = resize(vec![9, 9, 9, 9, 5, 5, 5, 5], (2, 2), (1, 4));
        assert_eq!(pixels, [9, 9, 9, 9, 5, 5, 5, 5]);
        assert_eq!(resize(vec![0, 100], (1, 2), (1, 1)), [50]);
    }

    #[test]
    fn images_of_different_sizes_are_an_error_without_a_size() {
        let folder = TempDir::new().unwrap();
        grey(&folder.path().join("a/1.png"), 28, 28, 0);
        grey(&folder.path().join("b/1.png"), 30, 32, 0);
        let prefix = folder.path().display().to_string();
        assert_eq!(
            message(&folder, None).replace(&prefix, ""),
            "b/1.png: is 32x30, the first image (a/1.png) is 28x28"
        );
    }

    #[test]
    fn folders_that_hold_no_usable_images() {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("a.gif"), "x").unwrap();
        let none = "holds no image; known extensions are .png, .jpg, .jpeg";
        assert_eq!(message(&folder, None), format!("FOLDER: {none}"));
        grey(&folder.path().join("cat/1.png"), 2, 2, 0);
        std::fs::create_dir(folder.path().join("dog")).unwrap();
        assert_eq!(message(&folder, None), format!("dog: {none}"));
        grey(&folder.path().join("b.png"), 2, 2, 0);
        assert!(message(&folder, None).starts_with("b.png: an image beside class folders"));
    }

    #[test]
    fn files_that_are_no_images() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, "not an image").unwrap();
        let error = read_images(folder.path(), None).unwrap_err();
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(message(&folder, None), "a.png: cannot decode the image");
        std::fs::write(&path, "").unwrap();
        assert_eq!(message(&folder, None), "a.png: is empty");
        grey(&path, 16, 16, 0);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        assert_eq!(message(&folder, None), "a.png: cannot decode the image");
        let error = read_images(Path::new("no/such"), None).unwrap_err();
        assert_eq!(error.to_string(), "no/such: no such file");
    }

    #[test]
    fn shapes_that_make_no_sense_are_refused() {
        let folder = TempDir::new().unwrap();
        grey(&folder.path().join("a.png"), 2, 2, 0);
        for (channels, height, width) in [(2, 2, 2), (1, 0, 2), (3, 2, 100_000)] {
            let error = read_image(&folder.path().join("a.png"), channels, height, width);
            assert!(matches!(error, Err(DataError::ImageShape { .. })));
        }
    }
}
