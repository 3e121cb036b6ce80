//! What objectives on images share: their batches, the probe of their features, and the one job that runs them all.
//!
//! An objective is a file beside this one: its sections of the recipe ([`ImagePretraining`]) and its model with the loss
//! ([`ImageLoss`]), with a line in [`ImageObjective`]. The engine is compiled once for all of them.

#![allow(
    clippy::large_enum_variant,
    reason = "one objective exists at a time, and derive(Module) makes further enums of each"
)]

use std::fs;
use std::path::Path;

use anyhow::Context;
use burn::module::Module;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use model::HeadKind;
use model::bundle::ImageInput;
use model::heads::masked::Order;
use model::registry::ImageBackbone;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::{
    self, Augment, ImageModel, ImageRowSets, ImageRows, ImageSplits, Images, PixelBatch, view_seed,
};
use train::job::labels::labelled_subset;
use train::job::{
    BundleWriter, Exported, Hook, Job, Product, Recipe, Shared, Splits, Start, ToSheet,
};
use train::metrics::{Metric, Metrics};
use train::objective::{LossSums, Objective, SumTally, Tally};
use train::objectives::pixels::add_psnr;
use train::objectives::probe::{self, Features, Probe};
use train::recipe::Impossible;
use train::report::grid::grid_png;
use train::report::sheet::Sheet;
use train::run::write_atomically;
use train::source::{BatchSource, Counts, Epochs, Rows, Unit};

use crate::autoencoder::Reconstruction;
use crate::byol::Bootstrap;
use crate::dino::Distillation;
use crate::mae::PatchReconstruction;
use crate::rotation::Turns;
use crate::simclr::Contrast;
use crate::vae::Evidence;
use crate::vqvae::CodedReconstruction;

/// Images side by side in drawings.
pub const COLUMNS: usize = 10;

/// What a forward pass of any of these objectives takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageBatch {
    /// What the model sees: views of the same images, one after the other. None where a batch is for the probe alone.
    pub views: Vec<PixelBatch>,
    /// The images themselves, where the model sees something else.
    pub clean: Option<PixelBatch>,
    /// What chance decides, beside the views.
    pub chance: Chance,
    /// What the probe looks at, in a validation.
    pub probed: Option<Probed>,
}

/// What chance decides for a batch: a function of (seed, epoch, image).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Chance {
    /// Nothing.
    #[default]
    Nothing,
    /// Draws from N(0, 1), the same number for each image.
    Noise(Vec<f32>),
    /// Which patches are seen.
    Order(Order),
    /// Quarters of a turn of each image.
    Turns(Vec<u32>),
}

/// Images with classes, for the probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    /// As they are.
    pub images: PixelBatch,
    /// One an image.
    pub classes: Vec<u32>,
    /// Whether the probe learns from them, and is not judged by them.
    pub learned: bool,
}

impl Counts for ImageBatch {
    fn real(&self) -> usize {
        self.views.first().map_or(0, |view| view.n)
    }

    fn padded(&self) -> usize {
        self.real()
    }
}

impl ImageBatch {
    /// The first view, `[batch, channels, height, width]`.
    ///
    /// # Panics
    ///
    /// If the batch is for the probe alone.
    pub fn images<B: Backend>(&self, device: &B::Device) -> Tensor<B, 4> {
        self.views[0].tensor(device)
    }
}

/// What a validation collects.
#[derive(Clone, Debug, Default)]
pub struct ImageTally {
    sums: SumTally,
    /// How often each code was chosen.
    codes: Vec<f64>,
    probe: Probe,
}

impl ImageTally {
    /// Reads the sums of a batch.
    pub fn read<B: Backend>(sums: LossSums<B>, names: &'static [&'static str]) -> Self {
        Self {
            sums: SumTally::read(sums, names),
            ..Self::default()
        }
    }

    /// The same with how often each code was chosen.
    pub fn with_codes(self, codes: Vec<f64>) -> Self {
        Self { codes, ..self }
    }
}

/// How many codes are in use, as if all of them were chosen equally often.
pub const CODES_USED: Metric = Metric::higher("codes_used");

