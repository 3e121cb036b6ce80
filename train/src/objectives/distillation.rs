//! Distillation: a student learns from what a trained teacher makes of the same texts. In: batches, and a teacher's bundle. Out:
//! sums.
//!
//! Hinton et al. 2015, <https://arxiv.org/abs/1503.02531>; hidden states, and students of some of the teacher's layers, as DistilBERT
//! has them: Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>. `teacher`: the model that does not learn.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::activation::log_softmax;
use data::TextTokenizer;
use model::{HeadKind, TextConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;
use crate::job::strategy::{AdapterKind, HeadStart};
use crate::job::text::check_lengths;
use crate::job::{Recipe, Shared, Splits, Start};
use crate::metrics::Metric;
use crate::objective::LossSums;
use crate::objectives::class_loss::ClassLoss;
use crate::recipe::Impossible;
use crate::source::{BatchSource, Counts};
use crate::ui::Ui;

mod teacher;

pub use teacher::{Seen, Sees, Teacher, TeacherBundle};

/// Names of the sums of [`DistillationLoss::sums`].
pub const MEANS: &[&str] = &["accuracy", "divergence", "targets_loss"];
/// Of the teacher from the student, at the temperature.
pub const DIVERGENCE: Metric = Metric::lower(MEANS[1]);

/// `[distillation]`: the teacher, and what counts how much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // assets/recipes/distilled.toml explains every key.
pub struct DistillationRecipe {
    pub teacher: String,
    pub layers: Vec<usize>,
    pub temperature: f64,
    pub teacher_weight: f64,
    pub targets_weight: f64,
    pub hidden_weight: f64,
}

fn impossible<T>(key: &str, reason: impl Into<String>) -> Result<T, Impossible> {
    Err(Impossible::new(format!("distillation.{key}"), reason))
}

impl DistillationRecipe {
    /// Says what is impossible about these values, if anything is.
    pub fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        if self.teacher.is_empty() {
            return impossible("teacher", "is empty; it names a bundle or a run");
        }
        let temperature = self.temperature;
        if !(temperature.is_finite() && temperature > 0.0) {
            return impossible(
                "temperature",
                format!("is {temperature}; it must be above 0"),
            );
        }
        for (key, weight) in [
            ("teacher_weight", self.teacher_weight),
            ("targets_weight", self.targets_weight),
            ("hidden_weight", self.hidden_weight),
        ] {
            if !(weight.is_finite() && weight >= 0.0) {
                return impossible(key, format!("is {weight}; it must be 0 or more"));
            }
        }
        if self.teacher_weight == 0.0 && self.hidden_weight == 0.0 {
            let reason =
                "and distillation.hidden_weight are 0, so nothing is learned from the teacher";
            return impossible("teacher_weight", reason);
        }
        if recipe.adapter.taken() > 0 {
            let reason = "puts vectors in front of each text, which no teacher has";
            return Err(Impossible::new("adapter.kind", reason));
        }
        if self.layers.is_empty() {
            return Ok(());
        }
        if !self.layers.is_sorted_by(|one, next| one < next) {
            let reason = format!("are {:?}; they must ascend, each once", self.layers);
            return impossible("layers", reason);
        }
        if recipe.from != "scratch" {
            let reason = format!(
                "are {:?}, which the student begins with, and from is \"{}\"; leave out --from, or set distillation.layers=[]",
                self.layers, recipe.from
            );
            return impossible("layers", reason);
        }
        if recipe.adapter.kind != AdapterKind::None {
            let reason = format!(
                "is {}, which belongs beside the weights of a bundle, and distillation.layers takes some of them",
                recipe.adapter.kind.name()
            );
            return Err(Impossible::new("adapter.kind", reason));
        }
        Ok(())
    }

    /// The recipe by which the student begins: from the teacher, with its head, where it takes layers of it.
    pub fn beginning(&self, recipe: &Recipe) -> Recipe {
        let mut recipe = recipe.clone();
        if !self.layers.is_empty() {
            recipe.from = self.teacher.clone();
            recipe.strategy.head = HeadStart::Keep;
        }
        recipe
    }

    /// Opens the teacher.
    ///
    /// # Errors
    ///
    /// No bundle, or one without this head.
    pub fn open(&self, head: HeadKind) -> Result<TeacherBundle, Failure> {
        TeacherBundle::open(&self.teacher, head)
    }

    /// Opens what the student begins with, before any text is read.
    ///
    /// - head: of both models
    /// - max_length: tokens of the longest text
    ///
    /// # Errors
    ///
    /// A teacher that is of no use, or that sees other tokens, or sees less of them, than the student.
    pub fn start(
        &self,
        recipe: &Recipe,
        ui: Ui,
        head: HeadKind,
        max_length: usize,
    ) -> Result<Start, Failure> {
        let teacher = self.open(head)?;
        let beginning = self.beginning(recipe);
        let start = if self.layers.is_empty() {
            Start::open(&beginning, ui)?
        } else {
            let bundle = teacher.bundle.with_layers(&self.layers);
            let bundle = bundle.map_err(|e| {
                Impossible::new("distillation.layers", format!("are impossible: {e}"))
            })?;
            Start::with_bundle(&beginning, Some(bundle), ui)?
        };
        let tokenizer = teacher.tokenizer()?;
        let start = match start.tokenizer()? {
            None => start.with_tokenizer(tokenizer.clone()),
            Some(own) if is_same(&own, &tokenizer)? => start,
            Some(_) => {
                let reason = format!("has another tokenizer than {}", recipe.from);
                return Err(Impossible::new("distillation.teacher", reason).into());
            }
        };
        let config = start.text_config(&tokenizer)?;
        self.check_models(&config, &teacher.config, max_length)?;
        if head == HeadKind::Tokens {
            check_tokens(&config, &teacher.config, start.bundle().is_some())?;
        }
        Ok(start)
    }

    fn check_models(
        &self,
        student: &TextConfig,
        teacher: &TextConfig,
        max_length: usize,
    ) -> Result<(), Impossible> {
        let (student, teacher) = (student.describe(), teacher.describe());
        check_lengths(max_length, teacher.positions)?;
        if self.hidden_weight > 0.0 && student.d_model != teacher.d_model {
            let reason = format!(
                "is {}, and the states of the student are {} wide, those of the teacher {}; set it to 0",
                self.hidden_weight, student.d_model, teacher.d_model
            );
            return impossible("hidden_weight", reason);
        }
        Ok(())
    }

    /// What is learned.
    pub fn loss(&self) -> DistillationLoss {
        DistillationLoss {
            temperature: self.temperature,
            teacher: self.teacher_weight,
            targets: self.targets_weight,
            hidden: self.hidden_weight,
        }
    }
}

