//! Reads texts with anything that is to be learned of them but one class. In: files, and what they hold. Out: items of texts with
//! a target each, in splits.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::chat::ASSISTANT;
use crate::fields::{FieldRow, FieldRows, Wanted};
use crate::labelled::{self, SplitShares};
use crate::source::TextSource;
use crate::split::{self, Split, Splits};
use crate::text;
use crate::{BadRows, DataError, DataSummary, LeftOut, bundled, labels, order};

/// What the rows of a set hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// Messages of a dialogue, or a prompt with its completion: roles and contents by turns.
    Dialogue,
    /// Two texts that mean the same.
    Pair,
    /// A text or a pair of them, with one class.
    Class,
    /// A text or a pair of them, with several classes or none.
    Labels,
    /// A text or a pair of them, with a number.
    Value,
    /// The words of a sentence, with a tag each.
    Tags,
    /// A context and a question, with answers that are spans of the context, or none.
    Answers,
    /// A question and several choices, one of which is right.
    Choice,
}

/// Columns of a set.
#[derive(Clone, Debug)]
pub struct ItemColumns {
    /// What the rows hold.
    pub kind: ItemKind,
    /// Of the text, the words, the context or the question.
    pub text: String,
    /// Of the second text, the question or the choices, which may be several columns with a comma between them; empty is none.
    pub second: String,
    /// Of what is to be learned.
    pub target: String,
    /// Rows that can't be used.
    pub bad_rows: BadRows,
}

/// A span of a context that answers its question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As the context has it.
    pub text: String,
    /// Its first character, counted in Unicode's code points.
    pub start: usize,
}

/// What is to be learned of an item.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemTarget {
    /// Nothing but that the texts belong together.
    None,
    /// Names of classes: one, or several or none.
    Labels(Vec<String>),
    /// A number.
    Value(f32),
    /// A tag a word.
    Tags(Vec<String>),
    /// Answers, the first of which is learned; none where the context has none.
    Answers(Vec<Answer>),
    /// The number of the right choice, from 0.
    Choice(usize),
}

/// Texts that belong together, and what is to be learned of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The text, or both; roles and contents by turns; the words; context and question; question and choices.
    pub texts: Vec<String>,
    /// What is to be learned.
    pub target: ItemTarget,
    /// Where it stood, 1-based; its number in Parquet.
    pub line: usize,
    /// Index into [`ItemSet::files`].
    pub file: u32,
}

/// Items in the order of their files and lines.
#[derive(Clone, Debug, Default)]
pub struct ItemSet {
    /// The items.
    pub items: Vec<Item>,
    /// Where they come from.
    pub files: Vec<PathBuf>,
    /// The split of each of `files`, where they are given as splits; else empty.
    pub given: Vec<Split>,
    /// Rows that are not among the items.
    pub left_out: LeftOut,
    /// Names of the classes in the order that a file gives them; else empty.
    pub class_names: Vec<String>,
    /// What is to be said of files that are not read, a sentence each.
    pub unread: Vec<String>,
}

/// Rows of each split, and what to say of them.
#[derive(Clone, Debug)]
pub struct ItemSplits {
    /// To train on, to validate on and to test on.
    pub splits: Splits,
    /// Names of classes or tags of all rows, in order.
    pub classes: Vec<String>,
    /// For the user.
    pub summary: DataSummary,
}

/// Reads items.
///
/// # Errors
/// Anything that is missing or malformed, rows that are to be refused, no usable row at all.
pub fn read_items(source: &TextSource, columns: &ItemColumns) -> Result<ItemSet, DataError> {
    let files = files(source);
    let wanted = columns.wanted();
    let tagged = columns.kind == ItemKind::Tags;
    let mut reading = Reading::default();
    for (number, path) in files.iter().enumerate() {
        let rows = open(source, path, &wanted, tagged)?;
        reading.file(rows, columns, path, number as u32)?;
    }
    let origin = text::origin(&files);
    let set = reading.finish(origin, columns.bad_rows)?;
    Ok(ItemSet {
        given: source.given(),
        unread: source.unread(),
        files,
        ..set
    })
}

/// The files of a source; of a bundled set its name.
pub(crate) fn files(source: &TextSource) -> Vec<PathBuf> {
    match source {
        TextSource::Bundled(name) => vec![format!("bundled:{name}").into()],
        _ => source.files(),
    }
}

