//! Shapes on textured grounds, with a mask and boxes: what a detector and a segmenter learn in tests. A function of the seed.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Names of the classes; in masks the first has the number 1, and the ground 0.
pub const CLASSES: [&str; 3] = ["circle", "square", "triangle"];

/// Height and width of an image.
pub const SIDE: u32 = 64;

/// A thing in an image.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its number among [`CLASSES`].
    pub class: usize,
    /// Left, top, width and height, in pixels.
    pub corners: [u32; 4],
}

/// An image with what is in it.
pub struct Scene {
    /// Its pixels.
    pub image: RgbImage,
    /// The class of each pixel; 0 is ground.
    pub mask: GrayImage,
    /// What is in it.
    pub shapes: Vec<Shape>,
}

/// Whether a pixel belongs to a shape, by its place in the box: -1 to 1 in both directions.
fn is_inside(class: usize, x: f32, y: f32) -> bool {
    match class {
        0 => x * x + y * y <= 1.0,
        1 => true,
        // Its tip is above.
        _ => x.abs() <= (y + 1.0) / 2.0,
    }
}

/// A ground of waves and noise, in two colours.
fn ground(rng: &mut impl Rng) -> RgbImage {
    let mut number = |least: f32, most: f32| rng.random_range(least..most);
    let colours = [0, 1].map(|_| [0; 3].map(|_| number(40.0, 160.0)));
    let waves = [0; 3].map(|_| [number(0.05, 0.6), number(0.05, 0.6), number(0.0, 6.3)]);
    let mut image = RgbImage::new(SIDE, SIDE);
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let wave =
            |[across, down, phase]: [f32; 3]| (x as f32 * across + y as f32 * down + phase).sin();
        let share = 0.5 + waves.map(wave).iter().sum::<f32>() / 6.0;
        let noise = rng.random_range(-20.0..20.0f32);
        let channel = |channel: usize| {
            let [one, other] = [colours[0][channel], colours[1][channel]];
            (one * share + other * (1.0 - share) + noise).clamp(0.0, 255.0) as u8
        };
        *pixel = Rgb([channel(0), channel(1), channel(2)]);
    }
    image
}

/// Draws one image: one to three shapes that do not touch.
pub fn scene(rng: &mut ChaCha8Rng) -> Scene {
    let mut image = ground(rng);
    let mut mask = GrayImage::new(SIDE, SIDE);
    let mut shapes: Vec<Shape> = Vec::new();
    let wanted = rng.random_range(1..=3);
    for _ in 0..20 {
        if shapes.len() == wanted {
            break;
        }
        let [width, height] = [0, 1].map(|_| rng.random_range(12..=26u32));
        let [left, top] = [width, height].map(|side| rng.random_range(0..=SIDE - side));
        let apart = |other: &Shape| {
            let [x, y, wide, high] = other.corners;
            left > x + wide || x > left + width || top > y + high || y > top + height
        };
        if !shapes.iter().all(apart) {
            continue;
        }
        let class = rng.random_range(0..CLASSES.len());
        let colour = [0; 3].map(|_| rng.random_range(0..=255u8));
        for y in top..top + height {
            for x in left..left + width {
                let place = |at: u32, start: u32, side: u32| {
                    (2.0 * (at - start) as f32 + 1.0) / side as f32 - 1.0
                };
                if is_inside(class, place(x, left, width), place(y, top, height)) {
                    let noise = rng.random_range(-12..=12i16);
                    let value = |value: u8| (i16::from(value) + noise).clamp(0, 255) as u8;
                    image.put_pixel(x, y, Rgb(colour.map(value)));
                    mask.put_pixel(x, y, Luma([class as u8 + 1]));
                }
            }
        }
        shapes.push(Shape {
            class,
            corners: [left, top, width, height],
        });
    }
    Scene {
        image,
        mask,
        shapes,
    }
}

/// Writes `images`, `masks` of the same names, and `annotations.json` as COCO has it.
pub fn write(folder: &Path, n: usize, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for name in ["images", "masks"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for number in 0..n {
        let scene = scene(&mut rng);
        let name = format!("{number:05}.png");
        scene.image.save(folder.join("images").join(&name)).unwrap();
        scene.mask.save(folder.join("masks").join(&name)).unwrap();
        images.push(format!(
            r#"{{"id": {number}, "file_name": "images/{name}", "width": {SIDE}, "height": {SIDE}}}"#
        ));
        for shape in &scene.shapes {
            let (id, category) = (annotations.len(), shape.class + 1);
            let [left, top, width, height] = shape.corners;
            annotations.push(format!(
                r#"{{"id": {id}, "image_id": {number}, "category_id": {category}, "bbox": [{left}, {top}, {width}, {height}], "area": {}, "iscrowd": 0}}"#,
                width * height
            ));
        }
    }
    let categories = CLASSES.iter().zip(1..);
    let categories = categories.map(|(name, id)| format!(r#"{{"id": {id}, "name": "{name}"}}"#));
    let listed = |all: Vec<String>| all.join(",\n");
    let text = format!(
        "{{\"images\": [{}],\n\"annotations\": [{}],\n\"categories\": [{}]}}\n",
        listed(images),
        listed(annotations),
        listed(categories.collect())
    );
    fs::write(folder.join("annotations.json"), text).unwrap();
}
