//! Decodes an image as people see it. In: the bytes of a file. Out: 8-bit planes, channel-first.
//!
//! - turned and mirrored as its EXIF orientation says
//! - what is transparent shows a ground
//! - 16 bits become 8, palettes and CMYK become RGB; colour profiles are ignored, all is taken for sRGB
//! - an animation shows its first frame, a TIFF of many pages the first
//! - an image that breaks off is an error: decoders of JPEG rather fill the rest with grey

use std::error::Error;
use std::io::{self, Cursor};
use std::path::Path;

use image::error::{DecodingError, UnsupportedError, UnsupportedErrorKind};
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, GrayImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat,
    ImageReader, ImageResult, Limits, Luma, RgbImage,
};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::memory::{MOST_BYTES, check_pixels};
use super::{Ground, Picture, content};
use crate::{DataError, file};

/// What the header of an image says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) format: ImageFormat,
    /// Over this ground.
    pub(super) is_grey: bool,
    /// As shown.
    pub(super) height: usize,
    /// As shown.
    pub(super) width: usize,
}

/// All bytes of a file as they are, whatever its name ends in; of one that is far too large for an image, none.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let size = std::fs::metadata(path).map_or(0, |about| about.len());
    if size > MOST_BYTES {
        return Err(DataError::ImageFileTooLarge {
            path: path.into(),
            mib: size >> 20,
            most: MOST_BYTES >> 20,
        });
    }
    let bytes = std::fs::read(path).map_err(|source| file::io_error(path, source))?;
    if bytes.is_empty() {
        return Err(DataError::Empty { path: path.into() });
    }
    Ok(bytes)
}

/// The header; an image with too many pixels is refused.
pub(super) fn header(path: &Path, bytes: &[u8], ground: Ground) -> Result<Header, DataError> {
    let (format, mut decoder) = open(path, bytes)?;
    let (width, height) = decoder.dimensions();
    let orientation = orientation(format, bytes, &mut decoder)
        .map_err(|source| decode_error(path, format, bytes, source))?;
    let (height, width) = if is_on_its_side(orientation) {
        (width, height)
    } else {
        (height, width)
    };
    let colors = decoder.color_type();
    Ok(Header {
        format,
        is_grey: !colors.has_color() && (ground.is_grey() || !colors.has_alpha()),
        height: height as usize,
        width: width as usize,
    })
}

/// The pixels of an image, converted to grey or RGB and resized.
///
/// - shape: channels, height, width
pub(super) fn pixels(
    path: &Path,
    bytes: &[u8],
    [channels, height, width]: [usize; 3],
    ground: Ground,
) -> Result<Vec<u8>, DataError> {
    let image = upright(path, bytes, ground)?;
    let from = (image.height() as usize, image.width() as usize);
    Ok(resize(
        channel_first(image, channels),
        from,
        (height, width),
    ))
}

/// An image in its own size, converted to grey or RGB.
pub(super) fn picture(
    path: &Path,
    bytes: &[u8],
    channels: usize,
    ground: Ground,
) -> Result<Picture, DataError> {
    let image = upright(path, bytes, ground)?;
    let size = [image.height() as usize, image.width() as usize];
    let pixels = match channels {
        1 => image.into_luma8().into_raw(),
        _ => image.into_rgb8().into_raw(),
    };
    Ok(Picture::new(channels, size, pixels))
}

/// An image as people see it.
fn upright(path: &Path, bytes: &[u8], ground: Ground) -> Result<DynamicImage, DataError> {
    let format = content::format(path, bytes)?;
    let failed = |source| decode_error(path, format, bytes, source);
    let (image, orientation) = if format == ImageFormat::Jpeg {
        jpeg(path, bytes)?
    } else {
        let (format, mut decoder) = open(path, bytes)?;
        let orientation = orientation(format, bytes, &mut decoder).map_err(failed)?;
        let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
        (image, orientation)
    };
    let mut image = over(image, ground);
    image.apply_orientation(orientation);
    Ok(image)
}

/// A decoder that has read the header.
fn open<'a>(
    path: &Path,
    bytes: &'a [u8],
) -> Result<(ImageFormat, impl ImageDecoder + 'a), DataError> {
    let format = content::format(path, bytes)?;
    let failed = |source| decode_error(path, format, bytes, source);
    let decoder = ImageReader::with_format(Cursor::new(bytes), format)
        .into_decoder()
        .map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_pixels(path, height, width)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_BYTES);
    limits.reserve(decoder.total_bytes()).map_err(failed)?;
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        // They have no white to scale by.
        let kind = UnsupportedErrorKind::GenericFeature("pixels of floating point".into());
        let source = UnsupportedError::from_format_and_kind(format.into(), kind);
        return Err(failed(ImageError::Unsupported(source)));
    }
    Ok((format, decoder))
}

