//! What of a pretrained model adapts, and how fast: full, the head only, or all but named parts.
//!
//! In: `from` and `[strategy]` of a recipe. Out: an opened bundle, and groups for the optimizer.

use std::path::Path;

use burn::prelude::*;
use model::Bundle;
use regex::Regex;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::optim::groups::{self, Group};
use train::recipe::Impossible;

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
}

/// Rates by name, for a model whose backbone's parameters start with `backbone`, such as `bert.`.
///
/// # Errors
///
/// A rate below 0, patterns that are no regular expressions, a kind that does not go with them.
pub fn groups(recipe: &StrategyRecipe, backbone: &str) -> Result<Vec<Group>, Impossible> {
    if !(recipe.backbone_lr.is_finite() && recipe.backbone_lr >= 0.0) {
        let reason = format!("is {}; it must be 0 or more", recipe.backbone_lr);
        return Err(Impossible::new("strategy.backbone_lr", reason));
    }
    match (recipe.kind, recipe.freeze.is_empty()) {
        (StrategyKind::Freeze, true) => {
            let reason = "names nothing, and strategy.kind is \"freeze\"";
            return Err(Impossible::new("strategy.freeze", reason));
        }
        (StrategyKind::Full | StrategyKind::Head, false) => {
            let reason = "names parameters, which takes strategy.kind = \"freeze\"";
            return Err(Impossible::new("strategy.freeze", reason));
        }
        _ => {}
    }
    let mut groups = Vec::new();
    for pattern in &recipe.freeze {
        groups.push(group(pattern, 0.0)?);
    }
    let backbone = format!("^{}", regex::escape(backbone));
    match recipe.kind {
        StrategyKind::Head => groups.push(group(&backbone, 0.0)?),
        StrategyKind::Full | StrategyKind::Freeze => {
            groups.push(group(&backbone, recipe.backbone_lr)?);
        }
    }
    Ok(groups)
}

/// Refuses a pattern that freezes nothing: it is mistyped, or of another model.
pub fn check_names<B: Backend>(
    recipe: &StrategyRecipe,
    model: &impl Module<B>,
) -> Result<(), Impossible> {
    let names = groups::parameter_names(model);
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

/// Opens what `from` names: a bundled model, a bundle, or the bundle of a run; nothing for `scratch`.
pub fn open(from: &str) -> Result<Option<Bundle>, Failure> {
    if from == "scratch" {
        return Ok(None);
    }
    if let Some(bundle) = model::bundled::open(from) {
        return Ok(Some(bundle?));
    }
    Ok(Some(Bundle::find(Path::new(from))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(kind: StrategyKind, freeze: &[&str], backbone_lr: f64) -> StrategyRecipe {
        StrategyRecipe {
            kind,
            freeze: freeze.iter().map(|pattern| pattern.to_string()).collect(),
            backbone_lr,
        }
    }

    fn multiplier(groups: &[Group], name: &str) -> f64 {
        let group = groups.iter().find(|group| group.pattern.is_match(name));
        group.map_or(1.0, |group| group.lr_multiplier)
    }

    #[test]
    fn the_head_alone_trains() {
        let groups = groups(&recipe(StrategyKind::Head, &[], 1.0), "bert.").unwrap();
        assert_eq!(multiplier(&groups, "bert.pooler.dense.weight"), 0.0);
        assert_eq!(multiplier(&groups, "classifier.weight"), 1.0);
    }

    #[test]
    fn frozen_names_come_before_the_backbone_rate() {
        let recipe = recipe(StrategyKind::Freeze, &["embeddings"], 0.1);
        let groups = groups(&recipe, "bert.").unwrap();
        assert_eq!(
            multiplier(&groups, "bert.embeddings.word_embeddings.weight"),
            0.0
        );
        assert_eq!(
            multiplier(&groups, "bert.encoder.layer.0.output.dense.weight"),
            0.1
        );
        assert_eq!(multiplier(&groups, "classifier.bias"), 1.0);
    }

    #[test]
    fn bad_strategies_are_refused() {
        for (recipe, word) in [
            (recipe(StrategyKind::Freeze, &[], 1.0), "names nothing"),
            (
                recipe(StrategyKind::Freeze, &["("], 1.0),
                "regular expression",
            ),
            (recipe(StrategyKind::Head, &["("], 1.0), "strategy.kind"),
            (recipe(StrategyKind::Full, &[], -1.0), "backbone_lr"),
        ] {
            let failure = groups(&recipe, "bert.").unwrap_err();
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }

    #[test]
    fn scratch_has_no_bundle_and_a_missing_one_is_named() {
        assert!(open("scratch").unwrap().is_none());
        let failure = open("no/such/bundle").unwrap_err();
        assert!(failure.to_string().contains("no/such/bundle"), "{failure}");
    }
}
