//! The graphs of plain networks: dense, convolutional, and VGG. In: images. Out: maps, and what a classifier reads.

use model::ops::Activation;

use super::config;
use super::graph::{Graph, Var};
use super::image::{ImageGraph, Maps, Moves, Seen};
use super::resnet::EPSILON;

/// A multilayer perceptron.
pub fn mlp(image: &mut ImageGraph) -> Result<Seen, String> {
    let activation = config::activation(&image.facts.config, "hidden_act")?;
    let graph = &mut image.graph;
    let mut hidden = graph.flattened(&image.images.var);
    let layers = graph.weights.count("layers.{}.weight");
    for layer in 0..layers {
        hidden = graph.linear(&hidden, &format!("layers.{layer}"));
        hidden = graph.activation(&hidden, activation);
    }
    let last = format!("layers.{}.weight", layers.saturating_sub(1));
    let width = graph.weights.rows(&last);
    Ok(Seen::of_levels(Vec::new(), hidden, width))
}

/// Convolutions, each followed by a pooling.
pub fn cnn(image: &mut ImageGraph) -> Result<Seen, String> {
    let graph = &mut image.graph;
    let (mut hidden, mut levels) = (image.images.clone(), Vec::new());
    let relu = Some(Activation::Relu);
    for layer in 0..graph.weights.count("convolutions.{}.convolution.weight") {
        let path = format!("convolutions.{layer}");
        hidden = graph.normed_convolution(&hidden, &path, Moves::new(1, 1), EPSILON, relu);
        let [height, width] = hidden.size();
        if height > 1 && width > 1 {
            hidden = graph.max_pool(&hidden, 2, Moves::new(2, 0));
        }
        levels.push(hidden.clone());
    }
    let pooled = graph.mean_of_maps(&hidden);
    Ok(Seen::of_levels(levels, pooled, hidden.shape[0]))
}

/// VGG, with batch normalisation or without.
pub fn vgg(image: &mut ImageGraph) -> Result<Seen, String> {
    let config = &image.facts.config;
    let depths = config::sizes(config, "depths")?;
    let (normed, pooled_size) = (
        config::flag(config, "batch_norm"),
        config::size(config, "pooled_size")?,
    );
    let graph = &mut image.graph;
    let (mut hidden, mut levels) = (image.images.clone(), Vec::new());
    // Layers are numbered through, those without weights too.
    let mut number = 0;
    for depth in depths {
        for _ in 0..depth {
            hidden = graph.convolution(&hidden, &format!("features.{number}"), Moves::new(1, 1));
            number += 1;
            if normed {
                hidden = graph.batch_norm(&hidden, &format!("features.{number}"), EPSILON);
                number += 1;
            }
            hidden = hidden.with(graph.activation(&hidden.var, Activation::Relu));
            number += 1;
        }
        hidden = graph.max_pool(&hidden, 2, Moves::new(2, 0));
        number += 1;
        levels.push(hidden.clone());
    }
    let pooled = pooled_by_vgg(graph, &hidden, pooled_size);
    let width = graph.weights.rows("classifier.second.weight");
    Ok(Seen::of_levels(levels, pooled, width))
}

/// Means over windows, and two dense layers.
fn pooled_by_vgg(graph: &mut Graph, maps: &Maps, size: usize) -> Var {
    let means = graph.resized(maps, [size; 2], window_weights);
    let mut hidden = graph.flattened(&means.var);
    for layer in ["classifier.first", "classifier.second"] {
        hidden = graph.linear(&hidden, layer);
        hidden = graph.activation(&hidden, Activation::Relu);
    }
    hidden
}

/// Of an axis, `[to, from]`: means over windows as evenly spread as can be, which overlap where they have to.
fn window_weights(from: usize, to: usize) -> Vec<f32> {
    let mut weights = vec![0.0; from * to];
    for at in 0..to {
        let (first, end) = (at * from / to, ((at + 1) * from).div_ceil(to));
        weights[at * from + first..at * from + end].fill(1.0 / (end - first) as f32);
    }
    weights
}
