//! What is trained on, in a few lines for the user. In: counts. Out: lines, and warnings.

use crate::tokens::CutTexts;
use crate::{LabelledSplits, LeftOut, TextSet};

/// Counts of the data of a run; what does not apply is left at its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataSummary {
    /// What a row is: `rows`, `texts` or `images`.
    pub unit: &'static str,
    /// To train on.
    pub train: usize,
    /// To choose a checkpoint by.
    pub valid: usize,
    /// To report; `None` where there is no such split.
    pub test: Option<usize>,
    /// Whether files were given as splits.
    pub given: bool,
    /// Of a classification.
    pub classes: Option<ClassCounts>,
    /// Training rows that have a label, where not all of them are used.
    pub labels_of: Option<usize>,
    /// Rows that are trained on because their class would have none there.
    pub kept_in_training: usize,
    /// Training texts that are longer than a sequence, and the length of one in tokens.
    pub cut: Option<(CutTexts, usize)>,
    /// Rows and files that are not used, by reason.
    pub left_out: LeftOut,
    /// Rows that are given to validate or test on, and are trained on as well.
    pub leaks: usize,
    /// Groups of classes whose names differ in capitals or white space alone.
    pub alike: Vec<Vec<String>>,
    /// Files beside given splits that are not read.
    pub unread: Vec<String>,
}

/// Classes and the smallest of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// How many.
    pub count: usize,
    /// Name of the class with the fewest training rows, the first of them in order.
    pub smallest: String,
    /// Its training rows.
    pub rows: usize,
}

impl ClassCounts {
    /// - names: in the order of class ids
    /// - classes: of each training row
    ///
    /// # Panics
    /// If a class has no name.
    pub fn of(names: &[String], classes: impl IntoIterator<Item = u32>) -> Self {
        let mut counts = vec![0; names.len()];
        for class in classes {
            counts[class as usize] += 1;
        }
        let smallest = (0..counts.len()).min_by_key(|&class| counts[class]);
        Self {
            count: names.len(),
            smallest: smallest
                .map(|class| names[class].clone())
                .unwrap_or_default(),
            rows: smallest.map_or(0, |class| counts[class]),
        }
    }
}

impl DataSummary {
    /// That of labelled texts.
    pub fn of_labelled(set: &TextSet, splits: &LabelledSplits) -> Self {
        let label = |&row: &usize| set.examples[row].label.as_deref();
        let class = |row| label(row).and_then(|label| splits.labels.index(label));
        let classes = splits.train.iter().filter_map(class);
        let mut left_out = set.left_out.clone();
        left_out.merge(splits.left_out.clone());
        Self {
            unit: "rows",
            train: splits.train.len(),
            valid: splits.valid.len(),
            test: Some(splits.test.len()),
            given: !set.given.is_empty(),
            classes: Some(ClassCounts::of(splits.labels.names(), classes)),
            labels_of: (splits.train.len() < splits.labelled).then_some(splits.labelled),
            kept_in_training: splits.kept_in_training,
            left_out,
            leaks: splits.leaks,
            alike: splits.labels.alike(),
            ..Self::default()
        }
    }

    /// What the data are: `rows: 160 train, 40 valid, 40 test; 15 classes, the smallest "rare-03" with 1 row`.
    pub fn lines(&self) -> Vec<String> {
        let mut parts = vec![self.splits()];
        if let Some(classes) = &self.classes {
            let ClassCounts {
                count,
                smallest,
                rows,
            } = classes;
            let rows = counted(*rows, self.one());
            parts.push(format!(
                "{count} classes, the smallest \"{smallest}\" with {rows}"
            ));
        }
        if let Some(all) = self.labels_of {
            parts.push(format!("labels used {} of {all}", self.train));
        }
        let mut lines = vec![parts.join("; ")];
        if self.kept_in_training > 0 {
            let rows = counted(self.kept_in_training, self.one());
            lines.push(format!("{rows} of rare classes kept in training"));
        }
        lines
    }

    /// What the user should know before it is too late, a sentence each: what is cut, left out, alike or leaks.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = self.left_out.lines();
        if !self.unread.is_empty() {
            let (files, names) = (counted(self.unread.len(), "file"), self.unread.join(", "));
            lines.push(format!("{files} beside the given splits left out: {names}"));
        }
        if let Some((cut, length)) = &self.cut
            && cut.texts > 0
        {
            lines.push(cut.line(*length));
        }
        if self.leaks > 0 {
            let rows = counted(self.leaks, self.one());
            lines.push(format!(
                "{rows} to validate or test on are trained on as well: scores will be too good"
            ));
        }
        for group in &self.alike {
            let names: Vec<_> = group.iter().map(|name| format!("\"{name}\"")).collect();
            let names = names.join(" and ");
            lines.push(format!(
                "classes {names} differ in capitals or spaces alone"
            ));
        }
        lines
    }

    fn splits(&self) -> String {
        let Self {
            unit, train, valid, ..
        } = self;
        let test = self
            .test
            .map(|test| format!(", {test} test"))
            .unwrap_or_default();
        let given = if self.given {
            ", as the files are given"
        } else {
            ""
        };
        format!("{unit}: {train} train, {valid} valid{test}{given}")
    }

    fn one(&self) -> &str {
        self.unit.strip_suffix('s').unwrap_or(self.unit)
    }
}

/// `1 row`, `2 rows`
fn counted(count: usize, one: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {one}{plural}")
}
