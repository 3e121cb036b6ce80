//! The graph of BERT, and of RoBERTa, DistilBERT and ELECTRA, which are made of it. In: token ids. Out: states.

use model::ops::Activation;

use super::config;
use super::graph::{Graph, Var};
use super::text::TextGraph;

/// What the families that share this encoder differ in.
struct Plan {
    n_heads: usize,
    activation: Activation,
    epsilon: f64,
    /// Row of the table of positions that is the first token's.
    first_position: usize,
}

/// States of BERT and ELECTRA.
pub fn bert(text: &mut TextGraph) -> Result<Var, String> {
    let plan = plan(text)?;
    Ok(encode(text, &plan))
}

/// States of RoBERTa: positions are counted from behind the padding token's.
pub fn roberta(text: &mut TextGraph) -> Result<Var, String> {
    let plan = Plan {
        first_position: config::size(&text.facts.config, "pad_token_id")? + 1,
        ..plan(text)?
    };
    Ok(encode(text, &plan))
}

/// States of DistilBERT, whose configuration has other keys.
pub fn distilbert(text: &mut TextGraph) -> Result<Var, String> {
    let config = &text.facts.config;
    let plan = Plan {
        n_heads: config::size(config, "n_heads")?,
        activation: config::activation(config, "activation")?,
        epsilon: text.facts.tokens.epsilon,
        first_position: 0,
    };
    Ok(encode(text, &plan))
}

fn plan(text: &TextGraph) -> Result<Plan, String> {
    let config = &text.facts.config;
    Ok(Plan {
        n_heads: config::size(config, "num_attention_heads")?,
        activation: config::activation(config, "hidden_act")?,
        epsilon: config::number(config, "layer_norm_eps")?,
        first_position: 0,
    })
}

fn encode(text: &mut TextGraph, plan: &Plan) -> Var {
    let mut hidden = embed(text, plan);
    if text.graph.weights.has("embeddings_project.weight") {
        hidden = text.graph.linear(&hidden, "embeddings_project");
    }
    let sizes = [plan.n_heads, text.facts.d_model / plan.n_heads];
    let by_head = text.by_head(sizes);
    let bias = text.bias(false);
    let layers = text
        .graph
        .weights
        .count("encoder.layer.{}.output.dense.weight");
    for layer in 0..layers {
        let at = format!("encoder.layer.{layer}");
        hidden = attention(
            &mut text.graph,
            &hidden,
            &at,
            [&by_head, &bias],
            sizes,
            plan,
        );
        hidden = feed_forward(&mut text.graph, &hidden, &at, plan);
    }
    hidden
}

/// Sum of token, position and segment vectors, normalised and flat.
fn embed(text: &mut TextGraph, plan: &Plan) -> Var {
    let places = text.places(plan.first_position);
    let graph = &mut text.graph;
    let table = graph.weight("embeddings.word_embeddings.weight");
    let words = graph.gather(&table, &text.tokens, 0);
    let table = graph.weight("embeddings.position_embeddings.weight");
    let positions = graph.gather(&table, &places, 0);
    let mut sum = graph.add(&words, &positions);
    let segments = "embeddings.token_type_embeddings.weight";
    if graph.weights.has(segments) {
        let table = graph.weight(segments);
        let types = text.types.clone().unwrap_or_else(|| graph.integer(0));
        let types = graph.gather(&table, &types, 0);
        sum = graph.add(&sum, &types);
    }
    let d_embedding = graph.weights.columns("embeddings.word_embeddings.weight");
    let rows = graph.reshape(&sum, &[-1, d_embedding as i64]);
    graph.layer_norm(&rows, "embeddings.layer_norm", plan.epsilon)
}

fn attention(
    graph: &mut Graph,
    hidden: &Var,
    layer: &str,
    [by_head, bias]: [&Var; 2],
    sizes: [usize; 2],
    plan: &Plan,
) -> Var {
    let projected = ["query", "key", "value"];
    let projected = projected.map(|name| {
        let name = format!("{layer}.attention.self_attention.{name}");
        graph.linear(hidden, &name)
    });
    let context = graph.attention(projected.each_ref(), by_head, sizes, Some(bias));
    let mixed = graph.linear(&context, &format!("{layer}.attention.output.dense"));
    let sum = graph.add(&mixed, hidden);
    let norm = format!("{layer}.attention.output.layer_norm");
    graph.layer_norm(&sum, &norm, plan.epsilon)
}

fn feed_forward(graph: &mut Graph, hidden: &Var, layer: &str, plan: &Plan) -> Var {
    let wide = graph.linear(hidden, &format!("{layer}.intermediate.dense"));
    let wide = graph.activation(&wide, plan.activation);
    let narrow = graph.linear(&wide, &format!("{layer}.output.dense"));
    let sum = graph.add(&narrow, hidden);
    graph.layer_norm(&sum, &format!("{layer}.output.layer_norm"), plan.epsilon)
}
