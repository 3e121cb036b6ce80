//! What is asked of the states of texts. In: states of all tokens. Out: outputs with the names that `transformers` gives them.

use model::HeadKind;
use model::families::Place;
use model::heads::TokenPlan;

use super::config;
use super::graph::{Axis, Graph, Var, int, ints};
use super::text::{BATCH, CHOICES, SEQ, TextGraph};

impl TextGraph {
    /// The outputs of the model's head.
    ///
    /// - states: `[batch * seq, d_model]`
    ///
    /// # Errors
    ///
    /// A head that no graph is known of.
    pub fn answer(&mut self, states: &Var) -> Result<(), String> {
        let head = self.graph.weights.names.head.kind;
        match head {
            HeadKind::Bare => {
                let d_model = self.facts.d_model;
                self.token_output("last_hidden_state", states, d_model);
            }
            HeadKind::Tokens => self.vocabulary("logits", states, "head."),
            HeadKind::SentencePairs => {
                self.vocabulary("prediction_logits", states, "head.tokens.");
                let first = self.class_states(states);
                let pairs = self.graph.linear(&first, "head.pairs");
                let shape = [BATCH, self.outputs_of("head.pairs")];
                self.graph.output("seq_relationship_logits", &pairs, &shape);
            }
            HeadKind::Replaced => {
                let activation = config::activation(&self.facts.config, "hidden_act")?;
                let hidden = self.graph.linear(states, "head.dense");
                let hidden = self.graph.activation(&hidden, activation);
                let scores = self.graph.linear(&hidden, "head.output");
                self.score_output("logits", &scores);
            }
            HeadKind::Classes => {
                let logits = self.classes(states, "head.");
                let shape = [BATCH, self.outputs_of("head.output")];
                self.graph.output("logits", &logits, &shape);
            }
            HeadKind::TokenClasses => {
                let logits = self.graph.linear(states, "head.output");
                let classes = self.graph.weights.rows("head.output.weight");
                self.token_output("logits", &logits, classes);
            }
            HeadKind::Spans => {
                let logits = self.graph.linear(states, "head.output");
                let [start, end] = self.graph.split(&logits, 1);
                self.score_output("start_logits", &start);
                self.score_output("end_logits", &end);
            }
            HeadKind::Choices => {
                let mut scores = self.classes(states, "head.score.");
                if let Some(choices) = &self.choices {
                    scores = self.graph.node("Reshape", [&scores, choices], vec![]);
                }
                self.graph.output("logits", &scores, &[BATCH, CHOICES]);
            }
            HeadKind::Pixels
            | HeadKind::Variational
            | HeadKind::Codes
            | HeadKind::Patches
            | HeadKind::Masks
            | HeadKind::Boxes => return Err(super::no_graph_of(head)),
        }
        Ok(())
    }

    /// The width of what a layer gives.
    fn outputs_of(&self, layer: &str) -> Axis {
        Axis::Size(self.graph.weights.rows(&format!("{layer}.weight")))
    }

    /// Values of all tokens, flat, as an output `[batch, seq, width]`.
    fn token_output(&mut self, name: &str, flat: &Var, width: usize) {
        let graph = &mut self.graph;
        let last = graph.integers(&[width as i64]);
        let shape = graph.concat([&self.batch, &self.seq, &last], 0);
        let values = graph.node("Reshape", [flat, &shape], vec![]);
        graph.output(name, &values, &[BATCH, SEQ, Axis::Size(width)]);
    }

    /// A value of each token, flat, as an output `[batch, seq]`.
    fn score_output(&mut self, name: &str, flat: &Var) {
        let graph = &mut self.graph;
        let shape = graph.concat([&self.batch, &self.seq], 0);
        let scores = graph.node("Reshape", [flat, &shape], vec![]);
        graph.output(name, &scores, &[BATCH, SEQ]);
    }

    /// The state that a classifier reads of each text, `[batch, d_model]`: through the pooler, where there is one.
    fn class_states(&mut self, states: &Var) -> Var {
        let places = self.places(0);
        let graph = &mut self.graph;
        let sizes = [&self.batch, &self.seq];
        let [batch, seq] = sizes.map(|size| graph.node("Squeeze", [size], vec![]));
        let (none, one) = (graph.integer(0), graph.integer(1));
        let rows = graph.node("Range", [&none, &batch, &one], vec![]);
        let mut at = graph.mul(&rows, &seq);
        if self.facts.classes.place == Place::Last {
            let real = graph.mul(&self.mask, &places);
            let settings = vec![ints("axes", &[1]), int("keepdims", 0)];
            let last = graph.node("ReduceMax", [&real], settings);
            at = graph.add(&at, &last);
        }
        let state = graph.gather(states, &at, 0);
        if !graph.weights.has("pooler.dense.weight") {
            return state;
        }
        let state = graph.linear(&state, "pooler.dense");
        graph.node("Tanh", [&state], vec![])
    }

    /// Scores of classes, `[batch, n_classes]`.
    ///
    /// - head: in front of the names of its layers
    fn classes(&mut self, states: &Var, head: &str) -> Var {
        let mut state = self.class_states(states);
        let (activation, graph) = (self.facts.classes.dense, &mut self.graph);
        let dense = format!("{head}dense");
        if let Some(activation) = activation
            && graph.weights.has(&format!("{dense}.weight"))
        {
            state = graph.linear(&state, &dense);
            state = graph.activation(&state, activation);
        }
        graph.linear(&state, &format!("{head}output"))
    }

    /// Scores of the vocabulary of every token as an output.
    ///
    /// - head: in front of the names of its layers
    fn vocabulary(&mut self, name: &str, states: &Var, head: &str) {
        let table = self.graph.weights.names.family.token_table;
        let vocab_size = self.graph.weights.rows(table);
        let states = self.transformed(states, head);
        let graph = &mut self.graph;
        let output = format!("{head}output");
        let logits = if graph.weights.has(&format!("{output}.weight")) {
            graph.linear(&states, &output)
        } else {
            let table = graph.weight(table);
            let bias = optional(graph, &format!("{head}bias"));
            graph.product(&states, &table, bias.as_ref(), true)
        };
        self.token_output(name, &logits, vocab_size);
    }

    /// States as the decoder of tokens reads them.
    fn transformed(&mut self, states: &Var, head: &str) -> Var {
        let TokenPlan {
            transform, epsilon, ..
        } = self.facts.tokens;
        let Some(activation) = transform else {
            return states.clone();
        };
        let graph = &mut self.graph;
        let states = graph.linear(states, &format!("{head}dense"));
        let states = graph.activation(&states, activation);
        graph.layer_norm(&states, &format!("{head}norm"), epsilon)
    }
}

/// A weight that a model may lack.
fn optional(graph: &mut Graph, path: &str) -> Option<Var> {
    graph.weights.has(path).then(|| graph.weight(path))
}
