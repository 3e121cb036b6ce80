//! Images of files, folders and IDX, decoded when they are asked for. In: paths. Out: pictures in their own sizes.

use std::ops::Range;
use std::path::{Path, PathBuf};

use data::image::{image_files, is_image};
use data::{Ground, ImageSet, Picture, read_picture, source};
use rayon::prelude::*;
use train::Failure;

use super::InputRow;
use crate::task::Row;
use crate::task::image_scores::{Seen, of_set};

/// Where images are.
#[derive(Clone, Debug)]
pub struct Pictures {
    all: Vec<Place>,
    sets: Vec<(String, ImageSet)>,
    channels: usize,
    /// Whether it is one file alone, which needs no place.
    single: bool,
}

#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    /// An image of a set.
    Set(usize, usize),
}

impl Pictures {
    /// Files, folders of them, IDX files, or the bundled `mnist`.
    ///
    /// # Errors
    ///
    /// A path that is missing, or a folder without images.
    pub fn named(named: &[String], seen: &Seen) -> Result<Self, Failure> {
        let mut pictures = Self {
            all: vec![],
            sets: vec![],
            channels: seen.channels,
            single: matches!(named, [one] if is_image(Path::new(one))),
        };
        for name in named {
            let path = Path::new(name);
            if is_image(path) {
                pictures.all.push(Place::File(path.into()));
            } else if let Some(files) = image_files(path)? {
                pictures.all.extend(files.into_iter().map(Place::File));
            } else {
                let set = source::images(std::slice::from_ref(name), None)?;
                let number = pictures.sets.len();
                let rows = (0..set.len()).map(|row| Place::Set(number, row));
                pictures.all.extend(rows);
                pictures.sets.push((name.clone(), set));
            }
        }
        Ok(pictures)
    }

    /// Paths of files, a line each.
    pub(super) fn of_lines(lines: Vec<(usize, String)>, seen: &Seen) -> Self {
        let paths = lines.into_iter();
        let paths = paths.map(|(_, line)| Place::File(line.trim().into()));
        Self {
            all: paths.collect(),
            sets: vec![],
            channels: seen.channels,
            single: false,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The file of an image, or its place in a file of many.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn place(&self, row: usize) -> String {
        match &self.all[row] {
            Place::File(path) => path.display().to_string(),
            Place::Set(set, row) => format!("{}:{row}", self.sets[*set].0),
        }
    }

    /// Some images, decoded on all cores.
    pub(super) fn window(&self, range: Range<usize>) -> Vec<InputRow> {
        let row = |row: usize| InputRow {
            place: (!self.single).then(|| self.place(row)),
            row: self.picture(row).map(Row::Image),
        };
        range.into_par_iter().map(row).collect()
    }

    fn picture(&self, row: usize) -> Result<Picture, String> {
        match &self.all[row] {
            Place::File(path) => {
                read_picture(path, self.channels, Ground::WHITE).map_err(|error| error.to_string())
            }
            Place::Set(set, row) => Ok(of_set(&self.sets[*set].1, *row)),
        }
    }
}
