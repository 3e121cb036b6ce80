//! Brings pictures of any size to the one that a model takes, without chance. In: a picture. Out: a picture of that size.

use super::resize::{resized, with_shorter_side};
use super::{Interpolation, Placement, Region, crop};
use crate::image::{self, Picture};

/// How a picture is seen by a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Height and width of what comes out.
    pub size: [usize; 2],
    /// The picture is resized until its shorter side has so many pixels, and the middle is cut out; without it the picture
    /// is stretched.
    pub shorter: Option<usize>,
}

impl View {
    /// Stretched to this height and width.
    pub fn stretched(size: [usize; 2]) -> Self {
        Self {
            size,
            shorter: None,
        }
    }

    /// The middle, as torchvision's presets for classification evaluate: 224 pixels of 256 are a `crop_pct` of 0.875.
    ///
    /// - crop_pct: the share of the shorter side that is seen, above 0 and at most 1
    pub fn cropped(size: [usize; 2], crop_pct: f64) -> Self {
        let shorter = (size[0].min(size[1]) as f64 / crop_pct).floor() as usize;
        Self {
            size,
            shorter: Some(shorter),
        }
    }

    /// Whether a picture of this height and width comes out as it is.
    pub fn keeps(&self, size: [usize; 2]) -> bool {
        let is_whole = |shorter| shorter == size[0].min(size[1]);
        size == self.size && self.shorter.is_none_or(is_whole)
    }

    /// The picture as it is seen.
    pub fn apply(&self, picture: Picture) -> Picture {
        let from = picture.size();
        if self.keeps(from) {
            return picture;
        }
        let Some(shorter) = self.shorter else {
            let [from, to] = [from, self.size].map(|[height, width]| (height, width));
            let planes = image::resize(picture.planes(), from, to);
            return Picture::from_planes(picture.channels, self.size, &planes);
        };
        let size = with_shorter_side(from, shorter);
        let picture = resized(picture, size, Interpolation::Bilinear);
        crop::central(picture, self.size)
    }

    /// Where the pixels of [`finish`](Self::finish) come from, of a picture of this height and width.
    pub fn placement(&self, from: [usize; 2]) -> Placement {
        if from == self.size {
            return Placement::STILL;
        }
        let Some(shorter) = self.shorter else {
            return Placement::resized(Region::whole(from), self.size);
        };
        let size = with_shorter_side(from, shorter);
        let start = [0, 1].map(|axis| crop::middle(size[axis], self.size[axis]));
        Placement::resized(Region::whole(from), size).then(Placement::cut(start))
    }

    /// A picture that was changed before: as it is where it has the size already, else as it is seen.
    pub fn finish(&self, picture: Picture) -> Picture {
        if picture.size() == self.size {
            return picture;
        }
        self.apply(picture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::Augmentation;

    /// Grey; each pixel is its column times 20.
    fn stripes(height: usize, width: usize) -> Picture {
        let pixels = (0..height * width).map(|at| (at % width * 20) as u8);
        Picture::new(1, [height, width], pixels.collect())
    }

    #[test]
    fn the_middle_is_seen_or_all_of_it_stretched() {
        let wide = stripes(2, 6);
        let middle = View::cropped([2, 2], 1.0).apply(wide.clone());
        assert_eq!(middle.pixels, [40, 60, 40, 60]);
        let whole = View::stretched([2, 2]).apply(wide.clone());
        // Bilinear over three pixels each: the outer columns differ more than those of the middle.
        assert!(whole.pixels[0] < 40 && whole.pixels[1] > 60, "{whole:?}");
        assert_eq!(View::stretched([2, 6]).apply(wide.clone()), wide);
        // 224 of 256: 7 of 8.
        assert_eq!(View::cropped([224, 224], 0.875).shorter, Some(256));
        let zoomed = View::cropped([7, 7], 0.875);
        assert_eq!(zoomed.shorter, Some(8));
        let square = stripes(7, 7);
        assert!(!zoomed.keeps([7, 7]));
        assert_ne!(zoomed.apply(square.clone()), square);
        assert_eq!(zoomed.finish(square.clone()), square);
    }

    #[test]
    fn a_mask_is_seen_as_its_picture_is() {
        let size = [4, 6];
        let mask: Vec<u8> = (0..24).collect();
        for view in [View::stretched([8, 12]), View::cropped([4, 4], 1.0)] {
            let placement = view.placement(size);
            let seen = placement.mask(&mask, size, view.size);
            let first = if view.shorter.is_some() { 1 } else { 0 };
            assert_eq!(seen[0], first, "{view:?}");
            assert_eq!(seen.len(), view.size[0] * view.size[1]);
            assert!(seen.iter().all(|class| *class < 24), "{view:?}");
        }
        assert_eq!(View::stretched(size).placement(size), Placement::STILL);
    }

    #[test]
    fn it_is_what_the_steps_of_an_evaluation_give() {
        let picture = stripes(9, 12);
        let steps = Augmentation::evaluation(6, 0.875, Interpolation::Bilinear);
        let view = View::cropped([6, 6], 0.875);
        assert_eq!(view.apply(picture.clone()), steps.apply(picture, 0, 0));
    }
}
