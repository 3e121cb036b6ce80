//! Labelled texts in splits. In: a set, and how it is split. Out: rows of each split, and their classes.

use std::collections::HashSet;

use crate::split::{self, Split, Splits};
use crate::{DataError, Labels, LeftOut, TextSet};

/// How a labelled set is split, where its files do not say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitShares {
    /// Share 0 to 1 of the texts to validate on.
    pub valid: f64,
    /// Share to test on.
    pub test: f64,
    /// Of the splits and of the choice of labels.
    pub seed: u64,
    /// Training rows that are used, the same share of each class; 0 is all.
    pub labels: usize,
}

/// Rows of a labelled set by split. All indices are into [`TextSet::examples`].
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledSplits {
    /// The classes, all of which have a row to train on.
    pub labels: Labels,
    /// Rows to train on; in random order where not all labels are used.
    pub train: Vec<usize>,
    /// Rows to choose a checkpoint by.
    pub valid: Vec<usize>,
    /// Rows to report.
    pub test: Vec<usize>,
    /// Training rows, used or not.
    pub labelled: usize,
    /// Rows that are trained on because their class would have none there.
    pub kept_in_training: usize,
    /// Rows to validate or test on whose class has no row to train on, so that they are in no split.
    pub left_out: LeftOut,
    /// Rows that are given to validate or test on, and whose texts are trained on as well.
    pub leaks: usize,
}

impl LabelledSplits {
    /// Splits a set as its files are given ([`TextSet::given`]), and what is not given by content. The classes are those
    /// of the training rows.
    ///
    /// # Errors
    /// Nothing to train or to validate on, a row without label, fewer than two classes.
    pub fn new(set: &TextSet, shares: SplitShares) -> Result<Self, DataError> {
        let keys: Vec<String> = set
            .examples
            .iter()
            .map(|example| split::text_key(&example.text))
            .collect();
        let (splits, kept_in_training) = splits(set, &keys, shares);
        let leaks = leaks(&set.given, &keys, &splits);
        let label = |row: &usize| set.examples[*row].label.as_deref();
        let trained = splits.train.iter().filter_map(label);
        check(set, &splits, &LeftOut::default())?;
        let labels = Labels::in_order(&set.class_names, trained).map_err(|fault| {
            let fault = Box::new(fault);
            let origin = set.origin();
            DataError::Within { origin, fault }
        })?;
        let mut left_out = LeftOut::default();
        let mut known = |rows: Vec<usize>| -> Vec<usize> {
            let known = |row: &usize| match label(row) {
                Some(name) if labels.index(name).is_none() => {
                    let place = || format!("{} (\"{name}\")", set.place(*row));
                    left_out.add("their class has no row in training", place);
                    false
                }
                _ => true,
            };
            rows.into_iter().filter(known).collect()
        };
        let (valid, test) = (known(splits.valid), known(splits.test));
        let labelled = splits.train.len();
        let train = few(set, &labels, splits.train, shares)?;
        let splits = Splits { train, valid, test };
        check(set, &splits, &left_out)?;
        let Splits { train, valid, test } = splits;
        Ok(Self {
            labels,
            train,
            valid,
            test,
            labelled,
            kept_in_training,
            left_out,
            leaks,
        })
    }

    /// The classes of some rows of the set.
    ///
    /// # Errors
    /// A row without a label, or with one that training never saw.
    pub fn classes(&self, set: &TextSet, rows: &[usize]) -> Result<Vec<u32>, DataError> {
        classes(set, &self.labels, rows)
    }
}

/// The splits, and how many rows a rare class kept in training.
fn splits(set: &TextSet, keys: &[String], shares: SplitShares) -> (Splits, usize) {
    let label = |row: usize| set.examples[row].label.as_deref();
    let given_split = |row| set.given_split(row);
    split_classes(keys, &set.given, &given_split, label, shares)
}

/// [`split_rows`], but for classes that would have no row to train on; and how many rows such a class kept in training.
///
/// - label: of a row
pub(crate) fn split_classes<'a>(
    keys: &[String],
    given: &[Split],
    given_split: &dyn Fn(usize) -> Option<Split>,
    label: impl Fn(usize) -> Option<&'a str>,
    shares: SplitShares,
) -> (Splits, usize) {
    let draw = |rest: &[usize], keys: &[&[u8]], [valid, test]: [f64; 2]| {
        let labels: Vec<Option<&str>> = rest.iter().map(|&row| label(row)).collect();
        split::split_labelled(keys, &labels, valid, test, shares.seed)
    };
    split_with(keys, given, given_split, shares, draw)
}

/// Splits rows as they are given, and what is not given by content.
///
/// - given: the splits of the files
/// - given_split: of a row
pub(crate) fn split_rows(
    keys: &[String],
    given: &[Split],
    given_split: &dyn Fn(usize) -> Option<Split>,
    shares: SplitShares,
) -> Splits {
    let draw = |_: &[usize], keys: &[&[u8]], [valid, test]: [f64; 2]| {
        split::split_by_content(keys.iter().copied(), valid, test, shares.seed)
    };
    split_with(keys, given, given_split, shares, draw).0
}

