//! `apps search index`: builds an index or adds to it. In: a model, texts or images. Out: a directory.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use clap::Args;
use data::CutTexts;
use train::Failure;
use train::run::check_writable;

use super::index::{Holds, Index, IndexRow, MANIFEST, ModelIdentity, content};
use crate::embed::embedder::{self, Embedder};
use crate::embed::rows::{self, PlacedRow, ReadFlags};
use crate::input::Input;
use crate::open::{self, BackendFlag};
use crate::task::Row;

/// Embed texts or images, and keep their vectors to be searched
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// A bundle, a Hugging Face directory, an adapter, a run, a file of torchvision's weights, or the bundled
    /// wordnet-bert-nano
    pub model: String,
    /// Texts (.txt .csv .tsv .json .jsonl, each also .gz or .zst, .parquet), images (files, IDX) or folders of either; - is
    /// standard input
    #[arg(required = true)]
    pub input: Vec<String>,
    /// The directory of the index
    #[arg(long, value_name = "INDEX_DIR")]
    pub output: PathBuf,
    /// Add to the index that is there; rows of the same place and content stay as they are, and no content is embedded twice
    #[arg(long, conflicts_with = "force")]
    pub append: bool,
    /// Replace an index that exists
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub read: ReadFlags,
    /// Says what a file of weights is of: model.family=resnet50
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub backend: BackendFlag,
}

/// Builds or extends the index, and gives what is printed.
///
/// # Errors
///
/// A model, an input or an index that cannot be used, or a directory that cannot be written.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let backend = flags.backend.choose()?;
    check(flags)?;
    let bundle = open::bundle_or_file(&flags.model, &flags.set)?;
    embedder::view(&bundle)?;
    let model = ModelIdentity::of(&bundle, &flags.model, &flags.set)?;
    let mut index = if flags.append {
        let index = Index::read(&flags.output)?;
        index.check_model(&flags.output, &model)?;
        index
    } else {
        Index::new(model, Holds::of(&bundle))
    };
    let input = rows::read(&bundle, &flags.input, &flags.read)?;
    let embedder = embedder::open_on(backend, &bundle)?;
    let added = add(&mut index, &input, &flags.read, embedder.as_ref())?;
    rows::note_cut(embedder.as_ref(), added.cut);
    if added.rows > 0 {
        index.write(&flags.output)?;
    }
    let (place, n, holds) = (flags.output.display(), index.rows.len(), index.holds.name());
    let Added { rows, embedded, .. } = added;
    Ok(format!(
        "{place}: index of {holds}; rows {n}, added {rows}, embedded {embedded}\n"
    ))
}

/// Refuses a directory that is not to be written, before any work is done.
fn check(flags: &Flags) -> Result<(), Failure> {
    let output = flags.output.as_path();
    let wrong = |reason: String| Err(Failure::input(format!("{}: {reason}", output.display())));
    if output.file_name().is_none() {
        return wrong("has no name; --output names the directory of the index".into());
    }
    open::folder_of(output)?;
    if output.exists() && !output.is_dir() {
        return wrong("is a file; --output names the directory of the index".into());
    }
    let is_index = output.join(MANIFEST).is_file();
    // What is no index may be anything, and is never replaced.
    if output.is_dir() && !is_index && !flags.append && !is_empty(output) {
        return wrong("is a directory that holds something else than an index".into());
    }
    if is_index && !flags.append && !flags.force {
        return wrong("exists; --append adds to it, --force replaces it".into());
    }
    for read in flags.input.iter().chain([&flags.model]) {
        if let (Ok(output), Ok(whole)) = (output.canonicalize(), Path::new(read).canonicalize())
            && whole.starts_with(output)
        {
            return wrong(format!("is replaced as a whole, and {read} in it is read"));
        }
    }
    if let Err(error) = check_writable(output) {
        return wrong(format!("cannot be written: {error}"));
    }
    Ok(())
}

fn is_empty(folder: &Path) -> bool {
    folder
        .read_dir()
        .is_ok_and(|mut files| files.next().is_none())
}

/// What is new in an index.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Added {
    /// Rows.
    pub rows: usize,
    /// Those of them whose content was not there yet.
    pub embedded: usize,
    /// What is cut of their texts.
    pub cut: CutTexts,
}

/// Adds rows to an index; one that is there with its place and content stays as it is.
///
/// # Errors
///
/// A row that cannot be read, or the model fails.
pub fn add(
    index: &mut Index,
    input: &Input,
    flags: &ReadFlags,
    embedder: &dyn Embedder,
) -> Result<Added, Failure> {
    let mut known = Known::of(index);
    let mut added = Added::default();
    rows::for_each_window(input, flags, |rows| {
        let first = index.rows.len();
        let fresh = known.place(index, rows);
        added.rows += index.rows.len() - first;
        added.embedded += fresh.rows.len();
        let mut vectors = Vec::new();
        if !fresh.rows.is_empty() {
            let found = embedder.embed(&fresh.rows, flags.batch_size.get())?;
            added.cut.add(found.cut);
            index.width = found.width;
            vectors = found.values;
        }
        let width = index.width;
        for source in fresh.sources {
            match source {
                Source::Embedded(at) => index
                    .vectors
                    .extend_from_slice(&vectors[at * width..][..width]),
                Source::Row(row) => {
                    let there = row * width..(row + 1) * width;
                    index.vectors.extend_from_within(there);
                }
            }
        }
        Ok(())
    })?;
    Ok(added)
}

