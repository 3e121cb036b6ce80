//! Masks as files. In: predictions of masks. Out: a PNG an image, whose grey values are the numbers of the classes.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{GrayImage, ImageFormat};
use train::{Failure, FailureKind};

use super::{Output, Prediction};
use crate::input::Input;
use crate::open;

/// Where the mask of each row goes.
pub(super) struct Masks {
    folder: PathBuf,
    files: Vec<PathBuf>,
}

impl Masks {
    /// Names the files, before anything is predicted.
    ///
    /// # Errors
    ///
    /// A file that exists and is not to be replaced.
    pub(super) fn new(folder: &Path, input: &Input, force: bool) -> Result<Self, Failure> {
        let places: Vec<String> = match input {
            Input::Pictures(pictures) => {
                (0..pictures.len()).map(|row| pictures.place(row)).collect()
            }
            Input::Rows(_) => vec![],
        };
        let files: Vec<PathBuf> = names(&places)
            .iter()
            .map(|name| folder.join(name))
            .collect();
        if folder.exists() && !folder.is_dir() {
            let folder = folder.display();
            return Err(Failure::input(format!("{folder}: is no folder")));
        }
        if let Some(file) = files.iter().find(|file| file.exists() && !force) {
            let file = file.display();
            return Err(Failure::input(format!(
                "{file}: exists; --force replaces it"
            )));
        }
        let folder = folder.into();
        Ok(Self { folder, files })
    }

    /// Writes all masks, and says in each prediction where its mask is.
    pub(super) fn write(&self, predictions: &mut [Prediction]) -> Result<(), Failure> {
        std::fs::create_dir_all(&self.folder).running()?;
        for (prediction, file) in predictions.iter_mut().zip(&self.files) {
            let Some(Output::Mask(mask)) = &mut prediction.output else {
                continue;
            };
            let (width, height) = (mask.width as u32, mask.height as u32);
            let Some(image) = GrayImage::from_raw(width, height, mask.pixels.clone()) else {
                continue;
            };
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, ImageFormat::Png).running()?;
            open::write_output(file, bytes.get_ref())?;
            mask.file = Some(file.display().to_string());
        }
        Ok(())
    }
}

/// Names of images as names of masks; a number is added to those that others have too.
fn names(places: &[String]) -> Vec<String> {
    let mut taken = HashSet::new();
    let name = |place: &String| {
        let stem = Path::new(place).file_stem().unwrap_or_default();
        // Of an image in a file of many: mnist:7.
        let stem = stem.to_string_lossy().replace(':', "-");
        let mut name = format!("{stem}.png");
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{stem}-{number}.png");
            number += 1;
        }
        name
    };
    places.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mask_has_a_name_of_its_own() {
        let places = ["a/x.png", "b/x.jpg", "x-2.png", "mnist:7"].map(String::from);
        assert_eq!(
            names(&places),
            ["x.png", "x-2.png", "x-2-2.png", "mnist-7.png"]
        );
    }
}