/// - path: one of [`files`]
fn open(
    source: &TextSource,
    path: &Path,
    wanted: &[Wanted],
    tagged: bool,
) -> Result<FieldRows, DataError> {
    match source {
        TextSource::Bundled(name) => {
            let (format, bytes) = bundled::rows(name);
            FieldRows::read(path, format, bytes, wanted, tagged)
        }
        _ => FieldRows::open(path, wanted, tagged),
    }
}

/// A row that is only to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRow {
    /// `path:line`
    pub place: String,
    /// Its texts as those of an [`Item`], or why there are none.
    pub texts: Result<Vec<String>, String>,
}

/// Reads texts with second texts or choices and without what is to be learned, those that cannot be used too.
///
/// - kind: of which the texts are
/// - second: as [`ItemColumns::second`]
///
/// # Errors
/// Anything that is missing or malformed, but for single rows.
pub fn read_inputs(
    source: &TextSource,
    kind: ItemKind,
    first: &str,
    second: &str,
) -> Result<Vec<InputRow>, DataError> {
    let names = second
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let wanted: Vec<Wanted> = std::iter::once(first)
        .chain(names)
        .map(Wanted::required)
        .collect();
    let texts = |row: FieldRow| -> Result<Vec<String>, String> {
        let mut texts = vec![text(first, &row.values[0])?];
        match (&row.values[1..], kind) {
            (values, ItemKind::Choice) => texts.extend(choices(second, values)?.0),
            ([value], _) => texts.push(text(second, value)?),
            _ => {}
        }
        Ok(texts)
    };
    let mut all = Vec::new();
    for path in files(source) {
        let mut rows = open(source, &path, &wanted, false)?;
        while let Some(row) = rows.next()? {
            all.push(match row {
                Ok(row) => InputRow {
                    place: format!("{}:{}", path.display(), row.line),
                    texts: texts(row),
                },
                Err(error) => match error.row_fault() {
                    Some(fault) => InputRow {
                        place: format!("{}:{}", path.display(), fault.line),
                        texts: Err(fault.reason),
                    },
                    None => return Err(error),
                },
            });
        }
    }
    Ok(all)
}

impl ItemColumns {
    fn wanted(&self) -> Vec<Wanted> {
        let second = self.second.split(',').map(str::trim);
        let second = second.filter(|name| !name.is_empty());
        // Of pairs the second text is all that there is to learn.
        let target = match self.kind {
            ItemKind::Pair => self.second.as_str(),
            ItemKind::Dialogue if self.second.is_empty() => self.text.as_str(),
            ItemKind::Dialogue => self.second.as_str(),
            _ => self.target.as_str(),
        };
        let second = second.filter(|_| !matches!(self.kind, ItemKind::Pair | ItemKind::Dialogue));
        let names = [self.text.as_str(), target].into_iter().chain(second);
        let mut wanted: Vec<Wanted> = names.map(Wanted::required).collect();
        // Questions without answers may have none at all, and say that it is so.
        if self.kind == ItemKind::Answers {
            wanted[1].required = false;
        }
        wanted
    }

    /// A row as an item, or what is wrong with it.
    ///
    /// - names: of the classes that whole numbers number
    fn item(&self, row: &FieldRow, names: &[String]) -> Result<(Vec<String>, ItemTarget), String> {
        let [first, target, second @ ..] = row.values.as_slice() else {
            return Err("has no fields".into());
        };
        let name = self.target.as_str();
        let both = || -> Result<Vec<String>, String> {
            let mut texts = vec![text(&self.text, first)?];
            if let [second] = second {
                texts.push(text(&self.second, second)?);
            }
            Ok(texts)
        };
        match self.kind {
            ItemKind::Dialogue if self.second.is_empty() => {
                Ok((messages(&self.text, first)?, ItemTarget::None))
            }
            ItemKind::Dialogue => {
                let (prompt, completion) = (text(&self.text, first)?, text(&self.second, target)?);
                let texts = ["user".into(), prompt, ASSISTANT.into(), completion];
                Ok((texts.to_vec(), ItemTarget::None))
            }
            ItemKind::Pair => {
                let texts = vec![text(&self.text, first)?, text(&self.second, target)?];
                Ok((texts, ItemTarget::None))
            }
            ItemKind::Class => {
                let class = class(name, target, names)?;
                Ok((both()?, ItemTarget::Labels(vec![class])))
            }
            ItemKind::Labels => Ok((both()?, ItemTarget::Labels(classes(name, target, names)?))),
            ItemKind::Value => {
                let texts = both()?;
                let value = match target {
                    Value::Number(number) => number.as_f64(),
                    Value::String(text) => text.trim().parse().ok(),
                    _ => None,
                };
                let value = value.filter(|value: &f64| (*value as f32).is_finite());
                let value = value.ok_or_else(|| format!("\"{name}\" is no number"))?;
                Ok((texts, ItemTarget::Value(value as f32)))
            }
            ItemKind::Tags => {
                let words = strings(&self.text, first)?;
                if words.is_empty() {
                    return Err(format!("\"{}\" is empty", self.text));
                }
                let tags = listed_values(name, target)?;
                let tag = |value: &Value| class(name, value, names);
                let tags: Vec<String> = tags.iter().map(tag).collect::<Result<_, _>>()?;
                if tags.len() != words.len() {
                    return Err(format!("other numbers of \"{}\" and \"{name}\"", self.text));
                }
                Ok((words, ItemTarget::Tags(tags)))
            }
            ItemKind::Answers => {
                let texts = both()?;
                let answers = answers(name, target, &texts[0])?;
                Ok((texts, ItemTarget::Answers(answers)))
            }
            ItemKind::Choice => {
                let mut texts = vec![text(&self.text, first)?];
                let (choices, letters) = choices(&self.second, second)?;
                let right = right_choice(target, &letters, choices.len());
                let right = right.ok_or_else(|| format!("\"{name}\" is none of the choices"))?;
                texts.extend(choices);
                Ok((texts, ItemTarget::Choice(right)))
            }
        }
    }
}

