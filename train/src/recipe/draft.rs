//! A recipe in the making: layers of TOML over each other, then a file, `--set` and flags; unknown keys are refused.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::recipe::layers::{self, Layer};
use crate::recipe::{Impossible, RecipeError};

/// A recipe that is still a table of keys.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What messages call it.
    pub place: String,
    /// The key that names its objective or task.
    key: String,
    /// The objective or task.
    kind: String,
    table: Table,
    known: Table,
    /// Built-in files, in the order in which they were laid over each other.
    layers: Vec<Layer>,
    /// Where each key that is not the built-in recipe's was set, in this order.
    places: Vec<(String, String)>,
}

/// Where a dotted key is, for messages.
type Place<'a> = dyn Fn(&str) -> String + 'a;

/// A built-in recipe: its name and its text.
pub type BuiltIn = (&'static str, &'static str);

/// Keys that had other names, old ones first: recipes of earlier runs still open.
const RENAMED: &[(&str, &str, &str)] = &[
    ("data", "label", "label_column"),
    ("data", "labels", "label_limit"),
];

/// Keys of `[adapter]`, and the kinds that use them.
const OF_ADAPTERS: [(&str, &[&str]); 7] = [
    ("adapter.rank", &["lora", "bottleneck"]),
    ("adapter.alpha", &["lora"]),
    ("adapter.dropout", &["lora", "bottleneck"]),
    ("adapter.targets", &["lora", "bottleneck"]),
    ("adapter.rslora", &["lora"]),
    ("adapter.dora", &["lora"]),
    ("adapter.virtual_tokens", &["prompt", "prefix"]),
];

