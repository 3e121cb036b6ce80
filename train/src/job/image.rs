//! From images to batches of pixels. In: `[data]` and `[augment]` of a recipe. Out: splits, batched, and how a bundle
//! describes its input.
//!
//! `rows`: images in memory or in files, decoded when they are asked for

use burn::prelude::*;
use burn::tensor::TensorData;
use data::augment::{self, Augmentation, BatchMix, Mixture, View};
use data::image::{ImageColumns, ImageTargets, TargetColumn, TargetKind};
use data::order::{self, Stream};
use data::{
    BadRows, DataError, DecodeAll, Ground, ImageFileOptions, ImageSet, Statistics, source, split,
};
use model::bundle::{self, ImageInput};
use model::{HeadKind, ImageConfig};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::job::labels::labelled_subset;
use crate::job::{Product, Recipe, Shared, Splits, Start};
use crate::objectives::class_loss::largest_shares;
use crate::recipe::{self, Impossible};
use crate::report::sheet::Sheet;
use crate::source::{BatchSource, Counts, Epochs, Rows, Unit};

mod rows;

pub use rows::{ImageRowSets, ImageRows};

/// `[data]` of images.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // assets/recipes/ explains every key.
pub struct Images {
    pub source: Vec<String>,
    pub valid_source: Vec<String>,
    pub test_source: Vec<String>,
    pub image_column: String,
    pub label_column: String,
    pub size: usize,
    pub crop_pct: f64,
    pub memory: u64,
    pub normalize: Normalize,
    pub ground: GroundColour,
    pub valid: f64,
    pub test: f64,
    pub split_seed: u64,
    pub valid_limit: usize,
    pub bad_rows: BadRows,
}

/// `[data]` of images with a class each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ImagesWithLabels {
    #[serde(flatten)]
    pub images: Images,
    pub label_limit: usize,
}

/// What shows through where an image is transparent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroundColour {
    /// As on paper.
    White,
    /// As on a screen that is off.
    Black,
}

/// What is done to the pixels, which run from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// What the bundle says; of a new model what its family is used to.
    Auto,
    /// Nothing.
    None,
    /// Mean 0 and deviation 1 over the training images, channel by channel.
    Data,
    /// The same over ImageNet.
    Imagenet,
}

impl GroundColour {
    /// Red, green and blue.
    pub fn ground(self) -> Ground {
        match self {
            Self::White => Ground([255; 3]),
            Self::Black => Ground([0; 3]),
        }
    }
}

