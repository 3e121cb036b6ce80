//! Continued texts: the same with and without a cache, ends, blanks, and refusals.

use std::process::{Command, Stdio};

use apps::generate::{End, Generator, Request};
use burn::backend::Flex;
use model::families::gpt2::Gpt2Config;
use model::generate::Sampling;
use model::{HeadKind, TextConfig, TokenModel};

use crate::bundles::{Bundles, apps, bpe, draw, gpt2, open, printed, refused, wordpiece};

#[test]
fn a_seed_decides_the_text_with_or_without_a_cache() {
    let bundles = Bundles::new();
    let model = bundles.causal_lm("bundle");
    let generate = |more: &[&str]| {
        let args = [
            "generate",
            "--model",
            &model,
            "--ignore-end",
            "--max-tokens",
            "20",
            "--temperature",
            "1",
            "a small",
        ];
        let output = apps(&[&args[..], more].concat());
        assert!(output.status.success());
        output.stdout
    };
    let text = generate(&["--seed", "7"]);
    assert!(text.starts_with(b"a small") && text.len() > 20);
    assert_eq!(generate(&["--seed", "7"]), text);
    assert_eq!(generate(&["--seed", "7", "--no-cache"]), text);
    assert_ne!(generate(&["--seed", "8"]), text);
}

#[test]
fn the_end_token_ends_a_text_unless_it_is_ignored() {
    let bundles = Bundles::new();
    // <|endoftext|>
    let model = bundles.one_token_lm("bundle", 0);
    let generate = |more: &[&str]| {
        let args = ["generate", "--model", &model, "--max-tokens", "5", "iron"];
        let output = apps(&[&args[..], more].concat());
        assert!(output.status.success());
        let told = String::from_utf8(output.stderr).unwrap();
        (String::from_utf8(output.stdout).unwrap(), told)
    };
    let (text, told) = generate(&[]);
    assert_eq!(text, "iron\n");
    assert!(told.contains("\n1 token, "), "{told}");
    assert!(told.contains("(the text has ended)"), "{told}");
    let (_, told) = generate(&["--ignore-end"]);
    assert!(told.contains("5 tokens"), "{told}");
    assert!(told.contains("(as many as asked for)"), "{told}");
}

#[test]
fn a_text_to_stop_before_is_not_shown() {
    let bundles = Bundles::new();
    let x = bpe().encode_one("x", 9).unwrap()[0];
    let model = bundles.one_token_lm("bundle", x);
    let generate = |more: &[&str]| {
        let args = ["generate", "--model", &model, "--max-tokens", "6", "iron "];
        printed(&[&args[..], more].concat())
    };
    assert_eq!(generate(&[]), "iron xxxxxx\n");
    // Only what is added is searched.
    assert_eq!(generate(&["--stop", "iron"]), "iron xxxxxx\n");
    assert_eq!(generate(&["--stop", "xxx"]), "iron \n");
    assert_eq!(generate(&["--stop", "xy", "--stop", "yz"]), "iron xxxxxx\n");
}

#[test]
fn a_text_ends_where_the_model_has_no_more_positions() {
    let bundles = Bundles::new();
    let x = bpe().encode_one("x", 9).unwrap()[0];
    let path = bundles.one_token_lm("bundle", x);
    let generator = Generator::<Flex>::open(&open(&path), &Default::default()).unwrap();
    for cache in [true, false] {
        let prompt = "q".repeat(38);
        let request = Request {
            prompt: &prompt,
            max_tokens: 9,
            sampling: Sampling::GREEDY,
            stop: &[],
            seed: 0,
            cache,
            ignore_end: false,
            chat: false,
        };
        let mut text = String::new();
        let mut show = |piece: &str| {
            text.push_str(piece);
            Ok(())
        };
        // 40 positions are read: the third token is the one after the last of them.
        let (added, end) = generator.generate(&request, &mut show).unwrap();
        assert_eq!((added, end, text.as_str()), (3, End::Positions, "xxx"));
    }
    let long = "q".repeat(41);
    assert_eq!(
        refused(&["generate", "--model", &path, &long]),
        "the prompt has 41 tokens; this model takes 40"
    );
}

