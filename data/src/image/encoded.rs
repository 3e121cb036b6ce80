//! Images that stay encoded until they are asked for. In: where their bytes are. Out: one [`Picture`] at a time, of any
//! size.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::decode::{self, Header};
use super::statistics::Sums;
use super::{Ground, Picture, Statistics};
use crate::split::{ContentHash, image_hash};
use crate::{DataError, digest, file};

/// Bytes that hold the header of nearly every image; of others the whole file is read.
const HEADER_BYTES: u64 = 1 << 18;

/// Images whose bytes a digest looks at.
const DIGEST_IMAGES: usize = 1 << 10;

/// Encoded images with what is known of each. Clones and selections share them.
#[derive(Clone, Debug)]
pub struct ImageFiles {
    /// Where they come from, for messages.
    pub origin: String,
    /// Of decoded pictures: 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// What is seen through transparent pixels.
    pub ground: Ground,
    /// One an image.
    pub targets: ImageTargets,
    /// Names of the classes that targets number; empty without classes.
    pub classes: Vec<String>,
    all: Arc<Encoded>,
    /// Indices into `all`.
    rows: Vec<u32>,
}

/// What is to be learned of each image.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ImageTargets {
    /// Nothing is known.
    #[default]
    None,
    /// A class each.
    Classes(Vec<u32>),
    /// Several classes each, or none of them.
    Several(Vec<Vec<u32>>),
    /// A number each.
    Values(Vec<f32>),
    /// The file of a mask each, which [`read_mask`](super::read_mask) reads.
    Masks(Vec<PathBuf>),
    /// Boxes around things, any number of them each.
    Boxes(Vec<Vec<BoxLabel>>),
}

/// A box around something, in pixels of the upright image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxLabel {
    /// What it is.
    pub class: u32,
    /// Of the left edge.
    pub x: f32,
    /// Of the upper edge.
    pub y: f32,
    /// To the right.
    pub width: f32,
    /// Downwards.
    pub height: f32,
}

impl ImageTargets {
    /// Those at `indices`, in that order.
    ///
    /// # Panics
    /// If there is no such target.
    pub fn select(&self, indices: &[usize]) -> Self {
        fn of<T: Clone>(all: &[T], indices: &[usize]) -> Vec<T> {
            indices.iter().map(|&i| all[i].clone()).collect()
        }
        match self {
            Self::None => Self::None,
            Self::Classes(all) => Self::Classes(of(all, indices)),
            Self::Several(all) => Self::Several(of(all, indices)),
            Self::Values(all) => Self::Values(of(all, indices)),
            Self::Masks(all) => Self::Masks(of(all, indices)),
            Self::Boxes(all) => Self::Boxes(of(all, indices)),
        }
    }

    /// What distinguishes the target of image `i` from that of another.
    ///
    /// # Panics
    /// If there is no such target.
    pub fn bytes(&self, i: usize) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Classes(all) => all[i].to_le_bytes().into(),
            Self::Several(all) => all[i].iter().flat_map(|id| id.to_le_bytes()).collect(),
            Self::Values(all) => all[i].to_le_bytes().into(),
            Self::Masks(all) => file::name(&all[i]).into_bytes(),
            Self::Boxes(all) => format!("{:?}", all[i]).into_bytes(),
        }
    }
}

/// Where images are.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) images: Vec<EncodedImage>,
    /// Of each image, where all were decoded as they were opened; else empty.
    pub(super) measures: Vec<Measure>,
    pub(super) containers: Containers,
}

/// What is known of an image once it has been decoded.
#[derive(Debug)]
pub(super) struct Measure {
    /// Of its pixels.
    hash: ContentHash,
    /// Of its channels.
    sums: Vec<Sums>,
    /// Where there is room for all of them.
    picture: Option<Picture>,
}

impl Measure {
    /// - hash: of the image's content, see [`hash_of`]
    pub(super) fn new(picture: Picture, hash: ContentHash, is_held: bool) -> Self {
        Self {
            hash,
            sums: Sums::of_picture(&picture),
            picture: is_held.then_some(picture),
        }
    }
}

/// The hash of an image's content under this seed: the same in grey and in RGB where the image is grey.
pub(super) fn hash_of(picture: &Picture, seed: u64) -> ContentHash {
    image_hash(&picture.planes(), picture.channels, seed)
}

