//! What is known of images, drawn into them. In: boxes and masks. Out: the images with edges of boxes, and tinted where classes are.

use data::image::{BoxLabel, IGNORED};

use crate::job::image::PixelBatch;

/// Draws the edge of a box, white beside black.
///
/// - label: in pixels of the image
pub fn outline(images: &mut PixelBatch, image: usize, label: &BoxLabel) {
    let (height, width) = (images.height as f32, images.width as f32);
    let last =
        |start: f32, length: f32, most: f32| (start + length - 1.0).clamp(0.0, most - 1.0) as usize;
    let (left, top) = (label.x.max(0.0) as usize, label.y.max(0.0) as usize);
    let (right, bottom) = (
        last(label.x, label.width, width),
        last(label.y, label.height, height),
    );
    for y in top..=bottom {
        for x in left..=right {
            if y == top || y == bottom || x == left || x == right {
                paint(images, image, [y, x], |_, _| f32::from((x + y) % 4 < 2));
            }
        }
    }
}

/// Tints the pixels of all classes but the first, each in its own colour; what belongs to no class becomes grey.
///
/// - mask: a class a pixel, `[height, width]`
pub fn tint(images: &mut PixelBatch, image: usize, mask: &[u8]) {
    const COLOURS: [[f32; 3]; 6] = [
        [1.0, 0.2, 0.2],
        [0.2, 0.8, 0.2],
        [0.3, 0.4, 1.0],
        [1.0, 0.8, 0.1],
        [0.9, 0.3, 0.9],
        [0.1, 0.9, 0.9],
    ];
    let width = images.width;
    for (at, &class) in mask.iter().enumerate().filter(|(_, class)| **class > 0) {
        let colour = match class {
            IGNORED => [0.5; 3],
            class => COLOURS[(usize::from(class) - 1) % COLOURS.len()],
        };
        let place = [at / width, at % width];
        paint(images, image, place, |channel, old| {
            0.5 * old + 0.5 * colour[channel]
        });
    }
}

/// Changes all channels of a pixel.
fn paint(
    images: &mut PixelBatch,
    image: usize,
    [y, x]: [usize; 2],
    colour: impl Fn(usize, f32) -> f32,
) {
    let area = images.height * images.width;
    for channel in 0..images.channels {
        let at = (image * images.channels + channel) * area + y * images.width + x;
        images.pixels[at] = colour(channel, images.pixels[at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(sides: [usize; 2]) -> PixelBatch {
        let [height, width] = sides;
        PixelBatch::from_bytes(&vec![51; height * width], [1, height, width])
    }

    #[test]
    fn a_box_has_an_edge_and_keeps_what_is_in_it() {
        let mut images = grey([4, 4]);
        let label = BoxLabel {
            class: 0,
            x: 0.0,
            y: 1.0,
            width: 3.0,
            height: 9.0,
        };
        outline(&mut images, 0, &label);
        let expected = [
            [0.2, 0.2, 0.2, 0.2],
            [1.0, 0.0, 0.0, 0.2],
            [0.0, 0.2, 1.0, 0.2],
            [0.0, 1.0, 1.0, 0.2],
        ];
        assert_eq!(images.pixels, expected.concat());
    }

    #[test]
    fn all_classes_but_the_first_are_tinted() {
        let mut images = grey([1, 3]);
        tint(&mut images, 0, &[0, 1, IGNORED]);
        assert_eq!(images.pixels, [0.2, 0.6, 0.35]);
    }
}
