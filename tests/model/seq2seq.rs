//! Encoder-decoders against transformers: hidden states, logits, gradients, and the texts that they write.
//!
//! `tests/golden/README.md` says what the models are, and why each tolerance is what it is.

use std::fs;
use std::path::Path;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::module::{AutodiffModule, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use model::beam::{self, EarlyStopping, Search};
use model::bundle::{self, Load, Loaded, Precision};
use model::families::t5::Places;
use model::families::{Seq2SeqPlan, Seq2SeqTokens};
use model::heads::seq2seq::shift_right;
use model::layers::Adapter;
use model::layers::adapter::Target;
use model::layers::low_rank::LowRankPlan;
use model::{Bundle, Draw, HeadKind, Names, Seq2SeqCache, Seq2SeqConfig, Seq2SeqModel, TokenInput};
use serde_json::{Value, json};

use crate::families::{BACKWARD, BACKWARD_OF_NDARRAY, mean_loss};
use crate::golden::{self, Tensors, Values, assert_near, at_real, largest};

/// For hidden states and logits.
const FORWARD: f32 = 1e-4;
const LOSS: f32 = 1e-5;
/// Absolute, of the bias of keys: the softmax takes away what all keys share, so that its gradient is zero but for rounding.
const BACKWARD_OF_KEYS: f32 = 1e-4;
/// Of a text's score.
const SCORE: f32 = 1e-4;

/// The folders of all models.
fn all() -> Vec<String> {
    let of_family = |family| (1..=3).map(move |number| format!("seq2seq/{family}-{number}"));
    FAMILIES.iter().flat_map(of_family).collect()
}

const FAMILIES: &[&str] = &["bart", "marian", "t5"];

fn open(folder: &str) -> Bundle {
    Bundle::open(&golden::path(folder)).unwrap()
}

fn expected(folder: &str) -> Tensors {
    golden::golden(&format!("{folder}/expected.safetensors"))
}

/// A model with the weights of a bundle; every tensor of the file has a place in it.
fn model<B: Backend>(bundle: &Bundle, device: &B::Device) -> (Seq2SeqModel<B>, Names) {
    let names = bundle.require(HeadKind::Tokens).unwrap();
    let config = bundle.seq2seq_config().unwrap();
    let fresh = Seq2SeqModel::draw(&config, &Draw::new(device, 0.02));
    let (model, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
    assert_eq!(loaded, Loaded::default(), "{}", bundle.path().display());
    (model, names)
}

/// `[n, width]` of a golden tensor `[batch, seq, width]`.
fn flat((shape, values): &Values) -> Values {
    (vec![shape[0] * shape[1], shape[2]], values.clone())
}

fn forward_matches<B: Backend>(folder: &str) {
    let (device, golden) = (Default::default(), expected(folder));
    let (model, _) = model::<B>(&open(folder), &device);
    let input: TokenInput<B> = golden::input(&golden, &device);
    let decoder = golden::ints(&golden["decoder_input_ids"], &device);
    let near = |name: &str, ours: &Values, theirs: &Values| {
        assert_near(&format!("{name} of {folder}"), ours, theirs, FORWARD);
    };
    let encoded = model.backbone.encode(&input);
    let (shape, values) = golden::values(encoded.states.clone());
    let [batch, seq] = encoded.shape;
    let states = (vec![batch, seq, shape[1]], values);
    near(
        "encoded",
        &at_real(&states, &golden),
        &at_real(&golden["encoded"], &golden),
    );
    let hidden = model.backbone.decode(decoder.clone(), &encoded, None, None);
    near("hidden", &golden::values(hidden), &flat(&golden["hidden"]));
    let logits = model.logits(&input, decoder, None);
    near(
        "logits",
        &golden::values(logits.clone()),
        &flat(&golden["logits"]),
    );
    let labels: Vec<i32> = golden["labels"]
        .1
        .iter()
        .map(|&label| label as i32)
        .collect();
    let loss = golden::values(mean_loss(logits, &labels));
    assert_near(&format!("loss of {folder}"), &loss, &golden["loss"], LOSS);
}

#[test]
fn states_logits_and_losses_are_those_of_transformers() {
    all()
        .iter()
        .for_each(|folder| forward_matches::<Flex>(folder));
}

#[test]
fn they_are_on_a_backend_without_operations_of_our_own() {
    all()
        .iter()
        .for_each(|folder| forward_matches::<NdArray>(folder));
}

/// Gradients by name; those of what does not train are left out.
fn gradients<B: AutodiffBackend>(
    model: Seq2SeqModel<B>,
    names: Names,
    loss: Tensor<B, 1>,
) -> Tensors {
    struct Replace<'a, B: AutodiffBackend>(&'a B::Gradients);
    impl<B: AutodiffBackend> ModuleMapper<B> for Replace<'_, B> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let (id, tensor, mapper) = param.consume();
            let grad = tensor.grad(self.0).map(Tensor::from_inner);
            let grad = grad.unwrap_or_else(|| tensor.zeros_like());
            Param::from_mapped_value(id, grad, mapper)
        }
    }
    let grads = loss.backward();
    let mut all = golden::parameters(&model.map(&mut Replace::<B>(&grads)), names);
    all.remove("final_logits_bias");
    all
}

