//! Changes colours. In: a picture. Out: one of the same size, in other colours.
//!
//! Values are computed in f32 and cut to 8 bits where torchvision does so.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Transform, check_probability, check_range, happens, uniform};
use crate::image::Picture;

/// How much something may change: one number for either side, or the least and the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a range is one number or [least, largest]")]
pub enum Amount {
    /// So much to either side.
    Around(f64),
    /// The least and the largest.
    Between([f64; 2]),
}

impl Amount {
    /// The least and the largest.
    ///
    /// - middle: what changes nothing
    pub(super) fn around(self, middle: f64) -> [f64; 2] {
        match self {
            Self::Around(by) => [middle - by, middle + by],
            Self::Between(range) => range,
        }
    }

    /// [`around`](Self::around) 1, and never below 0.
    fn factor(self) -> [f64; 2] {
        match self {
            Self::Around(by) => [(1.0 - by).max(0.0), 1.0 + by],
            Self::Between(range) => range,
        }
    }
}

/// Changes brightness, contrast, saturation and hue in random order: torchvision's `ColorJitter`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// The factor is up to so much above or below 1, or in this range.
    pub brightness: Amount,
    /// As brightness.
    pub contrast: Amount,
    /// As brightness.
    pub saturation: Amount,
    /// In turns of the colour circle, -0.5 to 0.5.
    pub hue: Amount,
    /// Probability, as of torchvision's `RandomApply`.
    pub p: f64,
}

impl Default for ColorJitter {
    fn default() -> Self {
        let none = Amount::Around(0.0);
        Self {
            brightness: none,
            contrast: none,
            saturation: none,
            hue: none,
            p: 1.0,
        }
    }
}

/// Changes a picture by a number.
type Change = fn(&mut Picture, f64);

impl Transform for ColorJitter {
    fn kind(&self) -> &'static str {
        "color_jitter"
    }

    fn check(&self) -> Result<(), String> {
        check_probability(self.p)?;
        for (name, amount) in [
            ("brightness", self.brightness),
            ("contrast", self.contrast),
            ("saturation", self.saturation),
        ] {
            let [least, most] = amount.around(1.0);
            let is_around = matches!(amount, Amount::Around(_));
            // A single number may be above 1: the factor is cut at 0.
            let is_possible = least <= most && most.is_finite() && (is_around || least >= 0.0);
            if !is_possible {
                return Err(format!(
                    "{name} makes the factor {least} to {most}; possible is a range of 0 and more"
                ));
            }
        }
        check_range("hue", self.hue.around(0.0), [-0.5, 0.5])
    }

    fn apply(&self, mut picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        if !happens(self.p, rng) {
            return picture;
        }
        // The third is what changes nothing.
        let mut changes: [(Change, f64, f64); 4] = [
            (brighten, uniform(self.brightness.factor(), rng), 1.0),
            (contrast, uniform(self.contrast.factor(), rng), 1.0),
            (saturate, uniform(self.saturation.factor(), rng), 1.0),
            (turn_hue, uniform(self.hue.around(0.0), rng), 0.0),
        ];
        changes.shuffle(rng);
        for (change, by, nothing) in changes {
            if by != nothing {
                change(&mut picture, by);
            }
        }
        picture
    }
}

/// Takes the colours away, keeping the channels: torchvision's `RandomGrayscale`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grayscale {
    /// Probability.
    pub p: f64,
}

impl Default for Grayscale {
    fn default() -> Self {
        Self { p: 0.1 }
    }
}

impl Transform for Grayscale {
    fn kind(&self) -> &'static str {
        "grayscale"
    }

    fn check(&self) -> Result<(), String> {
        check_probability(self.p)
    }

    fn apply(&self, mut picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        if happens(self.p, rng) {
            for pixel in rgb(&mut picture) {
                *pixel = [grey(*pixel) as u8; 3];
            }
        }
        picture
    }
}

/// Inverts what is bright: torchvision's `RandomSolarize`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Solarize {
    /// Values from this one on are inverted; 0 to 255.
    pub threshold: f64,
    /// Probability.
    #[serde(default = "half")]
    pub p: f64,
}

fn half() -> f64 {
    0.5
}

