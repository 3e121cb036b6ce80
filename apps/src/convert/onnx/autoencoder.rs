//! The graph of the convolutional encoder, and of the decoders that make images of a vector. In: images, or a vector. Out: a
//! vector, or logits of pixels.

use model::ops::Activation;

use super::graph::{Graph, Var, ints};
use super::image::{ImageGraph, Maps, Moves, Seen};

/// The convolutional encoder.
pub fn encoder(image: &mut ImageGraph) -> Result<Seen, String> {
    let graph = &mut image.graph;
    let (mut hidden, mut levels) = (image.images.clone(), Vec::new());
    for layer in 0..graph.weights.count("convolutions.{}.weight") {
        let path = format!("convolutions.{layer}");
        hidden = graph.convolution(&hidden, &path, Moves::new(2, 1));
        hidden = hidden.with(graph.activation(&hidden.var, Activation::Gelu));
        levels.push(hidden.clone());
    }
    let flat = graph.flattened(&hidden.var);
    let latent = graph.linear(&flat, "latent");
    let pooled = graph.activation(&latent, Activation::Gelu);
    let width = graph.weights.rows("latent.weight");
    Ok(Seen {
        latent,
        ..Seen::of_levels(levels, pooled, width)
    })
}

impl ImageGraph {
    /// Logits of the pixels that a head makes of a vector: with convolutions, or with dense layers.
    ///
    /// - head: in front of the names of its layers
    pub fn decoded(&mut self, latent: &Var, head: &str) -> Result<Var, String> {
        if self.graph.weights.has(&format!("{head}latent.weight")) {
            return Ok(self.decoded_by_convolutions(latent, head));
        }
        let activation = super::config::activation(&self.facts.config, "hidden_act")?;
        let (graph, shape) = (&mut self.graph, self.facts.shape);
        let mut hidden = latent.clone();
        for layer in 0..graph.weights.count(&format!("{head}layers.{{}}.weight")) {
            if layer > 0 {
                hidden = graph.activation(&hidden, activation);
            }
            hidden = graph.linear(&hidden, &format!("{head}layers.{layer}"));
        }
        let [channels, height, width] = shape.map(|size| size as i64);
        Ok(graph.reshape(&hidden, &[-1, channels, height, width]))
    }

    fn decoded_by_convolutions(&mut self, latent: &Var, head: &str) -> Var {
        let [_, height, width] = self.facts.shape;
        let graph = &mut self.graph;
        let layers = graph
            .weights
            .count(&format!("{head}convolutions.{{}}.weight"));
        // Of each level, the finest first: an image is halved and rounded up.
        let halved = |size: usize| size.div_ceil(2);
        let sizes: Vec<[usize; 2]> =
            std::iter::successors(Some([height, width]), |size| Some(size.map(halved)))
                .take(layers + 1)
                .collect();
        let channels = graph.weights.rows(&format!("{head}convolutions.0.weight"));
        let flat = graph.linear(latent, &format!("{head}latent"));
        let [height, width] = sizes[layers];
        let shape = [channels, height, width];
        let axes = [-1, channels as i64, height as i64, width as i64];
        let var = graph.reshape(&flat, &axes);
        let mut hidden = Maps { var, shape };
        for layer in 0..layers {
            let [rows, columns] = sizes[layers - 1 - layer];
            hidden = hidden.with(graph.activation(&hidden.var, Activation::Gelu));
            // A stride of 2 gives an even size back; an odd one takes one pixel less.
            let more = [1 - rows % 2, 1 - columns % 2];
            let path = format!("{head}convolutions.{layer}");
            hidden = graph.transposed_convolution(&hidden, &path, 1, more);
        }
        hidden.var
    }
}

impl Graph {
    /// A transposed convolution in steps of two pixels, with a bias.
    ///
    /// - padding: pixels that are cut off on all sides
    /// - more: pixels that are added below and to the right
    pub fn transposed_convolution(
        &mut self,
        x: &Maps,
        layer: &str,
        padding: usize,
        more: [usize; 2],
    ) -> Maps {
        let path = format!("{layer}.weight");
        let ([kernel, _], channels) = (self.weights.kernel(&path), self.weights.columns(&path));
        let (weight, bias) = (self.weight(&path), self.weight(&format!("{layer}.bias")));
        let settings = vec![
            ints("kernel_shape", &[kernel as i64; 2]),
            ints("strides", &[2, 2]),
            ints("pads", &[padding as i64; 4]),
            ints("output_padding", &more.map(|size| size as i64)),
        ];
        let var = self.node("ConvTranspose", [&x.var, &weight, &bias], settings);
        let along = |size: usize, more: usize| 2 * (size - 1) + kernel + more - 2 * padding;
        let [height, width] = x.size();
        Maps {
            var,
            shape: [channels, along(height, more[0]), along(width, more[1])],
        }
    }
}
