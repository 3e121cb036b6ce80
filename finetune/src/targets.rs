//! Tasks on images other than one class: what they share. In: images with several labels, values, masks or boxes. Out: batches,
//! and the one job that runs them all.
//!
//! A task is a file beside this one: its sections of the recipe ([`VisionTask`]) and its model with the loss, with a line in
//! [`VisionObjective`]. The engine is compiled once for all of them.

#![allow(
    clippy::large_enum_variant,
    reason = "one objective exists at a time, and derive(Module) makes further enums of each"
)]

use std::path::PathBuf;

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::image::{
    BoxLabel, IGNORED, ImageFileOptions, TargetedImages, TargetedSets, Targets, open_image_files,
    read_targeted,
};
use data::split;
use model::HeadKind;
use model::bundle::ImageInput;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use train::Failure;
use train::job::image::{self, Augment, ImageModel, ImageRows, Images, PixelBatch};
use train::job::{BundleWriter, Exported, Job, Product, Recipe, Shared, Splits, Start, ToSheet};
use train::metrics::{Metric, Metrics};
use train::objective::{LossSums, Objective, SumTally, Tally};
use train::recipe::{self, Impossible};
use train::report::sheet::Sheet;
use train::scores::detection::{self, DetectionTally};
use train::scores::many_labels::ManyLabelsTally;
use train::scores::masks::MaskTally;
use train::scores::values::ValuesTally;
use train::source::{BatchSource, Counts, Epochs, Rows, Unit};

use crate::detection::Boxes;
use crate::segmentation::Masks;
use crate::several_labels::SeveralLabels;
use crate::values::Values;

/// Images with their targets, in a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetBatch {
    /// What the model sees.
    pub images: PixelBatch,
    /// Places in the split.
    pub rows: Vec<u32>,
    /// One an image.
    pub targets: Targets,
}

impl Counts for TargetBatch {
    fn real(&self) -> usize {
        self.images.n
    }

    fn padded(&self) -> usize {
        self.images.n
    }
}

impl TargetBatch {
    /// The images with what is to be learned of each: boxes are drawn, and of masks all classes are tinted but the first.
    fn sheet(&self, input: &ImageInput, classes: &[String]) -> Sheet {
        let mut images = self.images.clone().without_normalizing(input);
        let name = |class: u32| classes.get(class as usize).cloned().unwrap_or_default();
        let captions = (0..images.n).map(|at| match &self.targets {
            Targets::Several(all) => all[at].iter().map(|&class| name(class)).collect(),
            Targets::Values(all) => vec![all[at].to_string()],
            Targets::Masks(all) => {
                tint(&mut images, at, &all[at]);
                let seen = (0..classes.len()).filter(|class| all[at].contains(&(*class as u8)));
                vec![
                    seen.map(|class| name(class as u32))
                        .collect::<Vec<_>>()
                        .join(", "),
                ]
            }
            Targets::Boxes(all) => {
                all[at]
                    .iter()
                    .for_each(|label| outline(&mut images, at, label));
                all[at].iter().map(|label| name(label.class)).collect()
            }
        });
        let captions = captions.collect();
        Sheet { images, captions }
    }
}

/// Draws the edge of a box, white beside black.
fn outline(images: &mut PixelBatch, image: usize, label: &BoxLabel) {
    let (height, width) = (images.height as f32, images.width as f32);
    let last =
        |start: f32, length: f32, most: f32| (start + length - 1.0).clamp(0.0, most - 1.0) as usize;
    let (left, top) = (label.x.max(0.0) as usize, label.y.max(0.0) as usize);
    let (right, bottom) = (
        last(label.x, label.width, width),
        last(label.y, label.height, height),
    );
    for y in top..=bottom {
        for x in left..=right {
            if y == top || y == bottom || x == left || x == right {
                paint(images, image, [y, x], |_, _| f32::from((x + y) % 4 < 2));
            }
        }
    }
}

/// Tints the pixels of all classes but the first, each in its own colour; what belongs to no class becomes grey.
fn tint(images: &mut PixelBatch, image: usize, mask: &[u8]) {
    const COLOURS: [[f32; 3]; 6] = [
        [1.0, 0.2, 0.2],
        [0.2, 0.8, 0.2],
        [0.3, 0.4, 1.0],
        [1.0, 0.8, 0.1],
        [0.9, 0.3, 0.9],
        [0.1, 0.9, 0.9],
    ];
    let width = images.width;
    for (at, &class) in mask.iter().enumerate().filter(|(_, class)| **class > 0) {
        let colour = match class {
            IGNORED => [0.5; 3],
            class => COLOURS[(usize::from(class) - 1) % COLOURS.len()],
        };
        let place = [at / width, at % width];
        paint(images, image, place, |channel, old| {
            0.5 * old + 0.5 * colour[channel]
        });
    }
}

