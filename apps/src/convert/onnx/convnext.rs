//! The graph of ConvNeXt. In: images. Out: maps of each stage, and the normed mean of the last.

use model::ops::Activation;

use super::config;
use super::graph::{Graph, Var};
use super::image::{ImageGraph, Maps, Moves, Seen};

/// Epsilon of every norm but the last.
const EPSILON: f64 = 1e-6;
/// Channels last, and first again.
const TO_ROWS: [i64; 4] = [0, 2, 3, 1];
const TO_MAPS: [i64; 4] = [0, 3, 1, 2];

/// ConvNeXt.
pub fn convnext(image: &mut ImageGraph) -> Result<Seen, String> {
    let config = &image.facts.config;
    let activation = config::activation(config, "hidden_act")?;
    let epsilon = config::number(config, "layer_norm_eps")?;
    let graph = &mut image.graph;
    let first = "embeddings.patch_embeddings";
    let patch = graph.weights.kernel(&format!("{first}.weight"));
    let hidden = graph.convolution(&image.images, first, Moves::of_patches(patch));
    let mut hidden = normed(graph, &hidden, "embeddings.layernorm");
    let mut levels = Vec::new();
    let of_stage = "encoder.stages.{}.layers.0.dwconv.weight";
    for stage in 0..graph.weights.count(of_stage) {
        let at = format!("encoder.stages.{stage}");
        let halving = format!("{at}.downsampling_layer");
        if stage > 0 {
            let small = normed(graph, &hidden, &format!("{halving}.norm"));
            let path = format!("{halving}.convolution");
            hidden = graph.convolution(&small, &path, Moves::new(2, 0));
        }
        let of_layer = format!("{at}.layers.{{}}.dwconv.weight");
        for number in 0..graph.weights.count(&of_layer) {
            hidden = layer(graph, &hidden, &format!("{at}.layers.{number}"), activation);
        }
        levels.push(hidden.clone());
    }
    let mean = graph.mean_of_maps(&hidden);
    let pooled = graph.layer_norm(&mean, "layernorm", epsilon);
    Ok(Seen::of_levels(levels, pooled, hidden.shape[0]))
}

/// Each pixel's channels normalised.
fn normed(graph: &mut Graph, x: &Maps, layer: &str) -> Maps {
    let rows = graph.transpose(&x.var, &TO_ROWS);
    let rows = graph.layer_norm(&rows, layer, EPSILON);
    x.with(graph.transpose(&rows, &TO_MAPS))
}

fn layer(graph: &mut Graph, x: &Maps, at: &str, activation: Activation) -> Maps {
    let hidden = graph.convolution(x, &format!("{at}.dwconv"), Moves::new(1, 3));
    let rows = graph.transpose(&hidden.var, &TO_ROWS);
    let rows = graph.layer_norm(&rows, &format!("{at}.layernorm"), EPSILON);
    let flat = graph.reshape(&rows, &[-1, x.shape[0] as i64]);
    let wide = graph.linear(&flat, &format!("{at}.pwconv1"));
    let wide = graph.activation(&wide, activation);
    let mut narrow = graph.linear(&wide, &format!("{at}.pwconv2"));
    let scale = format!("{at}.layer_scale_parameter");
    if graph.weights.has(&scale) {
        let scale = graph.weight(&scale);
        narrow = graph.mul(&narrow, &scale);
    }
    let maps = images(graph, &narrow, x.shape);
    x.with(graph.add(&x.var, &maps))
}

/// Pixels as rows, flat, as maps of this shape.
fn images(graph: &mut Graph, flat: &Var, shape: [usize; 3]) -> Var {
    let [channels, height, width] = shape.map(|size| size as i64);
    let rows = graph.reshape(flat, &[-1, height, width, channels]);
    graph.transpose(&rows, &TO_MAPS)
}
