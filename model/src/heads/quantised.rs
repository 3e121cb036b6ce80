//! A vector-quantised autoencoder: each place of the backbone's coarsest maps becomes the nearest of a few learned vectors.
//!
//! Van den Oord et al. 2017, <https://arxiv.org/abs/1711.00937>; the codebook follows the mean of the vectors that chose each
//! code, as in its appendix A.1, and a code that is hardly chosen starts again at a vector of the batch, as in Dhariwal et al.
//! 2020, <https://arxiv.org/abs/2005.00341>. In: images. Out: codes, and logits of the pixels.

use burn::module::{Initializer, Param};
use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Distribution, FloatDType};
use serde::{Deserialize, Serialize};

use crate::heads::{Headed, check_head_sizes};
use crate::layers::batch_norm::follow;
use crate::layers::{Convolution, Draw, NormedConvolution};
use crate::ops::{Activation, Geometry, resize_nearest};
use crate::registry::{ImageBackbone, ImageConfig};

/// What `config.json` says of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodebookConfig {
    /// Vectors that there are.
    pub codebook_size: usize,
    /// Values of each.
    pub code_size: usize,
}

impl CodebookConfig {
    /// Says what is impossible about these sizes for a backbone, if anything is.
    pub fn check(self, backbone: &ImageConfig) -> Result<(), String> {
        check_head_sizes(&[
            ("codebook_size", self.codebook_size),
            ("code_size", self.code_size),
        ])?;
        if backbone.describe().levels.is_empty() {
            let family = backbone.family().model_type;
            return Err(format!("{family} has no feature maps to make codes of"));
        }
        Ok(())
    }
}

/// Channels between two layers of the decoder.
const WIDTH: usize = 32;
/// Added to the number of vectors that chose a code.
const EPSILON: f64 = 1e-5;
/// Share of the codebook's statistics that a batch replaces.
pub const MOMENTUM: f64 = 0.01;
/// A code that fewer vectors of a batch choose, on average, starts again.
pub const FEWEST: f64 = 0.2;

/// Learned vectors.
#[derive(Module, Debug)]
pub struct Codebook<B: Backend> {
    /// How many vectors of a batch chose each code, averaged over batches, `[codes]`; has no gradient.
    pub cluster_sizes: Param<Tensor<B, 1>>,
    /// Their sums, `[codes, code_size]`; has no gradient.
    pub cluster_sums: Param<Tensor<B, 2>>,
}

/// What is made of vectors.
#[derive(Clone, Debug)]
pub struct Quantised<B: Backend> {
    /// The nearest code of each, `[n]`.
    pub codes: Tensor<B, 1, Int>,
    /// Those codes' vectors, `[n, code_size]`; no gradient flows into the codebook.
    pub vectors: Tensor<B, 2>,
}

impl<B: Backend> Codebook<B> {
    /// Codes that nothing chose yet: the first batch in training sets them.
    pub fn new(head: CodebookConfig, device: &B::Device) -> Self {
        let (n, width) = (head.codebook_size, head.code_size);
        let sizes = Initializer::Constant { value: 1e-3 };
        let std = 1e-3;
        let sums = Initializer::Normal { mean: 0.0, std };
        let (sizes, sums): (Param<Tensor<B, 1>>, Param<Tensor<B, 2>>) =
            (sizes.init([n], device), sums.init([n, width], device));
        Self {
            cluster_sizes: sizes.set_require_grad(false),
            cluster_sums: sums.set_require_grad(false),
        }
    }

