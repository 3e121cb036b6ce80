//! Opens sets of encoded images. In: folders, tables, shards or annotations. Out: [`ImageFileSets`], headers checked.
//!
//! Here it is decided what a path names; `folder`, `rows`, `shards` and `annotations` read it. Then all headers are read on
//! all cores, and what can't be used is refused or left out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::annotations;
use super::decode::Header;
use super::encoded::{self, Containers, Encoded, EncodedImage, Measure, Part, Unpacked};
use super::memory::most_bytes;
use super::rows::{self, ImageColumns, NamedBox, RowImage, TableRows, Target};
use super::{BoxLabel, Ground, ImageFiles, ImageTargets, content, folder, shards};
use crate::bad_rows::{BadRows, LeftOut};
use crate::split::Split;
use crate::{DataError, file, given, labels};

/// How encoded images are opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFileOptions {
    /// 1 (grey) or 3 (RGB); without it grey where every image is grey.
    pub channels: Option<usize>,
    /// What happens to images that can't be read, and to rows without one.
    pub bad_rows: BadRows,
    /// What is seen through transparent pixels.
    pub ground: Ground,
    /// The columns of tables.
    pub columns: ImageColumns,
    /// Whether images are decoded as they are opened; else their headers alone are read.
    pub decode: Option<DecodeAll>,
}

/// Decodes all images once as they are opened, so that a broken one is found before it is needed, and its content is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeAll {
    /// Of [`ImageFiles::content`].
    pub seed: u64,
    /// Decoded images stay in memory if all of them take at most so many bytes, and at most a quarter of the memory.
    pub held: u64,
}

/// The splits of a data set that has some, else one set to cut.
#[derive(Clone, Debug)]
pub struct ImageFileSets {
    /// To train on; all images where no splits are given.
    pub train: ImageFiles,
    /// As given, with the classes of all splits.
    pub valid: Option<ImageFiles>,
    /// As given, with the classes of all splits.
    pub test: Option<ImageFiles>,
    /// Images that can't be read, by reason.
    pub left_out: LeftOut,
    /// Files that are no images, by extension.
    pub not_images: LeftOut,
    /// What else a user should know.
    pub notes: Vec<String>,
}

impl ImageFileSets {
    /// The number of images in all splits.
    pub fn len(&self) -> usize {
        let given = [&self.valid, &self.test].into_iter().flatten();
        self.train.len() + given.map(ImageFiles::len).sum::<usize>()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was read and what was not, as [`ImageSets::lines`](super::ImageSets::lines) says it.
    pub fn lines(&self) -> Vec<String> {
        super::lines(self.len(), &self.left_out, &self.not_images, &self.notes)
    }
}

/// An image that was found, before its header is read.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) path: PathBuf,
    pub(super) part: Option<Part>,
    pub(super) split: Split,
    pub(super) target: Option<Target>,
    /// The row that names it, where one does.
    pub(super) named_by: Option<(PathBuf, usize)>,
}

impl Row {
    /// A file that is an image.
    pub(super) fn of_file(path: PathBuf, split: Split, target: Option<Target>) -> Self {
        Self {
            path,
            part: None,
            split,
            target,
            named_by: None,
        }
    }
}

/// All images that were found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) rows: Vec<Row>,
    /// Names of the classes, by their numbers.
    pub(super) class_names: Vec<String>,
    /// What can't be used, by its place.
    pub(super) bad: Vec<(String, DataError)>,
    pub(super) not_images: LeftOut,
    pub(super) notes: Vec<String>,
    containers: Containers,
    /// Folders whose images are those that tables name.
    beside_tables: Vec<PathBuf>,
    /// The one folder that messages name places inside of.
    root: Option<PathBuf>,
}

