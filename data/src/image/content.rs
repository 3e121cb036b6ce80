//! Knows an image by its first bytes. In: bytes and a path. Out: the format, or why there is none that can be read.
//!
//! Names lie: a web search saves WebP as `.jpg`, a phone saves JPEG as `.heic`. A name counts only where the bytes say
//! nothing: `photo.jpg` that holds a web page is a broken image, `notes.txt` is none.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use image::ImageFormat;

use crate::{DataError, file};

/// Formats that are read, for messages.
pub(super) const FORMATS: &str = "PNG, JPEG, WebP, BMP, GIF and TIFF";

/// Bytes from the start of a file that are enough to know a format.
const START: usize = 32;

const CAMERA_RAW: &str = "camera raw";

/// A format of images.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Read(ImageFormat),
    /// One that is not read, by its name.
    Unread(&'static str),
}

/// Where which bytes make which format.
const MAGIC: &[(usize, &[u8], Format)] = &[
    (0, b"\x89PNG\r\n\x1a\n", Format::Read(ImageFormat::Png)),
    (0, b"\xff\xd8\xff", Format::Read(ImageFormat::Jpeg)),
    (0, b"GIF87a", Format::Read(ImageFormat::Gif)),
    (0, b"GIF89a", Format::Read(ImageFormat::Gif)),
    (0, b"II*\0", Format::Read(ImageFormat::Tiff)),
    (0, b"MM\0*", Format::Read(ImageFormat::Tiff)),
    // TIFF of more than 4 GiB.
    (0, b"II+\0", Format::Read(ImageFormat::Tiff)),
    (0, b"MM\0+", Format::Read(ImageFormat::Tiff)),
    (4, b"ftypavi", Format::Unread("AVIF")),
    (4, b"ftyphe", Format::Unread("HEIC")),
    (4, b"ftypmif1", Format::Unread("HEIC")),
    (4, b"ftypmsf1", Format::Unread("HEIC")),
    (0, b"\xff\x0a", Format::Unread("JPEG XL")),
    (0, b"\0\0\0\x0cJXL ", Format::Unread("JPEG XL")),
    (0, b"\0\0\0\x0cjP  ", Format::Unread("JPEG 2000")),
    (0, b"8BPS", Format::Unread("PSD")),
];

/// The format of a file that can be read.
///
/// # Errors
/// No image, or one of another format.
pub(super) fn format(path: &Path, bytes: &[u8]) -> Result<ImageFormat, DataError> {
    let path_format = format_of_name(path);
    match (format_of_bytes(bytes), path_format) {
        // Camera raw begins like a TIFF whose first image is a small preview.
        (Some(Format::Read(ImageFormat::Tiff)), Some(Format::Unread(CAMERA_RAW))) => {
            Err(unread(path, CAMERA_RAW))
        }
        (Some(Format::Read(format)), _) => Ok(format),
        (Some(Format::Unread(name)), _) | (None, Some(Format::Unread(name))) => {
            Err(unread(path, name))
        }
        (None, _) => Err(DataError::NotAnImage { path: path.into() }),
    }
}

/// Whether a file is an image by its content or by its name, which may turn out to be wrong.
pub(super) fn may_be_image(path: &Path) -> bool {
    if format_of_name(path).is_some() {
        // A link that leads nowhere was meant as an image; a pipe never ends.
        return path.is_file() || !path.exists();
    }
    path.is_file() && start(path).is_some_and(|start| format_of_bytes(&start).is_some())
}

/// Whether these are the first bytes of an image.
pub(super) fn begins_image(bytes: &[u8]) -> bool {
    format_of_bytes(bytes).is_some()
}

/// Whether a name ends as those of images that are read do.
pub(super) fn has_image_name(path: &Path) -> bool {
    matches!(format_of_name(path), Some(Format::Read(_)))
}

/// What the format is called, for messages.
pub(super) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        _ => "TIFF",
    }
}

/// Whether the name promises another format than the content has.
pub(super) fn is_misnamed(path: &Path, format: ImageFormat) -> bool {
    format_of_name(path).is_some_and(|named| named != Format::Read(format))
}

fn unread(path: &Path, format: &'static str) -> DataError {
    DataError::ImageFormat {
        path: path.into(),
        format,
        known: FORMATS,
    }
}

/// The first bytes of a file; nothing where it can't be read, as nobody asked for this one.
fn start(path: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    let file = File::open(path).ok()?;
    file.take(START as u64).read_to_end(&mut start).ok()?;
    Some(start)
}

fn format_of_bytes(bytes: &[u8]) -> Option<Format> {
    let starts = |&&(from, magic, _): &&(usize, &[u8], Format)| {
        let rest = bytes.get(from..).unwrap_or_default();
        rest.starts_with(magic)
    };
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some(Format::Read(ImageFormat::WebP));
    }
    if is_bmp(bytes) {
        return Some(Format::Read(ImageFormat::Bmp));
    }
    let found = MAGIC.iter().find(starts);
    found.map(|&(_, _, format)| format)
}

/// "BM" alone begins many a text: the four reserved bytes and the size of the second header count too.
fn is_bmp(bytes: &[u8]) -> bool {
    let size = bytes
        .get(14..18)
        .map(|size| [size[0], size[1], size[2], size[3]]);
    let sizes = [12, 16, 40, 52, 56, 64, 108, 124].map(u32::to_le_bytes);
    bytes.starts_with(b"BM")
        && bytes.get(6..10) == Some(&[0; 4])
        && size.is_some_and(|size| sizes.contains(&size))
}

