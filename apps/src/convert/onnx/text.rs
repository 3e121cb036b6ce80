//! What the graphs of all models that read texts have in common. In: what is known of a model. Out: its inputs, the places of
//! tokens, and what hides them from each other.

use model::HeadKind;
use model::heads::{ClassPlan, TokenPlan};
use serde_json::Value;

use super::graph::{Axis, Graph, Var, int};

/// What is known of a model beside its weights.
#[derive(Clone, Debug)]
pub struct TextFacts {
    /// `config.json`, every key of the family's configuration that has a default among it.
    pub config: Value,
    /// Width of its states.
    pub d_model: usize,
    /// Segments that it tells apart.
    pub segments: usize,
    /// How it scores tokens.
    pub tokens: TokenPlan,
    /// How it classifies.
    pub classes: ClassPlan,
}

/// A graph that reads a batch of texts.
#[derive(Debug)]
pub struct TextGraph {
    /// Nodes so far.
    pub graph: Graph,
    /// What is known of the model.
    pub facts: TextFacts,
    /// Token ids, `[batch, seq]`.
    pub tokens: Var,
    /// Segments, `[batch, seq]`, where there are several.
    pub types: Option<Var>,
    /// `[batch, seq]`: 1 at tokens, 0 at padding.
    pub(super) mask: Var,
    /// The number of texts, as a row of one value.
    pub(super) batch: Var,
    /// The number of tokens of each, as a row of one value.
    pub(super) seq: Var,
    /// Of a model that chooses: questions, and choices of each.
    pub(super) choices: Option<Var>,
}

/// Texts.
pub(super) const BATCH: Axis = Axis::Free("batch_size");
/// Tokens of the longest.
pub(super) const SEQ: Axis = Axis::Free("sequence_length");
/// Choices of a question.
pub(super) const CHOICES: Axis = Axis::Free("num_choices");

impl TextGraph {
    /// The inputs of a model, as `transformers` calls them.
    pub fn new(mut graph: Graph, facts: TextFacts) -> Self {
        let chooses = graph.weights.names.head.kind == HeadKind::Choices;
        let shape: &[Axis] = if chooses {
            &[BATCH, CHOICES, SEQ]
        } else {
            &[BATCH, SEQ]
        };
        let mut choices = None;
        let mut input = |graph: &mut Graph, name: &str| {
            let given = graph.input_integers(name, shape);
            if !chooses {
                return given;
            }
            // Each choice is a text: a row.
            let last = graph.node("Shape", [&given], vec![int("start", -1)]);
            choices = Some(graph.node("Shape", [&given], vec![int("end", 2)]));
            let rest = graph.integers(&[-1]);
            let rows = graph.concat([&rest, &last], 0);
            graph.node("Reshape", [&given, &rows], vec![])
        };
        let tokens = input(&mut graph, "input_ids");
        let mask = input(&mut graph, "attention_mask");
        let types = (facts.segments > 1).then(|| input(&mut graph, "token_type_ids"));
        let batch = graph.node("Shape", [&tokens], vec![int("end", 1)]);
        let seq = graph.node("Shape", [&tokens], vec![int("start", 1)]);
        Self {
            graph,
            facts,
            tokens,
            types,
            mask,
            batch,
            seq,
            choices,
        }
    }

    /// 0, 1, 2 ... as many as tokens, from a number on.
    pub fn places(&mut self, from: usize) -> Var {
        let graph = &mut self.graph;
        let seq = graph.node("Squeeze", [&self.seq], vec![]);
        let (first, step) = (graph.integer(from as i64), graph.integer(1));
        let last = graph.add(&seq, &first);
        graph.node("Range", [&first, &last, &step], vec![])
    }

    /// The shape `[batch, seq, heads, d_head]`.
    ///
    /// - sizes: heads, and the width of each
    pub fn by_head(&mut self, sizes: [usize; 2]) -> Var {
        let sizes = self.graph.integers(&sizes.map(|size| size as i64));
        self.graph.concat([&self.batch, &self.seq, &sizes], 0)
    }

    /// What is added to the scores of attention: 0, or what no softmax survives.
    ///
    /// - causal: whether the tokens to come are hidden, and not padding alone
    /// - out: `[batch, 1, 1, seq]`, or `[batch, 1, seq, seq]`
    pub fn bias(&mut self, causal: bool) -> Var {
        let places = self.places(0);
        let graph = &mut self.graph;
        // Finite: a row of nothing but padding must not become NaN.
        let (shown, hidden) = (graph.number(0.0), graph.number(-1e30));
        let none = graph.integer(0);
        let padding = graph.node("Equal", [&self.mask, &none], vec![]);
        let padding = graph.node("Where", [&padding, &hidden, &shown], vec![]);
        let axes = graph.integers(&[1, 2]);
        let padding = graph.node("Unsqueeze", [&padding, &axes], vec![]);
        if !causal {
            return padding;
        }
        let column = graph.reshape(&places, &[-1, 1]);
        let to_come = graph.node("Less", [&column, &places], vec![]);
        let to_come = graph.node("Where", [&to_come, &hidden, &shown], vec![]);
        graph.add(&padding, &to_come)
    }
}
