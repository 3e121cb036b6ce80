//! A feature pyramid: what coarse maps know is added to the fine ones.
//!
//! Lin et al. 2017, <https://arxiv.org/abs/1612.03144>. In: maps of several sizes. Out: maps of the same sizes, all of one width.

use burn::prelude::*;

use crate::layers::{Convolution, Draw};
use crate::ops::{Geometry, resize_nearest};

/// A convolution before the sum and one after it, for each level.
#[derive(Module, Debug)]
pub struct FeaturePyramid<B: Backend> {
    /// 1x1 to the common width, the finest first.
    pub laterals: Vec<Convolution<B>>,
    /// 3x3, the finest first.
    pub outputs: Vec<Convolution<B>>,
}

impl<B: Backend> FeaturePyramid<B> {
    /// - levels: channels of each level, the finest first
    pub fn new(levels: &[usize], width: usize, draw: &Draw<'_, B>) -> Self {
        let (one, three) = (Geometry::new([1, 1], [0, 0]), Geometry::new([1, 1], [1, 1]));
        let lateral =
            |&level: &usize| Convolution::he([level, width], [1, 1], one, draw.device).with_bias();
        let output =
            |_: &usize| Convolution::he([width; 2], [3, 3], three, draw.device).with_bias();
        Self {
            laterals: levels.iter().map(lateral).collect(),
            outputs: levels.iter().map(output).collect(),
        }
    }

    /// `[batch, width, rows, columns]` each.
    ///
    /// - levels: the finest first
    pub fn forward(&self, levels: Vec<Tensor<B, 4>>) -> Vec<Tensor<B, 4>> {
        let mut above: Option<Tensor<B, 4>> = None;
        let layers = self.laterals.iter().zip(&self.outputs);
        let mut outputs: Vec<Tensor<B, 4>> = levels
            .into_iter()
            .zip(layers)
            .rev()
            .map(|(level, (lateral, output))| {
                let mut sum = lateral.forward(level);
                let [.., rows, columns] = sum.dims();
                if let Some(above) = above.take() {
                    sum = sum + resize_nearest(above, [rows, columns]);
                }
                above = Some(sum.clone());
                output.forward(sum)
            })
            .collect();
        outputs.reverse();
        outputs
    }
}