/// The splits, and how many rows more than content alone says are trained on.
///
/// - draw: splits rows that are not given, by their keys and the shares of validation and test
fn split_with(
    keys: &[String],
    given: &[Split],
    given_split: &dyn Fn(usize) -> Option<Split>,
    shares: SplitShares,
    draw: impl Fn(&[usize], &[&[u8]], [f64; 2]) -> Splits,
) -> (Splits, usize) {
    let of = |split| {
        let rows = 0..keys.len();
        let rows: Vec<usize> = rows
            .filter(|&row| given_split(row) == Some(split))
            .collect();
        given.contains(&split).then_some(rows)
    };
    let (valid, test) = (of(Split::Valid), of(Split::Test));
    let rest: Vec<usize> = match of(Split::Train) {
        Some(rows) => rows,
        None => (0..keys.len()).collect(),
    };
    let share = |given: &Option<_>, share| if given.is_some() { 0.0 } else { share };
    let (valid_share, test_share) = (share(&valid, shares.valid), share(&test, shares.test));
    let bytes: Vec<&[u8]> = rest.iter().map(|&row| keys[row].as_bytes()).collect();
    let drawn = draw(&rest, &bytes, [valid_share, test_share]);
    let is_train =
        |key: &&[u8]| split::split_of(key, valid_share, test_share, shares.seed) == Split::Train;
    let by_hash = bytes.iter().filter(|key| is_train(key)).count();
    let kept = drawn.train.len() - by_hash;
    let rows = |drawn: Vec<usize>| drawn.into_iter().map(|at| rest[at]).collect();
    let splits = Splits {
        train: rows(drawn.train),
        valid: valid.unwrap_or_else(|| rows(drawn.valid)),
        test: test.unwrap_or_else(|| rows(drawn.test)),
    };
    (splits, kept)
}

/// Rows that are given to validate or test on, and whose texts are trained on too.
pub(crate) fn leaks(given: &[Split], keys: &[String], splits: &Splits) -> usize {
    if given.is_empty() {
        return 0;
    }
    let trained: HashSet<&String> = splits.train.iter().map(|&row| &keys[row]).collect();
    let held = splits.valid.iter().chain(&splits.test);
    held.filter(|&&row| trained.contains(&keys[row])).count()
}

fn check(set: &TextSet, splits: &Splits, more: &LeftOut) -> Result<(), DataError> {
    if splits.train.is_empty() || splits.valid.is_empty() {
        let mut left_out = set.left_out.clone();
        left_out.merge(more.clone());
        return Err(DataError::EmptySplit {
            origin: set.origin(),
            texts: set.len() as u64,
            train: splits.train.len(),
            valid: splits.valid.len(),
            given: set.given.contains(&Split::Valid),
            left_out,
        });
    }
    Ok(())
}

/// The training rows whose labels are used.
fn few(
    set: &TextSet,
    labels: &Labels,
    train: Vec<usize>,
    shares: SplitShares,
) -> Result<Vec<usize>, DataError> {
    let classes = classes(set, labels, &train)?;
    if shares.labels == 0 {
        return Ok(train);
    }
    let few = split::label_subset(&classes, shares.labels, shares.seed);
    Ok(few.into_iter().map(|at| train[at]).collect())
}

