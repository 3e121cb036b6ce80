//! What a data set holds. In: texts or images. Out: counts, lengths, labels, duplicates, as text, JSON or a picture.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use clap::Args;
use data::bad_rows::Reason;
use data::split::Split;
use data::{Statistics, TextTokenizer, WholeRow, WholeRows};
use serde::Serialize;
use serde_json::Value;
use train::job::image::{ImageRowSets, ImageRows};
use train::job::text::bundle_tokenizer;
use train::report::bars::{Bars, bars_svg};
use train::{Failure, FailureKind};

use super::progress::Progress;
use super::set::{self, Set, SourceFlags};
use super::{dedup, peek, samples};
use crate::open;

/// Bars of a chart of labels or sizes, at most.
const MOST_BARS: usize = 30;
/// Bars of a chart of lengths.
const LENGTH_BARS: usize = 10;
/// Texts that are tokenized at a time.
const CHUNK: usize = 1 << 12;
/// Images that are drawn.
const DRAWN: usize = 64;

/// Say what a data set holds: rows, columns, lengths, labels, duplicates, sizes of images
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  apps datasets describe wordnet-nouns --tokenizer wordnet-bert-nano --max-length 64 --plot nouns.svg
  apps datasets describe photos/ --picture photos.png
  apps datasets describe pairs.jsonl --column first,second --label-column label --json")]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tokens: TokenFlags,
    /// Draw lengths and labels of texts (.svg), or samples of images with their classes, boxes or masks (.png)
    #[arg(long, visible_alias = "picture", value_name = "FILE.svg|.png")]
    pub plot: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// How texts are tokenized.
#[derive(Args, Clone, Debug)]
pub struct TokenFlags {
    /// Count tokens by this tokenizer: a bundle or a run, or a tokenizer.json
    #[arg(long, value_name = "DIR_OR_FILE")]
    pub tokenizer: Option<String>,
    /// Tokens of the longest text, special ones counted: longer ones are cut [default: what the bundle says, if it does]
    #[arg(long, value_name = "N", requires = "tokenizer")]
    pub max_length: Option<std::num::NonZeroUsize>,
}

impl TokenFlags {
    /// The tokenizer, and the length at which texts are cut; `None` without one.
    ///
    /// # Errors
    ///
    /// A bundle without a tokenizer, or a file that is none.
    pub fn open(&self) -> Result<Option<(TextTokenizer, Option<usize>)>, Failure> {
        let Some(name) = &self.tokenizer else {
            return Ok(None);
        };
        let path = std::path::Path::new(name);
        let tokenizer = if path.is_file() {
            TextTokenizer::load(path)?
        } else {
            bundle_tokenizer(&open::bundle(name)?)?
        };
        let length = self.max_length.map(usize::from);
        let length = length.or(tokenizer.max_length());
        Ok(Some((tokenizer, length)))
    }
}

/// What a set of texts holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextDescription {
    /// The files, or the bundled set.
    pub files: Vec<String>,
    /// Rows with a text, and with a label where labels are read.
    pub rows: usize,
    /// Of these, where files are given as splits: train, valid, test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub splits: Option<[usize; 3]>,
    /// Rows without, or that can't be read.
    pub left_out: Vec<Reason>,
    /// All fields of rows.
    pub columns: Vec<ColumnDescription>,
    /// Lengths in characters.
    pub characters: Lengths,
    /// Lengths in tokens, with a tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Lengths>,
    /// What is lost of long texts, where they are cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// Rows of each label, the most frequent first; empty without labels.
    pub labels: Vec<(String, u64)>,
    /// Texts that are there more than once.
    pub duplicates: Duplicates,
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnDescription {
    /// Of the field.
    pub name: String,
    /// Rows in which it is not there, or null.
    pub missing: usize,
    /// Rows in which it is an empty text or list.
    pub empty: usize,
}

/// Lengths of texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// Of all together.
    pub total: u64,
    /// On average.
    pub mean: f64,
    /// Of the shortest.
    pub min: u64,
    /// Half of the texts are no longer.
    pub p50: u64,
    /// Nine of ten are no longer.
    pub p90: u64,
    /// 95 of 100 are no longer.
    pub p95: u64,
    /// 99 of 100 are no longer.
    pub p99: u64,
    /// Of the longest.
    pub max: u64,
    /// From which length to which, and how many texts are so long.
    pub histogram: Vec<(u64, u64, u64)>,
}

