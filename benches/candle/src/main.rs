//! Trains the BERT of Hearth's `mlm` recipe in candle on the bundled definitions, with the shipped tokenizer: batches
//! of 64 definitions, dynamic padding, every position projected onto the vocabulary, AdamW, no dropout. The last line
//! is JSON: real tokens a second over the steps after the warm-up, peak memory, loss.
//!
//!     cargo run --release --manifest-path benches/candle/Cargo.toml -- --size nano --grouped --steps 60 --warmup 10

mod data;
mod model;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap, loss};
use clap::{Parser, ValueEnum};
use data::{BATCH, Batch, Batches};
use model::{BertMaskedLm, Config};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

const WEIGHT_DECAY: f64 = 0.01;
const LARGEST_NORM: f64 = 1.0;

/// Masked LM in candle, to hold Hearth's speed against.
#[derive(Parser)]
struct Args {
    #[arg(long, value_enum, default_value = "nano")]
    size: Size,
    /// Sorts each pool of 50 batches by length
    #[arg(long)]
    grouped: bool,
    /// Optimizer steps, the warm-up among them
    #[arg(long, default_value_t = 60)]
    steps: usize,
    /// First steps that are not measured
    #[arg(long, default_value_t = 10)]
    warmup: usize,
    /// Steps the learning rate is planned for [default: --steps]
    #[arg(long)]
    total_steps: Option<usize>,
    /// Highest learning rate [default: 1e-3 nano, 5e-4 mini]
    #[arg(long)]
    lr: Option<f64>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "assets/data/wordnet/definitions.tsv.zst")]
    data: PathBuf,
    #[arg(long, default_value = "assets/models/wordnet-bert-nano/tokenizer.json")]
    tokenizer: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    Nano,
    Mini,
}

impl Size {
    fn config(self, vocab_size: usize) -> Config {
        let (d_model, n_layers, n_heads, d_ff) = match self {
            Self::Nano => (128, 2, 2, 512),
            Self::Mini => (256, 4, 4, 1024),
        };
        Config {
            vocab_size,
            d_model,
            n_layers,
            n_heads,
            d_ff,
            max_positions: 128,
        }
    }

    fn lr(self) -> f64 {
        match self {
            Self::Nano => 1e-3,
            Self::Mini => 5e-4,
        }
    }
}

/// A model with its optimizer.
struct Trainer {
    model: BertMaskedLm,
    /// By name.
    vars: Vec<(String, Var)>,
    /// Of matrices, which decay, and of the rest.
    optimizers: [AdamW; 2],
}

impl Trainer {
    fn new(config: &Config) -> Result<Self> {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let model = BertMaskedLm::new(config, vb)?;
        let mut vars: Vec<_> = {
            let data = map.data().lock().ok().context("a poisoned variable map")?;
            let named = data.iter().map(|(name, var)| (name.clone(), var.clone()));
            named.collect()
        };
        vars.sort_by(|(a, _), (b, _)| a.cmp(b));
        let all = vars.iter().map(|(_, var)| var.clone());
        let (matrices, rest) = all.partition(|var| var.rank() > 1);
        let optimizer = |vars, weight_decay| {
            let params = ParamsAdamW {
                weight_decay,
                ..Default::default()
            };
            AdamW::new(vars, params)
        };
        let optimizers = [optimizer(matrices, WEIGHT_DECAY)?, optimizer(rest, 0.0)?];
        Ok(Self {
            model,
            vars,
            optimizers,
        })
    }

