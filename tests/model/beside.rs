//! Adapters that stay beside the weights: prompts and prefixes against Python's `peft`, bottlenecks, and what is written of
//! all.
//!
//! `tests/golden/README.md` says what the adapters are.

use std::fs;
use std::path::Path;

use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::peft::{self, AdapterFiles};
use model::bundle::{self, Load, Precision};
use model::layers::Adapter;
use model::layers::adapter::Target;
use model::layers::bottleneck::BottleneckPlan;
use model::{Bundle, Cache, Draw, HeadKind, Names, TextClassifier, TokenInput, TokenModel, walk};
use serde_json::Value;

use crate::adapters::{
    Model, TOLERANCE, base, changed, comparable, folder, kind, load_error, opened, settings, theirs,
};
use crate::families::{self, assert_gradients};
use crate::golden::{self, assert_near, golden};

/// As `peft` saved them.
const ALL: [&str; 6] = [
    "bert-prompt",
    "gpt2-prompt",
    "llama-prompt",
    "bert-prefix",
    "gpt2-prefix",
    "llama-prefix",
];

#[test]
fn virtual_tokens_compute_what_they_do_in_peft() {
    for name in ALL {
        let golden = golden(&format!("peft/{name}/expected.safetensors"));
        let (model, bundle) = opened(&folder(name));
        let ours = comparable(model.logits(&bundle, &golden), &golden);
        let theirs = theirs("logits", &golden);
        assert_near(&format!("logits of {name}"), &ours, &theirs, TOLERANCE);
    }
}

fn gradients_match<B: AutodiffBackend>(name: &str) {
    let (golden, device) = (
        golden(&format!("peft/{name}/expected.safetensors")),
        Default::default(),
    );
    let bundle = Bundle::find(&folder(name)).unwrap();
    let kind = kind(&bundle);
    let causal = bundle.text_config().unwrap().describe().causal;
    let targets = families::targets(&golden, causal, kind);
    let mut ours = if kind == HeadKind::Classes {
        let (model, names) = families::classifier::<B>(&bundle, &device);
        let place = bundle.text_config().unwrap().class_plan().place;
        let at = families::places(&golden, place, &device);
        let logits = model.logits(&golden::input(&golden, &device), at);
        let grads = families::mean_loss(logits, &targets).backward();
        golden::gradients(model, names, &grads)
    } else {
        let (model, names) = families::language_model::<B>(&bundle, &device);
        let logits = model.logits(&golden::input(&golden, &device), None, None);
        let grads = families::mean_loss(logits, &targets).backward();
        golden::gradients(model, names, &grads)
    };
    let theirs = golden::under(&golden, "grad.");
    let theirs = theirs.into_iter().map(|(name, values)| {
        let bare = name.strip_prefix("base_model.").unwrap_or(&name);
        (bare.to_string(), values)
    });
    let theirs: golden::Tensors = theirs.collect();
    assert!(theirs.contains_key("prompt_embeddings"), "{name}");
    ours.retain(|name, _| theirs.contains_key(name));
    assert_gradients(name, &ours, &theirs);
}

#[test]
fn gradients_of_virtual_tokens_are_those_of_peft() {
    ALL.into_iter().for_each(gradients_match::<Autodiff<Flex>>);
}

/// Writes what a run leaves: the base, and the adapter in a folder.
fn write(at: &Path, model: &Model<Flex>, opened: &Bundle, base: &Bundle, names: Names) {
    let config = opened.text_config().unwrap();
    let files = AdapterFiles::new(opened.beside().unwrap().clone(), Some(base));
    let written = match model {
        Model::Classifier(model) => {
            let classes = opened.classes().unwrap();
            let json = bundle::config_json(names, &config, Some(&classes));
            files.write(at, &json, model, names, Precision::F32, &[])
        }
        Model::Language(model) => {
            let json = bundle::config_json(names, &config, None);
            files.write(at, &json, model, names, Precision::F32, &[])
        }
    };
    written.unwrap();
}

