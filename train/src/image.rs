//! What image runs share: splits of a set, batches of its pixels, and how a bundle describes its input.

use burn::prelude::*;
use burn::tensor::TensorData;
use data::order::{self, Stream};
use data::{ImageSet, split};
use model::AutoencoderConfig;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::recipe::{self, Impossible};
use crate::run;

/// Images with pixels from 0 to 1.
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

impl PixelBatch {
    /// These rows of a set, in this order.
    ///
    /// # Panics
    ///
    /// If a row is outside the set.
    pub fn of(images: &ImageSet, rows: &[u32]) -> Self {
        let pixels = rows.iter().flat_map(|&row| images.image(row as usize));
        Self {
            pixels: pixels.map(|&pixel| f32::from(pixel) / 255.0).collect(),
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

    /// The models' input, `[n, channels, height, width]`, pixels 0 to 1.
    pub fn tensor<B: Backend>(&self, device: &B::Device) -> Tensor<B, 4> {
        let shape = [self.n, self.channels, self.height, self.width];
        Tensor::from_data(TensorData::new(self.pixels.clone(), shape), device)
    }
}

/// `[augment]` of a recipe: how training images are changed, anew every epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Pixels that an image is moved at most, up or down and left or right.
    pub shift: u16,
}

impl Augment {
    /// Images as they are, for splits that are only looked at.
    pub const NONE: Self = Self { shift: 0 };

    /// Says what is impossible about these values for such images, if anything is.
    pub fn check(self, images: &ImageSet) -> Result<(), Impossible> {
        let (height, width) = (images.height, images.width);
        if usize::from(self.shift) < height.min(width) {
            return Ok(());
        }
        let reason = format!(
            "is {}; that moves images of {height}x{width} out of sight",
            self.shift
        );
        Err(Impossible::new("augment.shift", reason))
    }