/// Changes all channels of a pixel.
fn paint(
    images: &mut PixelBatch,
    image: usize,
    [y, x]: [usize; 2],
    colour: impl Fn(usize, f32) -> f32,
) {
    let area = images.height * images.width;
    for channel in 0..images.channels {
        let at = (image * images.channels + channel) * area + y * images.width + x;
        images.pixels[at] = colour(channel, images.pixels[at]);
    }
}

/// What a validation collects: of these the one that the task has.
#[derive(Clone, Debug, Default)]
pub struct VisionTally {
    /// The loss.
    pub sums: SumTally,
    /// Of boxes.
    pub boxes: DetectionTally,
    /// Of masks.
    pub masks: MaskTally,
    /// Of several labels.
    pub labels: ManyLabelsTally,
    /// Of values.
    pub values: ValuesTally,
    kind: Option<Kind>,
}

/// What a validation is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Boxes.
    Boxes,
    /// Masks.
    Masks,
    /// Several labels an image.
    Labels,
    /// Values.
    Values,
}

impl VisionTally {
    /// Nothing but the sums of a batch.
    pub fn read<B: Backend>(sums: LossSums<B>, names: &'static [&'static str], kind: Kind) -> Self {
        Self {
            sums: SumTally::read(sums, names),
            kind: Some(kind),
            ..Self::default()
        }
    }
}

impl Tally for VisionTally {
    fn merge(&mut self, other: Self) {
        self.sums.merge(other.sums);
        self.boxes.merge(other.boxes);
        self.masks.merge(other.masks);
        self.labels.merge(other.labels);
        self.values.merge(other.values);
        self.kind = self.kind.or(other.kind);
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.sums.metrics();
        metrics.extend(match self.kind {
            Some(Kind::Boxes) => {
                // Those by size, and of fewer boxes, are many.
                let mut all = self.boxes.metrics();
                let shown = detection::METRICS;
                all.retain(|name, _| shown.iter().any(|metric| metric.name == name));
                all
            }
            Some(Kind::Masks) => self.masks.metrics(),
            Some(Kind::Labels) => self.labels.metrics(),
            Some(Kind::Values) => self.values.metrics(),
            None => Metrics::new(),
        });
        metrics
    }

    fn details(&self) -> Option<Value> {
        match self.kind? {
            Kind::Boxes => self.boxes.details(),
            Kind::Masks => self.masks.details(),
            Kind::Labels => self.labels.details(),
            Kind::Values => self.values.details(),
        }
    }

    fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }
}

macro_rules! vision_tasks {
    ($($Variant:ident($Task:ident)),+ $(,)?) => {
        /// Any of these tasks.
        #[derive(Module, Debug)]
        #[allow(missing_docs)] // Each is described in its file.
        pub enum VisionObjective<B: Backend> {
            $($Variant($Task<B>),)+
        }

        impl<B: Backend> Objective<B> for VisionObjective<B> {
            type Batch = TargetBatch;
            type Tally = VisionTally;
            const MEANS: &'static [&'static str] = &[];
            const METRICS: &'static [Metric] = &[Metric::LOSS];

            fn means(&self) -> &'static [&'static str] {
                match self { $(Self::$Variant(_) => <$Task<B> as Objective<B>>::MEANS,)+ }
            }

            fn metrics(&self) -> &'static [Metric] {
                match self { $(Self::$Variant(_) => <$Task<B> as Objective<B>>::METRICS,)+ }
            }

            fn loss(&self, batch: &TargetBatch, device: &B::Device) -> LossSums<B> {
                match self { $(Self::$Variant(one) => one.loss(batch, device),)+ }
            }

            fn evaluate(&self, batch: &TargetBatch, device: &B::Device) -> VisionTally {
                match self { $(Self::$Variant(one) => one.evaluate(batch, device),)+ }
            }
        }

        impl<B: Backend> Exported<B> for VisionObjective<B> {
            fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
                match self { $(Self::$Variant(one) => writer.write(&one.model),)+ }
            }
        }

        $(impl<B: Backend> From<$Task<B>> for VisionObjective<B> {
            fn from(one: $Task<B>) -> Self {
                Self::$Variant(one)
            }
        })+
    };
}