#[test]
fn written_virtual_tokens_are_those_of_peft_and_open_with_their_model() {
    for name in ALL {
        let temporary = tempfile::tempdir().unwrap();
        let at = temporary.path().join("model");
        let (model, bundle) = opened(&folder(name));
        let base = base(&settings(&folder(name)));
        let names = base.require(kind(&base)).unwrap();
        write(&at, &model, &bundle, &base, names);
        let inside = at.join(peft::FOLDER);
        let tensors = |path: &Path| golden::tensors(&fs::read(path.join(peft::WEIGHTS)).unwrap());
        let (ours, theirs) = (tensors(&inside), tensors(&folder(name)));
        for (tensor, values) in &theirs {
            assert_eq!(ours.get(tensor), Some(values), "{tensor} of {name}");
        }
        // `peft` leaves the pooler as the base has it.
        let more = ours.keys().filter(|tensor| !theirs.contains_key(*tensor));
        let more: Vec<_> = more.filter(|tensor| !tensor.contains(".pooler.")).collect();
        assert!(more.is_empty(), "{more:?} of {name}");
        let (ours, theirs) = (settings(&inside), settings(&folder(name)));
        for key in [
            "peft_type",
            "task_type",
            "num_virtual_tokens",
            "token_dim",
            "num_transformer_submodules",
            "num_attention_heads",
            "num_layers",
            "encoder_hidden_size",
            "prefix_projection",
            "prompt_tuning_init",
        ] {
            assert_eq!(ours.get(key), theirs.get(key), "{key} of {name}");
        }
        let weights = golden::tensors(&fs::read(at.join(bundle::WEIGHTS)).unwrap());
        assert!(!weights.contains_key("prompt_embeddings"), "{name}");
        // The model brings its adapter, and the adapter names its base.
        let golden = golden(&format!("peft/{name}/expected.safetensors"));
        let logits = golden::values(model.logits(&bundle, &golden));
        for (place, is_adapter) in [(&at, false), (&inside, true)] {
            let (again, bundle) = opened(place);
            assert_eq!(bundle.has_adapter(), is_adapter);
            assert!(bundle.beside().is_some());
            assert_eq!(
                golden::values(again.logits(&bundle, &golden)),
                logits,
                "{name}"
            );
        }
    }
}

/// With a cache, in parts, and without one.
#[test]
fn a_decoder_goes_on_behind_virtual_tokens() {
    let device = Default::default();
    for name in ["gpt2-prompt", "llama-prompt", "llama-prefix"] {
        let bundle = Bundle::find(&folder(name)).unwrap();
        let (model, _) = families::language_model::<Flex>(&bundle, &device);
        let layers = bundle.text_config().unwrap().describe().layers;
        let tokens = Tensor::<Flex, 2, Int>::from_data([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], &device);
        let whole = golden::values(model.logits(&TokenInput::new(tokens.clone()), None, None));
        let words = whole.0[1];
        let mut cache = Cache::new(layers);
        let mut ours = vec![Vec::new(); 2];
        for (from, n) in [(0, 2), (2, 1), (3, 2)] {
            let part = TokenInput::new(tokens.clone().narrow(1, from, n));
            let (_, values) = golden::values(model.logits(&part, None, Some(&mut cache)));
            for (row, values) in ours.iter_mut().zip(values.chunks(n * words)) {
                row.extend(values);
            }
        }
        assert_eq!(cache.read(), 3 + 5);
        assert_near(name, &(whole.0.clone(), ours.concat()), &whole, 1e-5);
    }
}

#[test]
fn padding_behind_virtual_tokens_changes_no_real_token() {
    let device = Default::default();
    for name in ["gpt2-prompt", "llama-prefix"] {
        let bundle = Bundle::find(&folder(name)).unwrap();
        let (model, _) = families::language_model::<Flex>(&bundle, &device);
        let ints = |ids: [i32; 4]| Tensor::<Flex, 2, Int>::from_data([ids], &device);
        let short = ints([3, 1, 4, 0]).narrow(1, 0, 3);
        let alone = golden::values(model.logits(&TokenInput::new(short), None, None));
        let padded = TokenInput {
            mask_pad: Some(ints([0, 0, 0, 1]).equal_elem(1)),
            ..TokenInput::new(ints([3, 1, 4, 0]))
        };
        let at = Tensor::from_data([0, 1, 2], &device);
        let padded = golden::values(model.logits(&padded, Some(at), None));
        assert_near(name, &padded, &alone, 1e-5);
    }
}

/// A bottleneck of each feed-forward block, as this family has it.
fn bottleneck(names: Names) -> Adapter {
    let usual = names.family.bottleneck_targets.iter();
    Adapter::Bottleneck(BottleneckPlan {
        rank: 3,
        dropout: 0.0,
        targets: usual.map(|text| Target::parse(text).unwrap()).collect(),
    })
}

