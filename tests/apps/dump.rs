//! What a model computes, in a file.

use std::fs;

use apps::dump::{Dump, Inputs};
use burn::backend::Flex;
use data::TextTokenizer;
use model::{HeadKind, TextConfig};
use safetensors::SafeTensors;

use crate::bundles::{
    Bundles, SHARES, TEXTS, bert, bpe, draw, gpt2, open, printed, refused, wordpiece,
};

#[test]
fn a_dump_holds_tokens_padding_and_logits() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("bundle");
    // More than a batch; the first text is longer than the model has positions.
    let long = TEXTS.join(" ");
    let texts: Vec<&str> = [&[long.as_str()][..], &TEXTS.repeat(5)].concat();
    let input = bundles.file("texts.txt", texts.join("\n"));
    let output = bundles.at("out.safetensors");
    printed(&[
        "dump", "--model", &model, "--input", &input, "--output", &output,
    ]);
    let bytes = fs::read(&output).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let vocab_size = wordpiece().vocab_size();
    let shape = |name| file.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("input_ids"), [21, 12]);
    assert_eq!(shape("attention_mask"), [21, 12]);
    assert_eq!(shape("logits"), [21, 12, vocab_size]);
    let mask = file.tensor("attention_mask").unwrap();
    let real = mask
        .data()
        .chunks_exact(8 * 12)
        .map(|row| row.iter().filter(|&&b| b == 1).count());
    let lengths = wordpiece().encode(&texts, 12).unwrap();
    assert!(real.eq(lengths.iter().map(Vec::len)));

    let dump = Dump::of::<Flex>(&open(&model), &texts, false, &Default::default()).unwrap();
    assert_eq!(dump.outputs[0].shape, [21, 12, vocab_size]);
    assert_eq!(dump.to_bytes().unwrap(), bytes);
}

#[test]
fn a_classifier_dumps_a_row_of_classes_a_text() {
    let bundles = Bundles::new();
    let model = open(&bundles.text_classifier("bundle"));
    let dump = Dump::of::<Flex>(&model, &TEXTS, false, &Default::default()).unwrap();
    let logits = &dump.outputs[0];
    assert_eq!((logits.name, &logits.shape[..]), ("logits", &[4, 3][..]));
    for row in logits.values.chunks_exact(3) {
        assert_eq!(row, SHARES.map(f32::ln));
    }
}

#[test]
fn a_decoder_dumps_its_vocabulary_at_each_token() {
    let bundles = Bundles::new();
    let model = open(&bundles.causal_lm("bundle"));
    let dump = Dump::of::<Flex>(&model, &["a tool", "a"], false, &Default::default()).unwrap();
    let (seq, words) = (
        bpe().encode_one("a tool", 40).unwrap().len(),
        gpt2().vocab_size,
    );
    let logits = &dump.outputs[0];
    assert_eq!(logits.shape, [2, seq, words]);
    // A token sees those before it alone: both texts begin alike.
    let row = |text: usize| &logits.values[text * seq * words..text * seq * words + words];
    for (one, other) in row(0).iter().zip(row(1)) {
        assert!((one - other).abs() < 1e-4, "{one} {other}");
    }
}

#[test]
fn hidden_states_are_those_of_a_bare_encoder_with_or_without_a_head() {
    let bundles = Bundles::new();
    let device = Default::default();
    let config = TextConfig::Bert(bert());
    let bare = config.init::<Flex>(HeadKind::Bare, &draw(&device));
    let path = bundles.write_text("bare", &config, HeadKind::Bare, &wordpiece(), &bare);
    let dump = Dump::of::<Flex>(&open(&path), &["a tool"], false, &device).unwrap();
    // [CLS] a tool [SEP]
    let hidden = &dump.outputs[0];
    assert_eq!(
        (hidden.name, &hidden.shape[..]),
        ("hidden", &[1, 4, 16][..])
    );
    let Inputs::Tokens(tokens) = &dump.inputs else {
        panic!("texts are tokens");
    };
    let states = bare.states(&tokens.input(&device), None, None);
    let states: Vec<f32> = states.into_data().iter::<f32>().collect();
    assert_eq!(hidden.values, states);

    let all = [
        bundles.masked_lm("masked"),
        bundles.text_classifier("classes"),
        bundles.causal_lm("causal"),
    ];
    let input = bundles.file("texts.txt", "a tool\n");
    for model in all {
        let output = format!("{model}.safetensors");
        let text = printed(&[
            "dump", "--hidden", "--model", &model, "--input", &input, "--output", &output,
        ]);
        assert!(text.contains(": hidden of 1 texts, [1, "), "{text}");
        let bytes = fs::read(&output).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let hidden = file.tensor("hidden").unwrap();
        assert_eq!(hidden.shape()[2], 16);
        assert!(file.tensor("logits").is_err());
    }
}