/// Where the vector of a new row comes from.
enum Source {
    /// This row of what is embedded now.
    Embedded(usize),
    /// A row in front of it, of the same content.
    Row(usize),
}

/// New rows of a window.
struct Fresh {
    /// Whose content is not there yet.
    rows: Vec<Row>,
    /// One a new row of the index.
    sources: Vec<Source>,
}

/// What an index holds already.
struct Known {
    /// The first row of each content.
    contents: HashMap<String, usize>,
    /// Places and contents.
    rows: HashSet<(String, String)>,
}

impl Known {
    fn of(index: &Index) -> Self {
        let mut contents = HashMap::new();
        for (at, row) in index.rows.iter().enumerate() {
            contents.entry(row.content.clone()).or_insert(at);
        }
        let rows = index.rows.iter();
        let rows = rows.map(|row| (row.place.clone(), row.content.clone()));
        Self {
            contents,
            rows: rows.collect(),
        }
    }

    /// Puts what is new into the index, without its vectors.
    fn place(&mut self, index: &mut Index, window: Vec<PlacedRow>) -> Fresh {
        let (mut rows, mut sources) = (Vec::new(), Vec::new());
        for placed in window {
            let content = content(&placed.row);
            if !self.rows.insert((placed.place.clone(), content.clone())) {
                continue;
            }
            let text = placed.text();
            match self.contents.get(&content) {
                Some(&row) => sources.push(Source::Row(row)),
                None => {
                    self.contents.insert(content.clone(), index.rows.len());
                    sources.push(Source::Embedded(rows.len()));
                    rows.push(placed.row);
                }
            }
            index.rows.push(IndexRow {
                place: placed.place,
                text,
                content,
            });
        }
        Fresh { rows, sources }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Mutex;

    use super::*;
    use crate::embed::embedder::Vectors;

    /// Gives a text the vector of its length, and keeps what it is asked.
    #[derive(Default)]
    struct Lengths(Mutex<Vec<Row>>);

    impl Embedder for Lengths {
        fn embed(&self, rows: &[Row], _: usize) -> Result<Vectors, Failure> {
            self.0.lock().unwrap().extend_from_slice(rows);
            let of = |row: &Row| match row {
                Row::Texts(texts) => [texts[0].len() as f32, 1.0],
                Row::Words(_) | Row::Image(_) => panic!("texts alone"),
            };
            Ok(Vectors {
                values: rows.iter().flat_map(of).collect(),
                width: 2,
                ..Vectors::default()
            })
        }

        fn max_length(&self) -> Option<usize> {
            None
        }
    }

    fn texts(texts: &[&str]) -> Input {
        Input::of_texts(texts.iter().map(|text| vec![text.to_string()]).collect())
    }

    fn empty() -> Index {
        let model = ModelIdentity {
            path: "m".into(),
            settings: vec![],
            digest: "d".into(),
        };
        Index::new(model, Holds::Texts)
    }

    /// A window holds sixteen rows.
    fn one_each() -> ReadFlags {
        ReadFlags {
            column: "text".into(),
            batch_size: NonZeroUsize::MIN,
            skip_unreadable: false,
        }
    }

    #[test]
    fn a_content_is_embedded_once() {
        let (mut index, embedder) = (empty(), Lengths::default());
        let first = texts(&["a", "bird", "a"]);
        let added = add(&mut index, &first, &one_each(), &embedder).unwrap();
        assert_eq!((added.rows, added.embedded), (3, 2));
        assert_eq!(index.vectors, [1.0, 1.0, 4.0, 1.0, 1.0, 1.0]);
        // The first two rows are there, the third has a known content, the last is new.
        let second = texts(&["a", "bird", "bird", "wrens"]);
        let added = add(&mut index, &second, &one_each(), &embedder).unwrap();
        assert_eq!((added.rows, added.embedded), (2, 1));
        assert_eq!(index.vectors[6..], [4.0, 1.0, 5.0, 1.0]);
        assert_eq!(index.rows[3].place, "text 3");
        assert_eq!(embedder.0.lock().unwrap().len(), 3);
        let before = index.clone();
        let added = add(&mut index, &second, &one_each(), &embedder).unwrap();
        assert_eq!((added.rows, index), (0, before));
    }

    #[test]
    fn windows_do_not_change_what_is_built() {
        let all: Vec<String> = (0..40).map(|at| "x".repeat(1 + at % 25)).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let (mut index, embedder) = (empty(), Lengths::default());
        add(&mut index, &texts(&all), &one_each(), &embedder).unwrap();
        let expected = all.iter().flat_map(|text| [text.len() as f32, 1.0]);
        assert_eq!(index.vectors, expected.collect::<Vec<_>>());
        assert_eq!(embedder.0.lock().unwrap().len(), 25);
    }
}