/// Refuses a student whose scores of the vocabulary are not those of a teacher's kind.
///
/// - is_trained: whether the student has a vocabulary already
fn check_tokens(
    student: &TextConfig,
    teacher: &TextConfig,
    is_trained: bool,
) -> Result<(), Impossible> {
    let types = [student, teacher].map(|config| config.family().model_type);
    let (student, teacher) = (student.describe(), teacher.describe());
    if student.causal != teacher.causal {
        let reason = format!(
            "is a {}, and the student a {}; both must see the tokens to come, or neither",
            types[1], types[0]
        );
        return impossible("teacher", reason);
    }
    if is_trained && student.vocab_size != teacher.vocab_size {
        let reason = format!(
            "scores {} tokens, and the student {}",
            teacher.vocab_size, student.vocab_size
        );
        return impossible("teacher", reason);
    }
    Ok(())
}

/// Whether two tokenizers make the same tokens of every text, but for the lengths that they cut or fill to.
fn is_same(one: &TextTokenizer, other: &TextTokenizer) -> Result<bool, Failure> {
    let parts = |tokenizer: &TextTokenizer| -> Result<Value, Failure> {
        let mut parts: Value = serde_json::from_str(&tokenizer.to_json()?).unwrap_or_default();
        if let Some(parts) = parts.as_object_mut() {
            parts.remove("truncation");
            parts.remove("padding");
        }
        Ok(parts)
    };
    Ok(parts(one)? == parts(other)?)
}

/// What a student learns: the teacher's scores, the targets, the teacher's states. The mean of each term is weighted and added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillationLoss {
    temperature: f64,
    teacher: f64,
    targets: f64,
    hidden: f64,
}

impl DistillationLoss {
    /// Whether both models are asked for their states.
    pub fn wants_hidden(&self) -> bool {
        self.hidden > 0.0
    }

