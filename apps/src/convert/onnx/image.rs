//! What the graphs of all models that see images have in common. In: what is known of a model. Out: its input, layers that move
//! over images, and its outputs.

use model::HeadKind;
use model::ops::Activation;
use serde_json::Value;

use super::graph::{Axis, Graph, Var, float, int, ints};
use super::proto::Attribute;
use super::text::BATCH;

/// What is known of a model beside its weights.
#[derive(Clone, Debug)]
pub struct ImageFacts {
    /// `config.json`, every key of the family's configuration that has a default among it.
    pub config: Value,
    /// Channels, height and width of an image.
    pub shape: [usize; 3],
}

/// A graph that sees a batch of images.
#[derive(Debug)]
pub struct ImageGraph {
    /// Nodes so far.
    pub graph: Graph,
    /// What is known of the model.
    pub facts: ImageFacts,
    /// The images.
    pub images: Maps,
}

/// Maps of a batch: `[batch, channels, height, width]`.
#[derive(Clone, Debug)]
pub struct Maps {
    /// Their values.
    pub var: Var,
    /// Channels, height and width.
    pub shape: [usize; 3],
}

/// What a backbone sees in images.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Maps, the finest first; none where a family has none.
    pub levels: Vec<Maps>,
    /// What a classifier reads, `[batch, width]`.
    pub pooled: Var,
    /// What a decoder makes images of, `[batch, width]`.
    pub latent: Var,
    /// What a model without a head gives, beside what a classifier reads: its values and their shape behind the batch.
    pub last: Option<(Var, Vec<usize>)>,
    /// Width of what a classifier reads.
    pub width: usize,
}

/// How a kernel moves over an image.
#[derive(Clone, Copy, Debug)]
pub struct Moves {
    /// Pixels from one place to the next, down and to the right.
    pub stride: [usize; 2],
    /// Zeros around the image: above, to the left, below, to the right.
    pub pads: [usize; 4],
    /// Pixels from one value of a kernel to the next.
    pub dilation: usize,
}

impl Moves {
    /// In steps of this many pixels, with zeros on all sides.
    pub fn new(stride: usize, padding: usize) -> Self {
        Self {
            stride: [stride; 2],
            pads: [padding; 4],
            dilation: 1,
        }
    }

    /// From patch to patch.
    pub fn of_patches(kernel: [usize; 2]) -> Self {
        Self {
            stride: kernel,
            ..Self::new(1, 0)
        }
    }

    fn strides(self) -> Attribute {
        ints("strides", &self.stride.map(|step| step as i64))
    }

    fn padding(self) -> Attribute {
        ints("pads", &self.pads.map(|zeros| zeros as i64))
    }

    /// Places on each axis.
    fn places(self, [height, width]: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
        let [above, left, below, right] = self.pads;
        let sizes = [height + above + below, width + left + right];
        std::array::from_fn(|axis| {
            let reach = self.dilation * (kernel[axis] - 1) + 1;
            sizes[axis].saturating_sub(reach) / self.stride[axis] + 1
        })
    }
}

impl Seen {
    /// Of a family whose decoders read what its classifiers read, and whose last maps are the coarsest.
    pub fn of_levels(levels: Vec<Maps>, pooled: Var, width: usize) -> Self {
        let last = levels.last();
        Self {
            last: last.map(|maps| (maps.var.clone(), maps.shape.to_vec())),
            latent: pooled.clone(),
            levels,
            pooled,
            width,
        }
    }
}

impl ImageGraph {
    /// The input of a model, as `transformers` calls it.
    pub fn new(mut graph: Graph, facts: ImageFacts) -> Self {
        let shape = facts.shape;
        let [channels, height, width] = shape.map(Axis::Size);
        let axes = [BATCH, channels, height, width];
        let var = graph.input_floats("pixel_values", &axes);
        Self {
            graph,
            facts,
            images: Maps { var, shape },
        }
    }

    /// The outputs of the model's head.
    ///
    /// # Errors
    ///
    /// A head that no graph is known of.
    pub fn answer(&mut self, seen: &Seen) -> Result<(), String> {
        let head = self.graph.weights.names.head.kind;
        match head {
            HeadKind::Bare => {
                if let Some((last, shape)) = &seen.last {
                    self.image_output("last_hidden_state", last, shape);
                }
                self.image_output("pooler_output", &seen.pooled, &[seen.width]);
            }
            HeadKind::Classes => {
                let logits = self.graph.linear(&seen.pooled, "head.output");
                let classes = self.graph.weights.rows("head.output.weight");
                self.image_output("logits", &logits, &[classes]);
            }
            HeadKind::Masks => {
                let scores = self.masks(seen)?;
                self.image_output("logits", &scores.var, &scores.shape);
            }
            HeadKind::Pixels => {
                let pixels = self.decoded(&seen.latent, "head.")?;
                self.image_output("logits", &pixels, &self.facts.shape.clone());
            }
            HeadKind::Variational => {
                let names = ["mean", "log_variance"];
                let both =
                    names.map(|name| self.graph.linear(&seen.latent, &format!("head.{name}")));
                let pixels = self.decoded(&both[0], "head.decoder.")?;
                self.image_output("logits", &pixels, &self.facts.shape.clone());
                let size = self.graph.weights.rows("head.mean.weight");
                for (name, values) in names.into_iter().zip(&both) {
                    self.image_output(name, values, &[size]);
                }
            }
            HeadKind::Tokens
            | HeadKind::SentencePairs
            | HeadKind::Replaced
            | HeadKind::TokenClasses
            | HeadKind::Spans
            | HeadKind::Choices
            | HeadKind::Codes
            | HeadKind::Patches
            | HeadKind::Boxes => return Err(super::no_graph_of(head)),
        }
        Ok(())
    }

