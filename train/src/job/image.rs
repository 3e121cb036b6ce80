//! From images to batches of pixels. In: `[data]` and `[augment]` of a recipe. Out: splits, batched, and how a bundle
//! describes its input.

use burn::prelude::*;
use burn::tensor::TensorData;
use data::augment::Augmentation;
use data::image::Picture;
use data::order::{self, Stream};
use data::{BadRows, DataError, Ground, ImageOptions, ImageSet, ImageSets, source, split};
use data::{Statistics, channel_statistics};
use model::bundle::{self, ImageInput};
use model::{HeadKind, ImageConfig};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::job::labels::{Labelled, labelled_subset};
use crate::job::{Product, Recipe, Shared, Splits, Start};
use crate::recipe::{self, Impossible};
use crate::source::{BatchSource, Counts, Epochs, Rows, Unit};

/// `[data]` of images.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // assets/recipes/ explains every key.
pub struct Images {
    pub source: Vec<String>,
    pub valid_source: Vec<String>,
    pub test_source: Vec<String>,
    pub size: usize,
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
        recipe::check_shares(self.valid, self.test)
    }

    /// Reads what `source` names, in the splits that are given; images have the size of the bundle's where `size` is 0.
    ///
    /// # Errors
    ///
    /// A file that is missing or cannot be decoded.
    pub fn source(&self, start: &Start) -> Result<ImageSets, Failure> {
        let of_bundle = start
            .image_input()?
            .map(|input| (input.shape[1], input.shape[2]));
        let options = ImageOptions {
            size: resize_to(self.size).or(of_bundle),
            bad_rows: self.bad_rows,
            ground: self.ground.ground(),
        };
        let mut sets = source::image_sets(&self.source, &options)?;
        let splits = [
            (&self.valid_source, &mut sets.valid),
            (&self.test_source, &mut sets.test),
        ];
        for (named, split) in splits {
            if named.is_empty() {
                continue;
            }
            let given = source::image_sets(named, &options)?;
            sets.left_out.merge(given.left_out);
            sets.notes.extend(given.notes);
            sets.not_images.merge(given.not_images);
            *split = Some(given.train);
        }
        Ok(sets)
    }

    /// Splits a set, and finds the model for its images.
    ///
    /// # Errors
    ///
    /// Shares that leave nothing to train or to validate on, images that the model can't take.
    pub fn read(
        &self,
        sets: ImageSets,
        augment: &Augment,
        head: HeadKind,
        start: &Start,
    ) -> Result<(ImageSplits, ImageModel), Failure> {
        let first = &sets.train;
        let shape = [first.channels, first.height, first.width];
        let config = start.image_config(shape, head)?;
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
        let input = self.input(&config, train, start)?;
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
        train: &ImageSet,
        start: &Start,
    ) -> Result<ImageInput, Failure> {
        let shape = [train.channels, train.height, train.width];
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
            let Statistics { mean, std } = channel_statistics(train);
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

    /// The models' input, `[n, channels, height, width]`.
    pub fn tensor<B: Backend>(&self, device: &B::Device) -> Tensor<B, 4> {
        let shape = [self.n, self.channels, self.height, self.width];
        Tensor::from_data(TensorData::new(self.pixels.clone(), shape), device)
    }
}