/// The mean loss of a golden batch: of its logits, or in one operation that makes none.
fn loss<B: Backend>(model: &Seq2SeqModel<B>, golden: &Tensors, in_one: bool) -> Tensor<B, 1> {
    let device = Default::default();
    let input = golden::input(golden, &device);
    let decoder = golden::ints(&golden["decoder_input_ids"], &device);
    if in_one {
        let (at, words) = golden::targets(golden);
        let at = Tensor::from_data(TensorData::new(at, [words.len()]), &device);
        let states = model.states(&input, decoder, Some(at));
        let (table, bias) = model.decoder().unwrap();
        let (losses, _) = model::ops::linear_cross_entropy(states, table, bias, &words);
        return losses.sum() / words.len() as f64;
    }
    let labels: Vec<i32> = golden["labels"].1.iter().map(|&id| id as i32).collect();
    mean_loss(model.logits(&input, decoder, None), &labels)
}

/// - within: of the largest value of a gradient, or absolute where that is more
fn backward_matches<B: AutodiffBackend>(folder: &str, within: [f32; 2], in_one: bool) {
    let (device, golden) = (Default::default(), expected(folder));
    let (model, names) = model::<B>(&open(folder), &device);
    let loss = loss(&model, &golden, in_one);
    let ours = gradients(model, names, loss);
    let theirs = golden::under(&golden, "grad.");
    let keys = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&theirs), "{folder}");
    for (name, values) in &theirs {
        let tolerance = if name.ends_with("k_proj.bias") {
            BACKWARD_OF_KEYS.max(within[1])
        } else {
            (within[0] * largest(values)).max(within[1])
        };
        let what = format!("gradient of {name} of {folder}");
        assert_near(&what, &ours[name], values, tolerance);
    }
}

#[test]
fn gradients_are_those_of_transformers() {
    for folder in all() {
        for in_one in [false, true] {
            backward_matches::<Autodiff<Flex>>(&folder, BACKWARD, in_one);
        }
    }
}

#[test]
fn gradients_are_on_a_backend_without_operations_of_our_own() {
    for folder in all() {
        for in_one in [false, true] {
            backward_matches::<Autodiff<NdArray>>(&folder, BACKWARD_OF_NDARRAY, in_one);
        }
    }
}

#[test]
fn a_step_of_training_leaves_the_bias_of_words_alone() {
    let device = Default::default();
    let (model, _) = model::<Autodiff<Flex>>(&open("seq2seq/bart-1"), &device);
    assert!(!model.head.bias.as_ref().unwrap().is_require_grad());
    let valid = model.valid();
    assert_eq!(valid.head.bias.unwrap().dims(), [1, 37]);
}

/// One of `searches.json`.
struct Case {
    search: Search,
    texts: Vec<Vec<u32>>,
    /// Tokens and scores, the best first, of each text.
    found: Vec<Vec<(Vec<u32>, Option<f32>)>>,
}

fn ids(value: &Value) -> Vec<u32> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(ids) => ids.iter().map(|id| id.as_u64().unwrap() as u32).collect(),
        one => vec![one.as_u64().unwrap() as u32],
    }
}

/// What `transformers` makes of these settings beside those of the model's own file, all of which they replace.
fn search(settings: &Value, plan: &Seq2SeqPlan) -> Search {
    let number = |key: &str| settings[key].as_u64().map(|n| n as usize);
    let float = |key: &str| settings[key].as_f64();
    let plain = Search::new(plan);
    Search {
        num_beams: number("num_beams").unwrap_or(1),
        num_return_sequences: number("num_return_sequences").unwrap_or(1),
        max_length: number("max_length").unwrap(),
        min_length: number("min_length").unwrap_or(0),
        length_penalty: float("length_penalty").unwrap_or(1.0),
        early_stopping: match &settings["early_stopping"] {
            Value::Null => EarlyStopping::No,
            said => EarlyStopping::try_from(said.clone()).unwrap(),
        },
        no_repeat_ngram_size: number("no_repeat_ngram_size").unwrap_or(0),
        repetition_penalty: float("repetition_penalty").unwrap_or(1.0),
        bad_words_ids: settings["bad_words_ids"]
            .as_array()
            .map_or(Vec::new(), |all| all.iter().map(ids).collect()),
        renormalize_logits: settings["renormalize_logits"].as_bool().unwrap_or(false),
        forced_bos_token_id: ids(&settings["forced_bos_token_id"]).first().copied(),
        // Where a case says nothing, the model's configuration does.
        forced_eos_token_id: match &settings["forced_eos_token_id"] {
            Value::Null => plan.forced_eos.clone(),
            said => ids(said),
        },
        eos_token_id: ids(&settings["eos_token_id"]),
        ..plain
    }
}

fn cases(folder: &str, plan: &Seq2SeqPlan) -> Vec<Case> {
    let text = fs::read_to_string(golden::path(folder).join("searches.json")).unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    let texts = |found: &Value| {
        let text = |text: &Value| {
            (
                ids(&text["tokens"]),
                text["score"].as_f64().map(|s| s as f32),
            )
        };
        found.as_array().unwrap().iter().map(text).collect()
    };
    let case = |case: Value| Case {
        search: search(&case["settings"], plan),
        texts: case["texts"].as_array().unwrap().iter().map(ids).collect(),
        found: case["found"]
            .as_array()
            .unwrap()
            .iter()
            .map(texts)
            .collect(),
    };
    all.into_iter().map(case).collect()
}

