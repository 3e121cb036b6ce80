//! What a source holds. In: names as a training takes them. Out: rows of texts, or images.

use data::augment::View;
use data::bundled::BundledSet;
use data::image::{ImageColumns, ImageTargets, TargetColumn, TargetKind};
use data::source::{self, TextSource};
use data::{BadRows, DecodeAll, ImageFileOptions, ImageFileSets, RowColumns, WholeRows};
use train::job::image::{ImageRowSets, ImageRows};
use train::{Failure, FailureKind};

use super::progress::{Progress, while_working};

/// Pixels of the longest side of an image that is drawn as it is; larger ones are shown so large.
const SHOWN: usize = 128;

/// What all commands read.
#[derive(clap::Args, Clone, Debug)]
pub struct SourceFlags {
    /// A bundled set (see list), or files, folders or patterns of texts or images, as --data of a training names them
    #[arg(value_name = "SOURCE", required = true)]
    pub source: Vec<String>,
    /// Column or key of the texts; of a pair both with a comma between them [default: text; a bundled set's own]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,
    /// Column or key of the labels: a class, a list of classes or tags, a number [default: none; a bundled set's own]
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// Read tables as tables of images; folders of images, IDX files and shards are known as such
    #[arg(long)]
    pub images: bool,
}

/// A data set.
pub enum Set {
    /// Of texts, with all their fields.
    Texts(WholeRows),
    /// Of images.
    Images(Box<ImageRowSets>),
}

impl SourceFlags {
    /// Reads everything; what cannot be used is left out and counted.
    ///
    /// - seed: of the splits of images
    ///
    /// # Errors
    ///
    /// A source that is missing or cannot be read at all.
    pub fn read(&self, seed: u64) -> Result<Set, Failure> {
        self.read_splits(&[], &[], seed)
    }

    /// The same with splits in other files.
    ///
    /// - valid, test: what they are read from, if not from the source itself
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), for each.
    pub fn read_splits(
        &self,
        valid: &[String],
        test: &[String],
        seed: u64,
    ) -> Result<Set, Failure> {
        if self.are_images() {
            let read = || self.image_splits(valid, test, seed);
            return while_working("reading images", read).map(|sets| Set::Images(Box::new(sets)));
        }
        let source = TextSource::in_splits(&self.source, valid, test)?;
        let mut progress = Progress::new("reading");
        let rows = data::read_whole_rows(&source, &self.columns(), &mut |rows| {
            progress.at(rows, None);
        })?;
        for line in &rows.unread {
            eprintln!("note: {line}");
        }
        Ok(Set::Texts(rows))
    }

    /// Texts with all their fields.
    ///
    /// - command: for messages
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), or images.
    pub fn texts(&self, command: &str) -> Result<WholeRows, Failure> {
        match self.read(0)? {
            Set::Texts(rows) => Ok(rows),
            Set::Images(_) => Err(Failure::input(format!(
                "{}: holds images, and {command} takes texts; describe and validate name equal images",
                self.name()
            ))),
        }
    }

    /// The source, for messages.
    pub fn name(&self) -> String {
        self.source.join(" ")
    }

    /// Whether it is read as images.
    pub fn are_images(&self) -> bool {
        self.images || source::are_images(&self.source)
    }

    /// The columns that are read.
    pub fn columns(&self) -> RowColumns {
        let bundled = match self.source.as_slice() {
            [name] => BundledSet::named(name),
            _ => None,
        };
        let texts = match (&self.column, bundled) {
            (Some(names), _) => {
                let names = names.split(',').map(str::trim);
                names.map(String::from).collect()
            }
            (None, Some(set)) => set.texts.iter().map(|name| name.to_string()).collect(),
            (None, None) => vec!["text".into()],
        };
        let own = || bundled.and_then(|set| set.label).map(String::from);
        RowColumns {
            texts,
            label: self.label_column.clone().or_else(own),
        }
    }

    fn image_splits(
        &self,
        valid: &[String],
        test: &[String],
        seed: u64,
    ) -> Result<ImageRowSets, Failure> {
        let mut sets = self.image_sets(&self.source, seed, None)?;
        // Grey images among those of colour sets have three channels too.
        let channels = (sets.train.shape()[0] == 3).then_some(3);
        for (named, split) in [(valid, &mut sets.valid), (test, &mut sets.test)] {
            if !named.is_empty() {
                let given = self.image_sets(named, seed, channels)?;
                sets.left_out.merge(given.left_out);
                sets.notes.extend(given.notes);
                *split = Some(given.train);
            }
        }
        Ok(sets)
    }

    fn image_sets(
        &self,
        names: &[String],
        seed: u64,
        channels: Option<usize>,
    ) -> Result<ImageRowSets, Failure> {
        let target = |name: &String| TargetColumn {
            name: name.clone(),
            kind: TargetKind::Class,
        };
        let options = ImageFileOptions {
            channels,
            bad_rows: BadRows::Skip,
            columns: ImageColumns {
                image: self.column.clone(),
                target: self.label_column.as_ref().map(target),
            },
            decode: Some(DecodeAll { seed, held: 0 }),
            ..ImageFileOptions::default()
        };
        match source::open_images(names, None, &options)? {
            source::Images::Memory(sets) => Ok(sets.into()),
            source::Images::Files(sets) => {
                let view = view(&sets);
                Ok(ImageRowSets::of_files(sets, view))
            }
        }
    }
}