    /// Sums over a batch, with those that [`MEANS`] names.
    ///
    /// - targets: a class, or a token, for each row of the logits
    /// - loss: of the targets
    pub fn sums<B: Backend>(
        &self,
        student: Seen<B>,
        teacher: Seen<B>,
        targets: &[u32],
        loss: &ClassLoss,
    ) -> LossSums<B> {
        let n = targets.len();
        let of_targets = loss.sums(student.logits.clone(), targets);
        let divergence = self.divergences(student.logits, teacher.logits).sum();
        // Gradients of softened scores are so much smaller, as Hinton et al. say.
        let scale = self.teacher * self.temperature * self.temperature;
        let mut means = of_targets.sums;
        means.extend([divergence.clone(), of_targets.loss.clone()]);
        let sums = LossSums::weighted(of_targets.loss * self.targets, means, n, of_targets.weight)
            .with_term(divergence * scale, n as f64);
        match (student.hidden, teacher.hidden) {
            (Some(ours), Some(theirs)) => {
                let [real, _] = ours.dims();
                let distance = cosine_distances(ours, theirs).sum();
                sums.with_term(distance * self.hidden, real as f64)
            }
            _ => sums,
        }
    }

    /// What each term of [`sums`](Self::sums) is divided by: nothing is learned of a batch without targets.
    ///
    /// - weight: that of the targets
    /// - real: tokens that are no padding
    pub fn denominators(&self, weight: f64, targets: usize, real: usize) -> Vec<f64> {
        let mut all = vec![weight, targets as f64];
        all.extend(self.wants_hidden().then_some(real as f64));
        if targets == 0 {
            all.fill(0.0);
        }
        all
    }

    /// Kullback-Leibler divergence of the teacher from the student, both softened by the temperature, `[n, 1]`.
    ///
    /// - student, teacher: logits, `[n, n_classes]`
    pub fn divergences<B: Backend>(
        &self,
        student: Tensor<B, 2>,
        teacher: Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let soft =
            |logits: Tensor<B, 2>| log_softmax(logits.cast(FloatDType::F32) / self.temperature, 1);
        let (ours, theirs) = (soft(student), soft(teacher));
        (theirs.clone().exp() * (theirs - ours)).sum_dim(1)
    }
}

/// 1 less the cosine of each pair of rows, `[n, 1]`.
///
/// - ours, theirs: `[n, width]`, of any length
fn cosine_distances<B: Backend>(ours: Tensor<B, 2>, theirs: Tensor<B, 2>) -> Tensor<B, 2> {
    let (ours, theirs) = (ours.cast(FloatDType::F32), theirs.cast(FloatDType::F32));
    let dot = |one: &Tensor<B, 2>, other: &Tensor<B, 2>| (one.clone() * other.clone()).sum_dim(1);
    // The root of zero has no finite gradient.
    let lengths = dot(&ours, &ours) * dot(&theirs, &theirs);
    -dot(&ours, &theirs) / lengths.clamp_min(1e-24).sqrt() + 1.0
}

/// What a job reads, and its teacher.
pub struct WithTeacher<D> {
    /// Texts, and the student that reads them.
    pub data: D,
    /// The teacher.
    pub teacher: TeacherBundle,
}

/// A batch, and what each term of its loss is divided by.
#[derive(Clone, Debug, PartialEq)]
pub struct Taught<T> {
    /// What both models see.
    pub batch: T,
    denominators: Vec<f64>,
}

impl<T: Counts> Counts for Taught<T> {
    fn real(&self) -> usize {
        self.batch.real()
    }

    fn padded(&self) -> usize {
        self.batch.padded()
    }

    fn denominators(&self) -> Vec<f64> {
        self.denominators.clone()
    }
}

struct TaughtBatches<T, F> {
    batches: Arc<Shared<T>>,
    denominators: F,
}

impl<T, F> BatchSource for TaughtBatches<T, F>
where
    T: Counts + Send + Sync + 'static,
    F: Fn(&T) -> Vec<f64> + Send + Sync + 'static,
{
    type Batch = Taught<T>;

    fn batches_per_epoch(&self) -> u64 {
        self.batches.batches_per_epoch()
    }

    fn batch(&self, number: u64) -> Taught<T> {
        let batch = self.batches.batch(number);
        Taught {
            denominators: (self.denominators)(&batch),
            batch,
        }
    }
}