impl Images {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        recipe.training.check_images()?;
        if !(0.0..=1.0).contains(&self.crop_pct) {
            let reason = format!("is {}; a share is 0 to 1", self.crop_pct);
            return Err(Impossible::new("data.crop_pct", reason));
        }
        recipe::check_shares(self.valid, self.test)
    }

    /// Opens what `source` names, in the splits that are given; images are seen in the size of the bundle's where `size` is
    /// 0. A column of labels of no usual name holds classes.
    ///
    /// # Errors
    ///
    /// A file that is missing or cannot be decoded.
    pub fn source(&self, start: &Start) -> Result<ImageRowSets, Failure> {
        self.source_of(start, TargetKind::Class)
    }

    /// The same, where the column that `label_column` names holds something else.
    ///
    /// # Errors
    ///
    /// As [`source`](Self::source).
    pub fn source_of(&self, start: &Start, kind: TargetKind) -> Result<ImageRowSets, Failure> {
        let of_bundle = start.image_input()?;
        let mut sets = self.open(&self.source, of_bundle.as_ref(), kind, None)?;
        // Grey images among those of colour sets have three channels too.
        let channels = (sets.train.shape()[0] == 3).then_some(3);
        let splits = [
            (&self.valid_source, &mut sets.valid),
            (&self.test_source, &mut sets.test),
        ];
        for (named, split) in splits {
            if named.is_empty() {
                continue;
            }
            let given = self.open(named, of_bundle.as_ref(), kind, channels)?;
            sets.left_out.merge(given.left_out);
            sets.notes.extend(given.notes);
            sets.not_images.merge(given.not_images);
            *split = Some(given.train);
        }
        Ok(sets)
    }

    /// - of_bundle: how the model that training starts from sees images
    /// - channels: of files; without it grey where every image is grey
    fn open(
        &self,
        named: &[String],
        of_bundle: Option<&ImageInput>,
        kind: TargetKind,
        channels: Option<usize>,
    ) -> Result<ImageRowSets, Failure> {
        let column = |name: &String| (!name.is_empty()).then(|| name.clone());
        let target = |name| TargetColumn { name, kind };
        let options = ImageFileOptions {
            channels,
            bad_rows: self.bad_rows,
            ground: self.ground.ground(),
            columns: ImageColumns {
                image: column(&self.image_column),
                target: column(&self.label_column).map(target),
            },
            decode: Some(DecodeAll {
                seed: self.split_seed,
                held: self.memory.saturating_mul(1 << 20),
            }),
        };
        let size_of_bundle = of_bundle.map(|input| (input.shape[1], input.shape[2]));
        let size = resize_to(self.size).or(size_of_bundle);
        if let Some((height, width)) = size {
            data::image::check_shape(1, height, width)?;
        }
        let files = match source::open_images(named, size, &options)? {
            source::Images::Memory(sets) => return Ok(sets.into()),
            source::Images::Files(files) => files,
        };
        let view = match size {
            Some((height, width)) => self.view([height, width], of_bundle),
            None => {
                let size = rows::one_size(&files)?;
                self.zoomed(size).unwrap_or_else(|| View::stretched(size))
            }
        };
        Ok(ImageRowSets::of_files(files, view))
    }

    /// How images of any size are seen in this one.
    fn view(&self, size: [usize; 2], of_bundle: Option<&ImageInput>) -> View {
        let as_named = || match of_bundle {
            Some(input) => View {
                size,
                shorter: input.for_shape([input.shape[0], size[0], size[1]]).shorter,
            },
            None => View::cropped(size, 1.0),
        };
        self.zoomed(size).unwrap_or_else(as_named)
    }

    /// The part in the middle that `crop_pct` names, if it names one.
    fn zoomed(&self, size: [usize; 2]) -> Option<View> {
        (self.crop_pct > 0.0).then(|| View::cropped(size, self.crop_pct))
    }

    /// Splits a set, and finds the model for its images.
    ///
    /// # Errors
    ///
    /// Shares that leave nothing to train or to validate on, images that the model can't take.
    pub fn read(
        &self,
        sets: ImageRowSets,
        augment: &Augment,
        head: HeadKind,
        start: &Start,
    ) -> Result<(ImageSplits, ImageModel), Failure> {
        let first = &sets.train;
        let config = start.image_config(first.shape(), head)?;
        augment.check(first)?;
        let lines = sets.lines();
        lines.iter().for_each(|line| start.console.note(line));
        let mut splits = ImageSplits::new(sets, self.valid, self.test, self.split_seed)?;
        let (limit, rows) = (self.valid_limit, splits.valid.len());
        if limit > 0 && rows > limit {
            let order = order::shuffled(rows, self.split_seed, 0);
            let rows: Vec<_> = order[..limit].iter().map(|&row| row as usize).collect();
            splits.valid = splits.valid.select(&rows);
        }
        let ImageSplits { train, valid, test } = &splits;
        start.console.note(&format!(
            "images: {} train, {} valid, {} test",
            train.len(),
            valid.len(),
            test.len()
        ));
        let mut input = self.input(&config, train, start)?;
        // Where all images have one size, nothing is said of others.
        input.shorter = if [train, valid, test].iter().all(|rows| rows.is_seen_whole()) {
            None
        } else {
            train.view().shorter
        };
        Ok((splits, ImageModel { config, input }))
    }

    /// How the model is to see these images.
    ///
    /// # Errors
    ///
    /// A file of the bundle that cannot be read.
    pub fn input(
        &self,
        config: &ImageConfig,
        train: &ImageRows,
        start: &Start,
    ) -> Result<ImageInput, Failure> {
        let shape = train.shape();
        let of_bundle = start.image_input()?;
        let kind = match (self.normalize, of_bundle) {
            (Normalize::Auto, Some(input)) => return Ok(input.for_shape(shape)),
            (Normalize::Auto, None) if config.is_for_plain_pixels() => Normalize::None,
            (Normalize::Auto, None) => Normalize::Data,
            (named, _) => named,
        };
        if kind == Normalize::Imagenet {
            return Ok(ImageInput::imagenet(shape));
        }
        let mut input = ImageInput::plain(shape);
        if kind == Normalize::Data {
            let Statistics { mean, std } = train.statistics();
            // A channel of one colour has no deviation to divide by.
            let divisors = std.into_iter().map(|std| if std > 0.0 { std } else { 1.0 });
            (input.mean, input.std) = (mean, divisors.collect());
            let listed = |values: &[f64]| {
                let values = values.iter().map(|value| format!("{value:.4}"));
                values.collect::<Vec<_>>().join(", ")
            };
            start.console.note(&format!(
                "pixels are normalised by the training images' own mean {} and deviation {}",
                listed(&input.mean),
                listed(&input.std)
            ));
        }
        Ok(input)
    }
}

/// A model of images, and what it sees of them.
#[derive(Clone, Debug)]
pub struct ImageModel {
    /// Its sizes.
    pub config: ImageConfig,
    /// What it sees.
    pub input: ImageInput,
}

/// What an image model's bundle holds beside the weights.
pub fn product(model: &ImageModel, head: HeadKind, classes: Option<&[String]>) -> Product {
    let names = model.config.names(head);
    Product {
        names,
        config: bundle::config_json(names, &model.config, classes),
        files: vec![(bundle::PREPROCESSOR, model.input.to_json())],
    }
}

/// Images as a model sees them: pixels from 0 to 1, or what normalising makes of these.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelBatch {
    /// `[n, channels, height, width]`, row-major.
    pub pixels: Vec<f32>,
    /// Number of images.
    pub n: usize,
    /// 1 grey, 3 RGB.
    pub channels: usize,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
}

impl Counts for PixelBatch {
    fn real(&self) -> usize {
        self.n
    }

    fn padded(&self) -> usize {
        self.n
    }
}

