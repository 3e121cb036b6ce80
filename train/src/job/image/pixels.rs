//! Batches of pixels, and how training images are changed. In: rows of a set. Out: what a model sees.

use burn::prelude::*;
use burn::tensor::TensorData;
use data::ImageSet;
use data::augment::Augmentation;
use data::order::{self, Stream};
use model::bundle::ImageInput;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::ImageRows;
use crate::recipe::Impossible;
use crate::source::{Counts, Rows};

/// Images as a model sees them: pixels from 0 to 1, or what normalising makes of these.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelBatch {
    /// `[n, channels, height, width]`, row-major.
    pub pixels: Vec<f32>,
    /// Number of images.
    pub n: usize,
    /// 1 grey, 3 RGB.
    pub channels: usize,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
}

impl Counts for PixelBatch {
    fn real(&self) -> usize {
        self.n
    }

    fn padded(&self) -> usize {
        self.n
    }
}

impl PixelBatch {
    /// These rows of a set, in this order.
    ///
    /// - levels: what each of the 256 levels becomes in each channel, as [`ImageInput::levels`] gives it
    ///
    /// # Panics
    ///
    /// If a row is outside the set, or a channel has no levels.
    pub fn of(images: &ImageSet, rows: &[u32], levels: &[[f32; 256]]) -> Self {
        let area = images.height * images.width;
        let mut pixels = Vec::with_capacity(rows.len() * images.channels * area);
        for &row in rows {
            let planes = images.image(row as usize).chunks(area);
            for (channel, plane) in planes.enumerate() {
                let levels = &levels[channel];
                pixels.extend(plane.iter().map(|&pixel| levels[usize::from(pixel)]));
            }
        }
        Self {
            pixels,
            n: rows.len(),
            channels: images.channels,
            height: images.height,
            width: images.width,
        }
    }

    /// Images of 8 bit, `[n, channels, height, width]`.
    pub fn from_bytes(bytes: &[u8], [channels, height, width]: [usize; 3]) -> Self {
        Self {
            pixels: bytes
                .iter()
                .map(|&pixel| f32::from(pixel) / 255.0)
                .collect(),
            n: bytes.len() / (channels * height * width),
            channels,
            height,
            width,
        }
    }

    /// Reads images back; `[n, channels, height, width]`, pixels 0 to 1.
    pub fn read<B: Backend>(images: Tensor<B, 4>) -> Self {
        let [n, channels, height, width] = images.dims();
        Self {
            pixels: images.into_data().iter::<f32>().collect(),
            n,
            channels,
            height,
            width,
        }
    }

    /// The pixels of one image, `[channels, height, width]`.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn image(&self, i: usize) -> &[f32] {
        let len = self.channels * self.height * self.width;
        &self.pixels[i * len..(i + 1) * len]
    }

    /// Moves one image down and right by so many pixels (up and left if negative); its edge fills what opens.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn shift(&mut self, i: usize, down: isize, right: isize) {
        let (height, width) = (self.height, self.width);
        let from = |at: usize, by: isize, size: usize| at.saturating_add_signed(-by).min(size - 1);
        let old = self.image(i).to_vec();
        let first = i * old.len();
        for (at, pixel) in self.pixels[first..first + old.len()].iter_mut().enumerate() {
            let (plane, y, x) = (at / (height * width), at / width % height, at % width);
            let (y, x) = (from(y, down, height), from(x, right, width));
            *pixel = old[(plane * height + y) * width + x];
        }
    }

    /// Pixels from 0 to 1 again, as they were before they were normalised.
    ///
    /// - input: how they were
    ///
    /// # Panics
    ///
    /// If it has other channels.
    pub fn without_normalizing(mut self, input: &ImageInput) -> Self {
        let area = self.height * self.width;
        for (at, plane) in self.pixels.chunks_exact_mut(area).enumerate() {
            let channel = at % self.channels;
            let (mean, std) = (input.mean[channel] as f32, input.std[channel] as f32);
            plane
                .iter_mut()
                .for_each(|pixel| *pixel = *pixel * std + mean);
        }
        self
    }

    /// The models' input, `[n, channels, height, width]`.
    pub fn tensor<B: Backend>(&self, device: &B::Device) -> Tensor<B, 4> {
        let shape = [self.n, self.channels, self.height, self.width];
        Tensor::from_data(TensorData::new(self.pixels.clone(), shape), device)
    }
}

