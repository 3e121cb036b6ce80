//! Why a classifier of images said what it said. In: its bundle, a picture. Out: an attribution a pixel that the model sees.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use data::{CutTexts, Picture};
use model::{Bundle, HeadKind, ImageClassifier};
use train::Failure;
use train::job::image::ImageModel;

use super::explanation::{Completeness, Subject, total};
use super::method::Method;
use super::quadrature::gauss_legendre;
use super::rollout::rollout;
use super::texts::{mean_of_heads, weighted};
use super::work::{Asked, Attributed, best};
use crate::open;
use crate::task::image_scores::Eye;

/// Values of images in a forward pass.
const VALUES: usize = 1 << 20;
/// Patches side by side along the shorter side of an image; each overlaps the next by half.
const PATCHES: usize = 8;

/// A loaded classifier of images.
pub(super) struct ImageExplainer<B: AutodiffBackend> {
    model: ImageClassifier<B>,
    eye: Eye,
    place: String,
    family: &'static str,
    device: B::Device,
}

impl<B: AutodiffBackend> ImageExplainer<B> {
    /// Loads a classifier.
    ///
    /// # Errors
    ///
    /// A bundle of another kind, or one whose weights do not fit.
    pub(super) fn open(bundle: &Bundle, device: &B::Device) -> Result<Self, Failure> {
        let ImageModel { mut config, input } = open::image_model(bundle)?;
        // Where gradients are had, layers take themselves to be in training.
        config.set_dropout(0.0);
        let names = open::require(bundle, HeadKind::Classes)?;
        let draw = bundle.draw(device, names).without_training();
        let model = ImageClassifier::draw(&config, bundle.classes()?.len(), &draw);
        Ok(Self {
            model: open::filled::<B, _>(bundle, model, names)?.no_grad(),
            eye: Eye::new(&input),
            place: bundle.path().display().to_string(),
            family: bundle.family().model_type,
            device: device.clone(),
        })
    }

    /// Explains a picture of any size.
    ///
    /// # Errors
    ///
    /// Grad-CAM is asked of a model without maps, or attention rollout of one without attention.
    pub(super) fn explain(&self, picture: &Picture, asked: &Asked) -> Result<Attributed, Failure> {
        let seen = self.eye.seen.view.apply(picture.clone());
        let image = self.eye.batch(&[picture]).pixels;
        let logits = self.logits(&image).remove(0);
        let class = asked.class.unwrap_or_else(|| best(&logits));
        let score = logits[class];
        let mut completeness = None;
        let values = match asked.method {
            Method::IntegratedGradients => {
                let black = self.black();
                let values = self.integrated_gradients(&image, &black, class, asked.steps);
                completeness = Some(Completeness {
                    sum: total(&values),
                    at_input: score.into(),
                    at_baseline: self.logits(&black)[0][class].into(),
                });
                values
            }
            Method::Occlusion => self.occlusion(&image, class, score),
            Method::GradCam => self.grad_cam(&image, class)?,
            Method::AttentionRollout => self.attention_rollout(&image)?,
        };
        Ok(Attributed {
            class,
            logits,
            completeness,
            cut: CutTexts::default(),
            subject: Subject::Image(seen, values),
        })
    }

    /// Channels, height and width of what the model sees.
    fn shape(&self) -> [usize; 3] {
        let [height, width] = self.eye.seen.view.size;
        [self.eye.seen.channels, height, width]
    }

    fn tensor<T: Backend<Device = B::Device>>(&self, images: &[f32]) -> Tensor<T, 4> {
        let [channels, height, width] = self.shape();
        let n = images.len() / (channels * height * width).max(1);
        let data = TensorData::new(images.to_vec(), [n, channels, height, width]);
        Tensor::from_data(data, &self.device)
    }

    /// A black image as the model sees it.
    fn black(&self) -> Vec<f32> {
        let [channels, height, width] = self.shape();
        let black = Picture::new(
            channels,
            [height, width],
            vec![0; channels * height * width],
        );
        self.eye.batch(&[&black]).pixels
    }