vision_tasks! {
    Boxes(Boxes),
    Masks(Masks),
    SeveralLabels(SeveralLabels),
    Values(Values),
}

/// A task on images as the command line knows it. Its fields are its own sections of the recipe.
pub trait VisionTask: Clone + Serialize + DeserializeOwned + 'static {
    /// As `RECIPE` names it.
    const NAME: &'static str;
    /// One line for `--list`.
    const ABOUT: &'static str;
    /// Its file in `assets/recipes/`.
    const RECIPE: &'static str;
    /// What the bundle's model has on its backbone.
    const HEAD: HeadKind;
    /// What data it needs, for messages: "masks".
    const NEEDS: &'static str;
    /// Whether targets are places in the image, which have to move with it.
    const PLACED: bool;

    /// Says what is impossible about these values, if anything is.
    fn check(&self) -> Result<(), Impossible>;

    /// Whether these are targets of its kind.
    fn takes(targets: &Targets) -> bool;

    /// Names of the outputs.
    fn classes(&self, train: &TargetedImages) -> Vec<String> {
        train.images.classes.clone()
    }

    /// Further keys of the bundle's `config.json`.
    fn head_config(&self) -> Value {
        Value::Null
    }

    /// Draws the model, and loads what it starts from.
    ///
    /// - train: what it is to learn
    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        classes: &[String],
        train: &TargetedImages,
        start: &Start,
        device: &B::Device,
    ) -> Result<VisionObjective<B>, Failure>;
}

/// Any task of these, as a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OnImages<T> {
    /// Which images, and how they are split.
    pub data: Images,
    /// How training images are changed.
    pub augment: Augment,
    /// The task's own sections.
    #[serde(flatten)]
    pub task: T,
}

/// Split images, and the model for them.
pub struct TargetData {
    train: TargetedImages,
    valid: TargetedImages,
    test: TargetedImages,
    classes: Vec<String>,
    model: ImageModel,
}

