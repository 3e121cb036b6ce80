//! From images to batches of pixels. In: `[data]` and `[augment]` of a recipe. Out: splits, batched, and how a bundle
//! describes its input.
//!
//! `rows`: images in memory or in files, decoded when they are asked for; `pixels`: their batches, and how they are changed;
//! `labelled`: batches with a class an image

use data::augment::View;
use data::image::{ImageColumns, ImageTargets, TargetColumn, TargetKind};
use data::order::{self};
use data::{BadRows, DecodeAll, Ground, ImageFileOptions, Statistics, source, split};
use model::bundle::{self, ImageInput};
use model::{HeadKind, ImageConfig};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::job::{Product, Recipe, Start};
use crate::recipe::{self, Impossible};

mod labelled;
mod pixels;
mod rows;

pub use labelled::{
    ImagesWithLabels, LabelledAugment, LabelledImageBatch, LabelledImageBatches,
    LabelledImageSplits, LabelledImages,
};
pub use pixels::{Augment, PixelBatch, view_seed};
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

#[cfg(test)]
mod tests {
    use super::*;
    use data::ImageSet;

    /// `n` RGB images of 2x1; every byte of image i is i.
    pub fn numbered(n: u8) -> ImageSet {
        ImageSet {
            origin: "test".into(),
            channels: 3,
            height: 2,
            width: 1,
            pixels: (0..n).flat_map(|i| [i; 6]).collect(),
            labels: None,
            classes: vec![],
            contents: vec![],
        }
    }

    /// The pixels of all rows.
    pub fn pixels(rows: &ImageRows) -> Vec<u8> {
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
    pub fn set(n: usize, classes: &[&str], label: impl Fn(usize) -> u32) -> ImageSet {
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
            contents: vec![],
        }
    }
}
