//! Images with what is to be learned of each, all decoded at one size. In: encoded images and their targets. Out:
//! [`TargetedImages`].

use std::path::Path;

use rayon::prelude::*;

use super::{
    BoxLabel, ImageFileSets, ImageFiles, ImageSet, ImageTargets, Picture, decode, left_out, memory,
    read_mask, reason,
};
use crate::DataError;
use crate::bad_rows::{BadRows, LeftOut};

/// A pixel of a mask that belongs to no class: nothing is to be learned of it.
pub const IGNORED: u8 = 255;

/// Images of one size with a target each.
#[derive(Clone, Debug)]
pub struct TargetedImages {
    /// The images; labels are in `targets`.
    pub images: ImageSet,
    /// One an image.
    pub targets: Targets,
}

/// What is to be learned of each image.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Several classes, or none of them.
    Several(Vec<Vec<u32>>),
    /// A number.
    Values(Vec<f32>),
    /// A class for each pixel, `[height, width]`; 255 is none.
    Masks(Vec<Vec<u8>>),
    /// Boxes, in pixels of the image as it is here.
    Boxes(Vec<Vec<BoxLabel>>),
}

/// The splits of a set that has some, else one set to cut.
#[derive(Clone, Debug)]
pub struct TargetedSets {
    /// To train on; all images where no splits are given.
    pub train: TargetedImages,
    /// As given.
    pub valid: Option<TargetedImages>,
    /// As given.
    pub test: Option<TargetedImages>,
    /// What was read and what was not, for people.
    pub lines: Vec<String>,
}

impl Targets {
    /// Those at `indices`, in that order.
    fn select(&self, indices: &[usize]) -> Self {
        fn of<T: Clone>(all: &[T], indices: &[usize]) -> Vec<T> {
            indices.iter().map(|&i| all[i].clone()).collect()
        }
        match self {
            Self::Several(all) => Self::Several(of(all, indices)),
            Self::Values(all) => Self::Values(of(all, indices)),
            Self::Masks(all) => Self::Masks(of(all, indices)),
            Self::Boxes(all) => Self::Boxes(of(all, indices)),
        }
    }

    /// What distinguishes the target of image `i` from that of another.
    pub fn bytes(&self, i: usize) -> Vec<u8> {
        match self {
            Self::Several(all) => all[i].iter().flat_map(|id| id.to_le_bytes()).collect(),
            Self::Values(all) => all[i].to_le_bytes().into(),
            Self::Masks(all) => all[i].clone(),
            Self::Boxes(all) => format!("{:?}", all[i]).into_bytes(),
        }
    }
}

impl TargetedImages {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Those at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is outside the set.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            images: self.images.select(indices),
            targets: self.targets.select(indices),
        }
    }
}

/// Decodes all images of all splits.
///
/// - size: height and width that all are stretched to; without one they have to be of one size
///
/// # Errors
/// Images of several sizes and no size to resize to; more pixels than this machine holds; a file that is broken behind its
/// header where these are refused, or all of them; a mask of another size than its image.
pub fn read_targeted(
    sets: &ImageFileSets,
    size: Option<[usize; 2]>,
    bad_rows: BadRows,
) -> Result<TargetedSets, DataError> {
    if size.is_none() {
        check_sizes(sets)?;
    }
    let mut left_out = sets.left_out.clone();
    let first = |files: &ImageFiles| (!files.is_empty()).then(|| files.size(0));
    let size = match size.or_else(|| first(&sets.train)) {
        Some(size) => size,
        None => {
            return Err(DataError::NoExample {
                path: sets.train.origin.clone().into(),
            });
        }
    };
    let mut read = |files: &ImageFiles| -> Result<TargetedImages, DataError> {
        let (images, bad) = read(files, size, bad_rows)?;
        left_out.merge(bad);
        Ok(images)
    };
    let train = read(&sets.train)?;
    let valid = sets.valid.as_ref().map(&mut read).transpose()?;
    let test = sets.test.as_ref().map(&mut read).transpose()?;
    let given = [&valid, &test].into_iter().flatten();
    let n = train.len() + given.map(TargetedImages::len).sum::<usize>();
    Ok(TargetedSets {
        train,
        valid,
        test,
        lines: super::lines(n, &left_out, &sets.not_images, &sets.notes),
    })
}

/// Refuses images of several sizes.
fn check_sizes(sets: &ImageFileSets) -> Result<(), DataError> {
    let given = [&sets.valid, &sets.test].into_iter().flatten();
    let all = std::iter::once(&sets.train).chain(given);
    let mut all =
        all.flat_map(|files| (0..files.len()).map(move |i| (files.path(i), files.size(i))));
    let Some((first, [first_height, first_width])) = all.next() else {
        return Ok(());
    };
    match all.find(|(_, size)| *size != [first_height, first_width]) {
        Some((path, [height, width])) => Err(DataError::ImageSize {
            path: path.into(),
            height,
            width,
            first: first.into(),
            first_height,
            first_width,
        }),
        None => Ok(()),
    }
}

/// An image and its target at the size of all.
struct Example {
    planes: Vec<u8>,
    target: Target,
}