/// Opens what paths name, all as one set or as its splits:
///
/// - a folder of images, class folders or splits, as [`read_image_sets`](super::read_image_sets) takes it
/// - a table that names images (`.csv`, `.tsv`, `.jsonl`, `.json`) by paths relative to itself, or a folder with such a
///   `metadata` table beside its images, or `train.csv` and `test.csv`; `.parquet` that holds them, as `datasets` writes it
/// - WebDataset shards (`.tar`), or a folder of shards
/// - a COCO `.json`; a folder with `JPEGImages` and `Annotations` in Pascal VOC's XML; one with `images` and `masks`
/// - patterns of such files: `shards/train-*.tar`
///
/// Files are splits where their names say so: `train-00.tar` and `val-00.tar`.
///
/// # Errors
/// Anything that is missing or malformed. Images that can't be read and rows that can't be used are an error that counts
/// them all, or are left out, as `options` say; a split without any other is an error in both cases.
pub fn open_image_files(
    paths: &[PathBuf],
    options: &ImageFileOptions,
) -> Result<ImageFileSets, DataError> {
    let mut found = Found::default();
    if let [path] = paths
        && path.is_dir()
    {
        found.root = Some(path.clone());
    }
    let (mut folders, mut files, mut boxes) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        for path in matches(path)? {
            match Kind::of(&path, &options.columns)? {
                Kind::Folder => folders.push(path),
                Kind::Tables(tables) => {
                    files.extend(tables);
                    found.beside_tables.push(path);
                }
                Kind::Files(inside) => files.extend(inside),
                Kind::Coco => boxes.push(path),
                Kind::Voc => annotations::voc(&path, &mut found)?,
                Kind::Masks => annotations::masks(&path, &mut found)?,
            }
        }
    }
    for (path, split) in found.splits_of(&boxes) {
        annotations::coco(&path, split, &mut found)?;
    }
    if !folders.is_empty() {
        found.add_folders(&folders)?;
    }
    found.add_files(&files, &options.columns)?;
    found.count_unnamed()?;
    let origin = super::origin(paths);
    if found.rows.iter().all(|row| row.split != Split::Train) && !found.rows.is_empty() {
        return Err(DataError::NoTrainSplit { origin });
    }
    found.sets(origin, options)
}

/// What a path names.
enum Kind {
    /// Images in folders.
    Folder,
    /// Tables of the images in a folder.
    Tables(Vec<PathBuf>),
    /// Tables or shards.
    Files(Vec<PathBuf>),
    Coco,
    Voc,
    Masks,
}

impl Kind {
    fn of(path: &Path, columns: &ImageColumns) -> Result<Self, DataError> {
        if !path.is_dir() {
            if !path.exists() {
                return Err(DataError::NotFound { path: path.into() });
            }
            if super::is_image(path) {
                return Err(DataError::OneImage { path: path.into() });
            }
            if file::extension(&file::name(path)) == ".json" && annotations::is_coco(path)? {
                return Ok(Self::Coco);
            }
            return Ok(Self::Files(vec![path.into()]));
        }
        if path.join("Annotations").is_dir() && path.join("JPEGImages").is_dir() {
            return Ok(Self::Voc);
        }
        if annotations::has_masks(path)? {
            return Ok(Self::Masks);
        }
        let inside = file::list(path)?;
        let mut places = vec![path];
        places.extend(inside.iter().map(PathBuf::as_path).filter(|p| p.is_dir()));
        let tables: Vec<PathBuf> = places.iter().filter_map(|place| metadata(place)).collect();
        if !tables.is_empty() {
            return Ok(Self::Tables(tables));
        }
        let is_split = |path: &&PathBuf| {
            let is_split = path.is_file() && given::split_of_name(path).is_some();
            is_split && rows::names_images(path, columns)
        };
        let tables: Vec<PathBuf> = inside.iter().filter(is_split).cloned().collect();
        if !tables.is_empty() {
            return Ok(Self::Tables(tables));
        }
        // Beside images they are something else, which is counted: a backup, say.
        if inside
            .iter()
            .any(|path| path.is_dir() || super::is_image(path))
        {
            return Ok(Self::Folder);
        }
        let is_container =
            |path: &PathBuf| is_shard(path) || file::extension(&file::name(path)) == ".parquet";
        let containers: Vec<_> = inside.into_iter().filter(is_container).collect();
        if containers.is_empty() {
            return Ok(Self::Folder);
        }
        Ok(Self::Files(containers))
    }
}

/// The table beside the images of a folder, as `datasets` calls it.
fn metadata(folder: &Path) -> Option<PathBuf> {
    let names = ["metadata.csv", "metadata.jsonl"];
    let mut tables = names.iter().map(|name| folder.join(name));
    tables.find(|path| path.is_file())
}

