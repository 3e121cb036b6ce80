//! Distillation of a classifier of texts. In: labelled texts, and a classifier of their classes. Out: a smaller classifier.
//!
//! Hinton et al. 2015, <https://arxiv.org/abs/1503.02531>; half the layers of the teacher as in Sanh et al. 2019,
//! <https://arxiv.org/abs/1910.01108>.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use data::TextSet;
use model::families::Place;
use model::{HeadKind, TextClassifier};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use train::Failure;
use train::job::text::{LabelledBatch, LabelledTextData};
use train::job::{BundleWriter, Exported, Job, Product, Recipe, Splits, Start};
use train::metrics::{Metric, Metrics};
use train::objective::{LossSums, Objective, SumTally, Tally};
use train::objectives::class_loss::ClassLoss;
use train::objectives::class_tally::{ClassTally, metrics_of};
use train::objectives::distillation::{
    DIVERGENCE, DistillationLoss, DistillationRecipe, MEANS, Seen, Sees, Taught, Teacher,
    WithTeacher, taught,
};
use train::recipe::Impossible;
use train::source::Counts;
use train::ui::Ui;

use crate::text_classification::{TextClassification, classifier};

/// The task; `assets/recipes/text-distillation.toml` and the files that it names explain every key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TextDistillation {
    /// Texts, tokens and the loss of the classes.
    #[serde(flatten)]
    pub classification: TextClassification,
    /// The teacher, and what counts how much.
    pub distillation: DistillationRecipe,
}

impl Job for TextDistillation {
    const NAME: &'static str = "text-distillation";
    const ABOUT: &'static str = "classes of texts with a smaller model, from a larger one";
    const KEY: &'static str = "task";
    const RECIPE: &'static str = include_str!("../../assets/recipes/text-distillation.toml");
    type Source = TextSet;
    type Data = WithTeacher<LabelledTextData>;
    type Batch = Taught<LabelledBatch>;
    type Objective<B: AutodiffBackend> =
        ClassDistillation<B, Teacher<B, TextClassifier<B::InnerBackend>>>;

    fn check(&self, recipe: &Recipe) -> Result<(), Impossible> {
        self.distillation.check(recipe)?;
        self.classification
            .check(&self.distillation.beginning(recipe))
    }

    fn start(&self, recipe: &Recipe, ui: Ui) -> Result<Start, Failure> {
        let max_length = self.classification.tokenizer.max_length;
        self.distillation
            .start(recipe, ui, HeadKind::Classes, max_length)
    }

    fn source(&self, start: &Start) -> Result<TextSet, Failure> {
        self.classification.source(start)
    }

    fn data(
        &self,
        recipe: &Recipe,
        start: &Start,
        texts: TextSet,
    ) -> Result<WithTeacher<LabelledTextData>, Failure> {
        let teacher = self.distillation.open(HeadKind::Classes)?;
        let data = self.classification.data(recipe, start, texts)?;
        teacher.check_classes(&data.classes)?;
        Ok(WithTeacher { data, teacher })
    }

    fn product(&self, data: &WithTeacher<LabelledTextData>) -> Result<Product, Failure> {
        self.classification.product(&data.data)
    }

    fn objective<B: AutodiffBackend>(
        &self,
        data: &WithTeacher<LabelledTextData>,
        start: &Start,
        device: &B::Device,
    ) -> Result<Self::Objective<B>, Failure> {
        let WithTeacher { data, teacher } = data;
        let model = classifier(data, start, device)?;
        let places = [&data.config, &teacher.config].map(|config| config.class_plan().place);
        // After the student: its first weights are those that it has without a teacher.
        let teacher = Teacher::new(teacher.classifier(start, device)?);
        Ok(ClassDistillation {
            model,
            teacher,
            places,
            n_classes: data.classes.len(),
            targets: self.classification.loss_of(data),
            loss: self.distillation.loss(),
        })
    }

    fn batches(
        &self,
        recipe: &Recipe,
        data: WithTeacher<LabelledTextData>,
    ) -> Result<Splits<Taught<LabelledBatch>>, Failure> {
        let WithTeacher { data, teacher } = data;
        let (targets, loss) = (self.classification.loss_of(&data), self.distillation.loss());
        taught(data.batches(recipe), &teacher, move |batch| {
            let weight = targets.weight(&batch.targets);
            loss.denominators(weight, batch.targets.len(), batch.real())
        })
    }
}

