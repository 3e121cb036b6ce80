//! Distillation of a language model. In: texts, and a teacher. Out: a smaller model with the teacher's tokenizer.
//!
//! Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>. A student of an encoder fills the masks of masked language modelling, one of a
//! decoder continues texts; both learn the teacher's scores at the same places.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::source::TextSource;
use model::{HeadKind, TokenModel};
use serde::{Deserialize, Serialize};
use train::Failure;
use train::job::text::{Collate, NextTokenBatch, NextTokens, Sample, TextData};
use train::job::{BundleWriter, Exported, Job, Product, Recipe, Splits, Start};
use train::metrics::{Metric, Metrics, perplexity};
use train::objective::{LossSums, Objective, SumTally};
use train::objectives::class_loss::{self, ClassLoss};
use train::objectives::distillation::{
    DIVERGENCE, DistillationLoss, DistillationRecipe, MEANS, Sees, Taught, Teacher, WithTeacher,
    taught,
};
use train::objectives::tokens::Predicted;
use train::recipe::Impossible;
use train::source::Counts;
use train::ui::Ui;

use crate::mlm::{Masks, Mlm, mask_token};

/// The objective; `assets/recipes/distillation.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Distillation {
    /// Texts, tokens and masks.
    #[serde(flatten)]
    pub mlm: Mlm,
    /// The teacher, and what counts how much.
    pub distillation: DistillationRecipe,
}

impl Job for Distillation {
    const NAME: &'static str = "distillation";
    const ABOUT: &'static str = "a smaller language model from a larger one";
    const KEY: &'static str = "objective";
    const RECIPE: &'static str = include_str!("../../assets/recipes/distillation.toml");
    type Source = TextSource;
    type Data = WithTeacher<TextData>;
    type Batch = Taught<Predicted>;
    type Objective<B: AutodiffBackend> =
        TokenDistillation<B, Teacher<B, TokenModel<B::InnerBackend>>>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.distillation.check(recipe)?;
        self.mlm.check(&self.distillation.beginning(recipe))
    }

    fn start(&self, recipe: &Recipe, ui: Ui) -> Result<Start, Failure> {
        let max_length = self.mlm.tokenizer.given.max_length;
        self.distillation
            .start(recipe, ui, HeadKind::Tokens, max_length)
    }

    fn source(&self, start: &Start) -> Result<TextSource, Failure> {
        self.mlm.source(start)
    }

    fn data(
        &self,
        recipe: &Recipe,
        start: &Start,
        source: TextSource,
    ) -> Result<WithTeacher<TextData>, Failure> {
        let teacher = self.distillation.open(HeadKind::Tokens)?;
        let sizes = teacher.config.describe();
        if !sizes.causal {
            mask_token(&teacher.tokenizer()?)?;
        }
        let read = &self.mlm.data;
        let mut data = read.read(source, &self.mlm.tokenizer, recipe, start)?;
        if start.bundle().is_none() {
            // The teacher may score more tokens than there are.
            data.config
                .set_vocabulary(sizes.vocab_size, data.tokenizer.pad());
        }
        Ok(WithTeacher { data, teacher })
    }

    fn product(&self, data: &WithTeacher<TextData>) -> Result<Product, Failure> {
        data.data.product(HeadKind::Tokens)
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &WithTeacher<TextData>,
        start: &Start,
        device: &B::Device,
    ) -> Result<Self::Objective<B>, Failure> {
        let WithTeacher { data, teacher } = data;
        let model = data.token_model(start, device)?;
        // After the student: its first weights are those that it has without a teacher.
        let teacher = Teacher::new(teacher.token_model(start, device)?);
        Ok(TokenDistillation {
            model,
            teacher,
            targets: ClassLoss::smoothed(self.mlm.loss.label_smoothing),
            loss: self.distillation.loss(),
        })
    }

    fn batches(
        &self,
        recipe: &Recipe,
        data: WithTeacher<TextData>,
    ) -> Result<Splits<Taught<Predicted>>, Failure> {
        let WithTeacher { data, teacher } = data;
        let max_length = data.max_length;
        let places = if data.config.describe().causal {
            data.batches(recipe, |tokenizer, _, _| {
                Places::Next(NextTokens::new(tokenizer, max_length))
            })?
        } else {
            let mask = mask_token(&data.tokenizer)?;
            data.batches(recipe, |tokenizer, _, seed| {
                Places::Masked(Masks::new(self.mlm.masking, tokenizer, mask, seed))
            })?
        };
        let loss = self.distillation.loss();
        taught(places, &teacher, move |batch: &Predicted| {
            let n = batch.targets.len();
            loss.denominators(n as f64, n, batch.real())
        })
    }
}

/// Which tokens are predicted.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for all batches of a split"
)]
enum Places {
    Masked(Masks),
    Next(NextTokens),
}

impl Collate for Places {
    type Batch = Predicted;

    fn collate(&self, rows: Vec<Sample>) -> Predicted {
        match self {
            Self::Masked(masks) => masks.collate(rows),
            Self::Next(next) => {
                let NextTokenBatch {
                    inputs,
                    at,
                    targets,
                    ..
                } = next.collate(rows);
                Predicted {
                    inputs,
                    at,
                    targets,
                }
            }
        }
    }
}

/// A student and its teacher.
#[derive(Module, Debug)]
pub struct TokenDistillation<B: Backend, T: Module<B>> {
    /// The student.
    pub model: TokenModel<B>,
    teacher: T,
    targets: ClassLoss,
    loss: DistillationLoss,
}

impl<B: Backend, T: Sees<B>> Exported<B> for TokenDistillation<B, T> {
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

impl<B: Backend, T: Sees<B>> Objective<B> for TokenDistillation<B, T> {
    type Batch = Taught<Predicted>;
    type Tally = SumTally;
    const MEANS: &'static [&'static str] = MEANS;
    const METRICS: &'static [Metric] = &[
        Metric::LOSS,
        Metric::lower("perplexity"),
        Metric::higher("accuracy"),
        DIVERGENCE,
    ];

    fn loss(&self, batch: &Taught<Predicted>, device: &B::Device) -> LossSums<B> {
        let Predicted {
            inputs,
            at,
            targets,
        } = &batch.batch;
        let hidden = self.loss.wants_hidden();
        let student = self.model.see(inputs, at, hidden, device);
        let teacher = self.teacher.see(inputs, at, hidden, device);
        self.loss.sums(student, teacher, targets, &self.targets)
    }

    fn evaluate(&self, batch: &Taught<Predicted>, device: &B::Device) -> SumTally {
        let Predicted {
            inputs,
            at,
            targets,
        } = &batch.batch;
        let student = self.model.see(inputs, at, false, device).logits;
        let teacher = self.teacher.see(inputs, at, false, device).logits;
        // The loss of the targets alone: figures are those of the same model without a teacher.
        let mut sums = class_loss::cross_entropy(student.clone(), targets);
        sums.sums
            .push(self.loss.divergences(student, teacher).sum());
        SumTally::read(sums, MEANS)
    }

    fn derive(metrics: &mut Metrics) {
        let targets = metrics.get("targets_loss").or(metrics.get("loss"));
        if let Some(loss) = targets.copied() {
            metrics.insert("perplexity".into(), perplexity(loss));
        }
    }
}