    /// Images in a forward pass.
    fn at_once(&self) -> usize {
        (VALUES / self.shape().iter().product::<usize>().max(1)).clamp(1, 64)
    }

    /// Logits of images, one after the other.
    fn logits(&self, images: &[f32]) -> Vec<Vec<f32>> {
        let scores = self.model.logits(self.tensor::<B>(images));
        let [_, n_classes] = scores.dims();
        let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
        scores
            .chunks(n_classes.max(1))
            .map(<[f32]>::to_vec)
            .collect()
    }

    /// Sundararajan et al. 2017, <https://arxiv.org/abs/1703.01365>, over pixels; the sum over channels.
    fn integrated_gradients(
        &self,
        image: &[f32],
        black: &[f32],
        class: usize,
        steps: usize,
    ) -> Vec<f32> {
        let [channels, height, width] = self.shape();
        let baseline = self.tensor::<B::InnerBackend>(black);
        let way = self.tensor::<B::InnerBackend>(image) - baseline.clone();
        let mut total = way.zeros_like();
        for points in gauss_legendre(steps).chunks(self.at_once()) {
            let point = |&(place, _): &(f64, f64)| baseline.clone() + way.clone() * place;
            let read = Tensor::cat(points.iter().map(point).collect(), 0);
            let read = Tensor::<B, 4>::from_inner(read).require_grad();
            let score = weighted(self.model.logits(read.clone()), class, points);
            if let Some(grad) = read.grad(&score.backward()) {
                total = total + grad.sum_dim(0);
            }
        }
        let values = (total * way).reshape([channels, height * width]).sum_dim(0);
        values.into_data().iter::<f32>().collect()
    }

    /// How far the class's score falls where a black patch hides pixels, the mean over the patches that hide each: Zeiler and
    /// Fergus 2014, <https://arxiv.org/abs/1311.2901>.
    fn occlusion(&self, image: &[f32], class: usize, score: f32) -> Vec<f32> {
        let [channels, height, width] = self.shape();
        let black = self.black();
        let side = height.min(width).div_ceil(PATCHES);
        let patches: Vec<[usize; 4]> = windows(height, side)
            .flat_map(|[top, bottom]| {
                windows(width, side).map(move |[left, right]| [top, bottom, left, right])
            })
            .collect();
        let (mut sums, mut counts) = (vec![0.0_f32; height * width], vec![0.0_f32; height * width]);
        for patches in patches.chunks(self.at_once()) {
            let mut hidden = image.repeat(patches.len());
            let images = hidden.chunks_mut(image.len());
            for (image, &[top, bottom, left, right]) in images.zip(patches) {
                for row in (0..channels).flat_map(|c| (top..bottom).map(move |y| c * height + y)) {
                    let pixels = row * width + left..row * width + right;
                    image[pixels.clone()].copy_from_slice(&black[pixels]);
                }
            }
            for (logits, &[top, bottom, left, right]) in self.logits(&hidden).iter().zip(patches) {
                for at in (top..bottom).flat_map(|y| (left..right).map(move |x| y * width + x)) {
                    sums[at] += score - logits[class];
                    counts[at] += 1.0;
                }
            }
        }
        let pairs = sums.iter().zip(&counts);
        pairs.map(|(sum, count)| sum / count).collect()
    }

    /// Selvaraju et al. 2017, <https://arxiv.org/abs/1610.02391>, of the last maps, enlarged to the image.
    fn grad_cam(&self, image: &[f32], class: usize) -> Result<Vec<f32>, Failure> {
        let Some(maps) = self.model.backbone.last_maps(self.tensor::<B>(image)) else {
            let (place, family) = (&self.place, self.family);
            return Err(Failure::input(format!(
                "{place}: {family} classifies by no feature maps, which grad-cam needs; integrated-gradients and occlusion fit it"
            )));
        };
        let maps = maps.inner();
        let [_, channels, rows, columns] = maps.dims();
        let read = Tensor::<B, 4>::from_inner(maps.clone()).require_grad();
        let pooled = self.model.backbone.pool(read.clone());
        let score = self.model.head.forward(pooled).narrow(1, class, 1).sum();
        let Some(grad) = read.grad(&score.backward()) else {
            return Ok(vec![0.0; self.shape()[1] * self.shape()[2]]);
        };
        let places = rows * columns;
        let weights = grad.reshape([channels, places]).mean_dim(1);
        let map = (maps.reshape([channels, places]) * weights).sum_dim(0);
        let map: Vec<f32> = map
            .into_data()
            .iter::<f32>()
            .map(|value| value.max(0.0))
            .collect();
        Ok(enlarged(&map, [rows, columns], self.eye.seen.view.size))
    }

