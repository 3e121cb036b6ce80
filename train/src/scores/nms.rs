//! Boxes: how much two of them overlap, and which of many a detector keeps.

use std::f64::consts::PI;

use super::descending;

/// A box: left, top, right, bottom.
pub type Corners = [f32; 4];

/// Keeps the reference implementation's denominators away from 0.
const EPSILON: f64 = 1e-7;

/// Width times height, negative where one of them is.
pub fn area(corners: Corners) -> f64 {
    let [left, top, right, bottom] = corners.map(f64::from);
    (right - left) * (bottom - top)
}

/// The area that two boxes share.
pub fn intersection(a: Corners, b: Corners) -> f64 {
    let [width, height] = overlap(a, b);
    if width > 0.0 && height > 0.0 {
        width * height
    } else {
        0.0
    }
}

/// Intersection over union, 0 to 1; 0 where the union is empty or a corner is not a number.
pub fn iou(a: Corners, b: Corners) -> f64 {
    let shared = intersection(a, b);
    share(shared, area(a) + area(b) - shared)
}

/// Generalised IoU, -1 to 1: below [`iou`] by the share of the box around both that neither covers.
///
/// Rezatofighi et al. 2019, <https://arxiv.org/abs/1902.09630>; as `torchvision.ops.generalized_box_iou`, but 0 where that
/// divides by 0.
pub fn giou(a: Corners, b: Corners) -> f64 {
    let union = area(a) + area(b) - intersection(a, b);
    let [width, height] = around(a, b);
    iou(a, b) - share(width * height - union, width * height)
}

/// Complete IoU: [`iou`] less the distance of the centres and the difference of the shapes.
///
/// Zheng et al. 2020, <https://arxiv.org/abs/1911.08287>; as `torchvision.ops.complete_box_iou`.
pub fn ciou(a: Corners, b: Corners) -> f64 {
    let iou = iou(a, b);
    let [width, height] = around(a, b);
    let [x, y] = [0, 1].map(|axis| center(a, axis) - center(b, axis));
    let apart = (x * x + y * y) / (width * width + height * height + EPSILON);
    let shape = 4.0 / (PI * PI) * (angle(a) - angle(b)).powi(2);
    iou - apart - shape * shape / (1.0 - iou + shape + EPSILON)
}

/// Greedy non-maximum suppression of each class by itself: the places of the boxes that stay, from the highest score to the
/// lowest, of equal scores the earlier place first.
///
/// A box goes where a box of its class that stays has a score as high or higher and an IoU with it above `threshold`. Equal
/// to `torchvision.ops.batched_nms`, whose arithmetic is f32 too; but scores that are NaN come last here and first there, and
/// of more than 1000 boxes it leaves the order of equal scores open.
///
/// - boxes, scores, classes: `[n]`
///
/// # Panics
///
/// If the slices differ in length.
pub fn batched_nms(
    boxes: &[Corners],
    scores: &[f32],
    classes: &[u32],
    threshold: f64,
) -> Vec<usize> {
    assert_eq!(boxes.len(), scores.len(), "a score for each box");
    assert_eq!(boxes.len(), classes.len(), "a class for each box");
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|&a, &b| descending(scores[a], scores[b]));
    let mut kept: Vec<usize> = Vec::new();
    for place in order {
        let covers = |&other: &usize| {
            classes[other] == classes[place]
                && f64::from(rounded_iou(boxes[other], boxes[place])) > threshold
        };
        if !kept.iter().any(covers) {
            kept.push(place);
        }
    }
    kept
}

/// [`iou`] with every step rounded to f32, so that a choice at the threshold is the reference implementation's.
fn rounded_iou(a: Corners, b: Corners) -> f32 {
    let area = |[left, top, right, bottom]: Corners| (right - left) * (bottom - top);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let shared = width * height;
    shared / (area(a) + area(b) - shared)
}

/// Width and height of what two boxes share; below 0 where they are apart.
fn overlap(a: Corners, b: Corners) -> [f64; 2] {
    let side =
        |axis: usize| f64::from(a[axis + 2].min(b[axis + 2])) - f64::from(a[axis].max(b[axis]));
    [side(0), side(1)]
}

/// Width and height of the smallest box around two.
fn around(a: Corners, b: Corners) -> [f64; 2] {
    let side =
        |axis: usize| f64::from(a[axis + 2].max(b[axis + 2])) - f64::from(a[axis].min(b[axis]));
    [side(0), side(1)].map(|side| side.max(0.0))
}

