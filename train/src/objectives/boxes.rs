//! The loss of boxes that are found in one stage, without anchors (FCOS). In: what a detector says at its cells, and the true boxes.
//! Out: sums.
//!
//! Tian et al. 2019, <https://arxiv.org/abs/1904.01355>, where a box is learned at the cells near its middle alone (Tian et al.
//! 2022, <https://arxiv.org/abs/2006.09214>); focal loss of the classes (Lin et al. 2017, <https://arxiv.org/abs/1708.02002>),
//! generalised IoU of the boxes (Rezatofighi et al. 2019, <https://arxiv.org/abs/1902.09630>).

use burn::prelude::*;
use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{FloatDType, TensorData};
use data::image::BoxLabel;
use model::heads::detection::Found;

use crate::objective::LossSums;
use crate::scores::cells;
use crate::scores::detection::corners;
use crate::scores::nms::Corners;

/// Of the focal loss: the weight of a class that is there beside one that is not, and how much less counts what is right
/// already.
const ALPHA: f64 = 0.25;
const GAMMA: f64 = 2.0;
/// A box is learned at the cells whose centre is at most this far from its own, in cells.
const RADIUS: f32 = 1.5;
/// Boxes whose farthest edge is at most this far from a cell, in cells, belong to its level, if they are too large for the finer
/// one; those that are too large for every level belong to the coarsest.
const REACH: f32 = 8.0;

/// A cell of a feature map, in pixels of the image: where its centre is, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    x: f32,
    y: f32,
    /// Its longer side.
    side: f32,
    /// Largest distances to an edge that its level is for: above the first and up to the second.
    reach: [f32; 2],
}

/// The cells of all levels, the finest level first, row by row.
fn all_cells(grids: &[[usize; 2]], [height, width]: [usize; 2]) -> Vec<Cell> {
    let side = |&[rows, columns]: &[usize; 2]| {
        (height as f32 / rows as f32).max(width as f32 / columns as f32)
    };
    let mut all = Vec::new();
    let mut centres = cells::centres(grids, [height, width]).into_iter();
    for (level, grid) in grids.iter().enumerate() {
        let [rows, columns] = *grid;
        let least = if level == 0 {
            0.0
        } else {
            REACH * side(&grids[level - 1])
        };
        let most = if level + 1 == grids.len() {
            f32::INFINITY
        } else {
            REACH * side(grid)
        };
        let of_level = centres.by_ref().take(rows * columns);
        all.extend(of_level.map(|[x, y]| Cell {
            x,
            y,
            side: side(grid),
            reach: [least, most],
        }));
    }
    all
}

impl Cell {
    /// Distances to the left, upper, right and lower edge; negative outside of the box.
    fn distances(&self, [left, top, right, bottom]: Corners) -> [f32; 4] {
        [self.x - left, self.y - top, right - self.x, bottom - self.y]
    }

    /// Whether it is near the middle of a box, inside of it, and of a level that is for boxes of this size.
    fn is_for(&self, corners: Corners) -> bool {
        let distances = self.distances(corners);
        let farthest = distances.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let [left, top, right, bottom] = corners;
        let (x, y) = ((left + right) / 2.0, (top + bottom) / 2.0);
        let near = RADIUS * self.side;
        distances.iter().all(|&distance| distance > 0.0)
            && (self.x - x).abs() <= near
            && (self.y - y).abs() <= near
            && farthest > self.reach[0]
            && farthest <= self.reach[1]
    }
}

/// The number of the box that each cell is to find, if any: of several the smallest. Each box has at least one cell, the nearest.
fn assigned(cells: &[Cell], boxes: &[BoxLabel]) -> Vec<Option<usize>> {
    let area = |label: &BoxLabel| label.width * label.height;
    let mut by_area: Vec<usize> = (0..boxes.len()).collect();
    // The smallest last: it takes what others have.
    by_area.sort_by(|&a, &b| area(&boxes[b]).total_cmp(&area(&boxes[a])).then(a.cmp(&b)));
    let mut found = vec![None; cells.len()];
    for &number in &by_area {
        let corners = corners(&boxes[number]);
        for (cell, found) in cells.iter().zip(&mut found) {
            if cell.is_for(corners) {
                *found = Some(number);
            }
        }
    }
    for &number in &by_area {
        if found.contains(&Some(number)) {
            continue;
        }
        let [left, top, right, bottom] = corners(&boxes[number]);
        let (x, y) = ((left + right) / 2.0, (top + bottom) / 2.0);
        let longest = (right - left).max(bottom - top) / 2.0;
        let off = |cell: &Cell| {
            let level = if longest > cell.reach[0] && longest <= cell.reach[1] {
                0.0
            } else {
                1e6
            };
            level + (cell.x - x).powi(2) + (cell.y - y).powi(2)
        };
        let nearest = (0..cells.len()).min_by(|&a, &b| off(&cells[a]).total_cmp(&off(&cells[b])));
        if let Some(nearest) = nearest {
            found[nearest] = Some(number);
        }
    }
    found
}

