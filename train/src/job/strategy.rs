//! Which parameters train, and how fast: all, the head, all but named parts, or an adapter beside them.
//!
//! In: `[strategy]` and `[adapter]` of a recipe. Out: groups for the optimizer, and an adapter for the layers.

use burn::prelude::*;
use model::Names;
use model::layers::Adapter;
use model::layers::adapter::Target;
use model::layers::bottleneck::BottleneckPlan;
use model::layers::low_rank::LowRankPlan;
use model::names::{Family, VIRTUAL_TOKENS};
use model::registry::TEXT_FAMILIES;
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

/// What trains beside the weights, which stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// Nothing.
    None,
    /// Low-rank matrices.
    Lora,
    /// Small networks behind linear layers.
    Bottleneck,
    /// Vectors in front of the tokens.
    Prompt,
    /// Keys and values in front of those of each layer.
    Prefix,
}

impl AdapterKind {
    /// As recipes name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lora => "lora",
            Self::Bottleneck => "bottleneck",
            Self::Prompt => "prompt",
            Self::Prefix => "prefix",
        }
    }

    /// A pattern of the names of its parameters.
    fn parameters(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Lora => Some(r"\.lora_".into()),
            Self::Bottleneck => Some(r"\.bottleneck_".into()),
            Self::Prompt | Self::Prefix => Some(format!("^{VIRTUAL_TOKENS}$")),
        }
    }

    /// Whether it takes positions of every text.
    fn has_virtual_tokens(self) -> bool {
        matches!(self, Self::Prompt | Self::Prefix)
    }
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
    #[serde(default = "twenty")]
    pub virtual_tokens: usize,
}

fn twenty() -> usize {
    20
}

impl AdapterRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self) -> Result<(), Impossible> {
        let wrong = |name: &str, reason| Err(Impossible::new(format!("adapter.{name}"), reason));
        if self.rank == 0 {
            return wrong("rank", "is 0; it must be at least 1".into());
        }
        if self.virtual_tokens == 0 {
            return wrong("virtual_tokens", "is 0; it must be at least 1".into());
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
        let reason = format!(
            "is {}, which leaves new parts of the model as they were drawn",
            self.kind.name()
        );
        Err(Impossible::new("adapter.kind", reason))
    }

    /// Refuses texts that share rows where something stands in front of each text.
    ///
    /// - packing: whether texts share rows
    pub fn check_packing(&self, packing: bool) -> Result<(), Impossible> {
        if !(packing && self.kind.has_virtual_tokens()) {
            return Ok(());
        }
        let reason = format!(
            "is true, and with adapter.kind = \"{}\" every text needs a row of its own; set it to false",
            self.kind.name()
        );
        Err(Impossible::new("training.packing", reason))
    }

    /// Positions that the adapter takes of every text.
    pub fn taken(&self) -> usize {
        if self.kind.has_virtual_tokens() {
            self.virtual_tokens
        } else {
            0
        }
    }

