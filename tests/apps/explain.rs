//! Why classifiers say what they say: against captum and transformers, complete, and as it is shown.
//!
//! `tests/golden/README.md` says what the golden models are.

use std::fs;
use std::path::Path;

use apps::open::{bundle as named_bundle, text_parts};
use burn::backend::Flex;
use burn::module::Param;
use image::RgbImage;
use model::bundle::Load;
use model::{HeadKind, TextClassifier, TextConfig};
use roxmltree::{Document, ParsingOptions};
use serde_json::{Value, json};

use crate::bundles::{Bundles, bpe, draw, edit_config, gpt2, printed, refused};

/// Of the largest attribution, or absolute where that is less than 1: f32 beside captum's f64.
const TOLERANCE: f64 = 1e-4;
const METHODS: [&str; 3] = ["integrated-gradients", "occlusion", "attention-rollout"];

fn golden(name: &str) -> String {
    format!("{}/../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn expected(name: &str) -> Value {
    let path = golden(&format!("explain/{name}/expected.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The object that `explain --json` prints of one row.
fn explained(args: &[&str]) -> Value {
    let text = printed(&[&["explain"], args, &["--json"]].concat());
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn numbers(values: &Value) -> Vec<f64> {
    let values = values.as_array().unwrap().iter();
    values.map(|value| value.as_f64().unwrap()).collect()
}

fn of_tokens(explanation: &Value) -> Vec<f64> {
    let tokens = explanation["tokens"].as_array().unwrap().iter();
    tokens
        .map(|token| token["attribution"].as_f64().unwrap())
        .collect()
}

fn of_pixels(explanation: &Value) -> Vec<f64> {
    let rows = explanation["attributions"].as_array().unwrap().iter();
    rows.flat_map(numbers).collect()
}

fn near(what: &str, ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs.iter().copied().map(f64::abs).fold(1.0, f64::max);
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(
            (a - b).abs() < TOLERANCE * largest,
            "{what}: {a} at {at}, not {b}"
        );
    }
}

fn number(object: &Value, key: &str) -> f64 {
    object[key]
        .as_f64()
        .unwrap_or_else(|| panic!("no number {key} in {object}"))
}

/// The probability of the likeliest class, by `predict`.
fn predicted(model: &str, row: &[&str]) -> f64 {
    let text = printed(&[&["predict", "--model", model, "--json", "--top", "1"], row].concat());
    let object: Value = serde_json::from_str(&text).unwrap();
    object["classes"][0]["probability"].as_f64().unwrap()
}

/// Attributions sum to the difference of the scores, up to a share of their sizes.
fn assert_complete(explanation: &Value, values: &[f64], share: f64) {
    let sizes: f64 = values.iter().map(|value| value.abs()).sum();
    let wanted = number(explanation, "score") - number(explanation, "score_at_baseline");
    let off = (values.iter().sum::<f64>() - wanted).abs();
    assert!(sizes > 1e-3, "{explanation}");
    assert!(off < share * sizes, "{off} of {sizes}: {explanation}");
}

/// A copy of a golden bundle that may be changed.
fn copied(bundles: &Bundles, from: &str) -> String {
    let name = from.replace('/', "-");
    fs::create_dir(bundles.path(&name)).unwrap();
    for entry in fs::read_dir(golden(from)).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().starts_with("expected") {
            fs::copy(entry.path(), bundles.path(&name).join(entry.file_name())).unwrap();
        }
    }
    bundles.at(&name)
}

/// The image of the golden values.
fn golden_image(bundles: &Bundles) -> String {
    let expected = expected("image");
    let pixels = numbers(&expected["pixels"]).into_iter();
    let pixels: Vec<u8> = pixels.map(|value| value as u8).collect();
    let image = RgbImage::from_raw(12, 12, pixels).unwrap();
    image.save(bundles.path("image.png")).unwrap();
    bundles.at("image.png")
}

#[test]
fn texts_are_explained_as_captum_and_transformers_do() {
    let model = golden("explain/text");
    for row in expected("text").as_array().unwrap() {
        let texts: Vec<&str> = row["texts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap())
            .collect();
        for method in METHODS {
            let mut args = vec!["--model", &model, "--text", texts[0], "--method", method];
            if let Some(second) = texts.get(1) {
                args.extend(["--pair", second]);
            }
            let ours = explained(&args);
            let tokens = ours["tokens"].as_array().unwrap().iter();
            let tokens: Vec<&Value> = tokens.map(|token| &token["token"]).collect();
            assert_eq!(json!(tokens), row["tokens"]);
            assert_eq!(ours["class"], row["class"]);
            near(
                method,
                &of_tokens(&ours),
                &numbers(&row[method.replace('-', "_")]),
            );
            near("score", &[number(&ours, "score")], &[number(row, "score")]);
            if method == METHODS[0] {
                for key in ["score_at_baseline", "delta"] {
                    let of_ours = if key == "delta" {
                        number(&ours, "sum") - number(&ours, "score")
                            + number(&ours, "score_at_baseline")
                    } else {
                        number(&ours, key)
                    };
                    near(key, &[of_ours], &[number(row, key)]);
                }
                assert_eq!(ours["steps"], 50);
            } else {
                assert!(
                    ours.get("sum").is_none() && ours["steps"].is_null(),
                    "{ours}"
                );
            }
        }
    }
}

#[test]
fn images_are_explained_as_captum_does() {
    let bundles = Bundles::new();
    let (model, image, expected) = (
        golden("explain/image"),
        golden_image(&bundles),
        expected("image"),
    );
    for method in ["integrated-gradients", "occlusion", "grad-cam"] {
        let ours = explained(&[&model, &image, "--method", method]);
        assert_eq!(ours["class"], expected["class"]);
        assert_eq!((&ours["height"], &ours["width"]), (&json!(12), &json!(12)));
        near(
            method,
            &of_pixels(&ours),
            &numbers(&expected[method.replace('-', "_")]),
        );
        near(
            "score",
            &[number(&ours, "score")],
            &[number(&expected, "score")],
        );
    }
}

#[test]
fn every_family_of_texts_has_complete_attributions_and_the_same_scores_as_predict() {
    let bundles = Bundles::new();
    let encoders = ["bert", "roberta", "distilbert", "electra"];
    let others = ["gpt2", "llama", "qwen2", "hearth_lstm", "hearth_gru"];
    let row = ["--text", "a small bird that sings"];
    for family in encoders.iter().chain(&others) {
        let model = copied(&bundles, &format!("families/{family}-classifier-2"));
        let tokenizer = Path::new(&model).join("tokenizer.json");
        fs::copy(golden("explain/text/tokenizer.json"), tokenizer).unwrap();
        let args = ["--model", &model, row[0], row[1]];
        let ours = explained(&[&args[..], &["--steps", "300"]].concat());
        assert_complete(&ours, &of_tokens(&ours), 1e-2);
        let probability = predicted(&model, &row);
        assert!(
            (number(&ours, "probability") - probability).abs() < 1e-5,
            "{family}"
        );
        let rollout = [&args[..], &["--method", "attention-rollout"]].concat();
        if encoders.contains(family) {
            let shares: f64 = of_tokens(&explained(&rollout)).iter().sum();
            assert!((shares - 1.0).abs() < 1e-5, "{family}: {shares}");
        } else {
            let reason = refused(&[&["explain"], &rollout[..]].concat());
            assert!(reason.contains("gives no attention weights"), "{reason}");
        }
    }
}

#[test]
fn images_are_explained_without_dropout_and_by_the_statistics_of_training() {
    let bundles = Bundles::new();
    let image = golden_image(&bundles);
    for (folder, dropout) in [
        ("cnn-1", None),
        ("convnext-1", Some("drop_path_rate")),
        ("mlp-1", None),
        ("mobilenet_v2-1", Some("classifier_dropout_prob")),
        ("resnet-1", None),
        ("small_resnet-1", None),
        ("torchvision-vgg-1", Some("classifier_dropout")),
        ("unet-1", None),
        ("vit-1", Some("hidden_dropout_prob")),
    ] {
        let model = copied(&bundles, &format!("vision/{folder}"));
        if let Some(key) = dropout {
            edit_config(&model, |config| config[key] = json!(0.9));
        }
        let args = ["--model", &model, &image];
        let ours = explained(&[&args[..], &["--steps", "1"]].concat());
        let probability = predicted(&model, &[&image]);
        assert!(
            (number(&ours, "probability") - probability).abs() < 1e-5,
            "{folder}"
        );
        let grad_cam = [&args[..], &["--method", "grad-cam"]].concat();
        if matches!(folder, "mlp-1" | "vit-1") {
            let reason = refused(&[&["explain"], &grad_cam[..]].concat());
            assert!(reason.contains("classifies by no feature maps"), "{reason}");
        } else {
            let map = of_pixels(&explained(&grad_cam));
            assert!(map.iter().all(|&value| value >= 0.0), "{folder}");
        }
    }
}

#[test]
fn attention_rollout_of_a_vit_is_that_of_numpy() {
    let bundles = Bundles::new();
    let model = copied(&bundles, "vision/vit-1");
    let expected: Value =
        serde_json::from_slice(&fs::read(golden("explain/vit.json")).unwrap()).unwrap();
    let (height, width) = (15, 10);
    let preprocessor = json!({
        "size": {"height": height, "width": width}, "do_resize": true, "do_rescale": true, "rescale_factor": 1.0 / 255.0,
        "do_normalize": true, "image_mean": expected["mean"], "image_std": expected["std"],
    });
    fs::write(
        Path::new(&model).join("preprocessor_config.json"),
        preprocessor.to_string(),
    )
    .unwrap();
    let pixels = numbers(&expected["pixels"]).into_iter();
    let pixels: Vec<u8> = pixels.map(|value| value as u8).collect();
    let image = RgbImage::from_raw(width, height, pixels).unwrap();
    image.save(bundles.path("image.png")).unwrap();
    let image = bundles.at("image.png");
    let ours = explained(&[&model, &image, "--method", "attention-rollout"]);
    let logits = numbers(&expected["logits"]);
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    near("score", &[number(&ours, "score")], &[highest]);
    let shares = numbers(&expected["attention_rollout"]);
    // Three rows of two patches of 5x5 pixels; the class token's share is shown nowhere.
    let of_pixel = |at: u32| shares[1 + (at / width / 5 * 2 + at % width / 5) as usize];
    let theirs: Vec<f64> = (0..height * width).map(of_pixel).collect();
    near("attention-rollout", &of_pixels(&ours), &theirs);
    let short = explained(&[&model, &image, "--method", "rollout"]);
    assert_eq!(short["attributions"], ours["attributions"]);
}

/// A classifier on the bundled encoder, with a head that tells texts apart.
fn classifier_of_the_bundled_encoder(bundles: &Bundles) -> String {
    let bundle = named_bundle("wordnet-bert-nano").unwrap();
    let parts = text_parts(&bundle).unwrap();
    let device = Default::default();
    let drawn = TextClassifier::<Flex>::draw(&parts.config, 3, &draw(&device));
    let names = parts.config.names(HeadKind::Classes);
    let (mut model, _) = bundle.load(drawn, names, Load::Backbone).unwrap();
    let output = &mut model.head.output;
    output.weight = Param::from_tensor(output.weight.val().mul_scalar(50.0));
    bundles.write_text(
        "nano",
        &parts.config,
        HeadKind::Classes,
        &parts.tokenizer,
        &model,
    )
}

#[test]
fn attributions_of_the_bundled_encoder_are_complete_and_of_the_class_that_is_named() {
    let bundles = Bundles::new();
    let model = classifier_of_the_bundled_encoder(&bundles);
    let row = [
        "--model",
        &model,
        "--text",
        "a small bird that sings at night",
    ];
    let mut all = vec![];
    for class in ["plant", "animal", "food"] {
        let ours = explained(&[&row[..], &["--class", class, "--steps", "100"]].concat());
        assert_eq!(ours["class"], class);
        let values = of_tokens(&ours);
        assert_complete(&ours, &values, 1e-2);
        let tokens = ours["tokens"].as_array().unwrap();
        // Special tokens are those of the baseline.
        assert!(tokens[0]["part"].is_null() && values[0] == 0.0, "{ours}");
        assert_eq!(
            (&tokens[2]["text"], &tokens[2]["start"]),
            (&json!("small"), &json!(2))
        );
        all.push(values);
    }
    assert!(all[0] != all[1] && all[1] != all[2]);
}

#[test]
fn a_decoder_is_explained_by_the_token_that_it_classifies() {
    let bundles = Bundles::new();
    let config = TextConfig::Gpt2(gpt2());
    let model = TextClassifier::<Flex>::draw(&config, 3, &draw(&Default::default()));
    let model = bundles.write_text("gpt2", &config, HeadKind::Classes, &bpe(), &model);
    let row = ["--model", &model, "--text", "a small bird"];
    let ours = explained(&[&row[..], &["--method", "occlusion"]].concat());
    let texts = ours["tokens"].as_array().unwrap().iter();
    let text: String = texts.map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(text.replace(' ', ""), "asmallbird");
    assert!(of_tokens(&ours).iter().any(|&value| value != 0.0));
}

#[test]
fn a_model_that_says_the_same_of_everything_has_no_reasons() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    for method in ["integrated-gradients", "occlusion"] {
        let args = [
            "--model",
            &model,
            "--text",
            "a small bird",
            "--method",
            method,
        ];
        let ours = explained(&args);
        assert_eq!(ours["class"], "animal");
        assert!((number(&ours, "probability") - 0.7).abs() < 1e-6);
        assert!(of_tokens(&ours).iter().all(|&value| value == 0.0), "{ours}");
    }
    let text = printed(&["explain", &model, "--text", "a small bird"]);
    assert!(
        text.starts_with("animal  0.700  (integrated gradients, 50 steps)\n"),
        "{text}"
    );
    assert!(text.contains("\nsmall  0.0000\n"), "{text}");
    assert!(
        text.contains("\ncompleteness: the attributions sum to 0.0000;"),
        "{text}"
    );
    // It is not a terminal.
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn labels_of_several_have_probabilities_by_themselves() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier_with("labels", &[0.0, 3f32.ln(), 0.0]);
    edit_config(&model, |config| {
        config["problem_type"] = "multi_label_classification".into();
    });
    let row = ["--model", &model, "--text", "a small bird"];
    let ours = explained(&row);
    assert_eq!(ours["class"], "animal");
    assert!((number(&ours, "probability") - 0.75).abs() < 1e-6);
    let named = explained(&[&row[..], &["--class", "food"]].concat());
    assert!((number(&named, "probability") - 0.5).abs() < 1e-6);
}

#[test]
fn rows_of_a_file_are_explained_up_to_a_limit() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let rows = bundles.file("a.csv", "gloss,other\na tool,small\niron,bird\nbird,tool\n");
    let args = [
        "explain",
        &model,
        &rows,
        "--column",
        "gloss",
        "--pair-column",
        "other",
        "--limit",
        "2",
        "--json",
        "--method",
        "occlusion",
    ];
    let text = printed(&args);
    let objects: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects.len(), 2, "{text}");
    assert_eq!(objects[1]["place"], format!("{rows}:3"));
    let parts = objects[1]["tokens"].as_array().unwrap().iter();
    assert!(parts.clone().any(|token| token["part"] == 0));
    assert!(parts.clone().any(|token| token["part"] == 1));
}

/// A page, which has to be well-formed.
fn page(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(&text, options).unwrap();
    text
}

#[test]
fn pages_hold_coloured_words_and_nothing_of_a_text_becomes_markup() {
    let bundles = Bundles::new();
    let (model, output) = (golden("explain/text"), bundles.at("why.html"));
    let text = "the small <script>bird</script> sings";
    let args = ["explain", &model, "--text", text, "--output", &output];
    assert_eq!(printed(&args), format!("wrote {output}\n"));
    let markup = page(&output);
    assert!(!markup.contains("<script"), "{markup}");
    assert!(markup.contains(">sings</span><sub>"), "{markup}");
    assert!(markup.contains("rgba(0, 114, 178") && markup.contains("rgba(213, 94, 0"));
    assert!(markup.contains("completeness: "), "{markup}");
    let reason = refused(&args);
    assert!(reason.ends_with("exists; --force replaces it"), "{reason}");
    printed(&[&args[..], &["--force"]].concat());
}

#[test]
fn images_are_written_as_pictures_and_pages() {
    let bundles = Bundles::new();
    let (model, image) = (golden("explain/image"), golden_image(&bundles));
    let (png, html, lines) = (
        bundles.at("why.png"),
        bundles.at("why.html"),
        bundles.at("why.json"),
    );
    for output in [&png, &html, &lines] {
        printed(&[
            "explain", &model, &image, "--method", "grad-cam", "--output", output,
        ]);
    }
    let picture = image::open(&png).unwrap().to_rgb8();
    // 12 pixels, each 19 times, twice, and a gap.
    assert_eq!(picture.dimensions(), (2 * 228 + 15, 228));
    let first = numbers(&expected("image")["pixels"]);
    assert_eq!(picture.get_pixel(0, 0).0.map(f64::from), first[..3]);
    assert!(page(&html).contains("data:image/png;base64,"));
    let object: Value = serde_json::from_slice(&fs::read(&lines).unwrap()).unwrap();
    assert_eq!(object["method"], "grad-cam");
}

#[test]
fn what_cannot_be_explained_is_refused_in_one_sentence() {
    let bundles = Bundles::new();
    let (texts, images) = (
        bundles.text_classifier("texts"),
        bundles.image_classifier("images"),
    );
    let (masked, image) = (bundles.masked_lm("masked"), bundles.png("a.png", 9));
    let values = bundles.text_classifier_with("values", &[1.0]);
    edit_config(&values, |config| {
        config["problem_type"] = "regression".into()
    });
    let png = bundles.at("why.png");
    let other = bundles.at("why.txt");
    let row = ["--text", "a bird"];
    for (args, reason) in [
        (
            vec!["--model", &masked, row[0], row[1]],
            "apps fill-mask is for it",
        ),
        (
            vec!["--model", &values, row[0], row[1]],
            "gives values, not classes",
        ),
        (
            vec!["--model", &texts, row[0], row[1], "--class", "stone"],
            "has no class \"stone\"; it has plant, animal, food",
        ),
        (
            vec!["--model", &texts, row[0], row[1], "--method", "grad-cam"],
            "grad-cam explains models of images",
        ),
        (
            vec!["--model", &images, &image, "--method", "attention-rollout"],
            "has no attention, which attention-rollout needs",
        ),
        (vec!["--model", &images, row[0], row[1]], "reads images"),
        (
            vec!["--model", &texts, row[0], row[1], "--output", &png],
            "whose explanation is .html or .json",
        ),
        (
            vec!["--model", &texts, row[0], row[1], "--output", &other],
            "an explanation is .html, .png or .json",
        ),
        (
            vec![
                "--model",
                &texts,
                row[0],
                row[1],
                "--method",
                "occlusion",
                "--steps",
                "9",
            ],
            "--steps is for integrated-gradients",
        ),
        (
            vec!["--model", &texts, row[0], row[1], "--steps", "99999"],
            "it must be at most 10000",
        ),
        (
            vec!["--model", &texts, row[0], row[1], "--pair", " "],
            "--text or --pair is empty",
        ),
        (
            vec![
                "--model", &texts, row[0], row[1], row[0], "iron", "--pair", "a",
            ],
            "each text needs its own",
        ),
        (
            vec!["--model", &texts],
            "standard input is empty, and nothing else is named",
        ),
        (vec!["--model", &texts, "missing.txt"], "missing.txt"),
    ] {
        let message = refused(&[&["explain"], &args[..]].concat());
        assert!(message.contains(reason), "{message}");
    }
    assert!(!Path::new(&png).exists() && !Path::new(&other).exists());
    let lines = bundles.file("rows.jsonl", "{\"text\": \"a bird\"}\n{\"text\": \" \"}\n");
    let message = refused(&["explain", &texts, &lines]);
    assert!(message.contains("rows.jsonl:2"), "{message}");
}
