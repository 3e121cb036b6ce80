//! Image classification. In: labelled images and a pretrained encoder. Out: a classifier.
//!
//! The encoder keeps its weights, the head is drawn anew.

use burn::tensor::backend::AutodiffBackend;
use model::{HeadKind, ImageClassifier};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::image::{
    self, ImageModel, ImageRowSets, ImagesWithLabels, LabelledAugment, LabelledImageBatch,
    LabelledImageSplits,
};
use train::job::{Job, Product, Recipe, Splits, Start, ToSheet};
use train::objectives::class_loss::ClassLossRecipe;
use train::objectives::classes::ImageClasses;
use train::recipe::Impossible;

/// The task; `assets/recipes/image-classification.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageClassification {
    /// Which images, and how they are split.
    pub data: ImagesWithLabels,
    /// How training images are changed and mixed.
    pub augment: LabelledAugment,
    /// Cross-entropy over the classes.
    pub loss: ClassLossRecipe,
}

/// Labelled splits, and the model for their images.
pub struct LabelledImageData {
    splits: LabelledImageSplits,
    model: ImageModel,
}

impl Job for ImageClassification {
    const NAME: &'static str = "image-classification";
    const ABOUT: &'static str = "classes of images with any image family";
    const KEY: &'static str = "task";
    const RECIPE: &'static str = include_str!("../../assets/recipes/image-classification.toml");
    const HAS_IMAGES: bool = true;
    type Source = ImageRowSets;
    type Data = LabelledImageData;
    type Batch = LabelledImageBatch;
    type Objective<B: AutodiffBackend> = ImageClasses<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.loss.check()?;
        self.augment.check(recipe)?;
        if !self.augment.mix.is_empty() {
            self.loss.check_mixed()?;
        }
        self.data.images.check(recipe)
    }

    fn source(&self, start: &Start) -> Result<ImageRowSets, Failure> {
        self.data.images.source(start)
    }

    fn data(
        &self,
        _: &Recipe,
        start: &Start,
        images: ImageRowSets,
    ) -> Result<LabelledImageData, Failure> {
        let data = &self.data.images;
        let (splits, model) =
            data.read(images, &self.augment.pictures, HeadKind::Classes, start)?;
        let (all, split_seed) = (splits.train.len(), self.data.images.split_seed);
        let splits = LabelledImageSplits::new(splits, self.data.label_limit, split_seed)?;
        let used = splits.train.classes.len();
        if used < all {
            start.console.note(&format!("labels used {used} of {all}"));
        }
        Ok(LabelledImageData { splits, model })
    }

    fn product(&self, data: &LabelledImageData) -> Result<Product, Failure> {
        let classes = Some(data.splits.classes.as_slice());
        Ok(image::product(&data.model, HeadKind::Classes, classes))
    }

    fn sheet(&self, data: &LabelledImageData) -> Option<ToSheet<LabelledImageBatch>> {
        let (input, classes) = (data.model.input.clone(), data.splits.classes.clone());
        Some(Box::new(move |batch| batch.sheet(&input, &classes)))
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &LabelledImageData,
        start: &Start,
        device: &B::Device,
    ) -> Result<ImageClasses<B>, Failure> {
        let config = &data.model.config;
        let names = config.names(HeadKind::Classes);
        let LabelledImageSplits { classes, train, .. } = &data.splits;
        let model = ImageClassifier::draw(config, classes.len(), &start.draw(device, names));
        let load = start.load_for(HeadKind::Classes, classes)?;
        let model = start.fill(model, names, load)?;
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
        Ok(data
            .splits
            .batches(recipe, &data.model.input, self.augment.clone()))
    }
}
