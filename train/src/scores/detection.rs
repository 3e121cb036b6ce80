//! What a detector is judged by: COCO's average precision and recall. In: boxes of images. Out: figures of a split.
//!
//! <https://cocodataset.org/#detection-eval>. Equal to `COCOeval` of pycocotools for boxes at its default settings: 10
//! thresholds of IoU, 101 of recall, three sizes, and the best 1, 10 or 100 detections of each class and image. What is not
//! defined without truths is -1 there and NaN here.

use std::collections::{BTreeMap, BTreeSet};

use data::image::BoxLabel;
use serde_json::{Value, json};

use super::nms::{Corners, area, intersection};
use super::{descending, mean};
use crate::metrics::{Metric, Metrics};
use crate::objective::Tally;

/// Names of what is reported for every split; sizes and fewer detections are in [`DetectionTally::metrics`] alone.
pub const METRICS: &[Metric] = &[
    Metric::higher("map"),
    Metric::higher("map_50"),
    Metric::higher("map_75"),
    Metric::higher("mar_100"),
];

/// Of a class and an image, those with the highest scores.
const MOST_DETECTIONS: usize = 100;
const IOU_THRESHOLDS: usize = 10;
const RECALL_THRESHOLDS: usize = 101;

/// Truths whose area is in a range, ends included.
#[derive(Clone, Copy)]
enum Size {
    All,
    Small,
    Medium,
    Large,
}

impl Size {
    const ALL: [Self; 4] = [Self::All, Self::Small, Self::Medium, Self::Large];

    /// In square pixels.
    fn holds(self, area: f64) -> bool {
        let [low, high]: [f64; 2] = match self {
            Self::All => [0.0, 1e5],
            Self::Small => [0.0, 32.0],
            Self::Medium => [32.0, 96.0],
            Self::Large => [96.0, 1e5],
        };
        low * low <= area && area <= high * high
    }
}

/// A box that a model found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Its class.
    pub class: u32,
    /// How sure the model is. NaN ranks behind all others.
    pub score: f32,
    /// Where it is, in pixels.
    pub corners: Corners,
}

/// A box that is to be found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrueBox {
    /// Its class.
    pub class: u32,
    /// Where it is, in pixels.
    pub corners: Corners,
    /// Whether it holds many things, which need not be found and may be found more than once.
    pub crowd: bool,
    /// Area of the thing in square pixels, which may be less than that of the box; for the figures of a size.
    pub area: f64,
}

impl TrueBox {
    /// One thing with its whole box.
    pub fn of(label: &BoxLabel) -> Self {
        Self {
            class: label.class,
            corners: corners(label),
            crowd: false,
            area: f64::from(label.width) * f64::from(label.height),
        }
    }
}

/// Left, top, right and bottom.
pub(crate) fn corners(label: &BoxLabel) -> Corners {
    let (right, bottom) = (label.x + label.width, label.y + label.height);
    [label.x, label.y, right, bottom]
}

/// What became of the boxes of a split.
///
/// Memory: 28 bytes for each detection, at most 100 for a class and an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectionTally {
    classes: BTreeMap<u32, ClassBoxes>,
}

/// What became of the boxes of a class.
#[derive(Clone, Debug, Default, PartialEq)]
struct ClassBoxes {
    /// Truths that are to be found, by size.
    truths: [u64; 4],
    found: Vec<Found>,
}

/// What became of a detection.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    score: f32,
    image: u32,
    /// Place among the detections of the class in the image.
    rank: u8,
    by_size: [Outcome; 4],
}

/// A bit for each threshold of IoU. Neither is set where a detection does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Outcome {
    right: u16,
    wrong: u16,
}

/// Average precision and recall of a class.
#[derive(Clone, Copy)]
struct Curve {
    precision: f64,
    recall: f64,
}

impl DetectionTally {
    /// Takes in an image.
    ///
    /// - image: its place in the split, each once. Of detections with equal scores those of an earlier image come first, then those
    ///   that come first here
    pub fn add(&mut self, image: u32, detections: &[Detection], truths: &[TrueBox]) {
        let classes = detections.iter().map(|detection| detection.class);
        let classes: BTreeSet<u32> = classes.chain(truths.iter().map(|t| t.class)).collect();
        for class in classes {
            let of_class = detections.iter().filter(|found| found.class == class);
            let mut of_class: Vec<Detection> = of_class.copied().collect();
            of_class.sort_by(|a, b| descending(a.score, b.score));
            of_class.truncate(MOST_DETECTIONS);
            let truths = truths.iter().filter(|truth| truth.class == class);
            let truths: Vec<TrueBox> = truths.copied().collect();
            let tally = self.classes.entry(class).or_default();
            tally.add(image, &of_class, &truths);
        }
    }