#[test]
fn bottlenecks_are_behind_the_feed_forward_blocks_alone() {
    let device = Default::default();
    for (base, layer) in [
        ("bert-masked-lm-1", "bert.encoder.layer.0.output.dense"),
        (
            "distilbert-masked-lm-1",
            "distilbert.transformer.layer.0.ffn.lin2",
        ),
        (
            "roberta-masked-lm-1",
            "roberta.encoder.layer.0.output.dense",
        ),
        (
            "electra-masked-lm-1",
            "electra.encoder.layer.0.output.dense",
        ),
        ("gpt2-causal-lm-1", "transformer.h.0.mlp.c_proj"),
        ("llama-causal-lm-1", "model.layers.0.mlp.down_proj"),
        ("qwen2-causal-lm-1", "model.layers.0.mlp.down_proj"),
    ] {
        let bundle = Bundle::open(&golden::path(&format!("families/{base}"))).unwrap();
        let (plain, names) = families::language_model::<Flex>(&bundle, &device);
        let (config, adapter) = (bundle.text_config().unwrap(), bottleneck(names));
        let draw = Draw::<Flex>::new(&device, 0.02).with_adapter(Some(&adapter), names);
        let (model, loaded) = bundle
            .load(TokenModel::draw(&config, &draw), names, Load::Whole)
            .unwrap();
        // Two matrices and two biases a layer.
        assert_eq!(
            peft::count::<Flex, _>(&model, names),
            4 * config.describe().layers
        );
        let part = |end: &str| format!("{layer}.bottleneck_{end}");
        for end in ["down.weight", "down.bias", "up.weight", "up.bias"] {
            assert!(loaded.drawn.contains(&part(end)), "{:?}", loaded.drawn);
        }
        let width = config.describe().d_model;
        let all = walk::parameters(&model, names);
        let shape = |end: &str| {
            let found = all.iter().find(|one| one.name == part(end));
            found.unwrap().shape.clone()
        };
        assert_eq!(shape("down.weight"), [3, width]);
        assert_eq!(shape("up.weight"), [width, 3]);
        // A new one changes nothing.
        let tokens = Tensor::<Flex, 2, Int>::from_data([[3, 1, 4]], &device);
        let input = TokenInput::new(tokens);
        let [ours, theirs] =
            [&model, &plain].map(|model| golden::values(model.logits(&input, None, None)));
        assert_eq!(ours, theirs, "{base}");
    }
}

/// A classifier whose bottlenecks do something, and its base.
fn bottlenecked(device: &FlexDevice) -> (TextClassifier<Flex>, Bundle, Names) {
    let base = Bundle::open(&golden::path("families/bert-classifier-2")).unwrap();
    let names = base.require(HeadKind::Classes).unwrap();
    let (config, adapter) = (base.text_config().unwrap(), bottleneck(names));
    let draw = Draw::new(device, 0.02).with_adapter(Some(&adapter), names);
    let fresh = TextClassifier::draw(&config, 3, &draw);
    let (model, _) = base.load(fresh, names, Load::Whole).unwrap();
    let model = walk::replace(model, names, &mut |path, shape| {
        let values = (0..shape.iter().product()).map(|at: usize| (at as f32 * 0.7).sin());
        let values: Vec<f32> = values.collect();
        let is_up = path.name().contains(".bottleneck_up.");
        is_up.then(|| TensorData::new(values, shape.to_vec()))
    });
    (model, base, names)
}

#[test]
fn a_written_bottleneck_opens_with_its_model() {
    let device = Default::default();
    let (model, base, names) = bottlenecked(&device);
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path().join("model");
    let config = base.text_config().unwrap();
    let json = bundle::config_json(names, &config, Some(&base.classes().unwrap()));
    let files = AdapterFiles::new(bottleneck(names), Some(&base));
    files
        .write(&at, &json, &model, names, Precision::F32, &[])
        .unwrap();
    let golden = golden("peft/bert-lora/expected.safetensors");
    let input = golden::input::<Flex>(&golden, &device);
    let logits = |model: &TextClassifier<Flex>| {
        let place = config.class_plan().place;
        golden::values(model.logits(&input, families::places(&golden, place, &device)))
    };
    let (plain, _) = families::classifier::<Flex>(&base, &device);
    assert_ne!(logits(&model), logits(&plain));
    let inside = at.join(peft::FOLDER);
    assert_eq!(settings(&inside)["peft_type"], "HEARTH_BOTTLENECK");
    for place in [&at, &inside] {
        let bundle = Bundle::find(place).unwrap();
        let (again, _) = families::classifier::<Flex>(&bundle, &device);
        assert_eq!(logits(&again), logits(&model));
        // Its backbone alone has them too, under names without a prefix.
        let names = bundle.require(HeadKind::Bare).unwrap();
        let fresh = config.init::<Flex>(HeadKind::Bare, &bundle.draw(&device, names));
        let (bare, _) = bundle.load(fresh, names, Load::Whole).unwrap();
        assert_eq!(
            golden::values(bare.states(&input, None, None)),
            golden::values(model.backbone.states(&input, None, None))
        );
    }
}

