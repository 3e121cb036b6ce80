//! Recipes: TOML over the built-in one of the same kind, then `--set`, then flags; unknown keys are refused.
//!
//! The defaults have one home, `assets/recipes/*.toml`, where every key is explained.

use std::path::{Path, PathBuf};

use data::order::Batching;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

pub use crate::guard::GuardRecipe;
pub use crate::optim::optimizer::OptimizerRecipe;
pub use crate::optim::schedule::ScheduleRecipe;

/// What is wrong with a recipe.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{place}: not valid TOML: {reason}")]
    Syntax {
        /// File and line, or the flag.
        place: String,
        /// What the parser says.
        reason: String,
    },
    /// A key that no recipe of this kind has.
    #[error("{place}: no recipe key \"{key}\"{hint}")]
    UnknownKey {
        /// The file, or `--set`.
        place: String,
        /// The dotted key.
        key: String,
        /// The nearest known key, as a sentence, or nothing.
        hint: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{place}: {reason}")]
    Value {
        /// The file, or `--set`.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither a built-in recipe nor a file.
    #[error("no recipe \"{name}\": there is no such file, and built in are {known}{hint}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The built-in names.
        known: String,
        /// The nearest of them, as a sentence, or nothing.
        hint: String,
    },
}

/// A value of the right type that nothing can train with.
///
/// The command line puts the file and the line in front of it, or the flag.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key} {reason}")]
pub struct Impossible {
    /// The dotted key, or the group of keys.
    pub key: String,
    /// What is wrong with it: `is 0; it must be at least 1`.
    pub reason: String,
}

impl Impossible {
    /// What is wrong with the value of a key.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            reason: reason.into(),
        }
    }
}

/// The `[training]` of a recipe: how long, in what portions, and what is looked at on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecipe {
    /// Optimizer steps; 0 leaves it to `epochs`.
    pub steps: u64,
    /// Passes over the training split; used when `steps` is 0.
    pub epochs: u64,
    /// Examples a micro-batch.
    pub batch_size: usize,
    /// Batches whose examples are sorted by length together; 0 never sorts.
    #[serde(default)]
    pub pool: usize,
    /// Most tokens a micro-batch, padding counted, in place of `batch_size` and `pool`; 0 counts examples.
    #[serde(default)]
    pub tokens: usize,
    /// Joins texts into full sequences, `batch_size` of them a micro-batch.
    #[serde(default)]
    pub packing: bool,
    /// Threads that make batches.
    #[serde(default = "two")]
    pub workers: usize,
    /// Micro-batches a step.
    pub accumulation: u64,
    /// Element type of forward and backward passes; parameters and optimizer are f32 always.
    pub precision: ComputePrecision,
    /// Recompute cheap operations in the backward pass instead of keeping their results.
    pub gradient_checkpointing: bool,
    /// Share of the averaged weights that stays at each step; 0 averages none.
    pub ema: f64,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between validations; 0 means every epoch.
    pub validate_every: u64,
    /// Steps between checkpoints; 0 means at every validation.
    pub checkpoint_every: u64,
    /// Newest checkpoints kept.
    pub keep: usize,
    /// Metric of the validation split that decides which step is best.
    pub metric: String,
    /// Validations without a better value before stopping early; 0 never stops.
    pub patience: u64,
}

/// Element type of the forward and backward passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputePrecision {
    /// Single precision.
    F32,
    /// Eight bits of mantissa, where the backend has them; losses are f32.
    Bf16,
}

/// Threads that make batches, in recipes of runs from before there was a choice.
fn two() -> usize {
    2
}

impl TrainingRecipe {
    /// How rows are put into batches.
    pub fn batching(&self) -> Batching {
        match self.tokens {
            0 => Batching::Rows {
                // `check` refuses 0, but only once there is something to batch.
                size: self.batch_size.max(1),
                pool: self.pool,
            },
            tokens => Batching::Tokens(tokens),
        }
    }

    /// Whether so many validations without a better one end the run.
    pub fn is_stale(&self, validations: u64) -> bool {
        self.patience > 0 && validations >= self.patience
    }