impl PixelBatch {
    /// These rows of a set, in this order.
    ///
    /// - levels: what each of the 256 levels becomes in each channel, as [`ImageInput::levels`] gives it
    ///
    /// # Panics
    ///
    /// If a row is outside the set, or a channel has no levels.
    pub fn of(images: &ImageSet, rows: &[u32], levels: &[[f32; 256]]) -> Self {
        let area = images.height * images.width;
        let mut pixels = Vec::with_capacity(rows.len() * images.channels * area);
        for &row in rows {
            let planes = images.image(row as usize).chunks(area);
            for (channel, plane) in planes.enumerate() {
                let levels = &levels[channel];
                pixels.extend(plane.iter().map(|&pixel| levels[usize::from(pixel)]));
            }
        }
        Self {
            pixels,
            n: rows.len(),
            channels: images.channels,
            height: images.height,
            width: images.width,
        }
    }

    /// Images of 8 bit, `[n, channels, height, width]`.
    pub fn from_bytes(bytes: &[u8], [channels, height, width]: [usize; 3]) -> Self {
        Self {
            pixels: bytes
                .iter()
                .map(|&pixel| f32::from(pixel) / 255.0)
                .collect(),
            n: bytes.len() / (channels * height * width),
            channels,
            height,
            width,
        }
    }

    /// Reads images back; `[n, channels, height, width]`, pixels 0 to 1.
    pub fn read<B: Backend>(images: Tensor<B, 4>) -> Self {
        let [n, channels, height, width] = images.dims();
        Self {
            pixels: images.into_data().iter::<f32>().collect(),
            n,
            channels,
            height,
            width,
        }
    }

    /// The pixels of one image, `[channels, height, width]`.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn image(&self, i: usize) -> &[f32] {
        let len = self.channels * self.height * self.width;
        &self.pixels[i * len..(i + 1) * len]
    }

    /// Moves one image down and right by so many pixels (up and left if negative); its edge fills what opens.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn shift(&mut self, i: usize, down: isize, right: isize) {
        let (height, width) = (self.height, self.width);
        let from = |at: usize, by: isize, size: usize| at.saturating_add_signed(-by).min(size - 1);
        let old = self.image(i).to_vec();
        let first = i * old.len();
        for (at, pixel) in self.pixels[first..first + old.len()].iter_mut().enumerate() {
            let (plane, y, x) = (at / (height * width), at / width % height, at % width);
            let (y, x) = (from(y, down, height), from(x, right, width));
            *pixel = old[(plane * height + y) * width + x];
        }
    }

    /// Pixels from 0 to 1 again, as they were before they were normalised.
    ///
    /// - input: how they were
    ///
    /// # Panics
    ///
    /// If it has other channels.
    pub fn without_normalizing(mut self, input: &ImageInput) -> Self {
        let area = self.height * self.width;
        for (at, plane) in self.pixels.chunks_exact_mut(area).enumerate() {
            let channel = at % self.channels;
            let (mean, std) = (input.mean[channel] as f32, input.std[channel] as f32);
            plane
                .iter_mut()
                .for_each(|pixel| *pixel = *pixel * std + mean);
        }
        self
    }

    /// The models' input, `[n, channels, height, width]`.
    pub fn tensor<B: Backend>(&self, device: &B::Device) -> Tensor<B, 4> {
        let shape = [self.n, self.channels, self.height, self.width];
        Tensor::from_data(TensorData::new(self.pixels.clone(), shape), device)
    }
}

/// `[augment]` of a recipe: how training images are changed, anew every epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augment {
    /// Pixels that an image is moved at most, up or down and left or right.
    pub shift: u16,
    /// What else is done to it, one after the other.
    pub steps: Augmentation,
}

impl Augment {
    /// Images as they are, for splits that are only looked at.
    pub const NONE: Self = Self {
        shift: 0,
        steps: Augmentation::NONE,
    };

    /// Says what is impossible about these values for such images, if anything is.
    pub fn check(&self, images: &ImageRows) -> Result<(), Impossible> {
        let [_, height, width] = images.shape();
        if usize::from(self.shift) >= height.min(width) {
            let reason = format!(
                "is {}; that moves images of {height}x{width} out of sight",
                self.shift
            );
            return Err(Impossible::new("augment.shift", reason));
        }
        let wrong = |reason| Err(Impossible::new("augment.steps", reason));
        if let Err(reason) = self.steps.check() {
            return wrong(format!("are impossible: {reason}"));
        }
        if !images.is_seen_whole() {
            // Whatever size comes out, images are brought to their own after it.
            return Ok(());
        }
        match self.steps.size_after(Some([height, width])) {
            Some(size) if size == [height, width] => Ok(()),
            Some([after, across]) => wrong(format!(
                "make images of {height}x{width} ones of {after}x{across}, and those that validate stay as they are; \
                 data.size sets the size of all"
            )),
            None => wrong(format!(
                "make images of {height}x{width} ones of many sizes; a crop at the end gives them one"
            )),
        }
    }

