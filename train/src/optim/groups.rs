//! Which parameters train, how fast, and from which step: by Hugging Face name. In: a recipe's groups. Out: a
//! setting a parameter.

use std::collections::HashMap;

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use model::Names;
use model::walk::{self, ModulePath};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::recipe::Impossible;

/// One of the `[[optimizer.groups]]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecipe {
    /// A regular expression that matches anywhere in a Hugging Face name.
    pub pattern: String,
    /// Times the scheduled rate.
    #[serde(default = "one")]
    pub lr: f64,
    /// Instead of the optimizer's own, biases and norms included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Stays as it is.
    #[serde(default)]
    pub frozen: bool,
    /// The first step that changes it, counted from 0.
    #[serde(default)]
    pub unfreeze_at: u64,
}

fn one() -> f64 {
    1.0
}

impl GroupRecipe {
    fn group(&self) -> Result<Group, Impossible> {
        let wrong = |reason| Err(Impossible::new("optimizer.groups", reason));
        let Ok(pattern) = Regex::new(&self.pattern) else {
            let pattern = &self.pattern;
            return wrong(format!(
                "holds \"{pattern}\", which is no regular expression"
            ));
        };
        let decay = self.weight_decay.unwrap_or(0.0);
        for (name, value) in [("lr", self.lr), ("weight_decay", decay)] {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(format!("holds {name} = {value}; it must be 0 or more"));
            }
        }
        Ok(Group {
            pattern,
            lr_multiplier: if self.frozen { 0.0 } else { self.lr },
            weight_decay: self.weight_decay,
            unfreeze_at: self.unfreeze_at,
        })
    }
}

/// Parameters whose setting is not the plain one, by name.
#[derive(Clone, Debug)]
pub struct Group {
    /// Matches anywhere in a Hugging Face name.
    pub pattern: Regex,
    /// Times the scheduled rate; 0 freezes.
    pub lr_multiplier: f64,
    /// Instead of the optimizer's own.
    pub weight_decay: Option<f64>,
    /// The first step that changes it, counted from 0.
    pub unfreeze_at: u64,
}

impl Group {
    /// A group that differs in its rate alone; a multiplier of 0 freezes.
    pub fn rate(pattern: Regex, lr_multiplier: f64) -> Self {
        Self {
            pattern,
            lr_multiplier,
            weight_decay: None,
            unfreeze_at: 0,
        }
    }
}

/// How one parameter trains.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Times the scheduled rate; 0 is frozen.
    pub lr_multiplier: f64,
    /// Decay of the weights.
    pub weight_decay: f64,
    /// The first step that changes it, counted from 0.
    pub unfreeze_at: u64,
    /// What its rate is called in logs; nothing for the plain rate.
    pub label: Option<String>,
}

/// The settings of all parameters of a model.
#[derive(Clone, Debug)]
pub struct Groups {
    settings: HashMap<String, Setting>,
    names: Names,
}

/// What groups are made of, beside the names of a model.
#[derive(Clone, Debug)]
pub struct GroupRules<'a> {
    /// The recipe's own, in order; the first that matches counts.
    pub recipe: &'a [GroupRecipe],
    /// Those of a fine-tuning strategy; their multipliers multiply with the recipe's.
    pub strategy: &'a [Group],
    /// For matrices.
    pub weight_decay: f64,
    /// Times the rate for every layer further from the head; 1 is the same rate everywhere.
    pub layer_decay: f64,
    /// Steps after which one more layer trains, from the head down; 0 trains all from the start.
    pub unfreeze_every: u64,
}

impl Groups {
    /// The settings of the parameters of `module`.
    ///
    /// # Errors
    ///
    /// A pattern that is no regular expression or matches nothing, a number out of range.
    pub fn new<B: Backend, M: Module<B>>(
        rules: &GroupRules,
        module: &M,
        model: Names,
    ) -> Result<Self, Impossible> {
        let names = parameters(module, model);
        let layers = Layers::of(model, &names);
        let mut groups = Vec::new();
        for recipe in rules.recipe {
            let group = recipe.group()?;
            if !names.iter().any(|(name, _)| group.pattern.is_match(name)) {
                let example = names.first().map(|(name, _)| name.as_str());
                let (pattern, example) = (&recipe.pattern, example.unwrap_or_default());
                return Err(Impossible::new(
                    "optimizer.groups",
                    format!(
                        "holds \"{pattern}\", which matches no parameter; one of them is \"{example}\""
                    ),
                ));
            }
            groups.push(group);
        }
        let setting = |(name, dimensions): (String, usize)| {
            let setting = rules.setting(&groups, &layers, &name, dimensions);
            (name, setting)
        };
        Ok(Self {
            settings: names.into_iter().map(setting).collect(),
            names: model,
        })
    }

    /// How the parameters are called.
    pub fn names(&self) -> Names {
        self.names
    }

    /// Where a visitor of the model begins.
    pub(crate) fn path(&self) -> ModulePath {
        ModulePath::new(self.names)
    }

