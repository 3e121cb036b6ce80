//! Makes layers: from what their parameters are drawn, and which of them get an adapter.

use burn::module::{Initializer, Module, ModuleVisitor, Param};
use burn::nn::Embedding;
use burn::prelude::*;

use crate::layers::adapter::{Adapter, Target};
use crate::layers::batch_norm::BatchNorm;
use crate::layers::bottleneck::Bottleneck;
use crate::layers::linear::{Conv1d, Linear};
use crate::layers::low_rank::LowRank;
use crate::layers::norm::{LayerNorm, RmsNorm};
use crate::layers::virtual_tokens::VirtualTokens;
use crate::names::Names;

/// Draws the layers of a model; the values are functions of the backend's seed.
#[derive(Clone, Debug)]
pub struct Draw<'a, B: Backend> {
    /// Where parameters are.
    pub device: &'a B::Device,
    /// Standard deviation of weights.
    pub std: f64,
    adapter: Option<(&'a Adapter, Names)>,
    frozen_statistics: bool,
    drops_nothing: bool,
    path: String,
}

impl<'a, B: Backend> Draw<'a, B> {
    /// Weights from N(0, `std`), without adapters.
    pub fn new(device: &'a B::Device, std: f64) -> Self {
        Self {
            device,
            std,
            adapter: None,
            frozen_statistics: false,
            drops_nothing: false,
            path: String::new(),
        }
    }

    /// The same, with an adapter: beside each linear layer that it targets, or in front of the tokens.
    ///
    /// - names: of the model, so that targets match Hugging Face names
    pub fn with_adapter(self, adapter: Option<&'a Adapter>, names: Names) -> Self {
        Self {
            adapter: adapter.map(|adapter| (adapter, names)),
            ..self
        }
    }

    /// The same; batch normalisation keeps its running statistics in training, where that is asked for.
    pub fn with_frozen_statistics(self, frozen_statistics: bool) -> Self {
        Self {
            frozen_statistics,
            ..self
        }
    }

    /// The same for a model that is never trained, though gradients are had of it: batch normalisation keeps its running
    /// statistics, and adapters drop nothing. Dropout of the model itself is its configuration's.
    pub fn without_training(self) -> Self {
        Self {
            frozen_statistics: true,
            drops_nothing: true,
            ..self
        }
    }

    /// For layers inside this part of a model: `backbone.encoder.layer.0`.
    pub fn inside(&self, part: &str) -> Self {
        Self {
            path: self.at(part),
            ..self.clone()
        }
    }

    /// The same with weights from N(0, `std`).
    pub fn with_std(&self, std: f64) -> Self {
        Self {
            std,
            ..self.clone()
        }
    }

    fn at(&self, part: &str) -> String {
        if self.path.is_empty() {
            return part.into();
        }
        format!("{}.{part}", self.path)
    }

    fn low_rank(&self, name: &str, d_input: usize, d_output: usize) -> Option<LowRank<B>> {
        let Some((Adapter::LowRank(plan), names)) = self.adapter else {
            return None;
        };
        if !self.is_among(&plan.targets, name, names) {
            return None;
        }
        let adapter = LowRank::new(plan, d_input, d_output, self.device);
        Some(if self.drops_nothing {
            adapter.without_dropout()
        } else {
            adapter
        })
    }

    fn bottleneck(&self, name: &str, d_output: usize) -> Option<Bottleneck<B>> {
        let Some((Adapter::Bottleneck(plan), names)) = self.adapter else {
            return None;
        };
        if !self.is_among(&plan.targets, name, names) {
            return None;
        }
        let adapter = Bottleneck::new(plan, d_output, self.device);
        Some(if self.drops_nothing {
            adapter.without_dropout()
        } else {
            adapter
        })
    }

    fn is_among(&self, targets: &[Target], name: &str, names: Names) -> bool {
        // As of a parameter inside the layer: names change by whole parts, dots included.
        let inside = names.theirs(&format!("{}.", self.at(name)));
        let theirs = inside.trim_end_matches('.');
        targets.iter().any(|target| target.matches(theirs))
    }

    /// What stands in front of every text, where the adapter is of that kind.
    ///
    /// - d_embedding: width of the token table
    /// - layers: of the model
    /// - width: of the keys of a layer
    pub fn virtual_tokens(
        &self,
        d_embedding: usize,
        layers: usize,
        width: usize,
    ) -> Option<VirtualTokens<B>> {
        let (adapter, _) = self.adapter?;
        match *adapter {
            Adapter::Prompt(n) => {
                Some(VirtualTokens::prompt(n, d_embedding, self.std, self.device))
            }
            Adapter::Prefix(n) => {
                let tokens = VirtualTokens::prefix(n, layers, width, self.std, self.device);
                Some(tokens)
            }
            Adapter::LowRank(_) | Adapter::Bottleneck(_) => None,
        }
    }

    /// A linear layer with a bias of zero; `name` is its path in the part that is drawn.
    pub fn linear(&self, name: &str, d_input: usize, d_output: usize) -> Linear<B> {
        Linear {
            low_rank: self.low_rank(name, d_input, d_output),
            bottleneck: self.bottleneck(name, d_output),
            ..Linear::normal(d_input, d_output, self.std, self.device)
        }
    }

    /// A linear layer without a bias.
    pub fn linear_without_bias(&self, name: &str, d_input: usize, d_output: usize) -> Linear<B> {
        Linear {
            bias: None,
            ..self.linear(name, d_input, d_output)
        }
    }

    /// A linear layer whose weights PyTorch would draw: from U(-k, k), k = 1 / sqrt(`d_input`).
    pub fn uniform_linear(&self, name: &str, d_input: usize, d_output: usize) -> Linear<B> {
        Linear {
            low_rank: self.low_rank(name, d_input, d_output),
            bottleneck: self.bottleneck(name, d_output),
            ..Linear::uniform(d_input, d_output, self.device)
        }
    }

    /// A linear layer in GPT-2's layout, with a bias of zero.
    pub fn conv1d(&self, name: &str, d_input: usize, d_output: usize) -> Conv1d<B> {
        let Linear { weight, bias, .. } = Linear::normal(d_input, d_output, self.std, self.device);
        Conv1d {
            weight,
            bias,
            low_rank: self.low_rank(name, d_input, d_output),
            bottleneck: self.bottleneck(name, d_output),
        }
    }

    /// Scale one, shift zero.
    pub fn norm(&self, d_model: usize, epsilon: f64) -> LayerNorm<B> {
        LayerNorm::new(d_model, epsilon, self.device)
    }

    /// Scale one.
    pub fn rms_norm(&self, d_model: usize, epsilon: f64) -> RmsNorm<B> {
        RmsNorm::new(d_model, epsilon, self.device)
    }

    /// Scale one, shift zero, statistics of a standard normal distribution.
    pub fn batch_norm(&self, channels: usize) -> BatchNorm<B> {
        BatchNorm::new(channels, self.device).frozen(self.frozen_statistics)
    }

    /// A table of `n` vectors `d_model` wide.
    pub fn embedding(&self, n: usize, d_model: usize) -> Embedding<B> {
        let std = self.std;
        Embedding {
            weight: Initializer::Normal { mean: 0.0, std }.init([n, d_model], self.device),
        }
    }
}

/// Draws every parameter now, in the order of the module's fields.
///
/// Burn draws a parameter when it is first read: without this the values depend on who reads first.
pub fn materialise<B: Backend, M: Module<B>>(module: M) -> M {
    struct Reader;
    impl<B: Backend> ModuleVisitor<B> for Reader {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let _ = param.val();
        }
    }
    module.visit(&mut Reader);
    module
}