impl Lengths {
    /// # Panics
    ///
    /// Without any length.
    pub fn of(mut lengths: Vec<u64>) -> Self {
        lengths.sort_unstable();
        let n = lengths.len();
        let total: u64 = lengths.iter().sum();
        // The nearest rank: the first length that this share of all does not exceed.
        let at = |percent: usize| lengths[(n * percent).div_ceil(100).max(1) - 1];
        Self {
            total,
            mean: total as f64 / n as f64,
            min: lengths[0],
            p50: at(50),
            p90: at(90),
            p95: at(95),
            p99: at(99),
            max: lengths[n - 1],
            histogram: histogram(&lengths, at(99)),
        }
    }

    fn line(&self) -> String {
        let Self {
            mean,
            min,
            p50,
            p90,
            p95,
            p99,
            max,
            ..
        } = self;
        format!(
            "{min} to {max}, mean {mean:.1}; half up to {p50}, 90 % {p90}, 95 % {p95}, 99 % {p99}"
        )
    }

    fn bars(&self, title: &str) -> Bars {
        let name = |from: u64, to: u64| {
            if from == to {
                from.to_string()
            } else {
                format!("{from} to {to}")
            }
        };
        let bars = self.histogram.iter();
        Bars {
            title: title.into(),
            bars: bars
                .map(|&(from, to, count)| (name(from, to), count))
                .collect(),
        }
    }
}

/// Bars of one width that hold nearly all, and one of what is longer.
///
/// - lengths: sorted
/// - most: of nearly all
fn histogram(lengths: &[u64], most: u64) -> Vec<(u64, u64, u64)> {
    let least = (most + 1).div_ceil(LENGTH_BARS as u64);
    // 1, 2 or 5 times a power of ten.
    let powers = (0..19).map(|power| 10_u64.pow(power));
    let mut widths = powers.flat_map(|power| [1, 2, 5].map(|digit| power.saturating_mul(digit)));
    let width = widths.find(|&width| width >= least).unwrap_or(least);
    let mut bars: Vec<(u64, u64, u64)> = (0..=most / width)
        .map(|bar| (bar * width, bar * width + width - 1, 0))
        .collect();
    let end = bars.len() as u64 * width;
    for &length in lengths {
        match bars.get_mut((length / width) as usize) {
            Some(bar) => bar.2 += 1,
            None => {
                let longer = lengths.iter().filter(|&&length| length >= end).count();
                bars.push((end, lengths[lengths.len() - 1], longer as u64));
                break;
            }
        }
    }
    bars
}

/// What is lost of texts that are too long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cut {
    /// Tokens of the longest text.
    pub max_length: usize,
    /// Texts that are longer.
    pub texts: usize,
    /// Their share of all texts.
    pub share: f64,
    /// The share of all tokens that is lost.
    pub tokens_lost: f64,
}

impl Cut {
    /// - lengths: in tokens
    pub fn of(lengths: &[u64], max_length: usize) -> Self {
        let lost = lengths
            .iter()
            .map(|length| length.saturating_sub(max_length as u64));
        let texts = lost.clone().filter(|&lost| lost > 0).count();
        let all: u64 = lengths.iter().sum();
        Self {
            max_length,
            texts,
            share: texts as f64 / lengths.len().max(1) as f64,
            tokens_lost: lost.sum::<u64>() as f64 / all.max(1) as f64,
        }
    }
}

/// Texts that are there more than once, but for capitals and white space, as splits compare them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Different ones of them.
    pub texts: usize,
    /// Rows beside the first of each.
    pub rows: usize,
    /// Texts that have different labels in different rows.
    pub conflicting: usize,
}

