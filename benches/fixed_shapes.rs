//! Trains a model on random tokens of one shape, all positions projected onto the whole vocabulary: what
//! `benches/torch/fixed_shapes.py` does in PyTorch, and of recurrent models `benches/torch/lstm.py`. Prints one line of JSON.
//!
//!     cargo bench -p pretrain --bench fixed_shapes -- --size mini

use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::optim::{GradientsParams, Optimizer as _};
use burn::prelude::*;
use burn::tensor::TensorData;
use clap::{Parser, ValueEnum};
use model::families::bert::BertConfig;
use model::families::gpt2::Gpt2Config;
use model::families::gru::GruConfig;
use model::families::lstm::LstmConfig;
use model::registry::TextBackbone;
use model::{Draw, HeadKind, TextConfig, TokenInput, TokenModel, ops};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use train::optim::optimizer::{Optimizer, OptimizerRecipe};

/// That of the programs.
#[global_allocator]
static ALLOCATOR: train::memory::Allocator = train::memory::Allocator;

type B = Autodiff<Flex>;

/// A step of a language model at a fixed shape.
#[derive(Parser)]
struct Arguments {
    /// Which model and shape
    #[arg(long, default_value = "mini")]
    size: Size,
    /// Steps, the warm-up among them
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// First steps that are not timed
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Share of hidden values and of attention that is dropped
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// What cargo tells every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    /// 16 x 128 tokens, 4 layers, 256 wide, 8,192 words
    Mini,
    /// 8 x 128 tokens, 6 layers, 384 wide, 30,522 words
    Minilm,
    /// 8 x 256 tokens, 6 layers, 384 wide, 50,257 words: GPT-2, each token from those before it
    Gpt,
    /// 32 x 64 tokens, 2 layers, 512 wide, 8,192 words: LSTM, each token from those before it
    Lstm,
    /// The same of GRU
    Gru,
}

impl Size {
    fn shape(self) -> [usize; 2] {
        match self {
            Self::Mini => [16, 128],
            Self::Minilm => [8, 128],
            Self::Gpt => [8, 256],
            Self::Lstm | Self::Gru => [32, 64],
        }
    }

    fn config(self, dropout: f64) -> TextConfig {
        let [vocab_size, hidden_size, layers, heads] = match self {
            Self::Mini => [8_192, 256, 4, 4],
            Self::Minilm => [30_522, 384, 6, 12],
            Self::Gpt => return TextConfig::Gpt2(gpt(dropout)),
            Self::Lstm => return TextConfig::Lstm(recurrent(dropout)),
            Self::Gru => {
                return TextConfig::Gru(GruConfig {
                    layers: recurrent(dropout),
                });
            }
        };
        let [_, seq] = self.shape();
        TextConfig::Bert(BertConfig {
            vocab_size,
            hidden_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            intermediate_size: 4 * hidden_size,
            max_position_embeddings: seq,
            type_vocab_size: 2,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: dropout,
            attention_probs_dropout_prob: dropout,
            classifier_dropout: None,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            tie_word_embeddings: true,
        })
    }
}

fn gpt(dropout: f64) -> Gpt2Config {
    Gpt2Config {
        vocab_size: 50_257,
        n_positions: 256,
        n_embd: 384,
        n_layer: 6,
        n_head: 6,
        n_inner: None,
        activation_function: "gelu_new".into(),
        resid_pdrop: dropout,
        embd_pdrop: dropout,
        attn_pdrop: dropout,
        classifier_dropout: None,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.02,
        pad_token_id: None,
        bos_token_id: None,
        eos_token_id: None,
        tie_word_embeddings: true,
    }
}

fn recurrent(dropout: f64) -> LstmConfig {
    LstmConfig {
        vocab_size: 8_192,
        embedding_size: 512,
        hidden_size: 512,
        num_hidden_layers: 2,
        dropout,
        initializer_range: 0.05,
        tie_word_embeddings: false,
        pad_token_id: None,
        bos_token_id: None,
        eos_token_id: None,
    }
}

/// One batch, again and again.
struct Batch {
    tokens: Vec<i32>,
    targets: Vec<u32>,
    /// 1 at the positions that are predicted: 15 % of them, or all where each predicts the next.
    predicted: Vec<f32>,
    shape: [usize; 2],
}

impl Batch {
    fn draw(size: Size, vocab_size: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let shape = size.shape();
        let n = shape[0] * shape[1];
        let words = 5..vocab_size as u32;
        let tokens = (0..n).map(|_| rng.random_range(words.clone()) as i32);
        let tokens: Vec<i32> = tokens.collect();
        let targets = (0..n).map(|_| rng.random_range(words.clone())).collect();
        let all = !matches!(size, Size::Mini | Size::Minilm);
        let chosen = |_| f32::from(u8::from(all || rng.random_bool(0.15)));
        Self {
            tokens,
            targets,
            predicted: (0..n).map(chosen).collect(),
            shape,
        }
    }

    /// The loss summed over the predicted positions; all of them are projected.
    fn loss(&self, model: &TokenModel<B>) -> Tensor<B, 1> {
        let device = Default::default();
        let tokens = TensorData::new(self.tokens.clone(), self.shape);
        let input = TokenInput::new(Tensor::from_data(tokens, &device));
        let losses = match model.backbone {
            TextBackbone::Gpt2(_) | TextBackbone::Lstm(_) | TextBackbone::Gru(_) => {
                let states = model.states(&input, None, None);
                let (table, bias) = model.decoder().expect("no adapter");
                ops::linear_cross_entropy(states, table, bias, &self.targets).0
            }
            _ => ops::cross_entropy(model.logits(&input, None, None), &self.targets),
        };
        let n = self.predicted.len();
        let predicted = TensorData::new(self.predicted.clone(), [n]);
        (losses * Tensor::from_data(predicted, &device)).sum()
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let size = arguments.size;
    train::memory::keep_pages();
    let device = Default::default();
    <B as Backend>::seed(&device, 0);
    let config = size.config(arguments.dropout);
    let names = config.names(HeadKind::Tokens);
    let mut model = TokenModel::<B>::draw(&config, &Draw::new(&device, 0.02));
    let mut recipe = OptimizerRecipe::adamw(1e-3);
    recipe.weight_decay = 0.01;
    recipe.clip = 1.0;
    let groups = recipe.groups(&[], &model, names)?;
    let mut optimizer = Optimizer::<B>::new(recipe, groups);
    let batch = Batch::draw(size, config.describe().vocab_size);
    let weight = f64::from(batch.predicted.iter().sum::<f32>());
    let mut loss = f64::NAN;
    let mut began = Instant::now();
    for step in 0..arguments.steps {
        if step == arguments.warmup {
            began = Instant::now();
        }
        let sum = batch.loss(&model);
        let gradients = sum.backward();
        loss = sum.into_scalar().elem::<f64>() / weight;
        let gradients = GradientsParams::from_grads(gradients, &model);
        optimizer.prepare(step as u64, weight);
        model = optimizer.step(1e-3, model, gradients);
    }
    let timed = arguments.steps.saturating_sub(arguments.warmup).max(1);
    let seconds = began.elapsed().as_secs_f64() / timed as f64;
    let figures = json!({
        "tokens_per_second": batch.tokens.len() as f64 / seconds,
        "step_seconds": seconds,
        "peak_memory_bytes": train::run::peak_memory_bytes(),
        "parameters": model.num_params(),
        "loss": loss,
    });
    println!("{figures}");
    Ok(())
}
