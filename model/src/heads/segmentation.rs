//! A class for each pixel of an image. In: images. Out: scores of the classes at each pixel.
//!
//! A backbone whose finest maps are as large as the image, as a U-Net's, has one layer more; another one's maps are joined in a
//! feature pyramid and added up at the size of the finest, as Kirillov et al. 2019, <https://arxiv.org/abs/1901.02446>.

use burn::prelude::*;
use burn::tensor::activation::relu;

use crate::heads::Headed;
use crate::heads::pyramid::FeaturePyramid;
use crate::layers::{Convolution, Draw};
use crate::ops::{Geometry, resize_bilinear};
use crate::registry::{ImageBackbone, ImageConfig};

/// Channels of a pyramid's maps.
const WIDTH: usize = 64;

/// Scores of classes at each pixel.
#[derive(Module, Debug)]
pub struct MaskHead<B: Backend> {
    /// Joins maps of several sizes, where the finest are smaller than the image.
    pub pyramid: Option<FeaturePyramid<B>>,
    /// 1x1, to the classes.
    pub output: Convolution<B>,
}

/// A model that gives a class to each pixel.
pub type Segmenter<B> = Headed<B, ImageBackbone<B>, MaskHead<B>>;

impl<B: Backend> Segmenter<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    ///
    /// # Panics
    ///
    /// If the family has no maps.
    pub fn draw(config: &ImageConfig, n_classes: usize, draw: &Draw<'_, B>) -> Self {
        let plan = config.describe();
        let whole = matches!(config, ImageConfig::UNet(_));
        let width = if whole { plan.levels[0] } else { WIDTH };
        let inside = draw.inside("head");
        let pyramid = || FeaturePyramid::new(&plan.levels, WIDTH, &inside);
        let geometry = Geometry::new([1, 1], [0, 0]);
        let output = Convolution::he([width, n_classes], [1, 1], geometry, draw.device);
        let head = MaskHead {
            pyramid: (!whole).then(pyramid),
            output: output.with_bias(),
        };
        Self::new(config.init(&draw.inside("backbone")), head)
    }

    /// Scores of the classes, `[batch, n_classes, height, width]`.
    ///
    /// - images: `[batch, channels, height, width]`
    pub fn logits(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let [.., height, width] = images.dims();
        let mut levels = self.backbone.forward(images).levels;
        let finest = match &self.head.pyramid {
            None => levels.swap_remove(0),
            Some(pyramid) => {
                let levels = pyramid.forward(levels).into_iter();
                let joined = levels.reduce(|finest, coarse| {
                    let [.., rows, columns] = finest.dims();
                    finest + resize_bilinear(coarse, [rows, columns], false)
                });
                // Families without maps are refused before.
                relu(joined.unwrap_or_else(|| unreachable!("a pyramid has levels")))
            }
        };
        let scores = self.head.output.forward(finest);
        let [.., rows, columns] = scores.dims();
        if [rows, columns] == [height, width] {
            return scores;
        }
        resize_bilinear(scores, [height, width], false)
    }
}
