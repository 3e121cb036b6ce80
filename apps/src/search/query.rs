//! `apps search query`: the rows of an index that are nearest. In: an index, texts or images. Out: rows with their cosines.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use data::{Ground, read_picture};
use model::Bundle;
use serde::Serialize;
use train::Failure;

use super::index::{Holds, Index, ModelIdentity};
use super::nearest::{Hit, nearest};
use crate::embed::embedder;
use crate::embed::rows;
use crate::open::{self, BackendFlag};
use crate::predict::format::{jsonl, table};
use crate::task::Row;

/// Questions in a forward pass.
const BATCH: usize = 64;
/// Characters of a text in a table.
const SHOWN: usize = 80;

/// Find the rows of an index that are nearest to texts or images
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("question").args(["text", "image"]).required(true)))]
pub struct Flags {
    /// A directory that apps search index has written
    pub index: PathBuf,
    /// A text; may be repeated
    #[arg(long)]
    pub text: Vec<String>,
    /// An image, for an index of images; may be repeated
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// Rows that are shown, the nearest first
    #[arg(long, visible_alias = "top-k", value_name = "K", default_value = "10")]
    pub top: NonZeroUsize,
    /// Print a JSON object a question
    #[arg(long)]
    pub json: bool,
    /// The model that made the index, where it is not in its old place
    #[arg(long, visible_alias = "from", value_name = "DIR")]
    pub model: Option<String>,
    /// Says what a file of weights is of: model.family=resnet50
    #[arg(long, value_name = "KEY=VALUE", requires = "model")]
    pub set: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub backend: BackendFlag,
}

/// A question and what is nearest to it.
#[derive(Serialize)]
struct Answer<'a> {
    query: &'a str,
    nearest: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Found<'a> {
    cosine: f32,
    place: &'a str,
    text: Option<&'a str>,
}

/// Answers the questions, and gives what is printed.
///
/// # Errors
///
/// An index that is not whole, another model than the one that made it, or a question that it cannot answer.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.backend.choose()?;
    let index = Index::read(&flags.index)?;
    check(flags, &index)?;
    let bundle = open_model(flags, &index)?;
    let questions = questions(flags, &bundle)?;
    let embedder = embedder::open_on(backend, &bundle)?;
    let found = embedder.embed(&questions, BATCH)?;
    rows::note_cut(embedder.as_ref(), found.cut);
    let hits = nearest(&index.vectors, &found.values, index.width, flags.top.get());
    let images = flags.image.iter().map(|path| path.display().to_string());
    let names: Vec<String> = flags.text.iter().cloned().chain(images).collect();
    let answers: Vec<Answer<'_>> = names
        .iter()
        .zip(&hits)
        .map(|(query, hits)| answer(&index, query, hits))
        .collect();
    if flags.json {
        return jsonl(&answers);
    }
    Ok(lines(&answers))
}

/// Refuses questions that the index does not hold answers to.
fn check(flags: &Flags, index: &Index) -> Result<(), Failure> {
    let wrong = |reason: &str| {
        let place = flags.index.display();
        Err(Failure::input(format!("{place}: {reason}")))
    };
    match index.holds {
        Holds::Texts if !flags.image.is_empty() => wrong("is an index of texts; ask by --text"),
        Holds::Images if !flags.text.is_empty() => wrong("is an index of images; ask by --image"),
        Holds::Texts | Holds::Images => {
            if flags.text.iter().any(|text| text.trim().is_empty()) {
                return Err(Failure::input("--text is empty"));
            }
            Ok(())
        }
    }
}

/// The model that made the index.
fn open_model(flags: &Flags, index: &Index) -> Result<Bundle, Failure> {
    let (path, settings) = match &flags.model {
        Some(model) => (model, &flags.set),
        None => (&index.model.path, &index.model.settings),
    };
    let bundle = open::bundle_or_file(path, settings).map_err(|error| match &flags.model {
        Some(_) => error,
        None => Failure::input(format!(
            "{error}; --model names the model of {} where it is now",
            flags.index.display()
        )),
    })?;
    let model = ModelIdentity::of(&bundle, path, settings)?;
    index.check_model(&flags.index, &model)?;
    Ok(bundle)
}

fn questions(flags: &Flags, bundle: &Bundle) -> Result<Vec<Row>, Failure> {
    let Some(seen) = embedder::view(bundle)? else {
        let texts = flags.text.iter();
        return Ok(texts.map(|text| Row::Texts(vec![text.clone()])).collect());
    };
    let picture = |path: &PathBuf| -> Result<Row, Failure> {
        let picture = read_picture(path, seen.channels, Ground::WHITE)?;
        Ok(Row::Image(picture))
    };
    flags.image.iter().map(picture).collect()
}

fn answer<'a>(index: &'a Index, query: &'a str, hits: &[Hit]) -> Answer<'a> {
    let found = |hit: &Hit| {
        let row = &index.rows[hit.row];
        Found {
            cosine: hit.cosine,
            place: &row.place,
            text: row.text.as_deref(),
        }
    };
    Answer {
        query,
        nearest: hits.iter().map(found).collect(),
    }
}

/// A line a row; of several questions each stands above its own.
fn lines(answers: &[Answer<'_>]) -> String {
    let one = |answer: &Answer<'_>| {
        let cells = |found: &Found<'_>| {
            let place = found.place.to_string();
            let text = found.text.map_or(String::new(), shown);
            vec![format!("{:.4}", found.cosine), place, text]
        };
        let rows: Vec<Vec<String>> = answer.nearest.iter().map(cells).collect();
        table(&rows)
    };
    match answers {
        [answer] => one(answer),
        several => {
            let with_question =
                |answer: &Answer<'_>| format!("{}\n{}", shown(answer.query), one(answer));
            let all: Vec<String> = several.iter().map(with_question).collect();
            all.join("\n")
        }
    }
}

/// A text on one line, cut where it is long.
fn shown(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    if line.chars().count() <= SHOWN {
        return line;
    }
    line.chars().take(SHOWN - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_on_one_line() {
        assert_eq!(shown(" a\n\twren  sings "), "a wren sings");
        let long = shown(&"ab".repeat(60));
        assert_eq!((long.chars().count(), long.chars().last()), (80, Some('…')));
    }
}
