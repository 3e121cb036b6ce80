//! Reads whole rows, to look at them and to write them again. In: a source, and the columns of its texts and labels. Out: all
//! fields of each row, with its text as splits compare it, and its labels.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::fields::{FieldRows, field_of};
use crate::labelled::{self, SplitShares};
use crate::source::TextSource;
use crate::split::{self, Split, Splits};
use crate::{DataError, LeftOut, bundled, items, labels, text};

/// Rows between two calls of a progress callback.
const TOLD: usize = 1 << 12;

/// Which columns hold texts and labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowColumns {
    /// Of the text; several where a row has several, as a pair.
    pub texts: Vec<String>,
    /// Of a class, several classes, a number or tags; `None` reads none.
    pub label: Option<String>,
}

/// A row with all its fields.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeRow {
    /// By their names, in the order of the file.
    pub fields: Map<String, Value>,
    /// A text a column.
    pub texts: Vec<String>,
    /// Its label, labels or tags; empty without a column of labels.
    pub labels: Vec<String>,
    /// Where it begins, 1-based; its number in Parquet.
    pub line: usize,
    /// Index into [`WholeRows::files`].
    pub file: u32,
}

impl WholeRow {
    /// All its texts.
    pub fn text(&self) -> String {
        self.texts.join("\n")
    }
}

/// Rows in the order of their files and lines.
#[derive(Clone, Debug, Default)]
pub struct WholeRows {
    /// Those with a text, and with a label where labels are read.
    pub rows: Vec<WholeRow>,
    /// Names of all fields, in the order in which they first occur.
    pub columns: Vec<String>,
    /// Where the rows come from.
    pub files: Vec<PathBuf>,
    /// The split of each of `files`, where they are given as splits; else empty.
    pub given: Vec<Split>,
    /// Rows that are not among these.
    pub left_out: LeftOut,
    /// What is to be said of files that are not read, a sentence each.
    pub unread: Vec<String>,
}

/// Reads all rows; those that cannot be used are left out and counted.
///
/// - progress: called now and then with the number of rows up to there
///
/// # Errors
/// A file or a column that is missing, a file that can't be read on, no usable row at all.
pub fn read_whole_rows(
    source: &TextSource,
    columns: &RowColumns,
    progress: &mut dyn FnMut(usize),
) -> Result<WholeRows, DataError> {
    let mut all = WholeRows {
        files: items::files(source),
        given: source.given(),
        unread: source.unread(),
        ..WholeRows::default()
    };
    let mut reading = Reading::default();
    for (number, path) in all.files.clone().iter().enumerate() {
        let rows = open(source, path, columns)?;
        reading.file(rows, columns, path, number as u32, progress)?;
    }
    if let TextSource::Bundled("wordnet-nouns") = source {
        let is_noun = |row: &WholeRow| row.fields["label"].as_str().is_some_and(is_of_noun);
        reading.rows.retain(is_noun);
    }
    if reading.rows.is_empty() {
        return Err(DataError::NoUsableRow {
            origin: text::origin(&all.files),
            left_out: reading.left_out,
        });
    }
    let Reading {
        rows,
        columns,
        left_out,
        ..
    } = reading;
    (all.rows, all.columns, all.left_out) = (rows, columns, left_out);
    Ok(all)
}

fn is_of_noun(field: &str) -> bool {
    field.starts_with("noun.")
}

fn open(source: &TextSource, path: &Path, columns: &RowColumns) -> Result<FieldRows, DataError> {
    let names = columns.texts.iter().chain(&columns.label);
    let needed: Vec<&str> = names.map(String::as_str).collect();
    match source {
        TextSource::Bundled(name) => {
            let (format, bytes) = bundled::rows(name);
            FieldRows::read_whole(path, format, bytes, &needed)
        }
        TextSource::Files(_) | TextSource::Given(_) | TextSource::Memory(_) => {
            FieldRows::open_whole(path, &needed)
        }
    }
}

/// Rows that have been read.
#[derive(Default)]
struct Reading {
    rows: Vec<WholeRow>,
    columns: Vec<String>,
    known: HashSet<String>,
    left_out: LeftOut,
}