impl Duplicates {
    /// - names: of rows, and of what they hold
    fn lines(&self, [rows, texts]: [&str; 2], has_labels: bool) -> Vec<String> {
        let mut lines = vec![format!(
            "duplicates  {} {rows} of {} {texts}",
            self.rows, self.texts
        )];
        if has_labels {
            let conflicting = self.conflicting;
            lines.push(format!(
                "conflicts   {conflicting} {texts} with different labels"
            ));
        }
        lines
    }
}

/// Lengths of texts in tokens, special ones counted.
///
/// # Errors
///
/// The tokenizer fails.
pub fn token_lengths(rows: &WholeRows, tokenizer: &TextTokenizer) -> Result<Vec<u64>, Failure> {
    fn pair(row: &WholeRow) -> (&str, Option<&str>) {
        (&row.texts[0], Some(&row.texts[1]))
    }
    let mut progress = Progress::new("tokenizing");
    let mut lengths = Vec::with_capacity(rows.len());
    for chunk in rows.rows.chunks(CHUNK) {
        match rows.rows.first().map(|row| row.texts.len()) {
            Some(2) => {
                let pairs: Vec<_> = chunk.iter().map(pair).collect();
                let encoded = tokenizer.encode_parts(&pairs, usize::MAX)?;
                lengths.extend(encoded.iter().map(|pair| pair.ids.len() as u64));
            }
            _ => {
                let texts: Vec<String> = chunk.iter().map(WholeRow::text).collect();
                let encoded = tokenizer.encode(&texts, usize::MAX)?;
                lengths.extend(encoded.iter().map(|ids| ids.len() as u64));
            }
        }
        progress.at(lengths.len(), Some(rows.len()));
    }
    Ok(lengths)
}

impl TextDescription {
    /// Describes texts.
    ///
    /// - tokens: a tokenizer, and the length at which texts are cut
    ///
    /// # Errors
    ///
    /// The tokenizer fails.
    ///
    /// # Panics
    ///
    /// Without any row.
    pub fn of(
        rows: &WholeRows,
        tokens: Option<&(TextTokenizer, Option<usize>)>,
    ) -> Result<Self, Failure> {
        let lengths = match tokens {
            Some((tokenizer, _)) => Some(token_lengths(rows, tokenizer)?),
            None => None,
        };
        let max_length = tokens.and_then(|(_, length)| *length);
        let cut = lengths.as_ref().zip(max_length);
        let characters = rows
            .rows
            .iter()
            .map(|row| row.text().chars().count() as u64);
        let of_split = |split| {
            let rows = (0..rows.len()).filter(|&row| rows.given_split(row) == Some(split));
            rows.count()
        };
        let files = rows.files.iter();
        Ok(Self {
            files: files.map(|file| file.display().to_string()).collect(),
            rows: rows.len(),
            splits: (!rows.given.is_empty())
                .then(|| [Split::Train, Split::Valid, Split::Test].map(of_split)),
            left_out: rows.left_out.reasons().to_vec(),
            columns: rows.columns.iter().map(|name| column(rows, name)).collect(),
            characters: Lengths::of(characters.collect()),
            cut: cut.map(|(lengths, most)| Cut::of(lengths, most)),
            tokens: lengths.map(Lengths::of),
            labels: label_counts(rows.rows.iter().flat_map(|row| &row.labels)),
            duplicates: duplicates(rows),
        })
    }

    /// As people read it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("rows        {}", self.rows)];
        if let Some([train, valid, test]) = self.splits {
            lines.push(format!(
                "splits      {train} train, {valid} valid, {test} test"
            ));
        }
        let files = match self.files.as_slice() {
            [file] => file.clone(),
            files => format!("{} files", files.len()),
        };
        lines.push(format!("read from   {files}"));
        let columns = self.columns.iter().map(ColumnDescription::phrase);
        lines.push(format!(
            "columns     {}",
            columns.collect::<Vec<_>>().join(", ")
        ));
        for Reason { name, count, .. } in &self.left_out {
            lines.push(format!("left out    {count}, {name}"));
        }
        lines.push(format!("characters  {}", self.characters.line()));
        if let Some(tokens) = &self.tokens {
            lines.push(format!("tokens      {}", tokens.line()));
        }
        if let Some(cut) = &self.cut {
            lines.push(format!(
                "cut         {} texts ({:.1} %) to {} tokens, {:.1} % of the tokens are lost",
                cut.texts,
                100.0 * cut.share,
                cut.max_length,
                100.0 * cut.tokens_lost
            ));
        }
        let has_labels = !self.labels.is_empty();
        lines.extend(self.duplicates.lines(["rows", "texts"], has_labels));
        for chart in self.charts() {
            lines.extend([String::new(), chart.title.clone()]);
            lines.extend(chart.lines().iter().map(|line| format!("  {line}")));
        }
        lines
    }

    /// Lengths and labels.
    pub fn charts(&self) -> Vec<Bars> {
        let lengths = match &self.tokens {
            Some(tokens) => tokens.bars("tokens"),
            None => self.characters.bars("characters"),
        };
        let mut charts = vec![lengths];
        charts.extend(label_bars(&self.labels));
        charts
    }
}

