//! `preprocessor_config.json`: how an image becomes what a model sees. In: the file, as Hugging Face's image processors write
//! it. Out: a shape, and mean and deviation of each channel; and back.

use serde_json::{Value, json};

use super::{Bundle, BundleError, PREPROCESSOR};
use crate::registry::ImageConfig;

/// How an image becomes what a model sees.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInput {
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// An image of another size is resized until its shorter side has so many pixels, and the middle is cut out; without it
    /// the image is stretched.
    pub shorter: Option<usize>,
    /// What is taken from the pixels of each channel, which run from 0 to 1.
    pub mean: Vec<f64>,
    /// What the rest is divided by.
    pub std: Vec<f64>,
}

/// Means and deviations of ImageNet's channels, by which torchvision's weights were trained.
const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
/// Height and width that models of ImageNet have been trained on.
const USUAL: usize = 224;
/// The share of the shorter side that models of ImageNet have been judged by: 224 pixels of 256.
const USUAL_CROP: f64 = 0.875;
/// From this size on ConvNeXt and ResNet of `transformers` stretch images.
const STRETCHED_FROM: usize = 384;

impl ImageInput {
    /// Pixels from 0 to 1.
    ///
    /// - shape: channels, height, width
    pub fn plain(shape: [usize; 3]) -> Self {
        Self {
            shape,
            shorter: None,
            mean: vec![0.0; shape[0]],
            std: vec![1.0; shape[0]],
        }
    }

    /// Normalised as ImageNet is.
    ///
    /// - shape: channels, height, width
    pub fn imagenet(shape: [usize; 3]) -> Self {
        let [mean, std] = IMAGENET.map(|values| values.to_vec());
        let shape_of_three = [3, shape[1], shape[2]];
        Self {
            shape: shape_of_three,
            shorter: None,
            mean,
            std,
        }
        .for_shape(shape)
    }

    /// Pixels from 0 to 1 of images that are resized in the same way.
    pub fn without_normalizing(&self) -> Self {
        Self {
            shorter: self.shorter,
            ..Self::plain(self.shape)
        }
    }

    /// The share of the shorter side that is seen; nothing where images are stretched.
    pub fn crop_pct(&self) -> Option<f64> {
        let side = self.shape[1].min(self.shape[2]);
        self.shorter.map(|shorter| side as f64 / shorter as f64)
    }

    /// The same for images of another shape: other channels all have the mean of those that there were, and the same share
    /// of the shorter side is seen.
    pub fn for_shape(&self, shape: [usize; 3]) -> Self {
        let channels = shape[0];
        let fitted = |values: &[f64]| {
            if values.len() == channels {
                return values.to_vec();
            }
            vec![values.iter().sum::<f64>() / values.len().max(1) as f64; channels]
        };
        let side = shape[1].min(shape[2]);
        let shorter = |crop_pct: f64| (side as f64 / crop_pct).round() as usize;
        Self {
            shape,
            shorter: self.crop_pct().map(shorter),
            mean: fitted(&self.mean),
            std: fitted(&self.std),
        }
    }

    /// Whether pixels stay as they are.
    pub fn is_plain(&self) -> bool {
        self.mean.iter().all(|&mean| mean == 0.0) && self.std.iter().all(|&std| std == 1.0)
    }

    /// What each of the 256 levels becomes in each channel.
    pub fn levels(&self) -> Vec<[f32; 256]> {
        let channel = |(&mean, &std): (&f64, &f64)| {
            let plain = mean == 0.0 && std == 1.0;
            std::array::from_fn(|level| {
                let value = level as f32 / 255.0;
                if plain {
                    value
                } else {
                    ((f64::from(value) - mean) / std) as f32
                }
            })
        };
        self.mean.iter().zip(&self.std).map(channel).collect()
    }

