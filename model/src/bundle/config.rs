//! `config.json`: which family it names, what it says about classes, and how it is written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Bundle, BundleError};
use crate::eight_bits;
use crate::names::{Family, HeadKind, HeadNames, Names};
use crate::registry::{IMAGE_FAMILIES, SEQ2SEQ_FAMILIES, TEXT_FAMILIES};

/// What a classifier's logits mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// One class is right: a softmax makes probabilities of them.
    OneLabel,
    /// Each class is right or not: a sigmoid makes a probability of each.
    SeveralLabels,
    /// They are the values themselves.
    Values,
}

/// Keys that say what a classifier's logits are of.
const OF_CLASSES: [&str; 4] = ["id2label", "label2id", "num_labels", "problem_type"];

fn families() -> impl Iterator<Item = &'static Family> {
    let of_texts = TEXT_FAMILIES.iter().chain(SEQ2SEQ_FAMILIES);
    of_texts.chain(IMAGE_FAMILIES).copied()
}

/// The family that a configuration names: by `model_type`, else by `architectures`.
pub(super) fn family(config: &Value) -> Result<&'static Family, String> {
    let known = || {
        let types: Vec<_> = families().map(|family| family.model_type).collect();
        types.join(", ")
    };
    if let Some(named) = config.get("model_type").and_then(Value::as_str) {
        let found = families().find(|family| family.model_type == named);
        return found.ok_or_else(|| format!("model_type is \"{named}\"; known are {}", known()));
    }
    let class = config.get("architectures").and_then(|names| names.get(0));
    let class = class.and_then(Value::as_str).unwrap_or_default();
    let found = families().find(|family| family.heads.iter().any(|head| head.class == class));
    found.ok_or_else(|| format!("model_type is missing; known are {}", known()))
}

/// Fills in what the family means by keys that are left out, and refuses values that change what a model computes in a
/// way that is not implemented.
pub(super) fn complete(config: &mut Value, family: &'static Family) -> Result<(), String> {
    let of_8_bits = eight_bits::is_named(config);
    let Some(config) = config.as_object_mut() else {
        return Err("holds no JSON object".into());
    };
    config.insert("model_type".into(), family.model_type.into());
    for (key, value) in family.defaults {
        let missing = config.get(*key).is_none_or(Value::is_null);
        if missing && let Ok(value) = serde_json::from_str(value) {
            config.insert((*key).into(), value);
        }
    }
    for (key, only) in family.fixed {
        if of_8_bits && *key == eight_bits::KEY {
            continue;
        }
        let Some(value) = config.get(*key).filter(|value| !value.is_null()) else {
            continue;
        };
        let found = value.to_string();
        if found != *only {
            return Err(format!("{key} is {found}; only {only} is implemented"));
        }
    }
    Ok(())
}

impl Bundle {
    /// Class names in the order of the logits, where the model is a classifier.
    ///
    /// Without `id2label` they are `LABEL_0`, `LABEL_1` and so on, one for each row of the last layer.
    ///
    /// # Errors
    ///
    /// Names that leave a gap, or that are not as many as the last layer has rows.
    pub fn classes(&self) -> Result<Vec<String>, BundleError> {
        let rows = self.rows()?;
        let table = self.label_table()?;
        if table.is_empty() {
            let count = self.config.get("num_labels").and_then(Value::as_u64);
            if let (Some(count), Some(rows)) = (count, rows)
                && count as usize != rows
            {
                return Err(self.config_error(format!(
                    "num_labels is {count}, and the classifier has {rows} rows"
                )));
            }
            let count = rows.or(count.map(|count| count as usize)).unwrap_or(2);
            return Ok((0..count).map(|class| format!("LABEL_{class}")).collect());
        }
        let names: Vec<String> = (0..table.len())
            .map(|class| {
                let name = table.get(&class).cloned();
                let largest = table.keys().last().copied().unwrap_or_default();
                name.ok_or_else(|| {
                    self.config_error(format!(
                        "id2label lacks class {class}, and names class {largest}"
                    ))
                })
            })
            .collect::<Result<_, _>>()?;
        if let Some(rows) = rows
            && rows != names.len()
        {
            let count = names.len();
            return Err(self.config_error(format!(
                "id2label names {count} classes, and the classifier has {rows} rows"
            )));
        }
        Ok(names)
    }

