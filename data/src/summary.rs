//! What is trained on, in a few lines for the user. In: counts. Out: lines, and warnings.

use crate::tokens::CutTexts;
use crate::{LabelledSplits, LeftOut, TextSet, labels};

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
    /// Rows of validation and of the test that are looked at, where there may be more; 0 is all of them.
    pub limits: [usize; 2],
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
    /// What is to be said of files that are not read, a sentence each.
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
            unread: set.unread.clone(),
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
        if lines.len() > 1 {
            let total = self.left_out.total();
            lines.push(format!("{total} {}s left out in all", self.one()));
        }
        lines.extend(self.unread.iter().cloned());
        if let Some((cut, length)) = &self.cut
            && cut.texts > 0
        {
            lines.push(cut.line(*length));
        }
        if self.leaks > 0 {
            let rows = counted(self.leaks, self.one());
            let are = if self.leaks == 1 { "is" } else { "are" };
            lines.push(format!(
                "{rows} to validate or test on {are} trained on as well: scores will be too good"
            ));
        }
        lines.extend(self.alike.iter().map(|group| labels::alike_line(group)));
        lines
    }

    fn splits(&self) -> String {
        let Self { unit, train, .. } = self;
        let looked_at = |rows: usize, limit: usize| {
            if limit == 0 || limit >= rows {
                return rows.to_string();
            }
            format!("{limit} of {rows}")
        };
        let valid = looked_at(self.valid, self.limits[0]);
        let test = self.test.map(|test| looked_at(test, self.limits[1]));
        let test = test.map(|test| format!(", {test} test"));
        let test = test.unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitShares;

    #[test]
    fn the_lines_say_what_is_trained_on() {
        let summary = DataSummary {
            unit: "rows",
            train: 40,
            valid: 40,
            test: Some(40),
            classes: Some(ClassCounts {
                count: 15,
                smallest: "rare-03".into(),
                rows: 1,
            }),
            labels_of: Some(312),
            kept_in_training: 2,
            ..DataSummary::default()
        };
        assert_eq!(
            summary.lines(),
            [
                "rows: 40 train, 40 valid, 40 test; 15 classes, the smallest \"rare-03\" with 1 row; labels used 40 of 312",
                "2 rows of rare classes kept in training",
            ]
        );
        assert!(summary.warnings().is_empty());
        let plain = DataSummary {
            unit: "texts",
            train: 9,
            valid: 1,
            given: true,
            ..DataSummary::default()
        };
        assert_eq!(
            plain.lines(),
            ["texts: 9 train, 1 valid, as the files are given"]
        );
    }

    #[test]
    fn warnings_say_what_is_lost() {
        let mut left_out = LeftOut::default();
        left_out.add("\"text\" is empty", || "a.csv:59".into());
        let cut = CutTexts {
            texts: 57,
            of_texts: 60,
            tokens_lost: 969,
            of_tokens: 1000,
        };
        let summary = DataSummary {
            unit: "rows",
            left_out,
            cut: Some((cut, 64)),
            leaks: 1,
            alike: vec![vec!["Animal".into(), "animal".into()]],
            unread: vec!["left out 1 file: .md 1".into()],
            ..DataSummary::default()
        };
        assert_eq!(
            summary.warnings(),
            [
                "1 row left out, \"text\" is empty: a.csv:59",
                "left out 1 file: .md 1",
                "57 of 60 texts are cut to 64 tokens, 96.9 % of the tokens are lost",
                "1 row to validate or test on is trained on as well: scores will be too good",
                "classes \"Animal\" and \"animal\" differ in capitals or spaces alone",
            ]
        );
        let cut = Some((CutTexts { texts: 0, ..cut }, 64));
        let none = DataSummary {
            cut,
            ..DataSummary::default()
        };
        assert!(none.warnings().is_empty());
    }

    #[test]
    fn labelled_texts_are_counted_by_split_and_class() {
        let label = |i: usize| if i == 7 { "Rare" } else { ["a", "rare"][i % 2] };
        let set = TextSet::from_labelled((0..200).map(|i| (format!("text {i}"), label(i))));
        let shares = SplitShares {
            valid: 0.2,
            test: 0.1,
            seed: 1,
            labels: 50,
        };
        let splits = LabelledSplits::new(&set, shares).unwrap();
        let summary = DataSummary::of_labelled(&set, &splits);
        assert_eq!(
            (summary.train, summary.labels_of),
            (50, Some(splits.labelled))
        );
        let classes = summary.classes.unwrap();
        assert_eq!(
            (classes.count, classes.smallest.as_str(), classes.rows),
            (3, "Rare", 0)
        );
        assert_eq!(summary.alike, [["Rare", "rare"]]);
    }
}