impl Transform for Solarize {
    fn kind(&self) -> &'static str {
        "solarize"
    }

    fn check(&self) -> Result<(), String> {
        check_probability(self.p)?;
        if (0.0..=255.0).contains(&self.threshold) {
            return Ok(());
        }
        Err(format!(
            "threshold is {}; values of pixels are 0 to 255",
            self.threshold
        ))
    }

    fn apply(&self, mut picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        if happens(self.p, rng) {
            solarize(&mut picture, self.threshold);
        }
        picture
    }
}

/// The brightness of a colour, with a fraction.
pub(super) fn grey([red, green, blue]: [u8; 3]) -> f32 {
    f32::from(red) * 0.2989 + f32::from(green) * 0.587 + f32::from(blue) * 0.114
}

/// The pixels of a picture that has colours; none of a grey one, which nothing of this changes.
fn rgb(picture: &mut Picture) -> &mut [[u8; 3]] {
    let colours = if picture.channels == 3 {
        picture.pixels.as_mut_slice()
    } else {
        &mut []
    };
    colours.as_chunks_mut().0
}

/// Each value becomes what it becomes whatever its place and its channel.
fn map_values(picture: &mut Picture, new: impl Fn(u8) -> u8) {
    let table: [u8; 256] = std::array::from_fn(|value| new(value as u8));
    for value in &mut picture.pixels {
        *value = table[usize::from(*value)];
    }
}

/// What is above 255 or below 0 is cut, and so is the fraction.
fn cut(value: f32) -> u8 {
    value as u8
}

/// So much of `value`, the rest of `other`.
fn blend(value: u8, other: f32, share: f32) -> u8 {
    cut(f32::from(value) * share + other * (1.0 - share))
}

pub(super) fn brighten(picture: &mut Picture, factor: f64) {
    map_values(picture, |value| cut(f32::from(value) * factor as f32));
}

pub(super) fn contrast(picture: &mut Picture, factor: f64) {
    let sum: f64 = match picture.channels {
        1 => picture.pixels.iter().map(|&value| f64::from(value)).sum(),
        _ => rgb(picture)
            .iter()
            .map(|&pixel| f64::from(grey(pixel).floor()))
            .sum(),
    };
    let mean = (sum / (picture.height * picture.width) as f64) as f32;
    map_values(picture, |value| blend(value, mean, factor as f32));
}

pub(super) fn saturate(picture: &mut Picture, factor: f64) {
    for pixel in rgb(picture) {
        let grey = grey(*pixel).floor();
        *pixel = pixel.map(|value| blend(value, grey, factor as f32));
    }
}

/// - by: turns of the colour circle
pub(super) fn turn_hue(picture: &mut Picture, by: f64) {
    for pixel in rgb(picture) {
        let [hue, saturation, value] = hsv(pixel.map(|value| f32::from(value) / 255.0));
        let hue = (hue + by as f32).rem_euclid(1.0);
        // As torchvision scales to 8 bits.
        *pixel = from_hsv([hue, saturation, value]).map(|value| cut(value * 255.999));
    }
}

/// Hue in turns, saturation and value, of red, green and blue from 0 to 1.
fn hsv(pixel: [f32; 3]) -> [f32; 3] {
    let [red, green, blue] = pixel;
    let most = red.max(green).max(blue);
    let range = most - red.min(green).min(blue);
    if range == 0.0 {
        return [0.0, 0.0, most];
    }
    let [from_red, from_green, from_blue] = pixel.map(|value| (most - value) / range);
    let sixths = if most == red {
        from_blue - from_green
    } else if most == green {
        from_red + 2.0 - from_blue
    } else {
        from_green + 4.0 - from_red
    };
    [(sixths * (1.0 / 6.0) + 1.0) % 1.0, range / most, most]
}

fn from_hsv([hue, saturation, value]: [f32; 3]) -> [f32; 3] {
    let sixths = hue * 6.0;
    let sixth = sixths.floor();
    let between = saturation * (sixths - sixth);
    let least = ((1.0 - saturation) * value).clamp(0.0, 1.0);
    let falling = ((1.0 - between) * value).clamp(0.0, 1.0);
    let rising = ((between + (1.0 - saturation)) * value).clamp(0.0, 1.0);
    match sixth as i32 % 6 {
        0 => [value, rising, least],
        1 => [falling, value, least],
        2 => [least, value, rising],
        3 => [least, falling, value],
        4 => [rising, least, value],
        _ => [value, least, falling],
    }
}

