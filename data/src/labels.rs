//! The classes of a classification task. In: labels as files have them. Out: names in order, and a class id a name.
//!
//! Labels are values. Text is compared after Unicode's canonical composition (NFC), so that one word written in two ways
//! is one class. Where all labels of a set are numbers, `1.0` is `1`. Classes are in the order that the file gives them,
//! else of their numbers, else sorted.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::{DataError, TextExample, TextSet};

/// As many known labels as an error names.
const NEAREST: usize = 5;
/// Whole numbers up to this one have neighbours that differ by one.
const LARGEST_WHOLE: f64 = (1_u64 << 53) as f64;

/// Label names in order; a label's index is its class id.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    names: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Labels {
    /// Unique names: those of `given` first and in its order, then whole numbers in their order, or others sorted, so that
    /// ids do not depend on the order of the rows.
    ///
    /// # Errors
    /// Fewer than two classes leave nothing to tell apart.
    pub fn in_order<'a>(
        given: &[String],
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Self, DataError> {
        let mut rest: BTreeSet<&str> = names.collect();
        let mut names: Vec<String> = Vec::with_capacity(rest.len());
        names.extend(
            given
                .iter()
                .filter(|name| rest.remove(name.as_str()))
                .cloned(),
        );
        names.extend(ordered(rest).into_iter().map(String::from));
        if let [label] = names.as_slice() {
            let label = label.clone();
            return Err(DataError::OneClass { label });
        }
        if names.is_empty() {
            return Err(DataError::NoLabels);
        }
        let ids = names.iter().cloned().zip(0..).collect();
        Ok(Self { names, ids })
    }

    /// The class id of a name, if it was seen in training.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// Classes whose names differ in capitals or white space alone.
    pub fn alike(&self) -> Vec<Vec<String>> {
        alike(&self.names)
    }

    /// The names; position is class id.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class id of example `i` of `set`.
    ///
    /// # Errors
    /// The example has no label, or one that training never saw; the error gives its place.
    ///
    /// # Panics
    /// If `i` is outside the set.
    pub fn require(&self, set: &TextSet, i: usize) -> Result<u32, DataError> {
        let Some(label) = &set.examples[i].label else {
            let place = set.place(i);
            return Err(DataError::Unlabelled { place });
        };
        self.index(label).ok_or_else(|| DataError::UnseenLabel {
            place: set.place(i),
            label: label.clone(),
            count: self.names.len(),
            nearest: self.nearest(label),
        })
    }

    /// The few names spelled most like `label`; all of them, in order, if there are only a few.
    fn nearest(&self, label: &str) -> Vec<String> {
        let mut names: Vec<&String> = self.names.iter().collect();
        if names.len() > NEAREST {
            names.sort_by_key(|name| strsim::damerau_levenshtein(name, label));
        }
        names.into_iter().take(NEAREST).cloned().collect()
    }
}

/// Names of classes in the order of their ids: whole numbers in their order, or others sorted.
pub(crate) fn ordered(names: BTreeSet<&str>) -> Vec<&str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    if names.iter().all(|name| whole_number(name).is_some()) {
        names.sort_by_key(|name| whole_number(name));
    }
    names
}

/// Labels in one field: between `;`, else between white space.
pub(crate) fn listed(text: &str) -> Vec<String> {
    let name = |part: &str| canonical(part).into_owned();
    let names: Vec<String> = if text.contains(';') {
        text.split(';').map(name).collect()
    } else {
        text.split_whitespace().map(name).collect()
    };
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Classes whose names differ in capitals or white space alone, so that they may be meant as one: groups of two or more, in
/// the order of their first.
pub(crate) fn alike(names: &[String]) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (id, name) in names.iter().enumerate() {
        let key: String = name.to_lowercase().split_whitespace().collect();
        groups.entry(key).or_default().push(id);
    }
    let mut groups: Vec<_> = groups
        .into_values()
        .filter(|group| group.len() > 1)
        .collect();
    groups.sort();
    let name = |id: &usize| names[*id].clone();
    groups
        .iter()
        .map(|group| group.iter().map(name).collect())
        .collect()
}

