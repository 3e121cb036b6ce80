//! Which parameters train, and how fast: all, the head, all but named parts, or an adapter beside them.
//!
//! In: `[strategy]` and `[adapter]` of a recipe. Out: groups for the optimizer, and an adapter for the layers.

use burn::prelude::*;
use model::Names;
use model::layers::Adapter;
use model::layers::low_rank::Target;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::job::Recipe;
use crate::optim::groups::{self, Group};
use crate::recipe::Impossible;

/// Which parameters train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StrategyKind {
    /// All of them.
    Full,
    /// Those outside the backbone.
    Head,
    /// Those that no pattern of `freeze` matches.
    Freeze,
    /// Biases and the head: BitFit, Zaken et al. 2021, <https://arxiv.org/abs/2106.10199>.
    BitFit,
}

/// The `[strategy]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrategyRecipe {
    /// Which parameters train.
    pub kind: StrategyKind,
    /// Patterns of Hugging Face names that stay as they are.
    pub freeze: Vec<String>,
    /// Times the learning rate, for the backbone.
    pub backbone_lr: f64,
    /// Share dropped wherever the model drops; below 0 it is what the bundle says.
    pub dropout: f64,
    /// By what batch normalisation normalises while training.
    pub batch_norm: BatchNormKind,
    /// What the head begins with.
    #[serde(default)]
    pub head: HeadStart,
}

/// What the head of a task begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadStart {
    /// It is drawn anew.
    #[default]
    New,
    /// The bundle's, whose classes have to be those of the data.
    Keep,
}

/// By what batch normalisation normalises while a bundle's model trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchNormKind {
    /// The bundle's statistics where the backbone stays as it is, else those of each batch.
    Auto,
    /// The statistics of each batch, which the running ones follow.
    Train,
    /// The bundle's statistics, which stay as they are.
    Frozen,
}

impl StrategyRecipe {
    /// Whether batch normalisation keeps the bundle's statistics.
    pub fn freezes_statistics(&self) -> bool {
        match self.batch_norm {
            BatchNormKind::Auto => self.kind == StrategyKind::Head,
            BatchNormKind::Train => false,
            BatchNormKind::Frozen => true,
        }
    }
}

/// Small matrices beside the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// None.
    None,
    /// Low-rank ones.
    Lora,
}

/// The `[adapter]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // assets/recipes/shared.toml explains every key.
pub struct AdapterRecipe {
    pub kind: AdapterKind,
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f64,
    pub targets: Vec<String>,
    pub rslora: bool,
    pub dora: bool,
}

impl AdapterRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        let wrong = |name: &str, reason| Err(Impossible::new(format!("adapter.{name}"), reason));
        if self.rank == 0 {
            return wrong("rank", "is 0; it must be at least 1".into());
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return wrong("alpha", format!("is {}; it must be above 0", self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let reason = format!("is {}; it must be at least 0 and below 1", self.dropout);
            return wrong("dropout", reason);
        }
        if let Some(reason) = self
            .targets
            .iter()
            .find_map(|text| Target::parse(text).err())
        {
            return wrong("targets", format!("hold {reason}"));
        }
        Ok(())
    }

    /// Refuses an adapter where parts of the model are new, and have to train.
    pub fn check_none(&self) -> Result<(), Impossible> {
        if self.kind == AdapterKind::None {
            return Ok(());
        }
        let reason = "is lora, which leaves new parts of the model as they were drawn";
        Err(Impossible::new("adapter.kind", reason))
    }

    /// The adapter for a family whose usual targets are these.
    ///
    /// # Errors
    ///
    /// A family without usual targets, and none that are named.
    pub fn adapter(&self, usual: &[&str]) -> Result<Adapter, Impossible> {
        let named: Vec<&str> = if self.targets.is_empty() {
            usual.to_vec()
        } else {
            self.targets.iter().map(String::as_str).collect()
        };
        let wrong = |reason: String| Impossible::new("adapter.targets", reason);
        if named.is_empty() {
            return Err(wrong("is empty, and this family has no usual ones".into()));
        }
        let targets = named.iter().map(|text| Target::parse(text));
        Ok(Adapter {
            rank: self.rank,
            alpha: self.alpha,
            dropout: self.dropout,
            rslora: self.rslora,
            dora: self.dora,
            targets: targets.collect::<Result<_, _>>().map_err(wrong)?,
        })
    }
}