fn text(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::String(_) => Err(format!("\"{name}\" is empty")),
        _ => Err(format!("\"{name}\" is no text")),
    }
}

/// Roles and contents by turns, of `{"role", "content"}` or `{"from", "value"}`.
pub(crate) fn messages(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let list = value
        .as_array()
        .ok_or_else(|| format!("\"{name}\" is no list"))?;
    let mut texts = Vec::new();
    for message in list {
        let either = |one: &str, other: &str| {
            let found = message.get(one).or_else(|| message.get(other));
            found.and_then(Value::as_str)
        };
        let (role, content) = (either("role", "from"), either("content", "value"));
        let (Some(role), Some(content)) = (role, content) else {
            return Err(format!(
                "\"{name}\" holds a message without \"role\" and \"content\""
            ));
        };
        let role = match role {
            "human" => "user",
            "gpt" | "bot" | "model" => ASSISTANT,
            other => other,
        };
        texts.extend([role.to_string(), content.to_string()]);
    }
    if !texts.iter().step_by(2).any(|role| role == ASSISTANT) {
        return Err(format!("\"{name}\" holds no message of the assistant"));
    }
    Ok(texts)
}

/// Choices, and the letters that they go by, if they do.
fn choices(name: &str, values: &[Value]) -> Result<(Vec<String>, Vec<String>), String> {
    let (choices, letters) = match values {
        [Value::Object(both)] => {
            let letters = both.get("label").map(|letters| strings(name, letters));
            let texts = both.get("text").unwrap_or(&Value::Null);
            (
                strings(name, texts)?,
                letters.transpose()?.unwrap_or_default(),
            )
        }
        [list] => (strings(name, list)?, vec![]),
        several => {
            let choices = several.iter().map(|choice| text(name, choice));
            (choices.collect::<Result<_, _>>()?, vec![])
        }
    };
    if choices.len() < 2 {
        return Err(format!("\"{name}\" holds fewer than two choices"));
    }
    Ok((choices, letters))
}

/// The items of a list, which tables of text write as JSON has it, or with white space between its items.
fn listed_values(name: &str, value: &Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(items) => Ok(items.clone()),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(items)) => Ok(items),
            _ => Ok(text.split_whitespace().map(Value::from).collect()),
        },
        _ => Err(format!("\"{name}\" is no list")),
    }
}

fn strings(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let string = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("\"{name}\" holds what is no text")),
    };
    listed_values(name, value)?.iter().map(string).collect()
}

/// The name of a class.
pub(crate) fn class(key: &str, value: &Value, names: &[String]) -> Result<String, String> {
    let numbered = |id: String| {
        if names.is_empty() {
            return Ok(id);
        }
        let name = id.parse().ok().and_then(|id: usize| names.get(id));
        name.cloned()
            .ok_or_else(|| format!("\"{key}\" numbers no class"))
    };
    match value {
        Value::String(name) => match labels::canonical(name) {
            name if name.is_empty() => Err(format!("\"{key}\" holds an empty name")),
            name => Ok(name.into_owned()),
        },
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(value) => match labels::whole(value) {
                Some(whole) => numbered(whole),
                None => Err(format!("\"{key}\" is a number with a fraction")),
            },
            None => numbered(number.to_string()),
        },
        _ => Err(format!("\"{key}\" is no name of a class")),
    }
}