/// Texts padded on the right.
fn batch<B: Backend>(texts: &[Vec<u32>], pad: u32, device: &B::Device) -> TokenInput<B> {
    let longest = texts.iter().map(Vec::len).max().unwrap();
    let place = |text: &'_ Vec<u32>, at: usize| *text.get(at).unwrap_or(&pad) as i32;
    let rows = texts
        .iter()
        .flat_map(|text| (0..longest).map(move |at| place(text, at)));
    let tokens: Vec<i32> = rows.collect();
    let padded = texts
        .iter()
        .flat_map(|text| (0..longest).map(|at| at >= text.len()));
    let padded: Vec<bool> = padded.collect();
    let shape = [texts.len(), longest];
    let tokens = Tensor::from_data(TensorData::new(tokens, shape), device);
    TokenInput {
        mask_pad: Some(Tensor::from_data(TensorData::new(padded, shape), device)),
        ..TokenInput::new(tokens)
    }
}

fn writes_the_same<B: Backend>(folder: &str, cached: bool) {
    let (device, bundle) = (Default::default(), open(folder));
    let (model, _) = model::<B>(&bundle, &device);
    let plan = bundle.seq2seq_config().unwrap().describe();
    for (number, case) in cases(folder, &plan).into_iter().enumerate() {
        case.search.check(&plan).unwrap();
        let input = batch::<B>(&case.texts, plan.pad, &device);
        let layers = cached.then_some(plan.layers[1]);
        let ours = beam::generate(&model, &input, &case.search, layers);
        let what = format!("search {number} of {folder}, cached: {cached}");
        let tokens = |texts: &Vec<beam::Written>| {
            let tokens = texts.iter().map(|text| text.tokens.clone());
            tokens.collect::<Vec<_>>()
        };
        for (ours, theirs) in ours.iter().zip(&case.found) {
            let wanted: Vec<_> = theirs.iter().map(|(tokens, _)| tokens.clone()).collect();
            assert_eq!(tokens(ours), wanted, "{what}: {:?}", case.search);
            for (ours, (_, theirs)) in ours.iter().zip(theirs) {
                let far = ours.score.unwrap_or(0.0) - theirs.unwrap_or(0.0);
                assert!(far.abs() < SCORE, "{what}: scores differ by {far}");
                assert_eq!(ours.score.is_some(), theirs.is_some());
            }
        }
        assert_eq!(ours.len(), case.found.len());
    }
}

#[test]
fn texts_are_those_of_transformers_with_a_cache() {
    all()
        .iter()
        .for_each(|folder| writes_the_same::<Flex>(folder, true));
}

#[test]
fn texts_are_those_of_transformers_without_a_cache() {
    all()
        .iter()
        .for_each(|folder| writes_the_same::<Flex>(folder, false));
}

#[test]
fn texts_are_on_a_backend_without_operations_of_our_own() {
    all()
        .iter()
        .for_each(|folder| writes_the_same::<NdArray>(folder, true));
}

/// States of a text that is read at once, in two pieces and word by word; several rows for each text.
#[test]
fn a_cache_changes_no_state() {
    let device = Default::default();
    for folder in all() {
        let (bundle, golden) = (open(&folder), expected(&folder));
        let (model, _) = model::<Flex>(&bundle, &device);
        let layers = bundle.seq2seq_config().unwrap().describe().layers[1];
        let encoded = model.backbone.encode(&golden::input(&golden, &device));
        let rows: Tensor<Flex, 2, Int> = golden::ints(&golden["decoder_input_ids"], &device);
        let tokens: Tensor<Flex, 2, Int> = Tensor::cat(
            (0..3)
                .flat_map(|row| {
                    let one = rows.clone().narrow(0, row, 1);
                    [one.clone(), one.flip([1])]
                })
                .collect(),
            0,
        );
        let [n, seq] = tokens.dims();
        let whole = model.backbone.decode(tokens.clone(), &encoded, None, None);
        let [_, d_model] = whole.dims();
        let whole = golden::values(whole.reshape([n, seq, d_model]));
        for pieces in [vec![seq], vec![3, seq - 3], vec![1; seq]] {
            let mut cache = Seq2SeqCache::new(layers);
            let mut parts = Vec::new();
            for piece in &pieces {
                let new = tokens.clone().narrow(1, cache.own.read(), *piece);
                let states = model.backbone.decode(new, &encoded, None, Some(&mut cache));
                parts.push(states.reshape([n, *piece, d_model]));
            }
            assert_eq!(cache.own.read(), seq);
            let ours = golden::values(Tensor::cat(parts, 1));
            // f32 sums of at most 80 products in another order.
            assert_near(&format!("{folder} in {pieces:?}"), &ours, &whole, 2e-5);
        }
    }
}