fn center(corners: Corners, axis: usize) -> f64 {
    (f64::from(corners[axis]) + f64::from(corners[axis + 2])) / 2.0
}

/// Of the diagonal, from the vertical.
fn angle(corners: Corners) -> f64 {
    let [left, top, right, bottom] = corners.map(f64::from);
    (right - left).atan2(bottom - top)
}

/// A part of a whole, 0 where that is not above 0.
fn share(part: f64, whole: f64) -> f64 {
    let share = part / whole;
    if share > 0.0 && whole > 0.0 {
        share
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::super::tests::golden;
    use super::*;

    #[test]
    fn values_of_boxes_are_those_of_torchvision() {
        let file = include_bytes!("../../../tests/golden/objectives/boxes.safetensors");
        let file = SafeTensors::deserialize(file).unwrap();
        let floats = |name: &str| -> Vec<f32> {
            let bytes = file.tensor(name).unwrap().data().chunks_exact(4);
            bytes
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect()
        };
        let boxes = |name: &str| -> Vec<Corners> {
            let floats = floats(name);
            let boxes = floats.chunks_exact(4);
            boxes.map(|corners| corners.try_into().unwrap()).collect()
        };
        let pairs: Vec<_> = boxes("ours").into_iter().zip(boxes("theirs")).collect();
        assert_eq!(pairs.len(), 8);
        let near = |ours: f64, theirs: f32| {
            let theirs = f64::from(theirs);
            // The file's numbers are f32 and its losses add 1e-7 to denominators.
            assert!((ours - theirs).abs() < 1e-6, "{ours}, not {theirs}");
        };
        for (index, &(a, b)) in pairs.iter().enumerate() {
            near(iou(a, b), floats("iou")[index]);
            near(1.0 - giou(a, b), floats("giou")[index]);
            near(1.0 - ciou(a, b), floats("ciou")[index]);
        }
    }

    #[test]
    fn values_of_boxes_are_what_a_hand_works_out() {
        // Of 4 and 4, 1 is shared: 1 of 7. Around both are 9, of which 2 are bare.
        let (a, b) = ([0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0]);
        assert_eq!(iou(a, b), 1.0 / 7.0);
        assert!((giou(a, b) - (1.0 / 7.0 - 2.0 / 9.0)).abs() < 1e-12);
        // The centres are sqrt 2 apart, the corners sqrt 18.
        assert!((ciou(a, b) - (1.0 / 7.0 - 2.0 / 18.0)).abs() < 1e-8);
        assert_eq!([iou(a, a), giou(a, a), ciou(a, a)], [1.0; 3]);
    }

    #[test]
    fn boxes_without_an_area_or_a_number_have_values() {
        let (point, strange) = ([1.0; 4], [f32::NAN, 0.0, 1.0, f32::INFINITY]);
        assert_eq!([iou(point, point), giou(point, point)], [0.0; 2]);
        assert_eq!(ciou(point, point), 0.0);
        assert_eq!(iou(strange, [0.0, 0.0, 2.0, 2.0]), 0.0);
        assert_eq!(iou(strange, strange), 0.0);
    }

    #[test]
    fn the_boxes_that_stay_are_those_of_torchvision() {
        let file = golden(include_str!("../../../tests/golden/scores/nms.json"));
        let cases = file.as_array().unwrap();
        assert_eq!(cases.len(), 12);
        for case in cases {
            let read = |key: &str| case[key].clone();
            let boxes: Vec<Corners> = serde_json::from_value(read("boxes")).unwrap();
            let scores: Vec<f32> = serde_json::from_value(read("scores")).unwrap();
            let classes: Vec<u32> = serde_json::from_value(read("classes")).unwrap();
            let kept: Vec<usize> = serde_json::from_value(read("kept")).unwrap();
            let threshold = case["threshold"].as_f64().unwrap();
            assert_eq!(batched_nms(&boxes, &scores, &classes, threshold), kept);
        }
    }

    #[test]
    fn a_score_that_is_not_a_number_suppresses_nothing() {
        let boxes = [[0.0, 0.0, 2.0, 2.0]; 2];
        assert_eq!(batched_nms(&boxes, &[f32::NAN, 0.1], &[0, 0], 0.5), [1]);
        assert_eq!(batched_nms(&boxes, &[f32::NAN, 0.1], &[0, 1], 0.5), [1, 0]);
    }
}