impl ColumnDescription {
    fn phrase(&self) -> String {
        let Self {
            name,
            missing,
            empty,
        } = self;
        let counts = [(*missing, "missing"), (*empty, "empty")];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if counts.is_empty() {
            return name.clone();
        }
        format!("{name} ({})", counts.join(", "))
    }
}

fn column(rows: &WholeRows, name: &str) -> ColumnDescription {
    let mut column = ColumnDescription {
        name: name.into(),
        missing: 0,
        empty: 0,
    };
    for row in &rows.rows {
        match row.fields.get(name) {
            None | Some(Value::Null) => column.missing += 1,
            Some(Value::String(text)) if text.trim().is_empty() => column.empty += 1,
            Some(Value::Array(items)) if items.is_empty() => column.empty += 1,
            Some(_) => {}
        }
    }
    column
}

/// How often each label occurs, the most frequent first and equal ones by name.
pub(super) fn label_counts<'a>(labels: impl Iterator<Item = &'a String>) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<&String, u64> = BTreeMap::new();
    labels.for_each(|label| *counts.entry(label).or_default() += 1);
    let counts = counts.into_iter();
    let mut counts: Vec<_> = counts
        .map(|(label, count)| (label.clone(), count))
        .collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// A chart of labels, of many the most frequent; nothing without labels.
fn label_bars(labels: &[(String, u64)]) -> Option<Bars> {
    let shown = labels.len().min(MOST_BARS);
    let title = match labels.len() {
        0 => return None,
        all if all > shown => format!("labels: {all}, the {shown} most frequent"),
        all => format!("labels: {all}"),
    };
    Some(Bars {
        title,
        bars: labels[..shown].to_vec(),
    })
}

fn duplicates(rows: &WholeRows) -> Duplicates {
    let groups = equal_rows(rows);
    Duplicates {
        texts: groups.len(),
        rows: groups.iter().map(|group| group.len() - 1).sum(),
        conflicting: groups.iter().filter(|group| differ(rows, group)).count(),
    }
}

/// Rows of equal texts, as splits compare them: groups of two or more, in the order of their first.
pub(super) fn equal_rows(rows: &WholeRows) -> Vec<Vec<usize>> {
    groups(&dedup::first_of_each(&rows.keys()))
}

/// Groups of two or more rows.
///
/// - first: of each row the first that is equal to it
pub(super) fn groups(first: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
    for (row, first) in first.iter().enumerate() {
        groups.entry(*first).or_default().push(row);
    }
    let mut groups: Vec<_> = groups
        .into_values()
        .filter(|group| group.len() > 1)
        .collect();
    groups.sort_unstable();
    groups
}

/// Whether these rows have different labels.
pub(super) fn differ(rows: &WholeRows, group: &[usize]) -> bool {
    let labels = |row: usize| {
        let mut labels = rows.rows[row].labels.clone();
        // Those of a set have no order; tags of equal texts have one, and differ in their counts mostly.
        labels.sort_unstable();
        labels
    };
    group[1..]
        .iter()
        .any(|&row| labels(row) != labels(group[0]))
}

