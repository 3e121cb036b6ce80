//! All steps against torchvision, by `tests/golden/make_augment.py`; descriptions as recipes write them.

use super::*;
use crate::augment::geometry::{flipped, flipped_vertically, rotated, sheared, translated};
use crate::augment::resize::{resized, resized_region};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/augment.json")).unwrap()
}

/// A picture as the golden file writes it: channels, height, width, planes in hexadecimal digits.
fn picture(value: &Value) -> Picture {
    let number = |key: &str| value[key].as_u64().unwrap() as usize;
    let digits = value["planes"].as_str().unwrap();
    let planes: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect();
    let size = [number("height"), number("width")];
    Picture::from_planes(number("channels"), size, &planes)
}

fn interpolation(case: &Value) -> Interpolation {
    serde_json::from_value(case["interpolation"].clone()).unwrap()
}

fn fill(case: &Value) -> Option<Fill> {
    serde_json::from_value(case["fill"].clone()).unwrap()
}

fn numbers<const N: usize>(value: &Value) -> [f64; N] {
    let numbers = value.as_array().unwrap().iter();
    let numbers: Vec<f64> = numbers.map(|number| number.as_f64().unwrap()).collect();
    numbers.try_into().unwrap()
}

fn whole<const N: usize>(value: &Value) -> [usize; N] {
    numbers(value).map(|number| number as usize)
}

/// What our operation makes of the picture, and by how many levels of 255 it may differ from torchvision's.
fn computed(case: &Value, from: &Picture) -> (Picture, u8) {
    let number = |key: &str| case[key].as_f64().unwrap();
    let changed = |change: &dyn Fn(&mut Picture)| {
        let mut picture = from.clone();
        change(&mut picture);
        picture
    };
    let beyond = || (interpolation(case), fill(case));
    match case["operation"].as_str().unwrap() {
        "resize" => {
            let to = resized(from.clone(), whole(&case["size"]), interpolation(case));
            (to, u8::from(interpolation(case) != Interpolation::Nearest))
        }
        "resized_crop" => {
            let [top, left, height, width] = whole(&case["region"]);
            let region = Region {
                top,
                left,
                height,
                width,
            };
            let size = whole(&case["size"]);
            (resized_region(from, region, size, interpolation(case)), 1)
        }
        "center_crop" => {
            let size = Size::Exact(whole(&case["size"]));
            let step = CenterCrop { size };
            let mut rng = order::rng(0, Stream::Augment, 0);
            (step.apply(from.clone(), &mut rng), 0)
        }
        "pad" => {
            let padding = number("padding") as usize;
            let size = from.size().map(|side| side + 2 * padding);
            let mode = serde_json::from_value(case["mode"].clone()).unwrap();
            let start = [-(padding as isize); 2];
            let fill = fill(case).unwrap_or_default();
            (crop::cut(from.clone(), start, size, mode, fill), 0)
        }
        "horizontal_flip" => (flipped(from.clone()), 0),
        "vertical_flip" => (flipped_vertically(from.clone()), 0),
        "rotate" => {
            let (interpolation, fill) = beyond();
            let picture = rotated(from, number("degrees"), interpolation, fill);
            (picture, between(interpolation))
        }
        "shear" => {
            let (interpolation, fill) = beyond();
            let picture = sheared(from, numbers(&case["by"]), interpolation, fill);
            (picture, between(interpolation))
        }
        "translate" => {
            let (interpolation, fill) = beyond();
            (
                translated(from, numbers(&case["by"]), interpolation, fill),
                0,
            )
        }
        "brightness" => (changed(&|p| colour::brighten(p, number("factor"))), 0),
        "contrast" => (changed(&|p| colour::contrast(p, number("factor"))), 1),
        "saturation" => (changed(&|p| colour::saturate(p, number("factor"))), 1),
        "hue" => (changed(&|p| colour::turn_hue(p, number("factor"))), 1),
        "grayscale" => {
            let mut rng = order::rng(0, Stream::Augment, 0);
            (Grayscale { p: 1.0 }.apply(from.clone(), &mut rng), 1)
        }
        "sharpness" => (changed(&|p| blur::sharpen(p, number("factor"))), 1),
        "blur" => {
            let kernel_size = whole(&case["kernel_size"]);
            (blur::blurred(from, kernel_size, number("sigma")), 1)
        }
        "solarize" => (changed(&|p| colour::solarize(p, number("threshold"))), 0),
        "posterize" => (changed(&|p| colour::posterize(p, number("bits") as u32)), 0),
        "autocontrast" => (changed(&colour::stretch_contrast), 0),
        "equalize" => (changed(&colour::equalize), 0),
        other => panic!("{other} is not known"),
    }
}

