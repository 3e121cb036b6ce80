//! Resizes, all or a random part. In: a picture, a size. Out: a picture of that size.
//!
//! With antialiasing, as torchvision and Pillow do it: a filter as wide as the pixels it joins, in fixed-point
//! arithmetic. The result differs from torchvision's by one level of 255 at most.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Placement, Region, Size, Transform, check_above_zero, check_range};
use crate::image::Picture;

/// How the pixels between pixels are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The nearest one; resizing takes that of the middle, torchvision's `nearest-exact`.
    Nearest,
    /// A line.
    #[default]
    Bilinear,
    /// A cubic curve; resizing alone has it.
    Bicubic,
}

/// Resizes to a size: torchvision's `Resize`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// One number is that of the shorter side, and the other keeps the picture's shape.
    pub size: Size,
    /// How.
    #[serde(default)]
    pub interpolation: Interpolation,
}

impl Transform for Resize {
    fn kind(&self) -> &'static str {
        "resize"
    }

    fn check(&self) -> Result<(), String> {
        self.size.check()
    }

    fn size_after(&self, size: Option<[usize; 2]>) -> Option<[usize; 2]> {
        match self.size {
            Size::Exact(size) => Some(size),
            Size::Side(shorter) => size.map(|size| with_shorter_side(size, shorter)),
        }
    }

    fn apply(&self, picture: Picture, _: &mut ChaCha8Rng) -> Picture {
        let size = match self.size {
            Size::Exact(size) => size,
            Size::Side(shorter) => with_shorter_side(picture.size(), shorter),
        };
        resized(picture, size, self.interpolation)
    }

    fn placement(&self, size: [usize; 2], _: &mut ChaCha8Rng) -> Placement {
        let after = match self.size {
            Size::Exact(size) => size,
            Size::Side(shorter) => with_shorter_side(size, shorter),
        };
        Placement::resized(Region::whole(size), after)
    }
}

/// Cuts out a random part and resizes it: torchvision's `RandomResizedCrop`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// Of the result; one number is that of both sides, 0 that of the picture.
    #[serde(default = "Size::of_picture")]
    pub size: Size,
    /// Least and largest share of the picture's area.
    #[serde(default = "usual_scale")]
    pub scale: [f64; 2],
    /// Least and largest ratio of width to height.
    #[serde(default = "usual_ratio")]
    pub ratio: [f64; 2],
    /// How.
    #[serde(default)]
    pub interpolation: Interpolation,
}

impl RandomResizedCrop {
    /// torchvision's usual one.
    pub fn new(size: Size) -> Self {
        Self {
            size,
            scale: usual_scale(),
            ratio: usual_ratio(),
            interpolation: Interpolation::default(),
        }
    }

    fn region(&self, size: [usize; 2], rng: &mut ChaCha8Rng) -> Region {
        let fits = |[height, width]: [usize; 2]| {
            (1..=size[0]).contains(&height) && (1..=size[1]).contains(&width)
        };
        let sides = |area, ratio| [area / ratio, area * ratio];
        let drawn = Region::draw(size, self.scale, self.ratio, sides, fits, rng);
        drawn.unwrap_or_else(|| middle(size, self.ratio))
    }
}

impl Transform for RandomResizedCrop {
    fn kind(&self) -> &'static str {
        "random_resized_crop"
    }

    fn check(&self) -> Result<(), String> {
        self.size.check_optional()?;
        check_range("scale", self.scale, [0.0, 1.0])?;
        check_above_zero("ratio", self.ratio)
    }

    fn size_after(&self, size: Option<[usize; 2]>) -> Option<[usize; 2]> {
        match self.size {
            Size::Side(0) => size,
            other => Some(other.square()),
        }
    }

    fn apply(&self, picture: Picture, rng: &mut ChaCha8Rng) -> Picture {
        let region = self.region(picture.size(), rng);
        let size = self.size.square_of(picture.size());
        resized_region(&picture, region, size, self.interpolation)
    }

    fn placement(&self, size: [usize; 2], rng: &mut ChaCha8Rng) -> Placement {
        Placement::resized(self.region(size, rng), self.size.square_of(size))
    }
}

