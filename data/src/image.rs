//! Reads images. In: an IDX file, or folders of images. Out: [`ImageSet`], 8 bit, channel-first, or [`ImageSets`] where
//! splits are given.
//!
//! Files are known by their content (`content`), decoded as people see them (`decode`), and looked for in class folders
//! and given splits (`folder`).
//!
//! Sets that are too large for that, or of images of any size, stay encoded: [`open_image_files`] finds them (`open`) in
//! folders, tables (`rows`), WebDataset shards (`shards`) and annotations (`annotations`, `mask`), and [`ImageFiles`]
//! decodes one at a time (`encoded`).

mod annotations;
mod content;
mod decode;
mod encoded;
mod folder;
mod mask;
mod memory;
mod open;
mod picture;
mod rows;
mod shards;
mod statistics;

use std::io;
use std::path::{Path, PathBuf};

use burn_dataset::Dataset;
use image::ImageFormat;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::augment::View;
use crate::bad_rows::{BadRows, LeftOut};
use crate::split::{ContentHash, Split, image_hash};
use crate::{DataError, idx};
use decode::Header;
use folder::{Entry, Found};

pub(crate) use decode::resize;
pub use encoded::{BoxLabel, ImageFiles, ImageTargets};
pub use mask::{IGNORED, Mask, largest_class, read_mask};
use memory::MOST_PIXELS;
pub(crate) use memory::{check_pixels, reserved, room};
pub(crate) use open::is_image_table;
pub use open::{DecodeAll, ImageFileOptions, ImageFileSets, open_image_files};
pub use picture::Picture;
pub use rows::{ImageColumns, TargetColumn, TargetKind};
pub use statistics::{Statistics, channel_statistics, file_statistics};

/// The longest side an image may have, in pixels; what JPEG can hold.
pub(crate) const LONGEST_SIDE: usize = 65_535;

