//! Object detection: boxes around things. In: images with boxes. Out: a model that finds them in one stage, without anchors (FCOS).
//!
//! Tian et al. 2019, <https://arxiv.org/abs/1904.01355>; the loss is in [`train::objectives::boxes`].

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::image::{BoxLabel, ImageTargets, TargetKind};
use model::{Detector, HeadKind};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::Start;
use train::job::image::{ImageModel, ImageRows};
use train::metrics::Metric;
use train::objective::LossSums;
use train::objectives::boxes::box_loss;
use train::recipe::Impossible;
use train::scores::cells::{Limits, detections};
use train::scores::detection::{DetectionTally, TrueBox};

use crate::targets::{
    OnImages, TargetBatch, TargetLoss, Targets, VisionObjective, VisionTally, VisionTask,
};

/// The task; `assets/recipes/object-detection.toml` and the files that it names explain every key.
pub type ObjectDetection = OnImages<DetectionTask>;

/// Its own sections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DetectionTask {
    /// Which boxes stay.
    pub detection: DetectionRecipe,
}

/// `[detection]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectionRecipe {
    /// A box whose score is lower is none.
    pub score: f64,
    /// A box that overlaps a surer one of its class by more is none, as intersection over union.
    pub overlap: f64,
}

impl VisionTask for DetectionTask {
    const NAME: &'static str = "object-detection";
    const ABOUT: &'static str = "boxes around things in images";
    const RECIPE: &'static str = include_str!("../../assets/recipes/object-detection.toml");
    const HEAD: HeadKind = HeadKind::Boxes;
    const NEEDS: &'static str =
        "boxes: COCO's JSON beside them, or a folder with JPEGImages and Annotations in VOC's XML";
    const COLUMN: TargetKind = TargetKind::Class;
    const PLACED: bool = true;

    fn check(&self) -> Result<(), Impossible> {
        let DetectionRecipe { score, overlap } = self.detection;
        for (key, value) in [("score", score), ("overlap", overlap)] {
            if !(0.0..=1.0).contains(&value) {
                let reason = format!("is {value}; it must be at least 0 and at most 1");
                return Err(Impossible::new(format!("detection.{key}"), reason));
            }
        }
        Ok(())
    }

    fn takes(targets: &ImageTargets) -> bool {
        matches!(targets, ImageTargets::Boxes(_))
    }

    fn head_config(&self, _: &ImageRows) -> serde_json::Value {
        serde_json::json!({
            "detection_score": self.detection.score,
            "detection_overlap": self.detection.overlap,
        })
    }

    fn objective<B: AutodiffBackend>(
        &self,
        model: &ImageModel,
        classes: &[String],
        _: &ImageRows,
        start: &Start,
        device: &B::Device,
    ) -> Result<VisionObjective<B>, Failure> {
        let config = &model.config;
        let names = config.names(Self::HEAD);
        let model = Detector::draw(config, classes.len(), &start.draw(device, names));
        let load = start.load_for(Self::HEAD, classes)?;
        let model = start.fill(model, names, load)?;
        let DetectionRecipe { score, overlap } = self.detection;
        Ok(Boxes {
            model,
            score,
            overlap,
        }
        .into())
    }
}

/// A model that finds boxes, with its loss.
#[derive(Module, Debug)]
pub struct Boxes<B: Backend> {
    /// The model.
    pub model: Detector<B>,
    score: f64,
    overlap: f64,
}

/// The true boxes of each image.
fn boxes(batch: &TargetBatch) -> &[Vec<BoxLabel>] {
    match &batch.targets {
        Targets::Boxes(boxes) => boxes,
        _ => &[],
    }
}

/// Height and width of the images.
fn size(batch: &TargetBatch) -> [usize; 2] {
    [batch.images.height, batch.images.width]
}

impl<B: Backend> TargetLoss<B> for Boxes<B> {
    type Model = Detector<B>;
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::higher("map"),
        Metric::higher("map_50"),
        Metric::higher("map_75"),
        Metric::higher("mar_100"),
    ];

    fn model(&self) -> Self::Model {
        self.model.clone()
    }

    fn loss(&self, batch: &TargetBatch, device: &B::Device) -> LossSums<B> {
        let found = self.model.find(batch.images.tensor(device));
        box_loss(found, boxes(batch), size(batch))
    }

    fn tally(&self, batch: &TargetBatch, device: &B::Device) -> VisionTally {
        let found = self.model.find(batch.images.tensor(device));
        let sums = box_loss(found.clone(), boxes(batch), size(batch));
        let limits = Limits {
            score: self.score,
            overlap: self.overlap,
        };
        let detections = detections(found, size(batch), limits);
        let mut judged = DetectionTally::default();
        for ((row, found), boxes) in batch.rows.iter().zip(detections).zip(boxes(batch)) {
            let truths: Vec<TrueBox> = boxes.iter().map(TrueBox::of).collect();
            judged.add(*row, &found, &truths);
        }
        VisionTally::read(sums, judged)
    }
}