    /// `preprocessor_config.json`.
    pub fn to_json(&self) -> String {
        let [channels, height, width] = self.shape;
        let mode = if channels == 1 { "L" } else { "RGB" };
        let mut json = json!({
            "image_processor_type": "HearthImageProcessor",
            "size": {"height": height, "width": width},
            "image_mode": mode,
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
        });
        if let Some(json) = json.as_object_mut()
            && !(self.is_plain() && self.shorter.is_none())
        {
            // All that `transformers` needs to do the same.
            json.insert("image_processor_type".into(), "ViTImageProcessor".into());
            json.insert("do_resize".into(), true.into());
            json.insert("resample".into(), 2.into());
            json.insert("do_normalize".into(), (!self.is_plain()).into());
            json.insert("image_mean".into(), self.mean.clone().into());
            json.insert("image_std".into(), self.std.clone().into());
            if let Some(shorter) = self.shorter {
                json.insert("image_processor_type".into(), "CLIPImageProcessor".into());
                json.insert("size".into(), json!({"shortest_edge": shorter}));
                json.insert("do_center_crop".into(), true.into());
                let size = json!({"height": height, "width": width});
                json.insert("crop_size".into(), size);
                json.insert("do_convert_rgb".into(), (channels == 3).into());
            }
        }
        format!("{json:#}\n")
    }

    /// Reads the file of a model.
    ///
    /// # Errors
    ///
    /// A value of the wrong type, or one that is not implemented.
    fn parse(json: &Value, config: &ImageConfig) -> Result<Self, String> {
        let plan = config.describe();
        let number = |value: &Value| value.as_u64().map(|side| side as usize);
        let sides = |value: &Value| match value {
            Value::Object(sides) => {
                let side = |name: &str| sides.get(name).and_then(number);
                let both = side("height").zip(side("width"));
                both.or_else(|| side("shortest_edge").map(|edge| (edge, edge)))
            }
            value => number(value).map(|side| (side, side)),
        };
        // Where the middle is cut out of the image, that is what the model sees.
        let crops = json["do_center_crop"].as_bool() == Some(true);
        let cropped = crops.then(|| sides(&json["crop_size"])).flatten();
        let usual = plan
            .size
            .map_or((USUAL, USUAL), |[height, width]| (height, width));
        let (height, width) = cropped.or_else(|| sides(&json["size"])).unwrap_or(usual);
        if height == 0 || width == 0 {
            return Err(format!("size is {}", json["size"]));
        }
        let normalizes = json["do_normalize"].as_bool() == Some(true);
        let values = |key: &str| -> Result<Vec<f64>, String> {
            let values = json[key].as_array().map(|values| {
                let floats = values.iter().map(Value::as_f64);
                floats.collect::<Option<Vec<f64>>>()
            });
            match values.flatten() {
                Some(values) if !values.is_empty() => Ok(values),
                _ => Err(format!(
                    "do_normalize is true, and {key} is {}; it must be a number a channel",
                    json[key]
                )),
            }
        };
        let shape = [plan.channels, height, width];
        let edge = number(&json["size"]["shortest_edge"]);
        let shorter = match (json["crop_pct"].as_f64(), edge) {
            _ if cropped.is_some() => edge,
            (Some(crop_pct), _) if crop_pct > 0.0 => {
                let side = height.min(width);
                (side < STRETCHED_FROM).then(|| (side as f64 / crop_pct) as usize)
            }
            _ => edge,
        };
        if let Some(edge) = shorter.filter(|&edge| edge == 0) {
            return Err(format!("size is {edge}"));
        }
        if !normalizes {
            return Ok(Self {
                shorter,
                ..Self::plain(shape)
            });
        }
        let input = Self {
            shape,
            shorter,
            mean: values("image_mean")?,
            std: values("image_std")?,
        };
        if let Some(std) = input
            .std
            .iter()
            .find(|std| !(std.is_finite() && **std > 0.0))
        {
            return Err(format!("image_std holds {std}; it must be above 0"));
        }
        Ok(input.for_shape(shape))
    }
}