    /// `id2label`, or `label2id` the other way round; empty where there is neither.
    fn label_table(&self) -> Result<BTreeMap<usize, String>, BundleError> {
        let name = |value: &Value| match value {
            Value::String(name) => name.clone(),
            other => other.to_string(),
        };
        let wrong = |key: &str, id: &dyn std::fmt::Display| {
            self.config_error(format!("{key}: \"{id}\" is no number of a class"))
        };
        if let Some(Value::Object(table)) = self.config.get("id2label") {
            let pair = |(id, value): (&String, &Value)| {
                let class = id.parse().map_err(|_| wrong("id2label", id))?;
                Ok((class, name(value)))
            };
            return table.iter().map(pair).collect();
        }
        if let Some(Value::Array(names)) = self.config.get("id2label") {
            return Ok(names.iter().map(name).enumerate().collect());
        }
        let Some(Value::Object(table)) = self.config.get("label2id") else {
            return Ok(BTreeMap::new());
        };
        let pair = |(name, id): (&String, &Value)| {
            let class = id.as_u64().ok_or_else(|| wrong("label2id", id))?;
            Ok((class as usize, name.clone()))
        };
        table.iter().map(pair).collect()
    }

    /// Names the class of what an adapter was trained for, which its base's may not be: what the adapter says itself, else what
    /// its merged model says, else what the parts that it brings are of.
    pub(super) fn take_class(&mut self, merged: Option<&Value>) {
        let Some(adapter) = self.adapter.clone() else {
            return;
        };
        let family = self.family;
        let class = merged.and_then(|merged| merged["architectures"][0].as_str());
        let of_merged = class.and_then(|class| family.head_of_class(class));
        let of_task = adapter.head(family);
        let brings = |head: &&HeadNames| {
            let first = head.renames.first();
            head.kind.is_of_a_task() && first.is_some_and(|(_, part)| adapter.holds_part(part))
        };
        let brought = family.all_heads().filter(brings);
        let brought = brought.min_by_key(|head| head.kind.rank());
        // What lies above may be another model, as the base is.
        let is_like = |head: &&HeadNames| head.kind.is_of_a_task() == brought.is_some();
        let head = of_task.or(of_merged.filter(is_like)).or(brought);
        let Some(head) = head else {
            return;
        };
        if let Some(config) = self.config.as_object_mut() {
            config.insert("architectures".into(), json!([head.class]));
        }
    }

    /// Takes what its merged model says of an adapter's training, where that is its merged model.
    pub(super) fn take_settings(&mut self, merged: Option<&Value>) -> Result<bool, BundleError> {
        let class = self.class().unwrap_or_default();
        let Some(merged) = merged.filter(|merged| merged["architectures"][0] == class) else {
            return Ok(false);
        };
        if self.family.is_of_images() {
            // It was fitted to images of another size than its base's, perhaps.
            let mut config = merged.clone();
            complete(&mut config, self.family).map_err(|reason| self.config_error(reason))?;
            self.config = config;
        } else {
            self.set_keys(&OF_CLASSES, merged);
            self.set_keys(&["answers"], merged);
        }
        Ok(true)
    }

    /// Gives a classifier that an adapter brings the classes of its merged model, if that is known, else those of the base
    /// model; or none, if they are of another number.
    pub(super) fn take_classes(&mut self, merged: Option<&Value>) -> Result<(), BundleError> {
        let Some(rows) = self.rows_of_adapter() else {
            return Ok(());
        };
        if let Some(merged) = merged {
            self.set_keys(&OF_CLASSES, merged);
        }
        if self.label_table()?.len() != rows {
            self.set_keys(&OF_CLASSES, &Value::Null);
        }
        Ok(())
    }