fn classes(set: &TextSet, labels: &Labels, rows: &[usize]) -> Result<Vec<u32>, DataError> {
    rows.iter().map(|&row| labels.require(set, row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TextExample;

    const SHARES: SplitShares = SplitShares {
        valid: 0.2,
        test: 0.1,
        seed: 3,
        labels: 0,
    };

    fn rows(n: usize) -> Vec<(String, String)> {
        let label = |i: usize| ["animal", "tool", "plant"][i % 3].to_string();
        (0..n).map(|i| (format!("text {i}"), label(i))).collect()
    }

    #[test]
    fn an_empty_split_is_told_with_what_was_left_out() {
        let row = |text: &str, label: &str, file| TextExample {
            text: text.into(),
            label: Some(label.into()),
            line: 1,
            file,
        };
        let set = TextSet {
            examples: vec![row("x", "a", 0), row("y", "b", 0), row("z", "c", 1)],
            files: vec!["train.csv".into(), "valid.csv".into()],
            given: vec![Split::Train, Split::Valid],
            ..TextSet::default()
        };
        let error = LabelledSplits::new(&set, SHARES).unwrap_err().to_string();
        assert!(
            error.contains("3 texts leave 2 to train and 0 to validate on, 1 are left out")
                && error.contains("their class has no row in training")
                && error.ends_with("add texts to the file to validate on"),
            "{error}"
        );
    }

    #[test]
    fn without_given_splits_content_decides() {
        let set = TextSet::from_labelled(rows(300));
        let splits = LabelledSplits::new(&set, SHARES).unwrap();
        let keys: Vec<String> = set
            .examples
            .iter()
            .map(|e| split::text_key(&e.text))
            .collect();
        let keys = keys.iter().map(|key| key.as_bytes());
        let expected = split::split_by_content(keys, 0.2, 0.1, 3);
        let found = (&splits.train, &splits.valid, &splits.test);
        assert_eq!(found, (&expected.train, &expected.valid, &expected.test));
        assert_eq!(splits.labels.names(), ["animal", "plant", "tool"]);
        assert_eq!(
            (splits.kept_in_training, splits.leaks, splits.labelled),
            (0, 0, expected.train.len())
        );
        assert_eq!(splits.classes(&set, &[0, 1, 2]).unwrap(), [0, 2, 1]);
    }

    #[test]
    fn classes_of_one_row_are_trained_on_and_used() {
        let mut all = rows(300);
        all.extend((0..12).map(|i| (format!("a remark about thing {i}"), format!("rare-{i:02}"))));
        let set = TextSet::from_labelled(all);
        let splits = LabelledSplits::new(&set, SHARES).unwrap();
        assert_eq!(splits.labels.names().len(), 15);
        let of = |rows: &[usize]| rows.iter().filter(|&&row| row >= 300).count();
        assert_eq!(
            (of(&splits.train), of(&splits.valid), of(&splits.test)),
            (12, 0, 0)
        );
        assert!(splits.kept_in_training > 0 && splits.kept_in_training <= 12);
        let few = LabelledSplits::new(
            &set,
            SplitShares {
                labels: 40,
                ..SHARES
            },
        )
        .unwrap();
        // A class that no chosen row has is a class all the same.
        assert_eq!(few.labels, splits.labels);
        assert_eq!((few.train.len(), few.labelled), (40, splits.train.len()));
    }

    /// Rows of `files` files in turn, given as these splits.
    fn given(splits: &[Split], mut all: Vec<(String, String)>, rows_each: usize) -> TextSet {
        all.truncate(splits.len() * rows_each);
        let mut set = TextSet::from_labelled(all);
        set.given = splits.to_vec();
        set.files = (0..splits.len())
            .map(|file| format!("{file}.csv").into())
            .collect();
        for (row, example) in set.examples.iter_mut().enumerate() {
            example.file = (row / rows_each) as u32;
        }
        set
    }

    #[test]
    fn given_splits_are_used_as_they_are() {
        let set = given(&[Split::Train, Split::Valid, Split::Test], rows(90), 30);
        let splits = LabelledSplits::new(&set, SHARES).unwrap();
        let range = |from: usize| (from..from + 30).collect::<Vec<_>>();
        assert_eq!(
            (splits.train, splits.valid, splits.test),
            (range(0), range(30), range(60))
        );
        // What is not given is drawn from what is given to train on.
        let set = given(&[Split::Train, Split::Test], rows(90), 45);
        let splits = LabelledSplits::new(&set, SHARES).unwrap();
        assert_eq!(splits.test, (45..90).collect::<Vec<_>>());
        assert_eq!(splits.train.len() + splits.valid.len(), 45);
        assert!(!splits.valid.is_empty());
    }

    #[test]
    fn leaks_and_classes_without_a_training_row_are_counted() {
        let mut all = rows(60);
        // Of the first file, but for capitals.
        all[30].0 = "Text  7".into();
        all[31].1 = "unseen".into();
        all[59].1 = "unseen".into();
        let set = given(&[Split::Train, Split::Valid], all, 30);
        let splits = LabelledSplits::new(
            &set,
            SplitShares {
                test: 0.0,
                ..SHARES
            },
        )
        .unwrap();
        assert_eq!(
            (splits.train.len(), splits.valid.len(), splits.leaks),
            (30, 28, 1)
        );
        assert_eq!(
            splits.left_out.lines(),
            [
                "2 rows left out, their class has no row in training: 1.csv:32 (\"unseen\"), 1.csv:60 (\"unseen\")"
            ]
        );
    }

    #[test]
    fn sets_that_cannot_be_split() {
        let message = |set: &TextSet| LabelledSplits::new(set, SHARES).unwrap_err().to_string();
        let one = TextSet::from_labelled((0..50).map(|i| (format!("text {i}"), "x")));
        assert_eq!(
            message(&one),
            "memory: only one class (\"x\") in the training data: classification needs two"
        );
        let few = TextSet::from_labelled([("a", "x")]);
        assert_eq!(
            message(&few),
            "memory: 1 texts leave 1 to train and 0 to validate on; raise data.valid or add texts"
        );
        let mut set = TextSet::from_labelled(rows(60));
        set.examples[4].label = None;
        assert_eq!(message(&set), "memory:5: has no label");
    }
}