    /// Rows of a set as a model sees them; how they are changed is a function of (seed, sample), a sample an image.
    ///
    /// - levels: as for [`PixelBatch::of`]
    ///
    /// # Panics
    ///
    /// If a row is outside the set, or there are fewer samples than rows.
    pub fn read(
        &self,
        images: &ImageRows,
        Rows { rows, samples }: &Rows,
        levels: &[[f32; 256]],
        seed: u64,
    ) -> PixelBatch {
        let mut batch = match images.in_memory() {
            Some(set) if self.steps.steps.is_empty() => PixelBatch::of(set, rows, levels),
            _ => self.stepped(images, rows, samples, levels, seed),
        };
        self.move_images(&mut batch, seed, samples);
        batch
    }

    /// Rows after the steps.
    fn stepped(
        &self,
        images: &ImageRows,
        rows: &[u32],
        samples: &[u64],
        levels: &[[f32; 256]],
        seed: u64,
    ) -> PixelBatch {
        let [channels, height, width] = images.shape();
        let len = channels * height * width;
        let mut pixels = vec![0.0; rows.len() * len];
        for ((pixels, &row), &sample) in pixels.chunks_exact_mut(len).zip(rows).zip(samples) {
            let picture = if self.steps.steps.is_empty() {
                images.seen(row as usize)
            } else {
                let picture = images.picture(row as usize);
                images
                    .view()
                    .finish(self.steps.apply(picture, seed, sample))
            };
            picture.write_planes(pixels, |channel, value| levels[channel][usize::from(value)]);
        }
        PixelBatch {
            pixels,
            n: rows.len(),
            channels,
            height,
            width,
        }
    }

    fn move_images(&self, images: &mut PixelBatch, seed: u64, samples: &[u64]) {
        if self.shift == 0 {
            return;
        }
        let most = i32::from(self.shift);
        for (i, &sample) in samples[..images.n].iter().enumerate() {
            let mut rng = order::rng(seed, Stream::Augment, sample);
            let [down, right] = [(); 2].map(|()| rng.random_range(-most..=most) as isize);
            images.shift(i, down, right);
        }
    }
}

/// `[augment]` of images with a class each: images are changed, then the batch is mixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelledAugment {
    /// How each image is changed.
    #[serde(flatten)]
    pub pictures: Augment,
    /// Ways to mix the images of a batch and their classes, of which each batch takes one.
    pub mix: Vec<BatchMix>,
}

impl LabelledAugment {
    /// Images as they are, for splits that are only looked at.
    pub const NONE: Self = Self {
        pictures: Augment::NONE,
        mix: Vec::new(),
    };

    /// Says what is impossible about mixing with this recipe, if anything is.
    pub fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        let wrong = |reason| Err(Impossible::new("augment.mix", reason));
        if let Some(reason) = self.mix.iter().find_map(|mix| mix.check().err()) {
            return wrong(format!("is impossible: {reason}"));
        }
        if !self.mix.is_empty() && recipe.training.batch_size == 1 {
            return wrong("mixes the images of a batch, and training.batch_size is 1".into());
        }
        Ok(())
    }
}

/// A set cut in three by the content of its images: equal images are never in two splits.
pub struct ImageSplits {
    /// To train on.
    pub train: ImageRows,
    /// To choose the best step by.
    pub valid: ImageRows,
    /// To report; may be empty.
    pub test: ImageRows,
}

impl ImageSplits {
    /// - valid, test: shares 0 to 1 of the images
    ///
    /// # Errors
    ///
    /// Shares that leave nothing to train or to validate on.
    pub fn new(sets: ImageRowSets, valid: f64, test: f64, seed: u64) -> Result<Self, Failure> {
        recipe::check_shares(valid, test)?;
        let ImageRowSets {
            train: images,
            valid: given_valid,
            test: given_test,
            ..
        } = sets;
        let share = |given: &Option<ImageRows>, share| if given.is_some() { 0.0 } else { share };
        let (valid_share, test_share) = (share(&given_valid, valid), share(&given_test, test));
        let contents = images.contents(seed);
        let labels = match &images.targets {
            ImageTargets::Classes(labels) => Some(labels.as_slice()),
            _ => None,
        };
        let splits = split::split_by_hash(&contents, labels, valid_share, test_share);
        let set = |given: Option<ImageRows>, rows: &[usize]| match given {
            Some(given) => Self::like(&images, given),
            None => Ok(images.select(rows)),
        };
        let all = Self {
            train: images.select(&splits.train),
            valid: set(given_valid, &splits.valid)?,
            test: set(given_test, &splits.test)?,
        };
        if all.train.is_empty() || all.valid.is_empty() {
            return Err(Failure::input(format!(
                "{}: {} images leave {} to train and {} to validate on (data.valid is {valid}, data.test is {test})",
                images.origin,
                images.len(),
                all.train.len(),
                all.valid.len()
            )));
        }
        Ok(all)
    }

