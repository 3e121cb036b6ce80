//! The `apps` binary, driven as a person drives it, with tiny bundles whose answers are known beforehand.
//!
//! A head with weights of zero says the same about every input: its biases are the logarithms of the
//! probabilities that must be printed.

#![allow(clippy::unwrap_used)] // A test that can't go on should stop.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use apps::dump::Dump;
use apps::fill_mask::MaskFiller;
use apps::guess;
use apps::predict::TextPredictor;
use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::module::Param;
use burn::prelude::*;
use data::TextTokenizer;
use image::{GrayImage, Luma};
use model::bundle::{self, Architecture, Precision};
use model::{AutoencoderConfig, BertClassifier, BertConfig, BertMaskedLm, Bundle, ImageClassifier};
use safetensors::SafeTensors;
use tempfile::TempDir;

const TEXTS: [&str; 4] = [
    "a small bird that sings",
    "a tool",
    "made of iron",
    "small birds",
];
/// Of the classes, in the order of the logits.
const SHARES: [f32; 3] = [0.2, 0.7, 0.1];
const CLASSES: [&str; 3] = ["plant", "animal", "food"];

fn tokenizer() -> TextTokenizer {
    TextTokenizer::train_wordpiece(&TEXTS, 60).unwrap()
}

/// 16 wide, 12 positions.
fn sizes() -> BertConfig {
    serde_json::from_value(serde_json::json!({
        "vocab_size": tokenizer().vocab_size(),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 12,
    }))
    .unwrap()
}

fn image_sizes() -> AutoencoderConfig {
    AutoencoderConfig {
        image_channels: 1,
        image_height: 4,
        image_width: 6,
        channels: vec![2],
        latent_size: 3,
    }
}

fn logarithms(shares: &[f32], device: &FlexDevice) -> Param<Tensor<Flex, 1>> {
    let logarithms: Vec<f32> = shares.iter().map(|share| share.ln()).collect();
    Param::from_tensor(Tensor::from_floats(logarithms.as_slice(), device))
}

fn zeros<const D: usize>(like: &Param<Tensor<Flex, D>>) -> Param<Tensor<Flex, D>> {
    Param::from_tensor(like.val().zeros_like())
}

fn classes() -> Vec<String> {
    CLASSES.map(String::from).to_vec()
}

/// Bundles in a folder of their own.
struct Bundles {
    folder: TempDir,
}

impl Bundles {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name).display().to_string()
    }

    fn write<M: Module<Flex>>(
        &self,
        name: &str,
        kind: Architecture,
        sizes: &impl serde::Serialize,
        model: &M,
    ) -> String {
        let classes = classes();
        let json = bundle::config_json(kind, sizes, Some(&classes));
        let tokenizer = tokenizer().to_json().unwrap();
        let files: &[(&str, &[u8])] = match kind.is_bert() {
            true => &[(bundle::TOKENIZER, tokenizer.as_bytes())],
            false => &[],
        };
        bundle::write(&self.path(name), &json, model, Precision::F32, files).unwrap();
        self.path(name).display().to_string()
    }

    /// Takes every text for each class with its share of [`SHARES`].
    fn text_classifier(&self, name: &str) -> String {
        let device = Default::default();
        let mut model = BertClassifier::<Flex>::new(&sizes(), 3, &device);
        model.classifier.weight = zeros(&model.classifier.weight);
        model.classifier.bias = logarithms(&SHARES, &device);
        self.write(
            name,
            Architecture::BertForSequenceClassification,
            &sizes(),
            &model,
        )
    }

    /// Fills every mask with "bird" in three of four cases.
    fn masked_lm(&self, name: &str) -> String {
        let device = Default::default();
        let mut model = BertMaskedLm::<Flex>::new(&sizes(), &device);
        let head = &mut model.cls.predictions;
        head.transform.layer_norm.gamma = zeros(&head.transform.layer_norm.gamma);
        let tokenizer = tokenizer();
        let others = tokenizer.vocab_size() - 1;
        let bird = tokenizer.encode_one("bird", 9).unwrap()[1] as usize;
        let mut shares = vec![0.25 / others as f32; others + 1];
        shares[bird] = 0.75;
        head.bias = logarithms(&shares, &device);
        self.write(name, Architecture::BertForMaskedLm, &sizes(), &model)
    }

    /// Takes every image for each class with its share of [`SHARES`].
    fn image_classifier(&self, name: &str) -> String {
        let device = Default::default();
        let mut model = ImageClassifier::<Flex>::new(&image_sizes(), 3, &device);
        model.classifier.weight = zeros(&model.classifier.weight);
        model.classifier.bias = logarithms(&SHARES, &device);
        self.write(
            name,
            Architecture::ConvImageClassifier,
            &image_sizes(),
            &model,
        )
    }

    /// Reconstructs every image as half grey: the sigmoid of nothing.
    fn autoencoder(&self, name: &str) -> String {
        let mut model = image_sizes().init::<Flex>(&Default::default());
        let last = model.decoder.convolutions.last_mut().unwrap();
        last.weight = zeros(&last.weight);
        last.bias = last.bias.as_ref().map(zeros);
        self.write(name, Architecture::ConvAutoencoder, &image_sizes(), &model)
    }

    fn png(&self, name: &str, value: u8) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(6, 4, Luma([value]))
            .save(&path)
            .unwrap();
        path.display().to_string()
    }
}

