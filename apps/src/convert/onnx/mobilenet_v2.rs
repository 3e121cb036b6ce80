//! The graph of MobileNetV2. In: images. Out: maps of some layers, and the mean of the last.

use model::ops::Activation;

use super::config;
use super::graph::Graph;
use super::image::{ImageGraph, Maps, Moves, Seen};

/// Steps of the layers where every one that can halves the image.
const STRIDES: [usize; 16] = [2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1];

/// What all layers share.
struct Plan {
    activation: Activation,
    epsilon: f64,
    /// Whether zeros are put where TensorFlow puts them.
    tf_padding: bool,
}

/// MobileNetV2.
pub fn mobilenet_v2(image: &mut ImageGraph) -> Result<Seen, String> {
    let config = &image.facts.config;
    let plan = Plan {
        activation: config::activation(config, "hidden_act")?,
        epsilon: config::number(config, "layer_norm_eps")?,
        tf_padding: config::flag(config, "tf_padding"),
    };
    let strides = strides(config::size(config, "output_stride")?);
    let (graph, images) = (&mut image.graph, &image.images);
    let mut hidden = plan.layer(graph, images, "conv_stem.first_conv", [2, 1], true);
    for layer in ["expand_1x1", "conv_3x3", "reduce_1x1"] {
        let path = format!("conv_stem.{layer}");
        if graph.weights.has(&format!("{path}.convolution.weight")) {
            hidden = plan.layer(graph, &hidden, &path, [1, 1], layer != "reduce_1x1");
        }
    }
    let mut levels = Vec::new();
    for (number, moves) in strides.iter().enumerate() {
        hidden = plan.residual(graph, &hidden, &format!("layer.{number}"), *moves);
        // The last of each size.
        if strides
            .get(number + 1)
            .is_none_or(|[stride, _]| *stride > 1)
        {
            levels.push(hidden.clone());
        }
    }
    let last = plan.layer(graph, &hidden, "conv_1x1", [1, 1], true);
    let pooled = graph.mean_of_maps(&last);
    Ok(Seen {
        last: Some((last.var.clone(), last.shape.to_vec())),
        ..Seen::of_levels(levels, pooled, last.shape[0])
    })
}

/// Stride and dilation of each layer, where the maps get no smaller than an image over `output_stride`.
fn strides(output_stride: usize) -> Vec<[usize; 2]> {
    let (mut stride, mut dilation) = (2, 1);
    let layer = |&own: &usize| {
        if stride == output_stride {
            let layer = [1, dilation];
            dilation *= own;
            return layer;
        }
        stride *= own;
        [own, 1]
    };
    STRIDES.iter().map(layer).collect()
}

impl Plan {
    fn residual(&self, graph: &mut Graph, images: &Maps, at: &str, moves: [usize; 2]) -> Maps {
        let wide = self.layer(graph, images, &format!("{at}.expand_1x1"), [1, 1], true);
        let wide = self.layer(graph, &wide, &format!("{at}.conv_3x3"), moves, true);
        let out = self.layer(graph, &wide, &format!("{at}.reduce_1x1"), [1, 1], false);
        if moves[0] != 1 || out.shape[0] != images.shape[0] {
            return out;
        }
        out.with(graph.add(&images.var, &out.var))
    }

    fn layer(
        &self,
        graph: &mut Graph,
        images: &Maps,
        at: &str,
        [stride, dilation]: [usize; 2],
        activates: bool,
    ) -> Maps {
        let [kernel, _] = graph.weights.kernel(&format!("{at}.convolution.weight"));
        let along = |size: usize| {
            if self.tf_padding {
                tf_padding(size, kernel, [stride, dilation])
            } else {
                [kernel / 2 * dilation; 2]
            }
        };
        let ([above, below], [left, right]) = (along(images.shape[1]), along(images.shape[2]));
        let moves = Moves {
            stride: [stride; 2],
            pads: [above, left, below, right],
            dilation,
        };
        let activation = activates.then_some(self.activation);
        graph.normed_convolution(images, at, moves, self.epsilon, activation)
    }
}

/// Zeros before and after an axis.
fn tf_padding(size: usize, kernel: usize, [stride, dilation]: [usize; 2]) -> [usize; 2] {
    let over = match size % stride {
        0 => stride,
        rest => rest,
    };
    let along = kernel.saturating_sub(over);
    let before = along / 2;
    [before * dilation, (along - before) * dilation]
}
