//! What a run has drawn of images: reconstructions, samples, interpolations.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::Context;
use image::{ImageFormat, ImageReader};
use train::{Failure, FailureKind};

use super::html::{escape, note, picture};
use crate::record::Record;

/// Pixels of the longer side of an input that is shown in a table.
const SIDE: u32 = 96;

/// Every PNG of the run's folder; nothing where there is none.
///
/// # Errors
///
/// A file that cannot be read.
pub(super) fn of_run(record: &Record) -> Result<Option<String>, Failure> {
    let place = || record.path.display().to_string();
    let mut paths = Vec::new();
    for entry in fs::read_dir(&record.path).with_context(place).input()? {
        let path = entry.with_context(place).input()?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "png") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Ok(None);
    }
    let mut body = String::new();
    for path in paths {
        body += &of_file(&path)?;
    }
    Ok(Some(body))
}

fn of_file(path: &Path) -> Result<String, Failure> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let png = fs::read(path).with_context(|| path.display().to_string());
    let png = png.input()?;
    let size = ImageReader::with_format(Cursor::new(&png), ImageFormat::Png).into_dimensions();
    let Ok((width, height)) = size else {
        return Ok(note(&format!("{file} is no PNG and is left out.")));
    };
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = path.with_extension("");
    let when = if folder.is_dir() {
        " of the last validation that drew them"
    } else {
        ""
    };
    let what = format!("{}{when} ({file})", name.replace(['_', '-'], " "));
    let image = picture(&png, [width, height], &what);
    let caption = escape(&what);
    Ok(format!(
        "<figure>\n{image}\n<figcaption>{caption}</figcaption>\n</figure>\n"
    ))
}

/// A small image of a file, for a table; nothing where it is no image that can be read.
pub(super) fn thumbnail(path: &Path, what: &str) -> Option<String> {
    let mut reader = ImageReader::open(path).ok()?.with_guessed_format().ok()?;
    reader.limits(image::Limits::default());
    let image = reader.decode().ok()?;
    let image = if image.width().max(image.height()) > SIDE {
        image.thumbnail(SIDE, SIDE)
    } else {
        image
    };
    let mut png = Cursor::new(Vec::new());
    // 16 bits a channel would be of no use here.
    let small = image.to_rgb8();
    small.write_to(&mut png, ImageFormat::Png).ok()?;
    let size = [small.width(), small.height()];
    Some(picture(png.get_ref(), size, what))
}