    /// Of the class token, which the classifier reads.
    fn attention_rollout(&self, image: &[f32]) -> Result<Vec<f32>, Failure> {
        let Some(found) = self.model.backbone.attentions(self.tensor::<B>(image)) else {
            let (place, family) = (&self.place, self.family);
            return Err(Failure::input(format!(
                "{place}: {family} has no attention, which attention-rollout needs; integrated-gradients and occlusion fit it"
            )));
        };
        let [rows, columns] = found.grid;
        let layers: Vec<Vec<f32>> = found.layers.into_iter().map(mean_of_heads).collect();
        let shares = rollout(&layers, 1 + rows * columns, 0);
        let size = self.eye.seen.view.size;
        Ok(spread(&shares[1..], columns, found.patch, size))
    }
}

/// The share of its patch for each pixel, and nothing for those at the right and lower edge that are of no patch.
///
/// - shares: of the patches, row by row
/// - columns: patches side by side
/// - patch: height and width of one, in pixels
fn spread(
    shares: &[f32],
    columns: usize,
    patch: [usize; 2],
    [height, width]: [usize; 2],
) -> Vec<f32> {
    let mut values = Vec::with_capacity(height * width);
    for y in 0..height {
        let row = shares.chunks(columns).nth(y / patch[0]).unwrap_or_default();
        values.extend((0..width).map(|x| row.get(x / patch[1]).copied().unwrap_or(0.0)));
    }
    values
}

/// From and to of windows of one width that cover a length and overlap by half; the last may be narrower.
fn windows(length: usize, side: usize) -> impl Iterator<Item = [usize; 2]> {
    let stride = side.div_ceil(2).max(1);
    let last = length.saturating_sub(side).div_ceil(stride);
    (0..=last).map(move |number| [number * stride, (number * stride + side).min(length)])
}

/// A map in another size, bilinearly; pixels are areas, not points.
fn enlarged(map: &[f32], [rows, columns]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f32> {
    // The two neighbours of a place, and the share of the second.
    let between = |at: usize, from: usize, to: usize| {
        let place = ((at as f32 + 0.5) * from as f32 / to as f32 - 0.5).max(0.0);
        let first = (place as usize).min(from - 1);
        (first, (first + 1).min(from - 1), place - first as f32)
    };
    let mix = |a: f32, b: f32, share: f32| a + (b - a) * share;
    let mut values = Vec::with_capacity(height * width);
    for y in 0..height {
        let (top, bottom, down) = between(y, rows, height);
        for x in 0..width {
            let (left, right, across) = between(x, columns, width);
            let row = |row: usize| {
                mix(
                    map[row * columns + left],
                    map[row * columns + right],
                    across,
                )
            };
            values.push(mix(row(top), row(bottom), down));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_have_the_share_of_their_patch() {
        let values = spread(&[0.25, 0.5], 2, [2, 1], [3, 3]);
        assert_eq!(values, [0.25, 0.5, 0.0, 0.25, 0.5, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn windows_cover_everything() {
        let all = |length, side| windows(length, side).collect::<Vec<_>>();
        assert_eq!(all(4, 2), [[0, 2], [1, 3], [2, 4]]);
        assert_eq!(all(7, 4), [[0, 4], [2, 6], [4, 7]]);
        assert_eq!(all(1, 1), [[0, 1]]);
    }

    #[test]
    fn a_map_is_enlarged_between_the_middles_of_its_pixels() {
        let row = enlarged(&[0.0, 4.0], [1, 2], [1, 4]);
        assert_eq!(row, [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(enlarged(&[3.0], [1, 1], [2, 2]), [3.0; 4]);
    }
}