impl Bundle {
    /// What the model sees of an image: as `preprocessor_config.json` says it, or as torchvision's weights want it where there
    /// is no such file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is no JSON, or holds a value of the wrong type.
    pub fn image_input(&self, config: &ImageConfig) -> Result<ImageInput, BundleError> {
        let plan = config.describe();
        let [height, width] = plan.size.unwrap_or([USUAL; 2]);
        let shape = [plan.channels, height, width];
        let Some(bytes) = self.read_optional(PREPROCESSOR)? else {
            return Ok(if config.is_for_plain_pixels() {
                ImageInput::plain(shape)
            } else {
                ImageInput {
                    shorter: Some((height.min(width) as f64 / USUAL_CROP) as usize),
                    ..ImageInput::imagenet(shape)
                }
            });
        };
        let wrong = |reason: String| BundleError::Config {
            path: self.path().join(PREPROCESSOR),
            reason,
        };
        let json = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        let input = ImageInput::parse(&json, config).map_err(wrong)?;
        // A table of positions or of pixels fits one size alone.
        Ok(match plan.size {
            Some([height, width]) => input.for_shape([plan.channels, height, width]),
            None => input,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::resnet::ResNetConfig;

    fn resnet() -> ImageConfig {
        let config: ResNetConfig = serde_json::from_value(json!({})).unwrap();
        ImageConfig::ResNet(config)
    }

    #[test]
    fn files_of_transformers_are_understood() {
        let parse = |json: Value| ImageInput::parse(&json, &resnet());
        let shape = |json| parse(json).unwrap().shape;
        assert_eq!(shape(json!({"size": 96})), [3, 96, 96]);
        let both = json!({"size": {"height": 30, "width": 21}});
        assert_eq!(shape(both), [3, 30, 21]);
        let cropped = json!({
            "size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {"height": 224, "width": 200},
        });
        assert_eq!(shape(cropped.clone()), [3, 224, 200]);
        let shorter = |json| parse(json).unwrap().shorter;
        assert_eq!(shorter(cropped), Some(256));
        // As ConvNextImageProcessor: the middle of small images, large ones stretched.
        let small = json!({"size": {"shortest_edge": 224}, "crop_pct": 0.875});
        assert_eq!(shorter(small), Some(256));
        let large = json!({"size": {"shortest_edge": 384}, "crop_pct": 1.0});
        assert_eq!(shorter(large), None);
        assert_eq!(shorter(json!({"size": {"height": 30, "width": 21}})), None);
        assert_eq!(
            shape(json!({"size": {"shortest_edge": 160}})),
            [3, 160, 160]
        );
        let normal = json!({"do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1]});
        let levels = parse(normal).unwrap().levels();
        assert_eq!(
            (levels[0][0], levels[1][0], levels[2][255]),
            (-2.0, -1.0, 0.5)
        );
        let lacking = parse(json!({"do_normalize": true})).unwrap_err();
        assert!(lacking.contains("image_mean is null"), "{lacking}");
        let zero = json!({"do_normalize": true, "image_mean": [0], "image_std": [0]});
        assert_eq!(
            parse(zero).unwrap_err(),
            "image_std holds 0; it must be above 0"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        for input in [
            ImageInput::plain([3, 30, 21]),
            ImageInput::imagenet([3, 8, 9]),
            ImageInput {
                shorter: Some(9),
                ..ImageInput::imagenet([3, 8, 9])
            },
            ImageInput {
                shorter: Some(40),
                ..ImageInput::plain([3, 30, 21])
            },
        ] {
            let json = serde_json::from_str(&input.to_json()).unwrap();
            assert_eq!(ImageInput::parse(&json, &resnet()).unwrap(), input);
        }
        let json: Value = serde_json::from_str(&ImageInput::plain([1, 2, 3]).to_json()).unwrap();
        assert_eq!(json["image_mode"], "L");
        assert!(json.get("image_mean").is_none());
    }

    #[test]
    fn another_size_shows_the_same_share_of_an_image() {
        let input = ImageInput {
            shorter: Some(256),
            ..ImageInput::plain([3, 224, 224])
        };
        assert_eq!(input.for_shape([3, 224, 224]), input);
        assert_eq!(input.for_shape([1, 96, 96]).shorter, Some(110)); // 96 / 0.875 is 109.7
        assert_eq!(
            ImageInput::plain([3, 8, 8]).for_shape([3, 9, 9]).shorter,
            None
        );
    }

    #[test]
    fn levels_of_plain_pixels_are_shares_of_255() {
        let levels = ImageInput::plain([1, 1, 1]).levels();
        assert!((0..256).all(|level| levels[0][level] == level as f32 / 255.0));
        let grey = ImageInput::imagenet([1, 1, 1]);
        assert!((grey.mean[0] - 0.449).abs() < 1e-9);
    }
}
