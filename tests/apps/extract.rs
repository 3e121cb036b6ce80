//! Adapters that are found in the difference of two models.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use crate::bundles::{Bundles, apps, open, printed, refused};
use crate::convert::{assert_near, golden, logits, merged};

#[test]
fn a_merged_adapter_is_found_again() {
    let bundles = Bundles::new();
    for (name, base) in [
        ("bert-lora", "bert-classifier-2"),
        ("bert-patterns", "bert-classifier-2"),
        ("gpt2-lora", "gpt2-causal-lm-1"),
        ("llama-lora", "llama-causal-lm-2"),
    ] {
        let (adapter, base) = (
            golden(&format!("peft/{name}")),
            golden(&format!("families/{base}")),
        );
        let (tuned, found) = (bundles.at("tuned"), bundles.at("found"));
        printed(&["convert", "--force", "--merge", &adapter, &tuned]);
        let args = [
            "--force",
            "--extract-lora",
            &base,
            &tuned,
            &found,
            "--rank",
            "3",
        ];
        let text = printed(&[&["convert"], &args[..]].concat());
        assert!(text.ends_with(&format!("wrote {found}\n")), "{text}");
        let all = text.lines().find(|line| line.starts_with("all "));
        assert!(all.unwrap().ends_with("1.0000"), "{text}");
        assert!(open(&found).has_adapter());
        let bytes = fs::read(format!("{adapter}/expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        assert_near(&logits(&found, &expected), &merged(&expected), 1e-4);
    }
}

#[test]
fn what_an_adapter_lacks_is_said() {
    let bundles = Bundles::new();
    let [base, tuned] = ["base", "tuned"].map(|name| bundles.causal_lm(name));
    let found = bundles.at("found");
    let args = [
        "convert",
        "--extract-lora",
        &base,
        &tuned,
        &found,
        "--rank",
        "1",
    ];
    let output = apps(&args);
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    let start = "warning: left out transformer.wpe.weight, transformer.wte.weight: ";
    assert!(
        told.starts_with(start) && told.lines().count() == 1,
        "{told}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let all = text.lines().find(|line| line.starts_with("all "));
    let share = all.unwrap().split_whitespace().next_back().unwrap();
    let share: f64 = share.parse().unwrap();
    // One direction of eight or more.
    assert!(share > 0.1 && share < 0.9, "{text}");
    let config = fs::read_to_string(format!("{found}/adapter_config.json")).unwrap();
    assert!(config.contains("\"fan_in_fan_out\": true"), "{config}");
    // More than a layer has would be zeros.
    let far = bundles.at("far");
    let args = [
        "convert",
        "--extract-lora",
        &base,
        &tuned,
        &far,
        "--rank",
        "100000",
    ];
    let output = apps(&args);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("note: the adapter is of rank "), "{told}");
    let bytes = fs::metadata(format!("{far}/adapter_model.safetensors")).unwrap();
    assert!(bytes.len() < 1 << 20);
}

#[test]
fn models_that_have_no_adapter_between_them_are_refused() {
    let bundles = Bundles::new();
    let (decoder, classifier) = (
        bundles.causal_lm("decoder"),
        bundles.text_classifier("classifier"),
    );
    let larger = golden("families/bert-classifier-2");
    let found = bundles.at("found");
    let extract =
        |base: &str, tuned: &str| refused(&["convert", "--extract-lora", base, tuned, &found]);
    let message = extract(&decoder, &classifier);
    assert!(message.ends_with("an adapter is of one model"), "{message}");
    let message = extract(&decoder, &decoder);
    assert!(
        message.ends_with("so there is nothing to extract"),
        "{message}"
    );
    extract(&larger, &classifier);
    let message = refused(&["convert", "--extract-lora", &decoder, &found]);
    assert!(
        message.starts_with("three directories are expected"),
        "{message}"
    );
    assert!(!Path::new(&found).exists());
    let args = [
        "convert",
        "--force",
        "--extract-lora",
        &decoder,
        &classifier,
        &decoder,
    ];
    let message = refused(&args);
    assert!(
        message.ends_with("--force replaces adapters only"),
        "{message}"
    );
}