fn format_of_name(path: &Path) -> Option<Format> {
    let name = file::name(path).to_lowercase();
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension {
        "png" | "apng" => Format::Read(ImageFormat::Png),
        "jpg" | "jpeg" | "jpe" | "jfif" | "jif" | "pjpeg" | "pjp" => {
            Format::Read(ImageFormat::Jpeg)
        }
        "webp" => Format::Read(ImageFormat::WebP),
        "bmp" | "dib" => Format::Read(ImageFormat::Bmp),
        "gif" => Format::Read(ImageFormat::Gif),
        "tif" | "tiff" => Format::Read(ImageFormat::Tiff),
        "heic" | "heif" => Format::Unread("HEIC"),
        "avif" => Format::Unread("AVIF"),
        "jxl" => Format::Unread("JPEG XL"),
        "jp2" | "j2k" | "jpf" | "jpx" => Format::Unread("JPEG 2000"),
        "psd" => Format::Unread("PSD"),
        "svg" => Format::Unread("SVG"),
        "ico" => Format::Unread("ICO"),
        "tga" => Format::Unread("TGA"),
        "pbm" | "pgm" | "ppm" | "pnm" => Format::Unread("PNM"),
        "exr" => Format::Unread("OpenEXR"),
        "qoi" => Format::Unread("QOI"),
        "dng" | "nef" | "cr2" | "cr3" | "arw" | "orf" | "rw2" | "pef" | "srw" | "raf" => {
            Format::Unread(CAMERA_RAW)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, bytes: &[u8]) -> String {
        format(Path::new(name), bytes).unwrap_err().to_string()
    }

    /// The first bytes of a bitmap with a second header of 40 bytes.
    const BITMAP: &[u8] = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0";

    #[test]
    fn the_content_decides_whatever_the_name() {
        for (bytes, expected) in [
            (&b"\x89PNG\r\n\x1a\n\0"[..], ImageFormat::Png),
            (b"\xff\xd8\xff\xe0", ImageFormat::Jpeg),
            (b"RIFF\x24\0\0\0WEBPVP8 ", ImageFormat::WebP),
            (b"GIF87a\x01", ImageFormat::Gif),
            (b"GIF89a\x01", ImageFormat::Gif),
            (b"II*\0\x08", ImageFormat::Tiff),
            (b"MM\0*\0", ImageFormat::Tiff),
            (b"MM\0+\0\x08", ImageFormat::Tiff),
            (BITMAP, ImageFormat::Bmp),
        ] {
            for name in ["a.png", "a.heic", "a.txt", "a"] {
                assert_eq!(format(Path::new(name), bytes).unwrap(), expected);
            }
        }
    }

    #[test]
    fn formats_that_are_not_read_are_named() {
        let read = "PNG, JPEG, WebP, BMP, GIF and TIFF";
        for (name, bytes, expected) in [
            ("a", &b"\0\0\0\x18ftypheic\0"[..], "HEIC"),
            ("a.jpg", b"\0\0\0\x18ftypmif1\0", "HEIC"),
            ("a.png", b"\0\0\0\x1cftypavif\0", "AVIF"),
            ("a", b"\xff\x0a\0", "JPEG XL"),
            ("a", b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
            ("a.SVG", b"<svg>", "SVG"),
            ("a.NEF", b"MM\0*\0", "camera raw"),
        ] {
            assert_eq!(
                message(name, bytes),
                format!("{name}: is {expected}, a format that is not read; known are {read}")
            );
        }
    }

    #[test]
    fn neither_texts_nor_films_are_images() {
        for bytes in [
            &b"BMW builds cars, and not one of these is a bitmap."[..],
            b"P6 is a room",
            b"RIFF\x24\0\0\0WAVEfmt ",
            b"\0\0\0\x18ftypisom\0",
            b"",
        ] {
            let reason = "is not an image, though its name says so";
            assert_eq!(message("a.jpg", bytes), format!("a.jpg: {reason}"));
            assert_eq!(format_of_bytes(bytes), None);
        }
    }

    #[test]
    fn a_name_may_promise_another_format() {
        let webp = ImageFormat::WebP;
        assert!(is_misnamed(Path::new("a.png"), webp));
        assert!(is_misnamed(Path::new("a.heic"), webp));
        assert!(!is_misnamed(Path::new("a.WEBP"), webp));
        assert!(!is_misnamed(Path::new("a.dat"), webp));
        assert!(!is_misnamed(Path::new("a.jfif"), ImageFormat::Jpeg));
    }

    #[test]
    fn a_file_may_be_an_image_by_name_or_by_content() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            may_be_image(&path)
        };
        assert!(file("a.jpg", b""));
        assert!(file("b.TIFF", b"<html>"));
        assert!(file("c", BITMAP));
        assert!(file("d.txt", b"\xff\xd8\xff\xe0"));
        assert!(!file("e.txt", b"BMW"));
        assert!(!file("f", b""));
        assert!(may_be_image(&folder.path().join("missing.png")));
        assert!(!may_be_image(&folder.path().join("missing")));
        assert!(!may_be_image(folder.path()));
    }
}