impl Reading {
    fn file(
        &mut self,
        mut rows: FieldRows,
        columns: &RowColumns,
        path: &Path,
        file: u32,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), DataError> {
        let label = columns.label.as_deref();
        let names = label.and_then(|label| rows.class_names(label));
        let names = names.unwrap_or_default();
        let (mut any, before, mut missing) = (false, self.rows.len(), None);
        while let Some(row) = rows.next_whole()? {
            any = true;
            let row = row.and_then(|(fields, line)| {
                let wrong = |reason| DataError::UnusableRow {
                    path: path.into(),
                    line,
                    reason,
                };
                let (texts, labels) = columns.of(&fields, &names).map_err(wrong)?;
                Ok(WholeRow {
                    fields,
                    texts,
                    labels,
                    line,
                    file,
                })
            });
            match row {
                Ok(row) => self.add(row),
                Err(error) => {
                    if let Some(fault) = error.row_fault() {
                        let place = || format!("{}:{}", fault.path.display(), fault.line);
                        self.left_out.add(&fault.reason, place);
                    }
                    missing.get_or_insert(error);
                }
            }
            if self.rows.len().is_multiple_of(TOLD) {
                progress(self.rows.len());
            }
        }
        match missing {
            _ if !any => Err(DataError::NoExample { path: path.into() }),
            // No row has it: the key is another one.
            Some(missing @ DataError::KeyMissing { .. }) if self.rows.len() == before => {
                Err(missing)
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, row: WholeRow) {
        for name in row.fields.keys() {
            if !self.known.contains(name) {
                self.known.insert(name.clone());
                self.columns.push(name.clone());
            }
        }
        self.rows.push(row);
    }
}

impl RowColumns {
    /// Texts and labels of a row, or what is wrong with it.
    ///
    /// - names: of the classes that whole numbers number
    fn of(
        &self,
        fields: &Map<String, Value>,
        names: &[String],
    ) -> Result<(Vec<String>, Vec<String>), String> {
        let value = |name: &str| field_of(fields, name).unwrap_or(&Value::Null);
        let texts = self.texts.iter().map(|name| text_of(name, value(name)));
        let texts = texts.collect::<Result<_, _>>()?;
        let labels = match &self.label {
            Some(name) => labels_of(name, value(name), names)?,
            None => vec![],
        };
        Ok((texts, labels))
    }
}

/// A text; words between spaces; roles and contents of messages, a line each.
fn text_of(name: &str, value: &Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            words.join(" ")
        }
        Value::Array(_) => items::messages(name, value)?.join("\n"),
        _ => return Err(format!("\"{name}\" is no text")),
    };
    if text.trim().is_empty() {
        return Err(format!("\"{name}\" is empty"));
    }
    Ok(text)
}

fn labels_of(name: &str, value: &Value, names: &[String]) -> Result<Vec<String>, String> {
    if let Value::Array(items) = value {
        return items
            .iter()
            .map(|item| label_of(name, item, names))
            .collect();
    }
    Ok(vec![label_of(name, value, names)?])
}

fn label_of(name: &str, value: &Value, names: &[String]) -> Result<String, String> {
    match value {
        // A score has no class.
        Value::Number(number) if number.as_f64().is_some_and(|value| value.fract() != 0.0) => {
            Ok(number.to_string())
        }
        Value::String(text) if labels::canonical(text).is_empty() => {
            Err(format!("\"{name}\" is empty"))
        }
        value => items::class(name, value, names),
    }
}

impl WholeRows {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The file, or the first of the files, for messages.
    pub fn origin(&self) -> String {
        text::origin(&self.files)
    }

    /// `path:line` of a row.
    ///
    /// # Panics
    /// If it is outside the set.
    pub fn place(&self, row: usize) -> String {
        let WholeRow { file, line, .. } = &self.rows[row];
        format!("{}:{line}", self.files[*file as usize].display())
    }

    /// The split that a row is given for; `None` where splits are not given.
    ///
    /// # Panics
    /// If it is outside the set.
    pub fn given_split(&self, row: usize) -> Option<Split> {
        self.given.get(self.rows[row].file as usize).copied()
    }

    /// What must not be in two splits, of each row.
    pub fn keys(&self) -> Vec<String> {
        let key = |row: &WholeRow| split::text_key(&row.text());
        self.rows.iter().map(key).collect()
    }

    /// The splits that training makes of these rows: as the files are given, and what is not given by content. Where each
    /// row has one text and one class, a class keeps a row in training.
    ///
    /// - shares: how many labels are used has no effect here
    pub fn split(&self, shares: SplitShares) -> Splits {
        let keys = self.keys();
        let given_split = |row| self.given_split(row);
        let is_class = |row: &WholeRow| row.texts.len() == 1 && row.labels.len() == 1;
        if !self.rows.iter().all(is_class) {
            return labelled::split_rows(&keys, &self.given, &given_split, shares);
        }
        let label = |row: usize| self.rows[row].labels.first().map(String::as_str);
        labelled::split_classes(&keys, &self.given, &given_split, label, shares).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelledSplits, TextColumns};

    fn columns(texts: &[&str], label: Option<&str>) -> RowColumns {
        RowColumns {
            texts: texts.iter().map(|name| name.to_string()).collect(),
            label: label.map(String::from),
        }
    }

