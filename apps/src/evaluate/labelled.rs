//! Labelled rows of a task. In: files, columns, and the classes of a model. Out: rows with targets that number these classes.

use std::collections::HashMap;
use std::ops::Range;

use data::image::{
    BoxLabel, IGNORED, ImageColumns, ImageTargets, TargetColumn, TargetKind, read_mask,
};
use data::source::{self, TextSource};
use data::{
    DecodeAll, ImageFileOptions, Item, ItemColumns, ItemKind, ItemTarget, TextColumns, read_items,
};
use train::job::image::{ImageRowSets, ImageRows};
use train::{Failure, failure};

use crate::task::image_scores::Seen;
use crate::task::{Reads, Row, Settings, Target, Task};

/// A row with what is true of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledRow {
    /// `path:line`, or the file of an image.
    pub place: String,
    /// What the model sees.
    pub row: Row,
    /// What it should say.
    pub target: Target,
}

/// All labelled rows.
#[derive(Clone, Debug)]
pub struct LabelledRows {
    origin: String,
    rows: Rows,
}

#[derive(Clone, Debug)]
enum Rows {
    Texts(Vec<LabelledRow>),
    /// Decoded when they are asked for.
    Images(Box<ImageRows>),
}

/// Decoded images stay in memory if all of them take at most so many bytes.
const HELD: u64 = 1 << 30;
/// Names of classes that a message lists.
const MOST_LISTED: usize = 10;

/// Numbers of the model's classes.
struct Numbers<'a> {
    by_name: HashMap<&'a str, u32>,
    names: &'a [String],
}

impl<'a> Numbers<'a> {
    fn of(names: &'a [String]) -> Self {
        let by_name = names.iter().map(String::as_str).zip(0..).collect();
        Self { by_name, names }
    }

    /// The number of a class.
    ///
    /// - place: of the row, for messages
    fn number(&self, name: &str, place: impl Fn() -> String) -> Result<u32, Failure> {
        if let Some(number) = self.by_name.get(name) {
            return Ok(*number);
        }
        let n = self.names.len();
        let listed = self.names.iter().take(MOST_LISTED).cloned();
        let listed = listed.collect::<Vec<_>>().join(", ");
        let more = if n > MOST_LISTED { ", ..." } else { "" };
        Err(Failure::input(format!(
            "{}: \"{name}\" is none of the model's {n} classes: {listed}{more}",
            place()
        )))
    }

    fn all(&self, names: &[String], place: impl Fn() -> String) -> Result<Vec<u32>, Failure> {
        let number = |name: &String| self.number(name, &place);
        names.iter().map(number).collect()
    }
}

impl LabelledRows {
    /// Reads what is named.
    ///
    /// # Errors
    ///
    /// Anything that is missing or malformed, a class that the model does not have, rows without what is true of them.
    pub fn read(named: &[String], task: &dyn Task, settings: &Settings) -> Result<Self, Failure> {
        match task.view() {
            Some(seen) => Self::images(named, task, settings, &seen),
            None => Self::texts(named, task, settings),
        }
    }