    /// Codes that there are.
    pub fn len(&self) -> usize {
        self.cluster_sizes.lazy_shape().num_elements()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `[codes, code_size]`
    pub fn vectors(&self) -> Tensor<B, 2> {
        let sizes = self.cluster_sizes.val().detach().cast(FloatDType::F32);
        let [n] = sizes.dims();
        let whole = sizes.clone().sum();
        let smoothed = (sizes + EPSILON) / (whole.clone() + n as f64 * EPSILON) * whole;
        let sums = self.cluster_sums.val().detach().cast(FloatDType::F32);
        sums / smoothed.unsqueeze_dim(1)
    }

    /// The nearest code of each vector.
    ///
    /// - vectors: `[n, code_size]`
    pub fn quantise(&self, vectors: Tensor<B, 2>) -> Quantised<B> {
        let book = self.vectors();
        let codes = nearest(vectors.detach(), book.clone());
        Quantised {
            vectors: book.select(0, codes.clone()),
            codes,
        }
    }

    /// Lets the codebook follow a batch, if its step counts; and starts codes again that are hardly chosen.
    ///
    /// - vectors: `[n, code_size]`, those that were quantised
    /// - codes: `[n]`
    pub fn learn(&self, vectors: Tensor<B, 2>, codes: Tensor<B, 1, Int>) {
        let vectors = vectors.detach();
        let ([n, width], size) = (vectors.dims(), self.len());
        let all = Tensor::<B, 1, Int>::arange(0..size as i64, &vectors.device());
        let chosen = codes.unsqueeze_dim::<2>(1).expand([n, size]);
        let chosen = chosen
            .equal(all.unsqueeze_dim::<2>(0).expand([n, size]))
            .float();
        let counts = chosen.clone().sum_dim(0).reshape([size]);
        let sums = chosen.transpose().matmul(vectors.clone());
        let few = self.cluster_sizes.val().detach().lower_elem(FEWEST).float();
        // Vectors from all over the batch: a different one each time, as batches differ.
        let device = vectors.device();
        let spread = Distribution::Uniform(0.0, n as f64);
        let rows = Tensor::<B, 1>::random([size], spread, &device).int();
        let rows = rows.clamp(0, n as i64 - 1);
        // As if one vector had chosen it for long.
        let weight = few.div_scalar(MOMENTUM);
        let fresh = vectors.select(0, rows) * weight.clone().unsqueeze_dim(1);
        follow(&self.cluster_sizes, counts + weight, MOMENTUM);
        follow(
            &self.cluster_sums,
            (sums + fresh).reshape([size * width]),
            MOMENTUM,
        );
    }
}

/// The index of the nearest row of a book, by squared distance; `[n, width]` and `[codes, width]` to `[n]`.
fn nearest<B: Backend>(vectors: Tensor<B, 2>, book: Tensor<B, 2>) -> Tensor<B, 1, Int> {
    let [n, _] = vectors.dims();
    let lengths = (book.clone() * book.clone()).sum_dim(1).transpose();
    // The vectors' own lengths change no order.
    let scores = vectors.matmul(book.transpose()) * 2.0 - lengths;
    scores.argmax(1).reshape([n])
}

/// To the codes' width, the codebook, and back to pixels.
#[derive(Module, Debug)]
pub struct QuantisedHead<B: Backend> {
    /// 1x1, to the codes' width.
    pub projection: Convolution<B>,
    /// The codes.
    pub codebook: Codebook<B>,
    /// From maps of codes to pixels.
    pub decoder: MapDecoder<B>,
}

/// Convolutions of 3x3; before each but the first and the last the map is doubled.
#[derive(Module, Debug)]
pub struct MapDecoder<B: Backend> {
    /// From the codes.
    pub input: NormedConvolution<B>,
    /// One for each doubling.
    pub convolutions: Vec<NormedConvolution<B>>,
    /// To pixels.
    pub output: Convolution<B>,
    size: [usize; 2],
}

impl<B: Backend> MapDecoder<B> {
    /// - levels: how often the maps are doubled
    /// - shape: channels, height and width of the images
    fn new(
        width: usize,
        levels: usize,
        [channels, height, width_out]: [usize; 3],
        draw: &Draw<'_, B>,
    ) -> Self {
        let relu = Some(Activation::Relu);
        let same = || NormedConvolution::new([WIDTH; 2], 3, 1, relu, draw);
        let geometry = Geometry::new([1, 1], [1, 1]);
        let output = Convolution::he([WIDTH, channels], [3, 3], geometry, draw.device);
        Self {
            input: NormedConvolution::new([width, WIDTH], 3, 1, relu, draw),
            convolutions: (0..levels).map(|_| same()).collect(),
            output: output.with_bias(),
            size: [height, width_out],
        }
    }

