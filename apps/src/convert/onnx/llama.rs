//! The graph of Llama and Qwen2. In: token ids. Out: states.

use model::layers::Rope;
use model::ops::Activation;
use serde_json::Value;

use super::config;
use super::graph::{Graph, Var, int, ints};
use super::text::TextGraph;

/// Sizes of a decoder.
struct Plan {
    heads: usize,
    kv_heads: usize,
    d_head: usize,
    epsilon: f64,
    activation: Activation,
}

/// What all layers share.
struct Shared {
    /// `[batch, seq, heads, d_head]`, and the same of keys and values.
    by_head: [Var; 2],
    /// Hides what is to come, and padding.
    bias: Var,
    /// How far each token is turned, `[seq, d_head / 2]` each.
    cos: Var,
    sin: Var,
    /// The head of keys that each head of queries reads, where they are not as many.
    kv_head: Option<Var>,
}

/// States of Llama and Qwen2.
pub fn llama(text: &mut TextGraph) -> Result<Var, String> {
    let plan = plan(text)?;
    let shared = shared(text, &plan)?;
    let d_model = text.facts.d_model as i64;
    let graph = &mut text.graph;
    let table = graph.weight("embed_tokens.weight");
    let words = graph.gather(&table, &text.tokens, 0);
    let mut hidden = graph.reshape(&words, &[-1, d_model]);
    for layer in 0..graph.weights.count("layers.{}.input_layernorm.gamma") {
        let at = format!("layers.{layer}");
        let normed = rms_norm(graph, &hidden, &format!("{at}.input_layernorm"), &plan);
        let mixed = attention(graph, &normed, &format!("{at}.self_attn"), &plan, &shared);
        hidden = graph.add(&hidden, &mixed);
        let norm = format!("{at}.post_attention_layernorm");
        let normed = rms_norm(graph, &hidden, &norm, &plan);
        let fed = feed_forward(graph, &normed, &format!("{at}.mlp"), &plan);
        hidden = graph.add(&hidden, &fed);
    }
    Ok(rms_norm(graph, &hidden, "norm", &plan))
}

fn plan(text: &TextGraph) -> Result<Plan, String> {
    let config = &text.facts.config;
    let heads = config::size(config, "num_attention_heads")?;
    let rows = |name: &str| {
        let weights = &text.graph.weights;
        weights.rows(&format!("layers.0.self_attn.{name}.weight"))
    };
    let d_head = rows("q_proj") / heads;
    Ok(Plan {
        heads,
        kv_heads: rows("k_proj") / d_head.max(1),
        d_head,
        epsilon: config::number(config, "rms_norm_eps")?,
        activation: config::activation(config, "hidden_act")?,
    })
}

fn shared(text: &mut TextGraph, plan: &Plan) -> Result<Shared, String> {
    let speeds = speeds(&text.facts.config, plan.d_head)?;
    let by_head = [plan.heads, plan.kv_heads].map(|heads| text.by_head([heads, plan.d_head]));
    let bias = text.bias(true);
    let places = text.places(0);
    let graph = &mut text.graph;
    let speeds = graph.floats(&speeds, &[1, speeds.len()]);
    let to_floats = int("to", super::proto::data_type::FLOAT.into());
    let places = graph.node("Cast", [&places], vec![to_floats]);
    let places = graph.reshape(&places, &[-1, 1]);
    let angles = graph.mul(&places, &speeds);
    let [cos, sin] = ["Cos", "Sin"].map(|function| graph.node(function, [&angles], vec![]));
    let group = plan.heads / plan.kv_heads.max(1);
    let kv_head = (group > 1).then(|| {
        let read: Vec<i64> = (0..plan.heads).map(|head| (head / group) as i64).collect();
        graph.integers(&read)
    });
    Ok(Shared {
        by_head,
        bias,
        cos,
        sin,
        kv_head,
    })
}

/// Of the pairs of a head, in radians a token.
fn speeds(config: &Value, d_head: usize) -> Result<Vec<f32>, String> {
    let rope = serde_json::from_value::<Rope>(config.clone());
    let rope = rope.map_err(|error| format!("rope_parameters: {error}"))?;
    Ok(rope.speeds(d_head, config::size(config, "max_position_embeddings")?))
}

fn rms_norm(graph: &mut Graph, x: &Var, layer: &str, plan: &Plan) -> Var {
    let (two, epsilon) = (graph.number(2.0), graph.number(plan.epsilon));
    let squares = graph.node("Pow", [x, &two], vec![]);
    let mean = graph.node("ReduceMean", [&squares], vec![ints("axes", &[-1])]);
    let sum = graph.add(&mean, &epsilon);
    let root = graph.node("Sqrt", [&sum], vec![]);
    let normed = graph.node("Div", [x, &root], vec![]);
    let gamma = graph.weight(&format!("{layer}.gamma"));
    graph.mul(&normed, &gamma)
}

fn attention(graph: &mut Graph, x: &Var, layer: &str, plan: &Plan, shared: &Shared) -> Var {
    let [by_head, by_kv_head] = &shared.by_head;
    let mut project = |name: &str, shape: &Var| {
        let flat = graph.linear(x, &format!("{layer}.{name}"));
        let apart = graph.node("Reshape", [&flat, shape], vec![]);
        graph.transpose(&apart, &[0, 2, 1, 3])
    };
    let query = project("q_proj", by_head);
    let mut key = project("k_proj", by_kv_head);
    let mut value = project("v_proj", by_kv_head);
    let query = turned(graph, &query, shared);
    key = turned(graph, &key, shared);
    if let Some(kv_head) = &shared.kv_head {
        key = graph.gather(&key, kv_head, 1);
        value = graph.gather(&value, kv_head, 1);
    }
    let key = graph.transpose(&key, &[0, 1, 3, 2]);
    let sizes = [plan.heads, plan.d_head];
    let context = graph.attend([&query, &key, &value], sizes, Some(&shared.bias));
    graph.linear(&context, &format!("{layer}.o_proj"))
}

/// Turns the pairs of each head, whose parts are half a head apart; `[batch, heads, seq, d_head]` in and out.
fn turned(graph: &mut Graph, x: &Var, Shared { cos, sin, .. }: &Shared) -> Var {
    let [left, right] = graph.split(x, -1);
    let (a, b) = (graph.mul(&left, cos), graph.mul(&right, sin));
    let new_left = graph.node("Sub", [&a, &b], vec![]);
    let (a, b) = (graph.mul(&right, cos), graph.mul(&left, sin));
    let new_right = graph.add(&a, &b);
    graph.concat([&new_left, &new_right], -1)
}

fn feed_forward(graph: &mut Graph, x: &Var, layer: &str, plan: &Plan) -> Var {
    let gate = graph.linear(x, &format!("{layer}.gate_proj"));
    let gate = graph.activation(&gate, plan.activation);
    let up = graph.linear(x, &format!("{layer}.up_proj"));
    let wide = graph.mul(&gate, &up);
    graph.linear(&wide, &format!("{layer}.down_proj"))
}
