//! Images as a model wants them. In: a file or a folder of any size and colours. Out: an [`ImageSet`] of the
//! model's, where each image came from, and what could not be read.

use std::path::{Path, PathBuf};

use data::augment::View;
use data::image::{image_files, is_image};
use data::{DataError, Ground, ImageSet, read_image_files, source};
use model::bundle::ImageInput;

/// Images and their places.
#[derive(Clone, Debug)]
pub struct Images {
    /// Without labels: those that can be read.
    pub set: ImageSet,
    /// The file of each image, or `path:index` in an IDX file; and why it cannot be read, where it cannot.
    pub places: Vec<(String, Option<String>)>,
}

/// Reads the first `limit` images of a file, a folder of them, an IDX file, or the bundled `mnist`.
///
/// # Errors
///
/// No such file, or none of its images can be read.
pub fn read(input: &str, seen: &ImageInput, limit: usize) -> Result<Images, DataError> {
    match files(Path::new(input))? {
        Some(files) => from_files(&files[..files.len().min(limit)], seen),
        None => from_idx(input, seen.shape, limit),
    }
}

/// The image files that a path names; nothing for IDX.
fn files(path: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    if is_image(path) {
        return Ok(Some(vec![path.into()]));
    }
    image_files(path)
}

fn from_files(files: &[PathBuf], seen: &ImageInput) -> Result<Images, DataError> {
    let [channels, height, width] = seen.shape;
    let view = View {
        size: [height, width],
        shorter: seen.shorter,
    };
    let images = read_image_files(files, channels, view, Ground::WHITE)?;
    let (mut pixels, mut places, mut first) = (Vec::new(), Vec::new(), None);
    for (file, image) in files.iter().zip(images) {
        let reason = match image {
            Ok(image) => {
                pixels.extend(image);
                None
            }
            Err(error) => {
                let reason = error.to_string();
                first.get_or_insert(error);
                Some(reason)
            }
        };
        places.push((file.display().to_string(), reason));
    }
    match first {
        Some(error) if pixels.is_empty() => Err(error),
        _ => Ok(Images {
            set: unlabelled(pixels, seen.shape),
            places,
        }),
    }
}

fn from_idx(input: &str, shape: [usize; 3], limit: usize) -> Result<Images, DataError> {
    let [channels, height, width] = shape;
    let set = source::images(&[input.into()], Some((height, width)))?;
    let count = set.len().min(limit);
    // IDX is grey: a model of RGB images sees the same plane three times.
    let pixels = (0..count).flat_map(|i| set.image(i).repeat(channels / set.channels));
    Ok(Images {
        set: unlabelled(pixels.collect(), shape),
        places: (0..count).map(|i| (format!("{input}:{i}"), None)).collect(),
    })
}

fn unlabelled(pixels: Vec<u8>, [channels, height, width]: [usize; 3]) -> ImageSet {
    ImageSet {
        origin: String::new(),
        channels,
        height,
        width,
        pixels,
        labels: None,
        classes: vec![],
        contents: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma};

    fn seen(channels: usize) -> ImageInput {
        ImageInput::plain([channels, 2, 4])
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
        let images = read(&path, &seen(3), 9).unwrap();
        assert_eq!(
            images.places,
            [
                (format!("{path}/a.png"), None),
                (format!("{path}/b.png"), None)
            ]
        );
        assert_eq!(
            (images.set.image(0), images.set.image(1)),
            (&[10; 24][..], &[20; 24][..])
        );
        assert_eq!(read(&path, &seen(1), 1).unwrap().places.len(), 1);
        let one = read(&format!("{path}/b.png"), &seen(1), 9).unwrap();
        assert_eq!(one.set.pixels, [20; 8]);
    }

    #[test]
    fn the_middle_is_seen_where_the_bundle_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide.png");
        // Dark, light, dark: the middle third alone is light.
        let image = GrayImage::from_fn(12, 4, |x, _| Luma([if x / 4 == 1 { 200 } else { 0 }]));
        image.save(&path).unwrap();
        let seen = ImageInput {
            shorter: Some(4),
            ..ImageInput::plain([1, 4, 4])
        };
        let path = path.display().to_string();
        assert_eq!(read(&path, &seen, 1).unwrap().set.pixels, [200; 16]);
        let stretched = read(&path, &ImageInput::plain([1, 4, 4]), 1).unwrap();
        assert!(stretched.set.pixels[0] < 100);
    }

    #[test]
    fn grey_planes_are_repeated_for_a_model_of_colours() {
        let images = read("mnist", &seen(3), 2).unwrap();
        assert_eq!(
            images.places,
            ["mnist:0", "mnist:1"].map(|place| (place.to_string(), None))
        );
        let (first, rest) = images.set.image(0).split_at(8);
        assert_eq!(first.repeat(2), rest);
    }

    #[test]
    fn files_that_cannot_be_read_keep_their_places() {
        let folder = folder();
        std::fs::write(folder.path().join("aa.png"), "<html>").unwrap();
        let path = folder.path().display().to_string();
        let images = read(&path, &seen(1), 9).unwrap();
        assert_eq!((images.places.len(), images.set.len()), (3, 2));
        let (place, reason) = &images.places[1];
        assert!(place.ends_with("aa.png") && reason.is_some(), "{images:?}");
        let alone = read(&format!("{path}/aa.png"), &seen(1), 9).unwrap_err();
        assert!(alone.to_string().contains("aa.png"), "{alone}");
    }
}