    /// A given split whose images are of the shape of the others and whose labels are numbers of the same classes.
    fn like(images: &ImageRows, mut given: ImageRows) -> Result<ImageRows, Failure> {
        if images.shape() != given.shape() {
            let ([c, h, w], [channels, height, width]) = (images.shape(), given.shape());
            return Err(Failure::input(format!(
                "{}: images of {channels} channels and {height}x{width} pixels, and {} has {c} channels and {h}x{w}",
                given.origin, images.origin
            )));
        }
        if images.classes == given.classes {
            return Ok(given);
        }
        let id = |label: u32| {
            let name = &given.classes[label as usize];
            let found = images.classes.iter().position(|class| class == name);
            found.map(|class| class as u32).ok_or_else(|| {
                Failure::input(format!(
                    "{}: class \"{name}\" does not occur in {}",
                    given.origin, images.origin
                ))
            })
        };
        match &mut given.targets {
            ImageTargets::Classes(labels) => {
                for label in labels {
                    *label = id(*label)?;
                }
            }
            ImageTargets::Several(several) => {
                for label in several.iter_mut().flatten() {
                    *label = id(*label)?;
                }
                several.iter_mut().for_each(|labels| labels.sort_unstable());
            }
            ImageTargets::Boxes(boxes) => {
                for labelled in boxes.iter_mut().flatten() {
                    labelled.class = id(labelled.class)?;
                }
            }
            ImageTargets::None | ImageTargets::Values(_) | ImageTargets::Masks(_) => {}
        }
        given.classes = images.classes.clone();
        Ok(given)
    }
}

/// Height and width that `data.size` asks for; 0 leaves images as they are.
pub fn resize_to(size: usize) -> Option<(usize, usize)> {
    (size > 0).then_some((size, size))
}

/// Images and the class of each.
#[derive(Clone, Debug)]
pub struct LabelledImages {
    /// The images.
    pub images: ImageRows,
    /// One an image, an index into the class names.
    pub classes: Vec<u32>,
}

/// Splits with their classes.
pub struct LabelledImageSplits {
    /// Class names, in the order of the logits.
    pub classes: Vec<String>,
    /// To train on.
    pub train: LabelledImages,
    /// To choose the best step by.
    pub valid: LabelledImages,
    /// To report; may be empty.
    pub test: LabelledImages,
}

impl LabelledImageSplits {
    /// Learns the classes from the training split.
    ///
    /// - label_limit: labelled images to train on; 0 is all of them
    ///
    /// # Errors
    ///
    /// No labels, fewer than two classes to train on, or a class that occurs outside the training split only.
    pub fn new(splits: ImageSplits, label_limit: usize, split_seed: u64) -> Result<Self, Failure> {
        let ImageSplits { train, valid, test } = splits;
        for images in [&train, &valid, &test] {
            check_targets(images)?;
        }
        let mut ids = vec![None; train.classes.len()];
        let mut classes = Vec::new();
        for (label, name) in train.classes.iter().enumerate() {
            if train.labels().contains(&(label as u32)) {
                ids[label] = Some(classes.len() as u32);
                classes.push(name.clone());
            }
        }
        let wrong = |error| Failure::input(format!("{}: {error}", train.origin));
        check_classes(&train).map_err(wrong)?;
        let few = labelled_subset(train.labels(), label_limit, split_seed)?;
        Ok(Self {
            train: LabelledImages::new(train.select(&few), "training", &ids)?,
            valid: LabelledImages::new(valid, "validation", &ids)?,
            test: LabelledImages::new(test, "test", &ids)?,
            classes,
        })
    }
}

impl LabelledImages {
    /// - ids: the class of each label, where training saw it
    fn new(images: ImageRows, name: &str, ids: &[Option<u32>]) -> Result<Self, Failure> {
        let class = |&label: &u32| {
            ids[label as usize].ok_or_else(|| {
                Failure::input(format!(
                    "class \"{}\" occurs only in the {name} split: there is no image of it to train on",
                    images.classes[label as usize]
                ))
            })
        };
        let classes = images.labels().iter().map(class);
        let classes = classes.collect::<Result<_, _>>()?;
        Ok(Self { images, classes })
    }
}

/// Refuses fewer than two classes to train on.
fn check_classes(train: &ImageRows) -> Result<(), DataError> {
    match train.labels() {
        [] => Err(DataError::NoLabels),
        [first, rest @ ..] if rest.iter().all(|label| label == first) => Err(DataError::OneClass {
            label: train.classes[*first as usize].clone(),
        }),
        _ => Ok(()),
    }
}

/// Refuses images without a class each.
fn check_targets(images: &ImageRows) -> Result<(), Failure> {
    let reason = match &images.targets {
        ImageTargets::Classes(_) => return Ok(()),
        _ if images.is_empty() => return Ok(()),
        ImageTargets::None => {
            "the images have no labels: a folder needs one folder a class, an IDX file its labels beside it, a table a \
             column of them"
        }
        ImageTargets::Several(_) => "the images have several labels each, and one is needed",
        ImageTargets::Values(_) => {
            "the images have a value each, and a label is needed; data.label_column names a column of labels"
        }
        ImageTargets::Masks(_) => "the images have a mask each, and a label is needed",
        ImageTargets::Boxes(_) => "the images have boxes, and a label each is needed",
    };
    Err(Failure::input(format!("{}: {reason}", images.origin)))
}

/// Images with their classes, in a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledImageBatch {
    /// What the model sees.
    pub inputs: PixelBatch,
    /// A class an image; where images are mixed, that with the larger share.
    pub targets: Vec<u32>,
    /// Where images are mixed: the share of each class in each image, `[n, n_classes]`, row-major.
    pub shares: Option<Vec<f32>>,
}

