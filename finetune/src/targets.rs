//! Tasks on images other than one class: what they share. In: images with several labels, values, masks or boxes. Out: batches,
//! and the one job that runs them all.
//!
//! A task is a file beside this one: its sections of the recipe ([`VisionTask`]) and its model with the loss, with a line in
//! [`VisionObjective`]. The engine is compiled once for all of them.

#![allow(
    clippy::large_enum_variant,
    reason = "one objective exists at a time, and derive(Module) makes further enums of each"
)]

use std::panic::panic_any;

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::augment::Placement;
use data::image::{BoxLabel, ImageTargets, TargetKind, read_mask};
use model::HeadKind;
use model::bundle::ImageInput;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use train::Failure;
use train::failure::Unreadable;
use train::job::image::{
    self, Augment, ImageModel, ImageRowSets, ImageRows, ImageSplits, Images, PixelBatch,
};
use train::job::{BundleWriter, Exported, Job, Product, Recipe, Shared, Splits, Start, ToSheet};
use train::metrics::{Metric, Metrics};
use train::objective::{LossSums, Objective, SumTally, Tally};
use train::recipe::Impossible;
use train::report::marks::{outline, tint};
use train::report::sheet::Sheet;
use train::scores::judged::Judged;
use train::source::{BatchSource, Counts, Epochs, Rows, Unit};

use crate::detection::Boxes;
use crate::segmentation::Masks;
use crate::several_labels::SeveralLabels;
use crate::values::Values;

/// What is to be learned of each image of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Several classes, or none of them.
    Several(Vec<Vec<u32>>),
    /// A number.
    Values(Vec<f32>),
    /// A class for each pixel, `[height, width]`; 255 is none.
    Masks(Vec<Vec<u8>>),
    /// Boxes, in pixels of the image as the model sees it.
    Boxes(Vec<Vec<BoxLabel>>),
}

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

/// What a validation collects.
#[derive(Clone, Debug, Default)]
pub struct VisionTally {
    /// The loss.
    pub sums: SumTally,
    /// What else the task is judged by.
    pub judged: Judged,
}

impl VisionTally {
    /// The sums of a batch, and what else it is judged by.
    pub fn read<B: Backend>(sums: LossSums<B>, judged: impl Into<Judged>) -> Self {
        Self {
            sums: SumTally::read(sums, &[]),
            judged: judged.into(),
        }
    }
}

impl Tally for VisionTally {
    fn merge(&mut self, other: Self) {
        self.sums.merge(other.sums);
        self.judged.merge(other.judged);
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.sums.metrics();
        metrics.extend(self.judged.metrics());
        metrics
    }

    fn details(&self) -> Option<Value> {
        self.judged.details()
    }

    fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }
}

/// A model of images with its loss. What is not said here is as in [`Objective`], which [`VisionObjective`] makes of it.
pub trait TargetLoss<B: Backend>: Module<B> {
    /// What the bundle holds.
    type Model: Module<B>;
    /// What validation reports.
    const METRICS: &'static [Metric];

    /// It.
    fn model(&self) -> Self::Model;

    /// Loss over the targets of a batch.
    fn loss(&self, batch: &TargetBatch, device: &B::Device) -> LossSums<B>;

    /// Collects a batch of a split that is only looked at.
    fn tally(&self, batch: &TargetBatch, device: &B::Device) -> VisionTally;
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

