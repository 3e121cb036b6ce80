//! Image classification. In: labelled images and a pretrained encoder. Out: a classifier.
//!
//! The encoder keeps its weights, the head is drawn anew.

use burn::tensor::backend::AutodiffBackend;
use data::ImageSets;
use model::bundle::Load;
use model::{HeadKind, ImageClassifier, ImageConfig};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::{self, Augment, Images, LabelledImageBatch, LabelledImageSplits};
use train::job::{Job, Product, Recipe, Splits, Start};
use train::objectives::class_loss::ClassLossRecipe;
use train::objectives::classes::ImageClasses;
use train::recipe::Impossible;

/// The task; `assets/recipes/image-classification.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageClassification {
    /// Which images, and how they are split.
    pub data: Images,
    /// How training images are changed.
    pub augment: Augment,
    /// Cross-entropy over the classes.
    pub loss: ClassLossRecipe,
}

/// Labelled splits, and the model for their images.
pub struct LabelledImageData {
    splits: LabelledImageSplits,
    config: ImageConfig,
}

impl Job for ImageClassification {
    const NAME: &'static str = "image-classification";
    const ABOUT: &'static str = "classes of images with an autoencoder's encoder";
    const KEY: &'static str = "task";
    const RECIPE: &'static str = include_str!("../../assets/recipes/image-classification.toml");
    type Source = ImageSets;
    type Data = LabelledImageData;
    type Batch = LabelledImageBatch;
    type Objective<B: AutodiffBackend> = ImageClasses<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.loss.check()?;
        self.data.check(recipe)
    }

    fn source(&self) -> Result<ImageSets, Failure> {
        self.data.source()
    }

    fn data(
        &self,
        _: &Recipe,
        start: &Start,
        images: ImageSets,
    ) -> Result<LabelledImageData, Failure> {
        let (splits, config) = self.data.read(images, self.augment, start)?;
        let data = &self.data;
        let splits = LabelledImageSplits::new(
            splits,
            data.label_limit.unwrap_or_default(),
            data.split_seed,
        )?;
        Ok(LabelledImageData { splits, config })
    }

    fn product(&self, data: &LabelledImageData) -> Result<Product, Failure> {
        let classes = Some(data.splits.classes.as_slice());
        Ok(image::product(&data.config, HeadKind::Classes, classes))
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &LabelledImageData,
        start: &Start,
        device: &B::Device,
    ) -> Result<ImageClasses<B>, Failure> {
        let names = data.config.names(HeadKind::Classes);
        let LabelledImageSplits { classes, train, .. } = &data.splits;
        let model = ImageClassifier::draw(&data.config, classes.len(), &start.draw(device, names));
        let model = start.fill(model, names, Load::Backbone)?;
        let targets = train.classes.iter().copied();
        Ok(ImageClasses::new(
            model,
            self.loss.over(classes.len(), targets),
        ))
    }

    fn batches(
        &self,
        recipe: &Recipe,
        data: LabelledImageData,
    ) -> Result<Splits<LabelledImageBatch>, Failure> {
        Ok(data.splits.batches(recipe, self.augment))
    }
}
