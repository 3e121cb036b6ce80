//! Residual networks for small images, as for CIFAR: 20, 32, 44 or 56 layers, without the first pooling. Each stage that halves
//! the image projects it, where the paper's own pads it with zeros.
//!
//! He et al. 2016, <https://arxiv.org/abs/1512.03385>, section 4.2. In: images. Out: maps of each stage, and their mean.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::families::ImagePlan;
use crate::families::resnet::{self, HEADS, ResNet, ResNetConfig, Stem};
use crate::layers::Draw;
use crate::names::{Family, HeadNames};

/// The layers are those of the large one.
pub type SmallResNet<B> = ResNet<B>;

/// Names of small residual networks in a bundle.
pub const NAMES: Family = Family {
    model_type: "hearth_resnet",
    heads: &[
        HeadNames {
            class: "HearthResNetModel",
            ..HEADS[0]
        },
        HeadNames {
            class: "HearthResNetForImageClassification",
            ..HEADS[1]
        },
    ],
    ..resnet::NAMES
};

/// `config.json` of a small residual network: the keys are those of the large one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SmallResNetConfig(pub ResNetConfig);

impl SmallResNetConfig {
    /// Says what is impossible about these sizes, if anything is.
    pub fn check(&self) -> Result<(), String> {
        self.0.check()
    }

    /// What registry and heads need to know of it.
    pub fn describe(&self) -> ImagePlan {
        self.0.describe()
    }

    /// Fits the model to images of this shape.
    pub fn fit(&mut self, shape: [usize; 3]) {
        self.0.fit(shape);
    }

    /// Draws a network; the weights are a function of the backend's seed.
    pub fn init<B: Backend>(&self, draw: &Draw<'_, B>) -> SmallResNet<B> {
        self.0.with_stem(Stem::Small, draw)
    }
}