fn usual_scale() -> [f64; 2] {
    [0.08, 1.0]
}

fn usual_ratio() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

/// The largest part in the middle whose ratio of width to height is a possible one.
fn middle([height, width]: [usize; 2], [least, most]: [f64; 2]) -> Region {
    let ratio = width as f64 / height as f64;
    let rounded = |side: f64| side.round_ties_even().max(1.0) as usize;
    let [cut_height, cut_width] = if ratio < least {
        [rounded(width as f64 / least).min(height), width]
    } else if ratio > most {
        [height, rounded(height as f64 * most).min(width)]
    } else {
        [height, width]
    };
    Region {
        top: (height - cut_height) / 2,
        left: (width - cut_width) / 2,
        height: cut_height,
        width: cut_width,
    }
}

/// Height and width of the same shape with this shorter side; the longer one is rounded down.
pub(super) fn with_shorter_side([height, width]: [usize; 2], shorter: usize) -> [usize; 2] {
    if height <= width {
        [shorter, shorter * width / height]
    } else {
        [shorter * height / width, shorter]
    }
}

pub(super) fn resized(picture: Picture, size: [usize; 2], interpolation: Interpolation) -> Picture {
    if picture.size() == size {
        return picture;
    }
    let region = Region {
        top: 0,
        left: 0,
        height: picture.height,
        width: picture.width,
    };
    resized_region(&picture, region, size, interpolation)
}

/// Resizes a part without a look at the pixels around it.
pub(super) fn resized_region(
    picture: &Picture,
    region: Region,
    size: [usize; 2],
    interpolation: Interpolation,
) -> Picture {
    let filter = match interpolation {
        Interpolation::Nearest => return nearest(picture, region, size),
        Interpolation::Bilinear => FilterType::Bilinear,
        Interpolation::Bicubic if region.width != size[1] && region.height != size[0] => {
            // A cubic curve overshoots, and what is cut between the two directions depends on which comes first: in
            // torchvision rows do, in the crate columns.
            let rows = [region.height, size[1]];
            let wide = resized_region(picture, region, rows, interpolation);
            return resized(wide, size, interpolation);
        }
        Interpolation::Bicubic => FilterType::CatmullRom,
    };
    let pixels = match picture.channels {
        1 => resampled::<U8>(picture, region, size, filter),
        _ => resampled::<U8x3>(picture, region, size, filter),
    };
    Picture::new(picture.channels, size, pixels)
}

fn nearest(picture: &Picture, region: Region, [height, width]: [usize; 2]) -> Picture {
    // In f32, as torch decides between two pixels that are equally near.
    let source = |at: usize, from: usize, to: usize| {
        let scale = from as f32 / to as f32;
        (((at as f32 + 0.5) * scale) as usize).min(from - 1)
    };
    let columns: Vec<usize> = (0..width)
        .map(|x| region.left + source(x, region.width, width))
        .collect();
    let mut pixels = Vec::with_capacity(height * width * picture.channels);
    for y in 0..height {
        let y = region.top + source(y, region.height, height);
        for &x in &columns {
            pixels.extend_from_slice(picture.pixel(y, x));
        }
    }
    Picture::new(picture.channels, [height, width], pixels)
}

fn resampled<P: PixelTrait>(
    picture: &Picture,
    region: Region,
    [height, width]: [usize; 2],
    filter: FilterType,
) -> Vec<u8> {
    let all = TypedImageRef::<P>::from_buffer(
        picture.width as u32,
        picture.height as u32,
        &picture.pixels,
    )
    .expect("a picture has height x width pixels");
    let Region {
        top,
        left,
        height: rows,
        width: columns,
    } = region;
    let part =
        TypedCroppedImage::from_ref(&all, left as u32, top as u32, columns as u32, rows as u32)
            .expect("the region is inside of the picture");
    let mut pixels = vec![0; height * width * picture.channels];
    let mut to = TypedImage::<P>::from_buffer(width as u32, height as u32, &mut pixels)
        .expect("room was made for height x width pixels");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new()
        .resize_typed(&part, &mut to, &options)
        .expect("both have one kind of pixels");
    pixels
}