    /// How the parameter of this Hugging Face name trains; nothing if the model has none of that name.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.get(name)
    }

    /// Whether it never changes.
    pub fn is_frozen(&self, name: &str) -> bool {
        self.setting(name)
            .is_some_and(|setting| setting.lr_multiplier == 0.0)
    }

    /// Times the scheduled rate, by label, at this step; empty if all parameters have the plain rate.
    pub fn multipliers(&self, step: u64) -> Vec<(String, f64)> {
        let mut all: Vec<(String, f64)> = Vec::new();
        for setting in self.settings.values() {
            let label = setting.label.clone().unwrap_or_else(|| "other".into());
            let multiplier = if step >= setting.unfreeze_at {
                setting.lr_multiplier
            } else {
                0.0
            };
            all.push((label, multiplier));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
        all.dedup();
        if all.iter().all(|(_, times)| *times == 1.0) {
            Vec::new()
        } else {
            all
        }
    }
}

impl GroupRules<'_> {
    fn setting(&self, groups: &[Group], layers: &Layers, name: &str, dimensions: usize) -> Setting {
        let find = |groups: &[Group]| groups.iter().find(|g| g.pattern.is_match(name)).cloned();
        let (own, strategy) = (find(groups), find(self.strategy));
        let below_head = layers.below_head(name);
        let layer = if self.layer_decay == 1.0 {
            1.0
        } else {
            self.layer_decay.powi(below_head as i32)
        };
        let chosen = [&own, &strategy].into_iter().flatten();
        let lr_multiplier: f64 = chosen.clone().map(|group| group.lr_multiplier).product();
        let unfreeze_at = chosen.map(|group| group.unfreeze_at).max().unwrap_or(0);
        let gradual = self.unfreeze_every.saturating_mul(below_head as u64);
        let decay = own.as_ref().and_then(|group| group.weight_decay);
        let by_layer = self.layer_decay != 1.0 || self.unfreeze_every > 0;
        // Whatever makes rates differ is part of the label: no two rates share one.
        let patterns = [own, strategy].into_iter().flatten();
        let mut label: Vec<String> = patterns.map(|group| group.pattern.to_string()).collect();
        label.extend(by_layer.then(|| layers.label(name)));
        Setting {
            lr_multiplier: layer * lr_multiplier,
            weight_decay: decay.unwrap_or(if layers.decays(name, dimensions) {
                self.weight_decay
            } else {
                0.0
            }),
            unfreeze_at: unfreeze_at.max(gradual),
            label: (!label.is_empty()).then(|| label.join(" ")),
        }
    }
}

/// The numbered layers of a model: embeddings below them, everything else is the head above.
struct Layers {
    model: Names,
    n: usize,
}

impl Layers {
    fn of(model: Names, names: &[(String, usize)]) -> Self {
        let numbers = names.iter().filter_map(|(name, _)| model.layer(name));
        Self {
            model,
            n: numbers.max().map_or(0, |last| last + 1),
        }
    }

    /// Matrices decay; biases, norms and embedding tables do not.
    fn decays(&self, name: &str, dimensions: usize) -> bool {
        dimensions > 1 && !self.model.is_table(name)
    }

    /// 0 for the head, 1 for the last layer, one more than the layers for embeddings.
    fn below_head(&self, name: &str) -> usize {
        match self.model.layer(name) {
            Some(layer) => self.n - layer,
            None if self.model.is_table(name) => self.n + 1,
            None => 0,
        }
    }

    fn label(&self, name: &str) -> String {
        match self.model.layer(name) {
            Some(layer) => format!("layer {layer}"),
            None if self.model.is_table(name) => "embeddings".into(),
            None => "head".into(),
        }
    }
}

/// Stops gradients of the parameters that never change.
pub fn freeze<B: AutodiffBackend, M: AutodiffModule<B>>(module: M, groups: &Groups) -> M {
    module.map(&mut Freezer {
        path: groups.path(),
        groups,
    })
}

/// Hugging Face names of the parameters.
pub fn parameter_names<B: Backend, M: Module<B>>(module: &M, names: Names) -> Vec<String> {
    parameters(module, names)
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

/// Names and numbers of dimensions.
fn parameters<B: Backend, M: Module<B>>(module: &M, names: Names) -> Vec<(String, usize)> {
    let all = walk::parameters(module, names).into_iter();
    all.map(|parameter| (parameter.name, parameter.shape.len()))
        .collect()
}

/// Number of parameters, all and those that train. What never has a gradient is none: statistics of batch normalisation, a
/// codebook, a teacher.
///
/// - module: before [`freeze`]
pub fn count_parameters<B: Backend, M: Module<B>>(module: &M, groups: &Groups) -> [usize; 2] {
    struct Counter<'a> {
        path: ModulePath,
        groups: &'a Groups,
        counts: [usize; 2],
    }
    impl<B: Backend> ModuleVisitor<B> for Counter<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if !param.val().is_require_grad() {
                return;
            }
            let n = param.lazy_shape().num_elements();
            self.counts[0] += n;
            if !self.groups.is_frozen(&self.path.name()) {
                self.counts[1] += n;
            }
        }
    }
    let mut counter = Counter {
        path: groups.path(),
        groups,
        counts: [0; 2],
    };
    module.visit(&mut counter);
    counter.counts
}

