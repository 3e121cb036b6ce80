//! Images of a data set as people look at them. In: images and the rows that are chosen. Out: a PNG, each image over its
//! classes.

use anyhow::Context;
use train::Failure;
use train::failure::caught;
use train::job::image::{ImageRows, PixelBatch};
use train::report::sheet::Sheet;

use super::set;

/// Draws some images in a grid.
///
/// # Errors
///
/// A grid that is too large for a PNG, or a file that can't be read any more.
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
    let sheet = Sheet {
        images: PixelBatch::from_bytes(&pixels, images.shape()),
        captions: rows.iter().map(|&row| set::classes(images, row)).collect(),
    };
    let png = sheet.to_png();
    png.context("the drawing failed").map_err(Failure::Running)
}
