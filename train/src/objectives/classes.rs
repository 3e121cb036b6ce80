//! One class of several: of a text, of an image. In: labelled batches. Out: sums, and a confusion matrix.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use model::families::Place;
use model::{ImageClassifier, TextClassifier};

use crate::job::image::{LabelledImageBatch, PixelBatch};
use crate::job::text::{LabelledBatch, indices};
use crate::job::{BundleWriter, Exported};
use crate::metrics::Metric;
use crate::objective::{LossSums, Objective};
use crate::objectives::class_loss::ClassLoss;
use crate::objectives::class_tally::{ClassTally, metrics_of};

/// A classifier of texts with its loss.
#[derive(Module, Debug)]
pub struct TextClasses<B: Backend> {
    /// The model.
    pub model: TextClassifier<B>,
    loss: ClassLoss,
    place: Place,
    n_classes: usize,
}

impl<B: Backend> TextClasses<B> {
    /// A model that learns by this loss.
    ///
    /// - place: whose state its head reads
    pub fn new(model: TextClassifier<B>, loss: ClassLoss, place: Place) -> Self {
        Self {
            n_classes: model.head.n_classes(),
            model,
            loss,
            place,
        }
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
    const METRICS: &'static [Metric] = metrics_of(0);

    fn metrics(&self) -> &'static [Metric] {
        metrics_of(self.n_classes)
    }

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
    n_classes: usize,
}

impl<B: Backend> ImageClasses<B> {
    /// A model that learns by this loss.
    pub fn new(model: ImageClassifier<B>, loss: ClassLoss) -> Self {
        Self {
            n_classes: model.head.n_classes(),
            model,
            loss,
        }
    }

    /// Scores of the classes, `[batch, n_classes]`.
    fn logits(&self, images: &PixelBatch, device: &B::Device) -> Tensor<B, 2> {
        self.model.logits(images.tensor(device))
    }

    /// The logarithm of the mean probabilities over all views of each image, `[batch, n_classes]`.
    fn mean_of_views(&self, batch: &LabelledImageBatch, device: &B::Device) -> Tensor<B, 2> {
        let log = |images| log_softmax(self.logits(images, device), 1);
        let (first, others) = (log(&batch.inputs), batch.views.iter().map(log));
        let others: Vec<_> = others.collect();
        let n = (others.len() + 1) as f64;
        let most = others.iter().cloned();
        let most = most.fold(first.clone(), Tensor::max_pair);
        let share = |log: Tensor<B, 2>| (log - most.clone()).exp();
        let sum = others
            .into_iter()
            .map(share)
            .fold(share(first), Tensor::add);
        (sum / n).log() + most
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
    const METRICS: &'static [Metric] = metrics_of(0);

    fn metrics(&self) -> &'static [Metric] {
        metrics_of(self.n_classes)
    }

    fn loss(&self, batch: &LabelledImageBatch, device: &B::Device) -> LossSums<B> {
        let logits = self.logits(&batch.inputs, device);
        match &batch.shares {
            Some(shares) => self.loss.sums_of_shares(logits, shares),
            None => self.loss.sums(logits, &batch.targets),
        }
    }

    fn evaluate(&self, batch: &LabelledImageBatch, device: &B::Device) -> ClassTally {
        let logits = match batch.views.as_slice() {
            [] => self.logits(&batch.inputs, device),
            _ => self.mean_of_views(batch, device),
        };
        ClassTally::read(logits, &batch.targets)
    }
}