    fn read(files: &[(&str, &str)], columns: &RowColumns) -> Result<WholeRows, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            paths.push(path.display().to_string());
        }
        read_whole_rows(&TextSource::named(&paths)?, columns, &mut |_| {})
    }

    fn texts(rows: &WholeRows) -> Vec<&str> {
        rows.rows.iter().map(|row| row.texts[0].as_str()).collect()
    }

    #[test]
    fn every_format_gives_all_fields() {
        let of_class = columns(&["text"], Some("label"));
        let csv = "id,text,label\n1,\"a, b\",x\n2,,x\n3,c,\n4,d,y\n";
        let jsonl = "{\"text\": \"a, b\", \"label\": \"x\", \"more\": [1]}\n\n{\"label\": 1}\n";
        let rows = read(&[("a.csv", csv), ("b.jsonl", jsonl)], &of_class).unwrap();
        assert_eq!(texts(&rows), ["a, b", "d", "a, b"]);
        assert_eq!(rows.columns, ["id", "text", "label", "more"]);
        assert_eq!(rows.rows[1].fields["id"], "4");
        assert_eq!(rows.rows[2].fields["more"], serde_json::json!([1]));
        assert!(rows.place(1).ends_with("a.csv:5"), "{}", rows.place(1));
        let reasons = rows.left_out.reasons().iter();
        let reasons: Vec<_> = reasons.map(|reason| reason.name.as_str()).collect();
        let expected = [
            "\"text\" is empty",
            "\"label\" is empty",
            "key \"text\" is missing",
        ];
        assert_eq!(reasons, expected);
        let lines = read(&[("a.txt", "one\n\n two \r\n")], &columns(&["words"], None)).unwrap();
        assert_eq!(texts(&lines), ["one", " two "]);
        assert_eq!(
            (lines.rows[1].line, lines.columns),
            (3, vec!["words".into()])
        );
        let tagged = "a\tDET\nbird\tNOUN\n\nit\tPRON\n";
        let of_tags = columns(&["tokens"], Some("tags"));
        let tagged = read(&[("a.conll", tagged)], &of_tags).unwrap();
        assert_eq!(texts(&tagged), ["a bird", "it"]);
        assert_eq!(tagged.rows[0].labels, ["DET", "NOUN"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let of_text = columns(&["text"], None);
        let error = |name, content| read(&[(name, content)], &of_text).unwrap_err().to_string();
        assert!(error("a.csv", "body\nx\n").contains("column \"text\" is missing"));
        assert!(error("a.jsonl", "{\"body\": \"x\"}\n").contains("key \"text\" is missing"));
        assert!(error("a.jsonl", "{\"text\": \" \"}\n").contains("\"text\" is empty"));
        let of_class = columns(&["text"], Some("label"));
        let error = read(&[("a.txt", "x\n")], &of_class).unwrap_err();
        assert!(matches!(error, DataError::NoLabelsInLines { .. }));
    }

    #[test]
    fn texts_and_labels_are_of_many_kinds() {
        let jsonl = r#"{"a": "one", "b": ["two", "words"], "c": 2.5, "meta": {"d": ["x", "y"]}}
{"a": "one", "b": [{"role": "user", "content": "hi"}, {"from": "gpt", "value": "ho"}], "c": 1.0, "meta": {"d": []}}"#;
        let rows = |columns: RowColumns| read(&[("a.jsonl", jsonl)], &columns).unwrap().rows;
        let both = rows(columns(&["a", "b"], Some("c")));
        assert_eq!(both[0].text(), "one\ntwo words");
        assert_eq!(both[1].text(), "one\nuser\nhi\nassistant\nho");
        assert_eq!([&both[0].labels[0], &both[1].labels[0]], ["2.5", "1"]);
        let several = rows(columns(&["a"], Some("meta.d")));
        assert_eq!(several[0].labels, ["x", "y"]);
        assert!(several[1].labels.is_empty());
    }

    #[test]
    fn splits_are_those_of_training() {
        let row = |i: usize| format!("Text {},c{}\n", i % 150, i % 3);
        let rows: String = (0..200).map(row).chain(["rare,r\n".into()]).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, format!("text,label\n{rows}")).unwrap();
        let source = TextSource::named(&[path.display().to_string()]).unwrap();
        let label = Some("label".to_string());
        let of_class = columns(&["text"], label.as_deref());
        let whole = read_whole_rows(&source, &of_class, &mut |_| {}).unwrap();
        let of_training = TextColumns {
            label,
            ..TextColumns::default()
        };
        let set = source.collect(&of_training).unwrap();
        for seed in 0..20 {
            let shares = SplitShares {
                valid: 0.3,
                test: 0.2,
                seed,
                labels: 0,
            };
            let LabelledSplits {
                train, valid, test, ..
            } = LabelledSplits::new(&set, shares).unwrap();
            assert_eq!(whole.split(shares), Splits { train, valid, test });
        }
    }

    #[test]
    fn bundled_sets_have_the_columns_and_rows_that_are_listed() {
        let mut told = 0;
        for set in bundled::SETS.iter().filter(|set| !set.texts.is_empty()) {
            let source = TextSource::named(&[set.name.into()]).unwrap();
            let columns = columns(set.texts, set.label);
            let rows = read_whole_rows(&source, &columns, &mut |_| told += 1).unwrap();
            assert_eq!(
                (rows.len(), rows.left_out.total()),
                (set.rows, 0),
                "{}",
                set.name
            );
            assert_eq!(rows.columns, set.columns, "{}", set.name);
        }
        assert!(told > 0);
    }
}