fn is_shard(path: &Path) -> bool {
    file::extension(&file::name(path)) == ".tar"
}

/// Whether a path is a file that names or holds encoded images, by its name: a table or a shard.
pub(crate) fn is_image_table(path: &Path) -> bool {
    path.is_file() && (is_shard(path) || rows::is_table(path))
}

/// The path itself, or the files that match it where it is a pattern, sorted.
fn matches(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if path.exists() || !file::is_pattern(path) {
        return Ok(vec![path.into()]);
    }
    let bad_pattern = |error: glob::PatternError| DataError::BadPattern {
        path: path.into(),
        reason: error.to_string(),
    };
    let mut files = Vec::new();
    for file in glob::glob(&path.to_string_lossy()).map_err(bad_pattern)? {
        files.push(file.map_err(|error| {
            let path = error.path().to_path_buf();
            file::io_error(&path, error.into())
        })?);
    }
    if files.is_empty() {
        return Err(DataError::NotFound { path: path.into() });
    }
    Ok(files)
}

impl Found {
    fn add_folders(&mut self, folders: &[PathBuf]) -> Result<(), DataError> {
        let found = folder::find(folders)?;
        let row = |entry: folder::Entry| {
            let target = entry.class.map(Target::Class);
            Row::of_file(entry.path, entry.split, target)
        };
        self.rows.extend(found.entries.into_iter().map(row));
        self.not_images.merge(found.not_images);
        self.notes.extend(found.notes);
        Ok(())
    }

    /// Files with the splits that their names say, unless there are none to train on: then all are one set.
    fn splits_of(&mut self, files: &[PathBuf]) -> Vec<(PathBuf, Split)> {
        let Some(given) = given::given_splits(files) else {
            return files
                .iter()
                .map(|file| (file.clone(), Split::Train))
                .collect();
        };
        let note = |file: &PathBuf| format!("{}: left out, its name says no split", file.display());
        self.notes.extend(given.other.iter().map(note));
        let each = given.each();
        each.map(|(file, split)| (file.clone(), split)).collect()
    }

    /// Adds tables and shards, in splits where their names say so.
    fn add_files(&mut self, files: &[PathBuf], columns: &ImageColumns) -> Result<(), DataError> {
        let mut unpacked = Unpacked::default();
        for (file, split) in self.splits_of(files) {
            self.add_file(&file, split, columns, &mut unpacked)?;
        }
        self.containers.unpacked = unpacked.finish()?;
        Ok(())
    }

    /// Notes images beside tables that no row names.
    fn count_unnamed(&mut self) -> Result<(), DataError> {
        let plain = |path: &Path| path.components().collect::<PathBuf>();
        let named: HashSet<PathBuf> = self.rows.iter().map(|row| plain(&row.path)).collect();
        let mut found = Vec::new();
        let mut folders = self.beside_tables.clone();
        while let Some(folder) = folders.pop() {
            for path in file::list(&folder)? {
                if path.is_dir() {
                    folders.push(path);
                } else if content::has_image_name(&path) && !named.contains(&plain(&path)) {
                    found.push(path);
                }
            }
        }
        // In the same order on every machine.
        found.sort();
        let mut unnamed = LeftOut::default();
        for path in &found {
            unnamed.add("unnamed", || inside(self.root.as_deref(), path));
        }
        for reason in unnamed.reasons() {
            let images = if reason.count == 1 { "image" } else { "images" };
            self.notes.push(format!(
                "left out {} {images} that no row of a table names: {}",
                reason.count,
                reason.listed()
            ));
        }
        Ok(())
    }