fn apps(args: &[&str]) -> Output {
    let binary = Command::new(env!("CARGO_BIN_EXE_apps")).args(args).output();
    binary.unwrap()
}

/// What a command prints that must succeed.
fn printed(args: &[&str]) -> String {
    let output = apps(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line on standard error of a command that must refuse its input.
fn refused(args: &[&str]) -> String {
    let output = apps(args);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    assert!(output.stdout.is_empty(), "{args:?} prints besides");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let message = errors.trim_end().strip_prefix("error: ");
    message.unwrap_or_else(|| panic!("{errors}")).into()
}

#[test]
fn a_text_gets_its_classes_best_first() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    assert_eq!(
        printed(&["predict", "--model", &model, "--text", "a small bird"]),
        "animal  0.700\nplant   0.200\nfood    0.100\n"
    );
    let args = [
        "predict",
        "--model",
        &model,
        "--text",
        "a small bird",
        "--top",
        "1",
    ];
    assert_eq!(printed(&args), "animal  0.700\n");
}

#[test]
fn a_run_stands_for_its_model() {
    let bundles = Bundles::new();
    fs::create_dir(bundles.path("run")).unwrap();
    bundles.text_classifier("run/model");
    let run = bundles.path("run").display().to_string();
    let text = printed(&["predict", "--model", &run, "--text", "iron", "--top", "1"]);
    assert_eq!(text, "animal  0.700\n");
}

#[test]
fn rows_of_a_file_get_a_line_each() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let lines = bundles.file("a.txt", "a small bird\n\na tool\n");
    assert_eq!(
        printed(&[
            "predict", "--model", &model, "--input", &lines, "--top", "2"
        ]),
        format!("{lines}:1\tanimal\t0.700\tplant\t0.200\n{lines}:3\tanimal\t0.700\tplant\t0.200\n")
    );
    let table = bundles.file("a.csv", "id,gloss\n1,\"iron, iron\"\n");
    let args = [
        "predict", "--model", &model, "--input", &table, "--column", "gloss", "--top", "1",
    ];
    assert_eq!(printed(&args), format!("{table}:2\tanimal\t0.700\n"));
}

#[test]
fn json_holds_an_object_a_row() {
    let bundles = Bundles::new();
    let model = bundles.text_classifier("bundle");
    let rows = bundles.file("a.jsonl", "{\"text\": \"a tool\"}\n{\"text\": \"iron\"}\n");
    let text = printed(&[
        "predict", "--model", &model, "--input", &rows, "--json", "--top", "1",
    ]);
    let objects: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[1]["place"], format!("{rows}:2"));
    assert_eq!(objects[1]["classes"][0]["name"], "animal");
    let probability = objects[1]["classes"][0]["probability"].as_f64().unwrap();
    assert!((probability - 0.7).abs() < 1e-6, "{probability}");
}

