//! What is wrong with a data set. In: texts or images. Out: findings with their places.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clap::Args;
use data::bad_rows::Reason;
use data::split::Split;
use data::{Labels, LeftOut, TextTokenizer, WholeRows};
use serde::Serialize;
use train::Failure;
use train::job::image::{ImageRowSets, ImageRows};

use super::dedup::{check_share, first_of_each, normal_texts};
use super::describe::{self, TokenFlags};
use super::near::{self, Likeness, Role};
use super::progress::Progress;
use super::set::{self, Set, SourceFlags};
use super::{Outcome, counted};

/// Places that are named for each finding.
const PLACES: usize = 10;

/// Say what is wrong with a data set: bad rows, leaks between splits, labels that cannot be learned
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exits with 0 if nothing is found, with 1 if something is, with 2 if the source cannot be read.

Found are rows that can't be used, labels with one row, labels that are only validated or tested on, labels that differ in \
capitals or spaces alone, equal texts or images with different labels, what is in two splits (equal, or nearly equal texts; \
files that are named as splits are splits), and with --tokenizer texts that lose most of their tokens.

Examples:
  apps datasets validate reviews.csv --label-column stars
  apps datasets validate train.csv --valid-source valid.csv --test-source test.csv --label-column stars --json
  apps datasets validate notes.jsonl --tokenizer wordnet-bert-nano --max-length 64"
)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceFlags,
    /// What is validated on, where the source's own files do not say it; may be repeated
    #[arg(long, value_name = "PATH")]
    pub valid_source: Vec<String>,
    /// What is tested on; may be repeated
    #[arg(long, value_name = "PATH")]
    pub test_source: Vec<String>,
    /// Texts in two splits are nearly equal from this share of common pieces on, as dedup has it; 0 does not look for them
    #[arg(
        allow_negative_numbers = true,
        long,
        value_name = "SHARE",
        default_value = "0.8"
    )]
    pub near: f64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tokens: TokenFlags,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Rows or images that can't be used.
    BadRows,
    /// All rows have the same label.
    OneLabel,
    /// Labels with a single row.
    RareLabels,
    /// Labels without a row to train on.
    UntrainedLabels,
    /// Labels that differ in capitals or spaces alone.
    AlikeLabels,
    /// Equal texts or images with different labels.
    ConflictingLabels,
    /// Texts or images that are in two splits.
    Leaks,
    /// Texts that are nearly equal to one of another split.
    NearLeaks,
    /// Texts that lose most of their tokens.
    CutTexts,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of which kind.
    pub kind: Kind,
    /// What it is, with how much there is of it.
    pub what: String,
    /// How many rows, labels or texts.
    pub count: u64,
    /// The first ten of them.
    pub places: Vec<String>,
}

impl Finding {
    /// - what: the words after the count
    /// - places: all of them
    fn new(kind: Kind, count: usize, what: String, places: impl Iterator<Item = String>) -> Self {
        Self {
            kind,
            what,
            count: count as u64,
            places: places.take(PLACES).collect(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.what.clone()];
        lines.extend(self.places.iter().map(|place| format!("  {place}")));
        let more = self.count.saturating_sub(self.places.len() as u64);
        if more > 0 && !self.places.is_empty() {
            lines.push(format!("  and {more} more"));
        }
        lines
    }
}

/// What JSON holds.
#[derive(Serialize)]
struct Report<'a> {
    source: String,
    rows: usize,
    findings: &'a [Finding],
}