            fn metrics(&self) -> &'static [Metric] {
                match self { $(Self::$Variant(_) => <$Task<B> as TargetLoss<B>>::METRICS,)+ }
            }

            fn loss(&self, batch: &TargetBatch, device: &B::Device) -> LossSums<B> {
                match self { $(Self::$Variant(one) => one.loss(batch, device),)+ }
            }

            fn evaluate(&self, batch: &TargetBatch, device: &B::Device) -> VisionTally {
                match self { $(Self::$Variant(one) => one.tally(batch, device),)+ }
            }
        }

        impl<B: Backend> Exported<B> for VisionObjective<B> {
            fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
                match self { $(Self::$Variant(one) => writer.write(&one.model()),)+ }
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
    /// What a column of labels holds that has none of the usual names.
    const COLUMN: TargetKind;
    /// Whether targets are places in the image, which have to move with it.
    const PLACED: bool;

    /// Says what is impossible about these values, if anything is.
    fn check(&self) -> Result<(), Impossible>;

    /// Whether these are targets of its kind.
    fn takes(targets: &ImageTargets) -> bool;

    /// Names of the outputs.
    ///
    /// - largest: the largest class of all masks
    fn classes(&self, train: &ImageRows, _largest: Option<u8>) -> Vec<String> {
        train.classes.clone()
    }

    /// Further keys of the bundle's `config.json`.
    ///
    /// - train: what it is to learn
    fn head_config(&self, _train: &ImageRows) -> Value {
        Value::Null
    }

    /// Draws the model, and loads what it starts from.
    ///
    /// - train: what it is to learn
    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        classes: &[String],
        train: &ImageRows,
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
    splits: ImageSplits,
    classes: Vec<String>,
    model: ImageModel,
}

impl<T: VisionTask> Job for OnImages<T> {
    const NAME: &'static str = T::NAME;
    const ABOUT: &'static str = T::ABOUT;
    const KEY: &'static str = "task";
    const RECIPE: &'static str = T::RECIPE;
    const HAS_IMAGES: bool = true;
    type Source = ImageRowSets;
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

    fn source(&self, start: &Start) -> Result<ImageRowSets, Failure> {
        if self.data.source.is_empty() {
            let reason = format!("is empty; name images with {}", T::NEEDS);
            return Err(Impossible::new("data.source", reason).into());
        }
        let sets = self.data.source_of(start, T::COLUMN)?;
        // What is at the edge of an image is to be found too.
        Ok(if T::PLACED { sets.stretched() } else { sets })
    }

    fn data(&self, _: &Recipe, start: &Start, sets: ImageRowSets) -> Result<TargetData, Failure> {
        let given = [Some(&sets.train), sets.valid.as_ref(), sets.test.as_ref()];
        let mut largest = None;
        for rows in given.into_iter().flatten() {
            if !T::takes(&rows.targets) {
                let origin = &rows.origin;
                let needs = T::NEEDS;
                return Err(Failure::input(format!(
                    "{origin}: the images have no {needs}"
                )));
            }
            if let ImageTargets::Masks(masks) = &rows.targets {
                let sizes: Vec<_> = (0..rows.len()).map(|row| rows.size(row)).collect();
                largest = largest.max(data::image::largest_class(masks, &sizes)?);
            }
        }
        let classes = self.task.classes(&sets.train, largest);
        let (splits, model) = self.data.read(sets, &self.augment, T::HEAD, start)?;
        if T::PLACED && model.config.describe().levels.is_empty() {
            let family = model.config.family().model_type;
            let reason = format!("is \"{family}\", which has no feature maps");
            return Err(Impossible::new("model.family", reason).into());
        }
        Ok(TargetData {
            splits,
            classes,
            model,
        })
    }

    fn product(&self, data: &TargetData) -> Result<Product, Failure> {
        let mut product = image::product(&data.model, T::HEAD, Some(&data.classes));
        let further = self.task.head_config(&data.splits.train);
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
        self.task.objective(
            &data.model,
            &data.classes,
            &data.splits.train,
            start,
            device,
        )
    }

    fn batches(&self, recipe: &Recipe, data: TargetData) -> Result<Splits<TargetBatch>, Failure> {
        let TargetData { splits, model, .. } = data;
        let ImageSplits { train, valid, test } = splits;
        let (training, seed) = (&recipe.training, recipe.seed);
        let batches = |images: ImageRows, epochs: Epochs, augment: &Augment, seed: u64| {
            Shared::new(TargetBatches {
                images,
                epochs,
                levels: model.input.levels(),
                augment: augment.clone(),
                placed: T::PLACED,
                seed,
            })
        };
        let in_order = |images: ImageRows| {
            let epochs = Epochs::in_order(images.len(), training.batch_size);
            batches(images, epochs, &Augment::NONE, 0)
        };
        let digest = train.digest_with(|row| target_bytes(&train.targets, row));
        let lengths = vec![1; train.len()];
        let epochs = Epochs::shuffled(lengths, training.batching(), training.accumulation, seed);
        let (valid, test) = (in_order(valid), (!test.is_empty()).then(|| in_order(test)));
        let train = batches(train, epochs, &self.augment, seed);
        Ok(Splits {
            train,
            valid,
            test,
            digest,
            unit: Unit::Samples,
        })
    }
}