    /// Average precision at an IoU of 0.5 of each class that has something to be found.
    pub fn map_50_by_class(&self) -> BTreeMap<u32, f64> {
        let classes = self.classes.iter();
        let curve = |(&class, tally): (&u32, &ClassBoxes)| {
            let curve = tally.curve(&tally.ranked(), Size::All, 0)?;
            Some((class, curve.precision))
        };
        classes.filter_map(curve).collect()
    }

    /// By class that has something to be found, by threshold of IoU.
    fn curves(&self, size: Size, most: usize) -> Vec<Vec<Curve>> {
        let curves = |tally: &ClassBoxes| {
            let mut ranked = tally.ranked();
            ranked.retain(|found| usize::from(found.rank) < most);
            let curves = (0..IOU_THRESHOLDS).map(|at| tally.curve(&ranked, size, at));
            curves.collect::<Option<Vec<_>>>()
        };
        self.classes.values().filter_map(curves).collect()
    }
}

impl Tally for DetectionTally {
    fn merge(&mut self, other: Self) {
        for (class, other) in other.classes {
            let tally = self.classes.entry(class).or_default();
            tally.found.extend(other.found);
            for (sum, count) in tally.truths.iter_mut().zip(other.truths) {
                *sum += count;
            }
        }
    }

    /// `map` over all thresholds of IoU, `map_50`, `map_75`; `mar_1`, `mar_10`, `mar_100`, the mean of the recall with so
    /// many detections of a class and an image; and `map_` and `mar_` of `small`, `medium` and `large` ones, bounded at
    /// 32 x 32 and 96 x 96 pixels. All are means over the classes that have something to be found.
    fn metrics(&self) -> Metrics {
        let precision = |curve: &Curve| curve.precision;
        let recall = |curve: &Curve| curve.recall;
        let all = self.curves(Size::All, MOST_DETECTIONS);
        let at = |threshold: usize| mean(all.iter().map(|of_class| of_class[threshold].precision));
        let few = |most| mean(self.curves(Size::All, most).iter().flatten().map(recall));
        let mut metrics = Metrics::from([
            ("map".into(), mean(all.iter().flatten().map(precision))),
            ("map_50".into(), at(0)),
            ("map_75".into(), at(5)),
            ("mar_1".into(), few(1)),
            ("mar_10".into(), few(10)),
            ("mar_100".into(), mean(all.iter().flatten().map(recall))),
        ]);
        let sizes = [
            ("small", Size::Small),
            ("medium", Size::Medium),
            ("large", Size::Large),
        ];
        for (name, size) in sizes {
            let curves = self.curves(size, MOST_DETECTIONS);
            let precisions = mean(curves.iter().flatten().map(precision));
            metrics.insert(format!("map_{name}"), precisions);
            let recalls = mean(curves.iter().flatten().map(recall));
            metrics.insert(format!("mar_{name}"), recalls);
        }
        metrics
    }

    fn details(&self) -> Option<Value> {
        Some(json!({"map_50_by_class": self.map_50_by_class()}))
    }

    fn is_empty(&self) -> bool {
        self.classes.values().all(|tally| tally.truths[0] == 0)
    }
}

impl ClassBoxes {
    /// Takes in an image.
    ///
    /// - detections: from the highest score to the lowest
    fn add(&mut self, image: u32, detections: &[Detection], truths: &[TrueBox]) {
        let overlaps: Vec<Vec<f64>> = detections
            .iter()
            .map(|found| truths.iter().map(|truth| overlap(found, truth)).collect())
            .collect();
        let by_size = Size::ALL.map(|size| {
            let counts = |truth: &TrueBox| !truth.crowd && size.holds(truth.area);
            let counts: Vec<bool> = truths.iter().map(counts).collect();
            let mut outcomes = vec![Outcome::default(); detections.len()];
            for threshold in 0..IOU_THRESHOLDS {
                let matches = find_matches(&overlaps, truths, &counts, iou_threshold(threshold));
                for ((outcome, detection), truth) in
                    outcomes.iter_mut().zip(detections).zip(matches)
                {
                    let right = truth.is_some_and(|truth| counts[truth]);
                    let wrong = truth.is_none() && size.holds(area(detection.corners));
                    outcome.right |= u16::from(right) << threshold;
                    outcome.wrong |= u16::from(wrong) << threshold;
                }
            }
            (counts.iter().filter(|&&counts| counts).count(), outcomes)
        });
        for (sum, (count, _)) in self.truths.iter_mut().zip(&by_size) {
            *sum += *count as u64;
        }
        let found = detections.iter().enumerate();
        self.found.extend(found.map(|(rank, detection)| Found {
            score: detection.score,
            image,
            rank: rank as u8,
            by_size: [0, 1, 2, 3].map(|size: usize| by_size[size].1[rank]),
        }));
    }