/// What is wrong with texts.
///
/// - near: the share of common pieces of nearly equal texts; `None` does not look for them
/// - tokens: a tokenizer, and the length at which texts are cut
///
/// # Errors
///
/// The tokenizer fails.
pub fn of_texts(
    rows: &WholeRows,
    near: Option<f64>,
    tokens: Option<&(TextTokenizer, Option<usize>)>,
) -> Result<Vec<Finding>, Failure> {
    let mut findings = bad_rows(&rows.left_out, "row");
    let labelled = (0..rows.len()).map(|row| LabelledRow {
        labels: &rows.rows[row].labels,
        is_trained: !matches!(rows.given_split(row), Some(Split::Valid | Split::Test)),
        row,
    });
    findings.extend(of_labels(&labelled.collect::<Vec<_>>(), |row| {
        rows.place(row)
    }));
    findings.extend(conflicts(rows));
    findings.extend(leaks(rows, near));
    if let Some((tokenizer, Some(max_length))) = tokens {
        findings.extend(cut_texts(rows, tokenizer, *max_length)?);
    }
    Ok(findings)
}

fn bad_rows(left_out: &LeftOut, one: &str) -> Vec<Finding> {
    let finding = |reason: &Reason| {
        let rows = counted(reason.count as usize, one);
        let what = format!("{rows} left out: {}", reason.name);
        let places = reason.places.iter().cloned();
        Finding::new(Kind::BadRows, reason.count as usize, what, places)
    };
    left_out.reasons().iter().map(finding).collect()
}

/// A row with its labels.
struct LabelledRow<'a> {
    labels: &'a [String],
    is_trained: bool,
    row: usize,
}

/// - place: of a row
fn of_labels(rows: &[LabelledRow], place: impl Fn(usize) -> String) -> Vec<Finding> {
    let mut known: BTreeMap<&String, (u64, bool, usize)> = BTreeMap::new();
    for one in rows {
        let labels: BTreeSet<&String> = one.labels.iter().collect();
        for label in labels {
            let entry = known.entry(label).or_insert((0, false, one.row));
            entry.0 += 1;
            entry.1 |= one.is_trained;
        }
    }
    // Scores with a fraction are numbers, and no classes.
    let numbers: Option<Vec<f64>> = known.keys().map(|label| label.parse().ok()).collect();
    if numbers.is_some_and(|numbers| numbers.iter().any(|number| number.fract() != 0.0)) {
        return vec![];
    }
    let mut findings = Vec::new();
    if let (Some(label), 1) = (known.keys().next(), known.len())
        && rows.iter().all(|row| row.labels.len() == 1)
    {
        let what = format!("all rows have the label \"{label}\": there is nothing to tell apart");
        findings.push(Finding::new(Kind::OneLabel, 1, what, std::iter::empty()));
    }
    let named = |kind, what: &str, of: &dyn Fn(u64, bool) -> bool| {
        let there = known
            .iter()
            .filter(|(_, (count, trained, _))| of(*count, *trained));
        let places: Vec<String> = there
            .map(|(label, (_, _, row))| format!("\"{label}\": {}", place(*row)))
            .collect();
        let labels = counted(places.len(), "label");
        let n = places.len();
        (n > 0).then(|| Finding::new(kind, n, format!("{labels} {what}"), places.into_iter()))
    };
    let rare = named(Kind::RareLabels, "with one row", &|count, _| count == 1);
    findings.extend(rare);
    let untrained = "without a row to train on";
    findings.extend(named(Kind::UntrainedLabels, untrained, &|_, trained| {
        !trained
    }));
    findings.extend(alike(known.keys().map(|label| label.as_str())));
    findings
}

fn alike<'a>(labels: impl Iterator<Item = &'a str>) -> Option<Finding> {
    // Without two labels there are none that are alike.
    let groups = Labels::in_order(&[], labels).ok()?.alike();
    let n = groups.len();
    let groups = groups.into_iter().map(|group| {
        let names = group.iter().map(|name| format!("\"{name}\""));
        names.collect::<Vec<_>>().join(", ")
    });
    let what = format!(
        "{} of labels differ in capitals or spaces alone",
        counted(n, "group")
    );
    (n > 0).then(|| Finding::new(Kind::AlikeLabels, n, what, groups))
}

