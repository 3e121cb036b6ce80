//! Where the pixels of an augmented picture come from, so that masks and boxes move with them. In: the steps of an augmentation.
//! Out: [`Placement`].

use rand_chacha::ChaCha8Rng;

use super::{Augmentation, Region, Step};
use crate::image::{BoxLabel, IGNORED, Picture};
use crate::order::{self, Stream};

/// A box is dropped when a smaller share of its area is left in the picture.
const LEAST_SEEN: f32 = 0.2;

/// Where in the old picture a point of the new one comes from, for each axis: `old = scale * new + offset`. Pixel edges are at
/// whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Down and to the right.
    pub scale: [f64; 2],
    /// Down and to the right.
    pub offset: [f64; 2],
}

impl Placement {
    /// Nothing moves.
    pub const STILL: Self = Self {
        scale: [1.0; 2],
        offset: [0.0; 2],
    };

    /// Right becomes left in a picture so wide, or bottom becomes top in one so high.
    pub(super) fn mirrored(axis: usize, pixels: usize) -> Self {
        let mut placement = Self::STILL;
        placement.scale[axis] = -1.0;
        placement.offset[axis] = pixels as f64;
        placement
    }

    /// What is shown begins at this row and column.
    pub(super) fn cut([row, column]: [isize; 2]) -> Self {
        Self {
            offset: [row as f64, column as f64],
            ..Self::STILL
        }
    }

    /// A part is shown at this height and width.
    pub(super) fn resized(part: Region, size: [usize; 2]) -> Self {
        let scale = |from: usize, to: usize| from as f64 / to as f64;
        Self {
            scale: [scale(part.height, size[0]), scale(part.width, size[1])],
            offset: [part.top as f64, part.left as f64],
        }
    }

    /// This one, and another one after it.
    pub fn then(self, later: Self) -> Self {
        let axis = |axis: usize| {
            let scale = self.scale[axis] * later.scale[axis];
            (
                scale,
                self.scale[axis] * later.offset[axis] + self.offset[axis],
            )
        };
        let [(down, top), (right, left)] = [axis(0), axis(1)];
        Self {
            scale: [down, right],
            offset: [top, left],
        }
    }

    /// A mask as the new picture shows it; what was not in the old one belongs to no class.
    ///
    /// - mask: `[height, width]` of the old picture
    /// - from, to: height and width of the old picture and of the new one
    pub fn mask(&self, mask: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
        if *self == Self::STILL && from == to {
            return mask.to_vec();
        }
        let source = |at: usize, axis: usize| {
            let old = self.scale[axis] * (at as f64 + 0.5) + self.offset[axis];
            (old >= 0.0 && old < from[axis] as f64).then_some(old as usize)
        };
        let columns: Vec<_> = (0..to[1]).map(|x| source(x, 1)).collect();
        let mut moved = Vec::with_capacity(to[0] * to[1]);
        for y in 0..to[0] {
            let row = source(y, 0);
            moved.extend(columns.iter().map(|column| match (row, column) {
                (Some(row), Some(column)) => mask[row * from[1] + column],
                _ => IGNORED,
            }));
        }
        moved
    }

    /// A box as the new picture shows it, cut at its edges; nothing where most of it is out of sight.
    ///
    /// - to: height and width of the new picture
    pub fn label(&self, label: &BoxLabel, to: [usize; 2]) -> Option<BoxLabel> {
        let edges = |axis: usize, start: f32, length: f32| {
            let new = |old: f32| ((f64::from(old) - self.offset[axis]) / self.scale[axis]) as f32;
            let (a, b) = (new(start), new(start + length));
            let (first, last) = (a.min(b), a.max(b));
            let most = to[axis] as f32;
            (first.clamp(0.0, most), last.clamp(0.0, most), last - first)
        };
        let (top, bottom, height) = edges(0, label.y, label.height);
        let (left, right, width) = edges(1, label.x, label.width);
        let seen = (bottom - top) * (right - left);
        (seen > 0.0 && seen >= LEAST_SEEN * height * width).then_some(BoxLabel {
            class: label.class,
            x: left,
            y: top,
            width: right - left,
            height: bottom - top,
        })
    }
}

