//! Models, files and flags that do not go together: exit code 2, and one sentence.

use std::fs;

use burn::backend::Flex;
use model::{HeadKind, TextClassifier, TextConfig};

use crate::bundles::{Bundles, TEXTS, bpe, draw, edit_config, gpt2, refused};

#[test]
fn the_wrong_model_is_refused() {
    let bundles = Bundles::new();
    let masked_lm = bundles.masked_lm("masked");
    let images = bundles.image_classifier("images");
    let refused = |args: &[&str]| {
        let place = format!("{}/", bundles.folder().display());
        refused(args).replace(&place, "")
    };
    assert_eq!(
        refused(&["predict", "--model", &masked_lm, "--text", "a"]),
        "masked: holds BertForMaskedLM, and a classifier is needed here; apps fill-mask is for it"
    );
    assert_eq!(
        refused(&["fill-mask", "--model", &images, "[MASK]"]),
        "images: holds a model of type hearth_conv, and a text model is needed here; apps predict is for it"
    );
    assert_eq!(
        refused(&["reconstruct", "--model", &images, "--input", "mnist"]),
        "images: holds HearthConvImageClassifier, and an autoencoder is needed here; apps predict is for it"
    );
    assert_eq!(
        refused(&["reconstruct", "--model", &masked_lm, "--input", "mnist"]),
        "masked: holds a model of type bert, and an autoencoder is needed here; apps fill-mask is for it"
    );
    assert_eq!(
        refused(&["predict", "--model", &images, "--text", "a"]),
        "images: reads images; name them by --input instead of --text"
    );
    let nothing = bundles.at("nothing");
    let args = ["fill-mask", "--model", &nothing, "[MASK]"];
    assert_eq!(refused(&args), "nothing: is no bundle: no such directory");
    let file = bundles.file("notes.txt", "a");
    let args = ["fill-mask", "--model", &file, "[MASK]"];
    assert_eq!(
        refused(&args),
        "notes.txt: is a file, and a model is a directory; where it holds weights of torchvision's, --set \
         model.family=resnet50 names their family"
    );
    let args = [
        "predict",
        "--model",
        &file,
        "--set",
        "model.family=resnet18",
        "--input",
        "mnist",
    ];
    let message = refused(&args);
    let words = "notes.txt: it is neither safetensors nor a file of torch.save";
    assert!(message.starts_with(words), "{message}");
    let args = [
        "predict",
        "--model",
        &images,
        "--set",
        "model.family=vit",
        "--input",
        "mnist",
    ];
    assert_eq!(
        refused(&args),
        "--set model.family=vit: images is no file of weights, so it says itself what its model is"
    );
    fs::create_dir(bundles.path("photos")).unwrap();
    let args = ["fill-mask", "--model", &bundles.at("photos"), "[MASK]"];
    assert_eq!(
        refused(&args),
        "photos: is no bundle: config.json is missing"
    );
    fs::remove_file(bundles.path("masked/tokenizer.json")).unwrap();
    let message = refused(&["fill-mask", "--model", &masked_lm, "[MASK]"]);
    assert!(
        message.starts_with("masked") && message.contains("tokenizer.json"),
        "{message}"
    );
}

/// What a command says of a model that it is not for.
#[test]
fn the_command_for_a_model_is_named() {
    let bundles = Bundles::new();
    let png = bundles.png("a.png", 1);
    let images = ["--input", &png];
    let commands: [(&str, &[&str]); 4] = [
        ("predict", &["--text", "a"]),
        ("fill-mask", &["a [MASK]"]),
        ("generate", &["a"]),
        ("reconstruct", &images),
    ];
    for (head, model) in bundles.of_all_heads() {
        let is = |name: &str| model.ends_with(name);
        let right = match head {
            HeadKind::Bare if is("bare-translator") => "dump",
            HeadKind::Bare => "embed",
            HeadKind::Tokens if is("translator") => "predict",
            HeadKind::Tokens if is("causal") => "generate",
            HeadKind::Tokens | HeadKind::SentencePairs => "fill-mask",
            HeadKind::Classes
            | HeadKind::TokenClasses
            | HeadKind::Spans
            | HeadKind::Choices
            | HeadKind::Masks
            | HeadKind::Boxes => "predict",
            HeadKind::Pixels | HeadKind::Variational | HeadKind::Codes | HeadKind::Patches => {
                "reconstruct"
            }
            HeadKind::Replaced => "dump",
        };
        for (command, args) in commands {
            if command == right {
                continue;
            }
            let message = refused(&[&[command, "--model", &model], args].concat());
            assert!(
                message.contains(&format!("apps {right} ")),
                "{command} on {head:?}: {message}"
            );
        }
    }
    let message = refused(&["embed", "--model", &bundles.at("images"), "--text", "a"]);
    let words = "is a model of images; name images by --input instead of --text";
    assert!(message.ends_with(words), "{message}");
}

