//! The classes of a classification task: fixed by the training split, then looked up by name.

use std::collections::BTreeSet;

use crate::{DataError, TextSet};

/// As many known labels as an error names.
const NEAREST: usize = 5;

/// Label names in order; a label's index is its class id.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    names: Vec<String>,
}

impl Labels {
    /// Sorted and unique names, so ids do not depend on the order of the rows.
    ///
    /// # Errors
    /// Fewer than two classes leave nothing to tell apart.
    pub fn from_training<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, DataError> {
        let unique: BTreeSet<&str> = names.collect();
        let names: Vec<String> = unique.into_iter().map(String::from).collect();
        match names.as_slice() {
            [] => Err(DataError::NoLabels),
            [label] => Err(DataError::OneClass {
                label: label.clone(),
            }),
            _ => Ok(Self { names }),
        }
    }

    /// The class id of a name, if it was seen in training.
    pub fn index(&self, name: &str) -> Option<u32> {
        let found = self
            .names
            .binary_search_by(|known| known.as_str().cmp(name));
        found.ok().map(|index| index as u32)
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
        }
    }

    #[test]
    fn ids_follow_the_sorted_names() {
        let labels = Labels::from_training(["b", "a", "c", "a"].into_iter()).unwrap();
        assert_eq!(labels.names(), ["a", "b", "c"]);
        assert_eq!(labels.index("c"), Some(2));
        assert_eq!(labels.index("d"), None);
        assert_eq!(labels.require(&one_row(Some("b")), 0).unwrap(), 1);
    }

    #[test]
    fn classification_needs_two_classes() {
        let error = Labels::from_training(["x", "x"].into_iter()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "only one class (\"x\") in the training data: classification needs two"
        );
        let error = Labels::from_training(std::iter::empty()).unwrap_err();
        assert!(matches!(error, DataError::NoLabels));
    }

    #[test]
    fn an_unseen_label_is_an_error_with_its_place() {
        let labels = Labels::from_training(["a", "b", "c"].into_iter()).unwrap();
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
        let labels = Labels::from_training(names.into_iter()).unwrap();
        assert_eq!(
            labels
                .require(&one_row(Some("ca")), 0)
                .unwrap_err()
                .to_string(),
            "test.csv:9: label \"ca\" is not among the 7 labels seen in training; \
             the nearest are: cat, ant, bee, dog, eel"
        );
    }
}