/// `[augment]` of a recipe: how training images are changed, anew every epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augment {
    /// Pixels that an image is moved at most, up or down and left or right.
    pub shift: u16,
    /// What else is done to it, one after the other.
    pub steps: Augmentation,
}

impl Augment {
    /// Images as they are, for splits that are only looked at.
    pub const NONE: Self = Self {
        shift: 0,
        steps: Augmentation::NONE,
    };

    /// Says what is impossible about these values for such images, if anything is.
    pub fn check(&self, images: &ImageRows) -> Result<(), Impossible> {
        let [_, height, width] = images.shape();
        if usize::from(self.shift) >= height.min(width) {
            let reason = format!(
                "is {}; that moves images of {height}x{width} out of sight",
                self.shift
            );
            return Err(Impossible::new("augment.shift", reason));
        }
        let wrong = |reason| Err(Impossible::new("augment.steps", reason));
        if let Err(reason) = self.steps.check() {
            return wrong(format!("are impossible: {reason}"));
        }
        if !images.is_seen_whole() {
            // Whatever size comes out, images are brought to their own after it.
            return Ok(());
        }
        match self.steps.size_after(Some([height, width])) {
            Some(size) if size == [height, width] => Ok(()),
            Some([after, across]) => wrong(format!(
                "make images of {height}x{width} ones of {after}x{across}, and those that validate stay as they are; \
                 data.size sets the size of all"
            )),
            None => wrong(format!(
                "make images of {height}x{width} ones of many sizes; a crop at the end gives them one"
            )),
        }
    }

    /// Rows of a set as a model sees them; how they are changed is a function of (seed, sample), a sample an image.
    ///
    /// - levels: as for [`PixelBatch::of`]
    ///
    /// # Panics
    ///
    /// If a row is outside the set, or there are fewer samples than rows.
    pub fn read(
        &self,
        images: &ImageRows,
        Rows { rows, samples }: &Rows,
        levels: &[[f32; 256]],
        seed: u64,
    ) -> PixelBatch {
        let mut batch = match images.in_memory() {
            Some(set) if self.steps.steps.is_empty() => PixelBatch::of(set, rows, levels),
            _ => self.stepped(images, rows, samples, levels, seed),
        };
        self.move_images(&mut batch, seed, samples);
        batch
    }

    /// Rows after the steps.
    fn stepped(
        &self,
        images: &ImageRows,
        rows: &[u32],
        samples: &[u64],
        levels: &[[f32; 256]],
        seed: u64,
    ) -> PixelBatch {
        let [channels, height, width] = images.shape();
        let len = channels * height * width;
        let mut pixels = vec![0.0; rows.len() * len];
        for ((pixels, &row), &sample) in pixels.chunks_exact_mut(len).zip(rows).zip(samples) {
            let picture = if self.steps.steps.is_empty() {
                images.seen(row as usize)
            } else {
                let picture = images.picture(row as usize);
                images
                    .view()
                    .finish(self.steps.apply(picture, seed, sample))
            };
            picture.write_planes(pixels, |channel, value| levels[channel][usize::from(value)]);
        }
        PixelBatch {
            pixels,
            n: rows.len(),
            channels,
            height,
            width,
        }
    }

    fn move_images(&self, images: &mut PixelBatch, seed: u64, samples: &[u64]) {
        if self.shift == 0 {
            return;
        }
        let most = i32::from(self.shift);
        for (i, &sample) in samples[..images.n].iter().enumerate() {
            let mut rng = order::rng(seed, Stream::Augment, sample);
            let [down, right] = [(); 2].map(|()| rng.random_range(-most..=most) as isize);
            images.shift(i, down, right);
        }
    }
}