/// The token table scores words of a decoder: nothing in its weights tells a language model from a classifier.
#[test]
fn a_classifier_on_a_decoder_continues_no_text() {
    let bundles = Bundles::new();
    let (config, device) = (TextConfig::Gpt2(gpt2()), Default::default());
    let model = TextClassifier::<Flex>::draw(&config, 3, &draw(&device));
    let path = bundles.write_text("decoder", &config, HeadKind::Classes, &bpe(), &model);
    let message = refused(&["generate", "--model", &path, "a"]);
    let words = "holds GPT2ForSequenceClassification, and a language model is needed here; \
                 apps predict is for it";
    assert!(message.ends_with(words), "{message}");
}

#[test]
fn wrong_input_is_refused_in_one_sentence() {
    let bundles = Bundles::new();
    let texts = bundles.text_classifier("texts");
    let masked_lm = bundles.masked_lm("masked");
    let images = bundles.image_classifier("images");
    let autoencoder = bundles.autoencoder("autoencoder");
    let at = |name: &str| bundles.at(name);
    let (empty, broken) = (bundles.file("e.txt", ""), bundles.file("b.png", "no image"));
    let png = bundles.png("p.png", 1);
    let (dump, nowhere) = (at("dump"), at("no/out.png"));
    let column = bundles.file("a.csv", "gloss\na tool\n");
    let long = format!("[MASK] {}", TEXTS.join(" "));
    let predict =
        |model: &str, input: &str| refused(&["predict", "--model", model, "--input", input]);
    let fill = |text: &str| refused(&["fill-mask", "--model", &masked_lm, text]);
    let reconstruct = |output: &str| {
        refused(&[
            "reconstruct",
            "--model",
            &autoencoder,
            "--input",
            &png,
            "--output",
            output,
        ])
    };
    for (message, expected) in [
        (predict(&texts, &at("no.txt")), "no.txt: no such file"),
        (predict(&texts, &empty), "e.txt: is empty"),
        (predict(&texts, &png), "unknown extension"),
        (predict(&texts, &column), "column \"text\" is missing"),
        (predict(&images, &broken), "b.png: is not an image"),
        (predict(&images, &at("no.png")), "no.png: no such file"),
        (predict(&images, &column), "not an IDX image file"),
        (
            refused(&["predict", "--model", &texts, "--text", " "]),
            "--text is empty",
        ),
        (fill("a tool"), "no [MASK]; write it where"),
        (fill(""), "no [MASK]; write it where"),
        (fill(&long), "tokens; this model takes 12"),
        (
            refused(&["fill-mask", "--model", "scratch", "[MASK]"]),
            "must name a bundle or a run directory",
        ),
        (
            refused(&[
                "fill-mask",
                "--model",
                &masked_lm,
                "[MASK]",
                "--backend",
                "cpu",
            ]),
            "no backend \"cpu\"",
        ),
        (
            reconstruct(&nowhere),
            "no/out.png: its directory does not exist",
        ),
        (reconstruct(&png), "p.png, which is read"),
        (
            refused(&[
                "dump", "--model", &masked_lm, "--input", &empty, "--output", &dump,
            ]),
            "e.txt: is empty",
        ),
    ] {
        assert!(
            message.contains(expected),
            "{message:?} does not say {expected:?}"
        );
    }
    assert!(!bundles.path("dump").exists());
}

#[test]
fn a_model_too_large_for_the_machine_is_refused_before_it_is_drawn() {
    let bundles = Bundles::new();
    let masked_lm = bundles.masked_lm("masked");
    let images = bundles.autoencoder("images");
    edit_config(&masked_lm, |config| {
        config["intermediate_size"] = 100_000_000_000_u64.into();
    });
    edit_config(&images, |config| {
        config["latent_size"] = 100_000_000_000_u64.into();
    });
    let message = refused(&["fill-mask", "--model", &masked_lm, "[MASK]"]);
    assert!(message.contains("this machine has"), "{message}");
    let input = bundles.png("a.png", 1);
    let output = bundles.at("out.png");
    let message = refused(&[
        "reconstruct",
        "--model",
        &images,
        "--input",
        &input,
        "--output",
        &output,
    ]);
    assert!(message.contains("this machine has"), "{message}");
    let message = refused(&["convert", "--model", &images, &bundles.at("copy")]);
    assert!(message.contains("this machine has"), "{message}");
}