    fn parameters(&self) -> usize {
        self.vars.iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Loss of a batch before the step that is taken on it.
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<f32> {
        let loss = self.loss(batch)?;
        let mut gradients = loss.backward()?;
        self.clip(&mut gradients)?;
        for optimizer in &mut self.optimizers {
            optimizer.set_learning_rate(lr);
            optimizer.step(&gradients)?;
        }
        Ok(loss.to_scalar()?)
    }

    fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let (device, seq) = (&Device::Cpu, batch.seq);
        let tokens = Tensor::from_slice(&batch.tokens, (BATCH, seq), device)?;
        // Finite, so that no softmax becomes NaN; [PAD] is 0.
        let bias = tokens.eq(0u32)?.to_dtype(DType::F32)?.affine(-1e30, 0.0)?;
        let logits = self
            .model
            .forward(&tokens, &bias.reshape((BATCH, 1, 1, seq))?)?;
        let n = batch.targets.len();
        let positions = Tensor::from_slice(&batch.positions, n, device)?;
        let targets = Tensor::from_slice(&batch.targets, n, device)?;
        let chosen = logits.index_select(&positions, 0)?;
        Ok(loss::cross_entropy(&chosen, &targets)?)
    }

    /// Bounds the global norm; a parameter without a gradient is an error, as candle cuts the graph silently at
    /// operations that have no backward.
    fn clip(&self, gradients: &mut GradStore) -> Result<()> {
        let square = |(name, var): &(String, Var)| {
            let gradient = gradients.get(var);
            let gradient = gradient.with_context(|| format!("{name} gets no gradient"))?;
            Ok(gradient.sqr()?.sum_all()?)
        };
        let squares = self.vars.iter().map(square).collect::<Result<Vec<_>>>()?;
        let sum = Tensor::stack(&squares, 0)?.sum_all()?;
        let norm = f64::from(sum.to_scalar::<f32>()?).sqrt();
        if norm > LARGEST_NORM {
            for (_, var) in &self.vars {
                if let Some(gradient) = gradients.remove(var) {
                    gradients.insert(var, (gradient * (LARGEST_NORM / norm))?);
                }
            }
        }
        Ok(())
    }
}

/// The share of the highest rate at a step: up over the first tenth, then down to 0.
fn ramp(step: usize, steps: usize) -> f64 {
    let (step, steps) = (step as f64, steps as f64);
    let up = (step + 1.0) / (steps * 0.1);
    let down = (steps - step) / (steps * 0.9);
    up.min(down).clamp(0.0, 1.0)
}

/// The largest resident set that this process ever had, in bytes.
fn peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmHWM")?.parse::<u64>()? * 1024)
}

fn main() -> Result<()> {
    let started = Instant::now();
    let args = Args::parse();
    ensure!(args.warmup < args.steps, "no step is left to measure");
    let tokenizer = data::tokenizer(&args.tokenizer)?;
    let tokens = data::tokens(&args.data, &tokenizer)?;
    ensure!(tokens.len() >= BATCH, "fewer than {BATCH} definitions");
    let vocab_size = tokenizer.get_vocab_size(true);
    let mut trainer = Trainer::new(&args.size.config(vocab_size))?;
    let rng = ChaCha8Rng::seed_from_u64(args.seed);
    let mut batches = Batches::new(&tokens, vocab_size, args.grouped, rng);
    let lr = args.lr.unwrap_or(args.size.lr());
    let total_steps = args.total_steps.unwrap_or(args.steps);

    let (mut losses, mut targets) = (Vec::new(), Vec::new());
    let (mut real, mut first_step) = (0, 0.0);
    let mut measured = Instant::now();
    for step in 0..args.steps {
        if step == args.warmup {
            measured = Instant::now();
            real = 0;
        }
        let batch = batches.draw();
        real += batch.real;
        targets.push(batch.targets.len());
        losses.push(trainer.step(&batch, lr * ramp(step, total_steps))?);
        if step == 0 {
            first_step = started.elapsed().as_secs_f64();
        }
    }
    let seconds = measured.elapsed().as_secs_f64();
    let report = json!({
        "parameters": trainer.parameters(),
        "real_tokens_per_second": real as f64 / seconds,
        "step_seconds": seconds / (args.steps - args.warmup) as f64,
        "first_step_seconds": first_step,
        "peak_memory_bytes": peak_memory()?,
        "loss": losses.last(),
        "losses": losses,
        "targets": targets,
    });
    println!("{report}");
    Ok(())
}
