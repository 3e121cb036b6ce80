//! What an autoencoder makes of images.

use crate::bundles::{Bundles, printed, refused};

#[test]
fn a_reconstruction_is_drawn_and_measured() {
    let bundles = Bundles::new();
    let model = bundles.autoencoder("bundle");
    let white = bundles.png("folder/c.png", 255);
    let black = bundles.png("folder/a.png", 0);
    let broken = bundles.file("folder/b.png", "no image");
    let folder = bundles.at("folder");
    let output = bundles.file("out.png", "what was there");
    let text = printed(&[
        "reconstruct",
        "--model",
        &model,
        "--input",
        &folder,
        "--output",
        &output,
    ]);
    // Off by a half everywhere: 10 log10(1 / 0.25).
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[0], format!("{black}  6.0 dB"));
    assert!(lines[1].starts_with(&format!("{broken}  ")), "{text}");
    assert_eq!(lines[2], format!("{white}  6.0 dB"));
    assert_eq!(lines[3], format!("wrote {output}"));
    let drawing = image::open(&output).unwrap().to_luma8();
    // Two rows of two images, each pixel 2x2, 2 pixels between.
    assert_eq!(drawing.dimensions(), (26, 18));
    let grey = |x, y| drawing.get_pixel(x, y).0[0];
    assert_eq!(
        [grey(0, 0), grey(25, 0), grey(0, 17), grey(25, 17)],
        [0, 255, 128, 128]
    );
}

#[test]
fn an_image_that_is_read_is_not_written_over() {
    let bundles = Bundles::new();
    let model = bundles.autoencoder("bundle");
    let image = bundles.png("folder/a.png", 3);
    let before = std::fs::read(&image).unwrap();
    let message = refused(&[
        "reconstruct",
        "--model",
        &model,
        "--input",
        &bundles.at("folder"),
        "--output",
        &image,
    ]);
    assert!(message.contains("folder, which is read"), "{message}");
    assert!(std::fs::read(&image).unwrap() == before);
}
