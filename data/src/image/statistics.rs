//! Mean and spread of the pixels that are trained on. In: a set. Out: [`Statistics`].

use rayon::prelude::*;

use super::{ImageFiles, ImageSet, Picture};
use crate::{DataError, order};

/// Of each channel, over all pixels scaled to 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Means; as many as there are channels.
    pub mean: Vec<f64>,
    /// Standard deviations; as many as there are channels.
    pub std: Vec<f64>,
}

/// Sums over the values of one channel; whole numbers, so that their order does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    count: u64,
    sum: u64,
    squares: u64,
}

impl Sums {
    fn of(values: impl Iterator<Item = u8>) -> Self {
        values.fold(Self::default(), |sums, value| {
            let value = u64::from(value);
            Self {
                count: sums.count + 1,
                sum: sums.sum + value,
                squares: sums.squares + value * value,
            }
        })
    }

    /// Those of each channel of a picture.
    pub(super) fn of_picture(picture: &Picture) -> Vec<Self> {
        let values = |channel| {
            let values = picture.pixels.iter().skip(channel);
            Self::of(values.step_by(picture.channels).copied())
        };
        (0..picture.channels).map(values).collect()
    }

    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            sum: self.sum + other.sum,
            squares: self.squares + other.squares,
        }
    }

    fn mean(self) -> f64 {
        self.sum as f64 / self.count as f64 / 255.0
    }

    fn std(self) -> f64 {
        // In whole numbers, as the difference may be far smaller than both.
        let [count, sum, squares] = [self.count, self.sum, self.squares].map(u128::from);
        let spread = (count * squares - sum * sum) as f64;
        spread.sqrt() / self.count as f64 / 255.0
    }
}

impl Statistics {
    /// Those of pictures together.
    ///
    /// - sums: of each channel of each picture
    pub(super) fn of_pictures<'a>(
        channels: usize,
        sums: impl Iterator<Item = &'a Vec<Sums>>,
    ) -> Self {
        let none = vec![Sums::default(); channels];
        Self::of(&sums.fold(none, |all, sums| added(all, sums.clone())))
    }

    fn of(sums: &[Sums]) -> Self {
        Self {
            mean: sums.iter().map(|sums| sums.mean()).collect(),
            std: sums.iter().map(|sums| sums.std()).collect(),
        }
    }
}

/// Those of a set in memory.
///
/// # Panics
/// If the set is empty.
pub fn channel_statistics(set: &ImageSet) -> Statistics {
    assert!(!set.is_empty(), "an image to count the pixels of");
    let plane = set.height * set.width;
    let sums = (0..set.len()).into_par_iter().map(|i| {
        let planes = set.image(i).chunks_exact(plane);
        planes
            .map(|plane| Sums::of(plane.iter().copied()))
            .collect()
    });
    Statistics::of(&sums.reduce(|| vec![Sums::default(); set.channels], added))
}

/// Those of encoded images in their own sizes, decoded on all cores and one after the other on each. Where there are more
/// than `most`, so many of them are looked at, which ones depends on the seed alone.
///
/// # Errors
/// An image that can't be decoded.
///
/// # Panics
/// If the set is empty, or `most` is 0.
pub fn file_statistics(set: &ImageFiles, most: usize, seed: u64) -> Result<Statistics, DataError> {
    let mut seen = order::shuffled(set.len(), seed, 0);
    seen.truncate(most);
    assert!(!seen.is_empty(), "an image to count the pixels of");
    let sums = seen.into_par_iter().map(|i| {
        let picture = set.decode(i as usize)?;
        Ok(Sums::of_picture(&picture))
    });
    let none = || vec![Sums::default(); set.channels];
    let sums = sums.try_reduce(none, |a, b| Ok(added(a, b)))?;
    Ok(Statistics::of(&sums))
}

fn added(a: Vec<Sums>, b: Vec<Sums>) -> Vec<Sums> {
    a.into_iter().zip(b).map(|(a, b)| a.add(b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations_are_those_of_all_pixels() {
        let set = ImageSet {
            origin: "test".into(),
            channels: 3,
            height: 1,
            width: 2,
            // Reds 0, 0, 255, 255; greens 51 alone; blues 0, 102, 102, 204.
            pixels: vec![0, 0, 51, 51, 0, 102, 255, 255, 51, 51, 102, 204],
            labels: None,
            classes: vec![],
            contents: vec![],
        };
        let Statistics { mean, std } = channel_statistics(&set);
        // Blues are 0, 0.4, 0.4 and 0.8, whose variance is 0.08.
        for (found, expected) in mean.iter().zip([0.5, 0.2, 0.4]) {
            assert!((found - expected).abs() < 1e-12, "{mean:?}");
        }
        for (found, expected) in std.iter().zip([0.5, 0.0, 0.08_f64.sqrt()]) {
            assert!((found - expected).abs() < 1e-12, "{std:?}");
        }
    }
}
