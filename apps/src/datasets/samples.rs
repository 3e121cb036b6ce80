//! Images of a data set as people look at them. In: images and the rows that are chosen. Out: a PNG, each image over its
//! classes.

use anyhow::Context;
use train::Failure;
use train::job::image::{ImageRows, PixelBatch};
use train::report::sheet::Sheet;

use super::set;

/// Draws some images in a grid.
///
/// # Errors
///
/// A grid that is too large for a PNG.
///
/// # Panics
///
/// If a row is outside the set, or a file can't be read any more.
pub fn png(images: &ImageRows, rows: &[usize]) -> Result<Vec<u8>, Failure> {
    let pixels: Vec<u8> = rows
        .iter()
        .flat_map(|&row| images.seen(row).planes())
        .collect();
    let sheet = Sheet {
        images: PixelBatch::from_bytes(&pixels, images.shape()),
        captions: rows.iter().map(|&row| set::classes(images, row)).collect(),
    };
    let png = sheet.to_png();
    png.context("the drawing failed").map_err(Failure::Running)
}