impl Augmentation {
    /// Says which step moves pixels in a way that masks and boxes cannot follow, if one does.
    pub fn check_placement(&self) -> Result<(), String> {
        for (at, step) in self.steps.iter().enumerate() {
            if let Step::Rotate(_) | Step::RandAugment(_) | Step::TrivialAugment(_) = step {
                let kind = step.transform().kind();
                return Err(format!(
                    "step {}, {kind}: turns and bends pictures, and masks and boxes do not follow it",
                    at + 1
                ));
            }
        }
        Ok(())
    }

    /// As [`apply`](Self::apply), and where the pixels come from.
    ///
    /// # Panics
    /// As [`apply`](Self::apply).
    pub fn apply_with_placement(
        &self,
        picture: Picture,
        seed: u64,
        sample: u64,
    ) -> (Picture, Placement) {
        let mut rng = order::rng(seed, Stream::Augment, sample);
        let start = (picture, Placement::STILL);
        self.steps.iter().fold(start, |(picture, placement), step| {
            // Drawn once to move the picture, and once more to say where to.
            let mut again: ChaCha8Rng = rng.clone();
            let size = picture.size();
            let picture = step.transform().apply(picture, &mut rng);
            let moved = step.transform().placement(size, &mut again);
            (picture, placement.then(moved))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture in which no two pixels have the same value.
    fn picture(size: [usize; 2]) -> Picture {
        let values = (0..size[0] * size[1]).map(|at| at as u8);
        Picture::new(1, size, values.collect())
    }

    fn steps(text: &str) -> Augmentation {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_mask_that_is_the_picture_moves_as_the_picture_does() {
        let size = [11, 13];
        for text in [
            r#"[{"kind": "flip"}]"#,
            r#"[{"kind": "flip_vertical"}]"#,
            r#"[{"kind": "random_crop", "size": [7, 5]}]"#,
            r#"[{"kind": "center_crop", "size": [7, 5]}, {"kind": "flip"}]"#,
            r#"[{"kind": "shift", "pixels": 3}]"#,
            r#"[{"kind": "random_resized_crop", "size": [22, 26], "scale": [0.5, 1.0], "interpolation": "nearest"}]"#,
            r#"[{"kind": "resize", "size": [22, 26], "interpolation": "nearest"}, {"kind": "random_crop", "size": 9}]"#,
        ] {
            let steps = steps(text);
            for sample in 0..20 {
                let before = picture(size);
                let (after, placement) = steps.apply_with_placement(before.clone(), 3, sample);
                assert_eq!(after, steps.apply(before.clone(), 3, sample), "{text}");
                let mask = placement.mask(&before.pixels, size, after.size());
                let known = mask.iter().zip(&after.pixels);
                let mut known = known.filter(|(mask, _)| **mask != IGNORED);
                assert!(known.all(|(mask, pixel)| mask == pixel), "{text}: {sample}");
            }
        }
    }

    #[test]
    fn a_box_is_cut_at_the_edges_and_goes_with_what_is_out_of_sight() {
        let label = BoxLabel {
            class: 2,
            x: 1.0,
            y: 2.0,
            width: 4.0,
            height: 4.0,
        };
        let corners = |placement: Placement| {
            let label = placement.label(&label, [10, 10])?;
            Some([label.x, label.y, label.width, label.height])
        };
        let mirrored = corners(Placement::mirrored(1, 10));
        assert_eq!(mirrored, Some([5.0, 2.0, 4.0, 4.0]));
        assert_eq!(corners(Placement::cut([0, 3])), Some([0.0, 2.0, 2.0, 4.0]));
        assert_eq!(corners(Placement::cut([0, 4])), Some([0.0, 2.0, 1.0, 4.0]));
        assert_eq!(corners(Placement::cut([4, 4])), None, "an eighth of it");
        assert_eq!(corners(Placement::cut([0, 5])), None);
        let part = Region {
            top: 0,
            left: 0,
            height: 5,
            width: 5,
        };
        let larger = corners(Placement::resized(part, [10, 10]));
        assert_eq!(larger, Some([2.0, 4.0, 8.0, 6.0]));
    }

    #[test]
    fn steps_that_nothing_follows_are_named() {
        let error = steps(r#"[{"kind": "flip"}, {"kind": "rotate", "degrees": 5}]"#);
        let error = error.check_placement().unwrap_err();
        assert!(error.starts_with("step 2, rotate: turns"), "{error}");
    }
}
