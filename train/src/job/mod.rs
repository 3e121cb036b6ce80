//! What an objective or a task is, and the one driver that runs them all. In: a recipe and data. Out: a run.
//!
//! Reading order: [`Job`] and [`Setup`] here, [`start`] (what weights start from), [`strategy`] (which of them train),
//! [`text`], [`streams`], [`items`], [`seq2seq`], [`image`] and [`labels`] (from rows to batches).

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use burn::module::{AutodiffModule, Module};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::peft::AdapterFiles;
use model::{Names, Precision, bundle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::{WithBackend, train_on};
use crate::cli::Entry;
use crate::failure::{Failure, FailureKind, caught};
use crate::generator::seeded;
use crate::job::image::PixelBatch;
use crate::objective::{Objective, Trainable};
use crate::recipe::{
    BundleRecipe, Draft, GuardRecipe, Impossible, OptimizerRecipe, RecipeError, ScheduleRecipe,
    TrainingRecipe,
};
use crate::report::sheet::Sheet;
use crate::run::{Existing, write_atomically};
use crate::session::{Options, Session, Status};
use crate::source::{BatchSource, Counts, Unit};
use crate::training_loop::ModelHook;
use crate::ui::Ui;

pub mod image;
pub mod items;
pub mod labels;
pub mod seq2seq;
pub mod start;
pub mod strategy;
pub mod streams;
pub mod text;

pub use start::Start;
pub use strategy::{AdapterRecipe, StrategyRecipe};

/// The sections that every recipe has; the others are the job's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // assets/recipes/shared.toml explains every key.
pub struct Recipe {
    pub seed: u64,
    pub from: String,
    pub model: toml::Table,
    pub strategy: StrategyRecipe,
    pub adapter: AdapterRecipe,
    pub optimizer: OptimizerRecipe,
    pub schedule: ScheduleRecipe,
    pub training: TrainingRecipe,
    pub guard: GuardRecipe,
    pub bundle: BundleRecipe,
}

/// Batches of each split.
pub struct Splits<T> {
    /// To train on.
    pub train: Arc<Shared<T>>,
    /// To choose the best step by.
    pub valid: Arc<Shared<T>>,
    /// To judge the result by, if there are any.
    pub test: Option<Arc<Shared<T>>>,
    /// Of the training rows, and behind a space of what else is learned from: a resumed run needs the same.
    pub digest: String,
    /// What batches are counted in.
    pub unit: Unit,
}

/// Batches of one kind, wherever they come from: the engine is compiled once an objective, not once a source.
pub struct Shared<T>(Box<dyn BatchSource<Batch = T>>);

impl<T: Counts + Send + Sync + 'static> Shared<T> {
    /// Batches of a source.
    pub fn new(source: impl BatchSource<Batch = T>) -> Arc<Self> {
        Arc::new(Self(Box::new(source)))
    }
}

impl<T: Counts + Send + Sync + 'static> BatchSource for Shared<T> {
    type Batch = T;

    fn batches_per_epoch(&self) -> u64 {
        self.0.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> T {
        self.0.batch(number)
    }
}

/// What a bundle holds beside the weights.
#[derive(Clone, Debug)]
pub struct Product {
    /// Names of the parameters.
    pub names: Names,
    /// `config.json`
    pub config: Value,
    /// Further files by name, such as the tokenizer.
    pub files: Vec<(&'static str, String)>,
}

/// An objective whose model a bundle can hold.
pub trait Exported<B: Backend>: Objective<B> {
    /// Hands the model that the bundle holds to its writer.
    ///
    /// # Errors
    ///
    /// A directory that cannot be written.
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()>;
}

/// Writes a bundle, but for the model.
pub struct BundleWriter<'a> {
    path: &'a Path,
    product: &'a Product,
    precision: Precision,
    adapter: Option<&'a AdapterFiles>,
}

impl BundleWriter<'_> {
    /// Writes it with this model.
    ///
    /// # Errors
    ///
    /// A directory that cannot be written.
    pub fn write<B: Backend, M: Module<B>>(&self, model: &M) -> anyhow::Result<()> {
        let Product {
            names,
            config,
            files,
        } = self.product;
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| (*name, text.as_bytes()))
            .collect();
        match self.adapter {
            None => bundle::write(self.path, config, model, *names, self.precision, &files)?,
            Some(adapter) => {
                adapter.write(self.path, config, model, *names, self.precision, &files)?;
            }
        }
        Ok(())
    }
}

