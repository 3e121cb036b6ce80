//! Boxes around things, in one stage and without anchors (FCOS). In: images. Out: for each cell of the feature maps the scores
//! of the classes, the distances to the edges of a box, and how central the cell is in it.
//!
//! Tian et al. 2019, <https://arxiv.org/abs/1904.01355>.

use burn::module::{Initializer, Param};
use burn::prelude::*;
use burn::tensor::activation::{relu, sigmoid};

use crate::heads::Headed;
use crate::heads::pyramid::FeaturePyramid;
use crate::layers::{Convolution, Draw};
use crate::ops::Geometry;
use crate::registry::{ImageBackbone, ImageConfig};

/// Channels of the maps.
const WIDTH: usize = 64;
/// Levels of the pyramid that are searched, the coarsest ones.
const LEVELS: usize = 3;
/// Probability of each class at first: most cells hold nothing. Lin et al. 2017, <https://arxiv.org/abs/1708.02002>.
const RARE: f64 = 0.01;

/// Finds boxes in feature maps, with the same layers in all levels.
#[derive(Module, Debug)]
pub struct BoxHead<B: Backend> {
    /// Maps of one width.
    pub pyramid: FeaturePyramid<B>,
    /// Before the classes, each with a rectifier. Without batch normalisation: its running statistics would be those of all
    /// levels together.
    pub class_tower: Vec<Convolution<B>>,
    /// Before the distances.
    pub box_tower: Vec<Convolution<B>>,
    /// 3x3, to the classes.
    pub classes: Convolution<B>,
    /// 3x3, to the four distances.
    pub distances: Convolution<B>,
    /// 3x3, to one score.
    pub centerness: Convolution<B>,
    /// Times the logarithm of the distances, for each level.
    pub scales: Param<Tensor<B, 1>>,
}

/// What is found at the cells of all levels, `n` together, the finest level first, row by row.
#[derive(Clone, Debug)]
pub struct Found<B: Backend> {
    /// Logits, `[batch, n, n_classes]`.
    pub classes: Tensor<B, 3>,
    /// To the left, upper, right and lower edge in pixels, `[batch, n, 4]`.
    pub distances: Tensor<B, 3>,
    /// Logits, `[batch, n]`.
    pub centerness: Tensor<B, 2>,
    /// Rows and columns of each level.
    pub grids: Vec<[usize; 2]>,
}

impl<B: Backend> Found<B> {
    /// How sure each cell is of each class, 0 to 1, `[batch, n, n_classes]`: the mean, as a square root of the product, of the
    /// class's probability and of how central the cell is.
    pub fn scores(&self) -> Tensor<B, 3> {
        let middle: Tensor<B, 3> = sigmoid(self.centerness.clone()).unsqueeze_dim(2);
        (sigmoid(self.classes.clone()) * middle).sqrt()
    }
}

/// A model that finds boxes.
pub type Detector<B> = Headed<B, ImageBackbone<B>, BoxHead<B>>;

impl<B: Backend> Detector<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    ///
    /// # Panics
    ///
    /// If the family has no maps.
    pub fn draw(config: &ImageConfig, n_classes: usize, draw: &Draw<'_, B>) -> Self {
        let levels = config.describe().levels;
        let levels = &levels[levels.len().saturating_sub(LEVELS)..];
        let inside = draw.inside("head");
        let geometry = Geometry::new([1, 1], [1, 1]);
        let tower = || {
            let layer = |_| Convolution::he([WIDTH; 2], [3, 3], geometry, draw.device).with_bias();
            (0..2).map(layer).collect()
        };
        let layer = |width: usize| {
            let device = draw.device;
            Convolution::normal([WIDTH, width], [3, 3], geometry, 0.01, device).with_bias()
        };
        let mut classes = layer(n_classes);
        let rare = -((1.0 - RARE) / RARE).ln();
        classes.bias = Some(Initializer::Constant { value: rare }.init([n_classes], draw.device));
        let head = BoxHead {
            pyramid: FeaturePyramid::new(levels, WIDTH, &inside),
            class_tower: tower(),
            box_tower: tower(),
            classes,
            distances: layer(4),
            centerness: layer(1),
            scales: Initializer::Ones.init([levels.len()], draw.device),
        };
        Self::new(config.init(&draw.inside("backbone")), head)
    }

    /// What is found in images, `[batch, channels, height, width]`.
    pub fn find(&self, images: Tensor<B, 4>) -> Found<B> {
        let [_, _, height, width] = images.dims();
        let mut levels = self.backbone.forward(images).levels;
        let levels = levels.split_off(levels.len().saturating_sub(LEVELS));
        let head = &self.head;
        let levels = head.pyramid.forward(levels);
        let mut found: [Vec<_>; 3] = Default::default();
        let mut grids = Vec::new();
        for (number, maps) in levels.into_iter().enumerate() {
            let [.., rows, columns] = maps.dims();
            let class_maps = through(&head.class_tower, maps.clone());
            let box_maps = through(&head.box_tower, maps);
            let scale = head.scales.val().narrow(0, number, 1);
            let raw = head.distances.forward(box_maps.clone());
            let raw = raw * scale.reshape([1, 1, 1, 1]);
            // In cells, so that numbers are alike in all levels; e^6 is a box of 400 cells.
            let distances = flat(raw.clamp(-6.0, 6.0).exp());
            let step = [width as f32 / columns as f32, height as f32 / rows as f32];
            let step = Tensor::<B, 1>::from_floats(
                [step[0], step[1], step[0], step[1]],
                &distances.device(),
            );
            found[0].push(flat(head.classes.forward(class_maps)));
            found[1].push(distances * step.reshape([1, 1, 4]));
            found[2].push(flat(head.centerness.forward(box_maps)));
            grids.push([rows, columns]);
        }
        let [classes, distances, centerness] = found.map(|levels| Tensor::cat(levels, 1));
        Found {
            classes,
            distances,
            centerness: centerness.squeeze_dim(2),
            grids,
        }
    }
}

fn through<B: Backend>(tower: &[Convolution<B>], maps: Tensor<B, 4>) -> Tensor<B, 4> {
    tower
        .iter()
        .fold(maps, |maps, layer| relu(layer.forward(maps)))
}

/// `[batch, width, rows, columns]` to `[batch, rows * columns, width]`.
fn flat<B: Backend>(maps: Tensor<B, 4>) -> Tensor<B, 3> {
    let [batch, width, rows, columns] = maps.dims();
    maps.reshape([batch, width, rows * columns]).swap_dims(1, 2)
}