fn conflicts(rows: &WholeRows) -> Option<Finding> {
    let mut groups = describe::equal_rows(rows);
    groups.retain(|group| describe::differ(rows, group));
    let n = groups.len();
    let places = groups.iter().map(|group| {
        let row = |&row: &usize| {
            let labels = rows.rows[row].labels.join(", ");
            format!("{} \"{labels}\"", rows.place(row))
        };
        let shown: Vec<String> = group.iter().take(3).map(row).collect();
        shown.join("; ")
    });
    let what = format!("{} with different labels", counted(n, "text"));
    (n > 0).then(|| Finding::new(Kind::ConflictingLabels, n, what, places))
}

/// The order of the splits: what is in one is not to be in a later one.
fn rank(split: Option<Split>) -> usize {
    match split {
        None | Some(Split::Train) => 0,
        Some(Split::Valid) => 1,
        Some(Split::Test) => 2,
    }
}

/// Texts to validate or test on that are in an earlier split too.
fn leaks(rows: &WholeRows, near: Option<f64>) -> Vec<Finding> {
    if rows.given.is_empty() {
        return vec![];
    }
    // Splits one after the other, so that whatever is like a row of another split comes before it or after it as a whole.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| rank(rows.given_split(row)));
    let all = normal_texts(rows);
    let texts: Vec<String> = order.iter().map(|&row| all[row].clone()).collect();
    let ranks: Vec<usize> = order
        .iter()
        .map(|&row| rank(rows.given_split(row)))
        .collect();
    let first = first_of_each(&texts);
    let equal: Vec<(usize, usize)> = (0..texts.len())
        .filter(|&at| ranks[first[at]] < ranks[at])
        .map(|at| (at, first[at]))
        .collect();
    let place = |at: usize| rows.place(order[at]);
    let mut findings = Vec::new();
    if !equal.is_empty() {
        let are = format!(
            "{} to validate or test on in an earlier split as well: scores will be too good",
            counted(equal.len(), "row")
        );
        let places = equal
            .iter()
            .map(|&(at, like)| format!("{} as {}", place(at), place(like)));
        findings.push(Finding::new(Kind::Leaks, equal.len(), are, places));
    }
    if let Some(threshold) = near {
        let near = near_leaks(&texts, &ranks, &first, threshold);
        let what = format!(
            "{} to validate or test on nearly equal to one of an earlier split",
            counted(near.len(), "row")
        );
        let places = near.iter().map(|near| {
            let (row, like) = (place(near.row), place(near.like));
            format!("{row} as {like}, {:.2} alike", near.likeness)
        });
        if !near.is_empty() {
            findings.push(Finding::new(Kind::NearLeaks, near.len(), what, places));
        }
    }
    findings
}

/// Of a split those that are nearly equal, but not equal, to a text of an earlier one.
///
/// - texts: normal ones, split after split
/// - first: of each the first that is equal
fn near_leaks(
    texts: &[String],
    ranks: &[usize],
    first: &[usize],
    threshold: f64,
) -> Vec<near::Near> {
    let likeness = Likeness {
        threshold,
        words: None,
    };
    let mut progress = Progress::new("comparing");
    let mut found = Vec::new();
    for asked in [1, 2] {
        let role = |row: usize| {
            if ranks[row] < asked && first[row] == row {
                Role::Known
            } else if ranks[row] == asked && ranks[first[row]] == asked {
                Role::Asked
            } else {
                Role::Ignored
            }
        };
        if ranks.contains(&asked) {
            found.extend(near::nearest(texts, likeness, role, &mut |row| {
                progress.at(row, Some(texts.len()));
            }));
        }
    }
    found
}

/// Texts of which less than half is left.
fn cut_texts(
    rows: &WholeRows,
    tokenizer: &TextTokenizer,
    max_length: usize,
) -> Result<Option<Finding>, Failure> {
    let lengths = describe::token_lengths(rows, tokenizer)?;
    let cut: Vec<usize> = (0..rows.len())
        .filter(|&row| lengths[row] > 2 * max_length as u64)
        .collect();
    let what = format!(
        "{} of more than twice {max_length} tokens, of which most is cut",
        counted(cut.len(), "text")
    );
    let places = cut
        .iter()
        .map(|&row| format!("{}: {} tokens", rows.place(row), lengths[row]));
    Ok((!cut.is_empty()).then(|| Finding::new(Kind::CutTexts, cut.len(), what, places)))
}