/// `[augment]` of a recipe: how training images are changed, anew every epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    pub fn check(&self, images: &ImageSet) -> Result<(), Impossible> {
        let (height, width) = (images.height, images.width);
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
        images: &ImageSet,
        Rows { rows, samples }: &Rows,
        levels: &[[f32; 256]],
        seed: u64,
    ) -> PixelBatch {
        let mut batch = if self.steps.steps.is_empty() {
            PixelBatch::of(images, rows, levels)
        } else {
            self.stepped(images, rows, samples, levels, seed)
        };
        self.move_images(&mut batch, seed, samples);
        batch
    }

    /// Rows after the steps.
    fn stepped(
        &self,
        images: &ImageSet,
        rows: &[u32],
        samples: &[u64],
        levels: &[[f32; 256]],
        seed: u64,
    ) -> PixelBatch {
        let size = [images.height, images.width];
        let len = images.channels * images.height * images.width;
        let mut pixels = vec![0.0; rows.len() * len];
        for ((pixels, &row), &sample) in pixels.chunks_exact_mut(len).zip(rows).zip(samples) {
            let planes = images.image(row as usize);
            let picture = Picture::from_planes(images.channels, size, planes);
            let picture = self.steps.apply(picture, seed, sample);
            picture.write_planes(pixels, |channel, value| levels[channel][usize::from(value)]);
        }
        PixelBatch {
            pixels,
            n: rows.len(),
            channels: images.channels,
            height: images.height,
            width: images.width,
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

/// A set cut in three by the content of its images: equal images are never in two splits.
pub struct ImageSplits {
    /// To train on.
    pub train: ImageSet,
    /// To choose the best step by.
    pub valid: ImageSet,
    /// To report; may be empty.
    pub test: ImageSet,
}

impl ImageSplits {
    /// - valid, test: shares 0 to 1 of the images
    ///
    /// # Errors
    ///
    /// Shares that leave nothing to train or to validate on.
    pub fn new(sets: ImageSets, valid: f64, test: f64, seed: u64) -> Result<Self, Failure> {
        recipe::check_shares(valid, test)?;
        let ImageSets {
            train: images,
            valid: given_valid,
            test: given_test,
            ..
        } = sets;
        let share = |given: &Option<ImageSet>, share| if given.is_some() { 0.0 } else { share };
        let (valid_share, test_share) = (share(&given_valid, valid), share(&given_test, test));
        let keys: Vec<&[u8]> = (0..images.len()).map(|i| images.image(i)).collect();
        let splits = match &images.labels {
            Some(labels) => {
                let labels: Vec<_> = labels.iter().copied().map(Some).collect();
                split::split_labelled(&keys, &labels, valid_share, test_share, seed)
            }
            None => split::split_by_content(keys.iter().copied(), valid_share, test_share, seed),
        };
        let set = |given: Option<ImageSet>, rows: &[usize]| match given {
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
    fn like(images: &ImageSet, mut given: ImageSet) -> Result<ImageSet, Failure> {
        let shape = |set: &ImageSet| (set.channels, set.height, set.width);
        if shape(images) != shape(&given) {
            let ((c, h, w), (channels, height, width)) = (shape(images), shape(&given));
            return Err(Failure::input(format!(
                "{}: images of {channels} channels and {height}x{width} pixels, and {} has {c} channels and {h}x{w}",
                given.origin, images.origin
            )));
        }
        if images.classes == given.classes {
            return Ok(given);
        }
        let id = |label: &u32| {
            let name = &given.classes[*label as usize];
            let found = images.classes.iter().position(|class| class == name);
            found.map(|class| class as u32).ok_or_else(|| {
                Failure::input(format!(
                    "{}: class \"{name}\" does not occur in {}",
                    given.origin, images.origin
                ))
            })
        };
        let labels = given.labels.as_ref();
        let labels = labels.map(|labels| labels.iter().map(id).collect::<Result<_, _>>());
        given.labels = labels.transpose()?;
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
    pub images: ImageSet,
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
            if images.labels.is_none() && !images.is_empty() {
                return Err(Failure::input(format!(
                    "{}: the images have no labels: a folder needs one folder a class, an IDX file its labels beside it",
                    images.origin
                )));
            }
        }
        let mut ids = vec![None; train.classes.len()];
        let mut classes = Vec::new();
        for (label, name) in train.classes.iter().enumerate() {
            if labels(&train).contains(&(label as u32)) {
                ids[label] = Some(classes.len() as u32);
                classes.push(name.clone());
            }
        }
        let wrong = |error| Failure::input(format!("{}: {error}", train.origin));
        check_classes(&train).map_err(wrong)?;
        let few = labelled_subset(labels(&train), label_limit, split_seed)?;
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
    fn new(images: ImageSet, name: &str, ids: &[Option<u32>]) -> Result<Self, Failure> {
        let class = |&label: &u32| {
            ids[label as usize].ok_or_else(|| {
                Failure::input(format!(
                    "class \"{}\" occurs only in the {name} split: there is no image of it to train on",
                    images.classes[label as usize]
                ))
            })
        };
        let classes = labels(&images)
            .iter()
            .map(class)
            .collect::<Result<_, _>>()?;
        Ok(Self { images, classes })
    }
}

/// Refuses fewer than two classes to train on.
fn check_classes(train: &ImageSet) -> Result<(), DataError> {
    match labels(train) {
        [] => Err(DataError::NoLabels),
        [first, rest @ ..] if rest.iter().all(|label| label == first) => Err(DataError::OneClass {
            label: train.classes[*first as usize].clone(),
        }),
        _ => Ok(()),
    }
}

fn labels(images: &ImageSet) -> &[u32] {
    images.labels.as_deref().unwrap_or_default()
}

/// Images with their classes, in a batch.
pub type LabelledImageBatch = Labelled<PixelBatch>;

/// Batches of labelled images.
pub struct LabelledImageBatches {
    split: LabelledImages,
    epochs: Epochs,
    levels: Vec<[f32; 256]>,
    augment: Augment,
    seed: u64,
}

impl LabelledImageBatches {
    /// Batches of a split in the order of `epochs`; how images are changed is a function of (seed, epoch, image).
    pub fn new(
        split: LabelledImages,
        input: &ImageInput,
        epochs: Epochs,
        augment: Augment,
        seed: u64,
    ) -> Self {
        Self {
            split,
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
        let images = &self.split.images;
        Labelled {
            inputs: self.augment.read(images, &rows, &self.levels, self.seed),
            targets: rows.rows.iter().map(class).collect(),
        }
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
        augment: Augment,
    ) -> Splits<LabelledImageBatch> {
        let Self {
            train, valid, test, ..
        } = self;
        let (training, seed) = (&recipe.training, recipe.seed);
        let in_order = |split: LabelledImages| {
            let epochs = Epochs::in_order(split.classes.len(), training.batch_size);
            let batches = LabelledImageBatches::new(split, input, epochs, Augment::NONE, 0);
            Shared::new(batches)
        };
        let lengths = vec![1; train.classes.len()];
        let digest = data::digest(train.classes.len(), |at| {
            [train.images.image(at), &train.classes[at].to_le_bytes()].concat()
        });
        let batching = training.batching();
        let shuffled = Epochs::shuffled(lengths, batching, training.accumulation, seed);
        let train = LabelledImageBatches::new(train, input, shuffled, augment, seed);
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
            augment.read(&images, &rows, &levels, seed)
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
            assert_eq!(augment.check(&images), Ok(()));
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
            augment.check(&numbered(1)).unwrap_err().to_string()
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

    #[test]
    fn splits_hold_every_image_once_and_equal_images_together() {
        let images = numbered(100);
        let splits = ImageSplits::new(ImageSets::whole(images.clone()), 0.2, 0.3, 0).unwrap();
        let ImageSplits { train, valid, test } = &splits;
        let mut all: Vec<u8> = [train, valid, test]
            .iter()
            .flat_map(|set| &set.pixels)
            .copied()
            .collect();
        all.sort_unstable();
        assert_eq!(all, images.pixels);

        let twice = images.select(&[7; 50]);
        let Err(error) = ImageSplits::new(ImageSets::whole(twice), 0.2, 0.3, 0) else {
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
        let splits = ImageSplits::new(ImageSets::whole(images.clone()), 0.2, 0.2, 0)?;
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
        let flat = ImageSet {
            origin: "flat".into(),
            labels: None,
            ..whole.clone()
        };
        let labelled = ImageSplits::new(ImageSets::whole(whole), 0.2, 0.2, 0).unwrap();
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
                let lit = split.images.image(i)[0] > 0;
                assert_eq!(class == 0, lit, "the bar of \"a\" is at 0");
            }
        }
    }

    #[test]
    fn few_labels_are_nested_and_leave_the_other_splits_alone() {
        let images = set(100, &["a", "b"], |i| (i % 2) as u32);
        let (few, more) = (corpus(&images, 8).unwrap(), corpus(&images, 20).unwrap());
        assert_eq!((few.train.classes.len(), more.train.classes.len()), (8, 20));
        assert_eq!(few.train.images.pixels, more.train.images.pixels[..8 * 30]);
        let first = few.train.classes.iter().filter(|&&class| class == 0);
        assert_eq!(first.count(), 4);
        assert_eq!(few.test.images.pixels, more.test.images.pixels);
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
            images,
            classes: vec![0, 1, 2],
        };
        let plain = ImageInput::plain([1, 6, 5]);
        let source =
            LabelledImageBatches::new(split, &plain, Epochs::in_order(3, 2), Augment::NONE, 0);
        assert_eq!(source.batches_per_epoch(), 2);
        let batch = source.batch(1);
        assert_eq!((batch.real(), batch.padded()), (1, 1));
        assert_eq!(batch.targets, [2]);
        // Image 2 is lit at 2, with 255 - 2.
        let row = [0.0, 0.0, 253.0 / 255.0, 0.0, 0.0];
        assert_eq!(batch.inputs.image(0)[..5], row);
    }
}