fn classes(key: &str, value: &Value, names: &[String]) -> Result<Vec<String>, String> {
    let all = |items: &[Value]| -> Result<Vec<String>, String> {
        let found: BTreeSet<String> = items
            .iter()
            .map(|item| class(key, item, names))
            .collect::<Result<_, _>>()?;
        Ok(found.into_iter().collect())
    };
    match value {
        Value::Array(items) => all(items),
        Value::Null => Ok(vec![]),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(items)) => all(&items),
            _ => {
                let found: BTreeSet<String> = labels::listed(text).into_iter().collect();
                Ok(found.into_iter().collect())
            }
        },
        other => Ok(vec![class(key, other, names)?]),
    }
}

/// Answers as `datasets` writes them, a list of texts and one of starts, or as SQuAD's files do, a list of both.
fn answers(key: &str, value: &Value, context: &str) -> Result<Vec<Answer>, String> {
    let read;
    let value = match value {
        Value::String(text) => {
            read = serde_json::from_str(text).map_err(|_| format!("\"{key}\" is no JSON"))?;
            &read
        }
        other => other,
    };
    let wrong = || format!("\"{key}\" holds no \"text\" and \"answer_start\"");
    let pairs: Vec<(Value, Value)> = match value {
        Value::Null => vec![],
        Value::Array(items) => items
            .iter()
            .map(|item| (item["text"].clone(), item["answer_start"].clone()))
            .collect(),
        Value::Object(lists) => match (lists.get("text"), lists.get("answer_start")) {
            (Some(Value::Array(texts)), Some(Value::Array(starts)))
                if texts.len() == starts.len() =>
            {
                texts.iter().cloned().zip(starts.iter().cloned()).collect()
            }
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    let mut answers = Vec::new();
    for (text, start) in pairs {
        let (Some(text), Some(start)) = (text.as_str(), start.as_u64()) else {
            return Err(wrong());
        };
        let start = start as usize;
        let at = context.char_indices().map(|(at, _)| at).nth(start);
        if text.is_empty() || !at.is_some_and(|at| context[at..].starts_with(text)) {
            return Err(format!("an answer of \"{key}\" is not where it says"));
        }
        answers.push(Answer {
            text: text.into(),
            start,
        });
    }
    Ok(answers)
}

/// A choice by its letter, or by its number from 0.
fn right_choice(value: &Value, letters: &[String], n: usize) -> Option<usize> {
    let text = match value {
        Value::String(text) => text.trim().to_string(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    if let Some(at) = letters.iter().position(|letter| *letter == text) {
        return Some(at);
    }
    if !letters.is_empty() {
        return None;
    }
    let number = text.parse().ok().or_else(|| match text.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    });
    number.filter(|&number| number < n)
}

/// Rows that have been read.
#[derive(Default)]
struct Reading {
    set: ItemSet,
    refused: Option<DataError>,
}

impl Reading {
    fn file(
        &mut self,
        mut rows: FieldRows,
        columns: &ItemColumns,
        path: &Path,
        file: u32,
    ) -> Result<(), DataError> {
        let names = rows.class_names(&columns.target).unwrap_or_default();
        for name in &names {
            if !self.set.class_names.contains(name) {
                self.set.class_names.push(name.clone());
            }
        }
        let (mut any, mut usable) = (false, false);
        while let Some(row) = rows.next()? {
            any = true;
            let item = row.and_then(|row| {
                let line = row.line;
                let wrong = |reason| DataError::UnusableRow {
                    path: path.into(),
                    line,
                    reason,
                };
                let (texts, target) = columns.item(&row, &names).map_err(wrong)?;
                Ok(Item {
                    texts,
                    target,
                    line,
                    file,
                })
            });
            match item {
                Ok(item) => {
                    usable = true;
                    self.set.items.push(item);
                }
                Err(error) => self.count(error),
            }
        }
        match self.refused.take() {
            _ if !any => Err(DataError::NoExample { path: path.into() }),
            // No row has it: the key is another one.
            Some(missing @ DataError::KeyMissing { .. }) if !usable => Err(missing),
            other => {
                self.refused = other;
                Ok(())
            }
        }
    }

    fn count(&mut self, error: DataError) {
        if let Some(fault) = error.row_fault() {
            let place = || format!("{}:{}", fault.path.display(), fault.line);
            self.set.left_out.add(&fault.reason, place);
        }
        self.refused.get_or_insert(error);
    }

    fn finish(self, origin: String, bad_rows: BadRows) -> Result<ItemSet, DataError> {
        let Self { set, refused } = self;
        if set.items.is_empty() {
            return Err(DataError::NoUsableRow {
                origin,
                left_out: set.left_out,
            });
        }
        match refused.filter(|_| bad_rows == BadRows::Refuse) {
            Some(fault) if set.left_out.total() == 1 => {
                let fault = Box::new(fault);
                Err(DataError::BadRow { fault })
            }
            Some(_) => Err(DataError::BadRows {
                left_out: set.left_out,
            }),
            None => Ok(set),
        }
    }
}

impl ItemSet {
    /// Items from memory.
    pub fn from_items(items: impl IntoIterator<Item = (Vec<String>, ItemTarget)>) -> Self {
        let item = |(row, (texts, target))| Item {
            texts,
            target,
            line: row + 1,
            file: 0,
        };
        Self {
            items: items.into_iter().enumerate().map(item).collect(),
            files: vec!["memory".into()],
            ..Self::default()
        }
    }

    /// The split that an item is given for; `None` where splits are not given.
    fn given_split(&self, row: usize) -> Option<Split> {
        self.given.get(self.items[row].file as usize).copied()
    }

    /// What must not be in two splits: the context of a question, else all texts.
    fn key(&self, row: usize) -> String {
        let Item { texts, target, .. } = &self.items[row];
        match target {
            ItemTarget::Answers(_) | ItemTarget::Choice(_) => split::text_key(&texts[0]),
            ItemTarget::Tags(_) => split::text_key(&texts.join(" ")),
            ItemTarget::Labels(_) | ItemTarget::Value(_) | ItemTarget::None => {
                split::text_key(&texts.join("\n"))
            }
        }
    }

    /// Names of the classes or tags of all rows, those that a file gives first.
    fn classes(&self) -> Vec<String> {
        let named = |item: &Item| match &item.target {
            ItemTarget::Labels(names) | ItemTarget::Tags(names) => names.clone(),
            _ => vec![],
        };
        let all: BTreeSet<String> = self.items.iter().flat_map(named).collect();
        let given: HashSet<&String> = self.class_names.iter().collect();
        let rest = all.iter().filter(|name| !given.contains(name));
        let rest = labels::ordered(rest.map(String::as_str).collect());
        let rest = rest.into_iter().map(String::from);
        self.class_names.iter().cloned().chain(rest).collect()
    }

    /// Splits as the files are given, and what is not given by content.
    ///
    /// - unit: what an item is called, in the plural
    ///
    /// # Errors
    /// Nothing to train or to validate on.
    pub fn split(&self, shares: SplitShares, unit: &'static str) -> Result<ItemSplits, DataError> {
        let keys: Vec<String> = (0..self.items.len()).map(|row| self.key(row)).collect();
        let given_split = |row| self.given_split(row);
        let mut splits = labelled::split_rows(&keys, &self.given, &given_split, shares);
        let leaks = labelled::leaks(&self.given, &keys, &splits);
        if splits.train.is_empty() || splits.valid.is_empty() {
            return Err(DataError::EmptySplit {
                origin: text::origin(&self.files),
                texts: self.items.len() as u64,
                train: splits.train.len(),
                valid: splits.valid.len(),
                given: self.given.contains(&Split::Valid),
                left_out: self.left_out.clone(),
            });
        }
        let labelled = splits.train.len();
        if shares.labels > 0 {
            let order = order::shuffled(labelled, shares.seed, 0).into_iter();
            let few = order.take(shares.labels);
            splits.train = few.map(|at| splits.train[at as usize]).collect();
        }
        let classes = self.classes();
        let summary = DataSummary {
            unit,
            train: splits.train.len(),
            valid: splits.valid.len(),
            test: Some(splits.test.len()),
            given: !self.given.is_empty(),
            labels_of: (splits.train.len() < labelled).then_some(labelled),
            left_out: self.left_out.clone(),
            leaks,
            alike: labels::alike(&classes),
            unread: self.unread.clone(),
            ..DataSummary::default()
        };
        Ok(ItemSplits {
            splits,
            classes,
            summary,
        })
    }
}

#[cfg(test)]
mod tests;