    /// Refuses batches and portions of nothing, and absurd numbers of them.
    fn check_counts(&self) -> Result<(), Impossible> {
        const MOST: u64 = 4096;
        for (name, value) in [
            ("batch_size", self.batch_size as u64),
            ("accumulation", self.accumulation),
            ("workers", self.workers as u64),
            ("log_every", self.log_every),
            ("keep", self.keep as u64),
        ] {
            if value == 0 {
                let key = format!("training.{name}");
                return Err(Impossible::new(key, "is 0; it must be at least 1"));
            }
        }
        // Threads and batches of one step that no machine has.
        for (name, value) in [
            ("workers", self.workers as u64),
            ("accumulation", self.accumulation),
        ] {
            if value > MOST {
                let key = format!("training.{name}");
                return Err(Impossible::new(
                    key,
                    format!("is {value}; it must be at most {MOST}"),
                ));
            }
        }
        Ok(())
    }

    /// Says what is impossible about batches of texts, if anything is.
    ///
    /// - max_length: of a text, in tokens
    pub fn check_texts(&self, max_length: usize) -> Result<(), Impossible> {
        self.check_counts()?;
        let wrong = |reason| Err(Impossible::new("training.tokens", reason));
        let tokens = self.tokens;
        if tokens > 0 && self.packing {
            let reason = format!(
                "is {tokens} and training.packing is true; packed sequences are of one length, so batch_size counts them"
            );
            return wrong(reason);
        }
        if tokens > 0 && tokens < max_length {
            return wrong(format!(
                "is {tokens}, less than the {max_length} tokens of the longest text (tokenizer.max_length)"
            ));
        }
        Ok(())
    }

    /// Refuses to join texts where each has its own label.
    pub fn check_unpacked(&self) -> Result<(), Impossible> {
        match self.packing {
            true => Err(Impossible::new(
                "training.packing",
                "is true; that joins examples, and here each has its own target",
            )),
            false => Ok(()),
        }
    }

    /// Refuses what counts tokens: images have none.
    pub fn check_images(&self) -> Result<(), Impossible> {
        self.check_counts()?;
        self.check_unpacked()?;
        match self.tokens {
            0 => Ok(()),
            tokens => Err(Impossible::new(
                "training.tokens",
                format!("is {tokens}; images have no tokens, batch_size counts them"),
            )),
        }
    }

    /// Says what is impossible about these values, if anything is.
    pub fn check(&self, valid_metrics: &[&str]) -> Result<(), Impossible> {
        self.check_counts()?;
        if !(0.0..1.0).contains(&self.ema) {
            let reason = format!("is {}; it must be at least 0 and below 1", self.ema);
            return Err(Impossible::new("training.ema", reason));
        }
        if self.steps == 0 && self.epochs == 0 {
            let reason = "and training.epochs are both 0; one must be more";
            return Err(Impossible::new("training.steps", reason));
        }
        if !valid_metrics.contains(&self.metric.as_str()) {
            let (metric, known) = (&self.metric, valid_metrics.join(", "));
            let reason = format!("is \"{metric}\"; validation gives {known}");
            return Err(Impossible::new("training.metric", reason));
        }
        Ok(())
    }

    /// Optimizer steps of the whole run, given the micro-batches of an epoch.
    pub fn total_steps(&self, batches_per_epoch: u64) -> u64 {
        match self.steps {
            0 => self
                .epochs
                .saturating_mul(self.steps_per_epoch(batches_per_epoch)),
            steps => steps,
        }
    }

    /// Optimizer steps of an epoch, at least 1.
    pub fn steps_per_epoch(&self, batches_per_epoch: u64) -> u64 {
        (batches_per_epoch / self.accumulation).max(1)
    }
}

/// The `[bundle]` of a recipe: how the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRecipe {
    /// Element type of the weights.
    pub precision: model::Precision,
}

/// A recipe that is still a table of keys.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What messages call it.
    pub place: String,
    /// The key that names its objective or task.
    key: String,
    table: Table,
    known: Table,
    /// Where each key that is not the built-in recipe's was set, in this order.
    places: Vec<(String, String)>,
}

/// Where a dotted key stands, for messages.
type Place<'a> = dyn Fn(&str) -> String + 'a;

/// A built-in recipe: its name and its text.
pub type BuiltIn = (&'static str, &'static str);