impl StrategyRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        if !(self.backbone_lr.is_finite() && self.backbone_lr >= 0.0) {
            let reason = format!("is {}; it must be 0 or more", self.backbone_lr);
            return Err(Impossible::new("strategy.backbone_lr", reason));
        }
        if self.dropout.is_nan() || self.dropout >= 1.0 {
            let reason = format!("is {}; it must be below 1", self.dropout);
            return Err(Impossible::new("strategy.dropout", reason));
        }
        let freezes = self.kind == StrategyKind::Freeze;
        if freezes && self.freeze.is_empty() {
            let reason = "names nothing, and strategy.kind is \"freeze\"";
            return Err(Impossible::new("strategy.freeze", reason));
        }
        if !freezes && !self.freeze.is_empty() {
            let reason = "names parameters, which takes strategy.kind = \"freeze\"";
            return Err(Impossible::new("strategy.freeze", reason));
        }
        self.freeze
            .iter()
            .try_for_each(|pattern| group(pattern, 0.0).map(drop))
    }
}

/// Rates by name; the first that matches counts.
///
/// # Errors
///
/// A pattern that is no regular expression, a model without a backbone to leave as it is.
pub fn groups(recipe: &Recipe, names: Names) -> Result<Vec<Group>, Impossible> {
    let StrategyRecipe {
        kind,
        freeze,
        backbone_lr,
        ..
    } = &recipe.strategy;
    let mut groups = Vec::new();
    for pattern in freeze {
        groups.push(group(pattern, 0.0)?);
    }
    let backbone = format!("^{}", regex::escape(names.prefix()));
    if names.prefix().is_empty() {
        // Then the backbone's pattern takes every name, and what it must not take comes first.
        for (_, head) in names.head.renames {
            groups.push(group(&format!("^{}", regex::escape(head)), 1.0)?);
        }
    }
    if recipe.adapter.kind == AdapterKind::Lora {
        if matches!(kind, StrategyKind::Head | StrategyKind::BitFit) || *backbone_lr != 1.0 {
            let reason = "is lora, which decides by itself what trains; leave out strategy.kind and \
                          strategy.backbone_lr";
            return Err(Impossible::new("adapter.kind", reason));
        }
        groups.push(group(r"\.lora_", 1.0)?);
        if names.head.kind.is_of_a_task() {
            // The head of a classifier is new, and so may a part be that bundles lack: they have to train.
            for part in names.family.optional {
                groups.push(group(&format!("{backbone}{}", regex::escape(part)), 1.0)?);
            }
            groups.push(group(&backbone, 0.0)?);
        } else {
            groups.push(group("", 0.0)?);
        }
    } else if *kind == StrategyKind::BitFit {
        groups.push(group(&format!(r"{backbone}.*\.bias$"), *backbone_lr)?);
        if names.head.kind.is_of_a_task() {
            // Parts of the backbone that bundles lack are new, too.
            for part in names.family.optional {
                groups.push(group(&format!("{backbone}{}", regex::escape(part)), 1.0)?);
            }
        }
        groups.push(group(&backbone, 0.0)?);
    } else if *kind == StrategyKind::Head {
        groups.push(group(&backbone, 0.0)?);
    } else if *backbone_lr != 1.0 || names.head.kind.is_of_a_task() {
        // A classifier's rates are logged apart, backbone and head.
        groups.push(group(&backbone, *backbone_lr)?);
    }
    Ok(groups)
}

/// Refuses a pattern that freezes nothing: it is mistyped, or of another model.
pub fn check_names<B: Backend>(
    recipe: &StrategyRecipe,
    model: &impl Module<B>,
    names: Names,
) -> Result<(), Impossible> {
    let names = groups::parameter_names(model, names);
    for pattern in &recipe.freeze {
        let group = group(pattern, 0.0)?;
        if !names.iter().any(|name| group.pattern.is_match(name)) {
            let example = names.first().map(String::as_str).unwrap_or_default();
            let reason = format!(
                "holds \"{pattern}\", which matches no parameter; one of them is \"{example}\""
            );
            return Err(Impossible::new("strategy.freeze", reason));
        }
    }
    Ok(())
}

