//! Replaced token detection (ELECTRA). In: texts. Out: an encoder that tells the tokens of a text from those of a generator.
//!
//! Clark et al. 2020, <https://arxiv.org/abs/2003.10555>. The generator, a smaller masked language model on the tables of the
//! encoder, learns beside it and is not kept. What it puts in the place of a masked token is a function of its weights and of
//! (seed, epoch, text).

use burn::prelude::*;
use burn::tensor::activation::{log_sigmoid, softmax};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{FloatDType, TensorData};
use data::order::{self, Stream};
use data::source::TextSource;
use model::bundle::Load;
use model::families::electra::ElectraConfig;
use model::layers::materialise;
use model::{Draw, Generator, HeadKind, ReplacedTokenModel, TextConfig};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::text::{Collate, Sample, TextData, Texts, TrainedTokenizer, indices};
use train::job::{BundleWriter, Exported, Job, Product, Recipe, Splits, Start};
use train::metrics::{Metric, Metrics, perplexity, share};
use train::objective::{LossSums, Objective, SumTally};
use train::objectives::class_loss::{ClassLoss, SmoothingRecipe};
use train::objectives::tokens::Predicted;
use train::recipe::Impossible;
use train::source::Counts;

use crate::mlm::{Masking, Masks, mask_token};

/// The objective; `assets/recipes/electra.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Electra {
    /// Which texts, and how they are split.
    pub data: Texts,
    /// What turns them into tokens.
    pub tokenizer: TrainedTokenizer,
    /// Which tokens the generator predicts.
    pub masking: Masking,
    /// How large it is.
    pub generator: GeneratorRecipe,
    /// How replaced tokens count.
    pub replaced: ReplacedRecipe,
    /// Cross-entropy of the generator over the vocabulary.
    pub loss: SmoothingRecipe,
}

/// `[generator]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratorRecipe {
    /// Its width, heads and feed-forward width, as a share of the encoder's.
    pub size: f64,
}

impl GeneratorRecipe {
    /// The generator of an encoder of this configuration.
    ///
    /// # Errors
    ///
    /// Another family, or a share that makes impossible sizes.
    fn config(self, encoder: &TextConfig) -> Result<ElectraConfig, Impossible> {
        let size = self.size;
        let wrong = |reason| Err(Impossible::new("generator.size", reason));
        let TextConfig::Electra(encoder) = encoder else {
            return wrong(format!("is {size}, of a model that is no ELECTRA"));
        };
        if !(size > 0.0 && size <= 1.0) {
            return wrong(format!("is {size}; it must be above 0 and at most 1"));
        }
        encoder
            .generator(size)
            .or_else(|reason| wrong(format!("is {size}, which is impossible: {reason}")))
    }
}

/// `[replaced]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplacedRecipe {
    /// Times the loss of the encoder, beside that of the generator.
    pub weight: f64,
}

impl ReplacedRecipe {
    fn check(self) -> Result<(), Impossible> {
        let weight = self.weight;
        if weight.is_finite() && weight > 0.0 {
            return Ok(());
        }
        let reason = format!("is {weight}; it must be above 0");
        Err(Impossible::new("replaced.weight", reason))
    }
}

