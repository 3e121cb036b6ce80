//! What of a pretrained model adapts, and how fast: full, the head only, or all but named parts.
//!
//! In: `from` and `[strategy]` of a recipe. Out: an opened bundle, and groups for the optimizer.

use std::path::Path;

use model::Bundle;
use regex::Regex;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::optimizer::Group;

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
pub fn groups(recipe: &StrategyRecipe, backbone: &str) -> Result<Vec<Group>, Failure> {
    if !(recipe.backbone_lr.is_finite() && recipe.backbone_lr >= 0.0) {
        return Err(Failure::input(format!(
            "recipe: strategy.backbone_lr is {}; it must be 0 or more",
            recipe.backbone_lr
        )));
    }
    if recipe.kind == StrategyKind::Freeze && recipe.freeze.is_empty() {
        return Err(Failure::input(
            "recipe: strategy.kind is \"freeze\" and strategy.freeze names nothing",
        ));
    }
    let mut groups = Vec::new();
    if recipe.kind == StrategyKind::Freeze {
        for pattern in &recipe.freeze {
            groups.push(group(pattern, 0.0)?);
        }
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

fn group(pattern: &str, lr_multiplier: f64) -> Result<Group, Failure> {
    let wrong = |_| {
        Failure::input(format!(
            "recipe: strategy.freeze holds \"{pattern}\", which is no regular expression"
        ))
    };
    let pattern = Regex::new(pattern).map_err(wrong)?;
    Ok(Group {
        pattern,
        lr_multiplier,
    })
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
            (recipe(StrategyKind::Full, &[], -1.0), "backbone_lr"),
        ] {
            let failure = groups(&recipe, "bert.").unwrap_err();
            assert_eq!(failure.exit_code(), 2);
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
