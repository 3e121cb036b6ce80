//! Images with a class each. In: splits. Out: batches, mixed where the recipe says so.

use data::DataError;
use data::augment::{self, BatchMix, Mixture};
use model::bundle::ImageInput;
use serde::{Deserialize, Serialize};

use super::{Augment, ImageRows, ImageSplits, Images, PixelBatch, check_targets, view_seed};
use crate::failure::Failure;
use crate::job::labels::labelled_subset;
use crate::job::{Recipe, Shared, Splits};
use crate::objectives::class_loss::largest_shares;
use crate::recipe::Impossible;
use crate::report::sheet::Sheet;
use crate::source::{BatchSource, Counts, Epochs, Rows, Unit};

/// `[data]` of images with a class each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ImagesWithLabels {
    #[serde(flatten)]
    pub images: Images,
    pub label_limit: usize,
}

/// `[augment]` of images with a class each: images are changed, then the batch is mixed. Images that are tested may be seen
/// several times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelledAugment {
    /// How each image is changed.
    #[serde(flatten)]
    pub pictures: Augment,
    /// Ways to mix the images of a batch and their classes, of which each batch takes one.
    pub mix: Vec<BatchMix>,
    /// How often each image of the test split is seen: as it is, then changed; its probabilities are averaged.
    pub test_views: usize,
}

impl LabelledAugment {
    /// Images as they are, for splits that are only looked at.
    pub const NONE: Self = Self {
        pictures: Augment::NONE,
        mix: Vec::new(),
        test_views: 1,
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
        self.check_views()
    }

    fn check_views(&self) -> Result<(), Impossible> {
        const MOST: usize = 64;
        let (views, Augment { shift, steps }) = (self.test_views, &self.pictures);
        let wrong = |reason: &str| {
            let reason = format!("is {views}; {reason}");
            Err(Impossible::new("augment.test_views", reason))
        };
        if !(1..=MOST).contains(&views) {
            return wrong("it must be from 1 to 64");
        }
        if views > 1 && *shift == 0 && steps.steps.is_empty() {
            return wrong("without augment.steps all views of an image are the same");
        }
        Ok(())
    }
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

/// Images with their classes, in a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledImageBatch {
    /// What the model sees.
    pub inputs: PixelBatch,
    /// The same images seen in other ways, whose probabilities are averaged with those of `inputs`.
    pub views: Vec<PixelBatch>,
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
    /// Whether images are seen as they are, and further views of them changed.
    in_views: bool,
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
            in_views: false,
            seed,
        }
    }

    /// The same with images as they are, unmixed, and [`LabelledAugment::test_views`] beside them less one.
    pub fn in_views(self) -> Self {
        Self {
            in_views: true,
            ..self
        }
    }

    fn read(&self, augment: &Augment, rows: &Rows, view: u64) -> PixelBatch {
        let seed = view_seed(self.seed, view);
        augment.read(&self.split.images, rows, &self.levels, seed)
    }

    fn viewed(&self, rows: &Rows, targets: Vec<u32>) -> LabelledImageBatch {
        let further = 1..self.augment.test_views as u64;
        let pictures = &self.augment.pictures;
        LabelledImageBatch {
            inputs: self.read(&Augment::NONE, rows, 0),
            views: further
                .map(|view| self.read(pictures, rows, view))
                .collect(),
            targets,
            shares: None,
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
        let targets = rows.rows.iter().map(class).collect();
        if self.in_views {
            return self.viewed(&rows, targets);
        }
        let LabelledAugment { pictures, mix, .. } = &self.augment;
        let mut batch = LabelledImageBatch {
            inputs: self.read(pictures, &rows, 0),
            views: vec![],
            targets,
            shares: None,
        };
        let images = &self.split.images;
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
        let in_order = |split: LabelledImages, augment: LabelledAugment| {
            let epochs = Epochs::in_order(split.classes.len(), training.batch_size);
            LabelledImageBatches::new(split, n_classes, input, epochs, augment, seed).in_views()
        };
        let valid = in_order(valid, LabelledAugment::NONE);
        let test = (!test.classes.is_empty()).then(|| in_order(test, augment.clone()));
        let lengths = vec![1; train.classes.len()];
        let digest = train
            .images
            .digest_with(|at| train.classes[at].to_le_bytes().into());
        let batching = training.batching();
        let shuffled = Epochs::shuffled(lengths, batching, training.accumulation, seed);
        let train = LabelledImageBatches::new(train, n_classes, input, shuffled, augment, seed);
        Splits {
            train: Shared::new(train),
            valid: Shared::new(valid),
            test: test.map(Shared::new),
            digest,
            unit: Unit::Samples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{pixels, set};
    use super::*;
    use data::ImageSet;
    use data::augment::MixUp;

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

    #[test]
    fn test_images_are_seen_as_they_are_and_then_changed() {
        let images = set(3, &["a", "b", "c"], |i| i as u32);
        let split = LabelledImages {
            images: images.into(),
            classes: vec![0, 1, 2],
        };
        let plain = ImageInput::plain([1, 6, 5]);
        let augment = LabelledAugment {
            pictures: Augment {
                shift: 2,
                ..Augment::NONE
            },
            test_views: 3,
            ..LabelledAugment::NONE
        };
        let source = |augment| {
            LabelledImageBatches::new(split.clone(), 3, &plain, Epochs::in_order(3, 2), augment, 4)
        };
        let once = source(LabelledAugment::NONE);
        assert!(once.batch(0).views.is_empty());
        let seen = source(augment.clone()).in_views();
        for number in 0..2 {
            let (batch, plain) = (seen.batch(number), once.batch(number));
            assert_eq!(batch.inputs, plain.inputs);
            assert_eq!((&batch.targets, batch.views.len()), (&plain.targets, 2));
            assert_eq!(batch, seen.batch(number));
        }
        let LabelledImageBatch { inputs, views, .. } = seen.batch(0);
        assert_ne!(views[0], views[1]);
        assert_ne!(views[0], inputs);
        // Training sees each image once.
        assert!(source(augment).batch(0).views.is_empty());
    }

    #[test]
    fn views_that_are_all_the_same_are_refused() {
        let refusal = |pictures, test_views| {
            let augment = LabelledAugment {
                pictures,
                test_views,
                ..LabelledAugment::NONE
            };
            augment.check_views().map_err(|wrong| wrong.to_string())
        };
        let shift = Augment {
            shift: 1,
            ..Augment::NONE
        };
        assert_eq!(refusal(Augment::NONE, 1), Ok(()));
        assert_eq!(refusal(shift.clone(), 64), Ok(()));
        for (pictures, views) in [(Augment::NONE, 2), (shift.clone(), 0), (shift, 65)] {
            let message = refusal(pictures, views).unwrap_err();
            let start = format!("augment.test_views is {views}");
            assert!(message.starts_with(&start), "{message}");
        }
    }
}