#[test]
fn a_bare_backbone_has_its_virtual_tokens() {
    let device = Default::default();
    for name in ["bert-prompt", "bert-prefix"] {
        let golden = golden(&format!("peft/{name}/expected.safetensors"));
        let input = golden::input::<Flex>(&golden, &device);
        let bundle = Bundle::find(&folder(name)).unwrap();
        let names = bundle.require(HeadKind::Bare).unwrap();
        let config = bundle.text_config().unwrap();
        let fresh = config.init::<Flex>(HeadKind::Bare, &bundle.draw(&device, names));
        let (bare, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
        assert!(loaded.drawn.is_empty(), "{loaded:?}");
        let (classifier, _) = families::classifier::<Flex>(&bundle, &device);
        assert_eq!(
            golden::values(bare.states(&input, None, None)),
            golden::values(classifier.backbone.states(&input, None, None))
        );
        // One that was drawn without them would compute something else.
        let fresh = config.init::<Flex>(HeadKind::Bare, &Draw::new(&device, 0.02));
        let error = bundle.load(fresh, names, Load::Whole).unwrap_err();
        let words = "holds prompt_embeddings, which the base model does not have";
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn adapters_that_compute_something_else_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path().join("adapter");
    let named = |base: &str| {
        let base = golden::path(&format!("families/{base}"));
        Value::from(base.display().to_string())
    };
    for (key, value, words) in [
        ("num_virtual_tokens", 0.into(), "num_virtual_tokens is 0"),
        ("num_virtual_tokens", Value::Null, "invalid type: null"),
        ("num_virtual_tokens", 600.into(), "no position left"),
        (
            "num_virtual_tokens",
            2.into(),
            "holds prompt_embeddings of shape [3, 20] where the model has [2, 20]",
        ),
        (
            "num_transformer_submodules",
            2.into(),
            "num_transformer_submodules is 2",
        ),
        ("peft_type", "P_TUNING".into(), "peft_type is \"P_TUNING\""),
        (
            "peft_type",
            "PREFIX_TUNING".into(),
            "holds prompt_embeddings of shape [3, 20] where the model has [3, 80]",
        ),
        (
            "base_model_name_or_path",
            Value::Null,
            "base_model_name_or_path is missing",
        ),
        (
            "base_model_name_or_path",
            named("hearth_lstm-classifier-1"),
            "is a hearth_lstm, and its adapter a trained prompt",
        ),
    ] {
        let base = ("base_model_name_or_path", named("bert-classifier-2"));
        changed(&at, "bert-prompt", &[base, (key, value)]);
        let error = fault(&at);
        assert!(error.contains(words), "{error}");
    }
    // Without its vectors.
    changed(
        &at,
        "bert-prompt",
        &[("base_model_name_or_path", named("bert-classifier-2"))],
    );
    let mut tensors = golden("peft/bert-prompt/adapter_model.safetensors");
    tensors.remove("prompt_embeddings");
    let bytes = crate::directories::file(&tensors, safetensors::Dtype::F32);
    fs::write(at.join(peft::WEIGHTS), bytes).unwrap();
    assert!(fault(&at).contains("lacks prompt_embeddings"));
    fs::remove_file(at.join(peft::WEIGHTS)).unwrap();
    assert!(fault(&at).contains(peft::WEIGHTS));
}

/// What opening or loading a directory ends with.
fn fault(at: &Path) -> String {
    match Bundle::find(at).and_then(|bundle| bundle.text_config().map(drop)) {
        Ok(()) => load_error(at, Load::Whole),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_model_without_the_adapter_that_it_was_trained_with_is_refused() {
    let device = Default::default();
    let (model, base, names) = bottlenecked(&device);
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path().join("model");
    let config = base.text_config().unwrap();
    let json = bundle::config_json(names, &config, Some(&base.classes().unwrap()));
    let files = AdapterFiles::new(bottleneck(names), Some(&base));
    files
        .write(&at, &json, &model, names, Precision::F32, &[])
        .unwrap();
    // An adapter upon it would not be beside the weights alone.
    let upon = temporary.path().join("upon");
    changed(
        &upon,
        "bert-lora",
        &[("base_model_name_or_path", at.display().to_string().into())],
    );
    let error = Bundle::find(&upon).unwrap_err().to_string();
    assert!(error.contains("holds a bottleneck adapter"), "{error}");
    fs::remove_dir_all(at.join(peft::FOLDER)).unwrap();
    let error = Bundle::find(&at).unwrap_err().to_string();
    assert!(error.contains("adapter_config.json"), "{error}");
}