/// Files that hold many images.
#[derive(Debug, Default)]
pub(super) struct Containers {
    pub(super) shards: Vec<Mmap>,
    pub(super) unpacked: Option<Mmap>,
}

/// Where one image is.
#[derive(Clone, Debug)]
pub(super) struct EncodedImage {
    /// The file, or what messages call it.
    pub(super) path: PathBuf,
    /// The part of a file that holds many.
    pub(super) part: Option<Part>,
    /// Height and width, as its header says.
    pub(super) size: [u32; 2],
}

/// Bytes of a file that holds many images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Index into [`Containers::shards`]; `None` is the file of what was unpacked.
    pub(super) shard: Option<u32>,
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Containers {
    fn part(&self, part: Part) -> &[u8] {
        let (start, len) = (part.start as usize, part.len as usize);
        let container = match part.shard {
            Some(shard) => Some(&self.shards[shard as usize]),
            None => self.unpacked.as_ref(),
        };
        container.map_or(&[], |bytes| &bytes[start..start + len])
    }
}

impl EncodedImage {
    /// All bytes of the image as they are.
    fn bytes<'a>(&self, containers: &'a Containers) -> Result<Cow<'a, [u8]>, DataError> {
        match self.part {
            Some(Part { len: 0, .. }) => Err(DataError::Empty {
                path: self.path.clone(),
            }),
            Some(part) => Ok(containers.part(part).into()),
            None => decode::read(&self.path).map(Cow::from),
        }
    }

    /// The header, without a look at what follows it where that is not needed.
    pub(super) fn header(
        &self,
        containers: &Containers,
        ground: Ground,
    ) -> Result<Header, DataError> {
        if self.part.is_none() {
            let start = start(&self.path)?;
            if start.len() as u64 == HEADER_BYTES
                && let Ok(header) = decode::header(&self.path, &start, ground)
            {
                return Ok(header);
            }
        }
        decode::header(&self.path, &self.bytes(containers)?, ground)
    }

    pub(super) fn decode(
        &self,
        containers: &Containers,
        channels: usize,
        ground: Ground,
    ) -> Result<Picture, DataError> {
        let bytes = self.bytes(containers)?;
        decode::picture(&self.path, &bytes, channels, ground)
    }
}

/// The first bytes of a file.
fn start(path: &Path) -> Result<Vec<u8>, DataError> {
    let failed = |source| file::io_error(path, source);
    let mut start = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let read = file.take(HEADER_BYTES).read_to_end(&mut start);
    read.map_err(failed)?;
    Ok(start)
}

/// A file of many images, in the process's memory as far as it is read.
pub(super) fn mapped(path: &Path, file: &File) -> Result<Mmap, DataError> {
    // SAFETY: the file is only read. Whoever cuts it from outside while it is mapped ends this process with a signal.
    unsafe { Mmap::map(file) }.map_err(|source| file::io_error(path, source))
}

/// Images taken out of files that hold them packed, in a temporary file that ends with the process. It is in the folder
/// for such files of the system, which `TMPDIR` names.
#[derive(Default)]
pub(super) struct Unpacked {
    /// Made for the first image.
    file: Option<File>,
    written: u64,
}

impl Unpacked {
    /// Adds an image.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<Part, DataError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile().map_err(Self::failed)?,
        };
        self.file
            .insert(file)
            .write_all(bytes)
            .map_err(Self::failed)?;
        let start = self.written;
        self.written += bytes.len() as u64;
        Ok(Part {
            shard: None,
            start,
            len: bytes.len() as u64,
        })
    }

    /// All images that were added.
    pub(super) fn finish(self) -> Result<Option<Mmap>, DataError> {
        let file = self.file.filter(|_| self.written > 0);
        file.map(|file| mapped(&std::env::temp_dir(), &file))
            .transpose()
    }

    fn failed(source: std::io::Error) -> DataError {
        DataError::Io {
            path: std::env::temp_dir(),
            source,
        }
    }
}

