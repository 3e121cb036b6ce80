//! Image classification. In: labelled images and an autoencoder's bundle. Out: a bundle of its encoder with a head.
//!
//! The encoder keeps its weights, the head is drawn anew.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::{DataError, ImageSet, source};
use model::bundle::{self, Architecture, Bundle, Load};
use model::{AutoencoderConfig, ImageClassifier};
use serde::{Deserialize, Serialize};
use train::backend::train_on;
use train::classification::{self, ClassTally};
use train::cli::Entry;
use train::image::{Augment, ImageSplits, PixelBatch, check_model, preprocessor_json, square};
use train::loss::{ClassLoss, ClassLossRecipe};
use train::recipe::{
    self, BundleRecipe, Draft, GuardRecipe, Impossible, OptimizerRecipe, ScheduleRecipe,
    TrainingRecipe,
};
use train::session::{Options, Session, Status};
use train::source::{BatchSource, Counts, Epochs, Rows, Unit};
use train::{Failure, LossSums, Metric, Objective, WithBackend};

use crate::few::few;
use crate::strategy::{self, StrategyRecipe};

/// Prefix of the backbone's parameters.
const BACKBONE: &str = "encoder.";

/// Image classification, as the command line knows it.
pub const ENTRY: Entry = Entry {
    name: "image-classification",
    about: "classes of images with an autoencoder's encoder",
    recipe: include_str!("../../assets/recipes/image-classification.toml"),
    run,
};

/// A recipe; `assets/recipes/image-classification.toml` explains every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The recipe file is their one home.
pub struct ImageClassificationRecipe {
    pub task: String,
    pub seed: u64,
    pub from: String,
    pub data: LabelledImageData,
    pub augment: Augment,
    pub model: SizesRecipe,
    pub strategy: StrategyRecipe,
    pub loss: ClassLossRecipe,
    pub optimizer: OptimizerRecipe,
    pub schedule: ScheduleRecipe,
    pub training: TrainingRecipe,
    pub guard: GuardRecipe,
    pub bundle: BundleRecipe,
}

/// `[data]`: which images, and how they are split.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LabelledImageData {
    pub source: Vec<String>,
    pub size: usize,
    pub labels: usize,
    pub valid: f64,
    pub test: f64,
    pub split_seed: u64,
}

/// `[model]`: sizes of an encoder without pretraining.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SizesRecipe {
    pub channels: Vec<usize>,
    pub latent_size: usize,
}

impl ImageClassificationRecipe {
    /// The recipe in `assets/recipes/image-classification.toml`.
    pub fn built_in() -> Result<Self, Failure> {
        let built_in = [(ENTRY.name, ENTRY.recipe)];
        Ok(Draft::open(ENTRY.name, "task", &built_in)?.finish()?)
    }

    /// Sizes of the encoder: the bundle's, or those of `[model]` for these images.
    ///
    /// # Errors
    ///
    /// A bundle of something else, or for images of another shape.
    pub fn config(
        &self,
        bundle: Option<&Bundle>,
        images: &ImageSet,
    ) -> Result<AutoencoderConfig, Failure> {
        let Some(bundle) = bundle else {
            let config = AutoencoderConfig {
                image_channels: images.channels,
                image_height: images.height,
                image_width: images.width,
                channels: self.model.channels.clone(),
                latent_size: self.model.latent_size,
            };
            let wrong = |reason| Impossible::new("model", format!("is impossible: {reason}"));
            config.check().map_err(wrong)?;
            check_model(&config).map_err(wrong)?;
            return Ok(config);
        };
        bundle.require(&[
            Architecture::ConvAutoencoder,
            Architecture::ConvImageClassifier,
        ])?;
        let config: AutoencoderConfig = bundle.config()?;
        let place = bundle.path().display();
        let wrong = |reason| Failure::input(format!("{place}: {reason}"));
        config.check().map_err(wrong)?;
        check_model(&config).map_err(wrong)?;
        check_shape(&config, images).map_err(wrong)?;
        Ok(config)
    }
}