#[test]
fn chosen_places_have_the_logits_of_the_whole() {
    let device = Default::default();
    for folder in all() {
        let golden = expected(&folder);
        let (model, _) = model::<Flex>(&open(&folder), &device);
        let input = golden::input(&golden, &device);
        let decoder: Tensor<Flex, 2, Int> = golden::ints(&golden["decoder_input_ids"], &device);
        let at: Tensor<Flex, 1, Int> = Tensor::from_data([7, 0, 5], &device);
        let whole = model.logits(&input, decoder.clone(), None);
        let whole = golden::values(whole.select(0, at.clone()));
        let some = golden::values(model.logits(&input, decoder, Some(at)));
        assert_near(&folder, &some, &whole, 1e-5);
    }
}

/// A loss may do without logits.
#[test]
fn states_and_the_decoder_make_the_logits() {
    let device = Default::default();
    for folder in all() {
        let golden = expected(&folder);
        let (model, _) = model::<Flex>(&open(&folder), &device);
        let input = golden::input(&golden, &device);
        let tokens: Tensor<Flex, 2, Int> = golden::ints(&golden["decoder_input_ids"], &device);
        let (table, bias) = model.decoder().unwrap();
        let states = model.states(&input, tokens.clone(), None);
        let mut logits = states.matmul(table.transpose());
        if let Some(bias) = bias {
            logits = logits + bias.unsqueeze();
        }
        let whole = golden::values(model.logits(&input, tokens, None));
        assert_near(&folder, &golden::values(logits), &whole, 1e-5);
    }
}

#[test]
fn kinds_of_distance_in_a_t5_are_those_of_transformers() {
    let text = fs::read_to_string(golden::path("seq2seq/t5_buckets.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let first = golden["first"].as_i64().unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        for (key, both_ways) in [("both_ways", true), ("backwards", false)] {
            let places = Places {
                buckets: number("buckets"),
                max_distance: number("max_distance"),
                both_ways,
            };
            for (theirs, distance) in case[key].as_array().unwrap().iter().zip(first..) {
                let ours = i64::from(places.bucket(distance));
                assert_eq!(Some(ours), theirs.as_i64(), "{places:?} at {distance}");
            }
        }
    }
}

#[test]
fn adapters_are_beside_the_layers_that_peft_names() {
    let device = Default::default();
    let cases = [
        (
            "bart-1",
            "model.decoder.layers.1.encoder_attn.v_proj.lora_A.weight",
            6,
        ),
        (
            "marian-2",
            "model.encoder.layers.0.self_attn.q_proj.lora_B.weight",
            7,
        ),
        (
            "t5-1",
            "decoder.block.1.layer.1.EncDecAttention.q.lora_A.weight",
            7,
        ),
    ];
    for (name, one, attentions) in cases {
        let config = open(&format!("seq2seq/{name}")).seq2seq_config().unwrap();
        let names = config.names(HeadKind::Tokens);
        let targets = names.family.adapter_targets.iter();
        let adapter = Adapter::LowRank(LowRankPlan {
            rank: 2,
            alpha: 4.0,
            dropout: 0.0,
            rslora: false,
            dora: false,
            targets: targets.map(|name| Target::parse(name).unwrap()).collect(),
        });
        let draw = Draw::<Flex>::new(&device, 0.02).with_adapter(Some(&adapter), names);
        let all = golden::parameters(&Seq2SeqModel::draw(&config, &draw), names);
        let adapters: Vec<_> = all.keys().filter(|name| name.contains(".lora_")).collect();
        assert!(adapters.contains(&&one.to_string()), "{adapters:?}");
        // Two matrices for queries and two for values.
        assert_eq!(adapters.len(), 4 * attentions, "{name}: {adapters:?}");
    }
}

