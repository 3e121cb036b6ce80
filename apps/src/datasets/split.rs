//! Writes the splits of a data set. In: texts or images. Out: files named train, valid and test, which training reads as such.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use data::image::ImageTargets;
use data::split::{self, ContentHash, Splits};
use data::{SplitShares, WholeRows};
use train::job::image::{ImageRowSets, ImageRows, ImageSplits};
use train::run::unfinished;
use train::{Failure, FailureKind};

use super::set::{self, Set, SourceFlags};
use crate::open;

/// Names of the splits.
const NAMES: [&str; 3] = ["train", "valid", "test"];

/// Write train, valid and test: JSONL with all columns, or folders of images
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The splits are those of a training with the same data.valid, data.test and data.split_seed: equal rows are \
never in two of them, a class too rare to be split stays in training, and files that are named as splits stay what they are. \
For the splits of question answering and multiple choice --column names the context or the question alone.

Examples:
  apps datasets split reviews.csv --label-column stars --valid 0.1 --test 0.1 --output reviews
  apps datasets split photos/ --stratify --output photos-split"
)]
pub struct Flags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceFlags,
    /// A folder for the splits, which must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Share of rows to validate on
    #[arg(
        allow_negative_numbers = true,
        long,
        value_name = "SHARE",
        default_value = "0.1"
    )]
    pub valid: f64,
    /// Share of rows to test on
    #[arg(
        allow_negative_numbers = true,
        long,
        value_name = "SHARE",
        default_value = "0.1"
    )]
    pub test: f64,
    /// Of the splits
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    /// Split each class by itself, so that each has its share of every split to within a row; not what training does
    #[arg(long)]
    pub stratify: bool,
}

/// Splits contents class by class: equal contents together, in the class of the first of them.
///
/// - hashes: of each row, all under one seed
/// - classes: of each row
///
/// # Panics
///
/// If there are fewer classes than hashes.
pub fn stratified(hashes: &[ContentHash], classes: &[String], valid: f64, test: f64) -> Splits {
    let mut seen = HashSet::new();
    let mut contents: BTreeMap<&str, Vec<&ContentHash>> = BTreeMap::new();
    for (hash, class) in hashes.iter().zip(classes) {
        if seen.insert(hash) {
            contents.entry(class).or_default().push(hash);
        }
    }
    let mut place: HashMap<&ContentHash, usize> = HashMap::new();
    for hashes in contents.values_mut() {
        hashes.sort_unstable();
        let n = hashes.len() as f64;
        let tested = (n * test).round() as usize;
        // Rounded together, so that both are not short of a row.
        let held_out = (n * (test + valid)).round() as usize;
        for (at, hash) in hashes.iter().enumerate() {
            let split = if at < tested {
                2
            } else if at < held_out {
                1
            } else {
                0
            };
            place.insert(*hash, split);
        }
    }
    let rows = |split: usize| {
        let rows = (0..hashes.len()).filter(|&row| place[&hashes[row]] == split);
        rows.collect()
    };
    Splits {
        train: rows(0),
        valid: rows(1),
        test: rows(2),
    }
}

/// Writes the splits.
///
/// # Errors
///
/// A source that cannot be read, shares that leave nothing to train on, a folder that is not empty.
pub fn run(flags: &Flags) -> Result<String, Failure> {
    let shares = [("--valid", flags.valid), ("--test", flags.test)];
    for (name, share) in shares {
        if !(0.0..1.0).contains(&share) {
            let reason = format!("{name} is {share}; it must be from 0 to below 1");
            return Err(Failure::input(reason));
        }
    }
    let Flags { valid, test, .. } = flags;
    if valid + test >= 1.0 {
        return Err(Failure::input(format!(
            "--valid {valid} and --test {test} leave nothing to train on"
        )));
    }
    let output = &flags.output;
    check_folder(output, &flags.source.source)?;
    let set = flags.source.read(flags.seed)?;
    let (fresh, mut counts) = (unfinished(output), [0; 3]);
    let written = match &set {
        Set::Texts(rows) => write_texts(flags, rows, &fresh, &mut counts),
        Set::Images(sets) => write_images(flags, sets, &fresh, &mut counts),
    };
    let place = || output.display().to_string();
    let renamed = written.and_then(|()| fs::rename(&fresh, output).with_context(place).running());
    if let Err(failure) = renamed {
        // The error worth a sentence is the first.
        let _ = fs::remove_dir_all(&fresh);
        return Err(failure);
    }
    let unit = match set {
        Set::Texts(_) => "rows",
        Set::Images(_) => "images",
    };
    let [train, valid, test] = counts;
    Ok(format!(
        "{}: {unit}: {train} train, {valid} valid, {test} test\n",
        output.display()
    ))
}