    fn image_output(&mut self, name: &str, value: &Var, shape: &[usize]) {
        let sizes = shape.iter().map(|&size| Axis::Size(size));
        let axes: Vec<Axis> = std::iter::once(BATCH).chain(sizes).collect();
        self.graph.output(name, value, &axes);
    }
}

impl Graph {
    /// A convolution, with a bias where there is one. Its weight says into how many groups the channels fall.
    pub fn convolution(&mut self, x: &Maps, layer: &str, moves: Moves) -> Maps {
        let path = format!("{layer}.weight");
        let shape = self.weights.shape(&path).unwrap_or(&[1, 1, 1, 1]).to_vec();
        let weight = self.weight(&path);
        let [channels, height, width] = x.shape;
        let kernel = [shape[2], shape[3]];
        let settings = vec![
            ints("kernel_shape", &kernel.map(|size| size as i64)),
            moves.strides(),
            moves.padding(),
            ints("dilations", &[moves.dilation as i64; 2]),
            int("group", (channels / shape[1].max(1)) as i64),
        ];
        let bias = format!("{layer}.bias");
        let var = if self.weights.has(&bias) {
            let bias = self.weight(&bias);
            self.node("Conv", [&x.var, &weight, &bias], settings)
        } else {
            self.node("Conv", [&x.var, &weight], settings)
        };
        let [height, width] = moves.places([height, width], kernel);
        Maps {
            var,
            shape: [shape[0], height, width],
        }
    }

    /// Batch normalisation by the statistics of training.
    pub fn batch_norm(&mut self, x: &Maps, layer: &str, epsilon: f64) -> Maps {
        let parts = ["gamma", "beta", "running_mean", "running_var"];
        let [gamma, beta, mean, variance] =
            parts.map(|part| self.weight(&format!("{layer}.{part}")));
        let input = [&x.var, &gamma, &beta, &mean, &variance];
        let settings = vec![float("epsilon", epsilon)];
        x.with(self.node("BatchNormalization", input, settings))
    }

    /// A convolution, batch normalisation and perhaps an activation.
    pub fn normed_convolution(
        &mut self,
        x: &Maps,
        layer: &str,
        moves: Moves,
        epsilon: f64,
        activation: Option<Activation>,
    ) -> Maps {
        let x = self.convolution(x, &format!("{layer}.convolution"), moves);
        let x = self.batch_norm(&x, &format!("{layer}.normalization"), epsilon);
        match activation {
            Some(activation) => x.with(self.activation(&x.var, activation)),
            None => x,
        }
    }

    /// The largest value of each window.
    pub fn max_pool(&mut self, x: &Maps, side: usize, moves: Moves) -> Maps {
        let settings = vec![
            ints("kernel_shape", &[side as i64; 2]),
            moves.strides(),
            moves.padding(),
        ];
        let var = self.node("MaxPool", [&x.var], settings);
        let [channels, height, width] = x.shape;
        let [height, width] = moves.places([height, width], [side; 2]);
        Maps {
            var,
            shape: [channels, height, width],
        }
    }

    /// The mean of each map, `[batch, channels]`.
    pub fn mean_of_maps(&mut self, x: &Maps) -> Var {
        let mean = self.node("GlobalAveragePool", [&x.var], vec![]);
        self.flattened(&mean)
    }

    /// All values of an image as a row.
    pub fn flattened(&mut self, x: &Var) -> Var {
        self.node("Flatten", [x], vec![int("axis", 1)])
    }

    /// Maps of another size, of which each pixel is a weighted sum along both axes.
    ///
    /// - weights: of an axis of `from` and `to` pixels, `[to, from]`
    pub fn resized(
        &mut self,
        x: &Maps,
        size: [usize; 2],
        weights: fn(usize, usize) -> Vec<f32>,
    ) -> Maps {
        let [channels, height, width] = x.shape;
        let mut var = x.var.clone();
        if size[1] != width {
            let across = turned(&weights(width, size[1]), width);
            let across = self.floats(&across, &[width, size[1]]);
            var = self.node("MatMul", [&var, &across], vec![]);
        }
        if size[0] != height {
            let along = self.floats(&weights(height, size[0]), &[size[0], height]);
            var = self.node("MatMul", [&along, &var], vec![]);
        }
        Maps {
            var,
            shape: [channels, size[0], size[1]],
        }
    }
}

impl Maps {
    /// Other values of the same shape.
    pub fn with(&self, var: Var) -> Self {
        Self {
            var,
            shape: self.shape,
        }
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        let [_, height, width] = self.shape;
        [height, width]
    }
}

/// A matrix with its rows as columns.
///
/// - columns: of each row
fn turned(matrix: &[f32], columns: usize) -> Vec<f32> {
    let column = |at: usize| matrix.iter().skip(at).step_by(columns).copied();
    (0..columns).flat_map(column).collect()
}
