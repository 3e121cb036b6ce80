//! Low-rank adapters against Python's `peft`: merged, beside the weights, their gradients, and what is written of them.
//!
//! `tests/golden/README.md` says what the adapters are, and why each tolerance is what it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::bundle::peft::{self, AdapterFiles};
use model::bundle::{self, Load, Precision};
use model::layers::Adapter;
use model::layers::adapter::Target;
use model::layers::low_rank::LowRankPlan;
use model::{Bundle, Draw, HeadKind, Names, TextClassifier, TokenModel, walk};
use serde_json::Value;

use crate::families::{self, assert_gradients};
use crate::golden::{self, Tensors, Values, assert_near, at_real, golden};

/// Of logits.
pub const TOLERANCE: f32 = 1e-4;
/// In front of every name in an adapter's file.
const PREFIX: &str = "base_model.model.";

const ALL: [&str; 9] = [
    "bert-lora",
    "bert-rslora",
    "bert-dora",
    "bert-patterns",
    "gpt2-lora",
    "gpt2-dora",
    "gpt2-rslora",
    "llama-lora",
    "qwen2-dora",
];

/// Those whose layers all have one rank and one alpha, as those that train here.
fn uniform() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().filter(|name| *name != "bert-patterns")
}

pub fn settings(path: &Path) -> Value {
    let text = fs::read_to_string(path.join(peft::CONFIG)).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn folder(name: &str) -> std::path::PathBuf {
    golden::path(&format!("peft/{name}"))
}

/// The adapter that the settings describe.
fn adapter(settings: &Value) -> Adapter {
    let targets: Vec<&str> = match &settings["target_modules"] {
        Value::Array(names) => names.iter().map(|name| name.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    };
    let is = |key: &str| settings[key].as_bool().unwrap();
    Adapter::LowRank(LowRankPlan {
        rank: settings["r"].as_u64().unwrap() as usize,
        alpha: settings["lora_alpha"].as_f64().unwrap(),
        dropout: settings["lora_dropout"].as_f64().unwrap(),
        rslora: is("use_rslora"),
        dora: is("use_dora"),
        targets: targets
            .iter()
            .map(|text| Target::parse(text).unwrap())
            .collect(),
    })
}

pub fn base(settings: &Value) -> Bundle {
    let name = settings["base_model_name_or_path"].as_str().unwrap();
    Bundle::open(&golden::path(name)).unwrap()
}

/// A model of either kind.
#[allow(clippy::large_enum_variant)] // A few of them, in a test.
pub enum Model<B: Backend> {
    Language(TokenModel<B>),
    Classifier(TextClassifier<B>),
}

impl<B: Backend> Model<B> {
    /// Scores of the golden batch: of tokens at every place, or of classes.
    pub fn logits(&self, bundle: &Bundle, golden: &Tensors) -> Tensor<B, 2> {
        let device = Default::default();
        let input = golden::input(golden, &device);
        match self {
            Self::Language(model) => model.logits(&input, None, None),
            Self::Classifier(model) => {
                let place = bundle.text_config().unwrap().class_plan().place;
                model.logits(&input, families::places(golden, place, &device))
            }
        }
    }
}

pub fn kind(bundle: &Bundle) -> HeadKind {
    if bundle
        .class()
        .unwrap()
        .ends_with("ForSequenceClassification")
    {
        return HeadKind::Classes;
    }
    HeadKind::Tokens
}

/// The base with the adapter's matrices beside its weights.
fn unmerged<B: Backend>(path: &Path) -> (Model<B>, Bundle, Names, Adapter) {
    let device = Default::default();
    let settings = settings(path);
    let (bundle, adapter) = (base(&settings), adapter(&settings));
    let names = bundle.require(kind(&bundle)).unwrap();
    let config = bundle.text_config().unwrap();
    let draw = Draw::new(&device, 0.02).with_adapter(Some(&adapter), names);
    let tensors = golden::tensors(&fs::read(path.join(peft::WEIGHTS)).unwrap());
    let mut left: BTreeMap<String, Values> = golden::under(&tensors, PREFIX);
    let mut value = |path: &walk::ModulePath, _: &[usize]| {
        let name = &*path.name();
        let (shape, values) = left.remove(name)?;
        Some(TensorData::new(values, shape))
    };
    let model = if kind(&bundle) == HeadKind::Classes {
        let classes = bundle.classes().unwrap().len();
        let model = TextClassifier::draw(&config, classes, &draw);
        let (model, _) = bundle.load(model, names, Load::Whole).unwrap();
        Model::Classifier(walk::replace(model, names, &mut value))
    } else {
        let model = TokenModel::draw(&config, &draw);
        let (model, _) = bundle.load(model, names, Load::Whole).unwrap();
        Model::Language(walk::replace(model, names, &mut value))
    };
    assert!(left.is_empty(), "no place for {:?}", left.keys());
    drop(draw);
    (model, bundle, names, adapter)
}

/// Logits as the golden file has them, of real tokens.
pub fn comparable<B: Backend>(logits: Tensor<B, 2>, golden: &Tensors) -> Values {
    let (shape, values) = golden::values(logits);
    if golden["logits"].0.len() == 2 {
        return (shape, values);
    }
    let tokens = &golden["input_ids"].0;
    at_real(&(vec![tokens[0], tokens[1], shape[1]], values), golden)
}

pub fn theirs(name: &str, golden: &Tensors) -> Values {
    if golden[name].0.len() == 2 {
        return golden[name].clone();
    }
    at_real(&golden[name], golden)
}

pub fn opened(path: &Path) -> (Model<Flex>, Bundle) {
    let bundle = Bundle::find(path).unwrap();
    let device = Default::default();
    let model = if kind(&bundle) == HeadKind::Classes {
        Model::Classifier(families::classifier(&bundle, &device).0)
    } else {
        Model::Language(families::language_model(&bundle, &device).0)
    };
    (model, bundle)
}

#[test]
fn an_adapters_directory_opens_as_its_base_with_the_adapter_merged() {
    for name in ALL {
        let golden = golden(&format!("peft/{name}/expected.safetensors"));
        let (model, bundle) = opened(&folder(name));
        let ours = comparable(model.logits(&bundle, &golden), &golden);
        let theirs = theirs("merged_logits", &golden);
        assert_near(
            &format!("merged logits of {name}"),
            &ours,
            &theirs,
            TOLERANCE,
        );
    }
}

#[test]
fn an_adapter_beside_the_weights_computes_what_it_does_in_peft() {
    for name in uniform() {
        let golden = golden(&format!("peft/{name}/expected.safetensors"));
        let (model, bundle, ..) = unmerged::<Flex>(&folder(name));
        let ours = comparable(model.logits(&bundle, &golden), &golden);
        let theirs = theirs("logits", &golden);
        assert_near(&format!("logits of {name}"), &ours, &theirs, TOLERANCE);
    }
}

fn gradients_match<B: AutodiffBackend>(name: &str) {
    let golden = golden(&format!("peft/{name}/expected.safetensors"));
    let (model, bundle, names, _) = unmerged::<B>(&folder(name));
    let config = bundle.text_config().unwrap();
    let logits = model.logits(&bundle, &golden);
    let targets = families::targets(&golden, config.describe().causal, kind(&bundle));
    let grads = families::mean_loss(logits, &targets).backward();
    let mut ours = match model {
        Model::Classifier(model) => golden::gradients(model, names, &grads),
        Model::Language(model) => golden::gradients(model, names, &grads),
    };
    let theirs = golden::under(&golden, &format!("grad.{PREFIX}"));
    assert!(theirs.keys().any(|name| name.contains(".lora_")), "{name}");
    ours.retain(|name, _| theirs.contains_key(name));
    assert_gradients(name, &ours, &theirs);
}

#[test]
fn gradients_of_adapters_are_those_of_peft() {
    uniform().for_each(gradients_match::<Autodiff<Flex>>);
}

/// Writes what a run with an adapter leaves: the merged model, and the adapter in a folder.
fn write(at: &Path, name: &str) {
    let (model, bundle, names, adapter) = unmerged::<Flex>(&folder(name));
    let config = bundle.text_config().unwrap();
    let files = AdapterFiles::new(adapter, Some(&bundle));
    let written = match model {
        Model::Classifier(model) => {
            let classes = bundle.classes().unwrap();
            let json = bundle::config_json(names, &config, Some(&classes));
            files.write(at, &json, &model, names, Precision::F32, &[])
        }
        Model::Language(model) => {
            let json = bundle::config_json(names, &config, None);
            files.write(at, &json, &model, names, Precision::F32, &[])
        }
    };
    written.unwrap();
}

#[test]
fn a_written_adapter_reads_back_as_it_was() {
    for name in uniform() {
        let temporary = tempfile::tempdir().unwrap();
        let at = temporary.path().join("model");
        write(&at, name);
        let inside = at.join(peft::FOLDER);
        // The same matrices under the same names, but for what is saved whole here and not there, or the other way round.
        let tensors = |path: &Path| golden::tensors(&fs::read(path.join(peft::WEIGHTS)).unwrap());
        let (ours, theirs) = (tensors(&inside), tensors(&folder(name)));
        for (tensor, values) in &theirs {
            if !tensor.contains(".pooler.") {
                assert_eq!(ours.get(tensor), Some(values), "{tensor} of {name}");
            }
        }
        let (ours, theirs) = (settings(&inside), settings(&folder(name)));
        for key in [
            "peft_type",
            "r",
            "lora_alpha",
            "lora_dropout",
            "use_rslora",
            "use_dora",
            "fan_in_fan_out",
            "bias",
        ] {
            let [ours, theirs] = [&ours, &theirs].map(|all| &all[key]);
            let same = ours == theirs || (ours.is_number() && ours.as_f64() == theirs.as_f64());
            assert!(same, "{key} of {name}: {ours}, not {theirs}");
        }
    }
}

#[test]
fn a_written_model_computes_with_the_adapter_merged_and_beside_it() {
    for name in uniform() {
        let temporary = tempfile::tempdir().unwrap();
        let at = temporary.path().join("model");
        write(&at, name);
        let golden = golden(&format!("peft/{name}/expected.safetensors"));
        let theirs = theirs("merged_logits", &golden);
        let (model, bundle) = opened(&at);
        let whole = comparable(model.logits(&bundle, &golden), &golden);
        assert_near(
            &format!("merged logits of {name}"),
            &whole,
            &theirs,
            TOLERANCE,
        );
        // The adapter names its base, which is opened with it; a pooler with matrices is in it whole.
        let (model, bundle) = opened(&at.join(peft::FOLDER));
        let again = comparable(model.logits(&bundle, &golden), &golden);
        assert_eq!(again, whole, "{name}");
    }
}

#[test]
fn a_new_adapter_changes_nothing() {
    let device = Default::default();
    for name in uniform() {
        let settings = settings(&folder(name));
        let (bundle, adapter) = (base(&settings), adapter(&settings));
        if kind(&bundle) == HeadKind::Classes {
            continue;
        }
        let golden = golden(&format!("peft/{name}/expected.safetensors"));
        let input = golden::input::<Flex>(&golden, &device);
        let (plain, names) = families::language_model::<Flex>(&bundle, &device);
        let draw = Draw::new(&device, 0.02).with_adapter(Some(&adapter), names);
        let fresh = TokenModel::draw(&bundle.text_config().unwrap(), &draw);
        let (model, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
        assert!(loaded.drawn.iter().all(|name| name.contains(".lora_")));
        let model = peft::set_magnitudes(model, names);
        let [ours, theirs] =
            [&model, &plain].map(|model| golden::values(model.logits(&input, None, None)));
        // DoRA divides by a length and multiplies by it.
        assert_near(name, &ours, &theirs, 1e-5);
    }
}

/// A copy of an adapter's directory with some of its settings changed.
pub fn changed(at: &Path, name: &str, change: &[(&str, Value)]) {
    fs::create_dir_all(at).unwrap();
    let mut settings = settings(&folder(name));
    for (key, value) in change {
        settings[*key] = value.clone();
    }
    fs::write(at.join(peft::CONFIG), settings.to_string()).unwrap();
    fs::copy(folder(name).join(peft::WEIGHTS), at.join(peft::WEIGHTS)).unwrap();
}

#[test]
fn adapters_that_compute_something_else_are_refused_by_name() {
    let temporary = tempfile::tempdir().unwrap();
    let base = golden::path("families/bert-classifier-2")
        .display()
        .to_string();
    for (key, value, words) in [
        ("peft_type", Value::from("IA3"), "peft_type is \"IA3\""),
        ("peft_type", Value::Null, "peft_type is null"),
        ("bias", "all".into(), "biases"),
        (
            "base_model_name_or_path",
            Value::Null,
            "base_model_name_or_path is missing",
        ),
        ("base_model_name_or_path", "no/such".into(), "no/such"),
        (
            "layer_replication",
            serde_json::json!([[0, 1]]),
            "layer_replication",
        ),
        ("use_qalora", true.into(), "use_qalora"),
        (
            "trainable_token_indices",
            serde_json::json!([1]),
            "trainable_token_indices",
        ),
        (
            "target_parameters",
            serde_json::json!(["a"]),
            "target_parameters",
        ),
    ] {
        let at = temporary.path().join("adapter");
        let named = ("base_model_name_or_path", Value::from(base.clone()));
        changed(&at, "bert-lora", &[named, (key, value)]);
        let error = Bundle::find(&at).unwrap_err().to_string();
        assert!(
            error.contains(words) && error.contains("adapter_config.json"),
            "{error}"
        );
    }
}

#[test]
fn matrices_that_fit_no_layer_of_the_base_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path().join("adapter");
    // Of another width; and of more layers than it has, whose matrices would be lost.
    for (other, words) in [
        ("bert-classifier-1", "do not fit a weight of"),
        (
            "bert-classifier-3",
            "adapts bert.encoder.layer.1.attention.self.query, which the base",
        ),
    ] {
        let other = golden::path(&format!("families/{other}"))
            .display()
            .to_string();
        changed(
            &at,
            "bert-lora",
            &[("base_model_name_or_path", other.into())],
        );
        let bundle = Bundle::find(&at).unwrap();
        let config = bundle.text_config().unwrap();
        let fresh = TextClassifier::<Flex>::draw(&config, 3, &Draw::new(&Default::default(), 0.02));
        let names = bundle.require(HeadKind::Classes).unwrap();
        let error = bundle
            .load(fresh, names, Load::Backbone)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// The usual adapter for a task: its base has no head, which the adapter holds whole.
#[test]
fn an_adapter_brings_the_head_that_its_base_lacks() {
    let temporary = tempfile::tempdir().unwrap();
    let base = temporary.path().join("base");
    fs::create_dir_all(&base).unwrap();
    let original = golden::path("families/bert-classifier-2");
    let mut config: Value =
        serde_json::from_slice(&fs::read(original.join(bundle::CONFIG)).unwrap()).unwrap();
    for key in ["id2label", "label2id", "architectures"] {
        config.as_object_mut().unwrap().remove(key);
    }
    fs::write(base.join(bundle::CONFIG), config.to_string()).unwrap();
    let mut tensors = golden("families/bert-classifier-2/model.safetensors");
    tensors.retain(|name, _| name.starts_with("bert."));
    let weights = crate::directories::file(&tensors, safetensors::Dtype::F32);
    fs::write(base.join(bundle::WEIGHTS), weights).unwrap();
    let at = temporary.path().join("adapter");
    let named = base.display().to_string();
    changed(
        &at,
        "bert-lora",
        &[("base_model_name_or_path", named.into())],
    );

    let bundle = Bundle::find(&at).unwrap();
    assert_eq!(bundle.classes().unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    let golden = golden("peft/bert-lora/expected.safetensors");
    let (model, _) = families::classifier::<Flex>(&bundle, &Default::default());
    let ours = Model::Classifier(model).logits(&bundle, &golden);
    let ours = golden::values(ours);
    assert_near("logits", &ours, &golden["merged_logits"], TOLERANCE);
    // Without it there is nothing to classify with.
    assert!(
        Bundle::open(&base)
            .unwrap()
            .require(HeadKind::Classes)
            .is_err()
    );
}

/// A tokenizer of one word.
fn write_tokenizer(folder: &Path, word: &str) {
    fs::create_dir_all(folder).unwrap();
    let vocabulary = format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{word}\n");
    fs::write(folder.join("vocab.txt"), vocabulary).unwrap();
}

#[test]
fn an_adapter_of_a_run_has_the_classes_and_the_tokenizer_of_the_run() {
    let temporary = tempfile::tempdir().unwrap();
    let run = temporary.path().join("run/model");
    let base = temporary.path().join("base");
    fs::create_dir_all(&base).unwrap();
    for name in [bundle::CONFIG, bundle::WEIGHTS] {
        let from = golden::path("families/bert-classifier-2").join(name);
        fs::copy(from, base.join(name)).unwrap();
    }
    write_tokenizer(&base, "base");
    let at = run.join(peft::FOLDER);
    let named = base.display().to_string();
    changed(
        &at,
        "bert-lora",
        &[("base_model_name_or_path", named.into())],
    );
    let vocabulary = || {
        let read = Bundle::find(&at).unwrap().read("vocab.txt").unwrap();
        let text = String::from_utf8(read).unwrap();
        text.lines().last().unwrap().to_string()
    };
    let classes = || Bundle::find(&at).unwrap().classes().unwrap();
    // As many as the base has: its names.
    let of_base = Bundle::find(&base).unwrap().classes().unwrap();
    assert_eq!((classes(), vocabulary()), (of_base.clone(), "base".into()));
    // A model of another family above says nothing about it.
    write_tokenizer(&run, "run");
    fs::write(
        run.join(bundle::CONFIG),
        r#"{"model_type": "gpt2", "id2label": {"0": "a"}}"#,
    )
    .unwrap();
    assert_eq!((classes(), vocabulary()), (of_base, "base".into()));
    let config =
        serde_json::json!({"model_type": "bert", "id2label": {"0": "a", "1": "b", "2": "c"}});
    fs::write(run.join(bundle::CONFIG), config.to_string()).unwrap();
    assert_eq!(classes(), ["a", "b", "c"]);
    assert_eq!(vocabulary(), "run");
    let other = serde_json::json!({"model_type": "bert", "id2label": {"0": "a", "1": "b"}});
    fs::write(run.join(bundle::CONFIG), other.to_string()).unwrap();
    assert_eq!(classes(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    // `peft` may keep the tokenizer beside the matrices.
    write_tokenizer(&at, "adapter");
    assert_eq!(vocabulary(), "adapter");
}

#[test]
fn classes_of_the_base_are_not_those_of_another_number_of_rows() {
    let temporary = tempfile::tempdir().unwrap();
    let base = temporary.path().join("base");
    fs::create_dir_all(&base).unwrap();
    let original = golden::path("families/bert-classifier-2");
    let mut config: Value =
        serde_json::from_slice(&fs::read(original.join(bundle::CONFIG)).unwrap()).unwrap();
    config["id2label"] = serde_json::json!({"0": "no", "1": "yes"});
    config["problem_type"] = "regression".into();
    fs::write(base.join(bundle::CONFIG), config.to_string()).unwrap();
    let at = temporary.path().join("adapter");
    let named = base.display().to_string();
    changed(
        &at,
        "bert-lora",
        &[("base_model_name_or_path", named.into())],
    );
    fs::copy(original.join(bundle::WEIGHTS), base.join(bundle::WEIGHTS)).unwrap();
    let bundle = Bundle::find(&at).unwrap();
    assert_eq!(bundle.classes().unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    assert_eq!(bundle.scores().unwrap(), bundle::Scores::OneLabel);
}

/// A backbone alone has no prefix in its names, and an adapter of a classifier has one.
#[test]
fn a_bare_backbone_is_loaded_with_the_adapter_too() {
    let device = Default::default();
    let golden = golden("peft/bert-lora/expected.safetensors");
    let input = golden::input::<Flex>(&golden, &device);
    let (bundle, base) = (
        Bundle::find(&folder("bert-lora")).unwrap(),
        base(&settings(&folder("bert-lora"))),
    );
    let states = |bundle: &Bundle| {
        let config = bundle.text_config().unwrap();
        let fresh = config.init::<Flex>(HeadKind::Bare, &Draw::new(&device, 0.02));
        let names = bundle.require(HeadKind::Bare).unwrap();
        let (model, _) = bundle.load(fresh, names, Load::Whole).unwrap();
        golden::values(model.states(&input, None, None))
    };
    let (classifier, _) = families::classifier::<Flex>(&bundle, &device);
    let theirs = golden::values(classifier.backbone.states(&input, None, None));
    assert_eq!(states(&bundle), theirs);
    assert_ne!(states(&base), theirs);
}

/// What loading a directory ends with.
pub fn load_error(at: &Path, load: Load) -> String {
    let device = Default::default();
    let bundle = match Bundle::find(at) {
        Ok(bundle) => bundle,
        Err(error) => return error.to_string(),
    };
    let config = bundle.text_config().unwrap();
    let kind = kind(&bundle);
    let names = bundle.require(kind).unwrap();
    let draw = bundle.draw(&device, names);
    let loaded = if kind == HeadKind::Classes {
        let model = TextClassifier::<Flex>::draw(&config, 3, &draw);
        bundle.load(model, names, load).map(drop)
    } else {
        let model = TokenModel::<Flex>::draw(&config, &draw);
        bundle.load(model, names, load).map(drop)
    };
    loaded.unwrap_err().to_string()
}

#[test]
fn no_tensor_of_an_adapter_is_lost() {
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path().join("adapter");
    let query = "base_model.model.bert.encoder.layer.0.attention.self.query";
    let vector = |length: usize| (vec![length], vec![1.0; length]);
    type Change<'a> = &'a dyn Fn(&mut Tensors);
    let take = |tensors: &mut Tensors, name: &str| tensors.remove(&format!("{query}.{name}"));
    let put = |tensors: &mut Tensors, name: &str| tensors.insert(name.into(), vector(20));
    let changes: [(&str, Change<'_>, &str); 11] = [
        (
            "bert-lora",
            &|tensors| drop(put(tensors, "bert.pooler.dense.bias")),
            "bert.pooler.dense.bias, which does not begin with base_model.model.",
        ),
        (
            "bert-lora",
            &|tensors| drop(take(tensors, "lora_B.weight")),
            "query.lora_A.weight and lacks ",
        ),
        (
            "bert-lora",
            &|tensors| drop(take(tensors, "lora_A.weight")),
            "query.lora_B.weight and lacks ",
        ),
        (
            "bert-lora",
            &|tensors| {
                let name = "base_model.model.bert.pooler.dense.lora_magnitude_vector";
                drop(put(tensors, name));
            },
            "lora_magnitude_vector and lacks ",
        ),
        (
            "bert-lora",
            &|tensors| {
                let table = "base_model.model.bert.embeddings.word_embeddings";
                drop(put(tensors, &format!("{table}.lora_embedding_A")));
            },
            "word_embeddings, a table of embeddings, which is not implemented",
        ),
        (
            "bert-lora",
            &|tensors| drop(put(tensors, &format!("{query}.lora_B.bias"))),
            "query.lora_B.bias, which is not implemented",
        ),
        (
            "bert-lora",
            &|tensors| drop(put(tensors, "base_model.model.bert.nowhere.weight")),
            "bert.nowhere.weight, which the base model does not have",
        ),
        (
            "bert-lora",
            &|tensors| drop(put(tensors, "base_model.model.classifier.weight")),
            "classifier.weight of shape [20] where the model has [3, 20]",
        ),
        (
            "bert-lora",
            &|tensors| {
                for (part, shape) in [("A", [2, 20]), ("B", [20, 2])] {
                    let name = format!("{query}.lora_{part}.weight");
                    tensors.insert(name, (shape.to_vec(), vec![1.0; 40]));
                }
            },
            "have rank 2, and adapter_config.json says 3",
        ),
        (
            "bert-dora",
            &|tensors| {
                let name = format!("{query}.lora_magnitude_vector");
                tensors.insert(name, vector(19));
            },
            "lengths of shape [19] do not fit 20 outputs",
        ),
        (
            "gpt2-lora",
            &|tensors| drop(put(tensors, "base_model.model.lm_head.weight")),
            "lm_head.weight",
        ),
    ];
    for (name, change, words) in changes {
        let base = settings(&folder(name))["base_model_name_or_path"].clone();
        let base = golden::path(base.as_str().unwrap()).display().to_string();
        changed(&at, name, &[("base_model_name_or_path", base.into())]);
        let mut tensors = golden(&format!("peft/{name}/{}", peft::WEIGHTS));
        change(&mut tensors);
        let bytes = crate::directories::file(&tensors, safetensors::Dtype::F32);
        fs::write(at.join(peft::WEIGHTS), bytes).unwrap();
        for load in [Load::Whole, Load::Backbone] {
            // A head that is not taken may have any shape.
            if load == Load::Whole || !words.starts_with("classifier") {
                let error = load_error(&at, load);
                assert!(error.contains(words), "{load:?} {words}: {error}");
            }
        }
    }
}

/// `peft` trains a copy of what it saves whole, and the other end of a tie stays as it was.
#[test]
fn one_end_of_a_tie_is_not_trained_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path().join("adapter");
    let base = golden::path("families/gpt2-causal-lm-1");
    let named = Value::from(base.display().to_string());
    let table = golden("families/gpt2-causal-lm-1/model.safetensors")
        .into_iter()
        .find_map(|(name, values)| name.ends_with("wte.weight").then_some(values));
    for name in ["lm_head.weight", "transformer.wte.weight"] {
        changed(
            &at,
            "gpt2-lora",
            &[("base_model_name_or_path", named.clone())],
        );
        let mut tensors = golden("peft/gpt2-lora/adapter_model.safetensors");
        tensors.insert(format!("{PREFIX}{name}"), table.clone().unwrap());
        let bytes = crate::directories::file(&tensors, safetensors::Dtype::F32);
        fs::write(at.join(peft::WEIGHTS), bytes).unwrap();
        let error = load_error(&at, Load::Whole);
        let words = format!("holds {name} whole, which the base model ties to ");
        assert!(error.contains(&words), "{error}");
    }
}

#[test]
fn ranks_and_patterns_that_mean_nothing_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path().join("adapter");
    for (key, value, words) in [
        ("r", Value::from(0), "r is 0"),
        (
            "rank_pattern",
            serde_json::json!({"query(": 3}),
            "\"query(\" is no regular expression",
        ),
        (
            "alpha_pattern",
            serde_json::json!({"query": "much"}),
            "expected f64",
        ),
    ] {
        changed(&at, "bert-lora", &[(key, value)]);
        let error = Bundle::find(&at).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// The first pattern of the file counts, not the first of the alphabet.
#[test]
fn patterns_are_tried_in_the_order_of_the_file() {
    let temporary = tempfile::tempdir().unwrap();
    let base = golden::path("families/bert-classifier-2");
    let named = Value::from(base.display().to_string());
    let golden = golden("peft/bert-lora/expected.safetensors");
    let logits = |patterns: &str| {
        let at = temporary.path().join("adapter");
        changed(
            &at,
            "bert-lora",
            &[("base_model_name_or_path", named.clone())],
        );
        let text = fs::read_to_string(at.join(peft::CONFIG)).unwrap();
        let text = text.replace(
            "\"alpha_pattern\":{}",
            &format!("\"alpha_pattern\":{patterns}"),
        );
        assert!(text.contains(patterns));
        fs::write(at.join(peft::CONFIG), text).unwrap();
        let (model, bundle) = opened(&at);
        golden::values(model.logits(&bundle, &golden))
    };
    let alone = logits(r#"{"self.query": 40}"#);
    assert_eq!(logits(r#"{"self.query": 40, "query": 7}"#), alone);
    assert_ne!(logits(r#"{"query": 7, "self.query": 40}"#), alone);
}

#[test]
fn a_base_is_a_model_and_no_other_adapter() {
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path().join("adapter");
    let inner = temporary.path().join("inner");
    changed(&inner, "bert-lora", &[]);
    for name in ["", " ", ".", &inner.display().to_string()] {
        changed(
            &at,
            "bert-lora",
            &[("base_model_name_or_path", name.into())],
        );
        let error = Bundle::find(&at).unwrap_err().to_string();
        assert!(error.contains("base_model_name_or_path is "), "{error}");
    }
    // Trainers of adapters write the base's configuration beside them.
    let base = golden::path("families/bert-classifier-2");
    let named = base.display().to_string();
    changed(
        &at,
        "bert-lora",
        &[("base_model_name_or_path", named.into())],
    );
    fs::copy(base.join(bundle::CONFIG), at.join(bundle::CONFIG)).unwrap();
    assert!(Bundle::find(&at).unwrap().has_adapter());
}

/// GPT-2's layers have the layout of `Conv1D`, its untied decoder that of `Linear`; a square one says nothing by its shape.
#[test]
fn an_untied_decoder_is_adapted_in_its_layout() {
    let device = Default::default();
    let tied = Bundle::open(&golden::path("families/gpt2-causal-lm-2")).unwrap();
    let names = Names::new(tied.family(), HeadKind::Tokens);
    let golden = golden("families/gpt2-causal-lm-2/expected.safetensors");
    let input = golden::input::<Flex>(&golden, &device);
    let width = tied.text_config().unwrap().describe().d_model;
    for (vocab_size, dora) in [(width, false), (width, true), (width + 3, true)] {
        let mut config = tied.raw_config().clone();
        config["tie_word_embeddings"] = false.into();
        config["vocab_size"] = vocab_size.into();
        let config: model::TextConfig = serde_json::from_value(config).unwrap();
        let adapter = Adapter::LowRank(LowRankPlan {
            rank: 2,
            alpha: 8.0,
            dropout: 0.0,
            rslora: false,
            dora,
            targets: ["lm_head", "c_proj"]
                .map(|name| Target::parse(name).unwrap())
                .to_vec(),
        });
        let draw = Draw::<Flex>::new(&device, 0.5).with_adapter(Some(&adapter), names);
        let model = peft::set_magnitudes(TokenModel::draw(&config, &draw), names);
        let model = walk::replace(model, names, &mut |path, shape| {
            let values = (0..shape.iter().product()).map(|at: usize| (at as f32 * 0.7).sin());
            let values: Vec<f32> = values.collect();
            let is_second = path.name().ends_with(".lora_B.weight");
            is_second.then(|| TensorData::new(values, shape.to_vec()))
        });
        // No one matrix is the decoder.
        assert!(model.decoder().is_none());
        let tokens = Tensor::clone(&input.tokens).remainder_scalar(vocab_size as i64);
        let input = model::TokenInput {
            tokens,
            ..input.clone()
        };
        let beside = golden::values(model.logits(&input, None, None));
        let temporary = tempfile::tempdir().unwrap();
        let at = temporary.path().join("model");
        let json = bundle::config_json(names, &config, None);
        let files = AdapterFiles::new(adapter, None);
        files
            .write(&at, &json, &model, names, Precision::F32, &[])
            .unwrap();
        let (merged, _) = opened(&at);
        let Model::Language(merged) = merged else {
            unreachable!()
        };
        let merged = golden::values(merged.logits(&input, None, None));
        // Weights are drawn, and logits as large as they happen to be.
        let largest = beside
            .1
            .iter()
            .fold(1.0, |largest, logit| logit.abs().max(largest));
        assert_near("logits", &merged, &beside, TOLERANCE * largest);
    }
}