/// 1 for a cell in the middle of its box, 0 for one at an edge.
fn centerness([left, top, right, bottom]: [f32; 4]) -> f32 {
    let ratio = |a: f32, b: f32| a.min(b).max(0.0) / a.max(b).max(1e-6);
    (ratio(left, right) * ratio(top, bottom)).sqrt()
}

/// What the cells of a batch are to find.
struct Wanted {
    /// 1 for the class of a cell's box, `[batch * n, n_classes]`.
    classes: Vec<f32>,
    /// Rows of cells that have a box, in `[batch * n]`.
    rows: Vec<i32>,
    /// Their distances to its edges, `[rows, 4]`.
    distances: Vec<f32>,
    /// How much they are in its middle, `[rows]`.
    centerness: Vec<f32>,
}

impl Wanted {
    fn of(cells: &[Cell], boxes: &[Vec<BoxLabel>], n_classes: usize) -> Self {
        let mut wanted = Self {
            classes: vec![0.0; boxes.len() * cells.len() * n_classes],
            rows: vec![],
            distances: vec![],
            centerness: vec![],
        };
        for (image, boxes) in boxes.iter().enumerate() {
            for (at, found) in assigned(cells, boxes).into_iter().enumerate() {
                let Some(number) = found else {
                    continue;
                };
                let row = image * cells.len() + at;
                // One that is given to the nearest cell may lie beside it.
                let distances = cells[at].distances(corners(&boxes[number]));
                let distances = distances.map(|distance| distance.max(0.01));
                wanted.classes[row * n_classes + boxes[number].class as usize] = 1.0;
                wanted.rows.push(row as i32);
                wanted.centerness.push(centerness(distances));
                wanted.distances.extend(distances);
            }
        }
        wanted
    }
}

/// Of each value by itself, `[n, n_classes]` in and out. As `torchvision.ops.sigmoid_focal_loss`.
pub fn focal_loss<B: Backend>(logits: Tensor<B, 2>, targets: Tensor<B, 2>) -> Tensor<B, 2> {
    let others = targets.clone() * -1.0 + 1.0;
    let share = sigmoid(logits.clone());
    let cost = (log_sigmoid(logits.clone()) * targets.clone()
        + log_sigmoid(logits * -1.0) * others.clone())
        * -1.0;
    let right = share.clone() * targets.clone() + (share * -1.0 + 1.0) * others.clone();
    let wrong = right * -1.0 + 1.0;
    let weight = targets * ALPHA + others * (1.0 - ALPHA);
    weight * wrong.powf_scalar(GAMMA) * cost
}

/// 1 less the generalised IoU of two boxes around the same cell, `[n, 1]`.
///
/// - ours, theirs: distances to the left, upper, right and lower edge, above 0, `[n, 4]`
pub fn giou_loss<B: Backend>(ours: Tensor<B, 2>, theirs: Tensor<B, 2>) -> Tensor<B, 2> {
    let [n, _] = ours.dims();
    let sides = |x: &Tensor<B, 2>| {
        let column = |at: usize| x.clone().slice([0..n, at..at + 1]);
        (column(0) + column(2)) * (column(1) + column(3))
    };
    let (area, other) = (sides(&ours), sides(&theirs));
    let least = ours.clone().min_pair(theirs.clone());
    let most = ours.max_pair(theirs);
    let shared = sides(&least);
    let around = sides(&most);
    let union = area + other - shared.clone();
    let iou = shared / (union.clone() + 1e-7);
    iou * -1.0 + 1.0 + (around.clone() - union) / (around + 1e-7)
}