/// How the stored image has to be turned and mirrored to be seen upright.
fn orientation(
    format: ImageFormat,
    bytes: &[u8],
    decoder: &mut impl ImageDecoder,
) -> ImageResult<Orientation> {
    let exif = match format {
        ImageFormat::Tiff => return decoder.orientation(),
        // The decoder knows only what comes before the pixels.
        ImageFormat::Png => png_exif(bytes).map(<[u8]>::to_vec),
        _ => decoder.exif_metadata()?,
    };
    let orientation = exif.and_then(|exif| exif_orientation(&exif));
    Ok(orientation.unwrap_or(Orientation::NoTransforms))
}

fn exif_orientation(exif: &[u8]) -> Option<Orientation> {
    // Some writers of PNG and WebP keep the mark that only JPEG has.
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(exif)
}

/// The EXIF chunk of a PNG, before its pixels or after them.
fn png_exif(bytes: &[u8]) -> Option<&[u8]> {
    // A signature of 8 bytes, then chunks: length, name, content, checksum.
    let mut rest = bytes.get(8..)?;
    loop {
        let length = rest.first_chunk().copied().map(u32::from_be_bytes)? as usize;
        let content = rest.get(8..)?.get(..length)?;
        if &rest[4..8] == b"eXIf" {
            return Some(content);
        }
        rest = rest[8 + length..].get(4..)?;
    }
}