pub(super) fn solarize(picture: &mut Picture, threshold: f64) {
    let is_bright = |value: u8| f64::from(value) >= threshold;
    map_values(
        picture,
        |value| if is_bright(value) { !value } else { value },
    );
}

/// Keeps the first `bits` bits of each value.
pub(super) fn posterize(picture: &mut Picture, bits: u32) {
    let mask = (0xff00_u32 >> bits) as u8;
    map_values(picture, |value| value & mask);
}

/// Stretches the values of each channel to 0 to 255.
pub(super) fn stretch_contrast(picture: &mut Picture) {
    map_channels(picture, |counts, _| {
        let occurs = |value: &u8| counts[usize::from(*value)] > 0;
        let least = (0..=255).find(occurs).unwrap_or(0);
        let most = (0..=255).rfind(occurs).unwrap_or(0);
        if least == most {
            return std::array::from_fn(|value| value as u8);
        }
        let scale = f32::from(most - least) * (1.0 / 255.0);
        std::array::from_fn(|value| cut((value as f32 - f32::from(least)) / scale))
    });
}

/// Makes all values of a channel about equally frequent.
pub(super) fn equalize(picture: &mut Picture) {
    map_channels(picture, |counts, pixels| {
        let largest = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        let step = (pixels - counts[largest]) / 255;
        if step == 0 {
            return std::array::from_fn(|value| value as u8);
        }
        let mut below = 0;
        std::array::from_fn(|value| {
            let new = (below + step / 2) / step;
            below += counts[value];
            new.min(255) as u8
        })
    });
}

/// Replaces the values of each channel by a table of new ones.
///
/// - table: from how often each value occurs, and the number of pixels
fn map_channels(picture: &mut Picture, table: impl Fn(&[usize; 256], usize) -> [u8; 256]) {
    let (channels, pixels) = (picture.channels, picture.height * picture.width);
    for channel in 0..channels {
        let values = || picture.pixels.iter().skip(channel).step_by(channels);
        let mut counts = [0; 256];
        values().for_each(|&value| counts[usize::from(value)] += 1);
        let table = table(&counts, pixels);
        let values = picture.pixels.iter_mut().skip(channel).step_by(channels);
        values.for_each(|value| *value = table[usize::from(*value)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_survive_a_full_turn() {
        for pixel in [[255, 0, 0], [12, 200, 77], [9, 9, 9], [1, 2, 255]] {
            let mut picture = Picture::new(3, [1, 1], pixel.to_vec());
            turn_hue(&mut picture, 0.5);
            turn_hue(&mut picture, -0.5);
            let far = |(a, b): (&u8, &u8)| a.abs_diff(*b) > 1;
            assert!(!picture.pixels.iter().zip(&pixel).any(far), "{picture:?}");
        }
        let mut red = Picture::new(3, [1, 1], vec![255, 0, 0]);
        turn_hue(&mut red, 1.0 / 3.0);
        assert_eq!(red.pixels, [0, 255, 0]);
    }

    #[test]
    fn grey_pictures_have_neither_hue_nor_saturation() {
        let picture = Picture::new(1, [1, 3], vec![0, 100, 255]);
        let mut changed = picture.clone();
        turn_hue(&mut changed, 0.3);
        saturate(&mut changed, 0.0);
        assert_eq!(changed, picture);
        contrast(&mut changed, 0.0);
        // The mean is 118 and a third.
        assert_eq!(changed.pixels, [118; 3]);
    }

    #[test]
    fn tables_of_values_can_be_worked_out_by_hand() {
        let of = |change: fn(&mut Picture)| {
            let mut picture = Picture::new(1, [1, 4], vec![10, 127, 128, 210]);
            change(&mut picture);
            picture.pixels
        };
        assert_eq!(of(|p| solarize(p, 128.0)), [10, 127, 127, 45]);
        assert_eq!(of(|p| posterize(p, 1)), [0, 0, 128, 128]);
        assert_eq!(of(|p| posterize(p, 8)), [10, 127, 128, 210]);
        assert_eq!(of(|p| brighten(p, 2.0)), [20, 254, 255, 255]);
        // (value - 10) x 255 / 200; as in torchvision, 1 / 255 is rounded, and the fraction of the last cut.
        assert_eq!(of(stretch_contrast), [0, 149, 150, 254]);
        // Too few pixels for a step.
        assert_eq!(of(equalize), [10, 127, 128, 210]);
    }
}
