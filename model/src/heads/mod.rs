//! What is asked of a backbone, once for all families. In: hidden states. Out: scores.

pub mod detection;
pub mod masked;
pub mod pyramid;
pub mod quantised;
pub mod replaced;
pub mod segmentation;
pub mod sentence_pairs;
pub mod seq2seq;
pub mod sequence;
pub mod variational;

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use burn::tensor::activation::sigmoid;

pub use detection::Detector;
pub use masked::MaskedAutoencoder;
pub use quantised::QuantisedAutoencoder;
pub use replaced::{Generator, ReplacedTokenModel};
pub use segmentation::Segmenter;
pub use sentence_pairs::SentencePairModel;
pub use seq2seq::{Seq2SeqHead, Seq2SeqModel};
pub use sequence::{ChoiceModel, SpanFinder, TokenClassifier};
pub use variational::VariationalAutoencoder;

use crate::cache::Cache;
use crate::families::{Place, TokenInput};
use crate::layers::{Draw, LayerNorm, Linear};
use crate::ops::{Activation, dropout, linear_transposed, matmul};
use crate::registry::{ImageBackbone, ImageConfig, ImageDecoder, TextBackbone, TextConfig};

/// Largest size that a head of images has: a mistake, or a file that wants all memory, is larger.
const LARGEST: usize = 1 << 16;

/// Refuses sizes of a head that are 0 or absurd.
fn check_head_sizes(sizes: &[(&str, usize)]) -> Result<(), String> {
    let wrong = |(_, size): &&(&str, usize)| !(1..=LARGEST).contains(size);
    match sizes.iter().find(wrong) {
        Some((name, size)) => Err(format!(
            "{name} is {size}; it must be at least 1 and at most {LARGEST}"
        )),
        None => Ok(()),
    }
}

/// A backbone and what is asked of it.
#[derive(Module, Debug)]
pub struct Headed<B: Backend, K: Module<B>, H: Module<B>> {
    /// What fine-tuning keeps.
    pub backbone: K,
    /// What fine-tuning draws anew.
    pub head: H,
    backend: std::marker::PhantomData<B>,
}

impl<B: Backend, K: Module<B>, H: Module<B>> Headed<B, K, H> {
    /// Puts the two together.
    pub fn new(backbone: K, head: H) -> Self {
        Self {
            backbone,
            head,
            backend: std::marker::PhantomData,
        }
    }
}

/// How a family scores tokens.
#[derive(Clone, Copy, Debug)]
pub struct TokenPlan {
    /// Width of what the decoder reads; where there is no transform, that of the hidden states.
    pub width: usize,
    /// A linear layer, this activation and a norm before the decoder; none of them where there is no activation.
    pub transform: Option<Activation>,
    /// Of that norm.
    pub epsilon: f64,
    /// Whether each token has a bias.
    pub bias: bool,
    /// Whether the token table is the decoder.
    pub tied: bool,
}

/// Scores of the tokens of a vocabulary.
#[derive(Module, Debug)]
pub struct TokenHead<B: Backend> {
    /// Before the decoder, `[d_model, width]`.
    pub dense: Option<Linear<B>>,
    /// After it.
    pub norm: Option<LayerNorm<B>>,
    /// `[vocab_size]`, beside the token table as the decoder.
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// The decoder with its bias, where the token table is none: `[width, vocab_size]`.
    pub output: Option<Linear<B>>,
    activation: Activation,
}

/// A language model.
pub type TokenModel<B> = Headed<B, TextBackbone<B>, TokenHead<B>>;

impl<B: Backend> TokenHead<B> {
    /// A head for a backbone of this configuration.
    ///
    /// - draw: inside the head
    pub fn new(config: &TextConfig, draw: &Draw<'_, B>) -> Self {
        let (plan, sizes) = (config.token_plan(), config.describe());
        let draw = &draw.with_std(sizes.std);
        let (width, vocab_size) = (plan.width, sizes.vocab_size);
        let transforms = plan.transform.is_some();
        let bias = || Initializer::Zeros.init([vocab_size], draw.device);
        let output = || {
            if plan.bias {
                draw.linear("output", width, vocab_size)
            } else {
                draw.linear_without_bias("output", width, vocab_size)
            }
        };
        Self {
            dense: transforms.then(|| draw.linear("dense", sizes.d_model, width)),
            norm: transforms.then(|| draw.norm(width, plan.epsilon)),
            bias: (plan.bias && plan.tied).then(bias),
            output: (!plan.tied).then(output),
            activation: plan.transform.unwrap_or(Activation::Gelu),
        }
    }

