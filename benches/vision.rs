//! Trains a model of images on random pixels of one shape: what `benches/torch/vision.py` does in PyTorch. Prints one line of
//! JSON.
//!
//!     cargo bench -p pretrain --bench vision -- --size resnet18

use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::optim::{GradientsParams, Optimizer as _};
use burn::prelude::*;
use burn::tensor::TensorData;
use clap::{Parser, ValueEnum};
use model::layers::batch_norm;
use model::{Draw, HeadKind, ImageClassifier, ImageConfig, Names, Segmenter, ops};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use train::optim::optimizer::{Optimizer, OptimizerRecipe};

/// That of the programs.
#[global_allocator]
static ALLOCATOR: train::memory::Allocator = train::memory::Allocator;

type B = Autodiff<Flex>;

/// A step of a model of images at a fixed shape.
#[derive(Parser)]
struct Arguments {
    /// Which model and shape
    #[arg(long, default_value = "resnet18")]
    size: Size,
    /// Steps, the warm-up among them
    #[arg(long, default_value_t = 6)]
    steps: usize,
    /// First steps that are not timed
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// What cargo tells every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    /// 64 images of 32x32, a first layer that keeps their size, 10 classes
    Resnet18,
    /// 4 images of 224x224, 1,000 classes
    Resnet50,
    /// 8 images of 224x224, 1,000 classes
    MobilenetV2,
    /// 8 images of 224x224, patches of 16x16, 192 wide, 12 layers, 1,000 classes
    VitTiny,
    /// 8 images of 128x128, 2 classes a pixel
    Unet,
}

impl Size {
    /// Images, their side and the number of classes.
    fn shape(self) -> [usize; 3] {
        match self {
            Self::Resnet18 => [64, 32, 10],
            Self::Resnet50 => [4, 224, 1000],
            Self::MobilenetV2 | Self::VitTiny => [8, 224, 1000],
            Self::Unet => [8, 128, 2],
        }
    }

    fn config(self) -> anyhow::Result<ImageConfig> {
        let [_, side, _] = self.shape();
        let mut config: ImageConfig = serde_json::from_value(match self {
            Self::Resnet18 => json!({
                "model_type": "hearth_resnet", "embedding_size": 64, "hidden_sizes": [64, 128, 256, 512],
                "depths": [2, 2, 2, 2], "layer_type": "basic",
            }),
            Self::Resnet50 => json!({
                "model_type": "resnet", "embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048],
                "depths": [3, 4, 6, 3], "layer_type": "bottleneck",
            }),
            Self::MobilenetV2 => json!({"model_type": "mobilenet_v2"}),
            Self::VitTiny => json!({
                "model_type": "vit", "hidden_size": 192, "num_hidden_layers": 12,
                "num_attention_heads": 3, "intermediate_size": 768,
            }),
            Self::Unet => json!({"model_type": "hearth_unet", "hidden_sizes": [32, 64, 128, 256]}),
        })?;
        config.fit([3, side, side]);
        Ok(config)
    }
}

/// One batch, again and again.
struct Batch {
    pixels: TensorData,
    targets: Vec<u32>,
}

impl Batch {
    fn draw(size: Size) -> Self {
        let [n, side, classes] = size.shape();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let pixels: Vec<f32> = (0..n * 3 * side * side)
            .map(|_| rng.random_range(-1.0..1.0))
            .collect();
        let targets = match size {
            Size::Unet => n * side * side,
            _ => n,
        };
        Self {
            pixels: TensorData::new(pixels, [n, 3, side, side]),
            targets: (0..targets)
                .map(|_| rng.random_range(0..classes as u32))
                .collect(),
        }
    }

    fn images(&self) -> Tensor<B, 4> {
        Tensor::from_data(self.pixels.clone(), &Default::default())
    }
}

/// Seconds of a step, and the last loss.
fn train<M: AutodiffModule<B>>(
    arguments: &Arguments,
    mut model: M,
    names: Names,
    batch: &Batch,
    logits: impl Fn(&M, Tensor<B, 4>) -> Tensor<B, 2>,
) -> anyhow::Result<(f64, f64)> {
    let mut recipe = OptimizerRecipe::adamw(1e-3);
    recipe.weight_decay = 0.01;
    recipe.clip = 1.0;
    let groups = recipe.groups(&[], &model, names)?;
    let mut optimizer = Optimizer::<B>::new(recipe, groups);
    let weight = batch.targets.len() as f64;
    let (mut seconds, mut loss) = (Vec::new(), f64::NAN);
    for step in 0..arguments.steps {
        let began = Instant::now();
        let (sum, proposals) = batch_norm::collect(|| {
            ops::cross_entropy(logits(&model, batch.images()), &batch.targets).sum()
        });
        let gradients = sum.backward();
        loss = sum.into_scalar().elem::<f64>() / weight;
        let gradients = GradientsParams::from_grads(gradients, &model);
        optimizer.prepare(step as u64, weight);
        model = optimizer.step(1e-3, model, gradients);
        model = batch_norm::commit(model, &proposals, None);
        if step >= arguments.warmup {
            seconds.push(began.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let middle = seconds.get(seconds.len() / 2).copied();
    Ok((middle.unwrap_or(f64::NAN), loss))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let size = arguments.size;
    train::memory::keep_pages();
    let device = Default::default();
    <B as Backend>::seed(&device, 0);
    let config = size.config()?;
    let [n, _, classes] = size.shape();
    let batch = Batch::draw(size);
    let draw = Draw::new(&device, 0.02);
    let (seconds, loss) = if let Size::Unet = size {
        let model = Segmenter::<B>::draw(&config, classes, &draw);
        let names = config.names(HeadKind::Masks);
        train(&arguments, model, names, &batch, |model, images| {
            let logits = model.logits(images).permute([0, 2, 3, 1]);
            let [batch, height, width, classes] = logits.dims();
            logits.reshape([batch * height * width, classes])
        })?
    } else {
        let model = ImageClassifier::<B>::draw(&config, classes, &draw);
        let names = config.names(HeadKind::Classes);
        train(&arguments, model, names, &batch, |model, images| {
            model.logits(images)
        })?
    };
    let figures = json!({
        "images_per_second": n as f64 / seconds,
        "step_seconds": seconds,
        "peak_memory_bytes": train::run::peak_memory_bytes(),
        "loss": loss,
    });
    println!("{figures}");
    Ok(())
}