/// One of these groups, for the user.
pub(crate) fn alike_line(group: &[String]) -> String {
    let names: Vec<_> = group.iter().map(|name| format!("\"{name}\"")).collect();
    let names = names.join(" and ");
    format!("classes {names} differ in capitals or spaces alone")
}

/// A label as it is compared: without white space around it, and composed.
pub(crate) fn canonical(label: &str) -> Cow<'_, str> {
    let label = label.trim();
    if is_nfc(label) {
        return label.into();
    }
    label.nfc().collect::<String>().into()
}

/// The digits of a whole number; `None` for others, and for those too large to be exact.
pub(crate) fn whole(number: f64) -> Option<String> {
    let exact = number.fract() == 0.0 && number.abs() <= LARGEST_WHOLE;
    exact.then(|| format!("{}", number as i64))
}

/// Writes whole numbers without a fraction, `1.0` as `1`, where all labels are numbers; in the names of the classes too.
pub(crate) fn unify_numbers(examples: &mut [TextExample], class_names: &mut [String]) {
    let labels = || {
        examples
            .iter()
            .filter_map(|example| example.label.as_deref())
    };
    let with_point = labels().any(|label| label.contains('.'));
    if !with_point || !labels().all(|label| number(label).is_some()) {
        return;
    }
    let labels = examples
        .iter_mut()
        .filter_map(|example| example.label.as_mut());
    for label in labels.chain(class_names) {
        if let Some((whole, zeros)) = number(label)
            && zeros.bytes().all(|digit| digit == b'0')
        {
            *label = if whole == "-0" { "0" } else { whole }.into();
        }
    }
}

/// A decimal number as programs write it: digits before the point, and those behind it. `007` is a name and no number.
fn number(label: &str) -> Option<(&str, &str)> {
    let (whole, fraction) = label.split_once('.').unwrap_or((label, ""));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let plain = digits == "0" || !digits.starts_with('0');
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = plain && !digits.is_empty() && all_digits(digits) && all_digits(fraction);
    is_number.then_some((whole, fraction))
}