/// What is wrong with images.
pub fn of_images(sets: &ImageRowSets, seed: u64) -> Vec<Finding> {
    let mut findings = bad_rows(&sets.left_out, "image");
    let splits = set::splits(sets);
    let mut images: Vec<(usize, &ImageRows, usize)> = Vec::new();
    for (rank, (_, split)) in splits.iter().enumerate() {
        images.extend((0..split.len()).map(|row| (rank, *split, row)));
    }
    let classes: Vec<Vec<String>> = images
        .iter()
        .map(|(_, split, row)| set::classes(split, *row))
        .collect();
    let place = |at: usize| {
        let (_, split, row) = images[at];
        split.place(row)
    };
    let labelled = classes.iter().enumerate().map(|(row, labels)| LabelledRow {
        labels,
        is_trained: images[row].0 == 0,
        row,
    });
    findings.extend(of_labels(&labelled.collect::<Vec<_>>(), place));
    let contents = splits.iter().flat_map(|(_, split)| split.contents(seed));
    let mut known: HashMap<[u8; 32], usize> = HashMap::new();
    let first: Vec<usize> = contents
        .enumerate()
        .map(|(at, content)| *known.entry(content).or_insert(at))
        .collect();
    let differ = |group: &Vec<usize>| group.iter().any(|&at| classes[at] != classes[group[0]]);
    let mut groups = describe::groups(&first);
    groups.retain(differ);
    if !groups.is_empty() {
        let n = groups.len();
        let places = groups.iter().map(|group| {
            let shown = group.iter().take(3).map(|&at| place(at));
            shown.collect::<Vec<_>>().join("; ")
        });
        let what = format!("{} with different labels", counted(n, "image"));
        findings.push(Finding::new(Kind::ConflictingLabels, n, what, places));
    }
    let leaks: Vec<usize> = (0..images.len())
        .filter(|&at| images[first[at]].0 < images[at].0)
        .collect();
    if !leaks.is_empty() {
        let n = leaks.len();
        let places = leaks
            .iter()
            .map(|&at| format!("{} as {}", place(at), place(first[at])));
        let what = format!(
            "{} to validate or test on in an earlier split as well: scores will be too good",
            counted(n, "image")
        );
        findings.push(Finding::new(Kind::Leaks, n, what, places));
    }
    findings
}