/// The seed of another view of the same samples: far apart, so that no view of one seed is another one of the next.
///
/// - view: its number; 0 has the seed itself
pub fn view_seed(seed: u64, view: u64) -> u64 {
    seed.wrapping_add(view.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{numbered, set};
    use super::*;
    use burn::backend::Flex;

    #[test]
    fn a_batch_holds_its_rows_from_0_to_1_and_reads_back() {
        let batch = PixelBatch::of(
            &numbered(52),
            &[51, 0],
            &ImageInput::plain([3, 2, 1]).levels(),
        );
        assert_eq!(batch.image(0), [0.2; 6]); // 51 / 255
        assert_eq!(batch.image(1), [0.0; 6]);
        let tensor = batch.tensor::<Flex>(&Default::default());
        assert_eq!(tensor.dims(), [2, 3, 2, 1]);
        assert_eq!(PixelBatch::read(tensor), batch);
    }

    #[test]
    fn a_shifted_image_repeats_its_edge() {
        let bytes = [0, 51, 102, 153, 204, 255];
        let mut batch = PixelBatch::from_bytes(&[bytes, bytes].concat(), [1, 2, 3]);
        batch.shift(1, 0, 1);
        assert_eq!(batch.image(0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(batch.image(1), [0.0, 0.0, 0.2, 0.6, 0.6, 0.8]);
        // Up and left until only the last pixel is in sight.
        batch.shift(0, -1, -2);
        assert_eq!(batch.image(0), [1.0; 6]);
    }

    #[test]
    fn augmentation_is_a_function_of_seed_and_sample() {
        let images = set(8, &["a", "b"], |i| (i % 2) as u32);
        let levels = ImageInput::plain([1, 6, 5]).levels();
        let changed = |augment: &Augment, seed, rows: std::ops::Range<u32>| {
            let samples = rows.clone().map(u64::from).collect();
            let rows = Rows {
                rows: rows.collect(),
                samples,
            };
            augment.read(&images.clone().into(), &rows, &levels, seed)
        };
        let steps = r#"steps = [{kind = "flip", p = 0.5}, {kind = "erasing", p = 1.0}]"#;
        let steps: toml::Table = steps.parse().unwrap();
        let both = Augment {
            shift: 2,
            steps: steps["steps"].clone().try_into().unwrap(),
        };
        let moved = Augment {
            shift: 2,
            ..Augment::NONE
        };
        for augment in [&moved, &both] {
            let first = changed(augment, 1, 0..8);
            assert_eq!(changed(augment, 1, 0..8), first);
            assert_ne!(changed(augment, 2, 0..8), first);
            // However images are batched.
            assert_eq!(changed(augment, 1, 4..8).image(0), first.image(4));
            assert_eq!(augment.check(&images.clone().into()), Ok(()));
        }
        assert_ne!(changed(&moved, 1, 0..8), changed(&both, 1, 0..8));
        let whole: Vec<u32> = (0..8).collect();
        let plain = PixelBatch::of(&images, &whole, &levels);
        assert_eq!(changed(&Augment::NONE, 1, 0..8), plain);
    }

    #[test]
    fn impossible_augmentation_is_named() {
        let refusal = |augment: &str| {
            let augment: Augment = toml::from_str(augment).unwrap();
            augment.check(&numbered(1).into()).unwrap_err().to_string()
        };
        assert_eq!(
            refusal("shift = 1\nsteps = []"),
            "augment.shift is 1; that moves images of 2x1 out of sight"
        );
        let flip = r#"shift = 0
steps = [{kind = "flip", p = 1.5}]"#;
        let words = "augment.steps are impossible: step 1, flip: p is 1.5";
        assert!(refusal(flip).starts_with(words), "{}", refusal(flip));
        let crop = r#"shift = 0
steps = [{kind = "random_resized_crop", size = 8}]"#;
        let words = "augment.steps make images of 2x1 ones of 8x8";
        assert!(refusal(crop).starts_with(words), "{}", refusal(crop));
    }
}
