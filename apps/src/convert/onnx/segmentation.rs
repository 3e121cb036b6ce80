//! The graph of the head that gives each pixel a class. In: maps of a backbone. Out: scores as large as the image.

use model::ops::Activation;

use super::graph::Graph;
use super::image::{ImageGraph, Maps, Moves, Seen};

impl ImageGraph {
    /// Scores of the classes at each pixel.
    ///
    /// # Errors
    ///
    /// A family without maps.
    pub fn masks(&mut self, seen: &Seen) -> Result<Maps, String> {
        let [_, height, width] = self.facts.shape;
        let graph = &mut self.graph;
        let finest = if graph.weights.has("head.pyramid.laterals.0.weight") {
            joined(graph, &seen.levels)
        } else {
            seen.levels.first().cloned()
        };
        let finest = finest.ok_or("its family has no maps")?;
        let scores = graph.convolution(&finest, "head.output", Moves::new(1, 0));
        Ok(graph.resized(&scores, [height, width], bilinear_weights))
    }
}

/// Maps of all levels, added up at the size of the finest.
fn joined(graph: &mut Graph, levels: &[Maps]) -> Option<Maps> {
    let mut above: Option<Maps> = None;
    let mut outputs = Vec::new();
    for (number, level) in levels.iter().enumerate().rev() {
        let lateral = format!("head.pyramid.laterals.{number}");
        let mut sum = graph.convolution(level, &lateral, Moves::new(1, 0));
        if let Some(above) = &above {
            let larger = graph.resized(above, sum.size(), nearest_weights);
            sum = sum.with(graph.add(&sum.var, &larger.var));
        }
        let output = format!("head.pyramid.outputs.{number}");
        outputs.push(graph.convolution(&sum, &output, Moves::new(1, 1)));
        above = Some(sum);
    }
    let mut finest_first = outputs.into_iter().rev();
    let mut finest = finest_first.next()?;
    for coarse in finest_first {
        let larger = graph.resized(&coarse, finest.size(), bilinear_weights);
        finest = finest.with(graph.add(&finest.var, &larger.var));
    }
    Some(finest.with(graph.activation(&finest.var, Activation::Relu)))
}

/// Of an axis, `[to, from]`: between the two nearest pixels, by their distance.
fn bilinear_weights(from: usize, to: usize) -> Vec<f32> {
    let mut weights = vec![0.0; from * to];
    let scale = from as f64 / to as f64;
    for at in 0..to {
        let place = ((at as f64 + 0.5) * scale - 0.5).max(0.0);
        let first = (place as usize).min(from - 1);
        let second = (first + 1).min(from - 1);
        let share = (place - first as f64) as f32;
        weights[at * from + first] += 1.0 - share;
        weights[at * from + second] += share;
    }
    weights
}

/// Of an axis, `[to, from]`: each pixel is the one that it lies in.
fn nearest_weights(from: usize, to: usize) -> Vec<f32> {
    let mut weights = vec![0.0; from * to];
    for at in 0..to {
        weights[at * from + at * from / to] = 1.0;
    }
    weights
}
