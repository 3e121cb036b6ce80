//! One class of several: of a text, of an image. In: labelled batches. Out: sums, and a confusion matrix.

use burn::prelude::*;
use model::families::Place;
use model::{ImageClassifier, TextClassifier};

use crate::job::image::LabelledImageBatch;
use crate::job::text::{LabelledBatch, indices};
use crate::job::{BundleWriter, Exported};
use crate::metrics::Metric;
use crate::objective::{LossSums, Objective};
use crate::objectives::class_loss::ClassLoss;
use crate::objectives::class_tally::{self, ClassTally};

/// A classifier of texts with its loss.
#[derive(Module, Debug)]
pub struct TextClasses<B: Backend> {
    /// The model.
    pub model: TextClassifier<B>,
    loss: ClassLoss,
    place: Place,
}

impl<B: Backend> TextClasses<B> {
    /// A model that learns by this loss.
    ///
    /// - place: whose state its head reads
    pub fn new(model: TextClassifier<B>, loss: ClassLoss, place: Place) -> Self {
        Self { model, loss, place }
    }

    /// Scores of the classes, `[batch, n_classes]`.
    fn logits(&self, batch: &LabelledBatch, device: &B::Device) -> Tensor<B, 2> {
        let at = indices(&batch.inputs.places(self.place), device);
        self.model.logits(&batch.inputs.input(device), at)
    }
}

impl<B: Backend> Exported<B> for TextClasses<B> {
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl<B: Backend> Objective<B> for TextClasses<B> {
    type Batch = LabelledBatch;
    type Tally = ClassTally;
    const MEANS: &'static [&'static str] = &["accuracy"];
    const METRICS: &'static [Metric] = class_tally::METRICS;

    fn loss(&self, batch: &LabelledBatch, device: &B::Device) -> LossSums<B> {
        self.loss.sums(self.logits(batch, device), &batch.targets)
    }

    fn evaluate(&self, batch: &LabelledBatch, device: &B::Device) -> ClassTally {
        ClassTally::read(self.logits(batch, device), &batch.targets)
    }
}

/// A classifier of images with its loss.
#[derive(Module, Debug)]
pub struct ImageClasses<B: Backend> {
    /// The model.
    pub model: ImageClassifier<B>,
    loss: ClassLoss,
}

impl<B: Backend> ImageClasses<B> {
    /// A model that learns by this loss.
    pub fn new(model: ImageClassifier<B>, loss: ClassLoss) -> Self {
        Self { model, loss }
    }

    /// Scores of the classes, `[batch, n_classes]`.
    fn logits(&self, batch: &LabelledImageBatch, device: &B::Device) -> Tensor<B, 2> {
        self.model.logits(batch.inputs.tensor(device))
    }
}

impl<B: Backend> Exported<B> for ImageClasses<B> {
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl<B: Backend> Objective<B> for ImageClasses<B> {
    type Batch = LabelledImageBatch;
    type Tally = ClassTally;
    const MEANS: &'static [&'static str] = &["accuracy"];
    const METRICS: &'static [Metric] = class_tally::METRICS;

    fn loss(&self, batch: &LabelledImageBatch, device: &B::Device) -> LossSums<B> {
        let logits = self.logits(batch, device);
        match &batch.shares {
            Some(shares) => self.loss.sums_of_shares(logits, shares),
            None => self.loss.sums(logits, &batch.targets),
        }
    }

    fn evaluate(&self, batch: &LabelledImageBatch, device: &B::Device) -> ClassTally {
        ClassTally::read(self.logits(batch, device), &batch.targets)
    }
}