    /// Adds names of classes in their order; one that is known stays where it is.
    pub(super) fn add_class_names<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        for name in names {
            if !self.class_names.contains(name) {
                self.class_names.push(name.clone());
            }
        }
    }

    /// - unpacked: takes the images that a table holds
    fn add_file(
        &mut self,
        path: &Path,
        split: Split,
        columns: &ImageColumns,
        unpacked: &mut Unpacked,
    ) -> Result<(), DataError> {
        if is_shard(path) {
            return self.add_shard(path, split);
        }
        let mut rows = TableRows::open(path, columns)?;
        self.add_class_names(rows.class_names());
        while let Some(row) = rows.next()? {
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    let fault = error.row_fault();
                    let place = fault.map(|fault| format!("{}:{}", path.display(), fault.line));
                    self.bad.push((place.unwrap_or_default(), error));
                    continue;
                }
            };
            let (image, part, named_by) = match row.image {
                RowImage::Path(name) => {
                    let named_by = Some((path.to_path_buf(), row.line));
                    (path.with_file_name(name), None, named_by)
                }
                RowImage::Bytes(bytes) => {
                    let part = unpacked.add(&bytes)?;
                    let place = format!("{}:{}", path.display(), row.line);
                    (place.into(), Some(part), None)
                }
            };
            self.rows.push(Row {
                path: image,
                part,
                split,
                target: row.target,
                named_by,
            });
        }
        Ok(())
    }

    fn add_shard(&mut self, path: &Path, split: Split) -> Result<(), DataError> {
        let samples = shards::samples(path)?;
        let file = File::open(path).map_err(|source| file::io_error(path, source))?;
        let shard = self.containers.shards.len() as u32;
        self.containers.shards.push(encoded::mapped(path, &file)?);
        for sample in samples {
            let sample = match sample {
                Ok(sample) => sample,
                Err(error) => {
                    self.bad.push((path.display().to_string(), error));
                    continue;
                }
            };
            self.rows.push(Row {
                path: sample.path,
                part: Some(Part {
                    shard: Some(shard),
                    start: sample.start,
                    len: sample.len,
                }),
                split,
                target: sample.target,
                named_by: None,
            });
        }
        Ok(())
    }

    /// Reads all headers, then counts or refuses what can't be used.
    fn sets(self, origin: String, options: &ImageFileOptions) -> Result<ImageFileSets, DataError> {
        self.check_targets(&origin)?;
        let classes = self.classes();
        let Self {
            rows,
            mut bad,
            containers,
            not_images,
            mut notes,
            root,
            ..
        } = self;
        let files = rows.len() + bad.len();
        let given: BTreeSet<Split> = rows.iter().map(|row| row.split).collect();
        let place = |path: &Path| inside(root.as_deref(), path);
        let images = images(&rows);
        let headers = headers(&images, &containers, options.ground);
        notes.extend(misnamed(&rows, &headers, place));
        let is_grey = headers.iter().flatten().all(|header| header.is_grey);
        let channels = options.channels.unwrap_or(if is_grey { 1 } else { 3 });
        super::check_shape(channels, 1, 1)?;
        let measures = options.decode.map(|plan| {
            let decoding = Decoding {
                images: &images,
                containers: &containers,
                channels,
                ground: options.ground,
                plan,
            };
            decoding.measures(&headers)
        });
        let Checked {
            images,
            measures,
            mut known,
        } = Checked::new(rows, headers, measures, place, &mut bad);
        let is_gone = |given: &Split| known.iter().all(|(split, _)| split != given);
        let nothing_left = given.is_empty() || given.iter().any(is_gone);
        let reasons = bad
            .into_iter()
            .map(|(place, error)| (place, reason(&error), error));
        let reasons = reasons.collect();
        let left_out = super::left_out(&origin, files, reasons, nothing_left, options.bad_rows)?;
        let all = Arc::new(Encoded {
            images,
            measures,
            containers,
        });
        let ids: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
        let mut set = |split| {
            let rows = (0..known.len()).filter(|&row| known[row].0 == split);
            let rows: Vec<u32> = rows.map(|row| row as u32).collect();
            let targets = rows.iter().filter_map(|&row| known[row as usize].1.take());
            let targets = targets_of(targets.collect(), &ids);
            let all = Arc::clone(&all);
            let mut set = ImageFiles::new(origin.clone(), channels, options.ground, all, rows);
            set.targets = targets;
            set.classes = classes.clone();
            set
        };
        let train = set(Split::Train);
        let [valid, test] =
            [Split::Valid, Split::Test].map(|split| given.contains(&split).then(|| set(split)));
        Ok(ImageFileSets {
            train,
            valid,
            test,
            left_out,
            not_images,
            notes,
        })
    }

    /// Refuses images with a target beside images without one, and targets of several kinds.
    fn check_targets(&self, origin: &str) -> Result<(), DataError> {
        let Some(first) = self.rows.first() else {
            return Ok(());
        };
        let kind = |row: &Row| row.target.as_ref().map(std::mem::discriminant);
        let Some(other) = self.rows.iter().find(|row| kind(row) != kind(first)) else {
            return Ok(());
        };
        let (path, labelled) = match (&first.target, &other.target) {
            (None, _) => (&first.path, &other.path),
            (_, None) => (&other.path, &first.path),
            _ => {
                let origin = origin.into();
                return Err(DataError::MixedTargets { origin });
            }
        };
        Err(DataError::MixedLabels {
            path: path.clone(),
            labelled: labelled.clone(),
        })
    }

    /// Names of all classes: those that files give first and in their order, then the others.
    fn classes(&self) -> Vec<String> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for target in self.rows.iter().filter_map(|row| row.target.as_ref()) {
            match target {
                Target::Class(name) => names.extend([name.as_str()]),
                Target::Several(several) => names.extend(several.iter().map(String::as_str)),
                Target::Boxes(boxes) => names.extend(boxes.iter().map(|b| b.class.as_str())),
                Target::Value(_) | Target::Mask(_) => {}
            }
        }
        for given in &self.class_names {
            names.remove(given.as_str());
        }
        let others = labels::ordered(names).into_iter().map(String::from);
        self.class_names.iter().cloned().chain(others).collect()
    }
}

