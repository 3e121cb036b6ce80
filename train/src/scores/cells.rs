//! Boxes of an image, of what a detector says at the cells of its feature maps. In: scores and distances. Out: the boxes that stay.

use burn::prelude::*;
use model::heads::detection::Found;

use crate::scores::detection::Detection;
use crate::scores::nms::{Corners, batched_nms};

/// Boxes of an image that are compared with each other, the surest ones.
const CANDIDATES: usize = 1000;
/// Boxes that an image may have.
const MOST: usize = 100;

/// Which boxes stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// A box whose score is not higher is none.
    pub score: f64,
    /// A box that overlaps a surer one of its class by more is none, as intersection over union.
    pub overlap: f64,
}

/// The centres of the cells of all levels, x and y in pixels, the finest level first, row by row.
///
/// - grids: rows and columns of each level
/// - size: height and width of the image
pub fn centres(grids: &[[usize; 2]], [height, width]: [usize; 2]) -> Vec<[f32; 2]> {
    let mut all = Vec::new();
    for &[rows, columns] in grids {
        for row in 0..rows {
            for column in 0..columns {
                all.push([
                    (column as f32 + 0.5) * width as f32 / columns as f32,
                    (row as f32 + 0.5) * height as f32 / rows as f32,
                ]);
            }
        }
    }
    all
}

/// The boxes of each image, the surest first, at most 100.
///
/// - size: height and width of the images
pub fn detections<B: Backend>(
    found: Found<B>,
    size: [usize; 2],
    limits: Limits,
) -> Vec<Vec<Detection>> {
    let [_, n, n_classes] = found.classes.dims();
    let centres = centres(&found.grids, size);
    let scores: Vec<f32> = found.scores().into_data().iter::<f32>().collect();
    let distances: Vec<f32> = found.distances.into_data().iter::<f32>().collect();
    let images = scores.chunks(n * n_classes).zip(distances.chunks(n * 4));
    images
        .map(|(scores, distances)| boxes(scores, distances, &centres, size, limits))
        .collect()
}

/// The boxes of an image, the surest first, at most 100.
///
/// - scores: how sure each cell is of each class, `[n, n_classes]`
/// - distances: from each centre to the left, upper, right and lower edge, `[n, 4]`
/// - size: height and width of the image
pub fn boxes(
    scores: &[f32],
    distances: &[f32],
    centres: &[[f32; 2]],
    [height, width]: [usize; 2],
    limits: Limits,
) -> Vec<Detection> {
    let n_classes = (scores.len() / centres.len().max(1)).max(1);
    let sure = |at: &usize| f64::from(scores[*at]) > limits.score;
    let mut best: Vec<usize> = (0..scores.len()).filter(sure).collect();
    best.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    best.truncate(CANDIDATES);
    let corners = |at: &usize| -> Corners {
        let cell = at / n_classes;
        let [left, top, right, bottom] = [0, 1, 2, 3].map(|edge| distances[cell * 4 + edge]);
        let [x, y] = centres[cell];
        [
            (x - left).max(0.0),
            (y - top).max(0.0),
            (x + right).min(width as f32),
            (y + bottom).min(height as f32),
        ]
    };
    let boxes: Vec<Corners> = best.iter().map(corners).collect();
    let sure: Vec<f32> = best.iter().map(|&at| scores[at]).collect();
    let classes: Vec<u32> = best.iter().map(|&at| (at % n_classes) as u32).collect();
    let kept = batched_nms(&boxes, &sure, &classes, limits.overlap);
    let detection = |at: usize| Detection {
        class: classes[at],
        score: sure[at],
        corners: boxes[at],
    };
    kept.into_iter().take(MOST).map(detection).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_around_its_cell_and_the_surest_of_a_class_stays() {
        let centres = centres(&[[1, 2], [1, 1]], [4, 8]);
        assert_eq!(centres, [[2.0, 2.0], [6.0, 2.0], [4.0, 2.0]]);
        // Two classes; the first and the last cell mean the same box, the second one of the other class.
        let scores = [0.5, 0.1, 0.1, 0.6, 0.9, 0.0];
        let distances = [
            [1.0, 1.0, 3.0, 1.0],
            [1.0, 1.0, 9.0, 1.0],
            [3.0, 1.0, 1.0, 1.0],
        ];
        let limits = Limits {
            score: 0.2,
            overlap: 0.5,
        };
        let found = boxes(&scores, &distances.concat(), &centres, [4, 8], limits);
        let found: Vec<_> = found
            .iter()
            .map(|found| (found.class, found.score, found.corners))
            .collect();
        assert_eq!(
            found,
            [
                (0, 0.9, [1.0, 1.0, 5.0, 3.0]),
                (1, 0.6, [5.0, 1.0, 8.0, 3.0])
            ]
        );
    }
}