impl<T: VisionTask> Job for OnImages<T> {
    const NAME: &'static str = T::NAME;
    const ABOUT: &'static str = T::ABOUT;
    const KEY: &'static str = "task";
    const RECIPE: &'static str = T::RECIPE;
    const HAS_IMAGES: bool = true;
    type Source = TargetedSets;
    type Data = TargetData;
    type Batch = TargetBatch;
    type Objective<B: AutodiffBackend> = VisionObjective<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.task.check()?;
        if T::PLACED {
            let wrong =
                |reason| Impossible::new("augment.steps", format!("are impossible: {reason}"));
            self.augment.steps.check_placement().map_err(wrong)?;
            if self.augment.shift > 0 {
                let reason = "moves images and not what is to be learned of them; a step of kind \"shift\" moves both";
                return Err(Impossible::new("augment.shift", reason));
            }
        }
        self.data.check(recipe)
    }

    fn source(&self, start: &Start) -> Result<TargetedSets, Failure> {
        let of_bundle = start.image_input()?;
        let options = ImageFileOptions {
            channels: of_bundle.as_ref().map(|input| input.shape[0]),
            bad_rows: self.data.bad_rows,
            ground: self.data.ground.ground(),
            ..ImageFileOptions::default()
        };
        let size = match self.data.size {
            0 => None,
            size => Some([size; 2]),
        };
        let open = |paths: &[String]| -> Result<TargetedSets, Failure> {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            let sets = open_image_files(&paths, &options)?;
            Ok(read_targeted(&sets, size, self.data.bad_rows)?)
        };
        if self.data.source.is_empty() {
            let reason = format!("is empty; name images with {}", T::NEEDS);
            return Err(Impossible::new("data.source", reason).into());
        }
        let mut sets = open(&self.data.source)?;
        let given = [
            (&self.data.valid_source, &mut sets.valid),
            (&self.data.test_source, &mut sets.test),
        ];
        for (named, split) in given {
            if !named.is_empty() {
                let other = open(named)?;
                sets.lines.extend(other.lines);
                *split = Some(other.train);
            }
        }
        Ok(sets)
    }

    fn data(&self, _: &Recipe, start: &Start, sets: TargetedSets) -> Result<TargetData, Failure> {
        for line in &sets.lines {
            start.console.note(line);
        }
        let given = [Some(&sets.train), sets.valid.as_ref(), sets.test.as_ref()];
        for set in given.into_iter().flatten() {
            if !T::takes(&set.targets) {
                return Err(Failure::input(format!(
                    "{}: the images have no {}",
                    set.images.origin,
                    T::NEEDS
                )));
            }
        }
        let classes = self.task.classes(&sets.train);
        let [train, valid, test] = self.split(sets, &classes)?;
        let images = &train.images;
        let shape = [images.channels, images.height, images.width];
        let config = start.image_config(shape, T::HEAD)?;
        if T::PLACED && config.describe().levels.is_empty() {
            let family = config.family().model_type;
            let reason = format!("is \"{family}\", which gives no maps");
            return Err(Impossible::new("model.family", reason).into());
        }
        let rows = ImageRows::from(images.clone());
        self.augment.check(&rows)?;
        start.console.note(&format!(
            "images: {} train, {} valid, {} test",
            train.len(),
            valid.len(),
            test.len()
        ));
        let input = self.data.input(&config, &rows, start)?;
        Ok(TargetData {
            train,
            valid,
            test,
            classes,
            model: ImageModel { config, input },
        })
    }

    fn product(&self, data: &TargetData) -> Result<Product, Failure> {
        let mut product = image::product(&data.model, T::HEAD, Some(&data.classes));
        let further = self.task.head_config();
        if let (Some(config), Some(further)) = (product.config.as_object_mut(), further.as_object())
        {
            config.extend(further.clone());
        }
        Ok(product)
    }

    fn sheet(&self, data: &TargetData) -> Option<ToSheet<TargetBatch>> {
        let (input, classes) = (data.model.input.clone(), data.classes.clone());
        Some(Box::new(move |batch| batch.sheet(&input, &classes)))
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &TargetData,
        start: &Start,
        device: &B::Device,
    ) -> Result<VisionObjective<B>, Failure> {
        self.task
            .objective(&data.model, &data.classes, &data.train, start, device)
    }

    fn batches(&self, recipe: &Recipe, data: TargetData) -> Result<Splits<TargetBatch>, Failure> {
        let TargetData {
            train,
            valid,
            test,
            model,
            ..
        } = data;
        let (training, seed) = (&recipe.training, recipe.seed);
        let levels = model.input.levels();
        let digest = data::digest(train.len(), |at| {
            [train.images.image(at), &train.targets.bytes(at)].concat()
        });
        let in_order = |images: TargetedImages| {
            let epochs = Epochs::in_order(images.len(), training.batch_size);
            Shared::new(TargetBatches {
                images: images.images.into(),
                targets: images.targets,
                epochs,
                levels: levels.clone(),
                augment: Augment::NONE,
                placed: T::PLACED,
                seed: 0,
            })
        };
        let (valid, test) = (in_order(valid), (!test.is_empty()).then(|| in_order(test)));
        let lengths = vec![1; train.len()];
        let epochs = Epochs::shuffled(lengths, training.batching(), training.accumulation, seed);
        let train = TargetBatches {
            images: train.images.into(),
            targets: train.targets,
            epochs,
            levels: levels.clone(),
            augment: self.augment.clone(),
            placed: T::PLACED,
            seed,
        };
        Ok(Splits {
            train: Shared::new(train),
            valid,
            test,
            digest,
            unit: Unit::Samples,
        })
    }
}

impl<T: VisionTask> OnImages<T> {
    /// Splits that are not given are cut by content: equal images are never in two of them.
    fn split(
        &self,
        sets: TargetedSets,
        classes: &[String],
    ) -> Result<[TargetedImages; 3], Failure> {
        let Images {
            valid,
            test,
            split_seed,
            valid_limit,
            ..
        } = self.data;
        recipe::check_shares(valid, test)?;
        let TargetedSets {
            train,
            valid: given_valid,
            test: given_test,
            ..
        } = sets;
        let share =
            |given: &Option<TargetedImages>, share| if given.is_some() { 0.0 } else { share };
        let keys = (0..train.len()).map(|i| train.images.image(i));
        let shares = (share(&given_valid, valid), share(&given_test, test));
        let cut = split::split_by_content(keys, shares.0, shares.1, split_seed);
        let set = |given: Option<TargetedImages>, rows: &[usize]| match given {
            Some(given) => like(&train, given, classes),
            None => Ok(train.select(rows)),
        };
        let mut splits = [
            train.select(&cut.train),
            set(given_valid, &cut.valid)?,
            set(given_test, &cut.test)?,
        ];
        if splits[0].is_empty() || splits[1].is_empty() {
            return Err(Failure::input(format!(
                "{}: {} images leave {} to train and {} to validate on (data.valid is {valid}, data.test is {test})",
                train.images.origin,
                train.len(),
                splits[0].len(),
                splits[1].len()
            )));
        }
        let rows = splits[1].len();
        if valid_limit > 0 && rows > valid_limit {
            let order = data::order::shuffled(rows, split_seed, 0);
            let rows: Vec<_> = order[..valid_limit]
                .iter()
                .map(|&row| row as usize)
                .collect();
            splits[1] = splits[1].select(&rows);
        }
        Ok(splits)
    }
}