/// Small images of one size as they are, of others the middle.
fn view(sets: &ImageFileSets) -> View {
    let all = [Some(&sets.train), sets.valid.as_ref(), sets.test.as_ref()];
    let all = all.into_iter().flatten().filter(|set| !set.is_empty());
    let sizes: Option<Vec<[usize; 2]>> = all.map(|set| set.one_size().ok()).collect();
    match sizes.as_deref() {
        Some([size, rest @ ..])
            if rest.iter().all(|other| other == size) && size.iter().all(|&side| side <= SHOWN) =>
        {
            View::stretched(*size)
        }
        _ => View::cropped([SHOWN; 2], 1.0),
    }
}

/// The splits of images that are there, with their names.
pub fn splits(sets: &ImageRowSets) -> Vec<(&'static str, &ImageRows)> {
    let all = [
        ("train", Some(&sets.train)),
        ("valid", sets.valid.as_ref()),
        ("test", sets.test.as_ref()),
    ];
    let there = all.into_iter().filter_map(|(name, set)| Some((name, set?)));
    there.collect()
}

/// Names of the classes of an image.
pub fn classes(images: &ImageRows, row: usize) -> Vec<String> {
    let name = |class: u32| images.classes[class as usize].clone();
    match &images.targets {
        ImageTargets::Classes(all) => vec![name(all[row])],
        ImageTargets::Several(all) => all[row].iter().map(|&class| name(class)).collect(),
        ImageTargets::Boxes(all) => all[row].iter().map(|one| name(one.class)).collect(),
        ImageTargets::Values(_) | ImageTargets::Masks(_) | ImageTargets::None => vec![],
    }
}

/// Numbers of rows in random order, as many as are asked for; without a seed the first ones.
pub fn chosen(rows: usize, most: usize, seed: Option<u64>) -> Vec<usize> {
    let mut order: Vec<usize> = match seed {
        Some(seed) => {
            let order = data::order::shuffled(rows, seed, 0);
            order.into_iter().map(|row| row as usize).collect()
        }
        None => (0..rows).collect(),
    };
    order.truncate(most);
    order
}

/// Refuses an output that cannot be written, or that exists unless it is to be replaced.
///
/// - inputs: what is read
///
/// # Errors
///
/// What is wrong with it.
pub fn check_output(
    output: &std::path::Path,
    inputs: &[String],
    force: bool,
) -> Result<(), Failure> {
    let inputs: Vec<&std::path::Path> = inputs.iter().map(std::path::Path::new).collect();
    crate::open::check_output(output, &inputs)?;
    if output.exists() && !force {
        let output = output.display();
        return Err(Failure::input(format!(
            "{output}: exists; --force replaces it"
        )));
    }
    Ok(())
}

/// Rows as JSONL.
///
/// # Errors
///
/// JSON that cannot be written.
pub fn jsonl<'a>(rows: impl Iterator<Item = &'a data::WholeRow>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut bytes, &row.fields).running()?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(source: &[&str]) -> SourceFlags {
        SourceFlags {
            source: source.iter().map(|name| name.to_string()).collect(),
            column: None,
            label_column: None,
            images: false,
        }
    }

    #[test]
    fn columns_are_named_or_those_of_the_bundled_set() {
        let columns = flags(&["verse-pairs"]).columns();
        assert_eq!(columns.texts, ["first", "second"]);
        assert_eq!(columns.label.as_deref(), Some("label"));
        let columns = flags(&["a.csv"]).columns();
        assert_eq!((columns.texts, columns.label), (vec!["text".into()], None));
        let named = SourceFlags {
            column: Some("a, b".into()),
            label_column: Some("c".into()),
            ..flags(&["a.csv"])
        };
        assert_eq!(named.columns().texts, ["a", "b"]);
        assert_eq!(named.columns().label.as_deref(), Some("c"));
    }

    #[test]
    fn chosen_rows_are_the_first_or_random_ones_of_a_seed() {
        assert_eq!(chosen(9, 3, None), [0, 1, 2]);
        let random = chosen(900, 3, Some(1));
        assert_eq!(random, chosen(900, 3, Some(1)));
        assert_ne!(random, chosen(900, 3, Some(2)));
        assert_eq!(chosen(2, 3, Some(1)).len(), 2);
    }
}