impl Tally for ImageTally {
    fn merge(&mut self, other: Self) {
        self.sums.merge(other.sums);
        self.codes
            .resize(self.codes.len().max(other.codes.len()), 0.0);
        for (sum, more) in self.codes.iter_mut().zip(other.codes) {
            *sum += more;
        }
        self.probe.merge(other.probe);
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.sums.metrics();
        self.probe.add_to(&mut metrics);
        let chosen: f64 = self.codes.iter().sum();
        if chosen > 0.0 {
            let shares = self.codes.iter().map(|count| count / chosen);
            let entropy: f64 = shares
                .filter(|share| *share > 0.0)
                .map(|p| -p * p.ln())
                .sum();
            metrics.insert(CODES_USED.name.into(), entropy.exp());
        }
        metrics
    }

    fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }
}

/// A model of images with its loss. What is not said here is as in [`Objective`], which [`ImageObjective`] makes of it.
pub trait ImageLoss<B: Backend>: Module<B> {
    /// Names of the sums beside the loss.
    const MEANS: &'static [&'static str] = &[];
    /// What validation reports.
    const METRICS: &'static [Metric];
    /// Whether the loss compares the images of a batch with each other.
    const WHOLE_BATCH: bool = false;

    /// Whose features are probed, and which fine-tuning starts from.
    fn backbone(&self) -> &ImageBackbone<B>;

    /// Loss and further sums over the targets of a batch.
    fn loss(&self, batch: &ImageBatch, device: &B::Device) -> LossSums<B>;

    /// Collects a batch of a validation.
    fn tally(&self, batch: &ImageBatch, device: &B::Device) -> ImageTally {
        ImageTally::read(self.loss(batch, device), Self::MEANS)
    }

    /// The same after a step that counts, where a teacher follows its student.
    fn after_step(&self) -> Option<Self> {
        None
    }

    /// Hands the model that the bundle holds to its writer.
    ///
    /// # Errors
    ///
    /// A directory that cannot be written.
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()>;
}

macro_rules! image_objectives {
    ($($Variant:ident($Loss:ident)),+ $(,)?) => {
        /// Any of the objectives on images.
        #[derive(Module, Debug)]
        #[allow(missing_docs)] // Each is described in its file.
        pub enum ImageObjective<B: Backend> {
            $($Variant($Loss<B>),)+
        }

        impl<B: Backend> Objective<B> for ImageObjective<B> {
            type Batch = ImageBatch;
            type Tally = ImageTally;
            const MEANS: &'static [&'static str] = &[];
            const METRICS: &'static [Metric] = &[Metric::LOSS];

            fn means(&self) -> &'static [&'static str] {
                match self { $(Self::$Variant(_) => <$Loss<B> as ImageLoss<B>>::MEANS,)+ }
            }

            fn metrics(&self) -> &'static [Metric] {
                match self { $(Self::$Variant(_) => <$Loss<B> as ImageLoss<B>>::METRICS,)+ }
            }

            fn whole_batch(&self) -> bool {
                match self { $(Self::$Variant(_) => <$Loss<B> as ImageLoss<B>>::WHOLE_BATCH,)+ }
            }

            fn loss(&self, batch: &ImageBatch, device: &B::Device) -> LossSums<B> {
                match self { $(Self::$Variant(one) => one.loss(batch, device),)+ }
            }

            fn evaluate(&self, batch: &ImageBatch, device: &B::Device) -> ImageTally {
                let mut tally = match self {
                    _ if batch.views.is_empty() => ImageTally::default(),
                    $(Self::$Variant(one) => one.tally(batch, device),)+
                };
                if let Some(probed) = &batch.probed {
                    let backbone = match self { $(Self::$Variant(one) => one.backbone(),)+ };
                    tally.probe = features(backbone, probed, device);
                }
                tally
            }

            fn derive(metrics: &mut Metrics) {
                add_psnr(metrics);
            }

            fn after_step(&self) -> Option<Self> {
                match self { $(Self::$Variant(one) => one.after_step().map(Self::$Variant),)+ }
            }
        }

        impl<B: Backend> Exported<B> for ImageObjective<B> {
            fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
                match self { $(Self::$Variant(one) => one.export(writer),)+ }
            }
        }

        $(impl<B: Backend> From<$Loss<B>> for ImageObjective<B> {
            fn from(one: $Loss<B>) -> Self {
                Self::$Variant(one)
            }
        })+
    };
}

image_objectives! {
    Reconstruction(Reconstruction),
    Evidence(Evidence),
    Codes(CodedReconstruction),
    Patches(PatchReconstruction),
    Contrast(Contrast),
    Bootstrap(Bootstrap),
    Distillation(Distillation),
    Turns(Turns),
}