impl ImageFiles {
    pub(super) fn new(
        origin: String,
        channels: usize,
        ground: Ground,
        all: Arc<Encoded>,
        rows: Vec<u32>,
    ) -> Self {
        Self {
            origin,
            channels,
            ground,
            targets: ImageTargets::None,
            classes: Vec::new(),
            all,
            rows,
        }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The file of image `i`, or its place in a file of many, for messages.
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn path(&self, i: usize) -> &Path {
        &self.image(i).path
    }

    /// Height and width of image `i` as its header says, in pixels.
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn size(&self, i: usize) -> [usize; 2] {
        self.image(i).size.map(|side| side as usize)
    }

    /// The bytes of image `i` as they are.
    ///
    /// # Errors
    /// Its file can't be read any more.
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn bytes(&self, i: usize) -> Result<Cow<'_, [u8]>, DataError> {
        self.image(i).bytes(&self.all.containers)
    }

    /// Image `i` in its own size, decoded unless it is held in memory.
    ///
    /// # Errors
    /// It is broken behind its header, where that is all that was read before; or its file can't be read any more.
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn decode(&self, i: usize) -> Result<Picture, DataError> {
        let measure = self.all.measures.get(self.rows[i] as usize);
        if let Some(picture) = measure.and_then(|measure| measure.picture.as_ref()) {
            return Ok(picture.clone());
        }
        let image = self.image(i);
        image.decode(&self.all.containers, self.channels, self.ground)
    }

    /// The hash of the pixels of image `i` under the seed that [`DecodeAll`](super::DecodeAll) had: equal images have equal
    /// ones, however they are encoded, and in grey as in RGB. `None` where they were not decoded as they were opened.
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn content(&self, i: usize) -> Option<&ContentHash> {
        let measure = self.all.measures.get(self.rows[i] as usize)?;
        Some(&measure.hash)
    }

    /// Mean and spread of all pixels in their own sizes; `None` where images were not decoded as they were opened, or there
    /// is none.
    pub fn statistics(&self) -> Option<Statistics> {
        if self.is_empty() || self.all.measures.is_empty() {
            return None;
        }
        let rows = self.rows.iter();
        let sums = rows.map(|&row| &self.all.measures[row as usize].sums);
        Some(Statistics::of_pictures(self.channels, sums))
    }

    /// Height and width of all images, where these are the same; else two images that differ.
    ///
    /// # Errors
    /// Numbers of the first image and of one of another size.
    ///
    /// # Panics
    /// If there is no image.
    pub fn one_size(&self) -> Result<[usize; 2], [usize; 2]> {
        let size = self.size(0);
        let other = (1..self.len()).find(|&i| self.size(i) != size);
        other.map_or(Ok(size), |other| Err([0, other]))
    }

    /// The images at `indices`, in that order, with all the classes.
    ///
    /// # Panics
    /// If an index is outside the set.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            origin: self.origin.clone(),
            classes: self.classes.clone(),
            targets: self.targets.select(indices),
            all: Arc::clone(&self.all),
            rows: indices.iter().map(|&i| self.rows[i]).collect(),
            ..*self
        }
    }

    /// The SHA-256 of the bytes of each image, read on all cores: equal images have equal ones, so that splits by
    /// content keep them together.
    ///
    /// # Errors
    /// A file can't be read any more.
    pub fn digests(&self) -> Result<Vec<[u8; 32]>, DataError> {
        let digest = |i| Ok(Sha256::digest(self.bytes(i)?).into());
        (0..self.len()).into_par_iter().map(digest).collect()
    }

    /// Whether a resumed run sees the same images: a SHA-256 of names and targets, and of the bytes of 1,024 images
    /// evenly spread over the set, as hexadecimal digits.
    ///
    /// # Errors
    /// A file can't be read any more.
    pub fn digest(&self) -> Result<String, DataError> {
        let seen = self.len().min(DIGEST_IMAGES);
        let spread: Vec<usize> = (0..seen).map(|at| at * self.len() / seen).collect();
        let bytes = self.select(&spread).digests()?;
        let bytes = digest::digest(seen, |at| bytes[at].into());
        let rows = digest::digest(self.len(), |i| {
            [file::name(self.path(i)).into_bytes(), self.targets.bytes(i)].concat()
        });
        Ok(digest::digest(2, |at| [&bytes, &rows][at].clone().into()))
    }

    fn image(&self, i: usize) -> &EncodedImage {
        &self.all.images[self.rows[i] as usize]
    }
}