    /// What was read, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Texts(rows) => rows.len(),
            Rows::Images(images) => images.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some rows.
    ///
    /// # Errors
    ///
    /// An image or a mask that cannot be read.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn window(
        &self,
        range: Range<usize>,
        task: &dyn Task,
    ) -> Result<Vec<LabelledRow>, Failure> {
        match &self.rows {
            Rows::Texts(rows) => Ok(rows[range].to_vec()),
            Rows::Images(images) => {
                let numbers = Numbers::of(task.classes());
                let row = |row: usize| {
                    let picture = failure::caught(|| images.picture(row));
                    Ok(LabelledRow {
                        place: images.place(row),
                        row: Row::Image(picture.map_err(Failure::Running)?),
                        target: target_of(images, row, &numbers)?,
                    })
                };
                range.map(row).collect()
            }
        }
    }

    fn texts(named: &[String], task: &dyn Task, settings: &Settings) -> Result<Self, Failure> {
        let usual = task.labelled();
        let kind = usual.kind.unwrap_or(ItemKind::Class);
        let column =
            |key: &str, usual: &str| settings.text("data", key).unwrap_or(usual).to_string();
        let (text, second) = (
            column("text", usual.text),
            column("text_pair", usual.second),
        );
        let target = column("label_column", usual.target);
        let source = held_out(named)?;
        let origin = source.origin();
        let numbers = Numbers::of(task.classes());
        let rows = if kind == ItemKind::Class && second.is_empty() {
            let columns = TextColumns {
                text,
                label: Some(target),
                bad_rows: settings.bad_rows()?,
            };
            one_class(&source, &columns, &numbers)?
        } else {
            let columns = ItemColumns {
                kind,
                text,
                second,
                target,
                bad_rows: settings.bad_rows()?,
            };
            let set = read_items(&source, &columns)?;
            note_left_out(&set.left_out);
            let row = |item: Item| {
                let file = set.files[item.file as usize].display();
                labelled(
                    item.texts,
                    item.target,
                    format!("{file}:{}", item.line),
                    task,
                    &numbers,
                )
            };
            set.items.into_iter().map(row).collect::<Result<_, _>>()?
        };
        let rows = Rows::Texts(rows);
        Ok(Self { origin, rows })
    }

    fn images(
        named: &[String],
        task: &dyn Task,
        settings: &Settings,
        seen: &Seen,
    ) -> Result<Self, Failure> {
        let usual = task.labelled();
        let column = |key: &str| {
            let name = settings.text("data", key).unwrap_or_default();
            (!name.is_empty()).then(|| name.to_string())
        };
        let kind = match usual.kind {
            Some(ItemKind::Labels) => TargetKind::Several,
            Some(ItemKind::Value) => TargetKind::Value,
            _ => TargetKind::Class,
        };
        let target = |name| TargetColumn { name, kind };
        let options = ImageFileOptions {
            channels: Some(seen.channels),
            bad_rows: settings.bad_rows()?,
            ground: settings.ground()?,
            columns: ImageColumns {
                image: column("image_column"),
                target: column("label_column").map(target),
            },
            decode: Some(DecodeAll {
                seed: 0,
                held: HELD,
            }),
        };
        let sets = match source::open_images(named, None, &options)? {
            source::Images::Memory(sets) => ImageRowSets::from(sets),
            source::Images::Files(files) => ImageRowSets::of_files(files, seen.view),
        };
        note_left_out(&sets.left_out);
        let images = match (sets.test, sets.valid) {
            (Some(test), _) => {
                eprintln!("note: of the splits that there are, test is judged");
                test
            }
            (None, Some(valid)) => {
                eprintln!("note: of the splits that there are, valid is judged");
                valid
            }
            (None, None) => sets.train,
        };
        check_targets(&images, usual.kind, task)?;
        let origin = images.origin.clone();
        let rows = Rows::Images(Box::new(images));
        Ok(Self { origin, rows })
    }
}

/// Texts that are named; of files that are named as splits those to test on, or else to validate on.
fn held_out(named: &[String]) -> Result<TextSource, Failure> {
    let source = TextSource::in_splits(named, &[], &[])?;
    let TextSource::Given(given) = &source else {
        return Ok(source);
    };
    let (files, split) = match given.test.as_slice() {
        [] => (given.valid.as_slice(), "valid"),
        test => (test, "test"),
    };
    eprintln!("note: of the splits that there are, {split} is judged");
    let files: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    Ok(TextSource::named(&files)?)
}

/// Says what is left out, where that is asked for.
fn note_left_out(left_out: &data::LeftOut) {
    for line in left_out.lines() {
        eprintln!("warning: {line}");
    }
}

/// Texts with one class each, as `finetune text-classification` reads them.
fn one_class(
    source: &TextSource,
    columns: &TextColumns,
    numbers: &Numbers<'_>,
) -> Result<Vec<LabelledRow>, Failure> {
    let set = source.collect(columns)?;
    note_left_out(&set.left_out);
    let row = |(at, example): (usize, &data::TextExample)| {
        let name = example.label.as_deref().unwrap_or_default();
        Ok(LabelledRow {
            place: set.place(at),
            row: Row::Texts(vec![example.text.clone()]),
            target: Target::Classes(vec![numbers.number(name, || set.place(at))?]),
        })
    };
    set.examples.iter().enumerate().map(row).collect()
}

