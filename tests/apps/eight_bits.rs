//! Bundles with matrices of 8 bits: a quarter of the bytes, nearly the same answers, and what is refused.

use std::fs;

use model::eight_bits::SCALE;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::bundles::{Bundles, open, printed, refused};
use crate::convert::{assert_near, dumped};

/// The classifier takes every text for an animal.
const ROWS: &str = "text,label\na bird,animal\na tool,plant\n";

fn weights(bundle: &str) -> String {
    format!("{bundle}/model.safetensors")
}

/// Converts to 8 bits, and gives where the new bundle is.
fn rounded(model: &str) -> String {
    let output = format!("{model}-8-bits");
    let text = printed(&["convert", "--precision", "int8", model, &output]);
    assert!(
        text.starts_with(&format!("wrote {output}\nweights: ")),
        "{text}"
    );
    assert!(text.contains("matrices of 8 bits: "), "{text}");
    output
}

#[test]
fn the_bundled_encoder_is_a_quarter_as_large_and_fills_masks_alike() {
    let bundles = Bundles::new();
    let (name, output) = ("wordnet-bert-nano", bundles.at("small"));
    printed(&["convert", name, &bundles.at("whole")]);
    printed(&["convert", "--precision", "int8", name, &output]);
    let size = |name: &str| fs::metadata(weights(&bundles.at(name))).unwrap().len() as f64;
    let share = size("small") / size("whole");
    assert!(share < 0.3, "{share}");
    let text = "a small [MASK] that sings";
    let best = |model: &str| -> Vec<(String, f32)> {
        let table = printed(&["fill-mask", "--model", model, text, "--top", "3"]);
        let guess = |line: &str| {
            let (word, share) = line.rsplit_once(' ').unwrap();
            (word.trim().to_string(), share.parse().unwrap())
        };
        table.lines().map(guess).collect()
    };
    let (word, share) = &best(name)[0];
    let rounded = best(&output);
    let near = rounded.iter().find(|(rounded, _)| rounded == word);
    let (_, near) = near.unwrap();
    assert!((near - share).abs() < 0.05, "{near}, not {share}");
    // Python's library does not read it.
    let card = printed(&["card", &output]);
    assert!(!card.contains("transformers"), "{card}");
}

#[test]
fn models_compute_almost_the_same_and_go_back_to_floats() {
    let bundles = Bundles::new();
    let models = [
        bundles.causal_lm("decoder"),
        bundles.masked_lm("encoder"),
        bundles.translator("both"),
    ];
    for model in models {
        let small = rounded(&model);
        let bytes = fs::read(weights(&small)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let of_8_bits = file.tensors().into_iter();
        let of_8_bits = of_8_bits.filter(|(_, tensor)| tensor.dtype() == Dtype::I8);
        for (name, matrix) in of_8_bits {
            let scale = file.tensor(&format!("{name}{SCALE}")).unwrap();
            let (matrix, scale) = (matrix.shape(), scale.shape());
            assert!(scale == [matrix[0], 1] || scale == [1, matrix[1]], "{name}");
        }
        let bundle = open(&small);
        let settings = &bundle.raw_config()["quantization_config"];
        assert_eq!(settings["bits"], 8, "{model}");
        // What transformers refuses to go on without.
        assert!(settings.get("quant_method").is_none(), "{model}");
        let back = bundles.at("back");
        printed(&["convert", "--force", &small, &back]);
        assert!(
            open(&back)
                .raw_config()
                .get("quantization_config")
                .is_none()
        );
        assert!(!open(&back).weights().unwrap().are_of_8_bits());
        let (of_floats, of_numbers, whole) = (dumped(&back), dumped(&small), dumped(&model));
        assert_near(&of_floats, &of_numbers, 1e-4);
        // Weights drawn at random, in layers of a few values: a real model is nearer.
        let norm =
            |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
        let mut error = of_numbers
            .iter()
            .zip(&whole)
            .map(|(one, other)| one - other);
        let share = norm(&mut error) / norm(&mut whole.iter().copied());
        assert!(share < 0.1, "{model}: {share}");
    }
}

#[test]
fn texts_are_continued_with_8_bits() {
    let bundles = Bundles::new();
    let small = rounded(&bundles.one_token_lm("bundle", 3));
    let text =
        |model: &str| printed(&["generate", "--model", model, "--max-tokens", "4", "a bird"]);
    assert_eq!(text(&small), text(&bundles.at("bundle")));
}

#[test]
fn what_is_lost_on_labelled_rows_is_shown() {
    let bundles = Bundles::new();
    let (model, output) = (bundles.text_classifier("bundle"), bundles.at("small"));
    let rows = bundles.file("a.csv", ROWS);
    let args = [
        "convert",
        "--precision",
        "int8",
        &model,
        &output,
        "--evaluate",
        &rows,
    ];
    let text = printed(&args);
    let line = text.lines().find(|line| line.starts_with("accuracy "));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(words, ["accuracy", "0.5000", "0.5000", "+0.0000"]);
    let decoder = bundles.causal_lm("decoder");
    let message = refused(&["convert", &decoder, &bundles.at("no"), "--evaluate", &rows]);
    assert!(message.contains("apps generate is for it"), "{message}");
    assert!(!bundles.path("no").exists());
}

/// A tensor of a file.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

#[test]
fn files_that_are_damaged_are_refused_in_one_sentence() {
    let bundles = Bundles::new();
    let small = rounded(&bundles.text_classifier("bundle"));
    let bytes = fs::read(weights(&small)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    let tensors: Vec<Tensor> = tensors
        .map(|(name, t)| (name, t.dtype(), t.shape().to_vec(), t.data().to_vec()))
        .collect();
    let first = tensors
        .iter()
        .position(|(name, ..)| name.ends_with(".query.weight.scale"));
    let first = first.unwrap();
    let name = &tensors[first].0;
    type Change<'a> = &'a dyn Fn(&mut Vec<Tensor>);
    let changes: [(&str, Change<'_>); 4] = [
        (
            &format!("{name}, which they are multiplied by, is missing"),
            &|all| {
                all.remove(first);
            },
        ),
        (&format!("{name} has shape [1]; a matrix of ["), &|all| {
            all[first].2 = vec![1];
            all[first].3.truncate(4);
        }),
        (&format!("{name} holds NaN or infinite values"), &|all| {
            all[first].3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }),
        (
            &format!("{name} holds i32 values, and floats are needed"),
            &|all| {
                all[first].1 = Dtype::I32;
            },
        ),
    ];
    for (reason, change) in changes {
        let mut changed = tensors.clone();
        change(&mut changed);
        let views = changed.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        fs::write(weights(&small), bytes).unwrap();
        let message = refused(&["predict", "--model", &small, "--text", "a bird"]);
        assert!(message.contains(reason), "{message}");
    }
    let message = refused(&[
        "convert",
        "--torchvision",
        "--precision",
        "int8",
        &small,
        &bundles.at("x"),
    ]);
    assert!(
        message.contains("--precision int8 is for bundles"),
        "{message}"
    );
}