/// Sums of four products are rounded, one pixel is copied.
fn between(interpolation: Interpolation) -> u8 {
    u8::from(interpolation == Interpolation::Bilinear)
}

#[test]
fn operations_are_torchvisions() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let from = picture(&golden["pictures"][case["picture"].as_str().unwrap()]);
        let expected = picture(&case["expected"]);
        let (found, most) = computed(case, &from);
        assert_eq!(found.size(), expected.size(), "{case}");
        let pairs = found.pixels.iter().zip(&expected.pixels);
        let far = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        if far > most {
            let mut about = case.clone();
            about["expected"] = Value::Null;
            wrong.push(format!("{far} levels: {about}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn described(toml: &str) -> Result<Augmentation, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        steps: Augmentation,
    }
    let table: Table = toml::from_str(toml).map_err(|error| error.message().to_string())?;
    table.steps.check().map(|()| table.steps)
}

#[test]
fn a_recipe_names_steps_and_what_differs_from_torchvision() {
    let steps = described(
        r#"steps = [
            {kind = "random_resized_crop", size = 224, scale = [0.2, 1.0]},
            {kind = "flip"},
            {kind = "color_jitter", brightness = 0.4, hue = [-0.1, 0.2], p = 0.8},
            {kind = "blur", kernel_size = 23},
            {kind = "rand_augment", magnitude = 7},
            {kind = "erasing", value = [1, 2, 3]},
        ]"#,
    )
    .unwrap();
    let crop = RandomResizedCrop {
        scale: [0.2, 1.0],
        ..RandomResizedCrop::new(Size::Side(224))
    };
    assert_eq!(steps.steps[0], Step::RandomResizedCrop(crop));
    assert_eq!(steps.steps[1], Step::Flip(Flip { p: 0.5 }));
    let jitter = ColorJitter {
        brightness: Amount::Around(0.4),
        hue: Amount::Between([-0.1, 0.2]),
        p: 0.8,
        ..ColorJitter::default()
    };
    assert_eq!(steps.steps[2], Step::ColorJitter(jitter));
    assert_eq!(steps.size_after(None), Some([224, 224]));
    let json = serde_json::to_string(&steps).unwrap();
    assert_eq!(serde_json::from_str::<Augmentation>(&json).unwrap(), steps);
}