    /// Changes the images of a batch; how is a function of (seed, sample), a sample an image.
    ///
    /// # Panics
    ///
    /// If there are fewer samples than images.
    pub fn apply(self, images: &mut PixelBatch, seed: u64, samples: &[u64]) {
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

/// A set cut in three by the content of its images: equal images never stand in two splits.
pub struct ImageSplits {
    /// To train on.
    pub train: ImageSet,
    /// To choose the best step by.
    pub valid: ImageSet,
    /// To report; may be empty.
    pub test: ImageSet,
}

impl ImageSplits {
    /// - valid, test: shares 0 to 1 of the images
    ///
    /// # Errors
    ///
    /// Shares that leave nothing to train or to validate on.
    pub fn new(images: &ImageSet, valid: f64, test: f64, seed: u64) -> Result<Self, Failure> {
        recipe::check_shares(valid, test)?;
        let keys = (0..images.len()).map(|i| images.image(i));
        let splits = split::split_by_content(keys, valid, test, seed);
        if splits.train.is_empty() || splits.valid.is_empty() {
            return Err(Failure::input(format!(
                "{}: {} images leave {} to train and {} to validate on (data.valid is {valid}, data.test is {test})",
                images.origin,
                images.len(),
                splits.train.len(),
                splits.valid.len()
            )));
        }
        Ok(Self {
            train: images.select(&splits.train),
            valid: images.select(&splits.valid),
            test: images.select(&splits.test),
        })
    }
}

/// Says why these convolutions can't be built here, if they can't: the allocator would abort.
pub fn check_model(config: &AutoencoderConfig) -> Result<(), String> {
    let (mut width, mut parameters) = (config.image_channels as f64, 0.0);
    let mut pixels = [config.image_height, config.image_width];
    for &channels in &config.channels {
        let channels = channels as f64;
        // Kernels of 3x3, in the encoder and in the decoder.
        parameters += 2.0 * 9.0 * width * channels;
        pixels = pixels.map(|side| side.div_ceil(2));
        width = channels;
    }
    let deepest = width * pixels[0] as f64 * pixels[1] as f64;
    run::check_memory(parameters + 2.0 * deepest * config.latent_size as f64)
}

/// Height and width that `data.size` asks for; 0 leaves images as they are.
pub fn square(size: usize) -> Option<(usize, usize)> {
    (size > 0).then_some((size, size))
}

/// `preprocessor_config.json` of a model of these sizes.
pub fn preprocessor_json(config: &AutoencoderConfig) -> String {
    let mode = if config.image_channels == 1 {
        "L"
    } else {
        "RGB"
    };
    let json = serde_json::json!({
        "image_processor_type": "HearthImageProcessor",
        "size": {"height": config.image_height, "width": config.image_width},
        "image_mode": mode,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
    });
    format!("{json:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    /// `n` RGB images of 2x1; every byte of image i is i.
    fn numbered(n: u8) -> ImageSet {
        ImageSet {
            origin: "test".into(),
            channels: 3,
            height: 2,
            width: 1,
            pixels: (0..n).flat_map(|i| [i; 6]).collect(),
            labels: None,
            classes: vec![],
        }
    }

    #[test]
    fn a_batch_holds_its_rows_from_0_to_1_and_reads_back() {
        let batch = PixelBatch::of(&numbered(52), &[51, 0]);
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
        let bytes: Vec<u8> = (0..8 * 36).map(|at| (at % 251) as u8).collect();
        let images = PixelBatch::from_bytes(&bytes, [1, 6, 6]);
        let changed = |augment: Augment, seed, first: u64| {
            let mut changed = images.clone();
            let samples: Vec<u64> = (first..first + 8).collect();
            augment.apply(&mut changed, seed, &samples);
            changed
        };
        let moved = Augment { shift: 2 };
        assert_eq!(changed(moved, 1, 0), changed(moved, 1, 0));
        assert_ne!(changed(moved, 1, 0), changed(moved, 2, 0));
        assert_ne!(changed(moved, 1, 0), changed(moved, 1, 1));
        assert_eq!(changed(Augment::NONE, 1, 0), images);
        // However images are batched.
        let mut half = PixelBatch::from_bytes(&bytes[4 * 36..], [1, 6, 6]);
        moved.apply(&mut half, 1, &[4, 5, 6, 7]);
        assert_eq!(half.image(0), changed(moved, 1, 0).image(4));

        assert_eq!(Augment { shift: 0 }.check(&numbered(1)), Ok(()));
        assert_eq!(
            Augment { shift: 1 }
                .check(&numbered(1))
                .unwrap_err()
                .to_string(),
            "augment.shift is 1; that moves images of 2x1 out of sight"
        );
    }

    #[test]
    fn splits_hold_every_image_once_and_equal_images_together() {
        let images = numbered(100);
        let splits = ImageSplits::new(&images, 0.2, 0.3, 0).unwrap();
        let ImageSplits { train, valid, test } = &splits;
        let mut all: Vec<u8> = [train, valid, test]
            .iter()
            .flat_map(|set| &set.pixels)
            .copied()
            .collect();
        all.sort_unstable();
        assert_eq!(all, images.pixels);

        let twice = images.select(&[7; 50]);
        let Err(error) = ImageSplits::new(&twice, 0.2, 0.3, 0) else {
            panic!("fifty equal images fall into one split");
        };
        assert!(
            error.to_string().starts_with("test: 50 images leave"),
            "{error}"
        );
    }

    #[test]
    fn the_preprocessor_names_size_and_colours() {
        let config = AutoencoderConfig {
            image_channels: 3,
            image_height: 30,
            image_width: 21,
            channels: vec![4],
            latent_size: 2,
        };
        let json: serde_json::Value = serde_json::from_str(&preprocessor_json(&config)).unwrap();
        assert_eq!(json["size"], serde_json::json!({"height": 30, "width": 21}));
        assert_eq!(json["image_mode"], "RGB");
    }
}