/// Batches of a job whose loss is a [`DistillationLoss`].
///
/// - denominators: those of a batch
///
/// # Errors
///
/// A teacher's weights that cannot be read.
pub fn taught<T: Counts + Send + Sync + 'static>(
    splits: Splits<T>,
    teacher: &TeacherBundle,
    denominators: impl Fn(&T) -> Vec<f64> + Clone + Send + Sync + 'static,
) -> Result<Splits<Taught<T>>, Failure> {
    let taught = |batches| {
        let denominators = denominators.clone();
        Shared::new(TaughtBatches {
            batches,
            denominators,
        })
    };
    Ok(Splits {
        train: taught(splits.train),
        valid: taught(splits.valid),
        test: splits.test.map(taught),
        digest: format!("{} {}", splits.digest, teacher.digest()?),
        unit: splits.unit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use crate::recipe::Draft;

    fn seen<B: Backend>(logits: Tensor<B, 2>, hidden: Tensor<B, 2>) -> Seen<B> {
        let hidden = Some(hidden);
        Seen { logits, hidden }
    }

    #[test]
    fn losses_and_gradients_are_those_of_torch() {
        let golden = Golden::open("distillation");
        let targets: Vec<u32> = golden
            .values("targets")
            .iter()
            .map(|id| *id as u32)
            .collect();
        let temperature = f64::from(golden.number("temperature"));
        let loss_of = |[teacher, targets, hidden]: [f64; 3]| DistillationLoss {
            temperature,
            teacher,
            targets,
            hidden,
        };
        for (weights, kind) in [
            ([5.0, 2.0, 1.0], ""),
            ([1.0, 0.0, 0.0], ".divergence"),
            ([0.0, 1.0, 0.0], ".targets"),
            ([0.0, 0.0, 1.0], ".states"),
        ] {
            let (student, states) = (golden.leaf::<2>("student"), golden.leaf::<2>("states"));
            let ours = seen(student.clone(), states.clone());
            let theirs = seen(golden.tensor("teacher"), golden.tensor("teacher_states"));
            let loss = loss_of(weights);
            let sums = loss.sums(ours, theirs, &targets, &ClassLoss::default());
            let weights_of_terms: Vec<f64> = std::iter::once(sums.weight)
                .chain(sums.terms.iter().map(|term| term.weight))
                .collect();
            assert_eq!(weights_of_terms, [6.0, 6.0, 8.0]);
            let mean = sums.unread_mean_loss();
            golden.near(&format!("loss{kind}"), mean.clone());
            let gradients = mean.backward();
            if weights[0] + weights[1] > 0.0 {
                let gradient = student.grad(&gradients).unwrap();
                golden.near(&format!("grad{kind}.student"), gradient);
            }
            if weights[2] > 0.0 {
                let gradient = states.grad(&gradients).unwrap();
                golden.near(&format!("grad{kind}.states"), gradient);
            }
        }
    }

    #[test]
    fn denominators_are_those_of_the_terms() {
        let loss = |hidden| DistillationLoss {
            temperature: 2.0,
            teacher: 1.0,
            targets: 1.0,
            hidden,
        };
        assert_eq!(loss(1.0).denominators(2.5, 3, 7), [2.5, 3.0, 7.0]);
        assert_eq!(loss(0.0).denominators(2.5, 3, 7), [2.5, 3.0]);
        assert_eq!(loss(1.0).denominators(0.0, 0, 7), [0.0; 3]);
    }

    #[test]
    fn bad_recipes_are_refused() {
        const RECIPE: &str = "objective = \"x\"\nlayers = [\"shared\", \"distilled\"]\n[model]\n[distillation]\nteacher = \"a\"\n";
        #[derive(Deserialize)]
        struct Own {
            distillation: DistillationRecipe,
        }
        let told = |settings: &[&str]| {
            let mut draft = Draft::open("x", "objective", &[("x", RECIPE)]).unwrap();
            draft.set_all(settings.iter().copied()).unwrap();
            let own: Own = draft.finish().unwrap();
            let recipe: Recipe = draft.finish().unwrap();
            own.distillation.check(&recipe)
        };
        assert_eq!(told(&[]), Ok(()));
        let layers = "distillation.layers=[0, 2]";
        assert_eq!(told(&[layers]), Ok(()));
        for (settings, words) in [
            (
                &["distillation.teacher="][..],
                "distillation.teacher is empty",
            ),
            (
                &["distillation.temperature=0.0"],
                "distillation.temperature is 0",
            ),
            (
                &["distillation.hidden_weight=-1.0"],
                "distillation.hidden_weight is -1",
            ),
            (
                &[
                    "distillation.teacher_weight=0.0",
                    "distillation.hidden_weight=0.0",
                ],
                "nothing is learned from the teacher",
            ),
            (&["distillation.layers=[1, 0]"], "must ascend"),
            (&["distillation.layers=[1, 1]"], "each once"),
            (&[layers, "from=there"], "from is \"there\""),
            (&[layers, "adapter.kind=lora"], "adapter.kind is lora"),
        ] {
            let reason = told(settings).unwrap_err().to_string();
            assert!(reason.contains(words), "{reason}");
        }
    }
}