/// What the probe needs of a batch.
fn features<B: Backend>(backbone: &ImageBackbone<B>, probed: &Probed, device: &B::Device) -> Probe {
    let pooled = backbone.forward(probed.images.tensor(device)).pooled;
    let [_, width] = pooled.dims();
    let features = Features {
        width,
        values: pooled.into_data().iter::<f32>().collect(),
        classes: probed.classes.clone(),
    };
    let mut probe = Probe::default();
    if probed.learned {
        probe.learned = features;
    } else {
        probe.judged = features;
    }
    probe
}

/// An objective on images as the command line knows it. Its fields are its own sections of the recipe.
pub trait ImagePretraining: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// As `RECIPE` names it.
    const NAME: &'static str;
    /// One line for `--list`.
    const ABOUT: &'static str;
    /// Its file in `assets/recipes/`.
    const RECIPE: &'static str;
    /// What the bundle's model has on its backbone.
    const HEAD: HeadKind;
    /// Whether the model sees pixels from 0 to 1 and nothing else: it gives them back.
    const PLAIN: bool;
    /// Whether images that validate are augmented too: without, all views are the same.
    const AUGMENTS_VALIDATION: bool;

    /// Says what is impossible about these values, if anything is.
    fn check(&self) -> Result<(), Impossible>;

    /// Says why the model can't learn by this objective, if it can't.
    fn check_model(&self, _model: &ImageModel) -> Result<(), Impossible> {
        Ok(())
    }

    /// Further keys of the bundle's `config.json`.
    fn head_config(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Draws the model, and loads what it starts from.
    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        start: &Start,
        device: &B::Device,
    ) -> Result<ImageObjective<B>, Failure>;

    /// A batch of these rows.
    fn batch(&self, images: &Reader, rows: &Rows, model: &ImageModel) -> ImageBatch;

    /// Draws what the model makes of the first validation images.
    fn draw<B: Backend>(
        &self,
        _objective: &ImageObjective<B>,
        _first: &ImageBatch,
        _device: &B::Device,
        _drawings: &Drawings<'_>,
    ) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Images of one split, and how they are seen.
pub struct Reader {
    images: ImageRows,
    levels: Vec<[f32; 256]>,
    augment: Augment,
    /// Of everything that is drawn by chance.
    pub seed: u64,
}

impl Reader {
    /// - input: how the model sees images
    /// - seed: what chance is a function of, with the sample
    pub fn new(images: ImageRows, input: &ImageInput, augment: Augment, seed: u64) -> Self {
        Self {
            images,
            levels: input.levels(),
            augment,
            seed,
        }
    }

    /// These rows, augmented; each view in another way.
    pub fn view(&self, rows: &Rows, number: u64) -> PixelBatch {
        self.view_by(&self.augment, rows, number)
    }

    /// The same augmented by other steps.
    pub fn view_by(&self, augment: &Augment, rows: &Rows, number: u64) -> PixelBatch {
        let seed = view_seed(self.seed, number);
        augment.read(&self.images, rows, &self.levels, seed)
    }

    /// These rows as they are.
    pub fn plain(&self, rows: &[u32]) -> PixelBatch {
        let rows = Rows {
            rows: rows.to_vec(),
            samples: vec![0; rows.len()],
        };
        Augment::NONE.read(&self.images, &rows, &self.levels, 0)
    }
}

/// `[probe]`: how well labels can be told from the features of the backbone as it is, at each validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRecipe {
    /// Training images that it learns from; 0 does not probe. Images without labels are not probed.
    pub rows: usize,
}

/// Any objective on images, as a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OfImages<P> {
    /// Which images, and how they are split.
    pub data: Images,
    /// How training images are changed.
    pub augment: Augment,
    /// How features are judged.
    pub probe: ProbeRecipe,
    /// The objective's own sections.
    #[serde(flatten)]
    pub objective: P,
}

/// Split images, and the model for them.
pub struct ImageData {
    splits: ImageSplits,
    model: ImageModel,
}

