//! Models whose weights are held in 16 bits against the same weights in f32: scores, and the texts that they write.

use burn::backend::Flex;
use burn::module::Module;
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use model::beam::{self, Search};
use model::bundle::{self, Load, Precision};
use model::generate::{Continuation, Sampling};
use model::{Bundle, Draw, HeadKind, Names, Seq2SeqModel, TokenInput, TokenModel, walk};
use tempfile::TempDir;

use crate::golden::{self, assert_near, values};

/// f32 sums of at most 80 products in another order; a recurrent state carries on the rounding of every token before it.
const TOLERANCE: f32 = 1e-4;

const DECODERS: [&str; 5] = ["gpt2", "llama", "qwen2", "hearth_lstm", "hearth_gru"];
const ENCODERS: [&str; 4] = ["bert", "roberta", "distilbert", "electra"];

/// Matrices that are read in other ways than by products and by tokens.
const OTHERS: [&str; 7] = [
    "wpe",
    "position",
    "token_type",
    "rnn.weight_",
    "relative_attention_bias",
    "final_logits_bias",
    "embed_tokens",
];

/// A golden model whose weights are rounded to 16 bits, in f32 and in 16.
fn both<M: Module<Flex>>(
    bundle: &Bundle,
    draw: impl Fn() -> M,
    precision: Precision,
) -> (Names, [M; 2]) {
    let names = bundle.require(HeadKind::Tokens).unwrap();
    let (model, _) = bundle.load(draw(), names, Load::Whole).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model");
    bundle::write(&path, bundle.raw_config(), &model, names, precision, &[]).unwrap();
    let saved = Bundle::open(&path).unwrap();
    let (whole, loaded) = saved.load(draw(), names, Load::Whole).unwrap();
    let (narrow, same) = saved
        .load_for_inference(draw(), names, Load::Whole)
        .unwrap();
    assert_eq!(loaded, same);
    (names, [whole, narrow])
}

/// Whether a parameter is held in 16 bits, by name; matrices alone.
fn held<M: Module<Flex>>(model: &M, names: Names) -> Vec<(String, bool)> {
    let mut held = Vec::new();
    walk::values(model, names, &mut |path, data| {
        let is_half = matches!(data.dtype, DType::F16 | DType::BF16);
        if data.shape.len() == 2 {
            held.push((path.name(), is_half));
        } else {
            assert!(!is_half, "{}", path.name());
        }
    });
    held
}

/// The token table and all matrices of linear layers are; without operations of our own none is.
fn assert_held<M: Module<Flex>>(what: &str, model: &M, names: Names, table: &str) {
    for (name, is_half) in held(model, names) {
        let is_other = OTHERS.iter().any(|other| name.contains(other)) && !name.ends_with(table);
        let expected = cfg!(feature = "flex") && !is_other;
        assert_eq!(is_half, expected, "{name} of {what}");
    }
}

fn tokens([batch, seq]: [usize; 2]) -> Tensor<Flex, 2, Int> {
    let ids: Vec<i32> = (0..batch * seq).map(|i| (i as i32 * 11 + 5) % 35).collect();
    Tensor::from_data(TensorData::new(ids, [batch, seq]), &Default::default())
}

#[test]
fn language_models_score_and_continue_as_in_f32() {
    for family in DECODERS.into_iter().chain(ENCODERS) {
        for (number, precision) in [
            (1, Precision::F16),
            (1, Precision::Bf16),
            (2, Precision::F16),
            (3, Precision::Bf16),
        ] {
            let causal = DECODERS.contains(&family);
            let kind = if causal { "causal-lm" } else { "masked-lm" };
            let folder = format!("families/{family}-{kind}-{number}");
            let bundle = Bundle::open(&golden::path(&folder)).unwrap();
            let config = bundle.text_config().unwrap();
            let device = Default::default();
            let draw = || TokenModel::<Flex>::draw(&config, &Draw::new(&device, 0.02));
            let (names, models) = both(&bundle, draw, precision);
            assert_held(&folder, &models[1], names, names.family.token_table);
            // Few rows and many.
            for shape in [[1, 1], [1, 5], [2, 7]] {
                let input = TokenInput::new(tokens(shape));
                let [whole, narrow] = models
                    .each_ref()
                    .map(|model| values(model.logits(&input, None, None)));
                assert_near(&folder, &narrow, &whole, TOLERANCE);
            }
            if causal {
                let layers = config.describe().layers;
                let [whole, narrow] = models.each_ref().map(|model| continued(model, layers));
                assert_eq!(narrow, whole, "{folder}");
            }
        }
    }
}

/// Tokens of a greedy continuation.
fn continued(model: &TokenModel<Flex>, layers: usize) -> Vec<u32> {
    let device = Default::default();
    let prompt = (0..12).map(|i| i * 7 % 35).collect();
    let mut text = Continuation::new(model, prompt, Some(layers), &device);
    for _ in 0..16 {
        let logits = text.logits();
        let token = Sampling::GREEDY.choose(&logits, text.tokens(), 0.5);
        text.push(token);
    }
    text.tokens().to_vec()
}

#[test]
fn encoder_decoders_score_and_write_as_in_f32() {
    for family in ["bart", "marian", "t5"] {
        for (number, precision) in [
            (1, Precision::F16),
            (2, Precision::Bf16),
            (3, Precision::F16),
        ] {
            let folder = format!("seq2seq/{family}-{number}");
            let bundle = Bundle::open(&golden::path(&folder)).unwrap();
            let config = bundle.seq2seq_config().unwrap();
            let plan = config.describe();
            let device = Default::default();
            let draw = || Seq2SeqModel::<Flex>::draw(&config, &Draw::new(&device, 0.02));
            let (names, models) = both(&bundle, draw, precision);
            assert_held(&folder, &models[1], names, names.family.token_table);
            let input = TokenInput::new(tokens([2, 6]));
            let search = Search {
                num_beams: 2,
                max_length: 10,
                ..Search::new(&plan)
            };
            let outputs = models.each_ref().map(|model| {
                let logits = values(model.logits(&input, tokens([2, 5]), None));
                let written = beam::generate(model, &input, &search, Some(plan.layers[1]));
                let written = written.into_iter().flatten().map(|text| text.tokens);
                (logits, written.collect::<Vec<_>>())
            });
            let [whole, narrow] = outputs;
            assert_near(&folder, &narrow.0, &whole.0, TOLERANCE);
            assert_eq!(narrow.1, whole.1, "{folder}");
        }
    }
}

#[test]
fn weights_that_16_bits_do_not_hold_stay_as_they_are() {
    let bundle = Bundle::open(&golden::path("families/llama-causal-lm-1")).unwrap();
    let names = bundle.require(HeadKind::Tokens).unwrap();
    let config = bundle.text_config().unwrap();
    let device = Default::default();
    let draw = || TokenModel::<Flex>::draw(&config, &Draw::new(&device, 0.02));
    let (whole, _) = bundle.load(draw(), names, Load::Whole).unwrap();
    let (same, _) = bundle
        .load_for_inference(draw(), names, Load::Whole)
        .unwrap();
    assert!(held(&same, names).iter().all(|(_, is_half)| !is_half));
    let logits = |model: &TokenModel<Flex>| {
        let input = TokenInput::new(tokens([1, 9]));
        values(model.logits(&input, None, None))
    };
    assert_eq!(logits(&same), logits(&whole));
}