#[test]
fn an_empty_prompt_begins_a_text() {
    let bundles = Bundles::new();
    let x = bpe().encode_one("x", 9).unwrap()[0];
    let model = bundles.one_token_lm("bundle", x);
    let args = ["generate", "--model", &model, "--max-tokens", "2"];
    assert_eq!(printed(&args), "xx\n");
    let args = [&args[..], &["été ☃ "]].concat();
    assert_eq!(printed(&args), "été ☃ xx\n");
    let args = ["generate", "--model", &model, "--max-tokens", "0", "iron"];
    assert_eq!(printed(&args), "iron\n");
}

#[test]
fn words_of_a_vocabulary_without_blanks_are_told_apart() {
    let bundles = Bundles::new();
    let tokenizer = wordpiece();
    let config = TextConfig::Gpt2(Gpt2Config {
        vocab_size: tokenizer.vocab_size(),
        ..gpt2()
    });
    let device = Default::default();
    let model = TokenModel::<Flex>::draw(&config, &draw(&device));
    let path = bundles.write_text("bundle", &config, HeadKind::Tokens, &tokenizer, &model);
    let generator = Generator::<Flex>::open(&open(&path), &device).unwrap();
    let first = |seed| {
        let request = Request {
            prompt: "a small",
            max_tokens: 1,
            sampling: Sampling::default(),
            stop: &[],
            seed,
            cache: true,
            ignore_end: true,
            chat: false,
        };
        let mut added = String::new();
        let mut show = |piece: &str| {
            added.push_str(piece);
            Ok(())
        };
        generator.generate(&request, &mut show).unwrap();
        added.chars().next()
    };
    // A word has a blank before it, the end of one has none.
    let first: Vec<char> = (0..300).filter_map(first).collect();
    assert!(first.contains(&' '), "{first:?}");
    assert!(first.iter().any(|c| c.is_alphabetic()), "{first:?}");
}

#[test]
fn impossible_flags_and_models_are_refused() {
    let bundles = Bundles::new();
    let model = bundles.causal_lm("bundle");
    let flags: &[(&[&str], &str)] = &[
        (
            &["--top-p", "1.5"],
            "--top-p is 1.5; it must be from 0 to 1",
        ),
        (&["--min-p=-0.1"], "--min-p is -0.1; it must be from 0 to 1"),
        (
            &["--temperature=-1"],
            "--temperature is -1; it must be a finite number, 0 or more",
        ),
        (
            &["--temperature", "nan"],
            "--temperature is NaN; it must be a finite number, 0 or more",
        ),
        (
            &["--repetition-penalty", "0"],
            "--repetition-penalty is 0; it must be above 0",
        ),
        (&["--stop", ""], "--stop is empty"),
    ];
    for (flags, expected) in flags {
        let args = [&["generate", "--model", &model, "a"][..], flags].concat();
        assert_eq!(refused(&args), *expected);
    }
    let output = apps(&["generate", "--model", &model, "--top-k", "-1", "a"]);
    assert_eq!(output.status.code(), Some(2));

    let (masked, images) = (
        bundles.masked_lm("masked"),
        bundles.image_classifier("images"),
    );
    let message = refused(&["generate", "--model", &masked, "a"]);
    assert!(message.ends_with("apps fill-mask is for it"), "{message}");
    let message = refused(&["generate", "--model", &images, "a"]);
    assert!(message.contains("a text model is needed here"), "{message}");
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let bundles = Bundles::new();
    let x = bpe().encode_one("x", 9).unwrap()[0];
    let model = bundles.one_token_lm("bundle", x);
    let mut command = Command::new(env!("CARGO_BIN_EXE_apps"));
    command.args(["generate", "--model", &model, "iron"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    // No figures either: nothing was generated that nobody reads.
    assert_eq!(told, "");
}