/// A student and its teacher.
#[derive(Module, Debug)]
pub struct ClassDistillation<B: Backend, T: Module<B>> {
    /// The student.
    pub model: TextClassifier<B>,
    teacher: T,
    /// Whose state the student's head reads, and the teacher's.
    places: [Place; 2],
    n_classes: usize,
    targets: ClassLoss,
    loss: DistillationLoss,
}

impl<B: Backend, T: Sees<B>> ClassDistillation<B, T> {
    /// What the student and the teacher make of a batch.
    fn both(&self, batch: &LabelledBatch, hidden: bool, device: &B::Device) -> [Seen<B>; 2] {
        let inputs = &batch.inputs;
        let [student, teacher] = self.places.map(|place| inputs.places(place));
        [
            self.model.see(inputs, &student, hidden, device),
            self.teacher.see(inputs, &teacher, hidden, device),
        ]
    }
}

impl<B: Backend, T: Sees<B>> Exported<B> for ClassDistillation<B, T> {
    fn export(&self, writer: &BundleWriter<'_>) -> anyhow::Result<()> {
        writer.write(&self.model)
    }
}

/// What a classifier is judged by, and how far it is from its teacher.
#[derive(Clone, Debug, Default)]
pub struct DistilledTally {
    classes: ClassTally,
    divergence: SumTally,
}

impl Tally for DistilledTally {
    fn merge(&mut self, other: Self) {
        self.classes.merge(other.classes);
        self.divergence.merge(other.divergence);
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.classes.metrics();
        let divergence = self.divergence.metrics();
        let divergence = divergence
            .into_values()
            .map(|mean| (DIVERGENCE.name.into(), mean));
        metrics.extend(divergence);
        metrics
    }

    fn details(&self) -> Option<Value> {
        self.classes.details()
    }

    fn is_empty(&self) -> bool {
        self.divergence.is_empty()
    }
}

/// The figures of a classifier of so many classes, and the divergence.
const fn with_divergence<const N: usize>(n_classes: usize) -> [Metric; N] {
    let (mut all, of_classes) = ([DIVERGENCE; N], metrics_of(n_classes));
    let mut at = 0;
    while at < of_classes.len() {
        all[at] = of_classes[at];
        at += 1;
    }
    all
}

const MANY: usize = usize::MAX;
const OF_FEW: &[Metric] = &with_divergence::<{ metrics_of(0).len() + 1 }>(0);
const OF_MANY: &[Metric] = &with_divergence::<{ metrics_of(MANY).len() + 1 }>(MANY);

impl<B: Backend, T: Sees<B>> Objective<B> for ClassDistillation<B, T> {
    type Batch = Taught<LabelledBatch>;
    type Tally = DistilledTally;
    const MEANS: &'static [&'static str] = MEANS;
    const METRICS: &'static [Metric] = OF_FEW;

    fn metrics(&self) -> &'static [Metric] {
        if metrics_of(self.n_classes).len() < OF_FEW.len() {
            OF_FEW
        } else {
            OF_MANY
        }
    }

    fn loss(&self, batch: &Taught<LabelledBatch>, device: &B::Device) -> LossSums<B> {
        let batch = &batch.batch;
        let [student, teacher] = self.both(batch, self.loss.wants_hidden(), device);
        self.loss
            .sums(student, teacher, &batch.targets, &self.targets)
    }

    fn evaluate(&self, batch: &Taught<LabelledBatch>, device: &B::Device) -> DistilledTally {
        let batch = &batch.batch;
        let [student, teacher] = self.both(batch, false, device);
        let logits = student.logits;
        let divergences = self.loss.divergences(logits.clone(), teacher.logits);
        let sums = LossSums::new(divergences.sum(), Vec::new(), batch.targets.len());
        DistilledTally {
            classes: ClassTally::read(logits, &batch.targets),
            divergence: SumTally::read(sums, &[]),
        }
    }
}