enum Target {
    Several(Vec<u32>),
    Value(f32),
    Mask(Vec<u8>),
    Boxes(Vec<BoxLabel>),
}

fn read(
    files: &ImageFiles,
    size: [usize; 2],
    bad_rows: BadRows,
) -> Result<(TargetedImages, LeftOut), DataError> {
    let origin = Path::new(&files.origin);
    let shape = [files.channels, size[0], size[1]];
    let mut pixels = memory::room(origin, files.len() as u64, shape)?;
    let read = |i| example(files, i, size);
    let examples: Vec<_> = (0..files.len()).into_par_iter().map(read).collect();
    let (mut bad, mut kept) = (Vec::new(), Vec::new());
    for (i, example) in examples.into_iter().enumerate() {
        match example {
            Ok(Example { planes, target }) => {
                pixels.extend(planes);
                kept.push(target);
            }
            // Not a broken file: a recipe, or a set, that is wrong for all of them.
            Err(error @ (DataError::ImageSize { .. } | DataError::Mask { .. })) => {
                return Err(error);
            }
            Err(error) => bad.push((files.path(i).display().to_string(), reason(&error), error)),
        }
    }
    let left_out = left_out(&files.origin, files.len(), bad, kept.is_empty(), bad_rows)?;
    let images = ImageSet {
        origin: files.origin.clone(),
        channels: files.channels,
        height: size[0],
        width: size[1],
        pixels,
        labels: None,
        classes: files.classes.clone(),
    };
    let targets = targets(kept);
    Ok((TargetedImages { images, targets }, left_out))
}

/// Targets of one kind, as [`open_image_files`](super::open_image_files) gives them.
fn targets(all: Vec<Target>) -> Targets {
    let (mut several, mut values, mut masks, mut boxes) = (vec![], vec![], vec![], vec![]);
    for target in all {
        match target {
            Target::Several(one) => several.push(one),
            Target::Value(one) => values.push(one),
            Target::Mask(one) => masks.push(one),
            Target::Boxes(one) => boxes.push(one),
        }
    }
    if !values.is_empty() {
        Targets::Values(values)
    } else if !masks.is_empty() {
        Targets::Masks(masks)
    } else if !boxes.is_empty() {
        Targets::Boxes(boxes)
    } else {
        Targets::Several(several)
    }
}

fn example(files: &ImageFiles, i: usize, size: [usize; 2]) -> Result<Example, DataError> {
    let picture = files.decode(i)?;
    let own = picture.size();
    let target = match &files.targets {
        ImageTargets::None => Target::Several(vec![]),
        ImageTargets::Classes(all) => Target::Several(vec![all[i]]),
        ImageTargets::Several(all) => Target::Several(all[i].clone()),
        ImageTargets::Values(all) => Target::Value(all[i]),
        ImageTargets::Masks(all) => {
            let mask = read_mask(&all[i])?;
            if [mask.height, mask.width] != own {
                let [height, width] = own;
                let (rows, columns) = (mask.height, mask.width);
                return Err(DataError::Mask {
                    path: all[i].clone(),
                    reason: format!("it is {rows}x{columns}, and its image {height}x{width}"),
                });
            }
            Target::Mask(nearest(&mask.classes, own, size))
        }
        ImageTargets::Boxes(all) => {
            Target::Boxes(all[i].iter().map(|one| scaled(*one, own, size)).collect())
        }
    };
    let planes = stretched(picture, size);
    Ok(Example { planes, target })
}

fn stretched(picture: Picture, [height, width]: [usize; 2]) -> Vec<u8> {
    let own = (picture.height, picture.width);
    decode::resize(picture.planes(), own, (height, width))
}

/// Each pixel the one that its middle lies in.
fn nearest(mask: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    if from == to {
        return mask.to_vec();
    }
    let source = |at: usize, axis: usize| (2 * at + 1) * from[axis] / (2 * to[axis]);
    let rows = (0..to[0]).map(|row| source(row, 0));
    let row = |row: usize| (0..to[1]).map(move |x| mask[row * from[1] + source(x, 1)]);
    rows.flat_map(row).collect()
}

fn scaled(label: BoxLabel, from: [usize; 2], to: [usize; 2]) -> BoxLabel {
    let [down, right] = [0, 1].map(|axis| to[axis] as f32 / from[axis] as f32);
    BoxLabel {
        class: label.class,
        x: label.x * right,
        y: label.y * down,
        width: label.width * right,
        height: label.height * down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_take_the_nearest_pixel_and_boxes_are_stretched() {
        let mask = [1, 2, 3, 4];
        let doubled = nearest(&mask, [2, 2], [4, 4]);
        assert_eq!(doubled, [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
        assert_eq!(nearest(&doubled, [4, 4], [2, 2]), mask);
        let label = BoxLabel {
            class: 1,
            x: 2.0,
            y: 3.0,
            width: 4.0,
            height: 5.0,
        };
        let scaled = scaled(label, [10, 10], [20, 5]);
        let expected = [1.0, 6.0, 2.0, 10.0];
        assert_eq!([scaled.x, scaled.y, scaled.width, scaled.height], expected);
    }
}
