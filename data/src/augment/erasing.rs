//! Erases a rectangle. In: a picture. Out: one of the same size.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Fill, Region, Transform, check_above_zero, check_probability, check_range, happens};
use crate::image::Picture;

/// Erases a random rectangle, Zhong et al. 2017, <https://arxiv.org/abs/1708.04896>: torchvision's `RandomErasing`.
///
/// A value is one of 8 bits, as pixels are not normalised yet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Erasing {
    /// Probability.
    pub p: f64,
    /// Least and largest share of the picture's area.
    pub scale: [f64; 2],
    /// Least and largest ratio of height to width.
    pub ratio: [f64; 2],
    /// The colour that takes the place.
    pub value: Fill,
}

impl Default for Erasing {
    fn default() -> Self {
        Self {
            p: 0.5,
            scale: [0.02, 0.33],
            ratio: [0.3, 3.3],
            value: Fill::default(),
        }
    }
}

impl Transform for Erasing {
    fn kind(&self) -> &'static str {
        "erasing"
    }

    fn check(&self) -> Result<(), String> {
        check_probability(self.p)?;
        check_range("scale", self.scale, [0.0, 1.0])?;
        check_above_zero("ratio", self.ratio)
    }

    fn apply(&self, mut picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        if !happens(self.p, rng) {
            return picture;
        }
        let size = picture.size();
        let fits = |[height, width]: [usize; 2]| height < size[0] && width < size[1];
        let sides = |area, ratio| [area * ratio, area / ratio];
        let region = Region::draw(size, self.scale, self.ratio, sides, fits, rng);
        if let Some(region) = region {
            erase(&mut picture, region, self.value);
        }
        picture
    }
}

fn erase(picture: &mut Picture, region: Region, value: Fill) {
    let (row_len, channels) = (picture.row_len(), picture.channels);
    let value = value.pixel(channels);
    let columns = region.left * channels..(region.left + region.width) * channels;
    let rows = picture.pixels.chunks_exact_mut(row_len);
    for row in rows.skip(region.top).take(region.height) {
        for pixel in row[columns.clone()].chunks_exact_mut(channels) {
            pixel.copy_from_slice(&value[..channels]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_rectangle_of_the_wanted_share_is_erased() {
        let erasing = Erasing {
            p: 1.0,
            scale: [0.25, 0.25],
            ratio: [1.0, 1.0],
            value: Fill::Rgb([1, 2, 3]),
        };
        let picture = Picture::new(3, [20, 20], vec![200; 1200]);
        let erased = erasing.apply(picture, &mut ChaCha8Rng::seed_from_u64(3));
        let pixels = erased.pixels.as_chunks::<3>().0;
        assert_eq!(
            pixels.iter().filter(|&&pixel| pixel == [1, 2, 3]).count(),
            100
        );
        assert_eq!(
            pixels.iter().filter(|&&pixel| pixel == [200; 3]).count(),
            300
        );
    }

    #[test]
    fn a_picture_without_room_stays_as_it_is() {
        let erasing = Erasing {
            p: 1.0,
            scale: [1.0, 1.0],
            ..Erasing::default()
        };
        let picture = Picture::new(1, [1, 1], vec![7]);
        let same = erasing.apply(picture.clone(), &mut ChaCha8Rng::seed_from_u64(0));
        assert_eq!(same, picture);
    }
}