/// An objective or a task as the command line knows it. Its fields are its own sections of the recipe.
pub trait Job: Clone + Serialize + DeserializeOwned + 'static {
    /// As `RECIPE` names it.
    const NAME: &'static str;
    /// One line for `--list`.
    const ABOUT: &'static str;
    /// The recipe key that names it: `objective` or `task`.
    const KEY: &'static str;
    /// Its file in `assets/recipes/`.
    const RECIPE: &'static str;
    /// Whether batches are images, which [`sheet`](Self::sheet) shows.
    const HAS_IMAGES: bool = false;
    /// Texts or images: what `[data]` names, or what a program brings.
    type Source;
    /// Splits, tokenizer, classes: all that is read before there is a backend.
    type Data;
    /// What one forward pass takes.
    type Batch: Counts + Send + Sync + 'static;
    /// The model with its loss.
    type Objective<B: AutodiffBackend>: Trainable<B>
        + Objective<B, Batch = Self::Batch>
        + AutodiffModule<B, InnerModule: Exported<B::InnerBackend>>;

    /// Says what is impossible about these values, if anything is.
    fn check(&self, recipe: &Recipe) -> Result<(), Impossible>;

    /// Opens what training starts from.
    fn start(&self, recipe: &Recipe, ui: Ui) -> Result<Start, Failure> {
        Start::open(recipe, ui)
    }

    /// Opens what `[data]` names, as the model that training starts from takes it.
    fn source(&self, start: &Start) -> Result<Self::Source, Failure>;

    /// Reads, splits and tokenizes; tells the console what people should know of it.
    fn data(
        &self,
        recipe: &Recipe,
        start: &Start,
        source: Self::Source,
    ) -> Result<Self::Data, Failure>;

    /// What the bundle will hold beside the weights.
    fn product(&self, data: &Self::Data) -> Result<Product, Failure>;

    /// Draws the model, and loads what it starts from.
    fn objective<B: AutodiffBackend>(
        &self,
        data: &Self::Data,
        start: &Start,
        device: &B::Device,
    ) -> Result<Self::Objective<B>, Failure>;

    /// A batch as people look at it; `None` where it has no images.
    ///
    /// [`HAS_IMAGES`](Self::HAS_IMAGES) says before anything is read whether there will be one.
    fn sheet(&self, _data: &Self::Data) -> Option<ToSheet<Self::Batch>> {
        None
    }

    /// What is done with the model after each validation.
    fn after_validation<B: AutodiffBackend>(
        &self,
        _data: &Self::Data,
        _device: &B::Device,
    ) -> Option<Hook<B, Self::Objective<B>>> {
        None
    }

    /// Batches of the splits, which are functions of their number.
    fn batches(&self, recipe: &Recipe, data: Self::Data) -> Result<Splits<Self::Batch>, Failure>;
}

/// Makes a sheet of a batch.
pub type ToSheet<T> = Box<dyn Fn(&T) -> Sheet>;

/// Called with the model that validates.
pub type Hook<B, O> = ModelHook<<O as AutodiffModule<B>>::InnerModule>;

/// A job with its recipe, ready to run.
#[derive(Clone, Debug)]
pub struct Setup<J> {
    /// The sections that all jobs share.
    pub recipe: Recipe,
    /// The job's own sections.
    pub job: J,
}

impl<J: Job> Setup<J> {
    /// The built-in recipe.
    ///
    /// # Errors
    ///
    /// None for the jobs of this repository: tests open each of them.
    pub fn built_in() -> Result<Self, Failure> {
        let built_in = [(J::NAME, J::RECIPE)];
        Ok(Self::from_draft(&Draft::open(J::NAME, J::KEY, &built_in)?)?)
    }

    /// The built-in recipe with some keys set, each as `--set` takes it: `training.steps=20`. Limits of the bundled data go
    /// where `data.source` is set.
    ///
    /// # Errors
    ///
    /// A key that the recipe does not have, or a value that does not fit.
    pub fn with(assignments: &[&str]) -> Result<Self, Failure> {
        let built_in = [(J::NAME, J::RECIPE)];
        let mut draft = Draft::open(J::NAME, J::KEY, &built_in)?;
        draft.set_all(assignments.iter().copied())?;
        draft.use_all_of_own_data();
        Ok(Self::from_draft(&draft)?)
    }

    /// The recipe of a draft.
    ///
    /// # Errors
    ///
    /// A value of the wrong type.
    pub fn from_draft(draft: &Draft) -> Result<Self, RecipeError> {
        Ok(Self {
            recipe: draft.finish()?,
            job: draft.finish()?,
        })
    }

    /// The whole recipe, as `recipe.toml` holds it.
    ///
    /// # Errors
    ///
    /// A value that TOML does not have, such as an integer beyond 63 bits.
    pub fn to_toml(&self) -> Result<String, RecipeError> {
        let wrong = |e: toml::ser::Error| RecipeError::Value {
            place: "recipe".into(),
            reason: e.to_string(),
        };
        let mut table = toml::Table::new();
        table.insert(J::KEY.into(), J::NAME.into());
        table.extend(toml::Table::try_from(&self.recipe).map_err(wrong)?);
        table.extend(toml::Table::try_from(&self.job).map_err(wrong)?);
        toml::to_string_pretty(&table).map_err(wrong)
    }

    /// Runs on the backend that the options name, on the data that `[data]` names.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`] before anything is written, [`Failure::Running`] once training has begun.
    pub fn run(self, options: Options) -> Result<Status, Failure> {
        self.check()?;
        if let Some(path) = &options.show_batch {
            check_sheet(path, options.existing, J::NAME, J::HAS_IMAGES)?;
        }
        let start = self.job.start(&self.recipe, options.ui)?;
        let source = self.job.source(&start)?;
        let data = self.job.data(&self.recipe, &start, source)?;
        if let Some(path) = &options.show_batch {
            return self.show_batch(path, data, &start);
        }
        let (backend, checkpointing) =
            (options.backend, self.recipe.training.gradient_checkpointing);
        let run = Prepared {
            setup: self,
            start,
            data,
            options,
        };
        train_on(backend, checkpointing, run)?
    }