#[test]
fn a_prediction_does_not_depend_on_the_other_rows() {
    let bundles = Bundles::new();
    let device = Default::default();
    // Wide weights, so that texts differ.
    let wide = BertConfig {
        initializer_range: 0.5,
        ..sizes()
    };
    let model = BertClassifier::<Flex>::new(&wide, 3, &device);
    let path = bundles.write(
        "a",
        Architecture::BertForSequenceClassification,
        &wide,
        &model,
    );
    let bundle = Bundle::open(Path::new(&path)).unwrap();
    let predictor = TextPredictor::<Flex>::open(&bundle, &device).unwrap();
    // More than a batch, of different lengths.
    let texts: Vec<&str> = TEXTS.iter().copied().cycle().take(150).collect();
    let all = predictor.predict(&texts, 3).unwrap();
    assert_ne!(all[0], all[1]);
    for (text, together) in texts.iter().zip(&all) {
        let alone = &predictor.predict(&[text], 3).unwrap()[0];
        for (alone, together) in alone.iter().zip(together) {
            assert_eq!(alone.name, together.name);
            // Padding may change the order of sums: a few units in the last place.
            let difference = (alone.probability - together.probability).abs();
            assert!(difference < 1e-5, "{text}: {difference}");
        }
    }
}

#[test]
fn masks_are_filled_each_with_its_own_list() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("bundle");
    let text = printed(&[
        "fill-mask",
        "--model",
        &model,
        "a small [MASK] that sings",
        "--top",
        "1",
    ]);
    assert_eq!(text, "bird  0.750\n");
    let text = printed(&[
        "fill-mask",
        "--model",
        &model,
        "A [MASK], a [MASK].",
        "--top",
        "1",
    ]);
    assert_eq!(text, "[MASK] 1\nbird  0.750\n\n[MASK] 2\nbird  0.750\n");
}

#[test]
fn the_bundled_model_fills_masks() {
    let text = "[MASK] of or relating to music";
    let model = "wordnet-bert-nano";
    let table = printed(&["fill-mask", "--model", model, text, "--top", "3"]);
    let bundle = model::bundled::wordnet_bert_nano().unwrap();
    let filler = MaskFiller::<Flex>::open(&bundle, &Default::default()).unwrap();
    let filled = filler.fill(text, 3).unwrap();
    assert_eq!(table, guess::table(&filled[0]));
    let shares: Vec<f32> = filled[0].iter().map(|guess| guess.probability).collect();
    assert!(
        shares.is_sorted_by(|a, b| a >= b) && shares[2] > 0.0,
        "{shares:?}"
    );
}

#[test]
fn images_get_their_classes_from_every_kind_of_file() {
    let bundles = Bundles::new();
    let model = bundles.image_classifier("bundle");
    let one = bundles.png("folder/b.png", 9);
    let other = bundles.png("folder/a.png", 200);
    assert_eq!(
        printed(&["predict", "--model", &model, "--input", &one]),
        "animal  0.700\nplant   0.200\nfood    0.100\n"
    );
    let folder = bundles.path("folder").display().to_string();
    let text = printed(&[
        "predict", "--model", &model, "--input", &folder, "--top", "1",
    ]);
    assert_eq!(
        text,
        format!("{other}\tanimal\t0.700\n{one}\tanimal\t0.700\n")
    );
    // Two images of 2x2, which are resized.
    let idx = [
        0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8,
    ];
    let idx = bundles.file("images-idx3-ubyte", idx);
    let text = printed(&["predict", "--model", &model, "--input", &idx, "--top", "1"]);
    assert_eq!(
        text,
        format!("{idx}:0\tanimal\t0.700\n{idx}:1\tanimal\t0.700\n")
    );
}

#[test]
fn a_reconstruction_is_drawn_and_measured() {
    let bundles = Bundles::new();
    let model = bundles.autoencoder("bundle");
    let white = bundles.png("folder/b.png", 255);
    let black = bundles.png("folder/a.png", 0);
    let folder = bundles.path("folder").display().to_string();
    let output = bundles.file("out.png", "what stood there");
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
    assert_eq!(
        text,
        format!("{black}  6.0 dB\n{white}  6.0 dB\nwrote {output}\n")
    );
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
fn a_dump_holds_tokens_padding_and_logits() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("bundle");
    // More than a batch; the first text is as long as the model has positions, or longer.
    let texts: Vec<&str> = [&[TEXTS.join(" ").leak() as &str][..], &TEXTS.repeat(5)].concat();
    let input = bundles.file("texts.txt", texts.join("\n"));
    let output = bundles.path("out.safetensors").display().to_string();
    printed(&[
        "dump", "--model", &model, "--input", &input, "--output", &output,
    ]);
    let bytes = fs::read(&output).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let vocab_size = tokenizer().vocab_size();
    let shape = |name| file.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("input_ids"), [21, 12]);
    assert_eq!(shape("attention_mask"), [21, 12]);
    assert_eq!(shape("logits"), [21, 12, vocab_size]);
    let mask = file.tensor("attention_mask").unwrap();
    let real = mask
        .data()
        .chunks_exact(8 * 12)
        .map(|row| row.iter().filter(|&&b| b == 1).count());
    let lengths = tokenizer().encode(&texts, 12).unwrap();
    assert!(real.eq(lengths.iter().map(Vec::len)));

    let bundle = Bundle::open(Path::new(&model)).unwrap();
    let dump = Dump::of::<Flex>(&bundle, &texts, &Default::default()).unwrap();
    assert_eq!(dump.shape(), [21, 12, vocab_size]);
    assert_eq!(dump.to_bytes().unwrap(), bytes);
}