/// Names and shapes of what a model of this head makes of four texts or of two images.
fn outputs(head: HeadKind, model: &str) -> Vec<(&'static str, Vec<usize>)> {
    let longest = |tokenizer: &TextTokenizer| {
        let tokens = TEXTS.map(|text| tokenizer.encode_one(text, 40).unwrap().len());
        tokens.into_iter().max().unwrap()
    };
    let (texts, words) = (4, wordpiece().vocab_size());
    let seq = longest(&wordpiece()).min(12);
    let is = |name: &str| model.ends_with(name);
    match head {
        HeadKind::Bare if is("images") => vec![("hidden", vec![2, 2, 2, 3])],
        HeadKind::Bare => vec![("hidden", vec![texts, seq, 16])],
        HeadKind::Tokens if is("causal") => {
            vec![("logits", vec![texts, longest(&bpe()), gpt2().vocab_size])]
        }
        HeadKind::Tokens => vec![("logits", vec![texts, seq, words])],
        HeadKind::SentencePairs => vec![
            ("logits", vec![texts, seq, words]),
            ("pair_logits", vec![texts, 2]),
        ],
        HeadKind::Replaced => vec![("logits", vec![texts, seq])],
        HeadKind::Classes if is("images") => vec![("logits", vec![2, 3])],
        HeadKind::Classes => vec![("logits", vec![texts, 3])],
        HeadKind::TokenClasses => vec![("logits", vec![texts, seq, 3])],
        HeadKind::Spans => vec![("logits", vec![texts, seq, 2])],
        HeadKind::Choices => vec![("logits", vec![texts, 1])],
        HeadKind::Pixels | HeadKind::Codes => vec![("logits", vec![2, 1, 4, 6])],
        HeadKind::Variational => vec![
            ("logits", vec![2, 1, 4, 6]),
            ("mean", vec![2, 2]),
            ("log_variance", vec![2, 2]),
        ],
        HeadKind::Patches => vec![("logits", vec![2, 6, 4])],
        HeadKind::Masks => vec![("logits", vec![2, 3, 4, 6])],
        HeadKind::Boxes => vec![
            ("logits", vec![2, 6, 3]),
            ("distances", vec![2, 6, 4]),
            ("centerness", vec![2, 6]),
        ],
    }
}

#[test]
fn every_head_dumps_what_it_computes() {
    let bundles = Bundles::new();
    let texts = bundles.file("texts.txt", TEXTS.join("\n"));
    fs::create_dir(bundles.path("photos")).unwrap();
    for (name, value) in [("photos/a.png", 51), ("photos/b.png", 255)] {
        bundles.png(name, value);
    }
    let photos = bundles.at("photos");
    for (head, model) in bundles.of_all_heads() {
        let input = if open(&model).is_text() {
            &texts
        } else {
            &photos
        };
        let output = format!("{model}.safetensors");
        let dump = |more: &[&str]| {
            let args = [
                "dump", "--model", &model, "--input", input, "--output", &output,
            ];
            printed(&[&args, more].concat());
            fs::read(&output).unwrap()
        };
        let bytes = dump(&[]);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let inputs = [
            "input_ids",
            "attention_mask",
            "decoder_input_ids",
            "pixel_values",
        ];
        let mut names: Vec<&str> = file.names();
        names.retain(|name| !inputs.contains(name));
        let expected = outputs(head, &model);
        assert_eq!(names.len(), expected.len(), "{model}: {names:?}");
        for (name, shape) in expected {
            assert_eq!(file.tensor(name).unwrap().shape(), shape, "{model}: {name}");
            let values = file.tensor(name).unwrap();
            let values = values.data().as_chunks::<4>().0.iter();
            let mut values = values.map(|bytes| f32::from_le_bytes(*bytes));
            assert!(values.all(f32::is_finite), "{model}: {name}");
        }
        let bytes = dump(&["--hidden"]);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert!(
            file.tensor("hidden").is_ok() && file.tensor("logits").is_err(),
            "{model}"
        );
        // The new bundle computes the same.
        let copy = format!("{model}-copy");
        printed(&["convert", &model, &copy]);
        let before = dump(&[]);
        let args = [
            "dump", "--model", &copy, "--input", input, "--output", &output,
        ];
        printed(&args);
        assert!(fs::read(&output).unwrap() == before, "{model}");
    }
}

#[test]
fn an_encoder_decoder_is_to_write_what_it_reads() {
    let bundles = Bundles::new();
    let path = bundles.translator("translator");
    let device = Default::default();
    let dump = Dump::of::<Flex>(&open(&path), &["a tool", "a"], false, &device).unwrap();
    let Inputs::TwoTexts(read, written) = &dump.inputs else {
        panic!("it reads one text and writes another");
    };
    // [CLS] a tool [SEP] and [CLS] a [SEP] [PAD], behind the start token, which is [SEP].
    let (end, pad) = (wordpiece().end().unwrap() as i32, wordpiece().pad() as i32);
    assert_eq!((read.seq, &read.lengths[..]), (4, &[4, 3][..]));
    assert_eq!(written[..4], [&[end], &read.tokens[..3]].concat());
    assert_eq!(written[4..], [&[end], &read.tokens[4..7]].concat());
    assert_eq!(read.tokens[7], pad);
    // A place sees those before it alone: the first of both, and of a text by itself.
    let alone = Dump::of::<Flex>(&open(&path), &["a"], false, &device).unwrap();
    let words = wordpiece().vocab_size();
    let pairs = alone.outputs[0].values[..2 * words].iter();
    for (one, other) in pairs.zip(&dump.outputs[0].values[4 * words..]) {
        assert!((one - other).abs() < 1e-4, "{one} {other}");
    }
}

