//! Images as a model wants them. In: a file or a folder of any size and colours. Out: an [`ImageSet`] of the
//! model's, and where each image came from.

use std::path::{Path, PathBuf};

use data::image::{image_files, is_image};
use data::{DataError, ImageSet, read_image, source};
use model::AutoencoderConfig;

/// Images and their places.
#[derive(Clone, Debug)]
pub struct Images {
    /// Without labels.
    pub set: ImageSet,
    /// The file of each image, or `path:index` in an IDX file.
    pub places: Vec<String>,
}

/// Reads the first `limit` images of a PNG or JPEG file, a folder of them, an IDX file, or the bundled `mnist`.
pub fn read(input: &str, config: &AutoencoderConfig, limit: usize) -> Result<Images, DataError> {
    match files(Path::new(input))? {
        Some(files) => from_files(&files[..files.len().min(limit)], config),
        None => from_idx(input, config, limit),
    }
}

/// The image files that a path names; nothing for IDX.
fn files(path: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    match is_image(path) {
        true => Ok(Some(vec![path.into()])),
        false => image_files(path),
    }
}

fn from_files(files: &[PathBuf], config: &AutoencoderConfig) -> Result<Images, DataError> {
    let (channels, height, width) = shape(config);
    let mut pixels = Vec::with_capacity(files.len() * channels * height * width);
    for file in files {
        pixels.extend(read_image(file, channels, height, width)?);
    }
    Ok(Images {
        set: unlabelled(pixels, config),
        places: files
            .iter()
            .map(|file| file.display().to_string())
            .collect(),
    })
}

fn from_idx(input: &str, config: &AutoencoderConfig, limit: usize) -> Result<Images, DataError> {
    let (channels, height, width) = shape(config);
    let set = source::images(&[input.into()], Some((height, width)))?;
    let count = set.len().min(limit);
    // IDX is grey: a model of RGB images sees the same plane three times.
    let pixels = (0..count).flat_map(|i| set.image(i).repeat(channels / set.channels));
    Ok(Images {
        set: unlabelled(pixels.collect(), config),
        places: (0..count).map(|i| format!("{input}:{i}")).collect(),
    })
}

fn shape(config: &AutoencoderConfig) -> (usize, usize, usize) {
    (
        config.image_channels,
        config.image_height,
        config.image_width,
    )
}

fn unlabelled(pixels: Vec<u8>, config: &AutoencoderConfig) -> ImageSet {
    let (channels, height, width) = shape(config);
    ImageSet {
        origin: String::new(),
        channels,
        height,
        width,
        pixels,
        labels: None,
        classes: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma};

    fn config(image_channels: usize) -> AutoencoderConfig {
        AutoencoderConfig {
            image_channels,
            image_height: 2,
            image_width: 4,
            channels: vec![1],
            latent_size: 1,
        }
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [("b.png", 20), ("a.png", 10)] {
            let image = GrayImage::from_pixel(8, 8, Luma([value]));
            image.save(folder.path().join(name)).unwrap();
        }
        folder
    }

    #[test]
    fn files_become_images_of_the_models_shape() {
        let folder = folder();
        let path = folder.path().display().to_string();
        let images = read(&path, &config(3), 9).unwrap();
        assert_eq!(
            images.places,
            [format!("{path}/a.png"), format!("{path}/b.png")]
        );
        assert_eq!(
            (images.set.image(0), images.set.image(1)),
            (&[10; 24][..], &[20; 24][..])
        );
        assert_eq!(read(&path, &config(1), 1).unwrap().places.len(), 1);
        let one = read(&format!("{path}/b.png"), &config(1), 9).unwrap();
        assert_eq!(one.set.pixels, [20; 8]);
    }

    #[test]
    fn grey_planes_are_repeated_for_a_model_of_colours() {
        let images = read("mnist", &config(3), 2).unwrap();
        assert_eq!(images.places, ["mnist:0", "mnist:1"]);
        let (first, rest) = images.set.image(0).split_at(8);
        assert_eq!(first.repeat(2), rest);
    }
}