fn group(pattern: &str, lr_multiplier: f64) -> Result<Group, Impossible> {
    let wrong = |_| {
        let reason = format!("holds \"{pattern}\", which is no regular expression");
        Impossible::new("strategy.freeze", reason)
    };
    let pattern = Regex::new(pattern).map_err(wrong)?;
    Ok(Group::rate(pattern, lr_multiplier))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Draft;
    use model::HeadKind;
    use model::registry::TEXT_FAMILIES;

    const RECIPE: &str = "objective = \"x\"\nlayers = [\"shared\", \"models/bert\"]\n";

    fn recipe(settings: &[&str]) -> Recipe {
        let mut draft = Draft::open("x", "objective", &[("x", RECIPE)]).unwrap();
        draft.set_all(settings.iter().copied()).unwrap();
        draft.finish().unwrap()
    }

    fn multiplier(settings: &[&str], name: &str) -> f64 {
        let names = Names::new(TEXT_FAMILIES[0], HeadKind::Classes);
        let groups = groups(&recipe(settings), names).unwrap();
        let group = groups.iter().find(|group| group.pattern.is_match(name));
        group.map_or(1.0, |group| group.lr_multiplier)
    }

    #[test]
    fn the_head_alone_trains() {
        let settings = ["strategy.kind=head"];
        assert_eq!(multiplier(&settings, "bert.pooler.dense.weight"), 0.0);
        assert_eq!(multiplier(&settings, "classifier.weight"), 1.0);
    }

    #[test]
    fn biases_alone_train_beside_what_is_new() {
        let settings = ["strategy.kind=bitfit"];
        let layer = "bert.encoder.layer.0.output";
        assert_eq!(multiplier(&settings, &format!("{layer}.dense.bias")), 1.0);
        assert_eq!(
            multiplier(&settings, &format!("{layer}.LayerNorm.bias")),
            1.0
        );
        assert_eq!(multiplier(&settings, &format!("{layer}.dense.weight")), 0.0);
        assert_eq!(multiplier(&settings, "bert.pooler.dense.weight"), 1.0);
        assert_eq!(multiplier(&settings, "classifier.weight"), 1.0);
        let slow = ["strategy.kind=bitfit", "strategy.backbone_lr=0.5"];
        assert_eq!(multiplier(&slow, &format!("{layer}.dense.bias")), 0.5);
    }

    #[test]
    fn frozen_names_come_before_the_backbone_rate() {
        let settings = [
            "strategy.kind=freeze",
            "strategy.freeze=[\"embeddings\"]",
            "strategy.backbone_lr=0.1",
        ];
        assert_eq!(
            multiplier(&settings, "bert.embeddings.word_embeddings.weight"),
            0.0
        );
        assert_eq!(
            multiplier(&settings, "bert.encoder.layer.0.output.dense.weight"),
            0.1
        );
        assert_eq!(multiplier(&settings, "classifier.bias"), 1.0);
    }

    #[test]
    fn an_adapter_trains_with_a_new_head_alone() {
        let settings = ["adapter.kind=lora"];
        let query = "bert.encoder.layer.0.attention.self.query";
        assert_eq!(
            multiplier(&settings, &format!("{query}.lora_A.weight")),
            1.0
        );
        assert_eq!(multiplier(&settings, &format!("{query}.weight")), 0.0);
        assert_eq!(multiplier(&settings, "classifier.weight"), 1.0);
    }

    #[test]
    fn bad_strategies_and_adapters_are_refused() {
        for (settings, word) in [
            (&["strategy.kind=freeze"][..], "names nothing"),
            (
                &["strategy.kind=freeze", "strategy.freeze=[\"(\"]"],
                "regular expression",
            ),
            (
                &["strategy.kind=head", "strategy.freeze=[\"a\"]"],
                "strategy.kind",
            ),
            (&["strategy.backbone_lr=-1.0"], "backbone_lr"),
            (&["strategy.dropout=1.0"], "strategy.dropout"),
        ] {
            let reason = recipe(settings).strategy.check().unwrap_err();
            assert!(reason.to_string().contains(word), "{reason}");
        }
        for (settings, word) in [
            ("adapter.rank=0", "adapter.rank"),
            ("adapter.alpha=0.0", "adapter.alpha"),
            ("adapter.dropout=1.0", "adapter.dropout"),
            ("adapter.targets=[\"(\"]", "neither a name nor"),
        ] {
            let reason = recipe(&[settings]).adapter.check().unwrap_err();
            assert!(reason.to_string().contains(word), "{reason}");
        }
    }
}