/// Says what is wrong with what the flags name.
///
/// # Errors
///
/// A source that cannot be read.
pub fn run(flags: &Flags) -> Result<Outcome, Failure> {
    if flags.near != 0.0 {
        check_share("--near", flags.near)?;
    }
    let tokens = flags.tokens.open()?;
    if let Some((_, None)) = &tokens {
        return Err(Failure::input(
            "--tokenizer says no longest text; --max-length names it",
        ));
    }
    let set = flags
        .source
        .read_splits(&flags.valid_source, &flags.test_source, 0)?;
    let (rows, unit, findings) = match &set {
        Set::Texts(rows) => {
            let near = (flags.near > 0.0).then_some(flags.near);
            (rows.len(), "row", of_texts(rows, near, tokens.as_ref())?)
        }
        Set::Images(sets) => {
            let images = set::splits(sets).iter().map(|(_, split)| split.len()).sum();
            (images, "image", of_images(sets, 0))
        }
    };
    let source = flags.source.name();
    let text = if flags.json {
        super::json(&Report {
            source,
            rows,
            findings: &findings,
        })?
    } else {
        let mut lines: Vec<String> = findings.iter().flat_map(Finding::lines).collect();
        let found = match findings.len() {
            0 => "nothing is wrong".into(),
            n => counted(n, "finding"),
        };
        lines.push(format!("{source}: {}, {found}", counted(rows, unit)));
        lines.join("\n") + "\n"
    };
    Ok(Outcome {
        text,
        is_fine: findings.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::WholeRow;

    const NIGHT: &str = "a small bird that sings at night in the woods of the north";
    const NIGHT_SOUTH: &str = "a small bird that sings at night in the woods of the south";

    /// Rows of `train`, `valid` and `test`: the file's number, text and label.
    fn rows(rows: &[(u32, &str, &str)]) -> WholeRows {
        let row = |(line, (file, text, label)): (usize, &(u32, &str, &str))| WholeRow {
            fields: serde_json::Map::new(),
            texts: vec![text.to_string()],
            labels: vec![label.to_string()],
            line,
            file: *file,
        };
        WholeRows {
            rows: rows.iter().enumerate().map(row).collect(),
            files: ["train", "valid", "test"].map(Into::into).to_vec(),
            given: vec![Split::Train, Split::Valid, Split::Test],
            ..WholeRows::default()
        }
    }

    fn found(set: &WholeRows, near: Option<f64>) -> Vec<(Kind, u64, String)> {
        let findings = of_texts(set, near, None).unwrap();
        let first = |finding: &Finding| finding.places.first().cloned().unwrap_or_default();
        findings
            .iter()
            .map(|finding| (finding.kind, finding.count, first(finding)))
            .collect()
    }

    #[test]
    fn what_is_in_two_splits_is_found() {
        let set = rows(&[
            (0, NIGHT, "x"),
            (0, "another text", "y"),
            (1, "Another  TEXT", "y"),
            (1, NIGHT_SOUTH, "x"),
            (2, "another text", "y"),
            (2, "a third one", "x"),
        ]);
        let (equal, near) = ("valid:2 as train:1", "valid:3 as train:0, 0.83 alike");
        assert_eq!(
            found(&set, Some(0.8)),
            [
                (Kind::Leaks, 2, equal.to_string()),
                (Kind::NearLeaks, 1, near.to_string())
            ]
        );
        assert_eq!(found(&set, None).len(), 1);
        let whole = WholeRows {
            given: vec![],
            ..set
        };
        assert!(found(&whole, Some(0.8)).is_empty());
    }

    #[test]
    fn labels_that_cannot_be_learned_are_found() {
        let set = rows(&[
            (0, "a", "x"),
            (0, "b", "x"),
            (0, "c", "X"),
            (0, "d", "X"),
            (1, "e", "rare"),
            (2, "a", "X"),
        ]);
        let names: Vec<_> = found(&set, None);
        let kinds: Vec<Kind> = names.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(
            kinds,
            [
                Kind::RareLabels,
                Kind::UntrainedLabels,
                Kind::AlikeLabels,
                Kind::ConflictingLabels,
                Kind::Leaks
            ]
        );
        assert_eq!(names[0].2, "\"rare\": valid:4");
        assert_eq!(names[2].2, "\"X\", \"x\"");
        assert_eq!(names[3].2, "train:0 \"x\"; test:5 \"X\"");
        let one = rows(&[(0, "a", "x"), (0, "b", "x")]);
        assert_eq!(found(&one, None)[0].0, Kind::OneLabel);
    }

    #[test]
    fn only_the_first_places_are_named() {
        let finding = Finding::new(
            Kind::BadRows,
            12,
            "12 rows".into(),
            (0..12).map(|row| row.to_string()),
        );
        let lines = finding.lines();
        assert_eq!((lines.len(), lines[11].as_str()), (12, "  and 2 more"));
    }

    #[test]
    fn scores_are_no_labels() {
        let scores: Vec<String> = (0..20).map(|i| format!("{}.5", i)).collect();
        let texts: Vec<String> = (0..20).map(|i| format!("text {i}")).collect();
        let scored: Vec<(u32, &str, &str)> = (0..20)
            .map(|i| (0, texts[i].as_str(), scores[i].as_str()))
            .collect();
        assert!(found(&rows(&scored), None).is_empty());
    }
}
