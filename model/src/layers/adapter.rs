//! What trains beside weights that stay as they are: which kinds there are, and which layers get one.

use regex::Regex;

use crate::layers::bottleneck::BottleneckPlan;
use crate::layers::low_rank::LowRankPlan;

/// What trains beside the weights of a model.
#[derive(Clone, Debug)]
pub enum Adapter {
    /// Two thin matrices beside linear layers.
    LowRank(LowRankPlan),
    /// A small network behind linear layers.
    Bottleneck(BottleneckPlan),
    /// So many vectors in front of the embedded tokens of every text.
    Prompt(usize),
    /// So many keys and values in front of those of every layer.
    Prefix(usize),
}

impl Adapter {
    /// The low-rank one, which alone can be merged into the weights.
    pub fn low_rank(&self) -> Option<&LowRankPlan> {
        match self {
            Self::LowRank(plan) => Some(plan),
            _ => None,
        }
    }

    /// Positions that it takes of every text.
    pub fn virtual_tokens(&self) -> usize {
        match self {
            Self::Prompt(n) | Self::Prefix(n) => *n,
            Self::LowRank(_) | Self::Bottleneck(_) => 0,
        }
    }

    /// What it is called in messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::LowRank(_) => "a low-rank adapter",
            Self::Bottleneck(_) => "a bottleneck adapter",
            Self::Prompt(_) => "a trained prompt",
            Self::Prefix(_) => "a trained prefix",
        }
    }
}

/// Names layers as `target_modules` of `peft` does.
#[derive(Clone, Debug)]
pub enum Target {
    /// The last parts of a name: `query`, `attention.self.query`.
    Suffix(String),
    /// A regular expression that matches the whole name.
    Pattern(Regex),
}

impl Target {
    /// A plain name is a suffix, anything else a regular expression over the whole name.
    ///
    /// # Errors
    ///
    /// What is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            return Ok(Self::Suffix(text.into()));
        }
        let pattern = Regex::new(&format!("^(?:{text})$"));
        pattern
            .map(Self::Pattern)
            .map_err(|_| format!("\"{text}\" is neither a name nor a regular expression"))
    }

    /// Whether a layer of this Hugging Face name gets an adapter.
    pub fn matches(&self, layer: &str) -> bool {
        match self {
            Self::Suffix(suffix) => {
                let before = layer.strip_suffix(suffix.as_str());
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            Self::Pattern(pattern) => pattern.is_match(layer),
        }
    }
}