    /// Trains on a device, on these texts or images; the run directory and its bundle are where the options say.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`] before anything is written, [`Failure::Running`] once training has begun.
    pub fn train<B: AutodiffBackend>(
        self,
        source: J::Source,
        device: B::Device,
        options: Options,
    ) -> Result<Status, Failure> {
        self.check()?;
        let start = self.job.start(&self.recipe, options.ui)?;
        let data = self.job.data(&self.recipe, &start, source)?;
        let run = Prepared {
            setup: self,
            start,
            data,
            options,
        };
        run.run::<B>(device)
    }

    /// Draws the first training batch.
    fn show_batch(&self, path: &Path, data: J::Data, start: &Start) -> Result<Status, Failure> {
        let Some(sheet) = self.job.sheet(&data) else {
            return Err(no_images(J::NAME));
        };
        let train = self.job.batches(&self.recipe, data)?.train;
        let sheet = caught(|| sheet(&train.batch(0))).running()?;
        let place = || path.display().to_string();
        let png = sheet.to_png().with_context(place).running()?;
        write_atomically(path, &png).with_context(place).running()?;
        let PixelBatch {
            n, height, width, ..
        } = sheet.images;
        let shown = match sheet.shown() {
            shown if shown < n => format!("the first {shown} of {n} images"),
            shown => format!("{shown} images"),
        };
        let text = format!(
            "{}: the first training batch, {shown} of {height}x{width}",
            path.display()
        );
        start.console.note(&text);
        Ok(Status::Done)
    }

    /// Says what is impossible about the recipe, if anything is.
    ///
    /// # Errors
    ///
    /// The key and what is wrong with it.
    pub fn check(&self) -> Result<(), Impossible> {
        let recipe = &self.recipe;
        recipe.strategy.check()?;
        recipe.adapter.check()?;
        recipe.adapter.check_packing(recipe.training.packing)?;
        recipe.training.check()?;
        recipe.optimizer.check()?;
        recipe.schedule.check()?;
        recipe.guard.check()?;
        self.job.check(recipe)
    }
}

fn no_images(name: &str) -> Failure {
    Failure::input(format!(
        "--show-batch draws images, and the batches of {name} have none"
    ))
}

/// Refuses a place for a sheet before the data is read.
fn check_sheet(
    path: &Path,
    existing: Existing,
    name: &str,
    has_images: bool,
) -> Result<(), Failure> {
    if !has_images {
        return Err(no_images(name));
    }
    let place = path.display();
    if path.exists() && existing != Existing::Replace {
        return Err(Failure::input(format!(
            "{place}: exists; --force replaces it"
        )));
    }
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(Failure::input(format!(
            "{place}: its directory does not exist"
        )));
    }
    Ok(())
}

/// A line of a trainer's list.
pub const fn entry<J: Job>() -> Entry {
    Entry {
        name: J::NAME,
        about: J::ABOUT,
        recipe: J::RECIPE,
        check: |draft| Ok(Setup::<J>::from_draft(draft)?.check()?),
        run: |draft, options| Setup::<J>::from_draft(&draft)?.run(options),
    }
}

/// A prepared run, waiting for its backend: everything between a job and the engine, once.
struct Prepared<J: Job> {
    setup: Setup<J>,
    start: Start,
    data: J::Data,
    options: Options,
}

impl<J: Job> WithBackend for Prepared<J> {
    type Output = Result<Status, Failure>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Self::Output {
        let Self {
            setup,
            start,
            data,
            options,
        } = self;
        let text = setup.to_toml()?;
        let Setup { recipe, job } = setup;
        let product = job.product(&data)?;
        let names = product.names;
        let drawn = || job.objective::<B>(&data, &start, &device);
        let objective = seeded::<B, _>(&device, recipe.seed, drawn)?;
        let groups = strategy::groups(&recipe, names)?;
        strategy::check_names(&recipe.strategy, &objective, names)?;
        let after_validation = job.after_validation::<B>(&data, &device);
        let Splits {
            train,
            valid,
            test,
            digest,
            unit,
        } = job.batches(&recipe, data)?;
        let (precision, adapter) = (recipe.bundle.precision, start.into_adapter());
        Session {
            name: J::NAME.into(),
            recipe: text,
            seed: recipe.seed,
            training: recipe.training,
            optimizer: recipe.optimizer,
            schedule: recipe.schedule,
            guard: recipe.guard,
            data: digest,
            groups,
            names,
            objective,
            device,
            train,
            valid,
            test,
            unit,
            export: Box::new(move |objective, path| {
                objective.export(&BundleWriter {
                    path,
                    product: &product,
                    precision,
                    adapter: adapter.as_ref(),
                })
            }),
            after_validation,
            options,
        }
        .launch()
    }
}
