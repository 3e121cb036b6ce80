//! Memory for the images of requests. In: their bytes. Out: as much room as their headers promise, until they are answered.
//!
//! A file of some KiB can promise half a GiB, and many may come at once.

use std::io::Cursor;
use std::sync::Arc;

use image::ImageReader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Refusal;

/// Bytes that a pixel takes while it is decoded and waits.
const PIXEL_BYTES: u64 = 8;
/// KiB for the images of all requests.
const ALL_KIB: usize = 1 << 20;
/// KiB for those of one request.
const MOST_KIB: u64 = 1 << 19;

/// Room that is taken; it is given back where this is dropped.
pub(super) type Room = OwnedSemaphorePermit;

/// What there is for all images.
#[derive(Clone)]
pub(super) struct Rooms(Arc<Semaphore>);

impl Rooms {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ALL_KIB)))
    }

    /// - kib: what the images of a request take
    pub(super) fn take(&self, kib: u64) -> Result<Room, Refusal> {
        if kib > MOST_KIB {
            let most = MOST_KIB * 1024 / PIXEL_BYTES;
            let message = format!("the images of a request may have {most} pixels together");
            return Err(Refusal::value("inputs", message));
        }
        let taken = self.0.clone().try_acquire_many_owned(kib as u32);
        taken.map_err(|_| Refusal::full())
    }
}

/// KiB that an image takes, as its header says; what has no header takes none, and is refused when it is decoded.
pub(super) fn kib(bytes: &[u8]) -> u64 {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let size = reader.ok().and_then(|reader| reader.into_dimensions().ok());
    size.map_or(0, |(width, height)| {
        let pixels = u64::from(width) * u64::from(height);
        1 + pixels.saturating_mul(PIXEL_BYTES) / 1024
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_as_large_as_headers_promise_and_comes_back() {
        let mut png = Cursor::new(Vec::new());
        let picture = image::GrayImage::new(64, 32);
        picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
        assert_eq!(kib(png.get_ref()), 17);
        assert_eq!(kib(b"no image"), 0);
        let rooms = Rooms::new();
        assert_eq!(rooms.take(MOST_KIB + 1).unwrap_err().status, 422);
        let first = rooms.take(MOST_KIB).unwrap();
        let second = rooms.take(MOST_KIB).unwrap();
        assert_eq!(rooms.take(1).unwrap_err().status, 429);
        drop((first, second));
        assert!(rooms.take(1).is_ok());
    }
}