#[test]
fn an_output_takes_nothing_from_its_neighbours() {
    let bundles = Bundles::new();
    let model = bundles.masked_lm("bundle");
    let input = bundles.file("texts.txt", "a tool\n");
    let beside = bundles.file("out.tmp", "mine");
    let dump = |output: &str| {
        [
            "dump", "--model", &model, "--input", &input, "--output", output,
        ]
        .map(String::from)
    };
    let run = |output: &str| {
        let args = dump(output);
        printed(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    run(&bundles.at("out.safetensors"));
    assert_eq!(fs::read_to_string(&beside).unwrap(), "mine");
    run(&beside);
    assert!(SafeTensors::deserialize(&fs::read(&beside).unwrap()).is_ok());
    #[cfg(unix)]
    {
        let aim = bundles.file("aim.safetensors", "old");
        std::os::unix::fs::symlink(&aim, bundles.path("link.safetensors")).unwrap();
        run(&bundles.at("link.safetensors"));
        assert!(bundles.path("link.safetensors").is_symlink());
        assert!(SafeTensors::deserialize(&fs::read(&aim).unwrap()).is_ok());
        // A device is written to and stays one.
        run("/dev/null");
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
    let args = dump(&bundles.at("bundle/model.safetensors"));
    let message = refused(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(message.contains("bundle, which is read"), "{message}");
    run(&bundles.at("again.safetensors"));
    let left = fs::read_dir(bundles.folder()).unwrap();
    let hidden = left.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.')
    });
    assert_eq!(hidden.count(), 0);
}

#[test]
fn values_that_the_machine_cannot_hold_are_refused_before_they_are_computed() {
    let error = apps::dump::check_size(&[40_000_000, 12, 60_000]).unwrap_err();
    assert!(error.to_string().contains("GiB of values"), "{error}");
}

#[test]
fn images_are_dumped_as_the_model_sees_them() {
    let bundles = Bundles::new();
    let classifier = bundles.image_classifier("classifier");
    let autoencoder = bundles.autoencoder("autoencoder");
    fs::create_dir(bundles.path("photos")).unwrap();
    for (name, value) in [("photos/a.png", 51), ("photos/b.png", 255)] {
        bundles.png(name, value);
    }
    let photos = bundles.at("photos");
    let output = bundles.at("out.safetensors");
    let dumped = |args: &[&str]| {
        printed(&[&["dump", "--input", &photos, "--output", &output], args].concat());
        fs::read(&output).unwrap()
    };
    let floats = |bytes: &[u8], name: &str| {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        let values = tensor.data().as_chunks::<4>().0.iter();
        let values: Vec<f32> = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (tensor.shape().to_vec(), values)
    };
    let bytes = dumped(&["--model", &classifier]);
    let (shape, pixels) = floats(&bytes, "pixel_values");
    assert_eq!(shape, [2, 1, 4, 6]);
    assert!(pixels[..24].iter().all(|pixel| *pixel == 0.2));
    assert!(pixels[24..].iter().all(|pixel| *pixel == 1.0));
    let (shape, logits) = floats(&bytes, "logits");
    assert_eq!(shape, [2, 3]);
    assert_eq!(logits[..3], SHARES.map(f32::ln));

    let (shape, _) = floats(&dumped(&["--model", &classifier, "--hidden"]), "hidden");
    assert_eq!(shape, [2, 2, 2, 3], "the maps of two channels");
    let (shape, logits) = floats(&dumped(&["--model", &autoencoder]), "logits");
    assert_eq!(shape, [2, 1, 4, 6]);
    assert!(logits.iter().all(|logit| *logit == 0.0));

    // Normalised as the bundle says.
    let normal = r#"{"do_normalize": true, "image_mean": [0.2], "image_std": [0.5]}"#;
    bundles.file("classifier/preprocessor_config.json", normal);
    let (_, pixels) = floats(&dumped(&["--model", &classifier]), "pixel_values");
    assert!(pixels[0].abs() < 1e-6 && (pixels[24] - 1.6).abs() < 1e-6);
    let wrong = r#"{"do_normalize": true, "image_mean": [0.2], "image_std": [0]}"#;
    bundles.file("classifier/preprocessor_config.json", wrong);
    let message = refused(&[
        "dump",
        "--model",
        &classifier,
        "--input",
        &photos,
        "--output",
        &output,
    ]);
    let words = "classifier/preprocessor_config.json: image_std holds 0; it must be above 0";
    assert!(message.ends_with(words), "{message}");
}