/// What a set of images holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageDescription {
    /// Images of all splits.
    pub images: usize,
    /// Train, valid, test, where they are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub splits: Option<[usize; 3]>,
    /// Files or rows that can't be read.
    pub left_out: Vec<Reason>,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Height and width, and how many images have them, the most frequent first.
    pub sizes: Vec<([usize; 2], u64)>,
    /// Of each channel, pixels from 0 to 1, over the images to train on.
    pub mean: Vec<f64>,
    /// The standard deviation of each channel.
    pub std: Vec<f64>,
    /// Images of each class, or boxes, the most frequent first; empty without classes.
    pub labels: Vec<(String, u64)>,
    /// Images that are there more than once.
    pub duplicates: Duplicates,
}

impl ImageDescription {
    /// Describes images.
    ///
    /// # Panics
    ///
    /// Without any image to train on.
    pub fn of(sets: &ImageRowSets) -> Self {
        let splits = set::splits(sets);
        let len = |split: Option<&ImageRows>| split.map_or(0, ImageRows::len);
        let is_given = sets.valid.is_some() || sets.test.is_some();
        let counts = [
            sets.train.len(),
            len(sets.valid.as_ref()),
            len(sets.test.as_ref()),
        ];
        let mut sizes: BTreeMap<[usize; 2], u64> = BTreeMap::new();
        let mut labels = Vec::new();
        for (_, images) in &splits {
            for row in 0..images.len() {
                *sizes.entry(images.size(row)).or_default() += 1;
                labels.extend(set::classes(images, row));
            }
        }
        let mut sizes: Vec<_> = sizes.into_iter().collect();
        sizes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let Statistics { mean, std } = sets.train.statistics();
        Self {
            images: counts.iter().sum(),
            splits: is_given.then_some(counts),
            left_out: sets.left_out.reasons().to_vec(),
            channels: sets.train.shape()[0],
            sizes,
            mean,
            std,
            labels: label_counts(labels.iter()),
            duplicates: equal_images(&splits),
        }
    }

    /// As people read it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("images      {}", self.images)];
        if let Some([train, valid, test]) = self.splits {
            lines.push(format!(
                "splits      {train} train, {valid} valid, {test} test"
            ));
        }
        for Reason { name, count, .. } in &self.left_out {
            lines.push(format!("left out    {count}, {name}"));
        }
        let colours = if self.channels == 1 { "grey" } else { "RGB" };
        lines.push(format!("channels    {} ({colours})", self.channels));
        let size = |(size, count): &([usize; 2], u64)| format!("{}x{} ({count})", size[0], size[1]);
        let shown = self.sizes.iter().take(5).map(size);
        let mut sizes = shown.collect::<Vec<_>>().join(", ");
        if self.sizes.len() > 5 {
            sizes += &format!(" and {} more", self.sizes.len() - 5);
        }
        lines.push(format!("sizes       {sizes}"));
        let listed = |values: &[f64]| {
            let values = values.iter().map(|value| format!("{value:.4}"));
            values.collect::<Vec<_>>().join(", ")
        };
        lines.push(format!("mean        {}", listed(&self.mean)));
        lines.push(format!("deviation   {}", listed(&self.std)));
        let has_labels = !self.labels.is_empty();
        lines.extend(self.duplicates.lines(["files", "images"], has_labels));
        if let Some(chart) = label_bars(&self.labels) {
            lines.extend([String::new(), chart.title.clone()]);
            lines.extend(chart.lines().iter().map(|line| format!("  {line}")));
        }
        lines
    }
}

fn equal_images(splits: &[(&str, &ImageRows)]) -> Duplicates {
    let mut known: HashMap<[u8; 32], Vec<Vec<String>>> = HashMap::new();
    for (_, images) in splits {
        for (row, content) in images.contents(0).into_iter().enumerate() {
            let classes = set::classes(images, row);
            known.entry(content).or_default().push(classes);
        }
    }
    let groups = known.values().filter(|group| group.len() > 1);
    groups.fold(Duplicates::default(), |all, group| Duplicates {
        texts: all.texts + 1,
        rows: all.rows + group.len() - 1,
        conflicting: all.conflicting + usize::from(group.iter().any(|one| *one != group[0])),
    })
}