/// Images that can be read.
#[derive(Default)]
struct Checked {
    images: Vec<EncodedImage>,
    /// Of each image, if all were decoded.
    measures: Vec<Measure>,
    /// Of each image.
    known: Vec<(Split, Option<Target>)>,
}

impl Checked {
    /// - measures: one a header, if all were decoded
    /// - place: what messages call a file
    /// - bad: takes those that can't be read
    fn new(
        rows: Vec<Row>,
        headers: Vec<Result<Header, DataError>>,
        measures: Option<Vec<Option<Result<Measure, DataError>>>>,
        place: impl Fn(&Path) -> String,
        bad: &mut Vec<(String, DataError)>,
    ) -> Self {
        let mut checked = Self::default();
        let mut measures = measures.map(Vec::into_iter);
        for (row, header) in rows.into_iter().zip(headers) {
            let measure = measures.as_mut().and_then(Iterator::next).flatten();
            let header = match (header, measure.transpose()) {
                (Ok(header), Ok(measure)) => {
                    checked.measures.extend(measure);
                    header
                }
                (Err(error), _) | (_, Err(error)) => {
                    bad.push((named(place(&row.path), row.named_by.as_ref()), error));
                    continue;
                }
            };
            checked.images.push(EncodedImage {
                path: row.path,
                part: row.part,
                size: [header.height, header.width].map(|side| side as u32),
            });
            checked.known.push((row.split, row.target));
        }
        checked
    }
}

/// All images on their way through the decoder.
struct Decoding<'a> {
    images: &'a [EncodedImage],
    containers: &'a Containers,
    channels: usize,
    ground: Ground,
    plan: DecodeAll,
}

impl Decoding<'_> {
    /// What is found in each image, on all cores; nothing where its header can't be read.
    fn measures(
        &self,
        headers: &[Result<Header, DataError>],
    ) -> Vec<Option<Result<Measure, DataError>>> {
        let sizes = headers.iter().flatten();
        let pixels: u64 = sizes.map(|h| h.height as u64 * h.width as u64).sum();
        let bytes = pixels.saturating_mul(self.channels as u64);
        let is_held = bytes <= self.plan.held.min(most_bytes());
        let measure = |(image, header): (&EncodedImage, &Result<Header, DataError>)| {
            let header = header.as_ref().ok()?;
            Some(self.measure(image, header, is_held))
        };
        let mut measures = Vec::with_capacity(headers.len());
        for n in super::groups(headers) {
            let group = measures.len()..measures.len() + n;
            let images = self.images[group.clone()].par_iter();
            measures.par_extend(images.zip(&headers[group]).map(measure));
        }
        measures
    }

    /// What is found in one image. Its hash is that of its own colours, also where the set is grey: splits are then those of
    /// the set in RGB.
    fn measure(
        &self,
        image: &EncodedImage,
        header: &Header,
        is_held: bool,
    ) -> Result<Measure, DataError> {
        let picture = image.decode(self.containers, self.channels, self.ground)?;
        let seed = self.plan.seed;
        let hash = if self.channels == 3 || header.is_grey {
            encoded::hash_of(&picture, seed)
        } else {
            encoded::hash_of(&image.decode(self.containers, 3, self.ground)?, seed)
        };
        Ok(Measure::new(picture, hash, is_held))
    }
}

