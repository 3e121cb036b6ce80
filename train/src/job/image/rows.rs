//! Images in memory or in files, as rows of one kind. In: sets of `data`. Out: [`ImageRows`], of which each image becomes one
//! of the size that the model takes.

use std::borrow::Cow;
use std::panic::resume_unwind;

use data::augment::View;
use data::image::ImageTargets;
use data::split::{self, ContentHash};
use data::{
    DataError, ImageFileSets, ImageFiles, ImageSet, ImageSets, LeftOut, Picture, Statistics,
    channel_statistics,
};

use crate::failure::Unreadable;

/// Images with what is known of each, wherever their pixels are. Clones and selections of files share them.
#[derive(Clone, Debug)]
pub struct ImageRows {
    /// Where they come from, for messages.
    pub origin: String,
    /// What is to be learned of each image: classes, several of them, a value, a mask or boxes.
    pub targets: ImageTargets,
    /// Names of the classes that targets number; empty without classes.
    pub classes: Vec<String>,
    pixels: Pixels,
    view: View,
}

/// Where pixels are.
#[derive(Clone, Debug)]
enum Pixels {
    /// Decoded, all of one size.
    Memory(ImageSet),
    /// Decoded when they are asked for, unless there is room to hold all of them; opened with
    /// [`DecodeAll`](data::DecodeAll).
    Files(ImageFiles),
}

impl From<ImageSet> for ImageRows {
    fn from(mut set: ImageSet) -> Self {
        let labels = set.labels.take();
        Self {
            origin: set.origin.clone(),
            targets: labels.map_or(ImageTargets::None, ImageTargets::Classes),
            classes: set.classes.clone(),
            view: View::stretched([set.height, set.width]),
            pixels: Pixels::Memory(set),
        }
    }
}

impl ImageRows {
    /// Images of files, opened with [`DecodeAll`](data::DecodeAll).
    ///
    /// - view: how each becomes one of the size that the model takes
    pub fn of_files(mut files: ImageFiles, view: View) -> Self {
        Self {
            origin: files.origin.clone(),
            targets: std::mem::take(&mut files.targets),
            classes: std::mem::take(&mut files.classes),
            pixels: Pixels::Files(files),
            view,
        }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        match &self.pixels {
            Pixels::Memory(set) => set.len(),
            Pixels::Files(files) => files.len(),
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels, height and width of an image as the model sees it.
    pub fn shape(&self) -> [usize; 3] {
        let channels = match &self.pixels {
            Pixels::Memory(set) => set.channels,
            Pixels::Files(files) => files.channels,
        };
        let [height, width] = self.view.size;
        [channels, height, width]
    }

    /// How each image becomes one of the size that the model takes.
    pub fn view(&self) -> View {
        self.view
    }

    /// Whether all images have the size that the model takes, so that they are seen as they are.
    pub fn is_seen_whole(&self) -> bool {
        match &self.pixels {
            Pixels::Memory(_) => true,
            Pixels::Files(files) => (0..files.len()).all(|i| self.view.keeps(files.size(i))),
        }
    }

    /// The set, where it is in memory.
    pub(super) fn in_memory(&self) -> Option<&ImageSet> {
        match &self.pixels {
            Pixels::Memory(set) => Some(set),
            Pixels::Files(_) => None,
        }
    }

    /// An image in its own size.
    ///
    /// # Panics
    ///
    /// If the row is outside the set; with [`Unreadable`] if its file can't be read any more.
    pub fn picture(&self, row: usize) -> Picture {
        match &self.pixels {
            Pixels::Memory(set) => {
                let size = [set.height, set.width];
                Picture::from_planes(set.channels, size, set.image(row))
            }
            Pixels::Files(files) => match files.decode(row) {
                Ok(picture) => picture,
                // No hook need print what ends a run with a sentence of its own.
                Err(error) => resume_unwind(Box::new(Unreadable::new(error))),
            },
        }
    }

    /// An image as the model sees it when nothing is changed at random.
    ///
    /// # Panics
    ///
    /// As [`picture`](Self::picture).
    pub fn seen(&self, row: usize) -> Picture {
        self.view.apply(self.picture(row))
    }

    /// Height and width of an image in its own size.
    ///
    /// # Panics
    ///
    /// If the row is outside the set.
    pub fn size(&self, row: usize) -> [usize; 2] {
        match &self.pixels {
            Pixels::Memory(set) => [set.height, set.width],
            Pixels::Files(files) => files.size(row),
        }
    }

    /// The file of an image, or its place in a file of many, for messages.
    ///
    /// # Panics
    ///
    /// If the row is outside the set.
    pub fn place(&self, row: usize) -> String {
        match &self.pixels {
            Pixels::Memory(_) => format!("{}:{row}", self.origin),
            Pixels::Files(files) => files.path(row).display().to_string(),
        }
    }

    /// The encoded bytes of an image's file, unchanged; `None` for an image without a file of its own, as in IDX.
    ///
    /// # Errors
    ///
    /// Its file can't be read any more.
    ///
    /// # Panics
    ///
    /// If the row is outside the set.
    pub fn encoded(&self, row: usize) -> Result<Option<Cow<'_, [u8]>>, DataError> {
        match &self.pixels {
            Pixels::Memory(_) => Ok(None),
            Pixels::Files(files) => files.bytes(row).map(Some),
        }
    }

    /// The same images, all of each seen: stretched, and nothing cut off.
    pub fn stretched(self) -> Self {
        Self {
            view: View::stretched(self.view.size),
            ..self
        }
    }

    /// The images at `rows`, in that order, with all the classes.
    ///
    /// # Panics
    ///
    /// If a row is outside the set.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            origin: self.origin.clone(),
            targets: self.targets.select(rows),
            classes: self.classes.clone(),
            pixels: match &self.pixels {
                Pixels::Memory(set) => Pixels::Memory(set.select(rows)),
                Pixels::Files(files) => Pixels::Files(files.select(rows)),
            },
            view: self.view,
        }
    }

    /// The class of each image; empty where images have none, or another target.
    pub fn labels(&self) -> &[u32] {
        match &self.targets {
            ImageTargets::Classes(labels) => labels,
            _ => &[],
        }
    }

    /// What splits follow from: equal images have equal ones, at every size that they are seen in.
    ///
    /// - seed: that of the splits, with which files were opened
    pub fn contents(&self, seed: u64) -> Vec<ContentHash> {
        let hash = |i| match &self.pixels {
            Pixels::Memory(set) => set.content(i, seed),
            Pixels::Files(files) => files.content(i).copied().unwrap_or_else(|| {
                let picture = self.picture(i);
                split::image_hash(&picture.planes(), picture.channels, seed)
            }),
        };
        (0..self.len()).map(hash).collect()
    }

    /// Whether a resumed run sees the same images: a SHA-256 of their pixels, as hexadecimal digits.
    pub fn digest(&self) -> String {
        self.digest_with(|_| Vec::new())
    }

    /// The same of pixels and of what belongs to each image.
    pub fn digest_with(&self, more: impl Fn(usize) -> Vec<u8>) -> String {
        let pixels = |i| match &self.pixels {
            Pixels::Memory(set) => set.image(i).to_vec(),
            Pixels::Files(files) => match files.content(i) {
                Some(hash) => hash.to_vec(),
                None => self.picture(i).pixels,
            },
        };
        data::digest(self.len(), |i| [pixels(i), more(i)].concat())
    }

    /// Mean and spread of all pixels, each image in its own size.
    ///
    /// # Panics
    ///
    /// If there is no image.
    pub fn statistics(&self) -> Statistics {
        match &self.pixels {
            Pixels::Memory(set) => channel_statistics(set),
            Pixels::Files(files) => files
                .statistics()
                .expect("there are images, which were decoded as they were opened"),
        }
    }
}