impl Draft {
    /// Opens a built-in recipe by name, or a file over the built-in one that its `key` names.
    ///
    /// `key` is `objective` in pretraining and `task` in fine-tuning.
    pub fn open(name: &str, key: &str, built_in: &[BuiltIn]) -> Result<Self, RecipeError> {
        let names = || {
            let names: Vec<_> = built_in.iter().map(|(name, _)| *name).collect();
            names.join(", ")
        };
        let find = |name: &str| built_in.iter().find(|(have, _)| *have == name);
        if let Some((name, text)) = find(name) {
            let table = parse(name, text)?;
            return Ok(Self {
                place: (*name).into(),
                key: key.into(),
                known: table.clone(),
                table,
                places: Vec::new(),
            });
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
        let place = |key: &str| match line_of(&text, key) {
            Some(line) => format!("{name}:{line}"),
            None => name.into(),
        };
        let kind = own.get(key).and_then(Value::as_str).unwrap_or_default();
        let Some((_, built_in)) = find(kind) else {
            return Err(RecipeError::Value {
                place: place(key),
                reason: format!("{key} is \"{kind}\"; it must be one of {}", names()),
            });
        };
        let known = parse(kind, built_in)?;
        let mut draft = Self {
            place: name.into(),
            key: key.into(),
            table: known.clone(),
            known,
            places: Vec::new(),
        };
        draft.lay_over(own, &place)?;
        Ok(draft)
    }

    /// Which objective or task it is for.
    pub fn kind(&self, key: &str) -> String {
        let kind = self.table.get(key).and_then(Value::as_str);
        kind.unwrap_or_default().into()
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

    /// Sets one key to a value.
    pub fn put(&mut self, key: &str, value: Value, place: &str) -> Result<(), RecipeError> {
        let kind = self.kind(&self.key);
        if key == self.key && value.as_str().is_some_and(|other| other != kind) {
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

    /// `place` says where a key stands, for messages.
    fn lay_over(&mut self, over: Table, place: &Place) -> Result<(), RecipeError> {
        let (mut known, mut set) = (Vec::new(), Vec::new());
        keys(&self.known, "", &mut known);
        keys(&over, "", &mut set);
        let set = set.into_iter().map(|key| (place(&key), key));
        self.places.extend(set.map(|(place, key)| (key, place)));
        merge(&mut self.table, over, "", &known, place)
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

    /// The recipe itself.
    pub fn finish<T: DeserializeOwned>(&self) -> Result<T, RecipeError> {
        Value::Table(self.table.clone())
            .try_into()
            .map_err(|e: toml::de::Error| {
                // In full: the short message leaves out the key.
                let told = e.to_string();
                let value = Impossible::new(last_key(&told), e.message());
                RecipeError::Value {
                    place: self.place_of(&value).into(),
                    reason: told.trim().replace('\n', " "),
                }
            })
    }
}

/// The dotted key that an error of `toml` ends in; it tells it nowhere else.
fn last_key(told: &str) -> &str {
    let key = told.trim_end().rsplit_once("\nin `");
    key.and_then(|(_, key)| key.strip_suffix('`'))
        .unwrap_or_default()
}

/// Says what is impossible about the shares that validate and test, if anything is.
pub fn check_shares(valid: f64, test: f64) -> Result<(), Impossible> {
    for (name, share) in [("valid", valid), ("test", test)] {
        if !(0.0..=1.0).contains(&share) {
            let reason = format!("is {share}; it must be from 0 to 1");
            return Err(Impossible::new(format!("data.{name}"), reason));
        }
    }
    match valid + test < 1.0 {
        true => Ok(()),
        false => Err(Impossible::new(
            "data.valid",
            format!("{valid} and data.test {test} leave nothing to train on"),
        )),
    }
}

/// A resolved recipe as `recipe.toml` holds it.
pub fn to_toml(recipe: &impl Serialize) -> Result<String, RecipeError> {
    toml::to_string_pretty(recipe).map_err(|e| RecipeError::Value {
        place: "recipe".into(),
        reason: e.to_string(),
    })
}

fn parse(place: &str, text: &str) -> Result<Table, RecipeError> {
    text.parse::<Table>().map_err(|e| {
        let line = e.span().map(|span| line_at(text, span.start));
        RecipeError::Syntax {
            place: line.map_or(place.into(), |line| format!("{place}:{line}")),
            reason: e.message().replace('\n', " "),
        }
    })
}

/// The line, counted from 1, that this byte stands in.
fn line_at(text: &str, byte: usize) -> usize {
    let before = text.bytes().take(byte);
    1 + before.filter(|&byte| byte == b'\n').count()
}

/// The line of a dotted key.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let parsed = DeTable::parse(text).ok()?;
    let mut table = parsed.get_ref();
    let mut byte = 0;
    for part in key.split('.') {
        let (found, value) = table.get_key_value(part)?;
        byte = found.span().start;
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    Some(line_at(text, byte))
}

/// All dotted keys of a table that hold values.
fn keys(table: &Table, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => keys(inner, &format!("{prefix}{key}."), found),
            _ => found.push(format!("{prefix}{key}")),
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
                fits(old, &value).map_err(wrong)?;
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