impl Job for Electra {
    const NAME: &'static str = "electra";
    const ABOUT: &'static str = "which tokens of a text a generator replaced";
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = include_str!("../../assets/recipes/electra.toml");
    type Source = TextSource;
    type Data = TextData;
    type Batch = Replaceable;
    type Objective<B: AutodiffBackend> = ReplacedTokens<B>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.masking.check()?;
        self.replaced.check()?;
        self.loss.check()?;
        recipe.adapter.check_none()?;
        self.data.check(&self.tokenizer, recipe)
    }

    fn source(&self, _: &Start) -> Result<TextSource, Failure> {
        self.data.source()
    }

    fn data(
        &self,
        recipe: &Recipe,
        start: &Start,
        source: TextSource,
    ) -> Result<TextData, Failure> {
        start.check_text_head(HeadKind::Replaced)?;
        self.generator.config(&start.text_sizes()?)?;
        let data = self.data.read(source, &self.tokenizer, recipe, start)?;
        mask_token(&data.tokenizer)?;
        Ok(data)
    }

    fn product(&self, data: &TextData) -> Result<Product, Failure> {
        data.product(HeadKind::Replaced)
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &TextData,
        start: &Start,
        device: &B::Device,
    ) -> Result<ReplacedTokens<B>, Failure> {
        let (config, names) = (&data.config, data.config.names(HeadKind::Replaced));
        let model = ReplacedTokenModel::draw(config, &start.draw(device, names));
        let model = start.fill(model, names, Load::BackboneAndPerhapsHead)?;
        let generator = self.generator.config(config)?;
        Ok(ReplacedTokens {
            model,
            generator: materialise(Generator::draw(&generator, &Draw::new(device, 0.02))),
            loss: ClassLoss::smoothed(self.loss.label_smoothing),
            weight: self.replaced.weight,
        })
    }

    fn batches(&self, recipe: &Recipe, data: TextData) -> Result<Splits<Replaceable>, Failure> {
        let mask = mask_token(&data.tokenizer)?;
        data.batches(recipe, |tokenizer, _, seed| Replacements {
            masks: Masks::new(self.masking, tokenizer, mask, seed),
            seed,
        })
    }
}

/// Texts with masks, and by what each masked token is drawn anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Replaceable {
    /// What the generator sees and predicts.
    pub masked: Predicted,
    /// From 0 to below 1, for each place to predict.
    pub uniforms: Vec<f32>,
}

impl Counts for Replaceable {
    fn real(&self) -> usize {
        self.masked.real()
    }

    fn padded(&self) -> usize {
        self.masked.padded()
    }

    fn denominators(&self) -> Vec<f64> {
        vec![self.masked.targets.len() as f64, self.real() as f64]
    }
}

/// Masks rows, and draws a number for each masked place; both by the number of the row.
pub struct Replacements {
    masks: Masks,
    seed: u64,
}

impl Collate for Replacements {
    type Batch = Replaceable;

    fn collate(&self, rows: Vec<Sample>) -> Replaceable {
        let numbers: Vec<u64> = rows.iter().map(|row| row.number).collect();
        let masked = self.masks.collate(rows);
        let row = |at: i32| at as usize / masked.inputs.seq;
        let of_rows = masked.at.chunk_by(|a, b| row(*a) == row(*b));
        let uniforms = of_rows.flat_map(|places| {
            let mut rng = order::rng(self.seed, Stream::Sample, numbers[row(places[0])]);
            places.iter().map(move |_| rng.random())
        });
        Replaceable {
            uniforms: uniforms.collect(),
            masked,
        }
    }
}

/// The encoder, the generator, and their losses.
#[derive(Module, Debug)]
pub struct ReplacedTokens<B: Backend> {
    /// The encoder with its head, which the bundle keeps.
    pub model: ReplacedTokenModel<B>,
    /// What replaces tokens.
    pub generator: Generator<B>,
    loss: ClassLoss,
    weight: f64,
}

/// A class a row, drawn by its probability: the first at which the sum of the probabilities is above the row's number.
///
/// - logits: `[n, n_classes]`
/// - uniforms: `[n]`, from 0 to below 1
/// - out: `[n]`, without a gradient
fn sampled<B: Backend>(logits: Tensor<B, 2>, uniforms: &[f32]) -> Tensor<B, 1, Int> {
    let [n, n_classes] = logits.dims();
    let uniforms = TensorData::new(uniforms.to_vec(), [n, 1]);
    let uniforms = Tensor::<B, 2>::from_data(uniforms, &logits.device());
    let shares = softmax(logits.detach().cast(FloatDType::F32), 1);
    let passed = shares
        .cumsum(1)
        .lower_equal(uniforms.expand([n, n_classes]));
    // The sum of all may round to less than 1.
    let last = n_classes as i32 - 1;
    passed.int().sum_dim(1).reshape([n]).clamp_max(last)
}

