//! A class for each pixel of images. In: pictures of any size. Out: masks of the same sizes; Dice and intersection over union.

use burn::prelude::*;
use data::Picture;
use data::augment::Placement;
use data::image::IGNORED;
use model::{Bundle, HeadKind, Segmenter};
use train::Failure;
use train::job::image::ImageModel;
use train::objectives::masks::{by_pixel, mask_loss};
use train::scores::judged::merge;
use train::scores::masks::MaskTally;

use super::image_scores::{Eye, Seen, pictures};
use super::prediction::{MaskGuess, Share};
use super::tally::Cost;
use super::{
    Asked, Labelled, Output, Reads, Row, Said, Settings, Target, Task, TaskTally, other_kind,
};
use crate::open;

/// Draws masks.
pub struct Masks<B: Backend> {
    model: Segmenter<B>,
    eye: Eye,
    classes: Vec<String>,
    device: B::Device,
}

impl<B: Backend> Masks<B> {
    /// Loads a model that segments.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let ImageModel { config, input } = open::image_model(bundle)?;
        open::check_maps(bundle, &config)?;
        let names = open::require(bundle, HeadKind::Masks)?;
        let classes = bundle.classes()?;
        if classes.len() > usize::from(IGNORED) {
            let (n, place) = (classes.len(), bundle.path().display());
            return Err(Failure::input(format!(
                "{place}: has {n} classes, and a mask has room for {IGNORED}"
            )));
        }
        let model = Segmenter::draw(&config, classes.len(), &bundle.draw(device, names));
        Ok(Self {
            model: open::filled(bundle, model, names)?,
            eye: Eye::new(&input),
            classes,
            device: device.clone(),
        })
    }

    /// The class of each pixel as the model sees the pictures, `[height, width]` each.
    ///
    /// - look: at the logits of a batch, `[n, n_classes, height, width]`, and which picture is its first
    fn seen(
        &self,
        pictures: &[&Picture],
        asked: &Asked,
        look: &mut dyn FnMut(usize, &Tensor<B, 4>),
    ) -> Vec<Vec<u8>> {
        let mut all = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(asked.batch_size.max(1)) {
            let images = self.eye.batch(pictures).tensor(&self.device);
            let logits = self.model.logits(images);
            look(all.len(), &logits);
            let [n, _, height, width] = logits.dims();
            let classes = logits.argmax(1).reshape([n * height * width]).into_data();
            let classes: Vec<u8> = classes.iter::<i64>().map(|class| class as u8).collect();
            all.extend(classes.chunks(height * width).map(<[u8]>::to_vec));
        }
        all
    }

    fn output(&self, picture: &Picture, seen: &[u8]) -> Output {
        let placement = self.eye.placement(picture.size());
        let pixels = put_back(seen, self.eye.seen.view.size, placement, picture.size());
        let mut counts = vec![0_usize; self.classes.len()];
        for &class in pixels.iter().filter(|class| **class != IGNORED) {
            counts[usize::from(class)] += 1;
        }
        let known = counts.iter().sum::<usize>().max(1) as f32;
        let mut order: Vec<usize> = (0..counts.len())
            .filter(|&class| counts[class] > 0)
            .collect();
        order.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
        let share = |class: usize| Share {
            name: self.classes[class].clone(),
            share: counts[class] as f32 / known,
        };
        Output::Mask(MaskGuess {
            classes: order.into_iter().map(share).collect(),
            file: None,
            height: picture.height,
            width: picture.width,
            pixels,
        })
    }

    fn said(&self, pictures: &[&Picture], seen: &[Vec<u8>]) -> Said {
        let rows = pictures.iter().zip(seen);
        Said {
            outputs: rows
                .map(|(picture, seen)| self.output(picture, seen))
                .collect(),
            ..Said::default()
        }
    }
}

/// A mask as the model sees the picture, as one of the picture itself; what the model does not see belongs to no class.
///
/// - seen: `[height, width]` of the model's size
/// - placement: where in the picture the model's pixels come from
/// - to: height and width of the picture
fn put_back(seen: &[u8], from: [usize; 2], placement: Placement, to: [usize; 2]) -> Vec<u8> {
    let source = |at: usize, axis: usize| {
        let new = (at as f64 + 0.5 - placement.offset[axis]) / placement.scale[axis];
        (new >= 0.0 && new < from[axis] as f64).then_some(new as usize)
    };
    let columns: Vec<Option<usize>> = (0..to[1]).map(|x| source(x, 1)).collect();
    let mut pixels = Vec::with_capacity(to[0] * to[1]);
    for y in 0..to[0] {
        let row = source(y, 0);
        pixels.extend(columns.iter().map(|column| match (row, column) {
            (Some(row), Some(column)) => seen[row * from[1] + column],
            _ => IGNORED,
        }));
    }
    pixels
}

impl<B: Backend> Task for Masks<B> {
    fn name(&self) -> &'static str {
        "segmentation"
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

    fn predict(&self, rows: &[Row], asked: &Asked) -> Result<Said, Failure> {
        let pictures = pictures(rows, self.name())?;
        let seen = self.seen(&pictures, asked, &mut |_, _| {});
        Ok(self.said(&pictures, &seen))
    }

    fn tally(&self, settings: &Settings) -> Result<TaskTally, Failure> {
        Ok(TaskTally {
            cost: settings.dice()?.map(Cost::Mask),
            ..TaskTally::of(MaskTally::new(self.classes.len()))
        })
    }

    fn evaluate(
        &self,
        rows: &[Row],
        targets: &[Target],
        asked: &Asked,
        tally: &mut TaskTally,
    ) -> Result<Said, Failure> {
        let pictures = pictures(rows, self.name())?;
        let truth = |(picture, target): (&&Picture, &Target)| match target {
            Target::Mask(mask) => Ok(self.eye.placement(picture.size()).mask(
                &mask.classes,
                [mask.height, mask.width],
                self.eye.seen.view.size,
            )),
            _ => Err(other_kind(self.name(), "target")),
        };
        let truths = pictures.iter().zip(targets).map(truth);
        let truths: Vec<Vec<u8>> = truths.collect::<Result<_, _>>()?;
        let cost = tally.cost;
        let seen = self.seen(&pictures, asked, &mut |first, logits| {
            if let Some(Cost::Mask(dice)) = cost {
                let [n, ..] = logits.dims();
                let (logits, area) = by_pixel(logits.clone());
                let sums = mask_loss(logits, area, &truths[first..first + n].concat(), dice);
                tally.add_loss(sums.loss.into_scalar().elem(), sums.weight);
            }
        });
        let mut judged = MaskTally::new(self.classes.len());
        for (seen, truth) in seen.iter().zip(&truths) {
            let [seen, truth] = [seen, truth].map(|all| all.iter().map(|&class| class.into()));
            let (seen, truth): (Vec<u32>, Vec<u32>) = (seen.collect(), truth.collect());
            judged.add(&seen, &truth);
        }
        merge(&mut tally.judged.masks, Some(judged));
        Ok(self.said(&pictures, &seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::augment::View;

    #[test]
    fn a_mask_has_the_size_of_its_picture() {
        let view = View::stretched([2, 2]);
        let mask = put_back(&[0, 1, 2, 3], [2, 2], view.placement([4, 4]), [4, 4]);
        assert_eq!(mask, [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]);
        // The middle alone is seen.
        let view = View::cropped([2, 2], 1.0);
        let mask = put_back(&[0, 1, 2, 3], [2, 2], view.placement([2, 4]), [2, 4]);
        assert_eq!(mask, [IGNORED, 0, 1, IGNORED, IGNORED, 2, 3, IGNORED]);
    }
}