/// Whether height and width change places.
fn is_on_its_side(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// Decodes a JPEG as `image` does, except that broken pixels are an error; and how it has to be turned.
fn jpeg(path: &Path, bytes: &[u8]) -> Result<(DynamicImage, Orientation), DataError> {
    let failed = |source| decode_error(path, ImageFormat::Jpeg, bytes, jpeg_error(source));
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(failed)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let (width, height) = (width as u32, height as u32);
    check_pixels(path, height, width)?;
    let orientation = decoder.exif().and_then(|exif| exif_orientation(exif));
    // The last rows may be missing where the decoder sees nothing wrong.
    if !has_jpeg_end(bytes) {
        return Err(truncated(path, ImageFormat::Jpeg));
    }
    let is_grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let colors = if is_grey {
        ColorSpace::Luma
    } else {
        ColorSpace::RGB
    };
    // Cameras leave stray bytes between headers, which do no harm; among the pixels nothing may be wrong.
    let options = options.set_strict_mode(true);
    decoder.set_options(options.jpeg_set_out_colorspace(colors));
    let pixels = decoder.decode().map_err(failed)?;
    let image = if is_grey {
        GrayImage::from_raw(width, height, pixels).map(DynamicImage::from)
    } else {
        RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
    };
    let image = image.ok_or_else(|| failed(DecodeErrors::FormatStatic("too few pixels")))?;
    Ok((image, orientation.unwrap_or(Orientation::NoTransforms)))
}

/// As `image` tells apart what is broken and what is not read.
fn jpeg_error(source: DecodeErrors) -> ImageError {
    let format = ImageFormat::Jpeg.into();
    match source {
        DecodeErrors::Unsupported(kind) => {
            let kind = UnsupportedErrorKind::GenericFeature(format!("{kind:?}"));
            ImageError::Unsupported(UnsupportedError::from_format_and_kind(format, kind))
        }
        source => ImageError::Decoding(DecodingError::new(format, source)),
    }
}

/// Whether a JPEG goes on to its end-of-image marker. The preview inside an EXIF segment has one too, which does not
/// count.
fn has_jpeg_end(bytes: &[u8]) -> bool {
    // After the start-of-image marker.
    let mut at = 2;
    loop {
        let Some(next) = bytes.get(at..).and_then(after_fill) else {
            return false;
        };
        at += next;
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            // A 255 among the pixels, and markers without content: restarts, another start.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            // A segment, which says how long it is.
            Some(_) => {
                let Some(&[high, low]) = bytes.get(at + 1..at + 3) else {
                    return false;
                };
                at += 1 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
}

/// Where the byte after the next 255, or the next run of them, is.
fn after_fill(bytes: &[u8]) -> Option<usize> {
    let start = memchr::memchr(0xff, bytes)?;
    let run = bytes[start..].iter().position(|&byte| byte != 0xff)?;
    Some(start + run)
}

/// Lays an image over a ground, as far as one can see through it.
fn over(image: DynamicImage, ground: Ground) -> DynamicImage {
    let colors = image.color();
    if !colors.has_alpha() {
        return image;
    }
    let (width, height) = (image.width(), image.height());
    let mixed = |value: u8, ground: u8, alpha: u8| {
        let [value, ground, alpha] = [value, ground, alpha].map(u32::from);
        ((value * alpha + ground * (255 - alpha) + 127) / 255) as u8
    };
    let flat = if ground.is_grey() && !colors.has_color() {
        let pixels = image.into_luma_alpha8().into_raw();
        let mixed = pixels
            .chunks_exact(2)
            .map(|pixel| mixed(pixel[0], ground.0[0], pixel[1]));
        GrayImage::from_raw(width, height, mixed.collect()).map(DynamicImage::from)
    } else {
        let pixels = image.into_rgba8().into_raw();
        let mixed = pixels
            .chunks_exact(4)
            .flat_map(|pixel| [0, 1, 2].map(|c| mixed(pixel[c], ground.0[c], pixel[3])));
        RgbImage::from_raw(width, height, mixed.collect()).map(DynamicImage::from)
    };
    flat.expect("each pixel gives as many values as its new kind has")
}

fn channel_first(image: DynamicImage, channels: usize) -> Vec<u8> {
    if channels == 1 {
        return image.into_luma8().into_raw();
    }
    let rgb = image.into_rgb8().into_raw();
    let channel = |offset| rgb.iter().skip(offset).step_by(3).copied();
    channel(0).chain(channel(1)).chain(channel(2)).collect()
}

/// Pixels of one channel, borrowed.
type Plane<'a> = ImageBuffer<Luma<u8>, &'a [u8]>;

/// Resizes planes of one size (height, width) that lie one after the other.
pub(crate) fn resize(pixels: Vec<u8>, from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    if from == to {
        return pixels;
    }
    let planes = pixels.chunks_exact(from.0 * from.1);
    let resized = planes.flat_map(|plane| {
        let plane = Plane::from_raw(from.1 as u32, from.0 as u32, plane)
            .expect("a plane holds height x width pixels");
        // Triangle is bilinear, and averages over the pixels it leaves out when it shrinks.
        imageops::resize(&plane, to.1 as u32, to.0 as u32, FilterType::Triangle).into_raw()
    });
    resized.collect()
}

fn truncated(path: &Path, format: ImageFormat) -> DataError {
    DataError::ImageTruncated {
        path: path.into(),
        format: content::name(format),
    }
}

fn decode_error(path: &Path, format: ImageFormat, bytes: &[u8], source: ImageError) -> DataError {
    if is_end_of_file(&source) || (format == ImageFormat::WebP && is_cut_riff(bytes)) {
        return truncated(path, format);
    }
    let path = path.into();
    if let ImageError::Unsupported(_) = source {
        let format = content::name(format);
        return DataError::ImageKind {
            path,
            format,
            source,
        };
    }
    DataError::Decode { path, source }
}

/// Whether bytes are missing, by the error or what caused it.
fn is_end_of_file(error: &ImageError) -> bool {
    let is_end = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    if let ImageError::IoError(error) = error {
        return is_end(error);
    }
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let mut causes = causes.filter_map(|cause| cause.downcast_ref());
    causes.any(is_end)
}

/// Whether a WebP promises more bytes than there are: its decoder takes the end for a broken code.
fn is_cut_riff(bytes: &[u8]) -> bool {
    // "RIFF", then the number of bytes that follow.
    let promised = bytes.get(4..).and_then(|rest| rest.first_chunk());
    promised.is_some_and(|&size| 8 + u64::from(u32::from_le_bytes(size)) > bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::png::PngEncoder;
    use image::codecs::webp::WebPEncoder;
    use image::{ExtendedColorType, ImageEncoder, Rgb, Rgba};

    /// The quarters of the golden pictures, from the top left.
    const QUARTERS: [[u8; 3]; 4] = [[200, 30, 40], [20, 180, 60], [30, 50, 210], [240, 230, 90]];
    const WHITE: [u8; 3] = [255; 3];
    const SHAPE: [usize; 3] = [3, 32, 64];

    fn golden(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/images");
        std::fs::read(folder.join(name)).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, DataError> {
        let path = Path::new("x");
        let Header { height, width, .. } = header(path, bytes, Ground::WHITE)?;
        pixels(path, bytes, [3, height, width], Ground::WHITE)
    }

    /// The middles of the four quarters of a picture of 32x64.
    fn quarters(bytes: &[u8], ground: Ground) -> [[u8; 3]; 4] {
        let header = header(Path::new("x"), bytes, ground).unwrap();
        assert_eq!((header.height, header.width), (32, 64));
        let pixels = pixels(Path::new("x"), bytes, SHAPE, ground).unwrap();
        let at = |y, x| [0, 1, 2].map(|c: usize| pixels[(c * 32 + y) * 64 + x]);
        [at(8, 16), at(8, 48), at(24, 16), at(24, 48)]
    }

    #[track_caller]
    fn assert_near(name: &str, expected: [[u8; 3]; 4], tolerance: u8) {
        let found = quarters(&golden(name), Ground::WHITE);
        let pairs = found.as_flattened().iter().zip(expected.as_flattened());
        let far = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(far <= tolerance, "{name}: {found:?}, right: {expected:?}");
    }

    #[test]
    fn pictures_of_another_writer_have_their_colours() {
        // Lossy ones to within the rounding of flat blocks.
        for (name, tolerance) in [
            ("lossy.webp", 4),
            ("animated.webp", 0),
            ("animated.gif", 0),
            ("progressive.jpg", 3),
            ("restarts.jpg", 4),
            ("lzw.tif", 0),
        ] {
            assert_near(name, QUARTERS, tolerance);
        }
        let [red, green, blue, dark_yellow] =
            [[255, 0, 0], [0, 255, 0], [0, 0, 255], [127, 127, 0]];
        assert_near("cmyk.jpg", [red, green, blue, dark_yellow], 3);
        assert_near("cmyk.tif", [red, green, blue, dark_yellow], 1);
        let [black, white] = [[0; 3], WHITE];
        assert_near("bilevel.png", [black, white, white, black], 0);
        assert_near("bilevel.tif", [black, white, white, black], 0);
    }

    #[test]
    fn transparent_pixels_show_the_ground() {
        let [red, green, _, [r, g, b]] = QUARTERS;
        // (240 * 128 + 255 * 127 + 127) / 255 and so on.
        let half = [247, 242, 172];
        assert_eq!((r, g, b), (240, 230, 90));
        assert_near("transparent.webp", [red, green, WHITE, half], 0);
        let [_, green, blue, yellow] = QUARTERS;
        assert_near("palette.png", [WHITE, green, blue, yellow], 0);
        let ground = Ground([1, 2, 3]);
        let seen = quarters(&golden("palette.png"), ground);
        assert_eq!(seen, [[1, 2, 3], green, blue, yellow]);
    }

    #[test]
    fn pictures_are_turned_as_their_exif_says() {
        assert_near("on-its-side.webp", QUARTERS, 4);
        assert_near("on-its-side.tif", QUARTERS, 0);
        assert_near("late-exif.png", QUARTERS, 0);
    }

    #[test]
    fn kinds_that_are_not_read_are_named() {
        for name in ["palette.tif", "float.tif"] {
            let error = read(&golden(name)).err().unwrap();
            let expected = "x: a kind of TIFF that is not read; PNG of 8 bits is";
            assert_eq!(error.to_string(), expected, "{name}");
        }
    }

    /// A picture without two equal pixels beside each other.
    fn noise(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let mixed = (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761);
            Rgb([(mixed >> 8) as u8, (mixed >> 16) as u8, (mixed >> 24) as u8])
        })
    }

    fn written(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    const FORMATS: [ImageFormat; 6] = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::Tiff,
    ];

    #[test]
    fn a_picture_that_breaks_off_is_an_error_wherever_it_does() {
        let noise = DynamicImage::from(noise(19, 23));
        let mut pictures: Vec<_> = FORMATS
            .iter()
            .map(|&format| (content::name(format), written(&noise, format)))
            .collect();
        for name in [
            "lossy.webp",
            "animated.gif",
            "progressive.jpg",
            "lzw.tif",
            "palette.png",
        ] {
            pictures.push((name, golden(name)));
        }
        for (name, bytes) in pictures {
            let whole = read(&bytes).unwrap();
            let mut errors = 0;
            for len in 1..bytes.len() {
                match read(&bytes[..len]) {
                    // What follows the pixels may be missing, a checksum or the directory's padding.
                    Ok(pixels) => assert!(pixels == whole, "{name}: {len} of {}", bytes.len()),
                    Err(_) => errors += 1,
                }
            }
            // An animation may break off after its first frame.
            assert!(errors >= bytes.len() / 2, "{name}: {errors}");
        }
    }

    #[test]
    fn a_truncated_picture_says_so() {
        let noise = DynamicImage::from(noise(19, 23));
        for format in FORMATS {
            let bytes = written(&noise, format);
            let error = read(&bytes[..bytes.len() * 6 / 10]).err().unwrap();
            // The decoder of GIF does not say which of its errors is an early end.
            let expected = if format == ImageFormat::Gif {
                "x: cannot decode the image".into()
            } else {
                let name = content::name(format);
                format!("x: the {name} is truncated, its end is missing")
            };
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_jpeg_with_foreign_bytes_in_its_middle_is_broken() {
        let mut bytes = written(&DynamicImage::from(noise(64, 64)), ImageFormat::Jpeg);
        let middle = bytes.len() / 2;
        // As where a block of a disk was lost to another file; the image crate fills the rest with grey.
        bytes[middle..][..64]
            .copy_from_slice(&[b"lost".repeat(15), b"\xff\xc5\0\x02".to_vec()].concat());
        assert!(image::load_from_memory(&bytes).is_ok());
        let error = read(&bytes).err().unwrap();
        assert_eq!(error.to_string(), "x: cannot decode the image");
    }

    #[test]
    fn bytes_after_the_end_do_no_harm() {
        let noise = DynamicImage::from(noise(19, 23));
        for format in FORMATS {
            let bytes = written(&noise, format);
            let more = [&bytes, &b"extra bytes after the end"[..]].concat();
            assert_eq!(read(&more).unwrap(), read(&bytes).unwrap());
        }
    }

    #[test]
    fn the_end_of_a_preview_is_not_the_end_of_a_jpeg() {
        let noise = DynamicImage::from(noise(19, 23));
        let bytes = written(&noise, ImageFormat::Jpeg);
        // The end-of-image marker of a preview, inside a segment of 4 bytes for applications.
        let preview = [&bytes[..2], b"\xff\xe1\0\x04\xff\xd9", &bytes[2..]].concat();
        assert!(has_jpeg_end(&preview));
        assert!(!has_jpeg_end(&preview[..preview.len() - 2]));
        // Markers may be filled up with 255, and restarts and stuffed bytes stand among the pixels.
        assert!(has_jpeg_end(
            b"\xff\xd8\xff\xff\xda\0\x02\x01\xff\0\xff\xd0\x02\xff\xff\xd9"
        ));
        assert!(!has_jpeg_end(b"\xff\xd8\xff\xda\0\x02\x01\xff"));
        assert!(!has_jpeg_end(b"\xff\xd8\xff\xda\0"));
        assert!(!has_jpeg_end(b"\xff\xd8"));
    }

    #[test]
    fn a_jpeg_has_the_pixels_that_the_image_crate_reads() {
        let gradient = RgbImage::from_fn(50, 37, |x, y| Rgb([x as u8 * 5, y as u8 * 6, 90]));
        for image in [
            DynamicImage::from(gradient.clone()),
            DynamicImage::from(gradient).grayscale(),
            DynamicImage::from(noise(33, 65)),
        ] {
            let bytes = written(&image, ImageFormat::Jpeg);
            let plain = image::load_from_memory(&bytes).unwrap();
            let channels = usize::from(plain.color().channel_count());
            let shape = [channels, plain.height() as usize, plain.width() as usize];
            assert_eq!(
                pixels(Path::new("x"), &bytes, shape, Ground::WHITE).unwrap(),
                channel_first(plain, channels)
            );
        }
    }

    /// EXIF that holds nothing but an orientation: little-endian, one entry of one short number.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        exif
    }

    /// 3 high and 2 wide, each pixel a value: 1 2 / 3 4 / 5 6.
    fn numbered() -> GrayImage {
        GrayImage::from_raw(2, 3, vec![1, 2, 3, 4, 5, 6]).unwrap()
    }

    #[test]
    fn all_eight_orientations_are_undone() {
        for (orientation, (height, width), expected) in [
            (1, (3, 2), [1, 2, 3, 4, 5, 6]),
            (2, (3, 2), [2, 1, 4, 3, 6, 5]),
            (3, (3, 2), [6, 5, 4, 3, 2, 1]),
            (4, (3, 2), [5, 6, 3, 4, 1, 2]),
            // Mirrored along the falling diagonal, turned right, mirrored along the other diagonal, turned left.
            (5, (2, 3), [1, 3, 5, 2, 4, 6]),
            (6, (2, 3), [5, 3, 1, 6, 4, 2]),
            (7, (2, 3), [6, 4, 2, 5, 3, 1]),
            (8, (2, 3), [2, 4, 6, 1, 3, 5]),
            // No orientation at all: as it is stored.
            (9, (3, 2), [1, 2, 3, 4, 5, 6]),
        ] {
            for prefix in [&b""[..], b"Exif\0\0"] {
                let exif = [prefix, &exif(orientation)].concat();
                let mut png = Vec::new();
                let mut encoder = PngEncoder::new(&mut png);
                encoder.set_exif_metadata(exif.clone()).unwrap();
                let grey = ExtendedColorType::L8;
                encoder.write_image(&numbered(), 2, 3, grey).unwrap();
                let mut webp = Vec::new();
                let mut encoder = WebPEncoder::new_lossless(&mut webp);
                encoder.set_exif_metadata(exif).unwrap();
                encoder.write_image(&numbered(), 2, 3, grey).unwrap();
                for bytes in [png, webp] {
                    let header = header(Path::new("x"), &bytes, Ground::WHITE).unwrap();
                    assert_eq!((header.height, header.width), (height, width));
                    let shape = [1, height, width];
                    let pixels = pixels(Path::new("x"), &bytes, shape, Ground::WHITE).unwrap();
                    assert_eq!(pixels, expected, "orientation {orientation}");
                }
            }
        }
    }

    #[test]
    fn a_turned_jpeg_is_upright_before_it_is_resized() {
        let mut upright = RgbImage::from_pixel(32, 16, Rgb([0, 0, 200]));
        for (_, _, pixel) in upright.enumerate_pixels_mut().filter(|(x, _, _)| *x < 16) {
            *pixel = Rgb([200, 0, 0]);
        }
        // Orientation 6 is undone by a turn to the right, so what is stored is turned to the left.
        let stored = imageops::rotate270(&upright);
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
        encoder.set_exif_metadata(exif(6)).unwrap();
        encoder.encode_image(&stored).unwrap();
        let pixels = pixels(Path::new("x"), &bytes, [3, 2, 4], Ground::WHITE).unwrap();
        let [red, blue] = [&pixels[..8], &pixels[16..]];
        for row in [&red[..4], &red[4..]] {
            assert!(row[0] > 190 && row[3] < 10, "{red:?}");
        }
        assert!(blue[0] < 10 && blue[3] > 190, "{blue:?}");
    }

    #[test]
    fn sixteen_bits_become_eight_and_grey_with_alpha_stays_grey() {
        let deep = ImageBuffer::from_raw(2, 1, vec![0u16, 65_535, 257 * 77, 32_768]).unwrap();
        let bytes = written(&DynamicImage::ImageLumaA16(deep), ImageFormat::Png);
        let header_of = |ground| header(Path::new("x"), &bytes, ground).unwrap();
        assert!(header_of(Ground::WHITE).is_grey);
        assert!(!header_of(Ground([0, 0, 9])).is_grey);
        // Opaque black; then 77 under half of white: (77 * 128 + 255 * 127 + 127) / 255.
        let grey = pixels(Path::new("x"), &bytes, [1, 1, 2], Ground::WHITE).unwrap();
        assert_eq!(grey, [0, 166]);
        let blue = Ground([0, 0, 9]);
        let rgb = pixels(Path::new("x"), &bytes, [3, 1, 2], blue).unwrap();
        // 77 * 128 / 255 is 38.65, and 9 * 127 / 255 is 4.48.
        assert_eq!(rgb, [0, 39, 0, 39, 0, 43]);
    }

    #[test]
    fn opaque_pixels_keep_their_values() {
        let image =
            image::RgbaImage::from_fn(16, 16, |x, y| Rgba([(x + 16 * y) as u8, 7, 200, 255]));
        let bytes = written(&image.clone().into(), ImageFormat::Png);
        let plain = channel_first(DynamicImage::from(image), 3);
        assert_eq!(read(&bytes).unwrap(), plain);
    }

    #[test]
    fn resizing_keeps_the_planes_apart() {
        // Two planes of 2x2, each of one value, to 1x4.
        let pixels = resize(vec![9, 9, 9, 9, 5, 5, 5, 5], (2, 2), (1, 4));
        assert_eq!(pixels, [9, 9, 9, 9, 5, 5, 5, 5]);
        assert_eq!(resize(vec![0, 100], (1, 2), (1, 1)), [50]);
    }
}
