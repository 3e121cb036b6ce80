//! Images of a data set as people look at them. In: images and the rows that are chosen. Out: a PNG, each image with its boxes or
//! its mask, over its classes or its value.

use anyhow::Context;
use data::image::{BoxLabel, IGNORED, ImageTargets, read_mask};
use train::Failure;
use train::failure::caught;
use train::job::image::{ImageRows, PixelBatch};
use train::report::marks::{outline, tint};
use train::report::sheet::Sheet;

use super::set;

/// Draws some images in a grid.
///
/// # Errors
///
/// A grid that is too large for a PNG, or a file or a mask that can't be read.
///
/// # Panics
///
/// If a row is outside the set.
pub fn png(images: &ImageRows, rows: &[usize]) -> Result<Vec<u8>, Failure> {
    let seen = || -> Vec<u8> {
        let rows = rows.iter();
        rows.flat_map(|&row| images.seen(row).planes()).collect()
    };
    let pixels = caught(seen).map_err(Failure::Running)?;
    let mut drawn = PixelBatch::from_bytes(&pixels, images.shape());
    let captions = rows.iter().enumerate();
    let captions = captions.map(|(at, &row)| captioned(images, row, &mut drawn, at));
    let captions = captions.collect::<Result<_, _>>()?;
    let sheet = Sheet {
        images: drawn,
        captions,
    };
    let png = sheet.to_png();
    png.context("the drawing failed").map_err(Failure::Running)
}

/// Draws boxes and masks into an image; what is written under it.
///
/// - at: its place in the batch
fn captioned(
    images: &ImageRows,
    row: usize,
    drawn: &mut PixelBatch,
    at: usize,
) -> Result<Vec<String>, Failure> {
    let [_, height, width] = images.shape();
    let placement = || images.view().placement(images.size(row));
    match &images.targets {
        ImageTargets::Values(all) => Ok(vec![all[row].to_string()]),
        ImageTargets::Boxes(all) => {
            let seen = all[row].iter();
            let seen = seen.filter_map(|label| placement().label(label, [height, width]));
            let seen: Vec<BoxLabel> = seen.collect();
            seen.iter().for_each(|label| outline(drawn, at, label));
            let name = |label: &BoxLabel| images.classes[label.class as usize].clone();
            Ok(seen.iter().map(name).collect())
        }
        ImageTargets::Masks(all) => {
            let mask = read_mask(&all[row])?;
            let size = [mask.height, mask.width];
            let seen = placement().mask(&mask.classes, size, [height, width]);
            tint(drawn, at, &seen);
            let there = (0..IGNORED).filter(|class| seen.contains(class));
            let named = |class: u8| match images.classes.get(usize::from(class)) {
                Some(name) => name.clone(),
                None => class.to_string(),
            };
            Ok(vec![there.map(named).collect::<Vec<_>>().join(", ")])
        }
        ImageTargets::Classes(_) | ImageTargets::Several(_) | ImageTargets::None => {
            Ok(set::classes(images, row))
        }
    }
}