/// Refuses images that the encoder can't take, and says what to do about it.
fn check_shape(config: &AutoencoderConfig, images: &ImageSet) -> Result<(), String> {
    let (channels, height, width) = (
        config.image_channels,
        config.image_height,
        config.image_width,
    );
    if (channels, height, width) == (images.channels, images.height, images.width) {
        return Ok(());
    }
    let colours = |channels| if channels == 1 { "grey" } else { "RGB" };
    let advice = match (channels == images.channels, height == width) {
        (true, true) => format!("data.size = {height} resizes them"),
        (true, false) => "data.size resizes to squares only, so the files have to change".into(),
        (false, _) => "data.size changes no colours, so the files or the bundle have to".into(),
    };
    Err(format!(
        "takes {} images of {height}x{width} (height x width), and the data holds {} images of {}x{}; {advice}",
        colours(channels),
        colours(images.channels),
        images.height,
        images.width
    ))
}

/// An image classifier with its loss.
#[derive(Module, Debug)]
pub struct ImageClassification<B: Backend> {
    /// The model.
    pub model: ImageClassifier<B>,
    loss: ClassLoss,
}

impl<B: Backend> ImageClassification<B> {
    /// A model that learns by this loss.
    pub fn new(model: ImageClassifier<B>, loss: ClassLoss) -> Self {
        Self { model, loss }
    }
}

/// Images with their classes.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledImageBatch {
    /// What the model sees.
    pub inputs: PixelBatch,
    /// A class an image.
    pub targets: Vec<u32>,
}

impl Counts for LabelledImageBatch {
    fn real(&self) -> usize {
        self.targets.len()
    }

    fn padded(&self) -> usize {
        self.targets.len()
    }
}

impl<B: Backend> Objective<B> for ImageClassification<B> {
    type Batch = LabelledImageBatch;
    type Tally = ClassTally;
    const MEANS: &'static [&'static str] = &["accuracy"];
    const METRICS: &'static [Metric] = classification::METRICS;

    fn loss(&self, batch: &LabelledImageBatch, device: &B::Device) -> LossSums<B> {
        let logits = self.model.forward(batch.inputs.tensor(device));
        self.loss.sums(logits, &batch.targets)
    }

    fn evaluate(&self, batch: &LabelledImageBatch, device: &B::Device) -> ClassTally {
        let logits = self.model.forward(batch.inputs.tensor(device));
        ClassTally::read(logits, &batch.targets)
    }
}

/// Batches of labelled images.
pub struct LabelledImages {
    split: LabelledSplit,
    epochs: Epochs,
    augment: Augment,
    seed: u64,
}

impl LabelledImages {
    /// Batches of a split in the order of `epochs`, the images as they are.
    pub fn new(split: LabelledSplit, epochs: Epochs) -> Self {
        Self {
            split,
            epochs,
            augment: Augment::NONE,
            seed: 0,
        }
    }

    /// The same batches with changed images; how they change is a function of (seed, epoch, image).
    pub fn augmented(self, augment: Augment, seed: u64) -> Self {
        Self {
            augment,
            seed,
            ..self
        }
    }
}

impl BatchSource for LabelledImages {
    type Batch = LabelledImageBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> LabelledImageBatch {
        let Rows { rows, samples } = self.epochs.batch(number);
        let class = |&row: &u32| self.split.classes[row as usize];
        let mut inputs = PixelBatch::of(&self.split.images, &rows);
        self.augment.apply(&mut inputs, self.seed, &samples);
        LabelledImageBatch {
            inputs,
            targets: rows.iter().map(class).collect(),
        }
    }
}

/// Images and the class of each, an index into [`LabelledCorpus::classes`].
pub struct LabelledSplit {
    /// The images.
    pub images: ImageSet,
    /// One an image.
    pub classes: Vec<u32>,
}

/// Splits of a labelled set.
pub struct LabelledCorpus {
    /// Class names, in the order of the logits.
    pub classes: Vec<String>,
    /// To train on.
    pub train: LabelledSplit,
    /// To choose the best step by.
    pub valid: LabelledSplit,
    /// To report; may be empty.
    pub test: LabelledSplit,
}