/// Refuses a folder that holds something, cannot be made, or would be part of what is read.
///
/// - inputs: what is read
fn check_folder(output: &Path, inputs: &[String]) -> Result<(), Failure> {
    let wrong = |reason: &str| Err(Failure::input(format!("{}: {reason}", output.display())));
    if output.is_dir() {
        let mut inside = fs::read_dir(output)
            .with_context(|| output.display().to_string())
            .input()?;
        if inside.next().is_some() {
            return wrong("exists and is not empty; --output names a new folder");
        }
    } else if output.exists() {
        return wrong("is a file; --output names a folder");
    }
    if output.file_name().is_none() {
        return wrong("names no folder");
    }
    let around = open::folder_of(output)?.canonicalize();
    for input in inputs {
        if let (Ok(around), Ok(whole)) = (&around, Path::new(input).canonicalize())
            && around.starts_with(whole)
        {
            return wrong(&format!("would be part of {input}, which is read"));
        }
    }
    Ok(())
}

/// Refuses splits of which one that was asked for has no row.
fn check_rows(flags: &Flags, splits: [usize; 3], origin: &str) -> Result<(), Failure> {
    let [train, valid, test] = splits;
    let wanted = [true, flags.valid > 0.0, flags.test > 0.0];
    if splits
        .iter()
        .zip(wanted)
        .all(|(&rows, wanted)| rows > 0 || !wanted)
    {
        return Ok(());
    }
    let rows = train + valid + test;
    let reason = format!(
        "{origin}: {rows} rows leave {train} to train, {valid} to validate and {test} to test on; other shares are needed, \
         or more rows"
    );
    Err(Failure::input(reason))
}

fn write_texts(
    flags: &Flags,
    rows: &WholeRows,
    fresh: &Path,
    counts: &mut [usize; 3],
) -> Result<(), Failure> {
    if flags.stratify && !rows.given.is_empty() {
        return Err(already_split(flags));
    }
    let Splits { train, valid, test } = if flags.stratify {
        let classes: Vec<String> = rows.rows.iter().map(|row| row.labels.join("\n")).collect();
        if classes.iter().all(String::is_empty) {
            return Err(Failure::input("--stratify needs --label-column"));
        }
        let keys = rows.keys();
        let keys = keys.iter();
        let hashes = keys.map(|key| split::content_hash(key.as_bytes(), flags.seed));
        let hashes: Vec<ContentHash> = hashes.collect();
        stratified(&hashes, &classes, flags.valid, flags.test)
    } else {
        rows.split(SplitShares {
            valid: flags.valid,
            test: flags.test,
            seed: flags.seed,
            labels: 0,
        })
    };
    let splits = [train, valid, test];
    *counts = [0, 1, 2].map(|split| splits[split].len());
    check_rows(flags, *counts, &rows.origin())?;
    begin(fresh)?;
    for (name, split) in NAMES.iter().zip(&splits) {
        if !split.is_empty() {
            let bytes = set::jsonl(split.iter().map(|&row| &rows.rows[row]))?;
            write(&fresh.join(format!("{name}.jsonl")), &bytes)?;
        }
    }
    for line in rows.left_out.lines() {
        eprintln!("warning: {line}");
    }
    Ok(())
}

fn already_split(flags: &Flags) -> Failure {
    Failure::input(format!(
        "{}: is in splits already; --stratify is for what is not",
        flags.source.name()
    ))
}

fn write_images(
    flags: &Flags,
    sets: &ImageRowSets,
    fresh: &Path,
    counts: &mut [usize; 3],
) -> Result<(), Failure> {
    let images = &sets.train;
    let has_class = match &images.targets {
        ImageTargets::Classes(_) => true,
        ImageTargets::None => false,
        ImageTargets::Several(_)
        | ImageTargets::Values(_)
        | ImageTargets::Masks(_)
        | ImageTargets::Boxes(_) => {
            return Err(Failure::input(format!(
                "{}: images with one class each, or without labels, are split into folders; these have other targets",
                flags.source.name()
            )));
        }
    };
    let splits = if flags.stratify {
        if sets.valid.is_some() || sets.test.is_some() {
            return Err(already_split(flags));
        }
        if !has_class {
            return Err(Failure::input("--stratify needs images with classes"));
        }
        let classes: Vec<String> = (0..images.len())
            .map(|row| set::classes(images, row).join("\n"))
            .collect();
        let hashes = images.contents(flags.seed);
        let Splits { train, valid, test } = stratified(&hashes, &classes, flags.valid, flags.test);
        [train, valid, test].map(|rows| images.select(&rows))
    } else {
        let ImageSplits { train, valid, test } =
            ImageSplits::new(sets.clone(), flags.valid, flags.test, flags.seed)?;
        [train, valid, test]
    };
    *counts = [0, 1, 2].map(|split| splits[split].len());
    check_rows(flags, *counts, &images.origin)?;
    begin(fresh)?;
    for (name, split) in NAMES.iter().zip(&splits) {
        write_split(&fresh.join(name), split)?;
    }
    for reason in sets.left_out.lines() {
        eprintln!("warning: {reason}");
    }
    Ok(())
}

