//! Boxes around things in images. In: pictures of any size. Out: boxes in pixels of these; mean average precision.

use burn::prelude::*;
use data::Picture;
use data::augment::Placement;
use data::image::BoxLabel;
use model::heads::detection::Found;
use model::{Bundle, Detector, HeadKind};
use serde::Deserialize;
use train::Failure;
use train::job::image::ImageModel;
use train::objectives::boxes::box_loss;
use train::scores::cells::{Limits, detections};
use train::scores::detection::{Detection, DetectionTally, TrueBox};

use super::image_scores::{Eye, Seen, pictures};
use super::prediction::BoxGuess;
use super::{
    Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally, other_kind,
};
use crate::open;

/// Finds boxes.
pub struct Boxes<B: Backend> {
    model: Detector<B>,
    eye: Eye,
    classes: Vec<String>,
    limits: Limits,
    device: B::Device,
}

/// What a bundle says of which boxes stay; where it says nothing, what is usual in training.
#[derive(Deserialize)]
struct SaidLimits {
    detection_score: Option<f64>,
    detection_overlap: Option<f64>,
}

impl<B: Backend> Boxes<B> {
    /// Loads a model that finds boxes.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let ImageModel { config, input } = open::image_model(bundle)?;
        open::check_maps(bundle, &config)?;
        let names = open::require(bundle, HeadKind::Boxes)?;
        let classes = bundle.classes()?;
        let said: SaidLimits = bundle.head_config()?;
        let model = Detector::draw(&config, classes.len(), &bundle.draw(device, names));
        Ok(Self {
            model: open::filled(bundle, model, names)?,
            eye: Eye::new(&input),
            classes,
            limits: Limits {
                score: said.detection_score.unwrap_or(0.05),
                overlap: said.detection_overlap.unwrap_or(0.6),
            },
            device: device.clone(),
        })
    }

    /// Boxes of each picture as the model sees it.
    ///
    /// - look: at what the model says of a batch, and which picture is its first
    fn seen(
        &self,
        pictures: &[&Picture],
        asked: &Asked,
        look: &mut dyn FnMut(usize, &Found<B>),
    ) -> Vec<Vec<Detection>> {
        let size = self.eye.seen.view.size;
        let mut all = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(asked.batch_size.max(1)) {
            let found = self
                .model
                .find(self.eye.batch(pictures).tensor(&self.device));
            look(all.len(), &found);
            all.extend(detections(found, size, self.limits));
        }
        all
    }

    fn said(&self, pictures: &[&Picture], seen: &[Vec<Detection>], asked: &Asked) -> Said {
        let rows = pictures.iter().zip(seen);
        let outputs = rows.map(|(picture, seen)| {
            let placement = self.eye.placement(picture.size());
            let is_sure = |one: &&Detection| asked.threshold.is_none_or(|least| one.score >= least);
            let guess = |one: &Detection| {
                let [x, y, width, height] = put_back(one.corners, placement, picture.size());
                BoxGuess {
                    name: self.classes[one.class as usize].clone(),
                    score: one.score,
                    x,
                    y,
                    width,
                    height,
                }
            };
            Output::Boxes(seen.iter().filter(is_sure).map(guess).collect())
        });
        Said {
            outputs: outputs.collect(),
            ..Said::default()
        }
    }
}

/// Left, top, width and height in a picture, of corners as the model sees it.
fn put_back(corners: [f32; 4], placement: Placement, size: [usize; 2]) -> [f32; 4] {
    let old = |axis: usize, new: f32| {
        let old = placement.scale[axis] * f64::from(new) + placement.offset[axis];
        old.clamp(0.0, size[axis] as f64) as f32
    };
    let [left, top, right, bottom] = corners;
    let (x, y) = (old(1, left), old(0, top));
    [x, y, old(1, right) - x, old(0, bottom) - y]
}

impl<B: Backend> Task for Boxes<B> {
    fn name(&self) -> &'static str {
        "detection"
    }

    fn reads(&self) -> Reads {
        Reads::Image
    }

    fn labelled(&self) -> Labelled {
        Labelled::default()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn view(&self) -> Option<Seen> {
        Some(self.eye.seen.clone())
    }

    fn has_threshold(&self) -> bool {
        true
    }

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        let pictures = pictures(rows, self.name())?;
        let seen = self.seen(&pictures, asked, &mut |_, _| {});
        Ok(self.said(&pictures, &seen, asked))
    }

    fn tally(&self, _: &Settings) -> Result<TaskTally, Failure> {
        Ok(TaskTally::of(DetectionTally::default()))
    }

    fn evaluate(
        &self,
        rows: &[Row],
        targets: &[Target],
        asked: &Asked,
        tally: &mut TaskTally,
    ) -> Result<Said, Failure> {
        let pictures = pictures(rows, self.name())?;
        let size = self.eye.seen.view.size;
        let placed = |(picture, target): (&&Picture, &Target)| match target {
            Target::Boxes(labels) => {
                let placement = self.eye.placement(picture.size());
                let placed = labels
                    .iter()
                    .filter_map(|label| placement.label(label, size));
                Ok(placed.collect())
            }
            _ => Err(other_kind(self.name(), "target")),
        };
        let labels = pictures.iter().zip(targets).map(placed);
        let labels: Vec<Vec<BoxLabel>> = labels.collect::<Result<_, _>>()?;
        let seen = self.seen(&pictures, asked, &mut |first, found| {
            let [n, ..] = found.classes.dims();
            let sums = box_loss(found.clone(), &labels[first..first + n], size);
            tally.add_loss(sums.loss.into_scalar().elem(), sums.weight);
        });
        for (seen, labels) in seen.iter().zip(&labels) {
            let truths: Vec<TrueBox> = labels.iter().map(TrueBox::of).collect();
            let number = tally.next_image();
            if let Some(judged) = &mut tally.judged.boxes {
                judged.add(number, seen, &truths);
            }
        }
        Ok(self.said(&pictures, &seen, asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::augment::View;

    #[test]
    fn boxes_are_in_pixels_of_the_picture() {
        let placement = View::stretched([2, 4]).placement([4, 4]);
        let found = put_back([1.0, 0.5, 3.0, 9.0], placement, [4, 4]);
        assert_eq!(found, [1.0, 1.0, 2.0, 3.0]);
    }
}