    /// Takes keys as another configuration has them, or has them not.
    fn set_keys(&mut self, keys: &[&str], from: &Value) {
        let Some(config) = self.config.as_object_mut() else {
            return;
        };
        for key in keys {
            config.remove(*key);
            if let Some(value) = from.get(key) {
                config.insert((*key).into(), value.clone());
            }
        }
    }

    /// Name of the weights with a row a class, of a family that has classifiers.
    fn last_layer(&self) -> Option<String> {
        let named = self
            .class()
            .and_then(|class| self.family.head_of_class(class));
        let named = named.filter(|head| head.kind.class_layer().is_some());
        let head = named.or_else(|| self.family.head(HeadKind::Classes))?;
        let names = Names {
            family: self.family,
            head,
        };
        head.kind.class_layer().map(|layer| names.theirs(layer))
    }

    /// Rows of the last layer that an adapter brings.
    fn rows_of_adapter(&self) -> Option<usize> {
        let shape = self.adapter.as_ref()?.whole_shape(&[self.last_layer()?])?;
        shape.first().copied()
    }

    /// Rows of the last layer, if the weights hold a classifier.
    fn rows(&self) -> Result<Option<usize>, BundleError> {
        let Some(name) = self.last_layer() else {
            return Ok(None);
        };
        if let Some(rows) = self.rows_of_adapter() {
            return Ok(Some(rows));
        }
        let weights = self.weights()?;
        let foreign = self.family.torchvision.and_then(|called| called(&name));
        let tensor = weights
            .get(&name)
            .or_else(|| weights.get(&format!("model.{name}")))
            .or_else(|| weights.get(&foreign?.name));
        Ok(tensor.and_then(|tensor| tensor.shape.first().copied()))
    }

    /// Tokens that end a text that is generated: those of `generation_config.json`, else those of `config.json`.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn end_tokens(&self) -> Result<Vec<u32>, BundleError> {
        let settings = self.read_optional("generation_config.json")?;
        let settings = settings.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let named = settings
            .as_ref()
            .and_then(|settings| settings.get("eos_token_id"));
        let ids = match named.filter(|ids| !ids.is_null()) {
            Some(ids) => ids,
            None => self.config.get("eos_token_id").unwrap_or(&Value::Null),
        };
        let id = |id: &Value| u32::try_from(id.as_u64()?).ok();
        Ok(match ids {
            Value::Array(ids) => ids.iter().filter_map(id).collect(),
            one => id(one).into_iter().collect(),
        })
    }

    /// What its logits mean, as `problem_type` says; a single one that nothing is said of is a probability by itself.
    ///
    /// # Errors
    ///
    /// A `problem_type` that is not known.
    pub fn scores(&self) -> Result<Scores, BundleError> {
        match self.config.get("problem_type").and_then(Value::as_str) {
            Some("multi_label_classification") => Ok(Scores::SeveralLabels),
            Some("regression") => Ok(Scores::Values),
            Some("single_label_classification") | None => {
                if self.rows()? == Some(1) {
                    return Ok(Scores::SeveralLabels);
                }
                Ok(Scores::OneLabel)
            }
            Some(other) => Err(self.config_error(format!(
                "problem_type is \"{other}\"; known are single_label_classification, multi_label_classification, regression"
            ))),
        }
    }
}

/// `config.json` of a model: its sizes, its class and, for a classifier, its classes.
pub fn config_json(
    names: Names,
    sizes: &impl serde::Serialize,
    classes: Option<&[String]>,
) -> Value {
    let mut config = json!({
        "architectures": [names.head.class],
        "model_type": names.family.model_type,
    });
    let sizes = serde_json::to_value(sizes).unwrap_or_default();
    if let (Some(config), Some(sizes)) = (config.as_object_mut(), sizes.as_object()) {
        config.extend(sizes.clone());
        if let Some(classes) = classes {
            let id2label: BTreeMap<_, _> = classes.iter().enumerate().collect();
            let label2id: BTreeMap<_, _> = classes.iter().zip(0..).collect();
            config.insert("id2label".into(), json!(id2label));
            config.insert("label2id".into(), json!(label2id));
        }
    }
    config
}
