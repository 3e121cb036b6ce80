//! Layers of graphs. In: values, and the paths of a layer's weights. Out: values.

use model::ops::Activation;

use super::graph::{Graph, Var, float, int, ints};

impl Graph {
    /// A linear layer on the last axis of `[n, d_input]`, with a bias where there is one.
    ///
    /// - layer: the path of one whose weight is `[d_output, d_input]`
    pub fn linear(&mut self, x: &Var, layer: &str) -> Var {
        self.gemm(x, layer, true)
    }

    /// The same of a layer whose weight is `[d_input, d_output]`.
    pub fn conv1d(&mut self, x: &Var, layer: &str) -> Var {
        self.gemm(x, layer, false)
    }

    fn gemm(&mut self, x: &Var, layer: &str, turned: bool) -> Var {
        let weight = self.weight(&format!("{layer}.weight"));
        let bias = format!("{layer}.bias");
        let bias = self.weights.has(&bias).then(|| self.weight(&bias));
        self.product(x, &weight, bias.as_ref(), turned)
    }

    /// A product with a matrix, and a row that is added.
    ///
    /// - turned: whether the matrix is `[d_output, d_input]`
    pub fn product(&mut self, x: &Var, matrix: &Var, row: Option<&Var>, turned: bool) -> Var {
        let turned = vec![int("transB", turned.into())];
        match row {
            Some(row) => self.node("Gemm", [x, matrix, row], turned),
            None => self.node("Gemm", [x, matrix], turned),
        }
    }

    /// Layer normalisation over the last axis.
    pub fn layer_norm(&mut self, x: &Var, layer: &str, epsilon: f64) -> Var {
        let gamma = self.weight(&format!("{layer}.gamma"));
        let beta = self.weight(&format!("{layer}.beta"));
        let settings = vec![int("axis", -1), float("epsilon", epsilon)];
        self.node("LayerNormalization", [x, &gamma, &beta], settings)
    }

    /// An activation of every value.
    pub fn activation(&mut self, x: &Var, activation: Activation) -> Var {
        match activation {
            Activation::Gelu => self.gelu(x),
            Activation::GeluTanh => self.gelu_tanh(x),
            Activation::QuickGelu => {
                let gate = self.scaled(x, 1.702);
                self.gated(x, &gate)
            }
            Activation::Silu => self.gated(x, x),
            Activation::Relu => self.node("Relu", [x], vec![]),
            Activation::Relu6 => {
                let (least, most) = (self.number(0.0), self.number(6.0));
                self.node("Clip", [x, &least, &most], vec![])
            }
            Activation::Tanh => self.node("Tanh", [x], vec![]),
        }
    }

    /// `x * sigmoid(gate)`
    fn gated(&mut self, x: &Var, gate: &Var) -> Var {
        let share = self.node("Sigmoid", [gate], vec![]);
        self.mul(x, &share)
    }

    /// By the error function, which onnxruntime recognises and computes in one step: `Gelu` itself comes with operator set 20.
    fn gelu(&mut self, x: &Var) -> Var {
        let root = self.number(std::f64::consts::SQRT_2);
        let inside = self.node("Div", [x, &root], vec![]);
        let erf = self.node("Erf", [&inside], vec![]);
        let one = self.number(1.0);
        let share = self.add(&erf, &one);
        let product = self.mul(x, &share);
        self.scaled(&product, 0.5)
    }

    fn gelu_tanh(&mut self, x: &Var) -> Var {
        let three = self.number(3.0);
        let cube = self.node("Pow", [x, &three], vec![]);
        let cube = self.scaled(&cube, 0.044_715);
        let sum = self.add(x, &cube);
        let inside = self.scaled(&sum, (2.0 / std::f64::consts::PI).sqrt());
        let tanh = self.node("Tanh", [&inside], vec![]);
        let one = self.number(1.0);
        let share = self.add(&tanh, &one);
        let half = self.scaled(x, 0.5);
        self.mul(&half, &share)
    }

    /// Sum.
    pub fn add(&mut self, a: &Var, b: &Var) -> Var {
        self.node("Add", [a, b], vec![])
    }

    /// Product of each value of one with that of the other.
    pub fn mul(&mut self, a: &Var, b: &Var) -> Var {
        self.node("Mul", [a, b], vec![])
    }

    /// Every value times a number.
    pub fn scaled(&mut self, x: &Var, by: f64) -> Var {
        let by = self.number(by);
        self.mul(x, &by)
    }

    /// In another shape: -1 for what is left.
    pub fn reshape(&mut self, x: &Var, shape: &[i64]) -> Var {
        let shape = self.integers(shape);
        self.node("Reshape", [x, &shape], vec![])
    }

    /// With its axes in another order.
    pub fn transpose(&mut self, x: &Var, order: &[i64]) -> Var {
        self.node("Transpose", [x], vec![ints("perm", order)])
    }

    /// Rows of an axis.
    pub fn gather(&mut self, x: &Var, at: &Var, axis: i64) -> Var {
        self.node("Gather", [x, at], vec![int("axis", axis)])
    }

    /// One after the other along an axis.
    pub fn concat<const N: usize>(&mut self, parts: [&Var; N], axis: i64) -> Var {
        self.node("Concat", parts, vec![int("axis", axis)])
    }

    /// Scaled dot-product attention.
    ///
    /// - projected: queries, keys and values, flat: `[batch * seq, heads * d_head]`
    /// - by_head: the shape `[batch, seq, heads, d_head]`
    /// - sizes: heads, and the width of each
    /// - bias: what is added to the scores, of a shape that fits `[batch, heads, seq, seq]`
    /// - out: flat
    pub fn attention(
        &mut self,
        projected: [&Var; 3],
        by_head: &Var,
        sizes: [usize; 2],
        bias: Option<&Var>,
    ) -> Var {
        let apart = projected.map(|flat| self.node("Reshape", [flat, by_head], vec![]));
        let [query, key, value] = apart;
        let query = self.transpose(&query, &[0, 2, 1, 3]);
        let key = self.transpose(&key, &[0, 2, 3, 1]);
        let value = self.transpose(&value, &[0, 2, 1, 3]);
        self.attend([&query, &key, &value], sizes, bias)
    }

    /// The same of heads that are apart: queries and values `[batch, heads, seq, d_head]`, keys
    /// `[batch, heads, d_head, seq]`.
    pub fn attend(
        &mut self,
        [query, key, value]: [&Var; 3],
        [heads, d_head]: [usize; 2],
        bias: Option<&Var>,
    ) -> Var {
        let scores = self.node("MatMul", [query, key], vec![]);
        let mut scores = self.scaled(&scores, 1.0 / (d_head as f64).sqrt());
        if let Some(bias) = bias {
            scores = self.add(&scores, bias);
        }
        let shares = self.node("Softmax", [&scores], vec![int("axis", -1)]);
        let context = self.node("MatMul", [&shares, value], vec![]);
        let context = self.transpose(&context, &[0, 2, 1, 3]);
        self.reshape(&context, &[-1, (heads * d_head) as i64])
    }
}