impl Counts for LabelledImageBatch {
    fn real(&self) -> usize {
        self.inputs.real()
    }

    fn padded(&self) -> usize {
        self.inputs.padded()
    }
}

impl LabelledImageBatch {
    /// The images with the names of their classes, and their shares where images are mixed.
    ///
    /// - input: how the model sees images
    /// - classes: their names
    pub fn sheet(&self, input: &ImageInput, classes: &[String]) -> Sheet {
        let caption = |(row, &class): (usize, &u32)| match &self.shares {
            None => vec![classes[class as usize].clone()],
            Some(shares) => {
                let shares = &shares[row * classes.len()..][..classes.len()];
                let named = classes
                    .iter()
                    .zip(shares)
                    .filter(|(_, share)| **share > 0.0);
                let line = |(name, share): (&String, &f32)| format!("{share:.2} {name}");
                named.map(line).collect()
            }
        };
        Sheet {
            images: self.inputs.clone().without_normalizing(input),
            captions: self.targets.iter().enumerate().map(caption).collect(),
        }
    }

    /// Mixes each image with the one before it, and their classes in the same way.
    fn mix(&mut self, mixture: Mixture, n_classes: usize) {
        let PixelBatch {
            pixels,
            channels,
            height,
            width,
            ..
        } = &mut self.inputs;
        mixture.mix_images(pixels, [*channels, *height, *width]);
        let mut shares = vec![0.0; self.targets.len() * n_classes];
        for (row, &class) in self.targets.iter().enumerate() {
            shares[row * n_classes + class as usize] = 1.0;
        }
        mixture.mix_targets(&mut shares, n_classes);
        self.targets = largest_shares(&shares, n_classes).collect();
        self.shares = Some(shares);
    }
}

/// Batches of labelled images.
pub struct LabelledImageBatches {
    split: LabelledImages,
    n_classes: usize,
    epochs: Epochs,
    levels: Vec<[f32; 256]>,
    augment: LabelledAugment,
    seed: u64,
}

impl LabelledImageBatches {
    /// Batches of a split in the order of `epochs`; how images are changed is a function of (seed, epoch, image), and how a
    /// batch is mixed one of (seed, epoch, its first image).
    pub fn new(
        split: LabelledImages,
        n_classes: usize,
        input: &ImageInput,
        epochs: Epochs,
        augment: LabelledAugment,
        seed: u64,
    ) -> Self {
        Self {
            split,
            n_classes,
            epochs,
            levels: input.levels(),
            augment,
            seed,
        }
    }
}

impl BatchSource for LabelledImageBatches {
    type Batch = LabelledImageBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> LabelledImageBatch {
        let rows = self.epochs.batch(number);
        let class = |&row: &u32| self.split.classes[row as usize];
        let (images, LabelledAugment { pictures, mix }) = (&self.split.images, &self.augment);
        let mut batch = LabelledImageBatch {
            inputs: pictures.read(images, &rows, &self.levels, self.seed),
            targets: rows.rows.iter().map(class).collect(),
            shares: None,
        };
        let [_, height, width] = images.shape();
        if let Some(&first) = rows.samples.first()
            && let Some(mixture) = augment::batch::draw(mix, [height, width], self.seed, first)
        {
            batch.mix(mixture, self.n_classes);
        }
        batch
    }
}

