//! Models whose adapters stay beside their weights: every command reads them, and none merges them.

use std::fs;

use burn::backend::Flex;
use burn::module::Module;
use model::bundle::peft::{AdapterFiles, FOLDER};
use model::bundle::{self, Precision};
use model::families::bert::BertConfig;
use model::layers::Adapter;
use model::layers::adapter::Target;
use model::layers::bottleneck::BottleneckPlan;
use model::{Draw, HeadKind, TextClassifier, TextConfig, TokenModel};

use crate::bundles::{Bundles, TEXTS, bert, bpe, classes, gpt2, printed, refused, wordpiece};

/// Of wide weights, so that texts differ.
fn wide() -> TextConfig {
    TextConfig::Bert(BertConfig {
        initializer_range: 0.5,
        ..bert()
    })
}

fn bottleneck() -> Adapter {
    Adapter::Bottleneck(BottleneckPlan {
        rank: 2,
        dropout: 0.0,
        targets: vec![Target::parse("intermediate.dense").unwrap()],
    })
}

/// A bundle with an adapter, as a run leaves it.
fn write<M: Module<Flex>>(
    bundles: &Bundles,
    name: &str,
    (config, head): (&TextConfig, HeadKind),
    adapter: Adapter,
    model: &M,
) -> String {
    let tokenizer = match head {
        HeadKind::Tokens if config.describe().causal => bpe(),
        _ => wordpiece(),
    };
    let tokenizer = tokenizer.to_json().unwrap();
    let names = config.names(head);
    let named = (head == HeadKind::Classes).then(classes);
    let json = bundle::config_json(names, config, named.as_deref());
    let files: &[(&str, &[u8])] = &[(bundle::TOKENIZER, tokenizer.as_bytes())];
    let at = bundles.path(name);
    AdapterFiles::new(adapter, None)
        .write(&at, &json, model, names, Precision::F32, files)
        .unwrap();
    bundles.at(name)
}

fn classifier(bundles: &Bundles, name: &str, adapter: Adapter) -> String {
    let (config, device) = (wide(), Default::default());
    let names = config.names(HeadKind::Classes);
    let draw = Draw::<Flex>::new(&device, 0.02).with_adapter(Some(&adapter), names);
    let model = TextClassifier::draw(&config, 3, &draw);
    let kind = (&config, HeadKind::Classes);
    write(bundles, name, kind, adapter.clone(), &model)
}

#[test]
fn predictions_are_made_with_the_adapter() {
    let bundles = Bundles::new();
    for (name, adapter) in [
        ("prompt", Adapter::Prompt(3)),
        ("prefix", Adapter::Prefix(3)),
        ("bottleneck", bottleneck()),
    ] {
        let model = classifier(&bundles, name, adapter);
        let predict = || printed(&["predict", "--model", &model, "--text", TEXTS[0]]);
        let with = predict();
        assert_eq!(with.lines().count(), 3, "{with}");
        // A new bottleneck changes nothing yet.
        if name != "bottleneck" {
            let config = bundles.path(name).join(bundle::CONFIG);
            let text = fs::read_to_string(&config).unwrap();
            let without = text.replace("\"hearth_adapter\"", "\"of_another_library\"");
            fs::write(&config, without).unwrap();
            assert_ne!(predict(), with, "{name}");
            fs::write(&config, text).unwrap();
        }
        fs::remove_dir_all(bundles.path(name).join(FOLDER)).unwrap();
        let message = refused(&["predict", "--model", &model, "--text", TEXTS[0]]);
        assert!(message.contains("adapter_config.json"), "{message}");
    }
}

#[test]
fn a_text_goes_on_behind_virtual_tokens_with_and_without_a_cache() {
    let bundles = Bundles::new();
    for (name, adapter) in [
        ("prompt", Adapter::Prompt(30)),
        ("prefix", Adapter::Prefix(30)),
    ] {
        let (config, device) = (TextConfig::Gpt2(gpt2()), Default::default());
        let names = config.names(HeadKind::Tokens);
        let draw = Draw::<Flex>::new(&device, 0.02).with_adapter(Some(&adapter), names);
        let model = TokenModel::draw(&config, &draw);
        let kind = (&config, HeadKind::Tokens);
        let path = write(&bundles, name, kind, adapter.clone(), &model);
        let generate = |more: &[&str]| {
            let args = ["generate", "--model", &path, "--ignore-end", "--seed", "3"];
            printed(&[&args[..], more].concat())
        };
        let text = generate(&["--max-tokens", "7", "a"]);
        assert_eq!(generate(&["--max-tokens", "7", "--no-cache", "a"]), text);
        // 40 positions, of which 30 are taken.
        let long = "a small bird that sings small birds of iron";
        let message = refused(&["generate", "--model", &path, long]);
        assert!(message.contains("this model takes 10"), "{message}");
    }
}

#[test]
fn what_stays_beside_the_weights_is_not_merged() {
    let bundles = Bundles::new();
    let output = bundles.at("out");
    for (name, adapter, words) in [
        ("prompt", Adapter::Prompt(2), "holds a trained prompt"),
        ("prefix", Adapter::Prefix(2), "holds a trained prefix"),
        ("bottleneck", bottleneck(), "holds a bottleneck adapter"),
    ] {
        let model = classifier(&bundles, name, adapter);
        let message = refused(&["convert", &model, &output]);
        let end = format!("{words}, which cannot be merged into a model's weights");
        assert!(message.ends_with(&end), "{message}");
        assert!(!bundles.path("out").exists());
    }
}