    /// The detections of all images, from the highest score to the lowest.
    fn ranked(&self) -> Vec<&Found> {
        let mut ranked: Vec<&Found> = self.found.iter().collect();
        ranked.sort_by(|a, b| {
            descending(a.score, b.score).then((a.image, a.rank).cmp(&(b.image, b.rank)))
        });
        ranked
    }

    /// Nothing where there is nothing to be found.
    fn curve(&self, ranked: &[&Found], size: Size, threshold: usize) -> Option<Curve> {
        let truths = self.truths[size as usize];
        if truths == 0 {
            return None;
        }
        let (mut right, mut wrong) = (0u64, 0u64);
        let (mut recalls, mut precisions) = (Vec::new(), Vec::new());
        for found in ranked {
            let outcome = found.by_size[size as usize];
            let (hit, miss) = (
                outcome.right >> threshold & 1,
                outcome.wrong >> threshold & 1,
            );
            if hit + miss == 0 {
                continue;
            }
            right += u64::from(hit);
            wrong += u64::from(miss);
            recalls.push(right as f64 / truths as f64);
            precisions.push(right as f64 / (right + wrong) as f64);
        }
        // The precision at a recall is the best one at that recall or a higher one.
        for place in (1..precisions.len()).rev() {
            precisions[place - 1] = precisions[place - 1].max(precisions[place]);
        }
        let at = |threshold: usize| {
            // Not divided by 100: the reference implementation's are rounded like this.
            let threshold = threshold as f64 * 0.01;
            let place = recalls.partition_point(|&recall| recall < threshold);
            precisions.get(place).copied().unwrap_or(0.0)
        };
        Some(Curve {
            precision: mean((0..RECALL_THRESHOLDS).map(at)),
            recall: recalls.last().copied().unwrap_or(0.0),
        })
    }
}

/// 0.5, 0.55 to 0.95, rounded as the reference implementation has them.
fn iou_threshold(index: usize) -> f64 {
    let step = (0.95 - 0.5) / 9.0;
    match index {
        9 => 0.95,
        _ => 0.5 + index as f64 * step,
    }
}

/// IoU; of a crowd, how much of the detection lies in it.
fn overlap(detection: &Detection, truth: &TrueBox) -> f64 {
    let shared = intersection(detection.corners, truth.corners);
    let whole = if truth.crowd {
        area(detection.corners)
    } else {
        area(detection.corners) + area(truth.corners) - shared
    };
    // Neither of corners that are not numbers nor of boxes without an area.
    let share = shared / whole;
    if share > 0.0 { share } else { 0.0 }
}

