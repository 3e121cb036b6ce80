//! States that go on from batch to batch: what a recurrent model makes of a stream in parts.

use burn::backend::{Autodiff, Flex, NdArray};
use burn::module::AutodiffModule;
use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::backend::AutodiffBackend;
use model::layers::batch_norm::{collect, commit};
use model::layers::{Draw, materialise};
use model::registry::TextBackbone;
use model::{TextConfig, TokenModel};
use serde_json::json;
use train::job::text::{NextTokenBatch, TokenBatch};
use train::objectives::carried::Carried;
use train::objectives::class_loss::ClassLoss;
use train::objectives::tokens::NextTokenPrediction;
use train::recipe::ComputePrecision;
use train::{Objective, Tally, Trainee};

const FAMILIES: [&str; 2] = ["hearth_lstm", "hearth_gru"];
const VOCABULARY: usize = 12;
const WIDTH: usize = 6;
/// The first four tokens of each are none of the others.
const STREAMS: [[u32; 9]; 2] = [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 10, 5, 4, 7, 6, 8]];

fn objective<B: Backend>(family: &str) -> NextTokenPrediction<B> {
    let config = json!({
        "model_type": family,
        "vocab_size": VOCABULARY,
        "embedding_size": WIDTH,
        "hidden_size": 5,
        "num_hidden_layers": 2,
        "initializer_range": 0.5,
    });
    let config: TextConfig = serde_json::from_value(config).unwrap();
    let device = Default::default();
    let model = materialise(TokenModel::draw(&config, &Draw::new(&device, 0.5)));
    let [layers, width] = config.states().unwrap();
    let carried = Carried::new([layers, 2, width], &device);
    NextTokenPrediction::new(model, ClassLoss::default()).carrying(Some(carried))
}

/// Tokens `from..to` of each stream are read, and those behind them predicted.
fn batch(from: usize, to: usize, goes_on: bool) -> NextTokenBatch {
    let targets = STREAMS.iter().flat_map(|stream| &stream[from + 1..=to]);
    NextTokenBatch {
        inputs: TokenBatch::pad(STREAMS.iter().map(|stream| &stream[from..to]), 0),
        at: (0..2 * (to - from) as i32).collect(),
        targets: targets.copied().collect(),
        bytes: 0,
        goes_on,
    }
}

/// The objective after a step that changed no weight.
fn after<B: AutodiffBackend>(
    objective: &NextTokenPrediction<B>,
    batch: &NextTokenBatch,
) -> NextTokenPrediction<B> {
    let (_, proposals) = collect(|| objective.loss(batch, &Default::default()));
    assert_eq!(proposals.len(), 1);
    commit(objective.clone(), &proposals, None)
}

fn loss<B: Backend>(objective: &NextTokenPrediction<B>, batch: &NextTokenBatch) -> f64 {
    objective.loss(batch, &Default::default()).mean_loss()
}

fn goes_on_as_if_it_were_one<B: AutodiffBackend>() {
    for family in FAMILIES {
        let device = Default::default();
        let objective = objective::<B>(family);
        let whole = batch(0, 8, false);
        let logits = objective
            .model
            .logits(&whole.inputs.input(&device), None, None);
        let expected = logits.reshape([2, 8, VOCABULARY]).narrow(1, 4, 4);
        let later = after(&objective, &batch(0, 4, false));
        let second = batch(4, 8, true);
        let mut cache = later.carried.as_ref().unwrap().cache(true);
        let logits = later
            .model
            .logits(&second.inputs.input(&device), None, Some(&mut cache));
        let off = (logits.reshape([2, 4, VOCABULARY]) - expected).abs().max();
        let off: f32 = off.into_scalar().elem();
        assert!(off < 1e-5, "{family}: {off}");
        let halves = loss(&objective, &batch(0, 4, false)) + loss(&later, &second);
        let off = (halves / 2.0 - loss(&objective, &whole)).abs();
        assert!(off < 1e-5, "{family}: {off}");
    }
}

#[test]
fn a_stream_in_two_batches_is_the_stream_in_one() {
    goes_on_as_if_it_were_one::<Autodiff<Flex>>();
    goes_on_as_if_it_were_one::<Autodiff<NdArray>>();
}

fn stops_where_the_batch_begins<B: AutodiffBackend>() {
    for family in FAMILIES {
        let later = after(&objective::<B>(family), &batch(0, 4, false));
        let sums = later.loss(&batch(4, 8, true), &Default::default());
        let gradients = sums.loss.backward();
        let (TextBackbone::Lstm(model) | TextBackbone::Gru(model)) = &later.model.backbone else {
            unreachable!("a recurrent family")
        };
        let of_table = model.embed_tokens.weight.val().grad(&gradients).unwrap();
        let of_table: Vec<f32> = of_table.into_data().iter().collect();
        for (token, row) in of_table.chunks(WIDTH).enumerate() {
            let is_read = (4..8).contains(&token);
            let is_learned = row.iter().any(|value| *value != 0.0);
            assert_eq!(is_learned, is_read, "{family}: token {token}");
        }
        let states = later.carried.unwrap().states;
        assert!(!states.is_require_grad() && states.val().grad(&gradients).is_none());
    }
}

#[test]
fn no_gradient_flows_into_the_batch_before() {
    stops_where_the_batch_begins::<Autodiff<Flex>>();
    stops_where_the_batch_begins::<Autodiff<NdArray>>();
}

type B = Autodiff<Flex>;

#[test]
fn what_begins_has_no_states_and_what_is_emptied_has_zeros() {
    for family in FAMILIES {
        let first = objective::<B>(family);
        let later = after(&first, &batch(0, 4, false));
        let (begins, goes_on) = (batch(4, 8, false), batch(4, 8, true));
        assert_eq!(loss(&later, &begins), loss(&first, &begins));
        assert_ne!(loss(&later, &goes_on), loss(&first, &begins));
        assert_eq!(Objective::carried(&later), Objective::carried(&first));
        let emptied = later.emptied().unwrap();
        assert_eq!(Objective::carried(&emptied), Objective::carried(&first));
        assert_eq!(loss(&emptied, &goes_on), loss(&first, &begins));
        assert!(!emptied.carried.unwrap().states.is_require_grad());
    }
}

#[test]
fn a_split_is_judged_in_one_go_and_begins_anew_each_time() {
    for family in FAMILIES {
        let later = after(&objective::<B>(family), &batch(4, 8, false)).valid();
        let device = Default::default();
        let judge = || {
            let mut left = None;
            let parts = [batch(0, 4, false), batch(4, 8, true)];
            parts.map(|part| later.evaluate_next(&part, &device, &mut left))
        };
        let [mut parts, second] = judge();
        parts.merge(second);
        let whole = later.evaluate(&batch(0, 8, false), &device);
        let off = parts.metrics()["loss"] - whole.metrics()["loss"];
        assert!(off.abs() < 1e-5, "{family}: {off}");
        let [mut again, second] = judge();
        again.merge(second);
        assert_eq!(again, parts);
    }
}

#[test]
fn a_lower_precision_keeps_states_in_full() {
    for family in FAMILIES {
        let trainee = Trainee::new(objective::<B>(family), ComputePrecision::Bf16);
        let pass = trainee.pass(&batch(0, 4, false), &[]);
        let later = commit(trainee.clone(), &pass.proposals, None);
        let states = later.objective.carried.as_ref().unwrap().states.val();
        assert_eq!(states.dtype(), DType::F32);
        assert!(states.abs().max().into_scalar() > 0.0);
        let pass = later.pass(&batch(4, 8, true), &[]);
        assert!(pass.sums.mean_loss().is_finite());
    }
}