/// Images in a folder a class, their files as they are.
fn write_split(folder: &Path, images: &ImageRows) -> Result<(), Failure> {
    let mut names: HashSet<PathBuf> = HashSet::new();
    for row in 0..images.len() {
        let class = set::classes(images, row).join(" ");
        check_class(&class)?;
        let folder = folder.join(class);
        fs::create_dir_all(&folder)
            .with_context(|| folder.display().to_string())
            .running()?;
        let (name, bytes) = file(images, row)?;
        let mut path = folder.join(&name);
        // Of files of one name in several folders each is kept.
        if !names.insert(path.clone()) {
            path = folder.join(format!("{row}-{name}"));
            names.insert(path.clone());
        }
        write(&path, &bytes)?;
    }
    Ok(())
}

/// Refuses names of classes that name no folder.
fn check_class(class: &str) -> Result<(), Failure> {
    if matches!(class, "." | "..") || class.contains(['/', '\\', '\0']) {
        return Err(Failure::input(format!(
            "class \"{class}\" is no name of a folder"
        )));
    }
    Ok(())
}

/// Name and bytes of an image's file; of what has none a PNG.
fn file(images: &ImageRows, row: usize) -> Result<(String, Vec<u8>), Failure> {
    let place = images.place(row);
    let Some(bytes) = images.encoded(row)? else {
        let picture = images.picture(row);
        return Ok((format!("{row:06}.png"), png(&picture)?));
    };
    let name = Path::new(&place).file_name().unwrap_or_default();
    // A row of a table is `photos.parquet:7`.
    let name = name.to_string_lossy().replace(':', "-");
    let format = image::guess_format(&bytes).running()?;
    let known = Path::new(&name)
        .extension()
        .and_then(image::ImageFormat::from_extension);
    let extension = format.extensions_str().first().unwrap_or(&"png");
    let name = if known.is_some() {
        name
    } else {
        format!("{name}.{extension}")
    };
    Ok((name, bytes.into_owned()))
}

fn png(picture: &data::Picture) -> Result<Vec<u8>, Failure> {
    let colour = if picture.channels == 1 {
        image::ExtendedColorType::L8
    } else {
        image::ExtendedColorType::Rgb8
    };
    let mut png = std::io::Cursor::new(Vec::new());
    let (width, height) = (picture.width as u32, picture.height as u32);
    let format = image::ImageFormat::Png;
    image::write_buffer_with_format(&mut png, &picture.pixels, width, height, colour, format)
        .running()?;
    Ok(png.into_inner())
}

/// An empty folder to write into, in place of what a killed command left.
fn begin(fresh: &Path) -> Result<(), Failure> {
    let place = || fresh.display().to_string();
    if fresh.is_dir() {
        fs::remove_dir_all(fresh).with_context(place).running()?;
    }
    fs::create_dir(fresh).with_context(place).running()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = fs::write(path, bytes);
    written
        .with_context(|| path.display().to_string())
        .running()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_share_of_every_split() {
        // 100 contents of a, each twice, 10 of b, one of c.
        let class = |i: usize| match i {
            0..200 => "a",
            200..210 => "b",
            _ => "c",
        };
        let content = |i: usize| if i < 200 { i % 100 } else { i };
        let classes: Vec<String> = (0..211).map(|i| class(i).into()).collect();
        for seed in 0..10 {
            let hash = |i: usize| split::content_hash(&content(i).to_le_bytes(), seed);
            let hashes: Vec<ContentHash> = (0..211).map(hash).collect();
            let splits = stratified(&hashes, &classes, 0.2, 0.1);
            let of =
                |rows: &[usize], name: &str| rows.iter().filter(|&&row| class(row) == name).count();
            let Splits { train, valid, test } = &splits;
            assert_eq!(
                [of(train, "a"), of(valid, "a"), of(test, "a")],
                [140, 40, 20]
            );
            assert_eq!([of(train, "b"), of(valid, "b"), of(test, "b")], [7, 2, 1]);
            assert_eq!(of(train, "c"), 1);
            assert!(
                train
                    .iter()
                    .all(|row| !test.contains(&((row + 100) % 200)) || *row >= 200)
            );
        }
    }

    #[test]
    fn classes_name_folders_inside() {
        for class in ["..", "a/b", "a\\b"] {
            assert!(check_class(class).is_err(), "{class}");
        }
        assert!(check_class("noun.animal").is_ok());
    }
}