/// Tokens of which those at the masked places are replaced, `[batch, seq]`, and 1 where one is another than before,
/// `[batch * seq]`.
///
/// - drawn: what is put there
fn replaced<B: Backend>(
    masked: &Predicted,
    tokens: Tensor<B, 2, Int>,
    drawn: Tensor<B, 1, Int>,
) -> (Tensor<B, 2, Int>, Tensor<B, 1>) {
    let (shape, device) = (tokens.dims(), tokens.device());
    let n = shape[0] * shape[1];
    // Each place takes its own or one of those behind them all.
    let mut from: Vec<i32> = (0..n as i32).collect();
    for (number, &at) in masked.at.iter().enumerate() {
        from[at as usize] = (n + number) as i32;
    }
    let from = indices(&from, &device);
    let pick = |own, new| Tensor::cat(vec![own, new], 0).select(0, from.clone());
    let targets: Vec<i32> = masked.targets.iter().map(|&id| id as i32).collect();
    let changed = drawn.clone().not_equal(indices(&targets, &device)).int();
    let truths = pick(Tensor::zeros([n], &device), changed).float();
    (pick(tokens.flatten(0, 1), drawn).reshape(shape), truths)
}

/// Binary cross-entropy, summed, `[1]`.
///
/// - logits, truths: `[n]`, the truths 0 or 1
fn binary_cross_entropy<B: Backend>(logits: Tensor<B, 1>, truths: Tensor<B, 1>) -> Tensor<B, 1> {
    -log_sigmoid(logits * (truths * 2.0 - 1.0)).sum()
}

/// Of real tokens the share that is masked, the generator's loss and hits at these; the share that is replaced, that is said to
/// be, and that is said to be rightly. Other figures are made of them.
const SHARES: [&str; 6] = [
    "masked",
    "generator_loss",
    "generator_hits",
    "replaced",
    "claimed",
    "found",
];

impl<B: Backend> ReplacedTokens<B> {
    /// - loss: of the generator
    fn sums(&self, batch: &Replaceable, loss: &ClassLoss, device: &B::Device) -> LossSums<B> {
        let (masked, real) = (&batch.masked, batch.real());
        let mut input = masked.inputs.input::<B>(device);
        let mut truths = Tensor::zeros([masked.padded()], device);
        let none = || Tensor::zeros([1], device);
        let mut generated = LossSums::new(none(), vec![none()], 0);
        if !masked.at.is_empty() {
            let at = indices(&masked.at, device);
            let logits = self.generator.logits(&self.model, &input, at);
            let drawn = sampled(logits.clone(), &batch.uniforms);
            generated = loss.sums(logits, &masked.targets);
            (input.tokens, truths) = replaced(masked, input.tokens, drawn);
        }
        let padded = masked.inputs.real() < masked.inputs.tokens.len();
        let at = padded.then(|| indices(&masked.inputs.real_places(), device));
        let logits = self.model.logits_at(&input, at.clone());
        let logits = logits.cast(FloatDType::F32);
        let truths = match at {
            Some(at) => truths.select(0, at),
            None => truths,
        };
        let claims = logits.clone().detach().greater_elem(0.0).float();
        let hits = claims.clone().equal(truths.clone()).float().sum();
        let n = generated.targets;
        let mut sums = vec![hits, none() + n as f32, generated.loss.clone().detach()];
        sums.append(&mut generated.sums);
        let found = claims.clone() * truths.clone();
        sums.extend([truths.clone(), claims, found].map(Tensor::sum));
        let found = binary_cross_entropy(logits, truths) * self.weight;
        LossSums::weighted(generated.loss, sums, real, n as f64).with_term(found, real as f64)
    }
}

impl<B: Backend> Exported<B> for ReplacedTokens<B> {
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl<B: Backend> Objective<B> for ReplacedTokens<B> {
    type Batch = Replaceable;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = &[
        "accuracy", SHARES[0], SHARES[1], SHARES[2], SHARES[3], SHARES[4], SHARES[5],
    ];
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::higher("accuracy"),
        Metric::higher("f1"),
        Metric::higher("precision"),
        Metric::higher("recall"),
        Metric::lower("generator_perplexity"),
        Metric::higher("generator_accuracy"),
    ];

    fn loss(&self, batch: &Replaceable, device: &B::Device) -> LossSums<B> {
        self.sums(batch, &self.loss, device)
    }

    fn evaluate(&self, batch: &Replaceable, device: &B::Device) -> SumTally {
        // Without smoothing: perplexity follows from it.
        let sums = self.sums(batch, &ClassLoss::default(), device);
        SumTally::read(sums, <Self as Objective<B>>::MEANS)
    }