impl<P: ImagePretraining> Job for OfImages<P> {
    const NAME: &'static str = P::NAME;
    const ABOUT: &'static str = P::ABOUT;
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = P::RECIPE;
    const HAS_IMAGES: bool = true;
    type Source = ImageRowSets;
    type Data = ImageData;
    type Batch = ImageBatch;
    type Objective<B: AutodiffBackend> = ImageObjective<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.objective.check()?;
        self.data.check(recipe)
    }

    fn source(&self, start: &Start) -> Result<ImageRowSets, Failure> {
        self.data.source(start)
    }

    fn data(
        &self,
        recipe: &Recipe,
        start: &Start,
        images: ImageRowSets,
    ) -> Result<ImageData, Failure> {
        let (splits, mut model) = self.data.read(images, &self.augment, P::HEAD, start)?;
        if P::PLAIN {
            model.input = model.input.without_normalizing();
        }
        self.objective.check_model(&model)?;
        let probed = [probe::LINEAR, probe::NEIGHBOURS];
        let metric = &recipe.training.metric;
        if probed.iter().any(|probe| probe.name == metric) && self.probed_rows(&splits).is_none() {
            let reason = format!(
                "is \"{metric}\", and there is nothing to probe: no labels, or probe.rows = 0"
            );
            return Err(Impossible::new("training.metric", reason).into());
        }
        Ok(ImageData { splits, model })
    }

    fn product(&self, data: &ImageData) -> Result<Product, Failure> {
        let mut product = image::product(&data.model, P::HEAD, None);
        let further = self.objective.head_config();
        if let (Some(config), Some(further)) = (product.config.as_object_mut(), further.as_object())
        {
            config.extend(further.clone());
        }
        Ok(product)
    }

    fn sheet(&self, data: &ImageData) -> Option<ToSheet<ImageBatch>> {
        let input = data.model.input.clone();
        Some(Box::new(move |batch| Sheet::of_views(&batch.views, &input)))
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &ImageData,
        start: &Start,
        device: &B::Device,
    ) -> Result<ImageObjective<B>, Failure> {
        self.objective.objective(&data.model, start, device)
    }

    fn after_validation<B: AutodiffBackend>(
        &self,
        data: &ImageData,
        device: &B::Device,
    ) -> Option<Hook<B, ImageObjective<B>>> {
        let objective = self.objective.clone();
        let valid = &data.splits.valid;
        let rows: Vec<usize> = (0..COLUMNS.min(valid.len())).collect();
        let few = self.validating(valid.select(&rows), data.model.clone(), COLUMNS, None);
        let first = few.batch(0);
        let device = device.clone();
        Some(Box::new(move |model, run| {
            objective.draw(model, &first, &device, &Drawings { run })
        }))
    }

    fn batches(&self, recipe: &Recipe, data: ImageData) -> Result<Splits<ImageBatch>, Failure> {
        let probed = self.probed_rows(&data.splits);
        let ImageData { splits, model } = data;
        let ImageSplits { train, valid, .. } = splits;
        let (training, seed) = (&recipe.training, recipe.seed);
        let lengths = vec![1; train.len()];
        let digest = train.digest();
        let epochs = Epochs::shuffled(lengths, training.batching(), training.accumulation, seed);
        let train = ImageBatches {
            images: Reader::new(train, &model.input, self.augment.clone(), seed),
            objective: self.objective.clone(),
            model: model.clone(),
            epochs,
            probe: None,
        };
        let valid = self.validating(valid, model, training.batch_size, probed);
        Ok(Splits {
            train: Shared::new(train),
            valid: Shared::new(valid),
            test: None,
            digest,
            unit: Unit::Samples,
        })
    }
}

impl<P: ImagePretraining> OfImages<P> {
    /// Validation images in order, with the same chance in every run.
    fn validating(
        &self,
        valid: ImageRows,
        model: ImageModel,
        batch_size: usize,
        probe: Option<LabelledRows>,
    ) -> ImageBatches<P> {
        let epochs = Epochs::in_order(valid.len(), batch_size);
        let augment = if P::AUGMENTS_VALIDATION {
            self.augment.clone()
        } else {
            Augment::NONE
        };
        ImageBatches {
            images: Reader::new(valid, &model.input, augment, self.data.split_seed),
            objective: self.objective.clone(),
            epochs,
            probe: probe.map(|rows| ProbedRows::new(rows, &model.input, batch_size)),
            model,
        }
    }

    /// Training images that the probe learns from, and the classes of those that it is judged by; nothing where it is off, or
    /// where there are no labels.
    fn probed_rows(&self, splits: &ImageSplits) -> Option<LabelledRows> {
        let ImageSplits { train, valid, .. } = splits;
        let (learned, judged) = (train.labels(), valid.labels());
        if self.probe.rows == 0 || learned.is_empty() || judged.is_empty() {
            return None;
        }
        let limit = if self.probe.rows < learned.len() {
            self.probe.rows
        } else {
            0
        };
        // One class alone has nothing to tell apart.
        let rows = labelled_subset(learned, limit, self.data.split_seed).ok()?;
        Some(LabelledRows {
            learned: train.select(&rows),
            judged: judged.to_vec(),
        })
    }
}