/// An item as a row of its task.
fn labelled(
    mut texts: Vec<String>,
    target: ItemTarget,
    place: String,
    task: &dyn Task,
    numbers: &Numbers<'_>,
) -> Result<LabelledRow, Failure> {
    let target = match target {
        ItemTarget::None => Target::Text(texts.pop().unwrap_or_default()),
        ItemTarget::Labels(names) => Target::Classes(numbers.all(&names, || place.clone())?),
        ItemTarget::Value(value) => Target::Value(value),
        ItemTarget::Tags(names) => Target::Tags(numbers.all(&names, || place.clone())?),
        ItemTarget::Answers(answers) => Target::Answers(answers),
        ItemTarget::Choice(right) => Target::Choice(right),
    };
    let row = if task.reads() == Reads::Sentence {
        Row::Words(texts)
    } else {
        Row::Texts(texts)
    };
    Ok(LabelledRow { place, row, target })
}

/// Refuses images whose targets are of another kind than the model's.
fn check_targets(
    images: &ImageRows,
    kind: Option<ItemKind>,
    task: &dyn Task,
) -> Result<(), Failure> {
    let (fits, needs) = match (kind, task.name()) {
        (Some(ItemKind::Labels), _) => (
            matches!(images.targets, ImageTargets::Several(_)),
            "several labels each: a table of images needs a column of them",
        ),
        (Some(ItemKind::Value), _) => (
            matches!(images.targets, ImageTargets::Values(_)),
            "a value each: a table of images needs a column \"value\"",
        ),
        (Some(_), _) => (
            matches!(images.targets, ImageTargets::Classes(_)),
            "a label each: a folder needs one folder a class, an IDX file its labels beside it, a table a column of them",
        ),
        (None, "segmentation") => (
            matches!(images.targets, ImageTargets::Masks(_)),
            "masks: a folder needs the folders images and masks, whose files have the same names",
        ),
        (None, _) => (
            matches!(images.targets, ImageTargets::Boxes(_)),
            "boxes: COCO's JSON beside them, or a folder with JPEGImages and Annotations in VOC's XML",
        ),
    };
    if fits {
        return Ok(());
    }
    let origin = &images.origin;
    Err(Failure::input(format!(
        "{origin}: the images do not have {needs}"
    )))
}

/// What is true of an image.
fn target_of(images: &ImageRows, row: usize, numbers: &Numbers<'_>) -> Result<Target, Failure> {
    let number = |class: u32| {
        let name = images.classes.get(class as usize);
        let name = name.cloned().unwrap_or(class.to_string());
        numbers.number(&name, || images.place(row))
    };
    Ok(match &images.targets {
        ImageTargets::Classes(all) => Target::Classes(vec![number(all[row])?]),
        ImageTargets::Several(all) => {
            let classes = all[row].iter().map(|&class| number(class));
            Target::Classes(classes.collect::<Result<_, _>>()?)
        }
        ImageTargets::Values(all) => Target::Value(all[row]),
        ImageTargets::Masks(all) => {
            let mask = read_mask(&all[row])?;
            let known = |class: &u8| usize::from(*class) < numbers.names.len() || *class == IGNORED;
            if let Some(class) = mask.classes.iter().find(|class| !known(class)) {
                let (place, n) = (all[row].display(), numbers.names.len());
                return Err(Failure::input(format!(
                    "{place}: holds class {class}, and the model has {n} classes"
                )));
            }
            Target::Mask(mask)
        }
        ImageTargets::Boxes(all) => {
            let label = |label: &BoxLabel| {
                let class = number(label.class)?;
                Ok(BoxLabel { class, ..*label })
            };
            let labels: Result<Vec<BoxLabel>, Failure> = all[row].iter().map(label).collect();
            Target::Boxes(labels?)
        }
        ImageTargets::None => Target::Classes(vec![]),
    })
}