    fn derive(metrics: &mut Metrics) {
        let [masked, loss, hits, replaced, claimed, found] =
            SHARES.map(|name| metrics.remove(name).unwrap_or_default());
        for (name, value) in [
            ("f1", share(2.0 * found, replaced + claimed)),
            ("precision", share(found, claimed)),
            ("recall", share(found, replaced)),
            ("generator_perplexity", perplexity(share(loss, masked))),
            ("generator_accuracy", share(hits, masked)),
        ] {
            metrics.insert(name.into(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{Diff, Golden};
    use train::job::Setup;
    use train::job::text::TokenBatch;

    /// The objective of the golden file, its batch and its names.
    fn golden() -> (Golden, ReplacedTokens<Diff>, Replaceable) {
        let golden = Golden::open("electra");
        let setup = Setup::<Electra>::with(&[
            "model.embedding_size=7",
            "model.hidden_size=12",
            "model.num_attention_heads=4",
            "model.intermediate_size=20",
            "model.max_position_embeddings=11",
        ])
        .unwrap();
        let mut config = setup.recipe.text_sizes().unwrap();
        config.set_vocabulary(29, 0);
        let size = golden.number("size").into();
        let generator = GeneratorRecipe { size }.config(&config).unwrap();
        let device = Default::default();
        let draw = Draw::new(&device, 0.02);
        let objective = ReplacedTokens {
            model: ReplacedTokenModel::draw(&config, &draw),
            generator: Generator::draw(&generator, &draw),
            loss: ClassLoss::default(),
            weight: golden.number("weight").into(),
        };
        let names = config.names(HeadKind::Replaced);
        let ints = |name: &str| golden.values(name).iter().map(|&id| id as i32).collect();
        let lengths = golden.values("lengths").iter();
        let targets = golden.values("targets").iter();
        let batch = Replaceable {
            masked: Predicted {
                inputs: TokenBatch {
                    tokens: ints("input_ids"),
                    lengths: lengths.map(|&length| length as usize).collect(),
                    seq: 9,
                    texts: None,
                    types: None,
                },
                at: ints("places"),
                targets: targets.map(|&id| id as u32).collect(),
            },
            uniforms: golden.values("uniforms").to_vec(),
        };
        let objective = golden.filled(objective, names);
        (golden, objective, batch)
    }

    #[test]
    fn losses_and_gradients_are_those_of_transformers() {
        let (golden, objective, batch) = golden();
        let device = Default::default();
        let sums = objective.loss(&batch, &device);
        assert_eq!(batch.denominators(), [sums.weight, sums.terms[0].weight]);
        golden.near("generator_loss", sums.loss.clone() / sums.weight);
        let found = sums.terms[0].loss.clone() / (sums.terms[0].weight * objective.weight);
        golden.near("replaced_loss", found);
        let loss = sums.unread_mean_loss();
        golden.near("loss", loss.clone());
        let names = model::Names::new(&model::families::electra::NAMES, HeadKind::Replaced);
        golden.near_gradients(objective, names, loss);
    }

    #[test]
    fn what_is_drawn_counts_as_replaced_where_it_is_another() {
        let (golden, objective, batch) = golden();
        let device = Default::default();
        let input = batch.masked.inputs.input::<Diff>(&device);
        let at = indices(&batch.masked.at, &device);
        let logits = objective.generator.logits(&objective.model, &input, at);
        let drawn = sampled(logits, &batch.uniforms);
        golden.near("drawn", drawn.clone().float());
        let (tokens, truths) = replaced(&batch.masked, input.tokens, drawn.clone());
        golden.near("truths", truths.clone());
        let masked = &batch.masked;
        let at = indices(&masked.at, &device);
        let there = tokens.flatten::<1>(0, 1).select(0, at);
        golden.near("drawn", there.float());
        // One is drawn as it was.
        let sum = truths.sum().into_scalar();
        assert_eq!(sum as usize, masked.targets.len() - 1);
    }

    #[test]
    fn a_number_draws_the_class_that_it_falls_into() {
        let device = Default::default();
        let row = [0.25f32, 0.5, 0.0, 0.25].map(f32::ln);
        let uniforms = [0.0, 0.24, 0.26, 0.74, 0.76, 1.0 - f32::EPSILON / 2.0];
        let logits = Tensor::<Diff, 2>::from_floats([row; 6], &device);
        let drawn = sampled(logits, &uniforms).into_data();
        assert_eq!(drawn.iter::<i32>().collect::<Vec<_>>(), [0, 0, 1, 1, 3, 3]);
    }

    #[test]
    fn figures_are_made_of_sums_over_all_tokens() {
        // Of 100 tokens 20 are masked and 10 replaced; of 8 that are said to be, 6 are.
        let shares = [0.2, 0.4, 0.05, 0.1, 0.08, 0.06];
        let names = SHARES.map(String::from);
        let mut metrics: Metrics = names.into_iter().zip(shares).collect();
        <ReplacedTokens<Diff> as Objective<Diff>>::derive(&mut metrics);
        for (name, value) in [
            ("precision", 0.75),
            ("recall", 0.6),
            ("f1", 2.0 / 3.0),
            ("generator_accuracy", 0.25),
            ("generator_perplexity", 2f64.exp()),
        ] {
            let found = metrics.remove(name).unwrap();
            assert!((found - value).abs() < 1e-12, "{name}: {found}");
        }
        assert!(metrics.is_empty(), "{metrics:?}");
    }

    #[test]
    fn a_batch_without_a_mask_has_nothing_replaced() {
        let (_, objective, mut batch) = golden();
        batch.masked.at.clear();
        batch.masked.targets.clear();
        batch.uniforms.clear();
        let sums = objective.loss(&batch, &Default::default());
        assert_eq!((sums.targets, sums.weight), (20, 0.0));
        assert_eq!(batch.denominators(), [0.0, 20.0]);
        // The loss is that of the encoder alone.
        let loss = sums.terms[0].loss.clone().into_scalar() / 20.0;
        assert_eq!(sums.mean_loss() as f32, loss);
    }

    #[test]
    fn numbers_are_a_function_of_a_samples_number_alone() {
        let text = "a small bird that sings and does not fly far";
        let tokenizer = data::TextTokenizer::train_wordpiece(&[text], 80).unwrap();
        let setup = Setup::<Electra>::with(&["masking.rate=0.5"]).unwrap();
        let replacements = Replacements {
            masks: Masks::new(setup.job.masking, &tokenizer, tokenizer.mask(), 1),
            seed: 1,
        };
        let sample = |number| Sample {
            tokens: tokenizer.encode_one(text, 16).unwrap(),
            starts: vec![0],
            number,
        };
        let one = |number| replacements.collate(vec![sample(number)]);
        assert_eq!(one(7), one(7));
        assert_ne!(one(7).uniforms, one(8).uniforms);
        let both = replacements.collate(vec![sample(7), sample(8)]);
        assert_eq!(both.uniforms, [one(7).uniforms, one(8).uniforms].concat());
        assert_eq!(both.uniforms.len(), both.masked.targets.len());
        assert!(both.uniforms.iter().all(|u| (0.0..1.0).contains(u)));
    }

    #[test]
    fn impossible_recipes_are_refused() {
        let refused = |settings: &[&str]| {
            let Setup { recipe, job } = Setup::<Electra>::with(settings).unwrap();
            let sizes = recipe.text_sizes().unwrap();
            let checked = job.check(&recipe);
            let error = checked.and_then(|()| job.generator.config(&sizes).map(drop));
            error.unwrap_err().to_string()
        };
        for (setting, words) in [
            ("generator.size=0.0", "generator.size is 0; it must be"),
            ("generator.size=1.5", "generator.size is 1.5; it must be"),
            (
                "generator.size=0.6",
                "generator.size is 0.6, which is impossible: 2 attention heads do not divide a width of 77",
            ),
            ("replaced.weight=-1.0", "replaced.weight is -1;"),
            ("masking.rate=2.0", "masking.rate is 2"),
            ("adapter.kind=lora", "adapter.kind is lora"),
        ] {
            let error = refused(&[setting]);
            assert!(error.contains(words), "{setting}: {error}");
        }
    }
}