/// The loss of images, summed over them: of the classes of all cells, and of the boxes of the cells that have one, by whose
/// number it is divided for its mean.
///
/// - boxes: those of each image, in pixels of the image as the model sees it
/// - size: height and width of the images
pub fn box_loss<B: Backend>(
    found: Found<B>,
    boxes: &[Vec<BoxLabel>],
    size: [usize; 2],
) -> LossSums<B> {
    let [n_images, n, n_classes] = found.classes.dims();
    let device = found.classes.device();
    let cells = all_cells(&found.grids, size);
    let wanted = Wanted::of(&cells, boxes, n_classes);
    let rows = n_images * n;
    let tensor = |values: Vec<f32>, width: usize| {
        let n = values.len() / width;
        Tensor::<B, 2>::from_data(TensorData::new(values, [n, width]), &device)
    };
    let logits = found
        .classes
        .cast(FloatDType::F32)
        .reshape([rows, n_classes]);
    let mut loss = focal_loss(logits, tensor(wanted.classes, n_classes)).sum();
    let own = wanted.rows.len();
    if own > 0 {
        let at = Tensor::<B, 1, Int>::from_data(TensorData::new(wanted.rows, [own]), &device);
        let distances = found.distances.cast(FloatDType::F32).reshape([rows, 4]);
        let distances = distances.select(0, at.clone());
        let giou = giou_loss(distances, tensor(wanted.distances, 4));
        let middle = found.centerness.cast(FloatDType::F32).reshape([rows, 1]);
        let middle = middle.select(0, at);
        let truth = tensor(wanted.centerness, 1);
        let others = truth.clone() * -1.0 + 1.0;
        let cost = log_sigmoid(middle.clone()) * truth + log_sigmoid(middle * -1.0) * others;
        loss = loss + giou.sum() - cost.sum();
    }
    // Of a batch without a box, the cells that hold nothing still count.
    LossSums::weighted(loss, vec![], n_images, own.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    fn label(class: u32, [x, y, width, height]: [f32; 4]) -> BoxLabel {
        BoxLabel {
            class,
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn every_box_has_a_cell_and_small_ones_come_first() {
        let cells = all_cells(&[[8, 8], [4, 4], [2, 2]], [64, 64]);
        assert_eq!(cells.len(), 64 + 16 + 4);
        let boxes = [
            label(0, [4.0, 4.0, 40.0, 40.0]),
            label(1, [20.0, 20.0, 10.0, 10.0]),
            label(2, [61.0, 0.0, 3.0, 1.0]),
        ];
        let found = assigned(&cells, &boxes);
        for number in 0..3 {
            assert!(found.contains(&Some(number)), "{number}");
        }
        // The cell in the middle of both.
        let middle = cells
            .iter()
            .position(|cell| (cell.x, cell.y) == (28.0, 28.0));
        assert_eq!(found[middle.unwrap()], Some(1));
    }

    #[test]
    fn levels_share_boxes_by_their_size() {
        let cells = all_cells(&[[16, 16], [8, 8]], [64, 64]);
        let of = |label: BoxLabel| {
            let found = assigned(&cells, &[label]);
            let fine = found[..256].iter().flatten().count();
            (fine, found[256..].iter().flatten().count())
        };
        // A level of 4 pixels is for distances up to 32.
        let (fine, coarse) = of(label(0, [20.0, 20.0, 20.0, 20.0]));
        assert!(fine > 0 && coarse == 0, "{fine} {coarse}");
        let (fine, coarse) = of(label(0, [0.0, 0.0, 64.0, 64.0]));
        assert!(fine == 0 && coarse > 0, "{fine} {coarse}");
    }

    #[test]
    fn the_middle_of_a_box_is_one_and_its_edge_nothing() {
        assert_eq!(centerness([2.0, 3.0, 2.0, 3.0]), 1.0);
        assert_eq!(centerness([0.0, 3.0, 4.0, 3.0]), 0.0);
    }

    #[test]
    fn the_loss_of_boxes_is_one_less_their_generalised_iou() {
        let device = Default::default();
        let (ours, theirs) = ([3.0, 2.0, 5.0, 4.0], [1.0, 6.0, 2.0, 2.5]);
        let tensor = |x: [f32; 4]| {
            Tensor::<Flex, 2>::from_data(TensorData::new(x.to_vec(), [1, 4]), &device)
        };
        let loss: f32 = giou_loss(tensor(ours), tensor(theirs)).into_scalar();
        let around = |[left, top, right, bottom]: [f32; 4]| -> Corners {
            [10.0 - left, 10.0 - top, 10.0 + right, 10.0 + bottom]
        };
        let expected = 1.0 - crate::scores::nms::giou(around(ours), around(theirs));
        assert!(
            (f64::from(loss) - expected).abs() < 1e-5,
            "{loss}, not {expected}"
        );
    }
}