impl LabelledImageSplits {
    /// Training batches in a new order every epoch, the other splits always the same.
    ///
    /// - input: how the model sees images
    pub fn batches(
        self,
        recipe: &Recipe,
        input: &ImageInput,
        augment: LabelledAugment,
    ) -> Splits<LabelledImageBatch> {
        let Self {
            train,
            valid,
            test,
            classes,
        } = self;
        let n_classes = classes.len();
        let (training, seed) = (&recipe.training, recipe.seed);
        let in_order = |split: LabelledImages| {
            let epochs = Epochs::in_order(split.classes.len(), training.batch_size);
            let none = LabelledAugment::NONE;
            let batches = LabelledImageBatches::new(split, n_classes, input, epochs, none, 0);
            Shared::new(batches)
        };
        let lengths = vec![1; train.classes.len()];
        let digest = train
            .images
            .digest_with(|at| train.classes[at].to_le_bytes().into());
        let batching = training.batching();
        let shuffled = Epochs::shuffled(lengths, batching, training.accumulation, seed);
        let train = LabelledImageBatches::new(train, n_classes, input, shuffled, augment, seed);
        Splits {
            train: Shared::new(train),
            valid: in_order(valid),
            test: (!test.classes.is_empty()).then(|| in_order(test)),
            digest,
            unit: Unit::Samples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use data::augment::MixUp;

    /// `n` RGB images of 2x1; every byte of image i is i.
    fn numbered(n: u8) -> ImageSet {
        ImageSet {
            origin: "test".into(),
            channels: 3,
            height: 2,
            width: 1,
            pixels: (0..n).flat_map(|i| [i; 6]).collect(),
            labels: None,
            classes: vec![],
        }
    }

    #[test]
    fn a_batch_holds_its_rows_from_0_to_1_and_reads_back() {
        let batch = PixelBatch::of(
            &numbered(52),
            &[51, 0],
            &ImageInput::plain([3, 2, 1]).levels(),
        );
        assert_eq!(batch.image(0), [0.2; 6]); // 51 / 255
        assert_eq!(batch.image(1), [0.0; 6]);
        let tensor = batch.tensor::<Flex>(&Default::default());
        assert_eq!(tensor.dims(), [2, 3, 2, 1]);
        assert_eq!(PixelBatch::read(tensor), batch);
    }

    #[test]
    fn a_shifted_image_repeats_its_edge() {
        let bytes = [0, 51, 102, 153, 204, 255];
        let mut batch = PixelBatch::from_bytes(&[bytes, bytes].concat(), [1, 2, 3]);
        batch.shift(1, 0, 1);
        assert_eq!(batch.image(0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(batch.image(1), [0.0, 0.0, 0.2, 0.6, 0.6, 0.8]);
        // Up and left until only the last pixel is in sight.
        batch.shift(0, -1, -2);
        assert_eq!(batch.image(0), [1.0; 6]);
    }

    #[test]
    fn augmentation_is_a_function_of_seed_and_sample() {
        let images = set(8, &["a", "b"], |i| (i % 2) as u32);
        let levels = ImageInput::plain([1, 6, 5]).levels();
        let changed = |augment: &Augment, seed, rows: std::ops::Range<u32>| {
            let samples = rows.clone().map(u64::from).collect();
            let rows = Rows {
                rows: rows.collect(),
                samples,
            };
            augment.read(&images.clone().into(), &rows, &levels, seed)
        };
        let steps = r#"steps = [{kind = "flip", p = 0.5}, {kind = "erasing", p = 1.0}]"#;
        let steps: toml::Table = steps.parse().unwrap();
        let both = Augment {
            shift: 2,
            steps: steps["steps"].clone().try_into().unwrap(),
        };
        let moved = Augment {
            shift: 2,
            ..Augment::NONE
        };
        for augment in [&moved, &both] {
            let first = changed(augment, 1, 0..8);
            assert_eq!(changed(augment, 1, 0..8), first);
            assert_ne!(changed(augment, 2, 0..8), first);
            // However images are batched.
            assert_eq!(changed(augment, 1, 4..8).image(0), first.image(4));
            assert_eq!(augment.check(&images.clone().into()), Ok(()));
        }
        assert_ne!(changed(&moved, 1, 0..8), changed(&both, 1, 0..8));
        let whole: Vec<u32> = (0..8).collect();
        let plain = PixelBatch::of(&images, &whole, &levels);
        assert_eq!(changed(&Augment::NONE, 1, 0..8), plain);
    }

    #[test]
    fn impossible_augmentation_is_named() {
        let refusal = |augment: &str| {
            let augment: Augment = toml::from_str(augment).unwrap();
            augment.check(&numbered(1).into()).unwrap_err().to_string()
        };
        assert_eq!(
            refusal("shift = 1\nsteps = []"),
            "augment.shift is 1; that moves images of 2x1 out of sight"
        );
        let flip = r#"shift = 0
steps = [{kind = "flip", p = 1.5}]"#;
        let words = "augment.steps are impossible: step 1, flip: p is 1.5";
        assert!(refusal(flip).starts_with(words), "{}", refusal(flip));
        let crop = r#"shift = 0
steps = [{kind = "random_resized_crop", size = 8}]"#;
        let words = "augment.steps make images of 2x1 ones of 8x8";
        assert!(refusal(crop).starts_with(words), "{}", refusal(crop));
    }

    /// The pixels of all rows.
    fn pixels(rows: &ImageRows) -> Vec<u8> {
        rows.in_memory().unwrap().pixels.clone()
    }

    #[test]
    fn splits_hold_every_image_once_and_equal_images_together() {
        let images = numbered(100);
        let splits = ImageSplits::new(images.clone().into(), 0.2, 0.3, 0).unwrap();
        let ImageSplits { train, valid, test } = &splits;
        let mut all: Vec<u8> = [train, valid, test]
            .iter()
            .flat_map(|rows| pixels(rows))
            .collect();
        all.sort_unstable();
        assert_eq!(all, images.pixels);

        let twice = images.select(&[7; 50]);
        let Err(error) = ImageSplits::new(twice.into(), 0.2, 0.3, 0) else {
            panic!("fifty equal images fall into one split");
        };
        assert!(
            error.to_string().starts_with("test: 50 images leave"),
            "{error}"
        );
    }

    /// `n` grey images of 6x5, all different; the label of image i is `label(i)` of `classes`.
    fn set(n: usize, classes: &[&str], label: impl Fn(usize) -> u32) -> ImageSet {
        let image = |i: usize| {
            let bar = label(i) as usize;
            (0..30).map(move |at| if at % 5 == bar { 255 - i as u8 } else { 0 })
        };
        ImageSet {
            origin: "test".into(),
            channels: 1,
            height: 6,
            width: 5,
            pixels: (0..n).flat_map(image).collect(),
            labels: Some((0..n).map(&label).collect()),
            classes: classes.iter().map(|name| name.to_string()).collect(),
        }
    }

    fn corpus(images: &ImageSet, label_limit: usize) -> Result<LabelledImageSplits, Failure> {
        let splits = ImageSplits::new(images.clone().into(), 0.2, 0.2, 0)?;
        LabelledImageSplits::new(splits, label_limit, 0)
    }

    fn refusal(images: &ImageSet, label_limit: usize) -> String {
        let Err(failure) = corpus(images, label_limit) else {
            panic!("the images should be refused");
        };
        assert_eq!(failure.exit_code(), 2);
        failure.to_string()
    }

    #[test]
    fn a_given_split_without_labels_is_refused() {
        let whole = set(60, &["a", "b"], |i| (i % 2) as u32);
        let flat = ImageRows::from(ImageSet {
            origin: "flat".into(),
            labels: None,
            ..whole.clone()
        });
        let labelled = ImageSplits::new(whole.into(), 0.2, 0.2, 0).unwrap();
        let [valid, test] = [[&flat, &labelled.test], [&labelled.valid, &flat]];
        for [valid, test] in [valid, test] {
            let splits = ImageSplits {
                train: labelled.train.clone(),
                valid: valid.clone(),
                test: test.clone(),
            };
            let failure = LabelledImageSplits::new(splits, 0, 0).err().unwrap();
            let message = failure.to_string();
            assert!(
                message.contains("flat: the images have no labels"),
                "{message}"
            );
        }
    }

    #[test]
    fn classes_are_those_of_the_training_split() {
        // "b" never occurs: the logits have no place for it, and "c" moves up.
        let images = set(60, &["a", "b", "c"], |i| if i % 2 == 0 { 0 } else { 2 });
        let corpus = corpus(&images, 0).unwrap();
        assert_eq!(corpus.classes, ["a", "c"]);
        for split in [&corpus.train, &corpus.valid, &corpus.test] {
            assert!(!split.classes.is_empty());
            for (i, &class) in split.classes.iter().enumerate() {
                let lit = split.images.picture(i).pixels[0] > 0;
                assert_eq!(class == 0, lit, "the bar of \"a\" is at 0");
            }
        }
    }

    #[test]
    fn few_labels_are_nested_and_leave_the_other_splits_alone() {
        let images = set(100, &["a", "b"], |i| (i % 2) as u32);
        let (few, more) = (corpus(&images, 8).unwrap(), corpus(&images, 20).unwrap());
        assert_eq!((few.train.classes.len(), more.train.classes.len()), (8, 20));
        let [of_few, of_more] = [&few, &more].map(|corpus| pixels(&corpus.train.images));
        assert_eq!(of_few, of_more[..8 * 30]);
        let first = few.train.classes.iter().filter(|&&class| class == 0);
        assert_eq!(first.count(), 4);
        let [of_few, of_more] = [&few, &more].map(|corpus| pixels(&corpus.test.images));
        assert_eq!(of_few, of_more);
    }

    #[test]
    fn sets_that_teach_nothing_are_refused() {
        let one = set(60, &["a"], |_| 0);
        assert!(refusal(&one, 0).contains("only one class (\"a\")"));
        let two = set(60, &["a", "b"], |i| (i % 2) as u32);
        let mut few = corpus(&two, 2).unwrap().train.classes;
        few.sort_unstable();
        assert_eq!(few, [0, 1], "a row of each class");
        let unlabelled = ImageSet {
            labels: None,
            ..two
        };
        assert!(refusal(&unlabelled, 0).contains("have no labels"));
    }

    #[test]
    fn batches_hold_images_beside_their_classes() {
        let images = set(3, &["a", "b", "c"], |i| i as u32);
        let split = LabelledImages {
            images: images.into(),
            classes: vec![0, 1, 2],
        };
        let plain = ImageInput::plain([1, 6, 5]);
        let in_order = || Epochs::in_order(3, 2);
        let none = LabelledAugment::NONE;
        let source = LabelledImageBatches::new(split.clone(), 3, &plain, in_order(), none, 0);
        assert_eq!(source.batches_per_epoch(), 2);
        let batch = source.batch(1);
        assert_eq!((batch.real(), batch.padded()), (1, 1));
        assert_eq!(batch.targets, [2]);
        // Image 2 is lit at 2, with 255 - 2.
        let row = [0.0, 0.0, 253.0 / 255.0, 0.0, 0.0];
        assert_eq!(batch.inputs.image(0)[..5], row);
        assert_eq!(batch.shares, None);

        let mix = LabelledAugment {
            mix: vec![BatchMix::MixUp(MixUp { alpha: 1.0 })],
            ..LabelledAugment::NONE
        };
        let mixed = LabelledImageBatches::new(split, 3, &plain, in_order(), mix, 5).batch(0);
        let shares = mixed.shares.unwrap();
        // Image 1 and a part of image 0, and the other way round.
        let own = shares[0];
        assert_eq!(shares, [own, 1.0 - own, 0.0, 1.0 - own, own, 0.0]);
        assert_eq!(mixed.targets, if own > 0.5 { [0, 1] } else { [1, 0] });
        assert!((mixed.inputs.image(0)[0] - own).abs() < 1e-6);
        assert!((mixed.inputs.image(1)[1] - own * 254.0 / 255.0).abs() < 1e-6);
    }
}
