//! The graphs of residual networks, large and small. In: images. Out: maps of each stage, and their mean.

use model::ops::Activation;

use super::config;
use super::graph::Graph;
use super::image::{ImageGraph, Maps, Moves, Seen};

/// Of batch normalisation, where a family has no other.
pub(super) const EPSILON: f64 = 1e-5;

/// Of images as large as those of ImageNet: the first layers take a quarter of their size.
pub fn large(image: &mut ImageGraph) -> Result<Seen, String> {
    let activation = config::activation(&image.facts.config, "hidden_act")?;
    let (graph, images) = (&mut image.graph, &image.images);
    let first = "embedder.embedder";
    let moves = Moves::new(2, 3);
    let hidden = graph.normed_convolution(images, first, moves, EPSILON, Some(activation));
    let hidden = graph.max_pool(&hidden, 3, Moves::new(2, 1));
    stages(image, hidden, activation)
}

/// Of small images.
pub fn small(image: &mut ImageGraph) -> Result<Seen, String> {
    let activation = config::activation(&image.facts.config, "hidden_act")?;
    let (graph, images) = (&mut image.graph, &image.images);
    let (first, moves) = ("embedder.embedder", Moves::new(1, 1));
    let hidden = graph.normed_convolution(images, first, moves, EPSILON, Some(activation));
    stages(image, hidden, activation)
}

fn stages(
    image: &mut ImageGraph,
    mut hidden: Maps,
    activation: Activation,
) -> Result<Seen, String> {
    let config = &image.facts.config;
    let halves_first = config::flag(config, "downsample_in_first_stage");
    let early = config::flag(config, "downsample_in_bottleneck");
    let graph = &mut image.graph;
    let mut levels = Vec::new();
    let of_stage = "encoder.stages.{}.layers.0.layer.0.convolution.weight";
    for stage in 0..graph.weights.count(of_stage) {
        let at = format!("encoder.stages.{stage}.layers");
        let blocks = format!("{at}.{{}}.layer.0.convolution.weight");
        for block in 0..graph.weights.count(&blocks) {
            let halves = block == 0 && (stage > 0 || halves_first);
            let stride = if halves { 2 } else { 1 };
            let at = format!("{at}.{block}");
            hidden = self::block(
                graph,
                &hidden,
                &at,
                [stride, usize::from(early)],
                activation,
            );
        }
        levels.push(hidden.clone());
    }
    let pooled = graph.mean_of_maps(&hidden);
    Ok(Seen::of_levels(levels, pooled, hidden.shape[0]))
}

/// - early: 1 where the first convolution of a bottleneck halves the image, and not the second
fn block(
    graph: &mut Graph,
    images: &Maps,
    at: &str,
    [stride, early]: [usize; 2],
    activation: Activation,
) -> Maps {
    let layers = graph
        .weights
        .count(&format!("{at}.layer.{{}}.convolution.weight"));
    // Of two layers the first halves, of a bottleneck's three the second.
    let halving = if layers == 2 || early == 1 { 0 } else { 1 };
    let mut hidden = images.clone();
    for layer in 0..layers {
        let path = format!("{at}.layer.{layer}");
        let [kernel, _] = graph.weights.kernel(&format!("{path}.convolution.weight"));
        let moves = Moves::new(if layer == halving { stride } else { 1 }, kernel / 2);
        let activation = (layer + 1 < layers).then_some(activation);
        hidden = graph.normed_convolution(&hidden, &path, moves, EPSILON, activation);
    }
    let shortcut = format!("{at}.shortcut");
    let beside = if graph.weights.has(&format!("{shortcut}.convolution.weight")) {
        graph.normed_convolution(images, &shortcut, Moves::new(stride, 0), EPSILON, None)
    } else {
        images.clone()
    };
    let sum = graph.add(&hidden.var, &beside.var);
    hidden.with(graph.activation(&sum, activation))
}
