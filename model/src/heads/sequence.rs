//! Heads of texts beside classes and tokens of a vocabulary. In: hidden states. Out: a class a token, both ends of an answer, a
//! score a choice.

use burn::module::Module;
use burn::prelude::*;

use crate::HeadKind;
use crate::families::TokenInput;
use crate::heads::{ClassHead, ClassPlan, Headed};
use crate::layers::{Draw, Linear};
use crate::ops::dropout;
use crate::registry::{TextBackbone, TextConfig};

/// The mean of the states of each row's tokens, special ones too, `[batch, d_model]`.
pub fn mean_states<B: Backend>(backbone: &TextBackbone<B>, input: &TokenInput<B>) -> Tensor<B, 2> {
    let [batch, seq] = input.tokens.dims();
    let states = backbone.states(input, None, None);
    let [_, d_model] = states.dims();
    let states: Tensor<B, 3> = states.reshape([batch, seq, d_model]);
    let Some(padding) = &input.mask_pad else {
        return states.mean_dim(1).reshape([batch, d_model]);
    };
    let real = padding.clone().bool_not().float().cast(states.dtype());
    let lengths = real.clone().sum_dim(1);
    let sum = (states * real.reshape([batch, seq, 1])).sum_dim(1);
    sum.reshape([batch, d_model]) / lengths
}

/// Rows of length one; `[n, width]` in and out.
pub fn normalized<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let length = (rows.clone() * rows.clone()).sum_dim(1).sqrt();
    rows / length.clamp_min(1e-12)
}

/// One layer on the state of every token, for classes.
#[derive(Module, Debug)]
pub struct TokenClassHead<B: Backend> {
    /// `[d_model, n_classes]`
    pub output: Linear<B>,
    before_output: f64,
}

/// A classifier of tokens.
pub type TokenClassifier<B> = Headed<B, TextBackbone<B>, TokenClassHead<B>>;

impl<B: Backend> TokenClassifier<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn draw(config: &TextConfig, n_classes: usize, draw: &Draw<'_, B>) -> Self {
        let sizes = config.describe();
        let backbone = config.init(HeadKind::TokenClasses, &draw.inside("backbone"));
        let draw = draw.with_std(sizes.std).inside("head");
        let head = TokenClassHead {
            output: draw.linear("output", sizes.d_model, n_classes),
            before_output: config.class_plan().token_dropout,
        };
        Self::new(backbone, head)
    }

    /// How many classes it scores.
    pub fn n_classes(&self) -> usize {
        let [_, n_classes] = self.head.output.weight.dims();
        n_classes
    }

    /// Scores of the classes at chosen places of the flattened `[batch * seq]`, or at all of them.
    ///
    /// - at: `[n]`
    /// - out: `[n, n_classes]`
    pub fn logits_at(&self, input: &TokenInput<B>, at: Option<Tensor<B, 1, Int>>) -> Tensor<B, 2> {
        let states = self.backbone.states(input, at, None);
        self.head
            .output
            .forward(dropout(states, self.head.before_output))
    }

    /// Scores of the classes at all places, `[batch * seq, n_classes]`.
    pub fn logits(&self, input: &TokenInput<B>) -> Tensor<B, 2> {
        self.logits_at(input, None)
    }
}

/// One layer on the state of every token, for the two ends of a span.
#[derive(Module, Debug)]
pub struct SpanHead<B: Backend> {
    /// `[d_model, 2]`
    pub output: Linear<B>,
    before_output: f64,
}

/// Finds the span of a text that answers a question.
pub type SpanFinder<B> = Headed<B, TextBackbone<B>, SpanHead<B>>;

impl<B: Backend> SpanFinder<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn draw(config: &TextConfig, draw: &Draw<'_, B>) -> Self {
        let sizes = config.describe();
        let backbone = config.init(HeadKind::Spans, &draw.inside("backbone"));
        let draw = draw.with_std(sizes.std).inside("head");
        let head = SpanHead {
            output: draw.linear("output", sizes.d_model, 2),
            before_output: config.class_plan().span_dropout,
        };
        Self::new(backbone, head)
    }

    /// How much each token looks like the first and like the last of the answer, `[batch * seq, 2]`.
    pub fn logits(&self, input: &TokenInput<B>) -> Tensor<B, 2> {
        let states = self.backbone.states(input, None, None);
        self.head
            .output
            .forward(dropout(states, self.head.before_output))
    }
}

/// A [`ClassHead`] of one score.
#[derive(Module, Debug)]
pub struct ChoiceHead<B: Backend> {
    /// `[d_model, d_model]` and `[d_model, 1]`
    pub score: ClassHead<B>,
}

/// Scores choices, an input each.
pub type ChoiceModel<B> = Headed<B, TextBackbone<B>, ChoiceHead<B>>;

impl<B: Backend> ChoiceModel<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    ///
    /// # Panics
    ///
    /// If the family has no such head.
    pub fn draw(config: &TextConfig, draw: &Draw<'_, B>) -> Self {
        let sizes = config.describe();
        let backbone = config.init(HeadKind::Choices, &draw.inside("backbone"));
        let draw = draw.with_std(sizes.std);
        // Where the backbone pools, the head has no layer before its last.
        let names = config.names(HeadKind::Choices).head.renames;
        let has_dense = names.iter().any(|(ours, _)| ours.contains("dense"));
        let plan = config.class_plan();
        let plan = ClassPlan {
            dense: plan.dense.filter(|_| has_dense),
            dropout: [0.0, plan.choice_dropout],
            ..plan
        };
        let score = ClassHead::new(&plan, sizes.d_model, 1, &draw);
        Self::new(backbone, ChoiceHead { score })
    }

    /// A score an input, `[batch, 1]`.
    ///
    /// - at: `[batch]`, the place of each row's state in the flattened `[batch * seq]`
    pub fn logits(&self, input: &TokenInput<B>, at: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        let states = self.backbone.class_states(input, at);
        self.head.score.forward(states)
    }
}