    /// States as the decoder reads them, `[n, d_model]` in and `[n, width]` out.
    pub fn transform(&self, mut states: Tensor<B, 2>) -> Tensor<B, 2> {
        if let Some(dense) = &self.dense {
            states = self.activation.apply(dense.forward(states));
        }
        match &self.norm {
            Some(norm) => norm.forward(states),
            None => states,
        }
    }

    /// Scores of the vocabulary of transformed states, `[n, width]` in and `[n, vocab_size]` out.
    ///
    /// - table: the backbone's, `[vocab_size, width]`, where it is the decoder
    pub fn decode(
        &self,
        states: Tensor<B, 2>,
        table: impl FnOnce() -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        match (&self.output, &self.bias) {
            (Some(output), _) => output.forward(states),
            (None, Some(bias)) => linear_transposed(states, table(), bias.val()),
            (None, None) => matmul(states, table().transpose()),
        }
    }
}

impl<B: Backend> TokenModel<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn draw(config: &TextConfig, draw: &Draw<'_, B>) -> Self {
        let backbone = config.init(crate::HeadKind::Tokens, &draw.inside("backbone"));
        let head = TokenHead::new(config, &draw.inside("head"));
        Self::new(backbone, head)
    }

    /// Scores of the vocabulary at chosen places of the flattened `[batch * seq]`, or at all of them.
    ///
    /// The vocabulary is the widest product of a small model, and the last layer a large part of what is left: both are
    /// computed at those places alone.
    ///
    /// - at: `[n]`
    /// - out: `[n, vocab_size]`
    pub fn logits(
        &self,
        input: &TokenInput<B>,
        at: Option<Tensor<B, 1, Int>>,
        cache: Option<&mut Cache<B>>,
    ) -> Tensor<B, 2> {
        self.scores(self.states(input, at, cache))
    }

    /// Scores of the vocabulary, `[n, vocab_size]`.
    ///
    /// - states: `[n, width]`, as the decoder reads them
    pub fn scores(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.decode(states, || self.backbone.token_table())
    }

    /// States as the decoder reads them, `[n, width]`.
    pub fn states(
        &self,
        input: &TokenInput<B>,
        at: Option<Tensor<B, 1, Int>>,
        cache: Option<&mut Cache<B>>,
    ) -> Tensor<B, 2> {
        self.head.transform(self.backbone.states(input, at, cache))
    }

    /// The decoder: `[vocab_size, width]`, and a bias for each token, `[vocab_size]`.
    ///
    /// `None` where an adapter is beside it: no one matrix gives the scores then, [`logits`](Self::logits) does.
    pub fn decoder(&self) -> Option<(Tensor<B, 2>, Option<Tensor<B, 1>>)> {
        let bias = |bias: &Option<Param<Tensor<B, 1>>>| bias.as_ref().map(Param::val);
        match &self.head.output {
            Some(output) if !output.is_plain() => None,
            Some(output) => Some((output.weight.val().transpose(), bias(&output.bias))),
            None => Some((self.backbone.token_table(), bias(&self.head.bias))),
        }
    }
}

/// How a family classifies a whole input.
#[derive(Clone, Copy, Debug)]
pub struct ClassPlan {
    /// A linear layer of the head with this activation, before the last one.
    pub dense: Option<Activation>,
    /// Whose state is read.
    pub place: Place,
    /// Whether each class has a bias.
    pub bias: bool,
    /// Dropout before the first and before the last layer.
    pub dropout: [f64; 2],
    /// Dropout before the layer that classifies tokens.
    pub token_dropout: f64,
    /// Dropout before the layer that finds spans.
    pub span_dropout: f64,
    /// Dropout before the layer that scores choices.
    pub choice_dropout: f64,
}

/// Scores of classes.
#[derive(Module, Debug)]
pub struct ClassHead<B: Backend> {
    /// `[width, width]`
    pub dense: Option<Linear<B>>,
    /// `[width, n_classes]`
    pub output: Linear<B>,
    activation: Activation,
    before_dense: f64,
    before_output: f64,
}