/// The splits of images that have some, else one set to cut.
#[derive(Clone, Debug)]
pub struct ImageRowSets {
    /// To train on; all images where no splits are given.
    pub train: ImageRows,
    /// As given, with the classes of all splits.
    pub valid: Option<ImageRows>,
    /// As given, with the classes of all splits.
    pub test: Option<ImageRows>,
    /// Images that can't be read, by reason.
    pub left_out: LeftOut,
    /// Files that are no images, by extension.
    pub not_images: LeftOut,
    /// What else a user should know.
    pub notes: Vec<String>,
}

impl From<ImageSets> for ImageRowSets {
    fn from(sets: ImageSets) -> Self {
        Self {
            train: sets.train.into(),
            valid: sets.valid.map(ImageRows::from),
            test: sets.test.map(ImageRows::from),
            left_out: sets.left_out,
            not_images: sets.not_images,
            notes: sets.notes,
        }
    }
}

impl From<ImageSet> for ImageRowSets {
    /// One set and nothing to say about it.
    fn from(set: ImageSet) -> Self {
        ImageSets::whole(set).into()
    }
}

impl ImageRowSets {
    /// Images of files, opened with [`DecodeAll`](data::DecodeAll).
    ///
    /// - view: how each becomes one of the size that the model takes
    pub fn of_files(sets: ImageFileSets, view: View) -> Self {
        let rows = |files| ImageRows::of_files(files, view);
        Self {
            train: rows(sets.train),
            valid: sets.valid.map(rows),
            test: sets.test.map(rows),
            left_out: sets.left_out,
            not_images: sets.not_images,
            notes: sets.notes,
        }
    }

    /// The same images, all of each seen: stretched, and nothing cut off.
    pub fn stretched(self) -> Self {
        Self {
            train: self.train.stretched(),
            valid: self.valid.map(ImageRows::stretched),
            test: self.test.map(ImageRows::stretched),
            ..self
        }
    }

    /// What was read and what was not, as [`ImageSets::lines`] says it.
    pub fn lines(&self) -> Vec<String> {
        let given = [&self.valid, &self.test].into_iter().flatten();
        let read = self.train.len() + given.map(ImageRows::len).sum::<usize>();
        data::image::lines(read, &self.left_out, &self.not_images, &self.notes)
    }
}

/// The size of all images of files.
///
/// # Errors
///
/// Two images of different sizes.
pub(super) fn one_size(sets: &ImageFileSets) -> Result<[usize; 2], DataError> {
    let splits = [Some(&sets.train), sets.valid.as_ref(), sets.test.as_ref()];
    let mut first: Option<(&ImageFiles, [usize; 2])> = None;
    for files in splits.into_iter().flatten().filter(|set| !set.is_empty()) {
        let differ = |[one, other]: [usize; 2], first: &ImageFiles| {
            let ([height, width], [first_height, first_width]) =
                (files.size(other), first.size(one));
            DataError::ImageSize {
                path: files.path(other).into(),
                height,
                width,
                first: first.path(one).into(),
                first_height,
                first_width,
            }
        };
        let size = files.one_size().map_err(|rows| differ(rows, files))?;
        match first {
            Some((first, known)) if known != size => return Err(differ([0, 0], first)),
            Some(_) => {}
            None => first = Some((files, size)),
        }
    }
    Ok(first.map_or([1, 1], |(_, size)| size))
}