impl Draft {
    /// Opens a built-in recipe by name, or a file over the built-in one that its `key` names.
    ///
    /// `key` is `objective` in pretraining and `task` in fine-tuning.
    ///
    /// # Errors
    ///
    /// Neither a built-in recipe nor a file, or a file that is not TOML or has a key or value that does not belong there.
    pub fn open(name: &str, key: &str, built_in: &[BuiltIn]) -> Result<Self, RecipeError> {
        let names = || {
            let names: Vec<_> = built_in.iter().map(|(name, _)| *name).collect();
            names.join(", ")
        };
        let find = |name: &str| built_in.iter().find(|(have, _)| *have == name);
        if let Some((name, text)) = find(name) {
            return Self::built_in(name, key, text);
        }
        let path = Path::new(name);
        if !path.is_file() {
            return Err(RecipeError::Unknown {
                name: name.into(),
                known: names(),
                hint: hint(name, built_in.iter().map(|(name, _)| *name)),
            });
        }
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read {
            path: path.into(),
            source,
        })?;
        let own = parse(name, &text)?;
        let place = |key: &str| match layers::line_of(&text, key) {
            Some(line) => format!("{name}:{line}"),
            None => name.into(),
        };
        let kind = own.get(key);
        let named = kind.and_then(Value::as_str).unwrap_or_default();
        let Some((kind, built_in)) = find(named) else {
            let found = kind.map_or("missing".into(), Value::to_string);
            return Err(RecipeError::Value {
                place: place(key),
                reason: format!("{key} is {found}; it must be one of {}", names()),
            });
        };
        let mut draft = Self::built_in(kind, key, built_in)?;
        draft.place = name.into();
        draft.lay_over(own, &place)?;
        Ok(draft)
    }

    /// A built-in recipe: the files that its `layers` name, then its own keys.
    fn built_in(name: &'static str, key: &str, text: &'static str) -> Result<Self, RecipeError> {
        let mut own = parse(name, text)?;
        let named = own.remove("layers");
        let named = named.as_ref().and_then(Value::as_array);
        let mut all = Vec::new();
        for layer in named.into_iter().flatten().filter_map(Value::as_str) {
            all.push(layers::find(layer).ok_or_else(|| RecipeError::Value {
                place: name.into(),
                reason: format!("layers names \"{layer}\", which is no built-in file"),
            })?);
        }
        let mut table = Table::new();
        for layer in &all {
            add(&mut table, parse(layer.name, layer.text)?);
        }
        add(&mut table, own);
        all.push(Layer { name, text });
        Ok(Self {
            place: name.into(),
            key: key.into(),
            kind: name.into(),
            known: table.clone(),
            table,
            layers: all,
            places: Vec::new(),
        })
    }

    /// The keys of another model family in place of those that the recipe has.
    fn change_family(&mut self, family: &str, place: &str) -> Result<(), RecipeError> {
        let wrong = |reason| RecipeError::Value {
            place: place.into(),
            reason,
        };
        let layer = layers::model(family).ok_or_else(|| {
            let known: Vec<_> = layers::families().collect();
            wrong(format!(
                "model.family is \"{family}\"; known are {}",
                known.join(", ")
            ))
        })?;
        let mut sizes = parse(layer.name, layer.text)?;
        let model = sizes.remove("model").unwrap_or(Value::Table(Table::new()));
        self.table.insert("model".into(), model.clone());
        self.known.insert("model".into(), model);
        let models = |layer: &Layer| layer.name.starts_with("models/");
        match self.layers.iter().position(models) {
            Some(at) => self.layers[at] = layer,
            None => self.layers.push(layer),
        }
        self.places.retain(|(key, _)| !key.starts_with("model."));
        Ok(())
    }

    /// Whether a file, `--set` or a flag set this dotted key.
    pub fn was_set(&self, key: &str) -> bool {
        self.places.iter().any(|(set, _)| set == key)
    }

    /// Takes back limits that belong to the bundled data, where other data is named and no limit is.
    pub fn use_all_of_own_data(&mut self) {
        if !self.was_set("data.source") {
            return;
        }
        for limit in ["label_limit", "test_limit"] {
            let is_set = self.was_set(&format!("data.{limit}"));
            if let Some(Value::Table(data)) = self.table.get_mut("data")
                && let Some(Value::Integer(n)) = data.get_mut(limit)
                && !is_set
            {
                *n = 0;
            }
        }
    }

    /// Says what `--set` sets and another value leaves without effect.
    pub fn without_effect(&self) -> Vec<String> {
        let text = |value: Option<&Value>| {
            let text = value.and_then(Value::as_str);
            text.unwrap_or_default().to_string()
        };
        let from = text(self.table.get("from"));
        let adapter = text(self.table.get("adapter").and_then(|keys| keys.get("kind")));
        let distillation = self.table.get("distillation");
        let teacher = text(distillation.and_then(|keys| keys.get("teacher")));
        let layers = distillation.and_then(|keys| keys.get("layers")?.as_array());
        let of_teacher = |key: &str| {
            let takes_layers = layers.is_some_and(|layers| !layers.is_empty());
            distillation.is_some() && (takes_layers || key.starts_with("tokenizer."))
        };
        let mut lines = Vec::new();
        for (key, place) in &self.places {
            let of_model = key.starts_with("model.")
                || (key.starts_with("tokenizer.") && key != "tokenizer.max_length");
            let reason = if !place.starts_with("--set") {
                continue;
            } else if of_model && from != "scratch" && !Path::new(&from).is_file() {
                let other = if key == "model.dropout" {
                    "strategy.dropout sets its dropout"
                } else {
                    "--from scratch draws a new model"
                };
                format!("has no effect, as {from} brings its model and its tokenizer; {other}")
            } else if of_model && of_teacher(key) {
                let other = if key == "model.dropout" {
                    "; strategy.dropout sets the student's"
                } else {
                    ""
                };
                format!("has no effect, as the teacher {teacher} brings it{other}")
            } else if key.starts_with("adapter.") && adapter == "none" {
                if key == "adapter.kind" {
                    continue;
                }
                "has no effect while adapter.kind is \"none\"".into()
            } else if OF_ADAPTERS
                .iter()
                .any(|(of, kinds)| key == of && !kinds.contains(&adapter.as_str()))
            {
                format!("has no effect while adapter.kind is \"{adapter}\"")
            } else {
                continue;
            };
            lines.push(format!("{place} {reason}"));
        }
        lines
    }

    /// Built-in files, in the order in which they were laid over each other.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// All keys with their values.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Where the last value of a key comes from, if it is not the built-in recipe's.
    pub fn set_at(&self, key: &str) -> Option<&str> {
        let mut last_first = self.places.iter().rev();
        let found = last_first.find(|(set, _)| set == key);
        found.map(|(_, place)| place.as_str())
    }

    /// Which objective or task it is for.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Sets one key, `optimizer.lr=3e-4`.
    pub fn set(&mut self, assignment: &str) -> Result<(), RecipeError> {
        let place = format!("--set {assignment}");
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(RecipeError::Value {
                place,
                reason: "it must be KEY=VALUE".into(),
            });
        };
        let value = value.trim();
        // What is no TOML value is taken as a string: --set schedule.kind=cosine.
        let value = match format!("value = {value}").parse::<Table>() {
            Ok(mut table) => table.remove("value").unwrap_or(Value::Boolean(false)),
            Err(_) => Value::String(value.into()),
        };
        self.put(key.trim(), value, &place)
    }

    /// Sets keys in this order; a change of family comes first, as it brings other keys.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Self::set).
    pub fn set_all<'a>(
        &mut self,
        assignments: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), RecipeError> {
        let family = |text: &&str| text.trim_start().starts_with("model.family");
        for assignment in assignments.clone().filter(family) {
            self.set(assignment)?;
        }
        for assignment in assignments.filter(|text| !family(text)) {
            self.set(assignment)?;
        }
        Ok(())
    }

    /// Sets one key to a value.
    pub fn put(&mut self, key: &str, value: Value, place: &str) -> Result<(), RecipeError> {
        let kind = &self.kind;
        if key == self.key && value.as_str().is_some_and(|other| other != kind.as_str()) {
            // The keys of another one are others.
            return Err(RecipeError::Value {
                place: place.into(),
                reason: format!(
                    "{key} is {value}, and the recipe's is \"{kind}\"; name the other as RECIPE"
                ),
            });
        }
        let nested = key.rsplit('.').fold(value, |value, part| {
            Value::Table(Table::from_iter([(part.to_string(), value)]))
        });
        match nested {
            Value::Table(table) => self.lay_over(table, &|_| place.into()),
            _ => Ok(()),
        }
    }

    /// `place` says where a key is, for messages.
    fn lay_over(&mut self, mut over: Table, place: &Place) -> Result<(), RecipeError> {
        self.rename(&mut over);
        let family = |table: &Table| Some(table.get("model")?.get("family")?.as_str()?.to_string());
        if let Some(new) = family(&over)
            && family(&self.table).is_some_and(|old| old != new)
        {
            self.change_family(&new, &place("model.family"))?;
        }
        let (mut known, mut set) = (Vec::new(), Vec::new());
        keys(&self.known, "", &mut known);
        keys(&over, "", &mut set);
        let set = set.into_iter().map(|key| (place(&key), key));
        self.places.extend(set.map(|(place, key)| (key, place)));
        merge(&mut self.table, over, "", &known, place)
    }

    /// Gives keys of older recipes the names that they have now.
    fn rename(&self, over: &mut Table) {
        for (group, old, new) in RENAMED {
            let takes = self.known.get(*group).and_then(Value::as_table);
            if takes.is_none_or(|keys| keys.contains_key(*old) || !keys.contains_key(*new)) {
                continue;
            }
            if let Some(Value::Table(keys)) = over.get_mut(*group)
                && let Some(value) = keys.remove(*old)
            {
                keys.insert((*new).into(), value);
            }
        }
    }

    /// Where an impossible value comes from; in a group, the key that the reason names, or the last one set. What is
    /// impossible beside another value may come from that one, which the reason names in full.
    pub fn place_of(&self, Impossible { key, reason }: &Impossible) -> &str {
        let inside = format!("{key}.");
        let names = |name: &str| reason.contains(name) || reason.contains(&name.replace('_', " "));
        let last = |fits: &dyn Fn(&str) -> bool| {
            let mut last_first = self.places.iter().rev();
            last_first.find(|(set, _)| fits(set))
        };
        let found = last(&|set| set == key)
            .or_else(|| last(&|set| set.strip_prefix(&inside).is_some_and(names)))
            .or_else(|| last(&|set| set.starts_with(&inside)))
            .or_else(|| last(&|set| set.contains('.') && reason.contains(set)));
        found.map_or(&self.place, |(_, place)| place)
    }

    /// The recipe's values as a type that takes the keys it knows.
    ///
    /// # Errors
    ///
    /// A value that the type cannot hold.
    pub fn finish<T: DeserializeOwned>(&self) -> Result<T, RecipeError> {
        let decoded = Value::Table(self.table.clone()).try_into();
        decoded.map_err(|error| self.wrong_value(&error))
    }

    /// The place and the words of an error of `toml`.
    fn wrong_value(&self, error: &toml::de::Error) -> RecipeError {
        // In full: the short message leaves out the key.
        let words = error.to_string();
        let value = Impossible::new(last_key(&words), error.message());
        RecipeError::Value {
            place: self.place_of(&value).into(),
            reason: words.trim().replace('\n', " "),
        }
    }
}

