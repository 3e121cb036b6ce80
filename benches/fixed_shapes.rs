//! Trains a masked LM on random tokens of one shape, all positions projected onto the whole vocabulary: what
//! `benches/torch/fixed_shapes.py` does in PyTorch. Prints one line of JSON.
//!
//!     cargo bench -p pretrain --bench fixed_shapes -- --size mini

use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::optim::{GradientsParams, Optimizer as _};
use burn::prelude::*;
use burn::tensor::TensorData;
use clap::{Parser, ValueEnum};
use model::{BertConfig, BertInput, BertMaskedLm, ops};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use train::optim::optimizer::{Optimizer, OptimizerRecipe};

/// That of the programs.
#[global_allocator]
static ALLOCATOR: train::memory::Allocator = train::memory::Allocator;

type B = Autodiff<Flex>;

/// A masked-LM step at a fixed shape.
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
}

impl Size {
    fn batch(self) -> usize {
        match self {
            Self::Mini => 16,
            Self::Minilm => 8,
        }
    }

    fn config(self, dropout: f64) -> BertConfig {
        let [vocab_size, hidden_size, layers, heads] = match self {
            Self::Mini => [8_192, 256, 4, 4],
            Self::Minilm => [30_522, 384, 6, 12],
        };
        BertConfig {
            vocab_size,
            hidden_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            intermediate_size: 4 * hidden_size,
            max_position_embeddings: SEQ,
            type_vocab_size: 2,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: dropout,
            attention_probs_dropout_prob: dropout,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
        }
    }
}

const SEQ: usize = 128;

/// One batch, again and again.
struct Batch {
    tokens: Vec<i32>,
    targets: Vec<u32>,
    /// 1 at the positions that are predicted, 15 % of them.
    predicted: Vec<f32>,
}

impl Batch {
    fn draw(batch: usize, vocab_size: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let n = batch * SEQ;
        let words = 5..vocab_size as u32;
        let tokens = (0..n).map(|_| rng.random_range(words.clone()) as i32);
        let tokens: Vec<i32> = tokens.collect();
        let targets = (0..n).map(|_| rng.random_range(words.clone())).collect();
        let chosen = |_| f32::from(u8::from(rng.random_bool(0.15)));
        Self {
            tokens,
            targets,
            predicted: (0..n).map(chosen).collect(),
        }
    }

    /// The loss summed over the predicted positions; all of them are projected.
    fn loss(&self, model: &BertMaskedLm<B>, batch: usize) -> Tensor<B, 1> {
        let device = Default::default();
        let tokens = TensorData::new(self.tokens.clone(), [batch, SEQ]);
        let input = BertInput {
            tokens: Tensor::from_data(tokens, &device),
            token_types: None,
            mask_pad: None,
        };
        let logits = model.forward(input).flatten(0, 1);
        let losses = ops::cross_entropy(logits, &self.targets);
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
    let mut model = BertMaskedLm::<B>::new(&config, &device);
    let mut recipe = OptimizerRecipe::adamw(1e-3);
    recipe.weight_decay = 0.01;
    recipe.clip = 1.0;
    let groups = recipe.groups(&[], &model)?;
    let mut optimizer = Optimizer::<B>::new(recipe, groups);
    let batch = Batch::draw(size.batch(), config.vocab_size);
    let weight = f64::from(batch.predicted.iter().sum::<f32>());
    let mut loss = f64::NAN;
    let mut began = Instant::now();
    for step in 0..arguments.steps {
        if step == arguments.warmup {
            began = Instant::now();
        }
        let sum = batch.loss(&model, size.batch());
        let gradients = sum.backward();
        loss = sum.into_scalar().elem::<f64>() / weight;
        let gradients = GradientsParams::from_grads(gradients, &model);
        optimizer.prepare(step as u64, weight);
        model = optimizer.step(1e-3, model, gradients);
    }
    let timed = arguments.steps.saturating_sub(arguments.warmup).max(1);
    let seconds = began.elapsed().as_secs_f64() / timed as f64;
    let figures = json!({
        "tokens_per_second": (size.batch() * SEQ) as f64 / seconds,
        "step_seconds": seconds,
        "peak_memory_bytes": train::run::peak_memory_bytes(),
        "parameters": model.num_params(),
        "loss": loss,
    });
    println!("{figures}");
    Ok(())
}