/// What a resumed run needs the same of a target.
fn target_bytes(targets: &ImageTargets, row: usize) -> Vec<u8> {
    match targets {
        // A mask that cannot be read is said where it is needed.
        ImageTargets::Masks(masks) => std::fs::read(&masks[row]).unwrap_or_default(),
        other => other.bytes(row),
    }
}

/// Batches of one split.
struct TargetBatches {
    images: ImageRows,
    epochs: Epochs,
    levels: Vec<[f32; 256]>,
    augment: Augment,
    placed: bool,
    seed: u64,
}

impl TargetBatches {
    /// Rows whose targets do not depend on how images are seen.
    fn unplaced(&self, rows: &Rows) -> (PixelBatch, Targets) {
        fn of<T: Clone>(all: &[T], rows: &[u32]) -> Vec<T> {
            rows.iter().map(|&row| all[row as usize].clone()).collect()
        }
        let images = self
            .augment
            .read(&self.images, rows, &self.levels, self.seed);
        let rows = &rows.rows;
        let targets = match &self.images.targets {
            ImageTargets::Values(all) => Targets::Values(of(all, rows)),
            ImageTargets::Several(all) => Targets::Several(of(all, rows)),
            _ => Targets::Several(vec![vec![]; rows.len()]),
        };
        (images, targets)
    }

    /// Rows whose targets move with the images.
    fn placed(&self, Rows { rows, samples }: &Rows) -> (PixelBatch, Targets) {
        let [channels, height, width] = self.images.shape();
        let len = channels * height * width;
        let mut pixels = vec![0.0; rows.len() * len];
        let (mut masks, mut boxes) = (Vec::new(), Vec::new());
        let each = pixels.chunks_exact_mut(len);
        for (pixels, (&row, &sample)) in each.zip(rows.iter().zip(samples)) {
            let row = row as usize;
            let placement = self.write(row, sample, pixels);
            match &self.images.targets {
                ImageTargets::Masks(all) => {
                    let mask = read_mask(&all[row]);
                    let mask = mask.unwrap_or_else(|error| panic_any(Unreadable::new(error)));
                    let size = [mask.height, mask.width];
                    masks.push(placement.mask(&mask.classes, size, [height, width]));
                }
                ImageTargets::Boxes(all) => {
                    let labels = all[row].iter();
                    let seen = labels.filter_map(|label| placement.label(label, [height, width]));
                    boxes.push(seen.collect());
                }
                _ => {}
            }
        }
        let images = PixelBatch {
            pixels,
            n: rows.len(),
            channels,
            height,
            width,
        };
        let targets = match &self.images.targets {
            ImageTargets::Masks(_) => Targets::Masks(masks),
            _ => Targets::Boxes(boxes),
        };
        (images, targets)
    }

    /// Writes an image as the model sees it; where its pixels come from.
    fn write(&self, row: usize, sample: u64, pixels: &mut [f32]) -> Placement {
        let (picture, view) = (self.images.picture(row), self.images.view());
        let steps = &self.augment.steps;
        let (picture, moved) = steps.apply_with_placement(picture, self.seed, sample);
        let placement = moved.then(view.placement(picture.size()));
        let levels = &self.levels;
        let value = |channel: usize, value: u8| levels[channel][usize::from(value)];
        view.finish(picture).write_planes(pixels, value);
        placement
    }
}

impl BatchSource for TargetBatches {
    type Batch = TargetBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.epochs.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> TargetBatch {
        let rows = self.epochs.batch(number);
        let (images, targets) = if self.placed {
            self.placed(&rows)
        } else {
            self.unplaced(&rows)
        };
        TargetBatch {
            images,
            rows: rows.rows,
            targets,
        }
    }
}