struct Freezer<'a> {
    path: ModulePath,
    groups: &'a Groups,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Freezer<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.groups.is_frozen(&self.path.name()) {
            param.set_require_grad(false)
        } else {
            param
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules<'a>(recipe: &'a [GroupRecipe], strategy: &'a [Group]) -> GroupRules<'a> {
        GroupRules {
            recipe,
            strategy,
            weight_decay: 0.01,
            layer_decay: 1.0,
            unfreeze_every: 0,
        }
    }

    fn model() -> Names {
        Names::new(&model::families::bert::NAMES, model::HeadKind::Classes)
    }

    fn names() -> Vec<(String, usize)> {
        [
            ("bert.embeddings.word_embeddings.weight", 2),
            ("bert.encoder.layer.0.output.dense.weight", 2),
            ("bert.encoder.layer.1.output.dense.weight", 2),
            ("bert.encoder.layer.1.output.dense.bias", 1),
            ("classifier.weight", 2),
        ]
        .map(|(name, d)| (name.into(), d))
        .to_vec()
    }

    fn settings(rules: &GroupRules) -> Vec<Setting> {
        let names = names();
        let groups: Vec<_> = rules.recipe.iter().map(|g| g.group().unwrap()).collect();
        let layers = Layers::of(model(), &names);
        let setting = |(name, d): &(String, usize)| rules.setting(&groups, &layers, name, *d);
        names.iter().map(setting).collect()
    }

    #[test]
    fn layers_further_from_the_head_train_slower_and_later() {
        let rules = GroupRules {
            layer_decay: 0.5,
            unfreeze_every: 10,
            ..rules(&[], &[])
        };
        let all = settings(&rules);
        let rates: Vec<_> = all.iter().map(|setting| setting.lr_multiplier).collect();
        let starts: Vec<_> = all.iter().map(|setting| setting.unfreeze_at).collect();
        assert_eq!(rates, [0.125, 0.25, 0.5, 0.5, 1.0]);
        assert_eq!(starts, [30, 20, 10, 10, 0]);
    }

    #[test]
    fn matrices_alone_decay_unless_a_group_says_otherwise() {
        let decays = |recipe: &[GroupRecipe]| -> Vec<f64> {
            let all = settings(&rules(recipe, &[]));
            all.iter().map(|setting| setting.weight_decay).collect()
        };
        assert_eq!(decays(&[]), [0.0, 0.01, 0.01, 0.0, 0.01]);
        let group = GroupRecipe {
            pattern: "bias$|embeddings".into(),
            lr: 1.0,
            weight_decay: Some(0.3),
            frozen: false,
            unfreeze_at: 0,
        };
        assert_eq!(decays(&[group]), [0.3, 0.01, 0.01, 0.3, 0.01]);
    }

    #[test]
    fn multipliers_of_recipe_and_strategy_multiply() {
        let own = GroupRecipe {
            pattern: "layer\\.1".into(),
            lr: 0.5,
            weight_decay: None,
            frozen: false,
            unfreeze_at: 7,
        };
        let frozen = GroupRecipe {
            pattern: "embeddings".into(),
            frozen: true,
            ..own.clone()
        };
        let strategy = [Group::rate(Regex::new("^bert\\.").unwrap(), 0.1)];
        let all = settings(&rules(&[own, frozen], &strategy));
        let rates: Vec<_> = all.iter().map(|setting| setting.lr_multiplier).collect();
        assert_eq!(rates, [0.0, 0.1, 0.05, 0.05, 1.0]);
        assert_eq!(all[2].unfreeze_at, 7);
    }

    #[test]
    fn rates_have_labels_unless_all_are_plain() {
        let groups = |rules: &GroupRules| Groups {
            names: model(),
            settings: names()
                .into_iter()
                .map(|(n, _)| n)
                .zip(settings(rules))
                .collect(),
        };
        assert!(groups(&rules(&[], &[])).multipliers(0).is_empty());
        let decayed = GroupRules {
            layer_decay: 0.5,
            unfreeze_every: 10,
            ..rules(&[], &[])
        };
        let at = |step| groups(&decayed).multipliers(step);
        let labelled = |all: [(&str, f64); 4]| all.map(|(l, m)| (l.to_string(), m)).to_vec();
        assert_eq!(
            at(10),
            labelled([
                ("embeddings", 0.0),
                ("head", 1.0),
                ("layer 0", 0.0),
                ("layer 1", 0.5)
            ])
        );
        assert_eq!(
            at(30),
            labelled([
                ("embeddings", 0.125),
                ("head", 1.0),
                ("layer 0", 0.25),
                ("layer 1", 0.5)
            ])
        );
    }
}