/// Describes what the flags name.
///
/// # Errors
///
/// A source that cannot be read, or a drawing that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let are_images = flags.source.are_images();
    if let Some(plot) = &flags.plot {
        if are_images {
            peek::check_png(plot)?;
        } else if !plot
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("svg"))
        {
            let plot = plot.display();
            let reason = format!(
                "{plot}: charts of texts are drawn as an SVG; name it so, or say --images where the rows are images"
            );
            return Err(Failure::input(reason));
        }
        let inputs: Vec<_> = flags.source.source.iter().map(AsRef::as_ref).collect();
        open::check_output(plot, &inputs)?;
    }
    if are_images && flags.tokens.tokenizer.is_some() {
        let name = flags.source.name();
        return Err(Failure::input(format!(
            "{name}: holds images, which --tokenizer has no use for"
        )));
    }
    let tokens = flags.tokens.open()?;
    let (text, drawing) = match flags.source.read(0)? {
        Set::Texts(rows) => {
            let found = TextDescription::of(&rows, tokens.as_ref())?;
            let drawing = flags.plot.as_ref().map(|_| {
                let svg = bars_svg(&found.charts()).running()?;
                Ok::<_, Failure>(svg.into_bytes())
            });
            (printed(flags, &found, found.lines())?, drawing)
        }
        Set::Images(sets) => {
            let found = ImageDescription::of(&sets);
            let drawing = flags.plot.as_ref().map(|_| {
                let rows = set::chosen(sets.train.len(), DRAWN, Some(0));
                samples::png(&sets.train, &rows)
            });
            (printed(flags, &found, found.lines())?, drawing)
        }
    };
    if let (Some(plot), Some(drawing)) = (&flags.plot, drawing) {
        open::write_output(plot, &drawing?)?;
        eprintln!("wrote {}", plot.display());
    }
    Ok(text)
}

fn printed(flags: &Flags, found: &impl Serialize, lines: Vec<String>) -> Result<String, Failure> {
    if flags.json {
        return super::json(found);
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_their_percentiles() {
        // 1 to 100, and their bars of ten.
        let lengths = Lengths::of((1..=100).rev().collect());
        let Lengths {
            total,
            mean,
            min,
            p50,
            p90,
            p95,
            p99,
            max,
            ..
        } = lengths;
        assert_eq!((total, mean), (5050, 50.5));
        assert_eq!([min, p50, p90, p95, p99, max], [1, 50, 90, 95, 99, 100]);
        assert_eq!(lengths.histogram.len(), 11);
        assert_eq!(lengths.histogram[0], (0, 9, 9));
        assert_eq!(lengths.histogram[9], (90, 99, 10));
        assert_eq!(lengths.histogram[10], (100, 100, 1));
        let one = Lengths::of(vec![7]);
        assert_eq!((one.p50, one.p99), (7, 7));
        assert_eq!(one.histogram.iter().map(|bar| bar.2).sum::<u64>(), 1);
    }

    #[test]
    fn what_is_longer_than_nearly_all_is_one_bar() {
        let lengths = (0..1000).map(|i| if i < 998 { i % 50 } else { 70_000 });
        let lengths = Lengths::of(lengths.collect());
        let last = lengths.histogram.last().unwrap();
        assert_eq!(last, &(50, 70_000, 2));
        assert_eq!(lengths.bars("a").bars[0].0, "0 to 4");
    }

    #[test]
    fn what_is_cut_is_counted() {
        let cut = Cut::of(&[2, 4, 6, 8], 5);
        // One token of six and three of eight, of twenty.
        assert_eq!((cut.texts, cut.share, cut.tokens_lost), (2, 0.5, 0.2));
    }

    #[test]
    fn labels_are_counted_the_most_frequent_first() {
        let labels = ["b", "c", "a", "c"].map(String::from);
        let counts = label_counts(labels.iter());
        assert_eq!(counts, [("c".into(), 2), ("a".into(), 1), ("b".into(), 1)]);
        let many: Vec<(String, u64)> = (0..40).map(|i| (i.to_string(), 1)).collect();
        let bars = label_bars(&many).unwrap();
        assert_eq!(
            (bars.bars.len(), bars.title.as_str()),
            (30, "labels: 40, the 30 most frequent")
        );
        assert!(label_bars(&[]).is_none());
    }
}