impl LabelledCorpus {
    /// Splits images and learns the classes from the training split.
    ///
    /// # Errors
    ///
    /// No labels, fewer than two classes to train on, or a class that only stands outside the training split.
    pub fn new(images: &ImageSet, data: &LabelledImageData) -> Result<Self, Failure> {
        if images.labels.is_none() {
            return Err(Failure::input(format!(
                "{}: the images have no labels: a folder needs one folder a class, an IDX file its labels beside it",
                images.origin
            )));
        }
        let splits = ImageSplits::new(images, data.valid, data.test, data.split_seed)?;
        let mut ids = vec![None; images.classes.len()];
        let mut classes = Vec::new();
        for (label, name) in images.classes.iter().enumerate() {
            if labels(&splits.train).contains(&(label as u32)) {
                ids[label] = Some(classes.len() as u32);
                classes.push(name.clone());
            }
        }
        let wrong = |error| Failure::input(format!("{}: {error}", images.origin));
        check_classes(&splits.train).map_err(wrong)?;
        let few = few(labels(&splits.train), data.labels, data.split_seed)?;
        let train = splits.train.select(&few);
        Ok(Self {
            train: LabelledSplit::new(train, "training", &ids)?,
            valid: LabelledSplit::new(splits.valid, "validation", &ids)?,
            test: LabelledSplit::new(splits.test, "test", &ids)?,
            classes,
        })
    }
}