#[test]
fn layers_of_a_file_without_a_place_are_named() {
    let device = Default::default();
    for (name, key, tensors) in [
        ("bart-1", "encoder_layers", "model.encoder.layers.1."),
        ("t5-1", "num_decoder_layers", "decoder.block.1."),
    ] {
        let fewer = |json: &mut Value| json[key] = json!(1);
        let (_kept, bundle) = changed(&format!("seq2seq/{name}"), fewer, |_| ());
        let bundle = bundle.unwrap();
        let names = bundle.require(HeadKind::Tokens).unwrap();
        let config = bundle.seq2seq_config().unwrap();
        let fresh = Seq2SeqModel::<Flex>::draw(&config, &Draw::new(&device, 0.02));
        let (_, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
        let lost = loaded.lost(names).unwrap();
        assert!(lost.contains(tensors), "{lost}");
    }
}

/// Without a head, and with the names of the model that has none.
#[test]
fn a_bare_backbone_is_read_too() {
    for name in ["bart-1", "marian-1", "marian-2", "t5-1"] {
        let folder = format!("seq2seq/{name}");
        let bare = |tensors: &mut Tensors| {
            tensors.remove("final_logits_bias");
            let all = std::mem::take(tensors).into_iter();
            let strip = |name: String| name.strip_prefix("model.").map_or(name.clone(), Into::into);
            *tensors = all.map(|(name, values)| (strip(name), values)).collect();
        };
        let (_kept, bundle) = changed(&folder, |_| (), bare);
        let bundle = bundle.unwrap();
        let no_bias = |tensors: &mut Tensors| drop(tensors.remove("final_logits_bias"));
        let (_also, whole) = changed(&folder, |_| (), no_bias);
        assert_eq!(logits(&folder, &bundle), logits(&folder, &whole.unwrap()));
        let names = bundle.require(HeadKind::Bare).unwrap();
        let device = Default::default();
        let fresh = bundle
            .seq2seq_config()
            .unwrap()
            .init(&Draw::new(&device, 0.02));
        let (backbone, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
        assert_eq!(loaded, Loaded::default(), "{name}");
        let theirs = golden::tensors(&fs::read(bundle.path().join(bundle::WEIGHTS)).unwrap());
        assert_eq!(
            golden::parameters::<Flex, _>(&backbone, names),
            theirs,
            "{name}"
        );
    }
}

#[test]
fn the_decoder_reads_what_is_to_be_written_shifted() {
    for folder in all() {
        let golden = expected(&folder);
        let plan = open(&folder).seq2seq_config().unwrap().describe();
        let rows = |name: &str| -> Vec<Vec<i32>> {
            let (shape, values) = &golden[name];
            let rows = values.chunks(shape[1]);
            rows.map(|row| row.iter().map(|&id| id as i32).collect())
                .collect()
        };
        assert_eq!(
            shift_right(&rows("labels"), &plan),
            rows("decoder_input_ids"),
            "{folder}"
        );
    }
    let plan = open("seq2seq/bart-1").seq2seq_config().unwrap().describe();
    assert_eq!(shift_right(&[vec![]], &plan), [vec![2]]);
}

#[test]
fn a_model_that_is_written_and_opened_again_is_the_same() {
    let device = Default::default();
    for folder in all() {
        let at = tempfile::tempdir().unwrap();
        let at = at.path().join("bundle");
        let bundle = open(&folder);
        let config = bundle.seq2seq_config().unwrap();
        let (model, names) = model::<Flex>(&bundle, &device);
        let json = bundle::config_json(names, &config, None);
        bundle::write(&at, &json, &model, names, Precision::F32, &[]).unwrap();
        let again = Bundle::open(&at).unwrap();
        assert_eq!(again.seq2seq_config().unwrap(), config);
        assert_keys_are_those_of_transformers(&folder, &at);
        let file = golden::tensors(&fs::read(at.join(bundle::WEIGHTS)).unwrap());
        let original = golden::golden(&format!("{folder}/model.safetensors"));
        assert_eq!(file, original, "{folder}");
    }
}

/// What is written of `config.json` is what `transformers` wrote of it.
fn assert_keys_are_those_of_transformers(folder: &str, written: &Path) {
    let read = |folder: &Path| -> Value {
        let bytes = fs::read(folder.join(bundle::CONFIG)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let theirs = read(&golden::path(folder));
    for (key, value) in read(written).as_object().unwrap() {
        // transformers says true of every T5; `a_t5_is_tied_as_its_weights_are` has more.
        if !(key == "tie_word_embeddings" && folder.contains("t5-2")) {
            assert_eq!(Some(value), theirs.get(key), "{key} of {folder}");
        }
    }
}

/// A copy of a golden model with another `config.json` and other tensors.
fn changed(
    folder: &str,
    config: impl FnOnce(&mut Value),
    tensors: impl FnOnce(&mut Tensors),
) -> (tempfile::TempDir, Result<Bundle, bundle::BundleError>) {
    let temporary = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(golden::path(folder).join(bundle::CONFIG)).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    config(&mut json);
    let mut all = golden::golden(&format!("{folder}/model.safetensors"));
    tensors(&mut all);
    fs::write(temporary.path().join(bundle::CONFIG), json.to_string()).unwrap();
    let file = crate::directories::file(&all, safetensors::Dtype::F32);
    fs::write(temporary.path().join(bundle::WEIGHTS), file).unwrap();
    let bundle = Bundle::open(temporary.path());
    (temporary, bundle)
}

/// What is said of a `config.json` that can't be used.
fn refusal(folder: &str, key: &str, value: Value) -> String {
    let (_kept, bundle) = changed(folder, |json| json[key] = value, |_| ());
    let error = bundle.and_then(|bundle| bundle.seq2seq_config().map(drop));
    let text = error.unwrap_err().to_string();
    let (_, reason) = text.split_once("config.json: ").unwrap();
    reason.into()
}

#[test]
fn impossible_configurations_are_refused_in_a_sentence() {
    let cases = [
        (
            "bart-1",
            "normalize_before",
            json!(true),
            "normalize_before is true; only false is implemented",
        ),
        (
            "bart-1",
            "add_final_layer_norm",
            json!(true),
            "add_final_layer_norm is true; only false is implemented",
        ),
        (
            "bart-1",
            "normalize_embedding",
            json!(false),
            "normalize_embedding is false; only true is implemented",
        ),
        (
            "bart-1",
            "encoder_layerdrop",
            json!(0.1),
            "encoder_layerdrop is 0.1; only 0 is implemented",
        ),
        (
            "bart-1",
            "tie_word_embeddings",
            json!(false),
            "tie_word_embeddings is false; only true is implemented",
        ),
        (
            "bart-1",
            "decoder_attention_heads",
            json!(5),
            "5 attention heads do not divide a width of 12",
        ),
        ("bart-1", "encoder_layers", json!(0), "encoder_layers is 0"),
        (
            "bart-1",
            "dropout",
            json!(1.0),
            "dropout is 1; it must be at least 0 and below 1",
        ),
        (
            "bart-1",
            "init_std",
            json!(-1.0),
            "init_std is -1; it must be 0 or more",
        ),
        (
            "bart-1",
            "pad_token_id",
            json!(37),
            "pad_token_id is 37, which is outside the 37 tokens",
        ),
        (
            "bart-1",
            "is_encoder_decoder",
            json!(false),
            "is_encoder_decoder is false; only true is implemented",
        ),
        (
            "marian-1",
            "decoder_vocab_size",
            json!(31),
            "vocab_size is 37 and decoder_vocab_size 31; a shared table needs one size",
        ),
        (
            "marian-1",
            "normalize_embedding",
            json!(true),
            "normalize_embedding is true; only false is implemented",
        ),
        (
            "marian-1",
            "static_position_embeddings",
            json!(false),
            "static_position_embeddings is false; only true is implemented",
        ),
        (
            "marian-2",
            "decoder_start_token_id",
            json!(50),
            "decoder_start_token_id is 50, which is outside the 43 tokens",
        ),
        (
            "marian-1",
            "tie_word_embeddings",
            json!(false),
            "tie_word_embeddings is false; with a shared token table only true is implemented",
        ),
        ("t5-1", "num_heads", json!(0), "num_heads is 0"),
        (
            "t5-1",
            "relative_attention_num_buckets",
            json!(3),
            "relative_attention_num_buckets is 3; it must be at least 4",
        ),
        (
            "t5-1",
            "relative_attention_max_distance",
            json!(4),
            "relative_attention_max_distance is 4; it must be above half of the 8 buckets",
        ),
        (
            "t5-1",
            "layer_norm_epsilon",
            json!(0.0),
            "layer_norm_epsilon is 0; it must be above 0",
        ),
        (
            "t5-1",
            "initializer_factor",
            json!(-1.0),
            "initializer_factor is -1; it must be 0 or more",
        ),
        (
            "t5-1",
            "decoder_start_token_id",
            json!(99),
            "decoder_start_token_id is 99, which is outside the 37 tokens",
        ),
        (
            "t5-1",
            "is_decoder",
            json!(true),
            "is_decoder is true; only false is implemented",
        ),
    ];
    for (name, key, value, sentence) in cases {
        assert_eq!(refusal(&format!("seq2seq/{name}"), key, value), sentence);
    }
    let unknown = refusal("seq2seq/bart-1", "activation_function", json!("softsign"));
    assert!(unknown.starts_with("activation_function: "), "{unknown}");
    let unknown = refusal("seq2seq/t5-1", "feed_forward_proj", json!("gated-softsign"));
    assert!(unknown.starts_with("feed_forward_proj: "), "{unknown}");
}

#[test]
fn another_kind_of_model_is_refused_by_name() {
    let wrong = |error: bundle::BundleError| {
        let text = error.to_string();
        text[text.find(": ").unwrap() + 2..].to_string()
    };
    let bundle = open("seq2seq/marian-1");
    assert!(bundle.is_text());
    assert_eq!(
        wrong(bundle.text_config().unwrap_err()),
        "holds an encoder-decoder of type marian, and a text model is needed here"
    );
    assert_eq!(
        wrong(bundle.image_config().unwrap_err()),
        "holds an encoder-decoder of type marian, and an image model is needed here"
    );
    let decoder = open("families/gpt2-causal-lm-1");
    assert_eq!(
        wrong(decoder.seq2seq_config().unwrap_err()),
        "holds a model of type gpt2, and an encoder-decoder is needed here"
    );
    let classes = bundle.require(HeadKind::Classes).unwrap_err();
    assert_eq!(
        wrong(classes),
        "holds a model of type marian, and a classifier is needed here"
    );
}

/// Logits of the golden batch.
fn logits(folder: &str, bundle: &Bundle) -> Values {
    let (device, golden) = (Default::default(), expected(folder));
    let names = bundle.require(HeadKind::Tokens).unwrap();
    let fresh = Seq2SeqModel::draw(&bundle.seq2seq_config().unwrap(), &Draw::new(&device, 0.02));
    let (model, loaded) = bundle.load(fresh, names, Load::Whole).unwrap();
    assert_eq!(loaded.unused, [""; 0], "{folder}");
    let input = golden::input::<Flex>(&golden, &device);
    let decoder = golden::ints(&golden["decoder_input_ids"], &device);
    golden::values(model.logits(&input, decoder, None))
}

/// Older files hold a shared table under each of its names, and what is computed here.
#[test]
fn older_files_are_read_too() {
    for name in ["bart-1", "marian-1"] {
        let folder = format!("seq2seq/{name}");
        let copies = |tensors: &mut Tensors| {
            let table = tensors["model.shared.weight"].clone();
            for name in [
                "lm_head.weight",
                "model.encoder.embed_tokens.weight",
                "model.decoder.embed_tokens.weight",
            ] {
                tensors.insert(name.into(), table.clone());
            }
            if name == "marian-1" {
                let positions = (vec![41, 12], vec![0.5; 41 * 12]);
                tensors.insert("model.encoder.embed_positions.weight".into(), positions);
            }
        };
        let (_kept, bundle) = changed(&folder, |_| (), copies);
        assert_eq!(
            logits(&folder, &bundle.unwrap()),
            logits(&folder, &open(&folder))
        );
        for other in ["lm_head.weight", "model.decoder.embed_tokens.weight"] {
            let renamed = |tensors: &mut Tensors| {
                let table = tensors.remove("model.shared.weight").unwrap();
                tensors.insert(other.into(), table);
            };
            let (_kept, bundle) = changed(&folder, |_| (), renamed);
            assert_eq!(
                logits(&folder, &bundle.unwrap()),
                logits(&folder, &open(&folder))
            );
        }
        let differs = |tensors: &mut Tensors| {
            let mut table = tensors["model.shared.weight"].clone();
            table.1[3] += 1.0;
            tensors.insert("lm_head.weight".into(), table);
        };
        let (_kept, bundle) = changed(&folder, |_| (), differs);
        let bundle = bundle.unwrap();
        let config = bundle.seq2seq_config().unwrap();
        let fresh = Seq2SeqModel::<Flex>::draw(&config, &Draw::new(&Default::default(), 0.02));
        let names = bundle.require(HeadKind::Tokens).unwrap();
        let error = bundle
            .load(fresh, names, Load::Whole)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("lm_head.weight differs from model.shared.weight"),
            "{error}"
        );
    }
}

#[test]
fn a_bias_of_words_that_is_missing_is_zero() {
    let folder = "seq2seq/bart-1";
    let zeros = |tensors: &mut Tensors| {
        tensors.get_mut("final_logits_bias").unwrap().1.fill(0.0);
    };
    let (_kept, zero) = changed(folder, |_| (), zeros);
    let none = |tensors: &mut Tensors| drop(tensors.remove("final_logits_bias"));
    let (_also, missing) = changed(folder, |_| (), none);
    assert_eq!(
        logits(folder, &missing.unwrap()),
        logits(folder, &zero.unwrap())
    );
}

#[test]
fn a_head_of_its_own_is_computed() {
    let folder = "seq2seq/marian-2";
    let untied = |tensors: &mut Tensors| {
        let (shape, values) = tensors["model.decoder.embed_tokens.weight"].clone();
        let twice = values.iter().map(|value| 2.0 * value).collect();
        tensors.insert("lm_head.weight".into(), (shape, twice));
        tensors.get_mut("final_logits_bias").unwrap().1.fill(0.0);
    };
    let (_kept, bundle) = changed(
        folder,
        |json| json["tie_word_embeddings"] = json!(false),
        untied,
    );
    let zeros = |tensors: &mut Tensors| {
        tensors.get_mut("final_logits_bias").unwrap().1.fill(0.0);
    };
    let (_also, tied) = changed(folder, |_| (), zeros);
    let (shape, values) = logits(folder, &tied.unwrap());
    let twice = (shape, values.iter().map(|value| 2.0 * value).collect());
    assert_near(folder, &logits(folder, &bundle.unwrap()), &twice, 1e-5);
}

/// Version 1.1 says `tie_word_embeddings: false`, and `transformers` 5 true of every T5; the matrix for words decides.
#[test]
fn a_t5_is_tied_as_its_weights_are() {
    for (name, own, scaled) in [
        ("t5-1", false, true),
        ("t5-2", true, false),
        ("t5-3", false, false),
    ] {
        let folder = format!("seq2seq/{name}");
        let plan = open(&folder).seq2seq_config().unwrap().describe();
        let scale = 1.0 / (plan.d_model as f64).sqrt();
        assert_eq!(plan.tied, !own, "{name}");
        assert!((plan.scale - if scaled { scale } else { 1.0 }).abs() < 1e-12);
        let as_published = |json: &mut Value| {
            let json = json.as_object_mut().unwrap();
            json.remove("scale_decoder_outputs");
            json.insert("tie_word_embeddings".into(), json!(scaled));
        };
        let with_positions = |tensors: &mut Tensors| {
            let unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
            tensors.insert(unused.into(), (vec![2, 2], vec![1.0; 4]));
            let table = tensors["shared.weight"].clone();
            tensors.insert("encoder.embed_tokens.weight".into(), table.clone());
            tensors.entry("lm_head.weight".into()).or_insert(table);
        };
        let (_kept, bundle) = changed(&folder, as_published, with_positions);
        let bundle = bundle.unwrap();
        assert_eq!(
            bundle.seq2seq_config().unwrap().describe().scale,
            plan.scale
        );
        assert_eq!(logits(&folder, &bundle), logits(&folder, &open(&folder)));
    }
}

#[test]
fn keys_that_are_left_out_mean_what_transformers_takes_them_for() {
    let without = |json: &mut Value| {
        let keys = [
            "pad_token_id",
            "decoder_start_token_id",
            "eos_token_id",
            "forced_eos_token_id",
            "activation_function",
            "tie_word_embeddings",
            "model_type",
        ];
        for key in keys {
            json.as_object_mut().unwrap().remove(key);
        }
        json["vocab_size"] = json!(58101);
        if json.get("decoder_vocab_size").is_some() {
            json["decoder_vocab_size"] = json!(58101);
        }
    };
    for (name, [pad, start, eos]) in [("bart-1", [1, 2, 2]), ("marian-1", [58100, 58100, 0])] {
        let (_kept, bundle) = changed(&format!("seq2seq/{name}"), without, |_| ());
        let plan = bundle.unwrap().seq2seq_config().unwrap().describe();
        let found = ([plan.pad, plan.start], plan.eos, plan.forced_eos);
        assert_eq!(found, ([pad, start], vec![eos], vec![eos]), "{name}");
        assert!(plan.tied);
    }
    let null = |json: &mut Value| json["forced_eos_token_id"] = Value::Null;
    let (_kept, bundle) = changed("seq2seq/bart-1", null, |_| ());
    let plan = bundle.unwrap().seq2seq_config().unwrap().describe();
    assert_eq!(plan.forced_eos, [0; 0]);
}

#[test]
fn a_new_model_is_fitted_to_its_tokenizer() {
    let device = Default::default();
    for folder in all() {
        let mut config = open(&folder).seq2seq_config().unwrap();
        let tokens = Seq2SeqTokens {
            pad: 3,
            start: 4,
            eos: 5,
        };
        config.set_vocabulary(70, tokens);
        config.set_dropout(0.1);
        config.check().unwrap();
        let plan = config.describe();
        assert_eq!(([plan.pad, plan.start], plan.eos), ([3, 4], vec![5]));
        assert_eq!([plan.vocab_size, plan.target_vocab_size], [70, 70]);
        let model = Seq2SeqModel::<Flex>::draw(&config, &Draw::new(&device, 0.02));
        let exact = model.num_params() as f64;
        let rough = plan.parameters;
        // Biases and norms are counted roughly.
        let layers = (plan.layers[0] + plan.layers[1]) as f64;
        assert!(
            (rough - exact).abs() < 1000.0 * layers,
            "{folder}: {rough}, {exact}"
        );
        let again: Seq2SeqConfig = serde_json::from_value(json!(config)).unwrap();
        assert_eq!(again, config);
    }
}

#[test]
fn a_search_is_read_from_its_file() {
    for folder in all() {
        let bundle = open(&folder);
        let plan = bundle.seq2seq_config().unwrap().describe();
        let summariser = cases(&folder, &plan).swap_remove(11).search;
        let read = Search::of(&bundle, &plan).unwrap();
        assert_eq!(read, summariser, "{folder}");
        let at = tempfile::tempdir().unwrap();
        for name in [bundle::CONFIG, bundle::WEIGHTS] {
            fs::copy(golden::path(&folder).join(name), at.path().join(name)).unwrap();
        }
        let json = read.json(&plan);
        fs::write(at.path().join(bundle::GENERATION), json.to_string()).unwrap();
        let again = Bundle::open(at.path()).unwrap();
        assert_eq!(Search::of(&again, &plan).unwrap(), read, "{folder}");
        fs::remove_file(at.path().join(bundle::GENERATION)).unwrap();
        let plain = Search {
            forced_eos_token_id: plan.forced_eos.clone(),
            ..Search::new(&plan)
        };
        assert_eq!(Search::of(&again, &plan).unwrap(), plain, "{folder}");
        assert_eq!(plain.max_length, 21);
    }
}

#[test]
fn searches_that_are_impossible_are_refused_in_a_sentence() {
    let said = |settings: Value| {
        let set = |json: &mut Value| {
            let json = json.as_object_mut().unwrap();
            json.extend(settings.as_object().unwrap().clone());
        };
        // Without a file of its own the configuration says how to search.
        let (_kept, bundle) = changed("seq2seq/bart-1", set, |_| ());
        let bundle = bundle.unwrap();
        let plan = bundle.seq2seq_config().unwrap().describe();
        Search::of(&bundle, &plan).map_err(|error| {
            let text = error.to_string();
            text.split_once("config.json: ").unwrap().1.to_string()
        })
    };
    let search = said(
        json!({"num_beams": 4, "max_new_tokens": 9, "min_new_tokens": 2, "num_beam_groups": 1}),
    )
    .unwrap();
    assert_eq!(
        [search.num_beams, search.max_length, search.min_length],
        [4, 10, 3]
    );
    let refused = [
        (
            json!({"num_beams": 0}),
            "num_beams is 0; it must be at least 1",
        ),
        (
            json!({"num_beams": 2, "num_return_sequences": 3}),
            "num_return_sequences is 3; it must be from 1 to the 2 of num_beams",
        ),
        (
            json!({"max_length": 60}),
            "max_length is 60; it must be at least 2 and at most 42 with the model's positions",
        ),
        (
            json!({"max_length": 1}),
            "max_length is 1; it must be at least 2 and at most 42 with the model's positions",
        ),
        (
            json!({"repetition_penalty": 0.0}),
            "repetition_penalty is 0; it must be above 0",
        ),
        (
            json!({"bad_words_ids": [[]]}),
            "bad_words_ids holds an empty sequence",
        ),
        (
            json!({"forced_bos_token_id": 37}),
            "token 37 is outside the 37 tokens",
        ),
        (
            json!({"early_stopping": "soon"}),
            "early_stopping is \"soon\"; it must be true, false or \"never\"",
        ),
        (
            json!({"encoder_no_repeat_ngram_size": 3}),
            "encoder_no_repeat_ngram_size is 3; only 0 is implemented",
        ),
        (
            json!({"num_beam_groups": 2}),
            "num_beam_groups is 2; only 1 is implemented",
        ),
    ];
    for (settings, sentence) in refused {
        assert_eq!(said(settings).unwrap_err(), sentence);
    }
}
