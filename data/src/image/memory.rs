//! Refuses what does not fit into memory, before it is taken: a file of some KiB can promise any number of pixels.
//! In: sizes that a header promises. Out: room for them, or an error.

use std::fmt::Display;
use std::io;
use std::path::Path;

use super::{LONGEST_SIDE, check_shape};
use crate::DataError;

/// Bytes that a decoded image may take before it is resized.
pub(super) const MOST_BYTES: u64 = 512 << 20;

/// Pixels that an image may have before it is resized: as many as fit at three bytes each.
pub(super) const MOST_PIXELS: u64 = MOST_BYTES / 3;

/// One part in so many of the memory is for a set: its splits are a second copy, and a model has to train beside them.
const SHARE: u64 = 4;

/// Taken for the memory of a machine that does not say how much it has.
const USUAL_MEMORY: u64 = 16 << 30;

/// Refuses an image that is too large to hold while it is resized.
pub(crate) fn check_pixels(path: &Path, height: u32, width: u32) -> Result<(), DataError> {
    let pixels = u64::from(height) * u64::from(width);
    let reason = if pixels > MOST_PIXELS {
        format!("{height}x{width} are {pixels} pixels; an image may have {MOST_PIXELS}")
    } else if height.max(width) as usize > LONGEST_SIDE {
        // Resizing holds the old width at the new height, at 16 bytes a pixel.
        format!("{height}x{width} has a side of more than {LONGEST_SIDE} pixels")
    } else {
        return Ok(());
    };
    Err(too_large(path, reason))
}

/// An empty vector with room for so many images, if this machine can hold them.
///
/// - shape: channels, height, width
pub(crate) fn room(path: &Path, images: u64, shape: [usize; 3]) -> Result<Vec<u8>, DataError> {
    let [channels, height, width] = shape;
    check_shape(channels, height, width)?;
    let values = shape
        .iter()
        .fold(images, |values, &n| values.saturating_mul(n as u64));
    let colours = if channels == 1 { "grey" } else { "RGB" };
    let what = format!("{images} {colours} images of {height}x{width}");
    reserved(path, values, what)
}

/// An empty vector with room for so many bytes, if this machine can hold them.
///
/// - what: for the message, `70000 labels`
pub(crate) fn reserved(path: &Path, bytes: u64, what: impl Display) -> Result<Vec<u8>, DataError> {
    let memory = memory_bytes();
    // Room that is promised and never filled is never touched, so it costs nothing.
    let room = (bytes <= most_bytes()).then(|| crate::room::of(bytes as usize));
    room.flatten().ok_or_else(|| {
        too_large(
            path,
            format!(
                "{what} take {bytes} bytes; data may take a quarter of the {memory} bytes of memory, where that is free"
            ),
        )
    })
}

/// Bytes that a set may take.
pub(super) fn most_bytes() -> u64 {
    memory_bytes() / SHARE
}

/// Bytes of memory this machine has.
fn memory_bytes() -> u64 {
    // Only Linux has the file.
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total_memory(&told).unwrap_or(USUAL_MEMORY)
}

/// What `/proc/meminfo` says of the whole memory, in bytes.
fn total_memory(told: &str) -> Option<u64> {
    let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = total?.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The kind is what a failed allocation has.
fn too_large(path: &Path, reason: String) -> DataError {
    DataError::Io {
        path: path.into(),
        source: io::Error::new(io::ErrorKind::OutOfMemory, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    /// Why there is no room.
    fn reason<T>(room: Result<T, DataError>) -> String {
        let error = room.err().unwrap();
        error.source().unwrap().to_string()
    }

    #[test]
    fn an_image_may_have_so_many_pixels() {
        // 178,945,000 pixels are within it, 178,958,000 are not.
        assert!(check_pixels(Path::new("x"), 13_000, 13_765).is_ok());
        assert!(check_pixels(Path::new("x"), 13_000, 13_766).is_err());
        assert!(check_pixels(Path::new("x"), 1, 65_535).is_ok());
        assert!(check_pixels(Path::new("x"), 65_536, 1).is_err());
    }

    #[test]
    fn a_set_has_to_fit_into_a_quarter_of_the_memory() {
        let path = Path::new("x");
        let pixels = room(path, 3, [3, 2, 4]).unwrap();
        assert!(pixels.is_empty() && pixels.capacity() >= 72);
        // 2^48 bytes are more than any machine has.
        let message = reason(room(path, 1 << 20, [1, 1 << 14, 1 << 14]));
        let (start, rest) = message.split_once(" bytes; ").unwrap();
        assert_eq!(
            start,
            "1048576 grey images of 16384x16384 take 281474976710656"
        );
        assert!(rest.contains("a quarter of the"), "{message}");
        let message = reason(room(path, u64::MAX, [3, 2, 2]));
        assert!(
            message.contains("RGB images of 2x2 take 18446744073709551615 bytes"),
            "{message}"
        );
        assert!(matches!(
            room(path, 1, [1, 0, 2]),
            Err(DataError::ImageShape { .. })
        ));
    }

    #[test]
    fn the_system_says_how_much_memory_there_is() {
        let told = "MemTotal:        2048 kB\nMemFree:         1024 kB\n";
        assert_eq!(total_memory(told), Some(2 << 20));
        assert_eq!(total_memory("MemFree: 1024 kB\n"), None);
        assert_eq!(total_memory(""), None);
    }
}