impl LabelledSplit {
    /// - ids: the class of each label, where training saw it
    fn new(images: ImageSet, name: &str, ids: &[Option<u32>]) -> Result<Self, Failure> {
        let class = |&label: &u32| {
            ids[label as usize].ok_or_else(|| {
                Failure::input(format!(
                    "class \"{}\" stands in the {name} split and not in the training split; \
                     it needs more images, or another data.split_seed",
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

fn run(draft: Draft, options: Options) -> Result<Status, Failure> {
    let recipe: ImageClassificationRecipe = draft.finish()?;
    recipe.training.check_images()?;
    strategy::groups(&recipe.strategy, BACKBONE)?;
    recipe.loss.check()?;
    let bundle = strategy::open(&recipe.from)?;
    let images = source::images(&recipe.data.source, square(recipe.data.size))?;
    let config = recipe.config(bundle.as_ref(), &images)?;
    recipe.augment.check(&images)?;
    let corpus = LabelledCorpus::new(&images, &recipe.data)?;
    let run = Run {
        recipe,
        bundle,
        config,
        corpus,
        options,
    };
    let checkpointing = run.recipe.training.gradient_checkpointing;
    train_on(run.options.backend, checkpointing, run)?
}

/// A prepared run, waiting for its backend.
struct Run {
    recipe: ImageClassificationRecipe,
    bundle: Option<Bundle>,
    config: AutoencoderConfig,
    corpus: LabelledCorpus,
    options: Options,
}

impl WithBackend for Run {
    type Output = Result<Status, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let Self {
            recipe,
            bundle,
            config,
            corpus,
            options,
        } = self;
        let LabelledCorpus {
            classes,
            train,
            valid,
            test,
        } = corpus;
        B::seed(&device, recipe.seed);
        let mut model = ImageClassifier::<B>::new(&config, classes.len(), &device);
        strategy::check_names(&recipe.strategy, &model)?;
        model = model::init::materialise(model);
        if let Some(bundle) = &bundle {
            let backbone = Load::Backbone {
                prefix: BACKBONE,
                optional: "",
            };
            model = bundle.load(model, backbone)?;
        }
        let batch_size = recipe.training.batch_size;
        let in_order = |split: LabelledSplit| {
            let epochs = Epochs::in_order(split.classes.len(), batch_size);
            Arc::new(LabelledImages::new(split, epochs))
        };
        let lengths = vec![1; train.classes.len()];
        let digest = data::digest(train.classes.len(), |at| {
            [train.images.image(at), &train.classes[at].to_le_bytes()].concat()
        });
        let (batching, accumulation) = (recipe.training.batching(), recipe.training.accumulation);
        let shuffled = Epochs::shuffled(lengths, batching, accumulation, recipe.seed);
        let (precision, preprocessor) = (recipe.bundle.precision, preprocessor_json(&config));
        let targets = train.classes.iter().copied();
        let loss = recipe.loss.over(classes.len(), targets);
        Session {
            name: ENTRY.name.into(),
            recipe: recipe::to_toml(&recipe)?,
            seed: recipe.seed,
            training: recipe.training.clone(),
            optimizer: recipe.optimizer.clone(),
            schedule: recipe.schedule.clone(),
            guard: recipe.guard,
            data: digest,
            groups: strategy::groups(&recipe.strategy, BACKBONE)?,
            objective: ImageClassification::new(model, loss),
            device,
            train: Arc::new(
                LabelledImages::new(train, shuffled).augmented(recipe.augment, recipe.seed),
            ),
            valid: in_order(valid),
            test: (!test.classes.is_empty()).then(|| in_order(test)),
            unit: Unit::Samples,
            export: Box::new(move |task: &ImageClassification<B::InnerBackend>, path| {
                let kind = Architecture::ConvImageClassifier;
                let config = bundle::config_json(kind, &config, Some(&classes));
                let files = [(bundle::PREPROCESSOR, preprocessor.as_bytes())];
                Ok(bundle::write(
                    path,
                    &config,
                    &task.model,
                    precision,
                    &files,
                )?)
            }),
            after_validation: None,
            options,
        }
        .launch()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::optim::{GradientsParams, Optimizer as _};
    use train::optim::optimizer::Optimizer;

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

    fn data(labels: usize) -> LabelledImageData {
        LabelledImageData {
            labels,
            valid: 0.2,
            test: 0.2,
            ..ImageClassificationRecipe::built_in().unwrap().data
        }
    }

    fn refusal(images: &ImageSet, labels: usize) -> String {
        match LabelledCorpus::new(images, &data(labels)) {
            Ok(_) => panic!("the images should be refused"),
            Err(failure) => {
                assert_eq!(failure.exit_code(), 2);
                failure.to_string()
            }
        }
    }

    #[test]
    fn the_built_in_recipe_is_possible() {
        let recipe = ImageClassificationRecipe::built_in().unwrap();
        assert_eq!(recipe.task, ENTRY.name);
        let config = recipe.config(None, &data::mnist()).unwrap();
        assert_eq!((config.image_channels, config.image_height), (1, 28));
        strategy::groups(&recipe.strategy, BACKBONE).unwrap();
    }

    #[test]
    fn classes_are_those_of_the_training_split() {
        // "b" never occurs: the logits have no place for it, and "c" moves up.
        let images = set(60, &["a", "b", "c"], |i| if i % 2 == 0 { 0 } else { 2 });
        let corpus = LabelledCorpus::new(&images, &data(0)).unwrap();
        assert_eq!(corpus.classes, ["a", "c"]);
        for split in [&corpus.train, &corpus.valid, &corpus.test] {
            assert!(!split.classes.is_empty());
            for (i, &class) in split.classes.iter().enumerate() {
                let lit = split.images.image(i)[0] > 0;
                assert_eq!(class == 0, lit, "the bar of \"a\" stands at 0");
            }
        }
    }

    #[test]
    fn few_labels_are_nested_and_leave_the_other_splits_alone() {
        let images = set(100, &["a", "b"], |i| (i % 2) as u32);
        let few = LabelledCorpus::new(&images, &data(8)).unwrap();
        let more = LabelledCorpus::new(&images, &data(20)).unwrap();
        assert_eq!((few.train.classes.len(), more.train.classes.len()), (8, 20));
        assert_eq!(few.train.images.pixels, more.train.images.pixels[..8 * 30]);
        assert_eq!(
            few.train
                .classes
                .iter()
                .filter(|&&class| class == 0)
                .count(),
            4
        );
        assert_eq!(few.test.images.pixels, more.test.images.pixels);
    }

    #[test]
    fn sets_that_teach_nothing_are_refused() {
        let one = set(60, &["a"], |_| 0);
        assert!(refusal(&one, 0).contains("only one class (\"a\")"));
        let two = set(60, &["a", "b"], |i| (i % 2) as u32);
        assert!(refusal(&two, 1).contains("leaves one class"));
        let unlabelled = ImageSet {
            labels: None,
            ..two
        };
        assert!(refusal(&unlabelled, 0).contains("have no labels"));
    }

    #[test]
    fn a_class_outside_the_training_split_is_named() {
        let all = set(60, &["a", "b", "rare"], |i| (i % 2) as u32);
        let data = data(0);
        let splits = ImageSplits::new(&all, data.valid, data.test, data.split_seed).unwrap();
        let validates = splits.valid.image(0).to_vec();
        let row = (0..60).find(|&i| all.image(i) == validates).unwrap();
        let mut labels = all.labels.clone().unwrap();
        labels[row] = 2;
        let images = ImageSet {
            labels: Some(labels),
            ..all
        };
        let message = refusal(&images, 0);
        assert!(
            message.starts_with("class \"rare\" stands in the validation split"),
            "{message}"
        );
    }

    #[test]
    fn images_of_another_shape_are_refused_with_advice() {
        let config = |image_channels, image_height, image_width| AutoencoderConfig {
            image_channels,
            image_height,
            image_width,
            channels: vec![2],
            latent_size: 2,
        };
        let images = set(1, &["a"], |_| 0);
        assert_eq!(check_shape(&config(1, 6, 5), &images), Ok(()));
        assert_eq!(
            check_shape(&config(1, 28, 28), &images).unwrap_err(),
            "takes grey images of 28x28 (height x width), and the data holds grey images of 6x5; \
             data.size = 28 resizes them"
        );
        let colours = check_shape(&config(3, 6, 5), &images).unwrap_err();
        assert!(colours.contains("takes RGB images of 6x5"), "{colours}");
        assert!(
            check_shape(&config(1, 30, 21), &images)
                .unwrap_err()
                .contains("squares only")
        );
    }

    #[test]
    fn batches_hold_images_beside_their_classes() {
        let images = set(3, &["a", "b", "c"], |i| i as u32);
        let split = LabelledSplit {
            images,
            classes: vec![0, 1, 2],
        };
        let source = LabelledImages::new(split, Epochs::in_order(3, 2));
        assert_eq!(source.batches_per_epoch(), 2);
        let batch = source.batch(1);
        assert_eq!((batch.real(), batch.padded()), (1, 1));
        assert_eq!(batch.targets, [2]);
        // Image 2 is lit at 2, with 255 - 2.
        assert_eq!(
            batch.inputs.image(0)[..5],
            [0.0, 0.0, 253.0 / 255.0, 0.0, 0.0]
        );
    }

    #[test]
    fn one_batch_can_be_overfitted() {
        type B = Autodiff<Flex>;
        let device = Default::default();
        B::seed(&device, 1);
        let recipe = ImageClassificationRecipe::built_in().unwrap();
        let images = set(8, &["a", "b", "c", "d"], |i| (i % 4) as u32);
        let config = recipe.config(None, &images).unwrap();
        let batch = LabelledImageBatch {
            inputs: PixelBatch::of(&images, &[0, 1, 2, 3, 4, 5, 6, 7]),
            targets: vec![0, 1, 2, 3, 0, 1, 2, 3],
        };
        let model = ImageClassifier::<B>::new(&config, 4, &device);
        let mut task = ImageClassification::new(model, ClassLoss::default());
        let groups = recipe.optimizer.groups(&[], &task).unwrap();
        let mut optimizer = Optimizer::<B>::new(recipe.optimizer, groups);
        let mut loss = f32::NAN;
        for step in 0..60 {
            let sums = task.loss(&batch, &device);
            loss = sums.loss.clone().into_scalar() / sums.targets as f32;
            optimizer.prepare(step, sums.weight);
            let gradients = GradientsParams::from_grads(sums.loss.backward(), &task);
            task = optimizer.step(1e-2, task, gradients);
        }
        assert!(loss < 0.01, "{loss}");
    }
}