    /// Logits of the pixels, `[batch, channels, height, width]`.
    ///
    /// - maps: `[batch, code_size, rows, columns]`
    pub fn forward(&self, maps: Tensor<B, 4>) -> Tensor<B, 4> {
        let mut hidden = self.input.forward(maps);
        let levels = self.convolutions.len();
        for (level, convolution) in self.convolutions.iter().enumerate() {
            let left = levels - 1 - level;
            let size = self.size.map(|size| size.div_ceil(1 << left));
            hidden = convolution.forward(resize_nearest(hidden, size));
        }
        self.output.forward(hidden)
    }
}

/// Rows and columns of the coarsest maps of images of this shape.
fn map_size<B: Backend>(
    backbone: &ImageBackbone<B>,
    [channels, height, width]: [usize; 3],
    device: &B::Device,
) -> [usize; 2] {
    // Two: batch normalisation has no variance of a single value.
    let images = Tensor::zeros([2, channels, height, width], device);
    let levels = backbone.forward(images).levels;
    let [.., rows, columns] = levels[levels.len() - 1].dims();
    [rows, columns]
}

/// How often maps are doubled to be as large as images.
fn doublings(maps: [usize; 2], images: [usize; 2]) -> usize {
    let reaches = |times: &usize| {
        let mut sides = maps.iter().zip(images);
        sides.all(|(&map, image)| image.div_ceil(1 << times) <= map)
    };
    (0..16).find(reaches).unwrap_or(16)
}

/// A backbone whose coarsest maps are made of codes, and these images again.
pub type QuantisedAutoencoder<B> = Headed<B, ImageBackbone<B>, QuantisedHead<B>>;

impl<B: Backend> QuantisedAutoencoder<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    ///
    /// - shape: channels, height and width of the images
    ///
    /// # Panics
    ///
    /// If the family has no maps.
    pub fn draw(
        config: &ImageConfig,
        head: CodebookConfig,
        shape: [usize; 3],
        draw: &Draw<'_, B>,
    ) -> Self {
        let plan = config.describe();
        let levels = &plan.levels;
        let device = draw.device;
        let last = levels[levels.len() - 1];
        let geometry = Geometry::new([1, 1], [0, 0]);
        let projection = Convolution::he([last, head.code_size], [1, 1], geometry, device);
        let inside = draw.inside("head");
        let backbone = config.init(&draw.inside("backbone"));
        let [_, height, width] = shape;
        let levels = doublings(map_size(&backbone, shape, device), [height, width]);
        let head = QuantisedHead {
            projection: projection.with_bias(),
            codebook: Codebook::new(head, device),
            decoder: MapDecoder::new(head.code_size, levels, shape, &inside),
        };
        Self::new(backbone, head)
    }

    /// Vectors before they are quantised, `[batch * rows * columns, code_size]`, and batch, rows and columns.
    ///
    /// - images: `[batch, channels, height, width]`
    pub fn encode(&self, images: Tensor<B, 4>) -> (Tensor<B, 2>, [usize; 3]) {
        let mut levels = self.backbone.forward(images).levels;
        let coarsest = levels.swap_remove(levels.len() - 1);
        let maps = self.head.projection.forward(coarsest);
        let [batch, width, rows, columns] = maps.dims();
        let vectors = maps.permute([0, 2, 3, 1]);
        let vectors = vectors.reshape([batch * rows * columns, width]);
        (vectors, [batch, rows, columns])
    }

    /// Logits of the pixels, `[batch, channels, height, width]`.
    ///
    /// - vectors: `[batch * rows * columns, code_size]`
    pub fn decode(
        &self,
        vectors: Tensor<B, 2>,
        [batch, rows, columns]: [usize; 3],
    ) -> Tensor<B, 4> {
        let [_, width] = vectors.dims();
        let maps = vectors.reshape([batch, rows, columns, width]);
        self.head.decoder.forward(maps.permute([0, 3, 1, 2]))
    }

    /// Pixels, 0 to 1, of the nearest codes; `[batch, channels, height, width]` in and out.
    pub fn reconstruct(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let (vectors, shape) = self.encode(images);
        let quantised = self.head.codebook.quantise(vectors);
        sigmoid(self.decode(quantised.vectors, shape))
    }
}
