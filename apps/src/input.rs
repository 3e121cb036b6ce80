//! What a model is asked, read. In: texts of the command line, files, folders, standard input. Out: rows with their places, a window
//! at a time; what cannot be read keeps its place.

mod pictures;
mod stdin;

use std::io::IsTerminal;
use std::ops::Range;

use data::source::TextSource;
use data::{ItemKind, TextColumns, read_inputs};
use train::Failure;

pub use self::pictures::Pictures;
pub use self::stdin::read_lines;
use crate::task::image_scores::Seen;
use crate::task::{Labelled, Reads, Row, Task};

/// A row, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct InputRow {
    /// `path:line`; nothing for a single text or image.
    pub place: Option<String>,
    /// The row, or why there is none: `"text" is empty`.
    pub row: Result<Row, String>,
}

impl InputRow {
    fn of_texts(place: Option<String>, texts: Result<Vec<String>, String>) -> Self {
        let row = texts.map(Row::Texts);
        Self { place, row }
    }
}

/// Which columns or keys are read of files and of JSON on standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns<'a> {
    /// Of the text, the context or the question.
    pub text: &'a str,
    /// Of the second text, the question or the choices.
    pub second: Option<&'a str>,
}

/// What rows are read for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// What they are made of.
    pub reads: Reads,
    /// The usual names of their columns.
    pub usual: Labelled,
    /// How a model of images sees them; nothing of a model of texts.
    pub view: Option<Seen>,
}

impl From<&(dyn Task + '_)> for Wanted {
    fn from(task: &(dyn Task + '_)) -> Self {
        Self {
            reads: task.reads(),
            usual: task.labelled(),
            view: task.view(),
        }
    }
}

impl Wanted {
    /// One text a row, or one image.
    ///
    /// - view: how a model of images sees them
    pub fn one_each(view: Option<Seen>) -> Self {
        let reads = match view {
            Some(_) => Reads::Image,
            None => Reads::Texts,
        };
        let usual = Labelled {
            kind: None,
            text: "text",
            second: "",
            target: "",
        };
        Self { reads, usual, view }
    }
}

/// All rows.
#[derive(Clone, Debug)]
pub enum Input {
    /// In memory.
    Rows(Vec<InputRow>),
    /// Decoded when they are asked for.
    Pictures(Pictures),
}

impl Input {
    /// The number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::Pictures(pictures) => pictures.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some rows.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn window(&self, range: Range<usize>) -> Vec<InputRow> {
        match self {
            Self::Rows(rows) => rows[range].to_vec(),
            Self::Pictures(pictures) => pictures.window(range),
        }
    }

    /// Texts of the command line, with the texts that belong to each.
    pub fn of_texts(rows: Vec<Vec<String>>) -> Self {
        let single = rows.len() == 1;
        let numbered = rows.into_iter().zip(1..);
        let row = |(texts, number)| {
            let place = (!single).then(|| format!("text {number}"));
            InputRow::of_texts(place, Ok(texts))
        };
        Self::Rows(numbered.map(row).collect())
    }

    /// Files and folders.
    ///
    /// # Errors
    ///
    /// What is missing or malformed, but for single rows.
    pub fn of_files(
        named: &[String],
        columns: Columns<'_>,
        wanted: impl Into<Wanted>,
    ) -> Result<Self, Failure> {
        let wanted = wanted.into();
        match &wanted.view {
            Some(seen) => Ok(Self::Pictures(Pictures::named(named, seen)?)),
            None => texts(named, columns, wanted.reads),
        }
    }

    /// Lines of standard input: texts, JSON objects or, of a model of images, paths.
    ///
    /// # Errors
    ///
    /// Bytes that are no UTF-8.
    pub fn of_lines(
        lines: impl std::io::BufRead,
        columns: Columns<'_>,
        wanted: impl Into<Wanted>,
    ) -> Result<Self, Failure> {
        let (lines, wanted) = (read_lines(lines)?, wanted.into());
        Ok(match &wanted.view {
            Some(seen) => Self::Pictures(Pictures::of_lines(lines, seen)),
            None => Self::Rows(stdin::rows(lines, columns, &wanted)),
        })
    }

    /// Standard input.
    ///
    /// - named: what is named, as [`is_stdin`] takes it
    ///
    /// # Errors
    ///
    /// A terminal that nobody has named, no row at all, or those of [`of_lines`](Self::of_lines).
    pub fn of_stdin(
        named: &[String],
        columns: Columns<'_>,
        wanted: impl Into<Wanted>,
    ) -> Result<Self, Failure> {
        let stdin = std::io::stdin();
        if named.is_empty() && stdin.is_terminal() {
            return Err(Failure::input(
                "nothing is to be read; name texts by --text, files or folders behind the model, or pipe lines in",
            ));
        }
        let input = Self::of_lines(stdin.lock(), columns, wanted)?;
        if input.is_empty() {
            return Err(Failure::input(
                "standard input is empty, and nothing else is named",
            ));
        }
        Ok(input)
    }
}

/// Whether standard input is to be read: it is named, or nothing is.
pub fn is_stdin(named: &[String]) -> bool {
    named.is_empty() || matches!(named, [one] if one == "-")
}

fn texts(named: &[String], columns: Columns<'_>, reads: Reads) -> Result<Input, Failure> {
    let source = TextSource::named(named)?;
    let Columns { text, second } = columns;
    let rows = match (second, reads) {
        (None, Reads::Sentence) if is_tagged(&source) => tagged(&source)?,
        (None, _) => {
            let columns = TextColumns {
                text: text.into(),
                ..TextColumns::default()
            };
            let rows = source.rows(&columns)?.map(|row| {
                let row = row?;
                let texts = row.text.map(|text| vec![text]);
                Ok(InputRow::of_texts(Some(row.place), texts))
            });
            rows.collect::<Result<_, Failure>>()?
        }
        (Some(second), reads) => {
            let kind = match reads {
                Reads::Choices => ItemKind::Choice,
                Reads::Question => ItemKind::Answers,
                Reads::Texts | Reads::Sentence | Reads::Source | Reads::Image => ItemKind::Class,
            };
            let rows = read_inputs(&source, kind, text, second)?.into_iter();
            let row = |row: data::InputRow| InputRow::of_texts(Some(row.place), row.texts);
            rows.map(row).collect()
        }
    };
    Ok(Input::Rows(rows))
}

/// Whether all files are of tagged words, whose sentences are read as their words.
fn is_tagged(source: &TextSource) -> bool {
    let files = source.files();
    let tagged = |path: &std::path::PathBuf| {
        let end = path.extension().and_then(|end| end.to_str());
        end.is_some_and(|end| ["conll", "conllu", "bio", "iob", "iob2"].contains(&end))
    };
    !files.is_empty() && files.iter().all(tagged)
}

/// Sentences of files of tagged words, without their tags.
fn tagged(source: &TextSource) -> Result<Vec<InputRow>, Failure> {
    let columns = data::ItemColumns {
        kind: ItemKind::Tags,
        text: "tokens".into(),
        second: String::new(),
        target: "tags".into(),
        bad_rows: data::BadRows::Refuse,
    };
    let set = data::read_items(source, &columns)?;
    let row = |item: data::Item| InputRow {
        place: Some(format!(
            "{}:{}",
            set.files[item.file as usize].display(),
            item.line
        )),
        row: Ok(Row::Words(item.texts)),
    };
    Ok(set.items.into_iter().map(row).collect())
}