impl<B: Backend> ClassHead<B> {
    /// A head on states of this width.
    pub fn new(plan: &ClassPlan, width: usize, n_classes: usize, draw: &Draw<'_, B>) -> Self {
        let draw = &draw.inside("head");
        let output = draw.linear("output", width, n_classes);
        Self {
            dense: plan.dense.map(|_| draw.linear("dense", width, width)),
            output: Linear {
                bias: output.bias.filter(|_| plan.bias),
                ..output
            },
            activation: plan.dense.unwrap_or(Activation::Gelu),
            before_dense: plan.dropout[0],
            before_output: plan.dropout[1],
        }
    }

    /// A head of one layer, drawn as PyTorch draws it.
    pub fn uniform(width: usize, n_classes: usize, draw: &Draw<'_, B>) -> Self {
        Self {
            dense: None,
            output: draw
                .inside("head")
                .uniform_linear("output", width, n_classes),
            activation: Activation::Gelu,
            before_dense: 0.0,
            before_output: 0.0,
        }
    }

    /// How many classes it scores.
    pub fn n_classes(&self) -> usize {
        let [_, n_classes] = self.output.weight.dims();
        n_classes
    }

    /// - states: `[batch, width]`
    /// - out: `[batch, n_classes]`
    pub fn forward(&self, mut states: Tensor<B, 2>) -> Tensor<B, 2> {
        if let Some(dense) = &self.dense {
            states = dense.forward(dropout(states, self.before_dense));
            states = self.activation.apply(states);
        }
        self.output.forward(dropout(states, self.before_output))
    }
}

/// A classifier of texts.
pub type TextClassifier<B> = Headed<B, TextBackbone<B>, ClassHead<B>>;

impl<B: Backend> TextClassifier<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn draw(config: &TextConfig, n_classes: usize, draw: &Draw<'_, B>) -> Self {
        let sizes = config.describe();
        let backbone = config.init(crate::HeadKind::Classes, &draw.inside("backbone"));
        let draw = draw.with_std(sizes.std);
        let head = ClassHead::new(&config.class_plan(), sizes.d_model, n_classes, &draw);
        Self::new(backbone, head)
    }

    /// Scores of the classes, `[batch, n_classes]`.
    ///
    /// - at: `[batch]`, the place of each row's state in the flattened `[batch * seq]`: its first token's or its last one's
    pub fn logits(&self, input: &TokenInput<B>, at: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.head.forward(self.backbone.class_states(input, at))
    }
}

/// A classifier of images.
pub type ImageClassifier<B> = Headed<B, ImageBackbone<B>, ClassHead<B>>;

impl<B: Backend> ImageClassifier<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    pub fn draw(config: &ImageConfig, n_classes: usize, draw: &Draw<'_, B>) -> Self {
        let backbone = config.init(&draw.inside("backbone"));
        let mut head = ClassHead::uniform(config.describe().width, n_classes, draw);
        head.before_output = config.head_dropout();
        Self::new(backbone, head)
    }

    /// Scores of the classes.
    ///
    /// - images: `[batch, channels, height, width]`, as the bundle's preprocessor prepares them
    /// - out: `[batch, n_classes]`
    pub fn logits(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        self.head.forward(self.backbone.forward(images).pooled)
    }
}

/// A model that gives images back.
pub type Autoencoder<B> = Headed<B, ImageBackbone<B>, ImageDecoder<B>>;

impl<B: Backend> Autoencoder<B> {
    /// Draws a model; the weights are a function of the backend's seed.
    ///
    /// - shape: channels, height and width of the images
    pub fn draw(config: &ImageConfig, shape: [usize; 3], draw: &Draw<'_, B>) -> Self {
        let backbone = config.init(&draw.inside("backbone"));
        Self::new(backbone, config.init_decoder(shape, &draw.inside("head")))
    }

    /// Logits of the reconstructed pixels; `[batch, channels, height, width]` in and out.
    pub fn logits(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        self.head.forward(self.backbone.latent(images))
    }

    /// Reconstructed pixels, 0 to 1; `[batch, channels, height, width]` in and out.
    pub fn reconstruct(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        sigmoid(self.logits(images))
    }
}
