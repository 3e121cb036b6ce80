//! Writes what `pretrain clm` begins with and trains on, for `benches/torch/clm.py` to do the same in PyTorch: the initial
//! bundle, and the batches of the first steps.
//!
//!     cargo bench -p pretrain --bench clm_batches -- --steps 300 --out batches

use std::collections::HashMap;
use std::path::PathBuf;

use burn::backend::{Autodiff, Flex};
use clap::Parser;
use model::{Precision, bundle};
use pretrain::Clm;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use train::job::text::NextTokenBatch;
use train::job::{Job, Product, Setup, Splits, Start};
use train::ui::Ui;
use train::{BatchSource, Failure, FailureKind};

type B = Autodiff<Flex>;

/// Where a run of `pretrain clm` begins, and its batches.
#[derive(Parser)]
struct Arguments {
    /// Batches that are written
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// A folder for `initial/` and `batches.safetensors`
    #[arg(long)]
    out: PathBuf,
    /// Keys of the recipe, as for `pretrain clm`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What cargo tells every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let settings: Vec<&str> = arguments.set.iter().map(String::as_str).collect();
    let Setup { recipe, job } = Setup::<Clm>::with(&settings)?;
    let start = Start::open(&recipe, Ui::None)?;
    let data = job.data(&recipe, &start, job.source(&start)?)?;
    let Product {
        names,
        config,
        files,
    } = job.product(&data)?;
    let device = Default::default();
    let drawn = || job.objective::<B>(&data, &start, &device);
    let objective = train::seeded::<B, _>(&device, recipe.seed, drawn)?;
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_bytes()))
        .collect();
    let initial = arguments.out.join("initial");
    bundle::write(
        &initial,
        &config,
        &objective.model,
        names,
        Precision::F32,
        &files,
    )?;
    let Splits { train, .. } = job.batches(&recipe, data)?;
    let batches: Vec<_> = (0..arguments.steps)
        .map(|number| train.batch(number))
        .collect();
    let path = arguments.out.join("batches.safetensors");
    std::fs::write(&path, packed(&batches).running()?).running()
}

/// `train.tokens`, `train.targets`, `train.segments` and `train.positions`, each `[steps, batch, seq]`.
fn packed(batches: &[NextTokenBatch]) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let first = &batches[0].inputs;
    let shape = vec![batches.len(), first.lengths.len(), first.seq];
    let mut all: HashMap<&str, Vec<u8>> = HashMap::new();
    let mut put = |name, value: i32| {
        let bytes: &mut Vec<u8> = all.entry(name).or_default();
        bytes.extend(value.to_le_bytes());
    };
    for batch in batches {
        let (tokens, seq) = (&batch.inputs.tokens, batch.inputs.seq);
        let texts = batch.inputs.texts.clone().unwrap_or(vec![0; tokens.len()]);
        let mut position = 0;
        for (place, &token) in tokens.iter().enumerate() {
            let begins = place % seq == 0 || texts[place] != texts[place - 1];
            position = if begins { 0 } else { position + 1 };
            put("train.tokens", token);
            put("train.targets", batch.targets[place] as i32);
            put("train.segments", texts[place]);
            put("train.positions", position);
        }
    }
    let mut views = Vec::new();
    for (name, bytes) in &all {
        views.push((*name, TensorView::new(Dtype::I32, shape.clone(), bytes)?));
    }
    safetensors::serialize(views, None)
}
