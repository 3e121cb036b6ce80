//! New images, and the way from one to another.

use apps::sample::{Origin, sample};
use burn::backend::Flex;
use burn::prelude::*;
use model::heads::variational::VariationalConfig;
use model::{Bundle, Draw, VariationalAutoencoder};
use train::job::image::PixelBatch;

use crate::bundles::{Bundles, open, printed, refused};
use crate::convert::assert_near;

#[test]
fn images_are_drawn_side_by_side() {
    let bundles = Bundles::new();
    let model = bundles.variational("vae");
    let output = bundles.at("out.png");
    let args = [
        "sample", "--model", &model, "--count", "12", "--output", &output,
    ];
    assert_eq!(printed(&args), format!("wrote {output}\n"));
    let drawing = image::open(&output).unwrap().to_luma8();
    // Two rows of ten images of 6x4, each pixel 2x2, 2 pixels between; the last eight are white.
    assert_eq!(drawing.dimensions(), (138, 18));
    let grey = |x, y| drawing.get_pixel(x, y).0[0];
    assert_eq!(
        [grey(0, 0), grey(137, 0), grey(14, 10), grey(28, 10)],
        [128, 128, 128, 255]
    );
    let [black, white] =
        [("a.png", 0), ("b.png", 255)].map(|(name, value)| bundles.png(name, value));
    let between = [
        "sample",
        "--model",
        &model,
        "--between",
        &black,
        &white,
        "--output",
        &output,
    ];
    printed(&between);
    assert_eq!(
        image::open(&output).unwrap().to_luma8().dimensions(),
        (138, 8)
    );
    let message = refused(&[&between[..], &["--count", "1"]].concat());
    assert!(message.ends_with("at least both"), "{message}");
    let over = [
        "sample",
        "--model",
        &model,
        "--between",
        &black,
        &white,
        "--output",
        &white,
    ];
    let message = refused(&over);
    assert!(message.contains("b.png, which is read"), "{message}");
    let message = refused(&["sample", "--model", &bundles.autoencoder("plain")]);
    assert!(message.ends_with("apps reconstruct is for it"), "{message}");
}

/// A bundle's model with a decoder that tells vectors apart.
fn sampled(bundle: &Bundle, origin: &Origin) -> PixelBatch {
    sample::<Flex>(bundle, origin, &Default::default()).unwrap()
}

#[test]
fn a_seed_gives_the_same_images_and_a_way_has_both_ends() {
    let bundles = Bundles::new();
    let path = bundles.variational("vae");
    let config = open(&path).image_config().unwrap();
    let (device, head) = (
        Default::default(),
        VariationalConfig {
            decoder_latent_size: 2,
        },
    );
    let draw = Draw::new(&device, 0.02);
    let model = VariationalAutoencoder::<Flex>::draw(&config, head, [1, 4, 6], &draw);
    let names = config.names(model::HeadKind::Variational);
    let json = open(&path).raw_config().clone();
    let at = bundles.path("drawn");
    model::bundle::write(&at, &json, &model, names, model::Precision::F32, &[]).unwrap();
    let bundle = Bundle::open(&at).unwrap();
    let prior = |count, seed| sampled(&bundle, &Origin::Prior { count, seed });
    let three = prior(3, 5);
    assert_eq!(prior(3, 5), three);
    assert_ne!(prior(3, 6), three);
    // A second image does not change the first.
    assert_near(prior(1, 5).image(0), three.image(0), 1e-5);
    let ends = PixelBatch::from_bytes(&[&[0; 24][..], &[255; 24]].concat(), [1, 4, 6]);
    let way = sampled(
        &bundle,
        &Origin::Between {
            ends: ends.clone(),
            count: 3,
        },
    );
    let images: Tensor<Flex, 4> = ends.tensor(&device);
    let ends = PixelBatch::read(model.reconstruct(images));
    for (ours, theirs) in [(0, 0), (2, 1)] {
        assert_near(way.image(ours), ends.image(theirs), 1e-5);
    }
}
