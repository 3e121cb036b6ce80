//! The graph of U-Net. In: images. Out: maps of each level of its decoder.

use model::ops::Activation;

use super::graph::Graph;
use super::image::{ImageGraph, Maps, Moves, Seen};
use super::resnet::EPSILON;

/// U-Net.
pub fn unet(image: &mut ImageGraph) -> Result<Seen, String> {
    let graph = &mut image.graph;
    let (mut hidden, mut skips) = (image.images.clone(), Vec::new());
    for number in 0..graph.weights.count("down.{}.first.convolution.weight") {
        if number > 0 {
            hidden = graph.max_pool(&hidden, 2, Moves::new(2, 0));
        }
        hidden = level(graph, &hidden, &format!("down.{number}"));
        skips.push(hidden.clone());
    }
    let pooled = graph.mean_of_maps(&hidden);
    let mut levels: Vec<Maps> = skips.pop().into_iter().collect();
    let width = hidden.shape[0];
    for (number, skip) in skips.iter().rev().enumerate() {
        let at = format!("up.{number}");
        let coarse = graph.transposed_convolution(&hidden, &format!("{at}.upsample"), 0, [0, 0]);
        let coarse = like(graph, &coarse, skip);
        let joined = Maps {
            var: graph.concat([&skip.var, &coarse.var], 1),
            shape: [
                skip.shape[0] + coarse.shape[0],
                skip.shape[1],
                skip.shape[2],
            ],
        };
        hidden = level(graph, &joined, &format!("{at}.convolutions"));
        levels.push(hidden.clone());
    }
    levels.reverse();
    Ok(Seen::of_levels(levels, pooled, width))
}

fn level(graph: &mut Graph, x: &Maps, at: &str) -> Maps {
    let (moves, relu) = (Moves::new(1, 1), Some(Activation::Relu));
    let hidden = graph.normed_convolution(x, &format!("{at}.first"), moves, EPSILON, relu);
    graph.normed_convolution(&hidden, &format!("{at}.second"), moves, EPSILON, relu)
}

/// Maps with zeros below and to the right, so that they are as large as others.
fn like(graph: &mut Graph, x: &Maps, other: &Maps) -> Maps {
    let ([height, width], [rows, columns]) = (x.size(), other.size());
    if [height, width] == [rows, columns] {
        return x.clone();
    }
    let (below, right) = ((rows - height) as i64, (columns - width) as i64);
    let pads = graph.integers(&[0, 0, 0, 0, 0, 0, below, right]);
    Maps {
        var: graph.node("Pad", [&x.var, &pads], vec![]),
        shape: [x.shape[0], rows, columns],
    }
}
