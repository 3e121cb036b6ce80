//! The graph of the Vision Transformer. In: images. Out: states of the class token and of all patches.

use model::ops::Activation;

use super::config;
use super::graph::{Graph, Var, int};
use super::image::{ImageGraph, Maps, Moves, Seen};

/// What all layers share.
struct Plan {
    /// Heads, and the width of each.
    sizes: [usize; 2],
    /// `[batch, seq, heads, d_head]`
    by_head: Var,
    activation: Activation,
    epsilon: f64,
}

/// The Vision Transformer.
pub fn vit(image: &mut ImageGraph) -> Result<Seen, String> {
    let config = &image.facts.config;
    let (heads, d_model) = (
        config::size(config, "num_attention_heads")?,
        config::size(config, "hidden_size")?,
    );
    let (activation, epsilon) = (
        config::activation(config, "hidden_act")?,
        config::number(config, "layer_norm_eps")?,
    );
    let (tokens, grid) = embed(image);
    let n = grid[0] * grid[1] + 1;
    let graph = &mut image.graph;
    let sizes = [heads, d_model / heads.max(1)];
    let plan = Plan {
        sizes,
        by_head: graph.integers(&[-1, n as i64, heads as i64, sizes[1] as i64]),
        activation,
        epsilon,
    };
    let mut hidden = graph.reshape(&tokens, &[-1, d_model as i64]);
    let of_layer = "encoder.layer.{}.output.dense.weight";
    for number in 0..graph.weights.count(of_layer) {
        hidden = layer(graph, &hidden, &format!("encoder.layer.{number}"), &plan);
    }
    let hidden = graph.layer_norm(&hidden, "layernorm", epsilon);
    let states = graph.reshape(&hidden, &[-1, n as i64, d_model as i64]);
    let first = graph.integer(0);
    let class = graph.gather(&states, &first, 1);
    let maps = maps(graph, &states, d_model, grid);
    Ok(Seen {
        last: Some((states, vec![n, d_model])),
        ..Seen::of_levels(vec![maps], class, d_model)
    })
}

/// Patches behind a class token, `[batch, 1 + patches, d_model]`, and rows and columns of patches.
fn embed(image: &mut ImageGraph) -> (Var, [usize; 2]) {
    let projection = "embeddings.patch_embeddings.projection";
    let (graph, images) = (&mut image.graph, &image.images);
    let patch = graph.weights.kernel(&format!("{projection}.weight"));
    let maps = graph.convolution(images, projection, Moves::of_patches(patch));
    let (d_model, grid) = (maps.shape[0] as i64, maps.size());
    let patches = graph.reshape(&maps.var, &[0, d_model, -1]);
    let patches = graph.transpose(&patches, &[0, 2, 1]);
    let class = graph.weight("embeddings.cls_token");
    let batch = graph.node("Shape", [&images.var], vec![int("end", 1)]);
    let rest = graph.integers(&[1, d_model]);
    let shape = graph.concat([&batch, &rest], 0);
    let class = graph.node("Expand", [&class, &shape], vec![]);
    let tokens = graph.concat([&class, &patches], 1);
    let positions = graph.weight("embeddings.position_embeddings");
    (graph.add(&tokens, &positions), grid)
}

fn layer(graph: &mut Graph, hidden: &Var, at: &str, plan: &Plan) -> Var {
    let normed = graph.layer_norm(hidden, &format!("{at}.layernorm_before"), plan.epsilon);
    let projected = ["query", "key", "value"];
    let projected =
        projected.map(|name| graph.linear(&normed, &format!("{at}.attention.attention.{name}")));
    let context = graph.attention(projected.each_ref(), &plan.by_head, plan.sizes, None);
    let mixed = graph.linear(&context, &format!("{at}.attention.output.dense"));
    let hidden = graph.add(hidden, &mixed);
    let normed = graph.layer_norm(&hidden, &format!("{at}.layernorm_after"), plan.epsilon);
    let wide = graph.linear(&normed, &format!("{at}.intermediate.dense"));
    let wide = graph.activation(&wide, plan.activation);
    let narrow = graph.linear(&wide, &format!("{at}.output.dense"));
    graph.add(&hidden, &narrow)
}

/// States of patches as maps.
fn maps(graph: &mut Graph, states: &Var, d_model: usize, [rows, columns]: [usize; 2]) -> Maps {
    let patches: Vec<i64> = (1..=(rows * columns) as i64).collect();
    let patches = graph.integers(&patches);
    let patches = graph.gather(states, &patches, 1);
    let patches = graph.transpose(&patches, &[0, 2, 1]);
    let shape = [d_model, rows, columns];
    let axes = [-1, d_model as i64, rows as i64, columns as i64];
    Maps {
        var: graph.reshape(&patches, &axes),
        shape,
    }
}