    /// The adapter for a family, if there is to be one.
    ///
    /// # Errors
    ///
    /// A family without usual targets where none are named, or one that can't have such an adapter.
    pub fn adapter(&self, family: Option<&Family>) -> Result<Option<Adapter>, Impossible> {
        let usual = |of: fn(&Family) -> &'static [&'static str]| family.map_or(&[][..], of);
        let adapter = match self.kind {
            AdapterKind::None => return Ok(None),
            AdapterKind::Lora => Adapter::LowRank(LowRankPlan {
                rank: self.rank,
                alpha: self.alpha,
                dropout: self.dropout,
                rslora: self.rslora,
                dora: self.dora,
                targets: self.chosen(usual(|family| family.adapter_targets))?,
            }),
            AdapterKind::Bottleneck => Adapter::Bottleneck(BottleneckPlan {
                rank: self.rank,
                dropout: self.dropout,
                targets: self.chosen(usual(|family| family.bottleneck_targets))?,
            }),
            AdapterKind::Prompt => Adapter::Prompt(self.virtual_tokens),
            AdapterKind::Prefix => Adapter::Prefix(self.virtual_tokens),
        };
        match family {
            Some(family) if self.kind.has_virtual_tokens() && !family.virtual_tokens => {
                Err(self.without_front(family))
            }
            _ => Ok(Some(adapter)),
        }
    }

    /// The layers that are named, or the usual ones.
    fn chosen(&self, usual: &[&str]) -> Result<Vec<Target>, Impossible> {
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
        targets.collect::<Result<_, _>>().map_err(wrong)
    }

    fn without_front(&self, family: &Family) -> Impossible {
        let others = TEXT_FAMILIES.iter().filter(|family| family.virtual_tokens);
        let others: Vec<_> = others.map(|family| family.model_type).collect();
        let reason = format!(
            "is \"{}\", which is not implemented for {}; it is for {}",
            self.kind.name(),
            family.model_type,
            others.join(", ")
        );
        Impossible::new("adapter.kind", reason)
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
    if let Some(own) = recipe.adapter.kind.parameters() {
        if matches!(kind, StrategyKind::Head | StrategyKind::BitFit) || *backbone_lr != 1.0 {
            let reason = format!(
                "is {}, which decides by itself what trains; leave out strategy.kind and \
                 strategy.backbone_lr",
                recipe.adapter.kind.name()
            );
            return Err(Impossible::new("adapter.kind", reason));
        }
        groups.push(group(&own, 1.0)?);
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
        let output = "bert.encoder.layer.0.output.dense";
        for (kind, own) in [
            ("bottleneck", &*format!("{output}.bottleneck_up.bias")),
            ("prompt", VIRTUAL_TOKENS),
            ("prefix", VIRTUAL_TOKENS),
        ] {
            let settings = [&*format!("adapter.kind={kind}")];
            assert_eq!(multiplier(&settings, own), 1.0, "{kind}");
            assert_eq!(multiplier(&settings, &format!("{output}.bias")), 0.0);
            assert_eq!(multiplier(&settings, "classifier.weight"), 1.0);
        }
    }

    #[test]
    fn each_kind_has_its_families_and_its_usual_targets() {
        let family = |name: &str| {
            let mut all = TEXT_FAMILIES.iter().copied();
            all.find(|family| family.model_type == name)
        };
        let adapter = |kind: &str, name: &str| {
            let recipe = recipe(&[&format!("adapter.kind={kind}")]).adapter;
            recipe.adapter(family(name))
        };
        let Ok(Some(Adapter::Bottleneck(plan))) = adapter("bottleneck", "bert") else {
            panic!("no bottleneck");
        };
        let is_target = |name: &str| plan.targets.iter().any(|target| target.matches(name));
        assert!(is_target("bert.encoder.layer.11.output.dense"));
        assert!(!is_target("bert.encoder.layer.1.attention.output.dense"));
        assert!(matches!(adapter("none", "bert"), Ok(None)));
        assert!(matches!(
            adapter("prompt", "gpt2"),
            Ok(Some(Adapter::Prompt(20)))
        ));
        let told = |kind, name| adapter(kind, name).unwrap_err().to_string();
        let reason = told("prefix", "hearth_lstm");
        assert!(reason.contains(
            "\"prefix\", which is not implemented for hearth_lstm; it is for bert, roberta"
        ));
        assert!(told("bottleneck", "hearth_gru").contains("no usual ones"));
    }

    #[test]
    fn what_stands_in_front_of_a_text_needs_a_row_a_text() {
        for (kind, refused) in [("lora", false), ("bottleneck", false), ("prompt", true)] {
            let recipe = recipe(&[&format!("adapter.kind={kind}")]).adapter;
            assert!(recipe.check_packing(false).is_ok());
            assert_eq!(recipe.check_packing(true).is_err(), refused, "{kind}");
        }
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
            ("adapter.virtual_tokens=0", "adapter.virtual_tokens"),
            ("adapter.alpha=0.0", "adapter.alpha"),
            ("adapter.dropout=1.0", "adapter.dropout"),
            ("adapter.targets=[\"(\"]", "neither a name nor"),
        ] {
            let reason = recipe(&[settings]).adapter.check().unwrap_err();
            assert!(reason.to_string().contains(word), "{reason}");
        }
    }
}