/// The dotted key that an error of `toml` ends in; it has it nowhere else.
fn last_key(words: &str) -> &str {
    let key = words.trim_end().rsplit_once("\nin `");
    key.and_then(|(_, key)| key.strip_suffix('`'))
        .unwrap_or_default()
}

fn parse(place: &str, text: &str) -> Result<Table, RecipeError> {
    text.parse::<Table>().map_err(|e| {
        let line = e.span().map(|span| layers::line_at(text, span.start));
        RecipeError::Syntax {
            place: line.map_or(place.into(), |line| format!("{place}:{line}")),
            reason: e.message().replace('\n', " "),
        }
    })
}

/// All dotted keys of a table that hold values.
pub(super) fn keys(table: &Table, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => keys(inner, &format!("{prefix}{key}."), found),
            _ => found.push(format!("{prefix}{key}")),
        }
    }
}

/// Lays a table over another, which may have fewer keys.
fn add(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => add(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn merge(
    base: &mut Table,
    over: Table,
    prefix: &str,
    known: &[String],
    place: &Place,
) -> Result<(), RecipeError> {
    for (key, value) in over {
        let full = format!("{prefix}{key}");
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => {
                merge(base, over, &format!("{full}."), known, place)?;
            }
            (Some(old), value) if !old.is_table() && !value.is_table() => {
                let value = widened(old, value);
                let wrong = |reason| RecipeError::Value {
                    place: place(&full),
                    reason: format!("{full} is {value}; {reason}"),
                };
                let source = format!("{full}_source");
                let named = value.is_str() && known.contains(&source);
                let hint = if named {
                    format!("; {source} names files")
                } else {
                    String::new()
                };
                fits(old, &value).map_err(|reason| wrong(reason + &hint))?;
                *old = value;
            }
            (Some(_), _) => {
                return Err(RecipeError::Value {
                    place: place(&full),
                    reason: format!("\"{full}\" is a group of keys or holds one; not the other"),
                });
            }
            (None, value) => {
                let key = match value {
                    Value::Table(inner) if !inner.is_empty() => {
                        let mut inside = Vec::new();
                        keys(&inner, &format!("{full}."), &mut inside);
                        inside.into_iter().next().unwrap_or(full)
                    }
                    _ => full,
                };
                let place = place(&key);
                return Err(unknown(key, known, place));
            }
        }
    }
    Ok(())
}

/// A whole number where the built-in recipe has a float is meant as a float.
fn widened(old: &Value, new: Value) -> Value {
    match (old, new) {
        (Value::Float(_), Value::Integer(n)) => Value::Float(n as f64),
        (_, new) => new,
    }
}

/// Says what the value must be, if it is not like the built-in one.
fn fits(old: &Value, new: &Value) -> Result<(), String> {
    match (old, new) {
        (Value::Integer(_), Value::Integer(n)) if *n < 0 => Err("it must be 0 or more".into()),
        _ if old.same_type(new) => Ok(()),
        _ => Err(format!("it must be of type {}", old.type_str())),
    }
}

fn unknown(key: String, known: &[String], place: String) -> RecipeError {
    let hint = hint(&key, known.iter().map(String::as_str));
    RecipeError::UnknownKey { place, key, hint }
}

/// The known name most like this one, as the end of a sentence.
fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_string();
    let likeness = |candidate: &str| {
        let whole = strsim::jaro_winkler(candidate, name);
        whole.max(strsim::jaro_winkler(&last(candidate), &last(name)) * 0.99)
    };
    let nearest = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.map_or(String::new(), |near| format!("; the nearest is \"{near}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::optimizer::{GroupRecipe, OptimizerKind};
    use crate::optim::schedule::ScheduleKind;
    use crate::recipe::ScheduleRecipe;
    use serde::Deserialize;

    const BUILT_IN: [BuiltIn; 2] = [
        (
            "one",
            "objective = \"one\"\nseed = 1\n[training]\nmetric = \"loss\"\nsteps = 4\nepochs = 0\n\
             [schedule]\nkind = \"linear\"\nwarmup = 0.1\nfloor = 0.0\ncycles = 1\npower = 1.0\ndecay = 0.2\n\
             [optimizer]\nkind = \"adamw\"\ngroups = []\n",
        ),
        ("two", "objective = \"two\"\n"),
    ];

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // Read by nobody: what counts is what is refused.
    struct Recipe {
        objective: String,
        seed: u64,
        training: toml::Table,
        schedule: ScheduleRecipe,
        optimizer: Optimizer,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // As above.
    struct Optimizer {
        kind: OptimizerKind,
        groups: Vec<GroupRecipe>,
    }

    fn open(name: &str) -> Draft {
        Draft::open(name, "objective", &BUILT_IN).unwrap()
    }

    /// What is said about some assignments to a recipe, one after the other.
    fn told(name: &str, assignments: &[&str]) -> String {
        let mut draft = open(name);
        let set = assignments.iter().try_for_each(|one| draft.set(one));
        let finished = set.and_then(|()| draft.finish::<Recipe>().map(|_| ()));
        finished.unwrap_err().to_string()
    }

    #[test]
    fn what_another_value_leaves_without_effect_is_said() {
        let text = "objective = \"one\"\nfrom = \"scratch\"\n[model]\nsize = 1\n[adapter]\nkind = \"none\"\nrank = 4\n\
                    [tokenizer]\nmax_length = 8\npath = \"\"\n";
        let lines = |settings: &[&str]| {
            let mut draft = Draft::open("one", "objective", &[("one", text)]).unwrap();
            draft.set_all(settings.iter().copied()).unwrap();
            draft.without_effect()
        };
        let all = ["model.size=2", "tokenizer.path=a", "tokenizer.max_length=4"];
        assert!(lines(&all).is_empty());
        let beside = lines(&[&["from=there"], &all[..]].concat());
        assert_eq!(beside.len(), 2, "{beside:?}");
        assert!(beside[0].starts_with("--set model.size=2 has no effect, as there brings"));
        assert!(beside[1].starts_with("--set tokenizer.path=a has no effect"));
        let rank = "--set adapter.rank=8 has no effect while adapter.kind is \"none\"";
        assert_eq!(lines(&["adapter.rank=8"]), [rank]);
        assert!(lines(&["adapter.rank=8", "adapter.kind=lora"]).is_empty());
        let rank = "--set adapter.rank=8 has no effect while adapter.kind is \"prompt\"";
        assert_eq!(lines(&["adapter.rank=8", "adapter.kind=prompt"]), [rank]);
    }

    #[test]
    fn a_recipe_is_what_was_set_last() {
        let mut draft = open("one");
        for assignment in ["schedule.kind=wsd", "schedule.kind = cosine", "seed=7"] {
            draft.set(assignment).unwrap();
        }
        let recipe: Recipe = draft.finish().unwrap();
        let found = (recipe.schedule.kind, recipe.seed);
        assert_eq!(found, (ScheduleKind::Cosine, 7));
    }

    #[test]
    fn a_wrong_value_is_told_with_its_flag() {
        for (flag, words) in [
            (
                "schedule.kind=foo",
                "unknown variant `foo`, expected one of `constant`, `linear`",
            ),
            ("optimizer.kind=foo", "in `optimizer.kind`"),
            ("schedule={kind=\"foo\"}", "in `schedule.kind`"),
            (
                "schedule.kind=3",
                "schedule.kind is 3; it must be of type string",
            ),
            (
                "schedule.cycles=x",
                "schedule.cycles is \"x\"; it must be of type",
            ),
            ("schedule.cycles=5_000_000_000", "in `schedule.cycles`"),
            ("optimizer.groups=[3]", "in `optimizer.groups`"),
            (
                "optimizer.groups=[{patern=\"a\"}]",
                "unknown field `patern`",
            ),
            ("optimizer.groups=[{lr=1.0}]", "missing field `pattern`"),
        ] {
            // Neither the first flag nor the last is to blame.
            let told = told("one", &["seed=2", flag, "schedule.floor=0.5"]);
            assert!(told.starts_with(&format!("--set {flag}: ")), "{told}");
            assert!(told.contains(words), "{told}");
        }
        // The one that counts.
        let twice = told("one", &["schedule.kind=foo", "schedule.kind=bar"]);
        assert!(twice.starts_with("--set schedule.kind=bar: "), "{twice}");
    }

    #[test]
    fn a_wrong_value_of_a_file_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let name = path.display().to_string();
        for (text, line) in [
            ("[schedule]\ncycles = 2\nkind = \"foo\"\n", 4),
            ("schedule.cycles = 2\nschedule.kind = \"foo\"\n", 3),
            ("schedule = {cycles = 2, kind = \"foo\"}\n", 2),
            ("seed = 3\n[[optimizer.groups]]\npatern = \"a\"\n", 3),
            ("[schedule]\nfloor = 0.1\ncycles = 5_000_000_000\n", 4),
        ] {
            std::fs::write(&path, format!("objective = \"one\"\n{text}")).unwrap();
            let told = told(&name, &["seed=2"]);
            assert!(told.starts_with(&format!("{name}:{line}: ")), "{told}");
        }
        // A flag wins over the file, and is to blame where it is wrong.
        let flag = told(&name, &["schedule.cycles=6_000_000_000"]);
        assert!(flag.starts_with("--set schedule.cycles=6_000"), "{flag}");
    }

    #[test]
    fn another_objective_is_another_recipe() {
        for kind in ["two", "three"] {
            let flag = format!("objective={kind}");
            let told = told("one", &[&flag]);
            assert!(told.starts_with(&format!("--set {flag}: ")), "{told}");
            assert!(told.contains("the recipe's is \"one\""), "{told}");
        }
        open("one").set("objective=one").unwrap();
    }

    #[test]
    fn an_impossible_value_comes_from_the_last_that_set_it_or_what_it_is_at_odds_with() {
        let mut draft = open("one");
        let place = |draft: &Draft, key: &str, reason: &str| {
            draft.place_of(&Impossible::new(key, reason)).to_string()
        };
        let steps = ("training.steps", "and training.epochs are both 0");
        assert_eq!(place(&draft, steps.0, steps.1), "one");
        draft
            .put("training.epochs", Value::Integer(0), "--epochs")
            .unwrap();
        assert_eq!(place(&draft, steps.0, steps.1), "--epochs");
        draft
            .put("training.steps", Value::Integer(0), "--steps")
            .unwrap();
        assert_eq!(place(&draft, steps.0, steps.1), "--steps");
        // Of a group, the key that is named.
        draft.set("schedule.cycles=0").unwrap();
        draft.set("schedule.floor=0.5").unwrap();
        let cycles = place(&draft, "schedule", "is impossible: cycles are 0");
        assert_eq!(cycles, "--set schedule.cycles=0");
        let some = place(&draft, "schedule", "is impossible");
        assert_eq!(some, "--set schedule.floor=0.5");
    }
}
