//! The graph of GPT-2. In: token ids. Out: states.

use super::config;
use super::graph::Var;
use super::text::TextGraph;

/// States of GPT-2.
pub fn gpt2(text: &mut TextGraph) -> Result<Var, String> {
    let config = &text.facts.config;
    let n_heads = config::size(config, "n_head")?;
    let epsilon = config::number(config, "layer_norm_epsilon")?;
    let activation = config::activation(config, "activation_function")?;
    let d_model = text.facts.d_model;
    let sizes = [n_heads, d_model / n_heads];
    let mut hidden = embed(text);
    let by_head = text.by_head(sizes);
    let bias = text.bias(true);
    let graph = &mut text.graph;
    for layer in 0..graph.weights.count("h.{}.ln_1.gamma") {
        let at = format!("h.{layer}");
        let normed = graph.layer_norm(&hidden, &format!("{at}.ln_1"), epsilon);
        let all = graph.conv1d(&normed, &format!("{at}.attn.c_attn"));
        let projected: [Var; 3] = graph.split(&all, 1);
        let context = graph.attention(projected.each_ref(), &by_head, sizes, Some(&bias));
        let mixed = graph.conv1d(&context, &format!("{at}.attn.c_proj"));
        hidden = graph.add(&hidden, &mixed);
        let normed = graph.layer_norm(&hidden, &format!("{at}.ln_2"), epsilon);
        let wide = graph.conv1d(&normed, &format!("{at}.mlp.c_fc"));
        let wide = graph.activation(&wide, activation);
        let narrow = graph.conv1d(&wide, &format!("{at}.mlp.c_proj"));
        hidden = graph.add(&hidden, &narrow);
    }
    Ok(graph.layer_norm(&hidden, "ln_f", epsilon))
}

/// Token and position vectors, flat.
fn embed(text: &mut TextGraph) -> Var {
    let places = text.places(0);
    let graph = &mut text.graph;
    let table = graph.weight("wte.weight");
    let words = graph.gather(&table, &text.tokens, 0);
    let table = graph.weight("wpe.weight");
    let positions = graph.gather(&table, &places, 0);
    let sum = graph.add(&words, &positions);
    graph.reshape(&sum, &[-1, text.facts.d_model as i64])
}