/// A given split whose images are of the shape of the others and whose classes have the same numbers.
fn like(
    train: &TargetedImages,
    mut given: TargetedImages,
    classes: &[String],
) -> Result<TargetedImages, Failure> {
    let shape = |set: &TargetedImages| {
        let images = &set.images;
        [images.channels, images.height, images.width]
    };
    if shape(train) != shape(&given) {
        let ([c, h, w], [channels, height, width]) = (shape(train), shape(&given));
        return Err(Failure::input(format!(
            "{}: images of {channels} channels and {height}x{width} pixels, and {} has {c} channels and {h}x{w}",
            given.images.origin, train.images.origin
        )));
    }
    let own = given.images.classes.clone();
    if own.is_empty() || own == train.images.classes {
        return Ok(given);
    }
    let number = |class: &mut u32| {
        let name = &own[*class as usize];
        let found = classes.iter().position(|class| class == name);
        let found = found.ok_or_else(|| {
            Failure::input(format!(
                "{}: class \"{name}\" does not occur in {}",
                given.images.origin, train.images.origin
            ))
        })?;
        *class = found as u32;
        Ok::<(), Failure>(())
    };
    match &mut given.targets {
        Targets::Several(all) => all.iter_mut().flatten().try_for_each(number)?,
        Targets::Boxes(all) => {
            let mut labels = all.iter_mut().flatten();
            labels.try_for_each(|label: &mut BoxLabel| number(&mut label.class))?;
        }
        Targets::Values(_) | Targets::Masks(_) => {}
    }
    given.images.classes = classes.to_vec();
    Ok(given)
}

/// Batches of one split.
struct TargetBatches {
    images: ImageRows,
    targets: Targets,
    epochs: Epochs,
    levels: Vec<[f32; 256]>,
    augment: Augment,
    placed: bool,
    seed: u64,
}

impl TargetBatches {
    fn targets(&self, rows: &[u32]) -> Targets {
        fn of<T: Clone>(all: &[T], rows: &[u32]) -> Vec<T> {
            rows.iter().map(|&row| all[row as usize].clone()).collect()
        }
        match &self.targets {
            Targets::Several(all) => Targets::Several(of(all, rows)),
            Targets::Values(all) => Targets::Values(of(all, rows)),
            Targets::Masks(all) => Targets::Masks(of(all, rows)),
            Targets::Boxes(all) => Targets::Boxes(of(all, rows)),
        }
    }

    /// Rows whose targets move with the images.
    fn placed(&self, Rows { rows, samples }: &Rows) -> (PixelBatch, Targets) {
        let [channels, height, width] = self.images.shape();
        let size = [height, width];
        let len = channels * height * width;
        let mut pixels = vec![0.0; rows.len() * len];
        let mut targets = self.targets(rows);
        for (at, (pixels, (&row, &sample))) in pixels
            .chunks_exact_mut(len)
            .zip(rows.iter().zip(samples))
            .enumerate()
        {
            let picture = self.images.picture(row as usize);
            let steps = &self.augment.steps;
            let (picture, placement) = steps.apply_with_placement(picture, self.seed, sample);
            picture.write_planes(pixels, |channel, value| {
                self.levels[channel][usize::from(value)]
            });
            match &mut targets {
                Targets::Masks(all) => all[at] = placement.mask(&all[at], size, size),
                Targets::Boxes(all) => {
                    let seen = all[at]
                        .iter()
                        .filter_map(|label| placement.label(label, size));
                    all[at] = seen.collect();
                }
                Targets::Several(_) | Targets::Values(_) => {}
            }
        }
        let images = PixelBatch {
            pixels,
            n: rows.len(),
            channels,
            height,
            width,
        };
        (images, targets)
    }
}

impl BatchSource for TargetBatches {
    type Batch = TargetBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> TargetBatch {
        let rows = self.epochs.batch(number);
        let (images, targets) = if self.placed && !self.augment.steps.steps.is_empty() {
            self.placed(&rows)
        } else {
            let images = &self.images;
            let images = self.augment.read(images, &rows, &self.levels, self.seed);
            (images, self.targets(&rows.rows))
        };
        TargetBatch {
            images,
            rows: rows.rows,
            targets,
        }
    }
}