/// A note on files whose content is of another format than their name says.
///
/// - place: what the note calls a file
fn misnamed(
    rows: &[Row],
    headers: &[Result<Header, DataError>],
    place: impl Fn(&Path) -> String,
) -> Option<String> {
    let formats = rows.iter().zip(headers).filter_map(|(row, header)| {
        let header = header.as_ref().ok()?;
        Some((row.path.as_path(), header.format))
    });
    super::misnamed(formats, place)
}

/// Where images are, before anything is known of them.
fn images(rows: &[Row]) -> Vec<EncodedImage> {
    let image = |row: &Row| EncodedImage {
        path: row.path.clone(),
        part: row.part,
        size: [0; 2],
    };
    rows.iter().map(image).collect()
}

/// The headers of images, read on all cores.
fn headers(
    images: &[EncodedImage],
    containers: &Containers,
    ground: Ground,
) -> Vec<Result<Header, DataError>> {
    let images = images.par_iter();
    images
        .map(|image| image.header(containers, ground))
        .collect()
}

/// A file as messages name it.
fn inside(root: Option<&Path>, path: &Path) -> String {
    let inside = root.and_then(|root| path.strip_prefix(root).ok());
    inside.unwrap_or(path).display().to_string()
}

/// An image with the row that names it.
fn named(place: String, named_by: Option<&(PathBuf, usize)>) -> String {
    match named_by {
        Some((table, line)) => format!("{place} ({}:{line})", file::name(table)),
        None => place,
    }
}

/// Why an image or its row can't be used, as a reason that it shares with others.
fn reason(error: &DataError) -> String {
    match (error, error.row_fault()) {
        (DataError::NotFound { .. }, _) => "missing".into(),
        (DataError::TarCutOff { .. }, _) => "cut off".into(),
        (DataError::NoMask { .. }, _) => "without a mask".into(),
        (_, Some(fault)) => fault.reason,
        _ => super::reason(error),
    }
}

/// Targets of one kind, with numbers for the names of classes.
fn targets_of(targets: Vec<Target>, ids: &HashMap<&str, u32>) -> ImageTargets {
    let id = |name: &String| ids.get(name.as_str()).copied();
    let mut all = ImageTargets::None;
    match targets.first() {
        None => return all,
        Some(Target::Class(_)) => all = ImageTargets::Classes(vec![]),
        Some(Target::Several(_)) => all = ImageTargets::Several(vec![]),
        Some(Target::Value(_)) => all = ImageTargets::Values(vec![]),
        Some(Target::Mask(_)) => all = ImageTargets::Masks(vec![]),
        Some(Target::Boxes(_)) => all = ImageTargets::Boxes(vec![]),
    }
    for target in targets {
        match (&mut all, target) {
            (ImageTargets::Classes(all), Target::Class(name)) => all.extend(id(&name)),
            (ImageTargets::Several(all), Target::Several(names)) => {
                let mut ids: Vec<u32> = names.iter().filter_map(id).collect();
                ids.sort_unstable();
                ids.dedup();
                all.push(ids);
            }
            (ImageTargets::Values(all), Target::Value(value)) => all.push(value),
            (ImageTargets::Masks(all), Target::Mask(path)) => all.push(path),
            (ImageTargets::Boxes(all), Target::Boxes(boxes)) => {
                let label = |named: &NamedBox| {
                    let [x, y, width, height] = named.edges;
                    Some(BoxLabel {
                        class: id(&named.class)?,
                        x,
                        y,
                        width,
                        height,
                    })
                };
                all.push(boxes.iter().filter_map(label).collect());
            }
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests;