/// Labelled images to learn from, and classes of the images to be judged by.
struct LabelledRows {
    learned: ImageRows,
    judged: Vec<u32>,
}

/// The same in batches.
struct ProbedRows {
    learned: Reader,
    judged: Vec<u32>,
    batches: Epochs,
}

impl ProbedRows {
    fn new(rows: LabelledRows, input: &ImageInput, batch_size: usize) -> Self {
        Self {
            batches: Epochs::in_order(rows.learned.len(), batch_size),
            learned: Reader::new(rows.learned, input, Augment::NONE, 0),
            judged: rows.judged,
        }
    }

    /// What the probe learns from, in the batch of this number.
    fn learned(&self, number: u64) -> Probed {
        let rows = self.batches.batch(number).rows;
        let labels = self.learned.images.labels();
        Probed {
            images: self.learned.plain(&rows),
            classes: rows.iter().map(|&row| labels[row as usize]).collect(),
            learned: true,
        }
    }
}

/// Batches of one split; those that the probe learns from come after the others.
pub struct ImageBatches<P> {
    images: Reader,
    objective: P,
    model: ImageModel,
    epochs: Epochs,
    probe: Option<ProbedRows>,
}

impl<P: ImagePretraining> BatchSource for ImageBatches<P> {
    type Batch = ImageBatch;

    fn batches_per_epoch(&self) -> u64 {
        let probe = self.probe.as_ref();
        self.epochs.batches_per_epoch() + probe.map_or(0, |rows| rows.batches.batches_per_epoch())
    }

    fn batch(&self, number: u64) -> ImageBatch {
        let Some(probe) = &self.probe else {
            let rows = self.epochs.batch(number);
            return self.objective.batch(&self.images, &rows, &self.model);
        };
        let number = number % self.batches_per_epoch();
        let of_split = self.epochs.batches_per_epoch();
        if number >= of_split {
            return ImageBatch {
                probed: Some(probe.learned(number - of_split)),
                ..ImageBatch::default()
            };
        }
        let rows = self.epochs.batch(number);
        let classes = rows.rows.iter().map(|&row| probe.judged[row as usize]);
        let probed = Probed {
            images: self.images.plain(&rows.rows),
            classes: classes.collect(),
            learned: false,
        };
        ImageBatch {
            probed: Some(probed),
            ..self.objective.batch(&self.images, &rows, &self.model)
        }
    }
}

/// Where a run's drawings are.
pub struct Drawings<'a> {
    run: &'a Path,
}

impl Drawings<'_> {
    /// Writes rows of images as `NAME.png`; the drawings of all validations stay in the folder `NAME`.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write(&self, name: &str, rows: &[&PixelBatch]) -> anyhow::Result<()> {
        let png = grid_png(rows)?;
        let folder = self.run.join(name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut number = 1;
        let path = |number| folder.join(format!("{number:04}.png"));
        while path(number).exists() {
            number += 1;
        }
        for path in [path(number), self.run.join(format!("{name}.png"))] {
            write_atomically(&path, &png).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_of_all_validations_stay() {
        let folder = tempfile::tempdir().unwrap();
        let drawings = Drawings { run: folder.path() };
        let images = PixelBatch::from_bytes(&[0, 255, 0, 255], [1, 2, 2]);
        for _ in 0..2 {
            drawings.write("samples", &[&images]).unwrap();
        }
        let latest = fs::read(folder.path().join("samples.png")).unwrap();
        let second = fs::read(folder.path().join("samples/0002.png")).unwrap();
        assert!(folder.path().join("samples/0001.png").is_file());
        assert_eq!(latest, second);
    }

    #[test]
    fn codes_that_are_chosen_equally_often_all_count() {
        let tally = |codes: &[f64]| ImageTally::default().with_codes(codes.to_vec());
        let mut both = tally(&[4.0, 0.0, 0.0]);
        assert!((both.metrics()["codes_used"] - 1.0).abs() < 1e-12);
        both.merge(tally(&[0.0, 4.0, 0.0]));
        assert!((both.metrics()["codes_used"] - 2.0).abs() < 1e-12);
    }
}