/// Files that a note names before it counts the rest.
const NAMED: usize = 3;

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
    /// Hashes of images that were resized, as they were before: what splits follow from. Else empty.
    pub contents: Vec<ContentHash>,
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
            contents: match self.contents.as_slice() {
                [] => vec![],
                contents => indices.iter().map(|&i| contents[i]).collect(),
            },
            ..*self
        }
    }

    /// The hash of the content of image `i`, in its own size where it was resized.
    ///
    /// - seed: of the splits; where images were resized, the one that they were read with
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn content(&self, i: usize, seed: u64) -> ContentHash {
        let known = self.contents.get(i).copied();
        known.unwrap_or_else(|| image_hash(self.image(i), self.channels, seed))
    }

    /// Every image resized to (height, width), if one is given and it differs.
    ///
    /// - seed: of the splits that will be cut from the set
    pub(crate) fn resized(
        self,
        size: Option<(usize, usize)>,
        seed: u64,
    ) -> Result<ImageSet, DataError> {
        let from = (self.height, self.width);
        let (height, width) = size.unwrap_or(from);
        check_shape(self.channels, height, width)?;
        if (height, width) == from {
            return Ok(self);
        }
        Ok(ImageSet {
            contents: (0..self.len()).map(|i| self.content(i, seed)).collect(),
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

/// The colour behind transparent pixels: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground(pub [u8; 3]);

impl Ground {
    /// Paper.
    pub const WHITE: Self = Self([255; 3]);

    /// Whether a grey image stays grey over it.
    fn is_grey(self) -> bool {
        let [red, green, blue] = self.0;
        red == green && green == blue
    }
}

impl Default for Ground {
    fn default() -> Self {
        Self::WHITE
    }
}

/// How images are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Height and width to resize to; without it all images must be of one size.
    pub size: Option<(usize, usize)>,
    /// What happens to files that can't be read.
    pub bad_rows: BadRows,
    /// What is seen through transparent pixels.
    pub ground: Ground,
    /// Of the splits that are cut from a set: they are the same at every size.
    pub split_seed: u64,
}

/// The splits of a folder that has some, else one set to cut.
#[derive(Clone, Debug)]
pub struct ImageSets {
    /// To train on; all images where no splits are given.
    pub train: ImageSet,
    /// As given, with the classes of all splits.
    pub valid: Option<ImageSet>,
    /// As given, with the classes of all splits.
    pub test: Option<ImageSet>,
    /// Files that can't be read, by reason.
    pub left_out: LeftOut,
    /// Files that are no images, by extension.
    pub not_images: LeftOut,
    /// What else a user should know.
    pub notes: Vec<String>,
}

impl ImageSets {
    /// One set and nothing to say about it.
    pub fn whole(train: ImageSet) -> Self {
        Self {
            train,
            valid: None,
            test: None,
            left_out: LeftOut::default(),
            not_images: LeftOut::default(),
            notes: vec![],
        }
    }

    /// The number of images in all splits.
    pub fn len(&self) -> usize {
        let given = [&self.valid, &self.test].into_iter().flatten();
        self.train.len() + given.map(ImageSet::len).sum::<usize>()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was read and what was not, for the user:
    ///
    /// ```text
    /// images: 57 read, 3 left out (1 empty: bright/11.jpg; 2 truncated: bright/03.jpg, dark/05.jpg)
    /// left out 20 files that are no images: .txt 12, .md 8
    /// ```
    pub fn lines(&self) -> Vec<String> {
        lines(self.len(), &self.left_out, &self.not_images, &self.notes)
    }
}

/// What was read and what was not, as [`ImageSets::lines`] says it.
///
/// - read: the number of images
pub fn lines(
    read: usize,
    left_out: &LeftOut,
    not_images: &LeftOut,
    notes: &[String],
) -> Vec<String> {
    let mut read = format!("images: {read} read");
    if !left_out.is_empty() {
        let total = left_out.total();
        read += &format!(", {total} left out ({})", left_out.by_reason());
    }
    let mut lines = vec![read];
    let (one, many) = ("file that is no image", "files that are no images");
    lines.extend(not_images.files_line(one, many));
    lines.extend(notes.iter().cloned());
    lines
}

/// Reads one of
///
/// - an IDX image file, packed or not, with the label file beside it (`images` → `labels`,
///   `idx3` → `idx1`) if there is one; the classes are "0" to the largest label
/// - a folder with such a pair, of the names `train-images-idx3-ubyte` or `images-idx3-ubyte`
/// - a folder of images (PNG, JPEG, WebP, BMP, GIF, TIFF, known by their content): a sub-folder a class, or no
///   sub-folders and no labels; RGB unless every image is grey. Transparent pixels show white
///
/// - size: (height, width) to resize to; without it all images must be of one size
///
/// # Errors
/// Anything that is missing or malformed, images of different sizes, a folder without an image, more pixels than fit;
/// a folder of splits, which [`read_image_sets`] reads.
pub fn read_images(path: &Path, size: Option<(usize, usize)>) -> Result<ImageSet, DataError> {
    if let Some(path) = idx::named(path)? {
        return idx::read(&path, size, 0);
    }
    let options = ImageOptions {
        size,
        ..ImageOptions::default()
    };
    let sets = read_folders(&[path.into()], &options)?;
    if sets.valid.is_some() || sets.test.is_some() {
        return Err(DataError::GivenSplits { path: path.into() });
    }
    Ok(sets.train)
}

/// Reads the splits that a folder has, or the one set that [`read_images`] reads:
///
/// - a folder whose sub-folders are named `train` or `training`; `val`, `valid`, `validation` or `dev`; `test` or
///   `testing`, in any case. Each holds class folders, or images; a class has one number in all of them
/// - a folder with an IDX file to train on and one to test on: `train-images-idx3-ubyte` and `t10k-images-idx3-ubyte`
///
/// # Errors
/// As [`read_images`], and where it is unclear whether folders are splits or classes. Files that can't be read are an
/// error that counts them all, or are left out, as `options` say; a split without any other is an error in both cases.
pub fn read_image_sets(path: &Path, options: &ImageOptions) -> Result<ImageSets, DataError> {
    match idx::named(path)? {
        Some(file) => idx_sets(path, &file, options),
        None => read_folders(&[path.into()], options),
    }
}

/// Reads several folders as one: splits of one name are one split, classes of one name one class.
///
/// # Errors
/// As [`read_image_sets`]; an IDX file, which stands alone.
pub fn read_image_folders(
    paths: &[PathBuf],
    options: &ImageOptions,
) -> Result<ImageSets, DataError> {
    if let [path] = paths {
        return read_image_sets(path, options);
    }
    for path in paths {
        if idx::named(path)?.is_some() {
            let count = paths.len();
            return Err(DataError::ManyImagePaths { count });
        }
    }
    read_folders(paths, options)
}

/// An IDX file, with the one to test on beside it if `path` is their folder.
fn idx_sets(path: &Path, file: &Path, options: &ImageOptions) -> Result<ImageSets, DataError> {
    let mut sets = ImageSets::whole(idx::read(file, options.size, options.split_seed)?);
    let beside = idx::test_beside(file).filter(|_| path.is_dir());
    let Some(test_path) = beside else {
        return Ok(sets);
    };
    let mut test = idx::read(&test_path, options.size, options.split_seed)?;
    let train = &mut sets.train;
    if train.labels.is_some() != test.labels.is_some() {
        let (path, labelled) = if test.labels.is_some() {
            (file.into(), test_path)
        } else {
            (test_path, file.into())
        };
        return Err(DataError::MixedLabels { path, labelled });
    }
    if (train.height, train.width) != (test.height, test.width) {
        return Err(DataError::ImageSize {
            path: test_path,
            height: test.height,
            width: test.width,
            first: file.into(),
            first_height: train.height,
            first_width: train.width,
        });
    }
    // Classes are "0" to the largest, so the longer list begins with the shorter one.
    if train.classes.len() < test.classes.len() {
        train.classes = test.classes.clone();
    }
    test.classes = train.classes.clone();
    sets.test = Some(test);
    Ok(sets)
}

/// Decodes one file to the given shape (converted to grey or RGB; resized when the size differs), channel-first.
/// Transparent pixels show white.
///
/// # Errors
/// No image, one that can't be decoded, or a shape that makes no sense.
pub fn read_image(
    path: &Path,
    channels: usize,
    height: usize,
    width: usize,
) -> Result<Vec<u8>, DataError> {
    let bytes = decode::read(path)?;
    let shape = [channels, height, width];
    decode_image(path, &bytes, shape, Ground::WHITE)
}

/// Decodes one file in its own size, converted to grey or RGB.
///
/// - channels: 1 (grey) or 3 (RGB)
///
/// # Errors
/// No image, or one that can't be decoded.
pub fn read_picture(path: &Path, channels: usize, ground: Ground) -> Result<Picture, DataError> {
    let bytes = decode::read(path)?;
    decode::picture(path, &bytes, channels, ground)
}

/// Decodes the bytes of an image in its own size, converted to grey or RGB.
///
/// - name: for messages, and for the format where the bytes do not say it
/// - channels: 1 (grey) or 3 (RGB)
///
/// # Errors
/// No image, or one that can't be decoded.
pub fn decode_picture(
    name: &Path,
    bytes: &[u8],
    channels: usize,
    ground: Ground,
) -> Result<Picture, DataError> {
    decode::picture(name, bytes, channels, ground)
}

/// Decodes the bytes of a file, as [`read_image`] does.
///
/// - path: for messages, and for the format where the bytes do not say it
/// - shape: channels, height, width
pub fn decode_image(
    path: &Path,
    bytes: &[u8],
    shape: [usize; 3],
    ground: Ground,
) -> Result<Vec<u8>, DataError> {
    let [channels, height, width] = shape;
    check_shape(channels, height, width)?;
    decode::pixels(path, bytes, shape, ground)
}

/// Decodes many files on all cores, as a model sees them, channel-first; each keeps its place, whether it can be read or
/// not.
///
/// # Errors
/// A shape that makes no sense, or more pixels than fit into memory.
pub fn read_image_files(
    files: &[PathBuf],
    channels: usize,
    view: View,
    ground: Ground,
) -> Result<Vec<Result<Vec<u8>, DataError>>, DataError> {
    let shape = [channels, view.size[0], view.size[1]];
    let first = files.first().map(PathBuf::as_path);
    let mut pixels = room(first.unwrap_or(Path::new("")), files.len() as u64, shape)?;
    let len = shape.iter().product();
    pixels.resize(files.len() * len, 0);
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let headers = headers(&paths, ground);
    let errors = decode_files(&paths, headers, channels, view, ground, &mut pixels);
    let images = errors.into_iter().zip(pixels.chunks_exact(len));
    Ok(images
        .map(|(error, pixels)| error.map_or_else(|| Ok(pixels.to_vec()), Err))
        .collect())
}

/// The files of an image folder, those of splits one split after the other, in the order in which they are read;
/// nothing where IDX is read.
///
/// # Errors
/// The folder can't be listed, or holds no image.
pub fn image_files(path: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    if !path.is_dir() || idx::named(path)?.is_some() {
        return Ok(None);
    }
    let found = folder::find(&[path.into()])?;
    Ok(Some(
        found.entries.into_iter().map(|entry| entry.path).collect(),
    ))
}

/// Whether a path is a file that is an image by its content or its name.
pub fn is_image(path: &Path) -> bool {
    path.is_file() && content::may_be_image(path)
}

fn read_folders(roots: &[PathBuf], options: &ImageOptions) -> Result<ImageSets, DataError> {
    let found = folder::find(roots)?;
    let origin = origin(roots);
    let mut entries = found.entries.iter();
    if !entries.any(|entry| entry.split == Split::Train) {
        return Err(DataError::NoTrainSplit { origin });
    }
    let reading = Reading {
        origin,
        root: (roots.len() == 1).then(|| roots[0].as_path()),
        found: &found,
        options,
    };
    reading.sets()
}

/// The first of several paths and how many more there are, for messages.
fn origin(roots: &[PathBuf]) -> String {
    let first = roots.first().map(|path| path.display().to_string());
    let first = first.unwrap_or_default();
    match roots.len() {
        0 | 1 => first,
        n => format!("{first} and {} more", n - 1),
    }
}

/// Images of folders on their way from files to sets.
struct Reading<'a> {
    origin: String,
    /// The one folder that places are inside of.
    root: Option<&'a Path>,
    found: &'a Found,
    options: &'a ImageOptions,
}

/// A file that can't be read.
type Bad = (PathBuf, DataError);

impl Reading<'_> {
    /// Decodes all splits, then counts or refuses what could not be decoded.
    fn sets(&self) -> Result<ImageSets, DataError> {
        let entries = self.found.entries.as_slice();
        let headers = headers(&paths(entries), self.options.ground);
        let mut notes = self.found.notes.clone();
        notes.extend(self.misnamed(&headers));
        let shape = self.shape(&headers)?;
        // For all splits at once; each takes its share below.
        drop(room(Path::new(&self.origin), entries.len() as u64, shape)?);
        let (mut headers, mut bad) = (headers.into_iter(), Vec::new());
        let mut split = |split| {
            let entries = entries.iter().filter(|entry| entry.split == split);
            let entries: Vec<&Entry> = entries.collect();
            let headers = headers.by_ref().take(entries.len()).collect();
            self.set(&entries, headers, shape, &mut bad)
        };
        let train = split(Split::Train)?;
        let [valid, test] =
            [split(Split::Valid)?, split(Split::Test)?].map(|set| (!set.is_empty()).then_some(set));
        // What was given and can't be read at all is not the same as what was not given.
        let all_bad = |split, set: &Option<ImageSet>| {
            set.is_none() && entries.iter().any(|entry| entry.split == split)
        };
        let nothing_left =
            train.is_empty() || all_bad(Split::Valid, &valid) || all_bad(Split::Test, &test);
        Ok(ImageSets {
            train,
            valid,
            test,
            left_out: self.left_out(bad, nothing_left)?,
            not_images: self.found.not_images.clone(),
            notes,
        })
    }

    /// Channels, height and width of the set: grey if every image is grey, and the size asked for or the first image's.
    fn shape(&self, headers: &[Result<Header, DataError>]) -> Result<[usize; 3], DataError> {
        let entries = self.found.entries.iter();
        let mut good = entries.zip(headers).filter_map(|(entry, header)| {
            let header = header.as_ref().ok()?;
            Some((&entry.path, *header))
        });
        let channels = if good.clone().all(|(_, header)| header.is_grey) {
            1
        } else {
            3
        };
        if let Some((height, width)) = self.options.size {
            return Ok([channels, height, width]);
        }
        let Some((first, one)) = good.next() else {
            // No image can be read, and the error that counts them is yet to come.
            return Ok([1; 3]);
        };
        match good.find(|(_, other)| (other.height, other.width) != (one.height, one.width)) {
            None => Ok([channels, one.height, one.width]),
            Some((path, other)) => Err(DataError::ImageSize {
                path: path.clone(),
                height: other.height,
                width: other.width,
                first: first.clone(),
                first_height: one.height,
                first_width: one.width,
            }),
        }
    }

    /// The images of a split that can be read; those that can't go to `bad`.
    fn set(
        &self,
        entries: &[&Entry],
        headers: Vec<Result<Header, DataError>>,
        shape: [usize; 3],
        bad: &mut Vec<Bad>,
    ) -> Result<ImageSet, DataError> {
        let [channels, height, width] = shape;
        let len: usize = shape.iter().product();
        let mut pixels = room(Path::new(&self.origin), entries.len() as u64, shape)?;
        pixels.resize(entries.len() * len, 0);
        let paths: Vec<&Path> = entries.iter().map(|entry| entry.path.as_path()).collect();
        let (view, ground) = (View::stretched([height, width]), self.options.ground);
        let errors = decode_files(&paths, headers, channels, view, ground, &mut pixels);
        let mut labels = Vec::new();
        let mut good = 0;
        for (at, (entry, error)) in entries.iter().zip(errors).enumerate() {
            if let Some(error) = error {
                bad.push((entry.path.clone(), error));
                continue;
            }
            pixels.copy_within(at * len..(at + 1) * len, good * len);
            good += 1;
            labels.extend(self.label(entry));
        }
        pixels.truncate(good * len);
        Ok(ImageSet {
            origin: self.origin.clone(),
            channels,
            height,
            width,
            pixels,
            labels: (!self.found.classes.is_empty()).then_some(labels),
            classes: self.found.classes.clone(),
            contents: vec![],
        })
    }

    /// The number of an image's class.
    fn label(&self, entry: &Entry) -> Option<u32> {
        let class = entry.class.as_ref()?;
        self.found.ids.get(class).copied()
    }

    /// Counts what can't be read, or refuses it.
    fn left_out(&self, bad: Vec<Bad>, nothing_left: bool) -> Result<LeftOut, DataError> {
        let bad = bad
            .into_iter()
            .map(|(path, error)| (self.place(&path), reason(&error), error));
        let files = self.found.entries.len();
        let bad_rows = self.options.bad_rows;
        left_out(&self.origin, files, bad.collect(), nothing_left, bad_rows)
    }

    /// A note on files whose content is of another format than their name says.
    fn misnamed(&self, headers: &[Result<Header, DataError>]) -> Option<String> {
        let entries = self.found.entries.iter().zip(headers);
        let formats = entries.filter_map(|(entry, header)| {
            let header = header.as_ref().ok()?;
            Some((entry.path.as_path(), header.format))
        });
        misnamed(formats, |path| self.place(path))
    }

    /// A file as messages name it: inside the one folder that was given.
    fn place(&self, path: &Path) -> String {
        let inside = self.root.and_then(|root| path.strip_prefix(root).ok());
        inside.unwrap_or(path).display().to_string()
    }
}

/// A note on files whose content is of another format than their name says; nothing where there is none.
///
/// - formats: of each file
/// - place: what the note calls a file
fn misnamed<'a>(
    formats: impl Iterator<Item = (&'a Path, ImageFormat)>,
    place: impl Fn(&Path) -> String,
) -> Option<String> {
    let misnamed = formats.filter(|&(path, format)| content::is_misnamed(path, format));
    let misnamed: Vec<_> = misnamed
        .map(|(path, format)| format!("{} is {}", place(path), content::name(format)))
        .collect();
    let (count, named) = (misnamed.len(), &misnamed[..misnamed.len().min(NAMED)]);
    let more = match count - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let files = if count == 1 { "file is" } else { "files are" };
    let note = || {
        format!(
            "{count} {files} named for another format: {}{more}",
            named.join(", ")
        )
    };
    (count > 0).then(note)
}

/// Counts what can't be used, or refuses it.
///
/// - bad: the place of each, the reason that it shares with others, and the error
fn left_out(
    origin: &str,
    files: usize,
    bad: Vec<(String, String, DataError)>,
    nothing_left: bool,
    bad_rows: BadRows,
) -> Result<LeftOut, DataError> {
    let mut left_out = LeftOut::default();
    for (place, reason, _) in &bad {
        left_out.add(reason, || place.clone());
    }
    let refused = nothing_left || bad_rows == BadRows::Refuse;
    match bad.into_iter().next() {
        Some((_, _, first)) if refused => Err(DataError::BadImages {
            origin: origin.into(),
            files,
            left_out,
            nothing_left,
            first: Box::new(first),
        }),
        None if nothing_left => Err(DataError::NoExample {
            path: origin.into(),
        }),
        _ => Ok(left_out),
    }
}

/// Why a file can't be read, as a reason that it shares with others.
fn reason(error: &DataError) -> String {
    match error {
        DataError::Empty { .. } => "empty".into(),
        DataError::ImageTruncated { .. } => "truncated".into(),
        DataError::NotAnImage { .. } => "not an image".into(),
        DataError::ImageFormat { format, .. } => format!("{format}, which is not read"),
        DataError::ImageKind { format, .. } => format!("a kind of {format} that is not read"),
        DataError::ImageFileTooLarge { .. } => "a file too large for an image".into(),
        DataError::Decode { .. } => "broken".into(),
        DataError::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory => {
            "too many pixels".into()
        }
        _ => "cannot be opened".into(),
    }
}

fn paths(entries: &[Entry]) -> Vec<&Path> {
    entries.iter().map(|entry| entry.path.as_path()).collect()
}

/// The headers of files, read on all cores.
fn headers(paths: &[&Path], ground: Ground) -> Vec<Result<Header, DataError>> {
    let header = |path: &&Path| decode::header(path, &decode::read(path)?, ground);
    paths.par_iter().map(header).collect()
}

/// Decodes files into `pixels` on all cores; for each the reason why it can't be, if it can't.
///
/// - pixels: [n, channels, height, width]
fn decode_files(
    paths: &[&Path],
    headers: Vec<Result<Header, DataError>>,
    channels: usize,
    view: View,
    ground: Ground,
    pixels: &mut [u8],
) -> Vec<Option<DataError>> {
    let groups = groups(&headers);
    let [height, width] = view.size;
    let shape = [channels, height, width];
    let images = pixels.chunks_exact_mut(shape.iter().product());
    let mut files = paths.iter().zip(headers).zip(images);
    let mut errors = Vec::with_capacity(paths.len());
    for n in groups {
        let group: Vec<_> = files.by_ref().take(n).collect();
        errors.par_extend(group.into_par_iter().map(|((path, header), image)| {
            let read = || {
                let bytes = decode::read(path)?;
                if view.shorter.is_none() {
                    return decode::pixels(path, &bytes, shape, ground);
                }
                let picture = decode::picture(path, &bytes, channels, ground)?;
                Ok(view.apply(picture).planes())
            };
            let decoded = header.and_then(|_| read());
            decoded.map(|pixels| image.copy_from_slice(&pixels)).err()
        }));
    }
    errors
}

/// How many files are decoded at a time, one group after the other: before they are resized, each may be large.
fn groups(headers: &[Result<Header, DataError>]) -> Vec<usize> {
    let mut groups = Vec::new();
    let (mut files, mut pixels) = (0, 0);
    for header in headers {
        let size = header
            .as_ref()
            .map_or(0, |h| h.height as u64 * h.width as u64);
        if files > 0 && pixels + size > MOST_PIXELS {
            groups.push(files);
            (files, pixels) = (0, 0);
        }
        files += 1;
        pixels += size;
    }
    groups.push(files);
    groups
}

/// Refuses images that can't be.
///
/// # Errors
/// Neither 1 nor 3 channels, a side without a pixel or with more than JPEG can hold.
pub fn check_shape(channels: usize, height: usize, width: usize) -> Result<(), DataError> {
    let side = 1..=LONGEST_SIDE;
    if matches!(channels, 1 | 3) && side.contains(&height) && side.contains(&width) {
        return Ok(());
    }
    Err(DataError::ImageShape {
        channels,
        height,
        width,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Crc;
    use image::{ImageBuffer, Luma, Rgb};
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
            .replace(&format!("{prefix}: "), "FOLDER: ")
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
        assert_eq!(reason(read_image(&path, 1, 8, 8)), expected);
        for size in [None, Some((8, 8))] {
            assert_eq!(
                message(&folder, size),
                "FOLDER: 1 of 1 image files can't be read (1 too many pixels: a.png)"
            );
        }
    }

    #[test]
    fn images_of_different_sizes_are_an_error_without_a_size() {
        let folder = TempDir::new().unwrap();
        grey(&folder.path().join("a/1.png"), 28, 28, 0);
        grey(&folder.path().join("b/1.png"), 30, 32, 0);
        let prefix = folder.path().display().to_string();
        assert_eq!(
            message(&folder, None).replace(&prefix, ""),
            "b/1.png: is 32x30, the first image (a/1.png) is 28x28; data.size resizes all to one size"
        );
    }

    #[test]
    fn folders_that_hold_no_usable_images() {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("a.txt"), "x").unwrap();
        let none = "holds no image; known are PNG, JPEG, WebP, BMP, GIF and TIFF";
        assert_eq!(message(&folder, None), format!("FOLDER: {none}"));
        grey(&folder.path().join("cat/1.png"), 2, 2, 0);
        std::fs::create_dir(folder.path().join("dog")).unwrap();
        assert_eq!(message(&folder, None), format!("dog: {none}"));
        grey(&folder.path().join("dog/young/1.png"), 2, 2, 0);
        assert_eq!(
            message(&folder, None),
            "dog: holds folders and no image; images are looked for in one folder a class, \
             so name the folder that holds these"
        );
        grey(&folder.path().join("b.png"), 2, 2, 0);
        assert!(message(&folder, None).starts_with("b.png: an image beside class folders"));
        let one = folder.path().join("b.png");
        let error = read_images(&one, None).unwrap_err().to_string();
        assert!(
            error.ends_with("b.png: is a single image; name a folder of images, or an IDX file")
        );
        let error = read_images(Path::new("no/such"), None).unwrap_err();
        assert_eq!(error.to_string(), "no/such: no such file");
    }

    /// What reading a folder says, all its files being bad or good.
    fn sets(folder: &TempDir, options: &ImageOptions) -> ImageSets {
        read_image_sets(folder.path(), options).unwrap()
    }

    const SKIP: ImageOptions = ImageOptions {
        size: None,
        bad_rows: BadRows::Skip,
        ground: Ground::WHITE,
        split_seed: 0,
    };

    /// Two classes of three images and one broken file each: of four kinds in all.
    fn with_bad_files() -> TempDir {
        let folder = TempDir::new().unwrap();
        for (class, value) in [("bright", 200), ("dark", 10)] {
            for i in [1, 3, 5] {
                grey(
                    &folder.path().join(format!("{class}/{i}.png")),
                    4,
                    4,
                    value + i,
                );
            }
        }
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        let whole = std::fs::read(folder.path().join("dark/1.png")).unwrap();
        write("bright/2.png", b"");
        write("bright/4.jpg", b"<html>404</html>");
        write("dark/0.png", &whole[..whole.len() - 20]);
        write("dark/2.heic", b"\0\0\0\x18ftypheic\0\0\0\0");
        folder
    }

    const BAD: &str = "1 empty: bright/2.png; 1 not an image: bright/4.jpg; 1 truncated: dark/0.png; \
                       1 HEIC, which is not read: dark/2.heic";

    #[test]
    fn bad_files_are_all_counted_before_they_are_refused() {
        let folder = with_bad_files();
        assert_eq!(
            message(&folder, None),
            format!(
                "FOLDER: 4 of 10 image files can't be read ({BAD}); \
                 data.bad_rows = \"skip\" leaves them out"
            )
        );
        let error = read_images(folder.path(), None).unwrap_err();
        let first = error.source().unwrap().to_string();
        assert!(first.ends_with("bright/2.png: is empty"), "{first}");
    }

    #[test]
    fn bad_files_are_left_out_with_their_labels() {
        let sets = sets(&with_bad_files(), &SKIP);
        let values: Vec<u8> = (0..6).map(|i| sets.train.image(i)[0]).collect();
        assert_eq!((sets.len(), values), (6, vec![201, 203, 205, 11, 13, 15]));
        assert_eq!(sets.train.labels, Some(vec![0, 0, 0, 1, 1, 1]));
        assert_eq!(
            sets.lines(),
            [format!("images: 6 read, 4 left out ({BAD})")]
        );
    }

    #[test]
    fn a_set_of_bad_files_alone_is_refused_in_any_case() {
        let folder = TempDir::new().unwrap();
        for name in ["train/1.png", "test/1.png", "test/2.png"] {
            grey(&folder.path().join(name), 2, 2, 9);
        }
        for name in ["test/1.png", "test/2.png"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let error = read_image_sets(folder.path(), &SKIP)
            .unwrap_err()
            .to_string();
        let end = "2 of 3 image files can't be read (2 not an image: test/1.png, test/2.png)";
        assert!(error.ends_with(end), "{error}");
    }

    #[test]
    fn what_is_no_image_is_counted_and_a_wrong_name_is_said() {
        let folder = TempDir::new().unwrap();
        grey(&folder.path().join("cat/1.png"), 2, 2, 1);
        grey(&folder.path().join("dog/2.bmp"), 2, 2, 2);
        std::fs::rename(
            folder.path().join("dog/2.bmp"),
            folder.path().join("dog/2.png"),
        )
        .unwrap();
        grey(&folder.path().join("dog/old/3.png"), 2, 2, 3);
        grey(&folder.path().join("dog/4.tiff"), 2, 2, 4);
        std::fs::rename(
            folder.path().join("dog/4.tiff"),
            folder.path().join("dog/4"),
        )
        .unwrap();
        for name in [
            "a.TXT",
            "cat/b.txt",
            "cat/c.csv",
            "cat/.DS_Store",
            "cat/README",
        ] {
            std::fs::write(folder.path().join(name), "BM and other text").unwrap();
        }
        std::fs::create_dir(folder.path().join("__MACOSX")).unwrap();
        let sets = sets(&folder, &ImageOptions::default());
        assert_eq!(
            (sets.len(), &sets.train.classes[..]),
            (3, &["cat".into(), "dog".into()][..])
        );
        assert_eq!(
            sets.lines(),
            [
                "images: 3 read",
                "left out 7 files that are no images: hidden 2, .txt 2, no extension 1, .csv 1, \
                 folders inside a class folder 1",
                "1 file is named for another format: dog/2.png is BMP",
            ]
        );
    }

    #[test]
    fn given_splits_share_their_classes() {
        let folder = TempDir::new().unwrap();
        for (name, value) in [
            ("Train/b/1.png", 1),
            ("Train/c/2.png", 2),
            ("validation/a/3.png", 3),
            ("TEST/c/4.png", 4),
            ("TEST/b/5.png", 5),
        ] {
            grey(&folder.path().join(name), 2, 1, value);
        }
        // Too rare for the split.
        std::fs::create_dir(folder.path().join("validation/c")).unwrap();
        let ImageSets {
            train, valid, test, ..
        } = sets(&folder, &ImageOptions::default());
        let seen = |set: &ImageSet| {
            assert_eq!(set.classes, ["a", "b", "c"]);
            (set.pixels.clone(), set.labels.clone().unwrap())
        };
        assert_eq!(seen(&train), (vec![1, 1, 2, 2], vec![1, 2]));
        assert_eq!(seen(&valid.unwrap()), (vec![3, 3], vec![0]));
        assert_eq!(seen(&test.unwrap()), (vec![5, 5, 4, 4], vec![1, 2]));
        assert_eq!(
            message(&folder, None),
            "FOLDER: holds splits, where a single set is asked for; name the folder of one of them"
        );
        let files = image_files(folder.path()).unwrap().unwrap();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
        assert_eq!(names, ["1.png", "2.png", "3.png", "5.png", "4.png"]);
    }

    #[test]
    fn classes_are_values_as_labels_of_texts_are() {
        let folder = TempDir::new().unwrap();
        for (name, value) in [("10", 10), ("9", 9), ("2", 2)] {
            grey(&folder.path().join(name).join("1.png"), 1, 1, value);
        }
        let set = read_images(folder.path(), None).unwrap();
        assert_eq!(set.classes, ["2", "9", "10"]);
        assert_eq!(
            (set.pixels, set.labels),
            (vec![10, 2, 9], Some(vec![2, 0, 1]))
        );
        // One word in two spellings, and one that is perhaps the same.
        for (name, value) in [("caf\u{e9}", 1), ("cafe\u{301}", 2), ("Red", 3), ("red", 4)] {
            grey(&folder.path().join(name).join("1.png"), 1, 1, value);
        }
        let sets = sets(&folder, &ImageOptions::default());
        assert_eq!(
            sets.train.classes,
            ["10", "2", "9", "Red", "caf\u{e9}", "red"]
        );
        assert_eq!(
            sets.lines(),
            [
                "images: 7 read",
                "classes \"Red\" and \"red\" differ in capitals or spaces alone"
            ]
        );
    }

    #[test]
    fn images_beside_folders_of_splits_are_said_to_be_left_out() {
        let folder = TempDir::new().unwrap();
        for name in ["train/1.png", "val/2.png", "Test/3.png", "stray.png"] {
            grey(&folder.path().join(name), 1, 1, 1);
        }
        let lines = || sets(&folder, &ImageOptions::default()).lines();
        let one = "left out 1 image beside the folders of splits: stray.png";
        assert_eq!(lines(), ["images: 3 read", one]);
        grey(&folder.path().join("also.png"), 1, 1, 1);
        let two = "left out 2 images beside the folders of splits: also.png, stray.png";
        assert_eq!(lines(), ["images: 3 read", two]);
    }

    #[test]
    fn splits_may_have_no_classes_and_one_colour_makes_all_rgb() {
        let folder = TempDir::new().unwrap();
        grey(&folder.path().join("train/1.png"), 1, 1, 1);
        std::fs::create_dir(folder.path().join("dev")).unwrap();
        rgb(&folder.path().join("dev/2.png"), 1, 1, [7, 8, 9]);
        let ImageSets {
            train, valid, test, ..
        } = sets(&folder, &ImageOptions::default());
        let valid = valid.unwrap();
        assert!(test.is_none() && train.labels.is_none() && valid.labels.is_none());
        assert_eq!((train.pixels, valid.pixels), (vec![1; 3], vec![7, 8, 9]));
        grey(&folder.path().join("dev/3.png"), 2, 1, 1);
        let error = read_image_sets(folder.path(), &SKIP).unwrap_err();
        assert!(matches!(error, DataError::ImageSize { .. }));
    }

    #[test]
    fn folders_of_unclear_meaning_are_refused() {
        let refusal = |names: &[&str]| {
            let folder = TempDir::new().unwrap();
            for name in names {
                grey(&folder.path().join(name).join("1.png"), 1, 1, 1);
            }
            let error = read_image_sets(folder.path(), &SKIP)
                .unwrap_err()
                .to_string();
            error.replace(&folder.path().display().to_string(), "FOLDER")
        };
        let mixed = |splits: &str, others: &str| {
            format!(
                "FOLDER: folders named for splits ({splits}) beside others ({others}); put the classes \
                 into the splits, or rename a class that is named like one"
            )
        };
        assert_eq!(refusal(&["train", "cats"]), mixed("train", "cats"));
        assert_eq!(
            refusal(&["train/a", "bus", "car"]),
            mixed("train", "bus, car")
        );
        assert_eq!(
            refusal(&["train", "test", "a", "b"]),
            mixed("train, test", "a, b")
        );
        assert_eq!(
            refusal(&["train", "val", "Dev"]),
            "FOLDER: Dev and val are both named for the same split; join them or rename one"
        );
        assert_eq!(
            refusal(&["val", "test"]),
            "FOLDER: holds splits and none to train on; a folder \"train\" is missing"
        );
        assert_eq!(
            refusal(&["train/a", "test"]),
            "FOLDER/test/1.png: has no class, and FOLDER/train/a/1.png has one; all images need one \
             or none may have one"
        );
    }

    #[test]
    fn a_train_among_other_things_is_a_class() {
        let folder = TempDir::new().unwrap();
        for name in ["bus", "car", "train"] {
            grey(&folder.path().join(name).join("1.png"), 1, 1, 1);
        }
        let sets = sets(&folder, &ImageOptions::default());
        assert_eq!(sets.train.classes, ["bus", "car", "train"]);
        assert_eq!(
            sets.lines(),
            [
                "images: 3 read",
                "train/ is read as a class, as the folders beside it are"
            ]
        );
    }

    #[test]
    fn several_folders_are_one_set() {
        let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        for (folder, name, value) in [
            (&one, "b/1.png", 1),
            (&one, "a/2.png", 2),
            (&other, "c/3.png", 3),
            (&other, "b/4.png", 4),
        ] {
            grey(&folder.path().join(name), 1, 1, value);
        }
        std::fs::write(other.path().join("b/5.png"), "x").unwrap();
        let paths = [one.path().to_path_buf(), other.path().to_path_buf()];
        let sets = read_image_folders(&paths, &SKIP).unwrap();
        assert_eq!(sets.train.pixels, [2, 1, 4, 3]);
        assert_eq!(sets.train.labels, Some(vec![0, 1, 1, 2]));
        assert_eq!(
            sets.train.origin,
            format!("{} and 1 more", paths[0].display())
        );
        let place = &sets.left_out.reasons()[0].places[0];
        assert_eq!(place, &paths[1].join("b/5.png").display().to_string());
        let flat = TempDir::new().unwrap();
        grey(&flat.path().join("1.png"), 1, 1, 1);
        let mixed = [paths[0].clone(), flat.path().to_path_buf()];
        let error = read_image_folders(&mixed, &SKIP).unwrap_err();
        assert!(matches!(error, DataError::MixedLabels { .. }));
        std::fs::write(flat.path().join("images-idx3-ubyte"), "x").unwrap();
        let error = read_image_folders(&mixed, &SKIP).unwrap_err();
        assert!(matches!(error, DataError::ManyImagePaths { count: 2 }));
    }

    #[test]
    fn many_files_keep_their_places_whether_they_can_be_read_or_not() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        grey(&path("a.png"), 2, 2, 9);
        std::fs::write(path("b.png"), "x").unwrap();
        grey(&path("d.png"), 4, 4, 7);
        let files = ["a.png", "b.png", "c.png", "d.png"].map(path);
        let wide = View::stretched([1, 2]);
        let read = read_image_files(&files, 3, wide, Ground::WHITE).unwrap();
        assert_eq!(read[0].as_ref().unwrap(), &[9; 6]);
        assert!(matches!(read[1], Err(DataError::NotAnImage { .. })));
        assert!(matches!(read[2], Err(DataError::NotFound { .. })));
        assert_eq!(read[3].as_ref().unwrap(), &[7; 6]);
        assert!(
            read_image_files(&[], 3, wide, Ground::WHITE)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn large_images_are_decoded_few_at_a_time() {
        let header = |side: usize| {
            Ok(Header {
                format: image::ImageFormat::Png,
                is_grey: true,
                height: side,
                width: side,
            })
        };
        // 10,000 x 10,000 are 100 million pixels of 178 million.
        let sides = [100, 10_000, 100, 10_000, 10_000, 8_000];
        assert_eq!(groups(&sides.map(header)), [3, 1, 2]);
        assert_eq!(groups(&[]), [0]);
    }

    #[test]
    fn a_ground_is_written_as_three_numbers() {
        let ground: Ground = serde_json::from_str("[1, 2, 3]").unwrap();
        assert_eq!(ground, Ground([1, 2, 3]));
        assert!(serde_json::from_str::<Ground>("[1, 2]").is_err());
        assert!(serde_json::from_str::<Ground>("[1, 2, 256]").is_err());
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