#[test]
fn impossible_descriptions_are_refused() {
    for (step, expected) in [
        (r#"kind = "flop""#, "unknown variant `flop`"),
        (r#"kind = "flip", q = 1"#, "unknown field `q`"),
        (r#"kind = "center_crop""#, "missing field `size`"),
        (
            r#"kind = "resize", size = "big""#,
            "a size is one number or [height, width]",
        ),
        (
            r#"kind = "flip", p = 1.5"#,
            "step 1, flip: p is 1.5; a probability is 0 to 1",
        ),
        (r#"kind = "resize", size = 0"#, "size is 0x0"),
        (
            r#"kind = "random_resized_crop", size = 8, scale = [1.0, 0.5]"#,
            "scale is 1 to 0.5",
        ),
        (
            r#"kind = "random_resized_crop", size = 8, ratio = [0.0, 1.0]"#,
            "ratio is 0 to 1",
        ),
        (
            r#"kind = "color_jitter", hue = 0.7"#,
            "hue is -0.7 to 0.7; possible is a range inside of -0.5 to 0.5",
        ),
        (
            r#"kind = "color_jitter", contrast = -1"#,
            "contrast makes the factor 2 to 0",
        ),
        (
            r#"kind = "color_jitter", contrast = nan"#,
            "contrast makes the factor NaN to NaN",
        ),
        (
            r#"kind = "color_jitter", brightness = [-1.0, 2.0]"#,
            "brightness makes the factor -1 to 2; possible is a range of 0 and more",
        ),
        (
            r#"kind = "blur", kernel_size = 4"#,
            "kernel_size is 4; odd numbers",
        ),
        (
            r#"kind = "blur", kernel_size = 3, sigma = 0"#,
            "sigma is 0 to 0",
        ),
        (
            r#"kind = "rotate", degrees = 10, interpolation = "bicubic""#,
            "possible are nearest and bilinear",
        ),
        (
            r#"kind = "rand_augment", magnitude = 31"#,
            "it has to be less than num_magnitude_bins, 31",
        ),
        (
            r#"kind = "trivial_augment", num_magnitude_bins = 1"#,
            "num_magnitude_bins is 1",
        ),
        (
            r#"kind = "solarize", threshold = 256"#,
            "threshold is 256; values of pixels are 0 to 255",
        ),
        (
            r#"kind = "random_crop", size = 8, padding = 1000000"#,
            "padding is 1000000",
        ),
    ] {
        let error = described(&format!("steps = [{{{step}}}]")).unwrap_err();
        assert!(error.contains(expected), "{step}: {error}");
    }
}

/// All kinds of steps at their usual strength, the size unchanged by all but the first.
fn all_kinds() -> Augmentation {
    described(
        r#"steps = [
            {kind = "random_crop", size = [20, 24], padding = 2, padding_mode = "reflect"},
            {kind = "flip"}, {kind = "flip_vertical"}, {kind = "rotate", degrees = 15},
            {kind = "shift", pixels = 3}, {kind = "grayscale", p = 0.3},
            {kind = "color_jitter", brightness = 0.4, contrast = 0.4, saturation = 0.4, hue = 0.1},
            {kind = "solarize", threshold = 128, p = 0.2}, {kind = "blur", kernel_size = 3},
            {kind = "rand_augment"}, {kind = "trivial_augment"}, {kind = "erasing"},
            {kind = "random_resized_crop", size = [20, 24]},
            {kind = "resize", size = 20}, {kind = "center_crop", size = [20, 24]},
        ]"#,
    )
    .unwrap()
}

fn some_picture(channels: usize, [height, width]: [usize; 2]) -> Picture {
    let pixels = (0..channels * height * width).map(|at| (at * 37 % 251) as u8);
    Picture::new(channels, [height, width], pixels.collect())
}

#[test]
fn a_change_is_a_function_of_seed_and_sample() {
    let steps = all_kinds();
    let of = |seed, sample| steps.apply(some_picture(3, [31, 40]), seed, sample);
    assert_eq!(of(1, 5), of(1, 5));
    assert_ne!(of(1, 5), of(2, 5));
    assert_ne!(of(1, 5), of(1, 6));
    let same = some_picture(3, [31, 40]);
    assert_eq!(Augmentation::NONE.apply(same.clone(), 1, 5), same);
}

#[test]
fn pictures_of_any_size_come_out_in_the_size_that_is_promised() {
    let steps = all_kinds();
    assert_eq!(steps.size_after(None), Some([20, 24]));
    for channels in [1, 3] {
        for size in [[1, 1], [1, 300], [7, 2], [64, 65]] {
            for sample in 0..20 {
                let changed = steps.apply(some_picture(channels, size), 3, sample);
                assert_eq!((changed.channels, changed.size()), (channels, [20, 24]));
            }
        }
    }
}

#[test]
fn a_size_is_known_where_it_is_fixed() {
    let resize = described(r#"steps = [{kind = "resize", size = 10}]"#).unwrap();
    assert_eq!(resize.size_after(None), None);
    // 10 x 15 / 20 is 7.5.
    assert_eq!(resize.size_after(Some([20, 15])), Some([13, 10]));
    let changed = resize.apply(some_picture(1, [20, 15]), 0, 0);
    assert_eq!(changed.size(), [13, 10]);
    let usual = Augmentation::evaluation(224, 0.875, Interpolation::Bicubic);
    assert_eq!(usual.size_after(None), Some([224, 224]));
    let Step::Resize(resize) = &usual.steps[0] else {
        panic!("{usual:?}");
    };
    assert_eq!(resize.size, Size::Side(256));
}

#[test]
fn a_shifted_picture_repeats_its_edge() {
    let picture = Picture::new(1, [2, 3], vec![0, 51, 102, 153, 204, 255]);
    let moved = |down: isize, right: isize| {
        let edge = PaddingMode::Edge;
        let start = [-down, -right];
        crop::cut(picture.clone(), start, [2, 3], edge, Fill::default()).pixels
    };
    assert_eq!(moved(0, 1), [0, 0, 51, 153, 153, 204]);
    assert_eq!(moved(-1, -2), [255; 6]);
    assert_eq!(moved(1, 0), [0, 51, 102, 0, 51, 102]);
}

#[test]
fn flips_happen_as_often_as_they_should() {
    let steps = described(r#"steps = [{kind = "flip", p = 0.25}]"#).unwrap();
    let picture = Picture::new(1, [1, 2], vec![1, 2]);
    let flipped = (0..4000).filter(|&sample| steps.apply(picture.clone(), 0, sample) != picture);
    let flipped = flipped.count();
    // Four standard deviations of 27 around 1000.
    assert!((890..1110).contains(&flipped), "{flipped} of 4000");
}
