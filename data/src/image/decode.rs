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
use super::{Ground, content};
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

/// All bytes of a file as they are, whatever its name ends in.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
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
        .map_err(|source| decode_error(path, format, source))?;
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
    let (format, mut decoder) = open(path, bytes)?;
    let failed = |source| decode_error(path, format, source);
    let orientation = orientation(format, bytes, &mut decoder).map_err(failed)?;
    let image = decoded(path, format, bytes, decoder)?;
    let mut image = over(image, ground);
    image.apply_orientation(orientation);
    let from = (image.height() as usize, image.width() as usize);
    Ok(resize(
        channel_first(image, channels),
        from,
        (height, width),
    ))
}

/// A decoder that has read the header.
fn open<'a>(
    path: &Path,
    bytes: &'a [u8],
) -> Result<(ImageFormat, impl ImageDecoder + 'a), DataError> {
    let format = content::format(path, bytes)?;
    let failed = |source| decode_error(path, format, source);
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
    let orientation = exif.and_then(|exif| {
        // Some writers of PNG and WebP keep the mark that only JPEG has.
        let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif);
        Orientation::from_exif_chunk(exif)
    });
    Ok(orientation.unwrap_or(Orientation::NoTransforms))
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

fn decoded(
    path: &Path,
    format: ImageFormat,
    bytes: &[u8],
    decoder: impl ImageDecoder,
) -> Result<DynamicImage, DataError> {
    let image = if format == ImageFormat::Jpeg {
        // The last rows may be missing where the decoder sees nothing wrong.
        if !has_jpeg_end(bytes) {
            return Err(truncated(path, format));
        }
        jpeg(bytes, decoder)
    } else {
        DynamicImage::from_decoder(decoder)
    };
    image.map_err(|source| decode_error(path, format, source))
}

/// Decodes a JPEG as `image` does, except that broken pixels are an error.
fn jpeg(bytes: &[u8], decoder: impl ImageDecoder) -> ImageResult<DynamicImage> {
    let (width, height) = decoder.dimensions();
    match decoder.color_type() {
        ColorType::L8 => {
            let image = GrayImage::from_raw(width, height, jpeg_bytes(bytes, ColorSpace::Luma)?);
            image.map(DynamicImage::from)
        }
        ColorType::Rgb8 => {
            let image = RgbImage::from_raw(width, height, jpeg_bytes(bytes, ColorSpace::RGB)?);
            image.map(DynamicImage::from)
        }
        _ => None,
    }
    .ok_or_else(|| {
        let kind = UnsupportedErrorKind::GenericFeature("its number of colours".into());
        ImageError::Unsupported(UnsupportedError::from_format_and_kind(
            ImageFormat::Jpeg.into(),
            kind,
        ))
    })
}

fn jpeg_bytes(bytes: &[u8], colors: ColorSpace) -> ImageResult<Vec<u8>> {
    let failed = |source: DecodeErrors| {
        ImageError::Decoding(DecodingError::new(ImageFormat::Jpeg.into(), source))
    };
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(colors);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(failed)?;
    // Cameras leave stray bytes between headers, which do no harm; among the pixels nothing may be wrong.
    decoder.set_options(options.set_strict_mode(true));
    decoder.decode().map_err(failed)
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
    let start = bytes.iter().position(|&byte| byte == 0xff)?;
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

fn decode_error(path: &Path, format: ImageFormat, source: ImageError) -> DataError {
    if is_end_of_file(&source) {
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
