//! One decoded image of any size. In: pixels. Out: [`Picture`], and its planes for a batch.

/// A grey or RGB image of 8 bits, interleaved: `[height, width, channels]`.
///
/// Decoders give this layout and resizing is fastest in it, so a picture stays so until
/// [`write_planes`](Self::write_planes) puts it into a channel-first batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
    /// `[height, width, channels]`.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// - pixels: `[height, width, channels]`
    ///
    /// # Panics
    /// If these are not 1 or 3 channels, or not so many pixels.
    pub fn new(channels: usize, [height, width]: [usize; 2], pixels: Vec<u8>) -> Self {
        assert!(matches!(channels, 1 | 3), "{channels} channels");
        assert_eq!(pixels.len(), channels * height * width, "number of pixels");
        Self {
            channels,
            height,
            width,
            pixels,
        }
    }

    /// From planes that lie one after the other, `[channels, height, width]`.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn from_planes(channels: usize, size: [usize; 2], planes: &[u8]) -> Self {
        let plane = size[0] * size[1];
        let pixels = (0..plane).flat_map(|at| (0..channels).map(move |c| planes[c * plane + at]));
        Self::new(channels, size, pixels.collect())
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Writes the picture channel-first.
    ///
    /// - planes: `[channels, height, width]`
    /// - value: what is written for a value of 8 bits of this channel
    ///
    /// # Panics
    /// If `planes` is not as long as the picture.
    pub fn write_planes<T>(&self, planes: &mut [T], value: impl Fn(usize, u8) -> T) {
        assert_eq!(planes.len(), self.pixels.len(), "length of the planes");
        if self.channels == 1 {
            for (to, &from) in planes.iter_mut().zip(&self.pixels) {
                *to = value(0, from);
            }
            return;
        }
        let (red, rest) = planes.split_at_mut(self.height * self.width);
        let (green, blue) = rest.split_at_mut(self.height * self.width);
        let planes = red.iter_mut().zip(green).zip(blue);
        for (((red, green), blue), pixel) in planes.zip(self.pixels.as_chunks::<3>().0) {
            *red = value(0, pixel[0]);
            *green = value(1, pixel[1]);
            *blue = value(2, pixel[2]);
        }
    }

    /// The planes, `[channels, height, width]`.
    pub fn planes(&self) -> Vec<u8> {
        let mut planes = vec![0; self.pixels.len()];
        self.write_planes(&mut planes, |_, value| value);
        planes
    }

    /// The number of values in a row.
    pub(crate) fn row_len(&self) -> usize {
        self.width * self.channels
    }

    /// The values of the pixel in this row and column.
    pub(crate) fn pixel(&self, y: usize, x: usize) -> &[u8] {
        let at = (y * self.width + x) * self.channels;
        &self.pixels[at..at + self.channels]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_and_interleaved_pixels_hold_the_same() {
        let planes = [1, 2, 11, 12, 21, 22];
        let picture = Picture::from_planes(3, [1, 2], &planes);
        assert_eq!(picture.pixels, [1, 11, 21, 2, 12, 22]);
        assert_eq!(picture.planes(), planes);
        let mut scaled = [0.0; 6];
        picture.write_planes(&mut scaled, |c, value| f32::from(value) + c as f32 / 4.0);
        assert_eq!(scaled, [1.0, 2.0, 11.25, 12.25, 21.5, 22.5]);
        let grey = Picture::new(1, [2, 1], vec![3, 4]);
        assert_eq!(grey.planes(), [3, 4]);
    }
}