fn whole_number(label: &str) -> Option<i128> {
    let (whole, _) = number(label).filter(|_| !label.contains('.'))?;
    whole.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TextExample;

    fn one_row(label: Option<&str>) -> TextSet {
        TextSet {
            examples: vec![TextExample {
                text: "t".into(),
                label: label.map(String::from),
                line: 9,
                file: 0,
            }],
            files: vec!["test.csv".into()],
            ..TextSet::default()
        }
    }

    #[test]
    fn ids_follow_the_sorted_names() {
        let labels = Labels::in_order(&[], ["b", "a", "c", "a"].into_iter()).unwrap();
        assert_eq!(labels.names(), ["a", "b", "c"]);
        assert_eq!(labels.index("c"), Some(2));
        assert_eq!(labels.index("d"), None);
        assert_eq!(labels.require(&one_row(Some("b")), 0).unwrap(), 1);
    }

    #[test]
    fn classification_needs_two_classes() {
        let error = Labels::in_order(&[], ["x", "x"].into_iter()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "only one class (\"x\") in the training data: classification needs two"
        );
        let error = Labels::in_order(&[], std::iter::empty()).unwrap_err();
        assert!(matches!(error, DataError::NoLabels));
    }

    #[test]
    fn an_unseen_label_is_an_error_with_its_place() {
        let labels = Labels::in_order(&[], ["a", "b", "c"].into_iter()).unwrap();
        assert_eq!(
            labels
                .require(&one_row(Some("x")), 0)
                .unwrap_err()
                .to_string(),
            "test.csv:9: label \"x\" is not among the 3 labels seen in training: a, b, c"
        );
        assert_eq!(
            labels.require(&one_row(None), 0).unwrap_err().to_string(),
            "test.csv:9: has no label"
        );
    }

    #[test]
    fn of_many_labels_the_nearest_are_named() {
        let names = ["ant", "bee", "cat", "dog", "eel", "fox", "gnat"];
        let labels = Labels::in_order(&[], names.into_iter()).unwrap();
        assert_eq!(
            labels
                .require(&one_row(Some("ca")), 0)
                .unwrap_err()
                .to_string(),
            "test.csv:9: label \"ca\" is not among the 7 labels seen in training; \
             the nearest are: cat, ant, bee, dog, eel"
        );
    }

    #[test]
    fn numbers_are_in_their_order_and_given_names_in_theirs() {
        let of = |given: &[&str], names: &[&str]| {
            let given: Vec<String> = given.iter().map(|name| name.to_string()).collect();
            Labels::in_order(&given, names.iter().copied())
                .unwrap()
                .names
        };
        assert_eq!(of(&[], &["10", "9", "-2", "0"]), ["-2", "0", "9", "10"]);
        assert_eq!(of(&[], &["10", "9", "x"]), ["10", "9", "x"]);
        assert_eq!(of(&[], &["10", "9", "07"]), ["07", "10", "9"]);
        // A name without a row is no class, one that is not among them comes last.
        assert_eq!(of(&["z", "q", "a"], &["a", "m", "z"]), ["z", "a", "m"]);
    }

    #[test]
    fn names_of_classes_are_written_as_their_labels_are() {
        let rows = ["2.0", "1", "2.0"].map(|label| ("text", label));
        let mut set = TextSet::from_labelled(rows);
        set.class_names = vec!["2.0".into(), "1.0".into()];
        unify_numbers(&mut set.examples, &mut set.class_names);
        assert_eq!(set.class_names, ["2", "1"]);
        let labels = set.examples.iter().filter_map(|row| row.label.as_deref());
        let classes = Labels::in_order(&set.class_names, labels).unwrap();
        assert_eq!(classes.names(), ["2", "1"]);
    }

    fn unified(labels: &[&str]) -> Vec<String> {
        let rows = labels.iter().map(|label| ("text", *label));
        let mut set = TextSet::from_labelled(rows);
        unify_numbers(&mut set.examples, &mut set.class_names);
        let labels = set.examples.into_iter().filter_map(|example| example.label);
        labels.collect()
    }

    #[test]
    fn one_and_one_point_zero_are_one_class_among_numbers() {
        assert_eq!(
            unified(&["1", "1.0", "-2.00", "-0."]),
            ["1", "1", "-2", "0"]
        );
        assert_eq!(unified(&["1.5", "2.0"]), ["1.5", "2"]);
        // Names, among which a number is a name.
        for names in [
            ["1.0", "x"],
            ["1.0", "007"],
            ["1.0", "1e3"],
            ["1.0", "."],
            ["1.0", "-"],
        ] {
            assert_eq!(unified(&names), names);
        }
    }

    #[test]
    fn one_word_in_two_spellings_is_one_label() {
        assert_eq!(canonical(" cafe\u{301}\t"), "caf\u{e9}");
        assert_eq!(canonical("caf\u{e9}"), "caf\u{e9}");
    }

    #[test]
    fn whole_floats_are_integers() {
        assert_eq!(whole(3.0).as_deref(), Some("3"));
        assert_eq!(whole(-0.0).as_deref(), Some("0"));
        for other in [0.5, 1e300, f64::NAN, f64::INFINITY] {
            assert_eq!(whole(other), None, "{other}");
        }
    }

    #[test]
    fn names_that_look_alike_are_found() {
        let names = [
            "animal",
            "Tool",
            "Animal",
            "New York",
            "new  york",
            "tool s",
        ];
        let labels = Labels::in_order(&[], names.into_iter()).unwrap();
        let expected = [vec!["Animal", "animal"], vec!["New York", "new  york"]];
        assert_eq!(labels.alike(), expected);
    }
}
