//! What an autoencoder makes of images.

use crate::bundles::{Bundles, edit_config, printed, refused};

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

#[test]
fn autoencoders_of_other_kinds_are_told_by_their_bundle() {
    let bundles = Bundles::new();
    let image = bundles.png("a.png", 255);
    let output = bundles.at("out.png");
    let reconstruct = |model: &str| {
        let args = [
            "reconstruct",
            "--model",
            model,
            "--input",
            &image,
            "--output",
            &output,
        ];
        args.map(String::from)
    };
    for model in [bundles.variational("vae"), bundles.quantised("codes")] {
        let args = reconstruct(&model);
        let text = printed(&args.each_ref().map(String::as_str));
        assert_eq!(text, format!("{image}  6.0 dB\nwrote {output}\n"));
    }
    // Sizes that are missing, impossible, or want all memory.
    let (vae, codes) = (
        bundles.variational("bad-vae"),
        bundles.quantised("bad-codes"),
    );
    for (model, key, value, words) in [
        (
            &vae,
            "decoder_latent_size",
            serde_json::Value::Null,
            "invalid type: null",
        ),
        (
            &vae,
            "decoder_latent_size",
            0.into(),
            "decoder_latent_size is 0; it must be at least 1",
        ),
        (
            &vae,
            "decoder_latent_size",
            1_000_000_000.into(),
            "at most 65536",
        ),
        (&codes, "codebook_size", 0.into(), "codebook_size is 0"),
        (&codes, "code_size", 3.into(), "shape"),
    ] {
        edit_config(model, |config| config[key] = value);
        let args = reconstruct(model);
        let message = refused(&args.each_ref().map(String::as_str));
        assert!(message.contains(words), "{key}: {message}");
        // As it was, for the next.
        edit_config(model, |config| {
            let usual = if key == "codebook_size" { 4 } else { 2 };
            config[key] = usual.into();
        });
    }
}

#[test]
fn a_masked_autoencoder_gives_hidden_patches_back() {
    let bundles = Bundles::new();
    let model = bundles.masked_autoencoder("bundle");
    let white = bundles.png("a.png", 255);
    let draw = |name: &str, seed: &str| {
        let (model, output) = (["--model", &model, "--input", &white], bundles.at(name));
        let args = ["reconstruct", "--seed", seed, "--output", &output];
        let text = printed(&[&args[..], &model].concat());
        let wrote = format!(" dB\nwrote {output}\n");
        assert!(text.starts_with(&format!("{white}  ")) && text.ends_with(&wrote));
        image::open(&output).unwrap().to_luma8()
    };
    let drawing = draw("one.png", "1");
    // Three rows of one image of 6x4, each pixel 2x2, 2 pixels between.
    assert_eq!(drawing.dimensions(), (12, 28));
    // Half of the six patches are hidden, and seen ones are as they were.
    let corners = (0..6).map(|patch| (4 * (patch % 3), 4 * (patch / 3)));
    let grey = |x: u32, y: u32| drawing.get_pixel(x, y).0[0];
    let seen: Vec<bool> = corners
        .clone()
        .map(|(x, y)| grey(x, 10 + y) == 255)
        .collect();
    assert_eq!(seen.iter().filter(|seen| **seen).count(), 3);
    for ((x, y), seen) in corners.zip(seen) {
        assert!(grey(x, y) == 255 && (!seen || grey(x, 20 + y) == 255));
        assert!(seen || grey(x, 10 + y) == 0);
    }
    assert!(draw("two.png", "1") == drawing);
    assert!((2..9).any(|seed| draw("other.png", &seed.to_string()) != drawing));
}