#[test]
fn a_bare_encoder_dumps_its_hidden_states() {
    let bundles = Bundles::new();
    let device = Default::default();
    let model = sizes().init_with_pooler::<Flex>(&device);
    let path = bundles.write("bare", Architecture::BertModel, &sizes(), &model);
    let bundle = Bundle::open(Path::new(&path)).unwrap();
    let dump = Dump::of::<Flex>(&bundle, &["a tool"], &device).unwrap();
    // [CLS] a tool [SEP]
    assert_eq!((dump.name, dump.shape()), ("hidden", [1, 4, 16]));
    let input = dump.inputs.input(&device);
    let hidden: Vec<f32> = model.forward(input).into_data().iter::<f32>().collect();
    assert_eq!(dump.values, hidden);
}

#[test]
fn the_wrong_model_is_refused() {
    let bundles = Bundles::new();
    let masked_lm = bundles.masked_lm("masked");
    let images = bundles.image_classifier("images");
    let refused = |args: &[&str]| {
        let place = format!("{}/", bundles.folder.path().display());
        refused(args).replace(&place, "")
    };
    assert_eq!(
        refused(&["predict", "--model", &masked_lm, "--text", "a"]),
        "masked: holds BertForMaskedLM, and BertForSequenceClassification or \
         HearthConvImageClassifier is needed here"
    );
    assert_eq!(
        refused(&["fill-mask", "--model", &images, "[MASK]"]),
        "images: holds HearthConvImageClassifier, and BertForMaskedLM is needed here"
    );
    assert_eq!(
        refused(&["reconstruct", "--model", &images, "--input", "mnist"]),
        "images: holds HearthConvImageClassifier, and HearthConvAutoencoder is needed here"
    );
    assert_eq!(
        refused(&["predict", "--model", &images, "--text", "a"]),
        "images: classifies images; name them by --input instead of --text"
    );
    let nothing = bundles.path("nothing").display().to_string();
    let args = ["fill-mask", "--model", &nothing, "[MASK]"];
    assert_eq!(refused(&args), "nothing: is no bundle: no such directory");
    fs::remove_file(bundles.path("masked/tokenizer.json")).unwrap();
    let message = refused(&["fill-mask", "--model", &masked_lm, "[MASK]"]);
    assert!(message.starts_with("masked/tokenizer.json: "), "{message}");
}

#[test]
fn wrong_input_is_refused_in_one_sentence() {
    let bundles = Bundles::new();
    let texts = bundles.text_classifier("texts");
    let masked_lm = bundles.masked_lm("masked");
    let images = bundles.image_classifier("images");
    let autoencoder = bundles.autoencoder("autoencoder");
    let at = |name: &str| bundles.path(name).display().to_string();
    let (empty, broken) = (bundles.file("e.txt", ""), bundles.file("b.png", "no image"));
    let png = bundles.png("p.png", 1);
    let (dump, nowhere) = (at("dump"), at("no/out.png"));
    let column = bundles.file("a.csv", "gloss\na tool\n");
    let long = format!("[MASK] {}", TEXTS.join(" "));
    let predict =
        |model: &str, input: &str| refused(&["predict", "--model", model, "--input", input]);
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
        (
            refused(&["fill-mask", "--model", &masked_lm, "a tool"]),
            "no [MASK]; write it where",
        ),
        (
            refused(&["fill-mask", "--model", &masked_lm, &long]),
            "tokens; this model takes 12",
        ),
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
            refused(&[
                "reconstruct",
                "--model",
                &autoencoder,
                "--input",
                &png,
                "--output",
                &nowhere,
            ]),
            "no/out.png: its directory does not exist",
        ),
        (
            refused(&[
                "reconstruct",
                "--model",
                &autoencoder,
                "--input",
                &png,
                "--output",
                &png,
            ]),
            "p.png: is the input too",
        ),
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