/// The truth that each detection is matched with: the one it overlaps most that no earlier detection has taken. One that does
/// not count is taken only where none that counts is left, and a crowd by any number of detections.
///
/// - overlaps: `[detections, truths]`
fn find_matches(
    overlaps: &[Vec<f64>],
    truths: &[TrueBox],
    counts: &[bool],
    threshold: f64,
) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..truths.len()).collect();
    order.sort_by_key(|&truth| !counts[truth]);
    let mut taken = vec![false; truths.len()];
    let find = |overlaps: &Vec<f64>| {
        let mut best: Option<usize> = None;
        let mut most = threshold;
        for &truth in &order {
            if taken[truth] && !truths[truth].crowd {
                continue;
            }
            if best.is_some_and(|best| counts[best]) && !counts[truth] {
                break;
            }
            // Of equal ones the last, as the reference implementation has it.
            if overlaps[truth] >= most {
                most = overlaps[truth];
                best = Some(truth);
            }
        }
        if let Some(best) = best {
            taken[best] = true;
        }
        best
    };
    overlaps.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::golden;
    use super::*;

    type Image = (Vec<Detection>, Vec<TrueBox>);

    fn cases() -> serde_json::Map<String, Value> {
        let file = golden(include_str!("../../../tests/golden/scores/detection.json"));
        file.as_object().unwrap().clone()
    }

    fn images(case: &Value) -> Vec<Image> {
        let corners = |row: &[f64]| [0, 1, 2, 3].map(|corner: usize| row[corner] as f32);
        let rows = |image: &Value, key: &str| -> Vec<Vec<f64>> {
            serde_json::from_value(image[key].clone()).unwrap()
        };
        let images = case["images"].as_array().unwrap().iter();
        let read = |image: &Value| {
            let detection = |row: &Vec<f64>| Detection {
                class: row[0] as u32,
                score: row[1] as f32,
                corners: corners(&row[2..]),
            };
            let truth = |row: &Vec<f64>| TrueBox {
                class: row[0] as u32,
                corners: corners(&row[1..]),
                crowd: row[5] == 1.0,
                area: row[6],
            };
            let detections = rows(image, "detections").iter().map(detection).collect();
            (
                detections,
                rows(image, "truths").iter().map(truth).collect(),
            )
        };
        images.map(read).collect()
    }

    fn tally(images: &[Image]) -> DetectionTally {
        let mut tally = DetectionTally::default();
        for (index, (detections, truths)) in images.iter().enumerate() {
            tally.add(index as u32, detections, truths);
        }
        tally
    }

    fn assert_near(ours: f64, theirs: &Value, what: &str) {
        match theirs.as_f64().unwrap() {
            -1.0 => assert!(ours.is_nan(), "{what}: {ours}"),
            theirs => assert!((ours - theirs).abs() < 1e-9, "{what}: {ours}, not {theirs}"),
        }
    }

    #[test]
    fn figures_are_those_of_pycocotools() {
        let names = [
            "map",
            "map_50",
            "map_75",
            "map_small",
            "map_medium",
            "map_large",
            "mar_1",
            "mar_10",
            "mar_100",
            "mar_small",
            "mar_medium",
            "mar_large",
        ];
        assert_eq!(cases().len(), 16);
        for (name, case) in cases() {
            let tally = tally(&images(&case));
            let metrics = tally.metrics();
            assert_eq!(metrics.len(), names.len());
            for (index, key) in names.iter().enumerate() {
                assert_near(
                    metrics[*key],
                    &case["stats"][index],
                    &format!("{name}: {key}"),
                );
            }
            let by_class = tally.map_50_by_class();
            for (class, theirs) in case["ap_50_by_class"]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
            {
                let ours = by_class.get(&(class as u32)).copied().unwrap_or(f64::NAN);
                assert_near(ours, theirs, &format!("{name}: class {class}"));
            }
        }
    }

    #[test]
    fn images_merge_in_any_order() {
        for (name, case) in cases() {
            let images = images(&case);
            let mut merged = DetectionTally::default();
            let split = (0..images.len()).rev();
            // Odd images after the even ones, both from the back.
            for index in split
                .clone()
                .filter(|i| i % 2 == 0)
                .chain(split.filter(|i| i % 2 == 1))
            {
                let mut part = DetectionTally::default();
                let (detections, truths) = &images[index];
                part.add(index as u32, detections, truths);
                merged.merge(part);
            }
            let bits = |tally: &DetectionTally| -> Vec<u64> {
                tally
                    .metrics()
                    .values()
                    .map(|value| value.to_bits())
                    .collect()
            };
            assert_eq!(bits(&merged), bits(&tally(&images)), "{name}");
        }
    }

    #[test]
    fn average_precision_is_what_a_hand_works_out() {
        let boxes = |left: f32| [left, 0.0, left + 10.0, 10.0];
        let truth = |left| TrueBox {
            class: 0,
            corners: boxes(left),
            crowd: false,
            area: 100.0,
        };
        let found = |score, left| Detection {
            class: 0,
            score,
            corners: boxes(left),
        };
        let mut tally = DetectionTally::default();
        assert!(tally.is_empty() && tally.metrics()["map"].is_nan());
        // The first is right, the second is not: at recalls of 0 to 0.5 the precision is 1, then 0. 51 of 101.
        tally.add(
            0,
            &[found(0.9, 0.0), found(0.8, 50.0)],
            &[truth(0.0), truth(20.0)],
        );
        assert!((tally.metrics()["map"] - 51.0 / 101.0).abs() < 1e-12);
        assert_eq!(tally.metrics()["mar_100"], 0.5);
        assert!(!tally.is_empty());
        // A third is right and ranks last: from there on it is 2 of 3.
        tally.add(1, &[found(f32::NAN, 0.0)], &[truth(0.0)]);
        // Recalls of 0 to 1/3 at a precision of 1, to 2/3 at 2/3: thresholds 0 to 33 and 34 to 66.
        let expected = (34.0 + 33.0 * 2.0 / 3.0) / 101.0;
        assert!((tally.metrics()["map_small"] - expected).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_a_number_matches_nothing() {
        let truth = TrueBox {
            class: 3,
            corners: [0.0, 0.0, 4.0, 4.0],
            crowd: true,
            area: f64::NAN,
        };
        let found = Detection {
            class: 3,
            score: f32::NAN,
            corners: [f32::NAN, f32::INFINITY, 1.0, f32::NAN],
        };
        let mut tally = DetectionTally::default();
        tally.add(
            0,
            &[found],
            &[
                truth,
                TrueBox {
                    crowd: false,
                    area: 16.0,
                    ..truth
                },
            ],
        );
        assert_eq!(tally.metrics()["map"], 0.0);
        assert_eq!(tally.map_50_by_class(), BTreeMap::from([(3, 0.0)]));
    }
}
